//! Method and property tables, and the trampolines through which C calls them.

use std::any::Any;
use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pyo3::Borrowed;
use pyo3::exceptions::{PySystemError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule, PyString, PyTuple};

use super::call::StayHere;

/// What a native method returns: a new reference, or the exception to raise.
pub type Returned<'py> = PyResult<Bound<'py, PyAny>>;

/// The arguments of a `METH_FASTCALL | METH_KEYWORDS` call, borrowed for its duration.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "borrowed for one call")]
pub struct Args<'a, 'py> {
    py: Python<'py>,
    values: &'a [*mut ffi::PyObject],
    positional: usize,
    keywords: Option<Borrowed<'a, 'py, PyTuple>>,
}

impl<'a, 'py> Args<'a, 'py> {
    /// The number of positional arguments.
    #[inline]
    pub fn count(&self) -> usize {
        self.positional
    }

    /// Whether there is any keyword argument.
    #[inline]
    pub fn has_keywords(&self) -> bool {
        self.keywords.is_some()
    }

    /// The positional argument number `index`.
    #[inline]
    pub fn get(&self, index: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
        if index >= self.positional {
            return None;
        }
        // SAFETY: the caller of the trampoline keeps its arguments alive during the call.
        Some(unsafe { Borrowed::from_ptr(self.py, self.values[index]) })
    }

