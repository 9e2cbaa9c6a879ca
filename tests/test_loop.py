"""The loop itself: running, stopping, closing, and what it says about misuse."""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
import sys
import threading
import warnings
import weakref
from typing import Any

import pytest
from backends import PY312, PY313, Backend
from turns import raised, turn

EARLY_313 = (3, 13) <= sys.version_info < (3, 13, 3)


def nothing(*arguments: Any) -> None:
    pass


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


class TestShape:
    def test_is_an_event_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        assert isinstance(loop, asyncio.AbstractEventLoop)
        assert isinstance(loop, asyncio.BaseEventLoop)
        assert isinstance(loop, asyncio.SelectorEventLoop)

    def test_every_method_of_the_abstract_loop_is_there(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        for name, method in inspect.getmembers(asyncio.AbstractEventLoop, inspect.isfunction):
            if name.startswith("__"):
                continue
            own = getattr(type(loop), name)
            assert own is not method, f"{name} is not implemented"
            assert callable(getattr(loop, name))

    @pytest.mark.parametrize(
        "name",
        [
            name
            for name, _ in inspect.getmembers(asyncio.AbstractEventLoop, inspect.isfunction)
            if not name.startswith("__")
        ],
    )
    def test_coroutine_functions_are_coroutine_functions(
        self, loop: asyncio.AbstractEventLoop, name: str
    ) -> None:
        """Middlewares look before they call: what asyncio declares `async` stays so."""
        expected = inspect.iscoroutinefunction(getattr(asyncio.SelectorEventLoop, name))
        assert inspect.iscoroutinefunction(getattr(loop, name)) == expected

    @pytest.mark.outside_debug
    def test_repr(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        name = type(loop).__name__
        assert repr(loop) == f"<{name} running=False closed=False debug=False>"
        seen: list[str] = []
        loop.set_debug(True)
        loop.call_soon(lambda: seen.append(repr(loop)))
        turn(loop)
        assert seen == [f"<{name} running=True closed=False debug=True>"]
        loop.close()
        assert repr(loop) == f"<{name} running=False closed=True debug=True>"

    def test_weakref_hash_and_attributes(self, loop: asyncio.AbstractEventLoop) -> None:
        assert weakref.ref(loop)() is loop
        assert len({loop, loop}) == 1
        loop.mine = 1  # type: ignore[attr-defined]
        assert loop.mine == 1  # type: ignore[attr-defined]

    def test_two_loops_differ(self, backend: Backend) -> None:
        one, two = backend.new_event_loop(), backend.new_event_loop()
        assert one != two
        one.close()
        two.close()

    def test_subclass(self, backend: Backend) -> None:
        class Mine(backend.loop_class):  # type: ignore[misc, name-defined]
            def __init__(self, word: str) -> None:
                super().__init__()
                self.word = word
                self.scheduled = 0

            def call_soon(self, callback: Any, *arguments: Any, **keywords: Any) -> Any:
                self.scheduled += 1
                return super().call_soon(callback, *arguments, **keywords)

        loop = Mine("word")
        assert loop.run_until_complete(answer()) == 42
        assert loop.word == "word"
        seen: list[int] = []
        loop.scheduled = 0
        loop.call_soon(seen.append, 1)
        turn(loop)
        assert seen == [1]
        # One for the append, one for the stop of the turn.
        assert loop.scheduled == 2
        loop.close()

    def test_a_method_patched_on_the_instance_is_used(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[Any] = []
        create = loop.create_future

        def counted() -> asyncio.Future[Any]:
            made.append(create())
            return made[-1]

        monkeypatch.setattr(loop, "create_future", counted)
        loop.run_until_complete(asyncio.sleep(0.001))
        assert len(made) == 1

    def test_a_loop_of_a_given_selector(self, backend: Backend) -> None:
        """asyncio's constructor takes a selector; another loop may refuse with a TypeError."""
        import selectors

        selector = selectors.SelectSelector()
        try:
            loop = backend.loop_class(selector)
        except TypeError:
            selector.close()
            assert backend.is_weft
            return
        assert loop.run_until_complete(answer()) == 42
        loop.close()
        selector.close()


class TestRunForever:
    def test_state(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []
        assert loop.is_running() is False
        assert loop.is_closed() is False

        def look() -> None:
            seen.append(loop.is_running())
            seen.append(asyncio.get_running_loop() is loop)
            seen.append(asyncio.get_event_loop() is loop)

        loop.call_soon(look)
        turn(loop)
        assert seen == [True, True, True]
        assert loop.is_running() is False
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()

    def test_returns_none(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(loop.stop)
        assert loop.run_forever() is None  # type: ignore[func-returns-value]

    def test_again_and_again(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(100):
            turn(loop)
            assert loop.run_until_complete(answer()) == 42

    def test_stop_twice_stops_once(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        loop.call_soon(loop.stop)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.call_soon(seen.append, 1)
        loop.call_soon(loop.call_soon, loop.stop)
        loop.run_forever()
        assert seen == [1]

    def test_stop_from_a_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(0, loop.stop)
        loop.run_forever()

    def test_stop_from_a_task(self, loop: asyncio.AbstractEventLoop) -> None:
        async def stop() -> None:
            loop.stop()

        task = loop.create_task(stop())
        loop.run_forever()
        assert task.done()

    def test_running_already(self, loop: asyncio.AbstractEventLoop) -> None:
        errors: list[tuple[type, str]] = []
        loop.call_soon(lambda: errors.append(raised(loop.run_forever)))
        turn(loop)
        assert errors == [(RuntimeError, "This event loop is already running")]

    def test_another_loop_running(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        other = backend.new_event_loop()
        errors: list[tuple[type, str]] = []
        loop.call_soon(lambda: errors.append(raised(other.run_forever)))
        turn(loop)
        message = "Cannot run the event loop while another loop is running"
        assert errors == [(RuntimeError, message)]
        other.close()

    @pytest.mark.parametrize("inner_is_stock", [False, True])
    def test_a_stock_loop_and_ours_do_not_nest(
        self, loop: asyncio.AbstractEventLoop, backend: Backend, inner_is_stock: bool
    ) -> None:
        stock = asyncio.SelectorEventLoop()
        outer, inner = (loop, stock) if inner_is_stock else (stock, loop)
        errors: list[tuple[type, str]] = []
        outer.call_soon(lambda: errors.append(raised(inner.run_forever)))
        turn(outer)
        message = "Cannot run the event loop while another loop is running"
        assert errors == [(RuntimeError, message)]
        stock.close()

    def test_closed(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        assert raised(loop.run_forever) == (RuntimeError, "Event loop is closed")

    def test_running_in_another_thread(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        started, errors = threading.Event(), []
        thread = threading.Thread(target=loop.run_forever)
        loop.call_soon(started.set)
        thread.start()
        started.wait()
        errors.append(raised(loop.close))
        if not EARLY_313 or backend.is_weft:
            # asyncio of 3.13.0 forgets that the loop runs when a second run is refused.
            errors.append(raised(loop.run_forever))
            errors.append(raised(loop.close))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        already = (RuntimeError, "This event loop is already running")
        cannot = (RuntimeError, "Cannot close a running event loop")
        assert errors in ([cannot], [cannot, already, cannot])

    def test_the_running_loop_is_per_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []

        def elsewhere() -> None:
            seen.append(asyncio._get_running_loop())

        def callback() -> None:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            seen.append(asyncio._get_running_loop())

        loop.call_soon(callback)
        turn(loop)
        assert seen == [None, loop]

    def test_the_running_loop_can_be_hidden(self, loop: asyncio.AbstractEventLoop) -> None:
        """`asyncio._set_running_loop(None)` is how nested loops are forced (gevent, plugins)."""
        seen: list[Any] = []

        def hide() -> None:
            asyncio._set_running_loop(None)
            seen.append(asyncio._get_running_loop())
            asyncio._set_running_loop(loop)
            seen.append(asyncio._get_running_loop())

        loop.call_soon(hide)
        turn(loop)
        assert seen == [None, loop]

    def test_async_generator_hooks_are_put_back(self, loop: asyncio.AbstractEventLoop) -> None:
        kept = sys.get_asyncgen_hooks()
        seen: list[Any] = []
        loop.call_soon(lambda: seen.append(sys.get_asyncgen_hooks()))
        turn(loop)
        assert sys.get_asyncgen_hooks() == kept
        assert seen[0].firstiter is not None
        assert seen[0].finalizer is not None

    def test_thread_id_that_tools_read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ray and nest_asyncio look at `_thread_id`."""
        seen: list[Any] = []
        loop.call_soon(lambda: seen.append(loop._thread_id))  # type: ignore[attr-defined]
        turn(loop)
        assert seen == [threading.get_ident()]
        assert loop._thread_id is None  # type: ignore[attr-defined]


class TestRunUntilComplete:
    def test_result_of_a_coroutine(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop.run_until_complete(answer()) == 42

    def test_result_of_a_future(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, "done")
        assert loop.run_until_complete(future) == "done"

    def test_result_of_a_done_future(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.set_result("done")
        assert loop.run_until_complete(future) == "done"

    def test_result_of_a_task(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop.run_until_complete(loop.create_task(answer())) == 42

    def test_result_of_an_awaitable(self, loop: asyncio.AbstractEventLoop) -> None:
        class Awaitable:
            def __await__(self) -> Any:
                yield from asyncio.sleep(0).__await__()
                return "awaited"

        assert loop.run_until_complete(Awaitable()) == "awaited"

    def test_exception(self, loop: asyncio.AbstractEventLoop) -> None:
        class Failed(Exception):
            pass

        error = Failed()

        async def fail() -> None:
            await asyncio.sleep(0)
            raise error

        with pytest.raises(Failed) as caught:
            loop.run_until_complete(fail())
        assert caught.value is error

    def test_cancelled(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        loop.call_soon(future.cancel, "enough")
        with pytest.raises(asyncio.CancelledError) as caught:
            loop.run_until_complete(future)
        assert caught.value.args == ("enough",)

    def test_stopped_early(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        loop.call_soon(loop.stop)
        assert raised(loop.run_until_complete, future) == (
            RuntimeError,
            "Event loop stopped before Future completed.",
        )
        # Nothing of the run may be left on the future.
        assert not future._callbacks
        future.cancel()

    def test_stopped_early_may_go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> int:
            loop.stop()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return 42

        task = loop.create_task(main())
        with pytest.raises(RuntimeError, match="stopped before Future completed"):
            loop.run_until_complete(task)
        assert loop.run_until_complete(task) == 42

    def test_does_not_stop_a_later_run(self, loop: asyncio.AbstractEventLoop) -> None:
        """The future of a run that was stopped completes later: no stop may come from it."""
        future = loop.create_future()
        loop.call_soon(loop.stop)
        with pytest.raises(RuntimeError):
            loop.run_until_complete(future)
        seen: list[int] = []

        async def main() -> None:
            future.set_result(None)
            for number in range(5):
                await asyncio.sleep(0)
                seen.append(number)

        loop.run_until_complete(main())
        assert seen == [0, 1, 2, 3, 4]

    def test_other_callbacks_of_the_turn_still_run(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        future = loop.create_future()
        future.add_done_callback(lambda _: loop.call_soon(seen.append, 1))
        loop.call_soon(future.set_result, None)
        loop.run_until_complete(future)
        turn(loop)
        assert seen == [1]

    def test_running_already_leaves_no_warning(self, loop: asyncio.AbstractEventLoop) -> None:
        errors: list[tuple[type, str]] = []
        coro = answer()
        loop.call_soon(lambda: errors.append(raised(loop.run_until_complete, coro)))
        turn(loop)
        assert errors == [(RuntimeError, "This event loop is already running")]
        coro.close()

    def test_another_loop_running(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        other = backend.new_event_loop()
        errors: list[tuple[type, str]] = []
        coro = answer()
        loop.call_soon(lambda: errors.append(raised(other.run_until_complete, coro)))
        turn(loop)
        assert errors == [(RuntimeError, "Cannot run the event loop while another loop is running")]
        coro.close()
        other.close()

    def test_closed(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        coro = answer()
        assert raised(loop.run_until_complete, coro) == (RuntimeError, "Event loop is closed")
        coro.close()

    @pytest.mark.parametrize("thing", [None, 1, "text", answer, object()])
    def test_not_awaitable(self, loop: asyncio.AbstractEventLoop, thing: Any) -> None:
        assert raised(loop.run_until_complete, thing) == (
            TypeError,
            "An asyncio.Future, a coroutine or an awaitable is required",
        )

    def test_a_future_of_another_loop(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        other = backend.new_event_loop()
        future = other.create_future()
        assert raised(loop.run_until_complete, future) == (
            ValueError,
            "The future belongs to a different loop than the one specified as the loop argument",
        )
        other.close()

    def test_base_exception_of_the_coroutine(self, loop: asyncio.AbstractEventLoop) -> None:
        class Stop(BaseException):
            pass

        async def main() -> None:
            raise Stop

        with pytest.raises(Stop):
            loop.run_until_complete(main())
        assert loop.run_until_complete(answer()) == 42

    def test_exit_by_a_callback(self, loop: asyncio.AbstractEventLoop) -> None:
        def stop() -> None:
            raise SystemExit(3)

        future = loop.create_future()
        loop.call_soon(stop)
        with pytest.raises(SystemExit):
            loop.run_until_complete(future)
        assert not future.done()
        future.cancel()

    def test_the_callback_that_anyio_looks_for(self, loop: asyncio.AbstractEventLoop) -> None:
        """anyio finds the root task by the name of its done callback."""
        names: list[str] = []

        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            for callback, _context in task._callbacks:  # type: ignore[attr-defined]
                names.append(f"{callback.__module__}.{callback.__name__}")

        loop.run_until_complete(main())
        assert names == ["asyncio.base_events._run_until_complete_cb"]


class TestStop:
    def test_without_running(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.stop()
        loop.run_forever()

    def test_on_a_closed_loop(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        loop.stop()

    def test_from_another_thread_threadsafe(self, loop: asyncio.AbstractEventLoop) -> None:
        started = threading.Event()
        thread = threading.Thread(target=loop.run_forever)
        loop.call_soon(started.set)
        thread.start()
        started.wait()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        assert not thread.is_alive()

    def test_in_a_destructor(self, loop: asyncio.AbstractEventLoop) -> None:
        class Dying:
            def __del__(self) -> None:
                loop.stop()

        loop.call_soon(nothing, Dying())
        loop.call_soon(nothing)
        loop.call_later(20, nothing)
        loop.run_forever()

    def test_in_a_done_callback(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.add_done_callback(lambda _: loop.stop())
        loop.call_later(0.001, future.set_result, None)
        loop.run_forever()
        assert future.done()


class TestClose:
    def test_twice(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        assert loop.is_closed() is True
        loop.close()
        assert loop.is_closed() is True

    def test_while_running(self, loop: asyncio.AbstractEventLoop) -> None:
        errors: list[tuple[type, str]] = []
        loop.call_soon(lambda: errors.append(raised(loop.close)))
        turn(loop)
        assert errors == [(RuntimeError, "Cannot close a running event loop")]
        assert not loop.is_closed()

    def test_drops_what_is_scheduled(self, backend: Backend) -> None:
        class Thing:
            pass

        loop = backend.new_event_loop()
        things = [Thing() for _ in range(3)]
        alive = [weakref.ref(thing) for thing in things]
        loop.call_soon(nothing, things[0])
        loop.call_later(10, nothing, things[1])
        loop.call_soon_threadsafe(nothing, things[2])
        things.clear()
        loop.close()
        gc.collect()
        assert [ref() for ref in alive] == [None, None, None]

    def test_runs_nothing(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        seen: list[int] = []
        loop.call_soon(seen.append, 1)
        loop.call_later(-1, seen.append, 2)
        loop.close()
        assert seen == []

    @pytest.mark.outside_debug
    def test_what_still_works(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        assert loop.is_running() is False
        assert loop.get_debug() is False
        loop.set_debug(True)
        assert loop.get_debug() is True
        assert loop.get_task_factory() is None
        assert loop.get_exception_handler() is None
        loop.set_exception_handler(None)
        loop.stop()
        future = loop.create_future()
        future.cancel()
        assert future.get_loop() is loop

    def test_create_task(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        coro = answer()
        assert raised(loop.create_task, coro) == (RuntimeError, "Event loop is closed")
        # Before 3.13.3 or so the coroutine is left to the caller; closing twice does no harm.
        coro.close()

    def test_set_result_with_a_callback(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        future = loop.create_future()
        future.add_done_callback(nothing)
        loop.close()
        assert raised(future.set_result, 1) == (RuntimeError, "Event loop is closed")
        assert future.done()

    def test_awaiting_coroutines(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        for make in (
            lambda: loop.run_in_executor(None, nothing),
            lambda: loop.add_signal_handler(10, nothing),
        ):
            assert raised(make) == (RuntimeError, "Event loop is closed")

    def test_readers_and_writers(self, backend: Backend) -> None:
        import socket

        loop = backend.new_event_loop()
        left, right = socket.socketpair()
        with left, right:
            loop.add_reader(left, nothing)
            loop.add_writer(left, nothing)
            loop.close()
            for method in (loop.add_reader, loop.add_writer):
                assert raised(method, left, nothing) == (RuntimeError, "Event loop is closed")
            for remove in (loop.remove_reader, loop.remove_writer):
                assert remove(left) is False

    def test_unclosed_is_a_resource_warning(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        expected = f"unclosed event loop {loop!r}"
        # Its sockets warn too, where the loop keeps any.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del loop
            gc.collect()
        found = [w for w in caught if str(w.message).startswith("unclosed event loop")]
        assert len(found) == 1
        assert found[0].category is ResourceWarning
        # asyncio closes its loop in the destructor; the repr is that of an open loop.
        assert str(found[0].message) == expected

    def test_closed_is_not(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.run_until_complete(answer())
        loop.close()
        alive = weakref.ref(loop)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del loop
            gc.collect()
        assert [str(w.message) for w in caught] == []
        assert alive() is None

    def test_by_a_callback_of_another_loop(self, backend: Backend) -> None:
        one, two = backend.new_event_loop(), backend.new_event_loop()
        two.call_soon(nothing)
        one.call_soon(two.close)
        turn(one)
        assert two.is_closed()
        one.close()

    def test_from_another_thread(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.run_until_complete(answer())
        thread = threading.Thread(target=loop.close)
        thread.start()
        thread.join()
        assert loop.is_closed()

    def test_in_the_destructor_of_what_is_scheduled(self, backend: Backend) -> None:
        loop = backend.new_event_loop()

        class Dying:
            def __del__(self) -> None:
                loop.close()

        loop.call_soon(nothing, Dying())
        loop.call_later(10, nothing, Dying())
        loop.close()
        gc.collect()
        assert loop.is_closed()


class TestDebugFlag:
    def test_default_is_pythons(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop.get_debug() is sys.flags.dev_mode
        loop.set_debug(True)
        assert loop.get_debug() is True
        loop.set_debug(False)
        assert loop.get_debug() is False

    def test_slow_callback_duration(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop.slow_callback_duration == 0.1
        loop.slow_callback_duration = 5
        assert loop.slow_callback_duration == 5


class TestTaskFactory:
    def test_default_is_none(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop.get_task_factory() is None

    def test_set_and_unset(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        calls: list[tuple[Any, dict[str, Any]]] = []

        def factory(loop_: Any, coro: Any, **keywords: Any) -> Any:
            assert loop_ is loop
            calls.append((coro, dict(keywords)))
            return backend.Task(coro, loop=loop_, **keywords)

        loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory
        coro = answer()
        task = loop.create_task(coro)
        assert loop.run_until_complete(task) == 42
        assert calls[0][0] is coro
        # 3.13.3 and later pass on whatever create_task was given, the name among it.
        assert set(calls[0][1]) <= {"name"}
        loop.set_task_factory(None)
        assert loop.get_task_factory() is None
        assert loop.run_until_complete(loop.create_task(answer())) == 42
        assert len(calls) == 1

    def test_gets_context_only_when_given(self, loop: asyncio.AbstractEventLoop) -> None:
        import contextvars

        seen: list[Any] = []

        def factory(loop_: Any, coro: Any, **keywords: Any) -> Any:
            seen.append(keywords.get("context"))
            return asyncio.Task(coro, loop=loop_, **keywords)

        loop.set_task_factory(factory)
        context = contextvars.Context()
        loop.run_until_complete(loop.create_task(answer(), context=context))
        loop.run_until_complete(loop.create_task(answer()))
        assert seen == [context, None]

    def test_name_reaches_the_task(self, loop: asyncio.AbstractEventLoop) -> None:
        def factory(loop_: Any, coro: Any, **keywords: Any) -> Any:
            return asyncio.Task(coro, loop=loop_, **keywords)

        loop.set_task_factory(factory)
        task = loop.create_task(answer(), name="named")
        assert task.get_name() == "named"
        loop.run_until_complete(task)

    def test_may_return_a_plain_future(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        if EARLY_313 and not backend.is_weft:
            pytest.skip("asyncio of 3.13.0 to 3.13.2 calls set_name on whatever it gets")

        def factory(loop_: Any, coro: Any, **keywords: Any) -> Any:
            coro.close()
            future = loop_.create_future()
            future.set_result("no task at all")
            return future

        loop.set_task_factory(factory)
        assert loop.run_until_complete(answer()) == "no task at all"
        loop.set_task_factory(None)

    def test_with_the_loop_under_asyncios_names(
        self, loop: asyncio.AbstractEventLoop, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Somebody has put the loop in the place of asyncio's, for programs that name that one."""
        for name in ("SelectorEventLoop", "BaseEventLoop"):
            monkeypatch.setattr(asyncio, name, backend.loop_class)
        loop.set_task_factory(lambda loop_, coro, **keywords: asyncio.Task(coro, loop=loop_))
        assert loop.run_until_complete(loop.create_task(answer())) == 42

    def test_that_raises(self, loop: asyncio.AbstractEventLoop) -> None:
        def factory(loop_: Any, coro: Any, **keywords: Any) -> Any:
            coro.close()
            raise ZeroDivisionError

        loop.set_task_factory(factory)
        with pytest.raises(ZeroDivisionError):
            loop.create_task(answer())
        loop.set_task_factory(None)

    def test_not_callable(self, loop: asyncio.AbstractEventLoop) -> None:
        assert raised(loop.set_task_factory, 1) == (
            TypeError,
            "task factory must be a callable or None",
        )
        assert loop.get_task_factory() is None

    def test_unknown_keyword(self, loop: asyncio.AbstractEventLoop) -> None:
        coro = answer()
        with pytest.raises(TypeError):
            loop.create_task(coro, colour="red")
        coro.close()


class TestExceptionHandler:
    def test_set_get_unset(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop.get_exception_handler() is None
        loop.set_exception_handler(nothing)
        assert loop.get_exception_handler() is nothing
        loop.set_exception_handler(None)
        assert loop.get_exception_handler() is None

    def test_not_callable(self, loop: asyncio.AbstractEventLoop) -> None:
        error, message = raised(loop.set_exception_handler, "spam")
        assert error is TypeError
        assert message == "A callable object or None is expected, got 'spam'"


class TestCurrentLoop:
    def test_new_event_loop_does_not_set_it(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        loop.close()

    def test_set_event_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        assert asyncio.get_event_loop() is loop
        if PY312:
            with pytest.raises(TypeError):
                asyncio.set_event_loop("loop")  # type: ignore[arg-type]

    def test_futures_without_a_loop_take_the_current_one(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        asyncio.set_event_loop(loop)
        assert backend.Future().get_loop() is loop
        task = backend.Task(answer())
        assert task.get_loop() is loop
        assert loop.run_until_complete(task) == 42

    def test_task_and_future_without_any_loop(self, backend: Backend) -> None:
        """No current loop: RuntimeError, not a crash. (Some make one in the main thread.)"""
        errors: list[tuple[type, str]] = []

        def elsewhere() -> None:
            errors.append(raised(backend.Future))
            coro = answer()
            errors.append(raised(backend.Task, coro))
            coro.close()

        thread = threading.Thread(target=elsewhere, name="lonely")
        thread.start()
        thread.join()
        for error, message in errors:
            assert error is RuntimeError
            assert re.fullmatch(r"There is no current event loop in thread 'lonely'\.", message)


def test_eager_start_keyword(loop: asyncio.AbstractEventLoop) -> None:
    """`create_task(eager_start=...)` is public from 3.14 and worked its way into late 3.13s."""
    if "eager_start" not in inspect.signature(asyncio.Task).parameters and not PY313:
        coro = answer()
        with pytest.raises(TypeError):
            loop.create_task(coro, eager_start=True)
        coro.close()
        return
    coro = answer()
    try:
        task = loop.create_task(coro, eager_start=False)
    except TypeError:
        coro.close()
        return
    assert loop.run_until_complete(task) == 42


def test_own_attributes(backend: Backend) -> None:
    """Nothing of asyncio's is in Weft's dictionary, which is the users'."""
    loop = backend.new_event_loop()
    try:
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        if backend.name == "weft":
            assert vars(loop) == {}
        loop.tag = "value"  # type: ignore[attr-defined]
        assert vars(loop)["tag"] == "value"
        assert "call_soon" not in vars(loop)
    finally:
        loop.close()


def test_method_put_into_the_dictionary(loop: asyncio.AbstractEventLoop) -> None:
    """Patched without `setattr`: seen when the loop runs, like every attribute of the instance."""
    vars(loop)["time"] = lambda: 1234.5
    assert loop.time() == 1234.5
    handle = loop.call_later(1, int)
    assert handle.when() in (1235.5, pytest.approx(loop.__class__.time(loop) + 1, abs=1))
    handle.cancel()
    del vars(loop)["time"]
