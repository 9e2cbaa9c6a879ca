//! `Handle` and `TimerHandle`: what `call_soon`, `call_later` and `call_at` return.
//!
//! A handle is not tracked by the cyclic garbage collector: thousands of them are alive at a time, and each lives for
//! one turn of the loop. It cannot leak for that: running or cancelling it drops what it refers to, the loop's own
//! traversal reports the contents of every handle that nobody else holds, and a loop that is closed empties what it
//! had still scheduled.

mod methods;

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::OnceLock;

use pyo3::Borrowed;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString, PyTuple};

use crate::event_loop::{EVENT_LOOP, EventLoop, Job};
use crate::ffi::call::{call_tuple, call0, call1, call2, call3};
use crate::ffi::context::SharedContexts;
use crate::ffi::method::{Args, Returned};
use crate::ffi::object::{is_builtin, reference_count};
use crate::ffi::{Class, Native, Slot, Visit, context};
use crate::imports::imports;
use methods::cancel;
pub use methods::register;

/// How a handle keeps its positional arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arity {
    /// So many slots hold an argument each.
    Few(usize),
    /// The first slot holds a tuple.
    Many,
}

impl Default for Arity {
    fn default() -> Self {
        Self::Few(0)
    }
}

/// Up to so many arguments are kept without a tuple.
const FEW: usize = 3;

/// The state of a handle; `when` and `scheduled` mean something for a `TimerHandle` only.
#[derive(Debug, Default)]
pub struct Handle {
    callback: Slot,
    arguments: [Slot; FEW],
    context: Slot,
    event_loop: Slot,
    source_traceback: Slot,
    representation: Slot,
    weak_references: Slot,
    when: Cell<f64>,
    arity: Cell<Arity>,
    cancelled: Cell<bool>,
    scheduled: Cell<bool>,
    /// Native work to do with the callback's place and the first argument, instead of a call.
    job: Cell<Option<Job>>,
    /// Whether the callback is a native method that no Python code can watch; see [`Handle::run_trusted`].
    trusted: Cell<bool>,
    /// Whether it runs again and again, for a watched descriptor.
    repeats: Cell<bool>,
    /// Whether `context` is a snapshot that other handles and tasks share.
    shared: Cell<bool>,
}

impl Native for Handle {
    const COLLECTED: bool = false;
    const RECYCLED: usize = 16_384;

    fn class() -> &'static Class<Self> {
        &HANDLE
    }
}

/// `weft.Handle`.
pub static HANDLE: Class<Handle> = Class::new();
/// `weft.TimerHandle`, a subclass that shares the state of its base.
pub static TIMER_HANDLE: Class<Nothing> = Class::new();

/// What a `TimerHandle` adds to the memory of its base.
#[derive(Debug, Default)]
pub struct Nothing;

impl Native for Nothing {
    const COLLECTED: bool = false;

    fn class() -> &'static Class<Self> {
        &TIMER_HANDLE
    }
}

impl Handle {
    /// Whether `cancel()` has been called.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// The moment at which a timer is due, in seconds of the loop's clock.
    pub fn when(&self) -> f64 {
        self.when.get()
    }

    /// Records whether a timer sits in the loop's queue.
    #[inline]
    pub fn set_scheduled(&self, scheduled: bool) {
        self.scheduled.set(scheduled);
    }

    /// Records that the context is a snapshot that others share.
    pub fn set_shared(&self, shared: bool) {
        self.shared.set(shared);
    }

    /// Keeps what the handle refers to after a run, for the next one.
    pub fn set_repeats(&self) {
        self.repeats.set(true);
    }

    /// Reports what the handle refers to; for its only owner's traversal.
    pub fn visit_contents(&self, visit: Visit) -> c_int {
        let slots = [&self.callback, &self.context, &self.event_loop];
        for slot in slots.into_iter().chain(&self.arguments) {
            let answer = visit.slot(slot);
            if answer != 0 {
                return answer;
            }
        }
        0
    }

    /// Runs a callback that completes a native future: it only fills the ready queue, so it is called as it is, without
    /// its context and without taking the current task out. `None` where the callback is of another kind.
    #[inline]
    pub fn run_trusted(&self, py: Python<'_>) -> Option<PyResult<()>> {
        self.trusted.get().then(|| match self.job.get() {
            Some(job) => self.run_job(py, job),
            None => self.call(py).map(drop),
        })
    }

    fn run_job(&self, py: Python<'_>, job: Job) -> PyResult<()> {
        match (self.event_loop.get(py), self.callback.get(py)) {
            (Some(event_loop), Some(object)) => {
                job(&event_loop, &object, self.arguments[0].get(py))
            }
            _ => Ok(()),
        }
    }

