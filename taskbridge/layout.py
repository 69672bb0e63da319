"""Pages and extracted fields of a document, the same for every vendor.

A vendor's object becomes a page, block, word, cell or field; `raw` keeps that object. What the vendor does not say is
None or empty, and so is what cannot be read: a page is filled as far as possible and never left out. Boxes are
fractions of the page, from its top left corner. Where the size of the page is unknown, there is no box, but `raw` has
the vendor's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, cast

from taskbridge._conversion import Model

__all__ = [
    "BlockKind",
    "Box",
    "DocumentField",
    "DocumentPage",
    "PageUnit",
    "Table",
    "TableCell",
    "TextBlock",
    "TextElement",
    "TextLine",
    "Word",
]

_MOST: Final = 1e12  # of a coordinate; the quotient of larger integers may overflow
_NUMBERS: Final = frozenset({int, float})  # not bool


class PageUnit(StrEnum):
    """What the width and height of a page count; a closed set."""

    PIXEL = "pixel"
    """Pixels of an image of the page, `dpi` of them to an inch."""
    POINT = "point"
    """1/72 inch."""
    INCH = "inch"
    """2.54 cm."""


class BlockKind(StrEnum):
    """What a block of a page is; a closed set."""

    TITLE = "title"
    """A title or heading."""
    TEXT = "text"
    """A paragraph or other text."""
    HEADER = "header"
    """The header of the page."""
    FOOTER = "footer"
    """The footer of the page."""
    TABLE = "table"
    """A table, which is in the block's `table`."""
    DOCUMENT = "document"
    """A document in a photo or scan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box(Model):
    """A rectangle on a page, in fractions of the page: (0, 0) is its top left corner, (1, 1) its bottom right one."""

    left: float
    """Normalized: 0.0 to 1.0 of the page's width."""
    top: float
    """Normalized: 0.0 to 1.0 of the page's height."""
    right: float
    """Normalized: 0.0 to 1.0 of the page's width, not less than `left`."""
    bottom: float
    """Normalized: 0.0 to 1.0 of the page's height, not less than `top`."""

    @classmethod
    def within(cls, page: Sequence[object] | None, edges: Sequence[object] | None) -> Box | None:
        """Return a vendor's rectangle as a box, clipped to its page; None if either cannot be read.

        Args:
            page: Left, top, right and bottom edge of the whole page, from the top left.
            edges: The same of the rectangle, in the same unit.
        """
        outer, inner = _edges(page), _edges(edges)
        if outer is None or inner is None:
            return None
        width, height = outer[2] - outer[0], outer[3] - outer[1]
        if not (width and height):
            return None
        across = [min(max((x - outer[0]) / width, 0.0), 1.0) for x in (inner[0], inner[2])]
        down = [min(max((y - outer[1]) / height, 0.0), 1.0) for y in (inner[1], inner[3])]
        return cls(left=across[0], top=down[0], right=across[1], bottom=down[1])


def _edges(values: Sequence[object] | None) -> tuple[float, float, float, float] | None:
    if values is None or len(values) != 4:
        return None
    for each in values:
        if type(each) not in _NUMBERS or not -_MOST <= cast("float", each) <= _MOST:
            return None
    left, top, right, bottom = cast("Sequence[float]", values)
    return (left, top, right, bottom) if left <= right and top <= bottom else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextElement(Model):
    """Text at a place on a page."""

    text: str | None = None
    """Verbatim: the text, without line breaks at its end; None if the vendor gives none."""
    box: Box | None = None
    """Normalized: where it is; None if the vendor does not say, or the size of the page is unknown."""
    confidence: float | None = None
    """Normalized: how sure the vendor is, 0.0 to 1.0; None if it does not say, or its scale is not documented."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)
    """Verbatim: the vendor's object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word(TextElement):
    """A word of a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine(TextElement):
    """A line of a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCell(TextElement):
    """A cell of a table."""

    row: int | None = None
    """Normalized: the row, from 0, the first of the table that has a cell."""
    column: int | None = None
    """Normalized: the column, from 0, the first of the table that has a cell."""
    row_span: int | None = None
    """Verbatim: how many rows it covers."""
    column_span: int | None = None
    """Verbatim: how many columns it covers."""
    is_header: bool | None = None
    """Verbatim: whether it is a heading of its column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Model):
    """A table of a page."""

    cells: tuple[TableCell, ...] = ()
    """Normalized: its cells, in the vendor's order."""

    @property
    def rows(self) -> tuple[tuple[TableCell, ...], ...]:
        """The cells row by row, from left to right: those that exist, and whose row and column are known."""
        rows: dict[int, list[TableCell]] = {}
        for cell in self.cells:
            if cell.row is not None and cell.column is not None:
                rows.setdefault(cell.row, []).append(cell)
        return tuple(tuple(sorted(cells, key=lambda each: each.column or 0)) for _, cells in sorted(rows.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBlock(TextElement):
    """A paragraph, title, table or other part of a page."""

    kind: BlockKind | None = None
    """Normalized: what it is; None if the vendor does not say, or uses a word that is not known here."""
    table: Table | None = None
    """Normalized: the table, if `kind` is ``table``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPage(Model):
    """A page of a document."""

    number: int
    """Verbatim: the number of the page; see the vendor's page for where it starts, usually at 1."""
    width: float | None = None
    """Verbatim: its width, in `unit`."""
    height: float | None = None
    """Verbatim: its height, in `unit`."""
    unit: PageUnit | None = None
    """Normalized: what `width` and `height` count."""
    dpi: float | None = None
    """Verbatim: pixels to an inch, if `unit` is ``pixel`` and the vendor says it."""
    rotation: float | None = None
    """Normalized: by how many degrees the text is turned clockwise."""
    blocks: tuple[TextBlock, ...] = ()
    """Normalized: paragraphs, titles, tables and so on, in the vendor's reading order."""
    lines: tuple[TextLine, ...] = ()
    """Normalized: the lines, in the vendor's order."""
    words: tuple[Word, ...] = ()
    """Normalized: the words, in the vendor's order."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)
    """Verbatim: the vendor's object for the page itself."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of its blocks."""
        return tuple(block.table for block in self.blocks if block.table is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentField(Model):
    """A named value that was extracted from a document."""

    name: str | None = None
    """Verbatim: the name. In nested data it is a path: ``seller.name``, ``lines[0].amount``."""
    text: str | None = None
    """Verbatim: the value as it is written in the document."""
    value: Any = None
    """Verbatim: the value, as JSON has it."""
    confidence: float | None = None
    """Normalized: how sure the vendor is, 0.0 to 1.0; None if it does not say, or its scale is not documented."""
    page: int | None = None
    """Verbatim: the number of its page, as in `DocumentPage.number`."""
    box: Box | None = None
    """Normalized: where it is; None if the vendor does not say, or the size of the page is unknown."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)
    """Verbatim: the vendor's object; empty where a field is no object of the vendor's."""
