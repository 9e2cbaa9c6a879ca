//! Sending, the buffer of what is unsent, and flow control.

use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes};
use weft_reactor::socket;

use super::StreamTransport;
use crate::errors::os_error;
use crate::ffi::bytes::{self, View};
use crate::transports::callbacks;
use crate::transports::methods::{Owning, Reading, SocketTransport, none};
use crate::transports::write_buffer::WriteBuffer;

impl StreamTransport {
    pub(super) fn check_writable(&self, method: &str, busy: &str) -> PyResult<()> {
        if self.eof.get() {
            return Err(PyRuntimeError::new_err(format!(
                "Cannot call {method}() after write_eof()"
            )));
        }
        if self.empty_waiter.is_set() {
            return Err(PyRuntimeError::new_err(format!(
                "unable to {busy}; sendfile is in progress"
            )));
        }
        Ok(())
    }

    /// Counts a write to a lost connection; answers whether there is one.
    pub(super) fn is_lost(&self, py: Python<'_>) -> PyResult<bool> {
        if self.lost.get() == 0 {
            return Ok(false);
        }
        callbacks::count_lost_write(py, &self.lost)?;
        Ok(true)
    }

    /// Sends as much of `data` as the socket takes. `None` where the connection failed instead.
    pub(super) fn send_now(
        &self,
        object: &Bound<'_, PyAny>,
        data: &[u8],
    ) -> PyResult<Option<usize>> {
        match socket::send(self.descriptor(), data) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(0)),
            Err(error) => {
                self.fatal_error(
                    object,
                    os_error(error),
                    "Fatal write error on socket transport",
                )?;
                Ok(None)
            }
        }
    }

    pub(super) fn write(&self, object: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(exact) = data.cast_exact::<PyBytes>() {
            return self.write_contents(object, exact.as_bytes(), |unsent, sent| {
                unsent.push_shared(exact.clone(), sent);
            });
        }
        match View::of(data) {
            Ok(view) => {
                let contents = view.as_slice();
                self.write_contents(object, contents, |unsent, sent| {
                    unsent.push_copy(&contents[sent..]);
                })
            }
            Err(error) => self.fatal_error(object, error, "Fatal write error on socket transport"),
        }
    }

    /// Sends `contents` or a part of it, and has `keep` put the rest, from an offset on, into the buffer.
    #[inline]
    fn write_contents(
        &self,
        object: &Bound<'_, PyAny>,
        contents: &[u8],
        keep: impl FnOnce(&mut WriteBuffer, usize),
    ) -> PyResult<()> {
        if contents.is_empty() || self.is_lost(object.py())? {
            return Ok(());
        }
        if self.collects(object.py(), contents.len()) {
            keep(&mut self.unsent.borrow_mut(), 0);
            self.join(object);
            return self.collected(object);
        }
        self.flush(object)?;
        if self.lost.get() > 0 {
            return Ok(());
        }
        let mut sent = 0;
        if self.unsent.borrow().is_empty() {
            match self.send_now(object, contents)? {
                Some(count) if count == contents.len() => {
                    self.join(object);
                    return Ok(());
                }
                Some(count) => sent = count,
                None => return Ok(()),
            }
        }
        self.joins.set(false);
        keep(&mut self.unsent.borrow_mut(), sent);
        self.update_interest(object)?;
        self.maybe_pause_protocol(object)
    }

    pub(super) fn writelines(
        &self,
        object: &Bound<'_, PyAny>,
        lines: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = object.py();
        let mut shared = Vec::new();
        for line in lines.try_iter()? {
            let line = line?;
            let view = if bytes::is_bytes(&line) {
                None
            } else {
                Some(View::of(&line)?)
            };
            shared.push((line, view));
        }
        if shared.is_empty() || self.is_lost(py)? {
            return Ok(());
        }
        let collects = self.collects(py, 0);
        let was_empty = self.unsent.borrow().is_empty();
        {
            let mut unsent = self.unsent.borrow_mut();
            for (line, view) in &shared {
                match view {
                    Some(view) => unsent.push_copy(view.as_slice()),
                    None => unsent.push_shared(line.clone().cast_into::<PyBytes>()?, 0),
                }
            }
        }
        drop(shared);
        if collects {
            self.join(object);
            return self.collected(object);
        }
        if was_empty {
            if !self.send_unsent(object)? {
                return Ok(());
            }
            if self.unsent.borrow().is_empty() {
                self.join(object);
                return Ok(());
            }
        }
        self.update_interest(object)?;
        self.maybe_pause_protocol(object)
    }

    /// Sends from the buffer, once. `false` where the connection failed.
    pub(super) fn send_unsent(&self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        if self.unsent.borrow().is_empty() {
            return Ok(true);
        }
        let outcome = self
            .unsent
            .borrow_mut()
            .send(object.py(), self.descriptor());
        match outcome {
            Ok(sent) => {
                drop(sent);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => {
                let error = os_error(error);
                let unsent = self.unsent.borrow_mut().take();
                drop(unsent);
                let waiting = self.empty_waiter.get(object.py());
                let told = error.clone_ref(object.py());
                self.fatal_error(object, error, "Fatal write error on socket transport")?;
                if let Some(waiter) = waiting {
                    waiter.call_method1("set_exception", (told,))?;
                }
                Ok(false)
            }
        }
    }

    pub(super) fn write_ready(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.lost.get() > 0 || self.unsent.borrow().is_empty() {
            return Ok(());
        }
        if !self.send_unsent(object)? {
            return Ok(());
        }
        self.maybe_resume_protocol(object)?;
        if self.unsent.borrow().is_empty() && self.lost.get() == 0 {
            self.update_interest(object)?;
            if let Some(waiter) = self.empty_waiter.get(object.py()) {
                waiter.call_method1("set_result", (none(object),))?;
            }
            if self.closing.get() {
                self.lost.set(1);
                return self.connection_lost(object, None);
            }
            if self.eof.get() {
                self.shut_down()?;
            }
        }
        Ok(())
    }

    pub(super) fn shut_down(&self) -> PyResult<()> {
        socket::shutdown_write(self.descriptor()).map_err(os_error)
    }

    pub(super) fn maybe_pause_protocol(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.unsent.borrow().len() <= self.limits.get().high || self.protocol_paused.get() {
            return Ok(());
        }
        self.protocol_paused.set(true);
        self.tell_protocol(object, "pause_writing")
    }

    pub(super) fn maybe_resume_protocol(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.protocol_paused.get() || self.unsent.borrow().len() > self.limits.get().low {
            return Ok(());
        }
        self.protocol_paused.set(false);
        self.tell_protocol(object, "resume_writing")
    }

    /// Calls a flow-control method of the protocol; what it raises is reported and changes nothing.
    pub(super) fn tell_protocol(&self, object: &Bound<'_, PyAny>, name: &str) -> PyResult<()> {
        callbacks::flow_control(object, &self.event_loop, &self.protocol, name)
    }
}
