"""Scan Documents API v1: https://scan-documents.com/docs/tasks (read 2026-11-22).

Times in seconds, sizes in bytes. A result is read by its keys, never by `operation`: the vendor's own specification
labels detect-documents as convert, and new operations appear. `status` is a word on a task and an HTTP number in an
error body, so an error body is never read as a task. 409 is about the subscription, not a conflict. The vendor bills
operations a month, but no answer has a figure: its error pages show ``GET /v1/account`` and ``…/account/usage``, which
neither its reference nor its client has.

Webhooks (https://scan-documents.com/docs/webhooks and …/events) are signed by the svix scheme, which covers the time.
`data` has no status: the event's type implies it. The order of deliveries is not guaranteed. An older edition of the
page shows `data` with `object_id` and `object_type`, which does not identify the task: it is recognized and rejected.
The ``callback_url`` of a task is called without a signature and with an undocumented body: a secret in that URL is the
only proof, and the call only triggers a status request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Final, cast
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from taskbridge.errors import ContractError, MalformedResponse, QuotaExceeded, printable
from taskbridge.models import Task, TaskFailure, TaskFile, TaskRef, TaskResult, TaskStatus, WebhookEvent
from taskbridge.provider import (
    NO_TIME,
    PLAIN_ID,
    Accepts,
    Capabilities,
    CodeTable,
    Credential,
    Delivery,
    Document,
    Downloads,
    ErrorDetails,
    Flow,
    GeneratedFile,
    IdKind,
    Listing,
    ListPolling,
    OptionTable,
    Page,
    Payload,
    Provider,
    ProviderSettings,
    Query,
    Request,
    StateTable,
    StatusTable,
    Stored,
    Submission,
    Upload,
    Webhooks,
    generated_files,
    no_requests,
    path_id,
    read_json,
)

# `status` -> ours.                               https://scan-documents.com/docs/tasks
STATES: Final[StateTable] = {
    "pending": (TaskStatus.PENDING, None),
    "processing": (TaskStatus.PROCESSING, None),
    "completed": (TaskStatus.COMPLETED, None),
    "failed": (TaskStatus.FAILED, None),
}

# `type` of a task's event -> the `status` of that task; None if it has none.
#                                                 https://scan-documents.com/docs/events
EVENTS: Final[Mapping[str, str | None]] = {
    "task.created": "pending",
    "task.completed": "completed",
    "task.failed": "failed",
    "task.deleted": None,
}

# Neutral operation -> ours. All others are submitted as native:….
OPERATIONS: Final[Mapping[str, str]] = {
    word: word for word in ("extract-text", "convert", "merge", "split", "extract-pages", "render")
}

QUALITY: Final = 90  # of 100, of a JPEG or WebP image whose quality the caller does not choose
IMAGE: Final = Accepts(
    frozenset({"image/png", "image/jpeg", "image/webp"}), otherwise="render a PDF first, and submit the images"
)
PDF: Final = Accepts(frozenset({"application/pdf"}), otherwise="merge makes a PDF of images")

# Operation -> its folder.                        https://scan-documents.com/docs/tasks
FOLDERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("convert", "detect-documents", "extract-text", "warp", "apply-effect"), "image-operations"),
    "scan": "image-operations",  # newer than that page: node-sdk, packages/mcp-server
    **dict.fromkeys(("render", "split", "merge", "extract-pages"), "pdf-operations"),
}

# Neutral operation and option -> the vendor's key, or for each value its own options.
OPTIONS: Final[OptionTable] = {
    "convert": {  # node-sdk, image-operations.ts; the vendor requires a quality of 1 to 100 where an image loses some
        "to": {
            "png": {"target_format": "image/png"},
            "jpg": {"target_format": "image/jpeg", "quality": QUALITY},
            "webp": {"target_format": "image/webp", "quality": QUALITY},
        },
    },
    "extract-text": {  # https://scan-documents.com/docs/v1/image-operations/extract-text
        "text_format": {
            "plain": {"format": "plain"},
            "markdown": {"format": "markdown"},
            "html": {"format": "html"},
        },
    },
    "render": {
        "to": {"png": {}},  # https://scan-documents.com/docs/tasks: always PNG
        "pages": "pages",  # node-sdk, pdf-operations.ts
        "dpi": "dpi",  # as above; 300 by default
    },
    "extract-pages": {"pages": "pages"},  # https://scan-documents.com/docs/v1/pdf-operations/extract-pages
}

# Operation -> the documents that it takes.       https://scan-documents.com/docs/tasks
ACCEPTS: Final[Mapping[str, Accepts]] = {
    **{word: IMAGE for word, folder in FOLDERS.items() if folder == "image-operations"},
    **dict.fromkeys(("render", "split", "extract-pages"), PDF),
    "merge": Accepts(IMAGE.media_types | PDF.media_types, several=True),  # images too: node-sdk, pdf-operations.ts
}

# Operation -> what a result can have.            node-sdk, image-operations.ts
RESULT_PARTS: Final[Mapping[str, frozenset[str]]] = {
    "extract-text": frozenset({"text", "fields"}),  # fields for the vendor's own option `format=json`
    "native:detect-documents": frozenset({"pages"}),  # one page, with a block for each document
}

# `format` of a text -> suffix of its file.       node-sdk, image-operations.ts
TEXT_SUFFIXES: Final[Mapping[str, str]] = {"plain": ".txt", "markdown": ".md", "html": ".html", "json": ".json"}

TASK: Final = IdKind(PLAIN_ID, example="task_euyrvozb9302uwhq")  # length and alphabet are not promised

PATH: Final = re.compile(r"(image|pdf)-operations/[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)  # an operation not in FOLDERS
WITHOUT_NAME: Final = frozenset({"detect-documents", "extract-text"})  # take no `name`: node-sdk, image-operations.ts
MERGE: Final = "merge"  # its `input` is a list
UPLOAD_LIMIT: Final = 10 << 20  # bytes; "10 MB" in node-sdk, files.ts, read generously
RESULT_KEYS: Final = frozenset({"generated_files", "content", "documents"})  # node-sdk, src/resources/tasks.ts

PAGE_SIZE: Final = 50  # tasks, of 1 to 100; a task contains its whole text
RECOVERY_PAGES: Final = 30  # of the list that `recover` reads at most

SIGNATURES: Final = ("svix-signature", "webhook-signature", "svix-id", "webhook-id")
CALLBACK: Final = "callback"  # our word: what a callback calls itself is unknown
OLD_EVENT_KEYS: Final = frozenset({"object_id", "object_type"})
# Where a callback might name its task: nothing is documented, so the likely places are tried.
CALLBACK_OBJECTS: Final = ("task", "data")
CALLBACK_KEYS: Final = ("id", "task_id", "taskId")
TASK_PREFIX: Final = "task_"


class ScanDocumentsSettings(ProviderSettings):
    """Settings of a Scan Documents connection."""

    variables = MappingProxyType({"api_key": "SCAN_DOCUMENTS_API_KEY"})  # README of the vendor's scan-documents-mcp

    api_key: SecretStr
    """API key from the dashboard."""
    base_url: str = "https://api.scan-documents.com/v1"
    """Address of the API, with its version."""
    delete_inputs: bool = False
    """Delete uploaded documents once their task has ended. How long the vendor keeps them otherwise is unknown."""


class ScanDocuments(Provider[ScanDocumentsSettings]):
    """Scan Documents: one task is one operation on an uploaded file."""

    name = "scan-documents"
    title = "Scan Documents"
    docs = "https://scan-documents.com/docs/tasks"
    Settings = ScanDocumentsSettings
    # Last path segment of an error's `type`.      https://scan-documents.com/docs/errors/no-subscription
    codes: ClassVar[CodeTable] = {"no-subscription": QuotaExceeded}
    statuses: ClassVar[StatusTable] = {409: QuotaExceeded}  # no subscription, or the free tier is used up
    account_errors = frozenset({409})
    capabilities = Capabilities(
        kinds=(TASK,),
        authentication="API key",
        webhooks=Webhooks(
            events=(*EVENTS, "file.created", "file.deleted"),
            scheme="svix (HMAC over id, time and body)",
            signed_time=True,
            per_task=True,
        ),
        operations=OPERATIONS,
        inputs=frozenset({"path", "bytes", "stream", "url", "file"}),
        fetches_urls=True,
        accepts=ACCEPTS,
        options=OPTIONS,
        delete_files=True,
        listing=Listing(PAGE_SIZE),
        # The list's rows have the schema of a task:  https://scan-documents.com/docs/v1/tasks/get
        list_polling=ListPolling(PAGE_SIZE, whole_rows={"": "https://scan-documents.com/docs/v1/tasks/get"}),
        recover="the uploaded file's id",
        callback=True,
        downloads=Downloads(("files", "text", "data")),
        result_parts=RESULT_PARTS,
        upload_limit=UPLOAD_LIMIT,
    )

    # Requests, in the order in which a task lives.

    def authorize(self) -> Flow[Credential]:
        """Return the API key; some of the vendor's error pages show a bearer token, its reference and client do not."""
        return no_requests(Credential({"x-api-key": self.settings.api_key.get_secret_value()}))

    def submit(self, submission: Submission) -> Flow[Task]:
        """``POST /files`` for each document, then ``POST /image-operations/{op}`` or ``/pdf-operations/{op}``."""
        path = self._operation_path(submission.native_operation)
        inputs: list[str] = []
        recovery_token: dict[str, list[str]] = {}
        for source in submission.sources:
            if isinstance(source, Document):
                body = _upload(source)
                response = yield self.request("POST", "/files", body=body, recovery_token=recovery_token)
                inputs.append(self.payload(response).text("id"))
                recovery_token = {"files": [*recovery_token.get("files", ()), inputs[-1]]}
            elif isinstance(source, Stored):
                inputs.append(source.id)
        options = {**_default_options(submission), **submission.options}
        if inputs:
            options.setdefault("input", inputs if submission.native_operation == MERGE else inputs[0])
        response = yield self.request("POST", path, json=options, starts_work=True, recovery_token=recovery_token)
        return self.task(self.payload(response))

    def _operation_path(self, native: str) -> str:
        if native in FOLDERS:
            return f"/{FOLDERS[native]}/{native}"
        if PATH.fullmatch(native):
            return f"/{native}"
        raise self.unsupported(f"do {printable(native, 60)!r}: its operations are {', '.join(FOLDERS)}")

    def recover(self, recovery_token: Mapping[str, Any]) -> Flow[Task | None]:
        """Search ``GET /tasks`` for a file that was uploaded for the submission."""
        uploaded = set(cast("list[str]", recovery_token.get("files") or []))
        if not uploaded:
            raise self.unsupported("recover a submission that uploaded no file; search its list")
        cursor: str | None = None
        for _ in range(RECOVERY_PAGES):
            page = yield from self.list_page(Query(), cursor)
            found = next((task for task in page.tasks if uploaded & _input_ids(task)), None)
            cursor = page.next_cursor
            if found is not None or cursor is None:
                return found
        raise self.unsupported(f"recover a submission further back than {RECOVERY_PAGES * PAGE_SIZE} tasks")

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /tasks/{id}``."""
        _, native = self.split_id(task_id)
        response = yield self.request("GET", f"/tasks/{path_id(native)}")
        return self.task(self.payload(response), task_id)

    def list_queries(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """The whole list: the vendor has no filter, and its order is not documented."""
        del prefixes, now, age
        return (Query(),)

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """``GET /tasks``; only `from` is read from the link to the next page: the documented one lacks the version."""
        params: dict[str, str | int] = {"take": query.page_size or PAGE_SIZE}  # the vendor has no filters
        if cursor is not None:
            params["from"] = cursor
        payload = self.payload((yield self.request("GET", "/tasks", params=params)))
        tasks = tuple(self.task(each) for each in payload.children("data"))
        links = payload.maybe_child("links")
        next_link = None if links is None else links.maybe_text("next")
        if not next_link or not tasks:
            return Page(tasks)
        start = parse_qs(urlsplit(next_link).query).get("from")
        if not start:
            raise MalformedResponse("the link to the next page does not say from where", raw=next_link)
        return Page(tasks, start[0])

    def delete_file(self, file: TaskFile) -> Flow[None]:
        """``DELETE /files/{id}`` as in node-sdk, files.ts; the status of its success is not documented."""
        request = self.request("DELETE", f"/files/{path_id(file.id or '')}", idempotent=True, response_type="bytes")
        response = yield replace(request, headers={"Accept": "*/*"})
        if response.status == 404 and response.attempts > 1:
            return  # an earlier attempt deleted it
        self.accept(response)

    def temporary_files(self, recovery_token: Mapping[str, Any]) -> tuple[TaskFile, ...]:
        """The uploaded documents, if the connection is set to delete them."""
        uploaded = cast("list[str]", recovery_token.get("files") or [])
        return tuple(TaskFile(id=each) for each in uploaded) if self.settings.delete_inputs else ()

    # Results and downloads.

    def result(self, task: Task) -> Flow[TaskResult]:
        """The result in the status response, with the fields of a JSON text and the documents in a photo."""
        from .layout import read_documents, read_fields  # noqa: PLC0415  # no status request needs the model of pages

        result = yield from super().result(task)
        raw: Any = task.raw.get("result")
        outcome: Mapping[str, Any] = raw if raw.__class__ is dict else {}
        if "documents" in outcome:
            return replace(result, pages=read_documents(outcome["documents"]))
        if outcome.get("format") == "json" and result.data is not None:
            return replace(result, fields=read_fields(result.data))
        return result

    def result_files(self, task: Task, result: TaskResult) -> tuple[TaskFile | GeneratedFile, ...]:
        """The files, else the text in the format that was requested, else the data."""
        raw = task.raw.get("result")
        text_format = cast("dict[str, object]", raw).get("format") if isinstance(raw, dict) else None
        if result.text is not None and text_format in TEXT_SUFFIXES:
            without_data = replace(result, data=None)  # the text contains it
            suffix = TEXT_SUFFIXES[cast("str", text_format)]
            return result.files or generated_files(task, without_data, text_suffix=suffix)
        return super().result_files(task, result)

    def download_request(self, file: TaskFile) -> Request:
        """``GET /files/{id}/download``; the vendor's own client accepts ``image/png``, even for a PDF."""
        if file.id is None:
            return super().download_request(file)
        request = self.request("GET", f"/files/{path_id(file.id)}/download", response_type="bytes")
        return replace(request, headers={"Accept": "*/*"})

    # Webhooks.

    def parse_webhook(self, delivery: Delivery) -> WebhookEvent:
        """Read a signed event; an unsigned delivery is a task's callback."""
        if any(delivery.header(name) is not None for name in SIGNATURES):
            return self._event(delivery.payload(delivery.by_svix()))
        return self._callback(delivery, delivery.by_url())

    def _event(self, payload: Payload) -> WebhookEvent:
        kind = payload.text("type")
        event_id = payload.text("id")
        data = payload.child("data")
        if data.raw.keys() & OLD_EVENT_KEYS:
            raise ContractError(
                "it is of the vendor's old edition (object_id, object_type), which does not identify the task"
            )
        ref = task = None
        if kind.startswith("task."):
            native = data.text("id")
            self.split_id(native)
            ref = TaskRef.of(payload.connection, native)
            status = EVENTS.get(kind)
            if status is not None:
                with_status = Payload({**data.raw, "status": status}, payload.connection, payload.observed_at)
                task = replace(self.task(with_status), native_status=None, raw=data.raw)
        return WebhookEvent(
            provider=self.name,
            connection=payload.connection,
            type=kind,
            duplicate_key=f"{payload.connection}:{event_id}",
            needs_confirmation=False,
            ref=ref,
            task=task,
            event_id=event_id,
            occurred_at=payload.maybe_time("timestamp"),
            raw=payload.raw,
        )

    def _callback(self, delivery: Delivery, body: bytes) -> WebhookEvent:
        try:
            payload = delivery.payload(body)
        except MalformedResponse:
            payload = Payload({}, self.connection, delivery.received_at)
        objects = (payload, *(payload.maybe_child(key) for key in CALLBACK_OBJECTS))
        ids = (each.maybe_text(key) or "" for each in objects if each is not None for key in CALLBACK_KEYS)
        native = next((each for each in ids if each.startswith(TASK_PREFIX) and TASK.pattern.fullmatch(each)), None)
        return WebhookEvent(
            provider=self.name,
            connection=payload.connection,
            type=CALLBACK,
            duplicate_key=f"{payload.connection}:{CALLBACK} {native or ''} {delivery.digest}",
            needs_confirmation=True,
            ref=None if native is None else TaskRef.of(payload.connection, native),
            raw=payload.raw,
        )

    # Translation.

    def task(self, payload: Payload, requested_id: str | None = None) -> Task:
        """Translate a task from the bare object of a response."""
        native = payload.identifier("id")
        word = payload.text("status")
        state = self.state(STATES, word)
        result = error = None
        if state.status.is_terminal:
            outcome = payload.maybe_child("result")
            if state.status is TaskStatus.COMPLETED:
                result = None if outcome is None else _result(outcome)
            elif outcome is None:
                error = TaskFailure()
            else:
                error = TaskFailure(message=outcome.maybe_message("error"), details=outcome.raw.get("details"))
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=requested_id or native,
            native_id=native,
            status=state.status,
            recognized=state.recognized,
            native_status=word,
            operation=payload.maybe_text("operation"),
            created_at=payload.maybe_time("created_at"),
            updated_at=payload.maybe_time("updated_at"),
            result=result,
            error=error,
            raw=payload.raw,
        )

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read a problem document: `type` ends in the code, and a validation error has `errors` but no `message`."""
        payload = Payload(document, self.connection, NO_TIME)
        kind = payload.maybe_text("type")
        code = kind.rpartition("/")[2] if kind else None
        fields = _field_errors(document.get("errors"))
        return ErrorDetails(code or None, payload.maybe_message("message") or fields or payload.maybe_message("title"))


# Data that is sent.


def _upload(document: Document) -> Upload:
    media_type = document.media_type or "application/octet-stream"  # then the transport guesses it from the name
    return Upload((("name", document.name),), "file", document.name, document.content, media_type)


def _default_options(submission: Submission) -> dict[str, Any]:
    """What the submission says beside its options and documents."""
    options: dict[str, Any] = {}
    if submission.callback_url is not None:
        options["callback_url"] = submission.callback_url
    if submission.name is not None and submission.native_operation not in WITHOUT_NAME:
        options["name"] = submission.name
    if submission.operation == "extract-text":
        options["format"] = "plain"  # the vendor requires one
    return options


# Data that is received.


def _input_ids(task: Task) -> set[str]:
    """Ids of the files and tasks that a task works on."""
    parameters = task.raw.get("parameters")
    value: Any = cast("dict[str, Any]", parameters).get("input") if isinstance(parameters, dict) else None
    ids = cast("list[object]", value) if isinstance(value, list) else [value]
    return {each for each in ids if isinstance(each, str)}


def _result(payload: Payload) -> TaskResult | None:
    raw = payload.raw
    if not raw:
        return None
    text = payload.maybe_text("content")
    data = raw.get("documents") if RESULT_KEYS & raw.keys() else raw
    if text is not None and raw.get("format") == "json":
        try:
            data = read_json(text.encode())
        except MalformedResponse:
            data = None  # the text itself is kept
    return TaskResult(files=tuple(_file(each) for each in payload.children("generated_files")), text=text, data=data)


def _file(payload: Payload) -> TaskFile:
    properties = payload.maybe_child("properties")
    return TaskFile(
        id=payload.maybe_text("id"),
        name=payload.maybe_text("name"),
        size=None if properties is None else properties.maybe_integer("size"),
        media_type=payload.maybe_text("type"),
        properties=None if properties is None else properties.raw,
    )


def _field_errors(errors: object) -> str | None:
    """Join the texts of ``{field: [text, …]}``."""
    if not isinstance(errors, dict):
        return None
    fields = cast("dict[str, object]", errors)
    texts = (f"{field}: {text}" for field, texts in fields.items() if isinstance(texts, list) for text in texts)  # pyright: ignore[reportUnknownVariableType]  # any JSON
    return "; ".join(texts) or None
