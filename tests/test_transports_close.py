"""The end of a connection: close, abort, connection_lost, and what happens after it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from backends import PY312, PY314, Backend
from peers import (
    FILLS_UP,
    KINDS,
    Run,
    has_arrived,
    pass_turns,
    read_all,
    read_exactly,
    reset,
    stream_pair,
    wired,
)
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder

Stream = type[Recorder | BufferedRecorder]

pytestmark = pytest.mark.parametrize("kind", KINDS)

WARNING = "socket.send() raised exception."


# -- close -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", STREAM_RECORDERS)
def test_close(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        protocol = stream()
        async with wired(protocol, kind) as (transport, peer):
            assert not transport.is_closing()
            assert transport.close() is None
            assert transport.is_closing()
            assert protocol.calls == ["connection_made"], "not from within close()"
            await pass_turns(2)
            assert protocol.calls == ["connection_made", "connection_lost"]
            assert protocol.lost_with == [None]
            assert has_arrived(peer)
            assert peer.recv(1) == b""
            assert transport.get_extra_info("socket").fileno() == -1

    run(main())


def test_close_flushes_what_is_pending(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            transport.writelines([b"y"] * 10)
            transport.close()
            transport.close()
            assert transport.is_closing()
            assert transport.get_write_buffer_size()
            await pass_turns()
            assert not protocol.lost_with
            assert await read_all(peer) == b"x" * FILLS_UP + b"y" * 10
            assert await protocol.lost() is None

    run(main())


def test_close_right_after_writes_of_the_same_turn(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            transport.write(b"1")
            transport.write(b"2")
            transport.writelines([b"3", b"4"])
            transport.close()
            assert await read_all(peer) == b"1234"
            assert await protocol.lost() is None

    run(main())


@pytest.mark.parametrize("stream", STREAM_RECORDERS)
def test_nothing_is_delivered_after_close(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            await loop.sock_sendall(peer, b"unheard")
            transport.close()
            await read_exactly(peer, FILLS_UP)
            assert await protocol.lost() is None
            assert not protocol.data

    run(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_from_connection_made(run: Run, kind: str, how: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder(connection_made=lambda transport: getattr(transport, how)())
        ours, theirs = stream_pair(kind)
        with theirs:
            theirs.sendall(b"unheard")
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            assert transport.is_closing()
            assert await protocol.lost() is None
            assert protocol.calls == ["connection_made", "connection_lost"]

    run(main())


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("stream", STREAM_RECORDERS)
def test_closing_from_a_delivery(run: Run, kind: str, how: str, stream: Stream) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def end(*_: Any) -> None:
            getattr(protocol.transport, how)()

        protocol = stream(data_received=end, buffer_updated=end)
        async with wired(protocol, kind) as (_, peer):
            sending = loop.create_task(loop.sock_sendall(peer, b"x" * 1_000_000))
            assert await protocol.lost() is None
            sending.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled():
                assert isinstance(sending.exception(), (OSError, type(None)))
            deliveries = len(getattr(protocol, "chunks", getattr(protocol, "updates", [])))
            assert deliveries == 1

    run(main())


def test_closing_from_get_buffer_reads_no_more(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = BufferedRecorder(get_buffer=lambda _: protocol.transport.abort())
        async with wired(protocol, kind) as (_, peer):
            await loop.sock_sendall(peer, b"x")
            assert await protocol.lost() is None
            assert protocol.calls.count("get_buffer") == 1
            assert protocol.calls[-1] == "connection_lost"

    run(main())


# -- abort -----------------------------------------------------------------------------------------


def test_abort_discards_what_is_pending(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            assert transport.get_write_buffer_size()
            assert transport.abort() is None
            assert transport.is_closing()
            assert transport.get_write_buffer_size() == 0
            assert not protocol.lost_with, "not from within abort()"
            await pass_turns(2)
            assert protocol.lost_with == [None]
            assert len(await read_all(peer)) < FILLS_UP

    run(main())


def test_abort_after_close_gives_up_flushing(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, _):
            transport.write(b"x" * FILLS_UP)
            transport.close()
            await pass_turns()
            assert not protocol.lost_with
            transport.abort()
            await pass_turns(2)
            assert protocol.lost_with == [None]

    run(main())


# -- connection_lost, once -------------------------------------------------------------------------

ENDINGS: dict[str, Callable[[Any, Any], Any]] = {
    "close": lambda transport, peer: transport.close(),
    "abort": lambda transport, peer: transport.abort(),
    "write": lambda transport, peer: transport.write(b"x" * 100_000),
    "reset": lambda transport, peer: reset(peer),
    "peer-close": lambda transport, peer: peer.close(),
    "turn": lambda transport, peer: asyncio.sleep(0),
}


PEER_ENDINGS = {"reset", "peer-close"}


@pytest.mark.parametrize(
    "steps",
    [
        steps
        for steps in itertools.product(ENDINGS, ENDINGS)
        # A socket closes once.
        if not PEER_ENDINGS.issuperset(steps)
    ],
    ids=lambda steps: "-".join(steps),
)
def test_connection_lost_comes_once_whatever_ends_it(
    run: Run, kind: str, steps: tuple[str, str]
) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, peer):
            for step in (*steps, "turn", "turn"):
                if (waiting := ENDINGS[step](transport, peer)) is not None:
                    await waiting
            if not protocol.lost_with:
                transport.abort()
            await protocol.lost()
            await pass_turns(5)
            assert protocol.calls.count("connection_lost") == 1
            assert protocol.calls[-1] == "connection_lost"

    run(main())


def test_a_reset_is_told_as_what_it_is(run: Run, kind: str, reports: list[dict[str, Any]]) -> None:
    """And it is not an error of the program: the exception handler hears nothing of it."""

    async def main() -> None:
        protocol = Recorder(eof_received=lambda: True)
        async with wired(protocol, kind, small=True) as (transport, peer):
            # Unread data makes the kernel reset a Unix socket too.
            transport.write(b"unread")
            reset(peer)
            assert isinstance(await protocol.lost(), ConnectionResetError)
            assert transport.is_closing()
            assert not reports

    run(main())


def test_writing_to_a_peer_that_has_gone(
    run: Run, kind: str, reports: list[dict[str, Any]]
) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            transport.pause_reading()
            peer.close()
            while not transport.is_closing():
                transport.write(b"anybody?")
                await asyncio.sleep(0)
            exc = await protocol.lost()
            assert isinstance(exc, (BrokenPipeError, ConnectionResetError))
            assert not reports

    run(main())


def test_a_peer_that_resets_while_data_is_pending(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder(eof_received=lambda: True)
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.pause_reading()
            transport.write(b"x" * FILLS_UP)
            reset(peer)
            exc = await protocol.lost()
            assert isinstance(exc, (BrokenPipeError, ConnectionResetError))
            assert transport.get_write_buffer_size() == 0

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("state", ["paused", "half-closed"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_peer_that_goes_unheard_costs_no_time(run: Run, kind: str, state: str, how: str) -> None:
    """The kernel reports a broken connection whether or not one asks; the loop must still sleep."""

    async def main() -> None:
        protocol = Recorder(eof_received=lambda: True)
        async with wired(protocol, kind) as (transport, peer):
            if state == "half-closed":
                peer.shutdown(socket.SHUT_WR)
                await protocol.called("eof_received")
            else:
                transport.pause_reading()
            reset(peer) if how == "reset" else peer.close()
            await pass_turns(5)
            before = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - before < 0.1

    run(main())


# -- after the end ---------------------------------------------------------------------------------


def warnings_logged(caplog: pytest.LogCaptureFixture) -> int:
    return [record.getMessage() for record in caplog.records].count(WARNING)


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("when", ["at-once", "later"])
def test_writes_after_the_end_are_dropped_and_at_last_warned_about(
    run: Run, kind: str, how: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            getattr(transport, how)()
            if when == "later":
                await protocol.lost()
            for _ in range(4):
                transport.write(b"dropped")
            assert warnings_logged(caplog) == 0
            transport.write(b"dropped")
            assert warnings_logged(caplog) == 1
            transport.write(b"dropped")
            assert warnings_logged(caplog) == 2
            transport.write(b"")
            assert warnings_logged(caplog) == 2
            assert transport.get_write_buffer_size() == 0
            with pytest.raises(TypeError):
                transport.write("text")
            await protocol.lost()
            assert await read_all(peer) == b""

    run(main())


@pytest.mark.backends("weft")  # asyncio's look for the loop, which is gone: AttributeError.
def test_a_close_that_had_to_flush_ends_like_any_other(
    run: Run, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            transport.close()
            assert await read_all(peer) == b"x" * FILLS_UP
            await protocol.lost()
            for _ in range(5):
                transport.write(b"dropped")
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            await pass_turns()
            assert protocol.calls[-1] == "connection_lost"
            assert protocol.calls.count("connection_lost") == 1
        # As many as after a close with nothing to flush.
        assert warnings_logged(caplog) == 1

    run(main())


def test_writelines_after_the_end_is_dropped_too(
    run: Run, kind: str, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    if not backend.is_weft and PY312 and not PY314:
        pytest.skip("asyncio 3.12.0 to 3.13.0 raises TypeError")

    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            transport.close()
            for _ in range(5):
                transport.writelines([b"dropped", b"too"])
            assert warnings_logged(caplog) == 1
            await protocol.lost()
            assert await read_all(peer) == b""

    run(main())


@pytest.mark.parametrize("how", ["close", "abort", "reset", "flush"])
def test_a_lost_transport_can_still_be_asked(
    run: Run, kind: str, how: str, backend: Backend
) -> None:
    if not backend.is_weft and how == "flush":
        pytest.skip("asyncio forgets its own state when the last flush ends a connection")

    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind, small=True) as (transport, peer):
            address = transport.get_extra_info("peername")
            if how == "reset":
                reset(peer)
            elif how == "flush":
                transport.write(b"x" * FILLS_UP)
                transport.close()
                await read_all(peer)
            else:
                getattr(transport, how)()
            await protocol.lost()
            assert transport.is_closing()
            assert not transport.is_reading()
            assert transport.get_write_buffer_size() == 0
            assert transport.get_write_buffer_limits() == (16_384, 65_536)
            assert transport.get_extra_info("peername") == address
            assert transport.get_extra_info("socket").fileno() == -1
            assert transport.can_write_eof()
            assert "closed" in repr(transport)
            transport.close()
            transport.abort()
            transport.pause_reading()
            transport.resume_reading()
            transport.write(b"dropped")
            transport.write_eof()
            await pass_turns()
            assert protocol.calls.count("connection_lost") == 1

    run(main())


def test_calls_from_connection_lost(run: Run, kind: str) -> None:
    async def main() -> None:
        def last_words(_: Any) -> None:
            transport = protocol.transport
            assert transport.is_closing()
            transport.write(b"dropped")
            transport.close()
            transport.abort()
            transport.pause_reading()
            transport.resume_reading()

        protocol = Recorder(connection_lost=last_words)
        async with wired(protocol, kind) as (transport, peer):
            transport.close()
            assert await protocol.lost() is None
            await pass_turns()
            assert protocol.calls.count("connection_lost") == 1
            assert await read_all(peer) == b""

    run(main())


# -- dropped without a close -----------------------------------------------------------------------


@contextlib.contextmanager
def warns_of_an_unclosed_transport() -> Iterator[None]:
    """One warning about the transport; asyncio's socket may warn about itself besides."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    texts = [str(warning.message) for warning in caught if warning.category is ResourceWarning]
    assert len([text for text in texts if text.startswith("unclosed transport")]) == 1, texts


