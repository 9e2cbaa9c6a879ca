"""A bit of everything, for minutes; in a process of its own, whose memory, descriptors and
threads are counted.

    python soak_program.py MINUTES

Rounds of all kinds of work run beside each other. After the first minute (or a fifth of the time)
and at the end
all of it comes to rest and what the process holds is looked at. Prints that as JSON.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import json
import os
import random
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import weft
from certificates import NAME, client_context, server_context

Work = Callable[["Soak"], Awaitable[None]]
WORKS: list[Work] = []
AT_ONCE = 24


def work(function: Work) -> Work:
    WORKS.append(function)
    return function


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoDatagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


class Soak:
    """The servers that all work shares, and the count of what was done."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "socket")
        self.chance = random.Random(1)
        self.done: collections.Counter[str] = collections.Counter()
        self.client_context = client_context()

    async def serve(self, stack: contextlib.AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()

        async def lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                async for line in reader:
                    writer.write(line)
                    await writer.drain()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        host = "127.0.0.1"
        tcp = await loop.create_server(Echo, host, 0, backlog=500)
        tls = await loop.create_server(Echo, host, 0, ssl=server_context(), backlog=500)
        unix = await loop.create_unix_server(Echo, self.path, backlog=500)
        streams = await weft.start_server(lines, host, 0, backlog=500)
        for server in (tcp, tls, unix, streams):
            await stack.enter_async_context(server)
        self.tcp, self.tls, self.streams = (
            server.sockets[0].getsockname() for server in (tcp, tls, streams)
        )
        datagrams, _ = await loop.create_datagram_endpoint(EchoDatagrams, (host, 0))
        stack.callback(datagrams.close)
        self.udp = datagrams.get_extra_info("sockname")

    def some_bytes(self) -> bytes:
        return self.chance.randbytes(self.chance.choice([1, 100, 5000, 200_000]))


@contextlib.asynccontextmanager
async def connected(connecting: Awaitable[tuple[Any, Any]]) -> AsyncIterator[tuple[Any, Any]]:
    """A connection that is closed in the end, whoever is cancelled meanwhile."""
    reader, writer = await connecting
    try:
        yield reader, writer
    finally:
        writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def converse(soak: Soak, connecting: Awaitable[tuple[Any, Any]]) -> None:
    """Everything comes back as it was sent; in the end the connection is closed, aborted or
    reset.
    """
    async with connected(connecting) as (reader, writer):
        for _ in range(soak.chance.randrange(1, 6)):
            data = soak.some_bytes()
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
        if soak.chance.random() < 0.3:
            sock = writer.get_extra_info("socket")
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if soak.chance.random() < 0.5:
            writer.transport.abort()


@work
async def tcp(soak: Soak) -> None:
    await converse(soak, weft.open_connection(*soak.tcp))


@work
async def unix(soak: Soak) -> None:
    await converse(soak, weft.open_unix_connection(soak.path))


@work
async def tls(soak: Soak) -> None:
    options = {"ssl": soak.client_context, "server_hostname": NAME}
    await converse(soak, weft.open_connection(*soak.tls, **options))


@work
async def broken_tls(soak: Soak) -> None:
    """Garbage, or silence and an end, where a handshake should be."""
    async with connected(weft.open_connection(*soak.tls)) as (reader, writer):
        if soak.chance.random() < 0.7:
            writer.write(soak.chance.randbytes(soak.chance.randrange(1, 3000)))
        if soak.chance.random() < 0.5:
            with contextlib.suppress(OSError):
                writer.write_eof()
                await reader.read()


@work
async def lines(soak: Soak) -> None:
    async with connected(weft.open_connection(*soak.streams)) as (reader, writer):
        for number in range(20):
            line = b"%d %s\n" % (number, b"x" * soak.chance.randrange(2000))
            writer.write(line)
            assert await reader.readline() == line
        writer.write(b"rest")
        writer.write_eof()
        assert await reader.readuntil(b"t") == b"rest"
        assert await reader.read() == b""


@work
async def datagrams(soak: Soak) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(soak.udp)
        for number in range(20):
            await loop.sock_sendall(sock, b"%d" % number)
            # A datagram may get lost, be it on the loopback.
            with contextlib.suppress(TimeoutError):
                async with weft.timeout(5):
                    await loop.sock_recv(sock, 100)


@work
async def processes(soak: Soak) -> None:
    process = await asyncio.create_subprocess_exec(
        "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    data = soak.some_bytes()
    try:
        if soak.chance.random() < 0.7:
            assert (await process.communicate(data))[0] == data
            assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.communicate())


@work
async def threads(soak: Soak) -> None:
    loop = asyncio.get_running_loop()
    numbers = range(30)
    assert sum(await weft.gather(*(weft.to_thread(int, n) for n in numbers))) == sum(numbers)
    assert await loop.run_in_executor(None, sum, numbers) == sum(numbers)
    tasks = [weft.create_task(weft.to_thread(time.sleep, 0.0001)) for _ in numbers]
    await weft.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await weft.wait(tasks)
    await loop.getaddrinfo("localhost", 80)


@work
async def timers(soak: Soak) -> None:
    loop = asyncio.get_running_loop()
    handles = [loop.call_later(1 + soak.chance.random() * 100, soak.done.clear) for _ in range(500)]
    try:
        await weft.gather(*(weft.sleep(soak.chance.random() / 100) for _ in range(100)))
    finally:
        for handle in handles:
            handle.cancel()


@work
async def queues(soak: Soak) -> None:
    queue: Any = weft.Queue(5)
    got: list[int] = []

    async def consume() -> None:
        while True:
            got.append(await queue.get())
            queue.task_done()

    consumers = [weft.create_task(consume()) for _ in range(3)]
    try:
        for number in range(300):
            await queue.put(number)
        await queue.join()
        assert sorted(got) == list(range(300))
    finally:
        for consumer in consumers:
            consumer.cancel()
    await weft.wait(consumers)


@work
async def locks(soak: Soak) -> None:
    lock, semaphore, condition = weft.Lock(), weft.Semaphore(3), weft.Condition()

    async def member() -> None:
        async with lock, semaphore:
            await weft.sleep(0)
        async with condition:
            condition.notify()

    async with weft.TaskGroup() as group:
        for task in [group.create_task(member()) for _ in range(50)]:
            if soak.chance.random() < 0.2:
                task.cancel()
            if soak.chance.random() < 0.2:
                await weft.sleep(0)
    assert not lock.locked()
    assert semaphore._value == 3


@work
async def time_outs(soak: Soak) -> None:
    for _ in range(20):
        try:
            async with weft.timeout(soak.chance.random() / 500):
                await weft.wait_for(
                    weft.sleep(soak.chance.random() / 500), soak.chance.random() / 500
                )
        except TimeoutError:
            continue


@work
async def failures(soak: Soak) -> None:
    async def fail(after: float) -> None:
        await weft.sleep(after)
        raise KeyError(after)

    for _ in range(10):
        try:
            async with weft.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(fail(soak.chance.random() / 100))
        except* KeyError:
            pass


@work
async def cancelled(soak: Soak) -> None:
    """Any other work, cancelled on its way."""
    others = [each for each in WORKS if each is not cancelled]
    tasks = [asyncio.ensure_future(soak.chance.choice(others)(soak)) for _ in range(4)]
    await weft.sleep(soak.chance.choice([0, 0, 0.001, 0.01]))
    for task in tasks:
        task.cancel()
    for result in await weft.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, OSError):
            raise result


