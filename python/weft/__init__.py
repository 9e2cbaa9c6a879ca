"""Python's asyncio, implemented in Rust.

``weft.run(main())`` runs a program on Weft; ``python -m weft program.py`` does so without a change
to it. Importing this package changes nothing that a program can see.

Every name of asyncio is here, too, so that ``import weft as asyncio`` suits a whole program: those
below are Weft's own, the others are asyncio's objects.
"""

from weft._install import EventLoopPolicy, Runner, install, new_event_loop, run, uninstall
from weft._locks import Barrier, BoundedSemaphore, Condition, Event, Lock, Semaphore
from weft._loop import Loop
from weft._names import *  # noqa: F403 - for type checkers, all of asyncio's; else __getattr__
from weft._names import others
from weft._queues import LifoQueue, PriorityQueue, Queue, QueueShutDown
from weft._streams import (
    StreamReader,
    StreamReaderProtocol,
    StreamWriter,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
)
from weft._taskgroups import TaskGroup
from weft._timeouts import Timeout, timeout, timeout_at, wait_for
from weft._weft import (
    Future,
    Handle,
    Task,
    TimerHandle,
    __version__,
    as_completed,
    create_task,
    ensure_future,
    gather,
    shield,
    sleep,
    to_thread,
    wait,
)

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "EventLoopPolicy",
    "Future",
    "Handle",
    "LifoQueue",
    "Lock",
    "Loop",
    "PriorityQueue",
    "Queue",
    "QueueShutDown",
    "Runner",
    "Semaphore",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "Task",
    "TaskGroup",
    "Timeout",
    "TimerHandle",
    "__version__",
    "as_completed",
    "create_task",
    "ensure_future",
    "gather",
    "install",
    "new_event_loop",
    "open_connection",
    "open_unix_connection",
    "run",
    "shield",
    "sleep",
    "start_server",
    "start_unix_server",
    "timeout",
    "timeout_at",
    "to_thread",
    "uninstall",
    "wait",
    "wait_for",
]

__all__ += others(__all__)
