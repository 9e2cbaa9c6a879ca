//! Watched descriptors.
//!
//! A descriptor is watched by whoever waits for its directions (Python's `add_reader` and `add_writer`, operations on
//! sockets, transports of pipes; see [`super::directions`]) or by the native transport of a socket. An event that was announced, but whose watch has gone by
//! the time it is run, is dropped: its token no longer resolves.

use std::ffi::c_int;
use std::os::fd::RawFd;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyInt, PyWeakrefReference};
use weft_reactor::{Event, Poller};

use super::directions::{Directions, Waiter};
use super::{EVENT_LOOP, EventLoop, Job, Ready};
use crate::errors::os_error;
use crate::event_loop::handles::{self, HANDLE};
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Reference, Visit};
use crate::method;

pub use weft_reactor::Interest;

/// What is called when a native watch's descriptor is ready: object, readable, writable.
pub type Notice =
    for<'py> fn(object: &Bound<'py, PyAny>, readable: bool, writable: bool) -> PyResult<()>;

/// Who watches a descriptor.
#[derive(Debug)]
pub enum Watch {
    /// Whoever waits for its directions.
    Directions(Directions),
    /// A native transport; it is told through `notice`. Level-triggered: what is not consumed is reported again.
    Native {
        object: Reference,
        notice: Notice,
        interest: Interest,
    },
}

impl Watch {
    pub(super) fn traverse(&self, visit: Visit) -> c_int {
        match self {
            Self::Directions(directions) => directions.traverse(visit),
            Self::Native { object, .. } => visit.object(object),
        }
    }

    /// Drops what the handles refer to, when the loop is closed.
    pub(super) fn empty(&self, py: Python<'_>) {
        if let Self::Directions(directions) = self {
            directions.empty(py);
        }
    }

    fn interest(&self) -> Interest {
        match self {
            Self::Directions(directions) => directions.interest(),
            Self::Native { interest, .. } => *interest,
        }
    }
}

impl EventLoop {
    /// Opens the poller.
    ///
    /// # Errors
    /// `OSError` where the process has no descriptor left.
    pub(super) fn open(&self) -> PyResult<()> {
        if self.poller.borrow().is_none() {
            let poller = Poller::new().map_err(os_error)?;
            *self.waker.borrow_mut() = Some(poller.waker());
            *self.poller.borrow_mut() = Some(poller);
        }
        Ok(())
    }

    fn with_poller(&self, body: impl FnOnce(&Poller) -> std::io::Result<()>) -> PyResult<()> {
        match &*self.poller.borrow() {
            Some(poller) => body(poller).map_err(os_error),
            None => self.check_closed(),
        }
    }

    /// Puts what a poll reported into the ready queue.
    pub(super) fn announce(&self, py: Python<'_>, event: &Event) {
        let watches = self.watches.borrow();
        match watches.get(event.token) {
            Some(Watch::Directions(directions)) => {
                for (is_ready, reading) in [(event.readable, true), (event.writable, false)] {
                    if is_ready && let Some(waiter) = directions.waiter(reading) {
                        self.ready.push(waiter.ready(py));
                    }
                }
            }
            Some(Watch::Native { .. }) => self.ready.push(Ready::Io {
                token: event.token,
                readable: event.readable,
                writable: event.writable,
            }),
            None => {}
        }
    }

    /// Tells a native watch that its descriptor is ready.
    pub(super) fn notify(
        &self,
        event_loop: &Bound<'_, PyAny>,
        token: u64,
        readable: bool,
        writable: bool,
    ) -> PyResult<()> {
        let py = event_loop.py();
        let found = match self.watches.borrow().get(token) {
            Some(Watch::Native { object, notice, .. }) => Some((object.bind(py).clone(), *notice)),
            _ => None,
        };
        match found {
            Some((object, notice)) => notice(&object, readable, writable),
            None => Ok(()),
        }
    }

    /// Adds or replaces the waiter of one direction, and returns the old one. `file` is the object that a handle is added
    /// with, `socket` a weak reference to the socket of an operation that comes to wait.
    fn add_waiter(
        &self,
        fd: RawFd,
        waiter: Waiter,
        reading: bool,
        file: Option<Reference>,
        socket: Option<Reference>,
    ) -> PyResult<Option<Waiter>> {
        let mut watches = self.watches.borrow_mut();
        let token = match watches.by_fd(fd) {
            Some(token) => token,
            None => watches.insert(fd, Watch::Directions(Directions::default())),
        };
        let Some(Watch::Directions(directions)) = watches.get_mut(token) else {
            return Err(PyRuntimeError::new_err(format!(
                "File descriptor {fd} is used by a transport"
            )));
        };
        let socket = socket.and_then(|socket| directions.remember(socket));
        let old = directions.put(waiter, reading);
        let file = directions.remember_file(file);
        let outcome = self.with_poller(|poller| directions.register(poller, fd, token));
        if outcome.is_ok() {
            drop(watches);
            drop((file, socket));
            return Ok(old);
        }
        let failed = (directions.take(reading), directions.remember_file(None));
        let removed = if directions.is_idle() {
            watches.remove(token)
        } else {
            None
        };
        drop(watches);
        drop((file, socket, old, failed, removed));
        outcome.map(|()| None)
    }

