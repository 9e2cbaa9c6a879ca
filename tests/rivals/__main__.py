"""``python -m tests.rivals``: tries every capability on every loop that is installed."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.conformance.processes import child_environment
from tests.conformance.report import update_markdown

from .registry import LOOPS, SUBJECTS, Capability, capabilities

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "rivals.md"
RESULTS = ROOT / "out" / "rivals"
_WIDTH = 90


def _try(loop: str, entry: Capability, limit: float) -> tuple[str, str]:
    """What one child said; ``no`` for one that crashed or took too long."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "tests.rivals.child", loop, entry.subject, entry.name]
    command.append(str(writing))
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=child_environment(),
        pass_fds=[writing],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(writing)
    try:
        code: int | None = child.wait(limit)
    except subprocess.TimeoutExpired:
        code = None
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
    # Everybody who could write has ended, so this cannot block.
    with open(reading, "rb") as report:
        said = report.read()
    if said:
        verdict, detail = json.loads(said)
        return verdict, detail
    if code is None:
        return "no", f"not done after {limit:g} s"
    if code < 0:
        return "no", f"the process died: {signal.Signals(-code).name}"
    return "no", f"the process ended with {code}"


def _versions(loops: Sequence[str]) -> dict[str, str]:
    versions = {}
    for loop in loops:
        try:
            versions[loop] = importlib.metadata.version(loop)
        except importlib.metadata.PackageNotFoundError:
            versions[loop] = ""
    return versions


def _cell(verdict: str, detail: str) -> str:
    if verdict == "yes":
        return detail or "yes"
    shown = detail.replace("|", "/").replace("<", "(").replace(">", ")").replace("`", "'")
    if len(shown) > _WIDTH:
        shown = f"{shown[:_WIDTH]}…"
    return f"**no**: {shown}"


def _markdown(results: Sequence[dict[str, Any]]) -> str:
    parts = []
    for result in results:
        loops = result["loops"]
        parts += [f"## Python {result['python']}", ""]
        heads = [f"{loop} {result['versions'][loop]}".strip() for loop in loops]
        parts += [f"| | {' | '.join(heads)} |", f"| --- |{' --- |' * len(loops)}"]
        tried = result["tried"]
        yes = [str(sum(row["outcomes"][loop][0] == "yes" for row in tried)) for loop in loops]
        parts.append(f"| *of {len(tried)}* | {' | '.join(yes)} |")
        for subject in SUBJECTS:
            rows = [row for row in tried if row["subject"] == subject]
            if not rows:
                continue
            parts.append(f"| **{subject}** |{' |' * len(loops)}")
            for row in rows:
                cells = [_cell(*row["outcomes"][loop]) for loop in loops]
                parts.append(f"| {row['name']} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def _keep(loops: Sequence[str], tried: list[dict[str, Any]], *, complete: bool) -> None:
    """Write the results; those of a part replace theirs in what was kept before."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{platform.python_version()}.json"
    versions = _versions(loops)
    if not complete:
        if not path.exists() or (kept := json.loads(path.read_text()))["versions"] != versions:
            return
        fresh = {(row["subject"], row["name"]): row for row in tried}
        tried = [fresh.get((row["subject"], row["name"]), row) for row in kept["tried"]]
    figures = {
        "python": platform.python_version(),
        "loops": list(loops),
        "versions": versions,
        "tried": tried,
    }
    path.write_text(json.dumps(figures, indent=1) + "\n")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.rivals", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of capabilities, or subjects")
    parser.add_argument("--loop", action="append", help="only these (default: all installed)")
    parser.add_argument("--limit", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument(
        "--markdown", action="store_true", help="only write the results so far into docs/rivals.md"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """0 if Weft does everything that was tried and that asyncio does."""
    arguments = _arguments(argv)
    if arguments.markdown:
        files = sorted(RESULTS.glob("*.json"), key=lambda p: [int(n) for n in p.stem.split(".")])
        update_markdown(PAGE, _markdown([json.loads(path.read_text()) for path in files]))
        return 0
    loops = arguments.loop or [loop for loop in LOOPS if importlib.util.find_spec(loop) is not None]
    tried: list[dict[str, Any]] = []
    wanted = [
        entry
        for entry in capabilities()
        if not arguments.names
        or any(name in entry.name or name == entry.subject for name in arguments.names)
    ]
    good = True
    with ThreadPoolExecutor(arguments.workers) as pool:
        running = [
            (entry, {loop: pool.submit(_try, loop, entry, arguments.limit) for loop in loops})
            for entry in wanted
        ]
        for entry, futures in running:
            outcomes = {loop: future.result() for loop, future in futures.items()}
            print(f"{entry.subject}: {entry.name}", flush=True)
            for loop, (verdict, detail) in outcomes.items():
                print(f"    {loop:8} {verdict} {detail}".rstrip(), flush=True)
            if outcomes.get("weft", ("yes",))[0] != "yes" == outcomes.get("asyncio", ("no",))[0]:
                good = False
            tried.append({"subject": entry.subject, "name": entry.name, "outcomes": outcomes})
    if not arguments.loop:
        _keep(loops, tried, complete=not arguments.names)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
