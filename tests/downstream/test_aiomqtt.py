"""aiomqtt on Mosquitto: paho's socket, watched with add_reader and add_writer."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trusted
from cancelling import cancel_each_wait, collected  # noqa: F401
from peers import Run
from private import Mosquitto
from services import library, service

aiomqtt = library("aiomqtt")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("collected")]

TOPIC = f"weft/test/{os.getpid()}"


def client(**options: Any) -> Any:
    host, port = service("MQTT")
    return aiomqtt.Client(host, port, timeout=10, **options)


@pytest.mark.parametrize("quality", [0, 1, 2])
def test_publish_and_subscribe(run: Run, quality: int) -> None:
    service("MQTT")

    async def main() -> None:
        async with client() as publisher, client() as subscriber:
            await subscriber.subscribe(f"{TOPIC}/{quality}/#", qos=quality)
            for number in range(100):
                await publisher.publish(f"{TOPIC}/{quality}/{number}", b"x" * number, qos=quality)
            received = []
            async with asyncio.timeout(20):
                async for message in subscriber.messages:
                    received.append((str(message.topic), len(message.payload)))
                    if len(received) == 100:
                        break
            assert received == [(f"{TOPIC}/{quality}/{n}", n) for n in range(100)]

    run(main())


def test_a_big_message(run: Run) -> None:
    service("MQTT")

    async def main() -> None:
        async with client() as one:
            await one.subscribe(f"{TOPIC}/big", qos=1)
            big = os.urandom(500_000)
            await one.publish(f"{TOPIC}/big", big, qos=1)
            async with asyncio.timeout(20):
                message = await anext(aiter(one.messages))
            assert message.payload == big

    run(main())


def test_cancellation(run: Run) -> None:
    service("MQTT")

    async def main() -> None:
        async with client() as one:
            await one.subscribe(f"{TOPIC}/quiet")

            async def listen() -> Any:
                return await anext(aiter(one.messages))

            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(listen(), 0.01)
            await one.publish(f"{TOPIC}/quiet", b"at last")
            async with asyncio.timeout(10):
                assert (await listen()).payload == b"at last"

    run(main())


def test_a_server_that_is_not_there(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", 1):
                raise AssertionError("connected to nobody")

    run(main())


# -- cancelled at every wait -----------------------------------------------------------------------


# Where a connection fails it leaves futures whose exception nobody asks for: they report to a log
# that is looked at here, and not in the next test.
def test_cancelling_at_each_wait(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    service("MQTT")

    async def main() -> None:
        async with client() as one:
            await one.subscribe(f"{TOPIC}/echo", qos=1)
            messages = aiter(one.messages)
            sent = 0

            async def publish() -> None:
                nonlocal sent
                sent += 1
                await one.publish(f"{TOPIC}/echo", b"%d" % sent, qos=1)

            async def look() -> None:
                """Whatever was cancelled, all that was sent arrives, in order, up to this."""
                nonlocal sent
                await publish()
                while (message := await anext(messages)).payload != b"%d" % sent:
                    assert int(message.payload) < sent

            async def subscribe() -> None:
                await one.subscribe(f"{TOPIC}/more/#", qos=1)
                await one.unsubscribe(f"{TOPIC}/more/#")

            async def connect() -> None:
                async with client() as another:
                    await another.publish(f"{TOPIC}/other", b"", qos=1)

            for request in (publish, subscribe):
                assert await cancel_each_wait(request, look) > 0
            # Of a connection, what is cancelled while the network thread connects goes on there.
            assert await cancel_each_wait(connect, look, moments=("answered",)) > 0

    run(main())


# -- a server of our own: TLS, and killed in the middle --------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Mosquitto]:
    with Mosquitto.running() as server:
        yield server


# paho leaves the sockets of connections that fail to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_tls(run: Run, server: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with aiomqtt.Client(
            "localhost", server.tls_port, tls_context=trusted.client_context()
        ) as one:
            await one.subscribe("big", qos=1)
            big = os.urandom(500_000)
            await one.publish("big", big, qos=1)
            async with asyncio.timeout(20):
                assert (await anext(aiter(one.messages))).payload == big
        with pytest.raises((ssl.SSLError, aiomqtt.MqttError)):
            async with aiomqtt.Client(
                "localhost", server.tls_port, tls_context=ssl.create_default_context()
            ):
                raise AssertionError("trusted a stranger")

    run(main())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_clients_survive_the_death_of_the_server(
    run: Run, server: Mosquitto, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As its documentation has it: what lost its connection enters a new client."""

    async def main() -> None:
        received: list[int] = []
        died = 0
        enough = False

        def reach() -> Any:
            # What it has sent when the server dies it waits for that long.
            if tls:
                context = trusted.client_context()
                return aiomqtt.Client(
                    "localhost", server.tls_port, tls_context=context, timeout=0.5
                )
            return aiomqtt.Client("127.0.0.1", server.port, timeout=0.5)

        async def listen() -> None:
            nonlocal died
            while not enough:
                try:
                    async with reach() as one:
                        await one.subscribe("numbers", qos=1)
                        async for message in one.messages:
                            received.append(int(message.payload))
                            if enough:
                                break
                except (aiomqtt.MqttError, OSError):
                    died += 1
                    await asyncio.sleep(0.005)

        async def publish(listening: asyncio.Task[None]) -> None:
            number = 0
            while not listening.done():
                try:
                    async with reach() as one:
                        while not listening.done():
                            await one.publish("numbers", b"%d" % number, qos=1)
                            number += 1
                except (aiomqtt.MqttError, OSError):
                    await asyncio.sleep(0.005)

        listening = asyncio.ensure_future(listen())
        publishing = asyncio.ensure_future(publish(listening))
        async with asyncio.timeout(20):
            for _ in range(2):
                seen = len(received)
                while len(received) < seen + 50:
                    await asyncio.sleep(0.001)
                dead = died
                server.kill()
                while died == dead:
                    await asyncio.sleep(0.001)
                await asyncio.to_thread(server.start)
            seen = len(received)
            while len(received) < seen + 50:
                await asyncio.sleep(0.001)
            enough = True
            await asyncio.gather(listening, publishing)
        # A number is sent again if nobody said that it had come; it never overtakes another.
        assert received == sorted(received)

    run(main())
