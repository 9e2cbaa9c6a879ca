//! The operations one by one, and the methods of the loop that make them.

use std::ffi::c_int;
use std::os::fd::RawFd;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyInt, PyModule, PyTuple};
use weft_reactor::socket;

use super::{
    Attempt, Call, SocketCall, connecting, leave_task, unless_blocked, unless_blocking_error,
};
use crate::event_loop::EVENT_LOOP;
use crate::ffi::Visit;
use crate::ffi::bytes::{Spare, View, contents, is_bytes};
use crate::ffi::call::{method0, method1};
use crate::ffi::coroutine_function;
use crate::ffi::method::{Args, Returned, missing_argument};
use crate::operations::{self, Operation, Step};
use crate::{coroutine_method, make_operation, operation};

/// Larger receives, for which there may be no memory, are Python's to try.
const MOST_RECEIVED: usize = 1 << 30;

/// What `sock_recv` receives into.
static RECEIVED: Spare = Spare::new();

/// asyncio's coroutine functions, in the order of [`NAMES`].
static INHERITED: PyOnceLock<Vec<Py<PyAny>>> = PyOnceLock::new();

const NAMES: [&str; 8] = [
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendto",
    "sock_accept",
    "sock_connect",
];

/// Declares an operation: its type, its name and place in [`NAMES`], what it waits for, its functions.
macro_rules! socket_call {
    ($operation:ident, $name:literal, $index:literal, reads: $reads:literal, $attempt:path, $retry:path) => {
        #[doc = concat!("`", $name, "()`.")]
        #[derive(Debug, Default)]
        pub struct $operation(Call);

        impl Operation for $operation {
            operation!($operation, $name);

            #[inline]
            fn start<'py>(&self, frame: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
                self.0.start::<Self>(frame)
            }

            #[inline]
            fn resume<'py>(
                &self,
                frame: &Bound<'py, PyAny>,
                outcome: Returned<'py>,
            ) -> PyResult<Step<'py>> {
                self.0.resume::<Self>(frame, outcome)
            }

            fn traverse(&self, visit: Visit) -> c_int {
                self.0.traverse(visit)
            }

            fn clear(&self) {
                self.0.clear();
            }
        }

        impl SocketCall for $operation {
            const READS: bool = $reads;

            #[inline]
            fn call(&self) -> &Call {
                &self.0
            }

            fn inherited(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
                inherited(py, $index)
            }

            #[inline]
            fn attempt<'py>(call: &Call, py: Python<'py>, fd: RawFd) -> PyResult<Attempt<'py>> {
                $attempt(call, py, fd)
            }

            #[inline]
            fn retry<'py>(
                call: &Call,
                py: Python<'py>,
                fd: RawFd,
            ) -> PyResult<Option<Bound<'py, PyAny>>> {
                $retry(call, py, fd)
            }
        }
    };
}

socket_call!(Recv, "Loop.sock_recv", 0, reads: true, recv, recv_again);
socket_call!(RecvInto, "Loop.sock_recv_into", 1, reads: true, recv_into, recv_into_again);
socket_call!(RecvFrom, "Loop.sock_recvfrom", 2, reads: true, recvfrom, recvfrom_again);
socket_call!(RecvFromInto, "Loop.sock_recvfrom_into", 3, reads: true, recvfrom_into, recvfrom_into_again);
socket_call!(SendAll, "Loop.sock_sendall", 4, reads: false, sendall, sendall_again);
socket_call!(SendTo, "Loop.sock_sendto", 5, reads: false, sendto, sendto_again);
socket_call!(Accept, "Loop.sock_accept", 6, reads: true, accept, accept_again);

socket_call!(Connect, "Loop.sock_connect", 7, reads: false, connecting::connect, connecting::connect_again);

fn inherited(py: Python<'_>, index: usize) -> PyResult<&Bound<'_, PyAny>> {
    INHERITED
        .get(py)
        .and_then(|functions| functions.get(index))
        .map(|function| function.bind(py))
        .ok_or_else(|| PyRuntimeError::new_err("the loop has no methods yet"))
}

fn attempted(outcome: Option<Bound<'_, PyAny>>) -> Attempt<'_> {
    match outcome {
        Some(value) => Attempt::Done(value),
        None => Attempt::NotNow,
    }
}

/// A number of bytes, where it is an integer within bounds.
fn size(argument: Option<Bound<'_, PyAny>>) -> Option<usize> {
    let argument = argument?;
    let size = argument.cast_exact::<PyInt>().ok()?.extract::<usize>();
    size.ok().filter(|&size| size <= MOST_RECEIVED)
}

// -- receiving -------------------------------------------------------------------------------------

fn recv<'py>(call: &Call, py: Python<'py>, fd: RawFd) -> PyResult<Attempt<'py>> {
    match size(call.first.get(py)) {
        // Python asks the kernel for nothing where nothing is wanted.
        None | Some(0) => return Ok(Attempt::Inherited),
        Some(size) => call.count.set(size),
    }
    recv_again(call, py, fd).map(attempted)
}

