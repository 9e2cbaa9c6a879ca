"""Handshakes: certificates, names, time-outs, cancellation, and what their outcome tells."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest
from certificates import NAME, certificate, client_context, key, server_context
from peers import Run, pass_turns, reset, stream_pair
from recorders import PATIENCE, Recorder


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


def test_close_before_it_has_begun(run: Run) -> None:
    """asyncio goes on with the handshake, and calls a protocol that nobody wants any more."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        here = Recorder()
        with theirs:
            connecting = loop.create_task(
                loop.create_connection(
                    lambda: here, sock=ours, ssl=client_context(), server_hostname=NAME
                )
            )
            await pass_turns(1)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await pass_turns(5)
            assert ours.fileno() == -1
            assert here.calls == []

    run(main())


def test_what_the_servers_name_callback_sees_and_changes(run: Run) -> None:
    names: list[str | None] = []

    def choose(tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        names.append(name)
        tls.context = second

    second = server_context("chosen")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = server_context()
        first.sni_callback = choose  # type: ignore[assignment]
        here, there = Recorder(), Recorder()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=first)
        async with server:
            where = server.sockets[0].getsockname()
            client, _ = await loop.create_connection(
                lambda: here, *where, ssl=client_context("chosen"), server_hostname=NAME
            )
            assert client.get_extra_info("ssl_object").selected_alpn_protocol() == "chosen"
            await there.called("connection_made")
            assert there.transport.get_extra_info("ssl_object").context is second
            assert there.transport.get_extra_info("sslcontext") is first
            client.close()
            await here.lost()
            await there.lost()

    run(main())
    assert names == [NAME]


@pytest.mark.parametrize("presents", [True, False])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_certificates_of_clients(run: Run, presents: bool, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = server_context()
        context.maximum_version = version
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate())
        ours = client_context()
        if presents:
            ours.load_cert_chain(certificate(), key())
        here, there = Recorder(), Recorder()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=context)
        async with server:
            where = server.sockets[0].getsockname()
            connecting = loop.create_connection(
                lambda: here, *where, ssl=ours, server_hostname=NAME
            )
            if presents:
                client, _ = await connecting
                await there.called("connection_made")
                subject = there.transport.get_extra_info("peercert")["subject"]
                assert subject == ((("commonName", NAME),),)
                client.close()
                await here.lost()
                await there.lost()
                return
            # With TLS 1.3 the client is done before the server has looked.
            try:
                await connecting
            except OSError:
                assert version is ssl.TLSVersion.TLSv1_2
            else:
                await here.lost()
            assert there.calls == []

    run(main())


def test_a_session_is_used_again(run: Run) -> None:
    """pymongo gives each new connection the session of the last one."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = client_context(), server_context()
        theirs.maximum_version = ssl.TLSVersion.TLSv1_2
        sessions: list[ssl.SSLSession] = []

        class Object(ssl.SSLObject):
            @classmethod
            def _create(cls, *args: Any, **keywords: Any) -> Any:
                if sessions:
                    keywords["session"] = sessions[-1]
                return super()._create(*args, **keywords)  # type: ignore[misc]

        ours.sslobject_class = Object
        protocols: list[Recorder] = []

        def factory() -> Recorder:
            protocols.append(Recorder())
            return protocols[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=theirs)
        async with server:
            for reused in (False, True):
                here = Recorder()
                client, _ = await loop.create_connection(
                    lambda here=here: here,  # type: ignore[misc]
                    *server.sockets[0].getsockname(),
                    ssl=ours,
                    server_hostname=NAME,
                )
                tls = client.get_extra_info("ssl_object")
                assert tls.session_reused is reused
                sessions.append(tls.session)
                client.close()
                await here.lost()
        for protocol in protocols:
            await protocol.lost()

    run(main())


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_times_that_are_none(run: Run, name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with ours, theirs:
            options: dict[str, Any] = {name: 0}
            with pytest.raises(ValueError, match=f"{name} should be a positive number, got 0"):
                await loop.create_connection(
                    Recorder, sock=ours, ssl=client_context(), server_hostname=NAME, **options
                )

    run(main())
