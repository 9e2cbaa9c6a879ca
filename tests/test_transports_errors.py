"""Protocols whose callbacks raise, or answer nonsense: who hears of it, and what becomes of the
connection."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any

import pytest
from peers import FILLS_UP, KINDS, Run, pass_turns, read_all, read_exactly, stream_pair, wired
from recorders import BufferedRecorder, Recorder

Stream = type[Recorder | BufferedRecorder]
Reports = list[dict[str, Any]]

pytestmark = pytest.mark.parametrize("kind", KINDS)


def raising(error: BaseException) -> Any:
    def callback(*_: Any) -> None:
        raise error

    return callback


FATAL = [
    (Recorder, "data_received"),
    (Recorder, "eof_received"),
    (BufferedRecorder, "get_buffer"),
    (BufferedRecorder, "buffer_updated"),
    (BufferedRecorder, "eof_received"),
]
each_fatal_callback = pytest.mark.parametrize(
    ("stream", "name"), FATAL, ids=[f"{stream.__name__}-{name}" for stream, name in FATAL]
)


async def provoke(peer: socket.socket, name: str) -> None:
    """Make the transport call the callback of that name."""
    if name == "eof_received":
        peer.shutdown(socket.SHUT_WR)
    else:
        await asyncio.get_running_loop().sock_sendall(peer, b"data")


@each_fatal_callback
@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError, BaseException])
def test_an_exception_ends_the_connection_and_is_reported(
    run: Run,
    kind: str,
    stream: Stream,
    name: str,
    error: type[BaseException],
    reports: Reports,
) -> None:
    async def main() -> None:
        mistake = error("mine")
        protocol = stream(**{name: raising(mistake)})
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            await provoke(peer, name)
            assert await protocol.lost() is mistake
            assert transport.is_closing()
            assert reports == [
                {
                    "message": f"Fatal error: protocol.{name}() call failed.",
                    "exception": mistake,
                    "transport": transport,
                    "protocol": protocol,
                }
            ]
            assert protocol.calls.count(name) == 1
            # A close with data unread resets the connection.
            with contextlib.suppress(ConnectionResetError):
                assert len(await read_all(peer)) < FILLS_UP, "what was pending is discarded"

    run(main())


@each_fatal_callback
def test_an_oserror_ends_the_connection_in_silence(
    run: Run, kind: str, stream: Stream, name: str, reports: Reports
) -> None:
    """asyncio takes an OSError for the connection's own end, wherever it comes from."""

    async def main() -> None:
        mistake = OSError(errno.EIO, "disk on fire")
        protocol = stream(**{name: raising(mistake)})
        async with wired(protocol, kind) as (_, peer):
            await provoke(peer, name)
            assert await protocol.lost() is mistake
            assert not reports

    run(main())


@each_fatal_callback
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exits_leave_the_loop(
    loop: asyncio.AbstractEventLoop,
    kind: str,
    stream: Stream,
    name: str,
    error: type[BaseException],
) -> None:
    ours, theirs = stream_pair(kind)
    with theirs:
        protocol = stream(**{name: raising(error("leaving"))})
        transport, _ = loop.run_until_complete(loop.create_connection(lambda: protocol, sock=ours))
        if name == "eof_received":
            theirs.shutdown(socket.SHUT_WR)
        else:
            theirs.sendall(b"data")
        with pytest.raises(error, match="leaving"):
            loop.run_forever()
        transport.abort()
        loop.run_until_complete(protocol.lost())
        assert protocol.calls.count(name) == 1


