"""Zamzar API v1, according to its official client: https://github.com/zamzar/zamzar-python, 2.0.2 (read 2026-11-25).

Times are UTC, sizes in bytes. Ids are numbers. Objects contain the API key that created them (`key`), so it is removed
before anything is stored. A job with an `export_url` ends only when its exports do. README.md lists what the client
leaves open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from pydantic import SecretStr
from taskbridge.provider import (
    Capabilities,
    Credential,
    Document,
    Downloads,
    ErrorDetails,
    Flow,
    Form,
    IdKind,
    ListPolling,
    Listing,
    NO_TIME,
    OptionTable,
    Page,
    Payload,
    Provider,
    ProviderSettings,
    Query,
    Request,
    State,
    StateTable,
    Stored,
    Submission,
    Upload,
    no_requests,
    path_id,
)
from taskbridge.models import Reason, Task, TaskFailure, TaskFile, TaskResult, TaskStatus

# `status` of a job -> ours.                       zamzar/models/job.py
STATES: Final[StateTable] = {
    "initialising": (TaskStatus.PENDING, None),
    "converting": (TaskStatus.PROCESSING, None),
    "successful": (TaskStatus.COMPLETED, None),
    "failed": (TaskStatus.FAILED, None),
    "cancelled": (TaskStatus.FAILED, Reason.CANCELLED),
}

# `status` of an export -> that of its job.        zamzar/models/export.py, zamzar/facade/job_manager.py
EXPORT_STATES: Final[StateTable] = {
    "initialising": (TaskStatus.PROCESSING, None),
    "uploading": (TaskStatus.PROCESSING, None),
    "successful": (TaskStatus.COMPLETED, None),
    "failed": (TaskStatus.COMPLETED, Reason.INTEGRATION_FAILED),
}

# Neutral operation -> our own name: the vendor has one operation, with a `target_format`.
OPERATIONS: Final[Mapping[str, str]] = {
    "convert": "convert",
    "extract-text": "extract-text",
}
TEXT: Final = "txt"  # `target_format` of extract-text; see "extract text from PDF files" in the client's README

# Neutral operation and option -> the vendor's key, or for each value its own options.    zamzar/facade/zamzar.py
OPTIONS: Final[OptionTable] = {
    "convert": {"to": "target_format"},
    "extract-text": {"text_format": {"plain": {"target_format": TEXT}}},
}

PAGE_SIZE: Final = 50  # jobs, at most: zamzar/api/jobs_api.py
JOB: Final = IdKind(re.compile(r"[1-9][0-9]{0,18}", re.ASCII), noun="job", example="15")


class ZamzarSettings(ProviderSettings):
    """Settings of a Zamzar connection."""

    api_key: SecretStr
    """API key from the developer dashboard."""
    base_url: str = "https://api.zamzar.com/v1"
    """Base URL of the API, with its version; the sandbox is ``https://sandbox.zamzar.com/v1``."""


