"""wait and as_completed, Weft's and asyncio's."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from backends import PY313, PY314
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from many import KITS, Kit, native, stock
from turns import Clock, turn

# On 3.14 Hypothesis misreads a reference count.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random`")


@pytest.fixture(params=list(KITS))
def kit(request: pytest.FixtureRequest) -> Kit:
    return KITS[request.param]()


@pytest.fixture
def loop(kit: Kit) -> Iterator[asyncio.AbstractEventLoop]:
    loop = kit.new_event_loop()
    yield loop
    for task in asyncio.all_tasks(loop):
        task.cancel()
    turn(loop, 4)
    loop.close()


async def give(value: Any, turns: int = 0) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


async def fail(error: BaseException, turns: int = 0) -> None:
    await give(None, turns)
    raise error


class TestWait:
    def test_is_a_coroutine(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        waiting = kit.wait([future])
        assert inspect.isawaitable(waiting)
        assert asyncio.iscoroutine(waiting)
        assert future._callbacks is None
        waiting.close()

    def test_all(self, kit: Kit) -> None:
        async def main() -> None:
            tasks = [kit.create_task(give(number, number)) for number in range(4)]
            done, pending = await kit.wait(tasks)
            assert type(done) is type(pending) is set
            assert done == set(tasks)
            assert pending == set()

        kit.run(main())

    def test_first(self, kit: Kit) -> None:
        async def main() -> None:
            tasks = [kit.create_task(give(number, number * 3)) for number in range(4)]
            done, pending = await kit.wait(iter(tasks), return_when=asyncio.FIRST_COMPLETED)
            assert done == {tasks[0]}
            assert pending == set(tasks[1:])
            assert not any(task._callbacks for task in pending)
            done, pending = await kit.wait(pending, return_when="FIRST_COMPLETED")
            assert done == {tasks[1]}

        kit.run(main())

    def test_first_exception(self, kit: Kit) -> None:
        async def main() -> None:
            tasks = [
                kit.create_task(give(0)),
                kit.create_task(fail(KeyError(), 3)),
                kit.create_task(give(0, 9)),
            ]
            cancelled = kit.create_task(give(0))
            cancelled.cancel()
            done, pending = await kit.wait([*tasks, cancelled], return_when=asyncio.FIRST_EXCEPTION)
            assert done == {*tasks[:2], cancelled}
            assert pending == {tasks[2]}
            # It has been looked at.
            assert tasks[1]._log_traceback is False

        kit.run(main())

    def test_what_is_done_takes_a_turn(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.set_result(1)
        task = loop.create_task(kit.wait([future, future]))
        turn(loop, 2)
        assert not task.done()
        turn(loop)
        assert task.result() == ({future}, set())

    def test_timeout(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        clock = Clock()
        loop.time = clock  # type: ignore[method-assign]
        futures = [loop.create_future() for _ in range(2)]
        task = loop.create_task(kit.wait(futures, timeout=10))
        turn(loop)
        futures[0].set_result(1)
        clock.now += 9
        turn(loop, 2)
        assert not task.done()
        clock.now += 2
        turn(loop, 3)
        assert task.result() == ({futures[0]}, {futures[1]})
        assert not futures[1]._callbacks

    def test_a_timer_does_not_outlive_it(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        made = []
        kept = loop.call_later

        def call_later(*args: Any, **keywords: Any) -> Any:
            made.append(weakref.ref(handle := kept(*args, **keywords)))
            return handle

        loop.call_later = call_later  # type: ignore[method-assign]
        future = loop.create_future()
        task = loop.create_task(kit.wait([future], timeout=1000))
        turn(loop)
        future.set_result(None)
        turn(loop, 3)
        assert task.done()
        assert all(handle() is None or handle().cancelled() for handle in made)

    def test_misuse(self, kit: Kit) -> None:
        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            coroutine = give(1)
            for arguments, keywords in [
                ((future,), {}),
                ((coroutine,), {}),
                (([],), {}),
                (([future],), {"return_when": "NEVER"}),
                (([future, coroutine],), {}),
                (([[]],), {}),
                ((1,), {}),
                (([1],), {}),
            ]:
                outcomes = []
                for each in (stock(), kit):
                    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
                        await each.wait(*arguments, **keywords)
                    outcomes.append((caught.type, str(caught.value)))
                assert outcomes[0] == outcomes[1]
            coroutine.close()
            for arguments, keywords in [((), {}), (([future], 1), {}), (([],), {"colour": 1})]:
                with pytest.raises(TypeError):
                    kit.wait(*arguments, **keywords)

        kit.run(main())

    def test_cancelled(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        task = loop.create_task(kit.wait([future], timeout=1000))
        turn(loop)
        task.cancel("why")
        turn(loop, 2)
        assert task.cancelled()
        assert not future._callbacks
        assert not future.done()

    def test_futures_of_other_kinds(self, kit: Kit) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            python = asyncio.futures._PyFuture(loop=loop)  # type: ignore[attr-defined]
            future = loop.create_future()
            loop.call_soon(python.set_exception, KeyError())
            done, pending = await kit.wait([python, future], return_when="FIRST_EXCEPTION")
            assert (done, pending) == ({python}, {future})
            assert isinstance(python.exception(), KeyError)

        kit.run(main())

    def test_nothing_leaks(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        """Given up in the middle, and with the collector off."""
        if kit.name == "asyncio":
            pytest.skip("asyncio leaves it to the collector from 3.14 on")
        future = loop.create_future()
        gc.disable()
        try:
            waiting = kit.wait([future])
            task = loop.create_task(waiting)
            turn(loop)
            references = [weakref.ref(waiting), weakref.ref(task)]
            task.cancel()
            del waiting, task
            turn(loop, 2)
            assert [reference() for reference in references] == [None, None]
            assert not future._callbacks
        finally:
            gc.enable()

    def test_closed(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            waiting = kit.wait([future])
            waiting.send(None)
            assert future._callbacks
            waiting.close()
            assert not future._callbacks
            waiting = kit.wait([future])
            waiting.send(None)
            del waiting
            assert not future._callbacks

        loop.run_until_complete(main())

    def test_never_awaited(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        with pytest.warns(RuntimeWarning, match="coroutine 'wait' was never awaited"):
            kit.wait([loop.create_future()])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


class TestAsCompleted:
    def test_in_order_of_completion(self, kit: Kit) -> None:
        async def main() -> None:
            waits = kit.as_completed([give(number, 9 - 3 * number) for number in range(4)])
            assert iter(waits) is waits
            assert [await earliest for earliest in waits] == [3, 2, 1, 0]
            assert list(waits) == []
            assert list(kit.as_completed([])) == []

        kit.run(main())

    def test_the_same_thing_twice_is_one(self, kit: Kit) -> None:
        async def main() -> None:
            one = give(1)
            assert [await earliest for earliest in kit.as_completed([one, one])] == [1]

        kit.run(main())

    def test_what_is_yielded(self, kit: Kit) -> None:
        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            future.set_result(1)
            for earliest in kit.as_completed([future]):
                assert asyncio.iscoroutine(earliest)
                assert await earliest == 1
                with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
                    await earliest

        kit.run(main())

    def test_failures(self, kit: Kit) -> None:
        async def main() -> None:
            cancelled = kit.ensure_future(give(1))
            cancelled.cancel("why")
            waits = iter(kit.as_completed([fail(KeyError(), 2), cancelled]))
            with pytest.raises(asyncio.CancelledError, match="why"):
                await next(waits)
            with pytest.raises(KeyError):
                await next(waits)

        kit.run(main())

    def test_timeout(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        clock = Clock()
        loop.time = clock  # type: ignore[method-assign]
        future = loop.create_future()
        log: list[Any] = []

        async def main() -> None:
            for earliest in kit.as_completed([give(1), future], timeout=10):
                try:
                    log.append(await earliest)
                except TimeoutError as error:
                    log.append(type(error))

        task = loop.create_task(main())
        turn(loop, 5)
        assert log == [1]
        clock.now += 11
        turn(loop, 4)
        assert task.done()
        assert log == [1, TimeoutError]
        assert not future._callbacks
        assert not future.done()

    def test_misuse(self, kit: Kit) -> None:
        async def main() -> None:
            coroutine = give(1)
            future = asyncio.get_running_loop().create_future()
            for wrong in (coroutine, future, 1, [1]):
                outcomes = []
                for each in (stock(), kit):
                    with pytest.raises(TypeError) as caught:
                        next(iter(each.as_completed(wrong)))
                    outcomes.append(str(caught.value))
                assert outcomes[0] == outcomes[1]
            coroutine.close()
            with pytest.raises(TypeError):
                kit.as_completed([], 1)

        kit.run(main())

    @pytest.mark.skipif(PY313, reason="up to 3.12 it is a generator")
    def test_lazy(self, kit: Kit) -> None:
        kit.as_completed(1)
        made: list[Any] = []

        class Many:
            def __iter__(self) -> Iterator[Any]:
                made.append(1)
                yield give(1)

        async def main() -> None:
            waits = kit.as_completed(Many())
            assert made == []
            assert await next(waits) == 1

        kit.run(main())

    @pytest.mark.skipif(not PY313, reason="from 3.13 on")
    def test_asynchronous(self, kit: Kit) -> None:
        async def main() -> None:
            tasks = [kit.create_task(give(number, 9 - 3 * number)) for number in range(3)]
            found = []
            async for earliest in kit.as_completed([*tasks, give("made")]):
                assert earliest.done()
                found.append(earliest)
            assert found[0].result() == "made"
            assert found[1:] == tasks[::-1]
            waits = kit.as_completed([give(1)])
            step = anext(waits)
            assert asyncio.iscoroutine(step)
            assert len(list(waits)) == 1
            with pytest.raises(StopAsyncIteration):
                await step

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            kit.run(main())

    @pytest.mark.skipif(not PY313, reason="from 3.13 on")
    def test_asynchronous_timeout(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        clock = Clock()
        loop.time = clock  # type: ignore[method-assign]
        future = loop.create_future()

        async def main() -> None:
            async for _ in kit.as_completed([future], timeout=10):
                raise AssertionError("nothing is done")

        task = loop.create_task(main())
        turn(loop, 2)
        clock.now += 11
        turn(loop, 4)
        assert isinstance(task.exception(), TimeoutError)

    @pytest.mark.skipif(not PY313, reason="from 3.13 on")
    def test_a_step_that_is_cancelled(self, kit: Kit) -> None:
        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            waits = kit.as_completed([future])
            step = kit.create_task(anext(waits))
            await asyncio.sleep(0)
            step.cancel()
            await kit.wait([step])
            future.set_result(1)
            await asyncio.sleep(0)
            # The claim is given back from 3.14 on.
            left = 0
            async for earliest in waits:
                assert earliest is future
                left += 1
            assert left == int(PY314)

        kit.run(main())

    def test_results_are_let_go(self, kit: Kit) -> None:
        if kit.name == "asyncio":
            pytest.skip("asyncio of 3.12 holds the last one")

        class Value:
            pass

        async def make() -> Value:
            return Value()

        async def main() -> None:
            references: list[Any] = []
            for earliest in kit.as_completed([make() for _ in range(3)]):
                value = await earliest
                assert all(reference() is None for reference in references)
                references.append(weakref.ref(value))
                del value, earliest

        kit.run(main())

    def test_one_that_is_left_is_collected(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        references: list[Any] = []

        async def main() -> None:
            futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
            references.extend(weakref.ref(future) for future in futures)
            waits = kit.as_completed(futures)
            waiting = kit.create_task(next(iter(waits)))
            await asyncio.sleep(0)
            waiting.cancel()

        loop.run_until_complete(main())
        turn(loop, 2)
        gc.collect()
        assert [reference() for reference in references] == [None] * 3


@pytest.mark.skipif(not PY314, reason="call graphs came with 3.14")
class TestCallGraph:
    def test_wait(self, kit: Kit) -> None:
        async def main() -> None:
            futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
            task = kit.create_task(kit.wait(futures, return_when="FIRST_COMPLETED"))
            await asyncio.sleep(0)
            for future in futures:
                assert future._asyncio_awaited_by == {task}
            futures[0].set_result(1)
            await task
            for future in futures:
                assert future._asyncio_awaited_by is None

        kit.run(main())

    def test_as_completed(self, kit: Kit) -> None:
        async def main() -> None:
            task = asyncio.current_task()
            future = asyncio.get_running_loop().create_future()
            waits = iter(kit.as_completed([future]))
            assert future._asyncio_awaited_by == {task}
            future.set_result(1)
            await next(waits)
            assert future._asyncio_awaited_by is None

        kit.run(main())


# -- the same on asyncio and on Weft ---------------------------------------------------------------

FUTURES = 4
ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.sampled_from(["set", "fail", "cancel", "stop", "tick"]),
        st.integers(0, FUTURES - 1),
    ),
    max_size=8,
)
WAIT = st.tuples(
    st.sampled_from(["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]),
    st.sampled_from([None, 0, 2]),
    st.lists(st.integers(0, FUTURES - 1), min_size=1, max_size=6),
    ACTIONS,
)
AS_COMPLETED = st.tuples(
    st.integers(1, 3),
    st.sampled_from([None, 0, 2]),
    st.booleans() if PY313 else st.just(False),
    ACTIONS,
)


class Machine:
    """A loop, some futures, some tasks, and what happens to them turn by turn."""

    def __init__(self, kit: Kit) -> None:
        self.loop = kit.new_event_loop()
        self.clock = Clock()
        self.loop.time = self.clock  # type: ignore[method-assign]
        self.futures = [self.loop.create_future() for _ in range(FUTURES)]
        self.tasks: list[asyncio.Task[Any]] = []
        self.log: list[Any] = []
        self.loop.set_exception_handler(
            lambda loop, context: self.log.append(type(context.get("exception")))
        )

    def numbers(self, futures: Any) -> list[int]:
        return sorted(self.futures.index(future) for future in futures)

    def act(self, what: str, which: int) -> None:
        future = self.futures[which]
        if what == "stop":
            self.log.append(self.tasks[which % len(self.tasks)].cancel())
        elif what == "tick":
            self.clock.now += 1.5
        elif what == "cancel":
            future.cancel()
        elif not future.done():
            future.set_result(which) if what == "set" else future.set_exception(KeyError(which))

    def run(self, actions: Any) -> list[Any]:
        # What is done before anybody listens is told in the order of a set.
        turn(self.loop, 2)
        for number in range(12):
            for when, what, which in actions:
                if when == number:
                    self.act(what, which)
            turn(self.loop)
            self.log.append((number, [task.done() for task in self.tasks]))
            self.log.append([len(future._callbacks or ()) for future in self.futures])
        for task in self.tasks:
            task.cancel()
        turn(self.loop, 4)
        for future in self.futures:
            self.log.append(future._log_traceback)
            future.cancelled() or (future.done() and future.exception())
        self.tasks.clear()
        self.loop.close()
        return self.log


def trace_wait(kit: Kit, program: Any) -> list[Any]:
    return_when, timeout, chosen, actions = program
    machine = Machine(kit)

    async def main() -> None:
        try:
            done, pending = await kit.wait(
                [machine.futures[number] for number in chosen],
                timeout=timeout,
                return_when=return_when,
            )
        except asyncio.CancelledError:
            machine.log.append("cancelled")
            raise
        machine.log.append((machine.numbers(done), machine.numbers(pending)))

    machine.tasks.append(machine.loop.create_task(main()))
    return machine.run(actions)


def trace_as_completed(kit: Kit, program: Any) -> list[Any]:
    consumers, timeout, whole, actions = program
    machine = Machine(kit)

    async def consume(name: int, waits: Any) -> None:
        try:
            if whole:
                async for future in waits:
                    machine.log.append((name, machine.futures.index(future)))
            else:
                for earliest in waits:
                    machine.log.append((name, await earliest))
        except BaseException as error:
            machine.log.append((name, type(error), str(error)))
            raise

    async def main() -> None:
        waits = kit.as_completed(machine.futures, timeout=timeout)
        # The first step of a generator must not be the consumers'.
        if not PY313:
            first = next(waits)
            machine.tasks.append(machine.loop.create_task(first))
        for name in range(consumers):
            machine.tasks.append(machine.loop.create_task(consume(name, waits)))

    machine.tasks.append(machine.loop.create_task(main()))
    log = machine.run(actions)
    gc.collect()
    return log


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(WAIT)
@pytest.mark.slow
def test_wait_twins(program: Any) -> None:
    expected = trace_wait(stock(), program)
    assert trace_wait(native("weft"), program) == expected
    assert trace_wait(native("asyncio"), program) == expected


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(AS_COMPLETED)
@pytest.mark.slow
def test_as_completed_twins(program: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = trace_as_completed(stock(), program)
        assert trace_as_completed(native("weft"), program) == expected
        assert trace_as_completed(native("asyncio"), program) == expected
