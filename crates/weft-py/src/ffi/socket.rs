//! The descriptor inside a Python socket.

use std::os::fd::RawFd;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyType};

use super::Slot;

/// The head of `CPython`'s `_socket.socket` objects, which has been the same since Python 2.
#[repr(C)]
struct SocketObject {
    head: ffi::PyObject,
    /// -1 once the socket is closed or detached.
    descriptor: std::ffi::c_int,
}

/// Where an open socket has its descriptor.
#[derive(Clone, Copy, Debug)]
pub enum SocketMemory {
    /// Where `SocketObject` says: proven for a `socket.socket`.
    Known,
    /// Unknown: the object only looks like a socket. Its number is taken to stay what it was.
    Opaque,
}

impl SocketMemory {
    /// Compares the memory of an open socket with its `fileno()`.
    ///
    /// # Errors
    /// What `fileno()` raises.
    pub fn of(socket: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = socket.py();
        let class = py
            .import("_socket")?
            .getattr("socket")?
            .cast_into::<PyType>()?;
        let descriptor: RawFd = socket.call_method0("fileno")?.extract()?;
        // By its type: mocks say of themselves that they are sockets.
        if !socket.get_type().is_subclass(&class)? {
            return Ok(Self::Opaque);
        }
        // SAFETY: an instance of `_socket.socket`, which is larger than the structure.
        let kept = unsafe { (*socket.as_ptr().cast::<SocketObject>()).descriptor };
        Ok(if kept == descriptor {
            Self::Known
        } else {
            Self::Opaque
        })
    }

    /// The descriptor of the socket in `slot`, -1 where it is closed or the slot is empty; `number` is what it was when
    /// the socket was looked at first.
    #[inline]
    pub fn descriptor(self, slot: &Slot, number: RawFd) -> RawFd {
        let socket = slot.as_ptr();
        if socket.is_null() {
            return -1;
        }
        match self {
            // SAFETY: the slot holds the socket that this proof was made for; both are set and cleared together.
            Self::Known => unsafe { (*socket.cast::<SocketObject>()).descriptor },
            Self::Opaque => number,
        }
    }
}
