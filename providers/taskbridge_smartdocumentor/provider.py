"""SmartDocumentor API v1.0: https://docs.smartdocumentor.net/technical/api-reference/get-task-status (read 2026-11-22).

The vendor publishes more than could be read: the table of task states beyond row 35, the integration states, and the
sections "Document Size Limits", "Uploading your own files" and "Responses". What is missing here for that reason is
marked as such; a user can map further status words with the setting `states`.

Times in seconds. A task is addressed by its number (``44``) or by the caller's own id (``external/INV-7``). The status
text takes precedence over the status number; the integration status never decides. Terminal is not final here: a task
goes back when it is reprocessed, or when the downstream system refuses its export. Error responses have empty bodies.

There is one operation: what is done to a document is configured per workspace. Documents are given by URL and have to
be readable there as long as the task lives. Every submission has an external id, one of ours if the caller gives none,
because an uncertain submission can be found by nothing else.

Webhooks (…/technical/webhooks): a workspace's export is sent when a document has been reviewed, by a person or
automatically. It comes in one of several shapes, which have only `taskId` in common. No signature is known, so the
export's URL has to contain a secret, and each delivery is confirmed by a status request. Any response but 2xx sends the
document back to review.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlencode, urljoin

from pydantic import SecretStr, model_validator

from taskbridge.errors import AuthenticationError, InvalidInput, MalformedResponse, TaskNotFound, printable
from taskbridge.models import (
    Reason,
    Task,
    TaskFailure,
    TaskRef,
    TaskResult,
    TaskStatus,
    Usage,
    UsageUnit,
    WebhookEvent,
)
from taskbridge.provider import (
    BEARER_TOKEN,
    NO_TIME,
    Capabilities,
    CodeTable,
    Credential,
    Delivery,
    Downloads,
    ErrorDetails,
    Flow,
    IdKind,
    Link,
    Listing,
    ListPolling,
    OptionTable,
    Page,
    Payload,
    Provider,
    ProviderSettings,
    Query,
    Request,
    Response,
    State,
    StateTable,
    Submission,
    Webhooks,
    clip_seconds,
    path_id,
    read_state,
)

# `taskStatusText` -> ours; rows with * are patterns for names that we could not read (the vendor's table has more rows
# after row 35), tried in this order.
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
    "*Recogni*": (TaskStatus.PROCESSING, None),  # "recognizing" in prose; we could not read the names
}

# `taskStatus` -> the name of the same row.       https://docs.smartdocumentor.net/technical/mappings
NAMES: Final[Mapping[int, str]] = {
    4: "InReview",  # only in the samples of get-task-status: it fits no row that we could read
    19: "Deleting",
    20: "Deleted",
    30: "QueuedForPreProcessing",
    31: "PreProcessingInProgress",
    32: "PreProcessingFailed",
    33: "PreProcessingDownloadFailed",
    34: "PreProcessingSuccessful",
    35: "PreProcessingGetPagesFailed",  # we could not read beyond this row
}

# `integrationStatusText` -> what it adds to a task that has not failed.    get-task-status, sample
INTEGRATION: Final[StateTable] = {
    "Failed": (TaskStatus.PROCESSING, Reason.INTEGRATION_FAILED),  # only the reason counts
}

# `integrationStatus` -> its name; we could not read the table. 1 and 2 are filter examples without names.
INTEGRATION_NAMES: Final[Mapping[int, str]] = {4: "Failed"}

PROCESS: Final = "process"  # the only operation: technical/api-reference/post-create-task

# Neutral operation and option -> the vendor's key.        technical/api-reference/post-create-task
OPTIONS: Final[OptionTable] = {
    "extract-text": {"language": "context.transcriptLanguage"},  # documented for transcription: audio and video
}

# Neutral operation -> what a result can have.    technical/api-reference/get-get-export-data
RESULT_PARTS: Final[Mapping[str, frozenset[str]]] = {"extract-text": frozenset({"pages", "fields"})}

TASK: Final = IdKind(re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII), example="44")
EXTERNAL: Final = IdKind(
    # Printable: no controls, line ends, invisible or bidi marks, surrogates.
    re.compile(r"[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff\ud800-\udfff]{1,512}"),
    "external",
    "task by your own id",
    identity="external_id",
    example="external/INV-7",
)

# Query parameters of the list, as the vendor spells them.    technical/api-reference/get-task-status-list-paginated
FILTERS: Final = frozenset(
    {
        "startDate",
        "endDate",
        "taskStatus",
        "integrationStatus",
        "workspaceId",
        "externalIntegrationStatus",
        "sort",
    }
)
PAGE_SIZE: Final = 50  # tasks; the vendor's default is 10
LABEL_LIMIT: Final = 32  # characters of an externalIntegrationStatus
FIRST_DATE: Final = "2000-01-01T00:00:00Z"  # before any task: the list requires a date
CLOCK_SKEW: Final = timedelta(hours=1)  # between the vendor's clock and ours
MAX_EXPORT: Final = 64 << 20  # bytes; an export contains all recognized entities of a document
EXPORT: Final = "export"  # our word: a delivery does not name its event


class SmartDocumentorSettings(ProviderSettings):
    """Settings of a SmartDocumentor connection: client credentials, or a token that the caller renews."""

    usual = ("client_id", "client_secret")
    # Our choice: the vendor has no client, and no page names a variable.
    variables = MappingProxyType(
        {"client_id": "SMARTDOCUMENTOR_CLIENT_ID", "client_secret": "SMARTDOCUMENTOR_CLIENT_SECRET"}
    )

    client_id: str | None = None
    """OAuth client id of the organization."""
    client_secret: SecretStr | None = None
    """OAuth client secret. It is valid for at most a year, and a new one invalidates it."""
    access_token: SecretStr | None = None
    """A token obtained elsewhere. It is valid for 3600 s and not renewed."""
    base_url: str = "https://cloud.smartdocumentor.net/api/v1.0/external"
    """Address of the API, with its version."""
    token_url: str | None = None
    """Address of the token service. Default: ``/connect/token`` on the host of `base_url`."""
    usage_unit: Literal["pages", "minutes"] = "pages"
    """What the vendor's `totalPages` counts: pages of documents, or minutes of audio and video. Its answers do not say
    which."""

    @model_validator(mode="after")
    def _one_credential(self) -> SmartDocumentorSettings:
        self.require_one_credential()
        return self


class SmartDocumentor(Provider[SmartDocumentorSettings]):
    """SmartDocumentor: tasks by number (``44``) and by the caller's id (``external/INV-7``)."""

    name = "smartdocumentor"
    title = "SmartDocumentor"
    docs = "https://docs.smartdocumentor.net/technical/api-reference/get-task-status"
    Settings = SmartDocumentorSettings
    # OAuth `error`; its HTTP status is not documented: technical/api-reference/post-client-credentials-access-token
    codes: ClassVar[CodeTable] = {"invalid_client": AuthenticationError}
    max_body = MAX_EXPORT
    max_delivery = MAX_EXPORT
    capabilities = Capabilities(
        kinds=(TASK, EXTERNAL),
        authentication="OAuth client credentials",
        separate_result=True,
        reasons=(Reason.AWAITING_REVIEW, Reason.DELETED, Reason.INTEGRATION_FAILED),
        webhooks=Webhooks(
            events=(EXPORT,),
            scheme="a secret of your own in the URL",
            signed_time=False,
            redelivers=False,  # anything but 2xx returns the document to its reviewers
        ),
        operations={"extract-text": PROCESS},
        inputs=frozenset({"url"}),  # what is at the URL: its workspace decides, no page states media types
        options=OPTIONS,
        restart=True,
        mark=True,
        listing=Listing(PAGE_SIZE, FILTERS, sort_order="by createdOn, or by the field that sort names"),
        list_polling=ListPolling(PAGE_SIZE, numbered=True),
        recover="externalId",
        external_id=True,
        downloads=Downloads(("data",)),
        result_parts=RESULT_PARTS,
        result_ttl=31 * 86_400.0,  # then the task is archived: getting-started/main-concepts
        usage=(UsageUnit.PAGES, UsageUnit.MINUTES),
    )
    wait_hints = MappingProxyType(
        {
            Reason.AWAITING_REVIEW: "a review lasts as long as people take",
            TaskStatus.PROCESSING: "a stuck task moves only when it is reprocessed at the vendor",
        }
    )

    # Requests, in the order in which a task lives.

    def authorize(self) -> Flow[Credential]:
        """Get a token for the client credentials, or return the token from the settings."""
        settings = self.settings
        if settings.access_token is not None:
            return Credential.bearer(settings.access_token.get_secret_value())
        form = {
            "grant_type": "client_credentials",
            "scope": "WebAPI",
            "client_id": settings.client_id or "",
            "client_secret": settings.client_secret.get_secret_value() if settings.client_secret else "",
        }
        response = yield Request(
            "POST",
            settings.token_url or urljoin(self.base_url, "/connect/token"),
            headers={"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode(),
            idempotent=True,
            authorized=False,
            response_type="bytes",  # decoded here: a body that cannot be read is not kept, for it may contain the token
        )
        try:
            payload = self.payload(response)
            token = payload.text("access_token")
        except MalformedResponse as error:
            error.raw = None
            raise
        if BEARER_TOKEN.fullmatch(token) is None:
            raise MalformedResponse("the vendor's token cannot be sent in a header")
        lifetime = payload.maybe_number("expires_in")
        if lifetime is None:
            return Credential.bearer(token)
        return Credential.bearer(token, payload.observed_at + timedelta(seconds=clip_seconds(max(lifetime, 0.0))))

    def submit(self, submission: Submission) -> Flow[Task]:
        """``POST /sdtask/process``; the response contains only the number, and the task is queued at once."""
        if submission.native_operation != PROCESS:
            operation = printable(submission.native_operation, 60)
            raise self.unsupported(f"do {operation!r}: its one operation is {PROCESS}")
        options = dict(submission.options)
        body: dict[str, Any] = {"externalId": submission.reference}  # the key is inferred: the page does not state it
        if submission.name is not None:
            body["displayName"] = submission.name
        links = [source.url for source in submission.sources if isinstance(source, Link)]
        if links:
            context: Any = options.pop("context", None)
            body["context"] = {"url": links[0], **(context or {})}
        body |= options
        token = {"external_id": body["externalId"]}
        response = yield self.request("POST", "/sdtask/process", json=body, starts_work=True, recovery_token=token)
        payload = self.payload(response)
        native = payload.integer("taskId")
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=str(native),
            native_id=native,
            status=TaskStatus.PENDING,
            operation=PROCESS,
            external_id=str(body["externalId"]),
            raw=payload.raw,
        )

    def recover(self, recovery_token: Mapping[str, Any]) -> Flow[Task | None]:
        """``GET /sdtask/status?externalId=``."""
        reference = str(recovery_token.get("external_id", ""))
        response = yield self.request("GET", "/sdtask/status", params={"externalId": reference})
        try:
            task = self.task(self.payload(response))
        except TaskNotFound:
            return None
        return task if task.external_id == reference else None

    def get(self, task_id: str) -> Flow[Task]:
        """``GET /sdtask/status`` by `taskId` or `externalId`."""
        response = yield self.request("GET", "/sdtask/status", params=self._id_parameter(task_id))
        return self.task(self.payload(response), task_id)

    def _id_parameter(self, task_id: str) -> Mapping[str, str]:
        kind, native = self.split_id(task_id)
        return {"externalId" if kind is EXTERNAL else "taskId": native}  # the table has taskid, the samples taskId

    def list_queries(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """All tasks since the oldest; which status numbers mean an unfinished task could not be read."""
        del prefixes
        start = now - timedelta(seconds=age) - CLOCK_SKEW
        return (Query(None, {"startDate": start.strftime("%Y-%m-%dT%H:%M:%SZ")}),)

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """``GET /sdtask/statuslistpaginated``, until a page is empty: the page's envelope is not documented."""
        number = int(cursor or 1)
        dates = {} if {"startDate", "endDate"} & query.filters.keys() else {"startDate": FIRST_DATE}
        params = {**dates, **query.filters, "pageNumber": number, "pageSize": query.page_size or PAGE_SIZE}
        response = yield self.request("GET", "/sdtask/statuslistpaginated", params=params)
        tasks = tuple(self.task(row) for row in self._rows(response))
        return Page(tasks, str(number + 1) if tasks else None)

    def _rows(self, response: Response) -> Iterator[Payload]:
        """The rows of a page: a bare list, or the one list in an object."""
        if response.status != 200:
            raise self.error(response)
        document: Any = response.json()
        if document.__class__ is list:
            document = {"rows": document}
        payload = Payload.of(document, self.connection, response.received_at)
        lists = [key for key, value in payload.raw.items() if value.__class__ is list]
        if len(lists) != 1:
            raise MalformedResponse("the page of the list holds no list of tasks, or several", raw=payload.raw)
        return payload.children(lists[0])

    def restart(self, task_id: str) -> Flow[Task]:
        """``PATCH /sdtask/restartprocessing``; its response has no body, so a status request follows."""
        request = self.request(
            "PATCH",
            "/sdtask/restartprocessing",
            params=self._id_parameter(task_id),
            idempotent=False,
            response_type="bytes",
            starts_work=True,
        )
        self.accept((yield request))
        return (yield from self.get(task_id))

    def mark(self, task_id: str, label: str) -> Flow[None]:
        """``PATCH /sdtask/externalIntegrationStatus``: technical/api-reference/patch-external-integration-status."""
        if not label.strip() or len(label) > LABEL_LIMIT:
            raise InvalidInput(f"SmartDocumentor takes a label of 1 to {LABEL_LIMIT} characters that is not blank")
        request = self.request(
            "PATCH",
            "/sdtask/externalIntegrationStatus",
            params=self._id_parameter(task_id),
            json={"externalIntegrationStatus": label},
            idempotent=True,
            response_type="bytes",
        )
        self.accept((yield request))

    # Results and downloads.

    def result(self, task: Task) -> Flow[TaskResult]:
        """``GET /sdtask/GetExportData/{taskid}``: the status response has no result."""
        from .layout import read_fields, read_pages  # noqa: PLC0415  # the model of pages, which no status request needs

        response = yield self.request("GET", f"/sdtask/GetExportData/{path_id(str(task.native_id))}")
        data = self.payload(response).raw
        return TaskResult(data=data, pages=read_pages(data), fields=read_fields(data))

    # Webhooks.

    def parse_webhook(self, delivery: Delivery) -> WebhookEvent:
        """Read an export of a document."""
        payload = delivery.payload(delivery.by_url())
        native = str(payload.integer("taskId"))
        self.split_id(native)
        ref = TaskRef.of(payload.connection, native)
        # A document that is reviewed again is sent again, and a split one once for each part, all with one taskId.
        restarts = payload.maybe_integer("restartCount") or 0
        return WebhookEvent(
            provider=self.name,
            connection=payload.connection,
            type=EXPORT,
            duplicate_key=f"{ref} {EXPORT} {restarts} {delivery.digest}",
            needs_confirmation=True,
            ref=ref,
            raw=payload.raw,
        )

    # Translation.

    def task(self, payload: Payload, requested_id: str | None = None) -> Task:
        """Translate a task from the bare object of a response."""
        native = payload.integer("taskId")
        word, name, state = self._state(payload)
        status, reason, message, error = state.status, state.reason, None, None
        if status is TaskStatus.FAILED:
            error = TaskFailure(code=name, message=name)  # the vendor has no other words for it
        elif failed_integration := _failed_integration(payload):
            reason = reason or Reason.INTEGRATION_FAILED
            message = f"integrationStatus: {failed_integration}"
        return Task(
            provider=self.name,
            connection=payload.connection,
            observed_at=payload.observed_at,
            id=requested_id or str(native),
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
            usage=self._usage(payload, status),
            raw=payload.raw,
        )

    def _usage(self, payload: Payload, status: TaskStatus) -> Usage | None:
        """What was processed; "may be 0 if request is made immediately after Task creation": get-task-status."""
        usage = payload.maybe_usage("totalPages", UsageUnit(self.settings.usage_unit))
        return usage if usage is not None and (usage.amount or status.is_terminal) else None

    def _state(self, payload: Payload) -> tuple[str | None, str | None, State]:
        """The vendor's word, the name of its row and our state: by the status text, else by the status number."""
        raw = payload.raw
        word = payload.text("taskStatusText") if raw.get("taskStatusText") else None
        state = self.state(STATES, word)
        if state.recognized or raw.get("taskStatus") is None:
            return word, word, state
        number = payload.integer("taskStatus")
        name = NAMES.get(number)
        state = self.state(STATES, name or str(number))  # a number without a name may be in the setting `states`
        return word or str(number), word or name or str(number), state

    def error_details(self, document: Mapping[str, Any]) -> ErrorDetails:
        """Read an error of the token service; no other error has a documented body."""
        payload = Payload(document, self.connection, NO_TIME)
        message = payload.maybe_message("error_description") or payload.maybe_message("message")
        return ErrorDetails(payload.maybe_text("error"), message)


# Data that is received.


def _failed_integration(payload: Payload) -> str | None:
    """The vendor's word for a failed integration: the text, else the number's name."""
    word = payload.maybe_message("integrationStatusText")
    number = payload.maybe_integer("integrationStatus")
    if word is None and number is not None:
        word = INTEGRATION_NAMES.get(number)
    return word if read_state(INTEGRATION, word).reason is Reason.INTEGRATION_FAILED else None
