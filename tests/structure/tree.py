"""The files of this source tree that somebody wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What git ignores. The tree is walked, not asked of git: the tests also run where there is none.
MADE = {"target", "out", "dist", "__pycache__"}


def files(*suffixes: str, under: str = ".") -> Iterator[Path]:
    """The files below `under` whose names end in one of `suffixes` (any name, if none is given)."""
    for directory, folders, names in os.walk(ROOT / under):
        folders[:] = sorted(
            name
            for name in folders
            if name not in MADE and (not name.startswith(".") or name == ".ci")
        )
        for name in sorted(names):
            path = Path(directory, name)
            if not path.is_symlink() and (not suffixes or name.endswith(suffixes)):
                yield path


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))
