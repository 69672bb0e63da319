"""`get`, `wait` and `result`: output and exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Run = Callable[..., CompletedProcess[str]]
Ref = Callable[[str, str], str]

ERROR_KEYS = {
    "type",
    "message",
    "provider",
    "connection",
    "ref",
    "http_status",
    "vendor_code",
    "request_id",
    "retry_after",
    "retryable",
    "exit_code",
}


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# get.


def test_get_shows_our_status_and_the_vendors(run: Run, ref: Ref) -> None:
    done = run("get", ref("cloudconvert", "job-failed"), ref("smartdocumentor", "review"))

    assert done.returncode == 1
    assert done.stderr == ""
    assert re.search(r"^ {2}status +failed$", done.stdout, re.MULTILINE)
    assert re.search(r"^ {2}error +can't find PDF header$", done.stdout, re.MULTILINE)
    assert re.search(r"^ +convert: failed, error: can't find PDF header$", done.stdout, re.MULTILINE)
    assert re.search(r"^ {2}status +processing \(awaiting_review\)$", done.stdout, re.MULTILINE)
    assert re.search(r"^ {2}vendor says +InReview$", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_getting_a_running_task_is_no_failure(run_here: Run, ref: Ref) -> None:
    assert run_here("get", ref("expertai-extract", "processing")).returncode == 0


def test_a_bare_id_belongs_to_the_default_connection(run_here: Run, ref: Ref) -> None:
    whole = ref("cloudconvert", "completed")

    done = run_here("get", whole.partition(":")[2], "--json")

    assert done.returncode == 0
    assert [record["ref"] for record in records(done.stdout)] == [whole]


def test_get_writes_one_object_per_line(run: Run, ref: Ref) -> None:
    good, bad = ref("cloudconvert", "completed"), "scan-documents:task_nobodyknowsme00"

    done = run("get", "--json", good, bad, good)

    assert done.returncode == 4
    assert done.stderr == ""
    first, second = records(done.stdout)
    assert set(first) == set(second) == {"ref", "task", "error", "final", "exit_code"}
    assert first["ref"] == good
    assert first["error"] is None
    assert first["final"] is True
    assert first["exit_code"] == 0
    assert first["task"]["status"] == "completed"
    assert first["task"]["native_status"] == "finished"
    assert first["task"]["result"]["files"][0]["name"] == "finished-report.pdf"
    assert second["task"] is None
    assert set(second["error"]) == ERROR_KEYS
    assert second["error"]["type"] == "TaskNotFound"
    assert second["error"]["http_status"] == 404
    assert second["error"]["ref"] == bad


def test_only_result_prints_links_to_files(run_here: Run, ref: Ref) -> None:
    task = ref("cloudconvert", "completed")

    assert "Signature=" not in run_here("get", "--json", task).stdout
    assert "Signature=" in run_here("result", "--json", task).stdout


# result.


def test_result_shows_text(run: Run, ref: Ref) -> None:
    done = run("result", ref("scan-documents", "text"))

    assert done.returncode == 0
    assert done.stdout.endswith("\n**This** is the *extracted* text content\n")


def test_result_writes_one_object(run_here: Run, ref: Ref) -> None:
    task = ref("smartdocumentor", "completed")

    done = run_here("result", "--json", task)

    (record,) = records(done.stdout)
    assert set(record) == {"ref", "result", "error", "exit_code"}
    assert record["ref"] == task
    assert record["result"]["data"]["totalPages"] == 10


def test_result_of_a_failed_task_is_its_failure(run_here: Run, ref: Ref) -> None:
    done = run_here("result", "--json", ref("scan-documents", "failed"))

    assert done.returncode == 1
    (record,) = records(done.stdout)
    assert record["result"] is None
    assert record["error"]["type"] == "TaskFailed"
    assert "Invalid page range" in record["error"]["message"]


def test_a_result_that_is_not_ready_in_time_prints_the_command_that_resumes(
    run_here: Run, ref: Ref, config: Path
) -> None:
    task = ref("smartdocumentor", "review")

    done = run_here("--config", str(config), "result", task, "--timeout", "1.5")

    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.endswith(f"resume with: taskbridge result --config {config} {task}\n")


# wait.


def test_wait_prints_each_end_on_its_own_line(run: Run, ref: Ref) -> None:
    good, bad = ref("scan-documents", "completed"), ref("expertai-extract", "cancelled")

    done = run("wait", good, bad, good)

    assert done.returncode == 1
    width = max(len(good), len(bad))
    assert sorted(done.stdout.splitlines()) == sorted(
        [f"{good.ljust(width)}  completed   completed", f"{bad.ljust(width)}  failed      ABORTED (cancelled)"]
    )


def test_wait_for_completed_tasks_is_0(run_here: Run, ref: Ref) -> None:
    assert run_here("wait", ref("cloudconvert", "job")).returncode == 0


def test_a_wait_that_times_out_prints_the_command_that_resumes(run: Run, ref: Ref) -> None:
    task = ref("smartdocumentor", "review")

    done = run("wait", "--timeout", "1.5", task, ref("scan-documents", "completed"))

    assert done.returncode == 3
    heading, line, resume = done.stderr.splitlines()
    assert heading == "taskbridge: timed out; the tasks continue at the vendors"
    assert line.startswith(f"  {task}  it is processing (awaiting_review), vendor says 'InReview'; ")
    assert resume == f"resume with: taskbridge wait {task}"


@pytest.mark.parametrize("command", ["wait", "result", "explain"])
def test_a_wait_for_a_vendor_that_cannot_be_reached_is_5_and_says_so_once(run_here: Run, command: str) -> None:
    task = "nowhere:task_euyrvozb9302uwhq"

    done = run_here(command, task, "--for" if command == "explain" else "--timeout", "0.3")

    assert done.returncode == 5
    assert done.stderr.splitlines() == [
        "taskbridge: timed out because nowhere could not be reached; the tasks continue at the vendors",
        f"  {task}  it was never seen, last error: the host refuses connections or cannot be reached",
        f"resume with: taskbridge {command} {task}",
    ]


@pytest.mark.parametrize("command", ["get", "wait", "result", "download"])
def test_a_refused_key_is_reported_once(run_here: Run, command: str) -> None:
    done = run_here(command, "wrong-key:task_euyrvozb9302uwhq")

    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith("taskbridge: wrong-key:task_euyrvozb9302uwhq: ")


def test_wait_writes_one_object_for_each_change_and_one_to_resume(run: Run, ref: Ref) -> None:
    task = ref("smartdocumentor", "review")

    done = run("wait", "--timeout", "1.5", "--json", task)

    assert done.returncode == 3
    assert done.stderr == ""
    change, end, way_back = records(done.stdout)
    assert (change["task"]["reason"], change["final"]) == ("awaiting_review", False)
    assert (end["error"]["type"], end["final"], end["exit_code"]) == ("WaitTimeout", True, 3)
    assert way_back == {"stopped": "timeout", "refs": [task], "resume": f"taskbridge wait {task}"}


def test_one_bad_task_hides_no_other_and_the_highest_code_counts(run: Run, ref: Ref) -> None:
    failed, unknown = ref("scan-documents", "failed"), "scan-documents:task_nobodyknowsme00"

    done = run("wait", "--json", "--timeout", "1.5", failed, unknown, "scan-documents:no id", "smartdocumentor:0044")

    assert done.returncode == 4
    ends = {record["ref"]: record["exit_code"] for record in records(done.stdout)}
    assert ends[failed] == 1
    assert ends[unknown] == 4
    assert ends["scan-documents:no id"] == 2


# Errors.


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("get", "wrong-key:task_euyrvozb9302uwhq"), 4, "AuthenticationError"),
        (("get", "nowhere:task_euyrvozb9302uwhq"), 5, "ConnectFailed"),
        (("get", "broken:1"), 2, "ProviderNotFound"),
        (("get", "scan-document:1"), 2, "ConfigError"),
        (("get", "scan-documents:"), 2, "InvalidTaskId"),
        (("get", "--config", "/does/not/exist", "1"), 2, "ConfigError"),
        (("get",), 2, "UsageError"),
        (("get", "--api-key", "secret", "1"), 2, "UsageError"),
        (("wait", "--timeout", "nan", "1"), 2, "UsageError"),
        (("wiat", "1"), 2, "UsageError"),
    ],
)
def test_errors_have_a_code_and_a_line_of_json(run_here: Run, words: tuple[str, ...], code: int, kind: str) -> None:
    done = run_here(*words, "--json")

    assert done.returncode == code
    (record,) = records(done.stdout or done.stderr)
    assert record["error"]["type"] == kind
    assert record["error"]["exit_code"] == code
    assert (done.stdout == "") == (code == 2)


def test_errors_are_text_on_stderr(run_here: Run) -> None:
    done = run_here("get", "scan-document:1")

    assert done.stdout == ""
    assert done.stderr.startswith("taskbridge: there is no connection 'scan-document' in ")
    assert "did you mean 'scan-documents'?" in done.stderr


def test_a_refused_key_is_tried_once(run_here: Run) -> None:
    done = run_here("get", "--json", "wrong-key:task_euyrvozb9302uwhq", "wrong-key:task_euyrvozb9302uwhr")

    assert [record["error"]["ref"][-1] for record in records(done.stdout)] == ["q", "r"]


def test_without_a_default_a_bare_id_is_refused(run_here: Run, tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text('[connections.a]\nprovider = "cloudconvert"\n[connections.b]\nprovider = "cloudconvert"\n')

    done = run_here("get", "44", "--config", str(path))

    assert done.returncode == 2
    assert "write it as connection:id, with a connection of a, b" in done.stderr


def test_a_missing_configuration_names_the_searched_paths(run: Run, tmp_path: Path) -> None:
    done = run("get", "44", env={"TASKBRIDGE_CONFIG": "", "HOME": str(tmp_path)}, cwd=tmp_path)

    assert done.returncode == 2
    assert str(tmp_path / "taskbridge.toml") in done.stderr
