//! What Python sees of every transport: the methods that differ only in whose state they are about.
//!
//! A kind of transport says what its state can do, by the traits below, and has its table of methods begin with the
//! entries that the macros make of it.

use std::cell::Cell;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool};

use super::callbacks;
use super::flow_control::Limits;
use crate::event_loop::handles::is_fatal;
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::{Native, Slot};

pub(super) fn none<'py>(object: &Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    object.py().None().into_bound(object.py())
}

pub(super) fn boolean(py: Python<'_>, value: bool) -> Bound<'_, PyAny> {
    PyBool::new(py, value).to_owned().into_any()
}

/// The state of a transport.
pub(super) trait Transport: Native {
    /// The loop; given up after `connection_lost()`.
    fn event_loop(&self) -> &Slot;

    fn protocol(&self) -> &Slot;

    /// Tells another protocol from now on.
    fn adopt_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()>;

    fn is_closing(&self, py: Python<'_>) -> PyResult<bool>;
}

/// How a transport ends.
pub(super) trait Ending: Transport {
    /// Ends once everything is sent.
    fn close(&self, object: &Bound<'_, PyAny>) -> PyResult<()>;

    /// Drops what is unsent and ends, because of `error` if there is one.
    fn force_close(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()>;
}

/// A transport that owns a descriptor.
pub(super) trait Owning: Ending {
    /// The end: `connection_lost()`, then everything that the transport owns is given up, whatever the protocol does.
    fn connection_lost(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()>;
}

/// A transport that reads from its descriptor.
pub(super) trait Reading: Owning {
    /// Whether `pause_reading()` holds.
    fn paused(&self) -> &Cell<bool>;

    /// Watches the descriptor for what the transport wants now, and for nothing else.
    fn update_interest(&self, object: &Bound<'_, PyAny>) -> PyResult<()>;

    /// Reads from now on, unless that is paused or the transport ends.
    fn start_reading(&self, object: &Bound<'_, PyAny>) -> PyResult<()>;
}

/// A transport that writes.
pub(super) trait Writing: Ending {
    /// When the protocol is asked to pause, and when to go on.
    fn limits(&self) -> Limits;

    /// What `set_write_buffer_limits()` means without arguments.
    fn default_limits() -> Limits {
        Limits::default()
    }

    fn set_limits(&self, object: &Bound<'_, PyAny>, limits: Limits) -> PyResult<()>;

    /// How many bytes are unsent.
    fn unsent(&self, object: &Bound<'_, PyAny>) -> PyResult<usize>;
}

/// A transport that owns a socket.
pub(super) trait SocketTransport: Reading + Writing {
    /// Ends because of `error`, which is reported unless it is the peer's or the network's doing.
    fn fatal_error(&self, object: &Bound<'_, PyAny>, error: PyErr, message: &str) -> PyResult<()> {
        let py = object.py();
        if is_fatal(py, &error) {
            return Err(error);
        }
        let error = error.into_value(py).into_bound(py).into_any();
        callbacks::report_fatal(object, self.event_loop(), self.protocol(), &error, message)?;
        self.force_close(object, Some(error))
    }
}

fn state<'a, T: Transport>(object: &'a Bound<'_, PyAny>) -> &'a T {
    T::class().of(object)
}

fn given<'py>(error: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    Some(error.clone()).filter(|error| !error.is_none())
}

pub(super) fn get_protocol<'py, T: Transport>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(state::<T>(object).protocol().get_or_none(object.py()))
}

pub(super) fn set_protocol<'py, T: Transport>(
    object: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
) -> Returned<'py> {
    state::<T>(object).adopt_protocol(protocol)?;
    Ok(none(object))
}

pub(super) fn is_closing<'py, T: Transport>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    Ok(boolean(py, state::<T>(object).is_closing(py)?))
}

pub(super) fn close<'py, T: Ending>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    state::<T>(object).close(object)?;
    Ok(none(object))
}

pub(super) fn abort<'py, T: Ending>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    state::<T>(object).force_close(object, None)?;
    Ok(none(object))
}

pub(super) fn force_close<'py, T: Ending>(
    object: &Bound<'py, PyAny>,
    error: &Bound<'py, PyAny>,
) -> Returned<'py> {
    state::<T>(object).force_close(object, given(error))?;
    Ok(none(object))
}

pub(super) fn get_write_buffer_size<'py, T: Writing>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let size = state::<T>(object).unsent(object)?;
    Ok(size.into_pyobject(object.py())?.into_any())
}

pub(super) fn get_write_buffer_limits<'py, T: Writing>(
    object: &Bound<'py, PyAny>,
) -> Returned<'py> {
    let limits = state::<T>(object).limits();
    let pair = (limits.low, limits.high);
    Ok(pair.into_pyobject(object.py())?.into_any())
}

pub(super) fn set_write_buffer_limits<'py, T: Writing>(
    object: &Bound<'py, PyAny>,
    args: Args<'_, 'py>,
) -> Returned<'py> {
    let [high, low] = args.bind("set_write_buffer_limits", ["high", "low"])?;
    let limits = Limits::from_arguments(high.as_deref(), low.as_deref(), T::default_limits())?;
    state::<T>(object).set_limits(object, limits)?;
    Ok(none(object))
}

