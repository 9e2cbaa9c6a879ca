"""Datagram endpoints, and protocols that write down what they hear of."""

from __future__ import annotations

import asyncio
import errno
import socket
from asyncio import selector_events
from collections.abc import Iterable
from typing import Any

from backends import PY313
from recorders import Record

COUNTS_RIGHT = not PY313 or hasattr(
    selector_events._SelectorDatagramTransport,  # type: ignore[attr-defined]
    "_header_size",
)
"""The first releases of 3.13 count headers into what is pending, and never out of it again."""

HEADER = 8 if PY313 else 0
"""What a pending datagram counts for beside its data."""


class Datagrams(Record, asyncio.DatagramProtocol):
    """Writes down the datagrams and errors that it hears of."""

    def __init__(self, **on: Any) -> None:
        super().__init__(**on)
        self.received_from: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received_from.append((data, addr))
        self._called("datagram_received", data, addr)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self._called("error_received", exc)


async def endpoint(**options: Any) -> tuple[Any, Datagrams]:
    return await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, **options)


async def end(*protocols: Datagrams) -> None:
    for protocol in protocols:
        protocol.transport.close()
        await protocol.lost()


class Scripted(socket.socket):
    """A socket whose sending is told how to end: an exception to raise, or None to send."""

    def __init__(self, script: Iterable[BaseException | None] = (), **options: Any) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM, **options)
        self.script = list(script)
        self.sent: list[bytes] = []

    def _next(self, data: Any) -> int:
        outcome = self.script.pop(0) if self.script else None
        try:
            if outcome is not None:
                raise outcome
        finally:
            # The exception refers to this frame.
            del outcome
        self.sent.append(bytes(data))
        return len(data)

    def send(self, data: Any, *_: Any) -> int:
        return self._next(data)

    def sendto(self, data: Any, *_: Any) -> int:
        return self._next(data)


def later() -> BlockingIOError:
    """What a socket says that has no room."""
    return BlockingIOError(errno.EAGAIN, "later")
