//! The attributes that the loop shares with the code it inherits from asyncio.

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyType};

use super::{EVENT_LOOP, EventLoop, Overridden};
use crate::clock;
use crate::ffi::Slot;
use crate::ffi::method::Returned;
use crate::ffi::object::{class_version, is_builtin};
use crate::{method, property};

fn boolean(py: Python<'_>, value: bool) -> Returned<'_> {
    Ok(PyBool::new(py, value).to_owned().into_any())
}

fn truth(value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<bool> {
    value.map_or(Ok(false), |value| value.is_truthy())
}

fn closed<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    boolean(object.py(), EVENT_LOOP.of(object).closed.get())
}

fn set_closed(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    EVENT_LOOP.of(object).closed.set(truth(value)?);
    Ok(())
}

fn stopping<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    boolean(object.py(), EVENT_LOOP.of(object).stopping.get())
}

fn set_stopping(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    EVENT_LOOP.of(object).stopping.set(truth(value)?);
    Ok(())
}

fn debug<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    boolean(object.py(), EVENT_LOOP.of(object).debug.get())
}

fn set_debug(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    EVENT_LOOP.of(object).debug.set(truth(value)?);
    Ok(())
}

fn read<'py>(object: &Bound<'py, PyAny>, slot: &Slot) -> Bound<'py, PyAny> {
    let py = object.py();
    slot.get(py).unwrap_or_else(|| py.None().into_bound(py))
}

fn write(slot: &Slot, value: Option<Borrowed<'_, '_, PyAny>>) {
    match value {
        Some(value) if !value.is_none() => slot.set(value.to_owned()),
        _ => slot.clear(),
    }
}

fn thread_id<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(read(object, &EVENT_LOOP.of(object).thread_id))
}

fn set_thread_id(
    object: &Bound<'_, PyAny>,
    value: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<()> {
    write(&EVENT_LOOP.of(object).thread_id, value);
    Ok(())
}

fn task_factory<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(read(object, &EVENT_LOOP.of(object).task_factory))
}

fn set_task_factory(
    object: &Bound<'_, PyAny>,
    value: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<()> {
    write(&EVENT_LOOP.of(object).task_factory, value);
    Ok(())
}

fn default_executor<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(read(object, &EVENT_LOOP.of(object).default_executor))
}

fn set_default_executor(
    object: &Bound<'_, PyAny>,
    value: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<()> {
    write(&EVENT_LOOP.of(object).default_executor, value);
    Ok(())
}

fn executor_ended<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    boolean(object.py(), EVENT_LOOP.of(object).executor_ended.get())
}

fn set_executor_ended(
    object: &Bound<'_, PyAny>,
    value: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<()> {
    EVENT_LOOP.of(object).executor_ended.set(truth(value)?);
    Ok(())
}

fn is_running<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    boolean(object.py(), EVENT_LOOP.of(object).thread_id.is_set())
}

fn release<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    EVENT_LOOP.of(object).release(object.py());
    Ok(object.py().None().into_bound(object.py()))
}

/// The methods that native code calls on itself, as far as they can be replaced.
const REPLACEABLE: [&str; 7] = [
    "call_soon",
    "create_task",
    "time",
    "run_in_executor",
    "create_future",
    "call_soon_threadsafe",
    "sock_connect",
];

/// After an attribute was set on an instance: whether it replaces a method that native code relies on.
///
/// # Errors
/// What looking the attributes up raises.
pub fn noticed(object: &Bound<'_, PyAny>, name: &Bound<'_, PyAny>) -> PyResult<()> {
    if REPLACEABLE
        .iter()
        .any(|known| name.eq(known).unwrap_or(false))
    {
        find_overridden(object)?;
    }
    Ok(())
}

