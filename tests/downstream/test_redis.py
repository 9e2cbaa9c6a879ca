"""redis-py: commands, pipelines, publish and subscribe, blocking commands, pools."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from cancelling import cancel_each_wait, cancel_some, collected  # noqa: F401
from killing import kill_in_the_middle
from peers import Run
from private import Redis
from services import library, service

redis = library("redis.asyncio")
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("collected")]

PREFIX = f"weft-test-{os.getpid()}"


@contextlib.asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[Any]:
    host, port = service("REDIS")
    client = redis.Redis(host=host, port=port, **options)
    try:
        yield client
    finally:
        async for key in client.scan_iter(f"{PREFIX}*"):
            await client.delete(key)
        await client.aclose()


def test_commands(run: Run) -> None:
    service("REDIS")

    async def main() -> None:
        async with connected(max_connections=10) as client:

            async def one(number: int) -> None:
                key = f"{PREFIX}:{number}"
                await client.set(key, f"value {number}")
                assert await client.get(key) == b"value %d" % number

            for start in range(0, 200, 10):
                await asyncio.gather(*(one(number) for number in range(start, start + 10)))
            big = os.urandom(3_000_000)
            await client.set(f"{PREFIX}:big", big)
            assert await client.get(f"{PREFIX}:big") == big

    run(main())


def test_pipelines_and_transactions(run: Run) -> None:
    service("REDIS")

    async def main() -> None:
        async with connected() as client:
            async with client.pipeline(transaction=True) as pipeline:
                for _ in range(1000):
                    pipeline.incr(f"{PREFIX}:counter")
                assert await pipeline.execute() == list(range(1, 1001))
            script = client.register_script("return ARGV[1] + 1")
            assert await script(args=[41]) == 42

    run(main())


def test_publish_and_subscribe(run: Run) -> None:
    service("REDIS")

    async def main() -> None:
        async with connected() as client, client.pubsub() as subscription:
            await subscription.subscribe(f"{PREFIX}:news")
            received: list[bytes] = []

            async def listen() -> None:
                async for message in subscription.listen():
                    if message["type"] == "message":
                        received.append(message["data"])
                        if len(received) == 50:
                            return

            listening = asyncio.ensure_future(listen())
            while not subscription.subscribed:
                await asyncio.sleep(0)
            while await client.publish(f"{PREFIX}:news", "0") != 1:
                await asyncio.sleep(0.001)
            for number in range(1, 50):
                await client.publish(f"{PREFIX}:news", str(number))
            async with asyncio.timeout(10):
                await listening
            assert received == [b"%d" % number for number in range(50)]
            # Nothing waits: it looks into the reader's buffer before it reads with a timeout.
            assert await subscription.get_message(timeout=0.01) is None

    run(main())


def test_blocking_commands_and_cancellation(run: Run) -> None:
    service("REDIS")

    async def main() -> None:
        async with connected(socket_timeout=None) as client:
            popping = asyncio.ensure_future(client.blpop(f"{PREFIX}:queue", timeout=10))
            await asyncio.sleep(0.01)
            await client.rpush(f"{PREFIX}:queue", "item")
            assert [*await popping] == [f"{PREFIX}:queue".encode(), b"item"]
            for _ in range(10):
                task = asyncio.ensure_future(client.blpop(f"{PREFIX}:nothing", timeout=10))
                # Until it is sure to wait for the answer.
                await asyncio.sleep(0.02)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            # No answer of a cancelled command comes to another.
            for number in range(50):
                assert await client.echo(f"echo {number}") == b"echo %d" % number

    run(main())


def test_cancelled_commands_do_not_cross(run: Run) -> None:
    service("REDIS")

    async def main() -> None:
        async with connected(max_connections=4) as client:
            for round_ in range(20):
                tasks = [
                    asyncio.ensure_future(client.echo(f"{round_}/{number}")) for number in range(4)
                ]
                await asyncio.sleep(0)
                tasks[round_ % 4].cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                for number, result in enumerate(results):
                    if not isinstance(result, asyncio.CancelledError):
                        assert result == b"%d/%d" % (round_, number)

    run(main())


def test_a_server_that_is_not_there(run: Run) -> None:
    async def main() -> None:
        client = redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
        with pytest.raises(redis.ConnectionError):
            await client.ping()
        await client.aclose()

    run(main())


# -- cancelled at every wait -----------------------------------------------------------------------


# It leaves a connection whose making was cancelled to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_cancelling_at_each_wait(run: Run) -> None:
    service("REDIS")

    async def main() -> None:
        async with connected(max_connections=2) as client:

            async def look() -> None:
                assert await asyncio.gather(client.echo("a"), client.echo("b")) == [b"a", b"b"]

            async def pipeline() -> None:
                async with client.pipeline(transaction=True) as pipeline:
                    await pipeline.watch(f"{PREFIX}:watched")
                    pipeline.multi()
                    for number in range(10):
                        pipeline.echo(f"lost {number}")
                    await pipeline.execute()

            async def subscribe() -> None:
                async with client.pubsub() as subscription:
                    await subscription.subscribe(f"{PREFIX}:quiet")
                    while await subscription.get_message(timeout=0.001) is not None:
                        pass

            async def fresh() -> None:
                host, port = service("REDIS")
                async with redis.Redis(host=host, port=port) as another:
                    await another.ping()

            big = "x" * 1_000_000
            requests = {
                "echo": lambda: client.echo("lost"),
                "big": lambda: client.echo(big),
                "pipeline": pipeline,
                "subscribe": subscribe,
                "fresh": fresh,
            }
            for name, request in requests.items():
                assert await cancel_each_wait(request, look) > 0, name
            pool = redis.BlockingConnectionPool.from_url(
                "redis://{}:{}".format(*service("REDIS")), max_connections=3, timeout=20
            )
            async with redis.Redis.from_pool(pool) as crowded:
                answers = await cancel_some(lambda number: crowded.echo(str(number)), count=200)
                assert answers == {number: b"%d" % number for number in answers}

    run(main())


# -- a server of our own: TLS, and killed in the middle --------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis.running() as server:
        yield server


def test_tls(run: Run, server: Redis) -> None:
    async def main() -> None:
        address = {"host": "localhost", "port": server.tls_port, "ssl": True}
        authority = str(server.folder / "authority.pem")
        async with redis.Redis(**address, ssl_ca_certs=authority) as client:
            big = os.urandom(3_000_000)
            assert await client.echo(big) == big

            async def look() -> None:
                assert await client.echo("seven") == b"seven"

            assert await cancel_each_wait(lambda: client.echo(big), look, every=5) > 0
        async with redis.Redis(**address, retry=Retry(NoBackoff(), 0)) as client:
            with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
                await client.ping()

    run(main())


def test_commands_survive_the_death_of_the_server(run: Run, server: Redis) -> None:
    async def main() -> None:
        async with redis.Redis(
            # The pool may still have a connection that nobody has used since the server died.
            host="127.0.0.1",
            port=server.port,
            retry=Retry(NoBackoff(), 3),
            max_connections=10,
        ) as client:
            await client.set("kept", "yes")

            async def ask(token: str) -> None:
                async with client.pipeline() as pipeline:
                    for turn in range(5):
                        pipeline.echo(f"{token}/{turn}")
                    answers = await pipeline.execute()
                assert answers == [f"{token}/{turn}".encode() for turn in range(5)]

            await kill_in_the_middle(server, ask, (redis.ConnectionError,))
            assert await client.get("kept") == b"yes"

    run(main())


def test_a_subscription_survives_the_death_of_the_server(run: Run, server: Redis) -> None:
    """It connects and subscribes again by itself, as long as its retries last."""

    async def main() -> None:
        retry = Retry(ConstantBackoff(0.01), 2000)
        async with (
            redis.Redis(host="127.0.0.1", port=server.port, retry=retry) as client,
            client.pubsub() as subscription,
        ):
            await subscription.subscribe("news")
            received: asyncio.Queue[bytes] = asyncio.Queue()

            async def listen() -> None:
                async for message in subscription.listen():
                    if message["type"] == "message":
                        received.put_nowait(message["data"])

            listening = asyncio.ensure_future(listen())
            for news in ("one", "two", "three"):
                while not await client.publish("news", news):
                    await asyncio.sleep(0.001)
                assert await asyncio.wait_for(received.get(), 10) == news.encode()
                if news != "three":
                    server.kill()
                    await asyncio.to_thread(server.start)
            listening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listening

    run(main())
