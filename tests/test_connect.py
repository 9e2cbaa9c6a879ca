"""create_connection and connect_accepted_socket: names, addresses, arguments and failures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import pytest
from backends import PY312, PY314, Backend
from peers import (
    Run,
    closed_port,
    connected_client,
    has_ipv6,
    listener,
    stream_pair,
    unanswered_address,
)
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


async def close(transport: Any, protocol: Any) -> None:
    transport.close()
    await protocol.lost()


def addresses(*wanted: tuple[str, int]) -> list[Any]:
    """What getaddrinfo would answer for a name that has these addresses."""
    return [
        (
            socket.AF_INET6 if ":" in host else socket.AF_INET,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
            "",
            (host, port, 0, 0) if ":" in host else (host, port),
        )
        for host, port in wanted
    ]


def resolve(monkeypatch: pytest.MonkeyPatch, answer: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Make every name resolve to `answer`; return the questions asked."""
    questions: list[tuple[Any, ...]] = []

    def getaddrinfo(*arguments: Any, **_: Any) -> Any:
        questions.append(arguments)
        return list(answer)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return questions


# -- names and addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize("stream", STREAM_RECORDERS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", None])
def test_connecting(run: Run, host: str | None, stream: type[Recorder | BufferedRecorder]) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 here")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = []

        def factory() -> Any:
            made.append(stream())
            return made[-1]

        with listener(host if host == "::1" else "127.0.0.1") as listening:
            port = listening.getsockname()[1]
            transport, protocol = await loop.create_connection(
                factory, host, port, family=0 if host else socket.AF_INET
            )
            assert made == [protocol]
            assert protocol.calls == ["connection_made"]
            assert protocol.transport is transport
            assert transport.get_protocol() is protocol
            accepted = listening.accept()[0]
            with accepted:
                assert transport.get_extra_info("peername") == listening.getsockname()
                assert transport.get_extra_info("sockname") == accepted.getpeername()
                sock = transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                accepted.sendall(b"hello")
                assert await protocol.received(5) == b"hello"
                await close(transport, protocol)

    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:0.0.0.0"])
def test_the_peer_is_whom_the_kernel_has_chosen(run: Run, host: str) -> None:
    """Who names all addresses is connected to the one of this machine."""
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 here")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener("::1" if host in ("::1", "::") else "127.0.0.1") as listening:
            port = listening.getsockname()[1]
            transport, protocol = await loop.create_connection(Recorder, host, port)
            peer = transport.get_extra_info("socket").getpeername()
            assert peer[0].endswith("1")
            assert transport.get_extra_info("peername") == peer
            await close(transport, protocol)

    run(main())


