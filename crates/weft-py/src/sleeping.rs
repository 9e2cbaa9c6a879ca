//! `sleep()`.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule};

use crate::ffi::method::{Args, Returned};
use crate::ffi::object::is_zero;
use crate::ffi::{Slot, Visit};
use crate::operations::{
    self, Operation, Step, cancel_timer, create_future, finish_later, running_loop,
};
use crate::{make_operation, method, operation};

/// `sleep(delay, result)`; a delay of 0 is not kept.
#[derive(Debug, Default)]
pub struct Sleep {
    delay: Slot,
    result: Slot,
    timer: Slot,
    waits: Cell<bool>,
}

impl Operation for Sleep {
    operation!(Sleep, "sleep");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        if !self.delay.is_set() {
            return Ok(Step::Pass);
        }
        let delay = self.delay.get_or_none(py);
        let seconds: Option<f64> = delay.extract().ok();
        let passes = match seconds {
            Some(seconds) => seconds <= 0.0,
            None => delay.le(0)?,
        };
        if passes {
            return Ok(Step::Pass);
        }
        if seconds.is_some_and(f64::is_nan) {
            return Err(PyValueError::new_err("Invalid delay: NaN (not a number)"));
        }
        let event_loop = running_loop(py)?;
        let future = create_future(&event_loop)?;
        let result = self.result.get_or_none(py);
        self.timer
            .set(finish_later(&event_loop, &delay, &future, &result)?);
        self.waits.set(true);
        Ok(Step::Wait(future))
    }

    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        if let Some(timer) = self.timer.take(py) {
            cancel_timer(&timer)?;
        }
        let value = outcome?;
        Ok(Step::Done(if self.waits.get() {
            value
        } else {
            self.result.get_or_none(py)
        }))
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.delay, &self.result, &self.timer])
    }

    fn clear(&self) {
        self.delay.clear();
        self.result.clear();
        self.timer.clear();
    }
}

fn sleep<'py>(module: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [delay, result] = if args.count() == 1 && !args.has_keywords() {
        [args.get(0), None]
    } else {
        args.bind("sleep", ["delay", "result"])?
    };
    let delay = delay.ok_or_else(|| crate::ffi::method::missing_argument("sleep", "delay"))?;
    operations::operation(module.py(), |sleep: &Sleep| {
        // The most frequent delay, by far, is the integer 0; it needs no look at the first step.
        if !is_zero(&delay) {
            sleep.delay.fill(delay.to_owned());
        }
        if let Some(result) = result {
            sleep.result.fill(result.to_owned());
        }
    })
}

/// The functions of the module.
pub fn functions() -> Vec<ffi::PyMethodDef> {
    vec![method!(fast "sleep" => sleep,
        "sleep($module, delay, result=None)\n--\n\nCoroutine that completes after delay seconds, with result.")]
}

/// Makes the operations' classes.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    make_operation!(module.py(), Sleep)
}
