"""Future: state, results, exceptions, waiting, and what it says about misuse."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import pickle
import sys
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest
from backends import PY315, Backend
from turns import raised, turn

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class TestShape:
    def test_type(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        future = loop.create_future()
        assert type(future) is backend.Future
        assert isinstance(future, asyncio.Future)
        assert asyncio.isfuture(future)
        assert isinstance(future, Awaitable)
        assert not isinstance(future, Generator)
        assert not isinstance(future, concurrent.futures.Future)
        assert type(future).__name__ == "Future"
        assert issubclass(backend.Future, asyncio.Future)
        assert not asyncio.iscoroutine(future)
        assert not hasattr(future, "__dict__") or future.__dict__ == {}

    def test_class_getitem(self, backend: Backend) -> None:
        alias = backend.Future[int]
        assert isinstance(alias, types.GenericAlias)
        assert alias.__origin__ is backend.Future
        assert alias.__args__ == (int,)
        task = backend.Task[str]
        assert isinstance(task, types.GenericAlias)
        assert task.__origin__ is backend.Task

    def test_constructor(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        future = backend.Future(loop=loop)
        assert future.get_loop() is loop
        assert not future.done()
        with pytest.raises(TypeError):
            backend.Future(loop)  # type: ignore[misc]
        with pytest.raises(TypeError):
            backend.Future(colour="red")  # type: ignore[call-arg]

    def test_constructor_with_something_else_for_a_loop(self, backend: Backend) -> None:
        error, message = raised(backend.Future, loop=object())
        assert error is AttributeError
        assert message == "'object' object has no attribute 'get_debug'"

    def test_a_loop_of_ones_own(self, backend: Backend) -> None:
        """Anything that has get_debug, call_soon and call_exception_handler serves as a loop."""
        calls: list[tuple[Any, ...]] = []

        class Minimal:
            def get_debug(self) -> bool:
                return False

            def call_soon(self, callback: Any, *arguments: Any, context: Any = None) -> None:
                calls.append((callback, *arguments))

        future = backend.Future(loop=Minimal())  # type: ignore[arg-type]
        future.add_done_callback(print)
        future.set_result(1)
        assert calls == [(print, future)]

    def test_initialised_again(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        future = backend.Future(loop=loop)
        future.set_result(1)
        if PY315:
            error, message = raised(future.__init__, loop=loop)  # type: ignore[misc]
            assert error is RuntimeError
            assert message.endswith("Future object is already initialized")
            assert future.result() == 1
            return
        future.__init__(loop=loop)  # type: ignore[misc]
        assert not future.done()
        future.set_result(2)
        assert future.result() == 2

    def test_not_initialised(self, backend: Backend) -> None:
        """`__new__` without `__init__`: an exception from every method, never a crash."""
        future = backend.Future.__new__(backend.Future)
        calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
            (future.result, ()),
            (future.exception, ()),
            (future.set_result, (1,)),
            (future.set_exception, (ValueError(),)),
            (future.add_done_callback, (print,)),
            (future.get_loop, ()),
        ]
        for call, arguments in calls:
            error, message = raised(call, *arguments)
            assert error in (RuntimeError, asyncio.InvalidStateError)
            if error is RuntimeError:
                assert message in (
                    "uninitialized Future object",
                    "Future object is not initialized.",
                )
        assert future.done() is False
        assert future.cancelled() is False
        for attribute in (
            "_loop",
            "_callbacks",
            "_state",
            "_exception",
            "_result",
            "_source_traceback",
            "_log_traceback",
            "_asyncio_future_blocking",
            "_cancel_message",
        ):
            try:
                getattr(future, attribute)
            except RuntimeError:
                continue
        del future, call, calls
        gc.collect()

    def test_weakref(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        dead: list[Any] = []
        alive = weakref.ref(future, dead.append)
        assert alive() is future
        del future
        assert alive() is None
        assert dead == [alive]

    def test_hash_is_identity(self, loop: asyncio.AbstractEventLoop) -> None:
        one, two = loop.create_future(), loop.create_future()
        assert one != two
        assert len({one, two, one}) == 2

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_cannot_be_pickled(self, loop: asyncio.AbstractEventLoop, protocol: int) -> None:
        future = loop.create_future()
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(future, protocol)

    def test_cannot_be_copied(self, loop: asyncio.AbstractEventLoop) -> None:
        for function in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                function(loop.create_future())

    @pytest.mark.outside_debug
    def test_attributes_that_libraries_read(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        assert future._loop is loop
        assert future._callbacks is None
        assert future._state == "PENDING"
        assert future._exception is None
        assert future._result is None
        assert future._source_traceback is None
        assert future._asyncio_future_blocking is False
        assert future._log_traceback is False
        assert future._cancel_message is None
        future.set_result(5)
        assert future._state == "FINISHED"
        assert future._result == 5

    def test_attributes_that_may_be_set(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future._asyncio_future_blocking = True
        assert future._asyncio_future_blocking is True
        future._asyncio_future_blocking = False
        future._log_traceback = False
        error, message = raised(setattr, future, "_log_traceback", True)
        assert (error, message) == (ValueError, "_log_traceback can only be set to False")
        future._cancel_message = "why"
        assert future._cancel_message == "why"

    def test_attributes_that_may_not_be_set(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        for name in ("_loop", "_state", "_result", "_exception", "_callbacks"):
            with pytest.raises(AttributeError):
                setattr(future, name, None)

    def test_attributes_cannot_be_deleted(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        for name in ("_log_traceback", "_asyncio_future_blocking", "_cancel_message"):
            with pytest.raises(AttributeError):
                delattr(future, name)

    def test_new_attributes_are_as_on_stock(self, loop: asyncio.AbstractEventLoop) -> None:
        """A stock Future takes no attribute of one's own; neither may ours lose one silently."""
        future = loop.create_future()
        try:
            future.colour = "red"  # type: ignore[attr-defined]
        except AttributeError:
            return
        assert future.colour == "red"  # type: ignore[attr-defined]


