"""gather, shield, ensure_future, create_task and current_task, Weft's and asyncio's."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import weakref
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from backends import PY312, PY313, PY314
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from many import KITS, Kit, native, stock
from turns import collect, raised, turn

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


class Later:
    """Awaitable, and neither coroutine nor future."""

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        return "later"


class TestGather:
    def test_results_in_order(self, kit: Kit) -> None:
        async def main() -> None:
            found = await kit.gather(give(1, 3), give(2), give(3, 1), Later())
            assert found == [1, 2, 3, "later"]

        kit.run(main())

    @pytest.mark.parametrize("count", [1, 2, 8, 9, 500])
    def test_the_same_thing_twice_is_one_child(self, kit: Kit, count: int) -> None:
        async def main() -> None:
            many = [give(number, number % 3) for number in range(count)]
            outer = kit.gather(*many, *reversed(many))
            children = outer._children
            assert len(children) == 2 * count
            assert len(set(children)) == count
            assert children[:count] == children[: count - 1 : -1]
            assert await outer == [*range(count), *reversed(range(count))]

        kit.run(main())

    def test_equal_awaitables_are_one_child(self, kit: Kit) -> None:
        class Equal(Later):
            def __eq__(self, other: object) -> bool:
                return isinstance(other, Equal)

            def __hash__(self) -> int:
                return 1

        class NoKey(Later):
            __hash__ = None  # type: ignore[assignment]

        async def main() -> None:
            outer = kit.gather(Equal(), give(1), Equal())
            assert len(set(outer._children)) == 2
            assert await outer == ["later", 1, "later"]
            with pytest.raises(TypeError, match="unhashable"):
                kit.gather(NoKey())

        kit.run(main())

    def test_nothing(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            outer = kit.gather()
            assert outer.done()
            assert outer.result() == []
            assert await kit.gather(return_exceptions=True) == []

        loop.run_until_complete(main())

    def test_shape(self, kit: Kit) -> None:
        async def main() -> None:
            outer = kit.gather(give(1))
            assert isinstance(outer, asyncio.Future)
            assert isinstance(outer, asyncio.tasks._GatheringFuture)
            assert type(outer).__name__ == "_GatheringFuture"
            assert repr(outer).startswith("<_GatheringFuture pending")
            assert outer._cancel_requested is False
            assert outer.get_loop() is asyncio.get_running_loop()
            assert weakref.ref(outer)() is outer
            await outer
            assert repr(outer).startswith("<_GatheringFuture finished result=[1]")

        kit.run(main())

    def test_signatures(self, kit: Kit) -> None:
        for name in ("gather", "shield", "ensure_future", "current_task", "as_completed"):
            theirs = inspect.signature(getattr(stock(), name))
            assert str(inspect.signature(getattr(kit, name))) == str(theirs), name

    def test_misuse(self, kit: Kit) -> None:
        async def main() -> None:
            with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
                kit.gather(colour=1)
            with pytest.raises(TypeError, match="awaitable is required"):
                kit.gather(1)

        kit.run(main())

    def test_first_failure(self, kit: Kit) -> None:
        async def main() -> None:
            slow = kit.ensure_future(give(1, 5))
            error = KeyError()
            with pytest.raises(KeyError) as caught:
                await kit.gather(slow, fail(error), fail(OSError(), 1))
            assert caught.value is error
            assert not slow.done()
            assert await slow == 1

        kit.run(main())

    def test_failures_as_results(self, kit: Kit) -> None:
        async def main() -> None:
            error = KeyError()
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel("why")
            plain = asyncio.get_running_loop().create_future()
            plain.cancel()
            found = await kit.gather(give(1), fail(error), cancelled, plain, return_exceptions=True)
            assert found[:2] == [1, error]
            assert type(found[2]) is type(found[3]) is asyncio.CancelledError
            assert found[2].args == ("why",)
            assert found[3].args == ("",)

        kit.run(main())

    def test_a_cancelled_child_fails_it(self, kit: Kit) -> None:
        async def main() -> None:
            child = kit.ensure_future(give(1, 3))
            outer = kit.gather(child, give(2))
            await asyncio.sleep(0)
            child.cancel("why")
            with pytest.raises(asyncio.CancelledError, match="why"):
                await outer
            assert not outer.cancelled()

        kit.run(main())

    def test_cancelling_reaches_the_children(self, kit: Kit) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            children = [loop.create_future(), kit.ensure_future(give(1, 9))]
            outer = kit.gather(*children, return_exceptions=True)
            await asyncio.sleep(0)
            assert outer.cancel("why") is True
            assert outer._cancel_requested is True
            assert not outer.done()
            with pytest.raises(asyncio.CancelledError, match="why"):
                await outer
            assert all(child.cancelled() for child in children)
            assert outer.cancel() is False

        kit.run(main())

    def test_cancelling_when_all_are_done(self, kit: Kit) -> None:
        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            outer = kit.gather(future)
            future.set_result(1)
            assert outer.cancel() is False
            assert outer._cancel_requested is False
            assert await outer == [1]

        kit.run(main())

    def test_a_child_may_refuse(self, kit: Kit) -> None:
        async def stubborn() -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "refused"
            return "slept"

        async def main() -> None:
            outer = kit.gather(stubborn(), return_exceptions=True)
            await asyncio.sleep(0)
            outer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await outer

        kit.run(main())

    def test_of_a_waiting_task(self, kit: Kit) -> None:
        async def main() -> None:
            children = [kit.ensure_future(give(1, 9)) for _ in range(3)]

            async def wait() -> None:
                await kit.gather(*children)

            task = kit.create_task(wait())
            await asyncio.sleep(0)
            task.cancel("why")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert all(child.cancelled() for child in children)

        kit.run(main())

    def test_loops(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        """Outside of a loop it is that of the first future; no other may follow."""
        other = kit.new_event_loop()
        first, second = loop.create_future(), other.create_future()
        outer = kit.gather(first)
        assert outer.get_loop() is loop
        first.set_result(1)
        assert loop.run_until_complete(outer) == [1]
        first = loop.create_future()
        with pytest.raises(ValueError, match="belongs to a different loop"):
            kit.gather(first, second)
        # The callback that the first one has got is harmless.
        first.set_exception(KeyError())
        turn(loop, 2)
        second.cancel()
        other.close()

    @pytest.mark.skipif(PY314, reason="there must be a loop from 3.14 on")
    def test_a_coroutine_follows_a_future(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.set_result(1)
        assert loop.run_until_complete(kit.gather(future, give(2))) == [1, 2]

    def test_what_is_done_already(self, kit: Kit) -> None:
        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            future.set_result(1)
            outer = kit.gather(future)
            assert outer.done() is PY312
            assert await outer == [1]

        kit.run(main())

    def test_turns(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        """One turn for a step, one for the callback, one for who waits."""
        futures = [loop.create_future() for _ in range(2)]
        outer = kit.gather(*futures)
        futures[0].set_result(1)
        turn(loop)
        futures[1].set_result(2)
        assert not outer.done()
        turn(loop)
        assert outer.result() == [1, 2]

    def test_nobody_asks_for_the_exception(
        self, kit: Kit, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        future = loop.create_future()
        outer = kit.gather(future)
        future.set_exception(KeyError())
        turn(loop, 2)
        del outer, future
        gc.collect()
        assert [report["message"] for report in reports] == [
            "_GatheringFuture exception was never retrieved"
        ]

    def test_later_failures_count_as_seen(
        self, kit: Kit, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        async def main() -> None:
            with pytest.raises(KeyError):
                await kit.gather(fail(KeyError()), fail(OSError(), 1))

        loop.run_until_complete(main())
        turn(loop, 4)
        gc.collect()
        assert reports == []

    def test_children_that_nobody_else_knows(
        self, kit: Kit, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        async def main() -> None:
            kit.gather(asyncio.get_running_loop().create_future(), give(1, 1))

        loop.run_until_complete(main())
        gc.collect()
        turn(loop, 3)
        gc.collect()
        assert reports == []

    def test_children_of_other_kinds(self, kit: Kit) -> None:
        """Python's own Future, subclasses, tasks of a factory: all are told."""

        class Future(asyncio.futures._PyFuture):  # type: ignore[name-defined,misc]
            pass

        async def main() -> None:
            loop = asyncio.get_running_loop()
            python, failing = Future(loop=loop), Future(loop=loop)
            cancelled = asyncio.tasks._PyTask(give(1), loop=loop)  # type: ignore[attr-defined]
            loop.call_soon(python.set_result, 1)
            failing.set_exception(KeyError("p"))
            cancelled.cancel()
            found = await kit.gather(python, failing, cancelled, give(4), return_exceptions=True)
            assert found[0] == 1
            assert isinstance(found[1], KeyError)
            assert isinstance(found[2], asyncio.CancelledError)
            assert found[3] == 4

        kit.run(main())

    def test_task_factory(self, kit: Kit) -> None:
        class Task(asyncio.Task[Any]):
            pass

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(lambda loop, coro, **kw: Task(coro, loop=loop, **kw))
            outer = kit.gather(give(1), give(2))
            assert [type(child) for child in outer._children] == [Task, Task]
            assert await outer == [1, 2]
            assert type(kit.create_task(give(1))) is Task

        kit.run(main())

    def test_a_replaced_create_task(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        made = []
        kept = loop.create_task

        def create_task(coro: Any, **keywords: Any) -> Any:
            made.append(coro)
            return kept(coro, **keywords)

        loop.create_task = create_task  # type: ignore[method-assign]

        async def main() -> None:
            await kit.gather(give(1), give(2))
            await kit.create_task(give(3))
            await kit.shield(give(4))

        loop.run_until_complete(main())
        assert len(made) == 4 + 1

    @pytest.mark.skipif(not PY312, reason="from 3.12 on")
    def test_eager_tasks(self, kit: Kit) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            outer = kit.gather(give(1), give(2))
            assert outer.done()
            assert await outer == [1, 2]
            assert await kit.gather(give(1), give(2, 2)) == [1, 2]
            with pytest.raises(KeyError):
                await kit.gather(fail(KeyError()), give(1, 1))

        kit.run(main())

    def test_debug(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_debug(True)

        async def main() -> None:
            outer = kit.gather(give(1), give(2, 1))
            assert "created at" in repr(outer)
            assert await outer == [1, 2]
            with pytest.raises(KeyError):
                await kit.gather(fail(KeyError()))

        loop.run_until_complete(main())

    def test_no_task_is_current_where_children_die(self, kit: Kit) -> None:
        seen = []

        class Look:
            def __del__(self) -> None:
                seen.append(asyncio.current_task())

        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            outer = kit.gather(future, fail(KeyError()), return_exceptions=False)
            with pytest.raises(KeyError):
                await outer
            del outer
            future.set_result(Look())
            del future
            await asyncio.sleep(0)

        kit.run(main())
        assert seen == [None]

    def test_callbacks_look_like_callbacks(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        outer = kit.gather(future)
        [(callback, context)] = future._callbacks
        assert callable(callback)
        assert isinstance(context, contextvars.Context)
        assert future.remove_done_callback(callback) == 1
        assert future._callbacks is None or future._callbacks == []
        future.set_result(1)
        turn(loop, 2)
        assert not outer.done()
        callback(future)
        assert outer.result() == [1]

    def test_a_base_method_completes_a_child(
        self, kit: Kit, loop: asyncio.AbstractEventLoop
    ) -> None:
        future = loop.create_future()
        outer = kit.gather(future)
        asyncio.Future.set_result(future, 1)
        turn(loop)
        assert outer.result() == [1]

    def test_order_among_callbacks(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        log: list[Any] = []
        future = loop.create_future()
        future.add_done_callback(lambda _: log.append(("before", outer.done())))
        outer = kit.gather(future)
        future.add_done_callback(lambda _: log.append(("after", outer.done())))
        future.set_result(1)
        turn(loop)
        assert log == [("before", False), ("after", True)]

    def test_nothing_leaks(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        class Value:
            pass

        references = []

        async def main() -> None:
            for _ in range(3):
                value = Value()
                outer = kit.gather(give(value), give(value, 2))
                references.extend([weakref.ref(value), weakref.ref(outer)])
                references.extend(weakref.ref(child) for child in outer._children)
                await outer

        gc.disable()
        try:
            loop.run_until_complete(main())
            turn(loop, 2)
            assert [reference() for reference in references] == [None] * len(references)
        finally:
            gc.enable()

    def test_a_pending_one_is_collected(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        outer = kit.gather(future)
        references = [weakref.ref(future), weakref.ref(outer)]
        del future, outer
        gc.collect()
        assert [reference() for reference in references] == [None, None]


class TestHiddenTasks:
    """A task that has not begun is hidden from the collector while its loop turns."""

    def test_one_that_is_done_and_held_is_collected(self, kit: Kit) -> None:
        async def main() -> None:
            task = kit.create_task(give([]))
            task.me = task
            reference = weakref.ref(task)
            await asyncio.sleep(0)
            assert task.done()
            del task
            gc.collect()
            assert reference() is None

        kit.run(main())

    def test_one_that_waits_is_collected(self, kit: Kit, reports: list[dict[str, Any]]) -> None:
        async def wait() -> None:
            await asyncio.get_running_loop().create_future()

        async def main() -> None:
            task = kit.create_task(wait())
            reference = weakref.ref(task)
            await asyncio.sleep(0)
            del task
            collect(reports)
            assert reference() is None

        kit.run(main())
        # asyncio of 3.14 lists the task that the report holds, so that more reports may follow.
        assert reports[0]["message"] == "Task was destroyed but it is pending!"

    def test_a_loop_that_is_left_behind(self, kit: Kit, reports: list[dict[str, Any]]) -> None:
        loop = kit.new_event_loop()

        async def stop() -> None:
            outer = kit.gather(give(1), give(2))
            outer.me = outer
            references.extend([weakref.ref(outer), *map(weakref.ref, outer._children)])
            asyncio.get_running_loop().stop()

        references: list[Any] = []
        kept = loop.create_task(stop())
        loop.call_soon(loop.stop)
        loop.run_forever()
        references.append(weakref.ref(kept))
        assert [gc.is_tracked(reference()) for reference in references] == [True] * 4
        turn(loop, 3)
        loop.close()
        del kept, loop
        gc.collect()
        assert [reference() for reference in references] == [None] * 4

    def test_closed_before_they_begin(self, kit: Kit, reports: list[dict[str, Any]]) -> None:
        loop = kit.new_event_loop()
        coroutine = give(1)
        task = loop.create_task(coroutine)
        loop.close()
        task.me = task
        reference = weakref.ref(task)
        del task
        coroutine.close()
        del coroutine
        collect(reports)
        assert reference() is None


class TestShield:
    def test_result_and_failure(self, kit: Kit) -> None:
        async def main() -> None:
            assert await kit.shield(give(1, 2)) == 1
            with pytest.raises(KeyError):
                await kit.shield(fail(KeyError(), 1))
            done = asyncio.get_running_loop().create_future()
            done.set_result(1)
            assert kit.shield(done) is done

        kit.run(main())

    def test_cancelling_does_not_reach_what_is_inside(self, kit: Kit) -> None:
        async def main() -> None:
            inner = kit.ensure_future(give(1, 5))
            outer = kit.shield(inner)
            await asyncio.sleep(0)
            outer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await outer
            assert not inner.done()
            await asyncio.sleep(0)
            assert not inner._callbacks
            assert await inner == 1

        kit.run(main())

    def test_cancelling_what_is_inside(self, kit: Kit) -> None:
        async def main() -> None:
            inner = kit.ensure_future(give(1, 5))
            outer = kit.shield(inner)
            await asyncio.sleep(0)
            inner.cancel()
            with pytest.raises(asyncio.CancelledError):
                await outer
            assert outer.cancelled()

        kit.run(main())

    def test_a_failure_in_the_turn_of_the_cancellation(
        self, kit: Kit, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        inner = loop.create_future()
        outer = kit.shield(inner)
        inner.set_exception(KeyError())
        outer.cancel()
        turn(loop, 2)
        del inner, outer
        gc.collect()
        assert len(reports) == int(PY314)

    def test_somebody_completes_the_outer_one(
        self, kit: Kit, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        inner = loop.create_future()
        outer = kit.shield(inner)
        inner.set_result(1)
        outer.set_result(2)
        turn(loop, 2)
        assert [type(report["exception"]) for report in reports] == [asyncio.InvalidStateError]
        assert reports[0]["message"].startswith("Exception in callback")
        assert "handle" in reports[0]

    def test_misuse(self, kit: Kit) -> None:
        async def main() -> None:
            with pytest.raises(TypeError):
                kit.shield()
            with pytest.raises(TypeError):
                kit.shield(1)

        kit.run(main())

    def test_nothing_leaks(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        references = []

        async def main() -> None:
            inner = kit.ensure_future(give(1, 2))
            outer = kit.shield(inner)
            references.extend([weakref.ref(inner), weakref.ref(outer)])
            await outer

        loop.run_until_complete(main())
        gc.collect()
        assert [reference() for reference in references] == [None, None]


class TestEnsuring:
    def test_kinds(self, kit: Kit) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            future.set_result(1)
            assert kit.ensure_future(future) is future
            assert kit.ensure_future(future, loop=loop) is future
            task = kit.ensure_future(give(2), loop=loop)
            assert isinstance(task, asyncio.Task)
            assert kit.ensure_future(coro_or_future=task) is task
            assert await task == 2
            assert await kit.ensure_future(Later()) == "later"

        kit.run(main())

    def test_misuse(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        assert raised(kit.ensure_future, 1) == raised(stock().ensure_future, 1)
        future = loop.create_future()
        other = kit.new_event_loop()
        expected = raised(stock().ensure_future, future, loop=other)
        assert raised(kit.ensure_future, future, loop=other) == expected
        other.close()
        with pytest.raises(TypeError):
            kit.ensure_future(future, loop)
        coroutine = give(1)
        with pytest.raises(RuntimeError, match="closed"):
            kit.ensure_future(coroutine, loop=other)
        assert coroutine.cr_frame is None

    def test_create_task(self, kit: Kit) -> None:
        async def main() -> None:
            context = contextvars.copy_context()
            task = kit.create_task(give(1), name="named", context=context)
            assert task.get_name() == "named"
            if PY312:
                assert task.get_context() is context
            assert await task == 1
            numbers = [int(kit.create_task(give(1)).get_name()[5:]) for _ in range(2)]
            assert numbers[1] == numbers[0] + 1
            task = kit.create_task(give(1), name=7)
            assert task.get_name() == "7"
            later = int(kit.create_task(give(1)).get_name()[5:])
            assert later == numbers[1] + (1 if PY313 else 2)

        kit.run(main())

    def test_create_task_misuse(self, kit: Kit) -> None:
        coroutine = give(1)
        with pytest.raises(RuntimeError, match="no running event loop"):
            kit.create_task(coroutine)
        coroutine.close()

        async def main() -> None:
            with pytest.raises(TypeError):
                kit.create_task(1)
            with pytest.raises(TypeError):
                kit.create_task()
            coroutine = give(1)
            with pytest.raises(TypeError):
                kit.create_task(coroutine, colour="red")
            coroutine.close()

        kit.run(main())

    def test_current_task(self, kit: Kit, loop: asyncio.AbstractEventLoop) -> None:
        seen = []

        async def main() -> None:
            assert kit.current_task() is task
            assert kit.current_task(loop) is task
            assert kit.current_task(loop=None) is task
            loop.call_soon(lambda: seen.append(kit.current_task()))
            child = kit.create_task(give(1))
            await asyncio.sleep(0)
            assert child.done()
            assert kit.current_task() is task

        task = loop.create_task(main())
        loop.run_until_complete(task)
        assert seen == [None]
        assert kit.current_task(loop) is None
        with pytest.raises(RuntimeError, match="no running event loop"):
            kit.current_task()


@pytest.mark.skipif(not PY314, reason="call graphs came with 3.14")
class TestCallGraph:
    def test_gather(self, kit: Kit) -> None:
        async def main() -> None:
            task = asyncio.current_task()
            future = asyncio.get_running_loop().create_future()
            outer = kit.gather(future, give(1, 3))
            for child in outer._children:
                assert child._asyncio_awaited_by == {task}
            future.set_exception(KeyError())
            with pytest.raises(KeyError):
                await outer
            for child in outer._children:
                assert child._asyncio_awaited_by is None

        kit.run(main())

    def test_shield(self, kit: Kit) -> None:
        async def main() -> None:
            task = asyncio.current_task()
            inner = asyncio.get_running_loop().create_future()
            outer = kit.shield(inner)
            assert inner._asyncio_awaited_by == {task}
            outer.cancel()
            await asyncio.sleep(0)
            assert inner._asyncio_awaited_by is None
            outer = kit.shield(inner)
            inner.set_result(1)
            await outer
            assert inner._asyncio_awaited_by is None

        kit.run(main())


# -- the same on asyncio and on Weft ---------------------------------------------------------------

CHILD = st.tuples(
    st.sampled_from(["return", "raise", "cancelled", "stubborn", "future"]), st.integers(0, 3)
)
ACTION = st.tuples(
    st.integers(0, 6), st.sampled_from(["cancel", "child", "set", "fail"]), st.integers(0, 4)
)
PROGRAM = st.tuples(
    st.lists(CHILD, min_size=1, max_size=5),
    st.lists(st.integers(0, 4), max_size=3),
    st.booleans(),
    st.booleans(),
    st.lists(ACTION, max_size=5),
)


async def child(kind: str, turns: int) -> Any:
    try:
        await give(None, turns)
    except asyncio.CancelledError:
        if kind != "stubborn":
            raise
    if kind == "raise":
        raise KeyError(turns)
    if kind == "cancelled":
        raise asyncio.CancelledError(turns)
    return turns


def state(future: Any) -> str:
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    exception = future.exception()
    return repr(future.result()) if exception is None else repr(exception)


def trace(kit: Kit, program: Any) -> list[Any]:
    """What a gather of such children does, turn by turn."""
    specs, again, return_exceptions, shielded, actions = program
    loop = kit.new_event_loop()
    log: list[Any] = []
    loop.set_exception_handler(lambda loop, context: log.append(context["message"][:20]))
    made: list[Any] = []

    async def start() -> Any:
        arguments = [
            loop.create_future() if kind == "future" else child(kind, turns)
            for kind, turns in specs
        ]
        arguments += [arguments[index % len(specs)] for index in again]
        if shielded:
            arguments = [kit.shield(argument) for argument in dict.fromkeys(arguments)]
        outer = kit.gather(*arguments, return_exceptions=return_exceptions)
        made.append(outer)
        return await outer

    task = loop.create_task(start())
    for number in range(14):
        for when, what, which in actions:
            if when != number or not made:
                continue
            one = made[0]._children[which % len(made[0]._children)]
            if what == "cancel":
                log.append(task.cancel())
            elif what == "child":
                log.append(one.cancel("child"))
            elif not isinstance(one, asyncio.Task) and not one.done():
                one.set_result(0) if what == "set" else one.set_exception(OSError())
        turn(loop)
        log.append((number, state(task)))
        if made:
            log.append([state(one) for one in made[0]._children])
            log.append((state(made[0]), made[0]._cancel_requested))
    for left in asyncio.all_tasks(loop):
        left.cancel()
    turn(loop, 5)
    del task
    made.clear()
    gc.collect()
    loop.close()
    return log


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(PROGRAM)
@pytest.mark.slow
def test_twins(program: Any) -> None:
    expected = trace(stock(), program)
    assert trace(native("weft"), program) == expected
    assert trace(native("asyncio"), program) == expected
