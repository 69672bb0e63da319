"""Successful submissions over HTTP, with the synchronous and the asynchronous client."""

from __future__ import annotations

import io
import json
import logging
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge._config.registry import load_provider
from taskbridge.emulator import Plan
from taskbridge.models import TaskFile, TaskStatus
from taskbridge.provider.http import Response
from taskbridge.testing import Emulator

Maker = Callable[..., Any]

# 10 by 10 pixels.
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAAAAACoWZBhAAAAD0lEQVR42mP4DwcMtGcCAGgtY5240DlJAAAAAElFTkSuQmCC")
PDF = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n2 0 obj << /Type /Page >> endobj\n"

TEXTS = {
    "cloudconvert": "Text of invoice.png\n",
    "scan-documents": "This is the extracted text content",
    "smartdocumentor": None,
    "expertai-extract": "test1",
}


def given_as(kind: str, name: str, url: str, folder: Path) -> Any:
    path, document = folder / name, b"%PDF-1.4\n" if name.endswith("pdf") else PNG
    path.write_bytes(document)
    return {
        "url": f"{url}/{name}",
        "path": path,
        "bytes": document,
        "stream": io.BytesIO(document),
        "file": TaskFile(name=name, url=f"{url}/{name}"),
    }[kind]


@pytest.mark.parametrize("kind", ["url", "path", "bytes", "stream", "file"])
@pytest.mark.parametrize("vendor", TEXTS)
def test_every_claimed_kind_of_input_is_accepted(
    vendor: str, kind: str, both: Maker, documents: Any, tmp_path: Path
) -> None:
    claimed = load_provider(vendor).capabilities.inputs
    client = both(vendor)
    name = "invoice.pdf" if vendor == "expertai-extract" else "invoice.png"
    given = given_as(kind, name, documents.url, tmp_path)
    if kind not in claimed and kind != "file":  # a file with a link is passed as that link
        with pytest.raises(tb.UnsupportedFeature, match=f"given as {kind}; it takes: {', '.join(sorted(claimed))}"):
            client.submit("extract-text", given, name=name)
        return
    task = client.submit("extract-text", given, name=name)
    assert task.status is TaskStatus.PENDING
    result = client.result(task, timeout=20)
    assert result.text == TEXTS[vendor]


def test_a_redirected_document_is_fetched_without_the_key(both: Maker, documents: Any, own_vendors: Emulator) -> None:
    both("scan-documents").submit("extract-text", f"{documents.url}/moved/invoice.png?x=1")
    key = own_vendors.settings("scan-documents")["api_key"]
    assert [path for path, _ in documents.requests] == ["/moved/invoice.png?x=1", "/invoice.png"]
    assert not any(key in value for _, headers in documents.requests for value in headers.values())


@pytest.mark.parametrize(
    ("native", "given", "options"),
    [
        ("convert", PNG, {"target_format": "image/jpeg", "quality": 80}),
        ("detect-documents", PNG, {}),
        ("extract-text", PNG, {"format": "json", "schema": {"type": "object"}}),
        ("warp", PNG, {"vertices": [{"x": 0, "y": 0}, {"x": 9, "y": 0}, {"x": 9, "y": 9}, {"x": 0, "y": 9}]}),
        ("apply-effect", PNG, {"effect": "scanner"}),
        ("scan", PNG, {"effect": "none", "scan_mode": "standard"}),
        ("render", PDF, {"dpi": 72}),
        ("split", PDF, {}),
        ("merge", [PDF, PDF], {}),
        ("extract-pages", PDF, {"pages": "1"}),
    ],
)
def test_scan_documents_supports_all_its_ten_operations(
    both: Maker, native: str, given: Any, options: dict[str, Any]
) -> None:
    client = both("scan-documents")
    done = client.wait(client.submit(f"native:{native}", given, options=options), timeout=20)
    assert done.status is TaskStatus.COMPLETED
    assert done.operation == native


