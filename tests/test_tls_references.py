"""What a TLS transport holds on to, and until when: counted, reference by reference."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import ssl
import sys
import weakref
from typing import Any

import pytest
from backends import PY315
from certificates import NAME, client_context, server_context
from peers import Run, pass_turns, stream_pair
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder
from secure import SecurePeer, secured_peer

Stream = type[Recorder | BufferedRecorder]
each_stream = pytest.mark.parametrize("stream", STREAM_RECORDERS)


@pytest.mark.backends("weft")
@each_stream
@pytest.mark.parametrize("end", ["close", "abort", "peer", "error"])
def test_everything_is_let_go_at_the_end(run: Run, stream: Stream, end: str, reports: Any) -> None:
    """Counted, without a garbage collection: no cycle outlives the connection.

    asyncio's own keeps its protocol in one.
    """

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("mine")

    async def main() -> list[weakref.ref[Any]]:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            here, context, peer = stream(), client_context(), SecurePeer(theirs)
            factory = [here].pop
            (transport, _), _ = await asyncio.gather(
                loop.create_connection(factory, sock=ours, ssl=context, server_hostname=NAME),
                peer.handshake(),
            )
            held = [here, transport, context, transport.get_extra_info("ssl_object")]
            references = [weakref.ref(thing) for thing in held]
            del held, context
            await peer.write(b"data")
            await here.received(4)
            if end == "peer":
                await loop.sock_sendall(theirs, peer.close_notify())
            elif end == "error":
                here.on.update(data_received=fail, buffer_updated=fail)
                await peer.write(b"more")
            else:
                getattr(transport, end)()
                if end == "close":
                    await peer.ended()
                    await loop.sock_sendall(theirs, peer.close_notify())
            await here.lost()
            # What was raised refers to the frames that raised it.
            here.lost_with.clear()
            reports.clear()
            here.transport = None
            del transport, here, peer
            await pass_turns()
            return references

    gc.collect()
    gc.disable()
    try:
        references = run(main())
    finally:
        gc.enable()
    assert [reference() for reference in references] == [None] * 4


def test_data_is_let_go_once_it_is_encrypted(run: Run) -> None:
    async def main() -> None:
        here = Recorder()
        async with secured_peer(here, small=True) as (client, peer):
            data = b"x" * (1 << 18)
            mutable = bytearray(data)
            before = sys.getrefcount(data)
            client.write(data)
            client.write(mutable)
            client.write(memoryview(data))
            client.writelines([data, mutable])
            assert sys.getrefcount(data) == before
            mutable[:] = b""
            assert await peer.read(5 << 18) == data * 5

    run(main())


def test_an_unclosed_transport_warns(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            peer = SecurePeer(theirs)
            (transport, _), _ = await asyncio.gather(
                loop.create_connection(
                    asyncio.Protocol, sock=ours, ssl=client_context(), server_hostname=NAME
                ),
                peer.handshake(),
            )
            # Nothing is read any more, so the loop holds it no longer.
            transport.get_extra_info("socket")
            lower = transport._ssl_protocol._transport
            lower.pause_reading()
            del transport, lower
            await pass_turns()
            with pytest.warns(ResourceWarning, match="unclosed") as warned:
                gc.collect()
            assert any("unclosed transport <" in str(warning.message) for warning in warned)
            assert ours.fileno() == -1

    run(main())


def test_callbacks_run_in_the_context_of_who_has_asked_for_tls(run: Run) -> None:
    """From 3.15 on the connection keeps the context in which it was made."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    seen: dict[str, str] = {}

    def see(name: str) -> Any:
        return lambda *_: seen.update({name: variable.get()})

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        with theirs:
            here = Recorder(
                **{name: see(name) for name in ("data_received", "eof_received", "connection_lost")}
            )
            variable.set("plain")
            plain, _ = await loop.create_connection(lambda: here, sock=ours)
            variable.set("secure")
            peer = SecurePeer(theirs)
            transport, _ = await asyncio.gather(
                loop.start_tls(plain, here, client_context(), server_hostname=NAME),
                peer.handshake(),
            )
            variable.set("later")
            await peer.write(b"data")
            await here.received(4)
            await loop.sock_sendall(theirs, peer.close_notify())
            await here.lost()
            assert transport.is_closing()
        assert seen["data_received"] == seen["eof_received"] == ("plain" if PY315 else "secure")

    run(main())


def test_the_context_made_for_a_server_is_not_kept_by_its_connections(run: Run) -> None:
    async def main() -> weakref.ref[Any]:
        loop = asyncio.get_running_loop()
        here, there, context = Recorder(), Recorder(), server_context()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=context)
        async with server:
            transport, _ = await loop.create_connection(
                lambda: here,
                *server.sockets[0].getsockname(),
                ssl=client_context(),
                server_hostname=NAME,
            )
            await there.called("connection_made")
            transport.close()
            await here.lost()
            await there.lost()
        return weakref.ref(context)

    reference = run(main())
    gc.collect()
    assert reference() is None


@pytest.mark.backends("weft")
def test_a_handshake_that_fails_leaves_no_cycle(run: Run) -> None:
    async def main() -> list[weakref.ref[Any]]:
        loop = asyncio.get_running_loop()
        there = Recorder()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=server_context())
        async with server:
            where = server.sockets[0].getsockname()
            distrustful = ssl.create_default_context()
            here = Recorder()
            factory = [here].pop
            references = [weakref.ref(distrustful), weakref.ref(here)]
            del here
            try:
                await loop.create_connection(factory, *where, ssl=distrustful, server_hostname=NAME)
            except ssl.SSLCertVerificationError:
                del distrustful
            await pass_turns(5)
        return references

    gc.collect()
    gc.disable()
    try:
        references = run(main())
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()
