"""What a store costs, and how fast it is: ``python -m benchmarks store``; five minutes.

The real scheduler and the real store, in virtual time, against vendors in the same process.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import taskbridge as tb
from benchmarks import processes
from benchmarks.million import BATCH, Accounts, Statements, timed, watch_all
from benchmarks.virtual import single_polls
from taskbridge._engine.connection import Connection
from taskbridge.models import Task, TaskRef
from taskbridge.store.ownership import Ownership, Seen
from taskbridge.store.schema import State
from taskbridge.testing.clock import VirtualClock


def run(*, quick: bool) -> dict[str, Any]:
    scale = 100 if quick else 1
    return {
        "compared": compared(20_000 // scale),
        "restart": restart_sqlite(100_000 // scale),
        "restart_postgresql": restart_postgresql(1_000_000 // scale),
        "events": events(100_000 // scale),
    }


def compared(tasks: int) -> dict[str, Any]:
    """Compare the CPU per poll with and without a store, without lists."""
    seconds: dict[str, float] = {}
    for side in ("without", "with"):
        accounts = Accounts(tasks, 4, requests_per_second=50.0)
        for connection in accounts.connections.values():
            single_polls(connection)
        accounts.wait_for(accounts.refs())
        with tempfile.TemporaryDirectory() as folder, tb.Store(Path(folder) / "taskbridge.db") as store:
            watch_all(store, accounts.refs())
            owners = {name: Ownership(store.database, name) for name in accounts.connections}
            for owner in owners.values():
                assert owner.take()
            statements = Statements(store)
            waiting: dict[str, list[Seen]] = defaultdict(list)
            began = time.process_time()
            for task in accounts.ends():
                if side == "with":
                    batch = waiting[task.connection]
                    batch.append(Seen(task.ref, State.ENDED, task))
                    if len(batch) >= BATCH:
                        owners[task.connection].write(batch)
                        batch.clear()
            seconds[side] = (time.process_time() - began) / accounts.requests
    return {
        "tasks": tasks,
        "polls": accounts.requests,
        "cpu_ratio": seconds["with"] / seconds["without"],
        "statements_per_poll": statements.count / accounts.requests,
    }


def restart_sqlite(tasks: int) -> dict[str, Any]:
    """Measure a restart with a file on this disk."""
    with tempfile.TemporaryDirectory() as folder:
        return _restart(tasks, Path(folder) / "taskbridge.db")


def restart_postgresql(tasks: int) -> dict[str, Any]:
    """Measure a restart with a PostgreSQL on this machine."""
    with processes.cluster_module().cluster() as running:
        return _restart(tasks, running.create_database())


def _restart(tasks: int, url: str | Path) -> dict[str, Any]:
    """Measure the seconds from an open store to tasks that are polled."""
    accounts = Accounts(tasks, 4)
    with tb.Store(url) as store:
        watch_all(store, accounts.refs())
    began = time.perf_counter()
    with tb.Store(url) as store:
        for name in accounts.connections:
            owner = Ownership(store.database, name)
            assert owner.take()
            changes = owner.changes(-1)
            assert changes is not None
            accounts.wait_for(row["ref"] for row in changes.watches)
            owner.release()
    return {"tasks": tasks, "seconds": time.perf_counter() - began}


def events(tasks: int) -> dict[str, Any]:
    """Measure the ends that are stored in a second."""
    accounts = Accounts(tasks, 1)
    name, connection = next(iter(accounts.connections.items()))
    with tempfile.TemporaryDirectory() as folder, tb.Store(Path(folder) / "taskbridge.db") as store:
        refs = list(accounts.refs())
        watch_all(store, refs)
        owner = Ownership(store.database, name)
        assert owner.take()
        ends = [Seen(TaskRef(each), State.ENDED, ended_task(connection, each, accounts.clock)) for each in refs]
        seconds = timed(lambda: _write_all(owner, ends))
        return {"events": tasks, "per_second": tasks / seconds}


def _write_all(owner: Ownership, ends: list[Seen]) -> None:
    for first in range(0, len(ends), BATCH):
        owner.write(ends[first : first + BATCH])


def ended_task(connection: Connection, ref: str, clock: VirtualClock) -> Task:
    task = TaskRef(ref).id
    return Task(
        provider="cloudconvert",
        connection=connection.name,
        id=task,
        native_id=task,
        status=tb.TaskStatus.COMPLETED,
        native_status="finished",
        operation="convert",
        observed_at=clock.now(),
        created_at=clock.now(),
    )
