"""Webhooks of the emulated Scan Documents: endpoints as its dashboard has them, and what is sent to them.

The dashboard has no API, so endpoints are registered by a method of the emulator. The envelope, the signature, the five
seconds for an answer and the 48 hours of repeats are the vendor's; how its pauses grow is assumed.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING, Any, Final

from taskbridge.emulator.helpers import random_text
from taskbridge.emulator.webhooks import OutgoingWebhook, sign_svix

if TYPE_CHECKING:
    from taskbridge.emulator import Host

__all__ = ["EVENTS", "Endpoints"]

VENDOR: Final = "scan-documents"
EVENTS: Final = (  # doc HOOK EVENTS
    "task.created",
    "task.completed",
    "task.failed",
    "task.deleted",
    "file.created",
    "file.deleted",
)
REPEATED_FOR: Final = 48 * 3600.0  # vendor seconds: doc HOOK
GROWING: Final = [30.0 * 2**n for n in range(20)]  # vendor seconds; "exponential" is doc HOOK, the numbers are assumed
PAUSES: Final = tuple(GROWING[n] for n, _ in enumerate(takewhile(lambda t: t <= REPEATED_FOR, accumulate(GROWING))))
KEY_LENGTH: Final = 24  # bytes, as in the published vector of the scheme


@dataclass(frozen=True, slots=True)
class _Endpoint:
    url: str
    events: frozenset[str]
    key: bytes


class Endpoints:
    """The addresses that want to hear of events.

    Args:
        host: Source of secrets, and courier.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._endpoints: list[_Endpoint] = []

    def add(self, url: str, events: Iterable[str] = EVENTS) -> str:
        """Register an endpoint; its signing secret."""
        key = self._host.random.randbytes(KEY_LENGTH)
        self._endpoints.append(_Endpoint(url, frozenset(events), key))
        self._host.webhooks.enable()
        return f"whsec_{b64encode(key).decode()}"

    def tell(self, event: Mapping[str, Any]) -> None:
        """Send an event to those who chose its type."""
        kind = event["type"]
        for endpoint in self._endpoints:
            if kind in endpoint.events:
                self._post(endpoint, kind, _json(event))

    def call_back(self, url: str, task: Mapping[str, Any]) -> None:
        """Call the ``callback_url`` of a task that has ended.

        Method, body, and the lack of a signature and of repeats are assumed: nothing is documented.
        """
        said = {"id": task["id"], "status": task["status"]}
        self._host.webhooks.send(OutgoingWebhook(VENDOR, "callback", url, _json(said), headers=lambda _: {}))

    def _post(self, endpoint: _Endpoint, kind: str, body: bytes) -> None:
        message = f"msg_{random_text(self._host.random, 27)}"

        def headers(now: int) -> dict[str, str]:
            # The time of the attempt, by the wall clock: a receiver compares it with its own, however fast we run.
            signature = sign_svix(endpoint.key, message, now, body)
            return {"svix-id": message, "svix-timestamp": str(now), "svix-signature": signature}

        self._host.webhooks.send(
            OutgoingWebhook(
                VENDOR,
                kind,
                endpoint.url,
                body,
                headers=headers,
                retry_delays=PAUSES,
                retry_if=lambda status: status is None or not 200 <= status < 300,
            )
        )


def _json(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
