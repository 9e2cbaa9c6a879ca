//! What differs between the releases of asyncio's `TaskGroup`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::imports::mentions;

/// What differs between releases of asyncio, asked of asyncio itself.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a change of its own")]
pub struct Version {
    /// Whether subclasses of `CancelledError` count as cancellations.
    pub knows_subclasses: bool,
    /// Whether the parent's cancellation by the group is taken back at the end, and one from outside asked for again.
    pub settles_cancellation: bool,
    /// Whether a coroutine that the group refuses is closed.
    pub closes_refused: bool,
    /// Whether a task is named after it was made.
    pub names_afterwards: bool,
    /// Whether `create_task()` passes any keyword on.
    pub passes_keywords: bool,
    /// Whether a task that is done at once is dealt with at once.
    pub settles_eager: bool,
    /// Whether a `GeneratorExit` that ends the block, and is all that was raised, is raised as it is.
    pub spares_generators: bool,
    /// Whether a group that was left forgets its parent and its errors.
    pub forgets: bool,
}

/// The rules of the asyncio that runs.
pub fn version(py: Python<'_>) -> &'static Version {
    static VERSION: PyOnceLock<Version> = PyOnceLock::new();
    VERSION.get_or_init(py, || {
        let look = || -> PyResult<Version> {
            const VARIABLE_KEYWORDS: i64 = 8;
            let stock = py.import("asyncio.taskgroups")?.getattr("TaskGroup")?;
            let forgets = stock.hasattr("_aexit")?;
            let exit = stock.getattr(if forgets { "_aexit" } else { "__aexit__" })?;
            let create = stock.getattr("create_task")?;
            let flags: i64 = create.getattr("__code__")?.getattr("co_flags")?.extract()?;
            Ok(Version {
                knows_subclasses: mentions(&exit, "issubclass"),
                settles_cancellation: mentions(&exit, "cancelling"),
                closes_refused: mentions(&create, "close"),
                names_afterwards: mentions(&create, "_set_task_name"),
                passes_keywords: flags & VARIABLE_KEYWORDS != 0,
                // Python 3.15 asks it too, of tasks that have to be cancelled.
                settles_eager: mentions(&create, "done") && !mentions(&create, "cancel"),
                spares_generators: mentions(&exit, "GeneratorExit"),
                forgets,
            })
        };
        // Who has replaced asyncio's class gets what the first release of this version did.
        look().unwrap_or(Version {
            knows_subclasses: cfg!(Py_3_13),
            settles_cancellation: cfg!(Py_3_13),
            closes_refused: cfg!(Py_3_13),
            names_afterwards: !cfg!(Py_3_13),
            passes_keywords: cfg!(Py_3_14),
            settles_eager: cfg!(all(Py_3_12, not(Py_3_14))),
            spares_generators: cfg!(Py_3_15),
            forgets: cfg!(Py_3_14),
        })
    })
}
