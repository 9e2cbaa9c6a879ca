"""Rules that hold for every source file."""

from __future__ import annotations

import re
from pathlib import Path

from rust_source import code_of
from tree import ROOT, files, name

LONGEST_FILE = 700
# A test file is read one test at a time.
LONGEST_TEST_FILE = 1000
# A stub mirrors one module, however many subjects that has.
LONGEST_STUB = 1000


def longest(path: Path) -> int:
    if path.suffix == ".pyi":
        return LONGEST_STUB
    return LONGEST_TEST_FILE if stems(path) & TESTS else LONGEST_FILE


# Where unsafe code may stand, and where a test may need it (a fork, a raw signal).
FENCED = {"ffi", "sys"}
TESTS = {"tests"}


def stems(path: Path) -> set[str]:
    return set(path.relative_to(ROOT).with_suffix("").parts)


def test_no_file_holds_a_second_subject() -> None:
    long = {
        name(path): lines
        for path in files(".rs", ".py", ".pyi")
        if (lines := len(path.read_text().splitlines())) > longest(path)
    }
    assert long == {}


def test_unsafe_code_is_fenced() -> None:
    outside = [
        f"{name(path)}:{number}"
        for path in files(".rs")
        if not stems(path) & (FENCED | TESTS)
        for number, line in enumerate(code_of(path.read_text()).splitlines(), 1)
        if re.search(r"\bunsafe\b", line)
    ]
    assert outside == []


def test_the_roots_of_the_crates_are_tables_of_contents() -> None:
    """A `lib.rs` declares and re-exports; what does something has a module of its own."""
    for path in files("lib.rs", under="crates"):
        code = code_of(path.read_text())
        assert not re.search(r"^impl\b", code, re.MULTILINE), name(path)
        assert len([line for line in code.splitlines() if line.strip()]) < 150, name(path)


# Spelt in pieces, or this file would be the first to be found.
MACHINE = re.compile(
    "|".join(
        [
            r"(?<![\w./-])/(?:ro" + r"ot|wo" + r"rk|ho" + r"me/\w+)/",
            r"/U" + r"sers/\w+",
            r"[A-Z]:\\\\?U" + r"sers",
            r"\.py" + r"env/versions/\d",
        ]
    )
)


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = []
    for path in files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name(path)}:{number}: {line.strip()}"
            for number, line in enumerate(text.splitlines(), 1)
            if MACHINE.search(line)
        ]
    assert found == []


def test_todo_marks_have_been_done() -> None:
    """What is left to do is in the tracker, not in the sources."""
    mark = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b|\b(?:to" + r"do|unimplemented)!\(")
    left = [
        f"{name(path)}:{number}: {line.strip()}"
        for path in files(".rs", ".py", ".pyi")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if mark.search(line)
    ]
    assert left == []


def test_what_a_downstream_test_lacks_is_not_skipped_in_silence() -> None:
    """It asks `services.py`, which fails where a run must not be without it."""
    skips = re.compile(r"\bimportorskip\(|\bpytest\.skip\(")
    own = [
        f"{name(path)}:{number}: {line.strip()}"
        for path in files(".py", under="tests/downstream")
        if path.name != "services.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if skips.search(line)
    ]
    assert own == []
