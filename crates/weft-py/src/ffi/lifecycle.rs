//! How instances of native classes are made, visited by the garbage collector, and freed.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyTuple, PyType};

use super::Slot;
use super::class::{_Py_NewReference, Dead, Native, Visit};
use super::method::guard;

/// The life-cycle slots of a class whose base is `object`, or a Python class that has nothing but `__slots__`.
pub fn class_slots<T: Native>() -> Vec<ffi::PyType_Slot> {
    let mut slots = vec![
        ffi::PyType_Slot {
            slot: ffi::Py_tp_new,
            pfunc: tp_new::<T> as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: ffi::Py_tp_dealloc,
            pfunc: dealloc::<T, T> as *mut c_void,
        },
    ];
    if T::COLLECTED {
        slots.push(ffi::PyType_Slot {
            slot: ffi::Py_tp_traverse,
            pfunc: traverse::<T> as *mut c_void,
        });
        slots.push(ffi::PyType_Slot {
            slot: ffi::Py_tp_clear,
            pfunc: clear::<T> as *mut c_void,
        });
    }
    slots
}

/// The life-cycle slots of a class whose base is native and has a life cycle of its own: the base's is continued.
pub fn extending_slots<T: Native>() -> Vec<ffi::PyType_Slot> {
    debug_assert!(T::EXTENDS);
    vec![
        ffi::PyType_Slot {
            slot: ffi::Py_tp_alloc,
            pfunc: alloc_extending::<T> as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: ffi::Py_tp_free,
            pfunc: free_extending::<T> as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: ffi::Py_tp_new,
            pfunc: tp_new::<T> as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: ffi::Py_tp_dealloc,
            pfunc: dealloc_extending::<T> as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: ffi::Py_tp_traverse,
            pfunc: traverse_extending::<T> as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: ffi::Py_tp_clear,
            pfunc: clear_extending::<T> as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: ffi::Py_tp_finalize,
            pfunc: finalize_extending::<T> as *mut c_void,
        },
    ]
}

/// Whether the word before an object is where the collector marks it as finalized.
static MARK_IS_KNOWN: AtomicBool = AtomicBool::new(false);

/// The bit of that word which is the mark.
const FINALIZED: usize = 1;

/// The word in which the collector keeps its marks of an object.
///
/// # Safety
/// `object` is of a collected type.
unsafe fn marks(object: *mut ffi::PyObject) -> *mut usize {
    // SAFETY: such objects have the collector's two words before them.
    unsafe { object.cast::<usize>().sub(1) }
}

/// Looks where the collector marks finalized objects. Where that is not as described, what extends native classes is not
/// used again.
///
/// # Errors
/// What making a future raises.
pub fn verify(future_type: &Bound<'_, PyType>) -> PyResult<()> {
    let object = future_type.call_method1("__new__", (future_type,))?;
    // SAFETY: a live object of a collected type, which nobody else knows; uninitialised futures have no last words.
    unsafe {
        let before = *marks(object.as_ptr());
        let is_marked = ffi::PyObject_GC_IsFinalized(object.as_ptr()) != 0;
        ffi::PyObject_CallFinalizer(object.as_ptr());
        let after = *marks(object.as_ptr());
        let was_marked = ffi::PyObject_GC_IsFinalized(object.as_ptr()) != 0;
        MARK_IS_KNOWN.store(
            !is_marked && was_marked && before ^ after == FINALIZED,
            Ordering::Relaxed,
        );
    }
    Ok(())
}

/// `tp_alloc` of a class that keeps dead instances: one of them, emptied, or fresh memory.
unsafe extern "C" fn alloc_extending<T: Native>(
    ty: *mut ffi::PyTypeObject,
    items: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    let class = T::class();
    // SAFETY: called by Python with a type that inherits from the class. A dead instance is of exactly the class, so its
    // memory has the size that is zeroed here; what `CPython` keeps before the object, its dealloc has cleared.
    unsafe {
        if ptr::eq(ty, class.as_type_ptr())
            && let Some(Dead(object)) = class.dead.with(Python::assume_attached(), Vec::pop)
        {
            let head = size_of::<ffi::PyObject>();
            let size = (*ty).tp_basicsize.cast_unsigned() - head;
            ptr::write_bytes(object.byte_add(head).cast::<u8>(), 0, size);
            ffi::Py_INCREF(ty.cast());
            _Py_NewReference(object);
            ffi::PyObject_GC_Track(object.cast());
            return object;
        }
        ffi::PyType_GenericAlloc(ty, items)
    }
}

