"""The documents: their snippets are Python, their links lead somewhere, their commands exist.

A fence that opens with ```python is compiled, and run if it is a whole program, which one can tell
by its starting a loop. ```python no-run is compiled only.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from tree import ROOT, files, name

RUN_SECONDS = 30
PROGRAM = re.compile(r"^(?:asyncio|weft)\.run\(|^with asyncio\.Runner\(", re.MULTILINE)
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```\s*$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Snippet:
    where: str
    info: str
    text: str

    @property
    def is_program(self) -> bool:
        return "no-run" not in self.info and PROGRAM.search(self.text) is not None


def documents() -> list[Path]:
    return list(files(".md"))


def snippets(*languages: str) -> list[Snippet]:
    found = []
    for path in documents():
        text = path.read_text()
        for fence in FENCE.finditer(text):
            if (fence["info"].split() or [""])[0] in languages:
                line = text.count("\n", 0, fence.start()) + 1
                found.append(Snippet(f"{name(path)}:{line}", fence["info"], dedent(fence["text"])))
    return found


def parameters(chosen: list[Snippet]) -> list[object]:
    return [pytest.param(snippet, id=snippet.where) for snippet in chosen]


@pytest.mark.parametrize("snippet", parameters(snippets("python", "py", "python3")))
def test_a_snippet_is_python(snippet: Snippet) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(snippet.text, snippet.where, "exec", flags=flags, dont_inherit=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "snippet", parameters([each for each in snippets("python") if each.is_program])
)
def test_a_program_runs(snippet: Snippet, tmp_path: Path) -> None:
    program = tmp_path / "snippet.py"
    program.write_text(snippet.text)
    subprocess.run([sys.executable, program], cwd=tmp_path, timeout=RUN_SECONDS, check=True)


@pytest.mark.parametrize("path", [pytest.param(path, id=name(path)) for path in documents()])
def test_links_lead_somewhere(path: Path) -> None:
    text = FENCE.sub("", path.read_text())
    broken = [
        link["path"] for link in LINK.finditer(text) if not (path.parent / link["path"]).exists()
    ]
    assert broken == []


def test_the_steps_that_documents_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    steps = set(re.findall(r"^([a-z-]+)(?: [a-z- ]+)?:", makefile, re.MULTILINE))
    steps |= set(" ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)).split())
    unknown = [
        f"{snippet.where}: make {step}"
        for snippet in snippets("sh", "bash", "shell", "console")
        for step in re.findall(r"^\s*(?:\$ )?make ([a-z-]+)", snippet.text, re.MULTILINE)
        if step not in steps
    ]
    assert unknown == []


@pytest.mark.slow
def test_help_lists_the_steps() -> None:
    """What a user may call is explained; `make help` has no other source than the Makefile."""
    text = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory", "help"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    steps = ("setup", "demo", "test", "lint", "bench", "wheel", "docs", "clean", "help")
    assert [step for step in steps if f"make {step} " not in text] == []
