"""TLS peers that send garbage, halves of records, too much, or nothing, and that go at any time."""

from __future__ import annotations

import asyncio
import random
import ssl
from typing import Any

import pytest
from certificates import NAME, client_context, server_context
from peers import Run, connected_client, pass_turns, reset, stream_pair
from recorders import PATIENCE, STREAM_RECORDERS, BufferedRecorder, Recorder
from secure import secured_peer

Stream = type[Recorder | BufferedRecorder]
each_stream = pytest.mark.parametrize("stream", STREAM_RECORDERS)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@each_stream
def test_records_in_pieces(run: Run, stream: Stream, version: ssl.TLSVersion) -> None:
    context = server_context()
    context.minimum_version = context.maximum_version = version

    async def main() -> None:
        here = stream()
        async with secured_peer(here, context) as (client, peer):
            assert client.get_extra_info("cipher")[1].replace("TLSv1/SSLv3", "TLSv1.2")
            wire = peer.encrypt(b"one") + peer.encrypt(b"") + peer.encrypt(b"two")
            for place in range(0, len(wire), 7):
                await asyncio.get_running_loop().sock_sendall(peer.sock, wire[place : place + 7])
                await pass_turns(10)
            assert await here.received(6) == b"onetwo"
            client.write(b"answer")
            assert await peer.read(6) == b"answer"

    run(main())


@each_stream
@pytest.mark.parametrize("count", [2, 40])
def test_many_records_at_once_and_the_goodbye(run: Run, stream: Stream, count: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        here = stream()
        async with secured_peer(here) as (_, peer):
            pieces = [random.Random(i).randbytes(i * 400 + 1) for i in range(count)]
            wire = b"".join(map(peer.encrypt, pieces)) + peer.close_notify()
            await loop.sock_sendall(peer.sock, wire)
            assert await here.lost() is None
            assert here.data == b"".join(pieces)
            ends = [name for name in here.calls if name in ("eof_received", "connection_lost")]
            assert ends == ["eof_received", "connection_lost"]

    run(main())


@pytest.mark.parametrize("garbage", [b"\x17\x03\x03\x00\x05hello", b"GET / HTTP/1.1\r\n\r\n"])
def test_garbage_in_the_middle(run: Run, garbage: bytes) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        here = Recorder()
        async with secured_peer(here) as (_, peer):
            await loop.sock_sendall(peer.sock, peer.encrypt(b"fine") + garbage)
            assert isinstance(await here.lost(), ssl.SSLError)

    run(main())


@each_stream
def test_an_end_in_the_middle_of_a_record(run: Run, stream: Stream) -> None:
    """What has come whole is delivered; then it has ended, without an error, as in asyncio."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        here = stream()
        async with secured_peer(here) as (_, peer):
            await loop.sock_sendall(peer.sock, peer.encrypt(b"fine") + peer.encrypt(b"lost")[:-3])
            peer.sock.close()
            assert await here.lost() is None
            assert here.data == b"fine"

    run(main())


def test_a_reset(run: Run) -> None:
    async def main() -> None:
        here = Recorder()
        async with secured_peer(here) as (_, peer):
            reset(peer.sock)
            assert isinstance(await here.lost(), ConnectionResetError)
            assert "eof_received" not in here.calls

    run(main())


@pytest.mark.parametrize("sent", range(0, 500, 61))
@pytest.mark.parametrize("how", ["close", "reset"])
def test_clients_that_go_in_the_middle_of_the_handshake(run: Run, sent: int, how: str) -> None:
    hello, incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client_context().wrap_bio(incoming, hello, server_hostname=NAME).do_handshake()
    wire = hello.read()[:sent]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        there = Recorder()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=server_context())
        async with server:
            sock = connected_client(server.sockets[0].getsockname())
            await loop.sock_sendall(sock, wire)
            await pass_turns(10)
            sock.close() if how == "close" else reset(sock)
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
        await pass_turns()
        assert there.calls == []

    run(main())


def test_random_bytes(run: Run) -> None:
    """No sequence of bytes does more than end its connection."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        chance = random.Random(7)
        for _ in range(20):
            here = Recorder()
            async with secured_peer(here) as (_, peer):
                wire = bytearray(peer.encrypt(b"x" * 100) + peer.encrypt(b"y" * 100))
                wire[chance.randrange(len(wire))] ^= 1 << chance.randrange(8)
                await loop.sock_sendall(peer.sock, wire)
                peer.sock.close()
                await here.lost()
                assert (b"x" * 100 + b"y" * 100).startswith(bytes(here.data))

    run(main())


def test_data_after_we_have_said_goodbye(run: Run) -> None:
    """asyncio, and OpenSSL, take it for an error."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        here = Recorder()
        async with secured_peer(here) as (client, peer):
            client.close()
            await peer.ended()
            await loop.sock_sendall(peer.sock, peer.encrypt(b"too late"))
            assert isinstance(await here.lost(), ssl.SSLError)
            assert here.data == b""

    run(main())


def test_two_in_one_turn_after_the_goodbyes(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        here = Recorder()
        async with secured_peer(here) as (client, peer):
            client.close()
            await peer.ended()
            await loop.sock_sendall(peer.sock, peer.close_notify())
            assert await here.lost() is None

    run(main())


def test_a_peer_that_does_not_read(run: Run) -> None:
    """The time for closing ends it, with all that it has not taken."""

    async def main() -> None:
        here = Recorder()
        async with secured_peer(here, small=True, ssl_shutdown_timeout=0.05) as (client, _):
            client.write(bytes(1 << 22))
            client.close()
            assert isinstance(await here.lost(), TimeoutError)

    run(main())


def test_a_stall_in_the_servers_handshake(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        there = Recorder()
        server = await loop.create_server(
            lambda: there, "127.0.0.1", 0, ssl=server_context(), ssl_handshake_timeout=0.01
        )
        async with server:
            with connected_client(server.sockets[0].getsockname()) as sock:
                async with asyncio.timeout(PATIENCE):
                    assert await loop.sock_recv(sock, 100) == b""
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
        assert there.calls == []

    run(main())


def test_a_stall_of_an_upgrade(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        here = Recorder()
        with theirs:
            plain, _ = await loop.create_connection(lambda: here, sock=ours)
            with pytest.raises(ConnectionAbortedError, match=r"taking longer than 0\.01 "):
                await loop.start_tls(
                    plain, here, client_context(), server_hostname=NAME, ssl_handshake_timeout=0.01
                )
            await pass_turns()
            assert ours.fileno() == -1

    run(main())


def test_session_tickets_are_no_data(run: Run) -> None:
    async def main() -> None:
        here: Any = Recorder()
        async with secured_peer(here) as (client, peer):
            await peer.write(b"x")
            assert await here.received(1) == b"x"
            assert client.get_extra_info("ssl_object").session.has_ticket
            assert here.chunks == [b"x"]

    run(main())
