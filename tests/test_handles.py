"""Handle and TimerHandle: what the user holds after scheduling a callback."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import Any

import pytest
from backends import PY313, Backend
from turns import turn


def nothing(*arguments: Any) -> None:
    pass


def shown(arguments: str) -> str:
    """What a repr outside debug mode shows of the arguments: nothing, since 3.13."""
    return "()" if PY313 else arguments


class TestHandle:
    def test_is_an_asyncio_handle(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_soon(nothing)
        assert isinstance(handle, asyncio.Handle)
        assert not isinstance(handle, asyncio.TimerHandle)
        assert type(handle).__name__ == "Handle"
        handle.cancel()

    def test_threadsafe_gives_a_handle_too(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        handle = loop.call_soon_threadsafe(seen.append, 1)
        assert not handle.cancelled()
        handle.cancel()
        turn(loop)
        assert handle.cancelled()
        assert seen == []

    def test_cancel_keeps_the_callback_from_running(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        handle = loop.call_soon(seen.append, 1)
        assert handle.cancelled() is False
        assert handle.cancel() is None
        assert handle.cancelled() is True
        turn(loop)
        assert seen == []

    def test_cancel_twice(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_soon(nothing)
        handle.cancel()
        handle.cancel()
        assert handle.cancelled()

    def test_cancel_after_the_run(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        handle = loop.call_soon(seen.append, 1)
        turn(loop)
        assert not handle.cancelled()
        handle.cancel()
        assert handle.cancelled()
        turn(loop)
        assert seen == [1]

    def test_cancel_by_an_earlier_callback_of_the_same_turn(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        seen: list[str] = []
        handles: list[asyncio.Handle] = []
        loop.call_soon(lambda: handles[0].cancel())
        handles.append(loop.call_soon(seen.append, "cancelled"))
        loop.call_soon(seen.append, "kept")
        turn(loop)
        assert seen == ["kept"]

    def test_cancel_by_itself(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[bool] = []
        handles: list[asyncio.Handle] = []

        def cancel_myself(word: str) -> None:
            handles[0].cancel()
            seen.append(handles[0].cancelled())
            # The arguments must survive although the handle has let go of them.
            assert word == "".join(["w", "ord"])

        handles.append(loop.call_soon(cancel_myself, "".join(["wo", "rd"])))
        turn(loop)
        assert seen == [True]

    def test_cancel_lets_go_of_callback_and_arguments(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        class Thing:
            def method(self, other: Thing) -> None:
                pass

        bound, argument = Thing(), Thing()
        alive = [weakref.ref(bound), weakref.ref(argument)]
        handle = loop.call_soon(bound.method, argument)
        del bound, argument
        gc.collect()
        assert [ref() is None for ref in alive] == [False, False]
        handle.cancel()
        gc.collect()
        assert [ref() is None for ref in alive] == [True, True]

    def test_lets_go_of_callback_once_run_and_dropped(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        class Thing:
            def method(self) -> None:
                pass

        thing = Thing()
        alive = weakref.ref(thing)
        loop.call_soon(thing.method)
        del thing
        turn(loop)
        gc.collect()
        assert alive() is None

    @pytest.mark.parametrize("debug", [False, True])
    @pytest.mark.parametrize("how", ["call_soon", "call_later"])
    @pytest.mark.parametrize("outcome", ["returns", "raises"])
    def test_a_cycle_with_what_it_called_is_collected(
        self, loop: asyncio.AbstractEventLoop, how: str, outcome: str, debug: bool
    ) -> None:
        class Box(list[Any]):
            pass

        def called(_: Box) -> None:
            if outcome == "raises":
                raise ZeroDivisionError

        reports: list[str] = []
        loop.set_exception_handler(lambda _, report: reports.append(repr(report["handle"])))
        loop.set_debug(debug)
        box = Box()
        alive = weakref.ref(box)
        after = () if how == "call_soon" else (0,)
        box.append(getattr(loop, how)(*after, called, box))
        del box
        turn(loop, 2)
        gc.collect()
        assert alive() is None
        # Whoever is told of the error sees what was called.
        assert [called.__qualname__ in report for report in reports] == [True] * len(reports)
        assert len(reports) == (outcome == "raises")

    def test_cancel_runs_a_destructor_that_schedules(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []

        class Dying:
            def __call__(self) -> None:
                seen.append("ran")

            def __del__(self) -> None:
                loop.call_soon(seen.append, "from the destructor")

        handle = loop.call_soon(Dying())
        handle.cancel()
        turn(loop)
        assert seen == ["from the destructor"]

    def test_get_context_is_the_current_ones_copy(self, loop: asyncio.AbstractEventLoop) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

        def schedule() -> asyncio.Handle:
            variable.set("inside")
            return loop.call_soon(nothing)

        handle = contextvars.Context().run(schedule)
        if not hasattr(handle, "get_context"):
            pytest.skip("Handle.get_context came with 3.12")
        assert handle.get_context()[variable] == "inside"
        assert variable not in contextvars.copy_context()

    def test_get_context_is_the_given_one(self, loop: asyncio.AbstractEventLoop) -> None:
        context = contextvars.Context()
        handles = [
            loop.call_soon(nothing, context=context),
            loop.call_soon_threadsafe(nothing, context=context),
            loop.call_later(0, nothing, context=context),
            loop.call_at(loop.time(), nothing, context=context),
        ]
        for handle in handles:
            if hasattr(handle, "get_context"):
                assert handle.get_context() is context
            handle.cancel()
            # What asyncio keeps after a cancel: the context, not the callback.
            if hasattr(handle, "get_context"):
                assert handle.get_context() is context

    def test_two_handles_do_not_share_changes_of_context(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
        first = loop.call_soon(variable.set, 1)
        second = loop.call_soon(variable.set, 2)
        third = loop.call_soon(nothing)
        turn(loop)
        assert variable.get() == 0
        if hasattr(first, "get_context"):
            got = [handle.get_context().get(variable) for handle in (first, second, third)]
            assert got == [1, 2, None]

    def test_weakref_and_hash(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_soon(nothing)
        assert weakref.ref(handle)() is handle
        assert len({handle, handle, loop.call_soon(nothing)}) == 2
        turn(loop)

    def test_equality_is_identity(self, loop: asyncio.AbstractEventLoop) -> None:
        first, second = loop.call_soon(nothing), loop.call_soon(nothing)
        assert first == first
        assert first != second
        with pytest.raises(TypeError):
            first < second  # type: ignore[operator]
        turn(loop)

    @pytest.mark.outside_debug
    def test_repr(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_soon(nothing, 1, "two")
        where = f"{nothing.__code__.co_filename}:{nothing.__code__.co_firstlineno}"
        arguments = shown("(1, 'two')")
        assert repr(handle) == f"<Handle nothing{arguments} at {where}>"
        handle.cancel()
        assert repr(handle) == "<Handle cancelled>"

    @pytest.mark.outside_debug
    def test_repr_of_a_partial(self, loop: asyncio.AbstractEventLoop) -> None:
        import functools

        handle = loop.call_soon(functools.partial(nothing, 1, key=2), 3)
        assert repr(handle).startswith(f"<Handle nothing{shown('(1, key=2)')}{shown('(3)')} at ")
        handle.cancel()

    @pytest.mark.outside_debug
    def test_repr_of_a_builtin(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_soon(print, 1)
        assert repr(handle) == f"<Handle print{shown('(1)')}>"
        handle.cancel()

    def test_repr_in_debug_says_where_it_was_created(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_debug(True)
        handle = loop.call_soon(nothing)
        line = handle_line()
        assert repr(handle).endswith(f" created at {__file__}:{line - 1}>")
        handle.cancel()
        assert repr(handle).startswith("<Handle cancelled nothing() at ")
        assert repr(handle).endswith(f" created at {__file__}:{line - 1}>")

    def test_cannot_be_cancelled_with_arguments(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_soon(nothing)
        with pytest.raises(TypeError):
            handle.cancel("message")  # type: ignore[call-arg]
        assert not handle.cancelled()
        turn(loop)

    @pytest.mark.outside_debug
    def test_attributes_that_tools_read(self, loop: asyncio.AbstractEventLoop) -> None:
        context = contextvars.Context()
        handle = loop.call_soon(nothing, 1, context=context)
        assert handle._callback is nothing
        assert handle._args == (1,)
        assert handle._cancelled is False
        assert handle._loop is loop
        assert handle._context is context
        assert handle._source_traceback is None
        handle.cancel()
        assert handle._callback is None
        assert handle._args is None
        assert handle._cancelled is True

    def test_source_traceback_in_debug(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_debug(True)
        for handle in (
            loop.call_soon(nothing),
            loop.call_soon_threadsafe(nothing),
            loop.call_later(1, nothing),
            loop.call_at(1, nothing),
        ):
            assert handle._source_traceback is not None
            last = handle._source_traceback[-1]
            assert last.filename == __file__
            assert last.name == "test_source_traceback_in_debug"
            handle.cancel()

    def test_a_handle_made_by_hand_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        """asyncio's own code makes some: `_add_callback`, signal handlers and the like."""
        seen: list[int] = []
        handle = asyncio.Handle(seen.append, (1,), loop)
        handle._run()
        assert seen == [1]


