"""Cancelled at every await: each scenario is run again and again and cancelled one turn later.

Wherever the cancellation falls, the task ends, what it held is free again, nothing stays pending,
and every loop gives the same answer. `tests/test_twins.py` compares random programs; these are the
ones that people write.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from backends import PY313, Backend, asyncio_backend
from turns import Clock

pytestmark = pytest.mark.slow

Scenario = Callable[[], Awaitable[Any]]
SCENARIOS: dict[str, Scenario] = {}
MOST_TURNS = 60


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


async def soon(value: Any = None, turns: int = 2) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


# -- what people write -----------------------------------------------------------------------------


@scenario
async def plain_awaits() -> str:
    await soon()
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, "value")
    first = await future
    return f"{first} {await asyncio.ensure_future(soon('task'))}"


@scenario
async def sleeps() -> str:
    for delay in (0, 1.5, 0, 2.5):
        await asyncio.sleep(delay)
    return "slept"


@scenario
async def cleanup_that_awaits() -> str:
    log = []
    try:
        await soon()
        await asyncio.sleep(1.5)
    finally:
        log.append("begin")
        await soon()
        log.append("end")
    return " ".join(log)


@scenario
async def cancellation_refused_once() -> str:
    try:
        await asyncio.sleep(2.5)
    except asyncio.CancelledError:
        await soon()
        return "refused"
    return "slept"


@scenario
async def gathered() -> list[Any]:
    return list(
        await asyncio.gather(
            soon(1), asyncio.sleep(1.5, 2), soon(3, turns=5), return_exceptions=True
        )
    )


@scenario
async def gathered_with_a_failure() -> str:
    async def fail() -> None:
        await soon()
        raise ValueError

    try:
        await asyncio.gather(soon(turns=6), fail(), asyncio.sleep(3.5))
    except ValueError:
        return "failed"
    return "?"


@scenario
async def task_group() -> int:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(soon(number, turns=number)) for number in range(5)]
        tasks.append(group.create_task(asyncio.sleep(2.5, 10)))
        await soon()
    return sum(task.result() for task in tasks)


@scenario
async def task_group_with_a_failure() -> str:
    async def fail() -> None:
        await soon()
        raise ValueError("child")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(asyncio.sleep(5.5))
            await asyncio.sleep(6.5)
    except ExceptionGroup as group_error:
        return repr(group_error.exceptions)
    return "?"


@scenario
async def nested_task_groups() -> str:
    async with asyncio.TaskGroup() as outer:
        outer.create_task(soon(turns=3))
        async with asyncio.TaskGroup() as inner:
            inner.create_task(soon(turns=2))
            inner.create_task(asyncio.sleep(1.5))
        await soon()
    return "nested"


@scenario
async def timeouts() -> str:
    seen = []
    try:
        async with asyncio.timeout(1.5):
            await asyncio.sleep(10.5)
    except TimeoutError:
        seen.append("timeout")
    async with asyncio.timeout(10):
        await soon()
        seen.append("in time")
    return " ".join(seen)


@scenario
async def waited_for() -> str:
    seen = [await asyncio.wait_for(soon("in time"), 10)]
    try:
        await asyncio.wait_for(asyncio.sleep(10.5), 1.5)
    except TimeoutError:
        seen.append("timeout")
    return " ".join(seen)


@scenario
async def waited() -> int:
    tasks = [asyncio.ensure_future(soon(number, turns=number)) for number in range(4)]
    try:
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done |= (await asyncio.wait(pending))[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return len(done)


@scenario
async def shielded() -> Any:
    inner = asyncio.ensure_future(soon("inner", turns=6))
    try:
        return await asyncio.shield(inner)
    except asyncio.CancelledError:
        await inner
        raise


@scenario
async def as_they_complete() -> list[Any]:
    tasks = [asyncio.ensure_future(soon(number, turns=number)) for number in range(4)]
    try:
        return [await each for each in asyncio.as_completed(tasks)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@scenario
async def queue() -> int:
    items: asyncio.Queue[int] = asyncio.Queue(2)

    async def produce() -> None:
        for number in range(6):
            await items.put(number)

    producer = asyncio.ensure_future(produce())
    try:
        return sum([await items.get() for _ in range(6)])
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)


@scenario
async def locks() -> str:
    lock = asyncio.Lock()
    order: list[int] = []

    async def use(number: int) -> None:
        async with lock:
            order.append(number)
            await soon()

    users = [asyncio.ensure_future(use(number)) for number in range(3)]
    try:
        async with lock:
            await soon()
        await asyncio.gather(*users)
    finally:
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)
        assert not lock.locked()
    return repr(order)


@scenario
async def semaphore() -> int:
    gate = asyncio.Semaphore(2)
    inside = most = 0

    async def use() -> None:
        nonlocal inside, most
        async with gate:
            inside += 1
            most = max(most, inside)
            try:
                await soon()
            finally:
                inside -= 1

    users = [asyncio.ensure_future(use()) for _ in range(6)]
    try:
        await asyncio.gather(*users)
    finally:
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)
        assert not gate.locked()
        assert inside == 0
    return most


@scenario
async def condition() -> str:
    condition = asyncio.Condition()
    ready = False

    async def make_ready() -> None:
        nonlocal ready
        await soon()
        async with condition:
            ready = True
            condition.notify_all()

    maker = asyncio.ensure_future(make_ready())
    try:
        async with condition:
            await condition.wait_for(lambda: ready)
    finally:
        assert not condition.locked() or not maker.done()
        maker.cancel()
        await asyncio.gather(maker, return_exceptions=True)
    return "ready"


@scenario
async def event_and_barrier() -> str:
    event, barrier = asyncio.Event(), asyncio.Barrier(2)

    async def other() -> None:
        event.set()
        await barrier.wait()

    task = asyncio.ensure_future(other())
    try:
        await event.wait()
        await barrier.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return "met"


@scenario
async def asynchronous_generator() -> list[int]:
    closed: list[str] = []

    async def generate() -> AsyncIterator[int]:
        try:
            for number in range(4):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    made = generate()
    async with contextlib.aclosing(made):
        seen = [number async for number in made]
    assert closed
    return seen


@scenario
async def context_manager_stack() -> str:
    log: list[str] = []

    @contextlib.asynccontextmanager
    async def resource(name: str) -> AsyncIterator[None]:
        await soon(turns=1)
        log.append(f"+{name}")
        try:
            yield
        finally:
            await soon(turns=1)
            log.append(f"-{name}")

    try:
        async with contextlib.AsyncExitStack() as stack:
            for name in "abc":
                await stack.enter_async_context(resource(name))
            await soon()
    finally:
        # Whatever was opened has been closed, in reverse.
        opened = [entry[1] for entry in log if entry[0] == "+"]
        shut = [entry[1] for entry in log if entry[0] == "-"]
        assert shut == opened[::-1], log
    return "".join(log)


@scenario
async def worker_pool() -> int:
    jobs: asyncio.Queue[int] = asyncio.Queue()
    done: list[int] = []

    async def work() -> None:
        while True:
            number = await jobs.get()
            try:
                await soon(turns=number % 3)
                done.append(number)
            finally:
                jobs.task_done()

    workers = [asyncio.ensure_future(work()) for _ in range(3)]
    try:
        for number in range(9):
            jobs.put_nowait(number)
        await jobs.join()
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return len(done)


# -- the runs --------------------------------------------------------------------------------------


def run_cancelled(backend: Backend, name: str, cancels: tuple[int, ...]) -> tuple[Any, ...]:
    """Run the scenario, cancel it after so many turns (and again), and say how it ended."""
    loop = backend.new_event_loop()
    clock = Clock()
    loop.time = clock  # type: ignore[method-assign]
    complaints: list[str] = []

    def complain(_: Any, context: dict[str, Any]) -> None:
        # In debug mode the frames of the loop's own code are in it.
        context.pop("source_traceback", None)
        complaints.append(repr(context))

    loop.set_exception_handler(complain)
    task = loop.create_task(SCENARIOS[name]())  # type: ignore[arg-type]
    turn = 0
    while not task.done() and turn < MOST_TURNS:
        for when in cancels:
            if when == turn:
                task.cancel(f"in turn {turn}")
        loop.call_soon(loop.stop)
        loop.run_forever()
        clock.now += 1
        turn += 1
    assert task.done(), f"{name} cancelled in {cancels} never ends: {task!r}"
    # What a refused cancellation left over needs a few turns more.
    for _ in range(10):
        loop.call_soon(loop.stop)
        loop.run_forever()
        clock.now += 1
    pending = asyncio.all_tasks(loop)
    assert not pending, f"{name} cancelled in {cancels} leaves {pending}"
    if task.cancelled():
        with pytest.raises(asyncio.CancelledError) as caught:
            task.result()
        end: tuple[Any, ...] = ("cancelled", caught.value.args)
    elif (error := task.exception()) is not None:
        end = ("failed", repr(error))
    else:
        end = ("finished", task.result())
    del task
    gc.collect(1)
    loop.close()
    return (turn, *end, complaints)


@pytest.mark.parametrize("name", SCENARIOS)
def test_in_every_turn(backend: Backend, name: str) -> None:
    stock = asyncio_backend()
    turns = run_cancelled(stock, name, ())[0]
    assert turns < MOST_TURNS
    for when in range(turns + 1):
        assert run_cancelled(backend, name, (when,)) == run_cancelled(stock, name, (when,)), when


@pytest.mark.parametrize("name", SCENARIOS)
def test_twice(backend: Backend, name: str) -> None:
    """Again in the same turn, in the next, and in the one after: cleanup is cancelled too."""
    stock = asyncio_backend()
    turns = run_cancelled(stock, name, ())[0]
    for when in range(turns + 1):
        for gap in (0, 1, 2):
            cancels = (when, when + gap)
            assert run_cancelled(backend, name, cancels) == run_cancelled(stock, name, cancels)


def test_locks_are_fair_and_never_lost(backend: Backend) -> None:
    """A thousand users of a lock, a semaphore and a queue, one in three cancelled at random."""
    chance = random.Random(3)

    async def main() -> None:
        lock, gate = asyncio.Lock(), asyncio.Semaphore(3)
        queue: asyncio.Queue[int] = asyncio.Queue()
        inside = 0
        got: list[int] = []

        async def use() -> None:
            nonlocal inside
            async with gate, lock:
                inside += 1
                assert inside == 1
                try:
                    await asyncio.sleep(0)
                finally:
                    inside -= 1
            got.append(await queue.get())

        users = [asyncio.ensure_future(use()) for _ in range(1000)]
        given = 0
        while not all(user.done() for user in users):
            for _ in range(5):
                chance.choice(users).cancel()
            queue.put_nowait(given)
            given += 1
            await asyncio.sleep(0)
        assert not lock.locked()
        assert not gate.locked()
        # No item went to somebody who was cancelled.
        left = [queue.get_nowait() for _ in range(queue.qsize())]
        assert sorted(got + left) == list(range(given))
        finished = [user for user in users if not user.cancelled()]
        assert len(got) == len(finished)

    backend.run(main())


def test_sockets_cancelled_at_random(backend: Backend) -> None:
    """sock_recv, sock_sendall, sock_accept and sock_connect, cancelled in any turn."""
    chance = random.Random(4)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener = socket.socket()
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)

        async def connect() -> None:
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, listener.getsockname())
                await loop.sock_recv(sock, 10)

        async def accept() -> None:
            sock, _ = await loop.sock_accept(listener)
            with sock:
                await loop.sock_sendall(sock, b"hello")

        for _ in range(300):
            kind = chance.choice([connect, accept])
            tasks = [
                asyncio.ensure_future(kind()),
                asyncio.ensure_future(loop.sock_recv(left, 10)),
                asyncio.ensure_future(loop.sock_sendall(right, b"x" * chance.randrange(10))),
            ]
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        # No watcher is left on any of them.
        assert not loop.remove_reader(left)
        assert not loop.remove_writer(right)
        assert not loop.remove_reader(listener)
        for sock in (listener, left, right):
            sock.close()

    backend.run(main())


def test_threads_cancelled_at_random(backend: Backend) -> None:
    chance = random.Random(5)

    async def main() -> None:
        for _ in range(200):
            task = asyncio.ensure_future(asyncio.to_thread(sum, range(1000)))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.7:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert await task == sum(range(1000))

    backend.run(main())


@pytest.mark.skipif(not PY313, reason="uncancel of an undelivered request is exact since 3.13")
def test_cancel_and_uncancel_at_random(backend: Backend) -> None:
    chance = random.Random(6)

    async def main() -> None:
        async def work() -> str:
            task = asyncio.current_task()
            assert task is not None
            for _ in range(20):
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    while task.uncancel():
                        pass
            return "done"

        tasks = [asyncio.ensure_future(work()) for _ in range(100)]
        while not all(task.done() for task in tasks):
            for _ in range(30):
                chance.choice(tasks).cancel()
            await asyncio.sleep(0)
        assert [task for task in tasks if not task.cancelled() and task.result() != "done"] == []

    backend.run(main())
