"""TaskGroup.

Each test runs with asyncio's on asyncio's loop, which proves the test, and with Weft's on both
loops.
"""

# What raises here is the end of a block, with what happens inside it.
# ruff: noqa: PT012

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import weft
from backends import PY312, PY315
from hypothesis import given, settings
from hypothesis import strategies as st
from places import OWN, PLACES, STOCK, Place, name_of, shape, turns
from turns import raised, turn


@pytest.fixture(params=PLACES, ids=name_of)
def place(request: pytest.FixtureRequest) -> Place:
    return request.param


@pytest.fixture
def loop(place: Place) -> Iterator[asyncio.AbstractEventLoop]:
    loop = place.new_event_loop()
    yield loop
    loop.close()


async def give(value: Any, after: int = 0) -> Any:
    await turns(after)
    return value


async def fail(error: BaseException, after: int = 0) -> None:
    await turns(after)
    raise error


# -- the class -------------------------------------------------------------------------------------


def test_is_what_asyncio_makes(place: Place) -> None:
    assert isinstance(place.classes.TaskGroup(), asyncio.TaskGroup)
    assert isinstance(asyncio.TaskGroup(), weft.TaskGroup)
    assert weft.TaskGroup.__module__ == "weft"
    assert raised(place.classes.TaskGroup, 1)[0] is TypeError
    assert raised(place.classes.TaskGroup, loop=None)[0] is TypeError


def test_representation(place: Place) -> None:
    async def main() -> list[str]:
        log: list[str] = []
        group = place.classes.TaskGroup()
        log.append(repr(group))
        with pytest.raises(BaseExceptionGroup):
            async with group:
                log.append(repr(group))
                group.create_task(fail(KeyError("k")))
                group.create_task(turns(20))
                log.append(repr(group))
                try:
                    await turns(20)
                finally:
                    log.append(repr(group))
        log.append(repr(group))
        return log

    assert place.run(main()) == STOCK.run(main())


def test_results(place: Place) -> None:
    async def main() -> None:
        async with place.classes.TaskGroup() as group:
            assert isinstance(group, place.classes.TaskGroup)
            tasks = [group.create_task(give(number, number % 3)) for number in range(10)]
            early = group.create_task(give("early"))
            assert await early == "early"
            assert all(isinstance(task, asyncio.Task) for task in tasks)
        assert [task.result() for task in tasks] == list(range(10))
        async with place.classes.TaskGroup() as group:
            pass

    place.run(main())


def test_the_next_turn_after_the_last_child(place: Place) -> None:
    async def main(count: int, after: int) -> list[Any]:
        log: list[Any] = []

        async def watch() -> None:
            for number in range(12):
                log.append(number)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        async with place.classes.TaskGroup() as group:
            for number in range(count):
                group.create_task(give(number, after))
            log.append("body ends")
        log.append("left")
        await watching
        return log

    for count in range(3):
        for after in range(4):
            assert place.run(main(count, after)) == STOCK.run(main(count, after))


def test_arguments_of_create_task(place: Place) -> None:
    variable = contextvars.ContextVar("variable", default="outer")

    async def read() -> str:
        return variable.get()

    async def main() -> None:
        context = contextvars.copy_context()
        context.run(variable.set, "inner")
        async with place.classes.TaskGroup() as group:
            assert group.create_task(give(1), name="a name").get_name() == "a name"
            assert group.create_task(give(1), name=5).get_name() == "5"
            unnamed = group.create_task(coro=give(1), name=None, context=None)
            assert unnamed.get_name().startswith("Task-")
            inner = group.create_task(read(), context=context)
            outer = group.create_task(read())
            assert raised(group.create_task)[0] is TypeError
            for arguments, keywords in (((1,), {}), ((), {"wrong": 1})):
                coro = give(1)
                assert raised(group.create_task, coro, *arguments, **keywords)[0] is TypeError
                coro.close()
            with pytest.raises(TypeError, match="a coroutine was expected"):
                group.create_task(5)
        assert inner.result() == "inner"
        assert outer.result() == "outer"

    place.run(main())


