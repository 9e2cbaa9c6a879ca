"""Memory: the growth of the resident set for each of very many objects that wait."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from benchmarks.rows._row import Row

MANY = 200_000
FAR = 100_000.0

CONNECTIONS = 4_000
FIRST_CONNECTIONS = 100
"""Made before memory is looked at, for what grows once only."""


class Cancellable(Protocol):
    """A task or a timer."""

    def cancel(self) -> object: ...


def _resident() -> int:
    """The resident set in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def _growth(make: Callable[[], Cancellable]) -> int:
    """What `MANY` of what `make` makes add to the process, once the loop has started them."""
    first = [make() for _ in range(1000)]
    kept = [first[0]] * MANY
    await asyncio.sleep(0.01)
    gc.collect()
    before = _resident()
    for index in range(MANY):
        kept[index] = make()
    # Two turns: the tasks' first steps, and whatever these may have scheduled.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    growth = _resident() - before
    for item in first + kept:
        item.cancel()
    await asyncio.sleep(0)
    return growth


async def waiting_task(_count: int) -> int:
    """A task that waits for a future of its own."""
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        await loop.create_future()

    return await _growth(lambda: asyncio.create_task(wait()))


async def sleeping_task(_count: int) -> int:
    """A task in `asyncio.sleep`."""
    return await _growth(lambda: asyncio.create_task(asyncio.sleep(FAR)))


async def timer(_count: int) -> int:
    """A timer that is far away."""
    loop = asyncio.get_running_loop()

    def callback() -> None:
        pass

    return await _growth(lambda: loop.call_later(FAR, callback))


class Connections:
    """A server whose connections do nothing, and their peers, which no loop knows."""

    def __init__(self) -> None:
        self.accepted = 0
        self.changed = asyncio.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
        # A loop may take the socket over with the server, and leave an empty object.
        self.address = self.listener.getsockname()
        self.peers: list[socket.socket] = []
        # Two descriptors each, and some for the loop.
        enough = 2 * (FIRST_CONNECTIONS + CONNECTIONS) + 200
        allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if allowed < enough:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(enough, most), most))

    def accept(self) -> None:
        """To be called by the server for each connection."""
        self.accepted += 1
        self.changed.set()

    def connect(self, count: int) -> None:
        """Connect as far as the kernel does: the loop does not run meanwhile."""
        self.peers += [socket.create_connection(self.address) for _ in range(count)]

    async def wait(self) -> None:
        """Until all of them are accepted, and watched by the loop."""
        while self.accepted < len(self.peers):
            self.changed.clear()
            await self.changed.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def growth(self) -> int:
        """What most of the connections add to the process."""
        self.connect(FIRST_CONNECTIONS)
        await self.wait()
        self.connect(CONNECTIONS)
        gc.collect()
        before = _resident()
        await self.wait()
        growth = _resident() - before
        for peer in self.peers:
            peer.close()
        return growth


async def connection(_count: int) -> int:
    """A connection that a protocol has, with nothing to read."""
    connections = Connections()

    class Idle(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            connections.accept()

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Idle, sock=connections.listener, backlog=CONNECTIONS)
    growth = await connections.growth()
    server.close()
    return growth


async def stream(_count: int) -> int:
    """A connection whose task waits for a line."""
    connections = Connections()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.accept()
        await reader.readline()
        writer.close()

    server = await asyncio.start_server(serve, sock=connections.listener, backlog=CONNECTIONS)
    growth = await connections.growth()
    server.close()
    return growth


ROWS = (
    Row("memory per waiting task", waiting_task, MANY, "memory", "bytes", fresh=True),
    Row("memory per sleeping task", sleeping_task, MANY, "memory", "bytes", fresh=True),
    Row("memory per timer", timer, MANY, "memory", "bytes", fresh=True),
    Row("memory per connection", connection, CONNECTIONS, "memory", "bytes", fresh=True),
    Row("memory per stream", stream, CONNECTIONS, "memory", "bytes", fresh=True),
)
