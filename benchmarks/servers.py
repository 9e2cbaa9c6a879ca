"""The servers that run on each loop while the load generator drives them.

A server gets a listening socket and starts to serve; how it serves is the row's subject. Web
frameworks and their like are in benchmarks/applications.py.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

BACKLOG = 1024
ROOM = 256 * 1024
"""Longer than the longest message, so that a server could read it whole."""

MIB = 1024 * 1024
CHUNK = 64 * MIB
"""What a source sends at once, and the length of a file that is sent."""

BUSY_TASKS = 10_000

_HELD: list[object] = []
"""Servers and tasks, which nothing else may hold."""


@dataclass(frozen=True)
class Place:
    """Where a server serves."""

    listener: socket.socket
    size: int
    """The length of a message in bytes."""
    tls: ssl.SSLContext | None = None


Server = Callable[[Place], Awaitable[None]]


def hold(thing: object) -> None:
    """Keep a server for the rest of the process."""
    _HELD.append(thing)


class Failure:
    """What a server's task raised, since there is no client that could be told why."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None

    def watch(self, task: asyncio.Task[None]) -> None:
        _HELD.append(task)
        task.add_done_callback(self._done)

    async def wait(self) -> None:
        """Raise what some task raises, whenever it does."""
        self._future = asyncio.get_running_loop().create_future()
        await self._future

    def _done(self, task: asyncio.Task[None]) -> None:
        _HELD.remove(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, OSError):  # The client has gone.
            return
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)


failure = Failure()


class Echo(asyncio.Protocol):
    """Sends back what it gets, as soon as it gets it."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """The same over a buffer of its own.

    What is written is a copy: the protocol's buffer is filled anew while a transport may still
    hold what the socket had no room for.
    """

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(ROOM))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


class DatagramEcho(asyncio.DatagramProtocol):
    """Sends each datagram back to where it came from."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


class Greeter(asyncio.Protocol):
    """One byte for whoever comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b".")  # type: ignore[attr-defined]
        transport.close()


class Source(asyncio.Protocol):
    """Writes without end, whenever the transport does not ask it to wait."""

    transport: asyncio.Transport
    waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._fill()

    def pause_writing(self) -> None:
        self.waits = True

    def resume_writing(self) -> None:
        self.waits = False
        self._fill()

    def connection_lost(self, error: Exception | None) -> None:
        self.waits = True

    def _fill(self) -> None:
        self.transport.write(_chunk())
        if not self.waits:
            asyncio.get_running_loop().call_soon(self._fill_again)

    def _fill_again(self) -> None:
        if not self.waits:
            self._fill()


class Sink(asyncio.Protocol):
    """Takes whatever comes."""

    def data_received(self, data: bytes) -> None:
        pass


class BufferedSink(asyncio.BufferedProtocol):
    """The same into a buffer of its own."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(ROOM))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        pass


_CHUNKS: list[bytes] = []


def _chunk() -> bytes:
    """Made when it is first needed, since most servers need none."""
    if not _CHUNKS:
        _CHUNKS.append(b"." * CHUNK)
    return _CHUNKS[0]


async def _serve(factory: Callable[[], asyncio.BaseProtocol], place: Place) -> None:
    loop = asyncio.get_running_loop()
    if place.listener.family == socket.AF_UNIX:
        hold(
            await loop.create_unix_server(
                factory, sock=place.listener, backlog=BACKLOG, ssl=place.tls
            )
        )
    else:
        hold(await loop.create_server(factory, sock=place.listener, backlog=BACKLOG, ssl=place.tls))


async def protocol(place: Place) -> None:
    await _serve(Echo, place)


async def buffered(place: Place) -> None:
    await _serve(BufferedEcho, place)


async def greeter(place: Place) -> None:
    await _serve(Greeter, place)


async def source(place: Place) -> None:
    _chunk()
    await _serve(Source, place)


async def sink(place: Place) -> None:
    await _serve(Sink, place)


async def buffered_sink(place: Place) -> None:
    await _serve(BufferedSink, place)


async def file(place: Place) -> None:
    """`loop.sendfile` of one file, again and again."""
    loop = asyncio.get_running_loop()
    content = tempfile.TemporaryFile()  # noqa: SIM115 - held
    content.write(b"." * CHUNK)
    content.flush()
    hold(content)

    async def send(transport: asyncio.Transport) -> None:
        while not transport.is_closing():
            await loop.sendfile(transport, content)

    class Sender(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            failure.watch(loop.create_task(send(transport)))  # type: ignore[arg-type]

    await _serve(Sender, place)


async def busy(place: Place) -> None:
    """An echo server whose loop has ten thousand tasks to step in each turn."""

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    for _ in range(BUSY_TASKS):
        hold(loop.create_task(spin()))
    await _serve(Echo, place)


async def datagrams(place: Place) -> None:
    """No connections: one socket that everybody sends to."""
    loop = asyncio.get_running_loop()
    hold(await loop.create_datagram_endpoint(DatagramEcho, sock=place.listener))


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _serve_streams(serve: Serve, place: Place) -> None:
    hold(
        await asyncio.start_server(
            serve, sock=place.listener, limit=ROOM, backlog=BACKLOG, ssl=place.tls
        )
    )


async def lines(place: Place) -> None:
    """Streams, read line by line."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    await _serve_streams(serve, place)


async def blocks(place: Place) -> None:
    """Streams, read in blocks of a known length."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(await reader.readexactly(place.size))
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    await _serve_streams(serve, place)


async def parts(place: Place) -> None:
    """Streams, read as it comes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(ROOM):
            writer.write(data)
            await writer.drain()
        writer.close()

    await _serve_streams(serve, place)


async def sockets(place: Place) -> None:
    """`sock_recv` and `sock_sendall`, a task per connection."""
    loop = asyncio.get_running_loop()

    async def serve(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := await loop.sock_recv(connection, ROOM):
                await loop.sock_sendall(connection, data)

    async def accept() -> None:
        while True:
            connection, _address = await loop.sock_accept(place.listener)
            failure.watch(loop.create_task(serve(connection)))

    failure.watch(loop.create_task(accept()))


SERVERS: dict[str, Server] = {
    server.__name__: server
    for server in (
        protocol,
        buffered,
        greeter,
        source,
        sink,
        buffered_sink,
        file,
        busy,
        datagrams,
        lines,
        blocks,
        parts,
        sockets,
    )
}
