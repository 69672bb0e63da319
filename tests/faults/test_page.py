"""The page matches the rows, and every id of the catalogue is listed."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

from .catalogue import ROWS
from .other_faults import OTHER_FAULTS, PROMISES
from .page import page

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
TESTS: Final = Path(__file__).resolve().parents[1]
LAST: Final = 120  # of the catalogue's ids


def test_the_page_is_generated_from_the_rows() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/faults/write_page.py"


def test_every_fault_of_the_catalogue_is_listed_once() -> None:
    elsewhere = [fault.id for faults in OTHER_FAULTS.values() for fault in faults if fault.id]
    spoken = [*{row.id for row in ROWS}, *elsewhere]
    assert sorted(spoken, key=lambda name: int(name[1:])) == [f"F{n}" for n in range(1, LAST + 1)]


def test_every_promise_is_listed_once() -> None:
    assert [promise.id for promise in PROMISES] == [f"P{n}" for n in range(1, 35)]


NAMED: Final = sorted(
    {test for faults in OTHER_FAULTS.values() for fault in faults for test in fault.tests}
    | {test for promise in PROMISES for test in promise.tests}
)


@pytest.mark.parametrize("name", NAMED)
def test_every_named_test_exists_and_runs(name: str) -> None:
    path, _, test = name.partition("::")
    found = [
        node
        for node in ast.walk(ast.parse((TESTS / f"{path}.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == test
    ]
    assert len(found) == 1
    marks = [ast.unparse(mark) for mark in found[0].decorator_list]
    assert not [mark for mark in marks if "mark.xfail" in mark or mark.endswith("mark.skip") or "mark.skip(" in mark]


def test_a_fault_without_a_test_says_why() -> None:
    for fault in (each for faults in OTHER_FAULTS.values() for each in faults):
        assert fault.tests or fault.outcome.startswith("cannot happen"), fault.id
    assert [promise.id for promise in PROMISES if not promise.tests] == []


def test_row_names_are_unique() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
