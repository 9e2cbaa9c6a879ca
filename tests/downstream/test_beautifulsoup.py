"""BeautifulSoup: a crawler that parses pages while others are on their way."""

from __future__ import annotations

import asyncio

import pytest
from peers import Run
from website import PAGES, website

bs4 = pytest.importorskip("bs4", reason="BeautifulSoup is not installed")
aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed")

pytestmark = pytest.mark.slow


def test_a_crawler_finds_every_page_once(run: Run) -> None:
    async def main() -> None:
        titles: dict[str, str] = {}
        with website() as site:
            queue: asyncio.Queue[str] = asyncio.Queue()
            queue.put_nowait("/page/1")

            async def crawl(session: aiohttp.ClientSession) -> None:
                while True:
                    path = await queue.get()
                    async with session.get(site.url + path) as response:
                        soup = bs4.BeautifulSoup(await response.text(), "html.parser")
                    titles[path] = soup.title.text
                    for link in soup.find_all("a"):
                        queue.put_nowait(link["href"])
                    queue.task_done()

            async with aiohttp.ClientSession() as session:
                workers = [asyncio.ensure_future(crawl(session)) for _ in range(8)]
                await queue.join()
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        assert titles == {f"/page/{n}": f"Page {n}" for n in range(1, PAGES)}
        assert len(site.requests) == PAGES - 1

    run(main())
