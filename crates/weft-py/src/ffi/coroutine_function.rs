//! Native functions and methods that are coroutine functions to Python.
//!
//! Programs look before they call: `inspect.iscoroutinefunction(asyncio.sleep)` is asked by mocks, by wrappers and by
//! whoever takes plain functions and asynchronous ones alike. It answers for everything that has what a function written
//! in Python has, its code object first of all. So a [`CoroutineFunction`] stands for such a function: it shows its
//! signature, code and whatever else is asked of it, says that it is a function (`__class__`), and calls native code
//! instead.
//!
//! There are two ways to make one: [`standing_for`] calls Rust; [`add_functions_of_asyncio`] and `coroutine_function()`
//! call what is behind an ordinary builtin function or method.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyFunction, PyModule, PyString};

use super::class::Description;
use super::lifecycle::class_slots;
use super::method::{Args, Returned, add_functions, fastcall, guard, receiver};
use super::object::is_exactly;
use super::{Class, Native, Slot, Visit};
use crate::{method, property, slot};

unsafe extern "C" {
    /// The type of a function bound to an object: of what `object.method` is.
    static mut PyMethod_Type: ffi::PyTypeObject;
    /// Makes one.
    fn PyMethod_New(function: *mut ffi::PyObject, object: *mut ffi::PyObject)
    -> *mut ffi::PyObject;
    /// Its function, borrowed.
    fn PyMethod_Function(method: *mut ffi::PyObject) -> *mut ffi::PyObject;
    /// Its object, borrowed.
    fn PyMethod_Self(method: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// A function that stands for one written in Python.
///
/// Invariant: where `definition` is not null, `native` is the builtin function or the method descriptor that it belongs
/// to and that keeps it alive, and `receiver` what `native` holds: a function's module, a method's class.
pub struct CoroutineFunction {
    vectorcall: Cell<Option<ffi::vectorcallfunc>>,
    definition: Cell<*const ffi::PyMethodDef>,
    receiver: Cell<*mut ffi::PyObject>,
    native: Slot,
    original: Slot,
    /// The class that a method was put into.
    class: Slot,
    weak_references: Slot,
}

impl Default for CoroutineFunction {
    fn default() -> Self {
        Self {
            vectorcall: Cell::new(None),
            definition: Cell::new(ptr::null()),
            receiver: Cell::new(ptr::null_mut()),
            native: Slot::empty(),
            original: Slot::empty(),
            class: Slot::empty(),
            weak_references: Slot::empty(),
        }
    }
}

impl std::fmt::Debug for CoroutineFunction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CoroutineFunction")
    }
}

impl Native for CoroutineFunction {
    fn class() -> &'static Class<Self> {
        &FUNCTION
    }

    fn traverse(&self, visit: Visit) -> c_int {
        visit.slots([&self.native, &self.original, &self.class])
    }

    // Not `native`: it may still be called.
    fn clear(&self, _: Python<'_>) {
        self.original.clear();
        self.class.clear();
    }
}

static FUNCTION: Class<CoroutineFunction> = Class::new();

fn says_function<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    Ok(object.py().get_type::<PyFunction>().into_any())
}

/// What `name` is of the native function, if there is one, or of the one in Python.
fn shown<'py>(object: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> Returned<'py> {
    let py = object.py();
    let function = FUNCTION.of(object);
    if let Some(native) = function.native.get(py) {
        return native.getattr(name);
    }
    function.original.get_or_none(py).getattr(name)
}

fn documentation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    shown(object, intern!(object.py(), "__doc__"))
}

fn module<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let function = FUNCTION.of(object);
    if function.native.is_set() {
        // Where users import it from, or its class.
        return Ok(intern!(py, "weft").clone().into_any());
    }
    let original = function.original.get_or_none(py);
    original.getattr(intern!(py, "__module__"))
}

fn qualified_name<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = object.py();
    let name = intern!(py, "__qualname__");
    let Some(class) = FUNCTION.of(object).class.get(py) else {
        return shown(object, name);
    };
    let own = shown(object, intern!(py, "__name__"))?;
    let text = format!("{}.{own}", class.getattr(name)?);
    Ok(PyString::new(py, &text).into_any())
}

