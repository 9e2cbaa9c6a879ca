"""What libraries do with the loop and with tasks. Each test says which one, and does as it does."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
import warnings
import weakref
from asyncio.base_events import _run_until_complete_cb  # type: ignore[attr-defined]
from collections.abc import Awaitable
from typing import Any, cast

import pytest
from backends import PY312, PY314, Backend
from children import program
from peers import Run

# -- tasks -----------------------------------------------------------------------------------------


def test_anyio_looks_into_a_task_that_waits(run: Run) -> None:
    """Its cancel scopes deliver a cancellation where `_must_cancel` and `_fut_waiter` allow it."""

    async def main() -> None:
        entered = asyncio.Event()

        async def waits() -> None:
            entered.set()
            await asyncio.sleep(3600)

        task: Any = asyncio.create_task(waits())
        assert task._fut_waiter is None
        assert task._must_cancel is False
        await entered.wait()
        await asyncio.sleep(0)
        assert isinstance(task._fut_waiter, asyncio.Future)
        assert not task._fut_waiter.done()
        assert task._loop is asyncio.get_running_loop()
        # To cancel is to cancel what it waits for.
        assert task.cancel()
        assert task._must_cancel is False
        assert task._fut_waiter.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_anyio_looks_into_a_task_that_is_to_be_cancelled(run: Run) -> None:
    async def main() -> None:
        async def never() -> None:
            raise AssertionError

        task: Any = asyncio.create_task(never())
        assert task.cancel()
        assert task._must_cancel is True
        assert task._fut_waiter is None
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_anyio_keeps_state_by_task_weakly(run: Run) -> None:
    """Its states of tasks are in a `WeakKeyDictionary`."""

    async def main() -> None:
        states: weakref.WeakKeyDictionary[asyncio.Task[Any], str] = weakref.WeakKeyDictionary()
        task = asyncio.create_task(asyncio.sleep(0))
        states[task] = "a state"
        reference = weakref.ref(task)
        await task
        assert states[task] == "a state"
        del task
        # The turn that ended it may hold it still.
        await asyncio.sleep(0)
        gc.collect()
        assert reference() is None
        assert not states

    run(main())


def test_anyio_finds_the_root_task_by_its_callback(backend: Backend) -> None:
    """Worker threads end with the root task, whose callback is that of `run_until_complete`."""

    async def main() -> list[Any]:
        task: Any = asyncio.current_task()
        return [callback for callback, context in task._callbacks]

    loop = backend.new_event_loop()
    try:
        assert _run_until_complete_cb in loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.skipif(not PY312, reason="eager tasks came with Python 3.12")
def test_aiohttp_builds_eager_tasks_itself(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        steps = []

        async def handler() -> str:
            steps.append(asyncio.current_task())
            await asyncio.sleep(0)
            return "done"

        kind: Any = asyncio.Task
        task = kind(handler(), loop=loop, eager_start=True)
        assert steps == [task]
        assert asyncio.current_task() is not task
        assert task in asyncio.all_tasks()
        assert await task == "done"

        async def at_once() -> int:
            return 42

        finished = kind(at_once(), loop=loop, eager_start=True)
        assert finished.done()
        assert await finished == 42

    run(main())


@pytest.mark.skipif(not PY314, reason="asyncio.create_task passes keywords on from Python 3.14 on")
def test_aiohttp_passes_eager_start_to_create_task(run: Run) -> None:
    async def main() -> None:
        begun = []

        async def handler() -> None:
            begun.append(True)

        create: Any = asyncio.create_task
        await create(handler(), name="handler", eager_start=True)
        assert begun == [True]
        task = create(handler(), eager_start=False)
        assert begun == [True]
        await task

    run(main())


def test_sentry_s_task_factory_gets_what_create_task_is_given(loop: Any) -> None:
    """It puts its own factory between, and passes on whatever keywords come."""
    seen = []

    def factory(loop: Any, coro: Any, **keywords: Any) -> asyncio.Task[Any]:
        seen.append(keywords)
        return asyncio.Task(coro, loop=loop, **keywords)

    async def answer() -> int:
        return 42

    async def main() -> None:
        assert await asyncio.create_task(answer(), name="named") == 42

    loop.set_task_factory(factory)
    loop.run_until_complete(main())
    assert len(seen) == 2
    assert loop.get_task_factory() is factory


def test_sniffio_asks_for_the_current_task(run: Run) -> None:
    """asyncio is running where `asyncio.current_task()` is not None."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert asyncio.current_task() is not None
        future = loop.create_future()
        loop.call_soon(lambda: future.set_result(asyncio.current_task()))
        assert await future is None
        assert asyncio.current_task() is not None

    run(main())


@pytest.mark.skipif(not PY314, reason="introspection came with Python 3.14")
def test_asyncio_ps_finds_the_stock_task_class(run: Run) -> None:
    """`python -m asyncio ps` and profilers read the fields that `_asyncio.Task` has."""

    async def main() -> None:
        task = asyncio.current_task()
        import _asyncio

        assert isinstance(task, _asyncio.Task)
        graph = cast(Any, asyncio).capture_call_graph()
        assert graph.future is task

    run(main())


def test_a_task_that_nobody_holds_stays(run: Run) -> None:
    """Starlette's and everybody's fire-and-forget tasks: what they wait for keeps them alive."""

    async def main() -> None:
        ready = asyncio.get_running_loop().create_future()
        heard = []

        async def listen() -> None:
            heard.append(await ready)

        asyncio.create_task(listen())
        await asyncio.sleep(0)
        gc.collect()
        ready.set_result("alive")
        await asyncio.sleep(0)
        assert heard == ["alive"]

    run(main())


