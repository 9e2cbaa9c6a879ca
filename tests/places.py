"""Whose primitives, on whose loop.

asyncio's on its own, which proves the test, and Weft's on both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import weft
from backends import BACKENDS


@dataclass(frozen=True)
class Place:
    classes: Any
    loop: str

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return BACKENDS[self.loop]().new_event_loop()

    def run(self, coro: Coroutine[Any, Any, Any], *, debug: bool | None = None) -> Any:
        return BACKENDS[self.loop]().run(coro, debug=debug)

    @property
    def is_stock(self) -> bool:
        return self.classes is asyncio


STOCK = Place(asyncio, "asyncio")
OWN = [Place(weft, "weft"), Place(weft, "asyncio")]
PLACES = [STOCK, *OWN]


def name_of(place: Place) -> str:
    return f"{place.classes.__name__}-on-{place.loop}"


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def shape(error: BaseException | None) -> Any:
    """What an exception looks like, with what it was raised from and in the course of."""
    if error is None:
        return None
    inner = getattr(error, "exceptions", ())
    return (
        type(error).__name__,
        str(error),
        sorted((shape(each) for each in inner), key=repr),
        shape(error.__cause__),
        error.__suppress_context__,
        shape(error.__context__),
    )
