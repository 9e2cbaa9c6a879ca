//! Sending, the queue of what is unsent, and flow control.

use std::collections::VecDeque;
use std::net::SocketAddr;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes};
use weft_reactor::socket;

use super::DatagramTransport;
use super::receiving::{is_later, means_later};
use crate::errors::os_error;
use crate::ffi::Reference;
use crate::ffi::bytes::{self, View};
use crate::ffi::call::{audit_sendto, method1};
use crate::transports::callbacks;
use crate::transports::methods::{Owning, Reading, SocketTransport};

/// What a queued datagram counts for beside its data.
const HEADER: usize = if cfg!(Py_3_13) { 8 } else { 0 };

const FATAL: &str = "Fatal write error on datagram transport";

/// Where a datagram goes.
#[derive(Debug)]
pub(super) enum Destination {
    /// To whom the socket is connected.
    Peer,
    /// To an address.
    Inet(SocketAddr, Reference),
    /// To what the Python socket makes of an object.
    Python(Reference),
}

/// What is unsent: `bytes`, and where they go.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    queue: VecDeque<(Reference, Destination)>,
    size: usize,
}

impl Outgoing {
    /// What waits, in bytes, as `get_write_buffer_size()` counts.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn push(&mut self, data: &Bound<'_, PyAny>, destination: Destination) {
        self.size += weight(data);
        self.queue.push_back((data.clone().into(), destination));
    }

    fn pop(&mut self, py: Python<'_>) -> Option<(Reference, Destination)> {
        let (data, destination) = self.queue.pop_front()?;
        self.size -= weight(data.bind(py));
        Some((data, destination))
    }

    fn put_back(&mut self, py: Python<'_>, data: Reference, destination: Destination) {
        self.size += weight(data.bind(py));
        self.queue.push_front((data, destination));
    }

    /// Takes everything out; the caller drops it after its borrow has ended.
    #[must_use]
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

/// What queued `bytes` count for.
fn weight(data: &Bound<'_, PyAny>) -> usize {
    bytes::contents(data).len() + HEADER
}

/// How an attempt to send ended.
enum Attempt {
    Sent,
    Later,
    Failed(PyErr),
}

impl Attempt {
    fn of_system_call(outcome: std::io::Result<usize>) -> Self {
        match outcome {
            Ok(_) => Self::Sent,
            Err(error) if is_later(&error) => Self::Later,
            Err(error) => Self::Failed(os_error(error)),
        }
    }

    fn of_python_call(py: Python<'_>, outcome: PyResult<Bound<'_, PyAny>>) -> Self {
        match outcome {
            Ok(_) => Self::Sent,
            Err(error) if means_later(py, &error) => Self::Later,
            Err(error) => Self::Failed(error),
        }
    }
}

impl DatagramTransport {
    /// `sendto(data, address)`; `data` is `bytes`, `bytearray` or `memoryview`.
    pub(super) fn sendto(
        &self,
        object: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        address: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = object.py();
        if cfg!(not(Py_3_13)) && data.len()? == 0 {
            return Ok(());
        }
        let remote = self.remote.get(py);
        if let Some(remote) = &remote
            && !address.is_none()
            && !address.is(remote)
            && !address.eq(remote)?
        {
            return Err(PyValueError::new_err(format!(
                "Invalid address: must be None or {}",
                remote.str()?
            )));
        }
        // A socket that sends to everybody goes on to do so until it is closed.
        if self.lost.get() > 0 && (remote.is_some() || !self.socket.is_set()) {
            return callbacks::count_lost_write(py, &self.lost);
        }
        let destination = self.destination(remote.as_ref().unwrap_or(address));
        if self.outgoing.borrow().is_empty() {
            match self.attempt(py, data, &destination) {
                Attempt::Sent => return Ok(()),
                Attempt::Failed(error) => return self.failed(object, error),
                // Nobody will come back to it.
                Attempt::Later if self.lost.get() > 0 => return Ok(()),
                Attempt::Later => self.writing.set(true),
            }
        }
        let kept = immutable(data)?;
        self.outgoing.borrow_mut().push(&kept, destination);
        self.update_interest(object)?;
        self.maybe_pause_protocol(object)
    }

