//! The socket of a transport, and what is known of it.
//!
//! A connection that native code has accepted is a descriptor, and stays one until somebody asks for its Python socket,
//! which few programs do. Likewise its addresses are kept as the kernel gave them until they are asked for.
//!
//! The socket is open exactly while `bare` is set or `python` holds something, and never are both. Whichever it is owns
//! the descriptor.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString};
use weft_reactor::socket::{self, Sender};

use crate::ffi::call::{call1, method0};
use crate::ffi::method::Returned;
use crate::ffi::socket::{Endpoint, SocketMemory};
use crate::ffi::{Slot, Visit};
use crate::imports::imports;
use crate::transports::addresses::python_address;

/// Where a transport gets its socket from.
#[derive(Debug)]
pub enum Source<'a, 'py> {
    /// From Python, with a dictionary of what is known of the connection, or `None`.
    Python {
        /// The socket.
        sock: Bound<'py, PyAny>,
        /// What the caller knows.
        extra: &'a Bound<'py, PyAny>,
    },
    /// From Python, where native code has connected it to `peer`.
    Connected {
        /// A `socket.socket`, non-blocking.
        sock: Bound<'py, PyAny>,
        /// Whom it is connected to.
        peer: Sender,
    },
    /// From a listening socket.
    Accepted {
        /// The connection.
        descriptor: OwnedFd,
        /// What the listening socket is; its connections are the same.
        listener: Endpoint,
        /// Who has connected.
        peer: Sender,
    },
}

/// What Python has not been told of a connection.
#[derive(Debug)]
struct Untold {
    /// Set while the socket is bare.
    descriptor: Option<OwnedFd>,
    family: c_int,
    kind: c_int,
    protocol: c_int,
    peer: Sender,
    /// Read when it is asked for, and at the latest when the socket is closed.
    local: Option<Sender>,
}

impl Untold {
    fn of(descriptor: Option<OwnedFd>, kind: Endpoint, peer: Sender) -> Self {
        Self {
            descriptor,
            family: kind.family,
            kind: kind.kind,
            protocol: kind.protocol,
            peer,
            local: None,
        }
    }
}

/// The socket that a transport owns.
#[derive(Debug, Default)]
pub(super) struct OwnedSocket {
    python: Slot,
    /// Where the Python socket keeps its descriptor.
    memory: Cell<Option<SocketMemory>>,
    /// Whether the descriptor is nobody's but ours.
    bare: Cell<bool>,
    /// The descriptor's number in the beginning: its place in the watch table.
    number: Cell<RawFd>,
    /// What `get_extra_info()` knows, a dictionary. As long as there is something in `untold`, that may be missing.
    details: Slot,
    untold: RefCell<Option<Box<Untold>>>,
}

impl OwnedSocket {
    /// Takes over an open Python socket, of which everything in `details` is known.
    pub fn adopt(&self, sock: Bound<'_, PyAny>, memory: SocketMemory, number: RawFd) {
        self.number.set(number);
        self.memory.set(Some(memory));
        self.python.set(sock);
    }

    /// Remembers all that there is to know, a dictionary.
    pub fn set_details(&self, details: Bound<'_, PyAny>) {
        let untold = self.untold.take();
        self.details.set(details);
        drop(untold);
    }

    /// Remembers whom a Python socket is connected to.
    pub fn set_peer(&self, sock: Endpoint, peer: Sender) {
        *self.untold.borrow_mut() = Some(Box::new(Untold::of(None, sock, peer)));
    }

    /// Takes over an accepted connection.
    pub fn adopt_accepted(&self, descriptor: OwnedFd, listener: Endpoint, peer: Sender) {
        self.number.set(descriptor.as_raw_fd());
        let untold = Untold::of(Some(descriptor), listener, peer);
        *self.untold.borrow_mut() = Some(Box::new(untold));
        self.bare.set(true);
    }

    pub fn slots(&self) -> [&Slot; 2] {
        [&self.python, &self.details]
    }

    pub fn traverse(&self, visit: Visit) -> c_int {
        visit.slots(self.slots())
    }

    /// The descriptor's number when the transport was made.
    #[inline]
    pub fn number(&self) -> RawFd {
        self.number.get()
    }

    pub fn is_open(&self) -> bool {
        self.bare.get() || self.python.is_set()
    }

    /// The descriptor to use now: -1, which every system call refuses, once somebody has closed the socket behind our
    /// back. Its number may be a stranger's by then.
    #[inline]
    pub fn descriptor(&self) -> RawFd {
        if self.bare.get() {
            return self.number.get();
        }
        self.memory.get().map_or(-1, |memory| {
            memory.descriptor(&self.python, self.number.get())
        })
    }

