//! Transports: what a protocol writes to, and what feeds it.
//!
//! Who adopts a descriptor closes it, once: a transport owns its socket from its construction on, and closes it
//! after `connection_lost()`. A transport keeps itself alive through the loop's watch table while it reads or writes.

mod accepting;
mod addresses;
mod callbacks;
mod clients;
mod connecting;
mod datagram;
mod details;
mod flow_control;
mod methods;
mod pipe;
mod read_buffer;
mod stream;
mod tls;
mod watching;
mod write_buffer;

pub use read_buffer::ReadBuffer;
pub use stream::direct;

use pyo3::ffi;
use pyo3::prelude::*;

/// Makes the classes and adds them to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    clients::register(module)?;
    connecting::register(module)?;
    stream::register(module)?;
    datagram::register(module)?;
    tls::register(module)?;
    pipe::register(module)
}

/// The methods of the loop that are of this layer.
pub fn loop_methods() -> Vec<ffi::PyMethodDef> {
    let mut methods = accepting::loop_methods();
    methods.extend(connecting::loop_methods());
    methods
}