class TestResult:
    @pytest.mark.parametrize("value", [None, 0, 1, "text", (), (1, 2), [], StopIteration(3)])
    def test_any_value(self, loop: asyncio.AbstractEventLoop, value: Any) -> None:
        future = loop.create_future()
        assert future.set_result(value) is None
        assert future.done() is True
        assert future.cancelled() is False
        assert future.result() is value
        assert future.result() is value
        assert future.exception() is None
        assert loop.run_until_complete(future) is value

    def test_not_set(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        assert raised(future.result) == (asyncio.InvalidStateError, "Result is not set.")
        assert raised(future.exception) == (asyncio.InvalidStateError, "Exception is not set.")

    def test_set_twice(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.set_result(1)
        for call in (
            lambda: future.set_result(2),
            lambda: future.set_exception(ValueError()),
        ):
            error, message = raised(call)
            assert error is asyncio.InvalidStateError
            assert message == "invalid state"
        assert future.result() == 1
        assert future.cancel() is False
        assert not future.cancelled()

    def test_needs_a_value(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        with pytest.raises(TypeError):
            future.set_result()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            future.set_result(1, 2)  # type: ignore[call-arg]
        assert not future.done()

    def test_is_dropped_with_the_future(self, loop: asyncio.AbstractEventLoop) -> None:
        class Thing:
            pass

        thing = Thing()
        alive = weakref.ref(thing)
        future = loop.create_future()
        future.set_result(thing)
        del thing
        assert alive() is not None
        del future
        assert alive() is None

    def test_awaited_result_is_not_kept_alive(self, run: Run) -> None:
        """Neither a recycled StopIteration nor an iterator may hold the last result."""

        class Thing:
            pass

        async def main() -> None:
            loop = asyncio.get_running_loop()
            thing = Thing()
            alive = weakref.ref(thing)
            for ready in (True, False):
                future = loop.create_future()
                if ready:
                    future.set_result(thing)
                else:
                    loop.call_soon(future.set_result, thing)
                assert await future is thing
                del future
            del thing
            await asyncio.sleep(0)
            assert alive() is None

        run(main())


class TestException:
    def test_instance(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        error = LookupError("no")
        assert future.set_exception(error) is None
        assert future.done()
        assert future.exception() is error
        with pytest.raises(LookupError) as caught:
            future.result()
        assert caught.value is error

    def test_class(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.set_exception(ZeroDivisionError)
        assert type(future.exception()) is ZeroDivisionError

    def test_class_that_cannot_be_made(self, loop: asyncio.AbstractEventLoop) -> None:
        class Needy(Exception):
            def __init__(self, needed: int) -> None:
                pass

        future = loop.create_future()
        with pytest.raises(TypeError):
            future.set_exception(Needy)
        assert not future.done()

    @pytest.mark.parametrize("thing", [1, "text", None, int, object()])
    def test_not_an_exception(self, loop: asyncio.AbstractEventLoop, thing: Any) -> None:
        future = loop.create_future()
        error, message = raised(future.set_exception, thing)
        assert error is TypeError
        # The class is called first, whatever it is.
        what = repr(thing() if isinstance(thing, type) else thing)
        assert message in ("invalid exception object", f"invalid exception object: {what}")
        assert not future.done()

    @pytest.mark.parametrize("as_class", [False, True])
    def test_stop_iteration(self, loop: asyncio.AbstractEventLoop, as_class: bool) -> None:
        """Refused at first, wrapped since 3.12.2: it cannot be raised into a generator."""
        future = loop.create_future()
        thing = StopIteration if as_class else StopIteration(12)
        message = "StopIteration interacts badly with generators and cannot be raised into a Future"
        if sys.version_info < (3, 12, 2):
            assert raised(future.set_exception, thing) == (TypeError, message)
            assert not future.done()
            return
        future.set_exception(thing)
        error = future.exception()
        assert isinstance(error, RuntimeError)
        assert str(error) == message
        assert isinstance(error.__cause__, StopIteration)
        assert isinstance(error.__context__, StopIteration)

    def test_stop_iteration_subclass(self, loop: asyncio.AbstractEventLoop) -> None:
        class Mine(StopIteration):
            pass

        future, stock = loop.create_future(), asyncio.Future(loop=loop)
        outcomes = []
        for each in (future, stock):
            try:
                each.set_exception(Mine(1))
            except TypeError as error:
                outcomes.append(str(error))
                continue
            outcomes.append(repr(each.exception()))
        assert outcomes[0] == outcomes[1]

    def test_stop_async_iteration_is_fine(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.set_exception(StopAsyncIteration(1))
        with pytest.raises(StopAsyncIteration):
            loop.run_until_complete(future)

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, BaseException])
    def test_base_exceptions_are_stored(
        self, loop: asyncio.AbstractEventLoop, kind: type[BaseException]
    ) -> None:
        future = loop.create_future()
        future.set_exception(kind)
        assert type(future.exception()) is kind
        with pytest.raises(kind):
            future.result()

    def test_cancelled_error_as_an_exception(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stored like any other: the future is done, and not cancelled."""
        future = loop.create_future()
        future.set_exception(asyncio.CancelledError("text"))
        assert future.done()
        assert not future.cancelled()
        with pytest.raises(asyncio.CancelledError, match="text"):
            future.result()

    def test_traceback_does_not_grow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Each `result()` starts again from the traceback that the exception came with."""
        future = loop.create_future()
        try:
            raise ValueError
        except ValueError as error:
            future.set_exception(error)

        def depth() -> int:
            try:
                future.result()
            except ValueError as error:
                count, entry = 0, error.__traceback__
                while entry is not None:
                    count, entry = count + 1, entry.tb_next
                return count
            return 0

        depths = [depth() for _ in range(5)]
        assert max(depths) <= 2
        assert len(set(depths[1:])) == 1

    def test_awaiting_twice_raises_the_same(self, run: Run) -> None:
        async def main() -> None:
            future = asyncio.get_running_loop().create_future()
            error = LookupError()
            future.set_exception(error)
            for _ in range(3):
                with pytest.raises(LookupError) as caught:
                    await future
                assert caught.value is error

        run(main())


class TestCancel:
    def test_pending(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        assert future.cancel() is True
        assert future.done() is True
        assert future.cancelled() is True
        assert future._state == "CANCELLED"
        assert future.cancel() is False
        for call in (future.result, future.exception):
            with pytest.raises(asyncio.CancelledError) as caught:
                call()
            assert caught.value.args == ()

    def test_done(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.set_result(1)
        assert future.cancel() is False
        assert future.cancelled() is False

    def test_setting_a_cancelled_one(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.cancel()
        assert raised(future.set_result, 1) == (asyncio.InvalidStateError, "invalid state")
        assert raised(future.set_exception, ValueError()) == (
            asyncio.InvalidStateError,
            "invalid state",
        )

    @pytest.mark.parametrize(
        ("message", "arguments"),
        [(None, ()), ("text", ("text",)), ("", ("",)), (0, (0,)), ((1, 2), ((1, 2),))],
    )
    def test_message(
        self, loop: asyncio.AbstractEventLoop, message: Any, arguments: tuple[Any, ...]
    ) -> None:
        for keyword in (False, True):
            future = loop.create_future()
            assert future.cancel(msg=message) if keyword else future.cancel(message)
            assert future._cancel_message == message
            with pytest.raises(asyncio.CancelledError) as caught:
                loop.run_until_complete(future)
            assert caught.value.args == arguments

    def test_message_is_only_raised_once_with_its_traceback(
        self, loop: asyncio.AbstractEventLoop
    ) -> None:
        """A second `result()` raises a CancelledError of its own, with the same message."""
        future = loop.create_future()
        future.cancel("text")
        errors = []
        for _ in range(2):
            with pytest.raises(asyncio.CancelledError) as caught:
                future.result()
            errors.append(caught.value)
        assert errors[0] is not errors[1]
        assert [error.args for error in errors] == [("text",), ("text",)]

    def test_make_cancelled_error(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.cancel("text")
        error = future._make_cancelled_error()
        assert isinstance(error, asyncio.CancelledError)
        assert error.args == ("text",)


class TestAwait:
    def test_done_does_not_suspend(self, loop: asyncio.AbstractEventLoop) -> None:
        async def main() -> int:
            future = loop.create_future()
            future.set_result(5)
            return await future

        coro = main()
        with pytest.raises(StopIteration) as caught:
            coro.send(None)
        assert caught.value.value == 5

    def test_pending_yields_itself(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        for make in (future.__await__, future.__iter__):
            iterator = make()
            assert iterator.send(None) is future
            assert future._asyncio_future_blocking is True
            # Whoever drives the iterator has to clear the flag, and to wait for the future.
            error, message = raised(iterator.send, None)
            assert (error, message) == (RuntimeError, "await wasn't used with future")
            future._asyncio_future_blocking = False

    def test_iterator(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        iterator = future.__await__()
        assert iter(iterator) is iterator
        assert next(iterator) is future
        future.set_result("value")
        with pytest.raises(StopIteration) as caught:
            next(iterator)
        assert caught.value.value == "value"
        # Used up; 3.14 says the value again.
        with pytest.raises(StopIteration) as caught:
            next(iterator)
        assert caught.value.value in (None, "value")

    @pytest.mark.parametrize(
        "value", [None, 1, (), (1,), (1, 2), StopIteration(), ValueError(), ValueError]
    )
    def test_odd_values_come_through_stop_iteration(
        self, loop: asyncio.AbstractEventLoop, value: Any
    ) -> None:
        """Tuples and exceptions are what a carelessly made StopIteration unpacks or raises."""
        future = loop.create_future()
        future.set_result(value)
        with pytest.raises(StopIteration) as caught:
            next(future.__await__())
        assert caught.value.value is value

        async def main() -> Any:
            return await future

        assert loop.run_until_complete(main()) is value

        def old_style() -> Generator[Any, None, Any]:
            return (yield from future)

        with pytest.raises(StopIteration) as caught:
            next(old_style())
        assert caught.value.value is value

    def test_iterator_close(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        iterator = future.__await__()
        next(iterator)
        assert iterator.close() is None  # type: ignore[attr-defined]
        future.cancel()

    def test_iterator_throw(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        error = LookupError("thrown")
        iterator = future.__await__()
        next(iterator)
        with pytest.raises(LookupError) as caught:
            iterator.throw(error)  # type: ignore[attr-defined]
        assert caught.value is error
        future.cancel()

    def test_iterator_throw_misuse(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        for thing in (1, "text", None, object):
            future._asyncio_future_blocking = False
            iterator = future.__await__()
            next(iterator)
            with pytest.raises(TypeError):
                iterator.throw(thing)  # type: ignore[attr-defined]
        future.cancel()

    def test_iterator_throw_of_a_class(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        iterator = future.__await__()
        next(iterator)
        with pytest.raises(ZeroDivisionError):
            iterator.throw(ZeroDivisionError)  # type: ignore[attr-defined]
        future.cancel()

    def test_iterator_before_it_started(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        iterator = future.__await__()
        with pytest.raises(LookupError):
            iterator.throw(LookupError())  # type: ignore[attr-defined]
        iterator = future.__await__()
        iterator.close()  # type: ignore[attr-defined]

    def test_many_waiters_wake_in_order(self, run: Run) -> None:
        async def main() -> list[int]:
            future = asyncio.get_running_loop().create_future()
            seen: list[int] = []

            async def wait(number: int) -> None:
                assert await future == "value"
                seen.append(number)

            tasks = [asyncio.ensure_future(wait(number)) for number in range(100)]
            await asyncio.sleep(0)
            future.set_result("value")
            assert seen == []
            await asyncio.gather(*tasks)
            return seen

        assert run(main()) == list(range(100))

    def test_waiters_and_callbacks_keep_one_order(self, run: Run) -> None:
        async def main() -> list[str]:
            future = asyncio.get_running_loop().create_future()
            seen: list[str] = []

            async def wait(name: str) -> None:
                await future
                seen.append(name)

            tasks = []
            for number in range(3):
                tasks.append(asyncio.ensure_future(wait(f"task {number}")))
                await asyncio.sleep(0)
                future.add_done_callback(lambda _, n=number: seen.append(f"callback {n}"))
            future.set_result(None)
            await asyncio.gather(*tasks)
            return seen

        expected = [f"{kind} {n}" for n in range(3) for kind in ("task", "callback")]
        assert run(main()) == expected

    def test_awaiting_in_a_stock_task(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()

        async def main() -> str:
            return str(await future)

        task = asyncio.Task(main(), loop=loop)
        loop.call_soon(future.set_result, "value")
        assert loop.run_until_complete(task) == "value"


class TestRepr:
    @pytest.mark.outside_debug
    def test_states(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        assert repr(future) == "<Future pending>"
        future.set_result([1, "two"])
        assert repr(future) == "<Future finished result=[1, 'two']>"
        future = loop.create_future()
        future.set_exception(ValueError("no"))
        assert repr(future) == "<Future finished exception=ValueError('no')>"
        future.exception()
        future = loop.create_future()
        future.cancel()
        assert repr(future) == "<Future cancelled>"

    def test_long_result_is_cut(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.set_result("a" * 10000)
        assert len(repr(future)) < 200

    @pytest.mark.outside_debug
    def test_callbacks(self, loop: asyncio.AbstractEventLoop) -> None:
        def one(_: Any) -> None:
            pass

        def named(function: Any) -> str:
            code = function.__code__
            return f"{function.__qualname__}() at {code.co_filename}:{code.co_firstlineno}"

        future = loop.create_future()
        expected = named(one)
        future.add_done_callback(one)
        assert repr(future) == f"<Future pending cb=[{expected}]>"
        future.add_done_callback(one)
        assert repr(future) == f"<Future pending cb=[{expected}, {expected}]>"
        future.add_done_callback(one)
        assert repr(future) == f"<Future pending cb=[{expected}, <1 more>, {expected}]>"
        future.add_done_callback(one)
        assert repr(future) == f"<Future pending cb=[{expected}, <2 more>, {expected}]>"
        future.cancel()
        assert repr(future) == "<Future cancelled>"
        turn(loop)

    def test_debug_says_where_it_was_made(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_debug(True)
        future = loop.create_future()
        assert repr(future).startswith("<Future pending created at ")
        assert __file__ in repr(future) or "base_events.py" in repr(future)

    def test_recursive(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        future.set_result([future])
        assert repr(future) == "<Future finished result=[<Future finis...lt=[...]>]>" or (
            "..." in repr(future)
        )

    def test_result_whose_repr_fails(self, loop: asyncio.AbstractEventLoop) -> None:
        class Broken:
            def __repr__(self) -> str:
                raise ZeroDivisionError

        future = loop.create_future()
        future.set_result(Broken())
        text = repr(future)
        assert text.startswith("<Future finished result=<Broken instance at ")

    @pytest.mark.outside_debug
    def test_subclass_name(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        class Mine(backend.Future):  # type: ignore[misc, name-defined]
            pass

        assert repr(Mine(loop=loop)) == "<Mine pending>"


class TestFunctions:
    """asyncio's module functions on both kinds."""

    def test_ensure_future_returns_the_same(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        assert asyncio.ensure_future(future) is future
        assert asyncio.ensure_future(future, loop=loop) is future

    def test_ensure_future_of_another_loop(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        other = backend.new_event_loop()
        assert raised(asyncio.ensure_future, loop.create_future(), loop=other) == (
            ValueError,
            "The future belongs to a different loop than the one specified as the loop argument",
        )
        other.close()

    def test_ensure_future_of_a_coroutine(
        self, loop: asyncio.AbstractEventLoop, backend: Backend
    ) -> None:
        async def answer() -> int:
            return 42

        task = asyncio.ensure_future(answer(), loop=loop)
        assert type(task) is backend.Task
        assert loop.run_until_complete(task) == 42

    def test_wrap_future(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        source: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = asyncio.wrap_future(source, loop=loop)
        assert type(future) is backend.Future
        source.set_result(3)
        assert loop.run_until_complete(future) == 3

    def test_wrap_future_cancels_its_source(self, loop: asyncio.AbstractEventLoop) -> None:
        source: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = asyncio.wrap_future(source, loop=loop)
        future.cancel()
        turn(loop)
        assert source.cancelled()

    def test_wrap_future_is_cancelled_by_its_source(self, loop: asyncio.AbstractEventLoop) -> None:
        source: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = asyncio.wrap_future(source, loop=loop)
        source.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(future)

    def test_wrap_future_translates_exceptions(self, loop: asyncio.AbstractEventLoop) -> None:
        for thrown, expected in (
            (concurrent.futures.TimeoutError("late"), TimeoutError),
            (concurrent.futures.InvalidStateError("bad"), asyncio.InvalidStateError),
            (concurrent.futures.CancelledError("gone"), asyncio.CancelledError),
            (ValueError("own"), ValueError),
        ):
            source: concurrent.futures.Future[int] = concurrent.futures.Future()
            future = asyncio.wrap_future(source, loop=loop)
            source.set_exception(thrown)
            with pytest.raises(expected) as caught:
                loop.run_until_complete(future)
            assert caught.value.args == thrown.args

    def test_wrap_future_of_one_of_ours(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        assert asyncio.wrap_future(future) is future
        error, _ = raised(asyncio.wrap_future, 1, loop=loop)
        assert error is AssertionError

    def test_wrap_future_whose_loop_closed(self, backend: Backend) -> None:
        loop = backend.new_event_loop()
        source: concurrent.futures.Future[int] = concurrent.futures.Future()
        future = asyncio.wrap_future(source, loop=loop)
        loop.close()
        source.set_result(1)
        assert not future.done()

    def test_isfuture_of_ducks(self) -> None:
        class Duck:
            _asyncio_future_blocking = False

        assert asyncio.isfuture(Duck())
        assert not asyncio.isfuture(Duck)
        assert not asyncio.isfuture(None)

    def test_shield_gather_wait(self, run: Run) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            futures = [loop.create_future() for _ in range(3)]
            for number, future in enumerate(futures):
                loop.call_soon(future.set_result, number)
            assert await asyncio.shield(futures[0]) == 0
            assert await asyncio.gather(*futures) == [0, 1, 2]
            done, pending = await asyncio.wait(futures)
            assert done == set(futures)
            assert pending == set()
            assert len([await each for each in asyncio.as_completed(futures)]) == 3

        run(main())


class TestGarbage:
    def test_cycles_are_collected(self, loop: asyncio.AbstractEventLoop) -> None:
        class Thing:
            pass

        alive = []
        for tie in ("result", "callback", "exception", "cancel message"):
            thing = Thing()
            alive.append(weakref.ref(thing))
            future = loop.create_future()
            thing.future = future  # type: ignore[attr-defined]
            if tie == "result":
                future.set_result(thing)
            elif tie == "callback":
                future.add_done_callback(lambda _, thing=thing: None)
            elif tie == "exception":
                error = ValueError()
                error.thing = thing  # type: ignore[attr-defined]
                future.set_exception(error)
                future.exception()
                del error
            else:
                future.cancel(thing)
            del thing, future
        gc.collect()
        assert [ref() for ref in alive] == [None] * 4

    def test_iterator_cycles_are_collected(self, loop: asyncio.AbstractEventLoop) -> None:
        class Thing:
            pass

        thing = Thing()
        alive = weakref.ref(thing)
        future = loop.create_future()
        thing.iterator = future.__await__()  # type: ignore[attr-defined]
        future.set_result(thing)
        del thing, future
        gc.collect()
        assert alive() is None

    def test_what_the_collector_sees(self, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        result = [1]
        future.set_result(result)
        assert gc.is_tracked(future)
        referents = gc.get_referents(future)
        assert any(each is result for each in referents)
        assert any(each is loop for each in referents)
