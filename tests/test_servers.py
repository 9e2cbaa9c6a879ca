"""create_server and the Server that it returns, for TCP; Unix sockets have a file of their own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import weakref
from typing import Any

import pytest
from backends import PY312, PY313, PY314, Backend
from certificates import server_context
from peers import (
    Run,
    closed_port,
    connected_client,
    has_ipv6,
    listener,
    pass_turns,
    read_all,
    read_exactly,
    reset,
)
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder
from serving import Made, address, serving

ACCEPTED_IN_VAIN = "Error on transport creation for incoming connection"
"""What debug mode reports of a connection that a server has accepted and then could not serve."""

# -- serving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", STREAM_RECORDERS)
def test_serving(run: Run, stream: type[Recorder | BufferedRecorder]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made(stream)
        async with serving(made) as server:
            assert server.is_serving()
            assert server.get_loop() is loop
            for number in range(3):
                with connected_client(address(server)) as client:
                    protocol = await made.protocol(number)
                    client.sendall(b"hello %d" % number)
                    assert await protocol.received(7) == b"hello %d" % number
                    protocol.transport.write(b"welcome")
                    assert await read_exactly(client, 7) == b"welcome"
                    protocol.transport.close()
                    assert await read_all(client) == b""
                    await protocol.lost()

    run(main())


def test_many_connections_that_wait_are_all_accepted(run: Run) -> None:
    async def main() -> None:
        made = Made()
        async with serving(made, backlog=50) as server:
            with contextlib.ExitStack() as stack:
                clients = [
                    stack.enter_context(connected_client(address(server))) for _ in range(40)
                ]
                await made.protocol(len(clients) - 1)
                names = {
                    protocol.transport.get_extra_info("peername") for protocol in made.protocols
                }
                assert names == {client.getsockname() for client in clients}

    run(main())


def test_start_serving_when_told(run: Run) -> None:
    async def main() -> None:
        made = Made()
        async with serving(made, start_serving=False) as server:
            assert not server.is_serving()
            with pytest.raises(ConnectionRefusedError):
                connected_client(address(server))
            assert await server.start_serving() is None
            assert server.is_serving()
            await server.start_serving()
            with connected_client(address(server)):
                await made.protocol()

    run(main())


def test_port_zero_on_several_hosts(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()
        hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
        server = await loop.create_server(made, hosts, 0)
        async with server:
            names = [sock.getsockname() for sock in server.sockets]
            assert sorted(host for host, _ in names) == ["127.0.0.1", "127.0.0.2"]
            assert all(port for _, port in names)
            for number, name in enumerate(names):
                with connected_client(name) as client:
                    protocol = await made.protocol(number)
                    assert protocol.transport.get_extra_info("sockname") == name
                    client.close()
                    await protocol.lost()

    run(main())


@pytest.mark.parametrize("host", [None, "", "localhost"])
def test_hosts_that_stand_for_several_addresses(run: Run, host: str | None) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()
        async with await loop.create_server(made, host, 0) as server:
            assert len(server.sockets) >= 1
            for number, sock in enumerate(server.sockets):
                loopback = "::1" if sock.family == socket.AF_INET6 else "127.0.0.1"
                client = connected_client((loopback, sock.getsockname()[1]))
                with client:
                    protocol = await made.protocol(number)
                    client.close()
                    await protocol.lost()

    run(main())


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_ipv6_sockets_leave_ipv4_alone(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Made(), "::", 0)
        async with server:
            sock = server.sockets[0]
            assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            with pytest.raises(ConnectionRefusedError):
                connected_client(("127.0.0.1", sock.getsockname()[1]))

    run(main())


def test_a_socket_of_the_callers(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        async with await loop.create_server(made, sock=sock) as server:
            assert sock.gettimeout() == 0
            assert server.sockets[0].fileno() == sock.fileno()
            with connected_client(sock.getsockname()) as client:
                protocol = await made.protocol()
                client.close()
                await protocol.lost()
        assert sock.fileno() == -1, "the server owned it"

    run(main())


def test_reuse_port_and_options(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        one = await loop.create_server(Made(), "127.0.0.1", 0, reuse_port=True)
        two = await loop.create_server(Made(), *address(one), reuse_port=True)
        assert address(one) == address(two)
        assert one.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        options: dict[str, Any] = {"reuse_address": False}
        if PY313:
            options["keep_alive"] = True
        three = await loop.create_server(Made(), "127.0.0.1", 0, **options)
        assert not three.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        if PY313:
            assert three.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for server in (one, two, three):
            server.close()
            await server.wait_closed()

    run(main())


def test_several_loops_serve_one_socket(backend: Backend) -> None:
    """As pre-forked servers do, and grpc.aio: the loop that comes late finds nothing."""
    made = [Made(), Made()]
    with listener() as listening:
        loops = [backend.new_event_loop() for _ in made]
        servers = [
            loop.run_until_complete(loop.create_server(factory, sock=listening.dup()))
            for loop, factory in zip(loops, made, strict=True)
        ]
        for number in range(6):
            with connected_client(listening.getsockname()) as client:
                for loop in loops if number % 2 else loops[::-1]:
                    loop.run_until_complete(pass_turns(10))
                protocols = [protocol for one in made for protocol in one.protocols]
                assert len(protocols) == number + 1
                client.close()
                for loop in loops:
                    loop.run_until_complete(pass_turns(10))
                assert all(protocol.lost_with == [None] for protocol in protocols)
        assert all(one.protocols for one in made), "each had its turn"
        for loop, server in zip(loops, servers, strict=True):
            server.close()
            loop.run_until_complete(server.wait_closed())
            loop.close()


def test_a_port_can_be_served_again_at_once(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        where: Any = ("127.0.0.1", 0)
        for _ in range(3):
            made = Made()
            async with await loop.create_server(made, *where) as server:
                where = address(server)
                with connected_client(where) as client:
                    protocol = await made.protocol()
                    protocol.transport.close()
                    assert await read_all(client) == b""
                    await protocol.lost()

    run(main())


def test_factories_of_every_sort(run: Run) -> None:
    """A class, a bound method, a function that hands out one shared protocol."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        shared = Recorder()
        async with await loop.create_server(lambda: shared, "127.0.0.1", 0) as server:
            clients = [connected_client(address(server)) for _ in range(3)]
            await shared.called("connection_made", 3)
            for client in clients:
                client.close()
            await shared.called("connection_lost", 3)

    run(main())


