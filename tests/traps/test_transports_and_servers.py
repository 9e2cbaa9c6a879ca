"""What libraries do with transports, TLS, servers and datagrams."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from backends import PY312, PY313, PY315, Backend
from certificates import NAME, certificate, client_context, key, server_context
from children import python
from datagrams import Datagrams, end, endpoint
from peers import FILLS_UP, Run, has_ipv6, read_all, read_exactly, stream_pair, wired
from recorders import PATIENCE, Recorder
from serving import Made, address, serving

# -- what a transport is ---------------------------------------------------------------------------


def test_aiohttp_asserts_the_type_inside_connection_made(run: Run, backend: Backend) -> None:
    async def main() -> None:
        types = []
        protocol = Recorder(connection_made=lambda transport: types.append(transport))
        async with wired(protocol):
            (transport,) = types
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.ReadTransport)
            assert isinstance(transport, asyncio.WriteTransport)
        datagrams, other = await endpoint(local_addr=("127.0.0.1", 0))
        # asyncio's own is none on Python 3.11.
        if PY312 or backend.is_weft:
            assert isinstance(datagrams, asyncio.DatagramTransport)
        await end(other)

    run(main())


def test_uvicorn_asks_the_socket_for_addresses(run: Run) -> None:
    """`get_extra_info("socket")` has what one looks at, sets, and duplicates."""

    async def main() -> None:
        async with wired(Recorder()) as (transport, peer):
            sock = transport.get_extra_info("socket")
            assert sock.getpeername() == transport.get_extra_info("peername")
            assert sock.getsockname() == transport.get_extra_info("sockname")
            assert sock.family == socket.AF_INET
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
            assert sock.gettimeout() == 0
            for refused in ("recv", "send", "accept", "connect", "close", "detach"):
                assert not hasattr(sock, refused)
            assert transport.get_extra_info("nothing", "default") == "default"
            assert peer.getsockname() == sock.getpeername()

    run(main())


# -- TLS -------------------------------------------------------------------------------------------


class Session(ssl.SSLObject):
    """What pymongo has for an `SSLObject`."""


@contextlib.asynccontextmanager
async def secured(context: ssl.SSLContext) -> AsyncIterator[tuple[Any, Recorder, Recorder]]:
    loop = asyncio.get_running_loop()
    made = Made()
    async with serving(made, ssl=server_context("h2", "http/1.1")) as server:
        transport, protocol = await loop.create_connection(
            Recorder, *address(server), ssl=context, server_hostname=NAME
        )
        served = await made.protocol()
        yield transport, protocol, served
        transport.close()
        await protocol.lost()


def test_hypercorn_asks_the_ssl_object_for_its_protocol(run: Run) -> None:
    async def main() -> None:
        async with secured(client_context("h2")) as (transport, _, served):
            for end_of_it in (transport, served.transport):
                ssl_object = end_of_it.get_extra_info("ssl_object")
                assert isinstance(ssl_object, ssl.SSLObject)
                assert ssl_object.selected_alpn_protocol() == "h2"
            assert isinstance(transport, asyncio.Transport)

    run(main())


def test_aiohttp_asks_for_the_certificate(run: Run) -> None:
    """For fingerprints, in binary form."""

    async def main() -> None:
        context = client_context()
        async with secured(context) as (transport, _, _):
            ssl_object = transport.get_extra_info("ssl_object")
            assert ssl_object.getpeercert(binary_form=True).startswith(b"\x30")
            assert transport.get_extra_info("peercert") == ssl_object.getpeercert()
            assert transport.get_extra_info("sslcontext") is context
            assert transport.get_extra_info("cipher") == ssl_object.cipher()

    run(main())


def test_pymongo_has_an_ssl_object_of_its_own(run: Run) -> None:
    """It sets `sslobject_class`, and reads `session`."""

    async def main() -> None:
        context = client_context()
        context.sslobject_class = Session
        async with secured(context) as (transport, _, _):
            ssl_object = transport.get_extra_info("ssl_object")
            assert type(ssl_object) is Session
            assert isinstance(ssl_object.session, ssl.SSLSession)
            assert ssl_object.session_reused is False

    run(main())


BEFORE = """
import asyncio, ssl, sys
certificate, key, name = sys.argv[1:]
served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
served.load_cert_chain(certificate, key)
trusting = ssl.create_default_context(cafile=certificate)
import weft

