"""What these tests need of the machine: libraries, servers that answer, programs to start.

A test skips, and says why, where one of them is missing. WEFT_TEST_REQUIRE lists what a run must
not be without, as in `libraries,services,programs`: there the test fails instead. So .ci/run does.

Servers are looked for on the loopback at their usual ports, or where an environment variable says,
as in WEFT_TEST_POSTGRESQL=127.0.0.1:5433.
"""

from __future__ import annotations

import glob
import importlib
import os
import shutil
import socket
import sys
from typing import Any, NoReturn

import pytest

PORTS = {
    "POSTGRESQL": 5432,
    "MARIADB": 3306,
    "REDIS": 6379,
    "RABBITMQ": 5672,
    "MQTT": 1883,
    "NATS": 4222,
}

KINDS = ("libraries", "services", "programs")

WITHOUT_WHEEL: dict[str, tuple[int, int]] = {}
"""Libraries that have no wheel from this version of Python on, and may be missing there."""


def missing(kind: str, reason: str) -> NoReturn:
    """Skip the test or module that lacks something; fail it where the run has to have that kind."""
    required = [name for name in os.environ.get("WEFT_TEST_REQUIRE", "").split(",") if name]
    if unknown := {*required} - {*KINDS}:
        pytest.fail(f"WEFT_TEST_REQUIRE names {unknown}; there are {KINDS}")
    if kind in required:
        pytest.fail(f"{reason}; WEFT_TEST_REQUIRE names {kind}")
    pytest.skip(reason, allow_module_level=True)


def library(name: str) -> Any:
    """The module of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        reason = f"{name} is not installed ({error})"
        if sys.version_info[:2] >= WITHOUT_WHEEL.get(name, (9, 9)):
            pytest.skip(f"{reason}: there is no wheel of it", allow_module_level=True)
        missing("libraries", reason)


def service(name: str) -> tuple[str, int]:
    """The host and port of a server that answers there now."""
    variable = f"WEFT_TEST_{name}"
    host, _, port = os.environ.get(variable, "").rpartition(":")
    address = host or "127.0.0.1", int(port or PORTS[name])
    try:
        socket.create_connection(address, timeout=2).close()
    except OSError as error:
        missing("services", f"no {name} server answers at {address} ({error}); see {variable}")
    return address


def program(name: str, *folders: str) -> str:
    """The path of a program to start, from PATH, the system's folders, or these."""
    # Patterns: Debian keeps each version of PostgreSQL in a folder of its own. The newest one.
    found = [folder for pattern in folders for folder in sorted(glob.glob(pattern), reverse=True)]
    path = os.pathsep.join([*found, os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
    if (command := shutil.which(name, path=path)) is None:
        missing("programs", f"the program {name} is not installed")
    return command
