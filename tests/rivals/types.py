"""What objects are, and what asyncio's own functions see of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import weakref

from .peers import echo_server
from .registry import LoopFactory, capability


@capability("a task is an asyncio.Task")
async def task_is_asyncios() -> None:
    assert isinstance(asyncio.current_task(), asyncio.Task)


@capability("a future is an asyncio.Future")
async def future_is_asyncios() -> None:
    assert isinstance(asyncio.get_running_loop().create_future(), asyncio.Future)


@capability("handles are asyncio.Handle and TimerHandle")
async def handles_are_asyncios() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop.call_soon(int), asyncio.Handle), "call_soon"
    assert isinstance(loop.call_later(0, int), asyncio.TimerHandle), "call_later"


@capability("the loop is an asyncio.AbstractEventLoop")
async def loop_is_asyncios() -> None:
    assert isinstance(asyncio.get_running_loop(), asyncio.AbstractEventLoop)


@capability("a TCP transport is an asyncio.Transport")
async def transport_is_asyncios() -> None:
    loop = asyncio.get_running_loop()
    async with echo_server() as (host, port):
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
        transport.close()
    assert isinstance(transport, asyncio.Transport), type(transport)


@capability("a server is an asyncio.AbstractServer")
async def server_is_asyncios() -> None:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    server.close()
    assert isinstance(server, asyncio.AbstractServer), type(server)


@capability("a task or future can be weakly referenced")
async def weakly_referenced() -> None:
    weakref.ref(asyncio.get_running_loop().create_future())
    weakref.ref(asyncio.current_task())


@capability("all_tasks() sees waiting tasks")
async def all_tasks_sees() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    assert task in asyncio.all_tasks()
    task.cancel()


@capability("current_task() is None in a callback")
async def current_task_in_callback() -> None:
    loop = asyncio.get_running_loop()
    seen = loop.create_future()
    loop.call_soon(lambda: seen.set_result(asyncio.current_task()))
    assert await seen is None


@capability("asyncio.Server.close_clients() and abort_clients()", python=(3, 13))
async def close_clients() -> None:
    loop = asyncio.get_running_loop()
    lost = loop.create_future()

    class Served(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(None)

    server = await loop.create_server(Served, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    await asyncio.sleep(0.05)
    server.close()
    server.close_clients()
    await asyncio.wait_for(lost, 5)
    transport.close()


@capability("Server.wait_closed() waits for the connections", python=(3, 12))
async def wait_closed() -> None:
    loop = asyncio.get_running_loop()
    made = loop.create_future()

    class Served(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.set_result(transport)

    server = await loop.create_server(Served, "127.0.0.1", 0)
    client, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    transport = await made
    server.close()
    waiter = asyncio.ensure_future(server.wait_closed())
    done, _ = await asyncio.wait([waiter], timeout=0.1)
    assert not done, "it did not wait"
    transport.abort()
    await asyncio.wait_for(waiter, 5)
    client.close()


@capability("the call graph of a task", python=(3, 14))
async def call_graph() -> None:
    async def inner() -> None:
        await asyncio.sleep(60)

    async def outer() -> None:
        await asyncio.gather(inner())

    task = asyncio.create_task(outer())
    await asyncio.sleep(0.01)
    text = asyncio.format_call_graph(task)
    task.cancel()
    assert "outer" in text, text


@capability("`python -m asyncio ps` sees the tasks", python=(3, 14))
async def asyncio_ps() -> None:
    import os

    async def waits_here() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(waits_here(), name="found-by-ps")
    await asyncio.sleep(0.01)
    command = [sys.executable, "-m", "asyncio", "ps", str(os.getpid())]
    seen = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    task.cancel()
    assert "found-by-ps" in seen.stdout, (seen.stderr or seen.stdout or "nothing").splitlines()[-1]


@capability("memory of a task that waits")
def memory_of_a_task(factory: LoopFactory) -> str:
    count = 20000

    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    async def waits(future: asyncio.Future[None]) -> None:
        await future

    async def main() -> float:
        future = asyncio.get_running_loop().create_future()
        gc.collect()
        before = resident()
        tasks = [asyncio.create_task(waits(future)) for _ in range(count)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        grown = (resident() - before) / count
        future.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        return grown

    with asyncio.Runner(loop_factory=factory) as runner:
        return f"{runner.run(main()) / 1024:.2f} KiB"
