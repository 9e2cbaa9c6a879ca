//! The futures that wait for a primitive, in the order in which they came.
//!
//! asyncio keeps them in a `deque` that programs can see (`lock._waiters`). Here it is a native queue until somebody
//! looks: from then on the `deque` that was shown is the queue, until nobody else holds it and it is empty.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_int;

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyList};
use pyo3::{Borrowed, intern};

use crate::ffi::base;
use crate::ffi::call::{method0, method1};
use crate::ffi::method::Returned;
use crate::ffi::object::reference_count;
use crate::ffi::{Reference, Slot, Visit};
use crate::futures::FUTURE;
use crate::imports::imports;
use crate::operations::{create_future, finish_unless_done};

/// Whether a future of any kind was cancelled.
///
/// # Errors
/// What a foreign future's `cancelled` raises.
#[inline]
pub fn is_cancelled(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    if FUTURE.is_exact(future) {
        return Ok(base::future(future).state.get() == base::CANCELLED);
    }
    method0(future, intern!(future.py(), "cancelled"))?.is_truthy()
}

/// Whether an error is a cancellation.
#[inline]
pub fn is_cancellation(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance(py, imports(py).cancelled_error.bind(py))
}

/// The queue.
#[derive(Debug, Default)]
pub struct Waiters {
    /// Empty while `shown` is set.
    queue: RefCell<VecDeque<Reference>>,
    /// The `deque` that Python code may hold.
    shown: Slot,
    /// Whether there has ever been a queue: asyncio makes some of them when the first waiter comes.
    made: Cell<bool>,
}

