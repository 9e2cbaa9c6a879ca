//! The native part of `weft._executor.Executor`: its queue, and whether `submit()` may be left out.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::Borrowed;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule};

use super::queue::QUEUE;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::Returned;
use crate::ffi::object::class_version;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::property;

/// The Rust part of an executor.
#[derive(Debug, Default)]
pub struct Pool {
    queue: Slot,
    /// Whether `submit()` is Python's own and nobody replaces it, …
    plain: Cell<bool>,
    /// … as found when the class had this version.
    class_version: Cell<u32>,
}

/// The native base of `weft._executor.Executor`.
pub static POOL: Class<Pool> = Class::new();

impl Native for Pool {
    fn class() -> &'static Class<Self> {
        &POOL
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.queue)
    }

    fn clear(&self, _: Python<'_>) {
        self.queue.clear();
    }
}

impl Pool {
    /// Whether a job may be queued without asking `submit()`, which tracers like to wrap.
    ///
    /// # Errors
    /// What looking at the class raises.
    #[inline]
    pub fn submits_natively(&self, executor: &Bound<'_, PyAny>) -> PyResult<bool> {
        let version = class_version(executor);
        if version == 0 || version != self.class_version.get() {
            let plain = executor.call_method0(intern!(executor.py(), "_is_plain"))?;
            self.plain.set(plain.is_truthy()?);
            self.class_version.set(class_version(executor));
        }
        Ok(self.plain.get())
    }

    /// Queues a job, and starts a thread where none waits and there may be one more.
    ///
    /// # Errors
    /// `RuntimeError` where the executor takes no more work, or no thread can be started.
    #[inline]
    pub fn submit<'py>(
        &self,
        executor: &Bound<'py, PyAny>,
        job: Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = executor.py();
        let queue = self.queue.get(py);
        let Some(queue) = queue.as_ref().and_then(|queue| QUEUE.get_exact(queue)) else {
            return Err(PyRuntimeError::new_err("the executor is not initialised"));
        };
        match queue.offer(job) {
            Ok(()) => Ok(()),
            Err(job) => executor
                .call_method1(intern!(py, "_submit_job"), (job,))
                .map(drop),
        }
    }
}

fn queue<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(POOL.of(object).queue.get_or_none(object.py()))
}

fn set_queue(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    match value {
        Some(value) => POOL.of(object).queue.set(value.to_owned()),
        None => POOL.of(object).queue.clear(),
    }
    Ok(())
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = POOL.make(
        module.py(),
        c"weft._weft.WorkerPool",
        None,
        Description {
            properties: vec![property!("_work_queue" => queue, set_queue)],
            slots: class_slots::<Pool>(),
            doc: Some(c"The native part of weft's ThreadPoolExecutor."),
            instantiable: true,
            subclassable: true,
            ..Description::default()
        },
    )?;
    module.add("WorkerPool", class)
}
