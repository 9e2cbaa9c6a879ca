"""Memory: the growth of the resident set for each of very many objects that wait."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from benchmarks.rows._row import Row

MANY = 200_000
FAR = 100_000.0


class Cancellable(Protocol):
    """A task or a timer."""

    def cancel(self) -> object: ...


def _resident() -> int:
    """The resident set in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def _growth(make: Callable[[], Cancellable]) -> int:
    """What `MANY` of what `make` makes add to the process, once the loop has started them."""
    first = [make() for _ in range(1000)]
    kept = [first[0]] * MANY
    await asyncio.sleep(0.01)
    gc.collect()
    before = _resident()
    for index in range(MANY):
        kept[index] = make()
    # Two turns: the tasks' first steps, and whatever these may have scheduled.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    growth = _resident() - before
    for item in first + kept:
        item.cancel()
    await asyncio.sleep(0)
    return growth


async def waiting_task(_count: int) -> int:
    """A task that waits for a future of its own."""
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        await loop.create_future()

    return await _growth(lambda: asyncio.create_task(wait()))


async def sleeping_task(_count: int) -> int:
    """A task in `asyncio.sleep`."""
    return await _growth(lambda: asyncio.create_task(asyncio.sleep(FAR)))


async def timer(_count: int) -> int:
    """A timer that is far away."""
    loop = asyncio.get_running_loop()

    def callback() -> None:
        pass

    return await _growth(lambda: loop.call_later(FAR, callback))


ROWS = (
    Row("memory per waiting task", waiting_task, MANY, "memory", "bytes", fresh=True),
    Row("memory per sleeping task", sleeping_task, MANY, "memory", "bytes", fresh=True),
    Row("memory per timer", timer, MANY, "memory", "bytes", fresh=True),
)
