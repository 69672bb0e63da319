"""Webhooks of CloudConvert: https://cloudconvert.com/api/v2/webhooks (read 2026-11-22).

The body is ``{"event": …, "job": …}`` with the whole job. The signature covers the raw bytes, escaped slashes included,
and no time, and there is no id of the event: whoever has seen a delivery can send it again for ever, so events are
confirmed by a look-up. The documented example has a job whose `status` is null: the event's name tells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from taskbridge.models import WebhookEvent
from taskbridge.provider import Delivery, Webhooks

if TYPE_CHECKING:
    from .provider import CloudConvert

__all__ = ["WEBHOOKS", "read_delivery"]

# `event` -> the `status` of the job that it stands for.
STATUS_OF: Final[Mapping[str, str]] = {
    "job.created": "waiting",
    "job.finished": "finished",
    "job.failed": "error",
}

WEBHOOKS: Final = Webhooks(
    events=tuple(STATUS_OF),
    scheme="CloudConvert-Signature (HMAC over the body)",
    signed_time=False,
    per_task=True,  # `webhook_url` of a job: finished and failed only
)

SIGNATURE: Final = "cloudconvert-signature"


def read_delivery(provider: CloudConvert, delivery: Delivery) -> WebhookEvent:
    """An event of a job."""
    said = delivery.payload(delivery.by_hex_hmac(SIGNATURE))
    kind = said.text("event")
    job = provider.job(said.child("job"), told=STATUS_OF.get(kind))
    provider.split_id(job.id)
    return WebhookEvent(
        provider=provider.name,
        connection=said.connection,
        type=kind,
        duplicate_key=f"{job.ref} {kind}",
        needs_confirmation=True,
        ref=job.ref,
        task=job,
        raw=said.raw,
    )
