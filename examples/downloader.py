"""A batch downloader: streams files to disk, a few at the same time, and checks what arrived.

Chunks go from the connection to the file without ever being all in memory. A file appears under
its name only when it is whole and its checksum is right; a download that fails is tried again.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import NamedTuple

import aiofiles
import aiohttp
from figures import Figures, Report, argument_parser

CHUNK = 64 * 1024
ATTEMPTS = 3
FAIL_PERCENT = 10


class Entry(NamedTuple):
    """One line of the server's list of files."""

    name: str
    size: int
    sha256: str


class Downloader:
    """Downloads into one directory."""

    def __init__(
        self, session: aiohttp.ClientSession, figures: Figures, directory: Path, concurrency: int
    ) -> None:
        self._session = session
        self._figures = figures
        self._directory = directory
        self._limit = asyncio.Semaphore(concurrency)
        self.retries = 0

    async def fetch(self, entry: Entry) -> None:
        """Download one file, with as many attempts as are allowed."""
        async with self._limit:
            for attempt in range(ATTEMPTS):
                try:
                    with self._figures.call():
                        await self._attempt(entry, attempt)
                    return
                except aiohttp.ClientError:
                    if attempt == ATTEMPTS - 1:
                        raise
                    self.retries += 1

    async def _attempt(self, entry: Entry, attempt: int) -> None:
        url = f"/files/{entry.name}?fail={FAIL_PERCENT}&attempt={attempt}"
        partial = self._directory / f"{entry.name}.part"
        digest = hashlib.sha256()
        async with self._session.get(url) as response:
            response.raise_for_status()
            async with aiofiles.open(partial, "wb") as file:
                async for chunk in response.content.iter_chunked(CHUNK):
                    digest.update(chunk)
                    await file.write(chunk)
        if digest.hexdigest() != entry.sha256:
            raise aiohttp.ClientPayloadError(f"{entry.name} arrived damaged")
        partial.rename(self._directory / entry.name)


async def main(arguments: argparse.Namespace, directory: Path) -> Report:
    report = Report("downloader")
    async with aiohttp.ClientSession(arguments.base_url) as session:
        async with session.get("/files") as response:
            entries = [Entry(**entry) for entry in (await response.json())["files"]]
        entries = entries[: arguments.files]
        with report.figures("downloader") as figures:
            downloader = Downloader(session, figures, directory, arguments.concurrency)
            async with asyncio.TaskGroup() as group:
                for entry in entries:
                    group.create_task(downloader.fetch(entry))
    sizes = [(directory / entry.name).stat().st_size for entry in entries]
    if sizes != [entry.size for entry in entries]:
        raise AssertionError("files on disk differ from the server's list")
    report.result = {
        "files": len(entries),
        "bytes": sum(sizes),
        "retries": downloader.retries,
        "left over": len(list(directory.glob("*.part"))),
    }
    megabytes = sum(sizes) / 1e6
    print(f"{len(entries)} files, {megabytes:.1f} MB, checksums right, in {directory}")
    print(f"{megabytes / figures.seconds:.0f} MB/s; {downloader.retries} downloads tried again")
    return report


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--files", type=int, default=24, help="how many of the server's files")
    parser.add_argument("--concurrency", type=int, default=8, help="downloads at the same time")
    parser.add_argument("--directory", type=Path, help="where to (default: a temporary one)")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    if arguments.directory is not None:
        arguments.directory.mkdir(parents=True, exist_ok=True)
        asyncio.run(main(arguments, arguments.directory)).print(as_json=arguments.json)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(arguments, Path(temporary))).print(as_json=arguments.json)
