"""What a loop costs before it runs anything: small programs, each in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.loops import Contender

_IMPORT = """\
from time import {clock} as clock
start = clock()
{setup}
print(clock() - start)
"""

# The clock is the system's, so that the parent's reading and the child's can be compared.
_FIRST_CALLBACK = """\
import sys, time
{setup}
loop = {factory}
def callback():
    print({now})
    loop.stop()
loop.call_soon(callback)
loop.run_forever()
loop.close()
"""

TIME_LIMIT = 30.0


@dataclass(frozen=True)
class StartupRow:
    """A line of the table of start-up times."""

    name: str
    program: str
    group: str = "startup"
    unit: str = "ms"

    def run(
        self,
        contender: Contender,
        environment: dict[str, str],
        cpu: int | None,
        processor_time: bool,
    ) -> float:
        """Run the program once; return milliseconds."""
        since_start = "time.clock_gettime_ns(time.CLOCK_MONOTONIC) - int(sys.argv[1])"
        program = self.program.format(
            setup=contender.setup,
            factory=contender.factory_expression,
            clock="process_time_ns" if processor_time else "perf_counter_ns",
            now="time.process_time_ns()" if processor_time else since_start,
        )
        if cpu is not None:
            # Set here, and inherited: to set it in the child would be part of what is measured.
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {cpu})
        try:
            started = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            answer = subprocess.run(
                [sys.executable, "-c", program, str(started)],
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
            )
        finally:
            if cpu is not None:
                os.sched_setaffinity(0, before)
        if answer.returncode:
            lines = answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"]
            raise RuntimeError(lines[-1])
        return int(answer.stdout) / 1e6


STARTUP_ROWS = {
    row.name: row
    for row in (
        StartupRow("import", _IMPORT),
        StartupRow("process to first callback", _FIRST_CALLBACK),
    )
}