def test_the_output_file_of_a_task_is_passed_by_id(both: Maker, own_vendors: Emulator) -> None:
    client = both("scan-documents")
    pages = client.result(client.submit("split", PDF), timeout=20).files
    own_vendors.clear_requests()
    merged = client.result(client.submit("merge", list(pages)), timeout=20)
    assert merged.files[0].properties["page_count"] == 2
    assert own_vendors.count("scan-documents", "POST", "/files") == 0


def test_a_cloudconvert_job_has_the_callers_tag_and_callback(both: Maker, documents: Any) -> None:
    client = both("cloudconvert")
    job = client.submit(
        "convert", PNG, options={"output_format": "pdf"}, external_id="INV-7", callback_url=f"{documents.url}/hook"
    )
    assert job.id.startswith("job/")
    assert job.external_id == "INV-7"
    assert {each.raw["name"] for each in job.subtasks} == {"import-1", "convert", "export-1"}
    assert [file.name for file in client.result(job, timeout=20).files] == ["document.pdf"]


def test_a_large_document_is_uploaded_to_the_form_without_the_key(both: Maker, own_vendors: Emulator) -> None:
    client = both("cloudconvert")
    job = client.submit("convert", b"%PDF-1.4" + b"x" * 200_000, options={"output_format": "txt"}, name="ä b.pdf")
    assert client.wait(job, timeout=20).status is TaskStatus.COMPLETED
    assert own_vendors.count("cloudconvert", "POST", "cloudconvert-storage") == 1


def test_several_documents_are_merged_in_one_job(both: Maker, tmp_path: Path) -> None:
    path = tmp_path / "second.pdf"
    path.write_bytes(PDF * 5)
    client = both("cloudconvert")
    assert client.wait(client.submit("merge", [PDF, str(path)]), timeout=20).status is TaskStatus.COMPLETED


def test_native_jobs_and_single_tasks_pass_through(both: Maker) -> None:
    client = both("cloudconvert")
    graph = {
        "in": {"operation": "import/url", "url": "https://example.com/a.docx"},
        "work": {"operation": "convert", "input": "in", "output_format": "pdf"},
    }
    job = client.submit("native:jobs", options={"tasks": graph, "tag": "mine"})
    assert job.external_id == "mine"
    assert {each.raw["name"] for each in job.subtasks} == {"in", "work"}
    task = client.submit("native:import/url", options={"url": "https://example.com/a.docx"})
    assert (task.operation, task.parent_id) == ("import/url", None)
    worked = client.submit("native:pdf/ocr", PDF)
    assert "pdf-ocr" in {each.raw["name"] for each in worked.subtasks}


def test_smartdocumentor_stores_a_given_or_generated_external_id(both: Maker) -> None:
    client = both("smartdocumentor")
    mine = client.submit("extract-text", "https://example.com/a.pdf", external_id="INV-8", name="Invoice 8")
    assert (mine.id, mine.external_id) == (str(mine.native_id), "INV-8")
    assert client.get("external/INV-8").raw["displayName"] == "Invoice 8"
    ours = client.submit("extract-text", "https://example.com/b.pdf", options={"context": {"transcriptLanguage": "pt"}})
    assert ours.external_id.startswith("taskbridge-")
    assert client.get(f"external/{ours.external_id}").native_id == ours.native_id


def test_the_connection_has_submit_defaults(own_vendors: Emulator) -> None:
    settings = own_vendors.settings("scan-documents")
    submit = {"operation": "extract-text", "options": {"format": "markdown"}}
    with tb.connect("scan-documents", submit=submit, **settings) as client:
        assert client.submit(None, PNG).raw["parameters"]["format"] == "markdown"
        assert client.submit(None, PNG, options={"format": "html"}).raw["parameters"]["format"] == "html"
        other = client.submit("convert", PNG, options={"target_format": "image/png"})
        assert "format" not in other.raw["parameters"]


