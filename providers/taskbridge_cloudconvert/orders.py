"""What changes something at CloudConvert, and its lists: https://cloudconvert.com/docs/api-reference/jobs (2026-11-22).

A document that is submitted becomes a job: tasks that import it, the task that works on it, a task that exports what
came of it as links. The job's tag is the order's reference, by which it is found again; a single task has no tag. The
vendor stops and repeats tasks only: a job is stopped by stopping its tasks, and cannot be repeated.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from taskbridge.errors import (
    ApiError,
    InvalidInput,
    InvalidRequest,
    MalformedResponse,
    ResponseTooLarge,
    TaskNotFound,
    printable,
)
from taskbridge.models import Task, TaskResult, TaskStatus
from taskbridge.provider import (
    Document,
    Flow,
    Link,
    Listing,
    ListPolling,
    Page,
    Payload,
    Query,
    Request,
    Source,
    Submission,
    Upload,
    path_id,
    read_time,
)

if TYPE_CHECKING:
    from .provider import CloudConvert

# Neutral operation -> ours. All others go as native:….            cloudconvert-node, n8n-nodes-cloudconvert
OPERATIONS: Final[Mapping[str, str]] = {
    "extract-text": "convert",
    "convert": "convert",
    "render": "convert",
    "merge": "pdf/merge",
    "split": "pdf/split-pages",
    "extract-pages": "pdf/extract-pages",
}

# Neutral operation -> options that make it what it is; the caller's stand above them.
FILLED_IN: Final[Mapping[str, Mapping[str, str]]] = {
    "extract-text": {"output_format": "txt"},
    "render": {"output_format": "png"},
}

MANY: Final = frozenset({"pdf/merge", "merge", "archive"})  # join several documents
JOBS: Final = "jobs"  # native:jobs takes a whole graph
TEXT: Final = "extract-text"  # name of the task whose export is a text
OPERATION: Final = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)*", re.ASCII)
SMALL: Final = 100_000  # bytes that go inside the job; more is uploaded apart
UPLOADED: Final = frozenset({200, 201, 204})  # 201 in recordings; the form's field says which

# Shared status -> `filter[status]`.               https://cloudconvert.com/docs/api-reference/tasks
WORDS: Final[Mapping[TaskStatus, str]] = {
    TaskStatus.PENDING: "waiting",  # documented for tasks, not for jobs
    TaskStatus.PROCESSING: "processing",
    TaskStatus.COMPLETED: "finished",
    TaskStatus.FAILED: "error",
}
FILTERS: Final = frozenset({"kind", "tag", "job_id", "operation", "include"})
OF_TASKS: Final = frozenset({"job_id", "operation"})  # filters that only tasks have
PAGE: Final = 50  # of 100 by default; a job holds its tasks
LISTING: Final = Listing(PAGE, FILTERS, frozenset(WORDS) - {TaskStatus.PENDING})
FULL_PAGE: Final = 100  # tasks, or jobs without theirs
BULK: Final = ListPolling(FULL_PAGE, frozenset({"", "job"}), queries=3, numbered=True)
# Kind of id -> what lists those that go on.   doc TASKS, JOBS
SWEEP: Final = (
    ("", Query(TaskStatus.PENDING, {"kind": "task"})),
    ("", Query(TaskStatus.PROCESSING, {"kind": "task"})),
    ("job", Query(TaskStatus.PROCESSING, {"kind": "job", "include": ""})),
)

MOST_TASKS: Final = 28  # of a job that are stopped one by one
SKEW: Final = timedelta(minutes=5)  # between the vendor's clock and ours


# Submitting.


def submit(vendor: CloudConvert, order: Submission) -> Flow[Task]:
    """``POST /jobs``, then the upload of what it waits for; ``POST /{operation}`` for a single task."""
    native = order.native_operation
    if order.is_native and native != JOBS and not order.sources:
        return (yield from _submit_task(vendor, order))
    if native == JOBS:
        if order.sources:
            raise vendor.unsupported("place a document in a graph of yours: name it in options['tasks']")
        body = dict(order.options)
    else:
        body = {"tasks": _graph(_checked(vendor, native), order)}
    body = {"tag": order.reference, **({"webhook_url": order.callback_url} if order.callback_url else {}), **body}
    recovery_token: dict[str, Any] = {"tag": body["tag"]}
    response = yield vendor.request("POST", "/jobs", json=body, starts_work=True, recovery_token=recovery_token)
    made = vendor.payload(response).child("data")
    job = vendor.job(made)
    recovery_token = {**recovery_token, "task": job.id}
    results = {each.maybe_text("name"): each.maybe_child("result") for each in made.children("tasks")}
    for name, document in _uploads(order):
        yield from _upload(vendor, document, results.get(name), recovery_token)
    return job


def finish(vendor: CloudConvert, job: Task, order: Submission) -> Flow[Task]:
    """The uploads that a job still waits for: those of its tasks that show their form."""
    _, native = vendor.split_id(job.id)
    made = vendor.payload((yield vendor.request("GET", f"/jobs/{path_id(native)}"))).child("data")
    results = {each.maybe_text("name"): each.maybe_child("result") for each in made.children("tasks")}
    waiting = [each for each in _uploads(order) if _form(results.get(each[0])) is not None]
    for name, document in waiting:
        yield from _upload(vendor, document, results[name], {"task": job.id})
    return vendor.job(made, job.id)


def _submit_task(vendor: CloudConvert, order: Submission) -> Flow[Task]:
    native = _checked(vendor, order.native_operation)
    if order.external_id is not None:
        raise vendor.unsupported("tag a single task: give the order a document, or use native:jobs")
    if order.callback_url is not None:
        raise vendor.unsupported("tell the end of a single task: give the order a document, or use native:jobs")
    response = yield vendor.request("POST", f"/{native}", json=dict(order.options), starts_work=True)
    return vendor.task(vendor.payload(response).child("data"))


def _checked(vendor: CloudConvert, native: str) -> str:
    if OPERATION.fullmatch(native) is None:
        raise vendor.unsupported(f"do {printable(native, 60)!r}: its operations look like pdf/ocr")
    return native


def _graph(native: str, order: Submission) -> dict[str, Any]:
    """The tasks of a job: imports, the work, an export."""
    imports = {f"import-{n}": _import(source) for n, source in enumerate(order.sources, 1)}
    work = re.sub(r"[^A-Za-z0-9_-]", "-", order.operation.removeprefix("native:"))
    given = {"input": list(imports) if len(imports) > 1 else next(iter(imports))} if imports else {}
    options = {**FILLED_IN.get(order.operation, {}), **order.options}
    return {
        **imports,
        work: {"operation": native, **given, **options},
        "export-1": {"operation": "export/url", "input": work},
    }


def _import(source: Source) -> dict[str, str]:
    if isinstance(source, Link):
        named = {"filename": source.name} if source.name else {}
        return {"operation": "import/url", "url": source.url, **named}
    if not isinstance(source, Document):
        raise InvalidInput("CloudConvert takes a file of its own by its link; this one is known by an id only")
    if _goes_inside(source) and isinstance(source.content, bytes):
        return {
            "operation": "import/base64",
            "file": b64encode(source.content).decode("ascii"),
            "filename": source.name,
        }
    return {"operation": "import/upload"}


def _goes_inside(document: Document) -> bool:
    return isinstance(document.content, bytes) and document.size <= SMALL


def _uploads(order: Submission) -> list[tuple[str, Document]]:
    return [
        (f"import-{n}", source)
        for n, source in enumerate(order.sources, 1)
        if isinstance(source, Document) and not _goes_inside(source)
    ]


def _form(result: Payload | None) -> Payload | None:
    return None if result is None else result.maybe_child("form")


def _upload(
    vendor: CloudConvert, document: Document, result: Payload | None, recovery_token: Mapping[str, Any]
) -> Flow[None]:
    """Send a document to the form that its task answered: fields as they are and in order, file last, no API key."""
    form = _form(result)
    if form is None:
        raise MalformedResponse("a task that waits for its upload tells no form")
    url = form.text("url")
    if not url.startswith("https://") and vendor.base_url.startswith("https://"):
        raise MalformedResponse("the upload form is not on https")
    fields = tuple((key, str(value)) for key, value in form.child("parameters").raw.items())
    upload = Upload(fields, "file", document.name, document.content, document.media_type or "application/octet-stream")
    response = yield Request(
        "POST", url, body=upload, authorized=False, response_type="bytes", recovery_token=recovery_token
    )
    if response.status not in UPLOADED:
        error = vendor.error(response)
        error.message = f"the upload was refused, and the job waits for it: {error.message}"
        raise error


# Stopping, repeating, removing.


def cancel(vendor: CloudConvert, task_id: str) -> Flow[Task]:
    """``POST /tasks/{id}/cancel``; for a job, of each of its tasks that goes on."""
    kind, native = vendor.split_id(task_id)
    if kind.prefix:
        return (yield from _cancel_job(vendor, task_id))
    response = yield vendor.request("POST", f"/tasks/{path_id(native)}/cancel", json={})
    try:
        return vendor.task(vendor.payload(response).child("data"), task_id)
    except InvalidRequest:
        task = yield from vendor.get(task_id)  # 422 or 400 where it has ended, which its status tells
        if task.is_terminal:
            return task
        raise


def _cancel_job(vendor: CloudConvert, task_id: str) -> Flow[Task]:
    job = yield from vendor.get(task_id)
    going = [each for each in job.subtasks if not each.is_terminal]
    if len(going) > MOST_TASKS:
        raise vendor.unsupported(f"stop a job with {len(going)} tasks at once: cancel them one by one")
    for each in going:
        response = yield vendor.request("POST", f"/tasks/{path_id(each.id)}/cancel", json={})
        try:
            vendor.accept(response)
        except (InvalidRequest, TaskNotFound):
            continue  # it has ended meanwhile, perhaps because the one before it was stopped
    return (yield from vendor.get(task_id)) if going else job


def retry(vendor: CloudConvert, task_id: str) -> Flow[Task]:
    """``POST /tasks/{id}/retry``: a new task outside of any job."""
    kind, native = vendor.split_id(task_id)
    if kind.prefix:
        raise vendor.unsupported("retry a job: retry its failed tasks, or submit it anew")
    response = yield vendor.request("POST", f"/tasks/{path_id(native)}/retry", json={}, starts_work=True)
    return vendor.task(vendor.payload(response).child("data"))


def delete(vendor: CloudConvert, task_id: str) -> Flow[None]:
    """``DELETE /tasks/{id}`` or ``/jobs/{id}``: all its data goes at once."""
    kind, native = vendor.split_id(task_id)
    path = f"/{'jobs' if kind.prefix else 'tasks'}/{path_id(native)}"
    response = yield vendor.request("DELETE", path, idempotent=True, response_type="bytes")
    if response.status == 404 and response.attempts > 1:
        return  # the attempt before was heard
    vendor.accept(response)


# Listing.


def list_page(vendor: CloudConvert, query: Query, cursor: str | None) -> Flow[Page]:
    """``GET /jobs`` or ``GET /tasks``; the next page is asked for by its number, the links are not followed."""
    filters = dict(query.filters)
    kind = filters.pop("kind", "task" if OF_TASKS & filters.keys() else "job")
    if kind not in ("job", "task"):
        raise InvalidInput("kind is job or task")
    number = int(cursor or 1)
    include = filters.pop("include", "tasks" if kind == "job" else None)
    params: dict[str, Any] = {"per_page": PAGE if include else FULL_PAGE, "page": number}
    if include:
        params["include"] = _joined(include)
    params |= {f"filter[{name}]": str(value).removeprefix("job/") for name, value in filters.items()}
    if query.status is not None and (kind == "task" or query.status is not TaskStatus.PENDING):
        params["filter[status]"] = WORDS[query.status]
    said = vendor.payload((yield vendor.request("GET", f"/{kind}s", params=params)))
    translate = vendor.job if kind == "job" else vendor.task
    tasks = tuple(translate(each) for each in said.children("data"))
    links = said.maybe_child("links")
    more = links is not None and links.raw.get("next") is not None
    return Page(tasks, str(number + 1) if more and tasks else None)


def get_with(vendor: CloudConvert, task_id: str, options: Mapping[str, Any]) -> Flow[Task]:
    """``GET /tasks/{id}`` or ``/jobs/{id}`` with ``include``."""
    kind, native = vendor.split_id(task_id)
    params = {name: _joined(value) for name, value in options.items()}
    path = f"/{'jobs' if kind.prefix else 'tasks'}/{path_id(native)}"
    data = vendor.payload((yield vendor.request("GET", path, params=params))).child("data")
    return vendor.job(data, task_id) if kind.prefix else vendor.task(data, task_id)


def _joined(value: object) -> str:
    return ",".join(str(each) for each in value) if isinstance(value, list | tuple | set | frozenset) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # a caller's


def recover(vendor: CloudConvert, recovery_token: Mapping[str, Any]) -> Flow[Task | None]:
    """``GET /jobs?filter[tag]=``: the newest job of that tag that is not older than the order."""
    tag = recovery_token.get("tag")
    if not isinstance(tag, str):
        raise vendor.unsupported("look for a single task, which has no tag")
    page = yield from list_page(vendor, Query(filters={"kind": "job", "tag": tag}), None)
    sent = read_time(recovery_token.get("time"))
    found = [
        job
        for job in page.tasks
        if job.external_id == tag and (sent is None or job.created_at is None or job.created_at >= sent - SKEW)
    ]
    return max(found, key=lambda job: str(job.created_at), default=None)


# Results.


def result(task: Task, found: TaskResult, *, public_only: bool) -> Flow[TaskResult]:
    """The result of a job, with the text where the job was made to extract one: it is in the exported file."""
    links = [file.url for file in found.files if file.url and (file.name or "").lower().endswith(".txt")]
    if len(links) != 1 or not any(each.raw.get("name") == TEXT for each in task.subtasks):
        return found
    request = Request(
        "GET", links[0], headers={"Accept": "*/*"}, authorized=False, response_type="bytes", public_only=public_only
    )
    try:
        response = yield request
    except ResponseTooLarge:
        return found  # the file is there to be downloaded
    if response.status != 200:
        raise _expired(response.status)
    try:
        text = response.body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return found
    return replace(found, text=text)


def _expired(status: int) -> ApiError:
    return ApiError(
        f"the text cannot be fetched: its link answers HTTP {status}; links live for 24 hours",
        http_status=status,
        retryable=status >= 500,
    )
