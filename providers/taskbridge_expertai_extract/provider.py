"""expert.ai Extract Beta: https://docs.expert.ai/extract/latest/reference/status/ (read 2026-11-22).

Times in seconds, sizes in bytes, boxes in pixels at 100 DPI. Every state comes with HTTP 200, failures included. The
response has no id and no times except the end's, and each status request returns the whole result again. Only `state`
decides: not `current`, which falls to 0 on failure, and not `message`, whose wording differs between the vendor's own
documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from json import dumps
from types import MappingProxyType
from typing import Any, Final, cast

from pydantic import SecretStr, model_validator

from taskbridge.errors import MalformedResponse, printable
from taskbridge.models import Reason, Task, TaskFailure, TaskFile, TaskResult, TaskStatus, Usage, UsageUnit
from taskbridge.provider import (
    BEARER_TOKEN,
    NO_TIME,
    PLAIN_ID,
    Accepts,
    Base64,
    Capabilities,
    Credential,
    Document,
    Downloads,
    ErrorDetails,
    Flow,
    GeneratedFile,
    IdKind,
    OptionTable,
    Payload,
    Provider,
    ProviderSettings,
    Request,
    StateTable,
    Submission,
    as_json,
    path_id,
)

from .wire import decode_words, layout_text, token_expiry

# `state` -> ours.                                https://docs.expert.ai/extract/latest/reference/status/
STATES: Final[StateTable] = {
    "PENDING": (TaskStatus.PENDING, None),  # also, it seems, for an id that the vendor does not know
    "RECEIVED": (TaskStatus.PENDING, None),  # a word of Celery's, as are all without a source here
    "PROGRESS": (TaskStatus.PROCESSING, None),
    "STARTED": (TaskStatus.PROCESSING, None),
    "RETRY": (TaskStatus.PROCESSING, None),  # will be tried again: not a failure
    "SUCCESS": (TaskStatus.COMPLETED, None),  # partial if `result.header.errorPages` is above 0
    "FAILURE": (TaskStatus.FAILED, None),
    "ABORTED": (TaskStatus.FAILED, Reason.CANCELLED),  # extract-python, RecognitionTaskOutput
    "REVOKED": (TaskStatus.FAILED, Reason.CANCELLED),
}

LAYOUT: Final = "layout-document-async"  # the only operation: …/latest/reference/layout-document-async/

# Neutral operation and option -> for each value the vendor's own options: it has none.
OPTIONS: Final[OptionTable] = {
    "extract-text": {"text_format": {"plain": {}}},  # `content` of the layout: …/latest/reference/results/
}

# Operation -> the documents that it takes.       https://docs.expert.ai/extract/latest/reference/layout-document-async/
ACCEPTS: Final[Mapping[str, Accepts]] = {LAYOUT: Accepts(frozenset({"application/pdf"}))}  # of at most 500 pages

# Neutral operation -> what a result can have.    https://docs.expert.ai/extract/latest/reference/results/
RESULT_PARTS: Final[Mapping[str, frozenset[str]]] = {"extract-text": frozenset({"text", "pages"})}

TASK: Final = IdKind(PLAIN_ID, identity=None, example="5c1dd1d8-3a2b-4f6a-9b0e-2f8b7c1d6e5f")  # opaque

# Bytes of a PDF whose base64 and the JSON around it fill a request of "14 MB", read generously.
UPLOAD_LIMIT: Final = ((14 << 20) - 1024) * 3 // 4
PLACEHOLDER: Final = "\0document"  # marks where the document goes in the body; no name contains a NUL


class ExpertAiExtractSettings(ProviderSettings):
    """Settings of an expert.ai Extract connection: an account, or a token that the caller renews."""

    usual = ("username", "password")
    # README of expertai-nlapi, the vendor's client for another API of the same account.
    variables = MappingProxyType({"username": "EAI_USERNAME", "password": "EAI_PASSWORD"})

    username: str | None = None
    """User name of the developer account."""
    password: SecretStr | None = None
    """Password of the developer account."""
    access_token: SecretStr | None = None
    """A token obtained elsewhere. It is not renewed."""
    base_url: str = "https://extract.expert.ai/beta"
    """Address of the API."""
    token_url: str = "https://developer.expert.ai/oauth2/token"  # noqa: S105  # an address
    """Address of the token service."""

    @model_validator(mode="after")
    def _one_credential(self) -> ExpertAiExtractSettings:
        self.require_one_credential()
        return self


class ExpertAiExtract(Provider[ExpertAiExtractSettings]):
    """expert.ai Extract: one task recognizes the layout of one PDF."""

    name = "expertai-extract"
    title = "expert.ai Extract"
    docs = "https://docs.expert.ai/extract/latest/reference/status/"
    Settings = ExpertAiExtractSettings
    account_errors = frozenset({403})  # no active subscription
    max_body = 64 << 20  # bytes; the status response contains the result
    capabilities = Capabilities(
        kinds=(TASK,),
        authentication="username and password",
        progress=True,
        reasons=(Reason.CANCELLED, Reason.PARTIAL),
        operations={"extract-text": LAYOUT},
        inputs=frozenset({"path", "bytes", "stream", "url"}),
        fetches_urls=True,
        accepts=ACCEPTS,
        options=OPTIONS,
        downloads=Downloads(("text", "data", "words")),
        result_parts=RESULT_PARTS,
        upload_limit=UPLOAD_LIMIT,
        usage=(UsageUnit.PAGES,),
    )
    wait_hints = MappingProxyType(
        {TaskStatus.PENDING: "an id that expert.ai does not know seems to stay PENDING for ever, so check the id"}
    )

    # Requests, in the order in which a task lives.

    def authorize(self) -> Flow[Credential]:
        """Get a token for the account, or return the token from the settings."""
        settings = self.settings
        if settings.access_token is not None:
            token = settings.access_token.get_secret_value()
            return Credential.bearer(token, token_expiry(token))
        password = settings.password or SecretStr("")
        response = yield Request(
            "POST",
            settings.token_url,
            headers={"Content-Type": "application/json; charset=utf-8"},
            body=dumps({"username": settings.username or "", "password": password.get_secret_value()}).encode(),
            idempotent=True,
            authorized=False,
            response_type="bytes",  # the token itself, as plain text
        )
        if response.status != 200:
            raise self.error(response)
        token = response.body.decode("ascii", "replace").strip()
        if BEARER_TOKEN.fullmatch(token) is None:
            raise MalformedResponse("the answer of the token service is not a token in plain text")
        return Credential.bearer(token, token_expiry(token, response))

    def submit(self, submission: Submission) -> Flow[Task]:
        """``POST /layout-document-async`` with the document as base64; the response contains only the id."""
        if submission.native_operation != LAYOUT:
            operation = printable(submission.native_operation, 60)
            raise self.unsupported(f"do {operation!r}: its one operation is {LAYOUT}")
        body: Base64 | bytes = dumps(dict(submission.options)).encode()
        for source in submission.sources:
            if isinstance(source, Document):
                document = {"name": submission.name or source.name, "data": PLACEHOLDER}
                body = Base64.of({**submission.options, "document": document}, PLACEHOLDER, source.content)
        response = yield self.request("POST", f"/{LAYOUT}", body=body, starts_work=True)
        payload = self.payload(response)
        native = payload.text("taskId")
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=native,
            native_id=native,
            status=TaskStatus.PENDING,
            operation=LAYOUT,
            raw=payload.raw,
        )

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /status/{taskID}``."""
        _, native = self.split_id(task_id)
        response = yield self.request("GET", f"/status/{path_id(native)}")
        return self.task(self.payload(response), task_id)

    # Results and downloads.

    def result(self, task: Task) -> Flow[TaskResult]:
        """The result in the status response, with the text of its layout and its pages."""
        from .layout import read_pages  # noqa: PLC0415  # the model of pages, which no status request needs

        result = yield from super().result(task)
        text = layout_text(result.data) if result.text is None else result.text
        return replace(result, text=text, pages=read_pages(result.data))

    def result_files(self, task: Task, result: TaskResult) -> tuple[TaskFile | GeneratedFile, ...]:
        """The text, the result verbatim, and its words decoded: a list for each page, null if it cannot be read."""
        files = super().result_files(task, result)
        data: Any = result.data
        pages = cast("dict[str, object]", data).get("words") if isinstance(data, dict) else None
        if not isinstance(pages, list):
            return files
        words = [_words(page) for page in cast("list[object]", pages)]
        return (*files, GeneratedFile("words", f"{task.native_id}.words.json", as_json(words)))

    # Translation.

    def task(self, payload: Payload, requested_id: str) -> Task:
        """Translate a task from the bare object of a response, which has no id."""
        word = payload.text("state")
        message = payload.maybe_message("message")
        state = self.state(STATES, word)
        reason, finished_at, usage, result, error = state.reason, None, None, None, None
        if state.status is TaskStatus.COMPLETED:
            data = payload.raw.get("result")
            result = TaskResult(data=data) if data else None
            reason, finished_at, usage = _header(payload)
        elif state.status is TaskStatus.FAILED:
            error = TaskFailure(message=message)
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=requested_id,
            native_id=requested_id,
            status=state.status,
            reason=reason,
            recognized=state.recognized,
            native_status=word,
            progress=payload.maybe_fraction("current", 100.0),  # a percentage
            message=message,
            finished_at=finished_at,
            result=result,
            error=error,
            usage=usage,
            raw=payload.raw,
        )

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read an error: only the body of 403 is known, from what the vendor's client reads of it."""
        payload = Payload(document, self.connection, NO_TIME)
        embedded = payload.maybe_child("_embedded")
        details = () if embedded is None else (each.maybe_message("message") for each in embedded.children("errors"))
        messages = [message for message in (payload.maybe_message("message"), *details) if message]
        return ErrorDetails(message=": ".join(messages) or None)


# Data that is received.


def _header(payload: Payload) -> tuple[Reason | None, datetime | None, Usage | None]:
    """The reason, the end and the pages of a task, from the header of its result."""
    result = payload.maybe_child("result")
    header = None if result is None else result.maybe_child("header")
    if header is None:
        return None, None, None
    missing = header.maybe_number("errorPages") or 0
    reason = Reason.PARTIAL if missing > 0 else None
    return reason, header.maybe_time("conversionDateTime"), header.maybe_usage("totPages", UsageUnit.PAGES)


def _words(page: object) -> list[dict[str, Any]] | None:
    try:
        return [asdict(word) for word in decode_words(str(page))]
    except MalformedResponse:
        return None  # the vendor documents no more than one word a page; the packed text is in the result
