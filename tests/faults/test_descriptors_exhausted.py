"""No descriptor is left: whoever asks for one gets the error, the loop goes on, and recovers as
they come free.
"""

from __future__ import annotations

import errno
import json
import sys

import pytest
from backends import Backend
from children import program

pytestmark = [pytest.mark.child, pytest.mark.slow]

PREPARE = """
import errno, gc, json, os, resource, socket

LIMIT = 64
resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
hogs = []

def take_all():
    while True:
        try:
            hogs.append(os.dup(0))
        except OSError:
            return

def give(count):
    for _ in range(count):
        os.close(hogs.pop())

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

reports = []
def report(loop, context):
    error = context.get("exception")
    reports.append([context["message"], getattr(error, "errno", None)])

def count():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
"""


def test_accepting_again(backend: Backend) -> None:
    """The server backs off for a second, then accepts who has been waiting since."""
    source = """
async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    clients = [socket.socket() for _ in range(3)]
    for client in clients:
        client.setblocking(False)
    # What the loop makes with its first connection is there already.
    await loop.sock_connect(clients[0], server.sockets[0].getsockname())
    await loop.sock_sendall(clients[0], b"first")
    assert await loop.sock_recv(clients[0], 10) == b"first"
    take_all()
    for client in clients[1:]:
        # The kernel connects them all the same.
        await loop.sock_connect(client, server.sockets[0].getsockname())
        await loop.sock_sendall(client, b"hello")
    while not reports:
        await asyncio.sleep(0.01)
    # Meanwhile who is connected is served.
    await loop.sock_sendall(clients[0], b"second")
    assert await loop.sock_recv(clients[0], 10) == b"second"
    give(10)
    async with asyncio.timeout(20):
        for client in clients[1:]:
            assert await loop.sock_recv(client, 10) == b"hello"
    for client in clients:
        client.close()
    server.close()
    await server.wait_closed()
    print(json.dumps([list(each) for each in {tuple(report) for report in reports}]))
run(main())
"""
    told = json.loads(program(backend, PREPARE + source, "-W", "error").check())
    assert told == [["socket.accept() out of system resource", errno.EMFILE]]


@pytest.mark.parametrize(
    "attempt",
    [
        "loop.create_connection(asyncio.Protocol, *where)",
        "loop.create_unix_connection(asyncio.Protocol, '/nowhere')",
        "loop.create_server(asyncio.Protocol, '127.0.0.1', 0)",
        "loop.create_datagram_endpoint(asyncio.DatagramProtocol, ('127.0.0.1', 0))",
        "asyncio.open_connection(*where)",
        "asyncio.create_subprocess_exec('true')",
        "asyncio.create_subprocess_exec('cat', stdin=-1, stdout=-1, stderr=-1)",
    ],
)
def test_asking_for_one(backend: Backend, attempt: str) -> None:
    """With none left, and with one, two ... left: an OSError or success, and nothing is lost on
    the way.
    """
    # Up to 3.11 a server may have no socket at all.
    may_serve_nowhere = "create_server" in attempt and sys.version_info < (3, 12)
    source = f"""
async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    where = server.sockets[0].getsockname()
    outcomes = set()
    async def once():
        try:
            async with asyncio.timeout(20):
                made = await {attempt}
        except OSError as error:
            outcomes.add(error.errno)
            return
        outcomes.add(0)
        if isinstance(made, asyncio.subprocess.Process):
            if made.stdin:
                made.stdin.close()
            await made.communicate()
        elif isinstance(made, asyncio.Server):
            made.close()
            await made.wait_closed()
        else:
            (made[0] if hasattr(made[0], "abort") else made[1].transport).abort()
        await asyncio.sleep(0.01)
    await once()
    before = count()
    for spare in range(8):
        take_all()
        give(spare)
        await once()
        give(len(hogs))
        # A connection that the server could not accept at first may still be there.
        for _ in range(300):
            if count() <= before:
                break
            await asyncio.sleep(0.01)
        assert count() <= before, (spare, count(), before)
    # create_server() tries all addresses, and says that none could be had.
    assert outcomes & {{{errno.EMFILE}, None}} or {may_serve_nowhere}, outcomes
    server.close()
run(main())
expected = ["socket.accept() out of system resource", errno.EMFILE]
assert all(each == expected for each in reports), reports
print("survived")
"""
    ended = program(backend, PREPARE + source, timeout=60)
    assert (ended.code, ended.out) == (0, "survived\n"), ended.err
