"""Two versions of Weft compared by what they execute, not by what that took.

    python -m benchmarks.instructions BASE [--rows gather,sleep] [--installed] [--above 2]

BASE is a commit. It is checked out and built beside this tree; then each pure-loop row runs under
callgrind on both, once short and once long, and the difference gives the instructions that one
operation takes. That number is nearly the same on any machine, however busy it is, so that a
regression of some percent shows where clocks show noise. It says nothing about caches and system
calls. The exit code is 1 where a row got worse by more than `--above` percent.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.rows import ROWS, Row

ROOT = Path(__file__).resolve().parent.parent
OPERATIONS = (2_000, 12_000)
"""The two runs of a row: about so many operations, but at least one and three units of work."""

RUN = """
import gc, sys, weft
from benchmarks.rows import ROWS
name, count, installed = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "installed"
if installed:
    weft.install()
loop = weft.new_event_loop()
gc.collect()
loop.run_until_complete(ROWS[name].measure(count))
loop.close()
"""


def main() -> int:
    arguments = _parser().parse_args()
    for tool in ("valgrind", "git", "cargo"):
        if shutil.which(tool) is None:
            sys.exit(f"this takes {tool}, which is not installed")
    wanted = [part for part in arguments.rows.split(",") if part]
    rows = [
        row
        for row in ROWS.values()
        if row.group == "loop"
        and not row.heavy
        and (not wanted or any(part in row.name for part in wanted))
    ]
    if not rows:
        sys.exit(f"no pure-loop row is called like {arguments.rows}")
    with tempfile.TemporaryDirectory(prefix="weft-base-") as folder:
        base = Path(folder) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(base), arguments.base)
        try:
            print(f"building {arguments.base} and this tree", flush=True)
            _build(base)
            _build(ROOT)
            return _compare(rows, base, arguments.base, arguments.installed, arguments.above)
        finally:
            _git("worktree", "remove", "--force", str(base))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions", description=__doc__.splitlines()[0]
    )
    environment = os.environ.get
    parser.add_argument("base", nargs="?", default=environment("BASE") or "HEAD", help="a commit")
    parser.add_argument("--rows", default=environment("ROWS", ""), help="parts of names (ROWS)")
    parser.add_argument(
        "--installed", action="store_true", help="after weft.install(), with native primitives"
    )
    parser.add_argument(
        "--above", type=float, default=2.0, help="percent from which a row counts as worse"
    )
    return parser


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *arguments], check=True)


def _build(tree: Path) -> None:
    """Build the tree's extension for this interpreter; both share what cargo has compiled."""
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    subprocess.run(
        [sys.executable, "scripts/build_extension.py", "--profile", "release"],
        cwd=tree,
        env=os.environ | {"CARGO_TARGET_DIR": str(ROOT / target)},
        check=True,
    )


def _compare(rows: list[Row], base: Path, name: str, installed: bool, above: float) -> int:
    worse = []
    print(f"{'row':<26}{name[:12]:>14}{'this tree':>14}   change", flush=True)
    for row in rows:
        before, after = (_instructions(row, tree, installed) for tree in (base, ROOT))
        change = 100 * (after / before - 1)
        print(f"{row.name:<26}{before:>14,.0f}{after:>14,.0f}   {change:+.1f} %", flush=True)
        if change > above:
            worse.append(row.name)
    if worse:
        print(f"more than {above:g} % worse: {', '.join(worse)}")
    return 1 if worse else 0


def _instructions(row: Row, tree: Path, installed: bool) -> float:
    """Instructions that one operation of the row takes, with the package of `tree`."""
    counts = [max(least, n // row.operations) for least, n in zip((1, 3), OPERATIONS, strict=True)]
    short, long = (_executed(row, count, tree, installed) for count in counts)
    return (long - short) / ((counts[1] - counts[0]) * row.operations)


def _executed(row: Row, count: int, tree: Path, installed: bool) -> int:
    path = os.pathsep.join([str(ROOT), str(tree / "python")])
    how = "installed" if installed else "plain"
    done = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
            *(sys.executable, "-P", "-c", RUN, row.name, str(count), how),
        ],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or collected is None:
        sys.exit(f"{row.name} failed:\n{done.stderr}")
    return int(collected[1])


if __name__ == "__main__":
    sys.exit(main())
