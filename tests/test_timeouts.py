"""timeout(), timeout_at(), Timeout and wait_for().

Each test runs with asyncio's on asyncio's loop, which proves the test, and with Weft's on both
loops.
"""

# What raises here is the end of a block, with what happens inside it.
# ruff: noqa: PT012

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Generator, Iterator
from decimal import Decimal
from typing import Any

import pytest
import weft
from backends import PY312
from hypothesis import given, settings
from hypothesis import strategies as st
from places import OWN, PLACES, STOCK, Place, name_of, shape, turns
from turns import Clock, raised, turn


@pytest.fixture(params=PLACES, ids=name_of)
def place(request: pytest.FixtureRequest) -> Place:
    return request.param


@pytest.fixture
def loop(place: Place) -> Iterator[asyncio.AbstractEventLoop]:
    loop = place.new_event_loop()
    yield loop
    loop.close()


# -- the class -------------------------------------------------------------------------------------


def test_is_what_asyncio_makes(place: Place) -> None:
    async def main() -> None:
        for made in (
            place.classes.timeout(1),
            place.classes.timeout_at(1),
            place.classes.Timeout(None),
        ):
            assert isinstance(made, asyncio.Timeout)
            assert type(made) is place.classes.Timeout

    place.run(main())
    assert weft.Timeout.__module__ == "weft"
    assert isinstance(asyncio.Timeout(None), weft.Timeout)


def test_arguments(place: Place) -> None:
    async def main() -> None:
        c = place.classes
        for call in (c.timeout, c.timeout_at, c.Timeout, c.wait_for):
            assert raised(call)[0] is TypeError
        for call in (c.timeout, c.timeout_at, c.Timeout):
            assert raised(call, 1, 2)[0] is TypeError
            assert raised(call, wrong=2)[0] is TypeError
        assert raised(c.wait_for, None)[0] is TypeError
        assert raised(c.timeout, "text")[0] is TypeError
        assert raised(c.timeout, Decimal(1))[0] is TypeError
        assert c.timeout(delay=None).when() is None
        assert c.timeout_at(when=5).when() == 5
        assert c.Timeout(when="a").when() == "a"
        now = asyncio.get_running_loop().time()
        for delay in (1, 1.0, True):
            assert now + 1 <= c.timeout(delay).when() < now + 2

    place.run(main())


def test_needs_a_loop(place: Place) -> None:
    for delay in (1, None):
        assert raised(place.classes.timeout, delay) == (RuntimeError, "no running event loop")
    assert place.classes.timeout_at(1).when() == 1


def test_states(place: Place) -> None:
    async def main() -> list[Any]:
        log: list[Any] = []
        loop = asyncio.get_running_loop()
        made = place.classes.timeout_at(loop.time() + 1000)

        def look() -> None:
            log.append((made._state.name, made.expired(), made._timeout_handler is None))
            log.append(repr(made).split(" when=")[0])

        look()
        log.append(raised(made.reschedule, 1))
        async with made as entered:
            assert entered is made
            assert made._task is asyncio.current_task()
            look()
            made.reschedule(None)
            look()
            assert repr(made).endswith("when=None>")
            made.reschedule(loop.time() + 1000.12345)
            assert f"when={round(made.when(), 3)}>" in repr(made)
            with pytest.raises(RuntimeError, match="Timeout has already been entered"):
                await made.__aenter__()
        look()
        log.append(raised(made.reschedule, 1))
        with pytest.raises(AssertionError):
            await made.__aexit__(None, None, None)
        expiring = place.classes.timeout(0)
        with pytest.raises(TimeoutError):
            async with expiring:
                made = expiring
                look()
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.sleep(10)
                look()
                log.append(raised(made.reschedule, 1))
                raise asyncio.CancelledError
        look()
        log.append(raised(made.reschedule, 1))
        return log

    assert place.run(main()) == STOCK.run(main())


def test_moments_of_odd_types(place: Place) -> None:
    class Moment(float):
        pass

    async def main() -> None:
        now = asyncio.get_running_loop().time()
        for moment in (Moment(now + 1000), int(now) + 1000):
            async with place.classes.timeout_at(moment) as made:
                assert made.when() is moment
        with pytest.raises(TypeError):
            async with place.classes.timeout_at("text"):
                pass
        for moment in (Moment(now - 1), 0, False, Decimal(1)):
            with pytest.raises(TimeoutError):
                async with place.classes.timeout_at(moment):
                    await asyncio.sleep(10)

    place.run(main())


# -- expiring --------------------------------------------------------------------------------------


