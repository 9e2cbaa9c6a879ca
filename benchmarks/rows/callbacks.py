"""Plain callbacks: what everything else is made of."""

from __future__ import annotations

import asyncio

from benchmarks.rows._row import Row, clock

BATCH = 10_000


async def chain(count: int) -> int:
    """Each callback schedules the next: one turn of the loop per callback."""
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon
    done = loop.create_future()
    remaining = count

    def step() -> None:
        nonlocal remaining
        remaining -= 1
        if remaining:
            call_soon(step)
        else:
            done.set_result(None)

    start = clock()
    call_soon(step)
    await done
    return clock() - start


async def batch(count: int) -> int:
    """Ten thousand callbacks in one turn."""
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon

    def callback() -> None:
        pass

    start = clock()
    for _ in range(count):
        done = loop.create_future()
        for _ in range(BATCH - 1):
            call_soon(callback)
        call_soon(done.set_result, None)
        await done
    return clock() - start


async def with_arguments(count: int) -> int:
    """Ten thousand callbacks with three arguments each, in one turn."""
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon

    def callback(first: int, second: str, third: object) -> None:
        pass

    start = clock()
    for _ in range(count):
        done = loop.create_future()
        for number in range(BATCH - 1):
            call_soon(callback, number, "second", None)
        call_soon(done.set_result, None)
        await done
    return clock() - start


async def future_set_await(count: int) -> int:
    """A future that is awaited before a callback sets its result."""
    loop = asyncio.get_running_loop()
    start = clock()
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
    return clock() - start


ROWS = (
    Row("call_soon chain", chain),
    Row("call_soon batch", batch, operations=BATCH),
    Row("call_soon with arguments", with_arguments, operations=BATCH),
    Row("future set/await", future_set_await),
)
