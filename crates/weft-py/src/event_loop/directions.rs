//! Who waits for the directions of a descriptor, and how the kernel is told.
//!
//! A descriptor is registered in one of two ways:
//!
//! - *Level-triggered*, for exactly the directions that somebody waits for, and only while anybody does. So it is for
//!   whatever takes a callback of Python's, and for writing.
//! - *For arrivals*, from the first time that an operation on a socket waits to read. Such a registration stays when the
//!   operation is done, so that the next one costs no system call. An arrival that nobody waits for is reported once and
//!   forgotten; nothing is lost by that, because each operation tries before it waits.
//!
//! What stays registered must be known to be the same open file when it is used again. It is, as long as it belongs to
//! the very same Python socket with the same descriptor: both end when the socket is closed or detached. So a weak
//! reference to the socket is kept, and whoever comes with another object, or with a number alone, registers anew.

use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyWeakrefMethods, PyWeakrefReference};
use weft_reactor::{Interest, Poller};

use super::handles::HANDLE;
use super::{Job, Ready, visit_handle};
use crate::ffi::{Reference, Visit};

/// `EEXIST`.
const REGISTERED_ALREADY: i32 = 17;

/// Who is called when one direction is ready.
#[derive(Debug)]
pub enum Waiter {
    /// A handle made by `add_reader` or `add_writer`, each time.
    Handle(Reference),
    /// A waiting operation, until it stops waiting.
    Operation {
        /// The operation.
        object: Reference,
        /// What to call with it.
        job: Job,
    },
    /// A native transport, each time. Level-triggered, as a handle.
    Transport {
        /// The transport.
        object: Reference,
        /// What to call with it.
        job: Job,
    },
}

impl Waiter {
    fn traverse(&self, visit: Visit) -> c_int {
        match self {
            Self::Handle(handle) => visit_handle(handle, visit),
            Self::Operation { object, .. } | Self::Transport { object, .. } => visit.object(object),
        }
    }

    /// Drops what a handle refers to, when the loop is closed.
    fn empty(&self, py: Python<'_>) {
        if let Self::Handle(handle) = self
            && let Some(state) = HANDLE.get(handle.bind(py))
        {
            state.empty();
        }
    }

    /// What is to run when the direction is ready.
    pub(super) fn ready(&self, py: Python<'_>) -> Ready {
        match self {
            Self::Handle(handle) => Ready::Handle(handle.bind(py).clone().into()),
            Self::Operation { object, job } | Self::Transport { object, job } => Ready::Job {
                run: *job,
                object: object.bind(py).clone().into(),
                argument: None,
            },
        }
    }

    fn is(&self, operation: &Bound<'_, PyAny>) -> bool {
        matches!(
            self,
            Self::Operation { object, .. } | Self::Transport { object, .. }
                if object.as_ptr() == operation.as_ptr()
        )
    }

    /// Whether it waits for the descriptor itself, whichever open file that is, and not for a socket.
    fn is_standing(&self) -> bool {
        matches!(self, Self::Handle(_) | Self::Transport { .. })
    }
}

/// What the kernel has been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Registration {
    #[default]
    None,
    Level(Interest),
    Arrivals,
}

/// The directions of one descriptor.
#[derive(Debug, Default)]
pub struct Directions {
    reader: Option<Waiter>,
    writer: Option<Waiter>,
    registration: Registration,
    /// A weak reference to the socket whose operations have waited here last.
    socket: Option<Reference>,
    /// The object, if it was one, that the handles were added with, and as long as there are any: one that has been
    /// closed meanwhile no longer knows its descriptor.
    file: Option<Reference>,
}

impl Directions {
    pub(super) fn traverse(&self, visit: Visit) -> c_int {
        for waiter in [&self.reader, &self.writer].into_iter().flatten() {
            let answer = waiter.traverse(visit);
            if answer != 0 {
                return answer;
            }
        }
        for object in [&self.socket, &self.file].into_iter().flatten() {
            let answer = visit.object(object);
            if answer != 0 {
                return answer;
            }
        }
        0
    }

    pub(super) fn empty(&self, py: Python<'_>) {
        for waiter in [&self.reader, &self.writer].into_iter().flatten() {
            waiter.empty(py);
        }
    }

    /// Who waits for a direction.
    #[inline]
    pub(super) fn waiter(&self, reading: bool) -> Option<&Waiter> {
        if reading {
            self.reader.as_ref()
        } else {
            self.writer.as_ref()
        }
    }

    #[inline]
    fn place(&mut self, reading: bool) -> &mut Option<Waiter> {
        if reading {
            &mut self.reader
        } else {
            &mut self.writer
        }
    }

    /// Replaces who waits for a direction.
    pub(super) fn put(&mut self, waiter: Waiter, reading: bool) -> Option<Waiter> {
        self.place(reading).replace(waiter)
    }

    /// Takes out who waits for a direction.
    pub(super) fn take(&mut self, reading: bool) -> Option<Waiter> {
        self.place(reading).take()
    }

