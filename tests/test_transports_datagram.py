"""Datagrams: UDP on both families, connected or not, Unix datagram sockets, errors."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
from backends import PY312, PY313, Backend
from datagrams import COUNTS_RIGHT, Datagrams, end, endpoint
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


# -- what it tells about itself --------------------------------------------------------------------


def test_extra_information(run: Run) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=("127.0.0.1", 0))
        sock = transport.get_extra_info("socket")
        assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_DGRAM)
        assert transport.get_extra_info("sockname") == sock.getsockname()
        assert transport.get_extra_info("peername", "default") is None
        assert transport.get_extra_info("nothing") is None
        assert transport.get_extra_info("nothing", default=1) == 1
        await end(here)
        assert transport.get_extra_info("sockname")[0] == "127.0.0.1"

    run(main())


def test_representation(run: Run) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=("127.0.0.1", 0))
        name = type(transport).__name__
        fd = transport.get_extra_info("socket").fileno()
        assert repr(transport) == f"<{name} fd={fd} read=polling write=<idle, bufsize=0>>"
        transport.close()
        assert repr(transport) == f"<{name} closing fd={fd} read=idle write=<idle, bufsize=0>>"
        await here.lost()
        assert repr(transport) == f"<{name} closed fd={fd}>"

    run(main())


def test_it_is_an_asyncio_transport_from_the_start(run: Run, backend: Backend) -> None:
    async def main() -> None:
        seen: list[bool] = []

        def look(transport: Any) -> None:
            kinds = [asyncio.BaseTransport, asyncio.Transport]
            if PY312 or backend.is_weft:
                kinds.append(asyncio.DatagramTransport)
            seen.extend(isinstance(transport, kind) for kind in kinds)
            assert weakref.ref(transport)() is transport
            assert len({transport, transport}) == 1

        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_datagram_endpoint(
            lambda: Datagrams(connection_made=look), local_addr=("127.0.0.1", 0)
        )
        assert seen
        assert all(seen)
        await end(protocol)

    run(main())


def test_its_descriptor_is_its_own(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        _, here = await endpoint(sock=sock)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(sock, print)
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.sock_recvfrom(sock, 1)
        if PY312:
            with pytest.raises(RuntimeError, match="is used by transport"):
                await endpoint(sock=sock)
        assert sock.fileno() != -1
        await end(here)

    run(main())


def test_debug_mode_tells_of_endpoints(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=("127.0.0.1", 0))
        (created,) = [
            record.getMessage() for record in caplog.records if "created" in record.getMessage()
        ]
        assert f"({transport!r}, {here!r})".split(" read=")[0] in created
        assert repr(here) in created
        await end(here)

    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        run(main(), debug=True)  # type: ignore[call-arg]


# -- failures and neglect --------------------------------------------------------------------------


@pytest.mark.backends("weft")
@pytest.mark.parametrize("given", [False, True])
def test_a_factory_that_fails_leaves_no_socket_open(run: Run, given: bool) -> None:
    """asyncio leaves it to the garbage collector, with a warning."""

    async def main() -> None:
        def fail() -> Any:
            raise ZeroDivisionError("mine")

        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        options: Any = {"sock": sock} if given else {"local_addr": ("127.0.0.1", 0)}
        with sock, pytest.raises(ZeroDivisionError, match="mine"):
            await loop.create_datagram_endpoint(fail, **options)
        gc.collect()

    run(main())


def test_the_protocol_of_the_factory_is_returned(run: Run) -> None:
    """Even if another one has taken its place by then."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        other = Datagrams()
        first = Datagrams(connection_made=lambda transport: transport.set_protocol(other))
        transport, returned = await loop.create_datagram_endpoint(
            lambda: first, local_addr=("127.0.0.1", 0)
        )
        assert returned is first
        assert transport.get_protocol() is other
        transport.close()
        await other.lost()

    run(main())


def test_a_dropped_transport_warns_and_closes_its_socket(run: Run) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=("127.0.0.1", 0))
        where = transport.get_extra_info("sockname")
        transport.pause_reading()
        here.transport = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport, here
            gc.collect()
        texts = [str(warning.message) for warning in caught]
        assert len([text for text in texts if text.startswith("unclosed transport")]) == 1, texts
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(where)

    run(main())


def test_a_receiving_transport_stays_alive_without_being_held(run: Run) -> None:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data, addr)
            if data == b"bye":
                self.transport.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        where = (await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0)))[
            0
        ].get_extra_info("sockname")
        gc.collect()
        client, here = await endpoint(remote_addr=where)
        for number, data in enumerate([b"hello", b"bye"]):
            client.sendto(data)
            await here.called("datagram_received", number + 1)
        assert [data for data, _ in here.received_from] == [b"hello", b"bye"]
        await end(here)

    run(main())


def test_closing_after_the_loop_is_gone(loop: asyncio.AbstractEventLoop) -> None:
    transport, here = loop.run_until_complete(
        loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    )
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        transport.close()
    here.transport = None
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        del transport, here
        gc.collect()
