"""Every example does its work on asyncio and on Weft, and the demo runs, reports and cleans up.

The programs run as a user runs them: in a process of their own, against the examples' server.
Results are checked, never speed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from backends import Backend
from children import Ended, child_environment, python

for module in ("aiohttp", "aiofiles", "bs4"):
    pytest.importorskip(module, reason="see examples/requirements.txt")

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PROGRAMS = (
    "api_calls",
    "dashboard",
    "downloader",
    "pipeline",
    "poller",
    "priority_queue",
    "scraper",
)

pytestmark = pytest.mark.slow

RunExample = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """A server for all tests of this module: it keeps no state that they could share."""
    with subprocess.Popen(
        [sys.executable, "-m", "examples.server", "--port", "0", "--until-eof", "--files", "12"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
        server.stdin.close()
        assert server.wait(10) == 0


def on_loop(backend: Backend, program: Path, *arguments: str) -> Ended:
    """Run a program unmodified: with `python`, or with `python -m weft`."""
    prefix = ("-m", "weft") if backend.is_weft else ()
    return python(*prefix, str(program), *arguments)


@pytest.fixture
def run_example(backend: Backend, base_url: str) -> RunExample:
    """Run an example on the backend's loop and return its report."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        program = EXAMPLES / f"{name}.py"
        ended = on_loop(backend, program, "--base-url", base_url, "--json", *arguments)
        report: dict[str, Any] = json.loads(ended.check().splitlines()[-1])
        assert report["program"] == name
        # Else the test would prove nothing about the loop it is named after.
        assert report["loop"].partition(".")[0] == backend.name
        for figures in report["runs"]:
            assert figures["calls"] > 0
            assert figures["calls_per_second"] == figures["calls"] / figures["seconds"]
            assert 0 < figures["p50_ms"] <= figures["p99_ms"]
            assert figures["errors"] == sum(figures["errors_by_type"].values())
        return report

    return run


def figures_of(report: dict[str, Any]) -> dict[str, Any]:
    """The figures of a program that has one run only."""
    figures: dict[str, Any]
    (figures,) = report["runs"]
    return figures


# -- the programs ----------------------------------------------------------------------------------


def test_api_calls(run_example: RunExample) -> None:
    # The timeout is long enough for a busy machine; only what hangs for 30 s runs into it.
    report = run_example("api_calls", "--calls", "250", "--concurrency", "20", "--timeout", "4")
    result = report["result"]
    runs = {figures["name"]: figures for figures in report["runs"]}
    assert list(runs) == ["one by one", "gather", "workers", "semaphore", "timeouts"]
    assert {figures["calls"] for figures in runs.values()} == {250}
    sums = {result[name] for name in ("one by one", "gather", "workers", "semaphore")}
    assert len(sums) == 1
    outcome = result["timeouts"]
    assert outcome["timed out"] == 2
    assert outcome["failed"] > 0
    assert 0 < outcome["cents"] < sums.pop()
    errors = runs["timeouts"]["errors_by_type"]
    assert errors["TimeoutError"] == outcome["timed out"]
    assert errors["ClientResponseError"] == outcome["failed"]
    assert all(runs[name]["errors"] == 0 for name in runs if name != "timeouts")


def test_api_calls_one_way_only(run_example: RunExample) -> None:
    report = run_example("api_calls", "--calls", "30", "--way", "workers")
    assert list(report["result"]) == ["workers"]


def test_scraper_finds_the_whole_site_once(run_example: RunExample) -> None:
    result = run_example("scraper")["result"]
    assert result["pages"] == 160
    # Pages 5, 22, 39, … each link to one page that is not there.
    assert len(result["dead"]) == len(range(5, 160, 17))
    assert sum(result["levels"]) == 160 + len(result["dead"])
    # 6 paragraphs of 40 words on each page.
    assert result["words"] == 160 * 240


def test_scraper_keeps_to_its_depth(run_example: RunExample) -> None:
    report = run_example("scraper", "--depth", "1", "--concurrency", "2")
    levels = report["result"]["levels"]
    assert len(levels) == 2
    assert figures_of(report)["calls"] == sum(levels)


def test_poller_loses_no_event_to_a_feed_that_fails(run_example: RunExample) -> None:
    options = ("--feeds", "12", "--polls", "8", "--interval", "0.01")
    report = run_example("poller", *options)
    figures, result = figures_of(report), report["result"]
    assert result["retries"] > 0
    assert figures["errors"] == result["retries"]
    assert figures["calls"] == 12 * 8 + result["retries"]
    assert result["events"] >= 12 * 8


def test_priority_queue_lets_urgent_jobs_pass(run_example: RunExample) -> None:
    report = run_example("priority_queue", "--jobs", "200", "--workers", "7")
    result = report["result"]
    assert figures_of(report)["calls"] == sum(result["jobs"].values()) == 220
    assert result["jobs"]["urgent"] > 20
    # The program itself raises if a late urgent job did not overtake.
    assert result["overtaken"] == 100


def test_downloader_writes_whole_files(run_example: RunExample, tmp_path: Path) -> None:
    report = run_example("downloader", "--files", "12", "--directory", str(tmp_path))
    result = report["result"]
    files = sorted(tmp_path.iterdir())
    assert len(files) == result["files"] == 12
    assert sum(file.stat().st_size for file in files) == result["bytes"]
    assert not list(tmp_path.glob("*.part"))
    assert result["retries"] == figures_of(report)["errors"] > 0


