from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    InvalidRequest,
    InvalidTaskId,
    MalformedResponse,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerError,
    TaskNotFound,
)
from taskbridge.models import TaskStatus
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request, Response
from taskbridge_scan_documents import ScanDocuments, ScanDocumentsSettings

Drive = Callable[..., tuple[Any, list[Request]]]
Respond = Callable[..., Response]

TASK = "task_euyrvozb9302uwhq"
ERRORS = "https://scan-documents.com/docs/errors"


def provider(**settings: Any) -> ScanDocuments:
    return ScanDocuments(ScanDocumentsSettings.model_validate({"api_key": "canary-key", **settings}), "scans")


def vendor_body(**fields: Any) -> dict[str, Any]:
    return {"id": TASK, "operation": "convert", "status": "pending", "parameters": {}, "result": {}, **fields}


def test_get_requests_a_task(drive: Drive, respond: Respond) -> None:
    task, (request,) = drive(provider().get(TASK), respond(200, vendor_body()))
    assert (request.method, request.url) == ("GET", f"https://api.scan-documents.com/v1/tasks/{TASK}")
    assert request.headers == {"Accept": "application/json"}
    assert request.authorized
    assert task.ref == f"scans:{TASK}"


def test_the_address_is_a_setting() -> None:
    assert next(provider(base_url="http://127.0.0.1:9/v1/").get(TASK)).url == f"http://127.0.0.1:9/v1/tasks/{TASK}"


def test_there_is_no_long_poll() -> None:
    assert provider().long_poll(TASK) is None


def test_authorize_sends_no_request(drive: Drive) -> None:
    assert drive(provider().authorize()) == (Credential({"x-api-key": "canary-key"}), [])


# https://scan-documents.com/docs/errors and /docs/v1/tasks/id/get (read 2026-11-22)
@pytest.mark.parametrize(
    ("status", "kind", "words", "expected", "retryable"),
    [
        (400, None, None, InvalidRequest, False),
        (401, "unauthorized", "You are not authorized to access this resource.", AuthenticationError, False),
        (403, None, None, PermissionDenied, False),
        (404, "not-found", "Task with id task_1 not found.", TaskNotFound, False),
        (409, "no-subscription", "User does not have an active subscription", QuotaExceeded, False),
        (409, None, None, QuotaExceeded, False),
        (429, "rate-limit-error", "Rate limit exceeded.", RateLimited, True),
        (500, "internal-error", "An unexpected error occurred.", ServerError, True),
    ],
)
@pytest.mark.parametrize("base", [ERRORS, "https://scan-documents.com/docs/api/errors"])
def test_an_error_is_mapped_by_type_then_status(
    drive: Drive,
    respond: Respond,
    *,
    base: str,
    status: int,
    kind: str | None,
    words: str | None,
    expected: type[ApiError],
    retryable: bool,
) -> None:
    body = {"type": f"{base}/{kind}" if kind else None, "title": "Title", "status": status, "message": words}
    with pytest.raises(ApiError) as caught:
        drive(provider().get(TASK), respond(status, body))
    error = caught.value
    assert type(error) is expected
    assert (error.http_status, error.vendor_code, error.retryable) == (status, kind, retryable)
    assert error.message.startswith((words or "Title").rstrip("."))


def test_a_missing_subscription_concerns_the_account() -> None:
    assert 409 in ScanDocuments.account_errors


def test_a_validation_error_shows_its_fields(drive: Drive, respond: Respond) -> None:
    body = {
        "type": f"{ERRORS}/validation-error",
        "title": "Validation Error",
        "status": 422,
        "errors": {"input": ["input does not contains a valid input id."], "pages": ["one", "two"], "odd": 7},
    }
    with pytest.raises(InvalidRequest) as caught:
        drive(provider().get(TASK), respond(422, body))
    assert caught.value.message == "input: input does not contains a valid input id.; pages: one; pages: two"


