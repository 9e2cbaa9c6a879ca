"""getaddrinfo and getnameinfo: in the executor where they may block, and only there."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
from backends import Backend
from turns import raised


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What `socket.getaddrinfo` is asked, and in which thread; it answers as ever."""
    asked: list[tuple[Any, ...]] = []
    real = socket.getaddrinfo

    def spying(*arguments: Any, **keywords: Any) -> Any:
        asked.append((threading.current_thread(), arguments, keywords))
        return real(*arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", spying)
    return asked


class TestGetaddrinfo:
    @pytest.mark.parametrize(
        ("host", "port", "keywords"),
        [
            ("127.0.0.1", 80, {}),
            ("127.0.0.1", "80", {"type": socket.SOCK_STREAM}),
            ("::1", 80, {"type": socket.SOCK_STREAM}),
            ("127.0.0.1", None, {"type": socket.SOCK_STREAM}),
            (None, 80, {"type": socket.SOCK_STREAM}),
            (None, 80, {"type": socket.SOCK_STREAM, "flags": socket.AI_PASSIVE}),
            ("127.0.0.1", 80, {"family": socket.AF_INET, "type": socket.SOCK_DGRAM}),
            ("127.0.0.1", 80, {"family": socket.AF_INET, "proto": socket.IPPROTO_TCP}),
            ("127.0.0.1", 0, {"type": socket.SOCK_STREAM}),
            (b"127.0.0.1", 80, {"type": socket.SOCK_STREAM}),
            ("localhost", 80, {"type": socket.SOCK_STREAM}),
        ],
    )
    def test_same_as_the_socket_module(
        self, loop: asyncio.AbstractEventLoop, host: Any, port: Any, keywords: dict[str, Any]
    ) -> None:
        expected = socket.getaddrinfo(host, port, **keywords)
        got = loop.run_until_complete(loop.getaddrinfo(host, port, **keywords))
        assert sorted(got) == sorted(expected)

    def test_service_names(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            expected = socket.getaddrinfo("127.0.0.1", "http", type=socket.SOCK_STREAM)
        except socket.gaierror:
            pytest.skip("this machine does not know the service http")
        got = loop.run_until_complete(
            loop.getaddrinfo("127.0.0.1", "http", type=socket.SOCK_STREAM)
        )
        assert got == expected

    @pytest.mark.parametrize(
        ("host", "port", "keywords"),
        [
            ("127.0.0.1", 80, {"family": socket.AF_INET6, "type": socket.SOCK_STREAM}),
            ("127.0.0.1", "no such service", {}),
            ("127.0.0.1", 80, {"type": 12345}),
            ("::1", 80, {"family": socket.AF_INET}),
            (None, None, {}),
            ("", 80, {}),
            ("no such host", 80, {"flags": socket.AI_NUMERICHOST}),
        ],
    )
    def test_errors(
        self, loop: asyncio.AbstractEventLoop, host: Any, port: Any, keywords: dict[str, Any]
    ) -> None:
        expected = raised(socket.getaddrinfo, host, port, **keywords)
        made = loop.getaddrinfo(host, port, **keywords)
        assert raised(loop.run_until_complete, made) == expected
        assert issubclass(expected[0], OSError)

    def test_zone_of_ipv6_is_kept(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            expected = socket.getaddrinfo("fe80::1%lo", 80, type=socket.SOCK_STREAM)
        except socket.gaierror:
            pytest.skip("no IPv6 zones on this machine")
        got = loop.run_until_complete(loop.getaddrinfo("fe80::1%lo", 80, type=socket.SOCK_STREAM))
        assert got == expected
        assert got[0][4][3] != 0

    def test_not_in_the_loops_thread(
        self, loop: asyncio.AbstractEventLoop, lookups: list[tuple[Any, ...]]
    ) -> None:
        """A name may take seconds: the loop must not wait for it."""
        loop.run_until_complete(loop.getaddrinfo("localhost", 80))
        assert len(lookups) == 1
        assert lookups[0][0] is not threading.current_thread()

    def test_concurrently(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> list[Any]:
            return await asyncio.gather(
                *(loop.getaddrinfo("127.0.0.1", port) for port in range(1, 30))
            )

        results = loop.run_until_complete(main())
        assert [result[0][4][1] for result in results] == list(range(1, 30))

    def test_keyword_only(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> None:
            with pytest.raises(TypeError):
                await loop.getaddrinfo("127.0.0.1", 80, socket.AF_INET)  # type: ignore[misc]

        loop.run_until_complete(main())

    def test_is_a_coroutine(self, loop: asyncio.AbstractEventLoop) -> None:
        made = loop.getaddrinfo("127.0.0.1", 80)
        assert asyncio.iscoroutine(made)
        loop.run_until_complete(made)

    def test_through_the_executor_of_the_user(self, backend: Backend) -> None:
        import concurrent.futures

        threads: list[str] = []

        class Executor(concurrent.futures.ThreadPoolExecutor):
            def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
                threads.append(getattr(function, "__name__", "?"))
                return super().submit(function, *arguments, **keywords)

        loop = backend.new_event_loop()
        loop.set_default_executor(Executor(1))
        loop.run_until_complete(loop.getaddrinfo("localhost", 80))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        assert len(threads) == 1

    def test_patched_socket_getaddrinfo_is_used(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Test libraries replace it to redirect names (pytest-socket, responses, mocket)."""
        fake = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.9", 99))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: fake)
        assert loop.run_until_complete(loop.getaddrinfo("example.invalid", 1)) == fake


class TestGetnameinfo:
    @pytest.mark.parametrize(
        ("address", "flags"),
        [
            (("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
            (("127.0.0.1", 80), socket.NI_NUMERICHOST),
            (("::1", 80, 0, 0), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
            (("127.0.0.1", 80), 0),
        ],
    )
    def test_same_as_the_socket_module(
        self, loop: asyncio.AbstractEventLoop, address: Any, flags: int
    ) -> None:
        expected = socket.getnameinfo(address, flags)
        assert loop.run_until_complete(loop.getnameinfo(address, flags)) == expected

    def test_default_flags(self, loop: asyncio.AbstractEventLoop) -> None:
        expected = socket.getnameinfo(("127.0.0.1", 80), 0)
        assert loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80))) == expected

    def test_errors(self, loop: asyncio.AbstractEventLoop) -> None:
        for address in (("not an address", 80), ("127.0.0.1",), "text", None):
            with pytest.raises((OSError, TypeError)) as expected:
                socket.getnameinfo(address, 0)  # type: ignore[arg-type]
            with pytest.raises((OSError, TypeError)) as got:
                loop.run_until_complete(loop.getnameinfo(address, 0))  # type: ignore[arg-type]
            assert type(got.value) is type(expected.value)

    def test_is_a_coroutine(self, loop: asyncio.AbstractEventLoop) -> None:
        made = loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)
        assert asyncio.iscoroutine(made)
        loop.run_until_complete(made)


def test_literals_never_reach_the_executor_when_connecting(
    loop: asyncio.AbstractEventLoop, lookups: list[tuple[Any, ...]]
) -> None:
    """`create_connection` and `create_server` know an address when they see one."""

    class Counting(asyncio.Protocol):
        def __init__(self) -> None:
            self.lost = loop.create_future()
            made.append(self)

        def connection_lost(self, error: Exception | None) -> None:
            self.lost.set_result(None)

    made: list[Counting] = []

    async def main() -> None:
        server = await loop.create_server(Counting, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_connection(Counting, "127.0.0.1", port)
        while len(made) < 2:
            await asyncio.sleep(0)
        transport.close()
        await asyncio.gather(*(protocol.lost for protocol in made))
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert lookups == []
