"""Many API calls, in the five ways that people write them.

    one by one      await each call before the next
    gather          start all of them at once and wait for all
    workers         a fixed number of workers takes the calls from a queue
    semaphore       one task a call, and a semaphore that lets only so many through
    timeouts        as before; some calls never answer in time, some fail, and the rest still count

Each way asks for the same items and adds up their prices.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
from figures import Figures, Report, argument_parser

# One call in so many takes far longer than anyone waits; so many per cent fail.
SLOW_SHARE = 200
SLOW_MS = 30_000
FAIL_PERCENT = 5


async def price_of(
    session: aiohttp.ClientSession, figures: Figures, number: int, query: str = ""
) -> int:
    """One API call: the price of one item, in cents."""
    with figures.call():
        async with session.get(f"/api/items/{number}{query}") as response:
            response.raise_for_status()
            item = await response.json()
    return int(item["cents"])


async def one_by_one(
    session: aiohttp.ClientSession, figures: Figures, arguments: argparse.Namespace
) -> int:
    total = 0
    for number in range(arguments.calls):
        total += await price_of(session, figures, number)
    return total


async def with_gather(
    session: aiohttp.ClientSession, figures: Figures, arguments: argparse.Namespace
) -> int:
    calls = (price_of(session, figures, number) for number in range(arguments.calls))
    return sum(await asyncio.gather(*calls))


async def with_workers(
    session: aiohttp.ClientSession, figures: Figures, arguments: argparse.Namespace
) -> int:
    numbers: asyncio.Queue[int] = asyncio.Queue()
    prices: list[int] = []

    async def work() -> None:
        while True:
            number = await numbers.get()
            try:
                prices.append(await price_of(session, figures, number))
            finally:
                numbers.task_done()

    workers = [asyncio.create_task(work()) for _ in range(arguments.concurrency)]
    for number in range(arguments.calls):
        numbers.put_nowait(number)
    await numbers.join()
    for worker in workers:
        worker.cancel()
    # A worker that failed instead of being cancelled must not go unnoticed.
    for end in await asyncio.gather(*workers, return_exceptions=True):
        if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
            raise end
    return sum(prices)


async def with_semaphore(
    session: aiohttp.ClientSession, figures: Figures, arguments: argparse.Namespace
) -> int:
    limit = asyncio.Semaphore(arguments.concurrency)

    async def limited(number: int) -> int:
        async with limit:
            return await price_of(session, figures, number)

    return sum(await asyncio.gather(*map(limited, range(arguments.calls))))


async def with_timeouts(
    session: aiohttp.ClientSession, figures: Figures, arguments: argparse.Namespace
) -> dict[str, int]:
    limit = asyncio.Semaphore(arguments.concurrency)
    unmeasured = Figures("inside the timeout")

    async def limited(number: int) -> int:
        query = f"?fail={FAIL_PERCENT}"
        # The slow ones come first: at the end, nothing else would be left to do meanwhile.
        if number < arguments.calls / SLOW_SHARE:
            query += f"&delay={SLOW_MS}"
        async with limit:
            # Measured from outside the timeout, so that what counts is what the caller sees.
            with figures.call():
                async with asyncio.timeout(arguments.timeout):
                    return await price_of(session, unmeasured, number, query)

    answers = await asyncio.gather(*map(limited, range(arguments.calls)), return_exceptions=True)
    outcome = {"cents": 0, "timed out": 0, "failed": 0}
    for answer in answers:
        if isinstance(answer, int):
            outcome["cents"] += answer
        elif isinstance(answer, TimeoutError):
            outcome["timed out"] += 1
        elif isinstance(answer, aiohttp.ClientResponseError):
            outcome["failed"] += 1
        else:
            raise answer
    return outcome


Way = Callable[
    [aiohttp.ClientSession, Figures, argparse.Namespace], Awaitable[int | dict[str, int]]
]
WAYS: dict[str, Way] = {
    "one by one": one_by_one,
    "gather": with_gather,
    "workers": with_workers,
    "semaphore": with_semaphore,
    "timeouts": with_timeouts,
}


async def main(arguments: argparse.Namespace) -> Report:
    report = Report("api_calls")
    for name, way in WAYS.items():
        if arguments.way not in (name, "all"):
            continue
        # A session each, so that no way finds connections that another has opened.
        async with aiohttp.ClientSession(arguments.base_url) as session:
            with report.figures(name) as figures:
                outcome = await way(session, figures, arguments)
        report.result[name] = outcome
        print(f"{name:<12} {arguments.calls:,} items: {outcome}")
    return report


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--calls", type=int, default=1000, help="calls in each way")
    parser.add_argument("--concurrency", type=int, default=50, help="calls at the same time")
    parser.add_argument("--timeout", type=float, default=0.5, help="seconds before giving up")
    parser.add_argument("--way", choices=[*WAYS, "all"], default="all")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    asyncio.run(main(arguments)).print(as_json=arguments.json)
