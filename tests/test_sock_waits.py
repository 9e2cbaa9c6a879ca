"""Operations on sockets that wait: turn by turn as asyncio's, and what stays registered meanwhile.

Weft leaves a socket registered with the kernel when an operation is done, and must not take it for
another one, hear of it when nobody wants to, or spin.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import Backend
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from peers import Run, connected_client, has_arrived, listener, pass_turns, stream_pair
from recorders import Recorder
from turns import turn

# On 3.14 Hypothesis misreads a reference count.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random`")


@contextlib.contextmanager
def pair(kind: str = "tcp", *, small: bool = False) -> Iterator[tuple[socket.socket, Any]]:
    ours, theirs = stream_pair(kind, small=small)
    with ours, theirs:
        yield ours, theirs


async def wait_until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


# -- turn by turn ----------------------------------------------------------------------------------

Action = tuple[Any, ...]
SIDE = st.integers(0, 1)
ACTIONS = st.one_of(
    st.just(("turn",)),
    st.just(("turn",)),
    st.tuples(st.just("recv"), SIDE, st.sampled_from([1, 3, 10])),
    st.tuples(st.just("recv_into"), SIDE, st.sampled_from([1, 3, 10])),
    st.tuples(st.just("recvfrom"), SIDE, st.sampled_from([1, 3, 10])),
    st.tuples(st.just("sendall"), SIDE, st.sampled_from([1, 5, 1 << 20])),
    st.tuples(st.just("send"), SIDE, st.sampled_from([1, 5])),
    st.tuples(st.just("drain"), SIDE),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("shutdown"), SIDE),
    st.tuples(st.just("add_reader"), SIDE),
    st.tuples(st.just("remove_reader"), SIDE),
)


class Bench:
    """Drives one loop through a schedule of actions, and notes what comes of it in which turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socks: tuple[Any, Any]) -> None:
        self.loop, self.socks = loop, socks
        self.tasks: list[asyncio.Task[Any]] = []
        self.events: list[Any] = []
        self.log: list[Any] = []

    def act(self, action: Action) -> None:
        match action:
            case ("turn",):
                turn(self.loop)
                # Which of two sockets comes first in a turn is the kernel's choice.
                self.log.append(sorted(self.events))
                self.events.clear()
            case ("recv", side, size):
                self.begin(self.loop.sock_recv(self.socks[side], size))
            case ("recv_into", side, size):
                self.begin(self.receive_into(side, size))
            case ("recvfrom", side, size):
                self.begin(self.loop.sock_recvfrom(self.socks[side], size))
            case ("sendall", side, size):
                self.begin(self.loop.sock_sendall(self.socks[side], bytes(size)))
            case ("send", side, size):
                with contextlib.suppress(OSError):
                    self.socks[side].send(bytes(range(size)))
            case ("drain", side):
                with contextlib.suppress(OSError):
                    while self.socks[side].recv(1 << 20):
                        pass
            case ("cancel", index):
                if index < len(self.tasks):
                    self.tasks[index].cancel()
            case ("shutdown", side):
                with contextlib.suppress(OSError):
                    self.socks[side].shutdown(socket.SHUT_WR)
            case ("add_reader", side):
                self.loop.add_reader(self.socks[side], self.events.append, ("readable", side))
            case ("remove_reader", side):
                self.loop.remove_reader(self.socks[side])

    async def receive_into(self, side: int, size: int) -> bytes:
        buffer = bytearray(size)
        count = await self.loop.sock_recv_into(self.socks[side], buffer)
        return bytes(buffer[:count])

    def begin(self, coroutine: Any) -> None:
        number = len(self.tasks)
        task = self.loop.create_task(coroutine)
        task.add_done_callback(lambda task: self.events.append(("done", number, outcome(task))))
        self.tasks.append(task)

    def end(self) -> None:
        for sock in self.socks:
            self.loop.remove_reader(sock)
        for task in self.tasks:
            task.cancel()
        self.act(("turn",))
        self.act(("turn",))
        assert all(task.done() for task in self.tasks)
        watched = [self.loop.remove_reader(s) or self.loop.remove_writer(s) for s in self.socks]
        assert watched == [False, False]


def outcome(task: asyncio.Task[Any]) -> str:
    if task.cancelled():
        return "cancelled"
    return repr(task.exception() or task.result())


