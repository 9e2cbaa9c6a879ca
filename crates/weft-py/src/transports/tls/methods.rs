//! What Python sees: construction, and the methods of a transport.

#![expect(
    clippy::unnecessary_wraps,
    reason = "a method's signature, whether it can fail or not"
)]

use pyo3::Borrowed;
use pyo3::exceptions::{PyNotImplementedError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple};

use super::{READ_HIGH, State, TLS, TlsTransport, Told};
use crate::event_loop::EVENT_LOOP;
use crate::ffi::Slot;
use crate::ffi::bytes::{self, View, contents};
use crate::ffi::call::{method0, method2};
use crate::ffi::method::{Args, Returned};
use crate::imports::{imports, tls};
use crate::method;
use crate::transports::flow_control::Limits;
use crate::transports::methods::{Transport, boolean, none, transport_methods, writing_methods};
use crate::transports::stream::direct;

/// `SSLTransport(loop, protocol, sslcontext, waiter, server_side, server_hostname, call_connection_made,
/// ssl_handshake_timeout, ssl_shutdown_timeout)`.
pub(super) fn init<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    let py = object.py();
    if keywords.is_some_and(|keywords| !keywords.is_empty()) || args.len() != 9 {
        return Err(PyTypeError::new_err(
            "SSLTransport() takes loop, protocol, sslcontext, waiter, server_side, server_hostname, \
             call_connection_made, ssl_handshake_timeout and ssl_shutdown_timeout",
        ));
    }
    let argument = |index: usize| args.get_item(index);
    let settings = Settings {
        protocol: argument(1)?,
        context: argument(2)?,
        waiter: argument(3)?,
        server_side: argument(4)?.is_truthy()?,
        hostname: argument(5)?,
        is_made: !argument(6)?.is_truthy()?,
        handshake_timeout: argument(7)?,
        shutdown_timeout: argument(8)?,
    };
    let event_loop = argument(0)?;
    if EVENT_LOOP.get(&event_loop).is_none() {
        return Err(PyTypeError::new_err("loop must be a weft.Loop"));
    }
    let state = TLS.of(object);
    if state.event_loop.is_set() || state.ssl_object.is_set() {
        return Err(PyTypeError::new_err("a transport is made once"));
    }
    open(py, state, event_loop, settings)
}

/// What a TLS transport is made with; whatever is an object may be `None`.
struct Settings<'py> {
    protocol: Bound<'py, PyAny>,
    context: Bound<'py, PyAny>,
    /// The future that waits for the handshake.
    waiter: Bound<'py, PyAny>,
    server_side: bool,
    hostname: Bound<'py, PyAny>,
    /// Whether the protocol has been told of its connection already.
    is_made: bool,
    handshake_timeout: Bound<'py, PyAny>,
    shutdown_timeout: Bound<'py, PyAny>,
}

/// The TLS transport of an accepted connection, which nobody waits for. The two time-outs are in seconds, or `None`.
///
/// # Errors
/// What the arguments raise.
pub fn make_accepted<'py>(
    event_loop: &Bound<'py, PyAny>,
    protocol: Bound<'py, PyAny>,
    context: Bound<'py, PyAny>,
    handshake_timeout: Bound<'py, PyAny>,
    shutdown_timeout: Bound<'py, PyAny>,
) -> Returned<'py> {
    let py = event_loop.py();
    let object = TLS.instance(py)?;
    let nothing = py.None().into_bound(py);
    let settings = Settings {
        protocol,
        context,
        waiter: nothing.clone(),
        server_side: true,
        hostname: nothing,
        is_made: false,
        handshake_timeout,
        shutdown_timeout,
    };
    open(py, TLS.of(&object), event_loop.clone(), settings)?;
    Ok(object)
}

fn open<'py>(
    py: Python<'py>,
    state: &TlsTransport,
    event_loop: Bound<'py, PyAny>,
    settings: Settings<'py>,
) -> PyResult<()> {
    let handshake_timeout = timeout(
        py,
        &settings.handshake_timeout,
        "ssl_handshake_timeout",
        "SSL_HANDSHAKE_TIMEOUT",
    )?;
    let shutdown_timeout = timeout(
        py,
        &settings.shutdown_timeout,
        "ssl_shutdown_timeout",
        "SSL_SHUTDOWN_TIMEOUT",
    )?;
    let (server_side, hostname) = (settings.server_side, settings.hostname);
    let context = if settings.context.is_truthy()? {
        settings.context
    } else {
        tls(py)?
            .create_context
            .bind(py)
            .call1((server_side, &hostname))?
    };
    let hostname = if !server_side && hostname.is_truthy()? {
        hostname
    } else {
        py.None().into_bound(py)
    };
    state.adopt_protocol(&settings.protocol)?;
    state.wrap(&context, server_side, &hostname)?;
    let extra = PyDict::new(py);
    extra.set_item(intern!(py, "sslcontext"), context)?;
    state.extra.set(extra.into_any());
    state.handshake_timeout.set(handshake_timeout);
    state.shutdown_timeout.set(shutdown_timeout);
    if settings.is_made {
        state.told.set(Told::Made);
    }
    if !settings.waiter.is_none() {
        state.waiter.set(settings.waiter);
    }
    state.event_loop.set(event_loop);
    Ok(())
}

