"""`run`: many files, their ends, and what a later run makes of the ledger."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from taskbridge.cli.ledger import Entry, Ledger, Terms
from taskbridge.emulator.texts import config_toml
from taskbridge.testing import Emulator

Run = Callable[..., subprocess.CompletedProcess[str]]

PDF = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"
JOBS = "/v2/jobs"
LAYOUT = "/layout-document-async"


@pytest.fixture
def place(own_vendors: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a configuration and three documents in `in`."""
    quick = 'poll.interval = 0.05\nretry.first = 0.01\nprovider = "'
    (tmp_path / "taskbridge.toml").write_text(config_toml(own_vendors).replace('provider = "', quick), "utf-8")
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.pdf").write_bytes(PDF + name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def go(place: Path, run_here: Run) -> Run:
    """Runs ``taskbridge run --to out`` with some words."""
    return lambda *words: run_here("run", *words, "--to", "out", "--config", str(place / "taskbridge.toml"))


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def files(place: Path) -> list[str]:
    return sorted(str(each.relative_to(place / "out")) for each in (place / "out").rglob("*") if each.is_file())


RESUME = "resume with: taskbridge run --resume --to out --config {}/taskbridge.toml\n"


# To the end.


def test_each_file_gets_a_folder_with_its_results(go: Run, place: Path, own_vendors: Emulator) -> None:
    seen = go("extract-text", "in")

    assert (seen.returncode, seen.stderr) == (0, "taskbridge: 3 of 3 done\n")
    assert sorted(seen.stdout.splitlines()) == [f"{n}.pdf  done       out/{n}.pdf/{n}.txt" for n in "abc"]
    assert files(place) == ["a.pdf/a.txt", "b.pdf/b.txt", "c.pdf/c.txt", "taskbridge-run.sqlite"]
    assert stat.S_IMODE((place / "out" / "taskbridge-run.sqlite").stat().st_mode) == 0o600
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 3


def test_scripts_get_an_object_for_each_file_and_one_for_all(go: Run, place: Path) -> None:
    seen = go("extract-text", "in/a.pdf", "in/none.pdf", "--json")

    assert (seen.returncode, seen.stderr) == (7, "")
    *ends, last = records(seen.stdout)
    found = {each["folder"]: each for each in ends}
    assert set(found["a.pdf"]) == {"file", "folder", "state", "ref", "task", "files", "error"}
    assert (found["a.pdf"]["state"], found["a.pdf"]["files"]) == ("done", ["out/a.pdf/a.txt"])
    assert found["a.pdf"]["file"] == str(place / "in" / "a.pdf")
    assert found["a.pdf"]["task"]["status"] == "completed"
    assert (found["none.pdf"]["state"], found["none.pdf"]["error"]["type"]) == ("error", "FileNotFoundError")
    assert last["counts"] == {"done": 1, "error": 1}
    assert last["resume"] == RESUME.format(place).removeprefix("resume with: ").strip()


def test_a_bad_file_stops_no_other_and_is_tried_again(go: Run, place: Path, own_vendors: Emulator) -> None:
    (place / "empty.pdf").write_bytes(b"")
    first = go("extract-text", "in/a.pdf", "missing.pdf", "empty.pdf")

    assert first.returncode == 7
    assert "missing.pdf  not done   No such file or directory: " in first.stdout
    assert "empty.pdf    not done   empty.pdf is empty" in first.stdout
    (place / "missing.pdf").write_bytes(PDF)
    (place / "empty.pdf").write_bytes(PDF)
    before = own_vendors.count("cloudconvert", "POST", JOBS)

    second = go("--resume")

    assert (second.returncode, second.stderr) == (0, "taskbridge: 3 of 3 done\n")
    assert own_vendors.count("cloudconvert", "POST", JOBS) == before + 2 == 3


def test_a_task_that_failed_is_told_again_and_not_sent_again(go: Run, place: Path, own_vendors: Emulator) -> None:
    (place / "fail.pdf").write_bytes(PDF)
    first = go("extract-text", "fail.pdf", "in/a.pdf")
    sent = own_vendors.count("cloudconvert", "POST", JOBS)
    second = go("--resume")

    assert (first.returncode, second.returncode) == (7, 7)
    assert first.stderr == second.stderr == "taskbridge: 1 of 2 done, 1 failed\n"
    assert "fail.pdf  failed     cloudconvert:job/" in first.stdout
    assert second.stdout.startswith("fail.pdf  failed")
    assert own_vendors.count("cloudconvert", "POST", JOBS) == sent == 2


