//! Calls to the `SSLObject` and its two memories.
//!
//! An `ssl.SSLObject` hands `read()` and `write()` on to an object written in C. Where the class is exactly this one, that
//! object is called at once; a subclass (`SSLContext.sslobject_class`) has its own methods called.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyByteArray, PyBytes};

use super::TlsTransport;
use crate::ffi::Slot;
use crate::ffi::bytes;
use crate::ffi::call::{call2, method0, method1, method2};
use crate::ffi::method::Returned;
use crate::imports::{RECORD_SIZE, Tls, tls};

/// What an operation of TLS came to.
pub(super) enum Answer<T> {
    /// It is done.
    Got(T),
    /// It goes on when more has arrived.
    Again,
}

/// Tells "call again" from what is really an error.
pub(super) fn answer<T>(py: Python<'_>, outcome: PyResult<T>) -> PyResult<Answer<T>> {
    match outcome {
        Ok(value) => Ok(Answer::Got(value)),
        Err(error) => {
            let tls = tls(py)?;
            if error.is_instance(py, tls.want_read_error.bind(py))
                || error.is_instance(py, tls.syscall_error.bind(py))
            {
                Ok(Answer::Again)
            } else {
                Err(error)
            }
        }
    }
}

/// Whether an error is one of TLS itself.
pub(super) fn is_ssl_error(py: Python<'_>, error: &PyErr) -> bool {
    tls(py).is_ok_and(|tls| error.is_instance(py, tls.error.bind(py)))
}

/// Memory for one decrypted record: that of the process, or fresh one while somebody else uses that.
///
/// Reading gives up the GIL, so another loop's thread may read meanwhile.
pub(super) struct Plaintext<'py> {
    pub(super) array: Bound<'py, PyByteArray>,
    shared: bool,
}

static IN_USE: AtomicBool = AtomicBool::new(false);

impl<'py> Plaintext<'py> {
    fn take(py: Python<'py>, tls: &Tls) -> Self {
        if IN_USE.swap(true, Ordering::Relaxed) {
            return Self {
                array: PyByteArray::new(py, &[0; RECORD_SIZE]),
                shared: false,
            };
        }
        Self {
            array: tls.plaintext.bind(py).clone(),
            shared: true,
        }
    }

    /// Shows the first `count` bytes to `look`, which runs no Python code.
    pub(super) fn look<R>(&self, count: usize, look: impl FnOnce(&[u8]) -> R) -> R {
        bytes::look_at(&self.array, count, look)
    }
}

impl Drop for Plaintext<'_> {
    fn drop(&mut self) {
        if self.shared {
            IN_USE.store(false, Ordering::Relaxed);
        }
    }
}

