"""SQLAlchemy's asyncio engine on asyncpg: its greenlets switch to the loop wherever they wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from cancelling import cancel_each_wait, cancel_some, collected  # noqa: F401
from killing import kill_in_the_middle
from peers import Run
from private import PostgreSQL
from services import library, service

sqlalchemy = library("sqlalchemy")
library("asyncpg")
library("greenlet")
from sqlalchemy import exc, orm, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("collected"),
    # A connection whose making was cancelled is left to the garbage collector.
    pytest.mark.filterwarnings("ignore:.*garbage collector:sqlalchemy.exc.SAWarning"),
]


class Base(orm.DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = f"weft_item_{os.getpid()}"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]


def url() -> str:
    host, port = service("POSTGRESQL")
    user = os.environ.get("WEFT_TEST_POSTGRESQL_USER", "postgres")
    database = os.environ.get("WEFT_TEST_POSTGRESQL_DATABASE", "test")
    return f"postgresql+asyncpg://{user}@{host}:{port}/{database}"


def test_sessions_and_transactions(run: Run) -> None:
    async def main() -> None:
        engine = create_async_engine(url(), pool_size=5)
        session_of = async_sessionmaker(engine, expire_on_commit=False)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        try:
            async with session_of() as session, session.begin():
                session.add_all(Item(id=number, name=f"item {number}") for number in range(200))

            async def one(number: int) -> None:
                async with session_of() as session:
                    item = await session.get(Item, number)
                    assert item is not None and item.name == f"item {number}"

            await asyncio.gather(*(one(number) for number in range(100)))
            with pytest.raises(exc.IntegrityError):
                async with session_of() as session, session.begin():
                    session.add(Item(id=1, name="again"))
            async with session_of() as session:
                rows = await session.stream_scalars(sqlalchemy.select(Item).order_by(Item.id))
                assert [item.id async for item in rows] == [*range(200)]
        finally:
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.drop_all)
            await engine.dispose()

    run(main())


# A cancelled connect of asyncpg's leaves a future whose exception nobody asks for.
def test_cancellation(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        engine = create_async_engine(url(), pool_size=3, max_overflow=0)

        async def ask(number: int) -> Any:
            async with engine.connect() as connection:
                return await connection.scalar(text(f"select {number}, pg_sleep(0.001)"))

        async def look() -> None:
            answers = await asyncio.gather(*(ask(number) for number in range(5)))
            assert answers == [*range(5)]

        assert await cancel_each_wait(lambda: ask(-1), look) > 0
        answers = await cancel_some(ask)
        assert answers == {number: number for number in answers}
        await look()
        await engine.dispose()

    run(main())


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL.running() as server:
        yield server


def test_an_engine_survives_the_death_of_the_server(run: Run, server: PostgreSQL) -> None:
    async def main() -> None:
        engine = create_async_engine(
            f"postgresql+asyncpg://postgres@127.0.0.1:{server.port}/postgres", pool_pre_ping=True
        )

        async def ask(token: str) -> None:
            async with engine.connect() as connection:
                assert await connection.scalar(text(f"select '{token}'")) == token

        await kill_in_the_middle(server, ask, (exc.DBAPIError, OSError))
        await engine.dispose()

    run(main())
