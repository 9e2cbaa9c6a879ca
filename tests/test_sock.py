"""The sock_* methods: a loop working on sockets that the program owns."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import random
import socket
import ssl
import weakref
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import PY314, Backend
from peers import (
    FILLS_UP,
    KINDS,
    Run,
    closed_port,
    connected_client,
    has_ipv6,
    listener,
    pass_turns,
    read_all,
    read_exactly,
    reset,
    stream_pair,
    unanswered_address,
)
from turns import collect

Pair = tuple[socket.socket, socket.socket]
each_kind = pytest.mark.parametrize("kind", KINDS)


@contextlib.contextmanager
def connected(kind: str = "tcp", *, small: bool = False) -> Iterator[Pair]:
    ours, theirs = stream_pair(kind, small=small)
    with ours, theirs:
        yield ours, theirs


@contextlib.contextmanager
def datagram_pair() -> Iterator[Pair]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        for sock in (ours, theirs):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        yield ours, theirs


def is_watched(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bool:
    """Whether the loop still has a callback for the socket; takes it away if so."""
    return any([loop.remove_reader(sock), loop.remove_writer(sock)])


# -- receiving -------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("when", ["there", "later"])
def test_recv(run: Run, kind: str, when: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected(kind) as (sock, peer):
            if when == "later":
                loop.call_soon(peer.sendall, b"some bytes")
            else:
                peer.sendall(b"some bytes")
            assert await loop.sock_recv(sock, 4) == b"some"
            assert await loop.sock_recv(sock, 100) == b" bytes"
            loop.call_soon(peer.shutdown, socket.SHUT_WR)
            assert await loop.sock_recv(sock, 100) == b""
            assert await loop.sock_recv(sock, 100) == b""
            assert not is_watched(loop, sock)

    run(main())


@each_kind
@pytest.mark.parametrize("when", ["there", "later"])
def test_recv_into(run: Run, kind: str, when: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected(kind) as (sock, peer):
            if when == "later":
                loop.call_soon(peer.sendall, b"some bytes")
            else:
                peer.sendall(b"some bytes")
            buffer = bytearray(8)
            assert await loop.sock_recv_into(sock, memoryview(buffer)[2:6]) == 4
            assert buffer == b"\0\0some\0\0"
            assert await loop.sock_recv_into(sock, buffer) == 6
            assert buffer == b" bytes\0\0"
            buffer.clear()  # Nobody holds a view of it.
            peer.shutdown(socket.SHUT_WR)
            assert await loop.sock_recv_into(sock, bytearray(5)) == 0
            assert not is_watched(loop, sock)

    run(main())


@pytest.mark.parametrize("when", ["there", "later"])
def test_recvfrom_and_sendto(run: Run, when: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with datagram_pair() as (sock, peer):
            here, there = sock.getsockname(), peer.getsockname()
            if when == "later":
                loop.call_soon(peer.sendto, b"a datagram", here)
            else:
                peer.sendto(b"a datagram", here)
            assert await loop.sock_recvfrom(sock, 100) == (b"a datagram", there)
            peer.sendto(b"cut short", here)
            assert await loop.sock_recvfrom(sock, 3) == (b"cut", there)
            assert await loop.sock_sendto(sock, b"an answer", there) == 9
            assert await loop.sock_recvfrom(peer, 100) == (b"an answer", here)
            assert await loop.sock_sendto(sock, b"", there) == 0
            assert await loop.sock_recvfrom(peer, 100) == (b"", here)
            assert not is_watched(loop, sock)

    run(main())


@pytest.mark.parametrize("when", ["there", "later"])
def test_recvfrom_into(run: Run, when: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with datagram_pair() as (sock, peer):
            here, there = sock.getsockname(), peer.getsockname()
            if when == "later":
                loop.call_soon(peer.sendto, b"a datagram", here)
            else:
                peer.sendto(b"a datagram", here)
            buffer = bytearray(20)
            assert await loop.sock_recvfrom_into(sock, buffer) == (10, there)
            assert bytes(buffer[:10]) == b"a datagram"
            peer.sendto(b"0123456789", here)
            assert await loop.sock_recvfrom_into(sock, buffer, 4) == (4, there)
            peer.sendto(b"abcdef", here)
            assert await loop.sock_recvfrom_into(sock, buffer, nbytes=2) == (2, there)
            assert bytes(buffer[:6]) == b"ab23ta"

    run(main())


# -- sending ---------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("type_", [bytes, bytearray, memoryview])
def test_sendall(run: Run, kind: str, type_: Callable[[bytes], Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected(kind, small=True) as (sock, peer):
            assert await loop.sock_sendall(sock, type_(b"")) is None
            assert await loop.sock_sendall(sock, type_(b"short")) is None
            assert await read_exactly(peer, 5) == b"short"
            data = random.Random(1).randbytes(FILLS_UP)
            reading = loop.create_task(read_exactly(peer, FILLS_UP))
            assert await loop.sock_sendall(sock, type_(data)) is None
            assert await reading == data
            assert not is_watched(loop, sock)

    run(main())


@each_kind
@pytest.mark.slow
def test_sendall_of_much(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        data = random.Random(2).randbytes(1 << 20) * 64
        with connected(kind) as (sock, peer):
            sending = loop.create_task(loop.sock_sendall(sock, data))
            digest = hashlib.blake2b()
            remaining = len(data)
            buffer = bytearray(1 << 18)
            while remaining:
                size = await loop.sock_recv_into(peer, buffer)
                digest.update(memoryview(buffer)[:size])
                remaining -= size
            await sending
            assert digest.digest() == hashlib.blake2b(data).digest()

    run(main())


@each_kind
def test_receiving_and_sending_at_once_on_one_socket(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        out, back = b"out" * (FILLS_UP // 3), b"back" * (FILLS_UP // 4)
        with connected(kind, small=True) as (sock, peer):
            results = await asyncio.gather(
                loop.sock_sendall(sock, out),
                read_exactly(sock, len(back)),
                loop.sock_sendall(peer, back),
                read_exactly(peer, len(out)),
            )
            assert results == [None, back, None, out]

    run(main())


def test_sendfile(run: Run, tmp_path: Path) -> None:
    """The system call for a file, a copy for what only looks like one."""
    content = random.Random(3).randbytes(FILLS_UP)
    path = tmp_path / "file"
    path.write_bytes(content)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected("tcp", small=True) as (sock, peer):
            for file in (path.open("rb"), io.BytesIO(content)):
                with file:
                    reading = loop.create_task(read_exactly(peer, len(content) - 10))
                    assert await loop.sock_sendfile(sock, file, 10) == len(content) - 10
                    assert await reading == content[10:]
                    assert file.tell() == len(content)

    run(main())


# -- connecting and accepting ----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_connect_and_accept(run: Run, host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 here")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listening = listener("127.0.0.1" if host == "localhost" else host)
        listening.setblocking(False)
        address = (host, listening.getsockname()[1])
        with listening, socket.socket(listening.family) as sock:
            sock.setblocking(False)
            accepting = loop.create_task(loop.sock_accept(listening))
            await pass_turns()
            assert await loop.sock_connect(sock, address) is None
            accepted, peername = await accepting
            with accepted:
                assert accepted.gettimeout() == 0
                assert peername == sock.getsockname()
                await loop.sock_sendall(sock, b"hello")
                assert await loop.sock_recv(accepted, 10) == b"hello"
            assert not is_watched(loop, sock)
            assert not is_watched(loop, listening)

    run(main())


def test_connect_and_accept_on_a_unix_socket(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        with (
            socket.socket(socket.AF_UNIX) as listening,
            socket.socket(socket.AF_UNIX) as sock,
        ):
            listening.bind(path)
            listening.listen()
            listening.setblocking(False)
            sock.setblocking(False)
            await loop.sock_connect(sock, path)
            accepted, _ = await loop.sock_accept(listening)
            with accepted:
                accepted.sendall(b"hello")
                assert await loop.sock_recv(sock, 10) == b"hello"

    run(main())


def test_accept_takes_every_connection_once(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            listening = stack.enter_context(listener())
            listening.setblocking(False)
            clients = [
                stack.enter_context(connected_client(listening.getsockname())) for _ in range(20)
            ]
            names = set()
            for _ in clients:
                accepted, name = await loop.sock_accept(listening)
                stack.enter_context(accepted)
                names.add(name)
            assert names == {client.getsockname() for client in clients}

    run(main())


# -- errors ----------------------------------------------------------------------------------------


def test_connect_refused(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(ConnectionRefusedError) as caught:
                await loop.sock_connect(sock, ("127.0.0.1", closed_port()))
            assert caught.value.errno == errno.ECONNREFUSED
            assert not is_watched(loop, sock)

    run(main())


def test_connect_to_a_unix_socket_that_is_not_there(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            with pytest.raises(FileNotFoundError):
                await loop.sock_connect(sock, str(tmp_path / "nothing"))

    run(main())


def test_a_name_that_does_not_resolve(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(socket.gaierror, match="no such name"):
                await loop.sock_connect(sock, ("nowhere.invalid", 80))

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    run(main())


@each_kind
def test_a_reset_while_waiting(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected(kind) as (sock, peer):
            sock.sendall(b"unread")
            receiving = loop.create_task(loop.sock_recv(sock, 10))
            await pass_turns()
            reset(peer)
            with pytest.raises(ConnectionResetError):
                await receiving
            with pytest.raises(BrokenPipeError):
                await loop.sock_sendall(sock, b"x" * 1000)
            assert not is_watched(loop, sock)

    run(main())


@each_kind
def test_a_peer_that_goes_while_we_send(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected(kind, small=True) as (sock, peer):
            sending = loop.create_task(loop.sock_sendall(sock, b"x" * FILLS_UP))
            await pass_turns()
            assert not sending.done()
            reset(peer)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await sending
            assert not is_watched(loop, sock)

    run(main())


Call = Callable[[asyncio.AbstractEventLoop, socket.socket], Coroutine[Any, Any, Any]]
CALLS: dict[str, Call] = {
    "recv": lambda loop, sock: loop.sock_recv(sock, 10),
    "recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(10)),
    "recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 10),
    "recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(10)),
    "sendall": lambda loop, sock: loop.sock_sendall(sock, b"x"),
    "sendto": lambda loop, sock: loop.sock_sendto(sock, b"x", ("127.0.0.1", 9)),
    "connect": lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", 9)),
    "accept": lambda loop, sock: loop.sock_accept(sock),
}
each_call = pytest.mark.parametrize("name", CALLS)


@each_call
def test_debug_mode_refuses_a_blocking_socket(backend: Backend, name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            for timeout in (None, 5.0):
                sock.settimeout(timeout)
                with pytest.raises(ValueError, match="the socket must be non-blocking"):
                    await CALLS[name](loop, sock)

    backend.run(main(), debug=True)


@each_call
def test_tls_sockets_are_refused(run: Run, name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with context.wrap_socket(socket.socket()) as sock:
            sock.setblocking(False)
            with pytest.raises(TypeError, match="SSLSocket"):
                await CALLS[name](loop, sock)

    run(main())


@each_call
def test_a_closed_socket(run: Run, name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        sock.close()
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            await CALLS[name](loop, sock)
        assert caught.value.errno == errno.EBADF

    run(main())


@each_call
def test_they_are_coroutines(run: Run, name: str) -> None:
    """Programs give them to create_task, gather and wait_for."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            coroutine = CALLS[name](loop, sock)
            assert asyncio.iscoroutine(coroutine)
            coroutine.close()

    run(main())


