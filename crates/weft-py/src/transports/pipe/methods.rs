//! What Python sees of the transports of both directions.

use pyo3::Borrowed;
use pyo3::exceptions::PyAttributeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{Pipe, pipe_of};
use crate::event_loop::EVENT_LOOP;
use crate::ffi::method::Returned;
use crate::ffi::{Native, Slot};
use crate::property;
use crate::transports::methods::{Ending, Owning, Transport, boolean};

/// The state of a transport of either direction.
pub(super) trait PipeTransport: Native {
    /// What the transports of both directions have.
    fn pipe(&self) -> &Pipe;
}

impl<T: PipeTransport> Transport for T {
    fn event_loop(&self) -> &Slot {
        &self.pipe().event_loop
    }

    fn protocol(&self) -> &Slot {
        &self.pipe().protocol
    }

    fn adopt_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        self.pipe().protocol.set(protocol.clone());
        Ok(())
    }

    fn is_closing(&self, _: Python<'_>) -> PyResult<bool> {
        Ok(self.pipe().closing.get())
    }
}

impl<T: PipeTransport + Ending> Owning for T {
    fn connection_lost(
        &self,
        object: &Bound<'_, PyAny>,
        error: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.pipe().connection_lost(object, error)
    }
}

fn protocol<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(pipe_of(object).protocol.get_or_none(object.py()))
}

fn closing<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(boolean(object.py(), pipe_of(object).closing.get()))
}

fn file<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(pipe_of(object).file.get_or_none(object.py()))
}

/// `transport._pipe = None` gives the file up without closing it.
fn set_file(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    if value.is_some_and(|value| !value.is_none()) {
        return Err(PyAttributeError::new_err(
            "a transport's pipe can only be taken away",
        ));
    }
    pipe_of(object).forget_file(object.py());
    Ok(())
}

fn fileno<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let fd = pipe_of(object).fd.get();
    Ok(fd.into_pyobject(object.py())?.into_any())
}

fn loop_of<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(pipe_of(object).event_loop.get_or_none(object.py()))
}

/// The properties of both.
pub(super) fn properties() -> Vec<ffi::PyGetSetDef> {
    vec![
        property!("_pipe" => file, set_file),
        property!("_fileno" => fileno),
        property!("_loop" => loop_of),
        property!("_protocol" => protocol),
        property!("_closing" => closing),
    ]
}

/// `<ReadPipeTransport fd=7 polling>`, in asyncio's words; `buffer` is how many bytes are unsent.
pub(super) fn representation<'py>(
    object: &Bound<'py, PyAny>,
    polls: bool,
    buffer: Option<usize>,
) -> Returned<'py> {
    let py = object.py();
    let pipe = pipe_of(object);
    let class = object.get_type().name()?;
    let open = pipe.file.is_set();
    let life = match (open, pipe.closing.get()) {
        (false, _) => " closed",
        (true, true) => " closing",
        (true, false) => "",
    };
    let running = pipe
        .event_loop
        .get(py)
        .is_some_and(|event_loop| !EVENT_LOOP.of(&event_loop).is_closed());
    let state = match (open, running) {
        (false, _) => "closed".to_owned(),
        (true, false) => "open".to_owned(),
        (true, true) => {
            let word = if polls { "polling" } else { "idle" };
            match buffer {
                Some(size) => format!("{word} bufsize={size}"),
                None => word.to_owned(),
            }
        }
    };
    let text = format!("<{class}{life} fd={} {state}>", pipe.fd.get());
    Ok(text.into_pyobject(py)?.into_any())
}
