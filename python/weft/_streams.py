"""Streams: asyncio's classes, native where they run per packet, per line and per write.

What runs once a connection is asyncio's own code of the running Python version. Where it names the
classes of streams, it is made to mean these (`_with_our_classes`).
"""

from __future__ import annotations

import asyncio
from asyncio import streams
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

from weft import _weft
from weft._classes import StandIn

__all__ = [
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class StreamReader(
    _weft.StreamReader, asyncio.StreamReader, metaclass=StandIn, stock=asyncio.StreamReader
):
    """Reads a stream of bytes, as `asyncio.StreamReader`.

    Args:
        limit: the most bytes that `readline()` and `readuntil()` return, the separator not counted;
            above twice as many unread ones the transport is paused.
        loop: the event loop; None for the running one.
    """

    __slots__ = ()


class StreamWriter(
    _weft.StreamWriter, asyncio.StreamWriter, metaclass=StandIn, stock=asyncio.StreamWriter
):
    """Writes to a transport, as `asyncio.StreamWriter`."""

    __slots__ = ()


def _with_our_classes(function: _Function) -> _Function:
    """Return a copy of a function of asyncio's streams that makes readers and writers of ours."""
    original = cast(FunctionType, function)
    copy = FunctionType(
        original.__code__, _names, original.__name__, original.__defaults__, original.__closure__
    )
    copy.__kwdefaults__ = original.__kwdefaults__
    copy.__doc__ = original.__doc__
    copy.__qualname__ = original.__qualname__
    copy.__module__ = "weft"
    return cast(_Function, copy)


_names: dict[str, Any] = {
    **vars(streams),
    "StreamReader": StreamReader,
    "StreamWriter": StreamWriter,
}


class StreamReaderProtocol(
    _weft.StreamReaderProtocol,
    asyncio.StreamReaderProtocol,
    metaclass=StandIn,
    stock=asyncio.StreamReaderProtocol,
):
    """Feeds a StreamReader what a transport receives, as `asyncio.StreamReaderProtocol`."""

    __slots__ = ()

    connection_made = _with_our_classes(asyncio.StreamReaderProtocol.connection_made)


_names["StreamReaderProtocol"] = StreamReaderProtocol

open_connection = _with_our_classes(asyncio.open_connection)
start_server = _with_our_classes(asyncio.start_server)
open_unix_connection = _with_our_classes(asyncio.open_unix_connection)
start_unix_server = _with_our_classes(asyncio.start_unix_server)
