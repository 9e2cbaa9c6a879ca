//! What native primitives return to be awaited: `lock.acquire()`, `queue.get()`, `sleep()`.
//!
//! To Python an operation is a coroutine: it can be awaited, given to `create_task()`, stepped by any task, closed; it
//! does nothing before its first step. Inside it is a small state machine of which a primitive writes two functions:
//! [`Operation::start`], which runs at the first step, and [`Operation::resume`], which gets what the awaited thing gave.
//! Both say with a [`Step`] how it goes on. Being stepped, thrown into and closed are written here, once.
//!
//! Invariants of a [`Frame`]:
//!
//! - The functions of its operation run one at a time: re-entering a running frame raises.
//! - `awaited` is set exactly while it is suspended on a future or an iterator.
//! - A frame that is suspended when it dies is closed first, so that its operation can give back what it holds.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyStopIteration, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyString};

use crate::event_loop::{self, EVENT_LOOP};
use crate::ffi::base;
use crate::ffi::call::{Sent, call0, method1, send_none};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::{Owner, class_slots};
use crate::ffi::method::{Args, Returned};
use crate::ffi::object::{is_coroutine, set_native_iter, track};
use crate::ffi::slots::Advanced;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::futures::{self, FUTURE, thrown_error};
use crate::imports::imports;
use crate::tasks::steps_natively;

/// How an operation goes on.
#[derive(Debug)]
pub enum Step<'py> {
    /// It has ended, with this value.
    Done(Bound<'py, PyAny>),
    /// It waits for this future of the running loop.
    Wait(Bound<'py, PyAny>),
    /// It awaits this object, whatever it is.
    Await(Bound<'py, PyAny>),
    /// It gives way once, as a bare `yield` does.
    Pass,
}

impl<'py> Step<'py> {
    /// The end, with `None`.
    #[inline]
    pub fn done(py: Python<'py>) -> PyResult<Self> {
        Ok(Self::Done(py.None().into_bound(py)))
    }
}

/// The part of an operation that its primitive writes.
pub trait Operation: Default + 'static {
    /// Its qualified name: `Lock.acquire`.
    const NAME: &'static str;

    /// The class of its frames, which `operation!` makes.
    fn class() -> &'static Class<Frame<Self>>;

    /// The first step. `frame` is the object that is awaited.
    ///
    /// # Errors
    /// What the operation raises.
    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>>;

    /// The next step, with the result of what was awaited, or what it has raised. A cancellation, and the
    /// `GeneratorExit` of an operation that is given up, come as errors: they are returned after tidying up.
    ///
    /// # Errors
    /// What the operation raises.
    fn resume<'py>(&self, frame: &Bound<'py, PyAny>, outcome: Returned<'py>)
    -> PyResult<Step<'py>>;

    /// Reports every reference that it owns to the garbage collector.
    fn traverse(&self, visit: Visit) -> c_int;

    /// Drops them. Also called when it has ended.
    fn clear(&self);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    New,
    Running,
    /// Until the next step, after a bare `yield`.
    Passed,
    /// Until the future in `awaited` is done.
    Waiting,
    /// While the iterator in `awaited` goes on.
    Awaiting,
    Ended,
}

impl Phase {
    fn is_suspended(self) -> bool {
        matches!(self, Self::Passed | Self::Waiting | Self::Awaiting)
    }
}

/// What Python sees of an operation.
#[derive(Debug, Default)]
pub struct Frame<T> {
    phase: Cell<Phase>,
    awaited: Slot,
    weak_references: Slot,
    operation: T,
}

impl<T: Operation> Native for Frame<T> {
    const RECYCLED: usize = 256;
    const TRACKED_LATE: bool = true;

    fn wants_finalizer(&self) -> bool {
        self.phase.get() != Phase::Ended
    }

    fn traverse(&self, visit: Visit) -> c_int {
        match visit.slot(&self.awaited) {
            0 => self.operation.traverse(visit),
            answer => answer,
        }
    }

    fn clear(&self, _: Python<'_>) {
        self.awaited.clear();
        self.operation.clear();
    }
}

/// The owner of frames of `T`, for [`class_slots`].
#[derive(Debug)]
pub struct FrameOwner<T>(std::marker::PhantomData<T>);

impl<T: Operation> Owner for FrameOwner<T> {
    type Value = Frame<T>;
    fn class() -> &'static Class<Frame<T>> {
        T::class()
    }
}

