"""anyio: its task groups, cancel scopes, threads and sockets, and what it reads of tasks."""

from __future__ import annotations

import asyncio
import contextvars
import math
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from backends import Backend
from certificates import NAME, client_context, server_context
from peers import Run
from services import library

anyio = library("anyio")
from anyio import from_thread, to_thread
from anyio.streams.tls import TLSListener

pytestmark = pytest.mark.slow


# -- ways to start ---------------------------------------------------------------------------------


def test_its_own_run_with_this_loop(backend: Backend) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, asyncio.AbstractEventLoop)
        await anyio.sleep(0)
        return type(loop).__module__

    module = anyio.run(
        main, backend="asyncio", backend_options={"loop_factory": backend.new_event_loop}
    )
    assert module.startswith("weft" if backend.is_weft else "asyncio")


def test_it_knows_where_it_is(run: Run) -> None:
    """Also from within plain callbacks, where there is no task."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert anyio.get_current_task().name == asyncio.current_task().get_name()  # type: ignore[union-attr]
        done = loop.create_future()
        loop.call_soon(lambda: done.set_result(asyncio.current_task()))
        assert await done is None

    run(main())


def test_worker_threads_end_with_the_root_task(backend: Backend) -> None:
    """It finds the root task by the callback of run_until_complete, and stops its threads there."""
    threads = set()

    async def work() -> None:
        await to_thread.run_sync(lambda: threads.add(threading.current_thread()))

    async def main() -> None:
        # Not in the root task itself.
        await asyncio.create_task(work())

    before = threading.active_count()
    loop = backend.new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    for thread in threads:
        thread.join(5)
    assert threading.active_count() == before


# -- task groups and scopes ------------------------------------------------------------------------


def test_task_groups(run: Run) -> None:
    async def main() -> None:
        results: list[int] = []

        async def work(number: int) -> None:
            await anyio.sleep(0.001 * (number % 3))
            results.append(number)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(work, number, name=f"worker {number}")
        assert sorted(results) == list(range(50))

        async def serve(*, task_status: Any) -> None:
            await anyio.sleep(0)
            task_status.started("ready")
            await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            assert await group.start(serve) == "ready"
            group.cancel_scope.cancel()

    run(main())


def test_errors_in_task_groups(run: Run) -> None:
    async def main() -> None:
        cleaned: list[int] = []

        async def wait(number: int) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.001)
                    cleaned.append(number)

        async def fail() -> None:
            await anyio.sleep(0.001)
            raise ZeroDivisionError("mine")

        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with anyio.create_task_group() as group:
                for number in range(10):
                    group.start_soon(wait, number)
                group.start_soon(fail)
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
        assert sorted(cleaned) == list(range(10))

    run(main())


def test_cancel_scopes(run: Run) -> None:
    """They look at the task's _must_cancel, _fut_waiter and _callbacks at every step."""

    async def main() -> None:
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await anyio.sleep_forever()
        with anyio.CancelScope() as outer, anyio.CancelScope(shield=True):
            outer.cancel()
            await anyio.sleep(0.001)
        assert not outer.cancelled_caught
        # A scope cancels again and again until the task leaves it.
        attempts = 0
        with anyio.move_on_after(0.001):
            while True:
                try:
                    await anyio.sleep(1)
                except asyncio.CancelledError:
                    attempts += 1
                    if attempts == 5:
                        raise
        assert attempts == 5
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.lowlevel.checkpoint()
            raise AssertionError("not reached")
        # All is back to normal, as asyncio counts it.
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    run(main())


@pytest.mark.parametrize("wait", ["sleep", "event", "future", "thread", "socket", "queue"])
def test_every_wait_can_be_cancelled(run: Run, wait: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        released = threading.Event()
        waits: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "sleep": lambda: anyio.sleep(math.inf),
            "event": lambda: anyio.Event().wait(),
            "future": lambda: asyncio.wait_for(loop.create_future(), None),
            "thread": lambda: to_thread.run_sync(released.wait, abandon_on_cancel=True),
            "socket": connect_and_wait,
            "queue": lambda: asyncio.Queue[None]().get(),
        }
        for _ in range(5):
            with anyio.move_on_after(0.003) as scope:
                await waits[wait]()
            assert scope.cancelled_caught
        released.set()

    async def connect_and_wait() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.receive()

    run(main())


def test_cancelling_from_asyncio(run: Run) -> None:
    """A native cancellation passes through its scopes and groups untouched."""

    async def main() -> None:
        steps: list[str] = []

        async def work() -> None:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep_forever)
                    with anyio.CancelScope():
                        await anyio.sleep_forever()
            except asyncio.CancelledError as error:
                steps.append(str(error))
                raise

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.001)
        task.cancel("for a reason")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            with anyio.move_on_after(0.001):
                await anyio.sleep_forever()
            group.create_task(anyio.sleep(0))

    run(main())