def test_numbers_of_tasks(place: Place) -> None:
    """A named task uses a number up or not, as this version of asyncio has it."""

    async def main() -> int:
        async with place.classes.TaskGroup() as group:
            first = group.create_task(give(1))
            group.create_task(give(1), name="named")
            last = group.create_task(give(1))
        return int(last.get_name()[5:]) - int(first.get_name()[5:])

    assert place.run(main()) == STOCK.run(main())


def test_refused(place: Place) -> None:
    async def refused(group: Any) -> tuple[Any, ...]:
        coro = give(1)
        found = raised(group.create_task, coro)
        closed = inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
        coro.close()
        return (*found, closed)

    async def main() -> list[Any]:
        log: list[Any] = []
        group = place.classes.TaskGroup()
        log.append(await refused(group))
        async with group:
            with pytest.raises(RuntimeError, match="has already been entered"):
                await group.__aenter__()
        log.append(await refused(group))
        group = place.classes.TaskGroup()
        with pytest.raises(ExceptionGroup):
            async with group:
                group.create_task(fail(KeyError("k")))
                try:
                    await turns(10)
                finally:
                    log.append(await refused(group))
        return log

    assert place.run(main()) == STOCK.run(main())


def test_outside_a_task(place: Place, loop: asyncio.AbstractEventLoop) -> None:
    group = place.classes.TaskGroup()
    entering = group.__aenter__()
    assert raised(entering.send, None) == (RuntimeError, "no running event loop")
    found = []
    loop.call_soon(lambda: found.append(raised(place.classes.TaskGroup().__aenter__().send, None)))
    turn(loop)
    assert found == [(RuntimeError, "TaskGroup <TaskGroup> cannot determine the parent task")]


# -- what goes wrong -------------------------------------------------------------------------------


def test_children_that_fail(place: Place) -> None:
    async def main(outer: BaseException | None) -> list[Any]:
        log: list[Any] = []
        task = asyncio.current_task()
        assert task is not None

        async def sibling() -> None:
            try:
                await turns(50)
            except asyncio.CancelledError:
                log.append("sibling cancelled")
                raise

        try:
            async with place.classes.TaskGroup() as group:
                group.create_task(sibling())
                group.create_task(fail(KeyError("k"), 1))
                group.create_task(fail(ValueError("v"), 1))
                if outer is not None:
                    raise outer
                await turns(50)
                log.append("not reached")
        except BaseException as error:
            log.append(shape(error))
        log.append(task.cancelling())
        await turns(3)
        return log

    for outer in (None, ZeroDivisionError("z"), KeyboardInterrupt(), asyncio.CancelledError("c")):
        assert place.run(main(outer)) == STOCK.run(main(outer))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_errors_that_end_the_run(
    place: Place, loop: asyncio.AbstractEventLoop, error: type[BaseException]
) -> None:
    async def main() -> Any:
        async with place.classes.TaskGroup() as group:
            group.create_task(turns(10))
            group.create_task(fail(error("e")))
            await turns(10)

    task = loop.create_task(main())
    # Once by the child, and once by the group.
    for _ in range(2):
        with pytest.raises(error, match="e"):
            loop.run_until_complete(task)
    assert type(task.exception()) is error


def test_raised_while_another_is_handled(place: Place) -> None:
    async def main() -> list[Any]:
        log = []
        try:
            raise ZeroDivisionError("handled")
        except ZeroDivisionError:
            try:
                async with place.classes.TaskGroup() as group:
                    group.create_task(fail(KeyError("k")))
            except ExceptionGroup as error:
                log.append(shape(error))
            try:
                async with place.classes.TaskGroup() as group:
                    group.create_task(fail(KeyError("k")))
                    raise IndexError("i")
            except ExceptionGroup as error:
                log.append(shape(error))
        return log

    assert place.run(main()) == STOCK.run(main())


