//! What a queue consists of, and what can be done with it without waiting.
//!
//! asyncio's order is kept throughout: what a hook or a comparison of items finds, when it looks at the queue or uses
//! it, is what it would find there. Nothing is borrowed while Python code runs.

use std::cell::Cell;
use std::ffi::c_int;
use std::fmt::Write;

use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyInt};

use super::QUEUE;
use super::hooks::{self, Called, GetBy, KeptBy, Plan, PutBy, stock};
use super::line::{Container, Line};
use crate::ffi::call::{call1, call2, method0, method1};
use crate::ffi::method::Returned;
use crate::ffi::object::{class_version, is_exactly};
use crate::ffi::{Class, Native, Slot, Visit};
use crate::operations::{finish_unless_done, is_done};

/// How many items fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Any number.
    #[default]
    Unlimited,
    /// So many.
    Items(usize),
    /// What comparing with `maxsize` says, which is no plain number.
    Compared,
}

/// The native part of a queue.
#[derive(Debug, Default)]
pub struct Queue {
    /// The items.
    pub items: Line,
    /// The futures of those who wait for an item.
    pub getters: Line,
    /// The futures of those who wait for room.
    pub putters: Line,
    /// `maxsize` as it was given.
    pub maxsize: Slot,
    /// The event that `join()` waits for, once somebody needs it.
    pub finished: Slot,
    /// The loop that the queue was first waited on.
    pub event_loop: Slot,
    /// The number of items that were put in and not reported as done.
    pub unfinished: Cell<isize>,
    /// Whether the queue has been shut down.
    pub is_shut_down: Cell<bool>,
    /// Whether `items` has been set up, in whatever way.
    pub arranged: Cell<bool>,
    /// Whether the object's own attributes matter to the plan.
    pub patched: Cell<bool>,
    room: Cell<Room>,
    plain: Cell<bool>,
    plan: Cell<Plan>,
    /// The version of the class that the plan was made for.
    version: Cell<u32>,
}

impl Native for Queue {
    fn class() -> &'static Class<Self> {
        &QUEUE
    }

    fn traverse(&self, visit: Visit) -> c_int {
        for line in [&self.items, &self.getters, &self.putters] {
            let answer = line.traverse(visit);
            if answer != 0 {
                return answer;
            }
        }
        visit.slots([&self.maxsize, &self.finished, &self.event_loop])
    }

    fn clear(&self, _: Python<'_>) {
        self.items.clear();
        self.getters.clear();
        self.putters.clear();
        self.maxsize.clear();
        self.finished.clear();
        self.event_loop.clear();
    }
}

impl Queue {
    /// What to do natively, and what to call.
    ///
    /// # Errors
    /// What looking attributes up raises.
    #[inline]
    pub fn plan(&self, queue: &Bound<'_, PyAny>) -> PyResult<Plan> {
        let version = class_version(queue);
        if version == self.version.get() && version != 0 {
            return Ok(self.plan.get());
        }
        self.make_plan(queue)
    }

    #[cold]
    fn make_plan(&self, queue: &Bound<'_, PyAny>) -> PyResult<Plan> {
        let plan = if self.patched.get() {
            hooks::plan(queue, true)?
        } else {
            hooks::plan_of_class(queue)?
        };
        self.plan.set(plan);
        self.plain.set(plan.is_plain());
        self.version.set(class_version(queue));
        Ok(plan)
    }

    /// Puts an item in where that needs nothing of Python: everything is as asyncio has it, nobody has looked at the
    /// items or waits for one, and there is room. Gives the item back otherwise.
    #[inline]
    pub fn put_plainly<'py>(
        &self,
        queue: &Bound<'py, PyAny>,
        item: Bound<'py, PyAny>,
    ) -> Option<Bound<'py, PyAny>> {
        if !self.is_plain(queue) || self.is_shut_down.get() || self.finished.is_set() {
            return Some(item);
        }
        let Some(count) = self.items.native_len() else {
            return Some(item);
        };
        let has_room = match self.room.get() {
            Room::Unlimited => true,
            Room::Items(room) => count < room,
            Room::Compared => false,
        };
        if !has_room || self.getters.native_len() != Some(0) {
            return Some(item);
        }
        self.items.push_natively(item);
        self.unfinished.set(self.unfinished.get() + 1);
        None
    }

    /// Takes an item out where that needs nothing of Python: everything is as asyncio has it, nobody has looked at the
    /// items or waits for room, and there is an item.
    #[inline]
    pub fn get_plainly<'py>(&self, queue: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        if !self.is_plain(queue) || !self.items.is_native() || self.putters.native_len() != Some(0)
        {
            return None;
        }
        let first = self.plan.get().get == GetBy::First;
        self.items.pop_natively(queue.py(), first)
    }

    #[inline]
    fn is_plain(&self, queue: &Bound<'_, PyAny>) -> bool {
        self.plain.get() && self.arranged.get() && class_version(queue) == self.version.get()
    }

    /// Takes note of an attribute of the queue itself that matters to the plan.
    pub fn patch(&self) {
        self.patched.set(true);
        self.version.set(0);
        self.plain.set(false);
    }

    /// Sets `maxsize`.
    pub fn limit(&self, maxsize: Bound<'_, PyAny>) {
        let number = is_exactly(&maxsize, &raw mut pyo3::ffi::PyLong_Type)
            .then(|| maxsize.extract::<isize>().ok())
            .flatten();
        self.room.set(match number {
            Some(number) => usize::try_from(number)
                .ok()
                .filter(|number| *number > 0)
                .map_or(Room::Unlimited, Room::Items),
            None => Room::Compared,
        });
        self.maxsize.set(maxsize);
    }
}

