"""The other end: blocking sockets in a thread, which are the same for every loop."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator


@contextlib.contextmanager
def served(handle: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """A server that calls ``handle`` with each connection, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            handle(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        host, port = listener.getsockname()
        yield host, port
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def echo(connection: socket.socket) -> None:
    """Send back what comes, until the end."""
    while data := connection.recv(65536):
        connection.sendall(data)


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[tuple[str, int]]:
    """``served(echo)`` for ``async with``."""
    with served(echo) as address:
        yield address
