"""Connections and servers: who owns a socket at every step until a native transport does.

Inherited from asyncio are name resolution, the race between addresses, and the server object. What
is replaced here makes native transports, and closes sockets that asyncio would leave to the garbage
collector. The rules:

- A socket that a connection attempt has made belongs to the race of the attempts, which closes all
  but the winner.
- The winner, and a socket that the caller hands over, belongs to the call that makes its transport,
  and is closed if that fails; from then on it is the transport's.
- An accepted socket has its transport, or is closed, before the accepting callback returns.
- The socket of a datagram endpoint, too, is closed where its transport cannot be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import functools
import socket
from asyncio import base_events, constants, sslproto, trsock
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar, cast

from weft import _weft
from weft._base import BaseLoop

__all__ = ["Connections"]

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _replaces(original: _Method) -> Callable[[Callable[..., Any]], _Method]:
    """Give a method the signature, types and documentation of the one that it replaces."""

    def declare(method: Callable[..., Any]) -> _Method:
        functools.update_wrapper(method, original, assigned=["__doc__"], updated=[])
        return cast(_Method, method)

    return declare


class _Race:
    """The sockets that one `create_connection()` has connected, of which one at most wins."""

    def __init__(self) -> None:
        self._connected: list[socket.socket] = []
        self._over = False

    def add(self, sock: socket.socket) -> None:
        """Take part; who comes too late is closed."""
        if self._over:
            sock.close()
        else:
            self._connected.append(sock)

    def win(self, sock: socket.socket) -> None:
        """Let `sock` leave with the victory, if it takes part at all."""
        if sock in self._connected:
            self._connected.remove(sock)
            self.end()

    def end(self) -> None:
        """Close every socket that is left."""
        self._over = True
        while self._connected:
            self._connected.pop().close()


class _LateProtocol:
    """Stands for a protocol until the transport is made."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory = factory
        self.protocol: Any = None

    def make(self) -> Any:
        self.protocol = self._factory()
        return self.protocol

    def __repr__(self) -> str:
        # In debug mode the loop logs what has been made.
        return repr(self.protocol)


_race: contextvars.ContextVar[_Race | None] = contextvars.ContextVar("_race", default=None)


