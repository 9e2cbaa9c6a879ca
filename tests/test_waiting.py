"""A task that waits for a future: how the pair looks from outside, and what can be done to it.

Between the two lies the shortest way that the loop has, so everything that may cut across it is
tried here: callbacks taken away, objects initialised again, classes changed, loops closed, methods
replaced, all while the task waits.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from backends import PY315, Backend
from turns import raised, turn


class Pair:
    """A task that waits for a future."""

    def __init__(self, backend: Backend, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future = loop.create_future()
        self.got: list[Any] = []

        async def wait() -> Any:
            try:
                self.got.append(await self.future)
            except BaseException as error:
                self.got.append(type(error))
                raise
            return self.got[-1]

        self.task = loop.create_task(wait(), name="waiting")
        turn(loop)
        assert self.task._fut_waiter is self.future


@pytest.fixture
def pair(backend: Backend, loop: asyncio.AbstractEventLoop) -> Iterator[Pair]:
    made = Pair(backend, loop)
    yield made
    if not made.task.done():
        made.task._log_destroy_pending = False


class TestLooks:
    def test_callbacks(self, pair: Pair) -> None:
        callbacks = pair.future._callbacks
        assert callbacks is not None
        ((callback, context),) = callbacks
        assert callable(callback)
        assert callback.__self__ is pair.task
        assert "task_wakeup" in callback.__name__ or "wakeup" in repr(callback)
        assert pair.future._callbacks == callbacks
        if hasattr(pair.task, "get_context"):
            assert context is pair.task.get_context()
        pair.future.set_result(None)
        turn(pair.loop)

    @pytest.mark.outside_debug
    def test_repr(self, pair: Pair) -> None:
        assert repr(pair.future) == "<Future pending cb=[Task.task_wakeup()]>"
        assert repr(pair.task).endswith(" wait_for=<Future pending cb=[Task.task_wakeup()]>>")

    def test_looking_changes_nothing(self, pair: Pair) -> None:
        for _ in range(3):
            repr(pair.future)
            pair.future._callbacks
            gc.get_referents(pair.future)
            gc.get_referrers(pair.task)
        gc.collect()
        pair.future.set_result("value")
        turn(pair.loop)
        assert pair.task.result() == "value"

    def test_in_debug(self, backend: Backend, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_debug(True)
        made = Pair(backend, loop)
        assert " wait_for=<Future pending cb=[Task.task_wakeup()] created at " in repr(made.task)
        made.future.set_result("value")
        turn(loop)
        assert made.task.result() == "value"

    def test_mixed_with_callbacks(self, pair: Pair) -> None:
        pair.future.add_done_callback(pair.got.append)
        callbacks = pair.future._callbacks
        assert callbacks is not None
        assert len(callbacks) == 2
        assert callbacks[0][0].__self__ is pair.task
        pair.future.set_result("value")
        turn(pair.loop)
        assert pair.got == ["value", pair.future]


class TestTakenAway:
    def test_removed(self, pair: Pair) -> None:
        """Who takes the task's callback away cuts it off."""
        callbacks = pair.future._callbacks
        assert callbacks is not None
        assert pair.future.remove_done_callback(callbacks[0][0]) == 1
        assert not pair.future._callbacks
        pair.future.set_result("value")
        turn(pair.loop, 2)
        assert pair.got == []
        pair.task.cancel()
        turn(pair.loop, 2)

    def test_removed_and_put_back(self, pair: Pair) -> None:
        callbacks = pair.future._callbacks
        assert callbacks is not None
        callback, context = callbacks[0]
        pair.future.remove_done_callback(callback)
        pair.future.add_done_callback(callback, context=context)
        pair.future.set_result("value")
        turn(pair.loop)
        assert pair.got == ["value"]

    def test_called_by_hand(self, pair: Pair) -> None:
        """The callback is an ordinary callable: it can be called early, with the future done."""
        callbacks = pair.future._callbacks
        assert callbacks is not None
        callback, _ = callbacks[0]
        pair.future.remove_done_callback(callback)
        pair.future.set_result("value")
        pair.loop.call_soon(callback, pair.future)
        turn(pair.loop)
        assert pair.got == ["value"]

    def test_equality_that_is_asked(self, pair: Pair) -> None:
        """Removing another callback compares with the task's, which is nobody's equal."""

        class Equal:
            def __eq__(self, other: object) -> bool:
                compared.append(other)
                return False

            __hash__ = object.__hash__

            def __call__(self, _: Any) -> None:
                pass

        compared: list[Any] = []
        assert pair.future.remove_done_callback(Equal()) == 0
        assert pair.future.remove_done_callback(pair.task) == 0  # type: ignore[arg-type]
        pair.future.set_result("value")
        turn(pair.loop)
        assert pair.got == ["value"]

    @pytest.mark.skipif(PY315, reason="refused from 3.15 on")
    def test_future_initialised_again(self, pair: Pair) -> None:
        """It forgets who waits; the task can still be cancelled."""
        pair.future.__init__(loop=pair.loop)  # type: ignore[misc]
        assert not pair.future._callbacks
        pair.future.set_result("value")
        turn(pair.loop, 2)
        assert pair.got == []
        pair.task.cancel()
        turn(pair.loop, 2)
        gc.collect()

    def test_future_changes_its_class(
        self, backend: Backend, loop: asyncio.AbstractEventLoop
    ) -> None:
        class Ours(backend.Future):  # type: ignore[misc, name-defined]
            pass

        class Stock(asyncio.Future):  # type: ignore[type-arg]
            pass

        for first, second in ((Ours, Stock), (Stock, Ours)):
            future = first(loop=loop)

            async def wait(future: Any = future) -> Any:
                return await future

            task = loop.create_task(wait())
            turn(loop)
            try:
                future.__class__ = second
            except TypeError:
                pass
            future.set_result("value")
            assert loop.run_until_complete(asyncio.wait_for(task, 5)) == "value"


