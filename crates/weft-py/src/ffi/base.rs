//! The memory of `_asyncio.Future` and `_asyncio.Task`, which native futures and tasks inherit and use.
//!
//! A native future keeps its state in the very fields in which `CPython` keeps it, so that every inherited method,
//! property and finalizer, and every tool that looks into a task from outside, finds what it expects. The fields are
//! private to `CPython`; they are mirrored here for each supported version, and [`verify`] drives stock objects through
//! their states and compares before anything relies on them.

use std::cell::Cell;
use std::mem::{offset_of, size_of};

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyType};

use super::Slot;

/// `fut_state`: no result yet.
pub const PENDING: i32 = 0;
/// `fut_state`: cancelled.
pub const CANCELLED: i32 = 1;
/// `fut_state`: has a result or an exception.
pub const FINISHED: i32 = 2;

/// The fields that futures and tasks share (`FutureObj_HEAD`).
#[repr(C)]
#[derive(Debug)]
pub struct Future {
    head: [usize; 2],
    /// The loop; empty until initialised.
    pub event_loop: Slot,
    /// The first callback, or a waiting native task itself.
    pub callback0: Slot,
    /// The first callback's context.
    pub context0: Slot,
    /// Further callbacks, a list of pairs with their contexts.
    pub callbacks: Slot,
    /// What the future raises.
    pub exception: Slot,
    /// The traceback that the exception had when it was set.
    pub exception_traceback: Slot,
    /// What the future returns.
    pub result: Slot,
    /// Where it was created, in debug mode.
    pub source_traceback: Slot,
    /// The argument of `cancel()`.
    pub cancel_message: Slot,
    /// The very exception that ended it, kept for whoever awaits it.
    #[cfg(Py_3_13)]
    pub cancelled_error: Slot,
    /// Who awaits it: a task, or a set of tasks.
    #[cfg(Py_3_14)]
    pub awaited_by: Slot,
    /// [`PENDING`], [`CANCELLED`] or [`FINISHED`].
    pub state: Cell<i32>,
    /// Tells a task from a future to tools that look in from outside.
    #[cfg(Py_3_14)]
    pub is_task: Cell<bool>,
    /// Whether `awaited_by` is a set.
    #[cfg(Py_3_14)]
    pub awaited_by_is_set: Cell<bool>,
    #[cfg(Py_3_13)]
    bits: Cell<u8>,
    #[cfg(not(Py_3_13))]
    log_traceback: Cell<i32>,
    #[cfg(not(Py_3_13))]
    blocking: Cell<i32>,
    #[cfg(not(Py_3_13))]
    dict: Slot,
    #[cfg(not(Py_3_13))]
    weak_references: Slot,
    /// The very exception that ended it, kept for whoever awaits it.
    #[cfg(not(Py_3_13))]
    pub cancelled_error: Slot,
}

/// The fields of a task (`TaskObj`).
#[repr(C)]
#[derive(Debug)]
pub struct Task {
    /// The fields that it shares with futures.
    pub future: Future,
    /// `cancelling()`.
    #[cfg(Py_3_13)]
    pub cancels_requested: Cell<i32>,
    /// What the task waits for.
    pub waiter: Slot,
    /// What the task runs.
    pub coroutine: Slot,
    /// The name, or its number.
    pub name: Slot,
    /// The context that the task runs in.
    pub context: Slot,
    #[cfg(not(Py_3_13))]
    must_cancel: Cell<i32>,
    #[cfg(not(Py_3_13))]
    log_destroy_pending: Cell<i32>,
    /// `cancelling()`.
    #[cfg(not(Py_3_13))]
    pub cancels_requested: Cell<i32>,
    #[cfg(Py_3_14)]
    node: [usize; 2],
}

#[cfg(Py_3_13)]
mod bit {
    pub const LOG_TRACEBACK: u8 = 1;
    pub const BLOCKING: u8 = 2;
    pub const MUST_CANCEL: u8 = 4;
    pub const LOG_DESTROY_PENDING: u8 = 8;
}

impl Future {
    #[cfg(Py_3_13)]
    #[inline]
    fn set_bit(&self, bit: u8, value: bool) {
        let bits = self.bits.get();
        self.bits.set(if value { bits | bit } else { bits & !bit });
    }

    /// Whether the future is initialised.
    #[inline]
    pub fn is_alive(&self) -> bool {
        self.event_loop.is_set()
    }

