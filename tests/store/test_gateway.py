"""Webhooks that are stored by any number of gateways, and used by the owner of the connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import svix
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.routing import Mount

import taskbridge as tb
from taskbridge.contrib.asgi import StoredWebhooks
from taskbridge.emulator.export import config_toml
from taskbridge.emulator.server import LoopbackServer, listen
from taskbridge.store.ownership import Ownership
from taskbridge.testing import Emulator, VirtualClock

from .conftest import CONTRACTS, PNG, URL_SECRET, until

SVIX: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the scheme's published vector
CONFIG: Final = f"""
[connections.scans]
provider = "scan-documents"
api_key = "sd-test-key"
webhook_secrets = ["{SVIX}"]
{CONTRACTS}"""


@pytest.fixture
def gateway(store: tb.Store, tmp_path: Path) -> StoredWebhooks:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG)
    return StoredWebhooks(store, config=path)


def call(
    app: StoredWebhooks, path: str, body: bytes = b"", headers: dict[str, str] | None = None, method: str = "POST"
) -> int:
    """Send a request below the mount ``/hooks``; return the status."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    fields = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "root_path": "/hooks", "query_string": b""}
    asyncio.run(app({**scope, "headers": fields}, receive, send))
    assert sent[1]["body"] == b""
    return int(sent[0]["status"])


def signed(task: str, message: str = "msg_1") -> tuple[bytes, dict[str, str]]:
    content = {
        "id": f"event_{task}",
        "type": "task.completed",
        "timestamp": "2025-04-12T15:55:19.000Z",
        "data": {"id": task, "operation": "extract-text", "status": "completed"},
    }
    body, now = json.dumps(content).encode(), datetime.now(UTC)
    signature = svix.Webhook(SVIX).sign(message, now, body.decode())
    return body, {"svix-id": message, "svix-timestamp": str(int(now.timestamp())), "svix-signature": signature}


def notified(store: tb.Store, connection: str, after: int = 0) -> list[str]:
    """What an owner reads."""
    owner = Ownership(store.database, connection)
    assert owner.take()
    changes = owner.changes(after)
    owner.release()
    return [] if changes is None else list(changes.notified)


def test_a_proved_webhook_is_stored_once_and_anything_else_is_refused(store: tb.Store, gateway: StoredWebhooks) -> None:
    body, headers = signed("task_a")
    assert call(gateway, "/hooks/scans", body, headers) == 204
    assert call(gateway, "/scans", *signed("task_a", "msg_2")) == 204  # again, from a framework that strips the mount
    assert notified(store, "scans") == ["scans:task_a"]
    for path, status in (("/hooks/none", 404), ("/hooks/silent", 404), ("/hooks/", 404), ("/hooks/scans/", 401)):
        assert call(gateway, path, b"{}") == status
    assert call(gateway, "/hooks/scans", method="GET") == 405
    assert call(gateway, "/hooks/scans", bytes(1 << 21)) == 413
    assert call(gateway, "/hooks/contracts", b'{"taskId": 44}') == 401
    assert call(gateway, f"/hooks/contracts/{URL_SECRET}", b'{"taskId": 44}') == 204
    assert call(gateway, f"/hooks/contracts/{URL_SECRET}", b"no JSON") == 400
    assert len(notified(store, "contracts")) == 1
    assert notified(store, "scans", -1) == []  # a new owner polls everything


def test_the_vendor_delivers_again_what_could_not_be_stored(store: tb.Store, gateway: StoredWebhooks) -> None:
    is_full = True

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if is_full and statement.startswith("INSERT INTO taskbridge_account"):
            raise OperationalError(statement, None, Exception("database or disk is full"))

    store.watch("scans:task_a")  # the account exists
    sqlalchemy_event.listen(store.database.engine, "before_cursor_execute", fail)
    body, headers = signed("task_a")
    assert call(gateway, "/hooks/scans", body, headers) == 503
    is_full = False
    assert call(gateway, "/hooks/scans", body, headers) == 204
    assert notified(store, "scans") == ["scans:task_a"]


def test_a_gateway_needs_a_connection_that_can_prove_webhooks(store: tb.Store, tmp_path: Path) -> None:
    path = tmp_path / "silent.toml"
    path.write_text('[connections.silent]\nprovider = "cloudconvert"\napi_key = "cc-test-key"\n')
    with pytest.raises(tb.ConfigError, match="no connection has webhook_secrets"):
        StoredWebhooks(store, config=path)
    with pytest.raises(tb.ConfigError, match="no connection has"), tb.Bridge.from_config(path) as bridge:
        StoredWebhooks(store, bridge)


