//! `__aenter__` and `__aexit__`, bound without allocating.
//!
//! Up to Python 3.13 the interpreter makes a bound method of both for each `async with`, which takes longer than what a
//! free lock has to do. A [`Special`] stands in the class's dictionary in place of such a method, and binds to objects
//! that are used again. From the class itself one gets the ordinary method, and whatever one asks of the bound one is
//! answered by the ordinary bound one. (Python 3.14 calls the ordinary method without binding it.)

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule};

use super::Slot;
use super::class::{Class, Description, Native, Visit};
use super::lifecycle::class_slots;
use super::method::{Args, Returned, add_functions, guard, receiver};
use super::object::is_exactly;
use crate::method;

/// What stands in the dictionary of a class.
///
/// Invariant: `native` is a method descriptor, which keeps `definition` alive.
#[derive(Debug)]
struct Special {
    native: Slot,
    /// What one gets from the class.
    original: Slot,
    definition: Cell<*const ffi::PyMethodDef>,
}

/// A method bound to an object.
///
/// Invariant: `special` is a [`Special`]'s instance, `object` an instance of the class that its method belongs to.
#[derive(Debug, Default)]
struct Method {
    vectorcall: Cell<Option<ffi::vectorcallfunc>>,
    object: Slot,
    special: Slot,
}

static SPECIAL: Class<Special> = Class::new();
static METHOD: Class<Method> = Class::new();

impl Default for Special {
    fn default() -> Self {
        Self {
            native: Slot::empty(),
            original: Slot::empty(),
            definition: Cell::new(ptr::null()),
        }
    }
}

impl Native for Special {
    fn class() -> &'static Class<Self> {
        &SPECIAL
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.native, &self.original])
    }
}

impl Native for Method {
    const RECYCLED: usize = 64;

    fn class() -> &'static Class<Self> {
        &METHOD
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.object, &self.special])
    }
}

/// `tp_descr_get` of what stands in the class.
unsafe extern "C" fn get(
    slf: *mut ffi::PyObject,
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python with a live special method, and an object or null.
    unsafe {
        guard(ptr::null_mut(), |py| {
            if object.is_null() {
                let original = SPECIAL.value(slf).original.get_or_none(py);
                return Ok(original.into_ptr());
            }
            let bound = METHOD.instance(py)?;
            let method = METHOD.of(&bound);
            method.vectorcall.set(Some(call));
            method.object.fill(receiver(py, &object).clone());
            method.special.fill(receiver(py, &slf).clone());
            Ok(bound.into_ptr())
        })
    }
}

/// `tp_call` of what stands in the class.
unsafe extern "C" fn call_unbound(
    slf: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python; the original is set when the object is made.
    unsafe { ffi::PyObject_Call(SPECIAL.value(slf).original.as_ptr(), args, keywords) }
}

/// Calls a bound method.
unsafe extern "C" fn call(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python with a live bound method, which the caller keeps alive, and with it the definition and
    // the object that it is for. The member of the union is the one that the flags, checked by `special_method`, name.
    unsafe {
        let method = METHOD.value(slf);
        let definition = &*SPECIAL.value(method.special.as_ptr()).definition.get();
        let count = ffi::PyVectorcall_NARGS(nargsf);
        if definition.ml_flags & ffi::METH_NOARGS == 0 {
            return (definition.ml_meth.PyCFunctionFastWithKeywords)(
                method.object.as_ptr(),
                args,
                count,
                names,
            );
        }
        if count == 0 && names.is_null() {
            return (definition.ml_meth.PyCFunction)(method.object.as_ptr(), ptr::null_mut());
        }
        // Python has the words for it.
        guard(ptr::null_mut(), |py| {
            let ordinary = ordinary(receiver(py, &slf))?;
            let result = ffi::PyObject_Vectorcall(ordinary.as_ptr(), args, nargsf, names);
            Bound::from_owned_ptr_or_err(py, result).map(Bound::into_ptr)
        })
    }
}

