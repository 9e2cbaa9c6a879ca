"""call_soon and call_soon_threadsafe: the order of things, contexts, misuse."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from backends import Backend
from turns import raised, turn


def nothing(*arguments: Any) -> None:
    pass


class TestOrder:
    def test_first_in_first_out(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        for number in range(2000):
            loop.call_soon(seen.append, number)
        turn(loop)
        assert seen == list(range(2000))

    def test_threadsafe_from_the_loops_thread_keeps_its_place(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        seen: list[int] = []
        loop.call_soon(seen.append, 1)
        loop.call_soon_threadsafe(seen.append, 2)
        loop.call_soon(seen.append, 3)
        turn(loop)
        assert seen == [1, 2, 3]

    def test_threadsafe_from_within_a_callback_keeps_its_place(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        seen: list[int] = []

        def callback() -> None:
            loop.call_soon(seen.append, 1)
            loop.call_soon_threadsafe(seen.append, 2)
            loop.call_soon(seen.append, 3)

        loop.call_soon(callback)
        turn(loop, 2)
        assert seen == [1, 2, 3]

    def test_what_a_callback_schedules_waits_for_the_next_turn(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        seen: list[str] = []

        def first() -> None:
            seen.append("first")
            loop.call_soon(seen.append, "next turn")

        loop.call_soon(first)
        loop.call_soon(seen.append, "second")
        turn(loop)
        assert seen == ["first", "second"]
        turn(loop)
        assert seen == ["first", "second", "next turn"]

    def test_a_callback_that_reschedules_itself_does_not_keep_others_out(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        seen: list[str] = []

        def again() -> None:
            seen.append("again")
            loop.call_soon(again)

        loop.call_soon(again)
        turn(loop, 3)
        assert seen == ["again"] * 3

    def test_stop_lets_the_turn_end(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        loop.call_soon(seen.append, 1)
        loop.call_soon(loop.stop)
        loop.call_soon(seen.append, 2)
        loop.run_forever()
        assert seen == [1, 2]

    def test_nothing_is_lost_when_the_loop_stops(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []

        def stop_and_schedule() -> None:
            loop.stop()
            loop.call_soon(seen.append, 1)

        loop.call_soon(stop_and_schedule)
        loop.run_forever()
        assert seen == []
        turn(loop)
        assert seen == [1]

    def test_stop_before_the_run_runs_one_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        loop.call_soon(seen.append, 1)
        loop.call_soon(loop.call_soon, seen.append, 2)
        loop.stop()
        loop.run_forever()
        assert seen == [1]
        turn(loop)
        assert seen == [1, 2]

    def test_due_timers_come_after_what_was_ready(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        loop.call_at(loop.time() - 1, seen.append, "timer")
        loop.call_soon(seen.append, "soon")
        turn(loop)
        assert seen == ["soon", "timer"]

    def test_tasks_and_callbacks_share_one_queue(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []

        async def step(name: str) -> None:
            seen.append(f"{name} 1")
            await asyncio.sleep(0)
            seen.append(f"{name} 2")

        loop.call_soon(seen.append, "a")
        one = loop.create_task(step("b"))
        loop.call_soon(seen.append, "c")
        two = loop.create_task(step("d"))
        loop.call_soon(seen.append, "e")
        turn(loop)
        assert seen == ["a", "b 1", "c", "d 1", "e"]
        turn(loop)
        assert seen[5:] == ["b 2", "d 2"]
        assert one.done() and two.done()


class TestArguments:
    def test_any_number(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[tuple[Any, ...]] = []

        def note(*arguments: Any) -> None:
            seen.append(arguments)

        for count in range(12):
            loop.call_soon(note, *range(count))
        turn(loop)
        assert seen == [tuple(range(count)) for count in range(12)]

    def test_the_result_is_thrown_away(self, loop: asyncio.AbstractEventLoop) -> None:
        class Result:
            pass

        made: list[weakref.ref[Result]] = []

        def give() -> Result:
            result = Result()
            made.append(weakref.ref(result))
            return result

        loop.call_soon(give)
        turn(loop)
        assert made[0]() is None

    @pytest.mark.parametrize("name", ["call_soon", "call_soon_threadsafe"])
    def test_keywords_are_refused(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        with pytest.raises(TypeError):
            getattr(loop, name)(nothing, key=1)

    @pytest.mark.parametrize("name", ["call_soon", "call_soon_threadsafe"])
    def test_the_callback_may_be_a_keyword(
        self, loop: asyncio.AbstractEventLoop, name: str
    ) -> None:
        seen: list[int] = []
        getattr(loop, name)(callback=lambda: seen.append(1))
        turn(loop)
        assert seen == [1]

    @pytest.mark.parametrize("name", ["call_soon", "call_soon_threadsafe"])
    def test_the_callback_is_needed(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'callback'"):
            getattr(loop, name)()

    def test_every_kind_of_callable(self, loop: asyncio.AbstractEventLoop) -> None:
        import functools
        import operator

        seen: list[Any] = []

        class Callable_:
            def __call__(self, value: int) -> None:
                seen.append(value)

            def method(self, value: int) -> None:
                seen.append(value)

            @classmethod
            def of_class(cls, value: int) -> None:
                seen.append(value)

            @staticmethod
            def of_none(value: int) -> None:
                seen.append(value)

        thing = Callable_()
        loop.call_soon(thing, 1)
        loop.call_soon(thing.method, 2)
        loop.call_soon(Callable_.of_class, 3)
        loop.call_soon(Callable_.of_none, 4)
        loop.call_soon(seen.append, 5)
        loop.call_soon(list.append, seen, 6)
        loop.call_soon(functools.partial(seen.append, 7))
        loop.call_soon(operator.methodcaller("append", 8), seen)
        loop.call_soon(type("Made", (), {"__init__": lambda self, n: seen.append(n)}), 9)
        turn(loop)
        assert seen == list(range(1, 10))


class TestContext:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def test_the_current_one_is_copied(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []

        def look() -> None:
            seen.append(self.variable.get())

        token = self.variable.set("when scheduled")
        loop.call_soon(look)
        loop.call_soon_threadsafe(look)
        loop.call_later(0, look)
        self.variable.reset(token)
        loop.call_soon(look)
        turn(loop, 2)
        assert sorted(seen) == ["unset", "when scheduled", "when scheduled", "when scheduled"]

    def test_changes_stay_inside_the_callback(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []

        def change(word: str) -> None:
            seen.append(self.variable.get())
            self.variable.set(word)
            loop.call_soon(lambda: seen.append(f"after {word}: {self.variable.get()}"))

        loop.call_soon(change, "one")
        loop.call_soon(change, "two")
        turn(loop, 2)
        assert seen == ["unset", "unset", "after one: one", "after two: two"]
        assert self.variable.get() == "unset"

    def test_changes_in_a_given_context_stay_in_it(self, loop: asyncio.AbstractEventLoop) -> None:
        context = contextvars.Context()
        loop.call_soon(self.variable.set, "changed", context=context)
        seen: list[str] = []
        loop.call_soon(lambda: seen.append(self.variable.get()), context=context)
        turn(loop)
        assert context[self.variable] == "changed"
        assert seen == ["changed"]

    def test_none_means_the_current_one(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        token = self.variable.set("current")
        loop.call_soon(lambda: seen.append(self.variable.get()), context=None)
        self.variable.reset(token)
        turn(loop)
        assert seen == ["current"]

    def test_the_loops_own_context_is_not_changed(self, loop: asyncio.AbstractEventLoop) -> None:
        """What the caller of run_forever has set is there afterwards, whatever callbacks did."""
        token = self.variable.set("outside")
        loop.call_soon(self.variable.set, "inside")
        turn(loop)
        assert self.variable.get() == "outside"
        self.variable.reset(token)

    def test_a_token_cannot_cross_contexts(self, loop: asyncio.AbstractEventLoop) -> None:
        tokens: list[contextvars.Token[str]] = []
        loop.call_soon(lambda: tokens.append(self.variable.set("one")))
        errors: list[tuple[type, str]] = []
        loop.call_soon(lambda: errors.append(raised(self.variable.reset, tokens[0])))
        turn(loop)
        assert errors[0][0] is ValueError
        assert errors[0][1].endswith("was created in a different Context")

    def test_a_token_works_in_the_context_that_both_share(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        context = contextvars.Context()
        tokens: list[contextvars.Token[str]] = []
        loop.call_soon(lambda: tokens.append(self.variable.set("one")), context=context)
        loop.call_soon(lambda: self.variable.reset(tokens[0]), context=context)
        turn(loop)
        assert self.variable not in context

    def test_run_nested(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        inner = contextvars.Context()

        def callback() -> None:
            self.variable.set("outer")
            inner.run(self.variable.set, "inner")
            seen.append(self.variable.get())
            seen.append(inner.run(self.variable.get))

        loop.call_soon(callback)
        turn(loop)
        assert seen == ["outer", "inner"]

    def test_the_own_context_is_entered_already(self, loop: asyncio.AbstractEventLoop) -> None:
        context = contextvars.Context()
        errors: list[tuple[type, str]] = []
        loop.call_soon(lambda: errors.append(raised(context.run, nothing)), context=context)
        turn(loop)
        assert errors[0][0] is RuntimeError
        assert "is already entered" in errors[0][1]

    def test_a_context_entered_outside_cannot_be_entered_again(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        """The caller runs the loop inside a context and gives the same one to a callback."""
        context = contextvars.Context()
        seen: list[str] = []

        def run_inside() -> None:
            loop.call_soon(seen.append, "same", context=context)
            loop.call_soon(seen.append, "copy")
            turn(loop)

        context.run(run_inside)
        assert seen == ["copy"]
        assert len(reports) == 1
        assert isinstance(reports[0]["exception"], RuntimeError)
        assert "is already entered" in str(reports[0]["exception"])

    def test_not_a_context(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        """asyncio notices when it runs the callback; noticing at once is as good."""
        try:
            loop.call_soon(nothing, context="no context")  # type: ignore[arg-type]
        except TypeError:
            return
        turn(loop)
        assert isinstance(reports[0]["exception"], AttributeError | TypeError)

    def test_a_snapshot_is_not_shared_with_a_later_change(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Many handles of one context: each sees the variables as they were for it."""
        seen: list[str] = []

        def schedule() -> None:
            for number in range(50):
                if number % 10 == 0:
                    self.variable.set(str(number))
                loop.call_soon(lambda: seen.append(self.variable.get()))

        contextvars.copy_context().run(schedule)
        turn(loop)
        assert seen == [str(number - number % 10) for number in range(50)]

    def test_copy_context_in_a_callback_is_a_copy(self, loop: asyncio.AbstractEventLoop) -> None:
        copies: list[contextvars.Context] = []

        def first() -> None:
            copies.append(contextvars.copy_context())
            self.variable.set("changed")

        loop.call_soon(first)
        loop.call_soon(lambda: copies.append(contextvars.copy_context()))
        turn(loop)
        assert [self.variable in copy for copy in copies] == [False, False]


