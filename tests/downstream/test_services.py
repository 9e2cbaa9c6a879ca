"""What is missing is skipped, or fails the test where the run has to have it."""

from __future__ import annotations

import pytest
import services
from peers import closed_port


@pytest.fixture(autouse=True)
def _nothing_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_TEST_REDIS", f"127.0.0.1:{closed_port()}")
    monkeypatch.delenv("WEFT_TEST_REQUIRE", raising=False)


ASKING = {
    "libraries": lambda: services.library("no_such_library"),
    "services": lambda: services.service("REDIS"),
    "programs": lambda: services.program("no-such-program"),
}


@pytest.mark.parametrize("kind", ASKING)
def test_what_is_missing_is_skipped(kind: str) -> None:
    with pytest.raises(pytest.skip.Exception, match=r"not installed|no REDIS server answers"):
        ASKING[kind]()


@pytest.mark.parametrize("kind", ASKING)
def test_what_a_run_must_have_is_not_skipped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_TEST_REQUIRE", ",".join({*ASKING} - {kind}))
    with pytest.raises(pytest.skip.Exception):
        ASKING[kind]()
    monkeypatch.setenv("WEFT_TEST_REQUIRE", "libraries,services,programs")
    with pytest.raises(pytest.fail.Exception, match=f"WEFT_TEST_REQUIRE names {kind}"):
        ASKING[kind]()


def test_a_kind_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_TEST_REQUIRE", "servcies")
    with pytest.raises(pytest.fail.Exception, match="servcies"):
        services.missing("services", "it is gone")
