"""What every test gets: a loop of each kind, and a look at what it left behind.

- `backend`, `loop_factory`, `loop`, `run`: the test runs on asyncio's loop and on Weft's.
  `@pytest.mark.backends("weft")` restricts it to the one where both cannot agree; `--loops asyncio`
  restricts a whole run, and `--installed` puts Weft's primitives in the place of asyncio's.
- What a test leaves behind fails it: descriptors, threads, pending tasks, a loop marked as running,
  signal handlers, and errors that went to asyncio's log without the test asking for them (the
  `reports` fixture collects them, and a test that takes it answers for them).
- A test that hangs is ended. A test over 0.25 s belongs to the `slow` ones: the summary names those
  that are not marked, and `--strict-slow` fails them.
- `--fuzz-minutes` runs Hypothesis' tests alone, each again and again with fresh randomness until
its share of the time is over.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import secrets
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TextIO

import hypothesis
import pytest
from backends import BACKENDS, Backend

SLOW_SECONDS = 0.25
# Starting an interpreter takes that long by itself on a busy machine.
SLOW_SECONDS_CHILD = 3
HANG_SECONDS = 30
HANG_SECONDS_SLOW = 600
FAILED_HANDSHAKE = "Error on transport creation for incoming connection\n"
# What a test may log at this level or above only if it takes `reports`.
REPORT_LEVEL = logging.ERROR

_stderr = pytest.StashKey[TextIO]()
_share = pytest.StashKey[float]()
"""Seconds for each test, where random tests run long."""
_sluggish = pytest.StashKey[list[tuple[str, float]]]()


# -- options and markers ---------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loops",
        default="asyncio,weft",
        help="loops to run the tests on, separated by commas (default: asyncio,weft)",
    )
    parser.addoption(
        "--installed",
        action="store_true",
        help="put Weft's primitives into asyncio's namespace before any library is imported",
    )
    parser.addoption(
        "--strict-slow",
        action="store_true",
        help=f"fail a test over {SLOW_SECONDS} s that is not marked slow",
    )
    parser.addoption(
        "--fuzz-minutes",
        type=float,
        help="run the random tests alone, for about so many minutes in all",
    )
    parser.addoption(
        "--hang-after",
        type=float,
        default=HANG_SECONDS,
        help="end a test that is not marked slow after this many seconds (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        f"slow: takes longer than {SLOW_SECONDS} s",
        "outside_debug: on loops out of debug mode, whatever Python is in (-X dev has loops debug)",
        f"child: starts interpreters of its own, and counts as slow from {SLOW_SECONDS_CHILD} s on",
        "backends(*names): run only on these of asyncio and weft, because they cannot agree here",
    ):
        config.addinivalue_line("markers", line)
    if config.getoption("--installed"):
        # Not install(): the tests choose their loops themselves.
        from weft import _primitives

        _primitives.put_in_place()
    # Output is not captured yet: this copy still reaches the terminal when a test hangs.
    config.stash[_stderr] = os.fdopen(os.dup(2), "w")
    config.stash[_sluggish] = []


def pytest_unconfigure(config: pytest.Config) -> None:
    faulthandler.cancel_dump_traceback_later()
    if stderr := config.stash.get(_stderr, None):
        stderr.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" not in metafunc.fixturenames:
        return
    names = metafunc.config.getoption("--loops").split(",")
    if marker := metafunc.definition.get_closest_marker("backends"):
        names = [name for name in names if name in marker.args]
    metafunc.parametrize("backend", names, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if minutes := config.getoption("--fuzz-minutes"):
        items[:] = [item for item in items if _is_random(item)]
        config.stash[_share] = minutes * 60 / max(1, len(items))


def _is_random(item: pytest.Item) -> bool:
    return getattr(getattr(item, "obj", None), "is_hypothesis_test", False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """In a long run, a random test is called until its share of the time is over."""
    share = pyfuncitem.config.stash.get(_share, None)
    if share is None:
        return
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    deadline = time.monotonic() + share
    # The last call is pytest's own, with the last of these seeds.
    while True:
        hypothesis.seed(secrets.randbits(64))(pyfuncitem.obj)
        if time.monotonic() >= deadline:
            return
        pyfuncitem.obj(**arguments)


def pytest_collection_finish(session: pytest.Session) -> None:
    # What exists now is there to stay. Out of the collector's sight, or each of the many
    # collections that the tests ask for would walk through pytest itself.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    allowed = SLOW_SECONDS_CHILD if item.get_closest_marker("child") else SLOW_SECONDS
    slow = item.get_closest_marker("slow") is not None
    if call.when == "call" and call.duration > allowed and not slow:
        item.config.stash[_sluggish].append((item.nodeid, call.duration))
        if item.config.getoption("--strict-slow") and report.outcome == "passed":
            report.outcome = "failed"
            report.longrepr = f"took {call.duration:.2f} s and is not marked slow"
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if sluggish := config.stash[_sluggish]:
        terminalreporter.section(f"over {SLOW_SECONDS} s and not marked slow")
        for nodeid, seconds in sorted(sluggish, key=lambda entry: -entry[1]):
            terminalreporter.line(f"{seconds:6.2f} s  {nodeid}")


# -- loops -----------------------------------------------------------------------------------------


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    backend = BACKENDS[request.param]()
    return backend.outside_debug() if request.node.get_closest_marker("outside_debug") else backend


@pytest.fixture
def loop_factory(backend: Backend) -> Callable[[], asyncio.AbstractEventLoop]:
    return backend.new_event_loop


@pytest.fixture
def run(backend: Backend) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`run(coro, debug=None)`, as `asyncio.run`."""
    return backend.run


