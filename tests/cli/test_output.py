"""Output: closed streams, unusual terminals, and what is printed after Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess, Popen

import pytest

Run = Callable[..., CompletedProcess[str]]
Start = Callable[..., Popen[str]]
Ref = Callable[[str, str], str]


@pytest.mark.parametrize("words", [("--help",), ("providers",), ("emulate", "scan-documents")])
def test_a_closed_output_is_a_quiet_end(run: Run, words: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = run(*words, stdout=write)
    finally:
        os.close(write)

    assert done.returncode == 141
    assert done.stderr == ""


def test_a_full_disk_is_one_line(run: Run) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123  # a device
        done = run("providers", stdout=full)

    assert done.returncode == 70
    assert done.stderr == "taskbridge: No space left on device\n"


def test_a_terminal_without_unicode_gets_escapes(run: Run) -> None:
    done = run("get", "sm\u00f6rg\u00e5s", env={"PYTHONIOENCODING": "ascii"})

    assert "Traceback" not in done.stderr
    assert r"sm\xf6rg\xe5s" in done.stderr


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stopped_wait_prints_the_command_that_resumes(
    start: Start, ref: Ref, number: signal.Signals, code: int, word: str
) -> None:
    task = ref("smartdocumentor", "review")
    with start("wait", task) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=10)

    assert process.returncode == code
    assert time.monotonic() - began < 5
    assert err.startswith(f"taskbridge: {word}; the tasks continue at the vendors\n  {task}  processing  InReview")
    assert err.endswith(f"resume with: taskbridge wait {task}\n")


def test_a_stopped_wait_in_json_ends_with_an_object(start: Start, ref: Ref) -> None:
    task = ref("smartdocumentor", "review")
    with start("wait", "--json", task) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)

    assert process.returncode == 130
    assert out == f'{{"stopped": "interrupted", "refs": ["{task}"], "resume": "taskbridge wait {task}"}}\n'
    assert err == ""


# A terminal.


def on_terminal(start: Start, *words: str, env: dict[str, str]) -> tuple[int, str]:
    """Run on a pseudo-terminal; return the exit code and everything that was written."""
    parent, child = pty.openpty()
    with start(*words, env={"TERM": "xterm", "LINES": "24", **env}, stdout=child, stderr=child) as process:
        os.close(child)
        shown = b""
        while select.select([parent], [], [], 20)[0]:
            try:
                block = os.read(parent, 65_536)
            except OSError:  # the other end is closed
                break
            shown += block
        code = process.wait(timeout=10)
    os.close(parent)
    return code, shown.decode()


def test_a_terminal_gets_a_table_that_updates_in_place(start: Start, ref: Ref) -> None:
    task = ref("smartdocumentor", "review")

    code, shown = on_terminal(start, "wait", task, "--timeout", "1.5", env={})

    assert code == 3
    assert "\x1b[2K" in shown  # lines are overwritten
    assert "\x1b[33mprocessing" in shown
    assert re.search(r"0 of 1 ended, 1 timed out, \ds", shown)
    assert shown.count("it is processing") == 1  # the task is no longer in the table
    assert f"resume with: taskbridge wait {task}" in shown


def test_no_color_turns_colors_off(start: Start, ref: Ref) -> None:
    code, shown = on_terminal(start, "wait", ref("scan-documents", "completed"), env={"NO_COLOR": "1"})

    assert code == 0
    assert "completed" in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown)


def test_a_dumb_terminal_gets_plain_lines(start: Start, ref: Ref) -> None:
    task = ref("scan-documents", "completed")

    code, shown = on_terminal(start, "wait", task, env={"TERM": "dumb"})

    assert (code, shown) == (0, f"{task}  completed   completed\r\n")


# Refs from standard input.


def test_a_dash_reads_refs_from_standard_input(run: Run, ref: Ref, tmp_path: Path) -> None:
    tasks = [ref("scan-documents", "completed"), ref("expertai-extract", "completed")]
    listed = tmp_path / "refs.txt"
    listed.write_text(f"# two of them\n{tasks[0]}\n\n  {tasks[1]}\n{tasks[0]}\n", encoding="utf-8")

    with listed.open(encoding="utf-8") as lines:
        done = run("wait", "-", "--json", stdin=lines)

    assert done.returncode == 0
    assert sorted(json.loads(line)["ref"] for line in done.stdout.splitlines()) == sorted(tasks)


def test_a_dash_reads_what_list_prints_as_json(run: Run, tmp_path: Path) -> None:
    listed = tmp_path / "tasks.json"
    with listed.open("w", encoding="utf-8") as out:
        run("list", "scan-documents", "--status", "completed", "--json", stdout=out)

    with listed.open(encoding="utf-8") as lines:
        done = run("wait", "-", "--json", stdin=lines)

    refs = [json.loads(line)["ref"] for line in listed.read_text("utf-8").splitlines()]
    assert done.returncode == 0
    assert refs
    assert sorted(json.loads(line)["ref"] for line in done.stdout.splitlines()) == sorted(refs)


def test_an_empty_standard_input_is_an_error(run: Run) -> None:
    done = run("get", "-", stdin=DEVNULL)

    assert (done.returncode, done.stdout) == (2, "")
    assert "standard input names no task" in done.stderr


def test_of_many_running_tasks_some_are_listed(run: Run) -> None:
    refs = [f"nowhere:task_{n:016}" for n in range(120)]

    done = run("wait", *refs, "--timeout", "1")

    assert done.returncode == 5
    assert "taskbridge: timed out because nowhere could not be reached; the tasks continue" in done.stderr
    assert done.stderr.count("it was never seen") == 50
    assert "and 70 more" in done.stderr
    assert "the same command again" in done.stderr


@pytest.mark.parametrize(("env", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_run_on_a_terminal_shows_the_files_in_progress(
    start: Start, tmp_path: Path, env: dict[str, str], colored: bool
) -> None:
    for name in ("a.pdf", "fail.pdf"):
        (tmp_path / name).write_bytes(b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n")
    words = ("run", "extract-text", str(tmp_path), "--to", str(tmp_path / "out"), "--connection", "cloudconvert")

    code, shown = on_terminal(start, *words, env=env)

    assert code == 7
    assert "\x1b[2K" in shown  # lines are overwritten
    assert "0 of 2 done, " in shown
    assert re.search(r"1 of 2 done, 1 failed, 1 credit, \d+s", shown)
    assert ("\x1b[31mfailed" in shown) is colored
    last = shown.rpartition("\x1b[2K")[2]
    assert "fail.pdf" in last
    assert "a.pdf " not in last
