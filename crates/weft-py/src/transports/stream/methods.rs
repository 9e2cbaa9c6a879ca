//! What Python sees: construction and methods.

#![expect(
    clippy::unnecessary_wraps,
    reason = "a method's signature, whether it can fail or not"
)]

use pyo3::Borrowed;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple};

use super::{STREAM, Source, boolean, none};
use crate::event_loop::EVENT_LOOP;
use crate::ffi::bytes;
use crate::ffi::method::{Args, Returned};
use crate::method;
use crate::transports::flow_control::Limits;

/// `StreamTransport(loop, sock, protocol, waiter=None, extra=None, server=None)`.
pub(super) fn init<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    if keywords.is_some_and(|keywords| !keywords.is_empty()) || args.len() != 6 {
        return Err(PyTypeError::new_err(
            "StreamTransport() takes loop, sock, protocol, waiter, extra and server",
        ));
    }
    let (event_loop, sock, protocol) = (args.get_item(0)?, args.get_item(1)?, args.get_item(2)?);
    let (waiter, extra, server) = (args.get_item(3)?, args.get_item(4)?, args.get_item(5)?);
    if EVENT_LOOP.get(&event_loop).is_none() {
        return Err(PyTypeError::new_err("loop must be a weft.Loop"));
    }
    let source = Source::Python {
        sock,
        extra: &extra,
    };
    super::opening::open(object, &event_loop, source, &protocol, waiter, server)
}

fn start_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    STREAM.of(object).start_reading(object)?;
    Ok(none(object))
}

fn call_connection_lost<'py>(
    object: &Bound<'py, PyAny>,
    error: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let error = Some(error.clone()).filter(|error| !error.is_none());
    STREAM.of(object).connection_lost(object, error)?;
    Ok(none(object))
}

pub(super) fn write<'py>(object: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = STREAM.of(object);
    if !bytes::is_writable_type(data) {
        let name = data.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "data argument must be a bytes-like object, not '{name}'"
        )));
    }
    state.check_writable("write", "write")?;
    state.write(object, data)?;
    Ok(none(object))
}

pub(super) fn writelines<'py>(
    object: &Bound<'py, PyAny>,
    lines: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let state = STREAM.of(object);
    state.check_writable("writelines", "writelines")?;
    state.writelines(object, lines)?;
    Ok(none(object))
}

fn write_eof<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = STREAM.of(object);
    state.flush(object)?;
    if !state.closing.get() && !state.eof.replace(true) && state.unsent.borrow().is_empty() {
        state.shut_down()?;
    }
    Ok(none(object))
}

fn can_write_eof<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), true))
}

fn close<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    STREAM.of(object).close(object)?;
    Ok(none(object))
}

fn abort<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    STREAM.of(object).force_close(object, None)?;
    Ok(none(object))
}

fn force_close<'py>(object: &Bound<'py, PyAny>, error: &Bound<'py, PyAny>) -> Returned<'py> {
    let error = Some(error.clone()).filter(|error| !error.is_none());
    STREAM.of(object).force_close(object, error)?;
    Ok(none(object))
}

fn fatal_error<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [error, message] = args.bind("_fatal_error", ["exc", "message"])?;
    let error = error.ok_or_else(|| PyTypeError::new_err("_fatal_error() needs an exception"))?;
    let message: String = match message {
        Some(message) => message.extract()?,
        None => "Fatal error on transport".to_owned(),
    };
    STREAM
        .of(object)
        .fatal_error(object, PyErr::from_value(error.to_owned()), &message)?;
    Ok(none(object))
}

pub(super) fn is_closing<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), STREAM.of(object).closing.get()))
}

fn is_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), STREAM.of(object).is_reading()))
}

pub(super) fn pause_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = STREAM.of(object);
    if state.is_reading() {
        state.paused.set(true);
        state.update_interest(object)?;
        state.debug_log(object, "%r pauses reading")?;
    }
    Ok(none(object))
}

pub(super) fn resume_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = STREAM.of(object);
    if !state.closing.get() && state.paused.replace(false) {
        state.update_interest(object)?;
        state.debug_log(object, "%r resumes reading")?;
    }
    Ok(none(object))
}

pub(super) fn get_protocol<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(STREAM
        .of(object)
        .protocol
        .get(object.py())
        .unwrap_or_else(|| none(object)))
}

fn set_protocol<'py>(object: &Bound<'py, PyAny>, protocol: &Bound<'py, PyAny>) -> Returned<'py> {
    STREAM.of(object).adopt_protocol(protocol)?;
    Ok(none(object))
}

