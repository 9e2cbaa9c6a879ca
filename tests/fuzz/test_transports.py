"""Random interleavings of what a protocol does with its transport and what the peer does with its
socket: asyncio's transports and Weft's tell the same story.

After each step the loop runs until nothing more happens. Amounts are far from where the kernel's
buffers end, either way, for the two loops need not cut what they send at the same places.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import selector_events
from typing import Any

import pytest
from backends import Backend, asyncio_backend, weft_backend
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from peers import pass_turns, reset, stream_pair
from recorders import BufferedRecorder, Recorder

pytestmark = [
    pytest.mark.slow,
    # On 3.14 Hypothesis misreads a reference count.
    pytest.mark.filterwarnings("ignore:It looks like `register_random`"),
]

Step = tuple[Any, ...]

LARGE = 256 * 1024
HUGE = 2_000_000
"""More than any kernel takes at once here, in buffers of `LARGE`, and than the high-water mark."""
ENDED_TWICE = "Exception in callback _SelectorSocketTransport._call_connection_lost()"
"""asyncio's transport that is closed by `resume_writing()`, with nothing left to send: its protocol
hears of the end once, but the transport trips over its own."""
SETTLED = 40
"""Turns in which whatever has arrived is heard of."""

small = st.integers(0, 20)
OURS = st.sampled_from(
    [
        "pause_reading", "resume_reading", "write_eof", "close", "abort", "write_huge",
        "set_protocol", "limits", "nothing",
    ]
)  # fmt: skip
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("write"), small),
    # With an empty one among the last, asyncio (to 3.13 at least) never gets to the end of its
    # buffer.
    st.tuples(st.just("writelines"), st.lists(st.integers(1, 20), max_size=4)),
    st.tuples(OURS),
    st.tuples(OURS),
    st.tuples(st.just("peer sends"), small),
    st.tuples(st.just("peer sends"), st.just(100_000)),
    st.tuples(st.sampled_from(["peer reads", "peer ends", "peer closes", "peer resets"])),
    st.tuples(st.just("peer reads")),
)
SCRIPTS = st.lists(st.lists(STEPS, min_size=1, max_size=3), max_size=10)
REACTIONS = st.dictionaries(
    st.sampled_from(["data_received", "eof_received", "pause_writing", "resume_writing"]),
    st.sampled_from(
        ["write", "close", "abort", "pause_reading", "write_eof", "keep open", "write_huge"]
    ),
    max_size=2,
)


class Story:
    """One run of a script on one kind of loop."""

    def __init__(self, kind: str, buffered: bool, reactions: dict[str, str]) -> None:
        self.told: list[Any] = []
        self.kind = kind
        self.arrived = bytearray()
        self.peer_ended: Any = None
        self.sent = 0
        self.reacted = 0
        self.was_reset = False
        self.of_this_step: set[str] = set()
        self.comparable: int | None = None
        """How much of what is told does not hang on who came first."""
        on = {name: self.reaction(what, name) for name, what in reactions.items()}
        if buffered and (react := on.pop("data_received", None)):
            on["buffer_updated"] = react
        self.make = lambda: (BufferedRecorder if buffered else Recorder)(**on)
        self.protocol: Any = self.make()
        self.former: list[Any] = []

    def reaction(self, what: str, heard: str) -> Any:
        def react(*_: Any) -> Any:
            # Once: how often it is called, one and the same data come in one piece or in several.
            self.reacted += 1
            if heard == "resume_writing" and self.transport.is_closing():
                # What asyncio (from 3.12 on) cannot send at once then, it never sends.
                return None
            if self.reacted == 1 and what != "keep open":
                self.act(what, 10)
            return what == "keep open"

        return react

    def act(self, name: str, *arguments: Any) -> None:
        transport = self.transport
        if name.startswith("write"):
            self.race("write")
        try:
            match name:
                case "write":
                    transport.write(b"w" * arguments[0])
                case "writelines" if transport.is_closing():
                    # asyncio's raises TypeError once the connection is lost, and counts bytes
                    # before that.
                    return
                case "writelines":
                    transport.writelines([bytearray(b"l" * size) for size in arguments[0]])
                case "write_huge":
                    transport.write(bytes(HUGE))
                case "set_protocol":
                    self.former.append(self.protocol)
                    self.protocol = self.make()
                    transport.set_protocol(self.protocol)
                case "limits":
                    transport.set_write_buffer_limits(high=100)
                case "nothing":
                    return
                case _:
                    getattr(transport, name)()
        except Exception as error:
            if self.is_asyncios_own(error):
                return
            # The message names the method that asyncio of that version calls in its turn.
            self.told.append((name, type(error).__name__))

    def is_asyncios_own(self, error: Exception) -> bool:
        """asyncio forgets that a connection is lost which had something left to send when it was
        closed: `write()` and `abort()` look for the loop that is gone, instead of doing nothing."""
        stock = isinstance(self.transport, selector_events._SelectorTransport)
        return stock and self.transport._loop is None and isinstance(error, AttributeError)

    def race(self, what: str) -> None:
        """A peer that goes in the turn of a write: Weft may send that at the end of the turn, and
        asyncio's `writelines()` sends what still waits. Who sends later finds the peer gone."""
        self.of_this_step.add(what)
        if len(self.of_this_step) == 2 and self.comparable is None:
            self.comparable = len(self.told)

    def peer(self, name: str, *arguments: Any) -> None:
        sock = self.theirs
        if sock.fileno() < 0:
            return
        if name in ("peer closes", "peer resets"):
            self.race("gone")
        try:
            match name:
                case "peer sends":
                    sent = 0
                    while sent < arguments[0]:
                        count = sock.send(b"p" * (arguments[0] - sent))
                        sent += count
                        self.sent += count
                case "peer ends":
                    sock.shutdown(socket.SHUT_WR)
                case "peer closes":
                    sock.close()
                case "peer resets":
                    self.was_reset = True
                    reset(sock)
        except BlockingIOError:
            return
        except OSError as error:
            self.told.append((name, type(error).__name__))

    def read(self) -> None:
        """What there is for the peer."""
        if self.theirs.fileno() < 0 or self.peer_ended is not None:
            return
        try:
            while data := self.theirs.recv(1 << 20):
                self.arrived += data
            self.peer_ended = "end"
        except BlockingIOError:
            return
        except OSError as error:
            self.peer_ended = type(error).__name__

    def came(self) -> int:
        return sum(len(protocol.data) for protocol in (*self.former, self.protocol))

    def is_sending(self) -> bool:
        ends = self.transport.is_closing() and self.peer_ended is None
        return ends or self.transport.get_write_buffer_size() > 0

    async def settle(self, peer_reads: bool = False) -> None:
        patience = 20
        for _ in range(1000):
            before = (len(self.arrived), self.came(), len(self.protocol.calls))
            await pass_turns(SETTLED)
            if peer_reads:
                self.read()
            if before == (len(self.arrived), self.came(), len(self.protocol.calls)):
                heard = not self.transport.is_reading() or self.came() == self.sent
                if not patience or (heard and not (peer_reads and self.is_sending())):
                    return
                # What fills the kernel's buffers may come a little later.
                patience -= 1
                await asyncio.sleep(0.001)
        raise AssertionError("it never settles")

    def is_cut_short(self) -> bool:
        """Closing with something unread is a reset, which takes what is on its way along. How much
        that is, either way, is a matter of time."""
        return self.was_reset or (self.transport.is_closing() and self.came() != self.sent)

    def arrived_by_then(self) -> Any:
        if self.is_cut_short():
            return "cut short"
        arrived = len(self.arrived)
        # What abort() leaves of a huge write is the kernel's business.
        told = arrived if arrived < 10_000 else "part" if arrived < HUGE else "much"
        return told, self.peer_ended

    def ending(self, error: BaseException | None) -> str:
        return "gone" if isinstance(error, ConnectionError) else repr(error)

    def heard(self, protocol: Any) -> Any:
        calls = [
            name.replace("buffer_updated", "data_received")
            for name in protocol.distinct_calls
            if name != "get_buffer"
        ]
        # How many pieces the data came in is nobody's business.
        calls = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
        return calls, bool(protocol.data), [self.ending(error) for error in protocol.lost_with]

    def look(self) -> None:
        transport = self.transport
        self.told.append(
            (
                [self.heard(protocol) for protocol in (*self.former, self.protocol)],
                # How much the peer could send is the kernel's business.
                self.came() if self.came() < 1000 else "much",
                transport.is_closing(),
                transport.is_reading(),
                transport.get_write_buffer_size() > 0,
                transport.can_write_eof(),
                self.arrived_by_then(),
            )
        )

    async def play(self, script: list[list[Step]]) -> list[Any]:
        loop = asyncio.get_running_loop()
        ours, self.theirs = stream_pair(self.kind)
        if self.kind == "tcp":
            # Or small pieces wait for an acknowledgement, for longer than this test does.
            self.theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Or buffers grow by themselves, to more than what is huge here.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
            self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LARGE)
        self.transport, _ = await loop.create_connection(lambda: self.protocol, sock=ours)
        try:
            for together in script:
                self.of_this_step.clear()
                for name, *arguments in together:
                    if name.startswith("peer"):
                        self.peer(name, *arguments)
                    else:
                        self.act(name, *arguments)
                await self.settle(any(name == "peer reads" for name, *_ in together))
                self.look()
            # In the end everything that was written arrives, unless somebody has gone.
            self.transport.resume_reading()
            self.transport.close()
            await self.settle(peer_reads=True)
            self.look()
            if not self.is_cut_short():
                self.told.append(bytes(self.arrived).strip(b"\0"))
        finally:
            self.act("abort")
            self.theirs.close()
            with contextlib.suppress(AssertionError):
                await self.settle()
        self.told.append([self.ending(error) for error in self.protocol.lost_with])
        lost = [len(protocol.lost_with) for protocol in (*self.former, self.protocol)]
        return [*self.told[: self.comparable], sum(lost)]


def tell(
    backend: Backend, kind: str, buffered: bool, reactions: dict[str, str], script: list[list[Step]]
) -> list[Any]:
    reports: list[Any] = []

    def report(_: Any, context: dict[str, Any]) -> None:
        message, error = context["message"], context.get("exception")
        if message == ENDED_TWICE and isinstance(error, AttributeError):
            return
        reports.append((message, repr(error)))

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_exception_handler(report)
        return await Story(kind, buffered, reactions).play(script)

    return [backend.run(main()), reports]


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    kind=st.sampled_from(["tcp", "unix"]),
    buffered=st.booleans(),
    reactions=REACTIONS,
    script=SCRIPTS,
)
@example("tcp", False, {}, [[("write", 5), ("close",)], [("peer reads",)]])
@example("unix", True, {}, [[("write_huge",)], [("peer closes",)], [("write", 3)]])
def test_the_same_story(
    kind: str, buffered: bool, reactions: dict[str, str], script: list[list[Step]]
) -> None:
    expected = tell(asyncio_backend(), kind, buffered, reactions, script)
    assert tell(weft_backend(), kind, buffered, reactions, script) == expected