    /// A tuple of the positional arguments from `index` on.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn rest(&self, index: usize) -> PyResult<Bound<'py, PyTuple>> {
        let items =
            (index..self.positional).filter_map(|i| self.get(i).map(pyo3::Borrowed::to_owned));
        PyTuple::new(self.py, items.collect::<Vec<_>>())
    }

    /// The keyword arguments, as name and value.
    pub fn keywords(
        &self,
    ) -> impl Iterator<Item = (Bound<'py, PyString>, Borrowed<'a, 'py, PyAny>)> + use<'a, 'py> {
        let (py, values, positional) = (self.py, self.values, self.positional);
        let names = self.keywords;
        let count = names.map_or(0, |names| names.len());
        (0..count).filter_map(move |i| {
            let name = names?.get_item(i).ok()?.cast_into::<PyString>().ok()?;
            // SAFETY: as in `get`; the values of keywords follow the positional ones.
            let value = unsafe { Borrowed::from_ptr(py, values[positional + i]) };
            Some((name, value))
        })
    }

    /// The value of the only keyword that the method knows, `expected`.
    ///
    /// # Errors
    /// `TypeError` for any other keyword, with Python's own words.
    pub fn only_keyword(
        &self,
        method: &str,
        expected: &str,
    ) -> PyResult<Option<Borrowed<'a, 'py, PyAny>>> {
        if self.keywords.is_none() {
            return Ok(None);
        }
        let mut found = None;
        for (name, value) in self.keywords() {
            if name == expected {
                found = Some(value);
            } else {
                return Err(unexpected_keyword(method, &name));
            }
        }
        Ok(found)
    }

    /// Refuses keywords.
    ///
    /// # Errors
    /// `TypeError`.
    pub fn no_keywords(&self, method: &str) -> PyResult<()> {
        match self.keywords().next() {
            Some((name, _)) => Err(unexpected_keyword(method, &name)),
            None => Ok(()),
        }
    }

    /// Refuses positional arguments after the first `count`: what follows has to be given by name.
    ///
    /// # Errors
    /// `TypeError`.
    pub fn at_most(&self, method: &str, count: usize) -> PyResult<()> {
        if self.positional <= count {
            return Ok(());
        }
        let plural = if count == 1 { "" } else { "s" };
        Err(PyTypeError::new_err(format!(
            "{method}() takes {count} positional argument{plural} but {} were given",
            self.positional
        )))
    }

    /// The required positional argument `index`, called `name` in the message.
    ///
    /// # Errors
    /// `TypeError` where it is missing.
    #[inline]
    pub fn required(
        &self,
        method: &str,
        index: usize,
        name: &str,
    ) -> PyResult<Borrowed<'a, 'py, PyAny>> {
        self.get(index)
            .ok_or_else(|| missing_argument(method, name))
    }

    /// Binds the arguments to `names` (any of them positional or by keyword), in that order.
    ///
    /// # Errors
    /// `TypeError` for too many, doubled or unknown arguments.
    pub fn bind<const N: usize>(
        &self,
        method: &str,
        names: [&str; N],
    ) -> PyResult<[Option<Borrowed<'a, 'py, PyAny>>; N]> {
        if self.positional > N {
            return Err(PyTypeError::new_err(format!(
                "{method}() takes at most {N} arguments ({} given)",
                self.positional
            )));
        }
        let mut bound = std::array::from_fn(|index| self.get(index));
        for (name, value) in self.keywords() {
            self.bind_keyword(method, &names, &mut bound, &name, value)?;
        }
        Ok(bound)
    }

    /// As [`Self::bind`], where no argument may be left out.
    ///
    /// # Errors
    /// `TypeError`.
    #[inline]
    pub fn bind_all<const N: usize>(
        &self,
        method: &str,
        names: [&str; N],
    ) -> PyResult<[Borrowed<'a, 'py, PyAny>; N]> {
        let bound = if self.positional == N && self.keywords.is_none() {
            std::array::from_fn(|index| self.get(index))
        } else {
            self.bind(method, names)?
        };
        if let Some(missing) = bound.iter().position(Option::is_none) {
            return Err(missing_argument(method, names[missing]));
        }
        Ok(bound.map(|value| value.unwrap_or_else(|| self.none())))
    }

    /// Puts the value of the keyword `name` into its place in `bound`.
    ///
    /// # Errors
    /// `TypeError` for doubled or unknown arguments.
    pub fn bind_keyword(
        &self,
        method: &str,
        names: &[&str],
        bound: &mut [Option<Borrowed<'a, 'py, PyAny>>],
        name: &Bound<'_, PyString>,
        value: Borrowed<'a, 'py, PyAny>,
    ) -> PyResult<()> {
        let Some(index) = names.iter().position(|known| name == *known) else {
            return Err(unexpected_keyword(method, name));
        };
        if bound[index].is_some() {
            return Err(PyTypeError::new_err(format!(
                "{method}() got multiple values for argument '{}'",
                names[index]
            )));
        }
        bound[index] = Some(value);
        Ok(())
    }

    /// `None`, as an argument that outlives the call.
    #[inline]
    pub fn none(&self) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: `None` is never freed.
        unsafe { Borrowed::from_ptr(self.py, ffi::Py_None()) }
    }
}

/// Python's complaint about a call that lacks an argument.
#[cold]
pub fn missing_argument(method: &str, name: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "{method}() missing 1 required positional argument: '{name}'"
    ))
}

#[cold]
fn unexpected_keyword(method: &str, name: &Bound<'_, PyString>) -> PyErr {
    PyTypeError::new_err(format!(
        "{method}() got an unexpected keyword argument '{name}'"
    ))
}

/// Turns a panic into the exception that Python code sees.
fn panic_error(payload: &(dyn Any + Send)) -> PyErr {
    let message = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown cause".to_owned());
    PySystemError::new_err(format!("weft panicked: {message}"))
}

/// Runs `body`; a thread whose stack Python unwinds in it, because the interpreter is being torn down, comes to rest here.
#[inline]
fn staying<T>(body: impl FnOnce() -> T) -> T {
    let stay = StayHere;
    let result = body();
    std::mem::forget(stay);
    result
}

/// Runs `body` at the border: a panic becomes an exception, an exception becomes Python's error indicator.
///
/// # Safety
/// The GIL is held, as in every function that Python calls.
#[inline]
pub unsafe fn guard<'py, T: Copy>(failed: T, body: impl FnOnce(Python<'py>) -> PyResult<T>) -> T {
    // SAFETY: promised by the caller.
    let py = unsafe { Python::assume_attached() };
    let outcome = catch_unwind(AssertUnwindSafe(|| staying(|| body(py))));
    settle(py, failed, outcome)
}

