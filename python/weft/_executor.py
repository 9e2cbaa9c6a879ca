"""The threads behind `loop.run_in_executor(None, ...)` and `to_thread()`.

`Executor` is Python's `ThreadPoolExecutor` with a native queue. Its threads are started, named,
counted and joined by what it inherits, at the end of the interpreter too; what native code puts
into the queue by itself are jobs of a loop, which need no future of `concurrent.futures`.

This module is imported when the first loop needs a thread.
"""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor, thread
from concurrent.futures._base import LOGGER
from types import FunctionType
from typing import Any

from weft import _compat, _weft

__all__ = ["Executor", "default_executor"]


def default_executor() -> Executor:
    """Return a new executor with what asyncio gives its own by default."""
    return Executor(thread_name_prefix="asyncio")


class Executor(_weft.WorkerPool, ThreadPoolExecutor):
    """A `ThreadPoolExecutor` that takes jobs of Weft's loops as well."""

    _work_queue: _weft.WorkQueue
    _threads: set[threading.Thread]

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
        ThreadPoolExecutor.__init__(self, max_workers, thread_name_prefix)
        self._names: Executor | None = None
        queue = _weft.WorkQueue()
        self._work_queue = queue
        # The threads know the executor weakly: one that nobody uses any more ends them.
        executor = weakref.ref(self, lambda _: queue.put(None))

        def has_ended() -> bool:
            own = executor()
            if not (thread._shutdown or own is None or own._shutdown):
                return False
            if own is not None:
                own._shutdown = True
            # The next one shall hear of it too.
            queue.put(None)
            return True

        queue.attend(_compat.runner_of_work_items(self), has_ended)
        _executors.add(self)

    def _is_plain(self) -> bool:
        """Whether nobody has an interest in `submit()` being called."""
        return type(self) is Executor and type(self).submit is _submit and _submit_is_pythons

    def _submit_job(self, job: Any) -> None:
        """Queue a job as `submit()` does a function."""
        with self._shutdown_lock, thread._global_shutdown_lock:
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if thread._shutdown:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            self._work_queue.put(job)
            self._adjust_thread_count()

    def _adjust_thread_count(self) -> None:
        queue = self._work_queue
        if queue.call_worker():
            return
        number = len(self._threads)
        if number < self._max_workers:
            name = f"{self._thread_name_prefix}_{number}"
            worker = threading.Thread(target=_work, args=(queue,), name=name)
            worker.start()
            self._threads.add(worker)
            # Ended and joined before the interpreter ends.
            thread._threads_queues[worker] = queue
        queue.full = len(self._threads) >= self._max_workers

    def names(self) -> Executor:
        """Return the executor for name resolution, which ends with this one.

        A name server that does not answer shall not keep other work from its threads.
        """
        with self._shutdown_lock:
            if self._names is None:
                self._names = Executor(self._max_workers, f"{self._thread_name_prefix}_names")
                self._names._shutdown = self._shutdown
            return self._names

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with `wait`, return when what was there has been done."""
        super().shutdown(False, cancel_futures=cancel_futures)
        if self._names is not None:
            self._names.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            super().shutdown()

    def _after_fork(self) -> None:
        self._threads.clear()
        self._shutdown_lock = threading.Lock()
        self._work_queue.forget()


def _work(queue: _weft.WorkQueue) -> None:
    try:
        queue.work()
    except BaseException:
        LOGGER.critical("Exception in worker", exc_info=True)


_submit = ThreadPoolExecutor.submit
_submit_is_pythons = isinstance(_submit, FunctionType) and _submit.__globals__ is vars(thread)

_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


def _after_fork() -> None:
    """In the child, which has none of the threads: they are started anew for new work."""
    for executor in list(_executors):
        executor._after_fork()


os.register_at_fork(after_in_child=_after_fork)
