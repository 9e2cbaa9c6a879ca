//! Ways into and out of a native transport that need no call through Python, for the modules above.
//!
//! Data goes out by [`write()`]. It comes in by [`Receivers`], which are native protocols, and by [`Readers`]: where nobody has overridden what happens between the transport
//! and a stream reader's buffer, the transport receives into that buffer. Everything else that can happen on a connection
//! (its end, errors, a reader that is gone) takes the usual way through the protocol.

use std::io;
use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::PyAny;
use weft_reactor::socket;

use super::reading::{LARGE, RECEIVED, room_for};
use super::{STREAM, StreamTransport, methods};
use crate::ffi::{Slot, context};
use crate::transports::read_buffer::ReadBuffer;

/// Lends a reader's buffer to a function, which runs no Python code.
pub type Lend = fn(&Bound<'_, PyAny>, &mut dyn FnMut(&mut ReadBuffer));

/// What a transport has to know of stream readers; told by the module of streams, which builds on this.
#[derive(Clone, Copy, Debug)]
pub struct Readers {
    /// The reader that a protocol hands everything to, where it can be fed directly now.
    pub of_protocol: for<'py> fn(&Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>>,
    /// Lends the reader's buffer.
    pub lend: Lend,
    /// Tells the reader that its buffer has grown.
    pub fed: fn(&Bound<'_, PyAny>) -> PyResult<()>,
}

static READERS: OnceLock<Readers> = OnceLock::new();

/// Tells this module about stream readers.
pub fn set_readers(readers: Readers) {
    READERS.get_or_init(|| readers);
}

/// The reader that a protocol hands everything to, where it can be fed directly now.
#[inline]
pub fn reader_of<'py>(protocol: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    (READERS.get()?.of_protocol)(protocol)
}

/// Has `fill`, which runs no Python code, append to the buffer of a reader that [`reader_of`] has named, and wakes who waits for it.
///
/// # Errors
/// What waking raises.
pub fn feed(reader: &Bound<'_, PyAny>, fill: impl Fn(&mut ReadBuffer)) -> PyResult<()> {
    let Some(readers) = READERS.get() else {
        return Ok(());
    };
    (readers.lend)(reader, &mut |buffer| fill(buffer));
    (readers.fed)(reader)
}

/// Hands `bytes` to a native protocol.
pub type Receive = fn(&Bound<'_, PyAny>, &Bound<'_, PyAny>) -> PyResult<()>;

/// What a transport has to know of native protocols: those that take what arrives without a call through Python.
#[derive(Clone, Copy, Debug)]
pub struct Receivers {
    /// Whether a protocol is one.
    pub is_one: fn(&Bound<'_, PyAny>) -> bool,
    /// Hands over what has arrived, `bytes`.
    pub received: Receive,
}

static RECEIVERS: OnceLock<Receivers> = OnceLock::new();

/// Tells this module about native protocols.
pub fn set_receivers(receivers: Receivers) {
    RECEIVERS.get_or_init(|| receivers);
}

/// How a protocol takes what arrives, where it is a native one.
pub(super) fn receiver_of(protocol: &Bound<'_, PyAny>) -> Option<Receive> {
    RECEIVERS
        .get()
        .filter(|receivers| (receivers.is_one)(protocol))
        .map(|receivers| receivers.received)
}

/// Calls the protocol in a copy of the current context from now on. (From Python 3.15 on a transport keeps its own.)
///
/// # Errors
/// `MemoryError`.
pub fn adopt_context(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    if cfg!(not(Py_3_15))
        && let Some(state) = native(transport)
    {
        state.context.set(context::copy_current(transport.py())?);
    }
    Ok(())
}

/// What came of trying to feed a reader.
pub(in crate::transports) enum Fed {
    /// There is no reader, nothing has been received.
    Not,
    /// The system call has failed, or reported the end by 0.
    Received(io::Result<usize>),
    /// The reader has what was received.
    Done(PyResult<()>),
}

/// Has `receive` put something into the buffer of the reader behind `protocol`, if there is one to feed.
#[inline]
pub(in crate::transports) fn feed_reader(
    py: Python<'_>,
    protocol: &Slot,
    mut receive: impl FnMut(&mut ReadBuffer) -> io::Result<usize>,
) -> Fed {
    let Some(readers) = READERS.get() else {
        return Fed::Not;
    };
    let Some(protocol) = protocol.get(py) else {
        return Fed::Not;
    };
    let Some(reader) = (readers.of_protocol)(&protocol) else {
        return Fed::Not;
    };
    let mut received = Ok(0);
    (readers.lend)(&reader, &mut |buffer| {
        received = receive(buffer);
    });
    match received {
        Ok(count) if count > 0 => Fed::Done((readers.fed)(&reader)),
        other => Fed::Received(other),
    }
}

impl StreamTransport {
    /// Receives into the buffer of the protocol's reader, if there is one to feed.
    #[inline]
    pub(super) fn feed(&self, py: Python<'_>) -> Fed {
        if self.receiver.get().is_some() {
            return Fed::Not;
        }
        feed_reader(py, &self.protocol, |buffer| self.receive_into(buffer))
    }

    fn receive_into(&self, buffer: &mut ReadBuffer) -> io::Result<usize> {
        let expected = self.expected.get();
        if expected >= LARGE {
            let room = room_for(expected);
            let count = buffer.receive(self.descriptor(), room)?;
            self.expect(room, count);
            return Ok(count);
        }
        RECEIVED.with_borrow_mut(|memory| {
            let count = socket::recv(self.descriptor(), memory)?;
            buffer.extend(&memory[..count]);
            self.expected.set(count);
            Ok(count)
        })
    }
}

/// A native transport's state, where `object` is one.
#[inline]
pub fn native<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a StreamTransport> {
    STREAM.get_exact(object)
}

/// `transport.write(data)` of a native transport.
///
/// # Errors
/// What the method raises.
#[inline]
pub fn write(transport: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<()> {
    methods::write(transport, data).map(drop)
}

/// `transport.writelines(lines)` of a native transport.
///
/// # Errors
/// What the method raises.
#[inline]
pub fn writelines(transport: &Bound<'_, PyAny>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
    methods::writelines(transport, lines).map(drop)
}

/// `transport.pause_reading()` of a native transport.
///
/// # Errors
/// What the method raises.
pub fn pause_reading(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    crate::transports::methods::pause_reading::<StreamTransport>(transport).map(drop)
}

/// `transport.resume_reading()` of a native transport.
///
/// # Errors
/// What the method raises.
pub fn resume_reading(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    crate::transports::methods::resume_reading::<StreamTransport>(transport).map(drop)
}

/// `transport.is_closing()` of a native transport.
#[inline]
pub fn is_closing(transport: &StreamTransport) -> bool {
    transport.closing.get()
}
