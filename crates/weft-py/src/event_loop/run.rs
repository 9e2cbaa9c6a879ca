//! Turns of the loop.
//!
//! A turn polls, moves due timers into the ready queue, and runs what was ready when the turn began, in order. While
//! work is ready the poll does not block, keeps the GIL, and is left out of some turns: [`POLL_EVERY`] turns or
//! [`RUN_BETWEEN_POLLS`] callbacks, whichever comes first, bound how long I/O can wait for its turn. Timers are looked
//! at in every turn.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;
use weft_reactor::Event;
use weft_reactor::clock::sleep_until;

use super::attributes::noticed;
use super::{EVENT_LOOP, EventLoop, Ready, leave_task};
use crate::clock;
use crate::errors::os_error;
use crate::event_loop::handles::{self, HANDLE};
use crate::ffi::Reference;
use crate::ffi::call::detached;
use crate::ffi::method::Returned;
use crate::imports::imports;
use crate::method;

/// With work ready, descriptors are looked at once in so many turns …
const POLL_EVERY: u32 = 2;
/// … or as soon as so many callbacks have run since the last look.
const RUN_BETWEEN_POLLS: usize = 64;
/// Cancelled timers are swept out when there are more than this many timers …
const SWEEP_AT: usize = 100;
/// … and more than one in so many of them is cancelled.
const SWEEP_FRACTION: usize = 2;

/// What a run keeps from turn to turn.
struct Run {
    events: Vec<Event>,
    turns_since_poll: u32,
    ran_since_poll: usize,
}

impl Default for Run {
    /// The first turn polls.
    fn default() -> Self {
        Self {
            events: Vec::new(),
            turns_since_poll: POLL_EVERY,
            ran_since_poll: 0,
        }
    }
}

/// `_run()`: turns the loop until `stop()`; the caller has set the running loop.
fn run<'py>(event_loop: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = event_loop.py();
    let state = EVENT_LOOP.of(event_loop);
    noticed(event_loop, intern!(py, "time").as_any())?;
    let mut run = Run::default();
    state.turning.set(true);
    let outcome = loop {
        if let Err(error) = turn(state, event_loop, &mut run) {
            break Err(error);
        }
        if state.stopping.get() {
            break Ok(());
        }
    };
    state.turning.set(false);
    state.show(py);
    let left = leave_task(state, event_loop);
    state.contexts.forget();
    outcome?;
    left?;
    Ok(py.None().into_bound(py))
}

#[inline]
fn turn(state: &EventLoop, event_loop: &Bound<'_, PyAny>, run: &mut Run) -> PyResult<()> {
    run.turns_since_poll += 1;
    if state.ready.len() == 0
        || run.turns_since_poll >= POLL_EVERY
        || run.ran_since_poll >= RUN_BETWEEN_POLLS
    {
        run.turns_since_poll = 0;
        run.ran_since_poll = 0;
        poll(state, event_loop, &mut run.events)?;
    }
    move_due_timers(state, event_loop)?;
    let count = state.ready.len();
    run.ran_since_poll += count;
    state.bursts.turn_begins(Instant::now);
    let outcome = run_entries(state, event_loop, count);
    state.bursts.turn_ends(Instant::now);
    outcome.and(end_turn(state, event_loop))
}

#[inline]
fn run_entries(state: &EventLoop, event_loop: &Bound<'_, PyAny>, count: usize) -> PyResult<()> {
    for _ in 0..count {
        // A callback may have emptied the queue by closing the loop.
        let Some(entry) = state.ready.pop() else {
            break;
        };
        if state.debug.get() {
            execute_timed(state, event_loop, entry)?;
        } else {
            execute(state, event_loop, entry)?;
        }
    }
    Ok(())
}

/// Does what was left for the end of the turn, whatever has ended it.
#[inline]
fn end_turn(state: &EventLoop, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut outcome = Ok(());
    // What these leave, the next turn has.
    for _ in 0..state.endings.len() {
        if let Some(ending) = state.endings.pop() {
            outcome = outcome.and(execute(state, event_loop, ending));
        }
    }
    outcome
}

