"""httpx: its client, whose connections run over anyio on this loop."""

from __future__ import annotations

import asyncio

import pytest
import trusted
from backends import Backend
from cancelling import cancel_each_wait, cancel_some, collected  # noqa: F401
from killing import kill_in_the_middle
from peers import Run
from private import Program
from services import library
from website import website

httpx = library("httpx")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("collected")]


def test_requests(run: Run) -> None:
    async def main() -> None:
        with website() as site:
            limits = httpx.Limits(max_connections=20)
            async with httpx.AsyncClient(base_url=site.url, limits=limits) as client:

                async def one(number: int) -> None:
                    response = await client.get(f"/json/{number}", params={"q": "x y"})
                    assert response.json() == {"number": number, "q": "x y"}

                await asyncio.gather(*(one(number) for number in range(200)))
                body = b"z" * 3_000_000
                assert (await client.post("/echo", content=body)).content == body
                assert (await client.get("/status/503")).status_code == 503
                async with client.stream("GET", "/stream/300") as response:
                    lines = [line async for line in response.aiter_lines()]
                assert lines == [f"piece {number}" for number in range(300)]
            assert len(site.requests) == 203

    run(main())


def test_timeouts_and_cancellation(run: Run) -> None:
    async def main() -> None:
        with website() as site:
            async with httpx.AsyncClient(base_url=site.url, timeout=30) as client:
                with pytest.raises(httpx.ReadTimeout):
                    await client.get("/slow/0.3", timeout=httpx.Timeout(30, read=0.02))
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await client.get("/slow/0.3")
                tasks = [asyncio.ensure_future(client.get("/slow/0.3")) for _ in range(20)]
                await asyncio.sleep(0.02)
                for task in tasks[::2]:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                for result in results[::2]:
                    assert isinstance(result, asyncio.CancelledError)
                for result in results[1::2]:
                    assert result.text == "at last"

    run(main())


def test_a_server_that_is_not_there(run: Run) -> None:
    async def main() -> None:
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://127.0.0.1:1/")

    run(main())


# -- cancelled at every wait, and a server that is killed ------------------------------------------

SERVER = """
import sys
from hypercorn.asyncio import serve
from hypercorn.config import Config

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    version = scope["http_version"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"version", version)]})
    for start in range(0, len(body), 1000):
        part = body[start : start + 1000]
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})

async def main():
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.certfile, config.keyfile = "certificate.pem", "key.pem"
    config.loglevel = "CRITICAL"
    await serve(app, config, shutdown_trigger=asyncio.Event().wait)

run(main())
"""


# Where a request is cancelled during the TLS handshake of a new connection, which is a matter of
# chance here, httpcore leaves that connection to the garbage collector, on any loop.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_a_client_survives_cancellation_and_the_death_of_the_server(
    run: Run, backend: Backend, version: str
) -> None:
    """Over TLS. With HTTP/2 all requests are on one connection, cancelled ones among them."""
    library("h2")

    async def main(server: Program) -> None:
        async with httpx.AsyncClient(
            base_url=f"https://localhost:{server.port}",
            verify=trusted.client_context(),
            http2=version == "HTTP/2",
            limits=httpx.Limits(max_connections=5),
            timeout=20,
        ) as client:

            async def ask(token: str) -> None:
                response = await client.post("/", content=token)
                assert response.http_version == version
                assert response.text == token

            async def insist(token: str) -> None:
                # With HTTP/2, a request that is cancelled while it writes may cost others theirs.
                for _ in range(20):
                    try:
                        return await ask(token)
                    except httpx.TransportError:
                        assert version == "HTTP/2"
                raise AssertionError("no connection works any more")

            async def look() -> None:
                await asyncio.gather(*(insist(f"look {number}") for number in range(3)))

            big = "x" * 50_000
            for request, every in ((lambda: ask("lost"), 2), (lambda: ask(big), 10)):
                assert await cancel_each_wait(request, look, every=every) > 0
            await cancel_some(lambda number: insist(str(number)))
            await look()
            await kill_in_the_middle(server, ask, (httpx.TransportError,))

    with Program.running(backend.prelude + SERVER) as server:
        run(main(server))
