//! `Future`: a subclass of `_asyncio.Future` that wakes native tasks without a callback between them.
//!
//! The state lives in the base's own fields (see [`crate::ffi::base`]), so results, exceptions, callbacks, names,
//! tracebacks, representations and finalizers are the base's. What is overridden here is what schedules: a native
//! future puts its callbacks into a native loop's ready queue by itself. On any other loop, and in debug mode, it
//! lets the base do as it does.
//!
//! A native task that awaits a future is stored as the future's callback *itself*, not wrapped in anything, and
//! waking it moves that reference into the ready queue. Code outside this module never sees the bare task: reading
//! `_callbacks` shows the bound method that asyncio would have registered.

mod callbacks;
mod gathering;
mod iterator;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::Borrowed;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyList, PyTuple};

use crate::event_loop::{self, EVENT_LOOP, EventLoop, Job, Ready};
use crate::ffi::base;
use crate::ffi::call::{call1, call2};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::extending_slots;
use crate::ffi::method::{Args, Returned};
use crate::ffi::object::{function_of_entry, receiver_of_builtin};
use crate::ffi::{Class, Native, callback, context};
use crate::imports::imports;
use crate::{method, property, slot};
use callbacks::store_callback;
pub use callbacks::{
    Ending, Failure, add_callback, ending, failure, feeds_directly, forget_awaited_by, initialise,
    note_awaited_by, remove_callback,
};
pub use gathering::GATHERING;
pub use iterator::{iterate, thrown_error};

/// `weft.Future` adds no field to its base.
#[derive(Debug, Default)]
pub struct Future;

impl Native for Future {
    const EXTENDS: bool = true;
    const RECYCLED: usize = 4096;

    fn class() -> &'static Class<Self> {
        &FUTURE
    }
}

/// `weft.Future`.
pub static FUTURE: Class<Future> = Class::new();

/// Whether `object` is a future of a native class, whose memory is known and whose callbacks are scheduled natively.
/// Tasks are asked for elsewhere.
#[inline]
pub fn is_native(object: &Bound<'_, PyAny>) -> bool {
    FUTURE.is_exact(object) || GATHERING.is_exact(object)
}

/// What this module has to know of the tasks that wait for futures; told by the module of tasks, which builds on this.
#[derive(Clone, Copy, Debug)]
pub struct Waiters {
    /// Whether an object is such a task.
    pub is_waiter: fn(&Bound<'_, PyAny>) -> bool,
    /// The job that wakes one.
    pub wake: Job,
    /// The bound method that stands for one wherever Python looks.
    pub method: for<'py> fn(&Bound<'py, PyAny>) -> Returned<'py>,
    /// The context that the method has to be called in.
    pub context: for<'py> fn(&Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>>,
}

static WAITERS: OnceLock<Waiters> = OnceLock::new();

/// Tells this module about waiting tasks.
pub fn set_waiters(waiters: Waiters) {
    WAITERS.get_or_init(|| waiters);
}

/// # Errors
/// `RuntimeError` before [`set_waiters`], when no task exists that could wait.
fn waiters() -> PyResult<&'static Waiters> {
    WAITERS
        .get()
        .ok_or_else(|| PyRuntimeError::new_err("no task can wait yet"))
}

fn is_waiter(object: &Bound<'_, PyAny>) -> bool {
    WAITERS
        .get()
        .is_some_and(|waiters| (waiters.is_waiter)(object))
}

/// The state of a future's loop where it is one of ours that can be fed directly.
#[inline]
fn direct<'a>(event_loop: Option<&'a Bound<'_, PyAny>>) -> Option<&'a EventLoop> {
    let event_loop = event_loop?;
    EVENT_LOOP
        .get(event_loop)
        .filter(|state| state.schedules_directly(event_loop))
}

/// A pending future of `event_loop`, as `loop.create_future()`.
///
/// # Errors
/// `MemoryError`.
pub fn create_future<'py>(event_loop: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = event_loop.py();
    if EVENT_LOOP.of(event_loop).is_debug() {
        // The base's constructor takes the traceback.
        let keywords = pyo3::types::PyDict::new(py);
        keywords.set_item(intern!(py, "loop"), event_loop)?;
        return FUTURE.type_object(py).call((), Some(&keywords));
    }
    let future = FUTURE.instance(py)?;
    base::future(&future).event_loop.fill(event_loop.clone());
    Ok(future)
}

