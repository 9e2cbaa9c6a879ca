"""Methods of asyncio's own classes called on our objects: `asyncio.Task.get_coro(task)`.

Debuggers, profilers and wrappers do so. A native object keeps its state elsewhere than its stock
base class does, and a base method that looks into an empty base must not crash the process. So all
of this runs in a child, where a crash fails a test and not the whole run.
"""

from __future__ import annotations

import pytest
from backends import Backend
from children import program

pytestmark = pytest.mark.child

SETUP = """
import contextvars, gc, io, sys

async def child():
    await asyncio.sleep(0)
    return 5

def call(name, function, *arguments, **keywords):
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:
        result = f"{type(error).__name__}: {error}"
    print(name, result, flush=True)

loop = new_event_loop()
asyncio.set_event_loop(loop)
"""


def lines(backend: Backend, source: str) -> dict[str, str]:
    """What the child printed: a name and a result on each line."""
    out = program(backend, SETUP + source).check()
    return dict(line.split(" ", 1) for line in out.splitlines())


FUTURE = """
def all_of(future):
    for name in (
        "done", "cancelled", "get_loop", "result", "exception", "_make_cancelled_error",
        "__repr__", "__iter__", "__await__", "cancel", "done", "cancelled",
    ):
        call(name, getattr(asyncio.Future, name), future)
    for name in (
        "_state", "_asyncio_future_blocking", "_loop", "_callbacks", "_result", "_exception",
        "_log_traceback", "_source_traceback", "_cancel_message",
    ):
        call(name, asyncio.Future.__dict__[name].__get__, future)
    call("add_done_callback", asyncio.Future.add_done_callback, future, print)
    call("remove_done_callback", asyncio.Future.remove_done_callback, future, print)
    call("set_result", asyncio.Future.set_result, future, 1)
    call("set_exception", asyncio.Future.set_exception, future, ValueError())
"""


class TestFuture:
    @pytest.mark.parametrize("state", ["pending", "finished", "failed", "cancelled"])
    def test_no_crash_and_no_lie(self, backend: Backend, state: str) -> None:
        """What the base says of our object is what the object says of itself."""
        prepare = {
            "pending": "",
            "finished": "future.set_result(5)",
            "failed": "future.set_exception(ValueError('no')); future.exception()",
            "cancelled": "future.cancel()",
        }[state]
        seen = lines(
            backend,
            FUTURE
            + f"""
future = loop.create_future()
{prepare}
call("done", asyncio.Future.done, future)
call("same_done", lambda: asyncio.Future.done(future) == future.done())
call("same_cancelled", lambda: asyncio.Future.cancelled(future) == future.cancelled())
call("same_loop", lambda: asyncio.Future.get_loop(future) is loop)
call("same_state", lambda: asyncio.Future._state.__get__(future) == future._state)
""",
        )
        assert seen["same_done"] == "True"
        assert seen["same_cancelled"] == "True"
        assert seen["same_loop"] == "True"
        assert seen["same_state"] == "True"

    @pytest.mark.parametrize("state", ["pending", "finished", "failed", "cancelled"])
    def test_everything(self, backend: Backend, state: str) -> None:
        prepare = {
            "pending": "",
            "finished": "future.set_result(5)",
            "failed": "future.set_exception(ValueError('no')); future.exception()",
            "cancelled": "future.cancel()",
        }[state]
        lines(
            backend,
            FUTURE
            + f"""
future = loop.create_future()
{prepare}
all_of(future)
loop.call_soon(loop.stop)
loop.run_forever()
del future
gc.collect()
loop.close()
""",
        )

    def test_set_result_of_the_base(self, backend: Backend) -> None:
        """`asyncio.Future.set_result(future, 1)` on a future that tasks wait for."""
        seen = lines(
            backend,
            """
future = loop.create_future()

async def wait():
    return await future

async def main():
    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    asyncio.Future.set_result(future, 7)
    return await asyncio.wait_for(task, 5), future.result(), asyncio.Future.result(future)

call("results", lambda: loop.run_until_complete(main()))
loop.close()
""",
        )
        assert seen["results"] == "(7, 7, 7)"

    def test_cancel_of_the_base(self, backend: Backend) -> None:
        seen = lines(
            backend,
            """
future = loop.create_future()

async def wait():
    return await future

async def main():
    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    asyncio.Future.cancel(future, "why")
    try:
        await asyncio.wait_for(task, 5)
    except asyncio.CancelledError as error:
        return error.args
    return "not cancelled"

call("outcome", lambda: loop.run_until_complete(main()))
loop.close()
""",
        )
        assert seen["outcome"] == "('why',)"

    def test_callback_through_the_base(self, backend: Backend) -> None:
        seen = lines(
            backend,
            """
future = loop.create_future()
asyncio.Future.add_done_callback(future, lambda f: print("called", f.result()))
asyncio.Future.add_done_callback(future, print)
call("removed", asyncio.Future.remove_done_callback, future, print)
future.set_result(3)
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
""",
        )
        assert seen == {"removed": "1", "called": "3"}


TASK = """
def all_of(task):
    for name in (
        "get_name", "get_coro", "get_context", "get_stack", "cancelling", "done", "cancelled",
        "get_loop", "result", "exception", "_make_cancelled_error", "__repr__", "__iter__",
        "__await__", "uncancel",
    ):
        function = getattr(asyncio.Task, name, None)
        if function is not None:
            call(name, function, task)
    call("print_stack", asyncio.Task.print_stack, task, file=io.StringIO())
    call("set_name", asyncio.Task.set_name, task, "renamed")
    for kind in (asyncio.Task, asyncio.Future):
        for name in list(kind.__dict__):
            attribute = kind.__dict__[name]
            if type(attribute).__name__ == "getset_descriptor":
                call(f"{kind.__name__}.{name}", attribute.__get__, task)
            elif type(attribute).__name__ == "member_descriptor":
                call(f"{kind.__name__}.{name}", attribute.__get__, task)
    call("set_result", asyncio.Task.set_result, task, 1)
    call("set_exception", asyncio.Task.set_exception, task, ValueError())
    call("add_done_callback", asyncio.Task.add_done_callback, task, print)
    call("remove_done_callback", asyncio.Task.remove_done_callback, task, print)
"""


