from __future__ import annotations

import gzip
import json
import struct
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final

import pytest
from pydantic import ValidationError

from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    InvalidRequest,
    InvalidTaskId,
    MalformedResponse,
    PermissionDenied,
    ServerError,
    TaskNotFound,
)
from taskbridge.models import Reason, TaskStatus
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request, Response
from taskbridge_expertai_extract import ExpertAiExtract, ExpertAiExtractSettings, Word, decode_words

Drive = Callable[..., tuple[Any, list[Request]]]
Respond = Callable[..., Response]

TASK = "5c1dd1d8-3a2b-4f6a-9b0e-2f8b7c1d6e5f"
ACCOUNT = {"username": "me@example.com", "password": "canary-password"}
EXPIRED = "_.eyJleHAiOjE2NDI0OTMyMjZ9._"  # extract-python, test/unit/test_authentication.py: {"exp":1642493226}
NOT_JWT = "-1RDVOdFM1UHJBar"  # the same file
PAGE = "H4sIAK+FKGIC/ytJLS5hYGJgYEgB4lQgrgHiIiAGAEjL9hsZAAAA"  # extract-python, test/integration/test_status.py


def provider(**settings: Any) -> ExpertAiExtract:
    return ExpertAiExtract(ExpertAiExtractSettings.model_validate(settings or ACCOUNT), "layouts")


def test_get_requests_the_state(drive: Drive, respond: Respond) -> None:
    task, (request,) = drive(provider().get(TASK), respond(200, {"state": "PENDING", "current": 0, "message": ""}))
    assert (request.method, request.url) == ("GET", f"https://extract.expert.ai/beta/status/{TASK}")
    assert request.authorized
    assert (task.id, task.native_id, task.ref) == (TASK, TASK, f"layouts:{TASK}")
    assert task.message is None


def test_the_response_has_no_id_to_compare() -> None:
    assert ExpertAiExtract.capabilities.kinds[0].identity is None


def test_there_is_no_long_poll() -> None:
    assert provider().long_poll(TASK) is None


def test_a_result_may_be_large() -> None:
    assert ExpertAiExtract.max_body == 64 * 1024 * 1024


def test_an_endless_wait_has_a_hint() -> None:
    assert "PENDING" in ExpertAiExtract.wait_hints[TaskStatus.PENDING]


# The token.


def test_authorize_logs_in_and_reads_plain_text(drive: Drive, respond: Respond) -> None:
    credential, (request,) = drive(provider().authorize(), respond(200, f" {EXPIRED}\n".encode()))
    assert (request.method, request.url) == ("POST", "https://developer.expert.ai/oauth2/token")
    assert request.headers == {"Content-Type": "application/json; charset=utf-8"}
    assert isinstance(request.body, bytes)
    assert json.loads(request.body) == ACCOUNT
    assert (request.authorized, request.idempotent, request.response_type) == (False, True, "bytes")
    assert "canary" not in repr(request)
    assert credential.headers == {"Authorization": f"Bearer {EXPIRED}"}
    assert credential.expires_at == datetime.fromtimestamp(1642493226, UTC)


def claims(value: object) -> str:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return f"h.{urlsafe_b64encode(body).decode().rstrip('=')}.s"


NOON: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)  # by this computer's clock


@pytest.mark.parametrize("ahead", [0, 7200, -7200])
@pytest.mark.parametrize("has_issue_time", [True, False])
def test_the_life_of_a_token_is_measured_by_the_clock_of_the_vendor(
    has_issue_time: bool, ahead: int, drive: Drive
) -> None:
    vendor_noon = NOON - timedelta(seconds=ahead)
    issued = int(vendor_noon.timestamp())
    token = claims({"exp": issued + 3600, **({"iat": issued} if has_issue_time else {})})
    headers = {} if has_issue_time else {"date": format_datetime(vendor_noon, usegmt=True)}
    credential, _ = drive(provider().authorize(), Response(200, headers, token.encode(), NOON))
    assert credential.expires_at == NOON + timedelta(hours=1)