    /// Drops what the handle refers to.
    pub fn empty(&self) {
        self.forget_callback();
        self.event_loop.clear();
        self.context.clear();
    }

    fn forget_callback(&self) {
        self.callback.clear();
        for argument in &self.arguments {
            argument.clear();
        }
        self.arity.set(Arity::default());
    }

    fn set_arguments(&self, args: Args<'_, '_>, first: usize) -> PyResult<()> {
        let count = args.count().saturating_sub(first);
        if count > FEW {
            self.arguments[0].fill(args.rest(first)?.into_any());
            self.arity.set(Arity::Many);
            return Ok(());
        }
        for (index, slot) in self.arguments.iter().enumerate().take(count) {
            if let Some(argument) = args.get(first + index) {
                slot.fill(argument.to_owned());
            }
        }
        self.arity.set(Arity::Few(count));
        Ok(())
    }

    /// The positional arguments as a tuple.
    fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let (Arity::Many, Some(tuple)) = (self.arity.get(), self.arguments[0].get(py)) {
            return Ok(tuple);
        }
        let few: Vec<_> = self
            .arguments
            .iter()
            .filter_map(|argument| argument.get(py))
            .collect();
        Ok(PyTuple::new(py, few)?.into_any())
    }

    /// Calls the callback in the context that is current now.
    #[inline]
    fn call<'py>(&self, py: Python<'py>) -> Returned<'py> {
        let Some(callback) = self.callback.get(py) else {
            return Ok(py.None().into_bound(py));
        };
        // References of their own: the callback may cancel its handle.
        let [first, second, third] = &self.arguments;
        match self.arity.get() {
            Arity::Few(0) => call0(&callback),
            Arity::Few(1) => call1(&callback, &first.get_or_none(py)),
            Arity::Few(2) => call2(&callback, &first.get_or_none(py), &second.get_or_none(py)),
            Arity::Few(_) => call3(
                &callback,
                &first.get_or_none(py),
                &second.get_or_none(py),
                &third.get_or_none(py),
            ),
            Arity::Many => call_tuple(&callback, &first.get_or_none(py).cast_into::<PyTuple>()?),
        }
    }
}

/// Makes a handle for a callback that gets `args` from number `first` on.
///
/// # Errors
/// `MemoryError`, or what taking the traceback in debug mode raises.
#[inline]
pub fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    debug: bool,
    callback: Borrowed<'_, 'py, PyAny>,
    args: Args<'_, 'py>,
    first: usize,
    context: Option<Borrowed<'_, 'py, PyAny>>,
    when: Option<f64>,
) -> Returned<'py> {
    let py = event_loop.py();
    let object = match when {
        Some(_) => HANDLE.instance_of(py, &TIMER_HANDLE)?,
        None => HANDLE.instance(py)?,
    };
    let handle = HANDLE.of(&object);
    handle.trusted.set(is_trusted(&callback));
    handle.callback.fill(callback.to_owned());
    handle.set_arguments(args, first)?;
    handle.context.fill(match context {
        Some(context) if !context.is_none() => context.to_owned(),
        _ => {
            let contexts = EVENT_LOOP.of(event_loop).contexts();
            let (context, shared) = contexts.copy_current(py)?;
            handle.shared.set(shared);
            context
        }
    });
    handle.event_loop.fill(event_loop.clone());
    if let Some(when) = when {
        handle.when.set(when);
    }
    if debug {
        handle
            .source_traceback
            .set(imports(py).extract_stack.bind(py).call0()?);
    }
    Ok(object)
}

/// Makes a handle for a callback that native code schedules, with at most one argument.
///
/// # Errors
/// As [`make`].
pub fn make_internal<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    argument: Option<Bound<'py, PyAny>>,
    context: Bound<'py, PyAny>,
) -> Returned<'py> {
    let py = event_loop.py();
    let object = HANDLE.instance(py)?;
    let handle = HANDLE.of(&object);
    handle.callback.fill(callback);
    if let Some(argument) = argument {
        handle.arguments[0].fill(argument);
        handle.arity.set(Arity::Few(1));
    }
    handle.context.fill(context);
    handle.event_loop.fill(event_loop.clone());
    Ok(object)
}

/// Makes a timer for native work: `job` is called with the loop, `object` and `argument`.
///
/// # Errors
/// `MemoryError`.
pub fn make_job<'py>(
    event_loop: &Bound<'py, PyAny>,
    when: f64,
    job: Job,
    object: Bound<'py, PyAny>,
    argument: Option<Bound<'py, PyAny>>,
) -> Returned<'py> {
    let timer = HANDLE.instance_of(event_loop.py(), &TIMER_HANDLE)?;
    let handle = HANDLE.of(&timer);
    handle.callback.fill(object);
    if let Some(argument) = argument {
        handle.arguments[0].fill(argument);
        handle.arity.set(Arity::Few(1));
    }
    handle.event_loop.fill(event_loop.clone());
    handle.when.set(when);
    handle.job.set(Some(job));
    handle.trusted.set(true);
    Ok(timer)
}