impl<T: Operation> Frame<T> {
    fn end(&self) {
        self.phase.set(Phase::Ended);
        self.awaited.clear();
        self.operation.clear();
    }

    /// Goes on from `step` until the operation is suspended or has ended.
    #[inline]
    fn settle<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Advanced<'py>> {
        let py = frame.py();
        let mut step = step;
        loop {
            step = match step {
                Ok(Step::Done(value)) => {
                    self.end();
                    return Ok(Advanced::Returned(value));
                }
                Err(error) => {
                    self.end();
                    return Err(error);
                }
                Ok(Step::Pass) => {
                    self.phase.set(Phase::Passed);
                    track(frame);
                    return Ok(Advanced::Yielded(py.None().into_bound(py)));
                }
                Ok(Step::Wait(future)) if is_native(&future) => {
                    let fields = base::future(&future);
                    if fields.is_pending() {
                        fields.set_blocking(true);
                        self.awaited.set(future.clone());
                        self.phase.set(Phase::Waiting);
                        track(frame);
                        return Ok(Advanced::Yielded(future));
                    }
                    self.operation.resume(frame, result_of(&future))
                }
                Ok(Step::Wait(awaited) | Step::Await(awaited)) => {
                    match iterator_of(&awaited).map(|iterator| (send_none(&iterator), iterator)) {
                        Ok((Sent::Yielded(value), iterator)) => {
                            self.awaited.set(iterator);
                            self.phase.set(Phase::Awaiting);
                            track(frame);
                            return Ok(Advanced::Yielded(value));
                        }
                        Ok((Sent::Returned(value), _)) => self.operation.resume(frame, Ok(value)),
                        Ok((Sent::Raised(error), _)) | Err(error) => {
                            self.operation.resume(frame, Err(error))
                        }
                    }
                }
            };
        }
    }

    /// Hands `outcome` to the operation.
    fn hand<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Advanced<'py>> {
        self.awaited.clear();
        self.phase.set(Phase::Running);
        let step = self.operation.resume(frame, outcome);
        self.settle(frame, step)
    }

    /// Takes what the awaited iterator did.
    fn sent<'py>(&self, frame: &Bound<'py, PyAny>, sent: Sent<'py>) -> PyResult<Advanced<'py>> {
        match sent {
            Sent::Yielded(value) => {
                self.phase.set(Phase::Awaiting);
                Ok(Advanced::Yielded(value))
            }
            Sent::Returned(value) => self.hand(frame, Ok(value)),
            Sent::Raised(error) => self.hand(frame, Err(error)),
        }
    }
}

/// The step of an operation: what awaiting it calls.
///
/// # Errors
/// What the operation raises.
#[inline]
pub fn advance<'py, T: Operation>(object: &Bound<'py, PyAny>) -> PyResult<Advanced<'py>> {
    let py = object.py();
    let frame = T::class().of(object);
    match frame.phase.get() {
        Phase::New => {
            frame.phase.set(Phase::Running);
            let step = frame.operation.start(object);
            frame.settle(object, step)
        }
        Phase::Waiting => match frame.awaited.get(py) {
            Some(future) if !base::future(&future).is_pending() => {
                frame.hand(object, result_of(&future))
            }
            Some(_) => frame.hand(
                object,
                Err(PyRuntimeError::new_err("await wasn't used with future")),
            ),
            None => frame.hand(object, Err(abandoned())),
        },
        Phase::Passed => frame.hand(object, Ok(py.None().into_bound(py))),
        Phase::Awaiting => {
            let Some(iterator) = frame.awaited.get(py) else {
                return frame.hand(object, Err(abandoned()));
            };
            frame.phase.set(Phase::Running);
            frame.sent(object, send_none(&iterator))
        }
        phase => Err(unfit(phase)),
    }
}

