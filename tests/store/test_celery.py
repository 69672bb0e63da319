"""Celery with a store: real workers on a real Redis, and both of them killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from celery import Celery
from redis import Redis

import taskbridge as tb
from taskbridge.celery import relay, submit, task_id_of
from taskbridge.store import Event
from taskbridge.testing import Emulator

from .conftest import PNG, ended_task, until

pytestmark = pytest.mark.slow

REDIS: Final = shutil.which("redis-server")
DOCUMENTS: Final = 30

JOBS: Final = """
import json, os
from celery import Celery
import taskbridge as tb
from taskbridge.celery import submit
from taskbridge.store import Event

app = Celery("documents", broker=os.environ["BROKER"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    # Seconds, in place of 300 and 100, until another worker has the messages of one that was killed.
    broker_transport_options={
        "visibility_timeout": 4,
        "unacked_mutex_expire": 5,
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
    },
)
store = tb.Store(os.environ["STORE"])

@app.task(name="documents.convert")
def convert(path):
    submit(store, "scan-documents", "extract-text", path, meta={"path": path})

@app.task(bind=True, name="documents.happened")
def happened(self, values):
    event = Event.from_dict(values)
    line = json.dumps([event.key, event.kind, self.request.id]) + "\\n"
    with open(os.environ["EFFECTS"], "a") as file:
        file.write(line)
"""
RELAY: Final = """
import jobs
from taskbridge.celery import relay
relay(jobs.store, jobs.app, "documents.happened").run()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A Redis of the test's own."""
    if REDIS is None:
        pytest.skip("no redis-server: install Debian's package redis-server")
    port = free_port()
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir", str(tmp_path)]
    with subprocess.Popen([REDIS, *words], stdout=subprocess.DEVNULL) as process:
        until(lambda: is_listening(port))
        yield f"redis://127.0.0.1:{port}/0"
        process.kill()


Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(broker: str, store_url: str, tmp_path: Path) -> Iterator[Start]:
    """Start a ``worker`` or a ``relay`` in a process group of its own."""
    (tmp_path / "jobs.py").write_text(JOBS)
    environment = {**os.environ, "BROKER": broker, "STORE": store_url}
    environment |= {"EFFECTS": str(tmp_path / "effects"), "PYTHONPATH": str(tmp_path)}
    worker = ["-m", "celery", "-A", "jobs", "worker", "-c", "2", "-l", "ERROR", "--without-gossip", "--without-mingle"]
    words = {"worker": worker, "relay": ["-c", RELAY]}
    started: list[subprocess.Popen[bytes]] = []
    log = (tmp_path / "log").open("wb")

    def begin(kind: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, *words[kind]],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for each in started:
        kill(each)
    log.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def effects(folder: Path) -> list[Any]:
    path = folder / "effects"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def was_sent(folder: Path, task_id: str) -> bool:
    """Whether the broker has ever got a message; its file has all that was written to it."""
    return any(task_id.encode() in path.read_bytes() for path in folder.rglob("*.aof"))


def has_messages(broker: str) -> bool:
    """Whether the broker has a message that waits, or that a worker has not acknowledged."""
    with Redis(port=urlsplit(broker).port or 0) as client:
        return bool(client.llen("celery") or client.hlen("unacked"))


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_when_workers_and_the_relay_are_killed(  # noqa: PLR0917  # fixtures
    store: tb.Store, config: Path, emulator: Emulator, broker: str, start: Start, tmp_path: Path
) -> None:
    chance = random.Random(7)
    app = Celery(broker=broker)
    jobs = {str(uuid4()): tmp_path / f"page-{number}.png" for number in range(DOCUMENTS)}
    for number, (job, page) in enumerate(jobs.items()):
        page.write_bytes(PNG + bytes([number]))
        app.send_task("documents.convert", args=[str(page)], task_id=job)

    def events() -> list[Event]:
        return list(store.events("test"))

    def is_done() -> bool:
        return len({key for key, _, _ in effects(tmp_path)}) == 2 * DOCUMENTS

    with tb.Watcher(store, config=config, interval=0.05):
        running = {kind: start(kind) for kind in ("worker", "relay")}
        for _ in range(6):
            before, end = len(effects(tmp_path)), monotonic() + chance.uniform(1.0, 4.0)
            until(lambda before=before, end=end: len(effects(tmp_path)) > before + 3 or monotonic() > end)  # type: ignore[misc]
            victim = chance.choice(("worker", "relay"))
            kill(running[victim])
            running[victim] = start(victim)
        # Celery takes a message from Redis before it notes that a worker has it, so a kill in between loses it. The
        # guide says what to do: send it again, with the same id.
        until(lambda: not has_messages(broker), 90.0)
        for job in jobs.keys() - {each.key for each in store.submissions()}:
            app.send_task("documents.convert", args=[str(jobs[job])], task_id=job)
        until(lambda: len(events()) == 2 * DOCUMENTS, 90.0)
        until(lambda: all(was_sent(tmp_path, task_id_of(event)) for event in events()), 90.0)  # the relay has lost none
        until(lambda: not has_messages(broker), 90.0)
        if not is_done():
            relay(store, app, "documents.happened", consumer="again").deliver()
        until(is_done, 90.0)
    app.close()
    found = effects(tmp_path)
    assert {key for key, _, _ in found} == {event.key for event in store.events("test")}
    assert Counter(kind for _, kind in {(key, kind) for key, kind, _ in found}) == {
        "submitted": DOCUMENTS,
        "ended": DOCUMENTS,
    }
    assert len({task_id for _, _, task_id in found}) == 2 * DOCUMENTS  # one for each key
    assert len(store.submissions(phase="taken")) == DOCUMENTS
    created = [each for each in emulator.requests if each.method == "POST" and "-operations/" in each.path]
    assert len(created) == DOCUMENTS
    assert store.dead_letters() == []


@pytest.mark.slow
def test_events_wait_while_the_broker_is_away(store: tb.Store) -> None:
    app = Celery(broker=f"redis://:s3cret@127.0.0.1:{free_port()}/0")
    app.conf.task_publish_retry = False
    task = ended_task("a", status=tb.TaskStatus.FAILED, resumable=False)
    store.watch(task)
    assert relay(store, app, "documents.happened").deliver() == 0
    (waits,) = store.undelivered("celery")
    assert "OperationalError" in waits.error
    assert "s3cret" not in waits.error
    app.close()


def test_a_celery_task_that_runs_twice_submits_once(store: tb.Store) -> None:
    app = Celery(broker="memory://")

    @app.task
    def convert(number: int, key: str | None = None) -> str:
        return submit(store, "scans", "extract-text", f"https://files.test/{number}", key=key).key

    assert [convert.apply(args=(1,), task_id="one").get() for _ in range(2)] == ["one", "one"]
    assert convert.apply(args=(2,), task_id="two").get() == "two"
    assert convert.apply(args=(3, "INV-3"), task_id="three").get() == "INV-3"
    assert [each.key for each in store.submissions()] == ["one", "two", "INV-3"]
    with pytest.raises(tb.ConfigError, match="with different"):
        convert.apply(args=(4,), task_id="two").get()
    with pytest.raises(tb.ConfigError, match="submit has no key"):
        convert(5)
    app.close()
