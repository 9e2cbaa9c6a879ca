//! `TaskGroup`.
//!
//! Native children have a native done-callback, one for the whole group, which runs without a handle or a call through
//! Python. Where a subclass replaces `_on_task_done`, its method is what children call back.
//!
//! The rules of asyncio's releases differ in when the parent's cancellation is taken back, among other things; see
//! [`Version`].

mod attributes;
mod block;
mod version;

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::Borrowed;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyDict, PyList, PyModule, PySet, PyString, PyTuple};

use crate::event_loop::{EVENT_LOOP, current_task, leave_task};
use crate::ffi::call::{method0, method1};
use crate::ffi::callback::Callback;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::{Class, Native, Slot, Visit, context};
use crate::futures::{self, Failure};
use crate::operations::{finish_unless_done, is_done};
use crate::tasks;
use crate::{done_callback, make_operation, method, slot};
use version::{Version, version};

/// The native part of `weft.TaskGroup`.
#[derive(Debug, Default)]
pub struct TaskGroup {
    entered: Cell<bool>,
    /// Cancelled before it was entered.
    cancel_on_enter: Cell<bool>,
    exiting: Cell<bool>,
    aborting: Cell<bool>,
    parent_cancel_requested: Cell<bool>,
    event_loop: Slot,
    parent: Slot,
    /// The set of the children that are not done, from the first one on.
    tasks: Slot,
    /// The list of what children have raised, from the first one on.
    errors: Slot,
    base_error: Slot,
    /// What the end of the block waits for: finished when the last child is done.
    completed: Slot,
    /// The done-callback of native children …
    callback: Slot,
    /// … and the context that it is registered with.
    context: Slot,
    forgot_errors: Cell<bool>,
}

impl TaskGroup {
    fn slots(&self) -> [&Slot; 8] {
        [
            &self.event_loop,
            &self.parent,
            &self.tasks,
            &self.errors,
            &self.base_error,
            &self.completed,
            &self.callback,
            &self.context,
        ]
    }
}

impl Native for TaskGroup {
    fn class() -> &'static Class<Self> {
        &TASK_GROUP
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots(self.slots())
    }

    fn clear(&self, _: Python<'_>) {
        for slot in self.slots() {
            slot.clear();
        }
    }
}

static TASK_GROUP: Class<TaskGroup> = Class::new();

fn of<'a>(group: &'a Bound<'_, PyAny>) -> &'a TaskGroup {
    TASK_GROUP.of(group)
}

impl TaskGroup {
    fn tasks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PySet>> {
        if let Some(tasks) = self.tasks.get(py) {
            return Ok(tasks.cast_into()?);
        }
        let tasks = PySet::empty(py)?;
        self.tasks.set(tasks.clone().into_any());
        Ok(tasks)
    }

    fn has_tasks(&self, py: Python<'_>) -> PyResult<bool> {
        match self.tasks.get(py) {
            Some(tasks) => Ok(!tasks.cast::<PySet>()?.is_empty()),
            None => Ok(false),
        }
    }

    fn errors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        if let Some(errors) = self.errors.get(py) {
            return Ok(errors.cast_into()?);
        }
        let errors = PyList::empty(py);
        self.errors.set(errors.clone().into_any());
        Ok(errors)
    }

    fn has_errors(&self, py: Python<'_>) -> PyResult<bool> {
        match self.errors.get(py) {
            Some(errors) => Ok(!errors.cast::<PyList>()?.is_empty()),
            None => Ok(false),
        }
    }

    fn forget_errors(&self) {
        self.errors.clear();
        self.forgot_errors.set(true);
    }

    /// Takes back the cancellation that the group has asked of its parent. Whether it was the last one.
    fn uncancel_parent(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.parent_cancel_requested.get() {
            return Ok(false);
        }
        let left = method0(&self.parent.get_or_none(py), intern!(py, "uncancel"))?;
        left.eq(0)
    }
}

// -- what a subclass may replace -------------------------------------------------------------------

fn is_base_error(group: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>) -> PyResult<bool> {
    if TASK_GROUP.is_usual(group) {
        return Ok(ends_the_run(error));
    }
    method1(group, intern!(group.py(), "_is_base_error"), error)?.is_truthy()
}

fn ends_the_run(error: &Bound<'_, PyAny>) -> bool {
    error.is_instance_of::<PySystemExit>() || error.is_instance_of::<PyKeyboardInterrupt>()
}

