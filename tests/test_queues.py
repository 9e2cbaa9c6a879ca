"""Queues: asyncio's own on asyncio's loop, Weft's on Weft's loop and on asyncio's."""

from __future__ import annotations

import abc
import asyncio
import gc
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from unittest import mock

import pytest
import weft
from backends import PY313
from queue_kinds import FOREIGN, KINDS, NATIVE, SETTINGS, STOCK, Setting, unique
from turns import turn


@pytest.fixture(params=SETTINGS, ids=lambda setting: setting.name)
def setting(request: pytest.FixtureRequest) -> Setting:
    setting: Setting = request.param
    if setting.backend().name not in request.config.getoption("--loops").split(","):
        pytest.skip("not among --loops")
    return setting


@pytest.fixture
def loop(setting: Setting) -> Iterator[asyncio.AbstractEventLoop]:
    loop = setting.backend().new_event_loop()
    try:
        yield loop
        assert not asyncio.all_tasks(loop)
    finally:
        loop.close()


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    return loop.run_until_complete


Run = Callable[[Coroutine[Any, Any, Any]], Any]


# -- what queues do --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("Queue", [3, 1, 2]), ("LifoQueue", [2, 1, 3]), ("PriorityQueue", [1, 2, 3])],
)
def test_items_come_in_the_order_of_their_kind(
    setting: Setting, run: Run, kind: str, expected: list[int]
) -> None:
    async def main() -> None:
        queue = getattr(setting.library, kind)()
        for item in (3, 1, 2):
            assert await queue.put(item) is None
        assert [await queue.get() for _ in range(3)] == expected
        for item in (3, 1, 2):
            assert queue.put_nowait(item) is None
        assert [queue.get_nowait() for _ in range(3)] == expected

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_with_a_limit(setting: Setting, kind: str) -> None:
    queue = getattr(setting.library, kind)(maxsize=2)
    assert (queue.maxsize, queue.qsize(), queue.empty(), queue.full()) == (2, 0, True, False)
    queue.put_nowait(1)
    assert (queue.qsize(), queue.empty(), queue.full()) == (1, False, False)
    queue.put_nowait(item=2)
    assert (queue.qsize(), queue.empty(), queue.full()) == (2, False, True)
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(3)
    queue.get_nowait()
    queue.get_nowait()
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()


@pytest.mark.parametrize("maxsize", [0, -1, False, float("inf"), 2**70, -(2**70)])
def test_a_queue_without_a_limit(setting: Setting, maxsize: Any) -> None:
    queue = setting.library.Queue(maxsize)
    assert queue.maxsize is maxsize
    for number in range(5):
        queue.put_nowait(number)
    assert not queue.full()


def test_odd_limits(setting: Setting) -> None:
    queue = setting.library.Queue(1.5)
    queue.put_nowait(1)
    assert not queue.full()
    queue.put_nowait(2)
    assert queue.full()
    queue = setting.library.Queue(True)
    queue.put_nowait(1)
    assert queue.full()
    queue = setting.library.Queue(None)
    with pytest.raises(TypeError, match="'<=' not supported"):
        queue.full()
    with pytest.raises(TypeError, match="'<=' not supported"):
        queue.put_nowait(1)


def test_the_limit_can_be_moved(setting: Setting) -> None:
    queue = setting.library.Queue(1)
    queue.put_nowait(1)
    queue._maxsize = 2
    queue.put_nowait(2)
    assert queue.full()
    assert queue.maxsize == 2


def test_wrong_arguments(setting: Setting) -> None:
    make = setting.library.Queue
    for arguments, keywords in (((1, 2), {}), ((), {"loop": None}), ((1,), {"maxsize": 1})):
        with pytest.raises(TypeError, match=r"Queue\.__init__\(\)"):
            make(*arguments, **keywords)
    queue = make()
    for call in (queue.put, queue.put_nowait):
        with pytest.raises(TypeError):
            call()
        with pytest.raises(TypeError):
            call(1, 2)
        with pytest.raises(TypeError):
            call(itme=1)


