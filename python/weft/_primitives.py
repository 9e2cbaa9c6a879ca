"""Weft's own versions of what asyncio gives programs to call, by asyncio's names.

`weft` exports them all; `weft.install()` and `python -m weft` also put them into asyncio's
namespace, so that a program that imports asyncio gets them. Every one works on any event loop.
"""

from __future__ import annotations

import asyncio
import sys
from types import FunctionType, ModuleType
from typing import Any

from weft._locks import Barrier, BoundedSemaphore, Condition, Event, Lock, Semaphore
from weft._queues import LifoQueue, PriorityQueue, Queue
from weft._streams import (
    StreamReader,
    StreamReaderProtocol,
    StreamWriter,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
)
from weft._taskgroups import TaskGroup
from weft._timeouts import Timeout, timeout, timeout_at, wait_for
from weft._weft import (
    as_completed,
    create_task,
    current_task,
    ensure_future,
    gather,
    shield,
    sleep,
    to_thread,
    wait,
)

__all__ = ["PRIMITIVES", "put_in_place", "take_back"]

PRIMITIVES: dict[str, Any] = {
    "Barrier": Barrier,
    "BoundedSemaphore": BoundedSemaphore,
    "Condition": Condition,
    "Event": Event,
    "LifoQueue": LifoQueue,
    "Lock": Lock,
    "PriorityQueue": PriorityQueue,
    "Queue": Queue,
    "Semaphore": Semaphore,
    "StreamReader": StreamReader,
    "StreamReaderProtocol": StreamReaderProtocol,
    "StreamWriter": StreamWriter,
    "TaskGroup": TaskGroup,
    "Timeout": Timeout,
    "as_completed": as_completed,
    "create_task": create_task,
    "ensure_future": ensure_future,
    "gather": gather,
    "open_connection": open_connection,
    "open_unix_connection": open_unix_connection,
    "shield": shield,
    "sleep": sleep,
    "start_server": start_server,
    "start_unix_server": start_unix_server,
    "timeout": timeout,
    "timeout_at": timeout_at,
    "to_thread": to_thread,
    "wait": wait,
    "wait_for": wait_for,
}
"""Weft's objects by the names that asyncio exports them by."""

if isinstance(asyncio.current_task, FunctionType):
    # From Python 3.12 on asyncio's own is native.
    PRIMITIVES["current_task"] = current_task

_replaced: list[tuple[ModuleType, str, Any, Any]] = []


def _asyncio_modules() -> list[ModuleType]:
    return [
        module
        for name, module in list(sys.modules.items())
        if (name == "asyncio" or name.startswith("asyncio.")) and isinstance(module, ModuleType)
    ]


def put_in_place() -> None:
    """Replace asyncio's objects with Weft's, in the package and in its submodules.

    Without effect where that was done. What a program has imported before stays as it is.
    """
    if _replaced:
        return
    ours = {
        id(stock): (stock, own)
        for name, own in PRIMITIVES.items()
        if (stock := getattr(asyncio, name, None)) is not None and stock is not own
    }
    for module in _asyncio_modules():
        for name, value in list(vars(module).items()):
            stock, own = ours.get(id(value), (None, None))
            if stock is not None and value is stock:
                setattr(module, name, own)
                _replaced.append((module, name, stock, own))


def take_back() -> None:
    """Undo `put_in_place()`, but for names that somebody else has set since."""
    while _replaced:
        module, name, stock, own = _replaced.pop()
        if vars(module).get(name) is own:
            setattr(module, name, stock)
