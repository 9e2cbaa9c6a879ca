"""Sending datagrams: addresses, what waits for room, flow control, errors."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from backends import PY313, Backend, asyncio_backend, weft_backend
from children import program
from datagrams import COUNTS_RIGHT, HEADER, Datagrams, Scripted, end, endpoint, later
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peers import Run, has_ipv6, pass_turns

LOCAL = ("127.0.0.1", 0)


async def scripted(*script: BaseException | None, connected: bool = False) -> Any:
    """An endpoint whose socket does as it is told."""
    sock = Scripted(script)
    if connected:
        sock.connect(("127.0.0.1", 9))
    transport, here = await endpoint(sock=sock)
    return transport, here, sock


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["127.0.0.1", "127.1", "localhost", "", "0.0.0.0", "0"])
def test_ways_to_write_an_address(run: Run, text: str) -> None:
    async def main() -> None:
        server, there = await endpoint(local_addr=LOCAL)
        client, here = await endpoint(family=socket.AF_INET)
        client.sendto(b"hello", (text, server.get_extra_info("sockname")[1]))
        await there.called("datagram_received")
        assert there.received_from[0][0] == b"hello"
        await end(here, there)

    run(main())


@pytest.mark.parametrize("rest", [(), (0,), (0, 0)])
@pytest.mark.parametrize("host", ["::1", "0:0::1", "0000:0:0:0:0:0:0.0.0.1"])
def test_addresses_of_ipv6(run: Run, host: str, rest: tuple[int, ...]) -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 here")

    async def main() -> None:
        server, there = await endpoint(local_addr=("::1", 0))
        client, here = await endpoint(family=socket.AF_INET6)
        client.sendto(b"hello", (host, server.get_extra_info("sockname")[1], *rest))
        await there.called("datagram_received")
        assert there.received_from[0][0] == b"hello"
        await end(here, there)

    run(main())


@pytest.mark.parametrize("rest", [(0x100000,), (-1,), ("0",), (0, 0, 0)])
def test_what_is_no_address_of_ipv6_is_fatal(
    run: Run, rest: tuple[Any, ...], reports: list[dict[str, Any]]
) -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 here")

    async def main() -> None:
        client, here = await endpoint(family=socket.AF_INET6)
        client.sendto(b"x", ("::1", 9, *rest))
        assert isinstance(await here.lost(), TypeError | OverflowError)
        assert len(reports) == 1

    run(main())


@pytest.mark.parametrize(
    "address",
    [
        None,
        "text",
        ("127.0.0.1",),
        ("127.0.0.1", 1, 2),
        ["127.0.0.1", 9],
        ("127.0.0.1", 65536),
        ("127.0.0.1", -1),
        ("127.0.0.1", "9"),
        ("127.0.0.1", 9.0),
        (127, 9),
    ],
)
def test_what_is_no_address_is_fatal(run: Run, address: Any, reports: list[dict[str, Any]]) -> None:
    async def main() -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            pytest.raises((TypeError, OverflowError)) as expected,
        ):
            sock.sendto(b"x", address)
        client, here = await endpoint(family=socket.AF_INET)
        client.sendto(b"x", address)
        assert client.is_closing()
        exc = await here.lost()
        assert (type(exc), str(exc)) == (expected.type, str(expected.value))
        (report,) = reports
        assert report["message"] == "Fatal write error on datagram transport"
        assert (report["transport"], report["protocol"]) == (client, here)

    run(main())


def test_a_name_that_does_not_resolve_goes_to_error_received(run: Run) -> None:
    async def main() -> None:
        client, here = await endpoint(family=socket.AF_INET)
        client.sendto(b"x", ("::1", 9))
        assert isinstance(here.errors[0], socket.gaierror)
        assert not client.is_closing()
        await end(here)

    run(main())


def test_the_one_address_may_be_named(run: Run) -> None:
    async def main() -> None:
        server, there = await endpoint(local_addr=LOCAL)
        where = server.get_extra_info("sockname")
        client, here = await endpoint(remote_addr=where)
        client.sendto(b"1")
        client.sendto(b"2", None)
        client.sendto(b"3", (where[0], where[1]))
        client.sendto(data=b"4", addr=where)
        await there.called("datagram_received", 4)
        assert [data for data, _ in there.received_from] == [b"1", b"2", b"3", b"4"]
        with pytest.raises(ValueError, match=r"^Invalid address: must be None or \('127.0.0.1'"):
            client.sendto(b"5", ("127.0.0.2", where[1]))
        await end(here, there)

    run(main())


def test_broadcast_to_one_address_without_a_connection(run: Run) -> None:
    """The socket is not connected, so that answers may come from anybody."""

    async def main() -> None:
        server, there = await endpoint(local_addr=LOCAL)
        where = server.get_extra_info("sockname")
        client, here = await endpoint(remote_addr=where, allow_broadcast=True)
        assert client.get_extra_info("peername") is None
        client.sendto(b"hello")
        await there.called("datagram_received")
        with pytest.raises(ValueError, match="Invalid address"):
            client.sendto(b"x", ("127.0.0.1", 9))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(LOCAL)
            port = client.get_extra_info("socket").getsockname()[1]
            other.sendto(b"me too", ("127.0.0.1", port))
            await here.called("datagram_received")
            assert here.received_from == [(b"me too", other.getsockname())]
        await end(here, there)

    run(main())


def test_a_connected_socket_of_the_callers_ignores_addresses(run: Run) -> None:
    async def main() -> None:
        server, there = await endpoint(local_addr=LOCAL)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(server.get_extra_info("sockname"))
        client, here = await endpoint(sock=sock)
        client.sendto(b"1")
        client.sendto(b"2", ("127.0.0.1", 9))
        client.sendto(b"3", "nonsense")
        await there.called("datagram_received", 3)
        assert [data for data, _ in there.received_from] == [b"1", b"2", b"3"]
        await end(here, there)

    run(main())


def test_unix_addresses(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "\N{SNOWMAN}")
        _, there = await endpoint(local_addr=path, family=socket.AF_UNIX)
        _, abstract = await endpoint(local_addr="\0weft-test-datagrams", family=socket.AF_UNIX)
        client, here = await endpoint(family=socket.AF_UNIX)
        for name in (path, path.encode()):
            client.sendto(b"hello", name)
        for name in ("\0weft-test-datagrams", b"\0weft-test-datagrams"):
            client.sendto(b"hello", name)
        await there.called("datagram_received", 2)
        await abstract.called("datagram_received", 2)
        client.sendto(b"x", str(tmp_path / "nobody"))
        assert isinstance(here.errors[0], FileNotFoundError)
        await end(here, there, abstract)

    run(main())


# -- data ------------------------------------------------------------------------------------------


def test_what_waits_is_a_copy(run: Run) -> None:
    async def main() -> None:
        transport, here, sock = await scripted(later())
        data = bytearray(b"abcdef")
        transport.sendto(data, LOCAL)
        transport.sendto(memoryview(data)[::2], LOCAL)
        transport.sendto(memoryview(data).cast("H"), LOCAL)
        data[:] = b"______"
        data += b"can be resized"
        await end(here)
        assert sock.sent == [b"abcdef", b"ace", b"abcdef"]

    run(main())


def test_memory_in_pieces_is_fatal_where_it_has_to_be_sent_at_once(
    run: Run, reports: list[dict[str, Any]]
) -> None:
    async def main() -> None:
        client, here = await endpoint(family=socket.AF_INET)
        client.sendto(memoryview(b"abcdef")[::2], ("127.0.0.1", 9))
        assert isinstance(await here.lost(), BufferError)
        assert len(reports) == 1

    run(main())


def test_a_subclass_of_bytes(run: Run) -> None:
    class Mine(bytes):
        def __bytes__(self) -> bytes:
            return b"something else"

    async def main() -> None:
        server, there = await endpoint(local_addr=LOCAL)
        client, here = await endpoint(remote_addr=server.get_extra_info("sockname"))
        client.sendto(Mine(b"hello"))
        await there.called("datagram_received")
        assert there.received_from[0][0] == b"hello"
        await end(here, there)

    run(main())


def test_arguments(run: Run) -> None:
    async def main() -> None:
        client, here = await endpoint(remote_addr=("127.0.0.1", 9))
        for wrong in ("text", None, [1], object()):
            name = type(wrong).__name__
            with pytest.raises(TypeError, match=f"bytes-like object, not '{name}'"):
                client.sendto(wrong)
        for arguments in ((), (b"x", None, None)):
            with pytest.raises(TypeError):
                client.sendto(*arguments)
        with pytest.raises(TypeError):
            client.sendto(b"x", address=None)
        await end(here)

    run(main())


def test_an_empty_datagram_waits_like_others(run: Run) -> None:
    async def main() -> None:
        transport, here, sock = await scripted(later())
        transport.sendto(b"", LOCAL)
        assert transport.get_write_buffer_size() == HEADER
        transport.sendto(b"x", LOCAL)
        await end(here)
        assert sock.sent == [b""] * PY313 + [b"x"]

    run(main())


# -- flow control ----------------------------------------------------------------------------------


def test_what_is_pending_is_counted(run: Run, backend: Backend) -> None:
    async def main() -> None:
        transport, here, sock = await scripted(later())
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        transport.set_write_buffer_limits(high=300, low=0)
        sizes = []
        for _ in range(2):
            transport.sendto(b"x" * 100, LOCAL)
            sizes.append(transport.get_write_buffer_size())
        assert sizes == [100 + HEADER, 200 + 2 * HEADER]
        assert "pause_writing" not in here.calls
        transport.sendto(b"x" * 100, LOCAL)
        assert ("pause_writing" in here.calls) == bool(HEADER)
        transport.sendto(b"x", LOCAL)
        assert "pause_writing" in here.calls
        if backend.is_weft or COUNTS_RIGHT:
            await here.called("resume_writing")
            assert transport.get_write_buffer_size() == 0
        await end(here)
        assert [len(data) for data in sock.sent] == [100, 100, 100, 1]

    run(main())


def test_limits(run: Run) -> None:
    async def main() -> None:
        transport, here, _ = await scripted(*[later() for _ in range(100)])
        for arguments, expected in [
            ((), (16 * 1024, 64 * 1024)),
            ((100,), (25, 100)),
            ((100, 50), (50, 100)),
            ((None, 10), (10, 40)),
            ((0,), (0, 0)),
        ]:
            transport.set_write_buffer_limits(*arguments)
            assert transport.get_write_buffer_limits() == expected
        with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\)"):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.set_write_buffer_limits(high=1000)
        transport.sendto(b"x" * 100, LOCAL)
        assert "pause_writing" not in here.calls
        transport.set_write_buffer_limits(high=10)
        assert here.calls.count("pause_writing") == 1
        transport.abort()
        await here.lost()

    run(main())


def test_what_flow_control_raises_is_reported(run: Run, reports: list[dict[str, Any]]) -> None:
    if not COUNTS_RIGHT:
        pytest.skip("this asyncio miscounts what is pending, for ever")

    async def main() -> None:
        def fail() -> None:
            raise ZeroDivisionError("mine")

        transport, here, sock = await scripted(later())
        here.on.update(pause_writing=fail, resume_writing=fail)
        transport.set_write_buffer_limits(high=0)
        transport.sendto(b"x", LOCAL)
        await here.called("resume_writing")
        assert [report["message"] for report in reports] == [
            "protocol.pause_writing() failed",
            "protocol.resume_writing() failed",
        ]
        assert sock.sent == [b"x"]
        await end(here)

    run(main())


def test_resuming_may_send(run: Run, backend: Backend) -> None:
    if not backend.is_weft and not COUNTS_RIGHT:
        pytest.skip("this asyncio miscounts what is pending, for ever")

    async def main() -> None:
        transport, here, sock = await scripted(later(), None, later())
        here.on["resume_writing"] = lambda: here.on.clear() or transport.sendto(b"2", LOCAL)
        transport.set_write_buffer_limits(high=0)
        transport.sendto(b"1", LOCAL)
        transport.close()
        await here.lost()
        assert sock.sent == [b"1", b"2"]

    run(main())


# -- errors ----------------------------------------------------------------------------------------


def test_an_error_loses_its_datagram_alone(run: Run) -> None:
    async def main() -> None:
        failure = OSError(errno.EPERM, "mine")
        transport, here, sock = await scripted(later(), None, failure)
        for number in range(4):
            transport.sendto(b"%d" % number, LOCAL)
        transport.close()
        assert not here.errors
        assert await here.lost() is None
        assert here.errors == [failure]
        assert sock.sent == [b"0", b"2", b"3"]

    run(main())


def test_an_error_of_the_last_one_that_waits(run: Run) -> None:
    """Nothing is left to wait for, and yet the end comes."""

    async def main() -> None:
        transport, here, sock = await scripted(later(), OSError("mine"))
        transport.sendto(b"x", LOCAL)
        transport.close()
        assert await here.lost() is None
        assert [str(error) for error in here.errors] == ["mine"]
        assert sock.sent == []

    run(main())


@pytest.mark.parametrize("waits", [False, True])
def test_another_exception_is_fatal(run: Run, waits: bool, reports: list[dict[str, Any]]) -> None:
    async def main() -> None:
        failure = ZeroDivisionError("mine")
        transport, here, sock = await scripted(*[later()] * waits, failure)
        transport.sendto(b"1", LOCAL)
        if waits:
            transport.sendto(b"2", LOCAL)
        assert await here.lost() is failure
        assert sock.sent == []
        assert not here.errors
        (report,) = reports
        assert report["message"] == "Fatal write error on datagram transport"
        assert report["exception"] is failure

    run(main())


def test_what_error_received_raises_goes_to_whoever_sends(run: Run) -> None:
    async def main() -> None:
        def fail(_: Exception) -> None:
            raise ZeroDivisionError("mine")

        transport, here, _ = await scripted(OSError("no"))
        here.on["error_received"] = fail
        with pytest.raises(ZeroDivisionError, match="mine"):
            transport.sendto(b"x", LOCAL)
        assert not transport.is_closing()
        await end(here)

    run(main())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_program_goes_to_whoever_sends(run: Run, kind: type[BaseException]) -> None:
    async def main() -> None:
        transport, here, _ = await scripted(kind())
        with pytest.raises(kind):
            transport.sendto(b"x", LOCAL)
        assert not transport.is_closing()
        await end(here)

    run(main())


def test_error_received_may_end_the_transport(run: Run) -> None:
    async def main() -> None:
        transport, here, sock = await scripted(later(), OSError("no"))
        here.on["error_received"] = lambda _: transport.abort()
        for number in range(3):
            transport.sendto(b"%d" % number, LOCAL)
        assert await here.lost() is None
        await pass_turns()
        assert sock.sent == []
        assert here.calls.count("connection_lost") == 1

    run(main())


# -- after the end ---------------------------------------------------------------------------------


def test_sending_to_one_address_after_the_end_is_counted(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        client, here = await endpoint(remote_addr=("127.0.0.1", 9))
        client.abort()
        for _ in range(3):
            client.sendto(b"x")
        await here.lost()
        client.sendto(b"x")
        assert not caplog.records
        for _ in range(2):
            client.sendto(b"x")
        messages = [record.getMessage() for record in caplog.records]
        assert messages == ["socket.send() raised exception."] * 2
        with pytest.raises(ValueError, match="Invalid address"):
            client.sendto(b"x", ("127.0.0.1", 10))

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run(main())


def test_sending_to_anybody_goes_on_until_the_socket_is_closed(run: Run) -> None:
    async def main() -> None:
        server, there = await endpoint(local_addr=LOCAL)
        client, here = await endpoint(family=socket.AF_INET)
        client.close()
        client.sendto(b"last", server.get_extra_info("sockname"))
        await here.lost()
        await there.called("datagram_received")
        assert there.received_from[0][0] == b"last"
        await end(there)

    run(main())


@pytest.mark.backends("weft")
def test_sending_to_anybody_after_the_end(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """asyncio's stumbles over the loop that it has let go."""

    async def main() -> None:
        client, here = await endpoint(family=socket.AF_INET)
        await end(here)
        for _ in range(5):
            client.sendto(b"x", ("127.0.0.1", 9))
        assert [record.getMessage() for record in caplog.records] == [
            "socket.send() raised exception."
        ]

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run(main())


