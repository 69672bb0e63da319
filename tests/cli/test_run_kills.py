"""`run` killed with SIGKILL at the moments that matter, and at random ones: no file is submitted twice.

Real processes against running emulators, which count. `TASKBRIDGE_KILLS=full` in the environment makes it 200 files and
ten kills for each vendor, which takes about a minute.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from taskbridge.emulator import Plan
from taskbridge.emulator.export import config_toml
from taskbridge.testing import Emulator

pytestmark = pytest.mark.slow

FULL: Final = os.environ.get("TASKBRIDGE_KILLS") == "full"
FILES: Final = 200 if FULL else 12
KILLS: Final = 10 if FULL else 2
SEED: Final = os.environ.get("TASKBRIDGE_KILLS_SEED") or str(random.randrange(10**6))

PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(64)
PDF: Final = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"

# Vendor -> what is submitted, and the path of the request that creates the task.
VENDORS: Final = {
    "cloudconvert": ("pdf", "/v2/jobs"),
    "smartdocumentor": ("url", "/sdtask/process"),
    "scan-documents": ("png", "-operations/"),
    "expertai-extract": ("pdf", "/layout-document-async"),
}
BLIND: Final = "expertai-extract"  # cannot be searched for a submission

# Runs one command after another, each in a forked process, because starting an interpreter takes longer than most runs.
# A command may be asked to kill itself before or after the nth change of a kind in its store.
LAUNCHER: Final = """
import json, os, signal, sys
import taskbridge.cli.app, taskbridge.cli.run.plan, taskbridge.cli.run.progress, taskbridge.store.runs.worker
import taskbridge_cloudconvert, taskbridge_expertai_extract, taskbridge_scan_documents, taskbridge_smartdocumentor
from taskbridge.cli import main
from taskbridge.store.runs.stored import StoredRun

def kill_at(name, when, left):
    real = getattr(StoredRun, name)

    def change(*args, **kwargs):
        nonlocal left
        left -= 1
        if left <= 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args, **kwargs)
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(StoredRun, name, change)

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if job["moment"]:
            kill_at(*job["moment"])
        os._exit(main(job["words"]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
ALL: Final = [
    (name, when)
    for name in ("mark_submitting", "mark_accepted", "mark_seen", "mark_downloaded")
    for when in ("before", "after")
]
MOMENTS: Final = (
    ALL if FULL else [("mark_submitting", "after"), ("mark_accepted", "before"), ("mark_downloaded", "before")]
)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(speed=100, plan=Plan(queued=2.0, working=4.0)) as running:
        yield running


class Launcher:
    """Starts commands, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def start(self, job: str) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(job.encode() + b"\n")
        return self._number()

    def end(self, seconds: float = 60.0) -> int | None:
        """The exit code of the command; None if it is still running."""
        assert self._process.stdout is not None
        return self._number() if select.select([self._process.stdout], [], [], seconds)[0] else None

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    started = Launcher()
    yield started
    started.close()


class Runs:
    """The processes of one run at one vendor."""

    def __init__(self, launcher: Launcher, emulator: Emulator, vendor: str, folder: Path, files: int) -> None:
        kind, self.commit = VENDORS[vendor]
        self.vendor, self.files, self.to = vendor, files, folder / "out"
        self._launcher, self._emulator, self._output = launcher, emulator, folder / "output"
        config = folder / "taskbridge.toml"
        limits = 'poll.interval = 0.05\nretry.first = 0.05\nprovider = "'
        config.write_text(config_toml(emulator).replace('provider = "', limits), encoding="utf-8")
        self._config = str(config)
        self._sources = [self._source(folder, kind, n) for n in range(files)]

    def _source(self, folder: Path, kind: str, number: int) -> str:
        if kind == "url":
            return f"http://127.0.0.1:9/invoice-{number}.pdf"  # the emulator fetches nothing
        path = folder / f"document-{number}.{kind}"
        path.write_bytes((PNG if kind == "png" else PDF) + str(number).encode())
        return str(path)

    def words(self, *more: str) -> list[str]:
        fixed = [
            "--connection",
            self.vendor,
            "--to",
            str(self.to),
            "--settle",
            "1",
            "--config",
            self._config,
            "--resume",
        ]
        return ["run", "extract-text", *self._sources, *fixed, *more]

    def start(self, *more: str, moment: tuple[str, str, int] | None = None) -> int:
        """Start a process and return its id."""
        job = {"words": self.words(*more), "moment": moment, "output": str(self._output)}
        return self._launcher.start(json.dumps(job))

    def killed_after(self, seconds: float) -> bool:
        """Run, and kill the process some seconds after its first request; return whether it was still running."""
        before = len(self._emulator.requests)
        process = self.start()
        while len(self._emulator.requests) == before:
            if self._launcher.end(0.002) is not None:
                return False
        if self._launcher.end(seconds) is not None:
            return False
        os.kill(process, signal.SIGKILL)
        return self._launcher.end() == -signal.SIGKILL

    def killed_at(self, name: str, when: str, nth: int) -> None:
        self.start("--max-in-flight", "2", moment=(name, when, nth))
        assert self._launcher.end() == -signal.SIGKILL, self._output.read_text()

    def finished(self, *more: str) -> tuple[int, str]:
        self.start(*more)
        code = self._launcher.end()
        assert code is not None
        return code, self._output.read_text()

    @property
    def submissions(self) -> int:
        """Tasks that the vendor has created."""
        return sum(
            each.method == "POST" and self.commit in each.path and each.status < 300 and each.vendor == self.vendor
            for each in self._emulator.requests
        )

    @property
    def results(self) -> int:
        """Files with results."""
        return sum(any(each.iterdir()) for each in self.to.iterdir() if each.is_dir())

    def check(self) -> str:
        """Finish, and check that each file was submitted once and has a result."""
        code, output = self.finished()
        uncertain = int((re.search(r"(\d+) uncertain", output) or ["", "0"])[1])
        if self.vendor != BLIND:
            assert uncertain == 0, output
        if uncertain:
            assert code == 7, output
            before = self.submissions
            assert before <= self.files
            assert self.results == self.files - uncertain
            assert self.finished()[0] == 7
            assert self.submissions == before  # not without the option
            code, output = self.finished("--resubmit-uncertain")
            assert self.submissions == before + uncertain
        else:
            assert self.submissions == self.files, output
        assert code == 0, output
        assert self.results == self.files
        counts = f"{self.submissions} submissions, {uncertain} uncertain, {self.results} results"
        return f"{self.vendor}: {self.files} files, {counts}"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_run_that_is_killed_repeatedly_submits_each_file_once(
    vendor: str, launcher: Launcher, emulator: Emulator, tmp_path: Path
) -> None:
    chance = random.Random(f"{SEED}/{vendor}")
    runs = Runs(launcher, emulator, vendor, tmp_path, FILES)
    for name, when in MOMENTS:
        runs.killed_at(name, when, chance.randint(1, 3))
    kills = 0
    while kills < KILLS and runs.killed_after(chance.uniform(0.0, 0.6)):
        kills += 1
    summary = (
        f"seed {SEED}, {len(MOMENTS)} kills at a moment, {kills} at random, {runs.submissions} submissions until then"
    )
    sys.stdout.write(f"{summary}; {runs.check()}\n")