def test_initialising_again_empties(setting: Setting) -> None:
    queue = setting.library.Queue(3)
    queue.put_nowait(1)
    queue.__init__(2)
    assert (queue.qsize(), queue.maxsize, queue._unfinished_tasks) == (0, 2, 0)


def test_who_waits_is_served_in_turn(setting: Setting, loop: asyncio.AbstractEventLoop) -> None:
    queue = setting.library.Queue()
    got = []

    async def get(name: str) -> None:
        got.append((name, await queue.get()))

    tasks = [loop.create_task(get(name)) for name in "abc"]
    turn(loop, 2)
    assert len(queue._getters) == 3
    for number in range(3):
        queue.put_nowait(number)
    loop.run_until_complete(asyncio.gather(*tasks))
    assert got == [("a", 0), ("b", 1), ("c", 2)]


def test_who_waits_for_room_is_served_in_turn(
    setting: Setting, loop: asyncio.AbstractEventLoop
) -> None:
    queue = setting.library.Queue(1)
    queue.put_nowait(0)
    tasks = [loop.create_task(queue.put(number)) for number in (1, 2, 3)]
    turn(loop, 2)
    assert len(queue._putters) == 3

    async def drain() -> list[int]:
        return [await queue.get() for _ in range(4)]

    assert loop.run_until_complete(drain()) == [0, 1, 2, 3]
    loop.run_until_complete(asyncio.gather(*tasks))
    assert not queue._putters


def test_producers_and_consumers(setting: Setting, run: Run) -> None:
    async def main() -> None:
        queue = setting.library.Queue(3)
        got: list[int] = []

        async def produce(start: int) -> None:
            for number in range(start, start + 20):
                await queue.put(number)

        async def consume() -> None:
            while True:
                got.append(await queue.get())
                await asyncio.sleep(0)
                queue.task_done()

        consumers = [asyncio.ensure_future(consume()) for _ in range(3)]
        await asyncio.gather(*(produce(start) for start in (0, 100, 200)))
        await queue.join()
        for consumer in consumers:
            consumer.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        assert sorted(got) == sorted([*range(20), *range(100, 120), *range(200, 220)])

    run(main())


def test_nothing_happens_before_the_first_step(setting: Setting, run: Run) -> None:
    async def main() -> None:
        queue = setting.library.Queue()
        put = queue.put(1)
        assert queue.empty()
        assert asyncio.iscoroutine(put)
        await put
        get, unused = queue.get(), queue.get()
        assert queue.qsize() == 1
        unused.close()
        assert await get == 1
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await get

    run(main())


def test_the_names_of_the_coroutines(setting: Setting) -> None:
    queue = setting.library.LifoQueue()
    for name in ("get", "join"):
        coroutine = getattr(queue, name)()
        assert (coroutine.__name__, coroutine.__qualname__) == (name, f"Queue.{name}")
        coroutine.close()


@pytest.mark.parametrize("item", [None, (), (1, 2), ValueError("an item"), StopIteration(3)])
def test_items_of_any_kind(setting: Setting, run: Run, item: Any) -> None:
    async def main() -> None:
        queue = setting.library.Queue()
        await queue.put(item)
        assert await queue.get() is item
        task = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.put_nowait(item)
        assert await task is item

    run(main())


# -- join ------------------------------------------------------------------------------------------


def test_join_waits_for_every_item(setting: Setting, loop: asyncio.AbstractEventLoop) -> None:
    queue = setting.library.Queue()
    loop.run_until_complete(queue.join())
    for number in range(2):
        queue.put_nowait(number)
    joiners = [loop.create_task(queue.join()) for _ in range(2)]
    turn(loop, 2)
    queue.task_done()
    turn(loop, 2)
    assert not any(joiner.done() for joiner in joiners)
    queue.put_nowait(3)
    queue.task_done()
    queue.task_done()
    assert queue._finished.is_set()
    turn(loop, 2)
    assert [joiner.result() for joiner in joiners] == [None, None]
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        queue.task_done()
    queue.put_nowait(4)
    assert not queue._finished.is_set()
    joiner = loop.create_task(queue.join())
    turn(loop, 2)
    joiner.cancel()
    turn(loop, 2)
    assert joiner.cancelled()


