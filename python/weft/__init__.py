"""Python's asyncio, implemented in Rust.

``weft.run(main())`` runs a program on Weft; ``python -m weft program.py`` does so without a change
to it. Importing this package changes nothing that a program can see.
"""

from weft._install import EventLoopPolicy, install, new_event_loop, run, uninstall
from weft._locks import Barrier, BoundedSemaphore, Condition, Event, Lock, Semaphore
from weft._loop import Loop
from weft._taskgroups import TaskGroup
from weft._timeouts import Timeout, timeout, timeout_at, wait_for
from weft._weft import Future, Handle, Task, TimerHandle, __version__, sleep

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "EventLoopPolicy",
    "Future",
    "Handle",
    "Lock",
    "Loop",
    "Semaphore",
    "Task",
    "TaskGroup",
    "Timeout",
    "TimerHandle",
    "__version__",
    "install",
    "new_event_loop",
    "run",
    "sleep",
    "timeout",
    "timeout_at",
    "uninstall",
    "wait_for",
]
