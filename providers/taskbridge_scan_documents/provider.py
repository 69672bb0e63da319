"""Scan Documents API v1: https://scan-documents.com/docs/tasks (read 2026-11-22).

Times in seconds, sizes in bytes. A result is told by its keys, never by `operation`: the vendor's own specification
labels detect-documents as convert, and operations grow. `status` is a word on a task and an HTTP number in an error
body, so an error body is never read as a task. 409 is about the subscription, not a conflict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from taskbridge.errors import ApiError, MalformedResponse, QuotaExceeded, printable
from taskbridge.models import Task, TaskFailure, TaskFile, TaskResult, TaskStatus, WebhookEvent
from taskbridge.provider import (
    NO_TIME,
    PLAIN_ID,
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
    Page,
    Payload,
    Provider,
    ProviderSettings,
    Query,
    Request,
    StateTable,
    Stored,
    Submission,
    Upload,
    generated_files,
    no_requests,
    path_id,
    read_json,
    read_state,
)

from .webhook import WEBHOOKS, read_delivery

# `status` -> ours.                               https://scan-documents.com/docs/tasks
STATES: Final[StateTable] = {
    "pending": (TaskStatus.PENDING, None),
    "processing": (TaskStatus.PROCESSING, None),
    "completed": (TaskStatus.COMPLETED, None),
    "failed": (TaskStatus.FAILED, None),
}

# Last path segment of an error's `type` -> error. https://scan-documents.com/docs/errors/no-subscription
CODES: Final[CodeTable] = {
    "no-subscription": QuotaExceeded,
}

# HTTP status -> error, where `type` says nothing.
STATUSES: Final[Mapping[int, type[ApiError]]] = {
    409: QuotaExceeded,  # no subscription, or the free tier is used up
}

# Operation -> its folder.                          https://scan-documents.com/docs/tasks
FOLDERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("convert", "detect-documents", "extract-text", "warp", "apply-effect"), "image-operations"),
    "scan": "image-operations",  # newer than that page: node-sdk, packages/mcp-server
    **dict.fromkeys(("render", "split", "merge", "extract-pages"), "pdf-operations"),
}

# Neutral operation -> ours. All others go as native:….
OPERATIONS: Final[Mapping[str, str]] = {
    "extract-text": "extract-text",
    "convert": "convert",
    "merge": "merge",
    "split": "split",
    "extract-pages": "extract-pages",
    "render": "render",
}

UNNAMED: Final = frozenset({"detect-documents", "extract-text"})  # take no `name`: node-sdk, image-operations.ts
MANY: Final = frozenset({"merge"})  # whose `input` is a list
FORMAT: Final = "plain"  # of extract-text, which demands one, where the caller names none

PATH: Final = re.compile(r"(image|pdf)-operations/[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)  # an operation newer than FOLDERS
UPLOAD_LIMIT: Final = 10 << 20  # bytes; "10 MB" in node-sdk, files.ts, read generously
PAGE: Final = 50  # tasks of 1 to 100; a task holds its whole text
MOST_PAGES: Final = 30  # of a search

# `format` of a text -> suffix of its file.         node-sdk, image-operations.ts
SUFFIXES: Final[Mapping[str, str]] = {"plain": ".txt", "markdown": ".md", "html": ".html", "json": ".json"}

RESULT_KEYS: Final = frozenset({"generated_files", "content", "documents"})  # node-sdk, src/resources/tasks.ts

TASK: Final = IdKind(PLAIN_ID, example="task_euyrvozb9302uwhq")  # length and alphabet are not promised


class ScanDocumentsSettings(ProviderSettings):
    """Settings of a Scan Documents connection."""

    api_key: SecretStr
    """API key from the dashboard."""
    base_url: str = "https://api.scan-documents.com/v1"
    """Address of the API, with its version."""


class ScanDocuments(Provider[ScanDocumentsSettings]):
    """Scan Documents: one task is one operation on an uploaded file."""

    name = "scan-documents"
    title = "Scan Documents"
    docs = "https://scan-documents.com/docs/tasks"
    Settings = ScanDocumentsSettings
    codes = CODES
    statuses = STATUSES
    account_refusals = frozenset({409})
    capabilities = Capabilities(
        kinds=(TASK,),
        authentication="API key",
        webhooks=WEBHOOKS,
        operations=OPERATIONS,
        inputs=frozenset({"path", "bytes", "stream", "url", "file"}),
        fetches_urls=True,
        many_inputs=MANY,
        listing=Listing(PAGE),
        list_polling=ListPolling(PAGE),
        recover="the uploaded file's id",
        callback=True,
        downloads=Downloads(("files", "text", "data")),
        upload_limit=UPLOAD_LIMIT,
    )

    # Requests, in the order in which a task lives.

    def authorize(self) -> Flow[Credential]:
        """The API key; some of the vendor's error pages show a bearer token, its reference and client do not."""
        return no_requests(Credential({"x-api-key": self.settings.api_key.get_secret_value()}))

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /tasks/{id}``."""
        _, native = self.split_id(task_id)
        response = yield self.request("GET", f"/tasks/{path_id(native)}")
        return self.task(self.payload(response), task_id)

    def result_files(self, task: Task, result: TaskResult) -> tuple[TaskFile | GeneratedFile, ...]:
        """The files, else the text in the format that was asked for, else the data."""
        said = task.raw.get("result")
        form = cast("dict[str, object]", said).get("format") if isinstance(said, dict) else None
        if result.text is not None and form in SUFFIXES:
            result = replace(result, data=None)  # the text says it too
            return result.files or generated_files(task, result, text_suffix=SUFFIXES[cast("str", form)])
        return super().result_files(task, result)

    def source(self, file: TaskFile) -> Request:
        """``GET /files/{id}/download``; the vendor's own client asks for ``image/png`` even where it gets a PDF."""
        if file.id is None:
            return super().source(file)
        asked = self.request("GET", f"/files/{path_id(file.id)}/download", response_type="bytes")
        return replace(asked, headers={"Accept": "*/*"})

    def submit(self, order: Submission) -> Flow[Task]:
        """``POST /files`` for each document, then ``POST /image-operations/{op}`` or ``/pdf-operations/{op}``."""
        path = self._path(order)
        inputs: list[str] = []
        uploaded: list[str] = []
        for source in order.sources:
            if isinstance(source, Document):
                response = yield self.request("POST", "/files", body=_upload(source), recovery_token=_clue(uploaded))
                uploaded.append(self.payload(response).text("id"))
                inputs.append(uploaded[-1])
            elif isinstance(source, Stored):
                inputs.append(source.id)
        body = {**_filled_in(order), **order.options}
        if inputs:
            body.setdefault("input", inputs if order.native_operation in MANY else inputs[0])
        response = yield self.request("POST", path, json=body, starts_work=True, recovery_token=_clue(uploaded))
        return self.task(self.payload(response))

    def _path(self, order: Submission) -> str:
        native = order.native_operation
        if native in FOLDERS:
            return f"/{FOLDERS[native]}/{native}"
        if PATH.fullmatch(native):
            return f"/{native}"
        raise self.unsupported(f"do {printable(native, 60)!r}: its operations are {', '.join(FOLDERS)}")

    def list_queries(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """The whole list: the vendor has no filter, and its order is not documented."""
        del prefixes, now, age
        return (Query(),)

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """``GET /tasks``; of the link to the next page only `from` counts: the documented one lacks the version."""
        del query  # the vendor has no filters
        params: dict[str, str | int] = {"take": PAGE} if cursor is None else {"take": PAGE, "from": cursor}
        said = self.payload((yield self.request("GET", "/tasks", params=params)))
        tasks = tuple(self.task(each) for each in said.children("data"))
        links = said.maybe_child("links")
        link = None if links is None else links.maybe_text("next")
        if not link or not tasks:
            return Page(tasks)
        start = parse_qs(urlsplit(link).query).get("from")
        if not start:
            raise MalformedResponse("the link to the next page does not say from where", raw=link)
        return Page(tasks, start[0])

    def recover(self, recovery_token: Mapping[str, Any]) -> Flow[Task | None]:
        """Look through ``GET /tasks`` for the file that was uploaded for the order, and for nothing else."""
        uploaded = set(cast("list[str]", recovery_token.get("files") or []))
        if not uploaded:
            raise self.unsupported("look for an order that it got no file for; look through its list")
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = yield from self.list_page(Query(), cursor)
            found = next((task for task in page.tasks if uploaded & _inputs(task)), None)
            cursor = page.next_cursor
            if found is not None or cursor is None:
                return found
        raise self.unsupported(f"look further than {MOST_PAGES * PAGE} tasks for an order")

    # What the vendor tells unasked.

    def parse_webhook(self, delivery: Delivery) -> WebhookEvent:
        """See `webhook`, beside this file."""
        return read_delivery(self, delivery)

    # Translation.

    def task(self, payload: Payload, asked: str | None = None) -> Task:
        """A task from the bare object of an answer.

        Args:
            payload: The vendor's object.
            asked: The shared id it was asked for.
        """
        native = payload.identifier("id")
        word = payload.text("status")
        state = read_state(STATES, word)
        result = error = None
        if state.status.is_terminal:
            said = payload.maybe_child("result")
            if state.status is TaskStatus.COMPLETED:
                result = None if said is None else _result(said)
            else:
                error = TaskFailure() if said is None else _failure(said)
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=asked or native,
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
        """Read a problem document: `type` ends in the code, and a validation error has `errors` but no `message`.

        Args:
            document: The decoded body.
        """
        said = Payload(document, self.connection, NO_TIME)
        kind = said.maybe_text("type")
        code = kind.rpartition("/")[2] if kind else None
        words = said.maybe_words("message") or _complaints(document.get("errors")) or said.maybe_words("title")
        return ErrorDetails(code or None, words)


def _upload(document: Document) -> Upload:
    kind = document.media_type or "application/octet-stream"  # which the transport guesses from the name
    return Upload((("name", document.name),), "file", document.name, document.content, kind)


def _clue(uploaded: list[str]) -> dict[str, Any]:
    return {"files": list(uploaded)} if uploaded else {}


def _filled_in(order: Submission) -> dict[str, Any]:
    """What the order says beside its options and documents."""
    said: dict[str, Any] = {}
    if order.callback_url is not None:
        said["callback_url"] = order.callback_url
    if order.name is not None and order.native_operation not in UNNAMED:
        said["name"] = order.name
    if order.operation == "extract-text":
        said["format"] = FORMAT
    return said


def _inputs(task: Task) -> set[str]:
    """Ids of the files and tasks that a task works on."""
    parameters = task.raw.get("parameters")
    given: Any = cast("dict[str, Any]", parameters).get("input") if isinstance(parameters, dict) else None
    several = cast("list[object]", given) if isinstance(given, list) else [given]
    return {each for each in several if isinstance(each, str)}


def _result(said: Payload) -> TaskResult | None:
    raw = said.raw
    if not raw:
        return None
    text = said.maybe_text("content")
    data = raw.get("documents") if RESULT_KEYS & raw.keys() else raw
    if text is not None and raw.get("format") == "json":
        data = _decoded(text)
    files = tuple(_file(each) for each in said.children("generated_files"))
    return TaskResult(files=files, text=text, data=data)


def _file(said: Payload) -> TaskFile:
    properties = said.maybe_child("properties")
    return TaskFile(
        id=said.maybe_text("id"),
        name=said.maybe_text("name"),
        size=None if properties is None else properties.maybe_integer("size"),
        media_type=said.maybe_text("type"),
        properties=None if properties is None else properties.raw,
    )


def _failure(said: Payload) -> TaskFailure:
    return TaskFailure(message=said.maybe_words("error"), details=said.raw.get("details"))


def _decoded(text: str) -> Any:
    """What the text says as JSON; the text itself stays beside it, so one that is not JSON loses nothing."""
    try:
        return read_json(text.encode())
    except MalformedResponse:
        return None


def _complaints(errors: object) -> str | None:
    """The texts of ``{field: [text, …]}``, in words."""
    if not isinstance(errors, dict):
        return None
    fields = cast("dict[str, object]", errors)
    said = (f"{field}: {text}" for field, texts in fields.items() if isinstance(texts, list) for text in texts)  # pyright: ignore[reportUnknownVariableType]  # any JSON
    return "; ".join(said) or None