/// As [`guard`], and tells `PyO3` for as long as the call lasts that the GIL is held.
///
/// `PyO3` puts off the release of a `Py` or `PyErr` that is dropped while it does not know that. Native state has none
/// (see [`super::Reference`]), but calls that handle errors do, and a run of the loop, in which everything else happens.
///
/// # Safety
/// As [`guard`].
pub unsafe fn guard_attached<'py, T: Copy>(
    failed: T,
    body: impl FnOnce(Python<'py>) -> PyResult<T>,
) -> T {
    // SAFETY: promised by the caller.
    let py = unsafe { Python::assume_attached() };
    let mut body = Some(body);
    let mut run = || {
        body.take()
            .map(|body| catch_unwind(AssertUnwindSafe(|| staying(|| body(py)))))
    };
    // PyO3 refuses to attach while the interpreter is being torn down.
    let outcome = Python::try_attach(|_| run()).flatten().or_else(&mut run);
    settle(py, failed, outcome.unwrap_or(Ok(Ok(failed))))
}

#[inline]
fn settle<T>(py: Python<'_>, failed: T, outcome: std::thread::Result<PyResult<T>>) -> T {
    match outcome {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            // Attached, because turning the error into Python's drops references.
            let mut error = Some(error);
            Python::try_attach(|py| error.take().map(|error| error.restore(py)));
            if let Some(error) = error {
                error.restore(py);
            }
            failed
        }
        Err(payload) => {
            panic_error(&*payload).restore(py);
            failed
        }
    }
}

/// Trampoline of `METH_FASTCALL | METH_KEYWORDS`.
///
/// # Safety
/// Called by Python with arguments of that convention.
#[inline]
pub unsafe fn fastcall<'a, 'py: 'a>(
    slf: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
    body: impl FnOnce(&'a Bound<'py, PyAny>, Args<'a, 'py>) -> Returned<'py>,
) -> *mut ffi::PyObject {
    // SAFETY: Python passes `positional` values, then one for each name in the tuple (or null).
    unsafe {
        guard(ptr::null_mut(), |py| {
            let positional = positional.cast_unsigned();
            let keywords =
                Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>());
            let total = positional + keywords.map_or(0, |names| names.len());
            let values = if total == 0 {
                &[]
            } else {
                std::slice::from_raw_parts(values, total)
            };
            let args = Args {
                py,
                values,
                positional,
                keywords,
            };
            body(receiver(py, &slf), args).map(Bound::into_ptr)
        })
    }
}

/// Trampoline of `METH_NOARGS` and of property getters.
///
/// # Safety
/// Called by Python with a live receiver.
#[inline]
pub unsafe fn noargs<'a, 'py: 'a>(
    slf: *mut ffi::PyObject,
    body: impl FnOnce(&'a Bound<'py, PyAny>) -> Returned<'py>,
) -> *mut ffi::PyObject {
    // SAFETY: promised by the caller.
    unsafe {
        guard(ptr::null_mut(), |py| {
            body(receiver(py, &slf)).map(Bound::into_ptr)
        })
    }
}

/// Trampoline of `METH_O`.
///
/// # Safety
/// Called by Python with a live receiver and argument.
#[inline]
pub unsafe fn onearg<'a, 'py: 'a>(
    slf: *mut ffi::PyObject,
    argument: *mut ffi::PyObject,
    body: impl FnOnce(&'a Bound<'py, PyAny>, &'a Bound<'py, PyAny>) -> Returned<'py>,
) -> *mut ffi::PyObject {
    // SAFETY: promised by the caller.
    unsafe {
        guard(ptr::null_mut(), |py| {
            body(receiver(py, &slf), receiver(py, &argument)).map(Bound::into_ptr)
        })
    }
}

