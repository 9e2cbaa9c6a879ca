//! What Python sees of an operation: the methods and attributes of a coroutine.

use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyStopIteration};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyString};

use super::{Frame, Operation, Phase, advance, sent_by, throw_in, unfit};
use crate::ffi::call::method1;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::{Args, Returned};
use crate::ffi::object::set_native_iter;
use crate::ffi::slots::Advanced;
use crate::futures::thrown_error;
use crate::imports::imports;

/// `__await__`: refused while somebody else awaits the operation.
///
/// # Errors
/// `RuntimeError` then.
#[inline]
pub fn begin_await<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    if T::class().of(object).phase.get().is_suspended() {
        return Err(PyRuntimeError::new_err(
            "coroutine is being awaited already",
        ));
    }
    Ok(object.clone())
}

/// The slot for `__iter__` that all operations have alike, by which they are known as coroutines.
pub fn iter_slot() -> ffi::PyType_Slot {
    let slot = crate::slot!(iter self::itself);
    set_native_iter(&slot);
    slot
}

/// `__iter__`.
///
/// # Errors
/// None.
pub fn itself<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(object.clone())
}

/// Turns the end of a step into the exception that `send()` and `throw()` raise.
fn surfaced(advanced: Advanced<'_>) -> Returned<'_> {
    match advanced {
        Advanced::Yielded(value) => Ok(value),
        Advanced::Returned(value) => {
            let stop = value.py().get_type::<PyStopIteration>().call1((value,))?;
            Err(PyErr::from_value(stop))
        }
    }
}

/// `send(value)`.
///
/// # Errors
/// `StopIteration` at the end, and what the operation raises.
pub fn send<'py, T: Operation>(
    object: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let frame = T::class().of(object);
    if frame.phase.get() == Phase::New && !value.is_none() {
        return Err(pyo3::exceptions::PyTypeError::new_err(
            "can't send non-None value to a just-started coroutine",
        ));
    }
    if frame.phase.get() == Phase::Awaiting
        && !value.is_none()
        && let Some(iterator) = frame.awaited.get(object.py())
    {
        let py = object.py();
        frame.phase.set(Phase::Running);
        let outcome = method1(&iterator, intern!(py, "send"), value);
        return surfaced(frame.sent(object, sent_by(py, outcome))?);
    }
    surfaced(advance::<T>(object)?)
}

/// `throw(exception)`, and its older form with three arguments.
///
/// # Errors
/// `StopIteration` at the end, and what the operation raises.
pub fn throw<'py, T: Operation>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let error = thrown_error(object.py(), args)?;
    surfaced(throw_in::<T>(object, error)?)
}

/// `close()`.
///
/// # Errors
/// What the operation raises, but for `GeneratorExit`.
pub fn close<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let frame = T::class().of(object);
    match frame.phase.get() {
        Phase::New => frame.end(),
        Phase::Ended => {}
        Phase::Running => return Err(unfit(Phase::Running)),
        _ => match throw_in::<T>(object, PyGeneratorExit::new_err(())) {
            Ok(Advanced::Returned(_)) => {}
            Ok(Advanced::Yielded(_)) => {
                return Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit"));
            }
            Err(error)
                if error.is_instance_of::<PyGeneratorExit>(py)
                    || error.is_instance_of::<PyStopIteration>(py) => {}
            Err(error) => return Err(error),
        },
    }
    Ok(py.None().into_bound(py))
}

/// `tp_finalize`: one that was never awaited is reported, one that is suspended is closed.
///
/// # Errors
/// What closing raises.
pub fn finalize<T: Operation>(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = object.py();
    let frame = T::class().of(object);
    match frame.phase.get() {
        Phase::New => {
            imports(py).warn_unawaited.bind(py).call1((object,))?;
        }
        phase if phase.is_suspended() => {
            close::<T>(object)?;
        }
        _ => {}
    }
    Ok(())
}

/// `__name__`.
///
/// # Errors
/// `MemoryError`.
pub fn name<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let name = T::NAME.rsplit('.').next().unwrap_or(T::NAME);
    Ok(PyString::new(object.py(), name).into_any())
}

/// `__qualname__`.
///
/// # Errors
/// `MemoryError`.
pub fn qualname<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyString::new(object.py(), T::NAME).into_any())
}

