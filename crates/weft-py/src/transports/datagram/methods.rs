//! What Python sees: construction and methods.

use pyo3::Borrowed;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple};

use super::{DATAGRAM, DatagramTransport};
use crate::event_loop::EVENT_LOOP;
use crate::ffi::Slot;
use crate::ffi::bytes;
use crate::ffi::call::call1;
use crate::ffi::context;
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::socket::SocketMemory;
use crate::imports::imports;
use crate::method;
use crate::transports::addresses::Family;
use crate::transports::details;
use crate::transports::flow_control::Limits;
use crate::transports::methods::{SocketTransport, Transport, Writing, none, socket_methods};

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

impl Transport for DatagramTransport {
    fn event_loop(&self) -> &Slot {
        &self.event_loop
    }

    fn protocol(&self) -> &Slot {
        &self.protocol
    }

    fn adopt_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        self.protocol.set(protocol.clone());
        self.connected.set(true);
        Ok(())
    }

    fn is_closing(&self, _: Python<'_>) -> PyResult<bool> {
        Ok(self.closing.get())
    }
}

impl Writing for DatagramTransport {
    fn limits(&self) -> Limits {
        self.limits.get()
    }

    fn set_limits(&self, object: &Bound<'_, PyAny>, limits: Limits) -> PyResult<()> {
        self.limits.set(limits);
        self.maybe_pause_protocol(object)
    }

    fn unsent(&self, _: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(self.outgoing.borrow().size())
    }
}

impl SocketTransport for DatagramTransport {}

/// The method table.
pub(super) fn table() -> Vec<ffi::PyMethodDef> {
    let mut table = socket_methods!(DatagramTransport);
    table.extend([
        method!(fast "sendto" => sendto, "sendto($self, data, addr=None)\n--\n\nSend data, a bytes-like object, as one datagram, now or as soon as the socket takes it."),
        method!(fast "get_extra_info" => get_extra_info, "get_extra_info($self, name, default=None)\n--\n\nReturn 'socket', 'sockname', 'peername' or what else is known of the socket."),
    ]);
    table
}