# Which files.


def test_a_file_given_twice_goes_once_and_two_of_one_name_get_two_folders(go: Run, place: Path) -> None:
    (place / "other").mkdir()
    (place / "other" / "a.pdf").write_bytes(PDF + b"other")
    seen = go("extract-text", "in/a.pdf", "./in/../in/a.pdf", str(place / "in" / "a.pdf"), "other/a.pdf")

    assert seen.stderr == "taskbridge: 2 of 2 done\n"
    assert files(place)[:2] == ["a.pdf-2/a.txt", "a.pdf/a.txt"]


def test_folders_that_are_there_are_left_alone(go: Run, place: Path) -> None:
    mine = place / "out" / "a.pdf" / "a.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    go("extract-text", "in/a.pdf")

    assert mine.read_text() == "mine"
    assert "a.pdf-2/a.txt" in files(place)


def test_patterns_and_lists_name_files(go: Run, place: Path) -> None:
    (place / "list.txt").write_text("in/b.pdf\n\nin/c.pdf\n")
    seen = go("extract-text", "in/[a]*.pdf", "--files-from", "list.txt")

    assert seen.stderr == "taskbridge: 3 of 3 done\n"


def test_a_url_is_told_without_its_query(go: Run) -> None:
    seen = go("extract-text", "https://files.example/report.pdf?token=secret", "--json")

    assert records(seen.stdout)[0]["file"] == "https://files.example/report.pdf"
    assert "secret" not in seen.stdout + seen.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("extract-text",), "An operation and at least one file are needed"),
        ((), "An operation and at least one file are needed"),
        (("--resume",), "there is no ledger out/taskbridge-run.sqlite to go on with"),
        (("extrac-text", "in"), "did you mean 'extract-text'"),
        (("extract-text", "no*.pdf"), "no file matches no*.pdf"),
        (("extract-text", "void"), "the folder void has no files in it"),
        (("extract-text", "in", "--files-from", "nothing"), "No such file or directory"),
        (("extract-text", "in", "--connection", "nobody"), "there is no connection 'nobody'"),
        (("extract-text", "in", "--connection", "smartdocumentor"), "takes no document given as path; it takes: url"),
        (("extract-text", "in", "-o", "pages"), "an option is written as name=value"),
        (("extract-text", "in", "--max-in-flight", "0"), "0 is not in the range"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(
    go: Run, place: Path, own_vendors: Emulator, words: tuple[str, ...], told: str
) -> None:
    (place / "void").mkdir()
    seen = go(*words)

    assert (seen.returncode, seen.stdout) == (2, "")
    assert told in seen.stderr
    assert not (place / "out").exists()
    assert own_vendors.requests == []


def test_the_ledger_is_no_document(place: Path, run_here: Run, own_vendors: Emulator) -> None:
    here = ("run", "extract-text", "in", "--to", "in", "--config", str(place / "taskbridge.toml"))
    first = run_here(*here)
    (place / "in" / "taskbridge-run.sqlite-journal").touch()  # as a kill leaves it
    second = run_here(*here, "--resume")

    assert (first.stderr, second.stderr) == ("taskbridge: 3 of 3 done\n", "taskbridge: 3 of 3 done\n")
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 3


# The account.


def test_a_refused_key_ends_the_run_at_once(go: Run, place: Path, own_vendors: Emulator) -> None:
    config = place / "taskbridge.toml"
    good = config.read_text("utf-8")
    key = own_vendors.settings("cloudconvert")["api_key"]
    config.write_text(good.replace(key, "not-the-key"), "utf-8")
    first = go("extract-text", "in")
    config.write_text(good, "utf-8")
    second = go("--resume")

    assert (first.returncode, first.stdout) == (4, "")
    assert first.stderr.endswith(f"taskbridge: 0 of 3 done, 3 not begun\n{RESUME.format(place)}")
    assert (second.returncode, second.stderr) == (0, "taskbridge: 3 of 3 done\n")
    assert sum(seen.status == 401 for seen in own_vendors.requests) <= 2


def test_an_order_of_unknown_fate_is_not_looked_for_with_a_refused_key(go: Run, place: Path) -> None:
    _killed_while_sending(place, "cloudconvert")
    config = place / "taskbridge.toml"
    config.write_text(re.sub("^api_key = .*", 'api_key = "not-the-key"', config.read_text("utf-8"), flags=re.MULTILINE))
    seen = go("--resume")

    assert seen.returncode == 4
    assert seen.stdout.startswith("a.pdf  uncertain  cloudconvert: ")
    assert "taskbridge: 0 of 2 done, 1 uncertain, 1 not begun\n" in seen.stderr


# The ledger.


def test_a_ledger_is_not_gone_on_with_unasked(go: Run) -> None:
    go("extract-text", "in/a.pdf")
    seen = go("extract-text", "in/b.pdf")

    assert seen.returncode == 2
    assert "is the ledger of an earlier run; add --resume" in seen.stderr


def test_more_files_may_come_with_a_resume(go: Run, own_vendors: Emulator) -> None:
    go("extract-text", "in/a.pdf")
    seen = go("extract-text", "in", "--resume")

    assert seen.stderr == "taskbridge: 3 of 3 done\n"
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("convert", "in"), "is of another operation (extract-text)"),
        (("extract-text", "in", "--connection", "scan-documents"), "is of another connection (cloudconvert)"),
        (("extract-text", "in", "-o", "engine=x"), "is of another options ({})"),
    ],
)
def test_a_ledger_is_of_one_purpose(go: Run, words: tuple[str, ...], told: str) -> None:
    go("extract-text", "in/a.pdf")
    seen = go(*words, "--resume")

    assert seen.returncode == 2
    assert told in seen.stderr


