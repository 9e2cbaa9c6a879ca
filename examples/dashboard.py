"""A dashboard: three services side by side, of which one keeps going down.

Every tick asks all services at the same time. One that is down or too slow costs nothing but its
own place on the screen: that shows the last known value, marked as old.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from typing import Any

import aiohttp
from figures import Figures, Report, argument_parser

SERVICES = ("orders", "stock", "payments")


class Dashboard:
    """One screen: the last known value of each service, and how long ago that was."""

    def __init__(
        self, session: aiohttp.ClientSession, figures: Figures, arguments: argparse.Namespace
    ) -> None:
        self._session = session
        self._figures = figures
        self._timeout: float = arguments.timeout
        self._interval: float = arguments.interval
        self._ticks: int = arguments.ticks
        self.values: dict[str, Any] = {}
        self.age: Counter[str] = Counter()
        self.up: Counter[str] = Counter()
        self.longest_outage = 0
        self.checksum = 0

    async def show(self) -> None:
        """Refresh at every tick, and at once when there is no interval."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for tick in range(self._ticks):
            await self._refresh(tick)
            due += self._interval
            if self._interval:
                print(self.line(tick))
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def _refresh(self, tick: int) -> None:
        answers = await asyncio.gather(
            *(self._ask(service, tick) for service in SERVICES), return_exceptions=True
        )
        for service, answer in zip(SERVICES, answers, strict=True):
            if isinstance(answer, (aiohttp.ClientError, TimeoutError)):
                self.age[service] += 1
                self.longest_outage = max(self.longest_outage, self.age[service])
            elif isinstance(answer, BaseException):
                raise answer
            else:
                self.values[service] = answer
                self.age[service] = 0
                self.up[service] += 1
                self.checksum += sum(answer.values())

    async def _ask(self, service: str, tick: int) -> dict[str, int]:
        with self._figures.call():
            async with (
                asyncio.timeout(self._timeout),
                self._session.get(f"/services/{service}?tick={tick}") as response,
            ):
                response.raise_for_status()
                answer: dict[str, int] = await response.json()
                return answer

    def line(self, tick: int) -> str:
        """The screen, in one line."""
        parts = []
        for service in SERVICES:
            value = ", ".join(f"{k} {v:,}" for k, v in self.values.get(service, {}).items())
            old = f" ({self.age[service]} ticks old)" if self.age[service] else ""
            parts.append(f"{service}: {value or 'unknown'}{old}")
        return f"tick {tick:>3} | " + " | ".join(parts)


async def main(arguments: argparse.Namespace) -> Report:
    report = Report("dashboard")
    async with aiohttp.ClientSession(arguments.base_url) as session:
        with report.figures("dashboard") as figures:
            screens = [Dashboard(session, figures, arguments) for _ in range(arguments.screens)]
            async with asyncio.TaskGroup() as group:
                for screen in screens:
                    group.create_task(screen.show())
    ticks = arguments.ticks * len(screens)
    up = {name: sum(screen.up[name] for screen in screens) for name in SERVICES}
    print(screens[0].line(arguments.ticks - 1))
    print(f"{len(screens)} screens, {ticks:,} refreshes, none of them failed")
    for service in SERVICES:
        print(f"{service:<9} was there {up[service] / ticks:6.1%} of the time")
    report.result = {
        "refreshes": ticks,
        "up": up,
        "longest outage": max(screen.longest_outage for screen in screens),
        "checksum": sum(screen.checksum for screen in screens),
    }
    return report


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--screens", type=int, default=1, help="dashboards at the same time")
    parser.add_argument("--ticks", type=int, default=10, help="refreshes of each dashboard")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds; 0: without pause")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds for one service")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    asyncio.run(main(arguments)).print(as_json=arguments.json)
