"""Response bodies of the emulated CloudConvert: tasks, jobs, pages, and the formats of its two hosts.

Shapes are those of the TASKS and JOBS pages, of recordings (VCR 2020, HOOK23 2023) and of fixtures of official clients.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from .emulator_tasks import has_passed

if TYPE_CHECKING:
    from collections.abc import Collection

    from .emulator_storage import Storage
    from .emulator_tasks import NativeJob, NativeTask, TaskStore, Timeline

USER_ID: Final = 51
RATE_LIMIT: Final = 500  # X-Ratelimit-Limit of the async host (wire VCR)
ENGINE: Final = ("office", "2.1")  # doc TASKS, example


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A response before a host formats it."""

    body: object = None  # becomes JSON; None for no body
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    counted: bool = True  # whether it has the rate limit headers


def format_async(response: ApiResponse, recent: int) -> Response:
    """Format a response of the async host: PHP's JSON with escaped slashes, and rate limit headers (wire VCR).

    ``recent`` is the number of requests in the current minute, this one included.
    """
    headers = {"Cache-Control": "no-cache, private", "Server": "nginx", **response.headers}
    if response.counted:
        headers["X-Ratelimit-Limit"] = str(RATE_LIMIT)
        headers["X-Ratelimit-Remaining"] = str(max(0, RATE_LIMIT - recent))
    if response.body is None:
        return Response(status_code=response.status, headers=headers)
    headers |= {"Vary": "Accept-Encoding", "Content-Type": "application/json"}
    body = json.dumps(response.body, separators=(",", ":")).replace("/", "\\/")
    return Response(body, response.status, headers)


