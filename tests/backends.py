"""The event loops under test, under one shape.

A test that takes the `backend`, `loop`, `loop_factory` or `run` fixture runs once on asyncio's own
loop and once on Weft's. The run on asyncio proves the test; the run on Weft is what it is for.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

PY312 = sys.version_info >= (3, 12)
PY313 = sys.version_info >= (3, 13)
PY314 = sys.version_info >= (3, 14)
PY315 = sys.version_info >= (3, 15)


@dataclass(frozen=True)
class Backend:
    """One implementation of the event loop, with its own Future and Task."""

    name: str
    new_event_loop: Callable[[], asyncio.AbstractEventLoop]
    loop_class: type[Any]
    Future: type[asyncio.Future[Any]]
    Task: type[asyncio.Task[Any]]
    prelude: str
    """Source that gives a child program `new_event_loop`, `run`, `Future` and `Task`."""

    @property
    def is_weft(self) -> bool:
        return self.name == "weft"

    def outside_debug(self) -> Backend:
        """The same with loops that are not in debug mode, even if Python is."""

        def new_event_loop() -> asyncio.AbstractEventLoop:
            loop = self.new_event_loop()
            loop.set_debug(False)
            return loop

        return replace(self, new_event_loop=new_event_loop)

    def run(self, coro: Coroutine[Any, Any, Any], *, debug: bool | None = None) -> Any:
        """Run `coro` as `asyncio.run` would, on this backend's loop."""
        with asyncio.Runner(debug=debug, loop_factory=self.new_event_loop) as runner:
            return runner.run(coro)


def asyncio_backend() -> Backend:
    return Backend(
        name="asyncio",
        new_event_loop=asyncio.SelectorEventLoop,
        loop_class=asyncio.SelectorEventLoop,
        Future=asyncio.Future,
        Task=asyncio.Task,
        prelude=(
            "import asyncio\n"
            "from asyncio import Future, SelectorEventLoop as new_event_loop, Task, run\n"
        ),
    )


def weft_backend() -> Backend:
    import weft

    return Backend(
        name="weft",
        new_event_loop=weft.new_event_loop,
        loop_class=weft.Loop,
        Future=weft.Future,
        Task=weft.Task,
        prelude="import asyncio\nfrom weft import Future, Task, new_event_loop, run\n",
    )


BACKENDS: dict[str, Callable[[], Backend]] = {"asyncio": asyncio_backend, "weft": weft_backend}
