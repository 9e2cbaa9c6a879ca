"""What a row is."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter_ns, process_time_ns

clock: Callable[[], int] = process_time_ns if os.environ.get("CLOCK") == "cpu" else perf_counter_ns
"""What rows read. The processor's time, for a machine that others use too, leaves out what they
took, but also what a loop slept where it need not have."""

Measure = Callable[[int], Awaitable[int]]
"""Does so many units of work; returns what they took, in nanoseconds (or, for memory, bytes)."""


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    name: str
    measure: Measure
    operations: int = 1
    """How many operations one unit of work is."""
    group: str = "loop"
    unit: str = "ns"
    heavy: bool = False
    """One unit takes seconds: it is not repeated within a round, and there are few rounds."""
    fresh: bool = False
    """Every round needs a process of its own, because what it leaves behind would count."""
