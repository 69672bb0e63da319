"""Zamzar API v1, as its official client tells it: https://github.com/zamzar/zamzar-python, 2.0.2 (read 2026-11-25).

Times are UTC, sizes in bytes. Ids are numbers. Objects repeat the API key that made them (`key`), so it is taken out
before anything is kept. A job with an `export_url` has ended only when its exports have. What the client does not tell
stands in README.md.
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
    read_state,
)
from taskbridge.models import Reason
from taskbridge.models import Task
from taskbridge.models import TaskFailure
from taskbridge.models import TaskFile
from taskbridge.models import TaskResult
from taskbridge.models import TaskStatus

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

# Neutral operation -> ours: the vendor has one, and tells conversions apart by `target_format`.
OPERATIONS: Final[Mapping[str, str]] = {
    "convert": "convert",
    "extract-text": "extract-text",
}
TEXT: Final = "txt"  # `target_format` of extract-text; "extract text from PDF files" in the client's README

PAGE: Final = 50  # jobs at most: zamzar/api/jobs_api.py
JOB: Final = IdKind(re.compile(r"[1-9][0-9]{0,18}", re.ASCII), noun="job", example="15")


class ZamzarSettings(ProviderSettings):
    """Settings of a Zamzar connection."""

    api_key: SecretStr
    """API key from the developers' page."""
    base_url: str = "https://api.zamzar.com/v1"
    """Address of the API, with its version; the sandbox is ``https://sandbox.zamzar.com/v1``."""


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
        inputs=frozenset({"path", "bytes", "stream", "url", "file"}),
        cancel=True,
        listing=Listing(PAGE, statuses=frozenset({TaskStatus.COMPLETED})),
        list_polling=ListPolling(PAGE),
    )

    # Requests, in the order in which a task lives.

    def authorize(self) -> Flow[Credential]:
        """The API key, as a bearer token."""
        return no_requests(Credential({"Authorization": f"Bearer {self.settings.api_key.get_secret_value()}"}))

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /jobs/{id}``."""
        _, native = self.split_id(task_id)
        response = yield self.request("GET", f"/jobs/{native}")
        return self.task(self.payload(response), task_id)

    def source(self, file: TaskFile) -> Request:
        """``GET /files/{id}/content``."""
        if file.id is None:
            return super().source(file)
        asked = self.request("GET", f"/files/{path_id(file.id)}/content", response_type="bytes")
        return replace(asked, headers={"Accept": "application/octet-stream"})

    def submit(self, order: Submission) -> Flow[Task]:
        """``POST /jobs``: a form that holds the file, its number, or the URL that the vendor fetches it from."""
        said = {"target_format": TEXT} if order.operation == "extract-text" else {}
        body = _form({**said, **order.options}, order)
        response = yield self.request("POST", "/jobs", body=body, starts_work=True)
        return self.task(self.payload(response))

    def list_queries(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """The whole list: what goes on cannot be picked out."""
        del prefixes, now, age
        return (Query(),)

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """``GET /jobs``, or ``/jobs/successful``; the next page begins after the last job of this one."""
        path = "/jobs/successful" if query.status is TaskStatus.COMPLETED else "/jobs"
        params: dict[str, str | int] = {"limit": PAGE} if cursor is None else {"limit": PAGE, "after": cursor}
        said = self.payload((yield self.request("GET", path, params=params)))
        tasks = tuple(self.task(each) for each in said.children("data"))
        paging = said.maybe_child("paging")
        last = None if paging is None or len(tasks) < PAGE else paging.maybe_integer("last")
        return Page(tasks, None if last is None else str(last))

    def cancel(self, task_id: str) -> Flow[Task]:
        """``DELETE /jobs/{id}``."""
        _, native = self.split_id(task_id)
        response = yield self.request("DELETE", f"/jobs/{native}")
        return self.task(self.payload(response), task_id)

    # Translation.

    def task(self, payload: Payload, asked: str | None = None) -> Task:
        """A task from the bare object of an answer.

        Args:
            payload: The vendor's job.
            asked: The shared id it was asked for.
        """
        native = payload.integer("id")
        word, state = _state(payload)
        files = tuple(_file(each) for each in payload.children("target_files"))
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=asked or str(native),
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

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read ``{"errors": [{"code": 22, "message": …}]}``: the first of them.

        Args:
            document: The decoded body.
        """
        for said in Payload(document, self.connection, NO_TIME).children("errors"):
            code = said.maybe_integer("code")
            return ErrorDetails(None if code is None else str(code), said.maybe_words("message"))
        return ErrorDetails()


def _form(options: Mapping[str, Any], order: Submission) -> Form | Upload:
    fields = tuple((key, value if isinstance(value, str) else json.dumps(value)) for key, value in options.items())
    for source in order.sources:  # there is one at most: no operation takes many
        if isinstance(source, Document):
            kind = source.media_type or "application/octet-stream"  # which the transport guesses from the name
            return Upload(fields, "source_file", source.name, source.content, kind)
        given = source.id if isinstance(source, Stored) else source.url
        return Form((*fields, ("source_file", given)))
    return Form(fields)


def _state(job: Payload) -> tuple[str, State]:
    """The word that decides, and what it means; that of an export where the job itself is done."""
    word = job.text("status")
    state = read_state(STATES, word)
    if state.status is not TaskStatus.COMPLETED or job.maybe_text("export_url") is None:
        return word, state
    exports = [
        (said, read_state(EXPORT_STATES, said)) for each in job.children("exports") if (said := each.text("status"))
    ]
    going_on = (each for each in exports if each[1].status is not TaskStatus.COMPLETED)
    failed = (each for each in exports if each[1].reason is not None)
    none_yet = (word, State(TaskStatus.PROCESSING)) if not exports else (word, state)
    return next(going_on, next(failed, none_yet))


def _file(said: Payload) -> TaskFile:
    number, kind = said.maybe_integer("id"), said.maybe_text("format")
    return TaskFile(
        id=None if number is None else str(number),
        name=said.maybe_text("name"),
        size=said.maybe_integer("size"),
        properties=None if kind is None else {"format": kind},
    )


def _failure(said: Payload | None) -> TaskFailure:
    if said is None:
        return TaskFailure()
    code = said.maybe_integer("code")
    return TaskFailure(code=None if code is None else str(code), message=said.maybe_words("message"))


def _without_keys(value: Any) -> Any:
    """The same without the API key that each object repeats."""
    if isinstance(value, Mapping):
        return {name: _without_keys(each) for name, each in value.items() if name != "key"}  # pyright: ignore[reportUnknownVariableType]  # any JSON
    if isinstance(value, list):
        return [_without_keys(each) for each in value]  # pyright: ignore[reportUnknownVariableType]  # any JSON
    return value
