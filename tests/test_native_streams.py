"""Weft's streams: what can differ in native code. The tests of asyncio's own run on them as well,
`pytest --installed tests/test_streams.py`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import weft
from backends import PY313
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import FILLS_UP, Run, pass_turns, stream_pair
from weft import _primitives

STOCK = types.SimpleNamespace(
    StreamReader=weft.StreamReader.__bases__[1],
    StreamReaderProtocol=weft.StreamReaderProtocol.__bases__[1],
    StreamWriter=weft.StreamWriter.__bases__[1],
)
"""asyncio's own classes, whatever asyncio's names give now."""


@pytest.fixture(autouse=True, params=["installed", "imported"])
def in_place(request: pytest.FixtureRequest) -> Iterator[None]:
    """The classes work alike with and without `weft.install()`."""
    if request.param == "imported" or asyncio.StreamReader is weft.StreamReader:
        yield
        return
    _primitives.put_in_place()
    try:
        yield
    finally:
        _primitives.take_back()


# -- the same calls, asyncio's reader and ours -----------------------------------------------------


class Transport:
    """What a reader wants of a transport, written down; `pausable` or not."""

    def __init__(self, log: list[Any], pausable: bool) -> None:
        self.log = log
        self.pausable = pausable

    def pause_reading(self) -> None:
        self.log.append("pause")
        if not self.pausable:
            raise NotImplementedError

    def resume_reading(self) -> None:
        self.log.append("resume")


def told(error: BaseException) -> Any:
    """What can be said of an exception."""
    context = error.__context__
    return (
        type(error),
        error.args,
        getattr(error, "partial", None),
        getattr(error, "expected", None),
        getattr(error, "consumed", None),
        type(context) if isinstance(context, asyncio.LimitOverrunError) else None,
    )


SEPARATORS: list[Any] = [
    b"\n",
    b"a",
    b"ab",
    b"aab",
    b"aaa\n",
    b"",
    bytearray(b"b"),
    memoryview(b"a"),
]
if PY313:
    SEPARATORS += [(b"ab", b"a"), (b"aab", b"b", b"\n"), (), (b"a", b""), (b"ba", bytearray(b"a"))]

pieces = st.text("ab\n", max_size=12).map(str.encode)
some_bytes: st.SearchStrategy[Any] = st.one_of(
    pieces, *(pieces.map(as_type) for as_type in (bytearray, lambda data: memoryview(data), list))
)
steps = st.one_of(
    st.tuples(st.just("feed"), some_bytes),
    st.tuples(st.just("feed"), some_bytes),
    st.tuples(st.just("read"), st.integers(-2, 9)),
    st.tuples(st.just("readexactly"), st.integers(-1, 9)),
    st.tuples(st.just("readline")),
    st.tuples(st.just("next")),
    st.tuples(st.just("readuntil"), st.sampled_from(SEPARATORS)),
    st.tuples(st.just("turns"), st.integers(1, 3)),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("look")),
    st.tuples(st.just("delete"), st.integers(0, 4)),
    st.tuples(st.just("limit"), st.integers(1, 9)),
    st.tuples(st.just("fail")),
    st.tuples(st.just("eof")),
    st.tuples(st.just("wake")),
)


async def outcomes(
    reader_class: type[asyncio.StreamReader], limit: Any, pausable: bool, script: list[Any]
) -> list[Any]:
    """Do what `script` says with a reader; return all that can be seen of it."""
    loop = asyncio.get_running_loop()
    reader: Any = reader_class(limit=limit)
    log: list[Any] = []
    reader.set_transport(Transport(log, pausable))
    reads: list[asyncio.Task[Any]] = []

    async def read(number: int, method: str, *arguments: Any) -> None:
        try:
            result = await getattr(reader, method)(*arguments)
            assert type(result) is bytes
            log.append((number, result))
        except BaseException as error:
            log.append((number, told(error)))

    for step, *arguments in script:
        try:
            match step:
                case "feed":
                    reader.feed_data(*arguments)
                case "turns":
                    await pass_turns(*arguments)
                case "cancel":
                    log += [task.cancel() for task in reads[-2:]]
                case "look":
                    log.append(reader._buffer)
                    log[-1] = bytes(log[-1])
                case "delete":
                    del reader._buffer[: arguments[0]]
                case "limit":
                    reader._limit = arguments[0]
                case "fail":
                    reader.set_exception(ZeroDivisionError("mine"))
                case "eof":
                    reader.feed_eof()
                case "wake":
                    reader._wakeup_waiter()
                case _:
                    method = "__anext__" if step == "next" else step
                    task = loop.create_task(read(len(reads), method, *arguments))
                    reads.append(task)
        except Exception as error:
            log.append(told(error))
        log.append((reader.at_eof(), reader._waiter is None, reader._paused))
        log.append(re.sub("(waiter|transport)=<.*>", "...", repr(reader)))
    await pass_turns(5)
    for task in reads:
        task.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    return [*log, bytes(reader._buffer), reader._transport is None, type(reader.exception())]


@given(
    limit=st.integers(1, 12) | st.just(4.5),
    pausable=st.booleans(),
    script=st.lists(steps, max_size=20),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_as_asyncio(limit: Any, pausable: bool, script: list[Any]) -> None:
    def run(factory: Any, reader_class: type[Any]) -> list[Any]:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(outcomes(reader_class, limit, pausable, script))

    expected = run(asyncio.SelectorEventLoop, STOCK.StreamReader)
    assert run(weft.new_event_loop, weft.StreamReader) == expected
    assert run(asyncio.SelectorEventLoop, weft.StreamReader) == expected


# -- classes ---------------------------------------------------------------------------------------


def test_they_are_asyncios(run: Run) -> None:
    async def main() -> None:
        assert isinstance(weft.StreamReader(), STOCK.StreamReader)
        for name in vars(STOCK):
            assert issubclass(getattr(weft, name), getattr(STOCK, name))

    run(main())


def test_a_subclass_that_overrides_feed_data(run: Run) -> None:
    class Upper(weft.StreamReader):
        def feed_data(self, data: Any) -> None:
            super().feed_data(data.upper())

    async def main() -> None:
        ours, theirs = stream_pair()
        with theirs:
            loop = asyncio.get_running_loop()
            reader = Upper()
            protocol = weft.StreamReaderProtocol(reader)
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            theirs.send(b"line\nrest")
            assert await reader.readline() == b"LINE\n"
            assert await reader.readexactly(4) == b"REST"
            transport.close()
            assert await reader.read() == b""

    run(main())


def test_a_subclass_that_overrides_what_other_methods_call(run: Run) -> None:
    calls = []

    class Reader(weft.StreamReader):
        async def readuntil(self, separator: Any = b"\n") -> bytes:
            calls.append("readuntil")
            return await super().readuntil(separator)

        async def read(self, n: int = -1) -> bytes:
            calls.append(f"read {n}")
            return await super().read(n)

        async def _wait_for_data(self, func_name: str) -> None:
            calls.append(func_name)
            await super()._wait_for_data(func_name)  # type: ignore[misc]

    async def main() -> None:
        reader = Reader(limit=10)
        reader.feed_data(b"one\ntwo\nthree")
        assert await reader.readline() == b"one\n"
        assert await anext(aiter(reader)) == b"two\n"
        asyncio.get_running_loop().call_soon(reader.feed_eof)
        assert await reader.read() == b"three"
        assert calls == ["readuntil", "readuntil", "read -1", "read 10", "read 10", "read"]

    run(main())


def test_a_protocol_that_overrides_data_received(run: Run) -> None:
    seen = []

    class Protocol(weft.StreamReaderProtocol):
        def data_received(self, data: bytes) -> None:
            seen.append(data)
            super().data_received(data[::-1])

    async def main() -> None:
        ours, theirs = stream_pair()
        with theirs:
            loop = asyncio.get_running_loop()
            reader = weft.StreamReader()
            transport, _ = await loop.create_connection(lambda: Protocol(reader), sock=ours)
            theirs.send(b"data")
            assert await reader.readexactly(4) == b"atad"
            assert seen == [b"data"]
            transport.close()
            assert await reader.read() == b""

    run(main())


def test_a_method_that_is_patched_and_put_back(run: Run) -> None:
    async def main() -> None:
        ours, theirs = stream_pair()
        with theirs:
            reader, writer = await weft.open_connection(sock=ours)
            theirs.send(b"one")
            assert await reader.readexactly(3) == b"one"
            fed = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    weft.StreamReader,
                    "feed_data",
                    lambda self, data: fed.append(data),
                    raising=False,
                )
                theirs.send(b"two")
                while not fed:
                    await asyncio.sleep(0)
                reader_again = asyncio.ensure_future(reader.readexactly(5))
                await pass_turns()
            assert fed == [b"two"]
            theirs.send(b"three")
            assert await reader_again == b"three"
            writer.close()
            await writer.wait_closed()

    run(main())


def test_asyncios_own_reader_behind_our_protocol(run: Run) -> None:
    async def main() -> None:
        ours, theirs = stream_pair()
        with theirs:
            loop = asyncio.get_running_loop()
            reader = STOCK.StreamReader()
            protocol = weft.StreamReaderProtocol(reader)
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            writer = weft.StreamWriter(transport, protocol, reader, loop)
            theirs.send(b"line\n")
            assert await reader.readline() == b"line\n"
            writer.write(b"answer")
            await writer.drain()
            assert await loop.sock_recv(theirs, 10) == b"answer"
            writer.close()
            await writer.wait_closed()

    run(main())


def test_what_is_made_keeps_attributes_and_weak_references(run: Run) -> None:
    async def main() -> None:
        ours, theirs = stream_pair()
        with theirs:
            reader, writer = await weft.open_connection(sock=ours)
            made: Any
            for made in (reader, writer, writer._protocol):  # type: ignore[attr-defined]
                made.mine = 1
                assert weakref.ref(made)() is made
            writer.close()
            await writer.wait_closed()

    run(main())


# -- the buffer ------------------------------------------------------------------------------------


def test_its_buffer_can_be_changed(run: Run) -> None:
    """From the first look on, it is a bytearray that both sides use."""

    async def main() -> None:
        ours, theirs = stream_pair()
        with theirs:
            reader: Any
            reader, writer = await weft.open_connection(sock=ours)
            theirs.send(b"hello ")
            while b"hello " not in repr(reader._buffer).encode():
                await asyncio.sleep(0)
            buffer = reader._buffer
            assert type(buffer) is bytearray
            del buffer[:1]
            theirs.send(b"world\n")
            assert await reader.readline() == b"ello world\n"
            assert reader._buffer is buffer
            buffer += b"mine"
            assert await reader.readexactly(2) == b"mi"
            assert buffer == b"ne"
            reader._buffer = bytearray(b"another")
            assert await reader.read(100) == b"another"
            writer.close()
            await writer.wait_closed()

    run(main())


def test_a_borrowed_buffer_refuses_to_grow(run: Run) -> None:
    async def main() -> None:
        reader: Any = weft.StreamReader()
        reader.feed_data(b"data")
        with memoryview(reader._buffer), pytest.raises(BufferError):
            reader.feed_data(b"more")
        reader.feed_data(b"more")
        reader.feed_eof()
        assert await reader.read() == b"datamore"

    run(main())


def test_much_goes_through_it(run: Run) -> None:
    """Pieces of all sizes arrive in order, and the transport is paused in between."""

    async def main() -> None:
        ours, theirs = stream_pair()
        loop = asyncio.get_running_loop()
        sent = b"".join(bytes([65 + size % 26]) * size + b"\n" for size in range(0, 6000, 7))

        async def send() -> None:
            await loop.sock_sendall(theirs, sent)
            theirs.close()

        sending = loop.create_task(send())
        reader: Any
        reader, writer = await weft.open_connection(sock=ours, limit=6000)
        received = []
        most = 0
        async for line in reader:
            received.append(line)
            most = max(most, int((re.search(r"(\d+) bytes", repr(reader)) or "00")[1]))
        await sending
        assert b"".join(received) == sent
        assert most <= 2 * 6000 + 256 * 1024
        writer.close()
        await writer.wait_closed()

    run(main())


def test_it_is_paused_and_resumed(run: Run) -> None:
    async def main() -> None:
        ours, theirs = stream_pair("unix")
        with theirs:
            reader: Any
            reader, writer = await weft.open_connection(sock=ours, limit=10)
            theirs.send(b"x" * 21)
            while not reader._paused:
                await asyncio.sleep(0)
            assert not writer.transport.is_reading()  # type: ignore[attr-defined]
            theirs.send(b"y" * 21)
            assert await reader.readexactly(10) == b"x" * 10
            assert reader._paused
            assert await reader.readexactly(1) == b"x"
            assert not reader._paused
            assert await reader.readexactly(31) == b"x" * 10 + b"y" * 21
            writer.close()
            await writer.wait_closed()

    run(main())


def test_a_reader_that_nobody_holds(run: Run) -> None:
    """What arrives for it is dropped."""

    async def main() -> None:
        ours, theirs = stream_pair()
        with theirs:
            loop = asyncio.get_running_loop()
            reader = weft.StreamReader()
            protocol: Any = weft.StreamReaderProtocol(reader)
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            assert protocol._stream_reader_wr() is reader
            reference = weakref.ref(reader)
            del reader
            assert reference() is None
            assert protocol._stream_reader is None
            theirs.send(b"data")
            await pass_turns(5)
            assert not transport.is_closing()
            transport.close()
            await pass_turns()

    run(main())


# -- operations ------------------------------------------------------------------------------------


def methods_of(reader: asyncio.StreamReader) -> dict[str, Callable[[], Any]]:
    return {
        "read": lambda: reader.read(5),
        "read all": reader.read,
        "readline": reader.readline,
        "readuntil": lambda: reader.readuntil(b"--"),
        "readexactly": lambda: reader.readexactly(5),
        "__anext__": lambda: anext(reader),
    }


def test_one_that_its_last_words_revive_is_known_to_the_collector(run: Run) -> None:
    """CPython's debug build asserts it: what leaves its deallocation alive is tracked."""

    async def main() -> None:
        reader = weft.StreamReader()
        reader.feed_data(b"data")
        # The memory of this one is used again, out of the collector's sight until it begins.
        assert await reader.read(1) == b"d"
        with pytest.warns(RuntimeWarning, match="was never awaited") as caught:
            reader.read(1)
        revived = caught[0].source
        assert asyncio.iscoroutine(revived)
        assert gc.is_tracked(revived)

    run(main())


