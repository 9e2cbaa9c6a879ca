"""TCP and Unix connections: transports, servers, asyncio's streams."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import tempfile
from typing import Any

from .peers import echo, echo_server, served
from .registry import capability


class _Collects(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.done = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set_result(self.data)


async def _collected(write: Any, size: int) -> bytes:
    """What a server gets of the ``size`` bytes that ``write(transport)`` sends and then closes."""
    loop = asyncio.get_running_loop()
    served = loop.create_future()

    def factory() -> _Collects:
        served.set_result(_Collects())
        return served.result()

    server = await loop.create_server(factory, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    write(transport)
    transport.close()
    collects = await asyncio.wait_for(served, 5)
    for _ in range(100):
        if len(collects.data) >= size:
            break
        await asyncio.sleep(0.05)
    server.close()
    return collects.data


@capability("the end of a connection reaches eof_received() and connection_lost()")
async def end_noticed() -> None:
    loop = asyncio.get_running_loop()
    events: list[str] = []
    lost = loop.create_future()

    class Served(asyncio.Protocol):
        def eof_received(self) -> None:
            events.append("eof")

        def connection_lost(self, exc: Exception | None) -> None:
            events.append("lost")
            lost.set_result(None)

    server = await loop.create_server(Served, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    transport.write(b"hello")
    transport.close()
    await asyncio.wait_for(lost, 3)
    server.close()
    assert events == ["eof", "lost"], events


@capability("writelines() of any buffers")
async def odd_buffers() -> None:
    numbers = array.array("i", [1, 2, 3])

    def write(transport: Any) -> None:
        transport.writelines([b"a", bytearray(b"b"), memoryview(b"c"), numbers, b"", b"d"])

    expected = b"abc" + numbers.tobytes() + b"d"
    got = await _collected(write, len(expected))
    assert got == expected, got


@capability("write() of a strided or multi-byte memoryview")
async def odd_views() -> None:
    view = memoryview(array.array("i", [1, 2, 3]))

    def write(transport: Any) -> None:
        transport.write(view)
        transport.write(b"end")

    got = await _collected(write, view.nbytes + 3)
    assert got == view.tobytes() + b"end", got


@capability("write() copies a mutable buffer")
async def mutable_buffers() -> None:
    first = bytearray(b"a" * 4_000_000)
    second = bytearray(b"b" * 1000)

    def write(transport: Any) -> None:
        transport.write(first)
        transport.write(second)
        first[-10:] = b"!" * 10
        second[:] = b"!" * 1000

    got = await _collected(write, 4_001_000)
    assert len(got) == 4_001_000, len(got)
    assert b"!" not in got, "what was changed later has been sent"


@capability("everything written before close() arrives")
async def written_before_close() -> None:
    got = await _collected(lambda transport: transport.write(b"x" * 8_000_000), 8_000_000)
    assert len(got) == 8_000_000, len(got)


@capability("write() after close() raises nothing")
async def write_after_close() -> None:
    async with echo_server() as address:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        transport.abort()
        await asyncio.sleep(0.05)
        for _ in range(10):
            transport.write(b"x")


@capability("get_extra_info('socket') is like a socket")
async def extra_socket() -> None:
    async with echo_server() as address:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, *address
        )
        sock = transport.get_extra_info("socket")
        assert sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM
        assert sock.getpeername() == address == transport.get_extra_info("peername")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        copy = sock.dup()
        copy.close()
        transport.close()


@capability("sock= takes a connected socket over, and closes it once")
async def takes_socket_over() -> None:
    loop = asyncio.get_running_loop()
    async with echo_server() as address:
        sock = await asyncio.to_thread(socket.create_connection, address)
        transport, protocol = await loop.create_connection(_Collects, sock=sock)
        transport.write(b"hello")
        await asyncio.sleep(0.1)
        assert protocol.data == b"hello"
        transport.close()
        await asyncio.wait_for(protocol.done, 5)
        await asyncio.sleep(0.05)
        assert sock.fileno() == -1, "the socket object says that it is open"


@capability("flow control: pause_writing(), resume_writing(), limits")
async def flow_control() -> None:
    loop = asyncio.get_running_loop()
    events: list[str] = []
    resumed = loop.create_future()

    class Paused(asyncio.Protocol):
        def pause_writing(self) -> None:
            events.append("pause")

        def resume_writing(self) -> None:
            events.append("resume")
            resumed.set_result(None)

    async with echo_server() as address:
        transport, _ = await loop.create_connection(Paused, *address)
        transport.set_write_buffer_limits(high=1000, low=100)
        assert transport.get_write_buffer_limits() == (100, 1000)
        transport.pause_reading()
        transport.write(b"x" * 20_000_000)
        assert events == ["pause"] and transport.get_write_buffer_size() > 1000
        transport.resume_reading()
        await asyncio.wait_for(resumed, 10)
        transport.abort()


@capability("write_eof() closes one direction")
async def half_closed() -> None:
    async with echo_server() as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"hello")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b"hello"
        writer.close()


@capability("asyncio.BufferedProtocol")
async def buffered() -> None:
    loop = asyncio.get_running_loop()
    got = loop.create_future()

    class Buffered(asyncio.BufferedProtocol):
        buffer = bytearray(100)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, count: int) -> None:
            got.set_result(bytes(self.buffer[:count]))

    async with echo_server() as address:
        transport, _ = await loop.create_connection(Buffered, *address)
        transport.write(b"hello")
        assert await asyncio.wait_for(got, 5) == b"hello"
        transport.close()


@capability("set_protocol() in the middle of a connection")
async def set_protocol() -> None:
    async with echo_server() as address:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        second = _Collects()
        transport.set_protocol(second)
        transport.write(b"hello")
        await asyncio.sleep(0.1)
        assert second.data == b"hello" and transport.get_protocol() is second
        transport.close()


async def _connect_unix(path: str) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(asyncio.Protocol, path)
    transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
    transport.close()
    server.close()


@capability("Unix sockets")
async def unix_sockets() -> None:
    with tempfile.TemporaryDirectory() as folder:
        await _connect_unix(os.path.join(folder, "socket"))


@capability("Unix sockets of an abstract name")
async def abstract_sockets() -> None:
    await _connect_unix(f"\0weft-rivals-{os.getpid()}")


@capability("create_server(): several addresses, reuse_port, start_serving=False")
async def server_arguments() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as holder:
        port = holder.getsockname()[1]
        server = await loop.create_server(
            asyncio.Protocol,
            ["127.0.0.1", "127.0.0.2"],
            port,
            reuse_port=True,
            start_serving=False,
        )
        assert not server.is_serving()
        await server.start_serving()
        assert server.is_serving() and len(server.sockets) == 2
        server.close()


@capability("create_connection(): happy_eyeballs_delay, interleave, local_addr")
async def connection_arguments() -> None:
    loop = asyncio.get_running_loop()
    async with echo_server() as (_, port):
        transport, _ = await loop.create_connection(
            asyncio.Protocol,
            "localhost",
            port,
            happy_eyeballs_delay=0.2,
            interleave=1,
            local_addr=("127.0.0.1", 0),
        )
        transport.close()


@capability("a refused connection raises ConnectionRefusedError with its errno")
async def refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    try:
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, *address)
    except ConnectionRefusedError as error:
        assert error.errno == 111, error.errno
        return
    raise AssertionError("it did not raise")


@capability("a reset connection ends in ConnectionResetError")
async def reset() -> None:
    loop = asyncio.get_running_loop()
    lost = loop.create_future()

    class Lost(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    def reset_at_once(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with served(reset_at_once) as address:
        transport, _ = await loop.create_connection(Lost, *address)
        transport.write(b"xx")
        error = await asyncio.wait_for(lost, 5)
    assert isinstance(error, ConnectionResetError), repr(error)


@capability("what one connection sets in its context, the next does not see")
async def contexts() -> None:
    import contextvars

    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    class Served(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            seen.append(variable.get())
            variable.set(1)

        def data_received(self, data: bytes) -> None:
            variable.set(1)

    server = await loop.create_server(Served, "127.0.0.1", 0)
    for _ in range(2):
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        transport.write(b"x")
        await asyncio.sleep(0.05)
        transport.close()
    server.close()
    assert seen == [0, 0], seen


@capability("streams: readline(), readuntil(), readexactly(), limits")
async def stream_reader() -> None:
    with served(echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port, limit=100)
        writer.write(b"line\nuntil;12345" + b"x" * 300)
        assert await reader.readline() == b"line\n"
        assert await reader.readuntil(b";") == b"until;"
        assert await reader.readexactly(5) == b"12345"
        try:
            await reader.readuntil(b"#")
        except asyncio.LimitOverrunError as error:
            assert error.consumed > 100
        else:
            raise AssertionError("no LimitOverrunError")
        writer.close()
        await writer.wait_closed()