def test_a_dropped_transport_warns_and_closes_its_descriptor(run: Run, kind: str) -> None:
    """A loop that does not watch a transport does not keep it alive either."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)
        with theirs:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            del ours
            await pass_turns()
            transport.pause_reading()
            with warns_of_an_unclosed_transport():
                del transport
            assert await read_all(theirs) == b""

    run(main())


def test_a_reading_transport_stays_alive_without_being_held(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)

        class Echo(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                self.transport.write(data)

        with theirs:
            await loop.create_connection(Echo, sock=ours)
            gc.collect()
            await loop.sock_sendall(theirs, b"are you there?")
            assert await read_exactly(theirs, 14) == b"are you there?"

    run(main())


def test_a_writing_transport_stays_alive_until_all_is_sent(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind, small=True)
        with theirs:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            transport.write(b"x" * FILLS_UP)
            transport.close()
            del transport, _, ours
            gc.collect()
            assert await read_all(theirs) == b"x" * FILLS_UP

    run(main())


def test_a_loop_that_is_closed_with_a_connection_open(
    loop: asyncio.AbstractEventLoop, kind: str
) -> None:
    ours, theirs = stream_pair(kind)
    with theirs:
        transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, sock=ours))
        del ours
        loop.close()
        assert not protocol.lost_with
        with warns_of_an_unclosed_transport():
            del transport
            protocol.transport = None
        assert has_arrived(theirs)
        assert theirs.recv(1) == b""


def test_closing_after_the_loop_is_gone(loop: asyncio.AbstractEventLoop, kind: str) -> None:
    """It raises as asyncio does; the descriptor goes with the transport."""
    ours, theirs = stream_pair(kind)
    with theirs:
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ours))
        del ours
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            transport.close()
        with warns_of_an_unclosed_transport():
            del transport, _
        assert has_arrived(theirs)
        assert theirs.recv(1) == b""


def test_a_lost_transport_and_its_protocol_are_free_to_go(run: Run, kind: str) -> None:
    async def main() -> None:
        async def use() -> list[weakref.ref[Any]]:
            protocol = Recorder()
            async with wired(protocol, kind) as (transport, peer):
                transport.write(b"x")
                await read_exactly(peer, 1)
                transport.close()
                await protocol.lost()
            return [weakref.ref(protocol), weakref.ref(transport)]

        references = await use()
        await pass_turns()
        gc.collect()
        assert [reference() for reference in references] == [None, None]

    run(main())
