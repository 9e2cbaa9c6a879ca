"""One CPU for the server and another for the programs, so that neither disturbs the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def divided_cpus() -> Iterator[tuple[int | None, str]]:
    """Keep this process and its children to one CPU; yields the server's CPU and what was done.

    Takes the first and the last CPU that this process may use, which are hardly ever two threads
    of one core. With one CPU only, or where CPUs cannot be chosen, everything stays as it is.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield None, "CPUs cannot be chosen here; server and programs share them"
        return
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        yield None, "one CPU only: server and programs share it"
        return
    ours, servers = min(allowed), max(allowed)
    os.sched_setaffinity(0, {ours})
    try:
        yield servers, f"programs on CPU {ours}, server on CPU {servers}"
    finally:
        os.sched_setaffinity(0, allowed)