def test_unfinished_tasks_can_be_set(setting: Setting, loop: asyncio.AbstractEventLoop) -> None:
    queue = setting.library.Queue()
    queue._unfinished_tasks = 1
    assert "tasks=1" in repr(queue)
    queue.task_done()
    loop.run_until_complete(queue.join())


# -- cancellation ----------------------------------------------------------------------------------


def test_a_cancelled_waiter_leaves_the_line(
    setting: Setting, loop: asyncio.AbstractEventLoop
) -> None:
    queue = setting.library.Queue(1)
    getter = loop.create_task(queue.get())
    turn(loop)
    getter.cancel()
    turn(loop, 2)
    assert getter.cancelled()
    assert not queue._getters
    queue.put_nowait(1)
    putter = loop.create_task(queue.put(2))
    turn(loop)
    putter.cancel()
    turn(loop, 2)
    assert putter.cancelled()
    assert not queue._putters
    assert queue.get_nowait() == 1
    assert queue.empty()


def test_who_is_cancelled_when_woken_wakes_the_next(
    setting: Setting, loop: asyncio.AbstractEventLoop
) -> None:
    queue = setting.library.Queue(1)
    first, second = (loop.create_task(queue.get()) for _ in range(2))
    turn(loop)
    queue.put_nowait(1)
    first.cancel()
    turn(loop, 3)
    assert first.cancelled()
    assert second.result() == 1

    queue.put_nowait(1)
    first, second = (loop.create_task(queue.put(number)) for number in (2, 3))
    turn(loop)
    queue.get_nowait()
    first.cancel()
    turn(loop, 3)
    assert first.cancelled()
    assert second.done()
    assert queue.get_nowait() == 3


@pytest.mark.parametrize("name", ["get", "put"])
def test_a_waiting_operation_can_be_closed_or_thrown_into(
    setting: Setting, loop: asyncio.AbstractEventLoop, name: str
) -> None:
    async def main() -> None:
        queue = setting.library.Queue(1)
        if name == "put":
            queue.put_nowait(0)
        start = (lambda: queue.put(1)) if name == "put" else queue.get
        line = queue._putters if name == "put" else queue._getters
        for end in ("close", "throw"):
            operation = start()
            waiter = operation.send(None)
            assert list(line) == [waiter]
            if end == "close":
                operation.close()
            else:
                with pytest.raises(KeyError):
                    operation.throw(KeyError())
            assert waiter.cancelled()
            assert not line

    loop.run_until_complete(main())


def test_an_emptied_line_does_not_matter(setting: Setting, loop: asyncio.AbstractEventLoop) -> None:
    queue = setting.library.Queue(1)
    queue.put_nowait(1)
    putter = loop.create_task(queue.put(2))
    turn(loop)
    queue._putters.clear()
    putter.cancel()
    turn(loop, 2)
    assert putter.cancelled()


# -- shutdown --------------------------------------------------------------------------------------


def skip_without_shutdown(setting: Setting) -> None:
    if not PY313 and not setting.is_weft:
        pytest.skip("asyncio's queues have no shutdown() yet")


def test_after_shutdown_the_items_that_are_left_can_be_had(setting: Setting, run: Run) -> None:
    skip_without_shutdown(setting)

    async def main() -> None:
        queue = setting.library.Queue()
        queue.put_nowait(1)
        queue.shutdown()
        with pytest.raises(setting.shut_down):
            queue.put_nowait(2)
        with pytest.raises(setting.shut_down):
            await queue.put(2)
        assert "shutdown" in repr(queue)
        assert await queue.get() == 1
        with pytest.raises(setting.shut_down):
            await queue.get()
        with pytest.raises(setting.shut_down):
            queue.get_nowait()
        queue.task_done()
        await queue.join()

    run(main())


