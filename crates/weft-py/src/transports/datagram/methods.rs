//! What Python sees: construction and methods.

use pyo3::Borrowed;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple};

use super::{DATAGRAM, boolean, none};
use crate::event_loop::EVENT_LOOP;
use crate::ffi::bytes;
use crate::ffi::call::call1;
use crate::ffi::context;
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::socket::SocketMemory;
use crate::imports::imports;
use crate::method;
use crate::transports::addresses::Family;
use crate::transports::flow_control::Limits;
use crate::transports::{callbacks, details};

/// `DatagramTransport(loop, sock, protocol, address, waiter, extra)`.
pub(super) fn init<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    let py = object.py();
    if keywords.is_some_and(|keywords| !keywords.is_empty()) || args.len() != 6 {
        return Err(PyTypeError::new_err(
            "DatagramTransport() takes loop, sock, protocol, address, waiter and extra",
        ));
    }
    let (event_loop, sock, protocol) = (args.get_item(0)?, args.get_item(1)?, args.get_item(2)?);
    let (address, waiter, extra) = (args.get_item(3)?, args.get_item(4)?, args.get_item(5)?);
    if EVENT_LOOP.get(&event_loop).is_none() {
        return Err(PyTypeError::new_err("loop must be a weft.Loop"));
    }
    let state = DATAGRAM.of(object);
    let details = details::of_socket(&sock, Some(&extra))?;
    let peer = details.get_item("peername")?;
    let connected = peer.map_or(Ok(false), |name| name.is_truthy())?;
    let fd = sock.call_method0(intern!(py, "fileno"))?.extract()?;
    let memory = SocketMemory::of(&sock)?;
    let family = Family::of(&sock)?;
    let remote = Some(address).filter(|address| !address.is_none());
    let remote = match remote {
        Some(address) if address.is_truthy()? => Some(address),
        _ => None,
    };
    let call_soon = event_loop.getattr(intern!(py, "call_soon"))?;
    let connection_made = protocol.getattr(intern!(py, "connection_made"))?;
    EVENT_LOOP.of(&event_loop).check_closed()?;
    // From here on the socket is the transport's; until here it is the caller's.
    state.protocol.set(protocol);
    state.connected.set(true);
    state.context.set(context::copy_current(py)?);
    state.fd.set(fd);
    state.family.set(family);
    state.connected_socket.set(connected);
    if let Some(remote) = remote {
        state.remote.set(remote);
    }
    state.socket_memory.set(Some(memory));
    state.socket.set(sock);
    state.extra.set(details.into_any());
    state.event_loop.set(event_loop.clone());
    EVENT_LOOP.of(&event_loop).set_owner(fd, object)?;
    call_soon.call1((connection_made, object))?;
    call1(&call_soon, &object.getattr(intern!(py, "_start_reading"))?)?;
    if !waiter.is_none() {
        call_soon.call1((&imports(py).set_result_unless_cancelled, waiter, py.None()))?;
    }
    Ok(())
}

fn start_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = DATAGRAM.of(object);
    if state.lost.get() == 0 {
        state.started.set(true);
        state.update_interest(object)?;
    }
    Ok(none(object))
}

fn call_connection_lost<'py>(
    object: &Bound<'py, PyAny>,
    error: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let error = Some(error.clone()).filter(|error| !error.is_none());
    DATAGRAM.of(object).connection_lost(object, error)?;
    Ok(none(object))
}

fn sendto<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [Some(data), address] = args.bind("sendto", ["data", "addr"])? else {
        return Err(missing_argument("sendto", "data"));
    };
    if !bytes::is_writable_type(&data) {
        let name = data.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "data argument must be a bytes-like object, not '{name}'"
        )));
    }
    let address = address.unwrap_or_else(|| args.none());
    DATAGRAM.of(object).sendto(object, &data, &address)?;
    Ok(none(object))
}

fn close<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    DATAGRAM.of(object).close(object)?;
    Ok(none(object))
}

fn abort<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    DATAGRAM.of(object).force_close(object, None)?;
    Ok(none(object))
}

fn force_close<'py>(object: &Bound<'py, PyAny>, error: &Bound<'py, PyAny>) -> Returned<'py> {
    let error = Some(error.clone()).filter(|error| !error.is_none());
    DATAGRAM.of(object).force_close(object, error)?;
    Ok(none(object))
}

