"""asyncio.all_tasks and current_task see every task, whichever module was imported first."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from backends import PY312, Backend
from children import program, python
from turns import turn


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


class TestAllTasks:
    def test_pending_ones_of_the_running_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            own = asyncio.current_task()
            assert asyncio.all_tasks() == {own}
            tasks = {asyncio.ensure_future(forever()) for _ in range(10)}
            assert asyncio.all_tasks() == tasks | {own}
            assert asyncio.all_tasks(loop) == tasks | {own}
            gone = tasks.pop()
            gone.cancel()
            assert gone in asyncio.all_tasks()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == tasks | {own}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert asyncio.all_tasks() == {own}

        loop.run_until_complete(main())
        assert asyncio.all_tasks(loop) == set()

    def test_without_a_running_loop(self) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.all_tasks()

    def test_is_a_set_of_its_own(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(asyncio.sleep(0))
        seen = asyncio.all_tasks(loop)
        assert type(seen) is set
        seen.clear()
        assert asyncio.all_tasks(loop) == {task}
        loop.run_until_complete(task)

    def test_by_loop(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        other = backend.new_event_loop()
        mine, theirs = loop.create_task(asyncio.sleep(0)), other.create_task(asyncio.sleep(0))
        assert asyncio.all_tasks(loop) == {mine}
        assert asyncio.all_tasks(other) == {theirs}
        loop.run_until_complete(mine)
        other.run_until_complete(theirs)
        other.close()

    def test_never_started(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(forever())
        assert asyncio.all_tasks(loop) == {task}
        task.cancel()
        assert asyncio.all_tasks(loop) == {task}
        turn(loop)
        assert asyncio.all_tasks(loop) == set()

    def test_does_not_keep_them(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(forever())
        turn(loop)
        task._log_destroy_pending = False
        asyncio.all_tasks(loop)
        del task
        gc.collect()
        assert asyncio.all_tasks(loop) == set()

    def test_of_a_closed_loop(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        task = loop.create_task(forever())
        turn(loop)
        loop.close()
        assert asyncio.all_tasks(loop) == {task}
        task._log_destroy_pending = False

    def test_seen_from_another_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        """A watchdog thread looks at the tasks of the loop of the main thread."""
        tasks = {loop.create_task(forever()) for _ in range(5)}
        turn(loop)
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(asyncio.all_tasks(loop)))
        thread.start()
        thread.join()
        assert seen == [tasks]
        for task in tasks:
            task.cancel()
        turn(loop, 2)

    @pytest.mark.slow
    def test_asked_while_another_thread_makes_them(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        stop = threading.Event()
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                while not stop.is_set():
                    for task in asyncio.all_tasks(loop):
                        repr(task)
                        task.get_name()
            except BaseException as error:
                errors.append(error)

        async def main() -> None:
            for _ in range(300):
                await asyncio.gather(*(asyncio.sleep(0) for _ in range(30)))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            loop.run_until_complete(main())
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        # A coroutine that goes away while its repr is made is asyncio's own trouble.
        assert all(isinstance(error, RuntimeError) for error in errors)

    def test_iterated_while_they_end(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            tasks = [asyncio.ensure_future(asyncio.sleep(0)) for _ in range(100)]
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
                    await asyncio.sleep(0)
            assert all(task.done() for task in tasks)

        loop.run_until_complete(main())

    def test_cancel_all_of_runner(self, backend: Backend) -> None:
        """`asyncio.run` finds every task that is left, and ends it."""
        ended: list[str] = []

        async def left(name: str) -> None:
            try:
                await forever()
            finally:
                ended.append(name)

        async def main() -> None:
            for number in range(3):
                asyncio.ensure_future(left(f"own {number}"))
                asyncio.Task(left(f"stock {number}"))
            await asyncio.sleep(0)

        backend.run(main())
        assert sorted(ended) == sorted(f"{k} {n}" for k in ("own", "stock") for n in range(3))


class TestRegistration:
    """`_register_task` and friends: for tasks that are no subclass of asyncio's."""

    def test_foreign_task(self, loop: asyncio.AbstractEventLoop) -> None:
        class Foreign:
            _loop = loop

            def get_loop(self) -> Any:
                return self._loop

            def done(self) -> bool:
                return False

        foreign = Foreign()
        asyncio.tasks._register_task(foreign)  # type: ignore[arg-type]
        try:
            assert foreign in asyncio.all_tasks(loop)  # type: ignore[comparison-overlap]
        finally:
            asyncio.tasks._unregister_task(foreign)  # type: ignore[arg-type]
        assert asyncio.all_tasks(loop) == set()

    def test_registered_twice(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(asyncio.sleep(0))
        asyncio.tasks._register_task(task)
        assert asyncio.all_tasks(loop) == {task}
        loop.run_until_complete(task)
        assert asyncio.all_tasks(loop) == set()

    def test_unregistered(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(asyncio.sleep(0))
        asyncio.tasks._unregister_task(task)
        assert asyncio.all_tasks(loop) == set()
        loop.run_until_complete(task)

    @pytest.mark.skipif(not PY312, reason="_register_eager_task came with 3.12")
    def test_eager(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(asyncio.sleep(0))
        asyncio.tasks._register_eager_task(task)
        assert asyncio.all_tasks(loop) == {task}
        asyncio.tasks._unregister_eager_task(task)
        loop.run_until_complete(task)


ORDERS = {
    "weft first": "import weft\nimport asyncio\n",
    "asyncio first": "import asyncio\nimport weft\n",
    "names taken before": (
        "from asyncio import all_tasks, current_task\n"
        "from asyncio.tasks import all_tasks as again\n"
        "import asyncio\nimport weft\n"
    ),
    "names taken after": (
        "import weft\nimport asyncio\n"
        "from asyncio import all_tasks, current_task\n"
        "from asyncio.tasks import all_tasks as again\n"
    ),
    "a loop was made before": (
        "import asyncio\n"
        "asyncio.SelectorEventLoop().close()\n"
        "asyncio.Runner().run(asyncio.sleep(0))\n"
        "import weft\n"
    ),
    "tasks were alive before": (
        "import asyncio\n"
        "early_loop = asyncio.SelectorEventLoop()\n"
        "early = early_loop.create_task(asyncio.sleep(0, 'early'))\n"
        "assert asyncio.all_tasks(early_loop) == {early}\n"
        "import weft\n"
        "weft.new_event_loop().close()\n"
        "assert asyncio.all_tasks(early_loop) == {early}\n"
        "assert early_loop.run_until_complete(early) == 'early'\n"
        "assert asyncio.all_tasks(early_loop) == set()\n"
        "early_loop.close()\n"
    ),
    "weft._weft alone": "import weft._weft\nimport asyncio\nimport weft\n",
}

CHECK = """
import warnings
warnings.simplefilter("ignore", ResourceWarning)
asked = globals().get("all_tasks", asyncio.all_tasks)
current = globals().get("current_task", asyncio.current_task)

async def child():
    await asyncio.sleep(0)
    assert current() is asyncio.current_task()
    return current()

async def main():
    own = current()
    assert own is not None
    task = asyncio.ensure_future(child())
    stock = asyncio.Task(child())
    assert asked() == {own, task, stock} == asyncio.all_tasks() == asyncio.tasks.all_tasks()
    if "again" in globals():
        assert again() == {own, task, stock}
    assert await task is task
    assert await stock is stock
    assert asked() == {own}
    print("right")

weft.run(main())
asyncio.Runner().run(main())
"""


@pytest.mark.child
class TestImportOrder:
    @pytest.mark.backends("weft")
    @pytest.mark.parametrize("order", ORDERS)
    def test_any(self, backend: Backend, order: str) -> None:
        assert python("-W", "ignore", "-c", ORDERS[order] + CHECK).check() == "right\nright\n"

    @pytest.mark.backends("weft")
    def test_importing_changes_nothing(self, backend: Backend) -> None:
        """No attribute of asyncio's modules and classes is another after `import weft`."""
        source = """
        import asyncio, sys, gc
        import asyncio.events, asyncio.futures, asyncio.tasks, asyncio.base_events, _asyncio
        import asyncio.unix_events, asyncio.selector_events, asyncio.runners

        def state():
            seen = {}
            for name, module in sorted(sys.modules.items()):
                if name == "_asyncio" or name.split(".")[0] in ("asyncio", "socket", "selectors",
                        "signal", "contextvars", "threading", "weakref", "ssl", "subprocess"):
                    for key, value in vars(module).items():
                        seen[name, key] = (id(value), type(value))
                        if isinstance(value, type):
                            for attribute, inner in vars(value).items():
                                seen[name, key, attribute] = (id(inner), type(inner))
            return seen

        before = state()
        hooks = sys.get_asyncgen_hooks(), sys.getswitchinterval(), sys.gettrace(), sys.getprofile()
        modules = set(sys.modules)
        import weft
        after = state()
        changed = [key for key in before if after.get(key) != before[key]]
        # What importing other modules adds is not weft's doing, what it changes is.
        print("changed", changed)
        assert hooks == (sys.get_asyncgen_hooks(), sys.getswitchinterval(), sys.gettrace(),
                         sys.getprofile())
        print(type(asyncio.SelectorEventLoop()).__name__, asyncio.Future, asyncio.Task)
        """
        out = program(backend, "").check()
        assert out == ""
        ended = python("-W", "ignore", "-c", "import textwrap\n" + _dedent(source))
        lines = ended.check().splitlines()
        assert lines[0] == "changed []"
        assert lines[1] == (
            "_UnixSelectorEventLoop <class '_asyncio.Future'> <class '_asyncio.Task'>"
        )


def _dedent(source: str) -> str:
    import textwrap

    return textwrap.dedent(source)