def test_an_immediate_shutdown_drops_the_items(
    setting: Setting, loop: asyncio.AbstractEventLoop
) -> None:
    skip_without_shutdown(setting)
    queue = setting.library.PriorityQueue()
    for number in range(3):
        queue.put_nowait(number)
    queue.get_nowait()
    joiner = loop.create_task(queue.join())
    turn(loop)
    queue.shutdown(immediate=True)
    assert queue.empty()
    turn(loop, 2)
    assert not joiner.done()
    queue.task_done()
    turn(loop, 2)
    assert joiner.done()


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_ends_every_wait(
    setting: Setting, loop: asyncio.AbstractEventLoop, immediate: bool
) -> None:
    skip_without_shutdown(setting)
    queue = setting.library.Queue(1)
    getters = [loop.create_task(queue.get()) for _ in range(3)]
    turn(loop)
    queue.shutdown(immediate)
    turn(loop, 2)
    assert [type(getter.exception()) for getter in getters] == [setting.shut_down] * 3

    queue = setting.library.Queue(1)
    queue.put_nowait(0)
    putters = [loop.create_task(queue.put(number)) for number in range(3)]
    turn(loop)
    queue.shutdown(immediate)
    turn(loop, 2)
    assert [type(putter.exception()) for putter in putters] == [setting.shut_down] * 3


def test_the_exception_is_asyncios_where_asyncio_has_one() -> None:
    if PY313:
        assert weft.QueueShutDown is asyncio.QueueShutDown
    else:
        assert weft.QueueShutDown.__module__ == "weft"
        assert issubclass(weft.QueueShutDown, Exception)


# -- what subclasses and other code rely on --------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "container"), [("Queue", deque), ("LifoQueue", list), ("PriorityQueue", list)]
)
def test_the_items_are_in_sight(
    setting: Setting, run: Run, kind: str, container: type[Any]
) -> None:
    queue = getattr(setting.library, kind)()
    queue.put_nowait(2)
    assert type(queue._queue) is container
    assert list(queue._queue) == [2]
    queue.put_nowait(3)
    queue._queue.append(4)
    assert queue.qsize() == len(queue._queue) == 3
    assert sorted(queue.get_nowait() for _ in range(3)) == [2, 3, 4]
    queue.put_nowait(5)
    queue._queue.clear()
    assert queue.empty()
    assert queue._queue is queue._queue
    queue._queue = container([7, 8])
    assert queue.qsize() == 2
    assert sorted([run(queue.get()), run(queue.get())]) == [7, 8]


def test_hooks(setting: Setting, run: Run) -> None:
    async def main() -> None:
        queue = unique(setting.library.Queue)(2)
        for item in "aba":
            await queue.put(item)
            if item == "b":
                assert queue.full()
                assert "OrderedDict" in repr(type(queue._queue))
                break
        waiting = asyncio.ensure_future(queue.put("a"))
        await asyncio.sleep(0)
        assert await queue.get() == "a"
        await waiting
        assert [await queue.get(), await queue.get()] == ["b", "a"]

    run(main())


def test_items_under_another_name(setting: Setting, run: Run) -> None:
    class Rounds(setting.library.Queue):  # type: ignore[misc]
        def _init(self, maxsize: int) -> None:
            self.parts: list[list[int]] = [[], []]

        def _put(self, item: int) -> None:
            self.parts[item % 2].append(item)

        def _get(self) -> int:
            return next(part for part in self.parts if part).pop(0)

        def qsize(self) -> int:
            return sum(map(len, self.parts))

        def empty(self) -> bool:
            return not self.qsize()

    async def main() -> None:
        queue = Rounds(3)
        for number in (1, 2, 3):
            await queue.put(number)
        assert queue.full()
        assert [await queue.get() for _ in range(3)] == [2, 1, 3]
        assert not hasattr(queue, "_queue")
        assert "_queue" not in repr(queue)

    run(main())


