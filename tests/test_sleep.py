"""sleep(), asyncio's and Weft's, on each loop; and what every native coroutine does as it does."""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import weft
from backends import Backend
from turns import raised, turn

Sleep = Callable[..., Any]


@pytest.fixture(params=["asyncio", "weft"])
def sleep(request: pytest.FixtureRequest) -> Sleep:
    function: Sleep = {"asyncio": asyncio.sleep, "weft": weft.sleep}[request.param]
    return function


class TestSleep:
    def test_result(self, loop: asyncio.AbstractEventLoop, sleep: Sleep) -> None:
        assert loop.run_until_complete(sleep(0)) is None
        assert loop.run_until_complete(sleep(0, "passed")) == "passed"
        assert loop.run_until_complete(sleep(0.001, "slept")) == "slept"
        assert loop.run_until_complete(sleep(delay=-1, result=("a", "tuple"))) == ("a", "tuple")

    def test_duration(self, loop: asyncio.AbstractEventLoop, sleep: Sleep) -> None:
        start = loop.time()
        loop.run_until_complete(sleep(0.05))
        assert 0.05 <= loop.time() - start + 0.001 < 1

    def test_gives_way_once(self, loop: asyncio.AbstractEventLoop, sleep: Sleep) -> None:
        order: list[str] = []

        async def worker(name: str) -> None:
            for step in range(3):
                order.append(f"{name}{step}")
                await sleep(0)

        async def main() -> None:
            await asyncio.gather(worker("a"), worker("b"))

        loop.run_until_complete(main())
        assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]

    def test_in_order_of_deadlines(self, loop: asyncio.AbstractEventLoop, sleep: Sleep) -> None:
        order: list[int] = []

        async def worker(number: int) -> None:
            await sleep(number * 0.005)
            order.append(number)

        async def main() -> None:
            await asyncio.gather(*(worker(number) for number in (3, 1, 2)))

        loop.run_until_complete(main())
        assert order == [1, 2, 3]

    @pytest.mark.parametrize("wrong", ["text", None, [], 1j])
    def test_wrong_delay(
        self, loop: asyncio.AbstractEventLoop, sleep: Sleep, wrong: object
    ) -> None:
        error, _ = raised(loop.run_until_complete, sleep(wrong))
        assert error is TypeError

    def test_not_a_number(self, loop: asyncio.AbstractEventLoop) -> None:
        """asyncio refuses NaN from 3.13 on; Weft always, since nothing good can come of it."""
        with pytest.raises(ValueError, match="NaN"):
            loop.run_until_complete(weft.sleep(float("nan")))

    def test_wrong_arguments(self, sleep: Sleep) -> None:
        for arguments, keywords in (((), {}), ((1, 2, 3), {}), ((1,), {"loop": None})):
            assert raised(sleep, *arguments, **keywords)[0] is TypeError

    def test_cancelled(self, loop: asyncio.AbstractEventLoop, sleep: Sleep) -> None:
        async def main() -> list[str]:
            log: list[str] = []

            async def sleeper() -> None:
                try:
                    await sleep(60)
                except asyncio.CancelledError as error:
                    log.append(f"cancelled {error.args}")
                    await sleep(0)
                    log.append("tidied up")
                    raise

            task = asyncio.ensure_future(sleeper())
            await asyncio.sleep(0)
            task.cancel("enough")
            with pytest.raises(asyncio.CancelledError):
                await task
            return log

        assert loop.run_until_complete(main()) == ["cancelled ('enough',)", "tidied up"]

    def test_a_cancelled_sleep_keeps_nothing(self, backend: Backend, sleep: Sleep) -> None:
        """Nor does its timer: thousands of timeouts a second must not pile up."""

        class Result:
            pass

        loop = backend.new_event_loop()
        kept = [Result()]
        alive = weakref.ref(kept[0])

        async def main() -> None:
            tasks = [asyncio.ensure_future(sleep(3600, kept[0])) for _ in range(300)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.sleep(0.01)

        loop.run_until_complete(main())
        kept.clear()
        gc.collect()
        assert alive() is None
        loop.close()

    def test_patched_clock(self, loop: asyncio.AbstractEventLoop, sleep: Sleep) -> None:
        now = 1000.0
        loop.time = lambda: now  # type: ignore[method-assign]
        task = loop.create_task(sleep(60, "late"))
        turn(loop, 3)
        assert not task.done()
        now += 61
        assert loop.run_until_complete(task) == "late"


class TestCoroutine:
    """What `async def` functions return, native operations are too."""

    def test_is_a_coroutine(self) -> None:
        operation = weft.sleep(0)
        assert asyncio.iscoroutine(operation)
        assert inspect.isawaitable(operation)
        assert operation.__name__ == operation.__qualname__ == "sleep"
        assert repr(operation).startswith("<coroutine object sleep at 0x")
        operation.close()

    def test_driven_by_hand(self) -> None:
        operation = weft.sleep(0, "result")
        assert operation.send(None) is None
        with pytest.raises(StopIteration) as stop:
            operation.send(None)
        assert stop.value.value == "result"
        error, message = raised(operation.send, None)
        assert (error, message) == (RuntimeError, "cannot reuse already awaited coroutine")

    def test_first_value(self) -> None:
        operation = weft.sleep(0)
        error, message = raised(operation.send, "value")
        assert (error, message) == (
            TypeError,
            "can't send non-None value to a just-started coroutine",
        )
        operation.close()

    def test_thrown_into(self) -> None:
        for started in (False, True):
            operation = weft.sleep(0)
            if started:
                operation.send(None)
            with pytest.raises(ZeroDivisionError):
                operation.throw(ZeroDivisionError())
            assert raised(operation.send, None)[0] is RuntimeError

    def test_closed(self) -> None:
        operation = weft.sleep(0)
        operation.send(None)
        operation.close()
        operation.close()
        assert raised(operation.send, None)[0] is RuntimeError

    def test_awaited_twice(self, loop: asyncio.AbstractEventLoop) -> None:
        operation = weft.sleep(0)
        loop.run_until_complete(operation)
        error, message = raised(loop.run_until_complete, operation)
        assert (error, message) == (RuntimeError, "cannot reuse already awaited coroutine")

    def test_never_awaited(self) -> None:
        with pytest.warns(RuntimeWarning, match="coroutine 'sleep' was never awaited"):
            weft.sleep(0)

    def test_awaited_by_two_at_once(self, loop: asyncio.AbstractEventLoop) -> None:
        """The second gets an error, the first its result: as with a coroutine of Python's."""

        async def python() -> str:
            return await asyncio.sleep(0.01, "result")

        def both(operation: Any) -> list[Any]:
            async def wait() -> Any:
                return await operation

            async def main() -> list[Any]:
                return await asyncio.gather(wait(), wait(), return_exceptions=True)

            first, second = loop.run_until_complete(main())
            return [first, type(second)]

        assert both(weft.sleep(0.01, "result"))[1] is RuntimeError
        assert both(python())[1] is RuntimeError

    def test_weak_references(self) -> None:
        operation = weft.sleep(0)
        alive = weakref.ref(operation)
        operation.close()
        del operation
        assert alive() is None

    def test_dropped_while_suspended(self, backend: Backend) -> None:
        loop = backend.new_event_loop()

        async def main() -> None:
            operation = weft.sleep(3600)
            operation.send(None)

        loop.run_until_complete(main())
        gc.collect()
        loop.close()

    def test_used_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """The memory of operations is, their state is not."""

        async def main() -> None:
            for number in range(1000):
                assert await weft.sleep(0, number) == number
            kept = [weft.sleep(0, number) for number in range(600)]
            for number, operation in enumerate(kept):
                assert await operation == number

        loop.run_until_complete(main())


@pytest.fixture
def installed() -> Iterator[None]:
    weft.install()
    try:
        yield
    finally:
        weft.uninstall()


class TestInstalled:
    def test_names(self) -> None:
        before = asyncio.sleep
        weft.install()
        try:
            assert asyncio.sleep is asyncio.tasks.sleep is weft.sleep
            weft.install()
        finally:
            weft.uninstall()
        assert asyncio.sleep is asyncio.tasks.sleep is before
        weft.uninstall()

    def test_somebody_else_has_set_the_name_since(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def theirs() -> None:
            pass

        before = asyncio.sleep
        weft.install()
        asyncio.sleep = theirs  # type: ignore[assignment]
        weft.uninstall()
        assert asyncio.sleep is theirs
        asyncio.sleep = before  # type: ignore[unreachable]

    def test_programs(self, installed: None) -> None:
        async def main() -> str:
            return await asyncio.wait_for(asyncio.sleep(0.001, "result"), 5)

        assert asyncio.run(main()) == "result"
