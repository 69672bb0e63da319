"""Zamzar's own statuses, exports, forms, pages and errors, and a key that is never stored."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import taskbridge as tb
from taskbridge.models import Reason, Task, TaskStatus
from taskbridge.provider import (
    Document,
    Flow,
    Form,
    Link,
    Page,
    Query,
    Request,
    Response,
    Source,
    Stored,
    Submission,
    Upload,
)
from taskbridge.testing import Emulator

from taskbridge_zamzar import Zamzar, ZamzarSettings

KEY = "key-for-tests"


def provider() -> Zamzar:
    return Zamzar(ZamzarSettings.model_validate({"api_key": KEY}), "test")


def run(flow: Flow[Any], document: object, status: int = 200) -> Any:
    """Run a flow with one response, without a server; return its result."""
    next(flow)
    try:
        flow.send(Response(status, {}, json.dumps(document).encode()))
    except StopIteration as end:
        return end.value
    raise AssertionError("the flow sends another request")


def get(**job: object) -> Task:
    task: Task = run(provider().get("15"), {"id": 15, **job})
    return task


@pytest.mark.parametrize(
    ("word", "status", "reason"),
    [
        ("initialising", TaskStatus.PENDING, None),
        ("converting", TaskStatus.PROCESSING, None),
        ("successful", TaskStatus.COMPLETED, None),
        ("failed", TaskStatus.FAILED, None),
        ("cancelled", TaskStatus.FAILED, Reason.CANCELLED),
    ],
)
def test_each_status_is_translated(word: str, status: TaskStatus, reason: Reason | None) -> None:
    task = get(status=word)
    assert (task.status, task.reason, task.native_status, task.native_id) == (status, reason, word, 15)


@pytest.mark.parametrize(
    ("words", "status", "reason", "decided_by"),
    [
        ([], TaskStatus.PROCESSING, None, "successful"),
        (["uploading"], TaskStatus.PROCESSING, None, "uploading"),
        (["successful", "initialising"], TaskStatus.PROCESSING, None, "initialising"),
        (["successful", "successful"], TaskStatus.COMPLETED, None, "successful"),
        (["successful", "failed"], TaskStatus.COMPLETED, Reason.INTEGRATION_FAILED, "failed"),
    ],
)
def test_a_job_ends_with_its_exports(
    words: list[str], status: TaskStatus, reason: Reason | None, decided_by: str
) -> None:
    task = get(status="successful", export_url="s3://bucket/a.pdf", exports=[{"id": 1, "status": w} for w in words])
    assert (task.status, task.reason, task.native_status) == (status, reason, decided_by)


def test_the_key_in_a_response_is_not_stored() -> None:
    document = {"id": 3, "key": KEY, "name": "a.pdf", "size": 7, "format": "pdf"}
    task = get(status="successful", key=KEY, source_file=document, target_files=[document])
    assert KEY not in f"{task!r}{task.raw}{pickle.dumps(task)!r}"
    assert task.result is not None
    [file] = task.result.files
    assert (file.id, file.name, file.size, file.properties) == ("3", "a.pdf", 7, {"format": "pdf"})


def test_a_failure_is_reported() -> None:
    error = get(status="failed", failure={"code": 3, "message": "no such font"}).error
    assert error is not None
    assert (error.code, error.message) == ("3", "no such font")


FIELDS = (("target_format", "pdf"), ("options", '{"quality": 90}'))


@pytest.mark.parametrize(
    ("source", "body"),
    [
        (Document("a.docx", b"x", 1), Upload(FIELDS, "source_file", "a.docx", b"x")),
        (Link("https://example.com/a.docx"), Form((*FIELDS, ("source_file", "https://example.com/a.docx")))),
        (Stored("3"), Form((*FIELDS, ("source_file", "3")))),
    ],
    ids=["document", "link", "stored"],
)
def test_a_submission_is_one_form(source: Source, body: Form | Upload) -> None:
    options = {"target_format": "pdf", "options": {"quality": 90}}
    request = next(provider().submit(Submission("convert", "convert", "r", (source,), options)))
    assert (request.method, request.url, request.body) == ("POST", "https://api.zamzar.com/v1/jobs", body)
    assert request.starts_work


def test_extract_text_converts_to_a_text_file() -> None:
    request = next(provider().submit(Submission("extract-text", "extract-text", "r", (Stored("3"),))))
    assert request.body == Form((("target_format", "txt"), ("source_file", "3")))


@pytest.mark.parametrize(("jobs", "cursor"), [(50, "15"), (49, None), (0, None)])
def test_a_full_page_has_a_next_one(jobs: int, cursor: str | None) -> None:
    page: Page = run(
        provider().list_page(Query(), None),
        {"paging": {"last": 15, "limit": 50}, "data": [{"id": 15, "status": "converting"}] * jobs},
    )
    assert (len(page.tasks), page.next_cursor) == (jobs, cursor)


def list_request(query: Query, cursor: str | None) -> Request:
    return next(provider().list_page(query, cursor))


def test_the_vendor_filters_for_successful_jobs() -> None:
    assert list_request(Query(), None).url.endswith("/v1/jobs?limit=50")
    assert list_request(Query(TaskStatus.COMPLETED), "15").url.endswith("/v1/jobs/successful?limit=50&after=15")


def test_the_first_error_is_reported() -> None:
    with pytest.raises(tb.InvalidRequest, match="unrecognised API version") as caught:
        run(provider().get("15"), {"errors": [{"code": 22, "message": "unrecognised API version"}]}, 400)
    assert caught.value.vendor_code == "22"


@pytest.fixture
def client() -> Iterator[tb.Client]:
    with Emulator("zamzar", speed=100) as emulator:
        settings: dict[str, Any] = {**emulator.settings(), "poll": {"interval": 0.02}}
        with tb.connect("zamzar", **settings) as client:
            yield client


@pytest.mark.parametrize("document", [b"a letter", "https://www.example.com/letter.docx"], ids=["bytes", "url"])
def test_a_document_is_converted_and_downloaded(client: tb.Client, document: bytes | str, tmp_path: Path) -> None:
    task = client.submit("convert", document, to="pdf")
    [file] = client.result(task).files
    assert file.name is not None
    assert file.name.endswith(".pdf")
    [path] = client.download(task, tmp_path / "results")
    assert path.read_bytes().endswith(b"as pdf\n")
    again = client.submit("extract-text", file)
    assert [each.name for each in client.result(again).files] == [file.name.replace(".pdf", ".txt")]
    assert [each.id for each in client.list(limit=2)] == [again.id, task.id]


def test_a_job_is_cancelled(client: tb.Client) -> None:
    task = client.submit("convert", b"a letter", name="slow.docx", options={"target_format": "pdf"})
    assert client.cancel(task).reason is Reason.CANCELLED
    assert client.wait(task).reason is Reason.CANCELLED
