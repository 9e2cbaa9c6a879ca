"""The rows of the tables that need nothing but a loop.

A row is a coroutine function that does its operation many times and says what that took. It reads
`asyncio.gather` and its like when it is called, never at import, because `weft.install()` may have
put something else in their place.
"""

from __future__ import annotations

from benchmarks.rows import callbacks, memory, primitives, tasks, threads, timers
from benchmarks.rows._row import Measure, Row

__all__ = ["ROWS", "Measure", "Row"]

ROWS: dict[str, Row] = {
    row.name: row
    for module in (callbacks, tasks, primitives, timers, threads, memory)
    for row in module.ROWS
}
