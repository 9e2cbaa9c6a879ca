//! `wait_for()`.
//!
//! From Python 3.12 on it awaits in the current task, inside a timeout. Before, it made a task of what is awaited and
//! waited for that task or the timer, whichever came first. In every version a moment that has passed already cancels
//! what is awaited and waits for its end.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::exceptions::PyTimeoutError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};

use super::deadline::seconds;
#[cfg(Py_3_12)]
use super::deadline::{Leaving, TIMEOUT};
use crate::ffi::call::method0;
use crate::ffi::callback::Callback;
use crate::ffi::method::{Args, Returned};
use crate::ffi::object::is_coroutine;
use crate::ffi::{Slot, Visit, context};
use crate::futures;
use crate::imports::imports;
use crate::operations::{
    self, Operation, Step, create_future, finish_unless_done, is_done, is_native, running_loop,
};
use crate::tasks;
use crate::{done_callback, make_operation, method, operation};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Awaits without a time limit, or inside a timeout.
    #[default]
    Awaiting,
    /// Waits for the task or the timer.
    #[cfg(not(Py_3_12))]
    Racing,
    /// Has cancelled what is awaited, because the time was up, and waits for its end.
    Expiring,
    /// Has cancelled what is awaited, because it was itself cancelled, and waits for its end.
    #[cfg(not(Py_3_12))]
    Cancelled,
}

/// `wait_for(fut, timeout)`.
#[derive(Debug, Default)]
pub struct WaitFor {
    phase: Cell<Phase>,
    awaited: Slot,
    delay: Slot,
    /// The timeout around the await; before Python 3.12 the timer.
    timeout: Slot,
    /// The future that wakes this operation when the awaited one is done.
    waiter: Slot,
    /// The cancellation that is raised when the awaited one has ended.
    cancellation: Slot,
}

impl Operation for WaitFor {
    operation!(WaitFor, "wait_for");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let awaited = self.awaited.get_or_none(py);
        let delay = self.delay.get_or_none(py);
        if !delay.is_none() && has_passed(&delay)? {
            let event_loop = running_loop(py)?;
            let future = ensure_future(&event_loop, awaited)?;
            if is_done(&future)? {
                return method0(&future, intern!(py, "result")).map(Step::Done);
            }
            self.phase.set(Phase::Expiring);
            return self.cancel_and_wait(&event_loop, &future);
        }
        self.begin(awaited, &delay)
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        match self.phase.get() {
            Phase::Awaiting => self.leave(py, outcome).map(Step::Done),
            #[cfg(not(Py_3_12))]
            Phase::Racing => self
                .raced(py, outcome)
                .or_else(|error| self.stop_timer(py).and(Err(error))),
            _ => {
                let outcome = self.ended(py, outcome);
                self.stop_timer(py)?;
                outcome.map(Step::Done)
            }
        }
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([
            &self.awaited,
            &self.delay,
            &self.timeout,
            &self.waiter,
            &self.cancellation,
        ])
    }

    fn clear(&self) {
        self.awaited.clear();
        self.delay.clear();
        self.timeout.clear();
        self.waiter.clear();
        self.cancellation.clear();
    }
}

#[cfg(Py_3_12)]
impl WaitFor {
    /// Awaits inside a timeout.
    #[inline]
    fn begin<'py>(
        &self,
        awaited: Bound<'py, PyAny>,
        delay: &Bound<'py, PyAny>,
    ) -> PyResult<Step<'py>> {
        let py = awaited.py();
        let timeout = TIMEOUT.instance(py)?;
        let deadline = TIMEOUT.of(&timeout);
        let now = deadline.begin_after(delay)?;
        let event_loop = deadline.enter(py)?;
        deadline.start(&timeout, &event_loop, now)?;
        self.timeout.set(timeout);
        Ok(Step::Await(awaited))
    }

    /// Leaves the timeout with what the await gave.
    #[inline]
    fn leave<'py>(&self, py: Python<'py>, outcome: Returned<'py>) -> Returned<'py> {
        let Some(timeout) = self.timeout.take(py) else {
            return outcome;
        };
        let deadline = TIMEOUT.of(&timeout);
        match outcome {
            Ok(value) => {
                deadline.leave(py, None)?;
                Ok(value)
            }
            Err(error) => {
                let value = error.value(py).as_any();
                let class = &error.get_type(py).into_any();
                let leaving = Leaving {
                    class,
                    error: value,
                };
                match deadline.leave(py, Some(leaving))? {
                    Some(timeout) => {
                        timeout.setattr(intern!(py, "__context__"), value)?;
                        Err(PyErr::from_value(timeout))
                    }
                    None => Err(error),
                }
            }
        }
    }

    #[expect(clippy::unused_self, reason = "Python 3.11 has something to do here")]
    fn with_context(&self, _: Python<'_>, raised: PyErr) -> PyErr {
        raised
    }

    #[expect(clippy::unused_self, reason = "Python 3.11 has something to do here")]
    fn stop_timer(&self, _: Python<'_>) -> PyResult<()> {
        Ok(())
    }
}

