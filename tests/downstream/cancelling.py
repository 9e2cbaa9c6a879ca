"""Requests that are cancelled at each of their waits, and many that are at random moments.

What a library holds must survive it: the connection, the pool, the session is asked again after
each cancellation, and every answer has to be the one to its own request.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest

MOMENTS = ("waiting", "answered")
"""When a wait is cancelled: while it lasts, or when it is over but the task does not know yet."""

MANY = 500
"""More waits than any request here has."""


@pytest.fixture
def collected(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a library leaves to the garbage collector goes with its test, not with a later one.

    A test whose library leaves futures with an exception that nobody asks for takes `caplog`: they
    report to that.
    """
    caplog = "caplog" in request.fixturenames and request.getfixturevalue("caplog")
    yield
    if caplog:
        # What was logged holds tracebacks, and with them what is to be collected.
        for phase in ("setup", "call"):
            caplog.get_records(phase).clear()
    gc.collect()


@types.coroutine
def _cancelled_at(
    coroutine: Coroutine[Any, Any, Any], at: int, moment: str, waits: list[Any]
) -> Generator[Any, Any, Any]:
    """Step `coroutine` as a task would, and have the task cancelled at wait number `at`."""
    task = asyncio.current_task()
    assert task is not None
    step: Callable[[], Any] = lambda: coroutine.send(None)  # noqa: E731
    while True:
        try:
            waited = step()
        except StopIteration as stop:
            return stop.value
        waits.append(waited)
        if len(waits) == at:
            if moment == "answered" and waited is not None:
                waited.add_done_callback(lambda _: task.cancel())
            else:
                asyncio.get_running_loop().call_soon(task.cancel)
        try:
            yield waited
        except BaseException as error:
            # Bound now: the name goes with the except clause.
            step = lambda error=error: coroutine.throw(error)  # noqa: E731
        else:
            step = lambda: coroutine.send(None)  # noqa: E731


async def cancel_each_wait(
    request: Callable[[], Coroutine[Any, Any, Any]],
    look: Callable[[], Coroutine[Any, Any, Any]],
    *,
    moments: tuple[str, ...] = MOMENTS,
    every: int = 1,
) -> int:
    """Make a request again and again, cancelled at its first wait, its second, and so on.

    `look` follows each. With `every`, only each so-manieth wait is cancelled, where a request has
    hundreds. What else a request raises when it is cancelled is the library's way to say so, and
    has to be an exception. Returns how many were cancelled.
    """
    cancelled = 0
    for moment in moments:
        for at in itertools.count(1, every):
            assert at < MANY, "the request never comes to its end"
            waits: list[Any] = []

            async def one(at: int = at, moment: str = moment, waits: list[Any] = waits) -> Any:
                return await _cancelled_at(request(), at, moment, waits)

            async with asyncio.timeout(20):
                (outcome,) = await asyncio.gather(one(), return_exceptions=True)
            if len(waits) < at:
                # It had fewer waits than that: nothing was cancelled any more.
                if isinstance(outcome, BaseException):
                    raise outcome
                break
            cancelled += isinstance(outcome, BaseException)
            async with asyncio.timeout(20):
                await look()
    # What a cancelled request has left to the garbage collector goes while its loop still runs.
    gc.collect()
    return cancelled


async def cancel_some(
    request: Callable[[int], Coroutine[Any, Any, Any]],
    *,
    count: int = 60,
    seconds: float = 0.03,
    seed: int = 1,
) -> dict[int, Any]:
    """Make `count` requests at once, of which about half are cancelled within `seconds`.

    Returns the results of the others, by number: each must have been answered.
    """
    loop = asyncio.get_running_loop()
    chance = random.Random(seed)
    tasks = [asyncio.ensure_future(request(number)) for number in range(count)]
    doomed = {number for number in range(count) if chance.random() < 0.5}
    for number in doomed:
        loop.call_later(chance.random() * seconds, tasks[number].cancel)
    async with asyncio.timeout(30):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    answers = {}
    for number, result in enumerate(results):
        if isinstance(result, BaseException):
            if number not in doomed:
                raise result
        else:
            answers[number] = result
    return answers
