//! Where the objects that a pipe's transport is given keep their descriptor.

use std::os::fd::RawFd;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::Slot;
use super::socket::SocketMemory;

/// The head of `CPython`'s `_io.FileIO` objects.
#[repr(C)]
struct FileObject {
    head: ffi::PyObject,
    /// -1 once the file is closed.
    descriptor: std::ffi::c_int,
}

/// Where an open file or socket has its descriptor.
#[derive(Clone, Copy, Debug)]
pub enum FileMemory {
    /// Where `FileObject` says: proven for an `io.FileIO`.
    File,
    /// A socket, or an unknown object.
    Socket(SocketMemory),
}

impl FileMemory {
    /// Finds the object that keeps the descriptor of `file`: the `io.FileIO` below buffers and text, or `file` itself.
    ///
    /// # Errors
    /// What `fileno()` raises.
    pub fn find<'py>(file: &Bound<'py, PyAny>) -> PyResult<(Self, Bound<'py, PyAny>)> {
        let py = file.py();
        let io = py.import(intern!(py, "_io"))?;
        let is_a = |object: &Bound<'py, PyAny>, name: &str| -> PyResult<bool> {
            object.get_type().is_subclass(&io.getattr(name)?)
        };
        let descriptor: RawFd = file.call_method0(intern!(py, "fileno"))?.extract()?;
        // By their types: mocks say of themselves that they are files.
        let mut keeper = file.clone();
        if is_a(&keeper, "TextIOWrapper")? {
            keeper = keeper.getattr(intern!(py, "buffer"))?;
        }
        if is_a(&keeper, "_BufferedIOBase")?
            && let Some(raw) = keeper.getattr_opt(intern!(py, "raw"))?
        {
            keeper = raw;
        }
        if is_a(&keeper, "FileIO")? {
            // SAFETY: an instance of `_io.FileIO`, which is larger than the structure.
            let kept = unsafe { (*keeper.as_ptr().cast::<FileObject>()).descriptor };
            if kept == descriptor {
                return Ok((Self::File, keeper));
            }
        }
        Ok((Self::Socket(SocketMemory::of(file)?), file.clone()))
    }

    /// The descriptor of the object in `slot`, -1 where it is closed or the slot is empty; `number` is what it was when
    /// the object was looked at first.
    #[inline]
    pub fn descriptor(self, slot: &Slot, number: RawFd) -> RawFd {
        let file = slot.as_ptr();
        if file.is_null() {
            return -1;
        }
        match self {
            // SAFETY: the slot holds the object that this proof was made for; both are set and cleared together.
            Self::File => unsafe { (*file.cast::<FileObject>()).descriptor },
            Self::Socket(memory) => memory.descriptor(slot, number),
        }
    }
}
