//! What Python sees: attributes and the representation.

#![expect(
    clippy::unnecessary_wraps,
    reason = "a property's signature, whether it can fail or not"
)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{TLS, TlsTransport};
use crate::ffi::method::Returned;
use crate::property;
use crate::transports::methods::{boolean, get_protocol};

/// `<SSLTransport over <StreamTransport fd=7 …>>`.
pub(super) fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let state = TLS.of(object);
    let class = object.get_type().name()?;
    let text = match state.lower.get(py) {
        Some(lower) if state.closed.get() => format!("<{class} closing over {}>", lower.repr()?),
        Some(lower) => format!("<{class} over {}>", lower.repr()?),
        None if state.closed.get() => format!("<{class} closed>"),
        None => format!("<{class}>"),
    };
    Ok(text.into_pyobject(py)?.into_any())
}

/// asyncio has its protocol in an object of its own; here it is the transport itself.
fn ssl_protocol<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(object.clone())
}

fn lower<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(TLS.of(object).lower.get_or_none(object.py()))
}

fn loop_of<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(TLS.of(object).event_loop.get_or_none(object.py()))
}

fn closed<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), TLS.of(object).closed.get()))
}

fn protocol_paused<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), TLS.of(object).writing_paused.get()))
}

fn reading_paused<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), TLS.of(object).reading_paused.get()))
}

/// Also asyncio's private name for it.
fn context<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    object.call_method1("get_extra_info", ("sslcontext",))
}

/// The property table.
pub(super) fn table() -> Vec<ffi::PyGetSetDef> {
    vec![
        property!("_ssl_protocol" => ssl_protocol),
        property!("_transport" => lower),
        property!("_protocol" => get_protocol::<TlsTransport>),
        property!("_loop" => loop_of),
        property!("_closed" => closed),
        property!("_sslcontext" => context),
        property!("_protocol_paused" => protocol_paused),
        property!("_app_reading_paused" => reading_paused),
    ]
}
