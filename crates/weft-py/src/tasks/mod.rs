//! `Task`: a subclass of `_asyncio.Task` whose steps the native loop runs without a handle.
//!
//! Like a native future it keeps its state in the base's fields, and inherits everything that is not scheduling. A
//! task on a loop that is not ours, in debug mode, or of a user's subclass, is initialised by the base and stepped by
//! the base.
//!
//! Invariants of a task that steps natively:
//!
//! - At most one entry of the ready queue will step it, or one future holds it as a waiter.
//! - While it waits, `waiter` holds the future; a wake-up reads the outcome from there.
//! - Everything of a step happens in the task's context, and with the task as the current one.

mod step;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
#[cfg(not(Py_3_12))]
use pyo3::types::PyString;
use pyo3::types::{PyAny, PyDict, PyList, PyTuple};

use crate::event_loop::{
    self, EVENT_LOOP, EventLoop, InItsPlace, Ready, registered_task, restore_task,
};
use crate::ffi::base;
use crate::ffi::call::{call1, method0};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::{extending_slots, is_finalized, untrack};
use crate::ffi::method::{Args, Returned};
use crate::ffi::object::{is_coroutine, is_exact_string};
use crate::ffi::registry::{self, Member};
use crate::ffi::{Class, Native, context};
use crate::futures::{self, FUTURE, Waiters};
use crate::imports::imports;
use crate::{method, slot};
use step::{first_step, step, step_at_once, wake, wakeup_method};

/// What a native task adds to its base.
#[derive(Debug, Default)]
pub struct Task {
    /// The number in `Task-N`, made into a string when somebody asks; 0 for a named task.
    #[cfg(not(Py_3_12))]
    number: Cell<u64>,
    /// Whether our steps drive it; otherwise the base's do, and what they schedule must be callable.
    steps_natively: Cell<bool>,
    /// Whether the base's `context` is a snapshot that others share; see [`own_context`].
    shares_context: Cell<bool>,
    /// Its place among the living tasks, where asyncio's own registry is not used.
    member: Member,
}

impl Native for Task {
    const EXTENDS: bool = true;
    const RECYCLED: usize = 12_288;

    fn class() -> &'static Class<Self> {
        &TASK
    }
}

/// `weft.Task`.
pub static TASK: Class<Task> = Class::new();

/// Whether `object` is a task that our steps drive.
#[inline]
pub fn steps_natively(object: &Bound<'_, PyAny>) -> bool {
    TASK.get_exact(object)
        .is_some_and(|task| task.steps_natively.get())
}

static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The next number for a name. The GIL is held, so two numbers cannot be taken at a time.
#[inline]
fn next_number() -> u64 {
    let number = LAST_NUMBER.load(Ordering::Relaxed) + 1;
    LAST_NUMBER.store(number, Ordering::Relaxed);
    number
}

/// What a task is made of.
#[derive(Clone, Copy, Debug)]
struct New<'a, 'py> {
    coroutine: &'a Bound<'py, PyAny>,
    name: Option<&'a Bound<'py, PyAny>>,
    context: Option<&'a Bound<'py, PyAny>>,
    /// Whether its first step is run at once, if the loop runs.
    eager: bool,
}

/// `loop.create_task(coro, *, name=None, context=None, **further)`.
fn create_task<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let state = EVENT_LOOP.of(event_loop);
    state.check_closed()?;
    let coroutine = args.required("create_task", 0, "coro")?;
    if args.count() > 1 {
        return Err(PyTypeError::new_err(format!(
            "create_task() takes 2 positional arguments but {} were given",
            args.count() + 1
        )));
    }
    let (mut name, mut context, mut eager, mut further) = (None, None, None, false);
    if args.has_keywords() {
        for (keyword, value) in args.keywords() {
            if keyword == "name" {
                name = Some(value);
            } else if keyword == "context" {
                context = Some(value);
            } else if cfg!(Py_3_12) && keyword == "eager_start" {
                eager = Some(value);
            } else {
                further = true;
            }
        }
    }
    let name = name.as_deref().filter(|name| !name.is_none());
    let usual = usual_beginning(state, event_loop.py(), name.is_none() && eager.is_none());
    let Some(usual) = usual.filter(|_| !further && state.schedules_directly(event_loop)) else {
        return create_task_by_class(state, event_loop, &coroutine, args);
    };
    let task = TASK.instance(event_loop.py())?;
    let new = New {
        coroutine: &coroutine,
        name,
        context: context.as_deref().filter(|context| !context.is_none()),
        eager: match eager {
            Some(eager) => eager.is_truthy()?,
            None => usual,
        },
    };
    start(state, event_loop, &task, new)?;
    Ok(task)
}

