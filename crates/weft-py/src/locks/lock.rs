//! `Lock`.

use std::cell::Cell;
use std::ffi::c_int;
use std::mem::offset_of;

use pyo3::Borrowed;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyModule, PyTuple};

use super::acquiring::{self, Acquire, Acquired, acquire};
use super::common::{Common, Known, Primitive, Trust, description, properties};
use super::waiters::{is_cancellation, truth};
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Class, Native, Visit};
use crate::operations::Frame;
use crate::{make_operation, method, property, slot};

/// `Lock`.
#[derive(Debug, Default)]
pub struct Lock {
    locked: Cell<bool>,
    common: Common,
}

static LOCK: Class<Lock> = Class::new();
/// How native code recognises a lock's methods.
pub static TRUST: Trust = Trust::new();
/// And its `locked`.
pub static LOCKED: Known = Known::new();

impl Native for Lock {
    fn class() -> &'static Class<Self> {
        &LOCK
    }

    fn traverse(&self, visit: Visit) -> c_int {
        self.common.traverse(visit)
    }

    fn clear(&self, _: Python<'_>) {
        self.common.clear();
    }
}

impl Primitive for Lock {
    const COMMON: usize = offset_of!(Lock, common);

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Lock {
    /// Whether somebody has it.
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.locked.get()
    }

    /// Queues for the lock. What the future gives is told to [`Self::waited`].
    ///
    /// # Errors
    /// `RuntimeError` where the lock belongs to another loop.
    #[inline]
    pub fn enqueue<'py>(&self, object: &Bound<'py, PyAny>) -> Returned<'py> {
        self.common.enqueue(object)
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// `RuntimeError` where nobody has it.
    #[inline]
    pub fn release(&self, py: Python<'_>) -> PyResult<()> {
        if !self.locked.replace(false) {
            return Err(PyRuntimeError::new_err("Lock is not acquired."));
        }
        self.common.waiters.wake_first(py)
    }
}

impl Acquired for Lock {
    const METHOD: &'static str = "Lock.acquire";

    fn acquiring() -> &'static Class<Frame<Acquire<Self>>> {
        static CLASS: Class<Frame<Acquire<Lock>>> = Class::new();
        &CLASS
    }

    // Not while others wait for it.
    #[inline]
    fn take_if_free(&self, py: Python<'_>) -> PyResult<bool> {
        if self.locked.get() || !self.common.waiters.all_cancelled(py)? {
            return Ok(false);
        }
        self.locked.set(true);
        Ok(true)
    }

    #[inline]
    fn waited<'py>(&self, future: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<()> {
        let py = future.py();
        self.common.waiters.remove(future)?;
        if let Err(error) = outcome {
            // The lock may be free and this one the one that was to have it.
            if is_cancellation(py, &error) && !self.locked.get() {
                self.common.waiters.wake_first(py)?;
            }
            return Err(error);
        }
        self.locked.set(true);
        Ok(())
    }
}

/// The state of a lock, as its methods' receivers are.
#[inline]
pub fn state<'a>(object: &'a Bound<'_, PyAny>) -> &'a Lock {
    LOCK.of(object)
}

fn release<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    LOCK.of(object).release(py)?;
    Ok(py.None().into_bound(py))
}

fn locked<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(truth(object.py(), LOCK.of(object).locked.get()))
}

fn enter<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    acquiring::enter::<Lock>(object, &TRUST)
}

fn exit<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    acquiring::exit(object, args, &TRUST, Lock::release)
}

fn set_locked(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    let value = value.map_or(Ok(false), |value| value.is_truthy())?;
    LOCK.of(object).locked.set(value);
    Ok(())
}

/// `__init__()`.
fn init<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    if !args.is_empty() || keywords.is_some() {
        return super::inherited_init("Lock", object, args, keywords);
    }
    let state = LOCK.of(object);
    state.locked.set(false);
    state.common.waiters.reset(false);
    Ok(())
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    make_operation!(py, Acquire<Lock>)?;
    let class = LOCK.make(
        py,
        c"weft._weft.Lock",
        None,
        description::<Lock>(
            vec![
                TRUST.acquire.entry(method!(none "acquire" => acquire::<Lock>,
                    "acquire($self, /)\n--\n\nCoroutine that waits until the lock is free, takes it and returns True.")),
                TRUST.release.entry(method!(none "release" => release,
                    "release($self, /)\n--\n\nGive the lock back; wake who waits longest. Raises RuntimeError where nobody has it.")),
                LOCKED.entry(method!(none "locked" => locked, "locked($self, /)\n--\n\nReturn True if somebody has the lock.")),
                method!(none "__aenter__" => enter, "__aenter__($self, /)\n--\n\nWait for the lock and take it."),
                method!(fast "__aexit__" => exit, "__aexit__($self, exc_type, exc, tb, /)\n--\n\nGive the lock back."),
            ],
            properties!(Lock, property!("_locked" => locked, set_locked)),
            Some(slot!(init init)),
            c"Lock()\n--\n\nThe native part of weft.Lock.",
        ),
    )?;
    module.add("Lock", class)
}
