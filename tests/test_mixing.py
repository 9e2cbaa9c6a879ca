"""Stock C futures and tasks beside Weft's own, on either kind of loop, waiting for each other."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from backends import BACKENDS, PY312, Backend
from turns import turn

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Kinds = dict[str, Any]


def python_types() -> Kinds:
    """The pure-Python classes of asyncio: third implementation, same protocol."""
    return {
        "py future": asyncio.futures._PyFuture,  # type: ignore[attr-defined]
        "py task": asyncio.tasks._PyTask,  # type: ignore[attr-defined]
    }


@pytest.fixture
def kinds(request: pytest.FixtureRequest) -> Kinds:
    """Every implementation at hand: stock C, pure Python and, where it is asked for, Weft's."""
    found: Kinds = {"c future": asyncio.Future, "c task": asyncio.Task, **python_types()}
    for name in request.config.getoption("--loops").split(","):
        if name != "asyncio":
            other = BACKENDS[name]()
            found |= {f"{name} future": other.Future, f"{name} task": other.Task}
    return found


@pytest.fixture
def pairs(kinds: Kinds) -> list[tuple[str, Any, str, Any]]:
    """Each kind of task with each kind of future or task to wait for."""
    tasks = {name: kind for name, kind in kinds.items() if name.endswith("task")}
    return [(a, tasks[a], b, kinds[b]) for a, b in itertools.product(tasks, kinds)]


async def result(value: Any, turns: int = 1) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


def make(kind: Any, name: str, loop: asyncio.AbstractEventLoop, value: Any) -> Any:
    """A future or task of this kind that gives `value` after a turn or so."""
    if name.endswith("task"):
        return kind(result(value), loop=loop)
    future = kind(loop=loop)
    loop.call_soon(lambda: None if future.done() else future.set_result(value))
    return future


def test_waiting_for_each_other(
    loop: asyncio.AbstractEventLoop, pairs: list[tuple[str, Any, str, Any]]
) -> None:
    async def wait(thing: Any) -> Any:
        return await thing

    for task_name, task_kind, name, kind in pairs:
        task = task_kind(wait(make(kind, name, loop, name)), loop=loop)
        assert loop.run_until_complete(task) == name, (task_name, name)


def test_errors_cross(
    loop: asyncio.AbstractEventLoop, pairs: list[tuple[str, Any, str, Any]]
) -> None:
    async def fail(error: Exception) -> None:
        await asyncio.sleep(0)
        raise error

    async def wait(thing: Any) -> Any:
        await thing

    for _, task_kind, name, kind in pairs:
        error = LookupError(name)
        if name.endswith("task"):
            thing = kind(fail(error), loop=loop)
        else:
            thing = kind(loop=loop)
            loop.call_soon(thing.set_exception, error)
        with pytest.raises(LookupError) as caught:
            loop.run_until_complete(task_kind(wait(thing), loop=loop))
        assert caught.value is error


def test_cancellation_crosses(
    loop: asyncio.AbstractEventLoop, pairs: list[tuple[str, Any, str, Any]]
) -> None:
    async def forever() -> None:
        await loop.create_future()

    async def wait(thing: Any) -> Any:
        await thing

    for task_name, task_kind, name, kind in pairs:
        thing = kind(forever(), loop=loop) if name.endswith("task") else kind(loop=loop)
        task = task_kind(wait(thing), loop=loop)
        turn(loop, 2)
        assert task._fut_waiter is thing
        task.cancel("message")
        with pytest.raises(asyncio.CancelledError) as caught:
            loop.run_until_complete(task)
        assert caught.value.args == ("message",), (task_name, name)
        assert thing.cancelled()


def test_cancelled_from_below(
    loop: asyncio.AbstractEventLoop, pairs: list[tuple[str, Any, str, Any]]
) -> None:
    async def forever() -> None:
        await loop.create_future()

    async def wait(thing: Any) -> Any:
        await thing

    for task_name, task_kind, name, kind in pairs:
        thing = kind(forever(), loop=loop) if name.endswith("task") else kind(loop=loop)
        task = task_kind(wait(thing), loop=loop)
        turn(loop, 2)
        thing.cancel("below")
        with pytest.raises(asyncio.CancelledError) as caught:
            loop.run_until_complete(task)
        assert caught.value.args == ("below",), (task_name, name)
        assert task.cancelled()


