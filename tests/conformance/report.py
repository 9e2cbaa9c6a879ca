"""What a run leaves behind: the table, the JSON file, the generated part of the documentation."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .expectations import Expectation, Kind
from .plug import UnderTest
from .scope import LEFT_OUT_CLASSES, LEFT_OUT_MODULES, Variant
from .verdict import Judged, Report, Verdict

COLUMNS = ("module", "tests", "passed", "failed", "excused", "skipped", "without it", "s")
"""``without it``: passed without making a loop, or using a type, of the one under test."""

_BEGIN = "<!-- generated: begin -->"
_END = "<!-- generated: end -->"


def rows(report: Report) -> list[dict[str, Any]]:
    """One row of figures for each module and variant, by name."""
    return [
        {
            "module": module.run.label,
            "tests": len(module.tests),
            "passed": module.count(Verdict.PASSED),
            "failed": module.count(Verdict.FAILED, Verdict.UNEXPECTED_PASS),
            "excused": module.count(Verdict.EXCUSED),
            "skipped": module.count(Verdict.SKIPPED),
            "without it": sum(
                test.verdict is Verdict.PASSED and not test.outcome.used for test in module.tests
            ),
            "s": round(module.seconds, 1),
        }
        for module in sorted(report.modules, key=lambda module: module.run.label)
    ]


def total(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sums of the rows."""
    sums = {name: sum(row[name] for row in figures) for name in COLUMNS[1:]}
    return {"module": "total", **sums, "s": round(sums["s"], 1)}


def text_table(figures: Sequence[dict[str, Any]]) -> str:
    """The table for a terminal."""
    lines = [list(COLUMNS)] + [[str(row[name]) for name in COLUMNS] for row in figures]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [cells[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        ).rstrip()
        for cells in lines
    )


def closing_line(figures: Sequence[dict[str, Any]]) -> str:
    """The last line of a run; what is excused counts as skipped."""
    sums = total(figures)
    skipped = sums["excused"] + sums["skipped"]
    return f"{sums['passed']} passed, {sums['failed']} failed, {skipped} skipped"


def describe(test: Judged, *, details: bool) -> str:
    """One test, for the list of what went wrong."""
    extra = "" if test.variant is Variant.OWN else f" [{test.variant.value}]"
    lines = [f"{test.verdict.value.upper()}: {test.outcome.id}{extra}"]
    lines += [f"    note: {note}" for note in test.notes]
    if test.verdict is Verdict.UNEXPECTED_PASS and test.expectation:
        lines.append(f"    listed as: {test.expectation.kind.value}, {test.expectation.reason}")
    detail = test.outcome.detail.strip()
    if detail and (details or not test.passes_alone):
        shown = detail.splitlines() if details else detail.splitlines()[-1:]
        lines += [f"    {line}" for line in shown]
    return "\n".join(lines)


def problems(report: Report, *, details: bool) -> str:
    """Everything that is not as the expectations say."""
    bad = [test for test in report.tests if not test.verdict.good]
    # Those that pass alone come last: they may all follow from one of the others.
    bad.sort(key=lambda test: test.passes_alone)
    parts = [describe(test, details=details) for test in bad]
    parts += [
        f"LISTED, BUT NOT THERE: {entry.pattern} ({entry.python or 'every version'})"
        for entry in report.stale
    ]
    return "\n".join(parts)


def remarks(report: Report) -> str:
    """What is worth a look although the run may have succeeded."""
    parts = [
        describe(test, details=False) for test in report.tests if test.verdict.good and test.notes
    ]
    noisy = [test for test in report.tests if test.outcome.unraisable]
    parts += [
        f"unraisable: {test.outcome.id}: {'; '.join(test.outcome.unraisable)}" for test in noisy
    ]
    return "\n".join(parts)


