//! One step of a task: resuming its coroutine, and waiting for what it yields.

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};

use super::{TASK, own_context, steps_natively};
use crate::event_loop::handles::is_fatal;
use crate::event_loop::{EVENT_LOOP, EventLoop, Ready, enter_task, interrupt_task, rest_task};
use crate::ffi::base;
use crate::ffi::call::{MethodDefinition, Sent, bound_method, call1, method1, send_none};
use crate::ffi::context;
use crate::ffi::lifecycle::track;
use crate::ffi::method::Returned;
use crate::ffi::object::{is_generator, reference_count};
use crate::futures;
use crate::imports::imports;
use crate::method;

/// Whether `object` is a future or task whose callbacks are scheduled natively, so that it may hold a waiter.
#[inline]
fn is_native(object: &Bound<'_, PyAny>) -> bool {
    futures::is_native(object) || steps_natively(object)
}

/// The ready queue's job: the first step of a task that the garbage collector does not see yet.
pub(super) fn first_step<'py>(
    event_loop: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let outcome = step(event_loop, task, None);
    // One that has ended and that nobody holds is about to be freed.
    if base::future(task).is_pending() || reference_count(task) > 1 {
        track(task);
    }
    outcome
}

/// The first step of a task that begins where it is made, mostly within another task's step.
pub(super) fn step_at_once<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    let fields = base::task(task);
    let Some(context) = fields.context.get(py) else {
        return Ok(());
    };
    let outcome = interrupt_task(state, event_loop, || {
        step_in(state, event_loop, task, None, &context)
    });
    if !fields.future.is_pending() {
        fields.coroutine.clear();
    } else if outcome.is_err() {
        // It could not even begin, and never will: whoever was to have it gets the error.
        fields.set_log_destroy_pending(false);
    }
    outcome
}

/// The ready queue's job: the first step, one after a bare `yield`, or one that throws `exception` in.
pub(super) fn step<'py>(
    event_loop: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
    exception: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let state = EVENT_LOOP.of(event_loop);
    let Some(context) = base::task(task).context.get(event_loop.py()) else {
        return Ok(());
    };
    let outcome = if TASK.of(task).shares_context.get() {
        step_in_working_copy(state, event_loop, task, exception, &context)
    } else {
        step_in(state, event_loop, task, exception, &context)
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => report(event_loop, task, error),
    }
}

fn step_in<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
    exception: Option<Bound<'py, PyAny>>,
    context: &Bound<'py, PyAny>,
) -> PyResult<()> {
    context::enter(context)?;
    let outcome = step_here(state, event_loop, task, exception);
    context::exit(context)?;
    outcome
}

#[inline]
fn step_in_working_copy<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
    exception: Option<Bound<'py, PyAny>>,
    snapshot: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let contexts = state.contexts();
    let working = contexts.enter_for(task, snapshot)?;
    let outcome = step_here(state, event_loop, task, exception);
    if let Some(own) = contexts.leave_for(working, snapshot)?
        && TASK.of(task).shares_context.replace(false)
    {
        base::task(task).context.set(own);
    }
    outcome
}

/// The ready queue's job: resumes a task whose waiter is done.
pub fn wake<'py>(
    event_loop: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let exception = match base::task(task).waiter.get(event_loop.py()) {
        Some(waiter) => match outcome(&waiter) {
            Ok(()) => None,
            Err(error) => Some(
                error
                    .into_value(event_loop.py())
                    .into_bound(event_loop.py())
                    .into_any(),
            ),
        },
        None => None,
    };
    step(event_loop, task, exception)
}

/// Raises what a finished future raises; drops what it returns.
#[inline]
fn outcome(future: &Bound<'_, PyAny>) -> PyResult<()> {
    if is_native(future) {
        let fields = base::future(future);
        if fields.state.get() == base::FINISHED && !fields.exception.is_set() {
            fields.set_log_traceback(false);
            return Ok(());
        }
    }
    future
        .call_method0(intern!(future.py(), "result"))
        .map(drop)
}

/// What a step that could not even start does to the loop: it is reported like any callback's exception.
#[cold]
fn report(event_loop: &Bound<'_, PyAny>, task: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
    let py = event_loop.py();
    if is_fatal(py, &error) {
        return Err(error);
    }
    let details = PyDict::new(py);
    details.set_item(
        "message",
        format!("Exception in callback {}", wakeup_method(task)?.repr()?),
    )?;
    details.set_item("exception", error.into_value(py))?;
    details.set_item("task", task)?;
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,))?;
    Ok(())
}

