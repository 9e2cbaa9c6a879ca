"""What functions and methods look like: coroutine functions where asyncio's are, and alike."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import pickle
import types
import typing
import weakref
from typing import Any
from unittest import mock

import pytest
import weft
from backends import PY312, PY314
from places import PLACES, Place, name_of
from weft import _primitives

each_place = pytest.mark.parametrize("place", PLACES, ids=name_of)

REPLACED = {own: stock for _, _, stock, own in _primitives._replaced}
"""asyncio's own, where the tests run with Weft's in place."""


def stock(name: str) -> Any:
    own = _primitives.PRIMITIVES[name]
    return REPLACED.get(own, getattr(asyncio, name))


CLASSES = [name for name, own in _primitives.PRIMITIVES.items() if inspect.isclass(own)]
FUNCTIONS = sorted(_primitives.PRIMITIVES.keys() - {*CLASSES})
METHODS = [
    (name, method)
    for name in CLASSES
    for method, value in inspect.getmembers(stock(name), callable)
    if not inspect.isclass(value)
    and (not method.startswith("_") or method in {"__aenter__", "__aexit__", "__anext__"})
]
COROUTINE_METHODS = [
    (name, method)
    for name, method in METHODS
    if inspect.iscoroutinefunction(getattr(stock(name), method))
]


def parameters(function: Any, *, method: bool = False) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults; what a method is bound to may be called as one likes."""
    found = [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]
    return found[1:] if method else found


# -- every name ------------------------------------------------------------------------------------


def test_there_are_some_of_each() -> None:
    assert {"sleep", "wait", "wait_for", "to_thread", "open_connection"} <= {*FUNCTIONS}
    assert ("Queue", "get") in COROUTINE_METHODS
    assert ("StreamWriter", "drain") in COROUTINE_METHODS
    assert ("TaskGroup", "__aexit__") in COROUTINE_METHODS


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    own, original = getattr(_primitives, name), stock(name)
    assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(original)
    assert parameters(own) == parameters(original)
    assert (own.__name__, own.__qualname__) == (name, name)
    assert own.__doc__
    if not PY314:  # deprecated there
        assert asyncio.iscoroutinefunction(own) == asyncio.iscoroutinefunction(original)


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name: str) -> None:
    own = getattr(weft, name)
    assert parameters(own) == parameters(stock(name))
    assert (own.__name__, own.__qualname__, own.__module__) == (name, name, "weft")


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_methods(name: str, method: str) -> None:
    own, original = getattr(getattr(weft, name), method), getattr(stock(name), method)
    assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(original)
    if own is not original:
        assert own.__name__ == method
        if inspect.ismethod(original) or method == "__class_getitem__":
            return
        assert parameters(own, method=True) == parameters(original, method=True)


