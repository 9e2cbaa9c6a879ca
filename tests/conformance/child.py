"""One process, one module of the suite: run its tests on the loop under test.

Started by ``processes``, which passes a :class:`Job` as JSON.  Every outcome is appended to a file
at once, one JSON object a line, so that the parent knows what was running when the process hangs or
dies.  The file is opened anew for each line: the tests close, reuse and duplicate descriptors.
"""

from __future__ import annotations

import faulthandler
import fnmatch
import json
import os
import signal
import sys
import time
import traceback
import unittest
from asyncio import events
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from . import plug
from .scope import SUITE, Variant, left_out

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


@dataclass(frozen=True)
class Job:
    """What a child is to do."""

    loop: str
    module: str
    variant: str
    results: str
    time_limit: float
    only: list[str] | None = None
    """The ids to run, or None for all of them."""
    done: list[str] = field(default_factory=list)
    """The ids that an earlier process has an outcome for."""
    apart: list[str] = field(default_factory=list)
    """Globs of the ids that are planned but not run: they will get processes of their own."""

    def to_json(self) -> str:
        """The form in which it travels on the command line."""
        return json.dumps(asdict(self))


class Recorder:
    """Appends records to the results file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, event: str, **fields: Any) -> None:
        """Append one record; it is complete in the file when this returns."""
        line = json.dumps({"event": event, **fields}) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


class RecordingResult(unittest.TestResult):
    """Turns what unittest reports into one record for each test."""

    def __init__(self, recorder: Recorder, plugged: plug.Plug, time_limit: float) -> None:
        super().__init__()
        self._recorder = recorder
        self._plugged = plugged
        self._time_limit = time_limit
        self._status = "passed"
        self._details: list[str] = []
        self._started = 0.0
        self._loops_before = 0
        self._running: unittest.TestCase | None = None
        self._unraisable: list[str] = []
        sys.unraisablehook = self._note_unraisable

    def _note_unraisable(self, unraisable: Any) -> None:
        self._unraisable.append(f"{unraisable.err_msg or 'ignored in'} {unraisable.object!r}")
        sys.__unraisablehook__(unraisable)

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._running = test
        self._status = "passed"
        self._details = []
        self._unraisable = []
        self._loops_before = self._plugged.loops_made
        self._recorder.write("start", id=short_id(test))
        faulthandler.dump_traceback_later(self._time_limit * 0.9)
        self._started = time.perf_counter()

    def stopTest(self, test: unittest.TestCase) -> None:
        seconds = time.perf_counter() - self._started
        faulthandler.cancel_dump_traceback_later()
        self._running = None
        if events._get_running_loop() is not None:
            # What comes next must not suffer from it.
            events._set_running_loop(None)
            self._status = "failed"
            self._details.append("the test left its loop running")
        self._recorder.write(
            "outcome",
            id=short_id(test),
            status=self._status,
            detail="\n".join(self._details),
            seconds=round(seconds, 4),
            used=self._plugged.used_since(self._loops_before, test),
            unraisable=self._unraisable,
        )
        super().stopTest(test)

    def _failed(self, test: unittest.TestCase, error: ExcInfo) -> None:
        text = "".join(traceback.format_exception(error[1]))
        if self._running is None:  # setUpClass, tearDownModule and the like
            self._recorder.write("fixture", id=fixture_id(test), status="failed", detail=text)
            return
        self._status = "failed"
        self._details.append(text)

    def addError(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._failed(test, err)

    def addFailure(self, test: unittest.TestCase, err: ExcInfo) -> None:
        self._failed(test, err)

    def addSubTest(
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: ExcInfo | None
    ) -> None:
        if err is not None:
            self._failed(test, err)
            self._details[-1] = f"{subtest}\n{self._details[-1]}"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        if self._running is None:
            self._recorder.write("fixture", id=fixture_id(test), status="skipped", detail=reason)
        elif test is self._running and self._status == "passed":
            self._status = "skipped"
            self._details.append(reason)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._status = "failed"
        self._details.append("the suite expects this test to fail, and it passed")


def short_id(test: unittest.TestCase) -> str:
    """``module.Class.test``, without the name of the package."""
    return test.id().removeprefix(f"{SUITE}.")


def fixture_id(holder: unittest.TestCase) -> str:
    """What unittest reports as ``setUpClass (package.module.Class)``, as ``module.Class``."""
    return holder.id().partition("(")[2].rstrip(")").removeprefix(f"{SUITE}.") or holder.id()


def flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """The tests of a nested suite, in order."""
    for entry in suite:
        if isinstance(entry, unittest.TestSuite):
            yield from flatten(entry)
        else:
            yield entry


def allow_loopback_only() -> None:
    """Tell the suite that it has every resource but the network."""
    support = plug.quiet_import("test.support")
    regrtest = plug.quiet_import("test.libregrtest.cmdline")
    support.use_resources = set(regrtest.ALL_RESOURCES) - {"network", "urlfetch"}
    support.verbose = 0


def run(job: Job) -> None:
    """Run the tests of ``job`` in this process."""
    recorder = Recorder(job.results)
    # A shell makes its background jobs ignore Ctrl-C, which the suite sends to itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    allow_loopback_only()
    plugged = plug.Plug(plug.load(job.loop), job.module, Variant(job.variant))
    name = f"{SUITE}.{job.module}"
    try:
        module = plug.quiet_import(name)
    except unittest.SkipTest as skipped:
        recorder.write("fixture", id=job.module, status="skipped", detail=str(skipped))
        recorder.write("end")
        return
    plugged.adapt_module(module)
    tests = list(flatten(unittest.defaultTestLoader.loadTestsFromModule(module)))
    wanted = [
        test
        for test in tests
        if left_out(short_id(test)) is None and (job.only is None or short_id(test) in job.only)
    ]
    recorder.write("plan", ids=[short_id(test) for test in wanted])
    done = set(job.done)
    todo = [
        test
        for test in wanted
        if short_id(test) not in done
        and not any(fnmatch.fnmatchcase(short_id(test), glob) for glob in job.apart)
    ]
    result = RecordingResult(recorder, plugged, job.time_limit)
    # A suite made anew from the tests keeps their order, which is all that class fixtures need.
    unittest.TestSuite(todo).run(result)
    recorder.write("end")


def main() -> None:
    """Entry point of the process: the job is the only argument."""
    job = Job(**json.loads(sys.argv[1]))
    # Tests start children and write files; none of them belongs into the repository.
    os.chdir(Path(job.results).parent)
    faulthandler.enable()
    run(job)


if __name__ == "__main__":
    main()