@pytest.fixture
def loop(backend: Backend) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that is closed after the test, which must leave no task pending on it."""
    loop = backend.new_event_loop()
    try:
        yield loop
        left = () if loop.is_closed() else asyncio.all_tasks(loop)
        # A test that means to leave one behind says so on the task.
        pending = [task for task in left if task._log_destroy_pending]
        assert not pending, f"tasks left pending: {pending}"
    finally:
        try:
            if getattr(loop, "_default_executor", None) is not None and not loop.is_closed():
                loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


@pytest.fixture
def reports() -> Iterator[list[dict[str, Any]]]:
    """The contexts given to `call_exception_handler` of loops that log them (the default)."""
    reports: list[dict[str, Any]] = []
    kept = asyncio.BaseEventLoop.default_exception_handler

    def record(self: asyncio.BaseEventLoop, context: dict[str, Any]) -> None:
        reports.append(context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.BaseEventLoop, "default_exception_handler", record)
        yield reports
    assert asyncio.BaseEventLoop.default_exception_handler is kept


# -- what a test leaves behind ---------------------------------------------------------------------


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(REPORT_LEVEL)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def no_stray_error_logs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that makes asyncio log an error, unless it looks at the log itself."""
    if "caplog" in request.fixturenames:
        yield
        return
    handler = _Records()
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    messages = [record.getMessage() for record in handler.records]
    if sys.flags.dev_mode:
        # In debug mode a server reports each handshake that fails, as many do here on purpose.
        messages = [text for text in messages if not text.startswith(FAILED_HANDSHAKE)]
    assert not messages, "\n".join(["asyncio logged:", *messages])


def descriptors() -> dict[int, str]:
    """Every open descriptor of this process and what it refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            # The descriptor that listed the directory.
            continue
    return found


def _new_descriptors(before: dict[int, str]) -> dict[int, str]:
    return {fd: what for fd, what in descriptors().items() if before.get(fd) != what}


def _new_threads(before: set[threading.Thread]) -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread not in before}


def _settle(look: Callable[[], Any], seconds: float = 2) -> Any:
    """Look again until nothing is left or the time is up: threads and peers end when they can."""
    deadline = time.monotonic() + seconds
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return left


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    threads = set(threading.enumerate())
    before = descriptors()
    sigint = signal.getsignal(signal.SIGINT)
    yield
    complaints = []
    if asyncio._get_running_loop() is not None:
        asyncio._set_running_loop(None)
        complaints.append("a loop is still marked as running")
    with warnings.catch_warnings():
        # Asking for the policy is deprecated on 3.14; emptying its slot is what is meant here.
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop(None)
    if signal.getsignal(signal.SIGINT) is not sigint:
        signal.signal(signal.SIGINT, sigint)
        complaints.append("the handler of SIGINT was not put back")
    if signal.set_wakeup_fd(-1) != -1:
        complaints.append("the signal wakeup descriptor was not put back")
    if _new_descriptors(before):
        # Only a garbage cycle may own them still; collect only now, since it takes long.
        gc.collect()
        if left := _settle(lambda: _new_descriptors(before)):
            complaints.append(f"descriptors left open: {left}")
    if left := _settle(lambda: _new_threads(threads)):
        complaints.append(f"threads left running: {left}")
    assert not complaints, "; ".join(complaints)


class Hung(SystemExit, pytest.fail.Exception):
    """The test took too long. Loops and tasks let it through, and pytest takes it for a failure."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # What pytest looks for in its own exceptions.
        self.msg = message
        self.pytrace = True


@pytest.fixture(autouse=True)
def ends_in_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """Interrupt a test that hangs; if even that does not help, end the process with a traceback."""
    slow = request.node.get_closest_marker("slow") is not None
    limit = HANG_SECONDS_SLOW if slow else request.config.getoption("--hang-after")
    if request.node.get_closest_marker("soak"):
        # So long it runs by itself where that is what it is asked for.
        limit += 60 * float(os.environ.get("SOAK_MINUTES", "10"))
    # The last call of a long run begins when the time is over, and may have to find the smallest
    # failure.
    limit += 10 * request.config.stash.get(_share, 0)

    def interrupt(signum: int, frame: Any) -> None:
        raise Hung(f"not done after {limit} s")

    kept = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit)
    faulthandler.dump_traceback_later(limit * 1.5, exit=True, file=request.config.stash[_stderr])
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)
        faulthandler.cancel_dump_traceback_later()
