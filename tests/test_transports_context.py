"""In which context and beside which task the callbacks of a transport run."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from backends import PY315
from certificates import NAME, client_context, server_context
from peers import KINDS, Run, connected_client, stream_pair, wired
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder

Stream = type[Recorder | BufferedRecorder]
name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", STREAM_RECORDERS)
def test_callbacks_see_the_context_of_whoever_connected(
    run: Run, kind: str, stream: Stream
) -> None:
    async def main() -> None:
        seen: dict[str, str] = {}

        def note(callback: str) -> Any:
            return lambda *_: seen.setdefault(callback, name.get()) and None

        calls = ["connection_made", "eof_received", "connection_lost"]
        calls += ["data_received"] if stream is Recorder else ["get_buffer", "buffer_updated"]
        protocol = stream(**{call: note(call) for call in calls})

        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)
        with theirs:
            name.set("whoever connected")
            task = loop.create_task(loop.create_connection(lambda: protocol, sock=ours))
            name.set("somebody else")
            await task
            theirs.sendall(b"x")
            await protocol.received(1)
            theirs.close()
            await protocol.lost()
        assert seen == dict.fromkeys(calls, "whoever connected")

    run(main())


def test_what_a_delivery_sets_lasts_until_the_next(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []

        def note(_: bytes) -> None:
            seen.append(name.get())
            name.set(f"delivery {len(seen)}")

        protocol = Recorder(data_received=note)
        async with wired(protocol) as (_, peer):
            for count in (1, 2, 3):
                await loop.sock_sendall(peer, b"x")
                await protocol.received(count)
        assert seen == ["nobody", "delivery 1", "delivery 2"]
        assert name.get() == "nobody", "and stays within the transport"

    run(main())


def test_connections_of_a_server_do_not_share_a_context(run: Run) -> None:
    """What the factory or a callback of one connection sets is unknown to the next."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []

        class Protocol(Recorder):
            def __init__(self) -> None:
                super().__init__()
                made.append(self)
                seen.append(name.get())
                name.set("set by the factory")

            def connection_made(self, transport: Any) -> None:
                seen.append(name.get())
                name.set("set by connection_made")
                super().connection_made(transport)

            def data_received(self, data: bytes) -> None:
                name.set("set by data_received")
                super().data_received(data)

        made: list[Protocol] = []
        name.set("server")
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        name.set("somebody else")
        async with server:
            for number in range(3):
                with connected_client(server.sockets[0].getsockname()) as client:
                    client.sendall(b"x")
                    async with asyncio.timeout(10):
                        while len(made) <= number:
                            await asyncio.sleep(0)
                    await made[number].received(1)
                    client.close()
                    await made[number].lost()
        assert seen == ["server", "set by the factory"] * 3

    run(main())


def test_a_server_that_is_started_later(run: Run) -> None:
    """It serves in the context that it was started in, from 3.15 on in the one it was made in."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder(data_received=lambda _: seen.append(name.get()))
        seen: list[str] = []

        def factory() -> Recorder:
            seen.append(name.get())
            return protocol

        name.set("made")
        server = await loop.create_server(factory, "127.0.0.1", 0, start_serving=False)
        name.set("started")
        await server.start_serving()
        name.set("somebody else")
        async with server:
            with connected_client(server.sockets[0].getsockname()) as client:
                client.sendall(b"x")
                await protocol.called("connection_made")
                await protocol.received(1)
                client.close()
                await protocol.lost()
        assert seen == ["made" if PY315 else "started"] * 2

    run(main())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_what_the_factory_of_a_client_sets(run: Run, tls: bool) -> None:
    """The transport's callbacks see it, up to 3.14."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        here = Recorder(
            connection_made=lambda _: seen.append(name.get()),
            data_received=lambda _: seen.append(name.get()),
            connection_lost=lambda _: seen.append(name.get()),
        )

        def factory() -> Recorder:
            name.set("factory")
            return here

        there = Recorder()
        server = await loop.create_server(
            lambda: there, "127.0.0.1", 0, ssl=server_context() if tls else None
        )
        async with server:
            name.set("client")
            port = server.sockets[0].getsockname()[1]
            transport, _ = await loop.create_connection(
                factory,
                "127.0.0.1",
                port,
                ssl=client_context() if tls else None,
                server_hostname=NAME if tls else None,
            )
            assert name.get() == "factory"
            await there.called("connection_made")
            there.transport.write(b"x")
            await here.received(1)
            transport.close()
            await here.lost()
            await there.lost()
        assert seen == ["client" if PY315 else "factory"] * 3

    run(main())


def test_whose_context_an_upgraded_connection_has(run: Run) -> None:
    """That of whoever asked for TLS; from 3.15 on the connection keeps the one it was made in."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        here = Recorder(
            data_received=lambda _: seen.append(name.get()),
            connection_lost=lambda _: seen.append(name.get()),
        )
        there = Recorder()
        ours, theirs = stream_pair()
        name.set("connected")
        client, _ = await loop.create_connection(lambda: here, sock=ours)
        server, _ = await loop.connect_accepted_socket(lambda: there, theirs)
        name.set("upgraded")
        secure_client, secure_server = await asyncio.gather(
            loop.start_tls(client, here, client_context(), server_hostname=NAME),
            loop.start_tls(server, there, server_context(), server_side=True),
        )
        assert secure_client is not None
        assert secure_server is not None
        name.set("somebody else")
        secure_server.write(b"x")
        await here.received(1)
        secure_client.close()
        await here.lost()
        await there.lost()
        assert seen == ["connected" if PY315 else "upgraded"] * 2

    run(main())


@pytest.mark.skipif(not PY315, reason="asyncio's transports say in which context from 3.15 on")
def test_asyncios_own_transport(run: Run) -> None:
    """It names its context where it watches its descriptor."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        seen: list[str] = []
        protocol = Recorder(data_received=lambda _: seen.append(name.get()))
        context = contextvars.copy_context()
        context.run(name.set, "given")
        ours, theirs = stream_pair()
        ours.setblocking(False)
        with theirs:
            stock = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
            transport = stock(loop, ours, protocol, context=context)
            await protocol.called("connection_made")
            theirs.sendall(b"x")
            await protocol.received(1)
            transport.close()
            await protocol.lost()
        assert seen == ["given"]

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_no_task_is_current_within_a_callback(run: Run, kind: str) -> None:
    """Libraries tell by it whether they run in a task (sniffio)."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []

        def note(*_: Any) -> None:
            seen.append(asyncio.current_task())
            assert asyncio.get_running_loop() is loop

        calls = ["connection_made", "data_received", "eof_received", "connection_lost"]
        protocol = Recorder(**dict.fromkeys(calls, note))
        async with wired(protocol, kind) as (_, peer):
            peer.sendall(b"x")
            await protocol.received(1)
            peer.close()
            await protocol.lost()
        assert seen == [None] * 4

    run(main())
