//! What `__aenter__` and `__aexit__` return where there is nothing to wait for: a coroutine that ends at its first step.
//!
//! There is one, shared by all: it has no state.

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyBool, PyModule, PyString};

use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::{Args, Returned};
use crate::ffi::slots::Advanced;
use crate::ffi::{Class, Native};
use crate::futures::thrown_error;
use crate::operations::{nothing, register_coroutine};
use crate::{method, property, slot};

/// It has no state.
#[derive(Debug, Default)]
struct Ready;

static READY: Class<Ready> = Class::new();
static INSTANCE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

impl Native for Ready {
    const COLLECTED: bool = false;

    fn class() -> &'static Class<Self> {
        &READY
    }
}

/// The coroutine that ends at once, with `None`.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn ready(py: Python<'_>) -> Returned<'_> {
    match INSTANCE.get(py) {
        Some(ready) => Ok(ready.bind(py).clone()),
        None => READY.instance(py),
    }
}

fn advance<'py>(object: &Bound<'py, PyAny>) -> PyResult<Advanced<'py>> {
    Ok(Advanced::Returned(
        object.py().None().into_bound(object.py()),
    ))
}

fn send<'py>(_: &Bound<'py, PyAny>, _: &Bound<'py, PyAny>) -> Returned<'py> {
    Err(PyStopIteration::new_err(()))
}

fn throw<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    Err(thrown_error(object.py(), args)?)
}

fn name<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyString::new(object.py(), "ready").into_any())
}

fn no<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyBool::new(object.py(), false).to_owned().into_any())
}

/// Makes the class and its instance.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut slots = class_slots::<Ready>();
    slots.extend([
        slot!(await itself),
        slot!(iter itself),
        slot!(next advance),
        slot!(send advance),
    ]);
    let class = READY.make(
        py,
        c"weft._weft.Ready",
        None,
        Description {
            methods: vec![
                method!(one "send" => send, "End."),
                method!(fast "throw" => throw, "Raise an exception."),
                method!(none "close" => nothing, "Without effect."),
            ],
            properties: vec![
                property!("__name__" => name),
                property!("__qualname__" => name),
                property!("cr_await" => nothing),
                property!("cr_running" => no),
                property!("cr_suspended" => no),
                property!("cr_frame" => nothing),
                property!("cr_origin" => nothing),
            ],
            slots,
            immutable: true,
            ..Description::default()
        },
    )?;
    register_coroutine(&class)?;
    let instance = READY.instance(py)?.unbind();
    INSTANCE.get_or_init(py, || instance);
    Ok(())
}