/// `__set_name__(class, name)`, which Python calls.
fn set_name<'py>(object: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    args.no_keywords("__set_name__")?;
    let class = args.required("__set_name__", 0, "owner")?;
    FUNCTION.of(object).class.set(class.to_owned());
    Ok(object.py().None().into_bound(object.py()))
}

/// Pickled and copied as functions are: by name.
fn reduce<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    qualified_name(object)
}

fn representation<'py>(object: &Bound<'py, PyAny>) -> Returned<'py> {
    let name = qualified_name(object)?;
    let text = format!("<coroutine function {name} at {:p}>", object.as_ptr());
    Ok(PyString::new(object.py(), &text).into_any())
}

/// `tp_getattro`: what it has not itself is that of the function in Python.
unsafe extern "C" fn attribute(
    slf: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python with a live function and a name.
    unsafe {
        guard(ptr::null_mut(), |py| {
            let own = ffi::PyObject_GenericGetAttr(slf, name);
            let error = match Bound::from_owned_ptr_or_err(py, own) {
                Ok(value) => return Ok(value.into_ptr()),
                Err(error) => error,
            };
            let original = FUNCTION.value(slf).original.get(py);
            match original {
                Some(original) if error.is_instance_of::<PyAttributeError>(py) => {
                    let value = ffi::PyObject_GetAttr(original.as_ptr(), name);
                    Bound::from_owned_ptr_or_err(py, value).map(Bound::into_ptr)
                }
                _ => Err(error),
            }
        })
    }
}

/// `tp_descr_get`: bound where it is looked up on an instance.
unsafe extern "C" fn bind(
    function: *mut ffi::PyObject,
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python with live objects, the instance null where there is none.
    unsafe {
        if object.is_null() || ptr::eq(object, ffi::Py_None()) {
            return ffi::Py_NewRef(function);
        }
        PyMethod_New(function, object)
    }
}

/// Makes the class and adds `coroutine_function` to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let mut slots = class_slots::<CoroutineFunction>();
    slots.retain(|slot| slot.slot != ffi::Py_tp_new);
    slots.extend([
        ffi::PyType_Slot {
            slot: ffi::Py_tp_descr_get,
            pfunc: bind as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: ffi::Py_tp_getattro,
            pfunc: attribute as *mut c_void,
        },
        slot!(repr representation),
    ]);
    let description = Description {
        methods: vec![
            method!(fast "__set_name__" => set_name, "Tell the class that it is a method of."),
            method!(none "__reduce__" => reduce, "Return the qualified name."),
        ],
        properties: vec![
            property!("__class__" => says_function),
            property!("__doc__" => documentation),
            property!("__module__" => self::module),
            property!("__qualname__" => qualified_name),
        ],
        slots,
        immutable: true,
        weak_references: Some(offset_of!(CoroutineFunction, weak_references)),
        vectorcall: Some(offset_of!(CoroutineFunction, vectorcall)),
        method_descriptor: true,
        ..Description::default()
    };
    FUNCTION.make(
        module.py(),
        c"weft._weft.CoroutineFunction",
        None,
        description,
    )?;
    add_functions(
        module,
        vec![method!(fast "coroutine_function" => coroutine_function,
            "coroutine_function($module, native, original, /)\n--\n\nReturn a coroutine function that calls native and looks like original, or native itself where original is no coroutine function.")],
    )
}

/// A method that stands for the Python function `original`; `call` comes from
/// [`coroutine_method!`](crate::coroutine_method).
///
/// # Errors
/// `MemoryError`.
pub fn standing_for<'py>(original: &Bound<'py, PyAny>, call: ffi::vectorcallfunc) -> Returned<'py> {
    let object = FUNCTION.instance(original.py())?;
    let function = FUNCTION.of(&object);
    function.vectorcall.set(Some(call));
    function.original.set(original.clone());
    Ok(object)
}

/// Whether `object` is a function that was written with `async def`.
fn is_coroutine_function(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    if !object.is_exact_instance_of::<PyFunction>() {
        return Ok(false);
    }
    let code = object.getattr(intern!(py, "__code__"))?;
    let flags: c_int = code.getattr(intern!(py, "co_flags"))?.extract()?;
    Ok(flags & ffi::CO_COROUTINE != 0)
}