/// `cr_await`.
///
/// # Errors
/// None.
pub fn awaited<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(T::class().of(object).awaited.get_or_none(object.py()))
}

/// `cr_running`.
///
/// # Errors
/// None.
pub fn running<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let running = T::class().of(object).phase.get() == Phase::Running;
    Ok(PyBool::new(object.py(), running).to_owned().into_any())
}

/// `cr_suspended`.
///
/// # Errors
/// None.
pub fn suspended<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let suspended = T::class().of(object).phase.get().is_suspended();
    Ok(PyBool::new(object.py(), suspended).to_owned().into_any())
}

/// `cr_frame` and `cr_origin`: there is none.
///
/// # Errors
/// None.
pub fn nothing<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(object.py().None().into_bound(object.py()))
}

fn representation<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let text = format!("<coroutine object {} at {:p}>", T::NAME, object.as_ptr());
    Ok(PyString::new(object.py(), &text).into_any())
}

/// What the class of an operation consists of; the rest is what `operation!` adds.
pub fn description<T: Operation>(
    methods: Vec<ffi::PyMethodDef>,
    properties: Vec<ffi::PyGetSetDef>,
    slots: Vec<ffi::PyType_Slot>,
) -> Description {
    let mut all = class_slots::<Frame<T>>();
    // Python does not make operations.
    all.retain(|slot| slot.slot != ffi::Py_tp_new);
    all.extend(slots);
    Description {
        methods,
        properties,
        slots: all,
        weak_references: Some(std::mem::offset_of!(Frame<T>, weak_references)),
        immutable: true,
        ..Description::default()
    }
}

/// `repr()` of a frame.
///
/// # Errors
/// `MemoryError`.
pub fn repr<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    representation::<T>(object)
}

/// Gives an implementation of [`Operation`] the two items that all have alike: `operation!(Acquire, "Lock.acquire");`
/// inside it. [`make_operation!`](crate::make_operation) makes the class.
#[macro_export]
macro_rules! operation {
    ($operation:ty, $name:literal) => {
        const NAME: &'static str = $name;

        #[inline]
        fn class() -> &'static $crate::ffi::Class<$crate::operations::Frame<Self>> {
            static CLASS: $crate::ffi::Class<$crate::operations::Frame<$operation>> =
                $crate::ffi::Class::new();
            &CLASS
        }
    };
}

/// Makes the class of an operation, and registers it as a coroutine: `make_operation!(py, Acquire)?`.
#[macro_export]
macro_rules! make_operation {
    ($py:expr, $operation:ty) => {{
        use $crate::operations::{self, Operation};
        use $crate::{method, property, slot};
        let class = <$operation>::class().make(
            $py,
            c"weft._weft.Operation",
            None,
            operations::description::<$operation>(
                vec![
                    method!(one "send" => operations::send::<$operation>, "Resume the operation."),
                    method!(fast "throw" => operations::throw::<$operation>, "Raise an exception where the operation is suspended."),
                    method!(none "close" => operations::close::<$operation>, "Give the operation up."),
                ],
                vec![
                    property!("__name__" => operations::name::<$operation>),
                    property!("__qualname__" => operations::qualname::<$operation>),
                    property!("cr_await" => operations::awaited::<$operation>),
                    property!("cr_running" => operations::running::<$operation>),
                    property!("cr_suspended" => operations::suspended::<$operation>),
                    property!("cr_frame" => operations::nothing),
                    property!("cr_origin" => operations::nothing),
                ],
                vec![
                    slot!(await operations::begin_await::<$operation>),
                    operations::iter_slot(),
                    slot!(next operations::advance::<$operation>),
                    slot!(send operations::advance::<$operation>),
                    slot!(finalize operations::finalize::<$operation>),
                    slot!(repr operations::repr::<$operation>),
                ],
            ),
        );
        class.and_then(|class| operations::register_coroutine(&class))
    }};
}

/// Tells `collections.abc.Coroutine` about a class, so that `asyncio.iscoroutine()` holds.
///
/// # Errors
/// What registering raises.
pub fn register_coroutine(class: &Bound<'_, pyo3::types::PyType>) -> PyResult<()> {
    class
        .py()
        .import("collections.abc")?
        .getattr("Coroutine")?
        .call_method1("register", (class,))
        .map(drop)
}
