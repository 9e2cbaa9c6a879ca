"""aio-pika on RabbitMQ: confirms, consumers, acknowledgements, reconnecting."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cancelling import cancel_each_wait
from peers import Run
from private import Relay
from services import library, service

aio_pika = library("aio_pika")

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


def test_cancelling_at_each_wait(run: Run) -> None:
    url()

    async def main() -> None:
        async with await aio_pika.connect(url(), timeout=10) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            sent = 0

            async def publish() -> None:
                nonlocal sent
                sent += 1
                message = aio_pika.Message(b"%d" % sent)
                await channel.default_exchange.publish(message, queue.name)

            async def take() -> None:
                # It closes the channel of a request that is cancelled while the server has it.
                async with connection.channel() as another:
                    there = await another.get_queue(queue.name)
                    message = await there.get(timeout=10, fail=False)
                    if message is not None:
                        await message.ack()

            async def look() -> None:
                """What is sent now arrives, after what was sent before."""
                await publish()
                arrived = 0
                while arrived != sent:
                    message = await queue.get(timeout=10)
                    await message.ack()
                    arrived = int(message.body)
                    assert arrived <= sent

            for request in (publish, take):
                assert await cancel_each_wait(request, look) > 0

    run(main())


# -- a connection that dies in the middle ----------------------------------------------------------
#
# A RabbitMQ of our own takes some five seconds to start. What is killed and comes back here is a
# process in between, which looks the same from this side.


LOST = (
    aio_pika.exceptions.AMQPError,
    aio_pika.exceptions.ChannelInvalidStateError,
    OSError,
)


def relayed(relay: Relay, tls: bool) -> str:
    login = url().partition("//")[2].partition("@")[0]
    if not tls:
        return f"amqp://{login}@127.0.0.1:{relay.port}/"
    authority = relay.folder / "authority.pem"
    return f"amqps://{login}@localhost:{relay.port}/?cafile={authority}"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_robust_connection_comes_back(run: Run, tls: bool) -> None:
    url()

    async def main(relay: Relay) -> None:
        connection = await aio_pika.connect_robust(
            relayed(relay, tls), reconnect_interval=0.02, timeout=10
        )
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(f"weft-test-{os.getpid()}", auto_delete=True)
            received: asyncio.Queue[bytes] = asyncio.Queue()

            async def receive(message: Any) -> None:
                # An acknowledgement may be lost with the connection, the message comes again then.
                with contextlib.suppress(*LOST):
                    async with message.process():
                        received.put_nowait(message.body)

            await queue.consume(receive)
            number = 0

            async def publish() -> None:
                nonlocal number
                while True:
                    number += 1
                    try:
                        async with asyncio.timeout(1):
                            message = aio_pika.Message(b"%d" % number)
                            await channel.default_exchange.publish(message, queue.name)
                    except LOST:
                        await asyncio.sleep(0.005)

            publishing = asyncio.ensure_future(publish())
            for _ in range(2):
                for _ in range(50):
                    await asyncio.wait_for(received.get(), 10)
                relay.kill()
                last = number
                await asyncio.to_thread(relay.start)
                # Messages that were sent after that arrive: publisher and consumer are back.
                while int(await asyncio.wait_for(received.get(), 20)) <= last + 1:
                    pass
            publishing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await publishing

    with Relay.running(service("RABBITMQ"), tls=tls) as relay:
        run(main(relay))
