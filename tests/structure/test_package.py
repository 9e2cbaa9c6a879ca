"""The Python package: what it exports, and that the stubs say the same."""

from __future__ import annotations

import ast
import asyncio
import importlib
import sys
from types import ModuleType

import pytest
from tree import ROOT, files, name

PACKAGE = ROOT / "python/weft"


@pytest.fixture(scope="module")
def weft() -> ModuleType:
    return importlib.import_module("weft")


@pytest.fixture(scope="module")
def native() -> ModuleType:
    return importlib.import_module("weft._weft")


def test_the_exports_are_sorted_and_there(weft: ModuleType) -> None:
    own = own_exports(weft)
    assert own == sorted(own, key=export_order)
    assert len(weft.__all__) == len({*asyncio.__all__, *weft.__all__})
    assert [export for export in weft.__all__ if not hasattr(weft, export)] == []


def own_exports(weft: ModuleType) -> list[str]:
    """What is not asyncio's own object, in the order of `__all__`."""
    missing = object()
    return [
        export
        for export in weft.__all__
        if getattr(weft, export) is not getattr(asyncio, export, missing)
    ]


def export_order(export: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: as ruff sorts `__all__`."""
    if export.isupper():
        return 0, export
    return (1 if export[0].isupper() else 2), export


def test_every_export_is_documented(weft: ModuleType) -> None:
    bare = [
        export
        for export in own_exports(weft)
        if callable(thing := getattr(weft, export)) and not (thing.__doc__ or "").strip()
    ]
    assert bare == []


def test_the_package_itself_has_no_logic() -> None:
    """`__init__.py` says what there is: a docstring, imports, names."""
    allowed = ast.Expr, ast.ImportFrom, ast.Assign, ast.AugAssign
    statements = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert [ast.unparse(node) for node in statements if not isinstance(node, allowed)] == []


def test_versions_are_told_apart_in_one_file() -> None:
    files_that_do = [
        name(path)
        for path in files(".py", under=name(PACKAGE))
        if "version_info" in path.read_text() or "hexversion" in path.read_text()
    ]
    assert len(files_that_do) <= 1, files_that_do


def test_type_checkers_see_asyncio_s_other_names(weft: ModuleType) -> None:
    stub = ast.parse((PACKAGE / "_names.pyi").read_text())
    seen = {
        name
        for name in names_imported(stub.body)
        if not isinstance(getattr(weft, name), ModuleType)
    }
    assert seen == {*asyncio.__all__} - {*names_of_weft()}


def names_of_weft() -> list[str]:
    """What `__init__.py` itself lists, whether or not asyncio exports it now."""
    (listed,) = (
        node.value
        for node in ast.parse((PACKAGE / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign)
    )
    return list(ast.literal_eval(listed))


def names_imported(statements: list[ast.stmt]) -> list[str]:
    """From asyncio, by those statements of a stub that are for this version of Python."""
    found = []
    for node in statements:
        match node:
            case ast.ImportFrom(module="asyncio", names=names):
                found += [alias.name for alias in names]
            case ast.If(test=ast.Compare(comparators=[version])):
                holds = sys.version_info >= ast.literal_eval(version)
                found += names_imported(node.body if holds else node.orelse)
    return found


def test_the_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_stub_names_what_the_native_module_has(native: ModuleType) -> None:
    """stubtest, a step of lint, compares the two in depth; this is quick, and needs no mypy."""
    stub = ast.parse((PACKAGE / "_weft.pyi").read_text())
    declared = {
        node.name
        for node in ast.walk(stub)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    } | {
        node.target.id
        for node in ast.walk(stub)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    public = {export for export in vars(native) if not export.startswith("_")}
    assert public - declared == set()


def test_what_asyncio_keeps_private_is_still_there() -> None:
    """Everything that `_base.py` declares of asyncio's loop, in the asyncio of this Python."""
    declared = [
        name
        for node in ast.walk(ast.parse((PACKAGE / "_base.py").read_text()))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for name in names_defined(node.body)
    ]
    assert "_connect_sock" in declared
    loop = asyncio.SelectorEventLoop()
    missing = [name for name in declared if not hasattr(loop, name)]
    loop.close()
    assert missing == []


def names_defined(statements: list[ast.stmt]) -> list[str]:
    defined = []
    for node in statements:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                defined.append(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                defined.append(name)
    return defined


def test_what_runs_per_callback_is_native(weft: ModuleType, native: ModuleType) -> None:
    """No class above the native one takes a method of it back."""
    base = native.EventLoop
    own = {name for name, value in vars(base).items() if callable(value)}
    assert {"call_soon", "create_future", "create_task", "time"} <= own
    # Python calls these itself.
    own -= {"__new__", "__init__"}
    assert [name for name in own if getattr(weft.Loop, name) is not getattr(base, name)] == []
