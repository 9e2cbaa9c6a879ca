//! What native primitives return to be awaited: `lock.acquire()`, `queue.get()`, `sleep()`.
//!
//! To Python an operation is a coroutine: it can be awaited, given to `create_task()`, stepped by any task, closed; it
//! does nothing before its first step. Inside it is a small state machine of which a primitive writes two functions:
//! [`Operation::start`], which runs at the first step, and [`Operation::resume`], which gets what the awaited thing gave.
//! Both say with a [`Step`] how it goes on. Being stepped, thrown into and closed are written here, once.
//!
//! Invariants of a [`Frame`]:
//!
//! - The functions of its operation run one at a time: re-entering a running frame raises.
//! - `awaited` is set exactly while it is suspended on a future or an iterator.
//! - A frame that is suspended when it dies is closed first, so that its operation can give back what it holds.

mod methods;
mod running;

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyStopIteration, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::ffi::base;
use crate::ffi::call::{Sent, call0, method1, send_none};
use crate::ffi::method::Returned;
use crate::ffi::object::{is_coroutine, track};
use crate::ffi::slots::Advanced;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::futures::{self};
use crate::imports::imports;
use crate::tasks::steps_natively;
pub use methods::*;
pub use running::*;

/// How an operation goes on.
#[derive(Debug)]
pub enum Step<'py> {
    /// It has ended, with this value.
    Done(Bound<'py, PyAny>),
    /// It waits for this future of the running loop.
    Wait(Bound<'py, PyAny>),
    /// It awaits this object, whatever it is.
    Await(Bound<'py, PyAny>),
    /// It gives way once, as a bare `yield` does.
    Pass,
}

impl<'py> Step<'py> {
    /// The end, with `None`.
    #[inline]
    pub fn done(py: Python<'py>) -> PyResult<Self> {
        Ok(Self::Done(py.None().into_bound(py)))
    }
}

/// The part of an operation that its primitive writes.
pub trait Operation: Default + 'static {
    /// Its qualified name: `Lock.acquire`.
    const NAME: &'static str;

    /// The class of its frames, which `operation!` makes.
    fn class() -> &'static Class<Frame<Self>>;

    /// The first step. `frame` is the object that is awaited.
    ///
    /// # Errors
    /// What the operation raises.
    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>>;

    /// The next step, with the result of what was awaited, or what it has raised. A cancellation, and the
    /// `GeneratorExit` of an operation that is given up, come as errors: they are returned after tidying up.
    ///
    /// # Errors
    /// What the operation raises.
    fn resume<'py>(&self, frame: &Bound<'py, PyAny>, outcome: Returned<'py>)
    -> PyResult<Step<'py>>;

    /// Reports every reference that it owns to the garbage collector.
    fn traverse(&self, visit: Visit) -> c_int;

    /// Drops them. Also called when it has ended.
    fn clear(&self);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    New,
    Running,
    /// Until the next step, after a bare `yield`.
    Passed,
    /// Until the future in `awaited` is done.
    Waiting,
    /// While the iterator in `awaited` goes on.
    Awaiting,
    Ended,
}

impl Phase {
    fn is_suspended(self) -> bool {
        matches!(self, Self::Passed | Self::Waiting | Self::Awaiting)
    }
}

/// What Python sees of an operation.
#[derive(Debug, Default)]
pub struct Frame<T> {
    phase: Cell<Phase>,
    awaited: Slot,
    weak_references: Slot,
    operation: T,
}

impl<T: Operation> Native for Frame<T> {
    const RECYCLED: usize = 256;
    const TRACKED_LATE: bool = true;

    fn class() -> &'static Class<Self> {
        T::class()
    }

    fn wants_finalizer(&self) -> bool {
        self.phase.get() != Phase::Ended
    }

    fn traverse(&self, visit: Visit) -> c_int {
        match visit.slot(&self.awaited) {
            0 => self.operation.traverse(visit),
            answer => answer,
        }
    }

    fn clear(&self, _: Python<'_>) {
        self.awaited.clear();
        self.operation.clear();
    }
}

