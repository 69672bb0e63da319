"""What changes something at SmartDocumentor, and its list: technical/api-reference/post-create-task (read 2026-11-22).

There is one operation: what is done to a document is set up per workspace. Documents are given by URL, and have to be
readable there during the whole life of the task. Every order has an external id, one of ours where the caller gave
none, because it is the only thing by which an order of unknown fate is found again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from taskbridge.errors import MalformedResponse, TaskNotFound, printable
from taskbridge.models import Task, TaskStatus
from taskbridge.provider import Flow, Link, Page, Payload, Query, Response, Submission

if TYPE_CHECKING:
    from .provider import SmartDocumentor

PROCESS: Final = "process"

# Query parameters of the list, as the vendor spells them.   technical/api-reference/get-task-status-list-paginated
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
EVER: Final = "2000-01-01T00:00:00Z"  # the list demands a date: before any task
PAGE: Final = 50  # tasks; the vendor's default is 10


def submit(vendor: SmartDocumentor, order: Submission) -> Flow[Task]:
    """``POST /sdtask/process``; the answer has the number alone, and the task is queued at once."""
    if order.native_operation != PROCESS:
        raise vendor.unsupported(f"do {printable(order.native_operation, 60)!r}: its one operation is {PROCESS}")
    options = dict(order.options)
    body: dict[str, Any] = {"externalId": order.reference}  # the key is inferred: the page does not state it
    if order.name is not None:
        body["displayName"] = order.name
    links = [source.url for source in order.sources if isinstance(source, Link)]
    if links:
        own: Any = options.pop("context", None)
        body["context"] = {"url": links[0], **(own or {})}
    body |= options
    recovery_token = {"external_id": body["externalId"]}
    response = yield vendor.request(
        "POST", "/sdtask/process", json=body, starts_work=True, recovery_token=recovery_token
    )
    payload = vendor.payload(response)
    native = payload.integer("taskId")
    return Task(
        provider=vendor.name,
        connection=payload.connection,
        observed_at=payload.observed_at,
        id=str(native),
        native_id=native,
        status=TaskStatus.PENDING,
        operation=PROCESS,
        external_id=str(body["externalId"]),
        raw=payload.raw,
    )


def list_page(vendor: SmartDocumentor, query: Query, cursor: str | None) -> Flow[Page]:
    """``GET /sdtask/statuslistpaginated``, until a page is empty: the page's envelope is not documented."""
    number = int(cursor or 1)
    dates = {} if {"startDate", "endDate"} & query.filters.keys() else {"startDate": EVER}
    params = {**dates, **query.filters, "pageNumber": number, "pageSize": PAGE}
    response = yield vendor.request("GET", "/sdtask/statuslistpaginated", params=params)
    tasks = tuple(vendor.task(row) for row in _rows(vendor, response))
    return Page(tasks, str(number + 1) if tasks else None)


def _rows(vendor: SmartDocumentor, response: Response) -> Iterator[Payload]:
    """The rows of a page: a bare list, or the one list in an object."""
    if response.status != 200:
        raise vendor.error(response)
    document: Any = response.json()
    if document.__class__ is list:
        document = {"rows": document}
    said = Payload.of(document, vendor.connection, response.received_at)
    lists = [key for key, value in said.raw.items() if value.__class__ is list]
    if len(lists) != 1:
        raise MalformedResponse("the page of the list holds no list of tasks, or several", raw=said.raw)
    return said.children(lists[0])


def restart(vendor: SmartDocumentor, task_id: str, params: Mapping[str, str]) -> Flow[Task]:
    """``PATCH /sdtask/restartprocessing``; it is answered without a body, so the task is looked up after it."""
    request = vendor.request(
        "PATCH", "/sdtask/restartprocessing", params=params, idempotent=False, response_type="bytes", starts_work=True
    )
    vendor.accept((yield request))
    return (yield from vendor.get(task_id))


def recover(vendor: SmartDocumentor, recovery_token: Mapping[str, Any]) -> Flow[Task | None]:
    """``GET /sdtask/status?externalId=``."""
    reference = str(recovery_token.get("external_id", ""))
    response = yield vendor.request("GET", "/sdtask/status", params={"externalId": reference})
    try:
        found = vendor.task(vendor.payload(response))
    except TaskNotFound:
        return None
    return found if found.external_id == reference else None
