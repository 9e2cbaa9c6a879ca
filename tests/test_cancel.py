"""Cancelling tasks: when it arrives, what it says, who may refuse it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from backends import PY313
from turns import turn

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def message_of(task: asyncio.Task[Any]) -> tuple[Any, ...]:
    with pytest.raises(asyncio.CancelledError) as caught:
        task.result()
    return caught.value.args


class TestArrival:
    def test_before_the_start(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []

        async def main() -> None:
            seen.append(1)

        task = loop.create_task(main())
        assert task.cancel() is True
        assert not task.cancelled()
        assert not task.done()
        turn(loop)
        assert task.cancelled()
        assert seen == []

    def test_while_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []

        async def main() -> None:
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = loop.create_task(main())
        turn(loop)
        waiter = task._fut_waiter
        assert task.cancel() is True
        assert waiter.cancelled()
        assert seen == []
        turn(loop)
        assert seen == ["cancelled"]
        assert task.cancelled()

    def test_while_ready(self, loop: asyncio.AbstractEventLoop) -> None:
        """The future is done and the task is to be woken: the cancellation still wins."""
        future = loop.create_future()

        async def main() -> str:
            return str(await future)

        task = loop.create_task(main())
        turn(loop)
        future.set_result("result")
        assert task.cancel() is True
        turn(loop)
        assert task.cancelled()
        assert future.result() == "result"

    def test_between_sleeps_of_zero(self, loop: asyncio.AbstractEventLoop) -> None:
        steps: list[int] = []

        async def main() -> None:
            for number in range(10):
                steps.append(number)
                await asyncio.sleep(0)

        task = loop.create_task(main())
        turn(loop, 3)
        task.cancel()
        turn(loop)
        assert task.cancelled()
        assert steps == [0, 1, 2]

    def test_of_itself_comes_at_the_next_await(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []

        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancel() is True
            seen.append("still here")
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = loop.create_task(main())
        turn(loop, 3)
        assert seen == ["still here", "cancelled"]
        assert task.cancelled()

    def test_of_itself_without_an_await(self, loop: asyncio.AbstractEventLoop) -> None:
        """A task that asks for its own end and returns is cancelled."""

        async def main() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return "result"

        task = loop.create_task(main())
        turn(loop)
        assert task.cancelled()

    def test_of_itself_before_raising(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            raise ValueError("own")

        task = loop.create_task(main())
        turn(loop)
        assert isinstance(task.exception(), ValueError)

    def test_of_itself_before_a_done_future(self, loop: asyncio.AbstractEventLoop) -> None:
        """Awaiting what is done does not suspend, and takes no cancellation."""
        done = loop.create_future()
        done.set_result("done")
        seen: list[str] = []

        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            seen.append(await done)
            await loop.create_future()
            seen.append("never")

        task = loop.create_task(main())
        turn(loop, 3)
        assert seen == ["done"]
        assert task.cancelled()

    def test_of_itself_cancels_what_it_waits_for_next(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        future = loop.create_future()

        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel("note")
            await future

        task = loop.create_task(main())
        turn(loop, 2)
        assert future.cancelled()
        assert future._cancel_message == "note"
        assert task.cancelled()

    def test_goes_down_the_chain(self, loop: asyncio.AbstractEventLoop) -> None:
        inner = loop.create_task(forever())

        async def middle() -> None:
            await inner

        async def outer() -> None:
            await task

        task = loop.create_task(middle())
        top = loop.create_task(outer())
        turn(loop, 2)
        top.cancel()
        turn(loop, 4)
        assert top.cancelled()
        assert task.cancelled()
        assert inner.cancelled()

    def test_done(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(asyncio.sleep(0, "result"))
        loop.run_until_complete(task)
        assert task.cancel() is False
        assert task.result() == "result"
        assert not task.cancelled()

    def test_twice(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(forever())
        turn(loop)
        assert task.cancel() is True
        assert task.cancel() is True
        turn(loop)
        assert task.cancelled()
        assert task.cancel() is False

    def test_again_while_cleaning_up(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []

        async def main() -> None:
            try:
                await loop.create_future()
            finally:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError as error:
                    seen.append(str(error))

        task = loop.create_task(main())
        turn(loop)
        task.cancel("first")
        turn(loop)
        assert not task.done()
        task.cancel("second")
        turn(loop, 2)
        assert seen == ["second"]
        assert task.cancelled()
        assert message_of(task) == ("first",)

    def test_by_a_callback_of_the_awaited_future(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()

        async def main() -> Any:
            return await future

        task = loop.create_task(main())
        future.add_done_callback(lambda _: task.cancel())
        turn(loop)
        future.set_result("result")
        turn(loop, 3)
        assert task.cancelled()

    def test_in_a_done_callback_is_too_late(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[bool] = []
        task = loop.create_task(asyncio.sleep(0, "result"))
        task.add_done_callback(lambda t: seen.append(t.cancel()))
        loop.run_until_complete(task)
        turn(loop)
        assert seen == [False]


class TestRefusal:
    def test_swallowed(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> str:
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                return "stayed"
            return "never"

        task = loop.create_task(main())
        turn(loop)
        task.cancel()
        assert loop.run_until_complete(task) == "stayed"
        assert not task.cancelled()
        assert task.cancelling() == 1

    def test_turned_into_another_error(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                raise ValueError("instead") from None

        task = loop.create_task(main())
        turn(loop)
        task.cancel()
        with pytest.raises(ValueError, match="instead"):
            loop.run_until_complete(task)

    def test_goes_on_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()

        async def main() -> Any:
            while True:
                try:
                    return await asyncio.shield(future)
                except asyncio.CancelledError:
                    continue

        task = loop.create_task(main())
        turn(loop)
        for _ in range(5):
            task.cancel()
            turn(loop, 2)
            assert not task.done()
        future.set_result("at last")
        assert loop.run_until_complete(task) == "at last"

    def test_raised_without_a_request(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            raise asyncio.CancelledError("own")

        task = loop.create_task(main())
        turn(loop)
        assert task.cancelled()
        assert task.cancelling() == 0
        assert message_of(task) == ("own",)

    def test_subclass_of_cancelled_error(self, loop: asyncio.AbstractEventLoop) -> None:
        class Mine(asyncio.CancelledError):
            pass

        async def main() -> None:
            raise Mine("mine")

        task = loop.create_task(main())
        turn(loop)
        assert task.cancelled()
        with pytest.raises(asyncio.CancelledError):
            task.result()


class TestMessage:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ((), ()),
            ((None,), ()),
            (("text",), ("text",)),
            (("",), ("",)),
            ((0,), (0,)),
            (((1, 2),), ((1, 2),)),
        ],
    )
    @pytest.mark.parametrize("started", [False, True])
    def test_reaches_the_coroutine_and_the_waiter(
        self,
        loop: asyncio.AbstractEventLoop,
        arguments: tuple[Any, ...],
        expected: tuple[Any, ...],
        started: bool,
    ) -> None:
        seen: list[Any] = []

        async def main() -> None:
            try:
                await loop.create_future()
            except asyncio.CancelledError as error:
                seen.append(error.args)
                raise

        task = loop.create_task(main())
        if started:
            turn(loop)
        task.cancel(*arguments)
        with pytest.raises(asyncio.CancelledError) as caught:
            loop.run_until_complete(task)
        assert caught.value.args == expected
        assert seen == ([expected] if started else [])

    def test_keyword(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(forever())
        turn(loop)
        task.cancel(msg="text")
        turn(loop)
        assert message_of(task) == ("text",)

    def test_last_one_wins_before_it_arrives(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(forever())
        task.cancel("first")
        task.cancel("second")
        turn(loop)
        assert message_of(task) == ("second",)

    def test_through_a_chain_of_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        async def middle() -> None:
            await inner

        inner = loop.create_task(forever())
        outer = loop.create_task(middle())
        turn(loop, 2)
        outer.cancel("down the chain")
        turn(loop, 3)
        assert inner.cancelled()
        assert message_of(outer) == ("down the chain",)

    def test_of_the_awaited_task_reaches_the_waiter(self, loop: asyncio.AbstractEventLoop) -> None:
        async def waiting() -> None:
            await inner

        inner = loop.create_task(forever())
        outer = loop.create_task(waiting())
        turn(loop, 2)
        inner.cancel("from inside")
        turn(loop, 3)
        assert message_of(outer) == ("from inside",)

    def test_the_same_exception_object_arrives(self, loop: asyncio.AbstractEventLoop) -> None:
        """What the coroutine raises is what the first waiter gets, attributes and all."""
        raised: list[BaseException] = []

        async def inner() -> None:
            try:
                await loop.create_future()
            except asyncio.CancelledError as error:
                error.note = "mine"  # type: ignore[attr-defined]
                raised.append(error)
                raise

        async def outer(task: asyncio.Task[None]) -> None:
            try:
                await task
            except asyncio.CancelledError as error:
                raised.append(error)

        task = loop.create_task(inner())
        waiting = loop.create_task(outer(task))
        turn(loop, 2)
        task.cancel("text")
        turn(loop, 3)
        assert waiting.done()
        assert raised[0] is raised[1]

    def test_traceback_leads_to_the_await(self, loop: asyncio.AbstractEventLoop) -> None:
        async def inner() -> None:
            await loop.create_future()

        async def outer() -> None:
            await inner()

        task = loop.create_task(outer())
        turn(loop)
        task.cancel()
        turn(loop)
        with pytest.raises(asyncio.CancelledError) as caught:
            task.result()
        names = [entry.name for entry in caught.traceback]
        assert "outer" in names
        assert "inner" in names

    def test_exception_asks_for_it_too(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(forever())
        turn(loop)
        task.cancel("text")
        turn(loop)
        with pytest.raises(asyncio.CancelledError) as caught:
            task.exception()
        assert caught.value.args == ("text",)


class TestCounting:
    def test_cancelling_and_uncancel(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(forever())
        turn(loop)
        assert task.cancelling() == 0
        assert task.uncancel() == 0
        task.cancel()
        assert task.cancelling() == 1
        task.cancel()
        assert task.cancelling() == 2
        assert task.uncancel() == 1
        assert task.cancelling() == 1
        assert task.uncancel() == 0
        assert task.uncancel() == 0
        turn(loop)
        assert task.cancelled()

    def test_uncancel_before_it_arrives(self, loop: asyncio.AbstractEventLoop) -> None:
        """Since 3.13 it takes back a request that has not been delivered."""
        task = loop.create_task(asyncio.sleep(0, "result"))
        task.cancel()
        assert task.uncancel() == 0
        turn(loop, 3)
        assert task.done()
        assert task.cancelled() is not PY313
        if PY313:
            assert task.result() == "result"

    def test_uncancel_of_one_of_two(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(asyncio.sleep(0, "result"))
        task.cancel()
        task.cancel()
        assert task.uncancel() == 1
        turn(loop, 3)
        assert task.cancelled()

    def test_not_counted_when_done(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(asyncio.sleep(0))
        loop.run_until_complete(task)
        task.cancel()
        assert task.cancelling() == 0

    def test_timeout_uses_them(self, run: Run) -> None:
        async def main() -> list[int]:
            task = asyncio.current_task()
            assert task is not None
            seen = [task.cancelling()]
            try:
                async with asyncio.timeout(0):
                    await forever()
            except TimeoutError:
                seen.append(task.cancelling())
            return seen

        assert run(main()) == [0, 0]

    def test_timeout_and_a_cancel_from_outside(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            async with asyncio.timeout(1000):
                await forever()

        task = loop.create_task(main())
        turn(loop, 2)
        task.cancel("outside")
        turn(loop, 2)
        assert task.cancelled()
        assert task.cancelling() == 1

    def test_task_group_uses_them(self, run: Run) -> None:
        async def fail() -> None:
            raise ValueError("child")

        async def grouped() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                group.create_task(forever())
                await forever()

        async def main() -> int:
            task = asyncio.current_task()
            assert task is not None
            with pytest.raises(ExceptionGroup) as caught:
                await grouped()
            assert [str(error) for error in caught.value.exceptions] == ["child"]
            return task.cancelling()

        assert run(main()) == 0


class TestShield:
    def test_outer_is_cancelled_inner_goes_on(self, loop: asyncio.AbstractEventLoop) -> None:
        inner = loop.create_future()

        async def main() -> None:
            await asyncio.shield(inner)

        task = loop.create_task(main())
        turn(loop)
        task.cancel()
        turn(loop, 2)
        assert task.cancelled()
        assert not inner.done()
        inner.set_result(None)
        turn(loop)

    def test_gather_passes_it_to_its_children(self, run: Run) -> None:
        async def main() -> None:
            tasks = [asyncio.ensure_future(forever()) for _ in range(3)]
            gathering = asyncio.gather(*tasks)
            await asyncio.sleep(0)
            assert gathering.cancel("all")
            with pytest.raises(asyncio.CancelledError):
                await gathering
            assert all(task.cancelled() for task in tasks)

        run(main())

    def test_wait_for_cancelled_from_outside(self, run: Run) -> None:
        async def main() -> None:
            inner = asyncio.ensure_future(forever())
            outer = asyncio.ensure_future(asyncio.wait_for(inner, 1000))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            outer.cancel("outside")
            with pytest.raises(asyncio.CancelledError):
                await outer
            assert inner.cancelled()

        run(main())

    def test_wait_for_a_result_that_comes_with_the_cancellation(self, run: Run) -> None:
        """Neither is lost: 3.12 gives the cancellation, before that the result may come."""

        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            outer = asyncio.ensure_future(asyncio.wait_for(future, 1000))
            await asyncio.sleep(0)
            future.set_result("result")
            outer.cancel()
            try:
                assert await outer == "result"
            except asyncio.CancelledError:
                assert outer.cancelled()

        run(main())
