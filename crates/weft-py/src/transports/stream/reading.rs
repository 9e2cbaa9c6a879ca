//! Receiving, and what the protocol is told about it.

use std::cell::RefCell;
use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;
use weft_reactor::socket;

use super::StreamTransport;
use super::direct::Fed;
use crate::errors::os_error;
use crate::ffi::bytes::{self, View};
use crate::ffi::call::{method0, method1};
use crate::transports::methods::{Ending, Reading, SocketTransport};

/// How many bytes one receive takes, as in asyncio.
pub(in crate::transports) const READ_SIZE: usize = 256 * 1024;

/// Streams whose messages are at least so long receive straight into the object that the protocol gets.
pub(in crate::transports) const LARGE: usize = 8 * 1024;
/// Such an object has room for what is expected, in steps of so many bytes; it is cut to its length afterwards.
const STEP: usize = 4 * 1024;

thread_local! {
    /// Every stream of a thread receives small messages into this memory, and hands out exact copies.
    pub(in crate::transports) static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// How much room is made where so many bytes are expected.
pub(in crate::transports) fn room_for(expected: usize) -> usize {
    (expected + 1).next_multiple_of(STEP).min(READ_SIZE)
}

/// What to expect after so much has been received into so much room. Room costs little and a message in two pieces costs
/// a call: more is expected at once, less only by and by.
pub(in crate::transports) fn next_expected(expected: usize, room: usize, count: usize) -> usize {
    if count == room {
        (room * 2).min(READ_SIZE)
    } else {
        count.max(expected - expected / 8)
    }
}

impl StreamTransport {
    pub(super) fn may_read(&self) -> bool {
        self.lost.get() == 0 && self.started.get() && self.is_reading() && !self.ended.get()
    }

    /// Goes on where feeding a reader has ended.
    pub(super) fn read_ready(&self, object: &Bound<'_, PyAny>, fed: Fed) -> PyResult<()> {
        match fed {
            Fed::Not if self.buffered_protocol.get() => self.read_into_protocol(object),
            Fed::Not => self.read(object),
            Fed::Received(Ok(_)) => self.end_of_file(object),
            Fed::Received(Err(error)) => self.read_failed(object, error),
            Fed::Done(Ok(())) => Ok(()),
            Fed::Done(Err(error)) => self.data_received_failed(object, error),
        }
    }

    fn data_received_failed(&self, object: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
        self.fatal_error(
            object,
            error,
            "Fatal error: protocol.data_received() call failed.",
        )
    }

    pub(super) fn read(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        let (data, length) = match self.receive(py)? {
            Ok(received) => received,
            Err(error) => return self.read_failed(object, error),
        };
        if length == 0 {
            return self.end_of_file(object);
        }
        let Some(protocol) = self.protocol.get(py) else {
            return Ok(());
        };
        if let Some(receive) = self.receiver.get() {
            // What is above reports errors of its own; asyncio's receives by a buffer.
            return match receive(&protocol, &data) {
                Ok(()) => Ok(()),
                Err(error) => self.fatal_error(
                    object,
                    error,
                    "Fatal error: protocol.buffer_updated() call failed.",
                ),
            };
        }
        match method1(&protocol, intern!(py, "data_received"), &data) {
            Ok(_) => Ok(()),
            Err(error) => self.data_received_failed(object, error),
        }
    }

    /// Receives once: a `bytes`, and its length.
    fn receive<'py>(&self, py: Python<'py>) -> PyResult<io::Result<(Bound<'py, PyAny>, usize)>> {
        let expected = self.expected.get();
        if expected < LARGE {
            let received = RECEIVED.with_borrow_mut(|memory| {
                let count = socket::recv(self.descriptor(), memory)?;
                Ok((bytes::copy(py, &memory[..count]), count))
            });
            if let Ok((_, count)) = received {
                self.expected.set(count);
            }
            return Ok(received);
        }
        let room = room_for(expected);
        let mut count = 0;
        let received = bytes::filled(py, room, |memory| {
            let filled = socket::recv_uninit(self.descriptor(), memory)?;
            count = filled.len();
            Ok(filled)
        })?;
        if received.is_ok() {
            self.expect(room, count);
        }
        Ok(received.map(|data| (data, count)))
    }

    /// Expects as much as has been received into so much room.
    pub(super) fn expect(&self, room: usize, count: usize) {
        self.expected
            .set(next_expected(self.expected.get(), room, count));
    }

    pub(super) fn read_into_protocol(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        let Some(protocol) = self.protocol.get(py) else {
            return Ok(());
        };
        let lent = protocol
            .call_method1(intern!(py, "get_buffer"), (-1,))
            .and_then(|buffer| {
                if buffer.len()? == 0 {
                    return Err(PyRuntimeError::new_err(
                        "get_buffer() returned an empty buffer",
                    ));
                }
                Ok(buffer)
            });
        let buffer = match lent {
            Ok(buffer) => buffer,
            Err(error) => {
                return self.fatal_error(
                    object,
                    error,
                    "Fatal error: protocol.get_buffer() call failed.",
                );
            }
        };
        if self.lost.get() > 0 || !self.socket.is_open() {
            return Ok(());
        }
        let received = View::writable(&buffer).map(|mut view| {
            socket::recv_uninit(self.descriptor(), view.as_uninit()).map(|filled| filled.len())
        });
        let count = match received {
            Ok(Ok(count)) => count,
            Ok(Err(error)) => return self.read_failed(object, error),
            Err(error) => {
                return self.fatal_error(object, error, "Fatal read error on socket transport");
            }
        };
        drop(buffer);
        if count == 0 {
            return self.end_of_file(object);
        }
        match protocol.call_method1(intern!(py, "buffer_updated"), (count,)) {
            Ok(_) => Ok(()),
            Err(error) => self.fatal_error(
                object,
                error,
                "Fatal error: protocol.buffer_updated() call failed.",
            ),
        }
    }

    pub(super) fn read_failed(&self, object: &Bound<'_, PyAny>, error: io::Error) -> PyResult<()> {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Ok(());
        }
        self.fatal_error(
            object,
            os_error(error),
            "Fatal read error on socket transport",
        )
    }

    pub(super) fn end_of_file(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        self.debug_log(object, "%r received EOF")?;
        let Some(protocol) = self.protocol.get(py) else {
            return Ok(());
        };
        let keep_open =
            method0(&protocol, intern!(py, "eof_received")).and_then(|answer| answer.is_truthy());
        match keep_open {
            Ok(true) => {
                self.ended.set(true);
                self.update_interest(object)
            }
            Ok(false) => self.close(object),
            Err(error) => self.fatal_error(
                object,
                error,
                "Fatal error: protocol.eof_received() call failed.",
            ),
        }
    }
}