/// `tp_free` of a class that keeps dead instances, which its base's dealloc calls last.
unsafe extern "C" fn free_extending<T: Native>(object: *mut c_void) {
    let class = T::class();
    // SAFETY: called by Python with an instance that is cleared and untracked, but still has its type. Python finalizes an
    // object once, and marks it; the next one in this memory has not been.
    unsafe {
        let instance = object.cast::<ffi::PyObject>();
        if MARK_IS_KNOWN.load(Ordering::Relaxed)
            && ptr::eq(ffi::Py_TYPE(instance), class.as_type_ptr())
            && class.dead.with(Python::assume_attached(), |dead| {
                let room = dead.len() < T::RECYCLED;
                if room {
                    dead.push(Dead(instance));
                }
                room
            })
        {
            *marks(instance) &= !FINALIZED;
            return;
        }
        ffi::PyObject_GC_Del(object);
    }
}

/// The deallocation slot of the class `E` that shares the Rust value of its base `T`.
pub fn dealloc_slot<T: Native, E: Native>() -> ffi::PyType_Slot {
    ffi::PyType_Slot {
        slot: ffi::Py_tp_dealloc,
        pfunc: dealloc::<T, E> as *mut c_void,
    }
}

unsafe extern "C" fn tp_new<T: Native>(
    ty: *mut ffi::PyTypeObject,
    _: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: Python passes a type that inherits from the class.
    unsafe {
        guard(ptr::null_mut(), |py| {
            if (*ty).tp_flags & ffi::Py_TPFLAGS_IS_ABSTRACT != 0 {
                return Err(abstract_error(py, ty));
            }
            T::class().allocate(py, ty).map(Bound::into_ptr)
        })
    }
}

/// What `object.__new__` says about a class with abstract methods.
///
/// # Safety
/// `ty` is such a class.
#[cold]
unsafe fn abstract_error(py: Python<'_>, ty: *mut ffi::PyTypeObject) -> PyErr {
    // SAFETY: promised by the caller; `object` has this function, which needs no arguments and raises.
    unsafe {
        if let Some(new) = ffi::PyBaseObject_Type.tp_new {
            let arguments = PyTuple::empty(py);
            drop(Bound::from_owned_ptr_or_opt(
                py,
                new(ty, arguments.as_ptr(), ptr::null_mut()),
            ));
        }
    }
    PyErr::fetch(py)
}

/// The words that a Python base's `__slots__` occupy, between the object's head and the Rust value.
///
/// # Safety
/// `object` is an instance of a class made by [`class_slots`].
unsafe fn inherited_slots<'a, T: Native>(object: *mut ffi::PyObject) -> &'a [Slot] {
    let head = size_of::<ffi::PyObject>();
    let count = (T::class().base_size.load(Ordering::Relaxed) - head) / size_of::<Slot>();
    // SAFETY: such a base stores nullable owned references there and nothing else.
    unsafe { std::slice::from_raw_parts(object.byte_add(head).cast::<Slot>(), count) }
}

/// Whether dead instances of the subclass that [`Class::expect`](super::Class::expect) has named can be used again: from
/// Python 3.13 on, its part of the deallocation leaves no stale pointers to the instance's attributes behind.
const KEEPS_SUBCLASSES: bool = cfg!(Py_3_13);

/// Calls the finalizer of an object that is about to be freed, and answers whether somebody holds the object since.
/// That one has to be known to the collector, be it that it was hidden until now.
///
/// # Safety
/// `object` has lost its last reference, and its type has a finalizer; called by its deallocation.
#[cold]
unsafe fn revives(object: *mut ffi::PyObject) -> bool {
    // SAFETY: promised by the caller; its references are all in place still. Entered twice it is not.
    unsafe {
        if ffi::PyObject_IS_GC(object) != 0 && ffi::PyObject_GC_IsTracked(object) == 0 {
            ffi::PyObject_GC_Track(object.cast());
        }
        ffi::PyObject_CallFinalizerFromDealloc(object) < 0
    }
}

