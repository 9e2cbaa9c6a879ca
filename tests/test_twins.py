"""Random programs run turn by turn on asyncio and on the loop under test: every trace must agree.

A program is a few scripts; a script is a list of instructions that a task carries out: wait for
futures, complete them, cancel and start tasks, add callbacks, set timers, change variables.
Whatever happens is noted with the number of the turn in which it happened. The clock is false: it
ticks once a turn, so timers are as repeatable as all the rest. Each turn is a run of its own,
because a loop with work at hand need not look at its timers in every turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from backends import PY312, Backend, asyncio_backend
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from turns import Clock

# On 3.14 Hypothesis misreads a reference count.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random`")

TURNS = 60
FUTURES = 4
SCRIPTS = 5
MOST_TASKS = 30

Instruction = tuple[Any, ...]
Program = list[list[Instruction]]

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default=0)


class Machine:
    """One run of a program on one kind of loop."""

    def __init__(self, backend: Backend, program: Program) -> None:
        self.backend = backend
        self.program = program
        self.loop = backend.new_event_loop()
        self.clock = Clock()
        self.loop.time = self.clock  # type: ignore[method-assign]
        self.turn = 0
        self.trace: list[Any] = []
        self.futures = [self.loop.create_future() for _ in range(FUTURES)]
        self.tasks: list[asyncio.Task[Any]] = []
        self.handles: list[asyncio.Handle] = []
        self.delays = 0

    def note(self, *what: Any) -> None:
        self.trace.append((self.turn, *what))

    # -- the run -----------------------------------------------------------------------------------

    def run(self) -> list[Any]:
        self.loop.set_exception_handler(self.report)
        for number in range(len(self.program)):
            self.spawn(number)
        for _ in range(TURNS):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            self.turn += 1
            self.clock.now += 1
        for number, future in enumerate(self.futures):
            self.note("future", number, outcome(future))
        for number, task in enumerate(self.tasks):
            self.note("task", number, outcome(task), task.cancelling())
        self.note("alive", sorted(self.name(task) for task in asyncio.all_tasks(self.loop)))
        for task in self.tasks:
            task._log_destroy_pending = False
            task._log_traceback = False
        for future in self.futures:
            future._log_traceback = False
        self.end()
        self.loop.close()
        return self.trace

    def end(self) -> None:
        """Bring to an end what still waits, as far as it can be."""
        self.loop.set_exception_handler(lambda *_: None)
        for _ in range(6):
            for thing in (*self.futures, *self.tasks):
                if not thing.done():
                    try:
                        thing.cancel()
                    except RecursionError:
                        continue
            for _ in range(4):
                self.loop.call_soon(self.loop.stop)
                self.loop.run_forever()

    def report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.note("report", context["message"].split("(")[0][:20], repr(context.get("exception")))

    def name(self, task: Any) -> str:
        return f"task {self.tasks.index(task)}" if task in self.tasks else "helper"

    def delay(self, turns: int) -> float:
        """A time of its own in that many turns: asyncio's heap shuffles equal deadlines."""
        self.delays += 1
        return turns + 0.3 + self.delays / 65536

    # -- instructions ------------------------------------------------------------------------------

    def spawn(self, number: int, *, eager: bool = False, stock: bool = False) -> None:
        if len(self.tasks) >= MOST_TASKS:
            return
        index = len(self.tasks)
        coro = self.script(index, self.program[number % len(self.program)])
        kind = asyncio.Task if stock else self.backend.Task
        # The eager step runs inside the constructor, before the task is in the list.
        self.tasks.append(None)  # type: ignore[arg-type]
        if eager and PY312:
            self.tasks[index] = kind(coro, loop=self.loop, eager_start=True)
        else:
            self.tasks[index] = kind(coro, loop=self.loop)
        self.tasks[index].set_name(str(index))

    def task(self, number: int) -> Any:
        task = self.tasks[number % len(self.tasks)]
        return self.futures[0] if task is None else task

    async def script(self, index: int, instructions: list[Instruction]) -> Any:
        self.note(index, "begins", variable.get())
        variable.set(index)
        swallow = False
        try:
            for instruction in instructions:
                if instruction[0] == "swallow":
                    swallow = not swallow
                    continue
                try:
                    await self.step(index, instruction)
                except asyncio.CancelledError as error:
                    self.note(index, instruction[0], "cancelled", error.args)
                    if not swallow:
                        raise
                except RecursionError:
                    self.note(index, instruction[0], "recursion")
                except Exception as error:
                    self.note(index, instruction[0], type(error).__name__, said(error))
                    if instruction[0] == "raise":
                        raise
            return index
        finally:
            self.note(index, "ends", variable.get())

    async def step(self, index: int, instruction: Instruction) -> None:
        verb, number, other, message = instruction
        loop, future = self.loop, self.futures[number % FUTURES]
        if verb == "sleep":
            for _ in range(number):
                await asyncio.sleep(0)
        elif verb == "nap":
            self.note(index, "slept", await asyncio.sleep(self.delay(number), number))
        elif verb == "await":
            self.note(index, "got", await future)
        elif verb == "await task":
            self.note(index, "got", await self.task(other))
        elif verb == "shield":
            self.note(index, "got", await asyncio.shield(future))
        elif verb == "wait for":
            self.note(index, "got", await asyncio.wait_for(future, self.delay(other)))
        elif verb == "timeout":
            async with asyncio.timeout(self.delay(other)):
                await future
        elif verb == "gather":
            things = [self.futures[(number + n) % FUTURES] for n in range(other % 4)]
            results = await asyncio.gather(*things, return_exceptions=message is None)
            self.note(index, "got", repr(results))
        elif verb == "wait":
            things = self.futures[: number % FUTURES + 1]
            when = asyncio.FIRST_COMPLETED if message is None else asyncio.ALL_COMPLETED
            done, _ = await asyncio.wait(things, timeout=self.delay(other), return_when=when)
            self.note(index, "done", sorted(things.index(each) for each in done))
        elif verb == "group":
            async with asyncio.TaskGroup() as group:
                for turns in range(other % 3):
                    group.create_task(asyncio.sleep(self.delay(turns)))
                await asyncio.sleep(self.delay(number))
        elif verb == "set":
            if not future.done():
                future.set_result((index, number))
        elif verb == "fail":
            if not future.done():
                future.set_exception(ValueError(number))
                future._log_traceback = False
        elif verb == "renew":
            if future.done():
                self.futures[number % FUTURES] = loop.create_future()
        elif verb == "cancel future":
            self.note(index, "cancels", future.cancel(message))
        elif verb == "cancel":
            self.note(index, "cancels", self.task(other).cancel(message))
        elif verb == "uncancel":
            task = asyncio.current_task()
            assert task is not None
            self.note(index, "uncancel", task.cancelling(), task.uncancel())
        elif verb == "spawn":
            self.spawn(number)
        elif verb == "spawn stock":
            self.spawn(number, stock=True)
        elif verb == "spawn eagerly":
            self.spawn(number, eager=True, stock=message is not None)
        elif verb == "callback":
            future.add_done_callback(lambda f: self.note("callback", index, outcome(f)))
        elif verb == "task callback":
            self.task(other).add_done_callback(lambda f: self.note("task callback", outcome(f)))
        elif verb == "soon":
            self.handles.append(loop.call_soon(self.note, "soon", index, number))
        elif verb == "later":
            delay = self.delay(number)
            self.handles.append(loop.call_later(delay, self.note, "later", index, number))
        elif verb == "unschedule":
            if self.handles:
                self.handles[other % len(self.handles)].cancel()
        elif verb == "raise":
            raise KeyError(number)
        elif verb == "look":
            self.note(index, variable.get(), asyncio.current_task() is self.tasks[index])
        elif verb == "vary":
            variable.set((index, number))
        elif verb == "broken callback":
            loop.call_soon(lambda: [][number])
        else:
            raise AssertionError(verb)