/// The bound method that Python would have made.
fn ordinary<'py>(bound: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = bound.py();
    let method = METHOD.of(bound);
    let special = method.special.get_or_none(py);
    let object = method.object.get_or_none(py);
    let original = SPECIAL.of(&special).original.get_or_none(py);
    original.call_method1("__get__", (&object, object.get_type()))
}

unsafe extern "C" fn getattr(
    slf: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python with a live bound method and a name.
    unsafe {
        guard(ptr::null_mut(), |py| {
            let ordinary = ordinary(receiver(py, &slf))?;
            let value = ffi::PyObject_GetAttr(ordinary.as_ptr(), name);
            Bound::from_owned_ptr_or_err(py, value).map(Bound::into_ptr)
        })
    }
}

fn repr<'py>(bound: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(ordinary(bound)?.repr()?.into_any())
}

fn hash(bound: &Bound<'_, PyAny>) -> PyResult<ffi::Py_hash_t> {
    ordinary(bound)?.hash()
}

fn compare<'py>(
    left: &Bound<'py, PyAny>,
    right: &Bound<'py, PyAny>,
    operation: c_int,
) -> Returned<'py> {
    let right = if METHOD.is_exact(right) {
        ordinary(right)?
    } else {
        right.clone()
    };
    let operation = match operation {
        ffi::Py_EQ => pyo3::basic::CompareOp::Eq,
        ffi::Py_NE => pyo3::basic::CompareOp::Ne,
        _ => {
            let py = left.py();
            return Ok(py.NotImplemented().into_bound(py));
        }
    };
    ordinary(left)?.rich_compare(right, operation)
}

/// `special_method(native, original)`: a stand-in for a native method, which binds faster; or `original`, what one gets
/// from the class, where there is none or no need.
fn special_method<'py>(_: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    args.no_keywords("special_method")?;
    let method = args.required("special_method", 0, "native")?;
    let original = args.required("special_method", 1, "original")?;
    let quick = cfg!(not(Py_3_14)) && is_exactly(&method, &raw mut ffi::PyMethodDescr_Type);
    if !quick {
        return Ok(original.to_owned());
    }
    // SAFETY: the type was just checked; a method descriptor's definition lives as long as the descriptor.
    let definition = unsafe { (*method.as_ptr().cast::<ffi::PyMethodDescrObject>()).d_method };
    // SAFETY: as above.
    let flags = unsafe { (*definition).ml_flags };
    if flags != ffi::METH_NOARGS && flags != ffi::METH_FASTCALL | ffi::METH_KEYWORDS {
        return Ok(original.to_owned());
    }
    let special = SPECIAL.instance(method.py())?;
    let state = SPECIAL.of(&special);
    state.native.fill(method.to_owned());
    state.original.fill(original.to_owned());
    state.definition.set(definition);
    Ok(special)
}

fn type_slot(slot: c_int, function: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot {
        slot,
        pfunc: function,
    }
}

/// Makes the classes and adds `special_method` to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut slots = class_slots::<Special>();
    slots.push(type_slot(ffi::Py_tp_descr_get, get as *mut c_void));
    slots.push(type_slot(ffi::Py_tp_call, call_unbound as *mut c_void));
    SPECIAL.make(
        py,
        c"weft._weft.SpecialMethod",
        None,
        Description {
            slots,
            immutable: true,
            ..Description::default()
        },
    )?;
    let mut slots = class_slots::<Method>();
    slots.push(type_slot(ffi::Py_tp_getattro, getattr as *mut c_void));
    slots.push(crate::slot!(repr repr));
    slots.push(crate::slot!(hash hash));
    slots.push(crate::slot!(compare compare));
    METHOD.make(
        py,
        c"weft._weft.BoundSpecialMethod",
        None,
        Description {
            slots,
            vectorcall: Some(offset_of!(Method, vectorcall)),
            immutable: true,
            ..Description::default()
        },
    )?;
    add_functions(
        module,
        vec![method!(fast "special_method" => special_method,
            "special_method($module, native, original, /)\n--\n\nReturn what to put into a class for a special method of its native base.")],
    )
}
