//! What waits at a queue: `put()`, `get()` and `join()`.
//!
//! Who has to wait stands in line with a future, and is woken when there may be something for it; then it looks again.
//! Who was woken and cannot take it, because it was cancelled, wakes the next in line.

use std::ffi::c_int;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::QUEUE;
use super::hooks::{Called, Plan};
use super::state::{self, Queue, Side};
use crate::ffi::base;
use crate::ffi::call::{method0, method1};
use crate::ffi::method::Returned;
use crate::ffi::{Slot, Visit};
use crate::futures::{self, FUTURE};
use crate::operation;
use crate::operations::{Operation, Step, bound_loop, create_future};

/// `Queue.put(item)`.
#[derive(Debug, Default)]
pub struct Put {
    /// The queue.
    pub queue: Slot,
    /// The item, until it is in the queue.
    pub item: Slot,
    waiter: Slot,
}

impl Put {
    #[inline]
    fn go_on<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        // Empty only where the garbage collector has cleared them.
        let (Some(queue), Some(item)) = (self.queue.take(py), self.item.take(py)) else {
            return Step::done(py);
        };
        let Some(item) = QUEUE.of(&queue).put_plainly(&queue, item) else {
            return Step::done(py);
        };
        self.look(queue, item)
    }

    fn look<'py>(&self, queue: Bound<'py, PyAny>, item: Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = queue.py();
        let state = QUEUE.of(&queue);
        let plan = state.plan(&queue)?;
        if state::is_full(&queue, state, plan)? {
            if state.is_shut_down.get() {
                return Err(state::shut_down(py));
            }
            self.item.fill(item);
            return wait(queue, Side::Putters, &self.queue, &self.waiter);
        }
        if plan.called.any(Called::PUT_NOWAIT) {
            let name = intern!(py, "put_nowait");
            return method1(&queue, name, &item).map(Step::Done);
        }
        if plan.called.any(Called::FULL) {
            // asks it again
            state::put_nowait(&queue, state, plan, item)?;
        } else if state.is_shut_down.get() {
            return Err(state::shut_down(py));
        } else {
            state::put(&queue, state, plan, item)?;
        }
        Step::done(py)
    }
}

impl Operation for Put {
    operation!(Put, "Queue.put");

    #[inline]
    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        self.go_on(frame.py())
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let waiter = self.waiter.take(frame.py());
        match outcome {
            Ok(_) => self.go_on(frame.py()),
            Err(error) => {
                give_up(frame.py(), &self.queue, Side::Putters, waiter)?;
                Err(error)
            }
        }
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.queue, &self.item, &self.waiter])
    }

    fn clear(&self) {
        self.queue.clear();
        self.item.clear();
        self.waiter.clear();
    }
}

/// `Queue.get()`.
#[derive(Debug, Default)]
pub struct Get {
    /// The queue.
    pub queue: Slot,
    waiter: Slot,
}

impl Get {
    #[inline]
    fn go_on<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        // Empty only where the garbage collector has cleared it.
        let Some(queue) = self.queue.take(py) else {
            return Step::done(py);
        };
        match QUEUE.of(&queue).get_plainly(&queue) {
            Some(item) => Ok(Step::Done(item)),
            None => self.look(queue),
        }
    }

    fn look<'py>(&self, queue: Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = queue.py();
        let state = QUEUE.of(&queue);
        let plan = state.plan(&queue)?;
        if state::is_empty(&queue, state, plan)? {
            if state.is_shut_down.get() && state::is_empty(&queue, state, plan)? {
                return Err(state::shut_down(py));
            }
            return wait(queue, Side::Getters, &self.queue, &self.waiter);
        }
        if plan.called.any(Called::GET_NOWAIT) {
            return method0(&queue, intern!(py, "get_nowait")).map(Step::Done);
        }
        if plan.called.any(Called::EMPTY) {
            // asks it again
            return state::get_nowait(&queue, state, plan).map(Step::Done);
        }
        state::get(&queue, state, plan).map(Step::Done)
    }
}

impl Operation for Get {
    operation!(Get, "Queue.get");

    #[inline]
    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        self.go_on(frame.py())
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let waiter = self.waiter.take(frame.py());
        match outcome {
            Ok(_) => self.go_on(frame.py()),
            Err(error) => {
                give_up(frame.py(), &self.queue, Side::Getters, waiter)?;
                Err(error)
            }
        }
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.queue, &self.waiter])
    }

    fn clear(&self) {
        self.queue.clear();
        self.waiter.clear();
    }
}

/// `Queue.join()`.
#[derive(Debug, Default)]
pub struct Join {
    /// The queue.
    pub queue: Slot,
}

impl Operation for Join {
    operation!(Join, "Queue.join");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        match self.queue.take(py) {
            Some(queue) if QUEUE.of(&queue).unfinished.get() > 0 => {
                let event = state::finished_event(&queue, QUEUE.of(&queue))?;
                method0(&event, intern!(py, "wait")).map(Step::Await)
            }
            _ => Step::done(py),
        }
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        outcome?;
        Step::done(frame.py())
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.queue)
    }

    fn clear(&self) {
        self.queue.clear();
    }
}

/// Stands in line, which is when the operation needs its queue again.
fn wait<'py>(
    queue: Bound<'py, PyAny>,
    side: Side,
    kept_queue: &Slot,
    kept_waiter: &Slot,
) -> PyResult<Step<'py>> {
    let state = QUEUE.of(&queue);
    let event_loop = bound_loop(&queue, &state.event_loop)?;
    let future = create_future(&event_loop)?;
    side.line(state).push(future.clone())?;
    kept_waiter.set(future.clone());
    kept_queue.set(queue);
    Ok(Step::Wait(future))
}

/// Leaves the line without having got anything. Who was woken meanwhile passes that on.
fn give_up(
    py: Python<'_>,
    queue: &Slot,
    side: Side,
    waiter: Option<Bound<'_, PyAny>>,
) -> PyResult<()> {
    let (Some(queue), Some(waiter)) = (queue.get(py), waiter) else {
        return Ok(());
    };
    let state = QUEUE.of(&queue);
    let was_cancelled = cancel(&waiter)?;
    side.line(state).discard(&waiter)?;
    let plan = state.plan(&queue)?;
    if may_go_on(&queue, state, plan, side)? && !was_cancelled {
        state::wake_next(&queue, state, plan, side)?;
    }
    Ok(())
}

/// Whether those who wait have what they wait for.
fn may_go_on(queue: &Bound<'_, PyAny>, state: &Queue, plan: Plan, side: Side) -> PyResult<bool> {
    let must_wait = match side {
        Side::Getters => state::is_empty(queue, state, plan)?,
        Side::Putters => state::is_full(queue, state, plan)?,
    };
    Ok(!must_wait)
}

/// Cancels a future that may be done, and says whether it is cancelled now.
fn cancel(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = future.py();
    if FUTURE.is_exact(future) {
        let fields = base::future(future);
        if fields.is_pending() {
            futures::cancel_pending(future, Some(py.None().into_bound(py)))?;
        }
        return Ok(fields.state.get() == base::CANCELLED);
    }
    method0(future, intern!(py, "cancel"))?;
    method0(future, intern!(py, "cancelled"))?.is_truthy()
}
