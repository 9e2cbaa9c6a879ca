"""Time, order, threads, signals, shutting down."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import os
import resource
import signal
import sys
import threading
import time
from typing import Any
from unittest import mock

from .peers import echo_server
from .registry import LoopFactory, capability


@capability("a patched time.monotonic moves the timers")
async def patched_monotonic() -> None:
    loop = asyncio.get_running_loop()
    fired = loop.create_future()
    loop.call_later(3600, fired.set_result, None)
    real = time.monotonic
    with mock.patch("time.monotonic", side_effect=lambda: real() + 7200):
        await asyncio.sleep(0)
        loop.call_soon(int)
        deadline = real() + 3
        while not fired.done() and real() < deadline:
            await asyncio.sleep(0)
    assert fired.done(), "the timer did not fire"


@capability("`loop.time` can be replaced, and moves the timers")
async def replaced_time() -> None:
    loop = asyncio.get_running_loop()
    fired = loop.create_future()
    loop.call_later(3600, fired.set_result, None)
    real = loop.time
    loop.time = lambda: real() + 7200  # type: ignore[method-assign]
    deadline = time.monotonic() + 3
    while not fired.done() and time.monotonic() < deadline:
        await asyncio.sleep(0)
    assert fired.done(), "the timer did not fire"


@capability("the loop can be subclassed, and its time() overridden")
def subclassed(factory: LoopFactory) -> None:
    made = factory()
    made.close()
    asked = []

    class Own(type(made)):  # type: ignore[misc]
        def time(self) -> float:
            asked.append(1)
            return float(super().time())

    with asyncio.Runner(loop_factory=Own) as runner:
        runner.run(asyncio.sleep(0.001))
    assert asked, "time() was not asked"


@capability("calls of another thread keep their order")
async def threadsafe_order() -> None:
    loop = asyncio.get_running_loop()
    order: list[int] = []
    done = loop.create_future()

    def from_thread() -> None:
        for number in range(1000):
            loop.call_soon_threadsafe(order.append, number)
        loop.call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=from_thread)
    thread.start()
    await done
    thread.join()
    assert order == list(range(1000))


@capability("call_soon_threadsafe() keeps its place among call_soon()s")
async def one_order() -> None:
    loop = asyncio.get_running_loop()
    order: list[int] = []
    for number in range(0, 10, 2):
        loop.call_soon(order.append, number)
        loop.call_soon_threadsafe(order.append, number + 1)
    await asyncio.sleep(0.05)
    assert order == list(range(10)), order


@capability("timers that are 10 µs apart run in order")
async def timer_order() -> None:
    loop = asyncio.get_running_loop()
    order: list[int] = []
    when = loop.time() + 0.02
    for number in sorted(range(100), key=lambda number: number * 37 % 100):
        loop.call_at(when + number * 1e-5, order.append, number)
    await asyncio.sleep(0.1)
    assert order == sorted(order) and len(order) == 100


@capability("a timer never fires early")
async def timer_not_early() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(50):
        began = time.monotonic()
        fired = loop.create_future()
        loop.call_later(0.0015, fired.set_result, None)
        await fired
        taken = time.monotonic() - began
        assert taken >= 0.0015 - time.get_clock_info("monotonic").resolution, f"after {taken:.6f} s"


@capability("a loop that waits takes no processor time")
async def idle() -> str:
    async with echo_server() as (host, port):
        _, writer = await asyncio.open_connection(host, port)
        await asyncio.sleep(0.1)
        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.sleep(1)
        after = resource.getrusage(resource.RUSAGE_SELF)
        writer.close()
    switches = after.ru_nvcsw - before.ru_nvcsw
    assert switches < 20, f"{switches} context switches in a second"
    return f"{switches} wake-ups a second"


@capability("no threads beside the loop's own")
async def threads() -> None:
    before = len(os.listdir("/proc/self/task"))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    await asyncio.sleep(0.05)
    after = len(os.listdir("/proc/self/task"))
    transport.close()
    server.close()
    total = max(before, after)
    assert total == 1, f"{total} threads"


@capability("loops in several threads at a time")
def loops_in_threads(factory: LoopFactory) -> None:
    results = []

    async def talk() -> None:
        async with echo_server() as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"hello")
            results.append(await reader.readexactly(5))
            writer.close()

    def one() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(talk())

    workers = [threading.Thread(target=one) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [b"hello"] * 4, results


@capability("a forked child can run a loop of its own")
def after_fork(factory: LoopFactory) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.sleep(0.01))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio._set_running_loop(None)
                with asyncio.Runner(loop_factory=factory) as own:
                    own.run(asyncio.sleep(0.01))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the child failed"
        runner.run(asyncio.sleep(0.01))


def _interrupt(factory: LoopFactory, main: Any) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("no KeyboardInterrupt")
    taken = time.monotonic() - began
    assert taken < 2, f"after {taken:.1f} s"


@capability("Ctrl-C ends a loop that waits")
def interrupted_idle(factory: LoopFactory) -> None:
    async def main() -> None:
        await asyncio.sleep(10)

    _interrupt(factory, main)


@capability("Ctrl-C ends a loop that is busy")
def interrupted_busy(factory: LoopFactory) -> None:
    async def main() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            await asyncio.sleep(0)

    _interrupt(factory, main)


@capability("Ctrl-C during run_forever() without a Runner")
def interrupted_forever(factory: LoopFactory) -> None:
    loop = factory()
    threading.Timer(0.3, _thread.interrupt_main).start()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    loop.call_later(5, loop.stop)
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        assert time.monotonic() - began < 3, "late"
        loop.close()
        return
    raise AssertionError("no KeyboardInterrupt")


@capability("signal handlers")
async def signal_handler() -> None:
    loop = asyncio.get_running_loop()
    got = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, got.set_result, 1)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert await asyncio.wait_for(got, 5) == 1
    assert loop.remove_signal_handler(signal.SIGUSR1)


@capability("signal.signal() handlers run while the loop waits")
async def plain_signal() -> None:
    seen: list[float] = []
    signal.signal(signal.SIGUSR2, lambda *args: seen.append(time.monotonic()))
    began = time.monotonic()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2)).start()
    await asyncio.sleep(1)
    assert seen and seen[0] - began < 0.6, "it ran late"


@capability("asynchronous generators are closed at the end")
def generators_closed(factory: LoopFactory) -> None:
    closed = []

    async def numbers() -> Any:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(1)

    kept = numbers()

    async def main() -> None:
        await anext(kept)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert closed


@capability("shutdown_default_executor(timeout)", python=(3, 12))
async def executor_timeout() -> None:
    loop = asyncio.get_running_loop()
    release = threading.Event()
    future = loop.run_in_executor(None, release.wait, 5)
    began = time.monotonic()
    await loop.shutdown_default_executor(0.1)
    taken = time.monotonic() - began
    release.set()
    future.cancel()
    assert taken < 3, f"it waited {taken:.1f} s"


@capability("asyncio.eager_task_factory", python=(3, 12))
async def eager_factory() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    seen = []

    async def begins() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)

    task = asyncio.create_task(begins())
    assert seen == [task]
    await task


@capability("create_task(eager_start=True)", python=(3, 14))
async def eager_start() -> None:
    seen = []

    async def begins() -> None:
        seen.append(1)

    task = asyncio.get_running_loop().create_task(begins(), name="x", eager_start=True)
    assert seen == [1] and task.done()


@capability("create_task(name, context)")
async def task_arguments() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    context = contextvars.copy_context()
    context.run(variable.set, 5)

    async def look() -> int:
        return variable.get()

    task = asyncio.get_running_loop().create_task(look(), name="named", context=context)
    assert task.get_name() == "named"
    assert await task == 5


@capability("importing it changes nothing in asyncio")
def import_changes_nothing(factory: LoopFactory) -> None:
    import subprocess

    program = """
import asyncio, sys
import asyncio.events, asyncio.tasks, asyncio.futures
modules = [m for n, m in sys.modules.items() if n.split('.')[0] == 'asyncio']
before = [dict(vars(m)) for m in modules]
classes = {c: dict(vars(c)) for m in modules for c in vars(m).values() if isinstance(c, type)}
__import__(sys.argv[1])
changed = [f"{m.__name__}.{k}" for m, b in zip(modules, before) for k, v in vars(m).items()
           if b.get(k, v) is not v]
changed += [f"{c.__name__}.{k}" for c, b in classes.items() if c.__module__.startswith("asyncio")
            for k, v in vars(c).items() if k not in b or b[k] is not v]
print(", ".join(changed))
"""
    command = [sys.executable, "-c", program, sys.argv[1]]
    changed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert not changed, f"changes {changed}"
