"""asyncpg on PostgreSQL: queries, transactions, COPY, notifications, pools, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trusted
from cancelling import cancel_each_wait, cancel_some
from killing import kill_in_the_middle
from peers import Run
from private import PostgreSQL
from services import library, service

asyncpg = library("asyncpg")

pytestmark = pytest.mark.slow


def options() -> dict[str, Any]:
    host, port = service("POSTGRESQL")
    return {
        "host": host,
        "port": port,
        "user": os.environ.get("WEFT_TEST_POSTGRESQL_USER", "postgres"),
        "database": os.environ.get("WEFT_TEST_POSTGRESQL_DATABASE", "test"),
        "ssl": False,
        "timeout": 10,
    }


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Any]:
    connection = await asyncpg.connect(**options())
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


def test_queries(run: Run) -> None:
    options()

    async def main() -> None:
        async with connected() as connection:
            assert await connection.fetchval("select $1::int + 1", 41) == 42
            rows = await connection.fetch(
                "select n, n * n as square from generate_series(1, 5000) n"
            )
            assert [(row["n"], row["square"]) for row in rows] == [
                (n, n * n) for n in range(1, 5001)
            ]
            big = os.urandom(3_000_000)
            assert await connection.fetchval("select $1::bytea", big) == big
            statement = await connection.prepare("select $1::text || $2::text")
            for number in range(100):
                assert await statement.fetchval("row ", str(number)) == f"row {number}"
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.fetchval("select 1 / 0")
            assert await connection.fetchval("select 'alive'") == "alive"

    run(main())


def test_transactions_and_copy(run: Run) -> None:
    """COPY writes with writelines() of its own buffer objects, and is held back by flow control."""
    options()

    async def main() -> None:
        async with connected() as connection:
            await connection.execute("create temp table item (id int, name text)")
            with contextlib.suppress(ZeroDivisionError):
                async with connection.transaction():
                    await connection.execute("insert into item values (1, 'lost')")
                    raise ZeroDivisionError
            async with connection.transaction():
                await connection.executemany(
                    "insert into item values ($1, $2)", [(n, f"item {n}") for n in range(1000)]
                )
            assert await connection.fetchval("select count(*) from item") == 1000
            records = [(n, f"copied {n} " + "x" * 100) for n in range(1000, 30_000)]
            result = await connection.copy_records_to_table("item", records=records)
            assert result == f"COPY {len(records)}"
            out = io.BytesIO()
            await connection.copy_from_query("select * from item where id >= 1000", output=out)
            assert len(out.getvalue().splitlines()) == len(records)
            async with connection.transaction():
                count = 0
                async for row in connection.cursor("select * from item order by id"):
                    assert row["id"] == count
                    count += 1
            assert count == 30_000

    run(main())


def test_notifications(run: Run) -> None:
    options()

    async def main() -> None:
        received: asyncio.Queue[str] = asyncio.Queue()
        channel = f"weft_{os.getpid()}"
        async with connected() as listener, connected() as notifier:
            await listener.add_listener(channel, lambda *message: received.put_nowait(message[3]))
            for number in range(20):
                await notifier.execute(f"notify {channel}, 'message {number}'")
            async with asyncio.timeout(10):
                messages = [await received.get() for _ in range(20)]
            assert messages == [f"message {number}" for number in range(20)]
            await listener.reset()

    run(main())


def test_a_pool(run: Run) -> None:
    options()

    async def main() -> None:
        async with asyncpg.create_pool(**options(), min_size=2, max_size=5) as pool:

            async def one(number: int) -> int:
                async with pool.acquire() as connection:
                    return int(await connection.fetchval("select $1::int * 2", number))

            results = await asyncio.gather(*(one(number) for number in range(300)))
            assert results == [2 * number for number in range(300)]

    run(main())


def test_cancellation_and_timeouts(run: Run) -> None:
    """A cancelled query is cancelled on the server too, over a second connection."""
    options()

    async def main() -> None:
        async with connected() as connection:
            with pytest.raises(TimeoutError):
                await connection.fetchval("select pg_sleep(30)", timeout=0.05)
            assert await connection.fetchval("select 1") == 1
            for _ in range(5):
                task = asyncio.ensure_future(connection.fetchval("select pg_sleep(30)"))
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await connection.fetchval("select 'again'") == "again"
        async with asyncpg.create_pool(**options(), min_size=1, max_size=2) as pool:
            tasks = [
                asyncio.ensure_future(pool.fetchval("select pg_sleep(0.02)")) for _ in range(20)
            ]
            await asyncio.sleep(0.01)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
            assert not any(isinstance(result, BaseException) for result in results[1::2])

    run(main())


def test_a_server_without_tls_is_asked_for_it(run: Run) -> None:
    """`prefer` begins with the request for TLS, and falls back on the same or a new connection."""
    options()

    async def main() -> None:
        connection = await asyncpg.connect(**{**options(), "ssl": "prefer"})
        assert await connection.fetchval("select 1") == 1
        await connection.close()

    run(main())


# -- cancelled at every wait -----------------------------------------------------------------------


def test_cancelling_a_query_at_each_of_its_waits(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    options()

    async def main() -> None:
        async with connected() as connection:
            await connection.execute("create temp table item (id int)")

            async def look() -> None:
                # Where it was the end of a transaction that was cancelled, that is still open:
                # reset() says so in the log, and ends it.
                await connection.reset()
                assert await connection.fetchval("select $1::int", 7) == 7

            async def transaction() -> None:
                async with connection.transaction():
                    await connection.execute("insert into item values (1)")

            async def cursor() -> None:
                async with connection.transaction():
                    async for _ in connection.cursor("select generate_series(1, 120)"):
                        pass

            async def copy() -> None:
                await connection.copy_records_to_table("item", records=[(n,) for n in range(9000)])

            requests = {
                "query": lambda: connection.fetchval("select 'an ' || $1::text", "answer"),
                "transaction": transaction,
                "cursor": cursor,
                "copy": copy,
            }
            for name, request in requests.items():
                assert await cancel_each_wait(request, look) > 0, name

    run(main())


def test_cancelling_connects_and_what_a_pool_does(run: Run) -> None:
    options()

    async def main() -> None:
        async def nothing() -> None:
            pass

        async def connect() -> None:
            await (await asyncpg.connect(**options())).close()

        assert await cancel_each_wait(connect, nothing) > 0
        async with asyncpg.create_pool(**options(), min_size=1, max_size=2) as pool:

            async def look() -> None:
                answers = await asyncio.gather(*(pool.fetchval(f"select {n}") for n in range(4)))
                assert answers == [*range(4)]

            assert await cancel_each_wait(lambda: pool.fetchval("select 'lost'"), look) > 0

            async def ask(number: int) -> Any:
                async with pool.acquire() as connection:
                    return await connection.fetchval("select $1::int, pg_sleep(0.001)", number)

            answers = await cancel_some(ask)
            assert answers == {number: number for number in answers}
            await look()

    run(main())


# -- a server of our own: TLS, and killed in the middle --------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL.running() as server:
        yield server


LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg says where a connection ends in the middle: it depends on what the middle was."""


