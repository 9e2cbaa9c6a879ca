"""TLS: over connections of the loop, over streams, upgrades, inside itself, and its ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from certificates import NAME, client_context, server_context
from peers import FILLS_UP, KINDS, Run, pass_turns, reset, stream_pair
from recorders import PATIENCE, STREAM_RECORDERS, BufferedRecorder, Recorder

Stream = type[Recorder | BufferedRecorder]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_stream = pytest.mark.parametrize("stream", STREAM_RECORDERS)


@contextlib.asynccontextmanager
async def secured(
    here: Any, there: Any, kind: str = "tcp", tmp_path: Path | None = None, **server_options: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """A TLS connection between two recorders: the client's transport and the server's."""
    loop = asyncio.get_running_loop()
    context = server_options.pop("ssl", None) or server_context()
    if kind == "unix":
        path = str(tmp_path / "socket")  # type: ignore[operator]
        server = await loop.create_unix_server(lambda: there, path, ssl=context, **server_options)
        connecting: Any = loop.create_unix_connection(
            lambda: here, path, ssl=client_context(), server_hostname=NAME
        )
    else:
        server = await loop.create_server(
            lambda: there, "127.0.0.1", 0, ssl=context, **server_options
        )
        connecting = loop.create_connection(
            lambda: here,
            *server.sockets[0].getsockname(),
            ssl=client_context(),
            server_hostname=NAME,
        )
    async with server:
        transport, _ = await connecting
        await there.called("connection_made")
        try:
            yield transport, there.transport
        finally:
            for protocol in (here, there):
                if not protocol.lost_with:
                    protocol.transport.abort()
                await protocol.lost()
    await server.wait_closed()


@each_kind
@each_stream
def test_a_conversation(run: Run, kind: str, stream: Stream, tmp_path: Path) -> None:
    async def main() -> None:
        here, there = stream(), stream()
        async with secured(here, there, kind, tmp_path) as (client, server):
            assert isinstance(client, asyncio.Transport)
            client.write(b"question")
            client.writelines([b" and", bytearray(b" "), memoryview(b"more")])
            assert await there.received(17) == b"question and more"
            server.write(b"answer")
            assert await here.received(6) == b"answer"
            assert not client.can_write_eof()
            with pytest.raises(NotImplementedError):
                client.write_eof()
            client.close()
            assert client.is_closing()
            assert await here.lost() is None
            assert await there.lost() is None
            ends = [name for name in there.calls if name in ("eof_received", "connection_lost")]
            assert ends == ["eof_received", "connection_lost"]

    run(main())


@each_stream
def test_what_it_tells(run: Run, stream: Stream) -> None:
    """hypercorn asks for the ALPN protocol, aiohttp for the certificate in DER."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        here, there = stream(), stream()
        context = client_context("h2", "http/1.1")
        server = await loop.create_server(
            lambda: there, "127.0.0.1", 0, ssl=server_context("http/1.1")
        )
        async with server:
            where = server.sockets[0].getsockname()
            client, _ = await loop.create_connection(
                lambda: here, *where, ssl=context, server_hostname=NAME
            )
            await there.called("connection_made")
            tls = client.get_extra_info("ssl_object")
            assert isinstance(tls, ssl.SSLObject)
            assert tls.selected_alpn_protocol() == "http/1.1"
            assert (
                there.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            )
            assert tls.getpeercert(binary_form=True)
            assert tls.context is context
            assert tls.server_hostname == NAME
            assert tls.session is not None
            assert client.get_extra_info("sslcontext") is context
            assert client.get_extra_info("peercert")["subject"] == ((("commonName", NAME),),)
            assert client.get_extra_info("cipher") == tls.cipher()
            assert client.get_extra_info("compression") is None
            assert client.get_extra_info("peername") == where
            assert isinstance(client.get_extra_info("socket"), asyncio.trsock.TransportSocket)
            assert there.transport.get_extra_info("peercert") in (None, {})
            for protocol in (here, there):
                protocol.transport.close()
                await protocol.lost()

    run(main())


