"""The event loops to compare: how to run an unmodified program on each, and which are there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

PREFIXES: dict[str, list[str]] = {
    "asyncio": [],
    "uvloop": [str(HERE / "on_uvloop.py")],
    "weft": ["-m", "weft"],
}
REMEDIES = {
    "uvloop": "pip install -r examples/requirements.txt",
    "weft": "make setup builds it",
}


@dataclass(frozen=True)
class Loop:
    """A loop that works here."""

    name: str
    label: str

    def command(self, program: Path, arguments: list[str]) -> list[str]:
        """The command line that runs `program` on this loop."""
        return [sys.executable, *PREFIXES[self.name], str(program), *arguments]


@dataclass(frozen=True)
class Absent:
    """A loop that does not work here, and why."""

    name: str
    reason: str


def environment() -> dict[str, str]:
    """The environment of every program: the same for all loops, and free of debug modes."""
    variables = dict(os.environ)
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONPROFILEIMPORTTIME"):
        variables.pop(name, None)
    variables["PYTHONFAULTHANDLER"] = "1"
    package = ROOT / "python"
    if any((package / "weft" / f"_weft{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
        # Weft was built in the source tree and need not be installed.
        path = [str(package), variables.get("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
    return variables


def find_loop(name: str) -> Loop | Absent:
    """Run a small program on the loop and see whether it really was that loop."""
    probe = [sys.executable, *PREFIXES[name], str(HERE / "probe.py")]
    try:
        ended = subprocess.run(
            probe, capture_output=True, text=True, timeout=60, env=environment(), check=False
        )
    except subprocess.TimeoutExpired:
        return Absent(name, "hangs in a program of three lines")
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"]
        remedy = f" ({REMEDIES[name]})" if name in REMEDIES else ""
        return Absent(name, lines[-1] + remedy)
    found = json.loads(ended.stdout)
    if not belongs_to(found["loop"], name):
        return Absent(name, f"the program ran on {found['loop']} instead")
    return Loop(name, f"{name} {found['version']}".strip())


def belongs_to(loop: str, name: str) -> bool:
    """Whether a loop class, as the programs report it, is one of the package `name`."""
    return loop.partition(".")[0] == name
