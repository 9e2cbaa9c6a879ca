"""TLS connections for tests: between two recorders, and from a transport to a bare peer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from certificates import NAME, client_context, server_context
from peers import stream_pair
from recorders import PATIENCE


@contextlib.asynccontextmanager
async def secured(
    here: Any, there: Any, kind: str = "tcp", tmp_path: Path | None = None, **server_options: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """A TLS connection between two recorders: the client's transport and the server's."""
    loop = asyncio.get_running_loop()
    context = server_options.pop("ssl", None) or server_context()
    if kind == "unix":
        path = str(tmp_path / "socket")  # type: ignore[operator]
        server = await loop.create_unix_server(lambda: there, path, ssl=context, **server_options)
        connecting: Any = loop.create_unix_connection(
            lambda: here, path, ssl=client_context(), server_hostname=NAME
        )
    else:
        server = await loop.create_server(
            lambda: there, "127.0.0.1", 0, ssl=context, **server_options
        )
        connecting = loop.create_connection(
            lambda: here,
            *server.sockets[0].getsockname(),
            ssl=client_context(),
            server_hostname=NAME,
        )
    async with server:
        transport, _ = await connecting
        await there.called("connection_made")
        try:
            yield transport, there.transport
        finally:
            for protocol in (here, there):
                if not protocol.lost_with:
                    protocol.transport.abort()
                await protocol.lost()
    await server.wait_closed()


class SecurePeer:
    """The server's end of a TLS connection over a bare socket, driven step by step by a test."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or server_context()).wrap_bio(
            self.incoming, self.outgoing, server_side=True
        )

    async def flush(self) -> None:
        if self.outgoing.pending:
            await asyncio.get_running_loop().sock_sendall(self.sock, self.outgoing.read())

    async def _drive(self, step: Any, *arguments: Any) -> Any:
        while True:
            try:
                result = step(*arguments)
            except ssl.SSLWantReadError:
                await self.flush()
                async with asyncio.timeout(PATIENCE):
                    data = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
                if not data:
                    raise EOFError from None
                self.incoming.write(data)
            else:
                await self.flush()
                return result

    async def handshake(self) -> None:
        await self._drive(self.tls.do_handshake)

    async def write(self, data: bytes) -> None:
        await self._drive(self.tls.write, data)

    async def read(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        data = b""
        while len(data) < size:
            piece = await self._drive(self.tls.read, size - len(data))
            assert piece, f"the peer has closed after {len(data)} of {size} bytes"
            data += piece
        return data

    async def ended(self) -> None:
        """Wait for the close_notify of the other side."""
        assert await self._drive(self.tls.read, 1) == b""

    def encrypt(self, data: bytes) -> bytes:
        """What would go over the wire for `data`."""
        self.tls.write(data)
        return self.outgoing.read()

    def close_notify(self) -> bytes:
        """What would go over the wire for the goodbye."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()


@contextlib.asynccontextmanager
async def secured_peer(
    protocol: Any, context: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[tuple[Any, SecurePeer]]:
    """A client's transport for `protocol`, a recorder, and the bare peer that it speaks to."""
    loop = asyncio.get_running_loop()
    ours, theirs = stream_pair(small=options.pop("small", False))
    with theirs:
        peer = SecurePeer(theirs, context)
        (transport, _), _ = await asyncio.gather(
            loop.create_connection(
                lambda: protocol,
                sock=ours,
                ssl=options.pop("ssl", None) or client_context(),
                server_hostname=NAME,
                **options,
            ),
            peer.handshake(),
        )
        try:
            yield transport, peer
        finally:
            if not protocol.lost_with:
                transport.abort()
                await protocol.lost()
