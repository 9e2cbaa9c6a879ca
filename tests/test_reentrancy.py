"""Python code that runs at odd moments: destructors, hooks, handlers, loops inside loops.

Whatever runs between two steps must find no current task, the context that is its own, and a loop
that it may call; and what it does must not disturb what it interrupted.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from backends import PY312, PY314, Backend
from turns import raised, turn

Run = Callable[[Coroutine[Any, Any, Any]], Any]

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default="unset")


class Witness:
    """Notes who is the current task, and what the variable is, when it dies."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def __del__(self) -> None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            self.seen.append(("no loop", variable.get()))
            return
        self.seen.append((task.get_name() if task else None, variable.get()))


class TestDestructors:
    def test_result_of_a_dropped_task(self, loop: asyncio.AbstractEventLoop) -> None:
        """It dies with its task, after the step: no task is current then."""
        seen: list[Any] = []

        async def give() -> Any:
            variable.set("inside")
            return Witness(seen)

        loop.create_task(give(), name="giver")
        loop.create_task(asyncio.sleep(0), name="next")
        turn(loop, 3)
        assert [name for name, _ in seen] == [None]

    def test_result_of_a_dropped_task_before_the_loop_sleeps(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Nothing of a finished task is kept while the loop waits for the next thing to happen."""
        seen: list[Any] = []
        seen_by_timer: list[int] = []

        async def give() -> Any:
            return Witness(seen)

        loop.create_task(give())
        loop.call_later(0.01, lambda: (seen_by_timer.append(len(seen)), loop.stop()))
        loop.run_forever()
        assert seen_by_timer == [1]
        assert [name for name, _ in seen] == [None]

    def test_local_of_a_step(self, loop: asyncio.AbstractEventLoop) -> None:
        """It dies inside the step: its task is the current one, its context is entered."""
        seen: list[Any] = []

        async def hold() -> None:
            variable.set("inside")
            witness = Witness(seen)
            await asyncio.sleep(0)
            del witness
            await asyncio.sleep(0)

        task = loop.create_task(hold(), name="holder")
        loop.run_until_complete(task)
        assert seen == [("holder", "inside")]

    def test_last_local_of_a_coroutine(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []

        async def hold() -> None:
            variable.set("inside")
            witness = Witness(seen)
            await asyncio.sleep(0)
            assert witness

        task = loop.create_task(hold(), name="holder")
        loop.run_until_complete(task)
        assert seen == [("holder", "inside")]

    def test_argument_of_a_callback(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []
        contextvars.Context().run(loop.call_soon, lambda *_: variable.set("inside"), Witness(seen))
        loop.create_task(asyncio.sleep(0), name="next")
        turn(loop, 3)
        # It goes with the handle, when the callback has returned and its context been left.
        assert seen == [(None, "unset")]

    def test_result_of_a_future_that_a_task_waited_for(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        seen: list[Any] = []

        async def wait() -> None:
            variable.set("inside")
            await futures.pop()
            await asyncio.sleep(0)

        futures = [loop.create_future()]
        loop.call_soon(futures[0].set_result, Witness(seen))
        task = loop.create_task(wait(), name="waiter")
        loop.run_until_complete(task)
        assert seen == [("waiter", "inside")]

    def test_done_callback_that_is_dropped(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []
        future = loop.create_future()
        witness = Witness(seen)
        future.add_done_callback(lambda _, w=witness: None)
        del witness

        async def main() -> None:
            future.set_result(None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        task = loop.create_task(main(), name="main")
        loop.run_until_complete(task)
        assert seen == [(None, "unset")]

    def test_weakref_callbacks(self, loop: asyncio.AbstractEventLoop) -> None:
        """A finaliser watches each task: it runs when the loop lets go of it."""
        seen: list[Any] = []

        def gone() -> None:
            seen.append((asyncio.current_task(), variable.get()))

        async def child() -> None:
            variable.set("inside")
            await asyncio.sleep(0)

        async def main() -> None:
            for _ in range(3):
                weakref.finalize(asyncio.ensure_future(child()), gone)
            for _ in range(4):
                await asyncio.sleep(0)

        loop.run_until_complete(main())
        assert seen == [(None, "unset")] * 3

    def test_collector_hooks(self, loop: asyncio.AbstractEventLoop) -> None:
        """gc.callbacks run wherever a collection strikes; here inside a step."""
        seen: list[Any] = []

        def hook(phase: str, info: dict[str, Any]) -> None:
            if phase == "start":
                seen.append(asyncio.current_task())

        async def main() -> None:
            gc.callbacks.append(hook)
            try:
                gc.collect()
                await asyncio.sleep(0)
                gc.collect()
            finally:
                gc.callbacks.remove(hook)

        task = loop.create_task(main())
        loop.run_until_complete(task)
        assert seen[0] is task
        assert seen[-1] is task

    def test_destructor_that_makes_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        ended: list[int] = []

        async def child(number: int) -> None:
            await asyncio.sleep(0)
            ended.append(number)

        class Making:
            def __init__(self, number: int) -> None:
                self.number = number

            def __del__(self) -> None:
                loop.create_task(child(self.number))

        async def main() -> Any:
            for number in range(10):
                loop.call_soon(id, Making(number))
                future = loop.create_future()
                future.set_result(Making(number + 100))
                del future
            for _ in range(5):
                await asyncio.sleep(0)

        loop.run_until_complete(main())
        assert sorted(ended) == sorted([*range(10), *range(100, 110)])

    def test_destructor_that_cancels(self, loop: asyncio.AbstractEventLoop) -> None:
        """A task dies and cancels another that stands behind it in the queue."""

        async def forever() -> None:
            await loop.create_future()

        victims = [loop.create_task(forever()) for _ in range(3)]

        class Cancelling:
            def __del__(self) -> None:
                for victim in victims:
                    victim.cancel()

        async def give() -> Any:
            return Cancelling()

        turn(loop)
        loop.create_task(give())
        turn(loop, 4)
        assert all(victim.cancelled() for victim in victims)

    def test_destructor_that_stops_and_runs_again(self, loop: asyncio.AbstractEventLoop) -> None:
        class Stopping:
            def __del__(self) -> None:
                loop.stop()

        for _ in range(3):
            loop.call_soon(id, Stopping())
            loop.call_soon(int)
            loop.call_soon(int)
            loop.run_forever()


class TestHooks:
    def test_signal_handler_while_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        """It interrupts the wait, not a task."""
        import os

        seen: list[Any] = []

        def handler(number: int, frame: Any) -> None:
            seen.append((asyncio.current_task(), variable.get()))
            loop.call_soon_threadsafe(done.set_result, None)

        done = loop.create_future()

        async def main() -> None:
            variable.set("inside")
            await done

        kept = signal.signal(signal.SIGUSR1, handler)
        try:
            timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            loop.run_until_complete(main())
            timer.join()
        finally:
            signal.signal(signal.SIGUSR1, kept)
        assert seen == [(None, "unset")]

    def test_call_soon_of_a_subclass(self, backend: Backend) -> None:
        """Called from inside `set_result`, itself a callback: no current task, own context."""
        seen: list[Any] = []

        class Noting(backend.loop_class):  # type: ignore[misc, name-defined]
            def call_soon(self, callback: Any, *arguments: Any, **keywords: Any) -> Any:
                if asyncio._get_running_loop() is not None:
                    task = asyncio.current_task()
                    seen.append((task.get_name() if task else None, variable.get()))
                return super().call_soon(callback, *arguments, **keywords)

        loop = Noting()

        async def wait(future: Any) -> None:
            variable.set("waiter")
            await future
            seen.clear()

        async def main() -> None:
            variable.set("main")
            future = loop.create_future()
            task = asyncio.ensure_future(wait(future))
            await asyncio.sleep(0)
            contextvars.Context().run(loop.call_soon, future.set_result, None)
            seen.clear()
            await asyncio.sleep(0)
            noted.extend(seen)
            await task

        noted: list[Any] = []
        main_task = loop.create_task(main(), name="main")
        loop.run_until_complete(main_task)
        loop.close()
        # First the waking of the waiter, by the callback; then perhaps the next sleep's, by main.
        assert noted[0] in ((None, "unset"), ("main", "main"))
        assert (None, "unset") in noted

    def test_exception_handler_of_set_result(self, loop: asyncio.AbstractEventLoop) -> None:
        """`call_soon(future.set_result)` on a future that is done: reported, in its own context."""
        seen: list[Any] = []

        def handler(loop_: Any, context: dict[str, Any]) -> None:
            seen.append((type(context["exception"]), asyncio.current_task(), variable.get()))

        loop.set_exception_handler(handler)
        future = loop.create_future()
        future.set_result(1)

        async def main() -> None:
            variable.set("main")
            loop.call_soon(future.set_result, 2)
            loop.call_soon(future.set_exception, ValueError())
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        loop.run_until_complete(main())
        value = "main" if PY312 else "unset"
        assert seen == [(asyncio.InvalidStateError, None, value)] * 2

    def test_handler_of_set_result_with_wrong_arguments(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result)
        loop.call_soon(future.set_result, 1, 2)
        loop.call_soon(future.cancel, "a", "b", "c")
        turn(loop)
        assert [type(report["exception"]) for report in reports] == [TypeError] * 3
        assert not future.done()
        future.cancel()

    def test_all_methods_of_futures_as_callbacks(self, loop: asyncio.AbstractEventLoop) -> None:
        """What the loop may know by sight and call by a shorter way."""
        futures = [loop.create_future() for _ in range(5)]
        error = LookupError()
        loop.call_soon(futures[0].set_result, 1)
        loop.call_soon(futures[1].set_exception, error)
        loop.call_soon(futures[2].cancel)
        loop.call_soon(futures[3].cancel, "message")
        loop.call_soon(futures[4].add_done_callback, int)
        loop.call_soon(futures[4].remove_done_callback, int)
        task = loop.create_task(asyncio.sleep(10))
        loop.call_soon(task.cancel, "task")
        loop.call_soon(task.uncancel)
        turn(loop, 3)
        assert futures[0].result() == 1
        assert futures[1].exception() is error
        assert futures[2].cancelled()
        assert futures[3]._cancel_message == "message"
        assert not futures[4].done()
        assert task.cancelled()
        futures[4].cancel()

    def test_audit_hook_and_profile(self, run: Run) -> None:
        """A profiler looks at the current task at every call and return."""
        seen: set[Any] = set()

        def profile(frame: Any, event: str, argument: Any) -> None:
            if event in ("call", "return") and frame.f_code is child.__code__:
                task = asyncio.current_task()
                seen.add(task.get_name() if task else None)

        async def child() -> None:
            await asyncio.sleep(0)

        async def main() -> None:
            sys.setprofile(profile)
            try:
                tasks = [asyncio.create_task(child(), name=f"task {n}") for n in range(3)]
                await asyncio.gather(*tasks)
            finally:
                sys.setprofile(None)

        run(main())
        assert seen == {"task 0", "task 1", "task 2"}


class TestKeptStopIteration:
    """The exception that ends an await may be kept by who catches it."""

    def test_value_stays(self, loop: asyncio.AbstractEventLoop) -> None:
        kept = []
        for number in range(50):
            future = loop.create_future()
            future.set_result([number])
            with pytest.raises(StopIteration) as caught:
                next(future.__await__())
            kept.append(caught.value)
        assert [stop.value for stop in kept] == [[number] for number in range(50)]
        assert len({id(stop) for stop in kept}) == 50

    def test_kept_while_tasks_run(self, loop: asyncio.AbstractEventLoop) -> None:
        kept: list[StopIteration] = []

        class Catching:
            def __init__(self, future: Any) -> None:
                self.iterator = future.__await__()

            def __await__(self) -> Any:
                while True:
                    try:
                        yielded = next(self.iterator)
                    except StopIteration as stop:
                        kept.append(stop)
                        return stop.value
                    yield yielded

        async def work(number: int) -> None:
            for step in range(10):
                future = loop.create_future()
                loop.call_soon(future.set_result, (number, step))
                assert await Catching(future) == (number, step)
                other = loop.create_future()
                other.set_result("other")
                assert await other == "other"

        async def main() -> None:
            await asyncio.gather(*(work(number) for number in range(5)))

        loop.run_until_complete(main())
        assert sorted(stop.value for stop in kept) == [
            (number, step) for number in range(5) for step in range(10)
        ]
        assert all(isinstance(stop, StopIteration) for stop in kept)
        assert {type(stop).__name__ for stop in kept} == {"StopIteration"}
        assert all(stop.args == (stop.value,) for stop in kept)

    def test_raised_again(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.set_result("value")
        with pytest.raises(StopIteration) as first:
            next(future.__await__())
        error = first.value

        def again() -> None:
            raise error

        with pytest.raises(StopIteration) as second:
            again()
        assert second.value is error
        assert error.value == "value"
        assert error.__cause__ is None

    def test_attributes_do_not_travel(self, loop: asyncio.AbstractEventLoop) -> None:
        """A note or an attribute on one must not show up on another."""
        for _ in range(20):
            future = loop.create_future()
            future.set_result(None)
            with pytest.raises(StopIteration) as caught:
                next(future.__await__())
            assert not hasattr(caught.value, "mine")
            assert not getattr(caught.value, "__notes__", [])
            assert caught.value.__context__ is None
            caught.value.mine = 1  # type: ignore[attr-defined]
            caught.value.add_note("mine")

    def test_context_of_one_in_an_except(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> Any:
            future = loop.create_future()
            future.set_result("value")
            try:
                raise LookupError
            except LookupError:
                return await future

        assert loop.run_until_complete(main()) == "value"


class TestNested:
    @pytest.mark.skipif(PY314, reason="leaving a task asks for the running loop on 3.14")
    def test_another_loop_inside_a_step(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        """The running loop is hidden, another runs to its end, and the first goes on."""
        inner_loop = backend.new_event_loop()

        async def inner() -> list[Any]:
            seen = [asyncio.current_task() is inner_task, variable.get()]
            variable.set("inner")
            await asyncio.sleep(0.001)
            seen.append(variable.get())
            seen.append(asyncio.get_running_loop() is inner_loop)
            return seen

        async def outer() -> list[Any]:
            nonlocal inner_task
            own = asyncio.current_task()
            assert own is not None
            variable.set("outer")
            asyncio._set_running_loop(None)
            # Up to 3.13 the current task belongs to its loop, from 3.14 on to the thread.
            asyncio.tasks._leave_task(loop, own)
            try:
                inner_task = inner_loop.create_task(inner())
                seen = inner_loop.run_until_complete(inner_task)
            finally:
                asyncio._set_running_loop(loop)
                asyncio.tasks._enter_task(loop, own)
            seen.append(asyncio.current_task() is own)
            seen.append(variable.get())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task() is own)
            seen.append(variable.get())
            return list(seen)

        inner_task: Any = None
        got = loop.run_until_complete(outer())
        inner_loop.close()
        assert got == [True, "outer", "inner", True, True, "outer", True, "outer"]

    def test_another_loop_inside_a_callback(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        inner_loop = backend.new_event_loop()
        seen: list[Any] = []

        async def inner() -> str:
            await asyncio.sleep(0)
            return variable.get()

        def callback() -> None:
            variable.set("callback")
            asyncio._set_running_loop(None)
            try:
                seen.append(inner_loop.run_until_complete(inner()))
            finally:
                asyncio._set_running_loop(loop)
            seen.append(variable.get())

        loop.call_soon(callback)
        loop.call_soon(lambda: seen.append(variable.get()))
        turn(loop, 2)
        inner_loop.close()
        assert seen == ["callback", "callback", "unset"]

    def test_a_loop_in_the_destructor_of_a_callback(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        seen: list[Any] = []

        class Running:
            def __del__(self) -> None:
                running = asyncio._get_running_loop()
                asyncio._set_running_loop(None)
                other = backend.new_event_loop()
                seen.append(other.run_until_complete(asyncio.sleep(0, "ran")))
                other.close()
                asyncio._set_running_loop(running)

        loop.call_soon(id, Running())
        loop.call_soon(int)
        turn(loop, 2)
        assert seen == ["ran"]

    def test_the_same_loop_is_refused_from_anywhere(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        if (3, 13) <= sys.version_info < (3, 13, 3) and not backend.is_weft:
            pytest.skip("asyncio of 3.13.0 forgets that it runs when a second run is refused")
        errors: list[Any] = []

        class Running:
            def __del__(self) -> None:
                errors.append(raised(loop.run_forever))

        async def main() -> None:
            errors.append(raised(loop.run_forever))
            loop.call_soon(id, Running())
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        loop.run_until_complete(main())
        assert errors == [(RuntimeError, "This event loop is already running")] * 2

    def test_greenlets_are_not_threads(self, loop: asyncio.AbstractEventLoop) -> None:
        """A generator-based coroutine driven by hand inside a step keeps its own await."""

        async def inner() -> str:
            await asyncio.sleep(0)
            return "inner"

        async def main() -> list[Any]:
            coro = inner()
            assert coro.send(None) is None
            await asyncio.sleep(0)
            with pytest.raises(StopIteration) as caught:
                coro.send(None)
            return [caught.value.value, asyncio.current_task() is task]

        task = loop.create_task(main())
        assert loop.run_until_complete(task) == ["inner", True]

    def test_step_by_hand_from_a_callback(self, loop: asyncio.AbstractEventLoop) -> None:
        """A coroutine that belongs to a task is running already when the task's step calls this."""

        async def main() -> Any:
            own = asyncio.current_task()
            assert own is not None
            return raised(own.get_coro().send, None)  # type: ignore[union-attr]

        assert loop.run_until_complete(main()) == (ValueError, "coroutine already executing")

    def test_cancel_inside_the_own_future_protocol(self, loop: asyncio.AbstractEventLoop) -> None:
        """`add_done_callback` of the awaited future cancels the task that is about to wait."""

        class Cancelling(asyncio.Future):  # type: ignore[type-arg]
            def add_done_callback(self, *arguments: Any, **keywords: Any) -> None:
                super().add_done_callback(*arguments, **keywords)
                if not task.cancelling():
                    task.cancel()

        async def main() -> None:
            await Cancelling(loop=loop)

        task = loop.create_task(main())
        turn(loop, 4)
        assert task.cancelled()


class TestStateOfTheThread:
    def test_trace_function_of_a_debugger(self, run: Run) -> None:
        lines: list[int] = []

        def trace(frame: Any, event: str, argument: Any) -> Any:
            if frame.f_code is child.__code__ and event == "line":
                lines.append(frame.f_lineno - child.__code__.co_firstlineno)
            return trace

        async def child() -> int:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return 1

        async def main() -> int:
            kept = sys.gettrace()
            sys.settrace(trace)
            try:
                return await asyncio.ensure_future(child())
            finally:
                sys.settrace(kept)

        assert run(main()) == 1
        assert lines == [1, 2, 3]

    def test_exception_state_is_clean_in_callbacks(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []
        loop.call_soon(lambda: 1 / 0)
        loop.call_soon(lambda: seen.append(sys.exc_info()))
        loop.set_exception_handler(lambda *_: None)
        try:
            raise LookupError
        except LookupError:
            turn(loop)
            # The caller's own is visible inside, as for any function that it calls.
            assert seen[0][0] is LookupError
        loop.call_soon(lambda: seen.append(sys.exc_info()))
        turn(loop)
        assert seen[1] == (None, None, None)

    def test_generator_based_context_managers(self, run: Run) -> None:
        import contextlib

        @contextlib.contextmanager
        def setting(value: Any) -> Any:
            token = variable.set(value)
            try:
                yield
            finally:
                variable.reset(token)

        async def child(value: Any) -> Any:
            with setting(value):
                await asyncio.sleep(0)
                return variable.get()

        async def main() -> None:
            assert await asyncio.gather(*(child(n) for n in range(5))) == list(range(5))
            assert variable.get() == "unset"

        run(main())
