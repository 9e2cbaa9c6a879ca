//! Decrypting, and what the protocol is told about it.

use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::engine::{Answer, Plaintext, part};
use super::{State, TlsTransport, Told};
use crate::event_loop::handles::is_fatal;
use crate::ffi::bytes;
use crate::ffi::call::{method0, method1};
use crate::imports::tls;
use crate::transports::stream::direct;

/// What a subclass of `SSLObject` is asked for at a time, as in asyncio.
const READ_SIZE: usize = 256 * 1024;

impl TlsTransport {
    /// Something has arrived: `bytes`.
    #[inline]
    pub(super) fn received(
        &self,
        object: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.take_in(data)?;
        match self.state.get() {
            State::Wrapped => self.do_read(object),
            State::Handshaking => self.shake_hands(object),
            State::Flushing => self.do_flush(object),
            State::ShuttingDown => self.do_shutdown(object),
            State::Unwrapped => Ok(()),
        }
    }

    /// Decrypts and delivers what has arrived, then sends what there is to send.
    pub(super) fn do_read(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.read_and_send(object) {
            Err(error) if error.is_instance_of::<PyException>(object.py()) => {
                self.fatal_error(object, error, "Fatal error on SSL protocol")
            }
            outcome => outcome,
        }
    }

    fn is_readable(&self) -> bool {
        matches!(self.state.get(), State::Wrapped | State::Flushing)
    }

    #[inline]
    fn read_and_send(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.is_readable() {
            return Ok(());
        }
        if !self.reading_paused.get() {
            let ended = if self.buffered_protocol.get() {
                self.read_into_protocol(object)?
            } else if self.direct.get() {
                self.read_records(object)?
            } else {
                self.read_chunks(object)?
            };
            if ended {
                self.call_eof_received(object)?;
                self.start_shutdown(object)?;
            }
            if self.is_readable() && self.has_backlog() {
                self.write_backlog(object)?;
            } else if self.stirred.get() {
                self.send(object)?;
            }
        }
        if self.reading_paused.get()
            || self.lower_reading_paused.get()
            || self.buffered_protocol.get()
        {
            self.control_reading(object)?;
        }
        Ok(())
    }

    /// Reads record by record, and delivers all of them at once. Answers whether the peer has closed.
    #[inline]
    fn read_records(&self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = object.py();
        let (count, memory) = match self.read_record(py)? {
            Answer::Got((0, _)) => return Ok(true),
            Answer::Got(record) => record,
            Answer::Again => return Ok(false),
        };
        // A record is no larger than the memory, so nothing of it is left.
        if self.incoming_pending(py)? == 0 {
            self.deliver_record(py, count, memory)?;
            return Ok(false);
        }
        let mut joined = Vec::with_capacity(count + self.incoming_pending(py)?);
        memory.look(count, |data| joined.extend_from_slice(data));
        drop(memory);
        let ended = loop {
            match self.read_record(py)? {
                Answer::Got((0, _)) => break true,
                Answer::Got((count, memory)) => {
                    memory.look(count, |data| joined.extend_from_slice(data));
                    if self.incoming_pending(py)? == 0 {
                        break false;
                    }
                }
                Answer::Again => break false,
            }
        };
        self.deliver(py, &joined)?;
        Ok(ended)
    }

    /// Delivers the record of `count` bytes that was read into `memory`.
    #[inline]
    fn deliver_record(&self, py: Python<'_>, count: usize, memory: Plaintext<'_>) -> PyResult<()> {
        let protocol = self.protocol.get_or_none(py);
        if let Some(reader) = direct::reader_of(&protocol) {
            return direct::feed(&reader, |buffer| {
                memory.look(count, |data| buffer.extend(data));
            });
        }
        let data = memory.look(count, |data| bytes::copy(py, data));
        drop(memory);
        method1(&protocol, intern!(py, "data_received"), &data).map(drop)
    }

