//! The protocol between a transport and a reader, and the flow control that `drain()` waits for.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::exceptions::PyConnectionResetError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule, PyWeakrefReference};

use super::plain::{Hooks, Plainness};
use super::reader::{self, READER};
use super::{flag, none, stored};
use crate::ffi::call::method1;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::Returned;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::imports::imports;
use crate::operations::{Step, create_future};
use crate::transports::ReadBuffer;
use crate::transports::direct::Readers;
use crate::{method, property};

/// The native part of `weft.StreamReaderProtocol`.
#[derive(Debug, Default)]
pub struct StreamReaderProtocol {
    /// A weak reference to the reader.
    reader: Slot,
    event_loop: Slot,
    /// A deque of the futures that drains wait for.
    drain_waiters: Slot,
    /// Whether the transport has asked to stop writing.
    paused: Cell<bool>,
    connection_lost: Cell<bool>,
    plainness: Plainness,
}

impl Native for StreamReaderProtocol {
    fn class() -> &'static Class<Self> {
        &PROTOCOL
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.reader, &self.event_loop, &self.drain_waiters])
    }

    fn clear(&self, _: Python<'_>) {
        self.reader.clear();
        self.event_loop.clear();
        self.drain_waiters.clear();
    }
}

/// `_weft.StreamReaderProtocol`.
pub static PROTOCOL: Class<StreamReaderProtocol> = Class::new();

static HOOKS: Hooks = Hooks::new(&[
    "data_received",
    "_stream_reader",
    "_stream_reader_wr",
    "_drain_helper",
    "_drain_waiters",
    "_paused",
    "_connection_lost",
    "_loop",
]);

/// The state of a protocol whose class overrides nothing.
#[inline]
pub(super) fn plain<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a StreamReaderProtocol> {
    let state = PROTOCOL.get(object)?;
    HOOKS
        .are_ours(
            object,
            &state.plainness,
            || PROTOCOL.type_object(object.py()),
            &imports(object.py()).stream_reader_protocol,
        )
        .then_some(state)
}

impl StreamReaderProtocol {
    /// The reader, as long as somebody else holds it.
    #[inline]
    fn reader<'py>(&self, py: Python<'py>) -> Returned<'py> {
        match self.reader.get(py) {
            None => Ok(none(py)),
            Some(reference) => match reference.cast::<PyWeakrefReference>() {
                Ok(reference) => Ok(reference.upgrade().unwrap_or_else(|| none(py))),
                Err(_) => reference.call0(),
            },
        }
    }

    /// `_drain_helper()`: the future to wait for is put into `waiter`.
    pub(super) fn drain<'py>(&self, py: Python<'py>, waiter: &Slot) -> PyResult<Step<'py>> {
        if self.connection_lost.get() {
            return Err(PyConnectionResetError::new_err("Connection lost"));
        }
        if !self.paused.get() {
            return Step::done(py);
        }
        let future = create_future(&self.event_loop.get_or_none(py))?;
        let waiters = self.drain_waiters.get_or_none(py);
        method1(&waiters, intern!(py, "append"), &future)?;
        waiter.set(future.clone());
        Ok(Step::Wait(future))
    }

    /// Takes the future of a drain out again.
    pub(super) fn drained(&self, waiter: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = waiter.py();
        let waiters = self.drain_waiters.get_or_none(py);
        method1(&waiters, intern!(py, "remove"), waiter).map(drop)
    }
}

// -- fed by a native transport ---------------------------------------------------------------------

/// What the transports are told.
pub(super) const READERS: Readers = Readers {
    of_protocol: direct_reader,
    lend,
    fed,
};

/// The reader to feed. Without one, `data_received()` says what to do.
#[inline]
fn direct_reader<'py>(protocol: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let reader = plain(protocol)?.reader.get(protocol.py())?;
    let reader = reader.cast::<PyWeakrefReference>().ok()?.upgrade()?;
    let state = reader::plain(&reader)?;
    (state.storage.is_own() && !state.eof.get()).then_some(reader)
}

fn lend(reader: &Bound<'_, PyAny>, body: &mut dyn FnMut(&mut ReadBuffer)) {
    READER.of(reader).storage.lend(body);
}

fn fed(reader: &Bound<'_, PyAny>) -> PyResult<()> {
    READER.of(reader).fed(reader.py())
}

// -- methods ---------------------------------------------------------------------------------------

fn data_received<'py>(object: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let reader = match plain(object) {
        Some(state) => state.reader(py)?,
        None => object.getattr(intern!(py, "_stream_reader"))?,
    };
    match reader::plain(&reader) {
        Some(state) => state.feed(data)?,
        None if reader.is_none() => {}
        None => {
            method1(&reader, intern!(py, "feed_data"), data)?;
        }
    }
    Ok(none(py))
}

fn stream_reader<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    PROTOCOL.of(object).reader(object.py())
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = PROTOCOL.make(
        module.py(),
        c"weft._weft.StreamReaderProtocol",
        None,
        Description {
            methods: vec![
                method!(named "data_received"("data") => data_received, "data_received($self, data)\n--\n\nFeed the reader."),
            ],
            properties: vec![
                property!("_stream_reader" => stream_reader),
                stored!(PROTOCOL, "_stream_reader_wr" => reader),
                stored!(PROTOCOL, "_loop" => event_loop),
                stored!(PROTOCOL, "_drain_waiters" => drain_waiters),
                flag!(PROTOCOL, "_paused" => paused),
                flag!(PROTOCOL, "_connection_lost" => connection_lost),
            ],
            slots: class_slots::<StreamReaderProtocol>(),
            instantiable: true,
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("StreamReaderProtocol", class)
}
