"""Programs that need an interpreter of their own: exit codes, shutdown, import order, signals."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from backends import Backend

SOURCE_PACKAGE = Path(__file__).resolve().parent.parent / "python"


@dataclass(frozen=True)
class Ended:
    """How a child program ended."""

    code: int
    """The exit code; minus the signal's number when a signal killed it."""
    out: str
    err: str

    def check(self) -> str:
        """Assert that the program ended well and in silence; return what it printed."""
        assert (self.code, self.err) == (0, ""), f"exit code {self.code}\n{self.err}"
        return self.out


def child_environment(**extra: str) -> dict[str, str]:
    """The environment of a child: finds the same weft as this process, and nothing of pytest's."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV_"))}
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS"):
        environment.pop(name, None)
    weft = sys.modules.get("weft")
    home = Path(weft.__file__).parent.parent if weft and weft.__file__ else SOURCE_PACKAGE
    path = [str(home), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(p for p in path if p)
    environment["PYTHONFAULTHANDLER"] = "1"
    # One width of terminal and no colour, or tracebacks differ from machine to machine.
    environment["NO_COLOR"] = "1"
    environment.update(extra)
    return environment


def python(
    *arguments: str,
    stdin: str | None = None,
    timeout: float = 60,
    cwd: Path | None = None,
    **environment: str,
) -> Ended:
    """Run this interpreter with `arguments` and wait for its end."""
    done = subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=child_environment(**environment),
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def program(
    backend: Backend, source: str, *options: str, timeout: float = 60, **environment: str
) -> Ended:
    """Run `source` in a child; it may use `asyncio`, `run`, `new_event_loop`, `Future`, `Task`."""
    text = backend.prelude + textwrap.dedent(source)
    return python(*options, "-c", text, timeout=timeout, **environment)