/// What an operation gets that the garbage collector has cleared.
fn abandoned() -> PyErr {
    PyGeneratorExit::new_err(())
}

#[cold]
fn unfit(phase: Phase) -> PyErr {
    if phase == Phase::Running {
        PyValueError::new_err("coroutine already executing")
    } else {
        PyRuntimeError::new_err("cannot reuse already awaited coroutine")
    }
}

/// Raises `error` where the operation is suspended.
fn throw_in<'py, T: Operation>(
    object: &Bound<'py, PyAny>,
    error: PyErr,
) -> PyResult<Advanced<'py>> {
    let py = object.py();
    let frame = T::class().of(object);
    match frame.phase.get() {
        Phase::New => {
            frame.end();
            Err(error)
        }
        Phase::Awaiting => {
            let Some(iterator) = frame.awaited.get(py) else {
                return frame.hand(object, Err(error));
            };
            frame.phase.set(Phase::Running);
            if error.is_instance_of::<PyGeneratorExit>(py) {
                let closed = match iterator.getattr_opt(intern!(py, "close"))? {
                    Some(close) => call0(&close).map(drop),
                    None => Ok(()),
                };
                return frame.hand(object, Err(closed.err().unwrap_or(error)));
            }
            if iterator.getattr_opt(intern!(py, "throw"))?.is_none() {
                return frame.hand(object, Err(error));
            }
            let thrown = method1(&iterator, intern!(py, "throw"), error.value(py));
            frame.sent(object, sent_by(py, thrown))
        }
        phase if phase.is_suspended() => frame.hand(object, Err(error)),
        phase => Err(unfit(phase)),
    }
}

/// What a call of `throw()` or `send()` did, `StopIteration` taken for the end that it is.
fn sent_by<'py>(py: Python<'py>, outcome: Returned<'py>) -> Sent<'py> {
    match outcome {
        Ok(value) => Sent::Yielded(value),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            match error.value(py).getattr(intern!(py, "value")) {
                Ok(value) => Sent::Returned(value),
                Err(error) => Sent::Raised(error),
            }
        }
        Err(error) => Sent::Raised(error),
    }
}

/// Whether `object` is a future or task whose fields are our own.
#[inline]
pub fn is_native(object: &Bound<'_, PyAny>) -> bool {
    futures::is_native(object) || steps_natively(object)
}

/// The outcome of a native future that is done.
///
/// # Errors
/// What it raises.
#[inline]
pub fn result_of<'py>(future: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = future.py();
    let fields = base::future(future);
    if fields.state.get() == base::FINISHED && !fields.exception.is_set() {
        fields.set_log_traceback(false);
        return Ok(fields.result.get_or_none(py));
    }
    crate::ffi::call::call1(imports(py).future_result.bind(py), future)
}

/// What `await object` iterates over.
///
/// # Errors
/// `TypeError` where the object cannot be awaited.
fn iterator_of<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    if is_coroutine(object) {
        return Ok(object.clone());
    }
    let method = object
        .get_type()
        .getattr_opt(intern!(py, "__await__"))?
        .filter(|method| !method.is_none());
    match method {
        Some(method) => crate::ffi::call::call1(&method, object),
        // A generator that `types.coroutine()` has marked.
        None if imports(py)
            .is_awaitable
            .bind(py)
            .call1((object,))?
            .is_truthy()? =>
        {
            Ok(object.clone())
        }
        None => Err(pyo3::exceptions::PyTypeError::new_err(format!(
            "object {} can't be used in 'await' expression",
            object.get_type().name()?
        ))),
    }
}

// -- methods of frames -----------------------------------------------------------------------------

/// `__await__`: refused while somebody else awaits the operation.
///
/// # Errors
/// `RuntimeError` then.
#[inline]
pub fn begin_await<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    if T::class().of(object).phase.get().is_suspended() {
        return Err(PyRuntimeError::new_err(
            "coroutine is being awaited already",
        ));
    }
    Ok(object.clone())
}

