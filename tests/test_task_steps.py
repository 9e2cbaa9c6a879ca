"""What a coroutine may yield to its task, and what it may be made of."""

from __future__ import annotations

import asyncio
import collections.abc
import concurrent.futures
import gc
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest
from backends import Backend
from turns import turn

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@types.coroutine
def give(thing: Any) -> Generator[Any, Any, Any]:
    """Yield anything to the task."""
    return (yield thing)


@types.coroutine
def from_(iterator: Any) -> Generator[Any, Any, Any]:
    return (yield from iterator)


def check_surfaced(task: asyncio.Task[Any], reports: list[dict[str, Any]]) -> None:
    """An error in the machinery of a step shows: in the task, or in a report that leaves it stuck.

    Stock tasks do the latter.
    """
    if task.done():
        assert isinstance(task.exception(), ZeroDivisionError | RuntimeError)
    else:
        assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
        task._log_destroy_pending = False


class TestYields:
    def test_none_goes_on_in_the_next_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []

        async def main() -> None:
            seen.append(await give(None))
            seen.append("done")

        task = loop.create_task(main())
        turn(loop)
        assert seen == []
        turn(loop)
        assert seen == [None, "done"]
        assert task.done()

    @pytest.mark.parametrize(
        "thing", [1, "text", (), [], object(), ..., True, 1.5, ValueError, ValueError()]
    )
    def test_garbage(self, run: Run, thing: Any) -> None:
        async def main() -> None:
            with pytest.raises(RuntimeError) as caught:
                await give(thing)
            assert str(caught.value) == f"Task got bad yield: {thing!r}"
            assert await asyncio.sleep(0, "still alive") == "still alive"

        run(main())

    def test_garbage_comes_in_the_next_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            await give(1)

        task = loop.create_task(main())
        turn(loop)
        assert not task.done()
        turn(loop)
        assert isinstance(task.exception(), RuntimeError)

    def test_garbage_whose_repr_fails(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        class Broken:
            def __repr__(self) -> str:
                raise ZeroDivisionError

        async def main() -> None:
            await give(Broken())

        task = loop.create_task(main())
        turn(loop, 3)
        check_surfaced(task, reports)

    def test_future_without_await(self, run: Run) -> None:
        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            with pytest.raises(RuntimeError) as caught:
                await give(future)
            message = str(caught.value)
            assert message.startswith("yield was used instead of yield from in task <Task pending ")
            assert message.endswith(f" with {future!r}")

        run(main())

    def test_done_future_without_await(self, run: Run) -> None:
        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            future.set_result(1)
            with pytest.raises(RuntimeError, match="yield was used instead of yield from"):
                await give(future)

        run(main())

    def test_generator(self, run: Run) -> None:
        def generate() -> Generator[None, None, None]:
            yield

        async def main() -> None:
            made = generate()
            with pytest.raises(RuntimeError) as caught:
                await give(made)
            message = str(caught.value)
            # The C and the Python task word it differently.
            assert message.startswith(
                ("yield was used instead of yield from for generator in task", "Task got bad yield")
            )

        run(main())

    def test_coroutine_in_a_yield(self, run: Run) -> None:
        async def inner() -> None:
            pass

        async def main() -> None:
            made = inner()
            with pytest.raises(RuntimeError, match="Task got bad yield: <coroutine object"):
                await give(made)
            made.close()

        run(main())

    def test_concurrent_future(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(RuntimeError, match="Task got bad yield: <Future at "):
                await give(concurrent.futures.Future())

        run(main())

    def test_itself(self, run: Run) -> None:
        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            with pytest.raises(RuntimeError) as caught:
                await task
            message = str(caught.value)
            assert message.startswith("Task cannot await on itself: <Task pending name=")
            assert f" name={task.get_name()!r} " in message

        run(main())

    def test_itself_through_a_future_is_a_deadlock_that_can_be_cancelled(self, run: Run) -> None:
        async def main() -> None:
            async def wait_for_each_other(name: str) -> None:
                await tasks[name]

            tasks: dict[str, asyncio.Task[None]] = {}
            tasks["a"] = asyncio.ensure_future(wait_for_each_other("b"))
            tasks["b"] = asyncio.ensure_future(wait_for_each_other("a"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            # asyncio cancels along the chain of waiting and ends in a RecursionError.
            with pytest.raises(RecursionError):
                tasks["a"].cancel()
            for task in tasks.values():
                task._log_destroy_pending = False

        run_alone(run, main())

    def test_future_of_another_loop(self, run: Run, backend: Backend) -> None:
        other = backend.new_event_loop()

        async def main() -> None:
            future = other.create_future()
            with pytest.raises(RuntimeError) as caught:
                await future
            message = str(caught.value)
            assert message.startswith("Task <Task pending name=")
            assert message.endswith(f" got Future {future!r} attached to a different loop")

        run(main())
        other.close()

    def test_done_future_of_another_loop_is_fine(self, run: Run, backend: Backend) -> None:
        other = backend.new_event_loop()
        future = other.create_future()
        future.set_result("done")

        async def main() -> Any:
            return await future

        assert run(main()) == "done"
        other.close()

    def test_task_of_another_loop(self, run: Run, backend: Backend) -> None:
        other = backend.new_event_loop()
        task = other.create_task(asyncio.sleep(0, "other"))

        async def main() -> None:
            with pytest.raises(RuntimeError, match="attached to a different loop"):
                await task

        run(main())
        assert other.run_until_complete(task) == "other"
        other.close()


def run_alone(run: Run, coro: Coroutine[Any, Any, Any]) -> None:
    """Run where the loop is left with tasks that cannot end."""
    import contextlib

    # The runner cancels what is left, and meets the same recursion.
    with contextlib.suppress(RecursionError):
        run(coro)
    gc.collect()


class Duck:
    """Future-like, not a future: everything that `asyncio.isfuture` and a task ask for."""

    _asyncio_future_blocking = False
    _loop: Any
    _source_traceback = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.callbacks: list[tuple[Any, Any]] = []
        self.value: Any = None
        self.finished = False
        self.cancel_calls: list[Any] = []

    def get_loop(self) -> Any:
        return self._loop

    def add_done_callback(self, callback: Any, *, context: Any = None) -> None:
        self.callbacks.append((callback, context))

    def remove_done_callback(self, callback: Any) -> int:
        return 0

    def cancel(self, msg: Any = None) -> bool:
        self.cancel_calls.append(msg)
        return False

    def done(self) -> bool:
        return self.finished

    def result(self) -> Any:
        return self.value

    def exception(self) -> None:
        return None

    def cancelled(self) -> bool:
        return False

    def finish(self, value: Any) -> None:
        self.finished, self.value = True, value
        for callback, context in self.callbacks:
            self._loop.call_soon(callback, self, context=context)

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self.finished:
            self._asyncio_future_blocking = True
            yield self
        return self.value


class TestDucks:
    def test_wait_for_one(self, loop: asyncio.AbstractEventLoop) -> None:
        duck = Duck(loop)

        async def main() -> Any:
            return await duck

        task = loop.create_task(main())
        turn(loop)
        assert task._fut_waiter is duck
        assert duck._asyncio_future_blocking is False
        duck.finish("quack")
        assert loop.run_until_complete(task) == "quack"

    def test_cancel_reaches_it(self, loop: asyncio.AbstractEventLoop) -> None:
        duck = Duck(loop)

        async def main() -> Any:
            return await duck

        task = loop.create_task(main())
        turn(loop)
        task.cancel("message")
        # 3.11 and later pass no message on... but they all call cancel.
        assert len(duck.cancel_calls) == 1
        # It said no, so the task is cancelled when the duck is done.
        duck.finish("quack")
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)

    def test_without_blocking_flag(self, loop: asyncio.AbstractEventLoop) -> None:
        class Rude(Duck):
            def __await__(self) -> Generator[Any, Any, Any]:
                yield self

        async def main() -> None:
            await Rude(loop)

        with pytest.raises(RuntimeError, match="yield was used instead of yield from in task"):
            loop.run_until_complete(main())

    def test_of_another_loop(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        other = backend.new_event_loop()

        async def main() -> None:
            await Duck(other)

        with pytest.raises(RuntimeError, match="attached to a different loop"):
            loop.run_until_complete(main())
        other.close()

    def test_whose_callback_adding_fails(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        class Broken(Duck):
            def add_done_callback(self, callback: Any, *, context: Any = None) -> None:
                raise ZeroDivisionError

        async def main() -> str:
            try:
                await Broken(loop)
            except ZeroDivisionError:
                return "caught"
            return "nothing"

        task = loop.create_task(main())
        turn(loop, 3)
        if task.done():
            assert task.result() == "caught"
        else:
            check_surfaced(task, reports)


class AnyCoroutine(collections.abc.Coroutine[Any, Any, Any]):
    """What Cython and others make: no coroutine of CPython's, but one by its methods."""

    def __init__(self, steps: list[Any], result: Any = None) -> None:
        self.steps = steps
        self.result = result
        self.sent: list[Any] = []
        self.thrown: list[Any] = []
        self.closed = False

    def send(self, value: Any) -> Any:
        self.sent.append(value)
        if not self.steps:
            raise StopIteration(self.result)
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            return step()
        return step

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        self.thrown.append(kind)
        error = kind if value is None else value
        raise error

    def close(self) -> None:
        self.closed = True

    def __await__(self) -> Any:
        return self


class TestCoroutineLike:
    def test_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        coro = AnyCoroutine([None, None], "result")
        task = loop.create_task(coro)
        assert asyncio.iscoroutine(coro)
        assert task.get_coro() is coro
        assert loop.run_until_complete(task) == "result"
        assert coro.sent == [None, None, None]

    def test_waits_for_futures(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()

        def wait() -> Any:
            future._asyncio_future_blocking = True
            return future

        coro = AnyCoroutine([wait], "result")
        task = loop.create_task(coro)
        turn(loop)
        assert task._fut_waiter is future
        future.set_result(1)
        assert loop.run_until_complete(task) == "result"

    def test_is_cancelled(self, loop: asyncio.AbstractEventLoop) -> None:
        coro = AnyCoroutine([None, None])
        task = loop.create_task(coro)
        turn(loop)
        task.cancel("why")
        turn(loop)
        assert task.cancelled()
        assert len(coro.thrown) == 1
        thrown = coro.thrown[0]
        assert isinstance(thrown, asyncio.CancelledError)
        assert thrown.args == ("why",)

    def test_raises(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(AnyCoroutine([ValueError("no")]))
        with pytest.raises(ValueError, match="no"):
            loop.run_until_complete(task)

    @pytest.mark.parametrize("value", [None, (), (1, 2), ValueError(), StopIteration(1)])
    def test_any_result(self, loop: asyncio.AbstractEventLoop, value: Any) -> None:
        task = loop.create_task(AnyCoroutine([None], value))
        turn(loop, 2)
        assert task.result() is value

    def test_yields_garbage(self, loop: asyncio.AbstractEventLoop) -> None:
        coro = AnyCoroutine([1])
        task = loop.create_task(coro)
        turn(loop, 2)
        assert isinstance(task.exception(), RuntimeError)
        assert isinstance(coro.thrown[0], RuntimeError)

    def test_repr(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(AnyCoroutine([None]))
        assert "coro=<AnyCoroutine() without __name__>" in repr(task) or "AnyCoroutine" in repr(
            task
        )
        loop.run_until_complete(task)
        assert "AnyCoroutine" in repr(task)

    def test_stop_iteration_with_a_subclass(self, loop: asyncio.AbstractEventLoop) -> None:
        class Stop(StopIteration):
            pass

        task = loop.create_task(AnyCoroutine([Stop("value")]))
        turn(loop)
        assert task.result() == "value"


class TestIterators:
    def test_awaitable_with_a_plain_iterator(self, run: Run) -> None:
        class Awaitable:
            def __await__(self) -> Any:
                return iter([None, None, None])

        async def main() -> Any:
            return await Awaitable()

        assert run(main()) is None

    def test_awaitable_that_wraps_a_future(self, run: Run) -> None:
        class Awaitable:
            def __init__(self, future: Any) -> None:
                self.future = future

            def __await__(self) -> Any:
                return self.future.__await__()

        async def main() -> Any:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            loop.call_soon(future.set_result, 3)
            return await Awaitable(future)

        assert run(main()) == 3

    def test_iterator_of_python(self, run: Run) -> None:
        """An `__await__` that hands on what the future yields, as greenlet bridges do."""

        class Relay:
            def __init__(self, future: Any) -> None:
                self.iterator = future.__await__()

            def __await__(self) -> Relay:
                return self

            def __iter__(self) -> Relay:
                return self

            def __next__(self) -> Any:
                return next(self.iterator)

        async def main() -> Any:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            loop.call_soon(future.set_result, 3)
            return await Relay(future)

        assert run(main()) == 3

    def test_throw_into_an_iterator_without_throw(self, loop: asyncio.AbstractEventLoop) -> None:
        class Awaitable:
            def __await__(self) -> Any:
                return iter([None] * 10)

        async def main() -> None:
            await Awaitable()

        task = loop.create_task(main())
        turn(loop, 2)
        task.cancel()
        turn(loop)
        assert task.cancelled()

    def test_yield_from_future_in_a_generator(self, run: Run) -> None:
        async def main() -> Any:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            loop.call_soon(future.set_result, (1, 2))
            return await from_(future)

        assert run(main()) == (1, 2)

    def test_gathered_from_a_generator(self, run: Run) -> None:
        """Several futures at once behind one future, as a `yield` of a done one between."""

        async def main() -> list[Any]:
            loop = asyncio.get_running_loop()
            seen: list[Any] = []
            for number in range(5):
                future = loop.create_future()
                if number % 2:
                    future.set_result(number)
                else:
                    loop.call_soon(future.set_result, number)
                seen.append(await from_(future.__await__()))
                seen.append(await give(None))
            return seen

        assert run(main()) == [0, None, 1, None, 2, None, 3, None, 4, None]

    def test_the_value_sent_is_none(self, run: Run) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            loop.call_soon(future.set_result, "value")

            @types.coroutine
            def look() -> Generator[Any, Any, Any]:
                future._asyncio_future_blocking = True
                got = yield future
                return got

            assert await look() is None

        run(main())


class TestAsyncGenerators:
    def test_in_a_task(self, run: Run) -> None:
        async def generate() -> Any:
            for number in range(5):
                await asyncio.sleep(0)
                yield number

        async def main() -> list[int]:
            return [number async for number in generate()]

        assert run(main()) == [0, 1, 2, 3, 4]

    def test_asend_as_a_task(self, loop: asyncio.AbstractEventLoop) -> None:
        """`asend()` gives an awaitable that is no coroutine."""

        async def generate() -> Any:
            got = yield 1
            yield got

        async def main() -> list[Any]:
            made = generate()
            seen = [await made.asend(None), await made.asend("two")]
            await made.aclose()
            return seen

        assert loop.run_until_complete(main()) == [1, "two"]

    def test_anext_with_a_default(self, run: Run) -> None:
        async def generate() -> Any:
            yield 1

        async def main() -> list[Any]:
            made = generate()
            return [await anext(made), await anext(made, "default")]

        assert run(main()) == [1, "default"]


class TestDepth:
    def test_deep_chain_of_coroutines(self, run: Run) -> None:
        async def deeper(depth: int) -> int:
            if depth:
                return 1 + await deeper(depth - 1)
            await asyncio.sleep(0)
            return 0

        assert run(deeper(200)) == 200

    def test_recursion_error_in_a_step(self, loop: asyncio.AbstractEventLoop) -> None:
        async def deeper() -> None:
            await deeper()

        with pytest.raises(RecursionError):
            loop.run_until_complete(deeper())
        assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1

    def test_long_chain_of_tasks(self, run: Run) -> None:
        """Each waits for the one before; neither waking nor dropping them may recurse."""

        async def follow(before: asyncio.Future[int]) -> int:
            return 1 + await before

        async def main() -> int:
            loop = asyncio.get_running_loop()
            first = loop.create_future()
            last: asyncio.Future[int] = first
            for _ in range(5000):
                last = loop.create_task(follow(last))
            loop.call_soon(first.set_result, 0)
            return await last

        assert run(main()) == 5000
