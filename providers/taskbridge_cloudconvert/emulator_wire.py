"""How the emulated CloudConvert writes: tasks, jobs, pages, and the two dialects of its hosts.

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

from .emulator_tasks import NEVER, reached

if TYPE_CHECKING:
    from collections.abc import Collection

    from .emulator_storage import Storage
    from .emulator_tasks import Book, Life, NativeJob, NativeTask

__all__ = ["USER_ID", "Answer", "Views", "answer_async", "answer_sync", "page", "time_text"]

USER_ID: Final = 51
RATE_LIMIT: Final = 500  # X-Ratelimit-Limit of the async host (wire VCR)
ENGINE: Final = ("office", "2.1")  # doc TASKS, example


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, before a host gives it its looks.

    Attributes:
        body: What becomes JSON; None for no body.
        status: HTTP status.
        headers: Headers of this answer alone.
        counted: Whether the rate headers are on it.
    """

    body: object = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    counted: bool = True


def answer_async(answer: Answer, recent: int) -> Response:
    """The async host's dialect: PHP's JSON with escaped slashes, and rate headers (wire VCR).

    Args:
        answer: What is answered.
        recent: Requests in the current minute, this one included.
    """
    headers = {"Cache-Control": "no-cache, private", "Server": "nginx", **answer.headers}
    if answer.counted:
        headers["X-Ratelimit-Limit"] = str(RATE_LIMIT)
        headers["X-Ratelimit-Remaining"] = str(max(0, RATE_LIMIT - recent))
    if answer.body is None:
        return Response(status_code=answer.status, headers=headers)
    headers |= {"Vary": "Accept-Encoding", "Content-Type": "application/json"}
    body = json.dumps(answer.body, separators=(",", ":")).replace("/", "\\/")
    return Response(body, answer.status, headers)


