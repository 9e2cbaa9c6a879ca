"""The other end of a connection: bare sockets that a test holds, with nothing of a loop in them."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

from recorders import PATIENCE

Run = Callable[[Coroutine[Any, Any, Any]], Any]

KINDS = ("tcp", "unix")
SMALL = 4096
"""Buffer size asked of the kernel for connections that are to fill up soon."""
FILLS_UP = 512 * 1024
"""More than any connection with small buffers takes at once."""


def stream_pair(kind: str = "tcp", *, small: bool = False) -> tuple[socket.socket, socket.socket]:
    """Two connected, non-blocking stream sockets; `small` limits what they hold."""
    if kind == "unix":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        if small:
            for sock in (ours, theirs):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    else:
        with listener(small=small) as listening:
            ours = socket.socket(proto=socket.IPPROTO_TCP)
            if small:
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    ours.setsockopt(socket.SOL_SOCKET, option, SMALL)
            ours.connect(listening.getsockname())
            theirs = listening.accept()[0]
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def listener(host: str = "127.0.0.1", *, backlog: int = 100, small: bool = False) -> socket.socket:
    """A blocking socket that listens on a free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, as getaddrinfo() does: transports set TCP_NODELAY only then.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if small:
        # The accepted sockets inherit these.
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SMALL)
    sock.bind((host, 0))
    sock.listen(backlog)
    return sock


def closed_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def connected_client(address: Any) -> socket.socket:
    """A non-blocking socket, connected: the kernel answers without the server's loop."""
    family = socket.AF_UNIX if isinstance(address, (str, bytes)) else socket.AF_INET
    if family == socket.AF_INET and ":" in address[0]:
        family = socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def reset(sock: socket.socket) -> None:
    """Close so that the other end gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def has_arrived(sock: socket.socket, seconds: float = PATIENCE) -> bool:
    """Whether there is something to read, looked up behind the loop's back."""
    return bool(select.select([sock], [], [], seconds)[0])


async def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes from a peer; an end before that fails the test."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    async with asyncio.timeout(PATIENCE * 6):
        while len(data) < size:
            piece = await loop.sock_recv(sock, min(1 << 20, size - len(data)))
            assert piece, f"the connection ended after {len(data)} of {size} bytes"
            data += piece
    return bytes(data)


async def read_all(sock: socket.socket) -> bytes:
    """Read from a peer until the end of the stream."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    async with asyncio.timeout(PATIENCE * 6):
        while piece := await loop.sock_recv(sock, 1 << 20):
            data += piece
    return bytes(data)


@contextlib.asynccontextmanager
async def wired(
    protocol: Any, kind: str = "tcp", *, small: bool = False
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A transport for `protocol` (a recorder), and a bare socket at the other end of it.

    Both are gone at the end, whatever the test did with them.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = stream_pair(kind, small=small)
    try:
        if kind == "unix":
            transport, made = await loop.create_unix_connection(lambda: protocol, sock=ours)
        else:
            transport, made = await loop.create_connection(lambda: protocol, sock=ours)
        assert made is protocol
        try:
            yield transport, theirs
        finally:
            if not protocol.lost_with:
                transport.abort()
                await protocol.lost()
    finally:
        theirs.close()


async def pass_turns(count: int = 3) -> None:
    """Let the loop turn a few times, for what is promised within so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


@contextlib.contextmanager
def unanswered_address() -> Iterator[tuple[str, int]]:
    """An address on the loopback where a connect neither succeeds nor fails.

    A listener that accepts nothing and has its queue full ignores whoever comes next.
    """
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(listener(backlog=0))
        address = listening.getsockname()
        while True:
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address)
            if not select.select([], [sock], [], 0.05)[1]:
                break
        yield address


def has_ipv6() -> bool:
    """Whether the loopback has an IPv6 address."""
    try:
        listener("::1").close()
    except OSError:
        return False
    return True
