"""Acme Docs API v1: https://docs.example.com/v1 (an invented vendor; put yours here, and the date you read it).

Describe here what would surprise a reader: units, times without a time zone, several kinds of ids, misleading names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import SecretStr
from taskbridge.errors import QuotaExceeded
from taskbridge.models import Reason, Task, TaskFailure, TaskFile, TaskResult, TaskStatus
from taskbridge.provider import (
    NO_TIME,
    Accepts,
    Capabilities,
    CodeTable,
    Credential,
    Document,
    Downloads,
    ErrorDetails,
    Flow,
    IdKind,
    Listing,
    OptionTable,
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
)

# `state` -> ours. A word that is not in this table counts as processing, with recognized=False.
#                                                  https://docs.example.com/v1/tasks
STATES: Final[StateTable] = {
    "waiting": (TaskStatus.PENDING, None),
    "working": (TaskStatus.PROCESSING, None),
    "done": (TaskStatus.COMPLETED, None),
    "broken": (TaskStatus.FAILED, None),
    "stopped": (TaskStatus.FAILED, Reason.CANCELLED),
}

# `code` of an error response -> error class, only where it says more than the HTTP status.
#                                                  https://docs.example.com/v1/errors
CODES: Final[CodeTable] = {
    "out_of_credits": QuotaExceeded,
}

# Neutral operation -> the vendor's name. Any other operation of the vendor is native:….
OPERATIONS: Final[Mapping[str, str]] = {
    "extract-text": "ocr",
    "convert": "convert",
}

# Neutral operation and option -> the vendor's key, which takes any value; or for each value that the vendor can do, its
# own options. What is missing here is refused before anything is sent.      https://docs.example.com/v1/tasks
OPTIONS: Final[OptionTable] = {
    "convert": {"to": {"pdf": {}}},
    "extract-text": {"text_format": {"plain": {}}, "language": "language"},
}

# Vendor's operation -> the documents that it takes; leave out what the vendor does not state.
#                                                  https://docs.example.com/v1/tasks
ACCEPTS: Final[Mapping[str, Accepts]] = {
    "ocr": Accepts(frozenset({"application/pdf", "image/png", "image/jpeg"})),
}

PERCENT: Final = 100.0  # `percent` of a finished task
PAGE_SIZE: Final = 20  # tasks on one page of the list
UPLOAD_LIMIT: Final = 5_000_000  # bytes; "5 MB"

TASK: Final = IdKind(re.compile(r"t_[a-z0-9]{12}", re.ASCII), example="t_4f0c2a9b7d1e")


class AcmeDocsSettings(ProviderSettings):
    """Settings of an Acme Docs connection."""

    api_key: SecretStr
    """API key."""
    base_url: str = "https://api.example.com/v1"
    """Base URL of the API, with its version."""


class AcmeDocs(Provider[AcmeDocsSettings]):
    """Acme Docs: one task processes one document."""

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
        result_parts={"extract-text": frozenset({"text"})},
        operations=OPERATIONS,
        accepts=ACCEPTS,
        options=OPTIONS,
        inputs=frozenset({"path", "bytes", "stream", "url"}),
        fetches_urls=True,
        cancel=True,
        listing=Listing(PAGE_SIZE, sort_order="newest first"),
        upload_limit=UPLOAD_LIMIT,
    )

    # Requests, in the order of a task's life.

    def authorize(self) -> Flow[Credential]:
        """The API key."""
        return no_requests(Credential({"X-Api-Key": self.settings.api_key.get_secret_value()}))

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /tasks/{id}``."""
        _, native = self.split_id(task_id)
        response = yield self.request("GET", f"/tasks/{path_id(native)}")
        return self.task(self.payload(response), task_id)

    def download_request(self, file: TaskFile) -> Request:
        """``GET /files/{id}``."""
        if file.id is None:
            return super().download_request(file)
        request = self.request("GET", f"/files/{path_id(file.id)}", response_type="bytes")
        return replace(request, headers={"Accept": "*/*"})

    def submit(self, submission: Submission) -> Flow[Task]:
        """``POST /tasks``: a form with the document."""
        options = ((key, str(value)) for key, value in submission.options.items())
        fields = (("operation", submission.native_operation), *options)
        for source in submission.sources:  # exactly one: no operation takes several, and the core fetches URLs
            if isinstance(source, Document):
                body = Upload(fields, "document", source.name, source.content)
                # After this request the vendor may have the submission: it is never repeated blindly.
                response = yield self.request("POST", "/tasks", body=body, starts_work=True)
                return self.task(self.payload(response))
        raise self.unsupported("a submission without a document")

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """``GET /tasks``."""
        del query  # the vendor has no filters
        params: dict[str, str | int] = {"limit": PAGE_SIZE} if cursor is None else {"limit": PAGE_SIZE, "from": cursor}
        page = self.payload((yield self.request("GET", "/tasks", params=params)))
        return Page(tuple(self.task(each) for each in page.children("tasks")), page.maybe_text("next"))

    def cancel(self, task_id: str) -> Flow[Task]:
        """``POST /tasks/{id}/stop``."""
        _, native = self.split_id(task_id)
        response = yield self.request("POST", f"/tasks/{path_id(native)}/stop")
        return self.task(self.payload(response), task_id)

    # Translation.

    def task(self, payload: Payload, task_id: str | None = None) -> Task:
        """Translate the vendor's task object.

        Args:
            payload: The object.
            task_id: The shared id that was requested; None if the object comes from a list or a submission.
        """
        native, word = payload.identifier("id"), payload.text("state")
        state = self.state(STATES, word)
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=task_id or native,
            native_id=native,
            status=state.status,
            reason=state.reason,
            recognized=state.recognized,
            native_status=word,
            operation=payload.maybe_text("operation"),
            progress=payload.maybe_fraction("percent", PERCENT),
            created_at=payload.maybe_time("created"),
            finished_at=payload.maybe_time("ended"),
            result=_result(payload) if state.status is TaskStatus.COMPLETED else None,
            error=_failure(payload.maybe_child("problem")) if state.status is TaskStatus.FAILED else None,
            raw=payload.raw,
        )

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read ``{"code": …, "message": …, "request": …}``, the body of an error response.

        Args:
            document: The decoded body.
        """
        body = Payload(document, self.connection, NO_TIME)
        return ErrorDetails(body.maybe_text("code"), body.maybe_message("message"), body.maybe_text("request"))


def _result(task: Payload) -> TaskResult | None:
    files = tuple(
        TaskFile(id=each.maybe_text("id"), name=each.maybe_text("name"), size=each.maybe_integer("bytes"))
        for each in task.children("files")
    )
    text = task.maybe_text("text")
    return TaskResult(files=files, text=text) if files or text is not None else None


def _failure(problem: Payload | None) -> TaskFailure:
    if problem is None:
        return TaskFailure()
    return TaskFailure(code=problem.maybe_text("code"), message=problem.maybe_message("message"))
