"""Many connections that write in one turn: what each of them sends arrives as it does on asyncio.

Where each write comes after some work, Weft sends what a turn has written when the turn ends. Which
turns are so depends on how long they take, so that the tests go on until they have seen one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from peers import Run, pass_turns, read_all, read_exactly, wired
from recorders import Recorder

MANY = 6
WORK = 30e-6
"""Seconds before each write: neither so little nor so much that there would be no burst."""
TURNS = 2_000
"""So many are tried: on a machine that does much else, most of them take too long."""


MUCH_WORK = 1e-3


def work(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@contextlib.asynccontextmanager
async def many() -> AsyncIterator[list[tuple[asyncio.Transport, socket.socket]]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(wired(Recorder(), "tcp")) for _ in range(MANY)]


async def write_in_one_turn(
    pairs: list[tuple[Any, socket.socket]], data: bytes, seconds: float = WORK
) -> bool:
    """Write to all in one turn, after some work each.

    Answers whether nothing has arrived anywhere when it ends.
    """
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def write(transport: Any) -> None:
        work(seconds)
        transport.write(data)

    def look() -> None:
        arrived = []
        for _, peer in pairs:
            with contextlib.suppress(BlockingIOError):
                arrived.append(peer.recv(1, socket.MSG_PEEK))
        ended.set_result(not arrived)

    for transport, _ in pairs:
        loop.call_soon(write, transport)
    loop.call_soon(look)
    return await ended


async def burst(pairs: list[tuple[Any, socket.socket]]) -> bytes:
    """Write turn after turn until one is a burst, which nobody has read yet: what was written."""
    for number in range(TURNS):
        data = b"%5d" % number
        if await write_in_one_turn(pairs, data):
            return data
        for _, peer in pairs:
            assert await read_exactly(peer, 5) == data
    raise AssertionError("no turn was a burst")


def test_everything_arrives_in_order(run: Run) -> None:
    async def main() -> None:
        async with many() as pairs:
            for number in range(200):
                await write_in_one_turn(pairs, b"%5d" % number)
            for _, peer in pairs:
                expected = b"".join(b"%5d" % number for number in range(200))
                assert await read_exactly(peer, len(expected)) == expected

    run(main())


@pytest.mark.outside_debug
@pytest.mark.backends("weft")  # asyncio sends each by itself.
class TestBursts:
    def test_it_goes_out_when_the_turn_ends(self, run: Run) -> None:
        async def main() -> None:
            async with many() as pairs:
                data = await burst(pairs)
                await pass_turns(2)
                for _, peer in pairs:
                    assert peer.recv(100) == data

        run(main())

    def test_the_buffer_is_empty_all_the_same(self, run: Run) -> None:
        async def main() -> None:
            async with many() as pairs:
                data = await burst(pairs)
                for transport, peer in pairs:
                    assert transport.get_write_buffer_size() == 0
                    assert peer.recv(100) == data

        run(main())

    @pytest.mark.parametrize("ending", ["close", "abort", "write_eof"])
    def test_an_ending_comes_after_it(self, run: Run, ending: str) -> None:
        async def main() -> None:
            async with many() as pairs:
                data = await burst(pairs)
                for transport, peer in pairs:
                    getattr(transport, ending)()
                    assert await read_all(peer) == data

        run(main())

    def test_a_connection_alone_sends_at_once_again(self, run: Run) -> None:
        async def main() -> None:
            async with many() as pairs:
                data = await burst(pairs)
                for _, peer in pairs:
                    assert await read_exactly(peer, 5) == data
                transport, peer = pairs[0]
                # That it is alone shows when the turn has ended.
                transport.write(b"first")
                assert await read_exactly(peer, 5) == b"first"
                transport.write(b"second")
                assert peer.recv(100) == b"second"

        run(main())

    def test_after_much_work_each_sends_at_once_again(self, run: Run) -> None:
        async def main() -> None:
            async with many() as pairs:
                sent = await burst(pairs)
                # How much it is shows when the turn has ended.
                await write_in_one_turn(pairs, b"first", MUCH_WORK)
                assert not await write_in_one_turn(pairs, b"second", MUCH_WORK)
                sent += b"firstsecond"
                for _, peer in pairs:
                    assert await read_exactly(peer, len(sent)) == sent

        run(main())
