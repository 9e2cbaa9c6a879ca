"""Measures rows: every loop has a process of its own, and the loops take turns, round by round.

A machine's speed drifts. Because a round of one loop is followed by a round of the next, a slow
second hits all of them alike, and the best of many short rounds is what each can do undisturbed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loadgen import LoadGenerator
from benchmarks.loops import CONTENDERS
from benchmarks.network import NetworkRow
from benchmarks.processes import Child, RowError, environment, worker
from benchmarks.results import LIMIT, Cell, RowResult
from benchmarks.rows import Row
from benchmarks.startup import StartupRow

AnyRow = Row | NetworkRow | StartupRow

Round = Callable[[], tuple[float, dict[str, float] | None]]
"""Measures once: the value, and for network rows the report that it comes from."""


@dataclass(frozen=True)
class Settings:
    """How long and how often."""

    rounds: int
    """For the loop's rows; others have fewer."""
    round_seconds: float
    network_rounds: int
    network_seconds: float
    network_warmup: float
    few_rounds: int
    """For rows whose rounds take seconds, or a process each."""
    processor_time: bool = False
    """Count the time that the loop's process runs rather than the time on the wall."""

    @classmethod
    def usual(cls) -> Settings:
        return cls(11, 0.030, 7, 0.5, 0.15, 3)

    @classmethod
    def quick(cls) -> Settings:
        return cls(3, 0.010, 2, 0.2, 0.1, 1)


@dataclass(frozen=True)
class Cpus:
    """Where the processes stay. On a machine with one CPU they share it."""

    loop: int | None
    peer: int | None

    @classmethod
    def available(cls) -> Cpus:
        if not hasattr(os, "sched_setaffinity"):
            return cls(None, None)
        available = sorted(os.sched_getaffinity(0))
        return cls(available[0], available[-1])


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
        if isinstance(row, NetworkRow) and self.settings.processor_time:
            result.unit = "us"
        with ExitStack() as stack:
            contestants: dict[str, Round] = {}
            for name in self._names(row):
                try:
                    contestants[name] = self._prepare(row, name, stack)
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

    def _names(self, row: AnyRow) -> list[str]:
        return [LIMIT, *self.loops] if isinstance(row, NetworkRow) else self.loops

    def _rounds(self, row: AnyRow) -> int:
        if isinstance(row, NetworkRow):
            return self.settings.network_rounds
        if isinstance(row, Row):
            few = row.heavy or row.fresh
            return self.settings.few_rounds if few else self.settings.rounds
        return self.settings.rounds

    def _prepare(self, row: AnyRow, name: str, stack: ExitStack) -> Round:
        if isinstance(row, StartupRow):
            return self._startup(row, name)
        if isinstance(row, Row):
            return self._fresh(row, name) if row.fresh else self._loop(row, name, stack)
        if name == LIMIT:
            return self._limit(row, stack)
        return self._client(row, name, stack) if row.client else self._server(row, name, stack)

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

    def _server(self, row: NetworkRow, name: str, stack: ExitStack) -> Round:
        arguments = [row.server, "--size", str(row.size)]
        if row.unix:
            arguments += ["--unix", self._socket_path(stack)]
        if row.udp:
            arguments.append("--udp")
        child = stack.enter_context(
            worker(CONTENDERS[name], "server", *arguments, cpu=self.cpus.loop)
        )
        return self._drive(row, child, child.answer(20)["listening"])

    def _limit(self, row: NetworkRow, stack: ExitStack) -> Round:
        path = self._socket_path(stack) if row.unix else None
        child, address = self._generator.serve(row.mode, self.cpus.loop, path, row.udp)
        return self._drive(row, stack.enter_context(child), address)

    def _drive(self, row: NetworkRow, server: Child, address: str) -> Round:
        """Rounds of the load generator against a server that runs only during its turns."""
        server.pause()

        def run() -> tuple[float, dict[str, float]]:
            server.resume()
            before = server.processor_time()
            try:
                report = self._generator.drive(
                    address,
                    row.mode,
                    row.connections,
                    row.size,
                    self.settings.network_warmup,
                    self.settings.network_seconds,
                    self.cpus.peer,
                )
            finally:
                server.pause()
            return self._value(report, before, server.processor_time())

        return run

    def _client(self, row: NetworkRow, name: str, stack: ExitStack) -> Round:
        server, address = self._generator.serve(row.mode, self.cpus.peer)
        stack.enter_context(server)
        child = stack.enter_context(
            worker(CONTENDERS[name], "client", row.client, cpu=self.cpus.loop)
        )
        order = {
            "address": address.removeprefix("tcp:"),
            "connections": row.connections,
            "warmup": self.settings.network_warmup,
            "measured": self.settings.network_seconds,
        }

        def run() -> tuple[float, dict[str, float]]:
            before = child.processor_time()
            report = child.ask(order)
            return self._value(report, before, child.processor_time())

        return run

    def _value(
        self, report: dict[str, float], before: float | None, after: float | None
    ) -> tuple[float, dict[str, float]]:
        """What a network round counts for."""
        if before is not None and after is not None:
            report["cpu_us"] = (after - before) / report["all_requests"] * 1e6
        if self.settings.processor_time:
            if "cpu_us" not in report:
                raise RowError("the system does not tell processor times")
            return report["cpu_us"], report
        return report["requests_per_second"], report

    @property
    def _generator(self) -> LoadGenerator:
        assert self.generator is not None, "network rows are chosen only with a load generator"
        return self.generator

    @staticmethod
    def _socket_path(stack: ExitStack) -> str:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        return str(Path(directory) / "socket")


def _turns(contestants: dict[str, Round], rounds: int) -> Iterator[tuple[str, Round]]:
    """Everybody's turns, with another one first in each round."""
    order = list(contestants.items())
    for number in range(rounds):
        shift = number % max(1, len(order))
        yield from order[shift:] + order[:shift]
