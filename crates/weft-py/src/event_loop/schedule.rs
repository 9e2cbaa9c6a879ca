//! `call_soon`, `call_later` and their like.

use std::sync::OnceLock;

use pyo3::Borrowed;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;
use weft_reactor::Waker;

use super::{EVENT_LOOP, EventLoop, Job, Ready};
use crate::event_loop::handles::{self, HANDLE};
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::object::is_callable;
use crate::method;

fn closed_error() -> PyErr {
    PyRuntimeError::new_err("Event loop is closed")
}

impl EventLoop {
    /// # Errors
    /// `RuntimeError` where the loop is closed.
    #[inline]
    pub fn check_closed(&self) -> PyResult<()> {
        if self.closed.get() {
            Err(closed_error())
        } else {
            Ok(())
        }
    }

    /// Wakes the loop where its thread waits in the poll.
    #[inline]
    pub fn wake(&self) {
        if self.sleeping.replace(false)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake();
        }
    }

    /// Where the loop's thread waits in the poll: what has to wake it, soon, once the GIL has been given up.
    #[inline]
    pub fn waker_if_needed(&self) -> Option<Waker> {
        if self.sleeping.replace(false) {
            self.waker.borrow().clone()
        } else {
            None
        }
    }
}

/// asyncio's debug checks of the calling thread and the callback.
#[cold]
fn check_call(
    event_loop: &Bound<'_, PyAny>,
    callback: &Bound<'_, PyAny>,
    method: &str,
    any_thread: bool,
) -> PyResult<()> {
    if !any_thread {
        event_loop.call_method0("_check_thread")?;
    }
    event_loop.call_method1("_check_callback", (callback, method))?;
    Ok(())
}

/// What to call instead of an object that is no callable, and in which context.
pub type InItsPlace<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>);

/// What a layer above knows of such an object.
type CallableFor = for<'py> fn(&Bound<'py, PyAny>) -> PyResult<Option<InItsPlace<'py>>>;

static CALLABLE_FOR: OnceLock<CallableFor> = OnceLock::new();

/// Lets a layer above translate what is no callable.
pub fn set_callable_for(translate: CallableFor) {
    CALLABLE_FOR.get_or_init(|| translate);
}

/// The arguments of `call_soon` and its like: those before `*args` may be given by name.
struct Call<'a, 'py, const N: usize> {
    named: [Borrowed<'a, 'py, PyAny>; N],
    context: Option<Borrowed<'a, 'py, PyAny>>,
}

#[inline]
fn bind<'a, 'py, const N: usize>(
    args: Args<'a, 'py>,
    method: &str,
    names: [&str; N],
) -> PyResult<Call<'a, 'py, N>> {
    let mut found: [Option<Borrowed<'a, 'py, PyAny>>; N] = std::array::from_fn(|i| args.get(i));
    let mut context = None;
    if args.has_keywords() {
        for (keyword, value) in args.keywords() {
            if keyword == "context" {
                context = Some(value);
            } else {
                args.bind_keyword(method, &names, &mut found, &keyword, value)?;
            }
        }
    }
    let mut missing = None;
    let bound = std::array::from_fn(|i| {
        found[i].unwrap_or_else(|| {
            missing.get_or_insert(names[i]);
            args.none()
        })
    });
    match missing {
        Some(name) => Err(missing_argument(method, name)),
        None => Ok(Call {
            named: bound,
            context,
        }),
    }
}

#[inline]
fn schedule<'py>(
    event_loop: &Bound<'py, PyAny>,
    args: Args<'_, 'py>,
    method: &str,
    any_thread: bool,
) -> Returned<'py> {
    let state = EVENT_LOOP.of(event_loop);
    state.check_closed()?;
    let Call {
        named: [callback],
        context,
    } = bind(args, method, ["callback"])?;
    let debug = state.debug.get();
    if !is_callable(&callback)
        && let Some(translate) = CALLABLE_FOR.get()
        && let Some((callable, own)) = translate(&callback)?
    {
        let context = context.map(pyo3::Borrowed::to_owned).or(own);
        let context = context.as_ref().map(Bound::as_borrowed);
        let handle = handles::make(
            event_loop,
            debug,
            callable.as_borrowed(),
            args,
            1,
            context,
            None,
        )?;
        state.ready.push(Ready::Handle(handle.clone().into()));
        return Ok(handle);
    }
    if debug {
        check_call(event_loop, &callback, method, any_thread)?;
    }
    let handle = handles::make(event_loop, debug, callback, args, 1, context, None)?;
    state.ready.push(Ready::Handle(handle.clone().into()));
    Ok(handle)
}

fn call_soon_method<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    schedule(event_loop, args, "call_soon", false)
}

fn call_soon_threadsafe<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let handle = schedule(event_loop, args, "call_soon_threadsafe", true)?;
    EVENT_LOOP.of(event_loop).wake();
    Ok(handle)
}

#[inline]
fn schedule_at<'py>(
    event_loop: &Bound<'py, PyAny>,
    args: Args<'_, 'py>,
    when: f64,
    callback: Borrowed<'_, 'py, PyAny>,
    context: Option<Borrowed<'_, 'py, PyAny>>,
) -> Returned<'py> {
    let state = EVENT_LOOP.of(event_loop);
    state.check_closed()?;
    let debug = state.debug.get();
    if debug {
        check_call(event_loop, &callback, "call_at", false)?;
    }
    let timer = handles::make(event_loop, debug, callback, args, 2, context, Some(when))?;
    HANDLE.of(&timer).set_scheduled(true);
    state.timers.borrow_mut().push(when, timer.clone().into());
    Ok(timer)
}

