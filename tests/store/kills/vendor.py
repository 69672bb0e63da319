"""A vendor in its own process that counts what it is asked: CloudConvert's tasks and jobs, for any number of accounts.

Addresses begin with the process that asks and with the account, so that the vendor knows who asked what and when.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import uuid4

from benchmarks.server import Connection
from benchmarks.vendor import document

_LARGEST_PAGE: Final = 100


@dataclass(slots=True)
class _Task:
    name: str
    begins: float  # Unix time
    ends: float
    tag: str | None = None  # of a job
    shown_to: set[str] = field(default_factory=set[str])  # processes that saw its end


@dataclass(frozen=True, slots=True)
class Report:
    """What a vendor has seen.

    Attributes:
        submissions: How often each document was submitted.
        polls: Requests for the status of one task.
        lists: Requests for lists.
        repeated: Polls of a task whose end another process had been shown.
        jobs: Ids of the jobs that were created.
    """

    submissions: Counter[str]
    polls: int
    lists: int
    repeated: int
    jobs: list[str]


class Accounts:
    """The accounts of one vendor.

    Args:
        longest: Seconds that a submitted job takes at most.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._tasks: dict[str, dict[str, _Task]] = {}
        self._jobs: dict[str, dict[str, _Task]] = {}
        self._submissions: Counter[str] = Counter()
        self._polls = self._lists = self._repeated = 0
        self.connections = 0

    def add(self, account: str, tasks: dict[str, float]) -> None:
        """Add tasks that begin now to an account, with the seconds that they take."""
        now = time.time()
        rows = {name: _Task(name, now, now + seconds) for name, seconds in tasks.items()}
        self._tasks.setdefault(account, {}).update(rows)

    def report(self) -> Report:
        """Return what was seen."""
        jobs = [name for each in self._jobs.values() for name in each]
        return Report(self._submissions, self._polls, self._lists, self._repeated, jobs)

    def respond(self, method: str, target: str, body: bytes, host: str) -> tuple[int, bytes, bytes]:
        """Return status, headers and body of a response."""
        del host
        path, _, query = target.partition("?")
        process, account, _version, kind, *name = path.strip("/").split("/")
        known = (self._jobs if kind == "jobs" else self._tasks).setdefault(account, {})
        now = time.time()
        if method == "POST":
            return _json(201, {"data": _row(self._create(known, json.loads(body), now), now)})
        if not name:
            self._lists += 1
            return _json(200, self._page(known, process, dict(parse_qsl(query)), now))
        self._polls += 1
        task = known.get(name[0])
        if task is None:
            return _json(404, {"message": "No such task", "code": "NOT_FOUND"})
        if task.ends <= now:
            self._repeated += bool(task.shown_to - {process})
            task.shown_to.add(process)
        return _json(200, {"data": _row(task, now)})

    def _create(self, known: dict[str, _Task], asked: dict[str, Any], now: float) -> _Task:
        self._submissions[asked["tasks"]["import-1"]["url"]] += 1
        number = len(known)
        name = str(uuid4())
        seconds = self._longest * (number * 0.381966 % 1.0)  # as if at random
        known[name] = _Task(name, now, now + seconds, asked["tag"])
        return known[name]

    def _page(self, known: dict[str, _Task], process: str, query: dict[str, str], now: float) -> dict[str, Any]:
        status, tag = query.get("filter[status]"), query.get("filter[tag]")
        found = [
            each
            for each in reversed(known.values())
            if tag in {None, each.tag} and status in {None, "finished" if each.ends <= now else "processing"}
        ]
        size, number = min(int(query.get("per_page", _LARGEST_PAGE)), _LARGEST_PAGE), int(query.get("page", "1"))
        rows = found[(number - 1) * size : number * size]
        for each in rows:
            if each.tag is None and each.ends <= now:
                each.shown_to.add(process)
        pages = max(1, -(-len(found) // size))
        links = {"next": f"?page={number + 1}" if number < pages else None}
        meta = {"current_page": number, "last_page": pages, "per_page": size, "total": len(found)}
        return {"data": [_row(each, now) for each in rows], "links": links, "meta": meta}


def _row(task: _Task, now: float) -> dict[str, Any]:
    is_over = task.ends <= now
    row = document(task.name, "finished" if is_over else "processing", task.begins, task.ends if is_over else None)
    if task.tag is None:
        return row
    created = datetime.fromtimestamp(task.begins, UTC).isoformat(timespec="seconds")
    times = {"created_at": created, "started_at": created, "ended_at": row["ended_at"]}
    export = row | {"id": f"{task.name}-export", "operation": "export/url", "job_id": task.name}
    return {"id": task.name, "tag": task.tag, "status": row["status"], **times, "tasks": [export]}


def _json(status: int, value: dict[str, Any]) -> tuple[int, bytes, bytes]:
    return status, b"", json.dumps(value).encode()


def run(pipe: Pipe, longest: float) -> None:
    """Serve on 127.0.0.1 and send the port; then take the tasks of accounts, and answer None with a report."""
    asyncio.run(_serve(pipe, longest))


async def _serve(pipe: Pipe, longest: float) -> None:
    loop, accounts = asyncio.get_running_loop(), Accounts(longest)
    server = await loop.create_server(lambda: Connection(accounts, "http"), "127.0.0.1", 0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # it only responds
    pipe.send(server.sockets[0].getsockname()[1])
    while True:
        try:
            asked = await asyncio.to_thread(pipe.recv)
        except EOFError:
            return
        if asked is None:
            pipe.send(accounts.report())
        else:
            accounts.add(*asked)
            pipe.send(None)
