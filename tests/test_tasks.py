"""Task: making one, its surface, its steps, its end."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import inspect
import io
import pickle
import re
import sys
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest
from backends import PY312, PY313, PY314, PY315, Backend
from turns import raised, turn

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


class TestShape:
    def test_type(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        task = loop.create_task(answer())
        assert type(task) is backend.Task
        assert isinstance(task, asyncio.Task)
        assert isinstance(task, asyncio.Future)
        assert asyncio.isfuture(task)
        assert isinstance(task, Awaitable)
        assert not asyncio.iscoroutine(task)
        assert type(task).__name__ == "Task"
        assert issubclass(backend.Task, asyncio.Task)
        assert issubclass(backend.Task, asyncio.Future)
        loop.run_until_complete(task)

    def test_every_public_name_of_stock(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        for name in dir(asyncio.Task):
            if not name.startswith("_"):
                assert hasattr(task, name), name
        loop.run_until_complete(task)

    def test_constructor(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        coro = answer()
        task = backend.Task(coro, loop=loop, name="named")
        assert task.get_loop() is loop
        assert task.get_coro() is coro
        assert task.get_name() == "named"
        assert loop.run_until_complete(task) == 42

    def test_constructor_misuse(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        with pytest.raises(TypeError):
            backend.Task()  # type: ignore[call-arg]
        coro = answer()
        with pytest.raises(TypeError):
            backend.Task(coro, loop)  # type: ignore[misc]
        with pytest.raises(TypeError):
            backend.Task(coro, loop=loop, colour="red")  # type: ignore[call-arg]
        coro.close()

    @pytest.mark.parametrize("thing", [None, 1, "text", answer, object(), iter(())])
    def test_not_a_coroutine(
        self, loop: asyncio.AbstractEventLoop, backend: Backend, thing: Any
    ) -> None:
        expected = (TypeError, f"a coroutine was expected, got {thing!r}")
        assert raised(loop.create_task, thing) == expected
        assert raised(backend.Task, thing, loop=loop) == expected

    def test_a_future_is_not_a_coroutine(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        error, message = raised(loop.create_task, future)
        assert error is TypeError
        assert message == f"a coroutine was expected, got {future!r}"

    def test_an_async_generator_is_not_a_coroutine(self, loop: asyncio.AbstractEventLoop) -> None:
        async def generate() -> Any:
            yield 1

        made = generate()
        error, message = raised(loop.create_task, made)
        assert error is TypeError
        assert message == f"a coroutine was expected, got {made!r}"

    def test_a_plain_generator(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accepted up to 3.11, refused since."""

        def generate() -> Generator[None, None, int]:
            yield
            return 3

        if PY312:
            made = generate()
            assert raised(loop.create_task, made) == (
                TypeError,
                f"a coroutine was expected, got {made!r}",
            )
        else:
            assert loop.run_until_complete(loop.create_task(generate())) == 3  # type: ignore[arg-type]

    def test_a_coroutine_that_is_done(self, loop: asyncio.AbstractEventLoop) -> None:
        coro = answer()
        coro.close()
        task = loop.create_task(coro)
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            loop.run_until_complete(task)

    def test_a_coroutine_that_two_tasks_share(self, loop: asyncio.AbstractEventLoop) -> None:
        async def outer() -> int:
            return await inner

        inner = forever()
        first, second = loop.create_task(outer()), loop.create_task(outer())
        turn(loop, 2)
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            second.result()
        first.cancel()
        turn(loop, 2)
        assert first.cancelled()

    def test_weakref(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        alive = weakref.ref(task)
        assert alive() is task
        loop.run_until_complete(task)
        del task
        gc.collect()
        assert alive() is None

    def test_a_finished_task_goes_at_once(self, loop: asyncio.AbstractEventLoop) -> None:
        """Without the help of the collector: no cycle may be left."""

        async def main() -> weakref.ref[Any]:
            task = asyncio.ensure_future(answer())
            alive = weakref.ref(task)
            await task
            del task
            await asyncio.sleep(0)
            return alive

        gc.disable()
        try:
            assert loop.run_until_complete(main())() is None
        finally:
            gc.enable()

    @pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
    def test_cannot_be_pickled_or_copied(
        self, loop: asyncio.AbstractEventLoop, protocol: int
    ) -> None:
        task = loop.create_task(answer())
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(task, protocol)
        with pytest.raises(TypeError):
            copy.copy(task)
        loop.run_until_complete(task)

    def test_hash_is_identity(self, loop: asyncio.AbstractEventLoop) -> None:
        one, two = loop.create_task(answer()), loop.create_task(answer())
        assert one != two
        assert len({one, two, one}) == 2
        turn(loop, 3)

    def test_attributes_that_libraries_read(self, loop: asyncio.AbstractEventLoop) -> None:
        """anyio, sniffio and debuggers look at these."""
        task = loop.create_task(forever())
        assert task._loop is loop
        assert task._fut_waiter is None
        assert task._must_cancel is False
        assert task._coro is task.get_coro()
        assert task._log_destroy_pending is True
        assert task._callbacks is None
        assert task._state == "PENDING"
        assert task._num_cancels_requested == 0 if hasattr(task, "_num_cancels_requested") else True
        turn(loop)
        waiter = task._fut_waiter
        assert isinstance(waiter, asyncio.Future)
        assert not waiter.done()
        task.cancel()
        assert task._must_cancel is False
        turn(loop, 2)
        assert task._fut_waiter is None
        assert task.cancelled()

    def test_must_cancel_of_a_task_that_has_not_started(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        task = loop.create_task(forever())
        task.cancel()
        assert task._must_cancel is True
        turn(loop)
        assert task._must_cancel is False
        assert task.cancelled()

    def test_log_destroy_pending_may_be_set(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        task._log_destroy_pending = False
        assert task._log_destroy_pending is False
        loop.run_until_complete(task)

    def test_must_cancel_may_not_be_set(self, loop: asyncio.AbstractEventLoop) -> None:
        """As on stock: anyio patches it on tasks of pure Python only."""
        task = loop.create_task(answer())
        for name in ("_must_cancel", "_fut_waiter", "_coro"):
            with pytest.raises(AttributeError):
                setattr(task, name, None)
        loop.run_until_complete(task)


class TestNames:
    def test_default_counts_up(self, loop: asyncio.AbstractEventLoop) -> None:
        tasks = [loop.create_task(answer()) for _ in range(3)]
        names = [task.get_name() for task in tasks]
        assert all(re.fullmatch(r"Task-\d+", name) for name in names)
        numbers = [int(name.removeprefix("Task-")) for name in names]
        assert numbers == list(range(numbers[0], numbers[0] + 3))
        turn(loop, 3)

    def test_default_shares_its_count_with_stock_tasks(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        """A name names one task, whoever made it."""
        tasks: list[asyncio.Task[int]] = []
        for _ in range(3):
            tasks.append(backend.Task(answer(), loop=loop))
            tasks.append(asyncio.Task(answer(), loop=loop))
        names = [task.get_name() for task in tasks]
        assert len(set(names)) == 6
        turn(loop, 3)

    def test_any_object_becomes_text(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer(), name=123)  # type: ignore[arg-type]
        assert task.get_name() == "123"
        assert task.set_name([1]) is None  # type: ignore[func-returns-value]
        assert task.get_name() == "[1]"
        loop.run_until_complete(task)

    def test_none_is_the_default(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer(), name=None)
        assert task.get_name().startswith("Task-")
        loop.run_until_complete(task)
        task.set_name(None)
        assert task.get_name() == "None"

    def test_subclass_of_str_is_kept_or_copied(self, loop: asyncio.AbstractEventLoop) -> None:
        class Name(str):
            pass

        task = loop.create_task(answer(), name=Name("mine"))
        assert task.get_name() == "mine"
        loop.run_until_complete(task)

    def test_whose_str_fails(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        """Stock reports the task that was half made as destroyed; that need not be copied."""

        class Broken:
            def __str__(self) -> str:
                raise ZeroDivisionError

        coro = answer()
        with pytest.raises(ZeroDivisionError):
            loop.create_task(coro, name=Broken())  # type: ignore[arg-type]
        coro.close()
        assert not asyncio.all_tasks(loop)

    def test_empty(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer(), name="")
        assert task.get_name() == ""
        loop.run_until_complete(task)


class TestEnd:
    def test_set_result_is_forbidden(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        assert raised(task.set_result, 1) == (
            RuntimeError,
            "Task does not support set_result operation",
        )
        assert raised(task.set_exception, ValueError()) == (
            RuntimeError,
            "Task does not support set_exception operation",
        )
        assert loop.run_until_complete(task) == 42

    def test_result_before_the_end(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        assert raised(task.result) == (asyncio.InvalidStateError, "Result is not set.")
        assert raised(task.exception) == (asyncio.InvalidStateError, "Exception is not set.")
        loop.run_until_complete(task)
        assert task.result() == 42
        assert task.exception() is None

    def test_does_not_start_at_once(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []

        async def note() -> None:
            seen.append(1)

        task = loop.create_task(note())
        assert seen == []
        turn(loop)
        assert seen == [1]
        assert task.done()

    @pytest.mark.parametrize(
        "value", [None, (), (1, 2), StopIteration(1), ValueError("value"), ValueError]
    )
    def test_any_value(self, loop: asyncio.AbstractEventLoop, value: Any) -> None:
        async def give() -> Any:
            return value

        async def relay() -> Any:
            return await loop.create_task(give())

        assert loop.run_until_complete(relay()) is value

    def test_exception(self, loop: asyncio.AbstractEventLoop) -> None:
        error = LookupError("no")

        async def fail() -> None:
            raise error

        task = loop.create_task(fail())
        turn(loop)
        assert task.exception() is error
        assert not task.cancelled()
        with pytest.raises(LookupError) as caught:
            task.result()
        assert caught.value is error

    def test_traceback_shows_the_coroutine_only(self, loop: asyncio.AbstractEventLoop) -> None:
        async def inner() -> None:
            raise ValueError

        async def outer() -> None:
            await asyncio.sleep(0)
            await inner()

        task = loop.create_task(outer())
        turn(loop, 2)
        error = task.exception()
        assert error is not None
        names, entry = [], error.__traceback__
        while entry is not None:
            names.append(entry.tb_frame.f_code.co_name)
            entry = entry.tb_next
        assert names == ["outer", "inner"]

    def test_exception_context_is_not_invented(self, loop: asyncio.AbstractEventLoop) -> None:
        """No error of one step may show up as the `__context__` of another's."""

        async def fail(kind: type[Exception]) -> None:
            raise kind

        one, two = loop.create_task(fail(ValueError)), loop.create_task(fail(KeyError))
        turn(loop)
        for task in (one, two):
            error = task.exception()
            assert error is not None
            assert error.__context__ is None
            assert error.__cause__ is None

    def test_step_does_not_see_the_exception_of_its_caller(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        seen: list[Any] = []

        async def look() -> None:
            seen.append(sys.exc_info()[0])
            await asyncio.sleep(0)
            seen.append(sys.exc_info()[0])

        async def main() -> None:
            try:
                raise ValueError
            except ValueError:
                await loop.create_task(look())

        loop.run_until_complete(main())
        assert seen == [None, None]

    def test_exception_state_survives_a_suspension(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []

        async def look() -> None:
            try:
                raise ValueError
            except ValueError:
                await asyncio.sleep(0)
                seen.append(sys.exc_info()[0])
            await asyncio.sleep(0)
            seen.append(sys.exc_info()[0])

        async def main() -> None:
            await asyncio.gather(look(), look())

        loop.run_until_complete(main())
        assert seen == [ValueError, ValueError, None, None]

    def test_stop_iteration_from_a_coroutine(self, loop: asyncio.AbstractEventLoop) -> None:
        async def fail() -> None:
            raise StopIteration(1)

        task = loop.create_task(fail())
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
            loop.run_until_complete(task)

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_exits_end_the_run_and_the_task(
        self, loop: asyncio.AbstractEventLoop, kind: type[BaseException]
    ) -> None:
        error = kind("now")

        async def leave() -> None:
            raise error

        task = loop.create_task(leave())
        with pytest.raises(kind) as caught:
            turn(loop)
        assert caught.value is error
        assert task.done()
        assert task.exception() is error
        turn(loop)

    @pytest.mark.parametrize("kind", [GeneratorExit, BaseException])
    def test_other_base_exceptions_stay_in_the_task(
        self, loop: asyncio.AbstractEventLoop, kind: type[BaseException]
    ) -> None:
        async def leave() -> None:
            raise kind

        task = loop.create_task(leave())
        turn(loop)
        assert type(task.exception()) is kind

    def test_group_with_an_exit_inside(self, loop: asyncio.AbstractEventLoop) -> None:
        async def leave() -> None:
            raise BaseExceptionGroup("group", [KeyboardInterrupt()])

        task = loop.create_task(leave())
        turn(loop)
        assert isinstance(task.exception(), BaseExceptionGroup)

    def test_locals_are_let_go(self, loop: asyncio.AbstractEventLoop) -> None:
        class Thing:
            pass

        alive: list[weakref.ref[Thing]] = []

        async def hold() -> None:
            thing = Thing()
            alive.append(weakref.ref(thing))
            await asyncio.sleep(0)

        task = loop.create_task(hold())
        loop.run_until_complete(task)
        assert alive[0]() is None
        # The coroutine stays with the task, empty.
        assert task.get_coro() is not None

    def test_a_task_nobody_holds_goes_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """It waits for a future that only it and the loop's timer know."""
        seen: list[int] = []

        async def work() -> None:
            for number in range(5):
                await asyncio.sleep(0.001)
                gc.collect()
                seen.append(number)

        async def main() -> None:
            loop.create_task(work())
            while len(seen) < 5:
                await asyncio.sleep(0.001)

        loop.run_until_complete(main())
        assert seen == [0, 1, 2, 3, 4]

    def test_awaiting_a_done_task_takes_no_turn(self, run: Run) -> None:
        async def main() -> None:
            task = asyncio.ensure_future(answer())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert task.done()
            seen: list[int] = []
            asyncio.get_running_loop().call_soon(seen.append, 1)
            assert await task == 42
            assert seen == []
            await asyncio.sleep(0)

        run(main())


class TestCoroutineAndContext:
    def test_get_coro(self, loop: asyncio.AbstractEventLoop) -> None:
        coro = answer()
        task = loop.create_task(coro)
        assert task.get_coro() is coro
        loop.run_until_complete(task)
        assert task.get_coro() is coro

    def test_get_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        assert task.get_loop() is loop
        loop.run_until_complete(task)
        assert task.get_loop() is loop

    @pytest.mark.skipif(not PY312, reason="Task.get_context came with 3.12")
    def test_get_context(self, loop: asyncio.AbstractEventLoop) -> None:
        context = contextvars.copy_context()
        task = loop.create_task(answer(), context=context)
        assert task.get_context() is context
        other = loop.create_task(answer())
        assert isinstance(other.get_context(), contextvars.Context)
        assert other.get_context() is not context
        turn(loop, 2)
        assert task.get_context() is context

    def test_context_none(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer(), context=None)
        assert loop.run_until_complete(task) == 42


class TestStack:
    def test_get_stack_of_a_waiting_task(self, loop: asyncio.AbstractEventLoop) -> None:
        async def inner() -> None:
            await loop.create_future()

        async def outer() -> None:
            await inner()

        task = loop.create_task(outer())
        turn(loop)
        # asyncio follows the outermost coroutine only.
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["outer"]
        assert [frame.f_code.co_name for frame in task.get_stack(limit=1)] == ["outer"]
        task.cancel()
        turn(loop, 2)

    def test_get_stack_of_the_running_task(self, run: Run) -> None:
        async def main() -> list[str]:
            task = asyncio.current_task()
            assert task is not None
            return [frame.f_code.co_name for frame in task.get_stack()]

        assert run(main())[-1] == "main"

    def test_get_stack_of_a_done_task(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        loop.run_until_complete(task)
        assert task.get_stack() == []

    def test_get_stack_of_a_failed_task(self, loop: asyncio.AbstractEventLoop) -> None:
        async def deeper() -> None:
            raise ValueError

        async def fail() -> None:
            await deeper()

        task = loop.create_task(fail())
        turn(loop)
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["fail", "deeper"]
        assert [frame.f_code.co_name for frame in task.get_stack(limit=1)] == ["fail"]
        task.exception()

    def test_print_stack(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(forever(), name="waiting")
        turn(loop)
        out = io.StringIO()
        assert task.print_stack(file=out) is None  # type: ignore[func-returns-value]
        text = out.getvalue()
        assert text.startswith("Stack for <Task pending name='waiting' coro=<forever() running at ")
        assert "(most recent call last):" in text
        assert "await asyncio.get_running_loop().create_future()" in text
        task.cancel()
        turn(loop, 2)
        out = io.StringIO()
        task.print_stack(limit=1, file=out)
        assert out.getvalue().startswith("No stack for <Task cancelled name='waiting'")

    def test_print_stack_of_a_failed_task(self, loop: asyncio.AbstractEventLoop) -> None:
        async def fail() -> None:
            raise ValueError("spam")

        task = loop.create_task(fail())
        turn(loop)
        out = io.StringIO()
        task.print_stack(file=out)
        assert out.getvalue().startswith("Traceback for <Task finished")
        assert out.getvalue().endswith("ValueError: spam\n")
        task.exception()

    def test_print_stack_without_a_file(
        self, loop: asyncio.AbstractEventLoop, capsys: pytest.CaptureFixture[str]
    ) -> None:
        task = loop.create_task(answer())
        loop.run_until_complete(task)
        task.print_stack()
        # The documentation says standard error; it is standard output.
        captured = capsys.readouterr()
        assert captured.out.startswith("No stack for <Task finished")
        assert captured.err == ""

    def test_keywords_only(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        with pytest.raises(TypeError):
            task.get_stack(1)  # type: ignore[misc]
        with pytest.raises(TypeError):
            task.print_stack(1)  # type: ignore[misc]
        loop.run_until_complete(task)


class TestRepr:
    @pytest.mark.outside_debug
    def test_states(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(forever(), name="mine")
        where = f"{__file__}:{forever.__code__.co_firstlineno}"
        assert repr(task) == f"<Task pending name='mine' coro=<forever() running at {where}>>"
        turn(loop)
        line = forever.__code__.co_firstlineno + 1
        future = repr(task._fut_waiter)
        assert repr(task) == (
            f"<Task pending name='mine' coro=<forever() running at {__file__}:{line}>"
            f" wait_for={future}>"
        )
        task.cancel()
        assert repr(task).startswith("<Task cancelling name='mine' coro=<forever() running at ")
        turn(loop, 2)
        assert (
            repr(task) == f"<Task cancelled name='mine' coro=<forever() done, defined at {where}>>"
        )

    @pytest.mark.outside_debug
    def test_finished(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer(), name="mine")
        loop.run_until_complete(task)
        where = f"{__file__}:{answer.__code__.co_firstlineno}"
        assert repr(task) == (
            f"<Task finished name='mine' coro=<answer() done, defined at {where}> result=42>"
        )

    @pytest.mark.outside_debug
    def test_failed(self, loop: asyncio.AbstractEventLoop) -> None:
        async def fail() -> None:
            raise ValueError("no")

        task = loop.create_task(fail(), name="mine")
        turn(loop)
        assert repr(task).startswith("<Task finished name='mine' coro=<")
        assert repr(task).endswith(" exception=ValueError('no')>")
        task.exception()

    def test_cancel_requested_before_the_start(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(forever(), name="mine")
        task.cancel()
        assert repr(task).startswith("<Task cancelling name='mine' coro=<forever() running at ")
        turn(loop)

    def test_callbacks(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        task.add_done_callback(print)
        assert " cb=[print()]" in repr(task)
        task.remove_done_callback(print)
        loop.run_until_complete(task)

    def test_running(self, loop: asyncio.AbstractEventLoop) -> None:
        async def look() -> str:
            return repr(asyncio.current_task())

        assert loop.run_until_complete(loop.create_task(look(), name="mine")).startswith(
            "<Task pending name='mine' coro=<TestRepr.test_running.<locals>.look() running at "
        )

    def test_subclass(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        class Mine(backend.Task):  # type: ignore[misc, name-defined]
            pass

        task = Mine(answer(), loop=loop)
        assert repr(task).startswith("<Mine pending name='Task-")
        loop.run_until_complete(task)

    def test_inside_gather(self, run: Run) -> None:
        async def main() -> None:
            task = asyncio.ensure_future(answer())
            gathering = asyncio.gather(task)
            assert "cb=[gather.<locals>._done_callback() at " in repr(task)
            assert repr(gathering).startswith("<_GatheringFuture pending")
            await gathering

        run(main())


class TestCurrentTask:
    def test_none_outside(self, loop: asyncio.AbstractEventLoop) -> None:
        assert asyncio.current_task(loop) is None
        error, message = raised(asyncio.current_task)
        assert (error, message) == (RuntimeError, "no running event loop")

    def test_none_in_callbacks(self, loop: asyncio.AbstractEventLoop) -> None:
        """sniffio and anyio tell a task from a callback by it."""
        seen: list[Any] = []

        def look(*_: Any) -> None:
            seen.append(asyncio.current_task())

        async def main() -> None:
            future = loop.create_future()
            future.add_done_callback(look)
            loop.call_soon(look)
            loop.call_later(0, look)
            loop.call_soon_threadsafe(look)
            loop.call_soon(future.set_result, None)
            other = loop.create_task(asyncio.sleep(0))
            other.add_done_callback(look)
            await future
            await other
            await asyncio.sleep(0.001)

        loop.run_until_complete(main())
        assert seen == [None] * 5

    def test_in_a_step(self, loop: asyncio.AbstractEventLoop) -> None:
        async def look() -> list[Any]:
            seen = [asyncio.current_task(), asyncio.current_task(loop)]
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())
            return seen

        one, two = loop.create_task(look()), loop.create_task(look())
        loop.run_until_complete(asyncio.gather(one, two))
        assert one.result() == [one] * 3
        assert two.result() == [two] * 3

    def test_of_another_loop(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        other = backend.new_event_loop()

        async def look() -> Any:
            return asyncio.current_task(other)

        assert loop.run_until_complete(look()) is None
        other.close()

    def test_in_a_context_of_ones_own(self, loop: asyncio.AbstractEventLoop) -> None:
        async def look() -> Any:
            return contextvars.Context().run(asyncio.current_task)

        task = loop.create_task(look())
        assert loop.run_until_complete(task) is task

    def test_after_an_exit(self, loop: asyncio.AbstractEventLoop) -> None:
        async def leave() -> None:
            raise SystemExit

        task = loop.create_task(leave())
        with pytest.raises(SystemExit):
            loop.run_until_complete(task)
        assert isinstance(task.exception(), SystemExit)
        assert asyncio.current_task(loop) is None
        seen: list[Any] = []
        loop.call_soon(lambda: seen.append(asyncio.current_task()))
        turn(loop)
        assert seen == [None]

    def test_enter_and_leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """What libraries with steps of their own do (anyio's test runner, qasync)."""
        task = loop.create_task(answer())
        seen: list[Any] = []

        def enter_and_leave() -> None:
            asyncio.tasks._enter_task(loop, task)
            try:
                seen.append(asyncio.current_task(loop))
                seen.append(raised(asyncio.tasks._enter_task, loop, task))
            finally:
                asyncio.tasks._leave_task(loop, task)
            seen.append(asyncio.current_task(loop))

        loop.call_soon(enter_and_leave)
        loop.run_until_complete(task)
        assert seen[0] is task
        assert seen[1][0] is RuntimeError
        assert seen[1][1].startswith("Cannot enter into task <Task pending name=")
        assert " while another task <Task pending name=" in seen[1][1]
        assert seen[2] is None

    def test_leave_without_having_entered(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        errors: list[tuple[type, str]] = []
        loop.call_soon(lambda: errors.append(raised(asyncio.tasks._leave_task, loop, task)))
        loop.run_until_complete(task)
        assert errors[0][0] is RuntimeError

    def test_leave_in_ones_own_step(self, loop: asyncio.AbstractEventLoop) -> None:
        """anyio and greenlet bridges leave the current task, run something, and enter it again."""

        async def main() -> list[Any]:
            task = asyncio.current_task()
            assert task is not None
            asyncio.tasks._leave_task(loop, task)
            seen: list[Any] = [asyncio.current_task()]
            asyncio.tasks._enter_task(loop, task)
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)
            return seen

        task = loop.create_task(main())
        assert loop.run_until_complete(task) == [None, task]

    def test_enter_in_a_step_of_another(self, loop: asyncio.AbstractEventLoop) -> None:
        async def enter() -> None:
            other = loop.create_task(answer())
            error, message = raised(asyncio.tasks._enter_task, loop, other)
            assert error is RuntimeError
            assert message.startswith(f"Cannot enter into task {other!r} while another task ")
            await other

        loop.run_until_complete(enter())

    @pytest.mark.skipif(not PY312, reason="_swap_current_task came with 3.12")
    def test_swap(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(answer())
        if PY314:
            # The current task belongs to the running loop of the thread.
            seen: list[Any] = []

            def swap() -> None:
                seen.append(asyncio.tasks._swap_current_task(loop, task))
                seen.append(asyncio.current_task())
                seen.append(asyncio.tasks._swap_current_task(loop, None))
                seen.append(asyncio.current_task())

            loop.call_soon(swap)
            turn(loop)
            assert seen == [None, task, task, None]
        else:
            assert asyncio.tasks._swap_current_task(loop, task) is None
            assert asyncio.current_task(loop) is task
            assert asyncio.tasks._swap_current_task(loop, None) is task
            assert asyncio.current_task(loop) is None
        loop.run_until_complete(asyncio.sleep(0.001))
        assert task.done()


class TestThroughTheLoop:
    def test_steps_go_through_call_soon(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who replaces `loop.call_soon` on the instance sees the steps too, as with stock tasks."""
        seen: list[Any] = []
        kept = loop.call_soon

        def spying(callback: Any, *arguments: Any, **keywords: Any) -> Any:
            seen.append(callback)
            return kept(callback, *arguments, **keywords)

        monkeypatch.setattr(loop, "call_soon", spying)
        task = loop.create_task(answer())
        assert len(seen) == 1
        monkeypatch.undo()
        loop.run_until_complete(task)

    def test_a_minimal_loop(self, backend: Backend) -> None:
        """A task on a foreign loop: nothing but call_soon and get_debug is asked for."""
        queue: list[tuple[Any, tuple[Any, ...], Any]] = []

        class Minimal:
            def get_debug(self) -> bool:
                return False

            def call_soon(self, callback: Any, *arguments: Any, context: Any = None) -> None:
                queue.append((callback, arguments, context))

        loop = Minimal()

        def run_queue() -> None:
            asyncio._set_running_loop(loop)  # type: ignore[arg-type]
            while queue:
                callback, arguments, context = queue.pop(0)
                assert isinstance(context, contextvars.Context)
                context.run(callback, *arguments)
            asyncio._set_running_loop(None)

        future = backend.Future(loop=loop)  # type: ignore[arg-type]

        async def main() -> Any:
            return await future

        task = backend.Task(main(), loop=loop)  # type: ignore[arg-type]
        assert len(queue) == 1
        run_queue()
        assert task._fut_waiter is future
        future.set_result(7)
        run_queue()
        assert task.result() == 7


def test_iscoroutine_things_stay_so(loop: asyncio.AbstractEventLoop) -> None:
    assert inspect.iscoroutinefunction(answer)
    coro = answer()
    assert asyncio.iscoroutine(coro)
    coro.close()

    @types.coroutine
    def old() -> Generator[None, None, int]:
        yield
        return 5

    assert asyncio.iscoroutine(old()) is not PY312

    async def main() -> int:
        return await old()

    assert loop.run_until_complete(main()) == 5


def test_version_constants_agree() -> None:
    known = tuple(sys.version_info >= (3, minor) for minor in (12, 13, 14, 15))
    assert known == (PY312, PY313, PY314, PY315)
