"""What a transport tells about itself: get_extra_info, types, repr, attributes libraries read."""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import Any

import pytest
from peers import (
    FILLS_UP,
    KINDS,
    Run,
    connected_client,
    pass_turns,
    read_exactly,
    stream_pair,
    wired,
)
from recorders import Recorder

pytestmark = pytest.mark.parametrize("kind", KINDS)


# -- get_extra_info --------------------------------------------------------------------------------


def test_the_addresses(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)
        addresses = ours.getsockname(), ours.getpeername()
        with theirs:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            for _ in range(2):
                assert transport.get_extra_info("sockname") == addresses[0]
                assert transport.get_extra_info("peername") == addresses[1]
                # They stay known after the end: servers log them then.
                transport.close()
                await protocol.lost()

    run(main())


def test_the_addresses_of_an_accepted_connection(run: Run, kind: str, tmp_path: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        if kind == "tcp":
            server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        else:
            server = await loop.create_unix_server(lambda: protocol, str(tmp_path / "socket"))
        address = server.sockets[0].getsockname()
        with connected_client(address) as client:
            await protocol.called("connection_made")
            assert protocol.transport.get_extra_info("sockname") == address
            assert protocol.transport.get_extra_info("peername") == client.getsockname()
            protocol.transport.close()
            await protocol.lost()
        server.close()
        await server.wait_closed()

    run(main())


def test_unknown_keys_and_defaults(run: Run, kind: str) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, _):
            default = object()
            assert transport.get_extra_info("nonsense") is None
            assert transport.get_extra_info("nonsense", default) is default
            assert transport.get_extra_info("nonsense", default=default) is default
            assert transport.get_extra_info("socket", default) is not default
            for key in ("sslcontext", "ssl_object", "peercert", "cipher", "compression", "pipe"):
                assert transport.get_extra_info(key) is None
                assert transport.get_extra_info(key, default) is default

    run(main())


def test_the_socket_is_asyncios_transport_socket(run: Run, kind: str) -> None:
    """aiomysql dup()s it, aiohttp sets options on it, others look at its family."""

    async def main() -> None:
        ours, theirs = stream_pair(kind)
        with theirs:
            number, family = ours.fileno(), ours.family
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            sock = transport.get_extra_info("socket")
            assert isinstance(sock, asyncio.trsock.TransportSocket)
            assert sock.fileno() == number
            assert sock.family == family
            assert sock.type == socket.SOCK_STREAM
            assert sock.proto == ours.proto
            assert sock.getsockname() == ours.getsockname()
            assert sock.getpeername() == ours.getpeername()
            assert sock.gettimeout() == 0
            sock.settimeout(0)
            sock.setblocking(False)
            with pytest.raises(ValueError, match="only 0 timeout is allowed"):
                sock.settimeout(5)
            with pytest.raises(ValueError, match="cannot be blocking"):
                sock.setblocking(True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            for name in ("close", "recv", "send", "accept", "detach"):
                assert not hasattr(sock, name)
            assert f"fd={number}" in repr(sock)
            with sock.dup() as copy:
                assert copy.fileno() != number
                assert copy.getsockname() == ours.getsockname()
            transport.close()
            await protocol.lost()
            assert sock.fileno() == -1
            assert "fd=-1" in repr(sock)

    run(main())


def test_a_duplicate_of_the_socket_outlives_the_transport(run: Run, kind: str) -> None:
    """aiomysql goes on with a duplicate when it upgrades a connection to TLS."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = Recorder()
        async with wired(first, kind) as (transport, peer):
            transport.pause_reading()
            copy = transport.get_extra_info("socket").dup()
            transport.close()
            assert await first.lost() is None
            second = Recorder()
            again, _ = await loop.create_connection(lambda: second, sock=copy)
            await loop.sock_sendall(peer, b"same wire")
            assert await second.received(9) == b"same wire"
            again.write(b"new hands")
            assert await read_exactly(peer, 9) == b"new hands"
            again.close()
            await second.lost()

    run(main())


def test_small_writes_are_not_held_back_by_the_kernel(run: Run, kind: str) -> None:
    if kind == "unix":
        pytest.skip("TCP only")

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, _):
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(main())


# -- types -----------------------------------------------------------------------------------------


def test_it_is_an_asyncio_transport_from_the_start(run: Run, kind: str) -> None:
    """aiohttp's tests assert it from within connection_made."""

    async def main() -> None:
        seen: list[bool] = []

        def look(transport: Any) -> None:
            seen.extend(
                isinstance(transport, kind)
                for kind in (
                    asyncio.BaseTransport,
                    asyncio.ReadTransport,
                    asyncio.WriteTransport,
                    asyncio.Transport,
                )
            )
            seen.append(not isinstance(transport, asyncio.DatagramTransport))

        async with wired(Recorder(connection_made=look), kind):
            assert seen == [True] * 5

    run(main())


def test_it_can_be_referred_to_weakly_and_kept_in_a_set(run: Run, kind: str) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, _):
            assert weakref.ref(transport)() is transport
            assert len({transport, transport}) == 1
            assert len(weakref.WeakSet([transport])) == 1

    run(main())


def test_tls_can_be_started_on_it(run: Run, kind: str) -> None:
    """aiohttp reads this attribute before it runs TLS inside TLS."""

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, _):
            assert transport._start_tls_compatible is True

    run(main())


# -- repr ------------------------------------------------------------------------------------------


def test_repr_tells_the_state(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind, small=True)
        with theirs:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            await pass_turns()
            assert f"fd={ours.fileno()}" in repr(transport)
            assert "read=polling" in repr(transport)
            assert "write=<idle, bufsize=0>" in repr(transport)
            transport.pause_reading()
            assert "read=idle" in repr(transport)
            transport.write(b"x" * FILLS_UP)
            size = transport.get_write_buffer_size()
            assert f"write=<polling, bufsize={size}>" in repr(transport)
            assert "closing" not in repr(transport)
            transport.close()
            assert "closing" in repr(transport)
            transport.abort()
            await protocol.lost()
            assert "closed" in repr(transport)

    run(main())


def test_repr_on_a_closed_loop(loop: asyncio.AbstractEventLoop, kind: str) -> None:
    ours, theirs = stream_pair(kind)
    transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, sock=ours))
    transport.abort()
    loop.run_until_complete(protocol.lost())
    loop.close()
    theirs.close()
    assert "closed" in repr(transport)
