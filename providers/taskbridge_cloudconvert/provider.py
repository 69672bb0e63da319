"""CloudConvert API v2: https://cloudconvert.com/docs/api-reference/tasks and …/jobs (read 2026-11-22).

Times in seconds, sizes in bytes. A job is a graph of tasks; both have ids of the same look, so a job is asked for as
``job/<id>``. Only `status` decides: `percent` is 100 on waiting tasks, `message` is set on them, and `result` is too
(the upload form). A job has no error of its own: its cause is the failed task that no other task made fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import SecretStr, model_validator

from taskbridge.errors import ApiError, QuotaExceeded, RateLimited, TaskNotFound, printable
from taskbridge.models import Reason, Task, TaskFailure, TaskFile, TaskResult, TaskStatus, WebhookEvent
from taskbridge.provider import (
    Capabilities,
    CodeTable,
    Credential,
    Delivery,
    Downloads,
    Flow,
    GeneratedFile,
    IdKind,
    Page,
    Payload,
    Provider,
    ProviderSettings,
    Query,
    Request,
    StateTable,
    Submission,
    generated_files,
    no_requests,
    path_id,
    read_state,
)

from . import orders
from .webhook import WEBHOOKS, read_delivery

# `status` of a task and of a job -> ours.        https://cloudconvert.com/docs/api-reference/tasks
STATES: Final[StateTable] = {
    "waiting": (TaskStatus.PENDING, None),
    "queued": (TaskStatus.PENDING, None),  # in the types of cloudconvert-node, in no recorded body
    "processing": (TaskStatus.PROCESSING, None),
    "finished": (TaskStatus.COMPLETED, None),
    "error": (TaskStatus.FAILED, None),  # the code refines it, below
}

# `operation` -> its own reading of `status`.     https://cloudconvert.com/api/v2/import
STATES_OF: Final[Mapping[str | None, StateTable]] = {
    "import/upload": {**STATES, "waiting": (TaskStatus.PENDING, Reason.AWAITING_UPLOAD)},
}

# `code` of a failed task -> reason; no list of codes is published, so all others stay without one.
REASONS: Final[Mapping[str | None, Reason]] = {
    "CANCELLED": Reason.CANCELLED,  # cloudconvert-java, integration test
    "INPUT_TASK_FAILED": Reason.DEPENDENCY_FAILED,  # recorded webhook, 2023; never the root cause
}

# `code` of a refusal -> error.                   cloudconvert-php, error402.json
CODES: Final[CodeTable] = {
    "CREDITS_EXCEEDED": QuotaExceeded,
}

# HTTP status -> error, where the code says nothing.
STATUSES: Final[Mapping[int, type[ApiError]]] = {
    402: RateLimited,  # "too many jobs at once": cloudconvert/cloudconvert-php issue 98
}

# Answers to an order that the vendor may have taken all the same: cloudconvert/cloudconvert-node issue 60, where a job
# of a hundred tasks was refused with 500 and ran.
DOUBTFUL: Final = frozenset({500})

# Environment -> hosts that answer at once and at the end.     https://cloudconvert.com/api/v2
HOSTS: Final[Mapping[str, tuple[str, str]]] = {
    "live": ("https://api.cloudconvert.com/v2", "https://sync.api.cloudconvert.com/v2"),
    "sandbox": ("https://api.sandbox.cloudconvert.com/v2", "https://sync.api.sandbox.cloudconvert.com/v2"),
    "eu-central": ("https://eu-central.api.cloudconvert.com/v2", "https://eu-central.sync.api.cloudconvert.com/v2"),
    "us-east": ("https://us-east.api.cloudconvert.com/v2", "https://us-east.sync.api.cloudconvert.com/v2"),
}

# The vendor names no ceiling and warns that idle connections may be cut: a minute, as most proxies allow.
HOLD: Final = 60.0  # seconds

LINK_LIFE: Final = timedelta(
    hours=24
)  # of an export link, from the end of its task: https://cloudconvert.com/api/v2/export

# UUIDs; the documentation has x441E6HMhG too. Shorter ones are refused: the vendor answers them with a 500 (XSOAR).
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{9,127}", re.ASCII)
TASK: Final = IdKind(ID, example="c85f3ca9-164c-4e89-8ae2-c08192a7cb08", ignore_case=True)
JOB: Final = IdKind(ID, "job", "job", example="job/73df1e16-fd8b-47a1-a156-f197babde91a", ignore_case=True)

FILE_FIELDS: Final = frozenset({"filename", "size", "url"})


class CloudConvertSettings(ProviderSettings):
    """Settings of a CloudConvert connection."""

    api_key: SecretStr
    """API key from the dashboard; looking needs the scope ``task.read``, all else ``task.write``."""
    base_url: str | None = None
    """Address of the API that answers at once, with its version; by default that of `sandbox` and `region`."""
    sync_url: str | None = None
    """Address of the API that answers at the end; by default CloudConvert's, and none beside a `base_url`."""
    sandbox: bool = False
    """Use the sandbox, which has keys and ids of its own and no regions."""
    region: Literal["eu-central", "us-east"] | None = None
    """Region that does the work; by default the vendor chooses."""

    @model_validator(mode="after")
    def _one_place(self) -> CloudConvertSettings:
        if self.base_url is not None and (self.sandbox or self.region is not None):
            raise ValueError("base_url contradicts sandbox and region, which choose the address: give one or the other")
        return self

    @property
    def hosts(self) -> tuple[str, str | None]:
        """Addresses of the API that answers at once, and of the one that answers at the end, if there is one."""
        if self.base_url is not None:
            return self.base_url.rstrip("/"), self.sync_url.rstrip("/") if self.sync_url else None
        now, end = HOSTS["sandbox" if self.sandbox else self.region or "live"]
        return now, self.sync_url.rstrip("/") if self.sync_url else end