async def main():
    async def answer(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=served)
    async with server:
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=trusting, server_hostname=name
        )
        assert writer.get_extra_info("sslcontext") is trusting
        writer.write(b"secret\\n")
        print((await reader.read()).decode(), end="")
        writer.close()
        await writer.wait_closed()

weft.install()
asyncio.run(main())
"""


@pytest.mark.child
@pytest.mark.backends("weft")
def test_requests_made_its_context_at_import(backend: Backend) -> None:
    """Contexts from before `import weft` work as those from after it."""
    child = python("-c", BEFORE, str(certificate()), str(key()), NAME)
    assert child.check() == "secret\n"


def test_aiohttp_looks_for_tls_in_tls(run: Run) -> None:
    """Its proxies ask `_start_tls_compatible` of the transport to be secured."""

    async def main() -> None:
        async with wired(Recorder()) as (transport, _):
            assert transport._start_tls_compatible is True
        async with secured(client_context()) as (transport, _, _):
            assert transport._start_tls_compatible is True

    run(main())


def test_asyncpg_upgrades_and_then_calls_its_protocol_itself(run: Run) -> None:
    """`start_tls` with a protocol for the upgrade; then `connection_made` and `set_protocol`."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = server_context()
        upgraded = loop.create_future()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(8)
            writer.write(b"S")
            await writer.start_tls(context)
            writer.write(await reader.readexactly(5))
            await writer.drain()
            upgraded.set_result(None)
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server:
            asking = Recorder(connection_made=lambda transport: transport.write(b"SSLREQST"))
            transport, _ = await loop.create_connection(lambda: asking, *address(server))
            assert await asking.received(1) == b"S"
            secure = await loop.start_tls(transport, asking, client_context(), server_hostname=NAME)
            assert secure is not None
            protocol = Recorder()
            protocol.connection_made(secure)
            secure.set_protocol(protocol)
            assert secure.get_protocol() is protocol
            secure.writelines([memoryview(b"he"), bytearray(b"llo")])
            assert await protocol.received(5) == b"hello"
            await upgraded
            await protocol.lost()
            assert asking.lost_with == []
            secure.close()

    run(main())


def test_aiohttp_closes_a_tls_connection_of_which_nobody_answers(run: Run) -> None:
    """`close()` stops reading, and always ends in `connection_lost`."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()
        async with serving(made, ssl=server_context()) as server:
            transport, protocol = await loop.create_connection(
                Recorder,
                *address(server),
                ssl=client_context(),
                server_hostname=NAME,
                ssl_shutdown_timeout=0.05,
            )
            served = await made.protocol()
            served.transport.pause_reading()
            transport.close()
            assert transport.is_closing()
            served.transport.write(b"too late")
            await protocol.lost()
            assert protocol.data == b""

    run(main())


# -- writing ---------------------------------------------------------------------------------------


class NoLength:
    """A buffer without `len()`, as asyncpg's `WriteBuffer` is."""

    def __init__(self, data: bytes) -> None:
        self.data = data


@pytest.mark.skipif(not PY312, reason="only from Python 3.12 on may a Python class be a buffer")
def test_asyncpg_writes_buffers_that_have_no_length(run: Run, backend: Backend) -> None:
    if not backend.is_weft and PY315:
        pytest.skip("asyncio asks for their length from 3.15 on")

    class Buffer(NoLength):
        def __buffer__(self, flags: int) -> memoryview:
            return memoryview(self.data)

    async def main() -> None:
        async with wired(Recorder()) as (transport, peer):
            buffers: Any = [Buffer(b"one "), Buffer(b"two")]
            transport.writelines(buffers)
            assert await read_exactly(peer, 7) == b"one two"

    run(main())


def test_numpy_arrays_are_written_as_bytes(run: Run) -> None:
    """A memoryview whose items are wider than a byte."""

    async def main() -> None:
        numbers = array.array("I", range(4))
        async with wired(Recorder()) as (transport, peer):
            transport.write(memoryview(numbers).cast("B"))
            assert await read_exactly(peer, numbers.itemsize * 4) == numbers.tobytes()

    run(main())


