//! The ways in which a connection ends.

use pyo3::exceptions::{PyException, PyOSError, PyResourceWarning, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};

use super::engine::{Answer, is_ssl_error};
use super::{State, TLS, TlsTransport, Told};
use crate::ffi::Slot;
use crate::ffi::call::{method0, method1, method2};
use crate::imports::{imports, tls};
use crate::transports::methods::{Ending, none};

impl TlsTransport {
    /// Begins to close, unless somebody has.
    pub(super) fn start_shutdown(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.state.get() {
            State::Flushing | State::ShuttingDown | State::Unwrapped => return Ok(()),
            State::Handshaking => {
                self.closed.set(true);
                return self.abort(object, None);
            }
            State::Wrapped => {}
        }
        self.closed.set(true);
        self.state.set(State::Flushing);
        self.start_shutdown_timer(object)?;
        self.do_flush(object)
    }

    fn start_shutdown_timer(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        let Some(event_loop) = self.event_loop.get(py) else {
            return Ok(());
        };
        let check = object.getattr(intern!(py, "_check_shutdown_timeout"))?;
        let timeout = self.shutdown_timeout.get_or_none(py);
        let timer = event_loop.call_method1(intern!(py, "call_later"), (timeout, check))?;
        self.shutdown_timer.set(timer);
        Ok(())
    }

    /// The time for closing is over.
    pub(super) fn shutdown_timed_out(&self, py: Python<'_>) -> PyResult<()> {
        if matches!(self.state.get(), State::Flushing | State::ShuttingDown) {
            let error = PyTimeoutError::new_err("SSL shutdown timed out");
            return self.force_close_lower(py, Some(error.value(py).as_any()));
        }
        Ok(())
    }

    /// Delivers what has arrived and goes on to the closing handshake.
    pub(super) fn do_flush(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        self.do_read(object)?;
        if self.state.get() != State::Flushing {
            // The application has aborted it.
            return Ok(());
        }
        self.state.set(State::ShuttingDown);
        self.do_shutdown(object)
    }

    /// The closing handshake. It is left out where the peer has gone without one.
    pub(super) fn do_shutdown(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        if self.shut_down.get() {
            return Ok(());
        }
        if !self.eof_received.get() {
            match self.shake(py, "unwrap") {
                Ok(Answer::Again) => return self.send(object),
                Ok(Answer::Got(())) => {}
                Err(error) if is_ssl_error(py, &error) => {
                    cancel_timer(py, &self.shutdown_timer)?;
                    return self.fatal_error(object, error, "Fatal error on transport");
                }
                Err(error) => return Err(error),
            }
        }
        self.shut_down.set(true);
        self.send(object)?;
        self.call_eof_received(object)?;
        // What is below sends what it has before it closes, and a peer that does not read may keep it from that. So the
        // time goes on to be taken until the connection is lost.
        if !self.shutdown_timer.is_set() {
            self.start_shutdown_timer(object)?;
        }
        if let (Some(event_loop), Some(lower)) = (self.event_loop.get(py), self.lower.get(py)) {
            let close = lower.getattr(intern!(py, "close"))?;
            method1(&event_loop, intern!(py, "call_soon"), &close)?;
        }
        Ok(())
    }

    /// The transport below has come to its end. Answers whether it is to stay open.
    pub(super) fn lower_ended(&self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.eof_received.set(true);
        self.debug_log(object, "%r received EOF")?;
        let outcome = match self.state.get() {
            State::Handshaking => {
                let error = pyo3::exceptions::PyConnectionResetError::new_err(());
                self.handshake_done(object, Some(error))
            }
            State::Wrapped => {
                self.state.set(State::Flushing);
                if self.reading_paused.get() {
                    return Ok(true);
                }
                self.do_flush(object)
            }
            State::Flushing => {
                let written = if self.has_backlog() {
                    self.write_backlog(object)
                } else {
                    self.send(object)
                };
                written.and_then(|()| {
                    if self.state.get() == State::Flushing {
                        self.state.set(State::ShuttingDown);
                    }
                    self.do_shutdown(object)
                })
            }
            State::ShuttingDown => self.do_shutdown(object),
            State::Unwrapped => Ok(()),
        };
        if let Err(error) = &outcome
            && error.is_instance_of::<PyException>(object.py())
        {
            self.call_lower(object.py(), "close")?;
        }
        outcome.map(|()| false)
    }

    /// Ends it now.
    pub(super) fn abort(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.state.set(State::Unwrapped);
        self.force_close_lower(object.py(), error)
    }