def test_two_processes_do_not_share_a_ledger(go: Run, place: Path, own_vendors: Emulator) -> None:
    (place / "out").mkdir()
    with Ledger.open(place / "out" / "taskbridge-run.sqlite"):
        seen = go("extract-text", "in", "--resume")

    assert seen.returncode == 2
    assert "is in use by another run" in seen.stderr
    assert own_vendors.requests == []


def test_a_file_that_changed_is_told_of(go: Run, place: Path, own_vendors: Emulator) -> None:
    go("extract-text", "in")
    (place / "in" / "b.pdf").write_bytes(PDF + b"another")
    os.utime(place / "in" / "c.pdf")  # touched, and the same
    (place / "in" / "a.pdf").unlink()
    seen = go("--resume")

    assert seen.returncode == 7
    assert seen.stdout.startswith("b.pdf  changed    since it was sent")
    assert seen.stderr == "taskbridge: 2 of 3 done, 1 changed\n"
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"nothing that SQLite knows, and long enough to be read as a header of it", "is no ledger of a run"),
        ("CREATE TABLE mine (x)", "is a database of somebody else's"),
        ("PRAGMA application_id=1952543595; PRAGMA user_version=99", "is of another taskbridge (version 99"),
    ],
)
def test_a_file_of_somebody_else_is_no_ledger(go: Run, place: Path, content: bytes | str, told: str) -> None:
    path = place / "mine.sqlite"
    if isinstance(content, bytes):
        path.write_bytes(content * 20)
    else:
        with sqlite3.connect(path) as database:
            database.executescript(content)
        database.close()
    before = path.read_bytes()
    seen = go("extract-text", "in", "--ledger", str(path), "--resume")

    assert seen.returncode == 2
    assert told in seen.stderr
    assert path.read_bytes() == before


def test_names_that_are_no_text_survive_the_ledger(go: Run, place: Path) -> None:
    name = os.fsencode(place / "in") + b"/caf\xe9\x1b[31m.pdf"
    Path(os.fsdecode(name)).write_bytes(PDF)
    first = go("extract-text", os.fsdecode(name), "nothing.pdf")
    (place / "nothing.pdf").write_bytes(PDF)
    second = go("--resume")

    assert (first.returncode, second.returncode) == (7, 0)
    assert "\x1b" not in first.stdout
    assert second.stderr == "taskbridge: 2 of 2 done\n"


