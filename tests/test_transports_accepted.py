"""Accepted connections, of which Weft makes a Python socket only when somebody asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import children
import pytest
from peers import KINDS, Run, connected_client, pass_turns, read_exactly, reset
from recorders import Recorder

pytestmark = pytest.mark.parametrize("kind", [*KINDS, "tcp6"])


@contextlib.asynccontextmanager
async def accepted(
    kind: str, path: Any, protocol: Recorder | None = None
) -> AsyncIterator[tuple[Recorder, socket.socket]]:
    """An accepted connection, and the client's end of it."""
    loop = asyncio.get_running_loop()
    recorder = protocol or Recorder()
    if kind == "unix":
        server: asyncio.Server = await loop.create_unix_server(lambda: recorder, str(path / "s"))
    else:
        host = "::1" if kind == "tcp6" else "127.0.0.1"
        server = await loop.create_server(lambda: recorder, host, 0)
    with connected_client(server.sockets[0].getsockname()) as client:
        await recorder.called("connection_made")
        try:
            yield recorder, client
        finally:
            recorder.transport.abort()
            server.close()
            await server.wait_closed()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def check_socket(sock: Any, client: socket.socket) -> None:
    assert isinstance(sock, asyncio.trsock.TransportSocket)
    assert (sock.family, sock.type) == (client.family, socket.SOCK_STREAM)
    assert sock.gettimeout() == 0
    assert sock.getpeername() == client.getsockname()
    assert sock.getsockname() == client.getpeername()
    assert not os.get_inheritable(sock.fileno())
    assert not os.get_blocking(sock.fileno())


@pytest.mark.parametrize("when", ["connection_made", "later", "with data unsent"])
def test_asking_for_the_socket(run: Run, kind: str, tmp_path: Any, when: str) -> None:
    """It is one socket, however often it is asked for, and the connection goes on."""
    seen: list[Any] = []

    def made(transport: Any) -> None:
        if when == "connection_made":
            seen.append(transport.get_extra_info("socket"))

    async def main() -> None:
        protocol = Recorder(connection_made=made)
        async with accepted(kind, tmp_path, protocol) as (recorder, client):
            transport = recorder.transport
            if when == "with data unsent":
                transport.write(b"x" * 4_000_000)
            before = descriptors()
            seen.append(transport.get_extra_info("socket"))
            check_socket(seen[-1], client)
            assert transport.get_extra_info("socket") is seen[0]
            assert transport._sock.fileno() == seen[0].fileno()
            assert descriptors() == before
            if when == "with data unsent":
                assert len(await read_exactly(client, 4_000_000)) == 4_000_000
            client.sendall(b"there")
            await recorder.received(5)
            transport.write(b"back")
            assert await read_exactly(client, 4) == b"back"
            transport.close()
            await recorder.lost()
            assert seen[0].fileno() == -1
            assert transport.get_extra_info("socket") is seen[0]

    run(main())


def test_all_that_is_known(run: Run, kind: str, tmp_path: Any) -> None:
    """Libraries read `_extra`, and some add to it."""

    async def main() -> None:
        async with accepted(kind, tmp_path) as (recorder, client):
            transport = recorder.transport
            known = transport._extra  # type: ignore[attr-defined]
            assert set(known) == {"peername", "sockname", "socket"}
            check_socket(known["socket"], client)
            known["request"] = 7
            assert transport.get_extra_info("request") == 7
            transport._extra = {"only": 1}  # type: ignore[attr-defined]
            assert transport.get_extra_info("only") == 1
            assert transport.get_extra_info("peername") is None

    run(main())


def test_asking_after_the_end(run: Run, kind: str, tmp_path: Any) -> None:
    """Nobody has asked before. Servers log addresses then."""

    async def main() -> None:
        async with accepted(kind, tmp_path) as (recorder, client):
            transport = recorder.transport
            ends = client.getpeername(), client.getsockname()
            transport.close()
            await recorder.lost()
            before = descriptors()
            assert transport.get_extra_info("sockname") == ends[0]
            assert transport.get_extra_info("peername") == ends[1]
            sock = transport.get_extra_info("socket")
            assert (sock.fileno(), sock.family, sock.type) == (-1, client.family, client.type)
            assert transport.get_extra_info("socket") is sock
            assert descriptors() == before

    run(main())


def test_asking_in_connection_lost(run: Run, kind: str, tmp_path: Any) -> None:
    """The socket is still open there."""
    seen: list[Any] = []

    def lost(error: Exception | None) -> None:
        transport = recorder.transport
        seen.append(transport.get_extra_info("socket").fileno())
        seen.append(transport.get_extra_info("peername"))

    recorder = Recorder(connection_lost=lost)

    async def main() -> None:
        before = descriptors()
        async with accepted(kind, tmp_path, recorder) as (_, client):
            name = client.getsockname()
            recorder.transport.close()
            await recorder.lost()
            assert seen[0] >= 0
            assert seen[1] == name
        assert descriptors() == before

    run(main())


