//! What asyncio's class keeps in attributes of its own, for code that inherits from it.

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool};

use super::{ON_TASK_DONE, of};
use crate::ffi::method::Returned;
use crate::property;

/// A property of the group that a `Cell<bool>` or a `Slot` holds.
macro_rules! attribute {
    (flag $name:literal => $field:ident) => {{
        fn read<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
            let value = of(group).$field.get();
            Ok(PyBool::new(group.py(), value).to_owned().into_any())
        }
        fn write(
            group: &Bound<'_, PyAny>,
            value: Option<Borrowed<'_, '_, PyAny>>,
        ) -> PyResult<()> {
            let value = value.map_or(Ok(false), |value| value.is_truthy())?;
            of(group).$field.set(value);
            Ok(())
        }
        property!($name => read, write)
    }};
    (object $name:literal => $field:ident) => {{
        fn read<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
            Ok(of(group).$field.get_or_none(group.py()))
        }
        fn write(
            group: &Bound<'_, PyAny>,
            value: Option<Borrowed<'_, '_, PyAny>>,
        ) -> PyResult<()> {
            match value.filter(|value| !value.is_none()) {
                Some(value) => of(group).$field.set(value.to_owned()),
                None => of(group).$field.clear(),
            }
            Ok(())
        }
        property!($name => read, write)
    }};
}

fn tasks<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(of(group).tasks(group.py())?.into_any())
}

fn on_task_done<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    ON_TASK_DONE.bind(group)
}

fn errors<'py>(group: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = of(group);
    if state.forgot_errors.get() && !state.errors.is_set() {
        return Ok(group.py().None().into_bound(group.py()));
    }
    Ok(state.errors(group.py())?.into_any())
}

/// The properties.
pub fn properties() -> Vec<ffi::PyGetSetDef> {
    vec![
        attribute!(flag "_entered" => entered),
        attribute!(flag "_cancel_on_enter" => cancel_on_enter),
        attribute!(flag "_exiting" => exiting),
        attribute!(flag "_aborting" => aborting),
        attribute!(flag "_parent_cancel_requested" => parent_cancel_requested),
        attribute!(object "_loop" => event_loop),
        attribute!(object "_parent_task" => parent),
        attribute!(object "_base_error" => base_error),
        attribute!(object "_on_completed_fut" => completed),
        property!("_on_task_done" => on_task_done),
        property!("_tasks" => tasks),
        property!("_errors" => errors),
    ]
}
