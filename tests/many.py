"""asyncio's functions and Weft's of the same names, with the loops that each is tested on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends import BACKENDS

NAMES = (
    "as_completed",
    "create_task",
    "current_task",
    "ensure_future",
    "gather",
    "shield",
    "wait",
)


@dataclass(frozen=True)
class Kit:
    """One implementation of the functions, and a kind of loop to use it on."""

    name: str
    new_event_loop: Callable[[], asyncio.AbstractEventLoop]
    as_completed: Callable[..., Any]
    create_task: Callable[..., Any]
    current_task: Callable[..., Any]
    ensure_future: Callable[..., Any]
    gather: Callable[..., Any]
    shield: Callable[..., Any]
    wait: Callable[..., Any]

    def run(self, main: Any) -> Any:
        with asyncio.Runner(loop_factory=self.new_event_loop) as runner:
            return runner.run(main)


def stock() -> Kit:
    """asyncio's functions on asyncio's loop: what all others are held against."""
    tasks = sys.modules["asyncio.tasks"]
    return Kit(
        "asyncio", BACKENDS["asyncio"]().new_event_loop, **{n: getattr(tasks, n) for n in NAMES}
    )


def native(loop: str) -> Kit:
    """Weft's functions on the loop of that name."""
    from weft import _weft

    return Kit(
        f"weft-on-{loop}", BACKENDS[loop]().new_event_loop, **{n: getattr(_weft, n) for n in NAMES}
    )


KITS: dict[str, Callable[[], Kit]] = {
    "asyncio": stock,
    "weft-on-weft": lambda: native("weft"),
    "weft-on-asyncio": lambda: native("asyncio"),
}