class CloudConvert(Provider[CloudConvertSettings]):
    """CloudConvert: tasks (``c85f…``) and jobs (``job/73df…``)."""

    name = "cloudconvert"
    title = "CloudConvert"
    docs = "https://cloudconvert.com/docs/api-reference/tasks"
    Settings = CloudConvertSettings
    codes = CODES
    statuses = STATUSES
    uncertain_statuses = DOUBTFUL
    capabilities = Capabilities(
        kinds=(TASK, JOB),
        authentication="API key",
        long_poll=True,
        subtasks=True,
        reasons=(Reason.AWAITING_UPLOAD, Reason.CANCELLED, Reason.DEPENDENCY_FAILED),
        webhooks=WEBHOOKS,
        get_options=frozenset({"include"}),
        operations=orders.OPERATIONS,
        inputs=frozenset({"path", "bytes", "stream", "url", "file"}),
        many_inputs=orders.MANY,
        cancel=True,
        retry=True,
        delete=True,
        listing=orders.LISTING,
        list_polling=orders.BULK,
        recover="tag",
        external_id=True,
        callback=True,
        downloads=Downloads(("files", "data"), links=True, link_ttl=LINK_LIFE.total_seconds(), resumes=True),
        result_ttl=LINK_LIFE.total_seconds(),
    )
    wait_hints = MappingProxyType({Reason.AWAITING_UPLOAD: "it stays so until the document is uploaded"})

    # Requests, in the order in which a task lives.

    def authorize(self) -> Flow[Credential]:
        """The API key, valid until it is revoked."""
        return no_requests(Credential({"Authorization": f"Bearer {self.settings.api_key.get_secret_value()}"}))

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /tasks/{id}`` or ``GET /jobs/{id}``."""
        return self._look(task_id, self.base_url)

    def long_poll(self, task_id: str) -> Flow[Task] | None:
        """The same path on the host that answers at the end; None where no such host is known."""
        sync_url = self.settings.hosts[1]
        return None if sync_url is None else self._look(task_id, sync_url, HOLD)

    def _look(self, task_id: str, base: str, long_poll: float | None = None) -> Flow[Task]:
        kind, native = self.split_id(task_id)
        folder, translate, hint = (
            ("/jobs/", self.job, f"if it is the id of a task, ask for {native}")
            if kind is JOB
            else ("/tasks/", self.task, f"if it is the id of a job, ask for job/{native}")
        )
        response = yield self.request("GET", f"{folder}{path_id(native)}", base=base, long_poll=long_poll)
        try:
            payload = self.payload(response)
        except TaskNotFound as error:
            error.message = f"{error.message}; {hint}"
            raise
        return translate(payload.child("data"), task_id)

    @property
    def base_url(self) -> str:
        """The API's address without a trailing slash."""
        return self.settings.hosts[0]

    def get_with(self, task_id: str, options: Mapping[str, Any]) -> Flow[Task]:
        """The same with ``include``; see `orders`, beside this file, for this and all that follows."""
        return orders.get_with(self, task_id, options)

    def result(self, task: Task) -> Flow[TaskResult]:
        """The exported files, and their text where a text was asked for."""
        found = yield from super().result(task)
        return (yield from orders.result(task, found, public_only=self.base_url.startswith("https://")))

    def result_files(self, task: Task, result: TaskResult) -> tuple[TaskFile | GeneratedFile, ...]:
        """The files that have links, else the data: a task that only looks at a file names that file too."""
        linked = tuple(file for file in result.files if file.url)
        return linked or generated_files(task, result) or result.files

    def source(self, file: TaskFile) -> Request:
        """The file's link, which only `export/url` tasks make."""
        if not file.url:
            raise self.unsupported(
                f"give out {printable(file.name or 'a file', 80)!r}: only export/url tasks make links"
            )
        return super().source(file)

    def submit(self, order: Submission) -> Flow[Task]:
        """``POST /jobs`` and uploads, or ``POST /{operation}``."""
        return orders.submit(self, order)

    def list_queries(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """Lists of what waits and of what is being done; ``filter[status]=waiting`` is not documented for jobs."""
        del now, age
        return tuple(query for prefix, query in orders.SWEEP if prefix in prefixes)

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """``GET /jobs``, or ``GET /tasks``."""
        return orders.list_page(self, query, cursor)

    def cancel(self, task_id: str) -> Flow[Task]:
        """``POST /tasks/{id}/cancel``."""
        return orders.cancel(self, task_id)

    def retry(self, task_id: str) -> Flow[Task]:
        """``POST /tasks/{id}/retry``."""
        return orders.retry(self, task_id)

    def delete(self, task_id: str) -> Flow[None]:
        """``DELETE /tasks/{id}`` or ``DELETE /jobs/{id}``."""
        return orders.delete(self, task_id)

    def recover(self, recovery_token: Mapping[str, Any]) -> Flow[Task | None]:
        """``GET /jobs?filter[tag]=``."""
        return orders.recover(self, recovery_token)

    def finish(self, task: Task, order: Submission) -> Flow[Task]:
        """The uploads that a job still waits for."""
        return orders.finish(self, task, order)

    # What the vendor tells unasked.

    def parse_webhook(self, delivery: Delivery) -> WebhookEvent:
        """See `webhook`, beside this file."""
        return read_delivery(self, delivery)

    # Translation.

    def task(self, payload: Payload, asked: str | None = None, parent: str | None = None) -> Task:
        """A task from the object inside ``data``, or from a job's ``tasks``.

        Args:
            payload: The vendor's object.
            asked: The shared id it was asked for.
            parent: The shared id of the job in whose answer it stood.
        """
        native = payload.identifier("id")
        word = payload.text("status")
        operation = payload.maybe_text("operation")
        job = payload.maybe_text("job_id")
        retried = payload.maybe_text("retry_of_task_id")
        message = payload.maybe_words("message")
        state = read_state(STATES_OF.get(operation, STATES), word)
        status, reason, ended, result, error = state.status, state.reason, None, None, None
        if status.is_terminal:
            ended = payload.maybe_time("ended_at")  # fixtures have it on waiting tasks too
            if status is TaskStatus.COMPLETED:
                result = _result(payload, ended)
            else:
                error = TaskFailure(code=payload.maybe_text("code"), message=message)
                reason = REASONS.get(error.code)
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=asked or native,
            native_id=native,
            status=status,
            reason=reason,
            recognized=state.recognized,
            native_status=word,
            operation=operation,
            message=message,
            created_at=payload.maybe_time("created_at"),
            started_at=payload.maybe_time("started_at"),
            finished_at=ended,
            result=result,
            error=error,
            parent_id=f"job/{job}" if job else parent,
            retry_of=retried or None,
            raw=payload.raw,
        )

    def job(self, payload: Payload, asked: str | None = None, told: str | None = None) -> Task:
        """A job from the object inside ``data``.

        Args:
            payload: The vendor's object.
            asked: The shared id it was asked for.
            told: The word for the status where the object has none: a webhook's event tells it.
        """
        native = payload.identifier("id")
        shared = asked or f"job/{native}"
        # The documented webhook example has a job whose status is null.
        word = None if payload.raw.get("status", "") is None else payload.text("status")
        state = read_state(STATES, word or told)
        subtasks = tuple(self.task(each, parent=shared) for each in payload.children("tasks"))
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=shared,
            native_id=native,
            status=state.status,
            recognized=state.recognized,
            native_status=word,
            created_at=payload.maybe_time("created_at"),
            started_at=payload.maybe_time("started_at"),
            finished_at=payload.maybe_time("ended_at") if state.status.is_terminal else None,
            result=_exports(subtasks) if state.status is TaskStatus.COMPLETED else None,
            error=_cause(subtasks) if state.status is TaskStatus.FAILED else None,
            subtasks=subtasks,
            external_id=payload.maybe_text("tag"),
            raw=payload.raw,
        )


