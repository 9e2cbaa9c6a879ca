//! Life-cycle and protocol slots of types, and the trampolines through which C calls them.

use std::ptr;

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple};

use super::method::{guard, guard_attached, receiver};
use super::stop::stop_with;

/// One life-cycle or protocol slot of a type: `slot!(repr function)` and its like.
#[macro_export]
macro_rules! slot {
    (@entry $id:ident, $raw:ident) => {
        pyo3::ffi::PyType_Slot { slot: pyo3::ffi::$id, pfunc: $raw as *mut std::ffi::c_void }
    };
    // What is its own iterator.
    (await itself) => {
        pyo3::ffi::PyType_Slot {
            slot: pyo3::ffi::Py_am_await,
            pfunc: pyo3::ffi::PyObject_SelfIter as *mut std::ffi::c_void,
        }
    };
    (iter itself) => {
        pyo3::ffi::PyType_Slot {
            slot: pyo3::ffi::Py_tp_iter,
            pfunc: pyo3::ffi::PyObject_SelfIter as *mut std::ffi::c_void,
        }
    };
    (repr $function:path) => {{
        unsafe extern "C" fn raw(slf: *mut pyo3::ffi::PyObject) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, with a live instance.
            unsafe { $crate::ffi::method::noargs(slf, $function) }
        }
        $crate::slot!(@entry Py_tp_repr, raw)
    }};
    (hash $function:path) => {{
        unsafe extern "C" fn raw(slf: *mut pyo3::ffi::PyObject) -> pyo3::ffi::Py_hash_t {
            // SAFETY: only Python calls this, with a live instance.
            unsafe { $crate::ffi::slots::hash(slf, $function) }
        }
        $crate::slot!(@entry Py_tp_hash, raw)
    }};
    (iter $function:path) => {{
        unsafe extern "C" fn raw(slf: *mut pyo3::ffi::PyObject) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, with a live instance.
            unsafe { $crate::ffi::method::noargs(slf, $function) }
        }
        $crate::slot!(@entry Py_tp_iter, raw)
    }};
    (await $function:path) => {{
        unsafe extern "C" fn raw(slf: *mut pyo3::ffi::PyObject) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, with a live instance.
            unsafe { $crate::ffi::method::noargs(slf, $function) }
        }
        $crate::slot!(@entry Py_am_await, raw)
    }};
    (aiter $function:path) => {{
        unsafe extern "C" fn raw(slf: *mut pyo3::ffi::PyObject) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, with a live instance.
            unsafe { $crate::ffi::method::noargs(slf, $function) }
        }
        $crate::slot!(@entry Py_am_aiter, raw)
    }};
    (anext $function:path) => {{
        unsafe extern "C" fn raw(slf: *mut pyo3::ffi::PyObject) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, with a live instance.
            unsafe { $crate::ffi::method::noargs(slf, $function) }
        }
        $crate::slot!(@entry Py_am_anext, raw)
    }};
    (next $function:path) => {{
        unsafe extern "C" fn raw(slf: *mut pyo3::ffi::PyObject) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, with a live instance.
            unsafe { $crate::ffi::slots::next(slf, $function) }
        }
        $crate::slot!(@entry Py_tp_iternext, raw)
    }};
    (send $function:path) => {{
        unsafe extern "C" fn raw(
            slf: *mut pyo3::ffi::PyObject,
            _: *mut pyo3::ffi::PyObject,
            result: *mut *mut pyo3::ffi::PyObject,
        ) -> pyo3::ffi::PySendResult {
            // SAFETY: only Python calls this, with a live instance and a place for the result.
            unsafe { $crate::ffi::slots::send(slf, result, $function) }
        }
        $crate::slot!(@entry Py_am_send, raw)
    }};
    (compare $function:path) => {{
        unsafe extern "C" fn raw(
            left: *mut pyo3::ffi::PyObject,
            right: *mut pyo3::ffi::PyObject,
            operation: std::ffi::c_int,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, with live objects.
            unsafe {
                $crate::ffi::method::onearg(left, right, |l, r| $function(l, r, operation))
            }
        }
        $crate::slot!(@entry Py_tp_richcompare, raw)
    }};
    (init $function:path) => {{
        unsafe extern "C" fn raw(
            slf: *mut pyo3::ffi::PyObject,
            args: *mut pyo3::ffi::PyObject,
            keywords: *mut pyo3::ffi::PyObject,
        ) -> std::ffi::c_int {
            // SAFETY: only Python calls this, with an instance, a tuple, and a dictionary or null.
            unsafe { $crate::ffi::slots::init(slf, args, keywords, $function) }
        }
        $crate::slot!(@entry Py_tp_init, raw)
    }};
    (setattr $function:path) => {{
        unsafe extern "C" fn raw(
            slf: *mut pyo3::ffi::PyObject,
            name: *mut pyo3::ffi::PyObject,
            value: *mut pyo3::ffi::PyObject,
        ) -> std::ffi::c_int {
            // SAFETY: only Python calls this, with live objects, the value null to delete.
            unsafe { $crate::ffi::slots::setattr(slf, name, value, $function) }
        }
        $crate::slot!(@entry Py_tp_setattro, raw)
    }};
    (finalize $function:path) => {{
        unsafe extern "C" fn raw(slf: *mut pyo3::ffi::PyObject) {
            // SAFETY: only Python calls this, with an instance that it is about to free.
            unsafe { $crate::ffi::slots::finalize(slf, $function) }
        }
        $crate::slot!(@entry Py_tp_finalize, raw)
    }};
}

