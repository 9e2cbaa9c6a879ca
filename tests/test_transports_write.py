"""write() and writelines(): what they take, what they refuse, order, and when they send."""

from __future__ import annotations

import array
import asyncio
import ctypes
import hashlib
import itertools
import pickle
import random
import sys
from typing import Any

import pytest
from backends import PY312, PY314, PY315, Backend
from peers import FILLS_UP, KINDS, Run, has_arrived, pass_turns, read_all, read_exactly, wired
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder

pytestmark = pytest.mark.parametrize("kind", KINDS)

JOINS_PENDING_AS_VIEWS = PY312
"""asyncio keeps views of what the caller wrote from 3.12 on; until then it copied, as Weft does."""


class Structure(ctypes.Structure):
    """A buffer of no dimension at all."""

    _fields_ = [("text", ctypes.c_char * 8)]


class Bytes(bytes):
    pass


# -- what they take --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"payload",
        bytearray(b"payload"),
        memoryview(b"payload"),
        memoryview(bytearray(b"..payload.."))[2:-2],
        Bytes(b"payload"),
        memoryview(array.array("b", b"payload")),
    ],
    ids=["bytes", "bytearray", "memoryview", "slice", "subclass", "signed"],
)
def test_write_sends_bytes_like_objects(run: Run, kind: str, data: Any) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            assert transport.write(data) is None
            assert await read_exactly(peer, 7) == b"payload"

    run(main())


def test_arguments_may_be_given_by_name(run: Run, kind: str) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            transport.set_protocol(protocol=transport.get_protocol())
            transport.write(data=b"one ")
            transport.writelines(list_of_data=[b"and ", b"two"])
            assert await read_exactly(peer, 11) == b"one and two"
            with pytest.raises(TypeError):
                transport.write()  # type: ignore[call-arg]
            with pytest.raises(TypeError):
                transport.write(text=b"")  # type: ignore[call-arg]

    run(main())


@pytest.mark.parametrize("format", ["H", "I", "d"])
def test_write_sends_the_bytes_of_wider_items(run: Run, kind: str, format: str) -> None:
    items = array.array(format, range(100))

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            transport.write(memoryview(items))
            assert await read_exactly(peer, len(items) * items.itemsize) == items.tobytes()
            assert transport.get_write_buffer_size() == 0

    run(main())


