"""Objects half made, methods called with nonsense, modules loaded twice: errors, never a crash.

Each of these runs in a child, and a child that dies by a signal or by a Rust panic fails its test.
"""

from __future__ import annotations

import pytest
from backends import PY312, Backend
from children import program, python

pytestmark = pytest.mark.child


def survives(backend: Backend, source: str, *options: str) -> str:
    ended = program(backend, source, "-W", "ignore", *options, timeout=120)
    assert ended.code == 0, ended.err
    assert "panic" not in ended.err.lower(), ended.err
    return ended.out


POKE = """
import copy, gc, itertools, pickle, sys, types

def poke(thing, label):
    '''Look at everything and call everything, with nothing and with nonsense.'''
    operators = [repr, str, hash, bool, len, iter, next, list, id, sys.getsizeof, vars, dir,
                 copy.copy, copy.deepcopy, pickle.dumps, gc.get_referents, gc.get_referrers,
                 lambda t: t == 1, lambda t: t < t, lambda t: t + 1, lambda t: t[0],
                 lambda t: t(), lambda t: t.__reduce_ex__(2), lambda t: t.__sizeof__(),
                 lambda t: t.__init__(), lambda t: t.__init__(1, 2), lambda t: t.__init__(loop=1),
                 lambda t: t.__class__(), lambda t: t.__class__(1),
                 lambda t: type(t).__new__(type(t))]
    for operator in operators:
        attempt(operator, thing)
    names = [n for n in dir(thing) if n not in SKIPPED]
    for name in names:
        value = attempt(getattr, thing, name)
        attempt(setattr, thing, name, None)
        attempt(setattr, thing, name, object())
        if name not in DELETED:
            attempt(delattr, thing, name)
        if callable(value):
            for arguments in ARGUMENTS:
                attempt(value, *arguments)
            attempt(value, nonsense=1)
            attempt(value, None, context=1)
            attempt(value, print, context=None)

# What ends the process or waits by design, and what would take the object's type away.
SKIPPED = {"__class__", "__subclasshook__", "__init_subclass__", "__dir__", "__getattribute__",
           "run_forever", "run_until_complete", "_run_once", "_run", "__setattr__", "__delattr__",
           "__getstate__", "subprocess_shell", "subprocess_exec"}
DELETED = {"__doc__", "__dict__", "__module__"}
ARGUMENTS = [(), (None,), (1,), (-1,), (2**70,), ("text",), (b"bytes",), (1.5,), (float("nan"),),
             (print,), ([],), ({},), (object(),), (None, None), (1, print), (print, 1),
             (None, None, None), ("a", "b", "c", "d"), (ValueError,), (ValueError(),),
             (type,), (1, 2, 3, 4, 5, 6, 7)]

def attempt(function, *arguments, **keywords):
    try:
        result = function(*arguments, **keywords)
    except Exception as error:
        return None
    except BaseException as error:
        if type(error).__name__ in ("CancelledError", "GeneratorExit", "StopIteration"):
            return None
        print("escaped", type(error), error, file=sys.stderr)
        sys.exit(3)
    if isinstance(result, types.CoroutineType):
        result.close()
        return None
    return result
"""

MAKE = {
    "handle": "[loop.call_soon(int)]",
    "handle that ran": "[ran]",
    "handle cancelled": "[cancelled]",
    "timer": "[loop.call_later(1000, int)]",
    "future": "[loop.create_future()]",
    "future done": "[done]",
    "future failed": "[failed]",
    "future iterator": "[loop.create_future().__await__()]",
    "future iterator started": "[started]",
    "task": "[loop.create_task(child())]",
    "task waiting": "[waiting]",
    "task done": "[finished]",
    "task callbacks": "[pair[0] for pair in waited._callbacks]",
    "TLS transport": "[_weft.SSLTransport.__new__(_weft.SSLTransport), secured(), *circle]",
}

