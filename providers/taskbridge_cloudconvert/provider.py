"""CloudConvert API v2: https://cloudconvert.com/docs/api-reference/tasks and …/jobs (read 2026-11-22).

Times in seconds, sizes in bytes. A job is a graph of tasks. Job ids and task ids look alike, so a job is addressed as
``job/<id>``. Only `status` decides: `percent` is 100 on waiting tasks too, and waiting tasks have a `message` and a
`result` (the upload form). A job has no error of its own: its cause is the failed task that no other task made fail.

A submitted document becomes a job: tasks that import it, the task that does the work, and a task that exports the
result as links. The job's tag is the submission's reference, by which `recover` finds it; a single task has no tag.
The vendor cancels and retries tasks only: a job is cancelled task by task, and cannot be retried.

Webhooks (https://cloudconvert.com/api/v2/webhooks) have the body ``{"event": …, "job": …}``. The signature covers the
raw bytes, escaped slashes included, but no time, and events have no id: anyone who has seen a delivery can replay it,
so events are confirmed by a status request.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

from pydantic import SecretStr, model_validator

from taskbridge.errors import (
    ApiError,
    InvalidInput,
    InvalidRequest,
    MalformedResponse,
    QuotaExceeded,
    RateLimited,
    ResponseTooLarge,
    TaskNotFound,
    printable,
)
from taskbridge.models import (
    Account,
    OperationInfo,
    OperationOption,
    Reason,
    Task,
    TaskFailure,
    TaskFile,
    TaskResult,
    TaskStatus,
    Usage,
    UsageUnit,
    WebhookEndpoint,
    WebhookEvent,
)
from taskbridge.provider import (
    Accepts,
    Capabilities,
    CodeTable,
    Credential,
    Delivery,
    Document,
    Downloads,
    Flow,
    GeneratedFile,
    IdKind,
    Link,
    Listing,
    ListPolling,
    OptionTable,
    Page,
    Payload,
    Provider,
    ProviderSettings,
    Query,
    Request,
    Source,
    StateTable,
    StatusTable,
    Submission,
    Upload,
    Webhooks,
    generated_files,
    no_requests,
    path_id,
    read_time,
)

# `status` of a task and of a job -> ours.        https://cloudconvert.com/docs/api-reference/tasks
STATES: Final[StateTable] = {
    "waiting": (TaskStatus.PENDING, None),
    "queued": (TaskStatus.PENDING, None),  # in the types of cloudconvert-node, in no recorded body
    "processing": (TaskStatus.PROCESSING, None),
    "finished": (TaskStatus.COMPLETED, None),
    "error": (TaskStatus.FAILED, None),  # REASONS refines it
}

# `operation` -> its own reading of `status`.     https://cloudconvert.com/api/v2/import
STATES_OF: Final[Mapping[str | None, StateTable]] = {
    "import/upload": {**STATES, "waiting": (TaskStatus.PENDING, Reason.AWAITING_UPLOAD)},
}

# `code` of a failed task -> reason. No list of codes is published; all others give no reason.
REASONS: Final[Mapping[str | None, Reason]] = {
    "CANCELLED": Reason.CANCELLED,  # cloudconvert-java, integration test
    "INPUT_TASK_FAILED": Reason.DEPENDENCY_FAILED,  # recorded webhook, 2023; never the root cause
}

# `event` of a webhook -> the `status` of its job.    https://cloudconvert.com/api/v2/webhooks
EVENTS: Final[Mapping[str, str]] = {
    "job.created": "waiting",
    "job.finished": "finished",
    "job.failed": "error",
}

# Shared status -> `filter[status]`.              https://cloudconvert.com/docs/api-reference/tasks
STATUS_FILTERS: Final[Mapping[TaskStatus, str]] = {
    TaskStatus.PENDING: "waiting",  # documented for tasks, not for jobs
    TaskStatus.PROCESSING: "processing",
    TaskStatus.COMPLETED: "finished",
    TaskStatus.FAILED: "error",
}

# Neutral operation -> ours. All others are submitted as native:….    cloudconvert-node, n8n-nodes-cloudconvert
OPERATIONS: Final[Mapping[str, str]] = {
    "extract-text": "convert",
    "convert": "convert",
    "render": "convert",
    "merge": "pdf/merge",
    "split": "pdf/split-pages",
    "extract-pages": "pdf/extract-pages",
}

# Neutral operation and option -> the vendor's key, or for each value its own options. Only pdf/ocr, which makes a PDF,
# has a `language`, and no source names an option for the resolution of images.
OPTIONS: Final[OptionTable] = {
    "convert": {"to": "output_format"},  # https://cloudconvert.com/api/v2/convert
    "extract-text": {"text_format": {"plain": {"output_format": "txt"}}},  # as above
    "render": {
        "to": "output_format",  # as above
        "pages": "pages",  # as above, in its example
    },
    "extract-pages": {"pages": "pages"},  # n8n-nodes-cloudconvert, operations/pdf/execute.ts
}

# Neutral operation -> its default options; the caller's options override them.
DEFAULT_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "extract-text": {"output_format": "txt"},
    "render": {"output_format": "png"},
}

# Environment -> async host, sync host.           https://cloudconvert.com/api/v2
HOSTS: Final[Mapping[str, tuple[str, str]]] = {
    "live": ("https://api.cloudconvert.com/v2", "https://sync.api.cloudconvert.com/v2"),
    "sandbox": ("https://api.sandbox.cloudconvert.com/v2", "https://sync.api.sandbox.cloudconvert.com/v2"),
    "eu-central": ("https://eu-central.api.cloudconvert.com/v2", "https://eu-central.sync.api.cloudconvert.com/v2"),
    "us-east": ("https://us-east.api.cloudconvert.com/v2", "https://us-east.sync.api.cloudconvert.com/v2"),
}

# UUIDs; the documentation has x441E6HMhG too. Shorter ids are refused: the vendor answers them with a 500 (XSOAR).
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{9,127}", re.ASCII)
TASK: Final = IdKind(ID, example="c85f3ca9-164c-4e89-8ae2-c08192a7cb08", ignore_case=True)
JOB: Final = IdKind(ID, "job", "job", example="job/73df1e16-fd8b-47a1-a156-f197babde91a", ignore_case=True)

OPERATION: Final = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)*", re.ASCII)  # such as pdf/ocr
GRAPH: Final = "jobs"  # native:jobs takes the caller's whole graph of tasks
TEXT_TASK: Final = "extract-text"  # name of the task whose export is a text
TEXT_SUFFIXES: Final = (".txt", ".md", ".html")  # of such exports: formats that `convert` can make of documents

# Neutral operation -> what a result can have: the text is in an exported file.
RESULT_PARTS: Final[Mapping[str, frozenset[str]]] = {"extract-text": frozenset({"text"})}
# What a conversion can start from depends on its target, so no media type is stated.   https://cloudconvert.com/api/v2/convert
ACCEPTS: Final[Mapping[str, Accepts]] = {word: Accepts(several=True) for word in ("pdf/merge", "merge", "archive")}
INLINE_LIMIT: Final = 100_000  # bytes of a document inside the job; more is uploaded separately
UPLOADED: Final = frozenset({200, 201, 204})  # 201 in recordings; a field of the form chooses
FILE_FIELDS: Final = frozenset({"filename", "size", "url"})  # of a result's file; all others are properties

# The vendor names no limit and warns that idle connections may be cut: a minute, as most proxies allow.
LONG_POLL: Final = 60.0  # seconds
# How long an export link is valid after the end of its task.    https://cloudconvert.com/api/v2/export
LINK_LIFETIME: Final = timedelta(hours=24)
CLOCK_SKEW: Final = timedelta(minutes=5)  # between the vendor's clock and ours
CANCEL_LIMIT: Final = 28  # unfinished tasks of a job that are cancelled one by one

TASK_FILTERS: Final = frozenset({"job_id", "operation"})  # only tasks have them
FILTERS: Final = TASK_FILTERS | {"kind", "tag", "include"}
PAGE_SIZE: Final = 50  # of 100 by default: a job contains its tasks
FULL_PAGE_SIZE: Final = 100  # tasks, jobs without theirs, or webhooks
WEBHOOK_PAGES: Final = 20  # of the list of webhooks that are read at most
# Kind of id -> the lists that show its tasks. `filter[status]=waiting` is not documented for jobs.
LIST_QUERIES: Final = (
    ("", Query(TaskStatus.PENDING, {"kind": "task"})),
    ("", Query(TaskStatus.PROCESSING, {"kind": "task"})),
    ("job", Query(TaskStatus.PROCESSING, {"kind": "job", "include": ""})),
    ("", Query(TaskStatus.COMPLETED, {"kind": "task"})),
    ("", Query(TaskStatus.FAILED, {"kind": "task"})),
)
# "List all your tasks with their status, payload and result"; jobs are listed without their tasks.
WHOLE_ROWS: Final = MappingProxyType({"": "https://cloudconvert.com/docs/api-reference/tasks"})


class CloudConvertSettings(ProviderSettings):
    """Settings of a CloudConvert connection."""

    variables = MappingProxyType({"api_key": "CLOUDCONVERT_API_KEY"})  # README of cloudconvert-python

    api_key: SecretStr
    """API key from the dashboard. Reading tasks needs the scope ``task.read``, `account` ``user.read``, webhooks
    ``webhook.read`` and ``webhook.write``, everything else ``task.write``."""
    base_url: str | None = None
    """Address of the async API, with its version. Default: the address for `sandbox` and `region`."""
    sync_url: str | None = None
    """Address of the sync API, used for long polls. Default: CloudConvert's; none if `base_url` is set."""
    sandbox: bool = False
    """Use the sandbox, which has its own keys and ids and no regions."""
    region: Literal["eu-central", "us-east"] | None = None
    """Region that processes the files. By default the vendor chooses."""

    @model_validator(mode="after")
    def _one_address(self) -> CloudConvertSettings:
        if self.base_url is not None and (self.sandbox or self.region is not None):
            raise ValueError("base_url contradicts sandbox and region, which choose the address: give one or the other")
        return self

    @property
    def hosts(self) -> tuple[str, str | None]:
        """Addresses of the async API and of the sync API; the second is None if unknown."""
        if self.base_url is not None:
            return self.base_url.rstrip("/"), self.sync_url.rstrip("/") if self.sync_url else None
        api, sync_api = HOSTS["sandbox" if self.sandbox else self.region or "live"]
        return api, self.sync_url.rstrip("/") if self.sync_url else sync_api


