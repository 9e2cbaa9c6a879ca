"""What `import weft as asyncio` finds beside Weft's own names: asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

__all__ = ["__getattr__", "others"]


def others(own: Collection[str]) -> list[str]:
    """Return the names that asyncio exports and that are not among our own."""
    return sorted(set(asyncio.__all__).difference(own))


def __getattr__(name: str) -> Any:
    """Return asyncio's submodule or deprecated name of that name (with asyncio's warning)."""
    if name.startswith("_"):
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    try:
        return getattr(asyncio, name)
    except AttributeError:
        raise AttributeError(f"module 'weft' has no attribute {name!r}") from None
