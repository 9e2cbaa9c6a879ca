//! Python classes whose instances carry a Rust value behind the memory of a base class.
//!
//! Invariant: an instance of a [`Class<T>`] (or of a subclass) holds a valid `T` at `Class::offset` from the
//! moment `tp_new` returns until `tp_dealloc` drops it. `T` is a bundle of cells, reached by shared reference.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyTuple, PyType};

use super::state::GilCell;
use super::{Reference, Slot};

/// Visits references on behalf of the garbage collector.
#[derive(Clone, Copy)]
pub struct Visit {
    pub(super) visit: ffi::visitproc,
    pub(super) arg: *mut c_void,
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Visit")
    }
}

impl Visit {
    /// Reports one slot. A non-zero answer must be returned at once.
    #[inline]
    pub fn slot(self, slot: &Slot) -> c_int {
        self.pointer(slot.as_ptr())
    }

    /// Reports several slots.
    #[inline]
    pub fn slots<'a>(self, slots: impl IntoIterator<Item = &'a Slot>) -> c_int {
        for slot in slots {
            let answer = self.slot(slot);
            if answer != 0 {
                return answer;
            }
        }
        0
    }

    /// Reports one reference.
    #[inline]
    pub fn object(self, object: &Reference) -> c_int {
        self.pointer(object.as_ptr())
    }

    /// Proof of the GIL, which the collector holds. Only for looking: no Python code may run during a traversal.
    #[inline]
    pub fn python(self) -> Python<'static> {
        // SAFETY: a `Visit` exists only inside `tp_traverse`.
        unsafe { Python::assume_attached() }
    }

    pub(super) fn pointer(self, pointer: *mut ffi::PyObject) -> c_int {
        if pointer.is_null() {
            return 0;
        }
        // SAFETY: called by the collector's traversal, with a live object.
        unsafe { (self.visit)(pointer, self.arg) }
    }
}

/// The Rust part of a native class.
pub trait Native: Default + 'static {
    /// The class whose instances have it.
    fn class() -> &'static Class<Self>;

    /// Whether instances take part in cyclic garbage collection.
    const COLLECTED: bool = true;

    /// How many dead instances are kept to be used again.
    const RECYCLED: usize = 0;

    /// Whether an instance whose memory is used again stays unknown to the collector until [`super::object::track`].
    const TRACKED_LATE: bool = false;
    /// Whether the class extends a native one, as [`extending_slots`](super::lifecycle::extending_slots) do.
    const EXTENDS: bool = false;

    /// Whether an instance that is about to be freed has to be given to its class's `tp_finalize` first.
    #[inline]
    fn wants_finalizer(&self) -> bool {
        true
    }

    /// Reports every reference that the value owns; stops at the first non-zero answer.
    fn traverse(&self, visit: Visit) -> c_int {
        let _ = visit;
        0
    }

    /// Drops the references that may form cycles.
    fn clear(&self, py: Python<'_>) {
        let _ = py;
    }
}

/// A class made at import, with the place of its Rust value.
pub struct Class<T> {
    ty: AtomicPtr<ffi::PyTypeObject>,
    offset: AtomicUsize,
    pub(super) base_size: AtomicUsize,
    pub(super) dead: GilCell<Vec<Dead>>,
    /// The subclass that [`Self::expect`] has named …
    pub(super) usual: AtomicPtr<ffi::PyTypeObject>,
    /// … and dead instances of exactly it.
    pub(super) dead_usual: GilCell<Vec<Dead>>,
    value: PhantomData<fn() -> T>,
}

/// The memory of a dead instance of exactly one class: its type is still in place, and the reference to that unless the
/// class extends a native one; its Rust value is dropped, nothing refers to it, the collector does not know it.
pub(super) struct Dead(pub(super) *mut ffi::PyObject);

// SAFETY: only touched with the GIL held.
unsafe impl Send for Dead {}

unsafe extern "C" {
    /// Makes dead memory an object with one reference again, in every build of `CPython`.
    pub(super) fn _Py_NewReference(object: *mut ffi::PyObject);
}

impl<T> std::fmt::Debug for Class<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Class({:p})", self.ty.load(Ordering::Relaxed))
    }
}

