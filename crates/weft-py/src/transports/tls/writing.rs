//! Encrypting, sending, and flow control.

use std::collections::VecDeque;

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyBytesMethods};

use super::engine::{Answer, as_bytes, part};
use super::{State, TlsTransport, WRITE_HIGH};
use crate::event_loop::handles::is_fatal;
use crate::ffi::Reference;
use crate::ffi::bytes::{self, contents};
use crate::ffi::call::{method0, method1};
use crate::imports::tls;
use crate::transports::flow_control::Limits;
use crate::transports::methods::Writing;
use crate::transports::stream::direct;

/// So much is encrypted, then sent, before the rest is.
const AT_ONCE: usize = 256 * 1024;

/// After so many writes to a lost connection asyncio starts to warn.
const WARN_AFTER_LOST_WRITES: u32 = 5;

/// What waits to be encrypted: `bytes`, none of them empty, the first from an offset on.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pieces: VecDeque<Reference>,
    offset: usize,
    size: usize,
}

impl Backlog {
    fn push(&mut self, data: Bound<'_, PyBytes>) {
        self.size += data.as_bytes().len();
        self.pieces.push_back(data.into_any().into());
    }

    /// The first piece, and from where on it waits.
    fn first<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyAny>, usize)> {
        let piece = self.pieces.front()?;
        Some((piece.bind(py).clone(), self.offset))
    }

    /// Counts `count` bytes of the first piece as done. What is done whole is handed out, to be dropped.
    fn advance(&mut self, py: Python<'_>, count: usize) -> Option<Reference> {
        let length = contents(self.pieces.front()?.bind(py)).len();
        self.size -= count.min(length - self.offset);
        self.offset += count;
        if self.offset < length {
            return None;
        }
        self.offset = 0;
        self.pieces.pop_front()
    }
}

impl TlsTransport {
    pub(super) fn has_backlog(&self) -> bool {
        self.backlog.borrow().size > 0
    }

    pub(super) fn drop_backlog(&self) {
        let dropped = self.backlog.take();
        drop(dropped);
    }

    /// Puts data where it waits to be encrypted.
    pub(super) fn keep(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = as_bytes(data)?;
        if !data.as_bytes().is_empty() {
            self.backlog.borrow_mut().push(data);
        }
        Ok(())
    }

    /// Counts a write to what is closed or lost; answers whether it is.
    pub(super) fn is_over(&self, py: Python<'_>) -> PyResult<bool> {
        match self.state.get() {
            State::Wrapped | State::Handshaking => return Ok(false),
            State::Flushing | State::ShuttingDown | State::Unwrapped => {}
        }
        if self.lost.get() >= WARN_AFTER_LOST_WRITES {
            let logger = tls(py)?.logger.bind(py);
            logger.call_method1("warning", ("SSL connection is closed",))?;
        }
        self.lost.set(self.lost.get().saturating_add(1));
        Ok(true)
    }

    /// Encrypts and sends `data`, which is not empty.
    #[inline]
    pub(super) fn write(&self, object: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.is_over(object.py())? {
            return Ok(());
        }
        let is_small = bytes::is_bytes(data) && contents(data).len() <= AT_ONCE;
        if !is_small || self.state.get() != State::Wrapped || self.has_backlog() {
            self.keep(data)?;
            return self.write_kept(object);
        }
        let outcome = match self.encrypt(data) {
            Ok(Answer::Got(count)) if count == contents(data).len() => self.send(object),
            Ok(Answer::Got(count)) => {
                self.keep(&part(data, count, contents(data).len())?)?;
                self.write_backlog(object)
            }
            Ok(Answer::Again) => {
                self.keep(data)?;
                self.send(object)
            }
            Err(error) => Err(error),
        };
        self.settle(object, outcome)
    }

    /// Encrypts and sends what has been kept, where it can be.
    pub(super) fn write_kept(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.state.get() != State::Wrapped || !self.has_backlog() {
            return Ok(());
        }
        let outcome = self.write_backlog(object);
        self.settle(object, outcome)
    }

