"""Reading: delivery, pause_reading() and resume_reading(), buffers of the protocol's own."""

from __future__ import annotations

import array
import asyncio
import mmap
from typing import Any

import pytest
from peers import KINDS, Run, pass_turns, read_exactly, stream_pair, wired
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder

Stream = type[Recorder | BufferedRecorder]

pytestmark = pytest.mark.parametrize("kind", KINDS)
each_stream = pytest.mark.parametrize("stream", STREAM_RECORDERS)


# -- delivery --------------------------------------------------------------------------------------


@each_stream
def test_what_was_sent_before_the_transport_existed_comes_after_connection_made(
    run: Run, kind: str, stream: Stream
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)
        with theirs:
            theirs.sendall(b"early")
            transport, protocol = await loop.create_connection(stream, sock=ours)
            assert protocol.calls[0] == "connection_made"
            assert await protocol.received(5) == b"early"
            transport.close()
            await protocol.lost()

    run(main())


def test_data_received_gets_bytes_of_its_own(run: Run, kind: str) -> None:
    """A chunk that the protocol keeps must not change when the next one is read."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        async with wired(protocol, kind) as (_, peer):
            sizes = [1, 2, 100, 4096, 65_536, 100, 300_000, 3]
            for number, size in enumerate(sizes):
                already = len(protocol.data)
                await loop.sock_sendall(peer, bytes([number]) * size)
                await protocol.received(already + size)
            assert all(type(chunk) is bytes and chunk for chunk in protocol.chunks)
            expected = b"".join(bytes([number]) * size for number, size in enumerate(sizes))
            assert b"".join(protocol.chunks) == expected

    run(main())


@each_stream
def test_a_big_message_comes_whole(run: Run, kind: str, stream: Stream) -> None:
    payload = bytes(range(251)) * 4000

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream()
        async with wired(protocol, kind, small=True) as (_, peer):
            await loop.sock_sendall(peer, payload)
            assert await protocol.received(len(payload)) == payload

    run(main())


def test_a_protocol_needs_no_base_class(run: Run, kind: str) -> None:
    class Bare:
        def __init__(self) -> None:
            self.recorder = Recorder()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.recorder, name)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Bare()
        async with wired(protocol, kind) as (_, peer):
            await loop.sock_sendall(peer, b"duck")
            assert await protocol.received(4) == b"duck"

    run(main())


def test_callbacks_are_looked_up_when_they_are_called(run: Run, kind: str) -> None:
    """Tests and instrumentation replace methods on a protocol that is already connected."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        async with wired(protocol, kind) as (_, peer):
            await loop.sock_sendall(peer, b"first")
            await protocol.received(5)
            seen = loop.create_future()
            protocol.data_received = seen.set_result  # type: ignore[method-assign]
            await loop.sock_sendall(peer, b"second")
            assert await seen == b"second"
            assert protocol.data == b"first"

    run(main())


# -- pausing ---------------------------------------------------------------------------------------


