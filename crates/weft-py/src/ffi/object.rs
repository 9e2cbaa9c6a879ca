//! Owned references stored inside objects.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyType};

/// A nullable owned reference in an object's memory, replaceable through a shared reference.
///
/// All zero bytes are an empty slot, so memory that Python has just allocated holds valid ones.
/// Invariant: the pointer is null or owns one reference, and slots live and die with the GIL held.
#[repr(transparent)]
#[derive(Debug)]
pub struct Slot(Cell<*mut ffi::PyObject>);

impl Slot {
    /// An empty slot.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Cell::new(ptr::null_mut()))
    }

    /// A slot that owns `value`.
    #[must_use]
    pub fn holding(value: Bound<'_, PyAny>) -> Self {
        Self(Cell::new(value.into_ptr()))
    }

    /// Whether anything is stored.
    #[inline]
    pub fn is_set(&self) -> bool {
        !self.0.get().is_null()
    }

    /// Whether the very object `other` is stored.
    #[inline]
    pub fn is(&self, other: &Bound<'_, PyAny>) -> bool {
        ptr::eq(self.0.get(), other.as_ptr())
    }

    /// The stored pointer, borrowed; null where empty.
    #[inline]
    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.get()
    }

    /// A new reference to what is stored.
    #[inline]
    pub fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: the pointer is null or a live object that this slot owns; the token proves the GIL.
        unsafe { Bound::from_borrowed_ptr_or_opt(py, self.0.get()) }
    }

    /// As [`Self::get`], with `None` for an empty slot.
    #[inline]
    pub fn get_or_none<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.get(py).unwrap_or_else(|| py.None().into_bound(py))
    }

    /// Moves the reference out and leaves the slot empty.
    #[inline]
    pub fn take<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let pointer = self.0.replace(ptr::null_mut());
        // SAFETY: the slot owned the reference and gives it up here.
        unsafe { Bound::from_owned_ptr_or_opt(py, pointer) }
    }

    /// Stores `value`, then drops what was there.
    #[inline]
    pub fn set(&self, value: Bound<'_, PyAny>) {
        let old = self.0.replace(value.into_ptr());
        if !old.is_null() {
            // SAFETY: the slot owned `old`; it is out of the slot before its destructor can run.
            unsafe { ffi::Py_DECREF(old) }
        }
    }

    /// Stores `value` in a slot that is known to be empty, without looking for an old one.
    #[inline]
    pub fn fill(&self, value: Bound<'_, PyAny>) {
        debug_assert!(!self.is_set());
        self.0.set(value.into_ptr());
    }

    /// Empties the slot.
    #[inline]
    pub fn clear(&self) {
        let old = self.0.replace(ptr::null_mut());
        if !old.is_null() {
            // SAFETY: as in `set`.
            unsafe { ffi::Py_DECREF(old) }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::empty()
    }
}

/// An owned reference inside native state.
///
/// Unlike [`Py`] it is released on the spot: like slots, such references live and die with the GIL held.
#[repr(transparent)]
#[derive(Debug)]
pub struct Reference(NonNull<ffi::PyObject>);

impl Reference {
    /// Takes the reference over.
    #[inline]
    pub fn new(object: Bound<'_, PyAny>) -> Self {
        // SAFETY: a `Bound` is never null.
        Self(unsafe { NonNull::new_unchecked(object.into_ptr()) })
    }

    /// A look at the object.
    #[inline]
    pub fn bind<'a, 'py>(&'a self, _py: Python<'py>) -> &'a Bound<'py, PyAny> {
        // SAFETY: `Bound` is a non-null pointer with a zero-sized token, which the argument proves; the borrow keeps the
        // reference alive and never drops it.
        unsafe { &*ptr::from_ref(&self.0).cast::<Bound<'py, PyAny>>() }
    }

    /// Gives the reference back.
    #[inline]
    pub fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        let pointer = self.0.as_ptr();
        std::mem::forget(self);
        // SAFETY: the owned reference moves into the result.
        unsafe { Bound::from_owned_ptr(py, pointer) }
    }

    /// The pointer, borrowed.
    #[inline]
    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }
}

impl From<Bound<'_, PyAny>> for Reference {
    #[inline]
    fn from(object: Bound<'_, PyAny>) -> Self {
        Self::new(object)
    }
}

impl Drop for Reference {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: owned, and released with the GIL held.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}

/// Whether `object`'s type is exactly `ty`.
#[inline]
pub fn is_exactly(object: &Bound<'_, PyAny>, ty: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: a `Bound` is a live object, and every object has a type.
    unsafe { ptr::eq(ffi::Py_TYPE(object.as_ptr()), ty) }
}

/// Tells the collector about an object of a collected class, unless it knows it.
pub fn track(object: &Bound<'_, PyAny>) {
    // SAFETY: a live object of a collected class, whose fields are valid.
    unsafe {
        if ffi::PyObject_GC_IsTracked(object.as_ptr()) == 0 {
            ffi::PyObject_GC_Track(object.as_ptr().cast());
        }
    }
}

