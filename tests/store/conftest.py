"""A store in SQLite and in PostgreSQL, and a watcher in this process or another one, against emulated vendors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeAlias

import pytest

import taskbridge as tb
from taskbridge.emulator import Plan
from taskbridge.emulator.export import config_toml
from taskbridge.serve import Access, Job
from taskbridge.testing import Emulator

from .postgresql import Cluster, cluster, missing
from .served import Serve, Served

OWNER: Final = """
import sys, taskbridge as tb
url, config, moment, when, nth = sys.argv[1:6]
if moment:
    import os, signal
    from taskbridge.store.ownership import Ownership
    real, left = getattr(Ownership, moment), int(nth)
    def change(*args, **kwargs):
        global left
        left -= 1
        if left <= 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(Ownership, moment, change)
tb.Watcher(tb.Store(url), config=config, interval=0.05, settle=1.0).run()
"""

URL_SECRET: Final = "b7Qd0c9yT2wX4mLr"
CONTRACTS: Final = f"""
[connections.contracts]
provider = "smartdocumentor"
access_token = "sm-test-token"
webhook_secrets = ["{URL_SECRET}"]
[connections.silent]
provider = "cloudconvert"
api_key = "cc-test-key"
"""
"""A connection whose webhooks are proved by a secret in their URL, and one without webhooks."""

PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(64)

StartOwner: TypeAlias = Callable[..., "subprocess.Popen[str]"]


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait for a condition, which work in another thread or process fulfills; return its value."""
    end, pause = monotonic() + seconds, threading.Event()
    while not (value := condition()):
        assert monotonic() < end, "it took too long"
        pause.wait(0.02)
    return value


def ended_task(name: str, **values: Any) -> tb.Task:
    """Return a task that has ended, of a connection that no vendor is behind."""
    given: dict[str, Any] = {"status": tb.TaskStatus.COMPLETED, "observed_at": datetime.now(UTC), **values}
    return tb.Task(provider="acme", connection="acme", id=name, native_id=name, **given)


def recovery_token(config: Path, path: Path, *, uploads: bool) -> Mapping[str, Any]:
    """Return the recovery token of a submission: its job is at the vendor, with its document only if it `uploads`."""
    tokens: list[Mapping[str, Any]] = []
    content = path.read_bytes()

    def before_submit(token: Mapping[str, Any]) -> None:
        tokens.append(token)
        if not uploads:
            path.unlink()

    with tb.connect(connection="cloudconvert", config=config) as client:
        try:
            client.wait(client.submit("extract-text", path, before_submit=before_submit))
        except OSError:
            assert not uploads
    path.write_bytes(content)
    return tokens[0]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator("cloudconvert", "scan-documents", speed=100, plan=Plan(queued=2.0, working=10.0)) as running:
        yield running


@pytest.fixture
def config(emulator: Emulator, tmp_path: Path) -> Path:
    path = tmp_path / "taskbridge.toml"
    limits = 'poll.interval = 0.05\nretry.first = 0.05\nprovider = "'
    path.write_text(config_toml(emulator).replace('provider = "', limits), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL that tests may stop; the next test finds it running."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with cluster() as running:
        yield running


@pytest.fixture
def postgres_url(postgres: Cluster) -> str:
    """The URL of an empty database."""
    postgres.start()
    return postgres.create_database()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that does not exist yet, in each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "taskbridge.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[tb.Store]:
    with tb.Store(store_url) as opened:
        yield opened


@pytest.fixture
def start_owner(store: tb.Store, store_url: str, config: Path) -> Iterator[StartOwner]:
    """Start a process that owns the connections; ``start_owner("mark_taken", "before", 2)`` kills itself then."""
    assert store.database.name  # its tables exist
    started: list[subprocess.Popen[str]] = []

    def start(moment: str = "", when: str = "", nth: int = 1) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", OWNER, store_url, str(config), moment, when, str(nth)]
        started.append(subprocess.Popen(words, text=True, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def serve(store: tb.Store) -> Iterator[Serve]:
    """Start servers of the store, in threads; each ends with the test."""
    running: list[Served] = []

    def start(
        access: Access | None = None, config: Path | None = None, jobs: Sequence[Job] = (), **options: float
    ) -> Served:
        running.append(Served(store, access or Access("127.0.0.1"), config, jobs, **options))
        return running[-1]

    yield start
    for each in running:
        each.stop()
    for thread in threading.enumerate():  # a server does not wait for its queries, but the store must not be closed yet
        if thread.name in {"taskbridge-page", "taskbridge-search", "taskbridge-health"}:
            thread.join(20)