/// Whether the loop's tasks start eagerly; `None` where a factory makes them. `plain` says that there is neither a name
/// nor an `eager_start` to tell it: before Python 3.14 it depends on the release how that is done.
#[inline]
fn usual_beginning(state: &EventLoop, py: Python<'_>, plain: bool) -> Option<bool> {
    if !state.has_task_factory() {
        return Some(false);
    }
    let native = (cfg!(Py_3_14) || plain) && state.has_eager_task_factory(py);
    native.then_some(true)
}

/// Makes a task by a factory, or by calling the class with every argument.
#[cold]
fn create_task_by_class<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    coroutine: &Bound<'py, PyAny>,
    args: Args<'_, 'py>,
) -> Returned<'py> {
    let py = event_loop.py();
    let keywords = PyDict::new(py);
    for (keyword, value) in args.keywords() {
        keywords.set_item(keyword, value)?;
    }
    if state.has_task_factory() {
        return event_loop.call_method("_create_task_by_factory", (coroutine,), Some(&keywords));
    }
    keywords.set_item("loop", event_loop)?;
    TASK.type_object(py).call((coroutine,), Some(&keywords))
}

/// A new task of `event_loop`, where that is a native loop whose `create_task` would make one just so.
///
/// # Errors
/// `TypeError` where `coroutine` is none.
#[inline]
pub fn create<'py>(
    event_loop: &Bound<'py, PyAny>,
    coroutine: &Bound<'py, PyAny>,
    name: Option<&Bound<'py, PyAny>>,
    context: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(state) = EVENT_LOOP
        .get(event_loop)
        .filter(|state| state.creates_tasks_directly(event_loop))
    else {
        return Ok(None);
    };
    let Some(eager) = usual_beginning(state, event_loop.py(), name.is_none()) else {
        return Ok(None);
    };
    let task = TASK.instance(event_loop.py())?;
    let new = New {
        coroutine,
        name,
        context,
        eager,
    };
    start(state, event_loop, &task, new)?;
    Ok(Some(task))
}

/// `task.set_name(name)` of a native task.
///
/// # Errors
/// What `str()` raises.
pub fn rename(task: &Bound<'_, PyAny>, name: &Bound<'_, PyAny>) -> PyResult<()> {
    base::task(task).name.set(if is_exact_string(name) {
        name.clone()
    } else {
        name.str()?.into_any()
    });
    Ok(())
}

/// Fills a fresh task in and schedules or runs its first step, on a loop that can be fed directly.
fn start<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
    new: New<'_, 'py>,
) -> PyResult<()> {
    let py = event_loop.py();
    let New {
        coroutine,
        name,
        context,
        ..
    } = new;
    if !is_coroutine(coroutine)
        && !call1(imports(py).is_coroutine.bind(py), coroutine)?.is_truthy()?
    {
        return Err(PyTypeError::new_err(format!(
            "a coroutine was expected, got {}",
            coroutine.repr()?
        )));
    }
    if cfg!(Py_3_15)
        && let Some(context) = context
        && !context::is_context(context)
    {
        return Err(PyTypeError::new_err(format!(
            "a contextvars.Context was expected, got {}",
            context.get_type().name()?
        )));
    }
    let eager = new.eager && method0(event_loop, intern!(py, "is_running"))?.is_truthy()?;
    let fields = base::task(task);
    let native = TASK.of(task);
    match name {
        Some(name) if is_exact_string(name) => fields.name.set(name.clone()),
        Some(name) => fields.name.set(name.str()?.into_any()),
        None => set_number(fields, native, py)?,
    }
    if let Some(context) = context {
        fields.context.set(context.clone());
    } else if eager {
        // The shared ones are for one run after another, not for one within another.
        fields.context.set(context::copy_current(py)?);
    } else {
        let (context, shared) = state.contexts().copy_current(py)?;
        fields.context.set(context);
        native.shares_context.set(shared);
    }
    fields.future.event_loop.set(event_loop.clone());
    fields.coroutine.set(coroutine.clone());
    fields.set_log_destroy_pending(true);
    native.steps_natively.set(true);
    #[cfg(Py_3_14)]
    fields.future.is_task.set(true);
    if cfg!(Py_3_14) {
        call1(imports(py).register_task.bind(py), task)?;
    } else {
        native.member.join(task);
    }
    if eager {
        return step_at_once(state, event_loop, task);
    }
    let hidden = state.hides_tasks();
    if hidden {
        untrack(task);
    }
    state.push(Ready::Job {
        run: if hidden { first_step } else { step },
        object: task.clone().into(),
        argument: None,
    });
    Ok(())
}

