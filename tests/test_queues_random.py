"""Random schedules of what can be done with a queue: asyncio's queues and Weft's, turn by turn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from backends import PY313
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queue_kinds import FOREIGN, KINDS, NATIVE, STOCK, Setting, unique
from turns import turn

# On 3.14 Hypothesis misreads a reference count.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:It looks like `register_random`"),
]

INSTRUCTIONS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 9)),
    st.tuples(st.just("get")),
    st.tuples(st.just("join")),
    st.tuples(st.just("put_nowait"), st.integers(0, 9)),
    st.tuples(st.just("get_nowait")),
    st.tuples(st.just("task_done")),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("look")),
    st.tuples(st.just("shutdown"), st.booleans()) if PY313 else st.tuples(st.just("look")),
)


class Machine:
    """One run of a schedule on one kind of queue."""

    def __init__(self, setting: Setting, kind: str, maxsize: int, hooked: bool) -> None:
        self.loop = setting.backend().new_event_loop()
        base = getattr(setting.library, kind)
        self.queue = (unique(base) if hooked else base)(maxsize)
        self.trace: list[Any] = []
        self.turns = 0
        self.tasks: list[asyncio.Task[Any]] = []

    def note(self, *what: Any) -> None:
        self.trace.append((self.turns, *what))

    def perform(self, name: str, *arguments: Any) -> None:
        if name == "turn":
            self.turn(*arguments)
        elif name == "cancel":
            if self.tasks:
                number = arguments[0] % len(self.tasks)
                self.note("cancel", number, self.tasks[number].cancel())
        elif name == "look":
            queue = self.queue
            self.note(list(queue._queue), len(queue._getters), len(queue._putters), str(queue))
        elif name in ("put", "get", "join"):
            self.tasks.append(self.loop.create_task(self.task(len(self.tasks), name, *arguments)))
        else:
            self.note(name, outcome(getattr(self.queue, name), *arguments))

    async def task(self, number: int, name: str, *arguments: Any) -> None:
        try:
            result = await getattr(self.queue, name)(*arguments)
        except BaseException as error:
            self.note(number, name, type(error).__name__)
            raise
        self.note(number, name, result)

    def turn(self, times: int) -> None:
        for _ in range(times):
            turn(self.loop)
            self.turns += 1
            queue = self.queue
            self.note(queue.qsize(), queue.empty(), queue.full(), queue._unfinished_tasks)

    def run(self, schedule: list[tuple[Any, ...]]) -> list[Any]:
        for instruction in schedule:
            self.perform(*instruction)
        self.turn(4)
        for number, task in enumerate(self.tasks):
            self.note(number, task.done(), task.done() and task.cancelled())
            task.cancel()
        self.turn(3)
        self.perform("look")
        for task in self.tasks:
            assert task.done()
            task.cancelled() or task.exception()
        self.loop.close()
        return self.trace


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        return type(error).__name__, str(error)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
@given(
    kind=st.sampled_from(KINDS),
    maxsize=st.integers(0, 3),
    hooked=st.booleans(),
    schedule=st.lists(INSTRUCTIONS, max_size=40),
)
def test_random_schedules(
    kind: str, maxsize: int, hooked: bool, schedule: list[tuple[Any, ...]]
) -> None:
    expected = Machine(STOCK, kind, maxsize, hooked).run(schedule)
    assert Machine(NATIVE, kind, maxsize, hooked).run(schedule) == expected
    assert Machine(FOREIGN, kind, maxsize, hooked).run(schedule) == expected


@pytest.mark.parametrize("seed", range(20))
def test_crowds_cancelled_at_every_turn(seed: int) -> None:
    """No item is lost or doubled: what was put in and not taken out is in the queue."""
    chance = random.Random(seed)
    setting = chance.choice([NATIVE, FOREIGN])
    loop = setting.backend().new_event_loop()
    queue = setting.library.Queue(chance.randrange(4))
    put: list[int] = []
    got: list[int] = []

    async def producer(number: int) -> None:
        await queue.put(number)
        put.append(number)

    async def consumer() -> None:
        got.append(await queue.get())

    tasks = [
        loop.create_task(producer(number) if chance.random() < 0.5 else consumer())
        for number in range(100)
    ]
    while not all(task.done() for task in tasks):
        turn(loop)
        waiting = [task for task in tasks if not task.done()]
        for task in chance.sample(waiting, min(len(waiting), 5)):
            task.cancel()
    left = [queue.get_nowait() for _ in range(queue.qsize())]
    assert sorted(got + left) == sorted(put)
    assert not queue._getters
    assert not queue._putters
    loop.close()
