//! The future that `gather()` returns. What completes it is written where `gather()` is.
//!
//! It is here because tasks wait for it as they do for a [`FUTURE`], of which it is a subclass.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyDict, PyList, PyModule, PyType};

use super::FUTURE;
use crate::ffi::base;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::extending_slots;
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Class, Native, Slot, Visit};
use crate::{method, property};

/// What such a future knows of its children.
#[derive(Debug, Default)]
pub struct Gathering {
    /// A list of them, in the order of their results, one that was given twice twice.
    pub children: Slot,
    /// How many different ones there are …
    pub total: Cell<usize>,
    /// … and how many of those have told that they are done.
    pub finished: Cell<usize>,
    /// Whether exceptions of children are results.
    pub return_exceptions: Cell<bool>,
    /// Whether a cancellation has reached any child.
    pub cancel_requested: Cell<bool>,
    /// The task that has called `gather()` (Python 3.14).
    pub caller: Slot,
}

impl Native for Gathering {
    const EXTENDS: bool = true;

    fn class() -> &'static Class<Self> {
        &GATHERING
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.children, &self.caller])
    }

    fn clear(&self, _: Python<'_>) {
        self.children.clear();
        self.caller.clear();
    }
}

/// The class of these futures, of which there is no subclass.
pub static GATHERING: Class<Gathering> = Class::new();

/// `cancel(msg=None)`: cancels the children; the future itself ends when they have.
fn cancel<'py>(outer: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = outer.py();
    let [message] = args.bind("cancel", ["msg"])?;
    let gathering = GATHERING.of(outer);
    let mut reached = false;
    if base::future(outer).is_pending()
        && let Some(children) = gathering.children.get(py)
    {
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "msg"), message.unwrap_or_else(|| args.none()))?;
        for child in children.cast_into::<PyList>()?.iter() {
            reached |= child
                .call_method(intern!(py, "cancel"), (), Some(&keywords))?
                .is_truthy()?;
        }
        if reached {
            gathering.cancel_requested.set(true);
        }
    }
    Ok(PyBool::new(py, reached).to_owned().into_any())
}

fn children<'py>(outer: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(GATHERING.of(outer).children.get_or_none(outer.py()))
}

fn cancel_requested<'py>(outer: &Bound<'py, PyAny>) -> Returned<'py> {
    let requested = GATHERING.of(outer).cancel_requested.get();
    Ok(PyBool::new(outer.py(), requested).to_owned().into_any())
}

/// Makes the class.
///
/// # Errors
/// What Python raises while it makes types.
pub fn make(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let stock = py
        .import("asyncio.tasks")?
        .getattr("_GatheringFuture")?
        .cast_into::<PyType>()?;
    GATHERING.make(
        py,
        c"weft._GatheringFuture",
        Some(&FUTURE.type_object(py)),
        Description {
            methods: vec![
                method!(fast "cancel" => cancel,
                    "cancel($self, msg=None)\n--\n\nCancel the gathered futures. Return False where all of them are done already."),
            ],
            properties: vec![
                property!("_children" => children),
                property!("_cancel_requested" => cancel_requested),
            ],
            slots: extending_slots::<Gathering>(),
            mixin: Some(stock.unbind()),
            ..Description::default()
        },
    )?;
    Ok(())
}
