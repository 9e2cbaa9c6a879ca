"""add_signal_handler, remove_signal_handler, and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from backends import Backend
from children import program
from turns import raised, turn


def nothing(*arguments: Any) -> None:
    pass


@pytest.fixture(autouse=True)
def handlers_put_back() -> Iterator[None]:
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP)
    kept = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


class TestHandler:
    def test_called_in_the_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[Any] = []

        def caught(*arguments: Any) -> None:
            seen.append((arguments, loop.is_running(), asyncio.current_task()))
            loop.stop()

        assert loop.add_signal_handler(signal.SIGUSR1, caught, 1, "two") is None
        loop.call_soon(send, signal.SIGUSR1)
        loop.run_forever()
        assert seen == [((1, "two"), True, None)]
        assert loop.remove_signal_handler(signal.SIGUSR1) is True

    def test_wakes_a_sleeping_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """The signal comes while the loop waits in its poll, from outside of any callback."""
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
        asleep = threading.Event()

        def soon() -> None:
            asleep.wait()
            time.sleep(0.01)
            send(signal.SIGUSR1)

        thread = threading.Thread(target=soon)
        thread.start()
        loop.call_soon(asleep.set)
        started = time.monotonic()
        guard = loop.call_later(20, loop.stop)
        loop.run_forever()
        guard.cancel()
        thread.join()
        assert time.monotonic() - started < 10
        loop.remove_signal_handler(signal.SIGUSR1)

    def test_before_the_loop_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
        send(signal.SIGUSR1)
        guard = loop.call_later(20, loop.stop)
        loop.run_forever()
        assert not guard.cancelled() and guard.when() > loop.time()
        guard.cancel()
        loop.remove_signal_handler(signal.SIGUSR1)

    def test_between_two_runs(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        turn(loop, 2)
        send(signal.SIGUSR1)
        assert seen == []
        turn(loop, 3)
        assert seen == [1]
        loop.remove_signal_handler(signal.SIGUSR1)

    def test_several_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: set[int] = set()
        numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, seen.add, number)
        for number in numbers:
            loop.call_soon(send, number)
        turn(loop, 5)
        assert seen == set(numbers)
        for number in numbers:
            assert loop.remove_signal_handler(number) is True

    def test_a_burst(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ordinary signals may be merged by the kernel, and never all be lost."""
        seen: list[int] = []
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        for _ in range(200):
            send(signal.SIGUSR1)
        turn(loop, 5)
        assert seen
        count = len(seen)
        send(signal.SIGUSR1)
        turn(loop, 5)
        assert len(seen) > count
        loop.remove_signal_handler(signal.SIGUSR1)

    def test_replaced(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "first")
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "second")
        send(signal.SIGUSR1)
        turn(loop, 3)
        assert seen == ["second"]
        assert loop.remove_signal_handler(signal.SIGUSR1) is True
        assert loop.remove_signal_handler(signal.SIGUSR1) is False

    def test_context(self, loop: asyncio.AbstractEventLoop) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
        seen: list[str] = []

        def add() -> None:
            variable.set("when added")
            loop.add_signal_handler(signal.SIGUSR1, lambda: seen.append(variable.get()))

        contextvars.copy_context().run(add)
        send(signal.SIGUSR1)
        turn(loop, 3)
        assert seen == ["when added"]
        loop.remove_signal_handler(signal.SIGUSR1)

    def test_errors_are_reported(
        self, loop: asyncio.AbstractEventLoop, reports: list[dict[str, Any]]
    ) -> None:
        def broken() -> None:
            raise ZeroDivisionError

        loop.add_signal_handler(signal.SIGUSR1, broken)
        send(signal.SIGUSR1)
        turn(loop, 3)
        assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
        loop.remove_signal_handler(signal.SIGUSR1)

    def test_removes_itself(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[bool] = []
        loop.add_signal_handler(
            signal.SIGUSR1, lambda: seen.append(loop.remove_signal_handler(signal.SIGUSR1))
        )
        send(signal.SIGUSR1)
        turn(loop, 3)
        assert seen == [True]
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL

    def test_system_calls_are_restarted(self, loop: asyncio.AbstractEventLoop) -> None:
        """asyncio sets SA_RESTART: a thread that reads does not see EINTR."""
        loop.add_signal_handler(signal.SIGUSR1, nothing)
        reading, writing = os.pipe()
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(os.read(reading, 10)))
        thread.start()
        for _ in range(20):
            signal.pthread_kill(thread.ident or 0, signal.SIGUSR1)
        os.write(writing, b"x")
        thread.join()
        assert got == [b"x"]
        turn(loop, 2)
        loop.remove_signal_handler(signal.SIGUSR1)
        os.close(reading)
        os.close(writing)

    def test_sleep_goes_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Signals do not end a sleep early."""
        seen: list[int] = []
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        stop = threading.Event()

        def keep_sending() -> None:
            while not stop.wait(0.002):
                send(signal.SIGUSR1)

        thread = threading.Thread(target=keep_sending)
        thread.start()
        started = loop.time()
        loop.run_until_complete(asyncio.sleep(0.05))
        passed = loop.time() - started
        stop.set()
        thread.join()
        turn(loop, 2)
        loop.remove_signal_handler(signal.SIGUSR1)
        assert passed >= 0.049
        assert len(seen) > 3

    def test_a_storm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Signals that come faster than they are handled are joined, but none is forgotten."""
        seen: set[int] = set()
        numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, seen.add, number)
        passes = 0

        def storm() -> None:
            # Fewer than the descriptor that they arrive at can hold.
            for _ in range(50):
                for number in numbers:
                    send(number)
            loop.call_soon_threadsafe(last)

        def last() -> None:
            # What is sent last of all arrives, whatever came before it.
            seen.clear()
            for number in numbers:
                send(number)
            look()

        def look() -> None:
            nonlocal passes
            passes += 1
            if seen == set(numbers):
                loop.stop()
            else:
                loop.call_soon(look)

        thread = threading.Thread(target=storm)
        loop.call_soon(thread.start)
        loop.run_forever()
        thread.join()
        for number in numbers:
            assert loop.remove_signal_handler(number)
        assert passes > 0


