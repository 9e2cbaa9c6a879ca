"""Put the loop under test where CPython's suite takes its loops from.

The suite has four sources of loops, and each is replaced inside the child process, before any test
module is imported:

* ``asyncio.new_event_loop()``, and with it ``asyncio.run``, ``asyncio.Runner`` and
  ``IsolatedAsyncioTestCase``: they end in ``_loop_factory`` of the default policy's class.  Setting
  a policy would not last: the suite resets it with ``set_event_loop_policy(None)`` all the time.
* ``asyncio.SelectorEventLoop()``, ``asyncio.EventLoop()``, ``asyncio.BaseEventLoop()``: stand-ins
  take the place of these names in the package, and make the loop under test when called.
* ``self.new_test_loop()``, where any loop would do (see ``scope.TEST_LOOP_IS_ANY_LOOP``).
* three ``setUp`` methods which give the abstract ``BaseEventLoop`` a mock instead of a poller: they
  get a whole loop.

The C types, which the suite calls ``futures._CFuture`` and ``tasks._CTask``, are replaced as well.

asyncio's classes themselves stay untouched: the loop under test may inherit from them.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.futures
import asyncio.tasks
import importlib
import warnings
from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .scope import SUITE, TEST_LOOP_IS_ANY_LOOP, Variant

LOOPS = ("weft", "asyncio", "uvloop", "plugged-asyncio")
"""What can be under test.

