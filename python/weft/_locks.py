"""Locks, events, conditions, semaphores and barriers: asyncio's classes with a native part.

Each inherits from its native class what runs per use, and from asyncio's what runs once or rarely:
constructors, representations, `Barrier.reset()` and `abort()`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from weft import _weft
from weft._classes import StandIn, copied_by

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "Semaphore"]


class Lock(_weft.Lock, asyncio.Lock, metaclass=StandIn, stock=asyncio.Lock):
    """A mutual exclusion lock for tasks, as `asyncio.Lock`; who waits longest gets it first."""

    __slots__ = ()
    __reduce__ = copied_by("_waiters", "_locked")


class Event(_weft.Event, asyncio.Event, metaclass=StandIn, stock=asyncio.Event):
    """A flag that tasks wait for, as `asyncio.Event`."""

    __slots__ = ()
    __reduce__ = copied_by("_waiters", "_value")


class Semaphore(_weft.Semaphore, asyncio.Semaphore, metaclass=StandIn, stock=asyncio.Semaphore):
    """A number of places for tasks to take, as `asyncio.Semaphore`; first come, first served."""

    __slots__ = ()
    __reduce__ = copied_by("_waiters", "_value")


class BoundedSemaphore(
    _weft.BoundedSemaphore,
    Semaphore,
    asyncio.BoundedSemaphore,
    metaclass=StandIn,
    stock=asyncio.BoundedSemaphore,
):
    """A semaphore that never has more places than at first, as `asyncio.BoundedSemaphore`."""

    __slots__ = ()
    __reduce__ = copied_by("_waiters", "_value", "_bound_value")


class Condition(_weft.Condition, asyncio.Condition, metaclass=StandIn, stock=asyncio.Condition):
    """A lock with a place to wait until somebody notifies, as `asyncio.Condition`.

    `lock` may be a Lock of Weft's or asyncio's; a new one is made where none is given.
    """

    __slots__ = ()

    def __init__(self, lock: asyncio.Lock | None = None) -> None:
        self._adopt(Lock() if lock is None else lock)

    def __reduce__(self) -> tuple[Any, ...]:
        # The lock's own methods, which the constructor stores, are no state.
        rest = {
            name: value
            for name, value in self.__dict__.items()
            if not (name in _FORWARDED and value == getattr(self._lock, name, None))
        }
        state = {"_waiters": self._waiters}
        if self._loop is not None:
            state["_loop"] = self._loop
        return _condition, (type(self), self._lock), (rest, state)


_FORWARDED = frozenset({"locked", "acquire", "release"})


def _condition(cls: type[Condition], lock: Any) -> Condition:
    """What a copy of a condition begins with."""
    condition = cls.__new__(cls)
    Condition.__init__(condition, lock)
    return condition


class Barrier(_weft.Barrier, asyncio.Barrier, metaclass=StandIn, stock=asyncio.Barrier):
    """A place where tasks wait until a given number of them is there, as `asyncio.Barrier`."""

    __slots__ = ()
    __reduce__ = copied_by("_cond", "_parties", "_state", "_count")

    def __init__(self, parties: int) -> None:
        super().__init__(parties)
        self._cond = Condition()
