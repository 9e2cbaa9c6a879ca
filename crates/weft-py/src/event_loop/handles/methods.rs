//! The methods and properties of handles, and their classes.

use std::ffi::c_int;
use std::mem::offset_of;

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyFloat, PyList, PyString};

use super::{HANDLE, Handle, Nothing, TIMER_HANDLE, describe_callback, run};
use crate::event_loop::{self, EVENT_LOOP};
use crate::ffi::class::Description;
use crate::ffi::context;
use crate::ffi::lifecycle::{class_slots, dealloc_slot};
use crate::ffi::method::Returned;
use crate::imports::imports;
use crate::{method, property, slot};

fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let handle = HANDLE.of(object);
    if let Some(kept) = handle.representation.get(py) {
        return Ok(kept);
    }
    let parts = PyList::new(py, [object.get_type().name()?])?;
    if handle.cancelled.get() {
        parts.append("cancelled")?;
    }
    if is_timer(object) {
        parts.append(format!(
            "when={}",
            PyFloat::new(py, handle.when.get()).repr()?
        ))?;
    }
    if let (Some(callback), Some(event_loop)) = (handle.callback.get(py), handle.event_loop.get(py))
    {
        parts.append(describe_callback(
            &event_loop,
            &callback,
            &handle.arguments(py)?,
        )?)?;
    }
    if let Some(traceback) = handle.source_traceback.get(py)
        && traceback.len()? > 0
    {
        let frame = traceback.get_item(-1)?;
        parts.append(format!(
            "created at {}:{}",
            frame.get_item(0)?,
            frame.get_item(1)?
        ))?;
    }
    let text = PyString::new(py, " ").call_method1("join", (parts,))?;
    Ok(PyString::new(py, &format!("<{text}>")).into_any())
}

#[inline]
pub(super) fn is_timer(object: &Bound<'_, PyAny>) -> bool {
    TIMER_HANDLE.is_exact(object)
}

pub(super) fn cancel<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let handle = HANDLE.of(object);
    if !handle.cancelled.replace(true) {
        if let Some(event_loop) = handle.event_loop.get(py) {
            if event_loop::is_debug(&event_loop)? {
                // The reports of slow callbacks still want to name it.
                handle.cancelled.set(false);
                let text = representation(object);
                handle.cancelled.set(true);
                handle
                    .representation
                    .set(cancelled_representation(py, &text?)?);
            }
            if handle.scheduled.get() {
                event_loop::timer_cancelled(&event_loop);
            }
        }
        handle.forget_callback();
    }
    Ok(py.None().into_bound(py))
}

/// Puts the word `cancelled` where the representation of a cancelled handle has it.
fn cancelled_representation<'py>(py: Python<'py>, text: &Bound<'py, PyAny>) -> Returned<'py> {
    let text: String = text.extract()?;
    let inner = text.trim_start_matches('<');
    let split = inner.find([' ', '>']).unwrap_or(inner.len());
    let (name, rest) = inner.split_at(split);
    Ok(PyString::new(py, &format!("<{name} cancelled{rest}")).into_any())
}

fn cancelled<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let answer = HANDLE.of(object).cancelled.get();
    Ok(pyo3::types::PyBool::new(object.py(), answer)
        .to_owned()
        .into_any())
}

fn run_method<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let (py, handle) = (object.py(), HANDLE.of(object));
    if let Some(event_loop) = handle.event_loop.get(py)
        && let Some(state) = EVENT_LOOP.get(&event_loop)
    {
        run(state, object, handle)?;
    }
    Ok(py.None().into_bound(py))
}

fn or_none<'py>(py: Python<'py>, value: Option<Bound<'py, PyAny>>) -> Bound<'py, PyAny> {
    value.unwrap_or_else(|| py.None().into_bound(py))
}

fn get_context<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let (py, handle) = (object.py(), HANDLE.of(object));
    if let Some(snapshot) = handle.context.get(py)
        && handle.shared.replace(false)
    {
        // Whoever asks may change it.
        handle.context.set(context::copy(&snapshot)?);
    }
    Ok(or_none(py, handle.context.get(py)))
}

fn get_callback<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(or_none(
        object.py(),
        HANDLE.of(object).callback.get(object.py()),
    ))
}

fn get_args<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let (py, handle) = (object.py(), HANDLE.of(object));
    if handle.cancelled.get() {
        Ok(py.None().into_bound(py))
    } else {
        handle.arguments(py)
    }
}

