"""Shared by the webhook tests: secrets, clients, and a receiver on this machine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, Final

import pytest
import svix

import taskbridge as tb
from taskbridge.testing import Emulator

SVIX_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the scheme's published vector
URL_SECRET: Final = "b7Qd0c9yT2wX4mLr"
NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass
class ReceivedRequest:
    """One delivery, as received."""

    headers: list[tuple[str, str]]
    body: bytes
    url: str


@dataclass
class Receiver:
    """A web server that records deliveries and responds with the next status of `answers` (200 after the last)."""

    url: str
    received: list[ReceivedRequest] = field(default_factory=list[ReceivedRequest])
    answers: list[int] = field(default_factory=list[int])

    def wait(self, count: int) -> list[ReceivedRequest]:
        """Wait for a number of deliveries and return them."""
        until(lambda: len(self.received) >= count, f"{count} deliveries, not {len(self.received)}")
        return self.received


def until(ready: Callable[[], bool], what: str = "it") -> None:
    pause = threading.Event()
    latest = monotonic() + 5.0
    while not ready():
        assert monotonic() < latest, f"still waiting for {what}"
        pause.wait(0.002)


@pytest.fixture
def eventually() -> Callable[..., None]:
    return until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = state.answers.pop(0) if state.answers else 200
            state.received.append(ReceivedRequest(list(self.headers.items()), body, self.path))
            self.send_response(answer)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def scans() -> Iterator[tb.Client]:
    with tb.connect("scan-documents", api_key="sd-test-key", webhook_secrets=[SVIX_SECRET, URL_SECRET]) as client:
        yield client


@pytest.fixture
def jobs() -> Iterator[tb.Client]:
    with tb.connect("cloudconvert", api_key="cc-test-key", webhook_secrets=["signing-secret"]) as client:
        yield client


@pytest.fixture
def exports() -> Iterator[tb.Client]:
    with tb.connect("smartdocumentor", access_token="sm-test-token", webhook_secrets=[URL_SECRET]) as client:
        yield client


@pytest.fixture
def svix_headers() -> Callable[..., dict[str, str]]:
    """Headers by which the published package signs a body."""

    def build(
        body: bytes, *, at: datetime = NOW, secret: str = SVIX_SECRET, message: str = "msg_1", family: str = "svix"
    ) -> dict[str, str]:
        signature = svix.Webhook(secret).sign(message, at, body.decode())
        stamp = str(int(at.timestamp()))
        return {f"{family}-id": message, f"{family}-timestamp": stamp, f"{family}-signature": signature}

    return build


@pytest.fixture
def event() -> Callable[..., bytes]:
    """The body of an event of Scan Documents."""

    def build(kind: str = "task.completed", task: str = "task_euyrvozb9302uwhq", **data: Any) -> bytes:
        content = {
            "id": f"event_{task.removeprefix('task_')}",
            "type": kind,
            "timestamp": "2025-04-12T15:55:19.000Z",
            "data": {"id": task, "operation": "extract-text", **data},
        }
        return json.dumps(content).encode()

    return build


@pytest.fixture
def connected() -> Iterator[Callable[..., tb.Client]]:
    """Clients of an emulated vendor that poll once a minute."""
    clients: list[tb.Client] = []

    def build(emulator: Emulator, vendor: str, *secrets: str, **settings: Any) -> tb.Client:
        settings = {"poll": {"interval": 60.0}, **settings}
        client = tb.connect(vendor, webhook_secrets=list(secrets), **emulator.settings(vendor), **settings)
        clients.append(client)
        return client

    yield build
    for client in clients:
        client.close()


@pytest.fixture
def stopped() -> Iterator[Emulator]:
    """Emulators whose clock moves only by `advance`."""
    with Emulator("cloudconvert", "scan-documents", "smartdocumentor", speed=0) as emulator:
        yield emulator


@pytest.fixture
def header_of() -> Callable[[Mapping[str, str]], Callable[[str], str | None]]:
    """Header getters, as `taskbridge.provider.signatures` expects them."""

    def build(headers: Mapping[str, str]) -> Callable[[str], str | None]:
        return headers.get

    return build


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine to completion."""
    return asyncio.run
