"""The rows of real libraries: servers that the load generator drives, and clients."""

from __future__ import annotations

from benchmarks.network import NetworkRow


def _web(name: str, server: str, tls: bool = False) -> NetworkRow:
    return NetworkRow(f"{name} x50", server, mode="http", tls=tls, group="programs")


def _alone(name: str, client: str, connections: int, service: str = "") -> NetworkRow:
    """A client that the load generator has no part in."""
    return NetworkRow(
        f"{name} x{connections}",
        client=client,
        mode="",
        connections=connections,
        service=service,
        limited=False,
        group="programs",
    )


PROGRAM_ROWS = {
    row.name: row
    for row in (
        _web("aiohttp server", "aiohttp"),
        _web("aiohttp https server", "aiohttp", tls=True),
        _web("uvicorn", "uvicorn"),
        _web("uvicorn h11", "uvicorn_h11"),
        _web("FastAPI", "fastapi"),
        NetworkRow("websockets 1K x50", "websockets", mode="websocket", group="programs"),
        NetworkRow("aiohttp client x50", client="aiohttp", mode="http", group="programs"),
        NetworkRow("httpx client x50", client="httpx", mode="http", group="programs"),
        _alone("asyncpg select 1", "asyncpg_value", 10, "POSTGRESQL"),
        _alone("asyncpg 1,000 rows", "asyncpg_rows", 10, "POSTGRESQL"),
        _alone("redis-py pipeline", "redis", 10, "REDIS"),
        _alone("aiofiles 64K", "aiofiles", 10),
    )
}
