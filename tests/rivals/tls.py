"""TLS: whether the caller's `ssl.SSLContext` decides, and what may be layered on what."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests import certificates

from .peers import served
from .registry import capability


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def _server(
    context: ssl.SSLContext,
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] = _echo,
) -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


async def _connect(address: tuple[str, int], context: ssl.SSLContext, **kwargs: Any) -> Any:
    kwargs.setdefault("server_hostname", certificates.NAME)
    return await asyncio.open_connection(*address, ssl=context, **kwargs)


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"
    writer.close()


@capability("client certificates")
async def client_certificates() -> None:
    seen = asyncio.get_running_loop().create_future()

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        await _echo(reader, writer)

    server = certificates.server_context()
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificates.certificate())
    client = certificates.client_context()
    client.load_cert_chain(certificates.certificate(), certificates.key())
    async with _server(server, look) as address:
        await _talk(*await _connect(address, client))
        assert await asyncio.wait_for(seen, 5)


@capability("a client without the certificate that is required is refused")
async def required_certificate() -> None:
    server = certificates.server_context()
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificates.certificate())
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with _server(server) as address:
        try:
            reader, writer = await _connect(address, certificates.client_context())
            writer.write(b"hello")
            assert await asyncio.wait_for(reader.read(5), 5) == b"", "it was served"
        except (ssl.SSLError, ConnectionError):
            pass


@capability("a server that the context does not trust is refused")
async def untrusted() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with _server(certificates.server_context()) as address:
        try:
            await _connect(address, ssl.create_default_context())
        except ssl.SSLCertVerificationError:
            return
    raise AssertionError("it was trusted")


@capability("the SNI callback")
async def sni() -> None:
    names: list[str | None] = []
    context = certificates.server_context()
    context.sni_callback = lambda obj, name, context: names.append(name)
    async with _server(context) as address:
        await _talk(*await _connect(address, certificates.client_context()))
    assert names == [certificates.NAME], names


@capability("ALPN")
async def alpn() -> None:
    async with _server(certificates.server_context("h2", "http/1.1")) as address:
        reader, writer = await _connect(address, certificates.client_context("http/1.1"))
        chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        await _talk(reader, writer)
    assert chosen == "http/1.1", chosen


@capability("get_extra_info('ssl_object') is an ssl.SSLObject")
async def ssl_object() -> None:
    async with _server(certificates.server_context()) as address:
        reader, writer = await _connect(address, certificates.client_context())
        found = writer.get_extra_info("ssl_object")
        await _talk(reader, writer)
    assert isinstance(found, ssl.SSLObject), type(found)


@capability("the context's sslobject_class")
async def object_class() -> None:
    class Own(ssl.SSLObject):
        pass

    context = certificates.client_context()
    context.sslobject_class = Own
    async with _server(certificates.server_context()) as address:
        reader, writer = await _connect(address, context)
        found = writer.get_extra_info("ssl_object")
        await _talk(reader, writer)
    assert isinstance(found, Own), type(found)


@capability("the context's ciphers, versions and key log")
async def context_settings() -> None:
    context = certificates.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    with tempfile.NamedTemporaryFile() as log:
        context.keylog_filename = log.name
        async with _server(certificates.server_context()) as address:
            reader, writer = await _connect(address, context)
            found = writer.get_extra_info("ssl_object")
            assert found.version() == "TLSv1.2", found.version()
            assert found.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384", found.cipher()
            await _talk(reader, writer)
        context.keylog_filename = os.devnull
        assert log.read(), "the key log is empty"


@capability("a session is resumed")
async def session() -> None:
    context = certificates.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    kept: list[ssl.SSLSession] = []

    class Resumes(ssl.SSLObject):
        def do_handshake(self) -> None:
            if kept and self.session is None:
                self.session = kept[0]
            super().do_handshake()

    context.sslobject_class = Resumes
    async with _server(certificates.server_context()) as address:
        for _ in range(2):
            reader, writer = await _connect(address, context)
            found = writer.get_extra_info("ssl_object")
            kept.append(found.session)
            await _talk(reader, writer)
    assert found.session_reused, "a new session"


@capability("start_tls() on client and server")
async def start_tls() -> None:
    loop = asyncio.get_running_loop()

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"go\n")
        await writer.start_tls(certificates.server_context())
        await _echo(reader, writer)

    server = await asyncio.start_server(upgrade, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"upgrade\n")
    assert await reader.readline() == b"go\n"
    await writer.start_tls(certificates.client_context(), server_hostname=certificates.NAME)
    await asyncio.wait_for(_talk(reader, writer), 5)
    server.close()
    assert loop.is_running()


@capability("TLS inside of TLS")
async def tls_in_tls() -> None:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"go\n")
        await writer.start_tls(certificates.server_context())
        await _echo(reader, writer)

    async with _server(certificates.server_context(), upgrade) as address:
        reader, writer = await _connect(address, certificates.client_context())
        writer.write(b"upgrade\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(certificates.client_context(), server_hostname=certificates.NAME)
        await asyncio.wait_for(_talk(reader, writer), 5)


@capability("TLS on Unix sockets")
async def unix() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        server = await asyncio.start_unix_server(_echo, path, ssl=certificates.server_context())
        streams = await asyncio.open_unix_connection(
            path, ssl=certificates.client_context(), server_hostname=certificates.NAME
        )
        await _talk(*streams)
        server.close()


@capability("sendfile() over TLS falls back")
async def sendfile() -> None:
    loop = asyncio.get_running_loop()
    size = 1_000_000
    counted = loop.create_future()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counted.set_result(len(await reader.readexactly(size)))
        writer.close()

    async with _server(certificates.server_context(), count) as address:
        _, writer = await _connect(address, certificates.client_context())
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * size)
            file.seek(0)
            assert await loop.sendfile(writer.transport, file) == size
        assert await asyncio.wait_for(counted, 5) == size
        writer.close()


@capability("ssl_handshake_timeout")
async def handshake_timeout() -> None:
    def silent(connection: Any) -> None:
        while connection.recv(1000):
            pass

    with served(silent) as address:
        try:
            await asyncio.wait_for(
                _connect(address, certificates.client_context(), ssl_handshake_timeout=0.2), 5
            )
        except ConnectionAbortedError:
            return
    raise AssertionError("it did not end")


@capability("close() ends in connection_lost() though the peer is silent (ssl_shutdown_timeout)")
async def silent_peer() -> None:
    loop = asyncio.get_running_loop()
    lost = loop.create_future()

    class Lost(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(None)

    context = certificates.server_context()

    def answers_no_more(connection: Any) -> None:
        wrapped = context.wrap_socket(connection, server_side=True)
        lost_here.wait(10)
        wrapped.detach()

    import threading

    lost_here = threading.Event()
    with served(answers_no_more) as address:
        transport, _ = await loop.create_connection(
            Lost,
            *address,
            ssl=certificates.client_context(),
            server_hostname=certificates.NAME,
            ssl_shutdown_timeout=0.2,
        )
        transport.close()
        try:
            await asyncio.wait_for(lost, 5)
        finally:
            lost_here.set()


@capability("a large transfer both ways")
async def large() -> None:
    size = 5_000_000
    async with _server(certificates.server_context()) as address:
        reader, writer = await _connect(address, certificates.client_context())
        writer.write(b"x" * size)
        assert len(await asyncio.wait_for(reader.readexactly(size), 15)) == size
        writer.close()
