"""What libraries do with descriptors and sockets of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest
from backends import Backend
from certificates import NAME, client_context, server_context
from peers import Run, closed_port, connected_client, listener, stream_pair, unanswered_address
from recorders import Recorder


def test_pyzmq_is_told_again_of_what_it_left_unread(run: Run) -> None:
    """Its descriptor says that something happened; it may stay readable for several turns."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with ours, theirs:
            enough = loop.create_future()
            calls = []

            def readable() -> None:
                calls.append(True)
                if len(calls) == 3:
                    enough.set_result(None)

            loop.add_reader(ours.fileno(), readable)
            theirs.send(b"unread")
            await enough
            assert loop.remove_reader(ours.fileno())
            assert not loop.remove_reader(ours.fileno())

    run(main())


def test_psycopg_waits_for_both_directions_of_one_descriptor(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with ours, theirs:
            happened = asyncio.Event()
            ready = set()

            def wakeup(state: str) -> None:
                ready.add(state)
                happened.set()

            loop.add_reader(ours.fileno(), wakeup, "read")
            loop.add_writer(ours.fileno(), wakeup, "write")
            await happened.wait()
            assert ready == {"write"}
            loop.remove_writer(ours.fileno())
            happened.clear()
            theirs.send(b"x")
            await happened.wait()
            assert ready == {"read", "write"}
            loop.remove_reader(ours.fileno())

    run(main())


def test_anyio_watches_objects_with_fileno(run: Run) -> None:
    """`wait_readable(obj)`; it also registers `future.set_result` itself as the callback."""

    class Holder:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def fileno(self) -> int:
            return self.sock.fileno()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with ours, theirs:
            readable = loop.create_future()
            loop.add_reader(Holder(ours), readable.set_result, None)
            theirs.send(b"x")
            await readable
            assert loop.remove_reader(ours)

    run(main())


def test_grpc_adds_one_socket_to_several_loops(backend: Backend) -> None:
    """All are woken by one byte; who comes second meets EAGAIN."""
    ours, theirs = stream_pair()
    loops = [backend.new_event_loop(), backend.new_event_loop()]
    read = []
    with ours, theirs:
        for loop in loops:

            def readable(loop: asyncio.AbstractEventLoop = loop) -> None:
                with contextlib.suppress(BlockingIOError):
                    read.append(ours.recv(1))
                loop.remove_reader(ours)
                loop.stop()

            loop.add_reader(ours, readable)
        theirs.send(b"1")
        loops[0].run_forever()
        theirs.send(b"2")
        loops[1].run_forever()
    for loop in loops:
        loop.close()
    assert read == [b"1", b"2"]


def test_pymongo_gives_a_connected_socket_away(run: Run) -> None:
    """The transport owns it then, and is the one that closes it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            shown = transport.get_extra_info("socket")
            assert shown.fileno() == ours.fileno()
            transport.close()
            await protocol.lost()
            assert ours.fileno() == -1
            assert theirs.recv(1) == b""

    run(main())


def test_aiomysql_takes_the_socket_over_for_tls(run: Run) -> None:
    """It pauses reading, duplicates the socket of the transport, and opens a TLS stream on it."""

    context = server_context()

    def greet(listening: socket.socket) -> None:
        sock = listening.accept()[0]
        with sock:
            sock.sendall(b"hello in the clear\n")
            assert sock.recv(3) == b"tls"
            with context.wrap_socket(sock, server_side=True) as secure:
                secure.sendall(b"hello in secret\n")
                assert secure.recv(1) == b""

    async def main() -> None:
        with listener() as listening:
            greeting = asyncio.ensure_future(asyncio.to_thread(greet, listening))
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            assert await reader.readline() == b"hello in the clear\n"
            writer.write(b"tls")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            raw = writer.transport.get_extra_info("socket", default=None)
            assert raw is not None
            duplicate = raw.dup()
            assert duplicate.fileno() != raw.fileno()
            reader, secure = await asyncio.open_connection(
                sock=duplicate, ssl=client_context(), server_hostname=NAME
            )
            assert await reader.readline() == b"hello in secret\n"
            secure.close()
            await secure.wait_closed()
            await greeting
            writer.close()
            await writer.wait_closed()

    run(main())


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_httpx_gives_up_connecting(run: Run) -> None:
    """A connect that times out closes its own socket, and nobody else's."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with unanswered_address() as address:
            before = open_descriptors()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await loop.create_connection(Recorder, *address)
            # The number is free again; what gets it now stays open.
            other, peer = stream_pair()
            with other, peer:
                await asyncio.sleep(0)
                other.send(b"x")
                assert peer.recv(1) == b"x"
            assert open_descriptors() == before

    run(main())


def test_aiohttp_gives_up_a_tls_handshake(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            before = open_descriptors()
            host, port = listening.getsockname()
            context = client_context()
            connecting = asyncio.ensure_future(
                loop.create_connection(Recorder, host, port, ssl=context, server_hostname=NAME)
            )
            accepted = await asyncio.to_thread(listening.accept)
            with accepted[0]:
                connecting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await connecting
                while accepted[0].recv(4096):
                    pass
            assert open_descriptors() <= before

    run(main())


def test_asyncpg_cancels_an_accept_of_its_proxy(run: Run) -> None:
    """`sock_accept` that is cancelled leaves the listening socket to others, and open."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            listening.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(listening))
            await asyncio.sleep(0)
            accepting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await accepting
            with connected_client(listening.getsockname()):
                accepted, _ = await loop.sock_accept(listening)
                accepted.close()

    run(main())


def test_redis_tries_again_after_a_refused_connect(run: Run) -> None:
    async def main() -> None:
        before = open_descriptors()
        port = closed_port()
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
        assert open_descriptors() == before

    run(main())
