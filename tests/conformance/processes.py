"""Run modules of the suite in processes of their own, and outlive whatever they do.

A process that crashes, or whose current test passes its time limit, costs that one test: it is
recorded as failed, and another process takes up the module after it.
"""

from __future__ import annotations

import fnmatch
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .child import Job
from .scope import Variant

ROOT = Path(__file__).resolve().parents[2]
_POLL = 0.05
_EXIT_LIMIT = 30.0
_MOST_PROCESSES = 40
_TAIL = 6000


@dataclass
class Outcome:
    """What one test did."""

    id: str
    status: str
    """``passed``, ``failed`` or ``skipped``."""
    detail: str = ""
    seconds: float = 0.0
    used: bool = False
    """Whether the test used the loop, or a type, under test."""
    unraisable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ModuleRun:
    """A module to run, in one variant, on one loop.

    ``only`` limits it to some tests; those that match a glob in ``apart`` are not run but planned.
    """

    loop: str
    module: str
    variant: Variant
    only: tuple[str, ...] | None = None
    apart: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name in tables."""
        extra = "" if self.variant is Variant.OWN else f" [{self.variant.value}]"
        return f"{self.module}{extra}"


@dataclass(frozen=True)
class Limits:
    """Time limits in seconds: of one test, and of all of a module's processes together."""

    test: float = 60.0
    module: float = 600.0


@dataclass
class ModuleOutcomes:
    """What a module's tests did."""

    run: ModuleRun
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    planned: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def apart(self) -> list[str]:
        """Planned tests that are left to processes of their own."""
        globs = self.run.apart
        return [t for t in self.planned if any(fnmatch.fnmatchcase(t, glob) for glob in globs)]

    def missing(self) -> list[str]:
        """Planned tests that should have an outcome and do not."""
        apart = set(self.apart())
        return [test for test in self.planned if test not in self.outcomes and test not in apart]


def child_environment() -> dict[str, str]:
    """The environment of a child: neutral to asyncio, and able to import what is in the tree."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS"}
    }
    paths = [str(ROOT)]
    package = ROOT / "python"
    # A library built in the tree is preferred to an installed one only if it fits this interpreter.
    if any(package.glob(f"weft/_weft.{sys.implementation.cache_tag}-*.so")):
        paths.append(str(package))
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(paths + ([inherited] if inherited else []))
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return environment


class _Child:
    """One process at work on a module, and the records that it has written so far."""

    def __init__(self, job: Job, directory: Path, outcomes: ModuleOutcomes) -> None:
        self._path = Path(job.results)
        self._outcomes = outcomes
        self._offset = 0
        self._log = directory / "output"
        self.current: str | None = None
        self.current_since = time.monotonic()
        self.ended = False
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.child", job.to_json()],
                cwd=ROOT,
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Read what is new, and return the exit status if the process has ended."""
        status = self._process.poll()
        self._read()
        return status

    def kill(self) -> None:
        """End the process and all that its tests have started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._read()

    def output(self) -> str:
        """The end of what it printed; a traceback of every thread if a time limit passed."""
        return self._log.read_bytes()[-_TAIL:].decode(errors="replace")

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as records:
            records.seek(self._offset)
            for line in records:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._take(json.loads(line))

    def _take(self, record: dict[str, object]) -> None:
        event = record.pop("event")
        known = self._outcomes.outcomes
        if event == "plan":
            self._outcomes.planned = [str(test) for test in record["ids"]]  # type: ignore[attr-defined]
        elif event == "start":
            self.current = str(record["id"])
            self.current_since = time.monotonic()
        elif event == "outcome":
            outcome = Outcome(**record)  # type: ignore[arg-type]
            known[outcome.id] = outcome
            self.current = None
            self.current_since = time.monotonic()
        elif event == "fixture":
            outcome = Outcome(**record)  # type: ignore[arg-type]
            tests = [t for t in self._outcomes.planned if t.startswith(f"{outcome.id}.")]
            for test in tests if outcome.status == "skipped" else []:
                known.setdefault(test, Outcome(test, "skipped", outcome.detail))
            if outcome.status == "failed" or not tests:
                known[f"{outcome.id}.(fixture)"] = Outcome(
                    f"{outcome.id}.(fixture)", outcome.status, outcome.detail
                )
        elif event == "end":
            self.ended = True
            self.current_since = time.monotonic()


def run_module(run: ModuleRun, limits: Limits) -> ModuleOutcomes:
    """Run one module to its end, in as many processes as it takes."""
    outcomes = ModuleOutcomes(run)
    began = time.monotonic()
    for _ in range(_MOST_PROCESSES):
        if not _run_process(outcomes, limits, began + limits.module):
            break
    for test in outcomes.missing():
        outcomes.outcomes[test] = Outcome(test, "failed", "never ran: the module did not get to it")
    outcomes.seconds = time.monotonic() - began
    return outcomes


def _run_process(outcomes: ModuleOutcomes, limits: Limits, deadline: float) -> bool:
    """Run one process; whether another one has to take up the tests that are left."""
    run = outcomes.run
    with tempfile.TemporaryDirectory(prefix="conformance-") as name:
        directory = Path(name)
        job = Job(
            loop=run.loop,
            module=run.module,
            variant=run.variant.value,
            results=str(directory / "results"),
            time_limit=limits.test,
            only=None if run.only is None else list(run.only),
            done=list(outcomes.outcomes),
            apart=list(run.apart),
        )
        child = _Child(job, directory, outcomes)
        problem = ""
        try:
            while (status := child.poll()) is None:
                now = time.monotonic()
                limit = _EXIT_LIMIT if child.ended else limits.test
                if now > deadline:
                    problem = f"the module passed its time limit of {limits.module:g} s"
                elif now > child.current_since + limit:
                    problem = f"passed the time limit of {limit:g} s"
                if problem:
                    break
                time.sleep(_POLL)
        finally:
            child.kill()
        if not problem and status:
            problem = f"the process died: {_describe_status(status)}"
        if not problem and not child.ended:
            problem = "the process ended in the middle of the module"
        if not problem:
            return False
        culprit = child.current or f"{run.module}.({'exit' if child.ended else 'start'})"
        outcomes.outcomes[culprit] = Outcome(
            culprit,
            "failed",
            f"{child.output()}\n{problem}",
            seconds=round(time.monotonic() - child.current_since, 4),
            used=child.current is not None,
        )
        return child.current is not None and time.monotonic() < deadline


def _describe_status(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def run_modules(
    runs: Sequence[ModuleRun],
    limits: Limits,
    *,
    workers: int,
    progress: Callable[[ModuleOutcomes], None],
) -> list[ModuleOutcomes]:
    """Run modules side by side; ``progress`` is called with each one as it ends."""

    def one(run: ModuleRun) -> ModuleOutcomes:
        outcomes = run_module(run, limits)
        progress(outcomes)
        return outcomes

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, runs))


def run_tests(
    loop: str, tests: Iterable[tuple[str, Variant]], limits: Limits, *, workers: int
) -> dict[tuple[str, Variant], Outcome]:
    """Run single tests, each in a process of its own, on ``loop``."""
    wanted = list(tests)
    runs = [ModuleRun(loop, test.partition(".")[0], variant, (test,)) for test, variant in wanted]
    done = run_modules(runs, limits, workers=workers, progress=lambda outcomes: None)
    found = {}
    for key, outcomes in zip(wanted, done, strict=True):
        failed = [outcome for outcome in outcomes.outcomes.values() if outcome.status == "failed"]
        own = outcomes.outcomes.get(key[0], Outcome(key[0], "failed", "did not run"))
        found[key] = failed[0] if failed else own
    return found
