"""The benchmarks hang together, and measure: rows, loops, tables. Figures are not checked."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from children import Ended, python

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.__main__ import ALL_ROWS  # noqa: E402
from benchmarks.applications import APPLICATIONS  # noqa: E402
from benchmarks.clients import CLIENTS  # noqa: E402
from benchmarks.network import NetworkRow  # noqa: E402
from benchmarks.report import TITLES, markdown, notes  # noqa: E402
from benchmarks.results import Cell, Results, RowResult  # noqa: E402
from benchmarks.servers import SERVERS  # noqa: E402
from benchmarks.services import PORTS, NoService, service  # noqa: E402

NETWORK_ROWS = [row for row in ALL_ROWS.values() if isinstance(row, NetworkRow)]
MODES = {"", "echo", "http", "websocket", "source", "sink", "file", "greet"}


def test_every_row_belongs_to_a_table() -> None:
    assert {row.group for row in ALL_ROWS.values()} == set(TITLES)


def test_rows_name_what_there_is() -> None:
    servers = SERVERS | APPLICATIONS
    assert len(servers) == len(SERVERS) + len(APPLICATIONS)
    for row in NETWORK_ROWS:
        assert bool(row.server) != bool(row.client), row.name
        assert row.server in servers or row.client in CLIENTS, row.name
        assert row.mode in MODES, row.name
        assert not row.service or row.service in PORTS, row.name
    assert {row.server for row in NETWORK_ROWS} - {""} == set(servers)
    assert {row.client for row in NETWORK_ROWS} - {""} == set(CLIENTS)


def test_a_service_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_TEST_REDIS", "127.0.0.1:1")
    with pytest.raises(NoService, match=r"no REDIS server answers at 127\.0\.0\.1:1"):
        service("REDIS")


def test_a_table_has_dashes_and_their_reasons() -> None:
    machine = dict.fromkeys(("python", "system", "cpu", "date"), "some")
    rows = [
        RowResult("fast", "network", "requests/s", {}, {}),
        RowResult("mute", "network", "requests/s", {}, {"asyncio": "hangs", "weft": "hangs"}),
        RowResult("lonely", "programs", "requests/s", left_out="no server answers"),
    ]
    for loop, value in (("limit", 100.0), ("asyncio", 10.0), ("weft", 40.0)):
        rows[0].cells[loop] = Cell()
        rows[0].cells[loop].add(value, True, {"p50_us": 1.0, "p99_us": 2.0})
    results = Results(
        machine,
        {"processor_time": False},
        {"asyncio": "3", "weft": "1"},
        {"uvloop": "it is not installed"},
        rows,
    )
    text = markdown(results)
    assert "| fast | 100 | 10.0 | 40.0 | 4.00x (asyncio) | 0.40x |" in text
    assert "| mute | - | - | - | - | - |" in text
    assert notes(results) == [
        "uvloop is absent: it is not installed",
        "mute: all fail: hangs",
        "lonely is left out: no server answers",
    ]


def bench(rows: str, out: Path, **environment: str) -> tuple[Ended, Results]:
    """Run the suite as `make bench` does."""
    ended = python(
        "-m",
        "benchmarks",
        "--quick",
        *("--rows", rows, "--loops", "asyncio,weft", "--out", str(out)),
        timeout=120,
        cwd=ROOT,
        **environment,
    )
    ended.check()
    return ended, Results.read(out / "bench.json")


@pytest.mark.slow
def test_a_quick_run(tmp_path: Path) -> None:
    ended, results = bench("call_soon chain,memory per connection", tmp_path)
    assert list(results.loops) == ["asyncio", "weft"]
    assert [row.name for row in results.rows] == ["call_soon chain", "memory per connection"]
    for row in results.rows:
        assert row.errors == {}
        assert all(row.cells[loop].best > 0 for loop in results.loops)
        assert row.name in ended.out
    assert json.loads((tmp_path / "bench.json").read_text())["settings"]["rounds"] == 3
    assert "| call_soon chain |" in (tmp_path / "bench.md").read_text()


@pytest.mark.slow
def test_a_quick_run_of_a_client_without_a_load_generator(tmp_path: Path) -> None:
    pytest.importorskip("aiofiles")
    ended, results = bench("aiofiles,echo 1K x1", tmp_path, LOADGEN=str(tmp_path / "none"))
    assert "left out" in ended.out
    assert [row.name for row in results.rows] == ["aiofiles 64K x10"]
    assert results.rows[0].errors == {}


GENERATOR = Path(os.environ.get("LOADGEN") or ROOT / "target" / "loadgen" / "release" / "loadgen")


@pytest.mark.slow
@pytest.mark.skipif(not GENERATOR.is_file(), reason="`make bench` builds the load generator")
def test_a_quick_run_of_servers(tmp_path: Path) -> None:
    pytest.importorskip("trustme")
    rows = "echo 1K x50,echo TLS 10K x50,TLS handshakes,accepts,bulk send,bulk receive,sendfile"
    _, results = bench(rows, tmp_path, LOADGEN=str(GENERATOR))
    for row in results.rows:
        assert row.errors == {}, row
        assert set(row.cells) == {"limit", "asyncio", "weft"}
