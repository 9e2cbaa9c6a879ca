//! The transport that writes to a pipe.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::io;
use std::mem::offset_of;

use pyo3::exceptions::{PyAssertionError, PyBrokenPipeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyDict, PyTuple, PyType};
use weft_reactor::pipe::{self, Kind};

use super::methods::{self, PipeTransport};
use super::{Parts, Pipe, as_callback};
use crate::errors::os_error;
use crate::event_loop::handles::is_fatal;
use crate::ffi::bytes::{self, View};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::Returned;
use crate::ffi::{Class, Native, Visit};
use crate::transports::callbacks;
use crate::transports::flow_control::Limits;
use crate::transports::methods::{
    Ending, Writing, boolean, call_connection_lost, close, none, transport_methods, writing_methods,
};
use crate::transports::write_buffer::WriteBuffer;
use crate::{method, property, slot};

/// The state of a transport that writes.
#[derive(Debug, Default)]
pub(super) struct WritePipeTransport {
    pub(super) pipe: Pipe,
    /// What has been written and not been sent.
    unsent: RefCell<WriteBuffer>,
    /// When the protocol is asked to pause, and when to go on.
    limits: Cell<Limits>,
    /// How many writes have come too late.
    lost: Cell<u32>,
    /// Whether the protocol has been asked to stop writing.
    protocol_paused: Cell<bool>,
}

impl Native for WritePipeTransport {
    fn class() -> &'static Class<Self> {
        &WRITE
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

/// `weft.WritePipeTransport`.
pub(super) static WRITE: Class<WritePipeTransport> = Class::new();

/// The loop's job for a descriptor that can be read: nobody reads from its other end any more.
fn peer_gone<'py>(
    event_loop: &Bound<'py, PyAny>,
    object: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let state = WRITE.of(object);
    if !state.pipe.waits_to_read.get() {
        return Ok(());
    }
    as_callback(event_loop, object, &state.pipe, || {
        let event_loop = &state.pipe.event_loop;
        callbacks::log_in_debug(object, event_loop, "info", "%r was closed by peer")?;
        let error = if state.unsent.borrow().is_empty() {
            None
        } else {
            let error = PyBrokenPipeError::new_err(()).into_value(object.py());
            Some(error.into_bound(object.py()).into_any())
        };
        state.force_close(object, error)
    })
}

/// The loop's job for a descriptor that can be written to.
fn ready<'py>(
    event_loop: &Bound<'py, PyAny>,
    object: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let state = WRITE.of(object);
    if !state.pipe.waits_to_write.get() {
        return Ok(());
    }
    as_callback(event_loop, object, &state.pipe, || {
        state.write_ready(object)
    })
}

impl PipeTransport for WritePipeTransport {
    fn pipe(&self) -> &Pipe {
        &self.pipe
    }
}

impl Ending for WritePipeTransport {
    fn close(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.pipe.closing.replace(true) || !self.unsent.borrow().is_empty() {
            return Ok(());
        }
        self.pipe.end(object, None)
    }

    fn force_close(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let unsent = self.unsent.borrow_mut().take();
        let outcome = self.pipe.end(object, error);
        drop(unsent);
        outcome
    }
}

impl Writing for WritePipeTransport {
    fn limits(&self) -> Limits {
        self.limits.get()
    }

    fn set_limits(&self, object: &Bound<'_, PyAny>, limits: Limits) -> PyResult<()> {
        self.limits.set(limits);
        self.maybe_pause_protocol(object)
    }

    fn unsent(&self, _: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(self.unsent.borrow().len())
    }
}

impl WritePipeTransport {
    fn write(&self, object: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<()> {
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
            Err(error) => self.write_failed(object, error),
        }
    }

    /// Writes `contents` or a part of it, and has `keep` put the rest, from an offset on, into the buffer.
    fn write_contents(
        &self,
        object: &Bound<'_, PyAny>,
        contents: &[u8],
        keep: impl FnOnce(&mut WriteBuffer, usize),
    ) -> PyResult<()> {
        if contents.is_empty() {
            return Ok(());
        }
        if self.lost.get() > 0 || self.pipe.closing.get() {
            let warning = "pipe closed by peer or os.write(pipe, data) raised exception.";
            return callbacks::count_lost(object.py(), &self.lost, warning);
        }
        let mut sent = 0;
        if self.unsent.borrow().is_empty() {
            match pipe::write(self.pipe.descriptor(), contents) {
                Ok(count) if count == contents.len() => return Ok(()),
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return self.write_failed(object, os_error(error)),
            }
        }
        keep(&mut self.unsent.borrow_mut(), sent);
        self.pipe.wait(object, ready, false, true)?;
        self.maybe_pause_protocol(object)
    }

