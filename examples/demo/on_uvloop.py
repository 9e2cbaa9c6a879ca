"""Run an unmodified program on uvloop: `python on_uvloop.py program.py arguments…`."""

from __future__ import annotations

import asyncio
import runpy
import sys
import warnings
from pathlib import Path

import uvloop


def main() -> None:
    with warnings.catch_warnings():
        # Deprecated from Python 3.14 on, and still the only way into a program that calls
        # asyncio.run() itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    program = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(program).resolve().parent)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
