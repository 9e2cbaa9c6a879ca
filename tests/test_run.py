"""weft.run and asyncio.Runner on Weft, beside asyncio.run and asyncio.Runner."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import re
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from backends import PY312, Backend
from children import program
from turns import raised

Factory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def run_function(backend: Backend) -> Callable[..., Any]:
    """`asyncio.run`, and `weft.run` where Weft is tested."""
    if backend.is_weft:
        import weft

        return weft.run
    return asyncio.run


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


class TestRun:
    def test_result(self, run_function: Callable[..., Any]) -> None:
        assert run_function(answer()) == 42

    def test_on_the_right_loop(self, run_function: Callable[..., Any], backend: Backend) -> None:
        async def look() -> Any:
            return type(asyncio.get_running_loop()), type(asyncio.current_task())

        loop_type, task_type = run_function(look())
        assert issubclass(loop_type, backend.loop_class)
        assert task_type is backend.Task

    def test_exception(self, run_function: Callable[..., Any]) -> None:
        async def fail() -> None:
            raise ZeroDivisionError("inside")

        with pytest.raises(ZeroDivisionError, match="inside"):
            run_function(fail())

    def test_cancelled(self, run_function: Callable[..., Any]) -> None:
        async def cancel() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel("own")
            await asyncio.sleep(0)

        with pytest.raises(asyncio.CancelledError, match="own"):
            run_function(cancel())

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_base_exceptions(
        self, run_function: Callable[..., Any], kind: type[BaseException]
    ) -> None:
        async def leave() -> None:
            raise kind

        with pytest.raises(kind):
            run_function(leave())
        assert run_function(answer()) == 42

    def test_debug(self, run_function: Callable[..., Any]) -> None:
        async def look() -> bool:
            return asyncio.get_running_loop().get_debug()

        assert run_function(look()) is sys.flags.dev_mode
        assert run_function(look(), debug=None) is sys.flags.dev_mode
        assert run_function(look(), debug=True) is True
        assert run_function(look(), debug=False) is False

    def test_signature(self, run_function: Callable[..., Any]) -> None:
        coro = answer()
        with pytest.raises(TypeError):
            run_function(coro, True)
        with pytest.raises(TypeError):
            run_function()
        coro.close()

    @pytest.mark.parametrize("thing", [None, 1, "text", answer, object()])
    def test_not_a_coroutine(self, run_function: Callable[..., Any], thing: Any) -> None:
        error, message = raised(run_function, thing)
        # A ValueError up to 3.13; since 3.14 other awaitables are welcome, the rest a TypeError.
        if error is ValueError:
            assert message == f"a coroutine was expected, got {thing!r}"
        else:
            assert error is TypeError
            assert message == "An asyncio.Future, a coroutine or an awaitable is required" or (
                message == f"a coroutine was expected, got {thing!r}"
            )

    def test_inside_a_running_loop(
        self, run_function: Callable[..., Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        async def main() -> tuple[type, str]:
            coro = answer()
            error = raised(run_function, coro)
            coro.close()
            return error

        error, message = loop.run_until_complete(main())
        assert error is RuntimeError
        assert re.fullmatch(
            r"(asyncio|weft)\.run\(\) cannot be called from a running event loop", message
        )

    def test_what_is_left_is_cancelled(self, run_function: Callable[..., Any]) -> None:
        seen: list[str] = []

        async def left(name: str) -> None:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                seen.append(name)
                raise

        async def main() -> None:
            for name in "abc":
                asyncio.ensure_future(left(name))
            await asyncio.sleep(0)

        run_function(main())
        assert sorted(seen) == ["a", "b", "c"]

    def test_what_is_left_and_fails_is_reported(
        self, run_function: Callable[..., Any], reports: list[dict[str, Any]]
    ) -> None:
        async def left() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                raise ZeroDivisionError

        async def main() -> None:
            asyncio.ensure_future(left())
            await asyncio.sleep(0)

        run_function(main())
        assert len(reports) == 1
        assert reports[0]["message"] == "unhandled exception during asyncio.run() shutdown"
        assert set(reports[0]) == {"message", "exception", "task"}

    def test_asynchronous_generators_are_closed(self, run_function: Callable[..., Any]) -> None:
        seen: list[str] = []
        kept: list[Any] = []

        async def generate() -> Any:
            try:
                while True:
                    yield 1
            finally:
                await asyncio.sleep(0)
                seen.append("closed")

        async def main() -> None:
            made = generate()
            kept.append(made)
            await anext(made)

        run_function(main())
        assert seen == ["closed"]

    def test_executor_is_shut_down(self, run_function: Callable[..., Any]) -> None:
        threads: list[threading.Thread] = []

        async def main() -> None:
            threads.append(await asyncio.to_thread(threading.current_thread))

        run_function(main())
        assert not threads[0].is_alive()

    def test_the_loop_is_closed(self, run_function: Callable[..., Any]) -> None:
        loops: list[asyncio.AbstractEventLoop] = []

        async def main() -> None:
            loops.append(asyncio.get_running_loop())

        run_function(main())
        assert loops[0].is_closed()
        alive = weakref.ref(loops.pop())
        gc.collect()
        assert alive() is None

    def test_leaves_no_current_loop(self, run_function: Callable[..., Any]) -> None:
        run_function(answer())
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

    def test_main_task_that_outlives_its_loop(self, run_function: Callable[..., Any]) -> None:
        async def main() -> Any:
            return asyncio.current_task()

        task = run_function(main())
        assert task.done()
        assert task.result() is task
        assert "main() done" in repr(task)

    @pytest.mark.skipif(not PY312, reason="asyncio.run(loop_factory=) came with 3.12")
    def test_asyncio_run_with_our_factory(self, loop_factory: Factory, backend: Backend) -> None:
        async def look() -> type:
            return type(asyncio.get_running_loop())

        assert issubclass(asyncio.run(look(), loop_factory=loop_factory), backend.loop_class)

    def test_in_threads(self, run_function: Callable[..., Any]) -> None:
        results: list[int] = []
        threads = [
            threading.Thread(target=lambda: results.append(run_function(answer())))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [42] * 5

    def test_nested_in_a_thread(self, run_function: Callable[..., Any]) -> None:
        async def main() -> int:
            return await asyncio.to_thread(run_function, answer())

        assert run_function(main()) == 42

    def test_many_times(self, run_function: Callable[..., Any]) -> None:
        for _ in range(100):
            assert run_function(answer()) == 42

    def test_sigint_handler_is_put_back(self, run_function: Callable[..., Any]) -> None:
        seen: list[Any] = []

        async def main() -> None:
            seen.append(signal.getsignal(signal.SIGINT))

        run_function(main())
        assert seen[0] is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_sigint_handler_of_ones_own_stays(self, run_function: Callable[..., Any]) -> None:
        def own(number: int, frame: Any) -> None:
            pass

        kept = signal.signal(signal.SIGINT, own)
        try:
            seen: list[Any] = []

            async def main() -> None:
                seen.append(signal.getsignal(signal.SIGINT))

            run_function(main())
            assert seen == [own]
            assert signal.getsignal(signal.SIGINT) is own
        finally:
            signal.signal(signal.SIGINT, kept)


class TestRunner:
    def test_several_runs_on_one_loop(self, loop_factory: Factory) -> None:
        async def look() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            first = runner.run(look())
            assert runner.run(look()) is first
            assert runner.get_loop() is first
        assert first.is_closed()

    def test_lazy(self, loop_factory: Factory) -> None:
        made: list[asyncio.AbstractEventLoop] = []

        def factory() -> asyncio.AbstractEventLoop:
            made.append(loop_factory())
            return made[-1]

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop()
            runner.get_loop()
        assert len(made) == 1

    def test_tasks_go_on_between_runs(self, loop_factory: Factory) -> None:
        seen: list[int] = []

        async def background() -> None:
            for number in range(4):
                seen.append(number)
                await asyncio.sleep(0)

        async def start() -> asyncio.Task[None]:
            return asyncio.ensure_future(background())

        async def wait(task: asyncio.Task[None]) -> None:
            await task

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            task = runner.run(start())
            count = len(seen)
            runner.run(wait(task))
            assert count < 4
        assert seen == [0, 1, 2, 3]

    def test_context(self, loop_factory: Factory) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

        async def write() -> None:
            variable.set("written")

        async def read() -> str:
            return variable.get("unset")

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(write())
            assert runner.run(read()) == "written"
            assert runner.run(read(), context=contextvars.Context()) == "unset"

    def test_debug(self, loop_factory: Factory) -> None:
        with asyncio.Runner(debug=True, loop_factory=loop_factory) as runner:
            assert runner.get_loop().get_debug() is True

    def test_closed(self, loop_factory: Factory) -> None:
        runner = asyncio.Runner(loop_factory=loop_factory)
        runner.run(answer())
        runner.close()
        runner.close()
        coro = answer()
        assert raised(runner.run, coro) == (RuntimeError, "Runner is closed")
        coro.close()

    def test_without_a_run(self, loop_factory: Factory) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            assert not runner.get_loop().is_running()

    def test_the_current_loop_is_that_of_the_runner(self, loop_factory: Factory) -> None:
        def synchronous() -> Any:
            return asyncio.get_event_loop()

        async def main() -> Any:
            return synchronous()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            assert runner.run(main()) is runner.get_loop()


@pytest.mark.child
class TestShutdown:
    """A program's last moments: exit code and what is printed, beside asyncio's."""

    def test_exit_code(self, backend: Backend) -> None:
        source = """
        import sys
        async def main():
            sys.exit(7)
        run(main())
        """
        ended = program(backend, source)
        assert (ended.code, ended.out, ended.err) == (7, "", "")

    def test_sys_exit_in_a_callback(self, backend: Backend) -> None:
        source = """
        import sys
        async def main():
            asyncio.get_running_loop().call_soon(sys.exit, 5)
            try:
                await asyncio.sleep(100)
            finally:
                print("cleaned up")
        run(main())
        """
        ended = program(backend, source)
        assert (ended.code, ended.out, ended.err) == (5, "cleaned up\n", "")

    def test_uncaught_exception(self, backend: Backend) -> None:
        source = """
        async def inner():
            raise ValueError("uncaught")
        async def main():
            await inner()
        run(main())
        """
        ended = program(backend, source)
        assert ended.code == 1
        assert ended.out == ""
        lines = ended.err.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[-1] == "ValueError: uncaught"
        assert any("in inner" in line for line in lines)

    @pytest.mark.parametrize("how", ["unclosed", "pending task", "pending and unclosed", "ready"])
    def test_left_open_at_the_end(self, backend: Backend, how: str) -> None:
        """Loops and tasks are still there when the interpreter ends."""
        body = {
            "unclosed": "loop.run_until_complete(asyncio.sleep(0))",
            "pending task": """
