//! `Lock`.

use std::cell::Cell;
use std::ffi::c_int;
use std::mem::offset_of;

use pyo3::Borrowed;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyModule, PyTuple};

use super::common::{Common, Known, Primitive, Trust, description, inherited, properties};
use super::ready::ready;
use super::waiters::{is_cancellation, truth};
use crate::ffi::lifecycle::Owner;
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Class, Native, Slot, Visit};
use crate::imports::imports;
use crate::operations::{self, Operation, Step};
use crate::{make_operation, method, operation, property, slot};

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

impl Owner for Lock {
    type Value = Self;
    fn class() -> &'static Class<Self> {
        &LOCK
    }
}

impl Native for Lock {
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

    /// Takes the lock, unless somebody has it or waits for it.
    ///
    /// # Errors
    /// What a foreign future raises.
    #[inline]
    pub fn take_if_free(&self, py: Python<'_>) -> PyResult<bool> {
        if self.locked.get() || !self.common.waiters.all_cancelled(py)? {
            return Ok(false);
        }
        self.locked.set(true);
        Ok(true)
    }

    /// Queues for the lock. What the future gives is told to [`Self::waited`].
    ///
    /// # Errors
    /// `RuntimeError` where the lock belongs to another loop.
    #[inline]
    pub fn enqueue<'py>(&self, object: &Bound<'py, PyAny>) -> Returned<'py> {
        self.common.enqueue(object)
    }

    /// Takes the lock after waiting for `future`, or leaves the queue.
    ///
    /// # Errors
    /// What waiting has raised.
    #[inline]
    pub fn waited<'py>(&self, future: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<()> {
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

/// The state of a lock, as its methods' receivers are.
#[inline]
pub fn state<'a>(object: &'a Bound<'_, PyAny>) -> &'a Lock {
    LOCK.of(object)
}

/// `Lock.acquire()`, and what `async with lock` waits for.
#[derive(Debug, Default)]
struct Acquire {
    lock: Slot,
    future: Slot,
    enters: Cell<bool>,
}

impl Acquire {
    fn done<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        if self.enters.get() {
            return Step::done(py);
        }
        Ok(Step::Done(truth(py, true)))
    }
}

impl Operation for Acquire {
    operation!(Acquire, "Lock.acquire");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let lock = self.lock.get_or_none(py);
        let state = LOCK.get(&lock).ok_or_else(super::gone)?;
        if state.take_if_free(py)? {
            return self.done(py);
        }
        let future = state.enqueue(&lock)?;
        self.future.set(future.clone());
        Ok(Step::Wait(future))
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        let lock = self.lock.get_or_none(py);
        match (LOCK.get(&lock), self.future.take(py)) {
            (Some(state), Some(future)) => state.waited(&future, outcome)?,
            _ => drop(outcome?),
        }
        self.done(py)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.lock, &self.future])
    }

    fn clear(&self) {
        self.lock.clear();
        self.future.clear();
    }
}

/// `acquire()`.
///
/// # Errors
/// `MemoryError`.
pub fn acquire<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(object.py(), |acquire: &Acquire| {
        acquire.lock.fill(object.clone());
    })
}

fn release<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    LOCK.of(object).release(py)?;
    Ok(py.None().into_bound(py))
}

fn locked<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(truth(object.py(), LOCK.of(object).locked.get()))
}

/// Enters `async with` by the native methods.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn enter_natively<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    if LOCK.of(object).take_if_free(py)? {
        return ready(py);
    }
    operations::operation(py, |acquire: &Acquire| {
        acquire.lock.fill(object.clone());
        acquire.enters.set(true);
    })
}

fn enter<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    if TRUST.holds(object, &LOCK.of(object).common.dictionary)? {
        return enter_natively(object);
    }
    inherited(&imports(object.py()).lock_enter, object)
}

fn exit<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = object.py();
    let state = LOCK.of(object);
    if args.count() == 3 && !args.has_keywords() && TRUST.holds(object, &state.common.dictionary)? {
        state.release(py)?;
        return ready(py);
    }
    super::inherited_exit(object, args)
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
    make_operation!(py, Acquire)?;
    let class = LOCK.make(
        py,
        c"weft._weft.Lock",
        None,
        description::<Lock>(
            vec![
                TRUST.acquire.entry(method!(none "acquire" => acquire,
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
