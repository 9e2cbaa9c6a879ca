//! Every Python object that native code needs, looked up once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyByteArray, PyDict, PyTuple, PyType};

/// `asyncio.Server`, with its methods as they were at import.
#[derive(Debug)]
pub struct StockServer {
    /// The class.
    pub class: Py<PyAny>,
    /// What counts a connection.
    pub attach: Py<PyAny>,
    /// What counts it out.
    pub detach: Py<PyAny>,
}

impl StockServer {
    fn find(py: Python<'_>) -> PyResult<Self> {
        let class = py.import("asyncio.base_events")?.getattr("Server")?;
        Ok(Self {
            attach: class.getattr("_attach")?.unbind(),
            detach: class.getattr("_detach")?.unbind(),
            class: class.unbind(),
        })
    }
}

/// Objects of the standard library.
#[derive(Debug)]
pub struct Imports {
    /// `_asyncio.Future`.
    pub future: Py<PyType>,
    /// `_asyncio.Task`.
    pub task: Py<PyType>,
    /// `_asyncio.Future.result`, unbound.
    pub future_result: Py<PyAny>,
    /// `_asyncio.Future.set_result`, unbound.
    pub future_set_result: Py<PyAny>,
    /// `_asyncio.Future.set_exception`, unbound.
    pub future_set_exception: Py<PyAny>,
    /// `_asyncio.Future.remove_done_callback`, unbound.
    pub future_remove_done_callback: Py<PyAny>,
    /// `_asyncio.Future.cancel`, unbound.
    pub future_cancel: Py<PyAny>,
    /// `_asyncio.Future.__init__`, unbound.
    pub future_init: Py<PyAny>,
    /// `_asyncio.Task.__init__`, unbound.
    pub task_init: Py<PyAny>,
    /// `asyncio.Handle`.
    pub handle: Py<PyAny>,
    /// `asyncio.TimerHandle`.
    pub timer_handle: Py<PyAny>,
    /// `asyncio.CancelledError`.
    pub cancelled_error: Py<PyType>,
    /// `asyncio.InvalidStateError`.
    pub invalid_state_error: Py<PyType>,
    /// `asyncio.StreamReader`.
    pub stream_reader: Py<PyAny>,
    /// `asyncio.StreamReaderProtocol`.
    pub stream_reader_protocol: Py<PyAny>,
    /// `asyncio.IncompleteReadError`.
    pub incomplete_read_error: Py<PyAny>,
    /// `asyncio.LimitOverrunError`.
    pub limit_overrun_error: Py<PyAny>,
    /// `asyncio.coroutines.iscoroutine`.
    pub is_coroutine: Py<PyAny>,
    /// `asyncio.get_running_loop`.
    pub get_running_loop: Py<PyAny>,
    /// `asyncio.get_event_loop`.
    pub get_event_loop: Py<PyAny>,
    /// `asyncio.ensure_future`, as it was at import.
    pub ensure_future: Py<PyAny>,
    /// `asyncio._get_running_loop`.
    pub running_loop: Py<PyAny>,
    /// `inspect.isawaitable`.
    pub is_awaitable: Py<PyAny>,
    /// `warnings._warn_unawaited_coroutine`.
    pub warn_unawaited: Py<PyAny>,
    /// `asyncio.futures._get_loop`.
    pub future_loop: Py<PyAny>,
    /// `asyncio.futures._set_result_unless_cancelled`, what `asyncio.sleep` schedules.
    pub set_result_unless_cancelled: Py<PyAny>,
    /// `asyncio.futures.wrap_future`.
    pub wrap_future: Py<PyAny>,
    /// `asyncio.futures._convert_future_exc`: what asyncio makes of an exception of `concurrent.futures`.
    pub convert_future_error: Py<PyAny>,
    /// `functools.partial`.
    pub partial: Py<PyAny>,
    /// `asyncio.format_helpers`.
    pub format_helpers: Py<PyAny>,
    /// `asyncio.base_events`, whose `logger` reports slow callbacks.
    pub base_events: Py<PyAny>,
    /// `asyncio.selector_events`, whose `logger` reports what transports do.
    pub selector_events: Py<PyAny>,
    /// `warnings.warn`, which finalizers need when nothing can be imported any more.
    pub warn: Py<PyAny>,
    /// `asyncio.format_helpers.extract_stack`.
    pub extract_stack: Py<PyAny>,
    /// `socket.socket`.
    pub socket: Py<PyAny>,
    /// `socket.socket.accept`, unbound, as it was at import.
    pub socket_accept: Py<PyAny>,
    /// `asyncio.trsock.TransportSocket`.
    pub transport_socket: Py<PyAny>,
    /// `asyncio.Server`.
    pub server: StockServer,
    /// `asyncio.BufferedProtocol`.
    pub buffered_protocol: Py<PyAny>,
    /// `contextvars.Context.run`, unbound.
    pub context_run: Py<PyAny>,
    /// `asyncio.tasks._current_tasks`, or `_asyncio._swap_current_task` from Python 3.14.
    pub current_tasks: Py<PyAny>,
    /// `_asyncio.current_task` (from Python 3.12 on), otherwise `None`.
    pub current_task: Py<PyAny>,
    /// `asyncio.eager_task_factory` (from Python 3.12 on), otherwise `None`.
    pub eager_task_factory: Py<PyAny>,
    /// `_asyncio._register_task` (Python 3.14), otherwise `None`.
    pub register_task: Py<PyAny>,
    /// `_asyncio.future_add_to_awaited_by` (Python 3.14), otherwise `None`.
    pub add_to_awaited_by: Py<PyAny>,
    /// `_asyncio.future_discard_from_awaited_by` (Python 3.14), otherwise `None`.
    pub discard_from_awaited_by: Py<PyAny>,
    /// `collections.deque`.
    pub deque: Py<PyAny>,
    /// What `asyncio.locks` has, by name.
    pub locks: Py<PyDict>,
    /// `asyncio.Lock.__aenter__`, unbound, which conditions and semaphores have too.
    pub lock_enter: Py<PyAny>,
    /// `asyncio.Lock.__aexit__`, unbound.
    pub lock_exit: Py<PyAny>,
    /// `asyncio.Barrier.wait`, unbound.
    pub barrier_wait: Py<PyAny>,
    /// The members of `asyncio.locks._BarrierState`.
    pub barrier_states: Py<PyTuple>,
    /// `asyncio.BrokenBarrierError`.
    pub broken_barrier_error: Py<PyType>,
    /// The dictionary of the module `time`.
    pub time_module: Py<PyDict>,
    /// `time.monotonic` as it was at import.
    pub monotonic: Py<PyAny>,
    /// `()`.
    pub empty_tuple: Py<PyTuple>,
}

