//! `as_completed()`: an iterator, from Python 3.13 on an asynchronous one as well.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_int;

use pyo3::exceptions::{PyStopAsyncIteration, PyTimeoutError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PySet};

use crate::ensuring::{caller_on, ensure_future, is_any_coroutine, is_future, thread_loop};
use crate::ffi::call::{MethodDefinition, bound_method, call1};
use crate::ffi::callback::Callback;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::slots::Advanced;
use crate::ffi::{Class, Native, Reference, Slot, Visit, context};
use crate::futures::{
    add_callback, feeds_directly, forget_awaited_by, note_awaited_by, remove_callback,
};
use crate::operations::{
    self, Operation, Step, bound_loop, cancel_timer, create_future, finish_unless_done, is_done,
    result_of, running_loop,
};
use crate::{done_callback, make_operation, method, operation, slot};

/// What `as_completed()` returns.
#[derive(Debug, Default)]
pub struct AsCompleted {
    /// What was given, until the first step (up to Python 3.12).
    given: Slot,
    timeout: Slot,
    /// The futures that have not told yet that they are done.
    expected: Slot,
    /// How many are to be handed out yet.
    unclaimed: Cell<usize>,
    /// Futures in the order in which they have ended; `None` for one that was given up.
    ended: RefCell<VecDeque<Option<Reference>>>,
    /// Futures that whoever waits for the next one waits for.
    getters: RefCell<VecDeque<Reference>>,
    timer: Slot,
    /// The loop that those are of.
    event_loop: Slot,
    caller: Slot,
}

impl Native for AsCompleted {
    fn class() -> &'static Class<Self> {
        &AS_COMPLETED
    }

    fn traverse(&self, visit: Visit) -> c_int {
        let answer = visit.slots([
            &self.given,
            &self.timeout,
            &self.expected,
            &self.timer,
            &self.event_loop,
            &self.caller,
        ]);
        if answer != 0 {
            return answer;
        }
        let (Ok(ended), Ok(getters)) = (self.ended.try_borrow(), self.getters.try_borrow()) else {
            return 0;
        };
        for object in ended.iter().flatten().chain(getters.iter()) {
            let answer = visit.object(object);
            if answer != 0 {
                return answer;
            }
        }
        0
    }

    fn clear(&self, _: Python<'_>) {
        self.given.clear();
        self.timeout.clear();
        self.expected.clear();
        self.timer.clear();
        self.event_loop.clear();
        self.caller.clear();
        let (ended, getters) = (self.ended.take(), self.getters.take());
        drop((ended, getters));
    }
}

static AS_COMPLETED: Class<AsCompleted> = Class::new();

impl AsCompleted {
    fn expected<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PySet>>> {
        match self.expected.get(py) {
            Some(expected) => Ok(Some(expected.cast_into::<PySet>()?)),
            None => Ok(None),
        }
    }

    /// Starts everything and listens.
    fn listen<'py>(
        &self,
        iterator: &Bound<'py, PyAny>,
        given: &Bound<'py, PyAny>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let py = iterator.py();
        let event_loop = thread_loop(py)?;
        let caller = if cfg!(Py_3_14) {
            caller_on(&running_loop(py)?)?
        } else {
            None
        };
        let given = call1(py.get_type::<PySet>().as_any(), given)?.cast_into::<PySet>()?;
        let expected = PySet::empty(py)?;
        for awaitable in given.iter() {
            expected.add(ensure_future(&awaitable, Some(&event_loop))?)?;
        }
        drop(given);
        self.expected.set(expected.clone().into_any());
        self.unclaimed.set(expected.len());
        let callback = NEXT_DONE.bind(iterator)?;
        let context = context::copy_current(py)?;
        for future in expected.iter() {
            add_callback(&future, &callback, &context)?;
            if let Some(caller) = &caller {
                note_awaited_by(&future, caller)?;
            }
        }
        if let Some(caller) = caller {
            self.caller.set(caller);
        }
        if let Some(timeout) = timeout.filter(|timeout| !timeout.is_none())
            && !expected.is_empty()
        {
            let give_up = bound_method(&GIVE_UP, iterator)?;
            self.timer
                .set(event_loop.call_method1(intern!(py, "call_later"), (timeout, give_up))?);
        }
        Ok(())
    }

    /// As `listen`, at the first step of an iterator that was not iterated before.
    fn begin(&self, iterator: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = iterator.py();
        match self.given.take(py) {
            Some(given) => {
                let timeout = self.timeout.take(py);
                check_given(&given)?;
                self.listen(iterator, &given, timeout.as_ref())
            }
            None => Ok(()),
        }
    }

    fn put<'py>(&self, py: Python<'py>, item: Option<Bound<'py, PyAny>>) -> PyResult<()> {
        self.ended.borrow_mut().push_back(item.map(Reference::new));
        self.wake_next(py)
    }

    fn wake_next(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            let getter = self.getters.borrow_mut().pop_front();
            let Some(getter) = getter else {
                return Ok(());
            };
            let getter = getter.into_bound(py);
            if !is_done(&getter)? {
                return finish_unless_done(&getter, py.None().into_bound(py));
            }
        }
    }
}

