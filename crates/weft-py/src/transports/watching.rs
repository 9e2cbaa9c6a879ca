//! What a transport waits for, in the loop's table of watched descriptors.

use std::cell::Cell;
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::event_loop::{self, EventLoop, Interest, Notice};

/// Watches `fd` for `interest` and nothing else from now on. `token` is the transport's place in the table, 0 for none.
///
/// # Errors
/// As [`event_loop::watch`] and [`event_loop::rewatch`].
pub fn update(
    event_loop: &EventLoop,
    token: &Cell<u64>,
    fd: RawFd,
    object: &Bound<'_, PyAny>,
    notice: Notice,
    interest: Interest,
) -> PyResult<()> {
    let wanted = interest.readable || interest.writable;
    match token.get() {
        0 if wanted => {
            token.set(event_loop::watch(event_loop, fd, object, notice, interest)?);
            Ok(())
        }
        0 => Ok(()),
        known if wanted => event_loop::rewatch(event_loop, known, interest),
        known => {
            token.set(0);
            event_loop::unwatch(event_loop, known);
            Ok(())
        }
    }
}
