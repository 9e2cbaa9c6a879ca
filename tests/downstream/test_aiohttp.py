"""aiohttp: server and client on one loop, in the ways that services use them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import io
import random
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from backends import PY312, Backend
from cancelling import cancel_each_wait, cancel_some
from certificates import client_context, server_context
from killing import kill_in_the_middle
from peers import Run, connected_client, pass_turns
from private import Program
from services import library

aiohttp = library("aiohttp")
from aiohttp import WSMsgType, web

pytestmark = pytest.mark.slow


async def hello(request: Any) -> Any:
    return web.json_response({"name": request.match_info["name"], **request.query})


async def echo(request: Any) -> Any:
    return web.Response(body=await request.read())


async def slow(request: Any) -> Any:
    await asyncio.sleep(float(request.match_info["seconds"]))
    return web.Response(text="at last")


async def digest(request: Any) -> Any:
    sum_ = hashlib.blake2b()
    async for chunk in request.content.iter_chunked(10_000):
        sum_.update(chunk)
    return web.Response(text=sum_.hexdigest())


async def stream(request: Any) -> Any:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(int(request.match_info["count"])):
        await response.write(b"piece %d\n" % number)
    await response.write_eof()
    return response


async def chat(request: Any) -> Any:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            if message.data == "bye":
                await socket.close(code=4000, message=b"bye")
            else:
                await socket.send_str(message.data.upper())
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data[::-1])
    return socket


async def upload(request: Any) -> Any:
    sizes = {}
    async for part in await request.multipart():
        sizes[part.name] = len(await part.read())
    return web.json_response(sizes)


async def fail(request: Any) -> Any:
    raise web.HTTPConflict(text="not now")


def application() -> Any:
    app = web.Application(client_max_size=1 << 26)
    app.add_routes(
        [
            web.get("/hello/{name}", hello),
            web.post("/echo", echo),
            web.get("/slow/{seconds}", slow),
            web.post("/digest", digest),
            web.get("/stream/{count}", stream),
            web.get("/chat", chat),
            web.post("/upload", upload),
            web.get("/fail", fail),
        ]
    )
    return app


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[str]:
    runner = web.AppRunner(application(), shutdown_timeout=1)
    await runner.setup()
    try:
        if "path" in options:
            await web.UnixSite(runner, **options).start()
            yield "http://localhost"
        else:
            await web.TCPSite(runner, "127.0.0.1", 0, **options).start()
            scheme = "https" if options.get("ssl_context") else "http"
            yield f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_a_thousand_requests(run: Run) -> None:
    async def main() -> None:
        async with serving() as url, aiohttp.ClientSession() as session:

            async def one(number: int) -> None:
                async with session.get(f"{url}/hello/{number}", params={"q": "x y"}) as response:
                    assert response.status == 200
                    assert await response.json() == {"name": str(number), "q": "x y"}

            await asyncio.gather(*(one(number) for number in range(1000)))

    run(main())


def test_big_bodies_in_both_directions(run: Run) -> None:
    body = random.Random(1).randbytes(1 << 20) * 16

    async def main() -> None:
        async with serving() as url, aiohttp.ClientSession() as session:
            async with session.post(f"{url}/echo", data=io.BytesIO(body)) as response:
                assert await response.read() == body

            async def pieces() -> AsyncIterator[bytes]:
                for start in range(0, len(body), 100_000):
                    yield body[start : start + 100_000]

            async with session.post(f"{url}/digest", data=pieces()) as response:
                assert await response.text() == hashlib.blake2b(body).hexdigest()
            async with session.get(f"{url}/stream/5000") as response:
                lines = [line async for line in response.content]
            assert lines == [b"piece %d\n" % number for number in range(5000)]

    run(main())


def test_forms_and_errors(run: Run) -> None:
    async def main() -> None:
        async with serving() as url, aiohttp.ClientSession() as session:
            form = aiohttp.FormData()
            form.add_field("file", b"x" * 300_000, filename="file")
            form.add_field("text", "short")
            async with session.post(f"{url}/upload", data=form) as response:
                assert await response.json() == {"file": 300_000, "text": 5}
            async with session.get(f"{url}/fail") as response:
                assert response.status == 409
                with pytest.raises(aiohttp.ClientResponseError):
                    response.raise_for_status()

    run(main())


def test_timeouts_and_cancellation(run: Run) -> None:
    async def main() -> None:
        async with serving() as url, aiohttp.ClientSession() as session:
            with pytest.raises(TimeoutError):
                await session.get(f"{url}/slow/10", timeout=aiohttp.ClientTimeout(total=0.05))
            tasks = [asyncio.ensure_future(session.get(f"{url}/slow/10")) for _ in range(50)]
            await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
            # The session is as good as new.
            async with session.get(f"{url}/hello/again") as response:
                assert response.status == 200

    run(main())


def test_connections_are_used_again(run: Run) -> None:
    async def main() -> None:
        peers = set()

        async def note(request: Any) -> Any:
            peers.add(request.transport.get_extra_info("peername"))
            assert isinstance(request.transport, asyncio.Transport)
            return web.Response()

        app = web.Application()
        app.router.add_get("/", note)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=3)) as session:
            for _ in range(20):
                await asyncio.gather(*(session.get(url) for _ in range(6)))
        await runner.cleanup()
        assert len(peers) == 3

    run(main())


def test_web_sockets(run: Run) -> None:
    async def main() -> None:
        async with serving() as url, aiohttp.ClientSession() as session:

            async def talk(number: int) -> None:
                async with session.ws_connect(f"{url}/chat", heartbeat=5) as socket:
                    for turn in range(10):
                        await socket.send_str(f"client {number} turn {turn}")
                        assert await socket.receive_str() == f"CLIENT {number} TURN {turn}"
                    await socket.send_bytes(bytes(range(256)) * 400)
                    assert await socket.receive_bytes() == (bytes(range(256)) * 400)[::-1]
                    await socket.send_str("bye")
                    message = await socket.receive()
                    assert message.type is WSMsgType.CLOSE
                    assert socket.close_code == 4000

            await asyncio.gather(*(talk(number) for number in range(20)))

    run(main())


def test_tls(run: Run) -> None:
    """The certificate can be looked at; pinning by fingerprint reads it in DER."""

    async def main() -> None:
        async with serving(ssl_context=server_context()) as url:
            context = client_context()
            async with aiohttp.ClientSession() as session:
                for _ in range(3):
                    async with session.get(f"{url}/hello/tls", ssl=context) as response:
                        assert (await response.json())["name"] == "tls"
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get(f"{url}/hello/tls")
                pinned = aiohttp.Fingerprint(hashlib.sha256(b"another").digest())
                with pytest.raises(aiohttp.ServerFingerprintMismatch):
                    await session.get(f"{url}/hello/tls", ssl=pinned)
                body = b"x" * 3_000_000
                async with session.post(
                    f"{url}/echo", data=io.BytesIO(body), ssl=context
                ) as response:
                    assert await response.read() == body
            # Closing a TLS session takes the connector a moment.
            await pass_turns(10)

    run(main())


def test_unix_sockets(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        async with (
            serving(path=path) as url,
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
            session.get(f"{url}/hello/unix") as response,
        ):
            assert (await response.json())["name"] == "unix"

    run(main())


def test_clients_that_vanish_do_not_disturb_the_server(
    run: Run, reports: list[dict[str, Any]]
) -> None:
    async def main() -> None:
        async with serving() as url, aiohttp.ClientSession() as session:
            address = "127.0.0.1", int(url.rpartition(":")[2])
            for text in (b"", b"GET /hel", b"nonsense\r\n\r\n", b"GET /slow/5 HTTP/1.1\r\n\r\n"):
                with connected_client(address) as client:
                    client.sendall(text)
                    await pass_turns(5)
            async with session.get(f"{url}/hello/still") as response:
                assert response.status == 200

    run(main())
    assert not reports


def test_files(run: Run, tmp_path: Path) -> None:
    """FileResponse goes through loop.sendfile()."""
    content = random.Random(2).randbytes(5_000_000)
    (tmp_path / "file").write_bytes(content)

    async def main() -> None:
        async def give(request: Any) -> Any:
            return web.FileResponse(tmp_path / "file")

        app = web.Application()
        app.router.add_get("/", give)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as response:
                assert await response.read() == content
            async with session.get(url, headers={"Range": "bytes=100-199"}) as response:
                assert response.status == 206
                assert await response.read() == content[100:200]
        await runner.cleanup()

    run(main())


@pytest.mark.skipif(not PY312, reason="eager tasks came with 3.12")
def test_the_tasks_that_it_makes_itself(run: Run, backend: Backend) -> None:
    """It builds asyncio.Task(coroutine, loop=loop, eager_start=True): a stock task on this loop."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []

        async def work() -> str:
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())
            return "done"

        task = asyncio.Task(work(), loop=loop, eager_start=True)
        assert seen == [task]
        assert asyncio.current_task() is not task
        assert task in asyncio.all_tasks()
        assert await task == "done"
        assert seen == [task, task]

    run(main())