    /// Takes `operation`, or a transport, out, if it is who waits for a direction.
    #[inline]
    pub(super) fn take_operation(
        &mut self,
        operation: &Bound<'_, PyAny>,
        reading: bool,
    ) -> Option<Waiter> {
        self.place(reading).take_if(|waiter| waiter.is(operation))
    }

    /// Whether `operation` is who waits for a direction.
    #[inline]
    pub(super) fn has_operation(&self, operation: &Bound<'_, PyAny>, reading: bool) -> bool {
        self.waiter(reading)
            .is_some_and(|waiter| waiter.is(operation))
    }

    /// Whether nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        self.reader.is_none() && self.writer.is_none()
    }

    /// Whether the kernel knows the descriptor.
    pub(super) fn is_registered(&self) -> bool {
        self.registration != Registration::None
    }

    /// The directions that somebody waits for.
    pub(super) fn interest(&self) -> Interest {
        Interest {
            readable: self.reader.is_some(),
            writable: self.writer.is_some(),
        }
    }

    /// Whether `socket` is registered for arrivals, so that waiting needs no more than a waiter.
    #[inline]
    pub(super) fn awaits_arrivals_of(&self, socket: &Bound<'_, PyAny>) -> bool {
        self.registration == Registration::Arrivals && self.is_of(socket)
    }

    /// Whether operations of `socket` have waited here last.
    fn is_of(&self, socket: &Bound<'_, PyAny>) -> bool {
        self.socket.as_ref().is_some_and(|reference| {
            reference
                .bind(socket.py())
                .cast::<PyWeakrefReference>()
                .is_ok_and(|reference| {
                    reference
                        .upgrade()
                        .is_some_and(|referent| referent.is(socket))
                })
        })
    }

    /// Whether this is all about the operations of another socket than `socket`, whose descriptor it was before.
    pub(super) fn is_of_another(&self, socket: &Bound<'_, PyAny>) -> bool {
        let is_standing = [&self.reader, &self.writer]
            .into_iter()
            .flatten()
            .any(Waiter::is_standing);
        !is_standing && self.socket.is_some() && !self.is_of(socket)
    }

    fn has_handle(&self) -> bool {
        [&self.reader, &self.writer]
            .into_iter()
            .flatten()
            .any(|waiter| matches!(waiter, Waiter::Handle(_)))
    }

    /// Remembers the object that handles are added with, unless there is one; returns what is not needed.
    pub(super) fn remember_file(&mut self, file: Option<Reference>) -> Option<Reference> {
        if !self.has_handle() {
            return self.file.take();
        }
        if self.file.is_some() {
            return file;
        }
        self.file = file;
        None
    }

    /// Whether handles were added with this object.
    pub(super) fn is_of_file(&self, object: &Bound<'_, PyAny>) -> bool {
        self.file
            .as_ref()
            .is_some_and(|file| file.as_ptr() == object.as_ptr())
    }

    /// Remembers whose operations wait here; returns the old reference.
    pub(super) fn remember(&mut self, socket: Reference) -> Option<Reference> {
        self.socket.replace(socket)
    }

    /// How the descriptor should be registered.
    fn wanted(&self) -> Registration {
        if self.writer.is_some() || self.reader.as_ref().is_some_and(Waiter::is_standing) {
            Registration::Level(self.interest())
        } else if self.socket.is_some() {
            Registration::Arrivals
        } else {
            Registration::None
        }
    }

    /// Tells the kernel what is wanted now.
    pub(super) fn register(&mut self, poller: &Poller, fd: RawFd, token: u64) -> io::Result<()> {
        let wanted = self.wanted();
        if wanted == self.registration {
            return Ok(());
        }
        match (self.registration, wanted) {
            (_, Registration::None) => poller.remove(fd),
            (Registration::None, _) => match add(poller, fd, token, wanted) {
                // Somebody has closed the descriptor, and brought the same open file back under its number.
                Err(error) if error.raw_os_error() == Some(REGISTERED_ALREADY) => {
                    modify(poller, fd, token, wanted)
                }
                outcome => outcome,
            },
            _ => modify(poller, fd, token, wanted),
        }?;
        self.registration = wanted;
        Ok(())
    }

    /// Has the kernel report once more what has arrived already.
    pub(super) fn report_again(&self, poller: &Poller, fd: RawFd, token: u64) -> io::Result<()> {
        match self.registration {
            Registration::Arrivals => poller.modify_for_arrivals(fd, token),
            _ => Ok(()),
        }
    }
}

fn add(poller: &Poller, fd: RawFd, token: u64, wanted: Registration) -> io::Result<()> {
    match wanted {
        Registration::None => Ok(()),
        Registration::Level(interest) => poller.add(fd, token, interest),
        Registration::Arrivals => poller.add_for_arrivals(fd, token),
    }
}

fn modify(poller: &Poller, fd: RawFd, token: u64, wanted: Registration) -> io::Result<()> {
    match wanted {
        Registration::None => Ok(()),
        Registration::Level(interest) => poller.modify(fd, token, interest),
        Registration::Arrivals => poller.modify_for_arrivals(fd, token),
    }
}
