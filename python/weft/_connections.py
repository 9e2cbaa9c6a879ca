"""Connections and servers: who owns a socket at every step until a native transport does.

Inherited from asyncio are name resolution, the race between addresses, and the server object. What
is replaced here makes native transports, and closes sockets that asyncio would leave to the garbage
collector. Accepting, and connecting to one numeric address, is native altogether. The rules:

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
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, TypeVar, cast

from weft import _weft
from weft._base import BaseLoop
from weft._compat import SERVERS_HAVE_CONTEXTS, context_before_protocol

__all__ = ["Connections"]

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

# What create_connection() takes by name, and takes None for as if it had not been given.
_ABSENT = {
    name
    for name, value in (asyncio.SelectorEventLoop.create_connection.__kwdefaults__ or {}).items()
    if value is None
}

_Method = TypeVar("_Method", bound=Callable[..., Any])
_Result = TypeVar("_Result")


def _replaces(original: _Method) -> Callable[[Callable[..., Any]], _Method]:
    """Give a method the signature, types and documentation of the one that it replaces."""

    def declare(method: Callable[..., Any]) -> _Method:
        functools.update_wrapper(method, original, assigned=["__doc__"], updated=[])
        return cast(_Method, method)

    return declare


def _in_copy(
    context: contextvars.Context | None, function: Callable[..., _Result], *args: Any
) -> _Result:
    """Call a function in a copy of the context; the context itself may be entered already."""
    return function(*args) if context is None else context.copy().run(function, *args)


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


class _Transports(MutableMapping[int, Any]):
    """What asyncio's code sees of the native table of transports: a mapping that is weak."""

    def __init__(self, loop: _weft.EventLoop) -> None:
        self._loop = loop

    def __getitem__(self, fd: int) -> Any:
        return self._loop._owners()[fd]

    def __setitem__(self, fd: int, transport: Any) -> None:
        self._loop._set_owner(fd, transport)

    def __delitem__(self, fd: int) -> None:
        self._loop._owners()[fd]
        self._loop._set_owner(fd, None)

    def __iter__(self) -> Iterator[int]:
        return iter(self._loop._owners())

    def __len__(self) -> int:
        return len(self._loop._owners())