PREPARE = """
import ssl
from weft import _weft
def secured():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _weft.SSLTransport(loop, asyncio.Protocol(), context, None, True, None, True, None, None)
async def child():
    await asyncio.sleep(0)
loop = new_event_loop()
loop.set_exception_handler(lambda *_: None)
ran = loop.call_soon(int)
cancelled = loop.call_soon(int)
cancelled.cancel()
done = loop.create_future()
done.set_result(1)
failed = loop.create_future()
failed.set_exception(ValueError())
started = loop.create_future().__await__()
next(started)
waited = loop.create_future()
async def wait():
    await waited
waiting = loop.create_task(wait())
finished = loop.create_task(child())
loop.run_until_complete(finished)
circle = secured(), secured()
circle[0].connection_made(circle[1])
circle[1].connection_made(circle[0])
"""


# asyncio's handles are of Python and take any attribute; its C tasks crash on some of this.
@pytest.mark.backends("weft")
@pytest.mark.parametrize("name", MAKE)
def test_nonsense(backend: Backend, name: str) -> None:
    source = (
        POKE
        + PREPARE
        + f"""
for thing in {MAKE[name]}:
    poke(thing, {name!r})
    del thing
gc.collect()
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
gc.collect()
print("survived")
"""
    )
    assert survives(backend, source).endswith("survived\n")


@pytest.mark.parametrize("state", ["fresh", "used", "closed"])
def test_nonsense_on_loops(backend: Backend, state: str) -> None:
    source = (
        POKE
        + f"""
import os, signal
# Some of this nonsense closes descriptors or sends signals: not the ones of this child.
SKIPPED |= {{"_signal_handler", "_ssock", "_csock", "_selector", "_handle_signal"}}
loop = new_event_loop()
loop.set_exception_handler(lambda *_: None)
if {state!r} != "fresh":
    loop.run_until_complete(asyncio.sleep(0))
if {state!r} == "closed":
    loop.close()
poke(loop, "loop")
try:
    loop.close()
except Exception:
    pass
del loop
gc.collect()
print("survived", flush=True)
os._exit(0)
"""
    )
    assert survives(backend, source).endswith("survived\n")


@pytest.mark.backends("weft")
@pytest.mark.parametrize("kind", ["Future", "Task", "Handle", "TimerHandle", "Loop", "iterator"])
def test_made_without_init(backend: Backend, kind: str) -> None:
    """`__new__` alone, or the constructor with nothing."""
    make = {
        "Future": "Future",
        "Task": "Task",
        "Handle": "type(new_event_loop().call_soon(int))",
        "TimerHandle": "type(new_event_loop().call_later(1, int))",
        "Loop": "type(new_event_loop())",
        "iterator": "type(new_event_loop().create_future().__await__())",
    }[kind]
    source = (
        POKE
        + f"""
import os
kind = {make}
for make in (lambda: kind.__new__(kind), lambda: object.__new__(kind), lambda: kind()):
    thing = attempt(make)
    if thing is not None:
        poke(thing, "half made")
    del thing
    gc.collect()
print("survived", flush=True)
os._exit(0)
"""
    )
    assert survives(backend, source).endswith("survived\n")


@pytest.mark.backends("weft")
def test_every_type_of_the_native_module(backend: Backend) -> None:
    source = (
        POKE
        + """
import os
import weft._weft as native
for name in dir(native):
    thing = getattr(native, name)
    if isinstance(thing, type):
        for make in (lambda: thing.__new__(thing), lambda: object.__new__(thing), lambda: thing(),
                     lambda: thing(1), lambda: type("Sub", (thing,), {})()):
            made = attempt(make)
            if made is not None and not isinstance(made, asyncio.AbstractEventLoop):
                poke(made, name)
            del made
    elif callable(thing):
        for arguments in ARGUMENTS:
            attempt(thing, *arguments)
gc.collect()
print("survived", flush=True)
os._exit(0)
"""
    )
    assert survives(backend, source).endswith("survived\n")