/// Trampoline of property setters; `None` deletes.
///
/// # Safety
/// Called by Python with a live receiver and a value or null.
#[inline]
pub unsafe fn setter<'a, 'py: 'a>(
    slf: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    body: impl FnOnce(&'a Bound<'py, PyAny>, Option<Borrowed<'a, 'py, PyAny>>) -> PyResult<()>,
) -> std::ffi::c_int {
    // SAFETY: promised by the caller.
    unsafe {
        guard_attached(-1, |py| {
            body(receiver(py, &slf), Borrowed::from_ptr_or_opt(py, value)).map(|()| 0)
        })
    }
}

/// Views a borrowed pointer as a `Bound` without touching its reference count.
///
/// # Safety
/// The pointer outlives `'a` and points to a live object.
#[inline]
pub(super) unsafe fn receiver<'a, 'py>(
    _py: Python<'py>,
    pointer: &*mut ffi::PyObject,
) -> &'a Bound<'py, PyAny> {
    // SAFETY: `Bound` is a non-null pointer with a zero-sized token; the reference never drops it. The word that
    // holds the pointer lives in the trampoline's frame, which outlives the call.
    unsafe { &*ptr::from_ref(pointer).cast::<Bound<'py, PyAny>>() }
}

/// Trampoline of `METH_NOARGS` for long calls: see [`guard_attached`].
///
/// # Safety
/// Called by Python with a live receiver.
pub unsafe fn noargs_attached<'a, 'py: 'a>(
    slf: *mut ffi::PyObject,
    body: impl FnOnce(&'a Bound<'py, PyAny>) -> Returned<'py>,
) -> *mut ffi::PyObject {
    // SAFETY: promised by the caller.
    unsafe {
        guard_attached(ptr::null_mut(), |py| {
            body(receiver(py, &slf)).map(Bound::into_ptr)
        })
    }
}

/// Adds functions to a module: entries of a method table, whose receiver is the module.
///
/// # Errors
/// What Python raises while it makes functions.
pub fn add_functions(
    module: &Bound<'_, PyModule>,
    mut functions: Vec<ffi::PyMethodDef>,
) -> PyResult<()> {
    let names = module.index()?;
    for function in &functions {
        // SAFETY: the name of a table entry is a constant that ends in 0.
        let name = unsafe { CStr::from_ptr(function.ml_name) }.to_string_lossy();
        if !name.starts_with('_') {
            names.append(name)?;
        }
    }
    functions.push(ffi::PyMethodDef::zeroed());
    // SAFETY: a live module; the table ends with an empty entry and is never freed.
    match unsafe { ffi::PyModule_AddFunctions(module.as_ptr(), functions.leak().as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(module.py())),
    }
}