def test_done_already(
    loop: asyncio.AbstractEventLoop, pairs: list[tuple[str, Any, str, Any]]
) -> None:
    async def wait(thing: Any) -> Any:
        return await thing

    for _, task_kind, name, kind in pairs:
        thing = make(kind, name, loop, "value")
        turn(loop, 4)
        assert thing.done()
        task = task_kind(wait(thing), loop=loop)
        turn(loop)
        assert task.done(), (task.get_name(), name)
        assert task.result() == "value"


def test_order_is_one_for_all_kinds(loop: asyncio.AbstractEventLoop, kinds: Kinds) -> None:
    seen: list[str] = []

    async def work(name: str) -> None:
        for number in range(3):
            seen.append(f"{name} {number}")
            await asyncio.sleep(0)

    names = [name for name in kinds if name.endswith("task")] * 2
    tasks = [kinds[name](work(name), loop=loop) for name in names]
    for task in tasks:
        loop.run_until_complete(task)
    assert seen == [f"{name} {number}" for number in range(3) for name in names]


def test_waking_order_is_one_for_all_kinds(loop: asyncio.AbstractEventLoop, kinds: Kinds) -> None:
    for future_name in (name for name in kinds if name.endswith("future")):
        seen: list[str] = []
        future = kinds[future_name](loop=loop)

        async def work(name: str, future: Any = future, seen: list[str] = seen) -> None:
            await future
            seen.append(name)

        names = [name for name in kinds if name.endswith("task")] * 3
        tasks = []
        for name in names:
            tasks.append(kinds[name](work(name), loop=loop))
            turn(loop)
            future.add_done_callback(lambda _, name=name, seen=seen: seen.append(f"after {name}"))
        future.set_result(None)
        turn(loop, 2)
        assert seen == [line for name in names for line in (name, f"after {name}")], future_name
        assert all(task.done() for task in tasks)


def test_gather_wait_shield_of_all_kinds(loop: asyncio.AbstractEventLoop, kinds: Kinds) -> None:
    async def main() -> None:
        things = [make(kind, name, loop, name) for name, kind in kinds.items()]
        assert await asyncio.gather(*things) == list(kinds)
        things = [make(kind, name, loop, name) for name, kind in kinds.items()]
        done, pending = await asyncio.wait(things, timeout=5)
        assert done == set(things)
        assert not pending
        for name, kind in kinds.items():
            assert await asyncio.shield(make(kind, name, loop, name)) == name
            assert await asyncio.wait_for(make(kind, name, loop, name), 5) == name
        things = [make(kind, name, loop, name) for name, kind in kinds.items()]
        assert {await each for each in asyncio.as_completed(things)} == set(kinds)

    loop.run_until_complete(main())


def test_all_are_futures(loop: asyncio.AbstractEventLoop, kinds: Kinds) -> None:
    for name, kind in kinds.items():
        thing = make(kind, name, loop, 1)
        assert asyncio.isfuture(thing)
        assert asyncio.ensure_future(thing, loop=loop) is thing
        assert asyncio.wrap_future(thing, loop=loop) is thing
        assert loop.run_until_complete(thing) == 1


def test_run_until_complete_of_all_kinds(loop: asyncio.AbstractEventLoop, kinds: Kinds) -> None:
    for name, kind in kinds.items():
        assert loop.run_until_complete(make(kind, name, loop, name)) == name


def test_current_task_of_all_kinds(loop: asyncio.AbstractEventLoop, kinds: Kinds) -> None:
    async def look() -> Any:
        await asyncio.sleep(0)
        return asyncio.current_task()

    for name, kind in kinds.items():
        if not name.endswith("task"):
            continue
        if name.startswith("py"):
            # Pure-Python tasks tell the pure-Python functions; from 3.12 on both ask one place,
            # and 3.14 parts them again.
            continue
        task = kind(look(), loop=loop)
        assert loop.run_until_complete(task) is task, name


def test_all_tasks_of_all_kinds(loop: asyncio.AbstractEventLoop, kinds: Kinds) -> None:
    tasks = [kind(result(1), loop=loop) for name, kind in kinds.items() if name.endswith("task")]
    seen = asyncio.all_tasks(loop)
    for task in tasks:
        if not type(task).__module__.startswith("asyncio") or type(task) is asyncio.Task:
            assert task in seen
    turn(loop, 3)
    assert not asyncio.all_tasks(loop) & set(tasks)


