//! The reader: its state, what feeds it, and what its reading operations have in common.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::Borrowed;
use pyo3::exceptions::{
    PyAssertionError, PyNotImplementedError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyDict, PyInt, PyModule, PyString, PyTuple};

use super::plain::{Hooks, Plainness};
use super::storage::Storage;
use super::{flag, none, store, stored};
use crate::event_loop::{self, EVENT_LOOP};
use crate::ffi::bytes;
use crate::ffi::call::{method0, method1};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::Returned;
use crate::ffi::{Class, Native, Slot, Visit};
use crate::futures::{self, FUTURE};
use crate::imports::imports;
use crate::operations::{Step, create_future, finish_unless_done, is_done};
use crate::transports::direct;
use crate::{method, property, slot};

/// asyncio's default limit, in bytes.
const DEFAULT_LIMIT: usize = 64 * 1024;

/// The native part of `weft.StreamReader`.
#[derive(Debug, Default)]
pub struct StreamReader {
    pub(super) storage: Storage,
    /// `_limit` as it was given …
    limit_given: Slot,
    /// … as a number of bytes …
    pub(super) limit: Cell<usize>,
    /// … and the number above which reading is paused.
    double_limit: Cell<usize>,
    pub(super) event_loop: Slot,
    /// What a reading operation waits for.
    pub(super) waiter: Slot,
    pub(super) exception: Slot,
    transport: Slot,
    /// Whether `feed_eof()` was called.
    pub(super) eof: Cell<bool>,
    /// Whether this reader has paused its transport.
    paused: Cell<bool>,
    plainness: Plainness,
}

impl Native for StreamReader {
    fn class() -> &'static Class<Self> {
        &READER
    }

    fn traverse(&self, visit: Visit) -> c_int {
        match self.storage.traverse(visit) {
            0 => visit.slots(self.slots()),
            answer => answer,
        }
    }

    fn clear(&self, _: Python<'_>) {
        self.storage.reset();
        for slot in self.slots() {
            slot.clear();
        }
    }
}

/// `_weft.StreamReader`.
pub static READER: Class<StreamReader> = Class::new();

static HOOKS: Hooks = Hooks::new(&[
    "feed_data",
    "feed_eof",
    "set_exception",
    "exception",
    "at_eof",
    "read",
    "readline",
    "readuntil",
    "readexactly",
    "_wait_for_data",
    "_wakeup_waiter",
    "_maybe_resume_transport",
    "_buffer",
    "_limit",
    "_loop",
    "_waiter",
    "_exception",
    "_transport",
    "_eof",
    "_paused",
]);

/// The state of a reader whose class overrides nothing.
#[inline]
pub(super) fn plain<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a StreamReader> {
    let state = READER.get(object)?;
    HOOKS
        .are_ours(
            object,
            &state.plainness,
            || READER.type_object(object.py()),
            &imports(object.py()).stream_reader,
        )
        .then_some(state)
}

/// What asyncio's own method answers.
pub(super) fn inherited<'py, A>(
    object: &Bound<'py, PyAny>,
    name: &str,
    arguments: A,
) -> Returned<'py>
where
    A: pyo3::call::PyCallArgs<'py>,
{
    let py = object.py();
    let method = imports(py).stream_reader.bind(py).getattr(name)?;
    let bound = method.call_method1(intern!(py, "__get__"), (object,))?;
    bound.call1(arguments)
}

impl StreamReader {
    fn slots(&self) -> [&Slot; 5] {
        [
            &self.limit_given,
            &self.event_loop,
            &self.waiter,
            &self.exception,
            &self.transport,
        ]
    }

    fn set_limit(&self, limit: &Bound<'_, PyAny>) -> PyResult<()> {
        let (limit_in_bytes, double_limit) = match limit.extract::<usize>() {
            Ok(limit) => (limit, limit.saturating_mul(2)),
            Err(_) => (whole_bytes(limit)?, whole_bytes(&limit.mul(2)?)?),
        };
        self.limit.set(limit_in_bytes);
        self.double_limit.set(double_limit);
        self.limit_given.set(limit.clone());
        Ok(())
    }

