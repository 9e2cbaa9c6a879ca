"""Start the examples' server on a free port, in a process of its own, and stop it whatever happens.

The server holds one end of a pipe as its standard input and stops when the other end is closed.
That end is ours alone, so that it is closed even if this process is killed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .loops import ROOT, environment


@contextmanager
def local_server(cpu: int | None) -> Iterator[str]:
    """The address of a running server; `cpu` is where it shall run."""
    command = [sys.executable, "-m", "examples.server", "--port", "0", "--until-eof"]
    if cpu is not None:
        command += ["--cpu", str(cpu)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            words = server.stdout.readline().split()
            if words[:2] != ["listening", "on"]:
                raise RuntimeError(f"the server did not start: {words}")
            yield words[2]
        finally:
            server.stdin.close()
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