class TestMisuse:
    NAMES = ("call_soon", "call_soon_threadsafe", "call_later", "call_at")

    @pytest.mark.parametrize("name", NAMES)
    def test_closed_loop(self, backend: Backend, name: str) -> None:
        loop = backend.new_event_loop()
        loop.close()
        delay = (1,) if name in ("call_later", "call_at") else ()
        error = raised(getattr(loop, name), *delay, nothing)
        assert error == (RuntimeError, "Event loop is closed")

    def test_closed_loop_comes_before_a_bad_callback(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        assert raised(loop.call_soon, None) == (RuntimeError, "Event loop is closed")

    @pytest.mark.parametrize("name", NAMES)
    def test_a_coroutine_function_in_debug(
        self, loop: asyncio.AbstractEventLoop, name: str
    ) -> None:
        async def coroutine() -> None:
            pass

        loop.set_debug(True)
        delay = (1,) if name in ("call_later", "call_at") else ()
        # call_later passes the callback on to call_at, which does the looking.
        blamed = "call_at" if name == "call_later" else name
        assert raised(getattr(loop, name), *delay, coroutine) == (
            TypeError,
            f"coroutines cannot be used with {blamed}()",
        )

    def test_a_coroutine_in_debug(self, loop: asyncio.AbstractEventLoop) -> None:
        async def coroutine() -> None:
            pass

        loop.set_debug(True)
        made = coroutine()
        assert raised(loop.call_soon, made) == (
            TypeError,
            "coroutines cannot be used with call_soon()",
        )
        made.close()

    @pytest.mark.parametrize("name", NAMES)
    def test_not_callable_in_debug(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        loop.set_debug(True)
        delay = (1,) if name in ("call_later", "call_at") else ()
        blamed = "call_at" if name == "call_later" else name
        assert raised(getattr(loop, name), *delay, 7) == (
            TypeError,
            f"a callable object was expected by {blamed}(), got 7",
        )

    @pytest.mark.outside_debug
    def test_not_callable_outside_debug_is_reported_when_run(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        loop.call_soon(7)  # type: ignore[arg-type]
        turn(loop)
        assert isinstance(reports[0]["exception"], TypeError)
        assert str(reports[0]["exception"]) == "'int' object is not callable"

    def test_wrong_arguments_are_reported_when_run(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        loop.call_soon(turn, 1, 2, 3, 4)
        turn(loop)
        assert isinstance(reports[0]["exception"], TypeError)
        assert "takes from 1 to 2 positional arguments but 4 were given" in str(
            reports[0]["exception"]
        )


class TestReentrancy:
    def test_callback_schedules_from_a_destructor(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []

        class Dying:
            def __del__(self) -> None:
                seen.append("died")
                loop.call_soon(seen.append, "after death")

        loop.call_soon(nothing, Dying())
        turn(loop)
        assert seen == ["died"]
        turn(loop)
        assert seen == ["died", "after death"]

    def test_the_argument_dies_before_the_next_callback_runs(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        """As in asyncio, whose loop drops a handle when it fetches the next one at the latest."""
        seen: list[str] = []

        class Dying:
            def __del__(self) -> None:
                seen.append("died")

        loop.call_soon(nothing, Dying())
        loop.call_soon(nothing)
        loop.call_soon(seen.append, "third")
        turn(loop)
        assert seen == ["died", "third"]

    def test_many_destructors_that_schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        deaths: list[int] = []

        class Dying:
            def __init__(self, left: int) -> None:
                self.left = left

            def __del__(self) -> None:
                deaths.append(self.left)
                if self.left:
                    loop.call_soon(nothing, Dying(self.left - 1))

        for _ in range(20):
            loop.call_soon(nothing, Dying(5))
        turn(loop, 7)
        gc.collect()
        assert sorted(deaths) == sorted(list(range(6)) * 20)

    def test_destructor_runs_when_the_queue_is_cleared_by_close(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        errors: list[tuple[type, str]] = []

        class Dying:
            def __del__(self) -> None:
                errors.append(raised(loop.call_soon, nothing))
                errors.append(raised(loop.call_later, 1, nothing))

        loop.call_soon(nothing, Dying())
        loop.call_later(10, nothing, Dying())
        loop.close()
        gc.collect()
        assert errors == [(RuntimeError, "Event loop is closed")] * 4

    def test_garbage_collection_inside_a_callback(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []

        def collect(number: int) -> None:
            gc.collect()
            seen.append(number)

        for number in range(3):
            loop.call_soon(collect, number)
            loop.call_later(0, collect, number + 3)
        turn(loop, 2)
        assert sorted(seen) == list(range(6))

    def test_deep_recursion_in_a_callback(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        def deeper() -> None:
            deeper()

        seen: list[int] = []
        loop.call_soon(deeper)
        loop.call_soon(seen.append, 1)
        turn(loop)
        assert isinstance(reports[0]["exception"], RecursionError)
        assert seen == [1]

    def test_scheduling_by_a_trace_function(self, loop: asyncio.AbstractEventLoop) -> None:
        """Debuggers and coverage run Python code between any two lines."""
        seen: list[int] = []

        def traced() -> None:
            seen.append(1)

        def trace(frame: Any, event: str, argument: Any) -> Callable[..., Any] | None:
            if frame.f_code is traced.__code__ and event == "call":
                loop.call_soon(seen.append, 2)
            return None

        loop.call_soon(traced)
        kept = sys.gettrace()
        sys.settrace(trace)
        try:
            turn(loop, 2)
        finally:
            sys.settrace(kept)
        assert seen == [1, 2]


class TestThreadsafe:
    def test_wakes_a_sleeping_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        asleep = threading.Event()

        def wake() -> None:
            asleep.wait()
            loop.call_soon_threadsafe(loop.stop)

        thread = threading.Thread(target=wake)
        thread.start()
        loop.call_soon(asleep.set)
        guard = loop.call_later(20, loop.stop)
        loop.run_forever()
        thread.join()
        assert guard.when() > loop.time()
        guard.cancel()

    def test_order_within_one_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []

        def fill() -> None:
            for number in range(1000):
                loop.call_soon_threadsafe(seen.append, number)
            loop.call_soon_threadsafe(loop.stop)

        thread = threading.Thread(target=fill)
        thread.start()
        loop.run_forever()
        thread.join()
        assert seen == list(range(1000))

    def test_before_the_loop_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, 1))
        thread.start()
        thread.join()
        turn(loop)
        assert seen == [1]

    def test_closed_loop_from_another_thread(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        errors: list[tuple[type, str]] = []
        thread = threading.Thread(
            target=lambda: errors.append(raised(loop.call_soon_threadsafe, nothing))
        )
        thread.start()
        thread.join()
        assert errors == [(RuntimeError, "Event loop is closed")]

    def test_context_of_the_other_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
        seen: list[str] = []

        def other() -> None:
            variable.set("other thread")
            loop.call_soon_threadsafe(lambda: seen.append(variable.get()))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        loop.call_soon(lambda: seen.append(variable.get()))
        turn(loop)
        assert sorted(seen) == ["other thread", "unset"]
