"""aiomysql on MariaDB: over streams, whose socket and buffer it also handles itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trusted
from cancelling import cancel_each_wait, cancel_some, collected  # noqa: F401
from killing import kill_in_the_middle
from peers import Run
from private import MariaDB
from services import library, service

aiomysql = library("aiomysql")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("collected")]


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


# -- cancelled at every wait -----------------------------------------------------------------------


# Where the making of a connection is cancelled, it is left to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*[Uu]nclosed:ResourceWarning")
def test_cancelling_what_a_pool_does_at_each_wait(run: Run) -> None:
    options()

    async def main() -> None:
        async with aiomysql.create_pool(**options(), minsize=0, maxsize=8) as pool:

            async def ask(number: int) -> Any:
                async with pool.acquire() as connection:
                    return await fetch(connection, "select %s, sleep(0.001)", number)

            async def transaction() -> None:
                async with pool.acquire() as connection:
                    await fetch(connection, "create or replace temporary table item (id int)")
                    await connection.begin()
                    await fetch(connection, "insert into item values (1)")
                    await connection.commit()

            async def look() -> None:
                answers = await asyncio.gather(*(ask(number) for number in range(4)))
                assert answers == [((number, 0),) for number in range(4)]

            for request in (lambda: ask(-1), transaction):
                assert await cancel_each_wait(request, look) > 0
            # As many as the pool has places: see below.
            answers = await cancel_some(ask, count=8)
            assert answers == {number: ((number, 0),) for number in answers}
            await look()

    run(main())


# -- a server of our own: TLS, and killed in the middle --------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    with MariaDB.running() as server:
        yield server


def options_of(server: MariaDB) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": server.port, "user": "root", "db": "test"}


def test_tls(run: Run, server: MariaDB) -> None:
    """It takes the socket out of the transport, and connects it again with TLS."""

    async def main() -> None:
        context = trusted.client_context()
        connection = await aiomysql.connect(**options_of(server), ssl=context)
        ((_, cipher),) = await fetch(connection, "show status like 'Ssl_cipher'")
        assert cipher
        big = os.urandom(500_000)
        assert await fetch(connection, "select unhex(%s)", big.hex()) == ((big,),)
        await connection.ensure_closed()
        with pytest.raises(aiomysql.OperationalError):
            await aiomysql.connect(**options_of(server), ssl=ssl.create_default_context())

    run(main())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_pool_survives_the_death_of_the_server(run: Run, server: MariaDB, tls: bool) -> None:
    async def main() -> None:
        context = trusted.client_context() if tls else None
        async with aiomysql.create_pool(
            **options_of(server), ssl=context, minsize=0, maxsize=5
        ) as pool:

            async def ask(token: str) -> None:
                async with pool.acquire() as connection:
                    assert await fetch(connection, "select %s", token) == ((token,),)

            # No more than the pool has places: who waits for one never hears that a connect failed.
            await kill_in_the_middle(server, ask, (aiomysql.Error, OSError), askers=5)
            writers = [connection._writer for connection in pool._free]
        # The pool closes its connections and does not wait for them, which takes TLS a moment.
        for writer in writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    run(main())