def _result(payload: Payload, ended: datetime | None) -> TaskResult | None:
    said = payload.maybe_child("result")
    if said is None or not said.raw:
        return None
    expires = _later(ended)
    files = tuple(_file(each, expires) for each in said.children("files"))
    # Where `command` puts its output is not documented: without files the object is the output.
    fallback = None if "files" in said.raw else said.raw
    return TaskResult(files=files, data=said.raw.get("metadata", fallback))


def _file(said: Payload, expires: datetime | None) -> TaskFile:
    url = said.maybe_text("url")  # only `export/url` has one
    return TaskFile(
        name=said.maybe_text("filename"),
        url=url,
        size=said.maybe_integer("size"),
        expires_at=expires if url else None,
        properties={key: value for key, value in said.raw.items() if key not in FILE_FIELDS} or None,
    )


def _later(ended: datetime | None) -> datetime | None:
    try:
        return None if ended is None else ended + LINK_LIFE
    except OverflowError:
        return None


def _exports(subtasks: Iterable[Task]) -> TaskResult | None:
    """The files of a job: those of its finished `export/url` tasks; a job without such tasks delivers elsewhere."""
    done = [each for each in subtasks if each.status is TaskStatus.COMPLETED]
    exports = [each for each in done if each.operation == "export/url"]
    files = tuple(file for each in exports if each.result is not None for file in each.result.files)
    return TaskResult(files=files) if files or (done and not exports) else None


def _cause(subtasks: Iterable[Task]) -> TaskFailure:
    """The root cause of a failed job, joined as the vendor's own n8n node joins several."""
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