fn recv_again<'py>(call: &Call, py: Python<'py>, fd: RawFd) -> PyResult<Option<Bound<'py, PyAny>>> {
    let received = RECEIVED.filled(py, call.count.get(), |memory| {
        socket::recv_uninit(fd, memory)
    })?;
    unless_blocked(received)
}

fn receive_into<'py>(
    py: Python<'py>,
    fd: RawFd,
    view: &mut View,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let received = socket::recv_uninit(fd, view.as_uninit()).map(|filled| filled.len());
    match unless_blocked(received)? {
        Some(count) => Ok(Some(count.into_pyobject(py)?.into_any())),
        None => Ok(None),
    }
}

fn recv_into<'py>(call: &Call, py: Python<'py>, fd: RawFd) -> PyResult<Attempt<'py>> {
    match View::writable(&call.first.get_or_none(py)) {
        Ok(mut view) if !view.as_slice().is_empty() => {
            receive_into(py, fd, &mut view).map(attempted)
        }
        _ => Ok(Attempt::Inherited),
    }
}

fn recv_into_again<'py>(
    call: &Call,
    py: Python<'py>,
    fd: RawFd,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let buffer = call.first.get_or_none(py);
    if let Ok(mut view) = View::writable(&buffer)
        && !view.as_slice().is_empty()
    {
        return receive_into(py, fd, &mut view);
    }
    // Somebody has released or emptied it meanwhile. Python has the right words.
    leave_task(call, py)?;
    let socket = call.socket.get_or_none(py);
    unless_blocking_error(py, method1(&socket, intern!(py, "recv_into"), &buffer))
}

// Addresses are Python's to make. Its exception for "not now" costs more than a look does.

fn recvfrom<'py>(call: &Call, py: Python<'py>, fd: RawFd) -> PyResult<Attempt<'py>> {
    if size(call.first.get(py)).is_none() {
        return Ok(Attempt::Inherited);
    }
    match unless_blocked(socket::is_readable(fd))? {
        Some(true) => receive_from(call, py).map(attempted),
        _ => Ok(Attempt::NotNow),
    }
}

fn receive_from<'py>(call: &Call, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let socket = call.socket.get_or_none(py);
    let size = call.first.get_or_none(py);
    unless_blocking_error(py, method1(&socket, intern!(py, "recvfrom"), &size))
}

fn recvfrom_again<'py>(
    call: &Call,
    py: Python<'py>,
    _: RawFd,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    leave_task(call, py)?;
    receive_from(call, py)
}

fn recvfrom_into<'py>(call: &Call, py: Python<'py>, fd: RawFd) -> PyResult<Attempt<'py>> {
    let buffer = call.first.get_or_none(py);
    let room = match View::writable(&buffer) {
        Ok(view) if is_of_bytes(&buffer, &view) => view.as_slice().len(),
        _ => return Ok(Attempt::Inherited),
    };
    let wanted = match call.second.get(py) {
        None => 0,
        Some(wanted) => match size(Some(wanted)) {
            Some(wanted) if wanted <= room => wanted,
            _ => return Ok(Attempt::Inherited),
        },
    };
    call.count.set(if wanted == 0 { room } else { wanted });
    match unless_blocked(socket::is_readable(fd))? {
        Some(true) => receive_from_into(call, py).map(attempted),
        _ => Ok(Attempt::NotNow),
    }
}

fn receive_from_into<'py>(call: &Call, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let socket = call.socket.get_or_none(py);
    let arguments = (call.first.get_or_none(py), call.count.get());
    unless_blocking_error(
        py,
        socket.call_method1(intern!(py, "recvfrom_into"), arguments),
    )
}

fn recvfrom_into_again<'py>(
    call: &Call,
    py: Python<'py>,
    _: RawFd,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    leave_task(call, py)?;
    receive_from_into(call, py)
}

/// Whether the length of what lends a view is the number of its bytes.
fn is_of_bytes(object: &Bound<'_, PyAny>, view: &View) -> bool {
    object
        .len()
        .is_ok_and(|length| length == view.as_slice().len())
}

// -- sending ---------------------------------------------------------------------------------------

fn sendall<'py>(call: &Call, py: Python<'py>, fd: RawFd) -> PyResult<Attempt<'py>> {
    let data = call.first.get_or_none(py);
    if !is_bytes(&data) {
        match View::of(&data) {
            Ok(view) if is_of_bytes(&data, &view) => {
                let old = call.view.replace(Some(view));
                drop(old);
            }
            _ => return Ok(Attempt::Inherited),
        }
    }
    sendall_again(call, py, fd).map(attempted)
}

fn sendall_again<'py>(
    call: &Call,
    py: Python<'py>,
    fd: RawFd,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let data = call.first.get_or_none(py);
    let view = call.view.borrow();
    let data = view
        .as_ref()
        .map_or_else(|| contents(&data), View::as_slice);
    let sent = call.count.get();
    let count = unless_blocked(socket::send(fd, data.get(sent..).unwrap_or_default()))?;
    let sent = sent + count.unwrap_or(0);
    call.count.set(sent);
    Ok((sent == data.len()).then(|| py.None().into_bound(py)))
}

