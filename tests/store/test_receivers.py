"""Receivers of webhooks in several processes, which share by a store what they have processed."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import svix

import taskbridge as tb
from taskbridge import aio
from taskbridge.contrib import asgi, wsgi
from taskbridge.testing import VirtualClock

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the scheme's published vector
SETTINGS: Final[dict[str, Any]] = {"api_key": "sd-test-key", "webhook_secrets": [SECRET]}
BODY: Final = json.dumps(
    {
        "id": "event_1",
        "type": "task.completed",
        "timestamp": "2025-04-12T15:55:19.000Z",
        "data": {"id": "task_1", "operation": "extract-text", "status": "completed"},
    }
).encode()

KILLED: Final = f"""
import io, json, os, signal, sys, taskbridge as tb
from taskbridge.contrib.wsgi import WebhookApp
client = tb.connect("scan-documents", event_bus=tb.Store(sys.argv[1]).event_bus, **{SETTINGS!r})
app = WebhookApp(client, lambda _: os.kill(os.getpid(), signal.SIGKILL))
app({{**json.loads(sys.argv[2]), "wsgi.input": io.BytesIO({BODY!r})}}, print)
"""


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(now=datetime.now(UTC))


@pytest.fixture
def store(store_url: str, clock: VirtualClock) -> Iterator[tb.Store]:
    with tb.Store(store_url, clock=clock) as opened:
        yield opened


def signed(clock: VirtualClock) -> dict[str, str]:
    now = clock.now()
    signature = svix.Webhook(SECRET).sign("msg_1", now, BODY.decode())
    return {"svix-id": "msg_1", "svix-timestamp": str(int(now.timestamp())), "svix-signature": signature}


def environ(clock: VirtualClock) -> dict[str, str]:
    """Return what a WSGI server says about a delivery."""
    fields = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in signed(clock).items()}
    return {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(BODY)), **fields}


def deliver(app: wsgi.WebhookApp, clock: VirtualClock) -> int:
    """Deliver the event to a WSGI application; return the status."""
    statuses: list[str] = []

    def start(status: str, _: Any, __: Any = None) -> Any:
        statuses.append(status)

    app({**environ(clock), "wsgi.input": io.BytesIO(BODY)}, start)
    return int(statuses[0].split()[0])


async def deliver_async(app: asgi.WebhookApp, clock: VirtualClock) -> int:
    """Deliver the event to an ASGI application; return the status."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": BODY}

    async def send(message: Any) -> None:
        sent.append(message)

    fields = [(name.encode(), value.encode()) for name, value in signed(clock).items()]
    scope = {"type": "http", "method": "POST", "path": "/hooks", "query_string": b"", "headers": fields}
    await app(scope, receive, send)
    return int(sent[0]["status"])


def test_an_event_whose_receiver_was_killed_counts_again_after_five_minutes(
    store: tb.Store, store_url: str, clock: VirtualClock
) -> None:
    assert store.event_bus("scan-documents").claim("another event")  # the tables exist
    words = [sys.executable, "-c", KILLED, store_url, json.dumps(environ(clock))]
    assert subprocess.run(words, check=False, timeout=60).returncode == -signal.SIGKILL
    ended: list[tb.Task] = []
    options: dict[str, Any] = {"clock": clock, "event_bus": store.event_bus, **SETTINGS}

    async def main() -> int:
        async with aio.connect("scan-documents", **options) as client:
            return await deliver_async(asgi.WebhookApp(client, ended.append), clock)

    with tb.connect("scan-documents", **options) as client:
        app = wsgi.WebhookApp(client, ended.append)
        assert [deliver(app, clock), asyncio.run(main())] == [503, 503]
        assert not ended
        clock.advance(310.0)  # more than five minutes after the claim, which the other process made at the real time
        assert [deliver(app, clock), deliver(app, clock), asyncio.run(main())] == [204, 204, 204]
    assert [task.ref for task in ended] == ["scan-documents:task_1"]


def test_an_event_that_another_process_is_processing_is_to_be_delivered_again(
    store: tb.Store, clock: VirtualClock
) -> None:
    ended: list[tb.Task] = []
    meanwhile: list[int] = []
    options: dict[str, Any] = {"clock": clock, "event_bus": store.event_bus, **SETTINGS}

    def fail(_: tb.Task) -> None:
        meanwhile.append(deliver(second, clock))
        raise LookupError("the database is down")

    with tb.connect("scan-documents", **options) as one, tb.connect("scan-documents", **options) as other:
        second = wsgi.WebhookApp(other, ended.append)
        with pytest.raises(LookupError):
            deliver(wsgi.WebhookApp(one, fail), clock)
        assert (meanwhile, ended) == ([503], [])
        assert deliver(second, clock) == 204
    assert len(ended) == 1


def test_an_event_that_another_process_is_processing_is_to_be_delivered_again_to_asyncio(
    store: tb.Store, clock: VirtualClock
) -> None:
    ended: list[tb.Task] = []
    meanwhile: list[int] = []
    options: dict[str, Any] = {"clock": clock, "event_bus": store.event_bus, **SETTINGS}

    async def main() -> None:
        async with aio.connect("scan-documents", **options) as one, aio.connect("scan-documents", **options) as other:
            second = asgi.WebhookApp(other, ended.append)

            async def fail(_: tb.Task) -> None:
                meanwhile.append(await deliver_async(second, clock))
                raise LookupError("the database is down")

            with pytest.raises(LookupError):
                await deliver_async(asgi.WebhookApp(one, fail), clock)
            assert (meanwhile, ended) == ([503], [])
            assert await deliver_async(second, clock) == 204

    asyncio.run(main())
    assert len(ended) == 1
