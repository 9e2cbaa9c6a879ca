"""Peers that reset, stall, end or talk nonsense at each stage of a TLS handshake, on either side
of it.

The stages are counted in what the peer takes part in: before it has said anything, after its
first flight, after the handshake but before any data.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from typing import Any

import pytest
from certificates import NAME, client_context, server_context
from peers import Run, reset, stream_pair
from recorders import PATIENCE, Recorder
from tls_peer import TLSPeer

STAGES = ("silent", "first flight", "made")
HOWS = ("reset", "close", "half-close", "stall", "garbage", "half a record")
SIDES = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])


class Stage(Exception):
    """The peer has come to the stage at which it stops playing by the rules."""


async def up_to(peer: TLSPeer, stage: str) -> None:
    """Take part in the handshake up to there."""
    flights = 0
    flush = peer.flush

    async def counted() -> None:
        nonlocal flights
        pending = peer.outgoing.pending
        await flush()
        flights += bool(pending)
        if stage == "first flight" and flights == 1:
            raise Stage

    peer.flush = counted  # type: ignore[method-assign]
    if stage != "silent":
        with contextlib.suppress(Stage):
            await peer.handshake()
    peer.flush = flush  # type: ignore[method-assign]


async def misbehave(peer: TLSPeer, how: str) -> None:
    loop = asyncio.get_running_loop()
    match how:
        case "reset":
            reset(peer.sock)
        case "close":
            peer.sock.close()
        case "half-close":
            peer.sock.shutdown(1)
        case "garbage":
            await loop.sock_sendall(peer.sock, b"GET / HTTP/1.0\r\n\r\n" + bytes(100))
        case "half a record":
            await loop.sock_sendall(peer.sock, b"\x16\x03\x03\x40\x00" + bytes(100))
            peer.sock.shutdown(1)


def connecting(server_side: bool, protocol: Any, sock: Any, timeout: float) -> Any:
    loop = asyncio.get_running_loop()
    if server_side:
        return loop.connect_accepted_socket(
            lambda: protocol, sock, ssl=server_context(), ssl_handshake_timeout=timeout
        )
    return loop.create_connection(
        lambda: protocol,
        sock=sock,
        ssl=client_context(),
        server_hostname=NAME,
        ssl_handshake_timeout=timeout,
    )


@SIDES
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", HOWS)
def test_each_stage(
    run: Run, server_side: bool, stage: str, how: str, reports: list[dict[str, Any]]
) -> None:
    """The connection is refused, or ends, once, and the socket is closed."""

    async def main() -> None:
        protocol = Recorder()
        ours, theirs = stream_pair()
        peer = TLSPeer(theirs, server_side=not server_side)
        # A peer that stalls is given up after this time.
        timeout = 0.05 if how == "stall" and stage != "made" else PATIENCE
        made = asyncio.ensure_future(connecting(server_side, protocol, ours, timeout))
        async with asyncio.timeout(PATIENCE):
            await up_to(peer, stage)
            if stage == "made":
                await made
            await misbehave(peer, how)
            if stage == "made":
                if how == "stall":
                    protocol.transport.abort()
                await protocol.lost()
            elif server_side or stage == "silent":
                with pytest.raises(OSError):  # noqa: PT011
                    await made
            else:
                # The server's one flight is all that a client of TLS 1.3 needs.
                with contextlib.suppress(OSError):
                    await made
        if protocol.calls and not protocol.lost_with:
            protocol.transport.abort()
            await protocol.lost()
        theirs.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert ours.fileno() == -1
        assert protocol.calls.count("connection_made") == protocol.calls.count("connection_lost")
        assert not protocol.data

    run(main())
    # What breaks TLS may be told to the loop; a mistake of ours would be something else.
    assert all(isinstance(report.get("exception"), OSError) for report in reports)


@pytest.mark.parametrize("how", ["reset", "close", "garbage"])
def test_a_server_goes_on(run: Run, how: str, reports: list[dict[str, Any]]) -> None:
    """Fifty that break off, and the next one is served."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        served: list[Recorder] = []

        def factory() -> Recorder:
            served.append(Recorder())
            return served[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context())
        async with server:
            where = server.sockets[0].getsockname()
            for number in range(50):
                _, writer = await asyncio.open_connection(*where)
                sock = writer.get_extra_info("socket")
                if how == "garbage":
                    # Never what could pass for a record.
                    writer.write(b"GET /" + os.urandom(100 + number))
                    await writer.drain()
                if how == "reset":
                    sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
                    writer.transport.abort()
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            transport, protocol = await loop.create_connection(
                Recorder, *where, ssl=client_context(), server_hostname=NAME
            )
            transport.write(b"still there?")
            while not (made := [each for each in served if each.calls]):
                await asyncio.sleep(0)
            (good,) = made
            await good.received(12)
            good.transport.write(b"yes")
            assert await protocol.received(3) == b"yes"
            transport.close()
            await protocol.lost()
            await good.lost()
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)
        assert sum(bool(each.calls) for each in served) == 1

    run(main())
    assert all(isinstance(report.get("exception"), (OSError, ssl.SSLError)) for report in reports)