class CloudConvert(Provider[CloudConvertSettings]):
    """CloudConvert: tasks (``c85f…``) and jobs (``job/73df…``)."""

    name = "cloudconvert"
    title = "CloudConvert"
    docs = "https://cloudconvert.com/docs/api-reference/tasks"
    Settings = CloudConvertSettings
    codes: ClassVar[CodeTable] = {"CREDITS_EXCEEDED": QuotaExceeded}  # cloudconvert-php, error402.json
    statuses: ClassVar[StatusTable] = {402: RateLimited}  # "too many jobs at once": cloudconvert-php issue 98
    uncertain_statuses = frozenset({500})  # sent for a job of a hundred tasks, which ran: cloudconvert-node issue 60
    capabilities = Capabilities(
        kinds=(TASK, JOB),
        authentication="API key",
        long_poll=True,
        subtasks=True,
        reasons=(Reason.AWAITING_UPLOAD, Reason.CANCELLED, Reason.DEPENDENCY_FAILED),
        webhooks=Webhooks(
            events=tuple(EVENTS),
            scheme="CloudConvert-Signature (HMAC over the body)",
            signed_time=False,
            per_task=True,  # `webhook_url` of a job: job.finished and job.failed only
        ),
        webhook_management=True,
        get_options=frozenset({"include"}),
        operations=OPERATIONS,
        inputs=frozenset({"path", "bytes", "stream", "url", "file"}),
        accepts=ACCEPTS,
        options=OPTIONS,
        cancel=True,
        retry=True,
        delete=True,
        listing=Listing(PAGE_SIZE, FILTERS, frozenset(STATUS_FILTERS) - {TaskStatus.PENDING}),
        list_polling=ListPolling(
            FULL_PAGE_SIZE,
            frozenset({"", "job"}),
            queries=len(LIST_QUERIES),
            numbered=True,
            whole_rows=WHOLE_ROWS,
        ),
        recover="tag",
        external_id=True,
        callback=True,
        result_parts=RESULT_PARTS,
        downloads=Downloads(("files", "data"), links=True, link_ttl=LINK_LIFETIME.total_seconds(), resumes=True),
        result_ttl=LINK_LIFETIME.total_seconds(),
        usage=(UsageUnit.CREDITS,),
        account=True,
        operation_list=True,
    )
    wait_hints = MappingProxyType({Reason.AWAITING_UPLOAD: "it stays so until the document is uploaded"})

    # Requests, in the order in which a task lives.

    @property
    def base_url(self) -> str:
        """Address of the async API without a trailing slash."""
        return self.settings.hosts[0]

    def authorize(self) -> Flow[Credential]:
        """Return the API key, which is valid until it is revoked."""
        return no_requests(Credential.bearer(self.settings.api_key.get_secret_value()))

    def account(self) -> Flow[Account]:
        """``GET /users/me``: recorded in cloudconvert-ruby, spec/integration/vcr (CloudConvert_Resources_Users)."""
        payload = self.payload((yield self.request("GET", "/users/me"))).child("data")
        number = payload.maybe_integer("id")
        return Account(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=None if number is None else str(number),
            name=payload.maybe_text("username"),
            balance=payload.maybe_number("credits"),
            unit=UsageUnit.CREDITS,
            raw=payload.raw,
        )

    def operations(
        self, name: str | None, input_format: str | None, output_format: str | None
    ) -> Flow[tuple[OperationInfo, ...]]:
        """``GET /operations``, or ``GET /convert/formats`` by format: cloudconvert-java, OperationsResource.

        Options are only requested of some operations: those of all conversions would be many megabytes.
        """
        formats = {"filter[input_format]": input_format, "filter[output_format]": output_format}
        filters = {key: value for key, value in formats.items() if value is not None}
        path = "/convert/formats" if filters and name in (None, "convert") else "/operations"
        if name is not None:
            filters["filter[operation]"] = name
        params = {**filters, "include": "options"} if filters else None
        payload = self.payload((yield self.request("GET", path, params=params)))
        return tuple(_operation(each) for each in payload.children("data"))

    def submit(self, submission: Submission) -> Flow[Task]:
        """``POST /jobs``, then upload what the job waits for; ``POST /{operation}`` for a single task."""
        native = submission.native_operation
        if submission.is_native and native != GRAPH and not submission.sources:
            return (yield from self._submit_task(submission))
        if native == GRAPH:
            if submission.sources:
                raise self.unsupported("add a document to your own graph of tasks: name it in options['tasks']")
            graph = dict(submission.options)
        else:
            graph = {"tasks": _job_tasks(self._checked_operation(native), submission)}
        callback = {"webhook_url": submission.callback_url} if submission.callback_url else {}
        body = {"tag": submission.reference, **callback, **graph}
        recovery_token: dict[str, Any] = {"tag": body["tag"]}
        response = yield self.request("POST", "/jobs", json=body, starts_work=True, recovery_token=recovery_token)
        created = self.payload(response).child("data")
        job = self.job(created)
        forms = _upload_forms(created)
        for name, document in _uploads(submission):
            yield from self._upload(document, forms.get(name), {**recovery_token, "task": job.id})
        return job

    def _submit_task(self, submission: Submission) -> Flow[Task]:
        native = self._checked_operation(submission.native_operation)
        if submission.external_id is not None:
            raise self.unsupported("tag a single task: submit a document with it, or use native:jobs")
        if submission.callback_url is not None:
            raise self.unsupported("call back about a single task: submit a document with it, or use native:jobs")
        response = yield self.request("POST", f"/{native}", json=dict(submission.options), starts_work=True)
        return self.task(self.payload(response).child("data"))

    def _checked_operation(self, native: str) -> str:
        if OPERATION.fullmatch(native) is None:
            raise self.unsupported(f"do {printable(native, 60)!r}: its operations look like pdf/ocr")
        return native

    def _upload(self, document: Document, form: Payload | None, recovery_token: Mapping[str, Any]) -> Flow[None]:
        """Send a document to the form of its task: fields verbatim and in order, the file last, no API key."""
        if form is None:
            raise MalformedResponse("a task that waits for its upload has no upload form")
        url = form.text("url")
        if not url.startswith("https://") and self.base_url.startswith("https://"):
            raise MalformedResponse("the upload form is not on https")
        fields = tuple((key, str(value)) for key, value in form.child("parameters").raw.items())
        media_type = document.media_type or "application/octet-stream"
        response = yield Request(
            "POST",
            url,
            body=Upload(fields, "file", document.name, document.content, media_type),
            authorized=False,
            response_type="bytes",
            recovery_token=recovery_token,
            external=True,
        )
        if response.status not in UPLOADED:
            error = self.error(response)
            error.message = f"the upload was refused, and the job waits for it: {error.message}"
            raise error

    def recover(self, recovery_token: Mapping[str, Any]) -> Flow[Task | None]:
        """``GET /jobs?filter[tag]=``: the newest job with that tag that is not older than the submission."""
        tag = recovery_token.get("tag")
        if not isinstance(tag, str):
            raise self.unsupported("recover a single task, which has no tag")
        page = yield from self.list_page(Query(filters={"kind": "job", "tag": tag}), None)
        sent = read_time(recovery_token.get("time"))
        found = [
            job
            for job in page.tasks
            if job.external_id == tag
            and (sent is None or job.created_at is None or sent - job.created_at <= CLOCK_SKEW)
        ]
        return max(found, key=lambda job: str(job.created_at), default=None)

    def finish(self, task: Task, submission: Submission) -> Flow[Task]:
        """Send the uploads that a recovered job still waits for: those of its tasks that show an upload form."""
        payload = self.payload((yield self.request("GET", self._path(*self.split_id(task.id))))).child("data")
        forms = _upload_forms(payload)
        for name, document in _uploads(submission):
            if name in forms:
                yield from self._upload(document, forms[name], {"task": task.id})
        return self.job(payload, task.id)

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /tasks/{id}`` or ``GET /jobs/{id}``."""
        return self._get(task_id)

    def get_with(self, task_id: str, options: Mapping[str, Any]) -> Flow[Task]:
        """``GET /tasks/{id}`` or ``GET /jobs/{id}`` with ``include``."""
        return self._get(task_id, params={name: _comma_separated(value) for name, value in options.items()})

    def long_poll(self, task_id: str) -> Flow[Task] | None:
        """The path of `get` on the sync host, which responds at the end; None if no sync host is known."""
        sync_url = self.settings.hosts[1]
        return None if sync_url is None else self._get(task_id, base=sync_url, long_poll=LONG_POLL)

    def _get(
        self,
        task_id: str,
        *,
        base: str | None = None,
        params: Mapping[str, str] | None = None,
        long_poll: float | None = None,
    ) -> Flow[Task]:
        kind, native = self.split_id(task_id)
        response = yield self.request("GET", self._path(kind, native), base=base, params=params, long_poll=long_poll)
        try:
            payload = self.payload(response).child("data")
        except TaskNotFound as error:
            other = f"a task, use {native}" if kind is JOB else f"a job, use job/{native}"
            error.message = f"{error.message}; if it is the id of {other}"
            raise
        return self.job(payload, task_id) if kind is JOB else self.task(payload, task_id)

    def _path(self, kind: IdKind, native: str) -> str:
        return f"/{'jobs' if kind is JOB else 'tasks'}/{path_id(native)}"

    def list_queries(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """Lists of waiting and of processing tasks, of processing jobs, and of tasks that have ended."""
        del now, age
        return tuple(query for prefix, query in LIST_QUERIES if prefix in prefixes)

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """``GET /jobs`` or ``GET /tasks``; pages are requested by number, links are not followed."""
        filters = dict(query.filters)
        kind = filters.pop("kind", "task" if TASK_FILTERS & filters.keys() else "job")
        if kind not in ("job", "task"):
            raise InvalidInput("kind is job or task")
        number = int(cursor or 1)
        include = filters.pop("include", "tasks" if kind == "job" else None)
        size = query.page_size or (PAGE_SIZE if include else FULL_PAGE_SIZE)
        params: dict[str, Any] = {"per_page": size, "page": number}
        if include:
            params["include"] = _comma_separated(include)
        params |= {f"filter[{name}]": str(value).removeprefix("job/") for name, value in filters.items()}
        if query.status is not None and (kind == "task" or query.status is not TaskStatus.PENDING):
            params["filter[status]"] = STATUS_FILTERS[query.status]
        payload = self.payload((yield self.request("GET", f"/{kind}s", params=params)))
        translate = self.job if kind == "job" else self.task
        tasks = tuple(translate(each) for each in payload.children("data"))
        links = payload.maybe_child("links")
        more = links is not None and links.raw.get("next") is not None
        return Page(tasks, str(number + 1) if more and tasks else None)

    def cancel(self, task_id: str) -> Flow[Task]:
        """``POST /tasks/{id}/cancel``; for a job, once for each unfinished task."""
        kind, native = self.split_id(task_id)
        if kind is JOB:
            return (yield from self._cancel_job(task_id))
        response = yield self.request("POST", f"/tasks/{path_id(native)}/cancel", json={})
        try:
            return self.task(self.payload(response).child("data"), task_id)
        except InvalidRequest:  # 422 or 400 if the task has ended, which its status shows
            task = yield from self.get(task_id)
            if task.is_terminal:
                return task
            raise

    def _cancel_job(self, task_id: str) -> Flow[Task]:
        job = yield from self.get(task_id)
        unfinished = [each for each in job.subtasks if not each.is_terminal]
        if len(unfinished) > CANCEL_LIMIT:
            raise self.unsupported(f"cancel a job with {len(unfinished)} unfinished tasks: cancel them one by one")
        for each in unfinished:
            response = yield self.request("POST", f"/tasks/{path_id(each.id)}/cancel", json={})
            try:
                self.accept(response)
            except (InvalidRequest, TaskNotFound):
                continue  # it has ended in the meantime, perhaps because the task before it was cancelled
        return (yield from self.get(task_id)) if unfinished else job

    def retry(self, task_id: str) -> Flow[Task]:
        """``POST /tasks/{id}/retry``: a new task, outside of any job."""
        kind, native = self.split_id(task_id)
        if kind is JOB:
            raise self.unsupported("retry a job: retry its failed tasks, or submit it again")
        response = yield self.request("POST", f"/tasks/{path_id(native)}/retry", json={}, starts_work=True)
        return self.task(self.payload(response).child("data"))

    def delete(self, task_id: str) -> Flow[None]:
        """``DELETE /tasks/{id}`` or ``DELETE /jobs/{id}``, which deletes all data at once."""
        path = self._path(*self.split_id(task_id))
        response = yield self.request("DELETE", path, idempotent=True, response_type="bytes")
        if response.status == 404 and response.attempts > 1:
            return  # an earlier attempt deleted it
        self.accept(response)

    # Results and downloads.

    def result(self, task: Task) -> Flow[TaskResult]:
        """The exported files; for a job that extracts text, also the text, which is in the exported file."""
        result = yield from super().result(task)
        links = [file.url for file in result.files if file.url and (file.name or "").lower().endswith(TEXT_SUFFIXES)]
        if len(links) != 1 or not any(each.raw.get("name") == TEXT_TASK for each in task.subtasks):
            return result
        try:
            response = yield Request(
                "GET",
                links[0],
                headers={"Accept": "*/*"},
                authorized=False,
                response_type="bytes",
                external=True,
            )
        except ResponseTooLarge:
            return result  # the file can still be downloaded
        if response.status != 200:
            raise ApiError(
                f"the text cannot be fetched: its link answers HTTP {response.status}; links live for 24 hours",
                http_status=response.status,
                retryable=response.status >= 500,
            )
        try:
            return replace(result, text=response.body.decode("utf-8-sig"))
        except UnicodeDecodeError:
            return result

    def result_files(self, task: Task, result: TaskResult) -> tuple[TaskFile | GeneratedFile, ...]:
        """The files that have links, else the data: tasks such as `metadata` list the file they read as well."""
        linked = tuple(file for file in result.files if file.url)
        return linked or generated_files(task, result) or result.files

    def download_request(self, file: TaskFile) -> Request:
        """The file's link; only `export/url` tasks make links."""
        if not file.url:
            name = printable(file.name or "a file", 80)
            raise self.unsupported(f"download {name!r}: only export/url tasks make links")
        return super().download_request(file)

    # Webhooks.

    def webhooks(self) -> Flow[tuple[WebhookEndpoint, ...]]:
        """``GET /users/me/webhooks``, page by page: cloudconvert-java, WebhooksResource."""
        found: list[WebhookEndpoint] = []
        for number in range(1, WEBHOOK_PAGES + 1):
            params = {"per_page": FULL_PAGE_SIZE, "page": number}
            payload = self.payload((yield self.request("GET", "/users/me/webhooks", params=params)))
            found += [_webhook(each) for each in payload.children("data")]
            links = payload.maybe_child("links")
            if links is None or links.raw.get("next") is None:
                break
        return tuple(found)

    def add_webhook(self, url: str, events: tuple[str, ...]) -> Flow[WebhookEndpoint]:
        """``POST /webhooks``."""
        response = yield self.request("POST", "/webhooks", json={"url": url, "events": list(events)})
        return _webhook(self.payload(response).child("data"))

    def remove_webhook(self, webhook_id: str) -> Flow[None]:
        """``DELETE /webhooks/{id}``."""
        path = f"/webhooks/{path_id(webhook_id)}"
        response = yield self.request("DELETE", path, idempotent=True, response_type="bytes")
        if response.status == 404 and response.attempts > 1:
            return  # an earlier attempt removed it
        self.accept(response)

    def parse_webhook(self, delivery: Delivery) -> WebhookEvent:
        """Read an event of a job."""
        payload = delivery.payload(delivery.by_hex_hmac("cloudconvert-signature"))
        event = payload.text("event")
        job = self.job(payload.child("job"), event_status=EVENTS.get(event))
        self.split_id(job.id)
        return WebhookEvent(
            provider=self.name,
            connection=payload.connection,
            type=event,
            duplicate_key=f"{job.ref} {event}",
            needs_confirmation=True,
            ref=job.ref,
            task=job,
            raw=payload.raw,
        )

    # Translation.

    def task(self, payload: Payload, requested_id: str | None = None, parent_id: str | None = None) -> Task:
        """Translate a task from the object inside ``data``, or from the ``tasks`` of the job `parent_id`."""
        native = payload.identifier("id")
        word = payload.text("status")
        operation = payload.maybe_text("operation")
        job_id = payload.maybe_text("job_id")
        message = payload.maybe_message("message")
        state = self.state(STATES_OF.get(operation, STATES), word)
        status, reason, finished_at, result, error = state.status, state.reason, None, None, None
        if status is TaskStatus.COMPLETED:
            finished_at = payload.maybe_time("ended_at")  # the vendor's fixtures have it on waiting tasks too
            result = _result(payload, finished_at)
        elif status is TaskStatus.FAILED:
            finished_at = payload.maybe_time("ended_at")
            error = TaskFailure(code=payload.maybe_text("code"), message=message)
            reason = REASONS.get(error.code)
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=requested_id or native,
            native_id=native,
            status=status,
            reason=reason,
            recognized=state.recognized,
            native_status=word,
            operation=operation,
            message=message,
            created_at=payload.maybe_time("created_at"),
            started_at=payload.maybe_time("started_at"),
            finished_at=finished_at,
            result=result,
            error=error,
            parent_id=f"job/{job_id}" if job_id else parent_id,
            retry_of=payload.maybe_text("retry_of_task_id") or None,
            usage=payload.maybe_usage("credits", UsageUnit.CREDITS),  # null until the end; 0 for imports and exports
            raw=payload.raw,
        )

    def job(self, payload: Payload, requested_id: str | None = None, event_status: str | None = None) -> Task:
        """Translate a job from the object inside ``data``; a webhook's event implies the status if it has none."""
        native = payload.identifier("id")
        shared_id = requested_id or f"job/{native}"
        # The documented webhook example has a job whose status is null.
        word = None if payload.raw.get("status", "") is None else payload.text("status")
        state = self.state(STATES, word or event_status)
        subtasks = tuple(self.task(each, parent_id=shared_id) for each in payload.children("tasks"))
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=shared_id,
            native_id=native,
            status=state.status,
            recognized=state.recognized,
            native_status=word,
            created_at=payload.maybe_time("created_at"),
            started_at=payload.maybe_time("started_at"),
            finished_at=payload.maybe_time("ended_at") if state.status.is_terminal else None,
            result=_exported_files(subtasks) if state.status is TaskStatus.COMPLETED else None,
            error=_root_cause(subtasks) if state.status is TaskStatus.FAILED else None,
            subtasks=subtasks,
            external_id=payload.maybe_text("tag"),
            usage=_sum(subtasks),
            raw=payload.raw,
        )


