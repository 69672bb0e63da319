"""A vendor of benchmark tasks: CloudConvert's bodies, with durations encoded in the ids.

An id is ``run-number-start-duration``, the last two in milliseconds from the start of the run. So the vendor stores no
tasks, an unchanged task has an unchanged body, and the benchmark knows when each task really ended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

SIZE: Final = 966  # bytes of a body: the documented example plus the additional fields of real responses
PER_PAGE: Final = 100
_PAD: Final = "@" * 24


def task_id(run: str, number: int, duration: float, start: float = 0.0) -> str:
    """Return the id of a task.

    Args:
        run: Letters and digits.
        number: Unique in the run.
        duration: Seconds.
        start: Seconds from the start of the run.
    """
    return f"{run}-{number:05}-{round(start * 1000):06}-{round(duration * 1000):07}"


def end_of(name: str) -> float:
    """Return the seconds from the start of the run to the end of the task."""
    _, _, start, duration = name.split("-")
    return (int(start) + int(duration)) / 1000


def _stamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")


def document(name: str, status: str, created: float, ended: float | None) -> dict[str, Any]:
    """Return a task in CloudConvert's format."""
    result: dict[str, Any] | None = None
    if status == "finished":
        result = {"files": [{"filename": "document.pdf", "size": 48_213}]}
    return {
        "id": name,
        "job_id": "73df1e16-fd8b-47a1-a156-f197babde91a",
        "operation": "convert",
        "status": status,
        "credits": None,
        "message": None,
        "code": None,
        "percent": 100,
        "created_at": _stamp(created),
        "started_at": _stamp(created),
        "ended_at": None if ended is None else _stamp(ended),
        "depends_on_tasks": {"my-import-task": "c85f3ca9-164c-4e89-8ae2-c08192a7cb08"},
        "depends_on_task_ids": ["73df1e16-fd8b-47a1-a156-f197babde91a"],
        "engine": "office",
        "engine_version": "2.1",
        "payload": {"input_format": "docx", "output_format": "pdf", "pages": "1-2", "optimize_print": True},
        "result": result,
        "priority": 50,
        "host_name": "lesly",
        "storage": "ceph-fra",
        "user_id": 123,
        "region": "eu-central",
        "links": {"self": f"https://api.cloudconvert.com/v2/tasks/{name}"},
        "retry_of_task_id": None,
    }


def _padded(outside: dict[str, Any], inside: dict[str, Any]) -> bytes:
    """Return the body, padded to the size of all bodies."""
    inside["engine_note"] = ""
    size = len(json.dumps(outside))
    inside["engine_note"] = "." * max(0, SIZE - size)
    return json.dumps(outside).encode()


@dataclass
class Run:
    """Tasks that were submitted together.

    Attributes:
        epoch: Unix time of the start.
        ids: Tasks in the list, newest first.
        counts: Requests by kind.
    """

    epoch: float
    ids: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1


class Vendor:
    """The vendor's responses for any number of runs.

    Args:
        now: Unix time; the start of runs without `begin`.
    """

    def __init__(self, now: float) -> None:
        self._now = now
        self._runs: dict[str, Run] = {}
        self._last = Run(now)
        self._kept: dict[tuple[str, str], bytes] = {}
        self._listed: tuple[object, list[str]] = (None, [])  # the list of the last page, and what it is of

    def begin(self, run: str, now: float, ids: list[str]) -> Run:
        self._last = self._runs[run] = Run(now, ids[::-1])
        return self._last

    def run(self, name: str) -> Run:
        found = self._runs.get(name)
        if found is None:
            found = self._runs[name] = Run(self._now)
        return found

    def of(self, task: str) -> Run:
        return self.run(task.partition("-")[0])

    def is_over(self, task: str, now: float) -> bool:
        return now >= self.of(task).epoch + end_of(task)

    def show(self, task: str, now: float, shape: str = "cloudconvert") -> bytes:
        """Return the body of a status response."""
        over = self.is_over(task, now)
        key = (shape + task, str(over))
        body = self._kept.get(key)
        if body is None:
            body = self._body(task, shape, over=over)
            if len(self._kept) > 50_000:
                self._kept.clear()
            self._kept[key] = body
        return body

    def _document(self, task: str, *, over: bool) -> dict[str, Any]:
        epoch = self.of(task).epoch
        start = int(task.split("-")[2]) / 1000
        return document(
            task, "finished" if over else "processing", epoch + start, epoch + end_of(task) if over else None
        )

    def _body(self, task: str, shape: str, *, over: bool) -> bytes:
        task_data = self._document(task, over=over)
        outside: dict[str, Any] = {"data": task_data}
        if shape == "azure":
            outside = {"status": "Succeeded" if over else "Running", "task": task_data}
        elif shape == "google":
            kind = "type.googleapis.com/google.protobuf.Struct"
            outside = {"name": task, "done": over, "metadata": {"@type": kind, "value": task_data}}
            if over:
                outside["response"] = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        elif shape == "boto3":
            outside = {"jobId": task, "status": "Succeeded" if over else "InProgress", "task": task_data}
        return _padded(outside, task_data)

    def page(self, kind: str, query: dict[str, str], now: float) -> bytes:
        """Return a page of the list of the latest run, newest first; there are no jobs."""
        run = self._last
        run.count("list")
        size = min(int(query.get("per_page", PER_PAGE)), PER_PAGE)
        number = int(query.get("page", "1"))
        wanted = query.get("filter[status]")
        asked = (id(run), kind, wanted, now)
        if self._listed[0] != asked:
            self._listed = (
                asked,
                [
                    task
                    for task in run.ids
                    if kind == "tasks"
                    and run.epoch + int(task.split("-")[2]) / 1000 <= now
                    and (wanted is None or wanted == ("finished" if self.is_over(task, now) else "processing"))
                ],
            )
        ids = self._listed[1]
        shown = ids[(number - 1) * size : number * size]
        pages = max(1, -(-len(ids) // size))
        base = f"https://api.cloudconvert.com/v2/{kind}"
        meta = {"current_page": number, "last_page": pages, "path": base, "per_page": size, "total": len(ids)}
        links = {
            "first": f"{base}?page=1",
            "last": f"{base}?page={pages}",
            "prev": f"{base}?page={number - 1}" if number > 1 else None,
            "next": f"{base}?page={number + 1}" if number < pages else None,
        }
        data = [self._document(task, over=self.is_over(task, now)) for task in shown]
        return json.dumps({"data": data, "links": links, "meta": meta}).encode()
