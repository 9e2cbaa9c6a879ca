"""Minutes of everything at once end with what the process held after the first one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from children import SOURCE_PACKAGE, child_environment

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("soak_program.py")
MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))

# The folder of the certificate goes when the process ends, and says so.
WARNINGS = ("-W", "error", "-W", "ignore:Implicitly cleaning up")

RESIDENT = 8 << 20
"""By how much memory may grow after the first minute: what allocators keep in pieces, and free
lists find their size.
"""
RESIDENT_EACH_MINUTE = 256 << 10
"""And by how much in each minute more."""


def soaked(minutes: float) -> dict[str, Any]:
    tests = PROGRAM.parent.parent
    path = os.pathsep.join([str(SOURCE_PACKAGE), str(tests)])
    done = subprocess.run(
        [sys.executable, *WARNINGS, str(PROGRAM), str(minutes)],
        env=child_environment() | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        timeout=minutes * 60 + 120,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_program_itself() -> None:
    """Some seconds of it: every kind of work comes to its end, and nothing unexpected is
    reported.
    """
    found = soaked(0.1)
    assert not found["reports"]
    assert sum(found["done"].values()) > 100
    assert found["late"]["tasks"] == found["early"]["tasks"]


@pytest.mark.soak
def test_nothing_grows(capsys: pytest.CaptureFixture[str]) -> None:
    found = soaked(MINUTES)
    early, late = found["early"], found["late"]
    with capsys.disabled():
        print(f"\n{MINUTES:g} minutes: {found['done']}\nearly {early}\nlate  {late}")
    assert not found["reports"]
    for what in ("descriptors", "threads", "tasks"):
        assert late[what] <= early[what], what
    assert late["resident"] - early["resident"] < RESIDENT + RESIDENT_EACH_MINUTE * MINUTES
    # Python's own blocks and objects: caches of its own find their size, nothing else.
    for what in ("blocks", "objects"):
        assert late[what] - early[what] < early[what] * 0.05 + 1000, what
