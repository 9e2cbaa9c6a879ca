//! `Queue`, of which `LifoQueue` and `PriorityQueue` are subclasses written in Python: which of the three a queue is, and
//! what a user's subclass overrides, is read from its class.

mod hooks;
mod line;
mod state;
mod waiting;

use pyo3::Borrowed;
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyDict, PyInt, PyModule, PyString, PyTuple};

use self::hooks::{KeptBy, stock};
use self::line::Container;
use self::state::Queue;
use self::waiting::{Get, Join, Put};
use crate::ffi::Class;
use crate::ffi::call::call2;
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::{Args, Returned};
use crate::operations;
use crate::{make_operation, method, property, slot};

/// `_weft.Queue`.
static QUEUE: Class<Queue> = Class::new();

fn nothing(py: Python<'_>) -> Returned<'_> {
    Ok(py.None().into_bound(py))
}

fn boolean(py: Python<'_>, value: bool) -> Returned<'_> {
    Ok(PyBool::new(py, value).to_owned().into_any())
}

// -- methods ---------------------------------------------------------------------------------------

fn init(
    queue: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    let py = queue.py();
    if args.len() > 1 {
        return Err(PyTypeError::new_err(format!(
            "Queue.__init__() takes from 1 to 2 positional arguments but {} were given",
            args.len() + 1
        )));
    }
    let mut maxsize = args.get_item(0).ok();
    for (name, value) in keywords.into_iter().flatten() {
        if !name.eq("maxsize")? {
            return Err(PyTypeError::new_err(format!(
                "Queue.__init__() got an unexpected keyword argument '{name}'"
            )));
        }
        if maxsize.replace(value).is_some() {
            return Err(PyTypeError::new_err(
                "Queue.__init__() got multiple values for argument 'maxsize'",
            ));
        }
    }
    state::initialise(
        queue,
        &maxsize.unwrap_or_else(|| PyInt::new(py, 0).into_any()),
    )
}

fn put<'py>(queue: &Bound<'py, PyAny>, item: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(queue.py(), |put: &Put| {
        put.queue.fill(queue.clone());
        put.item.fill(item.clone());
    })
}

fn get<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(queue.py(), |get: &Get| get.queue.fill(queue.clone()))
}

fn join<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    operations::operation(queue.py(), |join: &Join| join.queue.fill(queue.clone()))
}

fn put_nowait<'py>(queue: &Bound<'py, PyAny>, item: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = QUEUE.of(queue);
    if let Some(item) = state.put_plainly(queue, item.clone()) {
        state::put_nowait(queue, state, state.plan(queue)?, item)?;
    }
    nothing(queue.py())
}

fn get_nowait<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = QUEUE.of(queue);
    match state.get_plainly(queue) {
        Some(item) => Ok(item),
        None => state::get_nowait(queue, state, state.plan(queue)?),
    }
}

fn qsize<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = QUEUE.of(queue);
    let count = state::count(queue, state, state.plan(queue)?)?;
    Ok(PyInt::new(queue.py(), count).into_any())
}

fn empty<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = QUEUE.of(queue);
    boolean(
        queue.py(),
        state::has_no_items(queue, state, state.plan(queue)?)?,
    )
}

fn full<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = QUEUE.of(queue);
    boolean(
        queue.py(),
        state::is_filled(queue, state, state.plan(queue)?)?,
    )
}

fn task_done<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    state::task_done(queue)?;
    nothing(queue.py())
}

fn shutdown<'py>(queue: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [immediate] = args.bind("Queue.shutdown", ["immediate"])?;
    let no = PyBool::new(queue.py(), false).to_owned().into_any();
    state::shutdown(queue, immediate.as_deref().unwrap_or(&no))?;
    nothing(queue.py())
}

fn format<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyString::new(queue.py(), &state::format(queue)?).into_any())
}

/// `Queue[int]`.
fn class_getitem<'py>(class: &Bound<'py, PyAny>, item: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = class.py();
    call2(stock(py)?.generic_alias.bind(py), class, item)
}

// -- attributes that asyncio's own code, and that of its users, looks at ---------------------------

type Value<'a, 'py> = Option<Borrowed<'a, 'py, PyAny>>;

fn given<'py>(value: Value<'_, 'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    value
        .map(Borrowed::to_owned)
        .ok_or_else(|| PyAttributeError::new_err(format!("cannot delete attribute '{name}'")))
}

fn items<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    let state = QUEUE.of(queue);
    if state.items.is_native() && !state.arranged.get() {
        return Err(state::no_items(queue));
    }
    let container = match state.plan(queue)?.kept {
        KeptBy::Container(container) => container,
        KeptBy::Hook => Container::Deque,
    };
    state.items.show(queue.py(), container)
}

fn set_items<'py>(queue: &Bound<'py, PyAny>, value: Value<'_, 'py>) -> PyResult<()> {
    QUEUE.of(queue).items.replace(given(value, "_queue")?);
    Ok(())
}

fn getters<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    QUEUE.of(queue).getters.show(queue.py(), Container::Deque)
}

fn set_getters<'py>(queue: &Bound<'py, PyAny>, value: Value<'_, 'py>) -> PyResult<()> {
    QUEUE.of(queue).getters.replace(given(value, "_getters")?);
    Ok(())
}

fn putters<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    QUEUE.of(queue).putters.show(queue.py(), Container::Deque)
}

fn set_putters<'py>(queue: &Bound<'py, PyAny>, value: Value<'_, 'py>) -> PyResult<()> {
    QUEUE.of(queue).putters.replace(given(value, "_putters")?);
    Ok(())
}

fn maxsize<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(QUEUE.of(queue).maxsize.get_or_none(queue.py()))
}

