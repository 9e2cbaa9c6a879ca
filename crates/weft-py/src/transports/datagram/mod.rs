//! The transport of a datagram socket: UDP, Unix, or any other that sends and receives messages.
//!
//! What it does, and in which order, is what asyncio's selector transport does:
//!
//! - `connection_made()`, then receiving starts, then the waiter is told, all in the next turn.
//! - `sendto()` tries to send at once. What the socket does not take waits, datagram by datagram, until it is writable.
//!   `writing` is set for as long, which is longer than the queue has something in it: an error ends a turn of sending,
//!   and the next one finds out that there is nothing left.
//! - An `OSError` is told to `error_received()` and ends nothing; every other exception ends the transport.
//! - `closing` is set by whoever starts to close. `connection_lost()` is called once: `lost` counts from 1 when the
//!   call has been scheduled.
//! - Callbacks run in the context in which the transport was made.
//!
//! Datagrams are received one by one, several for each time that the socket is readable: what a protocol does not get,
//! because it closes or pauses, stays in the kernel.

mod attributes;
mod closing;
mod methods;
mod receiving;
mod sending;

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::mem::offset_of;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyType};

use crate::transports::addresses::{Family, Senders};
use crate::transports::methods::Reading;
use sending::Outgoing;

use super::flow_control::Limits;
use super::{callbacks, watching};
use crate::event_loop::{EVENT_LOOP, Interest};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::socket::SocketMemory;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::slot;

/// The state of a datagram transport.
#[derive(Debug, Default)]
pub struct DatagramTransport {
    /// The loop; given up, like everything below it, after `connection_lost()`.
    event_loop: Slot,
    /// The Python socket, which this transport owns and closes.
    socket: Slot,
    /// Who is told what arrives.
    protocol: Slot,
    /// The one address that is sent to, where the transport was made with one.
    remote: Slot,
    /// What `get_extra_info()` knows, a dictionary.
    extra: Slot,
    /// The context in which the protocol is called.
    context: Slot,
    /// Python's list of weak references to the transport.
    weak_references: Slot,
    /// Python's dictionary of further attributes.
    dictionary: Slot,
    /// The descriptor's number when the transport was made: its place in the watch table.
    fd: Cell<RawFd>,
    /// Where the Python socket keeps its descriptor; see [`DatagramTransport::descriptor`].
    socket_memory: Cell<Option<SocketMemory>>,
    /// The token in the loop's watch table; 0 for none.
    token: Cell<u64>,
    /// What kind of socket it is, where system calls are made natively; else the Python socket makes them.
    family: Cell<Option<Family>>,
    /// Whether the socket is connected, so that the kernel knows where to send to.
    connected_socket: Cell<bool>,
    /// The addresses of late, as Python has them.
    senders: RefCell<Senders>,
    /// What is to be sent.
    outgoing: RefCell<Outgoing>,
    /// When the protocol is asked to pause, and when to go on.
    limits: Cell<Limits>,
    /// 0 while it is open; see the ground rules.
    lost: Cell<u32>,
    /// Whether there has been a protocol to tell `connection_lost()`.
    connected: Cell<bool>,
    /// Whether receiving has started, after `connection_made()`.
    started: Cell<bool>,
    /// Whether `pause_reading()` holds.
    paused: Cell<bool>,
    /// Whether the protocol has been asked to stop sending.
    protocol_paused: Cell<bool>,
    /// Whether the socket is watched for room to send; see the ground rules.
    writing: Cell<bool>,
    /// Whether somebody has begun to end the transport.
    closing: Cell<bool>,
}

impl Native for DatagramTransport {
    fn class() -> &'static Class<Self> {
        &DATAGRAM
    }

    fn traverse(&self, visit: Visit) -> c_int {
        // Addresses refer to nothing that could refer back.
        visit.slots(self.slots())
    }

    fn clear(&self, _: Python<'_>) {
        for slot in self.slots() {
            slot.clear();
        }
    }
}

/// `weft.DatagramTransport`.
pub static DATAGRAM: Class<DatagramTransport> = Class::new();

impl DatagramTransport {
    fn slots(&self) -> [&Slot; 7] {
        [
            &self.event_loop,
            &self.socket,
            &self.protocol,
            &self.remote,
            &self.extra,
            &self.context,
            &self.dictionary,
        ]
    }

    /// The descriptor to use now: -1, which every system call refuses, once somebody has closed the socket behind our
    /// back. Its number may be a stranger's by then.
    #[inline]
    fn descriptor(&self) -> RawFd {
        self.socket_memory
            .get()
            .map_or(-1, |memory| memory.descriptor(&self.socket, self.fd.get()))
    }

    fn is_reading(&self) -> bool {
        !self.closing.get() && !self.paused.get()
    }

    /// Whether the next datagram may be received.
    #[inline]
    fn hears(&self) -> bool {
        self.lost.get() == 0 && self.started.get() && self.is_reading()
    }
}

impl Reading for DatagramTransport {
    fn paused(&self) -> &Cell<bool> {
        &self.paused
    }

    fn update_interest(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(event_loop) = self.event_loop.get(object.py()) else {
            return Ok(());
        };
        let interest = Interest {
            readable: self.hears(),
            writable: self.writing.get() && self.lost.get() == 0,
        };
        watching::update(
            EVENT_LOOP.of(&event_loop),
            &self.token,
            self.fd.get(),
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
    let state = DATAGRAM.of(object);
    callbacks::in_context(object, &state.context, &state.event_loop, || {
        if readable {
            state.read_ready(object)?;
        }
        if writable {
            state.write_ready(object)?;
        }
        Ok(())
    })
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let transports = py.import("asyncio.transports")?;
    let base = transports
        .getattr("_FlowControlMixin")?
        .cast_into::<PyType>()?;
    let mixin = transports
        .getattr("DatagramTransport")?
        .cast_into::<PyType>()?;
    let mut slots = class_slots::<DatagramTransport>();
    slots.extend([
        slot!(init methods::init),
        slot!(repr attributes::representation),
        slot!(finalize closing::finalize),
    ]);
    let class = DATAGRAM.make(
        py,
        c"weft.DatagramTransport",
        Some(&base),
        Description {
            methods: methods::table(),
            properties: attributes::table(),
            slots,
            doc: Some(c"The transport of a datagram socket, an asyncio.DatagramTransport."),
            mixin: Some(mixin.unbind()),
            instantiable: true,
            weak_references: Some(offset_of!(DatagramTransport, weak_references)),
            dictionary: Some(offset_of!(DatagramTransport, dictionary)),
            ..Description::default()
        },
    )?;
    class.setattr("max_size", receiving::READ_SIZE)?;
    module.add("DatagramTransport", class)
}
