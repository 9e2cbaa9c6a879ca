"""Limits to how long something may take."""

from __future__ import annotations

import asyncio

from weft import _weft
from weft._classes import StandIn
from weft._weft import timeout, timeout_at, wait_for

__all__ = ["Timeout", "timeout", "timeout_at", "wait_for"]


# Final for type checkers: users do not derive from it.
class Timeout(  # type: ignore[misc]
    _weft.Timeout, asyncio.Timeout, metaclass=StandIn, stock=asyncio.Timeout
):
    """What `timeout()` and `timeout_at()` return: an asynchronous context manager that cancels the
    block inside it when its moment has come, and raises TimeoutError then.
    """

    __slots__ = ()


_weft._use_timeout(Timeout)
