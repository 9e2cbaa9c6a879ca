"""aiomqtt on Mosquitto: paho's socket, watched with add_reader and add_writer."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from peers import Run
from services import service

aiomqtt = pytest.importorskip("aiomqtt", reason="aiomqtt is not installed")

pytestmark = pytest.mark.slow

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
