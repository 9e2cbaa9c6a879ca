//! `Condition`.
//!
//! The lock may be any object with `locked`, `acquire` and `release`. asyncio stores these three on the instance; so does
//! `weft.Condition`, and whatever is stored there is what is called. Where it is a native lock's own method, its work is
//! done without the call.

use std::cell::Cell;
use std::ffi::c_int;
use std::mem::offset_of;

use pyo3::Borrowed;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule};

use super::acquiring::{Acquired, enter_natively};
use super::common::{
    Common, Found, Known, Primitive, call_found, description, find, inherited, properties,
};
use super::lock;
use super::ready::ready;
use super::waiters::{is_cancellation, truth};
use crate::ffi::call::call0;
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Class, Native, Slot, Visit};
use crate::imports::imports;
use crate::operations::{self, Operation, Step, finish_unless_done, is_done};
use crate::{make_operation, method, operation, property};

/// `Condition`.
#[derive(Debug, Default)]
pub struct Condition {
    lock: Slot,
    common: Common,
}

static CONDITION: Class<Condition> = Class::new();
static WAIT: Known = Known::new();
static NOTIFY: Known = Known::new();

impl Native for Condition {
    fn class() -> &'static Class<Self> {
        &CONDITION
    }

    fn traverse(&self, visit: Visit) -> c_int {
        match visit.slot(&self.lock) {
            0 => self.common.traverse(visit),
            answer => answer,
        }
    }

    fn clear(&self, _: Python<'_>) {
        self.lock.clear();
        self.common.clear();
    }
}

impl Primitive for Condition {
    const COMMON: usize = offset_of!(Condition, common);

    fn common(&self) -> &Common {
        &self.common
    }
}

/// Whether an object is a native condition.
pub fn is_condition(object: &Bound<'_, PyAny>) -> bool {
    CONDITION.is_instance(object)
}

fn is_locked(condition: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = condition.py();
    match find(condition, intern!(py, "locked"), &lock::LOCKED)? {
        Found::Native(lock) => Ok(lock::state(&lock).is_locked()),
        Found::Foreign(method) => call0(&method)?.is_truthy(),
    }
}

/// `release()`, of whatever the lock is.
///
/// # Errors
/// What it raises.
pub fn release(condition: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = condition.py();
    let found = find(condition, intern!(py, "release"), &lock::TRUST.release)?;
    call_found(&found, |lock| {
        lock::state(lock).release(py)?;
        Ok(py.None().into_bound(py))
    })
    .map(drop)
}

/// Wakes at most `limit` of those that wait (all, where there is none).
fn wake(state: &Condition, py: Python<'_>, limit: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let number = limit.and_then(|limit| limit.extract::<i64>().ok());
    let mut woken = 0_i64;
    let mut index = 0;
    while let Some(future) = state.common.waiters.get(py, index)? {
        let enough = match (limit, number) {
            (None, _) => false,
            (Some(_), Some(number)) => woken >= number,
            (Some(limit), None) => limit.le(woken)?,
        };
        if enough {
            break;
        }
        if !is_done(&future)? {
            woken += 1;
            finish_unless_done(&future, truth(py, false))?;
        }
        index += 1;
    }
    Ok(())
}

fn notify_limited(object: &Bound<'_, PyAny>, limit: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    if !is_locked(object)? {
        return Err(PyRuntimeError::new_err("cannot notify on un-acquired lock"));
    }
    wake(CONDITION.of(object), object.py(), limit)
}

/// `notify_all()`.
///
/// # Errors
/// `RuntimeError` where nobody has the lock.
pub fn wake_all(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = object.py();
    match NOTIFY.replacement(object, intern!(py, "notify"))? {
        None => notify_limited(object, None),
        Some(notify) => {
            let waiting = CONDITION.of(object).common.waiters.len(py)?;
            notify.call1((waiting,)).map(drop)
        }
    }
}

/// How far getting the lock has come.
#[derive(Debug)]
pub enum Taking<'py> {
    /// It is taken.
    Taken,
    /// It has to be waited for: with this step, then [`Turn::taken`].
    Waits(Step<'py>),
}

/// The lock that is waited for, and the place in its queue.
#[derive(Debug, Default)]
pub struct Turn {
    lock: Slot,
    future: Slot,
}

