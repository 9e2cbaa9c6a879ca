//! `wait()` and `as_completed()`.
//!
//! Both learn by a done-callback that the loop calls natively (see [`crate::ffi::callback`]) that a future has ended.

mod as_completed;

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule, PySet, PyTuple};

use crate::ensuring::{caller_on, is_any_coroutine, is_future};
use crate::ffi::call::call1;
use crate::ffi::callback::Callback;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::{Class, Native, Slot, Visit, context};
use crate::futures::{
    Failure, add_callback, failure, feeds_directly, forget_awaited_by, note_awaited_by,
    remove_callback,
};
use crate::operations::{
    self, Operation, Step, cancel_timer, create_future, finish_later, finish_unless_done, is_done,
    running_loop,
};
use crate::{done_callback, make_operation, method, operation};

/// After which future a wait ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Until {
    #[default]
    All,
    First,
    FirstException,
}

/// What the callbacks of a wait have in common. It is an object of its own, so that the operation, which holds it, is
/// in no cycle.
#[derive(Debug, Default)]
pub struct Countdown {
    left: Cell<usize>,
    until: Cell<Until>,
    waiter: Slot,
    timer: Slot,
    caller: Slot,
}

impl Native for Countdown {
    const RECYCLED: usize = 16;

    fn class() -> &'static Class<Self> {
        &COUNTDOWN
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.waiter, &self.timer, &self.caller])
    }

    fn clear(&self, _: Python<'_>) {
        self.waiter.clear();
        self.timer.clear();
        self.caller.clear();
    }
}

static COUNTDOWN: Class<Countdown> = Class::new();

static ONE_DONE: Callback = done_callback!("_on_completion" => one_done);

fn one_done<'py>(object: &Bound<'py, PyAny>, future: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = object.py();
    let countdown = COUNTDOWN.of(object);
    let left = countdown.left.get().saturating_sub(1);
    countdown.left.set(left);
    let ends = left == 0
        || match countdown.until.get() {
            Until::All => false,
            Until::First => true,
            Until::FirstException => matches!(failure(future)?, Failure::Exception(_)),
        };
    if ends {
        if let Some(timer) = countdown.timer.get(py) {
            cancel_timer(&timer)?;
        }
        if let Some(waiter) = countdown.waiter.get(py) {
            finish_unless_done(&waiter, py.None().into_bound(py))?;
        }
    }
    match countdown.caller.get(py) {
        Some(caller) => forget_awaited_by(future, &caller),
        None => Ok(()),
    }
}

/// `wait(fs, timeout, return_when)`.
#[derive(Debug, Default)]
pub struct Wait {
    /// The argument, then the set of futures.
    futures: Slot,
    timeout: Slot,
    return_when: Slot,
    countdown: Slot,
    callback: Slot,
}

impl Wait {
    fn until(&self, py: Python<'_>) -> PyResult<Until> {
        let Some(wanted) = self.return_when.get(py) else {
            return Ok(Until::All);
        };
        for (name, until) in [
            (intern!(py, "FIRST_COMPLETED"), Until::First),
            (intern!(py, "FIRST_EXCEPTION"), Until::FirstException),
            (intern!(py, "ALL_COMPLETED"), Until::All),
        ] {
            if wanted.is(name) || wanted.eq(name)? {
                return Ok(until);
            }
        }
        Err(PyValueError::new_err(format!(
            "Invalid return_when value: {}",
            wanted.str()?
        )))
    }

    /// Stops listening.
    fn forget(&self, py: Python<'_>) -> PyResult<()> {
        let (Some(countdown), Some(callback), Some(futures)) = (
            self.countdown.take(py),
            self.callback.take(py),
            self.futures.get(py),
        ) else {
            return Ok(());
        };
        let countdown = COUNTDOWN.of(&countdown);
        if let Some(timer) = countdown.timer.take(py) {
            cancel_timer(&timer)?;
        }
        let caller = countdown.caller.get(py);
        for future in futures.cast_into::<PySet>()?.iter() {
            remove_callback(&future, &callback)?;
            if let Some(caller) = &caller {
                forget_awaited_by(&future, caller)?;
            }
        }
        Ok(())
    }
}

