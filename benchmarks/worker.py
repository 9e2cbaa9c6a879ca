"""The process that holds one loop: it measures rows, serves, or is a client, as it is told.

Orders and answers are lines of JSON on the standard streams. What libraries print goes to the
standard error stream, so that it cannot be taken for an answer. The process ends with its input.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import sys
import threading
import traceback
from typing import Any, NoReturn, TextIO

from benchmarks.loops import CONTENDERS, LoopFactory


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("kind", choices=("probe", "row", "server", "client"))
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--loop", required=True, choices=CONTENDERS)
    parser.add_argument("--cpu", type=int)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--unix", help="listen on this path rather than on TCP")
    place.add_argument("--udp", action="store_true", help="get datagrams")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--certificate", default="", help="serve TLS, with this chain of PEM")
    parser.add_argument("--key", default="", help="the key of the certificate")
    arguments = parser.parse_args()
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})

    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    contender = CONTENDERS[arguments.loop]
    try:
        if arguments.kind == "probe":
            _answer(answers, {"version": contender.version()})
            return
        factory = contender.factory()
        if arguments.kind == "row":
            _measure_row(arguments.name, factory, answers)
        elif arguments.kind == "client":
            _be_client(arguments.name, factory, answers)
        else:
            _serve(arguments, factory, answers)
    except Exception as error:
        traceback.print_exc()
        kind, text = type(error).__name__, str(error).partition("\n")[0]
        _answer(answers, {"error": f"{kind}: {text}" if text else kind})
        sys.exit(1)


def _die_with_parent() -> None:
    """Have Linux kill this process with its parent, since a paused one does not see its input."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _answer(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")


def _settle_allocator() -> None:
    """Have large receive buffers come from the heap, as they do in a process that has lived a bit.

    Loops that receive into a new buffer of 256 KiB depend on it: until a process has freed one
    larger block, glibc maps and unmaps each such buffer, and these loops serve less than half as
    much. Which of both it is would hang on what happened to be imported.
    """
    bytearray(1024 * 1024)


def _measure_row(name: str, factory: LoopFactory, answers: TextIO) -> None:
    from benchmarks.rows import ROWS

    measure = ROWS[name].measure

    def once(units: int) -> int:
        gc.collect()
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(run(units))

    async def run(units: int) -> int:
        return await measure(units)

    def calibrate(target: int) -> int:
        """How many units take about `target` nanoseconds."""
        units = 1
        while True:
            elapsed = max(1, once(units))
            if elapsed >= target // 2:
                return max(1, round(units * target / elapsed))
            units *= min(10, max(2, target // elapsed))

    for line in sys.stdin:
        order = json.loads(line)
        if "calibrate" in order:
            _answer(answers, {"units": calibrate(order["calibrate"])})
        else:
            _answer(answers, {"elapsed": once(order["units"])})


def _be_client(name: str, factory: LoopFactory, answers: TextIO) -> None:
    from benchmarks.clients import CLIENTS, Load

    client = CLIENTS[name]
    _settle_allocator()

    async def drive(order: dict[str, Any]) -> dict[str, float]:
        return await client(Load(**order))

    for line in sys.stdin:
        with asyncio.Runner(loop_factory=factory) as runner:
            _answer(answers, runner.run(drive(json.loads(line))))


def _listen(path: str | None, udp: bool, backlog: int) -> tuple[socket.socket, str]:
    """What a server gets, and its address."""
    if path:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(backlog)
        address = f"unix:{path}"
    elif udp:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind(("127.0.0.1", 0))
        address = f"udp:127.0.0.1:{listener.getsockname()[1]}"
    else:
        listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        address = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
    listener.setblocking(False)
    return listener, address


def _serve(arguments: argparse.Namespace, factory: LoopFactory, answers: TextIO) -> NoReturn:
    from benchmarks.applications import APPLICATIONS
    from benchmarks.certificates import context
    from benchmarks.servers import BACKLOG, SERVERS, Place, failure

    serve = (SERVERS | APPLICATIONS)[arguments.name]
    tls = context(arguments.certificate, arguments.key) if arguments.certificate else None
    listener, address = _listen(arguments.unix, arguments.udp, BACKLOG)
    _settle_allocator()

    async def forever() -> None:
        await serve(Place(listener, arguments.size, tls))
        _answer(answers, {"listening": address})
        await failure.wait()

    def end_with_input() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end_with_input, daemon=True).start()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(forever())
    raise RuntimeError("the server ended by itself")


if __name__ == "__main__":
    main()
