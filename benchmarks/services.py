"""Where the servers are that some clients talk to.

Each is looked for on the loopback at its usual port, or where an environment variable says, as in
WEFT_TEST_POSTGRESQL=127.0.0.1:5433; the tests of real libraries read the same variables.
"""

from __future__ import annotations

import os
import socket

PORTS = {"POSTGRESQL": 5432, "REDIS": 6379}


class NoService(Exception):
    """Nothing answers there."""


def service(name: str) -> str:
    """The host and port, with a colon between them, of a server that answers now."""
    variable = f"WEFT_TEST_{name}"
    host, _, port = os.environ.get(variable, "").rpartition(":")
    address = host or "127.0.0.1", int(port or PORTS[name])
    try:
        socket.create_connection(address, timeout=2).close()
    except OSError as error:
        raise NoService(
            f"no {name} server answers at {address[0]}:{address[1]} ({error}); {variable} can name"
            " another"
        ) from None
    return f"{address[0]}:{address[1]}"
