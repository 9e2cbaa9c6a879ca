//! What time it is for the loop.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDictMethods;

use crate::ffi::object::dictionary_version;
use crate::imports::imports;

/// `time.monotonic()`, and whatever test libraries have put in its place.
///
/// # Errors
/// What a replacement raises.
#[inline]
pub fn monotonic(py: Python<'_>) -> PyResult<f64> {
    let version = dictionary_version(imports(py).time_module.bind(py));
    if (version == 0 || version != UNPATCHED.load(Ordering::Relaxed)) && !look_up(py, version)? {
        return replacement(py);
    }
    if is_rewired(py) {
        return replacement(py);
    }
    Ok(weft_reactor::clock::monotonic())
}

/// The version of the module `time` in which `monotonic` was seen in its place.
static UNPATCHED: AtomicU64 = AtomicU64::new(0);

/// Whether `time.monotonic` is what it was at import.
fn look_up(py: Python<'_>, version: u64) -> PyResult<bool> {
    let imports = imports(py);
    let current = imports
        .time_module
        .bind(py)
        .get_item(intern!(py, "monotonic"))?;
    let unpatched = current.is_none_or(|function| function.is(&imports.monotonic));
    if unpatched {
        UNPATCHED.store(version, Ordering::Relaxed);
    }
    Ok(unpatched)
}

/// What `time.monotonic()` returns now.
#[cold]
fn replacement(py: Python<'_>) -> PyResult<f64> {
    let module = imports(py).time_module.bind(py);
    match module.get_item(intern!(py, "monotonic"))? {
        Some(function) => function.call0()?.extract(),
        None => Ok(weft_reactor::clock::monotonic()),
    }
}

/// Whether somebody has exchanged the C function behind `time.monotonic`, as time-machine does.
fn is_rewired(py: Python<'_>) -> bool {
    crate::ffi::call::c_function_changed(imports(py).monotonic.bind(py))
}

/// Remembers the C function behind `time.monotonic`.
pub fn remember(py: Python<'_>) {
    let _ = is_rewired(py);
}

/// The precision below which two moments are the same: `time.get_clock_info('monotonic').resolution`.
pub const RESOLUTION: f64 = 1e-9;
