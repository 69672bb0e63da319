"""Exports of SmartDocumentor: https://docs.smartdocumentor.net/technical/webhooks (read 2026-11-22).

A workspace's export is sent when a document has been reviewed, by a person or automatically: that is all it tells, in
one of several shapes that have a `taskId` in common. No signature is known, so a secret has to stand in the export's
URL, and each delivery is confirmed by a look-up. Any answer but 2xx sends the document back to review.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskbridge.models import TaskRef, WebhookEvent
from taskbridge.provider import Delivery, Webhooks

if TYPE_CHECKING:
    from .provider import SmartDocumentor

__all__ = ["MAX_DELIVERY", "WEBHOOKS", "read_delivery"]

EXPORT: Final = "export"  # our word: a delivery does not name itself

WEBHOOKS: Final = Webhooks(
    events=(EXPORT,),
    scheme="a secret of your own in the URL",
    signed_time=False,
)

MAX_DELIVERY: Final = 64 << 20  # bytes; an export holds all recognised entities of a document


def read_delivery(provider: SmartDocumentor, delivery: Delivery) -> WebhookEvent:
    """An export of a document."""
    said = delivery.payload(delivery.by_url())
    native = str(said.integer("taskId"))
    provider.split_id(native)
    ref = TaskRef.of(said.connection, native)
    # A document that is reviewed again is sent again, and a split one once for each part, all with one taskId.
    restarts = said.maybe_integer("restartCount") or 0
    return WebhookEvent(
        provider=provider.name,
        connection=said.connection,
        type=EXPORT,
        duplicate_key=f"{ref} {EXPORT} {restarts} {delivery.digest}",
        needs_confirmation=True,
        ref=ref,
        raw=said.raw,
    )
