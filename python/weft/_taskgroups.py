"""Tasks that end together."""

from __future__ import annotations

import asyncio

from weft import _weft
from weft._classes import StandIn

__all__ = ["TaskGroup"]


class TaskGroup(_weft.TaskGroup, asyncio.TaskGroup, metaclass=StandIn, stock=asyncio.TaskGroup):
    """An asynchronous context manager that holds tasks: `create_task()` makes them, and the block
    is left when all of them are done.

    A task that fails cancels the others and the block. What was raised, but for cancellations, is
    raised as an ExceptionGroup at the end.
    """

    __slots__ = ()


_weft._use_task_group(TaskGroup)
