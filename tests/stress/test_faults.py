"""Peers that misbehave at random: they reset, stall, end one direction, send in crumbs, vanish."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from peers import KINDS, Run, connected_client, listener, pass_turns, reset, stream_pair
from recorders import PATIENCE, STREAM_RECORDERS, BufferedRecorder, Recorder

pytestmark = pytest.mark.slow

Stream = type[Recorder | BufferedRecorder]
Reports = list[dict[str, Any]]


class Ledger:
    """What a peer sent and received on one connection, to be compared with the transport's."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.received = bytearray()
        self.was_reset = False


async def misbehave(sock: socket.socket, chance: random.Random, ledger: Ledger) -> None:
    """Do some twenty things that a peer can do, and end somehow."""
    loop = asyncio.get_running_loop()
    writable = True
    with contextlib.suppress(ConnectionError):
        for _ in range(chance.randrange(1, 20)):
            match chance.choice(["send", "crumbs", "read", "stall", "half-close"]):
                case "send" if writable:
                    data = chance.randbytes(chance.randrange(1, 50_000))
                    with contextlib.suppress(BlockingIOError):
                        ledger.sent += data[: sock.send(data)]
                case "crumbs" if writable:
                    for byte in b"crumbs":
                        with contextlib.suppress(BlockingIOError):
                            ledger.sent += bytes([byte])[: sock.send(bytes([byte]))]
                        await asyncio.sleep(0)
                case "read":
                    with contextlib.suppress(BlockingIOError):
                        ledger.received += sock.recv(chance.randrange(1, 100_000))
                case "stall":
                    await pass_turns(chance.randrange(10))
                case "half-close" if chance.random() < 0.2:
                    writable = False
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_WR)
        match chance.choice(["close", "reset", "drain"]):
            case "close":
                # With data unread the kernel turns this into a reset.
                ledger.was_reset = True
                sock.close()
            case "reset":
                ledger.was_reset = True
                reset(sock)
            case "drain":
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(PATIENCE):
                    while data := await loop.sock_recv(sock, 1 << 16):
                        ledger.received += data
    sock.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", STREAM_RECORDERS)
@pytest.mark.parametrize("seed", range(4))
def test_transports_survive_their_peers(
    run: Run, kind: str, stream: Stream, seed: int, reports: Reports
) -> None:
    """Each connection ends once; what it got is how the peer's stream begins, and the reverse."""
    chance = random.Random(seed)

    async def one(number: int) -> None:
        loop = asyncio.get_running_loop()
        written = bytearray()
        ledger = Ledger()

        def answer(*_: Any) -> None:
            transport = protocol.transport
            if chance.random() < 0.3:
                data = chance.randbytes(chance.randrange(1, 100_000))
                written.extend(data)
                transport.write(data)
            if chance.random() < 0.1:
                transport.pause_reading()
                loop.call_soon(transport.resume_reading)
            if chance.random() < 0.02:
                transport.abort()
            if chance.random() < 0.02:
                transport.close()

        protocol = stream(
            data_received=answer,
            buffer_updated=answer,
            eof_received=lambda: chance.random() < 0.3 and loop.call_soon(protocol.transport.close),
        )
        ours, theirs = stream_pair(kind, small=bool(number % 2))
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        await misbehave(theirs, chance, ledger)
        transport.resume_reading()
        exc = await protocol.lost()
        assert exc is None or isinstance(exc, (ConnectionError, OSError))
        assert protocol.calls.count("connection_made") == 1
        assert protocol.calls.count("connection_lost") == 1
        assert protocol.calls[-1] == "connection_lost"
        assert protocol.calls.count("eof_received") <= 1
        assert bytes(ledger.sent).startswith(bytes(protocol.data))
        assert bytes(written).startswith(bytes(ledger.received))
        pauses = [name for name in protocol.calls if name.endswith("_writing")]
        assert pauses == ["pause_writing", "resume_writing"] * (len(pauses) // 2) + (
            ["pause_writing"] * (len(pauses) % 2)
        )

    async def main() -> None:
        for _ in range(4):
            await asyncio.gather(*(one(number) for number in range(25)))

    run(main())
    assert not reports


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_server_survives_its_clients(
    run: Run, kind: str, seed: int, tmp_path: Path, reports: Reports
) -> None:
    chance = random.Random(seed)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(10_000):
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if kind == "unix":
            server = await asyncio.start_unix_server(handle, str(tmp_path / "socket"), backlog=500)
        else:
            server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=500)
        where = server.sockets[0].getsockname()

        async def client() -> None:
            ledger = Ledger()
            await misbehave(connected_client(where), chance, ledger)
            assert bytes(ledger.sent).startswith(bytes(ledger.received))

        async with server:
            for _ in range(5):
                await asyncio.gather(*(client() for _ in range(40)))
            # Whatever they did, a well-behaved client is served.
            with connected_client(where) as good:
                await loop.sock_sendall(good, b"still there?")
                async with asyncio.timeout(PATIENCE):
                    assert await loop.sock_recv(good, 100) == b"still there?"
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

    run(main())
    assert not reports


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_accepts_and_vanishes(run: Run, seed: int, reports: Reports) -> None:
    """Clients connect, write and wait; the other end closes, resets or goes away at any moment."""
    chance = random.Random(seed)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(30):
            listening = listener(backlog=50)
            where = listening.getsockname()
            tasks = [loop.create_task(loop.create_connection(Recorder, *where)) for _ in range(20)]
            await pass_turns(chance.randrange(4))
            listening.settimeout(0.001)
            accepted: list[socket.socket] = []
            with contextlib.suppress(OSError):
                accepted.extend(listening.accept()[0] for _ in range(chance.randrange(20)))
            # Connections in the queue of a listener that closes are reset by the kernel.
            listening.close()
            protocols = []
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, tuple):
                    transport, protocol = result
                    protocols.append(protocol)
                    transport.write(b"x" * chance.randrange(200_000))
                else:
                    assert isinstance(result, ConnectionError), result
            for sock in accepted:
                reset(sock) if chance.random() < 0.5 else sock.close()
            async with asyncio.timeout(PATIENCE):
                for protocol in protocols:
                    exc = await protocol.lost()
                    assert exc is None or isinstance(exc, ConnectionError)
                    assert protocol.calls.count("connection_lost") == 1

    run(main())
    assert not reports


@pytest.mark.parametrize("kind", KINDS)
def test_peers_that_never_read(run: Run, kind: str) -> None:
    """They cost memory only up to the limits that the writers keep to, and no time."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        connections = []
        for _ in range(100):
            ours, theirs = stream_pair(kind, small=True)
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            connections.append((transport, protocol, theirs))
            while "pause_writing" not in protocol.calls:
                transport.write(b"x" * 10_000)
        # The stalled ones do not hold up one that is in a hurry.
        ours, theirs = stream_pair(kind)
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        with theirs:
            for number in range(200):
                theirs.sendall(b"ping %03d" % number)
                await protocol.received((number + 1) * 8)
            transport.close()
            await protocol.lost()
        for transport, protocol, theirs in connections:
            transport.close()
            assert not protocol.lost_with
            transport.abort()
            await protocol.lost()
            theirs.close()

    run(main())
