"""Watchers in several processes, with a store in PostgreSQL and real HTTP: ``python -m benchmarks processes``.

``python -m benchmarks.processes serve`` plays the vendor, and ``… work`` is one of the watchers.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import resource
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import parse_qsl

import numpy as np
from sqlalchemy import event, func, select

import taskbridge as tb
from benchmarks.accounts import AccountVendor
from benchmarks.measure import ROOT, Child
from benchmarks.server import Connection
from taskbridge.store.schema import EVENT, EventKind

_WORKERS: Final = 4
_PER_WORKER: Final = 2  # connections
_LIMIT: Final = 20.0  # requests per second of a connection
_LONGEST: Final = 300.0  # seconds that a task takes


def run(*, quick: bool) -> dict[str, Any]:
    """Let several watchers poll tasks until all have ended."""
    tasks = 2_000 if quick else 200_000
    postgresql = cluster_module()
    names = [f"account-{number}" for number in range(_WORKERS * _PER_WORKER)]
    share = tasks // len(names)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(postgresql.cluster()).create_database()
        vendor = stack.enter_context(Child("-m", "benchmarks.processes", "serve", str(share), *names))
        address = vendor.receive()
        config = folder / "taskbridge.toml"
        config.write_text(
            "".join(
                f'[connections.{name}]\nprovider = "cloudconvert"\napi_key = "{"k" * 20}"\n'
                f'base_url = "{address}/{name}/v2"\nrequests_per_second = {_LIMIT}\n'
                for name in names
            ),
            encoding="utf-8",
        )
        store = stack.enter_context(tb.Store(url))
        with store.begin() as tx:
            for name in names:
                for task in AccountVendor(_durations(name, share), 0.0).ids:
                    tx.watch(f"{name}:{task}")
        began = time.perf_counter()
        workers = [
            stack.enter_context(
                Child(
                    "-m", "benchmarks.processes", "work", url, str(config),
                    *names[number * _PER_WORKER : (number + 1) * _PER_WORKER],
                )
            )
            for number in range(_WORKERS)
        ]  # fmt: skip
        total = share * len(names)
        while _ends(store) < total and all(worker.process.poll() is None for worker in workers):
            threading.Event().wait(1.0)
        seconds = time.perf_counter() - began
        reports = [worker.request("stop") for worker in workers]
        counted = vendor.request("count")
        ended = [each.ref for each in store.events("benchmark", batch=10_000) if each.kind == EventKind.ENDED]
    return {
        "tasks": total,
        "processes": _WORKERS,
        "connections": len(names),
        "seconds": seconds,
        "lost": total - len(set(ended)),
        "doubled": len(ended) - len(set(ended)),
        "requests": counted["requests"],
        "cpu_per_task": sum(each["cpu"] for each in reports) / total,
        "statements_per_request": sum(each["statements"] for each in reports) / counted["requests"],
        "statements_per_task": sum(each["statements"] for each in reports) / total,
        "bytes_per_task": sum(each["bytes"] for each in reports) / total,
    }


def _ends(store: tb.Store) -> int:
    with store.database.reading() as connection:
        count = select(func.count()).select_from(EVENT).where(EVENT.c.kind == EventKind.ENDED)
        return connection.execute(count).scalar_one()


def cluster_module() -> ModuleType:
    """Return the tests' module that starts a PostgreSQL."""
    spec = importlib.util.spec_from_file_location("postgresql", ROOT / "tests" / "store" / "postgresql.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["postgresql"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _durations(name: str, number: int) -> Any:
    """Return the seconds that the tasks of an account take, the same in every process."""
    seed = int(name.rpartition("-")[2])
    return np.minimum(np.random.default_rng(seed).lognormal(np.log(60.0), 0.7, number), _LONGEST)


class _State:
    """The accounts of the vendor."""

    def __init__(self, share: int, names: list[str]) -> None:
        now = time.time()
        self._accounts = {name: AccountVendor(_durations(name, share), now) for name in names}
        self.connections = 0
        self.requests = 0

    def respond(self, method: str, target: str, body: bytes, host: str) -> tuple[int, bytes, bytes]:
        """Return status, headers and body."""
        del method, body, host
        self.requests += 1
        path, _, query = target.partition("?")
        account, *_, name = path.strip("/").split("/")
        vendor, now = self._accounts[account], time.time()
        if name == "tasks":
            return 200, b"", vendor.page(dict(parse_qsl(query)), now).encode()
        if name == "jobs":
            return 200, b"", b'{"data": [], "links": {}, "meta": {}}'
        return 200, b"", vendor.show(name, now).encode()


async def _serve(share: int, names: list[str]) -> None:
    loop, state = asyncio.get_running_loop(), _State(share, names)
    server = await loop.create_server(lambda: Connection(state, "http"), "127.0.0.1", 0, backlog=4096)  # type: ignore[arg-type]  # it only responds
    print(json.dumps(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"requests": state.requests}), flush=True)


async def _work(url: str, config: str, names: list[str]) -> None:
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    with tb.Store(url) as store:
        event.listen(store.database.engine, "before_cursor_execute", count)
        watcher = tb.aio.Watcher(store, config=config, connections=names)
        running = asyncio.create_task(watcher.run())
        stopped = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
        watcher.stop()
        await running
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report = {"cpu": usage.ru_utime + usage.ru_stime, "bytes": usage.ru_maxrss * 1024, "statements": statements}
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    role, *arguments = sys.argv[1:]
    if role == "serve":
        asyncio.run(_serve(int(arguments[0]), arguments[1:]))
    else:
        asyncio.run(_work(arguments[0], arguments[1], arguments[2:]))