pub(super) fn is_reading<'py, T: Reading>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let (py, state) = (object.py(), state::<T>(object));
    Ok(boolean(py, !state.paused().get() && !state.is_closing(py)?))
}

pub(super) fn pause_reading<'py, T: Reading>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = state::<T>(object);
    if !state.is_closing(object.py())? && !state.paused().replace(true) {
        state.update_interest(object)?;
        callbacks::debug_log(object, state.event_loop(), "%r pauses reading")?;
    }
    Ok(none(object))
}

pub(super) fn resume_reading<'py, T: Reading>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = state::<T>(object);
    if !state.is_closing(object.py())? && state.paused().replace(false) {
        state.update_interest(object)?;
        callbacks::debug_log(object, state.event_loop(), "%r resumes reading")?;
    }
    Ok(none(object))
}

pub(super) fn start_reading<'py, T: Reading>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    state::<T>(object).start_reading(object)?;
    Ok(none(object))
}

pub(super) fn call_connection_lost<'py, T: Owning>(
    object: &Bound<'py, PyAny>,
    error: &Bound<'py, PyAny>,
) -> Returned<'py> {
    state::<T>(object).connection_lost(object, given(error))?;
    Ok(none(object))
}

pub(super) fn fatal_error<'py, T: SocketTransport>(
    object: &Bound<'py, PyAny>,
    args: Args<'_, 'py>,
) -> Returned<'py> {
    let [Some(error), message] = args.bind("_fatal_error", ["exc", "message"])? else {
        return Err(missing_argument("_fatal_error", "exc"));
    };
    let message: String = match message {
        Some(message) => message.extract()?,
        None => "Fatal error on transport".to_owned(),
    };
    let error = PyErr::from_value(error.to_owned());
    state::<T>(object).fatal_error(object, error, &message)?;
    Ok(none(object))
}

/// The entries of [`Transport`] and [`Ending`].
macro_rules! transport_methods {
    ($state:ty) => {{
        use $crate::method;
        use $crate::transports::methods::{close, get_protocol, is_closing, set_protocol};
        vec![
            method!(none "close" => close::<$state>, "Send what is unsent, then end and call connection_lost()."),
            method!(none "is_closing" => is_closing::<$state>, "Return True if the transport is closing or closed."),
            method!(none "get_protocol" => get_protocol::<$state>, "Return the protocol."),
            method!(named "set_protocol"("protocol") => set_protocol::<$state>, "set_protocol($self, protocol)\n--\n\nTell another protocol from now on."),
        ]
    }};
}

/// The entries of [`Writing`].
macro_rules! writing_methods {
    ($state:ty) => {{
        use $crate::method;
        use $crate::transports::methods::{
            abort, force_close, get_write_buffer_limits, get_write_buffer_size, set_write_buffer_limits,
        };
        vec![
            method!(none "abort" => abort::<$state>, "End now, drop what is unsent."),
            method!(none "get_write_buffer_size" => get_write_buffer_size::<$state>, "Return the number of unsent bytes."),
            method!(none "get_write_buffer_limits" => get_write_buffer_limits::<$state>, "Return the low and the high water mark, in bytes."),
            method!(fast "set_write_buffer_limits" => set_write_buffer_limits::<$state>, "set_write_buffer_limits($self, high=None, low=None)\n--\n\nSet the marks, in bytes, at which the protocol is paused and resumed."),
            method!(one "_force_close" => force_close::<$state>, "End because of an exception."),
        ]
    }};
}

/// The entries of [`Reading`].
macro_rules! reading_methods {
    ($state:ty) => {{
        use $crate::method;
        use $crate::transports::methods::{is_reading, pause_reading, resume_reading};
        vec![
            method!(none "is_reading" => is_reading::<$state>, "Return True if the transport is receiving."),
            method!(none "pause_reading" => pause_reading::<$state>, "Stop receiving."),
            method!(none "resume_reading" => resume_reading::<$state>, "Receive again."),
        ]
    }};
}

/// The entries of a [`SocketTransport`].
macro_rules! socket_methods {
    ($state:ty) => {{
        use $crate::method;
        use $crate::transports::methods::{call_connection_lost, fatal_error, start_reading};
        let mut methods = $crate::transports::methods::transport_methods!($state);
        methods.extend($crate::transports::methods::writing_methods!($state));
        methods.extend($crate::transports::methods::reading_methods!($state));
        methods.extend([
            method!(none "_start_reading" => start_reading::<$state>, "Start to receive, after connection_made()."),
            method!(one "_call_connection_lost" => call_connection_lost::<$state>, "Tell the protocol and give everything up."),
            method!(fast "_fatal_error" => fatal_error::<$state>, "Report an exception and end."),
        ]);
        methods
    }};
}

pub(super) use {reading_methods, socket_methods, transport_methods, writing_methods};