def test_methods_of_the_loop() -> None:
    kind = asyncio.SelectorEventLoop
    names = [name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")]
    for name in names:
        own, original = getattr(weft.Loop, name), getattr(kind, name)
        assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(original), name


# -- those that stand for functions of asyncio's ---------------------------------------------------


@pytest.mark.parametrize(("name", "method"), COROUTINE_METHODS)
def test_coroutine_methods_are_functions_of_their_class(name: str, method: str) -> None:
    kind = getattr(weft, name)
    function = getattr(kind, method)
    if function is getattr(stock(name), method) or method not in vars(kind):
        return
    assert isinstance(function, types.FunctionType)
    assert function.__qualname__ == f"{name}.{method}"
    assert function.__module__ == "weft"
    assert f"{name}.{method}" in repr(function)
    assert weakref.ref(function)() is function
    assert function is getattr(kind, method)
    with pytest.raises(TypeError):
        function()
    with pytest.raises(TypeError):
        function(object())
    with pytest.raises(AttributeError):
        function.nothing


@pytest.mark.parametrize("function", [weft.sleep, weft.wait, weft.to_thread, weft.wait_for])
def test_functions_are_pickled_and_copied_by_name(function: Any) -> None:
    assert function.__module__ == "weft"
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.copy(function) is function
    assert copy.deepcopy(function) is function
    typing.get_type_hints(function)


def test_methods_are_pickled_and_copied_by_name() -> None:
    for function in (weft.Lock.acquire, weft.Queue.get, weft.LifoQueue.put, weft.Event.wait):
        assert pickle.loads(pickle.dumps(function)) is function
        assert copy.deepcopy(function) is function


def test_bound_methods() -> None:
    lock = weft.Lock()
    for name in ("acquire", "__aenter__", "__aexit__"):
        method = getattr(lock, name)
        assert method.__self__ is lock
        assert method == getattr(lock, name)
        assert method != getattr(weft.Lock(), name)
        assert hash(method) == hash(getattr(lock, name))
        assert inspect.ismethod(method)
        assert inspect.iscoroutinefunction(method)
        assert method.__func__ is getattr(weft.Lock, name)


@each_place
def test_calls_that_do_not_fit(place: Place) -> None:
    own = place.classes
    lock, queue = own.Lock(), own.Queue()
    calls = [
        lambda: own.sleep(),
        lambda: own.sleep(0, 1, 2),
        lambda: own.sleep(0, nothing=1),
        lambda: own.sleep(0, delay=1),
        lambda: own.wait_for(None),
        lambda: own.to_thread(),
        lambda: lock.acquire(1),
        lambda: lock.acquire(blocking=True),
        lambda: own.Lock.acquire(),
        lambda: queue.put(),
        lambda: queue.put(1, 2),
        lambda: queue.get(1),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(TypeError):
            print(number, call())


@each_place
def test_arguments_by_name(place: Place) -> None:
    own = place.classes

    async def main() -> None:
        assert await own.sleep(delay=0, result="slept") == "slept"
        assert await own.wait_for(fut=own.sleep(0, 1), timeout=None) == 1
        task = asyncio.ensure_future(own.sleep(0))
        assert await own.wait(fs=[task], timeout=None, return_when="ALL_COMPLETED")
        assert await own.to_thread(dict, key="value") == {"key": "value"}
        queue = own.Queue(maxsize=1)
        await queue.put(item="an item")
        assert await queue.get() == "an item"
        condition = own.Condition()
        async with condition:
            assert await condition.wait_for(predicate=lambda: "met") == "met"
        reader = own.StreamReader()
        reader.feed_data(b"one two-three")
        reader.feed_eof()
        assert await reader.readexactly(n=4) == b"one "
        assert await reader.readuntil(separator=b"-") == b"two-"
        assert await reader.read(n=100) == b"three"
        assert await type(reader).read(reader, n=1) == b""

    place.run(main())


@each_place
def test_a_subclass_may_override_and_call_on(place: Place) -> None:
    class Counting(place.classes.Lock):  # type: ignore[misc, name-defined]
        acquired = 0

        async def acquire(self) -> bool:
            self.acquired += 1
            taken: bool = await super().acquire()
            return taken

    async def main() -> None:
        lock = Counting()
        async with lock:
            assert lock.locked()
        condition = place.classes.Condition(lock)
        async with condition:
            assert lock.locked()
        assert lock.acquired == 2

    place.run(main())


@each_place
def test_a_method_that_is_set_on_a_lock(place: Place) -> None:
    """One with a dictionary is looked at again: its own `acquire` is the one to be called."""

    async def main() -> None:
        lock = place.classes.Lock()
        own = lock.acquire
        calls = []

        async def acquire() -> bool:
            calls.append(True)
            taken: bool = await own()
            return taken

        lock.acquire = acquire
        async with lock:
            assert calls == [True]
        lock.acquire = own
        async with lock:
            assert lock.locked()
        assert calls == [True]

    # Locks of asyncio's have a dictionary, too.
    place.run(main())


# -- mocks -----------------------------------------------------------------------------------------


def test_patching_gives_asynchronous_mocks() -> None:
    with contextlib.ExitStack() as stack:
        for name in ("sleep", "wait", "wait_for", "to_thread"):
            double = stack.enter_context(mock.patch(f"weft.{name}"))
            assert isinstance(double, mock.AsyncMock)
        double = stack.enter_context(mock.patch.object(weft.Queue, "get", autospec=True))
        double.return_value = "patched"
        assert asyncio.run(weft.Queue().get()) == "patched"
    assert inspect.iscoroutinefunction(weft.sleep)


@each_place
def test_autospecs(place: Place) -> None:
    own = place.classes
    kind = mock.create_autospec(own.Queue)
    for double in (kind, kind(1), mock.create_autospec(own.Queue())):
        assert isinstance(double.get, mock.AsyncMock)
        assert isinstance(double.put, mock.AsyncMock)
        assert not isinstance(double.put_nowait, mock.AsyncMock)
    queue = kind()
    queue.get.return_value = "given"
    assert asyncio.run(queue.get()) == "given"
    queue.get.assert_awaited_once_with()
    with pytest.raises(TypeError):
        queue.put()
    sleep = mock.create_autospec(own.sleep)
    if PY312:
        assert inspect.iscoroutinefunction(sleep)
    with pytest.raises(TypeError):
        asyncio.run(sleep())
    writer = mock.create_autospec(own.StreamWriter)
    assert isinstance(writer.drain, mock.AsyncMock)
