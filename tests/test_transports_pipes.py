"""connect_read_pipe and connect_write_pipe."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import logging
import os
import pty
import socket
import tty
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import weft
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


@pytest.mark.parametrize("unsent", [False, True])
def test_a_reader_that_goes_away_ends_the_writer(run: Run, unsent: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            if unsent:
                transport.write(b"x" * FILLS_UP)
            await pass_turns()
            reader.close()
            exc = await protocol.lost()
            assert isinstance(exc, BrokenPipeError) if unsent else exc is None
            assert transport.is_closing()
            assert writer.closed
            assert transport.get_write_buffer_size() == 0

    run(main())


def test_a_write_that_nobody_can_read(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the transport; later ones are counted, and warned of from the fifth on."""
    monkeypatch.setattr(logging.getLogger("asyncio"), "propagate", True)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            reader.close()
            transport.write(b"lost")
            assert transport.is_closing()
            for _ in range(5):
                transport.write(b"lost, too")
            assert isinstance(await protocol.lost(), BrokenPipeError)

    run(main())
    assert "raised exception" in caplog.text


def test_writing_after_the_end(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            transport.write(b"before")
            transport.write_eof()
            transport.write(b"after")
            transport.write_eof()
            transport.close()
            assert await protocol.lost() is None
            transport.close()
            assert protocol.calls.count("connection_lost") == 1
            assert reader.read(100) == b"before"
            assert reader.read(100) == b""

    run(main())


@pytest.mark.backends("weft")
def test_abort_after_close_ends_once(run: Run) -> None:
    """asyncio schedules connection_lost() twice; the second one fails."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (_, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            transport.close()
            transport.abort()
            await protocol.lost()
            await pass_turns()
            assert protocol.calls == ["connection_made", "connection_lost"]

    run(main())


@pytest.mark.parametrize("data", ["text", 5, None, [b"x"]])
def test_what_cannot_be_written(run: Run, data: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (_, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            with pytest.raises(AssertionError) as caught:
                transport.write(data)
            assert str(caught.value).splitlines()[0] == repr(data)
            transport.close()
            await protocol.lost()

    run(main())


def test_what_waits_is_a_copy(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            data = bytearray(b"x" * FILLS_UP)
            transport.write(data)
            transport.write(memoryview(data)[:10])
            data[:] = b"y" * len(data)
            data.clear()
            transport.close()
            _, receiver = await loop.connect_read_pipe(Recorder, reader)
            await receiver.lost()
            assert receiver.data == b"x" * (FILLS_UP + 10)
            await protocol.lost()

    run(main())


def test_limits(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
            transport.set_write_buffer_limits(high=0)
            with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\)"):
                transport.set_write_buffer_limits(high=1, low=2)
            transport.write(b"x" * FILLS_UP)
            assert protocol.calls == ["connection_made", "pause_writing"]
            _, receiver = await loop.connect_read_pipe(Recorder, reader)
            await protocol.called("resume_writing")
            assert transport.get_write_buffer_size() == 0
            transport.write(b"the end")
            transport.close()
            await receiver.lost()
            assert len(receiver.data) == FILLS_UP + len(b"the end")

    run(main())


def test_writing_from_resume_writing(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):

            def go_on() -> None:
                if protocol.calls.count("resume_writing") == 3:
                    # asyncio's fails where it is closed right here.
                    loop.call_soon(transport.close)
                else:
                    transport.write(b"x" * FILLS_UP)

            protocol = Recorder(resume_writing=go_on)
            transport, _ = await loop.connect_write_pipe(lambda: protocol, writer)
            transport.write(b"x" * FILLS_UP)
            _, receiver = await loop.connect_read_pipe(Recorder, reader)
            await receiver.lost()
            assert await protocol.lost() is None
            assert len(receiver.data) == 3 * FILLS_UP

    run(main())


def test_paused_before_it_begins(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            protocol = Recorder(connection_made=lambda transport: transport.pause_reading())
            writer.write(b"early")
            transport, _ = await loop.connect_read_pipe(lambda: protocol, reader)
            await pass_turns(5)
            assert not transport.is_reading()
            assert protocol.data == b""
            transport.resume_reading()
            assert transport.is_reading()
            assert await protocol.received(5) == b"early"
            transport.close()
            assert not transport.is_reading()
            transport.resume_reading()
            assert not transport.is_reading()
            await protocol.lost()

    run(main())


def test_much_is_read_in_large_pieces(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            data = os.urandom(4 << 20)
            sending, sender = await loop.connect_write_pipe(Recorder, writer)
            _, receiver = await loop.connect_read_pipe(Recorder, reader)
            sending.write(data)
            sending.close()
            await receiver.lost()
            assert receiver.data == data
            await sender.lost()

    run(main())


def test_another_protocol(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, first = await loop.connect_read_pipe(Recorder, reader)
            second = Recorder()
            transport.set_protocol(second)
            assert transport.get_protocol() is second
            writer.write(b"hello")
            assert await second.received(5) == b"hello"
            transport.close()
            assert await second.lost() is None
            assert first.calls == ["connection_made"]
            assert transport.get_protocol() is None

    run(main())


class Broken(Exception):
    pass


def fail(*arguments: Any) -> None:
    raise Broken


@pytest.mark.parametrize("name", ["connection_made", "data_received", "eof_received"])
def test_a_reading_protocol_that_raises(run: Run, reports: list[dict[str, Any]], name: str) -> None:
    """It is reported, and changes nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            protocol = Recorder(**{name: fail})
            await loop.connect_read_pipe(lambda: protocol, reader)
            writer.write(b"one")
            await protocol.received(3)
            writer.close()
            assert await protocol.lost() is None
            assert protocol.calls == [
                "connection_made",
                "data_received",
                "eof_received",
                "connection_lost",
            ]
            await pass_turns()
            assert reader.closed

    run(main())
    assert [type(report["exception"]) for report in reports] == [Broken]
    assert reports[0]["message"].startswith("Exception in callback")


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
def test_connection_lost_that_raises(run: Run, reports: list[dict[str, Any]], method: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            ours = reader if method == "connect_read_pipe" else writer
            protocol = Recorder(connection_lost=fail)
            transport, _ = await getattr(loop, method)(lambda: protocol, ours)
            transport.close()
            await protocol.lost()
            await pass_turns()
            assert ours.closed

    run(main())
    assert [type(report["exception"]) for report in reports] == [Broken]


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def test_flow_control_that_raises(run: Run, reports: list[dict[str, Any]], name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            protocol = Recorder(**{name: fail})
            transport, _ = await loop.connect_write_pipe(lambda: protocol, writer)
            transport.write(b"x" * FILLS_UP)
            transport.close()
            _, receiver = await loop.connect_read_pipe(Recorder, reader)
            await receiver.lost()
            assert await protocol.lost() is None
            assert reports[0]["transport"] is transport

    run(main())
    assert [report["message"] for report in reports] == [f"protocol.{name}() failed"]


def test_representations(run: Run) -> None:
    def shown(transport: Any) -> str:
        text = repr(transport).replace("_Unix", "")
        return text.replace(f"fd={transport._fileno}", "fd=N")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            sending, sender = await loop.connect_write_pipe(Recorder, writer)
            reading, receiver = await loop.connect_read_pipe(Recorder, reader)
            assert shown(reading) == "<ReadPipeTransport fd=N polling>"
            assert shown(sending) == "<WritePipeTransport fd=N idle bufsize=0>"
            reading.pause_reading()
            assert shown(reading) == "<ReadPipeTransport fd=N idle>"
            sending.write(b"x" * FILLS_UP)
            size = sending.get_write_buffer_size()
            assert shown(sending) == f"<WritePipeTransport fd=N polling bufsize={size}>"
            sending.close()
            assert shown(sending) == f"<WritePipeTransport closing fd=N polling bufsize={size}>"
            reading.close()
            assert shown(reading) == "<ReadPipeTransport closing fd=N idle>"
            await receiver.lost()
            await sender.lost()
            await pass_turns()
            assert shown(reading) == "<ReadPipeTransport closed fd=N closed>"
            assert shown(sending) == "<WritePipeTransport closed fd=N closed>"

    run(main())


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
def test_a_transport_that_nobody_closed(loop: asyncio.AbstractEventLoop, method: str) -> None:
    with pipe() as (reader, writer):
        ours = reader if method == "connect_read_pipe" else writer

        async def main() -> Any:
            transport, protocol = await getattr(loop, method)(Recorder, ours)
            if ours is reader:
                transport.pause_reading()
            else:
                # The loop holds it: it watches for the reader's end.
                transport._loop._remove_reader(ours.fileno())
            protocol.transport = None
            return weakref.ref(transport)

        references = []

        def settle() -> None:
            references.append(loop.run_until_complete(main()))
            gc.collect()

        shown = r"unclosed transport <.*PipeTransport fd=\d+ idle"
        with pytest.warns(ResourceWarning, match=shown):
            settle()
        assert references[0]() is None
        assert ours.closed


def test_a_transport_whose_pipe_is_taken_away(loop: asyncio.AbstractEventLoop) -> None:
    """What asyncio's own tests do to be rid of one; no warning, and the pipe stays open."""
    with pipe() as (reader, writer):

        async def main() -> None:
            for method, file in (("connect_read_pipe", reader), ("connect_write_pipe", writer)):
                transport, protocol = await getattr(loop, method)(Recorder, file)
                loop._remove_reader(file.fileno())  # type: ignore[attr-defined]
                transport._pipe = None
                assert "closed" in repr(transport)
                protocol.transport = None

        loop.run_until_complete(main())
        gc.collect()
        assert not reader.closed
        assert not writer.closed


def test_a_cancelled_connect_closes(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            connecting = asyncio.ensure_future(loop.connect_read_pipe(Recorder, reader))
            await asyncio.sleep(0)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await pass_turns(5)
            assert reader.closed
            assert not writer.closed

    run(main())


def test_a_factory_that_fails_leaves_the_pipe_alone(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, _):
            with pytest.raises(Broken):
                await loop.connect_read_pipe(fail, reader)
            assert not reader.closed

    run(main())


def test_the_context_of_the_connection(run: Run) -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            seen: list[str] = []
            protocol = Recorder(
                connection_made=lambda transport: seen.append(variable.get()),
                data_received=lambda data: seen.append(variable.get()),
                eof_received=lambda: seen.append(variable.get()),
                connection_lost=lambda exc: seen.append(variable.get()),
            )
            variable.set("connecting")
            await loop.connect_read_pipe(lambda: protocol, reader)
            variable.set("later")
            writer.write(b"x")
            await protocol.received(1)
            writer.close()
            await protocol.lost()
            assert seen == ["connecting"] * 4

    run(main())


@pytest.mark.backends("weft")
def test_a_descriptor_that_was_closed_behind_our_back(run: Run) -> None:
    """Its number may be a stranger's. asyncio writes to that one."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for buffering in (0, -1):
            reading, writing = os.pipe()
            with open(reading, "rb", 0), open(writing, "wb", buffering) as writer:
                transport, protocol = await loop.connect_write_pipe(Recorder, writer)
                writer.close()
                with pipe() as (stranger, end):
                    assert writing in (stranger.fileno(), end.fileno())
                    transport.write(b"not for you")
                    assert isinstance(await protocol.lost(), OSError)
                    os.set_blocking(stranger.fileno(), False)
                    assert stranger.read(100) is None

    run(main())


def test_a_fifo(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        os.mkfifo(tmp_path / "fifo")
        reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        writing = os.open(tmp_path / "fifo", os.O_WRONLY)
        with open(reading, "rb", 0) as reader, open(writing, "wb", 0) as writer:
            assert os.get_blocking(writing)
            sending, sender = await loop.connect_write_pipe(Recorder, writer)
            assert not os.get_blocking(writing)
            _, receiver = await loop.connect_read_pipe(Recorder, reader)
            sending.write(b"x" * FILLS_UP)
            sending.write_eof()
            await receiver.lost()
            assert receiver.data == b"x" * FILLS_UP
            await sender.lost()

    run(main())


def test_a_socket_is_a_pipe_to_write_to(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            transport, protocol = await loop.connect_write_pipe(Recorder, ours)
            transport.write(b"hello")
            assert theirs.recv(100) == b"hello"
            theirs.close()
            assert await protocol.lost() is None
            assert ours.fileno() == -1

    run(main())


def test_the_null_device_takes_everything(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with open("/dev/null", "wb", 0) as null:
            transport, protocol = await loop.connect_write_pipe(Recorder, null)
            transport.write(b"x" * FILLS_UP)
            assert transport.get_write_buffer_size() == 0
            transport.close()
            assert await protocol.lost() is None

    run(main())


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    try:
        ends = pty.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminals here: {error}")
    for end in ends:
        tty.setraw(end)
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


def test_the_end_of_a_terminal(run: Run) -> None:
    """It is an error (EIO), but nothing to report."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with terminal() as (master, slave), open(master, "rb", 0) as ours:
            _, protocol = await loop.connect_read_pipe(Recorder, ours)
            os.write(slave, b"typed")
            assert await protocol.received(5) == b"typed"
            os.close(slave)
            lost = await protocol.lost()
            assert isinstance(lost, OSError)
            assert lost.errno == errno.EIO

    run(main())


def test_one_descriptor_for_both_directions(run: Run) -> None:
    """A terminal is read and written by one descriptor, with a transport for each direction."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with (
            terminal() as (master, slave),
            open(master, "rb", 0, closefd=False) as reader,
            open(master, "wb", 0, closefd=False) as writer,
            open(slave, "r+b", 0, closefd=False) as other,
        ):
            reading, receiver = await loop.connect_read_pipe(Recorder, reader)
            sending, sender = await loop.connect_write_pipe(Recorder, writer)
            other.write(b"typed")
            assert await receiver.received(5) == b"typed"
            # More than a terminal takes: it waits for room while the other one reads.
            sending.write(b"x" * 64 * 1024)
            assert sending.get_write_buffer_size() > 0
            other.write(b" again")
            assert await receiver.received(11) == b"typed again"
            shown = await loop.run_in_executor(None, read_exactly, slave, 64 * 1024)
            assert shown == b"x" * 64 * 1024
            reading.close()
            await receiver.lost()
            sending.write(b"!")
            assert os.read(slave, 10) == b"!"
            sending.close()
            await sender.lost()

    run(main())


def read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


def test_a_transport_beside_add_writer(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            transport, protocol = await loop.connect_read_pipe(Recorder, ours)
            writable = loop.create_future()
            loop.add_writer(ours.fileno(), lambda: writable.done() or writable.set_result(None))
            await writable
            assert loop.remove_writer(ours.fileno())
            theirs.sendall(b"hello")
            assert await protocol.received(5) == b"hello"
            transport.close()
            await protocol.lost()

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


@pytest.mark.backends("weft")
def test_native_streams_over_pipes(run: Run) -> None:
    """The transport feeds the reader with no call through Python, and is paused by it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            stream = weft.StreamReader(limit=1024)
            transport, protocol = await loop.connect_read_pipe(
                lambda: weft.StreamReaderProtocol(stream), reader
            )
            protocol_class = type(protocol)
            assert protocol_class is weft.StreamReaderProtocol
            writer.write(b"one\ntwo\n")
            assert await stream.readline() == b"one\n"
            assert await stream.readline() == b"two\n"
            writer.write(b"x" * 5000)
            while not stream._paused:
                await asyncio.sleep(0)
            assert not transport.is_reading()
            assert await stream.readexactly(5000) == b"x" * 5000
            assert transport.is_reading()
            writer.write(b"the end")
            writer.close()
            assert await stream.read() == b"the end"
            assert stream.at_eof()
            transport.close()
            await pass_turns()

    run(main())


def test_writer_streams_over_pipes(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pipe() as (reader, writer):
            transport, protocol = await loop.connect_write_pipe(
                asyncio.streams.FlowControlMixin, writer
            )
            stream = asyncio.StreamWriter(transport, protocol, None, loop)
            _, receiver = await loop.connect_read_pipe(Recorder, reader)
            for _ in range(10):
                stream.writelines([b"x" * 50_000, b"y" * 50_000])
                await stream.drain()
            stream.write_eof()
            await receiver.lost()
            assert receiver.data == (b"x" * 50_000 + b"y" * 50_000) * 10
            await pass_turns()

    run(main())
