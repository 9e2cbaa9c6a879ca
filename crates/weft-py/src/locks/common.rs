//! What all primitives have: who waits, the loop, and the attributes that programs may add.

use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString};
use pyo3::{Borrowed, intern};

use super::waiters::Waiters;
use crate::ffi::call::{call0, call1};
use crate::ffi::class::Description;
use crate::ffi::coroutine_function::receiver_of_method;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::Returned;
use crate::ffi::object::{class_version, function_of_entry, receiver_of_builtin};
use crate::ffi::{Native, Slot, Visit};
use crate::operations::bound_loop;

/// State that all primitives have.
#[derive(Debug, Default)]
pub struct Common {
    /// Who waits.
    pub waiters: Waiters,
    /// The loop that the primitive was first waited for on.
    pub event_loop: Slot,
    /// The instance's dictionary; empty until something is stored in it.
    pub dictionary: Slot,
    weak_references: Slot,
}

impl Common {
    /// Puts a new future of the running loop at the end of the queue.
    ///
    /// # Errors
    /// `RuntimeError` where `object` belongs to another loop.
    #[inline]
    pub fn enqueue<'py>(&self, object: &Bound<'py, PyAny>) -> Returned<'py> {
        self.waiters.enter(&bound_loop(object, &self.event_loop)?)
    }

    /// Reports what it owns to the garbage collector.
    pub fn traverse(&self, visit: Visit) -> c_int {
        match self.waiters.traverse(visit) {
            0 => visit.slots([&self.event_loop, &self.dictionary]),
            answer => answer,
        }
    }

    /// Drops what it owns.
    pub fn clear(&self) {
        self.waiters.clear();
        self.event_loop.clear();
        self.dictionary.clear();
    }
}

/// A class of primitives.
pub trait Primitive: Native {
    /// The place of [`Common`] in its instances.
    const COMMON: usize;

    /// What all primitives have.
    fn common(&self) -> &Common;
}

/// What the native class of a primitive consists of.
pub fn description<P: Primitive>(
    methods: Vec<ffi::PyMethodDef>,
    properties: Vec<ffi::PyGetSetDef>,
    init: Option<ffi::PyType_Slot>,
    doc: &'static CStr,
) -> Description {
    let mut slots = class_slots::<P>();
    slots.extend(init);
    Description {
        methods,
        properties,
        slots,
        doc: Some(doc),
        instantiable: true,
        subclassable: true,
        immutable: true,
        weak_references: Some(P::COMMON + std::mem::offset_of!(Common, weak_references)),
        dictionary: Some(P::COMMON + std::mem::offset_of!(Common, dictionary)),
        ..Description::default()
    }
}

/// The properties of a class of primitives: its own, and what asyncio's code reads of [`Common`].
macro_rules! properties {
    ($primitive:ty, $($own:expr),* $(,)?) => {
        vec![
            $($own,)*
            $crate::property!("_waiters" => $crate::locks::common::get_waiters::<$primitive>, $crate::locks::common::set_waiters::<$primitive>),
            $crate::property!("_loop" => $crate::locks::common::get_loop::<$primitive>, $crate::locks::common::set_loop::<$primitive>),
        ]
    };
}
pub(super) use properties;

/// `_waiters`.
///
/// # Errors
/// `MemoryError`.
pub fn get_waiters<'py, P: Primitive>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    P::class().of(object).common().waiters.show(object.py())
}

/// Sets `_waiters`.
///
/// # Errors
/// `AttributeError` where it would be deleted.
pub fn set_waiters<P: Primitive>(
    object: &Bound<'_, PyAny>,
    value: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<()> {
    P::class().of(object).common().waiters.replace(value)
}

/// `_loop`.
///
/// # Errors
/// None.
pub fn get_loop<'py, P: Primitive>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let event_loop = &P::class().of(object).common().event_loop;
    Ok(event_loop.get_or_none(object.py()))
}

