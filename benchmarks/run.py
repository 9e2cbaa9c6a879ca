"""Measures rows: every loop has a process of its own, and the loops take turns, round by round.

A machine's speed drifts. Because a round of one loop is followed by a round of the next, a slow
second hits all of them alike, and the best of many short rounds is what each can do undisturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from benchmarks.loadgen import LoadGenerator
from benchmarks.loops import CONTENDERS
from benchmarks.network import NetworkRow
from benchmarks.network_rounds import NetworkRounds
from benchmarks.processes import RowError, environment, worker
from benchmarks.results import Cell, RowResult
from benchmarks.rows import Row
from benchmarks.services import NoService
from benchmarks.settings import Cpus, Settings
from benchmarks.startup import StartupRow

AnyRow = Row | NetworkRow | StartupRow

Round = Callable[[], tuple[float, dict[str, float] | None]]
"""Measures once: the value, and for network rows the report that it comes from."""


class Bench:
    """Measures one row after another."""

    def __init__(
        self, loops: list[str], settings: Settings, cpus: Cpus, generator: LoadGenerator | None
    ) -> None:
        self.loops = loops
        self.settings = settings
        self.cpus = cpus
        self.generator = generator

    def measure(self, row: AnyRow) -> RowResult:
        """Measure a row on every loop."""
        result = RowResult(row.name, row.group, row.unit)
        with ExitStack() as stack:
            prepare: Callable[[str], Round]
            if isinstance(row, NetworkRow):
                if self.settings.processor_time:
                    result.unit = "us"
                try:
                    network = NetworkRounds(row, self.settings, self.cpus, self.generator, stack)
                except (NoService, ImportError) as error:
                    result.left_out = str(error)
                    return result
                names = network.names(self.loops)
                prepare = network.prepare
            else:
                names = self.loops
                prepare = partial(self._prepare, row, stack)
            contestants: dict[str, Round] = {}
            for name in names:
                try:
                    contestants[name] = prepare(name)
                except RowError as error:
                    result.errors[name] = str(error)
            for name, run in _turns(contestants, self._rounds(row)):
                if name in result.errors:
                    continue
                try:
                    value, report = run()
                except RowError as error:
                    result.errors[name] = str(error)
                    result.cells.pop(name, None)
                else:
                    cell = result.cells.setdefault(name, Cell())
                    cell.add(value, result.higher_is_better, report)
        return result

    def _rounds(self, row: AnyRow) -> int:
        if isinstance(row, NetworkRow):
            return self.settings.network_rounds
        if isinstance(row, Row):
            few = row.heavy or row.fresh
            return self.settings.few_rounds if few else self.settings.rounds
        return self.settings.rounds

    def _prepare(self, row: Row | StartupRow, stack: ExitStack, name: str) -> Round:
        if isinstance(row, StartupRow):
            return self._startup(row, name)
        return self._fresh(row, name) if row.fresh else self._loop(row, name, stack)

    def _loop(self, row: Row, name: str, stack: ExitStack) -> Round:
        child = stack.enter_context(worker(CONTENDERS[name], "row", row.name, cpu=self.cpus.loop))
        units = 1
        if not row.heavy:
            target = int(self.settings.round_seconds * 1e9)
            units = child.ask({"calibrate": target})["units"]

        def run() -> tuple[float, None]:
            return child.ask({"units": units})["elapsed"] / (units * row.operations), None

        return run

    def _fresh(self, row: Row, name: str) -> Round:
        def run() -> tuple[float, None]:
            with worker(CONTENDERS[name], "row", row.name, cpu=self.cpus.loop) as child:
                return child.ask({"units": 1})["elapsed"] / row.operations, None

        return run

    def _startup(self, row: StartupRow, name: str) -> Round:
        def run() -> tuple[float, None]:
            try:
                return row.run(
                    CONTENDERS[name], environment(), self.cpus.loop, self.settings.processor_time
                ), None
            except RuntimeError as error:
                raise RowError(str(error)) from None

        run()  # The first one fills the file system's cache and writes the compiled modules.
        return run


def _turns(contestants: dict[str, Round], rounds: int) -> Iterator[tuple[str, Round]]:
    """Everybody's turns, with another one first in each round."""
    order = list(contestants.items())
    for number in range(rounds):
        shift = number % max(1, len(order))
        yield from order[shift:] + order[:shift]
