"""Subprocesses: what each argument does, talking to children, and who learns of their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path
from typing import Any, ClassVar

import pytest
from backends import Backend
from peers import Run

# A child is a process: even the shortest takes its time.
pytestmark = pytest.mark.slow


async def python(source: str, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", source, *arguments, **options
    )


# -- what each argument does ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"universal_newlines": True}, "universal_newlines must be False"),
        ({"text": True}, "text must be False"),
        ({"encoding": "utf-8"}, "encoding must be None"),
        ({"errors": "strict"}, "errors must be None"),
        ({"bufsize": 1}, "bufsize must be 0"),
    ],
)
def test_what_makes_no_sense_here(run: Run, arguments: dict[str, Any], message: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=message):
            await asyncio.create_subprocess_exec("true", **arguments)
        with pytest.raises(ValueError, match=message):
            await asyncio.create_subprocess_shell("true", **arguments)

    run(main())


def test_shell_and_program_are_not_mixed_up(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="shell must be False"):
            await asyncio.create_subprocess_exec("true", shell=True)
        with pytest.raises(ValueError, match="shell must be True"):
            await asyncio.create_subprocess_shell("true", shell=False)
        with pytest.raises(ValueError, match="cmd must be a string"):
            await asyncio.create_subprocess_shell(["true"])  # type: ignore[arg-type]

    run(main())


def test_identity_and_group(run: Run) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"process_group": 0, "umask": 0o27}
        user, group = os.getuid(), os.getgid()
        if user == 0:
            user, group = 12345, 12346
            options |= {"user": user, "group": group, "extra_groups": [12347]}
        child = await asyncio.create_subprocess_shell(
            "id -u; id -g; umask; cut -d ' ' -f 5 /proc/self/stat", stdout=PIPE, **options
        )
        out, _ = await child.communicate()
        assert out.decode().split() == [str(user), str(group), "0027", str(child.pid)]

    run(main())


def test_a_preexec_function_that_raises(run: Run) -> None:
    def fail() -> None:
        raise ValueError

    async def main() -> None:
        with pytest.raises(subprocess.SubprocessError, match="preexec_fn"):
            await asyncio.create_subprocess_exec("true", preexec_fn=fail, stdin=PIPE, stdout=PIPE)

    run(main())


def test_files_and_descriptors_as_standard_streams(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "in").write_bytes(b"from a file")
        with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
            child = await asyncio.create_subprocess_exec(
                "cat", stdin=source, stdout=target.fileno(), stderr=DEVNULL
            )
            assert child.stdin is child.stdout is child.stderr is None
            assert await child.communicate() == (None, None)
            assert child.returncode == 0
        assert (tmp_path / "out").read_bytes() == b"from a file"

    run(main())


def test_stderr_into_stdout(run: Run) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_shell(
            "echo one; echo two >&2; echo three", stdout=PIPE, stderr=STDOUT
        )
        assert await child.communicate() == (b"one\ntwo\nthree\n", None)

    run(main())


def test_the_kind_of_each_stream(run: Run) -> None:
    """Pipes, not sockets."""

    async def main() -> None:
        source = (
            "import os, stat, sys\n"
            "sys.exit(0 if all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in range(3)) else 1)"
        )
        child = await python(source, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        await child.communicate()
        assert child.returncode == 0
        child = await asyncio.create_subprocess_exec("cat", "/dev/stdin", stdin=PIPE, stdout=PIPE)
        assert (await child.communicate(b"opened anew"))[0] == b"opened anew"

    run(main())


# -- talking to children ---------------------------------------------------------------------------


def test_communicate_that_is_cancelled_can_be_repeated(run: Run) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert child.stdin is not None
        child.stdin.write(b"before ")
        talking = asyncio.ensure_future(child.wait())
        await asyncio.sleep(0)
        talking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await talking
        assert child.returncode is None
        out, _ = await child.communicate(b"and after")
        assert out == b"before and after"
        assert child.returncode == 0

    run(main())


def test_communicate_with_a_timeout(run: Run) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("sleep", "100", stdout=PIPE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await child.communicate()
        child.kill()
        assert await child.communicate() == (b"", None)
        assert child.returncode == -signal.SIGKILL

    run(main())


def test_a_child_that_does_not_read(run: Run) -> None:
    """What it does not want is no error of communicate()."""

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("true", stdin=PIPE, stdout=PIPE)
        assert await child.communicate(b"x" * (1 << 20)) == (b"", None)
        assert child.returncode == 0

    run(main())


def test_draining_to_a_child_that_dies(run: Run) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("sleep", "100", stdin=PIPE)
        assert child.stdin is not None
        child.stdin.write(b"x" * (1 << 20))
        draining = asyncio.ensure_future(child.stdin.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        child.kill()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await draining
        assert await child.wait() == -signal.SIGKILL

    run(main())


def test_a_grandchild_that_keeps_the_pipe(run: Run) -> None:
    """The process has ended, its output has not."""

    async def main() -> None:
        child = await asyncio.create_subprocess_shell(
            "exec 3<&0; (read line <&3; echo late) & exit 3", stdin=PIPE, stdout=PIPE
        )
        assert child.stdin is not None
        assert child.stdout is not None
        while child.returncode is None:
            await asyncio.sleep(0)
        assert child.returncode == 3
        child.stdin.write(b"go on\n")
        assert await child.stdout.read() == b"late\n"
        assert await child.wait() == 3
        child.stdin.close()

    run(main())


def test_pausing_the_output(run: Run) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec(
            "head", "-c", str(1 << 20), "/dev/zero", stdout=PIPE, limit=1024
        )
        assert child.stdout is not None
        transport = child._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        while transport.is_reading():
            await asyncio.sleep(0)
        assert len(await child.stdout.read()) == 1 << 20
        assert await child.wait() == 0

    run(main())


# -- who learns of the end, and how ----------------------------------------------------------------


@pytest.mark.backends("weft")
def test_a_child_that_somebody_else_reaps(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """As asyncio's from Python 3.12 on; before, its thread may be faster."""

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("sleep", "100")
        child.kill()
        os.waitpid(child.pid, 0)
        assert await child.wait() == 255
        assert child.returncode == 255

    run(main())
    assert "will report returncode 255" in caplog.text


