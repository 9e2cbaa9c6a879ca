"""The end of a stream, in either direction and in both: write_eof() and eof_received()."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from peers import FILLS_UP, KINDS, Run, pass_turns, read_all, read_exactly, wired
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder

Stream = type[Recorder | BufferedRecorder]

pytestmark = [
    pytest.mark.parametrize("kind", KINDS),
    pytest.mark.parametrize("stream", STREAM_RECORDERS),
]


# -- ours: write_eof() -----------------------------------------------------------------------------


def test_write_eof_ends_one_direction_only(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream()
        async with wired(protocol, kind) as (transport, peer):
            assert transport.can_write_eof()
            transport.write(b"request")
            transport.write_eof()
            assert await read_all(peer) == b"request"
            assert not transport.is_closing()
            await loop.sock_sendall(peer, b"answer")
            assert await protocol.received(6) == b"answer"
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost() is None

    run(main())


def test_write_eof_waits_for_what_is_pending(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        async with wired(stream(), kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            transport.writelines([b"y", b"z"])
            transport.write_eof()
            assert transport.get_write_buffer_size()
            assert await read_all(peer) == b"x" * FILLS_UP + b"yz"
            assert not transport.is_closing()

    run(main())


def test_write_eof_again_and_after_close_does_nothing(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        protocol = stream()
        async with wired(protocol, kind) as (transport, peer):
            transport.write_eof()
            transport.write_eof()
            assert await read_all(peer) == b""
            transport.close()
            transport.write_eof()
            assert await protocol.lost() is None
            transport.write_eof()

    run(main())


@pytest.mark.parametrize("pending", [0, FILLS_UP])
def test_write_after_write_eof_is_an_error(
    run: Run, kind: str, stream: Stream, pending: int
) -> None:
    async def main() -> None:
        async with wired(stream(), kind, small=True) as (transport, peer):
            transport.write(b"x" * pending)
            transport.write_eof()
            for data in (b"more", b""):
                with pytest.raises(RuntimeError, match=r"write\(\) after write_eof\(\)"):
                    transport.write(data)
            with pytest.raises(RuntimeError, match=r"after write_eof\(\)"):
                transport.writelines([b"more"])
            with pytest.raises(TypeError):
                transport.write("text")
            assert await read_all(peer) == b"x" * pending

    run(main())


def test_close_after_write_eof_still_flushes(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        protocol = stream()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            transport.write_eof()
            transport.close()
            assert await read_all(peer) == b"x" * FILLS_UP
            assert await protocol.lost() is None

    run(main())


# -- theirs: eof_received() ------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, False, 0, ""], ids=repr)
def test_the_peers_end_closes_the_transport_by_default(
    run: Run, kind: str, stream: Stream, answer: Any
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream(eof_received=lambda: answer)
        async with wired(protocol, kind) as (transport, peer):
            await loop.sock_sendall(peer, b"last words")
            peer.shutdown(socket.SHUT_WR)
            await protocol.called("eof_received")
            assert transport.is_closing()
            assert await protocol.lost() is None
            assert protocol.data == b"last words"
            assert protocol.calls[-2:] == ["eof_received", "connection_lost"]
            assert protocol.calls.count("eof_received") == 1

    run(main())


@pytest.mark.parametrize("answer", [True, 1, "yes"], ids=repr)
def test_a_true_answer_keeps_our_direction_open(
    run: Run, kind: str, stream: Stream, answer: Any
) -> None:
    async def main() -> None:
        protocol = stream(eof_received=lambda: answer)
        async with wired(protocol, kind) as (transport, peer):
            peer.shutdown(socket.SHUT_WR)
            await protocol.called("eof_received")
            assert not transport.is_closing()
            for number in range(5):
                transport.write(b"still here %d" % number)
                assert await read_exactly(peer, 12) == b"still here %d" % number
            await pass_turns()
            assert protocol.calls.count("eof_received") == 1
            transport.close()
            assert await read_all(peer) == b""
            assert await protocol.lost() is None

    run(main())


def test_the_peers_end_does_not_cut_what_is_pending(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        protocol = stream()
        async with wired(protocol, kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            peer.shutdown(socket.SHUT_WR)
            await protocol.called("eof_received")
            assert transport.is_closing()
            assert await read_all(peer) == b"x" * FILLS_UP
            assert await protocol.lost() is None

    run(main())


def test_answering_from_eof_received(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        protocol = stream(eof_received=lambda: protocol.transport.write(b"good bye"))
        async with wired(protocol, kind) as (_, peer):
            peer.shutdown(socket.SHUT_WR)
            assert await read_all(peer) == b"good bye"
            assert await protocol.lost() is None

    run(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_from_eof_received(run: Run, kind: str, stream: Stream, how: str) -> None:
    async def main() -> None:
        def end() -> bool:
            getattr(protocol.transport, how)()
            return True

        protocol = stream(eof_received=end)
        async with wired(protocol, kind) as (transport, peer):
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost() is None
            assert transport.is_closing()
            assert protocol.calls.count("connection_lost") == 1

    run(main())


def test_both_ends_half_closed_still_wait_for_close(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        protocol = stream(eof_received=lambda: True)
        async with wired(protocol, kind) as (transport, peer):
            transport.write_eof()
            peer.shutdown(socket.SHUT_WR)
            await protocol.called("eof_received")
            await pass_turns()
            assert not transport.is_closing()
            assert not protocol.lost_with
            transport.close()
            assert await protocol.lost() is None

    run(main())


def test_write_eof_then_the_peers_end_closes(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        protocol = stream()
        async with wired(protocol, kind) as (transport, peer):
            transport.write_eof()
            assert await read_all(peer) == b""
            peer.close()
            assert await protocol.lost() is None

    run(main())


def test_a_paused_transport_hears_of_the_end_when_it_resumes(
    run: Run, kind: str, stream: Stream
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream()
        async with wired(protocol, kind) as (transport, peer):
            transport.pause_reading()
            await loop.sock_sendall(peer, b"before the end")
            peer.shutdown(socket.SHUT_WR)
            await pass_turns(5)
            assert protocol.calls == ["connection_made"]
            transport.resume_reading()
            assert await protocol.lost() is None
            assert protocol.data == b"before the end"

    run(main())


def test_data_and_end_that_wait_together_come_in_order(run: Run, kind: str, stream: Stream) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = stream()
        payload = bytes(range(256)) * 40
        async with wired(protocol, kind) as (_, peer):
            await loop.sock_sendall(peer, payload)
            peer.close()
            assert await protocol.lost() is None
            assert protocol.data == payload
            assert protocol.calls[0] == "connection_made"
            assert protocol.calls[-2:] == ["eof_received", "connection_lost"]

    run(main())