def test_websockets_writes_at_once(run: Run) -> None:
    async def main() -> None:
        async with wired(Recorder()) as (transport, peer):
            transport.write(b"now")
            # No turn of the loop in between.
            assert peer.recv(10) == b"now"
            assert transport.get_write_buffer_size() == 0

    run(main())


def test_aiohttp_writes_after_the_end(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """It is told by a warning in the log, never by an exception."""

    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol) as (transport, peer):
            peer.close()
            transport.abort()
            await protocol.lost()
            for _ in range(10):
                transport.write(b"nobody hears")

    run(main())
    assert any("send() raised exception" in record.message for record in caplog.records)


# asyncio itself keeps a view of it from Python 3.12 on.
@pytest.mark.backends("weft")
def test_h11_changes_a_buffer_that_it_has_written(run: Run) -> None:
    """What cannot be sent at once is copied if it can change."""

    async def main() -> None:
        async with wired(Recorder(), small=True) as (transport, peer):
            data = bytearray(b"a" * FILLS_UP)
            transport.write(data)
            assert transport.get_write_buffer_size() > 0
            data[:] = b"b" * len(data)
            data += b"more"
            assert await read_exactly(peer, FILLS_UP) == b"a" * FILLS_UP

    run(main())


# -- servers ---------------------------------------------------------------------------------------


def test_websockets_looks_at_a_server_s_sockets(run: Run) -> None:
    """They are public, and not to be read from; `_serving_forever_fut` tells who serves."""

    async def main() -> None:
        async with serving(Made()) as server:
            assert isinstance(server, asyncio.Server)
            (sock,) = server.sockets
            assert sock.getsockname()[0] == "127.0.0.1"
            private: Any = server
            assert private._serving_forever_fut is None
            forever = asyncio.ensure_future(server.serve_forever())
            await asyncio.sleep(0)
            assert private._serving_forever_fut is not None
            assert server.is_serving()
            forever.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forever
            assert private._serving_forever_fut is None
            assert not server.is_serving()
            assert server.sockets == ()

    run(main())


