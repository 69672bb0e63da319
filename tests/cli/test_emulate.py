"""`emulate` and `demo`."""

from __future__ import annotations

import json
import re
import signal
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, Popen

import pytest
import requests

import taskbridge as tb

Run = Callable[..., CompletedProcess[str]]
Start = Callable[..., Popen[str]]


def test_scripts_get_settings_and_samples_once_the_server_is_ready(start: Start) -> None:
    with start("emulate", "cloudconvert", "--json", "--speed", "50") as process:
        assert process.stdout is not None
        settings = json.loads(process.stdout.readline())
        second = json.loads(process.stdout.readline())
        samples, control = second["samples"], second["control"]
        try:
            headers = {"Authorization": f"Bearer {control['token']}"}
            shown = requests.get(f"{control['url']}/vendors", headers=headers, timeout=5).json()
            assert shown["cloudconvert"]["settings"] == settings["cloudconvert"]
            assert set(settings) == set(samples) == {"cloudconvert"}
            assert set(settings["cloudconvert"]) == {"api_key", "base_url", "sync_url"}
            with tb.connect("cloudconvert", **settings["cloudconvert"]) as client:
                assert client.get(samples["cloudconvert"]["completed"]).status is tb.TaskStatus.COMPLETED
        finally:
            process.send_signal(signal.SIGTERM)
            rest, err = process.communicate(timeout=10)

    assert (process.returncode, rest, err) == (143, "", "")


def test_people_get_a_configuration(start: Start) -> None:
    with start("emulate") as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "# control: " not in lines[-1]:
            lines.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)

    assert process.returncode == 130
    document = tomllib.loads("".join(lines))
    assert set(document["connections"]) == {"cloudconvert", "expertai-extract", "scan-documents", "smartdocumentor"}
    assert document["connections"]["scan-documents"]["base_url"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("acme",), "no emulator of acme is installed; available: cloudconvert,"),
        (("--host", "0.0.0.0"), "loopback addresses only"),
        (("--speed", "-1"), "speed must be between"),
    ],
)
def test_what_cannot_be_emulated_is_refused(run: Run, words: tuple[str, ...], message: str) -> None:
    done = run("emulate", *words)

    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr


def test_a_port_in_use_is_a_clear_error(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("emulate", "--json", "--port", str(port))

    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 is already in use" in json.loads(done.stderr)["error"]["message"]


@pytest.mark.slow
def test_the_demo_shows_every_vendor(run: Run, tmp_path: Path) -> None:
    done = run("demo", env={"TMPDIR": str(tmp_path)})

    assert done.returncode == 0
    assert done.stderr == ""
    for title in ("Scan Documents", "CloudConvert", "SmartDocumentor", "expert.ai Extract"):
        assert title in done.stdout
    for native, ours in {
        "InReview": r"processing \(awaiting_review\)",
        "ExportCompleted": "completed",
        "FAILURE": "failed",
        "error": r"failed \(cancelled\)",
        "finished": "completed",
    }.items():
        assert re.search(rf"  {native} +{ours}$", done.stdout, re.MULTILINE)
    assert "TaskFailed: the task failed: page conversion failed" in done.stdout
    assert 'provider = "cloudconvert"' in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 80
    command = next(line for line in done.stdout.splitlines() if "taskbridge serve" in line)
    with tb.Store(command.rpartition(" ")[2]) as store:  # what it left behind
        assert len(store.find(state="ended")) == 5
        assert len(list(store.events("test"))) == 5