/// Sets `_loop`.
///
/// # Errors
/// None.
pub fn set_loop<P: Primitive>(
    object: &Bound<'_, PyAny>,
    value: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<()> {
    let event_loop = &P::class().of(object).common().event_loop;
    match value {
        Some(value) if !value.is_none() => event_loop.set(value.to_owned()),
        _ => event_loop.clear(),
    }
    Ok(())
}

/// A native method, to be recognised where Python code may have put another one in its place.
#[derive(Debug, Default)]
pub struct Known(AtomicUsize);

impl Known {
    /// Not known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Remembers the function behind a table entry.
    #[must_use]
    pub fn entry(&self, entry: ffi::PyMethodDef) -> ffi::PyMethodDef {
        self.0.store(function_of_entry(&entry), Ordering::Relaxed);
        entry
    }

    /// What `method` is bound to, if it is this one.
    #[inline]
    pub fn receiver<'py>(&self, method: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        let address = self.0.load(Ordering::Relaxed);
        receiver_of_method(method, address).or_else(|| receiver_of_builtin(method, address))
    }

    /// `object.name`, or `None` where that is this very method.
    ///
    /// # Errors
    /// What looking it up raises.
    #[inline]
    pub fn replacement<'py>(
        &self,
        object: &Bound<'py, PyAny>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let method = object.getattr(name)?;
        let own = self
            .receiver(&method)
            .is_some_and(|receiver| receiver.is(object));
        Ok(if own { None } else { Some(method) })
    }
}

/// Whether `async with` may do natively what its class's `acquire` and `release` do.
#[derive(Debug, Default)]
pub struct Trust {
    /// `acquire` of the class.
    pub acquire: Known,
    /// `release` of the class.
    pub release: Known,
    /// The version of a class that had both.
    version: AtomicU32,
}

impl Trust {
    /// No class is trusted yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            acquire: Known::new(),
            release: Known::new(),
            version: AtomicU32::new(0),
        }
    }

    /// Whether both methods of `object`, whose dictionary is given, are the native ones.
    ///
    /// # Errors
    /// What looking them up raises.
    #[inline]
    pub fn holds(&self, object: &Bound<'_, PyAny>, dictionary: &Slot) -> PyResult<bool> {
        let version = class_version(object);
        if version != 0 && version == self.version.load(Ordering::Relaxed) && !dictionary.is_set() {
            return Ok(true);
        }
        self.look(object, dictionary)
    }

    fn look(&self, object: &Bound<'_, PyAny>, dictionary: &Slot) -> PyResult<bool> {
        let py = object.py();
        let replaced = self
            .acquire
            .replacement(object, intern!(py, "acquire"))?
            .is_some()
            || self
                .release
                .replacement(object, intern!(py, "release"))?
                .is_some();
        if !replaced && !dictionary.is_set() {
            self.version.store(class_version(object), Ordering::Relaxed);
        }
        Ok(!replaced)
    }
}

/// `object.name()`, and what it is bound to where it is the native method `known`.
#[derive(Debug)]
pub enum Found<'py> {
    /// The native method of this object.
    Native(Bound<'py, PyAny>),
    /// Something else to be called.
    Foreign(Bound<'py, PyAny>),
}

/// Looks `object.name` up.
///
/// # Errors
/// What looking it up raises.
#[inline]
pub fn find<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    known: &Known,
) -> PyResult<Found<'py>> {
    let method = object.getattr(name)?;
    Ok(match known.receiver(&method) {
        Some(receiver) => Found::Native(receiver),
        None => Found::Foreign(method),
    })
}

/// `object.name()`, by `native` where the method is the native one.
///
/// # Errors
/// What the method raises.
#[inline]
pub fn call_found<'py>(
    found: &Found<'py>,
    native: impl FnOnce(&Bound<'py, PyAny>) -> Returned<'py>,
) -> Returned<'py> {
    match found {
        Found::Native(receiver) => native(receiver),
        Found::Foreign(method) => call0(method),
    }
}

/// `function(object)`, for methods of asyncio's that stand in for native ones.
///
/// # Errors
/// What the function raises.
pub fn inherited<'py>(function: &Py<PyAny>, object: &Bound<'py, PyAny>) -> Returned<'py> {
    call1(function.bind(object.py()), object)
}