fn call_later<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let Call {
        named: [delay, callback],
        context,
    } = bind(args, "call_later", ["delay", "callback"])?;
    if delay.is_none() {
        return Err(PyTypeError::new_err("delay must not be None"));
    }
    let delay: f64 = delay.extract()?;
    let now = EVENT_LOOP.of(event_loop).now(event_loop)?;
    schedule_at(event_loop, args, now + delay, callback, context)
}

fn call_at<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let Call {
        named: [when, callback],
        context,
    } = bind(args, "call_at", ["when", "callback"])?;
    if when.is_none() {
        return Err(PyTypeError::new_err("when cannot be None"));
    }
    schedule_at(event_loop, args, when.extract()?, callback, context)
}

/// `_add_callback(handle)`: queues a handle that code inherited from asyncio has made.
fn add_callback<'py>(event_loop: &Bound<'py, PyAny>, handle: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = event_loop.py();
    if !handle.getattr(intern!(py, "_cancelled"))?.is_truthy()? {
        EVENT_LOOP
            .of(event_loop)
            .ready
            .push(Ready::Handle(handle.clone().into()));
    }
    Ok(py.None().into_bound(py))
}

/// `_write_to_self()`: wakes the loop.
fn write_to_self<'py>(event_loop: &Bound<'py, PyAny>) -> Returned<'py> {
    EVENT_LOOP.of(event_loop).wake();
    Ok(event_loop.py().None().into_bound(event_loop.py()))
}

/// Calls `call_soon(callback, argument)`; by way of the method only where that may be somebody else's.
///
/// # Errors
/// `RuntimeError` where the loop is closed; what a replaced method raises.
pub fn call_soon<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    argument: Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    let state = EVENT_LOOP.of(event_loop);
    if !state.schedules_directly(event_loop) {
        let method = intern!(py, "call_soon");
        return event_loop
            .call_method1(method, (callback, argument))
            .map(drop);
    }
    let (context, shared) = state.contexts().copy_current(py)?;
    let handle = handles::make_internal(event_loop, callback, Some(argument), context)?;
    HANDLE.of(&handle).set_shared(shared);
    state.push(Ready::Handle(handle.into()));
    Ok(())
}

/// As [`call_soon`], in `context`.
///
/// # Errors
/// As [`call_soon`].
pub fn call_soon_in<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    argument: Bound<'py, PyAny>,
    context: Bound<'py, PyAny>,
) -> PyResult<()> {
    let state = EVENT_LOOP.of(event_loop);
    if state.schedules_directly(event_loop) {
        return call_soon_directly(state, event_loop, callback, argument, context);
    }
    call_soon_by_method(event_loop, &callback, &argument, Some(&context))
}

/// Calls `call_soon(callback, argument, context=context)` on any loop, by way of its method.
///
/// # Errors
/// What the method raises.
pub fn call_soon_by_method<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
    context: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = event_loop.py();
    let keywords = pyo3::types::PyDict::new(py);
    if let Some(context) = context {
        keywords.set_item(intern!(py, "context"), context)?;
    }
    event_loop
        .call_method(
            intern!(py, "call_soon"),
            (callback, argument),
            Some(&keywords),
        )
        .map(drop)
}

/// Queues `callback(argument)` on a native loop whose queue may be filled directly.
///
/// # Errors
/// `MemoryError`.
pub fn call_soon_directly<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    argument: Bound<'py, PyAny>,
    context: Bound<'py, PyAny>,
) -> PyResult<()> {
    let handle = handles::make_internal(event_loop, callback, Some(argument), context)?;
    state.push(Ready::Handle(handle.into()));
    Ok(())
}

/// Calls `job` with the loop, `object` and `argument` after `delay` seconds, unless the timer is cancelled.
///
/// # Errors
/// What a replaced `time()` raises.
pub fn job_later<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    delay: f64,
    job: Job,
    object: Bound<'py, PyAny>,
    argument: Option<Bound<'py, PyAny>>,
) -> Returned<'py> {
    let when = state.now(event_loop)? + delay;
    job_at(state, event_loop, when, job, object, argument)
}

/// As [`job_later`], at `when` in seconds of the loop's clock.
///
/// # Errors
/// `MemoryError`.
pub fn job_at<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    when: f64,
    job: Job,
    object: Bound<'py, PyAny>,
    argument: Option<Bound<'py, PyAny>>,
) -> Returned<'py> {
    let timer = handles::make_job(event_loop, when, job, object, argument)?;
    HANDLE.of(&timer).set_scheduled(true);
    state.timers.borrow_mut().push(when, timer.clone().into());
    Ok(timer)
}

/// As [`job_at`] for a moment that has passed: the job is called in the next turn.
///
/// # Errors
/// `MemoryError`.
pub fn job_soon<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    when: f64,
    job: Job,
    object: Bound<'py, PyAny>,
) -> Returned<'py> {
    let handle = handles::make_job(event_loop, when, job, object, None)?;
    state.ready.push(Ready::Handle(handle.clone().into()));
    Ok(handle)
}

pub(super) fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "call_soon" => call_soon_method,
            "call_soon($self, callback, *args, context=None)\n--\n\nArrange for a callback to be called in the next turn of the loop; return its Handle."),
        method!(fast "call_soon_threadsafe" => call_soon_threadsafe,
            "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\nLike call_soon(), from any thread."),
        method!(fast "call_later" => call_later,
            "call_later($self, delay, callback, *args, context=None)\n--\n\nArrange for a callback to be called after delay seconds; return its TimerHandle."),
        method!(fast "call_at" => call_at,
            "call_at($self, when, callback, *args, context=None)\n--\n\nArrange for a callback to be called at when, in seconds of loop.time(); return its TimerHandle."),
        method!(one "_add_callback" => add_callback, "Queue a Handle."),
        method!(none "_write_to_self" => write_to_self, "Wake the loop from another thread."),
    ]
}