    /// Ends the connection where writing has failed.
    #[inline]
    fn settle(&self, object: &Bound<'_, PyAny>, outcome: PyResult<()>) -> PyResult<()> {
        match outcome {
            Err(error) if error.is_instance_of::<PyException>(object.py()) => {
                self.fatal_error(object, error, "Fatal error on SSL protocol")
            }
            outcome => outcome,
        }
    }

    /// Encrypts the backlog, as far as the peer lets us, and sends it.
    pub(super) fn write_backlog(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        let mut encrypted = 0;
        loop {
            let Some((piece, offset)) = self.backlog.borrow().first(py) else {
                break;
            };
            let length = contents(&piece).len();
            let outcome = if offset == 0 && length <= AT_ONCE {
                self.encrypt(&piece)?
            } else {
                self.encrypt(&part(&piece, offset, length.min(offset + AT_ONCE))?)?
            };
            let Answer::Got(count) = outcome else {
                break;
            };
            let done = self.backlog.borrow_mut().advance(py, count);
            drop((done, piece));
            encrypted += count;
            if encrypted >= AT_ONCE && self.has_backlog() && !self.lower_writing_paused.get() {
                encrypted = 0;
                self.send_out(py)?;
            }
        }
        self.send(object)
    }

    /// Sends what the `SSLObject` has to send, unless what is below has asked to wait, and tells the protocol how full it
    /// is here.
    #[inline]
    pub(super) fn send(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.lower_writing_paused.get() {
            self.send_out(object.py())?;
        }
        self.control_writing(object)
    }

    #[inline]
    fn send_out(&self, py: Python<'_>) -> PyResult<()> {
        let Some(lower) = self.lower.get(py) else {
            return Ok(());
        };
        let Some(data) = self.take_out(py)? else {
            return Ok(());
        };
        if direct::native(&lower).is_some() {
            direct::write(&lower, &data)
        } else {
            method1(&lower, intern!(py, "write"), &data).map(drop)
        }
    }

    // -- flow control ------------------------------------------------------------------------------

    /// Asks the protocol to pause or to go on.
    #[inline]
    pub(super) fn control_writing(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        // What can be sent has been, so nothing waits.
        if !self.lower_writing_paused.get() && !self.writing_paused.get() && !self.has_backlog() {
            return Ok(());
        }
        let size = self.unsent(object)?;
        let limits = self.write_limits.get();
        if size > 0 && size >= limits.high && !self.writing_paused.get() {
            self.writing_paused.set(true);
            self.tell_protocol(object, "pause_writing")
        } else if size <= limits.low && self.writing_paused.get() {
            self.writing_paused.set(false);
            self.tell_protocol(object, "resume_writing")
        } else {
            Ok(())
        }
    }

    /// Calls a flow-control method of the protocol; what it raises is reported and changes nothing.
    fn tell_protocol(&self, object: &Bound<'_, PyAny>, name: &str) -> PyResult<()> {
        let py = object.py();
        let Some(protocol) = self.protocol.get(py) else {
            return Ok(());
        };
        match protocol.call_method0(name) {
            Ok(_) => Ok(()),
            Err(error) if is_fatal(py, &error) => Err(error),
            Err(error) => self.report(
                object,
                &format!("protocol.{name}() failed"),
                error.value(py),
                object,
            ),
        }
    }

    /// Calls a method of the transport below.
    pub(super) fn call_lower(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        match self.lower.get(py) {
            Some(lower) => method0(&lower, &pyo3::types::PyString::intern(py, name)).map(drop),
            None => Ok(()),
        }
    }
}

impl Writing for TlsTransport {
    fn limits(&self) -> Limits {
        self.write_limits.get()
    }

    fn default_limits() -> Limits {
        Limits::below(WRITE_HIGH)
    }

    fn set_limits(&self, object: &Bound<'_, PyAny>, limits: Limits) -> PyResult<()> {
        self.write_limits.set(limits);
        self.control_writing(object)
    }

    fn unsent(&self, object: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = object.py();
        Ok(self.backlog.borrow().size + self.outgoing_pending(py)?)
    }
}