def format_sync(response: ApiResponse) -> Response:
    """Format a response of the sync host: plain slashes, an entity tag, no rate limit headers (wire VCR)."""
    headers = {
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Accept-Encoding, Origin",
        **response.headers,
    }
    if response.body is None:
        return Response(status_code=response.status, headers=headers)
    body = json.dumps(response.body, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    headers |= {
        "Content-Type": "application/json; charset=utf-8",
        "ETag": f'W/"{len(body):x}-{digest}"',
    }
    return Response(body, response.status, headers)


def time_text(moment: float) -> str:
    """Whole seconds with ``+00:00``, never ``Z`` (doc, wire)."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def page(items: Sequence[Any], query: Mapping[str, str], path: str) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return one page of a list, and its ``links`` and ``meta`` (doc TASKS).

    There is no total, and ``last`` is always null. The links contain only ``page``, as in the documented example. The
    query may have ``per_page`` (100 by default) and ``page`` (from 1); ``path`` is the URL of the list.
    """
    size, number = _positive(query.get("per_page"), 100), _positive(query.get("page"), 1)
    begin = (number - 1) * size
    rows = items[begin : begin + size]
    links = {
        "first": f"{path}?page=1",
        "last": None,
        "prev": f"{path}?page={number - 1}" if number > 1 else None,
        "next": f"{path}?page={number + 1}" if begin + size < len(items) else None,
    }
    meta = {
        "current_page": number,
        "from": begin + 1 if rows else None,
        "path": path,
        "per_page": size,
        "to": begin + len(rows) if rows else None,
    }
    return rows, {"links": links, "meta": meta}


def _positive(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and int(text) > 0 else default


class Views:
    """The vendor's JSON of tasks and jobs."""

    def __init__(self, store: TaskStore, storage: Storage, api_url: str) -> None:
        self._store = store
        self._storage = storage
        self._api_url = api_url

    def job(self, job: NativeJob, *, with_tasks: bool = True) -> dict[str, Any]:
        """A job; its tasks are not in the order of submission (wire 2022, 2023: export first)."""
        timeline, now = self._store.job_timeline(job), self._store.now
        body: dict[str, Any] = {
            "id": job.id,
            "tag": job.tag,
            "status": timeline.status(now),
            "created_at": time_text(job.created),
            **_times(timeline, now),
        }
        if with_tasks:
            body["tasks"] = [self.task(task) for task in reversed(job.tasks) if not task.deleted]
        return body | {"links": {"self": f"{self._api_url}/jobs/{job.id}"}}

    def task(self, task: NativeTask, include: Collection[str] = ()) -> dict[str, Any]:
        """A task; ``include`` is any of ``retries``, ``depends_on_tasks``, ``payload`` and ``job``."""
        timeline, now = self._store.timeline(task), self._store.now
        status = timeline.status(now)
        ended = status in {"finished", "error"}
        assigned = has_passed(timeline.started, now) and timeline.code != "INPUT_TASK_FAILED"
        return {
            "id": task.id,
            "job_id": task.job_id,
            **({} if task.name is None else {"name": task.name}),
            "operation": task.operation,
            "status": status,
            "credits": int(task.processes and status == "finished") if ended else None,
            "message": timeline.message if ended else self._message(task),
            "code": timeline.code if ended else None,
            "percent": 100,  # in every recorded body, waiting ones too
            "created_at": time_text(task.created),
            **_times(timeline, now),
            "depends_on_task_ids": list(task.depends_on),
            "retry_of_task_id": task.retry_of,
            "copy_of_task_id": task.retry_of,
            "user_id": USER_ID,
            "priority": 50,
            "host_name": "lesly" if assigned else None,
            "storage": "ceph-fra" if assigned else None,
            "region": "eu-central",
            **(_engine(task, assigned) if task.processes else {}),
            "result": self._result(task, status),
            **self._extras(task, include),
            "links": {"self": f"{self._api_url}/tasks/{task.id}"},
        }

    def _message(self, task: NativeTask) -> str | None:
        return "Waiting for file upload" if task.operation == "import/upload" else None  # wire VCR

    def _result(self, task: NativeTask, status: str) -> dict[str, Any] | None:
        if status == "waiting" and task.operation == "import/upload":
            return {"form": self._storage.form(task)}
        if status != "finished":
            return None
        files = self._store.files(task)
        entries: list[dict[str, Any]] = [{"filename": file.name, "size": len(file.content)} for file in files]
        if task.operation == "export/url":
            for entry, file in zip(entries, files, strict=True):
                entry["url"] = self._storage.url(task, file)
        result: dict[str, Any] = {"files": entries}
        if task.operation == "metadata":  # an object (sdk JAVA N8N); its keys are assumed
            result["metadata"] = {file.name: {"FileSize": len(file.content)} for file in files}
        return result

    def _extras(self, task: NativeTask, include: Collection[str]) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if "retries" in include:  # ids: sdk NODE
            extras["retries"] = [other.id for other in self._store.tasks.values() if other.retry_of == task.id]
        if "depends_on_tasks" in include:  # an object (doc TASKS); ids replace missing names (assumed)
            inputs = [self._store.tasks[task_id] for task_id in task.depends_on]
            extras["depends_on_tasks"] = {other.name or other.id: other.id for other in inputs}
        if "payload" in include:
            extras["payload"] = task.payload
        if "job" in include:
            job = self._store.jobs.get(task.job_id or "")
            extras["job"] = None if job is None else self.job(job, with_tasks=False)
        return extras


def _times(timeline: Timeline, now: float) -> dict[str, str | None]:
    return {
        "started_at": time_text(timeline.started) if has_passed(timeline.started, now) else None,
        "ended_at": time_text(timeline.ended) if has_passed(timeline.ended, now) else None,
    }


def _engine(task: NativeTask, assigned: bool) -> dict[str, str | None]:
    """Null while waiting and when the task failed early (wire)."""
    name = str(task.payload.get("engine", ENGINE[0]))
    version = str(task.payload.get("engine_version", ENGINE[1]))
    return {"engine": name if assigned else None, "engine_version": version if assigned else None}