/// What a class is made of, beside its Rust value.
#[derive(Default)]
#[expect(missing_debug_implementations, reason = "tables of C structures")]
#[expect(clippy::struct_excessive_bools, reason = "flags of a type")]
pub struct Description {
    /// Method table.
    pub methods: Vec<ffi::PyMethodDef>,
    /// Property table.
    pub properties: Vec<ffi::PyGetSetDef>,
    /// Further type slots.
    pub slots: Vec<ffi::PyType_Slot>,
    /// Documentation.
    pub doc: Option<&'static CStr>,
    /// A further base that adds nothing to the memory of instances.
    pub mixin: Option<Py<PyType>>,
    /// Whether Python code may call the class.
    pub instantiable: bool,
    /// Whether Python code may subclass it.
    pub subclassable: bool,
    /// Whether the class's attributes are fixed, as those of builtin classes are.
    pub immutable: bool,
    /// Offset, in `T`, of a [`Slot`] for weak references.
    pub weak_references: Option<usize>,
    /// Offset, in `T`, of a [`Slot`] for the instance dictionary.
    pub dictionary: Option<usize>,
    /// Offset, in `T`, of the function that calls an instance (`Cell<Option<vectorcallfunc>>`).
    pub vectorcall: Option<usize>,
    /// Whether instances that are attributes of a class are its methods: called with the object first.
    pub method_descriptor: bool,
}

impl Description {
    /// The members by which `CPython` finds weak references, the instance dictionary and what to call behind `offset`.
    fn members(&self, offset: usize) -> Vec<ffi::PyMemberDef> {
        [
            (c"__weaklistoffset__", self.weak_references),
            (c"__dictoffset__", self.dictionary),
            (c"__vectorcalloffset__", self.vectorcall),
        ]
        .into_iter()
        .filter_map(|(name, place)| {
            Some(ffi::PyMemberDef {
                name: name.as_ptr(),
                type_code: ffi::Py_T_PYSSIZET,
                offset: (offset + place?).cast_signed(),
                flags: ffi::Py_READONLY,
                doc: ptr::null(),
            })
        })
        .collect()
    }
}

impl<T> Default for Class<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Class<T> {
    /// A class that is not made yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ty: AtomicPtr::new(ptr::null_mut()),
            offset: AtomicUsize::new(0),
            base_size: AtomicUsize::new(0),
            dead: GilCell::new(Vec::new()),
            dead_usual: GilCell::new(Vec::new()),
            usual: AtomicPtr::new(ptr::null_mut()),
            value: PhantomData,
        }
    }

    /// The type object.
    #[inline]
    pub fn as_type_ptr(&self) -> *mut ffi::PyTypeObject {
        self.ty.load(Ordering::Relaxed)
    }

    /// The type object as a Python value.
    pub fn type_object<'py>(&self, py: Python<'py>) -> Bound<'py, PyType> {
        // SAFETY: the class is made at import and never freed.
        unsafe { Bound::from_borrowed_ptr(py, self.as_type_ptr().cast()).cast_into_unchecked() }
    }

    /// Whether `object` is of exactly this class.
    #[inline]
    pub fn is_exact(&self, object: &Bound<'_, PyAny>) -> bool {
        super::object::is_exactly(object, self.as_type_ptr())
    }

    /// Whether `object` is an instance of this class or of a subclass.
    #[inline]
    pub fn is_instance(&self, object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: two live types.
        unsafe {
            let ty = ffi::Py_TYPE(object.as_ptr());
            ptr::eq(ty, self.as_type_ptr())
                || ptr::eq(ty, self.usual.load(Ordering::Relaxed))
                || ffi::PyType_IsSubtype(ty, self.as_type_ptr()) != 0
        }
    }

    /// Makes the check of instances of `subclass`, the one that is used, as quick as that of exact instances.
    pub fn expect(&self, subclass: &Bound<'_, PyType>) {
        if self.usual.load(Ordering::Relaxed).is_null()
            && subclass
                .is_subclass(&self.type_object(subclass.py()))
                .unwrap_or(false)
        {
            // Never freed from here on, so that its address stays its own.
            let usual = subclass.clone().into_ptr();
            self.usual.store(usual.cast(), Ordering::Relaxed);
        }
    }

    /// The Rust value of an instance, or `None` where `object` is none.
    #[inline]
    pub fn get<'a>(&self, object: &'a Bound<'_, PyAny>) -> Option<&'a T> {
        if self.is_instance(object) {
            // SAFETY: an instance, which the reference keeps alive; see the invariant above.
            Some(unsafe { self.value(object.as_ptr()) })
        } else {
            None
        }
    }

    /// The Rust value of an instance of exactly this class.
    #[inline]
    pub fn get_exact<'a>(&self, object: &'a Bound<'_, PyAny>) -> Option<&'a T> {
        if self.is_exact(object) {
            // SAFETY: as above.
            Some(unsafe { self.value(object.as_ptr()) })
        } else {
            None
        }
    }

    /// The Rust value of the receiver of a method of this class: its type is known.
    ///
    /// # Panics
    /// In debug builds, where the receiver is of another class.
    #[inline]
    pub fn of<'a>(&self, receiver: &'a Bound<'_, PyAny>) -> &'a T {
        debug_assert!(self.is_instance(receiver));
        // SAFETY: method descriptors check their receiver before they call, and only methods of this class (and code
        // that has just checked) use this accessor.
        unsafe { self.value(receiver.as_ptr()) }
    }

    #[inline]
    pub(super) unsafe fn value<'a>(&self, object: *mut ffi::PyObject) -> &'a T {
        // SAFETY: promised by the caller: an instance, alive for 'a.
        unsafe {
            &*object
                .byte_add(self.offset.load(Ordering::Relaxed))
                .cast::<T>()
        }
    }
}