VERBS = (
    "sleep",
    "nap",
    "await",
    "await task",
    "shield",
    "wait for",
    "timeout",
    "gather",
    "wait",
    "group",
    "set",
    "fail",
    "renew",
    "cancel future",
    "cancel",
    "uncancel",
    "swallow",
    "spawn",
    "spawn stock",
    "spawn eagerly",
    "callback",
    "task callback",
    "soon",
    "later",
    "unschedule",
    "raise",
    "look",
    "vary",
    "broken callback",
)


def said(error: BaseException) -> str:
    """The message, without the addresses and names in it."""
    return str(error).split("<")[0][:40]


def outcome(thing: Any) -> tuple[Any, ...]:
    if not thing.done():
        return ("pending",)
    if thing.cancelled():
        return ("cancelled",)
    if (error := thing.exception()) is not None:
        return ("failed", type(error).__name__, said(error))
    return ("finished", thing.result())


# -- what programs are made of ---------------------------------------------------------------------

small = st.integers(0, 4)
message = st.sampled_from([None, "why", "again"])
instruction: st.SearchStrategy[Instruction] = st.tuples(
    st.sampled_from(VERBS), small, st.integers(0, 12), message
)
programs: st.SearchStrategy[Program] = st.lists(
    st.lists(instruction, min_size=2, max_size=9), min_size=2, max_size=SCRIPTS
)


