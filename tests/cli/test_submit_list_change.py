"""`submit`, `list`, `cancel`, `retry`, `restart`, `delete` and `download`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from taskbridge.emulator.export import config_toml
from taskbridge.testing import Emulator

Run = Callable[..., CompletedProcess[str]]

PDF = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"


@pytest.fixture
def go(own_vendors: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: Run) -> Run:
    """Runs a command in a folder with a configuration and a document."""
    text = config_toml(own_vendors).replace('provider = "', 'poll.interval = 0.05\nprovider = "')
    (tmp_path / "taskbridge.toml").write_text(text, "utf-8")
    (tmp_path / "report.pdf").write_bytes(PDF)
    monkeypatch.chdir(tmp_path)
    return lambda *words: run_here(*words, "--config", str(tmp_path / "taskbridge.toml"))


@pytest.fixture
def sample(own_vendors: Emulator) -> Callable[[str, str], str]:
    return lambda vendor, label: f"{vendor}:{own_vendors.samples(vendor)[label]}"


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# submit.


def test_submit_prints_the_task_to_wait_for(go: Run) -> None:
    done = go("submit", "convert", "report.pdf", "-o", "output_format=docx", "--external-id", "INV-9")

    assert (done.returncode, done.stderr) == (0, "")
    ref = done.stdout.splitlines()[0]
    assert ref.startswith("cloudconvert:job/")
    assert "external id     INV-9" in done.stdout
    assert go("wait", ref).returncode == 0
    assert "report.docx" in go("result", ref).stdout


def test_a_neutral_option_is_the_same_for_every_vendor(go: Run, tmp_path: Path, own_vendors: Emulator) -> None:
    (tmp_path / "page.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for vendor in ("cloudconvert", "scan-documents"):
        done = go("submit", "convert", "page.png", "--set", "to=jpg", "--connection", vendor)
        assert (done.returncode, done.stderr) == (0, ""), vendor
    sent = own_vendors.count()
    for words, code, message in [
        (("convert", "report.pdf", "-s", "to=gif", "--connection", "scan-documents"), 2, "to is one of png, jpg, webp"),
        (("extract-text", "report.pdf", "--connection", "scan-documents"), 2, "render a PDF first"),
        (("convert", "report.pdf", "-s", "name=x"), 2, "no neutral option 'name'"),
        (("convert", "report.pdf", "-s", "to"), 2, "an option is written as name=value"),
    ]:
        done = go("submit", *words)
        assert (done.returncode, done.stdout) == (code, ""), words
        assert message in done.stderr
    assert own_vendors.count() == sent


def test_option_values_are_json_where_possible(go: Run, own_vendors: Emulator) -> None:
    words = (
        "native:jobs",
        "-o",
        'tasks={"a": {"operation": "import/url", "url": "https://a.example/x.pdf"}}',
        "-o",
        "tag=7x",
    )
    (record,) = records(go("submit", *words, "--json").stdout)

    assert record["task"]["external_id"] == "7x"
    assert [each["operation"] for each in record["task"]["subtasks"]] == ["import/url"]
    assert own_vendors.count("cloudconvert", "POST", "/v2/jobs") == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("submit", "convert", "nothing.pdf"), 2, "taskbridge: No such file or directory: nothing.pdf"),
        (("submit", "convert", "."), 2, "Is a directory"),
        (("submit", "convert", "ftp://a.example/x.pdf"), 2, "must begin with https:// or http://"),
        (("submit", "konvert", "report.pdf"), 2, "has no operation 'konvert'"),
        (("submit", "convert", "report.pdf"), 4, "output_format"),
        (("submit", "extract-text", "report.pdf", "report.pdf"), 2, "takes one document for"),
        (("submit", "extract-text", "report.pdf", "--connection", "smartdocumentor"), 2, "it takes: url"),
        (("recover", "nonsense"), 2, "a JSON object in quotes"),
        (("recover", '{"connection": "missing"}'), 2, "there is no connection 'missing'"),
        (("list", "expertai-extract"), 2, "cannot list"),
        (("list", "--filter", "color=red"), 2, "has no filter 'color'"),
        (("list", "--status", "asleep"), 2, "'asleep' is not one of"),
        (("cancel", "smartdocumentor:44"), 2, "cannot cancel a task"),
        (("cancel", "cloudconvert:00000000-0000-0000-0000-000000000000"), 4, "HTTP 404"),
        (("retry", "scan-documents:task_euyrvozb9302uwhq"), 2, "cannot retry a task"),
        (("delete", "smartdocumentor:44"), 2, "cannot delete a task"),
        (("restart", "smartdocumentor:44"), 2, "destructive"),
        (("download", "cloudconvert:00000000-0000-0000-0000-000000000000"), 4, "HTTP 404"),
    ],
)
def test_an_impossible_request_is_reported(go: Run, words: tuple[str, ...], code: int, message: str) -> None:
    done = go(*words)

    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_an_uncertain_submission_prints_the_command_that_recovers_it(go: Run, own_vendors: Emulator) -> None:
    own_vendors.fail_next(504, vendor="cloudconvert")
    done = go("submit", "extract-text", "report.pdf")

    assert (done.returncode, done.stdout) == (5, "")
    first, second = done.stderr.splitlines()
    assert "the vendor may have taken it, so it is not sent again" in first
    words = shlex.split(second.removeprefix("find out with: taskbridge "))
    assert words[:2] == ["recover", "--config"]
    assert words[4:] == ["report.pdf"]
    recovered = go(words[0], *words[3:])
    assert (recovered.returncode, recovered.stdout) == (4, "")
    assert "does not have the submission, or does not list it yet" in recovered.stderr


def test_recover_prints_the_task_of_a_submission_that_arrived(go: Run) -> None:
    ref = go("submit", "extract-text", "report.pdf", "--external-id", "INV-9").stdout.splitlines()[0]
    recovery_token = {
        "provider": "cloudconvert",
        "connection": "cloudconvert",
        "operation": "convert",
        "reference": "INV-9",
    }
    done = go("recover", json.dumps({**recovery_token, "tag": "INV-9"}))

    assert (done.returncode, done.stdout.splitlines()[0]) == (0, ref)


# list.


def test_list_shows_a_line_for_each_task(go: Run) -> None:
    ref = go("submit", "extract-text", "report.pdf").stdout.splitlines()[0]
    done = go("list", "cloudconvert", "--limit", "2")

    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    assert ref in [line.split()[0] for line in go("list").stdout.splitlines()]


@pytest.mark.parametrize("name", ["status", "limit", "self"])
def test_list_refuses_a_filter_that_is_an_option(go: Run, name: str) -> None:
    done = go("list", "--filter", f"{name}=5")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name!r} is none: see --status and --limit" in done.stderr


def test_list_filters_by_status_and_by_the_vendors_own_filters(go: Run) -> None:
    failed = records(go("list", "--status", "failed", "--json").stdout)
    tasks = records(go("list", "--filter", "kind=task", "--filter", "operation=convert", "--json").stdout)

    assert {each["task"]["status"] for each in failed} == {"failed"}
    assert {each["task"]["operation"] for each in tasks} == {"convert"}


# cancel, retry, restart, delete.


def test_cancel_prints_the_cancelled_task(go: Run, sample: Callable[[str, str], str]) -> None:
    task = sample("cloudconvert", "waiting-upload")
    done = go("cancel", task)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{task}  failed")
    assert "cancelled" in done.stdout


def test_retry_prints_the_new_task(go: Run, sample: Callable[[str, str], str]) -> None:
    task = sample("cloudconvert", "failed")
    (record,) = records(go("retry", task, "--json").stdout)

    assert record["ref"] == task
    assert record["task"]["retry_of"] == task.partition(":")[2]
    assert record["exit_code"] == 0


def test_restart_needs_the_destructive_option(go: Run, sample: Callable[[str, str], str]) -> None:
    task = sample("smartdocumentor", "completed")
    refused = go("restart", task)
    done = go("restart", task, "--destructive")

    assert refused.returncode == 2
    assert (done.returncode, done.stdout.startswith(task)) == (0, True)


def test_delete_continues_after_a_missing_task(go: Run, sample: Callable[[str, str], str]) -> None:
    task, gone = sample("cloudconvert", "completed"), "cloudconvert:00000000-0000-0000-0000-000000000000"
    done = go("delete", gone, task)

    assert (done.returncode, done.stdout) == (4, f"{task}  deleted\n")
    assert gone in done.stderr
    assert go("get", task).returncode in (1, 4)


# download.


def test_download_prints_the_paths(go: Run, sample: Callable[[str, str], str], tmp_path: Path) -> None:
    done = go("download", sample("cloudconvert", "completed"), "--to", "results")

    assert (done.returncode, done.stdout) == (0, "results/finished-report.pdf\n")
    assert (tmp_path / "results" / "finished-report.pdf").stat().st_size > 0


def test_download_overwrites_with_force_only(go: Run, sample: Callable[[str, str], str]) -> None:
    task = sample("cloudconvert", "completed")
    go("download", task, "--to", "results")
    refused = go("download", task, "--to", "results")
    forced = go("download", task, "--to", "results", "--force", "--json")

    assert refused.returncode == 2
    assert "results/finished-report.pdf already exists; --force overwrites it" in refused.stderr
    (record,) = records(forced.stdout)
    assert record == {"ref": task, "files": ["results/finished-report.pdf"], "error": None, "exit_code": 0}


def test_download_does_not_wait(go: Run, sample: Callable[[str, str], str]) -> None:
    assert go("download", sample("cloudconvert", "waiting-upload")).returncode == 3
    assert go("download", sample("cloudconvert", "failed")).returncode == 1
