"""The rows in which bytes travel: a server on one CPU, a client on the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkRow:
    """A line of the table of requests per second.

    Either `server` runs on each loop and the load generator is the client, or `client` runs on
    each loop and the load generator's server answers.
    """

    name: str
    server: str = ""
    client: str = ""
    mode: str = "echo"
    connections: int = 50
    size: int = 1024
    unix: bool = False
    udp: bool = False
    group: str = "network"
    unit: str = "requests/s"


KIB = 1024

NETWORK_ROWS = {
    row.name: row
    for row in (
        NetworkRow("echo 1K x1", "protocol", connections=1),
        NetworkRow("echo 1K x50", "protocol"),
        NetworkRow("echo 1K x500", "protocol", connections=500),
        NetworkRow("echo 10K x50", "protocol", size=10 * KIB),
        NetworkRow("echo 100K x50", "protocol", size=100 * KIB),
        NetworkRow("echo unix 1K x50", "protocol", unix=True),
        NetworkRow("echo udp 1K x50", "datagrams", udp=True),
        NetworkRow("buffered 1K x50", "buffered"),
        NetworkRow("buffered 100K x50", "buffered", size=100 * KIB),
        NetworkRow("streams readline 1K x50", "lines"),
        NetworkRow("streams readline 10K x50", "lines", size=10 * KIB),
        NetworkRow("streams readexactly 1K x50", "blocks"),
        NetworkRow("sock_recv/sendall 1K x50", "sockets"),
        NetworkRow("aiohttp server x50", "aiohttp", mode="http"),
        NetworkRow("aiohttp client x50", client="aiohttp", mode="http"),
    )
}
