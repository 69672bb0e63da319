"""Docling Serve's own statuses, results, forms, options, callbacks and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import pytest
import taskbridge as tb
from taskbridge.models import Reason, Task, TaskStatus
from taskbridge.provider import Document, Flow, Form, FormFile, Link, Request, Response, Source, Submission
from taskbridge.testing import Emulator

from taskbridge_docling import Docling, DoclingSettings

TASK_ID: Final = "521c05b3-a35c-448f-a732-5bb400f9d54a"
ZIP: Final = {"content-type": "application/zip"}


def provider(**settings: Any) -> Docling:
    return Docling(DoclingSettings.model_validate({"api_key": "key-for-tests", **settings}), "test")


def response(document: object, status: int = 200) -> Response:
    return Response(status, {"content-type": "application/json"}, json.dumps(document).encode())


def run(flow: Flow[Any], *responses: Response) -> Any:
    """Run a flow with these responses, without a server; return its result."""
    next(flow)
    for each in responses:
        try:
            flow.send(each)
        except StopIteration as end:
            assert each is responses[-1], "the flow ended early"
            return end.value
    raise AssertionError("the flow sends another request")


def status(word: str, **more: object) -> Response:
    return response({"task_id": TASK_ID, "task_type": "convert", "task_status": word, **more})


def get(*responses: Response) -> Task:
    task: Task = run(provider().get(TASK_ID), *responses)
    return task


def result(word: str, *errors: Mapping[str, object], **contents: object) -> Response:
    document: dict[str, object] = {"filename": "a.docx", **contents}
    return response({"document": document, "status": word, "errors": errors})


@pytest.mark.parametrize(
    ("responses", "expected", "reason", "native"),
    [
        ([status("pending", task_position=1)], TaskStatus.PENDING, None, "pending"),
        ([status("started")], TaskStatus.PROCESSING, None, "started"),
        ([status("failure")], TaskStatus.FAILED, None, "failure"),
        ([status("success"), result("success", md_content="x")], TaskStatus.COMPLETED, None, "success"),
        ([status("success"), result("failure")], TaskStatus.FAILED, None, "failure"),
        ([status("success"), result("skipped")], TaskStatus.FAILED, None, "skipped"),
        (
            [status("success"), result("partial_success", md_content="")],
            TaskStatus.COMPLETED,
            Reason.PARTIAL,
            "partial_success",
        ),
        ([status("success"), result("melted")], TaskStatus.PROCESSING, None, "melted"),
    ],
)
def test_the_result_decides_what_a_success_is(
    responses: list[Response], expected: TaskStatus, reason: Reason | None, native: str
) -> None:
    task = get(*responses)
    assert (task.status, task.reason, task.native_status, task.native_id) == (expected, reason, native, TASK_ID)
    assert task.recognized == (native != "melted")


def test_a_failed_document_has_its_error() -> None:
    # What the real server sent for a damaged file.
    error: dict[str, object] = {
        "component_type": "user_input",
        "module_name": "",
        "error_message": "MsWordDocumentBackend could not load document with hash 019ce27a",
        "category": "backend_failure",
        "page_no": None,
    }
    failure = get(status("success"), result("failure", error)).error
    assert failure is not None
    assert (failure.code, failure.message, failure.details) == ("backend_failure", error["error_message"], [error])


def test_a_failed_task_has_its_error_where_the_server_says_one() -> None:
    plain = get(status("failure", error_message="Internal processing error.", failure=None)).error
    known = {"category": "capacity", "message": "no room", "retryable": True, "phase": "admission"}
    explained = get(status("failure", error_message=None, failure=known)).error
    assert plain is not None
    assert explained is not None
    assert (plain.code, plain.message) == (None, "Internal processing error.")
    assert (explained.code, explained.message, explained.details) == ("capacity", "no room", known)


def test_each_content_becomes_a_file() -> None:
    contents = {
        "md_content": "# A",
        "html_content": None,
        "text_content": "A",
        "json_content": {"x": 1},
        "new_content": "n",
    }
    task = get(status("success"), result("success", **contents))
    assert task.result is not None
    assert (task.result.text, task.result.data, task.result.files) == ("# A", {"x": 1}, ())
    files = provider().result_files(task, task.result)
    assert {(file.name, getattr(file, "content", None)) for file in files} == {
        ("a.md", b"# A"),
        ("a.txt", b"A"),
        ("a.json", b'{"x": 1}\n'),
        ("a.new", b"n"),
    }


def test_an_empty_text_is_a_result_and_no_content_is_none() -> None:
    empty = get(status("success"), result("success", md_content=""))
    nothing = get(status("success"), result("success", md_content=None))
    assert empty.result is not None
    assert (empty.result.text, nothing.result) == ("", None)


def test_several_documents_are_an_archive_that_is_downloaded_with_the_key() -> None:
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        for name in ("b.md", "a.md"):
            archive.writestr(name, "x")
    task = get(status("success"), Response(200, ZIP, packed.getvalue()))
    assert task.result is not None
    [file] = task.result.files
    assert (task.status, task.native_status) == (TaskStatus.COMPLETED, "success")
    assert (file.name, file.size, file.properties) == (
        "converted_docs.zip",
        len(packed.getvalue()),
        {"names": ["a.md", "b.md"]},
    )
    request = provider().download_request(file)
    assert (request.url, request.authorized) == (f"http://127.0.0.1:5001/v1/result/{TASK_ID}", True)


def test_a_damaged_archive_and_a_result_that_is_gone_are_errors() -> None:
    with pytest.raises(tb.MalformedResponse, match="none"):
        get(status("success"), Response(200, ZIP, b"PK\3\4 and no more"))
    with pytest.raises(tb.TaskNotFound, match="Task not found"):
        get(status("success"), response({"detail": "Task not found."}, 404))


def submission(*sources: Source, operation: str = "convert", **options: Any) -> Submission:
    return Submission(operation, "convert", "r", sources, options)


def submit_request(*sources: Source, operation: str = "convert", **options: Any) -> Request:
    return next(provider().submit(submission(*sources, operation=operation, **options)))


def test_documents_are_one_form_in_which_lists_are_repeated() -> None:
    options: dict[str, Any] = {
        "to_formats": ["md", "json"],
        "do_ocr": False,
        "page_range": [1, 4],
        "pdf_backend": "pypdfium2",
    }
    request = submit_request(Document("a.docx", b"x", 1), Document("b.md", b"y", 1, "text/markdown"), **options)
    fields = (
        ("to_formats", "md"),
        ("to_formats", "json"),
        ("do_ocr", "false"),
        ("page_range", "1"),
        ("page_range", "4"),
        ("pdf_backend", "pypdfium2"),
    )
    files = (FormFile("files", "a.docx", b"x"), FormFile("files", "b.md", b"y", "text/markdown"))
    assert (request.method, request.url) == ("POST", "http://127.0.0.1:5001/v1/convert/file/async")
    assert request.body == Form(fields, files)
    assert request.starts_work


def test_documents_of_one_stem_do_not_overwrite_each_other() -> None:
    same = [Document(name, b"x", 1) for name in ("a.md", "a.csv", "a-2.md", "a.md")]
    body = submit_request(*same).body
    assert isinstance(body, Form)
    assert [file.filename for file in body.files] == ["a.md", "a-2.csv", "a-2-2.md", "a-3.md"]
    with pytest.raises(tb.InvalidInput, match="overwrite"):
        submit_request(Link("https://example.com/1/a.md"), Link("https://example.com/2/a.csv"))


def test_urls_are_json() -> None:
    options: dict[str, Any] = {"to_formats": ["html"], "ocr_lang": "de", "target_type": "zip"}
    request = submit_request(Link("https://example.com/a.docx"), **options)
    assert request.url == "http://127.0.0.1:5001/v1/convert/source/async"
    assert isinstance(request.body, bytes)
    assert json.loads(request.body) == {
        "sources": [{"kind": "http", "url": "https://example.com/a.docx"}],
        "options": {"to_formats": ["html"], "ocr_lang": ["de"]},
        "target": {"kind": "zip"},
    }


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([Document("a.md", b"x", 1)], {"to_format": ["md"]}, "would ignore it; did you mean 'to_formats'"),
        ([Document("a.md", b"x", 1), Link("https://example.com/b.md")], {}, "submit the others separately"),
        ([], {}, "documents, or URLs"),
    ],
)
def test_what_the_server_would_not_refuse_is_refused_here(
    sources: list[Source], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(tb.InvalidInput, match=message):
        submit_request(*sources, **options)


def test_an_option_of_a_newer_server_can_be_allowed() -> None:
    newer = provider(more_options=["do_magic"])
    request = next(newer.submit(submission(Document("a.md", b"x", 1), do_magic=True)))
    assert isinstance(request.body, Form)
    assert request.body.fields == (("do_magic", "true"),)


def test_extract_text_is_plain_unless_another_format_is_given() -> None:
    plain = submit_request(Document("a.md", b"x", 1), operation="extract-text").body
    other = submit_request(Document("a.md", b"x", 1), operation="extract-text", to_formats=["html"]).body
    assert isinstance(plain, Form)
    assert isinstance(other, Form)
    assert (plain.fields, other.fields) == ((("to_formats", "text"),), (("to_formats", "html"),))


@pytest.mark.parametrize(
    ("detail", "code", "message"),
    [
        ("Too many files: 4 exceeds the maximum of 3.", None, "Too many files"),
        (
            [{"type": "enum", "loc": ["body", "to_formats", 0], "msg": "Input should be 'md'"}],
            "enum",
            "body.to_formats.0: Input should be 'md'",
        ),
    ],
)
def test_errors_are_a_text_or_a_list(detail: object, code: str | None, message: str) -> None:
    with pytest.raises(tb.InvalidRequest, match=message) as caught:
        run(provider().submit(submission(Document("a.md", b"x", 1))), response({"detail": detail}, 422))
    assert caught.value.vendor_code == code


def test_a_server_without_a_key_gets_none() -> None:
    flow = provider(api_key=None).authorize()
    with pytest.raises(StopIteration) as end:
        next(flow)
    assert dict(end.value.value.headers) == {}


# With the emulator.


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator("docling", speed=100) as emulator:
        yield emulator


@pytest.fixture
def client(emulator: Emulator) -> Iterator[tb.Client]:
    settings: dict[str, Any] = {**emulator.settings(), "poll": {"interval": 0.02}}
    with tb.connect("docling", **settings) as client:
        yield client


def test_a_document_is_converted_and_needs_no_second_request(
    client: tb.Client, emulator: Emulator, tmp_path: Path
) -> None:
    task = client.wait(client.submit("convert", b"a letter", name="letter.docx", to="html"))
    emulator.clear_requests()
    [path] = client.download(task, tmp_path)
    assert (path.name, path.read_text()) == ("letter.html", "letter.docx as html\n")
    assert client.result(task).text == "letter.docx as html\n"
    assert emulator.requests == []


def test_an_archive_is_kept_by_the_client_and_removed_by_the_server(
    client: tb.Client, emulator: Emulator, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("a.docx", "b.xlsx", "fail.pptx")]
    for path in paths:
        path.write_bytes(b"x")
    task = client.wait(client.submit("convert", paths, to="md"))
    emulator.clock.advance(300)
    [archive] = client.download(task, tmp_path / "results")
    with ZipFile(archive) as unpacked:
        assert sorted(unpacked.namelist()) == ["a.md", "b.md"]  # the bad document is absent, without a word
    with tb.connect("docling", **emulator.settings()) as other:
        with pytest.raises(tb.TaskNotFound, match="gives each result once"):
            other.download(task, tmp_path / "late")
        with pytest.raises(tb.TaskNotFound, match="Task not found"):
            other.get(task)


@pytest.mark.parametrize(
    ("names", "options", "code"),
    [
        (["fail.docx"], {}, "backend_failure"),
        (["letter.xyz"], {}, "policy"),
        (["fail.docx"], {"abort_on_error": True}, None),
        (["fail.docx", "letter.xyz"], {}, None),
        (["letter.docx"], {"ocr_preset": "unknown"}, None),
    ],
)
def test_what_fails_is_failed(
    client: tb.Client, tmp_path: Path, names: list[str], options: dict[str, Any], code: str | None
) -> None:
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.write_bytes(b"x")
    task = client.submit("convert", paths, options=options)
    with pytest.raises(tb.TaskFailed) as caught:
        client.result(task)
    assert caught.value.vendor_code == code


def test_too_many_documents_and_a_wrong_value_are_refused_by_the_server(client: tb.Client, tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"x")
    with pytest.raises(tb.InvalidRequest, match="maximum of 3"):
        client.submit("convert", [path] * 4)
    with pytest.raises(tb.InvalidRequest, match=r"body\.do_ocr"):
        client.submit("convert", path, options={"do_ocr": "perhaps"})


def test_a_callback_names_a_task_and_no_status(client: tb.Client, emulator: Emulator) -> None:
    secret = "a-secret-of-our-own"
    url = f"http://127.0.0.1:9/hook?key={secret}"
    task = client.submit("convert", b"x", name="fail.docx", callback_url=url)
    body = json.dumps({"task_id": task.id, "progress": {"kind": "update_processed", "num_failed": 1}}).encode()
    settings: dict[str, Any] = {**emulator.settings(), "webhook_secrets": [secret]}
    with tb.connect("docling", **settings) as receiver:
        event = receiver.parse_webhook({}, body, url=url)
        assert (event.type, event.ref, event.task, event.needs_confirmation) == (
            "update_processed",
            task.ref,
            None,
            True,
        )
        with pytest.raises(tb.WebhookRejected):
            receiver.parse_webhook({}, body, url="http://127.0.0.1:9/hook?key=a-guessed-secret")