/// Runs one step in the context that is current now.
#[inline]
fn step_here<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
    mut exception: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = event_loop.py();
    let fields = base::task(task);
    if !fields.future.is_pending() {
        return Err(already_done(task, exception.as_ref()));
    }
    if fields.must_cancel() {
        let cancelled_error = imports(py).cancelled_error.bind(py);
        let is_cancellation = match &exception {
            Some(exception) => exception.is_instance(cancelled_error)?,
            None => false,
        };
        if !is_cancellation {
            exception = Some(task.call_method0(intern!(py, "_make_cancelled_error"))?);
        }
        fields.set_must_cancel(false);
    }
    if let Some(waiter) = fields.waiter.take(py) {
        futures::forget_awaited_by(&waiter, task)?;
    }
    let Some(coroutine) = fields.coroutine.get(py) else {
        return Err(PyRuntimeError::new_err("uninitialized Task object"));
    };
    enter_task(state, event_loop, task)?;
    let sent = match exception {
        None => send_none(&coroutine),
        Some(exception) => throw(&coroutine, &exception),
    };
    match sent {
        Sent::Yielded(result) => match wait_for(state, event_loop, task, result) {
            // A task that cannot wait must not hang: it gets the reason at its next step.
            Err(error) if !is_fatal(py, &error) => {
                throw_soon(state, task, error);
                Ok(())
            }
            outcome => outcome,
        },
        Sent::Returned(value) => {
            // Nobody may meet a finished task as the current one: neither the destructors that its end runs, nor theirs
            // who look when it has been let go.
            rest_task(state, event_loop)?;
            if fields.must_cancel() {
                fields.set_must_cancel(false);
                let message = fields.future.cancel_message.get(py);
                futures::cancel_pending(task, message)
            } else {
                futures::finish(task, value)
            }
        }
        Sent::Raised(error) => {
            rest_task(state, event_loop)?;
            end_with(task, error)
        }
    }
}

#[cold]
fn already_done(task: &Bound<'_, PyAny>, exception: Option<&Bound<'_, PyAny>>) -> PyErr {
    let py = task.py();
    let describe = || -> PyResult<String> {
        let exception = exception.map_or_else(|| py.None().into_bound(py), Clone::clone);
        Ok(format!(
            "__step(): already done: {}, {}",
            task.repr()?,
            exception.repr()?
        ))
    };
    match describe() {
        Ok(message) => {
            let class = imports(py).invalid_state_error.bind(py);
            PyErr::from_type(class.clone(), message)
        }
        Err(error) => error,
    }
}

/// `coroutine.throw(exception)`.
fn throw<'py>(coroutine: &Bound<'py, PyAny>, exception: &Bound<'py, PyAny>) -> Sent<'py> {
    let py = coroutine.py();
    match method1(coroutine, intern!(py, "throw"), exception) {
        Ok(result) => Sent::Yielded(result),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            match error.value(py).getattr(intern!(py, "value")) {
                Ok(value) => Sent::Returned(value),
                Err(error) => Sent::Raised(error),
            }
        }
        Err(error) => Sent::Raised(error),
    }
}

/// Ends a task with what its coroutine has raised.
fn end_with(task: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
    let py = task.py();
    let fields = base::task(task);
    if error.matches(py, imports(py).cancelled_error.bind(py))? {
        // Kept, so that whoever awaits the task gets this very exception, with its message.
        fields
            .future
            .cancelled_error
            .set(error.into_value(py).into_bound(py).into_any());
        fields.future.set_log_traceback(false);
        return futures::cancel_pending(task, None);
    }
    let fatal = is_fatal(py, &error);
    let value = error.into_value(py).into_bound(py).into_any();
    futures::fail(task, &value)?;
    if fatal {
        Err(PyErr::from_value(value))
    } else {
        Ok(())
    }
}

