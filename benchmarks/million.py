"""A million tasks and a store: ``python -m benchmarks million``, or ``make bench-scale``; over an hour.

The real scheduler and the real store, in virtual time, against vendors in the same process. Ends that were lost, or stored
twice, are counted.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np
from sqlalchemy import event

import taskbridge as tb
from benchmarks.accounts import AccountVendor
from taskbridge._config.files import load_config
from taskbridge._engine.connection import open_connections
from taskbridge._polling.scheduler import PollScheduler
from taskbridge._runtime.base import Transports
from taskbridge._runtime.sync import Runtime
from taskbridge.models import Task
from taskbridge.provider.http import Request, Response
from taskbridge.store.ownership import Ownership, Seen
from taskbridge.store.schema import State
from taskbridge.testing.clock import VirtualClock

BATCH: Final = 500  # ends in a transaction, as in a watcher


def run(*, quick: bool) -> dict[str, Any]:
    return virtual(10_000 if quick else 1_000_000, 40)


class _Transport:
    """A transport that calls an `AccountVendor` directly, at the time of the clock."""

    def __init__(self, vendor: AccountVendor, clock: VirtualClock) -> None:
        self._vendor = vendor
        self._clock = clock
        self.requests = 0

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        del deadline, max_body
        self.requests += 1
        parts = urlsplit(request.url)
        name, received = unquote(parts.path.rsplit("/", 1)[-1]), self._clock.now()
        now = received.timestamp()
        if name == "tasks":
            body = self._vendor.page(dict(parse_qsl(parts.query)), now)
        elif name == "jobs":
            body = '{"data": [], "links": {}, "meta": {}}'
        else:
            body = self._vendor.show(name, now)
        return Response(200, {}, body.encode(), received)

    def close(self) -> None:
        """Do nothing."""


class Accounts:
    """Connections with running tasks, in virtual time."""

    def __init__(self, tasks: int, connections: int, **settings: object) -> None:
        self.clock = VirtualClock(seed=1)
        lines = []
        for number in range(connections):
            values = {"provider": "cloudconvert", "api_key": "k" * 20, "base_url": "http://127.0.0.1:9/v2", **settings}
            lines += [f"[connections.account-{number}]", *(f"{name} = {json.dumps(v)}" for name, v in values.items())]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "taskbridge.toml"
            path.write_text("\n".join(lines), encoding="utf-8")
            self.connections = open_connections(load_config(path), cast("Any", self.clock))
        chance, epoch = np.random.default_rng(1), self.clock.now().timestamp()
        share = tasks // connections
        self.vendors = {
            name: AccountVendor(chance.lognormal(np.log(600.0), 1.0, share), epoch) for name in self.connections
        }
        transports = {name: _Transport(self.vendors[name], self.clock) for name in self.connections}
        self._transports = transports.values()
        self.scheduler = PollScheduler()
        self._runtime = Runtime(
            cast("Any", self.clock),
            Transports(cast("Any", None), None, lambda connection: transports[connection.name]),
        )

    def refs(self) -> Iterable[str]:
        """Return the refs of all tasks."""
        return (f"{name}:{each}" for name, vendor in self.vendors.items() for each in vendor.ids)

    def wait_for(self, refs: Iterable[str]) -> None:
        """Begin to poll tasks."""
        now = self.clock.monotonic()
        for each in refs:
            name, _, task = each.partition(":")
            self.scheduler.add(self.connections[name], task, now)

    def ends(self) -> Iterable[Task]:
        """Poll until all tasks have ended; yield each."""
        while self._runtime.step(self.scheduler):
            self.clock.slept.clear()
            while (update := self.scheduler.next_update()) is not None:
                if update.outcome.task is not None and update.outcome.task.is_terminal:
                    yield update.outcome.task

    @property
    def requests(self) -> int:
        return sum(each.requests for each in self._transports)


class Statements:
    """Counts the statements of a store."""

    def __init__(self, store: tb.Store) -> None:
        self.count = 0
        event.listen(store.database.engine, "before_cursor_execute", self._on_statement)

    def _on_statement(self, *_: object) -> None:
        self.count += 1


def virtual(tasks: int, connections: int) -> dict[str, Any]:
    """Store watches, read them back, poll all tasks until they end, and store the ends."""
    accounts = Accounts(tasks, connections, requests_per_second=20.0)
    with tempfile.TemporaryDirectory() as folder, tb.Store(Path(folder) / "taskbridge.db") as store:
        statements = Statements(store)
        stored = timed(lambda: watch_all(store, accounts.refs()))
        owners = {name: Ownership(store.database, name) for name in accounts.connections}
        began, cpu = time.perf_counter(), time.process_time()
        for owner in owners.values():
            assert owner.take()
            changes = owner.changes(-1)
            assert changes is not None
            accounts.wait_for(row["ref"] for row in changes.watches)
        restarted = time.perf_counter() - began
        statements.count = 0
        ended: set[str] = set()
        waiting: dict[str, list[Seen]] = defaultdict(list)
        for task in accounts.ends():
            ended.add(str(task.ref))
            batch = waiting[task.connection]
            batch.append(Seen(task.ref, State.ENDED, task))
            if len(batch) >= BATCH:
                owners[task.connection].write(batch)
                batch.clear()
        for name, batch in waiting.items():
            owners[name].write(batch)
        cpu = time.process_time() - cpu
        polling = statements.count
        for owner in owners.values():
            owner.release()
        keys = [each.key for each in store.events("benchmark", batch=10_000) if each.kind == "ended"]
        total = len(list(accounts.refs()))
        return {
            "tasks": total,
            "connections": connections,
            "requests": accounts.requests,
            "lost": total - len({key.rpartition("/")[0] for key in keys} & ended),
            "doubled": len(keys) - len(set(keys)),
            "store_seconds": stored,
            "restart_seconds": restarted,
            "cpu_per_task": cpu / total,
            "statements_per_task": polling / total,
            "statements_per_request": polling / accounts.requests,
            "bytes_per_task": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / total,
        }


def watch_all(store: tb.Store, refs: Iterable[str]) -> None:
    with store.begin() as tx:
        for each in refs:
            tx.watch(each)


def timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