/// The items, where the class keeps them in some other place than we do; otherwise nothing.
fn items_elsewhere<'py>(
    queue: &Bound<'py, PyAny>,
    state: &Queue,
    plan: Plan,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    if plan.called.any(Called::ITEMS) {
        return queue.getattr(intern!(queue.py(), "_queue")).map(Some);
    }
    if state.items.is_native() && !state.arranged.get() {
        return Err(no_items(queue));
    }
    Ok(None)
}

/// What looking at `_queue` raises where the class's `_init()` has not set it.
#[cold]
pub fn no_items(queue: &Bound<'_, PyAny>) -> PyErr {
    match queue.get_type().name() {
        Ok(name) => PyAttributeError::new_err(format!("'{name}' object has no attribute '_queue'")),
        Err(error) => error,
    }
}

/// `len(self._queue)`.
///
/// # Errors
/// What the class's own container raises.
#[inline]
pub fn count(queue: &Bound<'_, PyAny>, state: &Queue, plan: Plan) -> PyResult<usize> {
    match items_elsewhere(queue, state, plan)? {
        None => state.items.len(queue.py()),
        Some(items) => items.len(),
    }
}

/// `not self._queue`.
///
/// # Errors
/// What the class's own container raises.
#[inline]
pub fn has_no_items(queue: &Bound<'_, PyAny>, state: &Queue, plan: Plan) -> PyResult<bool> {
    match items_elsewhere(queue, state, plan)? {
        None => state.items.is_empty(queue.py()),
        Some(items) => items.is_truthy().map(|full| !full),
    }
}

/// `self.empty()`.
///
/// # Errors
/// What an override raises.
#[inline]
pub fn is_empty(queue: &Bound<'_, PyAny>, state: &Queue, plan: Plan) -> PyResult<bool> {
    if plan.called.any(Called::EMPTY) {
        return method0(queue, intern!(queue.py(), "empty"))?.is_truthy();
    }
    has_no_items(queue, state, plan)
}

/// What `full()` finds that is not overridden.
///
/// # Errors
/// What an overridden `qsize()` or an odd `maxsize` raises.
#[inline]
pub fn is_filled(queue: &Bound<'_, PyAny>, state: &Queue, plan: Plan) -> PyResult<bool> {
    match state.room.get() {
        Room::Unlimited => Ok(false),
        Room::Items(room) if !plan.called.any(Called::QSIZE) => {
            Ok(count(queue, state, plan)? >= room)
        }
        _ => compare_size(queue, state, plan),
    }
}

#[cold]
fn compare_size(queue: &Bound<'_, PyAny>, state: &Queue, plan: Plan) -> PyResult<bool> {
    let py = queue.py();
    let maxsize = state.maxsize.get_or_none(py);
    if maxsize.le(0)? {
        return Ok(false);
    }
    let size = if plan.called.any(Called::QSIZE) {
        method0(queue, intern!(py, "qsize"))?
    } else {
        PyInt::new(py, count(queue, state, plan)?).into_any()
    };
    size.ge(maxsize)
}

/// `self.full()`.
///
/// # Errors
/// What an override raises.
#[inline]
pub fn is_full(queue: &Bound<'_, PyAny>, state: &Queue, plan: Plan) -> PyResult<bool> {
    if plan.called.any(Called::FULL) {
        return method0(queue, intern!(queue.py(), "full"))?.is_truthy();
    }
    is_filled(queue, state, plan)
}

/// Those who wait for the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// For an item.
    Getters,
    /// For room.
    Putters,
}

impl Side {
    /// Their line.
    #[inline]
    pub fn line(self, state: &Queue) -> &Line {
        match self {
            Self::Getters => &state.getters,
            Self::Putters => &state.putters,
        }
    }
}

