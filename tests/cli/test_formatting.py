"""Formatting: a vendor's words are shown, but never control the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest
from rich.console import Console

from taskbridge._config.registry import ProviderInfo
from taskbridge.cli.formatting import duration_text, provider_block, result_block, task_block, task_line
from taskbridge.cli.output import Output
from taskbridge.cli.run.live_table import RunTable
from taskbridge.cli.run.progress import ResumeCommand, RunProgress, show_stop
from taskbridge.cli.wait.live_table import WaitTable
from taskbridge.cli.wait.progress import WaitProgress
from taskbridge.errors import ConnectFailed, ServerError, TaskNotFound
from taskbridge.events import Observation, ObservationSource, PollReason
from taskbridge.models import Outcome, Task, TaskFailure, TaskFile, TaskRef, TaskResult, TaskStatus
from taskbridge.store.runs.files import FilePhase, FileUpdate, RunFile

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
    assert task_line(odd, 20).isprintable()


def test_an_unknown_status_word_is_marked() -> None:
    assert "busy, a word that taskbridge does not know" in task_block(task(recognized=False))


def test_a_message_that_repeats_the_status_is_left_out() -> None:
    failed = task(status=TaskStatus.FAILED, native_status="FAILURE", error=TaskFailure(code="E1", message="failure"))
    twice = task(status=TaskStatus.FAILED, native_status="error", error=TaskFailure(code="E1", message="E1"))

    assert task_line(failed, 0).endswith("  failed      FAILURE: E1")
    assert task_line(task(message="Busy"), 0).endswith("  processing  busy")
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
    progress = WaitProgress([odd.ref])
    progress.update(Outcome(odd.ref, odd))
    shown = io.StringIO()

    table = WaitTable(Output(as_json=False), progress)
    Console(file=shown, width=120, no_color=True).print(table.render())

    assert " 50% " in shown.getvalue()
    assert f"busy: {SHOWN}" in shown.getvalue()
    assert "0 of 1 ended, 0s" in shown.getvalue()


def test_the_live_table_shows_why_there_is_no_status_or_no_newer_one() -> None:
    known = task()
    progress = WaitProgress([known.ref, TaskRef("acme:gone"), TaskRef("acme:late")])
    progress.update(Outcome(known.ref, known))
    progress.update(Outcome(TaskRef("acme:gone"), error=TaskNotFound("no such task")))

    def shown() -> str:
        text = io.StringIO()
        Console(file=text, width=120, no_color=True).print(WaitTable(Output(as_json=False), progress).render())
        return text.getvalue()

    for ref in (known.ref, TaskRef("acme:late")):
        progress.observe(observation(ref, error=ServerError("the vendor is down")))
    assert shown().count("the vendor is down") == 2
    assert "no such task" in shown()

    progress.observe(observation(known.ref, task=known))
    assert shown().count("the vendor is down") == 1


def observation(ref: TaskRef, **what: Any) -> Observation:
    return Observation(datetime.now(UTC), "acme", ref, ObservationSource.POLL, PollReason.FIRST, **what)


def test_if_lines_are_short_running_tasks_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setenv("COLUMNS", "80")
    tasks = [task(id=f"t{n}", native_id=f"t{n}", status=TaskStatus.COMPLETED if n < 9 else TaskStatus.PENDING)
             for n in range(12)]  # fmt: skip
    progress = WaitProgress([each.ref for each in tasks])
    for each in tasks:
        progress.update(Outcome(each.ref, each))
    shown = io.StringIO()

    Console(file=shown, width=80).print(WaitTable(Output(as_json=False), progress).render())

    assert all(f"acme:t{n} " in shown.getvalue() for n in (9, 10, 11))
    assert "9 of 12 ended, 6 not shown" in shown.getvalue()
    assert "acme  3 pending  9 completed" in shown.getvalue()


def picture(tasks: Sequence[Task], *, finished: bool = False, due: float | None = None) -> str:
    """The table at 80 columns and 24 lines."""
    progress = WaitProgress([each.ref for each in tasks])
    for each in tasks:
        progress.update(Outcome(each.ref, each))
        if due is not None:
            progress.due[each.ref] = monotonic() + due
    table = WaitTable(Output(as_json=False), progress)
    table._finished = finished
    shown = io.StringIO()
    Console(file=shown, width=80).print(table.render())
    return shown.getvalue()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("small")
def test_a_row_shows_progress_duration_and_next_poll() -> None:
    began = datetime.now(UTC) - timedelta(seconds=187)
    shown = picture([task(id="c85f3ca9-164c-4e89-8ae2-c08192a7cb08", progress=0.4, created_at=began)], due=12.5)

    row = shown.splitlines()[1].split()
    assert row[0].startswith("acme:c85f3ca9-")
    assert row[0].endswith("a7cb08")
    assert "…" in row[0]
    assert row[1:5] == ["processing", "40%", "3:07", "12s"]


@pytest.mark.usefixtures("small")
def test_a_task_that_has_ended_has_no_next_poll() -> None:
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
def test_at_the_end_of_many_tasks_those_that_did_not_complete_are_listed() -> None:
    tasks = [task(id=f"t{n}", status=TaskStatus.FAILED if n == 7 else TaskStatus.COMPLETED) for n in range(100)]
    lines = picture(tasks, finished=True).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["acme:t7", "acme", "100"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0s"), (59.9, "59s"), (60, "1:00"), (3599, "59:59"), (3600, "1:00h"), (90_000, "1d"), (-3, "0s")],
)
def test_a_duration_takes_few_columns(seconds: float, shown: str) -> None:
    assert duration_text(seconds) == shown


@pytest.mark.usefixtures("small")
def test_the_table_of_a_run_shows_duration_and_next_poll() -> None:
    file = RunFile(number=1, source="in/a.pdf", folder="a.pdf", phase=FilePhase.ACCEPTED, ref="acme:t1")
    progress = RunProgress([file])
    progress.update(FileUpdate(file, "waiting", task=(running := task())))
    event = Observation(
        MOMENT, "acme", running.ref, ObservationSource.POLL, PollReason.FIRST, running, next_poll_in=12.5
    )
    progress.observe(event)
    shown = io.StringIO()
    Console(file=shown, width=80).print(RunTable(progress).render())
    assert shown.getvalue().splitlines()[1].split() == ["a.pdf", "at", "vendor", "0s", "12s", "busy"]

    progress.update(FileUpdate(file, "failed", task=running))
    shown = io.StringIO()
    Console(file=shown, width=80).print(RunTable(progress).render())
    assert "12s" not in shown.getvalue()


def run_of(*phases: FilePhase, sent: float = 0.0) -> RunProgress:
    """A run whose files are that far, sent so many seconds ago."""
    time = (datetime.now(UTC) - timedelta(seconds=sent)).isoformat()
    return RunProgress(
        RunFile(
            number=number,
            source=f"in/{number}.pdf",
            folder=f"{number}.pdf",
            phase=phase,
            recovery_token=None if phase is FilePhase.PLANNED else {"time": time},
            ref=f"acme:t{number}" if phase in (FilePhase.ACCEPTED, FilePhase.DONE) else None,
        )
        for number, phase in enumerate(phases, 1)
    )


@pytest.mark.usefixtures("small")
def test_the_table_of_a_run_counts_as_its_closing_line_does(capsys: pytest.CaptureFixture[str]) -> None:
    """Also after an interruption, whose last update of a file may be older than the store."""
    progress = run_of(FilePhase.PLANNED, FilePhase.PLANNED, FilePhase.DONE)
    first, second, third = progress.files.values()
    table = RunTable(progress)
    for update in (FileUpdate(first, "submitting"), FileUpdate(first, "skipped"), FileUpdate(second, "skipped")):
        progress.update(update)
    progress.stop([replace(first, phase=FilePhase.ACCEPTED, ref="acme:t1"), second, third])
    shown = io.StringIO()
    Console(file=shown, width=80).print(table.render())
    counts = "1 of 3 done, 1 at the vendor, 1 not submitted"
    assert shown.getvalue().splitlines()[-1].startswith(f"{counts}, ")
    show_stop(Output(as_json=False), "interrupted", progress, ResumeCommand("again"), in_table=False)
    assert capsys.readouterr().err == f"taskbridge: interrupted; {counts}\nresume with: again\n"


def test_the_time_of_a_run_includes_earlier_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = run_of(FilePhase.DONE, FilePhase.ACCEPTED, FilePhase.PLANNED, FilePhase.PLANNED, sent=100.0)
    assert 100.0 <= progress.elapsed < 130.0
    _, accepted, planned, _ = progress.files.values()
    progress.update(FileUpdate(accepted, "waiting"))
    progress.update(FileUpdate(planned, "submitting"))
    assert 100.0 <= progress.age(2) < 130.0
    assert progress.age(3) < 30.0
    assert progress.time_left is None  # nothing has ended yet in this run
    progress.update(FileUpdate(replace(accepted, phase=FilePhase.DONE), "done"))
    later = monotonic() + 60.0
    monkeypatch.setattr("taskbridge.cli.run.progress.monotonic", lambda: later)
    assert progress.time_left == pytest.approx(2 * 60.0, abs=30.0)  # two files are left, and one took a minute


@pytest.mark.usefixtures("small")
def test_the_table_of_a_run_keeps_next_poll_and_vendor_status_apart() -> None:
    progress = run_of(FilePhase.ACCEPTED)
    (file,) = progress.files.values()
    progress.update(FileUpdate(file, "waiting", task=task(id="t1", native_status="busy")))
    failed = Observation(
        MOMENT,
        "acme",
        TaskRef("acme:t1"),
        ObservationSource.POLL,
        PollReason.RETRY,
        error=ConnectFailed("connection refused"),
        next_poll_in=6.5,
    )
    progress.observe(failed)
    shown = io.StringIO()
    Console(file=shown, width=100).print(RunTable(progress).render())
    head, row, total = shown.getvalue().splitlines()
    assert head.split() == ["file", "state", "time", "next", "poll", "vendor", "status"]
    assert row.split() == ["1.pdf", "at", "vendor", "0s", "6s", "busy", "connection", "refused"]
    assert total == "0 of 1 done, 1 at the vendor, 0s"
    assert progress.waiting_for() == "1 busy"
