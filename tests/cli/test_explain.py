"""`explain`: a line for each observation, with the next poll and its reason."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from subprocess import CompletedProcess, Popen
from typing import Any

from taskbridge.events import POLL_REASONS, PollReason

Run = Callable[..., CompletedProcess[str]]
Ref = Callable[[str, str], str]


def records(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_each_observation_is_a_line_and_the_last_one_has_the_end(run_here: Run, ref: Ref) -> None:
    which = ref("expertai-extract", "completed")
    done = run_here("explain", which)
    assert (done.returncode, done.stderr) == (0, "")
    title, head, *lines = done.stdout.splitlines()
    assert title == which
    assert head.split() == ["time", "source", "HTTP", "vendor", "says", "next", "poll"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d {2}poll {7}200 {3}SUCCESS +none: completed", lines[-1])
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout


def test_a_line_says_when_and_why_the_next_poll_happens(run_here: Run, ref: Ref) -> None:
    which = ref("smartdocumentor", "review")
    done = run_here("explain", which, "--for", "0.4")
    assert done.returncode == 3
    assert re.search(r"200 {3}InReview +none: the wait ends first$", done.stdout, re.MULTILINE)
    assert f"resume with: taskbridge explain {which}" in done.stderr


def test_json_has_a_record_for_each_and_the_outcome(run_here: Run, ref: Ref) -> None:
    which = ref("cloudconvert", "failed")
    done = run_here("explain", which, "--once", "--json", "--requests")
    assert done.returncode == 1
    request, observation, outcome = records(done.stdout)
    assert (request["event"], request["kind"], request["http_status"], request["ref"]) == (
        "request",
        "poll",
        200,
        which,
    )
    assert (observation["event"], observation["poll_reason"], observation["status"]) == (
        "observation",
        "asked",
        "failed",
    )
    assert (observation["next_poll_in"], observation["attempts"]) == (None, 1)
    assert (outcome["final"], outcome["exit_code"]) == (True, 1)


def test_a_failed_poll_is_a_line_and_the_error_is_printed(run_here: Run) -> None:
    done = run_here("explain", "scan-documents:task_nobodyknowsme00", "--requests", "--for", "0.1")
    assert done.returncode == 4
    assert re.search(r"poll {7}404 {3}TaskNotFound +none$", done.stdout, re.MULTILINE)
    assert re.search(
        r"^ {10}GET 127\.0\.0\.1 \S+/tasks/task_nobodyknowsme00: HTTP 404 after", done.stdout, re.MULTILINE
    )
    assert done.stderr.count("not found") == 1


def test_a_wrong_key_shows_in_no_line(run_here: Run) -> None:
    done = run_here("explain", "wrong-key:task_1", "--requests", "--json")
    assert done.returncode == 4
    assert "not-the-key" not in done.stdout + done.stderr


def test_ctrl_c_prints_the_command_that_resumes(start: Callable[..., Popen[str]], ref: Ref) -> None:
    which = ref("smartdocumentor", "review")
    with start("explain", which) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "InReview" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.search(rf"^  {which} +processing +InReview", err, re.MULTILINE)
    assert f"resume with: taskbridge explain {which}" in err


def test_a_closed_pipe_ends_explain_quietly(start: Callable[..., Popen[str]], ref: Ref) -> None:
    with start("explain", ref("cloudconvert", "completed"), "--requests") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(30)
    assert (process.returncode, err) == (141, "")


def test_every_reason_has_a_text() -> None:
    assert set(POLL_REASONS) == set(PollReason)
    assert max(map(len, POLL_REASONS.values())) <= 25
