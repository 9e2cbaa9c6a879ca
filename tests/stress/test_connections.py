"""Thousands of connections, opened, used, cancelled and dropped in no order: no answer reaches the
wrong asker, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import random
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import Backend
from children import child_environment
from conftest import descriptors
from peers import Run, closed_port, listener, pass_turns, stream_pair, unanswered_address
from recorders import PATIENCE, STREAM_RECORDERS, Recorder

pytestmark = pytest.mark.slow

SEEDS = (1, 2)


# -- no cross-talk ---------------------------------------------------------------------------------


def answer_to(question: bytes) -> bytes:
    return question + b" " + hashlib.blake2b(question, digest_size=16).hexdigest().encode() + b"\n"


@contextlib.asynccontextmanager
async def oracle(kind: str, path: Path, chance: random.Random) -> AsyncIterator[dict[str, Any]]:
    """A server that answers each question after a random number of turns."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while question := await reader.readline():
                await pass_turns(chance.randrange(4))
                writer.write(answer_to(question.strip()))
                if chance.random() < 0.3:
                    await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    if kind == "unix":
        server = await asyncio.start_unix_server(handle, str(path), backlog=1000)
        where: dict[str, Any] = {"path": str(path)}
    else:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1000)
        host, port = server.sockets[0].getsockname()
        where = {"host": host, "port": port}
    async with server:
        yield where
        # What the kernel has connected is accepted before the server goes.
        await pass_turns(10)
    async with asyncio.timeout(PATIENCE):
        await server.wait_closed()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)


async def ask(
    where: dict[str, Any], name: bytes, questions: int, writers: list[asyncio.StreamWriter]
) -> int:
    """Ask over a connection of one's own, and compare every answer."""
    open_ = asyncio.open_unix_connection if "path" in where else asyncio.open_connection
    reader, writer = await open_(**where)
    writers.append(writer)
    try:
        for number in range(questions):
            question = b"%s question %d" % (name, number)
            writer.write(question + b"\n")
            assert await reader.readline() == answer_to(question)
    finally:
        # A cancelled asker does not wait; its connection ends all the same.
        writer.close()
    return questions


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("seed", SEEDS)
def test_ten_thousand_connections_cancelled_at_random(
    run: Run, kind: str, seed: int, tmp_path: Path
) -> None:
    """5,000 a seed, 250 at a time, a third of them cancelled somewhere on the way."""
    chance = random.Random(seed)

    async def main() -> None:
        finished = cancelled = 0
        async with oracle(kind, tmp_path / "socket", chance) as where:
            for batch in range(20):
                writers: list[asyncio.StreamWriter] = []
                tasks = [
                    asyncio.ensure_future(
                        ask(where, b"%d/%d" % (batch, number), 1 + number % 3, writers)
                    )
                    for number in range(250)
                ]
                victims = chance.sample(tasks, 83)
                while victims:
                    await pass_turns(chance.randrange(1, 3))
                    for victim in (victims.pop() for _ in range(min(len(victims), 9))):
                        victim.cancel()
                async with asyncio.timeout(60):
                    results = await asyncio.gather(*tasks, return_exceptions=True)
                    for writer in writers:
                        with contextlib.suppress(OSError):
                            await writer.wait_closed()
                for result in results:
                    if isinstance(result, asyncio.CancelledError):
                        cancelled += 1
                    else:
                        assert isinstance(result, int), result
                        finished += 1
        assert finished >= 20 * (250 - 83)
        assert cancelled > 100, "or nothing was cancelled on its way"

    run(main())


@pytest.mark.parametrize("seed", SEEDS)
def test_connections_that_take_over_each_others_numbers(run: Run, seed: int) -> None:
    """Transports end and begin in the same turn, so that descriptors change owner at once."""
    chance = random.Random(seed)

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data.swapcase())
            if b"leave" in data:
                self.transport.close()

    class Asking(Recorder):
        said = b""

        def say(self, text: bytes) -> None:
            self.said += text
            self.transport.write(text)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=1000)
        where = server.sockets[0].getsockname()
        alive: list[Asking] = []
        ended: list[Asking] = []
        for number in range(1500):
            connecting = loop.create_task(loop.create_connection(Asking, *where))
            if chance.random() < 0.2:
                await pass_turns(chance.randrange(5))
                connecting.cancel()
            # Meanwhile others end, in one way or another.
            while alive and chance.random() < 0.6:
                victim = alive.pop(chance.randrange(len(alive)))
                ended.append(victim)
                how = chance.choice(["close", "abort", "leave"])
                if how == "leave":
                    victim.say(b"leave %d" % number)
                else:
                    getattr(victim.transport, how)()
            with contextlib.suppress(asyncio.CancelledError):
                _, protocol = await connecting
                alive.append(protocol)
                protocol.say(b"hello %d;" % number)
            for protocol in alive[-5:]:
                protocol.say(b"more %d;" % number)
        for protocol in alive:
            await protocol.received(len(protocol.said))
            assert protocol.data == protocol.said.swapcase()
            protocol.transport.close()
        for protocol in alive + ended:
            await protocol.lost()
            assert protocol.said.swapcase().startswith(protocol.data)
            assert protocol.calls.count("connection_lost") == 1
        server.close()
        await server.wait_closed()

    run(main())


# -- many at once ----------------------------------------------------------------------------------

MANY = 10_000

