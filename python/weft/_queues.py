"""Queues: native but for what is inherited, `__repr__()`, `maxsize` and the hooks of subclasses.

A subclass that overrides `_init()`, `_put()`, `_get()` or one of the methods that asyncio's queue
calls on itself has them called, in asyncio's order. `_queue`, `_getters` and `_putters` are what
they are in asyncio, and the items and waiters themselves: what is done to them counts.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from weft import _weft
from weft._classes import StandIn
from weft._weft import QueueShutDown

if TYPE_CHECKING:
    from _typeshed import SupportsRichComparison

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "QueueShutDown"]

_T = TypeVar("_T")
_Ordered = TypeVar("_Ordered", bound="SupportsRichComparison")


class Queue(_weft.Queue[_T], asyncio.Queue[_T], metaclass=StandIn, stock=asyncio.Queue):
    """A first-in, first-out queue for tasks, as `asyncio.Queue`.

    With `maxsize` greater than zero, `put()` waits while the queue has that many items. On
    Python 3.11 and 3.12, too, there is `shutdown()`, which makes `put()` and `get()` raise
    `weft.QueueShutDown`.
    """

    __slots__ = ()


class LifoQueue(Queue[_T], asyncio.LifoQueue[_T], stock=asyncio.LifoQueue):
    """A queue that gives the item first that was put in last, as `asyncio.LifoQueue`."""

    __slots__ = ()


class PriorityQueue(Queue[_Ordered], asyncio.PriorityQueue[_Ordered], stock=asyncio.PriorityQueue):
    """A queue that gives the smallest item first, as `asyncio.PriorityQueue`.

    Items are compared with `<`.
    """

    __slots__ = ()
