//! Where a reader keeps its bytes: in memory of its own until Python code asks for `_buffer`, from then on in the
//! `bytearray` that it was given, which it may change as it likes.

use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyByteArray, PySlice};

use crate::ffi::bytes::{self, View};
use crate::ffi::{Slot, Visit};
use crate::transports::ReadBuffer;

/// The unread bytes of a reader.
///
/// Invariant: while `shared` is set, `own` is empty.
#[derive(Debug, Default)]
pub(super) struct Storage {
    own: RefCell<ReadBuffer>,
    shared: Slot,
}

impl Storage {
    /// Whether the bytes are in memory of the reader's own.
    #[inline]
    pub(super) fn is_own(&self) -> bool {
        !self.shared.is_set()
    }

    /// Lends the reader's own memory, to be filled. The borrower runs no Python code.
    #[inline]
    pub(super) fn lend(&self, body: &mut dyn FnMut(&mut ReadBuffer)) {
        body(&mut self.own.borrow_mut());
    }

    /// Shows the bytes. `body` runs no Python code.
    #[inline]
    pub(super) fn look<R>(&self, py: Python<'_>, body: impl FnOnce(&[u8]) -> R) -> PyResult<R> {
        match self.shared.get(py) {
            None => Ok(body(self.own.borrow().as_slice())),
            Some(shared) => Ok(body(View::of(&shared)?.as_slice())),
        }
    }

    /// How many bytes there are.
    #[inline]
    pub(super) fn len(&self, py: Python<'_>) -> PyResult<usize> {
        match self.shared.get(py) {
            None => Ok(self.own.borrow().len()),
            Some(shared) => shared.len(),
        }
    }

    /// Appends what `bytearray.extend()` takes.
    #[inline]
    pub(super) fn extend(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(shared) = self.shared.get(data.py()) {
            return shared.call_method1("extend", (data,)).map(drop);
        }
        if bytes::is_bytes(data) {
            self.own.borrow_mut().extend(bytes::contents(data));
            return Ok(());
        }
        let copy = PyByteArray::new(data.py(), &[]);
        copy.call_method1("extend", (data,))?;
        let view = View::of(&copy)?;
        self.own.borrow_mut().extend(view.as_slice());
        Ok(())
    }

    /// Takes the first `count` bytes, or all where there are fewer.
    #[inline]
    pub(super) fn take<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyAny>> {
        let taken = self.look(py, |data| bytes::copy(py, &data[..count.min(data.len())]))?;
        self.discard(py, count)?;
        Ok(taken)
    }

    /// Drops the first `count` bytes, or all where there are fewer.
    #[inline]
    pub(super) fn discard(&self, py: Python<'_>, count: usize) -> PyResult<()> {
        match self.shared.get(py) {
            None => {
                self.own.borrow_mut().consume(count);
                Ok(())
            }
            Some(shared) => {
                let end = isize::try_from(count).unwrap_or(isize::MAX);
                shared.del_item(PySlice::new(py, 0, end, 1))
            }
        }
    }

    /// The `bytearray`, which from now on is where the bytes are.
    pub(super) fn share<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        if let Some(shared) = self.shared.get(py) {
            return shared;
        }
        let own = self.own.take();
        let shared = PyByteArray::new(py, own.as_slice()).into_any();
        self.shared.set(shared.clone());
        shared
    }

    /// Takes `buffer` for what the bytes are in from now on.
    pub(super) fn replace(&self, buffer: Bound<'_, PyAny>) {
        self.own.take();
        self.shared.set(buffer);
    }

    /// Begins anew, empty.
    pub(super) fn reset(&self) {
        self.own.take();
        self.shared.clear();
    }

    pub(super) fn traverse(&self, visit: Visit) -> std::ffi::c_int {
        visit.slot(&self.shared)
    }
}
