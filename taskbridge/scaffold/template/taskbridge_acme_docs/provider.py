"""Acme Docs API v1: https://docs.example.com/v1 (an invented vendor; put yours here, and the day you read it).

Say here what would surprise a reader: units, times without a zone, ids of several kinds, words that mislead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import SecretStr
from taskbridge.errors import QuotaExceeded
from taskbridge.provider import (
    Capabilities,
    CodeTable,
    Credential,
    Document,
    Downloads,
    ErrorDetails,
    Flow,
    IdKind,
    Listing,
    NO_TIME,
    Page,
    Payload,
    Provider,
    ProviderSettings,
    Query,
    Request,
    StateTable,
    Submission,
    Upload,
    no_requests,
    path_id,
    read_state,
)
from taskbridge.models import Reason
from taskbridge.models import Task
from taskbridge.models import TaskFailure
from taskbridge.models import TaskFile
from taskbridge.models import TaskResult
from taskbridge.models import TaskStatus

# `state` -> ours. A word that stands here not is processing, and not recognised.
#                                                  https://docs.example.com/v1/tasks
STATES: Final[StateTable] = {
    "waiting": (TaskStatus.PENDING, None),
    "working": (TaskStatus.PROCESSING, None),
    "done": (TaskStatus.COMPLETED, None),
    "broken": (TaskStatus.FAILED, None),
    "stopped": (TaskStatus.FAILED, Reason.CANCELLED),
}

# `code` of a refusal -> error, where it says more than the HTTP status.
#                                                  https://docs.example.com/v1/errors
CODES: Final[CodeTable] = {
    "out_of_credits": QuotaExceeded,
}

# Neutral operation -> the vendor's word. Any other word goes as native:….
OPERATIONS: Final[Mapping[str, str]] = {
    "extract-text": "ocr",
    "convert": "convert",
}

WHOLE: Final = 100.0  # `percent`
PAGE: Final = 20  # tasks of one page of the list
UPLOAD_LIMIT: Final = 5_000_000  # bytes; "5 MB"

TASK: Final = IdKind(re.compile(r"t_[a-z0-9]{12}", re.ASCII), example="t_4f0c2a9b7d1e")


class AcmeDocsSettings(ProviderSettings):
    """Settings of an Acme Docs connection."""

    api_key: SecretStr
    """API key."""
    base_url: str = "https://api.example.com/v1"
    """Address of the API, with its version."""


class AcmeDocs(Provider[AcmeDocsSettings]):
    """Acme Docs: one task works on one document."""

    name = "acme-docs"
    title = "Acme Docs"
    docs = "https://docs.example.com/v1"
    Settings = AcmeDocsSettings
    codes = CODES
    capabilities = Capabilities(
        kinds=(TASK,),
        authentication="API key",
        progress=True,
        reasons=(Reason.CANCELLED,),
        downloads=Downloads(("files", "text")),
        operations=OPERATIONS,
        inputs=frozenset({"path", "bytes", "stream", "url"}),
        fetches_urls=True,
        cancel=True,
        listing=Listing(PAGE, order="newest first"),
        upload_limit=UPLOAD_LIMIT,
    )

    # Requests, in the order in which a task lives.

    def authorize(self) -> Flow[Credential]:
        """The API key."""
        return no_requests(Credential({"X-Api-Key": self.settings.api_key.get_secret_value()}))

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /tasks/{id}``."""
        _, native = self.split_id(task_id)
        response = yield self.request("GET", f"/tasks/{path_id(native)}")
        return self.task(self.payload(response), task_id)

    def source(self, file: TaskFile) -> Request:
        """``GET /files/{id}``."""
        if file.id is None:
            return super().source(file)
        asked = self.request("GET", f"/files/{path_id(file.id)}", response_type="bytes")
        return replace(asked, headers={"Accept": "*/*"})

    def submit(self, order: Submission) -> Flow[Task]:
        """``POST /tasks``: a form with the document."""
        fields = (("operation", order.native_operation), *((key, str(value)) for key, value in order.options.items()))
        for source in order.sources:  # there is one: no operation takes many, and URLs are fetched by the core
            if isinstance(source, Document):
                body = Upload(fields, "document", source.name, source.content)
                # The one request after which the vendor may have the order: never repeated blindly.
                response = yield self.request("POST", "/tasks", body=body, starts_work=True)
                return self.task(self.payload(response))
        raise self.unsupported("work without a document")

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """``GET /tasks``."""
        del query  # the vendor has no filters
        params: dict[str, str | int] = {"limit": PAGE} if cursor is None else {"limit": PAGE, "from": cursor}
        said = self.payload((yield self.request("GET", "/tasks", params=params)))
        return Page(tuple(self.task(each) for each in said.children("tasks")), said.maybe_text("next"))

    def cancel(self, task_id: str) -> Flow[Task]:
        """``POST /tasks/{id}/stop``."""
        _, native = self.split_id(task_id)
        response = yield self.request("POST", f"/tasks/{path_id(native)}/stop")
        return self.task(self.payload(response), task_id)

    # Translation.

    def task(self, payload: Payload, asked: str | None = None) -> Task:
        """A task from the object of an answer.

        Args:
            payload: The vendor's object.
            asked: The shared id it was asked for.
        """
        native, word = payload.identifier("id"), payload.text("state")
        state = read_state(STATES, word)
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=asked or native,
            native_id=native,
            status=state.status,
            reason=state.reason,
            recognized=state.recognized,
            native_status=word,
            operation=payload.maybe_text("operation"),
            progress=payload.maybe_fraction("percent", WHOLE),
            created_at=payload.maybe_time("created"),
            finished_at=payload.maybe_time("ended"),
            result=_result(payload) if state.status is TaskStatus.COMPLETED else None,
            error=_failure(payload.maybe_child("problem")) if state.status is TaskStatus.FAILED else None,
            raw=payload.raw,
        )

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read ``{"code": …, "message": …, "request": …}``, the body of a refusal.

        Args:
            document: The decoded body.
        """
        said = Payload(document, self.connection, NO_TIME)
        return ErrorDetails(said.maybe_text("code"), said.maybe_words("message"), said.maybe_text("request"))


def _result(task: Payload) -> TaskResult | None:
    files = tuple(
        TaskFile(id=each.maybe_text("id"), name=each.maybe_text("name"), size=each.maybe_integer("bytes"))
        for each in task.children("files")
    )
    text = task.maybe_text("text")
    return TaskResult(files=files, text=text) if files or text is not None else None


def _failure(said: Payload | None) -> TaskFailure:
    if said is None:
        return TaskFailure()
    return TaskFailure(code=said.maybe_text("code"), message=said.maybe_words("message"))
