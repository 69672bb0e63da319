"""The media type of a document, by its content and else by its name, and whether an operation takes it."""

from __future__ import annotations

from functools import cache
from mimetypes import MimeTypes
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taskbridge.errors import UnsupportedFeature

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection

_HEAD: Final = 4096  # bytes of a document that are read; signatures are at its beginning
_CONFIDENCE: Final = 0.3  # puremagic's, a tenth for each byte of a signature; a shorter one fits by chance
_UNKNOWN: Final = frozenset({None, "application/octet-stream"})  # types that say nothing


def check_media_type(
    connection: Connection, native: str, name: str, content: bytes | Path, stated: str | None = None
) -> None:
    """Refuse a document that an operation does not take; one of unknown type is accepted.

    Args:
        connection: The connection.
        native: The operation, in the vendor's word.
        name: The document's file name.
        content: The document; empty if its content is not known.
        stated: Its media type, if the vendor states it.

    Raises:
        UnsupportedFeature: The operation does not take it; the message names what it takes, and what to do.
    """
    provider = connection.provider
    accepts = provider.capabilities.accepts.get(native)
    if accepts is None or not accepts.media_types:
        return
    by_name = _by_name(name)
    types = (stated,) if stated not in _UNKNOWN else (_by_content(content) or (by_name,))
    if accepts.media_types.isdisjoint(types) and _UNKNOWN.isdisjoint(types):
        found = by_name if by_name in types else types[0]
        raise UnsupportedFeature(
            f"{provider.title} takes {', '.join(sorted(accepts.media_types))} for {native}, and {name} is {found}"
            f"{f'; {accepts.otherwise}' if accepts.otherwise else ''}",
            provider=provider.name,
            connection=connection.name,
        )


@cache
def _known_suffixes() -> MimeTypes:
    return MimeTypes()  # Python's own table; those of the computer differ


def _by_name(name: str) -> str | None:
    media_type, encoding = _known_suffixes().guess_type(name)
    return None if encoding else media_type  # a.pdf.gz is no PDF


def _by_content(content: bytes | Path) -> tuple[str, ...]:
    """Return every media type that a content may have, the likeliest first; none if it is unknown."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            head = file.read(_HEAD)
    else:
        head = content[:_HEAD]
    if not head:
        return ()
    import puremagic  # noqa: PLC0415  # only for operations that state media types

    try:
        matches: list[Any] = puremagic.magic_string(head)  # pyright: ignore[reportUnknownMemberType]  # its tuples are untyped
    except puremagic.PureError:
        return ()
    return tuple(dict.fromkeys(each.mime_type for each in matches if each.mime_type and each.confidence >= _CONFIDENCE))
