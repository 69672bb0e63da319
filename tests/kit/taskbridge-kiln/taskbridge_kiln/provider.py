"""Kiln API v1, an invented vendor whose responses say when to ask again. Times in seconds.

* The HTTP status alone tells the state: 202 while the job is running, 200 once it is over. Only the body of a job that
  is over tells whether it failed: it has a `fault`.
* A queued job is answered with `Retry-After`; a burning one with `ask_in` in the body, in seconds with a fraction.
* `hold` keeps a request open until the job is over, but no longer than that many seconds: then the answer is 202, does
  not say when to ask again, and the request may be held again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr
from taskbridge.models import Task, TaskFailure, TaskResult, TaskStatus
from taskbridge.provider import (
    NO_TIME,
    Capabilities,
    Credential,
    Document,
    Downloads,
    ErrorDetails,
    Flow,
    IdKind,
    Payload,
    Provider,
    ProviderSettings,
    Response,
    StateTable,
    Submission,
    Upload,
    no_requests,
    path_id,
)

# HTTP status of a status request -> ours.
STATES: Final[StateTable] = {
    "202": (TaskStatus.PROCESSING, None),
    "200": (TaskStatus.COMPLETED, None),  # or failed, if there is a `fault`
}

# Neutral operation -> the vendor's name.
OPERATIONS: Final[Mapping[str, str]] = {
    "extract-text": "read",
}

ANSWER_TIME: Final = 15.0  # seconds beyond `hold` that the answer to a long poll may take

JOB: Final = IdKind(re.compile(r"k_[a-z0-9]{12}", re.ASCII), example="k_4f0c2a9b7d1e")


class KilnSettings(ProviderSettings):
    """Settings of a Kiln connection."""

    api_key: SecretStr
    """API key."""
    base_url: str = "https://api.example.com/v1"
    """Base URL of the API, with its version."""
    hold: float = 60.0
    """Seconds for which the vendor is asked to hold a status request; 0 for no long polls."""


class Kiln(Provider[KilnSettings]):
    """Kiln: one job processes one document."""

    name = "kiln"
    title = "Kiln"
    docs = "https://docs.example.com/v1"
    Settings = KilnSettings
    capabilities = Capabilities(
        kinds=(JOB,),
        authentication="API key",
        long_poll=True,
        downloads=Downloads(("text",)),
        operations=OPERATIONS,
        result_parts={"extract-text": frozenset({"text"})},
        inputs=frozenset({"path", "bytes", "stream", "url"}),
        fetches_urls=True,
    )

    # Requests, in the order of a task's life.

    def authorize(self) -> Flow[Credential]:
        """The API key."""
        return no_requests(Credential({"X-Api-Key": self.settings.api_key.get_secret_value()}))

    def submit(self, submission: Submission) -> Flow[Task]:
        """``POST /jobs``: a form with the document."""
        options = ((key, str(value)) for key, value in submission.options.items())
        fields = (("operation", submission.native_operation), *options)
        for source in submission.sources:  # exactly one: no operation takes several, and the core fetches URLs
            if isinstance(source, Document):
                body = Upload(fields, "document", source.name, source.content)
                response = yield self.request("POST", "/jobs", body=body, starts_work=True)
                return self.task(response)
        raise self.unsupported("a submission without a document")

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /jobs/{id}``."""
        return self._get(task_id)

    def long_poll(self, task_id: str) -> Flow[Task] | None:
        """``GET /jobs/{id}?hold=…``, answered at the end, or when that time is over."""
        return self._get(task_id, self.settings.hold) if self.settings.hold > 0.0 else None

    def _get(self, task_id: str, hold: float | None = None) -> Flow[Task]:
        _, native = self.split_id(task_id)
        params = None if hold is None else {"hold": f"{hold:g}"}
        long_poll = None if hold is None else hold + ANSWER_TIME
        response = yield self.request("GET", f"/jobs/{path_id(native)}", params=params, long_poll=long_poll)
        return self.task(response, task_id)

    # Translation.

    def task(self, response: Response, task_id: str | None = None) -> Task:
        """Translate a response about a job.

        Args:
            response: The response; its HTTP status is the state.
            task_id: The shared id that was requested; None for a submission.
        """
        payload = self.payload(response)
        if (pause := payload.maybe_number("ask_in")) is not None:
            response.retry_after = pause
        native, word = payload.identifier("job"), str(response.status)
        state, fault = self.state(STATES, word), payload.maybe_child("fault")
        status = TaskStatus.FAILED if fault is not None and word == "200" else state.status
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=task_id or native,
            native_id=native,
            status=status,
            reason=state.reason,
            recognized=state.recognized,
            native_status=word,
            operation=payload.maybe_text("operation"),
            created_at=payload.maybe_time("made"),
            result=_result(payload) if status is TaskStatus.COMPLETED else None,
            error=_failure(fault) if status is TaskStatus.FAILED else None,
            raw=payload.raw,
        )

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read ``{"code": …, "text": …}``, the body of an error response.

        Args:
            document: The decoded body.
        """
        body = Payload(document, self.connection, NO_TIME)
        return ErrorDetails(body.maybe_text("code"), body.maybe_message("text"))


def _result(job: Payload) -> TaskResult | None:
    text = job.maybe_text("text")
    return None if text is None else TaskResult(text=text)


def _failure(fault: Payload | None) -> TaskFailure:
    if fault is None:
        return TaskFailure()
    return TaskFailure(code=fault.maybe_text("code"), message=fault.maybe_message("text"))
