"""CloudConvert API v2, emulated: three hosts as three path prefixes.

``/cloudconvert`` is the async host; ``/cloudconvert-sync`` has the same paths and responds when the task or job has
ended; ``/cloudconvert-storage`` receives uploads and sends files. Written from
https://cloudconvert.com/docs/api-reference, recordings and official clients; a response that none of them shows is
marked as assumed. Times in seconds of vendor time, except for `CloudConvertEmulator.long_poll_seconds`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from taskbridge.emulator import Host, Plan, VendorEmulator
from taskbridge.emulator.helpers import JsonObject, as_object, from_json, random_text

from .emulator_operations import list_formats, list_operations
from .emulator_responses import (
    USER_ID,
    ApiResponse,
    JobWebhooks,
    RateLimit,
    Views,
    bad_gateway,
    format_async,
    format_sync,
    page,
)
from .emulator_storage import Storage
from .emulator_tasks import NativeJob, NativeTask, StoredFile, TaskStore, Timeline, has_passed
from .emulator_validation import ERRORS, REQUIRED, TaskSpec, VendorError, invalid, not_found, read_job, read_task

Handler: TypeAlias = Callable[[Request, JsonObject], ApiResponse | Awaitable[ApiResponse]]

ANY_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
LARGE_JOB: Final = 100  # a job with this many tasks gets a 500, although it runs (node issue 60)
STORAGE: Final = "/cloudconvert-storage"
SYNC: Final = "/cloudconvert-sync"
GATEWAY: Final = frozenset({502, 503, 504})  # statuses of a gateway: HTML or text (sdk PHP RUBY)
HOUR: Final = 3600.0  # seconds
BOUGHT: Final = 1000  # credits, before any task (assumed)
LONG_WORK: Final = Plan(queued=0, working=7 * 24 * HOUR)
CHECK_INTERVAL: Final = 0.005  # seconds of real time between two checks on the sync host


class CloudConvertEmulator(VendorEmulator):
    """The emulated CloudConvert.

    Attributes:
        store: The tasks and jobs.
        webhooks: The webhooks of the account and of jobs.
        rate: Its rate limit.
    """

    name = "cloudconvert"

    long_poll_seconds: float = 30.0
    """Real seconds after which the sync host responds with 504 and HTML (the real limit is unknown)."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._api_url = f"{host.base_url}/cloudconvert/v2"
        self._key = f"emulated-{random_text(host.random, 32)}"
        self.store = TaskStore(host)
        self._storage = Storage(self.store, f"{host.base_url}{STORAGE}", host.random.randbytes(32))
        self._views = Views(self.store, self._storage, self._api_url)
        self.webhooks = JobWebhooks(host, self.store, self._views, self._api_url)
        self.rate = RateLimit(host.clock)
        self._samples = self._make_samples()

    def settings(self) -> Mapping[str, str]:
        """The key and the addresses of both API hosts."""
        return {
            "api_key": self._key,
            "base_url": self._api_url,
            "sync_url": f"{self.host.base_url}/cloudconvert-sync/v2",
        }

    def samples(self) -> Mapping[str, str]:
        """Ids of tasks, and of jobs as ``job/<id>``."""
        return self._samples

    def register_webhook(self, url: str, events: Iterable[str] | None = None) -> str:
        """Register a webhook for job events and return its signing secret."""
        return self.webhooks.add(url, events)

    def webhook_secrets(self) -> Mapping[str, str]:
        """The secret that signs deliveries to the ``webhook_url`` of a job."""
        return {"webhook_url": self.webhooks.job_secret}

    def use_sandbox(self, *md5: str) -> None:
        """Be the sandbox: imports of files with other MD5 sums than these fail with ``SANDBOX_FILE_NOT_ALLOWED``."""
        self.store.allow_only(frozenset(md5))

    def error_response(self, status: int, path: str) -> Response | None:
        """An error in the format of its host."""
        if path.startswith(STORAGE):
            return self._storage.error_response(status)
        if status in GATEWAY:
            return bad_gateway(status)
        if status not in ERRORS:
            return None
        response = ApiResponse(VendorError.of(status).body, status)
        if path.startswith(SYNC):
            return format_sync(response)
        return format_async(response, self.rate if status != 401 else None)

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """The async API, the sync API and the storage."""
        get, post, delete = ["GET"], ["POST"], ["DELETE"]
        on_async, on_sync = self._route, partial(self._route, sync=True)
        return {
            "cloudconvert": [
                on_async("/v2/jobs", post, self._create_job),
                on_async("/v2/jobs", get, self._list_jobs),
                on_async("/v2/jobs/{id}", get, self._show_job),
                on_async("/v2/jobs/{id}", delete, self._delete_job),
                on_async("/v2/tasks", get, self._list_tasks),
                on_async("/v2/tasks/{id}", get, self._show_task),
                on_async("/v2/tasks/{id}", delete, self._delete_task),
                on_async("/v2/tasks/{id}/cancel", post, self._cancel_task),
                on_async("/v2/tasks/{id}/retry", post, self._retry_task),
                on_async("/v2/users/me", get, self._show_user, limited=False),
                on_async("/v2/users/me/webhooks", get, self.webhooks.list),
                on_async("/v2/webhooks", post, self.webhooks.create),
                on_async("/v2/webhooks/{id}", delete, self.webhooks.delete),
                on_async("/v2/operations", get, list_operations, public=True, limited=False),
                on_async("/v2/convert/formats", get, list_formats, public=True, limited=False),
                *(on_async(f"/v2/{name}", post, partial(self._create_task, name)) for name in REQUIRED),
            ],
            "cloudconvert-sync": [
                on_sync("/v2/jobs", post, self._create_and_wait),
                on_sync("/v2/jobs/{id}", get, self._wait_for_job),
                on_sync("/v2/tasks/{id}", get, self._wait_for_task),
            ],
            "cloudconvert-storage": self._storage.routes(),
        }

    def tick(self) -> None:
        """Send the webhooks of jobs that have ended."""
        self.webhooks.tick()

    # Hosts.

    def _route(
        self,
        path: str,
        methods: list[str],
        handler: Handler,
        *,
        sync: bool = False,
        public: bool = False,
        limited: bool = True,
    ) -> Route:
        async def endpoint(request: Request) -> Response:
            rate: RateLimit | None = None  # no headers without a key, at /users/me and on the sync host (wire VCR)
            try:
                if not public:
                    self._check_key(request)
                if limited and not sync:
                    rate = self.rate
                    rate.take()
                # Anything but a JSON object counts as no fields, as in PHP.
                outcome = handler(request, from_json(await request.body()) or {})
                response = outcome if isinstance(outcome, ApiResponse) else await outcome
            except VendorError as error:
                response = ApiResponse(error.body, error.status, error.headers)
            except TimeoutError:  # expected of a gateway
                return bad_gateway(504)
            return format_sync(response) if sync else format_async(response, rate)

        return Route(path, endpoint, methods=methods)

    def _check_key(self, request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or key.strip() != self._key:
            raise VendorError.of(401)

    async def _wait_for(self, request: Request, timeline: Callable[[], Timeline]) -> None:
        """Wait in real time for an end; `TimeoutError` at the limit, or when the caller has disconnected."""
        waited = 0.0
        while not has_passed(timeline().ended, self.store.now):
            if waited >= self.long_poll_seconds or await request.is_disconnected():
                raise TimeoutError
            waited += await self.host.clock.hold(CHECK_INTERVAL)

    # Jobs.

    def _create_job(self, _request: Request, body: JsonObject) -> ApiResponse:
        job = self._new_job(body)
        if len(job.tasks) >= LARGE_JOB:
            raise VendorError.of(500)
        return ApiResponse({"data": self._views.job(job)}, 201)

    def _new_job(self, body: JsonObject) -> NativeJob:
        specs = read_job(body, self._task_exists)
        job = NativeJob(self.store.new_id(), self.store.now, body.get("tag"), body.get("webhook_url"))
        self.store.create(specs, job)
        self.webhooks.job_created(job)
        return job

    def _show_job(self, request: Request, _body: JsonObject) -> ApiResponse:
        return self._job_response(self._job(request), redirect=_wants_redirect(request.query_params))

    def _delete_job(self, request: Request, _body: JsonObject) -> ApiResponse:
        job = self._job(request)
        job.deleted = True
        self.store.delete(*job.tasks)
        return ApiResponse(status=204)

    def _list_jobs(self, request: Request, _body: JsonObject) -> ApiResponse:
        query = request.query_params
        now, status, tag = self.store.now, query.get("filter[status]"), query.get("filter[tag]")
        jobs = [
            job
            for job in self.store.newest_jobs()
            if tag in {None, job.tag} and status in {None, self.store.job_timeline(job).status(now)}
        ]
        rows, envelope = page(jobs, query, f"{self._api_url}/jobs")
        with_tasks = "tasks" in _included(request)
        return ApiResponse({"data": [self._views.job(job, with_tasks=with_tasks) for job in rows], **envelope})

    async def _create_and_wait(self, request: Request, body: JsonObject) -> ApiResponse:
        redirect, tasks = _wants_redirect(body), as_object(body.get("tasks"))
        operations = None if tasks is None else [(as_object(task) or {}).get("operation") for task in tasks.values()]
        if redirect and operations is not None and "export/url" not in operations:
            raise invalid({"redirect": ["The redirect needs an export/url task."]})  # doc JOBS; the text is assumed
        job = self._new_job(body)
        await self._wait_for(request, lambda: self.store.job_timeline(job))
        return self._job_response(job, redirect=redirect, status=201)  # 200 or 201 is not stated: assumed

    async def _wait_for_job(self, request: Request, _body: JsonObject) -> ApiResponse:
        await self._wait_for(request, lambda: self.store.job_timeline(self._job(request)))
        return self._job_response(self._job(request), redirect=_wants_redirect(request.query_params))

    def _job_response(self, job: NativeJob, *, redirect: bool, status: int = 200) -> ApiResponse:
        for task in job.tasks if redirect else ():
            finished = self.store.timeline(task).status(self.store.now) == "finished"
            if finished and task.operation == "export/url" and not task.deleted and (files := self.store.files(task)):
                return ApiResponse(status=302, headers={"Location": self._redirect(task, files[0])})
        return ApiResponse({"data": self._views.job(job)}, status)

    def _redirect(self, task: NativeTask, file: StoredFile) -> str:
        # At another origin, as at the vendor, so that clients drop the key. Links in results stay at the API's: careful
        # clients refuse links to this machine, except to the host that they were configured with.
        return self._storage.url(task, file).replace(self.host.base_url, self.host.storage_url, 1)

    def _job(self, request: Request) -> NativeJob:
        job = self.store.job(_checked_id(request))
        if job is None:
            raise not_found()
        return job

    # Tasks.

    def _create_task(self, operation: str, _request: Request, body: JsonObject) -> ApiResponse:
        spec = read_task(operation, body, self._task_exists)
        return ApiResponse({"data": self._views.task(self.store.create([spec])[0])}, 201)

    def _show_task(self, request: Request, _body: JsonObject) -> ApiResponse:
        return ApiResponse({"data": self._views.task(self._task(request), _included(request))})

    def _delete_task(self, request: Request, _body: JsonObject) -> ApiResponse:
        self.store.delete(self._task(request))
        return ApiResponse(status=204)

    def _cancel_task(self, request: Request, _body: JsonObject) -> ApiResponse:
        task = self._task(request)
        if has_passed(self.store.timeline(task).ended, self.store.now):
            raise invalid({"status": ["Cannot change status: task already completed."]})  # sdk error400.json
        self.store.cancel(task)
        return ApiResponse({"data": self._views.task(task)})

    def _retry_task(self, request: Request, _body: JsonObject) -> ApiResponse:
        return ApiResponse({"data": self._views.task(self.store.retry(self._task(request)))}, 201)

    def _list_tasks(self, request: Request, _body: JsonObject) -> ApiResponse:
        query = request.query_params
        status, job_id = query.get("filter[status]"), query.get("filter[job_id]")
        operation, now = query.get("filter[operation]"), self.store.now
        tasks = [
            task
            for task in self.store.newest_tasks()
            if job_id in {None, task.job_id}
            and operation in {None, task.operation}
            and status in {None, self.store.timeline(task).status(now)}
        ]
        rows, envelope = page(tasks, query, f"{self._api_url}/tasks")
        return ApiResponse({"data": [self._views.task(task, _included(request)) for task in rows], **envelope})

    async def _wait_for_task(self, request: Request, body: JsonObject) -> ApiResponse:
        await self._wait_for(request, lambda: self.store.timeline(self._task(request)))
        return self._show_task(request, body)

    def _task(self, request: Request) -> NativeTask:
        task = self.store.task(_checked_id(request))
        if task is None:
            raise not_found()
        return task

    def _task_exists(self, task_id: str) -> bool:
        return self.store.task(task_id) is not None

    # Account.

    def _show_user(self, _request: Request, _body: JsonObject) -> ApiResponse:
        user = {
            "id": USER_ID,
            "username": "emulator",
            "email": "emulator@example.com",
            "created_at": "2018-09-19T14:42:58+00:00",
            "credits": BOUGHT - sum(self.store.credits(task) or 0 for task in self.store.tasks.values()),
            "paying": True,
            "task_priority": None,
            "tasks_per_minute": None,
            "links": {"self": f"{self._api_url}/users/{USER_ID}"},
        }
        return ApiResponse({"data": user})

    def _make_samples(self) -> dict[str, str]:
        store = self.store
        finished = self._sample_job("finished-report", Plan(), age=HOUR)
        failed = self._sample_job("broken-report", Plan(outcome="failed"), age=HOUR)
        cancelled = self._sample_job("stopped-report", LONG_WORK, age=HOUR)
        store.cancel(cancelled.tasks[1], at=cancelled.created + 60)
        long = self._sample_job("long-report", LONG_WORK, age=60)
        running = self._sample_job("report", None, age=0)
        (upload,) = store.create([TaskSpec("import/upload", {}, ())])
        source = finished.tasks[0].id
        (metadata,) = store.create([TaskSpec("metadata", {"input": source}, (source,))], plan=Plan(queued=0, working=0))
        return {
            "completed": finished.tasks[2].id,  # the export: the task whose files have URLs
            "failed": failed.tasks[1].id,
            "cancelled": cancelled.tasks[1].id,
            "processing": long.tasks[1].id,
            "job": f"job/{finished.id}",
            "job-failed": f"job/{failed.id}",
            "job-running": f"job/{running.id}",
            "waiting-upload": upload.id,
            "metadata": metadata.id,
        }

    def _sample_job(self, document: str, plan: Plan | None, age: float) -> NativeJob:
        """Import, conversion and export of ``document``, submitted ``age`` seconds ago."""
        body = {
            "tasks": {
                "import": {"operation": "import/url", "url": f"https://example.com/{document}.docx"},
                "convert": {"operation": "convert", "input": "import", "output_format": "pdf"},
                "export": {"operation": "export/url", "input": "convert"},
            }
        }
        job = NativeJob(self.store.new_id(), self.store.now - age, tag=f"sample-{document}")
        self.store.create(read_job(body, lambda _: False), job, plan)
        return job


def _checked_id(request: Request) -> str:
    task_id: str = request.path_params["id"]
    if not ANY_ID.fullmatch(task_id):
        raise VendorError.of(500)  # wire XSOAR
    return task_id


def _included(request: Request) -> set[str]:
    return set(request.query_params.get("include", "").split(","))


def _wants_redirect(options: Mapping[str, Any]) -> bool:
    return str(options.get("redirect", "")).lower() in {"true", "1"}