/// Makes the task wait for what its coroutine has yielded.
#[inline]
fn wait_for<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
    awaited: Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    let fields = base::task(task);
    if awaited.is(task) {
        return fail_soon(
            state,
            task,
            format!("Task cannot await on itself: {}", task.repr()?),
        );
    }
    if is_native(&awaited) {
        let future = base::future(&awaited);
        if !future.event_loop.is(event_loop) {
            return different_loop(state, task, &awaited);
        }
        if !future.blocking() {
            return yielded_future(state, task, &awaited);
        }
        future.set_blocking(false);
        if future.is_pending() {
            futures::add_waiter(&awaited, task)?;
        } else {
            state.push(Ready::Job {
                run: wake,
                object: task.clone().into(),
                argument: None,
            });
        }
        futures::note_awaited_by(&awaited, task)?;
        fields.waiter.set(awaited);
        return cancel_waiter(task);
    }
    if awaited.is_none() {
        state.push(Ready::Job {
            run: step,
            object: task.clone().into(),
            argument: None,
        });
        return Ok(());
    }
    let blocking = awaited.getattr_opt(intern!(py, "_asyncio_future_blocking"))?;
    if let Some(blocking) = blocking.filter(|blocking| !blocking.is_none()) {
        if !call1(imports(py).future_loop.bind(py), &awaited)?.is(event_loop) {
            return different_loop(state, task, &awaited);
        }
        if !blocking.is_truthy()? {
            return yielded_future(state, task, &awaited);
        }
        awaited.setattr(intern!(py, "_asyncio_future_blocking"), false)?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), own_context(task)?)?;
        awaited.call_method(
            intern!(py, "add_done_callback"),
            (wakeup_method(task)?,),
            Some(&keywords),
        )?;
        futures::note_awaited_by(&awaited, task)?;
        fields.waiter.set(awaited);
        return cancel_waiter(task);
    }
    let message = if is_generator(&awaited) {
        format!(
            "yield was used instead of yield from for generator in task {} with {}",
            task.repr()?,
            awaited.repr()?
        )
    } else {
        format!("Task got bad yield: {}", awaited.repr()?)
    };
    fail_soon(state, task, message)
}

/// Passes a cancellation, requested while the task ran, on to what it waits for now.
#[inline]
fn cancel_waiter(task: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = task.py();
    let fields = base::task(task);
    if !fields.must_cancel() {
        return Ok(());
    }
    let Some(waiter) = fields.waiter.get(py) else {
        return Ok(());
    };
    let keywords = PyDict::new(py);
    keywords.set_item("msg", fields.future.cancel_message.get(py))?;
    if waiter
        .call_method(intern!(py, "cancel"), (), Some(&keywords))?
        .is_truthy()?
    {
        fields.set_must_cancel(false);
    }
    Ok(())
}

#[cold]
fn different_loop(
    state: &EventLoop,
    task: &Bound<'_, PyAny>,
    future: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let message = format!(
        "Task {} got Future {} attached to a different loop",
        task.repr()?,
        future.repr()?
    );
    fail_soon(state, task, message)
}

#[cold]
fn yielded_future(
    state: &EventLoop,
    task: &Bound<'_, PyAny>,
    future: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let message = format!(
        "yield was used instead of yield from in task {} with {}",
        task.repr()?,
        future.repr()?
    );
    fail_soon(state, task, message)
}

/// Throws a `RuntimeError` into the task at its next step.
#[cold]
fn fail_soon(state: &EventLoop, task: &Bound<'_, PyAny>, message: String) -> PyResult<()> {
    throw_soon(state, task, PyRuntimeError::new_err(message));
    Ok(())
}

#[cold]
fn throw_soon(state: &EventLoop, task: &Bound<'_, PyAny>, error: PyErr) {
    let error = error.into_value(task.py()).into_bound(task.py()).into_any();
    state.push(Ready::Job {
        run: step,
        object: task.clone().into(),
        argument: Some(error.into()),
    });
}

/// `task_wakeup(future)`: the done-callback by which futures that are not native wake a native task.
fn wakeup<'py>(task: &Bound<'py, PyAny>, future: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = task.py();
    let exception = match outcome(future) {
        Ok(()) => None,
        Err(error)
            if is_fatal(py, &error) && !future.is_instance(imports(py).future.bind(py))? =>
        {
            return Err(error);
        }
        Err(error) => Some(error.into_value(py).into_bound(py).into_any()),
    };
    let Some(event_loop) = base::task(task).future.event_loop.get(py) else {
        return Ok(py.None().into_bound(py));
    };
    if let Some(state) = EVENT_LOOP.get(&event_loop) {
        interrupt_task(state, &event_loop, || {
            step_here(state, &event_loop, task, exception)
        })?;
    }
    Ok(py.None().into_bound(py))
}

/// The bound method that stands for a waiting native task wherever Python looks.
///
/// # Errors
/// `MemoryError`.
pub fn wakeup_method<'py>(task: &Bound<'py, PyAny>) -> Returned<'py> {
    // Its caller enters the task's context.
    own_context(task)?;
    bound_method(&WAKEUP, task)
}

static WAKEUP: MethodDefinition = MethodDefinition::new(
    method!(one "task_wakeup" => wakeup, "Resume the task with the outcome of the future that it has waited for."),
);
