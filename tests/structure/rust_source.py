"""Reads Rust sources as far as the tests of the house need: no compiler, one pass, no macros."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# In order: what may hold anything inside, then a character (which a lifetime only resembles).
_OPAQUE = re.compile(
    r"""
    //[^\n]*
    | (?P<block>/\*)
    | \b(?:b|c)?r(?P<hashes>\#*)".*?"(?P=hashes)
    | (?:\bb|\bc)?"(?:\\.|[^"\\])*"
    | (?:\bb)?'(?:\\(?:u\{[0-9a-fA-F_]+\}|x[0-9a-fA-F]{2}|.)|[^'\\\n])'
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")


def code_of(text: str) -> str:
    """The text with comments, strings and characters blanked out; every line keeps its number."""
    kept: list[str] = []
    position = 0
    while found := _OPAQUE.search(text, position):
        end = _end_of_block(text, found.end()) if found["block"] else found.end()
        kept.append(text[position : found.start()])
        kept.append(re.sub(r"[^\n]", " ", text[found.start() : end]))
        position = end
    kept.append(text[position:])
    return "".join(kept)


def _end_of_block(text: str, position: int) -> int:
    """Where the block comment ends that was opened just before; they nest."""
    depth = 1
    while depth and (edge := _BLOCK_EDGE.search(text, position)):
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return len(text) if depth else position


def module_path(path: Path, source: Path) -> tuple[str, ...]:
    """`src/a/b.rs` is `("a", "b")`, `src/a/mod.rs` is `("a",)`, as `src/a.rs`, `lib.rs` is `()`."""
    parts = path.relative_to(source).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib") else parts


_PATH = re.compile(r"\b(crate|self|super)\s*::\s*")
_STEP = re.compile(r"\s*(\w+)\s*(?:(::)\s*|\bas\s+\w+)?")


def paths_in(code: str) -> Iterator[tuple[str, ...]]:
    """Every path that starts at `crate`, `self` or `super`, with the trees of `use` spelt out."""
    for found in _PATH.finditer(code):
        # The inner part of super::super:: was seen from its start.
        if not code[: found.start()].rstrip().endswith("::"):
            yield from ((found[1], *rest) for rest in _tree(code, found.end())[0])


def _tree(code: str, position: int) -> tuple[list[tuple[str, ...]], int]:
    """The paths below a `::`, and where they end."""
    if position < len(code) and code[position] == "{":
        paths: list[tuple[str, ...]] = []
        position += 1
        while position < len(code) and code[position] != "}":
            if code[position].isspace() or code[position] == ",":
                position += 1
                continue
            branch, end = _tree(code, position)
            paths += branch
            # What is no step of a path is a star: past it.
            position = max(end, position + 1)
        return paths, position + 1
    step = _STEP.match(code, position)
    if not step:
        return [()], position
    if not step[2]:
        return [(step[1],)], step.end()
    rest, end = _tree(code, step.end())
    return [(step[1], *path) for path in rest], end


def imported_modules(text: str, here: tuple[str, ...]) -> set[str]:
    """The modules right under the crate's root that the module `here` names, its own left out."""
    modules = set()
    for start, *rest in paths_in(code_of(text)):
        at = list(here) if start != "crate" else []
        steps = [start, *rest]
        while steps and steps[0] in ("crate", "self", "super"):
            if steps.pop(0) == "super":
                at = at[:-1]
        full = [*at, *steps]
        if full and full[0] not in here[:1]:
            modules.add(full[0])
    return modules