static IMPORTS: PyOnceLock<Imports> = PyOnceLock::new();

/// What TLS needs of the standard library, looked up with the first TLS connection: a Python may lack it.
#[derive(Debug)]
pub struct Tls {
    /// `ssl.MemoryBIO`.
    pub memory_bio: Py<PyAny>,
    /// `ssl.SSLObject`.
    pub ssl_object: Py<PyType>,
    /// `_ssl._SSLSocket`, what an `SSLObject` hands everything on to.
    pub ssl_socket: Py<PyType>,
    /// `ssl.SSLError`.
    pub error: Py<PyType>,
    /// `ssl.CertificateError`.
    pub certificate_error: Py<PyType>,
    /// `ssl.SSLWantReadError`.
    pub want_read_error: Py<PyType>,
    /// `ssl.SSLSyscallError`.
    pub syscall_error: Py<PyType>,
    /// `asyncio.sslproto._create_transport_context`.
    pub create_context: Py<PyAny>,
    /// `asyncio.sslproto.logger`.
    pub logger: Py<PyAny>,
    /// `asyncio.constants`, which has the time-outs.
    pub constants: Py<PyAny>,
    /// Memory that records are decrypted into, for whoever reads at the moment.
    pub plaintext: Py<PyByteArray>,
    /// The size of that memory: that of the largest record.
    pub record_size: Py<PyAny>,
}

/// The most bytes that a TLS record carries.
pub const RECORD_SIZE: usize = 16 * 1024;

