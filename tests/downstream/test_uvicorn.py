"""uvicorn with FastAPI: requests, threads, streams, web sockets, its loop option, its signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from backends import Backend
from children import child_environment
from peers import Run

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")
from fastapi.responses import StreamingResponse  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    # uvicorn and starlette live behind what websockets and httpx call current.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def application(events: list[str]) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        events.append("startup")
        yield
        events.append("shutdown")

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.get("/async/{number}")
    async def asynchronous(number: int, q: str = "") -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"number": number, "q": q}

    @app.get("/thread/{number}")
    def threaded(number: int) -> dict[str, int]:
        return {"number": number}

    @app.get("/stream/{count}")
    async def stream(count: int) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(count):
                yield b"piece %d\n" % number

        return StreamingResponse(pieces())

    @app.post("/background")
    async def background(tasks: fastapi.BackgroundTasks) -> str:
        tasks.add_task(events.append, "background")
        return "accepted"

    @app.post("/echo")
    async def echo(request: fastapi.Request) -> Any:
        return fastapi.Response(await request.body())

    @app.websocket("/chat")
    async def chat(socket: fastapi.WebSocket) -> None:
        await socket.accept()
        with contextlib.suppress(fastapi.WebSocketDisconnect):
            while True:
                await socket.send_text((await socket.receive_text()).upper())

    @app.get("/fail")
    async def fail() -> None:
        raise fastapi.HTTPException(409, "not now")

    return app


@contextlib.asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[str]:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", **options))
    # The signals of this process are pytest's.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    task = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        while not server.started:
            assert not task.done(), task
            await asyncio.sleep(0.001)
        yield url
    finally:
        server.should_exit = True
        await task
        sock.close()


@pytest.mark.parametrize("http", ["h11", "auto"])
def test_requests_of_every_kind(run: Run, http: str) -> None:
    events: list[str] = []

    async def main() -> None:
        async with (
            serving(application(events), http=http) as url,
            httpx.AsyncClient(base_url=url) as client,
        ):

            async def one(number: int) -> None:
                way = "thread" if number % 5 == 0 else "async"
                response = await client.get(f"/{way}/{number}")
                assert response.json()["number"] == number

            await asyncio.gather(*(one(number) for number in range(200)))
            assert (await client.get("/async/x")).status_code == 422
            assert (await client.get("/fail")).json() == {"detail": "not now"}
            assert (await client.post("/background")).json() == "accepted"
            body = b"z" * 2_000_000
            assert (await client.post("/echo", content=body)).content == body
            text = (await client.get("/stream/500")).text
            assert text == "".join(f"piece {number}\n" for number in range(500))

    run(main())
    assert events == ["startup", "background", "shutdown"]


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
def test_web_sockets(run: Run, ws: str) -> None:
    pytest.importorskip("websockets", reason="websockets is not installed")
    pytest.importorskip(ws.partition("-")[0], reason=f"{ws} is not installed")
    from websockets.asyncio.client import connect

    async def main() -> None:
        async with serving(application([]), ws=ws) as url:

            async def talk(number: int) -> None:
                async with connect(url.replace("http", "ws") + "/chat") as web_socket:
                    for turn in range(5):
                        await web_socket.send(f"client {number} turn {turn}")
                        assert await web_socket.recv() == f"CLIENT {number} TURN {turn}"

            await asyncio.gather(*(talk(number) for number in range(20)))

    run(main())


def test_clients_that_leave_in_the_middle(run: Run) -> None:
    async def main() -> None:
        async with (
            serving(application([])) as url,
            httpx.AsyncClient(base_url=url) as client,
        ):
            for _ in range(5):
                async with client.stream("GET", "/stream/20000") as response:
                    async for _ in response.aiter_bytes():
                        break
            assert (await client.get("/async/1")).status_code == 200

    run(main())


PROGRAM = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        print("shut down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    import asyncio
    name = type(asyncio.get_running_loop()).__module__.encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": name})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_with_its_loop_option(
    backend: Backend, number: signal.Signals, tmp_path: Path
) -> None:
    """`uvicorn --loop weft:new_event_loop`, ended by a signal in good order."""
    (tmp_path / "program.py").write_text(PROGRAM)
    factory = "weft:new_event_loop" if backend.is_weft else "asyncio:SelectorEventLoop"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.set_inheritable(True)
        command = [sys.executable, "-m", "uvicorn", "program:app", "--loop", factory]
        with subprocess.Popen(
            [*command, "--fd", str(sock.fileno()), "--log-level", "error"],
            cwd=tmp_path,
            env=child_environment(),
            pass_fds=[sock.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child:
            try:
                url = f"http://127.0.0.1:{sock.getsockname()[1]}"
                module = httpx.get(url, timeout=20).text
                child.send_signal(number)
                out, err = child.communicate(timeout=20)
            finally:
                child.kill()
    assert module.startswith("weft" if backend.is_weft else "asyncio")
    assert out == b"shut down\n"
    assert err == b""
    # uvicorn raises the signal that ended it once more, when all is done.
    assert child.returncode in (0, -number, 130)