    /// Whether the limit is an ordinary integer.
    pub(super) fn has_whole_limit(&self, py: Python<'_>) -> bool {
        self.limit_given
            .get(py)
            .is_some_and(|limit| limit.is_exact_instance_of::<PyInt>())
    }

    /// `feed_data()` of a plain reader.
    #[inline]
    pub(super) fn feed(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.eof.get() {
            return Err(PyAssertionError::new_err("feed_data after feed_eof"));
        }
        let empty = if bytes::is_bytes(data) {
            bytes::contents(data).is_empty()
        } else {
            !data.is_truthy()?
        };
        if empty {
            return Ok(());
        }
        self.storage.extend(data)?;
        self.fed(data.py())
    }

    /// Wakes who waits for data, and pauses the transport where there is too much.
    #[inline]
    pub(super) fn fed(&self, py: Python<'_>) -> PyResult<()> {
        self.wake(py)?;
        if self.paused.get()
            || !self.transport.is_set()
            || self.storage.len(py)? <= self.double_limit.get()
        {
            return Ok(());
        }
        let transport = self.transport.get_or_none(py);
        let paused = match direct::native(&transport) {
            Some(_) => direct::pause_reading(&transport),
            None => method0(&transport, intern!(py, "pause_reading")).map(drop),
        };
        match paused {
            Ok(()) => self.paused.set(true),
            Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => {
                self.transport.clear();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    #[inline]
    fn wake(&self, py: Python<'_>) -> PyResult<()> {
        match self.waiter.take(py) {
            Some(waiter) => finish_unless_done(&waiter, none(py)),
            None => Ok(()),
        }
    }

    pub(super) fn feed_eof(&self, py: Python<'_>) -> PyResult<()> {
        self.eof.set(true);
        self.wake(py)
    }

    fn set_exception(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = error.py();
        store(&self.exception, Some(error.as_borrowed()));
        let Some(waiter) = self.waiter.take(py) else {
            return Ok(());
        };
        if is_done(&waiter)? {
            return Ok(());
        }
        if FUTURE.is_exact(&waiter) {
            return futures::fail(&waiter, error);
        }
        method1(&waiter, intern!(py, "set_exception"), error).map(drop)
    }

    /// Raises the exception that was set.
    #[inline]
    pub(super) fn check(&self, py: Python<'_>) -> PyResult<()> {
        match self.exception.get(py) {
            Some(error) => Err(PyErr::from_value(error)),
            None => Ok(()),
        }
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.paused.set(false);
        let transport = self.transport.get_or_none(py);
        match direct::native(&transport) {
            Some(_) => direct::resume_reading(&transport),
            None => method0(&transport, intern!(py, "resume_reading")).map(drop),
        }
    }

    /// Lets the transport go on once enough has been read.
    #[inline]
    pub(super) fn maybe_resume(&self, py: Python<'_>) -> PyResult<()> {
        if self.paused.get() && self.storage.len(py)? <= self.limit.get() {
            return self.resume(py);
        }
        Ok(())
    }

    /// How an operation, `method` by name, waits for more; when it goes on it has [`Self::waited`].
    #[inline]
    pub(super) fn wait<'py>(&self, py: Python<'py>, method: &str) -> PyResult<Step<'py>> {
        if self.waiter.is_set() {
            return Err(PyRuntimeError::new_err(format!(
                "{method}() called while another coroutine is already waiting for incoming data"
            )));
        }
        if self.eof.get() {
            return Err(PyAssertionError::new_err("_wait_for_data after EOF"));
        }
        // What the operation needs may be more than what the transport is allowed to send.
        if self.paused.get() {
            self.resume(py)?;
        }
        let future = create_future(&self.event_loop.get_or_none(py))?;
        self.waiter.set(future.clone());
        Ok(Step::Wait(future))
    }

    #[inline]
    pub(super) fn waited(&self) {
        self.waiter.clear();
    }
}

/// A number that is compared with numbers of bytes, as such a number.
fn whole_bytes(number: &Bound<'_, PyAny>) -> PyResult<usize> {
    if !number.gt(0)? {
        return Ok(0);
    }
    if number.ge(usize::MAX)? {
        return Ok(usize::MAX);
    }
    let whole = number
        .py()
        .import("math")?
        .getattr("floor")?
        .call1((number,))?;
    whole.extract()
}

// -- construction ----------------------------------------------------------------------------------

/// `StreamReader(limit=65536, loop=None)`.
fn init<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    let py = object.py();
    let state = READER.of(object);
    let [limit, event_loop] = arguments(args, keywords)?;
    let limit = match limit {
        Some(limit) => limit,
        None => DEFAULT_LIMIT.into_pyobject(py)?.into_any(),
    };
    if limit.le(0)? {
        return Err(PyValueError::new_err("Limit cannot be <= 0"));
    }
    state.set_limit(&limit)?;
    let event_loop = match event_loop.filter(|event_loop| !event_loop.is_none()) {
        Some(event_loop) => event_loop,
        None => current_loop(py)?,
    };
    state.storage.reset();
    state.waiter.clear();
    state.exception.clear();
    state.transport.clear();
    state.eof.set(false);
    state.paused.set(false);
    let debug = match EVENT_LOOP.get(&event_loop) {
        Some(_) => event_loop::is_debug(&event_loop)?,
        None => method0(&event_loop, intern!(py, "get_debug"))?.is_truthy()?,
    };
    state.event_loop.set(event_loop);
    if debug {
        let frame = py.import("sys")?.call_method0("_getframe")?;
        let stack = imports(py).extract_stack.bind(py).call1((frame,))?;
        object.setattr(intern!(py, "_source_traceback"), stack)?;
    }
    Ok(())
}