    /// Whether the future has neither result nor exception and is not cancelled.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.state.get() == PENDING
    }

    /// `_asyncio_future_blocking`.
    #[inline]
    pub fn blocking(&self) -> bool {
        #[cfg(Py_3_13)]
        return self.bits.get() & bit::BLOCKING != 0;
        #[cfg(not(Py_3_13))]
        return self.blocking.get() != 0;
    }

    /// Sets `_asyncio_future_blocking`.
    #[inline]
    pub fn set_blocking(&self, value: bool) {
        #[cfg(Py_3_13)]
        self.set_bit(bit::BLOCKING, value);
        #[cfg(not(Py_3_13))]
        self.blocking.set(i32::from(value));
    }

    /// `_log_traceback`.
    #[inline]
    pub fn log_traceback(&self) -> bool {
        #[cfg(Py_3_13)]
        return self.bits.get() & bit::LOG_TRACEBACK != 0;
        #[cfg(not(Py_3_13))]
        return self.log_traceback.get() != 0;
    }

    /// Sets `_log_traceback`.
    #[inline]
    pub fn set_log_traceback(&self, value: bool) {
        #[cfg(Py_3_13)]
        self.set_bit(bit::LOG_TRACEBACK, value);
        #[cfg(not(Py_3_13))]
        self.log_traceback.set(i32::from(value));
    }
}

impl Task {
    /// `_must_cancel`.
    #[inline]
    pub fn must_cancel(&self) -> bool {
        #[cfg(Py_3_13)]
        return self.future.bits.get() & bit::MUST_CANCEL != 0;
        #[cfg(not(Py_3_13))]
        return self.must_cancel.get() != 0;
    }

    /// Sets `_must_cancel`.
    #[inline]
    pub fn set_must_cancel(&self, value: bool) {
        #[cfg(Py_3_13)]
        self.future.set_bit(bit::MUST_CANCEL, value);
        #[cfg(not(Py_3_13))]
        self.must_cancel.set(i32::from(value));
    }

    /// Sets `_log_destroy_pending`.
    #[inline]
    pub fn set_log_destroy_pending(&self, value: bool) {
        #[cfg(Py_3_13)]
        self.future.set_bit(bit::LOG_DESTROY_PENDING, value);
        #[cfg(not(Py_3_13))]
        self.log_destroy_pending.set(i32::from(value));
    }
}

/// Whether `__init__` has given the future a loop.
///
/// # Safety
/// `object` is an instance of `_asyncio.Future`.
pub(super) unsafe fn is_initialised(object: *mut pyo3::ffi::PyObject) -> bool {
    // SAFETY: promised by the caller.
    unsafe { (*object.cast::<Future>()).is_alive() }
}

/// Whether the base's finalizer may have something to report: a task that is pending, an exception that nobody has seen.
///
/// # Safety
/// `object` is an instance of `_asyncio.Future`.
pub(super) unsafe fn has_last_words(object: *mut pyo3::ffi::PyObject) -> bool {
    // SAFETY: promised by the caller.
    let fields = unsafe { &*object.cast::<Future>() };
    fields.is_pending() || fields.log_traceback()
}

/// The base fields of a future or task.
///
/// The type of `object` must inherit from `_asyncio.Future`; callers have it from a class check.
#[inline]
pub fn future<'a>(object: &'a Bound<'_, PyAny>) -> &'a Future {
    // SAFETY: an instance of `_asyncio.Future`, kept alive by the reference, whose memory `verify` has compared.
    unsafe { &*object.as_ptr().cast::<Future>() }
}

/// The base fields of a task.
///
/// The type of `object` must inherit from `_asyncio.Task`; callers have it from a class check.
#[inline]
pub fn task<'a>(object: &'a Bound<'_, PyAny>) -> &'a Task {
    // SAFETY: as in `future`, for `_asyncio.Task`.
    unsafe { &*object.as_ptr().cast::<Task>() }
}

/// One comparison of a field with what stock Python says about it.
fn expect(fact: bool, what: &str) -> PyResult<()> {
    if fact {
        return Ok(());
    }
    Err(PyImportError::new_err(format!(
        "weft was built for another layout of asyncio's objects: {what} is not where it is expected; \
         build weft for this very version of Python"
    )))
}

fn size(ty: &Bound<'_, PyType>) -> usize {
    // SAFETY: a live type object.
    unsafe { (*ty.as_type_ptr()).tp_basicsize.cast_unsigned() }
}

