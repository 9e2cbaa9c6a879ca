"""Loops and fork(): the child starts afresh, the parent goes on undisturbed.

Everything happens in a child interpreter, so that a fork gone wrong does not leave a second pytest.
"""

from __future__ import annotations

import pytest
from backends import Backend
from children import program

pytestmark = pytest.mark.child

SETUP = """
import os, signal, sys, threading, time, warnings
# Since 3.12 Python warns whoever forks with threads about.
warnings.simplefilter("ignore", DeprecationWarning)

def in_child(function):
    '''Run in a forked child; what it prints comes first, then its exit code.'''
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            function()
            sys.stdout.flush()
            os._exit(0)
        except BaseException as error:
            import traceback
            traceback.print_exc()
            os._exit(1)
    print("child ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)

async def answer(value=42):
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    return value
"""


def check(backend: Backend, source: str) -> str:
    return program(backend, SETUP + source).check()


def test_new_loop_in_the_child(backend: Backend) -> None:
    out = check(
        backend,
        """
print(run(answer("before")))
in_child(lambda: print(run(answer("child"))))
print(run(answer("after")))
""",
    )
    assert out == "before\nchild\nchild ended 0\nafter\n"


def test_fork_while_the_loop_runs(backend: Backend) -> None:
    """In the child no loop runs, and it can run one of its own; the parent's goes on."""
    out = check(
        backend,
        """
async def main():
    def child():
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            print(error)
        print(run(answer("child")))
    in_child(child)
    return await answer("parent")
print(run(main()))
""",
    )
    assert out == "no running event loop\nchild\nchild ended 0\nparent\n"


def test_fork_in_a_callback(backend: Backend) -> None:
    out = check(
        backend,
        """
loop = new_event_loop()
def callback():
    in_child(lambda: print(run(answer("child"))))
    loop.call_later(0.001, loop.stop)
loop.call_soon(callback)
loop.run_forever()
print(loop.run_until_complete(answer("parent")))
loop.close()
""",
    )
    assert out == "child\nchild ended 0\nparent\n"


def test_inherited_loop_that_never_ran(backend: Backend) -> None:
    """A loop made before the fork is used by the child alone: pre-fork servers do it."""
    out = check(
        backend,
        """
loop = new_event_loop()
def child():
    print(loop.run_until_complete(answer("child")))
    loop.close()
in_child(child)
loop.close()
""",
    )
    assert out == "child\nchild ended 0\n"


def test_threadsafe_calls_in_the_child_do_not_wake_the_parent(backend: Backend) -> None:
    out = check(
        backend,
        """
async def main():
    loop = asyncio.get_running_loop()
    started = time.monotonic()
    def child():
        other = new_event_loop()
        thread = threading.Thread(target=other.run_forever)
        thread.start()
        for _ in range(100):
            other.call_soon_threadsafe(int)
        print(asyncio.run_coroutine_threadsafe(answer("child"), other).result(10))
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()
    in_child(child)
    await asyncio.sleep(0.01)
    return "parent"
print(run(main()))
""",
    )
    assert out == "child\nchild ended 0\nparent\n"


def test_closing_in_the_child_leaves_the_parent_alone(backend: Backend) -> None:
    """Both processes share one epoll: the child must not take the parent's descriptors out."""
    out = check(
        backend,
        """
import socket
left, right = socket.socketpair()
loop = new_event_loop()
seen = []
loop.add_reader(left, lambda: (seen.append(left.recv(10)), loop.stop()))
loop.call_soon(loop.stop)
loop.run_forever()
def child():
    loop.close()
in_child(child)
right.send(b"hello")
loop.call_later(10, loop.stop)
loop.run_forever()
print(seen)
loop.remove_reader(left)
loop.close()
""",
    )
    assert out == "child ended 0\n[b'hello']\n"


