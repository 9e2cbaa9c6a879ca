//! Which parts of a queue its class leaves as they are.
//!
//! asyncio's queue calls its own methods: `put()` calls `full()` and `put_nowait()`, which calls `_put()`. Subclasses
//! override them. A [`Plan`] says what to do natively and what to call; it is made when a queue is used first, and again
//! when its class, or an attribute of the queue itself that matters, has changed.

use std::collections::VecDeque;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyString, PyType};

use super::QUEUE;
use super::line::Container;
use crate::ffi::object::class_version;
use crate::ffi::state::GilCell;

/// How an item is put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PutBy {
    /// At the end.
    #[default]
    Append,
    /// With `heapq.heappush`.
    Heap,
    /// By the class's `_put()`.
    Hook,
}

/// How an item is taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GetBy {
    /// The first one.
    #[default]
    First,
    /// The last one.
    Last,
    /// With `heapq.heappop`.
    Heap,
    /// By the class's `_get()`.
    Hook,
}

/// How the items are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptBy {
    /// By us; shown as this.
    Container(Container),
    /// As the class's `_init()` arranges it.
    Hook,
}

impl Default for KeptBy {
    fn default() -> Self {
        Self::Container(Container::Deque)
    }
}

/// Methods that are called on the queue because something overrides them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Called(u8);

impl Called {
    /// `full()`
    pub const FULL: u8 = 1;
    /// `empty()`
    pub const EMPTY: u8 = 2;
    /// `qsize()`
    pub const QSIZE: u8 = 4;
    /// `put_nowait()`
    pub const PUT_NOWAIT: u8 = 8;
    /// `get_nowait()`
    pub const GET_NOWAIT: u8 = 16;
    /// `_wakeup_next()`
    pub const WAKEUP_NEXT: u8 = 32;
    /// The attribute `_queue`
    pub const ITEMS: u8 = 64;

