"""`python -m weft`: programs run as `python` itself runs them, on another loop.

Most tests run a program twice, with `python` and with `python -m weft`, and compare everything:
output, errors, exit code.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

import pytest
from backends import Backend
from children import Ended, python

pytestmark = [pytest.mark.child, pytest.mark.backends("weft")]

LOOP = """
import asyncio
async def main():
    loop = type(asyncio.get_running_loop())
    return f"{loop.__module__.partition('.')[0]}.{loop.__name__}"
print(asyncio.run(main()))
"""


@pytest.fixture(autouse=True)
def weft_only(backend: Backend) -> None:
    """These tests compare Weft's command with Python's; there is nothing to run them on twice."""


def write(folder: Path, name: str, source: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


def both(
    *arguments: str, cwd: Path, stdin: str | None = None, options: tuple[str, ...] = ()
) -> Ended:
    """Run under python and under weft, assert that nothing differs, and return what came of it."""
    plain = python(*options, *arguments, cwd=cwd, stdin=stdin)
    ours = python(*options, "-m", "weft", *arguments, cwd=cwd, stdin=stdin)
    assert ours == plain
    return plain


class TestProgram:
    def test_runs_on_weft(self, tmp_path: Path) -> None:
        write(tmp_path, "program.py", LOOP)
        assert python("-m", "weft", "program.py", cwd=tmp_path).check() == "weft.Loop\n"

    def test_arguments(self, tmp_path: Path) -> None:
        write(tmp_path, "program.py", "import sys; print(sys.argv)")
        ended = both("program.py", "one", "--two", "-3", "--", "--debug", "-m", cwd=tmp_path)
        assert ended.out == "['program.py', 'one', '--two', '-3', '--', '--debug', '-m']\n"

    def test_main_module(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            import sys
            print(__name__, sys.modules["__main__"].__dict__ is globals())
            print(__file__, __builtins__.__name__, __doc__)
            print(__package__, __spec__, sys.argv[0], sys.path[0] == __import__("os").getcwd())
            print(sorted(name for name in globals() if name.startswith("__")))
            """,
        )
        ended = both("program.py", cwd=tmp_path)
        assert ended.code == 0
        assert ended.out.startswith("__main__ True\n")

    def test_docstring(self, tmp_path: Path) -> None:
        write(tmp_path, "program.py", '"""About it."""\nprint(__doc__)\n')
        assert both("program.py", cwd=tmp_path).out == "About it.\n"

    def test_in_a_folder(self, tmp_path: Path) -> None:
        """The program's folder is on the path, not the current one."""
        write(tmp_path, "folder/neighbour.py", "WORD = 'neighbour'")
        write(tmp_path, "elsewhere.py", "")
        write(
            tmp_path,
            "folder/program.py",
            """
            import neighbour, sys
            print(neighbour.WORD)
            try:
                import elsewhere
            except ImportError as error:
                print(error)
            """,
        )
        ended = both("folder/program.py", cwd=tmp_path)
        assert ended.out == "neighbour\nNo module named 'elsewhere'\n"

    def test_absolute_path(self, tmp_path: Path) -> None:
        path = write(tmp_path, "folder/program.py", "import sys; print(sys.path[0], __file__)")
        both(str(path), cwd=tmp_path)

    def test_without_py_at_the_end(self, tmp_path: Path) -> None:
        write(tmp_path, "program", "import sys\nprint('ran', sys.argv, __name__, __file__)\n")
        assert both("program", "x", cwd=tmp_path).code == 0

    def test_a_folder_with_main(self, tmp_path: Path) -> None:
        write(
            tmp_path, "app/__main__.py", "import sys, helper; print(helper.X, sys.argv, __name__)"
        )
        write(tmp_path, "app/helper.py", "X = 1")
        assert both("app", "argument", cwd=tmp_path).out == "1 ['app', 'argument'] __main__\n"

    def test_a_zip_file(self, tmp_path: Path) -> None:
        import zipfile

        with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
            archive.writestr("__main__.py", "import sys; print(sys.argv, __name__)")
        assert both("app.zip", "x", cwd=tmp_path).out == "['app.zip', 'x'] __main__\n"

    def test_standard_input(self, tmp_path: Path) -> None:
        ended = both("-", "x", cwd=tmp_path, stdin="import sys; print(sys.argv, __name__)\n")
        assert ended.out == "['-', 'x'] __main__\n"

    def test_missing(self, tmp_path: Path) -> None:
        plain = python("nothing.py", cwd=tmp_path)
        ours = python("-m", "weft", "nothing.py", cwd=tmp_path)
        assert ours.code == plain.code == 2
        assert "can't open file" in ours.err
        assert "nothing.py" in ours.err
        assert "Traceback" not in ours.err

    def test_syntax_error(self, tmp_path: Path) -> None:
        write(tmp_path, "program.py", "def broken(:\n    pass\n")
        ended = both("program.py", cwd=tmp_path)
        assert ended.code == 1
        assert "SyntaxError" in ended.err

    def test_encoding(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_bytes(
            "# coding: latin-1\nprint(ascii('é'))\n".encode("latin-1")
        )
        assert both("program.py", cwd=tmp_path).out == "'\\xe9'\n"

    def test_future_imports_of_ours_do_not_leak(self, tmp_path: Path) -> None:
        """The command is compiled with `annotations`; the program must not be."""
        write(tmp_path, "program.py", "def f(x: 1 + 1): pass\nprint(f.__annotations__)\n")
        assert both("program.py", cwd=tmp_path).out == "{'x': 2}\n"
        code = "def f(x: 1 + 1): pass\nprint(f.__annotations__)\n"
        assert both("-c", code, cwd=tmp_path).out == "{'x': 2}\n"

    def test_weft_is_not_imported_twice(self, tmp_path: Path) -> None:
        source = """
        import sys, weft, asyncio
        print([name for name in sys.modules if name.endswith("__main__")])
        loop = weft.new_event_loop()
        print(type(loop) is type(asyncio.new_event_loop()))
        """
        write(
            tmp_path,
            "program.py",
            "import warnings; warnings.simplefilter('ignore')\n" + textwrap.dedent(source),
        )
        ended = python("-m", "weft", "program.py", cwd=tmp_path)
        assert ended.check() == "['__main__']\nTrue\n"

    def test_multiprocessing_spawn(self, tmp_path: Path) -> None:
        """Children import the program by its `__file__` or `__spec__`."""
        write(
            tmp_path,
            "program.py",
            """
            import multiprocessing
            def work(number):
                return number * 2
            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(pool.map(work, [1, 2, 3]))
            """,
        )
        assert both("program.py", cwd=tmp_path).out == "[2, 4, 6]\n"

    def test_pickle_of_classes_in_main(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            import pickle
            class Thing: pass
            print(type(pickle.loads(pickle.dumps(Thing()))) is Thing, Thing.__module__)
            """,
        )
        assert both("program.py", cwd=tmp_path).out == "True __main__\n"

    def test_inspect_finds_the_source(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            import inspect
            def function():
                return 1
            print(inspect.getsource(function))
            """,
        )
        assert "return 1" in both("program.py", cwd=tmp_path).out

    def test_globals_live_until_the_end(self, tmp_path: Path) -> None:
        """Destructors and atexit functions of the program still find its globals."""
        write(
            tmp_path,
            "program.py",
            """
            import atexit
            WORD = "word"
            class Thing:
                def __del__(self):
                    print("del", WORD)
            thing = Thing()
            atexit.register(lambda: print("atexit", WORD))
            """,
        )
        assert both("program.py", cwd=tmp_path).out == "atexit word\ndel word\n"

    def test_threads_go_on(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            import threading, time
            def work():
                time.sleep(0.05)
                print("thread", WORD)
            WORD = "word"
            threading.Thread(target=work).start()
            print("main ends")
            """,
        )
        assert both("program.py", cwd=tmp_path).out == "main ends\nthread word\n"


class TestExit:
    @pytest.mark.parametrize(
        ("statement", "code"),
        [
            ("sys.exit()", 0),
            ("sys.exit(0)", 0),
            ("sys.exit(3)", 3),
            ("sys.exit('words')", 1),
            ("sys.exit(None)", 0),
            ("raise SystemExit(4)", 4),
            ("raise ValueError('no')", 1),
            ("import os; os._exit(9)", 9),
            ("exit(5)", 5),
            ("pass", 0),
        ],
    )
    def test_codes(self, tmp_path: Path, statement: str, code: int) -> None:
        write(tmp_path, "program.py", f"import sys\n{statement}\n")
        assert both("program.py", cwd=tmp_path).code == code

    def test_keyboard_interrupt(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            import asyncio, os, signal
            async def main():
                asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
                await asyncio.sleep(100)
            asyncio.run(main())
            """,
        )
        plain = python("program.py", cwd=tmp_path)
        ours = python("-m", "weft", "program.py", cwd=tmp_path)
        assert ours.code == plain.code == -2
        assert ours.err.splitlines()[-1] == plain.err.splitlines()[-1] == "KeyboardInterrupt"

    def test_keyboard_interrupt_outside_of_a_loop(self, tmp_path: Path) -> None:
        write(tmp_path, "program.py", "raise KeyboardInterrupt\n")
        assert both("program.py", cwd=tmp_path).code == -2


class TestTraceback:
    """No frame of Weft's command or of runpy, and else exactly what python prints."""

    def test_at_the_top(self, tmp_path: Path) -> None:
        write(tmp_path, "program.py", "def f():\n    raise ValueError('no')\n\nf()\n")
        ended = both("program.py", cwd=tmp_path)
        assert ended.err.count("File ") == 2

    def test_in_a_module(self, tmp_path: Path) -> None:
        write(tmp_path, "module.py", "raise ValueError('no')\n")
        plain = python("-m", "module", cwd=tmp_path)
        ours = python("-m", "weft", "-m", "module", cwd=tmp_path)
        assert ours.code == plain.code == 1
        assert without_runpy(ours.err) == without_runpy(plain.err)
        assert "_command.py" not in ours.err

    def test_in_code(self, tmp_path: Path) -> None:
        ended = both("-c", "def f():\n    1/0\nf()", cwd=tmp_path)
        assert "ZeroDivisionError" in ended.err

    def test_chained(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            def inner():
                raise KeyError("first")
            def outer():
                try:
                    inner()
                except KeyError as error:
                    raise ValueError("second") from error
            try:
                outer()
            except ValueError:
                raise RuntimeError("third")
            """,
        )
        ended = both("program.py", cwd=tmp_path)
        assert ended.err.count("Traceback") == 3

    def test_group(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            def fail(error):
                raise error
            errors = []
            for error in (ValueError(1), KeyError(2)):
                try:
                    fail(error)
                except Exception as caught:
                    errors.append(caught)
            raise ExceptionGroup("several", errors)
            """,
        )
        assert "ExceptionGroup: several (2 sub-exceptions)" in both("program.py", cwd=tmp_path).err

    def test_in_a_coroutine(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            import asyncio
            async def inner():
                raise ValueError("inside")
            async def main():
                await inner()
            asyncio.run(main())
            """,
        )
        plain = python("program.py", cwd=tmp_path)
        ours = python("-m", "weft", "program.py", cwd=tmp_path)
        assert ours.code == 1
        # The frames of the loop are as the loop is; those of the program are the same.
        assert own_frames(ours.err, tmp_path) == own_frames(plain.err, tmp_path)
        assert "_command.py" not in ours.err
        assert "__main__.py" not in ours.err

    def test_import_error(self, tmp_path: Path) -> None:
        write(tmp_path, "program.py", "import nothing_of_this_name\n")
        assert both("program.py", cwd=tmp_path).code == 1

    def test_excepthook_of_the_program(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            import sys, traceback
            def hook(kind, error, trace):
                print("hook", kind.__name__, error)
                print([frame.name for frame in traceback.extract_tb(trace)])
            sys.excepthook = hook
            raise ValueError("no")
            """,
        )
        ended = both("program.py", cwd=tmp_path)
        assert ended.code == 1
        assert ended.out == "hook ValueError no\n['<module>']\n"

    def test_excepthook_that_asks_for_the_original(self, tmp_path: Path) -> None:
        """Libraries compare with, and call, `sys.__excepthook__`."""
        write(
            tmp_path,
            "program.py",
            "import sys\nprint(sys.excepthook is sys.__excepthook__)\n",
        )
        assert both("program.py", cwd=tmp_path).out == "True\n"

    def test_traceback_module(self, tmp_path: Path) -> None:
        """What the program prints itself with the traceback module begins with its own frames."""
        write(
            tmp_path,
            "program.py",
            """
            import traceback, sys
            def f():
                return [frame.name for frame in traceback.extract_stack()]
            try:
                raise ValueError
            except ValueError:
                traceback.print_exc()
            """,
        )
        both("program.py", cwd=tmp_path)

    def test_thread(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            import threading
            def fail():
                raise ValueError("in a thread")
            thread = threading.Thread(target=fail, name="worker")
            thread.start()
            thread.join()
            """,
        )
        assert "ValueError: in a thread" in both("program.py", cwd=tmp_path).err


class TestModule:
    def test_runs_on_weft(self, tmp_path: Path) -> None:
        write(tmp_path, "module.py", LOOP)
        assert python("-m", "weft", "-m", "module", cwd=tmp_path).check() == "weft.Loop\n"

    def test_package(self, tmp_path: Path) -> None:
        write(tmp_path, "package/__init__.py", "")
        write(
            tmp_path,
            "package/__main__.py",
            """
            import sys
            from . import inner
            print(__name__, __package__, __spec__.name, sys.argv[1:], inner.X)
            print(sys.argv[0] == __file__, sys.modules["__main__"].__dict__ is globals())
            """,
        )
        write(tmp_path, "package/inner.py", "X = 1")
        ended = both("-m", "package", "one", "--two", cwd=tmp_path)
        assert ended.out == ("__main__ package package.__main__ ['one', '--two'] 1\nTrue True\n")

    def test_dotted(self, tmp_path: Path) -> None:
        write(tmp_path, "package/__init__.py", "print('init')")
        write(tmp_path, "package/module.py", "import sys; print(__name__, sys.argv, __spec__.name)")
        assert both("-m", "package.module", "x", cwd=tmp_path).code == 0

    def test_missing(self, tmp_path: Path) -> None:
        plain = python("-m", "nothing_of_this_name", cwd=tmp_path)
        ours = python("-m", "weft", "-m", "nothing_of_this_name", cwd=tmp_path)
        assert ours.code == plain.code == 1
        assert ours.err == plain.err

    def test_package_without_main(self, tmp_path: Path) -> None:
        write(tmp_path, "package/__init__.py", "")
        plain = python("-m", "package", cwd=tmp_path)
        ours = python("-m", "weft", "-m", "package", cwd=tmp_path)
        assert ours.code == plain.code == 1
        assert ours.err == plain.err

    def test_of_the_standard_library(self, tmp_path: Path) -> None:
        assert both("-m", "json.tool", cwd=tmp_path, stdin='{"a":1}').out == '{\n    "a": 1\n}\n'

    def test_unittest(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "test_it.py",
            """
            import asyncio, unittest
            class Test(unittest.IsolatedAsyncioTestCase):
                async def test(self):
                    self.assertEqual(type(asyncio.get_running_loop()).__module__, "weft._loop")
            """,
        )
        ended = python("-m", "weft", "-m", "unittest", "test_it", cwd=tmp_path)
        assert ended.code == 0, ended.err

    def test_pytest(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "test_it.py",
            """
            import asyncio
            def test():
                async def main():
                    return type(asyncio.get_running_loop()).__name__
                assert asyncio.run(main()) == "Loop"
            """,
        )
        ended = python("-m", "weft", "-m", "pytest", "-q", "test_it.py", cwd=tmp_path)
        assert ended.code == 0, ended.out


class TestCode:
    def test_runs_on_weft(self, tmp_path: Path) -> None:
        assert python("-m", "weft", "-c", LOOP, cwd=tmp_path).check() == "weft.Loop\n"

    def test_arguments_and_path(self, tmp_path: Path) -> None:
        write(tmp_path, "neighbour.py", "X = 'neighbour'")
        code = "import sys, neighbour; print(sys.argv, sys.path[0] == '', neighbour.X, __name__)"
        ended = both("-c", code, "one", "-m", "two", cwd=tmp_path)
        assert ended.out == "['-c', 'one', '-m', 'two'] True neighbour __main__\n"

    def test_syntax_error(self, tmp_path: Path) -> None:
        assert both("-c", "def (", cwd=tmp_path).code == 1

    def test_main_globals(self, tmp_path: Path) -> None:
        code = (
            "import sys; print(sorted(k for k in globals() if k.startswith('__')),"
            " __spec__, __package__, __doc__)"
        )
        both("-c", code, cwd=tmp_path)

    def test_without_code(self, tmp_path: Path) -> None:
        for option in ("-c", "-m"):
            ended = python("-m", "weft", option, cwd=tmp_path)
            assert ended.code == 2
            assert "Traceback" not in ended.err
            assert option in ended.err


class TestOptions:
    def test_debug(self, tmp_path: Path) -> None:
        source = """
        import asyncio, sys
        async def main():
            return asyncio.get_running_loop().get_debug()
        print(asyncio.run(main()), sys.argv)
        """
        write(tmp_path, "program.py", source)
        assert python("-m", "weft", "program.py", cwd=tmp_path).check() == "False ['program.py']\n"
        for arguments in (
            ("program.py", "x"),
            ("-m", "program", "x"),
            ("-c", textwrap.dedent(source), "x"),
        ):
            ended = python("-m", "weft", "--debug", *arguments, cwd=tmp_path)
            assert ended.code == 0
            assert ended.out.startswith("True [")
            assert "'--debug'" not in ended.out

    def test_debug_reports_coroutines_never_awaited(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            import asyncio
            async def forgotten():
                pass
            async def main():
                forgotten()
            asyncio.run(main())
            """,
        )
        ended = python("-m", "weft", "--debug", "program.py", cwd=tmp_path)
        assert "coroutine 'forgotten' was never awaited" in ended.err
        assert "Coroutine created at (most recent call last)" in ended.err

    def test_options_of_python(self, tmp_path: Path) -> None:
        write(tmp_path, "program.py", "import sys; print(sys.flags.optimize, sys.flags.utf8_mode)")
        assert both("program.py", cwd=tmp_path, options=("-O", "-X", "utf8")).out == "1 1\n"

    def test_isolated(self, tmp_path: Path) -> None:
        """`-P` keeps the program's folder off the path, as for python itself."""
        write(tmp_path, "neighbour.py", "")
        write(
            tmp_path,
            "program.py",
            """
            try:
                import neighbour
                print("found")
            except ImportError:
                print("not found")
            """,
        )
        assert both("program.py", cwd=tmp_path, options=("-P",)).out == "not found\n"

    def test_warnings(self, tmp_path: Path) -> None:
        """Turned into errors, none comes from Weft's own command."""
        write(tmp_path, "program.py", LOOP)
        ended = python("-W", "error", "-m", "weft", "program.py", cwd=tmp_path)
        assert ended.check() == "weft.Loop\n"

    def test_help(self, tmp_path: Path) -> None:
        for option in ("--help", "-h"):
            ended = python("-m", "weft", option, cwd=tmp_path)
            assert ended.code == 0
            assert "usage: python -m weft" in ended.out
            assert "--debug" in ended.out

    def test_version(self, tmp_path: Path) -> None:
        out = python("-m", "weft", "--version", cwd=tmp_path).check()
        assert re.fullmatch(r"weft \d+\.\d+\.\d+\S*.*\n", out)

    def test_unknown(self, tmp_path: Path) -> None:
        ended = python("-m", "weft", "--colour", "program.py", cwd=tmp_path)
        assert ended.code == 2
        assert "--colour" in ended.err
        assert "usage:" in ended.err

    def test_nothing(self, tmp_path: Path) -> None:
        ended = python("-m", "weft", cwd=tmp_path)
        assert ended.code == 2
        assert "usage:" in ended.err

    def test_orig_argv(self, tmp_path: Path) -> None:
        """`sys.orig_argv` says how the process was started: programs restart themselves by it."""
        write(tmp_path, "program.py", "import sys; print(sys.orig_argv[1:])")
        out = python("-m", "weft", "program.py", cwd=tmp_path).check()
        assert out == "['-m', 'weft', 'program.py']\n"


class TestInstalled:
    def test_names_taken_before_are_weft_too(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "program.py",
            """
            from asyncio import Runner, get_running_loop, new_event_loop, run
            import warnings
            async def main():
                return type(get_running_loop()).__name__
            print(run(main()))
            with Runner() as runner:
                print(runner.run(main()))
            loop = new_event_loop()
            print(loop.run_until_complete(main()))
            loop.close()
            """,
        )
        assert python("-m", "weft", "program.py", cwd=tmp_path).check() == "Loop\n" * 3

    def test_the_policy_is_not_deprecated_in_our_name(self, tmp_path: Path) -> None:
        write(tmp_path, "program.py", "import asyncio, sys; asyncio.new_event_loop().close()\n")
        python("-W", "error", "-m", "weft", "program.py", cwd=tmp_path).check()


def without_runpy(text: str) -> list[str]:
    """A traceback without the frames of runpy, which plain python shows for `-m`."""
    lines, skipping = [], False
    for line in text.splitlines():
        if line.startswith('  File "'):
            skipping = "<frozen runpy>" in line
        elif not line.startswith("    "):
            skipping = False
        if not skipping:
            lines.append(line)
    return lines


def own_frames(text: str, folder: Path) -> list[str]:
    """The lines of a traceback that speak of files in this folder."""
    return [line for line in text.splitlines() if str(folder) in line]


def test_interpreter_is_the_tests_own() -> None:
    assert python("-c", "import sys; print(sys.executable)").check().strip() == sys.executable