``asyncio`` is the suite as it is, with nothing put in place of anything: the measure of what this
machine and interpreter can pass.  ``plugged-asyncio`` is asyncio's own loop put in place as a
foreign one would be, and shows what the replacing itself breaks.
"""


@dataclass(frozen=True)
class UnderTest:
    """A loop implementation: how to make its loop, and the types that come with it."""

    name: str
    version: str
    origin: str
    new_loop: Callable[[], AbstractEventLoop]
    loop_class: type
    future: type[asyncio.Future[Any]] | None = None
    task: type[asyncio.Task[Any]] | None = None
    put_primitives_in_place: Callable[[], None] | None = None

    @property
    def own_types(self) -> bool:
        """Whether it brings futures and tasks of its own."""
        return self.future is not None


def load(name: str) -> UnderTest:
    """Import the implementation called ``name``, one of :data:`LOOPS`."""
    if name in {"asyncio", "plugged-asyncio"}:
        loop_class = asyncio.SelectorEventLoop
        return UnderTest(name, "", str(asyncio.__file__), loop_class, loop_class)
    module = importlib.import_module(name)
    own: dict[str, Any] = {}
    if name == "weft":
        # Not install(), whose policy the suite would set back.
        primitives = importlib.import_module("weft._primitives")
        own = {
            "future": module.Future,
            "task": module.Task,
            "put_primitives_in_place": primitives.put_in_place,
        }
    return UnderTest(
        name,
        str(getattr(module, "__version__", "")),
        str(module.__file__),
        module.new_event_loop,
        module.Loop,
        **own,
    )


_ABSENT = object()


class LoopClassStandIn:
    """Stands for one of asyncio's loop classes: makes the loop under test when called.

    It still is that class to ``isinstance`` and to a ``class`` statement, and the loop under test
    counts as an instance, whatever it inherits from.  What the suite patches in the class (with
    ``mock.patch``) is patched in the loop class under test as well.
    """

    _replaced: type
    _made: type
    _make: Callable[[], AbstractEventLoop]
    _originals: dict[tuple[type, str], Any]

    def __init__(self, replaced: type, made: type, make: Callable[[], AbstractEventLoop]) -> None:
        self.__dict__.update(_replaced=replaced, _made=made, _make=make, _originals={})

    def __call__(self, selector: Any = None) -> AbstractEventLoop:
        if selector is not None:
            selector.close()  # the loop under test brings its own poller
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replaced, name)

    def __setattr__(self, name: str, value: object) -> None:
        for patched in (self._replaced, self._made):
            self._originals.setdefault((patched, name), vars(patched).get(name, _ABSENT))
            setattr(patched, name, value)

    def __delattr__(self, name: str) -> None:
        for patched in (self._replaced, self._made):
            original = self._originals.pop((patched, name))
            if original is _ABSENT:
                delattr(patched, name)
            else:
                setattr(patched, name, original)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return (self._replaced,)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._replaced | self._made)

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._replaced | self._made)


class _NoExecutor:
    """What ``TestCase.close_loop`` finds as the executor of a loop that is closed already."""

    def shutdown(self, wait: bool = True) -> None:
        """Do nothing: a closed loop has shut its executor down."""


class _ClosingView:
    """The loop as ``TestCase.close_loop`` sees it.

    That helper looks at the private ``_default_executor`` to learn whether there is anything to
    shut down.  A loop need not have such an attribute; shutting down an executor that was never
    made is harmless.
    """

    _default_executor = _NoExecutor()

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Plug:
    """The loop under test, in place.  Counts the loops it made, to tell which tests used one."""

    def __init__(self, under_test: UnderTest, module: str, variant: Variant) -> None:
        self.under_test = under_test
        self.loops_made = 0
        self._types: tuple[type, ...] = ()
        self._in_place = under_test.name != "asyncio"
        if not self._in_place:
            return
        self._replace_loop_factories()
        self._give_single_turn()
        if variant is not Variant.STOCK_TYPES:
            self._replace_types()
        if variant is Variant.PRIMITIVES and under_test.put_primitives_in_place is not None:
            under_test.put_primitives_in_place()
        self._adapt_suite(
            own_test_loop=module in TEST_LOOP_IS_ANY_LOOP and variant is not Variant.SUITE_LOOP
        )

    def new_loop(self) -> AbstractEventLoop:
        """Make a loop for a test."""
        self.loops_made += 1
        return self.under_test.new_loop()

    def tests_own_type(self, test: object) -> bool:
        """Whether ``test`` names one of the plugged types as its class under test."""
        for attribute in ("cls", "Future", "Task"):
            value = getattr(test, attribute, None)
            if isinstance(value, type) and self._types and issubclass(value, self._types):
                return True
        return False

    def used_since(self, loops_made: int, test: object) -> bool:
        """Whether ``test`` had anything to do with what is under test."""
        return not self._in_place or self.loops_made > loops_made or self.tests_own_type(test)

    def _replace_loop_factories(self) -> None:
        policy = importlib.import_module("asyncio.unix_events")._UnixDefaultEventLoopPolicy
        policy._loop_factory = staticmethod(self.new_loop)
        made = self.under_test.loop_class
        for owner, name in (
            (asyncio, "SelectorEventLoop"),
            (asyncio, "EventLoop"),
            (asyncio, "BaseEventLoop"),
            (asyncio.base_events, "BaseEventLoop"),
        ):
            replaced = getattr(owner, name, None)
            if replaced is None:  # asyncio.EventLoop is new in 3.13
                continue
            if owner is asyncio.base_events:
                # The suite's own test loop is a subclass: it must exist before the name is taken.
                importlib.import_module(f"{SUITE}.utils")
            setattr(owner, name, LoopClassStandIn(replaced, made, self.new_loop))

    def _give_single_turn(self) -> None:
        """Let ``loop._run_once()``, the suite's way to run one turn, do so on any loop.

        The method is private to asyncio's loops, but what the tests look at afterwards is not.
        """
        made = self.under_test.loop_class
        inherited = asyncio.SelectorEventLoop._run_once  # type: ignore[attr-defined]
        own = getattr(made, "_run_once", inherited)
        if own is inherited and self.under_test.name != "plugged-asyncio":
            made._run_once = _run_turn  # type: ignore[attr-defined]

    def _replace_types(self) -> None:
        future, task = self.under_test.future, self.under_test.task
        if future is None or task is None:
            return
        self._types = (future, task)
        asyncio.futures._CFuture = future  # type: ignore[attr-defined]
        asyncio.tasks._CTask = task  # type: ignore[attr-defined]

    def _adapt_suite(self, *, own_test_loop: bool) -> None:
        test_case = importlib.import_module(f"{SUITE}.utils").TestCase
        close_loop = test_case.close_loop
        new_test_loop = test_case.new_test_loop

        def close_loop_of_any_kind(loop: AbstractEventLoop) -> None:
            close_loop(loop if hasattr(loop, "_default_executor") else _ClosingView(loop))

        def any_loop(test: Any, gen: Any = None) -> AbstractEventLoop:
            if gen is not None:  # the test drives the clock
                return new_test_loop(test, gen)  # type: ignore[no-any-return]
            loop = self.new_loop()
            test.set_event_loop(loop)
            return loop

        test_case.close_loop = staticmethod(close_loop_of_any_kind)
        if own_test_loop:
            test_case.new_test_loop = any_loop

    def adapt_module(self, module: ModuleType) -> None:
        """Take out of ``module`` what only asyncio's own loop can do, where a test is not about it.

        That is a base loop with a mock for a poller, which becomes a whole loop, and a look at the
        private ready queue to learn whether a loop has come to rest, which becomes some more turns.
        """
        name = module.__name__.rpartition(".")[2]
        if not self._in_place:
            return
        if name == "test_base_events":
            self._set_up_with_loop(module.BaseEventLoopTests)
        elif name == "test_pep492":
            self._set_up_with_loop(module.BaseTest)
        elif name == "test_runners":
            module.BaseTest.new_loop = lambda test: self._loop_for_runner()
        elif name == "test_tasks":
            module.GatherTestsBase._run_loop = lambda test, loop: _run_turns(loop)

    def _set_up_with_loop(self, test_class: Any) -> None:
        test_utils = importlib.import_module(f"{SUITE}.utils")

        def set_up(test: Any) -> None:
            test_utils.TestCase.setUp(test)
            test.loop = self.new_loop()
            test.set_event_loop(test.loop)

        test_class.setUp = set_up

    def _loop_for_runner(self) -> AbstractEventLoop:
        """A loop that notes whether its runner shuts asynchronous generators down."""
        loop: Any = self.new_loop()
        loop.shutdown_ag_run = False
        shut_down = loop.shutdown_asyncgens

        async def shutdown_asyncgens() -> None:
            loop.shutdown_ag_run = True
            await shut_down()

        loop.shutdown_asyncgens = shutdown_asyncgens
        return loop  # type: ignore[no-any-return]


def _run_turns(loop: AbstractEventLoop) -> None:
    """Let the loop come to rest, where nothing waits for time or for a descriptor."""
    for _ in range(10):
        _run_turn(loop)


def _run_turn(loop: AbstractEventLoop) -> None:
    """Run what is ready now, and nothing that becomes ready by it."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def quiet_import(name: str) -> Any:
    """Import a module of the suite; some of them use what is deprecated in the same version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(name)