fn get_extra_info<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [name, default] = args.bind("get_extra_info", ["name", "default"])?;
    let name = name.ok_or_else(|| {
        PyTypeError::new_err("get_extra_info() missing 1 required positional argument: 'name'")
    })?;
    let state = STREAM.of(object);
    // Who asks for the socket may go on to use it.
    state.flush(object)?;
    let found = state.socket.detail(object.py(), &name)?;
    Ok(found
        .or_else(|| default.map(Borrowed::to_owned))
        .unwrap_or_else(|| none(object)))
}

fn get_write_buffer_size<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = STREAM.of(object);
    state.flush(object)?;
    let size = state.unsent.borrow().len();
    Ok(size.into_pyobject(object.py())?.into_any())
}

fn get_write_buffer_limits<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let limits = STREAM.of(object).limits.get();
    Ok((limits.low, limits.high)
        .into_pyobject(object.py())?
        .into_any())
}

fn set_write_buffer_limits<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [high, low] = args.bind("set_write_buffer_limits", ["high", "low"])?;
    let state = STREAM.of(object);
    state.flush(object)?;
    state
        .limits
        .set(Limits::from_arguments(high.as_deref(), low.as_deref())?);
    state.maybe_pause_protocol(object)?;
    Ok(none(object))
}

fn make_empty_waiter<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let state = STREAM.of(object);
    state.flush(object)?;
    if state.empty_waiter.is_set() {
        return Err(PyRuntimeError::new_err("Empty waiter is already set"));
    }
    let Some(event_loop) = state.event_loop.get(py) else {
        return Err(PyRuntimeError::new_err("Transport is closed"));
    };
    let waiter = event_loop.call_method0("create_future")?;
    state.empty_waiter.set(waiter.clone());
    if state.unsent.borrow().is_empty() {
        waiter.call_method1("set_result", (py.None(),))?;
    }
    Ok(waiter)
}

fn reset_empty_waiter<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    STREAM.of(object).empty_waiter.clear();
    Ok(none(object))
}

/// The method table.
pub(super) fn table() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(named "write"("data") => write, "write($self, data)\n--\n\nSend data, a bytes-like object, now or as soon as the socket takes it."),
        method!(named "writelines"("list_of_data") => writelines, "writelines($self, list_of_data)\n--\n\nSend the bytes-like objects of an iterable, in order."),
        method!(none "write_eof" => write_eof, "End our side of the connection once everything is sent."),
        method!(none "can_write_eof" => can_write_eof, "Return True: a stream can be half-closed."),
        method!(none "close" => close, "Send what is unsent, then end the connection and call connection_lost(None)."),
        method!(none "abort" => abort, "End the connection now, drop what is unsent."),
        method!(none "is_closing" => is_closing, "Return True if the transport is closing or closed."),
        method!(none "is_reading" => is_reading, "Return True if the transport is receiving."),
        method!(none "pause_reading" => pause_reading, "Stop receiving."),
        method!(none "resume_reading" => resume_reading, "Receive again."),
        method!(none "get_protocol" => get_protocol, "Return the protocol."),
        method!(named "set_protocol"("protocol") => set_protocol, "set_protocol($self, protocol)\n--\n\nFeed another protocol from now on."),
        method!(fast "get_extra_info" => get_extra_info, "get_extra_info($self, name, default=None)\n--\n\nReturn 'socket', 'sockname', 'peername' or what else is known of the connection."),
        method!(none "get_write_buffer_size" => get_write_buffer_size, "Return the number of unsent bytes."),
        method!(none "get_write_buffer_limits" => get_write_buffer_limits, "Return the low and the high water mark, in bytes."),
        method!(fast "set_write_buffer_limits" => set_write_buffer_limits, "set_write_buffer_limits($self, high=None, low=None)\n--\n\nSet the marks, in bytes, at which the protocol is paused and resumed."),
        method!(none "_start_reading" => start_reading, "Start to receive, after connection_made()."),
        method!(one "_call_connection_lost" => call_connection_lost, "Tell the protocol and give everything up."),
        method!(one "_force_close" => force_close, "End the connection because of an exception."),
        method!(fast "_fatal_error" => fatal_error, "Report an exception and end the connection."),
        method!(none "_make_empty_waiter" => make_empty_waiter, "Return a future that is done when everything is sent."),
        method!(none "_reset_empty_waiter" => reset_empty_waiter, "Forget that future."),
    ]
}