class TestTask:
    def test_no_lie(self, backend: Backend) -> None:
        seen = lines(
            backend,
            """
coro = child()
task = loop.create_task(coro, name="named")
call("coro", lambda: asyncio.Task.get_coro(task) is coro)
call("name", asyncio.Task.get_name, task)
call("loop", lambda: asyncio.Task.get_loop(task) is loop)
if hasattr(asyncio.Task, "get_context"):
    context = task.get_context()
    call("context", lambda: asyncio.Task.get_context(task) is context)
call("pending", asyncio.Task.done, task)
loop.run_until_complete(task)
call("done", asyncio.Task.done, task)
call("result", asyncio.Task.result, task)
loop.close()
""",
        )
        seen.setdefault("context", "True")
        assert seen == {
            "coro": "True",
            "name": "named",
            "loop": "True",
            "context": "True",
            "pending": "False",
            "done": "True",
            "result": "5",
        }

    @pytest.mark.parametrize("state", ["new", "waiting", "running", "finished", "cancelled"])
    def test_everything(self, backend: Backend, state: str) -> None:
        act = {
            "new": "task = loop.create_task(child()); all_of(task)",
            "waiting": """
async def wait():
    await loop.create_future()
task = loop.create_task(wait())
loop.call_soon(loop.stop)
loop.run_forever()
all_of(task)
call("cancel", asyncio.Task.cancel, task, "why")
""",
            "running": """
async def look():
    all_of(asyncio.current_task())
task = loop.create_task(look())
""",
            "finished": "task = loop.create_task(child()); loop.run_until_complete(task);"
            " all_of(task)",
            "cancelled": """
task = loop.create_task(child())
task.cancel()
loop.call_soon(loop.stop)
loop.run_forever()
all_of(task)
""",
        }[state]
        lines(
            backend,
            TASK
            + act
            + """
async def end():
    await asyncio.gather(task, return_exceptions=True)
loop.run_until_complete(asyncio.wait_for(end(), 5))
del task
gc.collect()
loop.close()
""",
        )

    def test_cancel_of_the_base(self, backend: Backend) -> None:
        seen = lines(
            backend,
            """
async def wait():
    await loop.create_future()

async def main():
    started = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    fresh = asyncio.ensure_future(wait())
    for task in (started, fresh):
        asyncio.Task.cancel(task, "why")
    done, pending = await asyncio.wait([started, fresh], timeout=5)
    return [task.cancelled() for task in (started, fresh)]

call("cancelled", lambda: loop.run_until_complete(main()))
loop.close()
""",
        )
        assert seen["cancelled"] == "[True, True]"

    def test_super_in_a_subclass(self, backend: Backend) -> None:
        """Cooperative subclasses name the base outright: `asyncio.Task.__init__(self, ...)`."""
        seen = lines(
            backend,
            """
class Mine(Task):
    def __init__(self, coro, *, loop):
        Task.__init__(self, coro, loop=loop)
    def cancel(self, msg=None):
        return Task.cancel(self, msg)
    def __repr__(self):
        return "mine " + Task.__repr__(self)[:5]

task = Mine(child(), loop=loop)
call("repr", lambda: repr(task))
call("result", lambda: loop.run_until_complete(task))
loop.close()
""",
        )
        assert seen == {"repr": "mine <Mine", "result": "5"}

    def test_base_init_on_our_object(self, backend: Backend) -> None:
        lines(
            backend,
            """
task = Task.__new__(Task)
call("init", asyncio.Task.__init__, task, child(), loop=loop)
call("repr", repr, task)
async def end():
    await asyncio.wait([task], timeout=1)
call("run", lambda: loop.run_until_complete(end()))
future = Future.__new__(Future)
call("future_init", asyncio.Future.__init__, future, loop=loop)
call("future_repr", repr, future)
call("future_set", lambda: future.set_result(1))
call("future_result", lambda: future.result())
task._log_destroy_pending = False
del task, future
gc.collect()
loop.close()
""",
        )

    def test_del_of_the_base(self, backend: Backend) -> None:
        lines(
            backend,
            """
future = loop.create_future()
future.set_exception(ValueError())
loop.set_exception_handler(lambda loop, context: print("report", context["message"]))
call("del", asyncio.Future.__del__, future)
call("del", Future.__del__, future)
future.exception()
task = loop.create_task(child())
call("del", asyncio.Task.__del__, task)
loop.run_until_complete(task)
loop.close()
""",
        )

    def test_sizeof_and_other_things_of_object(self, backend: Backend) -> None:
        lines(
            backend,
            """
for thing in (loop.create_future(), loop.create_task(child()), loop, loop.call_soon(int),
              loop.call_later(100, print)):
    for function in (repr, str, hash, dir, bool, type, id, sys.getsizeof, gc.get_referents,
                     gc.get_referrers, gc.is_tracked, vars):
        try:
            function(thing)
        except TypeError:
            pass
    for name in dir(thing):
        try:
            getattr(thing, name)
        except Exception as error:
            pass
loop.run_until_complete(asyncio.sleep(0.001))
loop.close()
""",
        )