@pytest.mark.parametrize("size", ["10", None, 1.5], ids=repr)
def test_a_size_that_is_none(run: Run, size: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected() as (sock, _):
            with pytest.raises(TypeError):
                await loop.sock_recv(sock, size)
            with pytest.raises(ValueError, match="negative"):
                await loop.sock_recv(sock, -1)
            with pytest.raises(TypeError):
                await loop.sock_sendall(sock, "text")  # type: ignore[arg-type]
            assert not is_watched(loop, sock)

    run(main())


# -- cancellation ----------------------------------------------------------------------------------


@contextlib.contextmanager
def waiting_call(name: str) -> Iterator[tuple[socket.socket, Call]]:
    """A socket on which the call of that name has to wait, and the call."""
    call = CALLS[name]
    with contextlib.ExitStack() as stack:
        if name == "accept":
            sock = stack.enter_context(listener())
            sock.setblocking(False)
        elif name == "connect":
            address = stack.enter_context(unanswered_address())
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)

            def call(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> Any:
                return loop.sock_connect(sock, address)

        else:
            sock, _ = stack.enter_context(connected(small=True))
            if name == "sendall":
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sock.send(b"x" * 1000)
        yield sock, call


# sendto waits on no socket that the loopback has: a full datagram socket drops what comes.
@pytest.mark.parametrize("name", [name for name in CALLS if name != "sendto"])
@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_a_cancelled_call_leaves_nothing_registered(run: Run, name: str, turns: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with waiting_call(name) as (sock, call):
            task = loop.create_task(call(loop, sock))
            await pass_turns(turns)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await pass_turns()
            assert not is_watched(loop, sock)

    run(main())


def test_sendto_waits_for_room_and_can_be_cancelled(run: Run, tmp_path: Path) -> None:
    """Unix datagram sockets hold the sender back."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer,
        ):
            peer.bind(path)
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.sendto(b"fill", path)
            sending = loop.create_task(loop.sock_sendto(sock, b"one more", path))
            await pass_turns()
            assert not sending.done()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert not is_watched(loop, sock)
            sending = loop.create_task(loop.sock_sendto(sock, b"the last", path))
            await pass_turns()
            peer.setblocking(False)
            received = []
            while not sending.done() or received[-1] != b"the last":
                received.append(await loop.sock_recv(peer, 100))
            assert await sending == 8
            assert b"one more" not in received

    run(main())


def cancel_now_or_soon(task: asyncio.Task[Any], same_turn: bool) -> None:
    """Cancel before the loop next looks for events, or in the turn that sees them but ahead."""
    if same_turn:
        asyncio.get_running_loop().call_soon(task.cancel)
    else:
        task.cancel()


@each_kind
def test_a_cancelled_recv_takes_no_data_with_it(run: Run, kind: str) -> None:
    """Cancelled before the data arrives, or in the turn in which it does but ahead of it.

    Once the data has been read the cancellation comes too late, and takes it along: so it is with
    asyncio, whose task throws the result of a finished future away.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected(kind) as (sock, peer):
            for same_turn in (False, True):
                receiving = loop.create_task(loop.sock_recv(sock, 100))
                await pass_turns()
                peer.sendall(b"precious")
                cancel_now_or_soon(receiving, same_turn)
                try:
                    received = await receiving
                except asyncio.CancelledError:
                    received = await loop.sock_recv(sock, 100)
                assert received == b"precious"
                assert not is_watched(loop, sock)

    run(main())


@pytest.mark.parametrize("same_turn", [False, True])
def test_a_cancelled_accept_loses_no_connection(
    run: Run, backend: Backend, same_turn: bool
) -> None:
    if same_turn and not backend.is_weft and not PY314:
        pytest.skip("asyncio accepts into a future that is cancelled already")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            listening.setblocking(False)
            accepting = loop.create_task(loop.sock_accept(listening))
            await pass_turns()
            with connected_client(listening.getsockname()) as client:
                cancel_now_or_soon(accepting, same_turn)
                try:
                    accepted, _ = await accepting
                except asyncio.CancelledError:
                    accepted, _ = await loop.sock_accept(listening)
                with accepted:
                    assert accepted.getpeername() == client.getsockname()

    run(main())


@each_kind
def test_a_cancelled_sendall_can_be_followed_by_another(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected(kind, small=True) as (sock, peer):
            sending = loop.create_task(loop.sock_sendall(sock, b"a" * FILLS_UP))
            await pass_turns()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            reading = loop.create_task(read_all(peer))
            await loop.sock_sendall(sock, b"b" * 10_000)
            sock.close()
            received = await reading
            assert received == received.rstrip(b"b") + b"b" * 10_000
            assert set(received.rstrip(b"b")) == {ord("a")}

    run(main())


def test_a_connect_that_times_out(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with unanswered_address() as address, socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.sock_connect(sock, address), 0.01)
            assert not is_watched(loop, sock)

    run(main())


@pytest.mark.parametrize("name", [name for name in CALLS if name != "sendto"])
def test_a_loop_closed_with_a_call_waiting_is_free_to_go(
    backend: Backend, name: str, reports: list[dict[str, Any]]
) -> None:
    def begin(call: Call, sock: socket.socket) -> list[weakref.ref[Any]]:
        loop = backend.new_event_loop()
        task = loop.create_task(call(loop, sock))
        loop.run_until_complete(pass_turns())
        assert not task.done()
        loop.close()
        return [weakref.ref(task), weakref.ref(loop)]

    with waiting_call(name) as (sock, call):
        references = begin(call, sock)
        collect(reports)
        assert [reference() for reference in references] == [None, None]
    assert [report["message"] for report in reports] == ["Task was destroyed but it is pending!"]


# -- beside transports -----------------------------------------------------------------------------


@each_kind
def test_the_descriptor_of_a_transport_is_taken(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)
        with theirs:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.sock_recv(ours, 1)
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.sock_recv_into(ours, bytearray(1))
            transport.close()
            await pass_turns()

    run(main())
