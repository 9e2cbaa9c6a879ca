"""Very many of everything: tasks, timers, callbacks, loops; and what they weigh."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

import pytest
from backends import Backend, asyncio_backend
from children import program
from turns import Clock, turn

pytestmark = pytest.mark.slow

# Runs in a child, where nothing else takes memory: bytes per sleeping task.
WEIGH = """
import gc, json, os, sys

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

COUNT = int(sys.argv[1])

async def sleeper(delay):
    await asyncio.sleep(delay)

async def waiter(future):
    await future

async def main():
    loop = asyncio.get_running_loop()
    kinds = {
        "asleep": lambda future: sleeper(3600),
        "waiting": waiter,
    }
    weights = {}
    for name, make in kinds.items():
        # Once in small, so that caches and free lists are there already.
        for count in (1000, COUNT):
            gc.collect()
            future = loop.create_future()
            before = resident()
            tasks = [loop.create_task(make(future)) for _ in range(count)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gc.collect()
            after = resident()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            del tasks, task
        weights[name] = (after - before) / COUNT
    gc.collect()
    weights["left"] = (resident() - before) / COUNT
    print(json.dumps(weights))

run(main())
"""


def weigh(backend: Backend, count: int) -> dict[str, float]:
    source = WEIGH.replace("int(sys.argv[1])", str(count))
    weights: dict[str, float] = json.loads(program(backend, source, timeout=300).check())
    return weights


@pytest.mark.backends("weft")
@pytest.mark.parametrize("kind", ["asleep", "waiting"])
def test_a_task_weighs_less_than_asyncios(backend: Backend, kind: str) -> None:
    """100,000 at once; the coroutine, its frame and its future included."""
    count = 100_000
    ours, stock = weigh(backend, count), weigh(asyncio_backend(), count)
    print(f"bytes per task {kind}: ours {ours[kind]:.0f}, asyncio's {stock[kind]:.0f}")
    assert ours[kind] < stock[kind]


def test_a_hundred_thousand_asleep(backend: Backend) -> None:
    loop = backend.new_event_loop()
    clock = Clock()
    loop.time = clock  # type: ignore[method-assign]
    count = 100_000
    woken = 0

    async def sleeper(delay: float) -> None:
        nonlocal woken
        await asyncio.sleep(delay)
        woken += 1

    tasks = [loop.create_task(sleeper(1 + number % 1000)) for number in range(count)]
    turn(loop, 2)
    assert len(asyncio.all_tasks(loop)) == count
    assert woken == 0
    clock.now += 500.5
    turn(loop, 3)
    assert woken == count // 2
    for task in tasks[::3]:
        task.cancel()
    turn(loop, 2)
    clock.now += 1000
    turn(loop, 3)
    assert all(task.done() for task in tasks)
    assert asyncio.all_tasks(loop) == set()
    loop.close()


def test_a_hundred_thousand_waiting_for_one_future(backend: Backend) -> None:
    async def wait(future: asyncio.Future[int]) -> int:
        return await future

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        tasks = [asyncio.ensure_future(wait(future)) for _ in range(100_000)]
        await asyncio.sleep(0)
        future.set_result(7)
        assert sum(await asyncio.gather(*tasks)) == 700_000

    backend.run(main())


def test_a_million_callbacks(backend: Backend) -> None:
    loop = backend.new_event_loop()
    count = 0

    def note() -> None:
        nonlocal count
        count += 1

    for _ in range(1_000_000):
        loop.call_soon(note)
    turn(loop)
    assert count == 1_000_000
    loop.close()


def test_a_million_timers_cancelled(backend: Backend) -> None:
    """As time-outs are that never strike: memory stays where it is."""
    loop = backend.new_event_loop()

    def nothing() -> None:
        pass

    for round_ in range(100):
        handles = [loop.call_later(3600 + round_, nothing) for _ in range(10_000)]
        for handle in handles:
            handle.cancel()
        turn(loop)
    assert len(loop._scheduled) < 20_000  # type: ignore[attr-defined]
    loop.close()


def test_timers_at_random(backend: Backend) -> None:
    """A hundred thousand deadlines, half of them cancelled in any order."""
    chance = random.Random(1)
    loop = backend.new_event_loop()
    clock = Clock()
    loop.time = clock  # type: ignore[method-assign]
    seen: list[float] = []
    handles = []
    for _ in range(100_000):
        when = clock.now + chance.random() * 1000
        handles.append((when, loop.call_at(when, seen.append, when)))
    chance.shuffle(handles)
    for _, handle in handles[::2]:
        handle.cancel()
    expected = sorted(when for when, _ in handles[1::2])
    while len(seen) < len(expected):
        clock.now += chance.random() * 50
        turn(loop, 2)
        assert all(when <= clock.now + 1e-3 for when in seen[-1:])
    assert seen == expected
    loop.close()


def test_chains_of_destructors(backend: Backend) -> None:
    """Handles that hold handles, futures that hold futures: their end must not overflow the stack.

    asyncio's futures do, from some 50,000 on.
    """
    loop = backend.new_event_loop()
    chain: Any = None
    for _ in range(5_000):
        future = loop.create_future()
        future.set_result(chain)
        chain = future
    del future
    del chain
    handle: Any = None
    for _ in range(100_000):
        handle = loop.call_later(3600, print, handle)
    loop.close()
    del handle


def test_deep_chain_of_waiting_tasks_is_dropped(backend: Backend) -> None:
    """20,000 tasks, each waiting for the next, cancelled at the far end or dropped as they are."""

    async def follow(before: asyncio.Future[int]) -> int:
        return await before + 1

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for end in ("result", "cancel"):
            first = loop.create_future()
            last: asyncio.Future[int] = first
            for _ in range(20_000):
                last = asyncio.ensure_future(follow(last))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if end == "result":
                first.set_result(0)
                assert await last == 20_000
            else:
                first.cancel()
                await asyncio.wait([last])
                assert last.cancelled()
            del first, last

    backend.run(main())


def test_many_loops_at_once(backend: Backend) -> None:
    loops = [backend.new_event_loop() for _ in range(100)]
    seen: list[int] = []
    for number, loop in enumerate(loops):
        loop.call_soon(seen.append, number)
        loop.call_later(-1, seen.append, -number)
    for loop in loops:
        turn(loop, 2)
    assert sorted(seen) == sorted([*range(100), *(-n for n in range(100))])
    for loop in loops:
        loop.close()


def test_fair_between_tasks(backend: Backend) -> None:
    """A thousand tasks that spin for a while: none gets more steps than another."""

    async def main() -> None:
        steps = [0] * 1000
        stop = False

        async def spin(number: int) -> None:
            while not stop:
                steps[number] += 1
                await asyncio.sleep(0)

        tasks = [asyncio.ensure_future(spin(number)) for number in range(1000)]
        for _ in range(100):
            await asyncio.sleep(0)
        stop = True
        await asyncio.gather(*tasks)
        assert max(steps) - min(steps) <= 1

    backend.run(main())


def test_time_and_input_while_thousands_are_ready(backend: Backend) -> None:
    """Ten thousand tasks spin: a timer and a socket are served within a tenth of a second or so."""
    import socket

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stop = False

        async def spin() -> None:
            while not stop:
                await asyncio.sleep(0)

        tasks = [asyncio.ensure_future(spin()) for _ in range(10_000)]
        await asyncio.sleep(0)
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        delays = []
        for _ in range(5):
            started = time.perf_counter()
            await asyncio.sleep(0.001)
            delays.append(time.perf_counter() - started)
            started = time.perf_counter()
            right.send(b"x")
            await loop.sock_recv(left, 1)
            delays.append(time.perf_counter() - started)
        stop = True
        await asyncio.gather(*tasks)
        left.close()
        right.close()
        # One turn of ten thousand steps takes 10 ms or so on asyncio; a loaded machine more.
        assert sorted(delays)[len(delays) // 2] < 2

    backend.run(main())


def test_recursion_limit_is_untouched(backend: Backend) -> None:
    before = sys.getrecursionlimit()

    async def deeper(depth: int) -> int:
        return 1 + await deeper(depth - 1) if depth else 0

    async def main() -> int:
        return await deeper(500)

    assert backend.run(main()) == 500
    assert sys.getrecursionlimit() == before
