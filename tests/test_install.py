"""install, uninstall and the policy: making Weft the loop that asyncio gives out."""

from __future__ import annotations

import pytest
from backends import Backend
from children import Ended, python

pytestmark = [pytest.mark.child, pytest.mark.backends("weft")]

# Every warning is an error: on 3.14 policies are deprecated, and weft must not set that off.
STRICT = ("-W", "error")


def strict(source: str) -> Ended:
    return python(*STRICT, "-c", "import asyncio, sys, weft\n" + source)


def test_run(backend: Backend) -> None:
    source = """
async def main():
    return type(asyncio.get_running_loop()) is weft.Loop, type(asyncio.current_task()) is weft.Task
weft.install()
print(asyncio.run(main()))
weft.uninstall()
print(asyncio.run(main()))
"""
    assert strict(source).check() == "(True, True)\n(False, False)\n"


def test_runner_and_new_event_loop(backend: Backend) -> None:
    source = """
async def look():
    return type(asyncio.get_running_loop()) is weft.Loop
weft.install()
with asyncio.Runner() as runner:
    print(runner.run(look()))
loop = asyncio.new_event_loop()
print(type(loop) is weft.Loop)
loop.close()
loop = asyncio.events.new_event_loop()
print(type(loop) is weft.Loop)
loop.close()
"""
    assert strict(source).check() == "True\nTrue\nTrue\n"


def test_names_taken_before(backend: Backend) -> None:
    """`from asyncio import run, new_event_loop` before `install()`."""
    source = """
from asyncio import run, new_event_loop, Runner
async def look():
    return type(asyncio.get_running_loop()) is weft.Loop
weft.install()
print(run(look()))
loop = new_event_loop()
print(type(loop) is weft.Loop)
loop.close()
with Runner() as runner:
    print(runner.run(look()))
"""
    assert strict(source).check() == "True\nTrue\nTrue\n"


def test_twice(backend: Backend) -> None:
    source = """
async def look():
    return type(asyncio.get_running_loop()) is weft.Loop
weft.install()
weft.install()
print(asyncio.run(look()))
weft.uninstall()
print(asyncio.run(look()))
weft.uninstall()
print(asyncio.run(look()))
"""
    assert strict(source).check() == "True\nFalse\nFalse\n"


def test_uninstall_alone(backend: Backend) -> None:
    source = """
async def look():
    return type(asyncio.get_running_loop()) is weft.Loop
weft.uninstall()
print(asyncio.run(look()))
"""
    assert strict(source).check() == "False\n"


def test_again_after_uninstall(backend: Backend) -> None:
    source = """
async def look():
    return type(asyncio.get_running_loop()) is weft.Loop
for _ in range(3):
    weft.install()
    assert asyncio.run(look()) is True
    weft.uninstall()
    assert asyncio.run(look()) is False
print("right")
"""
    assert strict(source).check() == "right\n"


def test_uninstall_puts_everything_back(backend: Backend) -> None:
    """The very objects that were there before are there again."""
    source = """
import asyncio.events, asyncio.runners, asyncio.tasks, asyncio.base_events, _asyncio
modules = [m for n, m in sorted(sys.modules.items()) if n == "_asyncio" or n.startswith("asyncio")]
def state():
    return {(m.__name__, key): id(value) for m in modules for key, value in vars(m).items()
            if key != "__warningregistry__"}
async def nothing():
    pass
asyncio.run(nothing())
before = state()
weft.install()
asyncio.run(nothing())
weft.uninstall()
after = state()
print([key for key in before.keys() | after.keys() if before.get(key) != after.get(key)])
"""
    assert strict(source).check() == "[]\n"


def test_a_policy_of_somebody_else_is_put_back(backend: Backend) -> None:
    source = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    class Policy(asyncio.DefaultEventLoopPolicy):
        pass
    policy = Policy()
    asyncio.set_event_loop_policy(policy)
weft.install()
async def look():
    return type(asyncio.get_running_loop()) is weft.Loop
print(asyncio.run(look()))
weft.uninstall()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    print(asyncio.get_event_loop_policy() is policy)
"""
    assert strict(source).check() == "True\nTrue\n"


def test_a_policy_set_meanwhile_stays(backend: Backend) -> None:
    """Somebody else took over after install(): uninstall must not undo their work."""
    source = """
import warnings
weft.install()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    class Policy(asyncio.DefaultEventLoopPolicy):
        pass
    policy = Policy()
    asyncio.set_event_loop_policy(policy)
    weft.uninstall()
    print(asyncio.get_event_loop_policy() is policy)
"""
    assert strict(source).check() == "True\n"


def test_current_loop_survives(backend: Backend) -> None:
    """A loop that was set as the current one is the current one again after uninstall()."""
    source = """
loop = asyncio.SelectorEventLoop()
asyncio.set_event_loop(loop)
weft.install()
weft.uninstall()
print(asyncio.get_event_loop() is loop)
loop.close()
"""
    assert strict(source).check() == "True\n"


def test_get_event_loop(backend: Backend) -> None:
    """Without a running loop, the policy makes one in the main thread (up to 3.13)."""
    source = """
