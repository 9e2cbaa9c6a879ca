"""Several writes of one turn: however they are joined, a program finds what it finds on asyncio.

A transport whose turns have several writes is the one that Weft lets collect them, so every test
runs on a new connection and on one with such a past.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from peers import FILLS_UP, KINDS, Run, has_arrived, pass_turns, read_all, read_exactly, wired
from recorders import Recorder

pytestmark = [
    pytest.mark.parametrize("kind", KINDS),
    pytest.mark.parametrize("past", ["new", "chatty"]),
]


async def live(transport: asyncio.Transport, peer: socket.socket, past: str) -> None:
    """Give the connection the past that the test asks for."""
    if past == "chatty":
        for _ in range(3):
            transport.write(b"past")
            transport.write(b" ")
            await pass_turns(3)
        assert await read_exactly(peer, 15) == b"past past past "


def write_three(transport: asyncio.Transport) -> None:
    for data in (b"one ", bytearray(b"two "), memoryview(b"three")):
        transport.write(data)


def test_writes_of_one_turn_arrive_in_order(run: Run, kind: str, past: str) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            await live(transport, peer, past)
            write_three(transport)
            transport.writelines([b" four", bytearray(b" five")])
            transport.write(b"")
            transport.write(b" six")
            assert await read_exactly(peer, 27) == b"one two three four five six"

    run(main())


@pytest.mark.outside_debug
@pytest.mark.backends("weft")  # asyncio sends each by itself.
def test_writes_of_one_turn_are_sent_together(run: Run, kind: str, past: str) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            await live(transport, peer, past)
            write_three(transport)
            if past == "new":
                assert has_arrived(peer)
                assert peer.recv(100) == b"one "
            else:
                with pytest.raises(BlockingIOError):
                    peer.recv(100)
            await pass_turns(2)
            rest = b"two three" if past == "new" else b"one two three"
            assert await read_exactly(peer, len(rest)) == rest

    run(main())


def test_the_first_of_many_turns_is_sent_at_once(run: Run, kind: str, past: str) -> None:
    """A transport that goes back to single writes sends them at once again."""

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            await live(transport, peer, past)
            transport.write(b"x")
            await pass_turns(3)
            assert await read_exactly(peer, 1) == b"x"
            for _ in range(40):
                transport.write(b"y")
                assert await read_exactly(peer, 1) == b"y"

    run(main())


def test_the_buffer_is_empty_where_the_socket_takes_all(run: Run, kind: str, past: str) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            await live(transport, peer, past)
            write_three(transport)
            assert transport.get_write_buffer_size() == 0
            assert await read_exactly(peer, 13) == b"one two three"

    run(main())


@pytest.mark.parametrize("high", [None, 0, 4])
def test_no_pause_where_the_socket_takes_all(
    run: Run, kind: str, past: str, high: int | None
) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with wired(recorder, kind) as (transport, peer):
            await live(transport, peer, past)
            transport.set_write_buffer_limits(high)
            write_three(transport)
            transport.set_write_buffer_limits(high)
            await pass_turns(3)
            assert await read_exactly(peer, 13) == b"one two three"
            assert "pause_writing" not in recorder.calls

    run(main())


def test_pause_and_resume_where_it_does_not(run: Run, kind: str, past: str) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with wired(recorder, kind, small=True) as (transport, peer):
            await live(transport, peer, past)
            write_three(transport)
            transport.write(bytearray(FILLS_UP))
            transport.write(b"end")
            assert recorder.calls.count("pause_writing") == 1
            size = 13 + FILLS_UP + 3
            data = await read_exactly(peer, size)
            assert (data[:13], data[-3:]) == (b"one two three", b"end")
            await recorder.called("resume_writing")

    run(main())


@pytest.mark.parametrize("ending", ["close", "abort", "write_eof"])
def test_an_ending_comes_after_the_writes_before_it(
    run: Run, kind: str, past: str, ending: str
) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with wired(recorder, kind) as (transport, peer):
            await live(transport, peer, past)
            write_three(transport)
            getattr(transport, ending)()
            assert await read_all(peer) == b"one two three"
            if ending != "write_eof":
                await recorder.called("connection_lost")
                assert recorder.lost_with == [None]

    run(main())


def test_what_was_written_before_a_protocol_failed_is_sent(
    run: Run, kind: str, past: str, reports: Any
) -> None:
    async def main() -> None:
        def fail(_data: bytes) -> None:
            write_three(recorder.transport)
            raise LookupError("protocol")

        recorder = Recorder(data_received=fail)
        async with wired(recorder, kind) as (transport, peer):
            await live(transport, peer, past)
            peer.send(b"?")
            assert await read_all(peer) == b"one two three"
            await recorder.called("connection_lost")
            assert isinstance(recorder.lost_with[0], LookupError)

    run(main())
    assert len(reports) == 1


def test_the_socket_is_handed_out_after_the_writes(run: Run, kind: str, past: str) -> None:
    """aiomysql goes on with a duplicate of the transport's socket."""

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            await live(transport, peer, past)
            write_three(transport)
            transport.pause_reading()
            with transport.get_extra_info("socket").dup() as duplicate:
                duplicate.send(b" four")
            assert await read_exactly(peer, 18) == b"one two three four"

    run(main())


def test_many_small_writes(run: Run, kind: str, past: str) -> None:
    """More than one system call takes."""
    expected = b"".join(b"%d," % number for number in range(3000))

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            await live(transport, peer, past)
            for number in range(3000):
                transport.write(b"%d," % number)
            assert await read_exactly(peer, len(expected)) == expected

    run(main())


# -- a loop that stops, or does not run ------------------------------------------------------------


@pytest.fixture
def stopped(
    loop: asyncio.AbstractEventLoop, kind: str, past: str
) -> Iterator[tuple[asyncio.AbstractEventLoop, asyncio.Transport, socket.socket]]:
    """A connection whose loop does not run."""
    stack = contextlib.AsyncExitStack()

    async def open_one() -> tuple[asyncio.Transport, socket.socket]:
        transport, peer = await stack.enter_async_context(wired(Recorder(), kind))
        await live(transport, peer, past)
        return transport, peer

    yield loop, *loop.run_until_complete(open_one())
    loop.run_until_complete(stack.aclose())


@pytest.mark.parametrize("ends_by", ["stop", "interrupt"])
def test_what_was_written_is_sent_when_the_loop_stops(stopped: Any, ends_by: str) -> None:
    loop, transport, peer = stopped

    def last() -> None:
        write_three(transport)
        if ends_by == "interrupt":
            raise KeyboardInterrupt
        loop.stop()

    loop.call_soon(last)
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_forever()
    assert has_arrived(peer)
    assert peer.recv(100) == b"one two three"


def test_what_is_written_while_the_loop_does_not_run_is_sent(stopped: Any) -> None:
    _, transport, peer = stopped
    for data in (b"one ", b"two"):
        transport.write(data)
        assert has_arrived(peer)
        assert peer.recv(100) == data
