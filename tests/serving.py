"""A server under test whose protocols are recorders."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from recorders import PATIENCE, BufferedRecorder, Recorder


class Made:
    """A factory of recorders that keeps what it made, and lets a test wait for the next one."""

    def __init__(self, stream: type[Recorder | BufferedRecorder] = Recorder) -> None:
        self.stream = stream
        self.protocols: list[Any] = []

    def __call__(self) -> Any:
        protocol = self.stream()
        self.protocols.append(protocol)
        return protocol

    async def protocol(self, number: int = 0) -> Any:
        async with asyncio.timeout(PATIENCE):
            while len(self.protocols) <= number:
                await asyncio.sleep(0)
        await self.protocols[number].called("connection_made")
        return self.protocols[number]


@contextlib.asynccontextmanager
async def serving(made: Made, **options: Any) -> AsyncIterator[asyncio.Server]:
    """A server on the loopback; it and its connections are gone at the end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(made, "127.0.0.1", 0, **options)
    try:
        yield server
    finally:
        server.close()
        for protocol in made.protocols:
            if not protocol.lost_with:
                await protocol.called("connection_made")
                protocol.transport.abort()
                await protocol.lost()
        await server.wait_closed()


def address(server: asyncio.Server) -> Any:
    return server.sockets[0].getsockname()
