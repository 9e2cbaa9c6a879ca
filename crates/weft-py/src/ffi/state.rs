//! State of the process that the GIL guards.

use std::cell::UnsafeCell;

use pyo3::Python;

/// A value shared by all threads and guarded by the GIL.
///
/// Invariant: the value is only lent for the length of a closure that cannot run Python code, so no other thread can
/// take the GIL meanwhile and no second loan can start.
#[derive(Debug, Default)]
pub struct GilCell<T>(UnsafeCell<T>);

// SAFETY: every access holds the GIL, see `with`.
unsafe impl<T: Send> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Lends the value. The closure must not call into Python.
    #[inline]
    pub fn with<R>(&self, _py: Python<'_>, body: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the token proves the GIL, and the closure does not give it up.
        body(unsafe { &mut *self.0.get() })
    }
}
