"""Tasks, and the functions that wait for many of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from benchmarks.rows._row import Row, clock

MANY = 10_000
ITEMS = 3


async def noop() -> None:
    """End without having waited."""


async def sleep_zero(count: int) -> int:
    """Give way to the loop, and come back."""
    start = clock()
    for _ in range(count):
        await asyncio.sleep(0)
    return clock() - start


async def create_and_await(count: int) -> int:
    """Start a task and wait for its end."""
    start = clock()
    for _ in range(count):
        await asyncio.create_task(noop())
    return clock() - start


async def gather_noop(count: int) -> int:
    """Gather coroutines that end at once."""
    start = clock()
    for _ in range(count):
        await asyncio.gather(*[noop() for _ in range(MANY)])
    return clock() - start


async def gather_sleep_zero(count: int) -> int:
    """Gather coroutines that give way once."""
    start = clock()
    for _ in range(count):
        await asyncio.gather(*[asyncio.sleep(0) for _ in range(MANY)])
    return clock() - start


async def task_group(count: int) -> int:
    """The same number of tasks in a TaskGroup."""
    start = clock()
    for _ in range(count):
        async with asyncio.TaskGroup() as group:
            for _ in range(MANY):
                group.create_task(noop())
    return clock() - start


async def wait(count: int) -> int:
    """`asyncio.wait` for all of them."""
    start = clock()
    for _ in range(count):
        await asyncio.wait([asyncio.create_task(noop()) for _ in range(MANY)])
    return clock() - start


async def as_completed(count: int) -> int:
    """`asyncio.as_completed` over all of them."""
    start = clock()
    for _ in range(count):
        for earliest in asyncio.as_completed([noop() for _ in range(MANY)]):
            await earliest
    return clock() - start


async def eager_create_and_await(count: int) -> int:
    """Start a task eagerly, which ends at once."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    return await create_and_await(count)


async def eager_task_group(count: int) -> int:
    """Eager tasks that give way once."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    start = clock()
    for _ in range(count):
        async with asyncio.TaskGroup() as group:
            for _ in range(MANY):
                group.create_task(asyncio.sleep(0))
    return clock() - start


async def _items() -> AsyncIterator[int]:
    for item in range(ITEMS):
        yield item


async def async_generators(count: int) -> int:
    """Make an asynchronous generator of three items and exhaust it."""
    start = clock()
    for _ in range(count):
        async for _item in _items():
            pass
    return clock() - start


ROWS: tuple[Row, ...] = (
    Row("sleep(0)", sleep_zero),
    Row("create_task+await", create_and_await),
    Row("gather 10k noop", gather_noop, operations=MANY),
    Row("gather 10k sleep0", gather_sleep_zero, operations=MANY),
    Row("TaskGroup 10k", task_group, operations=MANY),
    Row("wait 10k", wait, operations=MANY),
    Row("as_completed 10k", as_completed, operations=MANY),
    Row("async generators", async_generators),
)

if sys.version_info >= (3, 12):
    ROWS += (
        Row("eager create_task+await", eager_create_and_await),
        Row("eager TaskGroup 10k", eager_task_group, operations=MANY),
    )
