"""``python -m tests.suites [library ...]``: the command line."""

from __future__ import annotations

import argparse
import contextlib
import platform
import sys
import time
from collections.abc import Sequence

from . import preparing, report, table
from .preparing import OUT, Unavailable
from .running import Outcome, run_tests
from .services import SERVICES
from .table import RUNS, Library


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.suites",
        description="Run the test suites of asyncio's libraries on asyncio and on Weft.",
    )
    parser.add_argument("libraries", nargs="*", help="names or globs; all of them if none is given")
    parser.add_argument("-k", dest="pattern", default="", help="only these tests, as pytest has it")
    parser.add_argument("--run", choices=RUNS, action="append", help="beside asyncio, only this")
    parser.add_argument("-v", "--verbose", action="store_true", help="print whole tracebacks")
    parser.add_argument("--list", action="store_true", help="name the libraries, and run nothing")
    parser.add_argument(
        "--markdown",
        action="store_true",
        help=f"run nothing: write the tables of the runs so far into {report.PAGE.name}",
    )
    return parser.parse_args(argv)


def _run_library(
    library: Library, runs: Sequence[str], pattern: str
) -> tuple[dict[str, dict[str, Outcome]], list[str]]:
    """The outcomes of each run, and the tests that failed once on Weft and passed alone."""
    python = preparing.environment(library)
    place = preparing.workplace(library)
    outcomes: dict[str, dict[str, Outcome]] = {}
    unsteady: list[str] = []
    for run in runs:
        with contextlib.ExitStack() as stack:
            given: dict[str, str] = {}
            if library.service:
                given = stack.enter_context(SERVICES[library.service]())
            outcomes[run] = run_tests(
                library, run, python=python, place=place, given=given, pattern=pattern
            )
            if run == "asyncio":
                continue
            if not any(outcome.loops for outcome in outcomes[run].values()):
                raise Unavailable(f"no test of {library.name} made a loop of Weft's")
            worse = report.judge(library, outcomes)[run]
            again = [test for test, reason in worse.items() if not reason and "::" in test]
            if again and len(again) <= 40:
                alone = run_tests(library, run, python=python, place=place, given=given, only=again)
                for test, outcome in alone.items():
                    if outcome.status == "passed" and test in again:
                        outcomes[run][test] = outcome
                        unsteady.append(f"{run}: {test}")
    return outcomes, unsteady


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the arguments say; 0 if everything that fails on Weft alone is listed."""
    arguments = _arguments(argv)
    if arguments.markdown:
        report.update_page()
        return 0
    libraries = table.select(table.load(), arguments.libraries)
    if arguments.list or not libraries:
        print("\n".join(library.name for library in libraries) or "no such library")
        return 0 if libraries else 2
    runs = ["asyncio", *(arguments.run or RUNS[1:])]
    good = True
    for library in libraries:
        began = time.monotonic()
        try:
            outcomes, unsteady = _run_library(library, runs, arguments.pattern)
        except Unavailable as absence:
            print(f"{library.name} {library.version}  not run: {absence}", flush=True)
            good = False
            continue
        figures = report.document(library, outcomes, unsteady)
        minor = report.minor_of(platform.python_version())
        report.kept(OUT / "outcomes" / f"{library.name}-{minor}.json", outcomes)
        print(f"{report.line(figures)}  ({time.monotonic() - began:.0f} s)", flush=True)
        for test in unsteady:
            print(f"  failed once, passed alone: {test}")
        for run, tests in figures["differences"].items():
            for test, reason in tests.items():
                if reason:
                    continue
                good = False
                outcome = outcomes[run].get(test, Outcome("missing"))
                shown = outcome.detail.strip().splitlines()
                print(f"  {run}: {outcome.status.upper()} {test}")
                for text in shown if arguments.verbose else shown[-1:]:
                    print(f"      {text}")
        if not arguments.pattern and not arguments.run:
            for glob in report.stale(library, outcomes):
                good = False
                print(f"  LISTED, BUT NOT THERE: {glob}")
            report.write(figures)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
