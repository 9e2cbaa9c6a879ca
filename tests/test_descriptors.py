"""Who closes which descriptor, and when: cancelled, failed and raced at every step.

Each test here also stands under the fixture that compares the descriptors of this process before
and after; what is asserted besides is that a descriptor is closed soon, not only at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import PY312, Backend
from children import program
from conftest import descriptors
from peers import (
    KINDS,
    Run,
    closed_port,
    connected_client,
    has_arrived,
    listener,
    pass_turns,
    read_all,
    reset,
    stream_pair,
    unanswered_address,
    wired,
)
from recorders import Recorder
from serving import Made, address, serving

each_kind = pytest.mark.parametrize("kind", KINDS)
Connect = Callable[[asyncio.AbstractEventLoop, Any], Coroutine[Any, Any, tuple[Any, Any]]]


async def connect_sock(loop: asyncio.AbstractEventLoop, where: Any) -> tuple[Any, Any]:
    return await loop.create_connection(Recorder, sock=connected_client(where))


async def connect_accepted(loop: asyncio.AbstractEventLoop, where: Any) -> tuple[Any, Any]:
    return await loop.connect_accepted_socket(Recorder, connected_client(where))


# Each way to a connection, given the address of a listener.
WAYS: dict[str, Connect] = {
    "literal": lambda loop, where: loop.create_connection(Recorder, *where),
    "name": lambda loop, where: loop.create_connection(Recorder, "name.invalid", where[1]),
    "local": lambda loop, where: loop.create_connection(
        Recorder, *where, local_addr=("127.0.0.1", 0)
    ),
    "eyeballs": lambda loop, where: loop.create_connection(
        Recorder, "name.invalid", where[1], happy_eyeballs_delay=0.001
    ),
    "streams": lambda loop, where: asyncio.open_connection(*where),
    "accepted": connect_accepted,
    "sock": connect_sock,
}
each_way = pytest.mark.parametrize("way", WAYS)


def skip_where_asyncio_leaks(backend: Backend, way: str) -> None:
    if not backend.is_weft and way == "eyeballs":
        pytest.skip("asyncio leaves the winner of a cancelled race to the garbage collector")


@pytest.fixture
def names_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name has two addresses, of which the first refuses."""

    def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        kind = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        return [(*kind, ("127.0.0.2", port)), (*kind, ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@contextlib.contextmanager
def accepts_all() -> Iterator[Any]:
    """The address of a listener; whatever connected to it is closed at the end."""
    with listener(backlog=1000) as listening:
        yield listening.getsockname()
        listening.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                listening.accept()[0].close()


async def discard(connection: tuple[Any, Any]) -> None:
    """End a connection, of a transport and a protocol or of a reader and a writer."""
    one, other = connection
    if isinstance(one, asyncio.StreamReader):
        other.close()
        with contextlib.suppress(OSError):
            await other.wait_closed()
    else:
        one.abort()
        await other.lost()


# -- cancelled -------------------------------------------------------------------------------------


@each_way
@pytest.mark.usefixtures("names_resolve")
def test_connecting_cancelled_at_every_step(run: Run, backend: Backend, way: str) -> None:
    skip_where_asyncio_leaks(backend, way)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with accepts_all() as where:
            outcomes = set()
            for turns in range(12):
                task = loop.create_task(WAYS[way](loop, where))
                await pass_turns(turns)
                task.cancel()
                try:
                    connection = await task
                except asyncio.CancelledError:
                    outcomes.add("cancelled")
                else:
                    outcomes.add("connected")
                    await discard(connection)
                await pass_turns()
            assert "cancelled" in outcomes

    run(main())


@each_way
@pytest.mark.usefixtures("names_resolve")
def test_connecting_cancelled_by_a_callback_of_the_same_turn(
    run: Run, backend: Backend, way: str
) -> None:
    """The cancellation is queued ahead of whatever the loop finds ready in that turn."""
    skip_where_asyncio_leaks(backend, way)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with accepts_all() as where:
            for turns in range(12):
                task = loop.create_task(WAYS[way](loop, where))
                await pass_turns(turns)
                loop.call_soon(task.cancel)
                loop.call_soon(task.cancel)
                with contextlib.suppress(asyncio.CancelledError):
                    await discard(await task)
                await pass_turns()

    run(main())


@each_kind
def test_a_socket_given_away_is_closed_by_a_cancelled_call(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for turns in range(1, 4):
            ours, theirs = stream_pair(kind)
            with theirs:
                task = loop.create_task(loop.create_connection(Recorder, sock=ours))
                await pass_turns(turns)
                task.cancel()
                try:
                    transport, protocol = await task
                except asyncio.CancelledError:
                    await pass_turns()
                else:
                    transport.abort()
                    await protocol.lost()
                assert ours.fileno() == -1
                assert await read_all(theirs) == b""

    run(main())


def test_a_lookup_cancelled_while_its_thread_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        asked.set()
        answer.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.create_connection(Recorder, "name.invalid", 1))
        while not asked.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        answer.set()

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    run(main())


@pytest.mark.parametrize("delay", [None, 0.001])
def test_connecting_to_a_host_that_does_not_answer_times_out(
    run: Run, delay: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with unanswered_address() as silent:
            info = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", silent)
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [info, info, info])
            before = descriptors()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(
                    loop.create_connection(
                        Recorder, "name.invalid", 80, happy_eyeballs_delay=delay
                    ),
                    0.02,
                )
            await pass_turns()
            sockets = {fd for fd, what in descriptors().items() if what.startswith("socket:")}
            assert sockets <= before.keys()

    run(main())


def test_a_unix_connection_cancelled_at_every_step(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        made = Made()
        server = await loop.create_unix_server(made, path)
        for turns in range(8):
            task = loop.create_task(loop.create_unix_connection(Recorder, path))
            await pass_turns(turns)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await discard(await task)
            await pass_turns()
        for protocol in made.protocols:
            await protocol.lost()
        server.close()
        await server.wait_closed()

    run(main())


@pytest.mark.backends("weft")  # asyncio goes on serving for a caller who has nothing to stop it by.
@pytest.mark.parametrize("family", KINDS)
def test_a_cancelled_server_does_not_serve(run: Run, family: str, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = descriptors()
        for turns in range(6):
            if family == "tcp":
                making: Any = loop.create_server(Recorder, "127.0.0.1", 0)
            else:
                making = loop.create_unix_server(Recorder, str(tmp_path / "socket"))
            task = loop.create_task(making)
            await pass_turns(turns)
            task.cancel()
            try:
                server = await task
            except asyncio.CancelledError:
                await pass_turns()
            else:
                server.close()
                await server.wait_closed()
            assert descriptors().keys() == before.keys()

    run(main())


def test_a_connect_that_is_dropped_with_its_loop(backend: Backend) -> None:
    """The coroutine is closed by the garbage collector, outside of any task and context."""
    ended = program(
        backend,
        """
        import gc, logging, socket, weakref
        logging.disable()

        def main():
            loop = new_event_loop()
            listening = socket.create_server(("127.0.0.1", 0), backlog=0)
            address = listening.getsockname()
            fillers = []
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(address)
                fillers.append(filler)
            task = loop.create_task(loop.create_connection(asyncio.Protocol, *address))
            for _ in range(5):
                loop.call_soon(loop.stop)
                loop.run_forever()
            assert not task.done()
            loop.close()
            for sock in (listening, *fillers):
                sock.close()
            return weakref.ref(task), weakref.ref(loop)

        references = main()
        gc.collect()
        assert [reference() for reference in references] == [None, None]
        """,
        "-W",
        "always",
    )
    assert ended.check() == ""


# -- failed ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[Callable[[], None]]:
    """Use up the descriptors of this process; calling what is given frees them again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 10, hard))
    taken: list[int] = []

    def free() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        while taken:
            os.close(taken.pop())

    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(2))
        yield free
    finally:
        free()


def test_connecting_without_a_descriptor_left(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with accepts_all() as where, no_descriptor_left() as free:
            with pytest.raises(OSError, match="Too many open files") as caught:
                await loop.create_connection(Recorder, *where)
            assert caught.value.errno == errno.EMFILE
            free()
            await discard(await loop.create_connection(Recorder, *where))

    run(main())


@pytest.mark.slow
def test_accepting_without_a_descriptor_left(
    run: Run, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported, does not spin, and goes on once there are descriptors again."""
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.02)

    async def main() -> None:
        made = Made()
        async with serving(made, backlog=5) as server:
            with connected_client(address(server)):
                await made.protocol()
                with socket.socket() as late, no_descriptor_left() as free:
                    late.connect(address(server))
                    async with asyncio.timeout(10):
                        while not reports:
                            await asyncio.sleep(0)
                    assert made.protocols[0].lost_with == []
                    free()
                    await made.protocol(1)
            message = "socket.accept() out of system resource"
            assert {report["message"] for report in reports} == {message}
            assert reports[0]["exception"].errno == errno.EMFILE
            assert reports[0]["socket"].fileno() == server.sockets[0].fileno()
            # asyncio tries as often as the backlog is long before it waits.
            assert len(reports) < 200

    run(main())


@each_kind
@pytest.mark.parametrize("name", ["connection_made", "data_received", "eof_received"])
def test_a_callback_that_raises_closes_once(
    run: Run, kind: str, name: str, reports: list[dict[str, Any]]
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("mine")

    async def main() -> None:
        protocol = Recorder(**{name: fail})
        async with wired(protocol, kind) as (transport, peer):
            number = transport.get_extra_info("socket").fileno()
            peer.sendall(b"x")
            peer.shutdown(socket.SHUT_WR)
            await protocol.lost()
            assert number not in descriptors()
            # The number goes to somebody else at once; a second close would take it from them.
            with contextlib.ExitStack() as stack:
                for _ in range(5):
                    stack.enter_context(socket.socket())
                transport.close()
                transport.abort()
                await pass_turns(5)
            assert len(reports) == 1

    run(main())


# -- raced -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [socket.socket.close, reset], ids=["close", "reset"])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_clients_that_go_before_they_are_accepted(
    run: Run, how: Callable[[socket.socket], None], turns: int
) -> None:
    async def main() -> None:
        made = Made()
        async with serving(made) as server:
            for _ in range(10):
                client = connected_client(address(server))
                await pass_turns(turns)
                how(client)
            with connected_client(address(server)) as last:
                name = last.getsockname()
                async with asyncio.timeout(10):
                    while name not in [
                        protocol.transport.get_extra_info("peername")
                        for protocol in made.protocols
                        if protocol.transport
                    ]:
                        await asyncio.sleep(0)
            for protocol in made.protocols:
                await protocol.lost()
                assert protocol.calls.count("connection_made") == 1
                assert protocol.calls.count("connection_lost") == 1

    run(main())


@pytest.mark.parametrize("turns", range(5))
def test_a_server_closed_while_clients_arrive(run: Run, backend: Backend, turns: int) -> None:
    if not backend.is_weft and turns == 2:
        pytest.skip("asyncio fails an assertion and leaves what it accepted to the collector")

    async def main() -> None:
        made = Made()
        async with serving(made) as server:
            with contextlib.ExitStack() as stack:
                for _ in range(5):
                    stack.enter_context(connected_client(address(server)))
                await pass_turns(turns)
                server.close()
                await pass_turns(5)
                for protocol in made.protocols:
                    await protocol.called("connection_made")

    run(main())


@each_kind
def test_a_number_that_is_used_again_brings_no_old_events(run: Run, kind: str) -> None:
    """Descriptors are numbered anew in the very turn in which others end."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        numbers = set()
        for round_ in range(30):
            old = Recorder()
            async with wired(old, kind) as (transport, peer):
                # Data for the old connection arrives in the turn that closes it.
                peer.sendall(b"old %d" % round_)
                transport.abort()
                numbers.add(transport.get_extra_info("socket").fileno())
                await old.lost()
                async with wired(new := Recorder(), kind) as (successor, other):
                    numbers.add(successor.get_extra_info("socket").fileno())
                    peer.close()
                    other.sendall(b"new %d" % round_)
                    await new.received(5)
                    assert new.data == b"new %d" % round_
                    assert not new.lost_with
                    assert not old.data or old.data == b"old %d" % round_
        assert len(numbers) < 30, "numbers were used again, or this tests nothing"
        assert loop.is_running()

    run(main())


# -- closed behind our back ------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("end", ["write", "writelines", "close", "abort"])
def test_a_socket_closed_behind_our_back_is_not_mistaken_for_another(
    run: Run, kind: str, end: str, reports: list[dict[str, Any]]
) -> None:
    """Its number has gone to a stranger: nothing is written there, and nothing closed."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        await pass_turns()
        number = ours.fileno()
        stranger, strangers_peer = socket.socketpair()
        ours.close()
        os.dup2(stranger.fileno(), number)
        stranger.close()
        stranger = socket.socket(fileno=number)
        with theirs, stranger, strangers_peer:
            if end == "write":
                transport.write(b"secret")
            elif end == "writelines":
                transport.writelines([b"sec", b"ret"])
            else:
                getattr(transport, end)()
            exc = await protocol.lost()
            await pass_turns(5)
            assert exc is None if end in ("close", "abort") else isinstance(exc, OSError)
            assert not has_arrived(strangers_peer, 0)
            stranger.sendall(b"still mine")
            assert strangers_peer.recv(100) == b"still mine"
            assert protocol.calls.count("connection_lost") == 1
            del transport

    run(main())
    assert not reports


# -- watched already -------------------------------------------------------------------------------


@each_kind
def test_the_descriptor_of_a_transport_cannot_be_watched(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            sock = transport.get_extra_info("socket")
            for fd in (sock, sock.fileno()):
                for method, arguments in (
                    (loop.add_reader, (print,)),
                    (loop.add_writer, (print,)),
                    (loop.remove_reader, ()),
                    (loop.remove_writer, ()),
                ):
                    with pytest.raises(RuntimeError, match="is used by transport"):
                        method(fd, *arguments)
            peer.sendall(b"not disturbed")
            assert await protocol.received(13) == b"not disturbed"

    run(main())


@each_kind
@pytest.mark.parametrize("state", ["new", "paused", "half-closed", "writing"])
def test_nor_can_it_while_the_transport_wants_nothing_of_it(
    run: Run, kind: str, state: str
) -> None:
    """Whether or not the loop watches it at the moment, it is the transport's."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def refused(transport: Any) -> bool:
            for method, arguments in ((loop.add_reader, (print,)), (loop.remove_writer, ())):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    method(transport.get_extra_info("socket"), *arguments)
            return True

        made: dict[str, Any] = {"connection_made": refused} if state == "new" else {}
        protocol = Recorder(eof_received=lambda: True, **made)
        async with wired(protocol, kind, small=True) as (transport, peer):
            if state == "paused":
                transport.pause_reading()
            elif state == "half-closed":
                peer.shutdown(socket.SHUT_WR)
                await protocol.called("eof_received")
            elif state == "writing":
                transport.pause_reading()
                transport.write(b"x" * 1_000_000)
            await pass_turns()
            assert refused(transport)
            if PY312:
                sock = transport._sock
                with pytest.raises(RuntimeError, match="is used by transport"):
                    await loop.create_connection(Recorder, sock=sock)

    run(main())


@each_kind
def test_it_can_be_watched_again_once_the_transport_is_closing(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        copy = ours.dup()
        number = ours.fileno()
        transport.close()
        loop.remove_reader(number)
        await protocol.lost()
        # Now somebody else has that number.
        os.dup2(copy.fileno(), number)
        copy.close()
        with theirs:
            readable = loop.create_future()
            loop.add_reader(number, lambda: readable.done() or readable.set_result(None))
            theirs.sendall(b"x")
            await readable
            assert loop.remove_reader(number)
            os.close(number)

    run(main())


@pytest.mark.skipif(not PY312, reason="asyncio looked for it from 3.12 on")
@each_kind
def test_one_socket_for_two_transports(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)
        with theirs:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.create_connection(Recorder, sock=ours)
            transport.abort()
            await protocol.lost()

    run(main())


@each_kind
def test_a_duplicate_can_be_watched_beside_the_transport(run: Run, kind: str) -> None:
    """Two descriptors, one connection: each has its own events, and its own end."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            transport.pause_reading()
            with transport.get_extra_info("socket").dup() as copy:
                readable = loop.create_future()
                loop.add_reader(copy, lambda: readable.done() or readable.set_result(None))
                peer.sendall(b"for both")
                await readable
                assert copy.recv(3) == b"for"
                assert loop.remove_reader(copy)
                transport.resume_reading()
                assert await protocol.received(5) == b" both"

    run(main())


# -- counted over many rounds ----------------------------------------------------------------------


@pytest.mark.slow
@each_way
@pytest.mark.usefixtures("names_resolve")
def test_nothing_grows_over_many_connections(run: Run, backend: Backend, way: str) -> None:
    skip_where_asyncio_leaks(backend, way)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        counts = []
        with accepts_all() as where:
            for round_ in range(300):
                with accepts_all() if round_ % 2 else contextlib.nullcontext(where) as target:
                    task = loop.create_task(WAYS[way](loop, target))
                    if round_ % 3 == 0:
                        await pass_turns(round_ % 7)
                        task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await discard(await task)
                    await pass_turns()
                if round_ % 50 == 49:
                    counts.append(len(descriptors()))
        # What the listener holds in its queue is the kernel's, not ours.
        assert max(counts) - min(counts) <= 1, counts

    run(main())


@pytest.mark.slow
def test_nothing_grows_over_many_refusals(run: Run, backend: Backend) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = len(descriptors())
        port = closed_port()
        for _ in range(500):
            with pytest.raises(ConnectionRefusedError):
                await loop.create_connection(Recorder, "127.0.0.1", port)
        assert len(descriptors()) == before

    run(main())
