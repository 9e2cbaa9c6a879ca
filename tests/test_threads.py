"""Loops in threads, and threads that talk to loops."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from backends import Backend
from children import program
from turns import turn


@pytest.fixture
def background(
    loop: asyncio.AbstractEventLoop,
) -> Iterator[asyncio.AbstractEventLoop]:
    """The loop, running in a thread of its own."""
    thread = threading.Thread(target=loop.run_forever, name="background")
    started = threading.Event()
    loop.call_soon(started.set)
    thread.start()
    started.wait()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


async def answer(value: Any = 42) -> Any:
    await asyncio.sleep(0)
    return value


class TestRunCoroutineThreadsafe:
    def test_result(self, background: asyncio.AbstractEventLoop) -> None:
        future = asyncio.run_coroutine_threadsafe(answer(), background)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result(10) == 42

    def test_many_from_many_threads(self, background: asyncio.AbstractEventLoop) -> None:
        results: queue.Queue[Any] = queue.Queue()

        def work(number: int) -> None:
            futures = [
                asyncio.run_coroutine_threadsafe(answer((number, step)), background)
                for step in range(50)
            ]
            for future in futures:
                results.put(future.result(20))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = sorted(results.get() for _ in range(400))
        assert seen == [(number, step) for number in range(8) for step in range(50)]

    def test_exception(self, background: asyncio.AbstractEventLoop) -> None:
        async def fail() -> None:
            raise ZeroDivisionError

        future = asyncio.run_coroutine_threadsafe(fail(), background)
        with pytest.raises(ZeroDivisionError):
            future.result(10)

    def test_cancelled_from_the_thread(self, background: asyncio.AbstractEventLoop) -> None:
        cancelled = threading.Event()
        started = threading.Event()

        async def forever() -> None:
            try:
                started.set()
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        future = asyncio.run_coroutine_threadsafe(forever(), background)
        started.wait()
        assert future.cancel()
        assert cancelled.wait(10)

    def test_timeout_of_the_waiter(self, background: asyncio.AbstractEventLoop) -> None:
        future = asyncio.run_coroutine_threadsafe(asyncio.sleep(1000), background)
        with pytest.raises(TimeoutError):
            future.result(0.01)
        future.cancel()
        # The task has to be gone before the loop is looked at.
        asyncio.run_coroutine_threadsafe(answer(), background).result(10)
        asyncio.run_coroutine_threadsafe(answer(), background).result(10)

    def test_task_factory_that_fails(
        self, background: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        def factory(loop: Any, coro: Any, **keywords: Any) -> Any:
            coro.close()
            raise ZeroDivisionError

        background.set_task_factory(factory)
        future = asyncio.run_coroutine_threadsafe(answer(), background)
        with pytest.raises(ZeroDivisionError):
            future.result(10)
        background.set_task_factory(None)
        # The loop reports it after it has handed it over; what it does next comes after that.
        asyncio.run_coroutine_threadsafe(answer(), background).result(10)
        assert len(reports) == 1

    def test_not_a_coroutine(self, background: asyncio.AbstractEventLoop) -> None:
        with pytest.raises(TypeError, match="A coroutine object is required"):
            asyncio.run_coroutine_threadsafe(answer, background)  # type: ignore[arg-type]


class TestCallSoonThreadsafe:
    @pytest.mark.slow
    def test_nothing_is_lost_under_load(self, background: asyncio.AbstractEventLoop) -> None:
        """Threads push while the loop goes to sleep and wakes up: every call arrives, in order."""
        seen: dict[int, list[int]] = {number: [] for number in range(4)}
        count = 20000

        def push(number: int) -> None:
            for step in range(count):
                background.call_soon_threadsafe(seen[number].append, step)

        threads = [threading.Thread(target=push, args=(number,)) for number in seen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done = threading.Event()
        background.call_soon_threadsafe(done.set)
        assert done.wait(30)
        for number in seen:
            assert seen[number] == list(range(count))

    def test_each_wakes_the_loop(self, background: asyncio.AbstractEventLoop) -> None:
        """One call at a time, to a loop that sleeps: none may wait for the next."""
        for _ in range(300):
            done = threading.Event()
            background.call_soon_threadsafe(done.set)
            assert done.wait(10)

    def test_race_with_falling_asleep(self, background: asyncio.AbstractEventLoop) -> None:
        """The call comes at any moment between the loop's last look and its sleep."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for number in range(300):
                done = threading.Event()
                for _ in range(number % 7):
                    background.call_soon_threadsafe(int)
                background.call_soon_threadsafe(done.set)
                assert done.wait(10)
        finally:
            sys.setswitchinterval(interval)

    def test_while_the_loop_is_busy(self, background: asyncio.AbstractEventLoop) -> None:
        stop = threading.Event()

        def again() -> None:
            if not stop.is_set():
                background.call_soon(again)

        background.call_soon_threadsafe(again)
        for _ in range(20):
            done = threading.Event()
            background.call_soon_threadsafe(done.set)
            assert done.wait(10)
        stop.set()

    def test_cancelled_by_the_caller(self, background: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        release, blocked = threading.Event(), threading.Event()
        background.call_soon_threadsafe(lambda: (blocked.set(), release.wait(10)))
        blocked.wait()
        handle = background.call_soon_threadsafe(seen.append, 1)
        handle.cancel()
        release.set()
        done = threading.Event()
        background.call_soon_threadsafe(done.set)
        assert done.wait(10)
        assert seen == []

    def test_race_with_close(self, backend: Backend) -> None:
        """Threads call while the loop closes: RuntimeError or nothing, and no stranger is hit."""
        for _ in range(20):
            loop = backend.new_event_loop()
            go = threading.Event()
            errors: list[BaseException] = []

            def push(
                loop: asyncio.AbstractEventLoop = loop,
                go: threading.Event = go,
                errors: list[BaseException] = errors,
            ) -> None:
                go.wait()
                try:
                    for _ in range(500):
                        loop.call_soon_threadsafe(int)
                except RuntimeError as late:
                    errors.append(late)

            threads = [threading.Thread(target=push) for _ in range(2)]
            for thread in threads:
                thread.start()
            loop.call_soon(go.set)
            turn(loop, 2)
            loop.close()
            for thread in threads:
                thread.join()
            assert all(str(error) == "Event loop is closed" for error in errors)

    def test_arguments_die_in_some_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        class Thing:
            pass

        alive: list[weakref.ref[Thing]] = []

        def push() -> None:
            for _ in range(100):
                thing = Thing()
                alive.append(weakref.ref(thing))
                loop.call_soon_threadsafe(id, thing)

        thread = threading.Thread(target=push)
        thread.start()
        thread.join()
        turn(loop, 2)
        gc.collect()
        assert all(ref() is None for ref in alive)


class TestLoopsInThreads:
    def test_several_at_once(self, backend: Backend) -> None:
        results: queue.Queue[Any] = queue.Queue()

        async def main(number: int) -> Any:
            total = 0
            for step in range(50):
                total += await answer(step)
                assert asyncio.current_task() in asyncio.all_tasks()
                assert len(asyncio.all_tasks()) == 1
            return number, total

        def work(number: int) -> None:
            results.put(backend.run(main(number)))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = sorted(results.get() for _ in range(8))
        assert seen == [(number, sum(range(50))) for number in range(8)]

    def test_made_in_one_run_in_another(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        future = loop.create_future()
        task = loop.create_task(answer("made elsewhere"))
        loop.call_later(0, future.set_result, "timer")
        results: list[Any] = []

        def work() -> None:
            results.append(loop.run_until_complete(task))
            results.append(loop.run_until_complete(future))
            loop.run_until_complete(loop.shutdown_asyncgens())

        for _ in range(1):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert results == ["made elsewhere", "timer"]
        # And back in the first.
        assert loop.run_until_complete(answer()) == 42
        loop.close()

    def test_from_thread_to_thread(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        results: list[Any] = []
        for number in range(10):
            thread = threading.Thread(
                target=lambda n=number: results.append(loop.run_until_complete(answer(n)))
            )
            thread.start()
            thread.join()
        assert results == list(range(10))
        thread = threading.Thread(target=loop.close)
        thread.start()
        thread.join()

    def test_two_loops_feed_each_other(self, backend: Backend) -> None:
        one, two = backend.new_event_loop(), backend.new_event_loop()
        seen: list[int] = []
        threads = [threading.Thread(target=loop.run_forever) for loop in (one, two)]
        done = threading.Event()

        def bounce(left: int, here: Any, there: Any) -> None:
            seen.append(left)
            if left:
                there.call_soon_threadsafe(bounce, left - 1, there, here)
            else:
                done.set()

        for thread in threads:
            thread.start()
        one.call_soon_threadsafe(bounce, 500, one, two)
        assert done.wait(20)
        for loop, thread in zip((one, two), threads, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
        assert seen == list(range(500, -1, -1))

    def test_objects_die_in_another_thread(self, backend: Backend) -> None:
        """Futures, tasks and handles of a loop are dropped by a thread that never ran it."""
        loop = backend.new_event_loop()

        async def main() -> list[Any]:
            tasks = [asyncio.ensure_future(answer(n)) for n in range(50)]
            futures = [loop.create_future() for _ in range(50)]
            for future in futures:
                future.set_result([1])
            handles = [loop.call_soon(int) for _ in range(50)]
            await asyncio.gather(*tasks)
            return [tasks, futures, handles]

        box = [loop.run_until_complete(main())]
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join()
        gc.collect()
        assert loop.run_until_complete(answer()) == 42
        loop.close()

    def test_loop_dies_in_another_thread(self, backend: Backend) -> None:
        box = [backend.new_event_loop()]
        box[0].run_until_complete(answer())
        box[0].close()

        def drop() -> None:
            box.clear()
            gc.collect()

        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()

    def test_many_short_threads(self, backend: Backend) -> None:
        """Whatever the loop keeps per thread must go with the thread."""
        for _ in range(50):
            thread = threading.Thread(target=backend.run, args=(answer(),))
            thread.start()
            thread.join()

    def test_gil_is_free_while_the_loop_sleeps(self, background: asyncio.AbstractEventLoop) -> None:
        """A sleeping loop does not hold up the other threads."""
        started = time.monotonic()
        total = 0
        for number in range(200_000):
            total += number
        assert time.monotonic() - started < 5
        assert total == sum(range(200_000))

    def test_gil_is_shared_by_a_busy_loop(self, background: asyncio.AbstractEventLoop) -> None:
        """A loop that never sleeps lets other threads run all the same."""
        stop = threading.Event()

        def again() -> None:
            if not stop.is_set():
                background.call_soon(again)

        for _ in range(10):
            background.call_soon_threadsafe(again)
        ticks = 0
        deadline = time.monotonic() + 20
        while ticks < 20 and time.monotonic() < deadline:
            time.sleep(0)
            ticks += 1
        stop.set()
        assert ticks == 20


@pytest.mark.child
class TestThreadEnds:
    def test_thread_dies_with_its_loop_open(self, backend: Backend) -> None:
        source = """
        import gc, threading, warnings
        warnings.simplefilter("ignore", ResourceWarning)
        def work():
            loop = new_event_loop()
            asyncio.set_event_loop(loop)
            loop.run_until_complete(asyncio.sleep(0))
        for _ in range(20):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        gc.collect()
        print("end")
        """
        assert program(backend, source).check() == "end\n"

    def test_run_forever_ends_by_an_error_in_a_thread(self, backend: Backend) -> None:
        source = """
        import threading
        def leave():
            raise SystemExit
        def work():
            loop = new_event_loop()
            loop.call_soon(leave)
            try:
                loop.run_forever()
            finally:
                loop.close()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        print("end")
        """
        assert program(backend, source).check() == "end\n"


def test_local_storage_is_that_of_the_loops_thread(
    background: asyncio.AbstractEventLoop,
) -> None:
    local = threading.local()
    seen: queue.Queue[Any] = queue.Queue()

    def note() -> None:
        local.count = getattr(local, "count", 0) + 1
        seen.put((threading.current_thread().name, local.count))

    for _ in range(3):
        background.call_soon_threadsafe(note)
    assert [seen.get(timeout=10) for _ in range(3)] == [("background", n) for n in (1, 2, 3)]


def test_callbacks_see_the_profile_and_trace_of_their_thread(
    loop: asyncio.AbstractEventLoop,
) -> None:
    calls: list[str] = []

    def traced() -> None:
        pass

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is traced.__code__:
            calls.append("traced")

    watch: Callable[..., Any] = profile
    loop.call_soon(traced)
    kept = sys.getprofile()
    sys.setprofile(watch)
    try:
        turn(loop)
    finally:
        sys.setprofile(kept)
    assert calls == ["traced"]
