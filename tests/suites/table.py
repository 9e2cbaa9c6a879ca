"""The libraries, from ``libraries.toml``."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).with_name("libraries.toml")
RUNS = ("asyncio", "loop", "installed")
"""Stock asyncio; Weft's loop alone; Weft's loop and primitives, as `weft.install()` has them."""


@dataclass(frozen=True)
class Difference:
    """Tests that pass on asyncio and may fail on Weft, and why."""

    tests: str
    """A glob on what pytest calls the test."""
    reason: str
    runs: tuple[str, ...] = ("loop", "installed")


@dataclass(frozen=True)
class Library:
    """A library, and how its own tests are run."""

    name: str
    version: str
    tests: tuple[str, ...]
    """Files, folders or globs in the source distribution; names of modules with ``installed``."""
    needs: tuple[str, ...] = ()
    """What pip installs beside the library: what its tests import."""
    extras: str = ""
    installed: bool = False
    """The tests are part of the installed package."""
    options: tuple[str, ...] = ()
    """Of pytest; ``{redis}`` and the like stand for a service's address."""
    service: str | None = None
    seconds: float = 30.0
    """The limit of one test."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Globs of tests that no run has, with their reasons."""
    differences: tuple[Difference, ...] = ()

    def difference(self, test: str, run: str) -> Difference | None:
        """The entry that allows this test to fail in this run."""
        for entry in self.differences:
            if run in entry.runs and fnmatch.fnmatchcase(test, entry.tests):
                return entry
        return None


def load(path: Path = FILE) -> list[Library]:
    """Every library of the table, in its order."""
    libraries = []
    for name, given in tomllib.loads(path.read_text()).items():
        entry = dict(given)
        for key in ("tests", "needs", "options"):
            entry[key] = tuple(entry.get(key, ()))
        differences = entry.pop("differences", [])
        entry["differences"] = tuple(
            Difference(d["tests"], d["reason"], tuple(d.get("runs", ("loop", "installed"))))
            for d in differences
        )
        libraries.append(Library(name=name, **entry))
    return libraries


def select(libraries: Iterable[Library], wanted: Iterable[str]) -> list[Library]:
    """Those whose names match one of the globs; all of them without any."""
    globs = list(wanted)
    return [
        library
        for library in libraries
        if not globs or any(fnmatch.fnmatchcase(library.name, glob) for glob in globs)
    ]