unsafe extern "C" fn dealloc<T: Native, E: Native>(object: *mut ffi::PyObject) {
    // SAFETY: called by Python when the last reference has gone. The type is released last: instances of heap types
    // own a reference to it.
    unsafe {
        let ty = ffi::Py_TYPE(object);
        if ptr::eq(ty, T::class().as_type_ptr())
            && (*ty).tp_finalize.is_some()
            && T::class().value(object).wants_finalizer()
            && revives(object)
        {
            return;
        }
        if T::COLLECTED {
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        let weak_references = (*T::class().as_type_ptr()).tp_weaklistoffset;
        if weak_references > 0
            && !(*object
                .byte_offset(weak_references)
                .cast::<*mut ffi::PyObject>())
            .is_null()
        {
            ffi::PyObject_ClearWeakRefs(object);
        }
        for slot in inherited_slots::<T>(object) {
            slot.clear();
        }
        T::class().drop_value(object);
        // Python finalizes an object once: one that was cannot be used again.
        let finalized = T::COLLECTED && ffi::PyObject_GC_IsFinalized(object) != 0;
        let list = if ptr::eq(ty, E::class().as_type_ptr()) {
            Some(&E::class().dead)
        } else if KEEPS_SUBCLASSES && ptr::eq(ty, T::class().usual.load(Ordering::Relaxed)) {
            Some(&T::class().dead_usual)
        } else {
            None
        };
        if let Some(list) = list
            && T::RECYCLED > 0
            && !finalized
        {
            let kept = list.with(Python::assume_attached(), |dead| {
                let room = dead.len() < T::RECYCLED;
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

unsafe extern "C" fn traverse<T: Native>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    let visit = Visit { visit, arg };
    // SAFETY: called by the collector with a live instance; nothing here runs Python code.
    unsafe {
        let ty = visit.pointer(ffi::Py_TYPE(object).cast());
        if ty != 0 {
            return ty;
        }
        for slot in inherited_slots::<T>(object) {
            let answer = visit.slot(slot);
            if answer != 0 {
                return answer;
            }
        }
        T::class().value(object).traverse(visit)
    }
}

unsafe extern "C" fn clear<T: Native>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the collector with a live instance.
    unsafe {
        for slot in inherited_slots::<T>(object) {
            slot.clear();
        }
        T::class().value(object).clear(Python::assume_attached());
    }
    0
}

/// The base that has the life cycle of its own.
///
/// # Safety
/// The class has been made.
unsafe fn native_base<T: Native>() -> *mut ffi::PyTypeObject {
    // SAFETY: a made class has a base.
    unsafe { (*T::class().as_type_ptr()).tp_base }
}

unsafe extern "C" fn finalize_extending<T: Native>(object: *mut ffi::PyObject) {
    // SAFETY: called by Python with an instance that it is about to free; all such classes extend asyncio's futures. The
    // base's function takes for granted that the instance was initialised, which a subclass may have left out.
    unsafe {
        if super::base::is_initialised(object)
            && let Some(finalize) = (*native_base::<T>()).tp_finalize
        {
            finalize(object);
        }
    }
}

/// Lets the garbage collector see an object; without effect where it does or cannot.
#[inline]
pub fn track(object: &Bound<'_, PyAny>) {
    // SAFETY: a live object, whose references are all in place; looked at before it is entered twice.
    unsafe {
        if ffi::PyObject_IS_GC(object.as_ptr()) != 0
            && ffi::PyObject_GC_IsTracked(object.as_ptr()) == 0
        {
            ffi::PyObject_GC_Track(object.as_ptr().cast());
        }
    }
}

/// Whether an object's finalizer has run, so that Python will not call it again.
pub fn is_finalized(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object, looked at for being of a collected type first.
    unsafe {
        ffi::PyObject_IS_GC(object.as_ptr()) != 0
            && ffi::PyObject_GC_IsFinalized(object.as_ptr()) != 0
    }
}

/// Hides an object from the garbage collector, which takes all that it refers to for alive then.
#[inline]
pub fn untrack(object: &Bound<'_, PyAny>) {
    // SAFETY: a live object of a collected type, as is looked at here; without effect where it is not tracked.
    unsafe {
        if ffi::PyObject_IS_GC(object.as_ptr()) != 0 {
            ffi::PyObject_GC_UnTrack(object.as_ptr().cast());
        }
    }
}

unsafe extern "C" fn dealloc_extending<T: Native>(object: *mut ffi::PyObject) {
    // SAFETY: as in `dealloc`. The base's function clears its part, frees the memory and, where it is a heap type
    // (from Python 3.12), releases the type; a static base does not know about ours.
    unsafe {
        let ty = ffi::Py_TYPE(object);
        if ptr::eq(ty, T::class().as_type_ptr())
            && super::base::has_last_words(object)
            && revives(object)
        {
            return;
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        T::class().drop_value(object);
        let base = native_base::<T>();
        let dealloc = (*base).tp_dealloc.unwrap_unchecked();
        let static_base = (*base).tp_flags & ffi::Py_TPFLAGS_HEAPTYPE == 0;
        dealloc(object);
        if static_base {
            ffi::Py_DECREF(ty.cast());
        }
    }
}

unsafe extern "C" fn traverse_extending<T: Native>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: as in `traverse`. A static base's function does not visit the type, a heap type's does.
    unsafe {
        let base = native_base::<T>();
        if (*base).tp_flags & ffi::Py_TPFLAGS_HEAPTYPE == 0 {
            let answer = visit(ffi::Py_TYPE(object).cast(), arg);
            if answer != 0 {
                return answer;
            }
        }
        if let Some(traverse) = (*base).tp_traverse {
            let answer = traverse(object, visit, arg);
            if answer != 0 {
                return answer;
            }
        }
        T::class().value(object).traverse(Visit { visit, arg })
    }
}

unsafe extern "C" fn clear_extending<T: Native>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: as in `clear`.
    unsafe {
        T::class().value(object).clear(Python::assume_attached());
        (*native_base::<T>())
            .tp_clear
            .map_or(0, |clear| clear(object))
    }
}
