"""An emulator of the SmartDocumentor cloud API v1.0, written from its documents; times in seconds.

Labels such as STATUS name the vendor's pages; what was not read on any page is marked as assumed. The vendor publishes
more than could be read: the table of task states (MAP) beyond row 35, the integration states, and parts of other pages.
Error responses have no body, as far as is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from taskbridge.emulator import Host, Plan, VendorEmulator
from taskbridge.emulator.helpers import (
    BearerTokens,
    Endpoint,
    ErrorResponse,
    JsonObject,
    Life,
    as_object,
    from_json,
    random_text,
    routes,
    to_json,
    utc_text,
)
from taskbridge.emulator.webhooks import OutgoingWebhook

PREFIX: Final = "smartdocumentor"
EXPORT: Final = "export"  # our word: a delivery does not name its event
API: Final = "/api/v1.0/external"  # doc STATUS
TOKEN_PATH: Final = "/connect/token"  # noqa: S105  # a path, not a password; doc TOKEN: not under the API's path
TOKEN_LIFETIME_S: Final = 3600  # doc TOKEN
INVALID_CLIENT: Final = {"error": "invalid_client"}  # doc TOKEN

# Optional fields of CreateTaskRequest that are used here -> type: doc CREATE; the key of the external id is assumed.
SUBMIT_FIELDS: Final[Mapping[str, type]] = {
    **dict.fromkeys(("displayName", "description", "externalId"), str),
    **dict.fromkeys(("workspaceId", "batchId", "priority"), int),
}
DEFAULT_WORKSPACE: Final = 1
DEFAULT_PAGE_SIZE: Final = 10  # doc PAGED
FIRST_TASK: Final = 44  # sample of doc STATUS

# Names of states -> numbers; doc MAP, except where noted. We could not read MAP beyond row 35.
NUMBERS: Final[Mapping[str, int]] = {
    "Deleted": 20,
    "QueuedForPreProcessing": 30,
    "PreProcessingInProgress": 31,
    "PreProcessingFailed": 32,
    "PreProcessingDownloadFailed": 33,
    "PreProcessingSuccessful": 34,
    "InReview": 4,  # only in the sample of STATUS; fits no row of MAP that we could read
}
# The states of a working task, each for an equal part of the work. "Recognizing" is only in the prose of MAP;
# we could not read the row with the real name.
WORK: Final = ("PreProcessingInProgress", "PreProcessingSuccessful", "Recognizing")
EXPORTED: Final = "ExportCompleted"  # doc REPROC; we could not read its number
TO_REVIEW: Final = "ToReview"  # "To Review" in doc HOOK; we could not read its row
INTEGRATION_FAILED: Final = ("Failed", 4)  # sample of doc STATUS; we could not read the table of integration states
NEVER_INTEGRATED: Final = "never"  # initial externalIntegrationStatus, also after a restart: doc EXTINT
RETENTION_S: Final = 31 * 86_400.0  # after its end a task is archived: doc CONCEPT
# Keys of doc EXPORT; those of a point could not be read. Values, and their unit, are assumed.
QR_CODE: Final[JsonObject] = {
    "boundingBox": {"height": 80, "width": 80, "left": 40, "bottom": 140, "x": 40, "y": 60, "right": 120, "top": 60},
    "points": [],
}
TOTAL_PAGES: Final = 10  # of every document, after it was read: sample of doc STATUS


@dataclass(slots=True)
class EmulatedTask:
    """One document."""

    id: int  # `taskId`
    number: int  # `taskNumber`, counted within the workspace
    workspace: int  # `workspaceId`
    batch: int | None  # `batchId`
    external_id: str | None  # the caller's id
    name: str  # `displayName`
    description: str | None  # `description`
    url: str  # the document's URL
    created: float  # vendor seconds since the epoch
    life: Life  # its plan, since it was created or restarted
    restarts: int = 0  # how often it was restarted
    integration: tuple[str, int] | None = None  # name and number of the integration state; None if there is none
    label: str = NEVER_INTEGRATED  # `externalIntegrationStatus`
    sent_back: bool = False  # whether the downstream system refused its export, so that it is in review again

    def state(self, now: float) -> str:
        """The name of the state at ``now``."""
        if self.sent_back:
            return TO_REVIEW
        plan = self.life.plan
        match self.life.phase(now):
            case "queued":
                return "QueuedForPreProcessing"
            case "working":
                return WORK[0 if plan.outcome == "failed" else int(self.life.progress(now) * len(WORK))]
            case "review":
                return "InReview"
            case "ended" if plan.outcome == "failed":
                return "PreProcessingFailed" if _can_be_downloaded(self.url) else "PreProcessingDownloadFailed"
            case "ended":
                # `Deleted` is the closest to cancelled: the vendor cannot cancel. That an archived task reads so is
                # assumed, from "moved to history" in doc MAP.
                is_gone = plan.outcome == "cancelled" or now - self.life.finished_at >= RETENTION_S
                return "Deleted" if is_gone else EXPORTED

    def show(self, now: float) -> JsonObject:
        """``GetTaskStatusResponse``: doc STATUS."""
        state = self.state(now)
        unread = state in {"QueuedForPreProcessing", "PreProcessingInProgress"}
        integration, integration_number = self.integration or (None, None)
        row: JsonObject = {
            "taskId": self.id,
            "workspaceId": self.workspace,
            "batchId": self.batch,
            "taskNumber": self.number,
            "externalId": self.external_id,
            "displayName": self.name,
            "description": self.description,
            "createdOn": utc_text(self.created),
            "taskStatus": NUMBERS.get(state),
            "integrationStatus": integration_number,
            "taskStatusText": state,
            "integrationStatusText": integration,
            "totalPages": 0 if unread or state.endswith("Failed") else TOTAL_PAGES,
            "preProcessingStartedOn": utc_text(self.life.submitted_at),  # equals createdOn in the sample
        }
        if self.restarts:
            row["restartCount"] = self.restarts
        return row


@dataclass(slots=True)
class Batch:
    """A group of tasks of one workspace."""

    id: int  # `batchId`
    workspace: int  # `workspaceId`
    name: str  # `displayName`
    description: str | None  # `description`
    created: float  # vendor seconds since the epoch

    def show(self, tasks: Iterable[EmulatedTask]) -> JsonObject:
        """The batch object: doc BATCH."""
        return {
            "batchId": self.id,
            "workspaceId": self.workspace,
            "displayName": self.name,
            "description": self.description,
            "createdOn": utc_text(self.created, digits=7),
            "totalTasks": sum(task.batch == self.id for task in tasks),
            "totalTasksInHistory": 0,
        }


def export_data(task: EmulatedTask, now: float) -> JsonObject:
    """The response of ``GetExportData``: keys of doc EXPORT; the values inside its entities are assumed."""
    row = task.show(now)
    keys = ("taskId", "workspaceId", "batchId", "taskNumber", "externalId", "displayName", "description")
    reviewed = task.life.plan.review > 0
    text: dict[str, Any] = {"type": "Text", "category": "Document", "groupName": None, "chunkNumber": 1}
    empty = {"customFormValues": None, "qrCode": None}
    entities: list[dict[str, Any]] = [{**text, "pageNumber": page, **empty} for page in range(1, TOTAL_PAGES + 1)]
    entities.append({**text, "type": "QrCode", "pageNumber": 1, **empty, "qrCode": QR_CODE})
    return {
        **{key: row[key] for key in keys},
        "originalFileUrl": task.url,
        "totalPages": row["totalPages"],
        "lastCheckoutByUserName": "reviewer" if reviewed else None,
        "lastCheckedOutBy": 1 if reviewed else None,
        "lastCheckedOutUntil": utc_text(task.life.finished_at, digits=3) if reviewed else None,
        "chunks": [{"entities": entities}],
    }


def _can_be_downloaded(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and not (parts.hostname or "").endswith(".invalid")


class SmartDocumentorEmulator(VendorEmulator):
    """The emulated SmartDocumentor: one organization with one pair of credentials.

    A failing task fails with ``PreProcessingDownloadFailed`` if its document's URL cannot exist (a host under
    ``.invalid``, or neither http nor https), otherwise with ``PreProcessingFailed``.
    """

    name = "smartdocumentor"
    token_paths: ClassVar[tuple[str, ...]] = (f"/{PREFIX}{TOKEN_PATH}",)

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._client = (random_text(host.random, 20), random_text(host.random, 40))
        self._tokens = BearerTokens(host.clock)
        self._tasks: dict[int, EmulatedTask] = {}
        self._by_external_id: dict[str, EmulatedTask] = {}
        self._batches: dict[int, Batch] = {}
        self._export_urls: dict[int, list[str]] = {}  # by workspaceId
        self._exported: set[tuple[int, int]] = set()  # taskId, restarts
        self._samples = self._make_samples()

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """The token service, and the API under its own path."""
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/sdtask/status", self._status),
            ("GET", "/sdtask/statuslist", self._status_list),
            ("GET", "/sdtask/statuslistpaginated", self._status_page),
            ("POST", "/sdtask/process", self._create),
            ("GET", "/sdtask/GetExportData/{task_id}", self._export_data),
            ("PATCH", "/sdtask/restartprocessing", self._restart),
            ("PATCH", "/sdtask/externalIntegrationStatus", self._set_label),
            ("POST", "/sdbatch", self._create_batch),
            ("GET", "/sdbatch", self._get_batch),
        ]
        calls = [(method, API + path, endpoint) for method, path, endpoint in table]
        token = routes([("POST", TOKEN_PATH, self._token)], lambda _: None)
        return {PREFIX: [*token, *routes(calls, self._tokens.check)]}

    def settings(self) -> Mapping[str, str]:
        """The credentials, the API's address, and the address of the token service, which is not under it."""
        root = f"{self.host.base_url}/{PREFIX}"
        client_id, client_secret = self._client
        addresses = {"base_url": root + API, "token_url": root + TOKEN_PATH}
        return {"client_id": client_id, "client_secret": client_secret, **addresses}

    def samples(self) -> Mapping[str, str]:
        """``external`` is ``external/<externalId>``; ``cancelled`` is a deleted task."""
        return self._samples

    def error_response(self, status: int, path: str) -> Response | None:
        """Only the body of a refused token is known."""
        return to_json(INVALID_CLIENT, status) if status in {400, 401} and path in self.token_paths else None

    # Token.

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        if (form.get("client_id"), form.get("client_secret")) != self._client:
            return to_json(INVALID_CLIENT, 400)  # status assumed; OAuth has 400 and 401
        if form.get("grant_type") != "client_credentials":
            return to_json({"error": "unsupported_grant_type"}, 400)  # assumed, from OAuth 2
        if form.get("scope") != "WebAPI":
            return to_json({"error": "invalid_scope"}, 400)  # assumed, from OAuth 2
        token = random_text(self.host.random, 64)
        self._tokens.add(token, TOKEN_LIFETIME_S)
        granted = {"access_token": token, "expires_in": TOKEN_LIFETIME_S, "token_type": "Bearer"}
        return to_json({**granted, "scope": "WebAPI"})

    # Status and results.

    async def _status(self, request: Request) -> Response:
        return to_json(self._requested_task(request).show(self.host.clock.time()))

    async def _status_list(self, request: Request) -> Response:
        return to_json(self._matching_rows(request))

    async def _status_page(self, request: Request) -> Response:
        rows = self._matching_rows(request)
        number = _number(request.query_params.get("pageNumber", "1"))
        size = _number(request.query_params.get("pageSize", str(DEFAULT_PAGE_SIZE)))
        if number < 1 or size < 1:
            raise _error(400)  # response assumed
        page = rows[(number - 1) * size : number * size]
        # The envelope is assumed: the vendor shows none.
        return to_json({"pageNumber": number, "pageSize": size, "totalCount": len(rows), "items": page})

    async def _export_data(self, request: Request) -> Response:
        task = self._tasks.get(_number(request.path_params["task_id"]))
        now = self.host.clock.time()
        if task is None or task.state(now) != EXPORTED:
            raise _error(404)  # assumed, also for tasks that are not exported yet
        return to_json(export_data(task, now))

    def _requested_task(self, request: Request) -> EmulatedTask:
        # The page has both `taskId` and `taskid`: any case is accepted (assumed). `taskId` takes precedence (assumed).
        query = {key.lower(): value for key, value in request.query_params.items()}
        if "taskid" in query:
            task = self._tasks.get(_number(query["taskid"]))
        elif "externalid" in query:
            task = self._by_external_id.get(query["externalid"])
        else:
            raise _error(400)
        if task is None:
            raise _error(404)
        return task

    def _matching_rows(self, request: Request) -> list[JsonObject]:
        query = request.query_params
        start, end = _moment(query.get("startDate")), _moment(query.get("endDate"))
        if start is None and end is None:
            raise _error(400)  # response assumed
        now = self.host.clock.time()
        rows = [
            task.show(now)
            for task in self._tasks.values()
            if (start is None or task.created >= start)
            and (end is None or task.created <= end)
            and query.get("externalIntegrationStatus", task.label) == task.label
        ]
        for key in ("taskStatus", "integrationStatus", "workspaceId"):
            if values := {_number(value) for value in query.getlist(key)}:
                rows = [row for row in rows if row[key] in values]
        sort = query.get("sort", "createdOn")
        return sorted(rows, key=lambda row: (row.get(sort) is None, row.get(sort) or 0, row["taskId"]))

    # Tasks and batches.

    async def _create(self, request: Request) -> Response:
        body = _body(await request.body())
        url = (as_object(body.get("context")) or {}).get("url")
        if not isinstance(url, str) or not url or not _has_valid_fields(body):
            raise _error(400)  # response assumed
        batch = self._batches.get(body["batchId"]) if body.get("batchId") is not None else None
        if body.get("batchId") is not None and (batch is None or batch.workspace != _workspace(body)):
            raise _error(400)  # response assumed; that task and batch are in the same workspace is doc CREATE
        if body.get("externalId") in self._by_external_id:
            raise _error(409)  # response assumed; that it must be unique is doc STATUS
        task = self._add(body, url, self._life(f"{body.get('displayName') or ''} {url}"))
        return to_json({"taskId": task.id})  # nothing else about the response is known

    async def _restart(self, request: Request) -> Response:
        task = self._requested_task(request)
        task.life = self._life(f"{task.name} {task.url}")
        task.restarts += 1
        task.sent_back = False
        task.integration = None  # assumed
        task.label = NEVER_INTEGRATED
        return Response()

    async def _set_label(self, request: Request) -> Response:
        task = self._requested_task(request)
        label = _body(await request.body()).get("externalIntegrationStatus")
        if not isinstance(label, str) or not label.strip() or len(label) > 32:
            raise _error(400)  # response assumed; the limit is doc EXTINT
        task.label = label
        return Response()  # response assumed

    async def _create_batch(self, request: Request) -> Response:
        body = _body(await request.body())  # that the fields are JSON is assumed
        name = body.get("displayName")
        if not isinstance(name, str) or not name or not _has_valid_fields(body):
            raise _error(400)  # response assumed
        number = len(self._batches) + 1
        batch = Batch(number, _workspace(body), name, body.get("description"), self.host.clock.time())
        self._batches[number] = batch
        return to_json(batch.show(self._tasks.values()))

    async def _get_batch(self, request: Request) -> Response:
        number = _number(request.query_params.get("batchId", ""))
        if number not in self._batches:
            raise _error(404)  # response assumed
        return to_json(self._batches[number].show(self._tasks.values()))

    def _add(self, body: JsonObject, url: str, life: Life) -> EmulatedTask:
        workspace = _workspace(body)
        task = EmulatedTask(
            id=next(reversed(self._tasks)) + self.host.random.randint(1, 9) if self._tasks else FIRST_TASK,
            number=1 + sum(other.workspace == workspace for other in self._tasks.values()),
            workspace=workspace,
            batch=body.get("batchId"),
            external_id=body.get("externalId"),
            name=body.get("displayName") or f"Task {random_text(self.host.random, 8)}",
            description=body.get("description"),
            url=url,
            created=life.submitted_at,
            life=life,
        )
        self._tasks[task.id] = task
        if task.external_id is not None:
            self._by_external_id[task.external_id] = task
        return task

    def _life(self, subject: str) -> Life:
        plan = self.host.take_plan(subject)
        review = 0.0 if plan.outcome == "failed" else plan.review  # a failed task is not reviewed
        return Life(self.host.clock.time(), replace(plan, review=review))

    # Webhooks.

    def register_export(self, url: str, workspace: int = DEFAULT_WORKSPACE) -> None:
        """Configure a workspace's export, as its settings page does: documents finished from now on are sent.

        Nothing is signed, as far as is known. A document whose export is refused goes back to review. That an export
        has the keys of ``GetExportData``, and that a missing response counts as a refusal, is assumed.
        """
        now = self.host.clock.time()
        self._exported |= {(task.id, task.restarts) for task in self._tasks.values() if task.state(now) == EXPORTED}
        self._export_urls.setdefault(workspace, []).append(url)
        self.host.webhooks.enable()

    def register_webhook(self, url: str, events: Iterable[str] | None = None) -> str:
        """Configure the export of the default workspace; nothing is signed, so the URL contains the secret."""
        if unknown := set(events or ()) - {EXPORT}:
            raise ValueError(f"{self.name} has no event {', '.join(sorted(unknown))}; it has only {EXPORT}")
        secret = random_text(self.host.random, 24)
        self.register_export(f"{url}?key={secret}")
        return secret

    def tick(self) -> None:
        """Send the documents that have been finished since the last call."""
        now = self.host.clock.time()
        for task in self._tasks.values():
            key = (task.id, task.restarts)
            if task.workspace in self._export_urls and key not in self._exported and task.state(now) == EXPORTED:
                self._exported.add(key)
                body = json.dumps(export_data(task, now), separators=(",", ":")).encode()
                for url in self._export_urls[task.workspace]:
                    self._send_export(task, url, body)

    def _send_export(self, task: EmulatedTask, url: str, body: bytes) -> None:
        def on_response(status: int | None) -> None:
            if status is None or not 200 <= status < 300:
                task.sent_back, task.integration = True, INTEGRATION_FAILED

        self.host.webhooks.send(
            OutgoingWebhook(PREFIX, EXPORT, url, body, headers=lambda _: {}, on_response=on_response)
        )

    def _make_samples(self) -> dict[str, str]:
        hour_ago, year_s = self.host.clock.time() - 3600, 365 * 86400.0
        plans = {  # by a word in the document's URL, which applies again after a restart
            "review": ("review", Plan(review=year_s)),
            "completed": ("invoice", Plan()),
            "failed": ("fail", Plan(outcome="failed")),
            "cancelled": ("cancel", Plan(outcome="cancelled")),
            "processing": ("stuck", Plan(outcome="stuck")),
            "pending": ("slow", Plan(queued=year_s)),
            "external": ("invoice", Plan()),
            "integration-failed": ("invoice", Plan()),
        }
        tasks = {label: self._make_sample(label, word, Life(hour_ago, plan)) for label, (word, plan) in plans.items()}
        review = tasks["review"]  # the sample of doc STATUS, except for its batch and its age
        review.integration, review.restarts = INTEGRATION_FAILED, 2
        tasks["integration-failed"].integration = INTEGRATION_FAILED
        labels = {label: str(task.id) for label, task in tasks.items()}
        return {**labels, "external": f"external/{tasks['external'].external_id}"}

    def _make_sample(self, label: str, word: str, life: Life) -> EmulatedTask:
        body: JsonObject = {"displayName": "Task display name", "description": "Task description"}
        if label == "external":
            body["externalId"] = "INV-7"
        return self._add(body, f"https://documents.invalid/{word}.pdf", life)


def _error(status: int) -> ErrorResponse:
    return ErrorResponse(Response(status_code=status))


def _body(content: bytes) -> JsonObject:
    body = from_json(content)
    if body is None:
        raise _error(400)  # response assumed
    return body


def _workspace(body: JsonObject) -> int:
    return body.get("workspaceId") or DEFAULT_WORKSPACE


def _has_valid_fields(body: JsonObject) -> bool:
    return all(body.get(key) is None or type(body[key]) is kind for key, kind in SUBMIT_FIELDS.items())


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise _error(400)  # response assumed
    return int(text)


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _error(400) from None  # response assumed
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
