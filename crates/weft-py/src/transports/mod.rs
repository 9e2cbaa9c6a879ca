//! Transports: what a protocol writes to, and what feeds it.
//!
//! Who adopts a descriptor closes it, once: a transport owns its Python socket from its construction on, and closes it
//! after `connection_lost()`. A transport keeps itself alive through the loop's watch table while it reads or writes.

mod callbacks;
mod datagram;
mod details;
mod flow_control;
mod read_buffer;
mod stream;
mod watching;
mod write_buffer;

pub use read_buffer::ReadBuffer;
pub use stream::direct;

use pyo3::prelude::*;

/// Makes the classes and adds them to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    stream::register(module)?;
    datagram::register(module)
}
