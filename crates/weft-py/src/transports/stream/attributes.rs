//! What Python sees: attributes and the representation.

#![expect(
    clippy::unnecessary_wraps,
    reason = "a property's signature, whether it can fail or not"
)]

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{STREAM, StreamTransport};
use crate::ffi::Slot;
use crate::ffi::method::Returned;
use crate::property;
use crate::transports::details;
use crate::transports::methods::{boolean, get_protocol, is_closing, none};

/// `<StreamTransport fd=7 read=polling write=<idle, bufsize=0>>`, in asyncio's words.
pub(super) fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = STREAM.of(object);
    let unsent = state.unsent.borrow().len();
    details::representation(
        object,
        &state.event_loop,
        &details::Shown {
            open: state.socket.is_open(),
            closing: state.closing.get(),
            fd: state.socket.number(),
            reading: state.started.get() && state.is_reading() && !state.ended.get(),
            writing: unsent > 0,
            unsent,
        },
    )
}

/// What a slot holds, or `None`.
fn value<'py>(object: &Bound<'py, PyAny>, slot: &Slot) -> Bound<'py, PyAny> {
    slot.get(object.py()).unwrap_or_else(|| none(object))
}

fn sock<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let sock = STREAM.of(object).socket.python(object.py())?;
    Ok(sock.unwrap_or_else(|| none(object)))
}

fn sock_fd<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(STREAM
        .of(object)
        .socket
        .number()
        .into_pyobject(object.py())?
        .into_any())
}

fn loop_of<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(value(object, &STREAM.of(object).event_loop))
}

fn server<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(value(object, &STREAM.of(object).server))
}

fn conn_lost<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(STREAM
        .of(object)
        .lost
        .get()
        .into_pyobject(object.py())?
        .into_any())
}

fn paused<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), STREAM.of(object).paused.get()))
}

fn protocol_paused<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(
        object.py(),
        STREAM.of(object).protocol_paused.get(),
    ))
}

fn eof<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), STREAM.of(object).eof.get()))
}

fn extra<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let details = STREAM.of(object).socket.details(object.py())?;
    Ok(details.unwrap_or_else(|| none(object)))
}

fn set_extra(object: &Bound<'_, PyAny>, extra: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    let state = STREAM.of(object);
    // What is left untold belongs to the old dictionary.
    state.socket.details(object.py())?;
    match extra {
        Some(extra) => state.socket.set_details(extra.to_owned()),
        None => state.socket.forget_details(),
    }
    Ok(())
}

/// The property table.
pub(super) fn table() -> Vec<ffi::PyGetSetDef> {
    vec![
        property!("_sock" => sock),
        property!("_sock_fd" => sock_fd),
        property!("_loop" => loop_of),
        property!("_protocol" => get_protocol::<StreamTransport>),
        property!("_server" => server),
        property!("_conn_lost" => conn_lost),
        property!("_closing" => is_closing::<StreamTransport>),
        property!("_paused" => paused),
        property!("_protocol_paused" => protocol_paused),
        property!("_eof" => eof),
        property!("_extra" => extra, set_extra),
    ]
}
