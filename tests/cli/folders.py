"""Working folders for tests of commands: a configuration of the emulated vendors, and documents."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from taskbridge.emulator.export import config_toml
from taskbridge.provider.clock import SystemClock
from taskbridge.store.dialects import open_database
from taskbridge.store.runs.stored import StoredRun
from taskbridge.testing import Emulator

PDF: Final = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"
JOBS: Final = "/v2/jobs"


def fill(folder: Path, vendors: Emulator, names: str, more: str = "") -> Path:
    """Write the configuration, with short pauses, and a document for each name into `in`; return the folder."""
    quick = 'poll.interval = 0.05\nretry.first = 0.01\nprovider = "'
    (folder / "taskbridge.toml").write_text(config_toml(vendors).replace('provider = "', quick) + more, "utf-8")
    (folder / "in").mkdir()
    for name in names:
        (folder / "in" / f"{name}.pdf").write_bytes(PDF + name.encode())
    return folder


def records(text: str) -> list[dict[str, Any]]:
    """Return the objects that a command prints with --json."""
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def open_run(folder: Path) -> Generator[StoredRun]:
    """The run in a folder, in the store beside its results."""
    database = open_database(folder / "taskbridge-run.sqlite", None, SystemClock())
    with StoredRun(database, folder, is_beside=True) as run:
        run.terms()
        yield run
    database.close()
