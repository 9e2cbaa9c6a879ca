"""Subprocesses: their pipes, their ends, and what they are given."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest
from backends import Backend
from peers import Run

# A child is a process: even the shortest takes its time.
pytestmark = pytest.mark.slow

PYTHON = sys.executable


async def python(source: str, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(PYTHON, "-I", "-c", source, *arguments, **options)


def test_communicate(run: Run) -> None:
    async def main() -> None:
        child = await python(
            "import sys; text = sys.stdin.read(); print(text.upper());"
            "print('aside', file=sys.stderr); sys.exit(3)",
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        assert child.pid
        assert child.returncode is None
        assert await child.communicate(b"quiet") == (b"QUIET\n", b"aside\n")
        assert child.returncode == 3

    run(main())


def test_much_through_both_pipes(run: Run) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        data = os.urandom(8 << 20)
        out, _ = await child.communicate(data)
        assert out == data

    run(main())


def test_line_by_line(run: Run) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        for number in range(20):
            child.stdin.write(b"line %d\n" % number)
            await child.stdin.drain()
            assert await child.stdout.readline() == b"line %d\n" % number
        child.stdin.close()
        await child.stdin.wait_closed()
        assert await child.stdout.read() == b""
        assert await child.wait() == 0

    run(main())


def test_shell_and_redirections(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with (tmp_path / "out").open("wb") as file:
            child = await asyncio.create_subprocess_shell(
                "echo out; echo err >&2", stdout=file, stderr=STDOUT, stdin=DEVNULL
            )
            assert await child.wait() == 0
        assert (tmp_path / "out").read_bytes() == b"out\nerr\n"

    run(main())


def test_signals(run: Run) -> None:
    async def main() -> None:
        for method, number in (
            (lambda child: child.terminate(), signal.SIGTERM),
            (lambda child: child.kill(), signal.SIGKILL),
            (lambda child: child.send_signal(signal.SIGINT), signal.SIGINT),
        ):
            child = await asyncio.create_subprocess_exec("sleep", "100")
            method(child)
            assert await child.wait() == -number
            with pytest.raises(ProcessLookupError):
                child.send_signal(signal.SIGTERM)

    run(main())


def test_arguments_reach_the_child(run: Run, tmp_path: Path) -> None:
    """Every one of Popen's; preexec_fn too."""

    async def main() -> None:
        source = (
            "import os, sys; print(os.getcwd(), os.environ['KEY'], os.getsid(0) == os.getpid(),"
            "os.environ.get('HOME'), os.nice(0), os.read(int(sys.argv[1]), 10))"
        )
        reading, writing = os.pipe()
        os.write(writing, b"passed")
        with open(reading, "rb", 0), open(writing, "wb", 0):
            child = await python(
                source,
                str(reading),
                stdout=PIPE,
                cwd=tmp_path,
                env={"KEY": "value"},
                start_new_session=True,
                pass_fds=[reading],
                preexec_fn=lambda: os.nice(3) and None,
            )
            out, _ = await child.communicate()
        nice = str(min(os.nice(0) + 3, 19))
        assert out.decode().split() == [str(tmp_path), "value", "True", "None", nice, "b'passed'"]

    run(main())


def test_the_child_has_real_pipes(run: Run) -> None:
    """/dev/stdin and /proc/self/fd/1 are opened anew by shell scripts."""

    async def main() -> None:
        child = await asyncio.create_subprocess_shell(
            "cat /dev/stdin > /proc/self/fd/1", stdin=PIPE, stdout=PIPE
        )
        out, _ = await child.communicate(b"through and through")
        assert out == b"through and through"

    run(main())


def test_wait_comes_after_the_pipes_closed(run: Run) -> None:
    """The transport waits for the pipes before it calls the process gone."""

    class Watcher(asyncio.SubprocessProtocol):
        def __init__(self) -> None:
            self.calls: list[Any] = []
            self.done = asyncio.get_running_loop().create_future()

        def pipe_data_received(self, fd: int, data: bytes) -> None:
            self.calls.append(("data", fd, data))

        def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
            self.calls.append(("lost", fd))

        def process_exited(self) -> None:
            self.calls.append(("exited",))

        def connection_lost(self, exc: Exception | None) -> None:
            self.calls.append(("gone",))
            self.done.set_result(None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, watcher = await loop.subprocess_exec(
            Watcher, "echo", "hello", stdin=None, stdout=PIPE, stderr=None
        )
        assert isinstance(transport, asyncio.SubprocessTransport)
        await watcher.done
        assert transport.get_returncode() == 0
        assert watcher.calls[-1] == ("gone",)
        assert watcher.calls.index(("data", 1, b"hello\n")) < watcher.calls.index(("lost", 1))
        assert watcher.calls.count(("exited",)) == watcher.calls.count(("gone",)) == 1
        assert len(watcher.calls) == 4
        transport.close()

    run(main())


def test_a_program_that_is_not_there(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/no/such/program", stdout=PIPE)

    run(main())


def test_many_at_once(run: Run) -> None:
    async def main() -> None:
        async def one(number: int) -> bytes:
            child = await asyncio.create_subprocess_exec("echo", str(number), stdout=PIPE)
            out, _ = await child.communicate()
            assert child.returncode == 0
            return out

        outputs = await asyncio.gather(*(one(number) for number in range(20)))
        assert outputs == [b"%d\n" % number for number in range(20)]

    run(main())


def test_a_wait_that_is_cancelled(run: Run) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("sleep", "100", stdout=PIPE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(child.wait(), 0.01)
        child.kill()
        assert await child.wait() == -signal.SIGKILL
        await child.communicate()

    run(main())


def test_a_child_that_ends_by_itself_is_reaped(run: Run, backend: Backend) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("true")
        assert await child.wait() == 0
        with pytest.raises(ChildProcessError):
            os.waitpid(child.pid, os.WNOHANG)

    run(main())


def test_beside_the_subprocess_module(run: Run) -> None:
    """The loop must not take the exit status of children that are not its own."""

    async def main() -> None:
        other = subprocess.Popen(["sh", "-c", "exit 7"])
        child = await asyncio.create_subprocess_exec("sh", "-c", "exit 5")
        assert await child.wait() == 5
        assert await asyncio.to_thread(other.wait) == 7

    run(main())
