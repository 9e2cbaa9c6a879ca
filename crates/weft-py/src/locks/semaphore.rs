//! `Semaphore` and `BoundedSemaphore`.

use std::ffi::c_int;
use std::mem::offset_of;

use pyo3::Borrowed;
use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyInt, PyModule, PyTuple};

use super::acquiring::{self, Acquire, Acquired, acquire};
use super::common::{Common, Primitive, Trust, description, properties};
use super::count::Count;
use super::waiters::{is_cancellation, is_cancelled, truth};
use crate::ffi::class::Description;
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Class, Native, Visit};
use crate::operations::{Frame, finish_unless_done, is_done};
use crate::{make_operation, method, property, slot};

/// `Semaphore`.
#[derive(Debug, Default)]
pub struct Semaphore {
    value: Count,
    /// What the value must not exceed, in a `BoundedSemaphore`.
    bound: Count,
    common: Common,
}

static SEMAPHORE: Class<Semaphore> = Class::new();
/// `BoundedSemaphore`, which shares the state of its base.
static BOUNDED: Class<Nothing> = Class::new();

static TRUST: Trust = Trust::new();
static BOUNDED_TRUST: Trust = Trust::new();

/// What a `BoundedSemaphore` adds to the memory of its base.
#[derive(Debug, Default)]
pub struct Nothing;

impl Native for Nothing {
    // The base does it.
    const COLLECTED: bool = false;

    fn class() -> &'static Class<Self> {
        &BOUNDED
    }
}

impl Native for Semaphore {
    fn class() -> &'static Class<Self> {
        &SEMAPHORE
    }

    fn traverse(&self, visit: Visit) -> c_int {
        for answer in [
            self.value.traverse(visit),
            self.bound.traverse(visit),
            self.common.traverse(visit),
        ] {
            if answer != 0 {
                return answer;
            }
        }
        0
    }

    fn clear(&self, _: Python<'_>) {
        self.value.clear();
        self.bound.clear();
        self.common.clear();
    }
}

impl Primitive for Semaphore {
    const COMMON: usize = offset_of!(Semaphore, common);

    fn common(&self) -> &Common {
        &self.common
    }
}

impl Semaphore {
    /// Whether one has to wait for a place.
    #[inline]
    fn is_locked(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.value.is_zero(py)? || !self.common.waiters.all_cancelled(py)?)
    }

    /// Gives a place to the first who still waits for one; says whether there was anybody.
    #[inline]
    fn wake_next(&self, py: Python<'_>) -> PyResult<bool> {
        let mut index = 0;
        while let Some(future) = self.common.waiters.get(py, index)? {
            if !is_done(&future)? {
                self.value.add(py, -1)?;
                finish_unless_done(&future, truth(py, true))?;
                return Ok(true);
            }
            index += 1;
        }
        Ok(false)
    }

    #[inline]
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.value.add(py, 1)?;
        self.wake_next(py).map(drop)
    }

    #[inline]
    fn release_bounded(&self, py: Python<'_>) -> PyResult<()> {
        if self.value.reaches(py, &self.bound)? {
            return Err(PyValueError::new_err(
                "BoundedSemaphore released too many times",
            ));
        }
        self.release(py)
    }
}

impl Acquired for Semaphore {
    const METHOD: &'static str = "Semaphore.acquire";

    fn acquiring() -> &'static Class<Frame<Acquire<Self>>> {
        static CLASS: Class<Frame<Acquire<Semaphore>>> = Class::new();
        &CLASS
    }

    #[inline]
    fn take_if_free(&self, py: Python<'_>) -> PyResult<bool> {
        if self.is_locked(py)? {
            return Ok(false);
        }
        self.value.add(py, -1)?;
        Ok(true)
    }

    // Whoever got a place and cannot use it passes it on.
    #[cfg(Py_3_13)]
    fn waited<'py>(&self, future: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<()> {
        let py = future.py();
        self.common.waiters.remove(future)?;
        if let Err(error) = &outcome
            && is_cancellation(py, error)
            && is_done(future)?
            && !is_cancelled(future)?
        {
            self.value.add(py, 1)?;
        }
        // Places may have become free while all were waiting for their turn.
        while self.value.is_positive(py)? && self.wake_next(py)? {}
        outcome.map(drop)
    }

    // Whoever got a place and cannot use it passes it on.
    #[cfg(not(Py_3_13))]
    fn waited<'py>(&self, future: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<()> {
        let py = future.py();
        self.common.waiters.remove(future)?;
        if let Err(error) = outcome {
            if is_cancellation(py, &error) && !is_cancelled(future)? {
                self.release(py)?;
            }
            return Err(error);
        }
        if self.value.is_positive(py)? {
            self.wake_next(py)?;
        }
        Ok(())
    }
}