def test_old_webhooks_are_removed_by_the_owner(tmp_path: Path) -> None:
    clock = VirtualClock()
    with tb.Store(tmp_path / "old.db", clock=clock) as store:
        ownership = Ownership(store.database, "scans")
        assert ownership.take()

        def add(key: str) -> bool:
            with store.begin() as tx:
                return tx.add_webhook("scans", key, [tb.TaskRef("scans:a"), tb.TaskRef("scans:b")])

        assert add("old")
        clock.advance(8 * 86_400)
        assert add("new")
        ownership.prune_webhooks()
        assert not add("new")
        assert add("old")
        ownership.release()
        assert notified(store, "scans") == ["scans:a", "scans:b"] * 2


@contextmanager
def serving(app: StoredWebhooks) -> Generator[str]:
    bound = listen("127.0.0.1", 0)
    server = LoopbackServer(Starlette(routes=[Mount("/hooks", app)]), bound)
    server.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/hooks"
    finally:
        server.stop()


@pytest.fixture
def slow_polls(emulator: Emulator, tmp_path: Path) -> Path:
    """A configuration with which only a webhook shows the end of a task in time."""
    path = tmp_path / "slow.toml"
    limits = 'poll.interval = 3600\nretry.first = 0.05\nprovider = "'
    path.write_text(config_toml(emulator).replace('provider = "', limits))
    return path


@pytest.fixture
def gateways(store: tb.Store, store_url: str, emulator: Emulator, slow_polls: Path) -> Iterator[None]:
    """Two gateways, both of which the vendor calls, each delivery twice."""
    secrets: list[str] = []

    def late(number: int) -> Any:  # the secrets are in the configuration of the applications
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await apps[number](scope, receive, send)

        return app

    apps: list[StoredWebhooks] = []
    with (
        serving(late(0)) as first,
        serving(late(1)) as second,
        tb.Store(store_url) as other,
    ):
        secrets += [
            emulator.vendors["cloudconvert"].register_webhook(f"{each}/cloudconvert") for each in (first, second)
        ]
        listed = ", ".join(f'"{secret}"' for secret in secrets)
        text = slow_polls.read_text()
        slow_polls.write_text(
            text.replace('provider = "cloudconvert"', f'provider = "cloudconvert"\nwebhook_secrets = [{listed}]')
        )
        apps += [StoredWebhooks(each, config=slow_polls) for each in (store, other)]
        emulator.disturb_deliveries(duplicate=True)
        yield


@pytest.mark.usefixtures("gateways")
def test_a_webhook_at_two_gateways_ends_a_task_with_one_status_request(
    store: tb.Store, slow_polls: Path, emulator: Emulator, tmp_path: Path
) -> None:
    job = tmp_path / "job.pdf"
    job.write_bytes(b"%PDF-1.4\n")
    store.submit("cloudconvert", "extract-text", job, key="job")
    with tb.Watcher(store, config=slow_polls, interval=0.05):
        until(lambda: store.find(state="ended"))
        until(lambda: len([each for each in emulator.deliveries if each.status == 204]) >= 4)
    (event,) = [each for each in store.events("test") if each.kind == "ended"]
    assert event.ref is not None
    assert {each.status for each in emulator.deliveries} == {204}
    finished = notified(store, "cloudconvert").count(event.ref)
    polls = [each for each in emulator.requests if each.method == "GET" and event.ref.id.partition("/")[2] in each.path]
    assert 1 <= len(polls) <= finished  # a job has an event for its beginning, and one for its end
    assert finished <= 2


def test_a_webhook_that_is_quicker_than_the_response_to_its_submission_counts(
    store: tb.Store, slow_polls: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "page.png"
    page.write_bytes(PNG)
    taken, reading = Ownership.mark_taken, Ownership.changes
    read: list[int] = []

    def changes(self: Ownership, after: int) -> Any:
        read.append(after)
        return reading(self, after)

    def mark_taken(self: Ownership, number: int, task: tb.Task) -> Any:
        with store.begin() as tx:
            tx.add_webhook(task.connection, "early", [task.ref])
        count = len(read)
        until(lambda: len(read) > count + 4)  # it has been read; both connections read
        return taken(self, number, task)

    monkeypatch.setattr(Ownership, "changes", changes)
    monkeypatch.setattr(Ownership, "mark_taken", mark_taken)
    store.submit("scan-documents", "extract-text", page, key="a")
    with tb.Watcher(store, config=slow_polls, interval=0.05):
        until(lambda: store.find(state="ended"))
