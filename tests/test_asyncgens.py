"""Asynchronous generators: hooks, finalisation, shutdown_asyncgens."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import warnings
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from backends import Backend
from children import program
from turns import turn

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_hooks_belong_to_the_running_loop(loop: asyncio.AbstractEventLoop) -> None:
    def mine(_: Any) -> None:
        pass

    kept = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=mine, finalizer=mine)
    try:
        seen: list[Any] = []
        loop.call_soon(lambda: seen.append(sys.get_asyncgen_hooks()))
        turn(loop)
        assert seen[0].firstiter is not mine
        assert sys.get_asyncgen_hooks() == (mine, mine)
    finally:
        sys.set_asyncgen_hooks(*kept)


def test_hooks_are_put_back_after_an_exit(loop: asyncio.AbstractEventLoop) -> None:
    kept = sys.get_asyncgen_hooks()
    loop.call_soon(sys.exit)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert sys.get_asyncgen_hooks() == kept


def test_dropped_generator_is_closed_by_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    seen: list[Any] = []

    async def generate() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())

    async def main() -> None:
        async for number in generate():
            assert number == 1
            break
        gc.collect()
        for _ in range(4):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert len(seen) == 1
    # In a task of its own.
    assert isinstance(seen[0], asyncio.Task)


def test_dropped_from_another_thread(loop: asyncio.AbstractEventLoop) -> None:
    import threading

    seen: list[int] = []

    async def generate() -> Any:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            seen.append(threading.get_ident())

    async def main() -> None:
        box = [generate()]
        await anext(box[0])
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join()
        for _ in range(5):
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert seen == [threading.get_ident()]


class TestShutdown:
    def test_closes_every_one(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        kept: list[Any] = []

        async def generate(number: int) -> Any:
            try:
                while True:
                    yield number
            finally:
                await asyncio.sleep(0)
                seen.append(number)

        async def main() -> None:
            for number in range(5):
                kept.append(generate(number))
                await anext(kept[-1])

        loop.run_until_complete(main())
        assert seen == []
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert sorted(seen) == [0, 1, 2, 3, 4]

    def test_nothing_to_do(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop.run_until_complete(loop.shutdown_asyncgens()) is None
        assert loop.run_until_complete(loop.shutdown_asyncgens()) is None

    def test_finished_ones_are_forgotten(self, loop: asyncio.AbstractEventLoop) -> None:
        async def generate() -> Any:
            yield 1

        alive: list[weakref.ref[Any]] = []

        async def main() -> None:
            made = generate()
            alive.append(weakref.ref(made))
            assert [number async for number in made] == [1]

        loop.run_until_complete(main())
        gc.collect()
        assert alive[0]() is None

    def test_errors_are_reported(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        async def generate() -> Any:
            try:
                yield 1
            finally:
                raise ZeroDivisionError

        async def main() -> Any:
            made = generate()
            await anext(made)
            return made

        made = loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert len(reports) == 1
        assert set(reports[0]) == {"message", "exception", "asyncgen"}
        assert reports[0]["message"].startswith(
            "an error occurred during closing of asynchronous generator <async_generator object"
        )
        assert reports[0]["asyncgen"] is made

    def test_started_after_shutdown(self, loop: asyncio.AbstractEventLoop) -> None:
        async def generate() -> Any:
            yield 1

        async def main() -> None:
            await loop.shutdown_asyncgens()
            made = generate()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                await anext(made)
            assert len(caught) == 1
            assert caught[0].category is ResourceWarning
            assert str(caught[0].message).startswith("asynchronous generator <async_generator")
            assert str(caught[0].message).endswith(
                "was scheduled after loop.shutdown_asyncgens() call"
            )
            await made.aclose()

        loop.run_until_complete(main())

    def test_run_closes_them(self, run: Run) -> None:
        seen: list[str] = []
        kept: list[Any] = []

        async def generate() -> Any:
            try:
                yield 1
            finally:
                seen.append("closed")

        async def main() -> None:
            kept.append(generate())
            await anext(kept[0])

        run(main())
        assert seen == ["closed"]


def test_the_order_of_the_end(run: Run) -> None:
    """Tasks first, with the context managers that they are in, then generators that are left."""
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def managed(name: str) -> Any:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            events.append(f"manager of {name}")

    async def generate(name: str) -> Any:
        try:
            while True:
                yield
        finally:
            await asyncio.sleep(0)
            events.append(f"generator of {name}")

    async def work() -> None:
        made = generate("the task")
        async with managed("the task"), contextlib.aclosing(made):
            await anext(made)
            await asyncio.Event().wait()

    async def main() -> None:
        events.append("begun")
        tasks.append(asyncio.ensure_future(work()))
        kept.append(generate("nobody"))
        await anext(kept[0])
        await asyncio.sleep(0)
        await asyncio.to_thread(events.append, "thread")
        async with managed("the main task"):
            events.append("ended")

    kept: list[Any] = []
    tasks: list[Any] = []
    run(main())
    assert events == [
        "begun",
        "thread",
        "ended",
        "manager of the main task",
        "generator of the task",
        "manager of the task",
        "generator of nobody",
    ]
    assert tasks[0].cancelled()


def test_generator_of_another_loop(loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
    """Begun on one loop, gone on with on another: no error from the hooks."""

    async def generate() -> Any:
        for number in range(3):
            yield number

    made = generate()

    async def step() -> Any:
        return await anext(made)

    other = backend.new_event_loop()
    assert loop.run_until_complete(step()) == 0
    assert other.run_until_complete(step()) == 1
    loop.run_until_complete(made.aclose())
    other.close()


def test_loop_closed_before_the_generator_dies(backend: Backend) -> None:
    """The finaliser finds a closed loop, and says nothing but asyncio's own words."""

    async def generate() -> Any:
        try:
            yield 1
        finally:
            pass

    loop = backend.new_event_loop()
    kept = [generate()]

    async def step() -> None:
        await anext(kept[0])

    loop.run_until_complete(step())
    loop.close()
    kept.clear()
    gc.collect()


@pytest.mark.child
def test_left_open_at_the_end_of_the_interpreter(backend: Backend) -> None:
    source = """
    async def generate():
        try:
            while True:
                yield 1
        finally:
            pass
    loop = new_event_loop()
    made = generate()
    async def step():
        return await anext(made)
    print(loop.run_until_complete(step()))
    """
    ended = program(backend, source, "-W", "ignore")
    assert (ended.code, ended.out) == (0, "1\n")
    assert "Traceback" not in ended.err