# -- what the process holds ------------------------------------------------------------------------


def holds() -> dict[str, int]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "resident": pages * os.sysconf("SC_PAGESIZE"),
        "blocks": sys.getallocatedblocks(),
        "objects": len(gc.get_objects()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
    }


async def soak_for(soak: Soak, seconds: float) -> None:
    deadline = time.monotonic() + seconds

    async def worker() -> None:
        while time.monotonic() < deadline:
            each = soak.chance.choice(WORKS)
            await each(soak)
            soak.done[each.__name__] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


async def rest() -> dict[str, int]:
    """Until servers' ends, cancelled threads and children are gone; then a count."""
    for _ in range(200):
        await asyncio.sleep(0.01)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:
            break
    # Pools of threads grow up to their size, sooner or later: now.
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(100)))
    await asyncio.gather(*(loop.run_in_executor(None, time.sleep, 0.01) for _ in range(100)))
    await asyncio.gather(*(loop.getaddrinfo("localhost", port) for port in range(1, 200)))
    for _ in range(20):
        await asyncio.sleep(0.05)
    gc.collect()
    return holds()


async def main(minutes: float) -> None:
    unexpected: list[str] = []

    def report(_: Any, context: dict[str, Any]) -> None:
        # What does not speak TLS is told to the loop.
        if not isinstance(context.get("exception"), ssl.SSLError | ConnectionError):
            unexpected.append(repr(context))

    asyncio.get_running_loop().set_exception_handler(report)
    first = min(60.0, minutes * 60 / 5)
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder))
        async with contextlib.AsyncExitStack() as stack:
            await soak.serve(stack)
            await soak_for(soak, first)
            early = await rest()
            await soak_for(soak, minutes * 60 - first)
            late = await rest()
    print(json.dumps({"early": early, "late": late, "done": soak.done, "reports": unexpected}))


if __name__ == "__main__":
    weft.run(main(float(sys.argv[1])))