@each_stream
@pytest.mark.slow
def test_much_in_both_directions(run: Run, stream: Stream) -> None:
    data = random.Random(5).randbytes(1 << 20) * 16

    async def main() -> None:
        here, there = stream(), stream()
        async with secured(here, there) as (client, server):
            client.write(data)
            server.write(data)
            for protocol in (here, there):
                received = await protocol.received(len(data))
                assert hashlib.blake2b(received).digest() == hashlib.blake2b(data).digest()

    run(main())


def test_flow_control(run: Run) -> None:
    async def main() -> None:
        here, there = Recorder(), Recorder()
        async with secured(here, there) as (client, server):
            server.pause_reading()
            assert not server.is_reading()
            while "pause_writing" not in here.calls:
                client.write(bytes(1 << 20))
                await pass_turns()
            assert client.get_write_buffer_size() > client.get_write_buffer_limits()[1]
            server.resume_reading()
            await here.called("resume_writing")

    run(main())


def test_close_flushes(run: Run) -> None:
    async def main() -> None:
        here, there = Recorder(), Recorder()
        async with secured(here, there) as (client, _):
            client.write(b"x" * (4 << 20))
            client.close()
            assert await there.lost() is None
            assert len(there.data) == 4 << 20
            assert await here.lost() is None

    run(main())