def test_expires(place: Place) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(TimeoutError) as caught:
            async with place.classes.timeout(0.02) as made:
                await asyncio.sleep(10)
        assert 0.019 < loop.time() - start < 5
        assert made.expired()
        assert task.cancelling() == 0
        cancelled = caught.value.__cause__
        assert type(cancelled) is asyncio.CancelledError
        assert caught.value.__context__ is cancelled
        assert caught.value.__suppress_context__

    place.run(main())


@pytest.mark.parametrize("delay", [0, -1, 0.0, -0.001])
def test_a_moment_that_has_passed(place: Place, delay: float) -> None:
    """The block begins, and is cancelled at the first thing it waits for."""

    async def main() -> list[str]:
        log = []
        with pytest.raises(TimeoutError):
            async with place.classes.timeout(delay):
                log.append("begun")
                await asyncio.sleep(0)
                log.append("not reached")
                await asyncio.sleep(0)
        async with place.classes.timeout(delay) as made:
            log.append("nothing to wait for")
        assert not made.expired()
        await turns(10)
        return log

    assert place.run(main())[0] == "begun"


def test_a_block_that_ends_while_it_expires(place: Place) -> None:
    """The cancellation is taken back whatever the block does with it."""

    async def main() -> list[Any]:
        log: list[Any] = []
        task = asyncio.current_task()
        assert task is not None
        async with place.classes.timeout(0):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                log.append(task.cancelling())
        log.append(task.cancelling())
        await asyncio.sleep(0)
        for error in (KeyError("k"), ExceptionGroup("g", [KeyError("k"), ValueError("v")])):
            try:
                async with place.classes.timeout(0):
                    try:
                        await asyncio.sleep(10)
                    finally:
                        raise error
            except Exception as caught:
                log.append(shape(caught))
            log.append(task.cancelling())
        try:
            async with place.classes.timeout(0):
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    try:
                        raise KeyError
                    except KeyError as inner:
                        raise ExceptionGroup("g", [inner]) from None
        except ExceptionGroup as caught:
            log.append(shape(caught))
        return log

    assert place.run(main()) == STOCK.run(main())


def test_cancellations_from_outside_win(place: Place) -> None:
    async def main() -> list[Any]:
        log: list[Any] = []

        async def work() -> None:
            async with place.classes.timeout(0):
                await asyncio.sleep(10)

        task = asyncio.create_task(work())
        task.cancel("before")
        log.append(shape((await asyncio.gather(task, return_exceptions=True))[0]))
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel("inside")
        log.append(shape((await asyncio.gather(task, return_exceptions=True))[0]))
        log.append(task.cancelling())
        return log

    assert place.run(main()) == STOCK.run(main())


def test_subclasses_of_cancelled_error(place: Place) -> None:
    class Special(asyncio.CancelledError):
        pass

    async def main() -> Any:
        try:
            async with place.classes.timeout(0):
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    raise Special from None
        except BaseException as error:
            return shape(error)

    assert place.run(main()) == STOCK.run(main())


def test_nested(place: Place) -> None:
    async def main() -> list[Any]:
        log: list[Any] = []
        for outer, inner in ((0, 10), (10, 0), (0, 0), (-1, 0)):
            try:
                async with place.classes.timeout(outer) as first:
                    try:
                        async with place.classes.timeout(inner) as second:
                            await asyncio.sleep(10)
                    finally:
                        log.append((first.expired(), second.expired()))
            except TimeoutError:
                log.append("outer")
        return log

    assert place.run(main()) == STOCK.run(main())


def test_rescheduled(place: Place, loop: asyncio.AbstractEventLoop) -> None:
    clock = Clock()
    loop.time = clock  # type: ignore[method-assign]
    log: list[Any] = []

    async def work() -> None:
        async with place.classes.timeout(10) as made:
            made.reschedule(loop.time() + 20)
            try:
                await asyncio.sleep(1000)
            finally:
                log.append((clock.now, made.expired()))

    task = loop.create_task(work())
    for _ in range(25):
        clock.now += 1
        turn(loop, 12)
    assert isinstance(task.exception(), TimeoutError)
    assert log == [(1020.0, True)] or log == [(1021.0, True)]


def test_rescheduled_into_the_past(place: Place) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with place.classes.timeout(1000) as made:
                made.reschedule(loop.time() - 1)
                await asyncio.sleep(10)
        async with place.classes.timeout(0) as made:
            made.reschedule(None)
            await turns(10)
        assert not made.expired()

    place.run(main())


