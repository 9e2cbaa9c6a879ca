//! Accepting connections: what a server's listening socket is watched for.
//!
//! All that wait are accepted in one go, as asyncio does. Each gets its protocol and its transport at once, in a context
//! of its own, without a task. What a server of another kind wants (a subclass of `socket.socket`, debug mode's log) is left
//! to the loop's Python method.
//!
//! An accepted descriptor always has an owner, be it the `OwnedFd` or the transport. Whatever fails in between closes it.
//! Python has a socket of it when it asks for one.

use std::io;
use std::os::fd::OwnedFd;

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;
use weft_reactor::socket::{self, Sender};

use super::details::plain_descriptor;
use super::stream::{self, Source};
use super::tls;
use crate::event_loop::EVENT_LOOP;
use crate::event_loop::handles::is_fatal;
use crate::ffi::call::call0;
use crate::ffi::context;
use crate::ffi::method::{Args, Returned};
use crate::ffi::socket::{Endpoint, endpoint, nonblocking_descriptor};
use crate::method;

/// What a listening socket's connections get.
struct Serving<'a, 'py> {
    event_loop: &'a Bound<'py, PyAny>,
    protocol_factory: Bound<'py, PyAny>,
    listener: Bound<'py, PyAny>,
    /// An `ssl.SSLContext`, or `None`.
    context: Bound<'py, PyAny>,
    server: Bound<'py, PyAny>,
    backlog: Bound<'py, PyAny>,
    /// For the handshake and for the end of TLS, in seconds.
    timeouts: [Bound<'py, PyAny>; 2],
}

/// `_accept_connections(protocol_factory, sock, sslcontext, server, backlog, handshake_timeout, shutdown_timeout)`: the
/// callback of a readable listening socket.
fn accept_connections<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = event_loop.py();
    let argument = |index: usize, name: &str| {
        args.required("_accept_connections", index, name)
            .map(Borrowed::to_owned)
    };
    let serving = Serving {
        event_loop,
        protocol_factory: argument(0, "protocol_factory")?,
        listener: argument(1, "sock")?,
        context: argument(2, "sslcontext")?,
        server: argument(3, "server")?,
        backlog: argument(4, "backlog")?,
        timeouts: [
            argument(5, "ssl_handshake_timeout")?,
            argument(6, "ssl_shutdown_timeout")?,
        ],
    };
    if EVENT_LOOP.of(event_loop).is_debug()
        || nonblocking_descriptor(&serving.listener)?.is_none()
        || plain_descriptor(&serving.listener).is_none()
    {
        return serving.inherit();
    }
    for _ in 0..=serving.backlog.extract::<usize>().unwrap_or(0) {
        // A protocol factory may have closed the server.
        let Some(listener) = endpoint(&serving.listener).filter(|found| found.descriptor >= 0)
        else {
            break;
        };
        match socket::accept(listener.descriptor) {
            Ok((connection, peer)) => serving.serve(listener, connection, peer)?,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => break,
                io::ErrorKind::ConnectionAborted => {}
                // Which errors are to be survived is the method's to know; it meets this one again.
                _ => return serving.inherit(),
            },
        }
    }
    Ok(py.None().into_bound(py))
}

impl<'py> Serving<'_, 'py> {
    #[cold]
    fn inherit(&self) -> Returned<'py> {
        let [handshake_timeout, shutdown_timeout] = &self.timeouts;
        let arguments = (
            &self.protocol_factory,
            &self.listener,
            &self.context,
            &self.server,
            &self.backlog,
            handshake_timeout,
            shutdown_timeout,
        );
        self.event_loop.call_method1(
            intern!(self.event_loop.py(), "_accept_connection"),
            arguments,
        )
    }

    /// Gives an accepted connection its protocol and its transport.
    fn serve(&self, listener: Endpoint, descriptor: OwnedFd, peer: Sender) -> PyResult<()> {
        let py = self.event_loop.py();
        let source = Source::Accepted {
            descriptor,
            listener,
            peer,
        };
        let own = context::copy_current(py)?;
        context::enter(&own)?;
        let outcome = self.connect(source);
        context::exit(&own)?;
        let (error, protocol) = match outcome {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        if is_fatal(py, &error) {
            return Err(error);
        }
        let report = intern!(py, "_report_accepting");
        let error = error.into_value(py);
        let arguments = (error, protocol, py.None());
        self.event_loop.call_method1(report, arguments).map(drop)
    }

    /// Makes protocol and transport; what fails comes back with the protocol, if there was one by then.
    fn connect(&self, source: Source<'_, 'py>) -> Result<(), (PyErr, Option<Bound<'py, PyAny>>)> {
        let protocol = call0(&self.protocol_factory).map_err(|error| (error, None))?;
        let feeding = if self.context.is_none() {
            Ok(protocol.clone())
        } else {
            self.secure(&protocol)
        };
        feeding
            .and_then(|fed| stream::make(self.event_loop, source, &fed, self.server.clone()))
            .map(drop)
            .map_err(|error| (error, Some(protocol)))
    }

    /// A TLS transport for `protocol`: the protocol of the transport below.
    fn secure(&self, protocol: &Bound<'py, PyAny>) -> Returned<'py> {
        let [handshake_timeout, shutdown_timeout] = self.timeouts.clone();
        tls::make_accepted(
            self.event_loop,
            protocol.clone(),
            self.context.clone(),
            handshake_timeout,
            shutdown_timeout,
        )
    }
}

/// The methods of the loop that are of this layer.
pub fn loop_methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "_accept_connections" => accept_connections, "Accept what waits at a listening socket."),
    ]
}
