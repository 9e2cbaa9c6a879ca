//! Receiving, and what the protocol is told about it.

use std::cell::RefCell;
use std::io;

use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;
use weft_reactor::socket::{self, Sender};

use super::DatagramTransport;
use crate::errors::os_error;
use crate::ffi::bytes;
use crate::ffi::call::{method1, method2};
use crate::transports::addresses::python_address;
use crate::transports::methods::SocketTransport;

/// How long a datagram may be, as in asyncio.
pub(super) const READ_SIZE: usize = 256 * 1024;

/// How many datagrams are received at most before others have their turn.
const MOST: usize = 16;

thread_local! {
    /// Every transport of a thread receives into this memory, and hands out exact copies.
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// A datagram and who sent it.
type Datagram<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);

impl DatagramTransport {
    pub(super) fn read_ready(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        for _ in 0..MOST {
            if !self.hears() {
                return Ok(());
            }
            let (data, sender) = match self.receive(py) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return Ok(()),
                Err(error) if error.is_instance_of::<PyOSError>(py) => {
                    return self.error_received(py, &error);
                }
                Err(error) => {
                    let message = "Fatal read error on datagram transport";
                    return self.fatal_error(object, error, message);
                }
            };
            let Some(protocol) = self.protocol.get(py) else {
                return Ok(());
            };
            // What it raises is not the transport's affair; the other datagrams come with the next event.
            method2(&protocol, intern!(py, "datagram_received"), &data, &sender)?;
        }
        Ok(())
    }

    /// Receives one datagram; `None` where there is none.
    #[inline]
    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Option<Datagram<'py>>> {
        if self.family.get().is_none() {
            return self.receive_by_python(py);
        }
        let received = RECEIVED.with_borrow_mut(|memory| {
            let (count, sender) = socket::recv_from(self.descriptor(), memory)?;
            Ok((bytes::copy(py, &memory[..count]), sender))
        });
        let (data, sender) = match received {
            Ok(received) => received,
            Err(error) if is_later(&error) => return Ok(None),
            Err(error) => return Err(os_error(error)),
        };
        Ok(Some((data, self.address_of(py, &sender)?)))
    }

    #[inline]
    fn address_of<'py>(&self, py: Python<'py>, sender: &Sender) -> PyResult<Bound<'py, PyAny>> {
        let Sender::Inet(address) = sender else {
            return python_address(py, sender);
        };
        if let Some(known) = self.senders.borrow().find(py, address) {
            return Ok(known);
        }
        let made = python_address(py, sender)?;
        let forgotten = self
            .senders
            .borrow_mut()
            .remember(*address, made.clone().into());
        drop(forgotten);
        Ok(made)
    }

    #[cold]
    fn receive_by_python<'py>(&self, py: Python<'py>) -> PyResult<Option<Datagram<'py>>> {
        let Some(sock) = self.socket.get(py) else {
            return Ok(None);
        };
        match sock.call_method1(intern!(py, "recvfrom"), (READ_SIZE,)) {
            Ok(received) => received.extract().map(Some),
            Err(error) if means_later(py, &error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells the protocol of an `OSError`; what it raises is the caller's affair.
    pub(super) fn error_received(&self, py: Python<'_>, error: &PyErr) -> PyResult<()> {
        match self.protocol.get(py) {
            Some(protocol) => {
                let error = error.value(py);
                method1(&protocol, intern!(py, "error_received"), error).map(drop)
            }
            None => Ok(()),
        }
    }
}

/// Whether a system call says "not now".
pub(super) fn is_later(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Whether a call of the Python socket says "not now".
pub(super) fn means_later(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py)
}
