"""What of the suite is run.

A test belongs here when it says something about the loop, the future or the task under test.  What
is left out is left out by whole modules or classes, with the reason beside it, for every loop
alike; a single test that fails is never left out: it belongs into ``expectations.toml``.
"""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Iterable
from pathlib import Path

SUITE = "test.test_asyncio"


class Variant(enum.Enum):
    """How the loop and the types under test are combined in one run of a module."""

    OWN = "own"
    """The loop under test, and its own future and task types in place of the C ones."""

    STOCK_TYPES = "stock types"
    """The loop under test, driving the C futures and tasks of asyncio."""

    SUITE_LOOP = "suite's loop"
    """The types under test on the suite's own pure Python loop with its hand-driven clock."""

    PRIMITIVES = "native primitives"
    """As OWN, and with what ``install()`` puts into asyncio's namespace there."""


# Where futures and tasks are the subject, every combination of loop and type has to be right: a
# program may hold C tasks on our loop, and our futures on another loop.
_EXTRA_VARIANTS: dict[str, tuple[Variant, ...]] = {
    "test_futures": (Variant.STOCK_TYPES, Variant.SUITE_LOOP),
    "test_futures2": (Variant.STOCK_TYPES,),
    "test_tasks": (Variant.STOCK_TYPES, Variant.SUITE_LOOP, Variant.PRIMITIVES),
    "test_eager_task_factory": (Variant.STOCK_TYPES,),
    "test_graph": (Variant.STOCK_TYPES,),
    "test_locks": (Variant.PRIMITIVES,),
    "test_pep492": (Variant.PRIMITIVES,),
    "test_queues": (Variant.PRIMITIVES,),
    "test_runners": (Variant.PRIMITIVES,),
    "test_server": (Variant.PRIMITIVES,),
    "test_streams": (Variant.PRIMITIVES,),
    "test_taskgroups": (Variant.PRIMITIVES,),
    "test_threads": (Variant.PRIMITIVES,),
    "test_timeouts": (Variant.PRIMITIVES,),
    "test_waitfor": (Variant.PRIMITIVES,),
}

# In these modules ``self.new_test_loop()`` is only a handy loop; the tests do not drive its clock.
# Elsewhere it stands for a loop whose readers and writers the test inspects.
TEST_LOOP_IS_ANY_LOOP = frozenset({"test_futures", "test_tasks"})

LEFT_OUT_MODULES: dict[str, str] = {
    "test_selector_events": (
        "tests asyncio's BaseSelectorEventLoop and its transports on mock selectors and sockets; "
        "no loop under test is ever made"
    ),
    "test_proactor_events": "tests asyncio's proactor loop on mock objects",
    "test_windows_events": "Windows only",
    "test_windows_utils": "Windows only",
    "test_tools": "tests the output of `python -m asyncio ps`; no loop runs in it",
}

_ONE_SELECTOR = (
    "the same tests as SelectEventLoopTests with another selector; a loop that brings its own "
    "poller would run them twice"
)
LEFT_OUT_CLASSES: dict[str, str] = {
    f"{module}.{selector}{suffix}": _ONE_SELECTOR
    for module, suffix in (
        ("test_events", "EventLoopTests"),
        ("test_sendfile", "EventLoopTests"),
        ("test_sock_lowlevel", "EventLoopTests"),
    )
    for selector in ("Kqueue", "EPoll", "Poll")
}


def left_out(test_id: str) -> str | None:
    """The reason why a test is not run, or None.  ``test_id`` is ``module.Class.test``."""
    module, _, rest = test_id.partition(".")
    if module in LEFT_OUT_MODULES:
        return LEFT_OUT_MODULES[module]
    return LEFT_OUT_CLASSES.get(f"{module}.{rest.partition('.')[0]}")


def suite_modules(directory: Path) -> list[str]:
    """The test modules in ``directory`` that are run, the largest (which run longest) first."""
    files = sorted(directory.glob("test_*.py"), key=lambda file: (-file.stat().st_size, file.name))
    return [file.stem for file in files if file.stem not in LEFT_OUT_MODULES]


def select(modules: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Those of ``modules`` that match one of ``wanted`` (names or globs, ``test_`` optional)."""
    patterns = [name if name.startswith("test_") else f"test_{name}" for name in wanted]
    if not patterns:
        return list(modules)
    return [m for m in modules if any(fnmatch.fnmatchcase(m, pattern) for pattern in patterns)]


def variants(module: str, *, own_types: bool) -> tuple[Variant, ...]:
    """The variants in which ``module`` is run; only one for a loop without types of its own."""
    if not own_types:
        return (Variant.OWN,)
    return (Variant.OWN, *_EXTRA_VARIANTS.get(module, ()))
