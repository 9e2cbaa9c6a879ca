"""A web scraper: follows the links of a site, level by level, and never visits a page twice.

Reads each page with BeautifulSoup, keeps to the site it began on, and goes no deeper than told.
Only so many pages are loaded at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urldefrag, urljoin, urlsplit

import aiohttp
from bs4 import BeautifulSoup
from figures import Figures, Report, argument_parser


@dataclass
class Page:
    """What is kept of one page."""

    url: str
    title: str
    words: Counter[str]
    links: list[str]


def read_page(url: str, html: str) -> Page:
    """Take title, words and links out of the HTML; links come out absolute, without fragment."""
    soup = BeautifulSoup(html, "html.parser")
    links = []
    for anchor in soup.find_all("a", href=True):
        link = urldefrag(urljoin(url, str(anchor["href"]))).url
        if urlsplit(link).netloc == urlsplit(url).netloc:
            links.append(link)
    words = Counter(
        word.strip(".").lower() for text in soup.find_all("p") for word in text.get_text().split()
    )
    return Page(url, soup.title.get_text() if soup.title else "", words, links)


class Scraper:
    """Loads pages, a bounded number at the same time, and collects what it finds."""

    def __init__(self, session: aiohttp.ClientSession, figures: Figures, concurrency: int) -> None:
        self._session = session
        self._figures = figures
        self._limit = asyncio.Semaphore(concurrency)
        self.pages: list[Page] = []
        self.dead: list[str] = []

    async def visit(self, url: str) -> list[str]:
        """Load one page and return its links; none if the page is not there."""
        async with self._limit:
            try:
                with self._figures.call():
                    async with self._session.get(url) as response:
                        response.raise_for_status()
                        html = await response.text()
            except aiohttp.ClientResponseError as error:
                if error.status != 404:
                    raise
                self.dead.append(url)
                return []
        page = read_page(url, html)
        self.pages.append(page)
        return page.links

    async def follow(self, start: str, depth: int) -> list[int]:
        """Visit everything within `depth` links of `start`; return the pages of each level."""
        seen = {start}
        level = [start]
        sizes: list[int] = []
        while level and len(sizes) <= depth:
            sizes.append(len(level))
            async with asyncio.TaskGroup() as group:
                visits = [group.create_task(self.visit(url)) for url in level]
            found = {link for visit in visits for link in visit.result()} - seen
            seen |= found
            level = sorted(found)
        return sizes


def rank(entry: tuple[str, int]) -> tuple[int, str]:
    """Sorts by count, the highest first. The name breaks ties: pages arrive in no fixed order."""
    return -entry[1], entry[0]


async def main(arguments: argparse.Namespace) -> Report:
    report = Report("scraper")
    async with aiohttp.ClientSession() as session:
        with report.figures("scraper") as figures:
            scraper = Scraper(session, figures, arguments.concurrency)
            levels = await scraper.follow(arguments.base_url + "/site/0", arguments.depth)
    words = sum((page.words for page in scraper.pages), Counter[str]())
    linked = Counter(urlsplit(link).path for page in scraper.pages for link in page.links)
    favourite, times = min(linked.items(), key=rank)
    common = [word for word, _ in sorted(words.items(), key=rank)[:3]]
    print(f"{len(scraper.pages)} pages, {len(scraper.dead)} dead links; by level: {levels}")
    print(f"{words.total():,} words, most often: {', '.join(common)}")
    print(f"most linked to: {favourite}, {times} times")
    report.result = {
        "pages": len(scraper.pages),
        "dead": sorted(urlsplit(url).path for url in scraper.dead),
        "levels": levels,
        "words": words.total(),
        "titles": len({page.title for page in scraper.pages}),
        "favourite": favourite,
        "common": common,
    }
    return report


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--depth", type=int, default=10, help="links to follow from the front")
    parser.add_argument("--concurrency", type=int, default=20, help="pages at the same time")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    asyncio.run(main(arguments)).print(as_json=arguments.json)
