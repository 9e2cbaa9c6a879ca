//! The writer, and `drain()`.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule};

use super::protocol::{self, PROTOCOL};
use super::{none, reader, stored};
use crate::ffi::call::{method0, method1};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::Returned;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::operations::{self, Operation, Step};
use crate::transports::direct;
use crate::{make_operation, method, operation};

/// The native part of `weft.StreamWriter`.
#[derive(Debug, Default)]
pub struct StreamWriter {
    transport: Slot,
    protocol: Slot,
    reader: Slot,
    event_loop: Slot,
}

impl StreamWriter {
    fn slots(&self) -> [&Slot; 4] {
        [
            &self.transport,
            &self.protocol,
            &self.reader,
            &self.event_loop,
        ]
    }
}

impl Native for StreamWriter {
    fn class() -> &'static Class<Self> {
        &WRITER
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots(self.slots())
    }

    fn clear(&self, _: Python<'_>) {
        for slot in self.slots() {
            slot.clear();
        }
    }
}

/// `_weft.StreamWriter`.
pub static WRITER: Class<StreamWriter> = Class::new();

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It has given way to the end of a connection that is being closed.
    #[default]
    GaveWay,
    /// It waits in our own protocol's queue.
    Queued,
    /// The protocol's own method waits.
    Delegated,
}

/// `drain()`.
#[derive(Debug, Default)]
pub struct Drain {
    writer: Slot,
    stage: Cell<Stage>,
    /// The protocol in whose queue `waiter` is.
    protocol: Slot,
    waiter: Slot,
}

impl Drain {
    #[inline]
    fn wait<'py>(&self, state: &StreamWriter, py: Python<'py>) -> PyResult<Step<'py>> {
        let protocol = state.protocol.get_or_none(py);
        let Some(own) = protocol::plain(&protocol) else {
            self.stage.set(Stage::Delegated);
            return method0(&protocol, intern!(py, "_drain_helper")).map(Step::Await);
        };
        let step = own.drain(py, &self.waiter)?;
        if self.waiter.is_set() {
            self.stage.set(Stage::Queued);
            self.protocol.set(protocol);
        }
        Ok(step)
    }
}

impl Operation for Drain {
    operation!(Drain, "StreamWriter.drain");

    #[inline]
    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let writer = self.writer.get_or_none(py);
        let state = WRITER.of(&writer);
        if let Some(reader) = state.reader.get(py) {
            if let Some(reader) = reader::plain(&reader) {
                reader.check(py)?;
            } else {
                let error = method0(&reader, intern!(py, "exception"))?;
                if !error.is_none() {
                    return Err(PyErr::from_value(error));
                }
            }
        }
        let transport = state.transport.get_or_none(py);
        let closing = match direct::native(&transport) {
            Some(native) => direct::is_closing(native),
            None => method0(&transport, intern!(py, "is_closing"))?.is_truthy()?,
        };
        if closing {
            // `connection_lost()` may be scheduled already: what it says is for this drain to raise.
            return Ok(Step::Pass);
        }
        self.wait(state, py)
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        match self.stage.get() {
            Stage::GaveWay => {
                outcome?;
                let writer = self.writer.get_or_none(py);
                self.wait(WRITER.of(&writer), py)
            }
            Stage::Queued => {
                let protocol = self.protocol.take(py).unwrap_or_else(|| none(py));
                if let (Some(own), Some(waiter)) = (PROTOCOL.get(&protocol), self.waiter.take(py)) {
                    own.drained(&waiter)?;
                }
                outcome?;
                Step::done(py)
            }
            Stage::Delegated => {
                outcome?;
                Step::done(py)
            }
        }
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.writer, &self.protocol, &self.waiter])
    }

    fn clear(&self) {
        self.writer.clear();
        self.protocol.clear();
        self.waiter.clear();
    }
}

// -- methods ---------------------------------------------------------------------------------------

#[inline]
fn write<'py>(object: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let transport = WRITER.of(object).transport.get_or_none(py);
    match direct::native(&transport) {
        Some(_) => direct::write(&transport, data)?,
        None => {
            method1(&transport, intern!(py, "write"), data)?;
        }
    }
    Ok(none(py))
}

fn writelines<'py>(object: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let transport = WRITER.of(object).transport.get_or_none(py);
    match direct::native(&transport) {
        Some(_) => direct::writelines(&transport, data)?,
        None => {
            method1(&transport, intern!(py, "writelines"), data)?;
        }
    }
    Ok(none(py))
}

fn drain<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(object.py(), |drain: &Drain| {
        drain.writer.fill(object.clone());
    })
}

/// Makes the classes and adds the writer to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    make_operation!(module.py(), Drain)?;
    let class = WRITER.make(
        module.py(),
        c"weft._weft.StreamWriter",
        None,
        Description {
            methods: vec![
                method!(named "write"("data") => write, "write($self, data)\n--\n\nSend data, a bytes-like object, now or as soon as the transport takes it."),
                method!(named "writelines"("data") => writelines, "writelines($self, data)\n--\n\nSend the bytes-like objects of an iterable, in order."),
                method!(none "drain" => drain, "drain($self)\n--\n\nCoroutine that ends when it is time to write more. Raises what has ended the connection."),
            ],
            properties: vec![
                stored!(WRITER, "_transport" => transport),
                stored!(WRITER, "_protocol" => protocol),
                stored!(WRITER, "_reader" => reader),
                stored!(WRITER, "_loop" => event_loop),
            ],
            slots: class_slots::<StreamWriter>(),
            instantiable: true,
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("StreamWriter", class)
}