# Data that is sent.


def _job_tasks(native: str, submission: Submission) -> dict[str, Any]:
    """The tasks of a job: imports, the work, an export."""
    imports = {f"import-{n}": _import_task(source) for n, source in enumerate(submission.sources, 1)}
    work = re.sub(r"[^A-Za-z0-9_-]", "-", submission.operation.removeprefix("native:"))
    input_ = {"input": list(imports) if len(imports) > 1 else next(iter(imports))} if imports else {}
    options = {**DEFAULT_OPTIONS.get(submission.operation, {}), **submission.options}
    return {
        **imports,
        work: {"operation": native, **input_, **options},
        "export-1": {"operation": "export/url", "input": work},
    }


def _import_task(source: Source) -> dict[str, str]:
    if isinstance(source, Link):
        return {"operation": "import/url", "url": source.url, **({"filename": source.name} if source.name else {})}
    if not isinstance(source, Document):
        raise InvalidInput("CloudConvert takes a file of its own by its link; this one is known by an id only")
    if isinstance(source.content, bytes) and source.size <= INLINE_LIMIT:
        content = b64encode(source.content).decode("ascii")
        return {"operation": "import/base64", "file": content, "filename": source.name}
    return {"operation": "import/upload"}


def _uploads(submission: Submission) -> list[tuple[str, Document]]:
    """The documents that are uploaded separately, each with the name of its import task."""
    return [
        (f"import-{n}", source)
        for n, source in enumerate(submission.sources, 1)
        if isinstance(source, Document) and not (isinstance(source.content, bytes) and source.size <= INLINE_LIMIT)
    ]


