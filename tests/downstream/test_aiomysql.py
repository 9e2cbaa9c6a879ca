"""aiomysql on MariaDB: over streams, whose socket and buffer it also handles itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from peers import Run
from services import service

aiomysql = pytest.importorskip("aiomysql", reason="aiomysql is not installed")

pytestmark = pytest.mark.slow


def options() -> dict[str, Any]:
    host, port = service("MARIADB")
    return {
        "host": host,
        "port": port,
        "user": os.environ.get("WEFT_TEST_MARIADB_USER", "root"),
        "password": os.environ.get("WEFT_TEST_MARIADB_PASSWORD", ""),
        "db": os.environ.get("WEFT_TEST_MARIADB_DATABASE", "test"),
        "connect_timeout": 10,
    }


@contextlib.asynccontextmanager
async def connected(**more: Any) -> AsyncIterator[Any]:
    connection = await aiomysql.connect(**options(), **more)
    try:
        yield connection
    finally:
        await connection.ensure_closed()


async def fetch(connection: Any, query: str, *arguments: Any) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(query, arguments)
        return await cursor.fetchall()


def test_queries(run: Run) -> None:
    options()

    async def main() -> None:
        async with connected() as connection:
            await fetch(connection, "create temporary table item (id int, name longblob)")
            for number in range(500):
                await fetch(
                    connection, "insert into item values (%s, %s)", number, f"item {number}"
                )
            rows = await fetch(connection, "select id, name from item order by id")
            assert list(rows) == [(n, b"item %d" % n) for n in range(500)]
            big = os.urandom(1_000_000)
            await fetch(connection, "insert into item values (%s, unhex(%s))", 1000, big.hex())
            assert await fetch(connection, "select name from item where id = 1000") == ((big,),)
            with pytest.raises(aiomysql.ProgrammingError):
                await fetch(connection, "select nonsense from nowhere")
            assert await fetch(connection, "select 'alive'") == (("alive",),)

    run(main())


def test_a_pool(run: Run) -> None:
    options()

    async def main() -> None:
        async with aiomysql.create_pool(**options(), minsize=1, maxsize=5) as pool:

            async def one(number: int) -> None:
                async with pool.acquire() as connection:
                    assert await fetch(connection, "select %s", number) == ((number,),)

            await asyncio.gather(*(one(number) for number in range(100)))

    run(main())


def test_cancellation(run: Run) -> None:
    options()

    async def main() -> None:
        for _ in range(3):
            connection = await aiomysql.connect(**options())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(fetch(connection, "select sleep(30)"), 0.03)
            connection.close()
        async with connected() as connection:
            assert await fetch(connection, "select 1") == ((1,),)

    run(main())


def test_a_server_that_is_not_there(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(aiomysql.OperationalError):
            await aiomysql.connect(host="127.0.0.1", port=1)

    run(main())