impl Turn {
    /// Takes the lock of `condition`, or queues for it.
    ///
    /// # Errors
    /// What `acquire()` raises.
    pub fn take<'py>(&self, condition: &Bound<'py, PyAny>) -> PyResult<Taking<'py>> {
        let py = condition.py();
        match find(condition, intern!(py, "acquire"), &lock::TRUST.acquire)? {
            Found::Native(lock) => {
                let state = lock::state(&lock);
                if state.take_if_free(py)? {
                    return Ok(Taking::Taken);
                }
                let future = state.enqueue(&lock)?;
                self.future.set(future.clone());
                self.lock.set(lock);
                Ok(Taking::Waits(Step::Wait(future)))
            }
            Found::Foreign(acquire) => Ok(Taking::Waits(Step::Await(call0(&acquire)?))),
        }
    }

    /// Takes what waiting gave.
    ///
    /// # Errors
    /// What waiting has raised: the lock was not taken.
    pub fn taken<'py>(&self, py: Python<'py>, outcome: Returned<'py>) -> PyResult<()> {
        match (self.lock.take(py), self.future.take(py)) {
            (Some(lock), Some(future)) => lock::state(&lock).waited(&future, outcome),
            _ => outcome.map(drop),
        }
    }

    /// Reports what it owns to the garbage collector.
    pub fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.lock, &self.future])
    }

    /// Drops what it owns.
    pub fn clear(&self) {
        self.lock.clear();
        self.future.clear();
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Until notified.
    #[default]
    Waiting,
    /// Until the lock is taken again.
    Returning,
}

/// How far waiting has come.
#[derive(Debug)]
pub enum Progress<'py> {
    /// The lock is taken again.
    Notified,
    /// To be continued after this step, with what it gives.
    Goes(Step<'py>),
}

/// `Condition.wait()`, as a part of the operations that wait for conditions.
///
/// However it ends, the lock is taken again, but where that itself fails otherwise than by being cancelled.
#[derive(Debug, Default)]
pub struct Waiting {
    stage: Cell<Stage>,
    future: Slot,
    turn: Turn,
    /// What waiting raised, to be raised when the lock is taken again.
    failure: Slot,
    /// The last cancellation while the lock was waited for, which comes first.
    cancellation: Slot,
}

impl Waiting {
    /// Gives the lock back and waits.
    ///
    /// # Errors
    /// `RuntimeError` where nobody has the lock, or the condition belongs to another loop.
    pub fn start<'py>(&self, condition: &Bound<'py, PyAny>) -> PyResult<Progress<'py>> {
        if !is_locked(condition)? {
            return Err(PyRuntimeError::new_err("cannot wait on un-acquired lock"));
        }
        let common = &CONDITION.of(condition).common;
        self.stage.set(Stage::Waiting);
        let future = if cfg!(Py_3_13) {
            let event_loop = operations::bound_loop(condition, &common.event_loop)?;
            let future = operations::create_future(&event_loop)?;
            release(condition)?;
            common.waiters.push(&future).map(|()| future)
        } else {
            release(condition)?;
            common.enqueue(condition)
        };
        match future {
            Ok(future) => {
                self.future.set(future.clone());
                Ok(Progress::Goes(Step::Wait(future)))
            }
            Err(error) => self.give_back(condition, Some(error)),
        }
    }

    /// Goes on with what the last step gave.
    ///
    /// # Errors
    /// What waiting has raised.
    pub fn resume<'py>(
        &self,
        condition: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Progress<'py>> {
        let py = condition.py();
        if self.stage.get() == Stage::Waiting {
            let mut failure = outcome.err();
            if let Some(future) = self.future.take(py)
                && let Err(error) = CONDITION.of(condition).common.waiters.remove(&future)
            {
                failure = Some(error);
            }
            return self.give_back(condition, failure);
        }
        match self.turn.taken(py, outcome) {
            Ok(()) => self.finish(condition),
            Err(error) => self.again(condition, error),
        }
    }

    /// Waits for the lock, after `failure`.
    fn give_back<'py>(
        &self,
        condition: &Bound<'py, PyAny>,
        failure: Option<PyErr>,
    ) -> PyResult<Progress<'py>> {
        keep(condition.py(), &self.failure, failure);
        self.stage.set(Stage::Returning);
        self.retake(condition)
    }

    fn retake<'py>(&self, condition: &Bound<'py, PyAny>) -> PyResult<Progress<'py>> {
        loop {
            match self.turn.take(condition) {
                Ok(Taking::Taken) => return self.finish(condition),
                Ok(Taking::Waits(step)) => return Ok(Progress::Goes(step)),
                Err(error) if is_cancellation(condition.py(), &error) => {
                    keep(condition.py(), &self.cancellation, Some(error));
                }
                Err(error) => return fail(condition, error),
            }
        }
    }

    /// A cancellation does not keep it from getting the lock.
    fn again<'py>(&self, condition: &Bound<'py, PyAny>, error: PyErr) -> PyResult<Progress<'py>> {
        let py = condition.py();
        if !is_cancellation(py, &error) {
            return fail(condition, error);
        }
        keep(py, &self.cancellation, Some(error));
        self.retake(condition)
    }

    /// The lock is taken.
    fn finish<'py>(&self, condition: &Bound<'py, PyAny>) -> PyResult<Progress<'py>> {
        let py = condition.py();
        let failure = self.failure.take(py);
        match (self.cancellation.take(py), failure) {
            (Some(cancellation), _) if cfg!(Py_3_13) => {
                fail(condition, PyErr::from_value(cancellation))
            }
            // A fresh one, without the message.
            (Some(_), _) => Err(PyErr::from_type(
                imports(py).cancelled_error.bind(py).clone(),
                (),
            )),
            (None, Some(failure)) => fail(condition, PyErr::from_value(failure)),
            (None, None) => Ok(Progress::Notified),
        }
    }

    /// Reports what it owns to the garbage collector.
    pub fn traverse(&self, visit: Visit) -> c_int {
        match self.turn.traverse(visit) {
            0 => visit.slots([&self.future, &self.failure, &self.cancellation]),
            answer => answer,
        }
    }

    /// Drops what it owns.
    pub fn clear(&self) {
        self.turn.clear();
        self.future.clear();
        self.failure.clear();
        self.cancellation.clear();
    }
}

