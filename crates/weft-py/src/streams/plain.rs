//! Whether a class leaves to native code what native code does by itself.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyType};

use crate::ffi::coroutine_function::behind;
use crate::ffi::object::class_version;

/// A native class, and those of its attributes that native code goes past.
#[derive(Debug)]
pub(super) struct Hooks {
    /// The attributes.
    pub names: &'static [&'static str],
    /// The version of a class that has been found to override none of them.
    known: AtomicU32,
}

/// What was found for an object, as long as its class is what it was.
#[derive(Debug, Default)]
pub(super) struct Plainness {
    version: Cell<u32>,
    holds: Cell<bool>,
}

impl Hooks {
    pub(super) const fn new(names: &'static [&'static str]) -> Self {
        Self {
            names,
            known: AtomicU32::new(0),
        }
    }

    /// Whether the class of `object` has each attribute from `native`, or else from `stock`, asyncio's class.
    #[inline]
    pub(super) fn are_ours<'py>(
        &self,
        object: &Bound<'py, PyAny>,
        found: &Plainness,
        native: impl FnOnce() -> Bound<'py, PyType>,
        stock: &Py<PyAny>,
    ) -> bool {
        let version = class_version(object);
        if version != 0 && version == found.version.get() {
            return found.holds.get();
        }
        if version != 0 && version == self.known.load(Ordering::Relaxed) {
            found.version.set(version);
            found.holds.set(true);
            return true;
        }
        self.look(object, found, &native(), stock)
    }

    #[cold]
    fn look(
        &self,
        object: &Bound<'_, PyAny>,
        found: &Plainness,
        native: &Bound<'_, PyType>,
        stock: &Py<PyAny>,
    ) -> bool {
        let class = object.get_type();
        let stock = stock.bind(object.py());
        let holds = self.names.iter().all(|name| {
            let (Ok(Some(own)), Ok(native)) = (class.getattr_opt(*name), native.getattr_opt(*name))
            else {
                return false;
            };
            match native {
                Some(native) => behind(own).is(&native),
                None => stock.getattr(*name).is_ok_and(|stock| own.is(&stock)),
            }
        });
        // Looking has given the class a version, if it had none.
        let version = class_version(object);
        found.version.set(version);
        found.holds.set(holds);
        if holds {
            self.known.store(version, Ordering::Relaxed);
        }
        holds
    }
}
