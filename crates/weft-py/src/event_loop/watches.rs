//! Watched descriptors.
//!
//! A descriptor is watched either for Python's `add_reader`/`add_writer` or for a native transport. Polling is
//! level-triggered: what is not consumed is reported again. An event that was announced, but whose watch has gone by
//! the time it is run, is dropped: its token no longer resolves.

use std::ffi::c_int;
use std::os::fd::RawFd;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool};
use weft_reactor::{Event, Interest as PollInterest, Poller};

use super::{EVENT_LOOP, EventLoop, Ready};
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
    /// Handles made by `add_reader` and `add_writer`.
    Callbacks {
        reader: Option<Reference>,
        writer: Option<Reference>,
    },
    /// A native transport; it is told through `notice`.
    Native {
        object: Reference,
        notice: Notice,
        interest: Interest,
    },
}

impl Watch {
    pub(super) fn traverse(&self, visit: Visit) -> c_int {
        match self {
            Self::Callbacks { reader, writer } => {
                for handle in [reader, writer].into_iter().flatten() {
                    let answer = super::visit_handle(handle, visit);
                    if answer != 0 {
                        return answer;
                    }
                }
                0
            }
            Self::Native { object, .. } => visit.object(object),
        }
    }

    /// Drops what the handles refer to, when the loop is closed.
    pub(super) fn empty(&self, py: Python<'_>) {
        if let Self::Callbacks { reader, writer } = self {
            for handle in [reader, writer].into_iter().flatten() {
                if let Some(state) = HANDLE.get(handle.bind(py)) {
                    state.empty();
                }
            }
        }
    }

    fn interest(&self) -> Interest {
        match self {
            Self::Callbacks { reader, writer } => Interest {
                readable: reader.is_some(),
                writable: writer.is_some(),
            },
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
            Some(Watch::Callbacks { reader, writer }) => {
                if event.readable
                    && let Some(reader) = reader
                {
                    self.ready
                        .push(Ready::Handle(reader.bind(py).clone().into()));
                }
                if event.writable
                    && let Some(writer) = writer
                {
                    self.ready
                        .push(Ready::Handle(writer.bind(py).clone().into()));
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

    /// Adds or replaces the handle of one direction, and returns the old one.
    fn add_handle(
        &self,
        fd: RawFd,
        handle: Reference,
        reading: bool,
    ) -> PyResult<Option<Reference>> {
        let mut watches = self.watches.borrow_mut();
        if let Some(token) = watches.by_fd(fd)
            && let Some(Watch::Callbacks { reader, writer }) = watches.get_mut(token)
        {
            let place = if reading { &mut *reader } else { &mut *writer };
            let old = place.replace(handle);
            if old.is_none() {
                let interest = PollInterest {
                    readable: reader.is_some(),
                    writable: writer.is_some(),
                };
                let changed = self.with_poller(|poller| poller.modify(fd, token, interest));
                if let Err(error) = changed {
                    let failed = if reading {
                        reader.take()
                    } else {
                        writer.take()
                    };
                    drop(watches);
                    drop(failed);
                    return Err(error);
                }
            }
            return Ok(old);
        }
        if watches.by_fd(fd).is_some() {
            return Err(PyRuntimeError::new_err(format!(
                "File descriptor {fd} is used by a transport"
            )));
        }
        let watch = if reading {
            Watch::Callbacks {
                reader: Some(handle),
                writer: None,
            }
        } else {
            Watch::Callbacks {
                reader: None,
                writer: Some(handle),
            }
        };
        let interest = watch.interest();
        let token = watches.insert(fd, watch);
        if let Err(error) = self.with_poller(|poller| poller.add(fd, token, interest)) {
            let failed = watches.remove(token);
            drop(watches);
            drop(failed);
            return Err(error);
        }
        Ok(None)
    }

    /// Takes the handle of one direction out.
    fn remove_handle(&self, fd: RawFd, reading: bool) -> Option<Reference> {
        let mut watches = self.watches.borrow_mut();
        let token = watches.by_fd(fd)?;
        let Some(Watch::Callbacks { reader, writer }) = watches.get_mut(token) else {
            return None;
        };
        let old = if reading {
            reader.take()
        } else {
            writer.take()
        }?;
        let interest = Interest {
            readable: reader.is_some(),
            writable: writer.is_some(),
        };
        // A descriptor that was closed behind our back has left the poller already.
        if interest.readable || interest.writable {
            let _ = self.with_poller(|poller| poller.modify(fd, token, interest));
        } else {
            watches.remove(token);
            let _ = self.with_poller(|poller| poller.remove(fd));
        }
        Some(old)
    }
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
    args.no_keywords(method)?;
    let file = args.required(method, 0, "fd")?;
    let fd = descriptor(&file)?;
    let callback = args.required(method, 1, "callback")?;
    if fd < 0 {
        return Err(invalid_descriptor(fd));
    }
    let handle = handles::make(event_loop, state.debug.get(), callback, args, 2, None, None)?;
    HANDLE.of(&handle).set_repeats();
    let old = state.add_handle(fd, handle.clone().into(), reading)?;
    cancel(event_loop.py(), old)?;
    Ok(handle)
}

fn invalid_descriptor(fd: RawFd) -> PyErr {
    PyValueError::new_err(format!("Invalid file descriptor: {fd}"))
}

fn cancel(py: Python<'_>, handle: Option<Reference>) -> PyResult<()> {
    match handle {
        Some(handle) => handle
            .into_bound(py)
            .call_method0(intern!(py, "cancel"))
            .map(drop),
        None => Ok(()),
    }
}

fn remove<'py>(
    event_loop: &Bound<'py, PyAny>,
    fd: &Bound<'py, PyAny>,
    reading: bool,
) -> Returned<'py> {
    let py = event_loop.py();
    let state = EVENT_LOOP.of(event_loop);
    let fd = descriptor(fd)?;
    if fd < 0 {
        return Err(invalid_descriptor(fd));
    }
    let removed = if state.closed.get() {
        None
    } else {
        state.remove_handle(fd, reading)
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
