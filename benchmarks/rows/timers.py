"""Timers: most are cancelled, some fire, and sometimes there are very many."""

from __future__ import annotations

import asyncio
from random import Random

from benchmarks.rows._row import Row, clock

SLEEPERS = 10_000
MILLION = 1_000_000


def _delays(count: int, longest: float) -> list[float]:
    """Delays in no order, but the same ones for every loop."""
    random = Random(count)
    return [random.random() * longest for _ in range(count)]


async def later_and_cancel(count: int) -> int:
    """Schedule a timer and cancel it; the loop gets a turn after every thousand."""
    loop = asyncio.get_running_loop()

    def callback() -> None:
        raise AssertionError("cancelled timers must not fire")

    start = clock()
    for number in range(count):
        loop.call_later(1000, callback).cancel()
        if number % 1000 == 999:
            await asyncio.sleep(0)
    return clock() - start


async def sleeps(count: int) -> int:
    """Ten thousand tasks that sleep for up to a millisecond, so that work decides, not waiting."""
    delays = _delays(SLEEPERS, 0.001)
    start = clock()
    for _ in range(count):
        await asyncio.gather(*[asyncio.sleep(delay) for delay in delays])
    return clock() - start


async def million(count: int) -> int:
    """A million timers at once, scheduled in no order, and all of them fire."""
    loop = asyncio.get_running_loop()
    delays = _delays(MILLION, 0.1)
    elapsed = 0
    for _ in range(count):
        done = loop.create_future()
        remaining = MILLION

        def callback(done: asyncio.Future[None] = done) -> None:
            nonlocal remaining
            remaining -= 1
            if not remaining:
                done.set_result(None)

        start = clock()
        for delay in delays:
            loop.call_later(delay, callback)
        await done
        elapsed += clock() - start
    return elapsed


ROWS = (
    Row("call_later+cancel", later_and_cancel),
    Row("10k sleeps", sleeps, operations=SLEEPERS),
    Row("1M timers", million, operations=MILLION, heavy=True),
)
