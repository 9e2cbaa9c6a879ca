//! `TaskGroup`.
//!
//! Native children have a native done-callback, one for the whole group, which runs without a handle or a call through
//! Python. Where a subclass replaces `_on_task_done`, its method is what children call back.
//!
//! The rules of asyncio's releases differ in when the parent's cancellation is taken back, among other things; see
//! [`Version`].

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::Borrowed;
use pyo3::exceptions::{
    PyBaseExceptionGroup, PyKeyboardInterrupt, PyRuntimeError, PySystemExit, PyTypeError,
};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyBool, PyDict, PyList, PyModule, PySet, PyString, PyTuple, PyType};

use crate::event_loop::{EVENT_LOOP, current_task, leave_task, registered_task};
use crate::ffi::call::{method0, method1, raised};
use crate::ffi::callback::Callback;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::{Owner, class_slots};
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::{Class, Native, Slot, Visit, context};
use crate::futures::{self, Failure};
use crate::imports::{imports, mentions};
use crate::operations::{
    self, Operation, Step, create_future, finish_unless_done, is_done, running_loop,
};
use crate::tasks;
use crate::{done_callback, make_operation, method, operation, property, slot};

/// What differs between releases of asyncio, asked of asyncio itself.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a change of its own")]
struct Version {
    /// Whether subclasses of `CancelledError` count as cancellations.
    knows_subclasses: bool,
    /// Whether the parent's cancellation by the group is taken back at the end, and one from outside asked for again.
    settles_cancellation: bool,
    /// Whether a coroutine that the group refuses is closed.
    closes_refused: bool,
    /// Whether a task is named after it was made.
    names_afterwards: bool,
    /// Whether `create_task()` passes any keyword on.
    passes_keywords: bool,
    /// Whether a task that is done at once is dealt with at once.
    settles_eager: bool,
    /// Whether a group that was left forgets its parent and its errors.
    forgets: bool,
}