def test_child_that_ends_while_tasks_wait(backend: Backend) -> None:
    """os._exit in the child: the parent's tasks and timers are untouched."""
    out = check(
        backend,
        """
async def main():
    tasks = [asyncio.ensure_future(answer(n)) for n in range(5)]
    await asyncio.sleep(0)
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return await asyncio.gather(*tasks)
print(run(main()))
""",
    )
    assert out == "[0, 1, 2, 3, 4]\n"


def test_signals_in_the_child_do_not_reach_the_parents_loop(backend: Backend) -> None:
    """The wakeup descriptor is shared after a fork: the child must not write into it."""
    out = check(
        backend,
        """
async def main():
    loop = asyncio.get_running_loop()
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "parent got it")
    def child():
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        os.kill(os.getpid(), signal.SIGUSR1)
    in_child(child)
    await asyncio.sleep(0.02)
    print(seen)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.02)
    print(seen)
run(main())
""",
    )
    assert out == "child ended 0\n[]\n['parent got it']\n"


def test_multiprocessing(backend: Backend) -> None:
    out = check(
        backend,
        """
import multiprocessing
def work(queue, value):
    queue.put(run(answer(value)))
async def main():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=work, args=(queue, n)) for n in range(3)]
    for process in processes:
        process.start()
    seen = sorted([await asyncio.to_thread(queue.get) for _ in processes])
    for process in processes:
        await asyncio.to_thread(process.join)
    return seen
print(run(main()))
""",
    )
    assert out == "[0, 1, 2]\n"


def test_process_pool(backend: Backend) -> None:
    out = check(
        backend,
        """
import concurrent.futures, multiprocessing
def square(number):
    return number * number
async def main():
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        return await asyncio.gather(*(loop.run_in_executor(pool, square, n) for n in range(10)))
print(run(main()))
""",
    )
    assert out == f"{[number * number for number in range(10)]}\n"


def test_grandchildren(backend: Backend) -> None:
    out = check(
        backend,
        """
def child():
    print(run(answer("child")))
    in_child(lambda: print(run(answer("grandchild"))))
run(answer())
in_child(child)
print(run(answer("parent")))
""",
    )
    assert out == "child\ngrandchild\nchild ended 0\nchild ended 0\nparent\n"


def test_fork_while_another_thread_runs_a_loop(backend: Backend) -> None:
    """The other thread does not exist in the child; nothing may wait for what it held."""
    out = check(
        backend,
        """
loop = new_event_loop()
started = threading.Event()
loop.call_soon(started.set)
thread = threading.Thread(target=loop.run_forever)
thread.start()
started.wait()
for _ in range(5):
    for _ in range(100):
        loop.call_soon_threadsafe(int)
    in_child(lambda: print(run(answer("child"))))
loop.call_soon_threadsafe(loop.stop)
thread.join()
loop.close()
print(run(answer("parent")))
""",
    )
    assert out == "child\nchild ended 0\n" * 5 + "parent\n"


def test_tasks_of_the_parent_in_the_child(backend: Backend) -> None:
    """asyncio forgets the parent's current task in the child; objects can be looked at still."""
    out = check(
        backend,
        """
async def main():
    task = asyncio.current_task()
    def child():
        print(task.done(), task.get_name(), "main" in repr(task))
        task.get_stack()
        async def inner():
            return asyncio.current_task() is not task
        print(run(inner()))
    in_child(child)
    assert asyncio.current_task() is task
    await asyncio.sleep(0)
run(main())
""",
    )
    assert out.splitlines()[-1] == "child ended 0"
    assert out.splitlines()[1] == "True"


def test_subprocess_module(backend: Backend) -> None:
    """`subprocess.run` in a callback: fork and exec with the loop's descriptors about."""
    out = check(
        backend,
        """
import subprocess
async def main():
    show = "import os; print(sorted(os.listdir('/proc/self/fd')))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True,
                          close_fds=False)
    await asyncio.sleep(0.001)
    return done.stdout
print(run(main()), end="")
""",
    )
    # Every descriptor of the loop is close-on-exec: the child has its three, and one to list with.
    assert out == "['0', '1', '2', '3']\n"