#[cfg(not(Py_3_12))]
impl WaitFor {
    /// Makes a task of what is awaited, and waits for it or the timer.
    fn begin<'py>(
        &self,
        awaited: Bound<'py, PyAny>,
        delay: &Bound<'py, PyAny>,
    ) -> PyResult<Step<'py>> {
        let py = awaited.py();
        let event_loop = running_loop(py)?;
        if delay.is_none() {
            return Ok(Step::Await(awaited));
        }
        let waiter = create_future(&event_loop)?;
        let none = py.None().into_bound(py);
        self.timeout.set(operations::finish_later(
            &event_loop,
            delay,
            &waiter,
            &none,
        )?);
        let future = ensure_future(&event_loop, awaited)?;
        add_release(&future, &waiter)?;
        self.awaited.set(future);
        self.waiter.set(waiter.clone());
        self.phase.set(Phase::Racing);
        Ok(Step::Wait(waiter))
    }

    #[expect(
        clippy::unused_self,
        reason = "from Python 3.12 on there is something to do here"
    )]
    fn leave<'py>(&self, _: Python<'py>, outcome: Returned<'py>) -> Returned<'py> {
        outcome
    }

    /// The task has ended, or the time is up, or this operation is cancelled.
    fn raced<'py>(&self, py: Python<'py>, outcome: Returned<'py>) -> PyResult<Step<'py>> {
        let future = self.awaited.get_or_none(py);
        let error = match outcome {
            Ok(_) => None,
            Err(error) if error.matches(py, imports(py).cancelled_error.bind(py))? => Some(error),
            Err(error) => return Err(error),
        };
        if is_done(&future)? {
            self.stop_timer(py)?;
            return match (method0(&future, intern!(py, "result")), error) {
                (Err(raised), Some(handled)) => Err(in_the_course_of(py, raised, handled)?),
                (outcome, _) => outcome.map(Step::Done),
            };
        }
        self.forget_waiter(py)?;
        self.phase.set(match error {
            None => Phase::Expiring,
            Some(error) => {
                self.cancellation
                    .set(error.into_value(py).into_bound(py).into_any());
                Phase::Cancelled
            }
        });
        self.cancel_and_wait(&running_loop(py)?, &future)
    }

    /// `raised`, where that came while the cancellation was dealt with.
    fn with_context(&self, py: Python<'_>, raised: PyErr) -> PyErr {
        match self.cancellation.take(py) {
            Some(handled) => in_the_course_of(py, raised, PyErr::from_value(handled))
                .unwrap_or_else(|error| error),
            None => raised,
        }
    }

    fn stop_timer(&self, py: Python<'_>) -> PyResult<()> {
        self.timeout
            .take(py)
            .map_or(Ok(()), |timer| operations::cancel_timer(&timer))
    }
}

impl WaitFor {
    /// Cancels `future` and waits for its end, by way of another future: this operation can be cancelled meanwhile.
    fn cancel_and_wait<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        future: &Bound<'py, PyAny>,
    ) -> PyResult<Step<'py>> {
        let py = event_loop.py();
        let waiter = create_future(event_loop)?;
        add_release(future, &waiter)?;
        self.awaited.set(future.clone());
        self.waiter.set(waiter.clone());
        if let Err(error) = method0(future, intern!(py, "cancel")) {
            self.forget_waiter(py)?;
            return Err(error);
        }
        Ok(Step::Wait(waiter))
    }

    /// What was cancelled has ended.
    fn ended<'py>(&self, py: Python<'py>, outcome: Returned<'py>) -> Returned<'py> {
        self.forget_waiter(py)?;
        if let Err(error) = outcome {
            return Err(self.with_context(py, error));
        }
        if let Some(cancellation) = self.cancellation.take(py) {
            return Err(PyErr::from_value(cancellation));
        }
        match method0(&self.awaited.get_or_none(py), intern!(py, "result")) {
            Err(error) if error.matches(py, imports(py).cancelled_error.bind(py))? => {
                let timeout = py.get_type::<PyTimeoutError>().call0()?;
                let error = error.into_value(py);
                timeout.setattr(intern!(py, "__cause__"), &error)?;
                timeout.setattr(intern!(py, "__context__"), &error)?;
                Err(PyErr::from_value(timeout))
            }
            outcome => outcome,
        }
    }

    /// Takes the waiter away from what is awaited.
    fn forget_waiter(&self, py: Python<'_>) -> PyResult<()> {
        match (self.awaited.get(py), self.waiter.take(py)) {
            (Some(future), Some(waiter)) => {
                futures::remove_callback(&future, &RELEASE.bind(&waiter)?)
            }
            _ => Ok(()),
        }
    }
}

