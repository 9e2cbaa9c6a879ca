"""What a run leaves behind: JSON for each library, and the table of ``docs/libraries.md``."""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conformance.report import version_key

from .preparing import OUT, ROOT
from .running import Outcome
from .table import RUNS, Library, load

PAGE = ROOT / "docs" / "libraries.md"
RESULTS = OUT / "results"


def judge(library: Library, outcomes: dict[str, dict[str, Outcome]]) -> dict[str, dict[str, str]]:
    """For each of Weft's runs, the tests that fail there and pass on asyncio; why, if listed."""
    stock = outcomes["asyncio"]
    worse: dict[str, dict[str, str]] = {}
    for run in outcomes:
        if run == "asyncio":
            continue
        worse[run] = {}
        for test, outcome in outcomes[run].items():
            if outcome.status == "failed" and test in stock and stock[test].status == "passed":
                entry = library.difference(test, run)
                worse[run][test] = entry.reason if entry else ""
        for test, outcome in stock.items():
            if outcome.status == "passed" and test not in outcomes[run]:
                entry = library.difference(test, run)
                worse[run][test] = entry.reason if entry else ""
    return worse


def stale(library: Library, outcomes: dict[str, dict[str, Outcome]]) -> list[str]:
    """Listed differences that name no test, or tests that do not differ."""
    worse = judge(library, outcomes)
    return [
        entry.tests
        for entry in library.differences
        if not any(library.difference(test, run) is entry for run in worse for test in worse[run])
    ]


def document(
    library: Library, outcomes: dict[str, dict[str, Outcome]], unsteady: Sequence[str]
) -> dict[str, Any]:
    """The figures of one library as JSON."""
    return {
        "library": library.name,
        "version": library.version,
        "python": platform.python_version(),
        "runs": {
            run: dict(Counter(outcome.status for outcome in tests.values()))
            for run, tests in outcomes.items()
        },
        "differences": judge(library, outcomes),
        "unsteady": sorted(unsteady),
        "left out": library.left_out,
    }


def write(figures: dict[str, Any]) -> None:
    """Keep the figures for the table."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{figures['library']}-{minor_of(figures['python'])}.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")


def line(figures: dict[str, Any]) -> str:
    """One library in the terminal."""
    cells = [
        f"{run}: {counts.get('passed', 0)} passed, {counts.get('failed', 0)} failed, "
        f"{counts.get('skipped', 0)} skipped"
        for run, counts in figures["runs"].items()
    ]
    return f"{figures['library']} {figures['version']}  " + "; ".join(cells)


def minor_of(python: str) -> str:
    """The version of Python without its last part."""
    return ".".join(python.split(".")[:2])


def markdown(python: str, results: Sequence[dict[str, Any]]) -> str:
    """The part of the page about one version of Python."""
    parts = [f"## Python {python}", ""]
    parts += ["| library | version | tests | asyncio | Weft's loop | installed | differences |"]
    parts += ["| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    reasons: dict[tuple[str, str], set[str]] = {}
    for result in results:
        runs = result["runs"]
        passed = [str(runs[run].get("passed", 0)) if run in runs else "" for run in RUNS]
        differing = {test for tests in result["differences"].values() for test in tests}
        total = sum(runs["asyncio"].values())
        cells = [result["library"], result["version"], str(total), *passed, str(len(differing))]
        parts.append(f"| {' | '.join(cells)} |")
        for tests in result["differences"].values():
            for test, reason in tests.items():
                shown = test.rsplit("/", 1)[-1].split("[")[0]
                reasons.setdefault((result["library"], reason or "not explained"), set()).add(shown)
    parts += ["", "Differences:", ""] if reasons else ["", "No differences."]
    for (name, reason), names in sorted(reasons.items()):
        parts.append(f"- **{name}**: {reason}:")
        parts += [f"  `{each}`" for each in sorted(names)]
    left_out = {(r["library"], what, why) for r in results for what, why in r["left out"].items()}
    if left_out:
        parts += ["", "Left out:", ""]
        parts += [f"- **{name}**: `{what}`: {why}." for name, what, why in sorted(left_out)]
    return "\n".join(parts)


def with_part(page: str, minor: str, part: str) -> str:
    """The page with the part about one version replaced, or put behind the others.

    What is said of other versions stays: their runs may be long gone.
    """
    begin, end = (f"<!-- generated: {edge} {minor} -->" for edge in ("begin", "end"))
    generated = f"{begin}\n\n{part}\n\n{end}"
    before, found, rest = page.partition(begin)
    if found:
        return before + generated + rest.partition(end)[2]
    ends = list(re.finditer(r"<!-- generated: end \S+ -->", page))
    if not ends:
        raise ValueError(f"{PAGE} has no generated part to put another one behind")
    behind = ends[-1].end()
    return f"{page[:behind]}\n\n{generated}{page[behind:]}"


def update_page() -> None:
    """Write what the JSON files say into the page, version by version."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    libraries = {library.name: library for library in load()}
    for result in results:
        # What has been explained since the run.
        for run, tests in result["differences"].items():
            for test in tests:
                entry = libraries[result["library"]].difference(test, run)
                tests[test] = entry.reason if entry else ""
    page = PAGE.read_text()
    for python in sorted({result["python"] for result in results}, key=version_key):
        of_this = [result for result in results if result["python"] == python]
        page = with_part(page, minor_of(python), markdown(python, of_this))
    PAGE.write_text(page)


def kept(path: Path, outcomes: dict[str, dict[str, Outcome]]) -> None:
    """Each outcome of each test, to look things up in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {run: {t: [o.status, o.detail] for t, o in of.items()} for run, of in outcomes.items()}
        )
    )
