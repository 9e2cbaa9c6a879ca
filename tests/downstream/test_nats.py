"""nats-py: publish, subscribe, queue groups, requests."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from peers import Run
from services import service

nats = pytest.importorskip("nats", reason="nats-py is not installed")

pytestmark = pytest.mark.slow

SUBJECT = f"weft.test.{os.getpid()}"


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Any]:
    host, port = service("NATS")
    client = await nats.connect(f"nats://{host}:{port}", connect_timeout=10)
    try:
        yield client
    finally:
        await client.drain()


def test_publish_and_subscribe(run: Run) -> None:
    service("NATS")

    async def main() -> None:
        async with connected() as publisher, connected() as subscriber:
            subscription = await subscriber.subscribe(f"{SUBJECT}.>")
            await subscriber.flush()
            for number in range(500):
                await publisher.publish(f"{SUBJECT}.{number}", b"x" * number)
            async with asyncio.timeout(10):
                for number in range(500):
                    message = await subscription.next_msg(timeout=10)
                    assert message.subject == f"{SUBJECT}.{number}"
                    assert len(message.data) == number

    run(main())


def test_requests_to_a_group_of_workers(run: Run) -> None:
    service("NATS")

    async def main() -> None:
        async with connected() as one, connected() as two, connected() as client:
            for worker in (one, two):

                async def answer(message: Any) -> None:
                    await message.respond(message.data.upper())

                await worker.subscribe(SUBJECT, queue="workers", cb=answer)
                await worker.flush()
            answers = await asyncio.gather(
                *(client.request(SUBJECT, b"q%d" % n, timeout=10) for n in range(200))
            )
            assert [answer.data for answer in answers] == [b"Q%d" % n for n in range(200)]
            with pytest.raises((TimeoutError, nats.errors.NoRespondersError)):
                await client.request(f"{SUBJECT}.nobody", b"?", timeout=0.1)

    run(main())


def test_cancellation(run: Run) -> None:
    service("NATS")

    async def main() -> None:
        async with connected() as client:
            subscription = await client.subscribe(f"{SUBJECT}.quiet")
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(subscription.next_msg(timeout=10), 0.005)
            await client.publish(f"{SUBJECT}.quiet", b"at last")
            assert (await subscription.next_msg(timeout=10)).data == b"at last"

    run(main())
