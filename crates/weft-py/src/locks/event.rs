//! `Event`.

use std::cell::Cell;
use std::ffi::c_int;
use std::mem::offset_of;

use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyModule, PyTuple};

use super::acquiring::{Acquire, Acquired, acquire};
use super::common::{Common, Primitive, description, properties};
use super::waiters::truth;
use crate::ffi::method::Returned;
use crate::ffi::{Class, Native, Visit};
use crate::operations::Frame;
use crate::{make_operation, method, property, slot};

/// `Event`.
#[derive(Debug, Default)]
pub struct Event {
    value: Cell<bool>,
    common: Common,
}

static EVENT: Class<Event> = Class::new();

impl Native for Event {
    fn class() -> &'static Class<Self> {
        &EVENT
    }

    fn traverse(&self, visit: Visit) -> c_int {
        self.common.traverse(visit)
    }

    fn clear(&self, _: Python<'_>) {
        self.common.clear();
    }
}

impl Primitive for Event {
    const COMMON: usize = offset_of!(Event, common);

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Acquired for Event {
    const METHOD: &'static str = "Event.wait";

    fn acquiring() -> &'static Class<Frame<Acquire<Self>>> {
        static CLASS: Class<Frame<Acquire<Event>>> = Class::new();
        &CLASS
    }

    fn take_if_free(&self, _: Python<'_>) -> PyResult<bool> {
        Ok(self.value.get())
    }

    fn waited<'py>(&self, future: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<()> {
        self.common.waiters.remove(future)?;
        outcome.map(drop)
    }
}

fn is_set<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(truth(object.py(), EVENT.of(object).value.get()))
}

fn set<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let state = EVENT.of(object);
    if !state.value.replace(true) {
        state.common.waiters.wake_all(py)?;
    }
    Ok(py.None().into_bound(py))
}

fn clear<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    EVENT.of(object).value.set(false);
    Ok(object.py().None().into_bound(object.py()))
}

fn set_value(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    let value = value.map_or(Ok(false), |value| value.is_truthy())?;
    EVENT.of(object).value.set(value);
    Ok(())
}

/// `__init__()`.
fn init<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    if !args.is_empty() || keywords.is_some() {
        return super::inherited_init("Event", object, args, keywords);
    }
    let state = EVENT.of(object);
    state.value.set(false);
    state.common.waiters.reset(true);
    Ok(())
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    make_operation!(py, Acquire<Event>)?;
    let class = EVENT.make(
        py,
        c"weft._weft.Event",
        None,
        description::<Event>(
            vec![
                method!(none "is_set" => is_set, "is_set($self, /)\n--\n\nReturn True if the event is set."),
                method!(none "set" => set, "set($self, /)\n--\n\nSet the event and wake all who wait for it."),
                method!(none "clear" => clear, "clear($self, /)\n--\n\nTake the event back: who waits from now on waits for the next set()."),
                method!(none "wait" => acquire::<Event>, "wait($self, /)\n--\n\nCoroutine that waits until the event is set, and returns True."),
            ],
            properties!(Event, property!("_value" => is_set, set_value)),
            Some(slot!(init init)),
            c"Event()\n--\n\nThe native part of weft.Event.",
        ),
    )?;
    module.add("Event", class)
}
