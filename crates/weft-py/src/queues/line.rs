//! Objects in a row: the items of a queue, or those who wait at one of its ends.
//!
//! A line is native until Python code looks at it. From then on the `deque` or `list` that was shown *is* the line, so
//! that what Python code does with it counts; Python code may also put any other object in its place. There is one truth
//! at any time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::c_int;

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyList, PyString};

use super::hooks::stock;
use crate::ffi::call::{call1, method0, method1};
use crate::ffi::method::Returned;
use crate::ffi::{Reference, Slot, Visit};

/// Room that an empty line keeps.
const KEPT: usize = 1024;

/// What a line is shown as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Container {
    /// `collections.deque`
    #[default]
    Deque,
    /// `list`
    List,
}

/// See the module. `shown` is what Python code has seen; the native part is empty from then on.
#[derive(Debug, Default)]
pub struct Line {
    native: RefCell<VecDeque<Reference>>,
    shown: Slot,
}

impl Line {
    /// Whether no Python object stands for the line.
    #[inline]
    pub fn is_native(&self) -> bool {
        !self.shown.is_set()
    }

    /// # Errors
    /// What `len()` of the object that was put in place raises.
    #[inline]
    pub fn len(&self, py: Python<'_>) -> PyResult<usize> {
        match self.shown.get(py) {
            None => Ok(self.native.borrow().len()),
            Some(shown) => shown.len(),
        }
    }

    /// # Errors
    /// What the truth of the object that was put in place raises.
    #[inline]
    pub fn is_empty(&self, py: Python<'_>) -> PyResult<bool> {
        match self.shown.get(py) {
            None => Ok(self.native.borrow().is_empty()),
            Some(shown) => shown.is_truthy().map(|full| !full),
        }
    }

    /// Adds `object` at the end.
    ///
    /// # Errors
    /// What `append()` raises.
    #[inline]
    pub fn push(&self, object: Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        match self.shown.get(py) {
            None => {
                self.native.borrow_mut().push_back(object.into());
                Ok(())
            }
            Some(shown) => method1(&shown, intern!(py, "append"), &object).map(drop),
        }
    }

    /// The number of objects, where the line is native.
    #[inline]
    pub fn native_len(&self) -> Option<usize> {
        self.is_native().then(|| self.native.borrow().len())
    }

    /// Adds `object` at the end of a native line.
    #[inline]
    pub fn push_natively(&self, object: Bound<'_, PyAny>) {
        debug_assert!(self.is_native());
        self.native.borrow_mut().push_back(object.into());
    }

    /// Takes the first or the last one out of a native line.
    #[inline]
    pub fn pop_natively<'py>(&self, py: Python<'py>, first: bool) -> Option<Bound<'py, PyAny>> {
        let mut native = self.native.borrow_mut();
        let taken = if first {
            native.pop_front()
        } else {
            native.pop_back()
        }?;
        if native.is_empty() && native.capacity() > KEPT {
            *native = VecDeque::new();
        }
        Some(taken.into_bound(py))
    }

    /// Takes the first one out.
    ///
    /// # Errors
    /// `IndexError` where there is none; what `popleft()` raises.
    #[inline]
    pub fn first<'py>(&self, py: Python<'py>) -> Returned<'py> {
        self.pop(py, intern!(py, "popleft"), true)
    }

    /// Takes the last one out.
    ///
    /// # Errors
    /// `IndexError` where there is none; what `pop()` raises.
    #[inline]
    pub fn last<'py>(&self, py: Python<'py>) -> Returned<'py> {
        self.pop(py, intern!(py, "pop"), false)
    }

    #[inline]
    fn pop<'py>(&self, py: Python<'py>, name: &Bound<'py, PyString>, first: bool) -> Returned<'py> {
        match self.shown.get(py) {
            Some(shown) => method0(&shown, name),
            None => self
                .pop_natively(py, first)
                .ok_or_else(|| PyIndexError::new_err("pop from an empty deque")),
        }
    }

    /// Takes `object` out, if it is there.
    ///
    /// # Errors
    /// What `remove()` raises, but for the `ValueError` of an object that is not there.
    pub fn discard(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        if let Some(shown) = self.shown.get(py) {
            return match method1(&shown, intern!(py, "remove"), object) {
                Err(error) if !error.is_instance_of::<PyValueError>(py) => Err(error),
                _ => Ok(()),
            };
        }
        let mut native = self.native.borrow_mut();
        let place = native
            .iter()
            .position(|other| std::ptr::eq(other.as_ptr(), object.as_ptr()));
        // `object` holds a reference of its own: dropping this one runs nothing.
        drop(place.and_then(|place| native.remove(place)));
        Ok(())
    }

    /// The objects as they are now.
    fn copy<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let native = self.native.borrow();
        native
            .iter()
            .map(|object| object.bind(py).clone())
            .collect()
    }

    /// A list of the objects, for looking.
    ///
    /// # Errors
    /// What iterating over the object that was put in place raises.
    pub fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        match self.shown.get(py) {
            None => PyList::new(py, self.copy(py)),
            Some(shown) => py
                .get_type::<PyList>()
                .call1((shown,))?
                .cast_into()
                .map_err(PyErr::from),
        }
    }

    /// The Python object that stands for the line from now on.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn show<'py>(&self, py: Python<'py>, container: Container) -> Returned<'py> {
        loop {
            if let Some(shown) = self.shown.get(py) {
                return Ok(shown);
            }
            let objects = self.copy(py);
            let list = PyList::new(py, &objects)?.into_any();
            let shown = match container {
                Container::List => list,
                Container::Deque => call1(stock(py)?.deque.bind(py), &list)?,
            };
            // Making objects may have run the garbage collector, and with it code that used the line.
            let same = {
                let native = self.native.borrow();
                native.len() == objects.len()
                    && native
                        .iter()
                        .zip(&objects)
                        .all(|(now, before)| std::ptr::eq(now.as_ptr(), before.as_ptr()))
            };
            if same && self.is_native() {
                self.replace(shown);
            }
        }
    }

    /// Puts a Python object in place of the line.
    pub fn replace(&self, object: Bound<'_, PyAny>) {
        let native = self.native.take();
        self.shown.set(object);
        drop(native);
    }

    /// Empties the line, which is native again.
    pub fn clear(&self) {
        let native = self.native.take();
        self.shown.clear();
        drop(native);
    }

    /// Reports every reference to the garbage collector.
    pub fn traverse(&self, visit: Visit) -> c_int {
        // Never borrowed while anything is allocated that the collector would run for; were it, the objects would only
        // seem to be referred to from outside, which is safe.
        if let Ok(native) = self.native.try_borrow() {
            for object in native.iter() {
                let answer = visit.object(object);
                if answer != 0 {
                    return answer;
                }
            }
        }
        visit.slot(&self.shown)
    }
}
