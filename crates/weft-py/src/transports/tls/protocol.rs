//! The protocol of the transport below: what that one calls, by Python's methods or directly.

#![expect(
    clippy::unnecessary_wraps,
    reason = "a method's signature, whether it can fail or not"
)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::engine::as_bytes;
use super::{State, TLS};
use crate::ffi::bytes;
use crate::ffi::method::Returned;
use crate::method;
use crate::transports::methods::{boolean, none};
use crate::transports::stream::direct::{self, Receivers};

/// What the transports of streams are told.
pub(super) const RECEIVERS: Receivers = Receivers {
    is_one: |protocol| TLS.is_exact(protocol),
    received,
};

fn received(object: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<()> {
    TLS.of(object).received(object, data)
}

fn connection_made<'py>(object: &Bound<'py, PyAny>, lower: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = TLS.of(object);
    if state.lost.get() > 0 {
        // The connection was lost before it could be upgraded.
        return Ok(none(object));
    }
    state.lower.set(lower.clone());
    if state.state.get() != State::Unwrapped {
        return Ok(none(object));
    }
    if state.closed.get() {
        // Whoever has asked for it does not want it any more.
        state.abort(object, None)?;
        return Ok(none(object));
    }
    // Callbacks come in the context of whoever asked for TLS, up to Python 3.14.
    direct::adopt_context(lower)?;
    state.start_handshake(object)?;
    Ok(none(object))
}

fn connection_lost<'py>(object: &Bound<'py, PyAny>, error: &Bound<'py, PyAny>) -> Returned<'py> {
    TLS.of(object).connection_lost(object, error)?;
    Ok(none(object))
}

fn data_received<'py>(object: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> Returned<'py> {
    if bytes::is_bytes(data) {
        received(object, data)?;
    } else {
        received(object, as_bytes(data)?.as_any())?;
    }
    Ok(none(object))
}

fn eof_received<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let stays_open = TLS.of(object).lower_ended(object)?;
    Ok(boolean(object.py(), stays_open))
}

fn pause_writing<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    TLS.of(object).lower_writing_paused.set(true);
    Ok(none(object))
}

fn resume_writing<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = TLS.of(object);
    state.lower_writing_paused.set(false);
    state.send(object)?;
    Ok(none(object))
}

/// The method table.
pub(super) fn table() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(one "connection_made" => connection_made, "The transport below is connected: begin the handshake."),
        method!(one "connection_lost" => connection_lost, "The transport below is lost."),
        method!(one "data_received" => data_received, "The transport below has received data."),
        method!(none "eof_received" => eof_received, "The transport below has come to its end."),
        method!(none "pause_writing" => pause_writing, "The transport below is full."),
        method!(none "resume_writing" => resume_writing, "The transport below has room again."),
    ]
}
