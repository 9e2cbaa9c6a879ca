//! The beginning: a connected socket gets its transport.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};
use weft_reactor::socket::{self, Sender};

use super::{OwnedSocket, STREAM, Source, StreamTransport};
use crate::errors::os_error;
use crate::event_loop::{self, EVENT_LOOP, Ready};
use crate::ffi::call::method0;
use crate::ffi::context;
use crate::ffi::method::Returned;
use crate::ffi::socket::{Endpoint, SocketMemory, endpoint};
use crate::futures::FUTURE;
use crate::imports::imports;
use crate::operations;
use crate::transports::methods::{Reading, Transport};
use crate::transports::{clients, details};

/// A new transport for an accepted or connected socket. `server` is what has accepted it, or `None`.
///
/// # Errors
/// What the arguments raise. A Python socket is still the caller's then, an accepted connection is closed.
pub fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    source: Source<'_, 'py>,
    protocol: &Bound<'py, PyAny>,
    server: Bound<'py, PyAny>,
) -> Returned<'py> {
    let py = event_loop.py();
    let object = STREAM.instance(py)?;
    let nobody = py.None().into_bound(py);
    open(&object, event_loop, source, protocol, nobody, server)?;
    Ok(object)
}

/// As [`make`], for a socket that `create_connection()` has connected: `waiter` is a future to tell, `token` that of a
/// native watch on the socket, which becomes the transport's, or 0.
///
/// # Errors
/// As of [`make`].
pub fn make_connected<'py>(
    event_loop: &Bound<'py, PyAny>,
    source: Source<'_, 'py>,
    protocol: &Bound<'py, PyAny>,
    waiter: &Bound<'py, PyAny>,
    token: u64,
) -> Returned<'py> {
    let py = event_loop.py();
    let object = STREAM.instance(py)?;
    let nobody = py.None().into_bound(py);
    open(
        &object,
        event_loop,
        source,
        protocol,
        waiter.clone(),
        nobody,
    )?;
    if token != 0 {
        STREAM.of(&object).token.set(token);
        event_loop::hand_over(EVENT_LOOP.of(event_loop), token, &object, super::notice);
    }
    Ok(object)
}

/// What is known of a socket before the transport has it.
struct Prepared<'py> {
    fd: RawFd,
    kind: Option<Endpoint>,
    /// The Python socket, and where it has its descriptor.
    python: Option<(Bound<'py, PyAny>, SocketMemory)>,
    /// A connection that is a descriptor alone.
    accepted: Option<OwnedFd>,
    /// All the details, where Python has them already.
    details: Option<Bound<'py, PyDict>>,
    peer: Sender,
}

impl<'py> Prepared<'py> {
    fn from(source: Source<'_, 'py>) -> PyResult<Self> {
        match source {
            Source::Accepted {
                descriptor,
                listener,
                peer,
            } => Ok(Self {
                fd: descriptor.as_raw_fd(),
                kind: Some(listener),
                python: None,
                accepted: Some(descriptor),
                details: None,
                peer,
            }),
            Source::Connected { sock, peer } => Self::from_python(sock, None, Some(peer)),
            Source::Python { sock, extra } => Self::from_python(sock, Some(extra), None),
        }
    }

    fn from_python(
        sock: Bound<'py, PyAny>,
        extra: Option<&Bound<'py, PyAny>>,
        peer: Option<Sender>,
    ) -> PyResult<Self> {
        let kind = endpoint(&sock);
        let fd = match kind {
            Some(known) => known.descriptor,
            None => method0(&sock, intern!(sock.py(), "fileno"))?.extract()?,
        };
        let peer = match (peer, details::plain_descriptor(&sock)) {
            (None, Some(fd)) if extra.is_none_or(PyAnyMethods::is_none) => {
                Some(socket::peer_name(fd).unwrap_or(Sender::Unnamed))
            }
            (peer, _) => peer,
        };
        let details = match peer {
            Some(_) => None,
            None => Some(details::of_socket(&sock, extra)?),
        };
        let memory = SocketMemory::of(&sock)?;
        Ok(Self {
            fd,
            kind,
            python: Some((sock, memory)),
            accepted: None,
            details,
            peer: peer.unwrap_or(Sender::Unnamed),
        })
    }