def test_they_are_coroutines(run: Run) -> None:
    async def main() -> None:
        reader = weft.StreamReader()
        for read in methods_of(reader).values():
            operation = read()
            assert asyncio.iscoroutine(operation)
            operation.close()
            operation = read()
            with pytest.warns(RuntimeWarning, match="was never awaited"):
                del operation
        assert reader._waiter is None

    run(main())


def test_one_that_is_given_up_lets_others_wait(run: Run) -> None:
    async def main() -> None:
        reader: Any = weft.StreamReader()
        for read in methods_of(reader).values():
            operation = read()
            future = operation.send(None)
            assert reader._waiter is future
            operation.close()
            assert reader._waiter is None
            future.cancel()

    run(main())


def test_what_has_ended_is_freed(run: Run) -> None:
    async def main() -> None:
        ours, theirs = stream_pair()
        with theirs:
            reader, writer = await weft.open_connection(sock=ours)
            waiting = asyncio.ensure_future(reader.readline())
            await pass_turns()
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
            theirs.send(b"line\n")
            assert await reader.readline() == b"line\n"
            writer.close()
            await writer.wait_closed()
            await pass_turns()
            references = [weakref.ref(made) for made in (reader, writer, writer._protocol)]  # type: ignore[attr-defined]
            del reader, writer, waiting
            gc.collect()
            assert [reference() for reference in references] == [None] * 3

    run(main())