@pytest.mark.parametrize("body", [b"", b"<html></html>", b"[]", {"errors": []}, {"type": 7, "title": None}])
def test_an_error_without_a_message_gets_a_default_one(drive: Drive, respond: Respond, body: object) -> None:
    with pytest.raises(ServerError, match="the vendor's server failed"):
        drive(provider().get(TASK), respond(503, body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        {},
        vendor_body(id=None),
        vendor_body(id=1),
        vendor_body(status=None),
        vendor_body(status=404),
        {"type": f"{ERRORS}/not-found", "title": "Not Found", "status": 404, "message": "deleted"},
    ],
)
def test_a_body_that_breaks_the_contract_is_malformed(drive: Drive, respond: Respond, body: object) -> None:
    with pytest.raises(MalformedResponse):
        drive(provider().get(TASK), respond(200, body))


@pytest.mark.parametrize(
    "bad", ["", "a/b", "job/a", "..", ".", "a b", "a\nb", "a\r\nX: y", "a\0", "é", "%2e%2e", "a?b", "a#b", "x" * 10_000]
)
def test_an_invalid_id_is_refused_before_a_request(bad: str) -> None:
    with pytest.raises(InvalidTaskId):
        next(provider().get(bad))


# Results, read by their keys.


def completed(result: object, operation: str = "convert") -> dict[str, Any]:
    return vendor_body(status="completed", result=result, operation=operation)


def test_files_are_references(drive: Drive, respond: Respond) -> None:
    image = {"size": 1024, "width": 800, "height": 600}
    files = [{"id": "file_1", "name": "Example Image", "type": "image/png", "properties": image, "task_id": TASK}]
    task, _ = drive(provider().get(TASK), respond(200, completed({"generated_files": files})))
    (file,) = task.result.files
    assert (file.id, file.name, file.media_type, file.size) == ("file_1", "Example Image", "image/png", 1024)
    assert (file.url, file.expires_at, file.properties) == (None, None, image)


def test_text_is_kept(drive: Drive, respond: Respond) -> None:
    body = completed({"format": "markdown", "content": "**This**"}, "extract-text")
    task, _ = drive(provider().get(TASK), respond(200, body))
    assert (task.result.text, task.result.data) == ("**This**", None)


@pytest.mark.parametrize(
    ("content", "data"),
    [('{"total": 12.5}', {"total": 12.5}), ("not json", None), ('{"a":1,"a":2}', None), ("", None)],
)
def test_json_text_is_kept_and_decoded_if_it_is_valid(
    drive: Drive, respond: Respond, content: str, data: object
) -> None:
    body = completed({"format": "json", "content": content}, "extract-text")
    task, _ = drive(provider().get(TASK), respond(200, body))
    assert (task.result.text, task.result.data) == (content, data)


def test_json_is_decoded_only_for_the_format_json(drive: Drive, respond: Respond) -> None:
    task, _ = drive(provider().get(TASK), respond(200, completed({"format": "plain", "content": "{}"})))
    assert (task.result.text, task.result.data) == ("{}", None)


def test_detected_documents_are_data_whatever_the_operation(drive: Drive, respond: Respond) -> None:
    documents: list[Any] = [{"bounding_box": {"left": 1, "top": 2, "width": 3, "height": 4}, "vertices": []}]
    task, _ = drive(provider().get(TASK), respond(200, completed({"documents": documents}, "convert")))
    assert task.result.data == documents


def test_an_unknown_result_is_data(drive: Drive, respond: Respond) -> None:
    task, _ = drive(provider().get(TASK), respond(200, completed({"summary": "new"}, "summarize")))
    assert task.result.data == {"summary": "new"}


@pytest.mark.parametrize("status", ["pending", "processing", "completed"])
@pytest.mark.parametrize("result", [None, {}])
def test_an_empty_result_is_none(drive: Drive, respond: Respond, status: str, result: object) -> None:
    task, _ = drive(provider().get(TASK), respond(200, vendor_body(status=status, result=result)))
    assert task.result is None


def test_a_failure_has_a_message_and_details(drive: Drive, respond: Respond) -> None:
    body = vendor_body(status="failed", result={"error": "Invalid page range", "details": {"pages": "9"}})
    task, _ = drive(provider().get(TASK), respond(200, body))
    assert task.status is TaskStatus.FAILED
    assert task.error.to_dict() == {"code": None, "message": "Invalid page range", "details": {"pages": "9"}}


@pytest.mark.parametrize("result", [None, {}, "text"])
def test_a_failure_may_have_no_message(drive: Drive, respond: Respond, result: object) -> None:
    task, _ = drive(provider().get(TASK), respond(200, vendor_body(status="failed", result=result)))
    assert task.error.message is None
