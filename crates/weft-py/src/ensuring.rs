//! `ensure_future()`, `create_task()` and `current_task()`.

use pyo3::Borrowed;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};

use crate::event_loop::registered_task;
use crate::ffi::base;
use crate::ffi::call::{call0, call1};
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::object::is_coroutine;
use crate::futures::feeds_directly;
use crate::imports::imports;
use crate::operations::running_loop;
use crate::{method, tasks};

/// Whether `object` is a future of any kind, as `asyncio.isfuture()` sees it.
///
/// # Errors
/// What the object's attributes raise.
#[inline]
pub fn is_future(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    if feeds_directly(object) {
        return Ok(true);
    }
    let py = object.py();
    let blocking = intern!(py, "_asyncio_future_blocking");
    Ok(object
        .getattr(intern!(py, "__class__"))?
        .hasattr(blocking)?
        && !object.getattr(blocking)?.is_none())
}

/// Whether `object` is a coroutine of any kind, as `asyncio.iscoroutine()` sees it.
///
/// # Errors
/// What the check raises.
#[inline]
pub fn is_any_coroutine(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    if is_coroutine(object) {
        return Ok(true);
    }
    call1(imports(object.py()).is_coroutine.bind(object.py()), object)?.is_truthy()
}

/// The loop of a future of any kind.
///
/// # Errors
/// What a foreign future raises.
#[inline]
pub fn loop_of<'py>(future: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = future.py();
    if feeds_directly(future)
        && let Some(event_loop) = base::future(future).event_loop.get(py)
    {
        return Ok(event_loop);
    }
    call1(imports(py).future_loop.bind(py), future)
}

/// The running loop or, where none is running, the thread's.
///
/// # Errors
/// What the policy raises where there is none.
#[inline]
pub fn thread_loop(py: Python<'_>) -> Returned<'_> {
    call0(imports(py).get_event_loop.bind(py))
}

/// The task that runs now on `event_loop`, to be recorded as the one that awaits a future: call graphs came with Python
/// 3.14, up to 3.13 there is none.
///
/// # Errors
/// What the look-up raises.
#[inline]
pub fn caller_on<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if cfg!(Py_3_14) {
        registered_task(event_loop)
    } else {
        Ok(None)
    }
}

/// A future for `awaitable`: itself, where it is one, else a new task of `event_loop`.
///
/// # Errors
/// `TypeError` where it cannot be awaited, `ValueError` where it belongs to another loop, and what making a task raises.
#[inline]
pub fn ensure_future<'py>(
    awaitable: &Bound<'py, PyAny>,
    event_loop: Option<&Bound<'py, PyAny>>,
) -> Returned<'py> {
    if is_coroutine(awaitable) {
        return task_of(awaitable, event_loop);
    }
    if feeds_directly(awaitable)
        && event_loop.is_none_or(|event_loop| base::future(awaitable).event_loop.is(event_loop))
    {
        return Ok(awaitable.clone());
    }
    // What is neither is rare. asyncio knows all the rest, and the words of its complaints.
    let py = awaitable.py();
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "loop"), event_loop)?;
    imports(py)
        .ensure_future
        .bind(py)
        .call((awaitable,), Some(&keywords))
}

/// A task for a coroutine, which is closed where there is no loop that would take it.
#[inline]
fn task_of<'py>(
    coroutine: &Bound<'py, PyAny>,
    event_loop: Option<&Bound<'py, PyAny>>,
) -> Returned<'py> {
    let py = coroutine.py();
    let asked;
    let event_loop = if let Some(event_loop) = event_loop {
        event_loop
    } else {
        asked = thread_loop(py)?;
        &asked
    };
    let created = match tasks::create(event_loop, coroutine, None, None) {
        Ok(Some(task)) => return Ok(task),
        Ok(None) => event_loop.call_method1(intern!(py, "create_task"), (coroutine,)),
        Err(error) => Err(error),
    };
    if let Err(error) = &created
        && error.is_instance_of::<PyRuntimeError>(py)
    {
        coroutine.call_method0(intern!(py, "close"))?;
    }
    created
}