/// A time-out in seconds: the one that was given, or asyncio's.
fn timeout<'py>(
    py: Python<'py>,
    given: &Bound<'py, PyAny>,
    name: &str,
    default: &str,
) -> Returned<'py> {
    if given.is_none() {
        return py
            .import(intern!(py, "asyncio.constants"))?
            .getattr(default);
    }
    if given.le(0)? {
        return Err(PyValueError::new_err(format!(
            "{name} should be a positive number, got {}",
            given.str()?
        )));
    }
    Ok(given.clone())
}

impl Transport for TlsTransport {
    fn event_loop(&self) -> &Slot {
        &self.event_loop
    }

    fn protocol(&self) -> &Slot {
        &self.protocol
    }

    fn adopt_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = protocol.py();
        let buffered = protocol.hasattr(intern!(py, "get_buffer"))?
            && protocol.is_instance(imports(py).buffered_protocol.bind(py))?;
        self.buffered_protocol.set(buffered);
        self.protocol.set(protocol.clone());
        Ok(())
    }

    /// Whether somebody has begun to end the connection, here or below.
    fn is_closing(&self, py: Python<'_>) -> PyResult<bool> {
        if self.closed.get() {
            return Ok(true);
        }
        match self.lower.get(py) {
            None => Ok(false),
            Some(lower) => match direct::native(&lower) {
                Some(native) => Ok(direct::is_closing(native)),
                None => method0(&lower, intern!(py, "is_closing"))?.is_truthy(),
            },
        }
    }
}

// -- writing ---------------------------------------------------------------------------------------

/// `write(data)`.
pub(super) fn write<'py>(object: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> Returned<'py> {
    if !bytes::is_writable_type(data) {
        let name = data.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "data: expecting a bytes-like instance, got {name}"
        )));
    }
    let empty = if bytes::is_bytes(data) {
        contents(data).is_empty()
    } else {
        data.len()? == 0
    };
    if !empty {
        TLS.of(object).write(object, data)?;
    }
    Ok(none(object))
}

/// `writelines(list_of_data)`: what is small goes into one record.
pub(super) fn writelines<'py>(
    object: &Bound<'py, PyAny>,
    lines: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let py = object.py();
    let state = TLS.of(object);
    let lines = lines.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    let views = lines.iter().map(View::of).collect::<PyResult<Vec<_>>>()?;
    let size: usize = views.iter().map(|view| view.as_slice().len()).sum();
    if size == 0 {
        return Ok(none(object));
    }
    if size <= JOINED {
        let mut joined = Vec::with_capacity(size);
        for view in &views {
            joined.extend_from_slice(view.as_slice());
        }
        drop(views);
        state.write(object, &bytes::copy(py, &joined))?;
        return Ok(none(object));
    }
    drop(views);
    if !state.is_over(py)? {
        for line in &lines {
            state.keep(line)?;
        }
        state.write_kept(object)?;
    }
    Ok(none(object))
}

/// Lines of so many bytes or fewer are joined.
const JOINED: usize = 16 * 1024;

fn write_eof<'py>(_: &Bound<'py, PyAny>) -> Returned<'py> {
    Err(PyNotImplementedError::new_err(()))
}

fn can_write_eof<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), false))
}

/// `_test__append_write_backlog(data)`, which `CPython`'s own tests call.
fn append_backlog<'py>(object: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> Returned<'py> {
    TLS.of(object).keep(data)?;
    Ok(none(object))
}

// -- reading and closing ---------------------------------------------------------------------------

fn is_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), !TLS.of(object).reading_paused.get()))
}

/// `pause_reading()`.
pub(super) fn pause_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    TLS.of(object).reading_paused.set(true);
    Ok(none(object))
}