@pytest.mark.slow
def test_cancelled_at_every_turn(place: Place) -> None:
    async def main(classes: Any, when: int, again: int, stubborn: bool, error: bool) -> list[Any]:
        log: list[Any] = []

        async def child(number: int) -> None:
            try:
                await turns(4)
                if error and number == 1:
                    raise KeyError("k")
            except asyncio.CancelledError:
                await turns(2)
                log.append("child cancelled")
                if not stubborn:
                    raise

        async def parent() -> None:
            try:
                async with classes.TaskGroup() as group:
                    for number in range(3):
                        group.create_task(child(number))
                    await turns(2)
            except BaseException as caught:
                log.append(shape(caught))
                raise
            finally:
                task = asyncio.current_task()
                assert task is not None
                log.append(task.cancelling())

        task = asyncio.create_task(parent())
        for now in range(20):
            if now in (when, again):
                log.append(task.cancel("message"))
            await asyncio.sleep(0)
            log.append((now, task.done()))
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        log.append(shape(outcome))
        log.append(task.cancelling())
        return log

    for when in range(10):
        for again in (when, when + 1, when + 3):
            for stubborn in (False, True):
                for error in (False, True):
                    arguments = (when, again, stubborn, error)
                    expected = STOCK.run(main(asyncio, *arguments))
                    assert place.run(main(place.classes, *arguments)) == expected


def test_subclasses_of_cancelled_error(place: Place) -> None:
    class Special(asyncio.CancelledError):
        pass

    async def main() -> Any:
        try:
            async with place.classes.TaskGroup() as group:
                group.create_task(turns(5))
                raise Special
        except BaseException as error:
            return shape(error)

    assert place.run(main()) == STOCK.run(main())


def test_a_parent_that_is_gone(place: Place, loop: asyncio.AbstractEventLoop) -> None:
    """The block is left by force while a child still runs, which then fails."""
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    async def main() -> Any:
        group = place.classes.TaskGroup()

        async def parent() -> None:
            await group.__aenter__()
            group.create_task(fail(KeyError("k"), 3))

        await asyncio.create_task(parent())
        await turns(10)
        return group

    group = loop.run_until_complete(main())
    assert len(group._errors) == 1
    (report,) = reports
    assert "has errored out but its parent task" in report["message"]
    assert isinstance(report["exception"], KeyError)
    assert isinstance(report["task"], asyncio.Task)


def test_a_hook_that_fails_is_reported(place: Place, loop: asyncio.AbstractEventLoop) -> None:
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    class Broken(place.classes.TaskGroup):  # type: ignore[misc,name-defined]
        def _is_base_error(self, exc: BaseException) -> bool:
            raise ZeroDivisionError

    async def main() -> None:
        async with Broken() as group:
            group.create_task(fail(KeyError("k")))
            await turns(3)
            group._errors.clear()

    loop.run_until_complete(main())
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
    assert "_on_task_done" in reports[0]["message"]


def test_current_task_in_what_a_cancellation_calls(place: Place) -> None:
    found: list[Any] = []

    class Watched(asyncio.Future[None]):
        def cancel(self, msg: Any = None) -> bool:
            found.append(asyncio.current_task())
            return super().cancel(msg)

    async def wait() -> None:
        await Watched()

    async def main() -> None:
        with pytest.raises(ExceptionGroup):
            async with place.classes.TaskGroup() as group:
                group.create_task(wait())
                group.create_task(fail(KeyError("k"), 1))

    place.run(main())
    assert found == [None]


# -- tasks of other kinds --------------------------------------------------------------------------


def test_eager_tasks(place: Place) -> None:
    if not PY312:
        pytest.skip("eager tasks came with Python 3.12")

    async def main() -> list[Any]:
        log: list[Any] = []
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with place.classes.TaskGroup() as group:
            done = group.create_task(give(1))
            log.append((done.done(), len(group._tasks)))
            later = group.create_task(give(2, 2))
            log.append((later.done(), len(group._tasks)))
        log.append((done.result(), later.result()))
        try:
            async with place.classes.TaskGroup() as group:
                group.create_task(fail(KeyError("k")))
                log.append("goes on")
                coro = give(1, 2)
                try:
                    group.create_task(coro)
                except RuntimeError as error:
                    coro.close()
                    log.append(str(error))
        except BaseException as error:
            log.append(shape(error))
        own = asyncio.current_task()
        assert own is not None
        log.append(own.cancelling())
        return log

    def outcome(place: Place) -> Any:
        log: list[Any] = []
        loop = place.new_event_loop()
        task = loop.create_task(main())
        turn(loop, 20)
        # Up to 3.12.8 and 3.13.1 a group cancels its parent too early.
        log.append("cancelled" if task.cancelled() else task.result())
        loop.close()
        return log

    assert outcome(place) == outcome(STOCK)


