//! The queue between those who want a function called and the threads that do it.
//!
//! Ground rules:
//!
//! - The GIL guards the queue. A worker holds it while it looks for work and while it runs it, and gives it up to wait.
//! - A worker that finds nothing puts itself on the stack of those that wait. Whoever adds work takes one from the stack
//!   and calls it; the latest first, whose memory is still warm. Called for work that another worker has done meanwhile,
//!   it waits again. So there is a thread on its way for every entry, as long as one was waiting.
//! - Beside jobs the queue takes what `ThreadPoolExecutor` puts into its own: work items, and `None`, at which a worker
//!   asks whether it shall end.
//! - A loop that sleeps is woken when the worker has given up the GIL, which the loop needs to go on.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyInt, PyModule};
use weft_reactor::Waker;

use super::job::{self, JOB};
use crate::ffi::call::{call0, call1, detached};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Class, Native, Reference, Slot, Visit};
use crate::{method, property};

/// A thread that waits for work.
#[derive(Debug)]
struct Worker {
    thread: Thread,
    called: AtomicBool,
}

impl Worker {
    /// The calling thread.
    fn here() -> Arc<Self> {
        Arc::new(Self {
            thread: thread::current(),
            called: AtomicBool::new(false),
        })
    }

    fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Sleeps until somebody calls. The GIL has been given up.
    fn wait(&self) {
        while !self.called.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// The Rust part of a queue.
#[derive(Debug, Default)]
pub struct Queue {
    entries: RefCell<VecDeque<Reference>>,
    waiting: RefCell<Vec<Arc<Worker>>>,
    /// Whether the executor has as many threads as it may have.
    full: Cell<bool>,
    /// Whether `None` was put, so that from now on its threads may be gone.
    ending: Cell<bool>,
    /// What runs an entry that is no job.
    run_item: Slot,
    /// What a worker asks when it finds `None`.
    has_ended: Slot,
}

/// The class of queues.
pub static QUEUE: Class<Queue> = Class::new();

impl Native for Queue {
    fn class() -> &'static Class<Self> {
        &QUEUE
    }

    fn traverse(&self, visit: Visit) -> c_int {
        if let Ok(entries) = self.entries.try_borrow() {
            for entry in entries.iter() {
                let answer = visit.object(entry);
                if answer != 0 {
                    return answer;
                }
            }
        }
        visit.slots([&self.run_item, &self.has_ended])
    }

    fn clear(&self, _: Python<'_>) {
        self.run_item.clear();
        self.has_ended.clear();
        self.drop_entries();
    }
}

impl Queue {
    /// Adds a job if a thread is there to run it, or will be without anybody starting one.
    #[inline]
    pub fn offer<'py>(&self, job: Bound<'py, PyAny>) -> Result<(), Bound<'py, PyAny>> {
        if self.ending.get() {
            return Err(job);
        }
        if self.full.get() {
            self.add(job);
            self.call_worker();
            return Ok(());
        }
        let Some(worker) = self.next_waiting() else {
            return Err(job);
        };
        self.add(job);
        worker.call();
        Ok(())
    }

    fn add(&self, entry: Bound<'_, PyAny>) {
        self.entries.borrow_mut().push_back(entry.into());
    }

    fn take<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let entry = self.entries.borrow_mut().pop_front();
        entry.map(|entry| entry.into_bound(py))
    }

    fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    fn next_waiting(&self) -> Option<Arc<Worker>> {
        self.waiting.borrow_mut().pop()
    }

    /// Calls a worker that waits; whether there is one.
    fn call_worker(&self) -> bool {
        match self.next_waiting() {
            Some(worker) => {
                worker.call();
                true
            }
            None => false,
        }
    }

    fn drop_entries(&self) {
        let dropped = std::mem::take(&mut *self.entries.borrow_mut());
        drop(dropped);
    }
}

