//! Calling Python without building tuples, and stepping coroutines without `StopIteration`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString, PyTuple};

/// The calls that may not come back: a thread that asks for the GIL while the interpreter is being torn down is ended on
/// the spot, up to Python 3.13 by unwinding its stack. Declared here with an ABI that says so.
///
/// The bindings declare the same functions as ones that never unwind, and the compiler merges what it knows of a
/// symbol. So they are called by way of [`known_only_here`].
mod python {
    use std::ffi::{c_char, c_int};

    use pyo3::ffi::{PyObject, PySendResult, PyThreadState};

    unsafe extern "C-unwind" {
        pub fn PyObject_Vectorcall(
            callable: *mut PyObject,
            args: *const *mut PyObject,
            nargs: usize,
            names: *mut PyObject,
        ) -> *mut PyObject;
        pub fn PyObject_VectorcallMethod(
            name: *mut PyObject,
            args: *const *mut PyObject,
            nargs: usize,
            names: *mut PyObject,
        ) -> *mut PyObject;
        pub fn PyObject_Call(
            callable: *mut PyObject,
            args: *mut PyObject,
            keywords: *mut PyObject,
        ) -> *mut PyObject;
        pub fn PyIter_Send(
            iterator: *mut PyObject,
            argument: *mut PyObject,
            result: *mut *mut PyObject,
        ) -> PySendResult;
        pub fn PySys_Audit(event: *const c_char, format: *const c_char, ...) -> c_int;
        pub fn PyEval_RestoreThread(state: *mut PyThreadState);
    }

    pub type Vectorcall = unsafe extern "C-unwind" fn(
        *mut PyObject,
        *const *mut PyObject,
        usize,
        *mut PyObject,
    ) -> *mut PyObject;
    pub type Call =
        unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
    pub type Send = unsafe extern "C-unwind" fn(
        *mut PyObject,
        *mut PyObject,
        *mut *mut PyObject,
    ) -> PySendResult;
    pub type Audit = unsafe extern "C-unwind" fn(*const c_char, *const c_char, ...) -> c_int;
    pub type Restore = unsafe extern "C-unwind" fn(*mut PyThreadState);
}

/// A function of which the compiler knows nothing but the type that is given here.
#[inline]
fn known_only_here<F>(function: F) -> F {
    std::hint::black_box(function)
}

/// Stops the thread for good where Python unwinds its stack: the frames above must not run, they would release
/// references without the GIL. The process is about to end. A panic of Rust passes.
pub(super) struct StayHere;

impl Drop for StayHere {
    fn drop(&mut self) {
        while !std::thread::panicking() {
            std::thread::park();
        }
    }
}

