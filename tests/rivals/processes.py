"""Child processes and pipes."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
import tempfile
import threading
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from typing import Any

from .registry import LoopFactory, capability


async def _output(program: str, given: bytes | None = None, **kwargs: Any) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=PIPE, stdout=PIPE, **kwargs
    )
    output, _ = await asyncio.wait_for(process.communicate(given), 10)
    assert process.returncode == 0, f"the child ended with {process.returncode}"
    return output


@capability("communicate() of a megabyte both ways")
async def communicate() -> None:
    program = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    data = os.urandom(1_000_000)
    assert await _output(program, data) == data


@capability("/dev/stdin works in the child")
async def dev_stdin() -> None:
    assert await _output("print(open('/dev/stdin').read(), end='')", b"hello") == b"hello"


@capability("/proc/self/fd/1 works in the child")
async def proc_stdout() -> None:
    assert await _output("open('/proc/self/fd/1', 'w').write('hello')", b"") == b"hello"


@capability("the child's standard input is a pipe, not a socket")
async def real_pipe() -> None:
    kind = await _output("import os; print(os.readlink('/proc/self/fd/0'))", b"")
    assert kind.startswith(b"pipe:"), kind.decode()


@capability("preexec_fn")
async def preexec() -> None:
    program = "import os; print(os.environ.get('X'), os.nice(0))"
    got = await _output(program, b"", preexec_fn=lambda: os.nice(3) and None)
    assert int(got.split()[1]) >= 3, got


@capability("cwd, env, umask, start_new_session")
async def surroundings() -> None:
    program = (
        "import os; session = os.getsid(0) == os.getpid();"
        "print(os.getcwd(), os.environ['X'], oct(os.umask(0)), session)"
    )
    got = await _output(program, b"", cwd="/", env={"X": "y"}, umask=0o27, start_new_session=True)
    assert got.split() == [b"/", b"y", b"0o27", b"True"], got


@capability("process_group")
async def process_group() -> None:
    got = await _output("import os; print(os.getpgrp() == os.getpid())", b"", process_group=0)
    assert got == b"True\n", got


@capability("pass_fds and close_fds")
async def pass_fds() -> None:
    reading, writing = os.pipe()
    try:
        program = f"import os; os.write({writing}, b'hello')"
        await _output(program, b"", pass_fds=[writing])
        assert os.read(reading, 10) == b"hello"
    finally:
        os.close(reading)
        os.close(writing)


@capability("user, group and extra_groups (as root)")
async def user() -> None:
    them = 65534 if os.geteuid() == 0 else os.geteuid()
    extra = {"group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", "id -u", stdout=PIPE, cwd="/", user=them, **extra
    )
    output, _ = await asyncio.wait_for(process.communicate(), 10)
    assert int(output) == them, output


@capability("stderr=STDOUT, stdin=DEVNULL, a file as stdout")
async def redirections() -> None:
    with tempfile.TemporaryFile() as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; print('a', flush=True); print('b', file=sys.stderr)",
            stdin=DEVNULL,
            stdout=file,
            stderr=STDOUT,
        )
        assert await asyncio.wait_for(process.wait(), 10) == 0
        file.seek(0)
        assert file.read() == b"a\nb\n"


@capability("a program that is not there raises FileNotFoundError with its name")
async def not_there() -> None:
    try:
        await asyncio.create_subprocess_exec("/nonexistent/program")
    except FileNotFoundError as error:
        assert error.filename == "/nonexistent/program", error.filename
        return
    raise AssertionError("it did not raise")


@capability("the return code of a child that a signal ended")
async def signalled() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 5) == -signal.SIGTERM


@capability("children of a loop in another thread")
def from_thread(factory: LoopFactory) -> None:
    results: list[bytes | BaseException] = []

    def one() -> None:
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                results.append(runner.run(_output("print('hello')", b"")))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=one)
    thread.start()
    thread.join(15)
    assert results == [b"hello\n"], results


@capability("a terminal (pty) as the child's standard input and output")
async def terminal() -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; print(sys.stdin.isatty(), sys.stdout.isatty())",
        stdin=theirs,
        stdout=theirs,
    )
    assert await asyncio.wait_for(process.wait(), 10) == 0
    os.close(theirs)
    assert os.read(ours, 100).split() == [b"True", b"True"]
    os.close(ours)


@capability("connect_read_pipe() on a terminal (pty)")
async def reads_terminal() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = pty.openpty()
    reader = asyncio.StreamReader()
    file = os.fdopen(ours, "rb", 0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    os.write(theirs, b"hello\n")
    assert (await asyncio.wait_for(reader.readline(), 5)).strip() == b"hello"
    transport.close()
    os.close(theirs)


@capability("connect_read_pipe() and connect_write_pipe()")
async def pipes() -> None:
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    ends = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
    read, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), ends[0])
    write, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, ends[1])
    write.write(b"x" * 300_000)
    write.close()
    assert len(await asyncio.wait_for(reader.read(), 5)) == 300_000
    read.close()


@capability("connect_read_pipe() on a regular file raises ValueError")
async def regular_file() -> None:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as file:
        try:
            await loop.connect_read_pipe(asyncio.Protocol, file)
        except ValueError:
            return
    raise AssertionError("it did not raise")


@capability("fifty children at a time leave nothing open")
async def many() -> None:
    async def one() -> None:
        process = await asyncio.create_subprocess_exec("true", stdin=PIPE, stdout=PIPE)
        await process.communicate()

    await one()
    before = len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(one() for _ in range(50)))
    await asyncio.sleep(0.1)
    after = len(os.listdir("/proc/self/fd"))
    assert after <= before, f"{after - before} descriptors"
