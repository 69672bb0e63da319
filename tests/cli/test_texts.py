"""A vendor's words on a terminal: shown, never obeyed."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from taskbridge.cli.live import LiveTable
from taskbridge.cli.screen import Screen
from taskbridge.cli.texts import provider_block, result_block, row, task_block
from taskbridge.cli.wait import Board
from taskbridge.model import Outcome, Task, TaskFailure, TaskFile, TaskResult, TaskStatus
from taskbridge.registry import ProviderInfo

NASTY = "\x1b[31m[bold]hi[/bold]\u202e\a"
SHOWN = r"\x1b[31m[bold]hi[/bold]\u202e\x07"


def task(**changes: Any) -> Task:
    facts: dict[str, Any] = {"provider": "acme", "connection": "acme", "id": "t1", "native_id": "t1"}
    facts |= {"observed_at": datetime(2026, 11, 22, 12, 0, tzinfo=UTC), "status": TaskStatus.PROCESSING}
    facts |= {"native_status": "busy", **changes}
    return Task(**facts)


@pytest.mark.parametrize(
    "odd",
    [
        task(native_status=NASTY, recognised=False),
        task(message=NASTY, operation=NASTY, external_id=NASTY),
        task(status=TaskStatus.FAILED, error=TaskFailure(code=NASTY, message=NASTY)),
        task(subtasks=(task(operation=NASTY),)),
    ],
)
def test_a_task_is_shown_without_control_characters(odd: Task) -> None:
    block = task_block(odd)

    assert SHOWN in block
    assert block.replace("\n", "").isprintable()
    assert row(odd, 20).isprintable()


def test_a_word_that_is_not_known_is_said_to_be() -> None:
    assert "busy, a word that taskbridge does not know" in task_block(task(recognised=False))


def test_a_message_that_is_the_status_word_is_not_told_twice() -> None:
    failed = task(status=TaskStatus.FAILED, native_status="FAILURE", error=TaskFailure(code="E1", message="failure"))
    twice = task(status=TaskStatus.FAILED, native_status="error", error=TaskFailure(code="E1", message="E1"))

    assert row(failed, 0).endswith("  failed      FAILURE: E1")
    assert row(task(message="Busy"), 0).endswith("  processing  busy")
    assert task_block(twice).count("E1") == 1


def test_a_result_keeps_its_lines_and_loses_its_control_characters() -> None:
    file = TaskFile(name=NASTY, url="https://files.test/1", size=12_345)

    block = result_block("acme:t1", TaskResult(files=(file,), text=f"one\n{NASTY}\n", data={"key": NASTY}))

    assert f"file            {SHOWN} (12,345 bytes)" in block
    assert f"one\n{SHOWN}" in block
    assert block.replace("\n", "").isprintable()


def test_a_provider_that_cannot_be_used_says_why() -> None:
    info = ProviderInfo("acme", "acme-tasks", "1.0", builtin=False, problem=f"ImportError: {NASTY}")

    assert provider_block(info) == (f"acme\n  from            acme-tasks 1.0\n  cannot be used  ImportError: {SHOWN}")


def test_the_live_table_reads_no_markup() -> None:
    odd = task(message=NASTY, progress=0.5)
    board = Board([odd.ref])
    board.take(Outcome(odd.ref, odd))
    shown = io.StringIO()

    table = LiveTable(Screen(as_json=False), board)
    Console(file=shown, width=120, no_color=True).print(table._picture())

    assert f"busy: 50%, {SHOWN}" in shown.getvalue()
    assert "0 of 1 ended, 0:00" in shown.getvalue()


def test_more_tasks_than_lines_show_those_that_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setenv("COLUMNS", "80")
    tasks = [task(id=f"t{n}", native_id=f"t{n}", status=TaskStatus.COMPLETED if n < 9 else TaskStatus.PENDING)
             for n in range(12)]  # fmt: skip
    board = Board([each.ref for each in tasks])
    for each in tasks:
        board.take(Outcome(each.ref, each))
    shown = io.StringIO()

    Console(file=shown, width=80).print(LiveTable(Screen(as_json=False), board)._picture())

    assert all(f"acme:t{n} " in shown.getvalue() for n in (9, 10, 11))
    assert "9 of 12 ended, 6 not shown" in shown.getvalue()
