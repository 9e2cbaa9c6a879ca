"""httpx: its client, whose connections run over anyio on this loop."""

from __future__ import annotations

import asyncio

import pytest
from peers import Run
from website import website

httpx = pytest.importorskip("httpx", reason="httpx is not installed")

pytestmark = pytest.mark.slow


def test_requests(run: Run) -> None:
    async def main() -> None:
        with website() as site:
            limits = httpx.Limits(max_connections=20)
            async with httpx.AsyncClient(base_url=site.url, limits=limits) as client:

                async def one(number: int) -> None:
                    response = await client.get(f"/json/{number}", params={"q": "x y"})
                    assert response.json() == {"number": number, "q": "x y"}

                await asyncio.gather(*(one(number) for number in range(200)))
                body = b"z" * 3_000_000
                assert (await client.post("/echo", content=body)).content == body
                assert (await client.get("/status/503")).status_code == 503
                async with client.stream("GET", "/stream/300") as response:
                    lines = [line async for line in response.aiter_lines()]
                assert lines == [f"piece {number}" for number in range(300)]
            assert len(site.requests) == 203

    run(main())


def test_timeouts_and_cancellation(run: Run) -> None:
    async def main() -> None:
        with website() as site:
            async with httpx.AsyncClient(base_url=site.url, timeout=30) as client:
                with pytest.raises(httpx.ReadTimeout):
                    await client.get("/slow/0.3", timeout=httpx.Timeout(30, read=0.02))
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await client.get("/slow/0.3")
                tasks = [asyncio.ensure_future(client.get("/slow/0.3")) for _ in range(20)]
                await asyncio.sleep(0.02)
                for task in tasks[::2]:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                for result in results[::2]:
                    assert isinstance(result, asyncio.CancelledError)
                for result in results[1::2]:
                    assert result.text == "at last"

    run(main())


def test_a_server_that_is_not_there(run: Run) -> None:
    async def main() -> None:
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://127.0.0.1:1/")

    run(main())