@each_kind
def test_abort(run: Run, kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        here, there = Recorder(), Recorder()
        async with secured(here, there, kind, tmp_path) as (client, _):
            client.write(b"x" * (4 << 20))
            client.abort()
            assert await here.lost() is None
            await there.lost()
            assert len(there.data) < 4 << 20
            for protocol in (here, there):
                assert protocol.calls.count("connection_lost") == 1

    run(main())


def test_a_close_always_ends(run: Run) -> None:
    """Even where the peer never answers the closing handshake."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            peer = server_context().wrap_bio(incoming, outgoing, server_side=True)
            protocol = Recorder()
            connecting = loop.create_task(
                loop.create_connection(
                    lambda: protocol,
                    sock=ours,
                    ssl=client_context(),
                    server_hostname=NAME,
                    ssl_shutdown_timeout=0.01,
                )
            )
            while True:
                try:
                    peer.do_handshake()
                except ssl.SSLWantReadError:
                    await loop.sock_sendall(theirs, outgoing.read())
                    incoming.write(await loop.sock_recv(theirs, 65_536))
                else:
                    await loop.sock_sendall(theirs, outgoing.read())
                    break
            transport, _ = await connecting
            transport.close()
            exc = await protocol.lost()
            assert exc is None or isinstance(exc, TimeoutError)

    run(main())


# -- handshakes that fail --------------------------------------------------------------------------


def test_a_certificate_that_is_not_trusted(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        there = Recorder()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=server_context())
        where = server.sockets[0].getsockname()
        async with server:
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.create_connection(
                    Recorder, *where, ssl=ssl.create_default_context(), server_hostname=NAME
                )
            with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                await loop.create_connection(
                    Recorder, *where, ssl=client_context(), server_hostname="example.invalid"
                )
            # The address is in the certificate, and is what is verified without a name.
            here = Recorder()
            transport, _ = await loop.create_connection(lambda: here, *where, ssl=client_context())
            transport.close()
            await here.lost()
            await there.lost()
            assert there.calls.count("connection_made") == 1

    run(main())


def test_a_peer_that_speaks_something_else(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with pytest.raises(ssl.SSLError):
                await loop.create_connection(
                    Recorder, sock=ours, ssl=client_context(), server_hostname=NAME
                )
            assert ours.fileno() == -1

    run(main())


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_peer_that_goes_during_the_handshake(run: Run, how: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        connecting = loop.create_task(
            loop.create_connection(Recorder, sock=ours, ssl=client_context(), server_hostname=NAME)
        )
        await pass_turns(5)
        theirs.close() if how == "close" else reset(theirs)
        with pytest.raises(OSError):  # noqa: PT011
            await connecting
        assert ours.fileno() == -1

    run(main())


def test_a_handshake_that_takes_too_long(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            with pytest.raises(ConnectionAbortedError, match="handshake is taking longer"):
                await loop.create_connection(
                    Recorder,
                    sock=ours,
                    ssl=client_context(),
                    server_hostname=NAME,
                    ssl_handshake_timeout=0.01,
                )
            await pass_turns()
            assert ours.fileno() == -1

    run(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 12, 20])
def test_a_handshake_cancelled_at_every_step(run: Run, turns: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocols: list[Recorder] = []

        def factory() -> Recorder:
            protocols.append(Recorder())
            return protocols[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context())
        async with server:
            task = loop.create_task(
                loop.create_connection(
                    Recorder,
                    *server.sockets[0].getsockname(),
                    ssl=client_context(),
                    server_hostname=NAME,
                )
            )
            await pass_turns(turns)
            task.cancel()
            try:
                transport, protocol = await task
            except asyncio.CancelledError:
                pass
            else:
                transport.abort()
                await protocol.lost()
            # What the kernel has connected is accepted before the server goes.
            await pass_turns(5)
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
            for protocol in protocols:
                if protocol.calls:
                    await protocol.lost()

    run(main())


def test_handshakes_of_clients_that_go_do_not_disturb_the_server(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        there = Recorder()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=server_context())
        where = server.sockets[0].getsockname()
        async with server:
            for text in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"):
                with socket.create_connection(where) as client:
                    client.sendall(text)
            here = Recorder()
            transport, _ = await loop.create_connection(lambda: here, *where, ssl=client_context())
            transport.write(b"fine")
            assert await there.received(4) == b"fine"
            transport.close()
            await here.lost()
            await there.lost()

    run(main())


# -- upgrades --------------------------------------------------------------------------------------


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


def test_the_class_of_the_contexts_objects_is_kept(run: Run) -> None:
    """pymongo sets sslobject_class, and reuses the session of an earlier connection."""

    class Object(ssl.SSLObject):
        pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        there = Recorder()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=server_context())
        context = client_context()
        context.sslobject_class = Object
        async with server:
            here = Recorder()
            transport, _ = await loop.create_connection(
                lambda: here,
                *server.sockets[0].getsockname(),
                ssl=context,
                server_hostname=NAME,
            )
            assert type(transport.get_extra_info("ssl_object")) is Object
            assert transport.get_extra_info("ssl_object").session_reused is False
            transport.close()
            await here.lost()
            await there.lost()

    run(main())


# -- streams ---------------------------------------------------------------------------------------


@each_kind
def test_streams(run: Run, kind: str, tmp_path: Path) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            writer.write(line.upper())
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def main() -> None:
        options: dict[str, Any] = {"ssl": client_context(), "server_hostname": NAME}
        if kind == "unix":
            path = str(tmp_path / "socket")
            server = await asyncio.start_unix_server(shout, path, ssl=server_context())
            reader, writer = await asyncio.open_unix_connection(path, **options)
        else:
            server = await asyncio.start_server(shout, "127.0.0.1", 0, ssl=server_context())
            where = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*where, **options)
        async with server:
            for number in range(20):
                writer.write(b"line %d\n" % number)
                assert await reader.readline() == b"LINE %d\n" % number
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

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


def test_true_stands_for_the_default_context(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            connecting = loop.create_task(
                loop.create_connection(Recorder, sock=ours, ssl=True, server_hostname=NAME)
            )
            hello = await loop.sock_recv(theirs, 1000)
            assert hello.startswith(b"\x16\x03"), "a TLS handshake"
        with pytest.raises(OSError):  # noqa: PT011
            await connecting

    run(main())
