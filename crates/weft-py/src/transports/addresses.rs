//! Addresses: Python's tuples and strings, and what system calls take and give.
//!
//! What is here is what occurs: numeric addresses of IPv4 and IPv6, and the names of Unix sockets. Everything else (names
//! to resolve, `""`, `"<broadcast>"`, scopes by name, other families, mistakes) is left to the Python socket.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyInt, PyString, PyTuple, PyType};
use weft_reactor::addresses;
use weft_reactor::socket::Sender;

use crate::ffi::Reference;
use crate::ffi::bytes;
use crate::ffi::method::Returned;

/// The families whose addresses are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
    /// The file system's and the abstract names of this machine.
    Unix,
}

impl Family {
    /// The family of a Python socket, where it is known here and nobody has replaced the socket's own calls.
    ///
    /// # Errors
    /// What looking at the socket raises.
    pub fn of(sock: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let native = sock
            .py()
            .import("_socket")?
            .getattr("socket")?
            .cast_into::<PyType>()?;
        if !sock.get_type().is_subclass(&native)? {
            return Ok(None);
        }
        for name in ["send", "sendto", "recvfrom"] {
            if !sock.get_type().getattr(name)?.is(&native.getattr(name)?) {
                return Ok(None);
            }
        }
        Ok(match sock.getattr("family")?.extract::<i32>()? {
            libc::AF_INET => Some(Self::Inet),
            libc::AF_INET6 => Some(Self::Inet6),
            libc::AF_UNIX => Some(Self::Unix),
            _ => None,
        })
    }

    /// What `address` means, where it is an exact tuple of a numeric address and a port, and whatever belongs to it.
    pub fn parse(self, address: &Bound<'_, PyAny>) -> Option<SocketAddr> {
        let parts = address.cast_exact::<PyTuple>().ok()?;
        let text = parts.get_borrowed_item(0).ok()?;
        let text = text.cast_exact::<PyString>().ok()?;
        let text = text.to_str().ok()?;
        let number = |index: usize| -> Option<u32> {
            let number = parts.get_borrowed_item(index).ok()?;
            number.cast_exact::<PyInt>().ok()?.extract().ok()
        };
        let port = u16::try_from(number(1)?).ok()?;
        match (self, parts.len()) {
            (Self::Inet, 2) => {
                let host: Ipv4Addr = text.parse().ok()?;
                Some(SocketAddrV4::new(host, port).into())
            }
            (Self::Inet6, count @ 2..=4) => {
                let host: Ipv6Addr = text.parse().ok()?;
                let flow = if count > 2 { number(2)? } else { 0 };
                let scope = if count > 3 { number(3)? } else { 0 };
                // More is refused, in Python's words.
                (flow <= 0xf_ffff).then(|| SocketAddrV6::new(host, port, flow, scope).into())
            }
            _ => None,
        }
    }
}

/// The address of a sender as Python has it.
///
/// # Errors
/// `MemoryError`; `RuntimeError` for a family that the socket cannot have.
pub fn python_address<'py>(py: Python<'py>, sender: &Sender) -> Returned<'py> {
    match sender {
        Sender::Unnamed => Ok(py.None().into_bound(py)),
        Sender::Inet(address) => python_inet(py, *address),
        // An abstract name is bytes with all that is in them. A path ends where C has it end.
        Sender::Unix(name) if name.first() == Some(&0) => Ok(bytes::copy(py, name)),
        Sender::Unix(name) => {
            let path = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Ok(OsStr::from_bytes(path).into_pyobject(py)?.into_any())
        }
        Sender::Other => Err(PyRuntimeError::new_err(
            "a datagram came from a socket of another family",
        )),
    }
}

fn python_inet(py: Python<'_>, address: SocketAddr) -> Returned<'_> {
    let host = addresses::text(address.ip());
    let tuple = match address {
        SocketAddr::V4(address) => (host, address.port()).into_pyobject(py)?,
        SocketAddr::V6(address) => {
            let (flow, scope) = (address.flowinfo(), address.scope_id());
            return Ok((host, address.port(), flow, scope)
                .into_pyobject(py)?
                .into_any());
        }
    };
    Ok(tuple.into_any())
}

/// How many senders are remembered at most.
const MOST_SENDERS: usize = 1024;

/// The addresses of late senders, so that those who send often get the same tuple again.
///
/// A table in which each address has one place. It starts small and doubles while addresses push each other out.
#[derive(Debug, Default)]
pub struct Senders {
    places: Vec<Option<(SocketAddr, Reference)>>,
    pushed_out: usize,
}

impl Senders {
    fn place(&self, address: &SocketAddr) -> usize {
        // Neighbours differ in their ports or in the last bits of their address.
        let host = match address.ip() {
            IpAddr::V4(host) => u64::from(host.to_bits()),
            IpAddr::V6(host) => {
                let bits = host.to_bits();
                #[expect(clippy::cast_possible_truncation, reason = "both halves are looked at")]
                let (low, high) = (bits as u64, (bits >> 64) as u64);
                low ^ high.rotate_left(32)
            }
        };
        let mixed =
            (host ^ u64::from(address.port()).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The length is a power of two; the best bits of a product are its high ones.
        usize::try_from(mixed >> 48).unwrap_or_default() & (self.places.len() - 1)
    }

    /// The tuple of this very address, if it is remembered.
    #[inline]
    pub fn find<'py>(&self, py: Python<'py>, address: &SocketAddr) -> Option<Bound<'py, PyAny>> {
        if self.places.is_empty() {
            return None;
        }
        match &self.places[self.place(address)] {
            Some((known, tuple)) if known == address => Some(tuple.bind(py).clone()),
            _ => None,
        }
    }

    /// Remembers an address. Returns what is forgotten for it, to be dropped after the borrow has ended.
    pub fn remember(&mut self, address: SocketAddr, tuple: Reference) -> Option<Reference> {
        if self.places.is_empty() {
            self.places.push(None);
        }
        if self.pushed_out >= self.places.len() && self.places.len() < MOST_SENDERS {
            self.grow();
        }
        let place = self.place(&address);
        let old = self.places[place].replace((address, tuple));
        self.pushed_out += usize::from(old.is_some());
        old.map(|(_, tuple)| tuple)
    }

    fn grow(&mut self) {
        let length = self.places.len() * 4;
        let old = std::mem::replace(&mut self.places, (0..length).map(|_| None).collect());
        self.pushed_out = 0;
        for (address, tuple) in old.into_iter().flatten() {
            let place = self.place(&address);
            // Addresses that were apart stay apart.
            self.places[place] = Some((address, tuple));
        }
    }
}
