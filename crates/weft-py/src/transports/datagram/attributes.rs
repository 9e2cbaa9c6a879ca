//! What Python sees: attributes and the representation.

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{DATAGRAM, DatagramTransport};
use crate::ffi::method::Returned;
use crate::property;
use crate::transports::details;
use crate::transports::methods::{boolean, get_protocol, get_write_buffer_size, is_closing};

/// `<DatagramTransport fd=7 read=polling write=<idle, bufsize=0>>`, in asyncio's words.
pub(super) fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = DATAGRAM.of(object);
    let unsent = state.outgoing.borrow().size();
    details::representation(
        object,
        &state.event_loop,
        &details::Shown {
            open: state.socket.is_set(),
            closing: state.closing.get(),
            fd: state.fd.get(),
            reading: state.hears(),
            writing: state.writing.get() && state.lost.get() == 0,
            unsent,
        },
    )
}

fn sock<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(DATAGRAM.of(object).socket.get_or_none(object.py()))
}

fn sock_fd<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let fd = DATAGRAM.of(object).fd.get();
    Ok(fd.into_pyobject(object.py())?.into_any())
}

fn loop_of<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(DATAGRAM.of(object).event_loop.get_or_none(object.py()))
}

fn address<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(DATAGRAM.of(object).remote.get_or_none(object.py()))
}

fn conn_lost<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let lost = DATAGRAM.of(object).lost.get();
    Ok(lost.into_pyobject(object.py())?.into_any())
}

fn paused<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), DATAGRAM.of(object).paused.get()))
}

fn protocol_paused<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let paused = DATAGRAM.of(object).protocol_paused.get();
    Ok(boolean(object.py(), paused))
}

fn extra<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(DATAGRAM.of(object).extra.get_or_none(object.py()))
}

fn set_extra(object: &Bound<'_, PyAny>, extra: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    match extra {
        Some(extra) => DATAGRAM.of(object).extra.set(extra.to_owned()),
        None => DATAGRAM.of(object).extra.clear(),
    }
    Ok(())
}

/// The property table.
pub(super) fn table() -> Vec<ffi::PyGetSetDef> {
    vec![
        property!("_sock" => sock),
        property!("_sock_fd" => sock_fd),
        property!("_loop" => loop_of),
        property!("_protocol" => get_protocol::<DatagramTransport>),
        property!("_address" => address),
        property!("_buffer_size" => get_write_buffer_size::<DatagramTransport>),
        property!("_conn_lost" => conn_lost),
        property!("_closing" => is_closing::<DatagramTransport>),
        property!("_paused" => paused),
        property!("_protocol_paused" => protocol_paused),
        property!("_extra" => extra, set_extra),
    ]
}