def test_aborting_drops_what_waits(run: Run) -> None:
    async def main() -> None:
        transport, here, sock = await scripted(later())
        data = b"x" * 1000
        before = sys.getrefcount(data)
        transport.sendto(data, LOCAL)
        transport.abort()
        assert sys.getrefcount(data) == before
        assert await here.lost() is None
        await pass_turns()
        assert sock.sent == []

    run(main())


def test_a_socket_closed_by_somebody_else(run: Run) -> None:
    """Its number may be a stranger's by now: nothing is sent there."""

    async def main() -> None:
        client, here = await endpoint(family=socket.AF_INET)
        client.get_extra_info("socket")._sock.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(LOCAL)
            client.sendto(b"x", stranger.getsockname())
            assert [error.errno for error in here.errors] == [errno.EBADF]  # type: ignore[attr-defined]
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):
                stranger.recv(1)
        await end(here)

    run(main())


# -- hooks -----------------------------------------------------------------------------------------


@pytest.mark.child
def test_audit_hooks_see_what_is_sent(backend: Backend) -> None:
    ended = program(
        backend,
        """
        import socket, sys

        def hook(event, arguments):
            if event == "socket.sendto":
                print(type(arguments[0]).__name__, arguments[1])
                if arguments[1][1] == 10:
                    raise PermissionError("no")

        async def main():
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(Protocol, family=socket.AF_INET)
            sys.addaudithook(hook)
            transport.sendto(b"x", ("127.0.0.1", 9))
            transport.sendto(b"x", ("127.0.0.1", 10))
            transport.close()

        class Protocol(asyncio.DatagramProtocol):
            def error_received(self, exc):
                print(repr(exc))

        run(main())
        """,
    )
    assert ended.check().splitlines() == [
        "socket ('127.0.0.1', 9)",
        "socket ('127.0.0.1', 10)",
        "PermissionError('no')",
    ]


