"""What the emulated CloudConvert sends: tasks, jobs, pages, the formats of its two hosts, and webhooks.

Shapes are those of the TASKS, JOBS and WEBHOOKS pages, of recordings (VCR 2020, HOOK23 2023) and of fixtures of
official clients. The delays before retries of webhooks are not published.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from math import ceil
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from taskbridge.emulator import Host, VendorClock
from taskbridge.emulator.helpers import random_text
from taskbridge.emulator.webhooks import OutgoingWebhook, sign_hex

from .emulator_storage import Storage
from .emulator_tasks import NOT_ALLOWED, NativeJob, NativeTask, TaskStore, Timeline, has_passed
from .emulator_validation import WEBHOOK_EVENTS, not_found, read_webhook, too_many_requests

USER_ID: Final = 51
ENGINE: Final = ("office", "2.1")  # doc TASKS, example
SECRET_LENGTH: Final = 32  # characters, as in the signed body of cloudconvert-dotnet's tests
RETRY_DELAYS: Final = (60.0, 300.0, 900.0)  # vendor seconds; "3 more tries" is doc HOOK, the delays are assumed
ENDS: Final = frozenset({"job.finished", "job.failed"})  # sent to the `webhook_url` of a job: doc JOBS


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A response before a host formats it."""

    body: object = None  # becomes JSON; None for no body
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def format_async(response: ApiResponse, rate: RateLimit | None) -> Response:
    """Format a response of the async host: PHP's JSON with escaped slashes, and rate limit headers (wire VCR)."""
    headers = {"Cache-Control": "no-cache, private", "Server": "nginx", **response.headers}
    if rate is not None:
        headers["X-Ratelimit-Limit"] = str(rate.limit)
        headers["X-Ratelimit-Remaining"] = str(rate.remaining)
    if response.body is None:
        return Response(status_code=response.status, headers=headers)
    headers |= {"Vary": "Accept-Encoding", "Content-Type": "application/json"}
    body = json.dumps(response.body, separators=(",", ":")).replace("/", "\\/")
    return Response(body, response.status, headers)