/// `self._wakeup_next(waiters)`: wakes the first one that is not done.
///
/// # Errors
/// What foreign futures and loops raise.
#[inline]
pub fn wake_next(queue: &Bound<'_, PyAny>, state: &Queue, plan: Plan, side: Side) -> PyResult<()> {
    let py = queue.py();
    let line = side.line(state);
    if plan.called.any(Called::WAKEUP_NEXT) {
        let shown = line.show(py, Container::Deque)?;
        return method1(queue, intern!(py, "_wakeup_next"), &shown).map(drop);
    }
    while !line.is_empty(py)? {
        let waiter = line.first(py)?;
        if !is_done(&waiter)? {
            return finish_unless_done(&waiter, py.None().into_bound(py));
        }
    }
    Ok(())
}

/// Wakes everybody.
fn wake_all(py: Python<'_>, line: &Line) -> PyResult<()> {
    while !line.is_empty(py)? {
        finish_unless_done(&line.first(py)?, py.None().into_bound(py))?;
    }
    Ok(())
}

/// The error of a queue that has been shut down.
///
/// # Errors
/// None that matters: it is the error.
#[cold]
pub fn shut_down(py: Python<'_>) -> PyErr {
    match stock(py) {
        Ok(stock) => PyErr::from_type(stock.shut_down.bind(py).clone(), ()),
        Err(error) => error,
    }
}

#[cold]
fn queue_full(py: Python<'_>) -> PyErr {
    match stock(py) {
        Ok(stock) => PyErr::from_type(stock.full.bind(py).clone(), ()),
        Err(error) => error,
    }
}

#[cold]
fn queue_empty(py: Python<'_>) -> PyErr {
    match stock(py) {
        Ok(stock) => PyErr::from_type(stock.empty.bind(py).clone(), ()),
        Err(error) => error,
    }
}

/// `self._put(item)`.
#[inline]
fn insert<'py>(
    queue: &Bound<'py, PyAny>,
    state: &Queue,
    plan: Plan,
    item: Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = queue.py();
    match plan.put {
        PutBy::Append => state.items.push(item),
        PutBy::Heap => {
            let heap = state.items.show(py, Container::List)?;
            call2(stock(py)?.heappush.bind(py), &heap, &item).map(drop)
        }
        PutBy::Hook => method1(queue, intern!(py, "_put"), &item).map(drop),
    }
}

/// `self._get()`.
#[inline]
fn remove<'py>(queue: &Bound<'py, PyAny>, state: &Queue, plan: Plan) -> Returned<'py> {
    let py = queue.py();
    match plan.get {
        GetBy::First => state.items.first(py),
        GetBy::Last => state.items.last(py),
        GetBy::Heap => {
            let heap = state.items.show(py, Container::List)?;
            call1(stock(py)?.heappop.bind(py), &heap)
        }
        GetBy::Hook => method0(queue, intern!(py, "_get")),
    }
}

/// What `put_nowait()` does once it is known that there is room.
///
/// # Errors
/// `QueueShutDown`, and what a hook or a comparison raises.
#[inline]
pub fn put<'py>(
    queue: &Bound<'py, PyAny>,
    state: &Queue,
    plan: Plan,
    item: Bound<'py, PyAny>,
) -> PyResult<()> {
    insert(queue, state, plan, item)?;
    let unfinished = state.unfinished.get();
    state.unfinished.set(unfinished + 1);
    if state.finished.is_set() {
        tell_finished(queue, state, intern!(queue.py(), "clear"))?;
    }
    wake_next(queue, state, plan, Side::Getters)
}

/// `put_nowait(item)`.
///
/// # Errors
/// `QueueShutDown`, `QueueFull`, and what a hook or a comparison raises.
#[inline]
pub fn put_nowait<'py>(
    queue: &Bound<'py, PyAny>,
    state: &Queue,
    plan: Plan,
    item: Bound<'py, PyAny>,
) -> PyResult<()> {
    if state.is_shut_down.get() {
        return Err(shut_down(queue.py()));
    }
    if is_full(queue, state, plan)? {
        return Err(queue_full(queue.py()));
    }
    put(queue, state, plan, item)
}

/// What `get_nowait()` does once it is known that there is an item.
///
/// # Errors
/// What a hook or a comparison raises.
#[inline]
pub fn get<'py>(queue: &Bound<'py, PyAny>, state: &Queue, plan: Plan) -> Returned<'py> {
    let item = remove(queue, state, plan)?;
    wake_next(queue, state, plan, Side::Putters)?;
    Ok(item)
}

/// `get_nowait()`.
///
/// # Errors
/// `QueueShutDown`, `QueueEmpty`, and what a hook or a comparison raises.
#[inline]
pub fn get_nowait<'py>(queue: &Bound<'py, PyAny>, state: &Queue, plan: Plan) -> Returned<'py> {
    if is_empty(queue, state, plan)? {
        return Err(if state.is_shut_down.get() {
            shut_down(queue.py())
        } else {
            queue_empty(queue.py())
        });
    }
    get(queue, state, plan)
}

