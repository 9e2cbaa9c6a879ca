"""The demo's command line, from the arguments to the files in out/."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from .chart import draw
from .conditions import conditions
from .cpus import divided_cpus
from .local_server import local_server
from .loops import PREFIXES, ROOT, Absent, Loop, find_loop
from .measure import Measurement
from .programs import PROGRAMS, choose
from .table import table

NEEDED = {"aiohttp": "aiohttp", "aiofiles": "aiofiles", "bs4": "beautifulsoup4"}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    names = [program.name for program in PROGRAMS]
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Run the examples on asyncio, uvloop and Weft in turn, and compare them.",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder for the results")
    parser.add_argument(
        "--seconds", type=float, default=60, help="do as many rounds as take about so long (60)"
    )
    parser.add_argument("--rounds", type=int, help="do exactly so many rounds instead")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, one round")
    parser.add_argument("--loops", nargs="+", choices=list(PREFIXES), default=list(PREFIXES))
    parser.add_argument("--programs", nargs="+", choices=names, default=names)
    arguments = parser.parse_args(argv)
    # Always with asyncio: it is what the others are compared with.
    arguments.loops = [name for name in PREFIXES if name in ("asyncio", *arguments.loops)]
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    if arguments.quick and arguments.rounds is None:
        arguments.rounds = 1
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 if every program did its work on every loop that is there."""
    arguments = parse_arguments(argv)
    missing = [name for module, name in NEEDED.items() if not importlib.util.find_spec(module)]
    if missing:
        print(f"missing: {', '.join(missing)}; pip install -r examples/requirements.txt")
        return 2
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a line of the table must not end the demo.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # Whoever ends us with SIGTERM gets the same tidy end as with Ctrl-C.
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return run(arguments)
    except KeyboardInterrupt:
        print("\ninterrupted; the server and the program that was running are stopped")
        return 130


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    loops = available_loops(arguments.loops)
    if not loops:
        print("none of the loops works here")
        return 2
    measurement = Measurement(choose(arguments.programs, quick=arguments.quick), loops)
    with divided_cpus() as (server_cpu, cpus), local_server(server_cpu) as base_url:
        print(f"server at {base_url}; {cpus}")
        busy = busyness()
        print(f"{busy}\n" if busy else "")
        measurement.run(base_url, rounds=arguments.rounds, seconds=arguments.seconds)
    # In the chart and in the JSON too: who sees those alone must know it as well.
    where = conditions(loops, f"{cpus} · {busy}" if busy else cpus)
    print(f"\n{table(measurement)}\n")
    print(
        f"{measurement.calls:,} calls, {counted(measurement.rounds, 'round')},"
        f" {time.monotonic() - started:.0f} s; medians over the rounds. Errors are injected by the"
        "\nserver, the same for every loop."
        " The poller waits for its clock: no loop can make it faster."
    )
    print(where)
    write_results(measurement, where, arguments.out)
    for failure in measurement.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if measurement.failures else 0


def busyness() -> str:
    """A warning if others keep this machine busy: the figures would be theirs as well."""
    if not hasattr(os, "getloadavg"):
        return ""
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if load < 0.4 * cpus:
        return ""
    return f"this machine is busy (load {load:.1f} on {cpus} CPUs): expect noise in the figures"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def available_loops(names: list[str]) -> list[Loop]:
    """Those of the loops that work here; says so of those that do not."""
    loops = []
    for name in names:
        found = find_loop(name)
        if isinstance(found, Absent):
            print(f"without {found.name}: {found.reason}")
        else:
            loops.append(found)
    return loops


def write_results(measurement: Measurement, where: str, out: Path) -> None:
    """Write demo.json, demo.png and demo.svg."""
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "conditions": where,
        "rounds": measurement.rounds,
        "calls": measurement.calls,
        "speed_up": {loop.name: measurement.overall(loop.name) for loop in measurement.loops},
        "failures": measurement.failures,
        "rows": [row.as_dict() for row in measurement.rows.values()],
    }
    results = out / "demo.json"
    results.write_text(json.dumps(document, indent=1) + "\n")
    written = [results]
    if not measurement.rows:
        print("nothing to draw")
    elif importlib.util.find_spec("matplotlib"):
        written += draw(measurement, where, out / "demo")
    else:
        print("without a chart: matplotlib is missing (pip install -r examples/requirements.txt)")
    print("written: " + ", ".join(str(path) for path in written))