class TestRemoval:
    def test_unknown(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop.remove_signal_handler(signal.SIGUSR1) is False

    def test_default_comes_back(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGTERM, nothing)
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        loop.remove_signal_handler(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def test_sigint_gets_pythons_own_back(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGINT, nothing)
        loop.remove_signal_handler(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_wakeup_descriptor_goes_with_the_last(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGUSR1, nothing)
        loop.add_signal_handler(signal.SIGUSR2, nothing)
        loop.remove_signal_handler(signal.SIGUSR1)
        descriptor = signal.set_wakeup_fd(-1)
        assert descriptor != -1
        signal.set_wakeup_fd(descriptor)
        loop.remove_signal_handler(signal.SIGUSR2)
        assert signal.set_wakeup_fd(-1) == -1

    def test_close_removes_them(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.add_signal_handler(signal.SIGUSR1, nothing)
        loop.add_signal_handler(signal.SIGTERM, nothing)
        loop.close()
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.set_wakeup_fd(-1) == -1


class TestMisuse:
    def test_coroutine(self, loop: asyncio.AbstractEventLoop) -> None:
        async def coroutine() -> None:
            pass

        made = coroutine()
        for thing in (coroutine, made):
            assert raised(loop.add_signal_handler, signal.SIGUSR1, thing) == (
                TypeError,
                "coroutines cannot be used with add_signal_handler()",
            )
        made.close()

    @pytest.mark.parametrize("method", ["add_signal_handler", "remove_signal_handler"])
    def test_not_a_signal(self, loop: asyncio.AbstractEventLoop, method: str) -> None:
        arguments = (nothing,) if method == "add_signal_handler" else ()
        function = getattr(loop, method)
        assert raised(function, "SIGUSR1", *arguments) == (
            TypeError,
            "sig must be an int, not 'SIGUSR1'",
        )
        for number in (-1, 0, signal.NSIG + 10):
            assert raised(function, number, *arguments) == (
                ValueError,
                f"invalid signal number {number}",
            )

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
    def test_cannot_be_caught(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        assert raised(loop.add_signal_handler, number, nothing) == (
            RuntimeError,
            f"sig {number} cannot be caught",
        )
        assert loop.remove_signal_handler(number) is False
        assert signal.set_wakeup_fd(-1) == -1

    def test_outside_the_main_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        errors: list[tuple[type, str]] = []
        thread = threading.Thread(
            target=lambda: errors.append(raised(loop.add_signal_handler, 10, nothing))
        )
        thread.start()
        thread.join()
        assert errors[0][0] is RuntimeError
        assert "main thread" in errors[0][1]

    def test_closed_loop(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        loop.close()
        assert raised(loop.add_signal_handler, signal.SIGUSR1, nothing) == (
            RuntimeError,
            "Event loop is closed",
        )


class TestPythonsOwnHandlers:
    """Handlers of `signal.signal` run in the main thread, whatever the loop does."""

    def test_while_the_loop_sleeps(self, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []

        def handler(number: int, frame: Any) -> None:
            seen.append(number)
            loop.call_soon_threadsafe(loop.stop)

        signal.signal(signal.SIGUSR1, handler)
        asleep = threading.Event()

        def soon() -> None:
            asleep.wait()
            time.sleep(0.01)
            send(signal.SIGUSR1)

        thread = threading.Thread(target=soon)
        thread.start()
        loop.call_soon(asleep.set)
        guard = loop.call_later(20, loop.stop)
        loop.run_forever()
        guard.cancel()
        thread.join()
        assert seen == [signal.SIGUSR1]

    def test_that_raises_while_the_loop_sleeps(self, loop: asyncio.AbstractEventLoop) -> None:
        class Enough(Exception):
            pass

        def handler(number: int, frame: Any) -> None:
            raise Enough

        signal.signal(signal.SIGUSR1, handler)
        asleep = threading.Event()

        def soon() -> None:
            asleep.wait()
            time.sleep(0.02)
            send(signal.SIGUSR1)

        thread = threading.Thread(target=soon)
        thread.start()
        loop.call_soon(asleep.set)
        guard = loop.call_later(20, loop.stop)
        with pytest.raises(Enough):
            loop.run_forever()
        thread.join()
        guard.cancel()
        assert not loop.is_running()
        turn(loop)

    def test_while_callbacks_keep_the_loop_busy(self, loop: asyncio.AbstractEventLoop) -> None:
        """A loop that never sleeps must look for signals all the same."""
        seen: list[int] = []
        signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))

        def again() -> None:
            if seen:
                loop.stop()
            else:
                loop.call_soon(again)

        again()
        loop.call_soon(send, signal.SIGUSR1)
        loop.run_forever()
        assert seen == [signal.SIGUSR1]

    def test_busy_with_native_callbacks_only(self, loop: asyncio.AbstractEventLoop) -> None:
        """No line of Python runs between the turns: tasks that only sleep(0) in C."""
        seen: list[int] = []
        signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
        futures: list[asyncio.Future[None]] = []

        def ring(done: asyncio.Future[None]) -> None:
            if seen:
                loop.stop()
                return
            future = loop.create_future()
            future.add_done_callback(ring)
            futures[:] = [future]
            future.set_result(None)

        first = loop.create_future()
        first.add_done_callback(ring)
        first.set_result(None)
        loop.call_later(0.005, send, signal.SIGUSR1)
        loop.run_forever()
        assert seen == [signal.SIGUSR1]


CTRL_C = """
import os, signal, sys, threading, time

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.child
class TestCtrlC:
    """As `asyncio.Runner` promises: the main task is cancelled, then KeyboardInterrupt."""

    def test_cancels_the_main_task(self, backend: Backend) -> None:
        source = (
            CTRL_C
            + """
async def main():
    asyncio.get_running_loop().call_later(0.01, interrupt)
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        print("cancelled")
        await asyncio.sleep(0.01)
        print("cleaned up")
        raise
try:
    run(main())
except KeyboardInterrupt as error:
    print("KeyboardInterrupt", type(error.__context__).__name__)
"""
        )
        assert program(backend, source).check() == (
            "cancelled\ncleaned up\nKeyboardInterrupt CancelledError\n"
        )

    def test_exit_code_when_nobody_catches_it(self, backend: Backend) -> None:
        source = (
            CTRL_C
            + """
async def main():
    asyncio.get_running_loop().call_later(0.01, interrupt)
    await asyncio.sleep(100)
run(main())
"""
        )
        ended = program(backend, source)
        # Python ends itself with the signal, so that the shell knows.
        assert ended.code == -2
        assert ended.err.splitlines()[-1] == "KeyboardInterrupt"

    def test_from_another_process(self, backend: Backend) -> None:
        """A real Ctrl-C comes while the loop waits in its poll."""
        source = (
            CTRL_C
            + """
import subprocess
async def main():
    child = subprocess.Popen(
        [sys.executable, "-c", f"import os, signal; os.kill({os.getpid()}, signal.SIGINT)"])
    try:
        await asyncio.sleep(100)
    finally:
        child.wait()
        print("woken")
try:
    run(main())
except KeyboardInterrupt:
    print("KeyboardInterrupt")
"""
        )
        assert program(backend, source).check() == "woken\nKeyboardInterrupt\n"

    def test_swallowed(self, backend: Backend) -> None:
        """A main task that refuses its cancellation returns its result."""
        source = (
            CTRL_C
            + """
async def main():
    asyncio.get_running_loop().call_later(0.01, interrupt)
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        return "stayed"
print(run(main()))
"""
        )
        assert program(backend, source).check() == "stayed\n"

    def test_a_second_one_ends_it(self, backend: Backend) -> None:
        source = (
            CTRL_C
            + """
async def main():
    loop = asyncio.get_running_loop()
    loop.call_later(0.01, interrupt)
    while True:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            print("first", flush=True)
            loop.call_later(0.01, interrupt)
try:
    run(main())
except KeyboardInterrupt:
    print("second")
"""
        )
        ended = program(backend, source, timeout=30)
        # After the second one the runner cancels whatever still runs; the task refuses forever, so
        # the runner would wait for it: a third one ends that too, on every loop. What matters here:
        # the process answers.
        assert ended.out.startswith("first\n")

    @pytest.mark.parametrize("interrupts", [1, 2])
    def test_while_a_child_runs(self, backend: Backend, interrupts: int) -> None:
        """The child is not the loop's to kill, but what the program does about it works."""
        source = (
            CTRL_C
            + f"""
interrupts = {interrupts}
async def main():
    loop = asyncio.get_running_loop()
    # In a session of its own, so that a real Ctrl-C would not reach it either.
    child = await asyncio.create_subprocess_exec(
        "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        start_new_session=True)
    loop.call_soon(interrupt)
    try:
        await child.stdout.read()
    except asyncio.CancelledError:
        print("first")
        if interrupts == 1:
            print(await child.communicate(b"still there"), child.returncode)
            raise
        loop.call_soon(interrupt)
        try:
            await child.stdout.read()
        finally:
            child.kill()
            print(await child.wait())
            child._transport.close()
try:
    run(main())
except KeyboardInterrupt:
    print("KeyboardInterrupt")
"""
        )
        expected = "(b'still there', None) 0" if interrupts == 1 else "-9"
        assert program(backend, source).check() == f"first\n{expected}\nKeyboardInterrupt\n"

    def test_in_synchronous_code(self, backend: Backend) -> None:
        """The task is busy and not waiting: it is cancelled at its next await."""
        source = (
            CTRL_C
            + """
async def main():
    interrupt()
    print("still running")
    await asyncio.sleep(0)
    print("never")
try:
    run(main())
except KeyboardInterrupt:
    print("KeyboardInterrupt")
"""
        )
        assert program(backend, source).check() == "still running\nKeyboardInterrupt\n"

    def test_busy_loop_of_tasks(self, backend: Backend) -> None:
        source = (
            CTRL_C
            + """
async def spin():
    while True:
        await asyncio.sleep(0)
async def main():
    threading.Timer(0.05, interrupt).start()
    await asyncio.gather(*(spin() for _ in range(10)))
try:
    run(main())
except KeyboardInterrupt:
    print("KeyboardInterrupt")
"""
        )
        assert program(backend, source).check() == "KeyboardInterrupt\n"

    def test_without_a_runner(self, backend: Backend) -> None:
        """run_forever by hand: KeyboardInterrupt comes out of it, and the loop can go on."""
        source = (
            CTRL_C
            + """
loop = new_event_loop()
loop.call_later(0.01, interrupt)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("KeyboardInterrupt", loop.is_running())
print(loop.run_until_complete(asyncio.sleep(0, "goes on")))
loop.close()
"""
        )
        assert program(backend, source).check() == "KeyboardInterrupt False\ngoes on\n"

    def test_busy_run_forever(self, backend: Backend) -> None:
        source = (
            CTRL_C
            + """
loop = new_event_loop()
def again():
    loop.call_soon(again)
again()
threading.Timer(0.05, interrupt).start()
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("KeyboardInterrupt")
loop.close()
"""
        )
        assert program(backend, source).check() == "KeyboardInterrupt\n"

    def test_own_handler_wins(self, backend: Backend) -> None:
        source = (
            CTRL_C
            + """
async def main():
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, done.set)
    loop.call_later(0.01, interrupt)
    await done.wait()
    print("handled")
run(main())
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
        )
        assert program(backend, source).check() == "handled\nTrue\n"

    def test_in_another_thread_than_the_main_one(self, backend: Backend) -> None:
        """The loop runs in a thread: Ctrl-C is the main thread's business."""
        source = (
            CTRL_C
            + """
async def main():
    await asyncio.sleep(0.05)
    return "finished"
thread = threading.Thread(target=lambda: print(run(main())))
thread.start()
try:
    interrupt()
    thread.join()
except KeyboardInterrupt:
    print("KeyboardInterrupt")
thread.join()
"""
        )
        assert program(backend, source).check() == "KeyboardInterrupt\nfinished\n"

    def test_sigterm_kills_by_default(self, backend: Backend) -> None:
        source = (
            CTRL_C
            + """
async def main():
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(100)
run(main())
"""
        )
        ended = program(backend, source)
        assert ended.code == -signal.SIGTERM
        assert ended.err == ""

    def test_sigterm_handled_for_a_graceful_end(self, backend: Backend) -> None:
        source = (
            CTRL_C
            + """
async def main():
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    await stop.wait()
    print("graceful")
run(main())
"""
        )
        assert program(backend, source).check() == "graceful\n"

    def test_repeated_while_nothing_runs(self, backend: Backend) -> None:
        """A signal that arrives while the loop is idle must neither be lost nor kill."""
        source = (
            CTRL_C
            + """
async def main():
    loop = asyncio.get_running_loop()
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    def keep():
        for _ in range(5):
            time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGUSR1)
    thread = threading.Thread(target=keep)
    thread.start()
    while len(seen) < 5:
        await asyncio.sleep(0.001)
    thread.join()
    print(len(seen))
run(main())
"""
        )
        assert program(backend, source).check() == "5\n"
