"""Python's asyncio, implemented in Rust.

``weft.run(main())`` runs a program on Weft; ``python -m weft program.py`` does so without a change
to it. Importing this package changes nothing that a program can see.
"""

from weft._install import EventLoopPolicy, install, new_event_loop, run, uninstall
from weft._loop import Loop
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
    wait,
)

__all__ = [
    "EventLoopPolicy",
    "Future",
    "Handle",
    "Loop",
    "Task",
    "TimerHandle",
    "__version__",
    "as_completed",
    "create_task",
    "ensure_future",
    "gather",
    "install",
    "new_event_loop",
    "run",
    "shield",
    "uninstall",
    "wait",
]