/// A function or method that calls `native`, and shows the coroutine function `original`.
///
/// It is `native` itself, where that is no builtin of a kind known here, or `original` no coroutine function.
fn calling<'py>(native: &Bound<'py, PyAny>, original: &Bound<'py, PyAny>) -> Returned<'py> {
    if !is_coroutine_function(original)? {
        return Ok(native.clone());
    }
    // SAFETY: the members are those of the type that was just checked.
    let (definition, receiver) = unsafe {
        if is_exactly(native, &raw mut ffi::PyCFunction_Type) {
            let native = native.as_ptr().cast::<ffi::PyCFunctionObject>();
            ((*native).m_ml.cast_const(), (*native).m_self)
        } else if is_exactly(native, &raw mut ffi::PyMethodDescr_Type) {
            let native = native.as_ptr().cast::<ffi::PyMethodDescrObject>();
            let class = (*native).d_common.d_type;
            ((*native).d_method.cast_const(), class.cast())
        } else {
            return Ok(native.clone());
        }
    };
    let is_method = is_exactly(native, &raw mut ffi::PyMethodDescr_Type);
    // SAFETY: the definition lives as long as what it belongs to.
    let flags = unsafe { (*definition).ml_flags };
    let call: ffi::vectorcallfunc = match (is_method, flags) {
        (true, ffi::METH_NOARGS) => call_noargs_method,
        (true, FAST) => call_fast_method,
        (false, FAST) => call_fast_function,
        _ => return Ok(native.clone()),
    };
    let object = FUNCTION.instance(native.py())?;
    let function = FUNCTION.of(&object);
    function.vectorcall.set(Some(call));
    function.definition.set(definition);
    function.receiver.set(receiver);
    function.native.set(native.clone());
    function.original.set(original.clone());
    Ok(object)
}

const FAST: c_int = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;

/// Vectorcall of a builtin function with `METH_FASTCALL | METH_KEYWORDS`.
unsafe extern "C" fn call_fast_function(
    slf: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python with a live function; `calling` chose this for such a definition, with its receiver.
    unsafe {
        let function = FUNCTION.value(slf);
        let call = (*function.definition.get())
            .ml_meth
            .PyCFunctionFastWithKeywords;
        let count = ffi::PyVectorcall_NARGS(count);
        call(function.receiver.get(), values, count, names)
    }
}

impl CoroutineFunction {
    /// Whether the first of the arguments is there, and an instance of the method's class.
    ///
    /// # Safety
    /// The arguments of a vectorcall of a function that `calling` has made of a method.
    #[inline]
    unsafe fn fits(&self, values: *const *mut ffi::PyObject, count: usize) -> bool {
        // SAFETY: promised by the caller; where there is a positional argument, it is the first.
        unsafe {
            if ffi::PyVectorcall_NARGS(count) == 0 {
                return false;
            }
            let ty = ffi::Py_TYPE(*values);
            ptr::eq(ty.cast(), self.class.as_ptr())
                || ffi::PyType_IsSubtype(ty, self.receiver.get().cast()) != 0
        }
    }
}

/// Vectorcall of a builtin method with `METH_FASTCALL | METH_KEYWORDS`.
unsafe extern "C" fn call_fast_method(
    slf: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python with a live function; `calling` chose this for such a definition, and the receiver is
    // what its method takes. Whatever else there is, Python has the words for it.
    unsafe {
        let function = FUNCTION.value(slf);
        if !function.fits(values, count) {
            return ffi::PyObject_Vectorcall(function.native.as_ptr(), values, count, names);
        }
        let call = (*function.definition.get())
            .ml_meth
            .PyCFunctionFastWithKeywords;
        let rest = ffi::PyVectorcall_NARGS(count) - 1;
        call(*values, values.add(1), rest, names)
    }
}

/// Vectorcall of a builtin method with `METH_NOARGS`.
unsafe extern "C" fn call_noargs_method(
    slf: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as above.
    unsafe {
        let function = FUNCTION.value(slf);
        if !function.fits(values, count) || ffi::PyVectorcall_NARGS(count) != 1 || !names.is_null()
        {
            return ffi::PyObject_Vectorcall(function.native.as_ptr(), values, count, names);
        }
        let call = (*function.definition.get()).ml_meth.PyCFunction;
        call(*values, ptr::null_mut())
    }
}

