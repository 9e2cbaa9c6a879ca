"""Run programs on loops, round by round, and boil down what they reported."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from statistics import geometric_mean, median
from typing import Any

from .loops import Loop, belongs_to, environment
from .programs import Program

RUN_LIMIT = 60.0
MAX_ROUNDS = 9


class ProgramError(Exception):
    """A program did not do its work on a loop."""


@dataclass
class Row:
    """All rounds of one stretch of work on one loop."""

    label: str
    loop: str
    paced: bool
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def middle(self, key: str) -> float:
        """The median over the rounds."""
        return float(median(run[key] for run in self.rounds))

    def range(self, key: str) -> tuple[float, float]:
        values = [run[key] for run in self.rounds]
        return min(values), max(values)

    def as_dict(self) -> dict[str, Any]:
        lowest, highest = self.range("calls_per_second")
        return {
            "label": self.label,
            "loop": self.loop,
            "paced": self.paced,
            "calls_per_second": self.middle("calls_per_second"),
            "calls_per_second_lowest": lowest,
            "calls_per_second_highest": highest,
            "cpu_us_per_call": self.middle("cpu_us_per_call"),
            "p50_ms": self.middle("p50_ms"),
            "p99_ms": self.middle("p99_ms"),
            "errors": self.range("errors"),
            "rounds": self.rounds,
        }


class Measurement:
    """Everything measured so far, and everything that went wrong."""

    def __init__(self, programs: list[Program], loops: list[Loop]) -> None:
        self.programs = programs
        self.loops = loops
        self.rows: dict[tuple[str, str], Row] = {}
        self.failures: list[str] = []
        self.rounds = 0
        self.calls = 0
        self._results: dict[str, tuple[str, Any]] = {}
        # What failed once is not run again: a program that hangs would do so in every round.
        self._given_up: set[tuple[str, str]] = set()

    def labels(self) -> list[str]:
        """The rows that at least one loop has, in the order of the programs."""
        measured = {label for label, _ in self.rows}
        labels = [label for program in self.programs for label in program.labels.values()]
        return [label for label in labels if label in measured]

    def row(self, label: str, loop: str) -> Row | None:
        return self.rows.get((label, loop))

    def speed_up(self, label: str, loop: str) -> float | None:
        """How many times as many calls a second as asyncio in the same rounds."""
        row, base = self.row(label, loop), self.row(label, "asyncio")
        if row is None or base is None:
            return None
        return row.middle("calls_per_second") / base.middle("calls_per_second")

    def overall(self, loop: str) -> float | None:
        """The geometric mean of the speed-ups of what is not paced by a clock."""
        found = []
        for label in self.labels():
            row, ratio = self.row(label, loop), self.speed_up(label, loop)
            if row is not None and ratio is not None and not row.paced:
                found.append(ratio)
        return geometric_mean(found) if found else None

    def run(self, base_url: str, *, rounds: int | None, seconds: float) -> None:
        """Measure: `rounds` rounds, or else as many as take about `seconds`, at least one."""
        started = time.monotonic()
        wanted = rounds or 1
        while self.rounds < wanted:
            of = f" of {wanted}" if rounds or self.rounds else ""
            print(f"round {self.rounds + 1}{of}", flush=True)
            # Rotated, so that no loop always comes first, or always after the same other.
            shift = self.rounds % len(self.loops)
            order = self.loops[shift:] + self.loops[:shift]
            for program in self.programs:
                self._run_on_each(program, order, base_url)
            self.rounds += 1
            if rounds is None:
                # Asked again after each round: the machine may have become slower, or faster.
                average = (time.monotonic() - started) / self.rounds
                wanted = min(round(seconds / average), MAX_ROUNDS)

    def _run_on_each(self, program: Program, loops: list[Loop], base_url: str) -> None:
        print(f"  {program.name:<15}", end="", flush=True)
        for loop in loops:
            print(f" {loop.name} ", end="", flush=True)
            if (program.name, loop.name) in self._given_up:
                print(f"{'-':>8}  ", end="", flush=True)
                continue
            try:
                report = run_program(program, loop, base_url)
                self._check_result(program, loop, report["result"])
            except ProgramError as failure:
                self.failures.append(f"{program.name} on {loop.name}: {failure}")
                self._given_up.add((program.name, loop.name))
                text = "FAILED"
            else:
                text = f"{self._keep(program, loop, report):,.0f}/s"
            print(f"{text:>8}  ", end="", flush=True)
        print()

    def _check_result(self, program: Program, loop: Loop, result: Any) -> None:
        """Every loop must come to the same result; the first one seen is the one to meet."""
        first_loop, first = self._results.setdefault(program.name, (loop.name, result))
        if result != first:
            raise ProgramError(f"result {result}, but on {first_loop} it was {first}")

    def _keep(self, program: Program, loop: Loop, report: dict[str, Any]) -> float:
        """Add the runs of a report to the rows; the calls a second over all of them."""
        calls = seconds = 0.0
        for run in report["runs"]:
            label = program.labels[run["name"]]
            row = self.rows.setdefault((label, loop.name), Row(label, loop.name, program.paced))
            row.rounds.append(run)
            calls += run["calls"]
            seconds += run["seconds"]
        self.calls += int(calls)
        return calls / seconds


def run_program(program: Program, loop: Loop, base_url: str) -> dict[str, Any]:
    """Run one program on one loop, in a process of its own, and return its report."""
    arguments = ["--base-url", base_url, "--json", *program.arguments]
    with subprocess.Popen(
        loop.command(program.path, arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            output, complaints = process.communicate(timeout=RUN_LIMIT)
        except subprocess.TimeoutExpired:
            # With PYTHONFAULTHANDLER set, SIGABRT shows where it hangs.
            process.send_signal(signal.SIGABRT)
            _, complaints = process.communicate()
            raise ProgramError(f"not done after {RUN_LIMIT:.0f} s{tail(complaints)}") from None
        except BaseException:
            # Ctrl-C while a program runs: do not leave it behind, nor wait for its end.
            process.kill()
            raise
    if process.returncode != 0:
        raise ProgramError(f"ended with {process.returncode}{tail(complaints)}")
    if complaints:
        # Warnings are worth seeing, but they are no failure.
        print(complaints, file=sys.stderr)
    report: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    if not belongs_to(report["loop"], loop.name):
        raise ProgramError(f"ran on {report['loop']}")
    return report


def tail(complaints: str) -> str:
    """The last lines of what a program wrote to its standard error, indented."""
    return "".join(f"\n    {line}" for line in complaints.strip().splitlines()[-12:])
