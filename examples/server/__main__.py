"""Run the server: `python -m examples.server [--port 8080]`.

The first line on standard output says where it listens, so that whoever started it with
`--port 0` learns the port. It stops at Ctrl-C or SIGTERM, and with `--until-eof` also when its
standard input is closed: a parent that dies, however it dies, takes its server with it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable

from .content import Content
from .protocol import HttpProtocol


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="examples.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 takes any free port")
    parser.add_argument("--seed", type=int, default=2024, help="what the content is drawn from")
    parser.add_argument("--pages", type=int, default=160, help="pages of the web site")
    parser.add_argument("--files", type=int, default=96, help="files to download")
    parser.add_argument("--cpu", type=int, help="run on this CPU only, where that can be chosen")
    parser.add_argument("--until-eof", action="store_true", help="stop when stdin is closed")
    return parser.parse_args(argv)


async def serve(arguments: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if arguments.until_eof:
        # An end of file that nobody reads stays readable: one callback is enough.
        loop.add_reader(sys.stdin.fileno(), on_input, stop)
    content = Content(arguments.seed, pages=arguments.pages, files=arguments.files)
    connections: set[HttpProtocol] = set()
    server = await loop.create_server(
        lambda: HttpProtocol(content.answer, connections),
        arguments.host,
        arguments.port,
        backlog=4096,
    )
    host, port = server.sockets[0].getsockname()[:2]
    print(f"listening on http://{host}:{port}", flush=True)
    # What lives now lives until the end: keep it out of every later collection.
    gc.freeze()
    await stop.wait()
    server.close()
    for connection in tuple(connections):
        connection.close()
    await server.wait_closed()


def on_input(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


def main() -> None:
    arguments = parse_arguments()
    if arguments.cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.cpu})
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(serve(arguments))


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Always the same loop for the server, whichever the client under test runs on."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
