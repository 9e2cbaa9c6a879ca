"""The servers of real libraries, which run on each loop as those in benchmarks/servers.py do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.servers import BACKLOG, ROOM, Place, Server, failure, hold

HELLO = "Hello, World!"

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def aiohttp(place: Place) -> None:
    """A web application of one route."""
    from aiohttp import web

    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text=HELLO)

    application = web.Application()
    application.router.add_get("/", hello)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, place.listener, backlog=BACKLOG, ssl_context=place.tls).start()
    hold(runner)


async def asgi(_scope: dict[str, Any], _receive: Receive, send: Send) -> None:
    """An application without a framework."""
    body = HELLO.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _uvicorn(application: Any, http: str, place: Place) -> None:
    """uvicorn on the loop that runs already, whichever it is."""
    from uvicorn import Config, Server

    configuration = Config(
        application,
        http=http,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="error",
        backlog=BACKLOG,
    )
    server = Server(configuration)
    failure.watch(asyncio.get_running_loop().create_task(server.serve(sockets=[place.listener])))
    while not server.started:
        await asyncio.sleep(0.01)


async def uvicorn(place: Place) -> None:
    import httptools  # noqa: F401 - uvicorn would do without it, and be another server

    await _uvicorn(asgi, "httptools", place)


async def uvicorn_h11(place: Place) -> None:
    await _uvicorn(asgi, "h11", place)


async def fastapi(place: Place) -> None:
    """FastAPI on uvicorn: a route whose answer is turned into JSON."""
    from fastapi import FastAPI

    async def hello() -> dict[str, str]:
        return {"message": HELLO}

    application = FastAPI()
    application.get("/")(hello)
    await _uvicorn(application, "auto", place)


async def websockets(place: Place) -> None:
    """Each message is sent back; nothing is compressed."""
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    hold(await serve(echo, sock=place.listener, compression=None, max_size=ROOM))


APPLICATIONS: dict[str, Server] = {
    server.__name__: server for server in (aiohttp, uvicorn, uvicorn_h11, fastapi, websockets)
}
