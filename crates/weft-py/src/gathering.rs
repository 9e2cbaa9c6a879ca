//! `gather()` and `shield()`.
//!
//! Neither needs Python code while its futures end: each has a done-callback that the loop calls natively (see
//! [`crate::ffi::callback`]), one turn after the future has ended, as asyncio's are called.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyList, PyString, PyTuple};

use crate::ensuring::{caller_on, ensure_future, loop_of, thread_loop};
use crate::ffi::callback::Callback;
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::object::is_compared_by_identity;
use crate::ffi::{base, context};
use crate::futures::{
    self, Ending, FUTURE, Failure, GATHERING, add_callback, ending, failure, forget_awaited_by,
    note_awaited_by, remove_callback,
};
use crate::imports::imports;
use crate::operations::{create_future, is_done};
use crate::tasks::steps_natively;
use crate::{done_callback, method};

/// What `gather()` was called with, as it tells the same object given twice.
enum Seen<'a, 'py> {
    /// The arguments before, which are few.
    Few(Args<'a, 'py>),
    /// Objects by address.
    ByIdentity(HashMap<usize, usize, BuildHasherDefault<AddressHasher>>),
    /// Objects that may equal others.
    ByEquality(Bound<'py, PyDict>),
}

/// Comparing so few addresses one by one takes less time than hashing them.
const FEW: usize = 8;

/// Spreads addresses, whose low bits are alike.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        let product = (self.0 ^ address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ (product >> 32);
    }
}

impl<'a, 'py> Seen<'a, 'py> {
    fn new(py: Python<'py>, args: Args<'a, 'py>) -> Self {
        let plain = (0..args.count())
            .all(|index| args.get(index).is_some_and(|a| is_compared_by_identity(&a)));
        match args.count() {
            _ if !plain => Self::ByEquality(PyDict::new(py)),
            0..=FEW => Self::Few(args),
            count => Self::ByIdentity(HashMap::with_capacity_and_hasher(
                count,
                BuildHasherDefault::default(),
            )),
        }
    }

    /// The place at which the argument was met before, or `None` for one that is new.
    fn before(&mut self, argument: &Bound<'py, PyAny>, index: usize) -> PyResult<Option<usize>> {
        match self {
            Self::Few(args) => {
                Ok((0..index).find(|earlier| args.get(*earlier).is_some_and(|a| a.is(argument))))
            }
            Self::ByIdentity(known) => Ok(match known.entry(argument.as_ptr().addr()) {
                Entry::Occupied(earlier) => Some(*earlier.get()),
                Entry::Vacant(place) => {
                    place.insert(index);
                    None
                }
            }),
            Self::ByEquality(known) => match known.get_item(argument)? {
                Some(earlier) => Ok(Some(earlier.extract()?)),
                None => known.set_item(argument, index).map(|()| None),
            },
        }
    }
}

