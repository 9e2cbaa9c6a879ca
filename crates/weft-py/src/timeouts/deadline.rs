//! A moment after which a task is cancelled, and what becomes of that cancellation: what `timeout()` and `wait_for()`
//! have in common.
//!
//! A timeout counts the cancellations that its task had been asked for when it was entered. Where it has passed, the
//! one that it has asked for itself is taken back on leaving, and if none is left beside it, the `CancelledError` that
//! arrives becomes a `TimeoutError`.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyFloat, PyType};

use super::version;
use crate::event_loop::{self, EVENT_LOOP, leave_task, registered_task};
use crate::ffi::base;
use crate::ffi::call::method0;
use crate::ffi::method::Returned;
use crate::ffi::object::{is_exact_float, is_exact_int};
use crate::ffi::{Class, Native, Slot, Visit};
use crate::imports::imports;
use crate::operations::{cancel_timer, running_loop};
use crate::tasks::steps_natively;

/// asyncio's states of a timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Made.
    #[default]
    Created,
    /// The task is inside.
    Entered,
    /// The moment has passed, and the task has been cancelled.
    Expiring,
    /// The task has left after that.
    Expired,
    /// The task has left before the moment.
    Exited,
}

impl State {
    /// The name of the member of asyncio's enumeration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Entered => "ENTERED",
            Self::Expiring => "EXPIRING",
            Self::Expired => "EXPIRED",
            Self::Exited => "EXITED",
        }
    }

    /// The member's value, which messages show.
    pub fn value(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Entered => "active",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Exited => "finished",
        }
    }
}

/// The moment, in seconds of the loop's clock.
#[derive(Clone, Copy, Debug, Default)]
enum When {
    #[default]
    Never,
    At(f64),
    /// Something else than a `float`: the slot has it.
    Given,
}

/// The native part of `weft.Timeout`; an instance of exactly this class is what `wait_for()` uses.
#[derive(Debug, Default)]
pub struct Timeout {
    state: Cell<State>,
    when: Cell<When>,
    given: Slot,
    timer: Slot,
    task: Slot,
    cancelling: Cell<i64>,
}

impl Native for Timeout {
    const RECYCLED: usize = 256;

    fn class() -> &'static Class<Self> {
        &TIMEOUT
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.given, &self.timer, &self.task])
    }

    fn clear(&self, _: Python<'_>) {
        self.given.clear();
        self.timer.clear();
        self.task.clear();
    }
}

/// The class.
pub static TIMEOUT: Class<Timeout> = Class::new();

impl Timeout {
    /// The state.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Whether a task is inside.
    #[inline]
    pub fn is_entered(&self) -> bool {
        matches!(self.state.get(), State::Entered | State::Expiring)
    }

