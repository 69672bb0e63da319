"""The pages of a result: https://docs.expert.ai/extract/latest/reference/results/ and extract-python 0.1.2.

Layout items form a tree in a flat list: the root of each page, its titles, texts and tables, and the cells of those.
Boxes are in pixels at 100 DPI, from the top left, and the root's is the page. The vendor gives no confidence and no
lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, cast

from taskbridge.errors import MalformedResponse
from taskbridge.layout import BlockKind, Box, DocumentPage, PageUnit, Table, TableCell, TextBlock, Word
from taskbridge.provider import NO_TIME, LazyPages, Payload

from .wire import decode_words

# `type` of a layout item -> ours.    extract-python, openapi/client/model/layout_item.py: examples, so others may come
KINDS: Final[Mapping[str, BlockKind]] = {
    "title": BlockKind.TITLE,
    "text": BlockKind.TEXT,
    "header": BlockKind.HEADER,
    "footer": BlockKind.FOOTER,
    "table": BlockKind.TABLE,
}
ROOT: Final = "page"
CELL: Final = "cell"
HEADINGS: Final = ("isHEad", "isHead")  # spelt so in layout_item.py; the second spelling is a guess

DPI: Final = 100.0  # of the rendering that boxes refer to: layout_item.py
DEPTH: Final = 32  # levels between a cell and its table; the tree of a sound layout has three in all


class _Part(NamedTuple):
    """What the vendor gives of one page."""

    number: int
    items: list[Payload]
    words: object  # packed


def read_pages(result: object) -> LazyPages:
    """Return the pages of a task's result; each is read, and its words unpacked, when it is first used."""
    return LazyPages(partial(_parts, result), _page)


def _parts(result: Any) -> Iterator[_Part]:
    """Every page that has a layout item or words, by number; items that name no page are left out."""
    raw: Mapping[str, Any] = result if result.__class__ is dict else {}
    items: dict[int, list[Payload]] = {}
    for each in _list(raw.get("layout")):
        item = Payload(cast("Mapping[str, Any]", each), "", NO_TIME) if isinstance(each, dict) else None
        number = None if item is None else item.maybe_integer("page")
        if item is not None and number is not None:
            items.setdefault(number, []).append(item)
    words = dict(enumerate(_list(raw.get("words")), 1))  # "one string per page"
    for number in sorted(items.keys() | words.keys()):
        yield _Part(number, items.get(number, []), words.get(number))


def _page(part: _Part) -> DocumentPage:
    root = next((item for item in part.items if item.raw.get("type") == ROOT), None)
    edges = None if root is None else _box(root)
    whole = Box.within(edges, edges)
    width, height = (edges[2] - edges[0], edges[3] - edges[1]) if edges and whole else (None, None)
    return DocumentPage(
        number=part.number,
        width=width,
        height=height,
        unit=PageUnit.PIXEL if whole else None,
        dpi=DPI if whole else None,
        blocks=tuple(_blocks(part.items, edges)),
        words=tuple(_words(part.words, edges)),
        raw={} if root is None else root.raw,
    )


def _blocks(items: list[Payload], page: list[Any] | None) -> Iterator[TextBlock]:
    """The tables and the items without children, in reading order; others only group those."""
    known = {key: item for item in reversed(items) if (key := item.maybe_integer("id")) is not None}
    cells: dict[int, list[Payload]] = {}
    for item in items:
        above = _table_of(item, known) if item.raw.get("type") == CELL else None
        if above is not None:
            cells.setdefault(id(above), []).append(item)
    in_tables = {id(cell) for group in cells.values() for cell in group}
    for item in items:
        kind = KINDS.get(item.maybe_text("type") or "")
        is_group = bool(item.raw.get("children")) and kind is not BlockKind.TABLE
        if item.raw.get("type") == ROOT or is_group or id(item) in in_tables:
            continue
        table = _table(cells.get(id(item), ()), page) if kind is BlockKind.TABLE else None
        yield TextBlock(text=_text(item), box=Box.within(page, _box(item)), kind=kind, table=table, raw=item.raw)


def _table_of(item: Payload, known: Mapping[int, Payload]) -> Payload | None:
    """The nearest table above an item."""
    for _ in range(DEPTH):
        above = known.get(item.maybe_integer("parent") or 0)
        if above is None or above.raw.get("type") == "table":
            return above
        item = above
    return None


def _table(cells: Iterable[Payload], page: list[Any] | None) -> Table:
    """A table; whether the vendor counts rows and columns from 0 or 1 is not documented, so the least counts as 0."""
    cells = tuple(cells)
    row, column = (min(_integers(cell.maybe_integer(key) for cell in cells), default=0) for key in ("row", "column"))
    return Table(cells=tuple(_cell(cell, row, column, page) for cell in cells))


def _cell(cell: Payload, first_row: int, first_column: int, page: list[Any] | None) -> TableCell:
    row, column = cell.maybe_integer("row"), cell.maybe_integer("column")
    spans = _list(cell.raw.get("span"))  # "column and row span or null": layout_item.py
    spans = [each if type(each) is int else None for each in spans] if len(spans) == 2 else [None, None]
    return TableCell(
        text=_text(cell),
        box=Box.within(page, _box(cell)),
        row=None if row is None else row - first_row,
        column=None if column is None else column - first_column,
        row_span=spans[1],
        column_span=spans[0],
        is_header=next((value for key in HEADINGS if isinstance(value := cell.raw.get(key), bool)), None),
        raw=cell.raw,
    )


def _words(packed: object, page: list[Any] | None) -> Iterator[Word]:
    """The words of a page; none if they cannot be unpacked, for the vendor documents no more than one word a page."""
    try:
        words = decode_words(packed) if isinstance(packed, str) else []
    except MalformedResponse:
        return
    for word in words:
        raw = {"text": word.text, "element": word.element, "box": word.box}  # asdict takes as long as all the rest
        yield Word(text=word.text, box=Box.within(page, word.box), raw=raw)


def _text(item: Payload) -> str | None:
    text = item.maybe_text("content")
    return None if text is None else text.rstrip("\n")


def _box(item: Payload) -> list[Any]:
    return _list(item.raw.get("bbox"))


def _list(value: Any) -> list[Any]:
    return value if value.__class__ is list else []  # isinstance would narrow it to list[Unknown]


def _integers(values: Iterable[int | None]) -> Iterator[int]:
    return (value for value in values if value is not None)