impl<T: Native> Class<T> {
    /// Makes the class; its slots, unless described otherwise, keep the invariant above.
    ///
    /// # Errors
    /// What Python raises while it makes a type.
    ///
    /// # Panics
    /// Where the base's instances have an odd size.
    pub fn make<'py>(
        &'static self,
        py: Python<'py>,
        name: &'static CStr,
        base: Option<&Bound<'py, PyType>>,
        mut description: Description,
    ) -> PyResult<Bound<'py, PyType>> {
        let base_size = match base {
            // SAFETY: a live type object.
            Some(base) => unsafe { (*base.as_type_ptr()).tp_basicsize },
            None => size_of::<ffi::PyObject>().cast_signed(),
        }
        .cast_unsigned();
        let align = align_of::<T>().max(align_of::<usize>());
        let offset = base_size.next_multiple_of(align);
        self.offset.store(offset, Ordering::Relaxed);
        self.base_size.store(base_size, Ordering::Relaxed);

        let mut members = description.members(offset);
        let mut slots = std::mem::take(&mut description.slots);
        let mut slot =
            |id: c_int, pfunc: *mut c_void| slots.push(ffi::PyType_Slot { slot: id, pfunc });
        if !description.methods.is_empty() {
            description.methods.push(ffi::PyMethodDef::zeroed());
            slot(
                ffi::Py_tp_methods,
                description.methods.leak().as_mut_ptr().cast(),
            );
        }
        if description.dictionary.is_some() {
            description.properties.push(ffi::PyGetSetDef {
                name: c"__dict__".as_ptr(),
                get: Some(ffi::PyObject_GenericGetDict),
                set: Some(ffi::PyObject_GenericSetDict),
                ..ffi::PyGetSetDef::default()
            });
        }
        if !description.properties.is_empty() {
            description.properties.push(ffi::PyGetSetDef::default());
            slot(
                ffi::Py_tp_getset,
                description.properties.leak().as_mut_ptr().cast(),
            );
        }
        if !members.is_empty() {
            members.push(ffi::PyMemberDef::default());
            slot(ffi::Py_tp_members, members.leak().as_mut_ptr().cast());
        }
        if description.vectorcall.is_some() {
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void);
        }
        if let Some(doc) = description.doc {
            slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast());
        }
        slots.push(ffi::PyType_Slot {
            slot: 0,
            pfunc: ptr::null_mut(),
        });

        let mut flags = ffi::Py_TPFLAGS_DEFAULT;
        if T::COLLECTED {
            flags |= ffi::Py_TPFLAGS_HAVE_GC;
        }
        if description.method_descriptor {
            flags |= ffi::Py_TPFLAGS_METHOD_DESCRIPTOR;
        }
        if description.immutable {
            flags |= ffi::Py_TPFLAGS_IMMUTABLETYPE;
        }
        if description.vectorcall.is_some() {
            flags |= ffi::Py_TPFLAGS_HAVE_VECTORCALL;
        }
        if description.subclassable {
            flags |= ffi::Py_TPFLAGS_BASETYPE;
        }
        if !description.instantiable {
            flags |= ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        }
        let mut spec = ffi::PyType_Spec {
            name: name.as_ptr(),
            basicsize: c_int::try_from(offset + size_of::<T>()).expect("a small instance"),
            itemsize: 0,
            flags: u32::try_from(flags).expect("type flags fit"),
            slots: slots.as_mut_ptr(),
        };
        let mixin = description.mixin.map(|mixin| mixin.into_bound(py));
        let bases = base
            .map(|base| {
                PyTuple::new(
                    py,
                    std::iter::once(base)
                        .chain(mixin.as_ref())
                        .collect::<Vec<_>>(),
                )
            })
            .transpose()?;
        // SAFETY: the spec and its terminated tables are valid; the tables are leaked, as types keep pointers to them.
        let ty = unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyType_FromSpecWithBases(
                    &raw mut spec,
                    bases.as_ref().map_or(ptr::null_mut(), pyo3::Bound::as_ptr),
                ),
            )?
        };
        self.ty
            .store(ty.clone().into_ptr().cast(), Ordering::Relaxed);
        ty.cast_into().map_err(PyErr::from)
    }

    /// A new instance of `ty` with a default Rust value.
    ///
    /// # Safety
    /// `ty` is this class or inherits from it.
    #[inline]
    pub(super) unsafe fn allocate<'py>(
        &self,
        py: Python<'py>,
        ty: *mut ffi::PyTypeObject,
    ) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: a live type; tp_alloc gives zeroed memory of its basicsize, where T's place is still unused.
        unsafe {
            let alloc = (*ty).tp_alloc.unwrap_or(ffi::PyType_GenericAlloc);
            let object = Bound::from_owned_ptr_or_err(py, alloc(ty, 0))?;
            let place = object
                .as_ptr()
                .byte_add(self.offset.load(Ordering::Relaxed));
            place.cast::<T>().write(T::default());
            Ok(object)
        }
    }

    /// A new instance of exactly this class.
    ///
    /// # Errors
    /// `MemoryError`.
    #[inline]
    pub fn instance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.instance_of(py, self)
    }

    /// A new instance of exactly `class`, which is this class or one that shares its Rust value.
    ///
    /// # Errors
    /// `MemoryError`.
    #[inline]
    pub fn instance_of<'py, U>(
        &self,
        py: Python<'py>,
        class: &Class<U>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(object) = self.revive(py, &class.dead) {
            return Ok(object);
        }
        // SAFETY: `class` is this class or shares its Rust value, which means that it inherits from it.
        unsafe { self.allocate(py, class.as_type_ptr()) }
    }

    /// Makes a dead instance live again.
    #[inline]
    fn revive<'py>(&self, py: Python<'py>, dead: &GilCell<Vec<Dead>>) -> Option<Bound<'py, PyAny>> {
        if T::RECYCLED == 0 || T::EXTENDS {
            return None;
        }
        let Dead(object) = dead.with(py, Vec::pop)?;
        // SAFETY: see `Dead`; the place of the Rust value is unused memory.
        unsafe {
            _Py_NewReference(object);
            object
                .byte_add(self.offset.load(Ordering::Relaxed))
                .cast::<T>()
                .write(T::default());
            if T::COLLECTED && !T::TRACKED_LATE {
                ffi::PyObject_GC_Track(object.cast());
            }
            Some(Bound::from_owned_ptr(py, object))
        }
    }

    /// A new instance of the subclass that [`Self::expect`] has named, or of this class where none was. Its `__init__` is
    /// not called.
    ///
    /// # Errors
    /// `MemoryError`.
    #[inline]
    pub fn usual_instance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let usual = self.usual.load(Ordering::Relaxed);
        if usual.is_null() {
            return self.instance(py);
        }
        if let Some(object) = self.revive(py, &self.dead_usual) {
            return Ok(object);
        }
        // SAFETY: a subclass, which is never freed.
        unsafe { self.allocate(py, usual) }
    }

    /// Whether `object` is of exactly the subclass that [`Self::expect`] has named, or of exactly this class.
    #[inline]
    pub fn is_usual(&self, object: &Bound<'_, PyAny>) -> bool {
        super::object::is_exactly(object, self.usual.load(Ordering::Relaxed))
            || self.is_exact(object)
    }

    /// Drops the Rust value of a dying instance.
    ///
    /// # Safety
    /// Called once, from `tp_dealloc`, after the collector has been told to forget the object.
    pub(super) unsafe fn drop_value(&self, object: *mut ffi::PyObject) {
        // SAFETY: see the invariant above.
        unsafe {
            ptr::drop_in_place(
                object
                    .byte_add(self.offset.load(Ordering::Relaxed))
                    .cast::<T>(),
            );
        }
    }
}
