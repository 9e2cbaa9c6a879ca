"""The rows in which bytes travel: a server on one CPU, a client on the other."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True)
class NetworkRow:
    """A line of a table of what is done in a second.

    Either `server` runs on each loop and the load generator is the client, or `client` runs on
    each loop: against the load generator's server, or a service of the machine, or nobody.
    """

    name: str
    server: str = ""
    client: str = ""
    mode: str = "echo"
    """The load generator's; nothing if it has no part in the row."""
    connections: int = 50
    size: int = KIB
    unix: bool = False
    udp: bool = False
    tls: bool = False
    service: str = ""
    """What must answer on this machine: see benchmarks/services.py."""
    limited: bool = True
    """Whether the bare server, or client, can do the same."""
    group: str = "network"
    unit: str = "requests/s"
    counted: int = 1
    """How many of what is counted make one of the unit."""
    duration: int = 1
    """The rounds are so many times as long as others."""

    @property
    def needs_generator(self) -> bool:
        return bool(self.mode)


def _grid(name: str, server: str, points: str, **more: object) -> list[NetworkRow]:
    """A row for each point: KiB and connections, as in "1x50"."""
    rows = []
    for point in points.split():
        kib, connections = map(int, point.split("x"))
        rows.append(
            NetworkRow(
                f"{name} {kib}K x{connections}",
                server,
                size=kib * KIB,
                connections=connections,
                **more,  # type: ignore[arg-type]
            )
        )
    return rows


def _bulk(name: str, server: str, mode: str) -> NetworkRow:
    """One connection; the load generator counts MiB."""
    return NetworkRow(f"{name} GiB/s", server, mode=mode, connections=1, unit="GiB/s", counted=KIB)


NETWORK_ROWS = {
    row.name: row
    for row in (
        *_grid("echo", "protocol", "1x1 10x1 100x1 1x50 10x50 100x50 1x500 10x500 100x500"),
        *_grid("buffered", "buffered", "1x1 1x50 10x50 100x50 1x500"),
        *_grid("streams readline", "lines", "1x1 1x50 10x50 100x50 1x500"),
        *_grid("streams readexactly", "blocks", "1x50 10x50 100x50"),
        *_grid("streams read", "parts", "1x50 100x50"),
        *_grid("sock_recv/sendall", "sockets", "1x1 1x50 100x50 1x500"),
        *_grid("echo unix", "protocol", "1x1 1x50 100x50", unix=True),
        *_grid("echo udp", "datagrams", "1x1 1x50", udp=True),
        *_grid("echo TLS", "protocol", "1x1 1x50 10x50 100x50", tls=True),
        _bulk("bulk send", "source", "source"),
        _bulk("bulk receive", "sink", "sink"),
        _bulk("bulk receive buffered", "buffered_sink", "sink"),
        _bulk("sendfile", "file", "file"),
        NetworkRow("accepts/s x50", "greeter", mode="greet", unit="connections/s"),
        NetworkRow("connects/s x50", client="connect", mode="greet", unit="connections/s"),
        NetworkRow("TLS handshakes/s x50", "greeter", mode="greet", tls=True, unit="connections/s"),
        NetworkRow(
            "p99 beside 10k tasks",
            "busy",
            connections=1,
            limited=False,
            group="latency",
            unit="us",
            duration=4,
        ),
    )
}
