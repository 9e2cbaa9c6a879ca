"""The sock_* methods as objects, their arguments, and sockets that are not plain ones."""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import inspect
import os
import socket
import weakref
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from backends import PY314, Backend
from peers import Run, has_arrived, stream_pair

METHODS = [name for name in vars(asyncio.AbstractEventLoop) if name.startswith("sock_")]


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = stream_pair()
    with ours, theirs:
        yield ours, theirs


# -- what they look like ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_they_show_the_functions_that_they_stand_for(
    loop: asyncio.AbstractEventLoop, name: str
) -> None:
    original = getattr(asyncio.SelectorEventLoop, name)
    for method in (getattr(loop, name), getattr(type(loop), name)):
        assert inspect.iscoroutinefunction(method)
        if not PY314:  # deprecated there
            assert asyncio.iscoroutinefunction(method)
        assert method.__name__ == name
        assert method.__qualname__ == original.__qualname__
        assert method.__doc__ == original.__doc__
        assert name in repr(method)
    assert inspect.signature(getattr(type(loop), name)) == inspect.signature(original)
    parameters = list(inspect.signature(original).parameters.values())[1:]
    assert list(inspect.signature(getattr(loop, name)).parameters.values()) == parameters
    assert getattr(loop, name) == getattr(loop, name)
    assert getattr(loop, name).__self__ is loop
    assert weakref.ref(getattr(type(loop), name))() is getattr(type(loop), name)


def test_a_mock_of_a_loop_has_coroutine_functions(loop: asyncio.AbstractEventLoop) -> None:
    double = mock.create_autospec(type(loop), instance=True)
    assert isinstance(double.sock_recv, mock.AsyncMock)


def test_calls_that_do_not_fit(loop: asyncio.AbstractEventLoop) -> None:
    calls: Any = loop
    kind: Any = type(loop)
    for call in (
        lambda: calls.sock_recv(),
        lambda: calls.sock_recv(None),
        lambda: calls.sock_recv(None, 1, 2),
        lambda: calls.sock_recv(None, 1, n=1),
        lambda: calls.sock_recv(None, m=1),
        lambda: calls.sock_sendto(None, b""),
        lambda: calls.sock_recvfrom_into(None, b"", 1, 2),
        lambda: kind.sock_recv(),
    ):
        with pytest.raises(TypeError):
            call()


def test_arguments_by_name(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with pair() as (sock, peer):
            await loop.sock_sendall(data=b"by name", sock=sock)
            assert await loop.sock_recv(n=2, sock=peer) == b"by"
            assert await type(loop).sock_recv(loop, peer, n=10) == b" name"

    run(main())


def test_a_subclass_may_override_and_call_on(backend: Backend) -> None:
    class Counting(backend.loop_class):  # type: ignore[misc, name-defined]
        received = 0

        async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
            data: bytes = await super().sock_recv(sock, n)
            self.received += len(data)
            return data

    loop = Counting()
    with contextlib.closing(loop), pair() as (sock, peer):
        loop.call_soon(peer.send, b"counted")
        assert loop.run_until_complete(loop.sock_recv(sock, 10)) == b"counted"
        assert loop.received == 7


def test_nothing_happens_before_the_first_step(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer):
            peer.send(b"data")
            loop.sock_recv(sock, 10).close()
            receiving = loop.sock_recv(sock, 10)
            sending = loop.sock_sendall(sock, b"sent")
            assert not has_arrived(peer, 0)
            assert sock.recv(10) == b"data"
            await sending
            assert peer.recv(10) == b"sent"
            peer.send(b"more")
            assert await receiving == b"more"

    run(main())


def test_one_that_nobody_awaits_is_reported(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, _):
            with pytest.warns(RuntimeWarning, match="sock_recv' was never awaited"):
                loop.sock_recv(sock, 10)
            gc.collect()

    run(main())


# -- sockets that are not plain --------------------------------------------------------------------


def test_a_subclass_of_socket_is_asked(run: Run) -> None:
    class Tracing(socket.socket):
        def recv(self, *args: Any) -> bytes:
            return b"traced " + super().recv(*args)

        def send(self, data: Any, *args: Any) -> int:
            return super().send(bytes(data).upper(), *args)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer), Tracing(fileno=sock.detach()) as traced:
            traced.setblocking(False)
            loop.call_soon(peer.send, b"data")
            assert await loop.sock_recv(traced, 10) == b"traced data"
            await loop.sock_sendall(traced, b"quiet")
            assert await loop.sock_recv(peer, 10) == b"QUIET"

    run(main())


def test_methods_that_are_patched_are_called(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer):
            peer.send(b"before")
            assert await loop.sock_recv(sock, 10) == b"before"
            with monkeypatch.context() as patch:
                patch.setattr(socket.socket, "recv", lambda sock, n: b"patched")
                assert await loop.sock_recv(sock, 10) == b"patched"
            peer.send(b"after")
            assert await loop.sock_recv(sock, 10) == b"after"

    run(main())


@pytest.mark.outside_debug
def test_a_socket_with_a_timeout_keeps_it(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer):
            sock.settimeout(0.01)
            with pytest.raises(TimeoutError):
                await loop.sock_recv(sock, 10)
            sock.settimeout(None)
            peer.send(b"data")
            assert await loop.sock_recv(sock, 10) == b"data"

    run(main())


@pytest.mark.parametrize("data", ["memoryview of integers", "array", "strided"])
def test_sendall_of_other_buffers(run: Run, data: str) -> None:
    numbers = array.array("h", [1, 2, 3])
    buffer: Any = {
        "memoryview of integers": memoryview(numbers),
        "array": numbers,
        "strided": memoryview(b"123456")[::2],
    }[data]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer):
            if data == "strided":
                with pytest.raises(BufferError):
                    await loop.sock_sendall(sock, buffer)
                return
            # What asyncio does with these is its affair. It sends them, to begin with.
            sending = loop.create_task(loop.sock_sendall(sock, buffer))
            assert await loop.sock_recv(peer, 6) == numbers.tobytes()
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    run(main())


@pytest.mark.parametrize("size", [1, 1000, 65536, 300_000, 1 << 20])
def test_receiving_more_or_less_than_there_is(run: Run, size: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        data = os.urandom(100_000)
        with pair() as (sock, peer):
            sending = loop.create_task(loop.sock_sendall(peer, data))
            received = []
            while sum(map(len, received)) < min(len(data), size * 20):
                received.append(await loop.sock_recv(sock, size))
            assert b"".join(received) == data[: len(b"".join(received))]
            assert all(0 < len(piece) <= size for piece in received)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    run(main())
