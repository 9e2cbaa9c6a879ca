"""An API poller: asks many feeds for news at a steady interval, and backs off when one is ill.

Each feed has its own rhythm, which a slow answer does not shift: the next poll is due one interval
after the last was due. A feed that answers 503 is asked again after a pause that doubles each
time, with some jitter, so that not everybody comes back at once.
"""

from __future__ import annotations

import argparse
import asyncio
import random

import aiohttp
from figures import Figures, Report, argument_parser, percentile


class Feed:
    """One feed being polled."""

    def __init__(
        self,
        name: str,
        session: aiohttp.ClientSession,
        figures: Figures,
        arguments: argparse.Namespace,
    ) -> None:
        self.name = name
        self.events = 0
        self.retries = 0
        self.lateness: list[float] = []
        self._session = session
        self._figures = figures
        self._interval: float = arguments.interval
        self._polls: int = arguments.polls
        self._random = random.Random(name)
        self._since = 0

    async def follow(self) -> None:
        """Poll as often as told, each time for what is new since the last."""
        loop = asyncio.get_running_loop()
        # Spread the feeds over one interval instead of asking all of them at its start.
        due = loop.time() + self._interval * self._random.random()
        for _ in range(self._polls):
            # Later than due when the last poll had to back off for long.
            start = max(due, loop.time())
            await asyncio.sleep(start - loop.time())
            self.lateness.append(loop.time() - start)
            await self._poll_until_answered()
            due += self._interval

    async def _poll_until_answered(self) -> None:
        attempt = 0
        while not await self._poll(attempt):
            self.retries += 1
            pause = min(self._interval * 2**attempt, 30.0)
            await asyncio.sleep(pause * (0.5 + 0.5 * self._random.random()))
            attempt += 1

    async def _poll(self, attempt: int) -> bool:
        """Ask once; False when the feed wants to be asked again later."""
        url = f"/api/feeds/{self.name}?since={self._since}&attempt={attempt}"
        try:
            with self._figures.call():
                async with self._session.get(url) as response:
                    response.raise_for_status()
                    news = await response.json()
        except aiohttp.ClientResponseError as error:
            if error.status != 503:
                raise
            return False
        self.events += len(news["events"])
        self._since = news["next"]
        return True


async def main(arguments: argparse.Namespace) -> Report:
    report = Report("poller")
    async with aiohttp.ClientSession(arguments.base_url) as session:
        with report.figures("poller") as figures:
            feeds = [
                Feed(f"feed-{number}", session, figures, arguments)
                for number in range(arguments.feeds)
            ]
            async with asyncio.TaskGroup() as group:
                for feed in feeds:
                    group.create_task(feed.follow(), name=feed.name)
    late = sorted(seconds for feed in feeds for seconds in feed.lateness)
    report.result = {
        "events": sum(feed.events for feed in feeds),
        "retries": sum(feed.retries for feed in feeds),
    }
    print(
        f"{len(feeds)} feeds, {report.result['events']:,} events,"
        f" {report.result['retries']} times asked again after an error"
    )
    print(
        f"the timers fired {percentile(late, 50) * 1000:.2f} ms late (median),"
        f" {percentile(late, 99) * 1000:.2f} ms (p99)"
    )
    return report


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--feeds", type=int, default=20)
    parser.add_argument("--polls", type=int, default=10, help="polls of each feed")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between two polls")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    asyncio.run(main(arguments)).print(as_json=arguments.json)
