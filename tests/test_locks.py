"""Lock, Event, Condition, Semaphore, BoundedSemaphore, Barrier.

Each test runs with asyncio's classes on asyncio's loop, which proves the test, and with Weft's on
both loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import inspect
import math
import pickle
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
import weft
from backends import BACKENDS, PY313
from children import python
from hypothesis import given, settings
from hypothesis import strategies as st
from turns import raised

NAMES = ["Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier"]
LOCKS = ["Lock", "Condition", "Semaphore", "BoundedSemaphore"]


@dataclass(frozen=True)
class Place:
    """Whose classes, on whose loop."""

    classes: Any
    loop: str

    def run(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return BACKENDS[self.loop]().run(coro)

    def make(self, name: str) -> Any:
        return getattr(self.classes, name)(*([2] if name == "Barrier" else []))


STOCK = Place(asyncio, "asyncio")
OWN = [Place(weft, "weft"), Place(weft, "asyncio")]


def name_of(place: Place) -> str:
    return f"{place.classes.__name__}-on-{place.loop}"


@pytest.fixture(params=[STOCK, *OWN], ids=name_of)
def place(request: pytest.FixtureRequest) -> Place:
    return request.param


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- classes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_is_what_asyncio_makes(name: str) -> None:
    own, stock = getattr(weft, name), getattr(asyncio, name)
    made = OWN[0].make(name)
    assert isinstance(made, stock)
    assert issubclass(own, stock)
    assert own.__module__ == "weft"
    assert own.__qualname__ == name


@pytest.mark.parametrize("name", NAMES)
def test_what_asyncio_made_passes(name: str) -> None:
    own, stock = getattr(weft, name), getattr(asyncio, name)

    class Older(stock):  # type: ignore[misc,valid-type]
        pass

    class Newer(own):  # type: ignore[misc,valid-type]
        pass

    made = STOCK.make(name)
    assert isinstance(made, own)
    assert issubclass(Older, own)
    assert issubclass(stock, own)
    assert not isinstance(made, Newer)
    assert not issubclass(stock, Newer)
    assert not isinstance(object(), own)
    assert not issubclass(int, own)
    with pytest.raises(TypeError):
        issubclass(5, own)  # type: ignore[arg-type]


def test_a_bounded_semaphore_is_a_semaphore() -> None:
    assert isinstance(weft.BoundedSemaphore(), weft.Semaphore)
    assert isinstance(asyncio.BoundedSemaphore(), weft.Semaphore)
    assert not isinstance(weft.Semaphore(), weft.BoundedSemaphore)
    assert not isinstance(weft.Lock(), weft.Semaphore)


@pytest.mark.parametrize("name", NAMES)
def test_joined_with_other_kinds_of_class(name: str, place: Place) -> None:
    import abc
    import typing

    base = getattr(place.classes, name)
    arguments = [2] if name == "Barrier" else []

    class WithABC(base, abc.ABC):  # type: ignore[misc,valid-type]
        @abc.abstractmethod
        def missing(self) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        WithABC(*arguments)

    class Whole(WithABC):
        def missing(self) -> None: ...

    assert isinstance(Whole(*arguments), base)

    item = typing.TypeVar("item")

    class WithGeneric(base, typing.Generic[item]):  # type: ignore[misc,valid-type]
        pass

    assert isinstance(WithGeneric[int](*arguments), base)

    @typing.runtime_checkable
    class Closing(typing.Protocol):
        def close(self) -> None: ...

    class WithProtocol(base, Closing):  # type: ignore[misc,valid-type]
        def close(self) -> None: ...

    assert isinstance(WithProtocol(*arguments), base)
    assert isinstance(WithProtocol(*arguments), Closing)
    assert not isinstance(base(*arguments), Closing)
    assert not isinstance(object(), WithProtocol)


@pytest.mark.child
def test_what_was_made_before_install() -> None:
    source = """
import abc, asyncio, weft
from asyncio import locks
class Older(asyncio.Lock): pass
made = [asyncio.Lock(), Older(), asyncio.Semaphore(), asyncio.BoundedSemaphore()]
weft.install()
assert asyncio.Lock is locks.Lock is weft.Lock
class Newer(asyncio.Lock, abc.ABC): pass
assert [isinstance(one, asyncio.Lock) for one in made] == [True, True, False, False]
assert [isinstance(one, asyncio.Semaphore) for one in made] == [False, False, True, True]
assert issubclass(Older, asyncio.Lock) and not issubclass(Older, Newer)
async def main():
    condition = asyncio.Condition(made[0])
    async with condition, Newer() as entered, made[1]:
        condition.notify()
