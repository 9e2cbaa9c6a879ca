//! `Barrier`.
//!
//! Its waiting is native; `reset()`, `abort()` and the rest are asyncio's own code, on the state that is here. Both work on
//! one condition, `_cond`, so that they exclude each other.

use std::cell::Cell;
use std::ffi::c_int;
use std::mem::offset_of;

use pyo3::Borrowed;
use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule};

use super::common::{Common, Primitive, description, inherited};
use super::condition::{Progress, Taking, Turn, Waiting, is_condition, release, wake_all};
use super::ready::ready;
use crate::ffi::call::method0;
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Class, Native, Slot, Visit};
use crate::imports::imports;
use crate::operations::{self, Operation, Step};
use crate::{make_operation, method, operation, property};

/// `_BarrierState`, in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Filling,
    Draining,
    Resetting,
    Broken,
}

const STATES: [State; 4] = [
    State::Filling,
    State::Draining,
    State::Resetting,
    State::Broken,
];

/// `Barrier`.
#[derive(Debug, Default)]
pub struct Barrier {
    state: Cell<State>,
    parties: Cell<i64>,
    count: Cell<i64>,
    condition: Slot,
    common: Common,
}

static BARRIER: Class<Barrier> = Class::new();

impl Native for Barrier {
    fn class() -> &'static Class<Self> {
        &BARRIER
    }

    fn traverse(&self, visit: Visit) -> c_int {
        match visit.slot(&self.condition) {
            0 => self.common.traverse(visit),
            answer => answer,
        }
    }

    fn clear(&self, _: Python<'_>) {
        self.condition.clear();
        self.common.clear();
    }
}

impl Primitive for Barrier {
    const COMMON: usize = offset_of!(Barrier, common);

    fn common(&self) -> &Common {
        &self.common
    }
}

#[cold]
fn broken(py: Python<'_>, message: &'static str) -> PyErr {
    PyErr::from_type(imports(py).broken_barrier_error.bind(py).clone(), message)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Until the condition's lock is taken.
    #[default]
    Entering,
    /// While those before are let go.
    Blocked,
    /// Until all parties are here.
    Filling,
}

/// `Barrier.wait()`.
#[derive(Debug, Default)]
struct Wait {
    barrier: Slot,
    condition: Slot,
    stage: Cell<Stage>,
    index: Cell<i64>,
    turn: Turn,
    waiting: Waiting,
}

impl Wait {
    /// Past those before, into the barrier.
    fn enter<'py>(&self, state: &Barrier, condition: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = condition.py();
        self.stage.set(Stage::Blocked);
        while matches!(state.state.get(), State::Draining | State::Resetting) {
            match self.waiting.start(condition) {
                Ok(Progress::Goes(step)) => return Ok(step),
                Ok(Progress::Notified) => {}
                Err(error) => return leave(condition, Err(error)),
            }
        }
        if state.state.get() == State::Broken {
            return leave(condition, Err(broken(py, "Barrier aborted")));
        }
        self.index.set(state.count.get());
        state.count.set(state.count.get() + 1);
        if self.index.get() + 1 == state.parties.get() {
            state.state.set(State::Draining);
            let woken = wake_all(condition);
            return self.exit(state, condition, woken);
        }
        self.fill(state, condition)
    }

    /// Waits until all parties are here.
    fn fill<'py>(&self, state: &Barrier, condition: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        self.stage.set(Stage::Filling);
        while state.state.get() == State::Filling {
            match self.waiting.start(condition) {
                Ok(Progress::Goes(step)) => return Ok(step),
                Ok(Progress::Notified) => {}
                Err(error) => return self.exit(state, condition, Err(error)),
            }
        }
        let outcome = match state.state.get() {
            State::Broken | State::Resetting => {
                Err(broken(condition.py(), "Abort or reset of barrier"))
            }
            _ => Ok(()),
        };
        self.exit(state, condition, outcome)
    }

    /// Out of the barrier; the last one opens it for the next.
    fn exit<'py>(
        &self,
        state: &Barrier,
        condition: &Bound<'py, PyAny>,
        outcome: PyResult<()>,
    ) -> PyResult<Step<'py>> {
        state.count.set(state.count.get() - 1);
        let mut outcome = outcome;
        if state.count.get() == 0 {
            if matches!(state.state.get(), State::Resetting | State::Draining) {
                state.state.set(State::Filling);
            }
            if let Err(error) = wake_all(condition) {
                outcome = Err(error);
            }
        }
        let index = self.index.get().into_pyobject(condition.py())?.into_any();
        leave(condition, outcome.map(|()| index))
    }
}

/// Gives the condition's lock back.
fn leave<'py>(condition: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<Step<'py>> {
    release(condition)?;
    outcome.map(Step::Done)
}

