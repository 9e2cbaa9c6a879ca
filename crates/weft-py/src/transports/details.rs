//! What a transport tells about itself: `get_extra_info()` and `repr()`.

use std::os::fd::RawFd;

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};

use crate::event_loop::EVENT_LOOP;
use crate::ffi::Slot;
use crate::ffi::method::Returned;

/// The dictionary behind `get_extra_info()`: that of the caller, with the socket and its two names.
///
/// # Errors
/// What the socket raises, but for `OSError`.
pub fn of_socket<'py>(
    sock: &Bound<'py, PyAny>,
    extra: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = sock.py();
    let details = if extra.is_none() {
        PyDict::new(py)
    } else {
        extra.cast::<PyDict>()?.copy()?
    };
    let transport_socket = py
        .import(intern!(py, "asyncio.trsock"))?
        .getattr(intern!(py, "TransportSocket"))?;
    details.set_item("socket", transport_socket.call1((sock,))?)?;
    for (key, method) in [("sockname", "getsockname"), ("peername", "getpeername")] {
        if key == "sockname" || !details.contains(key)? {
            match sock.call_method0(method) {
                Ok(name) => details.set_item(key, name)?,
                Err(error) if error.is_instance_of::<PyOSError>(py) => {
                    details.set_item(key, py.None())?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(details)
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
