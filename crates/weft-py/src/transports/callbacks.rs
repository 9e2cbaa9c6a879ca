//! Calling protocols on the loop's behalf, and where it goes what they raise.

use std::cell::Cell;

use pyo3::exceptions::{PyOSError, PyResourceWarning};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};

use crate::event_loop;
use crate::event_loop::handles::is_fatal;
use crate::ffi::method::Returned;
use crate::ffi::{Slot, context};
use crate::imports::imports;

/// After so many writes to a lost connection asyncio starts to warn.
const WARN_AFTER_LOST_WRITES: u32 = 5;

fn logger(py: Python<'_>) -> Returned<'_> {
    imports(py)
        .selector_events
        .bind(py)
        .getattr(intern!(py, "logger"))
}

/// Logs `message` about the transport where the loop is in debug mode.
///
/// # Errors
/// What logging raises.
pub fn debug_log(object: &Bound<'_, PyAny>, event_loop: &Slot, message: &str) -> PyResult<()> {
    log_in_debug(object, event_loop, "debug", message)
}

/// Logs `message` about the transport, at a level of one's own, where the loop is in debug mode.
///
/// # Errors
/// What logging raises.
pub fn log_in_debug(
    object: &Bound<'_, PyAny>,
    event_loop: &Slot,
    level: &str,
    message: &str,
) -> PyResult<()> {
    let py = object.py();
    if let Some(event_loop) = event_loop.get(py)
        && event_loop::is_debug(&event_loop)?
    {
        logger(py)?.call_method1(level, (message, object))?;
    }
    Ok(())
}

/// Counts a write to a lost connection, and warns from the fifth on.
///
/// # Errors
/// What logging raises.
pub fn count_lost_write(py: Python<'_>, lost: &Cell<u32>) -> PyResult<()> {
    count_lost(py, lost, "socket.send() raised exception.")
}

/// Counts a write to what is lost, and logs `warning` from the fifth on.
///
/// # Errors
/// What logging raises.
pub fn count_lost(py: Python<'_>, lost: &Cell<u32>, warning: &str) -> PyResult<()> {
    if lost.get() >= WARN_AFTER_LOST_WRITES {
        logger(py)?.call_method1("warning", (warning,))?;
    }
    lost.set(lost.get().saturating_add(1));
    Ok(())
}

/// Runs a callback of the loop in the context in which the transport was made, and reports what it raises.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt`, which end the run.
#[inline]
pub fn in_context(
    object: &Bound<'_, PyAny>,
    context: &Slot,
    event_loop: &Slot,
    body: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    let py = object.py();
    let Some(context) = context.get(py) else {
        return Ok(());
    };
    let event_loop = event_loop.get(py);
    context::enter(&context)?;
    let outcome = body();
    context::exit(&context)?;
    match outcome {
        Err(error) if !is_fatal(py, &error) => report(object, event_loop.as_ref(), error),
        outcome => outcome,
    }
}

/// What a callback of the loop does with an exception that no transport rule covers.
#[cold]
fn report(
    object: &Bound<'_, PyAny>,
    event_loop: Option<&Bound<'_, PyAny>>,
    error: PyErr,
) -> PyResult<()> {
    let py = object.py();
    let Some(event_loop) = event_loop else {
        error.write_unraisable(py, Some(object));
        return Ok(());
    };
    let details = PyDict::new(py);
    details.set_item(
        "message",
        format!("Exception in callback of {}", object.repr()?),
    )?;
    details.set_item("exception", error.into_value(py))?;
    details.set_item("transport", object)?;
    event_loop
        .call_method1("call_exception_handler", (details,))
        .map(drop)
}

/// Reports the exception that ends a transport. An `OSError` is the peer's or the network's doing, and logged in debug
/// mode alone.
///
/// # Errors
/// What the loop's exception handler, or logging, raises.
pub fn report_fatal(
    object: &Bound<'_, PyAny>,
    event_loop: &Slot,
    protocol: &Slot,
    error: &Bound<'_, PyAny>,
    message: &str,
) -> PyResult<()> {
    let py = object.py();
    let Some(event_loop) = event_loop.get(py) else {
        return Ok(());
    };
    if error.is_instance_of::<PyOSError>() {
        if event_loop::is_debug(&event_loop)? {
            let keywords = PyDict::new(py);
            keywords.set_item("exc_info", error)?;
            logger(py)?.call_method("debug", ("%r: %s", object, message), Some(&keywords))?;
        }
        return Ok(());
    }
    report_error(object, &event_loop, protocol, error, message)
}

/// Tells the loop's exception handler of what ends a transport, whatever it is.
///
/// # Errors
/// What the handler raises.
pub fn report_error(
    object: &Bound<'_, PyAny>,
    event_loop: &Bound<'_, PyAny>,
    protocol: &Slot,
    error: &Bound<'_, PyAny>,
    message: &str,
) -> PyResult<()> {
    let py = object.py();
    let details = PyDict::new(py);
    details.set_item("message", message)?;
    details.set_item("exception", error)?;
    details.set_item("transport", object)?;
    details.set_item("protocol", protocol.get(py))?;
    event_loop
        .call_method1("call_exception_handler", (details,))
        .map(drop)
}

/// Calls a flow-control method of the protocol; what it raises is reported and changes nothing.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt`; what the loop's exception handler raises.
pub fn flow_control(
    object: &Bound<'_, PyAny>,
    event_loop: &Slot,
    protocol: &Slot,
    name: &str,
) -> PyResult<()> {
    let py = object.py();
    let Some(protocol) = protocol.get(py) else {
        return Ok(());
    };
    let Err(error) = protocol.call_method0(name) else {
        return Ok(());
    };
    if is_fatal(py, &error) {
        return Err(error);
    }
    if let Some(event_loop) = event_loop.get(py) {
        let details = PyDict::new(py);
        details.set_item("message", format!("protocol.{name}() failed"))?;
        details.set_item("exception", error.into_value(py))?;
        details.set_item("transport", object)?;
        details.set_item("protocol", protocol)?;
        event_loop.call_method1("call_exception_handler", (details,))?;
    }
    Ok(())
}

/// The `ResourceWarning` of a transport that nobody closed.
///
/// # Errors
/// The warning itself, where warnings are errors.
pub fn warn_unclosed(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = object.py();
    let text = format!("unclosed transport {}", object.repr()?);
    let keywords = PyDict::new(py);
    keywords.set_item("source", object)?;
    imports(py)
        .warn
        .bind(py)
        .call((text, py.get_type::<PyResourceWarning>()), Some(&keywords))
        .map(drop)
}