static NEXT_DONE: Callback = done_callback!("_handle_completion" => next_done);

fn next_done<'py>(iterator: &Bound<'py, PyAny>, future: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = iterator.py();
    let state = AS_COMPLETED.of(iterator);
    let Some(expected) = state.expected(py)? else {
        return Ok(());
    };
    if !expected.discard(future)? {
        // The time was up first.
        return Ok(());
    }
    if let Some(caller) = state.caller.get(py) {
        forget_awaited_by(future, &caller)?;
    }
    state.put(py, Some(future.clone()))?;
    if expected.is_empty()
        && let Some(timer) = state.timer.take(py)
    {
        cancel_timer(&timer)?;
    }
    Ok(())
}

static GIVE_UP: MethodDefinition =
    MethodDefinition::new(method!(none "_handle_timeout" => give_up, "The time is up."));

fn give_up<'py>(iterator: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = iterator.py();
    let state = AS_COMPLETED.of(iterator);
    if let Some(expected) = state.expected(py)? {
        let callback = NEXT_DONE.bind(iterator)?;
        let caller = state.caller.get(py);
        state.expected.clear();
        for future in expected.iter() {
            remove_callback(&future, &callback)?;
            if let Some(caller) = &caller {
                forget_awaited_by(&future, caller)?;
            }
            state.put(py, None)?;
        }
    }
    Ok(py.None().into_bound(py))
}

/// What the iterator yields: waits for the next future that ends.
#[derive(Debug, Default)]
pub struct Next {
    iterator: Slot,
    getter: Slot,
    /// Whether it gives the future itself, and claims one at its first step: `async for`.
    whole: Cell<bool>,
}

impl Next {
    /// Takes what has ended, or waits.
    fn attempt<'py>(&self, iterator: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = iterator.py();
        let state = AS_COMPLETED.of(iterator);
        let ended = state.ended.borrow_mut().pop_front();
        match ended {
            Some(Some(future)) => {
                let future = future.into_bound(py);
                if self.whole.get() {
                    return Ok(Step::Done(future));
                }
                let result = if feeds_directly(&future) {
                    result_of(&future)
                } else {
                    future.call_method0(intern!(py, "result"))
                };
                result.map(Step::Done)
            }
            Some(None) => Err(PyTimeoutError::new_err(())),
            None => {
                let event_loop = bound_loop(iterator, &state.event_loop)?;
                let getter = create_future(&event_loop)?;
                self.getter.set(getter.clone());
                state.getters.borrow_mut().push_back(getter.clone().into());
                Ok(Step::Wait(getter))
            }
        }
    }

    /// Gives the place in the queue up, and what has come in meanwhile to the next one.
    fn give_way(&self, iterator: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = iterator.py();
        let state = AS_COMPLETED.of(iterator);
        let Some(getter) = self.getter.take(py) else {
            return Ok(());
        };
        getter.call_method0(intern!(py, "cancel"))?;
        let place = state
            .getters
            .borrow()
            .iter()
            .position(|other| other.bind(py).is(&getter));
        let removed = place.and_then(|place| state.getters.borrow_mut().remove(place));
        drop(removed);
        let any = !state.ended.borrow().is_empty();
        if any && !getter.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            state.wake_next(py)?;
        }
        Ok(())
    }
}

