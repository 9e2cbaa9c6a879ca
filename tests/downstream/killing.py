"""A server that is killed while it answers many, and started again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from private import Private


async def kill_in_the_middle(
    server: Private,
    ask: Callable[[str], Coroutine[Any, Any, Any]],
    lost: tuple[type[BaseException], ...],
    *,
    askers: int = 10,
    answers: int = 100,
) -> None:
    """Kill `server` while several ask it, over and over; what asked must work again afterwards.

    `ask` is given a token of its own each time, and asserts that it gets the answer to that. When
    the server dies, everybody who asks has to get one of the exceptions in `lost`.
    """
    answered = 0

    async def go_on_asking(number: int) -> None:
        nonlocal answered
        while True:
            await ask(f"{number}-{answered}")
            answered += 1

    tasks = [asyncio.ensure_future(go_on_asking(number)) for number in range(askers)]
    async with asyncio.timeout(30):
        while answered < answers:
            assert not any(task.done() for task in tasks), tasks
            await asyncio.sleep(0.001)
        server.kill()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, lost), repr(result)
        await asyncio.to_thread(server.start)
        await asyncio.gather(*(ask(f"again-{number}") for number in range(askers)))