    /// The moment as Python has it; `None` is never.
    pub fn when<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self.when.get() {
            When::Never => py.None().into_bound(py),
            When::At(when) => PyFloat::new(py, when).into_any(),
            When::Given => self.given.get_or_none(py),
        }
    }

    /// The timer, where one runs.
    pub fn timer<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.timer.get_or_none(py)
    }

    /// The task that has entered.
    pub fn task<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.task.get_or_none(py)
    }

    /// The number of cancellations that the task was asked for before.
    pub fn cancelling(&self) -> i64 {
        self.cancelling.get()
    }

    /// Makes it new, with `when` as its moment.
    pub fn begin(&self, when: &Bound<'_, PyAny>) {
        self.state.set(State::Created);
        self.timer.clear();
        self.task.clear();
        self.set_when(when);
    }

    /// Sets the moment of a new one to `delay` seconds from now; answers with the time, where that is a `float`.
    ///
    /// # Errors
    /// `RuntimeError` where no loop runs, and what adding the delay to the time raises.
    #[inline]
    pub fn begin_after(&self, delay: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let event_loop = running_loop(delay.py())?;
        if delay.is_none() {
            return Ok(None);
        }
        if let Some(state) = EVENT_LOOP.get(&event_loop) {
            let now = state.now(&event_loop)?;
            if let Some(delay) = seconds(delay) {
                self.when.set(When::At(now + delay));
            } else {
                self.set_when(&PyFloat::new(delay.py(), now).add(delay)?);
            }
            return Ok(Some(now));
        }
        let now = method0(&event_loop, intern!(delay.py(), "time"))?;
        self.set_when(&now.add(delay)?);
        Ok(None)
    }

    fn set_when(&self, when: &Bound<'_, PyAny>) {
        if when.is_none() {
            self.when.set(When::Never);
        } else if is_exact_float(when)
            && let Ok(seconds) = when.extract()
        {
            self.when.set(When::At(seconds));
        } else {
            self.when.set(When::Given);
            self.given.set(when.clone());
        }
    }

    /// Notes the current task as the one inside, and the cancellations that it is asked for already.
    ///
    /// # Errors
    /// `RuntimeError` where it was entered before, or outside a task.
    #[inline]
    pub fn enter<'py>(&self, py: Python<'py>) -> Returned<'py> {
        if self.state.get() != State::Created {
            return Err(PyRuntimeError::new_err("Timeout has already been entered"));
        }
        let event_loop = running_loop(py)?;
        let Some(task) = registered_task(&event_loop)? else {
            return Err(PyRuntimeError::new_err(
                "Timeout should be used inside a task",
            ));
        };
        self.state.set(State::Entered);
        self.cancelling.set(cancelling(&task)?);
        self.task.set(task);
        Ok(event_loop)
    }

    /// Starts the timer of `timeout`, whose state this is; the moment is set, and the timer from before was cancelled. The
    /// time is `now`, where the caller has just asked for it.
    ///
    /// # Errors
    /// What comparing the moment with the time raises, and what a foreign loop raises.
    #[inline]
    pub fn start<'py>(
        &self,
        timeout: &Bound<'py, PyAny>,
        event_loop: &Bound<'py, PyAny>,
        now: Option<f64>,
    ) -> PyResult<()> {
        let py = timeout.py();
        if let When::Never = self.when.get() {
            return Ok(());
        }
        if let Some(state) = EVENT_LOOP.get(event_loop)
            && let When::At(when) = self.when.get()
            && TIMEOUT.is_usual(timeout)
            && state.schedules_directly(event_loop)
        {
            let now = match now {
                Some(now) => now,
                None => state.now(event_loop)?,
            };
            let timer = if when <= now {
                event_loop::job_soon(state, event_loop, when, expire_job, timeout.clone())?
            } else {
                event_loop::job_at(state, event_loop, when, expire_job, timeout.clone(), None)?
            };
            self.timer.set(timer);
            return Ok(());
        }
        let when = self.when(py);
        let callback = timeout.getattr(intern!(py, "_on_timeout"))?;
        let handle = if when.le(method0(event_loop, intern!(py, "time"))?)? {
            event_loop.call_method1(intern!(py, "call_soon"), (callback,))?
        } else {
            event_loop.call_method1(intern!(py, "call_at"), (when, callback))?
        };
        self.timer.set(handle);
        Ok(())
    }

    /// `Timeout.reschedule()`.
    ///
    /// # Errors
    /// `RuntimeError` where no task is inside, and as [`Self::start`].
    pub fn reschedule<'py>(
        &self,
        timeout: &Bound<'py, PyAny>,
        when: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        match self.state.get() {
            State::Entered => {}
            State::Created => {
                return Err(PyRuntimeError::new_err("Timeout has not been entered"));
            }
            state => {
                return Err(PyRuntimeError::new_err(format!(
                    "Cannot change state of {} Timeout",
                    state.value()
                )));
            }
        }
        self.set_when(when);
        if let Some(timer) = self.timer.get(timeout.py()) {
            cancel_timer(&timer)?;
        }
        if when.is_none() {
            self.timer.clear();
            return Ok(());
        }
        self.start(timeout, &running_loop(timeout.py())?, None)
    }

    /// The moment has come: cancels the task.
    ///
    /// # Errors
    /// What cancelling a foreign task raises.
    pub fn expire(&self, py: Python<'_>) -> PyResult<()> {
        if self.state.get() != State::Entered {
            return Err(PyAssertionError::new_err(()));
        }
        if let Some(task) = self.task.get(py) {
            method0(&task, intern!(py, "cancel"))?;
        }
        self.state.set(State::Expiring);
        // Early, because the timer refers to the owner.
        self.timer.clear();
        Ok(())
    }

    /// The task leaves, with `error` where it has raised one. Answers with the `TimeoutError` that takes its place.
    ///
    /// # Errors
    /// `AssertionError` where no task is inside, and what a foreign task raises.
    #[inline]
    pub fn leave<'py>(
        &self,
        py: Python<'py>,
        error: Option<Leaving<'_, 'py>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.is_entered() {
            return Err(PyAssertionError::new_err(()));
        }
        let state = self.state.get();
        if let Some(timer) = self.timer.take(py) {
            cancel_timer(&timer)?;
        }
        if state == State::Entered {
            self.state.set(State::Exited);
            return Ok(None);
        }
        self.state.set(State::Expired);
        let Some(task) = self.task.get(py) else {
            return Ok(None);
        };
        let left: i64 = method0(&task, intern!(py, "uncancel"))?.extract()?;
        if left > self.cancelling.get() {
            return Ok(None);
        }
        let Some(Leaving { class, error }) = error else {
            return Ok(None);
        };
        if is_cancellation(class)? {
            let timeout = py.get_type::<PyTimeoutError>().call0()?;
            timeout.setattr(intern!(py, "__cause__"), error)?;
            return Ok(Some(timeout));
        }
        if version(py).inserts_timeout_error && !error.is_none() {
            insert_timeout_error(error)?;
            let group = py.import("builtins")?.getattr("ExceptionGroup")?;
            if error.is_instance(&group)? {
                for inner in error.getattr("exceptions")?.try_iter()? {
                    insert_timeout_error(&inner?)?;
                }
            }
        }
        Ok(None)
    }
}

