"""psycopg on PostgreSQL: it waits with add_reader and add_writer on libpq's own descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from cancelling import cancel_each_wait, cancel_some, collected  # noqa: F401
from peers import Run
from private import PostgreSQL
from services import library, service

psycopg = library("psycopg")
psycopg_pool = library("psycopg_pool")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("collected")]


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


# -- cancelled at every wait -----------------------------------------------------------------------


async def value(connection: Any, query: str, *arguments: Any) -> Any:
    cursor = await connection.execute(query, arguments)
    return (await cursor.fetchone())[0]


def test_cancelling_at_each_wait(run: Run) -> None:
    options()

    async def main() -> None:
        async with connected(autocommit=True) as connection:

            async def look() -> None:
                assert await value(connection, "select %s::int", 7) == 7

            async def query() -> None:
                assert await value(connection, "select 'an ' || %s", "answer") == "an answer"

            assert await cancel_each_wait(query, look) > 0

    run(main())


# Between connecting and having connected it drops what it was about to return.
@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
def test_cancelling_connects_and_what_a_pool_does(run: Run) -> None:
    options()

    async def main() -> None:
        async def nothing() -> None:
            pass

        async def connect() -> None:
            async with connected():
                pass

        assert await cancel_each_wait(connect, nothing) > 0
        async with psycopg_pool.AsyncConnectionPool(
            kwargs=options(), min_size=1, max_size=3, open=False
        ) as pool:

            async def ask(number: int) -> Any:
                async with pool.connection() as connection:
                    return await value(connection, "select %s::int, pg_sleep(0.001)", number)

            async def look() -> None:
                assert await asyncio.gather(*(ask(number) for number in range(5))) == [*range(5)]

            # Where the end of one of these is cancelled, the pool drops the connection.
            async def transaction() -> None:
                async with pool.connection() as connection, connection.transaction():
                    await connection.execute("create temp table item (id int) on commit drop")
                    await connection.execute("insert into item values (1)")

            async def copy() -> None:
                async with pool.connection() as connection, connection.cursor() as cursor:
                    await cursor.execute("create temp table item (id int) on commit drop")
                    async with cursor.copy("copy item from stdin") as copy:
                        for number in range(3000):
                            await copy.write_row((number,))

            async def stream() -> None:
                async with pool.connection() as connection, connection.cursor() as cursor:
                    async for _ in cursor.stream("select generate_series(1, 50)"):
                        pass

            for request in (lambda: ask(-1), transaction, copy, stream):
                assert await cancel_each_wait(request, look) > 0, request
            answers = await cancel_some(ask)
            assert answers == {number: number for number in answers}
            await look()

    run(main())


# -- a server of our own: TLS, and killed in the middle --------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL.running() as server:
        yield server


def options_of(server: PostgreSQL) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": server.port, "user": "postgres", "connect_timeout": 10}


def test_tls(run: Run, server: PostgreSQL) -> None:
    authority = str(server.folder / "authority.pem")

    async def main() -> None:
        trusting = {"sslmode": "verify-full", "sslrootcert": authority}
        async with await psycopg.AsyncConnection.connect(
            **options_of(server), **trusting, autocommit=True
        ) as connection:
            assert connection.pgconn.ssl_in_use
            big = os.urandom(3_000_000)
            assert await value(connection, "select %s::bytea", big) == big

            async def look() -> None:
                assert await value(connection, "select %s::int", 7) == 7

            assert await cancel_each_wait(lambda: value(connection, "select 1"), look) > 0
        trusting["sslrootcert"] = str(server.folder / "nobody.pem")
        with pytest.raises(psycopg.OperationalError):
            await psycopg.AsyncConnection.connect(**options_of(server), **trusting)

    run(main())


def test_a_pool_survives_the_death_of_the_server(run: Run, server: PostgreSQL) -> None:
    async def main() -> None:
        answered = 0
        async with psycopg_pool.AsyncConnectionPool(
            kwargs=options_of(server),
            min_size=3,
            max_size=5,
            open=False,
            timeout=10,
            reconnect_timeout=30,
            # Asks a connection whether it lives before it gives it away.
            check=psycopg_pool.AsyncConnectionPool.check_connection,
        ) as pool:

            async def ask(number: int) -> None:
                nonlocal answered
                for turn in range(100):
                    async with pool.connection() as connection:
                        token = f"{number}/{turn}"
                        assert await value(connection, "select %s", token) == token
                    answered += 1

            askers = [asyncio.ensure_future(ask(number)) for number in range(5)]
            while answered < 50:
                await asyncio.sleep(0.001)
            server.kill()
            await asyncio.wait(askers, return_when=asyncio.FIRST_EXCEPTION)
            # The rest may wait for a connection that the pool goes on trying to get.
            await asyncio.to_thread(server.start)
            results = await asyncio.gather(*askers, return_exceptions=True)
            lost = [result for result in results if result is not None]
            assert lost
            for error in lost:
                assert isinstance(error, psycopg.OperationalError), error
            async with pool.connection() as connection:
                assert await value(connection, "select 'back'") == "back"

    run(main())


def test_a_listener_hears_that_its_server_died(run: Run, server: PostgreSQL) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(
            **options_of(server), autocommit=True
        ) as connection:
            await connection.execute("listen news")

            async def listen() -> None:
                async for _ in connection.notifies():
                    pass

            listening = asyncio.ensure_future(listen())
            await asyncio.sleep(0.01)
            server.kill()
            with pytest.raises(psycopg.OperationalError):
                await listening
            assert connection.closed
        await asyncio.to_thread(server.start)

    run(main())
