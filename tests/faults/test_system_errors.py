"""The kernel refuses: ENOBUFS, ENOMEM and their like from the very system calls.

A filter of the kernel's own (seccomp) answers calls on one descriptor number with an error. It
stays for the life of a process, so each case has a child of its own.
"""

from __future__ import annotations

import errno
import json
import platform
from typing import Any

import pytest
from backends import Backend
from children import program

pytestmark = [
    pytest.mark.child,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter is written for x86-64"),
]

FILTER = """
import asyncio, ctypes, errno, json, os, socket, struct, sys

FAULTY = 700
CALLS = {"read": 0, "write": 1, "sendfile": 40, "accept": 43, "sendto": 44, "recvfrom": 45,
         "sendmsg": 46, "recvmsg": 47, "accept4": 288, "writev": 20, "readv": 19}
SENDS = ("write", "writev", "sendto", "sendmsg", "sendfile")
RECEIVES = ("read", "readv", "recvfrom", "recvmsg")

def refuse(error, names):
    '''From now on, these calls on the faulty descriptor fail.'''
    numbers = [CALLS[name] for name in names]
    def step(code, jt, jf, k):
        return struct.pack("HBBI", code, jt, jf, k)
    # Load the number of the call; where it is one of ours, look at the descriptor.
    steps = [step(0x20, 0, 0, 0)]
    for place, number in enumerate(numbers):
        steps.append(step(0x15, len(numbers) - place, 0, number))
    steps += [
        step(0x06, 0, 0, 0x7FFF0000),
        step(0x20, 0, 0, 16),
        step(0x15, 0, 1, FAULTY),
        step(0x06, 0, 0, 0x00050000 | error),
        step(0x06, 0, 0, 0x7FFF0000),
    ]
    code = b"".join(steps)
    memory = ctypes.create_string_buffer(code)
    filter = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter, 0, 0):
        print("null")
        os._exit(0)

class Recorder(asyncio.Protocol, asyncio.DatagramProtocol):
    def __init__(self):
        self.calls = []
        self.lost = asyncio.get_running_loop().create_future()
        self.heard = asyncio.get_running_loop().create_future()
    def connection_made(self, transport):
        self.calls.append("made")
    def data_received(self, data):
        self.calls.append(data.decode())
    def datagram_received(self, data, addr):
        self.calls.append(data.decode())
    def error_received(self, exc):
        self.calls.append(["error", exc.errno])
        if not self.heard.done():
            self.heard.set_result(None)
    def connection_lost(self, exc):
        self.calls.append(["lost", exc and exc.errno])
        self.lost.set_result(None)

def pair(kind):
    if kind == "stream":
        left, right = socket.socketpair()
    else:
        left, right = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        right.bind(("127.0.0.1", 0))
        left.bind(("127.0.0.1", 0))
        right.connect(left.getsockname())
        if kind == "connected":
            left.connect(right.getsockname())
    os.dup2(left.fileno(), FAULTY)
    left.close()
    faulty = socket.socket(fileno=FAULTY)
    for sock in (faulty, right):
        sock.setblocking(False)
    return faulty, right

reports = []
def report(loop, context):
    error = context.get("exception")
    reports.append([context["message"], getattr(error, "errno", None)])

def told(main):
    async def whole():
        asyncio.get_running_loop().set_exception_handler(report)
        async with asyncio.timeout(20):
            return await main()
    print(json.dumps([run(whole()), reports]))
"""


