"""How long I/O and timers can wait while the loop always has something to run."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from backends import Backend

Arrange = Callable[[asyncio.AbstractEventLoop, Callable[[], None]], None]

TURNS = {"asyncio": 1, "weft": 2}
"""After so many turns, counted from the one in which a packet arrives, it is heard of."""


def turns_until(backend: Backend, busy: int, begin: Arrange) -> int:
    """Run `busy` callbacks a turn, call `begin` in one of the turns, and count the turns from there
    until it calls back."""
    loop = backend.new_event_loop()
    turn = began = ended = 0

    def spin(number: int) -> None:
        nonlocal turn, began
        if number == 0:
            turn += 1
            if turn == 20:
                began = turn
                begin(loop, arrived)
            if turn == 60:
                loop.stop()
        loop.call_soon(spin, number)

    def arrived() -> None:
        nonlocal ended
        ended = ended or turn

    for number in range(busy):
        loop.call_soon(spin, number)
    try:
        loop.run_forever()
    finally:
        loop.close()
    assert ended
    return ended - began


@pytest.mark.parametrize("busy", [1, 10, 200])
def test_descriptors(backend: Backend, busy: int) -> None:
    ours, theirs = socket.socketpair()

    def begin(loop: asyncio.AbstractEventLoop, arrived: Callable[[], None]) -> None:
        def read() -> None:
            loop.remove_reader(ours)
            arrived()

        theirs.send(b"x")
        loop.add_reader(ours, read)

    with ours, theirs:
        assert turns_until(backend, busy, begin) <= TURNS[backend.name]


@pytest.mark.parametrize("busy", [1, 10, 200])
def test_timers(backend: Backend, busy: int) -> None:
    def begin(loop: asyncio.AbstractEventLoop, arrived: Callable[[], None]) -> None:
        loop.call_later(0, arrived)

    assert turns_until(backend, busy, begin) <= 1