static TLS: PyOnceLock<Tls> = PyOnceLock::new();

/// What TLS needs.
///
/// # Errors
/// `ImportError` where this Python has no TLS.
#[inline]
pub fn tls(py: Python<'_>) -> PyResult<&'static Tls> {
    match TLS.get(py) {
        Some(tls) => Ok(tls),
        None => load_tls(py),
    }
}

#[cold]
fn load_tls(py: Python<'_>) -> PyResult<&'static Tls> {
    TLS.get_or_try_init(py, || {
        let ssl = py.import("ssl")?;
        let protocol = py.import("asyncio.sslproto")?;
        let class = |name: &str| -> PyResult<Py<PyType>> {
            Ok(ssl.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        Ok(Tls {
            memory_bio: ssl.getattr("MemoryBIO")?.unbind(),
            ssl_object: class("SSLObject")?,
            ssl_socket: py
                .import("_ssl")?
                .getattr("_SSLSocket")?
                .cast_into::<PyType>()?
                .unbind(),
            error: class("SSLError")?,
            certificate_error: class("CertificateError")?,
            want_read_error: class("SSLWantReadError")?,
            syscall_error: class("SSLSyscallError")?,
            create_context: protocol.getattr("_create_transport_context")?.unbind(),
            logger: protocol.getattr("logger")?.unbind(),
            constants: py.import("asyncio.constants")?.into_any().unbind(),
            plaintext: PyByteArray::new(py, &[0; RECORD_SIZE]).unbind(),
            record_size: RECORD_SIZE.into_pyobject(py)?.into_any().unbind(),
        })
    })
}

/// The table, which the module's initialisation has filled.
///
/// # Panics
/// Before [`load`].
#[inline]
pub fn imports(py: Python<'_>) -> &'static Imports {
    IMPORTS
        .get(py)
        .expect("the table is filled before any class exists")
}

/// Fills the table.
///
/// # Errors
/// `ImportError` or `AttributeError` where the standard library lacks something.
#[expect(clippy::too_many_lines, reason = "a table")]
pub fn load(py: Python<'_>) -> PyResult<&'static Imports> {
    IMPORTS.get_or_try_init(py, || {
        let native = py.import("_asyncio")?;
        let futures = py.import("asyncio.futures")?;
        let future = native.getattr("Future")?.cast_into::<PyType>()?;
        let task = native.getattr("Task")?.cast_into::<PyType>()?;
        let exceptions = py.import("asyncio.exceptions")?;
        let streams = py.import("asyncio.streams")?;
        let optional = |name: &str| -> PyResult<Py<PyAny>> {
            Ok(native
                .getattr_opt(name)?
                .map_or_else(|| py.None(), Bound::unbind))
        };
        let current_tasks = if cfg!(Py_3_14) {
            native.getattr("_swap_current_task")?
        } else {
            py.import("asyncio.tasks")?.getattr("_current_tasks")?
        };
        let time = py.import("time")?;
        let locks = py.import("asyncio.locks")?;
        let lock = locks.getattr("Lock")?;
        let socket = py.import("socket")?.getattr("socket")?;
        Ok(Imports {
            future_result: future.getattr("result")?.unbind(),
            future_set_result: future.getattr("set_result")?.unbind(),
            future_set_exception: future.getattr("set_exception")?.unbind(),
            future_remove_done_callback: future.getattr("remove_done_callback")?.unbind(),
            future_cancel: future.getattr("cancel")?.unbind(),
            future_init: future.getattr("__init__")?.unbind(),
            task_init: task.getattr("__init__")?.unbind(),
            future: future.unbind(),
            handle: py.import("asyncio.events")?.getattr("Handle")?.unbind(),
            timer_handle: py
                .import("asyncio.events")?
                .getattr("TimerHandle")?
                .unbind(),
            task: task.unbind(),
            cancelled_error: exceptions
                .getattr("CancelledError")?
                .cast_into::<PyType>()?
                .unbind(),
            invalid_state_error: exceptions
                .getattr("InvalidStateError")?
                .cast_into::<PyType>()?
                .unbind(),
            stream_reader: streams.getattr("StreamReader")?.unbind(),
            stream_reader_protocol: streams.getattr("StreamReaderProtocol")?.unbind(),
            incomplete_read_error: exceptions.getattr("IncompleteReadError")?.unbind(),
            limit_overrun_error: exceptions.getattr("LimitOverrunError")?.unbind(),
            is_coroutine: py
                .import("asyncio.coroutines")?
                .getattr("iscoroutine")?
                .unbind(),
            get_running_loop: native.getattr("get_running_loop")?.unbind(),
            get_event_loop: native.getattr("get_event_loop")?.unbind(),
            ensure_future: py
                .import("asyncio.tasks")?
                .getattr("ensure_future")?
                .unbind(),
            running_loop: native.getattr("_get_running_loop")?.unbind(),
            is_awaitable: py.import("inspect")?.getattr("isawaitable")?.unbind(),
            warn_unawaited: py
                .import("warnings")?
                .getattr("_warn_unawaited_coroutine")?
                .unbind(),
            future_loop: futures.getattr("_get_loop")?.unbind(),
            set_result_unless_cancelled: futures.getattr("_set_result_unless_cancelled")?.unbind(),
            wrap_future: futures.getattr("wrap_future")?.unbind(),
            convert_future_error: futures.getattr("_convert_future_exc")?.unbind(),
            partial: py.import("functools")?.getattr("partial")?.unbind(),
            format_helpers: py.import("asyncio.format_helpers")?.into_any().unbind(),
            base_events: py.import("asyncio.base_events")?.into_any().unbind(),
            selector_events: py.import("asyncio.selector_events")?.into_any().unbind(),
            warn: py.import("warnings")?.getattr("warn")?.unbind(),
            extract_stack: py
                .import("asyncio.format_helpers")?
                .getattr("extract_stack")?
                .unbind(),
            server: StockServer::find(py)?,
            socket_accept: socket.getattr("accept")?.unbind(),
            socket: socket.unbind(),
            transport_socket: py
                .import("asyncio.trsock")?
                .getattr("TransportSocket")?
                .unbind(),
            buffered_protocol: py
                .import("asyncio.protocols")?
                .getattr("BufferedProtocol")?
                .unbind(),
            context_run: py
                .import("contextvars")?
                .getattr("Context")?
                .getattr("run")?
                .unbind(),
            current_tasks: current_tasks.unbind(),
            current_task: optional("current_task")?,
            eager_task_factory: py
                .import("asyncio.tasks")?
                .getattr_opt("eager_task_factory")?
                .map_or_else(|| py.None(), Bound::unbind),
            register_task: if cfg!(Py_3_14) {
                optional("_register_task")?
            } else {
                py.None()
            },
            add_to_awaited_by: optional("future_add_to_awaited_by")?,
            discard_from_awaited_by: optional("future_discard_from_awaited_by")?,
            deque: py.import("collections")?.getattr("deque")?.unbind(),
            locks: locks.dict().copy()?.unbind(),
            lock_enter: lock.getattr("__aenter__")?.unbind(),
            lock_exit: lock.getattr("__aexit__")?.unbind(),
            barrier_wait: locks.getattr("Barrier")?.getattr("wait")?.unbind(),
            barrier_states: PyTuple::new(
                py,
                locks
                    .getattr("_BarrierState")?
                    .try_iter()?
                    .collect::<PyResult<Vec<_>>>()?,
            )?
            .unbind(),
            broken_barrier_error: exceptions
                .getattr("BrokenBarrierError")?
                .cast_into::<PyType>()?
                .unbind(),
            time_module: time.dict().unbind(),
            monotonic: time.getattr("monotonic")?.unbind(),
            empty_tuple: PyTuple::empty(py).unbind(),
        })
    })
}

/// Whether the code of a Python function names `name`: how a behaviour that came with a maintenance release is told from
/// the one before. `false` for what is no Python function.
pub fn mentions(function: &Bound<'_, PyAny>, name: &str) -> bool {
    let names = || -> PyResult<bool> {
        let code = function.getattr("__code__")?;
        code.getattr("co_names")?.contains(name)
    };
    names().unwrap_or(false)
}
