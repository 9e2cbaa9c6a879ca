"""The threads of the default executor at the end of the interpreter, and in the child of a fork.

Everything happens in a child interpreter.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest
from backends import Backend
from children import child_environment, program

pytestmark = pytest.mark.child


class TestExit:
    def test_exit_waits_for_what_runs(self, backend: Backend) -> None:
        """And for what was in the queue: no thread is cut off."""
        source = """
        import os, threading, time
        started = threading.Event()
        def work(number):
            started.set()
            time.sleep(0.02)
            os.write(1, b"%d " % number)
        loop = new_event_loop()
        for number in range(3):
            loop.run_in_executor(None, work, number)
        started.wait()
        loop.close()
        """
        assert sorted(program(backend, source).check().split()) == ["0", "1", "2"]

    def test_exit_with_an_open_loop(self, backend: Backend) -> None:
        source = """
        import time, warnings
        warnings.simplefilter("ignore", ResourceWarning)
        loop = new_event_loop()
        loop.run_in_executor(None, lambda: (time.sleep(0.05), print("done", flush=True)))
        """
        assert program(backend, source).check() == "done\n"

    def test_exit_with_idle_threads(self, backend: Backend) -> None:
        source = """
        import warnings
        warnings.simplefilter("ignore", ResourceWarning)
        loop = new_event_loop()
        loop.run_until_complete(asyncio.to_thread(int))
        kept = loop._default_executor
        """
        assert program(backend, source).check() == ""

    def test_exit_by_an_exception_while_jobs_run(self, backend: Backend) -> None:
        source = """
        import sys, time
        async def main():
            loop = asyncio.get_running_loop()
            for _ in range(10):
                loop.run_in_executor(None, time.sleep, 0.01)
            sys.exit(7)
        run(main())
        """
        ended = program(backend, source)
        assert (ended.code, ended.err) == (7, "")

    def test_work_at_exit(self, backend: Backend) -> None:
        source = """
        import atexit
        loop = new_event_loop()
        loop.run_until_complete(asyncio.to_thread(int))
        def late():
            try:
                loop.run_in_executor(None, int)
            except RuntimeError as error:
                print(error)
            loop.close()
        atexit.register(late)
        """
        assert program(backend, source).check() == "cannot schedule new futures after shutdown\n"

    def test_interrupt_while_exit_waits(self, backend: Backend) -> None:
        """A second Ctrl-C gives up waiting for a thread; the process ends without a crash."""
        source = """
        import threading, time
        loop = new_event_loop()
        def work():
            print("started", flush=True)
            for _ in range(100):
                time.sleep(0.01)
        loop.run_in_executor(None, work)
        loop.close()
        """
        child = subprocess.Popen(
            [sys.executable, "-c", backend.prelude + textwrap.dedent(source)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        assert child.stdout
        assert child.stdout.readline() == "started\n"
        time.sleep(0.1)
        child.send_signal(2)
        _, err = child.communicate(timeout=20)
        assert "KeyboardInterrupt" in err
        assert child.returncode >= 0 or child.returncode == -2

    def test_exception_in_an_exiting_thread(self, backend: Backend) -> None:
        source = """
        import threading
        class Bad:
            def __del__(self):
                raise ValueError
        loop = new_event_loop()
        local = threading.local()
        def work():
            local.bad = Bad()
        loop.run_until_complete(loop.run_in_executor(None, work))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """
        ended = program(backend, source)
        assert ended.code == 0
        assert "Exception ignored" in ended.err


class TestFork:
    def test_child_and_parent(self, backend: Backend) -> None:
        """The child has no threads; a loop of its own starts new ones. The parent's go on."""
        source = """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        async def main():
            print(await asyncio.to_thread(abs, 1), flush=True)
            pid = os.fork()
            if not pid:
                asyncio._set_running_loop(None)
                print(run(asyncio.to_thread(abs, 2)), flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            print(await asyncio.to_thread(abs, 3), flush=True)
        run(main())
        """
        assert program(backend, source).check() == "1\n2\n3\n"

    def test_fork_in_a_thread(self, backend: Backend) -> None:
        source = """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        def work():
            pid = os.fork()
            if not pid:
                print(run(asyncio.to_thread(abs, 2)), flush=True)
                os._exit(3)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(run(asyncio.to_thread(work)))
        """
        assert program(backend, source).check() == "2\n3\n"

    @pytest.mark.backends("weft")
    def test_inherited_executor_in_the_child(self, backend: Backend) -> None:
        """It starts its threads anew, and forgets the parent's work. (asyncio's waits for ever.)"""
        source = """
        import os, threading, time, warnings
        warnings.simplefilter("ignore")
        loop = new_event_loop()
        release = threading.Event()
        loop.run_until_complete(asyncio.to_thread(int))
        parent, seen = os.getpid(), []
        def work():
            release.wait(10)
            seen.append(os.getpid() == parent)
        for _ in range(60):
            loop.run_in_executor(None, work)
        pid = os.fork()
        if not pid:
            release.set()
            print(loop._default_executor.submit(abs, 5).result(5), seen, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        release.set()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        print(seen == [True] * 60)
        """
        assert program(backend, source).check() == "5 []\nTrue\n"