/// `resume_reading()`.
pub(super) fn resume_reading<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = TLS.of(object);
    if state.reading_paused.replace(false) {
        state.call_soon(object, "_resume")?;
    }
    Ok(none(object))
}

// -- what is known -------------------------------------------------------------------------------

fn get_extra_info<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = object.py();
    let [name, default] = args.bind("get_extra_info", ["name", "default"])?;
    let name = name.ok_or_else(|| {
        PyTypeError::new_err("get_extra_info() missing 1 required positional argument: 'name'")
    })?;
    let state = TLS.of(object);
    if let Some(extra) = state.extra.get(py) {
        let extra = extra.cast_into::<PyDict>()?;
        if let Some(found) = extra.get_item(name)? {
            return Ok(found);
        }
        if let Some(found) = state.asked_late(&extra, &name)? {
            return Ok(found);
        }
    }
    let default = default.map_or_else(|| none(object), Borrowed::to_owned);
    match state.lower.get(py) {
        Some(lower) => method2(&lower, intern!(py, "get_extra_info"), &name, &default),
        None => Ok(default),
    }
}

// -- flow control of reading -----------------------------------------------------------------------

fn get_read_buffer_size<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let size = TLS.of(object).incoming_pending(py)?;
    Ok(size.into_pyobject(py)?.into_any())
}

fn get_read_buffer_limits<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let limits = TLS.of(object).read_limits.get();
    Ok((limits.low, limits.high)
        .into_pyobject(object.py())?
        .into_any())
}

fn set_read_buffer_limits<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [high, low] = args.bind("set_read_buffer_limits", ["high", "low"])?;
    let state = TLS.of(object);
    let default = Limits::below(READ_HIGH);
    let limits = Limits::from_arguments(high.as_deref(), low.as_deref(), default)?;
    state.read_limits.set(limits);
    state.control_reading(object)?;
    Ok(none(object))
}

// -- what the loop calls ---------------------------------------------------------------------------

fn check_handshake_timeout<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    TLS.of(object).handshake_timed_out(object)?;
    Ok(none(object))
}

fn check_shutdown_timeout<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    TLS.of(object).shutdown_timed_out(object.py())?;
    Ok(none(object))
}

fn read_more<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = TLS.of(object);
    if state.state.get() != State::Unwrapped {
        state.do_read(object)?;
    }
    Ok(none(object))
}

fn resume<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    TLS.of(object).resume(object)?;
    Ok(none(object))
}

/// The method table.
pub(super) fn table() -> Vec<ffi::PyMethodDef> {
    let mut table = transport_methods!(TlsTransport);
    table.extend(writing_methods!(TlsTransport));
    table.extend([
        method!(named "write"("data") => write, "write($self, data)\n--\n\nEncrypt and send data, a bytes-like object."),
        method!(named "writelines"("list_of_data") => writelines, "writelines($self, list_of_data)\n--\n\nEncrypt and send the bytes-like objects of an iterable, in order."),
        method!(none "write_eof" => write_eof, "Raise NotImplementedError: one side of a TLS connection cannot be ended alone."),
        method!(none "can_write_eof" => can_write_eof, "Return False."),
        method!(none "is_reading" => is_reading, "Return True unless reading is paused."),
        method!(none "pause_reading" => pause_reading, "Deliver nothing more."),
        method!(none "resume_reading" => resume_reading, "Deliver again, from the next turn on."),
        method!(fast "get_extra_info" => get_extra_info, "get_extra_info($self, name, default=None)\n--\n\nReturn 'ssl_object', 'sslcontext', 'peercert', 'cipher', 'compression' or what the transport below knows."),
        method!(none "get_read_buffer_size" => get_read_buffer_size, "Return the number of bytes that wait to be decrypted."),
        method!(none "get_read_buffer_limits" => get_read_buffer_limits, "Return the low and the high water mark of reading, in bytes."),
        method!(fast "set_read_buffer_limits" => set_read_buffer_limits, "set_read_buffer_limits($self, high=None, low=None)\n--\n\nSet the marks, in bytes, at which the transport below is paused and resumed."),
        method!(one "_test__append_write_backlog" => append_backlog, "Put data where it waits to be encrypted."),
        method!(none "_check_handshake_timeout" => check_handshake_timeout, "End the connection if it still shakes hands."),
        method!(none "_check_shutdown_timeout" => check_shutdown_timeout, "End the connection if it still closes."),
        method!(none "_read_more" => read_more, "Read what the protocol's buffer had no room for."),
        method!(none "_resume" => resume, "Go on after resume_reading()."),
    ]);
    table
}