class _Clients(_weft.Clients):
    """The transports that a server has accepted and not lost, without keeping them alive.

    asyncio has a `WeakSet` here. A transport takes itself out whichever way it ends, so this one
    needs no callbacks, and costs a connection less.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.copy())

    def __contains__(self, transport: object) -> bool:
        return transport in self.copy()

    def __len__(self) -> int:
        return self._count()


_race: contextvars.ContextVar[_Race | None] = contextvars.ContextVar("_race", default=None)


class Connections(BaseLoop):
    """The part of the loop that makes connections and servers."""

    # -- connecting --------------------------------------------------------------------------------

    @_replaces(asyncio.SelectorEventLoop.create_connection)
    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **kwargs: Any
    ) -> Any:
        if not kwargs or all(kwargs[name] is None and name in _ABSENT for name in kwargs):
            connecting = self._connect_numeric(protocol_factory, host, port)
            if connecting is not None:
                return await connecting
        # The attempts may be tasks of their own, which inherit this context.
        race = _Race()
        token = _race.set(race)
        try:
            return await super().create_connection(protocol_factory, host, port, **kwargs)
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
        *,
        context: contextvars.Context | None = None,
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
            if context is None:
                context = context_before_protocol()
            # Before 3.15 nobody knows of contexts here, and subclasses may replace what is called.
            further = {} if context is None else {"context": context}
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
                    **further,
                    **timeouts,
                )
            else:
                transport = self._make_socket_transport(sock, protocol, waiter, **further)
        except BaseException:
            sock.close()
            raise
        try:
            await self._connected(transport, waiter)
        finally:
            # The exception in it refers to this frame.
            del waiter
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
    async def create_datagram_endpoint(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], *args: Any, **kwargs: Any
    ) -> tuple[asyncio.DatagramTransport, Any]:
        # The protocol is made where the socket is at hand, which is closed if that fails.
        late: Any = _LateProtocol(protocol_factory)
        transport, _ = await super().create_datagram_endpoint(lambda: late, *args, **kwargs)
        return transport, late.protocol

    # -- serving -----------------------------------------------------------------------------------

    def _start_serving(
        self,
        protocol_factory: Callable[[], Any],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: contextvars.Context | None = None,
    ) -> None:
        # From 3.15 on a server serves in the context that it was made in, as before in the one that
        # it was started in. What is called for a connection has a copy.
        _in_copy(
            context,
            self._add_reader,
            sock.fileno(),
            self._accept_connections,
            protocol_factory,
            sock,
            sslcontext,
            server,
            backlog,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
        )

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
        if hasattr(server, "_clients"):
            server._clients = _Clients()
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
        context: contextvars.Context | None = None,
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
                    *([context] if SERVERS_HAVE_CONTEXTS else []),
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
        """Give an accepted connection its transport, which shakes hands by itself for TLS."""
        protocol = None
        try:
            conn.setblocking(False)
            protocol = protocol_factory()
            if not sslcontext:
                self._make_socket_transport(conn, protocol, extra=extra, server=server)
                return
            # Whom a client was turned away for is told in debug mode alone; nobody else waits.
            waiter = self.create_future() if self._debug else None
            transport = self._make_ssl_transport(
                conn, protocol, sslcontext, waiter,
                server_side=True, extra=extra, server=server, **timeouts,
            )  # fmt: skip
            if waiter is not None:
                waiter.add_done_callback(functools.partial(self._shaken, transport, protocol))
        except BaseException as error:
            conn.close()
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise
            self._report_accepting(error, protocol, None)

    def _shaken(self, transport: Any, protocol: Any, waiter: asyncio.Future[None]) -> None:
        """Report in debug mode the handshake that has failed."""
        if not waiter.cancelled() and (error := waiter.exception()) is not None:
            self._report_accepting(error, protocol, transport)

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

    @property
    def _transports(self) -> _Transports:
        """Transports by their descriptors. asyncio takes one out while it sends a file itself."""
        return _Transports(self)

    @_transports.setter
    def _transports(self, _: object) -> None:
        # asyncio's initialisation makes a table of its own. Nobody would read it.
        pass

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
        context: contextvars.Context | None = None,
    ) -> _weft.StreamTransport:
        self._ensure_fd_no_transport(sock)
        if type(sock) is not socket.socket:
            base_events._set_nodelay(sock)  # type: ignore[attr-defined]
        # It calls its protocol in the context that it is made in.
        return _in_copy(context, _weft.StreamTransport, self, sock, protocol, waiter, extra, server)

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
            return _weft.DatagramTransport(self, sock, protocol, address, waiter, extra)
        except BaseException:
            sock.close()
            raise

    def _make_read_pipe_transport(
        self, pipe: Any, protocol: Any, waiter: Any = None, extra: Any = None
    ) -> _weft.ReadPipeTransport:
        return _weft.ReadPipeTransport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(
        self, pipe: Any, protocol: Any, waiter: Any = None, extra: Any = None
    ) -> _weft.WritePipeTransport:
        return _weft.WritePipeTransport(self, pipe, protocol, waiter, extra)

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
        context: contextvars.Context | None = None,
        **timeouts: Any,
    ) -> Any:
        transport = self._secured(
            protocol, sslcontext, waiter, server_side, server_hostname, **timeouts
        )
        self._make_socket_transport(rawsock, transport, extra=extra, server=server, context=context)
        return transport

    def _secured(
        self,
        protocol: Any,
        sslcontext: Any,
        waiter: Any,
        server_side: bool,
        server_hostname: str | None,
        *,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        call_connection_made: bool = True,
    ) -> _weft.SSLTransport:
        """Return a TLS transport that waits for the one below it."""
        if sslproto.ssl is None:  # type: ignore[attr-defined]
            raise RuntimeError("stdlib ssl module not available")
        return _weft.SSLTransport(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
        )

    @_replaces(asyncio.SelectorEventLoop.start_tls)
    async def start_tls(
        self,
        transport: Any,
        protocol: Any,
        sslcontext: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        **timeouts: Any,
    ) -> Any:
        stock = sslproto.ssl is None or not isinstance(sslcontext, sslproto.ssl.SSLContext)  # type: ignore[attr-defined]
        if stock or type(transport) not in (_weft.StreamTransport, _weft.SSLTransport):
            # asyncio's own TLS over what is not ours, and its own words for what cannot be.
            return await super().start_tls(
                transport,
                protocol,
                sslcontext,
                server_side=server_side,
                server_hostname=server_hostname,
                **timeouts,
            )
        waiter = self.create_future()
        secured = self._secured(
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made=False,
            **timeouts,
        )
        # Nothing may arrive before the TLS transport knows what it stands on.
        transport.pause_reading()
        if server_side and isinstance(protocol, asyncio.StreamReaderProtocol):
            # A client that has not waited: what it said after its request is its part of the
            # handshake. asyncio takes it for that in its newest releases.
            reader: Any = protocol._stream_reader  # type: ignore[attr-defined]
            if reader is not None and reader._buffer:
                secured.data_received(bytes(reader._buffer))
                reader._buffer.clear()
        transport.set_protocol(secured)
        connected = self.call_soon(secured.connection_made, transport)
        resumed = self.call_soon(transport.resume_reading)
        try:
            await waiter
        except BaseException:
            transport.close()
            connected.cancel()
            resumed.cancel()
            raise
        finally:
            # The exception in it refers to this frame.
            del waiter
        # What had been closed before it could be upgraded: asyncio says so by None.
        return secured if secured._transport is not None else None