    #[inline]
    fn destination(&self, address: &Bound<'_, PyAny>) -> Destination {
        if self.connected_socket.get() {
            return Destination::Peer;
        }
        match self.family.get().and_then(|family| family.parse(address)) {
            Some(parsed) => Destination::Inet(parsed, address.clone().into()),
            None => Destination::Python(address.clone().into()),
        }
    }

    /// Tries to send one datagram.
    #[inline]
    fn attempt(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        destination: &Destination,
    ) -> Attempt {
        if self.family.get().is_none() || matches!(destination, Destination::Python(_)) {
            return self.attempt_by_python(py, data, destination);
        }
        if let Destination::Inet(_, address) = destination
            && let Some(sock) = self.socket.get(py)
            && let Err(error) = audit_sendto(&sock, address.bind(py))
        {
            return Attempt::Failed(error);
        }
        let send = |contents: &[u8]| {
            Attempt::of_system_call(match destination {
                Destination::Inet(address, _) => {
                    socket::send_to(self.descriptor(), contents, address)
                }
                _ => socket::send(self.descriptor(), contents),
            })
        };
        if bytes::is_bytes(data) {
            return send(bytes::contents(data));
        }
        match View::of(data) {
            Ok(view) => send(view.as_slice()),
            Err(error) => Attempt::Failed(error),
        }
    }

    #[cold]
    fn attempt_by_python(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        destination: &Destination,
    ) -> Attempt {
        let Some(sock) = self.socket.get(py) else {
            return Attempt::Sent;
        };
        let outcome = match destination {
            Destination::Peer => method1(&sock, intern!(py, "send"), data),
            Destination::Inet(_, address) | Destination::Python(address) => {
                sock.call_method1(intern!(py, "sendto"), (data, address.bind(py)))
            }
        };
        Attempt::of_python_call(py, outcome)
    }

    fn failed(&self, object: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
        let py = object.py();
        if error.is_instance_of::<PyOSError>(py) {
            self.error_received(py, &error)
        } else {
            self.fatal_error(object, error, FATAL)
        }
    }

    /// Sends from the queue, as long as the socket takes something.
    pub(super) fn write_ready(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        while self.lost.get() == 0 {
            let next = self.outgoing.borrow_mut().pop(py);
            let Some((data, destination)) = next else {
                break;
            };
            match self.attempt(py, data.bind(py), &destination) {
                Attempt::Sent => {}
                Attempt::Failed(error) => return self.failed(object, error),
                // Aborted by somebody whom the attempt has called.
                Attempt::Later if self.lost.get() > 0 => break,
                Attempt::Later => {
                    self.outgoing.borrow_mut().put_back(py, data, destination);
                    break;
                }
            }
        }
        if self.lost.get() > 0 {
            return Ok(());
        }
        self.maybe_resume_protocol(object)?;
        if self.outgoing.borrow().is_empty() && self.lost.get() == 0 {
            self.writing.set(false);
            self.update_interest(object)?;
            if self.closing.get() {
                self.lost.set(1);
                return self.connection_lost(object, None);
            }
        }
        Ok(())
    }

    pub(super) fn maybe_pause_protocol(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.outgoing.borrow().size() <= self.limits.get().high || self.protocol_paused.get() {
            return Ok(());
        }
        self.protocol_paused.set(true);
        callbacks::flow_control(object, &self.event_loop, &self.protocol, "pause_writing")
    }

    fn maybe_resume_protocol(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.protocol_paused.get() || self.outgoing.borrow().size() > self.limits.get().low {
            return Ok(());
        }
        self.protocol_paused.set(false);
        callbacks::flow_control(object, &self.event_loop, &self.protocol, "resume_writing")
    }
}

/// `data` itself where it is `bytes`, else a copy of it.
fn immutable<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if bytes::is_bytes(data) {
        return Ok(data.clone());
    }
    data.py().get_type::<PyBytes>().call1((data,))
}
