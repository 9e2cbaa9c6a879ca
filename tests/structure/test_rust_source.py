"""The reader of Rust sources itself: a rule that reads wrongly polices nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from rust_source import code_of, imported_modules, module_path


@pytest.mark.parametrize(
    "hidden",
    [
        "// unsafe",
        "/// unsafe",
        "/* unsafe */",
        "/* /* */ unsafe */",
        '"unsafe"',
        r'"\" unsafe"',
        '"two\nlines, unsafe"',
        'r"unsafe"',
        'r#"a " unsafe"#',
        'b"unsafe"',
        'br#"unsafe"#',
        'c"unsafe"',
    ],
)
def test_comments_and_strings_are_no_code(hidden: str) -> None:
    code = code_of(f"before({hidden}\n) after")
    assert "unsafe" not in code
    assert code.startswith("before(")
    assert code.endswith(") after")
    assert code.count("\n") == hidden.count("\n") + 1


@pytest.mark.parametrize(
    "line",
    [
        "fn f<'a>(x: &'a str) { unsafe {} }",
        "let quote = '\"'; unsafe { f('\"') }",
        "let quote = '\\''; unsafe {}",
        "let byte = b'\"'; unsafe {}",
        "'outer: loop { unsafe {} }",
        'for "x" in y { unsafe {} }',
    ],
)
def test_what_looks_like_a_string_hides_no_code(line: str) -> None:
    assert "unsafe {" in code_of(line)


def test_module_paths() -> None:
    source = Path("crate/src")
    assert module_path(source / "lib.rs", source) == ()
    assert module_path(source / "tasks.rs", source) == ("tasks",)
    assert module_path(source / "ffi/mod.rs", source) == ("ffi",)
    assert module_path(source / "ffi/call.rs", source) == ("ffi", "call")


@pytest.mark.parametrize(
    ("here", "text", "modules"),
    [
        ("tasks", "use crate::futures::Future;", {"futures"}),
        ("tasks", "use crate::{ffi::{self, Slot}, futures::*, handles as h};",
         {"ffi", "futures", "handles"}),
        ("tasks", "pub(crate) use super::futures;", {"futures"}),
        ("tasks", "fn f() { crate::errors::raise(); }", {"errors"}),
        ("tasks", "use crate::tasks::step; use self::step::Step;", set()),
        ("tasks", "// use crate::transports;", set()),
        ("tasks", "let n = crate::ffi::SIZE as usize;", {"ffi"}),
        ("tasks", "use std::crate_like::futures;", set()),
        ("ffi::call", "use super::class; use super::super::imports;", {"imports"}),
        ("ffi::call", "use crate::ffi::class;", set()),
    ],
)  # fmt: skip
def test_imported_modules(here: str, text: str, modules: set[str]) -> None:
    assert imported_modules(text, tuple(here.split("::"))) == modules
