"""From a delivery to an event: what each vendor sends, what is refused, and with which HTTP status."""

from __future__ import annotations

import hmac
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import TaskStatus
from taskbridge.models import TaskRef

NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECRET: Final = "b7Qd0c9yT2wX4mLr"
BOMB: Final = b"[" * 100_000  # a parser must never see it unverified

Sign = Callable[..., dict[str, str]]
Event = Callable[..., bytes]

JOB: Final = {
    "id": "73df1e16-fd8b-47a1-a156-f197babde91a",
    "tag": "jobbuilder",
    "status": "finished",
    "created_at": "2018-09-19T14:42:58+00:00",
    "tasks": [
        {
            "id": "4c80f1ae-5b3a-43d5-bb58-1a5c4eb4e46b",
            "name": "export-1",
            "operation": "export/url",
            "status": "finished",
            "ended_at": "2018-09-19T14:43:00+00:00",
            "result": {"files": [{"filename": "file.pdf", "url": "https://storage.cloudconvert.com/file.pdf"}]},
        }
    ],
}


def of_a_job(event: object = "job.finished", **job: Any) -> bytes:
    return json.dumps({"event": event, "job": {**JOB, **job}}).replace("/", "\\/").encode()


def hexed(body: bytes, secret: str = "signing-secret") -> dict[str, str]:
    return {"CloudConvert-Signature": hmac.new(secret.encode(), body, sha256).hexdigest()}


# Scan Documents.


def test_a_failed_task_of_scan_documents(scans: tb.Client) -> None:
    body = (
        b'{"data":{"id":"task_euyrvozb9302uwhq","operation":"extract-text","result":{"error":"Invalid page range",'
        b'"details":{}}},"id":"event_euyrvozb9302uwhq","timestamp":"2025-04-12T15:55:19.000Z","type":"task.failed"}'
    )
    headers = {
        "Svix-Id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
        "Svix-Timestamp": "1744473319",
        "Svix-Signature": "v1,PRqXUwhYdNNqyO6KdYNoqZPknaJLmni26QESoC3Heoc=",
    }
    event = scans.parse_webhook(headers, body, now=datetime.fromtimestamp(1744473319, UTC))
    assert event.type == "task.failed"
    assert event.event_id == "event_euyrvozb9302uwhq"
    assert event.duplicate_key == "scan-documents:event_euyrvozb9302uwhq"
    assert event.occurred_at == datetime(2025, 4, 12, 15, 55, 19, tzinfo=UTC)
    assert event.ref == TaskRef("scan-documents:task_euyrvozb9302uwhq")
    assert not event.needs_confirmation
    assert event.task is not None
    assert event.task.status is TaskStatus.FAILED
    assert event.task.native_status is None  # the vendor sends no status word
    assert event.task.operation == "extract-text"
    assert event.task.error is not None
    assert event.task.error.message == "Invalid page range"
    assert event.task.raw["operation"] == "extract-text"
    assert "status" not in event.task.raw
    assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize(
    ("kind", "status"),
    [("task.created", TaskStatus.PENDING), ("task.completed", TaskStatus.COMPLETED), ("task.failed", TaskStatus.FAILED),
     ("task.deleted", None), ("task.paused", None)],
)  # fmt: skip
def test_the_event_type_determines_the_status(
    kind: str, status: TaskStatus | None, scans: tb.Client, event: Event, svix_headers: Sign
) -> None:
    body = event(kind, result={"content": "text"})
    parsed = scans.parse_webhook(svix_headers(body), body, now=NOW)
    assert parsed.ref == "scan-documents:task_euyrvozb9302uwhq"
    assert (parsed.task.status if parsed.task else None) == status


def test_a_completed_task_has_its_result(scans: tb.Client, event: Event, svix_headers: Sign) -> None:
    body = event(result={"content": "hello"})
    task = scans.parse_webhook(svix_headers(body), body, now=NOW).task
    assert task is not None
    assert task.result is not None
    assert task.result.text == "hello"
    assert scans.result(task).text == "hello"  # no further request