/// `raised` with `handled` as its context, as a `raise` inside an `except` has it.
#[cfg(not(Py_3_12))]
fn in_the_course_of(py: Python<'_>, raised: PyErr, handled: PyErr) -> PyResult<PyErr> {
    let name = intern!(py, "__context__");
    let (raised, handled) = (raised.into_value(py), handled.into_value(py));
    let (raised, handled) = (raised.bind(py), handled.bind(py));
    if !raised.is(handled) {
        // No circle may form.
        let mut error = handled.clone().into_any();
        loop {
            let context = error.getattr(name)?;
            if context.is_none() {
                break;
            }
            if context.is(raised) {
                error.setattr(name, py.None())?;
                break;
            }
            error = context;
        }
        raised.setattr(name, handled)?;
    }
    Ok(PyErr::from_value(raised.clone().into_any()))
}

/// Whether a time limit is zero or negative.
#[inline]
fn has_passed(delay: &Bound<'_, PyAny>) -> PyResult<bool> {
    match seconds(delay) {
        Some(delay) => Ok(delay <= 0.0),
        None => delay.le(0),
    }
}

/// `asyncio.ensure_future()`, which a future of the loop passes as it is.
fn ensure_future<'py>(event_loop: &Bound<'py, PyAny>, awaited: Bound<'py, PyAny>) -> Returned<'py> {
    let py = event_loop.py();
    if is_native(&awaited) && crate::ffi::base::future(&awaited).event_loop.is(event_loop) {
        return Ok(awaited);
    }
    if is_coroutine(&awaited)
        && let Some(task) = tasks::create(event_loop, &awaited, None, None)?
    {
        return Ok(task);
    }
    let keywords = PyDict::new(py);
    if cfg!(not(Py_3_12)) {
        keywords.set_item(intern!(py, "loop"), event_loop)?;
    }
    py.import("asyncio.tasks")?
        .call_method("ensure_future", (awaited,), Some(&keywords))
}

// -- a future that is released when another one is done -----------------------------------------------

static RELEASE: Callback = done_callback!("_release_waiter" => release);

/// Finishes a future because another one is done.
fn release(waiter: &Bound<'_, PyAny>, _: &Bound<'_, PyAny>) -> PyResult<()> {
    finish_unless_done(waiter, waiter.py().None().into_bound(waiter.py()))
}

/// Has `waiter` finished when `future` is done.
fn add_release<'py>(future: &Bound<'py, PyAny>, waiter: &Bound<'py, PyAny>) -> PyResult<()> {
    let context = context::copy_current(future.py())?;
    futures::add_callback(future, &RELEASE.bind(waiter)?, &context)
}

// -- the function ----------------------------------------------------------------------------------

fn wait_for<'py>(module: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [awaited, delay] = args.bind_all("wait_for", ["fut", "timeout"])?;
    operations::operation(module.py(), |wait_for: &WaitFor| {
        wait_for.awaited.fill(awaited.to_owned());
        wait_for.delay.fill(delay.to_owned());
    })
}

/// The function of the module.
pub fn function() -> ffi::PyMethodDef {
    method!(fast "wait_for" => wait_for,
        "wait_for($module, fut, timeout)\n--\n\nCoroutine that awaits fut for at most timeout seconds, or for ever, where that is None.\n\nRaises TimeoutError when the time is up, after what is awaited has been cancelled.")
}

/// Makes the class.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(py: Python<'_>) -> PyResult<()> {
    make_operation!(py, WaitFor)
}
