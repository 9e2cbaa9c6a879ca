"""Imports go one way: down. The table is ARCHITECTURE.md's.

A module may name modules of lower layers, and of its own layer as long as no circle forms.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from rust_source import code_of, imported_modules, module_path
from tree import ROOT, files, name

# Of crates/weft-py. A new module gets its line here, and in ARCHITECTURE.md.
LAYERS = {
    "ffi": 0,
    "clock": 0,
    "errors": 0,
    "gc": 0,
    "imports": 0,
    "event_loop": 1,
    "handles": 1,
    "futures": 2,
    "tasks": 2,
    "operations": 3,
    "sleeping": 3,
    "sockets": 3,
    "ensuring": 3,
    "gathering": 3,
    "waiting": 3,
    "locks": 3,
    "queues": 3,
    "timeouts": 3,
    "taskgroups": 3,
    "transports": 4,
    "streams": 5,
    "subprocess": 5,
    "signals": 5,
    "executor": 5,
}

EXTENSION = ROOT / "crates/weft-py/src"
REACTOR = ROOT / "crates/weft-reactor/src"
PACKAGE = ROOT / "python/weft"


def crate_graph(source: Path) -> dict[str, set[str]]:
    """Which top-level modules of a crate name which others. The root itself is no module."""
    graph: dict[str, set[str]] = {}
    for path in files(".rs", under=name(source)):
        if here := module_path(path, source):
            imports = imported_modules(path.read_text(), here)
            graph.setdefault(here[0], set()).update(imports)
    return {module: imports & graph.keys() for module, imports in graph.items()}


def package_graph() -> dict[str, set[str]]:
    """Which modules of the Python package import which others, when they are imported."""
    paths = {path.stem: path for path in files(".py", under=name(PACKAGE))}
    graph = {module: set(package_imports(path)) for module, path in paths.items()}
    return {module: imports & graph.keys() for module, imports in graph.items()}


def package_imports(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.ImportFrom(module="weft" | None):
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module)) if node.level or module.startswith("weft."):
                yield module.removeprefix("weft.").split(".")[0]
            case ast.Import():
                for alias in node.names:
                    if alias.name.startswith("weft."):
                        yield alias.name.split(".")[1]


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Some modules that name each other in a circle, the first one repeated at the end; or none."""
    finished: set[str] = set()

    def follow(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module not in finished:
            for imported in sorted(graph[module]):
                if found := follow(imported, [*way, module]):
                    return found
            finished.add(module)
        return []

    for module in sorted(graph):
        if found := follow(module, []):
            return found
    return []


def test_every_module_has_its_layer() -> None:
    assert crate_graph(EXTENSION).keys() - LAYERS.keys() == set()


def test_no_module_imports_from_above() -> None:
    upwards = [
        f"{module} (layer {LAYERS[module]}) imports {imported} (layer {LAYERS[imported]})"
        for module, imports in crate_graph(EXTENSION).items()
        for imported in sorted(imports)
        if LAYERS[imported] > LAYERS[module]
    ]
    assert upwards == []


@pytest.mark.parametrize("source", [EXTENSION, REACTOR], ids=["weft-py", "weft-reactor"])
def test_no_modules_import_each_other(source: Path) -> None:
    assert " -> ".join(circle(crate_graph(source))) == ""


def test_no_python_modules_import_each_other() -> None:
    assert " -> ".join(circle(package_graph())) == ""


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_reactor_knows_no_python() -> None:
    manifest = (REACTOR.parent / "Cargo.toml").read_text()
    assert "pyo3" not in manifest
    assert "weft-py" not in manifest
    for path in files(".rs", under=name(REACTOR.parent)):
        assert "pyo3" not in code_of(path.read_text()), name(path)
