"""Primitives inside primitives, cancelled from outside at any moment: asyncio's and Weft's tell
the same story.

A script is a tree: task groups of time-outs of gathered waits of locks, and so on. Each task
notes what it
begins and how that ends, with the time. The clock is false, and moves when all else has come to
rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import OWN, STOCK, Place, shape
from turns import Clock, turn

pytestmark = [
    pytest.mark.slow,
    # On 3.14 Hypothesis misreads a reference count.
    pytest.mark.filterwarnings("ignore:It looks like `register_random`"),
]

RESTS = 40
"""Turns after which everything has come to rest that does not wait for the clock."""
TICKS = 10

ticks = st.integers(0, 4)
limits = st.one_of(st.none(), st.integers(-1, 5))
LEAVES = st.one_of(
    st.tuples(st.just("sleep"), ticks),
    st.tuples(st.just("raise")),
    st.tuples(st.just("cancel itself")),
    st.tuples(st.just("lock"), ticks),
    st.tuples(st.just("semaphore"), ticks),
    st.tuples(st.just("put")),
    st.tuples(st.just("get")),
    st.tuples(st.just("event")),
    st.tuples(st.just("set event")),
    st.tuples(st.just("notify")),
    st.tuples(st.just("be notified")),
    st.tuples(st.just("barrier")),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, max_size=3)
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        # A group cancels its children in no particular order: one child.
        st.tuples(st.just("group"), st.lists(inner, max_size=1), inner),
        st.tuples(st.just("timeout"), limits, several),
        st.tuples(st.just("wait_for"), limits, inner),
        st.tuples(st.just("gather"), st.booleans(), several),
        st.tuples(st.just("shield"), inner),
        st.tuples(
            st.just("wait"),
            limits,
            st.sampled_from(["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]),
            some,
        ),
        st.tuples(st.just("as_completed"), limits, several),
        st.tuples(st.just("refuse"), inner),
        st.tuples(st.just("uncancel"), inner),
        st.tuples(st.just("clean up"), inner, inner),
    )


SCRIPTS = st.recursive(LEAVES, nested, max_leaves=10)
CANCELLATIONS = st.lists(st.integers(0, TICKS - 1), max_size=3)


class Story:
    """One run of a script with the primitives of one place."""

    def __init__(self, place: Place) -> None:
        self.classes = place.classes
        self.loop = place.new_event_loop()
        self.clock = Clock(0.0)
        self.loop.time = self.clock  # type: ignore[method-assign]
        self.log: list[Any] = []
        self.lock = self.classes.Lock()
        self.semaphore = self.classes.Semaphore(2)
        self.queue = self.classes.Queue(1)
        self.event = self.classes.Event()
        self.condition = self.classes.Condition()
        self.barrier = self.classes.Barrier(2)
        self.naps = 0
        self.begun: list[asyncio.Task[Any]] = []

    def note(self, *what: Any) -> None:
        self.log.append(repr((self.clock.now, *what)))

    def nap(self, length: int) -> Any:
        return self.classes.sleep(self.limit(length) if length else 0)

    def limit(self, length: Any) -> Any:
        """A time of its own: of two timers for the same time, asyncio's heap does not say which
        one is first.
        """
        self.naps += 1
        return None if length is None else length + self.naps / 4096

    async def act(self, script: Any, here: str) -> str:
        task = asyncio.current_task()
        assert task is not None
        self.begun.append(task)
        try:
            await self.perform(script, here)
        except BaseException as error:
            self.note(here, script[0], shape(error)[:3], task.cancelling())
            raise
        self.note(here, script[0], "done", task.cancelling())
        return here

    def several(self, scripts: list[Any], here: str) -> list[Any]:
        return [self.act(script, f"{here}.{number}") for number, script in enumerate(scripts)]

    def tasks(self, scripts: list[Any], here: str) -> list[asyncio.Task[str]]:
        return [self.loop.create_task(each) for each in self.several(scripts, here)]

    async def perform(self, script: Any, here: str) -> None:
        classes = self.classes
        match script:
            case "sleep", length:
                await self.nap(length)
            case ("raise",):
                raise KeyError(here)
            case ("cancel itself",):
                asyncio.current_task().cancel(here)  # type: ignore[union-attr]
                await classes.sleep(0)
            case "lock", length:
                async with self.lock:
                    await self.nap(length)
            case "semaphore", length:
                async with self.semaphore:
                    await self.nap(length)
            case ("put",):
                await self.queue.put(here)
            case ("get",):
                self.note(here, await self.queue.get())
            case ("event",):
                await self.event.wait()
            case ("set event",):
                self.event.set()
                await classes.sleep(0)
                self.event.clear()
            case ("notify",):
                async with self.condition:
                    self.condition.notify(2)
            case ("be notified",):
                async with self.condition:
                    await self.condition.wait()
            case ("barrier",):
                self.note(here, await self.barrier.wait())
            case "group", children, body:
                async with classes.TaskGroup() as group:
                    for child in self.several(children, here):
                        group.create_task(child)
                    await self.act(body, f"{here}.b")
            case "timeout", limit, steps:
                async with classes.timeout(self.limit(limit)):
                    for step in self.several(steps, here):
                        with contextlib.closing(step):
                            await step
            case "wait_for", limit, inner:
                self.note(await classes.wait_for(self.act(inner, here + ".w"), self.limit(limit)))
            case "gather", exceptions, inner:
                gathered = classes.gather(*self.tasks(inner, here), return_exceptions=exceptions)
                self.note(here, [str(each) for each in await gathered])
            case "shield", inner:
                self.note(here, await classes.shield(self.act(inner, here + ".s")))
            case "wait", limit, when, inner:
                tasks = self.tasks(inner, here)
                timeout = self.limit(limit)
                done, _ = await classes.wait(tasks, timeout=timeout, return_when=when)
                self.note(here, sorted(tasks.index(task) for task in done))
            case "as_completed", limit, inner:
                timeout = self.limit(limit)
                for each in classes.as_completed(self.tasks(inner, here), timeout=timeout):
                    self.note(here, await each)
            case "refuse", inner:
                try:
                    await self.act(inner, here + ".r")
                except asyncio.CancelledError as error:
                    self.note(here, "refused", error.args)
            case "uncancel", inner:
                try:
                    await self.act(inner, here + ".u")
                except asyncio.CancelledError:
                    self.note(here, asyncio.current_task().uncancel())  # type: ignore[union-attr]
            case "clean up", inner, after:
                try:
                    await self.act(inner, here + ".c")
                finally:
                    await self.act(after, here + ".f")
            case _:
                raise AssertionError(script)

    def look(self) -> None:
        """What can be seen of the primitives from outside."""
        self.note(
            self.lock.locked(),
            self.semaphore.locked(),
            self.semaphore._value,
            self.queue.qsize(),
            self.event.is_set(),
            self.condition.locked(),
            (self.barrier.n_waiting, self.barrier.broken),
        )

    def play(self, scripts: list[Any], cancelled: list[int]) -> list[Any]:
        reports: list[str] = []
        self.loop.set_exception_handler(
            lambda _, context: reports.append(context["message"].partition(":")[0])
        )
        tasks = [self.loop.create_task(self.act(s, str(n))) for n, s in enumerate(scripts)]
        for tick in range(TICKS):
            turn(self.loop, RESTS)
            self.look()
            for number, when in enumerate(cancelled):
                if tick == when:
                    self.note(tasks[number % len(tasks)].cancel(str(tick)))
            self.clock.now += 1
        for _ in range(6):
            for task in dict.fromkeys([*tasks, *self.begun]):
                task.cancel()
            turn(self.loop, RESTS)
            self.clock.now += 10
        self.look()
        for task in tasks:
            task.done() and not task.cancelled() and task.exception()
        self.note([shape_of(task) for task in tasks])
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()
        return self.log


def shape_of(task: asyncio.Task[str]) -> Any:
    if not task.done() or task.cancelled():
        return task.done()
    return shape(task.exception())


@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(scripts=st.lists(SCRIPTS, min_size=1, max_size=4), cancelled=CANCELLATIONS)
def test_the_same_story(scripts: list[Any], cancelled: list[int]) -> None:
    with warnings.catch_warnings():
        # Coroutines that a cancelled primitive never began.
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = Story(STOCK).play(scripts, cancelled)
        for place in OWN:
            assert Story(place).play(scripts, cancelled) == expected
