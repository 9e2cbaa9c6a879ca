"""What type checkers make of the public API. Not run: mypy reads it, as a step of lint.

`assert_type` fails where a type is not exactly this one; an assignment, where it does not suit.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import unittest
from collections.abc import Callable
from typing import Any, assert_type

import weft


async def answer() -> int:
    return 42


class Echo(asyncio.Protocol):
    """A protocol of the user's own."""


def running() -> None:
    assert_type(weft.run(answer()), int)
    assert_type(weft.run(answer(), debug=None), int)
    assert_type(weft.run(answer(), debug=True, loop_factory=asyncio.SelectorEventLoop), int)
    with asyncio.Runner(loop_factory=weft.new_event_loop) as runner:
        assert_type(runner.run(answer()), int)


def installing() -> None:
    # assert_type() does not take None from a function.
    install: Callable[[], None] = weft.install
    uninstall: Callable[[], None] = weft.uninstall
    version: str = weft.__version__
    print(install, uninstall, version)


def loops() -> None:
    loop = weft.new_event_loop()
    assert_type(loop, weft.Loop)
    abstract: asyncio.AbstractEventLoop = loop
    factory: Callable[[], asyncio.AbstractEventLoop] = weft.Loop
    print(abstract, factory)
    assert_type(loop.run_until_complete(answer()), int)
    assert_type(loop.time(), float)
    handle: asyncio.Handle = loop.call_soon(print, "a", context=contextvars.copy_context())
    timer: asyncio.TimerHandle = loop.call_later(1.5, print)
    assert_type(timer.when(), float)
    assert_type(handle.cancelled(), bool)
    assert_type(loop.call_soon_threadsafe(print), weft.Handle)
    assert_type(loop.call_at(3, print, 1, 2), weft.TimerHandle)
    loop.call_soon(len, 5)  # type: ignore[arg-type]
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    loop.add_reader(0, print, "readable")


async def tasks() -> None:
    loop = weft.new_event_loop()
    task = loop.create_task(answer(), name="a name")
    assert_type(task, asyncio.Task[int])
    assert_type(await task, int)
    assert_type(loop.create_future(), weft.Future[Any])
    future: asyncio.Future[str] = weft.Future[str](loop=loop)
    future.set_result("text")
    assert_type(await future, str)
    assert_type(await weft.Task(answer(), loop=loop), int)

    def done(finished: asyncio.Future[int]) -> None:
        assert_type(finished.result(), int)

    weft.Task(answer()).add_done_callback(done)
    either: list[weft.Future[int]] = [weft.Future(), weft.Task(answer())]
    print(either)


async def connections() -> None:
    loop = weft.new_event_loop()
    transport, protocol = await loop.create_connection(Echo, "localhost", 80, ssl=True)
    assert_type(transport, asyncio.Transport)
    assert_type(protocol, Echo)
    server = await loop.create_server(Echo, "localhost", 0)
    assert_type(server, asyncio.Server)
    assert_type(await loop.create_unix_server(Echo, "path"), asyncio.Server)
    await loop.create_connection(Echo, "localhost", nothing=1)  # type: ignore[call-overload]


class Policy(weft.EventLoopPolicy):
    """A policy of the user's own."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return super().new_event_loop()


class Case(unittest.IsolatedAsyncioTestCase):
    """A test case. From Python 3.13 on it asks for a loop factory."""

    loop_factory = weft.Loop


async def text() -> str:
    return "text"


async def gathering() -> None:
    assert_type(await weft.gather(answer()), tuple[int])
    assert_type(await weft.gather(answer(), text()), tuple[int, str])
    number, words = await weft.gather(answer(), weft.create_task(text()))
    assert_type(number, int)
    assert_type(words, str)
    assert_type(
        await weft.gather(answer(), text(), return_exceptions=True),
        tuple[int | BaseException, str | BaseException],
    )
    assert_type(
        await weft.gather(answer(), text(), answer(), text(), answer(), text()),
        tuple[int, str, int, str, int, str],
    )
    assert_type(await weft.gather(*[answer(), answer()]), list[int])
    assert_type(await weft.gather(*[answer()], return_exceptions=True), list[int | BaseException])
    weft.gather(1)  # type: ignore[call-overload]


async def names_of_asyncio() -> None:
    """What Weft does not replace is asyncio's: `import weft as asyncio`."""
    assert_type(weft.get_running_loop(), asyncio.AbstractEventLoop)
    assert_type(weft.current_task(), asyncio.Task[Any] | None)
    when: str = weft.ALL_COMPLETED
    assert_type(weft.subprocess.PIPE, int)
    process = await weft.create_subprocess_exec("true", stdout=weft.subprocess.PIPE)
    assert_type(process, asyncio.subprocess.Process)
    assert_type(weft.iscoroutinefunction(answer), bool)
    protocol: type[asyncio.Protocol] = weft.Protocol
    error: type[asyncio.CancelledError] = weft.CancelledError
    print(protocol, error, when)
    weft.current_tasks()  # type: ignore[attr-defined]