    fn deliver(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        let protocol = self.protocol.get_or_none(py);
        if let Some(reader) = direct::reader_of(&protocol) {
            return direct::feed(&reader, |buffer| buffer.extend(data));
        }
        let data = bytes::copy(py, data);
        method1(&protocol, intern!(py, "data_received"), &data).map(drop)
    }

    /// As [`Self::read_records`], by the methods of a subclass of `SSLObject`.
    fn read_chunks(&self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = object.py();
        let mut joined = Vec::new();
        let ended = loop {
            match self.read(py, READ_SIZE)? {
                Answer::Got(chunk) => {
                    let view = bytes::View::of(&chunk)?;
                    if view.as_slice().is_empty() {
                        break true;
                    }
                    joined.extend_from_slice(view.as_slice());
                }
                Answer::Again => break false,
            }
        };
        if !joined.is_empty() {
            self.deliver(py, &joined)?;
        }
        Ok(ended)
    }

    /// Reads into the buffer that the protocol lends. Answers whether the peer has closed.
    fn read_into_protocol(&self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = object.py();
        let Some(protocol) = self.protocol.get(py) else {
            return Ok(false);
        };
        let hint = self.incoming_pending(py)?.into_pyobject(py)?;
        let buffer = method1(&protocol, intern!(py, "get_buffer"), &hint)?;
        let size = buffer.len()?;
        if size == 0 {
            return Err(PyRuntimeError::new_err(
                "get_buffer() returned an empty buffer",
            ));
        }
        let mut filled = 0;
        let ended = loop {
            let outcome = if filled == 0 {
                self.read_into(size, &buffer)?
            } else {
                self.read_into(size - filled, &part(&buffer, filled, size)?)?
            };
            match outcome {
                Answer::Got(0) => break true,
                Answer::Got(count) => filled += count,
                Answer::Again => break false,
            }
            if filled >= size {
                self.call_soon(object, "_read_more")?;
                break false;
            }
            if self.direct.get() && self.incoming_pending(py)? == 0 {
                break false;
            }
        };
        drop(buffer);
        if filled > 0 {
            let count = filled.into_pyobject(py)?;
            method1(&protocol, intern!(py, "buffer_updated"), &count)?;
        }
        Ok(ended)
    }

    /// Tells the protocol that the peer has closed, once.
    pub(super) fn call_eof_received(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        if self.told.get() != Told::Made {
            return Ok(());
        }
        self.told.set(Told::Ended);
        let Some(protocol) = self.protocol.get(py) else {
            return Ok(());
        };
        let keep_open =
            method0(&protocol, intern!(py, "eof_received")).and_then(|answer| answer.is_truthy());
        match keep_open {
            Ok(false) => Ok(()),
            Ok(true) => tls(py)?
                .logger
                .bind(py)
                .call_method1(
                    "warning",
                    ("returning true from eof_received() has no effect when using ssl",),
                )
                .map(drop),
            Err(error) if is_fatal(py, &error) => Err(error),
            Err(error) => self.fatal_error(object, error, "Error calling eof_received()"),
        }
    }

    // -- flow control ------------------------------------------------------------------------------

    /// Asks the transport below to pause or to go on, by what waits to be decrypted.
    pub(super) fn control_reading(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        let size = self.incoming_pending(py)?;
        let limits = self.read_limits.get();
        if size > 0 && size >= limits.high && !self.lower_reading_paused.get() {
            self.lower_reading_paused.set(true);
            self.call_lower(py, "pause_reading")
        } else if size <= limits.low && self.lower_reading_paused.get() {
            self.lower_reading_paused.set(false);
            self.call_lower(py, "resume_reading")
        } else {
            Ok(())
        }
    }

    /// Goes on after `resume_reading()`, in the next turn.
    pub(super) fn resume(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.state.get() {
            State::Wrapped => self.do_read(object),
            State::Flushing => self.do_flush(object),
            State::ShuttingDown => self.do_shutdown(object),
            State::Unwrapped | State::Handshaking => Ok(()),
        }
    }
}
