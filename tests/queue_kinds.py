"""Whose queues are under test, and on whose loop."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import weft
from backends import Backend, asyncio_backend, weft_backend

KINDS = ("Queue", "LifoQueue", "PriorityQueue")


@dataclass(frozen=True)
class Setting:
    """Whose queues, on whose loop."""

    name: str
    backend: Callable[[], Backend]
    library: Any

    @property
    def is_weft(self) -> bool:
        return self.library is weft

    @property
    def shut_down(self) -> type[Exception]:
        return weft.QueueShutDown


STOCK = Setting("asyncio", asyncio_backend, asyncio)
NATIVE = Setting("weft", weft_backend, weft)
FOREIGN = Setting("weft-on-asyncio", asyncio_backend, weft)
SETTINGS = (STOCK, NATIVE, FOREIGN)


def unique(base: type[Any]) -> type[Any]:
    class Unique(base):
        """Each item once, the one put in last at the end."""

        def _init(self, maxsize: int) -> None:
            self._queue = OrderedDict()

        def _put(self, item: Any) -> None:
            self._queue[item] = None
            self._queue.move_to_end(item)

        def _get(self) -> Any:
            return self._queue.popitem(last=False)[0]

    return Unique
