//! Making `bytes`, and reading or filling the buffers that Python objects lend.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyByteArray, PyByteArrayMethods, PyBytes};

use super::Visit;
use super::state::GilCell;

unsafe extern "C" {
    /// `CPython`'s documented way to shorten `bytes` that nobody else has seen.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, length: ffi::Py_ssize_t) -> c_int;
}

/// A copy of `data` as `bytes`.
#[inline]
pub fn copy<'py>(py: Python<'py>, data: &[u8]) -> Bound<'py, PyAny> {
    PyBytes::new(py, data).into_any()
}

/// `bytes` of at most `capacity`, filled in place: as long as what `fill` returns, the filled front of its argument.
///
/// # Errors
/// `MemoryError`; within, what `fill` reports.
///
/// # Panics
/// Where `fill` returns another memory than its argument's front.
pub fn filled<E>(
    py: Python<'_>,
    capacity: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<&mut [u8], E>,
) -> PyResult<Result<Bound<'_, PyAny>, E>> {
    // SAFETY: a fresh object that nobody else sees, with `capacity` bytes of room; its length is cut to the part that
    // has been initialised before anybody can. `_PyBytes_Resize` takes the reference and gives one back, or null.
    unsafe {
        let mut object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), capacity.cast_signed());
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        let start = ffi::PyBytes_AS_STRING(object)
            .cast::<MaybeUninit<u8>>()
            .cast_mut();
        let part = match fill(std::slice::from_raw_parts_mut(start, capacity)) {
            Ok(part) => part,
            Err(error) => {
                ffi::Py_DECREF(object);
                return Ok(Err(error));
            }
        };
        assert!(part.as_ptr() == start.cast() && part.len() <= capacity);
        let length = part.len();
        if length < capacity && _PyBytes_Resize(&raw mut object, length.cast_signed()) != 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(Ok(Bound::from_owned_ptr(py, object)))
    }
}

/// Memory for `bytes` that somebody else fills, kept from one to the next.
///
/// Who asks for much and gets little is handed a copy, and who gets nothing costs nothing; who gets much is handed the
/// memory itself, cut to its length.
#[derive(Debug)]
pub struct Spare(GilCell<Memory>);

/// A `bytes` object of the length `capacity` that nobody else has seen, or null and 0.
#[derive(Debug)]
struct Memory {
    object: *mut ffi::PyObject,
    capacity: usize,
}

// SAFETY: only touched with the GIL held.
unsafe impl Send for Memory {}

impl Spare {
    /// Larger memory is not kept.
    const MOST_KEPT: usize = 256 * 1024;

    /// No memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(GilCell::new(Memory {
            object: std::ptr::null_mut(),
            capacity: 0,
        }))
    }

    /// `bytes` of at most `capacity`: what `fill` returns, the filled front of its argument. It runs no Python code.
    ///
    /// # Errors
    /// `MemoryError`; within, what `fill` reports.
    ///
    /// # Panics
    /// Where `fill` returns another memory than its argument's front.
    pub fn filled<'py, E>(
        &self,
        py: Python<'py>,
        capacity: usize,
        fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<&mut [u8], E>,
    ) -> PyResult<Result<Bound<'py, PyAny>, E>> {
        if capacity > Self::MOST_KEPT {
            return filled(py, capacity, fill);
        }
        self.0.with(py, |memory| {
            // SAFETY: as in `filled`. Outside of this closure, which runs no Python code, `memory` owns its object or is
            // empty; bytes are plain memory, and freeing or shortening them runs none either.
            unsafe {
                if memory.capacity < capacity {
                    let object =
                        ffi::PyBytes_FromStringAndSize(std::ptr::null(), capacity.cast_signed());
                    if object.is_null() {
                        return Err(PyErr::fetch(py));
                    }
                    ffi::Py_XDECREF(memory.object);
                    *memory = Memory { object, capacity };
                }
                let start = ffi::PyBytes_AS_STRING(memory.object)
                    .cast::<MaybeUninit<u8>>()
                    .cast_mut();
                let part = match fill(std::slice::from_raw_parts_mut(start, capacity)) {
                    Ok(part) => part,
                    Err(error) => return Ok(Err(error)),
                };
                assert!(part.as_ptr() == start.cast() && part.len() <= capacity);
                let length = part.len();
                if length < memory.capacity / 2 {
                    return Ok(Ok(copy(py, part)));
                }
                let mut object = std::mem::replace(&mut memory.object, std::ptr::null_mut());
                let kept = std::mem::replace(&mut memory.capacity, 0);
                if length < kept && _PyBytes_Resize(&raw mut object, length.cast_signed()) != 0 {
                    return Err(PyErr::fetch(py));
                }
                Ok(Ok(Bound::from_owned_ptr(py, object)))
            }
        })
    }
}

