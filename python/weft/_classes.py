"""Classes of Weft's that stand in for classes of asyncio's.

Such a class inherits from its native part and from asyncio's class of the same name: what Weft
makes is what programs written for asyncio expect. `StandIn` is its metaclass, and adds the other
direction: what asyncio made, before `weft.install()` put the stand-in in place, passes for an
instance of it.
"""

from __future__ import annotations

import copyreg
from abc import ABCMeta
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from weft._weft import coroutine_function, special_method

__all__ = ["StandIn", "copied_by"]

if TYPE_CHECKING:
    _Base = ABCMeta
else:
    # The metaclass of protocols, itself one of ABCs: users may join a stand-in with either.
    _Base = type(Protocol)

_stock: dict[type, type] = {}
_SPECIAL = frozenset({"__aenter__", "__aexit__"})


def _coroutine_methods(native: type, stock: type) -> dict[str, Any]:
    """Return stand-ins for those methods of `native` that are coroutine functions in `stock`."""
    return {
        name: function
        for name, method in vars(native).items()
        if (function := coroutine_function(method, getattr(stock, name, None))) is not method
    }


class StandIn(_Base):
    """Metaclass of `class Lock(_weft.Lock, asyncio.Lock, metaclass=StandIn, stock=asyncio.Lock)`.

    The native part comes first. Every instance of `stock` is an instance of the class, every
    subclass of it a subclass. Classes that users derive from it are ordinary ones.
    """

    def __new__(  # noqa: PYI034 - mypy allows no Self in a metaclass
        metacls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        stock: type | None = None,
        **keywords: Any,
    ) -> StandIn:
        if stock is not None:
            # Where users import it from.
            namespace["__module__"] = "weft"
            methods = _coroutine_methods(bases[0], stock)
            namespace.update(methods)
            for special in _SPECIAL:
                if (method := vars(bases[0]).get(special)) is not None:
                    namespace[special] = special_method(method, methods.get(special, method))
        cls = super().__new__(metacls, name, bases, namespace, **keywords)
        if stock is not None:
            _stock[cls] = stock
            for special in _SPECIAL & methods.keys():
                methods[special].__set_name__(cls, special)
        return cls

    def __init__(
        self,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        stock: type | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(name, bases, namespace, **keywords)

    def __instancecheck__(self, instance: object) -> bool:
        if (stock := _stock.get(self)) is not None:
            return isinstance(instance, stock)
        if getattr(self, "_is_protocol", False):
            return super().__instancecheck__(instance)
        return ABCMeta.__instancecheck__(self, instance)

    def __subclasscheck__(self, subclass: type) -> bool:
        if (stock := _stock.get(self)) is not None:
            return issubclass(subclass, stock)
        return super().__subclasscheck__(subclass)


def copied_by(*names: str) -> Callable[[Any], tuple[Any, ...]]:
    """A `__reduce__` for a class whose state is native: copies and pickles take these attributes.

    The instance's dictionary goes along, and `_loop` where it is set, as with asyncio's classes.
    """

    def __reduce__(self: Any) -> tuple[Any, ...]:  # noqa: N807
        state = {name: getattr(self, name) for name in names}
        if self._loop is not None:
            state["_loop"] = self._loop
        return copyreg.__newobj__, (type(self),), (self.__dict__, state)  # type: ignore[attr-defined]

    return __reduce__
