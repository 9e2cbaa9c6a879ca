//! `create_connection()` to one numeric address, which there is nobody to race with.
//!
//! The Python socket makes the system call: programs may audit it. Everything else is done here, in asyncio's order: the
//! protocol is made by the task, once the socket is connected; the transport calls `connection_made()` in the next turn,
//! and the task goes on in the one after that.
//!
//! The operation owns the socket, and the watch on it, until a transport has both.

use std::cell::Cell;
use std::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyInt, PyModule, PyString};
use weft_reactor::socket::{self, Sender};

use super::stream::{self, Source};
use crate::event_loop::{self, EVENT_LOOP, Interest};
use crate::ffi::call::{call0, method0};
use crate::ffi::context;
use crate::ffi::method::{Args, Returned};
use crate::ffi::socket::{endpoint, is_native_class};
use crate::ffi::{Slot, Visit};
use crate::futures;
use crate::imports::imports;
use crate::operations::{self, Operation, Step};
use crate::sockets::connecting;
use crate::{make_operation, method, operation};

/// `create_connection(protocol_factory, host, port)`.
#[derive(Debug, Default)]
pub struct Connecting {
    event_loop: Slot,
    protocol_factory: Slot,
    /// The tuple that the socket takes.
    address: Slot,
    peer: Cell<Option<SocketAddr>>,
    socket: Slot,
    /// The token of the watch on the socket; 0 for none.
    token: Cell<u64>,
    /// What is waited for until the socket is connected.
    future: Slot,
    transport: Slot,
    protocol: Slot,
}

impl Operation for Connecting {
    operation!(Connecting, "Loop.create_connection");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let family = match self.peer.get() {
            Some(SocketAddr::V6(_)) => libc::AF_INET6,
            _ => libc::AF_INET,
        };
        // So marked, the socket need not be made non-blocking.
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
        let made = socket_class(py)?.call1((family, kind, libc::IPPROTO_TCP))?;
        self.socket.set(made);
        let step = self.connect(frame);
        self.give_up_unless(py, step)
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        if let Some(transport) = self.transport.get(py) {
            if let Err(error) = outcome {
                method0(&transport, intern!(py, "close"))?;
                return Err(error);
            }
            let pair = (transport, self.protocol.get_or_none(py));
            return Ok(Step::Done(pair.into_pyobject(py)?.into_any()));
        }
        let step = outcome.and_then(|_| self.connected(py));
        self.give_up_unless(py, step)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots(self.slots())
    }

    fn clear(&self) {
        for slot in self.slots() {
            slot.clear();
        }
    }
}

impl Connecting {
    fn slots(&self) -> [&Slot; 7] {
        [
            &self.event_loop,
            &self.protocol_factory,
            &self.address,
            &self.socket,
            &self.future,
            &self.transport,
            &self.protocol,
        ]
    }

    /// Begins to connect, and goes on at once if that is all it takes.
    fn connect<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let sock = self.socket.get_or_none(py);
        if connecting::begin(&sock, &self.address.get_or_none(py))? {
            return self.connected(py);
        }
        let event_loop = self.event_loop.get_or_none(py);
        let future = futures::create_future(&event_loop)?;
        self.future.set(future.clone());
        let fd = endpoint(&sock).map_or(-1, |sock| sock.descriptor);
        let interest = Interest {
            readable: false,
            writable: true,
        };
        let state = EVENT_LOOP.of(&event_loop);
        self.token
            .set(event_loop::watch(state, fd, frame, notice, interest)?);
        Ok(Step::Wait(future))
    }

    /// Makes protocol and transport, and waits until the protocol knows.
    fn connected<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        let event_loop = self.event_loop.get_or_none(py);
        // From Python 3.15 on the transport does not see what the factory sets.
        let before = cfg!(Py_3_15)
            .then(|| context::copy_current(py))
            .transpose()?;
        let protocol = call0(&self.protocol_factory.get_or_none(py))?;
        let waiter = futures::create_future(&event_loop)?;
        let sock = self.socket.get_or_none(py);
        let peer = self.peer_of(&sock);
        let source = Source::Connected { sock, peer };
        let token = self.token.replace(0);
        if let Some(before) = &before {
            context::enter(before)?;
        }
        let made = stream::make_connected(&event_loop, source, &protocol, &waiter, token);
        if let Some(before) = &before {
            context::exit(before)?;
        }
        let transport = made.inspect_err(|_| self.token.set(token))?;
        self.socket.clear();
        self.transport.set(transport);
        self.protocol.set(protocol);
        Ok(Step::Wait(waiter))
    }

    /// Whom the socket is connected to: whom it was to be connected to, unless that is nobody in particular.
    fn peer_of(&self, sock: &Bound<'_, PyAny>) -> Sender {
        match self.peer.get() {
            Some(peer) if !peer.ip().to_canonical().is_unspecified() => Sender::Inet(peer),
            _ => endpoint(sock)
                .and_then(|sock| socket::peer_name(sock.descriptor).ok())
                .unwrap_or(Sender::Unnamed),
        }
    }

    /// Closes the socket where the connection has failed.
    fn give_up_unless<'py>(
        &self,
        py: Python<'py>,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Step<'py>> {
        if step.is_err() {
            self.unwatch(py);
            if let Some(sock) = self.socket.take(py) {
                method0(&sock, intern!(py, "close"))?;
            }
        }
        step
    }

    fn unwatch(&self, py: Python<'_>) {
        let token = self.token.replace(0);
        if token != 0
            && let Some(event_loop) = self.event_loop.get(py)
        {
            event_loop::unwatch(EVENT_LOOP.of(&event_loop), token);
        }
    }
}