@pytest.mark.parametrize("queue", ["1", "100"])
def test_pipeline_books_every_order(run_example: RunExample, queue: str) -> None:
    report = run_example("pipeline", "--pages", "6", "--queue", queue)
    assert report["result"]["orders"] == 120
    # 6 pages, 120 prices, 3 batches of at most 50.
    assert figures_of(report)["calls"] == 6 + 120 + 3


def test_dashboard_survives_a_service_that_is_down(run_example: RunExample) -> None:
    options = ("--screens", "3", "--ticks", "20", "--interval", "0", "--timeout", "10")
    report = run_example("dashboard", *options)
    result = report["result"]
    assert result["up"] == {"orders": 60, "stock": 60, "payments": 36}
    assert result["longest outage"] == 4
    assert figures_of(report)["errors"] == 24


def test_dashboard_shows_each_tick(backend: Backend, base_url: str) -> None:
    program = EXAMPLES / "dashboard.py"
    options = ("--base-url", base_url, "--ticks", "5", "--interval", "0.01")
    output = on_loop(backend, program, *options).check()
    ticks = re.findall(r"^tick +\d+ \| orders: open \d+ \| stock", output, re.MULTILINE)
    # The last is shown once more at the end.
    assert len(ticks) == 5 + 1
    assert re.search(r"payments: cents [\d,]+ \(2 ticks old\)", output)


@pytest.mark.backends("weft")
@pytest.mark.parametrize("name", PROGRAMS)
def test_result_is_what_it_is_on_asyncio(run_example: RunExample, name: str, base_url: str) -> None:
    """The same result, field by field, as on the loop that defines what is right."""
    quick = quick_arguments()[name]
    ended = python(str(EXAMPLES / f"{name}.py"), "--base-url", base_url, "--json", *quick)
    expected = json.loads(ended.check().splitlines()[-1])["result"]
    assert run_example(name, *quick)["result"] == expected


def quick_arguments() -> dict[str, tuple[str, ...]]:
    """Small counts; a hanging call may take its time before it is given up."""
    return {
        "api_calls": ("--calls", "60", "--timeout", "4"),
        "dashboard": ("--ticks", "12", "--interval", "0", "--timeout", "10"),
        "downloader": ("--files", "4"),
        "pipeline": ("--pages", "3"),
        "poller": ("--feeds", "6", "--polls", "4", "--interval", "0.01"),
        "priority_queue": ("--jobs", "60"),
        "scraper": ("--depth", "2"),
    }


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_no_example_knows_weft(path: Path) -> None:
    assert "weft" not in path.read_text().lower() or path.name == "__init__.py"


# -- the server ------------------------------------------------------------------------------------


def exchange(base_url: str, request: bytes) -> bytes:
    """Send raw bytes, then nothing more, and read until the server closes."""
    host, port = base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"501"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, b"431"),
        (b"DELETE / HTTP/1.1\r\nConnection: close\r\n\r\n", b"405"),
        (b"GET /api/items/one HTTP/1.1\r\nConnection: close\r\n\r\n", b"400"),
        (b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET /services/payments?tick=4 HTTP/1.1\r\n\r\n", b""),
    ],
)
def test_server_answers_what_is_not_in_order(base_url: str, request_: bytes, status: bytes) -> None:
    try:
        answer = exchange(base_url, request_)
    except ConnectionResetError:
        # The server cut the connection while there was unread input, or to play dead.
        answer = b""
        assert status in (b"", b"431")
    assert answer[9:12] == status


def test_server_answers_pipelined_requests_in_order(base_url: str) -> None:
    requests = (
        b"GET /api/items/1?delay=50 HTTP/1.1\r\n\r\n"
        b"POST /api/ledger HTTP/1.1\r\nContent-Length: 13\r\n\r\n"
        b'[{"cents":9}]'
        b"GET /api/items/2 HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    bodies = [json.loads(body) for body in re.findall(rb"\{.*?\}", exchange(base_url, requests))]
    assert [body.get("id", body.get("cents")) for body in bodies] == [1, 9, 2]


# -- the demo --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("-m", "examples.demo"), ("examples/demo/__main__.py",)])
def test_demo_measures_and_draws(command: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="see examples/requirements.txt")
    options = ("--quick", "--loops", "asyncio", "--programs", "pipeline", "poller")
    ended = python(*command, *options, "--out", str(tmp_path), cwd=ROOT, timeout=120)
    assert ended.code == 0, ended.err
    assert "Producers and consumers" in ended.out
    document = json.loads((tmp_path / "demo.json").read_text())
    assert document["failures"] == []
    assert {row["label"] for row in document["rows"]} == {
        "Producers and consumers",
        "Poller, at its own pace",
    }
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "demo.svg").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_demo_stops_its_server_whatever_happens(number: signal.Signals, tmp_path: Path) -> None:
    options = ["--loops", "asyncio", "--programs", "dashboard", "--out", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "examples.demo", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=child_environment(),
        # As the terminal does it: Ctrl-C reaches the demo and all that it has started.
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        address = ""
        for line in demo.stdout:
            if found := re.search(r"server at http://([\d.]+:\d+)", line):
                address = found[1]
            if line.startswith("round"):
                break
        host, port = address.split(":")
        # A connection of ours tells when the server is gone: it ends.
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            if number is signal.SIGINT:
                os.killpg(demo.pid, number)
            else:
                demo.send_signal(number)
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        demo.stdout.read()
        code = demo.wait(20)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 130)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=10).close()
