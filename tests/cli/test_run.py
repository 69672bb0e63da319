"""`run`: many files, their ends, and a later run with the same store."""

from __future__ import annotations

import inspect
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import click
import pytest

import taskbridge as tb
from taskbridge.cli.download import command as download_command
from taskbridge.cli.run import command as run_command
from taskbridge.cli.run.plan import RunRequest
from taskbridge.store.runs.files import RunFile, RunTerms
from taskbridge.store.runs.worker import RunLimits
from taskbridge.testing import Emulator

from .folders import JOBS, PDF, fill, open_run, records

Run = Callable[..., subprocess.CompletedProcess[str]]

LAYOUT = "/layout-document-async"


@pytest.fixture
def place(own_vendors: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a configuration and three documents in `in`."""
    monkeypatch.chdir(tmp_path)
    return fill(tmp_path, own_vendors, "abc")


@pytest.fixture
def go(place: Path, run_here: Run) -> Run:
    """Runs ``taskbridge run --to out`` with arguments."""
    return lambda *words: run_here("run", *words, "--to", "out", "--config", str(place / "taskbridge.toml"))


def files(place: Path) -> list[str]:
    return sorted(str(each.relative_to(place / "out")) for each in (place / "out").rglob("*") if each.is_file())


RESUME = "resume with: taskbridge run --resume --to out --config {}/taskbridge.toml\n"


# Complete runs.


def test_each_file_gets_a_folder_with_its_results(go: Run, place: Path, own_vendors: Emulator) -> None:
    done = go("extract-text", "in")

    assert (done.returncode, done.stderr) == (0, "taskbridge: 3 of 3 done, 3 credits\n")
    assert sorted(done.stdout.splitlines()) == [f"{n}.pdf  done       out/{n}.pdf/{n}.txt" for n in "abc"]
    assert files(place) == ["a.pdf/a.txt", "b.pdf/b.txt", "c.pdf/c.txt", "taskbridge-run.sqlite"]
    assert stat.S_IMODE((place / "out" / "taskbridge-run.sqlite").stat().st_mode) == 0o600
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 3


def test_json_has_an_object_for_each_file_and_one_for_the_run(go: Run, place: Path) -> None:
    done = go("extract-text", "in/a.pdf", "in/none.pdf", "--json")

    assert (done.returncode, done.stderr) == (7, "")
    *ends, last = records(done.stdout)
    found = {each["folder"]: each for each in ends}
    assert set(found["a.pdf"]) == {"file", "folder", "state", "ref", "task", "files", "warning", "error"}
    assert (found["a.pdf"]["state"], found["a.pdf"]["files"]) == ("done", ["out/a.pdf/a.txt"])
    assert found["a.pdf"]["file"] == str(place / "in" / "a.pdf")
    assert found["a.pdf"]["task"]["status"] == "completed"
    assert (found["none.pdf"]["state"], found["none.pdf"]["error"]["type"]) == ("error", "FileNotFoundError")
    assert last["counts"] == {"done": 1, "error": 1}
    assert last["resume"] == RESUME.format(place).removeprefix("resume with: ").strip()


def test_a_bad_file_stops_no_other_and_is_retried_on_resume(go: Run, place: Path, own_vendors: Emulator) -> None:
    (place / "empty.pdf").write_bytes(b"")
    first = go("extract-text", "in/a.pdf", "missing.pdf", "empty.pdf")

    assert first.returncode == 7
    assert "missing.pdf  not done   No such file or directory: " in first.stdout
    assert "empty.pdf    not done   empty.pdf is empty" in first.stdout
    (place / "missing.pdf").write_bytes(PDF)
    (place / "empty.pdf").write_bytes(PDF)
    before = own_vendors.count("cloudconvert", "POST", JOBS)

    second = go("--resume")

    assert (second.returncode, second.stderr) == (0, "taskbridge: 3 of 3 done, 3 credits\n")
    assert own_vendors.count("cloudconvert", "POST", JOBS) == before + 2 == 3


def test_a_failed_task_is_reported_again_but_not_submitted_again(go: Run, place: Path, own_vendors: Emulator) -> None:
    (place / "fail.pdf").write_bytes(PDF)
    first = go("extract-text", "fail.pdf", "in/a.pdf")
    sent = own_vendors.count("cloudconvert", "POST", JOBS)
    second = go("--resume")

    assert (first.returncode, second.returncode) == (7, 7)
    assert first.stderr == second.stderr == "taskbridge: 1 of 2 done, 1 failed, 1 credit\n"
    assert "fail.pdf  failed     cloudconvert:job/" in first.stdout
    assert second.stdout.startswith("fail.pdf  failed")
    assert own_vendors.count("cloudconvert", "POST", JOBS) == sent == 2


# Which files.


def test_a_file_given_twice_is_submitted_once_and_two_of_one_name_get_two_folders(go: Run, place: Path) -> None:
    (place / "other").mkdir()
    (place / "other" / "a.pdf").write_bytes(PDF + b"other")
    done = go("extract-text", "in/a.pdf", "./in/../in/a.pdf", str(place / "in" / "a.pdf"), "other/a.pdf")

    assert done.stderr == "taskbridge: 2 of 2 done, 2 credits\n"
    assert files(place)[:2] == ["a.pdf-2/a.txt", "a.pdf/a.txt"]


def test_existing_folders_are_left_alone(go: Run, place: Path) -> None:
    mine = place / "out" / "a.pdf" / "a.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    go("extract-text", "in/a.pdf")

    assert mine.read_text() == "mine"
    assert "a.pdf-2/a.txt" in files(place)


def test_patterns_and_lists_name_files(go: Run, place: Path) -> None:
    (place / "list.txt").write_text("in/b.pdf\n\nin/c.pdf\n")
    done = go("extract-text", "in/[a]*.pdf", "--files-from", "list.txt")

    assert done.stderr == "taskbridge: 3 of 3 done, 3 credits\n"


def test_a_url_is_printed_without_its_query(go: Run) -> None:
    done = go("extract-text", "https://files.example/report.pdf?token=secret", "--json")

    assert records(done.stdout)[0]["file"] == "https://files.example/report.pdf"
    assert "secret" not in done.stdout + done.stderr


ODD_NAMES = [
    "Screenshot 2026-01-01 at 3.04.05\u202fPM.pdf",  # macOS puts a narrow no-break space there
    "Screenshot 2026-01-02 at 9.30.00\u202fPM.pdf",
    "\u8acb\u6c42\u66f8\u30002024\u5e74.pdf",
    "Rapport\xa0final.pdf",
    "family\u200d\u200b.pdf",
    "back\\slash.pdf",
    "new\nline.pdf",
    os.fsdecode(b"caf\xe9.pdf"),  # not UTF-8
    " spaces .pdf",
    "\u8acb" * 80 + ".pdf",  # 244 bytes
]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse some of these names")
def test_a_folder_has_the_name_of_its_file_whatever_is_in_it(go: Run, place: Path, own_vendors: Emulator) -> None:
    (place / "odd").mkdir()
    for number, name in enumerate(ODD_NAMES):
        (place / "odd" / name).write_bytes(PDF + bytes([number]))
    first = go("extract-text", "odd")
    again = go("extract-text", "odd", "--resume", "--json")

    assert first.stderr == f"taskbridge: {len(ODD_NAMES)} of {len(ODD_NAMES)} done, {len(ODD_NAMES)} credits\n"
    folders = {each.name for each in (place / "out").iterdir() if each.is_dir()}
    long = ODD_NAMES[-1]
    assert folders == {*ODD_NAMES[:-1], long[:80]}
    for name in ODD_NAMES[:4]:
        assert f"{name} " in first.stdout
    assert "caf\\udce9.pdf " in first.stdout
    assert "back\\slash.pdf " in first.stdout
    assert "new line.pdf " in first.stdout
    assert records(again.stdout)[-1]["counts"] == {"done": len(ODD_NAMES)}
    assert own_vendors.count("cloudconvert", "POST", JOBS) == len(ODD_NAMES)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse some of these names")
def test_json_has_the_real_name_of_a_file(go: Run, place: Path) -> None:
    for name in (ODD_NAMES[0], ODD_NAMES[7]):
        (place / "in" / name).write_bytes(PDF)
    done = go("extract-text", *(f"in/{name}" for name in (ODD_NAMES[0], ODD_NAMES[7])), "--json")

    *ends, _ = records(done.stdout)
    assert {each["folder"] for each in ends} == {ODD_NAMES[0], ODD_NAMES[7]}
    assert {each["file"] for each in ends} == {str(place / "in" / name) for name in (ODD_NAMES[0], ODD_NAMES[7])}
    assert all(Path(path).exists() for each in ends for path in each["files"])


@pytest.mark.parametrize("words", [("im",), ("im", "im/a.pdf"), ("--files-from", "list.txt")])
def test_a_mistyped_folder_leaves_no_store(go: Run, place: Path, words: tuple[str, ...]) -> None:
    (place / "list.txt").write_text("im/a.pdf\nim/b.pdf\n")
    mistyped = go("extract-text", *words)
    left = (place / "out").exists()
    corrected = go("extract-text", "in")

    assert (mistyped.returncode, mistyped.stdout, left) == (2, "", False)
    assert "No such file or directory: " in mistyped.stderr
    assert corrected.stderr == "taskbridge: 3 of 3 done, 3 credits\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("extract-text",), "An operation and at least one file are needed"),
        ((), "An operation and at least one file are needed"),
        (("--resume",), "there is no run in out to resume"),
        (("extrac-text", "in"), "did you mean 'extract-text'"),
        (("extract-text", "no*.pdf"), "no file matches no*.pdf"),
        (("extract-text", "void"), "the folder void has no files in it"),
        (("extract-text", "in", "--files-from", "nothing"), "No such file or directory"),
        (("extract-text", "in", "--connection", "missing"), "there is no connection 'missing'"),
        (("extract-text", "in", "--connection", "smartdocumentor"), "takes no document given as path; it takes: url"),
        (("extract-text", "in", "-o", "pages"), "an option is written as name=value"),
        (("extract-text", "in", "-o", f"x={'[' * 100_000}"), "the value of the option 'x' is nested too deep"),
        (("extract-text", "in", "--max-in-flight", "0"), "0 is not in the range"),
        (("extract-text", "in", "--max-bytes", "-1"), "'-1' is not a number of bytes"),
    ],
)
def test_an_impossible_request_is_refused_before_anything_is_created(
    go: Run, place: Path, own_vendors: Emulator, words: tuple[str, ...], message: str
) -> None:
    (place / "void").mkdir()
    done = go(*words)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not (place / "out").exists()
    assert own_vendors.requests == []


def test_the_store_is_not_a_document(place: Path, run_here: Run, own_vendors: Emulator) -> None:
    here = ("run", "extract-text", "in", "--to", "in", "--config", str(place / "taskbridge.toml"))
    first = run_here(*here)
    for end in ("wal", "owner-cloudconvert"):  # remain after a kill
        (place / "in" / f"taskbridge-run.sqlite-{end}").touch()
    second = run_here(*here, "--resume")

    assert (first.stderr, second.stderr) == (
        "taskbridge: 3 of 3 done, 3 credits\n",
        "taskbridge: 3 of 3 done, 3 credits\n",
    )
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 3


# The account.


def test_a_run_whose_waits_end_in_an_outage_is_5_and_says_so(go: Run, own_vendors: Emulator) -> None:
    """One warning for all files, and a refused submission is not the reason."""
    own_vendors.fail_next(502, method="GET", times=1000)
    done = go("extract-text", "in", "--timeout", "1.5")
    own_vendors.clear_faults()
    again = go("--resume")

    assert done.returncode == 5
    lines = done.stdout.splitlines()
    assert [re.sub(r"cloudconvert:job/\S+", "REF:", line) for line in sorted(lines)] == [
        f"{name}.pdf  not done   REF: timed out: it was never seen, last error: the vendor's server failed (HTTP 502)"
        for name in "abc"
    ]
    warning, *rest = done.stderr.splitlines()
    assert warning.startswith("taskbridge: connection cloudconvert has been unreachable since ")
    assert "(127.0.0.1: the vendor's server failed (HTTP 502)); tasks waiting: " in warning
    assert rest[:2] == [
        "taskbridge: 0 of 3 done, 3 not done",
        "taskbridge: timed out because cloudconvert could not be reached",
    ]
    assert again.returncode == 0


def test_a_refused_key_ends_the_run_at_once(go: Run, place: Path, own_vendors: Emulator) -> None:
    config = place / "taskbridge.toml"
    good = config.read_text("utf-8")
    key = own_vendors.settings("cloudconvert")["api_key"]
    config.write_text(good.replace(key, "not-the-key"), "utf-8")
    first = go("extract-text", "in")
    config.write_text(good, "utf-8")
    second = go("--resume")

    assert (first.returncode, first.stdout) == (4, "")
    assert first.stderr.endswith(f"taskbridge: 0 of 3 done, 3 not submitted\n{RESUME.format(place)}")
    assert (second.returncode, second.stderr) == (0, "taskbridge: 3 of 3 done, 3 credits\n")
    assert sum(request.status == 401 for request in own_vendors.requests) <= 2


def test_an_uncertain_submission_is_not_recovered_with_a_refused_key(go: Run, place: Path) -> None:
    _killed_while_submitting(place, "cloudconvert")
    config = place / "taskbridge.toml"
    config.write_text(re.sub("^api_key = .*", 'api_key = "not-the-key"', config.read_text("utf-8"), flags=re.MULTILINE))
    done = go("--resume")

    assert done.returncode == 4
    assert done.stdout.startswith("a.pdf  uncertain  cloudconvert: ")
    assert "taskbridge: 0 of 2 done, 1 uncertain, 1 not submitted\n" in done.stderr


# The store.


def test_a_run_is_not_resumed_without_the_option(go: Run) -> None:
    go("extract-text", "in/a.pdf")
    done = go("extract-text", "in/b.pdf")

    assert done.returncode == 2
    assert "is the store of an earlier run; add --resume" in done.stderr


def test_neutral_options_are_kept_in_the_store(go: Run, place: Path, own_vendors: Emulator) -> None:
    first = go("convert", "in/a.pdf", "-s", "to=docx")
    assert (first.returncode, files(place)) == (0, ["a.pdf/a.docx", "taskbridge-run.sqlite"])
    other = go("convert", "in/b.pdf", "-s", "to=png", "--resume")
    assert (other.returncode, "is for another neutral option ({'to': 'docx'})" in other.stderr) == (2, True)
    second = go("convert", "in/b.pdf", "--resume")
    assert second.returncode == 0
    assert "b.pdf/b.docx" in files(place)
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 2


def test_an_option_that_the_vendor_cannot_do_starts_no_run(go: Run, place: Path, own_vendors: Emulator) -> None:
    done = go("render", "in", "-s", "dpi=72")
    assert done.returncode == 2
    assert "CloudConvert has no dpi for render; it has to, pages" in done.stderr
    assert not (place / "out").exists()
    assert own_vendors.count() == 0


def test_a_resume_may_add_files(go: Run, own_vendors: Emulator) -> None:
    go("extract-text", "in/a.pdf")
    done = go("extract-text", "in", "--resume")

    assert done.stderr == "taskbridge: 3 of 3 done, 3 credits\n"
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("convert", "in"), "is for another operation (extract-text)"),
        (("extract-text", "in", "--connection", "scan-documents"), "is for another connection (cloudconvert)"),
        (("extract-text", "in", "-o", "engine=x"), "is for another options ({})"),
        (("extract-text", "in", "-s", "text_format=plain"), "is for another neutral option ({})"),
    ],
)
def test_a_run_has_one_operation_connection_and_set_of_options(go: Run, words: tuple[str, ...], message: str) -> None:
    go("extract-text", "in/a.pdf")
    done = go(*words, "--resume")

    assert done.returncode == 2
    assert message in done.stderr


def test_two_processes_do_not_work_on_a_run(go: Run, place: Path, own_vendors: Emulator) -> None:
    (place / "out").mkdir()
    with open_run(place / "out") as run:
        assert run.own(["cloudconvert"]) is None
        done = go("extract-text", "in", "--resume")

    assert done.returncode == 2
    assert "is in use by another run" in done.stderr
    assert own_vendors.requests == []


def test_a_changed_file_is_reported(go: Run, place: Path, own_vendors: Emulator) -> None:
    go("extract-text", "in")
    (place / "in" / "b.pdf").write_bytes(PDF + b"another")
    os.utime(place / "in" / "c.pdf")  # touched, but unchanged
    (place / "in" / "a.pdf").unlink()
    done = go("--resume")

    assert done.returncode == 7
    assert done.stdout.startswith("b.pdf  changed    after it was submitted")
    assert done.stderr == "taskbridge: 2 of 3 done, 1 changed, 3 credits\n"
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing that SQLite knows, and long enough to be read as a header of it", "is not a store"),
        ("CREATE TABLE mine (x)", "is another program's database"),
        ("PRAGMA application_id=1952543595; CREATE TABLE run (x)", "was written by an earlier version of taskbridge"),
    ],
)
def test_another_programs_file_is_no_store(go: Run, place: Path, content: bytes | str, message: str) -> None:
    path = place / "mine.sqlite"
    if isinstance(content, bytes):
        path.write_bytes(content * 20)
    else:
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript(content)
    before = path.read_bytes()
    done = go("extract-text", "in", "--store", str(path), "--resume")

    assert done.returncode == 2
    assert message in done.stderr
    assert path.read_bytes() == before


def test_file_names_that_are_not_text_survive_the_store(go: Run, place: Path) -> None:
    name = os.fsencode(place / "in") + b"/caf\xe9\x1b[31m.pdf"
    Path(os.fsdecode(name)).write_bytes(PDF)
    first = go("extract-text", os.fsdecode(name), "nothing.pdf")
    (place / "nothing.pdf").write_bytes(PDF)
    second = go("--resume")

    assert (first.returncode, second.returncode) == (7, 0)
    assert "\x1b" not in first.stdout
    assert second.stderr == "taskbridge: 2 of 2 done, 2 credits\n"


def test_a_store_has_many_runs_and_one_for_each_folder(
    place: Path, run_here: Run, own_vendors: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(*words: str) -> subprocess.CompletedProcess[str]:
        return run_here("run", *words, "--store", "shared.db", "--config", str(place / "taskbridge.toml"))

    first = go("extract-text", "in/a.pdf", "--to", "one")
    second = go("extract-text", "in", "missing.pdf", "--to", "two")
    again = go("extract-text", "in", "--to", "one")
    nothing = go("--resume", "--to", "three")
    resumed = go("--resume", "--to", str(place / "one"))

    assert (first.returncode, second.returncode, resumed.returncode) == (0, 7, 0)
    assert "resume with: taskbridge run --resume --to two --store shared.db --config" in second.stderr
    assert (again.returncode, nothing.returncode) == (2, 2)
    assert "shared.db has a run in one already; add --resume to resume it" in again.stderr
    assert "there is no run in three to resume" in nothing.stderr
    assert not (place / "three").exists()
    assert {each.name for each in (place / "one").iterdir()} == {"a.pdf"}
    with tb.Store("shared.db") as store:
        assert [each.key for each in store.submissions(phase="taken")] == ["1/1", "2/1", "2/2", "2/3"]
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 4
    monkeypatch.setenv("TASKBRIDGE_CONFIG", str(place / "taskbridge.toml"))
    with tb.Store("shared.db") as store:  # Python continues what the command line began
        assert store.run(to="two").counts == {"done": 3, "error": 1}
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 4


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://me:sesame@db.example/tasks", "postgresql://db.example/tasks"),
        ("postgresql://db.example:5433/tasks?user=me&password=sesame", "postgresql://db.example:5433/tasks"),
        ("postgresql+psycopg://me:sesame@/tasks?host=db.example&sslpassword=x", "postgresql://db.example/tasks"),
        ("postgresql://db.example/tasks", "postgresql://db.example/tasks"),
        ("sqlite:////var/lib/tasks.db", "sqlite:////var/lib/tasks.db"),
        ("tasks.db", "tasks.db"),
    ],
)
def test_the_password_of_a_store_is_not_in_the_command_that_resumes(given: str, shown: str) -> None:
    words: dict[str, Any] = {"words": (), "list_path": None, "to": "out", "connection": None, "resume": True}
    options: dict[str, Any] = {"neutral": {}, "options": {}, "limits": RunLimits()}
    with click.Context(run_command):
        request = RunRequest(store=given, **words, **options)
        resume = request.resume_command()
        assert resume.line == f"taskbridge run --resume --to out --store {shown}"
        note = "give --store as before: the command shows its URL without user, password and options"
        assert resume.note == (None if given == shown else note)


def test_a_store_that_cannot_be_used_is_refused_without_its_password(go: Run, own_vendors: Emulator) -> None:
    done = go("extract-text", "in", "--store", "mysql://me:sesame@db.example/tasks")
    assert (done.returncode, done.stdout, own_vendors.requests) == (2, "", [])
    assert "sesame" not in done.stderr


# Uncertain submissions.


def test_a_submission_that_cannot_be_recovered_is_not_repeated_without_the_option(
    go: Run, place: Path, own_vendors: Emulator
) -> None:
    _killed_while_submitting(place, "expertai-extract")
    first = go("--resume")
    second = go("--resume", "--json")
    before = own_vendors.count("expertai-extract", "POST", LAYOUT)
    third = go("--resume", "--resubmit-uncertain")

    assert (first.returncode, second.returncode, third.returncode) == (7, 7, 0)
    assert (
        "a.pdf  uncertain  expertai-extract: expert.ai Extract cannot search for an uncertain submission"
        in first.stdout
    )
    assert "resubmit uncertain files with --resubmit-uncertain, after checking at the vendor\n" in first.stderr
    assert "--resubmit-uncertain" not in first.stderr.splitlines()[-1]
    assert [each["state"] for each in records(second.stdout)[:-1]].count("uncertain") == 1
    assert before == 1  # for the other file
    assert own_vendors.count("expertai-extract", "POST", LAYOUT) == 2


def test_a_forgotten_submission_is_reported_and_never_submitted(go: Run, place: Path, own_vendors: Emulator) -> None:
    _killed_while_submitting(place, "expertai-extract")
    go("--resume")
    with tb.Store(str(place / "out" / "taskbridge-run.sqlite")) as store:
        store.forget("expertai-extract", "1/1")
    resumed = [go("--resume", *more) for more in ((), ("--resubmit-uncertain",))]
    dry = go("--resume", "--dry-run")
    as_json = records(go("--resume", "--json").stdout)

    for done in resumed:
        assert done.returncode == 7
        assert done.stdout.startswith("a.pdf  forgotten  its uncertain submission was given up; use another folder")
        assert done.stderr == "taskbridge: 1 of 2 done, 1 forgotten, 1 page\n"
    assert dry.stdout.startswith("a.pdf  forgotten\n")
    assert (as_json[0]["state"], as_json[-1]["counts"]) == ("forgotten", {"done": 1, "forgotten": 1})
    assert as_json[-1]["resume"] is None
    assert own_vendors.count("expertai-extract", "POST", LAYOUT) == 1  # the other file


def _killed_while_submitting(place: Path, vendor: str) -> None:
    """The store of a run of two files, as it is after a kill during the first submission."""
    files = [RunFile(n, str(place / "in" / name), name) for n, name in enumerate(("a.pdf", "b.pdf"), 1)]
    recovery_token = {"provider": vendor, "connection": vendor, "operation": "convert", "reference": "r", "tag": "r"}
    (place / "out").mkdir()
    with open_run(place / "out") as run:
        run.own([vendor])
        run.begin(RunTerms(vendor, vendor, "extract-text", {}), files)
        run.files()
        run.mark_submitting(1, {**recovery_token, "time": datetime.now(UTC).isoformat()}, None)


@pytest.mark.parametrize("status", [504, 503])  # from a gateway or the server; the vendor created nothing
def test_a_submission_that_does_not_appear_in_time_is_repeated(go: Run, own_vendors: Emulator, status: int) -> None:
    own_vendors.fail_next(status, vendor="cloudconvert")
    done = go("extract-text", "in/a.pdf", "--settle", "0.2")

    assert (done.returncode, done.stderr) == (0, "taskbridge: 1 of 1 done, 1 credit\n")
    posts = [each.status for each in own_vendors.requests if each.method == "POST" and JOBS in each.path]
    assert posts == [status, 201]


def test_a_temporary_refusal_is_retried_later(go: Run, place: Path, own_vendors: Emulator) -> None:
    config = place / "taskbridge.toml"
    config.write_text(config.read_text("utf-8").replace("retry.first = 0.01", "retry.attempts = 1"), "utf-8")
    own_vendors.fail_next(429, retry_after=0, vendor="cloudconvert")
    done = go("extract-text", "in/a.pdf")

    assert (done.returncode, done.stderr) == (0, "taskbridge: 1 of 1 done, 1 credit\n")
    posts = [each.status for each in own_vendors.requests if each.method == "POST" and JOBS in each.path]
    assert posts == [429, 201]


def test_a_result_over_the_limit_is_not_saved_until_the_limit_is_raised(go: Run, place: Path) -> None:
    first = go("extract-text", "in/a.pdf", "--max-bytes", "3")

    assert (first.returncode, files(place)) == (7, ["taskbridge-run.sqlite"])
    assert "more than max_bytes (3)" in first.stdout
    assert "--resume --to out --max-bytes 3 --config" in first.stderr

    second = go("--resume", "--max-bytes", "none")

    assert (second.returncode, files(place)) == (0, ["a.pdf/a.txt", "taskbridge-run.sqlite"])


def test_the_limits_of_run_download_and_the_client_are_the_same() -> None:
    defaults = [
        {each.name: each.default for each in command.params}["max_bytes"] for command in (run_command, download_command)
    ]
    client = inspect.signature(tb.Client.download).parameters["max_bytes"].default
    assert defaults == [str(client), str(client)]
    assert client == RunLimits().max_bytes


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_upload_fails_that_file_and_no_other(
    go: Run, place: Path, own_vendors: Emulator, status: int
) -> None:
    own_vendors.fail_next(status, times=2, vendor="cloudconvert", path_contains="-storage/tasks")
    first = go("extract-text", "in", "--max-in-flight", "1")

    assert (first.returncode, first.stderr.splitlines()[0]) == (7, "taskbridge: 2 of 3 done, 1 not done, 2 credits")
    assert ": the upload was refused" in first.stdout.splitlines()[0]
    assert files(place) == ["b.pdf/b.txt", "c.pdf/c.txt", "taskbridge-run.sqlite"]

    second = go("--resume")

    assert (second.returncode, second.stderr) == (0, "taskbridge: 3 of 3 done, 3 credits\n")
    assert own_vendors.count("cloudconvert", "POST", JOBS) == 3


# Ctrl-C.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_submissions_in_flight_and_prints_the_command_that_resumes(
    place: Path, own_vendors: Emulator, number: signal.Signals
) -> None:
    for n in range(30):
        (place / "in" / f"slow-{n}.pdf").write_bytes(PDF)
    words = ["run", "extract-text", "in", "--to", "out", "--config", str(place / "taskbridge.toml")]
    with subprocess.Popen(
        [sys.executable, "-m", "taskbridge", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = monotonic() + 30
        while own_vendors.count("cloudconvert", "POST", JOBS) < 4:
            assert process.poll() is None
            assert monotonic() < deadline
            threading.Event().wait(0.005)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)

    assert process.returncode == 128 + number
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
    assert err.startswith(f"taskbridge: {word}; ")
    assert "uncertain" not in err
    assert err.endswith(RESUME.format(place))
    with open_run(place / "out") as run:
        taken = [each for each in run.files() if each.ref is not None]
    assert len(taken) == own_vendors.count("cloudconvert", "POST", JOBS)


# What cannot be resumed.


def change_store(place: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(place / "out" / "taskbridge-run.sqlite")) as database, database:
        database.execute(statement, values)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("phase = 'lost'", "'lost' is not a valid Phase"),
        ("phase = 'sending', recovery_token = NULL", "row 1 has no recovery token"),
        ("phase = 'sending', recovery_token = '{'", ""),
        ("phase = 'sending', recovery_token = '[]'", "no JSON object"),
        ("phase = 'taken', ref = NULL", "row 1 has no ref"),
        ("phase = 'taken', ref = 'nonsense'", "is not a ref"),
        ("input = X'00'", "row 1 has no file or no folder"),
        ("digest = 'x', size = 'many'", ""),
        ("phase = X'00'", ""),
        ("key = '1/x'", ""),
    ],
)
def test_a_damaged_row_is_an_error(go: Run, place: Path, own_vendors: Emulator, change: str, problem: str) -> None:
    go("extract-text", "in")
    sent = own_vendors.count("cloudconvert", "POST", JOBS)
    change_store(place, f"UPDATE taskbridge_intent SET {change} WHERE key = '1/1'")
    done = go("--resume")

    assert (done.returncode, done.stdout) == (2, "")
    assert "taskbridge-run.sqlite is damaged (" in done.stderr
    assert problem in done.stderr
    assert own_vendors.count("cloudconvert", "POST", JOBS) == sent


@pytest.mark.parametrize("change", ["options = '['", "options = '3'", "operation = X'00'"])
def test_damaged_terms_are_an_error(go: Run, place: Path, change: str) -> None:
    go("extract-text", "in/a.pdf")
    change_store(place, f"UPDATE taskbridge_run SET {change}")
    done = go("--resume")

    assert done.returncode == 2
    assert "taskbridge-run.sqlite is damaged (" in done.stderr


@pytest.mark.parametrize(
    "folder", ["..", "../away", "/tmp/away", "", ".", "a/b", "a/../../away", "nul\0", "file:..%2Faway"]
)
def test_a_folder_outside_of_the_results_is_refused(go: Run, place: Path, folder: str) -> None:
    go("extract-text", "in/a.pdf")
    change_store(place, "UPDATE taskbridge_intent SET folder = ?, downloaded_at = NULL", folder)
    done = go("--resume")

    assert done.returncode == 2
    assert "row 1 names a folder outside of the folder for the results" in done.stderr
    assert not (place / "away").exists()


def test_a_folder_that_became_a_link_is_refused(go: Run, place: Path) -> None:
    go("extract-text", "in/a.pdf")
    (place / "away").mkdir()
    for each in (place / "out" / "a.pdf").iterdir():
        each.unlink()
    (place / "out" / "a.pdf").rmdir()
    (place / "out" / "a.pdf").symlink_to(place / "away")
    change_store(place, "UPDATE taskbridge_intent SET downloaded_at = NULL")
    done = go("--resume")

    assert done.returncode == 2
    assert "out/a.pdf is a link to another folder" in done.stderr
    assert list((place / "away").iterdir()) == []


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_an_emptied_store_beside_results_submits_nothing(
    go: Run, place: Path, own_vendors: Emulator, options: tuple[str, ...], *, rows: bool
) -> None:
    go("extract-text", "in")
    if rows:
        (place / "out" / "taskbridge-run.sqlite").write_bytes(b"")
    else:
        change_store(place, "DELETE FROM taskbridge_intent")
        change_store(place, "DELETE FROM taskbridge_run")
    sent = own_vendors.count("cloudconvert", "POST", JOBS)
    done = go("extract-text", "in", *options)

    assert done.returncode == 2
    assert ("is empty, but out has results" if rows or options else "add --resume to resume it") in done.stderr
    assert own_vendors.count("cloudconvert", "POST", JOBS) == sent


def test_an_empty_store_without_results_is_a_new_run(go: Run, place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "taskbridge-run.sqlite").write_bytes(b"")
    assert go("extract-text", "in").stderr == "taskbridge: 3 of 3 done, 3 credits\n"


def test_a_resume_removes_what_a_killed_download_left(go: Run, place: Path) -> None:
    go("extract-text", "in/a.pdf")
    left = place / "out" / "a.pdf" / ".taskbridge-0123456789abcdef.part"
    mine = [place / "out" / "a.pdf" / "mine.part", place / "out" / ".taskbridge-0123456789abcdef.part"]
    for path in (left, *mine):
        path.write_bytes(b"half")
    change_store(place, "UPDATE taskbridge_intent SET downloaded_at = NULL")

    assert go("--resume").returncode == 0
    assert not left.exists()
    assert all(path.exists() for path in mine)


def test_a_list_may_begin_with_a_byte_order_mark(go: Run, place: Path) -> None:
    (place / "list.txt").write_bytes(b"\xef\xbb\xbfin/b.pdf\r\nin/c.pdf\r\n")
    done = go("extract-text", "--files-from", "list.txt")

    assert done.stderr == "taskbridge: 2 of 2 done, 2 credits\n"