def test_a_peer_that_has_gone_is_still_known(run: Run, kind: str, tmp_path: Any) -> None:
    """The kernel would not say any more."""
    if kind == "unix":
        pytest.skip("a Unix socket is not reset")

    async def main() -> None:
        async with accepted(kind, tmp_path) as (recorder, client):
            name = client.getsockname()
            recorder.transport.pause_reading()
            reset(client)
            await asyncio.sleep(0.01)
            assert recorder.transport.get_extra_info("peername") == name

    run(main())


def test_the_address_of_a_server_on_all_addresses(run: Run, kind: str) -> None:
    """The connection's own, not the server's."""
    if kind != "tcp":
        pytest.skip("TCP only")

    async def main() -> None:
        recorder = Recorder()
        server = await asyncio.get_running_loop().create_server(lambda: recorder, "0.0.0.0", 0)
        port = server.sockets[0].getsockname()[1]
        with connected_client(("127.0.0.2", port)):
            await recorder.called("connection_made")
            assert recorder.transport.get_extra_info("sockname") == ("127.0.0.2", port)
            recorder.transport.abort()
            await recorder.lost()
        server.close()
        await server.wait_closed()

    run(main())


def test_names_that_are_none(run: Run, kind: str, tmp_path: Any) -> None:
    async def main() -> None:
        async with accepted(kind, tmp_path) as (recorder, _):
            transport = recorder.transport
            default = object()
            for name in ("nonsense", "sslcontext", "", None, 7, b"socket"):
                assert transport.get_extra_info(name, default) is default  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="unhashable"):
                transport.get_extra_info([])  # type: ignore[arg-type]

    run(main())


@pytest.mark.backends("weft")
@pytest.mark.parametrize("asked", [False, True])
def test_left_to_the_garbage_collector(run: Run, kind: str, asked: bool) -> None:
    """It warns and leaks no descriptor, at once: asyncio's is part of a circle."""
    if kind != "tcp":
        pytest.skip("once is enough")
    made = []

    class Careless(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.pause_reading()
            if asked:
                transport.get_extra_info("socket")
            made.append(True)

    async def main() -> None:
        before = descriptors()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Careless, "127.0.0.1", 0)
        with connected_client(server.sockets[0].getsockname()) as client:
            while not made:
                await pass_turns(1)
            await pass_turns(2)
            assert await loop.sock_recv(client, 1) == b""
        server.close()
        await pass_turns(2)
        assert descriptors() == before

    with pytest.warns(ResourceWarning, match="unclosed transport"):
        run(main())


# -- what may happen while the socket is made ------------------------------------------------------

HOOKED = """
import asyncio, os, socket, sys, weft

def hook(event, arguments):
    global act
    if event == "socket.__new__" and act:
        doing, act = act, None
        doing()

act = None

def caught(function, kind):
    try:
        function()
    except kind:
        return True

class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        made.set_result(transport)

async def main():
    global act, made
    loop = asyncio.get_running_loop()
    made = loop.create_future()
    before = len(os.listdir("/proc/self/fd"))
    server = await loop.create_server(Protocol, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        transport = await made
        ask = lambda: transport.get_extra_info("socket")
        act = lambda: DO
        OUTCOME
        transport.abort()
        await asyncio.sleep(0.01)
        assert client.recv(1) == b""
    server.close()
    await server.wait_closed()
    after = len(os.listdir("/proc/self/fd"))
    assert after == before, (before, after)

sys.addaudithook(hook)
weft.run(main())
"""

REENTERED = {
    "asks for it": (
        "transport._sock",
        "assert ask() is ask()",
    ),
    "closes it": (
        "transport._call_connection_lost(None)",
        "assert ask().fileno() == -1",
    ),
    "raises": (
        "1 / 0",
        "failed = caught(ask, ZeroDivisionError); assert failed; assert ask().fileno() >= 0",
    ),
}


@pytest.mark.child
@pytest.mark.backends("weft")
@pytest.mark.parametrize("case", REENTERED)
def test_a_hook_that_meddles(kind: str, case: str) -> None:
    """Programs may hear of every Python socket, and do what they like meanwhile."""
    if kind != "tcp":
        pytest.skip("once is enough")
    doing, outcome = REENTERED[case]
    program = HOOKED.replace("DO", doing).replace("OUTCOME", outcome)
    children.python("-c", program).check()


def test_a_signal_while_the_socket_is_made(kind: str, tmp_path: Any, run: Run) -> None:
    """Its handler may raise as soon as the Python socket has the descriptor, which is lent then."""
    code = socket.socket.__init__.__code__

    def trace(frame: Any, event: str, _: Any) -> Any:
        # Stands for the handler: it is called between any two instructions.
        if frame.f_code is not code:
            return None
        if event == "return":
            raise InterruptedError
        return trace

    async def main() -> None:
        async with accepted(kind, tmp_path) as (recorder, client):
            transport = recorder.transport
            before = descriptors()
            tracing = sys.gettrace()
            sys.settrace(trace)
            with contextlib.suppress(InterruptedError):
                transport.get_extra_info("socket")
            sys.settrace(tracing)
            assert descriptors() == before
            check_socket(transport.get_extra_info("socket"), client)
            transport.write(b"there")
            assert await read_exactly(client, 5) == b"there"

    run(main())