fn release<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    SEMAPHORE.of(object).release(py)?;
    Ok(py.None().into_bound(py))
}

fn release_bounded<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    SEMAPHORE.of(object).release_bounded(py)?;
    Ok(py.None().into_bound(py))
}

fn locked<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    Ok(truth(py, SEMAPHORE.of(object).is_locked(py)?))
}

fn enter<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    acquiring::enter::<Semaphore>(object, &TRUST)
}

fn enter_bounded<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    acquiring::enter::<Semaphore>(object, &BOUNDED_TRUST)
}

fn exit<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    acquiring::exit(object, args, &TRUST, Semaphore::release)
}

fn exit_bounded<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    acquiring::exit(object, args, &BOUNDED_TRUST, Semaphore::release_bounded)
}

fn get_value<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    SEMAPHORE.of(object).value.get(object.py())
}

fn get_bound<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    SEMAPHORE.of(object).bound.get(object.py())
}

fn set_value(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    let value = value.ok_or_else(|| PyAttributeError::new_err("_value"))?;
    SEMAPHORE.of(object).value.set(&value);
    Ok(())
}

fn set_bound(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    let value = value.ok_or_else(|| PyAttributeError::new_err("_bound_value"))?;
    SEMAPHORE.of(object).bound.set(&value);
    Ok(())
}

/// The number of places that a constructor is given, unless that is for asyncio's to judge.
fn places<'py>(
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    if keywords.is_some() || args.len() > 1 {
        return Ok(None);
    }
    let value = match args.iter().next() {
        Some(value) => value,
        None => 1_i64.into_pyobject(args.py())?.into_any(),
    };
    Ok((value.is_exact_instance_of::<PyInt>() && value.ge(0)?).then_some(value))
}

/// `Semaphore(value=1)`.
fn init<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    let Some(value) = places(args, keywords)? else {
        return super::inherited_init("Semaphore", object, args, keywords);
    };
    let state = SEMAPHORE.of(object);
    state.value.set(&value);
    state.common.waiters.reset(false);
    Ok(())
}

/// `BoundedSemaphore(value=1)`.
fn init_bounded<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    let Some(value) = places(args, keywords)? else {
        return super::inherited_init("BoundedSemaphore", object, args, keywords);
    };
    let state = SEMAPHORE.of(object);
    state.bound.set(&value);
    state.value.set(&value);
    state.common.waiters.reset(false);
    Ok(())
}

/// Makes the classes and adds them to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    make_operation!(py, Acquire<Semaphore>)?;
    let class = SEMAPHORE.make(
        py,
        c"weft._weft.Semaphore",
        None,
        description::<Semaphore>(
            vec![
                TRUST.acquire.entry(method!(none "acquire" => acquire::<Semaphore>,
                    "acquire($self, /)\n--\n\nCoroutine that waits for a place, takes it and returns True.")),
                TRUST.release.entry(method!(none "release" => release,
                    "release($self, /)\n--\n\nGive a place back, to who waits longest.")),
                method!(none "locked" => locked, "locked($self, /)\n--\n\nReturn True if one would have to wait for a place."),
                method!(none "__aenter__" => enter, "__aenter__($self, /)\n--\n\nWait for a place and take it."),
                method!(fast "__aexit__" => exit, "__aexit__($self, exc_type, exc, tb, /)\n--\n\nGive the place back."),
            ],
            properties!(Semaphore, property!("_value" => get_value, set_value)),
            Some(slot!(init init)),
            c"Semaphore(value=1)\n--\n\nThe native part of weft.Semaphore.",
        ),
    )?;
    let bounded = BOUNDED.make(
        py,
        c"weft._weft.BoundedSemaphore",
        Some(&class),
        Description {
            methods: vec![
                BOUNDED_TRUST.acquire.entry(method!(none "acquire" => acquire::<Semaphore>,
                    "acquire($self, /)\n--\n\nCoroutine that waits for a place, takes it and returns True.")),
                BOUNDED_TRUST.release.entry(method!(none "release" => release_bounded,
                    "release($self, /)\n--\n\nGive a place back, to who waits longest. Raises ValueError where none was taken.")),
                method!(none "__aenter__" => enter_bounded, "__aenter__($self, /)\n--\n\nWait for a place and take it."),
                method!(fast "__aexit__" => exit_bounded, "__aexit__($self, exc_type, exc, tb, /)\n--\n\nGive the place back."),
            ],
            properties: vec![property!("_bound_value" => get_bound, set_bound)],
            slots: vec![slot!(init init_bounded)],
            doc: Some(c"BoundedSemaphore(value=1)\n--\n\nThe native part of weft.BoundedSemaphore."),
            instantiable: true,
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("Semaphore", class)?;
    module.add("BoundedSemaphore", bounded)
}
