"""The neutral pages and fields of a result: read when they are first used, in fractions of the page, and as JSON."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.layout import (
    BlockKind,
    Box,
    DocumentField,
    DocumentPage,
    PageUnit,
    Table,
    TableCell,
    TextBlock,
    TextLine,
    Word,
)
from taskbridge.provider import LazyFields, LazyPages

BOX = Box(left=0.1, top=0.2, right=0.5, bottom=0.25)
CELLS = tuple(
    TableCell(text=text, row=row, column=column, is_header=row == 0, raw={"n": text})
    for row, column, text in ((0, 1, "Price"), (0, 0, "Item"), (2, 0, "Paper"), (None, None, "lost"))
)
PAGE = DocumentPage(
    number=1,
    width=850,
    height=1100.5,
    unit=PageUnit.PIXEL,
    dpi=100,
    rotation=90,
    blocks=(
        TextBlock(text="Prices", kind=BlockKind.TITLE, box=BOX, confidence=0.5, raw={"id": 1}),
        TextBlock(kind=BlockKind.TABLE, table=Table(cells=CELLS)),
    ),
    lines=(TextLine(text="Prices"),),
    words=(Word(text="Prices", box=BOX),),
)
FIELD = DocumentField(name="total", text="12.50", value=12.5, page=1, raw={"type": "total"})


def test_a_page_is_read_when_it_is_first_used_and_once() -> None:
    events: list[Any] = []

    def load() -> Iterator[int]:
        events.append("load")
        yield from (1, 2, 3)

    def read(number: int) -> DocumentPage:
        events.append(number)
        return DocumentPage(number=number)

    result = tb.TaskResult(pages=LazyPages(load, read))
    assert (repr(result.pages), events) == ("<not read yet>", [])
    assert len(result.pages) == 3
    assert result.pages[-1] is result.pages[2]
    assert [page.number for page in result.pages[1:]] == [2, 3]
    assert (events, repr(result.pages)) == (["load", 3, 2], "<3 items>")
    with pytest.raises(IndexError):
        result.pages[3]


def test_a_result_survives_json_and_pickle() -> None:
    result = tb.TaskResult(text="t", data={"a": 1}, pages=LazyPages(lambda: [PAGE]), fields=LazyFields(lambda: [FIELD]))
    values = json.loads(json.dumps(result.to_dict()))
    assert values["pages"][0]["blocks"][0]["box"] == {"left": 0.1, "top": 0.2, "right": 0.5, "bottom": 0.25}
    again = tb.TaskResult.from_dict(values)
    assert again == result == pickle.loads(pickle.dumps(result))
    assert again.pages[0].blocks[0].raw == {"id": 1}
    assert tb.TaskResult.from_dict({"text": "t"}).pages == ()  # as stored by an older version
    assert "pages" in tb.TaskResult.json_schema()["properties"]
    with pytest.raises(tb.InvalidInput, match=r"pages\.0\.number"):
        tb.TaskResult.from_dict({"pages": [{}]})


def test_a_sequence_compares_and_hashes_as_a_tuple() -> None:
    pages = LazyPages(lambda: [PAGE])
    assert pages == (PAGE,)
    assert pages != (PAGE, PAGE)
    assert pages != "a page"
    assert hash(pages) == hash((PAGE,))
    assert not LazyPages.of(())


def test_a_provider_that_raises_is_a_contract_error() -> None:
    def fail(_: object = None) -> Any:
        raise KeyError("canary")

    for pages in (LazyPages(fail), LazyPages(lambda: [1], fail)):
        with pytest.raises(tb.ContractError, match="the provider raised KeyError") as caught:
            list(pages)
        assert "canary" not in str(caught.value)
        assert caught.value.__context__ is None
        with pytest.raises(tb.ContractError, match=r"TaskResult\.to_dict: .*the provider raised KeyError"):
            tb.TaskResult(pages=pages).to_dict()


def test_an_item_stays_what_it_is_while_another_thread_reads_the_parts() -> None:
    class Overtaken(LazyPages):
        """Another thread, which began to load before, finishes just after an item was kept."""

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "_items" and value:
                value = Forgetting(value)
            super().__setattr__(name, value)

    class Forgetting(list[Any]):
        def __setitem__(self, index: Any, value: Any) -> None:
            del index, value

    assert Overtaken(lambda: [3], lambda number: DocumentPage(number=number))[0] == DocumentPage(number=3)


@pytest.mark.parametrize(
    ("page", "edges", "expected"),
    [
        ([0, 0, 200, 100], [50, 10, 100, 20], (0.25, 0.1, 0.5, 0.2)),
        ([100, 50, 300, 150], [150, 60, 200, 70], (0.25, 0.1, 0.5, 0.2)),  # the page does not begin at 0
        ([0, 0, 200, 100], [-50, 90, 300, 101], (0, 0.9, 1, 1)),  # clipped to the page
        ([0, 0, 200, 100], [200, 0, 100, 20], None),  # right is left of left
        ([0, 0, 200, 100], [0, 0, 10], None),
        ([0, 0, 200, 100], [0, 0, 10, 10, 10], None),
        ([0, 0, 200, 100], [0, 0, "10", True], None),
        ([0, 0, 200, 100], [0, 0, 10**400, 10], None),
        ([0, 0, 200, 100], [0, 0, float("nan"), float("inf")], None),
        ([0, 0, 0, 100], [0, 0, 0, 10], None),  # no width
        (None, [0, 0, 10, 10], None),
        ([0, 0, 200, 100], None, None),
    ],
)
def test_boxes_are_fractions_of_the_page(page: Any, edges: Any, expected: tuple[float, ...] | None) -> None:
    box = Box.within(page, edges)
    assert (None if box is None else (box.left, box.top, box.right, box.bottom)) == expected


def test_a_table_has_rows() -> None:
    assert [[cell.text for cell in row] for row in PAGE.tables[0].rows] == [["Item", "Price"], ["Paper"]]


def test_a_program_without_pages_does_not_load_their_model() -> None:
    code = "import sys, taskbridge as tb; tb.TaskResult(); print('taskbridge.layout' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
