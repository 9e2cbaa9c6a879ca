//! A list of living objects that does not keep them alive.

use std::cell::Cell;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::state::GilCell;

struct Entry {
    object: *mut ffi::PyObject,
    member: *const Member,
}

// SAFETY: the pointers are only followed with the GIL held.
unsafe impl Send for Entry {}

static ENTRIES: GilCell<Vec<Entry>> = GilCell::new(Vec::new());

/// An object's place in the registry; part of the object's Rust value.
///
/// Invariant: while `place` is not 0, `ENTRIES[place - 1]` points to this member and to the object that it is part of.
/// Dropping the member, which happens before the object's memory is freed, takes the entry out.
#[derive(Debug, Default)]
pub struct Member {
    place: Cell<usize>,
}

impl Member {
    /// Enters `object`, whose Rust value contains this member, into the registry.
    pub fn join(&self, object: &Bound<'_, PyAny>) {
        if self.place.get() != 0 {
            return;
        }
        ENTRIES.with(object.py(), |entries| {
            entries.push(Entry {
                object: object.as_ptr(),
                member: ptr::from_ref(self),
            });
            self.place.set(entries.len());
        });
    }
}

impl Member {
    /// Takes the object out of the registry.
    pub fn leave(&self, _py: Python<'_>) {
        let place = self.place.replace(0);
        if place == 0 {
            return;
        }
        // SAFETY: the token proves the GIL. The entry that moves into the gap belongs to a living object, so its member
        // may be told.
        unsafe {
            ENTRIES.with(Python::assume_attached(), |entries| {
                entries.swap_remove(place - 1);
                if let Some(moved) = entries.get(place - 1) {
                    (*moved.member).place.set(place);
                }
            });
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // SAFETY: members are dropped by `tp_dealloc`, with the GIL held.
        self.leave(unsafe { Python::assume_attached() });
    }
}

/// New references to all registered objects.
pub fn members(py: Python<'_>) -> Vec<Bound<'_, PyAny>> {
    ENTRIES.with(py, |entries| {
        // SAFETY: registered objects are alive.
        entries
            .iter()
            .map(|entry| unsafe { Bound::from_borrowed_ptr(py, entry.object) })
            .collect()
    })
}
