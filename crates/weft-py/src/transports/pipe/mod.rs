//! The transports of pipes: of whatever else can be waited for, too, FIFOs, terminals and sockets.
//!
//! What they do, and in which order, is what asyncio's do:
//!
//! - `connection_made()`, then waiting for the descriptor starts, then the waiter of the connection is told, all in the
//!   next turn.
//! - A transport goes one way. The one that writes waits for its descriptor to be readable all the same: that is how the
//!   end of whoever read from it shows. What is written is tried at once; the rest waits in the buffer.
//! - `closing` is set by whoever starts to close. `connection_lost()` is called once: `ending` says that the call has
//!   been scheduled. After it the file is closed.
//! - Callbacks run in the context in which the transport was made.
//!
//! A descriptor may have one transport for each direction, and handles of `add_reader` or `add_writer` in the other one:
//! a terminal often has. So pipes wait as handles do, for a direction, and own none of the descriptor's registration.

mod methods;
mod reading;
mod writing;

use std::cell::Cell;
use std::os::fd::RawFd;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple};
use weft_reactor::pipe::{self, Kind};

use crate::errors::os_error;
use crate::event_loop::{self, EVENT_LOOP, Job};
use crate::ffi::call::{call1, method1};
use crate::ffi::file::FileMemory;
use crate::ffi::{Slot, context};
use crate::imports::imports;
use crate::transports::callbacks;
use crate::transports::methods::none;
use reading::READ;
use writing::WRITE;

/// What the transports of both directions have.
#[derive(Debug, Default)]
struct Pipe {
    /// The loop; given up, like everything below it, after `connection_lost()`.
    event_loop: Slot,
    /// The file or socket, which the transport owns and closes.
    file: Slot,
    /// The object that keeps the descriptor of `file`, itself for one.
    keeper: Slot,
    /// Who is told what arrives.
    protocol: Slot,
    /// The context in which the protocol is called.
    context: Slot,
    /// Python's list of weak references to the transport.
    weak_references: Slot,
    /// Python's dictionary of further attributes.
    dictionary: Slot,
    /// The descriptor's number when the transport was made.
    fd: Cell<RawFd>,
    /// Where `keeper` keeps its descriptor; see [`Pipe::descriptor`].
    memory: Cell<Option<FileMemory>>,
    /// Whether the transport waits until it can read.
    waits_to_read: Cell<bool>,
    /// Whether the transport waits until it can write.
    waits_to_write: Cell<bool>,
    /// Whether somebody has begun to close it.
    closing: Cell<bool>,
    /// Whether `connection_lost()` has been scheduled.
    ending: Cell<bool>,
}

/// What is in both transports.
fn pipe_of<'a>(object: &'a Bound<'_, PyAny>) -> &'a Pipe {
    match READ.get(object) {
        Some(state) => &state.pipe,
        None => &WRITE.of(object).pipe,
    }
}

/// What a transport is made of.
struct Parts<'py> {
    event_loop: Bound<'py, PyAny>,
    file: Bound<'py, PyAny>,
    protocol: Bound<'py, PyAny>,
    waiter: Bound<'py, PyAny>,
    extra: Bound<'py, PyAny>,
}

impl<'py> Parts<'py> {
    /// `(loop, pipe, protocol, waiter, extra)`.
    fn of(args: &Bound<'py, PyTuple>, keywords: Option<&Bound<'py, PyDict>>) -> PyResult<Self> {
        if keywords.is_some_and(|keywords| !keywords.is_empty()) || args.len() != 5 {
            return Err(PyTypeError::new_err(
                "a pipe transport takes loop, pipe, protocol, waiter and extra",
            ));
        }
        let event_loop = args.get_item(0)?;
        if EVENT_LOOP.get(&event_loop).is_none() {
            return Err(PyTypeError::new_err("loop must be a weft.Loop"));
        }
        Ok(Self {
            event_loop,
            file: args.get_item(1)?,
            protocol: args.get_item(2)?,
            waiter: args.get_item(3)?,
            extra: args.get_item(4)?,
        })
    }
}

impl Pipe {
    fn slots(&self) -> [&Slot; 6] {
        [
            &self.event_loop,
            &self.file,
            &self.keeper,
            &self.protocol,
            &self.context,
            &self.dictionary,
        ]
    }

