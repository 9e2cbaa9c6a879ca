"""A library's tests in processes of their own, which may crash or hang: it costs one test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .preparing import OUT, ROOT
from .table import Library

_MOST_PROCESSES = 10
_POLL = 0.1


@dataclass
class Outcome:
    """What one test did: ``passed``, ``failed`` or ``skipped``."""

    status: str
    detail: str = ""
    loops: int = 0
    """How many loops of Weft's it made."""


def _environment(
    library: Library, run: str, results: Path, given: dict[str, str]
) -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST", "PG"))
    }
    paths = [ROOT / "python", Path(__file__).with_name("plugin")]
    environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "WEFT_SUITES_LIBRARY": library.name,
        "WEFT_SUITES_RUN": run,
        "WEFT_SUITES_RESULTS": str(results),
    }
    return environment | {name: value for name, value in given.items() if name.isupper()}


def _records(path: Path) -> dict[str, Outcome]:
    """The last thing that is known of each test."""
    outcomes: dict[str, Outcome] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            record = json.loads(line)
            test = record.pop("id")
            outcomes[test] = Outcome(**record)
    return outcomes


def _watch(process: subprocess.Popen[bytes], results: Path, patience: float) -> None:
    """Wait for the end of the process; end it where nothing was recorded for too long."""
    size, since = -1, time.monotonic()
    while process.poll() is None:
        now = results.stat().st_size if results.exists() else 0
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > patience:
            break
        time.sleep(_POLL)
    # The whole group: what a test has started and left behind, too.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def run_tests(
    library: Library,
    run: str,
    *,
    python: Path,
    place: Path,
    given: dict[str, str],
    only: Sequence[str] = (),
    pattern: str = "",
) -> dict[str, Outcome]:
    """Run the library's tests, or ``only`` some, and return what each did."""
    name = f"{library.name}-{run}-{sys.version_info.major}.{sys.version_info.minor}"
    (OUT / "logs").mkdir(parents=True, exist_ok=True)
    # Those that are run again by themselves leave the record of the whole run alone.
    name += "-again" if only else ""
    results = OUT / "logs" / f"{name}.jsonl"
    results.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", "-p", "weft_suites", "-q", "-o", "addopts="]
    command += [
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        f"--timeout={library.seconds}",
    ]
    command += [option.format_map(given) for option in library.options]
    for glob in library.left_out:
        command += ["--deselect" if "::" in glob else "--ignore-glob", glob]
    command += ["-k", pattern] if pattern else []
    if only:
        command += only
    elif library.installed:
        command += ["--pyargs", *library.tests]
    else:
        command += sorted(str(p.relative_to(place)) for t in library.tests for p in place.glob(t))
    environment = _environment(library, run, results, given)
    with open(OUT / "logs" / f"{name}.log", "wb") as log:
        for _ in range(_MOST_PROCESSES):
            process = subprocess.Popen(
                command,
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            _watch(process, results, 2 * library.seconds + 60)
            began = [test for test, o in _records(results).items() if o.status == "began"]
            if not began:
                break
            how = f"the process ended with {process.returncode}"
            with open(results, "a") as file:
                file.writelines(
                    json.dumps({"id": test, "status": "failed", "detail": how}) + "\n"
                    for test in began
                )
    return _records(results)