fn send_to<'py>(
    call: &Call,
    py: Python<'py>,
    arguments: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let socket = call.socket.get_or_none(py);
    unless_blocking_error(py, socket.call_method1(intern!(py, "sendto"), arguments))
}

fn sendto<'py>(call: &Call, py: Python<'py>, _: RawFd) -> PyResult<Attempt<'py>> {
    let arguments = (call.first.get_or_none(py), call.second.get_or_none(py));
    send_to(call, py, arguments).map(attempted)
}

fn sendto_again<'py>(
    call: &Call,
    py: Python<'py>,
    _: RawFd,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    leave_task(call, py)?;
    let arguments = (call.first.get_or_none(py), 0, call.second.get_or_none(py));
    send_to(call, py, arguments)
}

// -- accepting -------------------------------------------------------------------------------------

fn accept_connection<'py>(call: &Call, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let socket = call.socket.get_or_none(py);
    let accepted = unless_blocking_error(py, method0(&socket, intern!(py, "accept")))?;
    let Some(accepted) = accepted else {
        return Ok(None);
    };
    let connection = accepted.cast::<PyTuple>()?.get_item(0)?;
    connection.call_method1(intern!(py, "setblocking"), (false,))?;
    Ok(Some(accepted))
}

fn accept<'py>(call: &Call, py: Python<'py>, _: RawFd) -> PyResult<Attempt<'py>> {
    accept_connection(call, py).map(attempted)
}

fn accept_again<'py>(
    call: &Call,
    py: Python<'py>,
    _: RawFd,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    leave_task(call, py)?;
    accept_connection(call, py)
}

// -- the methods of the loop -----------------------------------------------------------------------

/// A new operation on the arguments `names`, of which the first is the socket and the last `optional` may be left out.
#[inline]
fn new<'py, T: SocketCall, const N: usize>(
    event_loop: &Bound<'py, PyAny>,
    args: Args<'_, 'py>,
    names: [&str; N],
    optional: usize,
) -> Returned<'py> {
    let bound = if args.count() == N && !args.has_keywords() {
        std::array::from_fn(|index| args.get(index))
    } else {
        args.bind(T::NAME, names)?
    };
    for (value, name) in bound.iter().zip(names).take(N - optional) {
        if value.is_none() {
            return Err(missing_argument(T::NAME, name));
        }
    }
    operations::operation(event_loop.py(), |operation: &T| {
        let call = operation.call();
        call.event_loop.fill(event_loop.clone());
        for (slot, value) in [&call.socket, &call.first, &call.second]
            .into_iter()
            .zip(bound)
        {
            if let Some(value) = value {
                slot.fill(value.to_owned());
            }
        }
    })
}

fn sock_recv<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    new::<Recv, _>(event_loop, args, ["sock", "n"], 0)
}

fn sock_recv_into<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    new::<RecvInto, _>(event_loop, args, ["sock", "buf"], 0)
}

fn sock_recvfrom<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    new::<RecvFrom, _>(event_loop, args, ["sock", "bufsize"], 0)
}

fn sock_recvfrom_into<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    new::<RecvFromInto, _>(event_loop, args, ["sock", "buf", "nbytes"], 1)
}

fn sock_sendall<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    new::<SendAll, _>(event_loop, args, ["sock", "data"], 0)
}

fn sock_sendto<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    new::<SendTo, _>(event_loop, args, ["sock", "data", "address"], 0)
}

fn sock_accept<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    new::<Accept, _>(event_loop, args, ["sock"], 0)
}

fn sock_connect<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Returned<'py> {
    new::<Connect, _>(event_loop, args, ["sock", "address"], 0)
}

/// Makes the operations' classes, and gives the loop's class its methods.
///
/// # Errors
/// What Python raises while it makes types.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    make_operation!(py, Recv)?;
    make_operation!(py, RecvInto)?;
    make_operation!(py, RecvFrom)?;
    make_operation!(py, RecvFromInto)?;
    make_operation!(py, SendAll)?;
    make_operation!(py, SendTo)?;
    make_operation!(py, Accept)?;
    make_operation!(py, Connect)?;
    let asyncio = py
        .import("asyncio.selector_events")?
        .getattr("BaseSelectorEventLoop")?;
    let calls = [
        coroutine_method!(EVENT_LOOP, sock_recv),
        coroutine_method!(EVENT_LOOP, sock_recv_into),
        coroutine_method!(EVENT_LOOP, sock_recvfrom),
        coroutine_method!(EVENT_LOOP, sock_recvfrom_into),
        coroutine_method!(EVENT_LOOP, sock_sendall),
        coroutine_method!(EVENT_LOOP, sock_sendto),
        coroutine_method!(EVENT_LOOP, sock_accept),
        coroutine_method!(EVENT_LOOP, sock_connect),
    ];
    let class = EVENT_LOOP.type_object(py);
    let mut functions = Vec::new();
    for (name, call) in NAMES.into_iter().zip(calls) {
        let original = asyncio.getattr(name)?;
        class.setattr(name, coroutine_function::standing_for(&original, call)?)?;
        functions.push(original.unbind());
    }
    INHERITED.get_or_init(py, || functions);
    Ok(())
}
