//! What is inside a Python socket.

use std::os::fd::RawFd;
use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyType};

use super::object::{is_exactly, version_of};
use super::state::GilCell;
use super::{Reference, Slot};
use crate::imports::imports;

/// The head of `CPython`'s `_socket.socket` objects, which has been the same since Python 2.
#[repr(C)]
struct SocketObject {
    head: ffi::PyObject,
    /// -1 once the socket is closed or detached.
    descriptor: std::ffi::c_int,
    family: std::ffi::c_int,
    kind: std::ffi::c_int,
    protocol: std::ffi::c_int,
    error_handler: *const std::ffi::c_void,
    /// In nanoseconds; 0 is non-blocking, anything below is none.
    timeout: i64,
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
        if endpoint(socket).is_some() {
            return Ok(Self::Known);
        }
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

/// `socket.socket`, if its memory is what `SocketObject` says.
static PLAIN: OnceLock<Option<Plain>> = OnceLock::new();

#[derive(Debug)]
struct Plain {
    class: Reference,
    native: Reference,
    /// The version of the class at which its methods were those of `_socket.socket`.
    version: GilCell<u32>,
}

// SAFETY: only touched with the GIL held, and never dropped.
unsafe impl Send for Plain {}
// SAFETY: as above.
unsafe impl Sync for Plain {}

/// What is known of a socket without asking it.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// -1 once it is closed.
    pub descriptor: RawFd,
    /// `AF_INET` and the like.
    pub family: std::ffi::c_int,
    /// `SOCK_STREAM` and the like.
    pub kind: std::ffi::c_int,
    /// `IPPROTO_TCP` and the like.
    pub protocol: std::ffi::c_int,
}

fn proven(py: Python<'_>) -> Option<&'static Plain> {
    match PLAIN.get() {
        Some(plain) => plain.as_ref(),
        // What cannot be proven (because no socket can be made, for one) is not relied on.
        None => PLAIN
            .get_or_init(|| Plain::prove(py).unwrap_or_default())
            .as_ref(),
    }
}

/// What a `socket.socket`, and no instance of a subclass, is.
pub fn endpoint(socket: &Bound<'_, PyAny>) -> Option<Endpoint> {
    let plain = proven(socket.py())?;
    if !is_exactly(socket, plain.class.as_ptr().cast()) {
        return None;
    }
    // SAFETY: an instance of the class that was proven.
    let memory = unsafe { &*socket.as_ptr().cast::<SocketObject>() };
    Some(Endpoint {
        descriptor: memory.descriptor,
        family: memory.family,
        kind: memory.kind,
        protocol: memory.protocol,
    })
}

/// The methods that native code does the work of.
const METHODS: [&str; 8] = [
    "recv",
    "recv_into",
    "send",
    "fileno",
    "gettimeout",
    "connect",
    "connect_ex",
    "getsockopt",
];

impl Plain {
    /// Makes a socket and compares its memory with what it says.
    fn prove(py: Python<'_>) -> PyResult<Option<Self>> {
        let class = py.import("socket")?.getattr("socket")?;
        let native = py.import("_socket")?.getattr("socket")?;
        let size: usize = native.getattr("__basicsize__")?.extract()?;
        if size < size_of::<SocketObject>()
            || !class
                .cast::<PyType>()?
                .is_subclass(native.cast::<PyType>()?)?
        {
            return Ok(None);
        }
        let socket = native.call1((libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP))?;
        let memory = socket.as_ptr().cast::<SocketObject>();
        let mut holds = true;
        for timeout in [None, Some(2.5), Some(0.0)] {
            socket.call_method1("settimeout", (timeout,))?;
            let nanoseconds = match timeout {
                Some(0.0) => 0,
                Some(_) => 2_500_000_000,
                None => -1,
            };
            // SAFETY: an instance that is at least as large as the structure; any memory can be read as integers.
            let (descriptor, family, kind, protocol, timeout) = unsafe {
                let memory = &*memory;
                (
                    memory.descriptor,
                    memory.family,
                    memory.kind,
                    memory.protocol,
                    memory.timeout,
                )
            };
            holds &= descriptor == socket.call_method0("fileno")?.extract::<RawFd>()?
                && family == socket.getattr("family")?.extract::<i32>()?
                && kind == socket.getattr("type")?.extract::<i32>()?
                && protocol == socket.getattr("proto")?.extract::<i32>()?
                && (timeout == nanoseconds || (timeout < 0 && nanoseconds < 0));
        }
        socket.call_method0("close")?;
        Ok(holds.then(|| Self {
            class: class.into(),
            native: native.into(),
            version: GilCell::new(0),
        }))
    }

    /// Whether the methods are the native ones, and nobody's replacements.
    #[inline]
    fn has_native_methods(&self, py: Python<'_>) -> PyResult<bool> {
        let class = self.class.bind(py);
        let version = version_of(class);
        if version != 0 && self.version.with(py, |known| *known == version) {
            return Ok(true);
        }
        self.find_native_methods(py)
    }

    #[cold]
    fn find_native_methods(&self, py: Python<'_>) -> PyResult<bool> {
        let class = self.class.bind(py);
        for name in METHODS {
            let used = class.getattr(name)?;
            if !used.is(&self.native.bind(py).getattr(name)?) {
                return Ok(false);
            }
        }
        if !class.getattr("accept")?.is(&imports(py).socket_accept) {
            return Ok(false);
        }
        // The look-ups have made Python number the class, if it can.
        let version = version_of(class);
        self.version.with(py, |known| *known = version);
        Ok(true)
    }
}

/// Whether `class` is `socket.socket`, and nobody has replaced a method that native code does the work of.
///
/// # Errors
/// What looking attributes up raises.
pub fn is_native_class(class: &Bound<'_, PyAny>) -> PyResult<bool> {
    match proven(class.py()) {
        Some(plain) if plain.class.as_ptr() == class.as_ptr() => {
            plain.has_native_methods(class.py())
        }
        _ => Ok(false),
    }
}

/// The descriptor of a `socket.socket` that is non-blocking, -1 where it is closed.
///
/// `None` where `socket` is anything else: an instance of a subclass, a socket that blocks or has a timeout, one of a
/// program that has replaced methods of `socket.socket`. Those are for Python code to handle.
///
/// # Errors
/// What looking attributes up raises.
#[inline]
pub fn nonblocking_descriptor(socket: &Bound<'_, PyAny>) -> PyResult<Option<RawFd>> {
    let py = socket.py();
    let Some(plain) = proven(py) else {
        return Ok(None);
    };
    if !is_exactly(socket, plain.class.as_ptr().cast()) {
        return Ok(None);
    }
    if !plain.has_native_methods(py)? {
        return Ok(None);
    }
    // SAFETY: an instance of the class that was proven.
    let (descriptor, timeout) = unsafe {
        let memory = socket.as_ptr().cast::<SocketObject>();
        ((*memory).descriptor, (*memory).timeout)
    };
    Ok((timeout == 0).then_some(descriptor))
}

/// The descriptor that a socket has now, -1 where it is closed: of one that [`nonblocking_descriptor`] has known.
#[inline]
pub fn descriptor_now(socket: &Bound<'_, PyAny>) -> RawFd {
    match PLAIN.get() {
        Some(Some(plain)) if is_exactly(socket, plain.class.as_ptr().cast()) => {
            // SAFETY: an instance of the class that was proven.
            unsafe { (*socket.as_ptr().cast::<SocketObject>()).descriptor }
        }
        _ => -1,
    }
}
