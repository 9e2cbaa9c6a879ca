//! The ways in which a connection ends.

use pyo3::exceptions::PyConnectionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{STREAM, StreamTransport};
use crate::event_loop::EVENT_LOOP;
use crate::ffi::call::method1;
use crate::transports::methods::{Ending, Owning, Reading, none};
use crate::transports::{callbacks, clients};

impl Ending for StreamTransport {
    fn close(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        self.flush(object)?;
        if self.closing.replace(true) {
            return Ok(());
        }
        if self.unsent.borrow().is_empty() {
            self.lose(object, None)
        } else {
            self.update_interest(object)
        }
    }

    fn force_close(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        if self.lost.get() > 0 {
            return Ok(());
        }
        let mut unsent = self.unsent.borrow_mut().take();
        if self.joins.replace(false) && !unsent.is_empty() {
            // Had these writes not been joined, they would have been tried by now. How that ends does not matter any
            // more: the connection ends because of `error`.
            let _ = unsent.send(object.py(), self.descriptor());
        }
        self.closing.set(true);
        self.lose(object, error)?;
        drop(unsent);
        Ok(())
    }
}

impl Owning for StreamTransport {
    fn connection_lost(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = object.py();
        let outcome = match self.protocol.get(py) {
            Some(protocol) if self.connected.get() => {
                let error = error.unwrap_or_else(|| none(object));
                method1(&protocol, intern!(py, "connection_lost"), &error).map(drop)
            }
            _ => Ok(()),
        };
        let closed = self.close_socket(object);
        self.protocol.clear();
        self.event_loop.clear();
        self.context.clear();
        let detached = self.detach_server(object);
        let told = match self.empty_waiter.get(py) {
            Some(waiter) if !waiter.call_method0("done")?.is_truthy()? => {
                let error = PyConnectionError::new_err("Connection is closed by peer");
                waiter.call_method1("set_exception", (error,)).map(drop)
            }
            _ => Ok(()),
        };
        outcome.and(closed).and(detached).and(told)
    }
}

impl StreamTransport {
    /// Schedules `connection_lost(error)`; nothing is watched from here on.
    pub(super) fn lose(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = object.py();
        self.lost.set(self.lost.get() + 1);
        let updated = self.update_interest(object);
        if let Some(event_loop) = self.event_loop.get(py) {
            let callback = object.getattr(intern!(py, "_call_connection_lost"))?;
            let error = error.unwrap_or_else(|| none(object));
            self.call_soon(&event_loop, callback, error)?;
        }
        updated
    }

    pub(super) fn close_socket(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        self.started.set(false);
        self.update_interest(object)?;
        if self.socket.is_open()
            && let Some(event_loop) = self.event_loop.get(object.py())
        {
            EVENT_LOOP
                .of(&event_loop)
                .forget_owner(self.socket.number(), object);
        }
        self.socket.close(object.py())
    }

    pub(super) fn detach_server(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.server.take(object.py()) {
            Some(server) => clients::detach(&server, object),
            None => Ok(()),
        }
    }
}

/// A transport that nobody closed: its socket is closed here, with a warning.
pub(super) fn finalize(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = object.py();
    let state = STREAM.of(object);
    if !state.socket.is_open() {
        return Ok(());
    }
    let warned = callbacks::warn_unclosed(object);
    // A loop that was closed in the middle of a turn has dropped the end of it.
    let mut unsent = state.unsent.borrow_mut().take();
    if state.joins.replace(false) && !unsent.is_empty() {
        let _ = unsent.send(py, state.descriptor());
    }
    state.socket.close(py)?;
    state.detach_server(object)?;
    warned
}