# -- any order of things ---------------------------------------------------------------------------

OUTCOMES = st.sampled_from(["sent", "later", "error", "fatal"])
STEPS = st.one_of(
    st.tuples(st.just("sendto"), st.integers(0, 300)),
    st.tuples(st.just("limits"), st.integers(0, 600)),
    st.tuples(st.just("settle"), st.none()),
    st.tuples(st.sampled_from(["size", "close", "abort"]), st.none()),
)


def outcome(name: str, number: int) -> BaseException | None:
    if name == "later":
        return later()
    if name == "error":
        return OSError(f"error {number}")
    return ZeroDivisionError(f"fatal {number}") if name == "fatal" else None


async def history(script: list[str], steps: list[tuple[str, Any]], connected: bool) -> list[Any]:
    """Everything that can be seen of an endpoint that is put through these steps."""
    log: list[Any] = []
    loop = asyncio.get_running_loop()

    def report(_: Any, context: dict[str, Any]) -> None:
        # asyncio's stumbles over its own end where the last one that waits was fatal.
        if not context["message"].startswith("Exception in callback"):
            log.append(context["message"])

    loop.set_exception_handler(report)
    sock = Scripted(outcome(name, number) for number, name in enumerate(script))
    if connected:
        sock.connect(("127.0.0.1", 9))

    def note(name: str) -> Any:
        return lambda *arguments: log.append((name, *map(str, arguments)))

    calls = ["pause_writing", "resume_writing", "error_received", "connection_lost"]
    protocol = Datagrams(**{name: note(name) for name in calls})
    transport, _ = await loop.create_datagram_endpoint(lambda: protocol, sock=sock)

    async def settle() -> None:
        while not protocol.lost_with and (
            transport.get_write_buffer_size() or transport.is_closing()
        ):
            await asyncio.sleep(0)

    for step, argument in [*steps, ("close", None), ("settle", None)]:
        if protocol.lost_with:
            break
        if transport._conn_lost and step in ("sendto", "limits", "size"):
            # asyncio's goes on to count what it has dropped.
            continue
        if step == "sendto":
            transport.sendto(b"x" * argument, LOCAL)
        elif step == "limits":
            transport.set_write_buffer_limits(argument)
        elif step == "settle":
            await settle()
            log.append(("sent", [len(data) for data in sock.sent]))
        elif step == "size":
            log.append(transport.get_write_buffer_size())
        else:
            getattr(transport, step)()
            log.append((step, transport.is_closing()))
    log.append(("sent", [len(data) for data in sock.sent], sock.fileno()))
    return log


@pytest.mark.skipif(not COUNTS_RIGHT, reason="this asyncio miscounts what is pending, for ever")
@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(OUTCOMES, max_size=12), st.lists(STEPS, max_size=12), st.booleans())
def test_the_same_history_on_both_loops(
    script: list[str], steps: list[tuple[str, Any]], connected: bool
) -> None:
    # After an error of what had waited, asyncio goes on to wait until it can write. When that comes
    # after the end of the transport, connection_lost(None) may overtake connection_lost(error).
    assume(not {"error", "fatal"} <= set(script))
    histories = [
        backend.run(history(script, steps, connected))
        for backend in (asyncio_backend(), weft_backend())
    ]
    assert histories[0] == histories[1]
