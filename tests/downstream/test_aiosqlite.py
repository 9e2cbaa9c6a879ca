"""aiosqlite: a thread for each connection, whose results come back by call_soon_threadsafe()."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cancelling import cancel_each_wait, cancel_some
from peers import Run
from services import library

aiosqlite = library("aiosqlite")

pytestmark = pytest.mark.slow


def test_queries(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with aiosqlite.connect(tmp_path / "database") as connection:
            await connection.execute("create table item (id integer primary key, name text)")
            await connection.executemany(
                "insert into item values (?, ?)", [(n, f"item {n}") for n in range(1000)]
            )
            await connection.commit()
            async with connection.execute("select * from item order by id") as cursor:
                rows = [row async for row in cursor]
            assert rows == [(n, f"item {n}") for n in range(1000)]
            with pytest.raises(aiosqlite.OperationalError):
                await connection.execute("select nonsense")
            await connection.execute("insert into item values (1000, 'lost')")
            await connection.rollback()

            async def one(number: int) -> None:
                async with connection.execute("select name from item where id = ?", [number]) as c:
                    assert await c.fetchone() == (f"item {number}",)

            await asyncio.gather(*(one(number) for number in range(200)))

    run(main())


def test_cancellation(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with aiosqlite.connect(tmp_path / "database") as connection:

            async def ask(number: int) -> int:
                async with connection.execute("select ?", [number]) as cursor:
                    return int((await cursor.fetchone())[0])

            async def look() -> None:
                assert await ask(7) == 7

            assert await cancel_each_wait(lambda: ask(-1), look) > 0
            answers = await cancel_some(ask, count=200)
            assert answers == {number: number for number in answers}

    run(main())
