"""loop.sendfile(): the system call where it can be, a copy where not."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from backends import PY312, Backend
from certificates import NAME, client_context, server_context
from peers import (
    FILLS_UP,
    KINDS,
    Run,
    pass_turns,
    read_all,
    read_exactly,
    reset,
    stream_pair,
    wired,
)
from recorders import Recorder

CONTENT = random.Random(8).randbytes(FILLS_UP)
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


OPENERS: dict[str, Callable[[Path], Any]] = {
    "file": lambda path: path.open("rb"),
    "unbuffered": lambda path: path.open("rb", 0),
    "memory": lambda path: io.BytesIO(path.read_bytes()),
}


@each_kind
@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    ("offset", "count"), [(0, None), (1000, None), (1000, 5000), (0, 10 * FILLS_UP)]
)
def test_what_arrives(
    run: Run,
    backend: Backend,
    kind: str,
    path: Path,
    opener: str,
    offset: int,
    count: int | None,
) -> None:
    if opener == "memory" and not backend.is_weft and PY312:
        pytest.skip("asyncio reads the next piece over what is still to be sent from 3.12 on")
    expected = CONTENT[offset:] if count is None else CONTENT[offset : offset + count]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with wired(Recorder(), kind, small=True) as (transport, peer):
            with OPENERS[opener](path) as file:
                reading = asyncio.ensure_future(read_exactly(peer, len(expected) + 10))
                transport.write(b"head;")
                sent = await loop.sendfile(transport, file, offset, count)
                assert sent == len(expected)
                assert file.tell() == offset + len(expected)
                transport.write(b";tail")
                assert await reading == b"head;" + expected + b";tail"
            assert transport.is_reading()

    run(main())


def test_the_system_call_is_used(run: Run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    sendfile = os.sendfile

    def counted(out: int, in_: int, offset: int, count: int) -> int:
        sent = sendfile(out, in_, offset, count)
        calls.append(sent)
        return sent

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with wired(Recorder()) as (transport, peer):
            reading = asyncio.ensure_future(read_exactly(peer, len(CONTENT)))
            with path.open("rb") as file:
                await loop.sendfile(transport, file, fallback=False)
            assert await reading == CONTENT
        assert sum(calls) == len(CONTENT)

    monkeypatch.setattr(os, "sendfile", counted)
    run(main())


@each_kind
def test_it_waits_for_what_was_written_before(run: Run, kind: str, path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with wired(Recorder(), kind, small=True) as (transport, peer):
            transport.write(b"x" * FILLS_UP)
            with path.open("rb") as file:
                sending = asyncio.ensure_future(loop.sendfile(transport, file))
                await pass_turns()
                assert not transport.is_reading()
                with pytest.raises(RuntimeError, match="sendfile is in progress"):
                    transport.write(b"too early")
                with pytest.raises(RuntimeError, match="sendfile is in progress"):
                    transport.writelines([b"too early"])
                received = await read_exactly(peer, FILLS_UP + len(CONTENT))
                assert await sending == len(CONTENT)
            assert received == b"x" * FILLS_UP + CONTENT
            transport.write(b"now")
            assert await read_exactly(peer, 3) == b"now"

    run(main())


@contextlib.asynccontextmanager
async def encrypted() -> AsyncIterator[tuple[Any, Recorder]]:
    """A TLS transport, and the recorder at the other end."""
    loop = asyncio.get_running_loop()
    here, there = Recorder(), Recorder()
    server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=server_context())
    async with server:
        transport, _ = await loop.create_connection(
            lambda: here,
            *server.sockets[0].getsockname(),
            ssl=client_context(),
            server_hostname=NAME,
        )
        try:
            yield transport, there
        finally:
            transport.close()
            await here.lost()
            await there.lost()


def test_over_tls_it_copies(run: Run, path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with encrypted() as (transport, there):
            with path.open("rb") as file:
                with pytest.raises(RuntimeError, match="fallback is disabled"):
                    await loop.sendfile(transport, file, fallback=False)
                assert await loop.sendfile(transport, file) == len(CONTENT)
            assert await there.received(len(CONTENT)) == CONTENT

    run(main())


@pytest.mark.parametrize(
    ("offset", "count"), [(0, None), (1000, None), (1000, 300_000), (0, 10 * FILLS_UP), (9, 1)]
)
def test_what_arrives_over_tls(run: Run, path: Path, offset: int, count: int | None) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        expected = CONTENT[offset:] if count is None else CONTENT[offset:][:count]
        async with encrypted() as (transport, there):
            transport.write(b"before ")
            with path.open("rb") as file:
                assert await loop.sendfile(transport, file, offset, count) == len(expected)
                assert file.tell() == offset + len(expected)
            transport.write(b" after")
            everything = b"before " + expected + b" after"
            assert await there.received(len(everything)) == everything

    run(main())


@pytest.mark.backends("weft")
def test_copying_is_done_in_large_pieces(run: Run) -> None:
    """asyncio reads 16 KiB at a time, each in a thread."""
    asked: list[int] = []

    class File(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            asked.append(len(buffer))
            return super().readinto(buffer)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with encrypted() as (transport, there):
            assert await loop.sendfile(transport, File(CONTENT), 0, FILLS_UP - 1) == FILLS_UP - 1
            assert await there.received(FILLS_UP - 1) == CONTENT[:-1]

    run(main())
    assert asked == [256 * 1024, 256 * 1024 - 1]


def test_a_transport_that_is_aborted_while_it_copies(run: Run, path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with encrypted() as (transport, there):
            await there.called("connection_made")
            there.transport.pause_reading()

            class File(io.BytesIO):
                def readinto(self, buffer: Any) -> int:
                    if self.tell() > 0:
                        loop.call_soon_threadsafe(transport.abort)
                    return super().readinto(buffer)

            # More than the sockets of a connection hold, however large the system makes them.
            with pytest.raises(ConnectionError):
                await loop.sendfile(transport, File(bytes(64 << 20)))
            there.transport.abort()

    run(main())


def test_a_pipe_takes_no_file(run: Run, path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        with open(reading, "rb", 0), open(writing, "wb", 0) as writer, path.open("rb") as file:
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            with pytest.raises(RuntimeError, match="sendfile is not supported"):
                await loop.sendfile(transport, file)
            transport.close()
            await protocol.lost()

    run(main())


def test_what_is_not_available_without_copying(run: Run) -> None:
    """A file in memory has no descriptor."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with wired(Recorder()) as (transport, peer):
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await loop.sendfile(transport, io.BytesIO(CONTENT), fallback=False)
            transport.write(b"alive")
            assert await read_exactly(peer, 5) == b"alive"
        ours, theirs = stream_pair()
        with ours, theirs, pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sock_sendfile(ours, io.BytesIO(CONTENT), fallback=False)

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(("offset", "count"), [(0, None), (1000, None), (1000, 5000)])
def test_plain_sockets(run: Run, path: Path, opener: str, offset: int, count: int | None) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        expected = CONTENT[offset:] if count is None else CONTENT[offset:][:count]
        ours, theirs = stream_pair(small=True)
        with ours, theirs, OPENERS[opener](path) as file:
            sending = asyncio.ensure_future(loop.sock_sendfile(ours, file, offset, count))
            assert await read_exactly(theirs, len(expected)) == expected
            assert await sending == len(expected)
            assert file.tell() == offset + len(expected)

    run(main())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"offset": -1}, ValueError, "offset must be a non-negative integer"),
        ({"offset": "1"}, TypeError, "offset must be a non-negative integer"),
        ({"count": 0}, ValueError, "count must be a positive integer"),
        ({"count": "1"}, TypeError, "count must be a positive integer"),
    ],
    ids=repr,
)
def test_wrong_arguments(
    run: Run, path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with wired(Recorder()) as (transport, peer):
            with path.open("rb") as file, pytest.raises(error, match=message):
                await loop.sendfile(transport, file, **arguments)
            with path.open() as text, pytest.raises(ValueError, match="binary mode"):
                await loop.sendfile(transport, text)
            transport.write(b"alive")
            assert await read_exactly(peer, 5) == b"alive"
            transport.close()
            with path.open("rb") as file, pytest.raises(RuntimeError, match="Transport is closing"):
                await loop.sendfile(transport, file)

    run(main())


@each_kind
@pytest.mark.parametrize("turns", [1, 2, 3, 5, 10])
def test_cancelled_on_its_way(run: Run, kind: str, path: Path, turns: int) -> None:
    """The transport lives on, and the file stands at the first byte that was not sent."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with wired(Recorder(), kind, small=True) as (transport, peer):
            with path.open("rb") as file:
                sending = asyncio.ensure_future(loop.sendfile(transport, file))
                await pass_turns(turns)
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending
                await pass_turns()
                sent = file.tell()
            assert sent < len(CONTENT)
            transport.write(b"after")
            transport.close()
            received = await read_all(peer)
            assert received.endswith(b"after")
            assert CONTENT.startswith(received[:-5])

    run(main())


def test_a_peer_that_goes_meanwhile(run: Run, path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(small=True)
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            await pass_turns(5)
            reset(theirs)
            with pytest.raises(ConnectionError):
                await sending
        transport.abort()
        await protocol.lost()

    run(main())
