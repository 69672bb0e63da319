"""Deliveries of the emulators: sent, signed, repeated, duplicated, out of order, and how a client handles them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import requests
import svix

import taskbridge as tb
from taskbridge import TaskStatus
from taskbridge._engine.webhooks import IngestStatus
from taskbridge.testing import Emulator
from taskbridge_cloudconvert.emulator import CloudConvertEmulator
from taskbridge_scan_documents.emulator import ScanDocumentsEmulator
from taskbridge_smartdocumentor.emulator import SmartDocumentorEmulator

cloudconvert: Any = importlib.import_module("cloudconvert")  # it has no types

SECRET: Final = "b7Qd0c9yT2wX4mLr"
TASKS: Final = {
    "import": {"operation": "import/url", "url": "https://example.com/report.docx"},
    "convert": {"operation": "convert", "input": "import", "output_format": "pdf"},
    "export": {"operation": "export/url", "input": "convert"},
}

Connected = Callable[..., tb.Client]
Eventually = Callable[..., None]


def post(emulator: Emulator, vendor: str, path: str, body: Mapping[str, Any]) -> Any:
    settings = emulator.settings(vendor)
    key = settings["api_key"]
    headers = {"Authorization": f"Bearer {key}", "x-api-key": key}
    answer = requests.post(f"{settings['base_url']}{path}", json=body, headers=headers, timeout=5)
    answer.raise_for_status()
    return answer.json()


def hook(emulator: Emulator, url: str, *events: str) -> dict[str, Any]:
    """A webhook of a CloudConvert account."""
    wanted = list(events or ("job.created", "job.finished", "job.failed"))
    created: dict[str, Any] = post(emulator, "cloudconvert", "/webhooks", {"url": url, "events": wanted})["data"]
    return created


def job(emulator: Emulator, **body: Any) -> str:
    return str(post(emulator, "cloudconvert", "/jobs", {"tasks": TASKS, **body})["data"]["id"])


def scan(emulator: Emulator, **body: Any) -> str:
    """A Scan Documents task for the file of a sample."""
    settings, sample = emulator.settings("scan-documents"), emulator.samples("scan-documents")["completed"]
    headers = {"x-api-key": settings["api_key"]}
    shown = requests.get(f"{settings['base_url']}/tasks/{sample}", headers=headers, timeout=5).json()
    submission = {"input": shown["parameters"]["input"], "effect": "grayscale", "name": "Example", **body}
    return str(post(emulator, "scan-documents", "/image-operations/apply-effect", submission)["id"])


def hooked(emulator: Emulator, url: str, *events: str) -> str:
    vendor = emulator.vendors["scan-documents"]
    assert isinstance(vendor, ScanDocumentsEmulator)
    return vendor.register_webhook(url, events) if events else vendor.register_webhook(url)


# CloudConvert.


def test_cloudconvert_notifies_about_jobs(
    stopped: Emulator, receiver: Any, connected: Connected, eventually: Eventually
) -> None:
    webhook = hook(stopped, receiver.url)
    client = connected(stopped, "cloudconvert", webhook["signing_secret"])
    native = job(stopped)
    created = receiver.wait(1)[0]
    stopped.clock.advance(60)
    finished = receiver.wait(2)[1]
    for delivery, kind, status in ((created, "job.created", "pending"), (finished, "job.finished", "completed")):
        event = client.parse_webhook(delivery.headers, delivery.body)
        assert (event.type, event.ref) == (kind, f"cloudconvert:job/{native}")
        assert event.task is not None
        assert event.task.status == status
        signature = dict(delivery.headers)["CloudConvert-Signature"]
        assert cloudconvert.Webhook.verify(delivery.body.decode(), signature, webhook["signing_secret"])
    assert b"\\/" in finished.body
    ingested = client.ingest(client.parse_webhook(finished.headers, finished.body))
    assert ingested.task is not None
    assert ingested.task.result is not None
    eventually(lambda: len(stopped.deliveries) == 2)
    assert [(seen.event, seen.attempt, seen.status) for seen in stopped.deliveries] == [
        ("job.created", 1, 200),
        ("job.finished", 1, 200),
    ]


def test_a_cloudconvert_jobs_own_webhook_url_is_called_only_at_its_end(
    stopped: Emulator, receiver: Any, connected: Connected
) -> None:
    failing = {**TASKS, "import": {"operation": "import/url", "url": "https://example.com/fail.docx"}}
    job(stopped, webhook_url=f"{receiver.url}/own", tasks=failing)
    stopped.clock.advance(60)
    (delivery,) = receiver.wait(1)
    vendor = stopped.vendors["cloudconvert"]
    assert isinstance(vendor, CloudConvertEmulator)
    event = connected(stopped, "cloudconvert", vendor.webhooks.job_secret).parse_webhook(
        delivery.headers, delivery.body
    )
    assert (event.type, event.task and event.task.status) == ("job.failed", TaskStatus.FAILED)


@pytest.mark.parametrize(
    ("answers", "attempts"),
    [([500, 503, 500, 500], 4), ([500, 200], 2), ([404], 1), ([410], 1), ([301], 1), ([204], 1)],
)
def test_cloudconvert_delivers_up_to_three_more_times_after_a_server_error(
    answers: list[int], attempts: int, stopped: Emulator, receiver: Any, eventually: Eventually
) -> None:
    receiver.answers = list(answers)
    webhook = hook(stopped, receiver.url, "job.created")
    job(stopped)
    for number in range(1, attempts + 1):
        eventually(lambda number=number: len(stopped.deliveries) == number, f"attempt {number}")
        stopped.clock.advance(3600)
    job(stopped)  # deliveries that are due go first; this one is sent unless the webhook is disabled
    last = attempts + (answers[-1] != 410)
    eventually(lambda: len(stopped.deliveries) == last)
    assert [each.attempt for each in stopped.deliveries][:attempts] == [*range(1, attempts + 1)]
    assert len({each.body for each in stopped.deliveries[:attempts]}) == 1
    settings = stopped.settings("cloudconvert")
    headers = {"Authorization": f"Bearer {settings['api_key']}"}
    (shown,) = requests.get(f"{settings['base_url']}/users/me/webhooks", headers=headers, timeout=5).json()["data"]
    assert shown["id"] == webhook["id"]
    assert shown["disabled"] is (answers[-1] == 410)


def test_a_deleted_webhook_gets_no_more_deliveries(stopped: Emulator, receiver: Any, eventually: Eventually) -> None:
    first, second = hook(stopped, f"{receiver.url}/1"), hook(stopped, f"{receiver.url}/2")
    settings = stopped.settings("cloudconvert")
    headers = {"Authorization": f"Bearer {settings['api_key']}"}
    requests.delete(f"{settings['base_url']}/webhooks/{first['id']}", headers=headers, timeout=5).raise_for_status()
    job(stopped)
    eventually(lambda: len(stopped.deliveries) == 1)
    assert second["signing_secret"] != first["signing_secret"]
    assert [each.url for each in receiver.received] == ["/2"]


# Scan Documents.


def test_scan_documents_signs_as_the_published_package_does(
    stopped: Emulator, receiver: Any, connected: Connected
) -> None:
    secret = hooked(stopped, receiver.url, "task.created", "task.completed")
    client = connected(stopped, "scan-documents", secret)
    native = scan(stopped)
    receiver.wait(1)
    stopped.clock.advance(60)
    for delivery, kind in zip(receiver.wait(2), ("task.created", "task.completed"), strict=True):
        svix.Webhook(secret).verify(delivery.body, dict(delivery.headers))
        event = client.parse_webhook(delivery.headers, delivery.body)
        assert (event.type, event.ref) == (kind, f"scan-documents:{native}")
        assert client.ingest(event).status is IngestStatus.APPLIED


def test_scan_documents_notifies_about_files(stopped: Emulator, receiver: Any, connected: Connected) -> None:
    client = connected(stopped, "scan-documents", hooked(stopped, receiver.url, "file.created"))
    scan(stopped)
    stopped.clock.advance(60)
    (delivery,) = receiver.wait(1)
    event = client.parse_webhook(delivery.headers, delivery.body)
    assert (event.type, event.ref, event.task) == ("file.created", None, None)
    assert client.ingest(event).status is IngestStatus.NO_TASK


def test_scan_documents_redelivers_for_two_days(stopped: Emulator, receiver: Any, eventually: Eventually) -> None:
    receiver.answers = [400] * 99
    hooked(stopped, receiver.url, "task.created")
    scan(stopped)
    eventually(lambda: len(stopped.deliveries) == 1)
    began = stopped.clock.time()
    for attempts in range(2, 14):
        stopped.clock.advance(30.0 * 2 ** (attempts - 2))
        eventually(lambda attempts=attempts: len(stopped.deliveries) == attempts, f"attempt {attempts}")
    assert stopped.clock.time() - began < 48 * 3600
    stopped.clock.advance(14 * 86_400)
    scan(stopped)  # deliveries that are due are handled first
    eventually(lambda: len(stopped.deliveries) == 14)
    assert [each.attempt for each in stopped.deliveries] == [*range(1, 14), 1]
    assert len({each.headers["svix-id"] for each in stopped.deliveries}) == 2  # a repeat keeps its id


def test_a_callback_is_delivered_without_a_signature(stopped: Emulator, receiver: Any, connected: Connected) -> None:
    client = connected(stopped, "scan-documents", SECRET)
    native = scan(stopped, callback_url=f"{receiver.url}/done/{SECRET}")
    stopped.clock.advance(60)
    (delivery,) = receiver.wait(1)
    assert not any("signature" in name.lower() for name, _ in delivery.headers)
    event = client.parse_webhook(delivery.headers, delivery.body, url=delivery.url)
    assert event.ref == f"scan-documents:{native}"
    ingested = client.ingest(event)
    assert ingested.task is not None
    assert ingested.task.status is TaskStatus.COMPLETED  # confirmed by a status request


# SmartDocumentor.


def exported(emulator: Emulator, url: str) -> int:
    """Configure an export and process a document."""
    vendor = emulator.vendors["smartdocumentor"]
    assert isinstance(vendor, SmartDocumentorEmulator)
    vendor.register_export(url)
    settings = emulator.settings("smartdocumentor")
    form = {"grant_type": "client_credentials", "scope": "WebAPI"}
    form |= {key: settings[key] for key in ("client_id", "client_secret")}
    token = requests.post(settings["token_url"], data=form, timeout=5).json()["access_token"]
    submission = {"displayName": "invoice", "context": {"url": "https://documents.example/invoice.pdf"}}
    headers = {"Authorization": f"Bearer {token}"}
    response = requests.post(f"{settings['base_url']}/sdtask/process", json=submission, headers=headers, timeout=5)
    return int(response.json()["taskId"])


def test_smartdocumentor_exports_finished_documents(stopped: Emulator, receiver: Any, connected: Connected) -> None:
    client = connected(stopped, "smartdocumentor", SECRET)
    native = exported(stopped, f"{receiver.url}/hooks?key={SECRET}")
    stopped.clock.advance(60)
    (delivery,) = receiver.wait(1)  # nothing about the samples, which finished earlier
    event = client.parse_webhook(delivery.headers, delivery.body, url=delivery.url)
    assert (event.type, event.ref) == ("export", f"smartdocumentor:{native}")
    ingested = client.ingest(event)
    assert ingested.task is not None
    assert ingested.task.status is TaskStatus.COMPLETED


def test_smartdocumentor_returns_a_rejected_export_to_review(
    stopped: Emulator, receiver: Any, connected: Connected, eventually: Eventually
) -> None:
    receiver.answers = [401]
    client = connected(stopped, "smartdocumentor", SECRET)
    native = exported(stopped, receiver.url)
    stopped.clock.advance(60)
    eventually(lambda: len(stopped.deliveries) == 1)
    task = client.get(str(native))
    assert (task.status, task.native_status, task.reason) == (TaskStatus.PROCESSING, "ToReview", "awaiting_review")


# Disturbed deliveries.


def test_duplicates_are_one_event(stopped: Emulator, receiver: Any, connected: Connected) -> None:
    stopped.disturb_deliveries(duplicate=True)
    client = connected(stopped, "scan-documents", hooked(stopped, receiver.url, "task.completed"))
    scan(stopped)
    stopped.clock.advance(60)
    statuses = [client.ingest(client.parse_webhook(each.headers, each.body)).status for each in receiver.wait(2)]
    assert statuses == [IngestStatus.APPLIED, IngestStatus.DUPLICATE]


def test_out_of_order_events_apply_only_the_end(stopped: Emulator, receiver: Any, connected: Connected) -> None:
    stopped.disturb_deliveries(shuffle=True)
    client = connected(stopped, "scan-documents", hooked(stopped, receiver.url, "task.created", "task.completed"))
    scan(stopped)
    stopped.clock.advance(7)
    events = [client.parse_webhook(each.headers, each.body) for each in receiver.wait(2)]
    assert [event.type for event in events] == ["task.completed", "task.created"]
    assert [client.ingest(event).status for event in events] == [IngestStatus.APPLIED, IngestStatus.LATE]


def test_a_shuffled_delivery_without_a_successor_is_still_sent(stopped: Emulator, receiver: Any) -> None:
    stopped.disturb_deliveries(shuffle=True)
    hooked(stopped, receiver.url, "task.created")
    scan(stopped)
    stopped.clock.advance(30)
    assert len(receiver.wait(1)) == 1


@pytest.mark.parametrize(
    "url", ["http://example.com/hook", "http://10.0.0.1/", "https://127.0.0.1/", "http://127.0.0.1:1/"]
)
def test_nothing_is_delivered_to_another_machine(url: str, stopped: Emulator, eventually: Eventually) -> None:
    hook(stopped, url, "job.created")
    job(stopped)
    eventually(lambda: len(stopped.deliveries) == 1)
    assert stopped.deliveries[0].status is None


def test_the_delivery_log_hides_urls_and_bodies(stopped: Emulator, receiver: Any, eventually: Eventually) -> None:
    hook(stopped, f"{receiver.url}/{SECRET}", "job.created")
    job(stopped)
    eventually(lambda: len(stopped.deliveries) == 1)
    assert SECRET not in repr(stopped.deliveries)
    assert json.loads(stopped.deliveries[0].body)["event"] == "job.created"


def test_the_vendors_clock_does_not_expire_signatures(stopped: Emulator, receiver: Any, connected: Connected) -> None:
    stopped.clock.advance(86_400)
    client = connected(stopped, "scan-documents", hooked(stopped, receiver.url, "task.created"))
    scan(stopped)
    (delivery,) = receiver.wait(1)
    event = client.parse_webhook(delivery.headers, delivery.body, now=datetime.now(UTC))
    assert event.occurred_at is not None
    assert event.occurred_at > datetime.now(UTC)  # the time of the event is the vendor's