@each_stream
def test_pause_and_resume(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream()
        async with wired(protocol, kind) as (transport, peer):
            assert transport.is_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            await loop.sock_sendall(peer, b"held back")
            await pass_turns(5)
            assert not protocol.data
            transport.resume_reading()
            assert transport.is_reading()
            assert await protocol.received(9) == b"held back"

    run(main())


@each_stream
def test_pausing_and_resuming_twice_is_the_same_as_once(
    run: Run, kind: str, stream: Stream
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream()
        async with wired(protocol, kind) as (transport, peer):
            transport.resume_reading()
            transport.pause_reading()
            transport.pause_reading()
            transport.resume_reading()
            assert transport.is_reading()
            transport.resume_reading()
            await loop.sock_sendall(peer, b"once")
            assert await protocol.received(4) == b"once"
            transport.pause_reading()
            transport.pause_reading()
            await loop.sock_sendall(peer, b"held")
            await pass_turns(5)
            assert protocol.data == b"once"
            transport.resume_reading()
            assert await protocol.received(8) == b"onceheld"

    run(main())


@each_stream
def test_pausing_from_connection_made(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream(connection_made=lambda transport: transport.pause_reading())
        async with wired(protocol, kind) as (transport, peer):
            assert not transport.is_reading()
            await loop.sock_sendall(peer, b"later")
            await pass_turns(5)
            assert protocol.calls == ["connection_made"]
            transport.resume_reading()
            assert await protocol.received(5) == b"later"

    run(main())


@each_stream
def test_nothing_comes_after_a_pause_from_within_a_delivery(
    run: Run, kind: str, stream: Stream
) -> None:
    payload = b"x" * 1_000_000

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def pause(*_: Any) -> None:
            protocol.transport.pause_reading()

        protocol = stream(data_received=pause, buffer_updated=pause)
        async with wired(protocol, kind) as (transport, peer):
            sending = loop.create_task(loop.sock_sendall(peer, payload))
            while len(protocol.data) < len(payload):
                deliveries = protocol.calls.count("data_received") + len(
                    getattr(protocol, "updates", [])
                )
                size = len(protocol.data)
                await protocol.until(lambda size=size: len(protocol.data) > size)
                assert not transport.is_reading()
                await pass_turns(3)
                now = protocol.calls.count("data_received") + len(getattr(protocol, "updates", []))
                assert now == deliveries + 1
                transport.resume_reading()
            await sending
            assert protocol.data == payload

    run(main())


@each_stream
def test_pause_and_resume_in_one_turn_loses_nothing(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream()
        async with wired(protocol, kind) as (transport, peer):
            for _ in range(20):
                await loop.sock_sendall(peer, b"0123456789")
                transport.pause_reading()
                transport.resume_reading()
            assert await protocol.received(200) == b"0123456789" * 20

    run(main())


@each_stream
def test_a_paused_transport_holds_its_peer_back(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        protocol = stream()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.pause_reading()
            sent = 0
            quiet = 0
            while quiet < 20:
                try:
                    sent += peer.send(b"x" * 1000)
                    quiet = 0
                except BlockingIOError:
                    quiet += 1
                    await asyncio.sleep(0)
            assert sent < 1_000_000
            assert not protocol.data
            transport.resume_reading()
            await protocol.received(sent)
            assert len(protocol.data) == sent

    run(main())


@each_stream
def test_pausing_does_not_stop_writing(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        async with wired(stream(), kind, small=True) as (transport, peer):
            transport.pause_reading()
            transport.write(b"x" * 500_000)
            assert await read_exactly(peer, 500_000) == b"x" * 500_000

    run(main())


@each_stream
def test_pausing_and_resuming_a_closed_transport_does_nothing(
    run: Run, kind: str, stream: Stream
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream()
        async with wired(protocol, kind) as (transport, peer):
            await loop.sock_sendall(peer, b"too late")
            transport.close()
            assert not transport.is_reading()
            transport.pause_reading()
            transport.resume_reading()
            assert not transport.is_reading()
            await protocol.lost()
            transport.pause_reading()
            transport.resume_reading()
            assert not transport.is_reading()
            assert not protocol.data

    run(main())


@each_stream
def test_closing_while_paused(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        protocol = stream()
        async with wired(protocol, kind) as (transport, _):
            transport.pause_reading()
            transport.close()
            transport.resume_reading()
            assert await protocol.lost() is None

    run(main())


# -- the protocol's own buffers --------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_buffers_of_every_size(run: Run, kind: str, size: int) -> None:
    payload = bytes(range(256)) * (4 if size < 10 else 400)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = BufferedRecorder(size)
        async with wired(protocol, kind) as (_, peer):
            await loop.sock_sendall(peer, payload)
            assert await protocol.received(len(payload)) == payload
            assert all(0 < count <= size for count in protocol.updates)
            assert all(isinstance(hint, int) for hint in protocol.hints)

    run(main())


@pytest.mark.parametrize("buffer", ["bytearray", "memoryview", "slice", "array", "mmap"])
def test_buffers_of_every_type(run: Run, kind: str, buffer: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        area = bytearray(64)
        mapped = mmap.mmap(-1, 64)
        offered: Any = {
            "bytearray": area,
            "memoryview": memoryview(area),
            "slice": memoryview(area)[10:50],
            "array": array.array("B", bytes(64)),
            "mmap": mapped,
        }[buffer]
        received = bytearray()
        protocol = BufferedRecorder(
            get_buffer=lambda _: offered,
            buffer_updated=lambda count: received.extend(bytes(memoryview(offered)[:count])),
        )
        async with wired(protocol, kind) as (_, peer):
            for _ in range(3):
                already = len(received)
                await loop.sock_sendall(peer, b"into your hands")
                await protocol.until(lambda already=already: len(received) == already + 15)
            assert received == b"into your hands" * 3
            if buffer == "slice":
                assert not any(area[:10])
                assert not any(area[50:])
        mapped.close()

    run(main())


def test_a_buffer_is_let_go_before_buffer_updated(run: Run, kind: str) -> None:
    """A bytearray cannot be resized while somebody holds a view of it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        buffer = bytearray(64)
        received = bytearray()

        def take(count: int) -> None:
            received.extend(buffer[:count])
            buffer.clear()
            buffer.extend(bytes(64))

        protocol = BufferedRecorder(get_buffer=lambda _: buffer, buffer_updated=take)
        async with wired(protocol, kind) as (transport, peer):
            for number in range(3):
                await loop.sock_sendall(peer, b"resize me")
                size = (number + 1) * 9
                await protocol.until(lambda size=size: len(received) == size)
            transport.close()
            await protocol.lost()
            buffer.clear()

    run(main())


def test_each_read_asks_for_a_buffer_first(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = BufferedRecorder(10)
        async with wired(protocol, kind) as (_, peer):
            await loop.sock_sendall(peer, b"0123456789" * 5)
            await protocol.received(50)
            reads = [name for name in protocol.calls if name in ("get_buffer", "buffer_updated")]
            # A read that finds nothing asks for a buffer, and updates none.
            updates = [i for i, name in enumerate(reads) if name == "buffer_updated"]
            assert all(reads[i - 1] == "get_buffer" for i in updates)

    run(main())


# -- changing the protocol -------------------------------------------------------------------------


def test_set_protocol_moves_every_callback(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second = Recorder(), Recorder()
        async with wired(first, kind, small=True) as (transport, peer):
            assert transport.get_protocol() is first
            await loop.sock_sendall(peer, b"one")
            await first.received(3)
            transport.set_protocol(second)
            assert transport.get_protocol() is second
            await loop.sock_sendall(peer, b"two")
            assert await second.received(3) == b"two"
            transport.write(b"x" * 500_000)
            await read_exactly(peer, 500_000)
            peer.close()
            assert await second.lost() is None
            assert first.calls == ["connection_made", "data_received"]
            assert second.distinct_calls == [
                "data_received",
                "pause_writing",
                "resume_writing",
                "eof_received",
                "connection_lost",
            ]
            first.connection_lost(None)

    run(main())


@pytest.mark.parametrize("old", STREAM_RECORDERS)
@pytest.mark.parametrize("new", STREAM_RECORDERS)
def test_changing_the_kind_of_protocol_in_mid_stream(
    run: Run, kind: str, old: Stream, new: Stream
) -> None:
    """asyncpg and aiohttp hand a connection over from within a callback."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        second = new()

        def hand_over(*_: Any) -> None:
            if first.data.endswith(b"\n"):
                first.transport.set_protocol(second)

        first = old(data_received=hand_over, buffer_updated=hand_over)
        async with wired(first, kind) as (transport, peer):
            await loop.sock_sendall(peer, b"hello\n")
            await first.received(6)
            assert transport.get_protocol() is second
            await loop.sock_sendall(peer, b"payload")
            assert await second.received(7) == b"payload"
            transport.set_protocol(first)
            await loop.sock_sendall(peer, b"and back")
            assert await first.received(14) == b"hello\nand back"
            assert second.data == b"payload"

    run(main())


@pytest.mark.parametrize("new", STREAM_RECORDERS)
def test_changing_the_protocol_while_paused(run: Run, kind: str, new: Stream) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second = Recorder(), new()
        async with wired(first, kind) as (transport, peer):
            transport.pause_reading()
            await loop.sock_sendall(peer, b"for the second")
            await pass_turns()
            transport.set_protocol(second)
            transport.resume_reading()
            assert await second.received(14) == b"for the second"
            assert not first.data
            transport.abort()
            await second.lost()
            first.connection_lost(None)

    run(main())
