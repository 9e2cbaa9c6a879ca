"""The event loops that are compared, and how each of them is made.

Nothing is imported here before it is asked for: a process that measures one loop holds no other.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@dataclass(frozen=True)
class Contender:
    """A loop by the name that the tables give it."""

    name: str
    module: str
    installs: bool = False
    """Whether `install()` of the module puts its primitives in place of asyncio's first."""

    @property
    def is_ours(self) -> bool:
        return self.module == "weft"

    @property
    def setup(self) -> str:
        """The statements that a program needs before it can call `new_event_loop()`."""
        lines = f"import {self.module}"
        return f"{lines}; {self.module}.install()" if self.installs else lines

    @property
    def factory_expression(self) -> str:
        return f"{self.module}.new_event_loop()"

    def factory(self) -> LoopFactory:
        """Import the module and return what makes a loop of it."""
        module = importlib.import_module(self.module)
        if self.installs:
            before = _primitives()
            module.install()
            if _primitives() == before:
                raise ImportError(f"{self.module}.install() replaces no primitives")
        factory: LoopFactory = module.new_event_loop
        return factory

    def version(self) -> str:
        """Make a loop, run something on it, and return the module's version."""
        with asyncio.Runner(loop_factory=self.factory()) as runner:
            runner.run(asyncio.sleep(0))
        if self.module == "asyncio":
            import platform

            return platform.python_version()
        from importlib import metadata

        try:
            return metadata.version(self.module)
        except metadata.PackageNotFoundError:
            return str(getattr(importlib.import_module(self.module), "__version__", "in tree"))


def _primitives() -> tuple[object, ...]:
    return (asyncio.gather, asyncio.sleep, asyncio.Queue, asyncio.Semaphore)


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("asyncio", "asyncio"),
        Contender("uvloop", "uvloop"),
        Contender("rloop", "rloop"),
        Contender("rsloop", "rsloop"),
        Contender("zuvloop", "zuvloop"),
        Contender("weft", "weft"),
        Contender("weft+install", "weft", installs=True),
    )
}
