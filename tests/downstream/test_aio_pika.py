"""aio-pika on RabbitMQ: confirms, consumers, acknowledgements, reconnecting."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from peers import Run
from services import service

aio_pika = pytest.importorskip("aio_pika", reason="aio-pika is not installed")

pytestmark = pytest.mark.slow


def url() -> str:
    host, port = service("RABBITMQ")
    login = os.environ.get("WEFT_TEST_RABBITMQ_LOGIN", "guest:guest")
    return f"amqp://{login}@{host}:{port}/"


@contextlib.asynccontextmanager
async def channel(connect: Any = aio_pika.connect) -> AsyncIterator[Any]:
    connection = await connect(url(), timeout=10)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=20)
        yield channel


def test_publishing_and_consuming(run: Run) -> None:
    url()

    async def main() -> None:
        async with channel() as out, channel() as in_:
            queue = await in_.declare_queue(exclusive=True)
            bodies = [b"message %d" % number for number in range(300)] + [os.urandom(500_000)]
            for body in bodies:
                await out.default_exchange.publish(aio_pika.Message(body), queue.name)
            received = []
            async with asyncio.timeout(20), queue.iterator() as messages:
                async for message in messages:
                    async with message.process():
                        received.append(message.body)
                    if len(received) == len(bodies):
                        break
            assert received == bodies

    run(main())


def test_many_requests_and_answers(run: Run) -> None:
    url()

    async def main() -> None:
        async with channel(aio_pika.connect_robust) as server, channel() as client:
            questions = await server.declare_queue(exclusive=True, auto_delete=True)

            async def answer(message: Any) -> None:
                async with message.process():
                    await server.default_exchange.publish(
                        aio_pika.Message(
                            message.body.upper(), correlation_id=message.correlation_id
                        ),
                        message.reply_to,
                    )

            consumer = await questions.consume(answer)
            answers = await client.declare_queue(exclusive=True)
            waiting: dict[str, asyncio.Future[bytes]] = {}

            async def resolve(message: Any) -> None:
                waiting[message.correlation_id].set_result(message.body)

            await answers.consume(resolve, no_ack=True)

            async def ask(number: int) -> bytes:
                waiting[str(number)] = asyncio.get_running_loop().create_future()
                await client.default_exchange.publish(
                    aio_pika.Message(
                        b"question %d" % number,
                        correlation_id=str(number),
                        reply_to=answers.name,
                    ),
                    questions.name,
                )
                return await waiting[str(number)]

            async with asyncio.timeout(20):
                results = await asyncio.gather(*(ask(number) for number in range(100)))
            assert results == [b"QUESTION %d" % number for number in range(100)]
            await questions.cancel(consumer)

    run(main())


def test_cancellation(run: Run) -> None:
    url()

    async def main() -> None:
        for turns in range(0, 40, 8):
            task = asyncio.ensure_future(aio_pika.connect(url()))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await task).close()
        async with channel() as one:
            queue = await one.declare_queue(exclusive=True)
            with pytest.raises(aio_pika.exceptions.QueueEmpty):
                await queue.get(timeout=5)

    run(main())