class Connections(BaseLoop):
    """The part of the loop that makes connections and servers."""

    # -- connecting --------------------------------------------------------------------------------

    @_replaces(asyncio.SelectorEventLoop.create_connection)
    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        # The attempts may be tasks of their own, which inherit this context.
        race = _Race()
        token = _race.set(race)
        try:
            return await super().create_connection(*args, **kwargs)
        finally:
            race.end()
            try:
                _race.reset(token)
            except ValueError:
                # Closed from outside (as a task's coroutine is when the task is destroyed), in a
                # context that never had our variable.
                pass

    async def _connect_sock(self, *args: Any) -> socket.socket:
        try:
            sock = await super()._connect_sock(*args)
        finally:
            # The exceptions in it refer to this frame.
            del args
        race = _race.get()
        if race is not None:
            race.add(sock)
        return sock

    async def _create_connection_transport(
        self,
        sock: socket.socket,
        protocol_factory: Callable[[], Any],
        ssl: Any,
        server_hostname: str | None,
        server_side: bool = False,
        **timeouts: Any,
    ) -> tuple[Any, Any]:
        # Another transport's descriptor is not this call's to close.
        # What has no descriptor at all is refused further down, where it is closed.
        with contextlib.suppress(ValueError):
            self._ensure_fd_no_transport(sock)
        race = _race.get()
        if race is not None:
            race.win(sock)
        try:
            sock.setblocking(False)
            protocol = protocol_factory()
            waiter = self.create_future()
            if ssl:
                transport = self._make_ssl_transport(
                    sock,
                    protocol,
                    None if isinstance(ssl, bool) else ssl,
                    waiter,
                    server_side=server_side,
                    server_hostname=server_hostname,
                    **timeouts,
                )
            else:
                transport = self._make_socket_transport(sock, protocol, waiter)
        except BaseException:
            sock.close()
            raise
        await self._connected(transport, waiter)
        return transport, protocol

    async def _connected(self, transport: Any, waiter: asyncio.Future[None]) -> None:
        """Wait until a transport is connected; who does not wait to the end closes it."""
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        finally:
            # The exception in it refers to this frame.
            del waiter

    # -- datagrams ---------------------------------------------------------------------------------

    @_replaces(asyncio.SelectorEventLoop.create_datagram_endpoint)
    async def create_datagram_endpoint(
        self, protocol_factory: Callable[[], Any], *args: Any, **kwargs: Any
    ) -> Any:
        # The protocol is made where the socket is at hand, which is closed if that fails.
        late = _LateProtocol(protocol_factory)
        transport, _ = await super().create_datagram_endpoint(lambda: late, *args, **kwargs)
        return transport, late.protocol

    # -- serving -----------------------------------------------------------------------------------

    @_replaces(asyncio.SelectorEventLoop.create_server)
    async def create_server(
        self, *args: Any, start_serving: bool = True, **kwargs: Any
    ) -> asyncio.Server:
        server = await super().create_server(*args, start_serving=False, **kwargs)
        return await self._started(server, start_serving)

    @_replaces(asyncio.SelectorEventLoop.create_unix_server)
    async def create_unix_server(
        self, *args: Any, start_serving: bool = True, **kwargs: Any
    ) -> asyncio.Server:
        server = await super().create_unix_server(*args, start_serving=False, **kwargs)
        return await self._started(server, start_serving)

    async def _started(self, server: Any, start_serving: bool) -> asyncio.Server:
        """Start a server. Who fails, or is cancelled meanwhile, has none, so it is closed."""
        if start_serving:
            try:
                server._start_serving()
                # A turn, so that the server accepts when the caller goes on, as in asyncio.
                await asyncio.sleep(0)
            except BaseException:
                server.close()
                raise
        return cast(asyncio.Server, server)

    def _accept_connection(
        self,
        protocol_factory: Callable[[], Any],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
    ) -> None:
        for _ in range(backlog + 1):
            if sock.fileno() == -1:
                # A protocol factory has closed the server.
                return
            try:
                conn, peername = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                # The kernel goes on to report the listener as ready, so it is left alone for a
                # while.
                self.call_exception_handler(
                    {
                        "message": "socket.accept() out of system resource",
                        "exception": error,
                        "socket": trsock.TransportSocket(sock),
                    }
                )
                self._remove_reader(sock.fileno())
                self.call_later(
                    constants.ACCEPT_RETRY_DELAY,
                    self._accept_again,
                    protocol_factory,
                    sock,
                    sslcontext,
                    server,
                    backlog,
                    ssl_handshake_timeout,
                    ssl_shutdown_timeout,
                )
                return
            if self._debug:
                logger.debug("%r got a new connection from %r: %r", server, peername, conn)
            # Each connection has a context of its own, as if it were served in a task.
            contextvars.copy_context().run(
                self._serve,
                protocol_factory,
                conn,
                sslcontext,
                extra={"peername": peername},
                server=server,
                timeouts={
                    "ssl_handshake_timeout": ssl_handshake_timeout,
                    "ssl_shutdown_timeout": ssl_shutdown_timeout,
                },
            )

    def _accept_again(
        self, protocol_factory: Callable[[], Any], sock: socket.socket, *args: Any
    ) -> None:
        # The server may have been closed since.
        if sock.fileno() != -1:
            self._start_serving(protocol_factory, sock, *args)

    def _serve(
        self,
        protocol_factory: Callable[[], Any],
        conn: socket.socket,
        sslcontext: Any,
        *,
        extra: dict[str, Any],
        server: Any,
        timeouts: dict[str, Any],
    ) -> None:
        """Give an accepted connection its transport. Only TLS has to be waited for, in a task."""
        protocol = None
        try:
            conn.setblocking(False)
            protocol = protocol_factory()
            if not sslcontext:
                self._make_socket_transport(conn, protocol, extra=extra, server=server)
                return
            waiter = self.create_future()
            transport = self._make_ssl_transport(
                conn, protocol, sslcontext, waiter,
                server_side=True, extra=extra, server=server, **timeouts,
            )  # fmt: skip
        except BaseException as error:
            conn.close()
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise
            self._report_accepting(error, protocol, None)
        else:
            self.create_task(self._shake_hands(transport, protocol, waiter))

    async def _shake_hands(
        self, transport: Any, protocol: Any, waiter: asyncio.Future[None]
    ) -> None:
        try:
            await self._connected(transport, waiter)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report_accepting(error, protocol, transport)
        finally:
            del waiter

    def _report_accepting(self, error: BaseException, protocol: Any, transport: Any) -> None:
        """Name in debug mode why a client was turned away; else it is the client's own affair."""
        if self._debug:
            context = {
                "message": "Error on transport creation for incoming connection",
                "exception": error,
            }
            if protocol is not None:
                context["protocol"] = protocol
            if transport is not None:
                context["transport"] = transport
            self.call_exception_handler(context)

    # -- transports --------------------------------------------------------------------------------

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
    ) -> _weft.StreamTransport:
        self._ensure_fd_no_transport(sock)
        base_events._set_nodelay(sock)  # type: ignore[attr-defined]
        transport = _weft.StreamTransport(self, sock, protocol, waiter, extra, server)
        self._transports[transport._sock_fd] = transport
        return transport

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: Any,
        address: Any = None,
        waiter: Any = None,
        extra: Any = None,
    ) -> _weft.DatagramTransport:
        # Another transport's descriptor is not this call's to close.
        self._ensure_fd_no_transport(sock)
        try:
            if isinstance(protocol, _LateProtocol):
                protocol = protocol.make()
            transport = _weft.DatagramTransport(self, sock, protocol, address, waiter, extra)
        except BaseException:
            sock.close()
            raise
        self._transports[transport._sock_fd] = transport
        return transport

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: Any = None,
        server: Any = None,
        **timeouts: Any,
    ) -> Any:
        ssl_protocol = sslproto.SSLProtocol(
            self, protocol, sslcontext, waiter, server_side, server_hostname, **timeouts
        )
        try:
            self._make_socket_transport(rawsock, ssl_protocol, extra=extra, server=server)
        except BaseException:
            # It never was open, so nobody has to close it.
            ssl_protocol._app_transport._closed = True
            raise
        return ssl_protocol._app_transport