@pytest.mark.backends("weft")
def test_an_error_of_waiting_leaks_no_descriptor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is reported, once; the child is then whoever's who knows better."""
    reports: list[dict[str, Any]] = []

    def refuse(pid: int, options: int) -> tuple[int, int]:
        raise OSError("not today")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        before = len(os.listdir("/proc/self/fd"))
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
        assert child.stdin is not None
        with monkeypatch.context() as patch:
            patch.setattr(os, "waitpid", refuse)
            child.stdin.close()
            while not reports:
                await asyncio.sleep(0.001)
        os.waitpid(child.pid, 0)
        child._transport._process_exited(0)  # type: ignore[attr-defined]
        await child.wait()
        assert len(os.listdir("/proc/self/fd")) == before

    run(main())
    assert [str(report["exception"]) for report in reports] == ["not today"]


@pytest.mark.backends("weft")
def test_no_thread_waits_for_children(run: Run) -> None:
    """asyncio has one for each child on Python 3.11."""

    async def main() -> None:
        before = threading.enumerate()
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
        threads = threading.enumerate()
        await child.communicate(b"")
        assert threads == before

    run(main())


def test_children_of_a_loop_in_a_thread(backend: Backend) -> None:
    async def main() -> bytes:
        child = await asyncio.create_subprocess_exec("echo", "hello", stdout=PIPE)
        out, _ = await child.communicate()
        assert child.returncode == 0
        with pytest.raises(ChildProcessError):
            os.waitpid(child.pid, os.WNOHANG)
        return out

    outputs: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: outputs.append(backend.run(main()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == [b"hello\n"] * 4


@pytest.mark.backends("weft")
def test_without_a_descriptor_for_the_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that forbids it: a thread waits."""

    def refuse(pid: int, flags: int = 0) -> int:
        raise PermissionError(1, "Operation not permitted")

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
        assert await child.wait() == 7

    monkeypatch.setattr(os, "pidfd_open", refuse)
    run(main())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are no child watchers any more")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_watcher_of_the_program_is_asked(run: Run) -> None:
    class Watcher(asyncio.ThreadedChildWatcher):
        pids: ClassVar[list[int]] = []

        def add_child_handler(self, pid: int, callback: Any, *args: Any) -> None:
            self.pids.append(pid)
            super().add_child_handler(pid, callback, *args)

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
        assert await child.wait() == 7
        assert Watcher.pids == [child.pid]

    asyncio.set_child_watcher(Watcher())
    try:
        run(main())
    finally:
        asyncio.set_child_watcher(None)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are no child watchers any more")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_watcher_that_waits_for_signals(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("sh", "-c", "exit 7", stdout=PIPE)
        assert await child.communicate() == (b"", None)
        assert child.returncode == 7

    watcher = asyncio.SafeChildWatcher()
    watcher.attach_loop(loop)
    asyncio.set_child_watcher(watcher)
    try:
        loop.run_until_complete(main())
    finally:
        asyncio.set_child_watcher(None)
        loop.remove_signal_handler(signal.SIGCHLD)


def test_beside_a_handler_of_sigchld(loop: asyncio.AbstractEventLoop) -> None:
    seen = []

    async def main() -> None:
        loop.add_signal_handler(signal.SIGCHLD, seen.append, 1)
        for code in range(3):
            child = await asyncio.create_subprocess_exec("sh", "-c", f"exit {code}")
            assert await child.wait() == code
        while not seen:
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert loop.remove_signal_handler(signal.SIGCHLD)


def test_three_hundred_short_ones(run: Run) -> None:
    """No zombie is left; that no descriptor and no thread is, the fixtures of every test see."""

    async def main() -> None:
        slots = asyncio.Semaphore(50)

        async def one(number: int) -> int:
            async with slots:
                child = await asyncio.create_subprocess_exec(
                    "sh", "-c", f"exit {number % 100}", stdout=PIPE, stderr=PIPE, stdin=PIPE
                )
                await child.communicate(b"")
                assert child.returncode is not None
                pids.append(child.pid)
                return child.returncode

        pids: list[int] = []
        codes = await asyncio.gather(*(one(number) for number in range(300)))
        assert codes == [number % 100 for number in range(300)]
        for pid in pids:
            with pytest.raises(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    run(main())


def test_a_loop_that_closes_before_its_child(backend: Backend) -> None:
    async def main() -> Any:
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            asyncio.SubprocessProtocol, "sleep", "100", stdin=None, stdout=None, stderr=None
        )
        return transport

    loop = backend.new_event_loop()
    before = os.listdir("/proc/self/fd")
    transport = loop.run_until_complete(main())
    loop.close()
    process = transport.get_extra_info("subprocess")
    transport.close()
    # The thread with which asyncio waits on 3.11 may have taken the status.
    taken = backend.name == "asyncio" and sys.version_info < (3, 12)
    assert process.wait() == -signal.SIGKILL or taken
    if backend.name == "weft":
        # asyncio's keeps the descriptor of the process for ever.
        assert len(os.listdir("/proc/self/fd")) <= len(before)
    else:
        close_pidfds()


def close_pidfds() -> None:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if "pidfd" in os.readlink(f"/proc/self/fd/{name}"):
                os.close(int(name))


def test_cancelled_while_it_starts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is left: it was killed, and reaped."""
    started = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self.pid)

    async def main() -> None:
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec("sleep", "100", stdin=PIPE, stdout=PIPE)
        )
        while not started:
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        with pytest.raises(ChildProcessError):
            os.waitpid(started[0], os.WNOHANG)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    run(main())


def test_leaving_a_child_behind_kills_it(run: Run) -> None:
    async def main() -> int:
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            asyncio.SubprocessProtocol, "sleep", "100"
        )
        transport.close()
        while transport.get_returncode() is None:
            await asyncio.sleep(0)
        assert transport.get_returncode() == -signal.SIGKILL
        await asyncio.sleep(0)
        return int(transport.get_pid())

    with pytest.raises(ProcessLookupError):
        os.kill(run(main()), 0)
