"""What the demo runs: the examples, with counts that make each last about a second at most."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Program:
    """One example and how it is run here. `labels` names its rows by the runs it reports."""

    name: str
    arguments: tuple[str, ...]
    labels: dict[str, str]
    paced: bool = False
    """The program waits for a clock most of the time: a faster loop cannot make it faster."""

    @property
    def path(self) -> Path:
        return EXAMPLES / f"{self.name}.py"


PROGRAMS = (
    Program(
        "api_calls",
        ("--calls", "2000", "--concurrency", "50", "--timeout", "0.25"),
        {
            "one by one": "API calls, one by one",
            "gather": "API calls, gather",
            "workers": "API calls, 50 workers",
            "semaphore": "API calls, semaphore(50)",
            "timeouts": "API calls, some fail or hang",
        },
    ),
    Program("scraper", (), {"scraper": "Scraper (BeautifulSoup)"}),
    Program("priority_queue", ("--jobs", "2000"), {"priority queue": "Priority task queue"}),
    Program("pipeline", ("--pages", "100"), {"pipeline": "Producers and consumers"}),
    Program("downloader", ("--files", "96"), {"downloader": "Downloader (aiofiles)"}),
    Program(
        "dashboard",
        ("--screens", "10", "--ticks", "60", "--interval", "0"),
        {"dashboard": "Dashboard, one service down"},
    ),
    Program(
        "poller",
        ("--feeds", "40", "--polls", "25", "--interval", "0.02"),
        {"poller": "Poller, at its own pace"},
        paced=True,
    ),
)

QUICK = {
    "api_calls": ("--calls", "200", "--concurrency", "50", "--timeout", "0.5"),
    "scraper": ("--depth", "2"),
    "priority_queue": ("--jobs", "200"),
    "pipeline": ("--pages", "10"),
    "downloader": ("--files", "8"),
    "dashboard": ("--screens", "5", "--ticks", "10", "--interval", "0"),
    "poller": ("--feeds", "20", "--polls", "5", "--interval", "0.02"),
}


def choose(names: list[str], *, quick: bool) -> list[Program]:
    """The programs called for, in the order above; `quick` takes a tenth of the work."""
    chosen = [program for program in PROGRAMS if program.name in names]
    if quick:
        chosen = [
            Program(program.name, QUICK[program.name], program.labels, program.paced)
            for program in chosen
        ]
    return chosen