def test_the_coroutines_are_lazy(place: Place) -> None:
    async def main() -> None:
        made = place.classes.timeout(0)
        coro = made.__aenter__()
        assert asyncio.iscoroutine(coro)
        await turns(10)
        assert made._state.name == "CREATED"
        assert await coro is made
        leaving = made.__aexit__(None, None, None)
        assert made._state.name == "ENTERED"
        assert await leaving is None
        assert made._state.name == "EXITED"

    place.run(main())


def test_outside_a_task(place: Place, loop: asyncio.AbstractEventLoop) -> None:
    found: list[Any] = []

    def callback() -> None:
        entering = place.classes.timeout(1).__aenter__()
        found.append(raised(entering.send, None))
        waiting = place.classes.wait_for(loop.create_future(), 1)
        if PY312:
            found.append(raised(waiting.send, None))
        waiting.close()

    loop.call_soon(callback)
    turn(loop)
    assert set(found) == {(RuntimeError, "Timeout should be used inside a task")}


def test_inside_a_task_that_was_started_eagerly(place: Place) -> None:
    if not PY312:
        pytest.skip("eager tasks came with Python 3.12")

    async def main() -> None:
        outer = asyncio.current_task()
        loop = asyncio.get_running_loop()

        async def work() -> None:
            assert asyncio.current_task() is not outer
            async with place.classes.timeout(0) as made:
                assert made._task is asyncio.current_task()
                await asyncio.sleep(10)

        task = asyncio.Task(work(), loop=loop, eager_start=True)
        with pytest.raises(TimeoutError):
            await task

    place.run(main())


def test_hooks_of_subclasses(place: Place) -> None:
    log: list[str] = []

    class Logged(place.classes.Timeout):  # type: ignore[misc,name-defined]
        def reschedule(self, when: float | None) -> None:
            log.append("reschedule")
            super().reschedule(when)

        def _on_timeout(self) -> None:
            log.append("expire")
            super()._on_timeout()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with Logged(0):
                await asyncio.sleep(10)

    place.run(main())
    assert log == ["reschedule", "expire"]


def test_current_task_while_it_expires(place: Place) -> None:
    class Watched(asyncio.Future[None]):
        def cancel(self, msg: Any = None) -> bool:
            found.append(asyncio.current_task())
            return super().cancel(msg)

    found: list[Any] = []

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with place.classes.timeout(0.001):
                await Watched()

    place.run(main())
    assert found == [None]


def test_a_task_of_a_foreign_kind(place: Place) -> None:
    """What is current need only have the methods of a task."""

    async def main() -> list[str]:
        log: list[str] = []
        loop = asyncio.get_running_loop()
        own = asyncio.current_task()
        assert own is not None

        class Stranger:
            def cancelling(self) -> int:
                return 0

            def cancel(self) -> None:
                log.append("cancel")

            def uncancel(self) -> int:
                log.append("uncancel")
                return 0

        made = place.classes.timeout(0)
        stranger: Any = Stranger()
        asyncio.tasks._leave_task(loop, own)
        asyncio.tasks._enter_task(loop, stranger)
        try:
            with pytest.raises(StopIteration):
                made.__aenter__().send(None)
        finally:
            asyncio.tasks._leave_task(loop, stranger)
            asyncio.tasks._enter_task(loop, own)
        await turns(10)
        with pytest.raises(TimeoutError):
            await made.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)
        return log

    assert place.run(main()) == ["cancel", "uncancel"]


# -- wait_for() ------------------------------------------------------------------------------------


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def test_results(place: Place) -> None:
    class Custom:
        def __await__(self) -> Generator[Any, None, str]:
            yield from asyncio.sleep(0).__await__()
            return "custom"

    async def fail() -> None:
        raise KeyError("k")

    async def main() -> None:
        wait_for = place.classes.wait_for
        loop = asyncio.get_running_loop()
        for delay in (None, 10, 10.0, True):
            assert await wait_for(give(1), delay) == 1
            assert await wait_for(loop.create_task(give(2)), delay) == 2
            assert await wait_for(Custom(), delay) == "custom"
            future = loop.create_future()
            loop.call_soon(future.set_result, 3)
            assert await wait_for(fut=future, timeout=delay) == 3
            with pytest.raises(KeyError):
                await wait_for(fail(), delay)
        done = loop.create_future()
        done.set_result(4)
        for delay in (None, 0, -1, 1):
            assert await wait_for(done, delay) == 4
        for delay in (None, 0, 1):
            with pytest.raises(TypeError):
                await wait_for(5, delay)
        coro = give(1)
        with pytest.raises(TypeError):
            await wait_for(coro, "text")
        coro.close()

    place.run(main())