SERVER = """
import resource, sys

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

async def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()

run(main())
"""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MANY + 200:
        pytest.skip(f"this machine allows a process no more than {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_ten_thousand_connections_open_at_once(run: Run, backend: Backend) -> None:
    """The server runs in a process of its own; each end holds ten thousand descriptors."""

    async def main(port: int) -> None:
        loop = asyncio.get_running_loop()
        protocols: list[Recorder] = []
        while len(protocols) < MANY:
            pairs = await asyncio.gather(
                *(loop.create_connection(Recorder, "127.0.0.1", port) for _ in range(500))
            )
            protocols += [protocol for _, protocol in pairs]
        for _ in range(2):
            for number, protocol in enumerate(protocols):
                protocol.data.clear()
                protocol.transport.write(b"number %05d" % number)
            for number, protocol in enumerate(protocols):
                assert await protocol.received(12) == b"number %05d" % number
        for protocol in protocols:
            protocol.transport.close()
        for protocol in protocols:
            await protocol.lost()

    with subprocess.Popen(
        [sys.executable, "-c", backend.prelude + SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        try:
            run(main(int(child.stdout.readline())))
            child.stdin.close()
            assert child.wait(60) == 0
        finally:
            child.kill()


def resident() -> int:
    """The memory of this process that is in use, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.parametrize("stream", STREAM_RECORDERS)
def test_memory_does_not_grow_with_connections(run: Run, stream: type[Any]) -> None:
    """Each of them reads, writes, is cut off with data pending, or fails."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)

        def fail(*_: Any) -> None:
            raise ZeroDivisionError

        async def connections(count: int) -> None:
            for number in range(count):
                options = {"data_received": fail, "get_buffer": fail} if number % 5 == 0 else {}
                ours, theirs = stream_pair("unix")
                transport, protocol = await loop.create_connection(
                    lambda options=options: stream(**options), sock=ours
                )
                with theirs:
                    theirs.sendall(b"x" * 1000)
                    transport.write(b"x" * 500_000)
                    transport.writelines([bytearray(100), b"y"])
                    if number % 5:
                        await protocol.received(1000)
                        transport.set_protocol(protocol)
                        transport.pause_reading()
                        transport.abort()
                    await protocol.lost()

        await connections(500)
        gc.collect()
        before = resident()
        await connections(3000)
        gc.collect()
        # A kilobyte lost each time would be three megabytes.
        assert resident() - before < 2 << 20

    run(main())


# -- cancelled connects ----------------------------------------------------------------------------


async def cancelled_connects(count: int, chance: random.Random) -> None:
    """Begin connects that succeed, are refused or never end, and cancel them on the way."""
    loop = asyncio.get_running_loop()
    refusing = ("127.0.0.1", closed_port())
    with unanswered_address() as silent:
        begun = 0
        while begun < count:
            with listener(backlog=1000) as listening:
                targets = [listening.getsockname(), refusing, silent]
                for _ in range(min(500, count - begun) // 50):
                    begun += 50
                    tasks = [
                        loop.create_task(loop.create_connection(Recorder, *chance.choice(targets)))
                        for _ in range(50)
                    ]
                    await pass_turns(chance.randrange(5))
                    for task in tasks:
                        task.cancel()
                        if chance.random() < 0.1:
                            await asyncio.sleep(0)
                    for result in await asyncio.gather(*tasks, return_exceptions=True):
                        if isinstance(result, tuple):
                            transport, protocol = result
                            transport.abort()
                            await protocol.lost()
                        else:
                            assert isinstance(result, (asyncio.CancelledError, OSError)), result
                    await pass_turns()


@pytest.mark.parametrize(
    "count", [5000, pytest.param(100_000, marks=pytest.mark.soak)], ids=["thousands", "an-hour"]
)
def test_cancelled_connects_leave_nothing(run: Run, count: int) -> None:
    async def main() -> None:
        chance = random.Random(9)
        await cancelled_connects(500, chance)
        gc.collect()
        before = len(descriptors())
        await cancelled_connects(count, chance)
        assert len(descriptors()) == before
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


# -- loops that end in the middle ------------------------------------------------------------------


def test_callbacks_that_stop_and_close_the_loop(backend: Backend) -> None:
    """A loop may not be closed from within; stopped and closed in the middle, it leaves nothing."""

    class Stopper(Recorder):
        def data_received(self, data: bytes) -> None:
            loop = asyncio.get_running_loop()
            with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
                loop.close()
            loop.stop()

    for round_ in range(50):
        loop = backend.new_event_loop()
        try:
            server = loop.run_until_complete(loop.create_server(Stopper, "127.0.0.1", 0))
            where = server.sockets[0].getsockname()
            pairs = [
                loop.run_until_complete(loop.create_connection(Recorder, *where)) for _ in range(3)
            ]
            pairs[round_ % 3][0].write(b"stop")
            loop.run_forever()
            # It goes on where it stopped.
            assert loop.run_until_complete(asyncio.sleep(0, "alive")) == "alive"
            server.close()
            for transport, protocol in pairs:
                transport.close()
                loop.run_until_complete(protocol.lost())
            # The server's ends see that their peers have gone.
            loop.run_until_complete(pass_turns(5))
            loop.run_until_complete(server.wait_closed())
        finally:
            loop.close()


def test_loops_closed_with_connections_open(backend: Backend) -> None:
    """Nothing is told to the protocols; the descriptors go with the transports, and warn."""
    before = len(descriptors())
    for _ in range(20):
        loop = backend.new_event_loop()
        server = loop.run_until_complete(loop.create_server(Recorder, "127.0.0.1", 0))
        where = server.sockets[0].getsockname()
        pairs = [
            loop.run_until_complete(loop.create_connection(Recorder, *where)) for _ in range(3)
        ]
        pairs[0][0].write(b"unread")
        loop.run_until_complete(pass_turns())
        server.close()
        loop.close()
        assert not any(protocol.lost_with for _, protocol in pairs)
        with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031
            del pairs, server, loop
            gc.collect()
    assert len(descriptors()) == before
