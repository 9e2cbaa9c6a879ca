"""Unix sockets: paths, abstract names, stale files, cleaning up."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from backends import PY313
from peers import Run, connected_client, pass_turns, read_all, read_exactly, stream_pair
from recorders import STREAM_RECORDERS, BufferedRecorder, Recorder


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "socket")


async def close(transport: Any, protocol: Any) -> None:
    transport.close()
    await protocol.lost()


@pytest.mark.parametrize("stream", STREAM_RECORDERS)
@pytest.mark.parametrize("spelling", [str, Path, os.fsencode])
def test_server_and_client(
    run: Run, path: str, stream: type[Recorder | BufferedRecorder], spelling: Any
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        there = stream()
        server = await loop.create_unix_server(lambda: there, spelling(path))
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        assert server.sockets[0].getsockname() == path
        transport, here = await loop.create_unix_connection(stream, spelling(path))
        await there.called("connection_made")
        assert transport.get_extra_info("peername") == path
        assert there.transport.get_extra_info("sockname") == path
        transport.write(b"question")
        assert await there.received(8) == b"question"
        there.transport.write(b"answer")
        assert await here.received(6) == b"answer"
        await close(transport, here)
        await there.lost()
        server.close()
        await server.wait_closed()

    run(main())


@pytest.mark.parametrize("kind", [str, bytes])
def test_abstract_names(run: Run, kind: type) -> None:
    """They have no file, so nothing is checked, removed or left behind."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        name: Any = f"\0weft-test-{os.getpid()}"
        if kind is bytes:
            name = name.encode()
        there = Recorder()
        async with await loop.create_unix_server(lambda: there, name):
            transport, here = await loop.create_unix_connection(Recorder, name)
            transport.write(b"hidden")
            assert await there.received(6) == b"hidden"
            await close(transport, here)
            await there.lost()

    run(main())


@pytest.mark.parametrize("cleanup", [None, True, False])
def test_the_file_goes_with_the_server(run: Run, path: str, cleanup: bool | None) -> None:
    if cleanup is not None and not PY313:
        pytest.skip("cleanup_socket came with 3.13")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        options = {} if cleanup is None else {"cleanup_socket": cleanup}
        server = await loop.create_unix_server(Recorder, path, **options)
        server.close()
        await server.wait_closed()
        assert os.path.exists(path) == (cleanup is False or not PY313)

    run(main())


@pytest.mark.skipif(not PY313, reason="files are cleaned up from 3.13 on")
@pytest.mark.parametrize("successor", ["nothing", "server", "file"])
def test_only_its_own_file_goes(run: Run, path: str, successor: str) -> None:
    """A server that was started anew on the same path keeps its socket."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        old = await loop.create_unix_server(Recorder, path)
        if successor == "server":
            new = await loop.create_unix_server(Recorder, path)
        else:
            os.unlink(path)
            if successor == "file":
                Path(path).write_text("not a socket")
        old.close()
        await old.wait_closed()
        assert os.path.exists(path) == (successor != "nothing")
        if successor == "server":
            new.close()
            await new.wait_closed()
            assert not os.path.exists(path)

    run(main())


def test_a_stale_socket_is_replaced(run: Run, path: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        async with await loop.create_unix_server(Recorder, path):
            with connected_client(path):
                pass
            await pass_turns(5)

    run(main())


def test_a_file_is_not_replaced(run: Run, path: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        Path(path).write_text("precious")
        with pytest.raises(OSError, match="is already in use") as caught:
            await loop.create_unix_server(Recorder, path)
        assert caught.value.errno == errno.EADDRINUSE
        assert Path(path).read_text() == "precious"

    run(main())


def test_a_directory_that_is_not_there(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_server(Recorder, str(tmp_path / "no" / "socket"))
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_connection(Recorder, str(tmp_path / "no" / "socket"))

    run(main())


def test_nobody_listening(run: Run, path: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
            with pytest.raises(ConnectionRefusedError):
                await loop.create_unix_connection(Recorder, path)

    run(main())


@pytest.mark.parametrize("method", ["create_unix_server", "create_unix_connection"])
def test_wrong_arguments(run: Run, path: str, method: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        call = getattr(loop, method)
        with pytest.raises(ValueError, match="path"):
            await call(Recorder)
        with socket.socket() as tcp, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
            for sock in (tcp, datagram):
                with pytest.raises(ValueError, match="A UNIX Domain Stream Socket was expected"):
                    await call(Recorder, sock=sock)
                with pytest.raises(ValueError, match="can not be specified at the same time"):
                    await call(Recorder, path, sock=sock)
        for option in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            with pytest.raises(ValueError, match="only meaningful with ssl"):
                await call(Recorder, path, **{option: 1.0})
        if method == "create_unix_connection":
            with pytest.raises(ValueError, match="only meaningful with ssl"):
                await call(Recorder, path, server_hostname="x")
            with pytest.raises(ValueError, match="server_hostname"):
                await call(Recorder, path, ssl=True)
        else:
            with pytest.raises(TypeError, match="must be an SSLContext or None"):
                await call(Recorder, path, ssl=True)
        assert not os.path.exists(path)

    run(main())


def test_sockets_of_the_callers(run: Run, path: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        there = Recorder()
        server = await loop.create_unix_server(lambda: there, sock=listening)
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        transport, here = await loop.create_unix_connection(Recorder, sock=client)
        transport.write(b"hello")
        assert await there.received(5) == b"hello"
        await close(transport, here)
        await there.lost()
        server.close()
        await server.wait_closed()
        assert client.fileno() == listening.fileno() == -1

    run(main())


def test_descriptors_can_be_passed_by_the_raw_socket_meanwhile(run: Run) -> None:
    """A paused transport leaves the bytes, and what comes with them, to the program."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = stream_pair("unix")
        with theirs:
            transport, protocol = await loop.create_unix_connection(Recorder, sock=ours)
            transport.pause_reading()
            with socket.socket() as passed:
                socket.send_fds(theirs, [b"take this"], [passed.fileno()])
            data, descriptors, _, _ = socket.recv_fds(ours, 100, 1)
            assert data == b"take this"
            os.close(descriptors[0])
            transport.resume_reading()
            theirs.sendall(b"and go on")
            assert await protocol.received(9) == b"and go on"
            await close(transport, protocol)

    run(main())


def test_start_serving_later(run: Run, path: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        there = Recorder()
        server = await loop.create_unix_server(lambda: there, path, start_serving=False)
        with pytest.raises(ConnectionRefusedError):
            connected_client(path)
        await server.start_serving()
        with connected_client(path) as client:
            await there.called("connection_made")
            there.transport.write(b"welcome")
            assert await read_exactly(client, 7) == b"welcome"
            there.transport.close()
            assert await read_all(client) == b""
            await there.lost()
        server.close()
        await server.wait_closed()

    run(main())
