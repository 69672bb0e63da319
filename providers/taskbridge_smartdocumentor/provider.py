"""SmartDocumentor API v1.0: https://docs.smartdocumentor.net/technical/api-reference/get-task-status (read 2026-11-22).

Times in seconds. A task is asked for by its number (``44``) or by the caller's own id (``external/INV-7``). The status
text decides before the number, the integration status never does. Terminal is not final here: a task goes back when
it is reprocessed, or when the system behind refuses its export. Refusals have empty bodies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode, urljoin

from pydantic import SecretStr, model_validator

from taskbridge.errors import AuthenticationError, MalformedResponse
from taskbridge.models import Reason, Task, TaskFailure, TaskResult, TaskStatus, WebhookEvent
from taskbridge.provider import (
    NO_TIME,
    Capabilities,
    CodeTable,
    Credential,
    Delivery,
    Downloads,
    ErrorDetails,
    Flow,
    IdKind,
    Listing,
    ListPolling,
    Page,
    Payload,
    Provider,
    ProviderSettings,
    Query,
    Request,
    State,
    StateTable,
    Submission,
    no_requests,
    path_id,
    read_state,
)

from . import orders
from .webhook import MAX_DELIVERY, WEBHOOKS, read_delivery

# `taskStatusText` -> ours; rows with * are for names that are not listed, in this order.
#                                                 https://docs.smartdocumentor.net/technical/mappings
STATES: Final[StateTable] = {
    "Deleting": (TaskStatus.FAILED, Reason.DELETED),
    "Deleted": (TaskStatus.FAILED, Reason.DELETED),
    "QueuedForPreProcessing": (TaskStatus.PENDING, None),
    "PreProcessingInProgress": (TaskStatus.PROCESSING, None),
    "PreProcessingFailed": (TaskStatus.FAILED, None),
    "PreProcessingDownloadFailed": (TaskStatus.FAILED, None),
    "PreProcessingSuccessful": (TaskStatus.PROCESSING, None),  # not the end
    "PreProcessingGetPagesFailed": (TaskStatus.FAILED, None),
    "InReview": (TaskStatus.PROCESSING, Reason.AWAITING_REVIEW),  # get-task-status, sample
    "ToReview": (TaskStatus.PROCESSING, Reason.AWAITING_REVIEW),  # "To Review" in prose
    "ExportCompleted": (TaskStatus.COMPLETED, None),  # patch-reprocess-task
    "Processed": (TaskStatus.COMPLETED, None),  # the vendor's own test for a finished batch
    "*Failed": (TaskStatus.FAILED, None),
    "QueuedFor*": (TaskStatus.PENDING, None),
    "*InProgress": (TaskStatus.PROCESSING, None),
    "*Recogni*": (TaskStatus.PROCESSING, None),  # "recognizing" in prose; the names are not published
}

# `taskStatus` -> the name of the same row.       https://docs.smartdocumentor.net/technical/mappings
NAMES: Final[Mapping[int, str]] = {
    4: "InReview",  # only in the samples of get-task-status: it fits no published row, nothing follows from it
    19: "Deleting",
    20: "Deleted",
    30: "QueuedForPreProcessing",
    31: "PreProcessingInProgress",
    32: "PreProcessingFailed",
    33: "PreProcessingDownloadFailed",
    34: "PreProcessingSuccessful",
    35: "PreProcessingGetPagesFailed",
}

# `integrationStatusText` -> what it adds to a task that has not failed.   get-task-status, sample
INTEGRATION: Final[StateTable] = {
    "Failed": (TaskStatus.PROCESSING, Reason.INTEGRATION_FAILED),  # only the reason counts
}

# `integrationStatus` -> its name; 1 and 2 are filter examples without names.
INTEGRATION_NAMES: Final[Mapping[int, str]] = {
    4: "Failed",
}

# OAuth `error` -> error; its HTTP status is not documented.
#                     https://docs.smartdocumentor.net/technical/api-reference/post-client-credentials-access-token
CODES: Final[CodeTable] = {
    "invalid_client": AuthenticationError,
}

# Kind of id -> query parameter: the sample requests write taskId, the table taskid.
PARAMETERS: Final[Mapping[str, str]] = {
    "": "taskId",
    "external": "externalId",
}

TASK: Final = IdKind(re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII), example="44")
EXTERNAL: Final = IdKind(
    # Printable: no controls, line ends, invisible or bidi marks, surrogates.
    re.compile(r"[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff\ud800-\udfff]{1,512}"),
    "external",
    "task by your own id",
    identity="external_id",
    example="external/INV-7",
)

TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750, section 2.1
EARLIER: Final = timedelta(hours=1)  # before the oldest task's age begins to count: clocks differ


class SmartDocumentorSettings(ProviderSettings):
    """Settings of a SmartDocumentor connection: client credentials, or a token that the caller renews."""

    usual = ("client_id", "client_secret")

    client_id: str | None = None
    """OAuth client id of the organisation."""
    client_secret: SecretStr | None = None
    """OAuth client secret; it lasts a year at most, and a new one ends it."""
    access_token: SecretStr | None = None
    """A token made elsewhere; it lasts 3600 s and is not renewed."""
    base_url: str = "https://cloud.smartdocumentor.net/api/v1.0/external"
    """Address of the API, with its version."""
    token_url: str | None = None
    """Address of the token service; by default ``/connect/token`` on the host of `base_url`."""

    @model_validator(mode="after")
    def _one_credential(self) -> SmartDocumentorSettings:
        pair = (self.client_id is not None, self.client_secret is not None)
        if self.access_token is None and not all(pair):
            raise ValueError("give client_id and client_secret, or access_token")
        if self.access_token is not None and any(pair):
            raise ValueError("access_token stands in for client_id and client_secret: give one or the other")
        return self


class SmartDocumentor(Provider[SmartDocumentorSettings]):
    """SmartDocumentor: tasks by number (``44``) and by the caller's id (``external/INV-7``)."""

    name = "smartdocumentor"
    title = "SmartDocumentor"
    docs = "https://docs.smartdocumentor.net/technical/api-reference/get-task-status"
    Settings = SmartDocumentorSettings
    codes = CODES
    max_body = 64 << 20  # bytes; export data holds all recognised entities of a document
    max_delivery = MAX_DELIVERY
    capabilities = Capabilities(
        kinds=(TASK, EXTERNAL),
        authentication="OAuth client credentials",
        result_apart=True,
        operations={"extract-text": orders.PROCESS},
        inputs=frozenset({"url"}),
        restart=True,
        list_polling=ListPolling(orders.PAGE, numbered=True),
        listing=Listing(orders.PAGE, orders.FILTERS, order="by createdOn, or by the field that sort names"),
        recover="externalId",
        external_id=True,
        downloads=Downloads(("data",)),
        result_ttl=31 * 86_400.0,  # then the task is archived: getting-started/main-concepts
        reasons=(Reason.AWAITING_REVIEW, Reason.DELETED, Reason.INTEGRATION_FAILED),
        webhooks=WEBHOOKS,
    )
    wait_hints = MappingProxyType(
        {
            Reason.AWAITING_REVIEW: "a review lasts as long as people take",
            TaskStatus.PROCESSING: "a stuck task moves only when it is reprocessed at the vendor",
        }
    )

    # Requests, in the order in which a task lives.

    def authorize(self) -> Flow[Credential]:
        """A token for the client credentials, or the token of the settings."""
        settings = self.settings
        if settings.access_token is not None:
            return no_requests(_bearer(settings.access_token.get_secret_value()))
        return self._log_in(settings.client_id or "", settings.client_secret or SecretStr(""))

    def _log_in(self, client_id: str, client_secret: SecretStr) -> Flow[Credential]:
        form = {
            "grant_type": "client_credentials",
            "scope": "WebAPI",
            "client_id": client_id,
            "client_secret": client_secret.get_secret_value(),
        }
        response = yield Request(
            "POST",
            self.settings.token_url or urljoin(self.base_url, "/connect/token"),
            headers={"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode(),
            idempotent=True,
            authorized=False,
            response_type="bytes",  # decoded here, where what cannot be read is not kept: it may hold the token
        )
        try:
            said = self.payload(response)
            token = said.text("access_token")
        except MalformedResponse as error:
            error.raw = None
            raise
        if TOKEN.fullmatch(token) is None:
            raise MalformedResponse("the vendor's token cannot be sent in a header")
        lifetime = said.maybe_number("expires_in")
        expires_at = None if lifetime is None else said.observed_at + timedelta(seconds=min(max(lifetime, 0.0), 1e9))
        return Credential(_bearer(token).headers, expires_at)

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /sdtask/status`` by `taskId` or `externalId`."""
        kind, native = self.split_id(task_id)
        parameter = PARAMETERS.get(kind.prefix, "taskId")
        response = yield self.request("GET", "/sdtask/status", params={parameter: native})
        return self.task(self.payload(response), task_id)

    def result(self, task: Task) -> Flow[TaskResult]:
        """``GET /sdtask/GetExportData/{taskid}``: the status answer has no result."""
        response = yield self.request("GET", f"/sdtask/GetExportData/{path_id(str(task.native_id))}")
        return TaskResult(data=self.payload(response).raw)

    def submit(self, order: Submission) -> Flow[Task]:
        """``POST /sdtask/process``; see `orders`, beside this file, for this and all that follows."""
        return orders.submit(self, order)

    def list_queries(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """All tasks since the oldest; which numbers mean that a task goes on is not published."""
        del prefixes
        began = now - timedelta(seconds=age) - EARLIER
        return (Query(None, {"startDate": began.strftime("%Y-%m-%dT%H:%M:%SZ")}),)

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """``GET /sdtask/statuslistpaginated``."""
        return orders.list_page(self, query, cursor)

    def restart(self, task_id: str) -> Flow[Task]:
        """``PATCH /sdtask/restartprocessing``."""
        kind, native = self.split_id(task_id)
        return orders.restart(self, task_id, {PARAMETERS.get(kind.prefix, "taskId"): native})

    def recover(self, recovery_token: Mapping[str, Any]) -> Flow[Task | None]:
        """``GET /sdtask/status?externalId=``."""
        return orders.recover(self, recovery_token)

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
        native = payload.integer("taskId")
        word, name, state = _state(payload)
        status, reason, message, error = state.status, state.reason, None, None
        if status is TaskStatus.FAILED:
            error = TaskFailure(code=name, message=name)  # the vendor has no other words for it
        elif broken := _broken_integration(payload):
            reason = reason or Reason.INTEGRATION_FAILED
            message = f"integrationStatus: {broken}"
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=asked or str(native),
            native_id=native,
            status=status,
            reason=reason,
            recognized=state.recognized,
            native_status=word,
            message=message,
            created_at=payload.maybe_time("createdOn"),
            started_at=payload.maybe_time("preProcessingStartedOn"),
            error=error,
            external_id=payload.maybe_text("externalId"),
            restarts=0 if payload.raw.get("restartCount") is None else payload.maybe_integer("restartCount"),
            raw=payload.raw,
        )

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read a refusal of the token service; all others have no documented body.

        Args:
            document: The decoded body.
        """
        said = Payload(document, self.connection, NO_TIME)
        return ErrorDetails(
            said.maybe_text("error"), said.maybe_words("error_description") or said.maybe_words("message")
        )


def _state(payload: Payload) -> tuple[str | None, str | None, State]:
    """The vendor's word, the name of its row and our reading: the text decides, else the number, else nobody."""
    raw = payload.raw
    word = payload.text("taskStatusText") if raw.get("taskStatusText") else None
    state = read_state(STATES, word)
    if state.recognized or raw.get("taskStatus") is None:
        return word, word, state
    number = payload.integer("taskStatus")
    name = NAMES.get(number)
    return word or str(number), word or name, read_state(STATES, name)


def _broken_integration(payload: Payload) -> str | None:
    """The vendor's word for an integration that failed: the text, else the number."""
    word = payload.maybe_words("integrationStatusText")
    number = payload.maybe_integer("integrationStatus")
    if word is None and number is not None:
        word = INTEGRATION_NAMES.get(number)
    return word if read_state(INTEGRATION, word).reason is Reason.INTEGRATION_FAILED else None


def _bearer(token: str) -> Credential:
    return Credential({"Authorization": f"Bearer {token}"})
