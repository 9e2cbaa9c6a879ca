"""Upgrades of connections that are there: start_tls, TLS in TLS, duplicates of sockets, streams."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest
from certificates import NAME, client_context, server_context
from peers import FILLS_UP, Run, connected_client, pass_turns, stream_pair
from recorders import PATIENCE, BufferedRecorder, Recorder
from secure import SecurePeer, secured


def test_start_tls(run: Run) -> None:
    """As asyncpg does it: connection_made and set_protocol are the program's own affair."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        here, there = Recorder(), Recorder()
        client, _ = await loop.create_connection(lambda: here, sock=ours)
        server, _ = await loop.connect_accepted_socket(lambda: there, theirs)
        client.write(b"STARTTLS")
        await there.received(8)
        server.write(b"GO")
        await here.received(2)
        secure_client, secure_server = await asyncio.gather(
            loop.start_tls(client, here, client_context(), server_hostname=NAME),
            loop.start_tls(server, there, server_context(), server_side=True),
        )
        assert isinstance(secure_client, asyncio.Transport)
        assert secure_client.get_extra_info("ssl_object").version().startswith("TLS")
        assert secure_client.get_protocol() is here
        assert here.calls.count("connection_made") == 1
        new = BufferedRecorder()
        new.connection_made(secure_client)
        secure_client.set_protocol(new)
        secure_client.write(b"secret")
        assert await there.received(14) == b"STARTTLSsecret"
        secure_server.write(b"answer")
        assert await new.received(6) == b"answer"
        secure_client.close()
        assert await new.lost() is None
        await there.lost()

    run(main())


def test_tls_inside_tls(run: Run) -> None:
    """aiohttp reaches an https site through an https proxy like this."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        here, there = Recorder(), Recorder()
        async with secured(here, there) as (client, server):
            if not getattr(client, "_start_tls_compatible", False):
                pytest.skip("asyncio has it from 3.11 on")
            inner_client, inner_server = await asyncio.gather(
                loop.start_tls(client, here, client_context(), server_hostname=NAME),
                loop.start_tls(server, there, server_context(), server_side=True),
            )
            inner_client.write(b"x" * FILLS_UP)
            assert await there.received(FILLS_UP) == b"x" * FILLS_UP
            inner_server.write(b"answer")
            assert await here.received(6) == b"answer"
            inner_client.close()
            assert await here.lost() is None
            await there.lost()

    run(main())


def test_start_tls_refuses_what_is_none(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            protocol = Recorder()
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            with pytest.raises(TypeError, match="sslcontext is expected"):
                await loop.start_tls(transport, protocol, None)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="is not supported by start_tls"):
                await loop.start_tls(object(), protocol, client_context())  # type: ignore[arg-type]
            transport.close()
            await protocol.lost()

    run(main())


def test_tls_on_a_duplicate_of_the_socket(run: Run) -> None:
    """aiomysql pauses the transport, and goes on with TLS on a duplicate of its socket."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        first, there = Recorder(), Recorder()
        plain, _ = await loop.create_connection(lambda: first, sock=ours)
        server, _ = await loop.connect_accepted_socket(lambda: there, theirs)
        server.write(b"greeting")
        assert await first.received(8) == b"greeting"
        plain.pause_reading()
        copy = plain.get_extra_info("socket").dup()
        plain.close()
        await first.lost()
        second = Recorder()
        (client, _), secure = await asyncio.gather(
            loop.create_connection(
                lambda: second, sock=copy, ssl=client_context(), server_hostname=NAME
            ),
            loop.start_tls(server, there, server_context(), server_side=True),
        )
        client.write(b"secret")
        assert await there.received(6) == b"secret"
        client.close()
        await second.lost()
        await there.lost()
        assert secure.is_closing()

    run(main())


