//! `Handle` and `TimerHandle`: what `call_soon`, `call_later` and `call_at` return.
//!
//! A handle is not tracked by the cyclic garbage collector: thousands of them are alive at a time, and each lives for
//! one turn of the loop. It cannot leak for that: running or cancelling it drops what it refers to, the loop's own
//! traversal reports the contents of every handle that nobody else holds, and a loop that is closed empties what it
//! had still scheduled.

use std::cell::Cell;
use std::ffi::c_int;
use std::mem::offset_of;
use std::sync::OnceLock;

use pyo3::Borrowed;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyFloat, PyList, PyString, PyTuple};

use crate::event_loop::{self, EVENT_LOOP, EventLoop, Job};
use crate::ffi::call::{call_tuple, call0, call1, call2, call3};
use crate::ffi::class::Description;
use crate::ffi::context::SharedContexts;
use crate::ffi::lifecycle::{Owner, class_slots, dealloc_slot};
use crate::ffi::method::{Args, Returned};
use crate::ffi::object::{is_builtin, reference_count};
use crate::ffi::{Class, Native, Slot, Visit, context};
use crate::imports::imports;
use crate::{method, property, slot};

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
}

struct HandleClass;
struct TimerHandleClass;

impl Owner for TimerHandleClass {
    type Value = Nothing;
    fn class() -> &'static Class<Nothing> {
        &TIMER_HANDLE
    }
}

impl Owner for HandleClass {
    type Value = Handle;
    fn class() -> &'static Class<Handle> {
        &HANDLE
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
            if !handle.repeats.get() && !state.is_debug() && reference_count(object) > 1 {
                // Whoever keeps a handle that has run must not keep, or form a cycle with, what it called.
                handle.forget_callback();
                handle.event_loop.clear();
            }
            Ok(())
        }
        Err(error) => report(object, handle, error),
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

fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let handle = HANDLE.of(object);
    if let Some(kept) = handle.representation.get(py) {
        return Ok(kept);
    }
    let parts = PyList::new(py, [object.get_type().name()?])?;
    if handle.cancelled.get() {
        parts.append("cancelled")?;
    }
    if is_timer(object) {
        parts.append(format!(
            "when={}",
            PyFloat::new(py, handle.when.get()).repr()?
        ))?;
    }
    if let (Some(callback), Some(event_loop)) = (handle.callback.get(py), handle.event_loop.get(py))
    {
        parts.append(describe_callback(
            &event_loop,
            &callback,
            &handle.arguments(py)?,
        )?)?;
    }
    if let Some(traceback) = handle.source_traceback.get(py)
        && traceback.len()? > 0
    {
        let frame = traceback.get_item(-1)?;
        parts.append(format!(
            "created at {}:{}",
            frame.get_item(0)?,
            frame.get_item(1)?
        ))?;
    }
    let text = PyString::new(py, " ").call_method1("join", (parts,))?;
    Ok(PyString::new(py, &format!("<{text}>")).into_any())
}

#[inline]
fn is_timer(object: &Bound<'_, PyAny>) -> bool {
    TIMER_HANDLE.is_exact(object)
}

fn cancel<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let handle = HANDLE.of(object);
    if !handle.cancelled.replace(true) {
        if let Some(event_loop) = handle.event_loop.get(py) {
            if event_loop::is_debug(&event_loop)? {
                // The reports of slow callbacks still want to name it.
                handle.cancelled.set(false);
                let text = representation(object);
                handle.cancelled.set(true);
                handle
                    .representation
                    .set(cancelled_representation(py, &text?)?);
            }
            if handle.scheduled.get() {
                event_loop::timer_cancelled(&event_loop);
            }
        }
        handle.forget_callback();
    }
    Ok(py.None().into_bound(py))
}

/// Puts the word `cancelled` where the representation of a cancelled handle has it.
fn cancelled_representation<'py>(py: Python<'py>, text: &Bound<'py, PyAny>) -> Returned<'py> {
    let text: String = text.extract()?;
    let inner = text.trim_start_matches('<');
    let split = inner.find([' ', '>']).unwrap_or(inner.len());
    let (name, rest) = inner.split_at(split);
    Ok(PyString::new(py, &format!("<{name} cancelled{rest}")).into_any())
}

fn cancelled<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let answer = HANDLE.of(object).cancelled.get();
    Ok(pyo3::types::PyBool::new(object.py(), answer)
        .to_owned()
        .into_any())
}

fn run_method<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let (py, handle) = (object.py(), HANDLE.of(object));
    if let Some(event_loop) = handle.event_loop.get(py)
        && let Some(state) = EVENT_LOOP.get(&event_loop)
    {
        run(state, object, handle)?;
    }
    Ok(py.None().into_bound(py))
}

fn or_none<'py>(py: Python<'py>, value: Option<Bound<'py, PyAny>>) -> Bound<'py, PyAny> {
    value.unwrap_or_else(|| py.None().into_bound(py))
}

