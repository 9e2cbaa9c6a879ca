//! The ways in which a transport ends.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{DATAGRAM, DatagramTransport};
use crate::event_loop::EVENT_LOOP;
use crate::ffi::call::{method0, method1};
use crate::transports::callbacks;
use crate::transports::methods::{Ending, Owning, Reading, none};

impl Ending for DatagramTransport {
    fn close(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.closing.replace(true) {
            return Ok(());
        }
        if self.outgoing.borrow().is_empty() {
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
        let unsent = self.outgoing.borrow_mut().take();
        self.closing.set(true);
        self.lose(object, error)?;
        drop(unsent);
        Ok(())
    }
}

impl Owning for DatagramTransport {
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
        outcome.and(closed)
    }
}

impl DatagramTransport {
    /// Schedules `connection_lost(error)`; nothing is watched from here on.
    fn lose(&self, object: &Bound<'_, PyAny>, error: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let py = object.py();
        self.lost.set(self.lost.get() + 1);
        let updated = self.update_interest(object);
        if let Some(event_loop) = self.event_loop.get(py) {
            let callback = object.getattr(intern!(py, "_call_connection_lost"))?;
            event_loop.call_method1(intern!(py, "call_soon"), (callback, error))?;
        }
        updated
    }

    fn close_socket(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        self.started.set(false);
        self.writing.set(false);
        self.update_interest(object)?;
        self.socket_memory.set(None);
        let Some(socket) = self.socket.take(object.py()) else {
            return Ok(());
        };
        if let Some(event_loop) = self.event_loop.get(object.py()) {
            EVENT_LOOP
                .of(&event_loop)
                .forget_owner(self.fd.get(), object);
        }
        method0(&socket, intern!(object.py(), "close")).map(drop)
    }
}

/// A transport that nobody closed: its socket is closed here, with a warning.
pub(super) fn finalize(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let Some(socket) = DATAGRAM.of(object).socket.get(object.py()) else {
        return Ok(());
    };
    let warned = callbacks::warn_unclosed(object);
    DATAGRAM.of(object).socket.clear();
    socket.call_method0("close")?;
    warned
}
