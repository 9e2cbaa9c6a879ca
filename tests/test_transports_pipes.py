"""connect_read_pipe and connect_write_pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import FILLS_UP, Run, pass_turns
from recorders import Recorder


@contextlib.contextmanager
def pipe() -> Iterator[tuple[Any, Any]]:
    """The reading and the writing end, as files without buffers."""
    reading, writing = os.pipe()
    with open(reading, "rb", 0) as reader, open(writing, "wb", 0) as writer:
        yield reader, writer


def test_reading(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_read_pipe(Recorder, reader)
            assert isinstance(transport, asyncio.ReadTransport)
            assert transport.get_extra_info("pipe") is reader
            writer.write(b"hello")
            assert await protocol.received(5) == b"hello"
            transport.pause_reading()
            writer.write(b" again")
            await pass_turns(5)
            assert protocol.data == b"hello"
            transport.resume_reading()
            assert await protocol.received(11) == b"hello again"
            writer.close()
            assert await protocol.lost() is None
            assert protocol.calls[-2:] == ["eof_received", "connection_lost"]
            assert reader.closed, "the transport owned it"

    run(main())


def test_writing(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            assert isinstance(transport, asyncio.WriteTransport)
            for data in (b"a", bytearray(b"b"), memoryview(b"c"), b""):
                transport.write(data)
            transport.writelines([b"d", b"e"])
            assert os.read(reader.fileno(), 100) == b"abcde"
            assert transport.can_write_eof()
            transport.write_eof()
            assert await protocol.lost() is None
            assert os.read(reader.fileno(), 100) == b""
            assert writer.closed

    run(main())


def test_much_with_flow_control(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            sending, sender = await loop.connect_write_pipe(Recorder, writer)
            sending.write(b"x" * FILLS_UP)
            assert sender.calls[-1] == "pause_writing"
            assert sending.get_write_buffer_size() > sending.get_write_buffer_limits()[1]
            sending.close()
            _, receiver = await loop.connect_read_pipe(Recorder, reader)
            assert await receiver.lost() is None
            assert receiver.data == b"x" * FILLS_UP
            assert await sender.lost() is None

    run(main())


def test_a_reader_that_goes_away_ends_the_writer(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            await pass_turns()
            reader.close()
            exc = await protocol.lost()
            assert exc is None or isinstance(exc, BrokenPipeError)
            assert transport.is_closing()

    run(main())


def test_abort_discards(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            transport.write(b"x" * FILLS_UP)
            transport.abort()
            assert await protocol.lost() is None
            assert writer.closed
            received = 0
            while data := os.read(reader.fileno(), 1 << 20):
                received += len(data)
            assert received < FILLS_UP

    run(main())


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
def test_a_regular_file_is_no_pipe(run: Run, method: str, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with (
            (tmp_path / "file").open("wb+") as file,
            pytest.raises(ValueError, match="Pipe transport is"),
        ):
            await getattr(loop, method)(Recorder, file)

    run(main())


def test_sockets_and_terminals_are_pipes_too(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            transport, protocol = await loop.connect_read_pipe(Recorder, ours)
            theirs.sendall(b"hello")
            assert await protocol.received(5) == b"hello"
            transport.close()
            await protocol.lost()
        try:
            master, slave = pty.openpty()
        except OSError as error:
            pytest.skip(f"no pseudo-terminals here: {error}")
        with open(master, "rb", 0) as terminal, open(slave, "wb", 0) as other:
            transport, protocol = await loop.connect_read_pipe(Recorder, terminal)
            other.write(b"typed")
            assert await protocol.received(5) == b"typed"
            transport.close()
            await protocol.lost()

    run(main())


def test_streams_over_pipes(run: Run) -> None:
    """How programs read their standard input."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            stream = asyncio.StreamReader()
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(stream), reader
            )
            writer.write(b"one\ntwo\n")
            assert await stream.readline() == b"one\n"
            assert await stream.readline() == b"two\n"
            writer.close()
            assert await stream.read() == b""
            transport.close()
            await pass_turns()

    run(main())