impl Default for Spare {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether `object` is `bytes` itself, whose contents never change.
#[inline]
pub fn is_bytes(object: &Bound<'_, PyAny>) -> bool {
    super::object::is_exactly(object, &raw mut ffi::PyBytes_Type)
}

/// Whether `object` is a `bytes`, `bytearray` or `memoryview`.
#[inline]
pub fn is_writable_type(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: three type checks of a live object.
    unsafe {
        ffi::PyBytes_Check(object.as_ptr()) != 0
            || ffi::PyByteArray_Check(object.as_ptr()) != 0
            || ffi::PyMemoryView_Check(object.as_ptr()) != 0
    }
}

/// Shows the first `count` bytes of `array`, or all where there are fewer, to `look`, which runs no Python code.
pub fn look_at<R>(
    array: &Bound<'_, PyByteArray>,
    count: usize,
    look: impl FnOnce(&[u8]) -> R,
) -> R {
    // SAFETY: nobody changes the array meanwhile: the GIL is held and no Python code runs.
    let bytes = unsafe { array.as_bytes() };
    look(&bytes[..count.min(bytes.len())])
}

/// A contiguous view of an object's memory (the buffer protocol), given back when dropped.
///
/// The view keeps its object from moving or freeing the memory; other code may still change its contents, so the slice
/// is used at once, with the GIL held, and never kept.
pub struct View {
    buffer: Box<ffi::Py_buffer>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "View({} bytes)", self.buffer.len)
    }
}

impl View {
    fn acquire(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Self> {
        let mut buffer = Box::new(ffi::Py_buffer::new());
        // SAFETY: a live object and a fresh structure at an address that stays the same, as CPython requires.
        match unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *buffer, flags) } {
            0 => Ok(Self { buffer }),
            _ => Err(PyErr::fetch(object.py())),
        }
    }

    /// A view for reading.
    ///
    /// # Errors
    /// `TypeError` where the object lends no memory, `BufferError` where it is not contiguous.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::acquire(object, ffi::PyBUF_SIMPLE)
    }

    /// A view for writing.
    ///
    /// # Errors
    /// As [`Self::of`], and `BufferError` or `TypeError` where the memory is read-only.
    pub fn writable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::acquire(object, ffi::PyBUF_WRITABLE)
    }

    /// Reports the object to the garbage collector.
    pub fn traverse(&self, visit: Visit) -> c_int {
        visit.pointer(self.buffer.obj)
    }

    /// The memory.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        if self.buffer.len == 0 {
            return &[];
        }
        // SAFETY: `buf` points to `len` contiguous bytes as long as the view is held.
        unsafe {
            std::slice::from_raw_parts(self.buffer.buf.cast(), self.buffer.len.cast_unsigned())
        }
    }

    /// The memory, to be filled.
    pub fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        if self.buffer.len == 0 {
            return &mut [];
        }
        // SAFETY: as in `as_slice`; the view was acquired as writable by every caller, and initialised bytes are valid
        // as maybe uninitialised ones as long as nothing uninitialised is written, which a receive does not do.
        unsafe {
            std::slice::from_raw_parts_mut(self.buffer.buf.cast(), self.buffer.len.cast_unsigned())
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: acquired in `acquire`, released once, with the GIL held like every drop in this crate.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.buffer) }
    }
}

/// The contents of `bytes`, which live as long as the object; nothing where it is none.
#[inline]
pub fn contents<'a>(object: &'a Bound<'_, PyAny>) -> &'a [u8] {
    object
        .cast::<PyBytes>()
        .map_or(&[], |bytes| bytes.as_bytes())
}
