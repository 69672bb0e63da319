"""Fixtures that run the command line in its own process, or in this one, against emulated vendors."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from taskbridge.cli import main
from taskbridge.emulator.export import config_toml
from taskbridge.testing import Emulator

Run: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
Start: TypeAlias = Callable[..., subprocess.Popen[str]]

SECONDS = 30.0  # until a process is killed as stuck


@pytest.fixture(scope="session", autouse=True)
def _handle_ctrl_c() -> Iterator[None]:
    # A shell starts background jobs with Ctrl-C ignored, and processes started from here would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def config(vendors: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All vendors, a connection with a wrong key, an unreachable one, and one without a provider."""
    with socket.create_server(("127.0.0.1", 0)) as closed_again:
        port = closed_again.getsockname()[1]
    address = json.dumps(vendors.settings("scan-documents")["base_url"])
    more = f"""
        [connections.wrong-key]
        provider = "scan-documents"
        api_key = "not-the-key"
        base_url = {address}

        [connections.nowhere]
        provider = "scan-documents"
        api_key = "any-key"
        base_url = "http://127.0.0.1:{port}/v1"
        retry.attempts = 1

        [connections.broken]
        provider = "no-such-provider"
    """
    path = tmp_path_factory.mktemp("cli") / "taskbridge.toml"
    path.write_text(config_toml(vendors) + more, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def ref(vendors: Emulator) -> Callable[[str, str], str]:
    """The ref of a sample task, by vendor and label."""
    return lambda vendor, label: f"{vendor}:{vendors.samples(vendor)[label]}"


@pytest.fixture(scope="session")
def environment(config: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKBRIDGE_", "COV_"))}
    return {**kept, "TASKBRIDGE_CONFIG": str(config), "COLUMNS": "80", "PYTHONWARNINGS": "error"}


@pytest.fixture(scope="session")
def start(environment: dict[str, str]) -> Start:
    """Starts ``taskbridge`` with arguments and extra environment variables."""

    def begin(*words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, "-m", "taskbridge", *words],
            env={**environment, **(env or {})},
            encoding="utf-8",
            **{**pipes, **options},
        )

    return begin


@pytest.fixture(scope="session")
def run(start: Start) -> Run:
    """Runs ``taskbridge`` and waits for its end."""

    def go(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        with start(*words, **options) as process:
            try:
                out, err = process.communicate(timeout=SECONDS)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return go


@pytest.fixture
def run_here(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``taskbridge`` in this process, which is faster."""
    monkeypatch.setenv("TASKBRIDGE_CONFIG", str(config))

    def go(*words: str) -> subprocess.CompletedProcess[str]:
        code = main(words)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, out, err)

    return go
