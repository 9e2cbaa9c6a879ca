"""What libraries do with streams, some of them with readers of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backends import PY313
from peers import Run, stream_pair


def fed(*pieces: bytes, eof: bool = True, limit: int = 2**16) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=limit)
    for piece in pieces:
        reader.feed_data(piece)
    if eof:
        reader.feed_eof()
    return reader


def test_redis_reads_replies_line_by_line(run: Run) -> None:
    async def main() -> None:
        reader = fed(b"$5\r\nhel", b"lo\r\n", b":1", eof=False)
        assert await reader.readline() == b"$5\r\n"
        assert await reader.readexactly(7) == b"hello\r\n"
        reader.feed_eof()
        # It takes a line without an end for the end of the connection.
        assert await reader.readline() == b":1"
        assert await reader.readline() == b""

    run(main())


def test_redis_looks_into_the_buffer(run: Run) -> None:
    """`can_read_destructive` and `is_connection_clean`: `_buffer` is what is not yet read."""

    async def main() -> None:
        reader: Any = fed(eof=False)
        assert len(reader._buffer) == 0
        assert not bool(reader._buffer)
        reader.feed_data(b"+PONG\r\n+")
        assert bool(reader._buffer)
        assert bytes(reader._buffer) == b"+PONG\r\n+"
        await reader.readline()
        assert bytes(reader._buffer) == b"+"
        reader._buffer.clear()
        assert not reader.at_eof()
        reader.feed_eof()
        assert reader.at_eof()

    run(main())


def test_aiomysql_tells_what_it_lacks(run: Run) -> None:
    async def main() -> None:
        reader = fed(b"\x01\x00")
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(4)
        assert (caught.value.partial, caught.value.expected) == (b"\x01\x00", 4)
        assert isinstance(caught.value, EOFError)
        assert await reader.read() == b""

    run(main())


def test_aiosmtplib_reads_until_a_separator(run: Run) -> None:
    async def main() -> None:
        reader = fed(b"250-one\r\n250 two\r\nrest")
        assert await reader.readuntil(b"\r\n") == b"250-one\r\n"
        assert await reader.readuntil(b"\r\n") == b"250 two\r\n"
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readuntil(b"\r\n")
        assert (caught.value.partial, caught.value.expected) == (b"rest", None)

    run(main())


def test_websockets_limits_the_length_of_lines(run: Run) -> None:
    """`LimitOverrunError.consumed` is how much can be skipped; nothing is lost."""

    async def main() -> None:
        reader = fed(b"a" * 20 + b"\nrest", limit=8)
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await reader.readuntil(b"\n")
        assert caught.value.consumed == 20
        assert await reader.readexactly(caught.value.consumed) == b"a" * 20
        # Without a separator in sight: so much as is certain to have none.
        reader = fed(b"b" * 20, eof=False, limit=8)
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await reader.readuntil(b"\r\n")
        assert caught.value.consumed == 19

    run(main())


def test_asyncssh_goes_on_after_a_line_that_is_too_long(run: Run) -> None:
    """`readline()` raises ValueError and drops the line, or what there is of it."""

    async def main() -> None:
        reader = fed(b"a" * 20 + b"\nrest\n", limit=8)
        with pytest.raises(ValueError, match=r"longer than limit|chunk exceed"):
            await reader.readline()
        assert await reader.readline() == b"rest\n"

    run(main())


@pytest.mark.skipif(not PY313, reason="tuples of separators came with Python 3.13")
def test_mcp_servers_read_until_one_of_several_separators(run: Run) -> None:
    async def main() -> None:
        reader: Any = fed(b"one\r\ntwo\nthree")
        assert await reader.readuntil((b"\r\n", b"\n")) == b"one\r\n"
        assert await reader.readuntil((b"\r\n", b"\n")) == b"two\n"
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readuntil((b"\r\n", b"\n"))

    run(main())


def test_aiohttp_s_tests_feed_a_reader_by_hand(run: Run) -> None:
    async def main() -> None:
        reader = asyncio.StreamReader()
        reading = asyncio.ensure_future(reader.read(10))
        await asyncio.sleep(0)
        reader.feed_data(b"data")
        assert await reading == b"data"
        failing = asyncio.ensure_future(reader.readline())
        await asyncio.sleep(0)
        reader.set_exception(ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError, match="gone"):
            await failing
        assert isinstance(reader.exception(), ConnectionResetError)

    run(main())


def test_nats_subclasses_readers_and_protocols(run: Run) -> None:
    """As do asyncssh and aiosmtpd: the subclass's methods are the ones that are called."""

    class Counting(asyncio.StreamReader):
        fed = 0

        def feed_data(self, data: bytes) -> None:  # type: ignore[override]
            self.fed += len(data)
            super().feed_data(data)

    class Noting(asyncio.StreamReaderProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.calls: list[str] = []

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.calls.append("made")
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            self.calls.append("data")
            super().data_received(data)

        def eof_received(self) -> bool | None:
            self.calls.append("eof")
            return super().eof_received()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        reader = Counting(loop=loop)
        protocol = Noting(reader, loop=loop)
        with theirs:
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            theirs.send(b"line\n")
            assert await reader.readline() == b"line\n"
            theirs.shutdown(1)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert reader.fed == 5
        assert protocol.calls == ["made", "data", "eof"]

    run(main())


def test_anyio_asks_whether_writing_is_paused(run: Run) -> None:
    """The writer's protocol has `_paused`."""

    async def main() -> None:
        ours, theirs = stream_pair(small=True)
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            protocol: Any = writer._protocol  # type: ignore[attr-defined]
            assert protocol._paused is False
            writer.write(bytes(4 * 1024 * 1024))
            assert protocol._paused is True
            writer.transport.abort()
            assert await reader.read() == b""

    run(main())