/// Moves all callbacks of a future that has just been done into the ready queue.
///
/// # Errors
/// What a foreign loop's `call_soon` raises.
pub fn schedule_callbacks(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    let fields = base::future(future);
    let first = fields.callback0.take(py);
    let first_context = fields.context0.take(py);
    let others = fields.callbacks.take(py);
    if first.is_none() && others.is_none() {
        return Ok(());
    }
    let event_loop = fields.event_loop.get(py);
    let state = direct(event_loop.as_ref());
    let Some(event_loop) = &event_loop else {
        return Err(PyRuntimeError::new_err("Future object is not initialized."));
    };
    if let Some(callback) = first {
        schedule_one(state, event_loop, future, callback, first_context)?;
    }
    if let Some(others) = others {
        for pair in others.cast_into::<PyList>()?.iter() {
            let pair = pair.cast_into::<PyTuple>()?;
            schedule_one(
                state,
                event_loop,
                future,
                pair.get_item(0)?,
                Some(pair.get_item(1)?),
            )?;
        }
    }
    Ok(())
}

#[inline]
fn schedule_one<'py>(
    state: Option<&EventLoop>,
    event_loop: &Bound<'py, PyAny>,
    future: &Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    context: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let waiter = match &context {
        // Only a waiter is stored without a context; in a list of callbacks its context is None.
        None => true,
        Some(context) => context.is_none() && is_waiter(&callback),
    };
    match (state, context) {
        (Some(state), _) if waiter => {
            state.push(Ready::Job {
                run: waiters()?.wake,
                object: callback.into(),
                argument: None,
            });
            Ok(())
        }
        (Some(state), Some(context)) if !context.is_none() => {
            if callback::recognise(&callback).is_some() {
                state.push(Ready::Job {
                    run: callbacks::run_callback,
                    object: callback.into(),
                    argument: Some(future.clone().into()),
                });
                return Ok(());
            }
            event_loop::call_soon_directly(state, event_loop, callback, future.clone(), context)
        }
        (_, context) => {
            let (callback, context) = if waiter {
                (
                    (waiters()?.method)(&callback)?,
                    (waiters()?.context)(&callback)?,
                )
            } else {
                (callback, context)
            };
            event_loop::call_soon_by_method(event_loop, &callback, future, context.as_ref())
        }
    }
}

/// Registers a native task to be woken when `future`, which is pending, is done.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn add_waiter(future: &Bound<'_, PyAny>, task: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    let fields = base::future(future);
    if !fields.callback0.is_set() && !fields.callbacks.is_set() {
        fields.callback0.fill(task.clone());
        return Ok(());
    }
    // Its own context is found through the task.
    let pair = PyTuple::new(py, [Some(task.clone()), None])?;
    if let Some(list) = fields.callbacks.get(py) {
        list.cast_into::<PyList>()?.append(pair)?;
    } else {
        fields.callbacks.set(PyList::new(py, [pair])?.into_any());
    }
    Ok(())
}

/// Sets the result of a pending future.
///
/// # Errors
/// What a foreign loop's `call_soon` raises.
#[inline]
pub fn finish(future: &Bound<'_, PyAny>, result: Bound<'_, PyAny>) -> PyResult<()> {
    let fields = base::future(future);
    fields.result.set(result);
    fields.state.set(base::FINISHED);
    schedule_callbacks(future)
}

/// Sets the exception of a pending future by the base's own rules, which differ from version to version.
///
/// # Errors
/// What the base raises for exceptions that it does not accept.
pub fn fail(future: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    let fields = base::future(future);
    if !is_fed_directly(future) {
        return imports(py)
            .future_set_exception
            .bind(py)
            .call1((future, error))
            .map(drop);
    }
    // The base sees a future without callbacks; they are scheduled here.
    let first = fields.callback0.take(py);
    let first_context = fields.context0.take(py);
    let others = fields.callbacks.take(py);
    let outcome = imports(py)
        .future_set_exception
        .bind(py)
        .call1((future, error));
    if let Some(first) = first {
        fields.callback0.set(first);
    }
    if let Some(context) = first_context {
        fields.context0.set(context);
    }
    if let Some(others) = others {
        fields.callbacks.set(others);
    }
    outcome?;
    schedule_callbacks(future)
}