def document(report: Report, under_test: UnderTest) -> dict[str, Any]:
    """The run as JSON."""
    return {
        "loop": under_test.name,
        "version": under_test.version,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "good": report.good,
        "rows": rows(report),
        "tests": [
            {
                "id": test.outcome.id,
                "variant": test.variant.value,
                "verdict": test.verdict.value,
                "used": test.outcome.used,
                "seconds": test.outcome.seconds,
                **({"notes": test.notes} if test.notes else {}),
                **({"reason": test.expectation.reason} if test.expectation else {}),
                **({"detail": test.outcome.detail} if test.outcome.detail else {}),
                **({"unraisable": test.outcome.unraisable} if test.outcome.unraisable else {}),
            }
            for test in report.tests
        ],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a run's JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def read_runs(directory: Path) -> list[dict[str, Any]]:
    """The JSON files of earlier runs, by loop and version of Python."""
    runs = [json.loads(path.read_text()) for path in directory.glob("*.json")]
    return sorted(runs, key=lambda run: (run["loop"], version_key(run["python"])))


def version_key(version: str) -> tuple[int, ...]:
    """Sorts 3.9 before 3.13."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _markdown_table(header: Sequence[str], lines: Iterable[Sequence[object]]) -> list[str]:
    rule = ["---" if name in {"Python", "loop", "module"} else "---:" for name in header]
    return [f"| {' | '.join(map(str, cells))} |" for cells in (header, rule, *lines)]


def markdown(runs: Sequence[dict[str, Any]], expectations: Sequence[Expectation]) -> str:
    """The generated part of ``docs/conformance.md``."""
    parts: list[str] = ["## Results", ""]
    versions = sorted({run["python"] for run in runs}, key=version_key)
    parts += _markdown_table(
        ("Python", "loop", "passed", "failed", "excused", "skipped"),
        [
            (run["python"], _loop_name(run), *(_sum(run, name) for name in COLUMNS[2:6]))
            for version in versions
            for run in runs
            if run["python"] == version
        ],
    )
    for run in runs:
        if run["loop"] != "weft":
            continue
        parts += ["", f"### Weft on Python {run['python']}", ""]
        parts += _markdown_table(
            COLUMNS[:7], [[row[name] for name in COLUMNS[:7]] for row in run["rows"]]
        )
    parts += ["", "## Exceptions", "", *_exceptions(expectations)]
    parts += ["", "## Left out", "", *_left_out()]
    return "\n".join(parts)


def _loop_name(run: dict[str, Any]) -> str:
    return f"{run['loop']} {run['version']}".strip() if run["loop"] != "weft" else "**weft**"


def _sum(run: dict[str, Any], name: str) -> int:
    return sum(row[name] for row in run["rows"])


def _exceptions(expectations: Sequence[Expectation]) -> list[str]:
    listed = [e for e in expectations if e.loops is None or "weft" in e.loops]
    if not listed:
        return ["None."]
    lines: list[str] = []
    for reason in dict.fromkeys(entry.reason for entry in listed):
        entries = [entry for entry in listed if entry.reason == reason]
        kind = {Kind.FAILS: "", Kind.STOCK: " (stock)", Kind.TIMING: " (timing)"}[entries[0].kind]
        lines.append(f"- {reason[0].upper()}{reason[1:].rstrip('.')}{kind}:")
        for entry in entries:
            limits = [f"Python {entry.python}"] if entry.python else []
            if entry.variants != frozenset(Variant):
                limits.append(", ".join(sorted(v.value for v in entry.variants)))
            lines.append(f"  `{entry.pattern}`" + (f" ({'; '.join(limits)})" if limits else ""))
    return lines


def _left_out() -> list[str]:
    lines = [f"- `{module}`: {reason}." for module, reason in LEFT_OUT_MODULES.items()]
    for reason, count in Counter(LEFT_OUT_CLASSES.values()).items():
        names = ", ".join(f"`{name}`" for name, why in LEFT_OUT_CLASSES.items() if why == reason)
        lines.append(f"- {names} ({count} classes): {reason}.")
    return lines


def update_markdown(path: Path, generated: str) -> None:
    """Replace the generated part of the page; raises ValueError where the page has none."""
    page = path.read_text()
    before, found, rest = page.partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not found or not ended:
        raise ValueError(f"{path} has no part between {_BEGIN} and {_END}")
    path.write_text(f"{before}{_BEGIN}\n\n{generated}\n\n{_END}{after}")


def heading(under_test: UnderTest) -> str:
    """What is run, on what."""
    version = f" {under_test.version}" if under_test.version else ""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{under_test.name}{version} ({under_test.origin}) on {python}, {sys.platform}"
