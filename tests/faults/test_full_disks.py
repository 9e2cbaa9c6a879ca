"""Files that take no more, and files that end before their time."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import Run, read_all, stream_pair
from recorders import Recorder


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 64 KiB: writing more fails with EFBIG."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


class PipeProtocol(asyncio.BaseProtocol):
    def __init__(self) -> None:
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


def test_a_pipe_transport_on_a_full_device(run: Run) -> None:
    """/dev/full is a character device that takes nothing: the connection ends with ENOSPC."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with open("/dev/full", "wb", buffering=0) as file:
            transport, protocol = await loop.connect_write_pipe(PipeProtocol, file)
            transport.write(b"data")
            exc = await protocol.lost
            assert isinstance(exc, OSError)
            assert exc.errno == errno.ENOSPC
            assert transport.is_closing()

    run(main())


@pytest.mark.child
def test_a_process_whose_output_is_full(run: Run) -> None:
    async def main() -> None:
        with open("/dev/full", "wb") as full:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "print('x' * 100000)",
                stdout=full, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _, err = await process.communicate()
        assert process.returncode != 0
        assert b"No space left" in err

    run(main())


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("where", ["thread", "executor"])
def test_writing_in_threads(run: Run, tmp_path: Path, where: str) -> None:
    """The error comes out of to_thread() and run_in_executor() as it is."""

    def write() -> None:
        (tmp_path / "file").write_bytes(bytes(100_000))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(OSError) as caught:  # noqa: PT011, PT012
            if where == "thread":
                await asyncio.to_thread(write)
            else:
                await loop.run_in_executor(None, write)
        assert caught.value.errno == errno.EFBIG

    run(main())


def test_sending_a_file_that_shrinks(run: Run, tmp_path: Path) -> None:
    """sendfile() sends what there is, and says how much that was."""
    path = tmp_path / "file"
    path.write_bytes(bytes(3_000_000))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair(small=True)
        with theirs, path.open("rb") as file:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            sending = asyncio.ensure_future(loop.sendfile(transport, file, 0, 3_000_000))
            await loop.sock_recv(theirs, 1000)
            os.truncate(path, 500_000)
            reading = asyncio.ensure_future(read_all(theirs))
            count = await sending
            assert count < 3_000_000
            transport.close()
            assert len(await reading) == count - 1000
            await protocol.lost()

    run(main())
