"""Receiving datagrams: what a protocol gets, how many at a time, and what may stop it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from datagrams import Datagrams, end, endpoint
from peers import Run, has_arrived, has_ipv6, pass_turns

LOCAL = ("127.0.0.1", 0)


def udp(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


def numbered(peer: socket.socket, count: int, transport: Any) -> list[bytes]:
    """Send so many datagrams to a transport's socket, and have them there."""
    data = [b"%d" % number for number in range(count)]
    for each in data:
        peer.sendto(each, transport.get_extra_info("sockname"))
    assert has_arrived(transport.get_extra_info("socket"))
    return data


# -- who sent it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_senders_are_named_as_sockets_name_them(run: Run, host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 here")

    async def main() -> None:
        transport, here = await endpoint(local_addr=(host, 0))
        with udp(host) as plain:
            peers = [udp(host) for _ in range(20)]
            expected = []
            # Three times, so that the transport has seen them before.
            for peer in peers * 3:
                peer.sendto(b"x", plain.getsockname())
                expected.append(plain.recvfrom(10)[1])
                peer.sendto(b"x", transport.get_extra_info("sockname"))
                await here.called("datagram_received", len(expected))
            for peer in peers:
                peer.close()
        named = [name for _, name in here.received_from]
        assert named == expected
        assert [list(map(type, name)) for name in named] == [
            list(map(type, name)) for name in expected
        ]
        await end(here)

    run(main())


def test_many_senders_are_not_mixed_up(run: Run) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=LOCAL)
        where = transport.get_extra_info("sockname")
        peers = []
        try:
            for number in range(300):
                peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                peers.append(peer)
                peer.bind((f"127.0.{number % 5}.{number % 7 + 1}", 0))
            for turn in range(2):
                for number, peer in enumerate(peers):
                    peer.sendto(b"", where)
                    await here.called("datagram_received", turn * len(peers) + number + 1)
            names = [peer.getsockname() for peer in peers]
        finally:
            for peer in peers:
                peer.close()
        assert [name for _, name in here.received_from] == names * 2
        await end(here)

    run(main())


def test_senders_on_unix_sockets(run: Run, tmp_path: Path) -> None:
    """A path is a string, an abstract name is bytes, no name is None."""

    async def main() -> None:
        path = str(tmp_path / "receiver")
        _, here = await endpoint(local_addr=path, family=socket.AF_UNIX)
        names: list[Any] = [
            str(tmp_path / "a sender \N{SNOWMAN}"),
            b"\0abstract\0with a zero and \xff",
            str(tmp_path / "x").ljust(107, "x"),
            None,
        ]
        for count, name in enumerate(names):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                if name is not None:
                    sender.bind(name)
                sender.sendto(b"hello", path)
                await here.called("datagram_received", count + 1)
        assert here.received_from == [(b"hello", name) for name in names]
        await end(here)

    run(main())


def test_a_pair_without_names(run: Run) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs:
            transport, here = await endpoint(sock=ours)
            theirs.send(b"question")
            await here.called("datagram_received")
            assert here.received_from == [(b"question", None)]
            assert transport.get_extra_info("peername") == theirs.getsockname()
            await end(here)

    run(main())


def test_an_empty_datagram_is_received(run: Run) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=LOCAL)
        with udp() as peer:
            peer.sendto(b"", transport.get_extra_info("sockname"))
            await here.called("datagram_received")
            assert here.received_from == [(b"", peer.getsockname())]
        await end(here)

    run(main())