def format_sync(response: ApiResponse) -> Response:
    """Format a response of the sync host: plain slashes, an entity tag, no rate limit headers (wire VCR)."""
    headers = {"Access-Control-Allow-Credentials": "true", "Vary": "Accept-Encoding, Origin", **response.headers}
    if response.body is None:
        return Response(status_code=response.status, headers=headers)
    body = json.dumps(response.body, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    headers |= {"Content-Type": "application/json; charset=utf-8", "ETag": f'W/"{len(body):x}-{digest}"'}
    return Response(body, response.status, headers)


def bad_gateway(status: int) -> Response:
    """The page of a gateway; HTML as in sdk PHP, RUBY tests."""
    title = f"{status} {HTTPStatus(status).phrase}"
    return HTMLResponse(f"<html><body><h1>{title}</h1></body></html>", status)


class RateLimit:
    """The requests of each vendor minute (wire VCR; that all of them count is assumed, W6W names those that create).

    Attributes:
        limit: How many are accepted.
    """

    def __init__(self, clock: VendorClock) -> None:
        self.limit = 500  # wire VCR
        self._clock = clock
        self._minute, self._count = 0, 0

    @property
    def remaining(self) -> int:
        """How many more are accepted in this minute."""
        return max(0, self.limit - self._count)

    def take(self) -> None:
        """Count a request, or raise the `VendorError` of one too many."""
        now = self._clock.time()
        if int(now // 60) != self._minute:
            self._minute, self._count = int(now // 60), 0
        if not self.remaining:
            left = 60 - now % 60  # vendor seconds; the caller counts in its own
            raise too_many_requests(ceil(left / self._clock.speed if self._clock.speed else left))
        self._count += 1


def time_text(moment: float) -> str:
    """Whole seconds with ``+00:00``, never ``Z`` (doc, wire)."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def page(items: Sequence[Any], query: Mapping[str, str], path: str) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return one page of a list, and its ``links`` and ``meta`` (doc TASKS).

    There is no total, and ``last`` is always null. The links contain ``page``, as in the documented example, and the
    rest of the query (assumed). The query may have ``per_page`` (100 by default) and ``page`` (from 1); ``path`` is the
    URL of the list.
    """
    size, number = _positive(query.get("per_page"), 100), _positive(query.get("page"), 1)
    begin = (number - 1) * size
    rows = items[begin : begin + size]
    rest = {name: value for name, value in query.items() if name != "page"}

    def link(page: int) -> str:
        return f"{path}?{urlencode({**rest, 'page': page})}"

    links = {
        "first": link(1),
        "last": None,
        "prev": link(number - 1) if number > 1 else None,
        "next": link(number + 1) if begin + size < len(items) else None,
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
        message = "Waiting for file upload" if task.operation == "import/upload" else None  # wire VCR
        ended = status in {"finished", "error"}
        assigned = has_passed(timeline.started, now) and timeline.code != "INPUT_TASK_FAILED"
        return {
            "id": task.id,
            "job_id": task.job_id,
            **({} if task.name is None else {"name": task.name}),
            "operation": task.operation,
            "status": status,
            "credits": self._store.credits(task),
            "message": timeline.message if ended else message,
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

    def _result(self, task: NativeTask, status: str) -> dict[str, Any] | None:
        if status == "waiting" and task.operation == "import/upload":
            return {"form": self._storage.form(task)}
        files = self._store.files(task) if status in {"finished", "error"} else []
        if self._store.timeline(task).code == NOT_ALLOWED and status == "error":  # wire HOOK23
            return {"files": [{"filename": file.name, "md5": file.md5} for file in files]}
        if status != "finished":
            return None
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


class JobWebhooks:
    """The webhooks of an account and of single jobs.

    Attributes:
        job_secret: Signs deliveries to a job's own `webhook_url`; that all jobs share one is assumed.
    """

    def __init__(self, host: Host, store: TaskStore, views: Views, api_url: str) -> None:
        self._host = host
        self._store = store
        self._views = views
        self._api_url = api_url
        self._hooks: dict[str, dict[str, Any]] = {}
        self._running: dict[str, NativeJob] = {}
        self.job_secret = random_text(host.random, SECRET_LENGTH)

    # Requests.

    def create(self, _request: Request, body: Mapping[str, Any]) -> ApiResponse:
        """``POST /v2/webhooks``."""
        return ApiResponse({"data": self._create(*read_webhook(body))}, 201)  # the status is assumed

    def add(self, url: str, events: Iterable[str] | None = None) -> str:
        """Register a webhook for these events, or for all, as the dashboard does; return its signing secret."""
        wanted = [*(WEBHOOK_EVENTS if events is None else events)]
        if unknown := set(wanted) - {*WEBHOOK_EVENTS}:
            raise ValueError(f"cloudconvert has no event {', '.join(sorted(unknown))}")
        secret: str = self._create(url, wanted)["signing_secret"]
        return secret

    def _create(self, url: str, events: list[str]) -> dict[str, Any]:
        webhook_id, now = self._store.new_id(), time_text(self._store.now)
        self._hooks[webhook_id] = {
            "id": webhook_id,
            "url": url,
            "disabled": False,
            "failing": False,
            "events": events,
            "signing_secret": random_text(self._host.random, SECRET_LENGTH),
            "created_at": now,
            "updated_at": now,
            "links": {"self": f"{self._api_url}/webhooks/{webhook_id}"},
        }
        self._host.webhooks.enable()
        return self._hooks[webhook_id]

    def list(self, request: Request, _body: Mapping[str, Any]) -> ApiResponse:
        """``GET /v2/users/me/webhooks``."""
        url = request.query_params.get("filter[url]")
        hooks = [hook for hook in reversed(self._hooks.values()) if url in {None, hook["url"]}]
        rows, envelope = page(hooks, request.query_params, f"{self._api_url}/users/me/webhooks")
        return ApiResponse({"data": [*rows], **envelope})

    def delete(self, request: Request, _body: Mapping[str, Any]) -> ApiResponse:
        """``DELETE /v2/webhooks/{id}``."""
        if self._hooks.pop(request.path_params["id"], None) is None:
            raise not_found()
        return ApiResponse(status=204)

    # Events.

    def job_created(self, job: NativeJob) -> None:
        """Send the event of a new job."""
        self._running[job.id] = job
        if job.webhook_url is not None:
            self._host.webhooks.enable()
        self._emit("job.created", job)

    def tick(self) -> None:
        """Send the events of jobs that ended since the last call."""
        for job in [*self._running.values()]:
            timeline = self._store.job_timeline(job)
            if job.deleted:
                del self._running[job.id]
            elif has_passed(timeline.ended, self._store.now):
                del self._running[job.id]
                self._emit("job.failed" if timeline.failed else "job.finished", job)

    def _emit(self, event: str, job: NativeJob) -> None:
        hooks = [hook for hook in self._hooks.values() if event in hook["events"] and not hook["disabled"]]
        if not hooks and (job.webhook_url is None or event not in ENDS):
            return
        # Recorded bodies have escaped slashes, and the signature covers them (wire NET HOOK23).
        content = {"event": event, "job": self._views.job(job)}
        body = json.dumps(content, separators=(",", ":")).replace("/", "\\/").encode()
        for hook in hooks:
            self._post(event, hook["url"], body, hook["signing_secret"], hook)
        if job.webhook_url is not None and event in ENDS:
            self._post(event, job.webhook_url, body, self.job_secret, {})

    def _post(self, event: str, url: str, body: bytes, secret: str, hook: dict[str, Any]) -> None:
        def on_response(status: int | None) -> None:
            hook["failing"] = status is None or status >= 300  # when exactly is assumed
            hook["disabled"] = hook.get("disabled", False) or status == 410  # doc HOOK

        self._host.webhooks.send(
            OutgoingWebhook(
                "cloudconvert",
                event,
                url,
                body,
                headers=lambda _: {"CloudConvert-Signature": sign_hex(secret, body)},
                retry_delays=RETRY_DELAYS,
                retry_if=lambda status: status is None or status >= 500,
                on_response=on_response,
            )
        )
