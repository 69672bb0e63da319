"""`get`, `wait` and `result`: what is shown, and the exit code."""

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


def test_get_shows_a_task_in_both_languages(run: Run, ref: Ref) -> None:
    seen = run("get", ref("cloudconvert", "job-failed"), ref("smartdocumentor", "review"))

    assert seen.returncode == 1
    assert seen.stderr == ""
    assert re.search(r"^ {2}status +failed$", seen.stdout, re.MULTILINE)
    assert re.search(r"^ {2}error +can't find PDF header$", seen.stdout, re.MULTILINE)
    assert re.search(r"^ +convert: failed, error: can't find PDF header$", seen.stdout, re.MULTILINE)
    assert re.search(r"^ {2}status +processing \(awaiting_review\)$", seen.stdout, re.MULTILINE)
    assert re.search(r"^ {2}vendor says +InReview$", seen.stdout, re.MULTILINE)
    assert max(map(len, seen.stdout.splitlines())) <= 80


def test_a_look_at_a_task_that_goes_on_is_no_failure(run_here: Run, ref: Ref) -> None:
    assert run_here("get", ref("expertai-extract", "processing")).returncode == 0


def test_a_bare_id_is_of_the_default_connection(run_here: Run, ref: Ref) -> None:
    whole = ref("cloudconvert", "completed")

    seen = run_here("get", whole.partition(":")[2], "--json")

    assert seen.returncode == 0
    assert [record["ref"] for record in records(seen.stdout)] == [whole]


def test_get_writes_one_object_a_line(run: Run, ref: Ref) -> None:
    good, bad = ref("cloudconvert", "completed"), "scan-documents:task_nobodyknowsme00"

    seen = run("get", "--json", good, bad, good)

    assert seen.returncode == 4
    assert seen.stderr == ""
    first, second = records(seen.stdout)
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


def test_links_to_files_are_told_by_result_alone(run_here: Run, ref: Ref) -> None:
    task = ref("cloudconvert", "completed")

    assert "Signature=" not in run_here("get", "--json", task).stdout
    assert "Signature=" in run_here("result", "--json", task).stdout


# result.


def test_result_shows_text(run: Run, ref: Ref) -> None:
    seen = run("result", ref("scan-documents", "text"))

    assert seen.returncode == 0
    assert seen.stdout.endswith("\n**This** is the *extracted* text content\n")


def test_result_writes_one_object(run_here: Run, ref: Ref) -> None:
    task = ref("smartdocumentor", "completed")

    seen = run_here("result", "--json", task)

    (record,) = records(seen.stdout)
    assert set(record) == {"ref", "result", "error", "exit_code"}
    assert record["ref"] == task
    assert record["result"]["data"]["totalPages"] == 10


def test_result_of_a_failed_task_is_its_failure(run_here: Run, ref: Ref) -> None:
    seen = run_here("result", "--json", ref("scan-documents", "failed"))

    assert seen.returncode == 1
    (record,) = records(seen.stdout)
    assert record["result"] is None
    assert record["error"]["type"] == "TaskFailed"
    assert "Invalid page range" in record["error"]["message"]


def test_result_that_is_not_there_in_time_tells_how_to_come_back(run_here: Run, ref: Ref, config: Path) -> None:
    task = ref("smartdocumentor", "review")

    seen = run_here("--config", str(config), "result", task, "--timeout", "0.3")

    assert seen.returncode == 3
    assert seen.stdout == ""
    assert seen.stderr.endswith(f"resume with: taskbridge result --config {config} {task}\n")


# wait.


def test_wait_tells_each_end_on_a_line_of_its_own(run: Run, ref: Ref) -> None:
    good, bad = ref("scan-documents", "completed"), ref("expertai-extract", "cancelled")

    seen = run("wait", good, bad, good)

    assert seen.returncode == 1
    width = max(len(good), len(bad))
    assert sorted(seen.stdout.splitlines()) == sorted(
        [f"{good.ljust(width)}  completed   completed", f"{bad.ljust(width)}  failed      ABORTED (cancelled)"]
    )


