"""A web site to scrape: pages with prose, and with links of every kind that a scraper meets."""

from __future__ import annotations

import random

# fmt: off
WORDS = (
    "loom", "shuttle", "warp", "thread", "heddle", "bobbin", "selvage", "twill", "satin", "yarn",
    "reed", "treadle", "spindle", "wool", "linen", "cotton", "silk", "dye", "madder", "indigo",
    "weld", "skein", "cloth", "pattern",
)
# fmt: on


PARAGRAPHS = 6


class Site:
    """`count` pages under /site/, the front page being number 0; all made at once."""

    def __init__(self, seed: int, count: int) -> None:
        rng = random.Random(seed)
        self._pages = [write_page(rng, number, count) for number in range(count)]

    def page(self, number: int) -> bytes | None:
        """The HTML of one page, or None if there is no such page."""
        return self._pages[number] if 0 <= number < len(self._pages) else None


def write_page(rng: random.Random, number: int, count: int) -> bytes:
    """One page. Page n links to 2n+1 and 2n+2, so that each page can be reached from the front."""
    links = [child for child in (2 * number + 1, 2 * number + 2) if child < count]
    links += [rng.randrange(count) for _ in range(4)]
    anchors = [link_to(rng, target) for target in links]
    if number % 17 == 5:
        anchors.append(f'<a href="/site/{count + number}">lost</a>')
    anchors.append('<a href="http://elsewhere.invalid/">elsewhere</a>')
    anchors.append('<a href="mailto:weaver@elsewhere.invalid">write to us</a>')
    paragraphs = "\n".join(
        f"<p>{' '.join(rng.choices(WORDS, k=40)).capitalize()}.</p>" for _ in range(PARAGRAPHS)
    )
    items = "\n".join(f"<li>{anchor}</li>" for anchor in anchors)
    title = f"{rng.choice(WORDS).capitalize()} {number}"
    return (
        f"<!doctype html>\n<html><head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n"
        f"{paragraphs}\n<ul>\n{items}\n</ul>\n</body></html>\n"
    ).encode()


def link_to(rng: random.Random, target: int) -> str:
    """The same address in one of the ways that pages write it."""
    address = rng.choice(
        (f"/site/{target}", f"{target}", f"../site/{target}", f"/site/{target}#top")
    )
    return f'<a href="{address}">page {target}</a>'
