"""The list of tests that may fail, read from ``expectations.toml``.

The file is a sequence of entries.  Each gives one reason, and the tests that it holds for::

    [[entry]]
    kind = "fails"
    reason = "calls loop._run_once(), which only asyncio's own loops have"
    tests = [
        "test_base_events.BaseEventLoopTests.test__run_once",
        { id = "test_tasks.*.test_log_destroyed_pending_task", variants = ["own"] },
        { id = "test_base_events.BaseEventLoopTests.test_custom*", python = ">=3.13" },
    ]

``kind`` is one of :class:`Kind`.  ``id`` may be a glob, in which case the entry holds for every
test that it matches.  ``python`` limits a test to versions, ``variants`` to variants (see
``scope``), ``loops`` an entry to loops; without ``loops`` a ``fails`` entry holds for every loop
that is put in place of asyncio's, any other for all.  ``limit`` is a time limit in seconds, for
tests that fail by hanging.
"""

from __future__ import annotations

import enum
import fnmatch
import operator
import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .scope import Variant

FILE = Path(__file__).with_name("expectations.toml")


class Kind(enum.Enum):
    """Why, and so how, a listed test may fail."""

    FAILS = "fails"
    """It cannot pass, for the reason given: it has to fail, and is run alone."""

    STOCK = "stock"
    """Some machine lacks what the test needs, and unmodified asyncio fails there too.  Believed
    only where asyncio does fail in this very run; on any other machine the test has to pass."""

    TIMING = "timing"
    """It compares wall-clock times, which a busy machine can upset.  Where it fails it is repeated
    alone, and has to pass each time."""


class ExpectationError(Exception):
    """The file says something that cannot be understood."""


@dataclass(frozen=True)
class Expectation:
    """One listed test (or glob) with its reason."""

    pattern: str
    kind: Kind
    reason: str
    python: str = ""
    variants: frozenset[Variant] = frozenset(Variant)
    loops: frozenset[str] | None = None
    limit: float | None = None

    def concerns(self, loop: str, version: tuple[int, ...] = sys.version_info[:3]) -> bool:
        """Whether the entry is meant for this loop and this version of Python."""
        if self.loops is None:
            meant = self.kind is not Kind.FAILS or loop != "asyncio"
        else:
            meant = loop in self.loops
        return meant and version_matches(self.python, version)

    def matches(self, test: str, variant: Variant) -> bool:
        """Whether the entry lists the test in this variant."""
        return variant in self.variants and fnmatch.fnmatchcase(test, self.pattern)


_COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)$")


def version_matches(condition: str, version: tuple[int, ...]) -> bool:
    """Whether ``version`` meets ``condition``, such as ``">=3.12, <3.14"``; an empty one is met.

    A condition with two numbers speaks of minor versions: 3.12.1 meets ``==3.12`` and ``<=3.12``.
    """
    for part in filter(None, (part.strip() for part in condition.split(","))):
        match = _CONDITION.match(part)
        if match is None:
            raise ExpectationError(f"not a version condition: {part!r}")
        wanted = tuple(int(number) for number in match[2].split("."))
        if not _COMPARISONS[match[1]](version[: len(wanted)], wanted):
            return False
    return True


def load(path: Path = FILE) -> list[Expectation]:
    """Read the file; raises :class:`ExpectationError` where it is not understood."""
    with path.open("rb") as file:
        document = tomllib.load(file)
    expectations: list[Expectation] = []
    for number, entry in enumerate(document.get("entry", []), 1):
        try:
            expectations += _read_entry(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise ExpectationError(f"entry {number} of {path.name}: {error!r}") from error
    return expectations


def _read_entry(entry: dict[str, Any]) -> Iterable[Expectation]:
    known = {"kind", "reason", "tests", "python", "loops", "variants"}
    if unknown := entry.keys() - known:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    if not entry["reason"].strip():
        raise ValueError("an entry needs a reason")
    for test in entry["tests"]:
        fields: dict[str, Any] = {"id": test} if isinstance(test, str) else test
        if unknown := fields.keys() - {"id", "python", "variants", "limit"}:
            raise ValueError(f"unknown keys {sorted(unknown)}")
        variants = fields.get("variants", entry.get("variants"))
        loops = entry.get("loops")
        python = ", ".join(filter(None, (entry.get("python"), fields.get("python"))))
        version_matches(python, (3, 13))  # a typing error shows at once, on any version
        yield Expectation(
            pattern=fields["id"],
            kind=Kind(entry["kind"]),
            reason=" ".join(entry["reason"].split()),
            python=python,
            variants=frozenset(map(Variant, variants)) if variants else frozenset(Variant),
            loops=frozenset(loops) if loops else None,
            limit=fields.get("limit"),
        )


def lookup(expectations: Iterable[Expectation], test: str, variant: Variant) -> Expectation | None:
    """The first of ``expectations`` that lists the test."""
    return next((e for e in expectations if e.matches(test, variant)), None)
