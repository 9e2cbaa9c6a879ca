"""The event loop: native where it runs per callback, asyncio's own code where it runs once per loop
or connection.

``asyncio.BaseEventLoop`` is made to be completed by loops that schedule and poll; asyncio completes
it with a selector or a proactor, Weft with its native part. What is inherited here and not replaced
(name resolution, happy eyeballs, executors, servers, subprocesses, asynchronous generators,
exception handlers) is asyncio's own code of the running Python version, and so are its errors and
messages.
"""

from __future__ import annotations

import sys
import threading
from asyncio import base_events
from collections.abc import Callable
from typing import Any, TypeVarTuple

from weft import _compat, _registry
from weft._children import Children, Processes
from weft._connections import Connections
from weft._readiness import ReadinessView
from weft._sendfile import Files
from weft._weft import EventLoop

# Its names are looked up as asyncio's own loop does it, which is where tests replace them.
_base: Any = base_events

__all__ = ["Loop"]

_Ts = TypeVarTuple("_Ts")


class Loop(Connections, Processes, Files):
    """An asyncio event loop.

    Make one with `weft.new_event_loop()`; use it wherever an `asyncio.AbstractEventLoop` is
    expected.

    Futures and tasks that it makes are `weft.Future` and `weft.Task`, which are subclasses of
    `asyncio.Future` and `asyncio.Task`. Like asyncio's loops it belongs to the thread that runs it;
    from another one, only `call_soon_threadsafe()` may be called.
    """

    def __init__(self) -> None:
        _registry.connect()
        self._prepare()
        super().__init__(ReadinessView(self))
        self._children = Children(self)

    # -- running -----------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Run until `stop()` is called.

        Raises RuntimeError where this loop is closed or running, or another one runs in this
        thread.
        """
        self._check_closed()
        self._check_running()
        self._set_coroutine_origin_tracking(self._debug)
        hooks = sys.get_asyncgen_hooks()
        try:
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
            )
            _compat.set_running_loop(self)
            self._run()
        finally:
            self._stopping = False
            self._thread_id = None
            _compat.set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)

    def close(self) -> None:
        """Close the loop and drop everything that is scheduled; without effect on a closed loop.

        The default executor is told to end but not waited for. Raises RuntimeError where the loop
        is running.
        """
        super().close()
        self._children.close()
        self._release()

    # -- names -------------------------------------------------------------------------------------

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """`socket.getaddrinfo()` in a thread.

        In one of its own kind: names that take long to resolve do not keep `to_thread()` and
        `run_in_executor()` waiting. An executor set by `set_default_executor()` gets them as well.
        """
        function = self._getaddrinfo_debug if self._debug else _base.socket.getaddrinfo
        arguments = host, port, family, type, proto, flags
        return await self.run_in_executor(self._names_executor(), function, *arguments)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """`socket.getnameinfo()` in a thread, as `getaddrinfo()`."""
        function = _base.socket.getnameinfo
        return await self.run_in_executor(self._names_executor(), function, sockaddr, flags)

    def _names_executor(self) -> Any:
        """What resolves names; None where the default executor does."""
        if self._executor_shutdown_called or self._replaces_run_in_executor():
            return None
        from weft._executor import Executor, default_executor

        if self._default_executor is None:
            self._default_executor = default_executor()
        executor = self._default_executor
        return executor.names() if type(executor) is Executor else None

    def _replaces_run_in_executor(self) -> bool:
        native: Any = EventLoop.run_in_executor
        return bool(self.run_in_executor != native.__get__(self))

    def _create_task_by_factory(self, coro: Any, **kwargs: Any) -> Any:
        return _compat.make_task_by_factory(self, coro, kwargs)

    # -- waking and signals ------------------------------------------------------------------------

    # Other threads wake the poll through a descriptor of the native part, so the socket pair that
    # asyncio's loop wakes itself with serves signals alone, and is there once a handler is.

    def _make_self_pipe(self) -> None:
        self._internal_fds += 1
        self._ssock = self._csock = None

    def _close_self_pipe(self) -> None:
        if self._csock is not None:
            super()._close_self_pipe()
        self._internal_fds -= 1

    def add_signal_handler(self, sig: int, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call `callback(*args)` in the loop when the signal `sig` arrives.

        Raises ValueError for a signal that cannot be caught or outside the main thread,
        RuntimeError where the handler cannot be set, TypeError for a coroutine (function).
        """
        if self._csock is None and not self.is_closed():
            super()._make_self_pipe()
        super().add_signal_handler(sig, callback, *args)