/// Proves that the structures above describe this interpreter's `_asyncio.Future` and `_asyncio.Task`.
///
/// # Errors
/// `ImportError` where they do not.
pub fn verify(
    py: Python<'_>,
    future_type: &Bound<'_, PyType>,
    task_type: &Bound<'_, PyType>,
) -> PyResult<()> {
    expect(
        size(future_type) <= size_of::<Future>().next_multiple_of(8),
        "the end of a future",
    )?;
    expect(
        size(future_type) + 8 > size_of::<Future>(),
        "the end of a future",
    )?;
    expect(size(task_type) == size_of::<Task>(), "the end of a task")?;
    expect(
        offset_of!(Future, event_loop) == size_of::<ffi::PyObject>(),
        "the head of an object",
    )?;

    let event_loop = py.import("types")?.getattr("SimpleNamespace")?.call0()?;
    let no = py.eval(c"lambda *a, **k: None", None, None)?;
    event_loop.setattr("get_debug", &no)?;
    event_loop.setattr("call_soon", &no)?;
    event_loop.setattr("call_exception_handler", &no)?;
    let keywords = PyDict::new(py);
    keywords.set_item("loop", &event_loop)?;

    let object = future_type.call((), Some(&keywords))?;
    let fields = future(&object);
    expect(fields.event_loop.is(&event_loop), "a future's loop")?;
    expect(
        fields.is_pending() && !fields.blocking(),
        "a future's state",
    )?;
    object.setattr("_asyncio_future_blocking", true)?;
    expect(fields.blocking(), "a future's blocking flag")?;
    fields.set_blocking(false);
    expect(
        !object.getattr("_asyncio_future_blocking")?.is_truthy()?,
        "a future's blocking flag",
    )?;
    object.call_method1("add_done_callback", (&no,))?;
    expect(
        fields.callback0.is(&no) && fields.context0.is_set(),
        "a future's first callback",
    )?;
    expect(!fields.callbacks.is_set(), "a future's callbacks")?;
    object.call_method1("add_done_callback", (&no,))?;
    expect(fields.callbacks.is_set(), "a future's callbacks")?;
    let value = PyDict::new(py).into_any();
    object.call_method1("set_result", (&value,))?;
    expect(
        fields.state.get() == FINISHED && fields.result.is(&value),
        "a future's result",
    )?;
    expect(
        !fields.callback0.is_set() && !fields.callbacks.is_set(),
        "a future's callbacks",
    )?;

    let object = future_type.call((), Some(&keywords))?;
    let fields = future(&object);
    let error = py.get_type::<pyo3::exceptions::PyKeyError>().call0()?;
    object.call_method1("set_exception", (&error,))?;
    expect(fields.exception.is(&error), "a future's exception")?;
    expect(
        object.getattr("_log_traceback")?.is_truthy()?,
        "a future's log flag",
    )?;
    fields.set_log_traceback(false);
    expect(
        !object.getattr("_log_traceback")?.is_truthy()?,
        "a future's log flag",
    )?;

    let object = future_type.call((), Some(&keywords))?;
    let fields = future(&object);
    let message = pyo3::types::PyString::new(py, "a message").into_any();
    object.call_method1("cancel", (&message,))?;
    expect(fields.state.get() == CANCELLED, "a future's state")?;
    expect(
        fields.cancel_message.is(&message),
        "a future's cancel message",
    )?;
    fields.cancelled_error.set(error.clone());
    let made = object.call_method0("_make_cancelled_error")?;
    expect(
        made.is(&error) && !fields.cancelled_error.is_set(),
        "a future's cancelled error",
    )?;

    verify_task(py, task_type, &keywords)
}

fn verify_task(
    py: Python<'_>,
    task_type: &Bound<'_, PyType>,
    keywords: &Bound<'_, PyDict>,
) -> PyResult<()> {
    let context = super::context::copy_current(py)?;
    let keywords = keywords.copy()?;
    keywords.set_item("context", &context)?;
    // Without a name of its own it would use up the number of the program's first task.
    keywords.set_item("name", "weft")?;
    let globals = PyDict::new(py);
    py.run(c"async def stand_in(): pass", Some(&globals), None)?;
    let coroutine = globals.as_any().get_item("stand_in")?.call0()?;
    let object = task_type.call((&coroutine,), Some(&keywords))?;
    let fields = task(&object);
    expect(fields.coroutine.is(&coroutine), "a task's coroutine")?;
    expect(fields.context.is(&context), "a task's context")?;
    expect(
        !fields.waiter.is_set() && !fields.must_cancel(),
        "a task's waiter",
    )?;
    object.call_method1("set_name", ("a name",))?;
    let name = object.call_method0("get_name")?;
    expect(fields.name.is(&name), "a task's name")?;
    object.call_method0("cancel")?;
    expect(
        fields.must_cancel() && fields.cancels_requested.get() == 1,
        "a task's cancellation",
    )?;
    fields.set_must_cancel(false);
    expect(
        !object.getattr("_must_cancel")?.is_truthy()?,
        "a task's cancellation",
    )?;
    let waiter = PyDict::new(py).into_any();
    fields.waiter.set(waiter.clone());
    expect(
        object.getattr("_fut_waiter")?.is(&waiter),
        "a task's waiter",
    )?;
    fields.waiter.clear();
    fields.set_log_destroy_pending(false);
    expect(
        !object.getattr("_log_destroy_pending")?.is_truthy()?,
        "a task's log flag",
    )?;
    #[cfg(Py_3_14)]
    expect(fields.future.is_task.get(), "a task's mark")?;
    coroutine.call_method0("close")?;
    Ok(())
}
