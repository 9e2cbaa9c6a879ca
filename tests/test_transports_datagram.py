"""Datagrams: UDP on both families, connected or not, Unix datagram sockets, errors."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from backends import PY312, PY313, Backend
from datagrams import COUNTS_RIGHT, end, endpoint
from peers import Run, closed_port, has_ipv6, pass_turns
from recorders import PATIENCE


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_question_and_answer(run: Run, backend: Backend, host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 here")

    async def main() -> None:
        server, there = await endpoint(local_addr=(host, 0))
        where = server.get_extra_info("sockname")
        client, here = await endpoint(remote_addr=where[:2])
        if PY312 or backend.is_weft:  # asyncio's own was none before.
            assert isinstance(client, asyncio.DatagramTransport)
        assert client.get_extra_info("peername")[:2] == where[:2]
        assert client.get_extra_info("socket").type == socket.SOCK_DGRAM
        client.sendto(b"question")
        await there.called("datagram_received")
        data, name = there.received_from[0]
        assert data == b"question"
        assert name == client.get_extra_info("sockname")
        server.sendto(b"answer", name)
        await here.called("datagram_received")
        assert here.received_from[0][0] == b"answer"
        assert type(here.received_from[0][0]) is bytes
        await end(here, there)
        assert here.lost_with == there.lost_with == [None]

    run(main())


@pytest.mark.parametrize("type_", [bytes, bytearray, memoryview])
def test_many_datagrams_keep_their_borders(run: Run, type_: Any) -> None:
    async def main() -> None:
        server, there = await endpoint(local_addr=("127.0.0.1", 0))
        client, here = await endpoint(remote_addr=server.get_extra_info("sockname"))
        sent = [bytes([number]) * (number * 37) for number in range(1, 60)]
        for number, data in enumerate(sent):
            client.sendto(type_(data))
            await there.called("datagram_received", number + 1)
        assert [data for data, _ in there.received_from] == sent
        client.sendto(b"x" * 60_000)
        await there.called("datagram_received", len(sent) + 1)
        assert there.received_from[-1][0] == b"x" * 60_000
        await end(here, there)

    run(main())


def test_an_empty_datagram(run: Run) -> None:
    """Sent from 3.13 on; left out before."""

    async def main() -> None:
        server, there = await endpoint(local_addr=("127.0.0.1", 0))
        client, here = await endpoint(remote_addr=server.get_extra_info("sockname"))
        client.sendto(b"")
        client.sendto(b"after")
        await there.until(lambda: b"after" in [data for data, _ in there.received_from])
        assert [data for data, _ in there.received_from] == [b""] * PY313 + [b"after"]
        await end(here, there)

    run(main())


def test_sending_to_where_nobody_is_goes_to_error_received(run: Run) -> None:
    async def main() -> None:
        client, here = await endpoint(remote_addr=("127.0.0.1", closed_port()))
        client.sendto(b"anybody?")
        await here.called("error_received")
        assert isinstance(here.errors[0], ConnectionRefusedError)
        assert not client.is_closing(), "an error does not end it"
        await end(here)

    run(main())


def test_a_datagram_that_is_too_long_goes_to_error_received(run: Run) -> None:
    async def main() -> None:
        server, there = await endpoint(local_addr=("127.0.0.1", 0))
        where = server.get_extra_info("sockname")
        client, here = await endpoint(local_addr=("127.0.0.1", 0))
        client.sendto(b"x" * 100_000, where)
        await here.called("error_received")
        assert isinstance(here.errors[0], OSError)
        client.sendto(b"short", where)
        await there.called("datagram_received")
        assert there.received_from[0][0] == b"short"
        await end(here, there)

    run(main())


def test_wrong_arguments(run: Run) -> None:
    async def main() -> None:
        client, here = await endpoint(remote_addr=("127.0.0.1", 9))
        with pytest.raises(ValueError, match="Invalid address: must be None or"):
            client.sendto(b"x", ("127.0.0.1", 10))
        for wrong in ("text", None, 1):
            with pytest.raises(TypeError):
                client.sendto(wrong)
        await end(here)
        with pytest.raises(ValueError, match="unexpected address family"):
            await endpoint()
        with pytest.raises(TypeError, match="string is expected"):
            await endpoint(local_addr=("127.0.0.1", 0), family=socket.AF_UNIX)
        with (
            socket.socket() as stream,
            pytest.raises(ValueError, match="[Ss]ocket was expected"),  # noqa: RUF043
        ):
            await endpoint(sock=stream)

    run(main())


def test_a_socket_of_the_callers(run: Run) -> None:
    async def main() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        _, there = await endpoint(sock=sock)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.sendto(b"hello", sock.getsockname())
            await there.called("datagram_received")
            assert there.received_from == [(b"hello", peer.getsockname())]
        await end(there)
        assert sock.fileno() == -1

    run(main())


def test_unix_datagram_sockets(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        _, there = await endpoint(local_addr=path, family=socket.AF_UNIX)
        client, here = await endpoint(remote_addr=path, family=socket.AF_UNIX)
        client.sendto(b"hello")
        await there.called("datagram_received")
        assert there.received_from[0][0] == b"hello"
        await end(here, there)

    run(main())


def test_broadcast_and_reuse_port(run: Run) -> None:
    async def main() -> None:
        one, here = await endpoint(
            local_addr=("127.0.0.1", 0), reuse_port=True, allow_broadcast=True
        )
        sock = one.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        two, there = await endpoint(local_addr=sock.getsockname(), reuse_port=True)
        assert two.get_extra_info("sockname") == sock.getsockname()
        await end(here, there)

    run(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_end(run: Run, how: str) -> None:
    async def main() -> None:
        server, there = await endpoint(local_addr=("127.0.0.1", 0))
        getattr(server, how)()
        assert server.is_closing()
        assert not there.lost_with
        await there.lost()
        await pass_turns()
        assert there.calls == ["connection_made", "connection_lost"]
        server.close()
        server.abort()
        await pass_turns()
        assert there.calls.count("connection_lost") == 1

    run(main())


def test_flow_control_of_datagrams(run: Run, backend: Backend, tmp_path: Path) -> None:
    """A Unix datagram socket holds its sender back while nobody reads."""
    if not backend.is_weft and not COUNTS_RIGHT:
        pytest.skip("this asyncio miscounts what is pending, for ever")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(path)
            peer.setblocking(False)
            client, here = await endpoint(remote_addr=path, family=socket.AF_UNIX)
            client.set_write_buffer_limits(high=1000, low=100)
            sent = 0
            while "pause_writing" not in here.calls:
                client.sendto(b"%06d" % sent)
                sent += 1
            assert client.get_write_buffer_size() > 1000
            async with asyncio.timeout(PATIENCE):
                received = [await loop.sock_recv(peer, 100) for _ in range(sent)]
            assert received == [b"%06d" % number for number in range(sent)]
            await here.called("resume_writing")
            client.sendto(b"last")
            client.close()
            assert await here.lost() is None
            assert peer.recv(100) == b"last"

    run(main())


def test_cancelled_at_every_step(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for turns in range(5):
            task = loop.create_task(endpoint(local_addr=("127.0.0.1", 0)))
            await pass_turns(turns)
            task.cancel()
            try:
                _, protocol = await task
            except asyncio.CancelledError:
                await pass_turns()
            else:
                await end(protocol)

    run(main())
