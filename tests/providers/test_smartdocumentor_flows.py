from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    InvalidRequest,
    InvalidTaskId,
    MalformedResponse,
    PermissionDenied,
    RateLimited,
    ServerError,
    TaskNotFound,
)
from taskbridge.models import Reason, TaskStatus
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request, Response
from taskbridge_smartdocumentor import SmartDocumentor, SmartDocumentorSettings

Drive = Callable[..., tuple[Any, list[Request]]]
Respond = Callable[..., Response]

CLIENT = {"client_id": "me", "client_secret": "canary & secret"}
BASE = "https://cloud.smartdocumentor.net/api/v1.0/external"


def provider(**settings: Any) -> SmartDocumentor:
    return SmartDocumentor(SmartDocumentorSettings.model_validate(settings or CLIENT), "invoices")


def vendor_body(**fields: Any) -> dict[str, Any]:
    return {"taskId": 44, "workspaceId": 1, "displayName": "d", "totalPages": 1, **fields}


def test_get_requests_a_task_by_number(drive: Drive, respond: Respond) -> None:
    task, (request,) = drive(provider().get("44"), respond(200, vendor_body(taskStatusText="Processed")))
    assert (request.method, request.url) == ("GET", f"{BASE}/sdtask/status?taskId=44")
    assert request.authorized
    assert (task.id, task.native_id, task.ref) == ("44", 44, "invoices:44")


def test_get_requests_a_task_by_external_id(drive: Drive, respond: Respond) -> None:
    task, (request,) = drive(
        provider().get("external/INV-7"), respond(200, vendor_body(taskStatusText="Processed", externalId="INV-7"))
    )
    assert request.url == f"{BASE}/sdtask/status?externalId=INV-7"
    assert (task.id, task.native_id, task.external_id) == ("external/INV-7", 44, "INV-7")


@pytest.mark.parametrize(
    "own", ["44", "a/b/c", "..", "a b", "a&taskId=1", "a#b", "a+b", "100%", "é", "発票-7", "😀", "x" * 512, "a:b"]
)
def test_the_external_id_is_encoded(own: str) -> None:
    parts = urlsplit(next(provider().get(f"external/{own}")).url)
    assert parts.path == "/api/v1.0/external/sdtask/status"
    assert parts.fragment == ""
    assert parse_qs(parts.query, strict_parsing=True) == {"externalId": [own]}


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "a/b",
        "..",
        "4 4",
        "44\n",
        "44\r\nX: y",
        "-1",
        "044",
        "٤٤",
        "INV-7",
        "9" * 10_000,
        "external/",
        "external/a\nb",
        "external/a\0",
        "external/\x85",
        "external/\u202eb",
        "external/\ud800",
        "external/" + "x" * 513,
        "external/" + "x" * 10_000,
    ],
)
def test_an_invalid_id_is_refused_before_a_request(bad: str) -> None:
    with pytest.raises(InvalidTaskId):
        next(provider().get(bad))


def test_the_identity_of_an_external_id_is_external_id() -> None:
    assert [kind.identity for kind in SmartDocumentor.capabilities.kinds] == ["native_id", "external_id"]


def test_there_is_no_long_poll() -> None:
    assert provider().long_poll("44") is None


# The token.


def test_authorize_sends_the_client_credentials_as_a_form(drive: Drive, respond: Respond) -> None:
    body = {"access_token": "eyJ.a.b", "expires_in": 3600, "token_type": "Bearer", "scope": "WebAPI"}
    credential, (request,) = drive(provider().authorize(), respond(200, body))
    assert (request.method, request.url) == ("POST", "https://cloud.smartdocumentor.net/connect/token")
    assert request.headers == {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    assert isinstance(request.body, bytes)
    assert parse_qs(request.body.decode(), strict_parsing=True) == {
        "grant_type": ["client_credentials"],
        "scope": ["WebAPI"],
        "client_id": ["me"],
        "client_secret": ["canary & secret"],
    }
    assert (request.authorized, request.idempotent) == (False, True)
    assert "canary" not in repr(request)
    assert credential.headers == {"Authorization": "Bearer eyJ.a.b"}
    assert credential.expires_at == datetime(2026, 11, 22, 13, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({**CLIENT, "base_url": "http://127.0.0.1:9/api/v1.0/external"}, "http://127.0.0.1:9/connect/token"),
        ({**CLIENT, "token_url": "https://login.test/token"}, "https://login.test/token"),
    ],
)
def test_the_settings_choose_the_token_service(settings: dict[str, Any], url: str) -> None:
    assert next(provider(**settings).authorize()).url == url