    /// The Python socket, which is made if need be; `None` once it has been closed.
    ///
    /// # Errors
    /// What making it raises.
    pub fn python<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.bare.get() {
            return Ok(self.python.get(py));
        }
        // Audit hooks hear of it, and may close the transport or ask for its socket meanwhile.
        let made = match self.make_python(py, self.number.get()) {
            Err(_) if !self.bare.get() => return Ok(self.python.get(py)),
            outcome => outcome?,
        };
        let memory = SocketMemory::of(&made);
        if memory.is_err() || !self.bare.get() {
            detach(&made)?;
            return memory.map(|_| self.python.get(py));
        }
        self.bare.set(false);
        self.memory.set(memory.ok());
        self.python.set(made.clone());
        if let Some(untold) = &mut *self.untold.borrow_mut()
            && let Some(descriptor) = untold.descriptor.take()
        {
            let _ = descriptor.into_raw_fd();
        }
        Ok(Some(made))
    }

    fn make_python<'py>(&self, py: Python<'py>, number: RawFd) -> Returned<'py> {
        let (family, kind, protocol) = self.description();
        let class = imports(py).socket.bind(py);
        let made = class.call_method1(intern!(py, "__new__"), (class,))?;
        // So marked, Python knows that the socket is non-blocking, and need not make it so.
        let arguments = (family, kind | libc::SOCK_NONBLOCK, protocol, number);
        if let Err(error) = made.call_method1(intern!(py, "__init__"), arguments) {
            // It may have the descriptor already: signal handlers raise wherever Python code runs.
            detach(&made)?;
            return Err(error);
        }
        Ok(made)
    }

    /// A closed socket, for who asks for that of a connection that is over.
    #[cold]
    fn make_closed<'py>(&self, py: Python<'py>) -> Returned<'py> {
        let made = imports(py).socket.bind(py).call1(self.description())?;
        method0(&made, intern!(py, "close"))?;
        Ok(made)
    }

    fn description(&self) -> (c_int, c_int, c_int) {
        self.untold
            .borrow()
            .as_ref()
            .map_or_else(Default::default, |untold| {
                (untold.family, untold.kind, untold.protocol)
            })
    }

    /// One of the details; `None` for what is not known.
    ///
    /// # Errors
    /// `TypeError` for a name that is not hashable, and what the Python socket raises, but for `OSError`.
    pub fn detail<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let details = self.some_details(py)?;
        if let Some(found) = details.get_item(name)? {
            return Ok(Some(found));
        }
        if self.untold.borrow().is_none() {
            return Ok(None);
        }
        let value = if name.eq(intern!(py, "peername"))? {
            self.peer(py)?
        } else if name.eq(intern!(py, "sockname"))? {
            self.local(py)?
        } else if name.eq(intern!(py, "socket"))? {
            let sock = match self.python(py)? {
                Some(sock) => sock,
                None => self.make_closed(py)?,
            };
            call1(imports(py).transport_socket.bind(py), &sock)?
        } else {
            return Ok(None);
        };
        details.set_item(name, &value)?;
        Ok(Some(value))
    }

    /// All of the details, a dictionary; `None` where there is none.
    ///
    /// # Errors
    /// As for [`Self::detail`].
    pub fn details<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.untold.borrow().is_some() {
            for name in ["peername", "socket", "sockname"] {
                self.detail(py, PyString::intern(py, name).as_any())?;
            }
            // A descriptor in there has moved into the Python socket, if it was not closed.
            let untold = self.untold.take();
            drop(untold);
        }
        Ok(self.details.get(py))
    }

    fn some_details<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        if let Some(details) = self.details.get(py) {
            return Ok(details.cast_into::<PyDict>()?);
        }
        let details = PyDict::new(py);
        if self.untold.borrow().is_some() {
            self.details.set(details.clone().into_any());
        }
        Ok(details)
    }

    fn peer<'py>(&self, py: Python<'py>) -> Returned<'py> {
        let peer = self
            .untold
            .borrow()
            .as_ref()
            .map(|known| known.peer.clone());
        address(py, peer)
    }

    fn local<'py>(&self, py: Python<'py>) -> Returned<'py> {
        self.read_local_name();
        let local = self
            .untold
            .borrow()
            .as_ref()
            .and_then(|known| known.local.clone());
        address(py, local)
    }

    /// Keeps the local address, for those who ask when the socket is closed.
    fn read_local_name(&self) {
        if let Some(untold) = &mut *self.untold.borrow_mut()
            && untold.local.is_none()
        {
            untold.local = socket::local_name(self.descriptor()).ok();
        }
    }

    /// Forgets everything that is known.
    pub fn forget_details(&self) {
        self.details.clear();
    }

    /// Closes the socket, if it is open.
    ///
    /// # Errors
    /// What closing a Python socket raises. It is given up all the same.
    pub fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.read_local_name();
        if self.bare.replace(false) {
            let closed = self
                .untold
                .borrow_mut()
                .as_mut()
                .map(|untold| untold.descriptor.take());
            drop(closed);
            return Ok(());
        }
        self.memory.set(None);
        match self.python.take(py) {
            Some(sock) => method0(&sock, intern!(py, "close")).map(drop),
            None => Ok(()),
        }
    }

    pub fn clear(&self) {
        for slot in self.slots() {
            slot.clear();
        }
    }
}

/// Takes the descriptor out of a Python socket: by the native method, in which no signal handler can raise.
#[cold]
fn detach(made: &Bound<'_, PyAny>) -> PyResult<()> {
    let native = made.py().import("_socket")?.getattr("socket")?;
    native.call_method1("detach", (made,)).map(drop)
}

fn address(py: Python<'_>, name: Option<Sender>) -> Returned<'_> {
    match name {
        Some(name) => python_address(py, &name),
        None => Ok(py.None().into_bound(py)),
    }
}