impl<T: Operation> Frame<T> {
    fn end(&self) {
        self.phase.set(Phase::Ended);
        self.awaited.clear();
        self.operation.clear();
    }

    /// Goes on from `step` until the operation is suspended or has ended.
    #[inline]
    fn settle<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Advanced<'py>> {
        let py = frame.py();
        let mut step = step;
        loop {
            step = match step {
                Ok(Step::Done(value)) => {
                    self.end();
                    return Ok(Advanced::Returned(value));
                }
                Err(error) => {
                    self.end();
                    return Err(error);
                }
                Ok(Step::Pass) => {
                    self.phase.set(Phase::Passed);
                    track(frame);
                    return Ok(Advanced::Yielded(py.None().into_bound(py)));
                }
                Ok(Step::Wait(future)) if is_native(&future) => {
                    let fields = base::future(&future);
                    if fields.is_pending() {
                        fields.set_blocking(true);
                        self.awaited.set(future.clone());
                        self.phase.set(Phase::Waiting);
                        track(frame);
                        return Ok(Advanced::Yielded(future));
                    }
                    self.operation.resume(frame, result_of(&future))
                }
                Ok(Step::Wait(awaited) | Step::Await(awaited)) => {
                    match iterator_of(&awaited).map(|iterator| (send_none(&iterator), iterator)) {
                        Ok((Sent::Yielded(value), iterator)) => {
                            self.awaited.set(iterator);
                            self.phase.set(Phase::Awaiting);
                            track(frame);
                            return Ok(Advanced::Yielded(value));
                        }
                        Ok((Sent::Returned(value), _)) => self.operation.resume(frame, Ok(value)),
                        Ok((Sent::Raised(error), _)) | Err(error) => {
                            self.operation.resume(frame, Err(error))
                        }
                    }
                }
            };
        }
    }

    /// Hands `outcome` to the operation.
    fn hand<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Advanced<'py>> {
        self.awaited.clear();
        self.phase.set(Phase::Running);
        let step = self.operation.resume(frame, outcome);
        self.settle(frame, step)
    }

    /// Takes what the awaited iterator did.
    fn sent<'py>(&self, frame: &Bound<'py, PyAny>, sent: Sent<'py>) -> PyResult<Advanced<'py>> {
        match sent {
            Sent::Yielded(value) => {
                self.phase.set(Phase::Awaiting);
                Ok(Advanced::Yielded(value))
            }
            Sent::Returned(value) => self.hand(frame, Ok(value)),
            Sent::Raised(error) => self.hand(frame, Err(error)),
        }
    }
}

/// The step of an operation: what awaiting it calls.
///
/// # Errors
/// What the operation raises.
#[inline]
pub fn advance<'py, T: Operation>(object: &Bound<'py, PyAny>) -> PyResult<Advanced<'py>> {
    let py = object.py();
    let frame = T::class().of(object);
    match frame.phase.get() {
        Phase::New => {
            frame.phase.set(Phase::Running);
            let step = frame.operation.start(object);
            frame.settle(object, step)
        }
        Phase::Waiting => match frame.awaited.get(py) {
            Some(future) if !base::future(&future).is_pending() => {
                frame.hand(object, result_of(&future))
            }
            Some(_) => frame.hand(
                object,
                Err(PyRuntimeError::new_err("await wasn't used with future")),
            ),
            None => frame.hand(object, Err(abandoned())),
        },
        Phase::Passed => frame.hand(object, Ok(py.None().into_bound(py))),
        Phase::Awaiting => {
            let Some(iterator) = frame.awaited.get(py) else {
                return frame.hand(object, Err(abandoned()));
            };
            frame.phase.set(Phase::Running);
            frame.sent(object, send_none(&iterator))
        }
        phase => Err(unfit(phase)),
    }
}

/// What an operation gets that the garbage collector has cleared.
fn abandoned() -> PyErr {
    PyGeneratorExit::new_err(())
}