class TestClosed:
    def test_result_on_a_closed_loop(self, backend: Backend, reports: list[dict[str, Any]]) -> None:
        loop = backend.new_event_loop()
        made = Pair(backend, loop)
        loop.close()
        assert raised(made.future.set_result, 1) == (RuntimeError, "Event loop is closed")
        assert made.future.done()
        made.task._log_destroy_pending = False

    def test_cancel_on_a_closed_loop(self, backend: Backend, reports: list[dict[str, Any]]) -> None:
        loop = backend.new_event_loop()
        made = Pair(backend, loop)
        loop.close()
        assert raised(made.task.cancel) == (RuntimeError, "Event loop is closed")
        made.task._log_destroy_pending = False

    def test_ready_when_the_loop_closes(
        self, backend: Backend, reports: list[dict[str, Any]]
    ) -> None:
        """The task is in the ready queue, which close() empties: it is destroyed pending."""
        loop = backend.new_event_loop()
        made = Pair(backend, loop)
        made.future.set_result(1)
        alive = weakref.ref(made.task)
        loop.close()
        del made
        gc.collect()
        reports_of_task = [r for r in reports if "destroyed" in r["message"]]
        assert len(reports_of_task) == 1
        reports.clear()
        reports_of_task.clear()
        gc.collect()
        assert alive() is None

    def test_task_dropped_while_ready(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        """The queue holds it: nothing else has to."""
        made = Pair(backend, loop)
        got = made.got
        made.future.set_result("value")
        del made
        gc.collect()
        turn(loop)
        assert got == ["value"]

    def test_dropped_together(self, backend: Backend, reports: list[dict[str, Any]]) -> None:
        loop = backend.new_event_loop()
        made = Pair(backend, loop)
        alive = [weakref.ref(made.task), weakref.ref(made.future)]
        del made
        gc.collect()
        assert [r["message"] for r in reports] == ["Task was destroyed but it is pending!"]
        reports.clear()
        gc.collect()
        assert [ref() for ref in alive] == [None, None]
        loop.close()


class TestReplaced:
    def test_call_soon_replaced_while_it_waits(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Any] = []
        kept = pair.loop.call_soon

        def spying(callback: Any, *arguments: Any, **keywords: Any) -> Any:
            seen.append((callback, arguments, keywords))
            return kept(callback, *arguments, **keywords)

        monkeypatch.setattr(pair.loop, "call_soon", spying)
        pair.future.set_result("value")
        assert len(seen) == 1
        callback, arguments, keywords = seen[0]
        assert callback.__self__ is pair.task
        assert arguments == (pair.future,)
        assert set(keywords) == {"context"}
        monkeypatch.undo()
        turn(pair.loop)
        assert pair.got == ["value"]

    def test_call_soon_that_drops_it(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pair.loop, "call_soon", lambda *_, **__: None)
        pair.future.set_result("value")
        monkeypatch.undo()
        turn(pair.loop, 2)
        assert pair.got == []
        pair.task.cancel()
        turn(pair.loop, 2)

    def test_call_soon_that_raises(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any, **__: Any) -> Any:
            raise ZeroDivisionError

        monkeypatch.setattr(pair.loop, "call_soon", broken)
        with pytest.raises(ZeroDivisionError):
            pair.future.set_result("value")
        monkeypatch.undo()
        assert pair.future.done()

    def test_class_wide(
        self, backend: Backend, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The method of the class is replaced: by a tracer, say."""
        seen: list[Any] = []
        kind = type(pair.loop)
        kept = kind.call_soon

        def spying(self: Any, callback: Any, *arguments: Any, **keywords: Any) -> Any:
            seen.append(callback)
            return kept(self, callback, *arguments, **keywords)

        monkeypatch.setattr(kind, "call_soon", spying)
        pair.future.set_result("value")
        pair.loop.call_soon(int)
        assert len(seen) == 2
        monkeypatch.undo()
        turn(pair.loop)
        assert pair.got == ["value"]


class TestTwice:
    def test_both_done_and_cancelled(self, pair: Pair) -> None:
        pair.future.set_result("value")
        pair.task.cancel()
        pair.task.cancel("again")
        turn(pair.loop)
        assert pair.got == [asyncio.CancelledError]

    def test_woken_twice(self, pair: Pair, reports: list[dict[str, Any]]) -> None:
        """The callback was registered a second time: one step too many, and it is reported."""
        callbacks = pair.future._callbacks
        assert callbacks is not None
        pair.future.add_done_callback(callbacks[0][0])
        pair.future.set_result("value")
        turn(pair.loop)
        assert pair.got == ["value"]
        assert [type(r["exception"]) for r in reports] == [asyncio.InvalidStateError]

    def test_one_task_and_many_futures(self, loop: asyncio.AbstractEventLoop) -> None:
        futures = [loop.create_future() for _ in range(100)]

        async def wait() -> int:
            return sum([await future for future in futures])

        task = loop.create_task(wait())
        turn(loop)
        for number, future in reversed(list(enumerate(futures))):
            future.set_result(number)
        turn(loop)
        assert task.result() == sum(range(100))

    def test_future_done_by_its_own_waiter(self, pair: Pair) -> None:
        """A second task completes it and waits for it in the same step."""

        async def complete() -> Any:
            pair.future.set_result("value")
            return await pair.future

        task = pair.loop.create_task(complete())
        turn(pair.loop, 2)
        assert task.result() == "value"
        assert pair.got == ["value"]
