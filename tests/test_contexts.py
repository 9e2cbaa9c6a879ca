"""Context variables across tasks, steps, awaits and callbacks."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import functools
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from backends import PY312, PY315, Backend
from turns import raised, turn

Run = Callable[[Coroutine[Any, Any, Any]], Any]

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default="unset")


class TestTask:
    def test_gets_a_copy_of_the_current_one(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []

        async def main() -> None:
            seen.append(variable.get())
            variable.set("inside")

        def schedule() -> asyncio.Task[None]:
            variable.set("outside")
            task = loop.create_task(main())
            variable.set("later")
            return task

        loop.run_until_complete(contextvars.copy_context().run(schedule))
        assert seen == ["outside"]
        assert variable.get() == "unset"

    def test_changes_persist_across_steps(self, run: Run) -> None:
        async def main() -> list[Any]:
            seen: list[Any] = []
            loop = asyncio.get_running_loop()
            for number in range(5):
                variable.set(number)
                await asyncio.sleep(0)
                seen.append(variable.get())
                future = loop.create_future()
                loop.call_soon(future.set_result, None)
                await future
                seen.append(variable.get())
                await asyncio.sleep(0.001)
                seen.append(variable.get())
            return seen

        assert run(main()) == [number for number in range(5) for _ in range(3)]

    def test_tasks_do_not_see_each_other(self, run: Run) -> None:
        async def work(number: int) -> list[Any]:
            seen = []
            for step in range(5):
                variable.set((number, step))
                await asyncio.sleep(0)
                seen.append(variable.get())
            return seen

        async def main() -> None:
            results = await asyncio.gather(*(work(number) for number in range(20)))
            for number, seen in enumerate(results):
                assert seen == [(number, step) for step in range(5)]
            assert variable.get() == "unset"

        run(main())

    def test_many_tasks_of_one_context_each_change_it(self, run: Run) -> None:
        """A snapshot shared by siblings must stay as it was for the ones that run later."""

        async def change(number: int) -> Any:
            before = variable.get()
            variable.set(number)
            return before

        async def main() -> None:
            variable.set("parent")
            tasks = [asyncio.ensure_future(change(number)) for number in range(100)]
            assert await asyncio.gather(*tasks) == ["parent"] * 100
            assert variable.get() == "parent"

        run(main())

    def test_a_child_sees_changes_made_before_it(self, run: Run) -> None:
        async def child() -> Any:
            return variable.get()

        async def main() -> list[Any]:
            seen = []
            for number in range(3):
                variable.set(number)
                seen.append(await asyncio.ensure_future(child()))
            return seen

        assert run(main()) == [0, 1, 2]

    def test_a_child_does_not_change_its_parent(self, run: Run) -> None:
        async def child() -> None:
            variable.set("child")

        async def main() -> Any:
            variable.set("parent")
            await asyncio.ensure_future(child())
            await child()
            return variable.get()

        # Awaited directly, the coroutine runs in the parent's own context.
        assert run(main()) == "child"

    def test_a_given_context(self, loop: asyncio.AbstractEventLoop) -> None:
        context = contextvars.Context()

        async def main() -> None:
            variable.set("one")
            await asyncio.sleep(0)
            assert variable.get() == "one"
            variable.set("two")

        task = loop.create_task(main(), context=context)
        loop.run_until_complete(task)
        assert context[variable] == "two"
        assert variable.get() == "unset"

    def test_a_context_that_two_tasks_share(self, loop: asyncio.AbstractEventLoop) -> None:
        context = contextvars.Context()
        seen: list[Any] = []

        async def work(name: str) -> None:
            for number in range(3):
                seen.append(variable.get())
                variable.set(f"{name}{number}")
                await asyncio.sleep(0)

        one = loop.create_task(work("a"), context=context)
        two = loop.create_task(work("b"), context=context)
        loop.run_until_complete(one)
        loop.run_until_complete(two)
        assert seen == ["unset", "a0", "b0", "a1", "b1", "a2"]

    def test_its_done_callbacks(self, loop: asyncio.AbstractEventLoop) -> None:
        """They run in the context that was current when they were added, not in the task's."""
        seen: list[Any] = []

        async def main() -> None:
            variable.set("task")

        task = loop.create_task(main())
        task.add_done_callback(lambda _: seen.append(variable.get()))
        loop.run_until_complete(task)
        turn(loop)
        assert seen == ["unset"]

    def test_tokens_across_steps(self, run: Run) -> None:
        async def main() -> None:
            token = variable.set("set")
            await asyncio.sleep(0)
            assert variable.get() == "set"
            variable.reset(token)
            assert variable.get() == "unset"
            assert token.old_value is contextvars.Token.MISSING
            with pytest.raises(RuntimeError, match="has already been used once"):
                variable.reset(token)

        run(main())

    def test_a_token_of_another_task(self, run: Run) -> None:
        async def make() -> contextvars.Token[Any]:
            return variable.set("made")

        async def main() -> None:
            token = await asyncio.ensure_future(make())
            error, message = raised(variable.reset, token)
            assert error is ValueError
            assert message.endswith("was created in a different Context")

        run(main())

    def test_a_token_in_a_finally(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancelled tasks end in the context they began in: the tokens of a `finally` work."""
        seen: list[Any] = []

        async def main() -> None:
            token = variable.set("set")
            try:
                await loop.create_future()
            finally:
                variable.reset(token)
                seen.append(variable.get())

        task = loop.create_task(main())
        turn(loop)
        task.cancel()
        turn(loop)
        assert task.cancelled()
        assert seen == ["unset"]

    def test_the_context_is_entered_during_a_step(self, loop: asyncio.AbstractEventLoop) -> None:
        context = contextvars.Context()

        async def main() -> tuple[type, str]:
            await asyncio.sleep(0)
            return raised(context.run, print)

        error, message = loop.run_until_complete(loop.create_task(main(), context=context))
        assert error is RuntimeError
        assert "is already entered" in message

    def test_the_context_is_left_between_steps(self, loop: asyncio.AbstractEventLoop) -> None:
        context = contextvars.Context()

        async def main() -> None:
            variable.set("task")
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        seen: list[Any] = []
        task = loop.create_task(main(), context=context)
        loop.call_soon(lambda: seen.append(context.run(variable.get)))
        loop.run_until_complete(task)
        assert seen == ["task"]

    def test_the_context_is_left_after_an_exit(self, loop: asyncio.AbstractEventLoop) -> None:
        context = contextvars.Context()

        async def leave() -> None:
            variable.set("task")
            raise SystemExit

        task = loop.create_task(leave(), context=context)
        with pytest.raises(SystemExit):
            loop.run_until_complete(task)
        assert isinstance(task.exception(), SystemExit)
        assert context.run(variable.get) == "task"
        assert variable.get() == "unset"

    @pytest.mark.skipif(not PY315, reason="asyncio looks from 3.15 on")
    def test_what_is_no_context_is_refused(
        self, backend: Backend, loop: asyncio.AbstractEventLoop
    ) -> None:
        async def main() -> None:
            pass

        for keywords in ({}, {"eager_start": True}, {"eager_start": False}):
            for make in (loop.create_task, functools.partial(backend.Task, loop=loop)):
                coro = main()
                error, message = raised(make, coro, context=1, **keywords)
                assert error is TypeError
                assert message == "a contextvars.Context was expected, got int"
                coro.close()
        turn(loop)
        gc.collect()

    @pytest.mark.backends("weft")
    @pytest.mark.skipif(not PY312, reason="Task.get_context() came with 3.12")
    def test_contexts_are_shared(self, loop: asyncio.AbstractEventLoop) -> None:
        """Weft knows where this version of Python keeps a thread's context; else it copies them."""

        async def main() -> None:
            tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(2)]
            one, two = map(asyncio.Task.get_context, tasks)
            assert one is two
            await asyncio.wait(tasks)

        loop.run_until_complete(main())

    def test_a_context_that_somebody_else_entered(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        """The loop runs inside the context that the task is to run in."""
        context = contextvars.Context()

        async def main() -> None:
            pass

        coro = main()

        def inside() -> asyncio.Task[None]:
            task = loop.create_task(coro, context=context)
            turn(loop, 2)
            return task

        task = context.run(inside)
        if not task.done():
            assert len(reports) == 1
            assert "is already entered" in str(reports[0]["exception"])
            task._log_destroy_pending = False
        else:
            assert "is already entered" in str(task.exception())
        coro.close()

    @pytest.mark.skipif(not PY312, reason="Task.get_context came with 3.12")
    def test_get_context_reads_what_the_task_sees(self, run: Run) -> None:
        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            variable.set("one")
            assert task.get_context()[variable] == "one"
            await asyncio.sleep(0)
            variable.set("two")
            assert task.get_context()[variable] == "two"

        run(main())

    @pytest.mark.skipif(not PY312, reason="Task.get_context came with 3.12")
    def test_get_context_of_a_sleeping_task_can_be_written(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Somebody runs in the context of a sleeping task and changes what it will see."""
        future = loop.create_future()

        async def main() -> Any:
            await future
            return variable.get()

        task = loop.create_task(main())
        turn(loop)
        task.get_context().run(variable.set, "changed from outside")
        future.set_result(None)
        assert loop.run_until_complete(task) == "changed from outside"

    @pytest.mark.skipif(not PY312, reason="Task.get_context came with 3.12")
    def test_get_context_before_the_start_can_be_written(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        async def main() -> Any:
            return variable.get()

        tasks = [loop.create_task(main()) for _ in range(3)]
        tasks[1].get_context().run(variable.set, "second only")
        loop.run_until_complete(tasks[2])
        assert [task.result() for task in tasks] == ["unset", "second only", "unset"]

    def test_values_live_as_long_as_the_task(self, loop: asyncio.AbstractEventLoop) -> None:
        class Value:
            pass

        alive: list[weakref.ref[Value]] = []

        async def main() -> None:
            value = Value()
            alive.append(weakref.ref(value))
            variable.set(value)
            await asyncio.sleep(0)

        task = loop.create_task(main())
        loop.run_until_complete(task)
        assert alive[0]() is not None
        del task
        gc.collect()
        assert alive[0]() is None


class TestRunner:
    def test_run_copies_the_callers(self, run: Run) -> None:
        async def main() -> Any:
            seen = variable.get()
            variable.set("inside")
            return seen

        def outside() -> Any:
            variable.set("outside")
            result = run(main())
            return result, variable.get()

        assert contextvars.copy_context().run(outside) == ("outside", "outside")

    def test_runner_keeps_one_context(
        self, loop_factory: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        async def change(value: Any) -> Any:
            before = variable.get()
            variable.set(value)
            return before

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            assert runner.run(change("one")) == "unset"
            assert runner.run(change("two")) == "one"
            assert runner.run(change("three"), context=contextvars.Context()) == "unset"
        assert variable.get() == "unset"

    def test_run_until_complete_copies(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            variable.set("inside")

        loop.run_until_complete(main())
        assert variable.get() == "unset"


class TestElsewhere:
    def test_to_thread_takes_it_along(self, run: Run) -> None:
        async def main() -> list[Any]:
            variable.set("task")

            def work() -> Any:
                seen = variable.get()
                variable.set("thread")
                return seen

            return [await asyncio.to_thread(work), variable.get()]

        assert run(main()) == ["task", "task"]

    def test_run_in_executor_does_not(self, run: Run) -> None:
        async def main() -> Any:
            variable.set("task")
            return await asyncio.get_running_loop().run_in_executor(None, variable.get)

        assert run(main()) == "unset"

    def test_async_generators_run_in_the_callers(self, run: Run) -> None:
        async def generate() -> Any:
            for number in range(3):
                variable.set(number)
                yield variable.get()

        async def main() -> list[Any]:
            return [(number, variable.get()) async for number in generate()]

        assert run(main()) == [(0, 0), (1, 1), (2, 2)]

    def test_decimal_context(self, run: Run) -> None:
        """The decimal module keeps its precision in a context variable, of C's making."""

        async def divide(precision: int) -> str:
            with decimal.localcontext() as context:
                context.prec = precision
                await asyncio.sleep(0)
                return str(decimal.Decimal(1) / 3)

        async def main() -> list[str]:
            return await asyncio.gather(*(divide(precision) for precision in (1, 2, 3)))

        assert run(main()) == ["0.3", "0.33", "0.333"]

    def test_nested_run_inside_a_step(self, run: Run) -> None:
        async def main() -> None:
            outer = contextvars.copy_context()
            variable.set("task")

            def nested() -> Any:
                variable.set("nested")
                inner = contextvars.copy_context()
                inner.run(variable.set, "deeper")
                return variable.get(), inner[variable]

            assert outer.run(nested) == ("nested", "deeper")
            assert variable.get() == "task"
            await asyncio.sleep(0)
            assert variable.get() == "task"

        run(main())

    def test_create_task_inside_a_nested_run(self, run: Run) -> None:
        async def look() -> Any:
            return variable.get()

        async def main() -> list[Any]:
            variable.set("task")
            inner = contextvars.Context()

            def nested() -> asyncio.Task[Any]:
                variable.set("nested")
                return asyncio.ensure_future(look())

            task = inner.run(nested)
            return [await task, await asyncio.ensure_future(look())]

        assert run(main()) == ["nested", "task"]

    def test_reader_and_signal_callbacks(self, loop: asyncio.AbstractEventLoop) -> None:
        import os

        seen: list[Any] = []
        reading, writing = os.pipe()

        def ready() -> None:
            seen.append(variable.get())
            variable.set("changed by the reader")
            os.read(reading, 1)
            if len(seen) == 2:
                loop.stop()

        def add() -> None:
            variable.set("when added")
            loop.add_reader(reading, ready)

        contextvars.copy_context().run(add)
        os.write(writing, b"xy")
        loop.run_forever()
        loop.remove_reader(reading)
        os.close(reading)
        os.close(writing)
        # One handle serves every event, and so does its context.
        assert seen == ["when added", "changed by the reader"]