def test_items_that_nobody_arranged(setting: Setting) -> None:
    class Bare(setting.library.Queue):  # type: ignore[misc]
        def _init(self, maxsize: int) -> None:
            pass

    queue = Bare()
    for call in (queue.qsize, queue.empty, queue.get_nowait):
        with pytest.raises(AttributeError, match="'Bare' object has no attribute '_queue'"):
            call()


def test_an_attribute_for_the_items(setting: Setting) -> None:
    class Elsewhere(setting.library.Queue):  # type: ignore[misc]
        @property
        def _queue(self) -> Any:
            return self.__dict__["items"]

        @_queue.setter
        def _queue(self, value: Any) -> None:
            self.__dict__["items"] = value

    queue = Elsewhere(2)
    queue.put_nowait(1)
    queue.put_nowait(2)
    assert queue.full()
    assert queue.__dict__["items"] == deque([1, 2])
    assert queue.get_nowait() == 1
    assert "_queue=[2]" in repr(queue)


def noting(base: type[Any], notes: list[str]) -> type[Any]:
    """A subclass of `base` that notes which of its own methods are called."""

    def note(name: str) -> Callable[..., Any]:
        def method(self: Any, *args: Any) -> Any:
            notes.append(name)
            return getattr(super(kinds[0], self), name)(*args)

        return method

    names = ("_init", "_put", "_get", "full", "empty", "qsize", "put_nowait", "get_nowait")
    kinds: list[Any] = []
    kinds.append(type("Noting", (base,), {name: note(name) for name in (*names, "_wakeup_next")}))
    return kinds[0]


@pytest.mark.parametrize("kind", KINDS)
def test_overridden_methods_are_called_as_asyncio_calls_them(kind: str) -> None:
    def notes(setting: Setting) -> list[str]:
        notes: list[str] = []
        loop = setting.backend().new_event_loop()
        queue = noting(getattr(setting.library, kind), notes)(1)

        async def main() -> None:
            notes.append("put")
            await queue.put(1)
            notes.append("put more")
            putter = asyncio.ensure_future(queue.put(2))
            await asyncio.sleep(0)
            notes.append("get")
            await queue.get()
            await putter
            notes.append("get more")
            await queue.get()
            getter = asyncio.ensure_future(queue.get())
            await asyncio.sleep(0)
            queue.put_nowait(3)
            await getter
            notes.append("cancel")
            getter = asyncio.ensure_future(queue.get())
            await asyncio.sleep(0)
            getter.cancel()
            await asyncio.wait([getter])
            queue.put_nowait(1)
            if PY313:
                notes.append("shut down")
                queue.shutdown(immediate=True)

        loop.run_until_complete(main())
        loop.close()
        return notes

    expected = notes(STOCK)
    assert notes(NATIVE) == expected
    assert notes(FOREIGN) == expected


def test_some_overridden_methods(setting: Setting, run: Run) -> None:
    class Doubling(setting.library.Queue):  # type: ignore[misc]
        def put_nowait(self, item: Any) -> None:
            super().put_nowait(item * 2)

        async def get(self) -> Any:
            return await super().get() + 1

    async def main() -> None:
        queue = Doubling()
        await queue.put(4)
        queue.put_nowait(5)
        assert [await queue.get(), await queue.get()] == [9, 11]

    run(main())


def test_methods_of_one_queue_are_honoured(setting: Setting, run: Run) -> None:
    async def main() -> None:
        queue = setting.library.Queue()
        put: list[int] = []
        await queue.put(1)
        queue._put = put.append
        await queue.put(2)
        queue.put_nowait(3)
        assert put == [2, 3]
        assert queue.qsize() == 1
        queue.full = lambda: True
        with pytest.raises(asyncio.QueueFull):
            queue.put_nowait(4)
        del queue.full
        queue.put_nowait(5)
        assert put == [2, 3, 5]

    run(main())


def test_methods_that_are_replaced_in_the_class_are_honoured(setting: Setting, run: Run) -> None:
    async def main() -> None:
        queue = setting.library.Queue()
        await queue.put(1)
        with mock.patch.object(setting.library.Queue, "put_nowait") as put_nowait:
            await queue.put(2)
            put_nowait.assert_called_once_with(2)
        await queue.put(3)
        assert [await queue.get(), await queue.get()] == [1, 3]

    run(main())


