//! `sock_recv()` and its like: operations of the loop on sockets that the program owns.
//!
//! All of them go the way of asyncio's. An operation tries at once. If the socket is not ready, it makes a future and
//! waits for readiness ([`event_loop::wait_until_ready`]); when that comes, it tries again, there and then, and what
//! comes of it goes to the future. So nothing is received for an operation that has been cancelled by then.
//!
//! Native code serves a `socket.socket` that is non-blocking, and arguments of the usual types. Everything else, debug
//! mode's complaints and the errors of wrong arguments among it, is left to the coroutine that is inherited from asyncio:
//! the operation awaits it. `sock_sendfile()` is inherited altogether; it runs once for a file.

mod calls;
pub mod connecting;

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;

use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyTuple};

use crate::errors::os_error;
use crate::event_loop::handles::is_fatal;
use crate::event_loop::{self, EVENT_LOOP};
use crate::ffi::bytes::View;
use crate::ffi::method::Returned;
use crate::ffi::socket::{descriptor_now, nonblocking_descriptor};
use crate::ffi::{Slot, Visit};
use crate::futures;
use crate::operations::{self, Operation, Step};

pub use calls::register;

/// What the operations have in common.
#[derive(Debug, Default)]
pub struct Call {
    event_loop: Slot,
    socket: Slot,
    /// The arguments after the socket.
    first: Slot,
    second: Slot,
    /// What is waited for, once it is.
    future: Slot,
    /// The socket's descriptor when the wait began.
    fd: Cell<RawFd>,
    /// Whether the descriptor is watched on our behalf.
    waits: Cell<bool>,
    /// How many bytes to receive, or how many have been sent.
    count: Cell<usize>,
    /// What is being sent, where it is not `bytes`.
    view: RefCell<Option<View>>,
}

/// What the first attempt of an operation came to.
#[derive(Debug)]
pub enum Attempt<'py> {
    /// It is done, with this value.
    Done(Bound<'py, PyAny>),
    /// The socket is not ready.
    NotNow,
    /// The arguments are not for native code.
    Inherited,
}

/// The part in which the operations differ.
pub trait SocketCall: Operation {
    /// Whether it waits to read, or else to write.
    const READS: bool;

    /// The common part.
    fn call(&self) -> &Call;

    /// asyncio's coroutine function.
    fn inherited(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>>;

    /// Tries for the first time, on the descriptor `fd`.
    ///
    /// # Errors
    /// What the operation raises.
    fn attempt<'py>(call: &Call, py: Python<'py>, fd: RawFd) -> PyResult<Attempt<'py>>;

    /// Tries again, after a wait; `None` where the socket is still not ready.
    ///
    /// # Errors
    /// What the operation raises.
    fn retry<'py>(call: &Call, py: Python<'py>, fd: RawFd) -> PyResult<Option<Bound<'py, PyAny>>>;
}

impl Call {
    fn slots(&self) -> [&Slot; 5] {
        [
            &self.event_loop,
            &self.socket,
            &self.first,
            &self.second,
            &self.future,
        ]
    }

    fn traverse(&self, visit: Visit) -> c_int {
        if let Ok(view) = self.view.try_borrow()
            && let Some(view) = &*view
        {
            let answer = view.traverse(visit);
            if answer != 0 {
                return answer;
            }
        }
        visit.slots(self.slots())
    }

    fn clear(&self) {
        let view = self.view.take();
        drop(view);
        for slot in self.slots() {
            slot.clear();
        }
    }

    /// Awaits asyncio's own coroutine.
    #[cold]
    fn inherit<'py, T: SocketCall>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        let arguments = [&self.event_loop, &self.socket, &self.first, &self.second]
            .into_iter()
            .filter_map(|slot| slot.get(py));
        let arguments = PyTuple::new(py, arguments.collect::<Vec<_>>())?;
        T::inherited(py)?.call1(arguments).map(Step::Await)
    }

    fn start<'py, T: SocketCall>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let socket = self.socket.get_or_none(py);
        let Some(fd) = nonblocking_descriptor(&socket)? else {
            return self.inherit::<T>(py);
        };
        match T::attempt(self, py, fd)? {
            Attempt::Done(value) => return Ok(Step::Done(value)),
            Attempt::NotNow => {}
            Attempt::Inherited => return self.inherit::<T>(py),
        }
        let event_loop = self.event_loop.get_or_none(py);
        let future = futures::create_future(&event_loop)?;
        let job = ready::<T>;
        event_loop::wait_until_ready(&event_loop, fd, &socket, frame, job, T::READS)?;
        self.fd.set(fd);
        self.waits.set(true);
        self.future.set(future.clone());
        Ok(Step::Wait(future))
    }

    fn resume<'py, T: SocketCall>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        self.stop::<T>(frame);
        outcome.map(Step::Done)
    }

    /// Ends the wait.
    fn stop<T: SocketCall>(&self, frame: &Bound<'_, PyAny>) {
        if self.waits.replace(false)
            && let Some(event_loop) = self.event_loop.get(frame.py())
        {
            let state = EVENT_LOOP.of(&event_loop);
            event_loop::stop_waiting(state, self.fd.get(), frame, T::READS);
        }
    }
}

/// The job of a waiting operation: its descriptor is ready.
fn ready<'py, T: SocketCall>(
    event_loop: &Bound<'py, PyAny>,
    frame: &Bound<'py, PyAny>,
    _: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = frame.py();
    let call = operations::of::<T>(frame).call();
    let state = EVENT_LOOP.of(event_loop);
    let Some(future) = call.future.get(py) else {
        return Ok(());
    };
    // Done: cancelled, and the task that is told of it has not run yet.
    if operations::is_done(&future)?
        || !event_loop::is_waiting(state, call.fd.get(), frame, T::READS)
    {
        return Ok(());
    }
    let Some(socket) = call.socket.get(py) else {
        return Ok(());
    };
    match T::retry(call, py, descriptor_now(&socket)) {
        Ok(None) => Ok(()),
        Ok(Some(value)) => {
            call.stop::<T>(frame);
            operations::finish_unless_done(&future, value)
        }
        Err(error) if is_fatal(py, &error) => {
            // Whoever runs the loop once more finds the operation waiting.
            event_loop::announce_again(state, call.fd.get())?;
            Err(error)
        }
        Err(error) => {
            call.stop::<T>(frame);
            if operations::is_done(&future)? {
                return Ok(());
            }
            futures::fail(&future, error.value(py).as_any())
        }
    }
}

/// Before Python code is called from a job.
fn leave_task(call: &Call, py: Python<'_>) -> PyResult<()> {
    match call.event_loop.get(py) {
        Some(event_loop) => event_loop::leave_task(EVENT_LOOP.of(&event_loop), &event_loop),
        None => Ok(()),
    }
}

/// `None` for a system call that would have blocked.
fn unless_blocked<T>(outcome: io::Result<T>) -> PyResult<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(os_error(error)),
    }
}

/// `None` for a method of a Python socket that would have blocked.
fn unless_blocking_error<'py>(
    py: Python<'py>,
    outcome: Returned<'py>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if error.is_instance_of::<PyBlockingIOError>(py)
                || error.is_instance_of::<PyInterruptedError>(py) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
