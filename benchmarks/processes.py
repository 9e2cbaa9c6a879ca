"""The processes of a run: started with the right CPU, listened to with patience, ended for sure."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.loops import Contender

ROOT = Path(__file__).resolve().parent.parent

ANSWER_LIMIT = 120.0
"""Seconds after which a process that does not answer has failed."""


class RowError(Exception):
    """A loop cannot do a row; the text says why."""


def environment() -> dict[str, str]:
    """The environment of the processes: this repository's packages come first.

    Their modules are compiled once, as those of installed packages are.
    """
    path = [str(ROOT), str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]
    changed = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONDONTWRITEBYTECODE": ""}
    return os.environ | changed


class Child:
    """A process that answers in lines, and that ends when it is left."""

    def __init__(self, command: list[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(),
            cwd=ROOT,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin
        self._output = self._process.stdout
        self._unread = b""
        self._told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Close its input, and see to it that it is gone."""
        if self._process.poll() is None:
            self.resume()
        with contextlib.suppress(BrokenPipeError):  # It may have died with an order unread.
            self._input.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
        self._errors.close()

    def pause(self) -> None:
        """Keep the process from running at all, so that it cannot disturb another's turn."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @property
    def process(self) -> int:
        """Its number."""
        return self._process.pid

    def line(self, limit: float = ANSWER_LIMIT) -> str:
        """The next line that it prints."""
        deadline = time.monotonic() + limit
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._output], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise RowError(f"no answer within {limit:.0f} s")
            received = os.read(self._output.fileno(), 65536)
            if not received:
                raise RowError(self._cause_of_death())
            self._unread += received
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode()

    def answer(self, limit: float = ANSWER_LIMIT) -> dict[str, Any]:
        """The next line, as JSON."""
        answer: dict[str, Any] = json.loads(self.line(limit))
        if "error" in answer:
            self._told = True
            raise RowError(answer["error"])
        return answer

    def ask(self, order: dict[str, Any], limit: float = ANSWER_LIMIT) -> dict[str, Any]:
        """Send an order and return its answer."""
        try:
            self._input.write(json.dumps(order).encode() + b"\n")
            self._input.flush()
        except BrokenPipeError:
            raise RowError(self._cause_of_death()) from None
        return self.answer(limit)

    def last_words(self) -> str:
        """The error that it has told of without being asked, or what it died of; often nothing."""
        try:
            self.answer(0.2)
        except RowError as error:
            return "" if self._process.poll() is None and not self._told else str(error)
        return ""

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        if code < 0:
            return f"killed by {signal.Signals(-code).name}{last}"
        return f"exit code {code}{last}"


def worker(contender: Contender, kind: str, *arguments: str, cpu: int | None) -> Child:
    """Start a process that holds one loop."""
    command = [sys.executable, "-m", "benchmarks.worker", kind, *arguments]
    command += ["--loop", contender.name]
    if cpu is not None:
        command += ["--cpu", str(cpu)]
    return Child(command)