asyncio.run(main())
new = asyncio.Lock()
weft.uninstall()
assert type(asyncio.Lock()) is not type(new) and isinstance(new, asyncio.Lock)
print("right")
"""
    assert python("-W", "error", "-c", source).check() == "right\n"


@pytest.mark.parametrize("name", NAMES)
def test_attributes_weak_references_and_equality(name: str, place: Place) -> None:
    made = place.make(name)
    made.extra = [made]
    assert made.__dict__["extra"] == [made]
    assert made == made and made != place.make(name)
    assert hash(made) == hash(made)
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", NAMES)
def test_construction_refuses_what_asyncio_refuses(name: str) -> None:
    own, stock = getattr(weft, name), getattr(asyncio, name)
    for arguments, keywords in [
        ((1, 2, 3), {}),
        ((), {"loop": None}),
        ((-1,), {}),
        ((), {"value": -1}),
        ((0,), {}),
        ((), {"parties": 0}),
    ]:
        expected = outcome(stock, *arguments, **keywords)
        assert outcome(own, *arguments, **keywords) == expected


def outcome(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    try:
        function(*arguments, **keywords)
    except Exception as error:
        return type(error), str(error)
    return None


@pytest.mark.parametrize("name", NAMES)
def test_signatures(name: str) -> None:
    own, stock = getattr(weft, name), getattr(asyncio, name)
    assert list(inspect.signature(own).parameters) == list(inspect.signature(stock).parameters)

    class Further(own):  # type: ignore[misc,valid-type]
        def __init__(self, other: int) -> None:
            super().__init__(*[other] if name == "Barrier" else [])

    assert list(inspect.signature(Further).parameters) == ["other"]
    assert (
        repr(Further(3)).split("[")[1]
        == repr(stock(*[3] if name == "Barrier" else [])).split("[")[1]
    )


@pytest.mark.parametrize("name", NAMES)
def test_copies(name: str, place: Place) -> None:
    made = place.make(name)
    made.extra = 5
    for again in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert type(again) is type(made)
        assert again.extra == 5
        assert repr(again).split("[")[1] == repr(made).split("[")[1]
        place.run(use(name, again))


async def use(name: str, made: Any) -> None:
    if name == "Event":
        made.set()
        assert await made.wait() is True
    elif name == "Barrier":
        assert sorted(await asyncio.gather(made.wait(), made.wait())) == [0, 1]
    else:
        async with made:
            assert made.locked() or name == "Semaphore"
        assert not made.locked()


def test_a_copied_condition_has_its_own_lock(place: Place) -> None:
    made = place.classes.Condition()
    again = copy.deepcopy(made)
    assert again._lock is not made._lock

    async def main() -> None:
        async with made:
            assert not again.locked()
            async with again:
                again.notify()

    place.run(main())


@pytest.mark.parametrize("name", NAMES)
def test_representation(name: str, place: Place) -> None:
    async def main() -> list[str]:
        made = place.make(name)
        shown = [repr(made)]
        if name == "Event":
            tasks = [asyncio.create_task(made.wait()) for _ in range(2)]
        elif name == "Barrier":
            tasks = [asyncio.create_task(made.wait())]
        else:
            await made.acquire()
            tasks = [asyncio.create_task(made.acquire()) for _ in range(2)]
        await turns(1)
        shown.append(repr(made))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        shown.append(repr(made))
        return [text.split("[")[1] for text in shown]

    assert place.run(main()) == STOCK.run(main_with(STOCK, name, main))


async def main_with(place: Place, name: str, main: Any) -> Any:
    # The closure of the test names its place; asyncio's answers are constant.
    waiting = {
        "Lock": ["unlocked]>", "locked, waiters:2]>", "locked]>"],
        "Event": ["unset]>", "unset, waiters:2]>", "unset]>"],
        "Condition": ["unlocked]>", "locked]>", "locked]>"],
        "Semaphore": ["unlocked, value:1]>", "locked, waiters:2]>", "locked]>"],
        "BoundedSemaphore": ["unlocked, value:1]>", "locked, waiters:2]>", "locked]>"],
        "Barrier": ["filling, waiters:0/2]>", "filling, waiters:1/2]>", "filling, waiters:0/2]>"],
    }
    return waiting[name]


def test_the_queue_is_there_for_who_looks(place: Place) -> None:
    async def main() -> None:
        lock = place.classes.Lock()
        assert lock._waiters is None
        await lock.acquire()
        tasks = [asyncio.create_task(lock.acquire()) for _ in range(3)]
        await turns(1)
        waiters = lock._waiters
        assert isinstance(waiters, deque)
        assert [type(waiter.done()) for waiter in waiters] == [bool] * 3
        assert waiters is lock._waiters
        tasks[1].cancel()
        await turns(1)
        assert len(waiters) == 2
        tasks.append(asyncio.create_task(lock.acquire()))
        await turns(1)
        assert len(waiters) == 3
        del waiters
        for task in (tasks[0], tasks[2], tasks[3]):
            lock.release()
            assert await task is True
        assert not lock._waiters
        lock.release()
        async with lock:
            pass

    place.run(main())


# -- use -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCKS)
def test_what_the_methods_return(name: str, place: Place) -> None:
    async def main() -> None:
        made = place.make(name)
        assert await made.acquire() is True
        assert made.release() is None
        async with made as entered:
            assert entered is None
        assert await made.__aenter__() is None
        assert await made.__aexit__(None, None, None) is None
        await made.acquire()
        task = asyncio.create_task(made.__aenter__())
        await turns(1)
        made.release()
        assert await task is None
        made.release()

    place.run(main())


@pytest.mark.parametrize("name", LOCKS)
def test_coroutines_do_nothing_before_they_are_awaited(name: str, place: Place) -> None:
    async def main() -> None:
        made = place.make(name)
        coro = made.acquire()
        assert asyncio.iscoroutine(coro)
        assert not made.locked()
        coro.close()
        task = asyncio.create_task(made.acquire())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not made.locked()
        assert await asyncio.wait_for(made.acquire(), 5) is True

    place.run(main())


@pytest.mark.parametrize("name", LOCKS)
def test_entering_by_hand(name: str, place: Place) -> None:
    """What `async with` awaits can be given to anything that takes a coroutine."""

    async def main() -> None:
        made = place.make(name)
        await asyncio.wait_for(made.__aenter__(), 5)
        made.release()
        await asyncio.create_task(made.__aenter__())
        made.release()
        coro = made.__aenter__()
        with pytest.raises(StopIteration) as stop:
            coro.send(None)
        assert stop.value.value is None
        made.release()

    place.run(main())


@pytest.mark.parametrize("name", [*LOCKS, "Barrier"])
def test_special_methods_are_methods(name: str, place: Place) -> None:
    made = place.make(name)
    for special in ("__aenter__", "__aexit__"):
        bound = getattr(made, special)
        assert inspect.isroutine(bound) and callable(bound)
        assert inspect.isroutine(getattr(type(made), special))
        assert bound.__self__ is made
        assert bound.__name__ == special
        assert bound == getattr(made, special) and hash(bound) == hash(getattr(made, special))
        assert bound != getattr(place.make(name), special)
        assert special in repr(bound)
        assert raised(bound, 1, 2, 3, 4, wrong=5)[0] is TypeError or name == "Barrier"
        made.kept = bound
    gone = weakref.ref(made)
    del bound, made
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", LOCKS)
def test_special_methods_by_class_and_by_super(name: str, place: Place) -> None:
    base: Any = getattr(place.classes, name)

    class Further(base):  # type: ignore[misc]
        async def __aenter__(self) -> str:
            await super().__aenter__()
            return "entered"

    async def main() -> None:
        async with Further() as entered:
            assert entered == "entered"
        async with contextlib.AsyncExitStack() as stack:
            made = Further()
            assert await stack.enter_async_context(made) == "entered"
            await stack.enter_async_context(place.make(name))
            assert made.locked() or name == "Semaphore"
        assert not made.locked()
        made = place.make(name)
        await type(made).__aenter__(made)
        await type(made).__aexit__(made, None, None, None)
        assert not made.locked()

    place.run(main())


@pytest.mark.parametrize("name", LOCKS)
def test_overridden_acquire_and_release(name: str, place: Place) -> None:
    log: list[str] = []
    base: Any = getattr(place.classes, name)

    class Loud(base):  # type: ignore[misc]
        async def acquire(self) -> Any:
            log.append("acquire")
            return await super().acquire()

        def release(self) -> None:
            log.append("release")
            super().release()

    async def main() -> None:
        made = Loud()
        async with made:
            assert made.locked() or name == "Semaphore"
        assert not made.locked()

    place.run(main())
    # A condition stores its lock's own methods, which hide those of the class.
    assert log == ([] if name == "Condition" else ["acquire", "release"])


@pytest.mark.parametrize("name", LOCKS)
def test_methods_replaced_on_the_instance_and_on_the_class(
    name: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    base: Any = getattr(place.classes, name)

    class Patched(base):  # type: ignore[misc]
        pass

    async def acquire(*_: Any) -> None:
        log.append("acquire")

    def release(*_: Any) -> None:
        log.append("release")

    async def main() -> None:
        made = Patched()
        async with made:
            pass
        made.acquire, made.release = acquire, release
        async with made:
            pass
        del made.acquire, made.release
        if name == "Condition":
            return
        async with made:
            pass
        assert log == ["acquire", "release"]
        monkeypatch.setattr(Patched, "acquire", acquire, raising=False)
        monkeypatch.setattr(Patched, "release", release, raising=False)
        async with made:
            pass
        monkeypatch.undo()
        async with made:
            pass

    place.run(main())
    assert log == ["acquire", "release"] * (1 if name == "Condition" else 2)


def test_releasing_what_nobody_has(place: Place) -> None:
    lock = place.classes.Lock()
    assert raised(lock.release) == (RuntimeError, "Lock is not acquired.")
    bounded = place.classes.BoundedSemaphore(2)
    assert raised(bounded.release) == (ValueError, "BoundedSemaphore released too many times")
    semaphore = place.classes.Semaphore(2)
    semaphore.release()
    assert semaphore._value == 3
    condition = place.classes.Condition()
    assert raised(condition.notify) == (RuntimeError, "cannot notify on un-acquired lock")
    assert raised(condition.notify_all) == (RuntimeError, "cannot notify on un-acquired lock")

    async def wait() -> None:
        await condition.wait()

    with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
        place.run(wait())


@pytest.mark.parametrize("value", [math.inf, 2**80, 2.0, True, 0])
def test_unusual_numbers_of_places(place: Place, value: Any) -> None:
    async def main() -> None:
        for name in ("Semaphore", "BoundedSemaphore"):
            if name == "BoundedSemaphore" and value == math.inf:
                # It always has as many places as it began with.
                continue
            made = getattr(place.classes, name)(value)
            if value:
                async with made:
                    assert made._value == value - 1
            else:
                assert made.locked()
            assert made._value == value
            assert type(made._value) is type(value) or value is True
            made._value += 1
            assert not made.locked()
            await made.acquire()

    place.run(main())


@pytest.mark.parametrize("name", ["Lock", "Event", "Semaphore", "Condition"])
def test_belongs_to_the_loop_it_was_first_waited_for_on(name: str, place: Place) -> None:
    made = place.make(name)

    async def wait() -> None:
        if name == "Event":
            await made.wait()
            return
        if not made.locked():
            await made.acquire()
        await (made.wait() if name == "Condition" else made.acquire())

    async def first() -> None:
        task = asyncio.create_task(wait())
        await turns(3)
        task.cancel()
        await asyncio.wait([task])

    place.run(first())
    with pytest.raises(RuntimeError) as error:
        place.run(wait())
    owner = made._lock if name == "Condition" and not PY313 and made._loop is None else made
    assert str(error.value).endswith("is bound to a different event loop")
    assert type(owner).__name__ in str(error.value)


def test_a_lock_of_somebody_else_in_a_condition(place: Place) -> None:
    log = []

    class Own:
        taken = False

        def locked(self) -> bool:
            return self.taken

        async def acquire(self) -> bool:
            log.append("acquire")
            while self.taken:
                await asyncio.sleep(0)
            self.taken = True
            return True

        def release(self) -> None:
            log.append("release")
            self.taken = False

    async def main() -> None:
        condition = place.classes.Condition(Own())

        async def wait() -> bool:
            async with condition:
                return await condition.wait()

        task = asyncio.create_task(wait())
        await turns(2)
        async with condition:
            condition.notify()
        assert await task is True

    place.run(main())
    assert log == ["acquire", "release"] * 3


def test_a_lock_of_asyncios_in_a_condition(place: Place) -> None:
    async def main() -> None:
        lock = asyncio.Lock()
        condition = place.classes.Condition(lock)
        assert condition._lock is lock
        assert condition.acquire == lock.acquire

        async def wait() -> bool:
            async with condition:
                return await condition.wait_for(lambda: ready)

        ready = False
        tasks = [asyncio.create_task(wait()) for _ in range(3)]
        await turns(2)
        async with lock:
            ready = True
            condition.notify_all()
        assert await asyncio.gather(*tasks) == [True] * 3

    place.run(main())


def test_overridden_wait_and_notify(place: Place) -> None:
    log: list[Any] = []
    base: Any = place.classes.Condition

    class Loud(base):  # type: ignore[misc]
        async def wait(self) -> Any:
            log.append("wait")
            return await super().wait()

        def notify(self, n: int = 1) -> None:
            log.append(n)
            super().notify(n)

    async def main() -> None:
        condition = Loud()
        answers = iter([False, False, "yes"])

        async def wait() -> Any:
            async with condition:
                return await condition.wait_for(lambda: next(answers))

        task = asyncio.create_task(wait())
        for _ in range(2):
            await turns(3)
            async with condition:
                condition.notify_all()
        assert await task == "yes"

    place.run(main())
    assert log == ["wait", 1, "wait", 1]


def test_a_predicate_that_raises(place: Place) -> None:
    async def main() -> None:
        condition = place.classes.Condition()
        async with condition:
            with pytest.raises(ZeroDivisionError):
                await condition.wait_for(lambda: 1 / 0)
            assert condition.locked()

    place.run(main())


# -- what is left behind ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_abandoned_waits_are_collected(name: str, place: Place) -> None:
    gone = []

    def suspended() -> None:
        made = place.make(name)

        async def wait() -> None:
            if name in ("Event", "Barrier"):
                await made.wait()
            elif name == "Condition":
                async with made:
                    await made.wait()
            else:
                while True:
                    await made.acquire()

        async def main() -> None:
            coro = wait()
            coro.send(None)
            made.own = coro
            gone.append(weakref.ref(made))
            gone.extend(weakref.ref(waiter) for waiter in made._waiters or ())

        if name == "Barrier":
            made._waiters = None
        place.run(main())

    suspended()
    gc.collect()
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_keeps_the_object_after_use(name: str, place: Place) -> None:
    async def main() -> Any:
        made = place.make(name)
        tasks = [asyncio.create_task(use(name, made)) for _ in range(4)]
        await asyncio.gather(*tasks)
        return weakref.ref(made)

    gone = place.run(main())
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_wait_that_is_given_up_leaves_the_queue(place: Place, count: int) -> None:
    async def main() -> None:
        lock, event = place.classes.Lock(), place.classes.Event()
        await lock.acquire()
        coros = [lock.acquire() for _ in range(count)] + [event.wait() for _ in range(count)]
        for coro in coros:
            coro.send(None)
        assert len(lock._waiters) == len(event._waiters) == count
        for coro in reversed(coros):
            coro.close()
        assert not lock._waiters and not event._waiters

    place.run(main())


# -- the same order of events ----------------------------------------------------------------------

OPERATIONS = {
    "Lock": ["acquire", "release", "with", "locked"],
    "Event": ["wait", "set", "clear", "is_set"],
    "Semaphore": ["acquire", "release", "with", "locked"],
    "BoundedSemaphore": ["acquire", "release", "with", "locked"],
    "Condition": ["acquire", "release", "with", "wait", "wait_for", "notify", "notify_all"],
    "Barrier": ["wait", "with", "reset", "abort", "n_waiting"],
}


@dataclass
class Script:
    """What workers do, and what is done to them, at which turn of the loop."""

    name: str
    argument: int
    workers: list[tuple[bool, list[str]]]
    driver: list[tuple[str, int]]


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    name = draw(st.sampled_from(NAMES))
    steps = st.lists(st.sampled_from([*OPERATIONS[name], "pass"]), min_size=1, max_size=5)
    workers = draw(st.lists(st.tuples(st.booleans(), steps), min_size=1, max_size=5))
    number = st.integers(0, len(workers) - 1)
    action = st.tuples(st.sampled_from(["cancel", "turn", "turn", "step"]), number)
    return Script(name, draw(st.integers(1, 3)), workers, draw(st.lists(action, max_size=14)))


async def play(script: Script, classes: Any) -> list[Any]:
    log: list[Any] = []
    takes = script.name in ("Semaphore", "BoundedSemaphore", "Barrier")
    made = getattr(classes, script.name)(*([script.argument] if takes else []))
    met = 0

    async def act(number: int, operation: str) -> Any:
        nonlocal met
        match operation:
            case "pass":
                return await asyncio.sleep(0)
            case "with":
                async with made as entered:
                    log.append((number, "inside", entered))
                    await asyncio.sleep(0)
                return None
            case "acquire" | "reset" | "abort":
                return await getattr(made, operation)()
            case "wait":
                if script.name == "Condition" and not made.locked():
                    await made.acquire()
                return await made.wait()
            case "wait_for":
                await made.acquire()
                met += 1
                goal = met
                return await made.wait_for(lambda: met > goal)
            case "notify" | "notify_all":
                met += 1
                return getattr(made, operation)()
            case "n_waiting":
                return made.n_waiting, made.broken
            case _:
                return getattr(made, operation)()

    async def worker(number: int, stubborn: bool, operations: list[str]) -> None:
        for operation in operations:
            try:
                result = await act(number, operation)
            except asyncio.CancelledError as error:
                log.append((number, operation, "cancelled", error.args))
                if not stubborn:
                    raise
            except Exception as error:
                log.append((number, operation, type(error), str(error).split(">")[-1]))
            else:
                log.append((number, operation, result))

    tasks = [
        asyncio.create_task(worker(number, stubborn, operations))
        for number, (stubborn, operations) in enumerate(script.workers)
    ]
    for action, number in script.driver:
        match action:
            case "cancel":
                log.append(("cancel", number, tasks[number].cancel(f"message {number}")))
            case "turn":
                await asyncio.sleep(0)
            case "step":
                if script.name not in ("Barrier", "Condition"):
                    choices = [name for name in ("set", "release") if hasattr(made, name)]
                    log.append(("driver", choices, outcome(getattr(made, choices[0]))))
                await asyncio.sleep(0)
        log.append(repr(made).split("[")[-1])
    await turns(12)
    log.append([task.done() for task in tasks])
    while not all(task.done() for task in tasks):
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        log.append(repr(made).split("[")[-1])
        # Who waits for a condition does not end before the lock is free.
        if script.name == "Condition" and made.locked():
            made.release()
    return log


@pytest.mark.slow
@given(scripts())
@settings(max_examples=400, deadline=None)
def test_the_same_order_of_events(script: Script) -> None:
    expected = STOCK.run(play(script, asyncio))
    for place in OWN:
        assert place.run(play(script, place.classes)) == expected


async def crowd(classes: Any, name: str, cancelled: int, turn: int) -> list[Any]:
    """Some tasks, one of which is cancelled at a certain turn."""
    log: list[Any] = []
    made = getattr(classes, name)(*([3] if name == "Barrier" else []))

    async def member(number: int) -> None:
        try:
            if name == "Event":
                await made.wait()
            elif name == "Barrier":
                log.append((number, await made.wait()))
            elif name == "Condition":
                async with made:
                    await made.wait()
                    log.append((number, "notified"))
                    await asyncio.sleep(0)
            else:
                async with made:
                    log.append((number, "in"))
                    await asyncio.sleep(0)
        finally:
            log.append((number, "out"))

    tasks = [asyncio.create_task(member(number)) for number in range(5)]
    for now in range(20):
        if now == turn:
            tasks[cancelled].cancel()
        if now == 3:
            if name == "Event":
                made.set()
            elif name == "Condition":
                async with made:
                    made.notify(2)
        if now == 7 and name == "Condition":
            async with made:
                made.notify_all()
        await asyncio.sleep(0)
        log.append(now)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    log.append(repr(made).split("[")[-1])
    return log


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_cancelled_at_every_turn(name: str) -> None:
    for cancelled in range(5):
        for turn in range(12):
            expected = STOCK.run(crowd(asyncio, name, cancelled, turn))
            for place in OWN:
                assert place.run(crowd(weft, name, cancelled, turn)) == expected