/// The loop's notice that the socket is connected, or will not be.
fn notice(frame: &Bound<'_, PyAny>, _: bool, _: bool) -> PyResult<()> {
    let py = frame.py();
    let connecting: &Connecting = operations::of(frame);
    let Some(future) = connecting.future.get(py) else {
        return Ok(());
    };
    // Until the transport takes over, the socket is reported with each poll. A task is faster than the second report; who
    // steps the operation by hand may be long in coming.
    if operations::is_done(&future)? {
        connecting.unwatch(py);
        return Ok(());
    }
    let sock = connecting.socket.get_or_none(py);
    let fd = endpoint(&sock).map_or(-1, |sock| sock.descriptor);
    match connecting::finish(py, fd, &connecting.address.get_or_none(py)) {
        Ok(()) => futures::finish(&future, py.None().into_bound(py)),
        Err(error) => futures::fail(&future, error.value(py).as_any()),
    }
}

/// What `asyncio` makes sockets with: looked up where tests replace it.
fn socket_class(py: Python<'_>) -> Returned<'_> {
    imports(py)
        .base_events
        .bind(py)
        .getattr(intern!(py, "socket"))?
        .getattr(intern!(py, "socket"))
}

/// A host and a port that name one address, and the family's way to write it.
fn numeric(host: &Bound<'_, PyAny>, port: &Bound<'_, PyAny>) -> Option<SocketAddr> {
    let host: IpAddr = match host.cast_exact::<PyString>().ok()?.to_str().ok()? {
        text if text.contains(':') => text.parse::<Ipv6Addr>().ok()?.into(),
        text => text.parse::<Ipv4Addr>().ok()?.into(),
    };
    let port: u16 = port.cast_exact::<PyInt>().ok()?.extract().ok()?;
    Some(SocketAddr::new(host, port))
}

/// `_connect_numeric(protocol_factory, host, port)`: an operation, or `None` where this is nothing for native code.
fn connect_numeric<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    const NAME: &str = "_connect_numeric";
    let py = event_loop.py();
    let protocol_factory = args.required(NAME, 0, "protocol_factory")?;
    let (host, port) = (
        args.required(NAME, 1, "host")?,
        args.required(NAME, 2, "port")?,
    );
    let Some(peer) = numeric(&host, &port) else {
        return Ok(py.None().into_bound(py));
    };
    let state = EVENT_LOOP.of(event_loop);
    if !state.connects_natively(event_loop) || !is_native_class(&socket_class(py)?)? {
        return Ok(py.None().into_bound(py));
    }
    let address = match peer {
        SocketAddr::V4(_) => (host, port).into_pyobject(py)?.into_any(),
        SocketAddr::V6(_) => (host, port, 0, 0).into_pyobject(py)?.into_any(),
    };
    operations::operation(py, |operation: &Connecting| {
        operation.event_loop.fill(event_loop.clone());
        operation.protocol_factory.fill(protocol_factory.to_owned());
        operation.address.fill(address);
        operation.peer.set(Some(peer));
    })
}

/// The methods of the loop that are of this layer.
pub fn loop_methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "_connect_numeric" => connect_numeric, "Connect to a numeric address, or return None."),
    ]
}

/// Makes the operation's class.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    make_operation!(module.py(), Connecting)
}
