"""Tornado: its IOLoop is a wrapper around the running loop, and lives on add_reader."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trusted
from backends import Backend
from cancelling import cancel_each_wait, cancel_some, collected  # noqa: F401
from killing import kill_in_the_middle
from peers import Run
from private import Program
from services import library

library("tornado")
from tornado import httpclient, ioloop, iostream, tcpclient, tcpserver, web, websocket

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("collected")]


class Hello(web.RequestHandler):
    async def get(self, name: str) -> None:
        await asyncio.sleep(0)
        self.write({"name": name})

    async def post(self, name: str) -> None:
        self.write(self.request.body[::-1])


class Stream(web.RequestHandler):
    async def get(self, count: str) -> None:
        for number in range(int(count)):
            self.write(b"piece %d\n" % number)
            await self.flush()


class Chat(websocket.WebSocketHandler):
    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(str(message).upper())


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[str]:
    app = web.Application([("/hello/(.*)", Hello), ("/stream/(.*)", Stream), ("/chat", Chat)])
    server = app.listen(0, "127.0.0.1")
    (sock,) = server._sockets.values()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()


def test_requests(run: Run) -> None:
    async def main() -> None:
        assert ioloop.IOLoop.current().asyncio_loop is asyncio.get_running_loop()  # type: ignore[attr-defined]
        async with serving() as url:
            client = httpclient.AsyncHTTPClient(max_clients=20)

            async def one(number: int) -> None:
                response = await client.fetch(f"{url}/hello/{number}")
                assert response.body == b'{"name": "%d"}' % number

            await asyncio.gather(*(one(number) for number in range(100)))
            body = bytes(range(256)) * 4000
            response = await client.fetch(
                f"{url}/hello/x",
                method="POST",
                body=body,
                headers={"Content-Type": "application/octet-stream"},
            )
            assert response.body == body[::-1]
            pieces: list[bytes] = []
            await client.fetch(f"{url}/stream/200", streaming_callback=pieces.append)
            assert b"".join(pieces) == b"".join(b"piece %d\n" % n for n in range(200))
            with pytest.raises(httpclient.HTTPClientError):
                await client.fetch(f"{url}/nothing")
            client.close()

    run(main())


def test_web_sockets(run: Run) -> None:
    async def main() -> None:
        async with serving() as url:

            async def talk(number: int) -> None:
                socket = await websocket.websocket_connect(url.replace("http", "ws") + "/chat")
                for turn in range(10):
                    await socket.write_message(f"client {number} turn {turn}")
                    assert await socket.read_message() == f"CLIENT {number} TURN {turn}"
                socket.close()
                assert await socket.read_message() is None

            await asyncio.gather(*(talk(number) for number in range(10)))

    run(main())


def test_tcp_streams(run: Run) -> None:
    class Echo(tcpserver.TCPServer):
        async def handle_stream(self, stream: Any, address: Any) -> None:
            with contextlib.suppress(iostream.StreamClosedError):
                while True:
                    await stream.write(await stream.read_until(b"\n"))

    async def main() -> None:
        server = Echo()
        server.listen(0, "127.0.0.1")
        (sock,) = server._sockets.values()
        stream = await tcpclient.TCPClient().connect(*sock.getsockname())
        for number in range(50):
            line = b"line %d %s\n" % (number, b"x" * number * 100)
            await stream.write(line)
            assert await stream.read_until(b"\n") == line
        stream.close()
        server.stop()
        await asyncio.sleep(0.01)

    run(main())


def test_callbacks(run: Run) -> None:
    async def main() -> None:
        loop = ioloop.IOLoop.current()
        calls: list[str] = []
        loop.add_callback(calls.append, "soon")
        loop.call_later(0.005, calls.append, "later")
        periodic = ioloop.PeriodicCallback(lambda: calls.append("again"), 2)
        periodic.start()
        assert await loop.run_in_executor(None, lambda: "from a thread") == "from a thread"
        while calls.count("again") < 3 or "later" not in calls:
            await asyncio.sleep(0.001)
        periodic.stop()
        assert calls[0] == "soon"

    run(main())


def test_tls(run: Run) -> None:
    async def main() -> None:
        app = web.Application([("/hello/(.*)", Hello)])
        server = app.listen(0, "127.0.0.1", ssl_options=trusted.server_context())
        (sock,) = server._sockets.values()
        url = f"https://localhost:{sock.getsockname()[1]}"
        client = httpclient.AsyncHTTPClient()
        body = bytes(range(256)) * 4000
        response = await client.fetch(
            f"{url}/hello/x",
            method="POST",
            body=body,
            headers={"Content-Type": "application/octet-stream"},
            ssl_options=trusted.client_context(),
        )
        assert response.body == body[::-1]
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.fetch(f"{url}/hello/x")
        client.close()
        server.stop()
        await server.close_all_connections()

    run(main())


# A web socket whose making was cancelled is left to the garbage collector.
@pytest.mark.filterwarnings("ignore:Unclosed WebSocketClientConnection:ResourceWarning")
def test_cancelling_at_each_wait(run: Run) -> None:
    async def main() -> None:
        async with serving() as url:
            client = httpclient.AsyncHTTPClient(max_clients=100)

            async def ask(number: int) -> Any:
                return (await client.fetch(f"{url}/hello/{number}")).body

            async def look() -> None:
                answers = await asyncio.gather(*(ask(number) for number in range(3)))
                assert answers == [b'{"name": "%d"}' % number for number in range(3)]

            async def chat() -> None:
                socket = await websocket.websocket_connect(url.replace("http", "ws") + "/chat")
                await socket.write_message("hello")
                assert await socket.read_message() == "HELLO"
                socket.close()

            for request in (lambda: ask(-1), chat):
                assert await cancel_each_wait(request, look) > 0
            answers = await cancel_some(ask)
            assert answers == {number: b'{"name": "%d"}' % number for number in answers}
            client.close()

    run(main())


SERVER = """
import sys
from tornado import web

class Echo(web.RequestHandler):
    async def post(self):
        self.write(self.request.body)

async def main():
    web.Application([("/", Echo)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()

run(main())
"""


def test_a_client_survives_the_death_of_the_server(run: Run, backend: Backend) -> None:
    async def main(server: Program) -> None:
        client = httpclient.AsyncHTTPClient()

        async def ask(token: str) -> None:
            url = f"http://127.0.0.1:{server.port}/"
            response = await client.fetch(url, method="POST", body=token)
            assert response.body.decode() == token

        # 599: it has no answer.
        await kill_in_the_middle(server, ask, (httpclient.HTTPClientError, OSError))
        client.close()

    with Program.running(backend.prelude + SERVER) as server:
        run(main(server))
