//! `_weft`: asyncio's event loop, futures, tasks and transports for `CPython`.
//!
//! The modules carry asyncio's own names. Imports go one way, down:
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`ffi`], [`errors`], [`imports`], [`clock`] |
//! | 1 | [`event_loop`] |
//! | 2 | [`futures`], [`tasks`] |
//! | 3 | [`operations`], [`sleeping`], [`ensuring`], [`gathering`], [`waiting`], [`locks`], [`queues`], [`sockets`], |
//! |   | [`taskgroups`], [`timeouts`] |
//! | 4 | [`transports`] |
//! | 5 | [`streams`], [`executor`] |

#![allow(
    clippy::unnecessary_wraps,
    reason = "what Python calls through a method table has one signature, whether it can fail or not"
)]

pub mod clock;
pub mod ensuring;
pub mod errors;
pub mod event_loop;
pub mod executor;
pub mod ffi;
pub mod futures;
pub mod gathering;
pub mod imports;
pub mod locks;
pub mod operations;
pub mod queues;
pub mod sleeping;
pub mod sockets;
pub mod streams;
pub mod taskgroups;
pub mod tasks;
pub mod timeouts;
pub mod transports;
pub mod waiting;

use pyo3::prelude::*;

/// The extension module. `weft` re-exports from it.
#[pymodule]
fn _weft(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let imports = imports::load(py)?;
    ffi::base::verify(py, imports.future.bind(py), imports.task.bind(py))?;
    ffi::lifecycle::verify(imports.future.bind(py))?;
    ffi::context::verify(py)?;
    ffi::stop::make(py)?;
    ffi::special::register(module)?;
    ffi::coroutine_function::register(module)?;
    clock::remember(py);
    event_loop::handles::register(module)?;
    futures::register(module)?;
    tasks::register(module)?;
    sleeping::register(module)?;
    waiting::register(module)?;
    locks::register(module)?;
    queues::register(module)?;
    timeouts::register(module)?;
    taskgroups::register(module)?;
    for functions in [
        sleeping::functions(),
        ensuring::functions(),
        gathering::functions(),
        waiting::functions(),
        timeouts::functions(),
        taskgroups::functions(),
        executor::functions(),
    ] {
        ffi::coroutine_function::add_functions_of_asyncio(module, functions)?;
    }
    transports::register(module)?;
    streams::register(module)?;
    executor::register(module)?;
    let mut methods = futures::loop_methods();
    methods.extend(tasks::loop_methods());
    methods.extend(executor::loop_methods());
    methods.extend(transports::loop_methods());
    event_loop::register(module, methods)?;
    sockets::register(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(tasks::forget_task, module)?)?;
    module.add_function(wrap_pyfunction!(tasks::alive_tasks, module)?)
}
