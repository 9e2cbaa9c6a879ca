//! What `await future` iterates over.
//!
//! It yields the future itself, once, with its blocking mark set, and returns the result when it is resumed. The
//! result `None`, the most frequent one, comes back without a `StopIteration`.

use std::ffi::c_int;

use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyTuple, PyType};

use crate::ffi::base;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::{Args, Returned};
use crate::ffi::slots::Advanced;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::imports::imports;
use crate::{method, slot};

/// The iterator's state: the future until it is exhausted.
#[derive(Debug, Default)]
pub struct FutureIterator {
    future: Slot,
}

impl Native for FutureIterator {
    const RECYCLED: usize = 256;

    fn class() -> &'static Class<Self> {
        &ITERATOR
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.future)
    }

    fn clear(&self, _: Python<'_>) {
        self.future.clear();
    }
}

static ITERATOR: Class<FutureIterator> = Class::new();

/// `__await__` and `__iter__` of futures and tasks.
///
/// # Errors
/// `RuntimeError` for a future that is not initialised.
#[inline]
pub fn iterate<'py>(future: &Bound<'py, PyAny>) -> Returned<'py> {
    if !base::future(future).is_alive() {
        return Err(PyRuntimeError::new_err("Future object is not initialized."));
    }
    let iterator = ITERATOR.instance(future.py())?;
    ITERATOR.of(&iterator).future.fill(future.clone());
    Ok(iterator)
}

/// One step: the future while it is pending, then its result.
#[inline]
fn advance<'py>(iterator: &Bound<'py, PyAny>) -> PyResult<Advanced<'py>> {
    let py = iterator.py();
    let state = ITERATOR.of(iterator);
    let Some(future) = state.future.get(py) else {
        return Ok(Advanced::Returned(py.None().into_bound(py)));
    };
    let fields = base::future(&future);
    if fields.is_pending() {
        if fields.blocking() {
            return Err(PyRuntimeError::new_err("await wasn't used with future"));
        }
        fields.set_blocking(true);
        return Ok(Advanced::Yielded(future));
    }
    state.future.clear();
    if fields.state.get() == base::FINISHED && !fields.exception.is_set() {
        fields.set_log_traceback(false);
        if let Some(result) = fields.result.get(py) {
            return Ok(Advanced::Returned(result));
        }
    }
    let result = imports(py).future_result.bind(py);
    crate::ffi::call::call1(result, &future).map(Advanced::Returned)
}

/// `send(value)`: whatever the value, one step.
fn send<'py>(iterator: &Bound<'py, PyAny>, _: &Bound<'py, PyAny>) -> Returned<'py> {
    match advance(iterator)? {
        Advanced::Yielded(future) => Ok(future),
        Advanced::Returned(result) => {
            // As an argument, so that a tuple or an exception stays one value.
            let stop = iterator
                .py()
                .get_type::<PyStopIteration>()
                .call1((result,))?;
            Err(PyErr::from_value(stop))
        }
    }
}

/// `throw(exception)` and its older form `throw(type, value, traceback)`.
fn throw<'py>(iterator: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let error = thrown_error(iterator.py(), args)?;
    ITERATOR.of(iterator).future.clear();
    Err(error)
}

/// What the arguments of a `throw()` raise: an exception, or type, value and traceback.
///
/// # Errors
/// `TypeError` where they are neither.
pub fn thrown_error<'py>(py: Python<'py>, args: Args<'_, 'py>) -> PyResult<PyErr> {
    let [kind, value, traceback] = args.bind("throw", ["type", "val", "tb"])?;
    #[cfg(Py_3_12)]
    if args.count() > 1 {
        PyErr::warn(
            py,
            &py.get_type::<pyo3::exceptions::PyDeprecationWarning>(),
            c"the (type, exc, tb) signature of throw() is deprecated, \
              use the single-arg signature instead.",
            1,
        )?;
    }
    let kind =
        kind.ok_or_else(|| PyTypeError::new_err("throw expected at least 1 argument, got 0"))?;
    let value = value.filter(|value| !value.is_none());
    let error = if kind.is_instance_of::<PyBaseException>() {
        if value.is_some() {
            return Err(PyTypeError::new_err(
                "instance exception may not have a separate value",
            ));
        }
        kind.to_owned()
    } else {
        let is_class = kind
            .cast::<PyType>()
            .is_ok_and(|class| class.is_subclass_of::<PyBaseException>().unwrap_or(false));
        if !is_class {
            return Err(PyTypeError::new_err(format!(
                "exceptions must be classes deriving BaseException or instances of such a class, not {}",
                kind.get_type().name()?
            )));
        }
        match value {
            Some(value) if value.is_instance(&kind)? => value.to_owned(),
            Some(value) => match value.cast::<PyTuple>() {
                Ok(arguments) => kind.call1(arguments.to_owned())?,
                Err(_) => kind.call1((value,))?,
            },
            None => kind.call0()?,
        }
    };
    if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
        if !traceback.is_instance(&py.import("types")?.getattr("TracebackType")?)? {
            return Err(PyTypeError::new_err(
                "throw() third argument must be a traceback",
            ));
        }
        error.setattr("__traceback__", traceback)?;
    }
    Ok(PyErr::from_value(error))
}

fn close<'py>(iterator: &Bound<'py, PyAny>) -> Returned<'py> {
    ITERATOR.of(iterator).future.clear();
    Ok(iterator.py().None().into_bound(iterator.py()))
}

/// Makes the class.
///
/// # Errors
/// What Python raises while it makes types.
pub fn make(py: Python<'_>) -> PyResult<()> {
    let mut slots = class_slots::<FutureIterator>();
    slots.extend([slot!(iter itself), slot!(next advance), slot!(send advance)]);
    ITERATOR.make(
        py,
        c"weft._weft.FutureIter",
        None,
        Description {
            methods: vec![
                method!(one "send" => send, "Resume the iteration."),
                method!(fast "throw" => throw, "Raise an exception at the point of the await."),
                method!(none "close" => close, "End the iteration."),
            ],
            slots,
            immutable: true,
            ..Description::default()
        },
    )?;
    Ok(())
}
