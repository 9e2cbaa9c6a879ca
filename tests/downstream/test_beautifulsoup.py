"""BeautifulSoup: a crawler that parses pages while others are on their way."""

from __future__ import annotations

import asyncio

import pytest
from cancelling import cancel_some
from peers import Run
from services import library
from website import PAGES, website

bs4 = library("bs4")
aiohttp = library("aiohttp")
requests = library("requests")

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


def test_pages_that_are_parsed_in_threads(run: Run) -> None:
    async def main() -> None:
        with website() as site:

            def title(number: int) -> str:
                page = requests.get(f"{site.url}/page/{number}", timeout=10).text
                return str(bs4.BeautifulSoup(page, "html.parser").title.text)

            async def ask(number: int) -> str:
                return await asyncio.to_thread(title, number)

            answers = await cancel_some(lambda number: ask(1 + number % (PAGES - 1)), count=100)
            for number, answer in answers.items():
                assert answer == f"Page {1 + number % (PAGES - 1)}"

    run(main())