fn abort(group: &Bound<'_, PyAny>) -> PyResult<()> {
    if TASK_GROUP.is_usual(group) {
        return abort_natively(group);
    }
    method0(group, intern!(group.py(), "_abort")).map(drop)
}

fn abort_natively(group: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = group.py();
    of(group).aborting.set(true);
    let Some(tasks) = of(group).tasks.get(py) else {
        return Ok(());
    };
    // As a list of its own: cancelling may run code that changes the set.
    let tasks: Vec<_> = tasks.cast::<PySet>()?.iter().collect();
    for task in tasks {
        if !is_done(&task)? {
            method0(&task, intern!(py, "cancel"))?;
        }
    }
    Ok(())
}

/// Has the group told when `task` is done.
#[inline]
fn watch<'py>(group: &Bound<'py, PyAny>, task: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = group.py();
    if !TASK_GROUP.is_usual(group) {
        // A subclass may have a method of its own, or ours.
        let callback = group.getattr(intern!(py, "_on_task_done"))?;
        return method1(task, intern!(py, "add_done_callback"), &callback).map(drop);
    }
    let state = of(group);
    let callback = if let Some(callback) = state.callback.get(py) {
        callback
    } else {
        let callback = ON_TASK_DONE.bind(group)?;
        state.context.set(context::copy_current(py)?);
        state.callback.set(callback.clone());
        callback
    };
    futures::add_callback(task, &callback, &state.context.get_or_none(py))
}

// -- the end of a child ----------------------------------------------------------------------------

static ON_TASK_DONE: Callback = done_callback!("_on_task_done" => on_task_done);

/// `_on_task_done(task)`.
fn on_task_done<'py>(group: &Bound<'py, PyAny>, task: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = group.py();
    let state = of(group);
    let mut left = 0;
    if let Some(tasks) = state.tasks.get(py) {
        let tasks = tasks.cast::<PySet>()?;
        tasks.discard(task)?;
        left = tasks.len();
    }
    if cfg!(Py_3_14)
        && let Some(parent) = state.parent.get(py)
    {
        futures::forget_awaited_by(task, &parent)?;
    }
    if left == 0
        && let Some(completed) = state.completed.get(py)
    {
        finish_unless_done(&completed, PyBool::new(py, true).to_owned().into_any())?;
    }
    match futures::failure(task)? {
        Failure::Exception(error) => take_error(group, task, &error),
        Failure::None | Failure::Cancelled => Ok(()),
    }
}

/// A child has raised: its siblings are cancelled, and so is the parent, unless that is under way.
#[cold]
fn take_error<'py>(
    group: &Bound<'py, PyAny>,
    task: &Bound<'py, PyAny>,
    error: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = group.py();
    let state = of(group);
    let event_loop = state.event_loop.get_or_none(py);
    if let Some(state) = EVENT_LOOP.get(&event_loop)
        && current_task(state, py).is_none()
    {
        // What cancelling the others calls is foreign code.
        leave_task(state, &event_loop)?;
    }
    state.errors(py)?.append(error)?;
    if is_base_error(group, error)? && !state.base_error.is_set() {
        state.base_error.set(error.clone());
    }
    let Some(parent) = state.parent.get(py) else {
        return Ok(());
    };
    if is_done(&parent)? {
        let details = PyDict::new(py);
        details.set_item(
            "message",
            format!(
                "Task {} has errored out but its parent task {parent} is already completed",
                task.repr()?
            ),
        )?;
        details.set_item("exception", error)?;
        details.set_item("task", task)?;
        event_loop.call_method1(intern!(py, "call_exception_handler"), (details,))?;
        return Ok(());
    }
    if !state.aborting.get() && !state.parent_cancel_requested.get() {
        abort(group)?;
        state.parent_cancel_requested.set(true);
        method0(&parent, intern!(py, "cancel"))?;
    }
    Ok(())
}

// -- create_task() ---------------------------------------------------------------------------------

/// The arguments of `create_task()`.
struct New<'a, 'py> {
    coroutine: Borrowed<'a, 'py, PyAny>,
    name: Option<Borrowed<'a, 'py, PyAny>>,
    context: Option<Borrowed<'a, 'py, PyAny>>,
    /// Whether there are other keywords.
    further: bool,
}