def test_connection_made_that_raises(run: Run, kind: str, reports: Reports) -> None:
    """It is reported like any callback of the loop, and the connection goes on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        mistake = ZeroDivisionError("mine")
        protocol = Recorder(connection_made=raising(mistake))
        async with wired(protocol, kind) as (transport, peer):
            assert [report["exception"] for report in reports] == [mistake]
            assert "connection_made" in reports[0]["message"]
            await loop.sock_sendall(peer, b"go on")
            assert await protocol.received(5) == b"go on"
            transport.write(b"so be it")
            assert await read_exactly(peer, 8) == b"so be it"

    run(main())


@pytest.mark.parametrize("how", ["close", "abort", "peer"])
def test_connection_lost_that_raises(run: Run, kind: str, how: str, reports: Reports) -> None:
    async def main() -> None:
        mistake = ZeroDivisionError("mine")
        protocol = Recorder(connection_lost=raising(mistake))
        async with wired(protocol, kind) as (transport, peer):
            if how == "peer":
                peer.shutdown(socket.SHUT_WR)
            else:
                getattr(transport, how)()
            assert await protocol.lost() is None
            await pass_turns()
            assert [report["exception"] for report in reports] == [mistake]
            assert transport.get_extra_info("socket").fileno() == -1, "the descriptor is closed"
            assert protocol.calls.count("connection_lost") == 1

    run(main())


def test_connection_lost_that_raises_after_a_flush(run: Run, kind: str, reports: Reports) -> None:
    async def main() -> None:
        mistake = ZeroDivisionError("mine")
        protocol = Recorder(connection_lost=raising(mistake))
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            transport.close()
            assert await read_all(peer) == b"x" * FILLS_UP
            assert await protocol.lost() is None
            await pass_turns()
            assert [report["exception"] for report in reports] == [mistake]
            assert transport.get_extra_info("socket").fileno() == -1

    run(main())


# -- buffers that are none -------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [bytearray(), memoryview(bytearray())], ids=repr)
def test_an_empty_buffer(run: Run, kind: str, empty: Any, reports: Reports) -> None:
    async def main() -> None:
        protocol = BufferedRecorder(get_buffer=lambda _: empty)
        async with wired(protocol, kind) as (_, peer):
            await provoke(peer, "get_buffer")
            exc = await protocol.lost()
            assert isinstance(exc, RuntimeError)
            assert str(exc) == "get_buffer() returned an empty buffer"
            assert [report["exception"] for report in reports] == [exc]
            assert reports[0]["message"] == "Fatal error: protocol.get_buffer() call failed."

    run(main())


@pytest.mark.parametrize("wrong", [5, "text", object(), b"constant", [1, 2]], ids=repr)
def test_something_that_cannot_be_read_into(
    run: Run, kind: str, wrong: Any, reports: Reports
) -> None:
    async def main() -> None:
        protocol = BufferedRecorder(get_buffer=lambda _: wrong)
        async with wired(protocol, kind) as (_, peer):
            await provoke(peer, "get_buffer")
            exc = await protocol.lost()
            assert isinstance(exc, (TypeError, BufferError))
            assert [report["exception"] for report in reports] == [exc]
            assert protocol.calls.count("buffer_updated") == 0

    run(main())


def test_a_protocol_without_the_callback(run: Run, kind: str, reports: Reports) -> None:
    class Half:
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    async def main() -> None:
        nonlocal lost
        loop = asyncio.get_running_loop()
        lost = loop.create_future()
        ours, theirs = stream_pair(kind)
        with theirs:
            await loop.create_connection(Half, sock=ours)  # type: ignore[arg-type, type-var]
            await loop.sock_sendall(theirs, b"x")
            assert isinstance(await lost, AttributeError)
            assert len(reports) == 1

    lost: asyncio.Future[Exception | None]
    run(main())


def test_a_mistake_in_one_connection_leaves_the_others_alone(
    run: Run, kind: str, reports: Reports
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        good = Recorder()
        bad = Recorder(data_received=raising(ZeroDivisionError("mine")))
        async with (
            wired(good, kind) as (_, good_peer),
            wired(bad, kind) as (_, bad_peer),
        ):
            await loop.sock_sendall(bad_peer, b"x")
            await loop.sock_sendall(good_peer, b"fine")
            assert isinstance(await bad.lost(), ZeroDivisionError)
            assert await good.received(4) == b"fine"
            await loop.sock_sendall(good_peer, b" still")
            assert await good.received(10) == b"fine still"
            assert len(reports) == 1

    run(main())
