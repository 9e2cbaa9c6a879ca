//! Entering and leaving a group.

use std::ffi::c_int;

use pyo3::exceptions::{PyBaseExceptionGroup, PyGeneratorExit, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyType};

use super::version::version;
use super::{abort, is_base_error, of};
use crate::event_loop::registered_task;
use crate::ffi::call::{method0, raised};
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Slot, Visit};
use crate::imports::imports;
use crate::operation;
use crate::operations::{self, Operation, Step, create_future, running_loop};

/// The coroutine of `__aenter__()`.
#[derive(Debug, Default)]
pub struct Enter {
    group: Slot,
}

impl Operation for Enter {
    operation!(Enter, "TaskGroup.__aenter__");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let group = self.group.get_or_none(py);
        let state = of(&group);
        if state.entered.get() {
            return Err(PyRuntimeError::new_err(format!(
                "TaskGroup {} has already been entered",
                group.repr()?
            )));
        }
        let event_loop = match state.event_loop.get(py) {
            Some(event_loop) => event_loop,
            None => running_loop(py)?,
        };
        state.event_loop.set(event_loop.clone());
        let Some(parent) = registered_task(&event_loop)? else {
            return Err(PyRuntimeError::new_err(format!(
                "TaskGroup {} cannot determine the parent task",
                group.repr()?
            )));
        };
        state.parent.set(parent);
        state.entered.set(true);
        if state.cancel_on_enter.get() {
            method0(&group, intern!(py, "cancel"))?;
        }
        Ok(Step::Done(group))
    }

    fn resume<'py>(&self, _: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<Step<'py>> {
        outcome.map(Step::Done)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.group)
    }

    fn clear(&self) {
        self.group.clear();
    }
}

/// `__aenter__()`.
///
/// # Errors
/// `MemoryError`.
pub fn aenter<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(group.py(), |enter: &Enter| {
        enter.group.fill(group.clone());
    })
}

/// The coroutine of `__aexit__(et, exc, tb)`.
#[derive(Debug, Default)]
pub struct Exit {
    group: Slot,
    /// The class of the exception that the block has raised.
    class: Slot,
    /// That exception.
    error: Slot,
    /// The cancellation to raise at the end.
    propagated: Slot,
    /// The last cancellation that has come while children were waited for.
    pending: Slot,
}