def test_a_bridge_submits_lists_and_cancels_by_connection(own_vendors: Emulator, tmp_path: Path) -> None:
    settings = "".join(f'{key} = "{value}"\n' for key, value in own_vendors.settings("cloudconvert").items())
    config = tmp_path / "taskbridge.toml"
    config.write_text(f'[connections.office]\nprovider = "cloudconvert"\n{settings}')
    with tb.Bridge.from_config(config) as bridge:
        job = bridge.submit("office", "convert", PNG, options={"output_format": "pdf"}, name="slow.png")
        assert job.id in {task.id for task in bridge.list("office", limit=5)}
        assert bridge.cancel(job.ref).status is TaskStatus.FAILED


def test_a_result_whose_text_has_expired_says_so(both: Maker, own_vendors: Emulator) -> None:
    client = both("cloudconvert")
    done = client.wait(client.submit("extract-text", PNG), timeout=20)
    own_vendors.clock.advance(25 * 3600)
    with pytest.raises(tb.ApiError, match="links live for 24 hours"):
        client.result(done)


def test_a_submission_is_logged_before_it_is_sent(scripted: Maker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "taskbridge")
    seen: list[str] = []

    def vendor(request: Any) -> Any:
        seen.extend(record.message for record in caplog.records)
        raise AssertionError(request.method)

    harness = scripted("smartdocumentor", vendor)
    with pytest.raises(AssertionError):
        harness.client.submit("extract-text", "https://example.com/a.pdf", external_id="INV-9")
    assert seen == ["smartdocumentor: submitting: operation=process reference=INV-9"]
    assert "canary" not in caplog.text


def test_a_submission_uses_a_new_connection_and_a_deadline_by_its_size(scripted: Maker) -> None:
    harness = scripted("expertai-extract", json_response({"taskId": "t-1"}, 202))
    harness.client.submit("extract-text", b"%PDF-" + b"x" * 999_995)
    (request,) = harness.transport.requests
    assert request.starts_work
    assert request.new_connection
    assert harness.transport.deadlines[0] - harness.clock.monotonic() == pytest.approx(30.0 + 10.0)


def json_response(body: dict[str, Any], status: int = 200) -> Any:
    return Response(status, {"content-type": "application/json"}, json.dumps(body).encode())


def test_a_just_submitted_task_that_is_not_found_yet_is_requested_again(scripted: Maker) -> None:
    queued = {"taskId": 44, "externalId": "INV-7", "taskStatusText": "QueuedForPreProcessing"}
    missing = Response(404, {"content-length": "0"})
    harness = scripted("smartdocumentor", json_response({"taskId": 44}), missing, missing, json_response(queued))
    task = harness.client.submit("extract-text", "https://example.com/a.pdf", external_id="INV-7")
    assert harness.client.get(task).status is TaskStatus.PENDING
    assert harness.transport.remaining == 0


def test_not_found_is_an_error_after_the_grace_time(scripted: Maker) -> None:
    harness = scripted("smartdocumentor", json_response({"taskId": 44}), Response(404, {"content-length": "0"}))
    task = harness.client.submit("extract-text", "https://example.com/a.pdf")
    harness.clock.advance(10.1)
    with pytest.raises(tb.TaskNotFound):
        harness.client.get(task)


def test_the_grace_time_for_not_found_is_ten_seconds(scripted: Maker) -> None:
    def vendor(request: Any) -> Response:
        return json_response({"taskId": 44}) if request.method == "POST" else Response(404, {"content-length": "0"})

    harness = scripted("smartdocumentor", vendor)
    task = harness.client.submit("extract-text", "https://example.com/a.pdf")
    began = harness.clock.monotonic()
    with pytest.raises(tb.TaskNotFound):
        harness.client.get(task)
    assert 8.0 <= harness.clock.monotonic() - began <= 12.0


def test_a_planned_outcome_applies_to_the_next_task(both: Maker, own_vendors: Emulator) -> None:
    own_vendors.plan_next("scan-documents", Plan(outcome="failed"))
    client = both("scan-documents")
    with pytest.raises(tb.TaskFailed):
        client.result(client.submit("extract-text", PNG), timeout=20)