def test_upgrading_a_stream(run: Run) -> None:
    async def main() -> None:
        async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"GO\n")
            await writer.start_tls(server_context())
            writer.write(b"secure: " + await reader.readline())
            await writer.drain()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(upgrade, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"GO\n"
            await writer.start_tls(client_context(), server_hostname=NAME)
            assert writer.get_extra_info("ssl_object") is not None
            writer.write(b"hello\n")
            assert await reader.readline() == b"secure: hello\n"
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

    run(main())


def test_a_transport_that_is_somebody_elses(run: Run) -> None:
    """What is under TLS need not be the loop's own transport."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        here = Recorder()
        with theirs:
            foreign = asyncio.selector_events._SelectorSocketTransport(loop, ours, here)  # type: ignore[attr-defined]
            await here.called("connection_made")
            peer = SecurePeer(theirs)
            client, _ = await asyncio.gather(
                loop.start_tls(foreign, here, client_context(), server_hostname=NAME),
                peer.handshake(),
            )
            client.write(b"question")
            assert await peer.read(8) == b"question"
            await peer.write(b"answer")
            assert await here.received(6) == b"answer"
            client.abort()
            await here.lost()

    run(main())


def test_an_accepted_socket(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        here, there = Recorder(), BufferedRecorder()
        (client, _), (server, _) = await asyncio.gather(
            loop.create_connection(
                lambda: here, sock=ours, ssl=client_context(), server_hostname=NAME
            ),
            loop.connect_accepted_socket(lambda: there, theirs, ssl=server_context()),
        )
        client.write(b"question")
        assert await there.received(8) == b"question"
        server.close()
        assert await here.lost() is None
        await there.lost()

    run(main())


@pytest.mark.parametrize("end", ["close", "abort", "reset"])
def test_the_end_of_tls_inside_tls(run: Run, end: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        here, there = Recorder(), Recorder()
        async with secured(here, there) as (client, server):
            inner_client, _ = await asyncio.gather(
                loop.start_tls(client, here, client_context(), server_hostname=NAME),
                loop.start_tls(server, there, server_context(), server_side=True),
            )
            if end == "reset":
                client.abort()
            else:
                getattr(inner_client, end)()
            assert await here.lost() is None
            await there.lost()
            assert here.calls.count("connection_lost") == 1
            assert inner_client.is_closing()

    run(main())


def test_an_upgrade_that_is_cancelled(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for turns in (1, 2, 3, 5):
            ours, theirs = stream_pair()
            here = Recorder()
            with theirs:
                plain, _ = await loop.create_connection(lambda here=here: here, sock=ours)  # type: ignore[misc]
                upgrading = loop.create_task(
                    loop.start_tls(plain, here, client_context(), server_hostname=NAME)
                )
                await pass_turns(turns)
                upgrading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await upgrading
                await pass_turns(5)
                assert ours.fileno() == -1

    run(main())


@pytest.mark.backends("weft")
def test_a_client_that_does_not_wait_for_the_servers_go(run: Run) -> None:
    """What follows its request belongs to TLS; asyncio loses it before the newest releases."""

    async def main() -> None:
        async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"STARTTLS\n"
            await writer.start_tls(server_context())
            writer.write(await reader.readline())
            await reader.read()
            writer.close()

        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(upgrade, "127.0.0.1", 0)
        async with server:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context().wrap_bio(incoming, outgoing, server_hostname=NAME)
            with connected_client(server.sockets[0].getsockname()) as sock:
                with pytest.raises(ssl.SSLWantReadError):
                    tls.do_handshake()
                # In one packet, so that the server's reader has both.
                await loop.sock_sendall(sock, b"STARTTLS\n" + outgoing.read())
                while True:
                    incoming.write(await loop.sock_recv(sock, 65_536))
                    with contextlib.suppress(ssl.SSLWantReadError):
                        tls.do_handshake()
                        break
                tls.write(b"hello\n")
                await loop.sock_sendall(sock, outgoing.read())
                answer = b""
                while not answer:
                    incoming.write(await loop.sock_recv(sock, 65_536))
                    with contextlib.suppress(ssl.SSLWantReadError):
                        answer = tls.read(100)
                assert answer == b"hello\n"
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

    run(main())


def test_a_connection_that_was_closed_before_its_upgrade(run: Run) -> None:
    """aiohttp asks for the answer None, and makes an error of it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            transport.close()
            upgraded = await loop.start_tls(
                transport, protocol, client_context(), server_hostname=NAME
            )
            assert upgraded is None

    run(main())
