"""Webhooks of the emulated Scan Documents.

The vendor's dashboard has no API, so endpoints are registered by a method of the emulator. The envelope, the signature,
the five seconds for a response and the 48 hours of retries are the vendor's; the growth of the delays is assumed.
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

VENDOR: Final = "scan-documents"
EVENTS: Final = (  # doc HOOK EVENTS
    "task.created",
    "task.completed",
    "task.failed",
    "task.deleted",
    "file.created",
    "file.deleted",
)
RETRY_PERIOD: Final = 48 * 3600.0  # vendor seconds: doc HOOK
DELAYS: Final = [30.0 * 2**n for n in range(20)]  # vendor seconds; "exponential" is doc HOOK, the numbers are assumed
RETRY_DELAYS: Final = tuple(DELAYS[n] for n, _ in enumerate(takewhile(lambda t: t <= RETRY_PERIOD, accumulate(DELAYS))))
KEY_LENGTH: Final = 24  # bytes, as in the scheme's published test vector


@dataclass(frozen=True, slots=True)
class _Endpoint:
    url: str
    events: frozenset[str]
    key: bytes


class WebhookEndpoints:
    """The registered webhook endpoints."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._endpoints: list[_Endpoint] = []

    def add(self, url: str, events: Iterable[str] = EVENTS) -> str:
        """Register an endpoint and return its signing secret."""
        key = self._host.random.randbytes(KEY_LENGTH)
        self._endpoints.append(_Endpoint(url, frozenset(events), key))
        self._host.webhooks.enable()
        return f"whsec_{b64encode(key).decode()}"

    def send(self, event: Mapping[str, Any]) -> None:
        """Send an event to the endpoints for its type."""
        kind = event["type"]
        for endpoint in self._endpoints:
            if kind in endpoint.events:
                self._post(endpoint, kind, _json(event))

    def send_callback(self, url: str, task: Mapping[str, Any]) -> None:
        """Call the ``callback_url`` of a task that has ended.

        Method, body, and the lack of a signature and of retries are assumed: nothing is documented.
        """
        body = _json({"id": task["id"], "status": task["status"]})
        self._host.webhooks.send(OutgoingWebhook(VENDOR, "callback", url, body, headers=lambda _: {}))

    def _post(self, endpoint: _Endpoint, kind: str, body: bytes) -> None:
        message = f"msg_{random_text(self._host.random, 27)}"

        def headers(now: int) -> dict[str, str]:
            # Wall-clock time of the attempt: a receiver compares it with its own clock, however fast vendor time is.
            signature = sign_svix(endpoint.key, message, now, body)
            return {"svix-id": message, "svix-timestamp": str(now), "svix-signature": signature}

        self._host.webhooks.send(
            OutgoingWebhook(
                VENDOR,
                kind,
                endpoint.url,
                body,
                headers=headers,
                retry_delays=RETRY_DELAYS,
                retry_if=lambda status: status is None or not 200 <= status < 300,
            )
        )


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