fn version(py: Python<'_>) -> &'static Version {
    static VERSION: PyOnceLock<Version> = PyOnceLock::new();
    VERSION.get_or_init(py, || {
        let look = || -> PyResult<Version> {
            const VARIABLE_KEYWORDS: i64 = 8;
            let stock = py.import("asyncio.taskgroups")?.getattr("TaskGroup")?;
            let forgets = stock.hasattr("_aexit")?;
            let exit = stock.getattr(if forgets { "_aexit" } else { "__aexit__" })?;
            let create = stock.getattr("create_task")?;
            let flags: i64 = create.getattr("__code__")?.getattr("co_flags")?.extract()?;
            Ok(Version {
                knows_subclasses: mentions(&exit, "issubclass"),
                settles_cancellation: mentions(&exit, "cancelling"),
                closes_refused: mentions(&create, "close"),
                names_afterwards: mentions(&create, "_set_task_name"),
                passes_keywords: flags & VARIABLE_KEYWORDS != 0,
                settles_eager: mentions(&create, "done"),
                forgets,
            })
        };
        // Who has replaced asyncio's class gets what the first release of this version did.
        look().unwrap_or(Version {
            knows_subclasses: cfg!(Py_3_13),
            settles_cancellation: cfg!(Py_3_13),
            closes_refused: cfg!(Py_3_13),
            names_afterwards: !cfg!(Py_3_13),
            passes_keywords: cfg!(Py_3_14),
            settles_eager: cfg!(all(Py_3_12, not(Py_3_14))),
            forgets: cfg!(Py_3_14),
        })
    })
}

/// The native part of `weft.TaskGroup`.
#[derive(Debug, Default)]
pub struct TaskGroup {
    entered: Cell<bool>,
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

struct TaskGroupClass;

impl Owner for TaskGroupClass {
    type Value = TaskGroup;
    fn class() -> &'static Class<TaskGroup> {
        &TASK_GROUP
    }
}

fn of<'a>(group: &'a Bound<'_, PyAny>) -> &'a TaskGroup {
    TASK_GROUP.of(group)
}

impl TaskGroup {
    fn tasks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PySet>> {
        match self.tasks.get(py) {
            Some(tasks) => Ok(tasks.cast_into()?),
            None => {
                let tasks = PySet::empty(py)?;
                self.tasks.set(tasks.clone().into_any());
                Ok(tasks)
            }
        }
    }

    fn has_tasks(&self, py: Python<'_>) -> PyResult<bool> {
        match self.tasks.get(py) {
            Some(tasks) => Ok(!tasks.cast::<PySet>()?.is_empty()),
            None => Ok(false),
        }
    }

    fn errors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        match self.errors.get(py) {
            Some(errors) => Ok(errors.cast_into()?),
            None => {
                let errors = PyList::empty(py);
                self.errors.set(errors.clone().into_any());
                Ok(errors)
            }
        }
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
    let callback = match state.callback.get(py) {
        Some(callback) => callback,
        None => {
            let callback = ON_TASK_DONE.bind(group)?;
            state.context.set(context::copy_current(py)?);
            state.callback.set(callback.clone());
            callback
        }
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

// -- entering and leaving --------------------------------------------------------------------------

/// `__aenter__()`.
#[derive(Debug, Default)]
struct Enter {
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

fn aenter<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(group.py(), |enter: &Enter| {
        enter.group.fill(group.clone());
    })
}

/// `__aexit__(et, exc, tb)`.
#[derive(Debug, Default)]
struct Exit {
    group: Slot,
    /// The class of the exception that the block has raised.
    class: Slot,
    /// That exception.
    error: Slot,
    /// The cancellation to raise at the end.
    propagated: Slot,
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
        let completed = match state.completed.get(py) {
            Some(completed) => completed,
            None => {
                let completed = create_future(&state.event_loop.get_or_none(py))?;
                state.completed.set(completed.clone());
                completed
            }
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
            if !state.aborting.get() {
                self.propagated
                    .set(error.into_value(py).into_bound(py).into_any());
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
        if version.settles_cancellation && state.uncancel_parent(py)? {
            self.propagated.clear();
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
            return Step::done(py);
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
    fn settled<'py>(
        &self,
        group: &Bound<'py, PyAny>,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Step<'py>> {
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
        self.settled(&group, step)
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let group = self.group.get_or_none(frame.py());
        let step = self.go_on(&group, outcome);
        self.settled(&group, step)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.group, &self.class, &self.error, &self.propagated])
    }

    fn clear(&self) {
        self.group.clear();
        self.class.clear();
        self.error.clear();
        self.propagated.clear();
    }
}

fn aexit<'py>(group: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    const NAMES: [&str; 3] = ["et", "exc", "tb"];
    let bound = args.bind("__aexit__", NAMES)?;
    if let Some(missing) = bound.iter().position(Option::is_none) {
        return Err(missing_argument("__aexit__", NAMES[missing]));
    }
    let [class, error, _] = bound.map(|value| value.filter(|value| !value.is_none()));
    operations::operation(group.py(), |exit: &Exit| {
        exit.group.fill(group.clone());
        if let Some(class) = class {
            exit.class.fill(class.to_owned());
        }
        if let Some(error) = error {
            exit.error.fill(error.to_owned());
        }
    })
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

// What asyncio's class keeps in attributes of its own, for code that inherits from it.

/// A property of the group that a `Cell<bool>` or a `Slot` holds.
macro_rules! attribute {
    (flag $name:literal => $field:ident) => {{
        fn read<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
            let value = of(group).$field.get();
            Ok(PyBool::new(group.py(), value).to_owned().into_any())
        }
        fn write(
            group: &Bound<'_, PyAny>,
            value: Option<Borrowed<'_, '_, PyAny>>,
        ) -> PyResult<()> {
            let value = value.map_or(Ok(false), |value| value.is_truthy())?;
            of(group).$field.set(value);
            Ok(())
        }
        property!($name => read, write)
    }};
    (object $name:literal => $field:ident) => {{
        fn read<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
            Ok(of(group).$field.get_or_none(group.py()))
        }
        fn write(
            group: &Bound<'_, PyAny>,
            value: Option<Borrowed<'_, '_, PyAny>>,
        ) -> PyResult<()> {
            match value.filter(|value| !value.is_none()) {
                Some(value) => of(group).$field.set(value.to_owned()),
                None => of(group).$field.clear(),
            }
            Ok(())
        }
        property!($name => read, write)
    }};
}

fn tasks_attribute<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(of(group).tasks(group.py())?.into_any())
}

fn on_task_done_attribute<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    ON_TASK_DONE.bind(group)
}

fn errors_attribute<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = of(group);
    if state.forgot_errors.get() && !state.errors.is_set() {
        return Ok(group.py().None().into_bound(group.py()));
    }
    Ok(state.errors(group.py())?.into_any())
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
    make_operation!(py, Enter)?;
    make_operation!(py, Exit)?;
    let mut slots = class_slots::<TaskGroupClass>();
    slots.extend([slot!(init init), slot!(repr representation)]);
    let class = TASK_GROUP.make(
        py,
        c"weft._weft.TaskGroup",
        None,
        Description {
            methods: vec![
                method!(none "__aenter__" => aenter, "Enter the block."),
                method!(fast "__aexit__" => aexit, "Leave the block, when all tasks are done."),
                method!(fast "create_task" => create_task, "Make a task of a coroutine, in this group, and return it."),
                method!(one "_is_base_error" => is_base_error_method, "Return True for an exception that is raised as it is."),
                method!(none "_abort" => abort_method, "Cancel all tasks."),
            ],
            properties: vec![
                attribute!(flag "_entered" => entered),
                attribute!(flag "_exiting" => exiting),
                attribute!(flag "_aborting" => aborting),
                attribute!(flag "_parent_cancel_requested" => parent_cancel_requested),
                attribute!(object "_loop" => event_loop),
                attribute!(object "_parent_task" => parent),
                attribute!(object "_base_error" => base_error),
                attribute!(object "_on_completed_fut" => completed),
                property!("_on_task_done" => on_task_done_attribute),
                property!("_tasks" => tasks_attribute),
                property!("_errors" => errors_attribute),
            ],
            slots,
            doc: Some(c"The native part of weft.TaskGroup."),
            instantiable: true,
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("TaskGroup", class)
}
