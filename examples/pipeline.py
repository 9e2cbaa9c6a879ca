"""Producers and consumers: orders are listed, priced and booked, all at the same time.

    list orders  ->  queue  ->  look up the price  ->  queue  ->  book in batches

The queues are bounded: a stage that is too fast waits for the next. Each stage is told to end when
the one before it has ended, and an error anywhere ends all of them.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
from figures import Figures, Report, argument_parser

Order = dict[str, Any]
BATCH = 50


class Pipeline:
    """Three stages and the two queues between them; None in a queue says that all is done."""

    def __init__(
        self, session: aiohttp.ClientSession, figures: Figures, arguments: argparse.Namespace
    ) -> None:
        self._session = session
        self._figures = figures
        self._pages: Iterator[int] = iter(range(arguments.pages))
        self._producers: int = arguments.producers
        self._consumers: int = arguments.consumers
        self._orders: asyncio.Queue[Order | None] = asyncio.Queue(arguments.queue)
        self._priced: asyncio.Queue[Order | None] = asyncio.Queue(arguments.queue)
        self.fullest = 0
        self.cents = 0
        self.booked_cents = 0
        self.booked = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as booking:
            booking.create_task(self._book())
            async with asyncio.TaskGroup() as consumers:
                for _ in range(self._consumers):
                    consumers.create_task(self._price())
                async with asyncio.TaskGroup() as producers:
                    for _ in range(self._producers):
                        producers.create_task(self._list())
                for _ in range(self._consumers):
                    await self._orders.put(None)
            await self._priced.put(None)

    async def _list(self) -> None:
        """Producer: take the next page that nobody has taken, and queue its orders."""
        for page in self._pages:
            for order in (await self._get(f"/api/orders?page={page}"))["orders"]:
                await self._orders.put(order)
                self.fullest = max(self.fullest, self._orders.qsize())

    async def _price(self) -> None:
        """Consumer of orders, producer of priced ones."""
        while (order := await self._orders.get()) is not None:
            item = await self._get(f"/api/items/{order['item']}")
            cents = item["cents"] * order["quantity"]
            self.cents += cents
            await self._priced.put({"order": order["order"], "cents": cents})

    async def _book(self) -> None:
        """Consumer: send what is priced on its way, a batch at a time."""
        batch: list[Order] = []
        while (order := await self._priced.get()) is not None:
            batch.append(order)
            if len(batch) == BATCH:
                await self._post(batch)
                batch = []
        if batch:
            await self._post(batch)

    async def _get(self, url: str) -> Any:
        with self._figures.call():
            async with self._session.get(url) as response:
                response.raise_for_status()
                return await response.json()

    async def _post(self, batch: list[Order]) -> None:
        with self._figures.call():
            async with self._session.post("/api/ledger", json=batch) as response:
                response.raise_for_status()
                receipt = await response.json()
        self.booked += receipt["accepted"]
        self.booked_cents += receipt["cents"]


async def main(arguments: argparse.Namespace) -> Report:
    report = Report("pipeline")
    async with aiohttp.ClientSession(arguments.base_url) as session:
        with report.figures("pipeline") as figures:
            pipeline = Pipeline(session, figures, arguments)
            await pipeline.run()
    if pipeline.booked_cents != pipeline.cents:
        raise AssertionError("the ledger's sum differs from ours")
    report.result = {"orders": pipeline.booked, "cents": pipeline.cents}
    print(f"{pipeline.booked:,} orders booked, {pipeline.cents / 100:,.2f} in all")
    print(f"at most {pipeline.fullest} orders waited between the stages")
    return report


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--pages", type=int, default=50, help="pages of 20 orders each")
    parser.add_argument("--producers", type=int, default=2)
    parser.add_argument("--consumers", type=int, default=20)
    parser.add_argument("--queue", type=int, default=100, help="orders that may wait")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    asyncio.run(main(arguments)).print(as_json=arguments.json)
