//! Ending an `await` with a value.
//!
//! What an awaitable returns reaches the interpreter as the value of a `StopIteration`. Making one the usual way, by
//! calling the class, takes longer than most of what Weft does for an `await`. So there is a subclass whose instances
//! are filled in by hand, and used again after the interpreter has taken the value out. Who catches one and keeps it
//! has it for himself.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyTuple};

use super::method::Returned;
use super::state::GilCell;
use crate::imports::imports;
use crate::property;

/// The memory of a dead instance: cleared, but for its type.
struct Dead(*mut ffi::PyObject);

// SAFETY: only touched with the GIL held.
unsafe impl Send for Dead {}

unsafe extern "C" {
    fn _Py_NewReference(object: *mut ffi::PyObject);
}

/// So many dead ones are kept: as many as awaits end inside one another.
const KEPT: usize = 32;

static CLASS: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
static DEAD: GilCell<Vec<Dead>> = GilCell::new(Vec::new());

/// Makes the class.
///
/// # Errors
/// What Python raises while it makes a type.
///
/// # Panics
/// Where the flags of types no longer fit 32 bits.
pub fn make(py: Python<'_>) -> PyResult<()> {
    // As in every `StopIteration`; the field itself stays empty.
    let properties = Box::leak(Box::new([
        property!("args" => args),
        ffi::PyGetSetDef::default(),
    ]));
    let mut slots = [
        ffi::PyType_Slot {
            slot: ffi::Py_tp_getset,
            pfunc: properties.as_mut_ptr().cast(),
        },
        ffi::PyType_Slot {
            slot: ffi::Py_tp_dealloc,
            pfunc: dealloc as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: 0,
            pfunc: ptr::null_mut(),
        },
    ];
    let mut spec = ffi::PyType_Spec {
        // Who catches one sees what is always caught there.
        name: c"builtins.StopIteration".as_ptr(),
        basicsize: 0,
        itemsize: 0,
        flags: u32::try_from(ffi::Py_TPFLAGS_DEFAULT).expect("type flags fit"),
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec is valid for the call, and Python copies it. The class is never freed.
    unsafe {
        let class = Bound::from_owned_ptr_or_err(
            py,
            ffi::PyType_FromSpecWithBases(&raw mut spec, ffi::PyExc_StopIteration),
        )?;
        CLASS.store(class.into_ptr().cast(), Ordering::Relaxed);
    }
    Ok(())
}

fn args<'py>(stop: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyTuple::new(stop.py(), [stop.getattr("value")?])?.into_any())
}

/// Raises `StopIteration` with `value`, whatever it is: a tuple or an exception is not unpacked.
pub fn stop_with(value: Bound<'_, PyAny>) {
    let py = value.py();
    // SAFETY: an instance of the class has the memory of `StopIteration`. It is either fresh and zeroed or has been
    // cleared, so that its fields are null; a dead one is untracked, and stays so.
    unsafe {
        let object = if let Some(Dead(object)) = DEAD.with(py, Vec::pop) {
            // Unknown to the collector: it lives for a moment, and if it is kept, only a cycle through it would be.
            _Py_NewReference(object);
            object
        } else {
            ffi::PyType_GenericAlloc(CLASS.load(Ordering::Relaxed), 0)
        };
        if object.is_null() {
            return;
        }
        let fields = object.cast::<ffi::PyStopIterationObject>();
        (*fields).args = imports(py).empty_tuple.clone_ref(py).into_ptr();
        (*fields).value = value.into_ptr();
        #[cfg(Py_3_12)]
        ffi::PyErr_SetRaisedException(object);
        #[cfg(not(Py_3_12))]
        ffi::PyErr_Restore(
            Bound::from_borrowed_ptr(py, CLASS.load(Ordering::Relaxed).cast()).into_ptr(),
            object,
            ptr::null_mut(),
        );
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: called by Python when the last reference has gone. The base's `tp_clear` empties every field.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        let base = ffi::PyExc_StopIteration.cast::<ffi::PyTypeObject>();
        if let Some(clear) = (*base).tp_clear {
            clear(object);
        }
        let fields = object.cast::<ffi::PyStopIterationObject>();
        // A byte, whatever the bindings call it.
        (&raw mut (*fields).suppress_context).cast::<u8>().write(0);
        let ty = ffi::Py_TYPE(object);
        if ptr::eq(ty, CLASS.load(Ordering::Relaxed)) {
            let kept = DEAD.with(Python::assume_attached(), |dead| {
                let room = dead.len() < KEPT;
                if room {
                    dead.push(Dead(object));
                }
                room
            });
            if kept {
                return;
            }
        }
        if let Some(free) = (*ty).tp_free {
            free(object.cast());
        }
        ffi::Py_DECREF(ty.cast());
    }
}
