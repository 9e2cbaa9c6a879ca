"""The clients that run on each loop, against a bare server or one of the machine's services."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

KIB = 1024
PIPELINE = 100
"""Commands in one of redis-py's pipelines."""

Report = dict[str, float]
Ask = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Load:
    """What a client is to do."""

    address: str
    """host:port, or nothing."""
    connections: int
    warmup: float
    """In seconds, as is the next."""
    measured: float


Client = Callable[[Load], Awaitable[Report]]


async def repeat(asks: list[Ask], load: Load) -> Report:
    """A task for each of `asks`, which asks again and again; the figures of the load generator."""
    latencies: list[float] = []
    over = False

    async def work(ask: Ask) -> None:
        start = perf_counter()
        while not over:
            await ask()
            now = perf_counter()
            latencies.append(now - start)
            start = now

    async def measure() -> Report:
        nonlocal over
        try:
            await asyncio.sleep(load.warmup)
            latencies.clear()
            begin, processor = perf_counter(), process_time()
            await asyncio.sleep(load.measured)
            while not latencies:
                await asyncio.sleep(0.01)
            seconds, processor = perf_counter() - begin, process_time() - processor
        finally:
            over = True
        found = sorted(latencies)
        last = len(found) - 1
        return {
            "per_second": len(found) / seconds,
            "cpu_us": processor / len(found) * 1e6,
            "p50_us": found[last // 2] * 1e6,
            "p99_us": found[last * 99 // 100] * 1e6,
        }

    measuring = asyncio.create_task(measure())
    await asyncio.gather(measuring, *[work(ask) for ask in asks])
    return measuring.result()


async def aiohttp(load: Load) -> Report:
    """One session that all workers share."""
    from aiohttp import ClientSession, TCPConnector

    url = f"http://{load.address}/"
    async with ClientSession(connector=TCPConnector(limit=load.connections)) as session:

        async def ask() -> None:
            async with session.get(url) as response:
                await response.read()

        return await repeat([ask] * load.connections, load)


async def httpx(load: Load) -> Report:
    """The same with httpx."""
    from httpx import AsyncClient, Limits

    url = f"http://{load.address}/"
    limits = Limits(max_connections=load.connections, max_keepalive_connections=load.connections)
    async with AsyncClient(limits=limits, trust_env=False) as client:

        async def ask() -> None:
            (await client.get(url)).raise_for_status()

        return await repeat([ask] * load.connections, load)


class _Guest(asyncio.Protocol):
    """Waits for the greeting of a server, and closes."""

    transport: asyncio.BaseTransport

    def __init__(self, over: asyncio.Future[None]) -> None:
        self.over = over

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set_result(None)


async def connect(load: Load) -> Report:
    """`create_connection`, one byte, `close`."""
    loop = asyncio.get_running_loop()
    host, port = load.address.split(":")

    async def ask() -> None:
        over = loop.create_future()
        await loop.create_connection(lambda: _Guest(over), host, int(port))
        await over

    return await repeat([ask] * load.connections, load)


async def asyncpg_value(load: Load) -> Report:
    """`select 1`."""

    async def ask(connection: object) -> None:
        await connection.fetchval("select 1")  # type: ignore[attr-defined]

    return await _asyncpg(ask, load)


async def asyncpg_rows(load: Load) -> Report:
    """A thousand rows of a number and a text."""
    query = "select number, 'row ' || number as label from generate_series(1, 1000) as number"

    async def ask(connection: object) -> None:
        rows = await connection.fetch(query)  # type: ignore[attr-defined]
        assert len(rows) == 1000

    return await _asyncpg(ask, load)


async def _asyncpg(ask: Callable[[object], Awaitable[None]], load: Load) -> Report:
    import asyncpg

    host, port = load.address.split(":")
    async with AsyncExitStack() as stack:
        asks: list[Ask] = []
        for _ in range(load.connections):
            connection = await asyncpg.connect(
                host=host,
                port=int(port),
                user=os.environ.get("WEFT_TEST_POSTGRESQL_USER", "postgres"),
                database=os.environ.get("WEFT_TEST_POSTGRESQL_DATABASE", "test"),
                ssl=False,
            )
            stack.push_async_callback(connection.close)
            asks.append(partial(ask, connection))
        return await repeat(asks, load)


async def redis(load: Load) -> Report:
    """Pipelines of as many GETs and SETs."""
    from redis.asyncio import Redis

    host, port = load.address.split(":")
    async with AsyncExitStack() as stack:
        asks: list[Ask] = []
        for number in range(load.connections):
            client = await stack.enter_async_context(
                Redis(host=host, port=int(port), single_connection_client=True)
            )
            key = f"weft-bench-{os.getpid()}-{number}"
            stack.push_async_callback(client.delete, key)

            async def ask(client: Redis = client, key: str = key) -> None:
                async with client.pipeline(transaction=False) as pipeline:
                    for _ in range(PIPELINE // 2):
                        pipeline.set(key, b"value")
                        pipeline.get(key)
                    await pipeline.execute()

            asks.append(ask)
        return await repeat(asks, load)


async def aiofiles(load: Load) -> Report:
    """Files of 64 KiB, opened, read and closed."""
    import aiofiles

    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        asks: list[Ask] = []
        for number in range(load.connections):
            path = Path(directory, str(number))
            path.write_bytes(b"." * (64 * KIB))

            async def ask(path: Path = path) -> None:
                async with aiofiles.open(path, "rb") as file:
                    assert len(await file.read()) == 64 * KIB

            asks.append(ask)
        return await repeat(asks, load)


CLIENTS: dict[str, Client] = {
    client.__name__: client
    for client in (aiohttp, httpx, connect, asyncpg_value, asyncpg_rows, redis, aiofiles)
}