@pytest.mark.parametrize("kind", ["file.created", "file.deleted", "something.else"])
def test_events_about_other_things_have_no_task(kind: str, scans: tb.Client, svix_headers: Sign) -> None:
    content = {
        "id": "event_1",
        "type": kind,
        "timestamp": "2025-04-12T15:55:19Z",
        "data": {"id": "file_1", "name": "a"},
    }
    body = json.dumps(content).encode()
    event = scans.parse_webhook(svix_headers(body), body, now=NOW)
    assert (event.type, event.ref, event.task, event.event_id) == (kind, None, None, "event_1")
    assert event.raw == content


def test_the_old_payload_format_is_recognized_and_refused(scans: tb.Client, svix_headers: Sign) -> None:
    data = {"object_id": "task_1", "object_type": "task"}
    body = json.dumps({"id": "event_1", "type": "task.completed", "data": data}).encode()
    with pytest.raises(tb.WebhookRejected, match="old edition") as caught:
        scans.parse_webhook(svix_headers(body), body, now=NOW)
    assert caught.value.answer == 400


def test_the_webhook_header_family_is_accepted_too(scans: tb.Client, event: Event, svix_headers: Sign) -> None:
    body = event()
    assert scans.parse_webhook(svix_headers(body, family="webhook"), body, now=NOW).ref is not None


@pytest.mark.parametrize(
    ("body", "native"),
    [
        (b'{"id": "task_1", "status": "completed"}', "task_1"),
        (b'{"task_id": "task_2"}', "task_2"),
        (b'{"type": "x", "data": {"id": "task_3"}}', "task_3"),
        (b'{"task": {"id": "task_4"}}', "task_4"),
        (b'{"id": "file_1"}', None),
        (b'{"id": "task_../../x"}', None),
        (b"task=task_5", None),
        (b"", None),
        (BOMB, None),
    ],
)
def test_a_callback_is_a_hint(body: bytes, native: str | None, scans: tb.Client) -> None:
    event = scans.parse_webhook({}, body, url=f"https://me.example/done/{SECRET}")
    assert event.type == "callback"
    assert event.ref == (native and f"scan-documents:{native}")
    assert event.task is None
    assert event.needs_confirmation


@pytest.mark.parametrize(
    "url", [None, "https://me.example/done", "https://me.example/done/whsec_MfKQ9r8GKYqrTwjUPD8IL"]
)
def test_an_unsigned_delivery_is_refused_without_a_secret_in_the_url(url: str | None, scans: tb.Client) -> None:
    with pytest.raises(tb.WebhookRejected, match="nothing proves") as caught:
        scans.parse_webhook({}, b'{"id": "task_1"}', url=url)
    assert caught.value.answer == 401


def test_a_secret_in_the_url_does_not_excuse_a_wrong_signature(
    scans: tb.Client, event: Event, svix_headers: Sign
) -> None:
    headers = svix_headers(b"{}")
    with pytest.raises(tb.WebhookRejected):
        scans.parse_webhook(headers, event(), url=f"/{SECRET}", now=NOW)
    del headers["svix-signature"], headers["svix-timestamp"]
    with pytest.raises(tb.WebhookRejected):
        scans.parse_webhook(headers, event(), url=f"/{SECRET}", now=NOW)


# CloudConvert.


def test_a_finished_job_of_cloudconvert(jobs: tb.Client) -> None:
    body = of_a_job()
    event = jobs.parse_webhook(hexed(body), body)
    assert event.type == "job.finished"
    assert event.ref == "cloudconvert:job/73df1e16-fd8b-47a1-a156-f197babde91a"
    assert event.duplicate_key == f"{event.ref} job.finished"
    assert event.event_id is None
    assert event.occurred_at is None
    assert event.needs_confirmation  # its signature covers no time
    assert event.task is not None
    assert event.task.status is TaskStatus.COMPLETED
    assert event.task.result is not None
    assert [file.name for file in event.task.result.files] == ["file.pdf"]
    assert event.task.external_id == "jobbuilder"
    assert "storage.cloudconvert.com" not in repr(event)


