"""Makes native tasks visible to `asyncio.all_tasks()`."""

import weakref
from collections.abc import Iterator
from typing import Any

from weft import _compat, _weft

__all__ = ["connect"]


class _Tasks(weakref.WeakSet[Any]):
    """asyncio's set of scheduled tasks, with the native ones beside its own members."""

    def __iter__(self) -> Iterator[Any]:
        yield from _weft.alive_tasks()
        yield from super().__iter__()

    def __len__(self) -> int:
        return len(_weft.alive_tasks()) + super().__len__()

    def discard(self, item: Any) -> None:
        _weft.forget_task(item)
        super().discard(item)

    def __contains__(self, item: object) -> bool:
        return super().__contains__(item) or any(item is task for task in _weft.alive_tasks())


def connect() -> None:
    """Let asyncio's registry list native tasks, where they are not in it themselves.

    asyncio's functions keep the set, wherever they were imported to, so it stays and changes its
    class.
    """
    scheduled = _compat.scheduled_tasks()
    if scheduled is not None and type(scheduled) is not _Tasks:
        scheduled.__class__ = _Tasks
