"""Measures, prints tables as it goes, and writes JSON and charts.

Every flag has an environment variable, so that `make bench ROWS=gather QUICK=1` works.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import chart
from benchmarks.loadgen import LoadGenerator, LoadGeneratorError
from benchmarks.loops import CONTENDERS
from benchmarks.network import NETWORK_ROWS, NetworkRow
from benchmarks.processes import ROOT, RowError, worker
from benchmarks.programs import PROGRAM_ROWS
from benchmarks.report import Table, markdown, notes
from benchmarks.results import Results
from benchmarks.rows import ROWS
from benchmarks.run import AnyRow, Bench
from benchmarks.settings import Cpus, Settings
from benchmarks.startup import STARTUP_ROWS

ALL_ROWS: Mapping[str, AnyRow] = {
    **ROWS,
    **STARTUP_ROWS,
    **NETWORK_ROWS,
    **PROGRAM_ROWS,
}


def main() -> int:
    arguments = _parser().parse_args()
    # As after Ctrl-C, the processes that were started are ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if arguments.list:
        for row in ALL_ROWS.values():
            print(f"{row.group:<9}{row.name}")
        return 0
    if arguments.from_json:
        results = Results.read(arguments.from_json)
    else:
        results = _measure(arguments)
        results.write(arguments.out / "bench.json")
    for line in notes(results):
        print(line)
    if arguments.markdown:
        print(markdown(results))
    if arguments.from_json is None:
        (arguments.out / "bench.md").write_text(markdown(results))
    _draw(results, arguments.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    environment = os.environ.get
    parser.add_argument(
        "--rows",
        default=environment("ROWS", ""),
        help="groups (loop, memory, startup, network, latency, programs) or parts of names, with"
        " commas; all (ROWS)",
    )
    parser.add_argument(
        "--loops", default=environment("LOOPS", ""), help="names, with commas; all (LOOPS)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        default=environment("QUICK", "") not in ("", "0"),
        help="few and short rounds: to see that it works, not to compare (QUICK)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=int(environment("ROUNDS") or 0),
        help="rounds of each row rather than the usual numbers (ROUNDS)",
    )
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default=environment("CLOCK") or "wall",
        help="cpu: count processor time, which a busy machine disturbs less (CLOCK)",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown too")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out", help="where the files go; out/ by default"
    )
    parser.add_argument("--list", action="store_true", help="print the rows and do nothing")
    parser.add_argument(
        "--from-json", type=Path, metavar="FILE", help="report on an earlier run, measure nothing"
    )
    return parser


def _measure(arguments: argparse.Namespace) -> Results:
    settings = Settings.quick() if arguments.quick else Settings.usual()
    if arguments.rounds:
        rounds = arguments.rounds
        settings = dataclasses.replace(
            settings, rounds=rounds, network_rounds=rounds, few_rounds=rounds
        )
    rows = _chosen_rows(arguments.rows)
    loops, absent = _chosen_loops(arguments.loops)
    generator = None
    if any(_needs_generator(row) for row in rows):
        try:
            generator = LoadGenerator()
        except LoadGeneratorError as error:
            print(f"The rows with servers, and others, are left out: {error}.")
            rows = [row for row in rows if not _needs_generator(row)]
    cpus = Cpus.available()
    # For the workers, whose rows read the clock.
    os.environ["CLOCK"] = arguments.clock
    settings = dataclasses.replace(settings, processor_time=arguments.clock == "cpu")
    results = Results(_machine(), dataclasses.asdict(settings), loops, absent)
    print(f"{results.machine['python']}, {results.machine['system']}, {results.machine['cpu']}")
    print(", ".join(f"{name} {version}" for name, version in loops.items()))
    if cpus.loop is not None and cpus.loop == cpus.peer:
        print("There is one CPU only: servers and clients share it, and network rows say little.")
    bench = Bench(list(loops), settings, cpus, generator)
    began = time.monotonic()
    table: Table | None = None
    for row in rows:
        if table is None or row.group != results.rows[-1].group:
            table = Table(row.group, list(loops), settings.processor_time)
            print(f"\n{table.title}\n{table.text(table.header())}", flush=True)
        results.rows.append(bench.measure(row))
        print(table.text(table.line(results.rows[-1])), flush=True)
    print(f"\n{len(rows)} rows in {time.monotonic() - began:.0f} s")
    return results


def _needs_generator(row: AnyRow) -> bool:
    return isinstance(row, NetworkRow) and row.needs_generator


def _chosen_rows(text: str) -> list[AnyRow]:
    patterns = _names(text)
    if not patterns:
        return list(ALL_ROWS.values())
    chosen: list[AnyRow] = []
    for pattern in patterns:
        exact = [row for row in ALL_ROWS.values() if pattern in (row.group, row.name)]
        found = exact or [row for row in ALL_ROWS.values() if pattern.lower() in row.name.lower()]
        if not found:
            sys.exit(f"No row or group is called {pattern!r}; --list prints them.")
        chosen += found
    return [row for row in ALL_ROWS.values() if row in chosen]


def _chosen_loops(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """The loops that work here with their versions, and those that do not with the reason."""
    asked = _names(text)
    for name in asked:
        if name not in CONTENDERS:
            sys.exit(f"No loop is called {name!r}; there are {', '.join(CONTENDERS)}.")
    present: dict[str, str] = {}
    absent: dict[str, str] = {}
    for contender in CONTENDERS.values():
        if asked and contender.name not in asked:
            continue
        with worker(contender, "probe", cpu=None) as child:
            try:
                present[contender.name] = child.answer(30)["version"]
            except RowError as error:
                absent[contender.name] = str(error)
    if not present:
        sys.exit("None of the loops works: " + "; ".join(absent.values()))
    return present, absent


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _machine() -> dict[str, str]:
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "cpu": _cpu(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _cpu() -> str:
    """The processor's name and how many of it this process may use."""
    name = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{usable} x {name}"


def _draw(results: Results, directory: Path) -> None:
    try:
        written = chart.draw(results, directory)
    except ModuleNotFoundError:
        print("No charts: matplotlib is not installed.")
        return
    here = Path.cwd()
    files = [path.relative_to(here) if path.is_relative_to(here) else path for path in written]
    if files:
        print("Charts:", ", ".join(map(str, files)))


if __name__ == "__main__":
    sys.exit(main())
