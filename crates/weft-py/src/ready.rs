//! A coroutine that ends at its first step: what `__aenter__` and `__aexit__` may return where there is nothing to wait
//! for, after they have done what there is to do.
//!
//! One that ends with `None` has no state and is shared by all. One with a value gives it once.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyBool, PyString};

use crate::ffi::class::Description;
use crate::ffi::lifecycle::{Owner, class_slots};
use crate::ffi::method::{Args, Returned};
use crate::ffi::slots::Advanced;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::futures::thrown_error;
use crate::operations::{itself, iter_slot, nothing, register_coroutine};
use crate::{method, property, slot};

#[derive(Debug, Default)]
struct Ready {
    value: Slot,
    /// Whether the value has been given.
    given: Cell<bool>,
}

static READY: Class<Ready> = Class::new();
static NOTHING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

impl Native for Ready {
    const RECYCLED: usize = 64;

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.value)
    }

    fn clear(&self, _: Python<'_>) {
        self.value.clear();
    }
}

impl Owner for Ready {
    type Value = Self;
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
    match NOTHING.get(py) {
        Some(ready) => Ok(ready.bind(py).clone()),
        None => READY.instance(py),
    }
}

/// A coroutine that ends at once, with `value`.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn ready_with(value: Bound<'_, PyAny>) -> Returned<'_> {
    let ready = READY.instance(value.py())?;
    READY.of(&ready).value.fill(value);
    Ok(ready)
}

#[inline]
fn advance<'py>(object: &Bound<'py, PyAny>) -> PyResult<Advanced<'py>> {
    let py = object.py();
    let ready = READY.of(object);
    match ready.value.take(py) {
        Some(value) => {
            ready.given.set(true);
            Ok(Advanced::Returned(value))
        }
        None if ready.given.get() => Err(PyRuntimeError::new_err(
            "cannot reuse already awaited coroutine",
        )),
        None => Ok(Advanced::Returned(py.None().into_bound(py))),
    }
}

fn send<'py>(object: &Bound<'py, PyAny>, _: &Bound<'py, PyAny>) -> Returned<'py> {
    match advance(object)? {
        Advanced::Yielded(value) | Advanced::Returned(value) => {
            let stop = object
                .py()
                .get_type::<PyStopIteration>()
                .call1((value,))?;
            Err(PyErr::from_value(stop))
        }
    }
}

fn throw<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let error = thrown_error(object.py(), args)?;
    close(object)?;
    Err(error)
}

fn close<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let ready = READY.of(object);
    if let Some(value) = ready.value.take(object.py()) {
        ready.given.set(true);
        drop(value);
    }
    nothing(object)
}

fn name<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyString::new(object.py(), "ready").into_any())
}

fn no<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyBool::new(object.py(), false).to_owned().into_any())
}

/// Makes the class and the shared instance.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(py: Python<'_>) -> PyResult<()> {
    let mut slots = class_slots::<Ready>();
    slots.extend([
        slot!(await itself),
        iter_slot(),
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
                method!(none "close" => close, "Give the value up."),
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
    NOTHING.get_or_init(py, || instance);
    Ok(())
}
