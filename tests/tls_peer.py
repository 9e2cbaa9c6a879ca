"""The other end of a TLS connection, driven by hand: what goes over the wire passes through the
test.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any

from certificates import NAME, client_context, server_context

Wire = Callable[[bytes], list[bytes]]
"""Makes of what is to be sent the pieces that are sent; none for nothing."""


def as_it_is(data: bytes) -> list[bytes]:
    return [data] if data else []


class TLSPeer:
    """Speaks TLS over a non-blocking socket; `wire` may spoil what it sends."""

    def __init__(self, sock: Any, *, server_side: bool, wire: Wire = as_it_is) -> None:
        self.sock = sock
        self.wire = wire
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = (
            server_context().wrap_bio(self.incoming, self.outgoing, server_side=True)
            if server_side
            else client_context().wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)
        )
        self.received = bytearray()

    async def flush(self) -> None:
        loop = asyncio.get_running_loop()
        for piece in self.wire(self.outgoing.read()):
            await loop.sock_sendall(self.sock, piece)

    async def fill(self) -> bool:
        """Take in what comes next; false at the end of the stream."""
        data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return bool(data)

    async def perform(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Repeat an operation of TLS until it has what it wants."""
        while True:
            try:
                result = operation(*arguments)
            except ssl.SSLWantReadError:
                await self.flush()
                if not await self.fill():
                    raise ConnectionError("the stream ended") from None
            except ssl.SSLError:
                # The alert is for the other end.
                await self.flush()
                raise
            else:
                await self.flush()
                return result

    async def handshake(self) -> None:
        await self.perform(self.tls.do_handshake)

    async def send(self, data: bytes) -> None:
        await self.perform(self.tls.write, data)

    async def read(self) -> bytes:
        """Some plain data; empty at the end."""
        try:
            data = await self.perform(self.tls.read, 1 << 16)
        except ssl.SSLZeroReturnError:
            return b""
        self.received += data
        return data

    async def close(self) -> None:
        with contextlib.suppress(OSError, ConnectionError):
            self.tls.unwrap()
        with contextlib.suppress(OSError):
            await self.flush()
        self.sock.close()
