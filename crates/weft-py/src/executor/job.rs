//! A function that a loop wants called in a thread.
//!
//! The life of a job: the loop's thread makes it, with a future that nobody completes but the loop; a worker takes it from
//! the queue, runs it, stores the outcome in it and moves it into the loop's ready queue; the loop takes the outcome out
//! and completes the future. A future that has been cancelled by the time a worker takes its job up means that the
//! function is not called at all. One that is cancelled later has its outcome dropped.
//!
//! What the function was called with is released by the worker, before the loop hears of the outcome.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::exceptions::PyAssertionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyDict, PyTuple};
use weft_reactor::Waker;

use crate::event_loop::{EVENT_LOOP, Ready, leave_task};
use crate::ffi::call::{call_tuple, call_with_keywords, call0, call1};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::Returned;
use crate::ffi::{Class, Native, Slot, Visit, base, context};
use crate::futures;
use crate::imports::imports;
use crate::{method, property};

/// What to call, with what, and in which context.
#[derive(Debug)]
pub struct Call<'py> {
    /// The function.
    pub function: Bound<'py, PyAny>,
    /// Its positional arguments, if any.
    pub arguments: Option<Bound<'py, PyTuple>>,
    /// Its keyword arguments, if any.
    pub keywords: Option<Bound<'py, PyDict>>,
    /// The context to call it in, if not the thread's own.
    pub context: Option<Bound<'py, PyAny>>,
}

impl<'py> Call<'py> {
    fn run(&self, py: Python<'py>) -> Returned<'py> {
        let Some(context) = &self.context else {
            return self.run_here(py);
        };
        context::enter(context)?;
        let outcome = self.run_here(py);
        context::exit(context)?;
        outcome
    }

    #[inline]
    fn run_here(&self, py: Python<'py>) -> Returned<'py> {
        match (&self.arguments, &self.keywords) {
            (None, None) => call0(&self.function),
            (Some(arguments), None) => call_tuple(&self.function, arguments),
            (arguments, Some(keywords)) => {
                let empty = imports(py).empty_tuple.bind(py);
                call_with_keywords(
                    &self.function,
                    arguments.as_ref().unwrap_or(empty),
                    keywords,
                )
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Outcome {
    #[default]
    None,
    Returned,
    Raised,
    /// The executor was shut down and has cancelled what had not begun.
    Cancelled,
}

/// The Rust part of a job.
#[derive(Debug, Default)]
pub struct Job {
    function: Slot,
    arguments: Slot,
    keywords: Slot,
    context: Slot,
    event_loop: Slot,
    future: Slot,
    outcome: Cell<Outcome>,
    /// What the function returned or raised.
    value: Slot,
}

/// The class of jobs.
pub static JOB: Class<Job> = Class::new();

impl Job {
    fn slots(&self) -> [&Slot; 7] {
        [
            &self.function,
            &self.arguments,
            &self.keywords,
            &self.context,
            &self.event_loop,
            &self.future,
            &self.value,
        ]
    }

    fn empty(&self) {
        for slot in self.slots() {
            slot.clear();
        }
    }

    fn take_call<'py>(&self, py: Python<'py>) -> Option<Call<'py>> {
        Some(Call {
            function: self.function.take(py)?,
            arguments: self
                .arguments
                .take(py)
                .and_then(|arguments| arguments.cast_into().ok()),
            keywords: self
                .keywords
                .take(py)
                .and_then(|keywords| keywords.cast_into().ok()),
            context: self.context.take(py),
        })
    }
}

impl Native for Job {
    const RECYCLED: usize = 64;

    fn class() -> &'static Class<Self> {
        &JOB
    }

    fn wants_finalizer(&self) -> bool {
        false
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots(self.slots())
    }

    fn clear(&self, _: Python<'_>) {
        self.empty();
    }
}

/// A job of `event_loop`, to complete `future`.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    future: &Bound<'py, PyAny>,
    call: Call<'py>,
) -> Returned<'py> {
    let object = JOB.instance(event_loop.py())?;
    let job = JOB.of(&object);
    job.event_loop.fill(event_loop.clone());
    job.future.fill(future.clone());
    job.function.fill(call.function);
    if let Some(arguments) = call.arguments {
        job.arguments.fill(arguments.into_any());
    }
    if let Some(keywords) = call.keywords {
        job.keywords.fill(keywords.into_any());
    }
    if let Some(context) = call.context {
        job.context.fill(context);
    }
    Ok(object)
}

/// Runs a job in the calling thread and hands the outcome to its loop. What is returned has to wake the loop, soon, when
/// the GIL has been given up.
pub fn run(object: &Bound<'_, PyAny>, job: &Job) -> Option<Waker> {
    let py = object.py();
    let cancelled = job
        .future
        .get(py)
        .is_none_or(|future| base::future(&future).state.get() == base::CANCELLED);
    let Some(call) = job.take_call(py).filter(|_| !cancelled) else {
        job.empty();
        return None;
    };
    let outcome = call.run(py);
    // Whatever dies with the call does so here and now.
    drop(call);
    match outcome {
        Ok(value) => {
            job.value.set(value);
            job.outcome.set(Outcome::Returned);
        }
        Err(error) => {
            job.value
                .set(error.into_value(py).into_bound(py).into_any());
            job.outcome.set(Outcome::Raised);
        }
    }
    hand_over(object, job)
}

/// Puts a job that has its outcome into its loop's ready queue.
fn hand_over(object: &Bound<'_, PyAny>, job: &Job) -> Option<Waker> {
    let event_loop = job.event_loop.get(object.py())?;
    let state = EVENT_LOOP.get(&event_loop)?;
    if state.is_closed() {
        job.empty();
        return None;
    }
    state.push(Ready::Job {
        run: deliver,
        object: object.clone().into(),
        argument: None,
    });
    state.waker_if_needed()
}

/// In the loop: completes the future of a job.
fn deliver<'py>(
    event_loop: &Bound<'py, PyAny>,
    object: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = object.py();
    let job = JOB.of(object);
    let (Some(future), value) = (job.future.take(py), job.value.take(py)) else {
        return Ok(());
    };
    let fields = base::future(&future);
    if !fields.is_pending() {
        if fields.state.get() == base::CANCELLED {
            return Ok(());
        }
        // Somebody else has completed it.
        return report(event_loop, &future, &PyAssertionError::new_err(()));
    }
    let outcome = match (job.outcome.get(), value) {
        (Outcome::Returned, Some(value)) => futures::finish(&future, value),
        (Outcome::Raised, Some(error)) => fail(&future, &error),
        _ => futures::cancel_pending(&future, None),
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => report(event_loop, &future, &error),
    }
}

