//! Which transport owns a descriptor.
//!
//! asyncio refuses `add_reader()` and its like for a descriptor that a transport uses, and finds it by a weak reference.
//! So does this. A reference stays here until its transport has closed the descriptor, or the next owner takes its place.

use std::os::fd::RawFd;

use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyInt, PyWeakrefMethods, PyWeakrefReference};

use super::{EVENT_LOOP, EventLoop};
use crate::ffi::call::method0;
use crate::ffi::method::{Args, Returned};
use crate::method;

impl EventLoop {
    /// Remembers that `transport` owns `fd`.
    ///
    /// # Errors
    /// `MemoryError`; `TypeError` for what cannot be referred to weakly.
    pub fn set_owner(&self, fd: RawFd, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let reference = PyWeakrefReference::new(transport)?.into_any();
        let old = self.owners.borrow_mut().insert(fd, reference.into());
        drop(old);
        Ok(())
    }

    /// Forgets that `transport` owns `fd`; without effect if it does not.
    pub fn forget_owner(&self, fd: RawFd, transport: &Bound<'_, PyAny>) {
        let py = transport.py();
        if self.owner(py, fd).is_some_and(|owner| owner.is(transport)) {
            let old = self.owners.borrow_mut().remove(&fd);
            drop(old);
        }
    }

    fn owner<'py>(&self, py: Python<'py>, fd: RawFd) -> Option<Bound<'py, PyAny>> {
        let owners = self.owners.borrow();
        let reference = owners.get(&fd)?.bind(py);
        reference.cast::<PyWeakrefReference>().ok()?.upgrade()
    }
}

/// The number of a descriptor as `_ensure_fd_no_transport()` finds it; `None` for one that there cannot be.
fn number(file: &Bound<'_, PyAny>) -> PyResult<Option<RawFd>> {
    if file.is_instance_of::<PyInt>() {
        return Ok(file.extract().ok());
    }
    let py = file.py();
    let number = method0(file, intern!(py, "fileno"))
        .and_then(|number| py.get_type::<PyInt>().call1((number,)));
    match number {
        Ok(number) => Ok(number.extract().ok()),
        Err(error)
            if error.is_instance_of::<PyAttributeError>(py)
                || error.is_instance_of::<PyTypeError>(py)
                || error.is_instance_of::<PyValueError>(py) =>
        {
            let text = format!("Invalid file object: {}", file.repr()?);
            Err(PyValueError::new_err(text))
        }
        Err(error) => Err(error),
    }
}

/// `_ensure_fd_no_transport(fd)`.
fn ensure_no_owner<'py>(event_loop: &Bound<'py, PyAny>, file: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = event_loop.py();
    let owner = match number(file)? {
        Some(fd) => EVENT_LOOP.of(event_loop).owner(py, fd),
        None => None,
    };
    if let Some(owner) = owner
        && !method0(&owner, intern!(py, "is_closing"))?.is_truthy()?
    {
        let (file, owner) = (file.repr()?, owner.repr()?);
        let text = format!("File descriptor {file} is used by transport {owner}");
        return Err(PyRuntimeError::new_err(text));
    }
    Ok(py.None().into_bound(py))
}

/// `_owners()`: the transports by their descriptors.
fn owners<'py>(event_loop: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = event_loop.py();
    let state = EVENT_LOOP.of(event_loop);
    let descriptors: Vec<RawFd> = state.owners.borrow().keys().copied().collect();
    let found = PyDict::new(py);
    for fd in descriptors {
        if let Some(owner) = state.owner(py, fd) {
            found.set_item(fd, owner)?;
        }
    }
    Ok(found.into_any())
}

/// `_set_owner(fd, transport)`; `None` for no transport.
fn set_owner<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = event_loop.py();
    let state = EVENT_LOOP.of(event_loop);
    let fd: RawFd = args.required("_set_owner", 0, "fd")?.extract()?;
    let transport = args.required("_set_owner", 1, "transport")?;
    if transport.is_none() {
        let old = state.owners.borrow_mut().remove(&fd);
        drop(old);
    } else {
        state.set_owner(fd, &transport)?;
    }
    Ok(py.None().into_bound(py))
}

pub(super) fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(one "_ensure_fd_no_transport" => ensure_no_owner, "Raise RuntimeError if a transport uses a descriptor."),
        method!(fast "_set_owner" => set_owner, "Name the transport that uses a descriptor, or None."),
        method!(none "_owners" => owners, "Return the open transports by their descriptors."),
    ]
}
