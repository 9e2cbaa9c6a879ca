"""pytest-asyncio and pytest-aiohttp: a project's tests on Weft, by the ways that they document."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from backends import Backend
from services import library

pytestmark = pytest.mark.slow

POLICY = """
import pytest, asyncio, warnings
{imports}

@pytest.fixture(scope="session")
def event_loop_policy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {policy}
"""

TESTS = """
import asyncio, contextvars
import pytest, pytest_asyncio

@pytest.fixture
def expected():
    return "{module}"

@pytest_asyncio.fixture
async def queue():
    queue = asyncio.Queue()
    await queue.put("item")
    yield queue
    await queue.join()

@pytest.mark.asyncio
async def test_loop(expected):
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == expected

@pytest.mark.asyncio
async def test_fixture(queue):
    assert await asyncio.wait_for(queue.get(), 1) == "item"
    queue.task_done()

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(20))
async def test_tasks(number):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0, number)) for _ in range(10)]
    assert [task.result() for task in tasks] == [number] * 10

@pytest.mark.asyncio(loop_scope="module")
class TestOneLoop:
    loop = None

    async def test_first(self):
        TestOneLoop.loop = asyncio.get_running_loop()

    async def test_second(self):
        assert TestOneLoop.loop is asyncio.get_running_loop()
"""

AIOHTTP_TESTS = """
import asyncio
from aiohttp import web

async def hello(request):
    await asyncio.sleep(0)
    return web.json_response({"loop": type(asyncio.get_running_loop()).__module__})

def application():
    app = web.Application()
    app.router.add_get("/", hello)
    return app

async def test_client(aiohttp_client):
    client = await aiohttp_client(application())
    answers = await asyncio.gather(*(client.get("/") for _ in range(20)))
    for answer in answers:
        assert (await answer.json())["loop"].partition(".")[0] == EXPECTED

async def test_server(aiohttp_server):
    server = await aiohttp_server(application())
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    assert b"200 OK" in await reader.read()
    writer.close()
"""


def passes(folder: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def project(folder: Path, backend: Backend, tests: str) -> None:
    if backend.name == "weft":
        imports, policy = "import weft", "weft.EventLoopPolicy()"
    else:
        imports, policy = "", "asyncio.DefaultEventLoopPolicy()"
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    (folder / "conftest.py").write_text(POLICY.format(imports=imports, policy=policy))
    (folder / "test_project.py").write_text(tests)


def test_pytest_asyncio(backend: Backend, tmp_path: Path) -> None:
    library("pytest_asyncio")
    project(tmp_path, backend, TESTS.replace("{module}", backend.name))
    assert "24 passed" in passes(tmp_path)


def test_pytest_aiohttp(backend: Backend, tmp_path: Path) -> None:
    library("pytest_asyncio")
    library("pytest_aiohttp")
    project(tmp_path, backend, f"EXPECTED = {backend.name!r}\n{AIOHTTP_TESTS}")
    assert "2 passed" in passes(tmp_path)