def test_a_socket_that_receives_in_its_own_way_is_asked(run: Run) -> None:
    class Proxied(socket.socket):
        def recvfrom(self, *arguments: Any) -> Any:
            data, _ = super().recvfrom(*arguments)
            return data.upper(), ("elsewhere", 1)

    async def main() -> None:
        sock = Proxied(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(LOCAL)
        _, here = await endpoint(sock=sock)
        with udp() as peer:
            peer.sendto(b"hello", sock.getsockname())
            await here.called("datagram_received")
        assert here.received_from == [(b"HELLO", ("elsewhere", 1))]
        await end(here)

    run(main())


@pytest.mark.parametrize("kind", [OSError, ZeroDivisionError])
def test_a_socket_that_fails_to_receive(
    run: Run, kind: type[Exception], reports: list[dict[str, Any]]
) -> None:
    """An OSError is told and ends nothing, everything else is the end."""

    class Failing(socket.socket):
        def recvfrom(self, *arguments: Any) -> Any:
            super().recvfrom(*arguments)
            raise kind("mine")

    async def main() -> None:
        sock = Failing(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(LOCAL)
        transport, here = await endpoint(sock=sock)
        with udp() as peer:
            for number in (1, 2):
                peer.sendto(b"hello", transport.get_extra_info("sockname"))
                if kind is OSError:
                    await here.called("error_received", number)
        if kind is OSError:
            assert [type(error) for error in here.errors] == [OSError] * 2
            assert not reports
            await end(here)
        else:
            assert isinstance(await here.lost(), kind)
            assert not here.errors
            (report,) = reports
            assert report["message"] == "Fatal read error on datagram transport"
            assert report["transport"] is transport
            assert report["protocol"] is here

    run(main())


# -- how many at a time ----------------------------------------------------------------------------


def test_others_have_their_turn_among_many_datagrams(run: Run) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=LOCAL)
        seen: list[int] = []

        def received(*_: Any) -> None:
            if not seen:
                seen.append(0)
                loop.call_soon(lambda: seen.append(len(here.received_from)))

        loop = asyncio.get_running_loop()
        here.on["datagram_received"] = received
        with udp() as peer:
            data = numbered(peer, 40, transport)
        await here.called("datagram_received", 40)
        assert [each for each, _ in here.received_from] == data
        assert 1 <= seen[1] <= 16
        await end(here)

    run(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_nothing_is_received_after_an_end(run: Run, how: str) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=LOCAL)
        here.on["datagram_received"] = lambda *_: getattr(transport, how)()
        with udp() as peer:
            numbered(peer, 5, transport)
        assert await here.lost() is None
        assert here.calls == ["connection_made", "datagram_received", "connection_lost"]

    run(main())


def test_pausing_leaves_datagrams_to_the_kernel(run: Run) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=LOCAL)
        here.on["datagram_received"] = lambda *_: transport.pause_reading()
        with udp() as peer:
            data = numbered(peer, 3, transport)
        for number in (1, 2):
            await here.called("datagram_received", number)
            await pass_turns(10)
            assert len(here.received_from) == number
            assert not transport.is_reading()
            transport.resume_reading()
        await here.called("datagram_received", 3)
        assert [each for each, _ in here.received_from] == data
        assert "read=idle" in repr(transport)
        await end(here)

    run(main())


def test_a_protocol_may_be_replaced_between_two_datagrams(run: Run) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=LOCAL)
        other = Datagrams()
        here.on["datagram_received"] = lambda *_: transport.set_protocol(other)
        with udp() as peer:
            numbered(peer, 3, transport)
        await other.called("datagram_received", 2)
        assert transport.get_protocol() is other
        assert [each for each, _ in here.received_from] == [b"0"]
        assert [each for each, _ in other.received_from] == [b"1", b"2"]
        transport.close()
        await other.lost()
        assert not here.lost_with

    run(main())


# -- what a protocol raises ------------------------------------------------------------------------


def test_what_a_protocol_raises_is_reported_and_ends_nothing(
    run: Run, reports: list[dict[str, Any]]
) -> None:
    async def main() -> None:
        def fail(*_: Any) -> None:
            raise ZeroDivisionError("mine")

        transport, here = await endpoint(local_addr=LOCAL)
        here.on["datagram_received"] = fail
        with udp() as peer:
            data = numbered(peer, 3, transport)
        await here.called("datagram_received", 3)
        await pass_turns()
        assert [each for each, _ in here.received_from] == data
        assert [type(report["exception"]) for report in reports] == [ZeroDivisionError] * 3
        assert all("Exception in callback" in report["message"] for report in reports)
        assert not transport.is_closing()
        await end(here)

    run(main())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_program_leaves_the_rest_to_be_received(
    loop: asyncio.AbstractEventLoop, kind: type[BaseException]
) -> None:
    def interrupt(*_: Any) -> None:
        here.on.clear()
        raise kind

    async def make() -> tuple[Any, Datagrams]:
        return await loop.create_datagram_endpoint(
            lambda: Datagrams(datagram_received=interrupt), local_addr=LOCAL
        )

    transport, here = loop.run_until_complete(make())
    with udp() as peer:
        data = numbered(peer, 3, transport)
        with pytest.raises(kind):
            loop.run_forever()
    loop.run_until_complete(here.called("datagram_received", 3))
    assert [each for each, _ in here.received_from] == data
    loop.run_until_complete(end(here))