impl Operation for Next {
    operation!(Next, "as_completed.<locals>._wait_for_one");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let iterator = self.iterator.get_or_none(frame.py());
        if self.whole.get() {
            let state = AS_COMPLETED.of(&iterator);
            match state.unclaimed.get() {
                0 => return Err(PyStopAsyncIteration::new_err(())),
                unclaimed => state.unclaimed.set(unclaimed - 1),
            }
        }
        self.attempt(&iterator)
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let iterator = self.iterator.get_or_none(frame.py());
        match outcome {
            Ok(_) => {
                self.getter.clear();
                self.attempt(&iterator)
            }
            Err(error) => {
                self.give_way(&iterator)?;
                if cfg!(Py_3_14) {
                    let unclaimed = &AS_COMPLETED.of(&iterator).unclaimed;
                    unclaimed.set(unclaimed.get() + 1);
                }
                Err(error)
            }
        }
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.iterator, &self.getter])
    }

    fn clear(&self) {
        self.iterator.clear();
        self.getter.clear();
    }
}

fn next_operation<'py>(iterator: &Bound<'py, PyAny>, whole: bool) -> Returned<'py> {
    operations::operation(iterator.py(), |next: &Next| {
        next.iterator.fill(iterator.clone());
        next.whole.set(whole);
    })
}

/// `__next__`.
fn advance<'py>(iterator: &Bound<'py, PyAny>) -> PyResult<Advanced<'py>> {
    let state = AS_COMPLETED.of(iterator);
    state.begin(iterator)?;
    match state.unclaimed.get() {
        0 => Ok(Advanced::Returned(
            iterator.py().None().into_bound(iterator.py()),
        )),
        unclaimed => {
            state.unclaimed.set(unclaimed - 1);
            next_operation(iterator, false).map(Advanced::Yielded)
        }
    }
}

/// `__anext__` (from Python 3.13 on).
#[cfg(Py_3_13)]
fn advance_async<'py>(iterator: &Bound<'py, PyAny>) -> Returned<'py> {
    next_operation(iterator, true)
}

/// Refuses what is no collection of awaitables.
fn check_given(given: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = given.py();
    if cfg!(Py_3_13) {
        let single = call1(crate::imports::imports(py).is_awaitable.bind(py), given)?;
        if single.is_truthy()? {
            return Err(PyTypeError::new_err(format!(
                "expects an iterable of awaitables, not {}",
                given.get_type().name()?
            )));
        }
    } else if is_any_coroutine(given)? || is_future(given)? {
        return Err(PyTypeError::new_err(format!(
            "expect an iterable of futures, not {}",
            given.get_type().name()?
        )));
    }
    Ok(())
}

/// `as_completed(fs, *, timeout=None)`: up to Python 3.12 nothing happens before the first step.
pub(super) fn as_completed<'py>(module: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = module.py();
    args.at_most("as_completed", 1)?;
    let [given, timeout] = args.bind("as_completed", ["fs", "timeout"])?;
    let given = given.ok_or_else(|| missing_argument("as_completed", "fs"))?;
    let iterator = AS_COMPLETED.instance(py)?;
    let state = AS_COMPLETED.of(&iterator);
    state.given.set(given.to_owned());
    if let Some(timeout) = timeout {
        state.timeout.set(timeout.to_owned());
    }
    if cfg!(Py_3_13) {
        state.begin(&iterator)?;
    }
    Ok(iterator)
}

/// Makes the classes.
pub(super) fn register(py: Python<'_>) -> PyResult<()> {
    let mut slots = class_slots::<AsCompleted>();
    slots.extend([slot!(iter itself), slot!(next advance)]);
    #[cfg(Py_3_13)]
    slots.extend([
        slot!(aiter crate::operations::itself),
        slot!(anext advance_async),
    ]);
    AS_COMPLETED.make(
        py,
        c"weft._weft._AsCompletedIterator",
        None,
        Description {
            slots,
            immutable: true,
            ..Description::default()
        },
    )?;
    make_operation!(py, Next)
}