/// Raises `error`. Whoever was notified and cannot use it passes it on, from Python 3.13.
fn fail<'py>(condition: &Bound<'py, PyAny>, error: PyErr) -> PyResult<Progress<'py>> {
    if cfg!(Py_3_13) {
        let py = condition.py();
        let one = 1_i64.into_pyobject(py)?.into_any();
        wake(CONDITION.of(condition), py, Some(&one))?;
    }
    Err(error)
}

fn keep(py: Python<'_>, slot: &Slot, error: Option<PyErr>) {
    match error {
        Some(error) => slot.set(error.into_value(py).into_bound(py).into_any()),
        None => slot.clear(),
    }
}

/// `Condition.wait()`.
#[derive(Debug, Default)]
struct Wait {
    condition: Slot,
    waiting: Waiting,
}

impl Wait {
    fn settle<'py>(py: Python<'py>, progress: Progress<'py>) -> Step<'py> {
        match progress {
            Progress::Notified => Step::Done(truth(py, true)),
            Progress::Goes(step) => step,
        }
    }
}

impl Operation for Wait {
    operation!(Wait, "Condition.wait");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let condition = self.condition.get(py).ok_or_else(super::gone)?;
        Ok(Self::settle(py, self.waiting.start(&condition)?))
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        let Some(condition) = self.condition.get(py) else {
            return Err(outcome.err().unwrap_or_else(super::gone));
        };
        Ok(Self::settle(py, self.waiting.resume(&condition, outcome)?))
    }

    fn traverse(&self, visit: Visit) -> c_int {
        match visit.slot(&self.condition) {
            0 => self.waiting.traverse(visit),
            answer => answer,
        }
    }

    fn clear(&self) {
        self.condition.clear();
        self.waiting.clear();
    }
}

/// `Condition.wait_for()`.
#[derive(Debug, Default)]
struct WaitFor {
    condition: Slot,
    predicate: Slot,
    waiting: Waiting,
    /// Whether `wait()` is somebody else's, which is awaited.
    foreign: Cell<bool>,
}

impl WaitFor {
    /// Asks the predicate, and waits where it says no.
    fn ask<'py>(&self, condition: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = condition.py();
        loop {
            let predicate = self.predicate.get(py).ok_or_else(super::gone)?;
            let result = call0(&predicate)?;
            if result.is_truthy()? {
                return Ok(Step::Done(result));
            }
            let replacement = WAIT.replacement(condition, intern!(py, "wait"))?;
            self.foreign.set(replacement.is_some());
            if let Some(wait) = replacement {
                return Ok(Step::Await(call0(&wait)?));
            }
            if let Progress::Goes(step) = self.waiting.start(condition)? {
                return Ok(step);
            }
        }
    }
}

