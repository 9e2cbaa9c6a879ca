"""Servers for the time of a run: suites empty what they are given, so it is nobody else's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .preparing import Unavailable

_PATIENCE = 30.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_answer(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        if server.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"{server.args!r} does not answer")
        time.sleep(0.05)


@contextlib.contextmanager
def _started(command: list[str], port: int, user: str | None = None) -> Iterator[None]:
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user
    )
    try:
        _await_answer(port, server)
        yield
    finally:
        # What PostgreSQL calls a fast shutdown; Redis ends at it as well.
        server.send_signal(signal.SIGINT)
        server.wait(_PATIENCE)


@contextlib.contextmanager
def redis() -> Iterator[dict[str, str]]:
    """``{redis}``: an empty Redis."""
    program = shutil.which("redis-server")
    if program is None:
        raise Unavailable("redis-server is not installed")
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        with _started([*command, "--save", "", "--enable-debug-command", "yes"], port):
            yield {"redis": f"redis://127.0.0.1:{port}/0"}


@contextlib.contextmanager
def postgresql() -> Iterator[dict[str, str]]:
    """``PGHOST`` and its like: an empty cluster, superuser ``postgres``, without passwords."""
    config = shutil.which("pg_config")
    if config is None:
        raise Unavailable("pg_config is not installed")
    programs = Path(subprocess.check_output([config, "--bindir"], text=True).strip())
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        data = f"{folder}/data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"],
            stdout=subprocess.DEVNULL,
            user=user,
            cwd=folder,
            check=True,
        )
        command = [str(programs / "postgres"), "-D", data, "-p", str(port), "-k", folder, "-F"]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "max_prepared_transactions=10"]
        with _started([*command, "-c", "jit=off"], port, user):
            yield {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres"}


SERVICES: dict[str, Callable[[], contextlib.AbstractContextManager[dict[str, str]]]] = {
    "redis": redis,
    "postgresql": postgresql,
}
"""What each gives: names in capitals go into the environment, the others into the options."""
