//! What waits in the queue of a primitive: `Lock.acquire()`, `Semaphore.acquire()`, `Event.wait()`, and what
//! `async with` makes of the first two.

use std::cell::Cell;
use std::ffi::c_int;
use std::marker::PhantomData;

use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::common::{Primitive, Trust, inherited};
use super::ready::ready;
use super::waiters::truth;
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Class, Slot, Visit};
use crate::imports::imports;
use crate::operations::{self, Frame, Operation, Step};

/// A primitive that one waits for, or passes at once.
pub trait Acquired: Primitive {
    /// The name of the method that waits: `Lock.acquire`.
    const METHOD: &'static str;

    /// The class of what that returns.
    fn acquiring() -> &'static Class<Frame<Acquire<Self>>>;

    /// Whether there is nothing to wait for; takes what there is to take.
    ///
    /// # Errors
    /// What a foreign future raises.
    fn take_if_free(&self, py: Python<'_>) -> PyResult<bool>;

    /// Leaves the queue after waiting for `future`, with what is to be taken, or passes it on.
    ///
    /// # Errors
    /// What waiting has raised.
    fn waited<'py>(&self, future: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<()>;
}

/// The operation: it gives `True`, or `None` to `async with`.
#[derive(Debug)]
pub struct Acquire<P> {
    primitive: Slot,
    future: Slot,
    enters: Cell<bool>,
    kind: PhantomData<fn() -> P>,
}

impl<P> Default for Acquire<P> {
    fn default() -> Self {
        Self {
            primitive: Slot::empty(),
            future: Slot::empty(),
            enters: Cell::new(false),
            kind: PhantomData,
        }
    }
}

impl<P> Acquire<P> {
    fn done<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        if self.enters.get() {
            return Step::done(py);
        }
        Ok(Step::Done(truth(py, true)))
    }
}

impl<P: Acquired> Operation for Acquire<P> {
    const NAME: &'static str = P::METHOD;

    #[inline]
    fn class() -> &'static Class<Frame<Self>> {
        P::acquiring()
    }

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let primitive = self.primitive.get_or_none(py);
        let state = P::class().get(&primitive).ok_or_else(super::gone)?;
        if state.take_if_free(py)? {
            return self.done(py);
        }
        let future = state.common().enqueue(&primitive)?;
        self.future.set(future.clone());
        Ok(Step::Wait(future))
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        let primitive = self.primitive.get_or_none(py);
        match (P::class().get(&primitive), self.future.take(py)) {
            (Some(state), Some(future)) => state.waited(&future, outcome)?,
            _ => drop(outcome?),
        }
        self.done(py)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.primitive, &self.future])
    }

    fn clear(&self) {
        self.primitive.clear();
        self.future.clear();
    }
}

/// The method that waits.
///
/// # Errors
/// `MemoryError`.
pub fn acquire<'py, P: Acquired>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(object.py(), |acquire: &Acquire<P>| {
        acquire.primitive.fill(object.clone());
    })
}

/// Enters `async with` by the native methods.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn enter_natively<'py, P: Acquired>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    if P::class().of(object).take_if_free(py)? {
        return ready(py);
    }
    operations::operation(py, |acquire: &Acquire<P>| {
        acquire.primitive.fill(object.clone());
        acquire.enters.set(true);
    })
}

/// `__aenter__()`.
///
/// # Errors
/// What `acquire()` raises.
#[inline]
pub fn enter<'py, P: Acquired>(object: &Bound<'py, PyAny>, trust: &Trust) -> Returned<'py> {
    if trust.holds(object, &P::class().of(object).common().dictionary)? {
        return enter_natively::<P>(object);
    }
    inherited(&imports(object.py()).lock_enter, object)
}

/// `__aexit__()`; `release` is what the native method does.
///
/// # Errors
/// What `release()` raises.
#[inline]
pub fn exit<'py, P: Acquired>(
    object: &Bound<'py, PyAny>,
    args: Args<'_, 'py>,
    trust: &Trust,
    release: impl FnOnce(&P, Python<'py>) -> PyResult<()>,
) -> Returned<'py> {
    let py = object.py();
    let state = P::class().of(object);
    let plain = args.count() == 3 && !args.has_keywords();
    if plain && trust.holds(object, &state.common().dictionary)? {
        release(state, py)?;
        return ready(py);
    }
    super::inherited_exit(object, args)
}
