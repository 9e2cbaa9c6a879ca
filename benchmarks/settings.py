"""How long and how often a run measures, and on which CPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How long and how often."""

    rounds: int
    """For the loop's rows; others have fewer."""
    round_seconds: float
    network_rounds: int
    network_seconds: float
    network_warmup: float
    few_rounds: int
    """For rows whose rounds take seconds, or a process each."""
    processor_time: bool = False
    """Count the time that the loop's process runs rather than the time on the wall."""

    @classmethod
    def usual(cls) -> Settings:
        return cls(11, 0.030, 7, 0.5, 0.15, 3)

    @classmethod
    def quick(cls) -> Settings:
        return cls(3, 0.010, 2, 0.2, 0.1, 1)


@dataclass(frozen=True)
class Cpus:
    """Where the processes stay. On a machine with one CPU they share it."""

    loop: int | None
    peer: int | None

    @classmethod
    def available(cls) -> Cpus:
        if not hasattr(os, "sched_setaffinity"):
            return cls(None, None)
        available = sorted(os.sched_getaffinity(0))
        return cls(available[0], available[-1])