impl Operation for Wait {
    operation!(Wait, "Barrier.wait");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let barrier = self.barrier.get_or_none(py);
        let state = BARRIER.get(&barrier).ok_or_else(super::gone)?;
        let condition = state.condition.get(py).ok_or_else(super::gone)?;
        self.condition.set(condition.clone());
        match self.turn.take(&condition)? {
            Taking::Taken => self.enter(state, &condition),
            Taking::Waits(step) => Ok(step),
        }
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        let barrier = self.barrier.get_or_none(py);
        let (Some(state), Some(condition)) = (BARRIER.get(&barrier), self.condition.get(py)) else {
            return Err(outcome.err().unwrap_or_else(super::gone));
        };
        let reached = self.stage.get();
        if reached == Stage::Entering {
            self.turn.taken(py, outcome)?;
            return self.enter(state, &condition);
        }
        match (self.waiting.resume(&condition, outcome), reached) {
            (Ok(Progress::Goes(step)), _) => Ok(step),
            (Ok(Progress::Notified), Stage::Filling) => self.fill(state, &condition),
            (Ok(Progress::Notified), _) => self.enter(state, &condition),
            (Err(error), Stage::Filling) => self.exit(state, &condition, Err(error)),
            (Err(error), _) => leave(&condition, Err(error)),
        }
    }

    fn traverse(&self, visit: Visit) -> c_int {
        for answer in [
            visit.slots([&self.barrier, &self.condition]),
            self.turn.traverse(visit),
            self.waiting.traverse(visit),
        ] {
            if answer != 0 {
                return answer;
            }
        }
        0
    }

    fn clear(&self) {
        self.barrier.clear();
        self.condition.clear();
        self.turn.clear();
        self.waiting.clear();
    }
}

fn wait<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let condition = BARRIER.of(object).condition.get_or_none(py);
    if !is_condition(&condition) {
        return inherited(&imports(py).barrier_wait, object);
    }
    operations::operation(py, |wait: &Wait| wait.barrier.fill(object.clone()))
}

fn enter<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    method0(object, intern!(object.py(), "wait"))
}

fn exit<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    args.no_keywords("__aexit__")?;
    ready(object.py())
}

fn get_state<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let state = BARRIER.of(object).state.get();
    let members = imports(py).barrier_states.bind(py);
    Ok(members.get_item(state as usize)?.clone())
}

fn set_state(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    let py = object.py();
    let members = imports(py).barrier_states.bind(py);
    let found = STATES
        .into_iter()
        .zip(members.iter())
        .find(|(_, member)| value.is_some_and(|value| member.is(&*value)));
    let (state, _) = found.ok_or_else(|| PyValueError::new_err("not a state of a barrier"))?;
    BARRIER.of(object).state.set(state);
    Ok(())
}

fn number(value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<i64> {
    value
        .ok_or_else(|| PyAttributeError::new_err("a number of a barrier"))?
        .extract()
}

fn get_parties<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let parties = BARRIER.of(object).parties.get();
    Ok(parties.into_pyobject(object.py())?.into_any())
}

fn set_parties(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    BARRIER.of(object).parties.set(number(value)?);
    Ok(())
}

fn get_count<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let count = BARRIER.of(object).count.get();
    Ok(count.into_pyobject(object.py())?.into_any())
}

fn set_count(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    BARRIER.of(object).count.set(number(value)?);
    Ok(())
}

fn get_condition<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let condition = BARRIER.of(object).condition.get(object.py());
    condition.ok_or_else(|| PyAttributeError::new_err("_cond"))
}

fn set_condition(
    object: &Bound<'_, PyAny>,
    value: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<()> {
    let value = value.ok_or_else(|| PyAttributeError::new_err("_cond"))?;
    BARRIER.of(object).condition.set(value.to_owned());
    Ok(())
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    make_operation!(py, Wait)?;
    let class = BARRIER.make(
        py,
        c"weft._weft.Barrier",
        None,
        description::<Barrier>(
            vec![
                method!(none "wait" => wait,
                    "wait($self, /)\n--\n\nCoroutine that waits until all parties do, and returns a number from 0 to parties - 1 that no other gets. Raises BrokenBarrierError where the barrier is reset or aborted."),
                method!(none "__aenter__" => enter, "__aenter__($self, /)\n--\n\nWait for all parties."),
                method!(fast "__aexit__" => exit, "__aexit__($self, *args)\n--\n\nWithout effect."),
            ],
            vec![
                property!("_state" => get_state, set_state),
                property!("_parties" => get_parties, set_parties),
                property!("_count" => get_count, set_count),
                property!("_cond" => get_condition, set_condition),
            ],
            None,
            c"The native part of weft.Barrier.",
        ),
    )?;
    module.add("Barrier", class)
}
