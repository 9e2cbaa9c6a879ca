"""A signal every tenth of a millisecond: every system call that can be interrupted is, and
nothing shows.
"""

from __future__ import annotations

import pytest
from backends import Backend
from children import program

pytestmark = [pytest.mark.child, pytest.mark.slow]

STORM = """
import contextlib, os, signal, socket, sys, tempfile, threading, time

strikes = 0
def strike(number, frame):
    global strikes
    strikes += 1

def storm():
    '''Signals for the main thread, which is where the loop runs.'''
    main = threading.main_thread().ident
    while not over.is_set():
        with contextlib.suppress(ProcessLookupError):
            signal.pthread_kill(main, signal.SIGUSR1)
        time.sleep(0.0001)

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def tcp(where):
    reader, writer = await asyncio.open_connection(*where)
    for size in (1, 1000, 300_000) * 5:
        data = os.urandom(size)
        writer.write(data)
        await writer.drain()
        assert await reader.readexactly(size) == data
    writer.close()
    await writer.wait_closed()

async def bare(where):
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, where)
        for _ in range(50):
            data = os.urandom(5000)
            await loop.sock_sendall(sock, data)
            got = b""
            while len(got) < len(data):
                got += await loop.sock_recv(sock, 10_000)
            assert got == data

async def file(where):
    loop = asyncio.get_running_loop()
    class Counter(asyncio.Protocol):
        count = 0
        def data_received(self, data):
            Counter.count += len(data)
    transport, _ = await loop.create_connection(Counter, *where)
    with tempfile.TemporaryFile() as source:
        source.write(bytes(500_000))
        source.flush()
        assert await loop.sendfile(transport, source) == 500_000
    while Counter.count < 500_000:
        await asyncio.sleep(0.001)
    transport.close()

async def process():
    child = await asyncio.create_subprocess_exec(
        "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    data = os.urandom(200_000)
    assert (await child.communicate(data))[0] == data

async def naps():
    for _ in range(30):
        began = time.monotonic()
        await asyncio.sleep(0.005)
        # A wait that is cut short goes on: never too short.
        assert time.monotonic() - began >= 0.0049
    assert await asyncio.to_thread(lambda: 42) == 42

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    where = server.sockets[0].getsockname()
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(tcp(where))
            group.create_task(bare(where))
            group.create_task(file(where))
            group.create_task(process())
            group.create_task(naps())
    server.close()
    await server.wait_closed()

over = threading.Event()
"""


@pytest.mark.parametrize("how", ["python", "loop"])
@pytest.mark.parametrize("siginterrupt", [True, False])
def test_input_and_output_in_a_storm(backend: Backend, how: str, siginterrupt: bool) -> None:
    """Whether Python's handler runs the signal or the loop's, and whether calls are to be
    restarted by the kernel.
    """
    source = (
        STORM
        + f"""
async def whole():
    if {how!r} == "loop":
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, strike, 0, None)
    else:
        signal.signal(signal.SIGUSR1, strike)
    signal.siginterrupt(signal.SIGUSR1, {siginterrupt})
    thread = threading.Thread(target=storm)
    thread.start()
    try:
        await main()
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
run(whole())
assert strikes > 50, strikes
print("survived")
"""
    )
    assert program(backend, source, "-W", "error", timeout=120).check() == "survived\n"
