"""grpc.aio: its core polls on threads of its own and wakes the loop through a socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trusted
from backends import Backend
from cancelling import cancel_each_wait, cancel_some
from killing import kill_in_the_middle
from peers import Run
from private import Program
from services import library

grpc = library("grpc")
library("grpc.aio")

pytestmark = pytest.mark.slow


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers in bytes, so that no code has to be generated."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    def service(self, details: Any) -> Any:
        return {
            "/weft/Upper": grpc.unary_unary_rpc_method_handler(self.upper),
            "/weft/Count": grpc.unary_stream_rpc_method_handler(self.count),
            "/weft/Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "/weft/Echo": grpc.stream_stream_rpc_method_handler(self.echo),
            "/weft/Stall": grpc.unary_unary_rpc_method_handler(self.stall),
        }.get(details.method)

    async def upper(self, request: bytes, context: Any) -> bytes:
        if not request:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nothing to do")
        await asyncio.sleep(0)
        return request.upper()

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def sum(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        total = 0
        async for request in requests:
            total += int(request)
        return b"%d" % total

    async def echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def stall(self, request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[Any, Service]]:
    service = Service()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel, service
    finally:
        await server.stop(None)


def test_unary_calls(run: Run) -> None:
    async def main() -> None:
        async with running() as (channel, _):
            upper = channel.unary_unary("/weft/Upper")
            texts = [b"text %d" % number for number in range(300)]
            answers = await asyncio.gather(*(upper(text) for text in texts))
            assert answers == [text.upper() for text in texts]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await upper(b"")
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await channel.unary_unary("/weft/Nothing")(b"")
            assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(main())


def test_streams(run: Run) -> None:
    async def main() -> None:
        async with running() as (channel, _):
            numbers = [int(part) async for part in channel.unary_stream("/weft/Count")(b"500")]
            assert numbers == list(range(500))

            async def parts() -> AsyncIterator[bytes]:
                for number in range(100):
                    yield b"%d" % number

            assert await channel.stream_unary("/weft/Sum")(parts()) == b"4950"
            call = channel.stream_stream("/weft/Echo")()
            for number in range(50):
                await call.write(b"%d" % number)
                assert await call.read() == b"%d" % number
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF

    run(main())


def test_deadlines_and_cancellation(run: Run) -> None:
    async def main() -> None:
        async with running() as (channel, service):
            stall = channel.unary_unary("/weft/Stall")
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await stall(b"", timeout=0.1)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await asyncio.wait_for(service.cancelled.wait(), 10)
            service.cancelled.clear()
            task = asyncio.ensure_future(_result(stall(b"")))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(service.cancelled.wait(), 10)
            assert await channel.unary_unary("/weft/Upper")(b"alive") == b"ALIVE"

    run(main())


async def _result(call: Any) -> Any:
    return await call


def test_one_loop_after_another(run: Run) -> None:
    """Its poller goes from loop to loop."""

    async def main() -> None:
        async with running() as (channel, _):
            assert await channel.unary_unary("/weft/Upper")(b"again") == b"AGAIN"

    for _ in range(3):
        run(main())


def _secure() -> tuple[Any, Any]:
    key, chain = trusted.key_and_chain()
    server = grpc.ssl_server_credentials([(key, chain)])
    return server, grpc.ssl_channel_credentials(trusted.authority())


def test_tls(run: Run) -> None:
    async def main() -> None:
        ours, theirs = _secure()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Service(),))
        port = server.add_secure_port("127.0.0.1:0", ours)
        await server.start()
        async with grpc.aio.secure_channel(f"localhost:{port}", theirs) as channel:
            big = b"x" * 2_000_000
            assert await channel.unary_unary("/weft/Upper")(big, timeout=20) == big.upper()
        await server.stop(None)

    run(main())


def test_cancelling_at_each_wait(run: Run) -> None:
    async def main() -> None:
        async with running() as (channel, _):
            upper = channel.unary_unary("/weft/Upper")

            async def ask(number: int) -> bytes:
                return bytes(await upper(b"question %d" % number))

            async def look() -> None:
                answers = await asyncio.gather(*(ask(number) for number in range(3)))
                assert answers == [b"QUESTION %d" % number for number in range(3)]

            async def count() -> None:
                async for _ in channel.unary_stream("/weft/Count")(b"20"):
                    pass

            async def echo() -> None:
                call = channel.stream_stream("/weft/Echo")()
                for number in range(5):
                    await call.write(b"%d" % number)
                    assert await call.read() == b"%d" % number
                await call.done_writing()

            for request in (lambda: ask(-1), count, echo):
                assert await cancel_each_wait(request, look) > 0
            answers = await cancel_some(ask)
            assert answers == {number: b"QUESTION %d" % number for number in answers}

    run(main())


SERVER = """
import sys
import grpc

class Service(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.upper)

    async def upper(self, request, context):
        return request.upper()

async def main():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Service(),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()

run(main())
"""


def test_a_channel_survives_the_death_of_the_server(run: Run, backend: Backend) -> None:
    async def main(server: Program) -> None:
        # It would wait for a second or more before it tries again.
        options = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 100),
        ]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
            upper = channel.unary_unary("/weft/Upper")

            async def ask(token: str) -> None:
                # Once the server is dead, a call is to fail; after that, to wait for the next one.
                again = token.startswith("again")
                answer = await upper(token.encode(), timeout=20, wait_for_ready=again)
                assert answer == token.upper().encode()

            await kill_in_the_middle(server, ask, (grpc.aio.AioRpcError,))

    with Program.running(backend.prelude + SERVER) as server:
        run(main(server))
