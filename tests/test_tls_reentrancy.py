"""Protocols over TLS that do something to their transport, or raise, while it is calling them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from certificates import NAME, client_context, server_context
from peers import Run, pass_turns, stream_pair
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder
from secure import SecurePeer, secured, secured_peer

Stream = type[Recorder | BufferedRecorder]
each_stream = pytest.mark.parametrize("stream", STREAM_RECORDERS)
UPDATED = {Recorder: "data_received", BufferedRecorder: "buffer_updated"}


@each_stream
@pytest.mark.parametrize("end", ["close", "abort"])
def test_an_end_while_data_is_delivered(run: Run, stream: Stream, end: str) -> None:
    async def main() -> None:
        there = stream(**{UPDATED[stream]: lambda _: getattr(there.transport, end)()})
        here = Recorder()
        async with secured(here, there) as (client, _):
            client.write(b"x")
            assert await there.lost() is None
            await here.lost()
            assert there.transport.is_closing()
            assert there.calls.count("connection_lost") == 1

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_an_end_in_connection_made(run: Run, end: str) -> None:
    async def main() -> None:
        here = Recorder(connection_made=lambda transport: getattr(transport, end)())
        there = Recorder()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=server_context())
        async with server:
            where = server.sockets[0].getsockname()
            transport, _ = await loop.create_connection(
                lambda: here, *where, ssl=client_context(), server_hostname=NAME
            )
            assert transport.is_closing()
            assert await here.lost() is None
            assert here.calls[0] == "connection_made"
            await there.lost() if there.calls else await pass_turns()

    run(main())


@each_stream
def test_writing_in_connection_made_and_while_data_is_delivered(run: Run, stream: Stream) -> None:
    async def main() -> None:
        here = stream(connection_made=lambda transport: transport.write(b"hello"))
        there = Recorder(data_received=lambda data: there.transport.write(data.upper()))
        async with secured(here, there):
            assert await here.received(5) == b"HELLO"

    run(main())


def test_another_protocol_while_data_is_delivered(run: Run) -> None:
    async def main() -> None:
        second = BufferedRecorder()
        there = Recorder(data_received=lambda _: there.transport.set_protocol(second))
        here = Recorder()
        async with secured(here, there) as (client, server):
            client.write(b"first")
            await there.received(5)
            assert server.get_protocol() is second
            client.write(b"second")
            assert await second.received(6) == b"second"
            server.set_protocol(there)

    run(main())


@each_stream
def test_pausing_while_data_is_delivered(run: Run, stream: Stream) -> None:
    async def main() -> None:
        there = stream(**{UPDATED[stream]: lambda _: there.transport.pause_reading()})
        here = Recorder()
        async with secured(here, there) as (client, server):
            client.write(b"1")
            assert await there.received(1) == b"1"
            client.write(b"2")
            await pass_turns(30)
            assert there.data == b"1"
            there.on.clear()
            server.resume_reading()
            assert await there.received(2) == b"12"

    run(main())


@each_stream
def test_what_a_protocol_raises_ends_the_connection(
    run: Run, stream: Stream, reports: list[dict[str, Any]]
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("mine")

    async def main() -> None:
        there = stream(**{UPDATED[stream]: fail})
        here = Recorder()
        async with secured(here, there) as (client, _):
            client.write(b"x")
            assert isinstance(await there.lost(), ZeroDivisionError)
            await here.lost()

    run(main())
    assert [report["message"] for report in reports] == ["Fatal error on SSL protocol"]
    assert isinstance(reports[0]["exception"], ZeroDivisionError)


def test_get_buffer_raises(run: Run, reports: list[dict[str, Any]]) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("mine")

    async def main() -> None:
        there, here = BufferedRecorder(get_buffer=fail), Recorder()
        # The server reads once when the handshake is done, before it has data.
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=server_context())
        async with server:
            where = server.sockets[0].getsockname()
            client, _ = await loop.create_connection(
                lambda: here, *where, ssl=client_context(), server_hostname=NAME
            )
            client.write(b"x")
            assert isinstance(await there.lost(), ZeroDivisionError)
            await here.lost()

    run(main())
    assert [report["message"] for report in reports] == ["Fatal error on SSL protocol"]


@pytest.mark.backends("weft")
def test_an_empty_buffer_is_an_error(run: Run, reports: list[dict[str, Any]]) -> None:
    """asyncio takes it for the end of the stream, and so loses data."""

    async def main() -> None:
        there = BufferedRecorder(get_buffer=lambda _: bytearray())
        here = Recorder()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: there, "127.0.0.1", 0, ssl=server_context())
        async with server:
            where = server.sockets[0].getsockname()
            client, _ = await loop.create_connection(
                lambda: here, *where, ssl=client_context(), server_hostname=NAME
            )
            client.write(b"x")
            assert isinstance(await there.lost(), RuntimeError)
            await here.lost()

    run(main())
    assert [report["message"] for report in reports] == ["Fatal error on SSL protocol"]


def test_connection_made_raises(run: Run, reports: list[dict[str, Any]]) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("mine")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair()
        here = Recorder(connection_made=fail)
        with theirs:
            peer = SecurePeer(theirs)
            connecting = loop.create_task(
                loop.create_connection(
                    lambda: here, sock=ours, ssl=client_context(), server_hostname=NAME
                )
            )
            with contextlib.suppress(EOFError, ConnectionResetError):
                await peer.handshake()
            with pytest.raises(ZeroDivisionError):
                await connecting
            assert isinstance(await here.lost(), ZeroDivisionError)

    run(main())
    assert [report["message"] for report in reports] == [
        "Fatal error: protocol.buffer_updated() call failed."
    ]


def test_eof_received_raises(run: Run, reports: list[dict[str, Any]]) -> None:
    def fail() -> None:
        raise ZeroDivisionError("mine")

    async def main() -> None:
        there, here = Recorder(eof_received=fail), Recorder()
        async with secured(here, there) as (client, _):
            client.close()
            assert isinstance(await there.lost(), ZeroDivisionError)
            await here.lost()

    run(main())
    assert [report["message"] for report in reports] == ["Error calling eof_received()"]


def test_keeping_it_open_after_the_end_has_no_effect(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        there, here = Recorder(eof_received=lambda: True), Recorder()
        async with secured(here, there) as (client, _):
            client.close()
            assert await there.lost() is None
            await here.lost()

    run(main())
    assert "has no effect when using ssl" in caplog.text


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def test_flow_control_that_raises_is_reported(
    run: Run, name: str, reports: list[dict[str, Any]]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("mine")

    async def main() -> None:
        here = Recorder(**{name: fail})
        async with secured_peer(here, small=True) as (client, peer):
            size = 0
            while "pause_writing" not in here.calls:
                client.write(bytes(1 << 18))
                size += 1 << 18
                await pass_turns()
            assert await peer.read(size) == bytes(size)
            await here.called("resume_writing")

    run(main())
    assert [report["message"] for report in reports] == [f"protocol.{name}() failed"]


def test_closing_twice_and_using_it_afterwards(run: Run) -> None:
    async def main() -> None:
        here, there = Recorder(), Recorder()
        async with secured(here, there) as (client, _):
            client.close()
            client.write(b"too late")
            assert await here.lost() is None
            await there.lost()
            assert client.is_closing()
            assert client.get_extra_info("nothing", 5) == 5
            client.abort()
            client.resume_reading()
            for _ in range(3):
                client.write(b"too late")
            await pass_turns()
            assert there.data == b""
            assert here.calls.count("connection_lost") == 1

    run(main())
