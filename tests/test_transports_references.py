"""What a transport holds on to, and until when: counted, reference by reference."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from typing import Any

import pytest
from peers import FILLS_UP, KINDS, Run, connected_client, pass_turns, read_exactly, reset, wired
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder
from serving import Made, address, serving

Stream = type[Recorder | BufferedRecorder]
pytestmark = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("method", ["write", "writelines"])
@pytest.mark.parametrize("end", ["sent", "abort", "reset"])
def test_data_is_let_go_once_it_is_sent_or_dropped(
    run: Run, kind: str, method: str, end: str
) -> None:
    async def main() -> None:
        protocol = Recorder(eof_received=lambda: True)
        async with wired(protocol, kind, small=True) as (transport, peer):
            data = b"x" * FILLS_UP
            mutable = bytearray(data)
            before = sys.getrefcount(data)
            for _ in range(3):
                if method == "write":
                    transport.write(data)
                    transport.write(mutable)
                else:
                    transport.writelines([data, mutable])
            if end == "sent":
                await read_exactly(peer, 6 * FILLS_UP)
                await pass_turns()
            else:
                transport.abort() if end == "abort" else reset(peer)
                await protocol.lost()
            assert sys.getrefcount(data) == before
            mutable.clear()

    run(main())


@pytest.mark.parametrize("stream", STREAM_RECORDERS)
@pytest.mark.parametrize("end", ["close", "abort", "peer", "reset", "error"])
def test_a_protocol_is_let_go_at_the_end(
    run: Run, kind: str, stream: Stream, end: str, reports: list[dict[str, Any]]
) -> None:
    """Counted, without a garbage collection: nothing of a transport stays in a cycle by itself."""

    async def main() -> None:
        def fail(*_: Any) -> None:
            raise ZeroDivisionError("mine")

        failing = {"data_received": fail, "buffer_updated": fail} if end == "error" else {}
        protocol = stream(**failing)
        before = sys.getrefcount(protocol)
        async with wired(protocol, kind) as (transport, peer):
            if end == "peer":
                peer.close()
            elif end == "reset":
                transport.write(b"unread")
                reset(peer)
            elif end == "error":
                peer.sendall(b"x")
            else:
                getattr(transport, end)()
            await protocol.lost()
            reference = weakref.ref(transport)
            transport = protocol.transport = None
        reports.clear()
        protocol.lost_with.clear()
        await pass_turns()
        gc.collect()
        assert sys.getrefcount(protocol) == before
        assert reference() is None

    run(main())


def test_the_exception_of_an_end_is_let_go(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder(eof_received=lambda: True)
        async with wired(protocol, kind) as (transport, peer):
            transport.write(b"unread")
            reset(peer)
            exc = await protocol.lost()
            protocol.lost_with.clear()
            await pass_turns()
            # Held by this frame and by the call that asks.
            assert sys.getrefcount(exc) <= 3
            protocol.lost_with.append(None)

    run(main())


def test_a_context_is_let_go(run: Run, kind: str) -> None:
    async def main() -> None:
        class Value:
            pass

        async def use() -> weakref.ref[Any]:
            variable: contextvars.ContextVar[Value] = contextvars.ContextVar("variable")
            value = Value()
            variable.set(value)
            protocol = Recorder()
            async with wired(protocol, kind) as (transport, peer):
                peer.sendall(b"x")
                await protocol.received(1)
                transport.close()
                await protocol.lost()
            return weakref.ref(value)

        reference = await asyncio.get_running_loop().create_task(use())
        # Cancelled timers keep their context until they are swept out, the loop its last one until
        # it sleeps.
        await pass_turns(20)
        await asyncio.sleep(0.001)
        gc.collect()
        assert reference() is None

    run(main())


def test_cycles_through_a_transport_are_found(run: Run, kind: str) -> None:
    """A program may hang anything on a protocol, the transport's own methods too."""

    async def main() -> None:
        async def use() -> weakref.ref[Any]:
            protocol = Recorder()
            async with wired(protocol, kind) as (transport, _):
                protocol.extra = [transport, transport.write, transport.get_protocol]  # type: ignore[attr-defined]
                transport.owner = protocol
                transport.itself = transport
                transport.close()
                await protocol.lost()
            return weakref.ref(protocol)

        reference = await use()
        await pass_turns()
        gc.collect()
        assert reference() is None

    run(main())


def test_a_server_is_let_go(run: Run, kind: str) -> None:
    if kind == "unix":
        pytest.skip("the same server")

    async def main() -> None:
        async def use() -> list[weakref.ref[Any]]:
            made = Made()
            async with serving(made) as server:
                with connected_client(address(server)):
                    protocol = await made.protocol()
                    protocol.transport.close()
                    await protocol.lost()
            return [weakref.ref(server), weakref.ref(protocol), weakref.ref(made)]

        references = await use()
        await pass_turns(5)
        gc.collect()
        assert [reference() for reference in references] == [None] * 3

    run(main())
