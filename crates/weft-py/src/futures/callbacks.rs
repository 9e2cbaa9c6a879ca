//! Done-callbacks of native code, and the record of who awaits a future.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyList, PyTuple};

use super::{direct, is_native, is_waiter, schedule_one};
use crate::event_loop::{EVENT_LOOP, handles, leave_task, rest_task};
use crate::ffi::callback::{is_same, recognise};
use crate::ffi::{base, context};
use crate::imports::imports;

/// Whether this is a future or task whose callbacks are scheduled natively.
#[inline]
pub fn feeds_directly(object: &Bound<'_, PyAny>) -> bool {
    is_native(object) || is_waiter(object)
}

/// Has `callback`, a method made of a [`Callback`](crate::ffi::callback::Callback), called when `future`, of any kind,
/// is done. `context` is a copy of the current one, which several callbacks may share.
///
/// # Errors
/// What a foreign future's `add_done_callback` raises.
#[inline]
pub fn add_callback<'py>(
    future: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
    context: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = future.py();
    if !feeds_directly(future) {
        return future
            .call_method1(intern!(py, "add_done_callback"), (callback,))
            .map(drop);
    }
    let fields = base::future(future);
    if fields.is_pending() {
        return store_callback(future, callback.clone(), context.clone());
    }
    let event_loop = fields.event_loop.get(py);
    match &event_loop {
        Some(event_loop) => schedule_one(
            direct(Some(event_loop)),
            event_loop,
            future,
            callback.clone(),
            Some(context.clone()),
        ),
        None => Ok(()),
    }
}

/// Appends a callback to those of a pending native future.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub(super) fn store_callback<'py>(
    future: &Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    context: Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = future.py();
    let fields = base::future(future);
    if !fields.callback0.is_set() && !fields.callbacks.is_set() {
        fields.callback0.fill(callback);
        fields.context0.set(context);
        return Ok(());
    }
    let pair = PyTuple::new(py, [callback, context])?;
    if let Some(list) = fields.callbacks.get(py) {
        list.cast_into::<PyList>()?.append(pair)
    } else {
        fields.callbacks.set(PyList::new(py, [pair])?.into_any());
        Ok(())
    }
}

/// Takes `callback` away again.
///
/// # Errors
/// What a foreign future's `remove_done_callback` raises.
#[inline]
pub fn remove_callback<'py>(
    future: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = future.py();
    if feeds_directly(future) {
        let fields = base::future(future);
        if !fields.callbacks.is_set() {
            let Some(only) = fields.callback0.get(py) else {
                return Ok(());
            };
            if fields.context0.is_set() && is_same(&only, callback) {
                fields.callback0.clear();
                fields.context0.clear();
                return Ok(());
            }
        }
    }
    future
        .call_method1(intern!(py, "remove_done_callback"), (callback,))
        .map(drop)
}

/// The ready queue's job: calls a native done-callback, with no task current as in every plain callback.
pub(super) fn run_callback<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
    future: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    rest_task(EVENT_LOOP.of(event_loop), event_loop)?;
    let (Some((function, receiver)), Some(future)) = (recognise(callback), future) else {
        return Ok(());
    };
    match function(receiver, &future) {
        Ok(()) => Ok(()),
        Err(error) => {
            leave_task(EVENT_LOOP.of(event_loop), event_loop)?;
            let handle = handles::make_internal(
                event_loop,
                callback.clone(),
                Some(future),
                context::copy_current(event_loop.py())?,
            )?;
            handles::report(&handle, handles::HANDLE.of(&handle), error)
        }
    }
}

/// Records that `task` awaits `future`, for call graphs (Python 3.14).
///
/// # Errors
/// `MemoryError`.
#[cfg(Py_3_14)]
#[inline]
pub fn note_awaited_by(future: &Bound<'_, PyAny>, task: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if feeds_directly(future) {
        let fields = base::future(future);
        if !fields.awaited_by.is_set() {
            fields.awaited_by_is_set.set(false);
            fields.awaited_by.set(task.clone());
            return Ok(());
        }
    }
    crate::ffi::call::call2(imports(py).add_to_awaited_by.bind(py), future, task).map(drop)
}