def tell(backend: Backend, source: str, error: int) -> Any:
    ended = program(backend, FILTER + source.replace("ERROR", str(error)), "-W", "error")
    told = json.loads(ended.check())
    if told is None:
        pytest.skip("no filters are allowed here")
    return told


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("joined", [False, True], ids=["at once", "joined"])
def test_sending_on_a_stream(backend: Backend, error: int, joined: bool) -> None:
    """The connection ends with the error, once, in silence, as after any OSError."""
    source = """
async def main():
    loop = asyncio.get_running_loop()
    faulty, other = pair("stream")
    transport, protocol = await loop.create_connection(Recorder, sock=faulty)
    transport.write(b"before")
    refuse(ERROR, SENDS)
    for _ in range(WRITES):
        transport.write(b"x")
    await protocol.lost
    transport.write(b"after")
    before = other.recv(100).decode()
    other.close()
    return protocol.calls, before, transport.is_closing(), transport.get_write_buffer_size()
told(main)
"""
    source = source.replace("WRITES", "3" if joined else "1")
    told, reports = tell(backend, source, error)
    assert told == [["made", ["lost", error]], "before", True, 0]
    assert reports == []


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM])
@pytest.mark.parametrize("streams", [False, True], ids=["protocol", "streams"])
def test_receiving_on_a_stream(backend: Backend, error: int, streams: bool) -> None:
    source = """
async def main():
    loop = asyncio.get_running_loop()
    faulty, other = pair("stream")
    if STREAMS:
        reader, writer = await asyncio.open_connection(sock=faulty)
        refuse(ERROR, RECEIVES)
        other.send(b"data")
        try:
            result = await reader.read(5)
        except OSError as error:
            result = error.errno
        writer.close()
        try:
            await writer.wait_closed()
        except OSError as error:
            result = [result, error.errno]
    else:
        transport, protocol = await loop.create_connection(Recorder, sock=faulty)
        refuse(ERROR, RECEIVES)
        other.send(b"data")
        await protocol.lost
        result = protocol.calls
    other.close()
    return result
told(main)
"""
    if backend.is_weft and streams:
        source = "import weft\nweft.install()\n" + source
    told, reports = tell(backend, source.replace("STREAMS", str(streams)), error)
    assert told == ([error, error] if streams else ["made", ["lost", error]])
    assert reports == []


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM])
@pytest.mark.parametrize("connected", [False, True])
def test_datagrams(backend: Backend, error: int, connected: bool) -> None:
    """An error of one datagram is told to the protocol, and the endpoint goes on."""
    source = """
async def main():
    loop = asyncio.get_running_loop()
    faulty, other = pair("connected" if CONNECTED else "datagrams")
    where = other.getsockname()
    transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=faulty)
    refuse(ERROR, SENDS)
    transport.sendto(b"one", None if CONNECTED else where)
    await protocol.heard
    other.send(b"hello")
    while "hello" not in protocol.calls:
        await asyncio.sleep(0.001)
    transport.close()
    await protocol.lost
    other.close()
    return protocol.calls
told(main)
"""
    told, reports = tell(backend, source.replace("CONNECTED", str(connected)), error)
    assert told == ["made", ["error", error], "hello", ["lost", None]]
    assert reports == []


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM])
def test_receiving_datagrams(backend: Backend, error: int) -> None:
    source = """
async def main():
    loop = asyncio.get_running_loop()
    faulty, other = pair("datagrams")
    transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=faulty)
    refuse(ERROR, RECEIVES)
    other.send(b"hello")
    await protocol.heard
    transport.abort()
    await protocol.lost
    other.close()
    return [protocol.calls[0], protocol.calls[1], protocol.calls[-1]]
told(main)
"""
    told, reports = tell(backend, source, error)
    assert told == ["made", ["error", error], ["lost", None]]
    assert reports == []


def test_socket_operations(backend: Backend) -> None:
    """sock_sendall(), sock_recv() and the like raise it, and the loop goes on."""
    source = """
async def main():
    loop = asyncio.get_running_loop()
    faulty, other = pair("stream")
    refuse(ERROR, SENDS + RECEIVES)
    other.send(b"data")
    told = []
    for operation in (loop.sock_sendall(faulty, b"x"), loop.sock_recv(faulty, 5),
                      loop.sock_recv_into(faulty, bytearray(5))):
        try:
            await operation
        except OSError as error:
            told.append(error.errno)
    faulty.close()
    other.close()
    return told, await asyncio.sleep(0, "alive")
told(main)
"""
    told, reports = tell(backend, source, errno.ENOBUFS)
    assert told == [[errno.ENOBUFS] * 3, "alive"]
    assert reports == []


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_accepting(backend: Backend, error: int) -> None:
    """The server reports it, leaves the listener alone for a second, and is still there."""
    source = """
async def main():
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    os.dup2(listener.fileno(), FAULTY)
    listener.close()
    faulty = socket.socket(fileno=FAULTY)
    server = await loop.create_server(Recorder, sock=faulty)
    refuse(ERROR, ["accept", "accept4"])
    with socket.create_connection(faulty.getsockname()):
        while not reports:
            await asyncio.sleep(0.001)
        # It does not try again in each turn.
        await asyncio.sleep(0.02)
        serving = server.is_serving()
        server.close()
    await server.wait_closed()
    return serving
told(main)
"""
    told, reports = tell(backend, source, error)
    assert told is True
    # asyncio's goes on through the backlog before it leaves the listener alone.
    assert len(reports) == 1 or not backend.is_weft
    assert {tuple(report) for report in reports} == {
        ("socket.accept() out of system resource", error)
    }