/// A number of seconds, where it is of a type that is quick to read.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "as Python does it")]
pub fn seconds(number: &Bound<'_, PyAny>) -> Option<f64> {
    if is_exact_float(number) {
        number.extract().ok()
    } else if is_exact_int(number) {
        number.extract::<i64>().ok().map(|number| number as f64)
    } else {
        None
    }
}

/// The exception with which a task leaves.
#[derive(Clone, Copy, Debug)]
pub struct Leaving<'a, 'py> {
    /// Its class …
    pub class: &'a Bound<'py, PyAny>,
    /// … and itself.
    pub error: &'a Bound<'py, PyAny>,
}

/// Whether `class` is that of a cancellation, by the rule of this version of asyncio.
fn is_cancellation(class: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = class.py();
    let cancelled_error = imports(py).cancelled_error.bind(py);
    if class.is(cancelled_error) {
        return Ok(true);
    }
    if !version(py).knows_subclasses {
        return Ok(false);
    }
    class.cast::<PyType>()?.is_subclass(cancelled_error)
}

/// Puts a `TimeoutError` before the first `CancelledError` among what an exception was raised in the course of.
fn insert_timeout_error(error: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = error.py();
    let name = intern!(py, "__context__");
    let mut error = error.clone();
    loop {
        let context = error.getattr(name)?;
        if context.is_none() {
            return Ok(());
        }
        if context.is_instance(imports(py).cancelled_error.bind(py))? {
            let timeout = py.get_type::<PyTimeoutError>().call0()?;
            timeout.setattr(intern!(py, "__cause__"), &context)?;
            timeout.setattr(name, &context)?;
            return error.setattr(name, timeout);
        }
        error = context;
    }
}

/// `task.cancelling()`.
fn cancelling(task: &Bound<'_, PyAny>) -> PyResult<i64> {
    if steps_natively(task) {
        return Ok(base::task(task).cancels_requested.get().into());
    }
    method0(task, intern!(task.py(), "cancelling"))?.extract()
}

/// The job of the timer. No task is current while the futures of the cancelled one are told.
fn expire_job<'py>(
    event_loop: &Bound<'py, PyAny>,
    timeout: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    if let Some(state) = EVENT_LOOP.get(event_loop) {
        leave_task(state, event_loop)?;
    }
    TIMEOUT.of(timeout).expire(timeout.py())
}
