"""A small website in threads of its own, so that only the client under test runs on the loop."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

PAGES = 30
"""Pages of the site that link to each other: page n to 2n and 2n + 1."""


@dataclass
class Website:
    url: str
    requests: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    website: Website

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing goes to stderr."""

    def answer(self, body: bytes, status: int = 200, type_: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", type_)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.website.requests.append(self.path)
        match parts.path.strip("/").split("/"):
            case ["json", number]:
                self.answer(json.dumps({"number": int(number), **query}).encode())
            case ["slow", seconds]:
                time.sleep(float(seconds))
                self.answer(b"at last")
            case ["big", size]:
                self.answer(b"x" * int(size))
            case ["status", status]:
                self.answer(b"no", int(status))
            case ["page", text] if 0 < int(text) < PAGES:
                number = int(text)
                links = "".join(
                    f'<li><a href="/page/{n}">page {n}</a></li>'
                    for n in (2 * number, 2 * number + 1)
                    if n < PAGES
                )
                page = f"<html><title>Page {number}</title><ul>{links}</ul></html>"
                self.answer(page.encode(), type_="text/html")
            case ["stream", count]:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for number in range(int(count)):
                    piece = b"piece %d\n" % number
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            case _:
                self.answer(b"not here", 404)

    def do_POST(self) -> None:
        self.website.requests.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(body, type_=self.headers.get("Content-Type", "text/plain"))


class Server(ThreadingHTTPServer):
    # Its threads are waited for, and a full queue of connections would cost a second each.
    daemon_threads = False
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        self.connections: list[socket.socket] = []
        super().__init__(*arguments)

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def hang_up(self) -> None:
        """End the connections that clients keep open for later."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are part of the tests."""


@contextlib.contextmanager
def website() -> Iterator[Website]:
    """Serve on a free port of the loopback."""
    handler = type("SiteHandler", (Handler,), {})
    with Server(("127.0.0.1", 0), handler) as server:
        handler.website = site = Website(f"http://127.0.0.1:{server.server_address[1]}")
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            server.hang_up()
            thread.join()