/// `work()`: what a worker thread does, until it is told to end.
fn work<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let queue = QUEUE.of(object);
    let worker = Worker::here();
    let mut waker: Option<Waker> = None;
    loop {
        let Some(entry) = queue.take(py) else {
            queue.waiting.borrow_mut().push(worker.clone());
            let waker = waker.take();
            detached(py, || {
                if let Some(waker) = waker {
                    waker.wake();
                }
                worker.wait();
            });
            continue;
        };
        if let Some(job) = JOB.get_exact(&entry) {
            waker = job::run(&entry, job);
            drop(entry);
            if let Some(waker) = waker.take_if(|_| !queue.is_empty()) {
                detached(py, || waker.wake());
            }
        } else if !entry.is_none() {
            if let Some(run_item) = queue.run_item.get(py) {
                call1(&run_item, &entry)?;
            }
        } else if match queue.has_ended.get(py) {
            Some(has_ended) => call0(&has_ended)?.is_truthy()?,
            None => true,
        } {
            return Ok(py.None().into_bound(py));
        }
    }
}

/// `put(item)`. A worker is called for `None` alone: for anything else, the executor calls or starts one.
fn put<'py>(object: &Bound<'py, PyAny>, entry: &Bound<'py, PyAny>) -> Returned<'py> {
    let queue = QUEUE.of(object);
    queue.add(entry.clone());
    if entry.is_none() {
        queue.ending.set(true);
        queue.call_worker();
    }
    Ok(object.py().None().into_bound(object.py()))
}

/// `get_nowait()`.
fn get_nowait<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    match QUEUE.of(object).take(py) {
        Some(entry) => Ok(entry),
        None => Err(PyErr::from_value(
            py.import("queue")?.getattr("Empty")?.call0()?,
        )),
    }
}

fn call_worker<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let called = QUEUE.of(object).call_worker();
    Ok(PyBool::new(object.py(), called).to_owned().into_any())
}

fn qsize<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let size = QUEUE.of(object).entries.borrow().len();
    Ok(PyInt::new(object.py(), size).into_any())
}

fn empty<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let is_empty = QUEUE.of(object).is_empty();
    Ok(PyBool::new(object.py(), is_empty).to_owned().into_any())
}

/// `forget()`: in the child of a fork, which has neither the threads nor anything to do with what they had to do.
fn forget<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let queue = QUEUE.of(object);
    queue.full.set(false);
    let waiting = std::mem::take(&mut *queue.waiting.borrow_mut());
    drop(waiting);
    queue.drop_entries();
    Ok(object.py().None().into_bound(object.py()))
}

fn full<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let full = QUEUE.of(object).full.get();
    Ok(PyBool::new(object.py(), full).to_owned().into_any())
}

fn set_full(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    let full = value.map_or(Ok(false), |value| value.is_truthy())?;
    QUEUE.of(object).full.set(full);
    Ok(())
}

/// `attend(run_item, has_ended)`: what workers call for entries that are no jobs.
fn attend<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    args.no_keywords("attend")?;
    let queue = QUEUE.of(object);
    let run_item = args.required("attend", 0, "run_item")?;
    let has_ended = args.required("attend", 1, "has_ended")?;
    queue.run_item.set(run_item.to_owned());
    queue.has_ended.set(has_ended.to_owned());
    Ok(object.py().None().into_bound(object.py()))
}

fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(attached "work" => work, "Do what is in the queue and what is put into it, until it ends."),
        method!(one "put" => put, "Add a work item, a job, or None to end the workers."),
        method!(none "get_nowait" => get_nowait, "Take the oldest entry. Raises queue.Empty where there is none."),
        method!(none "call_worker" => call_worker, "Call a worker that waits. Return False where none does."),
        method!(none "qsize" => qsize, "Return the number of entries."),
        method!(none "empty" => empty, "Return True if there is no entry."),
        method!(none "forget" => forget, "Drop entries and workers, in a forked child."),
        method!(fast "attend" => attend,
            "attend($self, run_item, has_ended, /)\n--\n\nSet what workers call for a work item, and what they ask at None."),
    ]
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = QUEUE.make(
        module.py(),
        c"weft._weft.WorkQueue",
        None,
        Description {
            methods: methods(),
            properties: vec![property!("full" => full, set_full)],
            slots: class_slots::<Queue>(),
            doc: Some(c"The queue of weft's ThreadPoolExecutor."),
            instantiable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("WorkQueue", class)
}
