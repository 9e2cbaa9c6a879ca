//! The transport that reads from a pipe.

use std::cell::Cell;
use std::ffi::c_int;
use std::io;
use std::mem::offset_of;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple, PyType};
use weft_reactor::pipe;

use super::methods::{self, PipeTransport};
use super::{Parts, Pipe, as_callback};
use crate::errors::os_error;
use crate::event_loop::handles::is_fatal;
use crate::ffi::call::method1;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::Returned;
use crate::ffi::{Class, Native, Visit, bytes};
use crate::transports::callbacks;
use crate::transports::methods::{
    Ending, Reading, boolean, call_connection_lost, reading_methods, start_reading,
    transport_methods,
};
use crate::transports::read_buffer::ReadBuffer;
use crate::transports::stream::direct::{Fed, feed_reader};
use crate::transports::stream::reading::{LARGE, READ_SIZE, RECEIVED, next_expected, room_for};
use crate::{method, property, slot};

/// What a terminal reports when nobody is at its other end any more.
const NOBODY_THERE: i32 = 5;

/// The state of a transport that reads.
#[derive(Debug, Default)]
pub(super) struct ReadPipeTransport {
    pub(super) pipe: Pipe,
    /// How many bytes the next read is expected to bring.
    expected: Cell<usize>,
    /// Whether reading has started, after `connection_made()`.
    started: Cell<bool>,
    /// Whether `pause_reading()` holds.
    paused: Cell<bool>,
}

impl Native for ReadPipeTransport {
    fn class() -> &'static Class<Self> {
        &READ
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots(self.pipe.slots())
    }

    fn clear(&self, _: Python<'_>) {
        for slot in self.pipe.slots() {
            slot.clear();
        }
    }
}

/// `weft.ReadPipeTransport`.
pub(super) static READ: Class<ReadPipeTransport> = Class::new();

/// The loop's job for a descriptor that can be read.
fn ready<'py>(
    event_loop: &Bound<'py, PyAny>,
    object: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let state = READ.of(object);
    if !state.pipe.waits_to_read.get() {
        return Ok(());
    }
    as_callback(event_loop, object, &state.pipe, || state.read_ready(object))
}

impl PipeTransport for ReadPipeTransport {
    fn pipe(&self) -> &Pipe {
        &self.pipe
    }
}

impl Ending for ReadPipeTransport {
    fn close(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.pipe.closing.get() {
            return Ok(());
        }
        self.pipe.end(object, None)
    }

    fn force_close(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.pipe.end(object, error)
    }
}

impl Reading for ReadPipeTransport {
    fn paused(&self) -> &Cell<bool> {
        &self.paused
    }

    fn update_interest(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let wanted = self.started.get() && !self.pipe.closing.get() && !self.paused.get();
        self.pipe.wait(object, ready, true, wanted)
    }

    fn start_reading(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        self.started.set(true);
        self.update_interest(object)
    }
}

impl ReadPipeTransport {
    fn read_ready(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        match feed_reader(py, &self.pipe.protocol, |buffer| self.read_into(buffer)) {
            Fed::Done(outcome) => outcome,
            Fed::Received(Ok(_)) => self.end_of_file(object),
            Fed::Received(Err(error)) => self.read_failed(object, error),
            Fed::Not => {
                let (data, length) = match self.read(py)? {
                    Ok(received) => received,
                    Err(error) => return self.read_failed(object, error),
                };
                if length == 0 {
                    return self.end_of_file(object);
                }
                let protocol = self.pipe.protocol.get_or_none(py);
                method1(&protocol, intern!(py, "data_received"), &data).map(drop)
            }
        }
    }

    /// Reads once: a `bytes`, and its length.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<io::Result<(Bound<'py, PyAny>, usize)>> {
        let expected = self.expected.get();
        let fd = self.pipe.descriptor();
        if expected < LARGE {
            let received = RECEIVED.with_borrow_mut(|memory| {
                let count = pipe::read(fd, memory)?;
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
            let filled = pipe::read_uninit(fd, memory)?;
            count = filled.len();
            Ok(filled)
        })?;
        if received.is_ok() {
            self.expected.set(next_expected(expected, room, count));
        }
        Ok(received.map(|data| (data, count)))
    }