@pytest.mark.parametrize(
    ("kind", "word", "status"),
    [("job.created", None, TaskStatus.PENDING), ("job.finished", None, TaskStatus.COMPLETED),
     ("job.failed", None, TaskStatus.FAILED), ("job.updated", None, TaskStatus.PROCESSING),
     ("job.created", "finished", TaskStatus.COMPLETED), ("job.finished", "processing", TaskStatus.PROCESSING)],
)  # fmt: skip
def test_the_event_determines_a_status_that_is_null(
    kind: str, word: str | None, status: TaskStatus, jobs: tb.Client
) -> None:
    body = of_a_job(kind, status=word)
    task = jobs.parse_webhook(hexed(body), body).task
    assert task is not None
    assert (task.status, task.native_status) == (status, word)


# SmartDocumentor and expert.ai.


def test_an_export_of_smartdocumentor_is_a_hint(exports: tb.Client) -> None:
    event = exports.parse_webhook([], b'{"taskId": 44, "displayName": "x"}', url=f"/hooks/{SECRET}")
    assert event.ref == "smartdocumentor:44"
    assert event.task is None
    assert event.needs_confirmation
    again = exports.parse_webhook([], b'{"taskId": 44, "displayName": "x"}', url=f"/hooks?s={SECRET}")
    other = exports.parse_webhook([], b'{"taskId": 44, "displayName": "y"}', url=f"/hooks/{SECRET}")
    assert event.duplicate_key == again.duplicate_key != other.duplicate_key  # reviewed again: a different event


def test_an_export_of_several_megabytes_is_read(exports: tb.Client) -> None:
    body = json.dumps({"taskId": 44, "text": "x" * (3 << 20)}).encode()
    assert exports.parse_webhook({}, body, url=f"/{SECRET}").ref == "smartdocumentor:44"


def test_the_file_that_an_export_links_to_can_be_downloaded(
    raw_server: Callable[..., Any], http_answer: Callable[..., bytes], tmp_path: Path
) -> None:
    server = raw_server([http_answer(200, b"reviewed")])
    body = json.dumps({"taskId": 44, "exportedFileUrl": f"{server.url}/review.docx?sig=canary"}).encode()
    settings: dict[str, Any] = {"access_token": "sm-test-token", "allow_private": True, "allow_http": True}
    with tb.connect("smartdocumentor", webhook_secrets=[SECRET], **settings) as client:
        link = client.parse_webhook({}, body, url=f"/{SECRET}").raw["exportedFileUrl"]
        path = client.download(tb.TaskFile(name="review.docx", url=link), f"{tmp_path}/")
    assert (path.name, path.read_bytes()) == ("review.docx", b"reviewed")
    assert b"sm-test-token" not in b"".join(server.received)


@pytest.mark.parametrize("body", [b'{"taskId": "44"}', b'{"taskId": true}', b'{"taskId": -1}', b"{}", b"[]", b"44",
                                  b'{"taskId": ' + b"9" * 4000 + b"}"])  # fmt: skip
def test_an_export_without_a_task_id_is_refused(body: bytes, exports: tb.Client) -> None:
    with pytest.raises(tb.WebhookRejected) as caught:
        exports.parse_webhook({}, body, url=f"/{SECRET}")
    assert caught.value.answer == 400


def test_smartdocumentor_needs_the_secret_in_the_url(exports: tb.Client) -> None:
    for url in (None, "/hooks", f"/hooks/{SECRET.lower()}"):
        with pytest.raises(tb.WebhookRejected) as caught:
            exports.parse_webhook({}, b'{"taskId": 44}', url=url)
        assert caught.value.answer == 401
        assert SECRET not in str(caught.value)


def test_expert_ai_sends_no_webhooks() -> None:
    with tb.connect("expertai-extract", access_token="ex-test-token", webhook_secrets=[SECRET]) as client:
        assert client.capabilities.webhooks is None
        with pytest.raises(tb.UnsupportedFeature, match="sends no webhooks"):
            client.parse_webhook({}, b"{}")


def test_capabilities_say_which_vendors_sign_a_time() -> None:
    found = {info.name: info.capabilities for info in tb.providers()}
    claims = {name: can.webhooks and can.webhooks.signed_time for name, can in found.items() if can is not None}
    vendors = ("cloudconvert", "expertai-extract", "scan-documents", "smartdocumentor")
    assert [claims[name] for name in vendors] == [False, None, True, False]