def _upload_forms(job: Payload) -> dict[str | None, Payload]:
    """The upload forms of a job, by the names of the tasks that wait for them."""
    results = ((each.maybe_text("name"), each.maybe_child("result")) for each in job.children("tasks"))
    forms = ((name, result.maybe_child("form")) for name, result in results if result is not None)
    return {name: form for name, form in forms if form is not None}


def _comma_separated(value: object) -> str:
    return ",".join(str(each) for each in value) if isinstance(value, list | tuple | set | frozenset) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # a caller's


# Data that is received.


def _result(payload: Payload, finished_at: datetime | None) -> TaskResult | None:
    result = payload.maybe_child("result")
    if result is None or not result.raw:
        return None
    try:
        expires_at = None if finished_at is None else finished_at + LINK_LIFETIME
    except OverflowError:
        expires_at = None
    files = tuple([_file(each, expires_at) for each in result.children("files")])
    # Where `command` puts its output is not documented: without files, the whole object is the output.
    output = None if "files" in result.raw else result.raw
    return TaskResult(files=files, data=result.raw.get("metadata", output))


def _file(payload: Payload, expires_at: datetime | None) -> TaskFile:
    raw = payload.raw
    url = payload.maybe_text("url")  # only `export/url` has one
    return TaskFile(
        name=payload.maybe_text("filename"),
        url=url,
        size=payload.maybe_integer("size"),
        expires_at=expires_at if url else None,
        properties=None if raw.keys() <= FILE_FIELDS else {key: raw[key] for key in raw if key not in FILE_FIELDS},
    )


