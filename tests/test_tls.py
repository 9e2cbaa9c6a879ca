"""TLS connections that are open: data in both directions, what they tell, flow control, streams."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import ssl
from pathlib import Path
from typing import Any

import pytest
import weft
from certificates import NAME, client_context, server_context
from peers import KINDS, Run, pass_turns
from recorders import PATIENCE, STREAM_RECORDERS, BufferedRecorder, Recorder
from secure import secured, secured_peer

Stream = type[Recorder | BufferedRecorder]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_stream = pytest.mark.parametrize("stream", STREAM_RECORDERS)


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


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@each_stream
def test_both_versions_of_tls(run: Run, stream: Stream, version: ssl.TLSVersion) -> None:
    context = server_context()
    context.minimum_version = context.maximum_version = version

    async def main() -> None:
        here, there = stream(), stream()
        async with secured(here, there, ssl=context) as (client, server):
            name = version.name.replace("_", ".")
            assert client.get_extra_info("ssl_object").version() == name
            client.write(b"x" * 100_000)
            assert len(await there.received(100_000)) == 100_000
            server.writelines([b"", b"answer", bytearray(b" "), memoryview(b"in parts")])
            assert await here.received(15) == b"answer in parts"

    run(main())


def test_what_write_refuses(run: Run) -> None:
    async def main() -> None:
        here, there = Recorder(), Recorder()
        async with secured(here, there) as (client, _):
            with pytest.raises(TypeError, match="expecting a bytes-like instance, got str"):
                client.write("text")
            client.write(b"")
            client.writelines([])
            client.write(b"fine")
            assert await there.received(4) == b"fine"

    run(main())


def test_limits(run: Run) -> None:
    async def main() -> None:
        here, there = Recorder(), Recorder()
        async with secured(here, there) as (client, _):
            assert client.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
            client.set_write_buffer_limits(high=1000)
            assert client.get_write_buffer_limits() == (250, 1000)
            client.set_write_buffer_limits(low=1000)
            assert client.get_write_buffer_limits() == (1000, 4000)
            with pytest.raises(ValueError, match="must be >= low"):
                client.set_write_buffer_limits(high=1, low=2)
            assert client.get_read_buffer_limits() == (64 * 1024, 256 * 1024)
            client.set_read_buffer_limits(high=5000, low=70)
            assert client.get_read_buffer_limits() == (70, 5000)
            assert client.get_read_buffer_size() == client.get_write_buffer_size() == 0

    run(main())


@pytest.mark.backends("weft")
def test_a_limit_of_zero_pauses_only_when_something_waits(run: Run) -> None:
    """asyncio's TLS pauses when nothing does, and a drain() may then wait for ever."""

    async def main() -> None:
        here, there = Recorder(), Recorder()
        async with secured(here, there) as (client, _):
            client.set_write_buffer_limits(0)
            for _ in range(4):
                client.write(b"x")
            assert await there.received(4) == b"xxxx"
            assert "pause_writing" not in here.calls

    run(main())


def test_reading_is_paused_below_when_too_much_waits(run: Run) -> None:
    async def main() -> None:
        here = Recorder()
        async with secured_peer(here, small=True) as (client, peer):
            client.pause_reading()
            client.set_read_buffer_limits(high=20_000)
            writing = asyncio.create_task(peer.write(bytes(1 << 17)))
            while client.get_read_buffer_size() < 20_000:
                await asyncio.sleep(0)
            await pass_turns(10)
            assert here.data == b""
            client.resume_reading()
            await here.received(1 << 17)
            await writing

    run(main())


def test_a_file_is_sent(run: Run, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(1 << 19)
    path = tmp_path / "file"
    path.write_bytes(data)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        here, there = Recorder(), Recorder()
        async with secured(here, there) as (client, _):
            with path.open("rb") as file:
                assert await loop.sendfile(client, file) == len(data)
                assert await there.received(len(data)) == data
                with pytest.raises(RuntimeError):
                    await loop.sendfile(client, file, fallback=False)

    run(main())


@pytest.mark.backends("weft")
@pytest.mark.parametrize("size", [1, 1000, 70_000, 1 << 20])
def test_native_streams(run: Run, size: int) -> None:
    """Their buffers are filled without a call through Python, and pause the transport when full."""
    data = random.Random(size).randbytes(size)

    async def shout(reader: weft.StreamReader, writer: weft.StreamWriter) -> None:
        writer.write(await reader.readexactly(size))
        await writer.drain()
        await reader.read()
        writer.close()

    async def main() -> None:
        server = await weft.start_server(shout, "127.0.0.1", 0, ssl=server_context(), limit=4096)
        async with server:
            reader, writer = await weft.open_connection(
                *server.sockets[0].getsockname(),
                ssl=client_context(),
                server_hostname=NAME,
                limit=4096,
            )
            writer.write(data)
            await writer.drain()
            assert await reader.readexactly(size) == data
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

    run(main())