def test_a_cycle_is_collected(run: Run) -> None:
    async def main() -> None:
        reader: Any = weft.StreamReader()
        reader.set_exception(ValueError(reader))
        reader._transport = reader
        operation = reader.readline()
        operation_of: Any = types.SimpleNamespace(operation=operation)
        reader.mine = operation_of
        operation.close()
        reference = weakref.ref(reader)
        del reader, operation, operation_of
        gc.collect()
        assert reference() is None

    run(main())


# -- the writer ------------------------------------------------------------------------------------


class Recorder:
    """A transport that is none of ours."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.closing = False

    def write(self, data: bytes) -> str:
        self.calls.append(data)
        return "ignored"

    def writelines(self, data: list[bytes]) -> None:
        self.calls.extend(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


def test_a_writer_of_another_transport(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport: Any = Recorder()
        protocol: Any = weft.StreamReaderProtocol(None)  # type: ignore[arg-type]
        writer = weft.StreamWriter(transport, protocol, None, loop)
        assert writer.write(b"one") is None  # type: ignore[func-returns-value]
        writer.writelines([b"two", b"three"])
        assert transport.calls == [b"one", b"two", b"three"]
        await writer.drain()
        protocol.pause_writing()
        draining = [loop.create_task(writer.drain()) for _ in range(3)]
        await pass_turns()
        assert len(protocol._drain_waiters) == 3
        draining[1].cancel()
        await pass_turns()
        assert len(protocol._drain_waiters) == 2
        protocol.resume_writing()
        await pass_turns(2)
        assert [task.done() for task in draining] == [True] * 3
        assert not protocol._drain_waiters
        protocol.pause_writing()
        failing = loop.create_task(writer.drain())
        await pass_turns()
        protocol.connection_lost(ZeroDivisionError("mine"))
        with pytest.raises(ZeroDivisionError):
            await failing
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()
        transport.close()

    run(main())


def test_drain_gives_way_to_the_end(run: Run) -> None:
    """One turn, so that a loop of writes hears of the end; without it, none."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport: Any = Recorder()
        protocol: Any = weft.StreamReaderProtocol(None)  # type: ignore[arg-type]
        writer = weft.StreamWriter(transport, protocol, None, loop)
        operation = writer.drain()
        with pytest.raises(StopIteration):
            operation.send(None)
        transport.close()
        operation = writer.drain()
        assert operation.send(None) is None
        protocol.connection_lost(None)
        with pytest.raises(ConnectionResetError):
            operation.send(None)

    run(main())