def test_a_task_factory(place: Place) -> None:
    made: list[Any] = []

    def factory(loop: Any, coro: Any, **keywords: Any) -> Any:
        made.append(keywords)
        return asyncio.Task(coro, loop=loop, **keywords)

    async def main() -> list[Any]:
        made.clear()
        asyncio.get_running_loop().set_task_factory(factory)
        async with place.classes.TaskGroup() as group:
            first = group.create_task(give(1), name="a name")
            group.create_task(give(1))
        assert first.get_name() == "a name"
        return [sorted(keywords) for keywords in made]

    assert place.run(main()) == STOCK.run(main())


def test_a_loop_with_its_own_create_task() -> None:
    made = []

    class Own(weft.Loop):
        def create_task(self, coro: Any, **keywords: Any) -> Any:
            made.append(coro.__name__)
            return super().create_task(coro, **keywords)

    async def main() -> None:
        async with weft.TaskGroup() as group:
            group.create_task(give(1))

    with asyncio.Runner(loop_factory=Own) as runner:
        runner.run(main())
    assert "give" in made


def test_debug_mode(place: Place) -> None:
    async def main() -> None:
        async with place.classes.TaskGroup() as group:
            task = group.create_task(give(1, 2))
        assert task.result() == 1
        with pytest.raises(ExceptionGroup):
            async with place.classes.TaskGroup() as group:
                group.create_task(give(1, 2))
                group.create_task(fail(KeyError("k")))

    place.run(main(), debug=True)


# -- subclasses, and the attributes that they use --------------------------------------------------


def test_hooks_of_subclasses(place: Place) -> None:
    log: list[str] = []

    class Logged(place.classes.TaskGroup):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.made = 0

        def create_task(self, coro: Any, **keywords: Any) -> Any:
            self.made += 1
            return super().create_task(coro, **keywords)

        def _on_task_done(self, task: Any) -> None:
            log.append("done")
            super()._on_task_done(task)

        def _abort(self) -> None:
            log.append("abort")
            super()._abort()

        def _is_base_error(self, exc: BaseException) -> bool:
            log.append("is base error")
            return super()._is_base_error(exc)

    async def main() -> list[str]:
        log.clear()
        group = Logged()
        with pytest.raises(ExceptionGroup):
            async with group:
                group.create_task(fail(KeyError("k")))
                group.create_task(turns(10))
        assert group.made == 2
        return list(log)

    assert place.run(main()) == STOCK.run(main())


def test_attributes(place: Place) -> None:
    async def main() -> None:
        group = place.classes.TaskGroup()
        assert (group._entered, group._exiting, group._aborting) == (False, False, False)
        assert (group._loop, group._parent_task, group._base_error) == (None, None, None)
        assert (group._tasks, group._errors) == (set(), [])
        assert group._on_completed_fut is None
        assert not group._parent_cancel_requested
        async with group:
            assert group._entered
            assert group._loop is asyncio.get_running_loop()
            assert group._parent_task is asyncio.current_task()
            task = group.create_task(turns(1))
            assert group._tasks == {task}
            await turns(4)
            assert group._tasks == set()
        assert group._exiting

    place.run(main())


def test_a_task_taken_out_of_the_group(place: Place) -> None:
    async def main() -> None:
        async with place.classes.TaskGroup() as group:
            task = group.create_task(fail(KeyError("k"), 1))
            assert task.remove_done_callback(group._on_task_done) == 1
            group._tasks.discard(task)
        with pytest.raises(KeyError):
            await task

    place.run(main())


def test_shown_as_a_callback(place: Place) -> None:
    async def main() -> None:
        async with place.classes.TaskGroup() as group:
            task = group.create_task(turns(1))
            assert "cb=[TaskGroup._on_task_done()" in repr(task)

    place.run(main())


def test_aborted_by_hand(place: Place) -> None:
    async def main() -> None:
        async with place.classes.TaskGroup() as group:
            task = group.create_task(turns(100))
            await turns(1)
            group._abort()
        assert task.cancelled()

    place.run(main())


