"""What every example shares: its common options, and how it counts and reports its calls.

No example needs this to work; it only keeps the counting out of the way of what they show.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
from collections import Counter
from time import perf_counter, process_time
from types import TracebackType
from typing import Any, Self


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all examples take."""
    summary = (description or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument(
        "--base-url", default="http://127.0.0.1:8080", help="where examples.server listens"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the report as JSON, as the last line"
    )
    return parser


class Figures:
    """Calls, latencies and errors of one stretch of work, timed by `with figures:`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.latencies: list[float] = []
        self.errors: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self.seconds = -perf_counter()
        self.cpu_seconds = -process_time()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.seconds += perf_counter()
        self.cpu_seconds += process_time()

    def call(self) -> Call:
        """Time one call: `with figures.call(): …`. What it raises is counted and goes on up."""
        return Call(self)

    def as_dict(self) -> dict[str, Any]:
        """Latencies are milliseconds, over all calls, those that failed included."""
        ordered = sorted(self.latencies)
        calls = len(ordered)
        return {
            "name": self.name,
            "calls": calls,
            "seconds": self.seconds,
            "calls_per_second": calls / self.seconds if self.seconds > 0 else 0.0,
            "cpu_us_per_call": self.cpu_seconds / calls * 1e6 if calls else 0.0,
            "p50_ms": percentile(ordered, 50) * 1000,
            "p99_ms": percentile(ordered, 99) * 1000,
            "errors": self.errors.total(),
            "errors_by_type": dict(self.errors),
        }


class Call:
    """One call being timed."""

    __slots__ = ("_figures", "_started")

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._figures.latencies.append(perf_counter() - self._started)
        if exc_type is not None:
            self._figures.errors[exc_type.__name__] += 1


def percentile(ordered: list[float], percent: int) -> float:
    """The smallest value that `percent` per cent of the sorted values do not exceed."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(rank, 1) - 1]


class Report:
    """What a program found and what it measured. Make it while the loop runs.

    `result` holds what must come out the same on every event loop.
    """

    def __init__(self, program: str) -> None:
        loop = type(asyncio.get_running_loop())
        self.program = program
        self.loop = f"{loop.__module__}.{loop.__qualname__}"
        self.runs: list[Figures] = []
        self.result: dict[str, Any] = {}

    def figures(self, name: str) -> Figures:
        """Figures that belong to this report."""
        figures = Figures(name)
        self.runs.append(figures)
        return figures

    def print(self, *, as_json: bool) -> None:
        """Print the figures, and with `as_json` the whole report in one last line."""
        print(f"\nmeasured on {self.loop}, Python {platform.python_version()}:")
        runs = [figures.as_dict() for figures in self.runs]
        for run in runs:
            print(
                f"  {run['name']:<12} {run['calls']:>6,} calls in {run['seconds']:6.2f} s"
                f" = {run['calls_per_second']:>7,.0f}/s,"
                f" {run['cpu_us_per_call']:.0f} us of CPU a call,"
                f" p50 {run['p50_ms']:.2f} ms, p99 {run['p99_ms']:.2f} ms, {run['errors']} errors"
            )
        if as_json:
            report = {
                "program": self.program,
                "loop": self.loop,
                "python": platform.python_version(),
                "runs": runs,
                "result": self.result,
            }
            print(json.dumps(report))
