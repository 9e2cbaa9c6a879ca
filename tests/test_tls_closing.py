"""The ends of a TLS connection: close, abort, the peer's, and time-outs."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from certificates import NAME, client_context, server_context
from peers import KINDS, Run, stream_pair
from recorders import Recorder
from secure import secured

each_kind = pytest.mark.parametrize("kind", KINDS)


def test_close_flushes(run: Run) -> None:
    async def main() -> None:
        here, there = Recorder(), Recorder()
        async with secured(here, there) as (client, _):
            client.write(b"x" * (4 << 20))
            client.close()
            assert await there.lost() is None
            assert len(there.data) == 4 << 20
            assert await here.lost() is None

    run(main())


@each_kind
def test_abort(run: Run, kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        here, there = Recorder(), Recorder()
        async with secured(here, there, kind, tmp_path) as (client, _):
            client.write(b"x" * (4 << 20))
            client.abort()
            assert await here.lost() is None
            await there.lost()
            assert len(there.data) < 4 << 20
            for protocol in (here, there):
                assert protocol.calls.count("connection_lost") == 1

    run(main())


def test_a_close_always_ends(run: Run) -> None:
    """Even where the peer never answers the closing handshake."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            peer = server_context().wrap_bio(incoming, outgoing, server_side=True)
            protocol = Recorder()
            connecting = loop.create_task(
                loop.create_connection(
                    lambda: protocol,
                    sock=ours,
                    ssl=client_context(),
                    server_hostname=NAME,
                    ssl_shutdown_timeout=0.01,
                )
            )
            while True:
                try:
                    peer.do_handshake()
                except ssl.SSLWantReadError:
                    await loop.sock_sendall(theirs, outgoing.read())
                    incoming.write(await loop.sock_recv(theirs, 65_536))
                else:
                    await loop.sock_sendall(theirs, outgoing.read())
                    break
            transport, _ = await connecting
            transport.close()
            exc = await protocol.lost()
            assert exc is None or isinstance(exc, TimeoutError)

    run(main())
