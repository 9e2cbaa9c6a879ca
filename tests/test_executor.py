"""run_in_executor, set_default_executor, shutdown_default_executor, to_thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from backends import PY312, PY313, Backend
from turns import raised, turn

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class TestRunInExecutor:
    def test_result(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        future = loop.run_in_executor(None, pow, 2, 10)
        assert type(future) is backend.Future
        assert loop.run_until_complete(future) == 1024

    def test_in_another_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        thread = loop.run_until_complete(loop.run_in_executor(None, threading.current_thread))
        assert thread is not threading.current_thread()
        assert thread.name.startswith("asyncio_")

    def test_exception(self, loop: asyncio.AbstractEventLoop) -> None:
        with pytest.raises(ZeroDivisionError):
            loop.run_until_complete(loop.run_in_executor(None, lambda: 1 / 0))

    def test_base_exception(self, loop: asyncio.AbstractEventLoop) -> None:
        """It arrives like any other. (An exit inside a bare future leaves asyncio waiting.)"""

        def leave() -> None:
            raise GeneratorExit

        with pytest.raises(GeneratorExit):
            loop.run_until_complete(loop.run_in_executor(None, leave))

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_exit_inside_a_task(
        self, loop: asyncio.AbstractEventLoop, kind: type[BaseException]
    ) -> None:
        def leave() -> None:
            raise kind

        async def main() -> None:
            await loop.run_in_executor(None, leave)

        with pytest.raises(kind):
            loop.run_until_complete(main())

    def test_stop_iteration(self, loop: asyncio.AbstractEventLoop) -> None:
        """It cannot be set on a future: an error, and not a loop that waits forever."""

        def stop() -> None:
            raise StopIteration

        async def main() -> None:
            await asyncio.wait_for(loop.run_in_executor(None, stop), 5)

        if not PY312:
            pytest.skip("asyncio waits forever here before 3.12.2")
        loop.set_exception_handler(lambda *_: None)
        with pytest.raises((RuntimeError, TimeoutError, TypeError)):
            loop.run_until_complete(asyncio.wait_for(main(), 0.2))

    def test_many(self, run: Run) -> None:
        async def main() -> list[int]:
            loop = asyncio.get_running_loop()
            return await asyncio.gather(
                *(loop.run_in_executor(None, pow, number, 2) for number in range(200))
            )

        assert run(main()) == [number**2 for number in range(200)]

    def test_own_executor(self, loop: asyncio.AbstractEventLoop) -> None:
        with concurrent.futures.ThreadPoolExecutor(1, "mine") as executor:
            future = loop.run_in_executor(executor, threading.current_thread)
            assert loop.run_until_complete(future).name.startswith("mine")

    def test_executor_of_any_kind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Anything whose `submit` gives a concurrent future."""

        class Immediate(concurrent.futures.Executor):
            def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
                future: concurrent.futures.Future[Any] = concurrent.futures.Future()
                try:
                    future.set_result(function(*arguments, **keywords))
                except Exception as error:
                    future.set_exception(error)
                return future

        assert loop.run_until_complete(loop.run_in_executor(Immediate(), pow, 2, 3)) == 8
        with pytest.raises(ZeroDivisionError):
            loop.run_until_complete(loop.run_in_executor(Immediate(), divmod, 1, 0))

    def test_cancelled_before_it_starts(self, loop: asyncio.AbstractEventLoop) -> None:
        ran: list[int] = []
        release = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            blocking = loop.run_in_executor(executor, release.wait, 10)
            waiting = loop.run_in_executor(executor, ran.append, 1)
            waiting.cancel()
            turn(loop)
            release.set()
            loop.run_until_complete(blocking)
        assert waiting.cancelled()
        assert ran == []

    def test_cancelled_while_it_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread cannot be stopped; its result goes nowhere, in silence."""
        release, started = threading.Event(), threading.Event()

        def work() -> int:
            started.set()
            release.wait(10)
            return 1

        future = loop.run_in_executor(None, work)
        started.wait()
        future.cancel()
        turn(loop)
        release.set()
        loop.run_until_complete(loop.shutdown_default_executor())
        assert future.cancelled()

    def test_loop_closed_before_the_result(self, backend: Backend) -> None:
        """The thread reports to a closed loop: no error, nothing printed."""
        release = threading.Event()
        loop = backend.new_event_loop()
        executor = concurrent.futures.ThreadPoolExecutor(1)
        loop.run_in_executor(executor, release.wait, 10)
        loop.close()
        release.set()
        executor.shutdown()

    def test_context_is_not_taken_along(self, run: Run) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

        async def main() -> str:
            variable.set("set")
            return await asyncio.get_running_loop().run_in_executor(None, variable.get)

        assert run(main()) == "unset"

    def test_keywords_are_refused(self, loop: asyncio.AbstractEventLoop) -> None:
        with pytest.raises(TypeError):
            loop.run_in_executor(None, print, end="")  # type: ignore[call-arg]

    def test_coroutine_in_debug(self, loop: asyncio.AbstractEventLoop) -> None:
        async def coroutine() -> None:
            pass

        loop.set_debug(True)
        assert raised(loop.run_in_executor, None, coroutine) == (
            TypeError,
            "coroutines cannot be used with run_in_executor()",
        )
        assert raised(loop.run_in_executor, None, 7) == (
            TypeError,
            "a callable object was expected by run_in_executor(), got 7",
        )

    def test_not_awaited_result_is_dropped(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_in_executor(None, int)
        loop.run_until_complete(loop.shutdown_default_executor())
        turn(loop)


class TestDefaultExecutor:
    def test_set(self, loop: asyncio.AbstractEventLoop) -> None:
        executor = concurrent.futures.ThreadPoolExecutor(1, "chosen")
        loop.set_default_executor(executor)
        future = loop.run_in_executor(None, threading.current_thread)
        assert loop.run_until_complete(future).name.startswith("chosen")

    @pytest.mark.parametrize("thing", [None, 1, object(), concurrent.futures.Executor])
    def test_set_something_else(self, loop: asyncio.AbstractEventLoop, thing: Any) -> None:
        assert raised(loop.set_default_executor, thing) == (
            TypeError,
            "executor must be ThreadPoolExecutor instance",
        )

    def test_close_shuts_it_down(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        executor = concurrent.futures.ThreadPoolExecutor(1)
        loop.set_default_executor(executor)
        loop.run_until_complete(loop.run_in_executor(None, int))
        loop.close()
        assert raised(executor.submit, int)[0] is RuntimeError

    def test_close_does_not_wait(self, backend: Backend) -> None:
        release = threading.Event()
        loop = backend.new_event_loop()
        loop.run_in_executor(None, release.wait, 10)
        started = time.monotonic()
        loop.close()
        assert time.monotonic() - started < 5
        release.set()


class TestShutdown:
    def test_waits_for_what_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        started = threading.Event()

        def work() -> None:
            started.set()
            time.sleep(0.01)
            seen.append(1)

        loop.run_in_executor(None, work)
        started.wait()
        loop.run_until_complete(loop.shutdown_default_executor())
        assert seen == [1]

    def test_afterwards(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(loop.run_in_executor(None, int))
        loop.run_until_complete(loop.shutdown_default_executor())
        assert raised(loop.run_in_executor, None, int) == (
            RuntimeError,
            "Executor shutdown has been called",
        )
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            assert loop.run_until_complete(loop.run_in_executor(executor, int)) == 0

    def test_without_an_executor(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop.run_until_complete(loop.shutdown_default_executor()) is None
        assert loop.run_until_complete(loop.shutdown_default_executor()) is None

    @pytest.mark.skipif(not PY313, reason="the timeout came with 3.12 and works since 3.12.2")
    def test_timeout(self, loop: asyncio.AbstractEventLoop) -> None:
        release, started = threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            release.wait(10)

        loop.run_in_executor(None, work)
        started.wait()
        with pytest.warns(RuntimeWarning, match="did not finishing joining its threads within"):
            loop.run_until_complete(loop.shutdown_default_executor(timeout=0.01))
        release.set()

    @pytest.mark.skipif(not PY312, reason="the timeout came with 3.12")
    def test_timeout_that_is_not_needed(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(loop.run_in_executor(None, int))
        loop.run_until_complete(loop.shutdown_default_executor(10))

    def test_from_runner(self, run: Run) -> None:
        seen: list[int] = []

        async def main() -> None:
            asyncio.get_running_loop().run_in_executor(
                None, functools.partial(lambda: (time.sleep(0.01), seen.append(1)))
            )

        run(main())
        assert seen == [1]


class TestToThread:
    def test_result_and_keywords(self, run: Run) -> None:
        async def main() -> Any:
            return await asyncio.to_thread(sorted, [3, 1, 2], reverse=True)

        assert run(main()) == [3, 2, 1]

    def test_cancelled(self, run: Run) -> None:
        release = threading.Event()

        async def main() -> None:
            task = asyncio.ensure_future(asyncio.to_thread(release.wait, 10))
            await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            release.set()

        run(main())

    def test_back_in_the_loop_from_the_thread(self, run: Run) -> None:
        async def answer() -> int:
            await asyncio.sleep(0)
            return 42

        async def main() -> int:
            loop = asyncio.get_running_loop()

            def work() -> int:
                return asyncio.run_coroutine_threadsafe(answer(), loop).result(10)

            return await asyncio.to_thread(work)

        assert run(main()) == 42