class Zamzar(Provider[ZamzarSettings]):
    """Zamzar: one job converts one file."""

    name = "zamzar"
    title = "Zamzar"
    docs = "https://developers.zamzar.com/docs"
    Settings = ZamzarSettings
    capabilities = Capabilities(
        kinds=(JOB,),
        authentication="API key",
        reasons=(Reason.CANCELLED, Reason.INTEGRATION_FAILED),
        downloads=Downloads(("files",)),
        operations=OPERATIONS,
        options=OPTIONS,
        inputs=frozenset({"path", "bytes", "stream", "url", "file"}),
        cancel=True,
        listing=Listing(PAGE_SIZE, statuses=frozenset({TaskStatus.COMPLETED})),
        list_polling=ListPolling(PAGE_SIZE),
    )

    # Requests, in the order of a task's life.

    def authorize(self) -> Flow[Credential]:
        """The API key, as a bearer token."""
        return no_requests(Credential({"Authorization": f"Bearer {self.settings.api_key.get_secret_value()}"}))

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /jobs/{id}``."""
        _, native = self.split_id(task_id)
        response = yield self.request("GET", f"/jobs/{native}")
        return self.task(self.payload(response), task_id)

    def download_request(self, file: TaskFile) -> Request:
        """``GET /files/{id}/content``."""
        if file.id is None:
            return super().download_request(file)
        request = self.request("GET", f"/files/{path_id(file.id)}/content", response_type="bytes")
        return replace(request, headers={"Accept": "application/octet-stream"})

    def submit(self, submission: Submission) -> Flow[Task]:
        """``POST /jobs``: a form with the file, the id of a stored file, or a URL that the vendor fetches."""
        fixed = {"target_format": TEXT} if submission.operation == "extract-text" else {}
        body = _form({**fixed, **submission.options}, submission)
        response = yield self.request("POST", "/jobs", body=body, starts_work=True)
        return self.task(self.payload(response))

    def list_queries(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """The whole list: the vendor cannot filter for unfinished jobs."""
        del prefixes, now, age
        return (Query(),)

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """``GET /jobs``, or ``/jobs/successful``; the next page starts after the last job of this one."""
        path = "/jobs/successful" if query.status is TaskStatus.COMPLETED else "/jobs"
        params: dict[str, str | int] = {"limit": PAGE_SIZE} if cursor is None else {"limit": PAGE_SIZE, "after": cursor}
        page = self.payload((yield self.request("GET", path, params=params)))
        tasks = tuple(self.task(each) for each in page.children("data"))
        paging = page.maybe_child("paging")
        last = None if paging is None or len(tasks) < PAGE_SIZE else paging.maybe_integer("last")
        return Page(tasks, None if last is None else str(last))

    def cancel(self, task_id: str) -> Flow[Task]:
        """``DELETE /jobs/{id}``."""
        _, native = self.split_id(task_id)
        response = yield self.request("DELETE", f"/jobs/{native}")
        return self.task(self.payload(response), task_id)

    # Translation.

    def task(self, payload: Payload, task_id: str | None = None) -> Task:
        """Translate the vendor's job object.

        Args:
            payload: The object.
            task_id: The shared id that was requested; None if the object comes from a list or a submission.
        """
        native = payload.integer("id")
        word, state = self._state(payload)
        files = tuple(_file(each) for each in payload.children("target_files"))
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=task_id or str(native),
            native_id=native,
            status=state.status,
            reason=state.reason,
            recognized=state.recognized,
            native_status=word,
            created_at=payload.maybe_time("created_at"),
            finished_at=payload.maybe_time("finished_at"),
            result=TaskResult(files=files) if files and state.status is TaskStatus.COMPLETED else None,
            error=_failure(payload.maybe_child("failure")) if state.status is TaskStatus.FAILED else None,
            raw=_without_keys(payload.raw),
        )

    def _state(self, job: Payload) -> tuple[str, State]:
        """Return the status that decides and its meaning: an export's if the job itself is done."""
        word = job.text("status")
        state = self.state(STATES, word)
        if state.status is not TaskStatus.COMPLETED or job.maybe_text("export_url") is None:
            return word, state
        words = [each.text("status") for each in job.children("exports")]
        if not words:
            return word, State(TaskStatus.PROCESSING)
        exports = [(each, self.state(EXPORT_STATES, each)) for each in words]
        running = (export for export in exports if export[1].status is not TaskStatus.COMPLETED)
        failed = (export for export in exports if export[1].reason is not None)
        return next(running, next(failed, (word, state)))

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read the first of ``{"errors": [{"code": 22, "message": …}]}``.

        Args:
            document: The decoded body.
        """
        for error in Payload(document, self.connection, NO_TIME).children("errors"):
            code = error.maybe_integer("code")
            return ErrorDetails(None if code is None else str(code), error.maybe_message("message"))
        return ErrorDetails()


def _form(options: Mapping[str, Any], submission: Submission) -> Form | Upload:
    fields = tuple((key, value if isinstance(value, str) else json.dumps(value)) for key, value in options.items())
    for source in submission.sources:  # one at most: no operation takes several
        if isinstance(source, Document):
            media_type = source.media_type or "application/octet-stream"
            return Upload(fields, "source_file", source.name, source.content, media_type)
        reference = source.id if isinstance(source, Stored) else source.url
        return Form((*fields, ("source_file", reference)))
    return Form(fields)


def _file(file: Payload) -> TaskFile:
    file_id, file_format = file.maybe_integer("id"), file.maybe_text("format")
    return TaskFile(
        id=None if file_id is None else str(file_id),
        name=file.maybe_text("name"),
        size=file.maybe_integer("size"),
        properties=None if file_format is None else {"format": file_format},
    )


def _failure(failure: Payload | None) -> TaskFailure:
    if failure is None:
        return TaskFailure()
    code = failure.maybe_integer("code")
    return TaskFailure(code=None if code is None else str(code), message=failure.maybe_message("message"))


def _without_keys(value: Any) -> Any:
    """Return the same value without the API key that each object contains."""
    if isinstance(value, Mapping):
        return {name: _without_keys(each) for name, each in value.items() if name != "key"}  # pyright: ignore[reportUnknownVariableType]  # any JSON
    if isinstance(value, list):
        return [_without_keys(each) for each in value]  # pyright: ignore[reportUnknownVariableType]  # any JSON
    return value