    fn force_close_lower(&self, py: Python<'_>, error: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let Some(lower) = self.lower.get(py) else {
            return Ok(());
        };
        let error = error.map_or_else(|| none(&lower), Clone::clone);
        method1(&lower, intern!(py, "_force_close"), &error).map(drop)
    }

    /// The transport below is lost, because of `error` or for `None`.
    pub(super) fn connection_lost(
        &self,
        object: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = object.py();
        self.drop_backlog();
        self.lost.set(self.lost.get().saturating_add(1));
        self.closed.set(true);
        let event_loop = self.event_loop.take(py);
        let protocol = self.protocol.take(py);
        let state = self.state.replace(State::Unwrapped);
        let mut told = Ok(());
        if state != State::Handshaking && matches!(self.told.get(), Told::Made | Told::Ended) {
            self.told.set(Told::Lost);
            if let (Some(event_loop), Some(protocol)) = (&event_loop, &protocol) {
                told = protocol
                    .getattr(intern!(py, "connection_lost"))
                    .and_then(|lost| method2(event_loop, intern!(py, "call_soon"), &lost, error))
                    .map(drop);
            }
        }
        let lower = self.lower.take(py);
        let woken = self.wake_waiter(py, Some(error).filter(|error| !error.is_none()));
        let cancelled =
            cancel_timer(py, &self.shutdown_timer).and(cancel_timer(py, &self.handshake_timer));
        // The `SSLObject` holds them as long as it needs them.
        for slot in [&self.engine, &self.incoming, &self.outgoing] {
            slot.clear();
        }
        drop((lower, protocol, event_loop));
        self.forget(py);
        told.and(woken).and(cancelled)
    }

    /// Lets go of the `SSLObject` and the context where all is over and it was closed once more: so does asyncio's, and a
    /// protocol that keeps its transport may be kept long itself.
    pub(super) fn forget(&self, py: Python<'_>) {
        if self.closed_again.get() && !self.lower.is_set() {
            drop((self.extra.take(py), self.ssl_object.take(py)));
        }
    }

    /// Ends the connection because of `error`, which is reported unless it is the peer's or the network's doing.
    pub(super) fn fatal_error(
        &self,
        object: &Bound<'_, PyAny>,
        error: PyErr,
        message: &str,
    ) -> PyResult<()> {
        let py = object.py();
        let lower = self.lower.get_or_none(py);
        let error = error.into_value(py).into_bound(py).into_any();
        self.force_close_lower(py, Some(&error))?;
        if error.is_instance_of::<PyOSError>() {
            if self.is_debug(py)? {
                let keywords = PyDict::new(py);
                keywords.set_item("exc_info", &error)?;
                let logger = tls(py)?.logger.bind(py);
                logger.call_method("debug", ("%r: %s", object, message), Some(&keywords))?;
            }
            return Ok(());
        }
        if error.is_instance(imports(py).cancelled_error.bind(py))? {
            return Ok(());
        }
        self.report(object, message, error.as_any(), &lower)
    }

    /// Gives an exception to the loop's exception handler.
    pub(super) fn report(
        &self,
        object: &Bound<'_, PyAny>,
        message: &str,
        error: &Bound<'_, PyAny>,
        transport: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = object.py();
        let Some(event_loop) = self.event_loop.get(py) else {
            return Ok(());
        };
        let details = PyDict::new(py);
        details.set_item("message", message)?;
        details.set_item("exception", error)?;
        details.set_item("transport", transport)?;
        details.set_item("protocol", object)?;
        event_loop
            .call_method1("call_exception_handler", (details,))
            .map(drop)
    }
}

impl Ending for TlsTransport {
    fn close(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.closed.replace(true) {
            self.closed_again.set(true);
            self.forget(object.py());
            return Ok(());
        }
        self.start_shutdown(object)
    }

    fn force_close(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.closed.set(true);
        self.abort(object, error.as_ref())
    }
}

/// Cancels the timer in a slot.
pub(super) fn cancel_timer(py: Python<'_>, timer: &Slot) -> PyResult<()> {
    match timer.take(py) {
        Some(timer) => method0(&timer, intern!(py, "cancel")).map(drop),
        None => Ok(()),
    }
}

/// A transport that nobody closed: there is a warning. What is below closes what it has by itself.
pub(super) fn finalize(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = object.py();
    let state = TLS.of(object);
    if state.closed.replace(true) || !state.lower.is_set() {
        return Ok(());
    }
    let keywords = PyDict::new(py);
    keywords.set_item("source", object)?;
    let text = format!("unclosed transport {}", object.repr()?);
    imports(py)
        .warn
        .bind(py)
        .call((text, py.get_type::<PyResourceWarning>()), Some(&keywords))
        .map(drop)
}
