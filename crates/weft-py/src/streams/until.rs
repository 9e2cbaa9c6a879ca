//! `readuntil()`, `readline()` and iteration over lines.

use std::cell::Cell;
use std::ffi::c_int;

use pyo3::exceptions::{PyStopAsyncIteration, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyModule, PyTuple};

use super::errors::{incomplete, overrun};
use super::reader::{READER, StreamReader, inherited, plain};
use super::search::{Match, find_first};
use crate::ffi::bytes::contents;
use crate::ffi::method::{Args, Returned};
use crate::ffi::{Slot, Visit};
use crate::operations::{self, Operation, Step};
use crate::{make_operation, method, operation};

const NEWLINE: &[u8] = b"\n";

/// What a search that has come to its end has found.
enum Found<'py> {
    /// A message, of so many bytes.
    Message(usize),
    /// The end of the stream; what was left before it.
    End(Bound<'py, PyAny>),
    /// More than the limit, with or without a separator behind so many bytes.
    TooLong(&'static str, usize),
}

/// How far a search has come.
#[derive(Debug, Default)]
struct Search {
    /// No separator begins before this place.
    offset: Cell<usize>,
}

impl Search {
    /// Looks at what has arrived; `None` where more is needed. `separators` are in the order of their length.
    #[inline]
    fn advance<'py, 'a>(
        &self,
        py: Python<'py>,
        state: &StreamReader,
        separators: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> PyResult<Option<Found<'py>>> {
        let lengths = || separators.clone().map(<[u8]>::len);
        let (shortest, longest) = (lengths().min().unwrap_or(1), lengths().max().unwrap_or(1));
        let offset = self.offset.get();
        let (length, found) = state.storage.look(py, |data| {
            let found = if data.len() >= offset + shortest {
                find_first(data, separators, offset)
            } else {
                None
            };
            (data.len(), found)
        })?;
        if let Some(Match { start, end }) = found {
            if start > state.limit.get() {
                let message = "Separator is found, but chunk is longer than limit";
                return Ok(Some(Found::TooLong(message, start)));
            }
            return Ok(Some(Found::Message(end)));
        }
        if length >= offset + shortest {
            // The longest separator may have begun already.
            let offset = (length + 1).saturating_sub(longest);
            self.offset.set(offset);
            if offset > state.limit.get() {
                let message = "Separator is not found, and chunk exceed the limit";
                return Ok(Some(Found::TooLong(message, offset)));
            }
        }
        if state.eof.get() {
            return Ok(Some(Found::End(state.storage.take(py, length)?)));
        }
        Ok(None)
    }
}

/// `readuntil(separator)`.
#[derive(Debug, Default)]
pub struct ReadUntil {
    reader: Slot,
    /// `bytes`, or a tuple of them in the order of their length; none of them empty.
    separator: Slot,
    search: Search,
}

impl ReadUntil {
    fn proceed<'py>(&self, state: &StreamReader, py: Python<'py>) -> PyResult<Step<'py>> {
        let separator = self.separator.get_or_none(py);
        let found = match separator.cast::<PyTuple>() {
            Ok(several) => {
                let several = several.iter().collect::<Vec<_>>();
                self.search
                    .advance(py, state, several.iter().map(|one| contents(one)))?
            }
            Err(_) => self
                .search
                .advance(py, state, std::iter::once(contents(&separator)))?,
        };
        match found {
            None => state.wait(py, "readuntil"),
            Some(Found::Message(length)) => taken(state, py, length),
            Some(Found::End(partial)) => Err(incomplete(partial, None)),
            Some(Found::TooLong(message, consumed)) => Err(overrun(py, message, consumed)),
        }
    }
}

#[inline]
fn taken<'py>(state: &StreamReader, py: Python<'py>, length: usize) -> PyResult<Step<'py>> {
    let data = state.storage.take(py, length)?;
    state.maybe_resume(py)?;
    Ok(Step::Done(data))
}

impl Operation for ReadUntil {
    operation!(ReadUntil, "StreamReader.readuntil");

    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let reader = self.reader.get_or_none(py);
        let state = READER.of(&reader);
        state.check(py)?;
        self.proceed(state, py)
    }

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
        self.proceed(state, py)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.reader, &self.separator])
    }

    fn clear(&self) {
        self.reader.clear();
        self.separator.clear();
    }
}

/// `readline()`, and the step of an iteration over lines.
#[derive(Debug, Default)]
pub struct ReadLine {
    reader: Slot,
    search: Search,
    /// Whether nothing is the end of an iteration.
    iterates: Cell<bool>,
}