def test_a_token_from_the_settings_needs_no_request(drive: Drive) -> None:
    assert drive(provider(access_token="tok").authorize()) == (Credential({"Authorization": "Bearer tok"}), [])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"client_id": "me"}, r"give client_id and client_secret \(as settings.*\), or access_token"),
        ({"client_secret": "s"}, r"give client_id and client_secret \(as settings.*\), or access_token"),
        ({"base_url": "https://x.test"}, r"give client_id and client_secret \(as settings.*\), or access_token"),
        ({**CLIENT, "access_token": "t"}, "access_token replaces client_id and client_secret"),
        ({"client_id": "me", "access_token": "t"}, "access_token replaces client_id and client_secret"),
    ],
)
def test_there_is_exactly_one_credential(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        provider(**settings)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": "invalid_client"}, AuthenticationError),
        (401, {"error": "invalid_client"}, AuthenticationError),
        (401, b"", AuthenticationError),
        (400, {"error": "invalid_scope"}, InvalidRequest),
        (503, b"", ServerError),
    ],
)
def test_a_refused_token_raises_the_error_for_its_code(
    drive: Drive, respond: Respond, status: int, body: object, expected: type[ApiError]
) -> None:
    with pytest.raises(ApiError) as caught:
        drive(provider().authorize(), respond(status, body))
    assert type(caught.value) is expected
    if expected is AuthenticationError:
        assert "check that the credential is right" in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"access_token": "canary-token", "access_token": "canary-token"}',
        b'{"access_token": "canary-token"',
        {"access_token": 7, "note": "canary-token"},
        {"access_token": "canary-token\r\nX: y"},
        {"access_token": "canary token"},
    ],
)
def test_a_malformed_token_is_not_shown(drive: Drive, respond: Respond, body: object) -> None:
    with pytest.raises(MalformedResponse) as caught:
        drive(provider().authorize(), respond(200, body))
    assert "canary" not in str(caught.value) + repr(caught.value.raw)


@pytest.mark.parametrize("lifetime", [None, "3600", True, float("1e300"), -5])
def test_an_odd_lifetime_is_tolerated(drive: Drive, respond: Respond, lifetime: object) -> None:
    credential, _ = drive(provider().authorize(), respond(200, {"access_token": "t", "expires_in": lifetime}))
    assert credential.headers == {"Authorization": "Bearer t"}


# Errors: https://docs.smartdocumentor.net/technical/api-reference/get-task-status (read 2026-11-22): no bodies.
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, InvalidRequest),
        (401, AuthenticationError),
        (403, PermissionDenied),
        (404, TaskNotFound),
        (429, RateLimited),
        (500, ServerError),
        (503, ServerError),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html></html>", b"null"])
def test_an_error_needs_no_body(
    drive: Drive, respond: Respond, status: int, body: bytes, expected: type[ApiError]
) -> None:
    with pytest.raises(ApiError) as caught:
        drive(provider().get("44"), respond(status, body))
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        {},
        vendor_body(taskId=None),
        vendor_body(taskId="44"),
        vendor_body(taskId=True),
        vendor_body(taskStatusText=7),
        vendor_body(taskStatus=True),
        vendor_body(taskStatus="34"),
        vendor_body(taskStatusText="Unlisted", taskStatus=False),
    ],
)
def test_a_body_that_breaks_the_contract_is_malformed(drive: Drive, respond: Respond, body: object) -> None:
    with pytest.raises(MalformedResponse):
        drive(provider().get("44"), respond(200, body))


# Translation.


@pytest.mark.parametrize(
    ("fields", "status", "reason", "native", "message"),
    [
        ({"taskStatusText": "ToReview", "taskStatus": 32}, "processing", "awaiting_review", "ToReview", None),
        ({"taskStatusText": "PreProcessingFailed", "taskStatus": 34}, "failed", None, "PreProcessingFailed", None),
        ({"taskStatusText": "Unlisted", "taskStatus": 34}, "processing", None, "Unlisted", None),
        ({"taskStatusText": "", "taskStatus": 30}, "pending", None, "30", None),
        ({"taskStatusText": None, "taskStatus": 20}, "failed", "deleted", "20", None),
        (
            {"taskStatusText": "Processed", "integrationStatusText": "Failed"},
            "completed",
            "integration_failed",
            "Processed",
            "integrationStatus: Failed",
        ),
        (
            {"taskStatusText": "Processed", "integrationStatus": 4},
            "completed",
            "integration_failed",
            "Processed",
            "integrationStatus: Failed",
        ),
        (
            {"taskStatusText": "Processed", "integrationStatusText": "Integrated", "integrationStatus": 4},
            "completed",
            None,
            "Processed",
            None,
        ),
        (
            {"taskStatusText": "InReview", "integrationStatusText": "Failed"},
            "processing",
            "awaiting_review",
            "InReview",
            "integrationStatus: Failed",
        ),
        (
            {"taskStatusText": "QueuedForExport", "integrationStatusText": "Failed"},
            "pending",
            "integration_failed",
            "QueuedForExport",
            "integrationStatus: Failed",
        ),
        ({"taskStatusText": "ExportFailed", "integrationStatusText": "Failed"}, "failed", None, "ExportFailed", None),
        ({"taskStatusText": "Deleted", "integrationStatus": 4}, "failed", "deleted", "Deleted", None),
        ({"taskStatusText": "Processed", "integrationStatus": 1}, "completed", None, "Processed", None),
    ],
)
def test_the_status_text_decides_and_the_integration_status_only_refines(
    drive: Drive,
    respond: Respond,
    *,
    fields: dict[str, Any],
    status: str,
    reason: str | None,
    native: str,
    message: str | None,
) -> None:
    task, _ = drive(provider().get("44"), respond(200, vendor_body(**fields)))
    assert (task.status, task.reason, task.native_status, task.message) == (status, reason, native, message)
    assert task.recognized