fn arguments<'py>(
    args: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<[Option<Bound<'py, PyAny>>; 2]> {
    if args.len() > 2 {
        return Err(PyTypeError::new_err(format!(
            "StreamReader() takes at most 2 arguments ({} given)",
            args.len()
        )));
    }
    let mut bound = [args.get_item(0).ok(), args.get_item(1).ok()];
    for (name, value) in keywords.into_iter().flatten() {
        let name = name.cast_into::<PyString>()?;
        let place = match name.to_str()? {
            "limit" => &mut bound[0],
            "loop" => &mut bound[1],
            other => {
                return Err(PyTypeError::new_err(format!(
                    "StreamReader() got an unexpected keyword argument '{other}'"
                )));
            }
        };
        if place.replace(value).is_some() {
            return Err(PyTypeError::new_err(format!(
                "StreamReader() got multiple values for argument '{name}'"
            )));
        }
    }
    Ok(bound)
}

/// The loop of a reader that is given none.
fn current_loop(py: Python<'_>) -> Returned<'_> {
    let events = py.import("asyncio.events")?;
    if cfg!(Py_3_12) {
        return events.call_method0("get_event_loop");
    }
    // Warns the caller, who is one frame nearer than asyncio's `__init__` would have it.
    let keywords = PyDict::new(py);
    keywords.set_item("stacklevel", 2)?;
    events.call_method("_get_event_loop", (), Some(&keywords))
}

// -- methods ---------------------------------------------------------------------------------------

fn feed_data<'py>(object: &Bound<'py, PyAny>, data: &Bound<'py, PyAny>) -> Returned<'py> {
    match plain(object) {
        Some(state) => state.feed(data).map(|()| none(object.py())),
        None => inherited(object, "feed_data", (data,)),
    }
}

fn feed_eof<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    match plain(object) {
        Some(state) => state.feed_eof(object.py()).map(|()| none(object.py())),
        None => inherited(object, "feed_eof", ()),
    }
}

fn set_exception<'py>(object: &Bound<'py, PyAny>, error: &Bound<'py, PyAny>) -> Returned<'py> {
    match plain(object) {
        Some(state) => state.set_exception(error).map(|()| none(object.py())),
        None => inherited(object, "set_exception", (error,)),
    }
}

fn exception<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    match plain(object) {
        Some(state) => Ok(state.exception.get_or_none(object.py())),
        None => inherited(object, "exception", ()),
    }
}