def _exported_files(subtasks: Iterable[Task]) -> TaskResult | None:
    """The files of a job: those of its finished `export/url` tasks; a job without such tasks delivers elsewhere."""
    finished = [each for each in subtasks if each.status is TaskStatus.COMPLETED]
    exports = [each for each in finished if each.operation == "export/url"]
    files = tuple(file for each in exports if each.result is not None for file in each.result.files)
    return TaskResult(files=files) if files or (finished and not exports) else None


def _operation(payload: Payload) -> OperationInfo:
    return OperationInfo(
        name=payload.text("operation"),
        input_format=payload.maybe_text("input_format"),
        output_format=payload.maybe_text("output_format"),
        engine=payload.maybe_text("engine"),
        options=tuple(_option(each) for each in payload.children("options")),
        deprecated=payload.raw.get("deprecated") is True,
        experimental=payload.raw.get("experimental") is True,
        raw=payload.raw,
    )


def _option(payload: Payload) -> OperationOption:
    choices: Any = payload.raw.get("possible_values")
    return OperationOption(
        name=payload.text("name"),
        type=payload.maybe_text("type"),
        default=payload.raw.get("default"),
        choices=tuple(choices) if choices.__class__ is list else (),
    )


def _webhook(payload: Payload) -> WebhookEndpoint:
    events: Any = payload.raw.get("events")
    number = payload.maybe_integer("id")  # the type of the id is not documented
    return WebhookEndpoint(
        id=payload.identifier("id") if number is None else str(number),
        url=payload.text("url"),
        events=tuple(map(str, events)) if events.__class__ is list else (),
        secret=payload.maybe_text("signing_secret"),
        disabled=_flag(payload, "disabled"),
        failing=_flag(payload, "failing"),
        created_at=payload.maybe_time("created_at"),
        raw=payload.raw,
    )


def _flag(payload: Payload, key: str) -> bool | None:
    value = payload.raw.get(key)
    return value if isinstance(value, bool) else None


def _sum(subtasks: Iterable[Task]) -> Usage | None:
    """The credits of a job, which has no figure of its own: those of its tasks."""
    amounts = [each.usage.amount for each in subtasks if each.usage is not None]
    return Usage(amount=sum(amounts), unit=UsageUnit.CREDITS) if amounts else None


def _root_cause(subtasks: Iterable[Task]) -> TaskFailure:
    """The root cause of a failed job; several are joined as the vendor's own n8n node joins them."""
    failed = [(each.error, each.reason) for each in subtasks if each.error is not None]
    roots = [error for error, reason in failed if reason is not Reason.DEPENDENCY_FAILED]
    causes = roots or [error for error, _ in failed]
    if len(causes) == 1:
        return causes[0]
    codes = {cause.code for cause in causes}
    return TaskFailure(
        code=codes.pop() if len(codes) == 1 else None,
        message="; ".join(f"{cause.message} (Code: {cause.code})" for cause in causes) or None,
    )
