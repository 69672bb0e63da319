"""Sends the emulated vendors' webhooks over HTTP: when they are due, and again when the receiver fails.

They are sent from the server's own event loop, one after the other, at their vendor time, and only to this machine.
Each vendor's retry rules apply, in vendor time. On request webhooks are duplicated, delayed or reordered.
"""

from __future__ import annotations

import asyncio
import hmac
import http.client
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from taskbridge.emulator.server import loopback

if TYPE_CHECKING:
    from taskbridge.emulator.clock import VendorClock

__all__ = ["OutgoingWebhook", "SentDelivery", "WebhookSender", "sign_hex", "sign_svix"]

CHECK_INTERVAL: Final = 0.003  # seconds of real time between two checks for due webhooks
RESPONSE_LIMIT: Final = 5.0  # seconds of real time; documented by Scan Documents, assumed for CloudConvert
REORDER_LIMIT: Final = 30.0  # vendor seconds for which a reordered webhook waits for the next one at most

Status: TypeAlias = int | None
"""HTTP status of the receiver's response; None if there was none."""


@dataclass(frozen=True, slots=True)
class OutgoingWebhook:
    """One event to be delivered to one address.

    Attributes:
        vendor: Name of the emulated vendor.
        event: The vendor's name of the event.
        url: Where it goes.
        body: The request's body.
        headers: Returns the headers of an attempt at that wall-clock time (a signature may cover it).
        retry_delays: Vendor seconds before each retry.
        retry_if: Whether a response calls for a retry.
        on_response: Called with the response's status after each attempt.
    """

    vendor: str
    event: str
    url: str
    body: bytes
    headers: Callable[[int], Mapping[str, str]]
    retry_delays: tuple[float, ...] = ()
    retry_if: Callable[[Status], bool] = lambda _: False
    on_response: Callable[[Status], object] = lambda _: None


@dataclass(frozen=True, slots=True)
class SentDelivery:
    """One attempt to deliver a webhook.

    Attributes:
        vendor: Name of the emulated vendor.
        event: The vendor's name of the event.
        url: Where it went; not in repr, it may contain a secret.
        attempt: 1 for the first.
        status: HTTP status of the response; None if there was none, or if the address is on another machine.
        time: Vendor seconds since the epoch (UTC).
        headers: Headers other than those of HTTP itself; not in repr.
        body: What was sent; not in repr.
    """

    vendor: str
    event: str
    url: str = field(repr=False)
    attempt: int
    status: Status
    time: float
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(slots=True)
class _Queued:
    webhook: OutgoingWebhook
    due: float
    attempt: int = 1
    held: bool = False
    twice: bool = False


class WebhookSender:
    """Sends webhooks at the vendors' time.

    Attributes:
        duplicate: Send each webhook twice.
        shuffle: Hold every other new webhook back until the next one was sent.
        next_faults: Faults for the next webhooks, by name, first in first out; with seconds for those that take time.
    """

    def __init__(self, clock: VendorClock) -> None:
        self.duplicate = False
        self.shuffle = False
        self.next_faults: deque[tuple[str, float]] = deque()
        self._clock = clock
        self._log: list[SentDelivery] = []
        self._queue: list[_Queued] = []
        self._enabled = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: http.client.HTTPConnection | None = None

    @property
    def log(self) -> list[SentDelivery]:
        """The attempts so far, in order."""
        return list(self._log)

    def enable(self) -> None:
        """Start checking for due webhooks, because a receiver has subscribed. May be called from any thread."""
        if self._loop is None:
            self._enabled.set()
        else:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._enabled.set)

    def send(self, webhook: OutgoingWebhook) -> None:
        """Queue a webhook; call it from the server's event loop only."""
        now = self._clock.time()
        overtaken = next((queued for queued in self._queue if queued.held), None)
        fault, seconds = self.next_faults.popleft() if self.next_faults and overtaken is None else (None, 0.0)
        if overtaken is not None:
            overtaken.held, overtaken.due = False, now  # it is sent after the new one
            self._queue.remove(overtaken)
            self._queue += [_Queued(webhook, now), overtaken]
        elif fault == "webhook-reordered" or (self.shuffle and fault is None):
            self._queue.append(_Queued(webhook, now + REORDER_LIMIT, held=True))
        else:
            delay = seconds if fault == "webhook-late" else 0.0
            self._queue.append(_Queued(webhook, now + delay, twice=fault == "webhook-duplicated"))
        self.enable()

    async def run(self, tick: Callable[[], None]) -> None:
        """Send webhooks until cancelled, calling ``tick`` every few milliseconds once `enable` was called."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._enabled.wait()
            while True:
                tick()
                now = self._clock.time()
                due = [queued for queued in self._queue if queued.due <= now]
                self._queue = [queued for queued in self._queue if queued.due > now]
                for queued in due:
                    await self._deliver(queued)
                await asyncio.sleep(CHECK_INTERVAL)
        finally:
            self._disconnect()

    async def _deliver(self, queued: _Queued) -> None:
        webhook = queued.webhook
        sent = await self._attempt(queued)
        if (self.duplicate or queued.twice) and queued.attempt == 1:
            sent = await self._attempt(queued)
        if webhook.retry_if(sent.status) and queued.attempt <= len(webhook.retry_delays):
            due = sent.time + webhook.retry_delays[queued.attempt - 1]
            self._queue.append(_Queued(webhook, due, queued.attempt + 1))

    async def _attempt(self, queued: _Queued) -> SentDelivery:
        webhook = queued.webhook
        headers = {"Content-Type": "application/json", **webhook.headers(int(self._clock.wall()))}
        status = await asyncio.to_thread(self._post, webhook, headers)
        now = self._clock.time()
        webhook.on_response(status)
        sent = SentDelivery(
            webhook.vendor, webhook.event, webhook.url, queued.attempt, status, now, headers, webhook.body
        )
        self._log.append(sent)
        return sent

    def _post(self, webhook: OutgoingWebhook, headers: Mapping[str, str]) -> Status:
        with suppress(OSError, http.client.HTTPException, ValueError):
            parts = urlsplit(webhook.url)
            if parts.scheme != "http":
                raise ValueError("an emulator sends webhooks by http to this machine only")
            host = str(loopback(parts.hostname or ""))
            connection = self._connection = http.client.HTTPConnection(host, parts.port, timeout=RESPONSE_LIMIT)
            with closing(connection):
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("POST", target, webhook.body, dict(headers))
                response = connection.getresponse()
                response.read()
                return response.status
        return None

    def _disconnect(self) -> None:
        # A receiver that does not respond must not keep the emulator from stopping.
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(2)


# Signatures, from the vendors' documents; they share nothing with the code that checks them.


def sign_hex(secret: str, body: bytes) -> str:
    """Return the HMAC-SHA256 in hexadecimal; the key is the text of the secret."""
    return hmac.new(secret.encode(), body, sha256).hexdigest()


def sign_svix(key: bytes, message_id: str, stamp: int, body: bytes) -> str:
    """Return ``v1,`` and the base64 of the HMAC-SHA256 over id, time and body."""
    signed = f"{message_id}.{stamp}.".encode() + body
    return f"v1,{b64encode(hmac.new(key, signed, sha256).digest()).decode()}"
