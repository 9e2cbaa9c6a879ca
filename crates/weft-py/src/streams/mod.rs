//! `StreamReader`, `StreamReaderProtocol` and `StreamWriter`.
//!
//! Ground rules:
//!
//! - Each class here is the native part of a Python class that has asyncio's own as its second base (`weft/_streams.py`).
//!   The state that asyncio's methods share is here, shown as properties by asyncio's names, so that inherited code and
//!   native code see one truth. What runs per packet, per line and per write is native, the rest is inherited.
//! - Native code is right only as long as nobody has overridden what it does by itself. [`plain`] tells; where somebody
//!   has, the method does what asyncio's does, step by step, by calling asyncio's.
//! - A native transport feeds a reader's buffer directly, see [`transports::direct`](crate::transports::direct).

mod errors;
mod plain;
mod protocol;
mod reader;
mod reading;
mod search;
mod storage;
mod until;
mod writer;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule};

use crate::ffi::Slot;
use crate::transports::direct;

/// A property over a [`Slot`], empty where Python sees `None`: `stored!(READER, "_waiter" => waiter)`.
macro_rules! stored {
    ($class:path, $name:literal => $field:ident) => {{
        fn get<'py>(
            object: &pyo3::Bound<'py, pyo3::PyAny>,
        ) -> crate::ffi::method::Returned<'py> {
            Ok($class.of(object).$field.get_or_none(object.py()))
        }
        fn set(
            object: &pyo3::Bound<'_, pyo3::PyAny>,
            value: Option<pyo3::Borrowed<'_, '_, pyo3::PyAny>>,
        ) -> pyo3::PyResult<()> {
            $crate::streams::store(&$class.of(object).$field, value);
            Ok(())
        }
        crate::property!($name => get, set)
    }};
}

/// A property over a `Cell<bool>`: `flag!(READER, "_eof" => eof)`.
macro_rules! flag {
    ($class:path, $name:literal => $field:ident) => {{
        fn get<'py>(
            object: &pyo3::Bound<'py, pyo3::PyAny>,
        ) -> crate::ffi::method::Returned<'py> {
            let value = $class.of(object).$field.get();
            Ok(pyo3::types::PyBool::new(object.py(), value)
                .to_owned()
                .into_any())
        }
        fn set(
            object: &pyo3::Bound<'_, pyo3::PyAny>,
            value: Option<pyo3::Borrowed<'_, '_, pyo3::PyAny>>,
        ) -> pyo3::PyResult<()> {
            let value = value.map_or(Ok(false), |value| value.is_truthy())?;
            $class.of(object).$field.set(value);
            Ok(())
        }
        crate::property!($name => get, set)
    }};
}

pub(crate) use {flag, stored};

/// Puts what Python assigns into a slot; `None`, and deleting, empties it.
fn store(slot: &Slot, value: Option<pyo3::Borrowed<'_, '_, PyAny>>) {
    match value {
        Some(value) if !value.is_none() => slot.set(value.to_owned()),
        _ => slot.clear(),
    }
}

fn none(py: Python<'_>) -> Bound<'_, PyAny> {
    py.None().into_bound(py)
}

/// Makes the classes and adds them to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    reader::register(module)?;
    reading::register(module)?;
    until::register(module)?;
    protocol::register(module)?;
    writer::register(module)?;
    direct::set_readers(protocol::READERS);
    Ok(())
}
