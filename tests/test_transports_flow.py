"""Flow control of writing: limits, and the exact calls of pause_writing and resume_writing."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from typing import Any

import pytest
from backends import PY312, PY314, Backend
from peers import FILLS_UP, KINDS, Run, pass_turns, read_all, read_exactly, reset, wired
from recorders import Recorder

pytestmark = pytest.mark.parametrize("kind", KINDS)

PAUSES = ("pause_writing", "resume_writing")


def pauses(protocol: Recorder) -> list[str]:
    return [name for name in protocol.calls if name in PAUSES]


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "low", "high"),
    [
        ({}, 16_384, 65_536),
        ({"high": 100}, 25, 100),
        ({"high": 0}, 0, 0),
        ({"high": 3}, 0, 3),
        ({"low": 100}, 100, 400),
        ({"low": 0}, 0, 0),
        ({"high": 8, "low": 8}, 8, 8),
        ({"high": 8, "low": 0}, 0, 8),
        ({"high": None, "low": None}, 16_384, 65_536),
        ({"high": 1 << 40, "low": 1 << 39}, 1 << 39, 1 << 40),
        ({"high": sys.maxsize}, sys.maxsize // 4, sys.maxsize),
        ({"low": sys.maxsize // 4}, sys.maxsize // 4, sys.maxsize // 4 * 4),
    ],
    ids=repr,
)
def test_limits(run: Run, kind: str, given: dict[str, Any], low: int, high: int) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, _):
            assert transport.get_write_buffer_limits() == (16_384, 65_536)
            transport.set_write_buffer_limits(high=1, low=1)
            assert transport.set_write_buffer_limits(**given) is None
            assert transport.get_write_buffer_limits() == (low, high)
            assert transport.get_write_buffer_size() == 0

    run(main())


@pytest.mark.parametrize(
    "given",
    [
        {"high": 5, "low": 6},
        {"low": -1},
        {"high": -1},
        {"high": 0, "low": 1},
        {"high": -1, "low": -2},
    ],
    ids=repr,
)
def test_bad_limits_change_nothing(run: Run, kind: str, given: dict[str, int]) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, _):
            transport.set_write_buffer_limits(high=20, low=10)
            with pytest.raises(ValueError, match="must be >="):
                transport.set_write_buffer_limits(**given)
            assert transport.get_write_buffer_limits() == (10, 20)

    run(main())


def test_limits_are_positional_too_high_first(run: Run, kind: str) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, _):
            transport.set_write_buffer_limits(20, 10)
            assert transport.get_write_buffer_limits() == (10, 20)

    run(main())


# -- the calls -------------------------------------------------------------------------------------


def test_a_write_above_the_limit_pauses_once(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            assert pauses(protocol) == ["pause_writing"]
            transport.write(b"x" * FILLS_UP)
            transport.write(b"x")
            await pass_turns()
            assert pauses(protocol) == ["pause_writing"]
            await read_exactly(peer, 2 * FILLS_UP + 1)
            await pass_turns()
            assert pauses(protocol) == ["pause_writing", "resume_writing"]
            assert transport.get_write_buffer_size() == 0

    run(main())


def test_the_limit_itself_is_still_fine(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, _):
            transport.set_write_buffer_limits(high=10 * FILLS_UP)
            transport.write(b"x" * FILLS_UP)
            size = transport.get_write_buffer_size()
            transport.set_write_buffer_limits(high=size + 1)
            assert pauses(protocol) == []
            transport.write(b"x")
            assert transport.get_write_buffer_size() == size + 1
            assert pauses(protocol) == []
            transport.write(b"x")
            assert pauses(protocol) == ["pause_writing"]

    run(main())


def test_lowering_the_limit_below_what_is_pending_pauses(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.set_write_buffer_limits(high=10 * FILLS_UP)
            transport.write(b"x" * FILLS_UP)
            assert pauses(protocol) == []
            transport.set_write_buffer_limits(high=transport.get_write_buffer_size() - 1)
            assert pauses(protocol) == ["pause_writing"]
            transport.set_write_buffer_limits(high=10 * FILLS_UP)
            assert pauses(protocol) == ["pause_writing"]
            await read_exactly(peer, FILLS_UP)
            await pass_turns()
            assert pauses(protocol) == ["pause_writing", "resume_writing"]

    run(main())


@pytest.mark.parametrize(("high", "low"), [(100_000, 40_000), (100_000, 0), (0, 0), (1, 1)])
def test_pausing_above_high_and_resuming_at_low(run: Run, kind: str, high: int, low: int) -> None:
    async def main() -> None:
        sizes: list[tuple[str, int]] = []

        def note(name: str) -> Any:
            return lambda: sizes.append((name, protocol.transport.get_write_buffer_size()))

        protocol = Recorder(**{name: note(name) for name in PAUSES})
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.set_write_buffer_limits(high=high, low=low)
            for _ in range(3):
                transport.write(b"x" * FILLS_UP)
                await read_exactly(peer, FILLS_UP)
                await pass_turns()
            assert [name for name, _ in sizes] == [*PAUSES] * 3
            assert all(size > high for name, size in sizes if name == "pause_writing")
            assert all(size <= low for name, size in sizes if name == "resume_writing")

    run(main())


def test_a_connection_with_room_never_pauses(run: Run, kind: str) -> None:
    """Whatever the limits, and however many writes a turn has: the kernel takes them all."""

    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
            transport.set_write_buffer_limits(high=0)
            for _ in range(10):
                for _ in range(4):
                    transport.write(b"x" * 1000)
                await read_exactly(peer, 4000)
            assert pauses(protocol) == []

    run(main())


def test_writelines_pauses_too(run: Run, kind: str, backend: Backend) -> None:
    if not backend.is_weft and PY312 and not PY314:
        pytest.skip("asyncio 3.12.0 to 3.13.0 forgot flow control in writelines")

    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.writelines([b"x" * (FILLS_UP // 4)] * 4)
            assert pauses(protocol) == ["pause_writing"]
            await read_exactly(peer, FILLS_UP)
            await pass_turns()
            assert pauses(protocol) == ["pause_writing", "resume_writing"]

    run(main())


def test_writing_more_from_resume_writing(run: Run, kind: str) -> None:
    async def main() -> None:
        rounds = 5

        def more() -> None:
            nonlocal rounds
            rounds -= 1
            if rounds:
                protocol.transport.write(b"x" * FILLS_UP)

        protocol = Recorder(resume_writing=more)
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            await read_exactly(peer, 5 * FILLS_UP)
            await pass_turns()
            assert pauses(protocol) == [*PAUSES] * 5

    run(main())


@pytest.mark.slow
def test_pauses_and_resumes_alternate_under_random_traffic(run: Run, kind: str) -> None:
    chance = random.Random(11)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.set_write_buffer_limits(high=30_000, low=5_000)
            sent = 0

            async def write() -> None:
                nonlocal sent
                for _ in range(400):
                    size = chance.randrange(20_000)
                    sent += size
                    transport.write(bytes(size))
                    if chance.random() < 0.5:
                        await asyncio.sleep(0)

            writing = loop.create_task(write())
            received = 0
            while not writing.done() or received < sent:
                received += len(await loop.sock_recv(peer, chance.randrange(1, 100_000)))
            await pass_turns()
            calls = pauses(protocol)
            assert len(calls) >= 2
            assert calls == [*PAUSES] * (len(calls) // 2)

    run(main())


# -- the end of a paused connection ----------------------------------------------------------------


def test_close_flushes_and_resumes_first(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            transport.close()
            assert await read_all(peer) == b"x" * FILLS_UP
            assert await protocol.lost() is None
            assert protocol.calls == ["connection_made", *PAUSES, "connection_lost"]

    run(main())


@pytest.mark.backends(
    "weft"
)  # asyncio, from 3.12 on, never sends it, and runs callbacks that are None.
def test_what_is_written_while_a_close_flushes_is_sent_too(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol: Recorder = Recorder(resume_writing=lambda: more())

        def more() -> None:
            if protocol.calls.count("resume_writing") == 1:
                protocol.transport.write(b"y" * FILLS_UP)

        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            transport.close()
            assert await read_all(peer) == b"x" * FILLS_UP + b"y" * FILLS_UP
            assert await protocol.lost() is None
            assert protocol.calls == ["connection_made", *PAUSES, *PAUSES, "connection_lost"]

    run(main())


@pytest.mark.parametrize("how", ["abort", "reset"])
def test_a_lost_connection_does_not_resume(run: Run, kind: str, how: str) -> None:
    async def main() -> None:
        protocol = Recorder(eof_received=lambda: True)
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            if how == "abort":
                transport.abort()
                assert transport.get_write_buffer_size() == 0
            else:
                reset(peer)
            exc = await protocol.lost()
            assert exc is None if how == "abort" else isinstance(exc, OSError)
            assert [name for name in protocol.calls if name != "eof_received"] == [
                "connection_made",
                "pause_writing",
                "connection_lost",
            ]

    run(main())


# -- callbacks that raise --------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAUSES)
def test_an_exception_goes_to_the_handler_and_the_connection_lives(
    run: Run, kind: str, name: str, reports: list[dict[str, Any]]
) -> None:
    async def main() -> None:
        error = ZeroDivisionError(name)

        def fail() -> None:
            raise error

        protocol = Recorder(**{name: fail})
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            await read_exactly(peer, FILLS_UP)
            await pass_turns()
            assert pauses(protocol) == [*PAUSES]
            assert reports == [
                {
                    "message": f"protocol.{name}() failed",
                    "exception": error,
                    "transport": transport,
                    "protocol": protocol,
                }
            ]
            transport.write(b"alive")
            assert await read_exactly(peer, 5) == b"alive"

    run(main())


@pytest.mark.parametrize("name", PAUSES)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exits_are_not_swallowed(
    loop: asyncio.AbstractEventLoop, kind: str, name: str, error: type[BaseException]
) -> None:
    async def main() -> None:
        def leave() -> None:
            raise error("leaving")

        protocol = Recorder(**{name: leave})
        async with wired(protocol, kind, small=True) as (transport, peer):
            try:
                transport.write(b"x" * FILLS_UP)
            except error:
                assert name == "pause_writing"
                raised.append(name)
            while not raised:
                await asyncio.sleep(0)
                try:
                    peer.recv(1 << 20)
                except BlockingIOError:
                    continue
            transport.abort()

    raised: list[str] = []
    task = loop.create_task(main())
    if name == "resume_writing":
        with pytest.raises(error, match="leaving"):
            loop.run_until_complete(task)
        raised.append(name)
    loop.run_until_complete(task)