/// Cancels a pending future.
///
/// # Errors
/// What a foreign loop's `call_soon` raises.
#[inline]
pub fn cancel_pending(
    future: &Bound<'_, PyAny>,
    message: Option<Bound<'_, PyAny>>,
) -> PyResult<()> {
    let fields = base::future(future);
    fields.state.set(base::CANCELLED);
    match message {
        Some(message) => fields.cancel_message.set(message),
        None => fields.cancel_message.clear(),
    }
    schedule_callbacks(future)
}

fn is_fed_directly(future: &Bound<'_, PyAny>) -> bool {
    direct(base::future(future).event_loop.get(future.py()).as_ref()).is_some()
}

fn set_result<'py>(future: &Bound<'py, PyAny>, result: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = future.py();
    let fields = base::future(future);
    if !fields.is_alive() || !fields.is_pending() {
        // The base has the right words.
        return call2(imports(py).future_set_result.bind(py), future, result);
    }
    finish(future, result.clone())?;
    Ok(py.None().into_bound(py))
}

fn set_exception<'py>(future: &Bound<'py, PyAny>, error: &Bound<'py, PyAny>) -> Returned<'py> {
    fail(future, error)?;
    Ok(future.py().None().into_bound(future.py()))
}

fn cancel<'py>(future: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = future.py();
    let fields = base::future(future);
    let [message] = args.bind("cancel", ["msg"])?;
    if !fields.is_alive() {
        return call1(imports(py).future_cancel.bind(py), future);
    }
    fields.set_log_traceback(false);
    let pending = fields.is_pending();
    if pending {
        let message = message.map_or_else(|| py.None().into_bound(py), pyo3::Borrowed::to_owned);
        cancel_pending(future, Some(message))?;
    }
    Ok(PyBool::new(py, pending).to_owned().into_any())
}

fn add_done_callback<'py>(future: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = future.py();
    let fields = base::future(future);
    if !fields.is_alive() {
        return Err(PyRuntimeError::new_err("uninitialized Future object"));
    }
    let callback = args.required("add_done_callback", 0, "fn")?.to_owned();
    let context = match args.only_keyword("add_done_callback", "context")? {
        Some(context) => context.to_owned(),
        None => context::copy_current(py)?,
    };
    if args.count() > 1 {
        return Err(pyo3::exceptions::PyTypeError::new_err(
            "add_done_callback() takes exactly 1 positional argument",
        ));
    }
    if fields.is_pending() {
        store_callback(future, callback, context)?;
    } else if let Some(event_loop) = &fields.event_loop.get(py) {
        let state = direct(Some(event_loop));
        schedule_one(state, event_loop, future, callback, Some(context))?;
    }
    Ok(py.None().into_bound(py))
}

/// `remove_done_callback(fn)`: the base's, which shall find a waiting task's method in the task's place.
fn remove_done_callback<'py>(
    future: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let py = future.py();
    show_waiters(future)?;
    call2(
        imports(py).future_remove_done_callback.bind(py),
        future,
        callback,
    )
}

/// Puts the wake-up method of each waiting task where the task itself stands.
fn show_waiters(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    let fields = base::future(future);
    if let Some(first) = fields.callback0.get(py)
        && !fields.context0.is_set()
    {
        let (method, context) = ((waiters()?.method)(&first)?, (waiters()?.context)(&first)?);
        fields.callback0.set(method);
        fields
            .context0
            .set(context.unwrap_or_else(|| py.None().into_bound(py)));
    }
    if let Some(others) = fields.callbacks.get(py) {
        let others = others.cast_into::<PyList>()?;
        for (index, pair) in others.iter().enumerate() {
            let callback = pair.cast::<PyTuple>()?.get_item(0)?;
            if is_waiter(&callback) {
                let context = (waiters()?.context)(&callback)?;
                others.set_item(index, ((waiters()?.method)(&callback)?, context))?;
            }
        }
    }
    Ok(())
}