def test_wait_for_completed_tasks_is_0(run_here: Run, ref: Ref) -> None:
    assert run_here("wait", ref("cloudconvert", "job")).returncode == 0


def test_a_wait_that_times_out_prints_the_command_that_resumes(run: Run, ref: Ref) -> None:
    task = ref("smartdocumentor", "review")

    seen = run("wait", "--timeout", "0.5", task, ref("scan-documents", "completed"))

    assert seen.returncode == 3
    assert f"taskbridge: {task}: stopped waiting after 0.5 s" in seen.stderr
    assert seen.stderr.endswith(f"resume with: taskbridge wait {task}\n")


def test_wait_writes_one_object_for_each_change_and_one_for_the_way_back(run: Run, ref: Ref) -> None:
    task = ref("smartdocumentor", "review")

    seen = run("wait", "--timeout", "0.5", "--json", task)

    assert seen.returncode == 3
    assert seen.stderr == ""
    change, end, way_back = records(seen.stdout)
    assert (change["task"]["reason"], change["final"]) == ("awaiting_review", False)
    assert (end["error"]["type"], end["final"], end["exit_code"]) == ("WaitTimeout", True, 3)
    assert way_back == {"stopped": "timeout", "refs": [task], "resume": f"taskbridge wait {task}"}


def test_one_bad_task_hides_no_other_and_the_gravest_code_counts(run: Run, ref: Ref) -> None:
    failed, unknown = ref("scan-documents", "failed"), "scan-documents:task_nobodyknowsme00"

    seen = run("wait", "--json", failed, unknown, "scan-documents:no id", "smartdocumentor:0044")

    assert seen.returncode == 4
    ends = {record["ref"]: record["exit_code"] for record in records(seen.stdout)}
    assert ends[failed] == 1
    assert ends[unknown] == 4
    assert ends["scan-documents:no id"] == 2


# What cannot work.


@pytest.mark.parametrize(
    ("words", "code", "told"),
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
def test_errors_have_a_code_and_a_line_of_json(run_here: Run, words: tuple[str, ...], code: int, told: str) -> None:
    seen = run_here(*words, "--json")

    assert seen.returncode == code
    (record,) = records(seen.stdout or seen.stderr)
    assert record["error"]["type"] == told
    assert record["error"]["exit_code"] == code
    assert (seen.stdout == "") == (code == 2)


def test_errors_are_told_in_words_on_stderr(run_here: Run) -> None:
    seen = run_here("get", "scan-document:1")

    assert seen.stdout == ""
    assert seen.stderr.startswith("taskbridge: there is no connection 'scan-document' in ")
    assert "did you mean 'scan-documents'?" in seen.stderr


def test_a_refused_key_is_tried_once(run_here: Run) -> None:
    seen = run_here("get", "--json", "wrong-key:task_euyrvozb9302uwhq", "wrong-key:task_euyrvozb9302uwhr")

    assert [record["error"]["ref"][-1] for record in records(seen.stdout)] == ["q", "r"]


def test_without_a_default_a_bare_id_is_refused(run_here: Run, tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text('[connections.a]\nprovider = "cloudconvert"\n[connections.b]\nprovider = "cloudconvert"\n')

    seen = run_here("get", "44", "--config", str(path))

    assert seen.returncode == 2
    assert "write it as connection:id, with a connection of a, b" in seen.stderr


def test_a_missing_configuration_tells_where_it_was_looked_for(run: Run, tmp_path: Path) -> None:
    seen = run("get", "44", env={"TASKBRIDGE_CONFIG": "", "HOME": str(tmp_path)}, cwd=tmp_path)

    assert seen.returncode == 2
    assert str(tmp_path / "taskbridge.toml") in seen.stderr