/// What one step of an iterator gave.
#[derive(Debug)]
pub enum Advanced<'py> {
    /// It goes on.
    Yielded(Bound<'py, PyAny>),
    /// It has ended, with a value.
    Returned(Bound<'py, PyAny>),
}

/// Trampoline of `tp_iternext`: the end with `None` is null without an exception.
///
/// # Safety
/// Called by Python with a live receiver.
#[inline]
pub unsafe fn next<'a, 'py: 'a>(
    slf: *mut ffi::PyObject,
    body: impl FnOnce(&'a Bound<'py, PyAny>) -> PyResult<Advanced<'py>>,
) -> *mut ffi::PyObject {
    // SAFETY: promised by the caller.
    unsafe {
        guard(ptr::null_mut(), |py| match body(receiver(py, &slf))? {
            Advanced::Yielded(value) => Ok(value.into_ptr()),
            Advanced::Returned(value) if value.is_none() => Ok(ptr::null_mut()),
            Advanced::Returned(value) => {
                stop_with(value);
                Ok(ptr::null_mut())
            }
        })
    }
}

/// Trampoline of `am_send`.
///
/// # Safety
/// Called by Python with a live receiver and a place for the result.
#[inline]
pub unsafe fn send<'a, 'py: 'a>(
    slf: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
    body: impl FnOnce(&'a Bound<'py, PyAny>) -> PyResult<Advanced<'py>>,
) -> ffi::PySendResult {
    // SAFETY: promised by the caller.
    unsafe {
        *result = ptr::null_mut();
        guard(ffi::PySendResult::PYGEN_ERROR, |py| {
            let (value, outcome) = match body(receiver(py, &slf))? {
                Advanced::Yielded(value) => (value, ffi::PySendResult::PYGEN_NEXT),
                Advanced::Returned(value) => (value, ffi::PySendResult::PYGEN_RETURN),
            };
            *result = value.into_ptr();
            Ok(outcome)
        })
    }
}

/// Trampoline of `tp_hash`.
///
/// # Safety
/// Called by Python with a live receiver.
pub unsafe fn hash(
    slf: *mut ffi::PyObject,
    body: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<ffi::Py_hash_t>,
) -> ffi::Py_hash_t {
    // SAFETY: promised by the caller.
    unsafe { guard(-1, |py| body(receiver(py, &slf))) }
}

/// Trampoline of `tp_init`.
///
/// # Safety
/// Called by Python with an instance, a tuple, and a dictionary or null.
pub unsafe fn init(
    slf: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
    body: impl for<'py> FnOnce(
        &Bound<'py, PyAny>,
        &Bound<'py, PyTuple>,
        Option<&Bound<'py, PyDict>>,
    ) -> PyResult<()>,
) -> std::ffi::c_int {
    // SAFETY: promised by the caller.
    unsafe {
        guard_attached(-1, |py| {
            let args = receiver(py, &args).cast_unchecked::<PyTuple>();
            let keywords = Borrowed::from_ptr_or_opt(py, keywords);
            let keywords = keywords
                .as_deref()
                .map(|keywords| keywords.cast_unchecked::<PyDict>());
            body(receiver(py, &slf), args, keywords).map(|()| 0)
        })
    }
}

/// Trampoline of `tp_setattro`: the attribute is set as usual, then `body` is told its name.
///
/// # Safety
/// Called by Python with live objects, the value null to delete.
pub unsafe fn setattr(
    slf: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    body: impl FnOnce(&Bound<'_, PyAny>, &Bound<'_, PyAny>) -> PyResult<()>,
) -> std::ffi::c_int {
    // SAFETY: promised by the caller.
    unsafe {
        guard_attached(-1, |py| {
            if ffi::PyObject_GenericSetAttr(slf, name, value) != 0 {
                return Err(PyErr::fetch(py));
            }
            body(receiver(py, &slf), receiver(py, &name)).map(|()| 0)
        })
    }
}

/// Trampoline of `tp_finalize`: keeps the exception that is being handled, reports one that `body` returns.
///
/// # Safety
/// Called by Python with an instance that it is about to free.
pub unsafe fn finalize(
    slf: *mut ffi::PyObject,
    body: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<()>,
) {
    // SAFETY: promised by the caller.
    unsafe {
        guard_attached((), |py| {
            let pending = PyErr::take(py);
            let object = receiver(py, &slf);
            if let Err(error) = body(object) {
                error.write_unraisable(py, Some(object));
            }
            if let Some(pending) = pending {
                pending.restore(py);
            }
            Ok(())
        });
    }
}