#[inline]
fn bind<'a, 'py>(args: Args<'a, 'py>, version: &Version) -> PyResult<New<'a, 'py>> {
    const METHOD: &str = "TaskGroup.create_task";
    if args.count() > 1 {
        return Err(PyTypeError::new_err(format!(
            "{METHOD}() takes 2 positional arguments but {} were given",
            args.count() + 1
        )));
    }
    let mut found = [args.get(0), None, None];
    let mut further = false;
    if args.has_keywords() {
        const NAMES: [&str; 3] = ["coro", "name", "context"];
        for (keyword, value) in args.keywords() {
            if version.passes_keywords && NAMES.iter().all(|name| keyword != *name) {
                further = true;
                continue;
            }
            args.bind_keyword(METHOD, &NAMES, &mut found, &keyword, value)?;
        }
    }
    let [Some(coroutine), name, context] = found else {
        return Err(missing_argument(METHOD, "coro"));
    };
    Ok(New {
        coroutine,
        name,
        context,
        further,
    })
}

fn create_task<'py>(group: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = group.py();
    let version = version(py);
    let state = of(group);
    let new = bind(args, version)?;
    if !state.entered.get() {
        return Err(refuse(group, &new, "has not been entered"));
    }
    if state.exiting.get() && !state.has_tasks(py)? {
        return Err(refuse(group, &new, "is finished"));
    }
    if state.aborting.get() {
        return Err(refuse(group, &new, "is shutting down"));
    }
    let event_loop = state.event_loop.get_or_none(py);
    let task = make_task(&event_loop, &new, args, version)?;
    if cfg!(Py_3_14)
        && let Some(parent) = state.parent.get(py)
    {
        futures::note_awaited_by(&task, &parent)?;
    }
    if version.settles_eager && is_done(&task)? {
        method1(group, intern!(py, "_on_task_done"), &task)?;
        return Ok(task);
    }
    state.tasks(py)?.add(&task)?;
    watch(group, &task)?;
    // Its first step, if it was an eager one, may have cancelled the group.
    if cfg!(Py_3_15) && state.aborting.get() && !is_done(&task)? {
        method0(&task, intern!(py, "cancel"))?;
    }
    Ok(task)
}

#[cold]
fn refuse(group: &Bound<'_, PyAny>, new: &New<'_, '_>, why: &str) -> PyErr {
    let py = group.py();
    let error = || -> PyResult<PyErr> {
        if version(py).closes_refused {
            new.coroutine.call_method0(intern!(py, "close"))?;
        }
        let message = format!("TaskGroup {} {why}", group.repr()?);
        Ok(PyRuntimeError::new_err(message))
    };
    error().unwrap_or_else(|error| error)
}

#[inline]
fn make_task<'py>(
    event_loop: &Bound<'py, PyAny>,
    new: &New<'_, 'py>,
    args: Args<'_, 'py>,
    version: &Version,
) -> Returned<'py> {
    let name = new.name.as_deref().filter(|name| !name.is_none());
    let at_once = name.filter(|_| !version.names_afterwards);
    let context = new.context.as_deref().filter(|context| !context.is_none());
    if !new.further
        && let Some(task) = tasks::create(event_loop, &new.coroutine, at_once, context)?
    {
        if version.names_afterwards
            && let Some(name) = name
        {
            tasks::rename(&task, name)?;
        }
        return Ok(task);
    }
    make_task_by_method(event_loop, new, args, version)
}

/// `loop.create_task()`, with the keywords that asyncio's group passes.
fn make_task_by_method<'py>(
    event_loop: &Bound<'py, PyAny>,
    new: &New<'_, 'py>,
    args: Args<'_, 'py>,
    version: &Version,
) -> Returned<'py> {
    let py = event_loop.py();
    let keywords = PyDict::new(py);
    if version.passes_keywords {
        for (keyword, value) in args.keywords().filter(|(keyword, _)| keyword != "coro") {
            keywords.set_item(keyword, value)?;
        }
    } else {
        if !version.names_afterwards {
            keywords.set_item("name", new.name)?;
        }
        if let Some(context) = new.context.filter(|context| !context.is_none()) {
            keywords.set_item("context", context)?;
        }
    }
    let task = event_loop.call_method(
        intern!(py, "create_task"),
        (new.coroutine,),
        Some(&keywords),
    )?;
    if version.names_afterwards {
        py.import("asyncio.tasks")?
            .call_method1("_set_task_name", (&task, new.name))?;
    }
    Ok(task)
}