    /// Takes out the waiter of one direction that `take` finds.
    fn remove_waiter(
        &self,
        fd: RawFd,
        take: impl FnOnce(&mut Directions) -> Option<Waiter>,
    ) -> Option<Waiter> {
        let mut watches = self.watches.borrow_mut();
        let token = watches.by_fd(fd)?;
        let Some(Watch::Directions(directions)) = watches.get_mut(token) else {
            return None;
        };
        let old = take(directions)?;
        let file = directions.remember_file(None);
        // A descriptor that was closed behind our back has left the poller already.
        let outcome = self.with_poller(|poller| directions.register(poller, fd, token));
        let removed = if directions.is_idle() && (outcome.is_err() || !directions.is_registered()) {
            watches.remove(token)
        } else {
            None
        };
        drop(watches);
        drop((file, removed));
        Some(old)
    }

    /// The descriptor that handles were added to with `object`, which has been closed since.
    fn descriptor_of_closed(&self, object: &Bound<'_, PyAny>) -> Option<RawFd> {
        let watches = self.watches.borrow();
        watches.iter().find_map(|(fd, watch)| match watch {
            Watch::Directions(directions) if directions.is_of_file(object) => Some(fd),
            _ => None,
        })
    }

    /// Ends the watch of `fd` if `ended` says so.
    fn end_watch(&self, fd: RawFd, ended: impl FnOnce(&Directions) -> bool) {
        let mut watches = self.watches.borrow_mut();
        if let Some(token) = watches.by_fd(fd)
            && let Some(Watch::Directions(directions)) = watches.get(token)
            && ended(directions)
        {
            let removed = watches.remove(token);
            // If the descriptor has been closed since, the kernel has forgotten it by itself.
            let _ = self.with_poller(|poller| poller.remove(fd));
            drop(watches);
            drop(removed);
        }
    }

    /// Has an operation wait for arrivals, if its socket is registered for them already.
    #[inline]
    fn wait_for_arrival(
        &self,
        fd: RawFd,
        socket: &Bound<'_, PyAny>,
        operation: &Bound<'_, PyAny>,
        job: Job,
    ) -> bool {
        let mut watches = self.watches.borrow_mut();
        let Some(token) = watches.by_fd(fd) else {
            return false;
        };
        let old = match watches.get_mut(token) {
            Some(Watch::Directions(directions)) if directions.awaits_arrivals_of(socket) => {
                let object = operation.clone().into();
                directions.put(Waiter::Operation { object, job }, true)
            }
            _ => return false,
        };
        drop(watches);
        drop(old);
        true
    }
}

/// Has `operation` wait until `fd`, the descriptor of `socket`, is ready: `job` is called with it each time, until
/// [`stop_waiting`]. Who waited for the same direction before is replaced, as by `add_reader`.
///
/// # Errors
/// `RuntimeError` where the loop is closed or a transport uses the descriptor, `OSError` where the kernel refuses it.
pub fn wait_until_ready(
    event_loop: &Bound<'_, PyAny>,
    fd: RawFd,
    socket: &Bound<'_, PyAny>,
    operation: &Bound<'_, PyAny>,
    job: Job,
    reading: bool,
) -> PyResult<()> {
    let py = event_loop.py();
    let state = EVENT_LOOP.of(event_loop);
    if reading && state.wait_for_arrival(fd, socket, operation, job) {
        return Ok(());
    }
    event_loop.call_method1(intern!(py, "_ensure_fd_no_transport"), (fd,))?;
    state.check_closed()?;
    let reference = PyWeakrefReference::new(socket)?.into_any();
    state.end_watch(fd, |directions| directions.is_of_another(socket));
    let object = operation.clone().into();
    let old = state.add_waiter(
        fd,
        Waiter::Operation { object, job },
        reading,
        None,
        Some(reference.into()),
    )?;
    cancel(py, old)
}

