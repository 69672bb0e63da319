"""`taskbridge explain`: each observation on a line, with the next look and its reason."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from subprocess import CompletedProcess, Popen
from typing import Any

from taskbridge.cli.explain import _REASONS
from taskbridge.events import PollReason

Run = Callable[..., CompletedProcess[str]]
Ref = Callable[[str, str], str]


def records(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_each_observation_is_a_line_and_the_last_tells_the_end(run_here: Run, ref: Ref) -> None:
    which = ref("expertai-extract", "completed")
    seen = run_here("explain", which)
    assert (seen.returncode, seen.stderr) == (0, "")
    title, head, *lines = seen.stdout.splitlines()
    assert title == which
    assert head.split() == ["time", "source", "HTTP", "vendor", "says", "next", "poll"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d {2}look {5}200 {3}SUCCESS +none: completed", lines[-1])
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in seen.stdout


def test_a_look_that_is_followed_says_when_and_why(run_here: Run, ref: Ref) -> None:
    which = ref("smartdocumentor", "review")
    seen = run_here("explain", which, "--for", "0.4")
    assert seen.returncode == 3
    assert re.search(r"200 {3}InReview +none: the time is up before$", seen.stdout, re.MULTILINE)
    assert f"resume with: taskbridge explain {which}" in seen.stderr


def test_json_has_a_record_for_each_and_the_outcome(run_here: Run, ref: Ref) -> None:
    which = ref("cloudconvert", "failed")
    seen = run_here("explain", which, "--once", "--json", "--requests")
    assert seen.returncode == 1
    request, observation, outcome = records(seen.stdout)
    assert (request["event"], request["kind"], request["http_status"], request["ref"]) == (
        "request",
        "poll",
        200,
        which,
    )
    assert (observation["event"], observation["why"], observation["status"]) == ("observation", "asked", "failed")
    assert (observation["next_poll_in"], observation["attempts"]) == (None, 1)
    assert (outcome["final"], outcome["exit_code"]) == (True, 1)


def test_a_look_that_fails_is_a_line_and_the_error_is_told(run_here: Run) -> None:
    seen = run_here("explain", "scan-documents:task_nobodyknowsme00", "--requests")
    assert seen.returncode == 4
    assert re.search(r"look {5}404 {3}TaskNotFound +none$", seen.stdout, re.MULTILINE)
    assert re.search(
        r"^ {10}GET 127\.0\.0\.1 \S+/tasks/task_nobodyknowsme00: HTTP 404 after", seen.stdout, re.MULTILINE
    )
    assert seen.stderr.count("not found") == 1


def test_a_wrong_key_shows_in_no_line(run_here: Run) -> None:
    seen = run_here("explain", "wrong-key:task_1", "--requests", "--json")
    assert seen.returncode == 4
    assert "not-the-key" not in seen.stdout + seen.stderr


def test_ctrl_c_tells_how_to_go_on(start: Callable[..., Popen[str]], ref: Ref) -> None:
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


def test_a_closed_pipe_ends_it_quietly(start: Callable[..., Popen[str]], ref: Ref) -> None:
    with start("explain", ref("cloudconvert", "completed"), "--requests") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(30)
    assert (process.returncode, err) == (141, "")


def test_every_reason_has_words() -> None:
    assert set(_REASONS) == set(PollReason)
    assert max(map(len, _REASONS.values())) <= 25