fn get_context<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let (py, handle) = (object.py(), HANDLE.of(object));
    if let Some(snapshot) = handle.context.get(py)
        && handle.shared.replace(false)
    {
        // Whoever asks may change it.
        handle.context.set(context::copy(&snapshot)?);
    }
    Ok(or_none(py, handle.context.get(py)))
}

fn get_callback<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(or_none(
        object.py(),
        HANDLE.of(object).callback.get(object.py()),
    ))
}

fn get_args<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let (py, handle) = (object.py(), HANDLE.of(object));
    if handle.cancelled.get() {
        Ok(py.None().into_bound(py))
    } else {
        handle.arguments(py)
    }
}

fn get_loop<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(or_none(
        object.py(),
        HANDLE.of(object).event_loop.get(object.py()),
    ))
}

fn get_source_traceback<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(or_none(
        object.py(),
        HANDLE.of(object).source_traceback.get(object.py()),
    ))
}

fn set_source_traceback(
    object: &Bound<'_, PyAny>,
    value: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<()> {
    match value {
        Some(value) if !value.is_none() => HANDLE.of(object).source_traceback.set(value.to_owned()),
        _ => HANDLE.of(object).source_traceback.clear(),
    }
    Ok(())
}

// A handle cannot inherit from `asyncio.Handle`, whose memory is that of a collected object. It says that it is one,
// so that `isinstance()` agrees.

fn class_of_handle<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(imports(object.py()).handle.bind(object.py()).clone())
}

fn class_of_timer<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(imports(object.py()).timer_handle.bind(object.py()).clone())
}

fn get_when<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyFloat::new(object.py(), HANDLE.of(object).when.get()).into_any())
}

fn get_scheduled<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let answer = HANDLE.of(object).scheduled.get();
    Ok(pyo3::types::PyBool::new(object.py(), answer)
        .to_owned()
        .into_any())
}

fn hash(object: &Bound<'_, PyAny>) -> PyResult<ffi::Py_hash_t> {
    PyFloat::new(object.py(), HANDLE.of(object).when.get()).hash()
}

/// Timer handles are ordered by their deadline, as asyncio's are.
fn compare<'py>(
    left: &Bound<'py, PyAny>,
    right: &Bound<'py, PyAny>,
    operation: c_int,
) -> Returned<'py> {
    let py = left.py();
    if !is_timer(left) || !right.is_instance(imports(py).timer_handle.bind(py))? {
        return Ok(py.NotImplemented().into_bound(py));
    }
    let equal = || -> PyResult<bool> {
        for name in ["_when", "_callback", "_args", "_cancelled"] {
            if !left.getattr(name)?.eq(right.getattr(name)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let x = HANDLE.of(left).when.get();
    let y = if is_timer(right) {
        HANDLE.of(right).when.get()
    } else {
        right.getattr("_when")?.extract()?
    };
    let answer = match operation {
        ffi::Py_LT => x < y,
        ffi::Py_LE => x < y || equal()?,
        ffi::Py_GT => x > y,
        ffi::Py_GE => x > y || equal()?,
        ffi::Py_EQ => equal()?,
        ffi::Py_NE => !equal()?,
        _ => return Ok(py.NotImplemented().into_bound(py)),
    };
    Ok(pyo3::types::PyBool::new(py, answer).to_owned().into_any())
}

/// Makes both classes and adds them to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut slots = class_slots::<HandleClass>();
    slots.push(slot!(repr representation));
    let handle = HANDLE.make(
        py,
        c"weft.Handle",
        None,
        Description {
            methods: vec![
                method!(none "cancel" => cancel, "Keep the callback from being called; without effect once it was."),
                method!(none "cancelled" => cancelled, "Return True if the handle was cancelled."),
                method!(none "get_context" => get_context, "Return the contextvars.Context that the callback runs in."),
                method!(none "_run" => run_method, "Call the callback now."),
            ],
            properties: vec![
                property!("__class__" => class_of_handle),
                property!("_callback" => get_callback),
                property!("_args" => get_args),
                property!("_cancelled" => cancelled),
                property!("_context" => get_context),
                property!("_loop" => get_loop),
                property!("_source_traceback" => get_source_traceback, set_source_traceback),
            ],
            slots,
            doc: Some(c"A callback that the loop will call, as asyncio.Handle."),
            subclassable: true,
            weak_references: Some(offset_of!(Handle, weak_references)),
            immutable: true,
            ..Description::default()
        },
    )?;
    let timer = TIMER_HANDLE.make(
        py,
        c"weft.TimerHandle",
        Some(&handle),
        Description {
            methods: vec![
                method!(none "when" => get_when, "Return the moment of the call, in seconds of loop.time()."),
            ],
            properties: vec![
                property!("__class__" => class_of_timer),
                property!("_when" => get_when),
                property!("_scheduled" => get_scheduled),
            ],
            slots: vec![
                dealloc_slot::<HandleClass, TimerHandleClass>(),
                slot!(hash hash),
                slot!(compare compare),
            ],
            doc: Some(c"A callback that the loop will call at a given time, as asyncio.TimerHandle."),
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("Handle", handle)?;
    module.add("TimerHandle", timer)
}
