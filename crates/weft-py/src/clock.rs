//! What time it is for the loop.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDictMethods;

use crate::imports::imports;

/// `time.monotonic()`, and whatever test libraries have put in its place.
///
/// # Errors
/// What a replacement raises.
pub fn monotonic(py: Python<'_>) -> PyResult<f64> {
    let imports = imports(py);
    let current = imports
        .time_module
        .bind(py)
        .get_item(intern!(py, "monotonic"))?;
    match current {
        Some(function) if !function.is(&imports.monotonic) || is_rewired(py) => {
            function.call0()?.extract()
        }
        _ => Ok(weft_reactor::clock::monotonic()),
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
