"""add_done_callback and remove_done_callback: order, contexts, reentrancy, errors."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from backends import Backend
from turns import raised, turn


def nothing(*arguments: Any) -> None:
    pass


async def pause() -> None:
    await asyncio.sleep(0)


@pytest.fixture(params=["future", "task"])
def make(
    request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop
) -> Iterator[Callable[[], asyncio.Future[Any]]]:
    """Makes things that are pending and that `finish` brings to an end."""
    made: list[asyncio.Future[Any]] = []

    def future() -> asyncio.Future[Any]:
        made.append(loop.create_future())
        return made[-1]

    def task() -> asyncio.Future[Any]:
        made.append(loop.create_task(pause()))
        return made[-1]

    yield future if request.param == "future" else task
    for each in made:
        finish(loop, each)


def finish(loop: asyncio.AbstractEventLoop, thing: asyncio.Future[Any]) -> None:
    """Complete the thing and let its callbacks run."""
    if not thing.done() and not isinstance(thing, asyncio.Task):
        thing.set_result(None)
    turn(loop, 4)
    assert thing.done()


Make = Callable[[], asyncio.Future[Any]]


class TestOrder:
    @pytest.mark.parametrize("count", [1, 2, 3, 10])
    def test_first_in_first_out(
        self, loop: asyncio.AbstractEventLoop, make: Make, count: int
    ) -> None:
        thing = make()
        seen: list[int] = []
        for number in range(count):
            assert thing.add_done_callback(lambda _, n=number: seen.append(n)) is None
        finish(loop, thing)
        assert seen == list(range(count))

    def test_callback_gets_the_future(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        thing = make()
        seen: list[Any] = []
        thing.add_done_callback(seen.append)
        finish(loop, thing)
        assert seen == [thing]

    def test_never_called_at_once(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        seen: list[Any] = []
        future.add_done_callback(seen.append)
        future.set_result(1)
        assert seen == []
        future.add_done_callback(lambda f: seen.append("late"))
        assert seen == []
        turn(loop)
        assert seen == [future, "late"]

    def test_the_same_twice_is_called_twice(
        self, loop: asyncio.AbstractEventLoop, make: Make
    ) -> None:
        thing = make()
        seen: list[Any] = []
        thing.add_done_callback(seen.append)
        thing.add_done_callback(seen.append)
        finish(loop, thing)
        assert seen == [thing, thing]

    def test_interleaved_with_call_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        one, two = loop.create_future(), loop.create_future()
        seen: list[str] = []
        one.add_done_callback(lambda _: seen.append("one a"))
        two.add_done_callback(lambda _: seen.append("two"))
        one.add_done_callback(lambda _: seen.append("one b"))
        loop.call_soon(seen.append, "soon 1")
        two.set_result(None)
        loop.call_soon(seen.append, "soon 2")
        one.set_result(None)
        loop.call_soon(seen.append, "soon 3")
        turn(loop)
        assert seen == ["soon 1", "two", "soon 2", "one a", "one b", "soon 3"]

    def test_on_cancel_too(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        seen: list[bool] = []
        future.add_done_callback(lambda f: seen.append(f.cancelled()))
        future.cancel()
        turn(loop)
        assert seen == [True]


class TestReentrancy:
    def test_added_by_a_callback(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        thing = make()
        seen: list[str] = []

        def first(done: Any) -> None:
            seen.append("first")
            done.add_done_callback(lambda _: seen.append("added"))

        thing.add_done_callback(first)
        thing.add_done_callback(lambda _: seen.append("second"))
        finish(loop, thing)
        assert seen == ["first", "second", "added"]

    def test_removed_by_a_callback_is_too_late(
        self, loop: asyncio.AbstractEventLoop, make: Make
    ) -> None:
        thing = make()
        seen: list[Any] = []

        def second(_: Any) -> None:
            seen.append("second")

        thing.add_done_callback(lambda done: seen.append(done.remove_done_callback(second)))
        thing.add_done_callback(second)
        finish(loop, thing)
        assert seen == [0, "second"]

    def test_a_callback_that_cancels(self, loop: asyncio.AbstractEventLoop) -> None:
        one, two = loop.create_future(), loop.create_future()
        seen: list[str] = []
        one.add_done_callback(lambda _: two.cancel())
        two.add_done_callback(lambda _: seen.append("two is done"))
        one.set_result(None)
        turn(loop)
        assert two.cancelled()
        assert seen == []
        turn(loop)
        assert seen == ["two is done"]

    def test_a_chain(self, loop: asyncio.AbstractEventLoop) -> None:
        futures = [loop.create_future() for _ in range(1000)]
        for one, two in itertools.pairwise(futures):
            one.add_done_callback(lambda f, two=two: two.set_result(f.result() + 1))
        futures[0].set_result(0)
        assert loop.run_until_complete(futures[-1]) == 999

    def test_a_callback_that_drops_the_last_reference(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        holder: dict[str, Any] = {"future": loop.create_future()}
        alive = weakref.ref(holder["future"])
        seen: list[str] = []

        def drop(_: Any) -> None:
            holder.clear()
            seen.append("dropped")

        holder["future"].add_done_callback(drop)
        holder["future"].add_done_callback(lambda _: seen.append("second"))
        holder["future"].set_result(None)
        turn(loop)
        assert seen == ["dropped", "second"]
        assert alive() is None


class TestRemove:
    def test_counts(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        thing = make()
        seen: list[str] = []

        def one(_: Any) -> None:
            seen.append("one")

        def two(_: Any) -> None:
            seen.append("two")

        for callback in (one, two, one, two, two):
            thing.add_done_callback(callback)
        assert thing.remove_done_callback(nothing) == 0
        assert thing.remove_done_callback(one) == 2
        assert thing.remove_done_callback(one) == 0
        finish(loop, thing)
        assert seen == ["two", "two", "two"]

    @pytest.mark.parametrize("count", range(5))
    def test_each_position(self, loop: asyncio.AbstractEventLoop, make: Make, count: int) -> None:
        """The first callback may live apart from the others."""
        for gone in range(count):
            thing = make()
            seen: list[int] = []
            callbacks = [lambda _, n=n, seen=seen: seen.append(n) for n in range(count)]
            for callback in callbacks:
                thing.add_done_callback(callback)
            assert thing.remove_done_callback(callbacks[gone]) == 1
            thing.add_done_callback(lambda _, seen=seen: seen.append(99))
            finish(loop, thing)
            assert seen == [n for n in range(count) if n != gone] + [99]

    def test_by_equality(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        """Bound methods are made anew at each look, and equal."""

        class Thing:
            def method(self, _: Any) -> None:
                raise AssertionError("was removed")

        thing, other = make(), Thing()
        for _ in range(3):
            thing.add_done_callback(other.method)
        assert thing.remove_done_callback(other.method) == 3
        finish(loop, thing)

    def test_when_done(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        thing = make()
        thing.add_done_callback(nothing)
        finish(loop, thing)
        assert thing.remove_done_callback(nothing) == 0

    def test_equality_that_raises(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        class Odd:
            def __eq__(self, other: object) -> bool:
                raise ZeroDivisionError

            def __call__(self, _: Any) -> None:
                pass

        for others in ([], [nothing], [nothing, nothing]):
            thing = make()
            for callback in (*others, Odd()):
                thing.add_done_callback(callback)
            with pytest.raises(ZeroDivisionError):
                thing.remove_done_callback(Odd())
            finish(loop, thing)

    def test_equality_that_empties_the_list(
        self, loop: asyncio.AbstractEventLoop, make: Make
    ) -> None:
        """The comparison runs code of the user, who removes what is being looked at."""
        thing = make()
        nested = False

        class Evil:
            def __call__(self, _: Any) -> None:
                pass

            def __eq__(self, other: object) -> bool:
                nonlocal nested
                if not nested:
                    nested = True
                    thing.remove_done_callback(nothing)
                    nested = False
                return False

            __hash__ = object.__hash__

        for callback in (Evil(), nothing, Evil(), nothing, nothing):
            thing.add_done_callback(callback)
        thing.remove_done_callback(Evil())
        assert thing.remove_done_callback(nothing) == 0
        finish(loop, thing)

    def test_equality_that_adds(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        thing = make()
        added = 0

        class Evil:
            def __call__(self, _: Any) -> None:
                pass

            def __eq__(self, other: object) -> bool:
                nonlocal added
                added += 1
                if added < 50:
                    thing.add_done_callback(nothing)
                return True

            __hash__ = object.__hash__

        for callback in (Evil(), Evil(), Evil()):
            thing.add_done_callback(callback)
        try:
            thing.remove_done_callback(Evil())
        except RuntimeError:
            # "list changed size during iteration" is as good an answer.
            pass
        finish(loop, thing)

    def test_equality_that_completes(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()

        class Evil:
            def __call__(self, _: Any) -> None:
                pass

            def __eq__(self, other: object) -> bool:
                if not future.done():
                    future.set_result(None)
                return True

            __hash__ = object.__hash__

        for callback in (Evil(), Evil(), Evil()):
            future.add_done_callback(callback)
        future.remove_done_callback(Evil())
        turn(loop)
        assert future.done()

    def test_drops_its_reference(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        class Thing:
            def method(self, _: Any) -> None:
                pass

        for before in range(3):
            thing, other = make(), Thing()
            alive = weakref.ref(other)
            for _ in range(before):
                thing.add_done_callback(nothing)
            thing.add_done_callback(other.method)
            thing.remove_done_callback(other.method)
            del other
            assert alive() is None


class TestContext:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def test_the_current_one_is_copied(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        seen: list[str] = []

        def look(_: Any) -> None:
            seen.append(self.variable.get())
            self.variable.set("changed by a callback")

        thing = make()

        def add() -> None:
            for word in ("one", "two", "three"):
                self.variable.set(word)
                thing.add_done_callback(look)

        contextvars.copy_context().run(add)
        finish(loop, thing)
        thing.add_done_callback(look)
        turn(loop)
        assert seen == ["one", "two", "three", "unset"]
        assert self.variable.get() == "unset"

    def test_the_given_one(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        context = contextvars.Context()
        thing = make()
        thing.add_done_callback(lambda _: self.variable.set("one"), context=context)
        thing.add_done_callback(
            lambda _: self.variable.set(self.variable.get() + " two"), context=context
        )
        finish(loop, thing)
        assert context[self.variable] == "one two"
        thing.add_done_callback(
            lambda _: self.variable.set(self.variable.get() + " three"), context=context
        )
        turn(loop)
        assert context[self.variable] == "one two three"

    def test_none_is_left_to_call_soon(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        seen: list[str] = []
        thing = make()
        contextvars.copy_context().run(
            lambda: (
                self.variable.set("current"),
                thing.add_done_callback(lambda _: seen.append(self.variable.get()), context=None),
            )
        )
        finish(loop, thing)
        assert seen == ["unset"]

    def test_not_that_of_who_completes(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        future = loop.create_future()
        future.add_done_callback(lambda _: seen.append(self.variable.get()))

        def complete() -> None:
            self.variable.set("who completes")
            future.set_result(None)

        loop.call_soon(complete)
        turn(loop, 2)
        assert seen == ["unset"]

    def test_context_is_a_keyword(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        with pytest.raises(TypeError):
            future.add_done_callback(nothing, contextvars.Context())  # type: ignore[misc]
        future.cancel()

    def test_callbacks_attribute(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        """anyio reads it: None, or pairs of a callback and its context."""
        thing = make()
        assert thing._callbacks is None
        context = contextvars.Context()
        thing.add_done_callback(nothing, context=context)
        assert thing._callbacks == [(nothing, context)]
        thing.add_done_callback(print, context=context)
        assert thing._callbacks == [(nothing, context), (print, context)]
        thing.remove_done_callback(nothing)
        thing.remove_done_callback(print)
        assert not thing._callbacks

    def test_callbacks_attribute_shows_a_waiting_task(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        future = loop.create_future()

        async def wait() -> None:
            await future

        task = loop.create_task(wait())
        turn(loop)
        assert future._callbacks is not None
        assert len(future._callbacks) == 1
        callback, context = future._callbacks[0]
        assert callable(callback)
        assert isinstance(context, contextvars.Context)
        # The task itself can be found: anyio and aiodebug look for `__self__`.
        assert callback.__self__ is task
        future.set_result(None)
        loop.run_until_complete(task)


class TestErrors:
    @pytest.mark.outside_debug
    def test_reported_with_the_future(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Make,
        reports: list[dict[str, Any]],
    ) -> None:
        thing = make()
        seen: list[int] = []

        def fail(_: Any) -> None:
            raise ZeroDivisionError

        thing.add_done_callback(fail)
        thing.add_done_callback(lambda _: seen.append(1))
        finish(loop, thing)
        assert seen == [1]
        assert len(reports) == 1
        assert set(reports[0]) == {"message", "exception", "handle"}
        assert isinstance(reports[0]["exception"], ZeroDivisionError)
        assert not reports[0]["handle"].cancelled()
        assert reports[0]["message"].startswith(
            "Exception in callback TestErrors.test_reported_with_the_future.<locals>.fail("
        )

    @pytest.mark.outside_debug
    def test_not_callable(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        future = loop.create_future()
        future.add_done_callback(None)  # type: ignore[arg-type]
        future.set_result(1)
        turn(loop)
        assert isinstance(reports[0]["exception"], TypeError)
        assert str(reports[0]["exception"]) == "'NoneType' object is not callable"

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_exits_end_the_run(
        self, loop: asyncio.AbstractEventLoop, make: Make, kind: type[BaseException]
    ) -> None:
        thing = make()
        seen: list[int] = []

        def leave(_: Any) -> None:
            raise kind

        thing.add_done_callback(leave)
        thing.add_done_callback(lambda _: seen.append(1))
        if not isinstance(thing, asyncio.Task):
            thing.set_result(None)
        with pytest.raises(kind):
            turn(loop, 3)
        assert seen == []
        turn(loop)
        assert seen == [1]

    def test_needs_a_callback(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        for method in (future.add_done_callback, future.remove_done_callback):
            with pytest.raises(TypeError):
                method()  # type: ignore[call-arg]
        future.cancel()


class TestScheduling:
    def test_through_the_loops_call_soon(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A loop whose call_soon the user replaced sees the callbacks of its futures."""
        seen: list[Any] = []
        kept = loop.call_soon

        def spying(callback: Any, *arguments: Any, **keywords: Any) -> Any:
            seen.append((callback, arguments))
            return kept(callback, *arguments, **keywords)

        future = loop.create_future()
        future.add_done_callback(nothing)
        monkeypatch.setattr(loop, "call_soon", spying)
        future.set_result(None)
        assert seen == [(nothing, (future,))]
        future.add_done_callback(print)
        assert seen[1:] == [(print, (future,))]
        monkeypatch.undo()
        assert future.remove_done_callback(print) == 0
        seen_by_turn: list[int] = []
        loop.call_soon(seen_by_turn.append, 1)
        turn(loop)
        assert seen_by_turn == [1]

    def test_overridden_call_soon(self, backend: Backend) -> None:
        class Spying(backend.loop_class):  # type: ignore[misc, name-defined]
            calls = 0

            def call_soon(self, callback: Any, *arguments: Any, **keywords: Any) -> Any:
                self.calls += 1
                return super().call_soon(callback, *arguments, **keywords)

        loop = Spying()
        future = loop.create_future()
        future.add_done_callback(nothing)
        future.add_done_callback(nothing)
        future.set_result(None)
        assert loop.calls == 2
        loop.close()

    def test_call_soon_that_fails(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        future = loop.create_future()
        loop.close()
        future.add_done_callback(nothing)
        assert raised(future.cancel) == (RuntimeError, "Event loop is closed")
        assert future.cancelled()
        assert raised(future.add_done_callback, nothing) == (RuntimeError, "Event loop is closed")

    def test_callbacks_are_let_go(self, loop: asyncio.AbstractEventLoop, make: Make) -> None:
        class Thing:
            def method(self, _: Any) -> None:
                pass

        thing = make()
        others = [Thing() for _ in range(3)]
        alive = [weakref.ref(other) for other in others]
        for other in others:
            thing.add_done_callback(other.method)
        del other
        others.clear()
        finish(loop, thing)
        gc.collect()
        assert [ref() for ref in alive] == [None] * 3
