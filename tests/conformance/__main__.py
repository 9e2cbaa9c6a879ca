"""``python -m tests.conformance [module ...]``: the command line."""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import platform
import sys
import unittest
from collections.abc import Sequence
from pathlib import Path

from . import expectations, plug, report, scope
from .child import flatten, short_id
from .expectations import Kind
from .processes import ROOT, Limits, ModuleRun, child_environment
from .verdict import Conformance, Verdict

_RESULTS = ROOT / "out" / "conformance"
_PAGE = ROOT / "docs" / "conformance.md"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Run CPython's own test.test_asyncio on another event loop.",
    )
    parser.add_argument("modules", nargs="*", help="modules or globs: test_tasks, 'test_f*', locks")
    parser.add_argument("--loop", choices=plug.LOOPS, default="weft")
    parser.add_argument("-k", dest="pattern", metavar="PATTERN", help="only tests whose id has it")
    parser.add_argument(
        "--listed", action="store_true", help="run only the tests that are listed to fail"
    )
    parser.add_argument("--variant", choices=[v.value for v in scope.Variant], action="append")
    parser.add_argument("-v", "--verbose", action="store_true", help="print whole tracebacks")
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("--test-limit", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--module-limit", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument(
        "--json",
        nargs="?",
        type=Path,
        const=True,
        metavar="FILE",
        help=f"write the outcome of each test (default: a file in {_RESULTS.relative_to(ROOT)})",
    )
    parser.add_argument(
        "--markdown",
        nargs="?",
        type=Path,
        const=_PAGE,
        metavar="PAGE",
        help="run nothing: write the tables of the JSON files so far into docs/conformance.md",
    )
    parser.add_argument("--expectations", type=Path, default=expectations.FILE)
    parser.add_argument("--results", type=Path, default=_RESULTS, help="where JSON files are kept")
    return parser.parse_args(argv)


def _suite_directory() -> Path:
    package = importlib.import_module(scope.SUITE)
    return Path(str(package.__file__)).parent


def _select(runs: Sequence[ModuleRun], wanted: Sequence[str]) -> list[ModuleRun]:
    """Limit each run to the tests whose ids match one of the globs ``wanted``."""
    selected = []
    for run in runs:
        try:
            module = plug.quiet_import(f"{scope.SUITE}.{run.module}")
        except unittest.SkipTest:
            continue
        names = map(short_id, flatten(unittest.defaultTestLoader.loadTestsFromModule(module)))
        only = tuple(
            name
            for name in names
            if scope.left_out(name) is None
            and any(fnmatch.fnmatchcase(name, glob) for glob in wanted)
        )
        if only:
            selected.append(ModuleRun(run.loop, run.module, run.variant, only))
    return selected


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the arguments say; 0 if everything is as the expectations say."""
    arguments = _arguments(argv)
    listed = expectations.load(arguments.expectations)
    if arguments.markdown:
        runs = report.read_runs(arguments.results)
        report.update_markdown(arguments.markdown, report.markdown(runs, listed))
        return 0

    sys.path[:0] = child_environment()["PYTHONPATH"].split(":")
    under_test = plug.load(arguments.loop)
    print(report.heading(under_test), flush=True)
    modules = scope.select(scope.suite_modules(_suite_directory()), arguments.modules)
    variants = {scope.Variant(name) for name in arguments.variant or ()} or set(scope.Variant)
    planned = [
        ModuleRun(arguments.loop, module, variant)
        for module in modules
        for variant in scope.variants(module, own_types=under_test.own_types)
        if variant in variants
    ]
    if arguments.pattern:
        planned = _select(planned, [f"*{arguments.pattern}*"])
    if arguments.listed:
        excused = [e for e in listed if e.kind is Kind.FAILS and e.concerns(arguments.loop)]
        planned = _select(planned, [entry.pattern for entry in excused])
    if not planned:
        print("no such test", file=sys.stderr)
        return 2

    result = Conformance(
        arguments.loop,
        listed,
        limits=Limits(arguments.test_limit, arguments.module_limit),
        workers=arguments.workers,
        progress=lambda line: print(f"  {line}", flush=True),
    ).run(planned)

    figures = report.rows(result)
    print(f"\n{report.text_table([*figures, report.total(figures)])}\n")
    if remarks := report.remarks(result):
        print(f"{remarks}\n")
    if problems := report.problems(result, details=arguments.verbose):
        print(f"{problems}\n")
    if arguments.json:
        name = f"{arguments.loop}-{platform.python_version()}.json"
        path = arguments.results / name if arguments.json is True else arguments.json
        report.write_json(path, report.document(result, under_test))
    unexpected = sum(test.verdict is Verdict.UNEXPECTED_PASS for test in result.tests)
    if unexpected or result.stale:
        print(
            f"of the failures, {unexpected} are unexpected passes; "
            f"{len(result.stale)} expectations name no test"
        )
    print(report.closing_line(figures))
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
