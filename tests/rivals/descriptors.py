"""Watched descriptors, sock_* methods, files, name resolution, and what is left open."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import tempfile

from .peers import echo, echo_server, served
from .registry import capability


def _open_descriptors() -> set[str]:
    # But for the one that lists them, which is closed by then.
    names = os.listdir("/proc/self/fd")
    return {name for name in names if os.path.lexists(f"/proc/self/fd/{name}")}


async def _settled() -> set[str]:
    """What is open after garbage is collected and the peer has had time to notice."""
    gc.collect()
    await asyncio.sleep(0.5)
    return _open_descriptors()


@capability("add_reader() is level-triggered")
async def level_triggered() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        calls: list[int] = []
        loop.add_reader(ours, calls.append, 1)
        theirs.send(b"unread")
        await asyncio.sleep(0.1)
        loop.remove_reader(ours)
    assert len(calls) > 1, f"called {len(calls)} times"


@capability("a reader and a writer on one descriptor")
async def reader_and_writer() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        seen: set[str] = set()
        loop.add_reader(ours, seen.add, "reader")
        loop.add_writer(ours, seen.add, "writer")
        theirs.send(b"x")
        await asyncio.sleep(0.05)
        removed = loop.remove_writer(ours), loop.remove_reader(ours)
    assert seen == {"reader", "writer"}, f"only {seen} was called"
    assert removed == (True, True), f"removing them returned {removed}"


@capability("add_reader() takes an object with fileno()")
async def file_object() -> None:
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    with open(reading, "rb", 0) as file:
        seen = loop.create_future()
        loop.add_reader(file, lambda: seen.done() or seen.set_result(file.read(1)))
        os.write(writing, b"x")
        assert await asyncio.wait_for(seen, 5) == b"x"
        loop.remove_reader(file)
    os.close(writing)


@capability("add_reader() on a descriptor of any kind (eventfd)")
async def any_descriptor() -> None:
    loop = asyncio.get_running_loop()
    counter = os.eventfd(0, os.EFD_NONBLOCK)
    seen = loop.create_future()
    loop.add_reader(counter, lambda: seen.done() or seen.set_result(os.eventfd_read(counter)))
    os.eventfd_write(counter, 3)
    assert await asyncio.wait_for(seen, 5) == 3
    loop.remove_reader(counter)
    os.close(counter)


@capability("sock_connect(), sock_sendall(), sock_recv()")
async def sock_basics() -> None:
    loop = asyncio.get_running_loop()
    async with echo_server() as address:
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, b"hello")
            assert await loop.sock_recv(sock, 5) == b"hello"


@capability("sock_recv_into() and sock_accept()")
async def sock_into() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        with socket.create_connection(listener.getsockname()) as client:
            connection, _ = await accepting
            with connection:
                client.send(b"hello")
                buffer = bytearray(5)
                assert await loop.sock_recv_into(connection, buffer) == 5
    assert buffer == b"hello"


@capability("sock_recvfrom(), sock_recvfrom_into(), sock_sendto()")
async def sock_datagrams() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        for sock in (a, b):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        await loop.sock_sendto(a, b"one", b.getsockname())
        assert await loop.sock_recvfrom(b, 100) == (b"one", a.getsockname())
        await loop.sock_sendto(a, b"two", b.getsockname())
        buffer = bytearray(10)
        assert await loop.sock_recvfrom_into(b, buffer) == (3, a.getsockname())


@capability("sock_sendfile()")
async def sock_sendfile() -> None:
    loop = asyncio.get_running_loop()
    async with echo_server() as address:
        with socket.socket() as sock, tempfile.TemporaryFile() as file:
            file.write(b"x" * 100_000)
            file.seek(0)
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            assert await loop.sock_sendfile(sock, file) == 100_000
            left = 100_000
            while left:
                left -= len(await loop.sock_recv(sock, left))


async def _send_file(*, fallback: bool, size: int = 3_000_000) -> None:
    loop = asyncio.get_running_loop()
    received = loop.create_future()

    class Counts(asyncio.Protocol):
        count = 0

        def data_received(self, data: bytes) -> None:
            self.count += len(data)

        def connection_lost(self, exc: Exception | None) -> None:
            received.set_result(self.count)

    server = await loop.create_server(Counts, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * size)
        file.seek(0)
        sent = await loop.sendfile(transport, file, fallback=fallback)
    transport.close()
    assert sent == size, sent
    assert await asyncio.wait_for(received, 5) == size
    server.close()


@capability("sendfile() with the system call")
async def sendfile() -> None:
    await _send_file(fallback=False)


@capability("getaddrinfo() keeps the zone of an IPv6 address")
async def zone() -> None:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo("fe80::1%lo", 80, type=socket.SOCK_STREAM)
    assert infos[0][4][3] == socket.if_nametoindex("lo"), infos[0][4]


@capability("getaddrinfo() and getnameinfo() agree with the socket module")
async def names() -> None:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo("localhost", "http", type=socket.SOCK_STREAM)
    assert infos == socket.getaddrinfo("localhost", "http", type=socket.SOCK_STREAM), infos
    address = ("127.0.0.1", 80)
    assert await loop.getnameinfo(address) == socket.getnameinfo(address, 0)


@capability("a cancelled connect leaves nothing open")
async def cancelled_connect() -> None:
    loop = asyncio.get_running_loop()
    # A queue that is full, so that connecting has to wait.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        full = [socket.socket() for _ in range(4)]
        for sock in full:
            sock.setblocking(False)
            sock.connect_ex((host, port))
        before = set()
        for attempt in range(11):
            task = asyncio.ensure_future(loop.create_connection(asyncio.Protocol, host, port))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait([task])
            if attempt == 0:
                # What a loop opens once, it has opened now.
                before = await _settled()
        left = await _settled() - before
        for sock in full:
            sock.close()
    assert not left, f"{len(left)} descriptors"


@capability("a connection that was closed leaves nothing open")
async def closed_connections() -> None:
    loop = asyncio.get_running_loop()
    with served(echo) as address:
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        transport.close()
        before = await _settled()
        for _ in range(20):
            transport, _ = await loop.create_connection(asyncio.Protocol, *address)
            transport.close()
        del transport
        left = await _settled() - before
    assert not left, f"{len(left)} descriptors"


@capability("no descriptors left: accepting backs off, and goes on later")
async def accept_backs_off() -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    made: list[int] = []

    class Served(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(1)

    server = await loop.create_server(Served, "127.0.0.1", 0)
    with socket.socket() as client:
        client.setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, _open_descriptors())), hard))
        try:
            client.connect_ex(server.sockets[0].getsockname())
            before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            await asyncio.sleep(0.5)
            spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not made, "it accepted"
        assert spent < 0.2, f"busy for {spent:.2f} s of 0.5 s"
        for _ in range(50):
            await asyncio.sleep(0.1)
            if made:
                break
    assert made, "it did not go on"
    server.close()
