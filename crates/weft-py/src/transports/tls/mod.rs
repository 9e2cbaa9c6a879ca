//! TLS over a native transport: what the program has for its transport, and the protocol of the one below, in one.
//!
//! Ground rules:
//!
//! - The caller's own `ssl.SSLContext` makes the `SSLObject` that does the work, over two `ssl.MemoryBIO`s
//!   ([`engine`]). No TLS is spoken here; what is here is `asyncio.sslproto`, state by state.
//! - [`State`] is the connection's, [`Told`] what its protocol has been told. Both only ever go on, but for
//!   [`State::Unwrapped`], in which a connection begins and ends.
//! - Whatever calls the application or the `SSLObject` looks at the state again afterwards: the call may have written,
//!   closed, aborted, or set another protocol.
//! - The transport below holds this one as its protocol, and this one holds it in `lower`: a circle while the
//!   connection is alive, which `connection_lost()` opens.
//! - Everything that the `SSLObject` has to say goes out right after it was called ([`writing`]), unless the transport
//!   below has asked to wait.

mod attributes;
mod closing;
mod engine;
mod handshake;
mod methods;
mod protocol;
mod reading;
mod writing;

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::mem::offset_of;

use pyo3::prelude::*;
use pyo3::types::PyType;

use super::flow_control::Limits;
use super::stream::direct;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::slot;
pub use methods::make_accepted;
use writing::Backlog;

/// Above so many decrypted or encrypted bytes asyncio stops to read, in bytes.
const READ_HIGH: usize = 256 * 1024;
/// Above so many unsent ones it asks the protocol to pause.
const WRITE_HIGH: usize = 512 * 1024;

/// How far the connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Not begun, or over.
    #[default]
    Unwrapped,
    /// Shaking hands.
    Handshaking,
    /// Open.
    Wrapped,
    /// Somebody has begun to close; what has arrived is delivered, what was written is sent.
    Flushing,
    /// The closing handshake.
    ShuttingDown,
}

/// What the application's protocol has been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    Made,
    Ended,
    Lost,
}

/// The state of a TLS transport.
#[derive(Debug)]
pub struct TlsTransport {
    /// The loop; given up, like the next two, after `connection_lost()`.
    event_loop: Slot,
    /// The transport below.
    lower: Slot,
    /// The application's protocol.
    protocol: Slot,
    /// The `ssl.SSLObject`, or what the context makes in its place.
    ssl_object: Slot,
    /// What is read from and written to: the `SSLObject`, or where nobody can have changed it, what it calls itself.
    engine: Slot,
    /// What has arrived, a `ssl.MemoryBIO`.
    incoming: Slot,
    /// What is to be sent, a `ssl.MemoryBIO`.
    outgoing: Slot,
    /// What `get_extra_info()` knows, a dictionary.
    extra: Slot,
    /// The future that waits for the handshake.
    waiter: Slot,
    /// In seconds, as the caller has given them.
    handshake_timeout: Slot,
    shutdown_timeout: Slot,
    handshake_timer: Slot,
    shutdown_timer: Slot,
    /// Python's list of weak references to the transport.
    weak_references: Slot,
    /// Python's dictionary of further attributes.
    dictionary: Slot,
    /// Whether the `SSLObject` is past by as described at `engine`.
    direct: Cell<bool>,
    state: Cell<State>,
    told: Cell<Told>,
    /// What has been written while nothing could be encrypted.
    backlog: RefCell<Backlog>,
    /// Whether the `SSLObject` has been called since `outgoing` was read.
    stirred: Cell<bool>,
    /// Writes after the end.
    lost: Cell<u32>,
    /// Whether the application has closed this, or was told of the end.
    closed: Cell<bool>,
    /// Whether it has been closed once more.
    closed_again: Cell<bool>,
    /// Whether `pause_reading()` holds.
    reading_paused: Cell<bool>,
    /// Whether the transport below has been asked not to read.
    lower_reading_paused: Cell<bool>,
    /// Whether the application's protocol has been asked not to write.
    writing_paused: Cell<bool>,
    /// Whether the transport below has asked us not to write.
    lower_writing_paused: Cell<bool>,
    buffered_protocol: Cell<bool>,
    /// Whether the transport below has ended.
    eof_received: Cell<bool>,
    /// Whether the closing handshake is done.
    shut_down: Cell<bool>,
    read_limits: Cell<Limits>,
    write_limits: Cell<Limits>,
    /// When the handshake began, in debug mode.
    began: Cell<f64>,
}