def history(
    make_loop: Callable[[], asyncio.AbstractEventLoop], schedule: list[Action]
) -> list[Any]:
    loop = make_loop()
    with contextlib.closing(loop), pair("unix", small=True) as socks:
        bench = Bench(loop, socks)
        try:
            for action in schedule:
                bench.act(action)
        finally:
            bench.end()
        return bench.log


@pytest.mark.backends("weft")
@pytest.mark.slow
@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(schedule=st.lists(ACTIONS, max_size=30))
@example([("recv", 0, 1), ("turn",), ("recv", 0, 3), ("turn",), ("send", 1, 5), ("cancel", 0)])
@example([("recv", 0, 1), ("turn",), ("send", 1, 5), ("turn",), ("cancel", 0), ("recv", 0, 3)])
@example([("recv", 0, 1), ("turn",), ("add_reader", 0), ("send", 1, 1), ("turn",), ("cancel", 0)])
@example([("recv", 0, 1), ("turn",), ("remove_reader", 0), ("send", 1, 1), ("recv", 0, 1)])
@example([("sendall", 0, 1 << 20), ("recv", 0, 1), ("turn",), ("send", 1, 1), ("drain", 1)])
def test_every_turn_is_as_in_asyncio(backend: Backend, schedule: list[Action]) -> None:
    expected = history(asyncio.SelectorEventLoop, schedule)
    assert history(backend.new_event_loop, schedule) == expected


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("there", [0, 1, 2, 3])
def test_cancelled_in_any_turn(loop: asyncio.AbstractEventLoop, turns: int, there: int) -> None:
    """The bytes are with the task or still in the socket, but for the turn between the two."""
    with pair("unix") as (sock, peer):
        task = loop.create_task(loop.sock_recv(sock, 10))
        for number in range(turns):
            if number == there:
                peer.send(b"data")
            turn(loop)
        assert task.done() == (turns > 0 if there == 0 and turns else turns >= there + 2)
        # It has read, and its task has not gone on with it yet: too late to give anything back.
        lost = there > 0 and turns == there + 1
        task.cancel()
        turn(loop, 3)
        left = sock.recv(10) if has_arrived(sock, 0) else b""
        taken = b"" if task.cancelled() else task.result()
        assert left + taken == (b"data" if there < turns and not lost else b"")
        assert not loop.remove_reader(sock)


# -- two on one socket -----------------------------------------------------------------------------