weft.install()
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
assert asyncio.get_event_loop() is loop
print(loop.run_until_complete(asyncio.sleep(0, "right")))
asyncio.set_event_loop(None)
loop.close()
"""
    assert strict(source).check() == "right\n"


def test_in_other_threads(backend: Backend) -> None:
    source = """
import threading
weft.install()
async def look():
    return type(asyncio.get_running_loop()) is weft.Loop
threading.Thread(target=lambda: print(asyncio.run(look()))).start()
"""
    assert strict(source).check() == "True\n"


def test_while_a_loop_runs(backend: Backend) -> None:
    """install() inside a coroutine: what runs goes on, what comes later is Weft's."""
    source = """
async def main():
    weft.install()
    await asyncio.sleep(0.001)
    return type(asyncio.get_running_loop()) is weft.Loop
print(asyncio.run(main()))
print(asyncio.run(main()))
"""
    assert strict(source).check() == "False\nTrue\n"


def test_policy(backend: Backend) -> None:
    source = """
import warnings
with warnings.catch_warnings():
    # On 3.14 asyncio warns whoever sets a policy, the user here.
    warnings.simplefilter("ignore", DeprecationWarning)
    asyncio.set_event_loop_policy(weft.EventLoopPolicy())
async def look():
    return type(asyncio.get_running_loop()) is weft.Loop
print(asyncio.run(look()))
loop = asyncio.new_event_loop()
print(type(loop) is weft.Loop)
loop.close()
"""
    assert strict(source).check() == "True\nTrue\n"


def test_policy_is_one_of_asyncios(backend: Backend) -> None:
    source = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    print(isinstance(weft.EventLoopPolicy(), asyncio.AbstractEventLoopPolicy))
policy = weft.EventLoopPolicy()
loop = policy.new_event_loop()
policy.set_event_loop(loop)
print(policy.get_event_loop() is loop)
policy.set_event_loop(None)
loop.close()
"""
    assert strict(source).check() == "True\nTrue\n"


def test_policy_makes_a_loop_in_the_main_thread_only(backend: Backend) -> None:
    source = """
import threading, warnings
policy = weft.EventLoopPolicy()
def ask():
    try:
        policy.get_event_loop()
    except RuntimeError as error:
        print(error)
thread = threading.Thread(target=ask, name="other")
thread.start()
thread.join()
"""
    assert strict(source).check() == "There is no current event loop in thread 'other'.\n"


def test_subclass_of_the_policy(backend: Backend) -> None:
    source = """
import warnings
class Mine(weft.EventLoopPolicy):
    made = 0
    def new_event_loop(self):
        Mine.made += 1
        return super().new_event_loop()
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    asyncio.set_event_loop_policy(Mine())
async def nothing():
    pass
asyncio.run(nothing())
print(Mine.made)
"""
    assert strict(source).check() == "1\n"


def test_loop_factory(backend: Backend) -> None:
    source = """
async def look():
    return type(asyncio.get_running_loop()) is weft.Loop
with asyncio.Runner(loop_factory=weft.new_event_loop) as runner:
    print(runner.run(look()))
with asyncio.Runner(loop_factory=weft.Loop) as runner:
    print(runner.run(look()))
"""
    assert strict(source).check() == "True\nTrue\n"


def test_no_warning_from_weft(backend: Backend) -> None:
    """Import, run, install, uninstall: silent with every warning turned into an error."""
    source = """
async def nothing():
    pass
weft.run(nothing())
weft.run(nothing(), debug=True)
weft.install()
asyncio.run(nothing())
weft.uninstall()
weft.EventLoopPolicy().new_event_loop().close()
"""
    assert strict(source).check() == ""


def test_unittest_isolated_asyncio_test_case(backend: Backend) -> None:
    source = """
import unittest
weft.install()
class Case(unittest.IsolatedAsyncioTestCase):
    async def test(self):
        assert type(asyncio.get_running_loop()) is weft.Loop
        await asyncio.sleep(0)
    async def asyncTearDown(self):
        await asyncio.sleep(0)
result = unittest.main(argv=["x"], exit=False, verbosity=0).result
print(result.testsRun, result.wasSuccessful())
"""
    ended = strict(source)
    assert (ended.code, ended.out) == (0, "1 True\n"), ended.err


def test_all_names_are_there(backend: Backend) -> None:
    source = """
for name in weft.__all__:
    assert getattr(weft, name) is not None, name
assert len(weft.__all__) == len(set(weft.__all__))
for name in ("run", "new_event_loop", "Loop", "EventLoopPolicy", "install", "uninstall",
             "Future", "Task"):
    assert name in weft.__all__, name
    assert getattr(weft, name).__doc__, name
    assert getattr(weft, name).__module__.partition(".")[0] == "weft", name
print("right")
"""
    assert strict(source).check() == "right\n"
