"""What libraries do with queues, locks, and what waits for several things."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Any, cast

import pytest
from backends import PY313
from peers import Run, pass_turns
from places import PLACES, Place, name_of

each_place = pytest.mark.parametrize("place", PLACES, ids=name_of)


@each_place
def test_scrapy_s_queues_override_how_items_are_kept(place: Place) -> None:
    """A queue without duplicates overrides `_init`, `_put` and `_get`."""

    class Unique(place.classes.Queue):  # type: ignore[misc, name-defined]
        def _init(self, maxsize: int) -> None:
            self._queue: OrderedDict[Any, None] = OrderedDict()

        def _put(self, item: Any) -> None:
            self._queue[item] = None

        def _get(self) -> Any:
            return self._queue.popitem(last=False)[0]

    async def main() -> None:
        queue = Unique(maxsize=2)
        queue.put_nowait("a")
        queue.put_nowait("a")
        assert queue.qsize() == 1
        await queue.put("b")
        assert queue.full()
        waiting = asyncio.ensure_future(queue.put("c"))
        await asyncio.sleep(0)
        assert [await queue.get(), await queue.get(), await queue.get()] == ["a", "b", "c"]
        await waiting

    place.run(main())


@each_place
def test_aio_pika_keeps_items_of_its_own_kind(place: Place) -> None:
    """`_queue` is the deque of a plain queue, and what is done to it counts."""

    async def main() -> None:
        queue = place.classes.Queue()
        for item in range(3):
            queue.put_nowait(item)
        assert isinstance(queue._queue, deque)
        queue._queue.appendleft(-1)
        assert [queue.get_nowait() for _ in range(4)] == [-1, 0, 1, 2]

    place.run(main())


@each_place
def test_producers_shut_a_queue_down(place: Place) -> None:
    """From Python 3.13 on, in asyncio; LangGraph and others end their workers so."""
    if place.is_stock and not PY313:
        pytest.skip("Queue.shutdown() came with Python 3.13")
    shut_down = place.classes.QueueShutDown

    async def main() -> None:
        queue = place.classes.Queue()
        getting = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.put_nowait("last")
        queue.shutdown()
        assert await getting == "last"
        with pytest.raises(shut_down):
            await queue.get()
        with pytest.raises(shut_down):
            queue.put_nowait("too late")

    place.run(main())


@each_place
def test_httpcore_s_pool_is_fair_under_cancellation(place: Place) -> None:
    """A semaphore's place that is given to a waiter who is cancelled goes to the next one."""

    async def main() -> None:
        semaphore = place.classes.Semaphore(1)
        await semaphore.acquire()
        order = []

        async def worker(name: str) -> None:
            async with semaphore:
                order.append(name)

        first, second, third = (asyncio.ensure_future(worker(name)) for name in "abc")
        await asyncio.sleep(0)
        semaphore.release()
        first.cancel()
        await asyncio.wait([first, second, third])
        assert first.cancelled()
        assert order == ["b", "c"]
        assert not semaphore.locked()

    place.run(main())


@each_place
def test_sqlalchemy_s_lock_survives_cancelled_waiters(place: Place) -> None:
    async def main() -> None:
        lock = place.classes.Lock()
        await lock.acquire()
        waiters = [asyncio.ensure_future(lock.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        lock.release()
        waiters[1].cancel()
        assert await waiters[2] is True
        assert lock.locked()
        lock.release()
        assert [waiter.cancelled() for waiter in waiters] == [True, True, False]

    place.run(main())


@each_place
def test_aioredis_s_wait_for_keeps_a_result(place: Place) -> None:
    """A result that comes together with the end of the time is not lost: one or the other."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        waiting = asyncio.ensure_future(place.classes.wait_for(future, 3600))
        await asyncio.sleep(0)
        future.set_result("a connection")
        assert await waiting == "a connection"
        done = loop.create_future()
        done.set_result("at once")
        assert await place.classes.wait_for(done, 0) == "at once"

    place.run(main())


@each_place
def test_asyncpg_s_wait_for_keeps_a_cancellation(place: Place) -> None:
    """What is awaited may take its time to end; who waits is cancelled all the same."""

    async def main() -> None:
        cleaned = []

        async def query() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await asyncio.sleep(0)
                cleaned.append(True)

        waiting = asyncio.ensure_future(place.classes.wait_for(query(), 3600))
        await pass_turns()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert cleaned == [True]

    place.run(main())


@each_place
@pytest.mark.skipif(not PY313, reason="an asynchronous iterator from Python 3.13 on")
def test_as_completed_gives_the_futures_back(place: Place) -> None:
    async def main() -> None:
        futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
        futures[1].set_result("second")
        asyncio.get_running_loop().call_soon(futures[0].set_result, "first")
        given = [future async for future in place.classes.as_completed(futures)]
        assert given[0] is futures[1]
        assert given[1] is futures[0]
        # And a plain iterator it is still, of awaitables.
        results = [await one for one in place.classes.as_completed(futures)]
        assert sorted(results) == ["first", "second"]

    place.run(main())


@each_place
def test_aiohttp_s_timeouts_count_cancellations(place: Place) -> None:
    """`timeout()` takes its own cancellation back, and only that."""

    async def main() -> None:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        with pytest.raises(TimeoutError):
            async with place.classes.timeout(0):
                await asyncio.get_running_loop().create_future()
        assert task.cancelling() == 0

        async def cancelled_from_outside() -> None:
            own = cast("asyncio.Task[Any]", asyncio.current_task())
            try:
                async with place.classes.timeout(3600):
                    own.cancel()
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                assert own.cancelling() == 1
                raise

        other = asyncio.ensure_future(cancelled_from_outside())
        with pytest.raises(asyncio.CancelledError):
            await other

    place.run(main())


@each_place
def test_starlette_s_task_group_counts_cancellations(place: Place) -> None:
    async def fail() -> None:
        raise LookupError

    async def main() -> None:
        task = cast("asyncio.Task[Any]", asyncio.current_task())

        async def both() -> None:
            async with place.classes.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.get_running_loop().create_future()

        with pytest.raises(ExceptionGroup) as caught:
            await both()
        assert [type(error) for error in caught.value.exceptions] == [LookupError]
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    place.run(main())


@each_place
def test_aiojobs_shields_what_must_end(place: Place) -> None:
    async def main() -> None:
        done = asyncio.get_running_loop().create_future()
        outer = place.classes.shield(done)
        waiting = asyncio.ensure_future(place.classes.wait([outer]))
        await asyncio.sleep(0)
        outer.cancel()
        await waiting
        assert not done.cancelled()
        done.set_result(None)

    place.run(main())


def test_subclasses_of_installed_classes_pass_for_asyncio_s(run: Run) -> None:
    """Janus, aiochannel and others ask `isinstance(queue, asyncio.Queue)`."""

    async def main() -> None:
        class Own(asyncio.Queue[int]):
            pass

        assert isinstance(Own(), asyncio.Queue)
        assert isinstance(asyncio.LifoQueue(), asyncio.Queue)
        assert isinstance(asyncio.BoundedSemaphore(), asyncio.Semaphore)
        lock = asyncio.Lock()
        condition = asyncio.Condition(lock)
        async with condition:
            assert lock.locked()

    run(main())
