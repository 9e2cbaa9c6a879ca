"""StreamReader and StreamWriter, made by hand and on connections of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from backends import PY313, Backend
from peers import FILLS_UP, KINDS, Run, connected_client, pass_turns, read_all, reset, stream_pair
from recorders import PATIENCE

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]
each_kind = pytest.mark.parametrize("kind", KINDS)


def reader_with(*pieces: bytes, eof: bool = True, limit: int = 2**16) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=limit)
    for piece in pieces:
        reader.feed_data(piece)
    if eof:
        reader.feed_eof()
    return reader


# -- a reader made by hand -------------------------------------------------------------------------


def test_read(run: Run) -> None:
    async def main() -> None:
        reader = reader_with(b"some ", b"bytes")
        assert await reader.read(0) == b""
        assert await reader.read(3) == b"som"
        assert not reader.at_eof()
        assert await reader.read(100) == b"e bytes"
        assert await reader.read(100) == b""
        assert reader.at_eof()
        assert await reader_with(b"all ", b"of it").read() == b"all of it"
        assert await reader_with(b"all ", b"of it").read(-1) == b"all of it"
        assert await reader_with().read() == b""

    run(main())


def test_readline(run: Run) -> None:
    async def main() -> None:
        reader = reader_with(b"one\ntw", b"o\n", b"\nlast")
        assert [await reader.readline() for _ in range(5)] == [
            b"one\n",
            b"two\n",
            b"\n",
            b"last",
            b"",
        ]
        assert reader.at_eof()

    run(main())


def test_iteration(run: Run) -> None:
    async def main() -> None:
        reader = reader_with(b"one\ntwo\n", b"three")
        assert [line async for line in reader] == [b"one\n", b"two\n", b"three"]

    run(main())


def test_readexactly(run: Run) -> None:
    async def main() -> None:
        reader = reader_with(b"012", b"345", b"6")
        assert await reader.readexactly(0) == b""
        assert await reader.readexactly(4) == b"0123"
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(5)
        assert caught.value.partial == b"456"
        assert caught.value.expected == 5
        assert await reader.read() == b"", "the partial bytes are gone from the reader"
        with pytest.raises(ValueError, match="less than zero"):
            await reader.readexactly(-1)

    run(main())


def test_readuntil(run: Run) -> None:
    async def main() -> None:
        reader = reader_with(b"one--tw", b"o-", b"-rest")
        assert await reader.readuntil(b"--") == b"one--"
        assert await reader.readuntil(b"--") == b"two--"
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readuntil(b"--")
        assert caught.value.partial == b"rest"
        assert caught.value.expected is None
        assert await reader.read() == b""
        with pytest.raises(ValueError, match="eparator"):
            await reader.readuntil(b"")

    run(main())


@pytest.mark.skipif(not PY313, reason="came with 3.13")
def test_readuntil_one_of_several(run: Run) -> None:
    async def main() -> None:
        reader = reader_with(b"one\r\ntwo\nthree--end")
        separators: Any = (b"\r\n", b"\n", b"--")
        assert await reader.readuntil(separators) == b"one\r\n"
        assert await reader.readuntil(separators) == b"two\n"
        assert await reader.readuntil(separators) == b"three--"
        for wrong in ((), (b"",), (b"x", b"")):
            with pytest.raises(ValueError, match="eparator"):
                await reader.readuntil(wrong)  # type: ignore[arg-type]

    run(main())


@pytest.mark.parametrize("separator", [b"\n", b"--", b"-----"])
def test_a_separator_cut_at_every_place(run: Run, separator: bytes) -> None:
    async def main() -> None:
        text = b"one" + separator + b"two" + separator + b"rest"
        for cut in range(len(text)):
            reader = asyncio.StreamReader()
            reading = asyncio.ensure_future(reader.readuntil(separator))
            await pass_turns(1)
            reader.feed_data(text[:cut])
            await pass_turns(1)
            reader.feed_data(text[cut:])
            reader.feed_eof()
            assert await reading == b"one" + separator
            assert await reader.readuntil(separator) == b"two" + separator
            assert await reader.read() == b"rest"

    run(main())


def test_the_limit_of_readuntil(run: Run) -> None:
    """What is too long stays in the buffer, and the error says how much could be skipped."""

    async def main() -> None:
        reader = reader_with(b"0123456789\nrest", limit=5)
        with pytest.raises(asyncio.LimitOverrunError, match="chunk is longer") as caught:
            await reader.readuntil(b"\n")
        assert caught.value.consumed == 10
        assert await reader.readexactly(caught.value.consumed + 1) == b"0123456789\n"
        assert await reader.read() == b"rest"
        reader = reader_with(b"0123456789", limit=5)
        with pytest.raises(asyncio.LimitOverrunError, match="not found") as caught:
            await reader.readuntil(b"--")
        assert caught.value.consumed == 9, "the last byte may begin the separator"
        assert await reader.read() == b"0123456789"

    run(main())


def test_the_limit_of_readline(run: Run) -> None:
    """It drops the line that is too long, or all that is there while its end is not."""

    async def main() -> None:
        reader = reader_with(b"0123456789\nok\n", limit=5)
        with pytest.raises(ValueError, match="chunk is longer than limit"):
            await reader.readline()
        assert await reader.readline() == b"ok\n"
        reader = reader_with(b"0123456789", limit=5)
        with pytest.raises(ValueError, match="exceed the limit"):
            await reader.readline()
        assert await reader.read() == b""

    run(main())


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_is_none(run: Run, limit: int) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="Limit cannot be <= 0"):
            asyncio.StreamReader(limit=limit)

    run(main())


def test_waiting_for_data(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        for read in (reader.readexactly(4), reader.readuntil(b"d"), reader.readuntil(b"bcd")):
            task = loop.create_task(read)
            await pass_turns()
            assert not task.done()
            reader.feed_data(b"ab")
            await pass_turns()
            assert not task.done()
            reader.feed_data(b"cd")
            assert await task == b"abcd"
        rest = loop.create_task(reader.read())
        await pass_turns()
        reader.feed_eof()
        assert await rest == b""

    run(main())


@pytest.mark.parametrize("method", ["read", "readline", "readexactly", "readuntil"])
def test_only_one_may_wait(run: Run, method: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        arguments = (5,) if method in ("read", "readexactly") else ()
        first = loop.create_task(getattr(reader, method)(*arguments))
        await pass_turns()
        with pytest.raises(RuntimeError, match="another coroutine is already waiting"):
            await getattr(reader, method)(*arguments)
        reader.feed_data(b"done\n")
        assert await first == b"done\n"

    run(main())


def test_a_cancelled_read_takes_nothing(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        for read in (reader.readexactly(80), reader.readuntil(b"\n")):
            task = loop.create_task(read)
            await pass_turns()
            reader.feed_data(b"part")
            await pass_turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await reader.readexactly(8) == b"partpart"
        task = loop.create_task(reader.read(10))
        await pass_turns()
        reader.feed_data(b"late")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await reader.read(10) == b"late"

    run(main())


def test_an_exception(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        waiting = loop.create_task(reader.read())
        await pass_turns()
        reader.feed_data(b"unread")
        reader.set_exception(ZeroDivisionError("mine"))
        assert isinstance(reader.exception(), ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            await waiting
        for again in (reader.read(1), reader.readline(), reader.readexactly(1)):
            with pytest.raises(ZeroDivisionError):
                await again

    run(main())


def test_its_buffer_can_be_looked_at(run: Run) -> None:
    """redis-py asks whether anything waits there before it reuses a connection."""

    async def main() -> None:
        reader = reader_with(b"left over", eof=False)
        assert reader._buffer == b"left over"  # type: ignore[attr-defined]
        assert "9 bytes" in repr(reader)
        await reader.readexactly(9)
        assert not reader._buffer  # type: ignore[attr-defined]
        reader.feed_eof()
        assert "eof" in repr(reader)

    run(main())


# -- connections -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(
    kind: str, handler: Handler, tmp_path: Path, **options: Any
) -> AsyncIterator[Callable[..., Awaitable[Streams]]]:
    """A stream server, given as the function that connects to it; it ends with its handlers."""
    if kind == "unix":
        path = str(tmp_path / "socket")
        server = await asyncio.start_unix_server(handler, path, **options)

        def connect(**keywords: Any) -> Awaitable[Streams]:
            return asyncio.open_unix_connection(path, **keywords)
    else:
        server = await asyncio.start_server(handler, "127.0.0.1", 0, **options)
        host, port = server.sockets[0].getsockname()

        def connect(**keywords: Any) -> Awaitable[Streams]:
            return asyncio.open_connection(host, port, **keywords)

    async with server:
        yield connect
    async with asyncio.timeout(PATIENCE):
        await server.wait_closed()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)


async def end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@each_kind
def test_a_conversation(run: Run, kind: str, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            writer.write(b"you said: ")
            writer.writelines([line.strip(), b"\n"])
            await writer.drain()
        await end(writer)

    async def main() -> None:
        async with serving(kind, answer, tmp_path) as connect:
            reader, writer = await connect()
            for number in range(10):
                writer.write(b"line %d\n" % number)
                await writer.drain()
                assert await reader.readline() == b"you said: line %d\n" % number
            assert writer.can_write_eof()
            writer.write_eof()
            assert await reader.read() == b""
            assert reader.at_eof()
            assert not writer.is_closing()
            await end(writer)
            assert writer.is_closing()

    run(main())


@each_kind
def test_a_plain_function_as_handler(run: Run, kind: str, tmp_path: Path) -> None:
    def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        writer.close()

    async def main() -> None:
        async with serving(kind, greet, tmp_path) as connect:
            reader, writer = await connect()
            assert await reader.read() == b"welcome"
            await end(writer)

    run(main())


@each_kind
def test_a_handler_that_raises(
    run: Run, kind: str, tmp_path: Path, reports: list[dict[str, Any]]
) -> None:
    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        raise ZeroDivisionError("mine")

    async def main() -> None:
        async with serving(kind, fail, tmp_path) as connect:
            reader, writer = await connect()
            writer.write(b"go\n")
            assert await reader.read() == b""
            await end(writer)
            assert [report["message"] for report in reports] == [
                "Unhandled exception in client_connected_cb"
            ]
            assert isinstance(reports[0]["exception"], ZeroDivisionError)
            assert isinstance(reports[0]["transport"], asyncio.Transport)

    run(main())


@each_kind
def test_what_a_writer_tells(run: Run, kind: str, tmp_path: Path) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await end(writer)

    async def main() -> None:
        async with serving(kind, handle, tmp_path, limit=1000) as connect:
            reader, writer = await connect(limit=2000)
            assert isinstance(writer.transport, asyncio.Transport)
            sock = writer.get_extra_info("socket")
            assert writer.get_extra_info("peername") == sock.getpeername()
            assert writer.get_extra_info("nothing", 7) == 7
            assert isinstance(writer.transport.get_protocol(), asyncio.StreamReaderProtocol)
            assert "StreamWriter transport=" in repr(writer)
            assert "limit=2000" in repr(reader)
            # anyio waits for room by this flag of the protocol.
            assert writer._protocol._paused is False  # type: ignore[attr-defined]
            await end(writer)

    run(main())


@each_kind
def test_drain_waits_for_room(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind, small=True)
        with theirs:
            _, writer = await asyncio.open_connection(sock=ours)
            writer.write(b"x" * FILLS_UP)
            assert writer._protocol._paused is True  # type: ignore[attr-defined]
            draining = [loop.create_task(writer.drain()) for _ in range(3)]
            await pass_turns(5)
            assert not any(task.done() for task in draining)
            draining[0].cancel()
            received = 0
            while received < FILLS_UP:
                received += len(await loop.sock_recv(theirs, 1 << 20))
            await asyncio.gather(*draining[1:])
            assert draining[0].cancelled()
            assert writer._protocol._paused is False  # type: ignore[attr-defined]
            await writer.drain()
            await end(writer)

    run(main())


@each_kind
def test_drain_hears_of_a_lost_connection(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind, small=True)
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(b"x" * FILLS_UP)
        draining = loop.create_task(writer.drain())
        await pass_turns(5)
        reset(theirs)
        with pytest.raises(ConnectionError):
            await draining
        with pytest.raises(ConnectionError):
            await writer.drain()
        with pytest.raises(ConnectionError):
            await reader.read()
        await end(writer)

    run(main())


def test_a_reset_reaches_the_reader_and_wait_closed(run: Run) -> None:
    async def main() -> None:
        ours, theirs = stream_pair("tcp")
        reader, writer = await asyncio.open_connection(sock=ours)
        waiting = asyncio.ensure_future(reader.readline())
        await pass_turns()
        reset(theirs)
        with pytest.raises(ConnectionResetError):
            await waiting
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()

    run(main())


@each_kind
def test_wait_closed_waits_for_the_flush(run: Run, kind: str) -> None:
    async def main() -> None:
        ours, theirs = stream_pair(kind, small=True)
        with theirs:
            _, writer = await asyncio.open_connection(sock=ours)
            writer.write(b"x" * FILLS_UP)
            writer.close()
            closed = asyncio.ensure_future(writer.wait_closed())
            await pass_turns(5)
            assert not closed.done()
            assert await read_all(theirs) == b"x" * FILLS_UP
            await closed

    run(main())


@each_kind
def test_a_reader_that_is_full_holds_the_peer_back(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind, small=True)
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours, limit=1000)
            sending = loop.create_task(loop.sock_sendall(theirs, b"x" * FILLS_UP))
            while writer.transport.is_reading():
                await asyncio.sleep(0)
            await pass_turns(20)
            assert not sending.done()
            assert "paused" in repr(reader)
            assert await reader.readexactly(FILLS_UP) == b"x" * FILLS_UP
            await sending
            assert writer.transport.is_reading()
            await end(writer)

    run(main())


@each_kind
@pytest.mark.slow
def test_much_in_both_directions(run: Run, kind: str, tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(50_000):
            writer.write(data)
            await writer.drain()
        await end(writer)

    async def main() -> None:
        lines = [b"%06d %s\n" % (number, b"x" * (number % 200)) for number in range(50_000)]

        async def send(writer: asyncio.StreamWriter) -> None:
            for line in lines:
                writer.write(line)
                await writer.drain()
            writer.write_eof()

        async with serving(kind, echo, tmp_path) as connect:
            reader, writer = await connect()
            sending = asyncio.ensure_future(send(writer))
            for line in lines:
                assert await reader.readline() == line
            assert await reader.read() == b""
            await sending
            await end(writer)

    run(main())


@each_kind
def test_many_clients_get_their_own_answers(run: Run, kind: str, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await asyncio.sleep(0)
            writer.write(line.upper())
        await end(writer)

    async def main() -> None:
        async with serving(kind, answer, tmp_path) as connect:

            async def client(number: int) -> None:
                reader, writer = await connect()
                for question in range(5):
                    writer.write(b"client %d question %d\n" % (number, question))
                    assert await reader.readline() == b"CLIENT %d QUESTION %d\n" % (
                        number,
                        question,
                    )
                await end(writer)

            async with asyncio.TaskGroup() as group:
                for number in range(30):
                    group.create_task(client(number))

    run(main())


# -- subclasses ------------------------------------------------------------------------------------


@each_kind
def test_subclasses_of_reader_and_protocol_are_fed(run: Run, kind: str) -> None:
    """hypercorn and others build their own stack out of these."""

    class Reader(asyncio.StreamReader):
        fed = 0

        def feed_data(self, data: bytes) -> None:
            self.fed += len(data)
            super().feed_data(data.upper())

        def feed_eof(self) -> None:
            ended.append(True)
            super().feed_eof()

    class Protocol(asyncio.StreamReaderProtocol):
        def data_received(self, data: bytes) -> None:
            seen.append(data)
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)
            super().connection_lost(exc)

    seen: list[bytes] = []
    ended: list[bool] = []
    lost: list[Exception | None] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(kind)
        reader = Reader()
        transport, protocol = await loop.create_connection(
            lambda: Protocol(reader, loop=loop), sock=ours
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        theirs.sendall(b"louder\n")
        assert await reader.readline() == b"LOUDER\n"
        assert reader.fed == 7
        theirs.close()
        assert await reader.read() == b""
        await end(writer)
        assert (seen, ended, lost) == ([b"louder\n"], [True, True], [None])

    run(main())


# -- dropped ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not PY313, reason="earlier versions differ in what they say")
def test_a_dropped_writer_closes_and_warns(run: Run) -> None:
    async def main() -> None:
        ours, theirs = stream_pair("tcp")
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
                del writer
            assert await read_all(theirs) == b""
            assert await reader.read() == b""

    run(main())


def test_a_handler_keeps_its_streams_alive(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            gc.collect()
            await asyncio.sleep(0)
            writer.write(await reader.readexactly(4))
            await end(writer)

        async with serving("tcp", slow, tmp_path) as connect:
            reader, writer = await connect()
            gc.collect()
            writer.write(b"ping")
            assert await reader.read() == b"ping"
            await end(writer)

    run(main())


def test_streams_in_debug_mode(backend: Backend, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await end(writer)

    async def main() -> None:
        async with serving("tcp", answer, tmp_path) as connect:
            reader, writer = await connect()
            writer.write(b"debug\n")
            assert await reader.read() == b"debug\n"
            await end(writer)

    backend.run(main(), debug=True)


def test_a_client_that_says_nothing_and_goes(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        seen: asyncio.Queue[bytes] = asyncio.Queue()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.put_nowait(await reader.read())
            await end(writer)

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            for _ in range(3):
                connected_client(server.sockets[0].getsockname()).close()
                assert await seen.get() == b""
        await server.wait_closed()

    run(main())
