//! `read()` and `readexactly()`.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyInt, PyModule};

use super::errors::incomplete;
use super::reader::{READER, StreamReader, inherited, plain};
use crate::ffi::bytes;
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::ffi::{Slot, Visit};
use crate::operations::{self, Operation, Step};
use crate::{make_operation, method, operation};

/// `read(n)`.
#[derive(Debug, Default)]
pub struct Read {
    reader: Slot,
    /// At most so many bytes; a negative number for all until the end.
    count: Cell<isize>,
    /// What has been read of all.
    collected: RefCell<Vec<u8>>,
}

impl Read {
    fn all_until_the_end<'py>(&self, state: &StreamReader, py: Python<'py>) -> PyResult<Step<'py>> {
        loop {
            // In pieces, as the transport may be allowed to go on after each of them.
            state.check(py)?;
            if state.storage.len(py)? == 0 {
                if !state.eof.get() {
                    return state.wait(py, "read");
                }
                let all = self.collected.take();
                return Ok(Step::Done(bytes::copy(py, &all)));
            }
            self.collect(state, py)?;
        }
    }

    fn collect(&self, state: &StreamReader, py: Python<'_>) -> PyResult<()> {
        let count = state.storage.look(py, |data| {
            let count = data.len().min(state.limit.get());
            self.collected
                .borrow_mut()
                .extend_from_slice(&data[..count]);
            count
        })?;
        state.storage.discard(py, count)?;
        state.maybe_resume(py)
    }
}

impl Operation for Read {
    operation!(Read, "StreamReader.read");

    #[inline]
    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let reader = self.reader.get_or_none(py);
        let state = READER.of(&reader);
        state.check(py)?;
        match usize::try_from(self.count.get()) {
            Ok(0) => Ok(Step::Done(bytes::copy(py, b""))),
            Ok(count) if state.storage.len(py)? > 0 || state.eof.get() => taken(state, py, count),
            Ok(_) => state.wait(py, "read"),
            Err(_) => self.all_until_the_end(state, py),
        }
    }

    #[inline]
    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        let reader = self.reader.get_or_none(py);
        let state = READER.of(&reader);
        state.waited();
        outcome?;
        if let Ok(count) = usize::try_from(self.count.get()) {
            return taken(state, py, count);
        }
        // Woken without data, by the end or by somebody's hand, it has come to its end.
        if state.storage.len(py)? == 0 {
            let all = self.collected.take();
            return Ok(Step::Done(bytes::copy(py, &all)));
        }
        self.collect(state, py)?;
        self.all_until_the_end(state, py)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.reader)
    }

    fn clear(&self) {
        self.collected.take();
        self.reader.clear();
    }
}

/// The end of an operation: the next `count` bytes, or what there is.
#[inline]
fn taken<'py>(state: &StreamReader, py: Python<'py>, count: usize) -> PyResult<Step<'py>> {
    let data = state.storage.take(py, count)?;
    state.maybe_resume(py)?;
    Ok(Step::Done(data))
}

/// `readexactly(n)`.
#[derive(Debug, Default)]
pub struct ReadExactly {
    reader: Slot,
    count: Cell<isize>,
}

impl ReadExactly {
    #[inline]
    fn proceed<'py>(state: &StreamReader, py: Python<'py>, count: usize) -> PyResult<Step<'py>> {
        let length = state.storage.len(py)?;
        if length >= count {
            return taken(state, py, count);
        }
        if state.eof.get() {
            return Err(incomplete(state.storage.take(py, length)?, Some(count)));
        }
        state.wait(py, "readexactly")
    }
}

impl Operation for ReadExactly {
    operation!(ReadExactly, "StreamReader.readexactly");

    #[inline]
    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let Ok(count) = usize::try_from(self.count.get()) else {
            return Err(PyValueError::new_err(
                "readexactly size can not be less than zero",
            ));
        };
        let reader = self.reader.get_or_none(py);
        let state = READER.of(&reader);
        state.check(py)?;
        if count == 0 {
            return Ok(Step::Done(bytes::copy(py, b"")));
        }
        Self::proceed(state, py, count)
    }

    #[inline]
    fn resume<'py>(
        &self,
        frame: &Bound<'py, PyAny>,
        outcome: Returned<'py>,
    ) -> PyResult<Step<'py>> {
        let py = frame.py();
        let reader = self.reader.get_or_none(py);
        let state = READER.of(&reader);
        state.waited();
        outcome?;
        Self::proceed(state, py, self.count.get().unsigned_abs())
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.reader)
    }

    fn clear(&self) {
        self.reader.clear();
    }
}

/// A number of bytes, if it is an ordinary integer.
fn count_of(number: &Bound<'_, PyAny>) -> Option<isize> {
    number.cast_exact::<PyInt>().ok()?.extract().ok()
}

fn read<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [number] = args.bind("read", ["n"])?;
    let count = match &number {
        Some(number) => count_of(number),
        None => Some(-1),
    };
    // All until the end is read in pieces as long as the limit: an odd one is for asyncio's method to judge.
    let own = plain(object).filter(|state| count >= Some(0) || state.has_whole_limit(object.py()));
    match (own, count, number) {
        (Some(_), Some(count), _) => operations::operation(object.py(), |read: &Read| {
            read.reader.fill(object.clone());
            read.count.set(count);
        }),
        (_, _, Some(number)) => inherited(object, "read", (number,)),
        (_, _, None) => inherited(object, "read", ()),
    }
}

fn readexactly<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let [number] = args.bind("readexactly", ["n"])?;
    let number = number.ok_or_else(|| missing_argument("readexactly", "n"))?;
    match (plain(object), count_of(&number)) {
        (Some(_), Some(count)) => operations::operation(object.py(), |read: &ReadExactly| {
            read.reader.fill(object.clone());
            read.count.set(count);
        }),
        _ => inherited(object, "readexactly", (number,)),
    }
}

/// Methods of the reader.
pub(super) fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "read" => read, "read($self, n=-1)\n--\n\nCoroutine: at most n bytes, at least one unless the stream has ended; all until its end where n is negative."),
        method!(fast "readexactly" => readexactly, "readexactly($self, n)\n--\n\nCoroutine: exactly n bytes. Raises IncompleteReadError, with what there is, where the stream ends before."),
    ]
}

/// Makes the operations' classes.
///
/// # Errors
/// What Python raises while it makes types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    make_operation!(module.py(), Read)?;
    make_operation!(module.py(), ReadExactly)
}
