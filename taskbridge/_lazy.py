"""Sequences that read a vendor's data when they are first used: the pages and fields of a result.

`taskbridge.layout` has the items and is loaded with the first of them, because most programs need none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast, overload

from taskbridge.errors import ContractError, TaskbridgeError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from taskbridge.layout import DocumentField, DocumentPage

_T_co = TypeVar("_T_co", covariant=True)
_UNREAD: Final = object()


class LazySequence(Sequence[_T_co]):
    """A sequence whose items are read from the vendor's data when they are first used, and kept.

    It compares, hashes and pickles as a tuple, and does no I/O.

    Args:
        load: Returns the parts, one for each item; called when the sequence is first used.
        read: Makes the item of a part; called when that item is first used. None if the parts are the items.
    """

    __slots__ = ("_items", "_load", "_parts", "_read")

    def __init__(self, load: Callable[[], Iterable[Any]], read: Callable[[Any], _T_co] | None = None) -> None:
        self._load = load
        self._read = read
        self._parts: tuple[Any, ...] | None = None
        self._items: list[Any] = []

    @classmethod
    def of(cls, items: Iterable[_T_co]) -> Self:
        """Return a sequence of items that exist already."""
        existing = tuple(items)
        return cls(lambda: existing)

    def __len__(self) -> int:
        return len(self._loaded())

    @overload
    def __getitem__(self, index: int) -> _T_co: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[_T_co, ...]: ...

    def __getitem__(self, index: int | slice) -> _T_co | tuple[_T_co, ...]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(len(self))))
        part = self._loaded()[index]
        if self._read is None:
            return cast("_T_co", part)
        item = self._items[index]
        if item is _UNREAD:  # only the local name is sure: another thread may begin the list anew
            item = self._items[index] = _guarded(self._read, part)
        return cast("_T_co", item)

    def __iter__(self) -> Iterator[_T_co]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LazySequence | tuple):
            return NotImplemented
        return other is self or tuple(self) == tuple(cast("Sequence[object]", other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return "<not read yet>" if self._parts is None else f"<{len(self._parts)} items>"

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return type(self).of, (tuple(self),)

    def _loaded(self) -> tuple[Any, ...]:
        parts = self._parts
        if parts is None:
            parts = cast("tuple[Any, ...]", _guarded(lambda load: tuple(load()), self._load))
            self._items = [_UNREAD] * len(parts)
            self._parts = parts  # last: another thread may be reading
        return parts

    @classmethod
    def _item_type(cls) -> type[Any]:
        """The class of the items, for `to_dict` and `from_dict`."""
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema  # noqa: PLC0415  # only for to_dict and from_dict

        del source
        items = core_schema.list_schema(handler.generate_schema(cls._item_type()))
        as_list = core_schema.plain_serializer_function_ser_schema(list, return_schema=items)
        return core_schema.no_info_after_validator_function(cls.of, items, serialization=as_list)


def _guarded(read: Callable[[Any], Any], part: Any) -> Any:
    """Read a part of a vendor's data; an error of another kind than ours means that the provider is broken."""
    try:
        return read(part)
    except TaskbridgeError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a provider's own code may raise
        kind = type(error).__name__
    raise ContractError(f"a part of the result cannot be read: the provider raised {kind}; `data` has all of it")


class LazyPages(LazySequence["DocumentPage"]):
    """The pages of a result."""

    __slots__ = ()

    @classmethod
    def _item_type(cls) -> type[DocumentPage]:
        from taskbridge.layout import DocumentPage  # noqa: PLC0415  # see above

        return DocumentPage


class LazyFields(LazySequence["DocumentField"]):
    """The extracted fields of a result."""

    __slots__ = ()

    @classmethod
    def _item_type(cls) -> type[DocumentField]:
        from taskbridge.layout import DocumentField  # noqa: PLC0415  # see above

        return DocumentField