#[cold]
fn unfit(phase: Phase) -> PyErr {
    if phase == Phase::Running {
        PyValueError::new_err("coroutine already executing")
    } else {
        PyRuntimeError::new_err("cannot reuse already awaited coroutine")
    }
}

/// Raises `error` where the operation is suspended.
fn throw_in<'py, T: Operation>(
    object: &Bound<'py, PyAny>,
    error: PyErr,
) -> PyResult<Advanced<'py>> {
    let py = object.py();
    let frame = T::class().of(object);
    match frame.phase.get() {
        Phase::New => {
            frame.end();
            Err(error)
        }
        Phase::Awaiting => {
            let Some(iterator) = frame.awaited.get(py) else {
                return frame.hand(object, Err(error));
            };
            frame.phase.set(Phase::Running);
            if error.is_instance_of::<PyGeneratorExit>(py) {
                let closed = match iterator.getattr_opt(intern!(py, "close"))? {
                    Some(close) => call0(&close).map(drop),
                    None => Ok(()),
                };
                return frame.hand(object, Err(closed.err().unwrap_or(error)));
            }
            if iterator.getattr_opt(intern!(py, "throw"))?.is_none() {
                return frame.hand(object, Err(error));
            }
            let thrown = method1(&iterator, intern!(py, "throw"), error.value(py));
            frame.sent(object, sent_by(py, thrown))
        }
        phase if phase.is_suspended() => frame.hand(object, Err(error)),
        phase => Err(unfit(phase)),
    }
}

/// What a call of `throw()` or `send()` did, `StopIteration` taken for the end that it is.
fn sent_by<'py>(py: Python<'py>, outcome: Returned<'py>) -> Sent<'py> {
    match outcome {
        Ok(value) => Sent::Yielded(value),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            match error.value(py).getattr(intern!(py, "value")) {
                Ok(value) => Sent::Returned(value),
                Err(error) => Sent::Raised(error),
            }
        }
        Err(error) => Sent::Raised(error),
    }
}

/// Whether `object` is a future or task whose fields are our own.
#[inline]
pub fn is_native(object: &Bound<'_, PyAny>) -> bool {
    futures::is_native(object) || steps_natively(object)
}

/// The outcome of a native future that is done.
///
/// # Errors
/// What it raises.
#[inline]
pub fn result_of<'py>(future: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = future.py();
    let fields = base::future(future);
    if fields.state.get() == base::FINISHED && !fields.exception.is_set() {
        fields.set_log_traceback(false);
        return Ok(fields.result.get_or_none(py));
    }
    crate::ffi::call::call1(imports(py).future_result.bind(py), future)
}

/// What `await object` iterates over.
///
/// # Errors
/// `TypeError` where the object cannot be awaited.
fn iterator_of<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    if is_coroutine(object) {
        return Ok(object.clone());
    }
    let method = object
        .get_type()
        .getattr_opt(intern!(py, "__await__"))?
        .filter(|method| !method.is_none());
    match method {
        Some(method) => crate::ffi::call::call1(&method, object),
        // A generator that `types.coroutine()` has marked.
        None if imports(py)
            .is_awaitable
            .bind(py)
            .call1((object,))?
            .is_truthy()? =>
        {
            Ok(object.clone())
        }
        None => Err(pyo3::exceptions::PyTypeError::new_err(format!(
            "object {} can't be used in 'await' expression",
            object.get_type().name()?
        ))),
    }
}

/// A new operation, which `fill` gives its arguments.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn operation<T: Operation>(py: Python<'_>, fill: impl FnOnce(&T)) -> Returned<'_> {
    let object = T::class().instance(py)?;
    fill(&T::class().of(&object).operation);
    Ok(object)
}

/// The operation inside a frame.
#[inline]
pub fn of<'a, T: Operation>(frame: &'a Bound<'_, PyAny>) -> &'a T {
    &T::class().of(frame).operation
}
