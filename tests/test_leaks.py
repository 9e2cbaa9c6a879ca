"""Nothing is left behind, however often it is done: by every type, on every path."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import os
import signal
import socket
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from backends import PY312, Backend
from counting import leaks
from turns import turn

pytestmark = pytest.mark.slow

Operation = Callable[["Place"], Any]
OPERATIONS: dict[str, Operation] = {}


class Place:
    """What an operation works with."""

    def __init__(self, backend: Backend, loop: asyncio.AbstractEventLoop) -> None:
        self.backend = backend
        self.loop = loop
        self.context = contextvars.Context()
        self.left, self.right = socket.socketpair()
        self.future_kind = type("MyFuture", (backend.Future,), {})
        self.task_kind = type("MyTask", (backend.Task,), {})

    def close(self) -> None:
        self.left.close()
        self.right.close()

    def run(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coro)


def operation(function: Operation) -> Operation:
    OPERATIONS[function.__name__] = function
    return function


def nothing(*arguments: Any) -> None:
    pass


def refused(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
    """The call fails, and the error goes."""
    try:
        function(*arguments, **keywords)
    except (Exception, asyncio.CancelledError):
        return
    raise AssertionError("was not refused")


# -- handles ---------------------------------------------------------------------------------------


@operation
def call_soon(place: Place) -> None:
    place.loop.call_soon(nothing)
    place.loop.call_soon(nothing, 1, [2], "three")
    place.loop.call_soon(nothing, context=place.context)
    place.loop.call_soon(nothing).cancel()
    turn(place.loop)


@operation
def call_soon_threadsafe(place: Place) -> None:
    place.loop.call_soon_threadsafe(nothing, [1])
    place.loop.call_soon_threadsafe(nothing, context=place.context)
    turn(place.loop)


@operation
def timers(place: Place) -> None:
    place.loop.call_later(0, nothing, [1])
    place.loop.call_later(-1, nothing, context=place.context)
    place.loop.call_at(place.loop.time(), nothing)
    place.loop.call_later(1000, nothing, [2]).cancel()
    place.loop.call_at(1e12, nothing).cancel()
    turn(place.loop, 2)


@operation
def handle_attributes(place: Place) -> None:
    for handle in (place.loop.call_soon(nothing, [1]), place.loop.call_later(1, nothing, [1])):
        repr(handle)
        hash(handle)
        handle == handle
        handle._args, handle._callback, handle._context, handle._loop  # type: ignore[attr-defined]
        if PY312:
            handle.get_context()
        handle.cancel()
        repr(handle)
    turn(place.loop)


@operation
def handle_cycles(place: Place) -> None:
    box: list[Any] = []
    box.append(place.loop.call_later(1000, nothing, box))
    box[0].cancel()
    box.append(place.loop.call_soon(nothing, box))
    turn(place.loop)


@operation
def failing_callback(place: Place) -> None:
    place.loop.call_soon(divmod, 1, 0)
    place.loop.call_later(0, divmod, 1, 0)
    turn(place.loop, 2)


@operation
def refused_scheduling(place: Place) -> None:
    refused(place.loop.call_soon)
    refused(place.loop.call_soon, nothing, key=1)
    refused(place.loop.call_later, None, nothing)
    refused(place.loop.call_later, "text", nothing)
    refused(place.loop.call_at, None, nothing)
    refused(place.loop.call_at)
    refused(place.loop.create_task, 1)
    refused(place.loop.run_until_complete, 1)
    refused(place.loop.set_task_factory, 1)
    refused(place.loop.set_exception_handler, 1)


# -- futures ---------------------------------------------------------------------------------------


@operation
def futures(place: Place) -> None:
    for end in (
        lambda f: None,
        lambda f: f.set_result([1]),
        lambda f: (f.set_exception(ValueError([1])), f.exception()),
        lambda f: f.cancel(),
        lambda f: f.cancel(["message"]),
    ):
        future = place.loop.create_future()
        end(future)
        repr(future)
        if future.done():
            try:
                future.result()
            except (ValueError, asyncio.CancelledError):
                pass
    place.backend.Future(loop=place.loop)


@operation
def done_callbacks(place: Place) -> None:
    for number in range(4):
        for finish in (True, False):
            future = place.loop.create_future()
            for _ in range(number):
                future.add_done_callback(lambda _, box=[1]: None)
            future.add_done_callback(nothing, context=place.context)
            future.add_done_callback(nothing)
            future._callbacks
            future.remove_done_callback(nothing)
            if finish:
                future.set_result(None)
                future.add_done_callback(nothing)
    turn(place.loop)


@operation
def future_iterators(place: Place) -> None:
    future = place.loop.create_future()
    started = future.__await__()
    next(started)
    future.__await__()
    refused(next, future.__await__())
    future._asyncio_future_blocking = False
    thrown = future.__await__()
    refused(thrown.throw, ValueError([1]))  # type: ignore[attr-defined]
    closed = future.__await__()
    closed.close()  # type: ignore[attr-defined]
    future.set_result([1])
    for value in ([1], (1, 2), ValueError(), None):
        done = place.loop.create_future()
        done.set_result(value)
        iterator = done.__await__()
        with contextlib.suppress(StopIteration):
            next(iterator)


@operation
def refused_on_futures(place: Place) -> None:
    future = place.loop.create_future()
    refused(future.result)
    refused(future.exception)
    refused(future.set_exception, 1)
    refused(future.set_result)
    refused(future.add_done_callback)
    refused(future.add_done_callback, nothing, place.context)
    refused(setattr, future, "_log_traceback", True)
    refused(place.backend.Future, 1)
    refused(place.backend.Future, loop=1)
    future.set_result(1)
    refused(future.set_result, 2)
    refused(future.set_exception, ValueError())


@operation
def future_attributes(place: Place) -> None:
    future = place.loop.create_future()
    future.set_result([1])
    for name in dir(future):
        getattr(future, name, None)
    place.backend.Future[int]
    future.get_loop()


@operation
def future_cycles(place: Place) -> None:
    future = place.loop.create_future()
    future.set_result([future])
    other = place.loop.create_future()
    other.add_done_callback(lambda _, own=other: None)


@operation
def never_retrieved(place: Place) -> None:
    place.loop.create_future().set_exception(ValueError([1]))


@operation
def future_subclasses(place: Place) -> None:
    future = place.future_kind(loop=place.loop)
    future.mine = [future]
    future.set_result(1)


# -- tasks -----------------------------------------------------------------------------------------


@operation
def tasks(place: Place) -> None:
    async def child(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError([1])

    async def main() -> None:
        assert await place.loop.create_task(child([1])) == [1]
        await place.loop.create_task(child(1), name="named")
        await place.loop.create_task(child(1), context=place.context)
        try:
            await place.loop.create_task(fail())
        except ValueError:
            pass

    place.run(main())


@operation
def waiting_tasks(place: Place) -> None:
    async def wait(future: Any) -> Any:
        return await future

    async def main() -> None:
        future = place.loop.create_future()
        tasks = [asyncio.ensure_future(wait(future)) for _ in range(3)]
        tasks.append(asyncio.Task(wait(future)))
        await asyncio.sleep(0)
        future.set_result([1])
        await asyncio.gather(*tasks)
        done = place.loop.create_future()
        done.set_result([2])
        await wait(done)

    place.run(main())


@operation
def cancelled_tasks(place: Place) -> None:
    async def forever() -> None:
        await place.loop.create_future()

    async def outer(inner: Any) -> None:
        await inner

    async def main() -> None:
        early = asyncio.ensure_future(forever())
        early.cancel(["early"])
        late = asyncio.ensure_future(outer(asyncio.ensure_future(forever())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        late.cancel(["late"])
        await asyncio.gather(early, late, return_exceptions=True)
        refused(early.result)
        refused(late.result)
        refused(late.exception)

    place.run(main())


@operation
def task_attributes(place: Place) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        for name in dir(task):
            getattr(task, name, None)
        repr(task)
        task.get_stack()
        task.set_name([1])  # type: ignore[arg-type]
        task.get_name()
        task.get_coro()
        asyncio.all_tasks()

    place.run(main())


@operation
def odd_tasks(place: Place) -> None:
    class Odd:
        def __init__(self, thing: Any) -> None:
            self.thing = thing

        def __await__(self) -> Any:
            yield self.thing

    async def main() -> None:
        for thing in (1, [1], place.loop.create_future(), ValueError):
            try:
                await Odd(thing)
            except RuntimeError:
                pass
        try:
            await asyncio.current_task()  # type: ignore[misc]
        except RuntimeError:
            pass

    place.run(main())


@operation
def tasks_destroyed_pending(place: Place) -> None:
    async def forever() -> None:
        await place.loop.create_future()

    place.loop.create_task(forever())
    turn(place.loop)


@operation
def eager_tasks(place: Place) -> None:
    if not PY312:
        return

    async def child(turns: int) -> list[int]:
        for _ in range(turns):
            await asyncio.sleep(0)
        return [1]

    async def main() -> None:
        for turns in (0, 1):
            await place.backend.Task(child(turns), loop=place.loop, eager_start=True)
            await asyncio.Task(child(turns), loop=place.loop, eager_start=True)

    place.run(main())


@operation
def task_subclasses(place: Place) -> None:
    task = place.task_kind(asyncio.sleep(0), loop=place.loop)
    task.mine = [task]
    place.run(asyncio.wait_for(task, None))


@operation
def context_variables(place: Place) -> None:
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

    async def child(value: Any) -> None:
        variable.set(value)
        await asyncio.sleep(0)
        assert variable.get() is value

    async def main() -> None:
        await asyncio.gather(*(child([number]) for number in range(3)))

    place.run(main())


@operation
def asyncios_own(place: Place) -> None:
    async def main() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.00001)
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0, [1]))
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0))])
        await asyncio.wait_for(asyncio.sleep(0), 10)
        await asyncio.shield(asyncio.sleep(0))
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        queue: asyncio.Queue[Any] = asyncio.Queue(1)
        task = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        await queue.put([1])
        await task
        lock = asyncio.Lock()
        async with lock:
            waiting = asyncio.ensure_future(lock.acquire())
            await asyncio.sleep(0)
        await waiting
        lock.release()

    place.run(main())


@operation
def task_factory(place: Place) -> None:
    place.loop.set_task_factory(lambda loop, coro, **k: asyncio.Task(coro, loop=loop, **k))
    place.run(asyncio.sleep(0))
    place.loop.set_task_factory(None)


# -- the loop --------------------------------------------------------------------------------------


@operation
def readers(place: Place) -> None:
    place.loop.add_reader(place.left, nothing, [1])
    place.loop.add_writer(place.left, nothing, [2])
    turn(place.loop)
    place.loop.add_reader(place.left, nothing, [3])
    place.loop.remove_reader(place.left)
    place.loop.remove_writer(place.left)
    refused(place.loop.add_reader, -1, nothing)
    refused(place.loop.add_reader, "text", nothing)
    refused(place.loop.add_writer, 10**6, nothing)


@operation
def signals(place: Place) -> None:
    place.loop.add_signal_handler(signal.SIGUSR1, nothing, [1])
    os.kill(os.getpid(), signal.SIGUSR1)
    turn(place.loop, 2)
    place.loop.remove_signal_handler(signal.SIGUSR1)
    refused(place.loop.add_signal_handler, signal.SIGKILL, nothing)


@operation
def debug_mode(place: Place) -> None:
    place.loop.set_debug(True)
    place.loop.slow_callback_duration = 1000
    place.loop.call_soon(nothing, [1])
    place.loop.call_later(0, nothing)
    place.loop.create_future().set_result(1)
    place.run(asyncio.sleep(0))
    refused(place.loop.call_soon, 1)
    place.loop.set_debug(False)


@operation
def exits(place: Place) -> None:
    async def leave() -> None:
        raise SystemExit([1])

    for schedule in (
        lambda: place.loop.call_soon(nothing.__call__, *[1]).cancel(),
        lambda: place.loop.call_soon(_leave),
    ):
        schedule()
        try:
            turn(place.loop)
        except SystemExit:
            pass
    turn(place.loop)
    try:
        place.run(leave())
    except SystemExit:
        pass


def _leave() -> None:
    raise SystemExit([1])


@operation
def stopped_early(place: Place) -> None:
    future = place.loop.create_future()
    place.loop.call_soon(place.loop.stop)
    refused(place.loop.run_until_complete, future)


@operation
def current_and_all_tasks(place: Place) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(asyncio.sleep(0))
        assert len(asyncio.all_tasks()) == 2
        asyncio.current_task()
        await task

    place.run(main())
    asyncio.all_tasks(place.loop)
    asyncio.current_task(place.loop)


@operation
def asynchronous_generators(place: Place) -> None:
    async def generate() -> Any:
        for number in range(3):
            await asyncio.sleep(0)
            yield [number]

    async def main() -> None:
        async for _ in generate():
            break
        assert [number async for number in generate()] == [[0], [1], [2]]
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    place.run(main())


@operation
def concurrent_futures(place: Place) -> None:
    source: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future = asyncio.wrap_future(source, loop=place.loop)
    source.set_result([1])
    place.loop.run_until_complete(future)
    other = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, [1]), place.loop)
    turn(place.loop, 4)
    assert other.result(0) == [1]


@operation
def attributes_of_the_loop(place: Place) -> None:
    for name in dir(place.loop):
        getattr(place.loop, name, None)
    repr(place.loop)
    place.loop.time()


@pytest.mark.parametrize("name", OPERATIONS)
def test_repeated(
    backend: Backend,
    loop: asyncio.AbstractEventLoop,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What these operations report on purpose must not pile up in anybody's list.
    loop.set_exception_handler(nothing)
    place = Place(backend, loop)
    watched = [
        loop,
        type(loop),
        backend.Future,
        backend.Task,
        asyncio.Future,
        asyncio.Task,
        type(loop.call_soon(nothing)),
        type(loop.call_later(0, nothing)),
        nothing,
        place.context,
        asyncio.CancelledError,
        asyncio.InvalidStateError,
        StopIteration,
    ]
    turn(loop, 2)
    try:
        assert leaks(lambda: OPERATIONS[name](place), watched, times=400) == []
    finally:
        place.close()


def test_loops(backend: Backend) -> None:
    """Made, run and closed, with things of every kind on them."""

    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    def once() -> None:
        loop = backend.new_event_loop()
        loop.set_exception_handler(nothing)
        loop.run_until_complete(asyncio.sleep(0))
        loop.call_soon(nothing, loop)
        loop.call_later(1000, nothing, loop)
        loop.call_soon_threadsafe(nothing, loop)
        loop.create_future().add_done_callback(nothing)
        left, right = socket.socketpair()
        loop.add_reader(left, nothing, loop)
        loop.add_writer(right, nothing, loop)
        task = loop.create_task(forever())
        turn(loop)
        task._log_destroy_pending = False
        loop.mine = loop  # type: ignore[attr-defined]
        loop.close()
        left.close()
        right.close()

    assert leaks(once, [backend.loop_class, backend.Task, nothing], times=200) == []


@pytest.mark.backends("weft")
def test_unclosed_loops(backend: Backend) -> None:
    """Left to the collector, in a cycle through a timer: asyncio's own loses its epoll so."""

    def once() -> None:
        loop = backend.new_event_loop()
        loop.call_later(1000, nothing, loop)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        before = len(os.listdir("/proc/self/fd"))
        assert leaks(once, [backend.loop_class, nothing], times=200) == []
        assert len(os.listdir("/proc/self/fd")) == before


def test_runs(backend: Backend) -> None:
    async def main() -> None:
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(3)))
        asyncio.ensure_future(asyncio.sleep(1000))

    assert leaks(lambda: backend.run(main()), [backend.loop_class, backend.Task], times=200) == []


def test_subclassed_loops(backend: Backend) -> None:
    class Mine(backend.loop_class):  # type: ignore[misc, name-defined]
        def time(self) -> float:
            return float(super().time())

    def once() -> None:
        loop = Mine()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    assert leaks(once, [backend.loop_class], times=200) == []


def test_threads(backend: Backend) -> None:
    """What a loop keeps per thread goes with the thread."""
    import threading

    def once() -> None:
        thread = threading.Thread(target=lambda: backend.run(asyncio.sleep(0)))
        thread.start()
        thread.join()

    assert leaks(once, [backend.loop_class, backend.Task], times=200, bytes_each=512) == []
