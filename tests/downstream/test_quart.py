"""Quart on hypercorn: HTTP/1.1, HTTP/2 by ALPN over TLS, web sockets, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cancelling import cancel_each_wait, cancel_some
from certificates import certificate, client_context, key
from peers import Run
from services import library

quart = library("quart")
hypercorn = library("hypercorn.asyncio")
httpx = library("httpx")
from hypercorn.config import Config

pytestmark = pytest.mark.slow


def application() -> Any:
    app = quart.Quart(__name__)

    @app.get("/hello/<name>")
    async def hello(name: str) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"name": name, "version": quart.request.http_version}

    @app.get("/sync/<int:number>")
    def blocking(number: int) -> dict[str, int]:
        return {"number": number}

    @app.post("/echo")
    async def echo() -> Any:
        return await quart.request.get_data()

    @app.get("/stream/<int:count>")
    async def stream(count: int) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(count):
                yield b"piece %d\n" % number

        return pieces(), 200

    @app.websocket("/chat")
    async def chat() -> None:
        while True:
            await quart.websocket.send((await quart.websocket.receive()).upper())

    return app


@contextlib.asynccontextmanager
async def serving(app: Any = None, *, tls: bool = False) -> AsyncIterator[str]:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(200)
    config = Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.loglevel = "ERROR"
    if tls:
        config.certfile, config.keyfile = str(certificate()), str(key())
    config.create_sockets, sockets = _once(config.create_sockets())
    address = (sockets.secure_sockets or sockets.insecure_sockets)[0].getsockname()
    stop = asyncio.Event()
    task = asyncio.ensure_future(
        hypercorn.serve(app or application(), config, shutdown_trigger=stop.wait)
    )
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{address[1]}"
    finally:
        stop.set()
        await task


def _once(sockets: Any) -> tuple[Any, Any]:
    """hypercorn makes its sockets itself; these are made ahead, to know their port."""
    return (lambda: sockets), sockets


def test_requests(run: Run) -> None:
    async def main() -> None:
        async with serving() as url, httpx.AsyncClient(base_url=url) as client:

            async def one(number: int) -> None:
                way = f"/sync/{number}" if number % 7 == 0 else f"/hello/{number}"
                assert str(number) in (await client.get(way)).text

            await asyncio.gather(*(one(number) for number in range(100)))
            body = b"z" * 2_000_000
            assert (await client.post("/echo", content=body)).content == body
            text = (await client.get("/stream/200")).text
            assert text == "".join(f"piece {number}\n" for number in range(200))

    run(main())


@pytest.mark.parametrize("version", ["2", "1.1"])
def test_tls_and_alpn(run: Run, version: str) -> None:
    """hypercorn asks the transport's ssl_object for the protocol that was agreed on."""
    if version == "2":
        library("h2")

    async def main() -> None:
        async with (
            serving(tls=True) as url,
            httpx.AsyncClient(
                base_url=url, verify=client_context(), http2=version == "2"
            ) as client,
        ):
            answers = await asyncio.gather(*(client.get(f"/hello/{n}") for n in range(50)))
            for number, response in enumerate(answers):
                assert response.json() == {"name": str(number), "version": version}

    run(main())


def test_web_sockets(run: Run) -> None:
    library("websockets")
    from websockets.asyncio.client import connect

    async def main() -> None:
        async with serving() as url:

            async def talk(number: int) -> None:
                async with connect(url.replace("http", "ws") + "/chat") as web_socket:
                    for turn in range(5):
                        await web_socket.send(f"client {number} turn {turn}")
                        assert await web_socket.recv() == f"CLIENT {number} TURN {turn}"

            await asyncio.gather(*(talk(number) for number in range(10)))

    run(main())


async def agreed_on(url: str, *protocols: str) -> Any:
    host, port = url.removeprefix("https://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=client_context(*protocols))
    agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return agreed


def test_the_protocol_that_is_agreed_on(run: Run) -> None:
    """Of what a bare client offers hypercorn chooses, and both sides know what."""

    async def main() -> None:
        async with serving(tls=True) as url:
            assert await agreed_on(url, "h2", "http/1.1") == "h2"
            assert await agreed_on(url, "http/1.1") == "http/1.1"
            assert await agreed_on(url) is None

    run(main())


def test_the_life_of_an_application(run: Run) -> None:
    """Its hooks, its background tasks, and what is being answered when it is told to end."""
    events: list[str] = []

    async def main() -> None:
        app = application()

        @app.before_serving
        async def start() -> None:
            events.append("before")

        @app.after_serving
        async def end() -> None:
            events.append("after")

        asked = asyncio.Event()

        @app.get("/slow")
        async def slow() -> str:
            asked.set()
            app.add_background_task(background)
            await asyncio.sleep(0.05)
            return "at last"

        async def background() -> None:
            await asyncio.sleep(0.01)
            events.append("background")

        async with httpx.AsyncClient() as client:
            async with serving(app) as url:
                answer = asyncio.ensure_future(client.get(f"{url}/slow"))
                await asked.wait()
            assert (await answer).text == "at last"

    run(main())
    assert events == ["before", "background", "after"]


def test_cancelling_at_each_wait(run: Run) -> None:
    async def main() -> None:
        async with serving() as url, httpx.AsyncClient(base_url=url, timeout=20) as client:

            async def ask(number: int) -> Any:
                return (await client.get(f"/hello/{number}")).json()["name"]

            async def stream() -> None:
                async with client.stream("GET", "/stream/100") as response:
                    async for _ in response.aiter_lines():
                        pass

            async def look() -> None:
                answers = await asyncio.gather(*(ask(number) for number in range(3)))
                assert answers == ["0", "1", "2"]

            for request in (lambda: ask(-1), stream):
                assert await cancel_each_wait(request, look) > 0
            answers = await cancel_some(ask)
            assert answers == {number: str(number) for number in answers}

    run(main())