/// Numbers a task without a name. The base keeps the number in place of the name until somebody asks.
#[cfg(Py_3_12)]
fn set_number(fields: &base::Task, _: &Task, py: Python<'_>) -> PyResult<()> {
    fields.name.set(next_number().into_pyobject(py)?.into_any());
    Ok(())
}

/// Numbers a task without a name; the name is made when somebody asks.
#[cfg(not(Py_3_12))]
#[expect(clippy::unnecessary_wraps, reason = "fallible from Python 3.12 on")]
fn set_number(_: &base::Task, native: &Task, _: Python<'_>) -> PyResult<()> {
    native.number.set(next_number());
    Ok(())
}

/// `Task(coro, *, loop=None, name=None, context=None, eager_start=False)`: the constructor that user code calls.
fn init<'py>(
    task: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    let py = task.py();
    if let Some(direct) = direct_arguments(task, args, keywords)? {
        let state = EVENT_LOOP.of(&direct.event_loop);
        let new = New {
            coroutine: &direct.coroutine,
            name: direct.name.as_ref(),
            context: direct.context.as_ref(),
            eager: direct.eager,
        };
        return start(state, &direct.event_loop, task, new);
    }
    let all = PyList::new(py, [task])?;
    all.call_method1("extend", (args,))?;
    let eager = match keywords {
        Some(keywords) => match (
            keywords.get_item("eager_start")?,
            keywords.get_item("loop")?,
        ) {
            (Some(eager), Some(event_loop)) if eager.is_truthy()? => Some(event_loop),
            _ => None,
        },
        None => None,
    };
    let current = match &eager {
        Some(event_loop) if EVENT_LOOP.get(event_loop).is_some() => registered_task(event_loop)?,
        _ => None,
    };
    let outcome = imports(py)
        .task_init
        .bind(py)
        .call(all.to_tuple(), keywords);
    if outcome.is_err()
        && let Some(event_loop) = &eager
    {
        // An eager start that fails leaves the new task registered, as one that runs and as the current one.
        let tasks = py.import("asyncio.tasks")?;
        if let Some(unregister) = tasks.getattr_opt("_unregister_eager_task")? {
            unregister.call1((task,))?;
        }
        base::task(task).set_log_destroy_pending(false);
        restore_task(event_loop, current.as_ref())?;
    }
    outcome.map(drop)
}

/// The constructor's arguments.
#[derive(Debug)]
struct DirectArguments<'py> {
    event_loop: Bound<'py, PyAny>,
    coroutine: Bound<'py, PyAny>,
    name: Option<Bound<'py, PyAny>>,
    context: Option<Bound<'py, PyAny>>,
    eager: bool,
}

/// The constructor's arguments, where they ask for a task that can step natively.
fn direct_arguments<'py>(
    task: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Option<DirectArguments<'py>>> {
    let Some(keywords) = keywords else {
        return Ok(None);
    };
    let fields = base::task(task);
    if !TASK.is_exact(task) || args.len() != 1 || fields.future.is_alive() {
        return Ok(None);
    }
    let Some(event_loop) = keywords.get_item("loop")? else {
        return Ok(None);
    };
    if !EVENT_LOOP
        .get(&event_loop)
        .is_some_and(|state| state.schedules_directly(&event_loop))
    {
        return Ok(None);
    }
    let given = |name: &str| -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(keywords.get_item(name)?.filter(|value| !value.is_none()))
    };
    let direct = DirectArguments {
        coroutine: args.get_item(0)?,
        name: given("name")?,
        context: given("context")?,
        eager: match keywords.get_item("eager_start")? {
            Some(eager) => eager.is_truthy()?,
            None => false,
        },
        event_loop,
    };
    let known = KEYWORDS
        .iter()
        .filter(|name| keywords.contains(**name).unwrap_or(false))
        .count();
    Ok((known == keywords.len()).then_some(direct))
}

/// The keywords of the constructor.
const KEYWORDS: &[&str] = if cfg!(Py_3_12) {
    &["loop", "name", "context", "eager_start"]
} else {
    &["loop", "name", "context"]
};

