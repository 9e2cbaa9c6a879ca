"""Streams over a connection: what a reader says of the same bytes, however they come, on
asyncio's and on Weft's.

`tests/test_native_streams.py` feeds readers by hand; here a transport does, which in Weft
receives into the reader's own buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from backends import PY313
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import pass_turns, reset, stream_pair
from places import OWN, STOCK, Place

pytestmark = [
    pytest.mark.slow,
    # On 3.14 Hypothesis misreads a reference count.
    pytest.mark.filterwarnings("ignore:It looks like `register_random`"),
]

SETTLED = 30
SEPARATORS: list[Any] = [b"\n", b"ab", b"aab\n"] + (
    [(b"ab", b"\n"), (b"b", b"aab")] if PY313 else []
)
PIECES = st.text("ab\n", max_size=30).map(str.encode)
READS = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 40)),
    st.tuples(st.just("readexactly"), st.integers(0, 60)),
    st.tuples(st.just("readline")),
    st.tuples(st.just("readuntil"), st.sampled_from(SEPARATORS)),
)
STEPS = st.one_of(
    READS,
    READS,
    st.tuples(st.just("send"), PIECES),
    st.tuples(st.just("send"), PIECES),
    st.tuples(st.just("send"), st.just(b"a" * 5000)),
    st.tuples(st.just("write"), PIECES),
    st.tuples(st.sampled_from(["cancel", "end", "reset", "close", "write_eof"])),
)


class Story:
    def __init__(self, place: Place, kind: str, limit: int) -> None:
        self.place = place
        self.kind = kind
        self.limit = limit
        self.log: list[Any] = []
        self.reads: list[asyncio.Task[None]] = []
        self.arrived = bytearray()

    async def read(self, number: int, method: str, *arguments: Any) -> None:
        try:
            self.log.append((number, await getattr(self.reader, method)(*arguments)))
        except ConnectionError:
            self.log.append((number, "gone"))
        except BaseException as error:
            partial = getattr(error, "partial", None)
            consumed = getattr(error, "consumed", None)
            self.log.append((number, type(error).__name__, str(error), partial, consumed))

    def act(self, name: str, *arguments: Any) -> None:
        match name:
            case "send" | "end" | "reset" if self.theirs.fileno() < 0:
                return
            case "send":
                with contextlib.suppress(OSError):
                    self.theirs.sendall(arguments[0])
            case "end":
                with contextlib.suppress(OSError):
                    self.theirs.shutdown(socket.SHUT_WR)
            case "reset":
                reset(self.theirs)
            case "write":
                if not self.writer.is_closing():
                    with contextlib.suppress(RuntimeError):
                        self.writer.write(arguments[0])
            case "write_eof":
                # A peer that has reset the connection, and was not heard of yet.
                if not self.writer.is_closing():
                    try:
                        self.writer.write_eof()
                    except OSError as error:
                        self.log.append(("write_eof", error.errno))
            case "close":
                self.writer.close()
            case "cancel":
                self.log.append([task.cancel() for task in self.reads[-1:]])
            case _:
                # One at a time: who comes second is told so.
                task = asyncio.ensure_future(self.read(len(self.reads), name, *arguments))
                self.reads.append(task)

    async def play(self, script: list[Any]) -> list[Any]:
        ours, self.theirs = stream_pair(self.kind)
        if self.kind == "tcp":
            # Or small pieces wait for an acknowledgement, for longer than this test does.
            self.theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader, self.writer = await self.place.classes.open_connection(
            sock=ours, limit=self.limit
        )
        for name, *arguments in script:
            self.act(name, *arguments)
            await pass_turns(SETTLED)
            with contextlib.suppress(OSError):
                self.arrived += self.theirs.recv(1 << 16)
            self.log.append((self.reader.at_eof(), len(self.reader._buffer) > 0))
        self.writer.close()
        for task in self.reads:
            task.cancel()
        if self.reads:
            await asyncio.wait(self.reads)
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
        self.theirs.close()
        return [*self.log, bytes(self.reader._buffer), bytes(self.arrived)]


@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    kind=st.sampled_from(["tcp", "unix"]),
    limit=st.sampled_from([5, 50, 3000, 1 << 16]),
    script=st.lists(STEPS, max_size=15),
)
def test_the_same_story(kind: str, limit: int, script: list[Any]) -> None:
    expected = STOCK.run(Story(STOCK, kind, limit).play(script))
    for place in OWN:
        assert place.run(Story(place, kind, limit).play(script)) == expected
