"""The load generator: a small Rust program in benchmarks/loadgen, built when it is first needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.certificates import Certificate
from benchmarks.processes import ROOT, Child, RowError

MANIFEST = ROOT / "benchmarks" / "loadgen" / "Cargo.toml"


class LoadGeneratorError(Exception):
    """There is none, and none can be built."""


class LoadGenerator:
    """The built program; `LOADGEN` in the environment names one that is built already."""

    def __init__(self) -> None:
        given = os.environ.get("LOADGEN")
        self.program = Path(given) if given else _build()
        if not self.program.is_file():
            raise LoadGeneratorError(f"{self.program} does not exist")

    def serve(
        self,
        mode: str,
        cpu: int | None,
        path: str | None = None,
        udp: bool = False,
        certificate: Certificate | None = None,
    ) -> tuple[Child, str]:
        """Start the limit server; return it with its address."""
        address = f"unix:{path}" if path else f"{'udp' if udp else 'tcp'}:127.0.0.1:0"
        command = self._command("serve", address, mode, cpu)
        if certificate is not None:
            command += ["--certificate", str(certificate.chain), "--key", str(certificate.key)]
        child = Child(command)
        try:
            return child, child.line(10).removeprefix("listening ")
        except BaseException:
            child.end()
            raise

    def drive(
        self,
        address: str,
        mode: str,
        connections: int,
        size: int,
        warmup: float,
        measured: float,
        cpu: int | None,
        certificate: Certificate | None = None,
        *,
        process: int | None = None,
        limit: float,
    ) -> dict[str, float]:
        """Put load on a server; return what it did in a second, and latencies in microseconds.

        With the server's process, what each request took of its processor time, too.
        """
        command = self._command("drive", address, mode, cpu)
        command += ["--connections", str(connections), "--size", str(size)]
        command += ["--warmup", str(warmup), "--seconds", str(measured)]
        if process is not None:
            command += ["--process", str(process)]
        if certificate is not None:
            command += ["--authority", str(certificate.authority)]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise RowError("the load generator did not end") from None
        if answer.returncode:
            raise RowError(answer.stderr.strip() or f"exit code {answer.returncode}")
        report: dict[str, float] = json.loads(answer.stdout)
        return report

    def _command(self, role: str, address: str, mode: str, cpu: int | None) -> list[str]:
        command = [str(self.program), role, "--address", address, "--mode", mode]
        return command if cpu is None else [*command, "--cpu", str(cpu)]


def _build() -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target" / "loadgen")
    program = target / "release" / "loadgen"
    if shutil.which("cargo") is None:
        if program.is_file():
            return program
        raise LoadGeneratorError("cargo is not there to build benchmarks/loadgen")
    command = ["cargo", "build", "--quiet", "--release", "--locked"]
    command += ["--manifest-path", str(MANIFEST), "--target-dir", str(target)]
    if subprocess.run(command, check=False).returncode:
        raise LoadGeneratorError("benchmarks/loadgen does not build")
    return program