impl TlsTransport {
    /// Makes the `SSLObject` and its memories.
    pub(super) fn wrap<'py>(
        &self,
        context: &Bound<'py, PyAny>,
        server_side: bool,
        server_hostname: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = context.py();
        let tls = tls(py)?;
        let (incoming, outgoing) = (
            tls.memory_bio.bind(py).call0()?,
            tls.memory_bio.bind(py).call0()?,
        );
        let keywords = pyo3::types::PyDict::new(py);
        keywords.set_item(intern!(py, "server_side"), server_side)?;
        keywords.set_item(intern!(py, "server_hostname"), server_hostname)?;
        let object = context.call_method(
            intern!(py, "wrap_bio"),
            (&incoming, &outgoing),
            Some(&keywords),
        )?;
        let inner = if object.get_type().is(tls.ssl_object.bind(py)) {
            let inner = object.getattr(intern!(py, "_sslobj"))?;
            Some(inner).filter(|inner| inner.get_type().is(tls.ssl_socket.bind(py)))
        } else {
            None
        };
        self.direct.set(inner.is_some());
        self.engine.set(inner.unwrap_or_else(|| object.clone()));
        self.ssl_object.set(object);
        self.incoming.set(incoming);
        self.outgoing.set(outgoing);
        Ok(())
    }

    fn engine<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.stirred.set(true);
        self.engine.get_or_none(py)
    }

    /// Takes what has arrived.
    #[inline]
    pub(super) fn take_in(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = data.py();
        match self.incoming.get(py) {
            Some(incoming) => method1(&incoming, intern!(py, "write"), data).map(drop),
            None => Ok(()),
        }
    }

    /// `do_handshake()` or `unwrap()`.
    pub(super) fn shake(&self, py: Python<'_>, step: &str) -> PyResult<Answer<()>> {
        self.stirred.set(true);
        let object = self.ssl_object.get_or_none(py);
        answer(py, object.call_method0(step).map(drop))
    }

    /// Decrypts into the memory of the process: how much, and the memory. 0 is the end.
    #[inline]
    pub(super) fn read_record<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Answer<(usize, Plaintext<'py>)>> {
        let tls = tls(py)?;
        let memory = Plaintext::take(py, tls);
        let size = tls.record_size.bind(py);
        let outcome = method2(&self.engine(py), intern!(py, "read"), size, &memory.array)
            .and_then(|count| count.extract());
        match answer(py, outcome)? {
            Answer::Got(count) => Ok(Answer::Got((count, memory))),
            Answer::Again => Ok(Answer::Again),
        }
    }

    /// Decrypts at most `most` bytes into `buffer`. 0 is the end.
    pub(super) fn read_into(
        &self,
        most: usize,
        buffer: &Bound<'_, PyAny>,
    ) -> PyResult<Answer<usize>> {
        let py = buffer.py();
        let most = most.into_pyobject(py)?;
        let outcome = method2(&self.engine(py), intern!(py, "read"), &most, buffer)
            .and_then(|count| count.extract());
        answer(py, outcome)
    }

    /// Decrypts at most `most` bytes. What is empty is the end.
    pub(super) fn read<'py>(
        &self,
        py: Python<'py>,
        most: usize,
    ) -> PyResult<Answer<Bound<'py, PyAny>>> {
        let most = most.into_pyobject(py)?;
        answer(py, method1(&self.engine(py), intern!(py, "read"), &most))
    }

    /// Encrypts `data`, or a part of it: how much.
    #[inline]
    pub(super) fn encrypt(&self, data: &Bound<'_, PyAny>) -> PyResult<Answer<usize>> {
        let py = data.py();
        let outcome =
            method1(&self.engine(py), intern!(py, "write"), data).and_then(|count| count.extract());
        answer(py, outcome)
    }

    /// Takes everything that is to be sent.
    #[inline]
    pub(super) fn take_out<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(outgoing) = self.outgoing.get(py) else {
            return Ok(None);
        };
        self.stirred.set(false);
        let data = method0(&outgoing, intern!(py, "read"))?;
        Ok(Some(data).filter(|data| !bytes::contents(data).is_empty()))
    }

    /// How many encrypted bytes wait to be read.
    pub(super) fn incoming_pending(&self, py: Python<'_>) -> PyResult<usize> {
        pending(py, &self.incoming)
    }

    /// How many encrypted bytes wait to be sent.
    pub(super) fn outgoing_pending(&self, py: Python<'_>) -> PyResult<usize> {
        pending(py, &self.outgoing)
    }
}

#[inline]
fn pending(py: Python<'_>, memory: &Slot) -> PyResult<usize> {
    match memory.get(py) {
        Some(memory) => memory.getattr(intern!(py, "pending"))?.extract(),
        None => Ok(0),
    }
}

/// `memoryview(buffer)` as bytes, from `start` to `end`.
pub(super) fn part<'py>(buffer: &Bound<'py, PyAny>, start: usize, end: usize) -> Returned<'py> {
    let py = buffer.py();
    let view = py
        .get_type::<pyo3::types::PyMemoryView>()
        .call1((buffer,))?;
    let view = method1(&view, intern!(py, "cast"), intern!(py, "B").as_any())?;
    let slice = py.get_type::<pyo3::types::PySlice>();
    let slice = call2(
        slice.as_any(),
        start.into_pyobject(py)?.as_any(),
        end.into_pyobject(py)?.as_any(),
    )?;
    view.get_item(slice)
}

/// A copy of what `data` lends, as `bytes`; `bytes` themselves are not copied.
pub(super) fn as_bytes<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if bytes::is_bytes(data) {
        return Ok(data.clone().cast_into::<PyBytes>()?);
    }
    let view = bytes::View::of(data)?;
    Ok(PyBytes::new(data.py(), view.as_slice()))
}