# -- what is left behind ---------------------------------------------------------------------------


def test_nothing_is_kept(place: Place) -> None:
    class Value:
        pass

    async def main() -> None:
        kept = []

        async def child() -> Value:
            value = Value()
            kept.append(weakref.ref(value))
            await turns(2)
            return value

        gc.disable()
        try:
            async with place.classes.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(child())
            kept.append(weakref.ref(group))
            del group
            assert [reference() for reference in kept] == [None] * 4
        finally:
            gc.enable()

    place.run(main())


def test_a_group_that_is_never_left(place: Place) -> None:
    async def main() -> weakref.ref[Any]:
        group = place.classes.TaskGroup()
        await group.__aenter__()
        task = group.create_task(give(1, 2))
        group.task = task
        await task
        return weakref.ref(group)

    kept = place.run(main())
    gc.collect()
    assert kept() is None


def test_pending_children_of_a_closed_loop(place: Place) -> None:
    loop = place.new_event_loop()
    kept: list[Any] = []

    async def main() -> None:
        async with place.classes.TaskGroup() as group:
            kept.append(weakref.ref(group))
            task = group.create_task(asyncio.Event().wait())
            task._log_destroy_pending = False

    task = loop.create_task(main())
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    turn(loop, 3)
    loop.close()
    del task
    gc.collect()
    assert kept[0]() is None