impl Waiters {
    /// The `deque` that is the queue, unless it can be left for the native one.
    #[inline]
    fn shown<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.shown.is_set() {
            return Ok(None);
        }
        let Some(shown) = self.shown.get(py) else {
            return Ok(None);
        };
        if reference_count(&shown) == 2 && shown.is_exact_instance(imports(py).deque.bind(py)) {
            // Nobody else can see it any more.
            for future in shown.try_iter()? {
                self.queue.borrow_mut().push_back(future?.into());
            }
            self.shown.clear();
            return Ok(None);
        }
        Ok(Some(shown))
    }

    /// Number `index` from the front.
    ///
    /// # Errors
    /// What a `deque` that was put in place raises.
    #[inline]
    pub fn get<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(shown) = self.shown(py)? {
            return if index < shown.len()? {
                shown.get_item(index).map(Some)
            } else {
                Ok(None)
            };
        }
        let queue = self.queue.borrow();
        Ok(queue.get(index).map(|future| future.bind(py).clone()))
    }

    /// How many there are.
    ///
    /// # Errors
    /// What a `deque` that was put in place raises.
    #[inline]
    pub fn len(&self, py: Python<'_>) -> PyResult<usize> {
        match self.shown(py)? {
            Some(shown) => shown.len(),
            None => Ok(self.queue.borrow().len()),
        }
    }

    /// A new future of `event_loop` at the end.
    ///
    /// # Errors
    /// What a foreign loop's `create_future` raises.
    #[inline]
    pub fn enter<'py>(&self, event_loop: &Bound<'py, PyAny>) -> Returned<'py> {
        let future = create_future(event_loop)?;
        self.push(&future)?;
        Ok(future)
    }

    /// Puts `future` at the end.
    ///
    /// # Errors
    /// What a `deque` that was put in place raises.
    #[inline]
    pub fn push(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        self.made.set(true);
        if let Some(shown) = self.shown(py)? {
            return method1(&shown, intern!(py, "append"), future).map(drop);
        }
        self.queue.borrow_mut().push_back(future.clone().into());
        Ok(())
    }

    /// Takes `future` out.
    ///
    /// # Errors
    /// What a `deque` that was put in place raises.
    #[inline]
    pub fn remove(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        if let Some(shown) = self.shown(py)? {
            return method1(&shown, intern!(py, "remove"), future).map(drop);
        }
        let removed = {
            let mut queue = self.queue.borrow_mut();
            let place = queue
                .iter()
                .position(|waiting| waiting.as_ptr() == future.as_ptr());
            place.and_then(|place| queue.remove(place))
        };
        drop(removed);
        Ok(())
    }

    /// Whether all of them were cancelled, as none at all are.
    ///
    /// # Errors
    /// What a foreign future's `cancelled` raises.
    #[inline]
    pub fn all_cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        let mut index = 0;
        while let Some(future) = self.get(py, index)? {
            if !is_cancelled(&future)? {
                return Ok(false);
            }
            index += 1;
        }
        Ok(true)
    }

    /// Sets the result of each that is pending to `True`.
    ///
    /// # Errors
    /// What a foreign future or loop raises.
    pub fn wake_all(&self, py: Python<'_>) -> PyResult<()> {
        let mut index = 0;
        while let Some(future) = self.get(py, index)? {
            finish_unless_done(&future, truth(py, true))?;
            index += 1;
        }
        Ok(())
    }

    /// Sets the result of the first to `True`, unless it is done.
    ///
    /// # Errors
    /// What a foreign future or loop raises.
    #[inline]
    pub fn wake_first(&self, py: Python<'_>) -> PyResult<()> {
        match self.get(py, 0)? {
            Some(future) => finish_unless_done(&future, truth(py, true)),
            None => Ok(()),
        }
    }

    /// What Python code sees: a `deque`, or `None` before the first waiter.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn show<'py>(&self, py: Python<'py>) -> Returned<'py> {
        if let Some(shown) = self.shown(py)? {
            return Ok(shown);
        }
        if !self.made.get() {
            return Ok(py.None().into_bound(py));
        }
        let items = PyList::empty(py);
        for future in self.queue.borrow().iter() {
            items.append(future.bind(py))?;
        }
        let shown = imports(py).deque.bind(py).call1((items,))?;
        let hidden = std::mem::take(&mut *self.queue.borrow_mut());
        self.shown.set(shown.clone());
        drop(hidden);
        Ok(shown)
    }

    /// Begins anew: with an empty `deque` if `made`, otherwise with `None`.
    pub fn reset(&self, made: bool) {
        let hidden = std::mem::take(&mut *self.queue.borrow_mut());
        self.made.set(made);
        self.shown.clear();
        drop(hidden);
    }

    /// Makes `value`, a `deque` or `None`, the queue.
    ///
    /// # Errors
    /// `AttributeError` where it would be deleted.
    pub fn replace(&self, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
        let Some(value) = value else {
            return Err(PyAttributeError::new_err("_waiters"));
        };
        let py = value.py();
        let hidden = std::mem::take(&mut *self.queue.borrow_mut());
        self.made.set(!value.is_none());
        let passing = value.is_none()
            || value.is_exact_instance(imports(py).deque.bind(py))
                && value.is_empty()?
                && reference_count(&value) == 1;
        if passing {
            self.shown.clear();
        } else {
            self.shown.set(value.to_owned());
        }
        drop(hidden);
        Ok(())
    }

    /// Reports them to the garbage collector.
    pub fn traverse(&self, visit: Visit) -> c_int {
        if let Ok(queue) = self.queue.try_borrow() {
            for future in queue.iter() {
                let answer = visit.object(future);
                if answer != 0 {
                    return answer;
                }
            }
        }
        visit.slot(&self.shown)
    }

    /// Drops them.
    pub fn clear(&self) {
        let hidden = self
            .queue
            .try_borrow_mut()
            .map(|mut queue| std::mem::take(&mut *queue));
        self.shown.clear();
        drop(hidden);
    }
}

/// `True` or `False`.
#[inline]
pub fn truth(py: Python<'_>, value: bool) -> Bound<'_, PyAny> {
    PyBool::new(py, value).to_owned().into_any()
}