/// The slot for `__iter__` that all operations have alike, by which they are known as coroutines.
pub fn iter_slot() -> ffi::PyType_Slot {
    let slot = crate::slot!(iter self::itself);
    set_native_iter(&slot);
    slot
}

/// `__iter__`.
///
/// # Errors
/// None.
pub fn itself<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(object.clone())
}

/// Turns the end of a step into the exception that `send()` and `throw()` raise.
fn surfaced(advanced: Advanced<'_>) -> Returned<'_> {
    match advanced {
        Advanced::Yielded(value) => Ok(value),
        Advanced::Returned(value) => {
            let stop = value.py().get_type::<PyStopIteration>().call1((value,))?;
            Err(PyErr::from_value(stop))
        }
    }
}

/// `send(value)`.
///
/// # Errors
/// `StopIteration` at the end, and what the operation raises.
pub fn send<'py, T: Operation>(
    object: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let frame = T::class().of(object);
    if frame.phase.get() == Phase::New && !value.is_none() {
        return Err(pyo3::exceptions::PyTypeError::new_err(
            "can't send non-None value to a just-started coroutine",
        ));
    }
    if frame.phase.get() == Phase::Awaiting
        && !value.is_none()
        && let Some(iterator) = frame.awaited.get(object.py())
    {
        let py = object.py();
        frame.phase.set(Phase::Running);
        let outcome = method1(&iterator, intern!(py, "send"), value);
        return surfaced(frame.sent(object, sent_by(py, outcome))?);
    }
    surfaced(advance::<T>(object)?)
}

/// `throw(exception)`, and its older form with three arguments.
///
/// # Errors
/// `StopIteration` at the end, and what the operation raises.
pub fn throw<'py, T: Operation>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let error = thrown_error(object.py(), args)?;
    surfaced(throw_in::<T>(object, error)?)
}

/// `close()`.
///
/// # Errors
/// What the operation raises, but for `GeneratorExit`.
pub fn close<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let frame = T::class().of(object);
    match frame.phase.get() {
        Phase::New => frame.end(),
        Phase::Ended => {}
        Phase::Running => return Err(unfit(Phase::Running)),
        _ => match throw_in::<T>(object, PyGeneratorExit::new_err(())) {
            Ok(Advanced::Returned(_)) => {}
            Ok(Advanced::Yielded(_)) => {
                return Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit"));
            }
            Err(error)
                if error.is_instance_of::<PyGeneratorExit>(py)
                    || error.is_instance_of::<PyStopIteration>(py) => {}
            Err(error) => return Err(error),
        },
    }
    Ok(py.None().into_bound(py))
}

/// `tp_finalize`: one that was never awaited is reported, one that is suspended is closed.
///
/// # Errors
/// What closing raises.
pub fn finalize<T: Operation>(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = object.py();
    let frame = T::class().of(object);
    match frame.phase.get() {
        Phase::New => {
            imports(py).warn_unawaited.bind(py).call1((object,))?;
        }
        phase if phase.is_suspended() => {
            close::<T>(object)?;
        }
        _ => {}
    }
    Ok(())
}

/// `__name__`.
///
/// # Errors
/// `MemoryError`.
pub fn name<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let name = T::NAME.rsplit('.').next().unwrap_or(T::NAME);
    Ok(PyString::new(object.py(), name).into_any())
}

/// `__qualname__`.
///
/// # Errors
/// `MemoryError`.
pub fn qualname<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyString::new(object.py(), T::NAME).into_any())
}

/// `cr_await`.
///
/// # Errors
/// None.
pub fn awaited<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(T::class().of(object).awaited.get_or_none(object.py()))
}

/// `cr_running`.
///
/// # Errors
/// None.
pub fn running<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let running = T::class().of(object).phase.get() == Phase::Running;
    Ok(PyBool::new(object.py(), running).to_owned().into_any())
}

/// `cr_suspended`.
///
/// # Errors
/// None.
pub fn suspended<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let suspended = T::class().of(object).phase.get().is_suspended();
    Ok(PyBool::new(object.py(), suspended).to_owned().into_any())
}