def test_closed_while_it_waits(place: Place, loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        group = place.classes.TaskGroup()
        await group.__aenter__()
        child = group.create_task(give(1, 5))
        leaving = group.__aexit__(None, None, None)
        leaving.send(None)
        leaving.close()
        assert not child.done()
        await child

    loop.run_until_complete(main())


# -- cancel() --------------------------------------------------------------------------------------

cancellable = pytest.mark.skipif(not PY315, reason="TaskGroup.cancel() came with 3.15")


@cancellable
def test_cancel_ends_children_and_block(place: Place) -> None:
    async def main() -> None:
        reached: list[str] = []
        task = asyncio.current_task()
        assert task is not None
        async with place.classes.TaskGroup() as group:
            child = group.create_task(asyncio.Event().wait())
            await turns(2)
            assert group.cancel() is None
            assert "cancelling" in repr(group)
            group.cancel()
            await turns(1)
            reached.append("the end of the block")
        assert reached == []
        assert child.cancelled()
        assert task.cancelling() == 0
        group.cancel()
        await turns(2)

    place.run(main())


@cancellable
def test_cancel_from_a_child(place: Place) -> None:
    async def main() -> None:
        async with place.classes.TaskGroup() as group:
            waiting = group.create_task(asyncio.Event().wait())

            async def child() -> None:
                group.cancel()
                await turns(1)

            last = group.create_task(child())
        assert waiting.cancelled()
        assert last.cancelled()

    place.run(main())


@cancellable
def test_cancel_from_the_first_step_of_an_eager_child(place: Place) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with place.classes.TaskGroup() as group:

            async def child() -> None:
                group.cancel()
                await asyncio.Event().wait()

            task = group.create_task(child())
            await asyncio.Event().wait()
        assert task.cancelled()

    place.run(main())


@cancellable
def test_cancel_before_it_is_entered(place: Place) -> None:
    class Counting(place.classes.TaskGroup):  # type: ignore[misc]
        cancelled = 0

        def cancel(self) -> None:
            self.cancelled += 1
            super().cancel()

    async def main(group: Any) -> None:
        group.cancel()
        reached: list[str] = []
        async with group:
            reached.append("the block")
            await turns(1)
            reached.append("its end")
        assert reached == ["the block"]

    place.run(main(place.classes.TaskGroup()))
    counting = Counting()
    place.run(main(counting))
    assert counting.cancelled == 2


@cancellable
def test_cancel_leaves_what_is_not_its_own(place: Place) -> None:
    """A cancellation from outside, and what children raise."""

    async def outside() -> None:
        async with place.classes.TaskGroup() as group:
            group.create_task(turns(3))
            group.cancel()
            task = asyncio.current_task()
            assert task is not None
            task.cancel("from outside")

    async def stubborn(group: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError("k") from None

    async def inside() -> None:
        async with place.classes.TaskGroup() as group:
            group.create_task(stubborn(group))
            await turns(1)
            group.cancel()

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(each()) for each in (outside, inside)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        return [shape(outcome) for outcome in outcomes] + [task.cancelling() for task in tasks]

    found = place.run(main())
    assert [outcome[0] for outcome in found[:2]] == ["CancelledError", "ExceptionGroup"]
    # `outside` and `inside` belong to the place: asyncio's are the next test's affair.
    assert found[2:] == [1, 0]


def test_a_generator_that_is_closed_inside_a_block(place: Place) -> None:
    """From 3.15 on `aclose()` knows its own exception again."""

    async def numbers(failing: bool) -> Any:
        async with place.classes.TaskGroup() as group:
            if failing:
                group.create_task(fail(KeyError("k")))
                await turns(1)
            yield 1

    async def main(failing: bool) -> Any:
        generator = numbers(failing)
        await anext(generator)
        try:
            await generator.aclose()
        except BaseException as error:
            return [type(each).__name__ for each in error.exceptions]  # type: ignore[attr-defined]

    assert place.run(main(False)) == (None if PY315 else ["GeneratorExit"])
    assert set(place.run(main(True))) == {"GeneratorExit", "KeyError"}


# -- the same as asyncio, whatever happens ---------------------------------------------------------

endings = st.sampled_from(["return", "raise", "cancel", "exit", *(["end"] if PY315 else [])])
children = st.recursive(
    st.tuples(
        st.just("child"),
        st.integers(0, 4),
        endings,
        st.integers(0, 2),
        st.booleans(),
    ),
    lambda inner: st.tuples(
        st.just("group"), st.lists(inner, max_size=4), st.integers(0, 4), endings
    ),
    max_leaves=8,
)
scripts = st.tuples(st.just("group"), st.lists(children, max_size=4), st.integers(0, 4), endings)
cancellations = st.lists(st.integers(0, 12), max_size=3)


def end(ending: str, here: str, group: Any) -> None:
    match ending:
        case "end" if group is not None:
            group.cancel()
        case "raise":
            raise KeyError(here)
        case "cancel":
            raise asyncio.CancelledError
        case "exit" if "." in here and len(here) > 6:
            raise ValueError(here)


async def act(
    classes: Any, script: Any, log: Callable[..., None], here: str, parent: Any = None
) -> None:
    try:
        match script:
            case "child", after, ending, cleanup, stubborn:
                try:
                    await turns(after)
                except asyncio.CancelledError:
                    log(here, "cancelled")
                    await turns(cleanup)
                    if not stubborn:
                        raise
                end(ending, here, parent)
            case "group", inner, after, ending:
                async with classes.TaskGroup() as group:
                    for number, child in enumerate(inner):
                        path = f"{here}.{number}"
                        group.create_task(act(classes, child, log, path, group), name=path)
                    await turns(after)
                    end(ending, here, group)
                    await turns(1)
    except BaseException as error:
        log(here, shape(error)[:3])
        raise
    finally:
        task = asyncio.current_task()
        assert task is not None
        log(here, "ends", task.cancelling())


def play(place: Place, script: Any, cancelled: list[int]) -> list[Any]:
    loop = place.new_event_loop()
    log: list[list[str]] = [[]]

    def note(*event: Any) -> None:
        log[-1].append(repr(event))

    try:
        task = loop.create_task(act(place.classes, script, note, ""))
        for now in range(200):
            if now in cancelled:
                task.cancel()
            turn(loop)
            # A group cancels its children in no particular order.
            log[-1].sort()
            log.append([])
            if task.done() and now > 12:
                break
        return [*log, task.cancelled() or shape(task.exception()), task.cancelling()]
    finally:
        loop.close()


@pytest.mark.slow
@given(scripts, cancellations)
@settings(max_examples=400, deadline=None)
def test_the_same_order_of_events(script: Any, cancelled: list[int]) -> None:
    expected = play(STOCK, script, cancelled)
    for place in OWN:
        assert play(place, script, cancelled) == expected
