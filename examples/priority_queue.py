"""A priority task queue: workers always take the most urgent job that waits.

Bulk, normal and urgent jobs are queued together. Halfway through, a second load of urgent jobs
arrives, and overtakes everything that still waits.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter
from time import perf_counter
from typing import NamedTuple

import aiohttp
from figures import Figures, Report, argument_parser

URGENT, NORMAL, BULK = range(3)
NAMES = ("urgent", "normal", "bulk")


class Job(NamedTuple):
    """Sorts by priority, then by number: first come, first served among equals."""

    priority: int
    number: int
    queued_at: float


class Office:
    """Workers around one priority queue; each job is one API call."""

    def __init__(
        self, session: aiohttp.ClientSession, figures: Figures, late: list[Job], half: int
    ) -> None:
        self.queue: asyncio.PriorityQueue[Job] = asyncio.PriorityQueue()
        self.started: list[Job] = []
        self.waited: list[list[float]] = [[] for _ in NAMES]
        self.checksum = 0
        self._session = session
        self._figures = figures
        self._late = late
        self._half = half

    def add(self, job: Job) -> None:
        self.queue.put_nowait(job._replace(queued_at=perf_counter()))

    async def work(self) -> None:
        """One worker: forever the most urgent job, until cancelled."""
        while True:
            job = await self.queue.get()
            self.started.append(job)
            self.waited[job.priority].append(perf_counter() - job.queued_at)
            if len(self.started) == self._half:
                for late in self._late:
                    self.add(late)
            try:
                # Not `self.checksum += await …`: that reads the sum before it waits.
                result = await self._do(job)
                self.checksum += result
            finally:
                self.queue.task_done()

    async def _do(self, job: Job) -> int:
        with self._figures.call():
            async with self._session.get(f"/api/jobs/{job.number}") as response:
                response.raise_for_status()
                return int((await response.json())["result"])


def overtaken(started: list[Job], half: int, late: int) -> int:
    """Jobs that had to let the late ones pass; raises if one of those had to queue behind."""
    burst = started[half : half + late]
    if any(job.priority != URGENT for job in burst):
        raise AssertionError("an urgent job waited behind one that is not")
    return len(started) - half - late


async def main(arguments: argparse.Namespace) -> Report:
    report = Report("priority_queue")
    rng = random.Random(7)
    early = [
        Job(rng.choices((URGENT, NORMAL, BULK), (1, 6, 3))[0], number, 0.0)
        for number in range(arguments.jobs)
    ]
    late = [Job(URGENT, arguments.jobs + number, 0.0) for number in range(arguments.jobs // 10)]
    half = len(early) // 2
    async with aiohttp.ClientSession(arguments.base_url) as session:
        with report.figures("priority queue") as figures:
            office = Office(session, figures, late, half)
            for job in early:
                office.add(job)
            workers = [asyncio.create_task(office.work()) for _ in range(arguments.workers)]
            joined = asyncio.create_task(office.queue.join())
            # A worker only ends by failing: do not wait for its share of the work then.
            done, _ = await asyncio.wait([joined, *workers], return_when=asyncio.FIRST_COMPLETED)
            for task in (joined, *workers):
                task.cancel()
            await asyncio.gather(joined, *workers, return_exceptions=True)
            for task in done:
                task.result()
    counts = Counter(NAMES[job.priority] for job in office.started)
    report.result = {
        "jobs": dict(sorted(counts.items())),
        "overtaken": overtaken(office.started, half, len(late)),
        "checksum": office.checksum,
    }
    for name, waited in zip(NAMES, office.waited, strict=True):
        mean = sum(waited) / len(waited) * 1000 if waited else 0.0
        print(f"{name:<8} {len(waited):>6,} jobs, waited {mean:8.1f} ms on average")
    print(f"{len(late)} urgent jobs came late and overtook {report.result['overtaken']} others")
    return report


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    asyncio.run(main(arguments)).print(as_json=arguments.json)