    /// Reads once, into the buffer of a stream reader.
    fn read_into(&self, buffer: &mut ReadBuffer) -> io::Result<usize> {
        let expected = self.expected.get();
        let fd = self.pipe.descriptor();
        if expected >= LARGE {
            let room = room_for(expected);
            let count = buffer.read(fd, room)?;
            self.expected.set(next_expected(expected, room, count));
            return Ok(count);
        }
        RECEIVED.with_borrow_mut(|memory| {
            let count = pipe::read(fd, memory)?;
            buffer.extend(&memory[..count]);
            self.expected.set(count);
            Ok(count)
        })
    }

    fn end_of_file(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        let event_loop = &self.pipe.event_loop;
        callbacks::log_in_debug(object, event_loop, "info", "%r was closed by peer")?;
        self.pipe.closing.set(true);
        self.pipe.rest(object);
        if let (Some(event_loop), Some(protocol)) = (event_loop.get(py), self.pipe.protocol.get(py))
        {
            let eof_received = protocol.getattr(intern!(py, "eof_received"))?;
            event_loop.call_method1(intern!(py, "call_soon"), (eof_received,))?;
        }
        self.pipe.end(object, None)
    }

    fn read_failed(&self, object: &Bound<'_, PyAny>, error: io::Error) -> PyResult<()> {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Ok(());
        }
        self.fatal_error(
            object,
            os_error(error),
            "Fatal read error on pipe transport",
        )
    }

    /// Ends the transport because of `error`, which is reported unless it is the usual end of a terminal.
    fn fatal_error(&self, object: &Bound<'_, PyAny>, error: PyErr, message: &str) -> PyResult<()> {
        let py = object.py();
        if is_fatal(py, &error) {
            return Err(error);
        }
        let error = error.into_value(py).into_bound(py).into_any();
        let (event_loop, protocol) = (&self.pipe.event_loop, &self.pipe.protocol);
        let is_usual = match error.getattr_opt(intern!(py, "errno"))? {
            Some(errno) => errno.eq(NOBODY_THERE)?,
            None => false,
        };
        if is_usual {
            callbacks::report_fatal(object, event_loop, protocol, &error, message)?;
        } else if let Some(event_loop) = event_loop.get(py) {
            callbacks::report_error(object, &event_loop, protocol, &error, message)?;
        }
        self.pipe.end(object, Some(error))
    }
}

/// `ReadPipeTransport(loop, pipe, protocol, waiter, extra)`.
fn init<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    READ.of(object).pipe.adopt(
        object,
        Parts::of(args, keywords)?,
        |_| true,
        "Pipe transport is for pipes/sockets only.",
    )
}

fn paused<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), READ.of(object).paused.get()))
}

fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let polls = READ.of(object).pipe.waits_to_read.get();
    methods::representation(object, polls, None)
}

fn finalize(object: &Bound<'_, PyAny>) -> PyResult<()> {
    READ.of(object).pipe.finalize(object)
}

fn table() -> Vec<ffi::PyMethodDef> {
    let mut table = transport_methods!(ReadPipeTransport);
    table.extend(reading_methods!(ReadPipeTransport));
    table.extend([
        method!(none "_start" => start_reading::<ReadPipeTransport>, "Start to read, after connection_made()."),
        method!(one "_call_connection_lost" => call_connection_lost::<ReadPipeTransport>, "Tell the protocol and give everything up."),
    ]);
    table
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let base = py
        .import("asyncio.transports")?
        .getattr("ReadTransport")?
        .cast_into::<PyType>()?;
    let mut slots = class_slots::<ReadPipeTransport>();
    slots.extend([
        slot!(init init),
        slot!(repr representation),
        slot!(finalize finalize),
    ]);
    let mut properties = methods::properties();
    properties.push(property!("_paused" => paused));
    let class = READ.make(
        py,
        c"weft.ReadPipeTransport",
        Some(&base),
        Description {
            methods: table(),
            properties,
            slots,
            doc: Some(
                c"The transport that reads from a pipe, a FIFO, a terminal or a socket, an asyncio.ReadTransport.",
            ),
            instantiable: true,
            weak_references: Some(offset_of!(ReadPipeTransport, pipe.weak_references)),
            dictionary: Some(offset_of!(ReadPipeTransport, pipe.dictionary)),
            ..Description::default()
        },
    )?;
    class.setattr("max_size", READ_SIZE)?;
    module.add("ReadPipeTransport", class)
}
