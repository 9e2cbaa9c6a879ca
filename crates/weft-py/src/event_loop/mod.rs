//! The event loop: its state, and the class that Python sees.
//!
//! Ground rules:
//!
//! - The GIL guards everything here. A loop runs on one thread, but other threads may schedule callbacks and cancel
//!   handles while they hold the GIL; the loop's own thread gives it up only inside the poll.
//! - No `RefCell` is borrowed while Python code may run, and dropping a reference may run Python code. So values are
//!   taken out first and dropped after the borrow has ended.
//! - The loop names neither tasks nor transports. A task puts a [`Ready::Job`] into the queue, a transport registers a
//!   `Watch::Native`; both are an object and a function to call with it.
//! - `BaseEventLoop` keeps `_closed`, `_stopping`, `_debug`, `_thread_id` and `_task_factory` as attributes. They are
//!   properties of this class, so that code inherited from asyncio and native code see one truth.

mod attributes;
mod current_task;
mod directions;
pub mod handles;
mod owners;
mod ready;
mod run;
mod schedule;
mod watches;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::PyAny;
use weft_reactor::{Bursts, Poller, TimerQueue, Waker, WatchTable};

pub use current_task::{
    current_task, enter_task, interrupt_task, leave_task, registered_task, rest_task, restore_task,
};
pub use ready::{Job, Ready};
pub use schedule::{
    InItsPlace, call_soon, call_soon_by_method, call_soon_directly, call_soon_in, job_at,
    job_later, job_soon, set_callable_for,
};
use watches::Watch;
pub use watches::{
    Interest, Notice, announce_again, hand_over, is_waiting, rewatch, stop_waiting, unwatch,
    wait_as_transport, wait_until_ready, watch,
};

use crate::event_loop::handles::HANDLE;
use crate::ffi::class::Description;
use crate::ffi::context::SharedContexts;
use crate::ffi::lifecycle::{class_slots, track};
use crate::ffi::{Class, Native, Reference, Slot, Visit};
use crate::imports::imports;
use crate::slot;
use ready::ReadyQueue;

/// The native part of `weft.Loop`.
pub struct EventLoop {
    ready: ReadyQueue,
    /// What is run when the turn has ended, before the loop waits.
    endings: ReadyQueue,
    timers: RefCell<TimerQueue<Reference>>,
    cancelled_timers: Cell<usize>,
    watches: RefCell<WatchTable<Watch>>,
    /// Weak references to transports, by their descriptors; see [`owners`].
    owners: RefCell<HashMap<RawFd, Reference>>,
    /// `None` before the first use and after `close()`.
    poller: RefCell<Option<Poller>>,
    waker: RefCell<Option<Waker>>,
    /// Whether the loop's thread waits in the poll, so that it must be woken.
    sleeping: Cell<bool>,
    /// Until `__init__` and after `close()`.
    closed: Cell<bool>,
    stopping: Cell<bool>,
    debug: Cell<bool>,
    /// In debug mode: a handle has run well, and is to be emptied when it has been timed.
    ran: Cell<bool>,
    /// Whether `call_soon` or one of its like was replaced, by a subclass or on the instance …
    overridden: Cell<Overridden>,
    /// … as found when the class had this version.
    class_version: Cell<u32>,
    thread_id: Slot,
    task_factory: Slot,
    default_executor: Slot,
    /// Whether `shutdown_default_executor()` or `close()` has been called.
    executor_ended: Cell<bool>,
    /// The task that asyncio's registry names as this loop's current one.
    current_task: Slot,
    contexts: SharedContexts,
    bursts: Bursts,
    /// Whether tasks that have not begun may stay out of the garbage collector's sight; see [`EventLoop::hides_tasks`].
    turning: Cell<bool>,
}

/// Methods whose replacements native code must respect.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Overridden {
    call_soon: bool,
    create_task: bool,
    time: bool,
    /// One of those that running a function in a thread calls.
    executor: bool,
    /// One of those that making a connection calls.
    connecting: bool,
}