fn get_loop<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(or_none(
        object.py(),
        HANDLE.of(object).event_loop.get(object.py()),
    ))
}

fn get_source_traceback<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(or_none(
        object.py(),
        HANDLE.of(object).source_traceback.get(object.py()),
    ))
}

fn set_source_traceback(
    object: &Bound<'_, PyAny>,
    value: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<()> {
    match value {
        Some(value) if !value.is_none() => HANDLE.of(object).source_traceback.set(value.to_owned()),
        _ => HANDLE.of(object).source_traceback.clear(),
    }
    Ok(())
}

// A handle cannot inherit from `asyncio.Handle`, whose memory is that of a collected object. It says that it is one,
// so that `isinstance()` agrees.

fn class_of_handle<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(imports(object.py()).handle.bind(object.py()).clone())
}

fn class_of_timer<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(imports(object.py()).timer_handle.bind(object.py()).clone())
}

fn get_when<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyFloat::new(object.py(), HANDLE.of(object).when.get()).into_any())
}

fn get_scheduled<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let answer = HANDLE.of(object).scheduled.get();
    Ok(pyo3::types::PyBool::new(object.py(), answer)
        .to_owned()
        .into_any())
}

fn hash(object: &Bound<'_, PyAny>) -> PyResult<ffi::Py_hash_t> {
    PyFloat::new(object.py(), HANDLE.of(object).when.get()).hash()
}

/// Timer handles are ordered by their deadline, as asyncio's are.
fn compare<'py>(
    left: &Bound<'py, PyAny>,
    right: &Bound<'py, PyAny>,
    operation: c_int,
) -> Returned<'py> {
    let py = left.py();
    if !is_timer(left) || !right.is_instance(imports(py).timer_handle.bind(py))? {
        return Ok(py.NotImplemented().into_bound(py));
    }
    let equal = || -> PyResult<bool> {
        for name in ["_when", "_callback", "_args", "_cancelled"] {
            if !left.getattr(name)?.eq(right.getattr(name)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let x = HANDLE.of(left).when.get();
    let y = if is_timer(right) {
        HANDLE.of(right).when.get()
    } else {
        right.getattr("_when")?.extract()?
    };
    let answer = match operation {
        ffi::Py_LT => x < y,
        ffi::Py_LE => x < y || equal()?,
        ffi::Py_GT => x > y,
        ffi::Py_GE => x > y || equal()?,
        ffi::Py_EQ => equal()?,
        ffi::Py_NE => !equal()?,
        _ => return Ok(py.NotImplemented().into_bound(py)),
    };
    Ok(pyo3::types::PyBool::new(py, answer).to_owned().into_any())
}

/// Makes both classes and adds them to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut slots = class_slots::<Handle>();
    slots.push(slot!(repr representation));
    let handle = HANDLE.make(
        py,
        c"weft.Handle",
        None,
        Description {
            methods: vec![
                method!(none "cancel" => cancel, "Keep the callback from being called; without effect once it was."),
                method!(none "cancelled" => cancelled, "Return True if the handle was cancelled."),
                method!(none "get_context" => get_context, "Return the contextvars.Context that the callback runs in."),
                method!(none "_run" => run_method, "Call the callback now."),
            ],
            properties: vec![
                property!("__class__" => class_of_handle),
                property!("_callback" => get_callback),
                property!("_args" => get_args),
                property!("_cancelled" => cancelled),
                property!("_context" => get_context),
                property!("_loop" => get_loop),
                property!("_source_traceback" => get_source_traceback, set_source_traceback),
            ],
            slots,
            doc: Some(c"A callback that the loop will call, as asyncio.Handle."),
            subclassable: true,
            weak_references: Some(offset_of!(Handle, weak_references)),
            immutable: true,
            ..Description::default()
        },
    )?;
    let timer = TIMER_HANDLE.make(
        py,
        c"weft.TimerHandle",
        Some(&handle),
        Description {
            methods: vec![
                method!(none "when" => get_when, "Return the moment of the call, in seconds of loop.time()."),
            ],
            properties: vec![
                property!("__class__" => class_of_timer),
                property!("_when" => get_when),
                property!("_scheduled" => get_scheduled),
            ],
            slots: vec![
                dealloc_slot::<Handle, Nothing>(),
                slot!(hash hash),
                slot!(compare compare),
            ],
            doc: Some(c"A callback that the loop will call at a given time, as asyncio.TimerHandle."),
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("Handle", handle)?;
    module.add("TimerHandle", timer)
}