# -- threads ---------------------------------------------------------------------------------------


def test_threads_and_back(run: Run) -> None:
    async def main() -> None:
        name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")
        name.set("outer")

        async def double(number: int) -> int:
            await anyio.sleep(0)
            return 2 * number

        def work(number: int) -> int:
            assert name.get() == "outer"
            assert from_thread.run_sync(threading.get_ident) != threading.get_ident()
            return from_thread.run(double, number)

        results: dict[int, int] = {}

        async def one(number: int) -> None:
            results[number] = await to_thread.run_sync(work, number)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(one, number)
        assert results == {number: 2 * number for number in range(50)}
        with pytest.raises(ZeroDivisionError):
            await to_thread.run_sync(lambda: 1 // 0)

    run(main())


def test_a_portal_from_outside(backend: Backend) -> None:
    options = {"loop_factory": backend.new_event_loop}

    async def add(a: int, b: int) -> int:
        await anyio.sleep(0.001)
        return a + b

    with from_thread.start_blocking_portal("asyncio", options) as portal:
        assert portal.call(add, 1, 2) == 3
        futures = [portal.start_task_soon(add, number, 1) for number in range(20)]
        assert [future.result(10) for future in futures] == list(range(1, 21))
        sleeping = portal.start_task_soon(anyio.sleep_forever)
        assert sleeping.cancel()


# -- sockets, processes, signals -------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
def test_tcp(run: Run, tls: bool) -> None:
    async def main() -> None:
        async def echo(stream: Any) -> None:
            async with stream:
                async for data in stream:
                    await stream.send(data)

        listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        options: dict[str, Any] = {}
        if tls:
            listener = TLSListener(listener, server_context(), standard_compatible=False)
            options = {
                "ssl_context": client_context(),
                "tls_hostname": NAME,
                "tls_standard_compatible": False,
            }

        async def client(number: int) -> None:
            async with await anyio.connect_tcp("127.0.0.1", port, **options) as stream:
                for size in (1, 1000, 300_000):
                    data = bytes([number]) * size
                    async with anyio.create_task_group() as sending:
                        sending.start_soon(stream.send, data)
                        received = b""
                        while len(received) < size:
                            received += await stream.receive()
                    assert received == data
                if tls:
                    attribute = anyio.streams.tls.TLSAttribute.ssl_object
                    assert isinstance(stream.extra(attribute), ssl.SSLObject)

        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            async with anyio.create_task_group() as clients:
                for number in range(20):
                    clients.start_soon(client, number)
            group.cancel_scope.cancel()
        await listener.aclose()

    run(main())


def test_unix_and_udp(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        listener = await anyio.create_unix_listener(path)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, lambda stream: stream.aclose())
            async with await anyio.connect_unix(path) as stream:
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
            group.cancel_scope.cancel()
        async with await anyio.create_udp_socket(local_host="127.0.0.1") as one:
            port = one.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.create_connected_udp_socket("127.0.0.1", port) as two:
                await two.send(b"hello")
                data, address = await one.receive()
                assert data == b"hello"
                await one.sendto(b"answer", *address)
                assert await two.receive() == b"answer"

    run(main())


def test_descriptors_can_be_waited_for(run: Run) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            await anyio.wait_writable(ours)
            with anyio.move_on_after(0.01) as scope:
                await anyio.wait_readable(ours)
            assert scope.cancelled_caught
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.wait_readable, ours)
                await anyio.sleep(0.001)
                theirs.send(b"x")

    run(main())


def test_processes_and_signals(run: Run) -> None:
    async def main() -> None:
        result = await anyio.run_process(["tr", "a-z", "A-Z"], input=b"quiet")
        assert result.stdout == b"QUIET"
        with anyio.open_signal_receiver(signal.SIGUSR1) as received:
            signal.raise_signal(signal.SIGUSR1)
            async for number in received:
                assert number == signal.SIGUSR1
                break

    run(main())


def test_memory_streams_and_locks(run: Run) -> None:
    async def main() -> None:
        send, receive = anyio.create_memory_object_stream[int](3)
        received: list[int] = []
        limiter = anyio.CapacityLimiter(2)
        lock = anyio.Lock()

        async def produce() -> None:
            async with send:
                for number in range(100):
                    async with limiter:
                        await send.send(number)

        async def consume() -> None:
            async with receive.clone() as stream:
                async for number in stream:
                    async with lock:
                        received.append(number)

        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            for _ in range(3):
                group.start_soon(consume)
        assert sorted(received) == list(range(100))
        receive.close()

    run(main())
