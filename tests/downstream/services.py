"""Where the servers are that some libraries talk to; a test skips where none answers.

Each is looked for on the loopback at its usual port, or where an environment variable says, as in
WEFT_TEST_POSTGRESQL=127.0.0.1:5433.
"""

from __future__ import annotations

import os
import socket

import pytest

PORTS = {
    "POSTGRESQL": 5432,
    "MARIADB": 3306,
    "REDIS": 6379,
    "RABBITMQ": 5672,
    "MQTT": 1883,
    "NATS": 4222,
}


def service(name: str) -> tuple[str, int]:
    """The host and port of a server that answers there now."""
    variable = f"WEFT_TEST_{name}"
    host, _, port = os.environ.get(variable, "").rpartition(":")
    address = host or "127.0.0.1", int(port or PORTS[name])
    try:
        socket.create_connection(address, timeout=2).close()
    except OSError as error:
        pytest.skip(f"no {name} server answers at {address} ({error}); see {variable}")
    return address
