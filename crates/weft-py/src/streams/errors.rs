//! The errors of a stream's end and limit.

use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::imports::imports;

/// `IncompleteReadError(partial, expected)`.
#[cold]
pub(super) fn incomplete(partial: Bound<'_, PyAny>, expected: Option<usize>) -> PyErr {
    let py = partial.py();
    match imports(py)
        .incomplete_read_error
        .bind(py)
        .call1((partial, expected))
    {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// `LimitOverrunError(message, consumed)`.
#[cold]
pub(super) fn overrun(py: Python<'_>, message: &str, consumed: usize) -> PyErr {
    match imports(py)
        .limit_overrun_error
        .bind(py)
        .call1((message, consumed))
    {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}