/// `gather(*coros_or_futures, return_exceptions=False)`.
fn gather<'py>(module: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = module.py();
    let return_exceptions = match args.only_keyword("gather", "return_exceptions")? {
        Some(value) => value.is_truthy()?,
        None => false,
    };
    let count = args.count();
    if count == 0 {
        let outer = thread_loop(py)?.call_method0(intern!(py, "create_future"))?;
        outer.call_method1(intern!(py, "set_result"), (PyList::empty(py),))?;
        return Ok(outer);
    }
    // It gets its loop at the end. Callbacks that come back to one without know that `gather()` has failed.
    let outer = GATHERING.instance(py)?;
    let gathering = GATHERING.of(&outer);
    gathering.return_exceptions.set(return_exceptions);
    // From Python 3.14 on, what is no future yet runs on the running loop whatever comes before it.
    let mut event_loop = if cfg!(Py_3_14) {
        Some(crate::ffi::call::call0(imports(py).running_loop.bind(py))?).filter(|l| !l.is_none())
    } else {
        None
    };
    let caller = match &event_loop {
        Some(event_loop) => caller_on(event_loop)?,
        None => None,
    };
    let callback = CHILD_DONE.bind(&outer)?;
    let context = context::copy_current(py)?;
    let mut seen = Seen::new(py, args);
    let mut children: Vec<Bound<'py, PyAny>> = Vec::with_capacity(count);
    let mut done = Vec::new();
    let mut total = 0;
    for (index, argument) in (0..count).map_while(|index| Some((index, args.get(index)?))) {
        if let Some(earlier) = seen.before(&argument, index)? {
            children.push(children[earlier].clone());
            continue;
        }
        let child = ensure_future(&argument, event_loop.as_ref())?;
        if event_loop.is_none() {
            event_loop = Some(loop_of(&child)?);
        }
        if !child.is(argument) {
            // Nobody else can await it, so nobody is to blame when it is destroyed.
            if steps_natively(&child) {
                base::task(&child).set_log_destroy_pending(false);
            } else {
                child.setattr(intern!(py, "_log_destroy_pending"), false)?;
            }
        }
        total += 1;
        if cfg!(Py_3_12) && is_done(&child)? {
            done.push(child.clone());
        } else {
            if let Some(caller) = &caller {
                note_awaited_by(&child, caller)?;
            }
            add_callback(&child, &callback, &context)?;
        }
        children.push(child);
    }
    gathering.total.set(total);
    gathering
        .children
        .set(PyList::new(py, children)?.into_any());
    if let Some(caller) = caller {
        gathering.caller.set(caller);
    }
    if let Some(event_loop) = event_loop {
        futures::initialise(&outer, &event_loop)?;
    }
    for child in done {
        child_done(&outer, &child)?;
    }
    Ok(outer)
}

static CHILD_DONE: Callback = done_callback!("_done_callback" => child_done);

/// Tells a gathering that one of its children is done.
fn child_done<'py>(outer: &Bound<'py, PyAny>, child: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = outer.py();
    let gathering = GATHERING.of(outer);
    let fields = base::future(outer);
    gathering.finished.set(gathering.finished.get() + 1);
    if cfg!(Py_3_14)
        && let Some(caller) = gathering.caller.get(py)
    {
        forget_awaited_by(child, &caller)?;
    }
    if !fields.is_alive() || !fields.is_pending() {
        // Nobody will ask this child any more.
        return failure(child).map(drop);
    }
    if !gathering.return_exceptions.get() {
        let exception = match failure(child)? {
            Failure::None => None,
            Failure::Cancelled => Some(cancelled_error(child)?),
            Failure::Exception(exception) => Some(exception),
        };
        if let Some(exception) = exception {
            forget_all(outer)?;
            return futures::fail(outer, &exception);
        }
    }
    if gathering.finished.get() == gathering.total.get() {
        finish(outer)?;
    }
    Ok(())
}

/// The exception that a cancelled future raises.
fn cancelled_error<'py>(future: &Bound<'py, PyAny>) -> Returned<'py> {
    future.call_method0(intern!(future.py(), "_make_cancelled_error"))
}

/// Takes back who awaits the children, those that go on included.
fn forget_all(outer: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = outer.py();
    let gathering = GATHERING.of(outer);
    if let (Some(caller), Some(children)) = (gathering.caller.get(py), gathering.children.get(py)) {
        for child in children.cast_into::<PyList>()?.iter() {
            forget_awaited_by(&child, &caller)?;
        }
        gathering.caller.clear();
    }
    Ok(())
}

/// Completes a gathering whose children are all done.
fn finish(outer: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = outer.py();
    let gathering = GATHERING.of(outer);
    let Some(children) = gathering.children.get(py) else {
        return Ok(());
    };
    gathering.caller.clear();
    let children = children.cast_into::<PyList>()?;
    let mut results = Vec::with_capacity(children.len());
    for child in children.iter() {
        results.push(match ending(&child)? {
            Ending::Cancelled => {
                let message = child.getattr(intern!(py, "_cancel_message"))?;
                let message = if message.is_none() {
                    PyString::new(py, "").into_any()
                } else {
                    message
                };
                imports(py).cancelled_error.bind(py).call1((message,))?
            }
            Ending::Failed(value) | Ending::Returned(value) => value,
        });
    }
    if gathering.cancel_requested.get()
        && let Some(last) = children.iter().next_back()
    {
        return futures::fail(outer, &cancelled_error(&last)?);
    }
    futures::finish(outer, PyList::new(py, results)?.into_any())
}

