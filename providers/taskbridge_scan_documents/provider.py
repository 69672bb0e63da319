"""Scan Documents API v1: https://scan-documents.com/docs/tasks (read 2026-11-22).

Times in seconds, sizes in bytes. A result is told by its keys, never by `operation`: the vendor's own specification
labels detect-documents as convert, and operations grow. `status` is a word on a task and an HTTP number in an error
body, so an error body is never read as a task. 409 is about the subscription, not a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import SecretStr

from taskbridge.errors import ApiError, MalformedResponse, QuotaExceeded
from taskbridge.http import Flow, read_json
from taskbridge.model import Task, TaskFailure, TaskFile, TaskResult, TaskStatus, snapshot
from taskbridge.provider import (
    NO_TIME,
    PLAIN_ID,
    Capabilities,
    CodeTable,
    Credential,
    IdKind,
    Payload,
    Provider,
    ProviderSettings,
    StateTable,
    Verdict,
    no_requests,
    path_id,
    read_state,
)

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
    capabilities = Capabilities(kinds=(TASK,), authentication="API key")

    # Requests, in the order in which a task lives.

    def authorise(self) -> Flow[Credential]:
        """The API key; some of the vendor's error pages show a bearer token, its reference and client do not."""
        return no_requests(Credential({"x-api-key": self.settings.api_key.get_secret_value()}))

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /tasks/{id}``."""
        _, native = self.split_id(task_id)
        response = yield self.request("GET", f"/tasks/{path_id(native)}")
        return self.task(self.payload(response), task_id)

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
        return snapshot(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=asked or native,
            native_id=native,
            status=state.status,
            recognised=state.recognised,
            native_status=word,
            operation=payload.maybe_text("operation"),
            created_at=payload.maybe_time("created_at"),
            updated_at=payload.maybe_time("updated_at"),
            result=result,
            error=error,
            raw=payload.raw,
        )

    def verdict(self, document: Mapping[str, Any]) -> Verdict:
        """Read a problem document: `type` ends in the code, and a validation error has `errors` but no `message`.

        Args:
            document: The decoded body.
        """
        said = Payload(document, self.connection, NO_TIME)
        kind = said.maybe_text("type")
        code = kind.rpartition("/")[2] if kind else None
        words = said.maybe_words("message") or _complaints(document.get("errors")) or said.maybe_words("title")
        return Verdict(code or None, words)


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