// -- the rest of the class -------------------------------------------------------------------------

fn init<'py>(
    group: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    if !args.is_empty() || keywords.is_some_and(|keywords| !keywords.is_empty()) {
        return Err(PyTypeError::new_err("TaskGroup() takes no arguments"));
    }
    let state = of(group);
    for flag in [
        &state.entered,
        &state.cancel_on_enter,
        &state.exiting,
        &state.aborting,
        &state.parent_cancel_requested,
        &state.forgot_errors,
    ] {
        flag.set(false);
    }
    state.clear(group.py());
    Ok(())
}

fn representation<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = group.py();
    let state = of(group);
    let mut text = String::from("<TaskGroup");
    if state.has_tasks(py)? {
        text = format!("{text} tasks={}", state.tasks(py)?.len());
    }
    if state.has_errors(py)? {
        text = format!("{text} errors={}", state.errors(py)?.len());
    }
    if state.aborting.get() {
        text.push_str(" cancelling");
    } else if state.entered.get() {
        text.push_str(" entered");
    }
    Ok(PyString::new(py, &format!("{text}>")).into_any())
}

fn is_base_error_method<'py>(_: &Bound<'py, PyAny>, error: &Bound<'py, PyAny>) -> Returned<'py> {
    let answer = ends_the_run(error);
    Ok(PyBool::new(error.py(), answer).to_owned().into_any())
}

fn abort_method<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    abort_natively(group)?;
    Ok(group.py().None().into_bound(group.py()))
}

/// `cancel()` (Python 3.15).
#[cfg(Py_3_15)]
fn cancel<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = group.py();
    let state = of(group);
    if !state.entered.get() {
        state.cancel_on_enter.set(true);
    } else if !(state.aborting.get() || state.exiting.get() && !state.has_tasks(py)?) {
        abort(group)?;
        if let Some(parent) = state.parent.get(py)
            && !state.parent_cancel_requested.get()
        {
            state.parent_cancel_requested.set(true);
            method0(&parent, intern!(py, "cancel"))?;
        }
    }
    Ok(py.None().into_bound(py))
}

/// `_use_task_group(cls)`: names the class that is used.
fn use_task_group<'py>(module: &Bound<'py, PyAny>, class: &Bound<'py, PyAny>) -> Returned<'py> {
    TASK_GROUP.expect(class.cast()?);
    Ok(module.py().None().into_bound(module.py()))
}

/// The functions of the module.
pub fn functions() -> Vec<ffi::PyMethodDef> {
    vec![method!(one "_use_task_group" => use_task_group, "Name the class of task groups.")]
}

/// Makes the classes.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    make_operation!(py, block::Enter)?;
    make_operation!(py, block::Exit)?;
    let mut slots = class_slots::<TaskGroup>();
    slots.extend([slot!(init init), slot!(repr representation)]);
    let class = TASK_GROUP.make(
        py,
        c"weft._weft.TaskGroup",
        None,
        Description {
            methods: vec![
                method!(none "__aenter__" => block::aenter, "__aenter__($self)\n--\n\nEnter the block."),
                method!(fast "__aexit__" => block::aexit, "__aexit__($self, et, exc, tb)\n--\n\nLeave the block, when all tasks are done."),
                #[cfg(not(Py_3_14))]
                method!(fast "create_task" => create_task,
                    "create_task($self, coro, *, name=None, context=None)\n--\n\nMake a task of a coroutine, in this group, and return it."),
                #[cfg(Py_3_14)]
                method!(fast "create_task" => create_task,
                    "create_task($self, coro, **kwargs)\n--\n\nMake a task of a coroutine, in this group, and return it."),
                #[cfg(Py_3_15)]
                method!(none "cancel" => cancel,
                    "cancel($self)\n--\n\nCancel the tasks and the block of the group, which then ends without an exception."),
                method!(one "_is_base_error" => is_base_error_method, "Return True for an exception that is raised as it is."),
                method!(none "_abort" => abort_method, "Cancel all tasks."),
            ],
            properties: attributes::properties(),
            slots,
            doc: Some(c"TaskGroup()\n--\n\nThe native part of weft.TaskGroup."),
            instantiable: true,
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("TaskGroup", class)
}
