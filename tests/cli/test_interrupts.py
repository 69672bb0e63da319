"""Ctrl-C and SIGTERM before anything is waited for: while modules are imported and connections opened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

Ref = Callable[[str, str], str]

# The signal comes in the middle of a class statement while a module is imported: what is raised there comes out of it
# as another error.
SELF_INTERRUPTED = """
import os, signal, sys
from taskbridge.cli import main

class Interrupts:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.{name})

def hook(event, args):
    if event == "import" and args[0].startswith("{module}") and not came:
        came.append(1)
        type("Owner", (), {{"field": Interrupts()}})

came = []
sys.addaudithook(hook)
code = main(sys.argv[1:])
assert came
sys.exit(code)
"""

# Says so as soon as signals are heard.
SAYS_WHEN_IT_LISTENS = """
import sys
from taskbridge.cli import main

def hook(event, args):
    if event == "import" and args[0] == "taskbridge.cli.run":
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


def way_back(command: str, task: str, word: str = "interrupted") -> str:
    return (
        f"taskbridge: {word}; the work goes on at the vendors\n"
        f"  {task}  not seen yet\n"
        f"resume with: taskbridge {command} {task}\n"
    )


@pytest.mark.parametrize("module", MODULES)
def test_a_signal_while_a_class_is_made_is_no_error(environment: dict[str, str], ref: Ref, module: str) -> None:
    task = ref("smartdocumentor", "review")

    seen = self_interrupted(environment, module, "wait", task)

    assert (seen.returncode, seen.stdout, seen.stderr) == (130, "", way_back("wait", task))


def test_sigterm_before_the_wait_tells_the_way_back(environment: dict[str, str], ref: Ref) -> None:
    task = ref("smartdocumentor", "review")

    seen = self_interrupted(environment, "pydantic", "wait", task, name="SIGTERM")

    assert (seen.returncode, seen.stderr) == (143, way_back("wait", task, "terminated"))


def test_an_interrupted_result_tells_the_way_back(environment: dict[str, str], ref: Ref) -> None:
    task = ref("smartdocumentor", "review")

    seen = self_interrupted(environment, "taskbridge_smartdocumentor.", "result", task)

    assert (seen.returncode, seen.stdout, seen.stderr) == (130, "", way_back("result", task))


def test_the_words_given_make_the_way_back_before_the_configuration_is_read(environment: dict[str, str]) -> None:
    seen = self_interrupted(
        environment, "taskbridge._config.connections", "wait", "--json", "--config", "no such", "44", "--", "-5"
    )

    assert (seen.returncode, seen.stderr) == (130, "")
    resume = "taskbridge wait --config 'no such' -- 44 -5"
    assert json.loads(seen.stdout) == {"stopped": "interrupted", "refs": ["44", "-5"], "resume": resume}


@pytest.mark.parametrize(
    ("module", "words", "told"),
    [
        ("taskbridge_scan_documents.", ("get", "scan-documents:1"), "taskbridge: interrupted\n"),
        ("pydantic", ("get", "scan-documents:1", "--json"), '{"stopped": "interrupted"}\n'),
        ("taskbridge_scan_documents.", ("providers",), ""),
        ("click", ("wait", "--no-such-option"), ""),
    ],
)
def test_a_signal_decides_the_code_of_every_command(
    environment: dict[str, str], module: str, words: tuple[str, ...], told: str
) -> None:
    seen = self_interrupted(environment, module, *words)

    assert (seen.returncode, seen.stdout, seen.stderr) == (130, "", told)


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.3, 0.45, 0.6])
def test_a_wait_interrupted_early_tells_the_way_back(environment: dict[str, str], ref: Ref, delay: float) -> None:
    task = ref("smartdocumentor", "review")
    with subprocess.Popen(
        [sys.executable, "-c", SAYS_WHEN_IT_LISTENS, "wait", task],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        time.sleep(delay)  # noqa: TID251  # any moment is right
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)

    assert process.returncode == 130
    assert told.startswith(f"taskbridge: interrupted; the work goes on at the vendors\n  {task}  ")
    assert told.endswith(f"resume with: taskbridge wait {task}\n")
    assert told.count("\n") == 3


def test_an_ignored_ctrl_c_stays_ignored(environment: dict[str, str]) -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SELF_INTERRUPTED.format(
        module="pydantic", name="SIGINT"
    )

    seen = subprocess.run(
        [sys.executable, "-c", code, "providers"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert (seen.returncode, seen.stderr) == (0, "")
    assert "Scan Documents" in seen.stdout


def test_a_second_signal_ends_at_once(environment: dict[str, str]) -> None:
    code = SELF_INTERRUPTED.format(module="pydantic", name="SIGINT").replace(
        "signal.SIGINT)", "signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)"
    )

    seen = subprocess.run(
        [sys.executable, "-c", code, "wait", "scan-documents:1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert (seen.returncode, seen.stdout, seen.stderr) == (143, "", "")