/// The task's context as an object of its own, from now on: whoever gets it may change it, or enter it.
///
/// # Errors
/// `MemoryError`.
pub fn own_context<'py>(task: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = task.py();
    let fields = base::task(task);
    let native = TASK.of(task);
    if let Some(snapshot) = fields.context.get(py)
        && native.shares_context.get()
    {
        let event_loop = fields.future.event_loop.get(py);
        let state = event_loop
            .as_ref()
            .and_then(|event_loop| EVENT_LOOP.get(event_loop));
        let own = match state.and_then(|state| state.contexts().entered_for(task)) {
            Some(entered) => entered,
            None => context::copy(&snapshot)?,
        };
        native.shares_context.set(false);
        fields.context.set(own);
    }
    Ok(fields.context.get(py))
}

#[cfg(Py_3_12)]
fn get_context<'py>(task: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(own_context(task)?.unwrap_or_else(|| task.py().None().into_bound(task.py())))
}

/// As the base's, but for a task whose subclass has not called `__init__`: asyncio's own crashes there.
fn get_coro<'py>(task: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = task.py();
    Ok(base::task(task)
        .coroutine
        .get(py)
        .unwrap_or_else(|| py.None().into_bound(py)))
}

#[cfg(not(Py_3_12))]
fn get_name<'py>(task: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = task.py();
    let fields = base::task(task);
    let number = TASK.of(task).number.get();
    if !fields.name.is_set() && number != 0 {
        fields
            .name
            .set(PyString::new(py, &format!("Task-{number}")).into_any());
    }
    imports(py)
        .task
        .bind(py)
        .getattr("get_name")?
        .call1((task,))
}

/// `_weft.alive_tasks()`: the native tasks that asyncio's registry does not list.
#[pyfunction]
pub fn alive_tasks(py: Python<'_>) -> Vec<Bound<'_, PyAny>> {
    let mut tasks = registry::members(py);
    // A task that the garbage collector has cleared has no loop any more. One that was finalized lives on in a report only.
    tasks.retain(|task| base::future(task).is_alive() && !is_finalized(task));
    tasks
}

/// `_weft.forget_task(task)`: takes a native task off that list.
#[pyfunction]
pub fn forget_task(task: &Bound<'_, PyAny>) {
    if let Some(native) = TASK.get(task) {
        native.member.leave(task.py());
    }
}

/// `call_soon` was given a waiting task itself: somebody has completed a native future by a method of its base, which
/// takes what it finds in the callback's place for a callback.
fn callable_for<'py>(callback: &Bound<'py, PyAny>) -> PyResult<Option<InItsPlace<'py>>> {
    if !steps_natively(callback) {
        return Ok(None);
    }
    Ok(Some((wakeup_method(callback)?, own_context(callback)?)))
}

/// The methods that this module adds to the loop.
pub fn loop_methods() -> Vec<ffi::PyMethodDef> {
    vec![method!(fast "create_task" => create_task,
        "create_task($self, coro, *, name=None, context=None, **kwargs)\n--\n\nSchedule a coroutine and return its Task.")]
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut methods = futures::common_methods();
    #[cfg(Py_3_12)]
    {
        methods.push(method!(none "get_context" => get_context, "Return the contextvars.Context that the task runs in."));
    }
    #[cfg(not(Py_3_12))]
    methods.push(method!(none "get_name" => get_name, "Return the task's name."));
    methods.push(method!(none "get_coro" => get_coro, "Return the coroutine that the task runs."));
    let mut slots = extending_slots::<Task>();
    slots.extend([
        slot!(init init),
        slot!(await futures::iterate),
        slot!(iter futures::iterate),
    ]);
    let class = TASK.make(
        py,
        c"weft.Task",
        Some(imports(py).task.bind(py)),
        Description {
            methods,
            properties: futures::common_properties(),
            slots,
            doc: Some(if cfg!(Py_3_12) {
                c"Task(coro, *, loop=None, name=None, context=None, eager_start=False)\n--\n\nA coroutine that the loop runs, as asyncio.Task."
            } else {
                c"Task(coro, *, loop=None, name=None, context=None)\n--\n\nA coroutine that the loop runs, as asyncio.Task."
            }),
            instantiable: true,
            mixin: Some(FUTURE.type_object(py).unbind()),
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    event_loop::set_callable_for(callable_for);
    futures::set_waiters(Waiters {
        is_waiter: steps_natively,
        wake,
        method: wakeup_method,
        context: own_context,
    });
    module.add("Task", class)
}
