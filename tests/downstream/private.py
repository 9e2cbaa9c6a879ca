"""Servers of a test's own, on a free port, to be killed in the middle and started again.

A killed one gets SIGKILL, with all the processes that it has made, so that nothing is said to its
clients but what the kernel says. It comes back on the same port with the same data.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import trusted
from children import child_environment
from services import program

PATIENCE = 30
"""Seconds until a server that does not come up fails the test."""


def port_of_our_own() -> int:
    """A free port that the kernel gives to nobody else while the server on it is dead.

    Not one of those that it hands out to connections: a client that tries such a port again and
    again may end up connected to itself.
    """
    given_out = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
    for port in random.sample(range(10_000, int(given_out)), 200):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


class Private:
    """A server, its port and its folder. Subclasses say how to start it, and when it is up."""

    user: str | None = None
    """Who runs it, where it does not want to be run by root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = port_of_our_own()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextlib.contextmanager
    def running(cls, *arguments: object, **keywords: object) -> Iterator[Self]:
        """Start one; it is gone at the end, and so is what it has written."""
        # Not pytest's folder: nobody but its owner gets in there.
        with tempfile.TemporaryDirectory(prefix="weft-server-") as folder:
            server = cls(Path(folder), *arguments, **keywords)
            server.prepare()
            try:
                server.start()
                yield server
            finally:
                server.kill()

    def prepare(self) -> None:
        """Fill the folder, before the first start."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def start(self) -> None:
        """Start it, and wait until it answers. It takes a while: `to_thread` is the place."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self._account(),
                extra_groups=None if self._account() is None else [],
            )
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            if self.is_up():
                return
            time.sleep(0.005)
        raise RuntimeError(f"{self.command()[0]} did not start:\n{self.log()}")

    def kill(self) -> None:
        """Kill it and all that it has started, and wait until they are gone."""
        if (process := self._process) is None:
            return
        self._process = None
        family = [process.pid, *_descendants(process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + PATIENCE
        # Whoever adopts the others reaps them, and may leave them dead for a while.
        while any(_is_alive(pid) for pid in family) and time.monotonic() < deadline:
            time.sleep(0.001)

    def end(self, number: signal.Signals) -> int:
        """Tell it to end, in good order; returns its exit code. It takes as long as it takes."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(PATIENCE)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _account(self) -> str | None:
        if os.getuid() or self.user is None:
            return None
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(self.user).pw_name
        return "nobody"

    def hand_over(self) -> None:
        """Give the folder and what is in it to who runs the server."""
        if (account := self._account()) is not None:
            for path in [self.folder, *self.folder.rglob("*")]:
                shutil.chown(path, account)


def _descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class PostgreSQL(Private):
    """Takes connections with and without TLS, and trusts everybody who says `postgres`."""

    user = "postgres"
    BINARIES = "/usr/lib/postgresql/*/bin"

    def prepare(self) -> None:
        trusted.write_to(self.folder)
        self.hand_over()
        (self.folder / "key.pem").chmod(0o600)
        initdb = [program("initdb", self.BINARIES), "--pgdata", str(self.folder / "data")]
        subprocess.run(
            [*initdb, "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            user=self._account(),
            extra_groups=None if self._account() is None else [],
        )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "ssl": "on",
            "ssl_cert_file": self.folder / "certificate.pem",
            "ssl_key_file": self.folder / "key.pem",
            # What is promised to survive a kill needs no disk: the kernel lives on.
            "fsync": "off",
            "max_connections": 60,
        }
        postgres = [program("postgres", self.BINARIES), "-D", str(self.folder / "data")]
        return postgres + [f"--{name}={value}" for name, value in settings.items()]

    def is_up(self) -> bool:
        # Before that it answers, too, but that it is starting up. The last line is its state.
        try:
            state = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        mine = self._process is not None and state[:1] == [str(self._process.pid)]
        return mine and len(state) > 7 and state[7].strip() == "ready"


class Redis(Private):
    user = "redis"

    def prepare(self) -> None:
        self.tls_port = port_of_our_own()
        trusted.write_to(self.folder)
        self.hand_over()

    def command(self) -> list[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "no",
            "save": "",
            "tls-port": self.tls_port,
            "tls-cert-file": self.folder / "certificate.pem",
            "tls-key-file": self.folder / "key.pem",
            "tls-ca-cert-file": self.folder / "authority.pem",
            "tls-auth-clients": "no",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        return [program("redis-server"), *options]


class Nats(Private):
    """With JetStream, whose streams are files; with `tls`, it wants that of every client."""

    user = "nats"

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        super().__init__(folder)
        self.tls = tls

    def prepare(self) -> None:
        trusted.write_to(self.folder)
        self.hand_over()

    def command(self) -> list[str]:
        nats = [program("nats-server"), "--addr=127.0.0.1", f"--port={self.port}"]
        nats += ["--jetstream", f"--store_dir={self.folder / 'streams'}"]
        if self.tls:
            nats += [
                "--tls",
                f"--tlscert={self.folder / 'certificate.pem'}",
                f"--tlskey={self.folder / 'key.pem'}",
            ]
        return nats


class Mosquitto(Private):
    user = "mosquitto"

    def prepare(self) -> None:
        self.tls_port = port_of_our_own()
        trusted.write_to(self.folder)
        (self.folder / "settings").write_text(
            f"listener {self.port} 127.0.0.1\n"
            "allow_anonymous true\n"
            "persistence true\n"
            f"persistence_location {self.folder}/\n"
            f"listener {self.tls_port} 127.0.0.1\n"
            "allow_anonymous true\n"
            f"certfile {self.folder / 'certificate.pem'}\n"
            f"keyfile {self.folder / 'key.pem'}\n"
        )
        self.hand_over()

    def command(self) -> list[str]:
        return [program("mosquitto"), "-c", str(self.folder / "settings")]


class MariaDB(Private):
    """Without the tables of its users: anybody is root, and it is up in no time."""

    user = "mysql"

    def prepare(self) -> None:
        trusted.write_to(self.folder)
        (self.folder / "data").mkdir()
        # A database is a folder.
        (self.folder / "data" / "test").mkdir()
        self.hand_over()

    def command(self) -> list[str]:
        return [
            program("mariadbd"),
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            f"--socket={self.folder / 'socket'}",
            "--skip-grant-tables",
            "--skip-networking=0",
            "--innodb-log-file-size=8M",
            "--innodb-buffer-pool-size=16M",
            "--innodb-flush-log-at-trx-commit=2",
            f"--ssl-cert={self.folder / 'certificate.pem'}",
            f"--ssl-key={self.folder / 'key.pem'}",
        ]


class Program(Private):
    """A server in Python, of a test's own: `source` listens on the port in `sys.argv[1]`."""

    def __init__(self, folder: Path, source: str) -> None:
        super().__init__(folder)
        self.source = source

    def prepare(self) -> None:
        (self.folder / "program.py").write_text(self.source)
        trusted.write_to(self.folder)

    def command(self) -> list[str]:
        return [sys.executable, str(self.folder / "program.py"), str(self.port)]


RELAY = """
import asyncio, ssl, sys

async def pump(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

async def relay(reader, writer):
    there = await asyncio.open_connection({host!r}, {port})
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

async def main():
    context = None
    if {tls}:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("certificate.pem", "key.pem")
    server = await asyncio.start_server(relay, "127.0.0.1", int(sys.argv[1]), ssl=context)
    await server.serve_forever()

asyncio.run(main())
"""


class Relay(Program):
    """Passes connections on to a server that takes too long to start, to be killed in its place.

    With `tls`, its clients speak TLS.
    """

    def __init__(self, folder: Path, address: tuple[str, int], *, tls: bool = False) -> None:
        host, port = address
        super().__init__(folder, RELAY.format(host=host, port=port, tls=tls))
