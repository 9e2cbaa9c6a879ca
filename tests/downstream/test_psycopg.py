"""psycopg on PostgreSQL: it waits with add_reader and add_writer on libpq's own descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from peers import Run
from services import service

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

pytestmark = pytest.mark.slow


def options() -> dict[str, Any]:
    host, port = service("POSTGRESQL")
    return {
        "host": host,
        "port": port,
        "user": os.environ.get("WEFT_TEST_POSTGRESQL_USER", "postgres"),
        "dbname": os.environ.get("WEFT_TEST_POSTGRESQL_DATABASE", "test"),
        "connect_timeout": 10,
    }


@contextlib.asynccontextmanager
async def connected(**more: Any) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(**options(), **more) as connection:
        yield connection


def test_queries(run: Run) -> None:
    options()

    async def main() -> None:
        async with connected() as connection, connection.cursor() as cursor:
            await cursor.execute("select n, n * n from generate_series(1, 5000) n")
            assert await cursor.fetchall() == [(n, n * n) for n in range(1, 5001)]
            big = os.urandom(3_000_000)
            await cursor.execute("select %s::bytea", [big])
            assert (await cursor.fetchone())[0] == big
            with pytest.raises(psycopg.errors.DivisionByZero):
                await cursor.execute("select 1 / 0")
            await connection.rollback()
            async for row in cursor.stream("select generate_series(0, 999)"):
                assert 0 <= row[0] < 1000

    run(main())


def test_many_connections_at_once(run: Run) -> None:
    options()

    async def main() -> None:
        async def one(number: int) -> None:
            async with connected() as connection:
                for turn in range(5):
                    cursor = await connection.execute("select %s::int, %s::int", [number, turn])
                    assert await cursor.fetchone() == (number, turn)

        await asyncio.gather(*(one(number) for number in range(20)))

    run(main())


def test_copy_and_pipelines(run: Run) -> None:
    options()

    async def main() -> None:
        async with connected() as connection, connection.cursor() as cursor:
            await cursor.execute("create temp table item (id int, name text)")
            async with cursor.copy("copy item from stdin") as copy:
                for number in range(20_000):
                    await copy.write_row((number, f"item {number}"))
            async with connection.pipeline():
                results = [
                    await connection.execute("select name from item where id = %s", [number])
                    for number in range(100)
                ]
            assert [await result.fetchone() for result in results] == [
                (f"item {number}",) for number in range(100)
            ]

    run(main())


def test_notifications(run: Run) -> None:
    options()

    async def main() -> None:
        channel = f"weft_psycopg_{os.getpid()}"
        async with connected(autocommit=True) as one, connected(autocommit=True) as two:
            await one.execute(f"listen {channel}")
            for number in range(10):
                await two.execute(f"notify {channel}, 'message {number}'")
            received = [
                message.payload async for message in one.notifies(timeout=10, stop_after=10)
            ]
            assert received == [f"message {number}" for number in range(10)]

    run(main())


def test_cancellation(run: Run) -> None:
    options()

    async def main() -> None:
        async with connected() as connection:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(connection.execute("select pg_sleep(30)"), 0.03)
                await connection.rollback()
                cursor = await connection.execute("select 'again'")
                assert await cursor.fetchone() == ("again",)

    run(main())


def test_a_server_that_is_not_there(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(psycopg.OperationalError):
            await psycopg.AsyncConnection.connect("host=127.0.0.1 port=1 user=nobody")

    run(main())
