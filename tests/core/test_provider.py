"""What providers use: tables, times, payloads, errors, ids."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

import taskbridge as tb
from taskbridge.errors import MalformedResponse
from taskbridge.models import Reason, TaskStatus
from taskbridge.provider.capabilities import PLAIN_ID, Credential
from taskbridge.provider.http import Response
from taskbridge.provider.payload import Payload, StateTable, read_state, read_time

SEEN = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TABLE: StateTable = {
    "done": (TaskStatus.COMPLETED, None),
    "To Review": (TaskStatus.PROCESSING, Reason.AWAITING_REVIEW),
    "Odd[1]?": (TaskStatus.PENDING, None),
    "PreFailed": (TaskStatus.PENDING, None),
    "*Failed": (TaskStatus.FAILED, None),
    "QueuedFor*": (TaskStatus.PENDING, None),
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def payload(**fields: Any) -> Payload:
    return Payload(fields, "acme", SEEN)


# Tables.


@pytest.mark.parametrize(
    ("word", "status", "reason"),
    [
        ("done", TaskStatus.COMPLETED, None),
        ("DONE", TaskStatus.COMPLETED, None),
        (" Done\n", TaskStatus.COMPLETED, None),
        ("toreview", TaskStatus.PROCESSING, Reason.AWAITING_REVIEW),
        ("ExportFailed", TaskStatus.FAILED, None),
        ("PreFailed", TaskStatus.PENDING, None),  # its own row takes precedence over the pattern
        ("queuedforocr", TaskStatus.PENDING, None),
        ("Odd[1]?", TaskStatus.PENDING, None),
    ],
)
def test_a_word_is_read_without_regard_to_case_and_spaces(word: str, status: TaskStatus, reason: Reason | None) -> None:
    state = read_state(TABLE, word)
    assert (state.status, state.reason, state.recognized) == (status, reason, True)


@pytest.mark.parametrize("word", [None, "", "finished", "Failed?", "Odd1x", "Odd[1]x", "undone", "*"])
def test_an_unlisted_word_is_processing_and_not_recognized(word: str | None) -> None:
    state = read_state({k: v for k, v in TABLE.items() if k != "*Failed"}, word)
    assert (state.status, state.reason, state.recognized) == (TaskStatus.PROCESSING, None, False)


@given(st.text(st.characters(), max_size=40))
def test_no_word_crashes_a_table(word: str) -> None:
    state = read_state(TABLE, word)
    assert state.recognized or state.status is TaskStatus.PROCESSING


# Times.


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T12:00:00Z", SEEN),
        ("2026-11-22T12:00:00", SEEN),  # without a zone
        ("2026-11-22 12:00:00", SEEN),
        ("2026-11-22T13:30:00+01:30", SEEN),
        ("2026-11-22T12:00:00.1234567Z", SEEN + timedelta(microseconds=123456)),  # seven digits
        ("2026-11-22T12:00:00.1234567", SEEN + timedelta(microseconds=123456)),
        ("2026-11-22T12:00:00.5+00:00", SEEN + timedelta(seconds=0.5)),
        ("20261122T120000Z", SEEN),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-21T24:00:00Z", datetime(2026, 11, 22, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_as_utc(text: str, moment: datetime) -> None:
    assert read_time(text) == moment
    assert read_time(text).utcoffset() == timedelta(0)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1_700_000_000,
        1.7e9,
        "",
        "soon",
        "yesterday",
        "1700000000",
        "22.11.2026",
        "2026-13-01T00:00:00Z",
        "2026-11-22T12:00:60Z",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        ["2026"],
    ],
)
def test_an_unreadable_time_is_none(value: object) -> None:
    assert read_time(value) is None


@given(st.text(st.characters(), max_size=40))
def test_any_text_is_an_aware_time_or_none(text: str) -> None:
    moment = read_time(text)
    assert moment is None or moment.utcoffset() == timedelta(0)


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)), st.integers(-1439, 1439))  # noqa: DTZ001  # hypothesis wants naive ends
def test_what_isoformat_writes_is_read_back(moment: datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert read_time(aware.isoformat()) == aware


# Payloads.


@given(JSON)
def test_required_getters_return_their_type_or_raise(value: Any) -> None:
    said = payload(field=value)
    for getter, kind in ((said.text, str), (said.integer, int), (said.child, Payload)):
        try:
            answer = getter("field")
        except MalformedResponse:
            continue
        assert isinstance(answer, kind)
        assert not isinstance(answer, bool)


@given(JSON)
def test_maybe_getters_never_raise(value: Any) -> None:
    said = payload(field=value)
    words = said.maybe_message("field")
    assert words is None or (words.strip() and len(words) <= 2048)
    text = said.maybe_text("field")
    assert text is None or text.encode() is not None
    number = said.maybe_number("field")
    assert number is None or number not in (float("inf"), float("-inf"))
    share = said.maybe_fraction("field", 100.0)
    assert share is None or 0.0 <= share <= 1.0
    time = said.maybe_time("field")
    assert time is None or time.tzinfo is not None
    assert said.maybe_child("field") is None or isinstance(value, dict)
    assert said.maybe_integer("field") is None or isinstance(value, int)


@pytest.mark.parametrize(
    ("value", "share"),
    [
        (80, 0.8),
        (0, 0.0),
        (100, 1.0),
        (-5, 0.0),
        (250, 1.0),
        (10**400, 1.0),
        (float("nan"), None),
        (True, None),
        ("80", None),
    ],
)
def test_a_fraction_is_clamped_to_0_and_1(value: object, share: float | None) -> None:
    assert payload(progress=value).maybe_fraction("progress", 100.0) == share


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "'id' is missing"),
        ("", "'id' is an empty text instead of a text"),
        (7, "'id' is a number instead of a text"),
        (True, "'id' is true or false instead of a text"),
        ([], "'id' is a list instead of a text"),
        ({}, "'id' is an object instead of a text"),
    ],
)
def test_a_required_field_that_is_no_text_is_named_in_the_error(value: object, words: str) -> None:
    with pytest.raises(MalformedResponse, match=words) as caught:
        payload(id=value).text("id")
    assert caught.value.raw == {"id": value}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("44", "'id' is a number sent as text instead of an integer"),
        (" -4.5e3 ", "'id' is a number sent as text instead of an integer"),
        ("four", "'id' is a text instead of an integer"),
        ("", "'id' is an empty text instead of an integer"),
        (4.0, "'id' is a number instead of an integer"),
    ],
)
def test_a_required_integer_of_another_type_is_named_in_the_error(value: object, words: str) -> None:
    with pytest.raises(MalformedResponse, match=words):
        payload(id=value).integer("id")


@pytest.mark.parametrize("value", [{}, {"a": 1}, "", "a", 7, True])
def test_what_should_be_a_list_is_one_or_missing(value: object) -> None:
    with pytest.raises(MalformedResponse, match="instead of a list"):
        list(payload(items=value).children("items"))
    assert [child.raw for child in payload(items=[{"a": 1}, 2, None, {}]).children("items")] == [{"a": 1}, {}]
    assert list(payload(items=None).children("items")) == list(payload().children("items")) == []


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_an_id_with_broken_characters_is_refused_and_a_message_is_repaired(value: str) -> None:
    with pytest.raises(MalformedResponse):
        payload(id=value).text("id")
    mended = payload(message=value).maybe_text("message")
    assert mended is not None
    assert "\0" not in mended
    mended.encode()


@pytest.mark.parametrize(
    ("document", "kind"), [([], "a list"), ("x", "a text"), (None, "null"), (1, "a number"), (True, "true or false")]
)
def test_a_body_that_is_no_object_has_the_wrong_shape(document: object, kind: str) -> None:
    with pytest.raises(MalformedResponse, match=f"wrong shape: {kind}"):
        Payload.of(document, "acme", SEEN)


# Ids.


@pytest.mark.parametrize(
    "task_id",
    [
        "",
        ".",
        "..",
        "...",
        "../../admin",
        "%2e%2e",
        "a/b",
        "a?x",
        "a#f",
        "a\r\nX: y",
        "a\n",
        "a\0",
        "a" * 129,
        "a" * 10_000,
        "//evil/x",
        " a",
        "a b",
        "é",
        "-a",
        "\ud800",
    ],
)
def test_an_id_that_would_change_the_path_is_refused(acme: Callable[..., Any], task_id: str) -> None:
    assert PLAIN_ID.fullmatch(task_id) is None
    with pytest.raises(tb.InvalidTaskId, match="ids look like t1") as caught:
        acme().connection.provider.split_id(task_id)
    assert len(str(caught.value)) < 400
    assert caught.value.message.isprintable()


# Refusals.


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, tb.InvalidRequest, False),
        (401, tb.AuthenticationError, False),
        (402, tb.QuotaExceeded, False),
        (403, tb.PermissionDenied, False),
        (404, tb.TaskNotFound, False),
        (405, tb.InvalidRequest, False),
        (406, tb.ApiError, False),
        (408, tb.ApiError, True),
        (409, tb.InvalidRequest, False),
        (410, tb.TaskNotFound, False),
        (413, tb.InvalidRequest, False),
        (415, tb.ApiError, False),
        (418, tb.ApiError, False),
        (422, tb.InvalidRequest, False),
        (425, tb.ApiError, True),
        (429, tb.RateLimited, True),
        (451, tb.ApiError, False),
        (499, tb.ApiError, False),
        (500, tb.ServerError, True),
        (501, tb.ServerError, False),
        (502, tb.ServerError, True),
        (503, tb.ServerError, True),
        (504, tb.ServerError, True),
        (505, tb.ServerError, False),
        (511, tb.ServerError, True),
        (520, tb.ServerError, True),
        (301, tb.UnexpectedRedirect, False),
        (302, tb.UnexpectedRedirect, False),
        (303, tb.UnexpectedRedirect, False),
        (307, tb.UnexpectedRedirect, False),
        (308, tb.UnexpectedRedirect, False),
        (204, tb.MalformedResponse, True),
        (206, tb.MalformedResponse, True),
        (304, tb.MalformedResponse, True),
        (999, tb.MalformedResponse, True),
    ],
)
def test_the_status_decides_the_error_class(
    acme: Callable[..., Any], status: int, kind: type[tb.TaskbridgeError], *, retryable: bool
) -> None:
    error = acme().connection.provider.error(
        Response(status, {"x-request-id": "r7"}, b'{"code": "E7", "message": "no"}')
    )
    assert type(error) is kind
    assert (error.http_status, error.retryable) == (status, retryable)
    if issubclass(kind, tb.ApiError):
        assert (error.vendor_code, error.request_id) == ("E7", "r7")
        assert error.message.startswith("no")


FASTAPI_BODIES: list[tuple[Any, str | None, str]] = [
    ("Unauthorized", None, "Unauthorized"),
    (
        [{"type": "missing", "loc": ["body", "files"], "msg": "Field required"}, {"loc": ["query", 0], "type": "enum"}],
        "missing",
        "body.files: Field required; query.0: enum",
    ),
    ([{"loc": "body", "msg": 7}, "odd", None], None, "invalid"),
    ([], None, "the vendor refused the request"),
    ({"reason": "no"}, None, "the vendor refused the request"),
]


@pytest.mark.parametrize(("detail", "code", "message"), FASTAPI_BODIES)
def test_errors_in_the_form_of_fastapi_are_read_by_default(
    acme: Callable[..., Any], detail: Any, code: str | None, message: str
) -> None:
    error = acme().connection.provider.error(Response(422, {}, json.dumps({"detail": detail}).encode()))
    assert (error.message, error.vendor_code) == (message, code)


def test_a_message_stands_above_a_detail_and_a_long_list_is_cut(acme: Callable[..., Any]) -> None:
    provider = acme().connection.provider
    both = {"message": "no pages", "code": "E7", "detail": "see the documentation"}
    assert provider.error(Response(400, {}, json.dumps(both).encode())).message == "no pages"
    long = {"detail": [{"loc": ["body", n], "msg": "wrong"} for n in range(1000)]}
    assert provider.error(Response(422, {}, json.dumps(long).encode())).message.count("wrong") == 5


def test_every_status_has_an_error(acme: Callable[..., Any]) -> None:
    provider = acme().connection.provider
    for status in range(100, 1000):
        error = provider.error(Response(status))
        expected = tb.ServerError if 500 <= status <= 599 else tb.ApiError
        assert isinstance(error, expected if 400 <= status <= 599 else tb.ContractError)
        assert error.http_status == status


@given(JSON)
def test_no_error_body_hides_the_status(document: Any) -> None:
    from taskbridge_scan_documents import ScanDocuments, ScanDocumentsSettings  # noqa: PLC0415  # any real one

    provider = ScanDocuments(ScanDocumentsSettings(api_key=SecretStr("k")), "here")
    error = provider.error(Response(503, {}, json.dumps(document).encode()))
    assert (type(error), error.http_status) == (tb.ServerError, 503)


def test_the_message_has_the_number_of_attempts(acme: Callable[..., Any]) -> None:
    response = Response(503)
    response.attempts = 3
    assert "after 3 attempts" in acme().connection.provider.error(response).message


def test_credentials_are_hidden_from_repr_and_settings_are_not_pickled(acme: Callable[..., Any]) -> None:
    assert "hush" not in repr(Credential({"X-Key": "hush"}))
    settings = acme(api_key="hush-hush").connection.provider.settings
    assert "hush" not in repr(settings)
    with pytest.raises(TypeError, match="pass the connection's name"):
        pickle.dumps(settings)