@pytest.mark.parametrize("delay", [0.005, 0, -1])
def test_time_is_up(place: Place, delay: float) -> None:
    async def main() -> list[Any]:
        log: list[Any] = []

        async def work() -> None:
            log.append("begun")
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        current = asyncio.current_task()
        assert current is not None
        awaitable: Any
        for awaitable in (work(), asyncio.create_task(work()), asyncio.Future()):
            try:
                await place.classes.wait_for(awaitable, delay)
            except TimeoutError as error:
                log.append(shape(error))
            log.append(current.cancelling())
        return log

    assert place.run(main()) == STOCK.run(main())


def test_a_task_that_ignores_its_cancellation(place: Place) -> None:
    async def main() -> list[Any]:
        log: list[Any] = []

        async def stubborn(ending: Any) -> Any:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await turns(3)
            if isinstance(ending, Exception):
                raise ending
            return ending

        for ending in ("value", KeyError("k")):
            for delay in (0.001, 0):
                for make in (lambda coro: coro, asyncio.create_task):
                    awaitable = make(stubborn(ending))
                    await asyncio.sleep(0)
                    try:
                        log.append(await place.classes.wait_for(awaitable, delay))
                    except BaseException as error:
                        log.append(shape(error))
        return log

    assert place.run(main()) == STOCK.run(main())


def test_cancelled_at_every_turn(place: Place) -> None:
    """Nothing is lost and nothing runs on, whenever the cancellation comes."""

    async def main(classes: Any, make: Callable[[Any], Any], delay: float, when: int) -> list[Any]:
        log: list[Any] = []

        async def work() -> str:
            try:
                await turns(3)
                log.append("worked")
                return "result"
            except asyncio.CancelledError:
                log.append("work cancelled")
                await turns(2)
                raise

        async def waiting() -> Any:
            try:
                return await classes.wait_for(make(work()), delay)
            finally:
                log.append("left")

        task = asyncio.create_task(waiting())
        for now in range(16):
            if now == when:
                log.append(task.cancel("message"))
            await asyncio.sleep(0)
            log.append((now, task.done()))
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        log.append(outcome if isinstance(outcome, str) else (type(outcome), outcome.args))
        log.append(task.cancelling())
        return log

    for make in (lambda coro: coro, asyncio.ensure_future):
        for delay in (1000, 0):
            for when in range(9):
                expected = STOCK.run(main(asyncio, make, delay, when))
                assert place.run(main(place.classes, make, delay, when)) == expected


def test_closed_halfway(place: Place) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        waiting = place.classes.wait_for(future, 1000)
        waiting.send(None)
        waiting.close()
        assert not future.cancelled()
        waiting = place.classes.wait_for(future, 0)
        waiting.send(None)
        waiting.close()
        assert future.cancelled()
        assert not future._callbacks
        await turns(3)

    place.run(main())


def test_runs_in_the_current_task_from_3_12_on(place: Place) -> None:
    async def main() -> None:
        current = asyncio.current_task()

        async def who() -> Any:
            return asyncio.current_task()

        assert (await place.classes.wait_for(who(), 1) is current) == PY312
        assert await place.classes.wait_for(who(), None) is current

    place.run(main())


# -- what is left behind ---------------------------------------------------------------------------


class Value:
    pass


@pytest.mark.parametrize("way", ["timeout", "wait_for", "expired", "expired wait_for"])
def test_nothing_is_kept(place: Place, way: str) -> None:
    async def inside() -> Value:
        return Value()

    async def main() -> None:
        c = place.classes
        value = Value()
        kept = weakref.ref(value)
        if way == "timeout":
            async with c.timeout(1000) as made:
                made.value = value
            kept_too = weakref.ref(made)
            del made
            assert kept_too() is None
        elif way == "wait_for":
            kept = weakref.ref(await c.wait_for(inside(), 1000))
        elif way == "expired":
            with pytest.raises(TimeoutError):
                async with c.timeout(0) as made:
                    made.value = value
                    await asyncio.sleep(10)
            del made
        else:
            future = asyncio.get_running_loop().create_future()
            future.value = value
            with pytest.raises(TimeoutError):
                await c.wait_for(future, 0.001)
            del future
        del value
        await turns(10)
        gc.collect()
        assert kept() is None

    place.run(main())


