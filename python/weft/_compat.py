"""Where the supported versions of Python differ, and nothing else.

The rest of the package asks here, and never for the version. Each entry says what changed and when;
one whose reason is gone with the oldest supported version goes with it.
"""

from __future__ import annotations

import contextvars
import functools
import linecache
import operator
import os
import sys
import textwrap
import weakref
from _asyncio import _set_running_loop as _c_set_running_loop
from asyncio import events, tasks, unix_events
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable
from types import CodeType
from typing import Any

if sys.version_info >= (3, 14):
    # Deprecated, to be removed in 3.16: whoever asks by the public names is warned, so we do not.
    from asyncio.events import _get_event_loop_policy as get_policy
    from asyncio.events import _set_event_loop_policy as set_policy
    from asyncio.unix_events import _DefaultEventLoopPolicy as DefaultEventLoopPolicy
else:
    from asyncio import DefaultEventLoopPolicy
    from asyncio import get_event_loop_policy as get_policy
    from asyncio import set_event_loop_policy as set_policy

__all__ = [
    "SERVERS_HAVE_CONTEXTS",
    "DefaultEventLoopPolicy",
    "context_before_protocol",
    "get_policy",
    "leaves_children_to_loops",
    "main_annotations",
    "main_file",
    "make_task_by_factory",
    "runner_of_work_items",
    "scheduled_tasks",
    "set_policy",
    "set_running_loop",
    "show_source",
    "threaded_child_watcher",
    "without_margin",
]


def scheduled_tasks() -> weakref.WeakSet[Any] | None:
    """asyncio's set of tasks; None from 3.14 on, where the registry in C takes native tasks in."""
    # 3.12 gave eager tasks a set of their own.
    name = "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks"
    return None if sys.version_info >= (3, 14) else getattr(tasks, name)


def make_task_by_factory(loop: Any, coro: Any, kwargs: dict[str, Any]) -> Any:
    """Do what `loop.create_task(coro, **kwargs)` does where the loop has a task factory.

    asyncio's own method does it, but for the first releases of 3.13: those pass no further keyword
    on, and insist on naming what the factory returns, even if it is a plain future.
    """
    if not (3, 13) <= sys.version_info < (3, 13, 3):
        return BaseEventLoop.create_task(loop, coro, **kwargs)
    name = kwargs.pop("name", None)
    if kwargs.get("context", ...) is None:
        del kwargs["context"]
    task = loop.get_task_factory()(loop, coro, **kwargs)
    if name is not None and hasattr(task, "set_name"):
        task.set_name(name)
    return task


# What asyncio watches child processes with by itself. 3.12 went over from threads to process
# descriptors, 3.14 from the policy to the loops.
_CHILD_WATCHERS = {
    (3, 11): "ThreadedChildWatcher",
    (3, 12): "PidfdChildWatcher",
    (3, 13): "PidfdChildWatcher",
    (3, 14): "_PidfdChildWatcher",
}


def leaves_children_to_loops(loop: Any) -> bool:
    """Whether nobody but `loop` wants to say how it learns of the end of its child processes.

    Up to 3.13 that was the policy's affair: who sets a child watcher, or has a policy with one of
    its own, gets it, unless it is of the kind that asyncio makes by itself. From 3.14 on each loop
    has a watcher; tests replace what it is made of.
    """
    if not (hasattr(os, "pidfd_open") and hasattr(os, "P_PIDFD")):
        # A Python that was built where the kernel's headers did not know them.
        return False
    name = _CHILD_WATCHERS[min(sys.version_info[:2], (3, 14))]
    watcher: Any = getattr(unix_events, name)
    if name.startswith("_"):
        return type(loop._watcher) is watcher
    policy: Any = get_policy()
    original: Any = DefaultEventLoopPolicy
    if type(policy).get_child_watcher is not original.get_child_watcher:
        return False
    return type(policy._watcher) in (type(None), watcher)


@functools.cache
def threaded_child_watcher() -> Any:
    """Make threads that wait for children."""
    # 3.14 made it private.
    name = "_ThreadedChildWatcher" if sys.version_info >= (3, 14) else "ThreadedChildWatcher"
    return getattr(unix_events, name)()


# From 3.15 on a server remembers the context that it was made in, and serves in copies of it.
SERVERS_HAVE_CONTEXTS = sys.version_info >= (3, 15)


def context_before_protocol() -> contextvars.Context | None:
    """What a client's transport is to call its protocol in; None for what it is made in.

    From 3.15 on that leaves out what the protocol's factory sets.
    """
    return contextvars.copy_context() if sys.version_info >= (3, 15) else None


def runner_of_work_items(executor: Any) -> Callable[[Any], object]:
    """What a thread of a `ThreadPoolExecutor` calls with each work item."""
    # From 3.14 on a worker has a context; without an initializer one is as good as the other.
    further = (executor._create_worker_context(),) if sys.version_info >= (3, 14) else ()
    return operator.methodcaller("run", *further)


def main_annotations() -> dict[str, Any]:
    """What a fresh `__main__` has for annotations; nothing from 3.14 on, where they are lazy."""
    return {} if sys.version_info >= (3, 14) else {"__annotations__": {}}


def main_file(path: str) -> dict[str, Any]:
    """What `__main__` has to say of its file: nothing of a cached one from 3.15 on."""
    return {"__file__": path} | ({} if sys.version_info >= (3, 15) else {"__cached__": None})


def without_margin(code: str) -> str:
    """The code of `-c`, which may be indented as a whole from 3.14 on."""
    return textwrap.dedent(code) if sys.version_info >= (3, 14) else code


def show_source(code: CodeType, source: str) -> None:
    """Let tracebacks show the lines of `-c`, as they do from 3.13 on."""
    if sys.version_info >= (3, 13):
        # Later releases tell code from other code of no file; the first ones go by its name.
        key = code if hasattr(linecache, "_interactive_cache") else code.co_filename
        linecache._register_code(key, source, code.co_filename)  # type: ignore[attr-defined]


def set_running_loop(loop: Any) -> None:
    """Set the thread's running loop, for asyncio's functions in Python and in C.

    They are the same functions unless somebody has put the Python ones in place of the C ones; what
    runs native tasks asks C (from Python 3.14 on).
    """
    events._set_running_loop(loop)
    if events._set_running_loop is not _c_set_running_loop:
        _c_set_running_loop(loop)