def test_class_assignment(backend: Backend) -> None:
    """From stock to ours and back: refused, or it works; never memory of another shape."""
    source = """
    import gc
    class A(asyncio.Future): pass
    class B(Future): pass
    class C(asyncio.Task): pass
    class D(Task): pass
    loop = new_event_loop()
    async def child():
        await asyncio.sleep(0)
        return 5
    for one, two in ((A, B), (B, A)):
        future = one(loop=loop)
        for state in ("pending", "done"):
            try:
                future.__class__ = two
            except TypeError:
                pass
            if state == "pending":
                future.add_done_callback(lambda f: None)
                future.set_result(7)
            assert future.result() == 7
        repr(future)
    for one, two in ((C, D), (D, C)):
        task = one(child(), loop=loop)
        try:
            task.__class__ = two
        except TypeError:
            pass
        assert loop.run_until_complete(task) == 5
        repr(task)
    for plain, kind in ((asyncio.Future(loop=loop), Future), (Future(loop=loop), asyncio.Future)):
        try:
            plain.__class__ = kind
        except TypeError:
            pass
        repr(plain)
    del future, task, plain
    gc.collect()
    loop.close()
    print("survived")
    """
    assert survives(backend, source) == "survived\n"


def test_multiple_inheritance_of_both(backend: Backend) -> None:
    """A class cannot be a stock and a native task by two ways and have both memories."""
    source = """
    import gc
    loop = new_event_loop()
    async def child():
        await asyncio.sleep(0)
        return 5
    for bases in ((Task, asyncio.Task), (Future, asyncio.Future), (Future, Task), (Task, Future)):
        try:
            kind = type("Both", bases, {})
        except TypeError:
            continue
        if issubclass(kind, asyncio.Task):
            thing = kind(child(), loop=loop)
            assert loop.run_until_complete(thing) == 5
        else:
            thing = kind(loop=loop)
            thing.set_result(5)
            assert thing.result() == 5
        repr(thing)
        del thing
    gc.collect()
    loop.close()
    print("survived")
    """
    assert survives(backend, source) == "survived\n"


@pytest.mark.backends("weft")
def test_reload(backend: Backend) -> None:
    source = """
    import importlib, sys
    import weft
    async def answer():
        await asyncio.sleep(0)
        return 42
    old = weft.new_event_loop()
    importlib.reload(weft)
    assert weft.run(answer()) == 42
    assert old.run_until_complete(answer()) == 42
    # As test runners do it: all modules of the package forgotten, then imported again.
    for name in [name for name in sys.modules if name.partition(".")[0] == "weft"]:
        del sys.modules[name]
    try:
        import weft as again
    except ImportError as error:
        print("refused:", error)
    else:
        assert again.run(answer()) == 42
        assert len({weft.Future, again.Future}) in (1, 2)
    assert old.run_until_complete(answer()) == 42
    old.close()
    print("survived")
    """
    assert survives(backend, source).endswith("survived\n")


@pytest.mark.skipif(not PY312, reason="interpreters of their own GIL came with 3.12")
def test_subinterpreter(backend: Backend) -> None:
    """Refused with an ImportError, or it works: no crash, and the main one goes on."""
    source = (
        """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import os
code = '''
try:
"""
        + "".join(f"    {line}\n" for line in backend.prelude.splitlines())
        + """
    async def answer():
        await asyncio.sleep(0)
        return 42
    assert run(answer()) == 42
except ImportError as error:
    pass
'''
async def answer():
    await asyncio.sleep(0)
    return 42
assert run(answer()) == 42
for _ in range(3):
    made = interpreters.create()
    interpreters.run_string(made, code)
    interpreters.destroy(made)
    assert run(answer()) == 42
print("survived", flush=True)
os._exit(0)
"""
    )
    assert survives(backend, source) == "survived\n"


