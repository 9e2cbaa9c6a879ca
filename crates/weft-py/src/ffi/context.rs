//! Entering and leaving `contextvars.Context` objects.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::{Slot, Visit};

/// A copy of the current context, as `contextvars.copy_context()`.
///
/// # Errors
/// `MemoryError`.
#[inline]
pub fn copy_current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: returns a new reference or null with an error set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}

/// Makes `context` the current one.
///
/// # Errors
/// `RuntimeError` where it is entered already, `TypeError` where it is no context.
#[inline]
pub fn enter(context: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: a live object; Python checks its type.
    match unsafe { ffi::PyContext_Enter(context.as_ptr()) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(context.py())),
    }
}

/// Leaves `context`, which must be the current one.
///
/// The caller holds its own reference: Python looks at the context after it has dropped the thread state's.
///
/// # Errors
/// `RuntimeError` where it is not the current one.
#[inline]
pub fn exit(context: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: as in `enter`.
    match unsafe { ffi::PyContext_Exit(context.as_ptr()) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(context.py())),
    }
}

/// Whether `object` is a `contextvars.Context`.
pub fn is_context(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: reads the type of a live object.
    unsafe { ffi::PyContext_CheckExact(object.as_ptr()) != 0 }
}

/// The part of `Context` objects that tells whether two hold the same variables: an immutable map, compared by identity.
#[repr(C)]
struct ContextObject {
    head: ffi::PyObject,
    previous: *mut ffi::PyObject,
    variables: *const c_void,
}

/// Where a thread state points to its current context, in bytes from its start.
const CURRENT_CONTEXT: usize = if cfg!(Py_3_15) {
    232
} else if cfg!(Py_3_12) {
    208
} else {
    224
};

/// Whether this interpreter's contexts and thread states are as described above.
static KNOWN: AtomicBool = AtomicBool::new(false);

/// Looks whether the structures above describe this interpreter. Where they do not, contexts are copied each time.
///
/// # Errors
/// What making a context variable raises.
pub fn verify(py: Python<'_>) -> PyResult<()> {
    let module = py.import("contextvars")?;
    let variable = module.getattr("ContextVar")?.call1(("probe",))?;
    let context = copy_current(py)?;
    let twin = context.call_method0("copy")?;
    let before = variables(&context);
    let same = before == variables(&twin);
    enter(&context)?;
    // SAFETY: a thread state is larger than the offset on every supported version.
    let current = unsafe {
        *ffi::PyThreadState_Get()
            .byte_add(CURRENT_CONTEXT)
            .cast::<*mut ffi::PyObject>()
    };
    let points = std::ptr::eq(current, context.as_ptr());
    let set = variable.call_method1("set", (1,));
    let changed = variables(&context) != before;
    exit(&context)?;
    set?;
    KNOWN.store(same && points && changed, Ordering::Relaxed);
    Ok(())
}

fn variables(context: &Bound<'_, PyAny>) -> *const c_void {
    // SAFETY: callers pass contexts, which are larger than the structure.
    unsafe { (*context.as_ptr().cast::<ContextObject>()).variables }
}

/// The variables of the thread's current context; null where it has none yet.
#[inline]
fn current_variables() -> *const c_void {
    // SAFETY: the thread has a state while it holds the GIL, and `verify` has found its context where it is read.
    unsafe {
        let state = ffi::PyThreadState_Get();
        let current = *state.byte_add(CURRENT_CONTEXT).cast::<*mut ContextObject>();
        if current.is_null() {
            std::ptr::null()
        } else {
            (*current).variables
        }
    }
}

/// Contexts shared by what is scheduled while the variables stay the same.
///
/// asyncio copies the current context for each handle and each task. Most copies are never changed, so one serves many:
/// a *snapshot*, which nobody may run in. What was scheduled with it runs in a *working* copy, which goes back for the
/// next one unless the run has changed its variables or kept hold of it. In these cases it belongs to whoever ran in it.
#[derive(Debug, Default)]
pub struct SharedContexts {
    snapshot: Slot,
    working: Slot,
    /// The working copy that a task runs in now, so that the task can be told its own context meanwhile …
    entered: Slot,
    /// … and that task, by address.
    task: Cell<usize>,
}

impl SharedContexts {
    /// A context that equals the current one, and whether it is a snapshot.
    ///
    /// # Errors
    /// `MemoryError`.
    #[inline]
    pub fn copy_current<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, bool)> {
        if !KNOWN.load(Ordering::Relaxed) {
            return Ok((copy_current(py)?, false));
        }
        let current = current_variables();
        if let Some(snapshot) = self.snapshot.get(py)
            && std::ptr::eq(variables(&snapshot), current)
        {
            return Ok((snapshot, true));
        }
        let snapshot = copy_current(py)?;
        self.snapshot.set(snapshot.clone());
        Ok((snapshot, true))
    }

    /// Enters a working copy of `snapshot`.
    ///
    /// # Errors
    /// `MemoryError`.
    #[inline]
    pub fn enter<'py>(&self, snapshot: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = snapshot.py();
        let working = match self.working.take(py) {
            Some(working) if std::ptr::eq(variables(&working), variables(snapshot)) => working,
            _ => copy(snapshot)?,
        };
        enter(&working)?;
        Ok(working)
    }

    /// Leaves a working copy. It is returned where it belongs to whoever ran in it from now on.
    ///
    /// # Errors
    /// `RuntimeError` where the run has left or entered contexts out of order.
    #[inline]
    pub fn leave<'py>(
        &self,
        working: Bound<'py, PyAny>,
        snapshot: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        exit(&working)?;
        if std::ptr::eq(variables(&working), variables(snapshot))
            && super::object::reference_count(&working) == 1
        {
            self.working.set(working);
            return Ok(None);
        }
        Ok(Some(working))
    }

    /// As [`Self::enter`], on behalf of `task`.
    ///
    /// # Errors
    /// `MemoryError`.
    #[inline]
    pub fn enter_for<'py>(
        &self,
        task: &Bound<'py, PyAny>,
        snapshot: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let working = self.enter(snapshot)?;
        self.entered.set(working.clone());
        self.task.set(task.as_ptr().addr());
        Ok(working)
    }

    /// As [`Self::leave`], after [`Self::enter_for`].
    ///
    /// # Errors
    /// As [`Self::leave`].
    #[inline]
    pub fn leave_for<'py>(
        &self,
        working: Bound<'py, PyAny>,
        snapshot: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.task.set(0);
        self.entered.clear();
        self.leave(working, snapshot)
    }

    /// The working copy that `task` runs in at this moment.
    pub fn entered_for<'py>(&self, task: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        if self.task.get() == task.as_ptr().addr() {
            self.entered.get(task.py())
        } else {
            None
        }
    }

    /// Lets go of what would keep values of variables alive while nothing runs.
    #[inline]
    pub fn forget(&self) {
        self.snapshot.clear();
        self.working.clear();
    }

    /// Reports the references to the garbage collector.
    pub fn traverse(&self, visit: Visit) -> c_int {
        match visit.slot(&self.snapshot) {
            0 => visit.slot(&self.working),
            answer => answer,
        }
    }
}

/// A copy of `context` that shares its variables.
///
/// # Errors
/// `MemoryError`.
pub fn copy<'py>(context: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: Python checks the type.
    unsafe { Bound::from_owned_ptr_or_err(context.py(), ffi::PyContext_Copy(context.as_ptr())) }
}