/// The number of references to `object`.
#[inline]
pub fn reference_count(object: &Bound<'_, PyAny>) -> isize {
    // SAFETY: a `Bound` is a live object.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// The version of `object`'s class: Python gives the class another one when an attribute of it, or of a class that it
/// inherits from, is set. 0 where it has none at present.
#[inline]
pub fn class_version(object: &Bound<'_, PyAny>) -> u32 {
    // SAFETY: a `Bound` is a live object, and every object has a type.
    unsafe { (*ffi::Py_TYPE(object.as_ptr())).tp_version_tag }
}

/// The same for a class itself; 0 for what is no class.
#[inline]
pub fn version_of(class: &Bound<'_, PyAny>) -> u32 {
    match class.cast::<PyType>() {
        // SAFETY: a live class.
        Ok(class) => unsafe { (*class.as_type_ptr()).tp_version_tag },
        Err(_) => 0,
    }
}

/// The function behind `__iter__` of native coroutines, by address.
static ITER_NATIVE: AtomicUsize = AtomicUsize::new(0);

/// Makes [`is_coroutine`] know classes whose `tp_iter` is in this slot.
pub fn set_native_iter(slot: &ffi::PyType_Slot) {
    ITER_NATIVE.store(slot.pfunc.addr(), Ordering::Relaxed);
}

/// Whether `object` is a coroutine made by `async def`, or a native one.
#[inline]
pub fn is_coroutine(object: &Bound<'_, PyAny>) -> bool {
    if is_exactly(object, &raw mut ffi::PyCoro_Type) {
        return true;
    }
    // SAFETY: reads the type of a live object.
    unsafe {
        (*ffi::Py_TYPE(object.as_ptr()))
            .tp_iter
            .is_some_and(|function| function as usize == ITER_NATIVE.load(Ordering::Relaxed))
    }
}

/// Whether `==` and `hash()` of `object` are those of `object()`, which tell objects apart by identity alone.
#[inline]
pub fn is_compared_by_identity(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: reads the types of live objects.
    unsafe {
        let (ty, plain) = (
            ffi::Py_TYPE(object.as_ptr()),
            &raw mut ffi::PyBaseObject_Type,
        );
        let address = |function: Option<ffi::hashfunc>| function.map_or(0, |f| f as usize);
        let compare = |function: Option<ffi::richcmpfunc>| function.map_or(0, |f| f as usize);
        address((*ty).tp_hash) == address((*plain).tp_hash)
            && compare((*ty).tp_richcompare) == compare((*plain).tp_richcompare)
    }
}

/// Whether `object` is a generator.
pub fn is_generator(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a `Bound` is a live object; the check only reads its type.
    unsafe { ffi::PyGen_CheckExact(object.as_ptr()) != 0 }
}

/// Whether `object` is a `str`, not an instance of a subclass.
#[inline]
pub fn is_exact_string(object: &Bound<'_, PyAny>) -> bool {
    is_exactly(object, &raw mut ffi::PyUnicode_Type)
}

/// Whether `object` is a `float`, not an instance of a subclass.
#[inline]
pub fn is_exact_float(object: &Bound<'_, PyAny>) -> bool {
    is_exactly(object, &raw mut ffi::PyFloat_Type)
}

/// Whether `object` is an `int`, not an instance of a subclass.
#[inline]
pub fn is_exact_int(object: &Bound<'_, PyAny>) -> bool {
    is_exactly(object, &raw mut ffi::PyLong_Type)
}

/// Whether `object` is the integer 0, of which there is one.
#[inline]
pub fn is_zero(object: &Bound<'_, PyAny>) -> bool {
    static ZERO: AtomicUsize = AtomicUsize::new(0);
    let mut zero = ZERO.load(Ordering::Relaxed);
    if zero == 0 {
        // SAFETY: a new reference, kept for ever, or null with an error that is dropped.
        unsafe {
            zero = ffi::PyLong_FromLong(0).addr();
            ffi::PyErr_Clear();
        }
        ZERO.store(zero, Ordering::Relaxed);
    }
    object.as_ptr().addr() == zero
}

/// A number that Python gives the contents of a dictionary, another one after each change. 0 where it does not (from
/// Python 3.14 on).
#[inline]
pub fn dictionary_version(dictionary: &Bound<'_, PyDict>) -> u64 {
    #[cfg(not(Py_3_14))]
    #[allow(
        deprecated,
        reason = "still there in every version that this is built for"
    )]
    // SAFETY: reads a field of a live dictionary.
    return unsafe { (*dictionary.as_ptr().cast::<ffi::PyDictObject>()).ma_version_tag };
    #[cfg(Py_3_14)]
    {
        let _ = dictionary;
        0
    }
}

/// Whether `object` can be called.
#[inline]
pub fn is_callable(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: reads the type of a live object.
    unsafe { (*ffi::Py_TYPE(object.as_ptr())).tp_call.is_some() }
}

/// Whether `object` is a function or bound method written in C.
#[inline]
pub fn is_builtin(object: &Bound<'_, PyAny>) -> bool {
    is_exactly(object, &raw mut ffi::PyCFunction_Type)
}

/// The C function behind a table entry of convention `METH_O`, by address.
pub fn function_of_entry(entry: &ffi::PyMethodDef) -> usize {
    // SAFETY: every member of the union is one function pointer.
    unsafe { entry.ml_meth.PyCFunction as usize }
}

/// What a builtin method is bound to, where the C function at `address` is behind it.
#[inline]
pub fn receiver_of_builtin<'py>(
    object: &Bound<'py, PyAny>,
    address: usize,
) -> Option<Bound<'py, PyAny>> {
    if !is_builtin(object) {
        return None;
    }
    // SAFETY: a builtin, as was just checked; the receiver is borrowed from it, or null.
    unsafe {
        let function = ffi::PyCFunction_GetFunction(object.as_ptr())?;
        if function as usize != address {
            return None;
        }
        Bound::from_borrowed_ptr_or_opt(object.py(), ffi::PyCFunction_GetSelf(object.as_ptr()))
    }
}
