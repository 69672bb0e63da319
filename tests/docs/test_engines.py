"""The programs for engines that the tests do not install; each is skipped where its package is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from taskbridge.testing import Emulator

from .test_code_blocks import ALL, emulator, environment, place

__all__ = ["emulator", "environment", "place"]  # fixtures

pytestmark = pytest.mark.slow

# What follows the blocks of the Temporal page, which need a server otherwise.
TEMPORAL: Final = """
import contextlib
from temporalio.testing import ActivityEnvironment


class StandIn:
    signals = []

    def get_workflow_handle(self, workflow):
        self.workflow = workflow
        return self

    async def signal(self, name, end):
        self.signals.append((self.workflow, name, end))
        raise asyncio.CancelledError  # one is enough


activities = ActivityEnvironment()
for _ in range(2):
    activities.run(submit, "report.pdf")
with tb.Store("taskbridge.db") as store, tb.Watcher(store):
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(relay(StandIn(), store))
    assert len(store.submissions()) == 1
((workflow_id, name, end),) = StandIn.signals
assert (workflow_id, name, end["status"]) == (activities.info.workflow_id, "ended", "completed"), StandIn.signals
print(activities.run(download, end["ref"]))
"""

# Package -> the reason above its blocks, and what follows them.
PROGRAMS: Final[Mapping[str, tuple[str, str]]] = {
    "dbos": ("needs DBOS", ""),
    "prefect": ("needs Prefect", ""),
    "temporalio": ("needs Temporal", TEMPORAL),
}


@pytest.mark.parametrize("package", PROGRAMS)
def test_the_program_of_the_page_submits_once_and_downloads(
    package: str, place: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    reason, more = PROGRAMS[package]
    monkeypatch.setenv("PREFECT_HOME", str(place / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "200")  # on a busy machine
    (place / "report.pdf").write_bytes(b"%PDF-1.7")
    program = "".join(block.code for block in ALL if block.reason == reason)
    (place / "program.py").write_text(program + more, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=place, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "results/report.docx" in done.stdout
    assert emulator.count("cloudconvert", "POST", "/jobs") == 1