@pytest.mark.skipif(not PY313, reason="close_clients() came with Python 3.13")
def test_aiosmtpd_closes_the_clients_of_a_server(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()
        async with serving(made) as server:
            for number, close in enumerate(("close_clients", "abort_clients")):
                _, client = await loop.create_connection(Recorder, *address(server))
                served = await made.protocol(number)
                getattr(server, close)()
                await served.lost()
                await client.lost()

    run(main())


@pytest.mark.skipif(not PY312, reason="wait_closed() waits for connections from Python 3.12 on")
def test_uvicorn_waits_for_a_server_s_connections(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()
        async with serving(made) as server:
            _, client = await loop.create_connection(Recorder, *address(server))
            served = await made.protocol()
            server.close()
            waiting = asyncio.ensure_future(server.wait_closed())
            for _ in range(3):
                await asyncio.sleep(0)
            assert not waiting.done()
            served.transport.close()
            await waiting
            await client.lost()

    run(main())


# -- datagrams -------------------------------------------------------------------------------------


def test_aioquic_hears_of_send_errors(run: Run) -> None:
    """From a connected socket whose other end is gone; the transport stays open."""

    async def main() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            gone = other.getsockname()
        transport, protocol = await endpoint(remote_addr=gone)
        transport.sendto(b"to nobody")
        await protocol.called("error_received")
        assert isinstance(protocol.errors[0], ConnectionRefusedError)
        assert not transport.is_closing()
        await end(protocol)

    run(main())


def test_aiodns_uses_connected_datagrams(run: Run) -> None:
    async def main() -> None:
        server, served = await endpoint(local_addr=("127.0.0.1", 0))
        client, protocol = await endpoint(remote_addr=server.get_extra_info("sockname"))
        client.sendto(b"question")
        await served.called("datagram_received")
        data, sender = served.received_from[0]
        assert data == b"question"
        server.sendto(b"answer", sender)
        await protocol.called("datagram_received")
        assert protocol.received_from == [(b"answer", server.get_extra_info("sockname"))]
        await end(served, protocol)

    run(main())


def test_systemd_notifies_by_unix_datagrams(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        ours.bind(str(tmp_path / "ours"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
            theirs.bind(str(tmp_path / "theirs"))
            transport, protocol = await loop.create_datagram_endpoint(Datagrams, sock=ours)
            transport.sendto(b"READY=1", str(tmp_path / "theirs"))
            assert theirs.recv(100) == b"READY=1"
            theirs.sendto(b"STOPPING=1", str(tmp_path / "ours"))
            await protocol.called("datagram_received")
            assert protocol.received_from[0][0] == b"STOPPING=1"
            await end(protocol)

    run(main())


# -- files, names, pipes ---------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["sendfile", "fallback"])
def test_aiohttp_sends_files(run: Run, tmp_path: Path, secure: bool) -> None:
    """By the system call where there is no TLS, which has `os.sendfile` read the file itself."""
    path = tmp_path / "file"
    content = os.urandom(1024) * 1500
    path.write_bytes(content)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()
        options: dict[str, Any] = {"ssl": server_context()} if secure else {}
        async with serving(made, **options) as server:
            if secure:
                options = {"ssl": client_context(), "server_hostname": NAME}
            transport, protocol = await loop.create_connection(
                Recorder, *address(server), **options
            )
            served = await made.protocol()
            with path.open("rb") as file:
                if secure:
                    with pytest.raises(RuntimeError):
                        await loop.sendfile(transport, file, fallback=False)
                sent = await loop.sendfile(transport, file)
                assert (sent, file.tell()) == (len(content), len(content))
            assert await served.received(len(content)) == content
            transport.close()
            await protocol.lost()

    run(main())


def test_aiosendfile_needs_no_read(run: Run, tmp_path: Path) -> None:
    """The system call gets the descriptor: a file object that cannot be read does, too."""
    path = tmp_path / "file"
    path.write_bytes(b"by descriptor")

    class Unreadable:
        def __init__(self, file: Any) -> None:
            self.file = file
            self.mode = "rb"

        def fileno(self) -> int:
            return int(self.file.fileno())

        def seek(self, offset: int) -> int:
            return int(self.file.seek(offset))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with wired(Recorder()) as (transport, peer):
            with path.open("rb") as file:
                unreadable: Any = Unreadable(file)
                assert await loop.sendfile(transport, unreadable, fallback=False) == 13
            assert await read_exactly(peer, 13) == b"by descriptor"

    run(main())


def test_zeroconf_keeps_the_zone_of_an_address(run: Run) -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    zone = socket.if_nametoindex("lo")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        (found, *_) = await loop.getaddrinfo("fe80::1%lo", 80, type=socket.SOCK_STREAM)
        assert found[4] == ("fe80::1", 80, 0, zone)

    run(main())


def test_aiohappyeyeballs_connects_to_literals_without_a_thread(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        made = Made()
        async with serving(made) as server:
            refused = pytest.fail.Exception("a literal was resolved")

            def resolve(*args: Any, **kwargs: Any) -> Any:
                raise refused

            monkeypatch.setattr(socket, "getaddrinfo", resolve)
            transport, protocol = await loop.create_connection(Recorder, *address(server))
            transport.close()
            await protocol.lost()

    loop.run_until_complete(main())
    assert loop._default_executor is None


def test_aioconsole_cannot_connect_a_regular_file(run: Run, tmp_path: Path) -> None:
    """It falls back to a thread when `connect_read_pipe` raises ValueError."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = tmp_path / "file"
        path.write_bytes(b"")
        with path.open("rb") as file, pytest.raises(ValueError, match="pipe"):
            await loop.connect_read_pipe(asyncio.Protocol, file)
        with path.open("wb") as file, pytest.raises(ValueError, match="pipe"):
            await loop.connect_write_pipe(asyncio.Protocol, file)

    run(main())


def test_aiohttp_reads_to_the_end_of_a_half_closed_connection(run: Run) -> None:
    async def main() -> None:
        protocol = Recorder(eof_received=lambda: True)
        ours, theirs = stream_pair()
        with theirs:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            theirs.send(b"request")
            theirs.shutdown(socket.SHUT_WR)
            await protocol.called("eof_received")
            transport.write(b"response")
            transport.write_eof()
            assert await read_all(theirs) == b"response"
            transport.close()
            async with asyncio.timeout(PATIENCE):
                await protocol.lost()

    run(main())
