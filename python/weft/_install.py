"""Ways to make a program run on Weft."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from weft._compat import DefaultEventLoopPolicy, get_policy, set_policy
from weft._loop import Loop
from weft._primitives import put_in_place, take_back

__all__ = ["EventLoopPolicy", "Runner", "install", "new_event_loop", "run", "uninstall"]

_T = TypeVar("_T")


def new_event_loop() -> Loop:
    """Return a new event loop; suits `asyncio.Runner(loop_factory=weft.new_event_loop)`."""
    return Loop()


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _T:
    """Run the coroutine `main` on a new Weft loop and return its result, as `asyncio.run()`.

    Args:
        main: a coroutine; what it raises is raised here. (From Python 3.14 on any awaitable.)
        debug: asyncio's debug mode on or off; None asks PYTHONASYNCIODEBUG and `-X dev`.
        loop_factory: makes another loop than Weft's.

    Raises RuntimeError where a loop is running in this thread, and where `main` is no coroutine
    what `asyncio.run()` raises then: ValueError, or TypeError from Python 3.14 on.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("weft.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)


class Runner(asyncio.Runner):
    """`asyncio.Runner` on Weft's loop: runs several coroutines in one context, one after another.

    Args:
        debug: asyncio's debug mode on or off; None asks PYTHONASYNCIODEBUG and `-X dev`.
        loop_factory: makes another loop than Weft's.
    """

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        super().__init__(debug=debug, loop_factory=loop_factory or new_event_loop)


class EventLoopPolicy(DefaultEventLoopPolicy):
    """asyncio's default policy, with Weft's loop.

    `asyncio.set_event_loop_policy(weft.EventLoopPolicy())` makes asyncio use it. asyncio deprecates
    policies from Python 3.14 on; `asyncio.Runner(loop_factory=weft.new_event_loop)` works on every
    version.
    """

    _loop_factory = Loop


_installed: EventLoopPolicy | None = None
_before: Any = None


def install() -> None:
    """Make programs that import asyncio run on Weft.

    From here on `asyncio.run()`, `asyncio.Runner` and `asyncio.new_event_loop()` use Weft's loop,
    and asyncio's names (`asyncio.sleep`, `asyncio.Queue` …) give Weft's own primitives. Without
    effect where that is so already. Loops that exist stay what they are, and so does what somebody
    has imported from asyncio before.
    """
    global _installed, _before
    put_in_place()
    current = get_policy()
    if not isinstance(current, EventLoopPolicy):
        _installed, _before = EventLoopPolicy(), current
        set_policy(_installed)


def uninstall() -> None:
    """Undo `install()`, however often it was called: policy and names are again those from before.

    Without effect where Weft is not installed, and on a policy or name that somebody has set since.
    """
    global _installed, _before
    take_back()
    if _installed is not None and get_policy() is _installed:
        set_policy(_before)
        _installed = _before = None