class TestTimerHandle:
    def test_is_an_asyncio_timer_handle(self, loop: asyncio.AbstractEventLoop) -> None:
        for handle in (loop.call_later(1, nothing), loop.call_at(loop.time(), nothing)):
            assert isinstance(handle, asyncio.TimerHandle)
            assert isinstance(handle, asyncio.Handle)
            assert type(handle).__name__ == "TimerHandle"
            handle.cancel()

    def test_when(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_at(12345.5, nothing)
        assert handle.when() == 12345.5
        handle.cancel()
        assert handle.when() == 12345.5
        before = loop.time()
        later = loop.call_later(10, nothing)
        assert before + 10 <= later.when() <= loop.time() + 10
        later.cancel()

    def test_when_of_an_integer(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_at(5, nothing)
        assert handle.when() == 5
        handle.cancel()

    def test_cancelled(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        handle = loop.call_later(0, seen.append, 1)
        assert not handle.cancelled()
        handle.cancel()
        handle.cancel()
        assert handle.cancelled()
        turn(loop, 2)
        assert seen == []

    def test_order(self, loop: asyncio.AbstractEventLoop) -> None:
        early, late = loop.call_at(10, nothing), loop.call_at(20, nothing)
        assert early < late
        assert early <= late
        assert late > early
        assert late >= early
        assert not early > late
        assert not early >= late
        assert not late < early
        assert not late <= early
        assert early != late
        assert sorted([late, early]) == [early, late]
        early.cancel()
        late.cancel()

    def test_equality_is_by_deadline_callback_and_arguments(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        first = loop.call_at(10, nothing, 1)
        twin = loop.call_at(10, nothing, 1)
        other = loop.call_at(10, nothing, 2)
        assert first == twin
        assert first <= twin
        assert first >= twin
        assert first != other
        assert not first <= other
        assert not first >= other
        assert hash(first) == hash(twin)
        first.cancel()
        assert first != twin
        twin.cancel()
        assert first == twin
        other.cancel()

    def test_hash_is_that_of_the_deadline(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_at(1234.5, nothing)
        assert hash(handle) == hash(1234.5)
        handle.cancel()

    def test_does_not_compare_with_others(self, loop: asyncio.AbstractEventLoop) -> None:
        timer, plain = loop.call_at(10, nothing), loop.call_soon(nothing)
        assert timer != plain
        assert timer != 10
        assert timer.__eq__(10) is NotImplemented
        for other in (plain, 10, None):
            with pytest.raises(TypeError):
                timer < other  # type: ignore[operator]
            with pytest.raises(TypeError):
                timer >= other  # type: ignore[operator]
        timer.cancel()
        plain.cancel()

    def test_compares_with_a_stock_handle(self, loop: asyncio.AbstractEventLoop) -> None:
        ours = loop.call_at(10, nothing)
        stock = asyncio.TimerHandle(20, nothing, (), loop)
        assert ours < stock
        assert stock > ours
        assert ours != stock
        ours.cancel()

    @pytest.mark.outside_debug
    def test_repr(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_at(12.5, nothing, 1)
        where = f"{nothing.__code__.co_filename}:{nothing.__code__.co_firstlineno}"
        assert repr(handle) == f"<TimerHandle when=12.5 nothing{shown('(1)')} at {where}>"
        handle.cancel()
        assert repr(handle) == "<TimerHandle cancelled when=12.5>"

    def test_repr_in_debug(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_debug(True)
        handle = loop.call_at(12.5, nothing)
        assert repr(handle).startswith("<TimerHandle when=12.5 nothing() at ")
        assert f" created at {__file__}:" in repr(handle)
        handle.cancel()
        assert repr(handle).startswith("<TimerHandle cancelled when=12.5 nothing() at ")

    def test_attributes_that_tools_read(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_at(12.5, nothing, 1)
        assert handle._when == 12.5
        assert handle._callback is nothing
        assert handle._args == (1,)
        assert handle._scheduled is True
        handle.cancel()
        assert handle._callback is None

    def test_weakref(self, loop: asyncio.AbstractEventLoop) -> None:
        handle = loop.call_at(1, nothing)
        assert weakref.ref(handle)() is handle
        handle.cancel()


def handle_line() -> int:
    """The line of the caller."""
    import sys

    return sys._getframe(1).f_lineno


def test_handles_of_closed_loop_can_be_cancelled(backend: Backend) -> None:
    loop = backend.new_event_loop()
    handles = [loop.call_soon(nothing), loop.call_later(10, nothing)]
    loop.close()
    for handle in handles:
        handle.cancel()
        assert handle.cancelled()
        repr(handle)


def test_handles_outlive_their_loop(backend: Backend) -> None:
    loop = backend.new_event_loop()
    handles = [loop.call_soon(nothing), loop.call_later(10, nothing)]
    loop.close()
    del loop
    gc.collect()
    for handle in handles:
        handle.cancel()
        repr(handle)
