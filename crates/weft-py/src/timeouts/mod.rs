//! `timeout()`, `timeout_at()`, the `Timeout` that they return, and `wait_for()`.

mod deadline;
mod wait_for;

use std::ffi::c_int;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyBool, PyDict, PyInt, PyModule, PyString, PyTuple};

use crate::ffi::call::{method1, raised};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Slot, Visit};
use crate::imports::mentions;
use crate::operations::{self, Operation, Step};
use crate::{make_operation, method, operation, property, slot};
use deadline::{Leaving, State, TIMEOUT, Timeout};

/// What differs between releases of asyncio, asked of asyncio itself.
#[derive(Debug)]
struct Version {
    /// Whether subclasses of `CancelledError` count as cancellations.
    knows_subclasses: bool,
    /// Whether exceptions that were raised in the course of the cancellation are told of the timeout.
    inserts_timeout_error: bool,
}

fn version(py: Python<'_>) -> &'static Version {
    static VERSION: PyOnceLock<Version> = PyOnceLock::new();
    VERSION.get_or_init(py, || {
        let look = || -> PyResult<Version> {
            let stock = py.import("asyncio.timeouts")?.getattr("Timeout")?;
            Ok(Version {
                knows_subclasses: mentions(&stock.getattr("__aexit__")?, "issubclass"),
                inserts_timeout_error: stock.hasattr("_insert_timeout_error")?,
            })
        };
        look().unwrap_or(Version {
            knows_subclasses: cfg!(Py_3_13),
            inserts_timeout_error: cfg!(Py_3_13),
        })
    })
}

fn of<'a>(object: &'a Bound<'_, PyAny>) -> &'a Timeout {
    TIMEOUT.of(object)
}

// -- entering and leaving --------------------------------------------------------------------------

/// `__aenter__()`.
#[derive(Debug, Default)]
struct Enter {
    timeout: Slot,
}

impl Operation for Enter {
    operation!(Enter, "Timeout.__aenter__");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let timeout = self.timeout.get_or_none(py);
        let deadline = of(&timeout);
        let event_loop = deadline.enter(py)?;
        if TIMEOUT.is_usual(&timeout) {
            deadline.start(&timeout, &event_loop, None)?;
        } else {
            method1(&timeout, intern!(py, "reschedule"), &deadline.when(py))?;
        }
        Ok(Step::Done(timeout))
    }

    fn resume<'py>(&self, _: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<Step<'py>> {
        outcome.map(Step::Done)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.timeout)
    }

    fn clear(&self) {
        self.timeout.clear();
    }
}

fn aenter<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(object.py(), |enter: &Enter| {
        enter.timeout.fill(object.clone());
    })
}

/// `__aexit__(exc_type, exc_val, exc_tb)`.
#[derive(Debug, Default)]
struct Exit {
    timeout: Slot,
    class: Slot,
    error: Slot,
}

impl Operation for Exit {
    operation!(Exit, "Timeout.__aexit__");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let timeout = self.timeout.get_or_none(py);
        let outcome = match self.class.get(py) {
            None => of(&timeout).leave(py, None)?,
            Some(class) => {
                let error = &self.error.get_or_none(py);
                let class = &class;
                of(&timeout).leave(py, Some(Leaving { class, error }))?
            }
        };
        match outcome {
            Some(error) => Err(raised(&error)),
            None => Step::done(py),
        }
    }

    fn resume<'py>(&self, _: &Bound<'py, PyAny>, outcome: Returned<'py>) -> PyResult<Step<'py>> {
        outcome.map(Step::Done)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.timeout, &self.class, &self.error])
    }

    fn clear(&self) {
        self.timeout.clear();
        self.class.clear();
        self.error.clear();
    }
}

fn aexit<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [class, error, _] = args.bind_all("__aexit__", ["exc_type", "exc_val", "exc_tb"])?;
    operations::operation(object.py(), |exit: &Exit| {
        exit.timeout.fill(object.clone());
        if !class.is_none() {
            exit.class.fill(class.to_owned());
            exit.error.fill(error.to_owned());
        }
    })
}

// -- the rest of the class -------------------------------------------------------------------------

fn init<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    let by_name = match keywords {
        Some(keywords) => keywords.get_item("when")?,
        None => None,
    };
    let given = args.len() + keywords.map_or(0, PyDictMethods::len);
    let when = match by_name {
        Some(when) if given == 1 => when,
        None if given == 1 && args.len() == 1 => args.get_item(0)?,
        _ => {
            return Err(PyTypeError::new_err(
                "Timeout() takes exactly one argument, 'when'",
            ));
        }
    };
    of(object).begin(&when);
    Ok(())
}