impl ReadLine {
    #[inline]
    fn proceed<'py>(&self, state: &StreamReader, py: Python<'py>) -> PyResult<Step<'py>> {
        let found = self.search.advance(py, state, std::iter::once(NEWLINE))?;
        match found {
            None => state.wait(py, "readuntil"),
            Some(Found::Message(length)) => taken(state, py, length),
            Some(Found::End(partial)) if self.iterates.get() && contents(&partial).is_empty() => {
                Err(PyStopAsyncIteration::new_err(()))
            }
            Some(Found::End(partial)) => Ok(Step::Done(partial)),
            Some(Found::TooLong(message, consumed)) => {
                skip(state, py, consumed)?;
                Err(too_long(py, message, consumed))
            }
        }
    }
}

/// Drops a line that is too long, or all that is there of it.
#[cold]
fn skip(state: &StreamReader, py: Python<'_>, length: usize) -> PyResult<()> {
    let dropped = state.storage.look(py, |data| {
        if data[length..].starts_with(NEWLINE) {
            length + NEWLINE.len()
        } else {
            data.len()
        }
    })?;
    state.storage.discard(py, dropped)?;
    state.maybe_resume(py)
}

/// The `ValueError` that a `LimitOverrunError` becomes.
#[cold]
fn too_long(py: Python<'_>, message: &'static str, consumed: usize) -> PyErr {
    let error = PyValueError::new_err(message);
    let cause = overrun(py, message, consumed);
    match error
        .value(py)
        .setattr(intern!(py, "__context__"), cause.value(py))
    {
        Ok(()) => error,
        Err(error) => error,
    }
}

impl Operation for ReadLine {
    operation!(ReadLine, "StreamReader.readline");

    #[inline]
    fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = frame.py();
        let reader = self.reader.get_or_none(py);
        let state = READER.of(&reader);
        state.check(py)?;
        self.proceed(state, py)
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
        self.proceed(state, py)
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slot(&self.reader)
    }

    fn clear(&self) {
        self.reader.clear();
    }
}

// -- methods ---------------------------------------------------------------------------------------

/// What [`ReadUntil`] keeps for a separator; `None` for one that asyncio's own method has to judge.
fn usable<'py>(separator: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let is_usable = |one: &Bound<'py, PyAny>| {
        one.cast_exact::<PyBytes>()
            .is_ok_and(|bytes| !bytes.as_bytes().is_empty())
    };
    if is_usable(separator) {
        return Some(separator.clone());
    }
    let several = separator.cast_exact::<PyTuple>().ok()?;
    if !cfg!(Py_3_13) || several.is_empty() {
        return None;
    }
    let mut several = several.iter().collect::<Vec<_>>();
    several.sort_by_key(|one| contents(one).len());
    if !several.iter().all(is_usable) {
        return None;
    }
    Some(PyTuple::new(separator.py(), several).ok()?.into_any())
}

fn readuntil<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    let py = object.py();
    let [separator] = args.bind("readuntil", ["separator"])?;
    let separator = match separator {
        Some(separator) => separator.to_owned(),
        None => PyBytes::new(py, NEWLINE).into_any(),
    };
    match (plain(object), usable(&separator)) {
        (Some(_), Some(separator)) => operations::operation(py, |read: &ReadUntil| {
            read.reader.fill(object.clone());
            read.separator.fill(separator);
        }),
        _ => inherited(object, "readuntil", (separator,)),
    }
}

fn lines<'py>(object: &Bound<'py, PyAny>, name: &str, iterates: bool) -> Returned<'py> {
    if plain(object).is_none() {
        return inherited(object, name, ());
    }
    operations::operation(object.py(), |read: &ReadLine| {
        read.reader.fill(object.clone());
        read.iterates.set(iterates);
    })
}

fn readline<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    lines(object, "readline", false)
}

fn next_line<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    lines(object, "__anext__", true)
}

/// Methods of the reader.
pub(super) fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(fast "readuntil" => readuntil, "readuntil($self, separator=b'\\n')\n--\n\nCoroutine: everything up to and with the separator (from Python 3.13 on, the first of a tuple of them). Raises IncompleteReadError, with what there is, where the stream ends before, LimitOverrunError where it is more than the limit."),
        method!(none "readline" => readline, "readline($self)\n--\n\nCoroutine: a line with its end, or what there is at the end of the stream. Raises ValueError where it is longer than the limit."),
        method!(none "__anext__" => next_line, "__anext__($self)\n--\n\nCoroutine: the next line. Raises StopAsyncIteration at the end of the stream."),
    ]
}

/// Makes the operations' classes.
///
/// # Errors
/// What Python raises while it makes types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    make_operation!(module.py(), ReadUntil)?;
    make_operation!(module.py(), ReadLine)
}