def test_classes(setting: Setting) -> None:
    library = setting.library
    assert issubclass(library.PriorityQueue, library.Queue)
    assert issubclass(library.LifoQueue, library.Queue)
    for kind in KINDS:
        queue = getattr(library, kind)()
        assert isinstance(queue, getattr(asyncio, kind))
        assert isinstance(queue, asyncio.Queue)
        assert getattr(library, kind)[int].__origin__ is getattr(library, kind)
        queue.attribute = 1
        assert weakref.ref(queue)() is queue
        with pytest.raises(TypeError):
            hash(queue) and queue < queue

    class Abstract(abc.ABC):
        @abc.abstractmethod
        def needed(self) -> int: ...

    class Concrete(library.Queue, Abstract):  # type: ignore[misc]
        def needed(self) -> int:
            return 1

    assert Concrete().needed() == 1
    assert isinstance(Concrete(), Abstract)


def test_representations(setting: Setting, loop: asyncio.AbstractEventLoop) -> None:
    queue = setting.library.Queue(1)
    assert str(queue) == "<Queue maxsize=1>"
    assert repr(queue) == f"<Queue at {id(queue):#x} maxsize=1>"
    queue.put_nowait("a")
    putter = loop.create_task(queue.put("b"))
    turn(loop)
    assert str(queue) == "<Queue maxsize=1 _queue=['a'] _putters[1] tasks=1>"
    queue.get_nowait()
    turn(loop)
    assert putter.done()
    queue.get_nowait()
    getter = loop.create_task(queue.get())
    turn(loop)
    assert str(queue) == "<Queue maxsize=1 _getters[1] tasks=2>"
    getter.cancel()
    turn(loop, 2)


def test_a_queue_belongs_to_the_loop_that_it_was_waited_on(setting: Setting) -> None:
    queue = setting.library.Queue()
    first, second = (setting.backend().new_event_loop() for _ in range(2))
    task = first.create_task(queue.get())
    turn(first)
    assert queue._loop is first
    with pytest.raises(RuntimeError, match=r"<Queue at 0x.* is bound to a different event loop"):
        second.run_until_complete(queue.get())
    queue.put_nowait(1)
    assert first.run_until_complete(task) == 1
    # Who need not wait may come from anywhere.
    second.run_until_complete(queue.put(1))
    for loop in (first, second):
        loop.close()


def test_the_inherited_methods_see_the_same_waiters(
    setting: Setting, loop: asyncio.AbstractEventLoop
) -> None:
    queue = setting.library.Queue()
    getters = [loop.create_task(queue.get()) for _ in range(2)]
    turn(loop)
    first = queue._getters[0]
    queue._wakeup_next(queue._getters)
    assert first.done()
    assert len(queue._getters) == 1
    queue._queue.extend([1, 2])
    queue._wakeup_next(queue._getters)
    assert loop.run_until_complete(asyncio.gather(*getters)) == [1, 2]


# -- code that comes back in -----------------------------------------------------------------------


class Awkward:
    """Compared by a function of the test's choice."""

    def __init__(self, rank: int, compare: Callable[[], None]) -> None:
        self.rank = rank
        self.compare = compare

    def __lt__(self, other: Awkward) -> bool:
        self.compare()
        return self.rank < other.rank


def test_a_comparison_that_raises(setting: Setting, run: Run) -> None:
    async def main() -> None:
        queue = setting.library.PriorityQueue()
        await queue.put(1)
        for put in (queue.put("a"), queue.put(None)):
            with pytest.raises(TypeError, match="'<' not supported"):
                await put
        # heapq appends before it compares.
        assert queue.qsize() == 3
        assert queue._unfinished_tasks == 1

    run(main())


