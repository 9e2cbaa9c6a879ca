"""Work that crosses threads."""

from __future__ import annotations

import asyncio
import threading

from benchmarks.rows._row import Row, clock

BATCH = 1_000


async def to_thread(count: int) -> int:
    """Run a function in the executor and wait for it."""

    def work() -> None:
        pass

    await asyncio.to_thread(work)
    start = clock()
    for _ in range(count):
        await asyncio.to_thread(work)
    return clock() - start


async def threadsafe_own(count: int) -> int:
    """`call_soon_threadsafe` from the loop's own thread, a thousand calls a turn."""
    loop = asyncio.get_running_loop()

    def callback() -> None:
        pass

    start = clock()
    for _ in range(count):
        done = loop.create_future()
        for _ in range(BATCH - 1):
            loop.call_soon_threadsafe(callback)
        loop.call_soon_threadsafe(done.set_result, None)
        await done
    return clock() - start


async def threadsafe_foreign(count: int) -> int:
    """`call_soon_threadsafe` from another thread; the loop's thread sleeps when it has no work."""
    loop = asyncio.get_running_loop()

    def callback() -> None:
        pass

    def post() -> None:
        for _ in range(count * BATCH - 1):
            loop.call_soon_threadsafe(callback)
        loop.call_soon_threadsafe(done.set_result, None)

    done = loop.create_future()
    thread = threading.Thread(target=post)
    start = clock()
    thread.start()
    await done
    elapsed = clock() - start
    thread.join()
    return elapsed


ROWS = (
    Row("to_thread", to_thread),
    Row("call_soon_threadsafe", threadsafe_own, operations=BATCH),
    Row("threadsafe from a thread", threadsafe_foreign, operations=BATCH),
)