fn fatal_error<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [Some(error), message] = args.bind("_fatal_error", ["exc", "message"])? else {
        return Err(missing_argument("_fatal_error", "exc"));
    };
    let message: String = match message {
        Some(message) => message.extract()?,
        None => "Fatal error on transport".to_owned(),
    };
    let error = PyErr::from_value(error.to_owned());
    DATAGRAM.of(object).fatal_error(object, error, &message)?;
    Ok(none(object))
}

pub(super) fn is_closing<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), DATAGRAM.of(object).closing.get()))
}

fn is_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), DATAGRAM.of(object).is_reading()))
}

fn pause_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = DATAGRAM.of(object);
    if state.is_reading() {
        state.paused.set(true);
        state.update_interest(object)?;
        callbacks::debug_log(object, &state.event_loop, "%r pauses reading")?;
    }
    Ok(none(object))
}

fn resume_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = DATAGRAM.of(object);
    if !state.closing.get() && state.paused.replace(false) {
        state.update_interest(object)?;
        callbacks::debug_log(object, &state.event_loop, "%r resumes reading")?;
    }
    Ok(none(object))
}

pub(super) fn get_protocol<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(DATAGRAM.of(object).protocol.get_or_none(object.py()))
}

fn set_protocol<'py>(object: &Bound<'py, PyAny>, protocol: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = DATAGRAM.of(object);
    state.protocol.set(protocol.clone());
    state.connected.set(true);
    Ok(none(object))
}

fn get_extra_info<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [Some(name), default] = args.bind("get_extra_info", ["name", "default"])? else {
        return Err(missing_argument("get_extra_info", "name"));
    };
    let found = match DATAGRAM.of(object).extra.get(object.py()) {
        Some(extra) => extra.cast_into::<PyDict>()?.get_item(name)?,
        None => None,
    };
    Ok(found
        .or_else(|| default.map(Borrowed::to_owned))
        .unwrap_or_else(|| none(object)))
}

pub(super) fn get_write_buffer_size<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let size = DATAGRAM.of(object).outgoing.borrow().size();
    Ok(size.into_pyobject(object.py())?.into_any())
}

fn get_write_buffer_limits<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let limits = DATAGRAM.of(object).limits.get();
    Ok((limits.low, limits.high)
        .into_pyobject(object.py())?
        .into_any())
}

fn set_write_buffer_limits<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [high, low] = args.bind("set_write_buffer_limits", ["high", "low"])?;
    let state = DATAGRAM.of(object);
    state
        .limits
        .set(Limits::from_arguments(high.as_deref(), low.as_deref())?);
    state.maybe_pause_protocol(object)?;
    Ok(none(object))
}

/// The method table.
pub(super) fn table() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "sendto" => sendto, "sendto($self, data, addr=None)\n--\n\nSend data, a bytes-like object, as one datagram, now or as soon as the socket takes it."),
        method!(none "close" => close, "Send what is unsent, then close the socket and call connection_lost(None)."),
        method!(none "abort" => abort, "Close the socket now, drop what is unsent."),
        method!(none "is_closing" => is_closing, "Return True if the transport is closing or closed."),
        method!(none "is_reading" => is_reading, "Return True if the transport is receiving."),
        method!(none "pause_reading" => pause_reading, "Stop receiving."),
        method!(none "resume_reading" => resume_reading, "Receive again."),
        method!(none "get_protocol" => get_protocol, "Return the protocol."),
        method!(named "set_protocol"("protocol") => set_protocol, "set_protocol($self, protocol)\n--\n\nFeed another protocol from now on."),
        method!(fast "get_extra_info" => get_extra_info, "get_extra_info($self, name, default=None)\n--\n\nReturn 'socket', 'sockname', 'peername' or what else is known of the socket."),
        method!(none "get_write_buffer_size" => get_write_buffer_size, "Return the number of unsent bytes."),
        method!(none "get_write_buffer_limits" => get_write_buffer_limits, "Return the low and the high water mark, in bytes."),
        method!(fast "set_write_buffer_limits" => set_write_buffer_limits, "set_write_buffer_limits($self, high=None, low=None)\n--\n\nSet the marks, in bytes, at which the protocol is paused and resumed."),
        method!(none "_start_reading" => start_reading, "Start to receive, after connection_made()."),
        method!(one "_call_connection_lost" => call_connection_lost, "Tell the protocol and give everything up."),
        method!(one "_force_close" => force_close, "Close because of an exception."),
        method!(fast "_fatal_error" => fatal_error, "Report an exception and close."),
    ]
}