def answer_sync(answer: Answer) -> Response:
    """The sync host's dialect: plain slashes, an entity tag, no rate headers (wire VCR)."""
    headers = {
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Accept-Encoding, Origin",
        **answer.headers,
    }
    if answer.body is None:
        return Response(status_code=answer.status, headers=headers)
    body = json.dumps(answer.body, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    headers |= {
        "Content-Type": "application/json; charset=utf-8",
        "ETag": f'W/"{len(body):x}-{digest}"',
    }
    return Response(body, answer.status, headers)


def time_text(moment: float) -> str:
    """Whole seconds with ``+00:00``, never ``Z`` (doc, wire)."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def page(items: Sequence[Any], query: Mapping[str, str], path: str) -> tuple[Sequence[Any], dict[str, Any]]:
    """One page of a list, and the ``links`` and ``meta`` around it (doc TASKS).

    No total, ``last`` always null. The links carry ``page`` alone, as in the documented example.

    Args:
        items: All that match.
        query: ``per_page`` (100) and ``page`` (from 1).
        path: URL of the list.
    """
    size, number = _positive(query.get("per_page"), 100), _positive(query.get("page"), 1)
    begin = (number - 1) * size
    here = items[begin : begin + size]
    links = {
        "first": f"{path}?page=1",
        "last": None,
        "prev": f"{path}?page={number - 1}" if number > 1 else None,
        "next": f"{path}?page={number + 1}" if begin + size < len(items) else None,
    }
    meta = {
        "current_page": number,
        "from": begin + 1 if here else None,
        "path": path,
        "per_page": size,
        "to": begin + len(here) if here else None,
    }
    return here, {"links": links, "meta": meta}


def _positive(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and int(text) > 0 else default


class Views:
    """Tasks and jobs as the vendor shows them.

    Args:
        book: What there is.
        storage: Where upload forms and export URLs come from.
        api_url: The async API's address, for ``links.self``.
    """

    def __init__(self, book: Book, storage: Storage, api_url: str) -> None:
        self._book = book
        self._storage = storage
        self._api_url = api_url

    def job(self, job: NativeJob, *, with_tasks: bool = True) -> dict[str, Any]:
        """A job; its tasks stand in another order than they were submitted in (wire 2022, 2023: export first)."""
        life, now = self._book.job_life(job), self._book.now
        shown: dict[str, Any] = {
            "id": job.id,
            "tag": job.tag,
            "status": life.status(now),
            "created_at": time_text(job.created),
            **_times(life, now),
        }
        if with_tasks:
            shown["tasks"] = [self.task(task) for task in reversed(job.tasks) if not task.deleted]
        return shown | {"links": {"self": f"{self._api_url}/jobs/{job.id}"}}

    def task(self, task: NativeTask, include: Collection[str] = ()) -> dict[str, Any]:
        """A task.

        Args:
            task: Which one.
            include: Any of ``retries``, ``depends_on_tasks``, ``payload``, ``job``.
        """
        life, now = self._book.life(task), self._book.now
        status = life.status(now)
        ended = status in {"finished", "error"}
        worker = reached(life.started, now) and life.code != "INPUT_TASK_FAILED"
        return {
            "id": task.id,
            "job_id": task.job_id,
            **({} if task.name is None else {"name": task.name}),
            "operation": task.operation,
            "status": status,
            "credits": int(task.works and status == "finished") if ended else None,
            "message": life.message if ended else self._phase(task),
            "code": life.code if ended else None,
            "percent": 100,  # in every recorded body, waiting ones too
            "created_at": time_text(task.created),
            **_times(life, now),
            "depends_on_task_ids": list(task.depends_on),
            "retry_of_task_id": task.retry_of,
            "copy_of_task_id": task.retry_of,
            "user_id": USER_ID,
            "priority": 50,
            "host_name": "lesly" if worker else None,
            "storage": "ceph-fra" if worker else None,
            "region": "eu-central",
            **(_engine(task, worker) if task.works else {}),
            "result": self._result(task, status),
            **self._extras(task, include),
            "links": {"self": f"{self._api_url}/tasks/{task.id}"},
        }

    def _phase(self, task: NativeTask) -> str | None:
        return "Waiting for file upload" if task.operation == "import/upload" else None  # wire VCR

    def _result(self, task: NativeTask, status: str) -> dict[str, Any] | None:
        if status == "waiting" and task.operation == "import/upload":
            return {"form": self._storage.form(task)}
        if status != "finished":
            return None
        files = self._book.files(task)
        shown: list[dict[str, Any]] = [{"filename": file.name, "size": len(file.content)} for file in files]
        if task.operation == "export/url":
            for entry, file in zip(shown, files, strict=True):
                entry["url"] = self._storage.url(task, file)
        result: dict[str, Any] = {"files": shown}
        if task.operation == "metadata":  # an object (sdk JAVA N8N); its keys are assumed
            result["metadata"] = {file.name: {"FileSize": len(file.content)} for file in files}
        return result

    def _extras(self, task: NativeTask, include: Collection[str]) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if "retries" in include:  # ids: sdk NODE
            extras["retries"] = [other.id for other in self._book.tasks.values() if other.retry_of == task.id]
        if "depends_on_tasks" in include:  # an object (doc TASKS); without names, ids stand in for them (assumed)
            before = [self._book.tasks[task_id] for task_id in task.depends_on]
            extras["depends_on_tasks"] = {other.name or other.id: other.id for other in before}
        if "payload" in include:
            extras["payload"] = task.payload
        if "job" in include:
            job = self._book.jobs.get(task.job_id or "")
            extras["job"] = None if job is None else self.job(job, with_tasks=False)
        return extras


def _times(life: Life, now: float) -> dict[str, str | None]:
    return {
        "started_at": time_text(life.started) if life.started < NEVER and reached(life.started, now) else None,
        "ended_at": time_text(life.ended) if reached(life.ended, now) else None,
    }


def _engine(task: NativeTask, worker: bool) -> dict[str, str | None]:
    """Null while waiting and when the task failed early (wire)."""
    name = str(task.payload.get("engine", ENGINE[0]))
    version = str(task.payload.get("engine_version", ENGINE[1]))
    return {"engine": name if worker else None, "engine_version": version if worker else None}
