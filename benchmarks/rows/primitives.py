"""Queues, locks and time limits."""

from __future__ import annotations

import asyncio

from benchmarks.rows._row import Row, clock

HOLDERS = 4_000
ROOM = 100


async def queue_put_get(count: int) -> int:
    """Put an item and get it again: nobody waits."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    start = clock()
    for number in range(count):
        await queue.put(number)
        await queue.get()
    return clock() - start


async def queue_handover(count: int) -> int:
    """A producer and a consumer over a queue with room for a hundred."""
    queue: asyncio.Queue[int] = asyncio.Queue(ROOM)

    async def produce() -> None:
        for number in range(count):
            await queue.put(number)

    start = clock()
    producer = asyncio.create_task(produce())
    for _ in range(count):
        await queue.get()
    elapsed = clock() - start
    await producer
    return elapsed


async def semaphore(count: int) -> int:
    """Four thousand tasks share a semaphore of ten, and give way while they hold it."""

    async def hold(limit: asyncio.Semaphore) -> None:
        async with limit:
            await asyncio.sleep(0)

    start = clock()
    for _ in range(count):
        limit = asyncio.Semaphore(10)
        await asyncio.gather(*[hold(limit) for _ in range(HOLDERS)])
    return clock() - start


async def lock(count: int) -> int:
    """`async with` a lock that is free."""
    free = asyncio.Lock()
    start = clock()
    for _ in range(count):
        async with free:
            pass
    return clock() - start


async def event(count: int) -> int:
    """Wait for an event that a callback sets."""
    loop = asyncio.get_running_loop()
    signal = asyncio.Event()
    start = clock()
    for _ in range(count):
        loop.call_soon(signal.set)
        await signal.wait()
        signal.clear()
    return clock() - start


async def condition(count: int) -> int:
    """Two tasks wake one another through a condition, in turn."""
    turn = asyncio.Condition()

    async def play(rounds: int) -> None:
        async with turn:
            for _ in range(rounds):
                turn.notify()
                await turn.wait()
            turn.notify()

    half = max(1, count // 2)
    start = clock()
    await asyncio.gather(play(half), play(half))
    elapsed = clock() - start
    return elapsed * count // (2 * half)


async def timeout(count: int) -> int:
    """`async with asyncio.timeout` around something that gives way once."""
    start = clock()
    for _ in range(count):
        async with asyncio.timeout(1000):
            await asyncio.sleep(0)
    return clock() - start


async def wait_for(count: int) -> int:
    """The same with `asyncio.wait_for`."""
    start = clock()
    for _ in range(count):
        await asyncio.wait_for(asyncio.sleep(0), 1000)
    return clock() - start


ROWS = (
    Row("Queue put/get", queue_put_get),
    Row("Queue producer/consumer", queue_handover),
    Row("Semaphore(10) 4k", semaphore, operations=HOLDERS),
    Row("Lock uncontended", lock),
    Row("Event", event),
    Row("Condition", condition),
    Row("timeout()", timeout),
    Row("wait_for", wait_for),
)
