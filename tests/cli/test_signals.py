"""Ctrl-C and SIGTERM before a command waits: while modules are imported and connections opened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

Ref = Callable[[str, str], str]

# The signal arrives in the middle of a class statement during an import: an exception raised there would come out as
# another error.
SELF_INTERRUPTED = """
import os, signal, sys
from taskbridge.cli import main

class Interrupts:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.{name})

def hook(event, args):
    if event == "import" and args[0].startswith("{module}") and not sent:
        sent.append(1)
        type("Owner", (), {{"field": Interrupts()}})

sent = []
sys.addaudithook(hook)
code = main(sys.argv[1:])
assert sent
sys.exit(code)
"""

# Prints a line as soon as signals are handled.
PRINTS_WHEN_READY = """
import sys
from taskbridge.cli import main

def hook(event, args):
    if event == "import" and args[0] == "taskbridge.cli.app":
        print("listening", flush=True)

sys.addaudithook(hook)
sys.exit(main(sys.argv[1:]))
"""

MODULES = ["click", "pydantic", "requests", "taskbridge_smartdocumentor."]


def self_interrupted(
    environment: dict[str, str], module: str, *words: str, name: str = "SIGINT"
) -> subprocess.CompletedProcess[str]:
    code = SELF_INTERRUPTED.format(module=module, name=name)
    return subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=False, timeout=30
    )


def resume_text(command: str, task: str, word: str = "interrupted") -> str:
    return (
        f"taskbridge: {word}; the tasks continue at the vendors\n"
        f"  {task}  no status yet\n"
        f"resume with: taskbridge {command} {task}\n"
    )


@pytest.mark.parametrize("module", MODULES)
def test_a_signal_during_a_class_statement_is_no_error(environment: dict[str, str], ref: Ref, module: str) -> None:
    task = ref("smartdocumentor", "review")

    done = self_interrupted(environment, module, "wait", task)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", resume_text("wait", task))


def test_sigterm_before_the_wait_prints_the_command_that_resumes(environment: dict[str, str], ref: Ref) -> None:
    task = ref("smartdocumentor", "review")

    done = self_interrupted(environment, "pydantic", "wait", task, name="SIGTERM")

    assert (done.returncode, done.stderr) == (143, resume_text("wait", task, "terminated"))


def test_an_interrupted_result_prints_the_command_that_resumes(environment: dict[str, str], ref: Ref) -> None:
    task = ref("smartdocumentor", "review")

    done = self_interrupted(environment, "taskbridge_smartdocumentor.", "result", task)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", resume_text("result", task))


def test_the_given_words_are_in_the_command_before_the_configuration_is_read(environment: dict[str, str]) -> None:
    done = self_interrupted(
        environment, "taskbridge._config.files", "wait", "--json", "--config", "no such", "44", "--", "-5"
    )

    assert (done.returncode, done.stderr) == (130, "")
    resume = "taskbridge wait --config 'no such' -- 44 -5"
    assert json.loads(done.stdout) == {"stopped": "interrupted", "refs": ["44", "-5"], "resume": resume}


@pytest.mark.parametrize(
    ("module", "words", "expected"),
    [
        ("taskbridge_scan_documents.", ("get", "scan-documents:1"), "taskbridge: interrupted\n"),
        ("pydantic", ("get", "scan-documents:1", "--json"), '{"stopped": "interrupted"}\n'),
        ("taskbridge_scan_documents.", ("providers",), ""),
        ("click", ("wait", "--no-such-option"), ""),
    ],
)
def test_a_signal_decides_the_code_of_every_command(
    environment: dict[str, str], module: str, words: tuple[str, ...], expected: str
) -> None:
    done = self_interrupted(environment, module, *words)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", expected)


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.3, 0.45, 0.6])
def test_a_wait_interrupted_early_prints_the_command_that_resumes(
    environment: dict[str, str], ref: Ref, delay: float
) -> None:
    task = ref("smartdocumentor", "review")
    with subprocess.Popen(
        [sys.executable, "-c", PRINTS_WHEN_READY, "wait", task],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        time.sleep(delay)  # noqa: TID251  # any moment is right
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert err.startswith(f"taskbridge: interrupted; the tasks continue at the vendors\n  {task}  ")
    assert err.endswith(f"resume with: taskbridge wait {task}\n")
    assert err.count("\n") == 3


def test_an_ignored_ctrl_c_stays_ignored(environment: dict[str, str]) -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SELF_INTERRUPTED.format(
        module="pydantic", name="SIGINT"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, "providers"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "Scan Documents" in done.stdout


def test_a_second_signal_ends_at_once(environment: dict[str, str]) -> None:
    code = SELF_INTERRUPTED.format(module="pydantic", name="SIGINT").replace(
        "signal.SIGINT)", "signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, "wait", "scan-documents:1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
