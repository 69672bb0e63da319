"""An emulator of the SmartDocumentor cloud API v1.0, written from its documents; times in seconds.

Labels such as STATUS name the vendor's pages; what no page says is marked as assumed. Refusals have no body, as far as
is known.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from starlette.responses import Response

from taskbridge.emulator import Plan, VendorEmulator
from taskbridge.emulator.helpers import (
    BearerTokens,
    ErrorResponse,
    JsonObject,
    Life,
    as_object,
    from_json,
    random_text,
    routes,
    to_json,
)

from .emulator_tasks import EXPORTED, INTEGRATION_FAILED, UNTOUCHED, Batch, Task, export_data
from .emulator_webhooks import Exports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from taskbridge.emulator import Host
    from taskbridge.emulator.helpers import Endpoint

__all__ = ["SmartDocumentorEmulator"]

PREFIX: Final = "smartdocumentor"
API: Final = "/api/v1.0/external"  # doc STATUS
TOKEN_PATH: Final = "/connect/token"  # noqa: S105  # a path, not a password; doc TOKEN: not below the API's path
TOKEN_LIFETIME_S: Final = 3600  # doc TOKEN
TOKEN_ERROR_STATUS: Final = 400  # assumed; OAuth has 400 and 401

# Optional fields of CreateTaskRequest that count here -> type: doc CREATE; the key of the external id is assumed.
ORDER_FIELDS: Final[Mapping[str, type]] = {
    "displayName": str,
    "description": str,
    "workspaceId": int,
    "batchId": int,
    "priority": int,
    "externalId": str,
}
LABEL_LIMIT: Final = 32  # characters: doc EXTINT
DEFAULT_WORKSPACE: Final = 1
DEFAULT_PAGE_SIZE: Final = 10  # doc PAGED
FIRST_TASK: Final = 44  # sample of doc STATUS


class SmartDocumentorEmulator(VendorEmulator):
    """SmartDocumentor on this machine: one organisation with one pair of credentials.

    A document's address that cannot exist (host below ``.invalid``, or neither http nor https) makes a failing task
    fail with ``PreProcessingDownloadFailed``; any other fails with ``PreProcessingFailed``.
    """

    name = "smartdocumentor"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._client = (random_text(host.random, 20), random_text(host.random, 40))
        self._tokens = BearerTokens(host.clock)
        self._tasks: dict[int, Task] = {}
        self._by_external_id: dict[str, Task] = {}
        self._batches: dict[int, Batch] = {}
        self._exports = Exports(host)
        self._samples = self._make_samples()

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """The token call, and the API below its own path."""
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
        """The credentials, the API's address, and the token's address, which is not below it."""
        identity, secret = self._client
        root = f"{self.host.base_url}/{PREFIX}"
        return {
            "client_id": identity,
            "client_secret": secret,
            "base_url": root + API,
            "token_url": root + TOKEN_PATH,
        }

    def samples(self) -> Mapping[str, str]:
        """``external`` is written ``external/<externalId>``; ``cancelled`` is a deleted task."""
        return self._samples

    def register_export(self, url: str, workspace: int = DEFAULT_WORKSPACE) -> None:
        """Configure a workspace's export, as its settings page does: documents that are done from now on are sent.

        Args:
            url: Where they are sent; nothing is signed.
            workspace: ``workspaceId``.
        """
        done = [task for task in self._tasks.values() if task.state(self.host.clock.time()) == EXPORTED]
        self._exports.add(url, workspace, done)

    def subscribe(self, url: str) -> str:
        """The export of the default workspace; nothing is signed, so the secret goes into the address."""
        secret = random_text(self.host.random, 24)
        self.register_export(f"{url}?key={secret}")
        return secret

    def tick(self) -> None:
        """Send the documents that are done."""
        self._exports.send(self._tasks.values(), self.host.clock.time())

    # Token.

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        if (form.get("client_id"), form.get("client_secret")) != self._client:
            return to_json({"error": "invalid_client"}, TOKEN_ERROR_STATUS)
        if form.get("grant_type") != "client_credentials":
            return to_json({"error": "unsupported_grant_type"}, TOKEN_ERROR_STATUS)  # assumed, from OAuth 2
        if form.get("scope") != "WebAPI":
            return to_json({"error": "invalid_scope"}, TOKEN_ERROR_STATUS)  # assumed, from OAuth 2
        token = random_text(self.host.random, 64)
        self._tokens.add(token, TOKEN_LIFETIME_S)
        granted = {"access_token": token, "expires_in": TOKEN_LIFETIME_S, "token_type": "Bearer"}
        return to_json({**granted, "scope": "WebAPI"})

    # Reading.

    async def _status(self, request: Request) -> Response:
        return to_json(self._asked(request).show(self.host.clock.time()))

    async def _status_list(self, request: Request) -> Response:
        return to_json(self._found(request))

    async def _status_page(self, request: Request) -> Response:
        found = self._found(request)
        number = _number(request.query_params.get("pageNumber", "1"))
        size = _number(request.query_params.get("pageSize", str(DEFAULT_PAGE_SIZE)))
        if number < 1 or size < 1:
            raise _refusal(400)  # answer assumed
        page = found[(number - 1) * size : number * size]
        # The envelope is assumed: the vendor shows none.
        return to_json({"pageNumber": number, "pageSize": size, "totalCount": len(found), "items": page})

    async def _export_data(self, request: Request) -> Response:
        task = self._tasks.get(_number(request.path_params["task_id"]))
        now = self.host.clock.time()
        if task is None or task.state(now) != EXPORTED:
            raise _refusal(404)  # assumed, also for tasks that are not exported yet
        return to_json(export_data(task, now))

    def _asked(self, request: Request) -> Task:
        # The page writes both `taskId` and `taskid`: any case is taken (assumed). `taskId` wins (assumed).
        query = {key.lower(): value for key, value in request.query_params.items()}
        if "taskid" in query:
            task = self._tasks.get(_number(query["taskid"]))
        elif "externalid" in query:
            task = self._by_external_id.get(query["externalid"])
        else:
            raise _refusal(400)
        if task is None:
            raise _refusal(404)
        return task

    def _found(self, request: Request) -> list[JsonObject]:
        query = request.query_params
        start, end = _moment(query.get("startDate")), _moment(query.get("endDate"))
        if start is None and end is None:
            raise _refusal(400)  # answer assumed
        now = self.host.clock.time()
        tasks = [
            task
            for task in self._tasks.values()
            if (start is None or task.created >= start)
            and (end is None or task.created <= end)
            and query.get("externalIntegrationStatus", task.label) == task.label
        ]
        shown = [task.show(now) for task in tasks]
        for key in ("taskStatus", "integrationStatus", "workspaceId"):
            if wanted := {_number(value) for value in query.getlist(key)}:
                shown = [row for row in shown if row[key] in wanted]
        order = query.get("sort", "createdOn")
        return sorted(shown, key=lambda row: (row.get(order) is None, row.get(order) or 0, row["taskId"]))

    # Changing.

    async def _create(self, request: Request) -> Response:
        order = _body(await request.body())
        url = (as_object(order.get("context")) or {}).get("url")
        if not isinstance(url, str) or not url or not _is_order(order) or not self._fits_batch(order):
            raise _refusal(400)  # answer assumed
        if order.get("externalId") in self._by_external_id:
            raise _refusal(409)  # answer assumed; that it must be unique is doc STATUS
        task = self._add(order, url, self._life(f"{order.get('displayName') or ''} {url}"))
        return to_json({"taskId": task.id})  # nothing else about the answer is known

    async def _restart(self, request: Request) -> Response:
        task = self._asked(request)
        task.life = self._life(f"{task.name} {task.url}")
        task.restarts += 1
        task.sent_back = False
        task.integration = None  # assumed
        task.label = UNTOUCHED
        return Response()

    async def _set_label(self, request: Request) -> Response:
        task = self._asked(request)
        label = _body(await request.body()).get("externalIntegrationStatus")
        if not isinstance(label, str) or not label.strip() or len(label) > LABEL_LIMIT:
            raise _refusal(400)  # answer assumed
        task.label = label
        return Response()  # answer assumed

    async def _create_batch(self, request: Request) -> Response:
        order = _body(await request.body())  # that the fields are JSON is assumed
        name = order.get("displayName")
        if not isinstance(name, str) or not name or not _is_order(order):
            raise _refusal(400)  # answer assumed
        number = len(self._batches) + 1
        batch = Batch(number, _workspace(order), name, order.get("description"), self.host.clock.time())
        self._batches[number] = batch
        return to_json(batch.show(self._tasks.values()))

    async def _get_batch(self, request: Request) -> Response:
        batch = self._batches.get(_number(request.query_params.get("batchId", "")))
        if batch is None:
            raise _refusal(404)  # answer assumed
        return to_json(batch.show(self._tasks.values()))

    def _add(self, order: JsonObject, url: str, life: Life) -> Task:
        workspace = _workspace(order)
        task = Task(
            id=next(reversed(self._tasks)) + self.host.random.randint(1, 9) if self._tasks else FIRST_TASK,
            number=1 + sum(other.workspace == workspace for other in self._tasks.values()),
            workspace=workspace,
            batch=order.get("batchId"),
            external_id=order.get("externalId"),
            name=order.get("displayName") or f"Task {random_text(self.host.random, 8)}",
            description=order.get("description"),
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
        review = 0.0 if plan.outcome == "failed" else plan.review  # nobody reviews what could not be read
        return Life(self.host.clock.time(), replace(plan, review=review))

    def _fits_batch(self, order: JsonObject) -> bool:
        """Whether task and batch share a workspace: doc CREATE."""
        batch = order.get("batchId")
        return batch is None or (batch in self._batches and self._batches[batch].workspace == _workspace(order))

    # Samples.

    def _make_samples(self) -> dict[str, str]:
        hour_ago, year_s = self.host.clock.time() - 3600, 365 * 86400.0
        plans = {  # by the word in the document's address, which speaks again after a restart
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
        review = tasks["review"]  # the sample of doc STATUS, its batch and its age apart
        review.integration, review.restarts = INTEGRATION_FAILED, 2
        tasks["integration-failed"].integration = INTEGRATION_FAILED
        labels = {label: str(task.id) for label, task in tasks.items()}
        return {**labels, "external": f"external/{tasks['external'].external_id}"}

    def _make_sample(self, label: str, word: str, life: Life) -> Task:
        order: JsonObject = {"displayName": "Task display name", "description": "Task description"}
        if label == "external":
            order["externalId"] = "INV-7"
        return self._add(order, f"https://documents.invalid/{word}.pdf", life)


def _refusal(status: int) -> ErrorResponse:
    return ErrorResponse(Response(status_code=status))


def _body(body: bytes) -> JsonObject:
    order = from_json(body)
    if order is None:
        raise _refusal(400)  # answer assumed
    return order


def _workspace(order: JsonObject) -> int:
    return order.get("workspaceId") or DEFAULT_WORKSPACE


def _is_order(order: JsonObject) -> bool:
    return all(order.get(key) is None or type(order[key]) is kind for key, kind in ORDER_FIELDS.items())


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise _refusal(400)  # answer assumed
    return int(text)


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _refusal(400) from None  # answer assumed
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
