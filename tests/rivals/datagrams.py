"""Datagram endpoints."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from typing import Any

from .registry import capability


class _Receives(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.transport: Any = None
        self.got: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self.errors: asyncio.Queue[Exception] = asyncio.Queue()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.put_nowait((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.errors.put_nowait(exc)


async def _endpoint(**kwargs: Any) -> Any:
    return await asyncio.get_running_loop().create_datagram_endpoint(_Receives, **kwargs)


@capability("UDP both ways")
async def udp() -> None:
    one, first = await _endpoint(local_addr=("127.0.0.1", 0))
    two, second = await _endpoint(local_addr=("127.0.0.1", 0))
    one.sendto(b"ping", two.get_extra_info("sockname"))
    data, address = await asyncio.wait_for(second.got.get(), 5)
    two.sendto(data, address)
    assert (await asyncio.wait_for(first.got.get(), 5))[0] == b"ping"
    one.close()
    two.close()


@capability("the transport is an asyncio.DatagramTransport")
async def is_asyncios() -> None:
    transport, _ = await _endpoint(local_addr=("127.0.0.1", 0))
    transport.close()
    assert isinstance(transport, asyncio.DatagramTransport), type(transport)


@capability("connected UDP")
async def connected() -> None:
    served, protocol = await _endpoint(local_addr=("127.0.0.1", 0))
    transport, _ = await _endpoint(remote_addr=served.get_extra_info("sockname"))
    transport.sendto(b"one")
    assert (await asyncio.wait_for(protocol.got.get(), 5))[0] == b"one"
    assert transport.get_extra_info("peername") == served.get_extra_info("sockname")
    transport.close()
    served.close()


@capability("a refused datagram reaches error_received()")
async def refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
    transport, protocol = await _endpoint(remote_addr=address)
    transport.sendto(b"x")
    error = await asyncio.wait_for(protocol.errors.get(), 3)
    assert isinstance(error, ConnectionRefusedError), error
    transport.close()


@capability("a datagram that is too long reaches error_received()")
async def too_long() -> None:
    served, _ = await _endpoint(local_addr=("127.0.0.1", 0))
    transport, protocol = await _endpoint(remote_addr=served.get_extra_info("sockname"))
    transport.sendto(b"x" * 70000)
    error = await asyncio.wait_for(protocol.errors.get(), 3)
    assert isinstance(error, OSError), error
    transport.close()
    served.close()


@capability("empty datagrams are received")
async def empty() -> None:
    served, protocol = await _endpoint(local_addr=("127.0.0.1", 0))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", served.get_extra_info("sockname"))
        assert (await asyncio.wait_for(protocol.got.get(), 3))[0] == b""
    served.close()


@capability("Unix datagrams")
async def unix() -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, two = os.path.join(folder, "one"), os.path.join(folder, "two")
        served, protocol = await _endpoint(local_addr=one, family=socket.AF_UNIX)
        client, _ = await _endpoint(local_addr=two, remote_addr=one, family=socket.AF_UNIX)
        client.sendto(b"hello")
        data, address = await asyncio.wait_for(protocol.got.get(), 3)
        assert (data, address) == (b"hello", two)
        client.close()
        served.close()


@capability("a socketpair of Unix datagrams as sock=")
async def pair() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        transport, protocol = await _endpoint(sock=ours)
        theirs.send(b"hello")
        assert (await asyncio.wait_for(protocol.got.get(), 3))[0] == b"hello"
        transport.close()


@capability("reuse_port and allow_broadcast")
async def options() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        transport, _ = await _endpoint(
            local_addr=holder.getsockname(), reuse_port=True, allow_broadcast=True
        )
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        transport.close()


@capability("close() ends in connection_lost() after what waits was sent")
async def closes() -> None:
    loop = asyncio.get_running_loop()
    lost = loop.create_future()

    class Lost(asyncio.DatagramProtocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    transport, _ = await loop.create_datagram_endpoint(Lost, local_addr=("127.0.0.1", 0))
    transport.close()
    assert await asyncio.wait_for(lost, 3) is None