fn at_eof<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let Some(state) = plain(object) else {
        return inherited(object, "at_eof", ());
    };
    let at_eof = state.eof.get() && state.storage.len(py)? == 0;
    Ok(PyBool::new(py, at_eof).to_owned().into_any())
}

fn wakeup_waiter<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    match plain(object) {
        Some(state) => state.wake(object.py()).map(|()| none(object.py())),
        None => inherited(object, "_wakeup_waiter", ()),
    }
}

fn maybe_resume_transport<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    match plain(object) {
        Some(state) => state.maybe_resume(object.py()).map(|()| none(object.py())),
        None => inherited(object, "_maybe_resume_transport", ()),
    }
}

/// `<StreamReader 4 bytes eof>`, in asyncio's words.
fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let Some(state) = plain(object) else {
        return inherited(object, "__repr__", ());
    };
    let mut parts = vec!["StreamReader".to_owned()];
    match state.storage.len(py)? {
        0 => {}
        count => parts.push(format!("{count} bytes")),
    }
    if state.eof.get() {
        parts.push("eof".to_owned());
    }
    if state.limit.get() != DEFAULT_LIMIT {
        parts.push(format!("limit={}", state.limit_given.get_or_none(py)));
    }
    for (name, slot) in [
        ("waiter", &state.waiter),
        ("exception", &state.exception),
        ("transport", &state.transport),
    ] {
        if let Some(value) = slot.get(py) {
            parts.push(format!("{name}={}", value.repr()?));
        }
    }
    if state.paused.get() {
        parts.push("paused".to_owned());
    }
    Ok(PyString::new(py, &format!("<{}>", parts.join(" "))).into_any())
}

fn buffer<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(READER.of(object).storage.share(object.py()))
}

fn set_buffer(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    let storage = &READER.of(object).storage;
    match value {
        Some(value) => storage.replace(value.to_owned()),
        None => storage.reset(),
    }
    Ok(())
}

fn limit<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(READER.of(object).limit_given.get_or_none(object.py()))
}

fn set_limit(object: &Bound<'_, PyAny>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    READER
        .of(object)
        .set_limit(&value.map_or_else(|| none(object.py()), Borrowed::to_owned))
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let mut slots = class_slots::<StreamReader>();
    slots.extend([slot!(init init), slot!(repr representation)]);
    let mut methods = vec![
        method!(named "feed_data"("data") => feed_data, "feed_data($self, data)\n--\n\nAppend data, a bytes-like object, and wake who waits for it."),
        method!(none "feed_eof" => feed_eof, "feed_eof($self)\n--\n\nEnd the stream: no data comes any more."),
        method!(named "set_exception"("exc") => set_exception, "set_exception($self, exc)\n--\n\nHave every read raise an exception from now on."),
        method!(none "exception" => exception, "exception($self)\n--\n\nReturn the exception that reads raise, or None."),
        method!(none "at_eof" => at_eof, "at_eof($self)\n--\n\nReturn True if the stream has ended and everything is read."),
        method!(none "_wakeup_waiter" => wakeup_waiter, "Wake who waits for data."),
        method!(none "_maybe_resume_transport" => maybe_resume_transport, "Let the transport receive again, if enough has been read."),
    ];
    methods.extend(super::reading::methods());
    methods.extend(super::until::methods());
    let class = READER.make(
        module.py(),
        c"weft._weft.StreamReader",
        None,
        Description {
            methods,
            properties: vec![
                property!("_buffer" => buffer, set_buffer),
                property!("_limit" => limit, set_limit),
                stored!(READER, "_loop" => event_loop),
                stored!(READER, "_waiter" => waiter),
                stored!(READER, "_exception" => exception),
                stored!(READER, "_transport" => transport),
                flag!(READER, "_eof" => eof),
                flag!(READER, "_paused" => paused),
            ],
            slots,
            doc: Some(c"StreamReader(limit=65536, loop=None)\n--\n\nReads a stream of bytes."),
            instantiable: true,
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("StreamReader", class)
}