fn fail<'py>(future: &Bound<'py, PyAny>, error: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = future.py();
    futures::fail(
        future,
        &call1(imports(py).convert_future_error.bind(py), error)?,
    )
}

/// Tells the loop's exception handler about an outcome that the future has refused.
#[cold]
fn report<'py>(
    event_loop: &Bound<'py, PyAny>,
    future: &Bound<'py, PyAny>,
    error: &PyErr,
) -> PyResult<()> {
    let py = event_loop.py();
    leave_task(EVENT_LOOP.of(event_loop), event_loop)?;
    let details = PyDict::new(py);
    let message = "Exception in callback of run_in_executor()";
    details.set_item(intern!(py, "message"), message)?;
    details.set_item(intern!(py, "exception"), error.value(py))?;
    details.set_item(intern!(py, "future"), future)?;
    event_loop
        .call_method1(intern!(py, "call_exception_handler"), (details,))
        .map(drop)
}

/// `future`: an executor that is shut down cancels what it had not begun by `entry.future.cancel()`.
fn itself<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(object.clone())
}

/// `cancel()`: from any thread, before a worker has taken the job up.
fn cancel<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let job = JOB.of(object);
    let call = job.take_call(py);
    let begun = call.is_none();
    if !begun {
        job.outcome.set(Outcome::Cancelled);
        drop(call);
        if let Some(waker) = hand_over(object, job) {
            waker.wake();
        }
    }
    Ok(PyBool::new(py, !begun).to_owned().into_any())
}

/// Makes the class.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(py: Python<'_>) -> PyResult<()> {
    let mut slots = class_slots::<Job>();
    // Python does not make jobs.
    slots.retain(|slot| slot.slot != pyo3::ffi::Py_tp_new);
    JOB.make(
        py,
        c"weft._weft.Job",
        None,
        Description {
            methods: vec![
                method!(none "cancel" => cancel, "Cancel a job that has not begun, and its future with it."),
            ],
            properties: vec![property!("future" => itself)],
            slots,
            immutable: true,
            ..Description::default()
        },
    )
    .map(drop)
}
