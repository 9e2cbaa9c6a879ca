//! The queue of what is ready to run.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::c_int;

use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{show_all, visit_handle};
use crate::ffi::{Reference, Visit};

/// Native work: called with the loop, the entry's object and its argument. What it returns as an error ends the run.
pub type Job = for<'py> fn(
    event_loop: &Bound<'py, PyAny>,
    object: &Bound<'py, PyAny>,
    argument: Option<Bound<'py, PyAny>>,
) -> PyResult<()>;

/// One entry of the ready queue.
// With a whole word that says which it is, entries are moved word by word, as they are written.
#[repr(usize)]
pub enum Ready {
    /// A handle to run.
    Handle(Reference),
    /// Native work that needs no handle: a step of a task, for one.
    Job {
        /// What to call.
        run: Job,
        /// With which object.
        object: Reference,
        /// With which argument.
        argument: Option<Reference>,
    },
    /// A native watch whose descriptor became ready.
    Io {
        /// The watch.
        token: u64,
        /// Whether something can be read.
        readable: bool,
        /// Whether something can be written.
        writable: bool,
    },
}

/// First in, first out.
#[derive(Default)]
pub struct ReadyQueue(RefCell<VecDeque<Ready>>);

impl ReadyQueue {
    /// Appends an entry.
    #[inline]
    pub fn push(&self, entry: Ready) {
        self.0.borrow_mut().push_back(entry);
    }

    /// Takes the oldest entry.
    #[inline]
    pub fn pop(&self) -> Option<Ready> {
        self.0.borrow_mut().pop_front()
    }

    /// The number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Takes everything.
    pub fn take(&self) -> VecDeque<Ready> {
        std::mem::take(&mut *self.0.borrow_mut())
    }

    /// Lets the garbage collector see what waits here.
    pub fn show(&self, py: Python<'_>) {
        show_all(py, self.0.borrow().iter());
    }

    /// Reports every reference to the garbage collector.
    pub fn traverse(&self, visit: Visit) -> c_int {
        let Ok(entries) = self.0.try_borrow() else {
            return 0;
        };
        for entry in entries.iter() {
            let answer = match entry {
                Ready::Handle(handle) => visit_handle(handle, visit),
                Ready::Job {
                    object, argument, ..
                } => match visit.object(object) {
                    0 => argument
                        .as_ref()
                        .map_or(0, |argument| visit.object(argument)),
                    answer => answer,
                },
                Ready::Io { .. } => 0,
            };
            if answer != 0 {
                return answer;
            }
        }
        0
    }
}
