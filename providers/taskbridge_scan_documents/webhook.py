"""Webhooks of Scan Documents: https://scan-documents.com/docs/webhooks and …/events (read 2026-11-22).

The vendor signs by the svix scheme, which covers a time. `data` has no status: the event's type tells it. The order of
deliveries is not guaranteed. An older edition of the page shows `data` with `object_id` and `object_type`, which says
nothing of the task: it is recognised and refused.

A task's own ``callback_url`` is called with a body that is not documented, and not signed: such a delivery is believed
only as far as a secret in that URL goes, and is no more than a hint to look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from taskbridge.errors import ContractError, InvalidTaskId, MalformedResponse
from taskbridge.models import TaskRef, WebhookEvent
from taskbridge.provider import Delivery, Payload, Webhooks

if TYPE_CHECKING:
    from .provider import ScanDocuments

__all__ = ["WEBHOOKS", "read_delivery"]

# `type` of an event of a task -> the `status` of that task; None where it has none.
#                                                 https://scan-documents.com/docs/events
STATUS_OF: Final[Mapping[str, str | None]] = {
    "task.created": "pending",
    "task.completed": "completed",
    "task.failed": "failed",
    "task.deleted": None,
}

WEBHOOKS: Final = Webhooks(
    events=(*STATUS_OF, "file.created", "file.deleted"),
    scheme="svix (HMAC over id, time and body)",
    signed_time=True,
    per_task=True,
)

SIGNATURES: Final = ("svix-signature", "webhook-signature", "svix-id", "webhook-id")
CALLBACK: Final = "callback"  # our word: what a callback calls itself is unknown
OLD_DATA: Final = frozenset({"object_id", "object_type"})

# Where a callback might name its task: nothing is documented, so the likely places are tried.
PLACES: Final = ("task", "data")
KEYS: Final = ("id", "task_id", "taskId")
TASK_PREFIX: Final = "task_"


def read_delivery(provider: ScanDocuments, delivery: Delivery) -> WebhookEvent:
    """A signed event, or, where nothing is signed, a callback of a task."""
    if any(delivery.header(name) is not None for name in SIGNATURES):
        return _event(provider, delivery.payload(delivery.by_svix()))
    return _callback(provider, delivery, delivery.by_url())


def _event(provider: ScanDocuments, said: Payload) -> WebhookEvent:
    kind = said.text("type")
    event_id = said.text("id")
    data = said.child("data")
    if data.raw.keys() & OLD_DATA:
        raise ContractError("it is of the vendor's old edition (object_id, object_type), which does not tell the task")
    ref = task = None
    if kind.startswith("task."):
        native = data.text("id")
        provider.split_id(native)
        ref = TaskRef.of(said.connection, native)
        status = STATUS_OF.get(kind)
        if status is not None:
            whole = Payload({**data.raw, "status": status}, said.connection, said.observed_at)
            task = replace(provider.task(whole), native_status=None, raw=data.raw)
    return WebhookEvent(
        provider=provider.name,
        connection=said.connection,
        type=kind,
        duplicate_key=f"{said.connection}:{event_id}",
        needs_confirmation=False,
        ref=ref,
        task=task,
        event_id=event_id,
        occurred_at=said.maybe_time("timestamp"),
        raw=said.raw,
    )


def _callback(provider: ScanDocuments, delivery: Delivery, body: bytes) -> WebhookEvent:
    try:
        said = delivery.payload(body)
    except MalformedResponse:
        said = Payload({}, provider.connection, delivery.received_at)
    native = _task_id(provider, said)
    return WebhookEvent(
        provider=provider.name,
        connection=said.connection,
        type=CALLBACK,
        duplicate_key=f"{said.connection}:{CALLBACK} {native or ''} {delivery.digest}",
        needs_confirmation=True,
        ref=None if native is None else TaskRef.of(said.connection, native),
        raw=said.raw,
    )


def _task_id(provider: ScanDocuments, said: Payload) -> str | None:
    inner = (said.maybe_child(place) for place in PLACES)
    for each in (said, *(child for child in inner if child is not None)):
        for key in KEYS:
            native = each.maybe_text(key) or ""
            if native.startswith(TASK_PREFIX) and _is_id(provider, native):
                return native
    return None


def _is_id(provider: ScanDocuments, native: str) -> bool:
    try:
        provider.split_id(native)
    except InvalidTaskId:
        return False
    return True