/// Runs `body` without the GIL, as a part of the thread that must not touch Python.
pub fn detached<T>(_: Python<'_>, body: impl FnOnce() -> T) -> T {
    // SAFETY: the token proves that this thread has the GIL.
    let state = unsafe { ffi::PyEval_SaveThread() };
    let outcome = catch_unwind(AssertUnwindSafe(body));
    calling(|| {
        let restore: python::Restore = known_only_here(python::PyEval_RestoreThread);
        // SAFETY: the state that was just saved, in the same thread.
        unsafe { restore(state) }
    });
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs one call into Python.
#[inline]
fn calling<T>(call: impl FnOnce() -> T) -> T {
    let stay = StayHere;
    let result = call();
    std::mem::forget(stay);
    result
}

/// `callable()`.
///
/// # Errors
/// What the callable raises.
#[inline]
pub fn call0<'py>(callable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a live callable; a null argument vector of length 0 is allowed.
    unsafe {
        let result = calling(|| {
            known_only_here::<python::Vectorcall>(python::PyObject_Vectorcall)(
                callable.as_ptr(),
                ptr::null(),
                0,
                ptr::null_mut(),
            )
        });
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// `callable(argument)`.
///
/// # Errors
/// What the callable raises.
#[inline]
pub fn call1<'py>(
    callable: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let vector = [ptr::null_mut(), argument.as_ptr()];
    // SAFETY: one live argument, with the free word before it that PY_VECTORCALL_ARGUMENTS_OFFSET promises.
    unsafe {
        let result = calling(|| {
            known_only_here::<python::Vectorcall>(python::PyObject_Vectorcall)(
                callable.as_ptr(),
                vector.as_ptr().add(1),
                1 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                ptr::null_mut(),
            )
        });
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// `callable(*arguments)`, reading the arguments where the tuple keeps them.
///
/// # Errors
/// What the callable raises.
#[inline]
pub fn call_tuple<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the tuple is alive during the call and immutable, its items lie side by side.
    unsafe {
        let items = (&raw const (*arguments.as_ptr().cast::<ffi::PyTupleObject>()).ob_item)
            .cast::<*mut ffi::PyObject>();
        let result = calling(|| {
            known_only_here::<python::Vectorcall>(python::PyObject_Vectorcall)(
                callable.as_ptr(),
                items,
                ffi::PyTuple_GET_SIZE(arguments.as_ptr()).cast_unsigned(),
                ptr::null_mut(),
            )
        });
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// `callable(*arguments, **keywords)`.
///
/// # Errors
/// What the callable raises.
pub fn call_with_keywords<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
    keywords: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a live callable, a tuple and a dictionary.
    unsafe {
        let result = calling(|| {
            known_only_here::<python::Call>(python::PyObject_Call)(
                callable.as_ptr(),
                arguments.as_ptr(),
                keywords.as_ptr(),
            )
        });
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// `object.name()`.
///
/// # Errors
/// What the method raises.
#[inline]
pub fn method0<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    let vector = [object.as_ptr()];
    // SAFETY: the vector holds the receiver alone.
    unsafe {
        let result = calling(|| {
            known_only_here::<python::Vectorcall>(python::PyObject_VectorcallMethod)(
                name.as_ptr(),
                vector.as_ptr(),
                1,
                ptr::null_mut(),
            )
        });
        Bound::from_owned_ptr_or_err(object.py(), result)
    }
}

/// `object.name(argument)`.
///
/// # Errors
/// What the method raises.
#[inline]
pub fn method1<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let vector = [ptr::null_mut(), object.as_ptr(), argument.as_ptr()];
    // SAFETY: receiver and one argument, with a free word before them.
    unsafe {
        let result = calling(|| {
            known_only_here::<python::Vectorcall>(python::PyObject_VectorcallMethod)(
                name.as_ptr(),
                vector.as_ptr().add(1),
                2 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                ptr::null_mut(),
            )
        });
        Bound::from_owned_ptr_or_err(object.py(), result)
    }
}

/// What a coroutine did when it was resumed.
#[derive(Debug)]
pub enum Sent<'py> {
    /// It yielded an object and is suspended.
    Yielded(Bound<'py, PyAny>),
    /// It returned.
    Returned(Bound<'py, PyAny>),
    /// It raised.
    Raised(PyErr),
}

/// Resumes `coroutine` with `None` (`PyIter_Send`).
#[inline]
pub fn send_none<'py>(coroutine: &Bound<'py, PyAny>) -> Sent<'py> {
    let py = coroutine.py();
    let mut result = ptr::null_mut();
    // SAFETY: live arguments; on NEXT and RETURN the result is a new reference, on ERROR an exception is set.
    unsafe {
        let outcome = calling(|| {
            known_only_here::<python::Send>(python::PyIter_Send)(
                coroutine.as_ptr(),
                ffi::Py_None(),
                &raw mut result,
            )
        });
        match outcome {
            ffi::PySendResult::PYGEN_NEXT => Sent::Yielded(Bound::from_owned_ptr(py, result)),
            ffi::PySendResult::PYGEN_RETURN => Sent::Returned(Bound::from_owned_ptr(py, result)),
            ffi::PySendResult::PYGEN_ERROR => Sent::Raised(PyErr::fetch(py)),
        }
    }
}

/// Whether the C function behind a builtin differs from what it was at the first call of this function.
///
/// There is one watched builtin in the process, `time.monotonic`.
pub fn c_function_changed(builtin: &Bound<'_, PyAny>) -> bool {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static ORIGINAL: AtomicUsize = AtomicUsize::new(0);
    // SAFETY: reads the method definition of a live builtin; Python checks that it is one.
    let now = unsafe { ffi::PyCFunction_GetFunction(builtin.as_ptr()) };
    let Some(now) = now else {
        // Not a builtin: the error that Python set is ours to drop.
        drop(PyErr::take(builtin.py()));
        return true;
    };
    let now = now as usize;
    match ORIGINAL.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => false,
        Err(original) => original != now,
    }
}

/// `callable(first, second)`.
///
/// # Errors
/// What the callable raises.
#[inline]
pub fn call2<'py>(
    callable: &Bound<'py, PyAny>,
    first: &Bound<'py, PyAny>,
    second: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let vector = [ptr::null_mut(), first.as_ptr(), second.as_ptr()];
    // SAFETY: two live arguments, with a free word before them.
    unsafe {
        let result = calling(|| {
            known_only_here::<python::Vectorcall>(python::PyObject_Vectorcall)(
                callable.as_ptr(),
                vector.as_ptr().add(1),
                2 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                ptr::null_mut(),
            )
        });
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// `callable(first, second, third)`.
///
/// # Errors
/// What the callable raises.
#[inline]
pub fn call3<'py>(
    callable: &Bound<'py, PyAny>,
    first: &Bound<'py, PyAny>,
    second: &Bound<'py, PyAny>,
    third: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let vector = [
        ptr::null_mut(),
        first.as_ptr(),
        second.as_ptr(),
        third.as_ptr(),
    ];
    // SAFETY: three live arguments, with a free word before them.
    unsafe {
        let result = calling(|| {
            known_only_here::<python::Vectorcall>(python::PyObject_Vectorcall)(
                callable.as_ptr(),
                vector.as_ptr().add(1),
                3 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                ptr::null_mut(),
            )
        });
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// A table entry that lives as long as the process.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "a C structure")]
pub struct MethodDefinition(ffi::PyMethodDef);

// SAFETY: the definition is constant and points to constants.
unsafe impl Sync for MethodDefinition {}

impl MethodDefinition {
    /// Wraps a definition made by `method!`.
    #[must_use]
    pub const fn new(definition: ffi::PyMethodDef) -> Self {
        Self(definition)
    }
}

/// A builtin method made from a table entry, bound to `object`.
///
/// # Errors
/// `MemoryError`.
pub fn bound_method<'py>(
    definition: &'static MethodDefinition,
    object: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the definition lives as long as the process; the method keeps the object alive.
    unsafe {
        let method = ffi::PyCMethod_New(
            ptr::from_ref(&definition.0).cast_mut(),
            object.as_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(object.py(), method)
    }
}

/// `object.name(first, second)`.
///
/// # Errors
/// What the method raises.
#[inline]
pub fn method2<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    first: &Bound<'py, PyAny>,
    second: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let vector = [
        ptr::null_mut(),
        object.as_ptr(),
        first.as_ptr(),
        second.as_ptr(),
    ];
    // SAFETY: receiver and two arguments, with a free word before them.
    unsafe {
        let result = calling(|| {
            known_only_here::<python::Vectorcall>(python::PyObject_VectorcallMethod)(
                name.as_ptr(),
                vector.as_ptr().add(1),
                3 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                ptr::null_mut(),
            )
        });
        Bound::from_owned_ptr_or_err(object.py(), result)
    }
}

/// Tells audit hooks of a datagram, as `socket.sendto()` does.
///
/// # Errors
/// What a hook raises.
#[inline]
pub fn audit_sendto(sock: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: an event and a format that end in 0; the format takes two live objects.
    let outcome = calling(|| unsafe {
        known_only_here::<python::Audit>(python::PySys_Audit)(
            c"socket.sendto".as_ptr(),
            c"OO".as_ptr(),
            sock.as_ptr(),
            address.as_ptr(),
        )
    });
    match outcome {
        0 => Ok(()),
        _ => Err(PyErr::fetch(sock.py())),
    }
}

/// The exception `value` as a `raise` statement at this place would raise it: with the exception that is being handled as
/// its context.
pub fn raised(value: &Bound<'_, PyAny>) -> PyErr {
    // SAFETY: a live object with its own class; Python refuses what is no exception by raising another one.
    unsafe {
        ffi::PyErr_SetObject(ffi::Py_TYPE(value.as_ptr()).cast(), value.as_ptr());
    }
    PyErr::fetch(value.py())
}