@pytest.mark.parametrize("port", [int, str], ids=["number", "text"])
def test_a_port_may_be_text(run: Run, port: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            number = listening.getsockname()[1]
            pair = await loop.create_connection(Recorder, "127.0.0.1", port(number))
            await close(*pair)

    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_literals_never_reach_the_resolver(
    run: Run, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 here")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener(host) as listening:
            pair = await loop.create_connection(Recorder, host, listening.getsockname()[1])
            await close(*pair)
        # Nor does an executor get started for them.
        assert getattr(loop, "_default_executor", None) is None

    questions = resolve(monkeypatch, [])
    run(main())
    assert not questions


def test_names_are_resolved_in_the_default_executor(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Executor(concurrent.futures.ThreadPoolExecutor):
        calls = 0

        def submit(self, *arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            return super().submit(*arguments, **keywords)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        executor = Executor(1)
        loop.set_default_executor(executor)
        with listener() as listening:
            port = listening.getsockname()[1]
            questions = resolve(monkeypatch, addresses(("127.0.0.1", port)))
            pair = await loop.create_connection(Recorder, "some.name.invalid", port)
            await close(*pair)
            assert executor.calls == len(questions) == 1
            assert questions[0][:2] == ("some.name.invalid", port)

    run(main())


@needs_ipv6
def test_an_ipv6_zone_is_kept(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo("fe80::1%lo", 80, type=socket.SOCK_STREAM)
        assert infos == socket.getaddrinfo("fe80::1%lo", 80, type=socket.SOCK_STREAM)
        assert infos[0][4][3] == socket.if_nametoindex("lo")

    run(main())


def test_a_subclass_may_resolve_names_itself(loop: asyncio.AbstractEventLoop) -> None:
    """Resolvers that cache are put in place this way."""
    asked = []

    class Loop(type(loop)):  # type: ignore[misc]
        async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
            asked.append(host)
            return addresses(("127.0.0.1", port))

    async def main() -> None:
        with listener() as listening:
            port = listening.getsockname()[1]
            running = asyncio.get_running_loop()
            await close(*await running.create_connection(Recorder, "cached.invalid", port))

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    assert asked == ["cached.invalid"]


# -- several addresses -----------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [None, 0.001, 10])
def test_the_next_address_is_tried_when_one_refuses(
    run: Run, delay: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            port = listening.getsockname()[1]
            resolve(
                monkeypatch,
                addresses(("127.0.0.1", closed_port()), ("127.0.0.2", port), ("127.0.0.1", port)),
            )
            transport, protocol = await loop.create_connection(
                Recorder, "name.invalid", port, happy_eyeballs_delay=delay
            )
            assert transport.get_extra_info("peername") == ("127.0.0.1", port)
            await close(transport, protocol)

    run(main())


def test_happy_eyeballs_overtakes_an_address_that_does_not_answer(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loser's socket is closed; the fixture that counts descriptors sees to it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening, unanswered_address() as silent:
            good = listening.getsockname()
            resolve(monkeypatch, addresses(silent, good))
            transport, protocol = await loop.create_connection(
                Recorder, "name.invalid", 80, happy_eyeballs_delay=0.01
            )
            assert transport.get_extra_info("peername") == good
            await close(transport, protocol)

    run(main())


@needs_ipv6
@pytest.mark.parametrize("delay", [None, 0.5])
def test_interleave_mixes_the_families(
    run: Run, delay: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one family first, then one of the other: the other comes second, if asked so."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener("::1") as six, listener() as four:
            refusing = closed_port()
            resolve(
                monkeypatch,
                addresses(
                    ("127.0.0.1", refusing),
                    ("127.0.0.1", four.getsockname()[1]),
                    ("::1", six.getsockname()[1]),
                ),
            )
            for interleave, family in ((1, socket.AF_INET6), (0, socket.AF_INET)):
                transport, protocol = await loop.create_connection(
                    Recorder,
                    "name.invalid",
                    80,
                    interleave=interleave,
                    happy_eyeballs_delay=delay,
                )
                assert transport.get_extra_info("socket").family == family
                await close(transport, protocol)

    run(main())


# -- local_addr ------------------------------------------------------------------------------------


def test_local_addr(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            port = closed_port()
            transport, protocol = await loop.create_connection(
                Recorder, *listening.getsockname(), local_addr=("127.0.0.2", port)
            )
            assert transport.get_extra_info("sockname") == ("127.0.0.2", port)
            accepted, peername = listening.accept()
            with accepted:
                assert peername == ("127.0.0.2", port)
                # The side that closes first keeps the port for a while.
                accepted.close()
                await protocol.lost()

    run(main())


def test_local_addr_that_is_taken(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            with pytest.raises(OSError, match="error while attempting to bind on address") as error:
                await loop.create_connection(
                    Recorder, *listening.getsockname(), local_addr=listening.getsockname()
                )
            assert error.value.errno == errno.EADDRINUSE

    run(main())


@needs_ipv6
def test_local_addr_of_another_family(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with (
            listener() as listening,
            pytest.raises(OSError, match="no matching local address with family"),
        ):
            await loop.create_connection(Recorder, *listening.getsockname(), local_addr=("::1", 0))

    run(main())


# -- failures --------------------------------------------------------------------------------------


def test_refused(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = []
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.create_connection(lambda: made.append(1), "127.0.0.1", closed_port())  # type: ignore[arg-type, func-returns-value]
        assert caught.value.errno == errno.ECONNREFUSED
        assert not made, "no protocol for a connection that never was"

    run(main())


@pytest.mark.parametrize("delay", [None, 0.01])
def test_several_failures_are_told_together(
    run: Run, delay: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ports = closed_port(), closed_port()
        resolve(monkeypatch, addresses(*(("127.0.0.1", port) for port in ports)))
        with pytest.raises(OSError, match="Multiple exceptions: ") as caught:
            await loop.create_connection(Recorder, "name.invalid", 80, happy_eyeballs_delay=delay)
        assert all(str(port) in str(caught.value) for port in ports)

    run(main())


@pytest.mark.skipif(not PY312, reason="all_errors came with 3.12")
def test_all_errors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        resolve(monkeypatch, addresses(*[("127.0.0.1", closed_port())] * 3))
        with pytest.raises(ExceptionGroup) as caught:
            await loop.create_connection(Recorder, "name.invalid", 80, all_errors=True)  # type: ignore[call-overload]
        assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError] * 3

    run(main())


def test_a_name_with_no_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        resolve(monkeypatch, [])
        with pytest.raises(OSError, match="returned empty list"):
            await loop.create_connection(Recorder, "name.invalid", 80)

    run(main())


def test_a_name_that_does_not_resolve(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(socket.gaierror, match="no such name"):
            await loop.create_connection(Recorder, "name.invalid", 80)

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    run(main())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "host and port was not specified and no sock specified"),
        ({"host": "127.0.0.1", "port": 1, "server_hostname": "x"}, "only meaningful with ssl"),
        ({"host": "127.0.0.1", "port": 1, "ssl_handshake_timeout": 1}, "only meaningful with ssl"),
        ({"host": "127.0.0.1", "port": 1, "ssl_shutdown_timeout": 1}, "only meaningful with ssl"),
        ({"port": 1, "ssl": True}, "You must set server_hostname"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_wrong_arguments(run: Run, arguments: dict[str, Any], message: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match=message):
            await loop.create_connection(Recorder, **arguments)

    run(main())


@pytest.mark.parametrize("port", [-1, 65_536, 2**70])
def test_a_port_that_is_none(run: Run, port: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(OverflowError, match=r"connect\(\)|too large"):
            await loop.create_connection(Recorder, "127.0.0.1", port)

    run(main())


@pytest.mark.parametrize("name", ["nonsense", "family", "proto"])
def test_none_where_it_means_nothing(run: Run, name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening, pytest.raises(TypeError):
            await loop.create_connection(Recorder, *listening.getsockname(), **{name: None})

    run(main())


def test_sock_and_address_exclude_each_other(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            for where in ({"host": "127.0.0.1", "port": 1}, {"port": 1}):
                with pytest.raises(ValueError, match="can not be specified at the same time"):
                    await loop.create_connection(Recorder, sock=sock, **where)  # type: ignore[call-overload]
            assert sock.fileno() != -1, "a refused socket stays the caller's"

    run(main())


def test_who_takes_their_time(run: Run) -> None:
    """The loop rests until whoever steps the coroutine goes on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            connecting = loop.create_connection(Recorder, *listening.getsockname())
            connected = connecting.send(None)
            while not connected.done():
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            before = time.thread_time()
            await asyncio.sleep(0.2)
            assert time.thread_time() - before < 0.1
            waiter = connecting.send(None)
            while not waiter.done():
                await asyncio.sleep(0)
            with pytest.raises(StopIteration) as ended:
                connecting.send(None)
            await close(*ended.value.value)

    run(main())


# -- sock= -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_socket_of_the_callers(run: Run, method: str, kind: str) -> None:
    """It may be in blocking mode when it comes: pymongo connects it first."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)
        with theirs:
            ours.setblocking(True)
            transport, protocol = await getattr(loop, method)(Recorder, sock=ours)
            assert ours.gettimeout() == 0
            assert transport.get_extra_info("socket").fileno() == ours.fileno()
            theirs.sendall(b"hello")
            assert await protocol.received(5) == b"hello"
            await close(transport, protocol)
            assert ours.fileno() == -1, "the transport owned it"

    run(main())


@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket"])
def test_a_socket_that_is_no_stream(run: Run, method: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="A Stream Socket was expected"):
                await getattr(loop, method)(Recorder, sock=sock)
            assert sock.fileno() != -1

    run(main())


def test_an_accepted_socket_of_ones_own_server(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening, connected_client(listening.getsockname()) as client:
            accepted, address = listening.accept()
            transport, protocol = await loop.connect_accepted_socket(Recorder, accepted)
            assert transport.get_extra_info("peername") == address == client.getsockname()
            client.sendall(b"hello")
            assert await protocol.received(5) == b"hello"
            for option in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
                with socket.socket() as other, pytest.raises(ValueError, match="only meaningful"):
                    await loop.connect_accepted_socket(Recorder, other, **{option: 1.0})
            await close(transport, protocol)

    run(main())


@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket"])
def test_an_object_that_is_only_like_a_socket(run: Run, backend: Backend, method: str) -> None:
    """asyncio asks nothing but the methods of it. Refusing it is fine, and it is then unharmed."""

    class Wrapper:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with ours, theirs:
            try:
                transport, protocol = await getattr(loop, method)(Recorder, sock=Wrapper(ours))
            except TypeError:
                assert backend.is_weft
                return
            theirs.sendall(b"hello")
            assert await protocol.received(5) == b"hello"
            transport.write(b"answer")
            assert await loop.sock_recv(theirs, 10) == b"answer"
            await close(transport, protocol)

    run(main())


# -- factories -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["address", "sock", "connect_accepted_socket"])
def test_a_factory_that_raises(run: Run, backend: Backend, method: str) -> None:
    """The connection is closed, and the caller gets the exception."""
    if not backend.is_weft and not PY314:
        pytest.skip("asyncio left the socket to the garbage collector until 3.14")

    def factory() -> Any:
        raise ZeroDivisionError("mine")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            if method == "address":
                making: Any = loop.create_connection(factory, *listening.getsockname())
            else:
                sock = connected_client(listening.getsockname())
                if method == "sock":
                    making = loop.create_connection(factory, sock=sock)
                else:
                    making = loop.connect_accepted_socket(factory, sock)
            with pytest.raises(ZeroDivisionError, match="mine"):
                await making
            accepted = listening.accept()[0]
            with accepted:
                accepted.setblocking(False)
                async with asyncio.timeout(5):
                    assert await loop.sock_recv(accepted, 1) == b""
            if method != "address":
                assert sock.fileno() == -1

    run(main())


def test_many_at_once(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener(backlog=200) as listening, ExitStack() as stack:
            pairs = await asyncio.gather(
                *(loop.create_connection(Recorder, *listening.getsockname()) for _ in range(100))
            )
            by_name = {}
            for _ in pairs:
                accepted, name = listening.accept()
                stack.enter_context(accepted)
                by_name[name] = accepted
            for number, (transport, protocol) in enumerate(pairs):
                peer = by_name[transport.get_extra_info("sockname")]
                peer.sendall(b"for %d only" % number)
                assert await protocol.received(9) == b"for %d only" % number
                await close(transport, protocol)

    run(main())


def test_connecting_in_debug_mode(backend: Backend) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            await close(*await loop.create_connection(Recorder, *listening.getsockname()))

    backend.run(main(), debug=True)
