"""What asyncio's inherited code wants to know of the loop's selector."""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from weft import _weft

__all__ = ["ReadinessView"]


class _Key(NamedTuple):
    """As much of a `selectors.SelectorKey` as transports look at."""

    fd: int
    events: int


class ReadinessView:
    """A selector's view of the descriptors that a loop watches; it polls nothing itself."""

    def __init__(self, loop: _weft.EventLoop) -> None:
        self._loop: _weft.EventLoop | None = loop

    def get_key(self, fd: int) -> _Key:
        """Return the descriptor's events; raise KeyError where it is not watched."""
        events = 0 if self._loop is None else self._loop._interest(fd)
        if not events:
            raise KeyError(f"{fd!r} is not registered")
        return _Key(fd, events & (selectors.EVENT_READ | selectors.EVENT_WRITE))

    def close(self) -> None:
        """Forget the loop, which is being closed."""
        self._loop = None
