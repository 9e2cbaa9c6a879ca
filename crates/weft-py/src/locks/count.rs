//! The number inside a semaphore.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::IntoPyObject;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyInt};

use crate::ffi::method::Returned;
use crate::ffi::{Slot, Visit};

/// A counter: a native number, or whatever Python object a program has put in its place, such as `math.inf`.
#[derive(Debug, Default)]
pub struct Count {
    number: Cell<i64>,
    object: Slot,
}

impl Count {
    /// Makes it `value`.
    pub fn set(&self, value: &Bound<'_, PyAny>) {
        if value.is_exact_instance_of::<PyInt>()
            && let Ok(number) = value.extract()
        {
            self.number.set(number);
            self.object.clear();
        } else {
            self.object.set(value.clone());
        }
    }

    /// The value as Python has it.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn get<'py>(&self, py: Python<'py>) -> Returned<'py> {
        match self.object.get(py) {
            Some(object) => Ok(object),
            None => Ok(self.number.get().into_pyobject(py)?.into_any()),
        }
    }

    /// Adds `step`.
    ///
    /// # Errors
    /// What the arithmetic of a Python object raises.
    #[inline]
    pub fn add(&self, py: Python<'_>, step: i64) -> PyResult<()> {
        if !self.object.is_set()
            && let Some(sum) = self.number.get().checked_add(step)
        {
            self.number.set(sum);
            return Ok(());
        }
        self.set(&self.get(py)?.add(step)?);
        Ok(())
    }

    /// Whether it is 0.
    ///
    /// # Errors
    /// What the comparison of a Python object raises.
    #[inline]
    pub fn is_zero(&self, py: Python<'_>) -> PyResult<bool> {
        match self.object.get(py) {
            None => Ok(self.number.get() == 0),
            Some(object) => object.eq(0),
        }
    }

    /// Whether it is more than 0.
    ///
    /// # Errors
    /// What the comparison of a Python object raises.
    #[inline]
    pub fn is_positive(&self, py: Python<'_>) -> PyResult<bool> {
        match self.object.get(py) {
            None => Ok(self.number.get() > 0),
            Some(object) => object.gt(0),
        }
    }

    /// Whether it is at least `other`.
    ///
    /// # Errors
    /// What the comparison of a Python object raises.
    #[inline]
    pub fn reaches(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        if !self.object.is_set() && !other.object.is_set() {
            return Ok(self.number.get() >= other.number.get());
        }
        self.get(py)?.ge(other.get(py)?)
    }

    /// Reports what it owns to the garbage collector.
    pub fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.object)
    }

    /// Drops what it owns.
    pub fn clear(&self) {
        self.object.clear();
    }
}
