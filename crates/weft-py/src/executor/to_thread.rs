//! `to_thread()`.

use std::ffi::c_int;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyModule, PyTuple};

use super::job::Call;
use super::{default_executor, submit};
use crate::event_loop::EVENT_LOOP;
use crate::ffi::context::copy_current;
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Slot, Visit};
use crate::imports::imports;
use crate::operations::{self, Operation, Step, running_loop};
use crate::{make_operation, method, operation};

/// `to_thread(func, /, *args, **kwargs)`. It holds what the function is called with until it has ended, so that all that
/// dies with it dies in the loop's thread.
#[derive(Debug, Default)]
pub struct ToThread {
    function: Slot,
    arguments: Slot,
    keywords: Slot,
}

impl ToThread {
    fn call<'py>(&self, py: Python<'py>) -> PyResult<Call<'py>> {
        let cast = "an argument of to_thread() has changed its type";
        Ok(Call {
            function: self.function.get_or_none(py),
            arguments: self
                .arguments
                .get(py)
                .map(Bound::cast_into::<PyTuple>)
                .transpose()
                .map_err(|_| PyTypeError::new_err(cast))?,
            keywords: self
                .keywords
                .get(py)
                .map(Bound::cast_into::<PyDict>)
                .transpose()
                .map_err(|_| PyTypeError::new_err(cast))?,
            context: Some(copy_current(py)?),
        })
    }
}

/// asyncio's own way, on a loop that is not ours, or whose executor is not: `loop.run_in_executor(None, partial)`.
fn by_method<'py>(event_loop: &Bound<'py, PyAny>, call: Call<'py>) -> Returned<'py> {
    let py = event_loop.py();
    let mut arguments = Vec::new();
    if let Some(context) = &call.context {
        arguments.push(context.getattr(intern!(py, "run"))?);
    }
    arguments.push(call.function);
    if let Some(further) = &call.arguments {
        arguments.extend(further.iter());
    }
    let function = imports(py)
        .partial
        .bind(py)
        .call(PyTuple::new(py, arguments)?, call.keywords.as_ref())?;
    event_loop.call_method1(intern!(py, "run_in_executor"), (py.None(), function))
}

impl Operation for ToThread {
    operation!(ToThread, "to_thread");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let event_loop = running_loop(py)?;
        let mut call = self.call(py)?;
        if let Some(state) = EVENT_LOOP.get(&event_loop)
            && state.takes_from_threads(&event_loop)
        {
            let executor = default_executor(state, py)?;
            match submit(state, &event_loop, &executor, call)? {
                Ok(future) => return Ok(Step::Wait(future)),
                Err(back) => call = back,
            }
        }
        Ok(Step::Wait(by_method(&event_loop, call)?))
    }

    fn resume<'py>(&self, _: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<Step<'py>> {
        outcome.map(Step::Done)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.function, &self.arguments, &self.keywords])
    }

    fn clear(&self) {
        self.function.clear();
        self.arguments.clear();
        self.keywords.clear();
    }
}

fn to_thread<'py>(module: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = module.py();
    let function = args.required("to_thread", 0, "func")?;
    let arguments = if args.count() > 1 {
        Some(args.rest(1)?)
    } else {
        None
    };
    let keywords = if args.has_keywords() {
        let keywords = PyDict::new(py);
        for (name, value) in args.keywords() {
            keywords.set_item(name, value)?;
        }
        Some(keywords)
    } else {
        None
    };
    operations::operation(py, |operation: &ToThread| {
        operation.function.fill(function.to_owned());
        if let Some(arguments) = arguments {
            operation.arguments.fill(arguments.into_any());
        }
        if let Some(keywords) = keywords {
            operation.keywords.fill(keywords.into_any());
        }
    })
}

/// The functions of the module.
pub fn functions() -> Vec<ffi::PyMethodDef> {
    vec![method!(fast "to_thread" => to_thread,
        "to_thread($module, func, /, *args, **kwargs)\n--\n\nCoroutine that calls func(*args, **kwargs) in a thread of the loop's default executor, in a copy of the current\ncontext, and completes with what it returns.")]
}

/// Makes the operation's class.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    make_operation!(module.py(), ToThread)
}
