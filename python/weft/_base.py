"""The seam between asyncio's own loop and the native part.

asyncio's loop has a private interface for the loops that complete it: hooks that it calls and Weft
replaces, steps that Weft calls. What Weft takes from it is declared here, once, for type checkers
and for the reader; a test finds every name of it in the asyncio of the running Python.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from weft import _weft

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

__all__ = ["BaseLoop"]


class BaseLoop(_weft.EventLoop, asyncio.SelectorEventLoop):
    """asyncio's loop over the native part: what is in both is the native part's."""

    # Everything that asyncio's loop keeps in itself. An instance whose dictionary nobody has needed
    # yet is one on which CPython finds methods at once: calls of `loop.call_soon()` and the like
    # take a quarter less. Users' own attributes go to the dictionary, as ever.
    __slots__ = (
        "_asyncgens",
        "_asyncgens_shutdown_called",
        "_children",
        "_clock_resolution",
        "_coroutine_origin_tracking_enabled",
        "_coroutine_origin_tracking_saved_depth",
        "_csock",
        "_current_handle",
        "_exception_handler",
        "_internal_fds",
        "_old_agen_hooks",
        "_ready",
        "_scheduled",
        "_selector",
        "_signal_handlers",
        "_ssock",
        "_timer_cancelled_count",
        "_unix_server_sockets",
        "_watcher",
        "slow_callback_duration",
    )

    if TYPE_CHECKING:
        # What wakes the loop: a number of descriptors, and the socket pair that signals arrive at.
        _internal_fds: int
        _ssock: socket.socket | None
        _csock: socket.socket | None

        def __init__(self, selector: Any) -> None: ...

        # Running.
        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...
        def _asyncgen_firstiter_hook(self, agen: Any) -> None: ...
        def _asyncgen_finalizer_hook(self, agen: Any) -> None: ...

        # Waking.
        def _make_self_pipe(self) -> None: ...
        def _close_self_pipe(self) -> None: ...

        # Child processes.
        def _child_watcher_callback(self, pid: int, returncode: int, transport: Any) -> None: ...
        async def _make_subprocess_transport(
            self, protocol: Any, args: Any, shell: bool, *pipes: Any, **kwargs: Any
        ) -> Any: ...

        # Files.
        async def _sendfile_fallback(
            self, transp: Any, file: Any, offset: int, count: int | None
        ) -> int: ...

        # Names.
        def _getaddrinfo_debug(self, *args: Any) -> Any: ...

        # Connections and servers.
        def _start_serving(
            self, protocol_factory: Callable[[], Any], sock: socket.socket, *args: Any
        ) -> None: ...
        def _accept_connection(
            self, protocol_factory: Callable[[], Any], sock: socket.socket, *args: Any
        ) -> None: ...
        def _make_socket_transport(
            self,
            sock: socket.socket,
            protocol: Any,
            waiter: Any = None,
            *,
            extra: Any = None,
            server: Any = None,
        ) -> Any: ...
        def _make_datagram_transport(
            self,
            sock: socket.socket,
            protocol: Any,
            address: Any = None,
            waiter: Any = None,
            extra: Any = None,
        ) -> Any: ...
        def _make_ssl_transport(
            self,
            rawsock: socket.socket,
            protocol: Any,
            sslcontext: Any,
            waiter: Any = None,
            **kwargs: Any,
        ) -> Any: ...
        async def _connect_sock(self, *args: Any) -> socket.socket: ...
        async def _create_connection_transport(
            self,
            sock: socket.socket,
            protocol_factory: Callable[[], Any],
            ssl: Any,
            server_hostname: str | None,
            server_side: bool = False,
            **kwargs: Any,
        ) -> tuple[Any, Any]: ...
