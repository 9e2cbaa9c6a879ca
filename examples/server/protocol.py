"""HTTP/1.1 with keep-alive on an `asyncio.Protocol`: as little of it as the examples need.

The server must never be what a client under test waits for, so that a request costs one search
for the end of the head, one look-up of the finished answer and one write. Requests on one
connection are answered strictly in order: while an answer is delayed, what follows it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

MAX_HEAD = 64 * 1024
MAX_BODY = 8 * 1024 * 1024

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class Answer(NamedTuple):
    """A finished answer: what goes over the wire, and when.

    `head` is None for a server that dies: the connection is cut without a word. `body` is apart
    so that big bodies can be views into one shared block. `delay` is in seconds.
    """

    head: bytes | None
    body: bytes | memoryview
    delay: float = 0.0


Answerer = Callable[[bytes, bytes, bytes], Answer]


def make_answer(
    status: int,
    content_type: str,
    body: bytes | memoryview,
    *,
    delay: float = 0.0,
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """Put status line and headers in front of `body`."""
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return Answer("\r\n".join([*lines, "\r\n"]).encode("ascii"), body, delay)


def refusal(status: int) -> Answer:
    """An answer to a request that cannot be read; the connection is closed after it."""
    return make_answer(
        status, "text/plain", REASONS[status].encode(), headers=(("Connection", "close"),)
    )


class HttpProtocol(asyncio.Protocol):
    """One connection. `answerer(method, target, body)` says what to send."""

    __slots__ = ("_answerer", "_buffer", "_connections", "_loop", "_timer", "_transport")

    def __init__(self, answerer: Answerer, connections: set[HttpProtocol]) -> None:
        self._answerer = answerer
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        # Set while an answer is delayed, and only then.
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance check: uvloop's transports do not derive from asyncio's.
        self._transport = transport  # type: ignore[assignment]
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Cut the connection: the server is going away."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        self._serve_buffer()

    def _serve_buffer(self) -> None:
        while self._buffer and self._timer is None and self._transport is not None:
            if not self._serve_one():
                return

    def _serve_one(self) -> bool:
        """Answer the first request of the buffer; False if it has not arrived whole."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD:
            if len(buffer) > MAX_HEAD:
                self._refuse(431)
            return False
        head = buffer[:end]
        request_line, _, fields = head.partition(b"\r\n")
        words = request_line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            self._refuse(400)
            return False
        fields = fields.lower()
        body_start = end + 4
        body_end = body_start
        if b"transfer-encoding:" in fields:
            self._refuse(501)
            return False
        if b"content-length:" in fields:
            length = content_length(fields)
            if length is None or length > MAX_BODY:
                self._refuse(400 if length is None else 413)
                return False
            body_end += length
            if len(buffer) < body_end:
                return False
        self._buffer = buffer[body_end:]
        answer = self._answerer(words[0], words[1], buffer[body_start:body_end])
        closing = b"connection: close" in fields
        if answer.delay > 0.0:
            self._timer = self._loop.call_later(answer.delay, self._send_late, answer, closing)
        else:
            self._send(answer, closing)
        return True

    def _send_late(self, answer: Answer, closing: bool) -> None:
        self._timer = None
        self._send(answer, closing)
        self._serve_buffer()

    def _send(self, answer: Answer, closing: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        if answer.head is None:
            transport.abort()
            return
        if isinstance(answer.body, bytes):
            transport.write(answer.head + answer.body)
        else:
            transport.writelines((answer.head, answer.body))
        if closing:
            transport.close()

    def _refuse(self, status: int) -> None:
        self._buffer = b""
        self._send(refusal(status), closing=True)


def content_length(fields: bytes) -> int | None:
    """The Content-Length among lower-case header fields, or None when it is no number."""
    for line in fields.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            value = value.strip()
            return int(value) if value.isdigit() else None
    return None
