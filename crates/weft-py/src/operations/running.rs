//! What operations need of the loop that runs them, whosever it is.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::is_native;
use crate::event_loop::{self, EVENT_LOOP};
use crate::ffi::Slot;
use crate::ffi::base;
use crate::ffi::call::{call0, method1};
use crate::ffi::method::Returned;
use crate::futures::{self, FUTURE};
use crate::imports::imports;

/// The running loop.
///
/// # Errors
/// `RuntimeError` where none is running.
#[inline]
pub fn running_loop(py: Python<'_>) -> Returned<'_> {
    call0(imports(py).get_running_loop.bind(py))
}

/// A pending future of `event_loop`, native if the loop is.
///
/// # Errors
/// What a foreign loop's `create_future` raises.
#[inline]
pub fn create_future<'py>(event_loop: &Bound<'py, PyAny>) -> Returned<'py> {
    match EVENT_LOOP.get(event_loop) {
        Some(_) => futures::create_future(event_loop),
        None => event_loop.call_method0(intern!(event_loop.py(), "create_future")),
    }
}

/// Whether a future of any kind is done.
///
/// # Errors
/// What a foreign future's `done` raises.
#[inline]
pub fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    if is_native(future) {
        return Ok(!base::future(future).is_pending());
    }
    future
        .call_method0(intern!(future.py(), "done"))?
        .is_truthy()
}

/// Sets the result of a future of any kind, unless it is done.
///
/// # Errors
/// What a foreign future or loop raises.
#[inline]
pub fn finish_unless_done<'py>(
    future: &Bound<'py, PyAny>,
    result: Bound<'py, PyAny>,
) -> PyResult<()> {
    if FUTURE.is_exact(future) {
        if base::future(future).is_pending() {
            return futures::finish(future, result);
        }
        return Ok(());
    }
    if !is_done(future)? {
        method1(future, intern!(future.py(), "set_result"), &result)?;
    }
    Ok(())
}

/// asyncio's `_LoopBoundMixin._get_loop`: `slot` keeps the loop that a primitive was first used on.
///
/// # Errors
/// `RuntimeError` where no loop runs, or another one than before.
#[inline]
pub fn bound_loop<'py>(object: &Bound<'py, PyAny>, slot: &Slot) -> Returned<'py> {
    let py = object.py();
    let running = running_loop(py)?;
    if !slot.is_set() {
        slot.set(running.clone());
    }
    if slot.is(&running) {
        return Ok(running);
    }
    Err(PyRuntimeError::new_err(format!(
        "{} is bound to a different event loop",
        object.repr()?
    )))
}

/// Whether a loop is one of ours, so that its timers can run native work.
#[inline]
pub fn is_own_loop(event_loop: &Bound<'_, PyAny>) -> bool {
    EVENT_LOOP.get(event_loop).is_some()
}

/// A timer of `event_loop` that sets `future`'s result after `delay` seconds, unless it is done by then.
///
/// # Errors
/// What a foreign loop's `call_later` raises.
pub fn finish_later<'py>(
    event_loop: &Bound<'py, PyAny>,
    delay: &Bound<'py, PyAny>,
    future: &Bound<'py, PyAny>,
    result: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let py = event_loop.py();
    if let Some(state) = EVENT_LOOP.get(event_loop)
        && state.schedules_directly(event_loop)
        && FUTURE.is_exact(future)
    {
        return event_loop::job_later(
            state,
            event_loop,
            delay.extract()?,
            finish_job,
            future.clone(),
            Some(result.clone()),
        );
    }
    event_loop.call_method1(
        intern!(py, "call_later"),
        (
            delay,
            imports(py).set_result_unless_cancelled.bind(py),
            future,
            result,
        ),
    )
}

/// The job of [`finish_later`].
fn finish_job<'py>(
    _: &Bound<'py, PyAny>,
    future: &Bound<'py, PyAny>,
    result: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let result = result.unwrap_or_else(|| future.py().None().into_bound(future.py()));
    finish_unless_done(future, result)
}

/// Cancels a timer of any loop.
///
/// # Errors
/// What a foreign handle's `cancel` raises.
pub fn cancel_timer(timer: &Bound<'_, PyAny>) -> PyResult<()> {
    event_loop::handles::cancel_any(timer)
}
