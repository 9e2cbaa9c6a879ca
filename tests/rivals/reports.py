"""Debug mode, and what is said when something goes wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
from typing import Any

from .registry import LoopFactory, capability


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.messages: list[str] = []
        logger = logging.getLogger("asyncio")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@capability("debug mode reports slow callbacks")
async def slow_callbacks() -> None:
    log = _Log()
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    loop.call_soon(time.sleep, 0.03)
    await asyncio.sleep(0.1)
    assert any("took" in message for message in log.messages), log.messages


@capability("debug mode records where a coroutine was made")
def coroutine_origin(factory: LoopFactory) -> None:
    depths = []

    async def main() -> None:
        depths.append(sys.get_coroutine_origin_tracking_depth())

    with asyncio.Runner(loop_factory=factory, debug=True) as runner:
        runner.run(main())
    assert depths[0] > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0, "and does not end it"


@capability("debug mode notices call_soon() of another thread")
async def wrong_thread() -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            loop.call_soon(int)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    await asyncio.sleep(0.05)
    thread.join()
    assert raised


@capability("debug mode records where a task was made")
async def task_traceback() -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    task = loop.create_task(asyncio.sleep(0))
    assert getattr(task, "_source_traceback", None)
    await task


@capability("a failed callback reaches the exception handler, with its handle")
async def failed_callback() -> None:
    loop = asyncio.get_running_loop()
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)
    (context,) = contexts
    assert isinstance(context["exception"], ZeroDivisionError)
    assert isinstance(context["handle"], asyncio.Handle), "no handle"


@capability("the exception handler runs in the context of the callback", python=(3, 12))
async def handler_context() -> None:
    import contextvars

    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    loop.set_exception_handler(lambda loop, context: seen.append(variable.get()))
    context = contextvars.copy_context()
    context.run(variable.set, 7)
    loop.call_soon(lambda: 1 / 0, context=context)
    await asyncio.sleep(0.01)
    assert seen == [7], seen


@capability("a failed protocol is reported with its transport and protocol")
async def failed_protocol() -> None:
    loop = asyncio.get_running_loop()
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    class Fails(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    server = await loop.create_server(Fails, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    transport.write(b"x")
    await asyncio.sleep(0.1)
    transport.close()
    server.close()
    (context,) = contexts
    assert {"exception", "transport", "protocol"} <= context.keys(), sorted(context)


@capability("an exception that nobody retrieved is reported")
async def never_retrieved() -> None:
    loop = asyncio.get_running_loop()
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    async def fails() -> None:
        raise ZeroDivisionError

    task = asyncio.create_task(fails())
    await asyncio.wait([task])
    del task
    gc.collect()
    assert "never retrieved" in contexts[0]["message"]


@capability("a pending task that is destroyed is reported")
async def destroyed_pending() -> None:
    loop = asyncio.get_running_loop()
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    async def waits() -> None:
        await asyncio.Future()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    del task
    gc.collect()
    assert "destroyed" in contexts[0]["message"]


@capability("a callback's SystemExit leaves run_forever()")
def system_exit(factory: LoopFactory) -> None:
    loop = factory()

    def leave() -> None:
        raise SystemExit(3)

    loop.call_soon(leave)
    loop.call_later(2, loop.stop)
    try:
        loop.run_forever()
    except SystemExit as end:
        assert end.code == 3
        loop.close()
        return
    raise AssertionError("it did not leave")
