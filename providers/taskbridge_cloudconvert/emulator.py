"""CloudConvert API v2, emulated: three hosts as three path prefixes.

``/cloudconvert`` answers at once, ``/cloudconvert-sync`` has the same paths and holds the line until the task or job
has ended, ``/cloudconvert-storage`` takes uploads and gives out files. Written from
https://cloudconvert.com/docs/api-reference, recordings and official clients; an answer that none of them shows is
marked as assumed. Times in seconds of vendor time, except for `CloudConvertEmulator.hold_seconds`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from taskbridge.emulator import Host, VendorEmulator
from taskbridge.emulator.helpers import from_json, random_text

from .emulator_checks import REQUIRED, Refusal, invalid, not_found, read_job, read_task
from .emulator_samples import make_samples
from .emulator_storage import Storage
from .emulator_tasks import Book, NativeJob, NativeTask, reached
from .emulator_webhooks import Hooks
from .emulator_wire import USER_ID, Answer, Views, answer_async, answer_sync, page

if TYPE_CHECKING:
    from taskbridge.emulator.helpers import JsonObject

__all__ = ["CloudConvertEmulator"]

Handler: TypeAlias = Callable[[Request, dict[str, Any]], Answer]
SyncHandler: TypeAlias = Callable[[Request, dict[str, Any]], Awaitable[Answer]]

ANY_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
CROWD: Final = 100
"""A job of so many tasks is answered with 500, although it runs (node issue 60)."""
HOLD_STEP: Final = 0.005  # seconds of real time between two looks of the sync host


class CloudConvertEmulator(VendorEmulator):
    """The emulated CloudConvert.

    Args:
        host: What the shell lends.

    Attributes:
        webhooks: Who wants to hear of jobs.
    """

    name: ClassVar[str] = "cloudconvert"

    hold_seconds: float = 30.0
    """Real seconds for which the sync host holds a request; then it answers 504 with HTML (the real cap is unknown)."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._api_url = f"{host.base_url}/cloudconvert/v2"
        self._key = f"emulated-{random_text(host.random, 32)}"
        self.book = Book(host)
        storage = Storage(self.book, f"{host.base_url}/cloudconvert-storage", host.random.randbytes(32))
        self._storage = storage
        self._views = Views(self.book, storage, self._api_url)
        self.webhooks = Hooks(host, self.book, self._views, self._api_url)
        self._minute = (0, 0)
        self._samples = make_samples(self.book)

    def settings(self) -> Mapping[str, str]:
        """The key and the addresses of both API hosts."""
        return {
            "api_key": self._key,
            "base_url": self._api_url,
            "sync_url": f"{self.host.base_url}/cloudconvert-sync/v2",
        }

    def samples(self) -> Mapping[str, str]:
        """Ids of tasks, and of jobs as ``job/<id>``."""
        return dict(self._samples)

    def subscribe(self, url: str) -> str:
        """The account's webhook for all events of jobs; its signing secret."""
        return self.webhooks.add(url)

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """The async API, the sync API and the storage."""
        get, post, delete = ["GET"], ["POST"], ["DELETE"]
        here, held = self._async_route, self._sync_route
        return {
            "cloudconvert": [
                here("/v2/jobs", post, self._create_job),
                here("/v2/jobs", get, self._list_jobs),
                here("/v2/jobs/{id}", get, self._show_job),
                here("/v2/jobs/{id}", delete, self._delete_job),
                here("/v2/tasks", get, self._list_tasks),
                here("/v2/tasks/{id}", get, self._show_task),
                here("/v2/tasks/{id}", delete, self._delete_task),
                here("/v2/tasks/{id}/cancel", post, self._cancel_task),
                here("/v2/tasks/{id}/retry", post, self._retry_task),
                here("/v2/users/me", get, self._show_user),
                here("/v2/users/me/webhooks", get, self.webhooks.list),
                here("/v2/webhooks", post, self.webhooks.create),
                here("/v2/webhooks/{id}", delete, self.webhooks.delete),
                here("/v2/operations", get, self._list_operations, public=True),
                here("/v2/{operation:path}", post, self._create_task),
                here("/{path:path}", None, self._nowhere, public=True),
            ],
            "cloudconvert-sync": [
                held("/v2/jobs", post, self._create_and_wait),
                held("/v2/jobs/{id}", get, self._wait_for_job),
                held("/v2/tasks/{id}", get, self._wait_for_task),
                held("/{path:path}", None, self._nowhere_sync),
            ],
            "cloudconvert-storage": self._storage.routes(),
        }

    def tick(self) -> None:
        """Tell of jobs that have ended."""
        self.webhooks.tick()

    # Hosts.

    def _async_route(self, path: str, methods: list[str] | None, handler: Handler, *, public: bool = False) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                if not public:
                    self._check_key(request)
                answer = handler(request, await _body(request))
            except Refusal as refusal:
                answer = Answer(refusal.body, refusal.status, counted=refusal.status != 401)
            return answer_async(answer, self._count())

        return Route(path, endpoint, methods=methods)

    def _sync_route(self, path: str, methods: list[str] | None, handler: SyncHandler) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                self._check_key(request)
                return answer_sync(await handler(request, await _body(request)))
            except Refusal as refusal:
                return answer_sync(Answer(refusal.body, refusal.status))
            except TimeoutError:  # expected of a gateway; HTML as in sdk PHP, RUBY tests
                return HTMLResponse("<html><body><h1>504 Gateway Time-out</h1></body></html>", 504)

        return Route(path, endpoint, methods=methods)

    def _check_key(self, request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or key.strip() != self._key:
            raise Refusal(401, "UNAUTHENTICATED", "Unauthenticated.")  # sdk JAVA, W6W probe

    def _count(self) -> int:
        """Requests in this vendor minute."""
        minute, count = int(self.book.now // 60), self._minute[1]
        self._minute = (minute, count + 1 if minute == self._minute[0] else 1)
        return self._minute[1]

    async def _hold(self, request: Request, ended: Callable[[], bool]) -> None:
        """Wait in real time until vendor time has come; `TimeoutError` at the cap or when the caller has left."""
        held = 0.0
        while not ended():
            if held >= self.hold_seconds or await request.is_disconnected():
                raise TimeoutError
            held += await self.host.clock.hold(HOLD_STEP)

    def _nowhere(self, _request: Request, _body: JsonObject) -> Answer:
        raise not_found()

    async def _nowhere_sync(self, _request: Request, _body: JsonObject) -> Answer:
        raise not_found()

    # Jobs.

    def _create_job(self, _request: Request, body: JsonObject) -> Answer:
        job = self._new_job(body)
        if len(job.tasks) >= CROWD:
            raise _server_error()
        return Answer({"data": self._views.job(job)}, 201)

    def _new_job(self, body: JsonObject) -> NativeJob:
        drafts = read_job(body, self._knows)
        job = NativeJob(self.book.new_id(), self.book.now, body.get("tag"), body.get("webhook_url"))
        self.book.create(drafts, job)
        self.webhooks.began(job)
        return job

    def _show_job(self, request: Request, _body: JsonObject) -> Answer:
        return self._job_answer(self._job(request), redirect=_wants_redirect(request.query_params))

    def _delete_job(self, request: Request, _body: JsonObject) -> Answer:
        job = self._job(request)
        job.deleted = True
        self.book.delete(*job.tasks)
        return Answer(status=204)

    def _list_jobs(self, request: Request, _body: JsonObject) -> Answer:
        query = request.query_params
        now, status, tag = self.book.now, query.get("filter[status]"), query.get("filter[tag]")
        jobs = [
            job
            for job in self.book.newest_jobs()
            if tag in {None, job.tag} and status in {None, self.book.job_life(job).status(now)}
        ]
        here, around = page(jobs, query, f"{self._api_url}/jobs")
        with_tasks = "tasks" in _included(request)
        return Answer({"data": [self._views.job(job, with_tasks=with_tasks) for job in here], **around})

    async def _create_and_wait(self, request: Request, body: JsonObject) -> Answer:
        redirect = _wants_redirect(body)
        tasks = body.get("tasks")
        if redirect and isinstance(tasks, dict) and not _exports(cast("JsonObject", tasks)):
            raise invalid({"redirect": ["The redirect needs an export/url task."]})  # doc JOBS; the words are assumed
        job = self._new_job(body)
        await self._hold(request, lambda: self._ended(job))
        return self._job_answer(job, redirect=redirect, status=201)  # 200 or 201 is not stated: assumed

    async def _wait_for_job(self, request: Request, _body: JsonObject) -> Answer:
        await self._hold(request, lambda: self._ended(self._job(request)))
        return self._job_answer(self._job(request), redirect=_wants_redirect(request.query_params))

    def _ended(self, job: NativeJob) -> bool:
        return reached(self.book.job_life(job).ended, self.book.now)

    def _job_answer(self, job: NativeJob, *, redirect: bool, status: int = 200) -> Answer:
        if redirect:
            for task in job.tasks:
                files = self.book.files(task) if self._is_ready_export(task) else []
                if files:
                    return Answer(status=302, headers={"Location": self._storage.url(task, files[0])})
        return Answer({"data": self._views.job(job)}, status)

    def _is_ready_export(self, task: NativeTask) -> bool:
        finished = self.book.life(task).status(self.book.now) == "finished"
        return finished and task.operation == "export/url" and not task.deleted

    def _job(self, request: Request) -> NativeJob:
        job = self.book.job(_checked_id(request))
        if job is None:
            raise not_found()
        return job

    # Tasks.

    def _create_task(self, request: Request, body: JsonObject) -> Answer:
        draft = read_task(request.path_params["operation"], body, self._knows)
        return Answer({"data": self._views.task(self.book.create([draft])[0])}, 201)

    def _show_task(self, request: Request, _body: JsonObject) -> Answer:
        return Answer({"data": self._views.task(self._task(request), _included(request))})

    def _delete_task(self, request: Request, _body: JsonObject) -> Answer:
        self.book.delete(self._task(request))
        return Answer(status=204)

    def _cancel_task(self, request: Request, _body: JsonObject) -> Answer:
        task = self._task(request)
        if reached(self.book.life(task).ended, self.book.now):
            raise invalid({"status": ["Cannot change status: task already completed."]})  # sdk error400.json
        self.book.cancel(task)
        return Answer({"data": self._views.task(task)})

    def _retry_task(self, request: Request, _body: JsonObject) -> Answer:
        return Answer({"data": self._views.task(self.book.retry(self._task(request)))}, 201)

    def _list_tasks(self, request: Request, _body: JsonObject) -> Answer:
        query = request.query_params
        status, job_id = query.get("filter[status]"), query.get("filter[job_id]")
        operation, now = query.get("filter[operation]"), self.book.now
        tasks = [
            task
            for task in self.book.newest_tasks()
            if job_id in {None, task.job_id}
            and operation in {None, task.operation}
            and status in {None, self.book.life(task).status(now)}
        ]
        here, around = page(tasks, query, f"{self._api_url}/tasks")
        return Answer({"data": [self._views.task(task, _included(request)) for task in here], **around})

    async def _wait_for_task(self, request: Request, _body: JsonObject) -> Answer:
        await self._hold(request, lambda: reached(self.book.life(self._task(request)).ended, self.book.now))
        return Answer({"data": self._views.task(self._task(request), _included(request))})

    def _task(self, request: Request) -> NativeTask:
        task = self.book.task(_checked_id(request))
        if task is None:
            raise not_found()
        return task

    def _knows(self, task_id: str) -> bool:
        return self.book.task(task_id) is not None

    # Account.

    def _show_user(self, _request: Request, _body: JsonObject) -> Answer:
        user = {
            "id": USER_ID,
            "username": "emulator",
            "email": "emulator@example.com",
            "created_at": "2018-09-19T14:42:58+00:00",
            "credits": 1000,
            "paying": True,
            "task_priority": None,
            "tasks_per_minute": None,
            "links": {"self": f"{self._api_url}/users/{USER_ID}"},
        }
        return Answer({"data": user}, counted=False)  # no rate headers here (wire VCR)

    def _list_operations(self, _request: Request, _body: JsonObject) -> Answer:
        return Answer({"data": [_operation(name) for name in REQUIRED]}, counted=False)  # none (2026 probe)


# Requests.


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent; anything else counts as no fields at all, as PHP has it."""
    return from_json(await request.body()) or {}


def _checked_id(request: Request) -> str:
    task_id: str = request.path_params["id"]
    if not ANY_ID.fullmatch(task_id):
        raise _server_error()  # wire XSOAR
    return task_id


def _server_error() -> Refusal:
    return Refusal(500, "INTERNAL_ERROR", "Server Error")


def _included(request: Request) -> set[str]:
    return set(request.query_params.get("include", "").split(","))


def _wants_redirect(options: Mapping[str, Any]) -> bool:
    return str(options.get("redirect", "")).lower() in {"true", "1"}


def _exports(tasks: Mapping[str, Any]) -> bool:
    listed = (cast("JsonObject", task) for task in tasks.values() if isinstance(task, dict))
    return any(task.get("operation") == "export/url" for task in listed)


def _operation(name: str) -> dict[str, Any]:
    """One entry of the list (sdk JAVA); which options and versions there are is assumed."""
    options = [{"name": field, "type": "string", "default": None, "possible_values": None} for field in REQUIRED[name]]
    version = {"version": "2.1", "default": True, "latest": True, "deprecated": False, "experimental": False}
    return {"operation": name, "options": options, "engine_versions": [version] if name == "convert" else []}
