"""Ingesting events: what is trusted, what is confirmed by a status request, and what changes nothing."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import pytest
import requests

import taskbridge as tb
from taskbridge import TaskStatus
from taskbridge._engine.webhooks import IngestStatus
from taskbridge.event_bus import KEPT, MemoryEventBus
from taskbridge.models import TaskRef
from taskbridge.testing import Emulator

NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SVIX: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRET: Final = "b7Qd0c9yT2wX4mLr"

Connected = Callable[..., tb.Client]
Sign = Callable[..., dict[str, str]]
Event = Callable[..., bytes]


def status_requests(emulator: Emulator, vendor: str) -> int:
    return emulator.count(vendor=vendor, method="GET")


def forged(client: tb.Client, job: str, event: str = "job.finished", status: str = "finished") -> tb.WebhookEvent:
    body = json.dumps({"event": event, "job": {"id": job.removeprefix("job/"), "status": status, "tasks": []}}).encode()
    return client.parse_webhook({"CloudConvert-Signature": hmac.new(SECRET.encode(), body, sha256).hexdigest()}, body)


# Confirmation.


def test_a_forged_end_causes_one_status_request_and_changes_nothing(stopped: Emulator, connected: Connected) -> None:
    client = connected(stopped, "cloudconvert", SECRET)
    job = stopped.samples("cloudconvert")["job-running"]
    event = forged(client, job)
    assert event.task is not None
    assert event.task.status is TaskStatus.COMPLETED  # as the event claims
    ingested = client.ingest(event)
    assert ingested.status is IngestStatus.APPLIED
    assert ingested.task is not None
    assert ingested.task.status is not TaskStatus.COMPLETED  # its real state
    (request,) = [seen for seen in stopped.requests if seen.vendor == "cloudconvert"]
    assert (request.method, request.status, request.path.rpartition("/")[2]) == ("GET", 200, job.removeprefix("job/"))


def test_a_hint_can_be_ingested_again_until_the_end(stopped: Emulator, connected: Connected) -> None:
    client = connected(stopped, "cloudconvert", SECRET)
    job = stopped.samples("cloudconvert")["job-running"]
    assert (
        client.ingest(forged(client, job)).status is IngestStatus.APPLIED
    )  # too early, so it does not count as ingested
    stopped.clock.advance(60)
    ingested = client.ingest(forged(client, job))
    assert ingested.task is not None
    assert ingested.task.status is TaskStatus.COMPLETED
    assert client.ingest(forged(client, job)).status is IngestStatus.DUPLICATE
    assert status_requests(stopped, "cloudconvert") == 2


def test_an_event_with_a_signed_time_is_trusted(
    stopped: Emulator, connected: Connected, event: Event, svix_headers: Sign
) -> None:
    client = connected(stopped, "scan-documents", SVIX)
    body = event(result={"content": "hello"})
    ingested = client.ingest(client.parse_webhook(svix_headers(body), body, now=NOW))
    assert ingested.task is not None
    assert ingested.task.result is not None
    assert ingested.task.result.text == "hello"
    assert status_requests(stopped, "scan-documents") == 0


def test_confirmation_can_be_forced_and_skipped(
    stopped: Emulator, connected: Connected, event: Event, svix_headers: Sign
) -> None:
    scans = connected(stopped, "scan-documents", SVIX)
    body = event(task=stopped.samples("scan-documents")["failed"])
    ingested = scans.ingest(scans.parse_webhook(svix_headers(body), body, now=NOW), confirm=True)
    assert ingested.task is not None
    assert ingested.task.status is TaskStatus.FAILED  # despite the event
    assert status_requests(stopped, "scan-documents") == 1
    jobs = connected(stopped, "cloudconvert", SECRET)
    ingested = jobs.ingest(forged(jobs, stopped.samples("cloudconvert")["job-running"]), confirm=False)
    assert ingested.task is not None
    assert ingested.task.status is TaskStatus.COMPLETED  # at the caller's own risk
    assert status_requests(stopped, "cloudconvert") == 0


def test_an_export_is_confirmed_by_a_status_request(stopped: Emulator, connected: Connected) -> None:
    client = connected(stopped, "smartdocumentor", SECRET)
    native = stopped.samples("smartdocumentor")["completed"]
    event = client.parse_webhook({}, json.dumps({"taskId": int(native)}).encode(), url=f"/{SECRET}")
    ingested = client.ingest(event)
    assert ingested.task is not None
    assert (ingested.task.id, ingested.task.status) == (native, TaskStatus.COMPLETED)
    assert client.ingest(event).status is IngestStatus.DUPLICATE


# What changes nothing.


def test_the_same_delivery_a_hundred_times_from_eight_threads_is_one_event(
    stopped: Emulator, connected: Connected, event: Event, svix_headers: Sign
) -> None:
    client = connected(stopped, "scan-documents", SVIX)
    body = event()
    headers = svix_headers(body)
    statuses: list[str] = []

    def deliver() -> None:
        statuses.extend(client.ingest(client.parse_webhook(headers, body, now=NOW)).status for _ in range(13))

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 104
    assert statuses.count("applied") == 1
    assert set(statuses) <= {"applied", "duplicate", "in-progress"}


def test_a_redelivery_with_another_signature_is_the_same_event(
    scans: tb.Client, event: Event, svix_headers: Sign
) -> None:
    body = event()
    first = scans.parse_webhook(svix_headers(body, message="msg_1"), body, now=NOW)
    second = scans.parse_webhook(svix_headers(body, message="msg_2", at=NOW.replace(minute=2)), body, now=NOW)
    assert [scans.ingest(each).status for each in (first, second)] == [IngestStatus.APPLIED, IngestStatus.DUPLICATE]


def test_a_late_state_is_reported_but_not_applied(scans: tb.Client, event: Event, svix_headers: Sign) -> None:
    def take(kind: str, number: int) -> tb.Ingested:
        content = json.loads(event(kind))
        body = json.dumps({**content, "id": f"event_{number}"}).encode()
        return scans.ingest(scans.parse_webhook(svix_headers(body), body, now=NOW))

    assert take("task.completed", 1).status is IngestStatus.APPLIED
    late = take("task.created", 2)
    assert (late.status, late.task) == (IngestStatus.LATE, None)
    assert late.event.task is not None
    assert late.event.task.status is TaskStatus.PENDING


def test_an_end_found_by_polling_makes_later_events_late(
    stopped: Emulator, connected: Connected, event: Event, svix_headers: Sign
) -> None:
    client = connected(stopped, "scan-documents", SVIX)
    task = stopped.samples("scan-documents")["completed"]
    client.get(task)
    body = event("task.created", task)
    assert client.ingest(client.parse_webhook(svix_headers(body), body, now=NOW)).status is IngestStatus.LATE


def test_a_status_request_may_show_that_a_task_was_restarted(stopped: Emulator, connected: Connected) -> None:
    client = connected(stopped, "smartdocumentor", SECRET)
    settings, native = stopped.settings("smartdocumentor"), stopped.samples("smartdocumentor")["completed"]
    assert client.get(native).is_terminal
    event_bus = client._connection.event_bus
    ref = TaskRef(f"smartdocumentor:{native}")
    assert event_bus.has_ended(ref)
    credential = client._connection.credentials.current
    assert credential is not None
    (token,) = credential.headers.values()
    url = f"{settings['base_url']}/sdtask/restartprocessing?taskId={native}"
    requests.patch(url, headers={"Authorization": token}, timeout=5).raise_for_status()
    assert not client.get(native).is_terminal
    assert not event_bus.has_ended(ref)


def test_events_about_other_things_are_ingested_once(scans: tb.Client, svix_headers: Sign) -> None:
    body = b'{"id":"event_9","type":"file.created","timestamp":"2025-04-12T15:55:19Z","data":{"id":"file_1"}}'
    event = scans.parse_webhook(svix_headers(body), body, now=NOW)
    assert [scans.ingest(event).status for _ in range(2)] == [IngestStatus.NO_TASK, IngestStatus.DUPLICATE]


def test_an_unknown_task_is_requested_for_two_deliveries_only(stopped: Emulator, connected: Connected) -> None:
    client = connected(stopped, "cloudconvert", SECRET)
    event = forged(client, "job/11111111-1111-4111-8111-111111111111")
    ingested = [client.ingest(event) for _ in range(5)]
    assert [each.status for each in ingested] == [IngestStatus.UNKNOWN] * 2 + [IngestStatus.DUPLICATE] * 3
    assert [each.answer for each in ingested] == [503] + [204] * 4  # a vendor delivers again only what is not 2xx
    assert status_requests(stopped, "cloudconvert") == 4


@pytest.mark.parametrize("times", [1, 2])
def test_an_event_may_be_quicker_than_the_api(times: int, stopped: Emulator, connected: Connected) -> None:
    client = connected(stopped, "cloudconvert", SECRET)
    event = forged(client, stopped.samples("cloudconvert")["job"])
    stopped.fail_next(404, times=times)
    statuses = [client.ingest(event).status for _ in range(times)]
    assert statuses == [IngestStatus.UNKNOWN] * (times - 1) + [IngestStatus.APPLIED]


def test_a_failed_confirmation_leaves_the_event_to_the_next_delivery(stopped: Emulator, connected: Connected) -> None:
    client = connected(stopped, "cloudconvert", SECRET, retry={"attempts": 1})
    event = forged(client, stopped.samples("cloudconvert")["job"])
    stopped.fail_next(500)
    with pytest.raises(tb.ServerError):
        client.ingest(event)
    assert client.ingest(event).status is IngestStatus.APPLIED


def test_an_event_of_another_connection_is_refused(jobs: tb.Client, scans: tb.Client, svix_headers: Sign) -> None:
    body = b'{"id":"event_9","type":"file.created","data":{}}'
    event = scans.parse_webhook(svix_headers(body), body, now=NOW)
    with pytest.raises(tb.ConfigError, match="not open here"):
        jobs.ingest(event)
    scans.close()
    with pytest.raises(tb.ConfigError, match="closed"):
        scans.ingest(event)


def test_the_async_client_ingests_events_too(stopped: Emulator, run: Callable[..., Any]) -> None:
    async def main() -> list[IngestStatus]:
        settings = stopped.settings("cloudconvert")
        async with tb.aio.connect("cloudconvert", webhook_secrets=[SECRET], **settings) as client:
            content = {"id": stopped.samples("cloudconvert")["job"].removeprefix("job/"), "status": "error"}
            body = json.dumps({"event": "job.failed", "job": content}).encode()
            headers = {"cloudconvert-signature": hmac.new(SECRET.encode(), body, sha256).hexdigest()}
            parsed = client.parse_webhook(headers, body)
            ingested = await client.ingest(parsed)
            assert ingested.task is not None
            assert ingested.task.status is TaskStatus.COMPLETED
            return [ingested.status, (await client.ingest(parsed)).status]

    assert run(main()) == [IngestStatus.APPLIED, IngestStatus.DUPLICATE]


# Acting on an event.


def test_an_event_is_processed_once_the_block_that_acts_on_it_has_ended(
    scans: tb.Client, event: Event, svix_headers: Sign
) -> None:
    body = event()
    parsed = scans.parse_webhook(svix_headers(body), body, now=NOW)

    def fail() -> None:
        with scans.ingesting(parsed) as ingested:
            assert (ingested.status, ingested.answer) == (IngestStatus.APPLIED, 204)
            with scans.ingesting(parsed) as meanwhile:  # whose end changes nothing
                assert (meanwhile.status, meanwhile.task, meanwhile.answer) == (IngestStatus.IN_PROGRESS, None, 503)
            assert scans.ingest(parsed).status is IngestStatus.IN_PROGRESS
            raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            fail()
    with scans.ingesting(parsed) as ingested:
        assert ingested.status is IngestStatus.APPLIED
    duplicate = scans.ingest(parsed)
    assert (duplicate.status, duplicate.answer) == (IngestStatus.DUPLICATE, 204)


def test_an_end_that_the_api_does_not_show_yet_is_to_be_delivered_again(
    stopped: Emulator, connected: Connected
) -> None:
    client = connected(stopped, "cloudconvert", SECRET)
    event = forged(client, stopped.samples("cloudconvert")["job-running"])
    with client.ingesting(event) as ingested:
        assert ingested.answer == 503
    stopped.clock.advance(60)
    with client.ingesting(event) as ingested:
        assert (ingested.status, ingested.answer) == (IngestStatus.APPLIED, 204)
    assert client.ingest(event).status is IngestStatus.DUPLICATE


def test_a_vendor_that_delivers_nothing_again_is_not_asked_to(stopped: Emulator, connected: Connected) -> None:
    client = connected(stopped, "smartdocumentor", SECRET)
    event = client.parse_webhook({}, b'{"taskId": 1234567}', url=f"/{SECRET}")
    for status in ("unknown", "unknown", "duplicate"):
        ingested = client.ingest(event)
        assert (ingested.status, ingested.answer) == (status, 204)


def test_the_async_client_acts_on_events_too(
    event: Event, svix_headers: Sign, stopped: Emulator, run: Callable[..., Any]
) -> None:
    body = event()

    async def fail(client: tb.aio.Client, parsed: tb.WebhookEvent) -> None:
        async with client.ingesting(parsed):
            assert (await client.ingest(parsed)).status is IngestStatus.IN_PROGRESS
            raise LookupError

    async def main() -> None:
        settings = stopped.settings("scan-documents")
        async with tb.aio.connect("scan-documents", webhook_secrets=[SVIX], **settings) as client:
            parsed = client.parse_webhook(svix_headers(body), body, now=NOW)
            with pytest.raises(LookupError):
                await fail(client, parsed)
            assert (await client.ingest(parsed)).status is IngestStatus.APPLIED
            assert (await client.ingest(parsed)).status is IngestStatus.DUPLICATE
            await client.forget(parsed)
            assert (await client.ingest(parsed)).status is IngestStatus.APPLIED

    run(main())


# The memory of events.


def test_the_memory_of_events_is_bounded() -> None:
    event_bus = MemoryEventBus()
    assert KEPT >= 10_000
    assert all(event_bus.claim(f"event {n}") for n in range(KEPT + 10))
    assert not event_bus.claim(f"event {KEPT}")
    assert event_bus.claim("event 0")  # the oldest are forgotten
    for number in range(KEPT + 10):
        event_bus.settle(f"event {number}")
    assert not event_bus.is_settled("event 0")
    assert event_bus.is_settled("event 10")
    assert (len(event_bus._settled), len(event_bus._claimed)) == (KEPT, 0)


def test_removed_listeners_are_not_notified() -> None:
    event_bus = MemoryEventBus()
    updates: list[object] = []
    leave = event_bus.listen(updates.append, TaskRef("a:1"))
    leave_all = event_bus.listen(updates.append)
    event_bus.publish(TaskRef("a:1"))
    event_bus.publish(TaskRef("a:2"))
    assert updates == ["a:1", "a:1", "a:2"]
    leave()
    leave_all()
    event_bus.publish(TaskRef("a:1"))
    assert len(updates) == 3
    assert event_bus._listeners == {}
