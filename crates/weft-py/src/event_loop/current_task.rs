//! Which task asyncio believes to be running on a loop.
//!
//! asyncio's registry is swapped lazily: a step that follows another task's step replaces the entry, and only a plain
//! callback, a blocking poll or the end of the run takes it out.

use pyo3::prelude::*;
use pyo3::types::PyAny;
#[cfg(not(Py_3_14))]
use pyo3::types::{PyDict, PyDictMethods};

use super::EventLoop;
use crate::imports::imports;

/// Makes `task` the current task of `event_loop`.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn enter_task<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
) -> PyResult<()> {
    if state.current_task.is(task) {
        return Ok(());
    }
    swap(event_loop, Some(task))?;
    state.current_task.set(task.clone());
    Ok(())
}

/// Leaves no task current on `event_loop`.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn leave_task(state: &EventLoop, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    if !state.current_task.is_set() {
        return Ok(());
    }
    swap(event_loop, None)?;
    state.current_task.clear();
    Ok(())
}

/// Leaves no task current, where the next step is likely to be near: the registry's entry stays and names `None`, which
/// is less work than taking it out and putting it in again. Only until foreign code is called: that wants no entry.
///
/// # Errors
/// `MemoryError`.
#[cfg(not(Py_3_14))]
#[inline]
pub fn rest_task(state: &EventLoop, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let none = event_loop.py().None().into_bound(event_loop.py());
    if !state.current_task.is_set() || state.current_task.is(&none) {
        return Ok(());
    }
    swap(event_loop, Some(&none))?;
    state.current_task.set(none);
    Ok(())
}

/// Leaves no task current: here that is the same for asyncio's registry however soon the next step comes.
///
/// # Errors
/// `MemoryError`.
#[cfg(Py_3_14)]
#[inline]
pub fn rest_task(state: &EventLoop, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    leave_task(state, event_loop)
}

#[cfg(not(Py_3_14))]
#[inline]
fn swap<'py>(event_loop: &Bound<'py, PyAny>, task: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
    let py = event_loop.py();
    let current = imports(py).current_tasks.bind(py).cast::<PyDict>()?;
    match task {
        Some(task) => current.set_item(event_loop, task),
        None => match current.del_item(event_loop) {
            // Somebody else's step may have taken the entry out.
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyKeyError>(py) => Ok(()),
            outcome => outcome,
        },
    }
}

#[cfg(Py_3_14)]
#[inline]
fn swap<'py>(event_loop: &Bound<'py, PyAny>, task: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
    let py = event_loop.py();
    let none = py.None().into_bound(py);
    let swap = imports(py).current_tasks.bind(py);
    crate::ffi::call::call2(swap, event_loop, task.unwrap_or(&none)).map(drop)
}

/// The task that is current on the loop, as far as native code has set it.
pub fn current_task<'py>(state: &EventLoop, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
    state.current_task.get(py).filter(|task| !task.is_none())
}

/// The task that asyncio's registry names as the current one, whoever has set it.
///
/// # Errors
/// What the look-up raises.
pub fn registered_task<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = event_loop.py();
    #[cfg(not(Py_3_14))]
    {
        let tasks = imports(py).current_tasks.bind(py).cast::<PyDict>()?;
        let task = tasks.get_item(event_loop)?;
        Ok(task.filter(|task| !task.is_none()))
    }
    #[cfg(Py_3_14)]
    {
        let task = crate::ffi::call::call1(imports(py).current_task.bind(py), event_loop)?;
        Ok(Some(task).filter(|task| !task.is_none()))
    }
}

/// Runs a step within whatever runs now, and makes the task that is current now the current one again.
///
/// # Errors
/// What `step` returns, `MemoryError`.
pub fn interrupt_task(
    state: &EventLoop,
    event_loop: &Bound<'_, PyAny>,
    step: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    // They differ within a step of somebody else's task.
    let registered = registered_task(event_loop)?;
    let ours = current_task(state, event_loop.py());
    let outcome = step();
    let restored = swap(event_loop, registered.as_ref());
    match ours {
        Some(task) => state.current_task.set(task),
        None => state.current_task.clear(),
    }
    outcome.and(restored)
}

/// Makes asyncio's registry name `task` again, after somebody else's step has failed half-way.
///
/// # Errors
/// `MemoryError`.
pub fn restore_task<'py>(
    event_loop: &Bound<'py, PyAny>,
    task: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let current = registered_task(event_loop)?;
    if current.as_ref().map(Bound::as_ptr) == task.map(Bound::as_ptr) {
        // Nothing was begun. The registry would not be told while the loop does not run.
        return Ok(());
    }
    swap(event_loop, task)
}