    /// Takes the file over and schedules the beginning: `starts` says whether to wait for a descriptor of this kind.
    fn adopt(
        &self,
        object: &Bound<'_, PyAny>,
        parts: Parts<'_>,
        starts: impl FnOnce(Kind) -> bool,
        refusal: &'static str,
    ) -> PyResult<()> {
        let py = object.py();
        let details = if parts.extra.is_none() {
            PyDict::new(py)
        } else {
            parts.extra.cast::<PyDict>()?.copy()?
        };
        details.set_item("pipe", &parts.file)?;
        object.setattr(intern!(py, "_extra"), details)?;
        let fd = parts.file.call_method0(intern!(py, "fileno"))?.extract()?;
        let Some(kind) = pipe::kind(fd).map_err(os_error)? else {
            return Err(PyValueError::new_err(refusal));
        };
        let (memory, keeper) = FileMemory::find(&parts.file)?;
        pipe::set_nonblocking(fd).map_err(os_error)?;
        let call_soon = parts.event_loop.getattr(intern!(py, "call_soon"))?;
        let connection_made = parts.protocol.getattr(intern!(py, "connection_made"))?;
        EVENT_LOOP.of(&parts.event_loop).check_closed()?;
        self.context.set(context::copy_current(py)?);
        // From here on the file is the transport's; until here it is the caller's.
        self.fd.set(fd);
        self.memory.set(Some(memory));
        self.keeper.set(keeper);
        self.file.set(parts.file);
        self.protocol.set(parts.protocol);
        self.event_loop.set(parts.event_loop);
        call_soon.call1((connection_made, object))?;
        if starts(kind) {
            call1(&call_soon, &object.getattr(intern!(py, "_start"))?)?;
        }
        if !parts.waiter.is_none() {
            let tell = &imports(py).set_result_unless_cancelled;
            call_soon.call1((tell, parts.waiter, py.None()))?;
        }
        Ok(())
    }

    /// The descriptor to use now: -1, which every system call refuses, once somebody has closed the file behind our back.
    /// Its number may be a stranger's by then.
    #[inline]
    fn descriptor(&self) -> RawFd {
        self.memory
            .get()
            .map_or(-1, |memory| memory.descriptor(&self.keeper, self.fd.get()))
    }

    /// Has `job` called whenever a direction of the descriptor is ready, or ends that.
    fn wait(
        &self,
        object: &Bound<'_, PyAny>,
        job: Job,
        reading: bool,
        wanted: bool,
    ) -> PyResult<()> {
        let waits = if reading {
            &self.waits_to_read
        } else {
            &self.waits_to_write
        };
        if waits.get() == wanted {
            return Ok(());
        }
        let Some(event_loop) = self.event_loop.get(object.py()) else {
            return Ok(());
        };
        if wanted {
            event_loop::wait_as_transport(&event_loop, self.fd.get(), object, job, reading)?;
        } else {
            self.stop_waiting(&event_loop, object, reading);
        }
        waits.set(wanted);
        Ok(())
    }

    fn stop_waiting(
        &self,
        event_loop: &Bound<'_, PyAny>,
        object: &Bound<'_, PyAny>,
        reading: bool,
    ) {
        event_loop::stop_waiting(EVENT_LOOP.of(event_loop), self.fd.get(), object, reading);
    }

    /// Waits for nothing from here on.
    fn rest(&self, object: &Bound<'_, PyAny>) {
        let Some(event_loop) = self.event_loop.get(object.py()) else {
            return;
        };
        for (waits, reading) in [(&self.waits_to_read, true), (&self.waits_to_write, false)] {
            if waits.replace(false) {
                self.stop_waiting(&event_loop, object, reading);
            }
        }
    }

    /// Schedules `connection_lost(error)`, unless it is.
    fn end(&self, object: &Bound<'_, PyAny>, error: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let py = object.py();
        self.closing.set(true);
        self.rest(object);
        if self.ending.replace(true) {
            return Ok(());
        }
        if let Some(event_loop) = self.event_loop.get(py) {
            let callback = object.getattr(intern!(py, "_call_connection_lost"))?;
            event_loop.call_method1(intern!(py, "call_soon"), (callback, error))?;
        }
        Ok(())
    }

    /// The end: `connection_lost()`, then everything that the transport owns is given up, whatever the protocol does.
    fn connection_lost(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = object.py();
        let outcome = match self.protocol.get(py) {
            Some(protocol) => {
                let error = error.unwrap_or_else(|| none(object));
                method1(&protocol, intern!(py, "connection_lost"), &error).map(drop)
            }
            None => Ok(()),
        };
        self.rest(object);
        let closed = self.close_file(py);
        self.protocol.clear();
        self.event_loop.clear();
        self.context.clear();
        outcome.and(closed)
    }

    /// Takes the file out; nothing can be read or written from here on.
    fn forget_file<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.memory.set(None);
        self.keeper.clear();
        self.file.take(py)
    }

    fn close_file(&self, py: Python<'_>) -> PyResult<()> {
        match self.forget_file(py) {
            Some(file) => file.call_method0(intern!(py, "close")).map(drop),
            None => Ok(()),
        }
    }

    /// A transport that nobody closed: its file is closed here, with a warning.
    fn finalize(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.file.is_set() {
            return Ok(());
        }
        let warned = callbacks::warn_unclosed(object);
        self.close_file(object.py())?;
        warned
    }
}

/// Runs a job of a transport as a callback of the loop: no task is current, and what it raises is reported.
#[inline]
fn as_callback(
    event_loop: &Bound<'_, PyAny>,
    object: &Bound<'_, PyAny>,
    pipe: &Pipe,
    body: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    event_loop::leave_task(EVENT_LOOP.of(event_loop), event_loop)?;
    callbacks::in_context(object, &pipe.context, &pipe.event_loop, body)
}

/// Makes the classes and adds them to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    reading::register(module)?;
    writing::register(module)
}
