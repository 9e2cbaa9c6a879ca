//! The transport of a connected stream socket, TCP or Unix.
//!
//! What it does, and in which order, is what asyncio's selector transport does:
//!
//! - `connection_made()`, then reading starts, then the waiter of the connection is told, all in the next turn.
//! - `write()` tries to send at once. What the socket does not take waits in the buffer until it is writable.
//!   Further writes of the same turn are joined; see [`joining`].
//! - `closing` is set by whoever starts to close. `connection_lost()` is called once: `lost` counts from 1 when the
//!   call has been scheduled, and every later `write()` only counts it up.
//! - Callbacks run in the context in which the transport was made.

mod attributes;
mod closing;
pub mod direct;
mod joining;
mod methods;
mod opening;
pub(super) mod reading;
mod socket;
mod writing;

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::mem::offset_of;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyType};

use direct::Fed;
pub use opening::{make, make_connected};
use socket::OwnedSocket;
pub use socket::Source;

use super::flow_control::Limits;
use super::write_buffer::WriteBuffer;
use crate::event_loop::{EVENT_LOOP, Interest};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::slot;
use crate::transports::methods::Reading;
use crate::transports::{callbacks, watching};

/// The state of a stream transport.
#[derive(Debug, Default)]
pub struct StreamTransport {
    /// The loop; given up, like everything below it, after `connection_lost()`.
    event_loop: Slot,
    /// The socket, which this transport owns and closes.
    socket: OwnedSocket,
    /// Who is told what arrives.
    protocol: Slot,
    /// The server that accepted the connection, if one did; it counts its transports.
    server: Slot,
    /// The context in which the protocol is called.
    context: Slot,
    /// The future that `sendfile` waits on until the buffer is empty.
    empty_waiter: Slot,
    /// Python's list of weak references to the transport.
    weak_references: Slot,
    /// Python's dictionary of further attributes.
    dictionary: Slot,
    /// The token in the loop's watch table; 0 for none.
    token: Cell<u64>,
    /// How many bytes the next receive is expected to bring.
    expected: Cell<usize>,
    /// What has been written and not been sent.
    unsent: RefCell<WriteBuffer>,
    /// Whether writes are collected until the end of the turn; what is unsent then waits for that, not for the socket.
    joins: Cell<bool>,
    /// Whether there has been more than one write in this turn.
    several: Cell<bool>,
    /// Whether there was more than one write in the last turn in which there was one.
    chatty: Cell<bool>,
    /// So many writes pass before another turn is looked at for whether it has several.
    passing: Cell<u8>,
    /// When the protocol is asked to pause, and when to go on.
    limits: Cell<Limits>,
    /// 0 while connected; see the ground rules.
    lost: Cell<u32>,
    /// How a native protocol takes what arrives.
    receiver: Cell<Option<direct::Receive>>,
    /// Whether the protocol lends its own buffer.
    buffered_protocol: Cell<bool>,
    /// Whether there has been a protocol to tell `connection_lost()`.
    connected: Cell<bool>,
    /// Whether reading has started, after `connection_made()`.
    started: Cell<bool>,
    /// Whether `pause_reading()` holds.
    paused: Cell<bool>,
    /// Whether the protocol has been asked to stop writing.
    protocol_paused: Cell<bool>,
    /// Whether the peer has ended its side and the protocol keeps ours open.
    ended: Cell<bool>,
    /// Whether `write_eof()` has been called.
    eof: Cell<bool>,
    /// Whether somebody has begun to end the connection.
    closing: Cell<bool>,
}

impl Native for StreamTransport {
    fn class() -> &'static Class<Self> {
        &STREAM
    }

    fn traverse(&self, visit: Visit) -> c_int {
        match self.socket.traverse(visit) {
            0 => visit.slots(self.slots()),
            answer => answer,
        }
    }

    fn clear(&self, _: Python<'_>) {
        self.socket.clear();
        for slot in self.slots() {
            slot.clear();
        }
    }
}

/// `weft.StreamTransport`.
pub static STREAM: Class<StreamTransport> = Class::new();

impl StreamTransport {
    fn slots(&self) -> [&Slot; 6] {
        [
            &self.event_loop,
            &self.protocol,
            &self.server,
            &self.context,
            &self.empty_waiter,
            &self.dictionary,
        ]
    }

    /// The descriptor to use now; see [`OwnedSocket::descriptor`].
    #[inline]
    fn descriptor(&self) -> RawFd {
        self.socket.descriptor()
    }

    fn is_reading(&self) -> bool {
        !self.closing.get() && !self.paused.get()
    }

    fn debug_log(&self, object: &Bound<'_, PyAny>, message: &str) -> PyResult<()> {
        callbacks::debug_log(object, &self.event_loop, message)
    }
}

impl Reading for StreamTransport {
    fn paused(&self) -> &Cell<bool> {
        &self.paused
    }

    fn update_interest(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(event_loop) = self.event_loop.get(object.py()) else {
            return Ok(());
        };
        let state = EVENT_LOOP.of(&event_loop);
        let interest = Interest {
            readable: self.started.get() && self.is_reading() && !self.ended.get(),
            writable: !self.unsent.borrow().is_empty() && self.lost.get() == 0 && !self.joins.get(),
        };
        watching::update(
            state,
            &self.token,
            self.socket.number(),
            object,
            notice,
            interest,
        )
    }

    fn start_reading(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.lost.get() == 0 {
            self.started.set(true);
            self.update_interest(object)?;
        }
        Ok(())
    }
}

/// The loop's notice that the descriptor is ready.
fn notice(object: &Bound<'_, PyAny>, readable: bool, writable: bool) -> PyResult<()> {
    let readable = if readable && STREAM.of(object).may_read() {
        match STREAM.of(object).feed(object.py()) {
            Fed::Done(Ok(())) if !writable => return Ok(()),
            fed => Some(fed),
        }
    } else {
        None
    };
    in_context(object, |state| {
        if let Some(fed) = readable {
            state.read_ready(object, fed)?;
        }
        if writable {
            state.write_ready(object)?;
        }
        Ok(())
    })
}

/// Runs a callback of the loop in the context in which the transport was made, and reports what it raises.
#[inline]
fn in_context(
    object: &Bound<'_, PyAny>,
    body: impl FnOnce(&StreamTransport) -> PyResult<()>,
) -> PyResult<()> {
    let state = STREAM.of(object);
    callbacks::in_context(object, &state.context, &state.event_loop, || body(state))
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let base = py
        .import("asyncio.transports")?
        .getattr("_FlowControlMixin")?
        .cast_into::<PyType>()?;
    let mut slots = class_slots::<StreamTransport>();
    slots.extend([
        slot!(init methods::init),
        slot!(repr attributes::representation),
        slot!(finalize closing::finalize),
    ]);
    let class = STREAM.make(
        py,
        c"weft.StreamTransport",
        Some(&base),
        Description {
            methods: methods::table(),
            properties: attributes::table(),
            slots,
            doc: Some(
                c"The transport of a connected TCP or Unix stream socket, an asyncio.Transport.",
            ),
            instantiable: true,
            weak_references: Some(offset_of!(StreamTransport, weak_references)),
            dictionary: Some(offset_of!(StreamTransport, dictionary)),
            ..Description::default()
        },
    )?;
    let mode = py
        .import("asyncio.constants")?
        .getattr("_SendfileMode")?
        .getattr("TRY_NATIVE")?;
    class.setattr("_sendfile_compatible", mode)?;
    class.setattr("_start_tls_compatible", true)?;
    class.setattr("max_size", reading::READ_SIZE)?;
    module.add("StreamTransport", class)
}
