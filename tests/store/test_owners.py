"""Several processes with one store: owners that are killed, and owners that wait for each other.

`TASKBRIDGE_KILLS=full` in the environment kills at more moments, with more documents.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

import taskbridge as tb
from taskbridge.store.ownership import Ownership
from taskbridge.testing import Emulator

from .conftest import PNG, until

FULL = os.environ.get("TASKBRIDGE_KILLS") == "full"
FILES = 50 if FULL else 4
ALL = [(name, when) for name in ("mark_sending", "mark_taken", "write") for when in ("before", "after")]
MOMENTS = ALL if FULL else [("mark_sending", "after"), ("mark_taken", "before"), ("write", "before")]


def kinds(store: tb.Store) -> Counter[str]:
    return Counter(each.kind for each in store.events("test"))


def submit_all(store: tb.Store, folder: Path, numbers: range) -> None:
    for number in numbers:
        path = folder / f"page-{number}.png"
        path.write_bytes(PNG + bytes([number]))
        store.submit("scan-documents", "extract-text", path, key=f"page-{number}")
        job = folder / f"job-{number}.pdf"
        job.write_bytes(b"%PDF-1.4\n" + bytes([number]))
        store.submit("cloudconvert", "extract-text", job, key=f"job-{number}")


def created(emulator: Emulator) -> Counter[str]:
    """Tasks that each vendor has created."""
    paths = {"cloudconvert": "/v2/jobs", "scan-documents": "-operations/"}
    return Counter(
        each.vendor or ""
        for each in emulator.requests
        if each.method == "POST" and each.status < 300 and paths[each.vendor or ""] in each.path
    )


@pytest.mark.slow
def test_owners_that_are_killed_lose_nothing_and_double_nothing(
    store: tb.Store, start_owner: Any, emulator: Emulator, tmp_path: Path
) -> None:
    count = len(MOMENTS)
    for number, (moment, when) in enumerate(MOMENTS):
        # Each process gets new ones: the tasks of the others may have ended already, which needs no `write`.
        submit_all(store, tmp_path, range(number * FILES // count, (number + 1) * FILES // count))
        process = start_owner(moment, when, 2)
        assert process.wait(30) == -signal.SIGKILL
    start_owner()
    until(lambda: kinds(store)["ended"] == 2 * FILES, 60.0)
    assert kinds(store) == {"submitted": 2 * FILES, "ended": 2 * FILES}
    events = list(store.events("test"))
    assert len({each.key for each in events}) == len(events)
    assert {each.task.status for each in events if each.task is not None} == {"completed"}
    assert created(emulator) == {"cloudconvert": FILES, "scan-documents": FILES}
    assert {each.phase for each in store.submissions()} == {"taken"}


def test_an_account_that_is_configured_twice_is_divided_between_two_watchers(
    store: tb.Store, config: Path, emulator: Emulator, tmp_path: Path
) -> None:
    text = config.read_text()
    start = text.index("[connections.cloudconvert]")
    account = text[start : text.find("\n[", start)]
    halves = ("cloudconvert-a", "cloudconvert-b")
    config.write_text("".join(account.replace(".cloudconvert]", f".{name}]") for name in halves))
    keys: list[str] = []
    for number in range(20):
        job = tmp_path / f"job-{number}.pdf"
        job.write_bytes(b"%PDF-1.4\n" + bytes([number]))
        keys.append(store.submit(halves[number % 2], "extract-text", job, key=f"job-{number}").key)
    with (
        tb.Watcher(store, config=config, connections=halves[:1], interval=0.05) as first,
        tb.Watcher(store, config=config, connections=halves[1:], interval=0.05) as second,
    ):
        until(lambda: (first.owned, second.owned) == (frozenset(halves[:1]), frozenset(halves[1:])))
        until(lambda: kinds(store)["ended"] == len(keys))
    ended = [each for each in store.events("test") if each.kind == "ended"]
    assert Counter(each.connection for each in ended) == dict.fromkeys(halves, 10)
    assert {each.task.status for each in ended if each.task is not None} == {"completed"}
    assert created(emulator) == {"cloudconvert": len(keys)}


def test_the_next_owner_takes_over(store: tb.Store, start_owner: Any, config: Path, emulator: Emulator) -> None:
    first = start_owner()
    waiting = f"cloudconvert:{emulator.samples('cloudconvert')['waiting-upload']}"
    store.watch(waiting)
    until(lambda: store.find()[0].task)
    with tb.Watcher(store, config=config, interval=0.05) as second:
        with pytest.raises(tb.ConfigError, match="works already"):
            second.start()
        assert not second.owned
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: len(second.owned) == 2)
        assert first.wait(30) == -signal.SIGKILL
        explained = store.explain(waiting)
        assert explained.owner is not None
        assert f"process {os.getpid()} " in explained.owner
        requests = len(emulator.requests)
        until(lambda: len(emulator.requests) > requests)


def test_a_submission_that_cannot_be_searched_for_is_not_sent_twice(
    store: tb.Store, config: Path, emulator: Emulator
) -> None:
    store.submit("cloudconvert", "extract-text", "https://files.test/a.pdf", key="lost")
    died = Ownership(store.database, "cloudconvert")
    assert died.take()
    died.mark_sending(1, {"provider": "cloudconvert", "connection": "cloudconvert", "reference": "r"})  # no tag
    died.release()
    with tb.Watcher(store, config=config, interval=0.05):
        until(lambda: store.submissions(phase="uncertain"))
    (found,) = store.events("test")
    assert (found.kind, found.submission, found.ref) == ("uncertain", "lost", None)
    assert created(emulator) == {}


def test_nothing_is_sent_while_the_disk_is_full_and_all_of_it_afterwards(
    store: tb.Store, config: Path, emulator: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    submit_all(store, tmp_path, range(1))
    is_full = True

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if is_full and statement.startswith("UPDATE taskbridge_intent"):
            raise OperationalError(statement, None, sqlite3.OperationalError("database or disk is full"))

    event.listen(store.database.engine, "before_cursor_execute", fail)
    with tb.Watcher(store, config=config, interval=0.05):
        until(lambda: caplog.text.count("disk is full") >= 2)
        assert created(emulator) == {}
        is_full = False
        until(lambda: kinds(store) == {"submitted": 2, "ended": 2})
    assert created(emulator) == {"cloudconvert": 1, "scan-documents": 1}


def test_an_end_that_could_not_be_stored_is_stored_later_without_another_poll(
    store: tb.Store, config: Path, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    ref = store.watch(f"scan-documents:{emulator.samples('scan-documents')['completed']}")
    is_full = True

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if is_full and statement.lstrip().startswith("UPDATE taskbridge_watch"):
            raise OperationalError(statement, None, sqlite3.OperationalError("database or disk is full"))

    event.listen(store.database.engine, "before_cursor_execute", fail)
    with tb.Watcher(store, config=config, connections=["scan-documents"], interval=0.05):
        until(lambda: caplog.text.count("disk is full") >= 1)
        requests = len(emulator.requests)
        until(lambda: caplog.text.count("disk is full") >= 2)
        is_full = False
        until(lambda: store.find(state="ended"))
    assert [each.ref for each in store.events("test")] == [ref]
    assert len(emulator.requests) == requests


def test_a_bridge_of_the_caller_stays_open_and_ends_the_work_when_it_closes(
    store: tb.Store, config: Path, emulator: Emulator
) -> None:
    waiting = f"cloudconvert:{emulator.samples('cloudconvert')['waiting-upload']}"
    store.watch(waiting, until=datetime.now(UTC) + timedelta(hours=1))

    async def run() -> None:
        bridge = tb.aio.Bridge.from_config(config)
        async with tb.aio.Watcher(store, bridge, interval=0.05) as watcher:
            running = asyncio.create_task(watcher.run())
            await asyncio.to_thread(until, lambda: store.find()[0].task)
        await running  # which the end of the block stopped
        assert (await bridge.get(waiting)).status == "pending"
        running = asyncio.create_task(tb.aio.Watcher(store, bridge, interval=0.05).run())
        requests = len(emulator.requests)
        await asyncio.to_thread(until, lambda: len(emulator.requests) > requests)
        await bridge.close()
        with pytest.raises(tb.ConfigError, match="closed"):
            await running

    asyncio.run(run())
    assert store.find()[0].state == "open"


def test_a_connection_that_is_not_configured_is_an_error(store: tb.Store, config: Path) -> None:
    watcher = tb.Watcher(store, config=config, connections=["no-such"])
    with pytest.raises(tb.ConfigError, match="no-such"):
        watcher.start()
    watcher.stop()  # the error is raised once


def test_a_watcher_that_is_stopped_before_its_event_loop_runs_ends_at_once(store: tb.Store, config: Path) -> None:
    watcher = tb.Watcher(store, config=config, interval=0.05)
    watcher.stop()
    running = threading.Thread(target=watcher.run, daemon=True)
    running.start()
    running.join(20.0)
    assert not running.is_alive()
    watcher.stop()
    with watcher:  # it can be used afterwards
        until(lambda: len(watcher.owned) == 2)
    assert watcher.owned == frozenset()


def test_a_fault_of_a_provider_refuses_one_submission_and_ends_nothing_else(
    store: tb.Store, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tb.aio.Client.submit

    async def submit(self: tb.aio.Client, operation: str, *args: Any, **options: Any) -> tb.Task:
        if operation == "convert":
            raise TypeError("a fault")
        return await real(self, operation, *args, **options)

    monkeypatch.setattr(tb.aio.Client, "submit", submit)
    store.submit("cloudconvert", "convert", "https://files.test/a.pdf", key="a", to="docx")
    store.submit("cloudconvert", "extract-text", "https://files.test/a.pdf", key="b")
    with tb.Watcher(store, config=config, interval=0.05):
        until(lambda: {each.key: each.phase for each in store.submissions()} == {"a": "refused", "b": "taken"})
    assert "TypeError" in (store.submissions(phase="refused")[0].error or "")