/// Takes back what [`note_awaited_by`] has recorded.
///
/// # Errors
/// None that is expected.
#[cfg(Py_3_14)]
#[inline]
pub fn forget_awaited_by(future: &Bound<'_, PyAny>, task: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if feeds_directly(future) {
        let fields = base::future(future);
        if !fields.awaited_by_is_set.get() && fields.awaited_by.is(task) {
            fields.awaited_by.clear();
            return Ok(());
        }
    }
    crate::ffi::call::call2(imports(py).discard_from_awaited_by.bind(py), future, task).map(drop)
}

/// Call graphs came with Python 3.14.
///
/// # Errors
/// None.
#[cfg(not(Py_3_14))]
#[inline]
pub fn note_awaited_by(_: &Bound<'_, PyAny>, _: &Bound<'_, PyAny>) -> PyResult<()> {
    Ok(())
}

/// Call graphs came with Python 3.14.
///
/// # Errors
/// None.
#[cfg(not(Py_3_14))]
#[inline]
pub fn forget_awaited_by(_: &Bound<'_, PyAny>, _: &Bound<'_, PyAny>) -> PyResult<()> {
    Ok(())
}

/// How a future of any kind has ended.
#[derive(Debug)]
pub enum Ending<'py> {
    /// It was cancelled.
    Cancelled,
    /// With this exception, which counts as seen from now on.
    Failed(Bound<'py, PyAny>),
    /// With this result.
    Returned(Bound<'py, PyAny>),
}

/// How a future that is done has ended.
///
/// # Errors
/// What a foreign future's methods raise.
#[inline]
pub fn ending<'py>(future: &Bound<'py, PyAny>) -> PyResult<Ending<'py>> {
    match failure(future)? {
        Failure::Cancelled => Ok(Ending::Cancelled),
        Failure::Exception(exception) => Ok(Ending::Failed(exception)),
        Failure::None if feeds_directly(future) => {
            let result = &base::future(future).result;
            Ok(Ending::Returned(result.get_or_none(future.py())))
        }
        Failure::None => future
            .call_method0(intern!(future.py(), "result"))
            .map(Ending::Returned),
    }
}

/// What has kept a future from having a result.
#[derive(Debug)]
pub enum Failure<'py> {
    /// Nothing.
    None,
    /// It was cancelled.
    Cancelled,
    /// This exception, which counts as seen from now on.
    Exception(Bound<'py, PyAny>),
}

/// What has kept a future that is done from having a result.
///
/// # Errors
/// What a foreign future's methods raise.
#[inline]
pub fn failure<'py>(future: &Bound<'py, PyAny>) -> PyResult<Failure<'py>> {
    let py = future.py();
    if feeds_directly(future) {
        let fields = base::future(future);
        if fields.state.get() == base::CANCELLED {
            return Ok(Failure::Cancelled);
        }
        if fields.state.get() == base::FINISHED {
            fields.set_log_traceback(false);
            return Ok(match fields.exception.get(py) {
                Some(exception) => Failure::Exception(exception),
                None => Failure::None,
            });
        }
    }
    if future.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
        return Ok(Failure::Cancelled);
    }
    let exception = future.call_method0(intern!(py, "exception"))?;
    if exception.is_none() {
        Ok(Failure::None)
    } else {
        Ok(Failure::Exception(exception))
    }
}

/// Initialises a future by the base's `__init__`, which asks its loop about debug mode.
///
/// # Errors
/// What the loop raises.
pub fn initialise<'py>(future: &Bound<'py, PyAny>, event_loop: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = future.py();
    if direct(Some(event_loop)).is_some() {
        base::future(future).event_loop.fill(event_loop.clone());
        return Ok(());
    }
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "loop"), event_loop)?;
    imports(py)
        .future_init
        .bind(py)
        .call((future,), Some(&keywords))
        .map(drop)
}
