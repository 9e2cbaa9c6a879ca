"""uvicorn with FastAPI: requests, threads, streams, web sockets, its loop option, its signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trusted
from backends import Backend
from cancelling import cancel_each_wait, cancel_some
from children import child_environment
from killing import kill_in_the_middle
from peers import Run
from private import Program
from services import library

uvicorn = library("uvicorn")
fastapi = library("fastapi")
httpx = library("httpx")
from fastapi.responses import StreamingResponse

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
    library("websockets")
    library(ws.partition("-")[0])
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
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.set_inheritable(True)
        command = [sys.executable, "-m", "uvicorn", "program:app", "--loop", loop_option(backend)]
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


# -- as FastAPI uses anyio -------------------------------------------------------------------------


def test_threads_task_groups_and_back(run: Run) -> None:
    """Blocking endpoints and dependencies run in anyio's threads, and call back into the loop."""
    import anyio
    from anyio import from_thread, to_thread

    app = fastapi.FastAPI()
    closed: list[int] = []

    def dependency(number: int) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        try:
            yield number
        finally:
            closed.append(number)

    async def double(number: int) -> int:
        await anyio.sleep(0)
        return 2 * number

    @app.get("/blocking/{number}")
    def blocking(number: int = fastapi.Depends(dependency)) -> int:
        return from_thread.run(double, number)

    @app.get("/group/{number}")
    async def group(number: int) -> list[int]:
        results: list[int] = []

        async def work(part: int) -> None:
            results.append(await to_thread.run_sync(lambda: part * part))

        async with anyio.create_task_group() as tasks:
            for part in range(number):
                tasks.start_soon(work, part)
        return sorted(results)

    @app.get("/late")
    async def late() -> str:
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        return "late"

    async def main() -> None:
        async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:

            async def one(number: int) -> None:
                assert (await client.get(f"/blocking/{number}")).json() == 2 * number
                parts = number % 5
                expected = [part * part for part in range(parts)]
                assert (await client.get(f"/group/{parts}")).json() == expected

            await asyncio.gather(*(one(number) for number in range(60)))
            assert (await client.get("/late")).json() == "late"

            async def look() -> None:
                await one(7)

            # It runs in the same loop: what the client gives up, the server has to notice.
            assert await cancel_each_wait(lambda: one(-1), look) > 0
            await cancel_some(one)

    run(main())
    assert set(closed) >= {*range(60)}


# -- clients that leave, and servers that end ------------------------------------------------------


def test_a_stream_ends_when_its_client_leaves(run: Run) -> None:
    """Starlette cancels the task that streams; the generator is closed where it stands."""

    async def main() -> None:
        ended: asyncio.Queue[str] = asyncio.Queue()
        app = fastapi.FastAPI()

        @app.get("/endless")
        async def endless() -> Any:
            async def pieces() -> AsyncIterator[bytes]:
                try:
                    while True:
                        yield b"x" * 10_000
                        await asyncio.sleep(0)
                except BaseException as error:
                    ended.put_nowait(type(error).__name__)
                    raise

            return StreamingResponse(pieces())

        @app.get("/silent")
        async def silent() -> Any:
            async def pieces() -> AsyncIterator[bytes]:
                try:
                    yield b"first"
                    await asyncio.Event().wait()
                except BaseException as error:
                    ended.put_nowait(type(error).__name__)
                    raise

            return StreamingResponse(pieces())

        @app.websocket("/news")
        async def news(socket: fastapi.WebSocket) -> None:
            await socket.accept()
            try:
                await socket.receive_text()
            except fastapi.WebSocketDisconnect as error:
                ended.put_nowait(type(error).__name__)

        async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
            for path in ("/endless", "/silent"):
                for _ in range(3):
                    async with client.stream("GET", path) as response:
                        async for _ in response.aiter_bytes():
                            break
                    reason = await asyncio.wait_for(ended.get(), 10)
                    assert reason in ("CancelledError", "GeneratorExit")
            websockets = library("websockets.asyncio.client")
            async with websockets.connect(url.replace("http", "ws") + "/news") as socket:
                socket.transport.abort()
            assert await asyncio.wait_for(ended.get(), 10) == "WebSocketDisconnect"

    run(main())


def test_tls(run: Run) -> None:
    async def main(folder: Path) -> None:
        files = {
            "ssl_certfile": str(folder / "certificate.pem"),
            "ssl_keyfile": str(folder / "key.pem"),
        }
        context = trusted.client_context()
        async with serving(application([]), **files) as url:
            url = url.replace("http:", "https:")
            async with httpx.AsyncClient(base_url=url, verify=context) as client:
                answers = await asyncio.gather(*(client.get(f"/async/{n}") for n in range(20)))
                assert [answer.json()["number"] for answer in answers] == [*range(20)]
                body = b"z" * 2_000_000
                assert (await client.post("/echo", content=body)).content == body

    with tempfile.TemporaryDirectory() as folder:
        trusted.write_to(Path(folder))
        run(main(Path(folder)))


SERVER = """
import asyncio, sys
import fastapi, uvicorn

app = fastapi.FastAPI()

@app.post("/echo")
async def echo(request: fastapi.Request):
    return fastapi.Response(await request.body())

@app.get("/slow")
async def slow(tasks: fastapi.BackgroundTasks):
    print("asked", flush=True)
    tasks.add_task(print, "background", flush=True)
    await asyncio.sleep(0.3)
    return "at last"

if __name__ == "__main__":
    uvicorn.run("program:app", port=int(sys.argv[1]), loop=LOOP, log_level="error")
"""


def loop_option(backend: Backend) -> str:
    return "weft:new_event_loop" if backend.is_weft else "asyncio:SelectorEventLoop"


def test_a_client_survives_the_death_of_the_server(run: Run, backend: Backend) -> None:
    async def main(server: Program) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:

            async def ask(token: str) -> None:
                assert (await client.post("/echo", content=token)).text == token

            await kill_in_the_middle(server, ask, (httpx.TransportError,))
            # Told to end, it answers what it was asked before, and does what it had put off.
            asked = asyncio.ensure_future(client.get("/slow"))
            async with asyncio.timeout(20):
                while "asked" not in server.log():
                    await asyncio.sleep(0.001)
                assert await asyncio.to_thread(server.end, signal.SIGTERM) in (0, -signal.SIGTERM)
                assert (await asked).json() == "at last"
            assert server.log() == "asked\nbackground\n"
            with pytest.raises(httpx.ConnectError):
                await client.get("/slow")

    with Program.running(SERVER.replace("LOOP", repr(loop_option(backend)))) as server:
        run(main(server))
