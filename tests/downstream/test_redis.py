"""redis-py: commands, pipelines, publish and subscribe, blocking commands, pools."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from peers import Run
from services import service

redis = pytest.importorskip("redis.asyncio", reason="redis-py is not installed")
from redis.asyncio.retry import Retry  # noqa: E402
from redis.backoff import NoBackoff  # noqa: E402

pytestmark = pytest.mark.slow

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