/// The event that `join()` waits for: asyncio's `Event`, or what has been put in its place.
///
/// # Errors
/// What making it raises.
pub fn finished_event<'py>(queue: &Bound<'py, PyAny>, state: &Queue) -> Returned<'py> {
    let py = queue.py();
    if !state.finished.is_set() {
        let event = py
            .import(intern!(py, "asyncio.locks"))?
            .getattr(intern!(py, "Event"))?
            .call0()?;
        if state.unfinished.get() <= 0 {
            method0(&event, intern!(py, "set"))?;
        }
        state.finished.set(event);
    }
    Ok(state.finished.get_or_none(py))
}

/// Calls `set` or `clear` of the event, if there is one.
fn tell_finished<'py>(
    queue: &Bound<'py, PyAny>,
    state: &Queue,
    name: &Bound<'py, pyo3::types::PyString>,
) -> PyResult<()> {
    match state.finished.get(queue.py()) {
        Some(event) => method0(&event, name).map(drop),
        None => Ok(()),
    }
}

/// `task_done()`.
///
/// # Errors
/// `ValueError` where it was called more often than items were put in.
pub fn task_done(queue: &Bound<'_, PyAny>) -> PyResult<()> {
    let state = QUEUE.of(queue);
    let unfinished = state.unfinished.get();
    if unfinished <= 0 {
        return Err(PyValueError::new_err("task_done() called too many times"));
    }
    state.unfinished.set(unfinished - 1);
    if unfinished == 1 {
        tell_finished(queue, state, intern!(queue.py(), "set"))?;
    }
    Ok(())
}

/// `shutdown(immediate)`.
///
/// # Errors
/// What a hook raises.
pub fn shutdown(queue: &Bound<'_, PyAny>, immediate: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = queue.py();
    let state = QUEUE.of(queue);
    state.is_shut_down.set(true);
    if immediate.is_truthy()? {
        let plan = state.plan(queue)?;
        while !is_empty(queue, state, plan)? {
            remove(queue, state, plan)?;
            let unfinished = state.unfinished.get();
            if unfinished > 0 {
                state.unfinished.set(unfinished - 1);
            }
        }
        if state.unfinished.get() == 0 {
            tell_finished(queue, state, intern!(py, "set"))?;
        }
    }
    wake_all(py, &state.getters)?;
    wake_all(py, &state.putters)
}

/// `_format()`: what `repr()` and `str()` say of the queue.
///
/// # Errors
/// What `repr()` of the items raises.
pub fn format(queue: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = queue.py();
    let state = QUEUE.of(queue);
    let plan = state.plan(queue)?;
    let mut text = format!("maxsize={}", state.maxsize.get_or_none(py).repr()?);
    let items = match items_elsewhere(queue, state, plan) {
        Ok(None) if state.items.is_empty(py)? => None,
        Ok(None) => Some(state.items.list(py)?),
        Ok(Some(items)) if items.is_truthy()? => Some(
            py.get_type::<pyo3::types::PyList>()
                .call1((items,))?
                .cast_into()?,
        ),
        Err(error) if !error.is_instance_of::<PyAttributeError>(py) => return Err(error),
        Ok(Some(_)) | Err(_) => None,
    };
    if let Some(items) = items {
        text.push_str(" _queue=");
        text.push_str(&items.repr()?.to_string_lossy());
    }
    for (name, line) in [("getters", &state.getters), ("putters", &state.putters)] {
        if !line.is_empty(py)? {
            let count = line.len(py)?;
            write!(text, " _{name}[{count}]").map_err(unwritten)?;
        }
    }
    if state.unfinished.get() != 0 {
        let count = state.unfinished.get();
        write!(text, " tasks={count}").map_err(unwritten)?;
    }
    if state.is_shut_down.get() {
        text.push_str(" shutdown");
    }
    Ok(text)
}

fn unwritten(_: std::fmt::Error) -> PyErr {
    PyRuntimeError::new_err("a number could not be written")
}

/// What `__init__(maxsize)` sets up.
///
/// # Errors
/// What the class's `_init()` raises.
pub fn initialise<'py>(queue: &Bound<'py, PyAny>, maxsize: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = queue.py();
    let state = QUEUE.of(queue);
    state.limit(maxsize.clone());
    state.getters.clear();
    state.putters.clear();
    state.unfinished.set(0);
    state.finished.clear();
    state.items.clear();
    match state.plan(queue)?.kept {
        KeptBy::Container(_) => state.arranged.set(true),
        KeptBy::Hook => {
            state.arranged.set(false);
            method1(queue, intern!(py, "_init"), maxsize)?;
        }
    }
    // Only asyncio's newer versions have this attribute; a subclass may have one of its own.
    state.is_shut_down.set(false);
    Ok(())
}