    fn is_tcp(&self) -> bool {
        self.kind.is_some_and(|known| {
            known.kind == libc::SOCK_STREAM && known.protocol == libc::IPPROTO_TCP
        })
    }

    fn give_to(self, owned: &OwnedSocket) {
        if let Some((sock, memory)) = self.python {
            owned.adopt(sock, memory, self.fd);
        }
        match (self.details, self.accepted, self.kind) {
            (Some(details), ..) => owned.set_details(details.into_any()),
            (None, Some(descriptor), Some(listener)) => {
                owned.adopt_accepted(descriptor, listener, self.peer);
            }
            (None, _, Some(kind)) => owned.set_peer(kind, self.peer),
            (None, _, None) => {}
        }
    }
}

/// Initialises the transport `object`; see [`make`]. `waiter` is a future to tell when it is open, or `None`.
pub(super) fn open<'py>(
    object: &Bound<'py, PyAny>,
    event_loop: &Bound<'py, PyAny>,
    source: Source<'_, 'py>,
    protocol: &Bound<'py, PyAny>,
    waiter: Bound<'py, PyAny>,
    server: Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = object.py();
    let state = STREAM.of(object);
    let prepared = Prepared::from(source)?;
    let fd = prepared.fd;
    if prepared.is_tcp() {
        socket::set_nodelay(fd).map_err(os_error)?;
    }
    let connection_made = protocol.getattr(intern!(py, "connection_made"))?;
    let loop_state = EVENT_LOOP.of(event_loop);
    loop_state.check_closed()?;
    state.adopt_protocol(protocol)?;
    state.context.set(context::copy_current(py)?);
    if !server.is_none() {
        clients::attach(&server, object)?;
        state.server.set(server);
    }
    // From here on the socket is the transport's.
    prepared.give_to(&state.socket);
    state.event_loop.set(event_loop.clone());
    loop_state.set_owner(fd, object)?;
    state.call_soon(event_loop, connection_made, object.clone())?;
    if loop_state.schedules_directly(event_loop) {
        loop_state.push(Ready::Job {
            run: start,
            object: object.clone().into(),
            argument: None,
        });
    } else {
        let start = object.getattr(intern!(py, "_start_reading"))?;
        event_loop.call_method1(intern!(py, "call_soon"), (start,))?;
    }
    if waiter.is_none() {
        return Ok(());
    }
    if loop_state.schedules_directly(event_loop) && FUTURE.is_exact(&waiter) {
        loop_state.push(Ready::Job {
            run: tell,
            object: waiter.into(),
            argument: None,
        });
    } else {
        let told = (&imports(py).set_result_unless_cancelled, waiter, py.None());
        event_loop.call_method1(intern!(py, "call_soon"), told)?;
    }
    Ok(())
}

/// Tells a waiter that the transport is open.
fn tell<'py>(
    _: &Bound<'py, PyAny>,
    waiter: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    operations::finish_unless_done(waiter, waiter.py().None().into_bound(waiter.py()))
}

/// The job that follows `connection_made()`.
fn start<'py>(
    _: &Bound<'py, PyAny>,
    object: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    super::in_context(object, |state| state.start_reading(object))
}

impl StreamTransport {
    /// Has the loop call `callback(argument)`: in the transport's context from Python 3.15 on, before in a copy of the
    /// current one.
    pub(super) fn call_soon<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        argument: Bound<'py, PyAny>,
    ) -> PyResult<()> {
        match self.context.get(event_loop.py()) {
            Some(context) if cfg!(Py_3_15) => {
                event_loop::call_soon_in(event_loop, callback, argument, context)
            }
            _ => event_loop::call_soon(event_loop, callback, argument),
        }
    }
}
