//! `sock_connect()`.
//!
//! To numeric addresses of IPv4 and IPv6. Names have to be resolved first, which is left to asyncio's coroutine, as are
//! the addresses of other families. The Python socket makes the system call: programs may audit it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyInt, PyString, PyTuple};
use weft_reactor::socket;

use super::{Attempt, Call};
use crate::errors::os_error;
use crate::ffi::call::method1;
use crate::ffi::method::Returned;
use crate::ffi::socket::endpoint;

/// Whether `address` is an exact tuple of a numeric address and a port, in a length that the socket's family takes.
fn is_numeric(socket: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> bool {
    let numeric = || -> Option<bool> {
        let parts = address.cast_exact::<PyTuple>().ok()?;
        let host = parts.get_borrowed_item(0).ok()?;
        let host = host.cast_exact::<PyString>().ok()?;
        let host = host.to_str().ok()?;
        let port = parts.get_borrowed_item(1).ok()?;
        // Another number is refused, in Python's words.
        let _: u16 = port.cast_exact::<PyInt>().ok()?.extract().ok()?;
        Some(match (endpoint(socket)?.family, parts.len()) {
            (libc::AF_INET, 2) => host.parse::<Ipv4Addr>().is_ok(),
            (libc::AF_INET6, 2..=4) => host.parse::<Ipv6Addr>().is_ok(),
            _ => false,
        })
    };
    numeric().unwrap_or(false)
}

/// The first attempt: begins to connect.
pub(super) fn connect<'py>(call: &Call, py: Python<'py>, _: RawFd) -> PyResult<Attempt<'py>> {
    let (socket, address) = (call.socket.get_or_none(py), call.first.get_or_none(py));
    if !is_numeric(&socket, &address) {
        return Ok(Attempt::Inherited);
    }
    Ok(if begin(&socket, &address)? {
        Attempt::Done(py.None().into_bound(py))
    } else {
        Attempt::NotNow
    })
}

/// The socket is writable: it is connected, or the error that it keeps says why it is not.
pub(super) fn connect_again<'py>(
    call: &Call,
    py: Python<'py>,
    fd: RawFd,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    finish(py, fd, &call.first.get_or_none(py))?;
    Ok(Some(py.None().into_bound(py)))
}

/// Begins to connect a non-blocking socket to a numeric address; true if it is connected at once.
///
/// # Errors
/// `OSError`.
pub fn begin(socket: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> PyResult<bool> {
    let number = method1(socket, intern!(socket.py(), "connect_ex"), address)?;
    match number.extract::<i32>()? {
        0 => Ok(true),
        libc::EINPROGRESS | libc::EAGAIN | libc::EALREADY | libc::EINTR => Ok(false),
        number => Err(os_error(std::io::Error::from_raw_os_error(number))),
    }
}

/// How connecting to a numeric address has ended, once the socket is writable.
///
/// # Errors
/// `OSError` for a connection that has failed.
pub fn finish(py: Python<'_>, fd: RawFd, address: &Bound<'_, PyAny>) -> PyResult<()> {
    let Some(error) = socket::take_error(fd).map_err(os_error)? else {
        return Ok(());
    };
    let text = format!("Connect call failed {}", resolved(address)?.repr()?);
    let number = error.raw_os_error().unwrap_or(0);
    Err(PyErr::from_value(
        py.get_type::<PyOSError>().call1((number, text))?,
    ))
}

/// The address as name resolution would have returned it: one of IPv6 has all of its four parts.
fn resolved<'py>(address: &Bound<'py, PyAny>) -> Returned<'py> {
    let parts = address.cast::<PyTuple>()?;
    let is_v6 = parts
        .get_item(0)?
        .cast::<PyString>()?
        .to_str()?
        .contains(':');
    if !is_v6 {
        return Ok(address.clone());
    }
    let part = |index: usize| match parts.get_item(index) {
        Ok(part) => part,
        Err(_) => PyInt::new(address.py(), 0).into_any(),
    };
    Ok((part(0), part(1), part(2), part(3))
        .into_pyobject(address.py())?
        .into_any())
}
