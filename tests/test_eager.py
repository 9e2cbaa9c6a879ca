"""Eager tasks (3.12) and task factories."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from backends import PY312, PY314, Backend
from turns import raised, turn

pytestmark = pytest.mark.skipif(not PY312, reason="eager tasks came with 3.12")

# 3.13.0 and 3.12 take no `eager_start` in create_task.
CREATE_TASK_TAKES_EAGER_START = sys.version_info >= (3, 13, 3)


@pytest.fixture(params=["own", "stock"])
def eager(
    request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop, backend: Backend
) -> Iterator[Any]:
    """The loop with an eager factory: of its own tasks, and asyncio's."""
    if request.param == "own":
        loop.set_task_factory(asyncio.create_eager_task_factory(backend.Task))
    elif loop.get_debug():
        pytest.skip("in debug mode these are asyncio's tasks")
    else:
        loop.set_task_factory(asyncio.eager_task_factory)
    yield loop
    loop.set_task_factory(None)


class TestStart:
    def test_runs_at_once_up_to_its_first_suspension(
        self, eager: asyncio.AbstractEventLoop
    ) -> None:
        seen: list[str] = []

        async def child() -> None:
            seen.append("child 1")
            await asyncio.sleep(0)
            seen.append("child 2")

        async def main() -> None:
            seen.append("main 1")
            task = asyncio.create_task(child())
            seen.append("main 2")
            assert not task.done()
            await task

        eager.run_until_complete(main())
        assert seen == ["main 1", "child 1", "main 2", "child 2"]

    def test_done_without_suspending(
        self, eager: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        async def child() -> str:
            return "result"

        async def main() -> None:
            task = asyncio.create_task(child())
            assert task.done()
            assert isinstance(task, backend.Task)
            assert task.result() == "result"
            assert await task == "result"
            assert task not in asyncio.all_tasks()

        eager.run_until_complete(main())

    def test_current_task(self, eager: asyncio.AbstractEventLoop) -> None:
        """sniffio and anyio ask for the current task inside eager steps."""
        seen: list[Any] = []

        async def grandchild() -> None:
            seen.append(asyncio.current_task())

        async def child() -> None:
            seen.append(asyncio.current_task())
            inner = asyncio.create_task(grandchild())
            seen.append(inner)
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())

        async def main() -> None:
            own = asyncio.current_task()
            task = asyncio.create_task(child())
            assert asyncio.current_task() is own
            assert seen[0] is task
            assert seen[1] is seen[2]
            assert seen[3] is task
            await task
            assert seen[4] is task

        eager.run_until_complete(main())

    def test_all_tasks_while_it_runs(self, eager: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []

        async def child() -> None:
            seen.append(asyncio.current_task() in asyncio.all_tasks())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task() in asyncio.all_tasks())

        async def main() -> None:
            task = asyncio.create_task(child())
            assert task in asyncio.all_tasks()
            await task
            assert task not in asyncio.all_tasks()

        eager.run_until_complete(main())
        assert seen == [True, True]

    def test_raises_without_suspending(self, eager: asyncio.AbstractEventLoop) -> None:
        async def child() -> None:
            raise ValueError("early")

        async def main() -> None:
            task = asyncio.create_task(child())
            assert task.done()
            with pytest.raises(ValueError, match="early"):
                await task

        eager.run_until_complete(main())

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_exits_come_out_of_create_task(
        self,
        eager: asyncio.AbstractEventLoop,
        kind: type[BaseException],
        reports: list[dict[str, Any]],
    ) -> None:
        async def child() -> None:
            raise kind

        async def main() -> str:
            with pytest.raises(kind):
                asyncio.create_task(child())
            return "survived"

        assert eager.run_until_complete(main()) == "survived"
        # Nobody got hold of the task, so its exception counts as one that nobody asked for.
        gc.collect()
        assert {report["message"] for report in reports} <= {"Task exception was never retrieved"}

    def test_cancels_itself_at_once(self, eager: asyncio.AbstractEventLoop) -> None:
        async def child() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel("early")
            await asyncio.sleep(0)

        async def main() -> None:
            task = asyncio.create_task(child())
            assert not task.done()
            with pytest.raises(asyncio.CancelledError, match="early"):
                await task
            assert task.cancelled()

        eager.run_until_complete(main())

    def test_raises_cancelled_error_at_once(self, eager: asyncio.AbstractEventLoop) -> None:
        async def child() -> None:
            raise asyncio.CancelledError("own")

        async def main() -> None:
            task = asyncio.create_task(child())
            assert task.cancelled()
            with pytest.raises(asyncio.CancelledError, match="own"):
                await task

        eager.run_until_complete(main())

    def test_callbacks_run_in_a_turn(self, eager: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []

        async def child() -> int:
            return 1

        async def main() -> None:
            task = asyncio.create_task(child())
            task.add_done_callback(seen.append)
            assert seen == []
            await asyncio.sleep(0)
            assert seen == [task]

        eager.run_until_complete(main())

    def test_garbage(self, eager: asyncio.AbstractEventLoop) -> None:
        class Odd:
            def __await__(self) -> Any:
                yield 1

        async def child() -> None:
            await Odd()

        async def main() -> None:
            task = asyncio.create_task(child())
            with pytest.raises(RuntimeError, match="Task got bad yield: 1"):
                await task

        eager.run_until_complete(main())

    def test_recursion(self, eager: asyncio.AbstractEventLoop) -> None:
        async def deeper(depth: int) -> int:
            if not depth:
                return 0
            return 1 + await asyncio.create_task(deeper(depth - 1))

        assert eager.run_until_complete(deeper(50)) == 50

    @pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
    def test_endless_recursion_is_an_error(self, eager: asyncio.AbstractEventLoop) -> None:
        """Eager steps nest on the C stack: a RecursionError must come before a crash."""

        async def deeper() -> None:
            await asyncio.create_task(deeper())

        kept = sys.getrecursionlimit()
        sys.setrecursionlimit(300)
        try:
            with pytest.raises(RecursionError):
                eager.run_until_complete(deeper())
        finally:
            sys.setrecursionlimit(kept)
        gc.collect()

    def test_gather_of_what_is_done(self, eager: asyncio.AbstractEventLoop) -> None:
        async def child(number: int) -> int:
            return number

        async def main() -> list[int]:
            return await asyncio.gather(*(child(number) for number in range(10)))

        assert eager.run_until_complete(main()) == list(range(10))

    def test_gather_of_nothing_but_done_tasks_never_suspends(
        self, eager: asyncio.AbstractEventLoop
    ) -> None:
        async def child(number: int) -> int:
            return number

        async def main() -> None:
            task = asyncio.create_task(child(1))
            with pytest.raises(StopIteration) as caught:
                task.__await__().send(None)
            assert caught.value.value == 1

        eager.run_until_complete(main())

    def test_task_group(self, eager: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []

        async def child(number: int) -> None:
            seen.append(number)
            await asyncio.sleep(0)

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(child(number))
                assert seen == [0, 1, 2]

        eager.run_until_complete(main())

    def test_name_and_repr(self, eager: asyncio.AbstractEventLoop) -> None:
        async def child() -> str:
            task = asyncio.current_task()
            assert task is not None
            return task.get_name()

        async def main() -> None:
            task = asyncio.create_task(child(), name="named")
            assert task.get_name() == "named"
            assert repr(task).startswith("<Task finished name='named' ")

        eager.run_until_complete(main())

    def test_scheduled_outside_of_a_running_loop(self, eager: asyncio.AbstractEventLoop) -> None:
        """Nothing can run eagerly before the loop runs: the task starts in its first turn."""
        seen: list[int] = []

        async def child() -> None:
            seen.append(1)

        task = eager.create_task(child())
        assert seen == []
        turn(eager)
        assert task.done()
        assert seen == [1]


class TestContext:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def test_a_copy(self, eager: asyncio.AbstractEventLoop) -> None:
        async def child() -> str:
            seen = self.variable.get()
            self.variable.set("child")
            await asyncio.sleep(0)
            assert self.variable.get() == "child"
            return seen

        async def main() -> None:
            self.variable.set("main")
            task = asyncio.create_task(child())
            assert self.variable.get() == "main"
            assert await task == "main"
            assert self.variable.get() == "main"

        eager.run_until_complete(main())

    def test_a_given_one(self, eager: asyncio.AbstractEventLoop) -> None:
        context = contextvars.Context()

        async def child() -> None:
            self.variable.set("child")

        async def main() -> None:
            await asyncio.create_task(child(), context=context)
            assert context[self.variable] == "child"
            assert self.variable.get() == "unset"

        eager.run_until_complete(main())

    @pytest.mark.backends("weft")
    def test_one_that_is_entered(
        self, eager: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        """An error for the caller. asyncio leaves the thread with a wrong current task besides."""

        async def child() -> None:
            pass

        async def main() -> None:
            own = asyncio.current_task()
            context = contextvars.copy_context()

            def inside() -> tuple[type, str]:
                coro = child()
                error = raised(asyncio.create_task, coro, context=context)
                coro.close()
                return error

            error, message = context.run(inside)
            assert error is RuntimeError
            assert "is already entered" in message
            assert asyncio.current_task() is own
            await asyncio.sleep(0)
            assert asyncio.current_task() is own

        eager.run_until_complete(main())
        gc.collect()
        assert not asyncio.all_tasks(eager)


class TestWhoever:
    """aiohttp builds `asyncio.Task(coro, loop=loop, eager_start=True)` itself: a stock C task."""

    def test_stock_eager_task_on_this_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []

        async def child() -> str:
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())
            await asyncio.sleep(0.001)
            return "result"

        async def main() -> str:
            own = asyncio.current_task()
            task = asyncio.Task(child(), loop=loop, eager_start=True)
            assert seen == [task]
            assert asyncio.current_task() is own
            assert task in asyncio.all_tasks()
            return await task

        assert loop.run_until_complete(main()) == "result"
        assert seen[0] is seen[1]

    def test_own_tasks_within_a_stock_task(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        """Whoever is interrupted by an eager step is the current task again after it."""
        seen: list[tuple[Any, Any]] = []

        async def leaf() -> None:
            seen.append((asyncio.current_task(), leaf))

        async def stock() -> None:
            own = asyncio.current_task()
            seen.append((own, stock))
            for _ in range(2):
                task = backend.Task(leaf(), loop=loop, eager_start=True)
                assert task.done()
                assert seen[-1] == (task, leaf)
                assert asyncio.current_task() is own
                await asyncio.sleep(0)
                assert asyncio.current_task() is own

        async def main() -> None:
            own = asyncio.current_task()
            task = asyncio.Task(stock(), loop=loop, eager_start=True)
            assert seen[0] == (task, stock)
            assert asyncio.current_task() is own
            await asyncio.sleep(0)
            assert asyncio.current_task() is own
            await task
            assert asyncio.current_task() is own

        loop.run_until_complete(main())
        assert len(seen) == 3

    def test_from_a_callback(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        """Where no task runs, none is the current one afterwards."""
        seen: list[Any] = []

        async def child() -> None:
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)

        def callback() -> None:
            assert asyncio.current_task() is None
            seen.append(backend.Task(child(), loop=loop, eager_start=True))
            assert asyncio.current_task() is None

        async def main() -> None:
            loop.call_soon(callback)
            own = asyncio.current_task()
            await asyncio.sleep(0)
            assert asyncio.current_task() is own
            assert seen[0] is seen[1]
            await seen[1]

        loop.run_until_complete(main())

    @pytest.mark.backends("weft")  # asyncio's own crashes on Python 3.12.1.
    def test_what_is_done_keeps_no_coroutine(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        async def at_once() -> None:
            pass

        async def later() -> None:
            await asyncio.sleep(0)

        async def main() -> None:
            task = backend.Task(at_once(), loop=loop, eager_start=True)
            assert task.get_coro() is None
            task = backend.Task(later(), loop=loop, eager_start=True)
            assert task.get_coro() is not None
            await task

        loop.run_until_complete(main())

    @pytest.mark.parametrize("wrong", [None, 3, "text"])
    def test_what_is_no_coroutine(
        self, loop: asyncio.AbstractEventLoop, backend: Backend, wrong: Any
    ) -> None:
        async def main() -> None:
            own = asyncio.current_task()
            error, message = raised(backend.Task, wrong, loop=loop, eager_start=True)
            assert error is TypeError
            assert message == f"a coroutine was expected, got {wrong!r}"
            assert asyncio.current_task() is own

        loop.run_until_complete(main())

    def test_own_eager_task(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        async def child() -> str:
            return "result"

        async def main() -> None:
            task = backend.Task(child(), loop=loop, eager_start=True)
            assert task.done()
            assert await task == "result"

        loop.run_until_complete(main())

    def test_eager_start_false(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        seen: list[int] = []

        async def child() -> None:
            seen.append(1)

        async def main() -> None:
            task = backend.Task(child(), loop=loop, eager_start=False)
            assert seen == []
            await task

        loop.run_until_complete(main())

    def test_asyncio_s_own_factory(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        """It has the loop make the same tasks as without it, eagerly (in debug mode asyncio's)."""
        loop.set_task_factory(asyncio.eager_task_factory)
        assert loop.get_task_factory() is asyncio.eager_task_factory
        seen: list[Any] = []

        async def child() -> Any:
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)
            return asyncio.current_task()

        async def main() -> None:
            task = asyncio.create_task(child())
            assert seen == [task]
            assert type(task) is (asyncio.Task if loop.get_debug() else backend.Task)
            assert await task is task
            named = asyncio.create_task(child(), name="named")
            assert named.get_name() == "named"
            await named

        loop.run_until_complete(main())
        loop.set_task_factory(None)
        assert asyncio.eager_task_factory is not None

    @pytest.mark.skipif(
        not CREATE_TASK_TAKES_EAGER_START, reason="create_task takes eager_start from 3.13.3 on"
    )
    def test_create_task_with_eager_start(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []

        async def child(name: str) -> None:
            seen.append(name)

        async def main() -> None:
            assert loop.create_task(child("eager"), eager_start=True).done()
            assert seen == ["eager"]
            task = loop.create_task(child("lazy"), eager_start=False)
            assert seen == ["eager"]
            await task

        loop.run_until_complete(main())

    @pytest.mark.skipif(
        not CREATE_TASK_TAKES_EAGER_START, reason="create_task takes eager_start from 3.13.3 on"
    )
    def test_eager_start_overrides_the_factory(self, eager: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []

        async def child(name: str) -> None:
            seen.append(name)

        async def main() -> None:
            task = eager.create_task(child("lazy"), eager_start=False)
            assert seen == []
            await task
            await asyncio.create_task(child("eager"))

        eager.run_until_complete(main())
        assert seen == ["lazy", "eager"]


class TestFactory:
    def test_custom_constructor(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        class Mine(backend.Task):  # type: ignore[misc, name-defined]
            pass

        loop.set_task_factory(asyncio.create_eager_task_factory(Mine))

        async def child() -> type:
            return type(asyncio.current_task())

        async def main() -> None:
            task = asyncio.create_task(child())
            assert type(task) is Mine
            assert await task is Mine

        loop.run_until_complete(main())
        loop.set_task_factory(None)

    def test_signature_of_create_task(self, loop: asyncio.AbstractEventLoop) -> None:
        expected = inspect.signature(asyncio.SelectorEventLoop.create_task)
        names = set(expected.parameters)
        assert {"coro"} <= names
        if PY314:
            assert "kwargs" in names

    def test_further_keywords_reach_the_factory(self, loop: asyncio.AbstractEventLoop) -> None:
        """From 3.13.3 on create_task hands on what it does not know."""
        if not CREATE_TASK_TAKES_EAGER_START:
            pytest.skip("create_task takes further keywords from 3.13.3 on")
        seen: list[dict[str, Any]] = []

        def factory(loop_: Any, coro: Any, **keywords: Any) -> Any:
            seen.append(dict(keywords))
            keywords.pop("colour", None)
            return asyncio.Task(coro, loop=loop_, **keywords)

        loop.set_task_factory(factory)

        async def child() -> None:
            pass

        task = loop.create_task(child(), name="named", colour="red")
        loop.set_task_factory(None)
        assert seen == [{"name": "named", "colour": "red"}]
        loop.run_until_complete(task)