task = loop.create_task(wait())
loop.run_until_complete(asyncio.sleep(0))
loop.close()
""",
            "pending and unclosed": """
task = loop.create_task(wait())
loop.call_later(100, print, "never")
loop.run_until_complete(asyncio.sleep(0))
""",
            "ready": """
loop.call_soon(print, "never")
loop.call_later(0, print, "never")
future = loop.create_future()
future.add_done_callback(print)
future.set_result(1)
other = loop.create_future()
other.set_exception(ValueError("never retrieved"))
""",
        }[how]
        source = (
            """
async def wait():
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        pass
loop = new_event_loop()
"""
            + body
            + """
print("end", flush=True)
"""
        )
        ended = program(backend, source, "-W", "ignore")
        assert ended.code == 0
        assert ended.out == "end\n"
        # What asyncio logs on its way out depends on who dies first; a traceback or a crash of the
        # interpreter itself must not be among it.
        allowed = (
            "Task was destroyed but it is pending!",
            "task: <Task pending",
            "Future exception was never retrieved",
            "future: <Future finished",
            "ValueError: never retrieved",
        )
        for line in ended.err.splitlines():
            assert line.startswith(allowed), ended.err

    def test_threads_of_the_executor_do_not_keep_it(self, backend: Backend) -> None:
        source = """
        import time
        async def main():
            asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.05)
            print("main ends")
        run(main())
        print("end")
        """
        assert program(backend, source).check() == "main ends\nend\n"

    def test_os_exit_in_a_task(self, backend: Backend) -> None:
        source = """
        import os
        async def main():
            os._exit(3)
        run(main())
        """
        assert program(backend, source).code == 3

    def test_atexit_can_run_a_loop(self, backend: Backend) -> None:
        source = """
        import atexit
        async def bye():
            await asyncio.sleep(0.001)
            print("bye")
        atexit.register(lambda: run(bye()))
        async def main():
            await asyncio.sleep(0)
        run(main())
        """
        assert program(backend, source).check() == "bye\n"

    def test_globals_hold_everything(self, backend: Backend) -> None:
        """Objects of every type die with the module's globals, in whatever order."""
        source = """
        import warnings
        warnings.simplefilter("ignore")
        loop = new_event_loop()
        handle = loop.call_soon(print)
        timer = loop.call_later(1000, print)
        future = loop.create_future()
        iterator = future.__await__()
        next(iterator)
        async def done():
            pass
        task = loop.create_task(done())
        loop.run_until_complete(asyncio.sleep(0))
        cycle = [loop, handle, timer, future, iterator, task]
        cycle.append(cycle)
        loop.close()
        """
        ended = program(backend, source)
        assert (ended.code, ended.err) == (0, "")

    def test_daemon_thread_with_a_loop(self, backend: Backend) -> None:
        """The interpreter ends while a loop runs in a daemon thread."""
        source = """
        import threading, time
        started = threading.Event()
        async def spin():
            started.set()
            while True:
                await asyncio.sleep(0)
        threading.Thread(target=lambda: run(spin()), daemon=True).start()
        started.wait()
        time.sleep(0.02)
        print("end")
        """
        for _ in range(3):
            ended = program(backend, source)
            assert (ended.code, ended.out) == (0, "end\n"), ended.err

    def test_daemon_thread_with_a_sleeping_loop(self, backend: Backend) -> None:
        source = """
        import threading
        started = threading.Event()
        async def sleep():
            asyncio.get_running_loop().call_soon(started.set)
            await asyncio.sleep(1000)
        threading.Thread(target=lambda: run(sleep()), daemon=True).start()
        started.wait()
        print("end")
        """
        ended = program(backend, source)
        assert (ended.code, ended.out) == (0, "end\n"), ended.err

    def test_dev_mode_is_silent(self, backend: Backend) -> None:
        """`-X dev` turns on every warning and asyncio's debug: a clean program prints nothing."""
        source = """
        import socket
        async def serve(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        async def main():
            assert asyncio.get_running_loop().get_debug()
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            async with server:
                port = server.sockets[0].getsockname()[1]
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello\\n")
                print(await reader.read())
                writer.close()
                await writer.wait_closed()
            await asyncio.to_thread(print, "thread")
            await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(10)))
        run(main())
        """
        # On a slow machine asyncio may note that a step took longer than 100 ms.
        ended = program(backend, source, "-X", "dev")
        assert (ended.code, ended.out) == (0, "b'hello\\n'\nthread\n"), ended.err
        for line in ended.err.splitlines():
            assert line.startswith("Executing <"), ended.err

    def test_import_time(self, backend: Backend) -> None:
        """The import of what a program needs pulls in no more than asyncio does."""
        source = """
        import sys
        print(sorted(name for name in sys.modules if name in (
            "numpy", "uvloop", "pytest", "typing_extensions", "hypothesis", "multiprocessing")))
        """
        assert program(backend, source).check() == "[]\n"


def test_python_version_is_supported() -> None:
    assert sys.version_info >= (3, 11)
