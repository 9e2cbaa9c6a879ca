"""`python -m examples.demo`, or `python examples/demo` from the repository's root."""

from __future__ import annotations

import sys
from pathlib import Path


def run() -> int:
    if not __package__:
        # Run by its path: sys.path begins with this folder, where the repository's root belongs.
        sys.path[0] = str(Path(__file__).resolve().parents[2])
    from examples.demo.command import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