# -- what does not work ----------------------------------------------------------------------------


def test_an_address_in_use(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as taken:
            with pytest.raises(
                OSError, match="error while attempting to bind on address"
            ) as caught:
                await loop.create_server(Made(), *taken.getsockname())
            assert caught.value.errno == errno.EADDRINUSE
            # The first of these is fine and must not stay open.
            port = taken.getsockname()[1]
            with pytest.raises(OSError, match="error while attempting to bind"):
                await loop.create_server(Made(), ["127.0.0.3", "127.0.0.1"], port)

    run(main())


def test_an_address_that_is_not_ours(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        message = "could not bind on any address" if PY313 else "error while attempting to bind"
        with pytest.raises(OSError, match=message):
            await loop.create_server(Made(), "192.0.2.1", 0)

    run(main())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "Neither host/port nor sock were specified"),
        ({"host": "127.0.0.1", "port": 0, "ssl": True}, TypeError, "must be an SSLContext or None"),
        ({"port": 0, "ssl_handshake_timeout": 1}, ValueError, "only meaningful with ssl"),
        ({"port": 0, "ssl_shutdown_timeout": 1}, ValueError, "only meaningful with ssl"),
    ],
    ids=["nothing", "ssl", "handshake", "shutdown"],
)
def test_wrong_arguments(
    run: Run, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(error, match=message):
            await loop.create_server(Made(), **arguments)

    run(main())


def test_wrong_sockets(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="A Stream Socket was expected"):
                await loop.create_server(Made(), sock=sock)
            with pytest.raises(ValueError, match="can not be specified at the same time"):
                await loop.create_server(Made(), "127.0.0.1", 0, sock=sock)

    run(main())


def test_a_factory_that_raises_refuses_one_connection(
    backend: Backend, reports: list[dict[str, Any]]
) -> None:
    """The connection is closed; the error is told in debug mode only; the next one is served."""
    if not backend.is_weft:
        pytest.skip("asyncio leaves the socket to the garbage collector, which warns")

    def main(debug: bool) -> Any:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            made = Made()
            answers = [ZeroDivisionError("mine")]

            def factory() -> Any:
                if answers:
                    raise answers.pop()
                return made()

            async with await loop.create_server(factory, "127.0.0.1", 0) as server:
                with connected_client(address(server)) as refused:
                    assert await read_all(refused) == b""
                with connected_client(address(server)) as client:
                    protocol = await made.protocol()
                    client.close()
                    await protocol.lost()
            assert len(reports) == debug
            if debug:
                assert reports[0]["message"] == ACCEPTED_IN_VAIN
                assert isinstance(reports[0]["exception"], ZeroDivisionError)

        return main()

    backend.run(main(debug=False), debug=False)
    backend.run(main(debug=True), debug=True)


@pytest.mark.backends("weft")  # asyncio leaves what it accepted to the garbage collector.
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("tls", [False, True])
def test_a_factory_that_closes_its_server(
    backend: Backend, tls: bool, debug: bool, reports: list[dict[str, Any]]
) -> None:
    """Several clients wait; what has been accepted by then is served or closed, not lost."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()

        def factory() -> Any:
            server.close()
            return made()

        context = server_context() if tls else None
        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connected_client(address(server))) for _ in range(3)]
            await pass_turns(10)
            assert not server.is_serving()
            for protocol in made.protocols:
                if protocol.transport:
                    protocol.transport.abort()
                    await protocol.lost()
            for client in clients:
                client.setblocking(False)
                if tls:
                    # The server may wait for a handshake that never comes.
                    client.close()
                    continue
                with contextlib.suppress(ConnectionResetError):
                    assert await read_all(client) == b""
        async with asyncio.timeout(10):
            await server.wait_closed()

    backend.run(main(), debug=debug)
    assert {report["message"] for report in reports} <= ({ACCEPTED_IN_VAIN} if debug else set())


@pytest.mark.backends("weft")  # asyncio leaves what it accepted to the garbage collector.
@pytest.mark.parametrize("debug", [False, True])
def test_a_factory_that_raises_behind_tls(
    backend: Backend, debug: bool, reports: list[dict[str, Any]]
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def factory() -> Any:
            raise ZeroDivisionError("mine")

        async with await loop.create_server(
            factory, "127.0.0.1", 0, ssl=server_context()
        ) as server:
            with connected_client(address(server)) as client:
                assert await read_all(client) == b""

    backend.run(main(), debug=debug)
    assert [report["message"] for report in reports] == [ACCEPTED_IN_VAIN] * debug


# -- the end ---------------------------------------------------------------------------------------


def test_close(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Made(), "127.0.0.1", 0)
        where = address(server)
        sock = server.sockets[0]
        assert server.close() is None
        assert not server.is_serving()
        assert server.sockets == ()
        assert sock.fileno() == -1
        with pytest.raises(ConnectionRefusedError):
            connected_client(where)
        server.close()
        await server.wait_closed()
        await server.wait_closed()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()

    run(main())


def test_close_before_serving(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Made(), "127.0.0.1", 0, start_serving=False)
        server.close()
        assert server.sockets == ()
        await server.wait_closed()

    run(main())


def test_connections_survive_the_server(run: Run) -> None:
    async def main() -> None:
        made = Made()
        async with serving(made) as server:
            with connected_client(address(server)) as client:
                protocol = await made.protocol()
                server.close()
                client.sendall(b"still here?")
                assert await protocol.received(11) == b"still here?"
                protocol.transport.write(b"yes")
                assert await read_exactly(client, 3) == b"yes"

    run(main())


def test_async_with_closes(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Made(), "127.0.0.1", 0)
        async with server as entered:
            assert entered is server
            assert server.is_serving()
        assert not server.is_serving()
        assert server.sockets == ()

    run(main())


@pytest.mark.skipif(not PY312, reason="3.11 did not wait for connections")
@pytest.mark.parametrize("ending", ["close", "abort", "reset", "peer"])
def test_wait_closed_waits_for_the_connections(run: Run, ending: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()
        async with serving(made) as server:
            with connected_client(address(server)) as client:
                protocol = await made.protocol()
                waiters = [loop.create_task(server.wait_closed()) for _ in range(2)]
                await pass_turns()
                assert not any(waiter.done() for waiter in waiters), "the server is open"
                server.close()
                await pass_turns()
                assert not any(waiter.done() for waiter in waiters), "a connection is open"
                if ending == "reset":
                    reset(client)
                elif ending == "peer":
                    client.close()
                else:
                    getattr(protocol.transport, ending)()
                async with asyncio.timeout(5):
                    await asyncio.gather(*waiters)
                assert protocol.calls[-1] == "connection_lost"

    run(main())


@pytest.mark.skipif(not PY312, reason="3.11 returned at once when nothing was connected")
def test_wait_closed_waits_for_close(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Made(), "127.0.0.1", 0)
        waiting = loop.create_task(server.wait_closed())
        cancelled = loop.create_task(server.wait_closed())
        await pass_turns()
        assert not waiting.done()
        cancelled.cancel()
        server.close()
        await waiting
        assert cancelled.cancelled()

    run(main())


@pytest.mark.skipif(PY312, reason="3.12 waits for the connections")
def test_wait_closed_of_3_11_returns_once_the_server_is_closed(run: Run) -> None:
    async def main() -> None:
        made = Made()
        async with serving(made) as server:
            with connected_client(address(server)):
                await made.protocol()
                server.close()
                await server.wait_closed()
                assert not made.protocols[0].lost_with

    run(main())


@pytest.mark.skipif(not PY313, reason="came with 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
@pytest.mark.parametrize("order", ["server-first", "clients-first"])
def test_closing_the_clients(run: Run, method: str, order: str) -> None:
    async def main() -> None:
        made = Made()
        async with serving(made) as server:
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(connected_client(address(server))) for _ in range(3)]
                await made.protocol(2)
                if order == "server-first":
                    server.close()
                assert getattr(server, method)() is None
                assert all(protocol.transport.is_closing() for protocol in made.protocols)
                assert [await read_all(client) for client in clients] == [b""] * 3
                assert [await protocol.lost() for protocol in made.protocols] == [None] * 3
                server.close()
                async with asyncio.timeout(5):
                    await server.wait_closed()

    run(main())


@pytest.mark.skipif(not PY313, reason="came with 3.13")
def test_close_clients_flushes_and_abort_clients_does_not(run: Run) -> None:
    async def main() -> None:
        made = Made()
        async with serving(made) as server:
            for method in ("close_clients", "abort_clients"):
                with connected_client(address(server)) as client:
                    protocol = await made.protocol(len(made.protocols))
                    size = 8 << 20
                    protocol.transport.write(bytes(size))
                    assert protocol.transport.get_write_buffer_size()
                    getattr(server, method)()
                    try:
                        received = len(await read_all(client))
                    except ConnectionResetError:
                        received = 0
                    assert (received == size) == (method == "close_clients")
                    await protocol.lost()

    run(main())


def test_a_server_does_not_keep_its_lost_connections(run: Run) -> None:
    async def main() -> None:
        made = Made()
        async with serving(made) as server:
            with connected_client(address(server)):
                protocol = await made.protocol()
                protocol.transport.close()
                await protocol.lost()
            references = [weakref.ref(protocol), weakref.ref(protocol.transport)]
            made.protocols.clear()
            del protocol
            await pass_turns()
            gc.collect()
            assert [reference() for reference in references] == [None, None]

    run(main())


# -- serve_forever ---------------------------------------------------------------------------------


def test_serve_forever_until_cancelled(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()
        server = await loop.create_server(made, "127.0.0.1", 0, start_serving=False)
        where = address(server)
        task = loop.create_task(server.serve_forever())
        await pass_turns()
        assert server.is_serving()
        assert server._serving_forever_fut is not None, "websockets looks at it"
        with pytest.raises(RuntimeError, match="already being awaited on serve_forever"):
            await server.serve_forever()
        with connected_client(where) as client:
            protocol = await made.protocol()
            client.close()
            await protocol.lost()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.is_serving()
        assert server.sockets == ()
        assert server._serving_forever_fut is None

    run(main())


def test_close_ends_serve_forever(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Made(), "127.0.0.1", 0)
        task = loop.create_task(server.serve_forever())
        await pass_turns()
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@pytest.mark.skipif(not PY312, reason="3.11 did not wait for connections")
def test_a_cancelled_serve_forever_waits_for_the_connections(run: Run, backend: Backend) -> None:
    """From 3.14 on it closes them itself."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = Made()
        async with serving(made) as server:
            task = loop.create_task(server.serve_forever())
            with connected_client(address(server)):
                protocol = await made.protocol()
                task.cancel()
                await pass_turns(5)
                assert bool(protocol.lost_with) == PY314
                assert task.done() == PY314
                protocol.transport.close()
                with pytest.raises(asyncio.CancelledError):
                    await task

    run(main())


# -- repr and shape --------------------------------------------------------------------------------


def test_its_shape(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Made(), "127.0.0.1", 0)
        assert isinstance(server, asyncio.AbstractServer)
        assert isinstance(server, asyncio.Server)
        assert isinstance(server.sockets, tuple)
        assert isinstance(server.sockets[0], asyncio.trsock.TransportSocket)
        assert "sockets=" in repr(server)
        assert str(address(server)) in repr(server)
        server.close()
        assert "sockets=()" in repr(server)
        await server.wait_closed()

    run(main())


def test_serving_in_debug_mode(backend: Backend) -> None:
    async def main() -> None:
        made = Made()
        async with serving(made) as server:
            with connected_client(address(server)) as client:
                protocol = await made.protocol()
                client.sendall(b"x")
                await protocol.received(1)

    backend.run(main(), debug=True)


def test_a_port_nobody_asked_for_is_not_reserved(run: Run) -> None:
    """A port that was free a moment ago can be asked for by number."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        port = closed_port()
        async with await loop.create_server(Made(), "127.0.0.1", port) as server:
            assert address(server) == ("127.0.0.1", port)

    run(main())


def test_a_loop_closed_with_a_server_open(loop: asyncio.AbstractEventLoop) -> None:
    server = loop.run_until_complete(loop.create_server(Made(), "127.0.0.1", 0))
    sockets = server._sockets
    loop.close()
    for sock in sockets or ():
        sock.close()  # type: ignore[attr-defined]