impl Exit {
    /// Whether the block was left by a cancellation.
    fn is_cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(class) = self.class.get(py) else {
            return Ok(false);
        };
        let cancelled_error = imports(py).cancelled_error.bind(py);
        if class.is(cancelled_error) {
            return Ok(true);
        }
        Ok(version(py).knows_subclasses && class.cast::<PyType>()?.is_subclass(cancelled_error)?)
    }

    fn begin<'py>(&self, group: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = group.py();
        let state = of(group);
        state.exiting.set(true);
        let error = self.error.get(py);
        if let Some(error) = &error
            && is_base_error(group, error)?
            && !state.base_error.is_set()
        {
            state.base_error.set(error.clone());
        }
        if let Some(error) = error
            && self.is_cancelled(py)?
        {
            self.propagated.set(error);
        }
        if !version(py).settles_cancellation && state.uncancel_parent(py)? {
            self.propagated.clear();
        }
        if self.class.is_set() && !state.aborting.get() {
            abort(group)?;
        }
        self.wait(group)
    }

    /// Waits for the children that are left.
    fn wait<'py>(&self, group: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = group.py();
        let state = of(group);
        if !state.has_tasks(py)? {
            return self.finish(group);
        }
        let completed = if let Some(completed) = state.completed.get(py) {
            completed
        } else {
            let completed = create_future(&state.event_loop.get_or_none(py))?;
            state.completed.set(completed.clone());
            completed
        };
        Ok(Step::Wait(completed))
    }

    fn go_on<'py>(&self, group: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<Step<'py>> {
        let py = group.py();
        let state = of(group);
        if let Err(error) = outcome {
            if !error.matches(py, imports(py).cancelled_error.bind(py))? {
                return Err(error);
            }
            let error = error.into_value(py).into_bound(py).into_any();
            self.pending.set(error.clone());
            if !state.aborting.get() {
                self.propagated.set(error);
                abort(group)?;
            }
        }
        state.completed.clear();
        self.wait(group)
    }

    /// All children are done: raises what there is to raise.
    fn finish<'py>(&self, group: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = group.py();
        let state = of(group);
        if let Some(error) = state.base_error.get(py) {
            return Err(raised(&error));
        }
        let version = version(py);
        let pending = self.pending.take(py);
        if version.settles_cancellation && state.parent_cancel_requested.get() {
            if state.uncancel_parent(py)? {
                self.propagated.clear();
            } else if !self.propagated.is_set()
                && let Some(pending) = pending
            {
                // What is left was not asked for by the group.
                self.propagated.set(pending);
            }
        }
        if let Some(cancellation) = self.propagated.take(py)
            && !state.has_errors(py)?
        {
            return Err(raised(&cancellation));
        }
        if self.class.is_set() && !self.is_cancelled(py)? {
            state.errors(py)?.append(self.error.get_or_none(py))?;
        }
        if !state.has_errors(py)? {
            // From Python 3.15 on a group that was cancelled swallows the cancellation of its block.
            return if cfg!(Py_3_15) {
                Ok(Step::Done(PyBool::new(py, true).to_owned().into_any()))
            } else {
                Step::done(py)
            };
        }
        if version.settles_cancellation
            && let Some(parent) = state.parent.get(py)
            && method0(&parent, intern!(py, "cancelling"))?.is_truthy()?
        {
            // One from outside: its number stays what it is.
            method0(&parent, intern!(py, "uncancel"))?;
            method0(&parent, intern!(py, "cancel"))?;
        }
        let errors = state.errors(py)?;
        if version.spares_generators
            && errors.len() == 1
            && let Some(error) = self.error.get(py)
            && error.is_instance_of::<PyGeneratorExit>()
        {
            return Err(raised(&error));
        }
        let error = py
            .get_type::<PyBaseExceptionGroup>()
            .call1(("unhandled errors in a TaskGroup", &errors));
        drop(errors);
        state.forget_errors();
        let error = error?;
        // `raise … from None`
        error.setattr(intern!(py, "__cause__"), py.None())?;
        Err(raised(&error))
    }

    /// Lets go of what the group need not keep, where the operation has come to an end.
    fn settled<'py>(group: &Bound<'py, PyAny>, step: PyResult<Step<'py>>) -> PyResult<Step<'py>> {
        if matches!(step, Ok(Step::Wait(_))) {
            return step;
        }
        let state = of(group);
        // It refers to the group.
        state.callback.clear();
        if version(group.py()).forgets {
            state.parent.clear();
            state.base_error.clear();
            state.forget_errors();
        }
        step
    }
}

impl Operation for Exit {
    operation!(Exit, "TaskGroup.__aexit__");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let group = self.group.get_or_none(frame.py());
        let step = self.begin(&group);
        Self::settled(&group, step)
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let group = self.group.get_or_none(frame.py());
        let step = self.go_on(&group, outcome);
        Self::settled(&group, step)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([
            &self.group,
            &self.class,
            &self.error,
            &self.propagated,
            &self.pending,
        ])
    }

    fn clear(&self) {
        self.group.clear();
        self.class.clear();
        self.error.clear();
        self.propagated.clear();
        self.pending.clear();
    }
}

/// `__aexit__(et, exc, tb)`.
///
/// # Errors
/// `TypeError` for other arguments.
pub fn aexit<'py>(group: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [class, error, _] = args.bind_all("__aexit__", ["et", "exc", "tb"])?;
    operations::operation(group.py(), |exit: &Exit| {
        exit.group.fill(group.clone());
        if !class.is_none() {
            exit.class.fill(class.to_owned());
        }
        if !error.is_none() {
            exit.error.fill(error.to_owned());
        }
    })
}
