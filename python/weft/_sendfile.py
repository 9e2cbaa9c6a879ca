"""Sending files where the system call cannot: over TLS, and what is no regular file.

Where it can, asyncio's own code makes it, on the socket of the native transport. What is replaced
here is asyncio's copying for transports, which reads 16 KiB at a time: each piece costs a trip to a
thread and back, so they are larger.
"""

from __future__ import annotations

from asyncio import base_events, constants
from typing import Any

from weft._base import BaseLoop

__all__ = ["Files"]

# What asyncio's own copying for plain sockets reads at a time.
_PIECE: int = constants.SENDFILE_FALLBACK_READBUFFER_SIZE


class Files(BaseLoop):
    """The part of the loop that sends files by copying."""

    async def _sendfile_fallback(
        self, transp: Any, file: Any, offset: int, count: int | None
    ) -> int:
        if hasattr(file, "seek"):
            file.seek(offset)
        piece = memoryview(bytearray(min(count or _PIECE, _PIECE)))
        total = 0
        # Takes the place of the transport's protocol, and its flow control, meanwhile.
        protocol: Any = base_events._SendfileFallbackProtocol(transp)  # type: ignore[attr-defined]
        try:
            while count is None or total < count:
                room = piece if count is None else piece[: count - total]
                read = await self.run_in_executor(None, file.readinto, room)
                if not read:
                    break
                transp.write(room[:read])
                await protocol.drain()
                total += read
            return total
        finally:
            if total > 0 and hasattr(file, "seek"):
                file.seek(offset + total)
            await protocol.restore()