/// `_callbacks`: pairs of callback and context, a waiting native task shown as its wake-up method.
fn shown_callbacks<'py>(future: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = future.py();
    let fields = base::future(future);
    if !fields.is_alive() {
        return Err(PyRuntimeError::new_err("Future object is not initialized."));
    }
    let shown = PyList::empty(py);
    let show = |callback: Bound<'py, PyAny>, context: Option<Bound<'py, PyAny>>| -> PyResult<()> {
        if is_waiter(&callback) {
            shown.append((
                (waiters()?.method)(&callback)?,
                (waiters()?.context)(&callback)?,
            ))
        } else {
            shown.append((callback, context))
        }
    };
    if let Some(first) = fields.callback0.get(py) {
        show(first, fields.context0.get(py))?;
    }
    if let Some(others) = fields.callbacks.get(py) {
        for pair in others.cast_into::<PyList>()?.iter() {
            let pair = pair.cast_into::<PyTuple>()?;
            show(pair.get_item(0)?, Some(pair.get_item(1)?))?;
        }
    }
    if shown.is_empty() {
        Ok(py.None().into_bound(py))
    } else {
        Ok(shown.into_any())
    }
}

/// The C function behind `Future.set_result`, by address.
static SET_RESULT: AtomicUsize = AtomicUsize::new(0);

/// Whether a callback is `set_result` of a native future, which only fills the ready queue of a native loop.
fn is_completion(callback: &Bound<'_, PyAny>) -> bool {
    receiver_of_builtin(callback, SET_RESULT.load(Ordering::Relaxed))
        .is_some_and(|future| FUTURE.is_exact(&future) && is_fed_directly(&future))
}

/// Methods that futures and tasks share.
pub fn common_methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "add_done_callback" => add_done_callback,
            "add_done_callback($self, fn, /, *, context=None)\n--\n\nCall fn(future) soon after the future is done, in a copy of the current context or in the given one."),
        method!(one "remove_done_callback" => remove_done_callback,
            "remove_done_callback($self, fn, /)\n--\n\nTake away all callbacks that equal fn; return how many they were."),
    ]
}

/// Properties that futures and tasks share.
pub fn common_properties() -> Vec<ffi::PyGetSetDef> {
    vec![property!("_callbacks" => shown_callbacks)]
}

/// The methods that this module adds to the loop.
pub fn loop_methods() -> Vec<ffi::PyMethodDef> {
    vec![method!(none "create_future" => create_future, "Return a new Future of this loop.")]
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut methods = common_methods();
    let set_result_entry = method!(one "set_result" => set_result,
            "set_result($self, result, /)\n--\n\nMark the future done with a result. Raises InvalidStateError where it is done already.");
    SET_RESULT.store(function_of_entry(&set_result_entry), Ordering::Relaxed);
    methods.extend([
        set_result_entry,
        method!(one "set_exception" => set_exception,
            "set_exception($self, exception, /)\n--\n\nMark the future done with an exception. Raises InvalidStateError where it is done already."),
        method!(fast "cancel" => cancel,
            "cancel($self, msg=None)\n--\n\nCancel the future and schedule its callbacks. Return False where it is done already."),
    ]);
    event_loop::handles::set_trust(is_completion);
    iterator::make(py)?;
    let mut slots = extending_slots::<Future>();
    slots.extend([slot!(await iterate), slot!(iter iterate)]);
    let class = FUTURE.make(
        py,
        c"weft.Future",
        Some(imports(py).future.bind(py)),
        Description {
            methods,
            properties: common_properties(),
            slots,
            doc: Some(
                c"Future(*, loop=None)\n--\n\nA result that is not there yet, as asyncio.Future.",
            ),
            instantiable: true,
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("Future", class)?;
    gathering::make(module)
}

/// A borrowed optional as an owned one.
pub fn owned<'py>(value: Option<Borrowed<'_, 'py, PyAny>>) -> Option<Bound<'py, PyAny>> {
    value.map(pyo3::Borrowed::to_owned)
}
