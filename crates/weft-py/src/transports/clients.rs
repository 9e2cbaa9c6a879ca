//! The transports that a server has accepted and not lost.
//!
//! asyncio's `Server` has a `WeakSet` of them from Python 3.13 on, and a number before. A transport takes itself out
//! whichever way it ends, so this set needs no callbacks. What `asyncio.Server` does when a connection comes and goes is
//! done here for it; a server of another class is asked itself.

use std::cell::RefCell;
use std::collections::HashMap;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyModule, PySet, PyWeakrefMethods, PyWeakrefReference};

use crate::ffi::call::{call1, method0};
use crate::ffi::class::Description;
use crate::ffi::lifecycle::class_slots;
use crate::ffi::method::Returned;
use crate::ffi::object::is_exactly;
use crate::ffi::{Class, Native, Reference};
use crate::imports::imports;
use crate::method;

/// A set of transports that does not keep them alive.
#[derive(Debug, Default)]
struct Clients {
    /// Weak references, by where the transports are in memory.
    references: RefCell<HashMap<usize, Reference>>,
}

static CLIENTS: Class<Clients> = Class::new();

impl Native for Clients {
    fn class() -> &'static Class<Self> {
        &CLIENTS
    }
}

impl Clients {
    fn add(&self, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let reference = PyWeakrefReference::new(transport)?.into_any();
        let place = transport.as_ptr() as usize;
        let old = self.references.borrow_mut().insert(place, reference.into());
        drop(old);
        Ok(())
    }

    fn discard(&self, transport: &Bound<'_, PyAny>) {
        let place = transport.as_ptr() as usize;
        let old = self.references.borrow_mut().remove(&place);
        drop(old);
    }
}

fn add<'py>(clients: &Bound<'py, PyAny>, transport: &Bound<'py, PyAny>) -> Returned<'py> {
    CLIENTS.of(clients).add(transport)?;
    Ok(clients.py().None().into_bound(clients.py()))
}

#[expect(clippy::unnecessary_wraps, reason = "a method's signature")]
fn discard<'py>(clients: &Bound<'py, PyAny>, transport: &Bound<'py, PyAny>) -> Returned<'py> {
    CLIENTS.of(clients).discard(transport);
    Ok(clients.py().None().into_bound(clients.py()))
}

/// `copy()`: those that are alive.
fn copy<'py>(clients: &Bound<'py, PyAny>) -> Returned<'py> {
    let py = clients.py();
    let alive: Vec<Bound<'py, PyAny>> = CLIENTS
        .of(clients)
        .references
        .borrow()
        .values()
        .filter_map(|reference| {
            reference
                .bind(py)
                .cast::<PyWeakrefReference>()
                .ok()?
                .upgrade()
        })
        .collect();
    Ok(PySet::new(py, alive)?.into_any())
}

/// `_count()`: how many have been added and not discarded.
fn count<'py>(clients: &Bound<'py, PyAny>) -> Returned<'py> {
    let count = CLIENTS.of(clients).references.borrow().len();
    Ok(count.into_pyobject(clients.py())?.into_any())
}

/// Whether a server's own methods are asyncio's, and nobody's replacement.
fn is_stock(server: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = server.py();
    let stock = &imports(py).server;
    if !is_exactly(server, stock.class.as_ptr().cast()) {
        return Ok(false);
    }
    let class = stock.class.bind(py);
    Ok(class.getattr(intern!(py, "_attach"))?.is(&stock.attach)
        && class.getattr(intern!(py, "_detach"))?.is(&stock.detach))
}

/// `server._attach(transport)`: refused by a server that has been closed meanwhile.
///
/// # Errors
/// What the server raises.
pub fn attach(server: &Bound<'_, PyAny>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = server.py();
    if is_stock(server)? && !server.getattr(intern!(py, "_sockets"))?.is_none() {
        if !cfg!(Py_3_13) {
            return change_count(server, 1).map(drop);
        }
        if let Some(clients) = CLIENTS.get(&server.getattr(intern!(py, "_clients"))?) {
            return clients.add(transport);
        }
    }
    let attach = server.getattr(intern!(py, "_attach"))?;
    if cfg!(Py_3_13) {
        call1(&attach, transport).map(drop)
    } else {
        attach.call0().map(drop)
    }
}

/// `server._detach(transport)`: the last one to go wakes those who wait for a closed server.
///
/// # Errors
/// What the server raises.
pub fn detach(server: &Bound<'_, PyAny>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = server.py();
    if is_stock(server)? {
        let left = if cfg!(Py_3_13) {
            CLIENTS
                .get(&server.getattr(intern!(py, "_clients"))?)
                .map(|clients| {
                    clients.discard(transport);
                    clients.references.borrow().len()
                })
        } else {
            Some(change_count(server, -1)?)
        };
        match left {
            Some(0) if server.getattr(intern!(py, "_sockets"))?.is_none() => {
                return method0(server, intern!(py, "_wakeup")).map(drop);
            }
            Some(_) => return Ok(()),
            None => {}
        }
    }
    if cfg!(Py_3_13) {
        server.call_method1("_detach", (transport,)).map(drop)
    } else {
        server.call_method0("_detach").map(drop)
    }
}

/// Before Python 3.13 a server counts its connections. Returns how many there are now.
fn change_count(server: &Bound<'_, PyAny>, change: isize) -> PyResult<usize> {
    let name = intern!(server.py(), "_active_count");
    let count: usize = server.getattr(name)?.extract()?;
    let count = count.saturating_add_signed(change);
    server.setattr(name, count)?;
    Ok(count)
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let methods: Vec<ffi::PyMethodDef> = vec![
        method!(one "add" => add, "Add a transport."),
        method!(one "discard" => discard, "Take a transport out, if it is there."),
        method!(none "copy" => copy, "Return the transports that are alive, as a set."),
        method!(none "_count" => count, "Return how many have been added and not taken out."),
    ];
    let class = CLIENTS.make(
        module.py(),
        c"weft._weft.Clients",
        None,
        Description {
            methods,
            slots: class_slots::<Clients>(),
            doc: Some(c"The native part of a server's set of transports."),
            instantiable: true,
            subclassable: true,
            immutable: true,
            ..Description::default()
        },
    )?;
    module.add("Clients", class)
}