impl Operation for WaitFor {
    operation!(WaitFor, "Condition.wait_for");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let condition = self.condition.get(frame.py()).ok_or_else(super::gone)?;
        self.ask(&condition)
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let Some(condition) = self.condition.get(frame.py()) else {
            return Err(outcome.err().unwrap_or_else(super::gone));
        };
        if self.foreign.get() {
            outcome?;
        } else if let Progress::Goes(step) = self.waiting.resume(&condition, outcome)? {
            return Ok(step);
        }
        self.ask(&condition)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        match visit.slots([&self.condition, &self.predicate]) {
            0 => self.waiting.traverse(visit),
            answer => answer,
        }
    }

    fn clear(&self) {
        self.condition.clear();
        self.predicate.clear();
        self.waiting.clear();
    }
}

/// The constructor's work: takes the lock, and stores its methods as asyncio does.
fn adopt<'py>(object: &Bound<'py, PyAny>, lock: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let state = CONDITION.of(object);
    state.lock.set(lock.clone());
    for name in [
        intern!(py, "locked"),
        intern!(py, "acquire"),
        intern!(py, "release"),
    ] {
        object.setattr(name, lock.getattr(name)?)?;
    }
    state.common.waiters.reset(true);
    Ok(py.None().into_bound(py))
}

fn wait<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(object.py(), |wait: &Wait| {
        wait.condition.fill(object.clone());
    })
}

fn wait_for<'py>(object: &Bound<'py, PyAny>, predicate: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(object.py(), |wait: &WaitFor| {
        wait.condition.fill(object.clone());
        wait.predicate.fill(predicate.clone());
    })
}

fn notify<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = object.py();
    let [limit] = args.bind("notify", ["n"])?;
    let limit = match limit {
        Some(limit) => limit.to_owned(),
        None => 1_i64.into_pyobject(py)?.into_any(),
    };
    notify_limited(object, Some(&limit))?;
    Ok(py.None().into_bound(py))
}

fn notify_all<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    wake_all(object)?;
    Ok(object.py().None().into_bound(object.py()))
}

fn enter<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    match find(object, intern!(py, "acquire"), &lock::TRUST.acquire)? {
        Found::Native(lock) => enter_natively::<lock::Lock>(&lock),
        Found::Foreign(_) => inherited(&imports(py).lock_enter, object),
    }
}

fn exit<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = object.py();
    if args.count() != 3 || args.has_keywords() {
        return super::inherited_exit(object, args);
    }
    match find(object, intern!(py, "release"), &lock::TRUST.release)? {
        Found::Native(lock) => {
            lock::state(&lock).release(py)?;
            ready(py)
        }
        Found::Foreign(_) => super::inherited_exit(object, args),
    }
}

fn get_lock<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let lock = CONDITION.of(object).lock.get(object.py());
    lock.ok_or_else(|| PyAttributeError::new_err("_lock"))
}

fn set_lock(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    let value = value.ok_or_else(|| PyAttributeError::new_err("_lock"))?;
    CONDITION.of(object).lock.set(value.to_owned());
    Ok(())
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    make_operation!(py, Wait)?;
    make_operation!(py, WaitFor)?;
    let class = CONDITION.make(
        py,
        c"weft._weft.Condition",
        None,
        description::<Condition>(
            vec![
                WAIT.entry(method!(none "wait" => wait,
                    "wait($self, /)\n--\n\nCoroutine that gives the lock back, waits until notified, takes the lock again and returns True. Raises RuntimeError where nobody has the lock.")),
                method!(named "wait_for"("predicate") => wait_for,
                    "wait_for($self, predicate)\n--\n\nCoroutine that waits until predicate() is true, and returns what it was."),
                NOTIFY.entry(method!(fast "notify" => notify,
                    "notify($self, n=1)\n--\n\nWake at most n of those who wait. Raises RuntimeError where nobody has the lock.")),
                method!(none "notify_all" => notify_all,
                    "notify_all($self, /)\n--\n\nWake all who wait. Raises RuntimeError where nobody has the lock."),
                method!(one "_adopt" => adopt, "_adopt($self, lock, /)\n--\n\nUse this lock."),
                method!(none "__aenter__" => enter, "__aenter__($self, /)\n--\n\nWait for the lock and take it."),
                method!(fast "__aexit__" => exit, "__aexit__($self, exc_type, exc, tb, /)\n--\n\nGive the lock back."),
            ],
            properties!(Condition, property!("_lock" => get_lock, set_lock)),
            None,
            c"The native part of weft.Condition.",
        ),
    )?;
    module.add("Condition", class)
}
