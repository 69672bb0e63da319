"""Fields of a JSON text and documents in a photo: node-sdk, src/resources/image-operations.ts and tasks.ts.

The vendor gives no pages of text: `extract-text` answers one text, in the requested format, and `json` is an object of
the caller's own schema. `detect-documents` answers boxes in pixels of an image whose size its answer does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from taskbridge.layout import BlockKind, DocumentField, DocumentPage, TextBlock
from taskbridge.provider import LazyFields, LazyPages

LONGEST_PATH: Final = 256  # characters of a path that is followed further; deeper data stays one value


def read_documents(documents: object) -> LazyPages:
    """Return the one page of a photo, with a block for each document in it."""
    return LazyPages(partial(_photo, documents))


def read_fields(data: object) -> LazyFields:
    """Return the fields of the caller's schema: a field for each text, number or other single value in the data."""
    return LazyFields(partial(_leaves, data), _field)


def _photo(documents: Any) -> Iterator[DocumentPage]:
    found: list[Any] = documents if documents.__class__ is list else []  # isinstance would narrow it to list[Unknown]
    blocks = (TextBlock(kind=BlockKind.DOCUMENT, raw=each) for each in found if each.__class__ is dict)
    yield DocumentPage(number=1, blocks=tuple(blocks))


def _leaves(data: object) -> Iterator[tuple[str, Any]]:
    """Every path and value, in order; an empty list or object is a value."""
    pending: list[tuple[str, Any]] = [("", data)]
    while pending:
        path, value = pending.pop()
        inner = list(_inner(path, value)) if len(path) <= LONGEST_PATH else []
        if inner:
            pending.extend(reversed(inner))
        else:
            yield path, value


def _inner(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if value.__class__ is dict:
        yield from ((f"{path}.{key}" if path else key, each) for key, each in value.items())
    elif value.__class__ is list:
        yield from ((f"{path}[{index}]", each) for index, each in enumerate(value))


def _field(leaf: tuple[str, Any]) -> DocumentField:
    path, value = leaf
    return DocumentField(name=path or None, text=value if isinstance(value, str) else None, value=value)