def test_monkeypatched_asyncio(backend: Backend) -> None:
    """Names of asyncio's modules that somebody deletes or replaces after the import."""
    source = """
    import asyncio.base_events, asyncio.events, asyncio.futures, asyncio.tasks
    async def child():
        await asyncio.sleep(0)
        raise ValueError
    loop = new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    for module in (asyncio.base_events, asyncio.events, asyncio.futures, asyncio.tasks,
                   asyncio.coroutines, asyncio.base_futures, asyncio.base_tasks,
                   asyncio.format_helpers):
        for name in ("isfuture", "iscoroutine", "_format_callback_source", "extract_stack",
                     "_future_repr", "_task_repr", "_task_get_stack", "Handle", "TimerHandle"):
            if hasattr(module, name):
                setattr(module, name, None)
    for attempt in (
        lambda: loop.run_until_complete(loop.create_task(child())),
        lambda: repr(loop.create_future()),
        lambda: repr(loop.create_task(child())),
        lambda: loop.call_soon(print, 1).cancel(),
        lambda: loop.set_debug(True) or loop.call_soon(int),
        lambda: loop.create_task(child()).get_stack(),
    ):
        try:
            attempt()
        except Exception:
            pass
    import os
    print("survived", flush=True)
    os._exit(0)
    """
    assert survives(backend, source) == "survived\n"


def test_out_of_descriptors(backend: Backend) -> None:
    """A loop that cannot be made raises OSError, and leaks nothing; one that exists goes on."""
    source = """
    import gc, os, resource
    loop = new_event_loop()
    before = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 8, before + 8))
    hogs = []
    def take_all():
        gc.collect()
        while True:
            try:
                hogs.append(os.dup(0))
            except OSError:
                return
    take_all()
    all_of_them = len(hogs)
    for spare in range(6):
        for _ in range(spare):
            os.close(hogs.pop())
        try:
            made = new_event_loop()
        except OSError as error:
            assert error.errno == 24, error
        else:
            made.close()
            del made
        take_all()
        assert len(hogs) == all_of_them, (spare, len(hogs), all_of_them)
    assert loop.run_until_complete(asyncio.sleep(0.001, 42)) == 42
    for hog in hogs:
        os.close(hog)
    loop.close()
    print("survived")
    """
    # The destructor of asyncio's half-made loop complains on standard error.
    assert survives(backend, source) == "survived\n"


@pytest.mark.parametrize("option", ["-X tracemalloc=10", "-X dev", "-O", "-OO", "-S", "-v", "-d"])
def test_options_of_the_interpreter(backend: Backend, option: str) -> None:
    if option == "-S" and backend.is_weft:
        pytest.skip("an installed package is found by the site module")
    source = """
    async def main():
        await asyncio.gather(*(asyncio.sleep(0.001, n) for n in range(10)))
        return 42
    print(run(main()))
    """
    ended = program(backend, source, *option.split())
    assert (ended.code, ended.out) == (0, "42\n"), ended.err


def test_malloc_debug(backend: Backend) -> None:
    """Every block of Python's allocator is fenced and checked."""
    source = """
    import gc
    async def child(n):
        await asyncio.sleep(0)
        if n % 3 == 0:
            raise ValueError(n)
        return n
    async def main():
        for _ in range(20):
            await asyncio.gather(*(child(n) for n in range(30)), return_exceptions=True)
            tasks = [asyncio.ensure_future(asyncio.sleep(10)) for _ in range(30)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.wait(tasks, timeout=0)
            for task in tasks:
                task.cancel()
            gc.collect()
    run(main())
    print("survived")
    """
    ended = python("-c", backend.prelude + _dedent(source), PYTHONMALLOC="debug")
    assert (ended.code, ended.out) == (0, "survived\n"), ended.err


def _dedent(source: str) -> str:
    import textwrap

    return textwrap.dedent(source)
