"""Emulated vendors behind connections of Airflow, which has a home of its own."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

# Airflow reads its configuration when it is imported.
_HOME: Final = tempfile.TemporaryDirectory(prefix="airflow-", ignore_cleanup_errors=True)
os.environ["AIRFLOW_HOME"] = _HOME.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

from taskbridge.emulator import Plan  # noqa: E402  # as above
from taskbridge.testing import Emulator  # noqa: E402  # as above

PDF: Final = b"%PDF-1.7"
PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(64)
KEY_OF: Final = {"smartdocumentor": ("client_id", "client_secret"), "expertai-extract": ("username", "password")}


def connection_json(emulator: Emulator, vendor: str, **extra: Any) -> str:
    """Return a connection of Airflow as in its environment variables."""
    settings = emulator.settings(vendor)
    login, password = KEY_OF.get(vendor, ("", "api_key"))
    fields = {
        "conn_type": "taskbridge",
        "host": settings.pop("base_url"),
        "login": settings.pop(login, None),
        "password": settings.pop(password),
        "extra": json.dumps({"provider": vendor, "poll": {"interval": 0.1}, **settings, **extra}),
    }
    return json.dumps(fields)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(speed=20, plan=Plan(queued=2.0, working=6.0)) as running:
        yield running


@pytest.fixture
def connect(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Define a connection of Airflow to an emulated vendor, and return its id."""

    def define(vendor: str = "cloudconvert", **extra: Any) -> str:
        conn_id = vendor.replace("-", "_")
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", connection_json(emulator, vendor, **extra))
        return conn_id

    return define


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "report.pdf"
    path.write_bytes(PDF)
    return path
