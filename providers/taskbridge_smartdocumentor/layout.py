"""Pages and fields of export data: https://docs.smartdocumentor.net/technical/api-reference/get-get-export-data.

The page documents the first keys of an entity; more follow, which could not be read. So an entity has a name and a page
here, but no text, no value and no confidence: what the vendor sends of those is in `raw`. The one documented box, that
of a QR code, is in an unknown unit on a page of unknown size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final, cast

from taskbridge.layout import DocumentField, DocumentPage, TextBlock
from taskbridge.provider import NO_TIME, LazyFields, LazyPages, Payload

# Key of an entity -> ours, where the page names a key that can be nothing else.
NAME: Final = "type"
PAGE: Final = "pageNumber"


def read_pages(export: Mapping[str, Any]) -> LazyPages:
    """Return the pages that have entities, with a block for each entity; the vendor's page numbers are kept."""
    return LazyPages(partial(_pages, export))


def read_fields(export: Mapping[str, Any]) -> LazyFields:
    """Return a field for each entity, in the vendor's order."""
    return LazyFields(partial(_entities, export), _field)


def _entities(export: Mapping[str, Any]) -> Iterator[Payload]:
    for chunk in _objects(export.get("chunks")):
        yield from _objects(chunk.raw.get("entities"))


def _pages(export: Mapping[str, Any]) -> Iterator[DocumentPage]:
    pages: dict[int, list[TextBlock]] = {}
    for entity in _entities(export):
        number = entity.maybe_integer(PAGE)
        if number is not None:
            pages.setdefault(number, []).append(TextBlock(raw=entity.raw))
    for number, blocks in sorted(pages.items()):
        yield DocumentPage(number=number, blocks=tuple(blocks))


def _field(entity: Payload) -> DocumentField:
    return DocumentField(name=entity.maybe_text(NAME), page=entity.maybe_integer(PAGE), raw=entity.raw)


def _objects(value: object) -> Iterator[Payload]:
    for each in cast("list[object]", value) if isinstance(value, list) else ():
        if isinstance(each, dict):
            yield Payload(cast("Mapping[str, Any]", each), "", NO_TIME)