/// Looks whether a subclass or the instance replaces methods that native code would otherwise bypass.
fn find_overridden(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = object.py();
    let native = EVENT_LOOP.type_object(py);
    let state = EVENT_LOOP.of(object);
    let mut overridden = state.overridden.get();
    overridden.call_soon = is_replaced(object, &native, "call_soon")?;
    overridden.create_task = is_replaced(object, &native, "create_task")?;
    overridden.time = is_replaced(object, &native, "time")?;
    overridden.executor = false;
    for name in ["run_in_executor", "create_future", "call_soon_threadsafe"] {
        overridden.executor |= is_replaced(object, &native, name)?;
    }
    overridden.connecting = is_replaced(object, &native, "create_future")?
        || is_other(object, &native, "sock_connect")?;
    state.overridden.set(overridden);
    // The look-ups have made Python number the class, if it can.
    state.class_version.set(class_version(object));
    Ok(())
}

/// Whether `object.name` is something else than the native method. Its dictionary is left alone: reading `__dict__` makes
/// one, which slows every later method call down.
fn is_replaced(
    object: &Bound<'_, PyAny>,
    native: &Bound<'_, PyType>,
    name: &str,
) -> PyResult<bool> {
    Ok(!is_builtin(&object.getattr(name)?) || is_other(object, native, name)?)
}

/// As [`is_replaced`], for a method that stands for a coroutine function of asyncio's.
fn is_other(object: &Bound<'_, PyAny>, native: &Bound<'_, PyType>, name: &str) -> PyResult<bool> {
    // An instance of a class that this module was reloaded after is not bound.
    let Ok(ours) = native.getattr(name)?.call_method1("__get__", (object,)) else {
        return Ok(true);
    };
    Ok(!object.getattr(name)?.eq(&ours)?)
}

/// `_prepare()`: called by `Loop.__init__`.
fn prepare<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    find_overridden(object)?;
    EVENT_LOOP.of(object).open()?;
    EVENT_LOOP.of(object).closed.set(false);
    EVENT_LOOP.expect(&object.get_type());
    Ok(object.py().None().into_bound(object.py()))
}

fn time<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(pyo3::types::PyFloat::new(object.py(), clock::monotonic(object.py())?).into_any())
}

impl EventLoop {
    /// Which methods are replaced, looked up again where the class has changed.
    #[inline]
    pub(super) fn overridden(&self, event_loop: &Bound<'_, PyAny>) -> Overridden {
        let version = class_version(event_loop);
        if version == 0 || version != self.class_version.get() {
            return self.overridden_now(event_loop);
        }
        self.overridden.get()
    }

    #[cold]
    fn overridden_now(&self, event_loop: &Bound<'_, PyAny>) -> Overridden {
        match find_overridden(event_loop) {
            Ok(()) => self.overridden.get(),
            // Whatever cannot be looked up is not ours.
            Err(_) => Overridden {
                call_soon: true,
                create_task: true,
                time: true,
                executor: true,
                connecting: true,
            },
        }
    }

    /// The loop's clock, in seconds, by way of a replaced `time()` where there is one.
    ///
    /// # Errors
    /// What a replaced `time()` raises.
    #[inline]
    pub fn now(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<f64> {
        if self.overridden(event_loop).time {
            return event_loop
                .call_method0(pyo3::intern!(event_loop.py(), "time"))?
                .extract();
        }
        clock::monotonic(event_loop.py())
    }
}

pub(super) fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(none "_prepare" => prepare, "Open the poller and note which methods a subclass replaces."),
        method!(none "_release" => release, "Drop all that is scheduled or watched, and close the poller."),
        method!(none "time" => time, "Return the time of the loop's clock, in seconds: time.monotonic()."),
        method!(none "is_closed" => closed, "Return True if close() was called."),
        method!(none "is_running" => is_running, "Return True if the loop is running."),
        method!(none "get_debug" => debug, "Return True if debug mode is on."),
    ]
}

pub(super) fn properties() -> Vec<ffi::PyGetSetDef> {
    vec![
        property!("_closed" => closed, set_closed),
        property!("_stopping" => stopping, set_stopping),
        property!("_debug" => debug, set_debug),
        property!("_thread_id" => thread_id, set_thread_id),
        property!("_task_factory" => task_factory, set_task_factory),
        property!("_default_executor" => default_executor, set_default_executor),
        property!("_executor_shutdown_called" => executor_ended, set_executor_ended),
    ]
}