# Orders of unknown fate.


def test_an_order_that_nobody_can_look_for_is_not_sent_again_unasked(
    go: Run, place: Path, own_vendors: Emulator
) -> None:
    _killed_while_sending(place, "expertai-extract")
    first = go("--resume")
    second = go("--resume", "--json")
    before = own_vendors.count("expertai-extract", "POST", LAYOUT)
    third = go("--resume", "--resubmit-uncertain")

    assert (first.returncode, second.returncode, third.returncode) == (7, 7, 0)
    assert "a.pdf  uncertain  expertai-extract: expert.ai Extract cannot look for an order" in first.stdout
    assert "is sent again with --resubmit-uncertain; look at the vendor first\n" in first.stderr
    assert "--resubmit-uncertain" not in first.stderr.splitlines()[-1]
    assert [each["state"] for each in records(second.stdout)[:-1]].count("uncertain") == 1
    assert before == 1  # of the other file
    assert own_vendors.count("expertai-extract", "POST", LAYOUT) == 2


def _killed_while_sending(place: Path, vendor: str) -> None:
    """The ledger of a run of two files, as a kill leaves it while the first is sent."""
    files = [Entry(n, str(place / "in" / name), name) for n, name in enumerate(("a.pdf", "b.pdf"), 1)]
    recovery_token = {"provider": vendor, "connection": vendor, "operation": "convert", "reference": "r", "tag": "r"}
    (place / "out").mkdir()
    with Ledger.open(place / "out" / "taskbridge-run.sqlite") as ledger:
        ledger.begin(Terms(vendor, vendor, "extract-text", {}), files)
        ledger.sending(1, {**recovery_token, "time": datetime.now(UTC).isoformat()}, None)


@pytest.mark.parametrize("status", [504, 503])  # a gateway answers, or the server, and the vendor has nothing of it
def test_an_order_that_does_not_show_up_in_time_is_sent_again(go: Run, own_vendors: Emulator, status: int) -> None:
    own_vendors.fail_next(status, vendor="cloudconvert")
    seen = go("extract-text", "in/a.pdf", "--settle", "0.2")

    assert (seen.returncode, seen.stderr) == (0, "taskbridge: 1 of 1 done\n")
    posts = [each.status for each in own_vendors.requests if each.method == "POST" and JOBS in each.path]
    assert posts == [status, 201]


def test_what_was_refused_in_passing_is_sent_again_later(go: Run, place: Path, own_vendors: Emulator) -> None:
    config = place / "taskbridge.toml"
    config.write_text(config.read_text("utf-8").replace("retry.first = 0.01", "retry.attempts = 1"), "utf-8")
    own_vendors.fail_next(429, retry_after=0, vendor="cloudconvert")
    seen = go("extract-text", "in/a.pdf")

    assert (seen.returncode, seen.stderr) == (0, "taskbridge: 1 of 1 done\n")
    posts = [each.status for each in own_vendors.requests if each.method == "POST" and JOBS in each.path]
    assert posts == [429, 201]


# Ctrl-C.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_what_is_being_sent_and_tells_the_way_back(
    place: Path, own_vendors: Emulator, number: signal.Signals
) -> None:
    for n in range(30):
        (place / "in" / f"slow-{n}.pdf").write_bytes(PDF)
    words = ["run", "extract-text", "in", "--to", "out", "--config", str(place / "taskbridge.toml")]
    with subprocess.Popen(
        [sys.executable, "-m", "taskbridge", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while own_vendors.count("cloudconvert", "POST", JOBS) < 4:
            assert process.poll() is None
            threading.Event().wait(0.005)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)

    assert process.returncode == 128 + number
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
    assert err.startswith(f"taskbridge: {word}; ")
    assert "of unknown fate" not in err
    assert err.endswith(RESUME.format(place))
    with Ledger.open(place / "out" / "taskbridge-run.sqlite") as ledger:
        taken = [each for each in ledger.entries() if each.ref is not None]
    assert len(taken) == own_vendors.count("cloudconvert", "POST", JOBS)