/// Cancels a handle of any kind.
///
/// # Errors
/// What a foreign handle's `cancel` raises.
pub fn cancel_any(object: &Bound<'_, PyAny>) -> PyResult<()> {
    match HANDLE.get(object) {
        Some(_) => cancel(object).map(drop),
        None => object
            .call_method0(intern!(object.py(), "cancel"))
            .map(drop),
    }
}

/// Runs a handle in its context. What the callback raises goes to the loop's exception handler, but for
/// `SystemExit` and `KeyboardInterrupt`, which are returned.
///
/// # Errors
/// `SystemExit`, `KeyboardInterrupt`, or what the exception handler lets through.
#[inline]
pub fn run(state: &EventLoop, object: &Bound<'_, PyAny>, handle: &Handle) -> PyResult<()> {
    let py = object.py();
    let Some(context) = handle.context.get(py) else {
        return Ok(());
    };
    let outcome = if handle.shared.get() {
        run_in_working_copy(state.contexts(), handle, &context)
    } else {
        run_in(handle, &context)
    };
    match outcome {
        Ok(()) => {
            if state.is_debug() {
                state.ran.set(true);
            } else {
                let_go(object, handle);
            }
            Ok(())
        }
        Err(error) => {
            report(object, handle, error)?;
            let_go(object, handle);
            Ok(())
        }
    }
}

/// Empties a handle that has run: whoever keeps it must not keep, or form a cycle with, what it called.
#[inline]
pub fn let_go(object: &Bound<'_, PyAny>, handle: &Handle) {
    if !handle.repeats.get() && reference_count(object) > 1 {
        handle.forget_callback();
        handle.event_loop.clear();
    }
}

/// Tells whether a callback of a class above this layer needs neither its context nor the absence of a current task.
pub type Trust = fn(callback: &Bound<'_, PyAny>) -> bool;

static TRUST: OnceLock<Trust> = OnceLock::new();

/// Lets a layer above name callbacks that no Python code can watch.
pub fn set_trust(trust: Trust) {
    TRUST.get_or_init(|| trust);
}

#[inline]
fn is_trusted(callback: &Bound<'_, PyAny>) -> bool {
    is_builtin(callback) && TRUST.get().is_some_and(|trust| trust(callback))
}

fn run_in(handle: &Handle, context: &Bound<'_, PyAny>) -> PyResult<()> {
    context::enter(context)?;
    let outcome = handle.call(context.py()).map(drop);
    context::exit(context)?;
    outcome
}

#[inline]
fn run_in_working_copy(
    contexts: &SharedContexts,
    handle: &Handle,
    snapshot: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let working = contexts.enter(snapshot)?;
    let outcome = handle.call(snapshot.py()).map(drop);
    if let Some(own) = contexts.leave(working, snapshot)? {
        handle.context.set(own);
        handle.shared.set(false);
    }
    outcome
}

/// What becomes of an exception that a callback has raised.
///
/// # Errors
/// As [`run`].
#[cold]
pub fn report(object: &Bound<'_, PyAny>, handle: &Handle, error: PyErr) -> PyResult<()> {
    let py = object.py();
    if is_fatal(py, &error) {
        return Err(error);
    }
    let Some(event_loop) = handle.event_loop.get(py) else {
        return Err(error);
    };
    let described = match handle.callback.get(py) {
        Some(callback) => describe_callback(&event_loop, &callback, &handle.arguments(py)?)?,
        None => PyString::new(py, "None").into_any(),
    };
    let details = PyDict::new(py);
    details.set_item("message", format!("Exception in callback {described}"))?;
    details.set_item("exception", error.into_value(py))?;
    details.set_item("handle", object)?;
    if let Some(traceback) = handle.source_traceback.get(py) {
        details.set_item("source_traceback", traceback)?;
    }
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,))?;
    Ok(())
}

/// Whether an exception ends the run of the loop instead of being reported.
pub fn is_fatal(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// Says what a callback is, in the words of asyncio's debug messages.
fn describe_callback<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let py = event_loop.py();
    let format = imports(py)
        .format_helpers
        .bind(py)
        .getattr("_format_callback_source")?;
    // `debug=` came with a maintenance release, so the interpreter is asked, not its version.
    let names = format.getattr("__code__")?.getattr("co_varnames")?;
    if names.contains("debug")? {
        let keywords = PyDict::new(py);
        keywords.set_item("debug", event_loop.call_method0("get_debug")?)?;
        format.call((callback, arguments), Some(&keywords))
    } else {
        format.call1((callback, arguments))
    }
}
