"""The requests of each vendor's submission, without a network; bodies as on the vendors' pages."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskbridge._transport.bodies import body_stream
from taskbridge.errors import TaskbridgeError, UnsupportedFeature
from taskbridge.provider.base import Provider
from taskbridge.provider.http import Base64, Request, Response, Upload
from taskbridge.provider.submission import Document, Link, Query, Stored, Submission
from taskbridge.testing.conformance.samples import connection_of
from taskbridge_expertai_extract.wire import layout_text

SETTINGS: dict[str, dict[str, Any]] = {
    "cloudconvert": {"api_key": "canary-key"},
    "scan-documents": {"api_key": "canary-key"},
    "smartdocumentor": {"access_token": "canary-key"},
    "expertai-extract": {"access_token": "canary-key"},
}


def of(name: str) -> Provider[Any]:
    return connection_of(name, SETTINGS[name]).provider


def response(body: object, status: int = 200) -> Response:
    return Response(status, {}, json.dumps(body).encode())


def drive(flow: Any, *responses: Response) -> tuple[Any, list[Request]]:
    requests = [next(flow)]
    try:
        for each in responses:
            requests.append(flow.send(each))  # noqa: PERF401  # StopIteration ends the loop
    except StopIteration as end:
        return end.value, requests
    raise AssertionError(f"the flow yields another request: {requests[-1]!r}")


def sent(request: Request) -> Any:
    body = body_stream(request)
    assert body is not None
    data = b"".join(body.blocks())
    assert len(data) == body.length
    return json.loads(data)


def submission(native: str, *sources: Any, operation: str | None = None, **more: Any) -> Submission:
    return Submission(operation or f"native:{native}", native, "ref-1", sources, **more)


# https://docs.expert.ai/extract/latest/reference/layout-document-async/
@pytest.mark.parametrize("size", [1, 2, 3, 65_535, 65_536, 200_000])
def test_expertai_takes_base64_inside_json_from_disk(size: int, tmp_path: Path) -> None:
    path = tmp_path / 'a "b".pdf'
    path.write_bytes(bytes(range(256)) * (size // 256 + 1))
    content = path.read_bytes()[:size]
    path.write_bytes(content)
    document = Document(path.name, path, size)
    task, (request,) = drive(
        of("expertai-extract").submit(submission("layout-document-async", document)), response({"taskId": "t-1"}, 202)
    )
    assert (request.method, request.url) == ("POST", "https://extract.expert.ai/beta/layout-document-async")
    assert isinstance(request.body, Base64)
    body = sent(request)
    assert body["document"]["name"] == path.name
    assert b64decode(body["document"]["data"], validate=True) == content
    assert (task.id, task.status, task.native_status) == ("t-1", "pending", None)


def test_a_placeholder_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly once"):
        Base64.of({"a": "x", "b": "x"}, "x", b"")
    with pytest.raises(ValueError, match="exactly once"):
        Base64.of({"a": "y"}, "x", b"")


# https://docs.smartdocumentor.net/technical/api-reference/post-create-task
def test_smartdocumentor_takes_a_link_in_its_context() -> None:
    given = submission(
        "process",
        Link("https://e.com/a.pdf"),
        options={"priority": 2, "context": {"transcriptLanguage": "pt"}},
        name="A",
    )
    task, (request,) = drive(of("smartdocumentor").submit(given), response({"taskId": 44}))
    assert request.url == "https://cloud.smartdocumentor.net/api/v1.0/external/sdtask/process"
    assert sent(request) == {
        "externalId": "ref-1",
        "displayName": "A",
        "context": {"url": "https://e.com/a.pdf", "transcriptLanguage": "pt"},
        "priority": 2,
    }
    assert (task.id, task.native_id, task.external_id) == ("44", 44, "ref-1")


# https://scan-documents.com/docs/v1/image-operations/extract-text
def test_scan_documents_uploads_then_submits() -> None:
    given = submission(
        "extract-text",
        Document("a.png", b"data", 4),
        operation="extract-text",
        callback_url="https://e.com/hook",
        name="a.png",
    )
    created: dict[str, Any] = {"id": "task_1", "operation": "extract-text", "status": "pending", "result": {}}
    task, (upload, create) = drive(of("scan-documents").submit(given), response({"id": "file_1"}), response(created))
    assert upload.url == "https://api.scan-documents.com/v1/files"
    assert upload.body == Upload((("name", "a.png"),), "file", "a.png", b"data")
    assert not upload.starts_work
    assert create.url == "https://api.scan-documents.com/v1/image-operations/extract-text"
    assert sent(create) == {"input": "file_1", "format": "plain", "callback_url": "https://e.com/hook"}
    assert (create.starts_work, create.recovery_token) == (True, {"files": ["file_1"]})
    assert task.id == "task_1"


def test_a_native_operation_gets_no_defaults() -> None:
    created: dict[str, Any] = {"id": "task_1", "operation": "extract-text", "status": "pending", "result": {}}
    _, (create,) = drive(of("scan-documents").submit(submission("extract-text", Stored("file_9"))), response(created))
    assert sent(create) == {"input": "file_9"}
    newer = submission("image-operations/straighten", Stored("file_9"))
    _, (create,) = drive(of("scan-documents").submit(newer), response(created))
    assert create.url.endswith("/v1/image-operations/straighten")


def test_a_submission_may_return_a_finished_task() -> None:
    created: dict[str, Any] = {
        "id": "task_1",
        "operation": "x",
        "status": "completed",
        "result": {"format": "plain", "content": "text"},
    }
    task, _ = drive(of("scan-documents").submit(submission("extract-text", Stored("file_9"))), response(created))
    assert task.result.text == "text"


# https://cloudconvert.com/docs/api-reference/jobs
def test_cloudconvert_creates_a_job_with_import_work_and_export() -> None:
    given = submission(
        "convert", Link("https://e.com/a.docx", "b.docx"), operation="extract-text", callback_url="https://e.com/hook"
    )
    job: dict[str, Any] = {"data": {"id": "73df1e16-fd8b", "status": "waiting", "tag": "ref-1", "tasks": []}}
    task, (create,) = drive(of("cloudconvert").submit(given), response(job, 201))
    assert create.url == "https://api.cloudconvert.com/v2/jobs"
    assert sent(create) == {
        "tag": "ref-1",
        "webhook_url": "https://e.com/hook",
        "tasks": {
            "import-1": {"operation": "import/url", "url": "https://e.com/a.docx", "filename": "b.docx"},
            "extract-text": {"operation": "convert", "input": "import-1", "output_format": "txt"},
            "export-1": {"operation": "export/url", "input": "extract-text"},
        },
    }
    assert (task.id, create.recovery_token) == ("job/73df1e16-fd8b", {"tag": "ref-1"})


def test_cloudconverts_list_is_read_by_page_number_and_never_by_link() -> None:
    links: dict[str, Any] = {"next": "https://evil.test/v2/jobs?page=9"}
    flow = of("cloudconvert").list_page(Query(), None)
    page, (request,) = drive(flow, response({"data": [{"id": "73df1e16-fd8b", "status": "waiting"}], "links": links}))
    assert request.url == "https://api.cloudconvert.com/v2/jobs?per_page=50&page=1&include=tasks"
    assert page.next_cursor == "2"
    page, _ = drive(of("cloudconvert").list_page(Query(), "2"), response({"data": [], "links": {"next": None}}))
    assert page.next_cursor is None


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("cloudconvert", submission("jobs", Link("https://e.com/"), options={"tasks": {}})),
        ("cloudconvert", submission("convert", external_id="INV-7")),
        ("cloudconvert", submission("convert", callback_url="https://e.com/")),
        ("cloudconvert", submission("../users/me")),
        ("scan-documents", submission("files")),
        ("smartdocumentor", submission("statuslist")),
        ("expertai-extract", submission("status")),
    ],
)
def test_unsupported_submissions_are_refused_before_a_request(name: str, given: Submission) -> None:
    with pytest.raises(UnsupportedFeature):
        next(of(name).submit(given))


RECOVERIES: dict[str, Callable[[Provider[Any]], Any]] = {
    "cloudconvert": lambda provider: provider.recover({"reference": "r"}),
    "scan-documents": lambda provider: provider.recover({"reference": "r"}),
}


@pytest.mark.parametrize("name", RECOVERIES)
def test_a_submission_without_a_mark_cannot_be_recovered(name: str) -> None:
    with pytest.raises(TaskbridgeError, match="cannot recover"):
        next(RECOVERIES[name](of(name)))


def test_a_search_through_a_long_list_ends() -> None:
    page = response({"data": [{"id": "task_1", "status": "pending"}], "links": {"next": "?from=task_1"}})
    flow = of("scan-documents").recover({"reference": "r", "files": ["file_1"]})
    with pytest.raises(UnsupportedFeature, match="further back than"):
        drive(flow, *[page] * 40)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (
            {"layout": [{"id": 1, "children": [2]}, {"id": 2, "content": "test\n"}, {"id": 3, "content": "two"}]},
            "test\ntwo",
        ),
        ({"layout": [{"id": 1, "children": [2], "content": "whole"}, {"id": 2, "content": "leaf"}]}, "leaf"),
        ({"layout": []}, ""),
        ({"layout": "odd"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_text_of_a_layout_is_that_of_its_leaves(result: Any, text: str | None) -> None:
    assert layout_text(result) == text
