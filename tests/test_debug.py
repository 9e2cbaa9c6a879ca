"""Debug mode: slow callbacks, creation tracebacks, coroutines never awaited, wrong threads."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from backends import Backend
from children import program, python
from turns import raised, turn

Run = Callable[..., Any]


def nothing(*arguments: Any) -> None:
    pass


@pytest.fixture
def debug(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    loop.set_debug(True)
    return loop


def slow_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "asyncio" and record.getMessage().startswith("Executing ")
    ]


class TestSlowCallbacks:
    @pytest.fixture(autouse=True)
    def quick(self, request: pytest.FixtureRequest) -> None:
        """Nothing has to be really slow for these tests."""
        if "debug" in request.fixturenames:
            request.getfixturevalue("debug").slow_callback_duration = 0.005

    def test_handle(
        self, debug: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        def slow(_: str) -> None:
            time.sleep(0.01)

        debug.call_soon(slow, "argument")
        debug.call_soon(nothing)
        turn(debug)
        lines = slow_lines(caplog)
        assert len(lines) == 1
        assert re.fullmatch(
            r"Executing <Handle .*slow\('argument'\) at .*test_debug\.py:\d+"
            r" created at .*test_debug\.py:\d+> took 0\.\d{3} seconds",
            lines[0],
        )
        levels = {r.levelno for r in caplog.records if r.getMessage().startswith("Executing ")}
        assert levels == {logging.WARNING}

    def test_timer(
        self, debug: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        debug.call_later(0, time.sleep, 0.01)
        turn(debug, 2)
        lines = slow_lines(caplog)
        assert len(lines) == 1
        assert lines[0].startswith("Executing <TimerHandle when=")

    def test_task_step(
        self, debug: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def slow() -> None:
            time.sleep(0.01)
            await asyncio.sleep(0)
            time.sleep(0.01)

        task = debug.create_task(slow(), name="slow one")
        turn(debug, 3)
        assert task.done()
        lines = slow_lines(caplog)
        assert len(lines) == 2
        assert re.match(
            r"Executing <Task pending name='slow one' coro=<.*slow\(\) running at "
            r".*test_debug\.py:\d+> .*took 0\.\d{3} seconds",
            lines[0],
        )
        assert re.match(r"Executing <Task finished name='slow one' coro=<.*slow\(\) done", lines[1])
        assert "created at" in lines[0]

    def test_step_after_a_future(
        self, debug: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def slow() -> None:
            future = debug.create_future()
            debug.call_soon(future.set_result, None)
            await future
            time.sleep(0.01)

        debug.run_until_complete(slow())
        # On a busy machine the step before, too, may be called slow.
        assert [line for line in slow_lines(caplog) if "slow() done" in line]

    def test_done_callback(
        self, debug: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        def slow(_: Any) -> None:
            time.sleep(0.01)

        future = debug.create_future()
        future.add_done_callback(slow)
        future.set_result(None)
        turn(debug)
        assert len(slow_lines(caplog)) == 1

    def test_reader(
        self, debug: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        import os

        reading, writing = os.pipe()

        def slow() -> None:
            os.read(reading, 1)
            time.sleep(0.01)

        debug.add_reader(reading, slow)
        os.write(writing, b"x")
        turn(debug, 2)
        debug.remove_reader(reading)
        os.close(reading)
        os.close(writing)
        assert len(slow_lines(caplog)) == 1

    def test_limit(
        self, debug: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        debug.slow_callback_duration = 1000
        debug.call_soon(time.sleep, 0.01)
        turn(debug)
        assert slow_lines(caplog) == []
        debug.slow_callback_duration = 0
        debug.call_soon(nothing)
        turn(debug)
        # Everything is slow now, the stop of the turn included.
        assert len(slow_lines(caplog)) >= 1

    @pytest.mark.outside_debug
    def test_not_outside_debug(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        loop.slow_callback_duration = 0.001
        loop.call_soon(time.sleep, 0.005)
        turn(loop)
        assert slow_lines(caplog) == []

    def test_one_that_raises(
        self,
        debug: asyncio.AbstractEventLoop,
        caplog: pytest.LogCaptureFixture,
        reports: list[dict[str, Any]],
    ) -> None:
        def slow() -> None:
            time.sleep(0.01)
            raise ZeroDivisionError

        debug.call_soon(slow)
        turn(debug)
        assert len(reports) == 1
        assert "source_traceback" in reports[0]
        assert len(slow_lines(caplog)) == 1


class TestSourceTracebacks:
    def test_future(self, debug: asyncio.AbstractEventLoop) -> None:
        future = debug.create_future()
        assert future._source_traceback is not None
        assert any(frame.filename == __file__ for frame in future._source_traceback)
        assert future._source_traceback[-1].name != "__init__"

    def test_task(self, debug: asyncio.AbstractEventLoop) -> None:
        async def child() -> None:
            pass

        task = debug.create_task(child())
        assert task._source_traceback is not None
        assert task._source_traceback[-1].name == "test_task"
        debug.run_until_complete(task)

    def test_task_made_by_hand(self, debug: asyncio.AbstractEventLoop, backend: Backend) -> None:
        async def child() -> None:
            pass

        task = backend.Task(child(), loop=debug)
        assert task._source_traceback is not None
        assert any(frame.name == "test_task_made_by_hand" for frame in task._source_traceback)
        debug.run_until_complete(task)

    @pytest.mark.outside_debug
    def test_none_outside_debug(self, loop: asyncio.AbstractEventLoop) -> None:
        async def child() -> None:
            pass

        task = loop.create_task(child())
        assert task._source_traceback is None
        assert loop.create_future()._source_traceback is None
        loop.run_until_complete(task)

    def test_report_of_a_callback(
        self, debug: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        def broken() -> None:
            raise ZeroDivisionError

        debug.call_soon(broken)
        turn(debug)
        assert set(reports[0]) == {"message", "exception", "handle", "source_traceback"}
        assert reports[0]["source_traceback"][-1].name == "test_report_of_a_callback"

    def test_repr_of_a_task(self, debug: asyncio.AbstractEventLoop) -> None:
        async def child() -> None:
            pass

        task = debug.create_task(child(), name="mine")
        assert re.fullmatch(
            r"<Task pending name='mine' coro=<.*child\(\) running at .*test_debug\.py:\d+>"
            r" created at .*:\d+>",
            repr(task),
        )
        debug.run_until_complete(task)

    def test_length_is_limited(self, debug: asyncio.AbstractEventLoop) -> None:
        def deeper(depth: int) -> Any:
            return deeper(depth - 1) if depth else debug.call_soon(nothing)

        handle = deeper(50)
        assert 5 <= len(handle._source_traceback) <= 10
        handle.cancel()


class TestWrongThread:
    @pytest.mark.parametrize("name", ["call_soon", "call_later", "call_at"])
    def test_scheduling(self, debug: asyncio.AbstractEventLoop, name: str) -> None:
        arguments = (nothing,) if name == "call_soon" else (1, nothing)
        errors: list[tuple[type, str]] = []

        def elsewhere() -> None:
            errors.append(raised(getattr(debug, name), *arguments))

        async def main() -> None:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.001)
            thread.join()

        debug.run_until_complete(main())
        assert errors == [
            (
                RuntimeError,
                "Non-thread-safe operation invoked on an event loop other than the current one",
            )
        ]

    def test_future_and_task(self, debug: asyncio.AbstractEventLoop) -> None:
        """Completing a future schedules its callbacks, and so may not be done from elsewhere."""
        errors: list[tuple[type, str]] = []
        future = debug.create_future()
        future.add_done_callback(nothing)

        async def child() -> None:
            pass

        def elsewhere() -> None:
            errors.append(raised(future.set_result, 1))
            coro = child()
            errors.append(raised(debug.create_task, coro))
            coro.close()

        async def main() -> None:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.001)
            thread.join()

        # The half-made task of stock asyncio is reported as destroyed.
        debug.set_exception_handler(nothing)
        debug.run_until_complete(main())
        gc.collect()
        assert [error for error, _ in errors] == [RuntimeError, RuntimeError]

    def test_not_while_it_does_not_run(self, debug: asyncio.AbstractEventLoop) -> None:
        """Before the run any thread may schedule: nobody knows yet whose loop it will be."""
        seen: list[int] = []
        thread = threading.Thread(target=debug.call_soon, args=(seen.append, 1))
        thread.start()
        thread.join()
        turn(debug)
        assert seen == [1]

    def test_threadsafe_is_fine(self, debug: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []

        async def main() -> None:
            thread = threading.Thread(target=debug.call_soon_threadsafe, args=(seen.append, 1))
            thread.start()
            thread.join()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        debug.run_until_complete(main())
        assert seen == [1]

    @pytest.mark.outside_debug
    def test_not_outside_debug(self, loop: asyncio.AbstractEventLoop) -> None:
        """asyncio takes it, unguarded; it must at least do no harm."""
        seen: list[int] = []

        async def main() -> None:
            thread = threading.Thread(target=loop.call_soon, args=(seen.append, 1))
            thread.start()
            thread.join()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        loop.run_until_complete(main())
        assert seen == [1]


class TestNeverAwaited:
    def test_origin(self, debug: asyncio.AbstractEventLoop) -> None:
        async def forgotten() -> None:
            pass

        async def main() -> None:
            forgotten()

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            debug.run_until_complete(main())
            gc.collect()
        messages = [str(w.message) for w in caught if w.category is RuntimeWarning]
        assert len(messages) == 1
        first, _, rest = messages[0].partition("\n")
        assert first.endswith("forgotten' was never awaited")
        assert rest.startswith("Coroutine created at (most recent call last)\n")
        assert "in main" in rest

    @pytest.mark.outside_debug
    def test_no_origin_outside_debug(self, loop: asyncio.AbstractEventLoop) -> None:
        async def forgotten() -> None:
            pass

        async def main() -> None:
            forgotten()

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.run_until_complete(main())
            gc.collect()
        messages = [str(w.message) for w in caught if w.category is RuntimeWarning]
        assert len(messages) == 1
        assert "created at" not in messages[0]

    def test_origin_tracking_is_on_while_it_runs(self, debug: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        before = sys.get_coroutine_origin_tracking_depth()
        debug.call_soon(lambda: seen.append(sys.get_coroutine_origin_tracking_depth()))
        turn(debug)
        assert seen[0] > 0
        assert sys.get_coroutine_origin_tracking_depth() == before

    @pytest.mark.outside_debug
    def test_switched_on_and_off_while_it_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> list[int]:
            seen = [sys.get_coroutine_origin_tracking_depth()]
            for switch in (True, False):
                loop.set_debug(switch)
                # It takes effect in the next turn.
                await asyncio.sleep(0)
                seen.append(sys.get_coroutine_origin_tracking_depth())
            return seen

        before, on, off = loop.run_until_complete(main())
        assert before == off
        assert on > before


class TestReports:
    def test_unknown_keys_and_order(
        self, debug: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        debug.call_exception_handler({"message": "hello", "beta": 2, "alpha": [1]})
        messages = [record.getMessage() for record in caplog.records]
        assert messages == ["hello\nalpha: [1]\nbeta: 2"]

    def test_poll_and_run_lines(
        self, debug: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nothing in the log at the level of warnings from a quiet debug run."""
        debug.run_until_complete(asyncio.sleep(0.001))
        assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []

    def test_create_task_reports_while_running(
        self, debug: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> list[Any]:
            return await asyncio.gather(*(asyncio.sleep(0, n) for n in range(5)))

        assert debug.run_until_complete(main()) == [0, 1, 2, 3, 4]


@pytest.mark.child
class TestSwitches:
    """How debug mode is switched on from outside."""

    SHOW = """
    async def main():
        return asyncio.get_running_loop().get_debug()
    print(run(main()))
    loop = new_event_loop()
    print(loop.get_debug())
    loop.close()
    """

    def test_default(self, backend: Backend) -> None:
        assert program(backend, self.SHOW).check() == "False\nFalse\n"

    def test_environment(self, backend: Backend) -> None:
        out = program(backend, self.SHOW, PYTHONASYNCIODEBUG="1").check()
        assert out == "True\nTrue\n"

    def test_empty_environment(self, backend: Backend) -> None:
        assert program(backend, self.SHOW, PYTHONASYNCIODEBUG="").check() == "False\nFalse\n"

    def test_dev_mode(self, backend: Backend) -> None:
        assert program(backend, self.SHOW, "-X", "dev").check() == "True\nTrue\n"

    def test_ignored_environment(self, backend: Backend) -> None:
        """`-E` and `-I` ignore PYTHONASYNCIODEBUG; the module must be found another way then."""
        from children import child_environment

        home = child_environment()["PYTHONPATH"].split(":")
        source = (
            f"import sys; sys.path[:0] = {home!r}\n"
            + backend.prelude
            + "loop = new_event_loop(); print(loop.get_debug()); loop.close()"
        )
        assert python("-E", "-c", source, PYTHONASYNCIODEBUG="1").check() == "False\n"

    def test_argument_wins(self, backend: Backend) -> None:
        source = """
        async def main():
            return asyncio.get_running_loop().get_debug()
        print(run(main(), debug=False))
        """
        assert program(backend, source, PYTHONASYNCIODEBUG="1").check() == "False\n"


def test_debug_can_be_switched_by_a_callback(loop: asyncio.AbstractEventLoop) -> None:
    seen: list[int] = []
    loop.call_soon(loop.set_debug, True)
    loop.call_soon(seen.append, 1)
    loop.call_soon(loop.set_debug, False)
    loop.call_soon(seen.append, 2)
    turn(loop)
    assert seen == [1, 2]
    assert loop.get_debug() is False


def test_debug_changes_no_result(run: Run) -> None:
    async def child(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def main() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child(number)) for number in range(10)]
        queue: asyncio.Queue[int] = asyncio.Queue(2)

        async def produce() -> None:
            for number in range(10):
                await queue.put(number)

        producer: Coroutine[Any, Any, None] = produce()
        task = asyncio.ensure_future(producer)
        got = [await queue.get() for _ in range(10)]
        await task
        assert got == list(range(10))
        return [task.result() for task in tasks]

    assert run(main(), debug=True) == run(main(), debug=False) == list(range(10))
