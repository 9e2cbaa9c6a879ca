"""websockets: server and client, fragments, pings, closing, many at once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from certificates import client_context, server_context
from peers import Run, pass_turns

pytest.importorskip("websockets", reason="websockets is not installed")
from websockets.asyncio.client import connect
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

pytestmark = pytest.mark.slow


async def shout(socket: Any) -> None:
    async for message in socket:
        await socket.send(message.upper() if isinstance(message, str) else message[::-1])


def url(server: Any, scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_conversations(run: Run) -> None:
    async def main() -> None:
        async with serve(shout, "127.0.0.1", 0) as server:

            async def talk(number: int) -> None:
                async with connect(url(server)) as socket:
                    for turn in range(10):
                        await socket.send(f"client {number} turn {turn}")
                        assert await socket.recv() == f"CLIENT {number} TURN {turn}"
                    await (await socket.ping())

            await asyncio.gather(*(talk(number) for number in range(50)))

    run(main())


def test_big_messages_and_fragments(run: Run) -> None:
    async def main() -> None:
        data = random.Random(1).randbytes(5_000_000)
        async with (
            serve(shout, "127.0.0.1", 0, max_size=1 << 24) as server,
            connect(url(server), max_size=1 << 24) as socket,
        ):
            await socket.send(data)
            assert await socket.recv() == data[::-1]
            await socket.send(["frag", "ments", " of text"])
            assert await socket.recv() == "FRAGMENTS OF TEXT"

    run(main())


def test_closing(run: Run) -> None:
    async def main() -> None:
        async def close(socket: Any) -> None:
            await socket.recv()
            await socket.close(4001, "enough")

        async with serve(close, "127.0.0.1", 0) as server:
            async with connect(url(server)) as socket:
                await socket.send("hello")
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
                assert (socket.close_code, socket.close_reason) == (4001, "enough")
            async with connect(url(server)) as socket:
                socket.transport.abort()
                with pytest.raises(ConnectionClosedError):
                    await socket.recv()
            await pass_turns(5)

    run(main())


def test_broadcast(run: Run) -> None:
    async def main() -> None:
        connected: set[Any] = set()

        async def join(socket: Any) -> None:
            connected.add(socket)
            await socket.wait_closed()

        async with serve(join, "127.0.0.1", 0) as server:
            sockets = [await connect(url(server)) for _ in range(20)]
            while len(connected) < 20:
                await asyncio.sleep(0)
            broadcast(connected, "news")
            assert [await socket.recv() for socket in sockets] == ["news"] * 20
            await asyncio.gather(*(socket.close() for socket in sockets))

    run(main())


def test_tls_and_serve_forever(run: Run) -> None:
    """Its server looks at Server._serving_forever_fut by way of serve_forever()."""

    async def main() -> None:
        async with serve(shout, "127.0.0.1", 0, ssl=server_context()) as server:
            serving = asyncio.ensure_future(server.serve_forever())
            async with connect(url(server, "wss"), ssl=client_context()) as socket:
                await socket.send("secret")
                assert await socket.recv() == "SECRET"
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving

    run(main())