def options_of(server: PostgreSQL) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": server.port, "user": "postgres", "timeout": 10}


def test_tls(run: Run, server: PostgreSQL) -> None:
    async def main() -> None:
        context = trusted.client_context()
        connection = await asyncpg.connect(**options_of(server), ssl=context)
        assert await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        big = os.urandom(3_000_000)
        assert await connection.fetchval("select $1::bytea", big) == big

        async def look() -> None:
            assert await connection.fetchval("select $1::int", 7) == 7

        request = connection.fetchval
        assert await cancel_each_wait(lambda: request("select pg_sleep(0.001)"), look) > 0
        await connection.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg.connect(**options_of(server), ssl=ssl.create_default_context())

    run(main())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_pool_survives_the_death_of_the_server(run: Run, server: PostgreSQL, tls: bool) -> None:
    async def main() -> None:
        context = trusted.client_context() if tls else False
        async with asyncpg.create_pool(
            **options_of(server), ssl=context, min_size=3, max_size=6
        ) as pool:

            async def ask(token: str) -> None:
                assert await pool.fetchval("select $1::text", token) == token

            await kill_in_the_middle(server, ask, LOST)

    run(main())


def test_a_listener_hears_that_its_server_died(run: Run, server: PostgreSQL) -> None:
    async def main() -> None:
        lost = asyncio.Event()
        connection = await asyncpg.connect(**options_of(server), ssl=False)
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener("news", lambda *message: None)
        copying = asyncio.ensure_future(
            connection.copy_from_query(
                "select repeat('x', 1000) from generate_series(1, 1000000)", output=os.devnull
            )
        )
        await asyncio.sleep(0.02)
        server.kill()
        await asyncio.wait_for(lost.wait(), 10)
        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await copying
        assert connection.is_closed()
        await asyncio.to_thread(server.start)
        received: asyncio.Queue[str] = asyncio.Queue()
        connection = await asyncpg.connect(**options_of(server), ssl=False)
        await connection.add_listener("news", lambda *message: received.put_nowait(message[3]))
        await connection.execute("notify news, 'back'")
        assert await asyncio.wait_for(received.get(), 10) == "back"
        await connection.close()

    run(main())
