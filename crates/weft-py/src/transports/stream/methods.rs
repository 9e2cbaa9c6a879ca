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

use super::{STREAM, Source, StreamTransport, direct};
use crate::event_loop::EVENT_LOOP;
use crate::ffi::Slot;
use crate::ffi::bytes;
use crate::ffi::method::{Args, Returned};
use crate::imports::imports;
use crate::method;
use crate::transports::flow_control::Limits;
use crate::transports::methods::{
    SocketTransport, Transport, Writing, boolean, none, socket_methods,
};

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

impl Transport for StreamTransport {
    fn event_loop(&self) -> &Slot {
        &self.event_loop
    }

    fn protocol(&self) -> &Slot {
        &self.protocol
    }

    fn adopt_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        let lends =
            protocol.is_instance(imports(protocol.py()).buffered_protocol.bind(protocol.py()))?;
        self.buffered_protocol.set(lends);
        self.receiver.set(direct::receiver_of(protocol));
        self.protocol.set(protocol.clone());
        self.connected.set(true);
        Ok(())
    }

    fn is_closing(&self, _: Python<'_>) -> PyResult<bool> {
        Ok(self.closing.get())
    }
}

impl Writing for StreamTransport {
    fn limits(&self) -> Limits {
        self.limits.get()
    }

    fn set_limits(&self, object: &Bound<'_, PyAny>, limits: Limits) -> PyResult<()> {
        self.flush(object)?;
        self.limits.set(limits);
        self.maybe_pause_protocol(object)
    }

    fn unsent(&self, object: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.flush(object)?;
        Ok(self.unsent.borrow().len())
    }
}

impl SocketTransport for StreamTransport {}

/// The method table.
pub(super) fn table() -> Vec<ffi::PyMethodDef> {
    let mut table = socket_methods!(StreamTransport);
    table.extend([
        method!(named "write"("data") => write, "write($self, data)\n--\n\nSend data, a bytes-like object, now or as soon as the socket takes it."),
        method!(named "writelines"("list_of_data") => writelines, "writelines($self, list_of_data)\n--\n\nSend the bytes-like objects of an iterable, in order."),
        method!(none "write_eof" => write_eof, "End our side of the connection once everything is sent."),
        method!(none "can_write_eof" => can_write_eof, "Return True: a stream can be half-closed."),
        method!(fast "get_extra_info" => get_extra_info, "get_extra_info($self, name, default=None)\n--\n\nReturn 'socket', 'sockname', 'peername' or what else is known of the connection."),
        method!(none "_make_empty_waiter" => make_empty_waiter, "Return a future that is done when everything is sent."),
        method!(none "_reset_empty_waiter" => reset_empty_waiter, "Forget that future."),
    ]);
    table
}
