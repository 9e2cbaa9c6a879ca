//! The write buffer's limits: when a protocol is asked to pause and when to go on.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyAny;

/// asyncio's default high-water mark, in bytes.
const DEFAULT_HIGH: usize = 64 * 1024;

/// High and low water mark, in bytes: pause above the one, resume at or below the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The protocol is paused above so many unsent bytes.
    pub high: usize,
    /// The protocol goes on at so many or fewer.
    pub low: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self::below(DEFAULT_HIGH)
    }
}

impl Limits {
    /// A high-water mark, and the low one that goes with it.
    pub const fn below(high: usize) -> Self {
        Self {
            high,
            low: high / 4,
        }
    }

    /// The limits that `set_write_buffer_limits(high, low)` means, where `default` is meant by none.
    ///
    /// # Errors
    /// `ValueError` unless `high >= low >= 0`.
    pub fn from_arguments(
        high: Option<&Bound<'_, PyAny>>,
        low: Option<&Bound<'_, PyAny>>,
        default: Self,
    ) -> PyResult<Self> {
        let given = |value: Option<&Bound<'_, PyAny>>| -> PyResult<Option<i64>> {
            value
                .filter(|value| !value.is_none())
                .map(PyAnyMethods::extract)
                .transpose()
        };
        let (high, low) = match (given(high)?, given(low)?) {
            (None, None) => return Ok(default),
            (None, Some(low)) => (low.saturating_mul(4), low),
            (Some(high), None) => (high, high.div_euclid(4)),
            (Some(high), Some(low)) => (high, low),
        };
        match (usize::try_from(high), usize::try_from(low)) {
            (Ok(high), Ok(low)) if high >= low => Ok(Self { high, low }),
            _ => Err(PyValueError::new_err(format!(
                "high ({high}) must be >= low ({low}) must be >= 0"
            ))),
        }
    }
}