fn set_maxsize<'py>(queue: &Bound<'py, PyAny>, value: Value<'_, 'py>) -> PyResult<()> {
    QUEUE.of(queue).limit(given(value, "_maxsize")?);
    Ok(())
}

fn unfinished<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(PyInt::new(queue.py(), QUEUE.of(queue).unfinished.get()).into_any())
}

fn set_unfinished<'py>(queue: &Bound<'py, PyAny>, value: Value<'_, 'py>) -> PyResult<()> {
    let value = given(value, "_unfinished_tasks")?.extract()?;
    QUEUE.of(queue).unfinished.set(value);
    Ok(())
}

fn finished<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    state::finished_event(queue, QUEUE.of(queue))
}

fn set_finished<'py>(queue: &Bound<'py, PyAny>, value: Value<'_, 'py>) -> PyResult<()> {
    QUEUE.of(queue).finished.set(given(value, "_finished")?);
    Ok(())
}

fn event_loop<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(QUEUE.of(queue).event_loop.get_or_none(queue.py()))
}

fn set_event_loop<'py>(queue: &Bound<'py, PyAny>, value: Value<'_, 'py>) -> PyResult<()> {
    let value = given(value, "_loop")?;
    let event_loop = &QUEUE.of(queue).event_loop;
    if value.is_none() {
        event_loop.clear();
    } else {
        event_loop.set(value);
    }
    Ok(())
}

#[cfg(Py_3_13)]
fn is_shut_down<'py>(queue: &Bound<'py, PyAny>) -> Returned<'py> {
    boolean(queue.py(), QUEUE.of(queue).is_shut_down.get())
}

#[cfg(Py_3_13)]
fn set_is_shut_down<'py>(queue: &Bound<'py, PyAny>, value: Value<'_, 'py>) -> PyResult<()> {
    let value = given(value, "_is_shutdown")?.is_truthy()?;
    QUEUE.of(queue).is_shut_down.set(value);
    Ok(())
}

/// An attribute of the queue has been set.
fn attribute_set(queue: &Bound<'_, PyAny>, name: &Bound<'_, PyAny>) -> PyResult<()> {
    if hooks::matters(name) {
        QUEUE.of(queue).patch();
    }
    Ok(())
}

// -- the class -------------------------------------------------------------------------------------

fn methods() -> Vec<ffi::PyMethodDef> {
    let mut class_getitem = method!(one "__class_getitem__" => class_getitem, "See PEP 585");
    class_getitem.ml_flags |= ffi::METH_CLASS;
    vec![
        class_getitem,
        method!(named "put"("item") => put,
            "put($self, /, item)\n--\n\nCoroutine that puts item into the queue, and waits while the queue is full.\n\nRaises QueueShutDown where the queue has been shut down."),
        method!(none "get" => get,
            "get($self, /)\n--\n\nCoroutine that takes an item out of the queue, and waits while there is none.\n\nRaises QueueShutDown where the queue has been shut down and is empty."),
        method!(named "put_nowait"("item") => put_nowait,
            "put_nowait($self, /, item)\n--\n\nPut item into the queue at once.\n\nRaises QueueFull where there is no room, QueueShutDown where the queue has been shut down."),
        method!(none "get_nowait" => get_nowait,
            "get_nowait($self, /)\n--\n\nTake an item out of the queue at once.\n\nRaises QueueEmpty where there is none, QueueShutDown where there will be none."),
        method!(none "qsize" => qsize,
            "qsize($self, /)\n--\n\nThe number of items in the queue."),
        method!(none "empty" => empty,
            "empty($self, /)\n--\n\nWhether there is no item in the queue."),
        method!(none "full" => full,
            "full($self, /)\n--\n\nWhether the queue has as many items as it takes. One without a limit is never full."),
        method!(none "task_done" => task_done,
            "task_done($self, /)\n--\n\nReport that the work on an item that was taken out is done.\n\nRaises ValueError where it is called more often than items were put in."),
        method!(none "join" => join,
            "join($self, /)\n--\n\nCoroutine that waits until every item that was put in has been reported by task_done()."),
        method!(fast "shutdown" => shutdown,
            "shutdown($self, /, immediate=False)\n--\n\nLet put() raise QueueShutDown from now on, and get() once the queue is empty.\n\nWith immediate, the items that are in the queue are dropped, and count as done."),
        method!(none "_format" => format, "What repr() and str() say of the queue."),
    ]
}

fn properties() -> Vec<ffi::PyGetSetDef> {
    vec![
        property!("_queue" => items, set_items),
        property!("_getters" => getters, set_getters),
        property!("_putters" => putters, set_putters),
        property!("_maxsize" => maxsize, set_maxsize),
        property!("_unfinished_tasks" => unfinished, set_unfinished),
        property!("_finished" => finished, set_finished),
        property!("_loop" => event_loop, set_event_loop),
        #[cfg(Py_3_13)]
        property!("_is_shutdown" => is_shut_down, set_is_shut_down),
    ]
}

/// Makes the classes, and adds what belongs into the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut slots = class_slots::<Queue>();
    slots.extend([slot!(init init), slot!(setattr attribute_set)]);
    let class = QUEUE.make(
        py,
        c"weft._weft.Queue",
        None,
        Description {
            methods: methods(),
            properties: properties(),
            slots,
            doc: Some(c"Queue(maxsize=0)\n--\n\nThe native part of weft.Queue."),
            instantiable: true,
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("Queue", class)?;
    module.add("QueueShutDown", stock(py)?.shut_down.bind(py))?;
    make_operation!(py, Put)?;
    make_operation!(py, Get)?;
    make_operation!(py, Join)
}
