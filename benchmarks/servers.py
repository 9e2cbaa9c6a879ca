"""The servers that run on each loop while the load generator drives them.

A server gets a listening socket and starts to serve; how it serves is the row's subject.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

BACKLOG = 1024
ROOM = 256 * 1024
"""Longer than the longest message, so that a server could read it whole."""

_HELD: list[object] = []
"""Servers and tasks, which nothing else may hold."""

Server = Callable[[socket.socket, int], Awaitable[None]]
"""Serves on a listening socket; the number is the length of a message in bytes."""


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


async def protocol(listener: socket.socket, _size: int) -> None:
    loop = asyncio.get_running_loop()
    if listener.family == socket.AF_UNIX:
        _HELD.append(await loop.create_unix_server(Echo, sock=listener, backlog=BACKLOG))
    else:
        _HELD.append(await loop.create_server(Echo, sock=listener, backlog=BACKLOG))


async def buffered(listener: socket.socket, _size: int) -> None:
    loop = asyncio.get_running_loop()
    _HELD.append(await loop.create_server(BufferedEcho, sock=listener, backlog=BACKLOG))


async def datagrams(listener: socket.socket, _size: int) -> None:
    """No connections: one socket that everybody sends to."""
    loop = asyncio.get_running_loop()
    _HELD.append(await loop.create_datagram_endpoint(DatagramEcho, sock=listener))


async def lines(listener: socket.socket, _size: int) -> None:
    """Streams, read line by line."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    _HELD.append(await asyncio.start_server(serve, sock=listener, limit=ROOM, backlog=BACKLOG))


async def blocks(listener: socket.socket, size: int) -> None:
    """Streams, read in blocks of a known length."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(await reader.readexactly(size))
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    _HELD.append(await asyncio.start_server(serve, sock=listener, limit=ROOM, backlog=BACKLOG))


async def sockets(listener: socket.socket, _size: int) -> None:
    """`sock_recv` and `sock_sendall`, a task per connection."""
    loop = asyncio.get_running_loop()

    async def serve(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := await loop.sock_recv(connection, ROOM):
                await loop.sock_sendall(connection, data)

    async def accept() -> None:
        while True:
            connection, _address = await loop.sock_accept(listener)
            task = loop.create_task(serve(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    tasks: set[asyncio.Task[None]] = set()
    _HELD.append(loop.create_task(accept()))


async def aiohttp(listener: socket.socket, _size: int) -> None:
    """A web application of one route."""
    from aiohttp import web

    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="Hello, World!")

    application = web.Application()
    application.router.add_get("/", hello)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
    _HELD.append(runner)


SERVERS: dict[str, Server] = {
    server.__name__: server
    for server in (protocol, buffered, datagrams, lines, blocks, sockets, aiohttp)
}
