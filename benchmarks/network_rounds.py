"""The rounds of network rows: who serves, who drives, and what a round counts for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.certificates import Certificate
from benchmarks.loadgen import LoadGenerator
from benchmarks.loops import CONTENDERS
from benchmarks.network import NetworkRow
from benchmarks.processes import Child, RowError, worker
from benchmarks.results import LIMIT
from benchmarks.services import service
from benchmarks.settings import Cpus, Settings

Report = dict[str, float]

START_LIMIT = 30.0
ROUND_LIMIT = 30.0
"""Seconds that a process may need to start, and a round beyond what it measures."""


class NetworkRounds:
    """Prepares the loops, and the limit, for one row."""

    def __init__(
        self,
        row: NetworkRow,
        settings: Settings,
        cpus: Cpus,
        generator: LoadGenerator | None,
        stack: ExitStack,
    ) -> None:
        self.row = row
        self.settings = settings
        self.cpus = cpus
        self.stack = stack
        self._given_generator = generator
        self._service = service(row.service) if row.service else ""
        self._certificate = Certificate.make(self._directory()) if row.tls else None

    def names(self, loops: list[str]) -> list[str]:
        """Who takes part."""
        return [LIMIT, *loops] if self.row.limited else loops

    def prepare(self, name: str) -> Callable[[], tuple[float, Report]]:
        """Start the processes of a loop; return what measures a round of it."""
        if self.row.client:
            return self._limit_client() if name == LIMIT else self._client(name)
        return self._limit_server() if name == LIMIT else self._server(name)

    def _server(self, name: str) -> Callable[[], tuple[float, Report]]:
        arguments = [self.row.server, "--size", str(self.row.size)]
        if self.row.unix:
            arguments += ["--unix", str(self._directory() / "socket")]
        if self.row.udp:
            arguments.append("--udp")
        if self._certificate is not None:
            arguments += ["--certificate", str(self._certificate.chain)]
            arguments += ["--key", str(self._certificate.key)]
        child = self.stack.enter_context(
            worker(CONTENDERS[name], "server", *arguments, cpu=self.cpus.loop)
        )
        return self._drive(child, child.answer(START_LIMIT)["listening"])

    def _limit_server(self) -> Callable[[], tuple[float, Report]]:
        path = str(self._directory() / "socket") if self.row.unix else None
        child, address = self._generator.serve(
            self.row.mode, self.cpus.loop, path, self.row.udp, self._certificate
        )
        return self._drive(self.stack.enter_context(child), address)

    def _drive(self, server: Child, address: str) -> Callable[[], tuple[float, Report]]:
        """Rounds of the load generator against a server that runs only during its turns."""
        server.pause()

        def run() -> tuple[float, Report]:
            server.resume()
            try:
                report = self._generator.drive(
                    address,
                    self.row.mode,
                    self.row.connections,
                    self.row.size,
                    self.settings.network_warmup,
                    self._measured,
                    self.cpus.peer,
                    self._certificate,
                    process=server.process,
                    limit=self._measured + ROUND_LIMIT,
                )
            except RowError as error:
                # What the server has to say about it is worth more.
                raise RowError(server.last_words() or str(error)) from None
            finally:
                server.pause()
            return self._value(report)

        return run

    def _client(self, name: str) -> Callable[[], tuple[float, Report]]:
        address = self._service
        if self.row.mode:
            server, address = self._generator.serve(self.row.mode, self.cpus.peer)
            self.stack.enter_context(server)
        child = self.stack.enter_context(
            worker(CONTENDERS[name], "client", self.row.client, cpu=self.cpus.loop)
        )
        order = {
            "address": address.removeprefix("tcp:"),
            "connections": self.row.connections,
            "warmup": self.settings.network_warmup,
            "measured": self._measured,
        }

        def run() -> tuple[float, Report]:
            return self._value(child.ask(order, self._measured + ROUND_LIMIT))

        return run

    def _limit_client(self) -> Callable[[], tuple[float, Report]]:
        """The load generator in the loop's place, on its CPU."""
        server, address = self._generator.serve(self.row.mode, self.cpus.peer)
        self.stack.enter_context(server)

        def run() -> tuple[float, Report]:
            report = self._generator.drive(
                address,
                self.row.mode,
                self.row.connections,
                self.row.size,
                self.settings.network_warmup,
                self._measured,
                self.cpus.loop,
                limit=self._measured + ROUND_LIMIT,
            )
            report["cpu_us"] = report["processor_s"] / report["all"] * 1e6
            return self._value(report)

        return run

    def _value(self, report: Report) -> tuple[float, Report]:
        """What a round counts for."""
        if self.row.unit == "us":
            return report["p99_us"], report
        if self.settings.processor_time:
            if "cpu_us" not in report:
                raise RowError("the system does not tell processor times")
            return report["cpu_us"], report
        return report["per_second"] / self.row.counted, report

    @property
    def _measured(self) -> float:
        return self.settings.network_seconds * self.row.duration

    @property
    def _generator(self) -> LoadGenerator:
        assert self._given_generator is not None, "such rows are chosen only with a load generator"
        return self._given_generator

    def _directory(self) -> Path:
        return Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