#[inline]
fn execute(state: &EventLoop, event_loop: &Bound<'_, PyAny>, entry: Ready) -> PyResult<()> {
    let py = event_loop.py();
    match entry {
        Ready::Job {
            run,
            object,
            argument,
        } => run(
            event_loop,
            &object.into_bound(py),
            argument.map(|argument| argument.into_bound(py)),
        ),
        Ready::Handle(handle) => {
            let object = handle.into_bound(py);
            match HANDLE.get(&object) {
                Some(handle) if handle.is_cancelled() => Ok(()),
                Some(handle) => {
                    let trusted = handle.run_trusted(py);
                    if let Some(Ok(())) = trusted {
                        return Ok(());
                    }
                    leave_task(state, event_loop)?;
                    match trusted {
                        Some(Err(error)) => handles::report(&object, handle, error),
                        _ => handles::run(state, &object, handle),
                    }
                }
                None => {
                    leave_task(state, event_loop)?;
                    run_foreign(&object)
                }
            }
        }
        Ready::Io {
            token,
            readable,
            writable,
        } => {
            leave_task(state, event_loop)?;
            state.notify(event_loop, token, readable, writable)
        }
    }
}

/// Runs an `asyncio.Handle`.
#[cold]
fn run_foreign(handle: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = handle.py();
    if !handle.getattr(intern!(py, "_cancelled"))?.is_truthy()? {
        handle.call_method0(intern!(py, "_run"))?;
    }
    Ok(())
}

/// As [`execute`], in debug mode: names the running handle to the exception handler and reports slow callbacks.
#[cold]
fn execute_timed(state: &EventLoop, event_loop: &Bound<'_, PyAny>, entry: Ready) -> PyResult<()> {
    let py = event_loop.py();
    let current = intern!(py, "_current_handle");
    let described = match &entry {
        Ready::Handle(handle) => {
            let handle = handle.bind(py);
            if HANDLE
                .get(handle)
                .is_some_and(handles::Handle::is_cancelled)
            {
                return Ok(());
            }
            event_loop.setattr(current, handle)?;
            Some(handle.clone())
        }
        Ready::Job { object, .. } => Some(object.bind(py).clone()),
        Ready::Io { .. } => None,
    };
    let start = state.now(event_loop)?;
    state.ran.set(false);
    let outcome = execute(state, event_loop, entry);
    event_loop.setattr(current, py.None())?;
    outcome?;
    let took = state.now(event_loop)? - start;
    let Some(described) = described else {
        return Ok(());
    };
    let bound: f64 = event_loop
        .getattr(intern!(py, "slow_callback_duration"))?
        .extract()?;
    if took >= bound {
        let text = describe(&described)?;
        imports(py)
            .base_events
            .bind(py)
            .getattr(intern!(py, "logger"))?
            .call_method1(
                intern!(py, "warning"),
                ("Executing %s took %.3f seconds", text, took),
            )?;
    }
    if let Some(handle) = HANDLE.get(&described).filter(|_| state.ran.get()) {
        handles::let_go(&described, handle);
    }
    Ok(())
}

/// A handle's name in the report of a slow callback: for a step of a task, the task's.
fn describe<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    if HANDLE.get(object).is_none() && object.getattr_opt("_run")?.is_none() {
        return Ok(object.repr()?.into_any());
    }
    let callback = object.getattr("_callback")?;
    if let Some(receiver) = callback.getattr_opt("__self__")?
        && receiver.is_instance(imports(py).task.bind(py))?
    {
        return Ok(receiver.repr()?.into_any());
    }
    Ok(object.str()?.into_any())
}