/// `cr_frame` and `cr_origin`: there is none.
///
/// # Errors
/// None.
pub fn nothing<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(object.py().None().into_bound(object.py()))
}

fn representation<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let text = format!("<coroutine object {} at {:p}>", T::NAME, object.as_ptr());
    Ok(PyString::new(object.py(), &text).into_any())
}

/// A new operation, which `fill` gives its arguments.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn operation<T: Operation>(py: Python<'_>, fill: impl FnOnce(&T)) -> Returned<'_> {
    let object = T::class().instance(py)?;
    fill(&T::class().of(&object).operation);
    Ok(object)
}

/// The operation inside a frame.
#[inline]
pub fn of<'a, T: Operation>(frame: &'a Bound<'_, PyAny>) -> &'a T {
    &T::class().of(frame).operation
}

/// What the class of an operation consists of; the rest is what `operation!` adds.
pub fn description<T: Operation>(
    methods: Vec<ffi::PyMethodDef>,
    properties: Vec<ffi::PyGetSetDef>,
    slots: Vec<ffi::PyType_Slot>,
) -> Description {
    let mut all = class_slots::<FrameOwner<T>>();
    // Python does not make operations.
    all.retain(|slot| slot.slot != ffi::Py_tp_new);
    all.extend(slots);
    Description {
        methods,
        properties,
        slots: all,
        weak_references: Some(std::mem::offset_of!(Frame<T>, weak_references)),
        immutable: true,
        ..Description::default()
    }
}

/// `repr()` of a frame.
///
/// # Errors
/// `MemoryError`.
pub fn repr<'py, T: Operation>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    representation::<T>(object)
}

/// Gives an implementation of [`Operation`] the two items that all have alike: `operation!(Acquire, "Lock.acquire");`
/// inside it. [`make_operation!`](crate::make_operation) makes the class.
#[macro_export]
macro_rules! operation {
    ($operation:ty, $name:literal) => {
        const NAME: &'static str = $name;

        #[inline]
        fn class() -> &'static $crate::ffi::Class<$crate::operations::Frame<Self>> {
            static CLASS: $crate::ffi::Class<$crate::operations::Frame<$operation>> =
                $crate::ffi::Class::new();
            &CLASS
        }
    };
}

/// Makes the class of an operation, and registers it as a coroutine: `make_operation!(py, Acquire)?`.
#[macro_export]
macro_rules! make_operation {
    ($py:expr, $operation:ty) => {{
        use $crate::operations::{self, Operation};
        use $crate::{method, property, slot};
        let class = <$operation>::class().make(
            $py,
            c"weft._weft.Operation",
            None,
            operations::description::<$operation>(
                vec![
                    method!(one "send" => operations::send::<$operation>, "Resume the operation."),
                    method!(fast "throw" => operations::throw::<$operation>, "Raise an exception where the operation is suspended."),
                    method!(none "close" => operations::close::<$operation>, "Give the operation up."),
                ],
                vec![
                    property!("__name__" => operations::name::<$operation>),
                    property!("__qualname__" => operations::qualname::<$operation>),
                    property!("cr_await" => operations::awaited::<$operation>),
                    property!("cr_running" => operations::running::<$operation>),
                    property!("cr_suspended" => operations::suspended::<$operation>),
                    property!("cr_frame" => operations::nothing),
                    property!("cr_origin" => operations::nothing),
                ],
                vec![
                    slot!(await operations::begin_await::<$operation>),
                    operations::iter_slot(),
                    slot!(next operations::advance::<$operation>),
                    slot!(send operations::advance::<$operation>),
                    slot!(finalize operations::finalize::<$operation>),
                    slot!(repr operations::repr::<$operation>),
                ],
            ),
        );
        class.and_then(|class| operations::register_coroutine(&class))
    }};
}

/// Tells `collections.abc.Coroutine` about a class, so that `asyncio.iscoroutine()` holds.
///
/// # Errors
/// What registering raises.
pub fn register_coroutine(class: &Bound<'_, pyo3::types::PyType>) -> PyResult<()> {
    class
        .py()
        .import("collections.abc")?
        .getattr("Coroutine")?
        .call_method1("register", (class,))
        .map(drop)
}

