"""requests: a blocking client in the threads of to_thread()."""

from __future__ import annotations

import asyncio
import contextvars

import pytest
from cancelling import cancel_each_wait, cancel_some
from peers import Run
from services import library
from website import website

requests = library("requests")

pytestmark = pytest.mark.slow


def test_many_in_threads(run: Run) -> None:
    async def main() -> None:
        name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
        with website() as site:

            def fetch(number: int) -> int:
                assert name.get() == f"task {number}"
                response = requests.get(f"{site.url}/json/{number}", timeout=10)
                return int(response.json()["number"])

            async def one(number: int) -> int:
                name.set(f"task {number}")
                return await asyncio.to_thread(fetch, number)

            results = await asyncio.gather(*(one(number) for number in range(60)))
            assert results == list(range(60))

    run(main())


def test_the_loop_goes_on_meanwhile(run: Run) -> None:
    async def main() -> None:
        with website() as site:
            fetching = asyncio.ensure_future(
                asyncio.to_thread(requests.get, f"{site.url}/slow/0.2", timeout=10)
            )
            ticks = 0
            while not fetching.done():
                await asyncio.sleep(0.005)
                ticks += 1
            assert (await fetching).text == "at last"
            assert ticks > 5

    run(main())


def test_cancelling_what_waits_for_threads(run: Run) -> None:
    """A request that is under way goes on in its thread; what waits for one is never made."""

    async def main() -> None:
        with website() as site:

            def fetch(number: int) -> int:
                return int(requests.get(f"{site.url}/json/{number}", timeout=10).json()["number"])

            async def ask(number: int) -> int:
                return await asyncio.to_thread(fetch, number)

            async def look() -> None:
                assert await asyncio.gather(*(ask(n) for n in range(3))) == [0, 1, 2]

            assert await cancel_each_wait(lambda: ask(99), look) > 0
            answers = await cancel_some(ask, count=200)
            assert answers == {number: number for number in answers}
            await look()

    run(main())


def test_errors_cross_over(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(requests.ConnectionError):
            await asyncio.to_thread(requests.get, "http://127.0.0.1:1/", timeout=1)

    run(main())
