//! What a transport tells about itself: `get_extra_info()` and `repr()`.

use std::io;
use std::os::fd::RawFd;

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString};

use weft_reactor::socket::{self, Sender};

use super::addresses::python_address;
use crate::event_loop::EVENT_LOOP;
use crate::ffi::Slot;
use crate::ffi::call::{call1, method0};
use crate::ffi::method::Returned;
use crate::ffi::socket::endpoint;
use crate::imports::imports;

/// The dictionary behind `get_extra_info()`: that of the caller, with the socket and its two names.
///
/// # Errors
/// What the socket raises, but for `OSError`.
pub fn of_socket<'py>(
    sock: &Bound<'py, PyAny>,
    extra: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = sock.py();
    let details = match extra {
        Some(extra) if !extra.is_none() => extra.cast::<PyDict>()?.copy()?,
        _ => PyDict::new(py),
    };
    let shown = call1(imports(py).transport_socket.bind(py), sock)?;
    details.set_item(intern!(py, "socket"), shown)?;
    let peername = intern!(py, "peername");
    let local = match plain_descriptor(sock) {
        Some(fd) => native_name(py, socket::local_name(fd))?,
        None => name(sock, intern!(py, "getsockname"))?,
    };
    details.set_item(intern!(py, "sockname"), local)?;
    if !details.contains(peername)? {
        let peer = match plain_descriptor(sock) {
            Some(fd) => native_name(py, socket::peer_name(fd))?,
            None => name(sock, intern!(py, "getpeername"))?,
        };
        details.set_item(peername, peer)?;
    }
    Ok(details)
}

/// The descriptor of an open `socket.socket` whose names native code can read.
pub fn plain_descriptor(sock: &Bound<'_, PyAny>) -> Option<RawFd> {
    let known = endpoint(sock)?;
    let readable = matches!(known.family, libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX);
    (readable && known.descriptor >= 0).then_some(known.descriptor)
}

fn native_name(py: Python<'_>, name: io::Result<Sender>) -> Returned<'_> {
    match name {
        Ok(name) => python_address(py, &name),
        Err(_) => Ok(py.None().into_bound(py)),
    }
}

/// What a method of the socket says is its name, `None` where it has none.
fn name<'py>(sock: &Bound<'py, PyAny>, method: &Bound<'py, PyString>) -> Returned<'py> {
    let py = sock.py();
    match method0(sock, method) {
        Err(error) if error.is_instance_of::<PyOSError>(py) => Ok(py.None().into_bound(py)),
        outcome => outcome,
    }
}

/// What `repr()` shows of a transport.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four questions")]
pub struct Shown {
    /// Whether it still has its socket.
    pub open: bool,
    /// Whether somebody has begun to close it.
    pub closing: bool,
    /// The number of its descriptor.
    pub fd: RawFd,
    /// Whether it waits for something to read.
    pub reading: bool,
    /// Whether it waits for room to write.
    pub writing: bool,
    /// How many bytes are unsent.
    pub unsent: usize,
}

/// `<StreamTransport fd=7 read=polling write=<idle, bufsize=0>>`, in asyncio's words.
///
/// # Errors
/// What Python raises while it makes a string.
pub fn representation<'py>(
    object: &Bound<'py, PyAny>,
    event_loop: &Slot,
    shown: &Shown,
) -> Returned<'py> {
    let py = object.py();
    let class = object.get_type().name()?;
    let life = if !shown.open {
        " closed"
    } else if shown.closing {
        " closing"
    } else {
        ""
    };
    let word = |polls: bool| if polls { "polling" } else { "idle" };
    let traffic = match event_loop.get(py) {
        Some(event_loop) if !EVENT_LOOP.of(&event_loop).is_closed() => format!(
            " read={} write=<{}, bufsize={}>",
            word(shown.reading),
            word(shown.writing),
            shown.unsent,
        ),
        _ => String::new(),
    };
    let text = format!("<{class}{life} fd={}{traffic}>", shown.fd);
    Ok(text.into_pyobject(py)?.into_any())
}
