"""aiofiles: files by way of the default executor."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from cancelling import cancel_each_wait, collected  # noqa: F401
from peers import Run
from services import library

aiofiles = library("aiofiles")
aiofiles_os = library("aiofiles.os")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("collected")]


def test_writing_and_reading(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        content = random.Random(1).randbytes(1_000_000)
        async with aiofiles.open(path, "wb") as file:
            for start in range(0, len(content), 60_000):
                await file.write(content[start : start + 60_000])
        assert path.read_bytes() == content
        async with aiofiles.open(path, "rb") as file:
            await file.seek(500)
            assert await file.read(100) == content[500:600]
            assert await file.tell() == 600
        assert (await aiofiles_os.stat(path)).st_size == len(content)
        await aiofiles_os.remove(path)
        assert not path.exists()

    run(main())


def test_lines_and_many_files(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async def one(number: int) -> None:
            path = tmp_path / f"file {number}"
            async with aiofiles.open(path, "w") as file:
                await file.writelines(f"line {line} of {number}\n" for line in range(20))
            async with aiofiles.open(path) as file:
                lines = [line async for line in file]
            assert lines == [f"line {line} of {number}\n" for line in range(20)]

        await asyncio.gather(*(one(number) for number in range(50)))

    run(main())


def test_errors(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            async with aiofiles.open(tmp_path / "nothing"):
                pass

    run(main())


# A file whose opening was cancelled is opened all the same, and nobody has it.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_cancelling_at_each_wait(run: Run, tmp_path: Path) -> None:
    """A call in a thread cannot be taken back; the file and the threads are fit for the next."""

    async def main() -> None:
        path = tmp_path / "file"

        async def write() -> None:
            async with aiofiles.open(path, "w") as file:
                await file.write("lost")

        async def look() -> None:
            other = tmp_path / "other"
            async with aiofiles.open(other, "w") as file:
                await file.write("kept")
            async with aiofiles.open(other) as file:
                assert await file.read() == "kept"

        assert await cancel_each_wait(write, look) > 0

    run(main())
