"""The page says what the rows say, and no id of the catalogue is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .catalogue import ROWS
from .page import APART, DOWNLOADS, UNCOVERED, page

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
LAST: Final = 120  # of the catalogue's ids


def test_the_page_is_made_from_the_rows() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/faults/write_page.py"


def test_every_id_of_the_catalogue_is_spoken_of_once() -> None:
    rows = {row.id for row in ROWS}
    uncovered = [f"F{n}" for first, last, _ in UNCOVERED for n in range(first, last + 1)]
    spoken = [*rows, *APART, *(row[0] for row in DOWNLOADS if row[0]), *uncovered]
    assert sorted(spoken, key=lambda name: int(name[1:])) == [f"F{n}" for n in range(1, LAST + 1)]


def test_every_name_is_one_row() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