impl Default for EventLoop {
    fn default() -> Self {
        Self {
            ready: ReadyQueue::default(),
            endings: ReadyQueue::default(),
            timers: RefCell::default(),
            cancelled_timers: Cell::default(),
            watches: RefCell::default(),
            owners: RefCell::default(),
            poller: RefCell::default(),
            waker: RefCell::default(),
            sleeping: Cell::default(),
            closed: Cell::new(true),
            stopping: Cell::default(),
            debug: Cell::default(),
            ran: Cell::default(),
            overridden: Cell::default(),
            class_version: Cell::default(),
            thread_id: Slot::empty(),
            task_factory: Slot::empty(),
            default_executor: Slot::empty(),
            executor_ended: Cell::default(),
            current_task: Slot::empty(),
            contexts: SharedContexts::default(),
            bursts: Bursts::default(),
            turning: Cell::default(),
        }
    }
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EventLoop")
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl Native for EventLoop {
    fn class() -> &'static Class<Self> {
        &EVENT_LOOP
    }

    fn traverse(&self, visit: Visit) -> c_int {
        let answer = visit.slots([
            &self.thread_id,
            &self.task_factory,
            &self.default_executor,
            &self.current_task,
        ]);
        if answer != 0 {
            return answer;
        }
        let answer = self.contexts.traverse(visit);
        if answer != 0 {
            return answer;
        }
        for queue in [&self.ready, &self.endings] {
            let answer = queue.traverse(visit);
            if answer != 0 {
                return answer;
            }
        }
        if let Ok(timers) = self.timers.try_borrow() {
            for timer in timers.iter() {
                let answer = visit_handle(timer, visit);
                if answer != 0 {
                    return answer;
                }
            }
        }
        if let Ok(watches) = self.watches.try_borrow() {
            for (_, watch) in watches.iter() {
                let answer = watch.traverse(visit);
                if answer != 0 {
                    return answer;
                }
            }
        }
        0
    }

    fn clear(&self, py: Python<'_>) {
        self.task_factory.clear();
        self.default_executor.clear();
        self.current_task.clear();
        self.contexts.forget();
        self.release(py);
    }
}

/// Lets the garbage collector see all jobs' objects.
fn show_all<'a>(py: Python<'_>, entries: impl IntoIterator<Item = &'a Ready>) {
    for entry in entries {
        if let Ready::Job { object, .. } = entry {
            track(object.bind(py));
        }
    }
}

/// Reports a handle that the loop holds. Handles are no collected objects; where the loop is the only owner, the
/// handle's references count as the loop's own.
fn visit_handle(handle: &Reference, visit: Visit) -> c_int {
    let object = handle.bind(visit.python());
    match HANDLE.get(object) {
        Some(state) if crate::ffi::object::reference_count(object) == 1 => {
            state.visit_contents(visit)
        }
        Some(_) => 0,
        None => visit.object(handle),
    }
}

impl EventLoop {
    /// Lets the garbage collector see what waits.
    fn show(&self, py: Python<'_>) {
        self.ready.show(py);
        self.endings.show(py);
    }

    /// Drops everything that is scheduled or watched, and closes the poller.
    fn release(&self, py: Python<'_>) {
        let ready = self.ready.take();
        let endings = self.endings.take();
        let timers = self.timers.borrow_mut().drain();
        let watches = self.watches.borrow_mut().drain();
        self.cancelled_timers.set(0);
        let poller = self.poller.borrow_mut().take();
        self.waker.borrow_mut().take();
        drop(poller);
        show_all(py, &ready);
        // Emptied, not only dropped: what a handle refers to may refer to the handle.
        for entry in &ready {
            if let Ready::Handle(handle) = entry
                && let Some(state) = HANDLE.get(handle.bind(py))
            {
                state.empty();
            }
        }
        for (_, watch) in &watches {
            watch.empty(py);
        }
        for handle in &timers {
            if let Some(state) = HANDLE.get(handle.bind(py)) {
                state.set_scheduled(false);
                state.empty();
            }
        }
        drop((ready, endings, timers, watches));
    }

    /// Whether native code may put entries into the queue itself instead of calling `call_soon`.
    #[inline]
    pub fn schedules_directly(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        !self.debug.get() && !self.closed.get() && !self.overridden(event_loop).call_soon
    }

    /// Whether a function can be run in a thread without asking the loop's own methods.
    #[inline]
    pub fn takes_from_threads(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        self.schedules_directly(event_loop) && !self.overridden(event_loop).executor
    }