@pytest.mark.backends("weft")  # asyncio mistakes items for bytes once a write is cut short.
@pytest.mark.parametrize("shape", ["wide", "matrix"])
def test_a_write_of_wider_items_that_is_cut_short_goes_on_at_the_right_byte(
    run: Run, kind: str, shape: str
) -> None:
    items = array.array("I", range(FILLS_UP // 4))
    view = memoryview(items)
    if shape == "matrix":
        view = view.cast("B").cast("B", [FILLS_UP // 16, 16])

    async def main() -> None:
        async with wired(Recorder(), kind, small=True) as (transport, peer):
            transport.write(view)
            assert 0 < transport.get_write_buffer_size() < FILLS_UP
            assert await read_exactly(peer, FILLS_UP) == items.tobytes()

    run(main())


def test_a_view_with_gaps_is_sent_whole_or_refused(
    run: Run, kind: str, reports: list[dict[str, Any]]
) -> None:
    """asyncio fails the connection; sending the right bytes is as good, sending others never."""

    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            transport.write(memoryview(b"a.b.c.d.")[::2])
            await pass_turns()
            if protocol.lost_with:
                assert isinstance(protocol.lost_with[0], BufferError)
                assert await read_all(peer) == b""
                assert [report["exception"] for report in reports] == protocol.lost_with
            else:
                transport.close()
                assert await read_all(peer) == b"abcd"
                assert not reports

    run(main())


@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"")], ids=repr)
def test_writing_nothing_sends_nothing(run: Run, kind: str, empty: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            transport.write(empty)
            assert transport.get_write_buffer_size() == 0
            transport.close()
            assert await read_all(peer) == b""
            assert await protocol.lost() is None

    run(main())


@pytest.mark.parametrize(
    "wrong", ["text", None, 1, [b"x"], object(), array.array("b", b"x")], ids=repr
)
def test_write_refuses_other_types_and_lives_on(run: Run, kind: str, wrong: Any) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            with pytest.raises(TypeError, match=type(wrong).__name__):
                transport.write(wrong)
            transport.write(b"right")
            assert await read_exactly(peer, 5) == b"right"

    run(main())


@pytest.mark.parametrize(
    "pieces",
    [
        [b"on", b"e two", b" three"],
        (b"one ", bytearray(b"two "), memoryview(b"three")),
        [b"one two three"],
        [b"one two", b"", b" three"],
        (piece for piece in [b"one", b" two", b" three"]),
        [memoryview(b"-one two three-")[1:-1]],
        [Bytes(b"one two "), array.array("b", b"three")],
    ],
    ids=["list", "tuple", "single", "with-empty", "generator", "slice", "buffers"],
)
def test_writelines_sends_the_pieces_in_order(run: Run, kind: str, pieces: Any) -> None:
    # A generator serves one run only: each run of the test takes its own.
    pieces = [*pieces] if isinstance(pieces, (list, tuple)) else iter([b"one", b" two", b" three"])

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            assert transport.writelines(pieces) is None
            assert await read_exactly(peer, 13) == b"one two three"
            transport.write(b"!")
            assert await read_exactly(peer, 1) == b"!"

    run(main())


def test_writelines_takes_buffers_that_have_no_len(run: Run, kind: str, backend: Backend) -> None:
    """asyncpg writes lists of its own buffer objects, which cannot be measured by len()."""
    if not backend.is_weft and PY315:
        pytest.skip("asyncio measures them from 3.15 on")
    buffer = pickle.PickleBuffer(b"12345678")
    with pytest.raises(TypeError):
        len(buffer)  # type: ignore[arg-type]

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            transport.writelines([buffer, b"-", pickle.PickleBuffer(bytearray(b"abcdefgh"))])
            assert await read_exactly(peer, 17) == b"12345678-abcdefgh"

    run(main())


def test_writelines_takes_buffers_without_dimensions(run: Run, kind: str, backend: Backend) -> None:
    if not backend.is_weft and PY312:
        pytest.skip("asyncio fails the connection from 3.12 on")

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            transport.writelines([Structure(b"12345678"), b"-", Structure(b"abcdefgh")])
            assert await read_exactly(peer, 17) == b"12345678-abcdefgh"

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ came with 3.12")
def test_writelines_takes_python_classes_with_the_buffer_protocol(
    run: Run, kind: str, backend: Backend
) -> None:
    if not backend.is_weft and PY315:
        pytest.skip("asyncio measures them from 3.15 on")

    class Buffer:
        def __buffer__(self, flags: int) -> memoryview:
            return memoryview(b"lent")

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            transport.writelines([Buffer(), b" out"])
            assert await read_exactly(peer, 8) == b"lent out"

    run(main())


@pytest.mark.parametrize("wrong", [["text"], [b"fine", 1], [b"fine", 1, b"fine"]], ids=repr)
def test_writelines_with_a_wrong_piece_sends_nothing(
    run: Run, kind: str, wrong: Any, backend: Backend
) -> None:
    if not backend.is_weft and PY315 and wrong != ["text"]:
        pytest.skip("asyncio keeps what comes before it from 3.15 on")

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            with pytest.raises(TypeError):
                transport.writelines(wrong)
            assert transport.get_write_buffer_size() == 0
            transport.write(b"right")
            transport.close()
            assert await read_all(peer) == b"right"

    run(main())


def test_writelines_of_nothing(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            transport.writelines([])
            assert transport.get_write_buffer_size() == 0
            transport.close()
            assert await read_all(peer) == b""

    run(main())


def test_writelines_of_empty_pieces_leaves_nothing_pending(
    run: Run, kind: str, backend: Backend
) -> None:
    if not backend.is_weft and PY312 and not PY314:
        pytest.skip("asyncio 3.12 and 3.13 keep an empty piece that can never be sent")

    async def main() -> None:
        protocol = Recorder()
        async with wired(protocol, kind) as (transport, peer):
            transport.writelines([b"", bytearray(), memoryview(b"")])
            assert transport.get_write_buffer_size() == 0
            transport.close()
            assert await read_all(peer) == b""
            assert await protocol.lost() is None

    run(main())


def test_writelines_of_more_pieces_than_one_system_call_takes(run: Run, kind: str) -> None:
    pieces = [bytes([n % 251]) * (n % 7 + 1) for n in range(5000)]

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            transport.writelines(pieces)
            whole = b"".join(pieces)
            assert await read_exactly(peer, len(whole)) == whole

    run(main())


# -- who owns the bytes ----------------------------------------------------------------------------


def test_what_was_sent_at_once_is_out_of_reach(run: Run, kind: str) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            data = bytearray(b"first")
            transport.write(data)
            data[:] = b"XXXXX"
            data.clear()
            assert await read_exactly(peer, 5) == b"first"

    run(main())


@pytest.mark.parametrize("how", ["write", "write-later", "writelines"])
def test_pending_bytes_are_the_transports_own(
    run: Run, kind: str, backend: Backend, how: str
) -> None:
    """A caller may reuse, change and resize its buffer as soon as the call returns."""
    if not backend.is_weft and JOINS_PENDING_AS_VIEWS:
        pytest.skip("asyncio keeps views of the caller's buffers from 3.12 on")

    async def main() -> None:
        async with wired(Recorder(), kind, small=True) as (transport, peer):
            data = bytearray(b"a" * FILLS_UP)
            if how == "write":
                transport.write(data)
            elif how == "writelines":
                transport.writelines([data, memoryview(b"")])
            else:
                transport.write(bytes(data))
                data = bytearray(b"b" * 1000)
                transport.write(data)
            data[:] = b"X" * len(data)
            data.clear()
            data += b"resized"
            expected = b"a" * FILLS_UP + (b"b" * 1000 if how == "write-later" else b"")
            assert await read_exactly(peer, len(expected)) == expected

    run(main())


def test_writes_in_one_turn_do_not_see_later_changes(run: Run, kind: str) -> None:
    """A loop that gathers the writes of one turn has to copy what the caller can change."""

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            data = bytearray(b"0")
            for digit in range(10):
                data[0] = ord("0") + digit
                transport.write(data)
                transport.writelines([memoryview(data)])
            assert await read_exactly(peer, 20) == b"00112233445566778899"

    run(main())


# -- order, and the moment of sending --------------------------------------------------------------


def test_an_idle_transport_sends_at_once(run: Run, kind: str) -> None:
    """No turn of the loop lies between write() and the bytes on the wire."""

    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            transport.write(b"now")
            assert has_arrived(peer)
            assert peer.recv(100) == b"now"
            assert transport.get_write_buffer_size() == 0
            await pass_turns()
            transport.writelines([b"and ", b"again"])
            assert has_arrived(peer)
            assert peer.recv(100) == b"and again"

    run(main())


def test_writes_of_one_turn_arrive_in_order_within_a_turn_or_two(run: Run, kind: str) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind) as (transport, peer):
            transport.write(b"1")
            transport.writelines([b"2", b"3"])
            transport.write(b"")
            transport.write(b"4")
            transport.writelines([])
            transport.writelines([b"5"])
            transport.write(bytearray(b"6"))
            await pass_turns(2)
            assert transport.get_write_buffer_size() == 0
            assert has_arrived(peer)
            assert peer.recv(100) == b"123456"

    run(main())


def test_writes_of_many_turns_and_callbacks_arrive_in_order(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with wired(Recorder(), kind) as (transport, peer):
            expected = bytearray()

            def say(text: bytes) -> None:
                expected.extend(text)
                transport.write(text)

            for number in range(100):
                say(b"task %d;" % number)
                loop.call_soon(say, b"soon %d;" % number)
                if number % 3 == 0:
                    await asyncio.sleep(0)
            await pass_turns()
            assert await read_exactly(peer, len(expected)) == expected

    run(main())


def test_a_write_behind_pending_data_waits_its_turn(run: Run, kind: str) -> None:
    async def main() -> None:
        async with wired(Recorder(), kind, small=True) as (transport, peer):
            transport.write(b"a" * FILLS_UP)
            pending = transport.get_write_buffer_size()
            assert 0 < pending < FILLS_UP
            transport.write(b"b" * 10)
            transport.write(memoryview(b"c" * 10))
            assert transport.get_write_buffer_size() == pending + 20
            expected = b"a" * FILLS_UP + b"b" * 10 + b"c" * 10
            assert await read_exactly(peer, len(expected)) == expected
            await pass_turns()
            assert transport.get_write_buffer_size() == 0

    run(main())


def test_pieces_of_every_size_through_a_narrow_pipe(run: Run, kind: str) -> None:
    """Cut at every odd place, nothing is lost, doubled or swapped."""
    chance = random.Random(7)
    pieces = [chance.randbytes(chance.choice((1, 3, 100, 5000, 70_000))) for _ in range(150)]

    async def main() -> None:
        async with wired(Recorder(), kind, small=True) as (transport, peer):
            rest = iter(pieces)
            for piece in rest:
                transport.write(piece)
                transport.writelines([*itertools.islice(rest, 2)])
            whole = b"".join(pieces)
            assert await read_exactly(peer, len(whole)) == whole

    run(main())


def test_write_from_within_connection_made(run: Run, kind: str) -> None:
    async def main() -> None:
        protocol = Recorder(connection_made=lambda transport: transport.write(b"hello"))
        async with wired(protocol, kind) as (_, peer):
            assert has_arrived(peer)
            assert peer.recv(10) == b"hello"

    run(main())


def test_echo_from_within_data_received(run: Run, kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder(data_received=lambda data: protocol.transport.write(data.upper()))
        async with wired(protocol, kind) as (_, peer):
            for number in range(50):
                await loop.sock_sendall(peer, b"question %03d" % number)
                assert await read_exactly(peer, 12) == b"QUESTION %03d" % number

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("receiver_type", STREAM_RECORDERS)
def test_a_hundred_megabytes_arrive_unharmed(
    run: Run, kind: str, receiver_type: type[Recorder | BufferedRecorder]
) -> None:
    """From transport to transport, with flow control, in pieces of very different size."""
    megabyte = random.Random(3).randbytes(1 << 20)
    total = 100 << 20

    async def main() -> None:
        writable = asyncio.Event()
        writable.set()
        digest = hashlib.blake2b()
        count = 0

        def take(*_: Any) -> None:
            nonlocal count
            digest.update(receiver.data)
            count += len(receiver.data)
            receiver.data.clear()

        receiver = receiver_type(data_received=take, buffer_updated=take)
        sender = Recorder(pause_writing=writable.clear, resume_writing=writable.set)
        loop = asyncio.get_running_loop()
        async with wired(sender, kind) as (transport, peer):
            await loop.create_connection(lambda: receiver, sock=peer.dup())
            sent = hashlib.blake2b()
            sizes = itertools.cycle((1, 1000, 65_536, 65_537, 300_000, 1 << 20))
            remaining = total
            while remaining:
                piece = megabyte[: min(next(sizes), remaining)]
                remaining -= len(piece)
                sent.update(piece)
                transport.write(piece)
                await writable.wait()
            transport.close()
            assert await receiver.lost() is None
            assert count == total
            assert digest.digest() == sent.digest()

    run(main())