/// `coroutine_function(native, original)`.
fn coroutine_function<'py>(_: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    args.no_keywords("coroutine_function")?;
    let native = args.required("coroutine_function", 0, "native")?;
    let original = args.required("coroutine_function", 1, "original")?;
    calling(&native, &original)
}

/// Adds functions to a module, those that are coroutine functions in asyncio as such.
///
/// # Errors
/// What Python raises while it makes functions.
pub fn add_functions_of_asyncio(
    module: &Bound<'_, PyModule>,
    functions: Vec<ffi::PyMethodDef>,
) -> PyResult<()> {
    let asyncio = module.py().import("asyncio")?;
    let before = module.index()?.len();
    add_functions(module, functions)?;
    for name in module.index()?.iter().skip(before) {
        let name = name.cast_into::<PyString>()?;
        if let Some(original) = asyncio.getattr_opt(&name)? {
            let function = calling(&module.getattr(&name)?, &original)?;
            module.setattr(&name, function)?;
        }
    }
    Ok(())
}

/// The native function or method that `function` calls, where it is a [`CoroutineFunction`]; else itself.
pub fn behind(function: Bound<'_, PyAny>) -> Bound<'_, PyAny> {
    let native = FUNCTION
        .get_exact(&function)
        .and_then(|state| state.native.get(function.py()));
    native.unwrap_or(function)
}

/// What a bound method is bound to, where it is that of a [`CoroutineFunction`] with the C function at `address`.
#[inline]
pub fn receiver_of_method<'py>(
    method: &Bound<'py, PyAny>,
    address: usize,
) -> Option<Bound<'py, PyAny>> {
    if !is_exactly(method, &raw mut PyMethod_Type) {
        return None;
    }
    // SAFETY: a bound method, as was just checked, which keeps alive what is borrowed from it; a definition is null or
    // alive, and all members of the union are pointers to functions.
    unsafe {
        let function = PyMethod_Function(method.as_ptr());
        let function = receiver(method.py(), &function);
        let definition = FUNCTION.get_exact(function)?.definition.get();
        if definition.is_null() || (*definition).ml_meth.PyCFunction as usize != address {
            return None;
        }
        Some(receiver(method.py(), &PyMethod_Self(method.as_ptr())).clone())
    }
}

/// Trampoline of a vectorcall: the first argument is the receiver, which must be an instance of `class` or a subclass.
///
/// # Safety
/// Called by Python with arguments of that convention.
#[inline]
pub unsafe fn call_method<'a, 'py: 'a, T>(
    values: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
    class: &'static Class<T>,
    body: impl FnOnce(&'a Bound<'py, PyAny>, Args<'a, 'py>) -> Returned<'py>,
) -> *mut ffi::PyObject {
    // SAFETY: promised by the caller; where there is a positional argument, it is the first.
    unsafe {
        let count = ffi::PyVectorcall_NARGS(count).cast_unsigned();
        let slf = if count == 0 { ptr::null_mut() } else { *values };
        if slf.is_null() || !class.is_instance(receiver(Python::assume_attached(), &slf)) {
            return fastcall(ffi::Py_None(), ptr::null(), 0, ptr::null_mut(), |_, _| {
                Err(PyTypeError::new_err(
                    "this method needs an argument 'self' of its class",
                ))
            });
        }
        let rest = (count - 1).cast_signed();
        fastcall(slf, values.add(1), rest, names, body)
    }
}

/// The `vectorcallfunc` of a native method of `class`: `coroutine_method!(EVENT_LOOP, sock_recv)`.
#[macro_export]
macro_rules! coroutine_method {
    ($class:path, $function:path) => {{
        unsafe extern "C" fn raw(
            _: *mut pyo3::ffi::PyObject,
            values: *const *mut pyo3::ffi::PyObject,
            count: usize,
            names: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            let class = &$class;
            // SAFETY: only Python calls this, by way of the object that it is given to.
            unsafe {
                $crate::ffi::coroutine_function::call_method(values, count, names, class, $function)
            }
        }
        raw as pyo3::ffi::vectorcallfunc
    }};
}