/// Calls `job` with `transport` each time that a direction of `fd` is ready, until [`stop_waiting`]. Who waited for the
/// same direction before is replaced, as by `add_reader`; the other direction may be anybody's.
///
/// A readiness that has been announced is not taken back when the wait ends: the job looks for itself whether it waits.
///
/// # Errors
/// `RuntimeError` where the loop is closed or a native watch uses the descriptor, `OSError` where the kernel refuses it.
pub fn wait_as_transport(
    event_loop: &Bound<'_, PyAny>,
    fd: RawFd,
    transport: &Bound<'_, PyAny>,
    job: Job,
    reading: bool,
) -> PyResult<()> {
    let state = EVENT_LOOP.of(event_loop);
    state.check_closed()?;
    state.end_watch(fd, Directions::is_idle);
    let object = transport.clone().into();
    let waiter = Waiter::Transport { object, job };
    let old = state.add_waiter(fd, waiter, reading, None, None)?;
    cancel(event_loop.py(), old)
}

/// Whether `operation` still is who waits for a direction of `fd`.
#[inline]
pub fn is_waiting(
    event_loop: &EventLoop,
    fd: RawFd,
    operation: &Bound<'_, PyAny>,
    reading: bool,
) -> bool {
    let watches = event_loop.watches.borrow();
    matches!(
        watches.by_fd(fd).and_then(|token| watches.get(token)),
        Some(Watch::Directions(directions)) if directions.has_operation(operation, reading)
    )
}

/// Ends the wait of `operation`, if it still is who waits for a direction of `fd`.
#[inline]
pub fn stop_waiting(
    event_loop: &EventLoop,
    fd: RawFd,
    operation: &Bound<'_, PyAny>,
    reading: bool,
) {
    let stopped = event_loop.remove_waiter(fd, |directions| {
        directions.take_operation(operation, reading)
    });
    drop(stopped);
}

/// Has what has arrived at `fd` announced once more: for an operation that could not look.
///
/// # Errors
/// `OSError` where the kernel refuses.
#[cold]
pub fn announce_again(event_loop: &EventLoop, fd: RawFd) -> PyResult<()> {
    let watches = event_loop.watches.borrow();
    if let Some(token) = watches.by_fd(fd)
        && let Some(Watch::Directions(directions)) = watches.get(token)
    {
        return event_loop.with_poller(|poller| directions.report_again(poller, fd, token));
    }
    Ok(())
}

/// Watches `fd` for a native object; returns the token.
///
/// # Errors
/// `OSError` where the kernel refuses, `RuntimeError` where the loop is closed.
pub fn watch(
    event_loop: &EventLoop,
    fd: RawFd,
    object: &Bound<'_, PyAny>,
    notice: Notice,
    interest: Interest,
) -> PyResult<u64> {
    event_loop.check_closed()?;
    event_loop.end_watch(fd, Directions::is_idle);
    let mut watches = event_loop.watches.borrow_mut();
    if watches.by_fd(fd).is_some() {
        return Err(PyRuntimeError::new_err(format!(
            "File descriptor {fd} is watched already"
        )));
    }
    let token = watches.insert(
        fd,
        Watch::Native {
            object: object.clone().into(),
            notice,
            interest,
        },
    );
    if let Err(error) = event_loop.with_poller(|poller| poller.add(fd, token, interest)) {
        let failed = watches.remove(token);
        drop(watches);
        drop(failed);
        return Err(error);
    }
    Ok(token)
}

/// Gives a native watch to another object, which has yet to say what it waits for.
pub fn hand_over(event_loop: &EventLoop, token: u64, object: &Bound<'_, PyAny>, notice: Notice) {
    let fresh = Watch::Native {
        object: object.clone().into(),
        notice,
        interest: Interest {
            readable: false,
            writable: false,
        },
    };
    let old = event_loop
        .watches
        .borrow_mut()
        .get_mut(token)
        .map(|watch| std::mem::replace(watch, fresh));
    drop(old);
}

/// Changes what a native watch waits for.
///
/// # Errors
/// `OSError` where the kernel refuses.
pub fn rewatch(event_loop: &EventLoop, token: u64, interest: Interest) -> PyResult<()> {
    let mut watches = event_loop.watches.borrow_mut();
    let Some(fd) = watches.fd(token) else {
        return Ok(());
    };
    if let Some(Watch::Native {
        interest: current, ..
    }) = watches.get_mut(token)
    {
        if *current == interest {
            return Ok(());
        }
        *current = interest;
    }
    event_loop.with_poller(|poller| poller.modify(fd, token, interest))
}

/// Ends a native watch. The descriptor is still open.
pub fn unwatch(event_loop: &EventLoop, token: u64) {
    let removed = event_loop.watches.borrow_mut().remove(token);
    if let Some((fd, watch)) = removed {
        // The kernel forgets descriptors by itself when they are closed; an error here says just that.
        let _ = event_loop.with_poller(|poller| poller.remove(fd));
        drop(watch);
    }
}

