//! `_weft`: asyncio's event loop, futures, tasks and transports for `CPython`.
//!
//! The modules carry asyncio's own names. Imports go one way, down:
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`ffi`], [`errors`], [`imports`], [`clock`] |
//! | 1 | [`event_loop`] |
//! | 2 | [`futures`], [`tasks`] |
//! | 3 | [`operations`], [`sleeping`], [`locks`], [`ensuring`], [`gathering`], [`waiting`], [`taskgroups`], [`timeouts`] |
//! | 4 | [`transports`] |

#![allow(
    clippy::unnecessary_wraps,
    reason = "what Python calls through a method table has one signature, whether it can fail or not"
)]

pub mod clock;
pub mod ensuring;
pub mod errors;
pub mod event_loop;
pub mod ffi;
pub mod futures;
pub mod gathering;
pub mod imports;
pub mod locks;
pub mod operations;
pub mod sleeping;
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
    ffi::context::verify(py)?;
    ffi::stop::make(py)?;
    clock::remember(py);
    event_loop::handles::register(module)?;
    futures::register(module)?;
    tasks::register(module)?;
    sleeping::register(module)?;
    ensuring::register(module)?;
    waiting::register(module)?;
    locks::register(module)?;
    ffi::method::add_functions(module, sleeping::functions())?;
    ffi::method::add_functions(module, ensuring::functions())?;
    ffi::method::add_functions(module, gathering::functions())?;
    ffi::method::add_functions(module, waiting::functions())?;
    timeouts::register(module)?;
    ffi::method::add_functions(module, timeouts::functions())?;
    taskgroups::register(module)?;
    ffi::method::add_functions(module, taskgroups::functions())?;
    transports::register(module)?;
    let mut methods = futures::loop_methods();
    methods.extend(tasks::loop_methods());
    event_loop::register(module, methods)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(tasks::forget_task, module)?)?;
    module.add_function(wrap_pyfunction!(tasks::alive_tasks, module)?)
}