def test_drain_raises_what_the_reader_would(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport: Any = Recorder()
        transport.close()
        for reader in (weft.StreamReader(), STOCK.StreamReader()):
            reader.set_exception(ZeroDivisionError("mine"))
            protocol = weft.StreamReaderProtocol(reader)
            writer = weft.StreamWriter(transport, protocol, reader, loop)
            with pytest.raises(ZeroDivisionError):
                await writer.drain()

    run(main())


def test_a_protocol_with_its_own_way_to_drain(run: Run) -> None:
    calls = []

    class Protocol(weft.StreamReaderProtocol):
        async def _drain_helper(self) -> None:
            calls.append("before")
            await asyncio.sleep(0)
            calls.append("after")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport: Any = Recorder()
        writer = weft.StreamWriter(transport, Protocol(None), None, loop)  # type: ignore[arg-type]
        assert await writer.drain() is None  # type: ignore[func-returns-value]
        assert calls == ["before", "after"]
        transport.close()

    run(main())


def test_a_write_that_is_none(run: Run) -> None:
    async def main() -> None:
        ours, theirs = stream_pair(small=True)
        with theirs:
            _, writer = await weft.open_connection(sock=ours)
            with pytest.raises(TypeError, match="data argument must be"):
                writer.write("text")  # type: ignore[arg-type]
            writer.write(b"x" * FILLS_UP)
            writer.write_eof()
            with pytest.raises(RuntimeError, match="after write_eof"):
                writer.write(b"more")
            writer.transport.abort()
            await writer.wait_closed()

    run(main())


def test_nothing_of_python_runs_for_a_line() -> None:
    """Native code goes past our own methods, which users see as coroutine functions."""
    called: set[str] = set()

    def watch(frame: Any, event: str, _argument: Any) -> None:
        if event == "call":
            called.add(frame.f_code.co_name)

    async def serve(reader: Any, writer: Any) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        ended.set()

    async def main() -> None:
        server = await weft.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await weft.open_connection(*server.sockets[0].getsockname())
            for turn in range(3):
                sys.setprofile(watch if turn else None)
                writer.write(b"a line\n")
                assert await reader.readline() == b"a line\n"
            sys.setprofile(None)
            writer.close()
            await writer.wait_closed()
            await ended.wait()

    ended = asyncio.Event()
    # Tasks of a debugged loop are made in Python.
    weft.run(main(), debug=False)
    assert called <= {"main", "serve"}