def test_a_cycle_is_collected(place: Place) -> None:
    async def main() -> weakref.ref[Any]:
        made = place.classes.timeout(1000)
        made.itself = made
        entering = made.__aenter__()
        entering.close()
        return weakref.ref(made)

    kept = place.run(main())
    gc.collect()
    assert kept() is None


def test_attributes_of_a_dead_one_do_not_come_back(place: Place) -> None:
    async def main() -> None:
        for number in range(600):
            made = place.classes.timeout(1000)
            assert vars(made).get("number") is None
            assert weakref.getweakrefcount(made) == 0
            made.number = number
            made.reference = weakref.ref(made)
            async with made:
                pass
            assert made._state.name == "EXITED"

    place.run(main())


# -- the same as asyncio, whatever happens ---------------------------------------------------------

Script = list[tuple[Any, ...]]

limits = st.one_of(st.none(), st.integers(-1, 6))
bodies = st.recursive(
    st.one_of(
        st.tuples(st.just("sleep"), st.integers(0, 8)),
        st.tuples(st.just("pass"), st.integers(0, 3)),
        st.tuples(st.just("raise")),
        st.tuples(st.just("stubborn"), st.integers(0, 8)),
        st.tuples(st.just("clean up"), st.integers(0, 3)),
    ),
    lambda inner: st.one_of(
        st.tuples(st.just("timeout"), limits, st.lists(inner, max_size=3)),
        st.tuples(st.just("wait_for"), limits, st.lists(inner, max_size=3)),
        st.tuples(st.just("rescheduled"), limits, limits, st.lists(inner, max_size=3)),
    ),
    max_leaves=6,
)
cancellations = st.lists(st.integers(0, 9), max_size=2)


async def act(classes: Any, loop: Any, body: list[Any], log: list[Any], path: str) -> None:
    for index, step in enumerate(body):
        here = f"{path}.{index}"
        try:
            await act_one(classes, loop, step, log, here)
        except TimeoutError as error:
            log.append((loop.time(), here, shape(error)[0], type(error.__cause__).__name__))
        except BaseException as error:
            log.append((loop.time(), here, type(error).__name__))
            raise
        else:
            log.append((loop.time(), here))


async def act_one(classes: Any, loop: Any, step: Any, log: list[Any], here: str) -> None:
    match step:
        case "sleep", delay:
            await asyncio.sleep(delay)
        case "pass", count:
            await turns(count)
        case ("raise",):
            raise KeyError(here)
        case "stubborn", delay:
            try:
                await asyncio.sleep(delay)
            except asyncio.CancelledError:
                log.append((loop.time(), here, "ignored"))
        case "clean up", count:
            try:
                await asyncio.sleep(100)
            finally:
                await turns(count)
        case "timeout", limit, inner:
            async with classes.timeout(limit) as made:
                await act(classes, loop, inner, log, here)
            log.append((repr(made), made.expired()))
        case "wait_for", limit, inner:
            await classes.wait_for(act(classes, loop, inner, log, here), limit)
        case "rescheduled", first, second, inner:
            async with classes.timeout(first) as made:
                await asyncio.sleep(0)
                made.reschedule(None if second is None else loop.time() + second)
                await act(classes, loop, inner, log, here)


def play(place: Place, body: list[Any], cancelled: list[int]) -> list[Any]:
    """The log of the script under a clock that moves when everything else has come to rest."""
    loop = place.new_event_loop()
    clock = Clock()
    loop.time = clock  # type: ignore[method-assign]
    log: list[Any] = []
    # Up to 3.11 wait_for() can leave its task behind, and what that raises.
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        task = loop.create_task(act(place.classes, loop, body, log, ""))
        for tick in range(14):
            turn(loop, 30)
            if tick in cancelled:
                task.cancel()
                turn(loop, 30)
            clock.now += 1
        while not task.done():
            task.cancel()
            turn(loop, 30)
        log.append(task.cancelled() or shape(task.exception()))
        log.append(task.cancelling())
        while left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            turn(loop, 30)
        return log
    finally:
        loop.close()


@pytest.mark.slow
@given(st.lists(bodies, max_size=3), cancellations)
@settings(max_examples=300, deadline=None)
def test_the_same_order_of_events(body: list[Any], cancelled: list[int]) -> None:
    expected = play(STOCK, body, cancelled)
    for place in OWN:
        assert play(place, body, cancelled) == expected


def test_signatures() -> None:
    import inspect

    for name in ("timeout", "timeout_at", "wait_for"):
        own = inspect.signature(getattr(weft, name)).parameters
        assert list(own) == list(inspect.signature(getattr(asyncio, name)).parameters)
