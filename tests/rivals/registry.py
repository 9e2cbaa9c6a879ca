"""The list of what is tried, and the loops that it is tried on."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LOOPS = ("asyncio", "uvloop", "rloop", "rsloop", "zuvloop", "weft")
SUBJECTS = (
    "types",
    "scheduling",
    "reports",
    "descriptors",
    "streams",
    "tls",
    "datagrams",
    "processes",
)

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@dataclass(frozen=True)
class Capability:
    """One thing that asyncio's loop does, and the function that raises where another does not.

    A coroutine function is run on the loop; a plain function is given the factory of the loop.
    What it returns, if anything, is a measurement to show.
    """

    subject: str
    name: str
    function: Callable[..., Any]
    python: tuple[int, int]

    def run(self, factory: LoopFactory) -> Any:
        if not inspect.iscoroutinefunction(self.function):
            return self.function(factory)
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(self.function())


_capabilities: list[Capability] = []


def capability(
    name: str, *, python: tuple[int, int] = (3, 11)
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """List the function under this name, for this version of Python and later ones."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        subject = function.__module__.rpartition(".")[2]
        _capabilities.append(Capability(subject, name, function, python))
        return function

    return add


def capabilities() -> list[Capability]:
    """All that this version of Python has, in the order of the table."""
    for subject in SUBJECTS:
        importlib.import_module(f"tests.rivals.{subject}")
    return [entry for entry in _capabilities if sys.version_info >= entry.python]


def load(loop: str) -> LoopFactory:
    """The factory of a loop; raises ImportError where it is not installed."""
    module: Any = asyncio if loop == "asyncio" else importlib.import_module(loop)
    factory: LoopFactory = module.new_event_loop
    return factory
