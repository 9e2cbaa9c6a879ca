"""Where and on what something was measured."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from .loops import Loop


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def conditions(loops: list[Loop], cpus: str) -> str:
    """One line: interpreter, loops, aiohttp, system, processor, CPUs."""
    return " · ".join(
        [
            f"{platform.python_implementation()} {platform.python_version()}",
            *(loop.label for loop in loops if loop.name != "asyncio"),
            f"aiohttp {metadata.version('aiohttp')}",
            f"{platform.system()} {platform.release()}",
            processor(),
            cpus,
        ]
    )
