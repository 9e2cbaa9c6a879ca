"""to_thread and the default executor's threads: what is native there, beside asyncio's own.

test_executor.py has what programs see of run_in_executor and its like. Here are the threads
themselves, the jobs that Weft's loop gives them, and the ways around those.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import socket
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import weft
from backends import BACKENDS, PY313, Backend
from hypothesis import given, settings
from hypothesis import strategies as st
from turns import raised, turn
from weft._executor import Executor

Run = Callable[[Coroutine[Any, Any, Any]], Any]
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(params=["its own", "weft's"])
def to_thread(request: pytest.FixtureRequest, backend: Backend) -> Any:
    """asyncio's function on asyncio's loop, and Weft's on both."""
    if request.param == "weft's":
        return weft.to_thread
    if backend.is_weft:
        pytest.skip("the other one is its own")
    return asyncio.to_thread


@pytest.fixture
def executor(loop: asyncio.AbstractEventLoop) -> Any:
    """The loop's default executor, with a single thread."""
    executor: Any = Executor(1, "single")
    if type(loop) is not weft.Loop:
        executor = concurrent.futures.ThreadPoolExecutor(1, "single")
    loop.set_default_executor(executor)
    return executor


@pytest.fixture
def hold(loop: asyncio.AbstractEventLoop) -> Iterator[threading.Event]:
    """Keeps the first thread of the default executor busy until it is set."""
    release, started = threading.Event(), threading.Event()
    loop.run_in_executor(None, lambda: (started.set(), release.wait(10)))
    started.wait()
    yield release
    release.set()


def names_of_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if "asyncio" in thread.name)


class TestToThread:
    def test_arguments(self, run: Run, to_thread: Any) -> None:
        def function(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        async def main() -> list[Any]:
            return [
                await to_thread(function),
                await to_thread(function, 1),
                await to_thread(function, 1, 2, func=3),
                await to_thread(function, self=4),
            ]

        assert run(main()) == [
            ((), {}),
            ((1,), {}),
            ((1, 2), {"func": 3}),
            ((), {"self": 4}),
        ]

    def test_context(self, run: Run, to_thread: Any) -> None:
        """The function runs in a copy: it sees what is set, and what it sets stays there."""

        def function() -> str:
            seen = variable.get()
            variable.set("in the thread")
            return seen

        async def main() -> list[str]:
            variable.set("outside")
            seen = await to_thread(function)
            return [seen, variable.get(), await to_thread(function)]

        assert run(main()) == ["outside", "outside", "outside"]

    def test_context_of_the_first_step(self, run: Run, to_thread: Any) -> None:
        async def main() -> str:
            made = to_thread(variable.get)
            variable.set("set after the call")
            return await made

        assert run(main()) == "set after the call"

    def test_does_nothing_before_it_is_awaited(self, run: Run, to_thread: Any) -> None:
        ran: list[int] = []

        async def main() -> None:
            made = to_thread(ran.append, 1)
            assert asyncio.iscoroutine(made)
            await asyncio.sleep(0)
            made.close()
            task = asyncio.ensure_future(to_thread(ran.append, 2))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main())
        assert ran == []

    def test_no_function(self, to_thread: Any) -> None:
        with pytest.raises(TypeError, match="to_thread"):
            raise AssertionError(to_thread())

    def test_not_callable(self, run: Run, to_thread: Any) -> None:
        async def main() -> None:
            await to_thread(7)

        assert raised(run, main()) == (TypeError, "'int' object is not callable")

    def test_outside_of_a_loop(self, to_thread: Any) -> None:
        assert raised(to_thread(int).send, None) == (RuntimeError, "no running event loop")

    def test_exception(self, run: Run, to_thread: Any) -> None:
        def fail() -> None:
            raise ZeroDivisionError("the message")

        async def main() -> list[str]:
            with pytest.raises(ZeroDivisionError, match="the message") as caught:
                await to_thread(fail)
            assert caught.value.__context__ is None
            return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

        names = run(main())
        assert names[0] == "main"
        assert names[-1] == "fail"

    def test_shared_by_tasks(self, run: Run, to_thread: Any) -> None:
        async def main() -> list[int]:
            return await asyncio.gather(*(to_thread(pow, number, 2) for number in range(300)))

        assert run(main()) == [number**2 for number in range(300)]

    def test_default_executor_of_the_user(self, run: Run, to_thread: Any) -> None:
        async def main() -> str:
            pool = concurrent.futures.ThreadPoolExecutor(1, "chosen")
            asyncio.get_running_loop().set_default_executor(pool)
            return await to_thread(lambda: threading.current_thread().name)

        assert run(main()) == "chosen_0"

    @pytest.mark.parametrize("debug", [False, True])
    def test_debug(self, backend: Backend, to_thread: Any, debug: bool) -> None:
        async def main() -> int:
            return await to_thread(pow, 2, 5)

        assert backend.run(main(), debug=debug) == 32

    def test_nothing_is_kept(self, run: Run, to_thread: Any) -> None:
        class Thing:
            pass

        def function(thing: Thing, *, other: Thing) -> Thing:
            result = Thing()
            refs.extend(map(weakref.ref, (thing, other, result)))
            return result

        async def main() -> None:
            await to_thread(function, Thing(), other=Thing())
            await asyncio.sleep(0)
            assert [ref() for ref in refs] == [None, None, None]

        refs: list[weakref.ref[Thing]] = []
        run(main())

    def test_arguments_die_in_the_loops_thread(self, run: Run, to_thread: Any) -> None:
        """Objects that belong to one thread, of databases and user interfaces, want that."""
        died: list[threading.Thread] = []

        class Thing:
            def __del__(self) -> None:
                died.append(threading.current_thread())

        async def main() -> None:
            await to_thread(id, Thing())

        run(main())
        assert died == [threading.current_thread()]


