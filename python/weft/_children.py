"""Child processes: how a loop learns of their end.

A child of this loop has a process descriptor (pidfd), which the loop watches: no thread, no signal,
and loops of all threads may have children. A child that somebody else reaps is noticed too. Its
transport is asyncio's own, and so are what it starts, its pipes and the order of its calls.

Where the program has set a child watcher of asyncio's (Python 3.11 to 3.13), that one does it, by
inherited code. Where a process descriptor cannot be had, a thread of asyncio's waits for the child.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import unix_events
from asyncio.log import logger
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from weft import _compat
from weft._base import BaseLoop

if TYPE_CHECKING:
    from weft._loop import Loop

__all__ = ["Children", "Processes"]

_unix: Any = unix_events


class Children:
    """The children of one loop that have not ended, by their process descriptors."""

    def __init__(self, loop: Any) -> None:
        self._loop: Loop | None = loop
        self._running: set[int] = set()

    def add_child_handler(self, pid: int, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback(pid, returncode, *args)` in the loop when the child has ended."""
        loop = self._loop
        assert loop is not None
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            # Somebody has reaped it already.
            loop.call_soon(self._ended, pid, -1, callback, args)
            return
        except OSError:
            # There is no such thing here, or no descriptor is left. A thread needs none.
            _compat.threaded_child_watcher().add_child_handler(pid, callback, *args)
            return
        self._running.add(descriptor)
        loop._add_reader(descriptor, self._ended, pid, descriptor, callback, args)

    def _ended(
        self, pid: int, descriptor: int, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        returncode = None
        if descriptor != -1:
            try:
                returncode = _reap(pid, descriptor)
            finally:
                self._forget(descriptor)
        if returncode is None:
            returncode = 255
            logger.warning(
                "child process pid %d exit status already read:  will report returncode 255", pid
            )
        callback(pid, returncode, *args)

    def _forget(self, descriptor: int) -> None:
        self._running.discard(descriptor)
        if self._loop is not None:
            self._loop._remove_reader(descriptor)
        os.close(descriptor)

    def close(self) -> None:
        """Forget the children, which go on."""
        while self._running:
            self._forget(next(iter(self._running)))
        self._loop = None


def _reap(pid: int, descriptor: int) -> int | None:
    """The return code of a child that has ended; None if somebody else has had it."""
    try:
        # The descriptor is asked first: the number may be that of another child by now, which runs.
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOWAIT)
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status)


class Processes(BaseLoop):
    """The part of the loop that makes child processes."""

    _children: Children

    async def _make_subprocess_transport(
        self, protocol: Any, args: Any, shell: bool, *pipes: Any, **kwargs: Any
    ) -> Any:
        if not _compat.leaves_children_to_loops(self):
            return await super()._make_subprocess_transport(protocol, args, shell, *pipes, **kwargs)
        extra = kwargs.pop("extra", None)
        waiter = self.create_future()
        transport = _unix._UnixSubprocessTransport(
            self, protocol, args, shell, *pipes, waiter=waiter, extra=extra, **kwargs
        )
        self._children.add_child_handler(
            transport.get_pid(), self._child_watcher_callback, transport
        )
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await asyncio.shield(transport._wait())
            raise
        finally:
            # The exception in it refers to this frame.
            del waiter
        return transport
