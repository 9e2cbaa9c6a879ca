"""ProcessPoolExecutor and multiprocessing beside the loop, in a program of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from backends import Backend
from children import python

pytestmark = pytest.mark.slow

PROGRAM = """
import concurrent.futures
import multiprocessing
import os
import signal
import sys
import time

def square(number):
    return number * number, os.getpid()

def fail(number):
    raise ZeroDivisionError(number)

def inner(number):
    async def main():
        await asyncio.sleep(0)
        return number + 1
    return run(main())

async def main(method):
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        results = await asyncio.gather(
            *(loop.run_in_executor(pool, square, number) for number in range(50))
        )
        assert [result for result, _ in results] == [number**2 for number in range(50)]
        assert os.getpid() not in {pid for _, pid in results}
        try:
            await loop.run_in_executor(pool, fail, 7)
        except ZeroDivisionError as error:
            assert error.args == (7,)
        else:
            raise AssertionError
        # A loop of the child's own.
        assert await loop.run_in_executor(pool, inner, 1) == 2
        slow = loop.run_in_executor(pool, time.sleep, 0.2)
        ticks = 0
        while not slow.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 3
        # What is cancelled is cancelled; the others are answered. A worker may have been so quick
        # that there was nothing to wait for.
        waiting = [loop.run_in_executor(pool, square, number) for number in range(100)]
        cancelled = [future.cancel() for future in waiting[1::2]]
        assert any(cancelled)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        for number, result in enumerate(results):
            if number % 2 and cancelled[number // 2]:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result[0] == number**2
        # A worker is killed: whoever waits hears of it, and a new pool works.
        waiting = [loop.run_in_executor(pool, time.sleep, 60) for _ in range(4)]
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, concurrent.futures.process.BrokenProcessPool), result
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert (await loop.run_in_executor(pool, square, 3))[0] == 9
    queue = context.Queue()
    process = context.Process(target=queue.put, args=("from the child",))
    process.start()
    assert await asyncio.to_thread(queue.get, timeout=30) == "from the child"
    await asyncio.to_thread(process.join)
    assert process.exitcode == 0
    queue.close()
    queue.join_thread()
    print("all is well")

if __name__ == "__main__":
    run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_pools_and_processes(backend: Backend, method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(backend.prelude + PROGRAM)
    # Python warns of a fork while threads run; here that is the point.
    ended = python("-W", "ignore::DeprecationWarning", str(program), method)
    assert ended.check() == "all is well\n"
