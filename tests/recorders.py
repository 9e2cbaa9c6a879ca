"""Protocols that write down what a transport calls, and let a test wait for a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

PATIENCE = 10
"""Seconds after which a call that a test waits for is taken to be missing."""


class Record:
    """What both kinds of protocol share: the list of calls, what was received, and waiting.

    `on` maps the name of a call to what it does; what it returns, the call returns, and what it
    raises, the call raises. A call is written down before its action runs.
    """

    def __init__(self, **on: Callable[..., Any]) -> None:
        self.calls: list[str] = []
        self.data = bytearray()
        self.lost_with: list[BaseException | None] = []
        self.transport: Any = None
        self.on = on
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def _called(self, name: str, *arguments: Any) -> Any:
        self.calls.append(name)
        try:
            action = self.on.get(name)
            return action(*arguments) if action is not None else None
        finally:
            self._wake()

    def _wake(self) -> None:
        for ready, waiter in self._waiting:
            if not waiter.done() and ready():
                waiter.set_result(None)

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()` holds after a call of the transport."""
        if ready():
            return
        waiter = asyncio.get_running_loop().create_future()
        entry = (ready, waiter)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(PATIENCE):
                await waiter
        except TimeoutError:
            raise AssertionError(f"still waiting after {self.calls[-20:]}") from None
        finally:
            self._waiting.remove(entry)

    async def called(self, name: str, times: int = 1) -> None:
        await self.until(lambda: self.calls.count(name) >= times)

    async def received(self, size: int) -> bytes:
        """Wait for `size` bytes in all, and return what came until then."""
        await self.until(lambda: len(self.data) >= size)
        return bytes(self.data)

    async def lost(self) -> BaseException | None:
        """Wait for the end of the connection; return the exception that it came with."""
        await self.called("connection_lost")
        return self.lost_with[0]

    @property
    def distinct_calls(self) -> list[str]:
        """The calls in their order, runs of one and the same call told once."""
        return [name for i, name in enumerate(self.calls) if i == 0 or self.calls[i - 1] != name]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._called("connection_made", transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost_with.append(exc)
        self._called("connection_lost", exc)

    def pause_writing(self) -> None:
        self._called("pause_writing")

    def resume_writing(self) -> None:
        self._called("resume_writing")

    def eof_received(self) -> Any:
        return self._called("eof_received")


class Recorder(Record, asyncio.Protocol):
    def __init__(self, **on: Callable[..., Any]) -> None:
        super().__init__(**on)
        self.chunks: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)
        self.data += data
        self._called("data_received", data)


class BufferedRecorder(Record, asyncio.BufferedProtocol):
    """Offers one buffer of `size` bytes again and again."""

    def __init__(self, size: int = 64 * 1024, **on: Callable[..., Any]) -> None:
        super().__init__(**on)
        self.buffer = bytearray(size)
        self.hints: list[int] = []
        self.updates: list[int] = []

    def get_buffer(self, sizehint: int) -> Any:
        self.hints.append(sizehint)
        offered = self._called("get_buffer", sizehint)
        # A view: asyncio's TLS reads into slices, and the slice of a bytearray would be a copy.
        return memoryview(self.buffer) if offered is None else offered

    def buffer_updated(self, nbytes: int) -> None:
        self.updates.append(nbytes)
        self.data += memoryview(self.buffer)[:nbytes]
        self._called("buffer_updated", nbytes)


STREAM_RECORDERS: tuple[type[Recorder | BufferedRecorder], ...] = (
    Recorder,
    BufferedRecorder,
)
