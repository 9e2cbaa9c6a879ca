//! `Lock`, `Event`, `Condition`, `Semaphore`, `BoundedSemaphore` and `Barrier`.
//!
//! The classes here hold the state and do what runs per use; `weft._locks` joins each with asyncio's class of the same
//! name, from which it has its constructor, its representation, and whatever else runs rarely. That code reads private
//! attributes, which are properties here, so that there is one truth.
//!
//! Ground rules:
//!
//! - What waits is a future of the running loop, in [`waiters::Waiters`]. Who wakes it sets its result; who has waited
//!   takes it out of the queue, in the same step in which it goes on or gives up.
//! - No queue is borrowed while futures are woken or dropped: both may run Python code.
//! - A method of a class that asyncio calls through `self` (`acquire` by `async with`, `wait` by `wait_for`) is looked up
//!   before native code does the same without it.

mod acquiring;
mod barrier;
mod common;
mod condition;
mod count;
mod event;
mod lock;
mod ready;
mod semaphore;
mod waiters;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyModule, PyTuple};

use crate::ffi::call::call_tuple;
use crate::ffi::method::{Args, Returned};
use crate::imports::imports;

/// What an operation raises whose primitive the garbage collector has taken.
#[cold]
fn gone() -> PyErr {
    PyRuntimeError::new_err("the object that is waited for is gone")
}

/// asyncio's own `__aexit__`, for classes with an `acquire` or `release` of their own.
fn inherited_exit<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = object.py();
    args.no_keywords("__aexit__")?;
    let arguments = args.rest(0)?;
    let arguments = std::iter::once(object.clone()).chain(arguments.iter());
    let arguments = PyTuple::new(py, arguments.collect::<Vec<_>>())?;
    call_tuple(imports(py).lock_exit.bind(py), &arguments)
}

/// The constructor of asyncio's class `name`, for arguments that native code leaves to it.
#[cold]
fn inherited_init<'py>(
    name: &str,
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    let class = imports(object.py())
        .locks
        .bind(object.py())
        .as_any()
        .get_item(name)?;
    let arguments = std::iter::once(object.clone()).chain(args.iter());
    let arguments = PyTuple::new(object.py(), arguments.collect::<Vec<_>>())?;
    class
        .getattr("__init__")?
        .call(arguments, keywords)
        .map(drop)
}

/// Makes the classes and adds them to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    ready::register(module)?;
    lock::register(module)?;
    event::register(module)?;
    semaphore::register(module)?;
    condition::register(module)?;
    barrier::register(module)
}