// -- shield ----------------------------------------------------------------------------------------

/// `shield(arg)`.
fn shield<'py>(module: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = module.py();
    let [argument] = args.bind("shield", ["arg"])?;
    let argument = argument.ok_or_else(|| missing_argument("shield", "arg"))?;
    let inner = ensure_future(&argument, None)?;
    if is_done(&inner)? {
        return Ok(inner);
    }
    let event_loop = loop_of(&inner)?;
    let outer = create_future(&event_loop)?;
    let context = context::copy_current(py)?;
    let caller = caller_on(&event_loop)?;
    let mut held = inner.clone();
    if let Some(caller) = caller {
        note_awaited_by(&inner, &caller)?;
        add_callback(&inner, &INNER_FORGETS.bind(&caller)?, &context)?;
        held = PyTuple::new(py, [inner.clone(), caller])?.into_any();
    }
    add_callback(&inner, &INNER_DONE.bind(&outer)?, &context)?;
    add_callback(&outer, &OUTER_DONE.bind(&held)?, &context)?;
    Ok(outer)
}

static INNER_DONE: Callback = done_callback!("_inner_done_callback" => inner_done);
static OUTER_DONE: Callback = done_callback!("_outer_done_callback" => outer_done);
static INNER_FORGETS: Callback = done_callback!("_clear_awaited_by_callback" => inner_forgets);

/// Passes the end of what is shielded on.
fn inner_done<'py>(outer: &Bound<'py, PyAny>, inner: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = outer.py();
    let native = FUTURE.is_exact(outer) && base::future(outer).is_pending();
    if !native && outer.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
        // Up to Python 3.13 a failure that nobody waits for counts as seen.
        return if cfg!(Py_3_14) {
            Ok(())
        } else {
            failure(inner).map(drop)
        };
    }
    match ending(inner)? {
        Ending::Cancelled if native => futures::cancel_pending(outer, None),
        Ending::Failed(exception) if native => futures::fail(outer, &exception),
        Ending::Returned(result) if native => futures::finish(outer, result),
        Ending::Cancelled => outer.call_method0(intern!(py, "cancel")).map(drop),
        Ending::Failed(exception) => outer
            .call_method1(intern!(py, "set_exception"), (exception,))
            .map(drop),
        Ending::Returned(result) => outer
            .call_method1(intern!(py, "set_result"), (result,))
            .map(drop),
    }
}

/// Lets go of what is shielded where the shield itself has ended first. `held` is what is shielded, from Python 3.14 on
/// together with the task that awaits it.
fn outer_done<'py>(held: &Bound<'py, PyAny>, outer: &Bound<'py, PyAny>) -> PyResult<()> {
    let (inner, caller) = match held.cast_exact::<PyTuple>() {
        Ok(both) => (both.get_item(0)?, Some(both.get_item(1)?)),
        Err(_) => (held.clone(), None),
    };
    if is_done(&inner)? {
        return Ok(());
    }
    remove_callback(&inner, &INNER_DONE.bind(outer)?)?;
    if let Some(caller) = caller {
        remove_callback(&inner, &INNER_FORGETS.bind(&caller)?)?;
        forget_awaited_by(&inner, &caller)?;
    }
    Ok(())
}

/// Takes back that a task awaits what it has shielded.
fn inner_forgets<'py>(caller: &Bound<'py, PyAny>, inner: &Bound<'py, PyAny>) -> PyResult<()> {
    forget_awaited_by(inner, caller)
}

/// The functions of the module.
pub fn functions() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "gather" => gather,
            "gather($module, /, *coros_or_futures, return_exceptions=False)\n--\n\nReturn a future for the list of the results of all arguments, which run concurrently."),
        method!(fast "shield" => shield,
            "shield($module, /, arg)\n--\n\nReturn a future for the result of arg whose cancellation does not reach arg."),
    ]
}
