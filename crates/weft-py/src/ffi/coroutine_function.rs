//! Native methods that are coroutine functions to Python.
//!
//! Programs look before they call: `inspect.iscoroutinefunction(loop.sock_recv)` is asked by mocks, by wrappers and by
//! whoever takes plain functions and asynchronous ones alike. It answers for everything that has what a function written
//! in Python has, its code object first of all. So a [`CoroutineFunction`] stands for such a function: it shows its name,
//! documentation, signature and code, and calls native code instead.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString};

use super::class::Description;
use super::lifecycle::{Owner, class_slots};
use super::method::{Args, Returned, fastcall, receiver};
use super::{Class, Native, Slot, Visit};
use crate::{property, slot};

unsafe extern "C" {
    /// A function bound to an object: what `object.method` is.
    fn PyMethod_New(function: *mut ffi::PyObject, object: *mut ffi::PyObject)
    -> *mut ffi::PyObject;
}

/// A method that stands for one written in Python.
#[derive(Default)]
pub struct CoroutineFunction {
    vectorcall: Cell<Option<ffi::vectorcallfunc>>,
    original: Slot,
    weak_references: Slot,
}

impl std::fmt::Debug for CoroutineFunction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CoroutineFunction")
    }
}

impl Native for CoroutineFunction {
    fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.original)
    }

    fn clear(&self, _: Python<'_>) {
        self.original.clear();
    }
}

static FUNCTION: Class<CoroutineFunction> = Class::new();

struct FunctionClass;

impl Owner for FunctionClass {
    type Value = CoroutineFunction;
    fn class() -> &'static Class<CoroutineFunction> {
        &FUNCTION
    }
}

macro_rules! shown {
    ($($function:ident => $name:literal),* $(,)?) => {
        $(fn $function<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
            let py = object.py();
            let original = FUNCTION.of(object).original.get_or_none(py);
            original.getattr(intern!(py, $name))
        })*

        fn properties() -> Vec<ffi::PyGetSetDef> {
            vec![$(property!($name => $function)),*]
        }
    };
}

shown! {
    name => "__name__",
    qualified_name => "__qualname__",
    documentation => "__doc__",
    code => "__code__",
    defaults => "__defaults__",
    keyword_defaults => "__kwdefaults__",
    annotations => "__annotations__",
}

fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let name = qualified_name(object)?;
    let text = format!("<coroutine function {name} at {:p}>", object.as_ptr());
    Ok(PyString::new(object.py(), &text).into_any())
}

/// `tp_descr_get`: bound where it is looked up on an instance.
unsafe extern "C" fn bind(
    function: *mut ffi::PyObject,
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python with live objects, the instance null where there is none.
    unsafe {
        if object.is_null() || ptr::eq(object, ffi::Py_None()) {
            return ffi::Py_NewRef(function);
        }
        PyMethod_New(function, object)
    }
}

/// Makes the class.
///
/// # Errors
/// What Python raises while it makes types.
pub fn make(py: Python<'_>) -> PyResult<()> {
    let mut slots = class_slots::<FunctionClass>();
    slots.retain(|slot| slot.slot != ffi::Py_tp_new);
    slots.extend([
        ffi::PyType_Slot {
            slot: ffi::Py_tp_descr_get,
            pfunc: bind as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: ffi::Py_tp_call,
            pfunc: ffi::PyVectorcall_Call as *mut c_void,
        },
        slot!(repr representation),
    ]);
    let description = Description {
        properties: properties(),
        slots,
        immutable: true,
        weak_references: Some(offset_of!(CoroutineFunction, weak_references)),
        vectorcall: Some(offset_of!(CoroutineFunction, vectorcall)),
        method_descriptor: true,
        ..Description::default()
    };
    FUNCTION
        .make(py, c"weft._weft.CoroutineFunction", None, description)
        .map(drop)
}

/// A method that stands for the Python function `original`; `call` comes from
/// [`coroutine_method!`](crate::coroutine_method).
///
/// # Errors
/// `MemoryError`.
pub fn standing_for<'py>(original: &Bound<'py, PyAny>, call: ffi::vectorcallfunc) -> Returned<'py> {
    let object = FUNCTION.instance(original.py())?;
    let function = FUNCTION.of(&object);
    function.vectorcall.set(Some(call));
    function.original.set(original.clone());
    Ok(object)
}

/// Trampoline of a vectorcall: the first argument is the receiver, which must be an instance of `class` or a subclass.
///
/// # Safety
/// Called by Python with arguments of that convention.
#[inline]
pub unsafe fn call_method<'a, 'py: 'a, T>(
    values: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
    class: &'static Class<T>,
    body: impl FnOnce(&'a Bound<'py, PyAny>, Args<'a, 'py>) -> Returned<'py>,
) -> *mut ffi::PyObject {
    // SAFETY: promised by the caller; where there is a positional argument, it is the first.
    unsafe {
        let count = ffi::PyVectorcall_NARGS(count).cast_unsigned();
        let slf = if count == 0 { ptr::null_mut() } else { *values };
        if slf.is_null() || !class.is_instance(receiver(Python::assume_attached(), &slf)) {
            return fastcall(ffi::Py_None(), ptr::null(), 0, ptr::null_mut(), |_, _| {
                Err(PyTypeError::new_err(
                    "this method needs an argument 'self' of its class",
                ))
            });
        }
        let rest = (count - 1).cast_signed();
        fastcall(slf, values.add(1), rest, names, body)
    }
}

/// The `vectorcallfunc` of a native method of `class`: `coroutine_method!(EVENT_LOOP, sock_recv)`.
#[macro_export]
macro_rules! coroutine_method {
    ($class:path, $function:path) => {{
        unsafe extern "C" fn raw(
            _: *mut pyo3::ffi::PyObject,
            values: *const *mut pyo3::ffi::PyObject,
            count: usize,
            names: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            let class = &$class;
            // SAFETY: only Python calls this, by way of the object that it is given to.
            unsafe {
                $crate::ffi::coroutine_function::call_method(values, count, names, class, $function)
            }
        }
        raw as pyo3::ffi::vectorcallfunc
    }};
}