@pytest.mark.parametrize(
    ("fields", "native"),
    [
        ({}, None),
        ({"taskStatusText": None, "taskStatus": None}, None),
        ({"taskStatusText": "Unlisted"}, "Unlisted"),
        ({"taskStatusText": "Unlisted", "taskStatus": 99}, "Unlisted"),
        ({"taskStatus": 36}, "36"),
        ({"taskStatus": 3}, "3"),
    ],
)
def test_an_unknown_status_is_processing(
    drive: Drive, respond: Respond, fields: dict[str, Any], native: str | None
) -> None:
    task, _ = drive(provider().get("44"), respond(200, vendor_body(**fields)))
    assert (task.status, task.recognized, task.native_status) == (TaskStatus.PROCESSING, False, native)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"taskStatusText": "PreProcessingDownloadFailed", "taskStatus": 33}, "PreProcessingDownloadFailed"),
        ({"taskStatus": 33}, "PreProcessingDownloadFailed"),
        ({"taskStatusText": "Deleting"}, "Deleting"),
    ],
)
def test_a_failure_has_its_status_as_code_and_message(
    drive: Drive, respond: Respond, fields: dict[str, Any], words: str
) -> None:
    task, _ = drive(provider().get("44"), respond(200, vendor_body(**fields)))
    assert (task.error.code, task.error.message) == (words, words)


def test_restarts_default_to_zero(drive: Drive, respond: Respond) -> None:
    first, _ = drive(provider().get("44"), respond(200, vendor_body(taskStatus=34)))
    again, _ = drive(provider().get("44"), respond(200, vendor_body(taskStatus=34, restartCount=2)))
    assert (first.restarts, again.restarts) == (0, 2)


def test_times_may_lack_a_zone_and_have_seven_digits(drive: Drive, respond: Respond) -> None:
    body = vendor_body(createdOn="2023-08-08T08:55:29.7831583Z", preProcessingStartedOn="2023-08-08T08:56:00")
    task, _ = drive(provider().get("44"), respond(200, body))
    assert task.created_at == datetime(2023, 8, 8, 8, 55, 29, 783158, tzinfo=UTC)
    assert task.started_at == datetime(2023, 8, 8, 8, 56, tzinfo=UTC)
    assert (task.updated_at, task.finished_at) == (None, None)


# The result.


def test_the_result_is_fetched_by_number(drive: Drive, respond: Respond) -> None:
    smart = provider()
    task, _ = drive(
        smart.get("external/INV-7"), respond(200, vendor_body(taskStatusText="Processed", externalId="INV-7"))
    )
    assert (task.status, task.result) == (TaskStatus.COMPLETED, None)
    export: dict[str, Any] = {"taskId": 44, "originalFileUrl": None, "chunks": [{"entities": []}]}
    result, (request,) = drive(smart.result(task), respond(200, export))
    assert (request.method, request.url) == ("GET", f"{BASE}/sdtask/GetExportData/44")
    assert result.data == export
    assert (result.files, result.text) == ((), None)


@pytest.mark.parametrize(("status", "expected"), [(404, TaskNotFound), (500, ServerError), (200, MalformedResponse)])
def test_a_missing_result_raises_the_error_for_its_status(
    drive: Drive, respond: Respond, status: int, expected: type[Exception]
) -> None:
    smart = provider()
    task, _ = drive(smart.get("44"), respond(200, vendor_body(taskStatusText="Processed")))
    with pytest.raises(expected):
        drive(smart.result(task), respond(status))


def test_a_long_review_has_a_wait_hint() -> None:
    assert "review" in SmartDocumentor.wait_hints[Reason.AWAITING_REVIEW]
    assert Reason.INTEGRATION_FAILED in SmartDocumentor.capabilities.reasons