    fn write_ready(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let fd = self.pipe.descriptor();
        let outcome = self.unsent.borrow_mut().write(object.py(), fd);
        match outcome {
            Ok(sent) => drop(sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return self.write_failed(object, os_error(error)),
        }
        if self.unsent.borrow().is_empty() {
            self.pipe.wait(object, ready, false, false)?;
        }
        self.maybe_resume_protocol(object)?;
        let done = self.unsent.borrow().is_empty();
        if done && self.pipe.closing.get() && !self.pipe.ending.replace(true) {
            return self.pipe.connection_lost(object, None);
        }
        Ok(())
    }

    /// Ends the transport because of `error`; an `OSError` is the reader's doing, and logged in debug mode alone.
    fn write_failed(&self, object: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
        let py = object.py();
        if is_fatal(py, &error) {
            return Err(error);
        }
        self.lost.set(self.lost.get().saturating_add(1));
        let error = error.into_value(py).into_bound(py).into_any();
        callbacks::report_fatal(
            object,
            &self.pipe.event_loop,
            &self.pipe.protocol,
            &error,
            "Fatal write error on pipe transport",
        )?;
        self.force_close(object, Some(error))
    }

    fn maybe_pause_protocol(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.unsent.borrow().len() <= self.limits.get().high || self.protocol_paused.get() {
            return Ok(());
        }
        self.protocol_paused.set(true);
        self.tell_protocol(object, "pause_writing")
    }

    fn maybe_resume_protocol(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.protocol_paused.get() || self.unsent.borrow().len() > self.limits.get().low {
            return Ok(());
        }
        self.protocol_paused.set(false);
        self.tell_protocol(object, "resume_writing")
    }

    fn tell_protocol(&self, object: &Bound<'_, PyAny>, name: &str) -> PyResult<()> {
        callbacks::flow_control(object, &self.pipe.event_loop, &self.pipe.protocol, name)
    }
}

/// `WritePipeTransport(loop, pipe, protocol, waiter, extra)`.
fn init<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    WRITE.of(object).pipe.adopt(
        object,
        Parts::of(args, keywords)?,
        // What is typed at a terminal says nothing about who looks at it.
        |kind| kind != Kind::CharacterDevice,
        "Pipe transport is only for pipes, sockets and character devices",
    )
}

fn start<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let pipe = &WRITE.of(object).pipe;
    if !pipe.ending.get() {
        pipe.wait(object, peer_gone, true, true)?;
    }
    Ok(none(object))
}

fn write<'py>(object: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> Returned<'py> {
    if !bytes::is_writable_type(data) {
        return Err(PyAssertionError::new_err(data.repr()?.unbind()));
    }
    WRITE.of(object).write(object, data)?;
    Ok(none(object))
}

fn can_write_eof<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), true))
}

fn conn_lost<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let lost = WRITE.of(object).lost.get();
    Ok(lost.into_pyobject(object.py())?.into_any())
}

fn protocol_paused<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), WRITE.of(object).protocol_paused.get()))
}

fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = WRITE.of(object);
    let unsent = state.unsent.borrow().len();
    methods::representation(object, state.pipe.waits_to_write.get(), Some(unsent))
}

fn finalize(object: &Bound<'_, PyAny>) -> PyResult<()> {
    WRITE.of(object).pipe.finalize(object)
}

fn table() -> Vec<ffi::PyMethodDef> {
    let mut table = transport_methods!(WritePipeTransport);
    table.extend(writing_methods!(WritePipeTransport));
    table.extend([
        method!(named "write"("data") => write, "write($self, data)\n--\n\nWrite data, a bytes-like object, now or as soon as the pipe takes it."),
        method!(none "write_eof" => close::<WritePipeTransport>, "Close the pipe once everything is written."),
        method!(none "can_write_eof" => can_write_eof, "Return True: closing is the end of a pipe."),
        method!(none "_start" => start, "Start to watch for the reader's end, after connection_made()."),
        method!(one "_call_connection_lost" => call_connection_lost::<WritePipeTransport>, "Tell the protocol and give everything up."),
    ]);
    table
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    // An asyncio.Transport, as asyncio's own is.
    let base = py
        .import("asyncio.transports")?
        .getattr("_FlowControlMixin")?
        .cast_into::<PyType>()?;
    let mut slots = class_slots::<WritePipeTransport>();
    slots.extend([
        slot!(init init),
        slot!(repr representation),
        slot!(finalize finalize),
    ]);
    let mut properties = methods::properties();
    properties.extend([
        property!("_conn_lost" => conn_lost),
        property!("_protocol_paused" => protocol_paused),
    ]);
    let class = WRITE.make(
        py,
        c"weft.WritePipeTransport",
        Some(&base),
        Description {
            methods: table(),
            properties,
            slots,
            doc: Some(
                c"The transport that writes to a pipe, a FIFO, a terminal or a socket, an asyncio.WriteTransport.",
            ),
            instantiable: true,
            weak_references: Some(offset_of!(WritePipeTransport, pipe.weak_references)),
            dictionary: Some(offset_of!(WritePipeTransport, pipe.dictionary)),
            ..Description::default()
        },
    )?;
    module.add("WritePipeTransport", class)
}