def test_futures_of_one_kind_in_the_api_of_the_loop(
    loop: asyncio.AbstractEventLoop, kinds: Kinds
) -> None:
    """The loop waits for whatever its own methods were handed."""
    for name, kind in kinds.items():
        thing = make(kind, name, loop, name)
        seen: list[Any] = []
        thing.add_done_callback(lambda done, seen=seen: seen.append(done.result()))
        loop.run_until_complete(thing)
        turn(loop)
        assert seen == [name]


class TestOtherLoop:
    """Weft's futures and tasks on a loop of asyncio's, and the other way round."""

    @pytest.fixture
    def stock_loop(self) -> Iterator[asyncio.AbstractEventLoop]:
        loop = asyncio.SelectorEventLoop()
        yield loop
        loop.close()

    def test_task_and_future(self, backend: Backend, stock_loop: asyncio.AbstractEventLoop) -> None:
        future = backend.Future(loop=stock_loop)

        async def main() -> Any:
            assert asyncio.current_task() is task
            assert task in asyncio.all_tasks()
            await asyncio.sleep(0)
            return await future

        task = backend.Task(main(), loop=stock_loop)
        stock_loop.call_later(0.001, future.set_result, "value")
        assert stock_loop.run_until_complete(task) == "value"
        assert asyncio.all_tasks(stock_loop) == set()

    def test_callbacks_order(self, backend: Backend, stock_loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []
        future = backend.Future(loop=stock_loop)
        for number in range(3):
            future.add_done_callback(lambda _, n=number: seen.append(n))
        future.set_result(None)
        turn(stock_loop)
        assert seen == [0, 1, 2]

    def test_cancel(self, backend: Backend, stock_loop: asyncio.AbstractEventLoop) -> None:
        future = backend.Future(loop=stock_loop)

        async def main() -> Any:
            await future

        task = backend.Task(main(), loop=stock_loop)
        turn(stock_loop)
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError) as caught:
            stock_loop.run_until_complete(task)
        assert caught.value.args == ("why",)
        assert future.cancelled()

    @pytest.mark.skipif(not PY312, reason="eager tasks came with 3.12")
    def test_eager(self, backend: Backend, stock_loop: asyncio.AbstractEventLoop) -> None:
        stock_loop.set_task_factory(asyncio.create_eager_task_factory(backend.Task))

        async def child() -> Any:
            return asyncio.current_task()

        async def main() -> None:
            task = asyncio.create_task(child())
            assert task.done()
            assert await task is task

        stock_loop.run_until_complete(main())

    def test_two_loops_in_turn(
        self, backend: Backend, stock_loop: asyncio.AbstractEventLoop
    ) -> None:
        loop = backend.new_event_loop()
        for _ in range(5):
            assert loop.run_until_complete(result("ours")) == "ours"
            assert stock_loop.run_until_complete(result("stock")) == "stock"
        loop.close()

    def test_futures_across_threads_and_loops(
        self, backend: Backend, stock_loop: asyncio.AbstractEventLoop
    ) -> None:
        """A stock loop in a thread serves a task of ours through a concurrent future."""
        import threading

        thread = threading.Thread(target=stock_loop.run_forever)
        thread.start()
        loop = backend.new_event_loop()

        async def main() -> Any:
            remote = asyncio.run_coroutine_threadsafe(result("remote", 3), stock_loop)
            return await asyncio.wrap_future(remote)

        try:
            assert loop.run_until_complete(main()) == "remote"
        finally:
            stock_loop.call_soon_threadsafe(stock_loop.stop)
            thread.join()
            loop.close()


def test_concurrent_future_on_each(loop: asyncio.AbstractEventLoop) -> None:
    source: concurrent.futures.Future[str] = concurrent.futures.Future()

    async def main() -> str:
        loop.call_soon(source.set_result, "value")
        return await asyncio.wrap_future(source)

    assert loop.run_until_complete(main()) == "value"


def test_native_types_are_not_the_stock_ones() -> None:
    """The stock types stay what they were: nothing is patched by importing anything."""
    assert asyncio.Future is sys.modules["_asyncio"].Future
    assert asyncio.Task is sys.modules["_asyncio"].Task