/// Looks at the descriptors, and waits for them where nothing is ready.
fn poll(state: &EventLoop, event_loop: &Bound<'_, PyAny>, events: &mut Vec<Event>) -> PyResult<()> {
    let py = event_loop.py();
    sweep_timers(state, py);
    let timeout = timeout(state, event_loop)?;
    let idle = timeout != Some(Duration::ZERO);
    if !idle && state.watches.borrow().is_empty() {
        return Ok(());
    }
    let poller = state.poller.borrow();
    let Some(poller) = &*poller else {
        return Err(PyRuntimeError::new_err("Event loop is closed"));
    };
    let outcome = if idle {
        leave_task(state, event_loop)?;
        state.contexts.forget();
        state.sleeping.set(true);
        let outcome = detached(py, || poller.wait(events, timeout));
        state.sleeping.set(false);
        py.check_signals()?;
        outcome
    } else {
        poller.wait(events, timeout)
    };
    outcome.map_err(os_error)?;
    for event in events.drain(..) {
        state.announce(py, &event);
    }
    Ok(())
}

/// How long the poll may block; `None` is for ever.
fn timeout(state: &EventLoop, event_loop: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    if state.ready.len() > 0 || state.endings.len() > 0 || state.stopping.get() {
        return Ok(Some(Duration::ZERO));
    }
    let next = state.timers.borrow().peek().map(|(deadline, _)| deadline);
    let Some(deadline) = next else {
        return Ok(None);
    };
    Ok(Some(sleep_until(deadline, state.now(event_loop)?)))
}

/// Drops cancelled timers: those at the head always, all of them where they are many.
fn sweep_timers(state: &EventLoop, py: Python<'_>) {
    let cancelled = state.cancelled_timers.get();
    if cancelled == 0 {
        return;
    }
    let is_cancelled = |timer: &Reference| {
        HANDLE
            .get(timer.bind(py))
            .is_some_and(handles::Handle::is_cancelled)
    };
    let mut dropped = Vec::new();
    {
        let mut timers = state.timers.borrow_mut();
        if timers.len() > SWEEP_AT && cancelled * SWEEP_FRACTION > timers.len() {
            dropped = timers.compact(|timer| !is_cancelled(timer));
        } else {
            while timers.peek().is_some_and(|(_, timer)| is_cancelled(timer)) {
                dropped.extend(timers.pop().map(|(_, timer)| timer));
            }
        }
    }
    state
        .cancelled_timers
        .set(cancelled.saturating_sub(dropped.len()));
    for timer in dropped {
        let timer = timer.into_bound(py);
        if let Some(handle) = HANDLE.get(&timer) {
            handle.set_scheduled(false);
        }
    }
}

fn move_due_timers(state: &EventLoop, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    if state.timers.borrow().is_empty() {
        return Ok(());
    }
    let py = event_loop.py();
    let now = state.now(event_loop)?;
    // Where the clock shows so much that the precision is lost in it, what is due now is due nevertheless.
    let limit = (now + clock::RESOLUTION).max(now.next_up());
    loop {
        let due = state.timers.borrow_mut().pop_due(limit);
        let Some(timer) = due else { return Ok(()) };
        if let Some(handle) = HANDLE.get(timer.bind(py)) {
            handle.set_scheduled(false);
            if handle.is_cancelled() {
                state
                    .cancelled_timers
                    .set(state.cancelled_timers.get().saturating_sub(1));
            }
        }
        state.ready.push(Ready::Handle(timer));
    }
}

/// `_run_once()`: one turn, for loops that are driven from outside (by a user interface, for one).
fn run_once<'py>(event_loop: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = event_loop.py();
    let state = EVENT_LOOP.of(event_loop);
    let mut run = Run::default();
    state.turning.set(true);
    let outcome = turn(state, event_loop, &mut run);
    state.turning.set(false);
    state.show(py);
    let left = leave_task(state, event_loop);
    outcome?;
    left?;
    Ok(py.None().into_bound(py))
}

pub(super) fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(attached "_run" => run, "Turn the loop until stop() is called."),
        method!(attached "_run_once" => run_once, "Turn the loop once."),
    ]
}