@pytest.mark.parametrize(
    "token",
    [
        NOT_JWT,
        claims({}),
        claims({"exp": "soon"}),
        claims({"exp": True}),
        claims({"exp": 10**40}),
        claims({"exp": None}),
        claims([1]),
        claims(b"no json"),
        "h.!.s".replace("!", "a"),
    ],
)
def test_a_token_without_an_expiry_has_none(drive: Drive, respond: Respond, token: str) -> None:
    credential, _ = drive(provider().authorize(), respond(200, token.encode()))
    assert credential == Credential({"Authorization": f"Bearer {token}"}, None)


def test_a_token_from_the_settings_needs_no_request(drive: Drive) -> None:
    credential, requests = drive(provider(access_token=EXPIRED).authorize())
    assert credential.headers == {"Authorization": f"Bearer {EXPIRED}"}
    assert credential.expires_at == datetime.fromtimestamp(1642493226, UTC)
    assert requests == []


@pytest.mark.parametrize(
    "body",
    [b"", b" \n", b'{"token": "canary-token"}', b"<html>canary-token</html>", b"canary\r\ntoken", b"canary\xfftoken"],
)
def test_a_malformed_token_is_not_shown(drive: Drive, respond: Respond, body: bytes) -> None:
    with pytest.raises(MalformedResponse) as caught:
        drive(provider().authorize(), respond(200, body))
    assert "canary" not in str(caught.value) + repr(caught.value.raw)


@pytest.mark.parametrize(
    ("status", "expected"), [(400, InvalidRequest), (401, AuthenticationError), (403, PermissionDenied)]
)
def test_a_refused_login_raises_the_error_for_its_status(
    drive: Drive, respond: Respond, status: int, expected: type[ApiError]
) -> None:
    with pytest.raises(expected):
        drive(provider().authorize(), respond(status, b"no"))


def test_any_other_success_status_is_malformed(drive: Drive, respond: Respond) -> None:
    with pytest.raises(MalformedResponse):
        drive(provider().authorize(), respond(201, EXPIRED.encode()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"username": "me"}, r"give username and password \(as settings.*\), or access_token"),
        ({"password": "p"}, r"give username and password \(as settings.*\), or access_token"),
        ({**ACCOUNT, "access_token": "t"}, "access_token replaces username and password"),
        ({"password": "p", "access_token": "t"}, "access_token replaces username and password"),
    ],
)
def test_there_is_exactly_one_credential(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        provider(**settings)


# Errors: https://docs.expert.ai/extract/latest/reference/status/ (read 2026-11-22)
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, InvalidRequest),
        (401, AuthenticationError),
        (403, PermissionDenied),
        (404, TaskNotFound),
        (405, InvalidRequest),
        (413, InvalidRequest),
        (500, ServerError),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html></html>", {"message": "words"}])
def test_an_error_is_mapped_by_its_status(
    drive: Drive, respond: Respond, status: int, body: object, expected: type[ApiError]
) -> None:
    with pytest.raises(ApiError) as caught:
        drive(provider().get(TASK), respond(status, body))
    assert type(caught.value) is expected


def test_a_missing_subscription_concerns_the_account_and_shows_its_message(drive: Drive, respond: Respond) -> None:
    body = {"message": "Forbidden", "_embedded": {"errors": [{"message": "no active subscription"}, {}]}}
    with pytest.raises(PermissionDenied) as caught:
        drive(provider().get(TASK), respond(403, body))
    assert caught.value.message == "Forbidden: no active subscription"
    assert 403 in ExpertAiExtract.account_errors


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{", {}, {"state": None}, {"state": 200}, {"message": "an error, as HTTP 200"}]
)
def test_a_body_that_breaks_the_contract_is_malformed(drive: Drive, respond: Respond, body: object) -> None:
    with pytest.raises(MalformedResponse):
        drive(provider().get(TASK), respond(200, body))


@pytest.mark.parametrize(
    "bad", ["", "a/b", "..", ".", "a b", "a\nb", "a\r\nX: y", "a\0", "é", "%2e%2e", "a?b", "a#b", "x" * 10_000]
)
def test_an_invalid_id_is_refused_before_a_request(bad: str) -> None:
    with pytest.raises(InvalidTaskId):
        next(provider().get(bad))


# Translation.