def test_an_error_of_the_network_is_received(run: Run) -> None:
    """And what error_received raises is reported."""

    async def main() -> None:
        with udp() as peer:
            client, here = await endpoint(remote_addr=peer.getsockname())
            where = client.get_extra_info("sockname")
            client.sendto(b"anybody?")
        client.sendto(b"anybody?")
        await here.called("error_received")
        assert isinstance(here.errors[0], ConnectionRefusedError)
        # Somebody is there again, at the same address.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(client.get_extra_info("peername"))
            peer.sendto(b"me", where)
            await here.called("datagram_received")
        await end(here)

    run(main())


# -- contexts and references -----------------------------------------------------------------------


def test_callbacks_see_the_context_of_whoever_made_the_endpoint(run: Run) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

    async def main() -> None:
        seen: dict[str, str] = {}

        def note(callback: str) -> Any:
            return lambda *_: seen.setdefault(callback, name.get()) and None

        calls = ["connection_made", "datagram_received", "connection_lost"]
        protocol = Datagrams(**{call: note(call) for call in calls})
        loop = asyncio.get_running_loop()
        name.set("whoever made it")
        task = loop.create_task(loop.create_datagram_endpoint(lambda: protocol, local_addr=LOCAL))
        name.set("somebody else")
        transport, _ = await task
        with udp() as peer:
            peer.sendto(b"x", transport.get_extra_info("sockname"))
            await protocol.called("datagram_received")
        asyncio.get_running_loop().call_soon(transport.close, context=contextvars.Context())
        await protocol.lost()
        # The end is scheduled by whoever closes.
        assert seen == dict.fromkeys(calls, "whoever made it") | {"connection_lost": "nobody"}

    run(main())


@pytest.mark.parametrize("how", ["close", "abort", "error"])
def test_a_protocol_is_let_go_at_the_end(run: Run, how: str, reports: list[dict[str, Any]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Datagrams()
        before = sys.getrefcount(protocol)
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, local_addr=LOCAL)
        with udp() as peer:
            peer.sendto(b"x", transport.get_extra_info("sockname"))
            await protocol.called("datagram_received")
        if how == "error":
            transport.sendto(b"x", "no address")
        else:
            getattr(transport, how)()
        await protocol.lost()
        reference = weakref.ref(transport)
        del transport, _
        protocol.transport = None
        protocol.lost_with.clear()
        reports.clear()
        await pass_turns()
        gc.collect()
        assert sys.getrefcount(protocol) == before
        assert reference() is None

    run(main())


def test_data_and_addresses_are_let_go(run: Run) -> None:
    async def main() -> None:
        transport, here = await endpoint(local_addr=LOCAL)
        with udp() as peer:
            for _ in range(3):
                peer.sendto(b"x" * 100, transport.get_extra_info("sockname"))
            await here.called("datagram_received", 3)
        data, name = here.received_from[-1]
        here.received_from.clear()
        assert sys.getrefcount(data) <= 3
        await end(here)
        del transport
        here.transport = None
        await pass_turns()
        gc.collect()
        assert sys.getrefcount(name) <= 3

    run(main())


def test_cycles_through_a_transport_are_found(run: Run) -> None:
    async def main() -> None:
        async def use() -> weakref.ref[Any]:
            transport, here = await endpoint(local_addr=LOCAL)
            here.extra = [transport, transport.sendto]  # type: ignore[attr-defined]
            transport.owner = here
            transport.itself = transport
            await end(here)
            return weakref.ref(here)

        reference = await use()
        await pass_turns()
        gc.collect()
        assert reference() is None

    run(main())
