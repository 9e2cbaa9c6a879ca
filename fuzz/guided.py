"""Lets atheris guide a random test by the coverage of asyncio's own Python code.

    python fuzz/guided.py test_native_streams:test_the_same_as_asyncio -max_total_time=60

Takes atheris, and tests without fixtures. The other arguments are libFuzzer's.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import atheris

TESTS = Path(__file__).resolve().parent.parent / "tests"


def main() -> None:
    where, name = sys.argv.pop(1).split(":")
    sys.path[:0] = [str(TESTS), str(TESTS / "fuzz")]
    with atheris.instrument_imports(include=["asyncio"]):
        module = importlib.import_module(where)
    atheris.Setup(sys.argv, getattr(module, name).hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