fn ensure_future_function<'py>(module: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let _ = module;
    args.at_most("ensure_future", 1)?;
    let [awaitable, event_loop] = args.bind("ensure_future", ["coro_or_future", "loop"])?;
    let awaitable = awaitable.ok_or_else(|| missing_argument("ensure_future", "coro_or_future"))?;
    let event_loop = event_loop.filter(|event_loop| !event_loop.is_none());
    ensure_future(&awaitable, event_loop.as_deref())
}

/// `create_task(coro, *, name=None, context=None)`, with whatever `loop.create_task` takes from Python 3.14 on.
fn create_task<'py>(module: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = module.py();
    args.at_most("create_task", 1)?;
    let mut known = [args.get(0), None, None];
    let mut further = Vec::new();
    for (keyword, value) in args.keywords() {
        if cfg!(Py_3_14) && !NAMES.iter().any(|name| keyword == *name) {
            further.push((keyword, value));
        } else {
            args.bind_keyword("create_task", &NAMES, &mut known, &keyword, value)?;
        }
    }
    let [coroutine, name, context] = known;
    let coroutine = coroutine.ok_or_else(|| missing_argument("create_task", "coro"))?;
    let event_loop = running_loop(py)?;
    let given = |value: &Borrowed<'_, 'py, PyAny>| !value.is_none();
    let usual_name = name.filter(given);
    let usual_context = context.filter(given);
    if further.is_empty() {
        // Up to Python 3.12 a name is given to a task that has had one.
        let at_once = usual_name.as_deref().filter(|_| cfg!(Py_3_13));
        let task = tasks::create(&event_loop, &coroutine, at_once, usual_context.as_deref())?;
        if let Some(task) = task {
            if !cfg!(Py_3_13)
                && let Some(name) = usual_name
            {
                task.call_method1(intern!(py, "set_name"), (name,))?;
            }
            return Ok(task);
        }
    }
    let keywords = PyDict::new(py);
    if cfg!(Py_3_14) {
        for (keyword, value) in further {
            keywords.set_item(keyword, value)?;
        }
        for (keyword, value) in [("name", name), ("context", context)] {
            if let Some(value) = value {
                keywords.set_item(keyword, value)?;
            }
        }
    } else {
        if cfg!(Py_3_13) {
            keywords.set_item("name", name.unwrap_or_else(|| args.none()))?;
        }
        if let Some(context) = usual_context {
            keywords.set_item("context", context)?;
        }
    }
    let task = event_loop.call_method(intern!(py, "create_task"), (coroutine,), Some(&keywords))?;
    if !cfg!(Py_3_13)
        && let Some(name) = usual_name
    {
        py.import("asyncio.tasks")?
            .call_method1("_set_task_name", (&task, name))?;
    }
    Ok(task)
}

const NAMES: [&str; 3] = ["coro", "name", "context"];

/// `current_task(loop=None)`.
fn current_task<'py>(module: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = module.py();
    let [event_loop] = args.bind("current_task", ["loop"])?;
    let task = match event_loop {
        Some(event_loop) if !event_loop.is_none() => registered_task(&event_loop)?,
        _ => registered_task(&running_loop(py)?)?,
    };
    Ok(task.unwrap_or_else(|| py.None().into_bound(py)))
}

/// The functions of the module.
pub fn functions() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "ensure_future" => ensure_future_function,
            "ensure_future($module, /, coro_or_future, *, loop=None)\n--\n\nReturn a future for an awaitable: itself, or a new task that awaits it."),
        #[cfg(not(Py_3_14))]
        method!(fast "create_task" => create_task,
            "create_task($module, /, coro, *, name=None, context=None)\n--\n\nSchedule a coroutine on the running loop and return its task."),
        #[cfg(Py_3_14)]
        method!(fast "create_task" => create_task,
            "create_task($module, /, coro, **kwargs)\n--\n\nSchedule a coroutine on the running loop and return its task."),
        method!(fast "current_task" => current_task,
            "current_task($module, /, loop=None)\n--\n\nReturn the task that runs now, or None inside a plain callback."),
    ]
}
