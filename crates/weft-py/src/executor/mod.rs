//! Functions in threads: `run_in_executor()`, `to_thread()`, and the pool behind them.
//!
//! The pool is a `concurrent.futures.ThreadPoolExecutor` (`weft._executor.Executor`): it starts and joins its threads, and
//! whoever calls its `submit()` gets what that always gives. Two things are native. Its queue, at which threads wait
//! without the GIL ([`queue`]); and a second kind of entry in it, a [`job`], which knows the loop that asked for it. A job
//! needs no `concurrent.futures.Future`: the thread puts the outcome into the loop's ready queue, and the loop completes
//! its own future with it.
//!
//! A job is made where nobody could tell the difference. With debug mode on, with an executor of the user's, or with one
//! of the involved methods replaced, things go asyncio's way: `submit()` and `wrap_future()`.

mod job;
mod pool;
mod queue;
mod to_thread;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyModule, PyTuple};

use crate::event_loop::{EVENT_LOOP, EventLoop};
use crate::ffi::call::call0;
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::futures::create_future;
use crate::imports::imports;
use crate::method;
use job::Call;
use pool::POOL;

pub use to_thread::functions;

/// The default executor of a loop, made where there is none yet.
///
/// # Errors
/// `RuntimeError` after `shutdown_default_executor()`.
fn default_executor<'py>(state: &EventLoop, py: Python<'py>) -> Returned<'py> {
    if state.has_ended_executor() {
        return Err(PyRuntimeError::new_err("Executor shutdown has been called"));
    }
    if let Some(executor) = state.default_executor().get(py) {
        return Ok(executor);
    }
    let made = call0(
        &py.import(intern!(py, "weft._executor"))?
            .getattr(intern!(py, "default_executor"))?,
    )?;
    state.default_executor().set(made.clone());
    Ok(made)
}

/// Gives `call` to the threads of `executor` and returns the loop's future for it; `None` where that cannot be done
/// natively.
///
/// # Errors
/// `RuntimeError` where the executor takes no more work.
#[inline]
fn submit<'py>(
    state: &EventLoop,
    event_loop: &Bound<'py, PyAny>,
    executor: &Bound<'py, PyAny>,
    call: Call<'py>,
) -> PyResult<Result<Bound<'py, PyAny>, Call<'py>>> {
    let Some(pool) = POOL.get(executor) else {
        return Ok(Err(call));
    };
    if !state.takes_from_threads(event_loop) || !pool.submits_natively(executor)? {
        return Ok(Err(call));
    }
    let future = create_future(event_loop)?;
    pool.submit(executor, job::make(event_loop, &future, call)?)?;
    Ok(Ok(future))
}

/// `loop.run_in_executor(executor, func, *args)`.
fn run_in_executor<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = event_loop.py();
    let state = EVENT_LOOP.of(event_loop);
    let name = "run_in_executor";
    let mut bound = [args.get(0), args.get(1)];
    for (keyword, value) in args.keywords() {
        args.bind_keyword(name, &["executor", "func"], &mut bound, &keyword, value)?;
    }
    let [executor, function] = bound;
    let executor = executor.ok_or_else(|| missing_argument(name, "executor"))?;
    let function = function.ok_or_else(|| missing_argument(name, "func"))?;
    state.check_closed()?;
    if state.is_debug() {
        event_loop.call_method1(intern!(py, "_check_callback"), (function, name))?;
    }
    let executor = if executor.is_none() {
        default_executor(state, py)?
    } else {
        executor.to_owned()
    };
    let call = Call {
        function: function.to_owned(),
        arguments: if args.count() > 2 {
            Some(args.rest(2)?)
        } else {
            None
        },
        keywords: None,
        context: None,
    };
    match submit(state, event_loop, &executor, call)? {
        Ok(future) => Ok(future),
        Err(call) => submit_by_method(event_loop, &executor, call),
    }
}

/// asyncio's way to a future for a call in an executor of any kind.
fn submit_by_method<'py>(
    event_loop: &Bound<'py, PyAny>,
    executor: &Bound<'py, PyAny>,
    call: Call<'py>,
) -> Returned<'py> {
    let py = event_loop.py();
    let mut arguments = vec![call.function];
    if let Some(further) = &call.arguments {
        arguments.extend(further.iter());
    }
    let submitted = executor.call_method1(intern!(py, "submit"), PyTuple::new(py, arguments)?)?;
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "loop"), event_loop)?;
    imports(py)
        .wrap_future
        .bind(py)
        .call((submitted,), Some(&keywords))
}

/// The loop's methods that are written here.
pub fn loop_methods() -> Vec<ffi::PyMethodDef> {
    vec![method!(fast "run_in_executor" => run_in_executor,
        "run_in_executor($self, executor, func, *args)\n--\n\nCall func(*args) in the executor, the default one if it is None; return a future of what it returns.")]
}

/// Makes the classes and adds those that Python needs to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    job::register(module.py())?;
    queue::register(module)?;
    pool::register(module)?;
    to_thread::register(module)
}