// -- what operations need of the loop --------------------------------------------------------------

/// The running loop.
///
/// # Errors
/// `RuntimeError` where none is running.
#[inline]
pub fn running_loop(py: Python<'_>) -> Returned<'_> {
    call0(imports(py).get_running_loop.bind(py))
}

/// A pending future of `event_loop`, native if the loop is.
///
/// # Errors
/// What a foreign loop's `create_future` raises.
#[inline]
pub fn create_future<'py>(event_loop: &Bound<'py, PyAny>) -> Returned<'py> {
    match EVENT_LOOP.get(event_loop) {
        Some(_) => futures::create_future(event_loop),
        None => event_loop.call_method0(intern!(event_loop.py(), "create_future")),
    }
}

/// Whether a future of any kind is done.
///
/// # Errors
/// What a foreign future's `done` raises.
#[inline]
pub fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    if is_native(future) {
        return Ok(!base::future(future).is_pending());
    }
    future
        .call_method0(intern!(future.py(), "done"))?
        .is_truthy()
}

/// Sets the result of a future of any kind, unless it is done.
///
/// # Errors
/// What a foreign future or loop raises.
#[inline]
pub fn finish_unless_done<'py>(
    future: &Bound<'py, PyAny>,
    result: Bound<'py, PyAny>,
) -> PyResult<()> {
    if FUTURE.is_exact(future) {
        if base::future(future).is_pending() {
            return futures::finish(future, result);
        }
        return Ok(());
    }
    if !is_done(future)? {
        method1(future, intern!(future.py(), "set_result"), &result)?;
    }
    Ok(())
}

/// asyncio's `_LoopBoundMixin._get_loop`: `slot` keeps the loop that a primitive was first used on.
///
/// # Errors
/// `RuntimeError` where no loop runs, or another one than before.
#[inline]
pub fn bound_loop<'py>(object: &Bound<'py, PyAny>, slot: &Slot) -> Returned<'py> {
    let py = object.py();
    let running = running_loop(py)?;
    if !slot.is_set() {
        slot.set(running.clone());
    }
    if slot.is(&running) {
        return Ok(running);
    }
    Err(PyRuntimeError::new_err(format!(
        "{} is bound to a different event loop",
        object.repr()?
    )))
}

/// Whether a loop is one of ours, so that its timers can run native work.
#[inline]
pub fn is_own_loop(event_loop: &Bound<'_, PyAny>) -> bool {
    EVENT_LOOP.get(event_loop).is_some()
}

/// A timer of `event_loop` that sets `future`'s result after `delay` seconds, unless it is done by then.
///
/// # Errors
/// What a foreign loop's `call_later` raises.
pub fn finish_later<'py>(
    event_loop: &Bound<'py, PyAny>,
    delay: &Bound<'py, PyAny>,
    future: &Bound<'py, PyAny>,
    result: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let py = event_loop.py();
    if let Some(state) = EVENT_LOOP.get(event_loop)
        && state.schedules_directly(event_loop)
        && FUTURE.is_exact(future)
    {
        return event_loop::job_later(
            state,
            event_loop,
            delay.extract()?,
            finish_job,
            future.clone(),
            Some(result.clone()),
        );
    }
    event_loop.call_method1(
        intern!(py, "call_later"),
        (
            delay,
            imports(py).set_result_unless_cancelled.bind(py),
            future,
            result,
        ),
    )
}

/// The job of [`finish_later`].
fn finish_job<'py>(
    _: &Bound<'py, PyAny>,
    future: &Bound<'py, PyAny>,
    result: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let result = result.unwrap_or_else(|| future.py().None().into_bound(future.py()));
    finish_unless_done(future, result)
}

/// Cancels a timer of any loop.
///
/// # Errors
/// What a foreign handle's `cancel` raises.
pub fn cancel_timer(timer: &Bound<'_, PyAny>) -> PyResult<()> {
    event_loop::handles::cancel_any(timer)
}
