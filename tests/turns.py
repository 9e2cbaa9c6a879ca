"""Running a loop for a known number of turns, or under a clock that the test moves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any


def turn(loop: asyncio.AbstractEventLoop, times: int = 1) -> None:
    """Let the loop run what is ready, `times` times over."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()


def collect(reports: list[dict[str, Any]]) -> None:
    """Collect garbage, with the tasks whose end is reported.

    From Python 3.15 on what a report holds is still found by weak references.
    """
    gc.collect()
    for report in reports:
        report.pop("task", None)
    gc.collect()


def raised(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[type, str]:
    """The type and the message of the exception that the call raises."""
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:
        return type(error), str(error)
    raise AssertionError(f"returned {result!r} instead of raising")


class Clock:
    """Replaces `loop.time`; the loop never has to wait for it, because the test moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
