"""websockets: server and client, fragments, pings, closing, many at once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from backends import Backend
from cancelling import cancel_each_wait
from certificates import client_context, server_context
from peers import Run, pass_turns
from private import Program
from services import library

library("websockets")
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


# -- cancelled at every wait, and a server that is killed ------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_cancelling_at_each_wait(run: Run, tls: bool) -> None:
    async def main() -> None:
        context = server_context() if tls else None
        async with serve(shout, "127.0.0.1", 0, ssl=context) as server:
            address = url(server, "wss" if tls else "ws")
            options = {"ssl": client_context()} if tls else {}
            async with connect(address, **options) as socket:
                sent = 0

                async def talk() -> None:
                    nonlocal sent
                    sent += 1
                    await socket.send(f"message {sent}")
                    await socket.recv()

                async def look() -> None:
                    """The answers come in order: a cancelled recv() has lost none of them."""
                    nonlocal sent
                    sent += 1
                    await socket.send(f"message {sent}")
                    while (answer := await socket.recv()) != f"MESSAGE {sent}":
                        assert int(answer.removeprefix("MESSAGE ")) < sent

                async def ping() -> None:
                    await (await socket.ping())

                async def once() -> None:
                    async with connect(address, **options) as another:
                        await another.send("hello")
                        assert await another.recv() == "HELLO"

                for request in (talk, ping, once):
                    assert await cancel_each_wait(request, look) > 0

    run(main())


SERVER = """
import sys
from websockets.asyncio.server import serve

async def shout(socket):
    async for message in socket:
        await socket.send(message.upper())

async def main():
    async with serve(shout, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()

run(main())
"""


def test_a_client_connects_again_after_the_death_of_the_server(run: Run, backend: Backend) -> None:
    """`async for socket in connect(...)` gives one connection after the other."""

    async def main(server: Program) -> None:
        deaths = 0
        address = f"ws://127.0.0.1:{server.port}"
        reconnecting = connect(address, process_exception=lambda error: None)
        async for socket in reconnecting:
            try:
                for turn in range(20):
                    await socket.send(f"{deaths} {turn}")
                    assert await socket.recv() == f"{deaths} {turn}"
                if deaths == 2:
                    break
                server.kill()
                # Before the client tries, which would wait for seconds then.
                await asyncio.to_thread(server.start)
                with pytest.raises(ConnectionClosedError):
                    await socket.recv()
                await socket.send("to nobody")
            except ConnectionClosed:
                deaths += 1
        assert deaths == 2
        await socket.close()

    with Program.running(backend.prelude + SERVER) as server:
        run(main(server))