def test_what_it_leaves(run: Run) -> None:
    """Connections of a session are gone with it."""

    async def main() -> list[weakref.ref[Any]]:
        transports: list[weakref.ref[Any]] = []

        class Connector(aiohttp.TCPConnector):
            async def _create_connection(self, *arguments: Any, **keywords: Any) -> Any:
                protocol = await super()._create_connection(*arguments, **keywords)
                transports.append(weakref.ref(protocol.transport))
                return protocol

        async with serving() as url, aiohttp.ClientSession(connector=Connector()) as session:
            await asyncio.gather(*(session.get(f"{url}/hello/{n}") for n in range(10)))
            assert all(reference() is not None for reference in transports)
        await pass_turns(10)
        return transports

    transports = run(main())
    gc.collect()
    assert len(transports) == 10
    assert not [reference for reference in transports if reference() is not None]


# -- cancelled at every wait -----------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_cancelling_at_each_wait(run: Run, tls: bool) -> None:
    """Client and server are on one loop, so that each wait of theirs is cut short by turns."""

    async def main() -> None:
        options = {"ssl_context": server_context()} if tls else {}
        async with (
            serving(**options) as url,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=3, ssl=client_context() if tls else True)
            ) as session,
        ):

            async def ask(number: int) -> Any:
                async with session.get(f"{url}/hello/{number}") as response:
                    return (await response.json())["name"]

            async def look() -> None:
                answers = await asyncio.gather(*(ask(number) for number in range(4)))
                assert answers == ["0", "1", "2", "3"]

            async def post() -> None:
                async with session.post(f"{url}/echo", data=b"x" * 400_000) as response:
                    assert len(await response.read()) == 400_000

            async def stream() -> None:
                async with session.get(f"{url}/stream/100") as response:
                    async for _ in response.content:
                        pass

            async def chat() -> None:
                async with session.ws_connect(f"{url}/chat") as socket:
                    await socket.send_str("lost")
                    assert await socket.receive_str() == "LOST"

            async def connect() -> None:
                async with (
                    aiohttp.ClientSession() as another,
                    another.get(f"{url}/hello/x", ssl=client_context() if tls else True),
                ):
                    pass

            for request in (lambda: ask(-1), post, stream, chat, connect):
                assert await cancel_each_wait(request, look) > 0
            answers = await cancel_some(ask, count=200)
            assert answers == {number: str(number) for number in answers}
            # Closing TLS sessions takes a moment.
            await pass_turns(10)

    run(main())


# -- a server that is killed in the middle ---------------------------------------------------------

SERVER = """
import sys
from aiohttp import WSMsgType, web

async def echo(request):
    return web.Response(body=await request.read())

async def chat(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data.upper())
    return socket

async def main():
    app = web.Application()
    app.add_routes([web.post("/echo", echo), web.get("/chat", chat)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    await asyncio.Event().wait()

run(main())
"""


def test_a_session_survives_the_death_of_the_server(run: Run, backend: Backend) -> None:
    async def main(server: Program) -> None:
        url = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession() as session:

            async def ask(token: str) -> None:
                async with session.post(f"{url}/echo", data=token) as response:
                    assert await response.text() == token

            web_socket = await session.ws_connect(f"{url}/chat")
            await web_socket.send_str("hello")
            assert await web_socket.receive_str() == "HELLO"
            await kill_in_the_middle(server, ask, (aiohttp.ClientError, OSError))
            assert (await web_socket.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)
            await web_socket.close()
            async with session.ws_connect(f"{url}/chat") as web_socket:
                await web_socket.send_str("again")
                assert await web_socket.receive_str() == "AGAIN"

    with Program.running(backend.prelude + SERVER) as server:
        run(main(server))