impl Default for TlsTransport {
    fn default() -> Self {
        Self {
            event_loop: Slot::empty(),
            lower: Slot::empty(),
            protocol: Slot::empty(),
            ssl_object: Slot::empty(),
            engine: Slot::empty(),
            incoming: Slot::empty(),
            outgoing: Slot::empty(),
            extra: Slot::empty(),
            waiter: Slot::empty(),
            handshake_timeout: Slot::empty(),
            shutdown_timeout: Slot::empty(),
            handshake_timer: Slot::empty(),
            shutdown_timer: Slot::empty(),
            weak_references: Slot::empty(),
            dictionary: Slot::empty(),
            direct: Cell::default(),
            state: Cell::default(),
            told: Cell::default(),
            backlog: RefCell::default(),
            stirred: Cell::default(),
            lost: Cell::default(),
            closed: Cell::default(),
            closed_again: Cell::default(),
            reading_paused: Cell::default(),
            lower_reading_paused: Cell::default(),
            writing_paused: Cell::default(),
            lower_writing_paused: Cell::default(),
            buffered_protocol: Cell::default(),
            eof_received: Cell::default(),
            shut_down: Cell::default(),
            read_limits: Cell::new(Limits::below(READ_HIGH)),
            write_limits: Cell::new(Limits::below(WRITE_HIGH)),
            began: Cell::default(),
        }
    }
}

impl TlsTransport {
    fn slots(&self) -> [&Slot; 14] {
        [
            &self.event_loop,
            &self.lower,
            &self.protocol,
            &self.ssl_object,
            &self.engine,
            &self.incoming,
            &self.outgoing,
            &self.extra,
            &self.waiter,
            &self.handshake_timeout,
            &self.shutdown_timeout,
            &self.handshake_timer,
            &self.shutdown_timer,
            &self.dictionary,
        ]
    }
}

impl Native for TlsTransport {
    fn class() -> &'static Class<Self> {
        &TLS
    }

    fn traverse(&self, visit: Visit) -> c_int {
        // What waits in the backlog is `bytes`, which refer to nothing.
        visit.slots(self.slots())
    }

    fn clear(&self, _: Python<'_>) {
        for slot in self.slots() {
            slot.clear();
        }
    }
}

/// `weft.SSLTransport`.
pub static TLS: Class<TlsTransport> = Class::new();

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
    let mut slots = class_slots::<TlsTransport>();
    slots.extend([
        slot!(init methods::init),
        slot!(repr attributes::representation),
        slot!(finalize closing::finalize),
    ]);
    let mut entries = methods::table();
    entries.extend(protocol::table());
    let class = TLS.make(
        py,
        c"weft.SSLTransport",
        Some(&base),
        Description {
            methods: entries,
            properties: attributes::table(),
            slots,
            doc: Some(c"The transport of a TLS connection, an asyncio.Transport."),
            instantiable: true,
            weak_references: Some(offset_of!(TlsTransport, weak_references)),
            dictionary: Some(offset_of!(TlsTransport, dictionary)),
            ..Description::default()
        },
    )?;
    let mode = py
        .import("asyncio.constants")?
        .getattr("_SendfileMode")?
        .getattr("FALLBACK")?;
    class.setattr("_sendfile_compatible", mode)?;
    class.setattr("_start_tls_compatible", true)?;
    direct::set_receivers(protocol::RECEIVERS);
    module.add("SSLTransport", class)
}
