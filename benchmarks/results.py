"""What was measured, in memory and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

LIMIT = "limit"
"""The name under which the bare server's figures stand beside the loops'."""

HIGHER_IS_BETTER = ("requests/s", "connections/s", "GiB/s")

RESTLESS = 0.15
"""A cell whose median is this much worse than its best was not measured in peace."""


@dataclass
class Cell:
    """One loop's figures in one row."""

    rounds: list[float] = field(default_factory=list)
    best: float = 0.0
    p50_us: float | None = None
    p99_us: float | None = None
    cpu_us: float | None = None
    """The least processor time that a request took of the loop's process."""

    def add(self, value: float, higher: bool, report: dict[str, float] | None = None) -> None:
        """Take the value of a round, and the latencies that belong to it."""
        self.rounds.append(value)
        if len(self.rounds) == 1 or (value > self.best if higher else value < self.best):
            self.best = value
            if report is not None:
                self.p50_us = report.get("p50_us")
                self.p99_us = report.get("p99_us")
        if report is not None and "cpu_us" in report:
            self.cpu_us = min(self.cpu_us or report["cpu_us"], report["cpu_us"])

    @property
    def is_restless(self) -> bool:
        middle = median(self.rounds)
        return max(middle, self.best) / min(middle, self.best) > 1 + RESTLESS


@dataclass
class RowResult:
    """A row: a cell, or an error, for each loop."""

    name: str
    group: str
    unit: str
    cells: dict[str, Cell] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    left_out: str = ""
    """Why nobody could be measured, if so."""

    @property
    def higher_is_better(self) -> bool:
        return self.unit in HIGHER_IS_BETTER

    def speedup(self, loop: str, over: str) -> float | None:
        """How many times better `loop` is than `over`."""
        if loop not in self.cells or over not in self.cells:
            return None
        mine, other = self.cells[loop].best, self.cells[over].best
        if not mine or not other:
            return None
        return mine / other if self.higher_is_better else other / mine

    def best_of(self, loops: list[str]) -> str | None:
        """The loop with the best figure."""
        measured = [loop for loop in loops if loop in self.cells]
        choose = max if self.higher_is_better else min
        return choose(measured, key=lambda loop: self.cells[loop].best, default=None)


@dataclass
class Results:
    """A whole run."""

    machine: dict[str, str]
    settings: dict[str, Any]
    loops: dict[str, str]
    """The loops that took part, and their versions."""
    absent: dict[str, str]
    """The loops that did not, and why."""
    rows: list[RowResult] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        content = json.loads(path.read_text())
        rows = [
            RowResult(
                **row | {"cells": {loop: Cell(**cell) for loop, cell in row["cells"].items()}}
            )
            for row in content.pop("rows")
        ]
        return cls(**content, rows=rows)