/// One entry of a method table: `method!(fast|none|one "name" => function, "doc")`.
#[macro_export]
macro_rules! method {
    (fast $name:literal => $function:path, $doc:literal) => {{
        unsafe extern "C" fn raw(
            slf: *mut pyo3::ffi::PyObject,
            values: *const *mut pyo3::ffi::PyObject,
            positional: pyo3::ffi::Py_ssize_t,
            names: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, through the table entry below.
            unsafe { $crate::ffi::method::fastcall(slf, values, positional, names, $function) }
        }
        pyo3::ffi::PyMethodDef {
            ml_name: concat!($name, "\0").as_ptr().cast(),
            ml_meth: pyo3::ffi::PyMethodDefPointer {
                PyCFunctionFastWithKeywords: raw,
            },
            ml_flags: pyo3::ffi::METH_FASTCALL | pyo3::ffi::METH_KEYWORDS,
            ml_doc: concat!($doc, "\0").as_ptr().cast(),
        }
    }};
    // One argument, which may be given by name.
    (named $name:literal($argument:literal) => $function:path, $doc:literal) => {{
        fn bound<'py>(
            object: &pyo3::Bound<'py, pyo3::PyAny>,
            args: $crate::ffi::method::Args<'_, 'py>,
        ) -> $crate::ffi::method::Returned<'py> {
            let value = match args.get(0) {
                Some(value) if args.count() == 1 && !args.has_keywords() => value,
                _ => args.bind($name, [$argument])?[0]
                    .ok_or_else(|| $crate::ffi::method::missing_argument($name, $argument))?,
            };
            $function(object, &value)
        }
        $crate::method!(fast $name => bound, $doc)
    }};
    (none $name:literal => $function:path, $doc:literal) => {{
        unsafe extern "C" fn raw(
            slf: *mut pyo3::ffi::PyObject,
            _: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, through the table entry below.
            unsafe { $crate::ffi::method::noargs(slf, $function) }
        }
        pyo3::ffi::PyMethodDef {
            ml_name: concat!($name, "\0").as_ptr().cast(),
            ml_meth: pyo3::ffi::PyMethodDefPointer { PyCFunction: raw },
            ml_flags: pyo3::ffi::METH_NOARGS,
            ml_doc: concat!($doc, "\0").as_ptr().cast(),
        }
    }};
    (attached $name:literal => $function:path, $doc:literal) => {{
        unsafe extern "C" fn raw(
            slf: *mut pyo3::ffi::PyObject,
            _: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, through the table entry below.
            unsafe { $crate::ffi::method::noargs_attached(slf, $function) }
        }
        pyo3::ffi::PyMethodDef {
            ml_name: concat!($name, "\0").as_ptr().cast(),
            ml_meth: pyo3::ffi::PyMethodDefPointer { PyCFunction: raw },
            ml_flags: pyo3::ffi::METH_NOARGS,
            ml_doc: concat!($doc, "\0").as_ptr().cast(),
        }
    }};
    (one $name:literal => $function:path, $doc:literal) => {{
        unsafe extern "C" fn raw(
            slf: *mut pyo3::ffi::PyObject,
            argument: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, through the table entry below.
            unsafe { $crate::ffi::method::onearg(slf, argument, $function) }
        }
        pyo3::ffi::PyMethodDef {
            ml_name: concat!($name, "\0").as_ptr().cast(),
            ml_meth: pyo3::ffi::PyMethodDefPointer { PyCFunction: raw },
            ml_flags: pyo3::ffi::METH_O,
            ml_doc: concat!($doc, "\0").as_ptr().cast(),
        }
    }};
}

/// One entry of a property table: `property!("name" => getter)` or `property!("name" => getter, setter)`.
#[macro_export]
macro_rules! property {
    (@getter $getter:path) => {{
        unsafe extern "C" fn raw(
            slf: *mut pyo3::ffi::PyObject,
            _: *mut std::ffi::c_void,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: only Python calls this, through the table entry below.
            unsafe { $crate::ffi::method::noargs(slf, $getter) }
        }
        raw
    }};
    ($name:literal => $getter:path) => {
        pyo3::ffi::PyGetSetDef {
            name: concat!($name, "\0").as_ptr().cast(),
            get: Some($crate::property!(@getter $getter)),
            set: None,
            doc: std::ptr::null(),
            closure: std::ptr::null_mut(),
        }
    };
    ($name:literal => $getter:path, $setter:path) => {{
        unsafe extern "C" fn raw_set(
            slf: *mut pyo3::ffi::PyObject,
            value: *mut pyo3::ffi::PyObject,
            _: *mut std::ffi::c_void,
        ) -> std::ffi::c_int {
            // SAFETY: only Python calls this, through the table entry below.
            unsafe { $crate::ffi::method::setter(slf, value, $setter) }
        }
        pyo3::ffi::PyGetSetDef {
            name: concat!($name, "\0").as_ptr().cast(),
            get: Some($crate::property!(@getter $getter)),
            set: Some(raw_set),
            doc: std::ptr::null(),
            closure: std::ptr::null_mut(),
        }
    }};
}
