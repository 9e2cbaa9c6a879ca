"""pytest's plugin in the process that runs a library's tests: chooses the loop, keeps the outcomes.

It is loaded before any file of the library, so that even what a library takes from asyncio when it
is imported is what the run is about. It is no part of ``tests``: libraries have a package of that
name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from typing import Any

import pytest

RUN = os.environ["WEFT_SUITES_RUN"]
"""``asyncio``, ``loop`` (Weft's loop alone) or ``installed`` (what `weft.install()` does)."""

RESULTS = os.environ["WEFT_SUITES_RESULTS"]
_loops_made = 0

# Under their public names Python 3.14 warns of them, and some suites take warnings for errors.
_get_policy: Callable[[], Any] = (
    getattr(asyncio.events, "_get_event_loop_policy", None) or asyncio.get_event_loop_policy
)
_set_policy: Callable[[Any], None] = (
    getattr(asyncio.events, "_set_event_loop_policy", None) or asyncio.set_event_loop_policy
)


def _choose_loop() -> None:
    if RUN == "asyncio":
        return
    import weft

    class Policy(weft.EventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            global _loops_made
            _loops_made += 1
            return super().new_event_loop()

    if RUN == "installed":
        weft.install()
    _set_policy(Policy())
    # What some suites call beside asyncio.new_event_loop(), to get asyncio's default.
    asyncio.DefaultEventLoopPolicy = Policy
    asyncio.SelectorEventLoop = asyncio.EventLoop = weft.Loop


def _adapt_uvloop() -> None:
    """Let uvloop's suite, which tests uvloop and asyncio in turn, take the chosen loop for both."""
    from uvloop import _testbase

    def new_loop(self: Any) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def new_policy(self: Any) -> Any:
        return _get_policy()

    _testbase.BaseTestCase.is_asyncio_loop = lambda self: True
    for case in (_testbase.AIOTestCase, _testbase.UVTestCase):
        case.new_loop = new_loop
        case.new_policy = new_policy
    keep = _get_policy()
    asyncio.set_event_loop_policy = lambda policy: _set_policy(policy or keep)


def _adapt_tornado() -> None:
    """Do what tornado's own runner does before its tests, which count what is logged."""
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)


_choose_loop()
_ADAPT = {"uvloop": _adapt_uvloop, "tornado": _adapt_tornado}
if adapt := _ADAPT.get(os.environ["WEFT_SUITES_LIBRARY"]):
    adapt()


class Outcomes:
    """Writes a line for each test as soon as it begins, and one when it has ended."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._done = set()
        if os.path.exists(path):
            with open(path) as lines:
                self._done = {json.loads(line)["id"] for line in lines}
        # What has an outcome is not run again after a crash.
        self._file = open(path, "a", buffering=1)  # noqa: SIM115
        self._status: dict[str, tuple[str, str]] = {}
        self._before = 0

    def _write(self, **record: Any) -> None:
        self._file.write(json.dumps(record) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        left = [item for item in items if item.nodeid not in self._done]
        if len(left) < len(items):
            config.hook.pytest_deselected(items=[i for i in items if i.nodeid in self._done])
        items[:] = left

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and report.nodeid not in self._done:
            self._write(id=report.nodeid, status="failed", detail=str(report.longrepr)[-4000:])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._before = _loops_made
        self._write(id=nodeid, status="began")

    def pytest_runtest_logreport(self, report: Any) -> None:
        known, detail = self._status.get(report.nodeid, ("passed", ""))
        if report.failed:
            known, detail = "failed", f"{detail}\n{report.longrepr}"
        elif report.skipped and known == "passed":
            # An expected failure is reported as a skip; it is the library's, and no failure.
            known, detail = "skipped", str(report.longrepr)
        self._status[report.nodeid] = known, detail

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        status, detail = self._status.pop(nodeid, ("skipped", ""))
        self._write(
            id=nodeid, status=status, detail=detail[-4000:], loops=_loops_made - self._before
        )


def pytest_configure(config: Any) -> None:
    config.pluginmanager.register(Outcomes(RESULTS), "weft-suites-outcomes")
