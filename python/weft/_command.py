"""The command line: `python -m weft [--debug] program.py | -m module | -c code [args…]`.

The program gets what `python` itself would give it: a `__main__` of its own, which stays in place
until the interpreter ends (what is pickled, what runs at exit and what other processes import again
look there), `sys.argv` and `sys.path`, its exit code, and tracebacks that do not show who started
it.
"""

from __future__ import annotations

import builtins
import os
import pkgutil
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from importlib.util import MAGIC_NUMBER
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from weft import _compat
from weft._install import install
from weft._weft import __version__

__all__ = ["main"]

USAGE = """\
usage: python -m weft [--debug] program.py [args...]
       python -m weft [--debug] -m package.module [args...]
       python -m weft [--debug] -c code [args...]
       python -m weft [--debug] - [args...]

Run an asyncio program on Weft's event loop, as python itself would run it: a file, a folder or zip
file with a __main__.py, a module, the given code, or what stands in the standard input.
An interactive console is `python -m weft -m asyncio`.

options:
  --debug     asyncio's debug mode
  --version   print Weft's version
  -h, --help  print this text
"""


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"{USAGE}\nweft: error: {message}\n")
    sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that `arguments` (default: the process's own) ask for."""
    rest = list(sys.argv[1:] if arguments is None else arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-" and rest[0][:2] not in {"-m", "-c"}:
        option = rest.pop(0)
        if option == "--debug":
            _debug()
        elif option == "--version":
            print(f"weft {__version__}")
            return
        elif option in {"-h", "--help"}:
            print(USAGE, end="")
            return
        else:
            _fail(f"unknown option {option}")
    if not rest:
        _fail("no program given")
    kind, what = rest[0][:2], rest.pop(0)
    if kind in {"-m", "-c"}:
        # As python's own options, with or without a space.
        what = what[2:]
        if not what:
            if not rest:
                _fail(f"argument expected for the {kind} option")
            what = rest.pop(0)
    install()
    _new_main()
    try:
        if kind == "-m":
            _run_module(what, rest)
        elif kind == "-c":
            _run_command(what, rest)
        elif what == "-":
            _run_input(rest)
        else:
            _run_path(what, rest)
    except BaseException:
        _hide_own_frames()
        raise


def _debug() -> None:
    if sys.flags.ignore_environment:
        _fail("--debug sets PYTHONASYNCIODEBUG, which -E and -I ignore: use python -X dev")
    os.environ["PYTHONASYNCIODEBUG"] = "1"


# -- what the program finds ------------------------------------------------------------------------


def _new_main() -> dict[str, Any]:
    """Put a `__main__` in place as python makes one, and return its namespace."""
    module = ModuleType("__main__")
    namespace = module.__dict__
    namespace.update(_compat.main_annotations(), __builtins__=builtins, __loader__=BuiltinImporter)
    sys.modules["__main__"] = module
    return namespace


def _enter(arguments: list[str], directory: str, *, required: bool = False) -> dict[str, Any]:
    """Set `sys.argv`, and `sys.path[0]`, and return the namespace of `__main__`.

    With `-P` there is no such entry, unless the program cannot be found without it.
    """
    sys.argv = arguments
    if not sys.flags.safe_path:
        sys.path[0] = directory
    elif required:
        sys.path.insert(0, directory)
    return sys.modules["__main__"].__dict__


# -- ways to run it --------------------------------------------------------------------------------


def _run_module(name: str, arguments: list[str]) -> None:
    _enter(["-m", *arguments], os.getcwd())
    _run_module_as_main(name)


def _run_module_as_main(name: str, **options: Any) -> None:
    # What python's own -m calls. The documented run_module() takes its `__main__` away at the end.
    runpy._run_module_as_main(name, **options)  # type: ignore[attr-defined]


def _run_command(source: str, arguments: list[str]) -> None:
    namespace = _enter(["-c", *arguments], "")
    source = _compat.without_margin(source)
    code = _compiled(source, "<string>")
    _compat.show_source(code, source)
    exec(code, namespace)


def _run_input(arguments: list[str]) -> None:
    namespace = _enter(["-", *arguments], "")
    namespace.update(_compat.main_file("<stdin>"))
    source = sys.stdin.buffer.read() if sys.stdin else b""
    exec(_compiled(source, "<stdin>"), namespace)


def _run_path(path: str, arguments: list[str]) -> None:
    # Not normalised, since python does not do it either.
    full = os.path.join(os.getcwd(), path)
    if pkgutil.get_importer(full) is not None:
        _enter([path, *arguments], full, required=True)
        _run_module_as_main("__main__", alter_argv=False)
        return
    try:
        with open(full, "rb") as file:
            content = file.read()
    except OSError as error:
        why = f"[Errno {error.errno}] {error.strerror}"
        sys.stderr.write(f"{sys.orig_argv[0]}: can't open file {full!r}: {why}\n")
        sys.exit(2)
    namespace = _enter([path, *arguments], os.path.dirname(os.path.realpath(full)))
    namespace.update(_compat.main_file(full))
    if full.endswith(".pyc") or content.startswith(MAGIC_NUMBER):
        compiled = SourcelessFileLoader("__main__", full)
        namespace["__loader__"] = compiled
        code = compiled.get_code("__main__")
        assert code is not None, "only asked for another name"
    else:
        namespace["__loader__"] = SourceFileLoader("__main__", full)
        code = _compiled(content, full)
    exec(code, namespace)


def _compiled(source: str | bytes, name: str) -> CodeType:
    # The __future__ of this file is not the program's.
    return compile(source, name, "exec", dont_inherit=True)


# -- tracebacks ------------------------------------------------------------------------------------


def _hide_own_frames() -> None:
    """Let the exception on its way be shown as if `python` had run the program.

    Only now, and by way of the hook: the frames above are added as it passes them, and as long as
    the program runs, its `sys.excepthook` is the one that it expects.
    """
    hook = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        sys.excepthook = hook
        sys.last_traceback = trace = _of_program(trace)
        hook(kind, error.with_traceback(trace), trace)

    sys.excepthook = excepthook


def _of_program(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that is behind the frames of this file, if it has any."""
    part = trace
    while part is not None and not _is_own(part):
        part = part.tb_next
    if part is None:
        # Another exception: of an atexit function, or of the console that -i leads to.
        return trace
    while part is not None and _is_own(part):
        part = part.tb_next
    return part


def _is_own(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename == main.__code__.co_filename
