"""aiofiles: files by way of the default executor."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from peers import Run

aiofiles = pytest.importorskip("aiofiles", reason="aiofiles is not installed")
aiofiles_os = pytest.importorskip("aiofiles.os")

pytestmark = pytest.mark.slow


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