@pytest.mark.parametrize("what", ["put", "get", "clear", "shut down"])
def test_a_comparison_that_uses_the_queue(setting: Setting, what: str) -> None:
    queue = setting.library.PriorityQueue()
    busy = False

    def use() -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        if what == "put":
            queue.put_nowait(Awkward(0, use))
        elif what == "get":
            queue.get_nowait()
        elif what == "clear":
            queue._queue.clear()
        elif PY313:
            queue.shutdown(immediate=True)
        busy = False

    outcomes = []
    for rank in (5, 4, 3, 2, 1):
        try:
            queue.put_nowait(Awkward(rank, use))
        except (RuntimeError, IndexError) as error:
            outcomes.append(type(error))
        except weft.QueueShutDown:
            break
    assert set(outcomes) <= {RuntimeError, IndexError}
    busy = True
    while not queue.empty():
        queue.get_nowait()


def test_items_that_use_the_queue_when_they_die(setting: Setting) -> None:
    class Restless:
        def __init__(self, queue: Any) -> None:
            self.queue = queue

        def __del__(self) -> None:
            self.queue.put_nowait(1)
            self.queue.get_nowait()

    for kind in ("Queue", "LifoQueue"):
        queue = getattr(setting.library, kind)()
        for _ in range(3):
            queue.put_nowait(Restless(queue))
        while queue.qsize() > 1:
            queue.get_nowait()
        queue._queue.clear()
        queue.put_nowait(Restless(queue))
        queue.__init__()
        gc.collect()
        assert queue.qsize() == 0


def test_a_hook_that_waits_for_nothing_and_comes_back(setting: Setting, run: Run) -> None:
    class Echo(setting.library.Queue):  # type: ignore[misc]
        def _put(self, item: int) -> None:
            super()._put(item)
            if item:
                self.put_nowait(item - 1)

    async def main() -> None:
        queue = Echo()
        await queue.put(3)
        assert [await queue.get() for _ in range(4)] == [3, 2, 1, 0]

    run(main())


# -- what is left behind ---------------------------------------------------------------------------


class Thing:
    rank = 0

    def __lt__(self, other: Thing) -> bool:
        return False


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_let_go(setting: Setting, run: Run, kind: str) -> None:
    async def main() -> None:
        queue = getattr(setting.library, kind)(1)
        thing = Thing()
        watch = weakref.ref(thing)
        await queue.put(thing)
        got = await queue.get()
        assert got is thing
        del got, thing
        assert watch() is None
        waiting = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        thing = Thing()
        watch = weakref.ref(thing)
        await queue.put(thing)
        await waiting
        del thing, waiting
        # asyncio's loop still holds the step that ended the wait.
        await asyncio.sleep(0)
        assert watch() is None
        thing = Thing()
        watch = weakref.ref(thing)
        unused = queue.put(thing)
        unused.close()
        del thing, unused
        assert watch() is None

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_cycles_are_collected(setting: Setting, kind: str) -> None:
    for look in (False, True):
        queue = getattr(setting.library, kind)()
        if look:
            assert not queue._queue
            assert not queue._getters
        thing = Thing()
        thing.queue = queue  # type: ignore[attr-defined]
        queue.put_nowait(thing)
        queue.itself = queue
        watch = weakref.ref(queue)
        del queue, thing
        gc.collect()
        assert watch() is None


def test_a_wait_that_nobody_can_end_is_collected(
    setting: Setting, loop: asyncio.AbstractEventLoop
) -> None:
    async def main() -> weakref.ref[Any]:
        queue = setting.library.Queue()
        operation = queue.get()
        operation.send(None)
        queue.operation = operation
        return weakref.ref(queue)

    watch = loop.run_until_complete(main())
    gc.collect()
    assert watch() is None


def test_a_waiting_task_does_not_keep_a_future_that_is_done(
    setting: Setting, loop: asyncio.AbstractEventLoop
) -> None:
    async def main() -> None:
        queue = setting.library.Queue()
        for _ in range(5):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(queue.get(), 0.001)
        assert len(queue._getters) == 0

    loop.run_until_complete(main())