def test_a_second_reader_replaces_the_first(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer):
            first = loop.create_task(loop.sock_recv(sock, 10))
            await pass_turns()
            second = loop.create_task(loop.sock_recv(sock, 10))
            await pass_turns()
            peer.send(b"data")
            assert await second == b"data"
            assert not first.done()
            third = loop.create_task(loop.sock_recv(sock, 10))
            await pass_turns()
            first.cancel()
            await pass_turns()
            peer.send(b"more")
            assert await third == b"more"
            assert first.cancelled()

    run(main())


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_one_reads_while_the_other_is_held_up_again_and_again(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair(kind, small=True) as (sock, peer):
            for _ in range(5):
                reading = loop.create_task(loop.sock_recv(sock, 10))
                writing = loop.create_task(loop.sock_sendall(sock, bytes(200_000)))
                await pass_turns()
                assert not reading.done() and not writing.done()
                peer.send(b"question")
                assert await reading == b"question"
                assert not writing.done()
                got = 0
                while got < 200_000:
                    got += len(await loop.sock_recv(peer, 1 << 16))
                await writing
            assert not loop.remove_reader(sock)
            assert not loop.remove_writer(sock)

    run(main())


def test_a_callback_and_an_operation_take_turns(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer):
            for _ in range(3):
                loop.call_soon(peer.send, b"data")
                assert await loop.sock_recv(sock, 10) == b"data"
                readable = asyncio.Event()
                loop.add_reader(sock, readable.set)
                await pass_turns()
                assert not readable.is_set()
                peer.send(b"x")
                await readable.wait()
                assert loop.remove_reader(sock)
                assert sock.recv(10) == b"x"

    run(main())


def test_many_at_once(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def answer(sock: socket.socket) -> None:
            while data := await loop.sock_recv(sock, 100):
                await loop.sock_sendall(sock, data[::-1])

        async def ask(sock: socket.socket, number: int) -> None:
            for question in (b"%d" % number, b"once more", b"and again"):
                await loop.sock_sendall(sock, question)
                assert await loop.sock_recv(sock, 100) == question[::-1]
            sock.close()

        with contextlib.ExitStack() as stack:
            async with asyncio.TaskGroup() as group:
                for number in range(100):
                    ours, theirs = stack.enter_context(pair("unix"))
                    group.create_task(answer(theirs))
                    group.create_task(ask(ours, number))

    run(main())


# -- sockets that go meanwhile ---------------------------------------------------------------------


def another_with_the_number(number: int) -> tuple[socket.socket, socket.socket]:
    """A new pair of which the first has this descriptor number."""
    ours, theirs = stream_pair("unix")
    if ours.fileno() == number:
        return ours, theirs
    os.dup2(ours.fileno(), number)
    ours.close()
    again = socket.socket(fileno=number)
    again.setblocking(False)
    return again, theirs


@pytest.mark.parametrize("how", ["closed", "detached", "forgotten", "duplicated"])
def test_a_number_that_is_used_again(run: Run, how: str) -> None:
    """What was registered for the first socket says nothing about the second."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            sock, peer = stream_pair("unix")
            loop.call_soon(peer.send, b"first")
            assert await loop.sock_recv(sock, 10) == b"first"
            number = sock.fileno()
            kept = sock.dup() if how == "duplicated" else None
            if how == "detached":
                with socket.socket(fileno=sock.detach()) as other, peer:
                    other.setblocking(False)
                    receiving = loop.create_task(loop.sock_recv(other, 10))
                    await pass_turns()
                    peer.send(b"second")
                    assert await receiving == b"second"
                continue
            if how == "forgotten":
                os.close(sock.detach())
                del sock
            else:
                sock.close()
            other, beyond = another_with_the_number(number)
            with other, beyond, peer:
                receiving = loop.create_task(loop.sock_recv(other, 10))
                await pass_turns()
                with contextlib.suppress(BrokenPipeError):
                    peer.send(b"not for you")
                await pass_turns()
                assert not receiving.done()
                beyond.send(b"second")
                assert await receiving == b"second"
            if kept is not None:
                kept.close()

    run(main())


def test_a_number_that_is_used_again_by_a_transport(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for keep in (True, False):
            sock, peer = stream_pair("unix")
            loop.call_soon(peer.send, b"first")
            assert await loop.sock_recv(sock, 10) == b"first"
            if not keep:
                number = sock.fileno()
                sock.close()
                peer.close()
                sock, peer = another_with_the_number(number)
            with peer:
                recorder = Recorder()
                transport, _ = await loop.create_unix_connection(
                    lambda made=recorder: made, sock=sock
                )
                peer.send(b"second")
                await wait_until(lambda made=recorder: made.data == b"second")
                with pytest.raises(RuntimeError, match="is used by transport"):
                    await loop.sock_recv(sock, 10)
                transport.close()
                await recorder.lost()

    run(main())


def test_a_number_that_is_used_again_by_a_callback(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock, peer = stream_pair("unix")
        loop.call_soon(peer.send, b"first")
        assert await loop.sock_recv(sock, 10) == b"first"
        number = sock.fileno()
        sock.close()
        peer.close()
        other, beyond = another_with_the_number(number)
        with other, beyond:
            readable = asyncio.Event()
            loop.add_reader(number, readable.set)
            beyond.send(b"second")
            await readable.wait()
            assert loop.remove_reader(number)

    run(main())


def test_a_socket_closed_under_a_waiting_operation(run: Run) -> None:
    """Nobody tells it, as in asyncio; but it can be cancelled, and stands in nobody's way."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock, peer = stream_pair("unix")
        waiting = loop.create_task(loop.sock_recv(sock, 10))
        await pass_turns()
        sock.close()
        with contextlib.suppress(BrokenPipeError):
            peer.send(b"lost")
        await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        peer.close()

    run(main())


@pytest.mark.backends("weft")
def test_a_socket_closed_and_its_number_used_while_an_operation_waits(run: Run) -> None:
    """asyncio takes the new socket for the old one, and never hears of it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock, peer = stream_pair("unix")
        waiting = loop.create_task(loop.sock_recv(sock, 10))
        await pass_turns()
        number = sock.fileno()
        sock.close()
        other, beyond = another_with_the_number(number)
        with other, beyond, peer:
            receiving = loop.create_task(loop.sock_recv(other, 10))
            await pass_turns()
            waiting.cancel()
            await pass_turns()
            beyond.send(b"data")
            assert await receiving == b"data"
            assert waiting.cancelled()

    run(main())


def test_a_duplicate_that_lives_on_does_not_keep_the_loop_busy(run: Run) -> None:
    """The kernel goes on watching an open file whose registered descriptor is closed."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer):
            loop.call_soon(peer.send, b"data")
            assert await loop.sock_recv(sock, 10) == b"data"
            with sock.dup():
                sock.close()
                peer.send(b"for the duplicate")
                peer.shutdown(socket.SHUT_WR)
                before = time.process_time()
                await asyncio.sleep(0.1)
                assert time.process_time() - before < 0.05

    run(main())


def test_what_arrives_between_operations_does_not_keep_the_loop_busy(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer):
            loop.call_soon(peer.send, b"data")
            assert await loop.sock_recv(sock, 10) == b"data"
            peer.send(b"unread")
            before = time.process_time()
            await asyncio.sleep(0.1)
            assert time.process_time() - before < 0.05
            assert await loop.sock_recv(sock, 10) == b"unread"
            peer.close()
            await asyncio.sleep(0.01)
            assert await loop.sock_recv(sock, 10) == b""

    run(main())


def registered_with_the_kernel() -> set[int]:
    """The descriptors that any epoll of this process knows."""
    known = set()
    for name in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/fdinfo", name).read_text().splitlines():
                if line.startswith("tfd:"):
                    known.add(int(line.split()[1]))
    return known


@pytest.mark.backends("weft")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_socket_stays_registered_until_it_is_closed(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer):
            for _ in range(3):
                loop.call_soon(peer.send, b"data")
                assert await loop.sock_recv(sock, 10) == b"data"
                assert sock.fileno() in registered_with_the_kernel()
            number = sock.fileno()
            # Whoever has a callback taken away wants the descriptor left alone.
            assert not loop.remove_reader(sock)
            assert number not in registered_with_the_kernel()
            loop.call_soon(peer.send, b"data")
            assert await loop.sock_recv(sock, 10) == b"data"
            sock.close()
            assert number not in registered_with_the_kernel()

    run(main())


# -- other ends ------------------------------------------------------------------------------------


def test_an_interrupt_while_accepting_leaves_the_operation_waiting(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listener() as listening:
        listening.setblocking(False)
        task = loop.create_task(loop.sock_accept(listening))
        turn(loop)

        def interrupted(sock: socket.socket) -> Any:
            raise KeyboardInterrupt

        with connected_client(listening.getsockname()) as client:
            with monkeypatch.context() as patch:
                patch.setattr(socket.socket, "accept", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    loop.run_until_complete(task)
            accepted, address = loop.run_until_complete(task)
            with accepted:
                assert address == client.getsockname()


@pytest.mark.parametrize("error", [ValueError("wrong"), OSError(24, "Too many open files")])
def test_an_error_of_accept_reaches_who_awaits(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(sock: socket.socket) -> Any:
        raise error

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            listening.setblocking(False)
            for later in (True, False):
                with monkeypatch.context() as patch:
                    if not later:
                        patch.setattr(socket.socket, "accept", fail)
                    task = loop.create_task(loop.sock_accept(listening))
                    await pass_turns()
                    patch.setattr(socket.socket, "accept", fail)
                    with connected_client(listening.getsockname()):
                        with pytest.raises(type(error)) as caught:
                            await task
                        assert caught.value is error
                accepted, _ = listening.accept()
                accepted.close()
            assert not loop.remove_reader(listening)

    run(main())


def test_a_buffer_released_meanwhile(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (sock, peer):
            view = memoryview(bytearray(10))
            receiving = loop.create_task(loop.sock_recv_into(sock, view))
            await pass_turns()
            view.release()
            peer.send(b"data")
            with pytest.raises(TypeError, match="read-write bytes-like object"):
                await receiving
            assert sock.recv(10) == b"data"

    run(main())


def test_a_buffer_is_lent_while_it_is_sent(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair(small=True) as (sock, _):
            data = bytearray(1 << 20)
            sending = loop.create_task(loop.sock_sendall(sock, data))
            await pass_turns()
            with pytest.raises(BufferError):
                data.clear()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            del sending
            gc.collect()
            data.clear()

    run(main())


def test_nothing_is_kept_alive(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock, peer = stream_pair()
        with peer:
            loop.call_soon(peer.send, b"data")
            assert await loop.sock_recv(sock, 10) == b"data"
            task = loop.create_task(loop.sock_recv(sock, 10))
            await pass_turns()
            task.cancel()
            await asyncio.wait([task])
            references = [weakref.ref(sock), weakref.ref(task)]
            sock.close()
            del sock, task
            gc.collect()
            assert [reference() for reference in references] == [None, None]

    run(main())
