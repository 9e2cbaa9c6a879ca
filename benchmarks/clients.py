"""The clients that run on each loop against a bare server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

Report = dict[str, float]
Client = Callable[[str, int, float, float], Awaitable[Report]]
"""Drives an address (host:port) over so many connections: warm-up and measured time in seconds."""


async def aiohttp(address: str, connections: int, warmup: float, measured: float) -> Report:
    """One session, and a worker per connection that asks again and again."""
    from aiohttp import ClientSession, TCPConnector

    url = f"http://{address}/"
    latencies: list[float] = []
    answered = 0
    begin = perf_counter() + warmup
    end = begin + measured

    async def work(session: ClientSession) -> None:
        nonlocal answered
        start = perf_counter()
        while start < end:
            async with session.get(url) as response:
                await response.read()
            answered += 1
            now = perf_counter()
            if begin <= now < end:
                latencies.append(now - start)
            start = now

    async with ClientSession(connector=TCPConnector(limit=connections)) as session:
        await asyncio.gather(*[work(session) for _ in range(connections)])
    return summarise(latencies, measured) | {"all_requests": answered}


def summarise(latencies: list[float], seconds: float) -> Report:
    """The same figures as the load generator reports."""
    if not latencies:
        raise RuntimeError("no request was answered")
    latencies.sort()
    last = len(latencies) - 1
    return {
        "requests_per_second": len(latencies) / seconds,
        "p50_us": latencies[last // 2] * 1e6,
        "p99_us": latencies[last * 99 // 100] * 1e6,
    }


CLIENTS: dict[str, Client] = {client.__name__: client for client in (aiohttp,)}
