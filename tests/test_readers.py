"""add_reader, add_writer and their removal: level-triggered, for any descriptor."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from backends import Backend
from children import python
from turns import raised, turn


def nothing(*arguments: Any) -> None:
    pass


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    with left, right:
        yield left, right


Pair = tuple[socket.socket, socket.socket]


def fill(sock: socket.socket) -> int:
    """Write until the kernel takes no more."""
    count = 0
    while True:
        try:
            count += sock.send(b"x" * 65536)
        except BlockingIOError:
            return count


class TestReader:
    def test_called_when_readable(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        seen: list[Any] = []

        def ready(*arguments: Any) -> None:
            seen.append((arguments, left.recv(100)))
            loop.stop()

        assert loop.add_reader(left, ready, 1, "two") is None
        turn(loop)
        assert seen == []
        right.send(b"hello")
        loop.run_forever()
        assert seen == [((1, "two"), b"hello")]
        assert loop.remove_reader(left) is True
        right.send(b"more")
        turn(loop)
        assert len(seen) == 1

    def test_level_triggered(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        """As long as there is something to read, every turn says so."""
        left, right = pair
        seen: list[bytes] = []

        def ready() -> None:
            seen.append(left.recv(1))
            if len(seen) == 5:
                loop.stop()

        loop.add_reader(left, ready)
        right.send(b"abcde")
        loop.run_forever()
        loop.remove_reader(left)
        assert seen == [b"a", b"b", b"c", b"d", b"e"]

    def test_called_again_although_nothing_was_read(
        self, loop: asyncio.AbstractEventLoop, pair: Pair
    ) -> None:
        left, right = pair
        count = 0

        def ready() -> None:
            nonlocal count
            count += 1
            if count == 10:
                loop.stop()

        loop.add_reader(left, ready)
        right.send(b"x")
        loop.run_forever()
        loop.remove_reader(left)
        assert count == 10

    def test_data_that_is_there_already(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        right.send(b"x")
        loop.add_reader(left, loop.stop)
        loop.run_forever()
        loop.remove_reader(left)

    def test_end_of_file(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        right.close()
        loop.add_reader(left, loop.stop)
        loop.run_forever()
        assert left.recv(1) == b""
        loop.remove_reader(left)

    def test_once_a_turn(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        """However many turns' worth of data wait, other callbacks run in between."""
        left, right = pair
        seen: list[str] = []
        loop.add_reader(left, seen.append, "reader")
        right.send(b"abc")

        def other() -> None:
            seen.append("other")
            if len(seen) < 200:
                loop.call_soon(other)
            else:
                loop.stop()

        loop.call_soon(other)
        loop.run_forever()
        loop.remove_reader(left)
        assert seen.count("reader") >= 1
        assert seen.count("other") >= 60

    def test_not_starved_by_callbacks(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        """Thousands of callbacks are ready at every turn: input is looked at all the same."""
        left, right = pair
        seen: list[str] = []
        left_over = 1_000_000

        def again() -> None:
            nonlocal left_over
            left_over -= 1
            if left_over > 0 and not seen:
                loop.call_soon(again)
            else:
                loop.stop()

        for _ in range(2000):
            loop.call_soon(again)
        loop.add_reader(left, seen.append, "reader")
        right.send(b"x")
        loop.run_forever()
        loop.remove_reader(left)
        assert seen

    def test_replaced(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        seen: list[str] = []
        loop.add_reader(left, seen.append, "first")
        loop.add_reader(left, lambda: (seen.append("second"), loop.stop()))
        right.send(b"x")
        loop.run_forever()
        assert seen == ["second"]
        assert loop.remove_reader(left) is True
        assert loop.remove_reader(left) is False

    def test_replaced_lets_go_of_the_first(
        self, loop: asyncio.AbstractEventLoop, pair: Pair
    ) -> None:
        class Thing:
            def ready(self) -> None:
                pass

        thing = Thing()
        alive = weakref.ref(thing)
        loop.add_reader(pair[0], thing.ready)
        del thing
        gc.collect()
        assert alive() is not None
        loop.add_reader(pair[0], nothing)
        gc.collect()
        assert alive() is None
        loop.remove_reader(pair[0])

    def test_removed_lets_go(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        class Thing:
            def ready(self) -> None:
                pass

        thing = Thing()
        alive = weakref.ref(thing)
        loop.add_reader(pair[0], thing.ready)
        loop.add_writer(pair[0], thing.ready)
        del thing
        loop.remove_reader(pair[0])
        loop.remove_writer(pair[0])
        gc.collect()
        assert alive() is None

    def test_removes_itself(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        seen: list[bool] = []
        loop.add_reader(left, lambda: seen.append(loop.remove_reader(left)))
        right.send(b"x")
        turn(loop, 3)
        assert seen == [True]

    def test_removed_by_another_of_the_same_turn(
        self, loop: asyncio.AbstractEventLoop, pair: Pair
    ) -> None:
        """Both ends are readable; whichever callback runs first removes the other."""
        left, right = pair
        left.send(b"x")
        right.send(b"x")
        seen: list[str] = []
        loop.add_reader(left, lambda: (seen.append("left"), loop.remove_reader(right)))
        loop.add_reader(right, lambda: (seen.append("right"), loop.remove_reader(left)))
        turn(loop, 2)
        assert len(set(seen)) == 1
        loop.remove_reader(left)
        loop.remove_reader(right)

    def test_added_by_another(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        seen: list[str] = []
        left.send(b"x")
        right.send(b"x")

        def first() -> None:
            seen.append("left")
            loop.remove_reader(left)
            loop.add_reader(right, second)

        def second() -> None:
            seen.append("right")
            loop.remove_reader(right)
            loop.stop()

        loop.add_reader(left, first)
        loop.run_forever()
        assert seen == ["left", "right"]


class TestWriter:
    def test_called_when_writable(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        fill(left)
        seen: list[Any] = []

        def ready(word: str) -> None:
            seen.append(word)
            loop.stop()

        assert loop.add_writer(left, ready, "writable") is None
        turn(loop)
        assert seen == []
        while True:
            try:
                right.recv(1 << 20)
            except BlockingIOError:
                break
        loop.run_forever()
        assert seen == ["writable"]
        assert loop.remove_writer(left) is True
        assert loop.remove_writer(left) is False

    def test_at_once(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        loop.add_writer(pair[0], loop.stop)
        loop.run_forever()
        loop.remove_writer(pair[0])

    def test_peer_gone(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        fill(left)
        right.close()
        loop.add_writer(left, loop.stop)
        loop.run_forever()
        loop.remove_writer(left)

    def test_together_with_a_reader(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        seen: list[str] = []

        def note(word: str) -> None:
            seen.append(word)
            if len(set(seen)) == 2:
                loop.stop()

        loop.add_reader(left, note, "reader")
        loop.add_writer(left, note, "writer")
        right.send(b"x")
        loop.run_forever()
        assert set(seen) == {"reader", "writer"}
        assert loop.remove_reader(left) is True
        seen.clear()
        turn(loop)
        assert set(seen) == {"writer"}
        assert loop.remove_writer(left) is True
        seen.clear()
        turn(loop)
        assert seen == []

    def test_removing_one_keeps_the_other(
        self, loop: asyncio.AbstractEventLoop, pair: Pair
    ) -> None:
        left, right = pair
        seen: list[str] = []
        loop.add_writer(left, seen.append, "writer")
        loop.add_reader(left, seen.append, "reader")
        loop.remove_writer(left)
        turn(loop)
        assert seen == []
        right.send(b"x")
        turn(loop)
        assert seen == ["reader"]
        loop.remove_reader(left)

    def test_one_removes_the_other(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        seen: list[str] = []

        def reader() -> None:
            seen.append("reader")
            loop.remove_writer(left)

        loop.add_reader(left, reader)
        loop.add_writer(left, seen.append, "writer")
        right.send(b"x")
        turn(loop)
        # asyncio runs the reader first, and the writer that it removed not at all.
        assert seen == ["reader"]
        loop.remove_reader(left)


class TestDescriptors:
    def test_number_socket_or_file(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        right.send(b"x")

        class Duck:
            def fileno(self) -> int:
                return left.fileno()

        for thing in (left, left.fileno(), Duck()):
            seen: list[int] = []
            loop.add_reader(thing, seen.append, 1)
            turn(loop)
            assert seen == [1]
            assert loop.remove_reader(left) is True

    def test_pipe(self, loop: asyncio.AbstractEventLoop) -> None:
        reading, writing = os.pipe()
        seen: list[bytes] = []
        loop.add_reader(reading, lambda: (seen.append(os.read(reading, 10)), loop.stop()))
        os.write(writing, b"pipe")
        loop.run_forever()
        loop.remove_reader(reading)
        loop.add_writer(writing, loop.stop)
        loop.run_forever()
        loop.remove_writer(writing)
        os.close(reading)
        os.close(writing)
        assert seen == [b"pipe"]

    def test_eventfd(self, loop: asyncio.AbstractEventLoop) -> None:
        counter = os.eventfd(0)
        loop.add_reader(counter, loop.stop)
        os.eventfd_write(counter, 1)
        loop.run_forever()
        loop.remove_reader(counter)
        os.close(counter)

    def test_terminal(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            master, slave = os.openpty()
        except OSError as error:
            pytest.skip(f"no pseudo-terminals here: {error}")
        loop.add_reader(master, loop.stop)
        os.write(slave, b"x")
        loop.run_forever()
        loop.remove_reader(master)
        os.close(master)
        os.close(slave)

    def test_regular_file(self, loop: asyncio.AbstractEventLoop) -> None:
        """epoll refuses: PermissionError, and nothing is left registered."""
        with open(__file__) as file:
            error, _ = raised(loop.add_reader, file, nothing)
            assert error is PermissionError
            assert loop.remove_reader(file) is False
            error, _ = raised(loop.add_writer, file, nothing)
            assert error is PermissionError
            assert loop.remove_writer(file) is False

    @pytest.mark.parametrize("method", ["add_reader", "add_writer"])
    @pytest.mark.parametrize(
        ("thing", "expected"),
        [
            (-1, (ValueError, "Invalid file descriptor: -1")),
            (None, (ValueError, "Invalid file object: None")),
            ("text", (ValueError, "Invalid file object: 'text'")),
            (1.5, (ValueError, "Invalid file object: 1.5")),
            ([], (ValueError, "Invalid file object: []")),
        ],
    )
    def test_not_a_descriptor(
        self,
        loop: asyncio.AbstractEventLoop,
        method: str,
        thing: Any,
        expected: tuple[type, str],
    ) -> None:
        assert raised(getattr(loop, method), thing, nothing) == expected

    @pytest.mark.parametrize("method", ["remove_reader", "remove_writer"])
    @pytest.mark.parametrize(
        ("thing", "expected"),
        [
            (-1, (ValueError, "Invalid file descriptor: -1")),
            (None, (ValueError, "Invalid file object: None")),
            ("text", (ValueError, "Invalid file object: 'text'")),
        ],
    )
    def test_not_a_descriptor_to_remove(
        self,
        loop: asyncio.AbstractEventLoop,
        method: str,
        thing: Any,
        expected: tuple[type, str],
    ) -> None:
        assert raised(getattr(loop, method), thing) == expected

    def test_fileno_that_misbehaves(self, loop: asyncio.AbstractEventLoop) -> None:
        class Broken:
            def fileno(self) -> int:
                raise ZeroDivisionError

        class Text:
            def fileno(self) -> str:
                return "text"

        class Negative:
            def fileno(self) -> int:
                return -1

        with pytest.raises(ZeroDivisionError):
            loop.add_reader(Broken(), nothing)
        assert raised(loop.add_reader, Text(), nothing)[0] is ValueError
        assert raised(loop.add_reader, Negative(), nothing) == (
            ValueError,
            "Invalid file descriptor: -1",
        )

    def test_closed_socket(self, loop: asyncio.AbstractEventLoop) -> None:
        sock = socket.socket()
        sock.close()
        assert raised(loop.add_reader, sock, nothing) == (
            ValueError,
            "Invalid file descriptor: -1",
        )
        # asyncio finds no registration to remove for an object it has never seen.
        assert raised(loop.remove_reader, sock) == (ValueError, "Invalid file descriptor: -1")

    def test_number_of_no_open_file(self, loop: asyncio.AbstractEventLoop) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        os.close(writing)
        error, _ = raised(loop.add_reader, reading, nothing)
        assert error is OSError
        assert loop.remove_reader(reading) is False

    def test_large_number(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (10**6, 2**31 - 1):
            error, _ = raised(loop.add_reader, number, nothing)
            assert error is OSError
            assert loop.remove_reader(number) is False
        for number in (2**31, 2**64):
            error, _ = raised(loop.add_reader, number, nothing)
            assert error in (OverflowError, ValueError, OSError)

    def test_socket_closed_while_registered(
        self, loop: asyncio.AbstractEventLoop, pair: Pair
    ) -> None:
        """The socket is closed, then removed: `asyncio` still finds it by the object."""
        left, _ = pair
        loop.add_reader(left, nothing)
        left.close()
        turn(loop, 2)
        assert loop.remove_writer(left) is False
        assert loop.remove_reader(left) is True
        # Nothing of it is left to be found.
        assert raised(loop.remove_reader, left) == (ValueError, "Invalid file descriptor: -1")

    def test_closed_descriptor_that_was_registered_as_a_number(
        self, loop: asyncio.AbstractEventLoop, pair: Pair
    ) -> None:
        left, _ = pair
        number = left.fileno()
        loop.add_reader(number, nothing)
        left.close()
        assert raised(loop.remove_reader, left) == (ValueError, "Invalid file descriptor: -1")
        assert loop.remove_reader(number) is True

    def test_closed_socket_and_closed_loop(self, backend: Backend, pair: Pair) -> None:
        """anyio removes what it has added when its task is told of the end, which may be late."""
        left, _ = pair
        loop = backend.new_event_loop()
        loop.add_reader(left, nothing)
        left.close()
        loop.close()
        assert loop.remove_reader(left) is False
        assert loop.remove_writer(left) is False

    def test_a_registered_socket_is_kept(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until nobody watches it."""
        left, right = socket.socketpair()
        number, kept = left.fileno(), weakref.ref(left)
        with right:
            loop.add_reader(left, nothing)
            del left
            gc.collect()
            assert kept() is not None
            with pytest.warns(ResourceWarning, match="unclosed"):
                assert loop.remove_reader(number) is True
            assert kept() is None

    def test_number_reused_by_another_file(self, loop: asyncio.AbstractEventLoop) -> None:
        """Closed without removing; a new socket gets the number, and the old entry goes first."""
        left, right = socket.socketpair()
        number = left.fileno()
        loop.add_reader(number, nothing)
        left.close()
        right.close()
        other, peer = socket.socketpair()
        with other, peer:
            again = other if other.fileno() == number else peer
            assert again.fileno() == number
            seen: list[str] = []
            # The kernel has dropped the registration already; only the loop still has it.
            assert loop.remove_reader(number) is True
            loop.add_reader(again, seen.append, "new")
            (peer if again is other else other).send(b"x")
            turn(loop, 3)
            assert set(seen) == {"new"}
            loop.remove_reader(again)

    def test_a_socket_in_two_loops(
        self, loop: asyncio.AbstractEventLoop, backend: Backend, pair: Pair
    ) -> None:
        """grpc.aio adds one socket to several loops, which all are told."""
        left, right = pair
        other = backend.new_event_loop()
        seen: list[str] = []
        loop.add_reader(left, seen.append, "one")
        other.add_reader(left, seen.append, "two")
        right.send(b"x")
        turn(loop)
        turn(other)
        assert seen == ["one", "two"]
        loop.remove_reader(left)
        other.remove_reader(left)
        other.close()

    def test_a_duplicate(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        with left.dup() as twin:
            seen: list[str] = []
            loop.add_reader(left, seen.append, "left")
            loop.add_reader(twin, seen.append, "twin")
            right.send(b"x")
            turn(loop)
            assert sorted(seen) == ["left", "twin"]
            assert loop.remove_reader(left) is True
            assert loop.remove_reader(twin) is True

    def test_hundreds(self, loop: asyncio.AbstractEventLoop) -> None:
        pairs = [socket.socketpair() for _ in range(200)]
        seen: set[int] = set()
        for number, (left, right) in enumerate(pairs):
            loop.add_reader(left, seen.add, number)
            if number % 2:
                right.send(b"x")
        turn(loop, 2)
        assert seen == set(range(1, 200, 2))
        for left, right in pairs:
            assert loop.remove_reader(left) is True
            left.close()
            right.close()

    def test_descriptors_of_a_transport(self, loop: asyncio.AbstractEventLoop) -> None:
        """asyncio refuses a descriptor that a transport owns."""

        async def main() -> None:
            left, right = socket.socketpair()
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
            number = transport.get_extra_info("socket").fileno()
            for call in (
                lambda: loop.add_reader(number, nothing),
                lambda: loop.add_writer(number, nothing),
                lambda: loop.remove_reader(number),
                lambda: loop.remove_writer(number),
            ):
                error, message = raised(call)
                assert error is RuntimeError
                assert message.startswith(f"File descriptor {number} is used by transport ")
            transport.close()
            right.close()
            await asyncio.sleep(0)

        loop.run_until_complete(main())


class TestCallbacks:
    def test_errors_are_reported(
        self, loop: asyncio.AbstractEventLoop, pair: Pair, reports: list[dict[str, Any]]
    ) -> None:
        left, right = pair
        calls = 0

        def broken() -> None:
            nonlocal calls
            calls += 1
            left.recv(1)
            raise ZeroDivisionError

        loop.add_reader(left, broken)
        right.send(b"ab")
        turn(loop, 3)
        # An error does not remove the reader.
        assert calls == 2
        assert [type(report["exception"]) for report in reports] == [ZeroDivisionError] * 2
        assert reports[0]["message"].startswith("Exception in callback ")
        loop.remove_reader(left)

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_exits_end_the_run(
        self, loop: asyncio.AbstractEventLoop, pair: Pair, kind: type[BaseException]
    ) -> None:
        left, right = pair

        def leave() -> None:
            left.recv(1)
            raise kind

        loop.add_reader(left, leave)
        right.send(b"x")
        with pytest.raises(kind):
            loop.run_forever()
        turn(loop)
        loop.remove_reader(left)

    def test_stops_the_loop(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        loop.add_reader(left, loop.stop)
        right.send(b"x")
        for _ in range(3):
            loop.run_forever()
        loop.remove_reader(left)

    def test_closes_its_own_socket(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        seen: list[str] = []

        def close() -> None:
            seen.append("closed")
            loop.remove_reader(left)
            left.close()

        loop.add_reader(left, close)
        loop.add_writer(left, nothing)
        loop.remove_writer(left)
        right.send(b"x")
        turn(loop, 3)
        assert seen == ["closed"]

    def test_sets_a_future(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        """How most libraries wait for a descriptor (psycopg, pyzmq)."""
        left, right = pair

        async def wait_readable() -> None:
            future = loop.create_future()
            loop.add_reader(left, lambda: None if future.done() else future.set_result(None))
            try:
                await future
            finally:
                loop.remove_reader(left)

        async def main() -> bytes:
            task = asyncio.ensure_future(wait_readable())
            await asyncio.sleep(0)
            right.send(b"ready")
            await task
            return left.recv(10)

        assert loop.run_until_complete(main()) == b"ready"

    def test_asyncio_debug_rejects_coroutines(
        self, loop: asyncio.AbstractEventLoop, pair: Pair
    ) -> None:
        """add_reader takes what it is given: asyncio looks only in call_soon and call_at."""

        async def coroutine() -> None:
            pass

        loop.set_debug(True)
        loop.add_reader(pair[0], coroutine)
        loop.remove_reader(pair[0])

    def test_order_with_callbacks(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        """What the poll found runs after what was ready, before what these callbacks schedule."""
        left, right = pair
        seen: list[str] = []
        loop.add_reader(left, seen.append, "reader")
        right.send(b"x")
        loop.call_soon(lambda: (seen.append("soon"), loop.call_soon(seen.append, "later")))
        turn(loop)
        assert seen == ["soon", "reader"]
        loop.remove_reader(left)
        turn(loop)
        assert seen == ["soon", "reader", "later"]

    def test_many_changes_in_one_turn(self, loop: asyncio.AbstractEventLoop, pair: Pair) -> None:
        left, right = pair
        seen: list[str] = []
        for _ in range(100):
            loop.add_reader(left, seen.append, "r")
            loop.add_writer(left, seen.append, "w")
            loop.remove_reader(left)
            loop.remove_writer(left)
        loop.add_reader(left, seen.append, "reader")
        right.send(b"x")
        turn(loop)
        assert seen == ["reader"]
        loop.remove_reader(left)


def test_close_leaves_the_descriptors_open(backend: Backend, pair: Pair) -> None:
    left, right = pair
    loop = backend.new_event_loop()
    loop.add_reader(left, nothing)
    loop.add_writer(left, nothing)
    loop.close()
    right.send(b"still open")
    assert left.recv(20) == b"still open"


def test_callbacks_go_with_the_loop(backend: Backend, pair: Pair) -> None:
    class Thing:
        def ready(self) -> None:
            pass

    thing = Thing()
    alive = weakref.ref(thing)
    loop = backend.new_event_loop()
    loop.add_reader(pair[0], thing.ready)
    loop.add_writer(pair[1], thing.ready)
    del thing
    loop.close()
    del loop
    gc.collect()
    assert alive() is None


@pytest.mark.child
def test_standard_input(backend: Backend) -> None:
    source = """
import sys

async def main():
    loop = asyncio.get_running_loop()
    line = loop.create_future()
    loop.add_reader(sys.stdin, lambda: line.set_result(sys.stdin.readline()))
    print(repr(await line))
    loop.remove_reader(sys.stdin)

run(main())
"""
    assert python("-c", backend.prelude + source, stdin="hello\n").check() == "'hello\\n'\n"
