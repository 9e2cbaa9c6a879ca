//! Done-callbacks that need no call through Python.
//!
//! A [`Callback`], bound to an object, is a builtin method like any other: Python code can look at it, compare it, call
//! it, and every future accepts it. What schedules callbacks natively recognises it and calls the function behind it.

use std::ffi::CStr;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::method::{Returned, receiver};
use super::object::is_builtin;

/// What a callback does: called with the object that it is bound to, and the future that is done.
pub type Function =
    for<'py> fn(receiver: &Bound<'py, PyAny>, future: &Bound<'py, PyAny>) -> PyResult<()>;

/// The table entry of such a method, with the function behind it. `done_callback!` makes one.
///
/// Invariant: a table entry whose documentation is [`MARK`] itself is the head of a `Callback`.
#[repr(C)]
#[expect(missing_debug_implementations, reason = "a C structure")]
pub struct Callback {
    definition: ffi::PyMethodDef,
    function: Function,
}

/// The documentation of these methods, and by its address the mark that tells them from others.
static MARK: &CStr = c"Told by the loop that a future is done.";

// SAFETY: a callback is constant and points to constants.
unsafe impl Sync for Callback {}

impl Callback {
    /// A callback from a table entry of convention `METH_O` and the function that the entry calls.
    #[must_use]
    pub const fn new(mut definition: ffi::PyMethodDef, function: Function) -> Self {
        definition.ml_doc = MARK.as_ptr();
        Self {
            definition,
            function,
        }
    }

    fn entry(&'static self) -> *mut ffi::PyMethodDef {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// The method of `object`.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn bind<'py>(&'static self, object: &Bound<'py, PyAny>) -> Returned<'py> {
        // SAFETY: the entry lives as long as the process; the method keeps the object alive.
        unsafe {
            let method = ffi::PyCMethod_New(
                self.entry(),
                object.as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
            );
            Bound::from_owned_ptr_or_err(object.py(), method)
        }
    }
}

/// The function and the receiver behind `object`, where that is a method made by [`Callback::bind`].
#[inline]
pub fn recognise<'a, 'py>(
    object: &'a Bound<'py, PyAny>,
) -> Option<(Function, &'a Bound<'py, PyAny>)> {
    if !is_builtin(object) {
        return None;
    }
    // SAFETY: a builtin, as was just checked, has a table entry; see `Callback` for the marked ones. Methods made by
    // `bind` have a receiver, which they keep alive.
    unsafe {
        let builtin = object.as_ptr().cast::<ffi::PyCFunctionObject>();
        let entry = (*builtin).m_ml;
        if !ptr::eq((*entry).ml_doc, MARK.as_ptr()) {
            return None;
        }
        let function = (*entry.cast::<Callback>()).function;
        Some((function, receiver(object.py(), &(*builtin).m_self)))
    }
}

/// Whether both are the same builtin method of the same object.
#[inline]
pub fn is_same(one: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> bool {
    if one.is(other) {
        return true;
    }
    if !is_builtin(one) || !is_builtin(other) {
        return false;
    }
    // SAFETY: two builtins, as was just checked.
    unsafe {
        let one = one.as_ptr().cast::<ffi::PyCFunctionObject>();
        let other = other.as_ptr().cast::<ffi::PyCFunctionObject>();
        ptr::eq((*one).m_ml, (*other).m_ml) && ptr::eq((*one).m_self, (*other).m_self)
    }
}

/// A [`Callback`] for a static: `done_callback!("name" => function)`.
#[macro_export]
macro_rules! done_callback {
    ($name:literal => $function:path) => {{
        fn called<'py>(
            receiver: &pyo3::Bound<'py, pyo3::PyAny>,
            future: &pyo3::Bound<'py, pyo3::PyAny>,
        ) -> $crate::ffi::method::Returned<'py> {
            $function(receiver, future)?;
            Ok(receiver.py().None().into_bound(receiver.py()))
        }
        $crate::ffi::callback::Callback::new($crate::method!(one $name => called, ""), $function)
    }};
}
