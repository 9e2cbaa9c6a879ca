"""What is reported when nobody looks: exceptions never retrieved, tasks destroyed while pending."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import Any

import pytest
from backends import Backend
from turns import turn

Reports = list[dict[str, Any]]


async def fail() -> None:
    raise LookupError("nobody asks")


class TestNeverRetrieved:
    @pytest.mark.outside_debug
    def test_future(self, loop: asyncio.AbstractEventLoop, reports: Reports) -> None:
        future = loop.create_future()
        error = LookupError("nobody asks")
        future.set_exception(error)
        assert future._log_traceback is True
        text = repr(future)
        del future
        gc.collect()
        assert len(reports) == 1
        assert set(reports[0]) == {"message", "exception", "future"}
        assert reports[0]["message"] == "Future exception was never retrieved"
        assert reports[0]["exception"] is error
        assert repr(reports[0]["future"]) == text

    @pytest.mark.outside_debug
    def test_task(self, loop: asyncio.AbstractEventLoop, reports: Reports) -> None:
        task = loop.create_task(fail())
        turn(loop)
        text = repr(task)
        del task
        gc.collect()
        assert len(reports) == 1
        assert set(reports[0]) == {"message", "exception", "future"}
        assert reports[0]["message"] == "Task exception was never retrieved"
        assert isinstance(reports[0]["exception"], LookupError)
        assert repr(reports[0]["future"]) == text

    def test_subclasses_are_named(
        self, loop: asyncio.AbstractEventLoop, backend: Backend, reports: Reports
    ) -> None:
        class MyFuture(backend.Future):  # type: ignore[misc, name-defined]
            pass

        class MyTask(backend.Task):  # type: ignore[misc, name-defined]
            pass

        MyFuture(loop=loop).set_exception(LookupError())
        gc.collect()
        task = MyTask(fail(), loop=loop)
        turn(loop)
        del task
        gc.collect()
        assert [report["message"] for report in reports] == [
            "MyFuture exception was never retrieved",
            "MyTask exception was never retrieved",
        ]

    @pytest.mark.parametrize("how", ["result", "exception", "await", "flag", "callback"])
    def test_not_when_retrieved(
        self, loop: asyncio.AbstractEventLoop, reports: Reports, how: str
    ) -> None:
        async def main() -> None:
            future = loop.create_future()
            if how == "callback":
                future.add_done_callback(lambda f: f.exception())
            future.set_exception(LookupError())
            if how == "result":
                with pytest.raises(LookupError):
                    future.result()
            elif how == "exception":
                future.exception()
            elif how == "await":
                with pytest.raises(LookupError):
                    await future
            elif how == "flag":
                future._log_traceback = False
            await asyncio.sleep(0)

        loop.run_until_complete(main())
        gc.collect()
        assert reports == []

    def test_not_when_cancelled_or_done(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        loop.create_future().cancel()
        loop.create_future().set_result(1)
        loop.create_future()
        gc.collect()
        assert reports == []

    def test_cancelling_what_failed_counts_as_asking(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        task = loop.create_task(fail())
        turn(loop)
        assert task._log_traceback is True
        assert task.cancel() is False
        assert task._log_traceback is False
        del task
        future = loop.create_future()
        future.set_exception(LookupError())
        future.cancel()
        del future
        gc.collect()
        assert reports == []

    def test_not_for_a_task_whose_waiter_was_told(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        async def main() -> None:
            with pytest.raises(LookupError):
                await loop.create_task(fail())

        loop.run_until_complete(main())
        gc.collect()
        assert reports == []

    def test_run_until_complete_retrieves(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        with pytest.raises(LookupError):
            loop.run_until_complete(fail())
        gc.collect()
        assert reports == []

    def test_a_waiter_that_left(self, loop: asyncio.AbstractEventLoop, reports: Reports) -> None:
        """The waiter was cancelled before the task failed: nobody heard."""

        async def failing() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            raise LookupError

        async def waiting(inner: asyncio.Task[None]) -> None:
            await asyncio.shield(inner)

        task = loop.create_task(failing())
        waiter = loop.create_task(waiting(task))
        turn(loop)
        waiter.cancel()
        turn(loop, 4)
        assert waiter.cancelled()
        del task
        gc.collect()
        # shield itself tells the handler, through a callback; then the task is counted as heard.
        assert len(reports) <= 1

    def test_source_traceback_in_debug(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        loop.set_debug(True)
        loop.create_future().set_exception(LookupError())
        gc.collect()
        turn(loop)
        assert set(reports[0]) == {"message", "exception", "future", "source_traceback"}
        names = [frame.name for frame in reports[0]["source_traceback"]]
        assert "test_source_traceback_in_debug" in names

    def test_in_a_cycle(self, loop: asyncio.AbstractEventLoop, reports: Reports) -> None:
        class Thing:
            pass

        thing = Thing()
        thing.future = loop.create_future()  # type: ignore[attr-defined]
        error = LookupError()
        error.thing = thing  # type: ignore[attr-defined]
        thing.future.set_exception(error)  # type: ignore[attr-defined]
        alive = weakref.ref(thing)
        del thing, error
        gc.collect()
        assert len(reports) == 1
        # The report has a hold on the future; with it gone, nothing keeps the cycle.
        reports.clear()
        gc.collect()
        assert alive() is None

    def test_handler_that_keeps_the_future(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        """Resurrected by the handler: alive and well, and not reported again."""
        kept: list[Any] = []
        loop.set_exception_handler(lambda _, context: kept.append(context["future"]))
        loop.create_future().set_exception(LookupError("kept"))
        gc.collect()
        assert len(kept) == 1
        assert kept[0].done()
        assert str(kept[0].exception()) == "kept"
        kept.clear()
        gc.collect()
        assert kept == []

    def test_handler_that_asks_the_future(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        seen: list[Any] = []
        loop.set_exception_handler(
            lambda _, context: seen.append(
                (context["future"].exception(), context["future"].cancel())
            )
        )
        error = LookupError()
        loop.create_future().set_exception(error)
        gc.collect()
        assert seen == [(error, False)]

    def test_handler_that_makes_more_of_it(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        left = 5

        def handler(loop_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            nonlocal left
            left -= 1
            if left:
                loop_.create_future().set_exception(LookupError())

        loop.set_exception_handler(handler)
        loop.create_future().set_exception(LookupError())
        gc.collect()
        assert left == 0

    def test_the_pending_error_survives(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        """The destructor runs while another exception is on its way: that one must go on."""

        def work() -> None:
            future = loop.create_future()
            future.set_exception(KeyError())
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError) as caught:
            work()
        assert caught.value.__context__ is None
        del caught
        gc.collect()
        assert len(reports) == 1

    def test_loop_closed_before(self, backend: Backend, reports: Reports) -> None:
        loop = backend.new_event_loop()
        future = loop.create_future()
        future.set_exception(LookupError())
        loop.close()
        del future
        gc.collect()
        assert len(reports) == 1


class TestDestroyedPending:
    @pytest.mark.outside_debug
    def test_context(self, loop: asyncio.AbstractEventLoop, reports: Reports) -> None:
        async def wait() -> None:
            await loop.create_future()

        task = loop.create_task(wait(), name="left alone")
        turn(loop)
        alive = weakref.ref(task)
        del task
        gc.collect()
        assert len(reports) == 1
        assert set(reports[0]) == {"message", "task"}
        assert reports[0]["message"] == "Task was destroyed but it is pending!"
        # The collector may have closed the coroutine first.
        assert repr(reports[0]["task"]).startswith("<Task pending name='left alone' coro=<")
        reports.clear()
        gc.collect()
        assert alive() is None

    def test_source_traceback_in_debug(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        loop.set_debug(True)

        async def wait() -> None:
            await loop.create_future()

        task = loop.create_task(wait())
        turn(loop)
        del task
        gc.collect()
        assert len(reports) == 1
        assert set(reports[0]) == {"message", "task", "source_traceback"}
        names = [frame.name for frame in reports[0]["source_traceback"]]
        assert "test_source_traceback_in_debug" in names
        reports.clear()
        gc.collect()

    def test_the_coroutine_ends(self, loop: asyncio.AbstractEventLoop, reports: Reports) -> None:
        """Its `finally` runs when the coroutine is destroyed, with a GeneratorExit."""
        seen: list[str] = []

        async def wait() -> None:
            try:
                await loop.create_future()
            except BaseException as error:
                seen.append(type(error).__name__)
                raise
            finally:
                seen.append("finally")

        task = loop.create_task(wait())
        turn(loop)
        del task
        gc.collect()
        reports.clear()
        gc.collect()
        assert seen == ["GeneratorExit", "finally"]

    def test_never_started(self, loop: asyncio.AbstractEventLoop, reports: Reports) -> None:
        """The loop is closed with the first step still ahead."""
        coro = fail()
        task = loop.create_task(coro)
        loop.close()
        del task
        gc.collect()
        assert [report["message"] for report in reports] == [
            "Task was destroyed but it is pending!"
        ]
        coro.close()

    def test_silenced(self, loop: asyncio.AbstractEventLoop, reports: Reports) -> None:
        async def wait() -> None:
            await loop.create_future()

        task = loop.create_task(wait())
        turn(loop)
        task._log_destroy_pending = False
        del task
        gc.collect()
        assert reports == []

    def test_a_pending_future_is_not_reported(
        self, loop: asyncio.AbstractEventLoop, reports: Reports
    ) -> None:
        future = loop.create_future()
        future.add_done_callback(print)
        del future
        gc.collect()
        assert reports == []

    def test_gathered(self, loop: asyncio.AbstractEventLoop, reports: Reports) -> None:
        async def wait() -> None:
            await loop.create_future()

        async def main() -> None:
            await asyncio.gather(*(wait() for _ in range(3)))

        task = loop.create_task(main())
        turn(loop, 2)
        del task
        gc.collect()
        # Closing the coroutine of the first may let the others end.
        assert {report["message"] for report in reports} == {
            "Task was destroyed but it is pending!"
        }
        reports.clear()
        gc.collect()

    def test_handler_that_keeps_the_task(self, loop: asyncio.AbstractEventLoop) -> None:
        kept: list[Any] = []
        loop.set_exception_handler(lambda _, context: kept.append(context.get("task")))

        async def wait() -> None:
            await loop.create_future()

        task = loop.create_task(wait(), name="phoenix")
        turn(loop)
        del task
        gc.collect()
        assert len(kept) == 1
        assert kept[0].get_name() == "phoenix"
        assert not kept[0].done()
        # Reported once, not again when it goes for good.
        kept.clear()
        gc.collect()
        assert kept == []


class TestLog:
    """Through the default handler, into the log: the words that people search for."""

    @pytest.mark.outside_debug
    def test_future(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        future = loop.create_future()
        try:
            raise LookupError("nobody asks")
        except LookupError as error:
            future.set_exception(error)
        text = repr(future)
        del future
        gc.collect()
        records = [record for record in caplog.records if record.name == "asyncio"]
        assert len(records) == 1
        assert records[0].levelno == logging.ERROR
        assert records[0].getMessage() == f"Future exception was never retrieved\nfuture: {text}"
        assert records[0].exc_info is not None
        assert records[0].exc_info[0] is LookupError

    @pytest.mark.outside_debug
    def test_callback(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken() -> None:
            raise LookupError("broken")

        handle = loop.call_soon(broken)
        text = repr(handle)
        turn(loop)
        records = [record for record in caplog.records if record.name == "asyncio"]
        assert len(records) == 1
        # "<Handle name() at file:line>" and "name() at file:line".
        what = text.removeprefix("<Handle ").removesuffix(">")
        assert records[0].getMessage() == f"Exception in callback {what}\nhandle: {text}"
        assert records[0].exc_info is not None
        assert records[0].exc_info[0] is LookupError

    @pytest.mark.outside_debug
    def test_pending(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def wait() -> None:
            await loop.create_future()

        task = loop.create_task(wait(), name="left alone")
        turn(loop)
        del task
        gc.collect()
        messages = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
        assert len(messages) == 1
        assert messages[0].startswith(
            "Task was destroyed but it is pending!\ntask: <Task pending name='left alone' coro=<"
        )

    def test_debug_says_where_it_was_made(
        self, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        loop.set_debug(True)
        loop.create_future().set_exception(LookupError())
        gc.collect()
        messages = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
        assert len(messages) == 1
        assert "Object created at (most recent call last):" in messages[0]
        assert "test_debug_says_where_it_was_made" in messages[0]