fn when<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(of(object).when(object.py()))
}

fn reschedule<'py>(object: &Bound<'py, PyAny>, when: &Bound<'py, PyAny>) -> Returned<'py> {
    of(object).reschedule(object, when)?;
    Ok(object.py().None().into_bound(object.py()))
}

fn expired<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let expired = matches!(of(object).state(), State::Expiring | State::Expired);
    Ok(PyBool::new(object.py(), expired).to_owned().into_any())
}

fn on_timeout<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    of(object).expire(object.py())?;
    Ok(object.py().None().into_bound(object.py()))
}

fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let deadline = of(object);
    let state = deadline.state();
    let mut text = format!("<Timeout [{}]", state.value());
    if state == State::Entered {
        let when = deadline.when(py);
        let shown = if when.is_none() {
            when
        } else {
            py.import("builtins")?.getattr("round")?.call1((when, 3))?
        };
        text = format!("{text} when={shown}");
    }
    Ok(PyString::new(py, &format!("{text}>")).into_any())
}

// What asyncio's class keeps in attributes of its own.

fn state<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let states = object.py().import("asyncio.timeouts")?.getattr("_State")?;
    states.getattr(of(object).state().name())
}

fn timer<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(of(object).timer(object.py()))
}

fn task<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(of(object).task(object.py()))
}

fn cancelling<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyInt::new(object.py(), of(object).cancelling()).into_any())
}

// -- functions -------------------------------------------------------------------------------------

fn timeout<'py>(module: &Bound<'py, PyAny>, delay: &Bound<'py, PyAny>) -> Returned<'py> {
    let object = TIMEOUT.usual_instance(module.py())?;
    of(&object).begin_after(delay)?;
    Ok(object)
}

fn timeout_at<'py>(module: &Bound<'py, PyAny>, when: &Bound<'py, PyAny>) -> Returned<'py> {
    let object = TIMEOUT.usual_instance(module.py())?;
    of(&object).begin(when);
    Ok(object)
}

/// `_use_timeout(cls)`: names the class that `timeout()` makes instances of.
fn use_timeout<'py>(module: &Bound<'py, PyAny>, class: &Bound<'py, PyAny>) -> Returned<'py> {
    TIMEOUT.expect(class.cast()?);
    Ok(module.py().None().into_bound(module.py()))
}

/// The functions of the module.
pub fn functions() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(named "timeout"("delay") => timeout,
            "timeout($module, delay)\n--\n\nReturn a Timeout that ends the block inside it after delay seconds; never, where that is None."),
        method!(named "timeout_at"("when") => timeout_at,
            "timeout_at($module, when)\n--\n\nReturn a Timeout that ends the block inside it at when, in seconds of loop.time()."),
        method!(one "_use_timeout" => use_timeout, "Name the class that timeout() makes."),
        wait_for::function(),
    ]
}

/// Makes the classes.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    make_operation!(py, Enter)?;
    make_operation!(py, Exit)?;
    wait_for::register(py)?;
    let mut slots = class_slots::<Timeout>();
    slots.extend([slot!(init init), slot!(repr representation)]);
    let class = TIMEOUT.make(
        py,
        c"weft._weft.Timeout",
        None,
        Description {
            methods: vec![
                method!(none "when" => when, "when($self)\n--\n\nReturn the moment, in seconds of loop.time(), or None."),
                method!(named "reschedule"("when") => reschedule, "reschedule($self, when)\n--\n\nSet another moment, or None for never."),
                method!(none "expired" => expired, "expired($self)\n--\n\nReturn True if the moment has come while the block ran."),
                method!(none "__aenter__" => aenter, "__aenter__($self)\n--\n\nEnter the block."),
                method!(fast "__aexit__" => aexit, "__aexit__($self, exc_type, exc_val, exc_tb)\n--\n\nLeave the block."),
                method!(none "_on_timeout" => on_timeout, "Cancel the task."),
            ],
            properties: vec![
                property!("_state" => state),
                property!("_when" => when),
                property!("_timeout_handler" => timer),
                property!("_task" => task),
                property!("_cancelling" => cancelling),
            ],
            slots,
            doc: Some(c"Timeout(when)\n--\n\nThe native part of weft.Timeout."),
            instantiable: true,
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("Timeout", class)
}