    /// Whether a connection can be made without asking the loop's own methods.
    #[inline]
    pub fn connects_natively(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        self.schedules_directly(event_loop) && !self.overridden(event_loop).connecting
    }

    /// What runs functions in threads; empty before the first one.
    #[inline]
    pub fn default_executor(&self) -> &Slot {
        &self.default_executor
    }

    /// Whether the default executor may not be used any more.
    #[inline]
    pub fn has_ended_executor(&self) -> bool {
        self.executor_ended.get()
    }

    /// Whether native code may make and start tasks itself instead of calling `create_task`, unless a task factory does.
    #[inline]
    pub fn creates_tasks_directly(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        let overridden = self.overridden(event_loop);
        !self.debug.get() && !self.closed.get() && !overridden.call_soon && !overridden.create_task
    }

    /// Whether an object that only the ready queue makes live need not be tracked by the garbage collector.
    ///
    /// The collector may take what it cannot see for alive, never for dead. While the loop turns, everything in the queue
    /// is alive; when it stops, what is left there is shown to the collector.
    #[inline]
    pub fn hides_tasks(&self) -> bool {
        self.turning.get()
    }

    /// Appends an entry to the ready queue. The caller has looked at [`Self::schedules_directly`].
    #[inline]
    pub fn push(&self, entry: Ready) {
        self.ready.push(entry);
    }

    /// Has a job run when the turn has ended: before the loop waits, and before it stops. `false` where the loop does not
    /// run. The caller has looked at [`Self::schedules_directly`].
    pub fn push_ending(&self, job: Ready) -> bool {
        if !self.turning.get() {
            return false;
        }
        self.endings.push(job);
        // Another thread may do this while the loop sleeps.
        self.wake();
        true
    }

    /// Who writes in this turn.
    #[inline]
    pub fn bursts(&self) -> &Bursts {
        &self.bursts
    }

    /// The contexts that handles and tasks of this loop share.
    #[inline]
    pub fn contexts(&self) -> &SharedContexts {
        &self.contexts
    }

    /// Whether debug mode is on.
    #[inline]
    pub fn is_debug(&self) -> bool {
        self.debug.get()
    }

    /// Whether `close()` has been called.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// The custom task factory.
    pub fn has_task_factory(&self) -> bool {
        self.task_factory.is_set()
    }

    /// Whether that is asyncio's own factory of eager tasks.
    pub fn has_eager_task_factory(&self, py: Python<'_>) -> bool {
        let eager = imports(py).eager_task_factory.bind(py);
        self.task_factory.is_set() && self.task_factory.is(eager)
    }
}

/// The native base of `weft.Loop`.
pub static EVENT_LOOP: Class<EventLoop> = Class::new();

/// Whether a loop, native or not, is in debug mode.
///
/// # Errors
/// What a foreign loop's `get_debug` raises.
pub fn is_debug(event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    match EVENT_LOOP.get(event_loop) {
        Some(state) => Ok(state.debug.get()),
        None => event_loop.call_method0("get_debug")?.is_truthy(),
    }
}

/// Counts a timer that was cancelled while it sat in the queue.
pub fn timer_cancelled(event_loop: &Bound<'_, PyAny>) {
    if let Some(state) = EVENT_LOOP.get(event_loop) {
        state.cancelled_timers.set(state.cancelled_timers.get() + 1);
    }
}

/// Makes the class and adds it to the module. `extra` are the methods that layers above contribute.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>, extra: Vec<pyo3::ffi::PyMethodDef>) -> PyResult<()> {
    let mut methods = schedule::methods();
    methods.extend(run::methods());
    methods.extend(watches::methods());
    methods.extend(owners::methods());
    methods.extend(attributes::methods());
    methods.extend(extra);
    let mut slots = class_slots::<EventLoop>();
    slots.push(slot!(setattr attributes::noticed));
    let class = EVENT_LOOP.make(
        module.py(),
        c"weft._weft.EventLoop",
        None,
        Description {
            methods,
            properties: attributes::properties(),
            slots,
            doc: Some(c"The native part of weft.Loop: ready queue, timers, watched descriptors."),
            instantiable: true,
            subclassable: true,
            ..Description::default()
        },
    )?;
    module.add("EventLoop", class)
}
