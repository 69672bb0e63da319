"""A vendor's words on a terminal: shown, never obeyed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest
from rich.console import Console

from taskbridge._config.registry import ProviderInfo
from taskbridge.cli.board import Board
from taskbridge.cli.carrier import News
from taskbridge.cli.ledger import Entry
from taskbridge.cli.live import LiveTable
from taskbridge.cli.live_run import LiveRun
from taskbridge.cli.many import Progress
from taskbridge.cli.screen import Screen
from taskbridge.cli.texts import provider_block, result_block, row, span, task_block
from taskbridge.errors import ServerError, TaskNotFound
from taskbridge.events import Observation, ObservationSource, PollReason
from taskbridge.models import Outcome, Task, TaskFailure, TaskFile, TaskRef, TaskResult, TaskStatus

NASTY = "\x1b[31m[bold]hi[/bold]\u202e\a"
MOMENT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SHOWN = r"\x1b[31m[bold]hi[/bold]\u202e\x07"


def task(**changes: Any) -> Task:
    facts: dict[str, Any] = {"provider": "acme", "connection": "acme", "id": "t1", "native_id": "t1"}
    facts |= {"observed_at": MOMENT, "status": TaskStatus.PROCESSING}
    facts |= {"native_status": "busy", **changes}
    return Task(**facts)


@pytest.mark.parametrize(
    "odd",
    [
        task(native_status=NASTY, recognized=False),
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
    assert "busy, a word that taskbridge does not know" in task_block(task(recognized=False))


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
    Console(file=shown, width=120, no_color=True).print(table.picture())

    assert " 50% " in shown.getvalue()
    assert f"busy: {SHOWN}" in shown.getvalue()
    assert "0 of 1 ended, 0s" in shown.getvalue()


def test_the_live_table_says_why_nothing_is_known_or_nothing_new() -> None:
    known = task()
    board = Board([known.ref, TaskRef("acme:gone"), TaskRef("acme:late")])
    board.take(Outcome(known.ref, known))
    board.take(Outcome(TaskRef("acme:gone"), error=TaskNotFound("nobody has seen it")))

    def shown() -> str:
        text = io.StringIO()
        Console(file=text, width=120, no_color=True).print(LiveTable(Screen(as_json=False), board).picture())
        return text.getvalue()

    for ref in (known.ref, TaskRef("acme:late")):
        board.observe(look(ref, error=ServerError("the vendor is down")))
    assert shown().count("the vendor is down") == 2
    assert "nobody has seen it" in shown()

    board.observe(look(known.ref, task=known))
    assert shown().count("the vendor is down") == 1


def look(ref: TaskRef, **what: Any) -> Observation:
    return Observation(datetime.now(UTC), "acme", ref, ObservationSource.POLL, PollReason.FIRST, **what)


def test_more_tasks_than_lines_show_those_that_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setenv("COLUMNS", "80")
    tasks = [task(id=f"t{n}", native_id=f"t{n}", status=TaskStatus.COMPLETED if n < 9 else TaskStatus.PENDING)
             for n in range(12)]  # fmt: skip
    board = Board([each.ref for each in tasks])
    for each in tasks:
        board.take(Outcome(each.ref, each))
    shown = io.StringIO()

    Console(file=shown, width=80).print(LiveTable(Screen(as_json=False), board).picture())

    assert all(f"acme:t{n} " in shown.getvalue() for n in (9, 10, 11))
    assert "9 of 12 ended, 6 not shown" in shown.getvalue()
    assert "acme  3 pending  9 completed" in shown.getvalue()


def picture(tasks: Sequence[Task], *, over: bool = False, due: float | None = None) -> str:
    """The table at 80 columns and 24 lines."""
    board = Board([each.ref for each in tasks])
    for each in tasks:
        board.take(Outcome(each.ref, each))
        if due is not None:
            board.due[each.ref] = monotonic() + due
    table = LiveTable(Screen(as_json=False), board)
    table._over = over
    shown = io.StringIO()
    Console(file=shown, width=80).print(table.picture())
    return shown.getvalue()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("small")
def test_a_row_tells_how_much_is_done_how_long_it_took_and_when_is_looked_next() -> None:
    began = datetime.now(UTC) - timedelta(seconds=187)
    seen = picture([task(id="c85f3ca9-164c-4e89-8ae2-c08192a7cb08", progress=0.4, created_at=began)], due=12.5)

    row = seen.splitlines()[1].split()
    assert row[0].startswith("acme:c85f3ca9-")
    assert row[0].endswith("a7cb08")
    assert "…" in row[0]
    assert row[1:5] == ["processing", "40%", "3:07", "12s"]


@pytest.mark.usefixtures("small")
def test_a_task_that_has_ended_has_no_next_look() -> None:
    ended = task(status=TaskStatus.COMPLETED, created_at=MOMENT, finished_at=MOMENT + timedelta(seconds=95))
    assert picture([ended], due=5.0).splitlines()[1].split()[1:4] == ["completed", "1:35", "busy"]


@pytest.mark.usefixtures("small")
def test_two_thousand_tasks_fit_into_a_terminal() -> None:
    tasks = [
        task(id=f"t{n}", connection=f"c{n % 4}", status=TaskStatus.COMPLETED if n % 2 else TaskStatus.PENDING)
        for n in range(2000)
    ]
    lines = picture(tasks).splitlines()
    assert len(lines) < 24
    assert all(len(line) <= 80 for line in lines)
    assert any(line.split() == ["c1", "500", "completed"] for line in lines)
    assert "1,000 of 2,000 ended, 1,983 not shown, 0s" in lines[-1]


@pytest.mark.usefixtures("small")
def test_at_the_end_of_many_those_are_listed_that_did_not_complete() -> None:
    tasks = [task(id=f"t{n}", status=TaskStatus.FAILED if n == 7 else TaskStatus.COMPLETED) for n in range(100)]
    lines = picture(tasks, over=True).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["acme:t7", "acme", "100"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0s"), (59.9, "59s"), (60, "1:00"), (3599, "59:59"), (3600, "1:00h"), (90_000, "1d"), (-3, "0s")],
)
def test_a_time_takes_few_columns(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


@pytest.mark.usefixtures("small")
def test_the_table_of_a_run_tells_how_long_a_file_took_and_when_its_task_is_looked_at() -> None:
    entry = Entry(number=1, source="in/a.pdf", folder="a.pdf")
    progress = Progress([entry])
    progress.take(News(entry, "waiting", task=(running := task())))
    seen = Observation(
        MOMENT, "acme", running.ref, ObservationSource.POLL, PollReason.FIRST, running, next_poll_in=12.5
    )
    progress.observe(seen)
    shown = io.StringIO()
    Console(file=shown, width=80).print(LiveRun(Screen(as_json=False), progress)._picture())
    assert shown.getvalue().splitlines()[1].split() == ["a.pdf", "at", "vendor", "0s", "12s", "busy"]

    progress.take(News(entry, "failed", task=running))
    shown = io.StringIO()
    Console(file=shown, width=80).print(LiveRun(Screen(as_json=False), progress)._picture())
    assert "12s" not in shown.getvalue()