impl Operation for Wait {
    operation!(Wait, "wait");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let given = self.futures.get_or_none(py);
        if is_any_coroutine(&given)? || is_future(&given)? {
            return Err(PyTypeError::new_err(format!(
                "expect a list of futures, not {}",
                given.get_type().name()?
            )));
        }
        if !given.is_truthy()? {
            return Err(PyValueError::new_err("Set of Tasks/Futures is empty."));
        }
        let until = self.until(py)?;
        let set = call1(py.get_type::<PySet>().as_any(), &given)?.cast_into::<PySet>()?;
        for future in set.iter() {
            if !feeds_directly(&future) && is_any_coroutine(&future)? {
                return Err(PyTypeError::new_err(
                    "Passing coroutines is forbidden, use tasks explicitly.",
                ));
            }
        }
        let event_loop = running_loop(py)?;
        let waiter = create_future(&event_loop)?;
        let object = COUNTDOWN.instance(py)?;
        let countdown = COUNTDOWN.of(&object);
        countdown.left.set(set.len());
        countdown.until.set(until);
        countdown.waiter.fill(waiter.clone());
        if let Some(timeout) = self.timeout.get(py).filter(|timeout| !timeout.is_none()) {
            let none = py.None().into_bound(py);
            let timer = finish_later(&event_loop, &timeout, &waiter, &none)?;
            countdown.timer.fill(timer);
        }
        let caller = caller_on(&event_loop)?;
        let callback = ONE_DONE.bind(&object)?;
        let context = context::copy_current(py)?;
        for future in set.iter() {
            add_callback(&future, &callback, &context)?;
            if let Some(caller) = &caller {
                note_awaited_by(&future, caller)?;
            }
        }
        if let Some(caller) = caller {
            countdown.caller.fill(caller);
        }
        self.futures.set(set.into_any());
        self.callback.set(callback);
        self.countdown.set(object);
        Ok(Step::Wait(waiter))
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        self.forget(py)?;
        outcome?;
        let Some(all) = self.futures.take(py) else {
            return Step::done(py);
        };
        let all = all.cast_into::<PySet>()?;
        let pending = PySet::empty(py)?;
        for future in all.iter() {
            if !is_done(&future)? {
                pending.add(future)?;
            }
        }
        // Nobody else knows the set: what is left of it is the answer.
        if pending.len() == all.len() {
            pending.clear();
            return both(&pending, &all);
        }
        for future in pending.iter() {
            all.discard(future)?;
        }
        both(&all, &pending)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([
            &self.futures,
            &self.timeout,
            &self.return_when,
            &self.countdown,
            &self.callback,
        ])
    }

    fn clear(&self) {
        self.futures.clear();
        self.timeout.clear();
        self.return_when.clear();
        self.countdown.clear();
        self.callback.clear();
    }
}

/// The answer of `wait()`.
fn both<'py>(done: &Bound<'py, PySet>, pending: &Bound<'py, PySet>) -> PyResult<Step<'py>> {
    let pair = PyTuple::new(done.py(), [done, pending])?;
    Ok(Step::Done(pair.into_any()))
}

fn wait<'py>(module: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    args.at_most("wait", 1)?;
    let [futures, timeout, return_when] = args.bind("wait", ["fs", "timeout", "return_when"])?;
    let futures = futures.ok_or_else(|| missing_argument("wait", "fs"))?;
    operations::operation(module.py(), |wait: &Wait| {
        wait.futures.fill(futures.to_owned());
        if let Some(timeout) = timeout {
            wait.timeout.fill(timeout.to_owned());
        }
        if let Some(return_when) = return_when {
            wait.return_when.fill(return_when.to_owned());
        }
    })
}

/// The functions of the module.
pub fn functions() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "wait" => wait,
            "wait($module, /, fs, *, timeout=None, return_when='ALL_COMPLETED')\n--\n\nCoroutine that returns two sets of futures, those that are done and those that are pending."),
        method!(fast "as_completed" => as_completed::as_completed,
            "as_completed($module, /, fs, *, timeout=None)\n--\n\nReturn an iterator of awaitables, in the order in which what they stand for is completed."),
    ]
}

/// Makes the classes.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    COUNTDOWN.make(
        py,
        c"weft._weft.Countdown",
        None,
        Description {
            slots: class_slots::<Countdown>(),
            immutable: true,
            ..Description::default()
        },
    )?;
    as_completed::register(py)?;
    make_operation!(py, Wait)
}