@contextmanager
def undisturbed() -> Iterator[None]:
    """The collector runs between programs, or its reports come at another moment in each run."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect(0)


def compare(backend: Backend, program: Program) -> None:
    with undisturbed():
        expected = contextvars.copy_context().run(Machine(asyncio_backend(), program).run)
        got = contextvars.copy_context().run(Machine(backend, program).run)
    assert got == expected


@pytest.mark.slow
@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(program=programs)
@example([[("sleep", 1, 0, None), ("cancel", 0, 1, "why")], [("await", 0, 0, None)]])
@example([[("set", 0, 0, None), ("cancel", 0, 1, None)], [("await", 0, 0, None)]])
@example([[("spawn stock", 1, 0, None), ("await task", 0, 2, None)], [("nap", 1, 0, None)]])
@example([[("spawn eagerly", 1, 0, None), ("await task", 0, 2, None)], [("await", 0, 0, None)]])
@example([[("swallow", 0, 0, None), ("group", 2, 2, None)], [("cancel", 0, 0, "why")]])
def test_traces_agree(backend: Backend, program: Program) -> None:
    compare(backend, program)


@pytest.mark.slow
@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("soon"), small),
            st.tuples(st.just("threadsafe"), small),
            st.tuples(st.just("later"), st.integers(-2, 9)),
            st.tuples(st.just("cancel"), st.integers(0, 40)),
            st.tuples(st.just("turn"), small),
            st.tuples(st.just("nested"), small),
        ),
        max_size=60,
    )
)
def test_schedules_agree(backend: Backend, steps: list[tuple[str, int]]) -> None:
    """call_soon, timers and cancellations alone, from outside of any task."""

    def trace(kind: Backend) -> list[Any]:
        loop = kind.new_event_loop()
        clock = Clock()
        loop.time = clock  # type: ignore[method-assign]
        seen: list[Any] = []
        handles: list[asyncio.Handle] = []

        def note(number: int) -> None:
            seen.append((clock.now, number))

        def nested(number: int) -> None:
            seen.append((clock.now, "nested", number))
            handles.append(loop.call_soon(note, number))
            # No two timers with one deadline: asyncio's heap does not say which comes first.
            handles.append(loop.call_later(number + len(handles) / 1000, note, -number))

        for number, (verb, value) in enumerate(steps):
            if verb == "soon":
                handles.append(loop.call_soon(note, number))
            elif verb == "threadsafe":
                handles.append(loop.call_soon_threadsafe(note, number))
            elif verb == "later":
                handles.append(loop.call_later(value + number / 1000, note, number))
            elif verb == "nested":
                handles.append(loop.call_soon(nested, value))
            elif verb == "cancel" and handles:
                handles[value % len(handles)].cancel()
            elif verb == "turn":
                for _ in range(value):
                    loop.call_soon(loop.stop)
                    loop.run_forever()
                    clock.now += 1
        seen.append([handle.cancelled() for handle in handles])
        loop.close()
        return seen

    assert trace(backend) == trace(asyncio_backend())