def test_sentry_hears_of_exceptions_never_retrieved(loop: Any) -> None:
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    async def fail() -> None:
        raise LookupError

    async def main() -> None:
        asyncio.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()

    loop.run_until_complete(main())
    (report,) = reports
    assert report["message"] == "Task exception was never retrieved"
    assert isinstance(report["exception"], LookupError)
    assert report["future"].get_coro().__name__ == "fail"


def test_pytest_asyncio_hears_of_tasks_destroyed_pending(loop: Any) -> None:
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    async def main() -> None:
        async def waits() -> None:
            await loop.create_future()

        asyncio.create_task(waits())
        await asyncio.sleep(0)
        gc.collect()

    loop.run_until_complete(main())
    gc.collect()
    (report,) = reports
    assert report["message"] == "Task was destroyed but it is pending!"
    assert isinstance(report["task"], asyncio.Task)
    # The report keeps it alive, and 3.14 still lists it.
    report["task"]._log_destroy_pending = False


# -- time ------------------------------------------------------------------------------------------


def test_freezegun_moves_the_clock(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It replaces `time.monotonic`, and ticks by hand."""
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    async def main() -> float:
        sleeping = asyncio.ensure_future(asyncio.sleep(3600))
        await asyncio.sleep(0)
        now[0] += 3601
        before = now[0]
        await sleeping
        return loop.time() - before

    assert loop.run_until_complete(main()) == 0


def test_aiohttp_s_tests_set_the_loop_s_time(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + 7200)
    assert loop.time() - real() >= 7199

    async def main() -> None:
        called = loop.create_future()
        handle = loop.call_later(0, called.set_result, None)
        assert handle.when() - real() >= 7199
        await called

    loop.run_until_complete(main())


# -- which loop ------------------------------------------------------------------------------------


def test_uvicorn_gives_a_loop_factory(backend: Backend) -> None:
    """And so do anyio, pytest-asyncio and hypercorn, to `asyncio.Runner`."""

    async def main() -> type[asyncio.AbstractEventLoop]:
        return type(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=backend.new_event_loop) as runner:
        assert runner.run(main()) is backend.loop_class


POLICY = """
import warnings
import asyncio

async def main():
    return type(asyncio.get_running_loop())

warnings.simplefilter("ignore", DeprecationWarning)
asyncio.set_event_loop_policy(weft.EventLoopPolicy())
assert asyncio.run(main()) is weft.Loop
loop = asyncio.get_event_loop_policy().new_event_loop()
assert type(loop) is weft.Loop
loop.close()
"""


@pytest.mark.child
@pytest.mark.backends("weft")
def test_gunicorn_s_workers_set_a_policy(backend: Backend) -> None:
    program(backend, "import weft\n" + POLICY).check()


@pytest.mark.child
@pytest.mark.backends("weft")
def test_no_deprecated_name_is_touched(backend: Backend) -> None:
    """pytest's `-W error`: importing and running must not warn of policies (Python 3.14)."""
    source = """
import warnings
warnings.simplefilter("error")
import weft
async def main():
    return 42
assert weft.run(main()) == 42
import asyncio
with asyncio.Runner(loop_factory=weft.new_event_loop) as runner:
    assert runner.run(main()) == 42
"""
    program(backend, source).check()


# -- private attributes ----------------------------------------------------------------------------


def test_ray_asks_for_the_thread(loop: Any) -> None:
    """`_thread_id` is that of the thread in which the loop runs, and None where it does not."""
    assert loop._thread_id is None

    async def main() -> None:
        assert loop._thread_id == threading.get_ident()

    loop.run_until_complete(main())
    assert loop._thread_id is None


def test_prompt_toolkit_asks_whether_something_is_ready(loop: Any) -> None:
    """Its input hooks run a loop inside this one while `_ready` is empty."""
    assert not loop._ready
    assert not loop._scheduled
    assert len(loop._ready) == 0


def test_nest_asyncio_like_patches_look_for_a_base_event_loop(loop: Any) -> None:
    """They refuse what is no `asyncio.BaseEventLoop`, and read `_selector` and `_run_once`."""
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert loop._selector is not None
    assert callable(loop._run_once)


def test_wrappers_ask_for_coroutine_functions() -> None:
    """FastAPI, pytest-asyncio, tenacity, backoff: is it to be awaited?"""
    for function in (asyncio.sleep, asyncio.wait_for, asyncio.to_thread, asyncio.wait):
        assert inspect.iscoroutinefunction(function)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert asyncio.iscoroutinefunction(function)
    queue: asyncio.Queue[int] = asyncio.Queue()
    for method in (queue.get, queue.put, queue.join, asyncio.Lock().acquire, asyncio.Event().wait):
        assert inspect.iscoroutinefunction(method)


def test_tornado_awaits_what_is_awaitable(run: Run) -> None:
    """And tells futures, coroutines and other awaitables apart by asking asyncio."""

    async def main() -> None:
        future: Awaitable[None] = asyncio.get_running_loop().create_future()
        assert asyncio.isfuture(future)
        assert not asyncio.iscoroutine(future)
        cast(Any, future).set_result(None)
        await future
        sleeping = asyncio.sleep(0)
        assert asyncio.iscoroutine(sleeping)
        assert inspect.isawaitable(sleeping)
        await sleeping

    run(main())
