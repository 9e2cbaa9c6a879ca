"""What callbacks raise, where it goes, and exception handlers of users' own."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from backends import Backend
from turns import turn

Reports = list[dict[str, Any]]


class Custom(Exception):
    pass


class CustomBase(BaseException):
    pass


SURVIVABLE = [ValueError, Custom, CustomBase, GeneratorExit, StopIteration, asyncio.CancelledError]
FATAL = [KeyboardInterrupt, SystemExit]


def raiser(error: Any) -> Any:
    def broken(*arguments: Any) -> None:
        raise error

    return broken


def schedule(loop: asyncio.AbstractEventLoop, how: str, callback: Any) -> Any:
    """Have `callback` run by the loop, by one of the ways there are."""
    if how == "call_soon":
        return loop.call_soon(callback)
    if how == "call_soon_threadsafe":
        return loop.call_soon_threadsafe(callback)
    if how == "call_later":
        return loop.call_later(-1, callback)
    if how == "done callback":
        future = loop.create_future()
        future.add_done_callback(callback)
        future.set_result(None)
        return future
    task = loop.create_task(asyncio.sleep(0))
    task.add_done_callback(callback)
    return task


WAYS = ["call_soon", "call_soon_threadsafe", "call_later", "done callback", "task callback"]


class TestCallbacks:
    @pytest.mark.outside_debug
    @pytest.mark.parametrize("how", WAYS)
    @pytest.mark.parametrize("kind", SURVIVABLE)
    def test_reported_and_survived(
        self,
        loop: asyncio.AbstractEventLoop,
        reports: Reports,
        how: str,
        kind: type[BaseException],
    ) -> None:
        error = kind("own")
        seen: list[str] = []
        kept = schedule(loop, how, raiser(error))
        loop.call_soon(seen.append, "next")
        turn(loop, 4)
        assert kept is not None
        assert seen == ["next"]
        assert len(reports) == 1
        assert set(reports[0]) == {"message", "exception", "handle"}
        assert reports[0]["exception"] is error
        assert reports[0]["message"].startswith("Exception in callback raiser.<locals>.broken(")

    @pytest.mark.parametrize("how", WAYS)
    @pytest.mark.parametrize("kind", FATAL)
    def test_ends_the_run(
        self,
        loop: asyncio.AbstractEventLoop,
        reports: Reports,
        how: str,
        kind: type[BaseException],
    ) -> None:
        error = kind("own")
        seen: list[str] = []
        kept = schedule(loop, how, raiser(error))
        loop.call_later(0.01, loop.stop)
        with pytest.raises(kind) as caught:
            loop.run_forever()
        assert kept is not None
        assert caught.value is error
        assert reports == []
        assert not loop.is_running()
        assert asyncio._get_running_loop() is None
        assert asyncio.current_task(loop) is None
        loop.call_soon(seen.append, "goes on")
        loop.run_forever()
        assert seen == ["goes on"]

    @pytest.mark.parametrize("kind", FATAL)
    def test_the_rest_of_the_turn_is_kept(
        self, loop: asyncio.AbstractEventLoop, kind: type[BaseException]
    ) -> None:
        seen: list[int] = []
        loop.call_soon(seen.append, 1)
        loop.call_soon(raiser(kind))
        loop.call_soon(seen.append, 2)
        loop.call_soon(raiser(kind))
        loop.call_soon(seen.append, 3)
        for expected in ([1], [1, 2]):
            with pytest.raises(kind):
                loop.run_forever()
            assert seen == expected
        turn(loop)
        assert seen == [1, 2, 3]

    def test_traceback_begins_in_the_callback(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        """At most the loop's own line comes before it."""
        loop.call_soon(raiser(ValueError("own")))
        turn(loop)
        trace = reports[0]["exception"].__traceback__
        names = []
        while trace is not None:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        assert names[-1] == "broken"
        assert len(names) <= 2

    def test_context_of_the_error_is_not_invented(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        loop.call_soon(raiser(ValueError()))
        loop.call_soon(raiser(KeyError()))
        turn(loop)
        assert [report["exception"].__context__ for report in reports] == [None, None]

    def test_the_report_may_be_dropped(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        """Once the report is gone, so are the error, its frames and what they held."""
        import gc
        import weakref

        class Thing:
            pass

        alive: list[Any] = []

        def broken() -> None:
            thing = Thing()
            alive.append(weakref.ref(thing))
            raise ValueError

        loop.call_soon(broken)
        turn(loop)
        assert alive[0]() is not None
        reports.clear()
        gc.collect()
        assert alive[0]() is None


class TestHandler:
    def test_gets_loop_and_context(self, loop: asyncio.AbstractEventLoop) -> None:
        calls: list[Any] = []
        loop.set_exception_handler(lambda *arguments: calls.append(arguments))
        error = ValueError()
        loop.call_soon(raiser(error))
        turn(loop)
        assert len(calls) == 1
        assert calls[0][0] is loop
        assert calls[0][1]["exception"] is error

    def test_call_exception_handler(self, loop: asyncio.AbstractEventLoop) -> None:
        calls: list[Any] = []
        loop.set_exception_handler(lambda loop_, context: calls.append(context))
        context = {"message": "hello", "mine": 1}
        assert loop.call_exception_handler(context) is None
        assert calls == [context]
        assert calls[0] is context

    def test_that_raises(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        loop.set_exception_handler(raiser(Custom("in the handler")))
        loop.call_soon(raiser(ValueError("in the callback")))
        seen: list[int] = []
        loop.call_soon(seen.append, 1)
        turn(loop)
        assert seen == [1]
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == 1
        assert messages[0].startswith("Unhandled error in exception handler\n")
        assert "context: {" in messages[0]
        assert caplog.records[0].exc_info is not None
        assert caplog.records[0].exc_info[0] is Custom

    @pytest.mark.parametrize("kind", FATAL)
    def test_that_raises_an_exit(
        self, loop: asyncio.AbstractEventLoop, kind: type[BaseException]
    ) -> None:
        loop.set_exception_handler(raiser(kind))
        loop.call_soon(raiser(ValueError))
        with pytest.raises(kind):
            loop.run_forever()

    def test_that_raises_in_the_default_too(
        self,
        loop: asyncio.AbstractEventLoop,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(loop, "default_exception_handler", raiser(Custom("default")))
        loop.set_exception_handler(raiser(Custom("own")))
        loop.call_soon(raiser(ValueError))
        turn(loop)
        expected = (
            "Exception in default exception handler while handling an unexpected error in custom"
            " exception handler"
        )
        assert [record.getMessage() for record in caplog.records] == [expected]

    def test_default_that_raises(
        self,
        loop: asyncio.AbstractEventLoop,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(loop, "default_exception_handler", raiser(Custom("default")))
        loop.call_soon(raiser(ValueError))
        turn(loop)
        assert [record.getMessage() for record in caplog.records] == [
            "Exception in default exception handler"
        ]

    def test_overridden_in_a_subclass(self, backend: Backend) -> None:
        calls: list[Any] = []

        class Mine(backend.loop_class):  # type: ignore[misc, name-defined]
            def call_exception_handler(self, context: dict[str, Any]) -> None:
                calls.append(context["message"])

        loop = Mine()
        loop.call_soon(raiser(ValueError))
        turn(loop)
        loop.close()
        assert len(calls) == 1
        assert calls[0].startswith("Exception in callback raiser.<locals>.broken(")

    def test_replaced_on_the_instance(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import gc

        calls: list[str] = []
        monkeypatch.setattr(
            loop, "call_exception_handler", lambda context: calls.append(context["message"][:20])
        )
        loop.call_soon(raiser(ValueError))
        turn(loop)
        loop.create_future().set_exception(ValueError())
        gc.collect()
        assert calls == ["Exception in callbac", "Future exception was"]

    def test_default_overridden_in_a_subclass(self, backend: Backend) -> None:
        calls: list[Any] = []

        class Mine(backend.loop_class):  # type: ignore[misc, name-defined]
            def default_exception_handler(self, context: dict[str, Any]) -> None:
                calls.append(context["exception"])

        loop = Mine()
        error = ValueError()
        loop.call_soon(raiser(error))
        turn(loop)
        loop.close()
        assert calls == [error]

    def test_can_call_the_default(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        def handler(loop_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            context["message"] = "changed"
            loop_.default_exception_handler(context)

        loop.set_exception_handler(handler)
        loop.call_soon(raiser(ValueError))
        turn(loop)
        assert caplog.records[0].getMessage().startswith("changed\nhandle: <Handle ")

    def test_that_stops_or_closes(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_exception_handler(lambda loop_, context: loop_.stop())
        loop.call_soon(raiser(ValueError))
        loop.call_later(20, raiser(AssertionError)).cancel()
        loop.run_forever()

    def test_that_replaces_itself(self, loop: asyncio.AbstractEventLoop) -> None:
        calls: list[str] = []

        def second(loop_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            calls.append("second")

        def first(loop_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            calls.append("first")
            loop_.set_exception_handler(second)

        loop.set_exception_handler(first)
        loop.call_soon(raiser(ValueError))
        loop.call_soon(raiser(ValueError))
        turn(loop)
        assert calls == ["first", "second"]

    def test_runs_in_the_context_of_the_callback(self, loop: asyncio.AbstractEventLoop) -> None:
        """Since 3.12 the handler sees the variables of what failed (sentry reads them)."""
        import contextvars

        from backends import PY312

        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
        seen: list[str] = []
        loop.set_exception_handler(lambda *_: seen.append(variable.get()))

        def broken() -> None:
            variable.set("inside")
            raise ValueError

        loop.call_soon(broken)
        turn(loop)
        assert seen == (["inside"] if PY312 else ["unset"])

    def test_runs_in_the_context_of_the_task(self, loop: asyncio.AbstractEventLoop) -> None:
        import contextvars
        import gc

        from backends import PY312

        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
        seen: list[str] = []
        loop.set_exception_handler(lambda *_: seen.append(variable.get()))

        async def broken() -> None:
            variable.set("inside")
            raise ValueError

        task = loop.create_task(broken())
        turn(loop)
        del task
        gc.collect()
        assert seen == (["inside"] if PY312 else ["unset"])


class TestDefaultHandler:
    def test_without_a_message(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        loop.call_exception_handler({})
        assert [record.getMessage() for record in caplog.records] == [
            "Unhandled exception in event loop"
        ]
        assert caplog.records[0].levelno == logging.ERROR
        assert caplog.records[0].name == "asyncio"
        assert not caplog.records[0].exc_info

    def test_with_an_exception(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        error = ValueError("own")
        loop.call_exception_handler({"message": "hello", "exception": error})
        assert caplog.records[0].getMessage() == "hello"
        assert caplog.records[0].exc_info is not None
        assert caplog.records[0].exc_info[1] is error

    def test_called_directly(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        loop.default_exception_handler({"message": "direct"})
        assert [record.getMessage() for record in caplog.records] == ["direct"]

    def test_a_context_whose_repr_fails(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken:
            def __repr__(self) -> str:
                raise ZeroDivisionError

        loop.call_exception_handler({"message": "hello", "thing": Broken()})
        assert [record.getMessage() for record in caplog.records] == [
            "Exception in default exception handler"
        ]
