"""`run`: what it cost, `--max-cost` and `--dry-run`; and what `account` and `compare` show of the cost."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from taskbridge.testing import Emulator

from .folders import JOBS, fill, records

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(own_vendors: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a configuration and four documents in `in`."""
    monkeypatch.chdir(tmp_path)
    return fill(tmp_path, own_vendors, "abcd")


@pytest.fixture
def go(place: Path, run_here: Run) -> Run:
    """Runs ``taskbridge run --to out`` with arguments."""
    return lambda *words: run_here("run", *words, "--to", "out", "--config", str(place / "taskbridge.toml"))


def costs() -> list[tuple[float, str]]:
    with closing(sqlite3.connect("out/taskbridge-run.sqlite")) as database, database:
        return database.execute("SELECT amount, unit FROM taskbridge_watch ORDER BY created_at").fetchall()


def test_the_store_and_the_last_record_say_what_the_run_cost(go: Run) -> None:
    first = records(go("extract-text", "in/a.pdf", "in/b.pdf", "--json").stdout)
    assert first[-1]["usage"] == {"credits": 2}
    assert {each["task"]["usage"]["amount"] for each in first[:-1]} == {1}
    assert costs() == [(1, "credits"), (1, "credits")]

    again = records(go("extract-text", "in", "--resume", "--json").stdout)

    assert (again[-1]["usage"], again[-1]["max_cost_reached"]) == ({"credits": 4}, False)
    assert go("--resume").stderr == "taskbridge: 4 of 4 done, 4 credits\n"  # each counts once


def test_no_more_is_submitted_once_the_cost_is_reached(go: Run, own_vendors: Emulator) -> None:
    first = go("extract-text", "in", "--max-cost", "2", "--max-in-flight", "1")

    assert first.returncode == 8
    shown = first.stderr.splitlines()
    assert shown[0] == "taskbridge: 2 of 4 done, 2 not submitted, 2 credits"
    assert shown[1] == "the known cost reached --max-cost, so the rest was not submitted; raise it to go on"
    assert "--max-in-flight 1 --max-cost 2" in shown[2]
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 2

    same = go("--resume", "--max-cost", "2")  # what earlier processes submitted counts
    assert (same.returncode, own_vendors.count("cloudconvert", "POST", JOBS)) == (8, 2)

    more = go("--resume", "--max-cost", "10")
    assert (more.returncode, more.stderr) == (0, "taskbridge: 4 of 4 done, 4 credits\n")


def test_a_limit_that_is_reached_by_the_last_file_stops_nothing(go: Run) -> None:
    done = go("extract-text", "in", "--max-cost", "4", "--max-in-flight", "1")
    assert (done.returncode, done.stderr) == (0, "taskbridge: 4 of 4 done, 4 credits\n")


def test_a_limit_of_nothing_is_no_limit(go: Run, own_vendors: Emulator) -> None:
    assert go("extract-text", "in", "--max-cost", "0").returncode == 2
    assert own_vendors.count("cloudconvert") == 0


def test_a_limit_needs_a_vendor_that_says_what_a_task_costs(go: Run, own_vendors: Emulator) -> None:
    done = go("extract-text", "in", "--max-cost", "5", "--connection", "scan-documents")
    assert (done.returncode, own_vendors.count("scan-documents")) == (2, 0)
    assert "Scan Documents does not say what a task costs" in done.stderr


def test_a_damaged_cost_in_the_store_is_refused(go: Run) -> None:
    go("extract-text", "in/a.pdf")
    with closing(sqlite3.connect("out/taskbridge-run.sqlite")) as database, database:
        database.execute("UPDATE taskbridge_watch SET amount = 'much'")
    assert "is damaged (an amount is no number)" in go("--resume").stderr


# Dry runs.


def test_a_dry_run_says_what_would_be_submitted_and_leaves_nothing(go: Run, place: Path, own_vendors: Emulator) -> None:
    (place / "in" / "empty.pdf").write_bytes(b"")
    done = go("extract-text", "in", "missing.pdf", "--dry-run")

    assert done.returncode == 7
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [[f"{name}.pdf", "submit"] for name in "abcd"]
    assert lines[4] == "empty.pdf    refuse   empty.pdf is empty; a stream may have been read before"
    assert lines[5].startswith("missing.pdf  refuse   No such file or directory")
    assert done.stderr == "taskbridge: dry run of 6: 4 submit, 2 refuse; nothing was sent\n"
    assert not (place / "out").exists()
    assert own_vendors.count("cloudconvert") == 0


def test_a_dry_run_of_a_resume_says_what_is_left(go: Run, place: Path, own_vendors: Emulator) -> None:
    go("extract-text", "in/a.pdf")
    before = (place / "out" / "taskbridge-run.sqlite").read_bytes()
    sent = own_vendors.count("cloudconvert")

    *files, last = records(go("extract-text", "in", "--resume", "--dry-run", "--json").stdout)

    assert [(each["folder"], each["state"]) for each in files] == [
        ("a.pdf", "done"),
        *[(f"{name}.pdf", "submit") for name in "bcd"],
    ]
    assert last == {"files": 4, "counts": {"done": 1, "submit": 3}, "dry_run": True}
    assert (place / "out" / "taskbridge-run.sqlite").read_bytes() == before
    assert own_vendors.count("cloudconvert") == sent


def test_a_dry_run_refuses_what_a_run_refuses(go: Run) -> None:
    assert go("no-such-operation", "in", "--dry-run").returncode == 2
    go("extract-text", "in/a.pdf")
    assert "is the store of an earlier run" in go("extract-text", "in", "--dry-run").stderr


# The account, and two vendors side by side.


def test_account_shows_the_balance(place: Path, run_here: Run) -> None:
    config = ("--config", str(place / "taskbridge.toml"))
    assert run_here("account", "cloudconvert", *config).stdout.startswith("cloudconvert (emulator): 99")
    (record,) = records(run_here("account", "cloudconvert", "--json", *config).stdout)
    assert (record["unit"], record["name"]) == ("credits", "emulator")
    assert "raw" not in record
    assert run_here("account", "smartdocumentor", *config).returncode == 2


@pytest.mark.usefixtures("place")
def test_compare_shows_what_each_vendor_took(run_here: Run) -> None:
    words = ("compare", "cloudconvert", "expertai-extract", "in/a.pdf", "in/b.pdf", "--config", "taskbridge.toml")
    shown = run_here(*words).stdout
    assert "  cost     1 credit" in shown
    assert "cost: cloudconvert 2 credits, expertai-extract " in shown
    *_, last = records(run_here(*words, "--json").stdout)
    assert last["usage"]["cloudconvert"] == {"credits": 2}
    assert last["usage"]["expertai-extract"]["pages"] >= 2
