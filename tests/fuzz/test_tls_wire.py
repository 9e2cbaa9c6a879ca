"""TLS over a wire that flips, cuts, splits, swaps, repeats and invents bytes.

Whatever arrives, the connection is made or refused with an error, and ends once; what the
protocol receives is
how the peer's data begins, in their order, and nothing else. A wire that only cuts what it
carries into other pieces changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from typing import Any

import pytest
from backends import Backend
from certificates import NAME, client_context, server_context
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from peers import reset, stream_pair
from recorders import PATIENCE, BufferedRecorder, Recorder
from tls_peer import TLSPeer

pytestmark = [
    pytest.mark.slow,
    # On 3.14 Hypothesis misreads a reference count.
    pytest.mark.filterwarnings("ignore:It looks like `register_random`"),
]

FAULTS = ("flip", "cut", "drop", "repeat", "swap", "garbage", "end", "reset")
FAULT = st.tuples(st.sampled_from(FAULTS), st.integers(0, 5), st.integers(0, 5000))
"""What is done to which record of those that the peer sends, and where in it."""
PIECES = st.sampled_from([1, 2, 5, 100, 1000, 1 << 20])
MESSAGES = st.lists(st.integers(1, 40_000), max_size=4)


class Wire:
    """Carries records in pieces, and does its damage to one of them."""

    def __init__(self, fault: tuple[str, int, int] | None, piece: int) -> None:
        self.fault = fault
        self.piece = piece
        self.sent = 0
        self.held = b""
        self.breaks = ""

    def __call__(self, data: bytes) -> list[bytes]:
        whole = b"".join(self.spoil(record) for record in records(data))
        return [whole[at : at + self.piece] for at in range(0, len(whole), self.piece)]

    def spoil(self, record: bytes) -> bytes:
        if self.fault is None or self.breaks:
            return record if not self.breaks else b""
        what, number, place = self.fault
        self.sent += 1
        if self.held:
            self.held, held = b"", self.held
            return record + held
        if self.sent - 1 != number:
            return record
        place %= len(record)
        match what:
            case "flip":
                changed = record[place] ^ (1 << place % 8)
                return record[:place] + bytes([changed]) + record[place + 1 :]
            case "cut":
                return record[:place]
            case "drop":
                return b""
            case "repeat":
                return record * 2
            case "swap":
                self.held = record
                return b""
            case "garbage":
                return random.Random(place).randbytes(place + 1) + record
            case _:
                self.breaks = what
                return record[:place]


def records(data: bytes) -> list[bytes]:
    """Cut at TLS's records: a header of five bytes, the last two of which tell the length."""
    found = []
    while data:
        end = 5 + int.from_bytes(data[3:5])
        found.append(data[:end])
        data = data[end:]
    return found


async def converse(peer: TLSPeer, messages: list[bytes]) -> None:
    """Shake hands, send the messages, end; go on as far as it goes."""
    wire: Any = peer.wire
    with contextlib.suppress(OSError, ssl.SSLError):
        await peer.handshake()
        for message in messages:
            await peer.send(message)
            if wire.breaks:
                break
        if not wire.breaks:
            await peer.close()
    if wire.breaks == "reset":
        reset(peer.sock)
    peer.sock.close()


async def meet(
    server_side: bool, buffered: bool, wire: Wire, sizes: list[int]
) -> tuple[str, bytes, list[str]]:
    """What becomes of one connection: whether it was made, what it received, how it ended."""
    loop = asyncio.get_running_loop()
    ours, theirs = stream_pair()
    peer = TLSPeer(theirs, server_side=not server_side, wire=wire)
    messages = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    protocol = BufferedRecorder() if buffered else Recorder()
    talking = asyncio.ensure_future(converse(peer, messages))
    how = "made"
    try:
        async with asyncio.timeout(PATIENCE):
            if server_side:
                await loop.connect_accepted_socket(
                    lambda: protocol, ours, ssl=server_context(), ssl_handshake_timeout=0.3
                )
            else:
                await loop.create_connection(
                    lambda: protocol,
                    sock=ours,
                    ssl=client_context(),
                    server_hostname=NAME,
                    ssl_handshake_timeout=0.3,
                )
    except TimeoutError:
        raise AssertionError("neither made nor refused") from None
    except OSError:
        how = "refused"
    if how == "made":
        # A wire that has swallowed something may leave both waiting.
        await asyncio.wait([talking, asyncio.ensure_future(quiet(protocol))], timeout=PATIENCE)
        protocol.transport.abort()
        await protocol.lost()
    else:
        assert ours.fileno() == -1
    talking.cancel()
    await asyncio.wait([talking])
    theirs.close()
    expected = b"".join(messages)
    assert expected.startswith(bytes(protocol.data))
    assert protocol.calls.count("connection_made") == (how == "made")
    assert protocol.calls.count("connection_lost") == protocol.calls.count("connection_made")
    return (
        how,
        bytes(protocol.data),
        [name for name in protocol.distinct_calls if name != "get_buffer"],
    )


async def quiet(protocol: Any) -> None:
    """Until the connection has ended, or nothing has come for some time."""
    calls = -1
    while calls != len(protocol.calls) and not protocol.lost_with:
        calls = len(protocol.calls)
        await asyncio.sleep(0.02)


def collected(backend: Backend, main: Any) -> Any:
    def ignore(_: Any, context: dict[str, Any]) -> None:
        # TLS that breaks is told to the loop; nothing else is.
        assert isinstance(context.get("exception"), OSError), context

    async def run() -> Any:
        asyncio.get_running_loop().set_exception_handler(ignore)
        return await main

    return backend.run(run())


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(server_side=st.booleans(), buffered=st.booleans(), fault=FAULT, piece=PIECES, sizes=MESSAGES)
@example(server_side=False, buffered=False, fault=("flip", 0, 0), piece=1 << 20, sizes=[])
@example(server_side=True, buffered=True, fault=("garbage", 0, 40), piece=1 << 20, sizes=[])
@example(server_side=False, buffered=False, fault=("swap", 4, 0), piece=1 << 20, sizes=[5, 5, 5])
def test_a_bad_wire(
    backend: Backend,
    server_side: bool,
    buffered: bool,
    fault: tuple[str, int, int],
    piece: int,
    sizes: list[int],
) -> None:
    # In crumbs, large messages would take their time.
    wire = Wire(fault, piece if sum(sizes) < 1000 else max(piece, 100))
    collected(backend, meet(server_side, buffered, wire, sizes))


@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(server_side=st.booleans(), buffered=st.booleans(), piece=PIECES, sizes=MESSAGES)
def test_a_wire_that_only_cuts(
    backend: Backend, server_side: bool, buffered: bool, piece: int, sizes: list[int]
) -> None:
    wire = Wire(None, piece if sum(sizes) < 1000 else max(piece, 100))
    how, data, calls = collected(backend, meet(server_side, buffered, wire, sizes))
    assert how == "made"
    assert len(data) == sum(sizes)
    assert calls[-1] == "connection_lost"
