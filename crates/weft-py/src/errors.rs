//! Errors of the operating system as Python has them.

use std::io;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// The `OSError`, or rather the subclass for its `errno`, that Python's own socket calls would raise.
pub fn os_error(error: io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => Python::attach(|py| {
            // The constructor picks the subclass; the text is the one that Python's calls give.
            let text = py
                .import("os")
                .and_then(|os| os.call_method1("strerror", (number,)));
            match text {
                Ok(text) => PyOSError::new_err((number, text.unbind())),
                Err(_) => PyOSError::new_err((number, error.to_string())),
            }
        }),
        None => error.into(),
    }
}