class TestThreads:
    # asyncio's thread may not be idle again when the loop has its result.
    @pytest.mark.backends("weft")
    def test_one_is_enough_for_one_at_a_time(self, run: Run, to_thread: Any) -> None:
        async def main() -> set[Any]:
            return {await to_thread(threading.get_ident) for _ in range(50)}

        assert len(run(main())) == 1

    @pytest.mark.backends("weft")
    def test_as_many_as_are_needed(self, run: Run, to_thread: Any) -> None:
        """Each started for work that no idle one could take; all of them run at once."""

        async def main() -> list[str]:
            barrier = threading.Barrier(4)
            await asyncio.gather(*(to_thread(barrier.wait, 10) for _ in range(4)))
            await asyncio.gather(*(to_thread(barrier.wait, 10) for _ in range(4)))
            return names_of_threads()

        assert run(main()) == ["asyncio_0", "asyncio_1", "asyncio_2", "asyncio_3"]

    def test_not_more_than_a_pool_has(self, run: Run, to_thread: Any) -> None:
        async def main() -> int:
            release = threading.Event()
            waiting = [asyncio.ensure_future(to_thread(release.wait, 10)) for _ in range(100)]
            await asyncio.sleep(0)
            count = len(names_of_threads())
            release.set()
            assert all(await asyncio.gather(*waiting))
            return count

        pool = concurrent.futures.ThreadPoolExecutor()
        assert run(main()) == pool._max_workers

    def test_seen_by_threading(self, run: Run, to_thread: Any) -> None:
        async def main() -> None:
            thread = await to_thread(threading.current_thread)
            assert thread in threading.enumerate()
            assert (thread.name, thread.daemon) == ("asyncio_0", False)
            assert await to_thread(threading.get_native_id) == thread.native_id

        run(main())

    def test_own_variables_of_a_thread(self, run: Run) -> None:
        """run_in_executor takes no context along: what a function sets, the next one there sees."""

        async def main() -> str:
            loop = asyncio.get_running_loop()
            variable.set("the loop's")
            await loop.run_in_executor(None, variable.set, "the thread's")
            return await loop.run_in_executor(None, variable.get)

        assert run(main()) == "the thread's"

    def test_loop_goes_on_meanwhile(self, run: Run, to_thread: Any) -> None:
        async def main() -> int:
            release = threading.Event()
            long = asyncio.ensure_future(to_thread(release.wait, 10))
            turns = 0
            for _ in range(20):
                await to_thread(int)
                await asyncio.sleep(0)
                turns += not long.done()
            release.set()
            await long
            return turns

        assert run(main()) == 20

    def test_result_is_there_before_the_next_job(
        self, loop: asyncio.AbstractEventLoop, executor: Any
    ) -> None:
        """A sleeping loop is woken for each result, not only when the thread has no work left."""
        release = threading.Event()
        first = loop.run_in_executor(None, int)
        second = loop.run_in_executor(None, release.wait, 10)
        assert loop.run_until_complete(asyncio.wait_for(first, 5)) == 0
        assert not second.done()
        release.set()
        assert loop.run_until_complete(second)

    def test_order(self, loop: asyncio.AbstractEventLoop, executor: Any) -> None:
        seen: list[int] = []
        for number in range(50):
            future = loop.run_in_executor(None, seen.append, number)
        loop.run_until_complete(future)
        assert seen == list(range(50))

    def test_turns_until_a_callback(self, loop: asyncio.AbstractEventLoop, executor: Any) -> None:
        """One to complete the future, one for its callbacks."""
        seen: list[int] = []
        future = loop.run_in_executor(None, int)
        future.add_done_callback(lambda _: seen.append(1))
        again, release = threading.Event(), threading.Event()
        loop.run_in_executor(None, lambda: (again.set(), release.wait(10)))
        again.wait()
        turns = []
        for _ in range(3):
            turns.append((future.done(), len(seen)))
            turn(loop)
        release.set()
        assert turns == [(False, 0), (True, 0), (True, 1)]

    def test_several_loops_share_an_executor(self, backend: Backend) -> None:
        pool = (
            Executor(3, "shared") if backend.is_weft else concurrent.futures.ThreadPoolExecutor(3)
        )
        results: list[int] = []

        async def main(number: int) -> None:
            loop = asyncio.get_running_loop()
            loop.set_default_executor(pool)
            made = (loop.run_in_executor(None, pow, number, power) for power in range(50))
            results.append(sum(await asyncio.gather(*made)))
            loop._default_executor = None  # type: ignore[attr-defined]

        threads = [threading.Thread(target=backend.run, args=(main(n),)) for n in (1, 1, 1, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pool.shutdown()
        assert results == [50] * 4


class TestExceptions:
    @pytest.mark.parametrize(
        "error",
        [
            concurrent.futures.CancelledError("message"),
            concurrent.futures.InvalidStateError("message"),
            concurrent.futures.TimeoutError("message"),
            asyncio.CancelledError("message"),
            BaseException("message"),
            OSError(2, "message"),
        ],
        ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
    )
    def test_conversion(self, backend: Backend, error: BaseException) -> None:
        """asyncio makes its own exceptions of those of concurrent.futures."""

        def fail() -> None:
            raise error

        def outcome(backend: Backend) -> Any:
            loop = backend.new_event_loop()
            future = loop.run_in_executor(None, fail)
            loop.run_until_complete(asyncio.wait([future]))
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            if future.cancelled():
                return "cancelled"
            got = future.exception()
            return type(got), got.args if got else None, got is error

        assert outcome(backend) == outcome(BACKENDS["asyncio"]())

    def test_stop_iteration(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        future = loop.run_in_executor(None, next, iter(()))
        loop.run_until_complete(asyncio.wait([future], timeout=0.05))
        if future.done():
            assert isinstance(future.exception(), RuntimeError)
        else:
            assert [type(report["exception"]) for report in reports] == [TypeError]
            future.cancel()

    def test_completed_by_somebody_else(
        self, loop: asyncio.AbstractEventLoop, executor: Any, reports: list[dict[str, Any]]
    ) -> None:
        future = loop.run_in_executor(None, int)
        future.set_result(1)
        loop.run_until_complete(loop.run_in_executor(None, int))
        assert future.result() == 1
        assert [type(report["exception"]) for report in reports] == [AssertionError]

    def test_never_retrieved(
        self, loop: asyncio.AbstractEventLoop, executor: Any, reports: list[dict[str, Any]]
    ) -> None:
        loop.run_in_executor(None, divmod, 1, 0)
        loop.run_until_complete(loop.run_in_executor(None, int))
        gc.collect()
        assert [report["message"] for report in reports] == ["Future exception was never retrieved"]

    def test_destructors(
        self, loop: asyncio.AbstractEventLoop, executor: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of the function, an argument and a result that nobody wants: the thread survives."""
        seen: list[str] = []
        monkeypatch.setattr(sys, "unraisablehook", lambda hook: seen.append(str(hook.exc_value)))

        class Thing:
            def __init__(self, name: str) -> None:
                self.name = name

            def __call__(self, _: Any) -> Thing:
                return Thing("result")

            def __del__(self) -> None:
                raise ValueError(self.name)

        # The future may hold the result for one turn longer.
        loop.run_in_executor(None, Thing("function"), Thing("argument"))
        loop.run_until_complete(loop.run_in_executor(None, int))
        turn(loop)
        assert sorted(seen) == ["argument", "function", "result"]
        assert (
            loop.run_until_complete(loop.run_in_executor(None, threading.get_ident))
            == next(iter(executor._threads)).ident
        )


class TestCancellation:
    def test_dropped_before_it_starts(
        self, loop: asyncio.AbstractEventLoop, executor: Any, hold: threading.Event
    ) -> None:
        ran: list[int] = []
        futures = [loop.run_in_executor(None, ran.append, number) for number in range(4)]
        futures[1].cancel()
        futures[2].cancel("with a message")
        turn(loop)
        hold.set()
        loop.run_until_complete(futures[3])
        assert ran == [0, 3]
        assert [future.cancelled() for future in futures] == [False, True, True, False]

    def test_arguments_of_what_was_dropped(
        self, loop: asyncio.AbstractEventLoop, executor: Any, hold: threading.Event
    ) -> None:
        class Thing:
            pass

        thing = Thing()
        ref = weakref.ref(thing)
        future = loop.run_in_executor(None, id, thing)
        del thing
        future.cancel()
        turn(loop)
        hold.set()
        loop.run_until_complete(loop.run_in_executor(None, int))
        assert ref() is None

    @pytest.mark.parametrize("function", [int, lambda: 1 / 0], ids=["returns", "raises"])
    def test_ignored_while_it_runs(
        self, loop: asyncio.AbstractEventLoop, executor: Any, function: Any
    ) -> None:
        """Neither a result nor an exception of it is ever heard of."""
        release, started = threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            release.wait(10)
            function()

        future = loop.run_in_executor(None, work)
        started.wait()
        future.cancel()
        turn(loop)
        release.set()
        loop.run_until_complete(loop.run_in_executor(None, int))
        turn(loop)
        assert future.cancelled()
        del future
        gc.collect()

    def test_by_the_executor(
        self, loop: asyncio.AbstractEventLoop, executor: Any, hold: threading.Event
    ) -> None:
        """`shutdown(cancel_futures=True)` cancels what waits, in the loop as well."""
        ran: list[int] = []
        futures = [loop.run_in_executor(None, ran.append, number) for number in range(3)]
        submitted = executor.submit(ran.append, 4)
        keywords = {"wait": False, "cancel_futures": True}
        thread = threading.Thread(target=executor.shutdown, kwargs=keywords)
        thread.start()
        loop.run_until_complete(asyncio.wait(futures))
        thread.join()
        hold.set()
        assert [future.cancelled() for future in futures] == [True] * 3
        assert submitted.cancelled()
        assert ran == []

    def test_at_every_turn(self, backend: Backend, to_thread: Any) -> None:
        """Whenever the cancellation comes, it ends the task, and the function ran once at most."""
        for turns in range(6):
            ran: list[int] = []

            async def main(turns: int = turns, ran: list[int] = ran) -> None:
                task = asyncio.ensure_future(to_thread(ran.append, 1))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                assert outcome is None or isinstance(outcome, asyncio.CancelledError)

            backend.run(main())
            assert len(ran) <= 1


class TestExecutor:
    """`loop._default_executor`, which some programs use."""

    def test_kind(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop._default_executor is None  # type: ignore[attr-defined]
        loop.run_until_complete(loop.run_in_executor(None, int))
        executor = loop._default_executor  # type: ignore[attr-defined]
        assert isinstance(executor, concurrent.futures.ThreadPoolExecutor)
        assert len(executor._threads) == 1
        assert executor._work_queue.qsize() == 0
        assert executor._work_queue.empty()

    def test_submit_and_map(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(loop.run_in_executor(None, int))
        executor = loop._default_executor  # type: ignore[attr-defined]
        future = executor.submit(pow, 2, exp=5)
        assert type(future) is concurrent.futures.Future
        assert future.result(10) == 32
        assert list(executor.map(abs, range(-50, 0))) == list(range(50, 0, -1))
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 1, 0).result(10)

    def test_shutdown_by_hand(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(loop.run_in_executor(None, int))
        executor = loop._default_executor  # type: ignore[attr-defined]
        executor.shutdown()
        assert names_of_threads() == []
        expected = RuntimeError, "cannot schedule new futures after shutdown"
        assert raised(loop.run_in_executor, None, int) == expected
        assert raised(executor.submit, int) == expected

    def test_shutdown_does_what_was_there(
        self, loop: asyncio.AbstractEventLoop, executor: Any, hold: threading.Event
    ) -> None:
        futures = [loop.run_in_executor(None, abs, number) for number in range(10)]
        executor.shutdown(wait=False)
        hold.set()
        assert loop.run_until_complete(asyncio.gather(*futures)) == list(range(10))

    def test_forgotten(self) -> None:
        """The threads of an executor that nobody uses any more end."""
        executor = Executor(2, "asyncio forgotten")
        assert executor.submit(int).result(10) == 0
        assert names_of_threads() == ["asyncio forgotten_0"]
        del executor
        gc.collect()
        deadline = time.monotonic() + 5
        while names_of_threads() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert names_of_threads() == []

    @pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
    def test_forgotten_with_its_loop(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.run_until_complete(loop.run_in_executor(None, int))
        ref = weakref.ref(loop)
        del loop
        gc.collect()
        assert ref() is None

    def test_thread_that_cannot_be_started(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                loop.run_in_executor(None, int)
        assert loop.run_until_complete(loop.run_in_executor(None, int)) == 0

    def test_wrapped_submit(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Tracers wrap `ThreadPoolExecutor.submit` (OpenTelemetry, ddtrace, Sentry)."""
        submitted: list[Any] = []
        real = concurrent.futures.ThreadPoolExecutor.submit

        def submit(self: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            submitted.append(function)
            return real(self, function, *args, **kwargs)

        async def main() -> None:
            await loop.run_in_executor(None, int)
            with monkeypatch.context() as patch:
                patch.setattr(concurrent.futures.ThreadPoolExecutor, "submit", submit)
                await loop.run_in_executor(None, abs, 1)
                await asyncio.to_thread(abs, 2)
                await weft.to_thread(abs, 2)
            await loop.run_in_executor(None, int)

        loop.run_until_complete(main())
        assert submitted[0] is abs
        assert len(submitted) == 3

    @pytest.mark.parametrize("how", ["subclass", "instance"])
    @pytest.mark.parametrize("method", ["run_in_executor", "call_soon_threadsafe", "create_future"])
    def test_replaced_methods(self, backend: Backend, method: str, how: str) -> None:
        called: list[str] = []
        real = getattr(backend.loop_class, method)

        def replacement(self: Any, *args: Any, **kwargs: Any) -> Any:
            called.append(method)
            return real(self, *args, **kwargs)

        if how == "subclass":
            loop = type("Own", (backend.loop_class,), {method: replacement})()
        else:
            loop = backend.new_event_loop()
            setattr(loop, method, replacement.__get__(loop))
        for function in (asyncio.to_thread, weft.to_thread):
            called.clear()
            # Not done before the loop looks: from 3.14 on, that needs no call from the thread.
            assert loop.run_until_complete(function(time.sleep, 0.01)) is None
            assert called
        called.clear()
        assert loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 1))
        assert called or method == "call_soon_threadsafe"
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def test_arguments_by_name(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.run_in_executor(executor=None, func=int)
        assert loop.run_until_complete(future) == 0
        assert raised(loop.run_in_executor, None)[0] is TypeError
        assert raised(loop.run_in_executor, None, int, func=int)[0] is TypeError

    def test_closed_loop(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        assert raised(loop.run_in_executor, None, int) == (RuntimeError, "Event loop is closed")

    def test_results_for_a_closed_loop(self, backend: Backend) -> None:
        """They go nowhere, and keep nothing alive."""

        class Thing:
            pass

        release = threading.Event()
        refs: list[weakref.ref[Thing]] = []

        def work() -> Thing:
            release.wait(10)
            thing = Thing()
            refs.append(weakref.ref(thing))
            return thing

        loop = backend.new_event_loop()
        loop.run_in_executor(None, work)
        executor: Any = loop._default_executor  # type: ignore[attr-defined]
        loop.close()
        release.set()
        executor.shutdown()
        gc.collect()
        assert [ref() for ref in refs] == [None]


class TestShutdown:
    def test_joins_the_threads(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            await asyncio.gather(*(loop.run_in_executor(None, time.sleep, 0) for _ in range(5)))
            assert names_of_threads()
            await loop.shutdown_default_executor()

        loop.run_until_complete(main())
        assert names_of_threads() == []

    def test_refuses_from_the_first_step_on(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            release = threading.Event()
            running = loop.run_in_executor(None, release.wait, 10)
            closing = asyncio.ensure_future(loop.shutdown_default_executor())
            await asyncio.sleep(0)
            expected = RuntimeError, "Executor shutdown has been called"
            assert raised(loop.run_in_executor, None, int) == expected
            for function in (asyncio.to_thread, weft.to_thread):
                with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
                    await function(int)
            with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
                await loop.getaddrinfo("127.0.0.1", 1)
            release.set()
            assert await running
            await closing

        loop.run_until_complete(main())

    @pytest.mark.skipif(not PY313, reason="the timeout works since 3.12.2")
    def test_timeout_while_a_name_is_resolved(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release, started = threading.Event(), threading.Event()

        def stuck(*_: Any, **__: Any) -> list[Any]:
            started.set()
            release.wait(10)
            return []

        async def main() -> None:
            resolving = asyncio.ensure_future(loop.getaddrinfo("example.invalid", 1))
            while not started.is_set():
                await asyncio.sleep(0.001)
            with pytest.warns(RuntimeWarning, match="did not finishing joining its threads"):
                await loop.shutdown_default_executor(timeout=0.01)
            release.set()
            assert await resolving == []

        monkeypatch.setattr(socket, "getaddrinfo", stuck)
        loop.run_until_complete(main())


class TestNames:
    @pytest.mark.backends("weft")
    def test_do_not_take_the_threads_of_others(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = threading.Event()

        def slow(*_: Any, **__: Any) -> list[Any]:
            release.wait(10)
            return [threading.current_thread().name]

        async def main() -> list[Any]:
            names = [
                asyncio.ensure_future(loop.getaddrinfo("example.invalid", n)) for n in range(50)
            ]
            await asyncio.sleep(0)
            for _ in range(5):
                assert await asyncio.wait_for(weft.to_thread(pow, 2, 3), 5) == 8
            release.set()
            return await asyncio.gather(*names)

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        results = loop.run_until_complete(main())
        assert all(name.startswith("asyncio_names_") for (name,) in results)
        loop.run_until_complete(loop.shutdown_default_executor())
        assert names_of_threads() == []

    def test_close_ends_their_threads_too(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 1))
        loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 1), socket.NI_NUMERICHOST))
        loop.close()
        deadline = time.monotonic() + 5
        while names_of_threads() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert names_of_threads() == []

    def test_debug(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_debug(True)
        assert loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 1))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(["return", "raise", "cancel"])),
        st.tuples(st.just("to_thread"), st.sampled_from(["return", "raise", "cancel"])),
        st.tuples(st.just("release"), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=20,
)


class Player:
    """Takes steps on a loop whose executor has one thread, and notes what happens."""

    def __init__(self, backend: Backend) -> None:
        self.loop = backend.new_event_loop()
        kind = Executor if backend.is_weft else concurrent.futures.ThreadPoolExecutor
        self.loop.set_default_executor(kind(1))
        self.to_thread = weft.to_thread if backend.is_weft else asyncio.to_thread
        self.ran: list[int] = []
        self.done: list[int] = []
        self.answers: list[bool] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.events: list[dict[str, threading.Event]] = []
        self.waiting: list[int] = []
        self.running: int | None = None

    def work(self, number: int, kind: str) -> int:
        self.ran.append(number)
        self.events[number]["started"].set()
        self.events[number]["released"].wait(10)
        try:
            if kind == "raise":
                raise ZeroDivisionError(number)
            if kind == "cancel":
                raise concurrent.futures.CancelledError
            return number
        finally:
            self.events[number]["ended"].set()

    def submit(self, how: str, kind: str) -> None:
        number = len(self.futures)
        self.events.append({name: threading.Event() for name in ("started", "released", "ended")})
        if how == "to_thread":
            future = self.loop.create_task(self.to_thread(self.work, number, kind))
        else:
            future = self.loop.run_in_executor(None, self.work, number, kind)
        future.add_done_callback(lambda _: self.done.append(number))
        self.futures.append(future)
        self.waiting.append(number)
        turn(self.loop, 2)

    def settle(self) -> None:
        """Wait until the thread has taken up what it can."""
        while self.running is None and self.waiting:
            number = self.waiting.pop(0)
            if not self.futures[number].cancelled():
                assert self.events[number]["started"].wait(5)
                self.running = number

    def release(self) -> None:
        """Let the function that runs end."""
        if self.running is not None:
            self.events[self.running]["released"].set()
            assert self.events[self.running]["ended"].wait(5)
            self.loop.run_until_complete(asyncio.wait([self.futures[self.running]]))
            self.running = None

    def step(self, what: str, argument: Any) -> None:
        if what in ("submit", "to_thread"):
            self.submit(what, argument)
        elif what == "turn":
            turn(self.loop)
        elif what == "release":
            self.release()
        elif argument < len(self.futures):
            self.answers.append(self.futures[argument].cancel())
            turn(self.loop, 3)
        self.settle()

    def end(self) -> list[Any]:
        while self.running is not None:
            self.release()
            self.settle()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        outcomes = [
            "cancelled" if future.cancelled() else repr(future.exception() or future.result())
            for future in self.futures
        ]
        return [self.ran, self.done, self.answers, outcomes]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_as_asyncio(steps: list[tuple[str, Any]]) -> None:
    """The same functions run, in the same order, with the same outcomes."""
    logs = []
    for make in BACKENDS.values():
        player = Player(make())
        for step in steps:
            player.step(*step)
        logs.append(player.end())
    assert logs[0] == logs[1]


@pytest.mark.slow
class TestStress:
    def test_many_loops(self, backend: Backend, to_thread: Any) -> None:
        """10,000 jobs of four loops in four threads, some of which fail or are cancelled."""
        totals: list[tuple[int, int, int]] = []

        def work(number: int) -> int:
            if number % 50 == 7:
                raise ValueError(number)
            return number

        async def main() -> None:
            tasks = []
            for number in range(2500):
                tasks.append(asyncio.ensure_future(to_thread(work, number)))
                if number % 10 == 3:
                    tasks[-1].cancel()
                if number % 100 == 0:
                    await asyncio.sleep(0)
                if number % 100 == 50:
                    tasks[number // 2].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for number, result in enumerate(results):
                usual = ValueError if number % 50 == 7 else int
                assert isinstance(result, (usual, asyncio.CancelledError)), number
                assert result == number or not isinstance(result, int)
            totals.append(
                (
                    sum(isinstance(result, int) for result in results),
                    sum(isinstance(result, ValueError) for result in results),
                    len(results),
                )
            )

        threads = [threading.Thread(target=backend.run, args=(main(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(totals) == 4
        for returned, failed, all_of_them in totals:
            assert returned > 2000
            assert failed > 30
            assert all_of_them == 2500

    def test_switching_all_the_time(self, backend: Backend, to_thread: Any) -> None:
        """Thread switches at every moment between a result and the loop's sleep."""

        async def main() -> int:
            total = 0
            for number in range(400):
                total += await asyncio.wait_for(to_thread(abs, number), 10)
                total += sum(await asyncio.gather(*(to_thread(int) for _ in range(number % 4))))
            return total

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            assert backend.run(main()) == sum(range(400))
        finally:
            sys.setswitchinterval(interval)

    def test_collected_meanwhile(self, backend: Backend, to_thread: Any) -> None:
        """The garbage collector walks the queue and its jobs while threads use them."""

        class Node:
            def __init__(self) -> None:
                self.me = self

        async def main() -> None:
            for _ in range(20):
                made = (
                    to_thread(lambda node: node.me and gc.collect(0), Node()) for _ in range(50)
                )
                gathered = asyncio.gather(*made)
                await asyncio.sleep(0)
                gc.collect()
                await gathered

        backend.run(main())

    def test_loops_closed_with_work_under_way(self, backend: Backend) -> None:
        for number in range(100):
            loop = backend.new_event_loop()
            for _ in range(number % 20):
                loop.run_in_executor(None, int)
            if number % 3:
                turn(loop)
            loop.close()