    /// Whether one of `methods` is.
    #[inline]
    pub fn any(self, methods: u8) -> bool {
        self.0 & methods != 0
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// How an item is put in.
    pub put: PutBy,
    /// How an item is taken out.
    pub get: GetBy,
    /// How items are kept.
    pub kept: KeptBy,
    /// What is called.
    pub called: Called,
}

impl Plan {
    /// Whether nothing is called and nothing is compared: items go in at the end and out at one of the ends.
    #[inline]
    pub fn is_plain(self) -> bool {
        self.called.0 == 0
            && self.put == PutBy::Append
            && matches!(self.get, GetBy::First | GetBy::Last)
            && matches!(self.kept, KeptBy::Container(_))
    }
}

/// The names that a [`Plan`] looks at.
const NAMES: [&str; 10] = [
    "_init",
    "_put",
    "_get",
    "full",
    "empty",
    "qsize",
    "put_nowait",
    "get_nowait",
    "_wakeup_next",
    "_queue",
];

const CALLED: [u8; 7] = [
    Called::FULL,
    Called::EMPTY,
    Called::QSIZE,
    Called::PUT_NOWAIT,
    Called::GET_NOWAIT,
    Called::WAKEUP_NEXT,
    Called::ITEMS,
];

/// What this module looks up once.
#[derive(Debug)]
pub struct Stock {
    /// `_init`, `_put` and `_get` of asyncio's `Queue`, `LifoQueue` and `PriorityQueue`.
    kinds: [[Py<PyAny>; 3]; 3],
    /// What our class has under the names from `full` on.
    own: [Py<PyAny>; 7],
    /// `collections.deque`.
    pub deque: Py<PyAny>,
    /// `heapq.heappush`.
    pub heappush: Py<PyAny>,
    /// `heapq.heappop`.
    pub heappop: Py<PyAny>,
    /// `types.GenericAlias`.
    pub generic_alias: Py<PyAny>,
    /// `asyncio.QueueFull`.
    pub full: Py<PyType>,
    /// `asyncio.QueueEmpty`.
    pub empty: Py<PyType>,
    /// `asyncio.QueueShutDown`, or ours where asyncio has none.
    pub shut_down: Py<PyType>,
}

static STOCK: PyOnceLock<Stock> = PyOnceLock::new();

/// The table. Filled when the class has been made.
///
/// # Errors
/// What importing raises.
#[inline]
pub fn stock(py: Python<'_>) -> PyResult<&'static Stock> {
    STOCK.get_or_try_init(py, || load(py))
}

fn load(py: Python<'_>) -> PyResult<Stock> {
    let queues = py.import("asyncio.queues")?;
    let kind = |name: &str| -> PyResult<[Py<PyAny>; 3]> {
        let class = queues.getattr(name)?;
        Ok([
            class.getattr(NAMES[0])?.unbind(),
            class.getattr(NAMES[1])?.unbind(),
            class.getattr(NAMES[2])?.unbind(),
        ])
    };
    let class = QUEUE.type_object(py);
    let stock = queues.getattr("Queue")?;
    let own = |index: usize| -> PyResult<Py<PyAny>> {
        let name = NAMES[3 + index];
        let here = class.getattr_opt(name)?;
        Ok(here.map_or_else(|| stock.getattr(name), Ok)?.unbind())
    };
    let heapq = py.import("heapq")?;
    let exception = |name: &str| -> PyResult<Py<PyType>> {
        Ok(queues.getattr(name)?.cast_into::<PyType>()?.unbind())
    };
    Ok(Stock {
        kinds: [kind("Queue")?, kind("LifoQueue")?, kind("PriorityQueue")?],
        own: [
            own(0)?,
            own(1)?,
            own(2)?,
            own(3)?,
            own(4)?,
            own(5)?,
            own(6)?,
        ],
        deque: py.import("collections")?.getattr("deque")?.unbind(),
        heappush: heapq.getattr("heappush")?.unbind(),
        heappop: heapq.getattr("heappop")?.unbind(),
        generic_alias: py.import("types")?.getattr("GenericAlias")?.unbind(),
        full: exception("QueueFull")?,
        empty: exception("QueueEmpty")?,
        #[cfg(Py_3_13)]
        shut_down: exception("QueueShutDown")?,
        #[cfg(not(Py_3_13))]
        shut_down: PyErr::new_type(
            py,
            c"weft.QueueShutDown",
            Some(c"The queue has been shut down: nothing can be put into it, or nothing is left to get."),
            None,
            None,
        )?,
    })
}

/// Whether an attribute of this name changes the plan.
pub fn matters(name: &Bound<'_, PyAny>) -> bool {
    name.cast::<PyString>()
        .is_ok_and(|name| NAMES.iter().any(|known| name == *known))
}

/// Plans by class and by the version of the class, the newest ones.
static PLANS: GilCell<VecDeque<(usize, u32, Plan)>> = GilCell::new(VecDeque::new());

/// So many are kept.
const PLANS_KEPT: usize = 8;

/// The plan for a queue none of whose own attributes matters.
///
/// # Errors
/// What looking attributes up raises.
pub fn plan_of_class(queue: &Bound<'_, PyAny>) -> PyResult<Plan> {
    let py = queue.py();
    let class = queue.get_type().as_ptr() as usize;
    let version = class_version(queue);
    let known = PLANS.with(py, |plans| {
        let mut known = plans.iter();
        known
            .find(|known| (known.0, known.1) == (class, version))
            .map(|known| known.2)
    });
    if let Some(plan) = known
        && version != 0
    {
        return Ok(plan);
    }
    let plan = plan(queue, false)?;
    // Looking attributes up gives a class without a version one.
    let version = class_version(queue);
    PLANS.with(py, |plans| {
        plans.push_front((class, version, plan));
        plans.truncate(PLANS_KEPT);
    });
    Ok(plan)
}

/// The plan for a queue. `patched` says that the queue itself may have attributes of these names.
///
/// # Errors
/// What looking attributes up raises.
pub fn plan(queue: &Bound<'_, PyAny>, patched: bool) -> PyResult<Plan> {
    let py = queue.py();
    let stock = stock(py)?;
    let class = queue.get_type();
    let dictionary = if patched {
        Some(queue.getattr("__dict__")?)
    } else {
        None
    };
    // What the class has under a name; nothing where the queue itself has something.
    let found = |name: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
        if let Some(dictionary) = &dictionary
            && dictionary.contains(name)?
        {
            return Ok(None);
        }
        class.getattr_opt(name)
    };
    let kind = |index: usize| -> PyResult<Option<usize>> {
        let found = found(NAMES[index])?;
        Ok(found.and_then(|found| {
            stock
                .kinds
                .iter()
                .position(|kind| kind[index].bind(py).is(&found))
        }))
    };
    let mut called = 0;
    for (index, bit) in CALLED.into_iter().enumerate() {
        if !found(NAMES[3 + index])?.is_some_and(|found| found.is(stock.own[index].bind(py))) {
            called |= bit;
        }
    }
    let mut plan = Plan {
        kept: match kind(0)? {
            Some(0) => KeptBy::Container(Container::Deque),
            Some(_) => KeptBy::Container(Container::List),
            None => KeptBy::Hook,
        },
        put: match kind(1)? {
            Some(0 | 1) => PutBy::Append,
            Some(_) => PutBy::Heap,
            None => PutBy::Hook,
        },
        get: match kind(2)? {
            Some(0) => GetBy::First,
            Some(1) => GetBy::Last,
            Some(_) => GetBy::Heap,
            None => GetBy::Hook,
        },
        called: Called(called),
    };
    if plan.called.any(Called::ITEMS) {
        // asyncio's own hooks find the items where the class keeps them.
        plan.kept = KeptBy::Hook;
        plan.put = PutBy::Hook;
        plan.get = GetBy::Hook;
    }
    Ok(plan)
}