/// The descriptor of an integer or of an object with `fileno()`, as `selectors` finds it.
fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    if let Ok(fd) = object.extract::<RawFd>() {
        return Ok(fd);
    }
    object
        .call_method0(intern!(object.py(), "fileno"))
        .and_then(|fd| fd.extract())
        .map_err(|_| match object.repr() {
            Ok(text) => PyValueError::new_err(format!("Invalid file object: {text}")),
            Err(error) => error,
        })
}

fn add<'py>(
    event_loop: &Bound<'py, PyAny>,
    args: Args<'_, 'py>,
    method: &str,
    reading: bool,
) -> Returned<'py> {
    let state = EVENT_LOOP.of(event_loop);
    state.check_closed()?;
    let context = args.only_keyword(method, "context")?;
    let file = args.required(method, 0, "fd")?;
    let fd = descriptor(&file)?;
    let callback = args.required(method, 1, "callback")?;
    if fd < 0 {
        return Err(invalid_descriptor(fd));
    }
    let handle = handles::make(
        event_loop,
        state.debug.get(),
        callback,
        args,
        2,
        context,
        None,
    )?;
    HANDLE.of(&handle).set_repeats();
    state.end_watch(fd, Directions::is_idle);
    let waiter = Waiter::Handle(handle.clone().into());
    let file = (!file.is_instance_of::<PyInt>()).then(|| (*file).clone().into());
    let old = state.add_waiter(fd, waiter, reading, file, None)?;
    cancel(event_loop.py(), old)?;
    Ok(handle)
}

fn invalid_descriptor(fd: RawFd) -> PyErr {
    PyValueError::new_err(format!("Invalid file descriptor: {fd}"))
}

/// Cancels the handle of a waiter that was replaced or removed. An operation waits on without it, for its future.
fn cancel(py: Python<'_>, waiter: Option<Waiter>) -> PyResult<()> {
    match waiter {
        Some(Waiter::Handle(handle)) => handle
            .into_bound(py)
            .call_method0(intern!(py, "cancel"))
            .map(drop),
        Some(Waiter::Operation { .. } | Waiter::Transport { .. }) | None => Ok(()),
    }
}

fn remove<'py>(
    event_loop: &Bound<'py, PyAny>,
    file: &Bound<'py, PyAny>,
    reading: bool,
) -> Returned<'py> {
    let py = event_loop.py();
    let state = EVENT_LOOP.of(event_loop);
    let removed = if state.closed.get() {
        None
    } else {
        let mut fd = descriptor(file)?;
        if fd < 0 {
            let known = state.descriptor_of_closed(file);
            fd = known.ok_or_else(|| invalid_descriptor(fd))?;
        }
        state.end_watch(fd, Directions::is_idle);
        state.remove_waiter(fd, |directions| directions.take(reading))
    };
    let found = removed.is_some();
    cancel(py, removed)?;
    Ok(PyBool::new(py, found).to_owned().into_any())
}

fn add_reader<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    add(event_loop, args, "add_reader", true)
}

fn add_writer<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    add(event_loop, args, "add_writer", false)
}

fn remove_reader<'py>(event_loop: &Bound<'py, PyAny>, fd: &Bound<'py, PyAny>) -> Returned<'py> {
    remove(event_loop, fd, true)
}

fn remove_writer<'py>(event_loop: &Bound<'py, PyAny>, fd: &Bound<'py, PyAny>) -> Returned<'py> {
    remove(event_loop, fd, false)
}

/// `_interest(fd)`: the selector events (1 read, 2 write) that are watched, 0 for none.
fn interest<'py>(event_loop: &Bound<'py, PyAny>, fd: &Bound<'py, PyAny>) -> Returned<'py> {
    let watches = EVENT_LOOP.of(event_loop).watches.borrow();
    let fd = descriptor(fd)?;
    let interest = watches
        .by_fd(fd)
        .and_then(|token| watches.get(token))
        .map(Watch::interest);
    let mask = interest.map_or(0, |i| i32::from(i.readable) | i32::from(i.writable) << 1);
    Ok(mask.into_pyobject(event_loop.py())?.into_any())
}

pub(super) fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "_add_reader" => add_reader, "Call a callback whenever a descriptor is readable."),
        method!(fast "_add_writer" => add_writer, "Call a callback whenever a descriptor is writable."),
        method!(one "_remove_reader" => remove_reader, "Stop watching a descriptor for reading; return whether it was."),
        method!(one "_remove_writer" => remove_writer, "Stop watching a descriptor for writing; return whether it was."),
        method!(one "_interest" => interest, "Return the selector events that a descriptor is watched for."),
    ]
}