@pytest.mark.parametrize(
    ("current", "progress"),
    [(0, 0.0), (37, 0.37), (100, 1.0), (62.5, 0.625), (-3, 0.0), (170, 1.0), (10**400, 1.0), ("5", None), (True, None)],
)
def test_progress_is_a_fraction(drive: Drive, respond: Respond, current: object, progress: float | None) -> None:
    body = {"state": "PROGRESS", "current": current, "message": "page conversion"}
    task, _ = drive(provider().get(TASK), respond(200, body))
    assert (task.progress, task.message) == (progress, "page conversion")


def test_a_failure_has_the_message(drive: Drive, respond: Respond) -> None:
    task, _ = drive(provider().get(TASK), respond(200, {"state": "FAILURE", "current": 0, "message": "no pages"}))
    assert task.status is TaskStatus.FAILED
    assert (task.error.code, task.error.message) == (None, "no pages")


@pytest.mark.parametrize(
    ("pages", "reason"), [(0, None), (None, None), (1, Reason.PARTIAL), (2.0, Reason.PARTIAL), ("1", None)]
)
def test_missing_pages_make_a_result_partial(
    drive: Drive, respond: Respond, pages: object, reason: Reason | None
) -> None:
    body: dict[str, Any] = {"state": "SUCCESS", "result": {"header": {"errorPages": pages}, "layout": []}}
    task, _ = drive(provider().get(TASK), respond(200, body))
    assert (task.status, task.reason) == (TaskStatus.COMPLETED, reason)


def test_the_result_is_verbatim(drive: Drive, respond: Respond) -> None:
    response = respond(200, {"state": "SUCCESS", "result": {"header": {}, "layout": [{"id": 1}], "words": [PAGE]}})
    task, _ = drive(provider().get(TASK), response)
    assert task.result.data is response.json()["result"]
    assert (task.result.text, task.result.files) == (None, ())


@pytest.mark.parametrize("result", [None, {}])
def test_an_empty_result_is_none(drive: Drive, respond: Respond, result: object) -> None:
    task, _ = drive(provider().get(TASK), respond(200, {"state": "SUCCESS", "result": result}))
    assert (task.status, task.reason, task.result) == (TaskStatus.COMPLETED, None, None)


def test_finished_at_is_utc_to_the_minute(drive: Drive, respond: Respond) -> None:
    body = {"state": "SUCCESS", "result": {"header": {"conversionDateTime": "2022-03-09 10:47"}}}
    task, _ = drive(provider().get(TASK), respond(200, body))
    assert task.finished_at == datetime(2022, 3, 9, 10, 47, tzinfo=UTC)
    assert (task.created_at, task.started_at, task.updated_at) == (None, None, None)


# Words.


def page(data: bytes) -> str:
    return b64encode(gzip.compress(data, mtime=0)).decode()


def word(text: str, element: int, *box: int) -> bytes:
    return text.encode() + b"\0" + struct.pack("<5I", element, *box)


def test_the_vendors_sample_page_is_decoded() -> None:
    assert decode_words(PAGE) == [Word("test", 2, (100, 101, 124, 114))]


def test_four_bytes_separate_words() -> None:
    data = word("Straße", 2, 1, 2, 3, 4) + b"\1\2\3\4" + word("b", 5, 6, 7, 8, 9)
    expected = [Word("Straße", 2, (1, 2, 3, 4)), Word("b", 5, (6, 7, 8, 9))]
    assert decode_words(page(data)) == expected
    assert decode_words(page(data + b"\0\0\0\0")) == expected


def test_a_page_may_be_empty() -> None:
    assert decode_words(page(b"")) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        "é",
        b64encode(b"not gzip").decode(),
        PAGE[:-8],
        b64encode(gzip.compress(b"", mtime=0)[:-4]).decode(),
        b64encode(gzip.compress(b"", mtime=0) + b"more").decode(),
        page(b"no zero byte"),
        page(b"cut\0\1\2"),
        page(b"\xff\0" + struct.pack("<5I", 1, 2, 3, 4, 5)),
        page(word("a", 1, 2, 3, 4, 5) + b"\0\0"),
        page(bytes((16 << 20) + 1)),
    ],
)
def test_a_broken_page_is_malformed(text: str) -> None:
    with pytest.raises(MalformedResponse):
        decode_words(text)


def test_a_decompression_bomb_is_not_unpacked() -> None:
    with pytest.raises(MalformedResponse, match="unpacks to more than 16777216 bytes"):
        decode_words(page(bytes(64 << 20)))
