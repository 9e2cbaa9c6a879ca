"""What libraries do with processes, and count on when a program ends."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from backends import PY312, Backend
from children import program
from peers import Run

pytestmark = pytest.mark.child


async def python(source: str, **options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", source, **options)


def test_distributed_gives_every_argument_to_popen(run: Run, tmp_path: Path) -> None:
    """`preexec_fn` is called in the child, and a wrapper's arguments go through."""
    mark = tmp_path / "mark"

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            'echo "$PWD $NAME $0"',
            stdout=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            cwd=tmp_path,
            env={"NAME": "a name", "PATH": os.environ["PATH"]},
            preexec_fn=lambda: mark.write_text(str(os.getpid())),
            start_new_session=True,
            close_fds=True,
            umask=0o077,
        )
        output, _ = await process.communicate()
        assert output.decode().startswith(f"{tmp_path} a name")
        assert mark.read_text() == str(process.pid)
        assert mark.stat().st_mode & 0o777 == 0o600

    run(main())


def test_ansible_s_children_open_their_pipes_again(run: Run) -> None:
    """`/dev/stdin` and `/proc/self/fd/1` can be opened: they are pipes, and no sockets."""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            "cat /dev/stdin > /proc/self/fd/1; echo done > /dev/stderr",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert await process.communicate(b"through pipes") == (b"through pipes", b"done\n")
        assert process.returncode == 0

    run(main())


def test_jupyter_waits_for_a_process_and_then_reads(run: Run) -> None:
    """What the process wrote is there, whole, after `wait()`."""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", "echo output; exit 3", stdout=asyncio.subprocess.PIPE
        )
        assert await process.wait() == 3
        stdout: Any = process.stdout
        assert await stdout.read() == b"output\n"

    run(main())


def test_mcp_ends_a_process_that_goes_on(run: Run) -> None:
    """terminate(), a time to end in, then kill(); which of a process that has ended do nothing."""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "3600")
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() == -15
        with pytest.raises(ProcessLookupError):
            process.kill()

    run(main())


SECOND = """
import os, signal, threading
async def main():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print("asked", flush=True)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                await asyncio.sleep(0)
        finally:
            print("ended", flush=True)
try:
    run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_uvicorn_ends_on_a_second_interrupt(backend: Backend) -> None:
    """The first Ctrl-C cancels the main task; the second one raises KeyboardInterrupt at once."""
    out = program(backend, SECOND).check().split()
    assert out[0] == "asked"
    assert out[-1] == "interrupted"


def test_aiohttp_s_runner_handles_sigterm(run: Run) -> None:
    """By `loop.add_signal_handler`, which takes arguments, and is taken away again."""
    import signal

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        assert loop.remove_signal_handler(signal.SIGTERM)
        assert not loop.remove_signal_handler(signal.SIGTERM)

    run(main())


@pytest.mark.skipif(not PY312, reason="the timeout came with Python 3.12")
def test_hypercorn_shuts_the_executor_down_in_time(loop: Any) -> None:
    release = threading.Event()

    async def main() -> None:
        running = loop.run_in_executor(None, release.wait)
        with pytest.warns(RuntimeWarning, match="did not finish"):
            await loop.shutdown_default_executor(0.01)
        release.set()
        assert await running is True

    loop.run_until_complete(main())


def test_asgiref_s_executor_ends_with_the_loop(backend: Backend) -> None:
    """`asyncio.run` waits for what threads still do."""
    done = []

    async def main() -> None:
        begun = threading.Event()

        def work() -> None:
            begun.set()
            done.append(True)

        asyncio.get_running_loop().run_in_executor(None, work)
        begun.wait()

    backend.run(main())
    assert done == [True]


def test_langchain_s_async_generators_are_closed(run: Run) -> None:
    """`asyncio.run` closes generators that were left in the middle."""
    closed = []

    async def generate() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    kept = generate()

    async def main() -> None:
        assert await anext(kept) == 1

    run(main())
    assert closed == [True]
