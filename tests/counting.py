"""Counting what an operation leaves behind: objects, references, bytes.

tracemalloc sees nothing of what Rust allocates, so four things are looked at: the blocks of
Python's own allocator, the bytes of the C library's, the objects that the collector knows, and the
reference counts of objects that everything else refers to (loops, types, contexts). Each must stand
still while an operation is repeated.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class _Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


try:
    _mallinfo = ctypes.CDLL(None).mallinfo2
    _mallinfo.restype = _Mallinfo
except AttributeError:
    _mallinfo = None


def allocated_bytes() -> int:
    """Bytes in use that came from malloc or, for large ones, from mmap."""
    if _mallinfo is None:
        return 0
    info = _mallinfo()
    return int(info.uordblks + info.hblkhd)


@dataclass(frozen=True)
class Count:
    """What there is at one moment."""

    blocks: int
    bytes: int
    objects: int
    references: tuple[int, ...]


def count(watched: Sequence[Any]) -> Count:
    for _ in range(3):
        gc.collect()
    return Count(
        blocks=sys.getallocatedblocks(),
        bytes=allocated_bytes(),
        objects=len(gc.get_objects()),
        references=tuple(sys.getrefcount(thing) for thing in watched),
    )


def leaks(
    operation: Callable[[], Any],
    watched: Sequence[Any] = (),
    *,
    times: int = 1000,
    bytes_each: int = 16,
) -> list[str]:
    """Repeat `operation` and say what grew with it; an empty list if nothing did.

    A leak grows by at least one in each repetition; what grows by less than a fifth of that is a
    cache, a free list or a hash table that is still finding its size. Where something seems to
    grow, it is measured again, and again: a leak grows every time.
    """
    for _ in range(times // 4 + 2):
        operation()
    names = [repr(thing)[:80] for thing in watched]
    found: list[str] = []
    for _ in range(4):
        before = count(watched)
        for _ in range(times):
            operation()
        after = count(watched)
        found = []
        if after.blocks - before.blocks > times // 5 + 40:
            found.append(f"{after.blocks - before.blocks} blocks in {times} times")
        if after.bytes - before.bytes > times * bytes_each + 4096:
            found.append(f"{after.bytes - before.bytes} bytes in {times} times")
        if after.objects - before.objects > times // 5 + 40:
            found.append(f"{after.objects - before.objects} objects in {times} times")
        for name, was, now in zip(names, before.references, after.references, strict=True):
            # Losing references is worse than keeping them: it ends in a crash.
            if abs(now - was) > times // 5 + 40:
                found.append(f"{now - was} references to {name} in {times} times")
        if not found:
            return []
    return found
