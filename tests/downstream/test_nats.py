"""nats-py: publish, subscribe, queue groups, requests, JetStream."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trusted
from cancelling import cancel_each_wait, cancel_some
from peers import Run
from private import Nats
from services import library, service

nats = library("nats")

pytestmark = pytest.mark.slow

SUBJECT = f"weft.test.{os.getpid()}"


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Any]:
    host, port = service("NATS")
    client = await nats.connect(f"nats://{host}:{port}", connect_timeout=10)
    try:
        yield client
    finally:
        if not client.is_closed:
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


def test_jetstream(run: Run) -> None:
    service("NATS")

    async def main() -> None:
        async with connected() as client:
            stream = client.jetstream(timeout=10)
            name = f"weft-test-{os.getpid()}"
            await stream.add_stream(name=name, subjects=[f"{SUBJECT}.js.>"])
            try:
                acknowledged = await asyncio.gather(
                    *(stream.publish(f"{SUBJECT}.js.{n}", b"%d" % n) for n in range(200))
                )
                assert sorted(answer.seq for answer in acknowledged) == [*range(1, 201)]
                pulling = await stream.pull_subscribe(f"{SUBJECT}.js.>", durable="puller")
                received: list[bytes] = []
                while len(received) < 200:
                    for message in await pulling.fetch(50, timeout=10):
                        received.append(message.data)
                        await message.ack_sync()
                assert sorted(received, key=int) == [b"%d" % n for n in range(200)]
                with pytest.raises(TimeoutError):
                    await pulling.fetch(1, timeout=0.05)
                await pulling.unsubscribe()
                bucket = await client.jetstream().create_key_value(bucket=name, storage="memory")
                watcher = await bucket.watchall()
                assert await watcher.updates(timeout=10) is None
                revision = await bucket.put("key", b"one")
                # The bucket keeps no history: a second value would take the place of the first.
                assert (await watcher.updates(timeout=10)).value == b"one"
                await bucket.update("key", b"two", last=revision)
                assert (await watcher.updates(timeout=10)).value == b"two"
                assert (await bucket.get("key")).value == b"two"
                await watcher.stop()
                await stream.delete_key_value(name)
            finally:
                await stream.delete_stream(name)

    run(main())


def test_cancelling_at_each_wait(run: Run) -> None:
    service("NATS")

    async def main() -> None:
        async with connected() as worker, connected() as client:

            async def answer(message: Any) -> None:
                await message.respond(message.data.upper())

            await worker.subscribe(f"{SUBJECT}.upper", cb=answer)
            await worker.flush()

            async def ask(number: int) -> Any:
                text = b"question %d" % number
                return (await client.request(f"{SUBJECT}.upper", text, timeout=10)).data

            async def look() -> None:
                answers = await asyncio.gather(*(ask(number) for number in range(3)))
                assert answers == [b"QUESTION %d" % number for number in range(3)]

            # No flush(): nats-py does not survive that one of those is cancelled.
            async def subscribe() -> None:
                subscription = await client.subscribe(f"{SUBJECT}.quiet")
                await client.publish(f"{SUBJECT}.quiet", b"lost")
                await subscription.next_msg(timeout=10)
                await subscription.unsubscribe()

            for request in (lambda: ask(-1), subscribe):
                assert await cancel_each_wait(request, look) > 0
            answers = await cancel_some(ask, count=200)
            assert answers == {number: b"QUESTION %d" % number for number in answers}
            # drain() would wait for the subscriptions whose end was cancelled.
            await client.close()

    run(main())


# -- a server of our own: TLS, and killed in the middle --------------------------------------------


def test_tls(run: Run) -> None:
    async def main(server: Nats) -> None:
        address = f"tls://localhost:{server.port}"
        client = await nats.connect(address, tls=trusted.client_context())
        big = os.urandom(900_000)
        subscription = await client.subscribe("big")
        for _ in range(3):
            await client.publish("big", big)
            assert (await subscription.next_msg(timeout=10)).data == big
        await client.drain()
        with pytest.raises(ssl.SSLCertVerificationError):
            await nats.connect(address, allow_reconnect=False, error_cb=_ignore)

    with Nats.running(tls=True) as server:
        run(main(server))


async def _ignore(error: Exception) -> None:
    """Errors are expected: the default writes them to the log."""


@pytest.fixture(scope="module")
def server() -> Iterator[Nats]:
    with Nats.running() as server:
        yield server


def test_a_client_survives_the_death_of_the_server(run: Run, server: Nats) -> None:
    """It connects and subscribes again, and what was acknowledged to it is still there."""

    async def main() -> None:
        back = asyncio.Event()

        async def reconnected() -> None:
            back.set()

        client = await nats.connect(
            f"nats://127.0.0.1:{server.port}",
            reconnect_time_wait=0.01,
            max_reconnect_attempts=-1,
            reconnected_cb=reconnected,
            error_cb=_ignore,
        )
        stream = client.jetstream(timeout=0.5)
        await stream.add_stream(name="orders", subjects=["orders.*"])

        async def answer(message: Any) -> None:
            await message.respond(message.data.upper())

        await client.subscribe("upper", cb=answer)
        acknowledged: list[int] = []

        async def ask(number: int) -> None:
            for turn in range(10_000):
                text = f"{number}/{turn}"
                response = await client.request("upper", text.encode(), timeout=0.5)
                assert response.data == text.upper().encode()
                acknowledged.append((await stream.publish("orders.new", text.encode())).seq)

        askers = [asyncio.ensure_future(ask(number)) for number in range(8)]
        while len(acknowledged) < 100:
            await asyncio.sleep(0.001)
        server.kill()
        results = await asyncio.gather(*askers, return_exceptions=True)
        for result in results:
            assert isinstance(result, (TimeoutError, nats.errors.Error)), result
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(back.wait(), 10)
        response = await client.request("upper", b"again", timeout=10)
        assert response.data == b"AGAIN"
        state = (await stream.stream_info("orders")).state
        assert state.messages >= len(acknowledged) >= 100
        await stream.delete_stream("orders")
        await client.drain()

    run(main())
