"""The strict JSON reader, fault by fault; the numbers are those of the fault catalogue."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.errors import MalformedResponse
from taskbridge.provider.http import Response
from taskbridge.provider.json import read_json

PAGE = b"<!doctype html><html><head><title>Down for\n maintenance</title></head></html>"

# fault, body, words of the message, how often asking again may help
REFUSED: list[tuple[str, bytes, str, int]] = [
    ("F35 empty", b"", "the body is empty", 99),
    ("F35 blank", b" \r\n\t", "the body is empty", 99),
    ("F39 page", PAGE, "it is a web page (Down for maintenance)", 99),
    ("F39 page without a title", b"<h1>Oops</h1>", "it is a web page (<h1>Oops</h1>)", 99),
    ("F42 trailing data", b'{"a": 1} x', "Extra data", 0),
    ("F42 two documents", b'{"a": 1}{"a": 2}', "Extra data", 0),
    ("F42 JSONP", b'callback({"a": 1})', "Expecting value", 0),
    ("F43 duplicate key", b'{"status":"failed","status":"completed"}', "duplicate key 'status'", 0),
    ("F43 duplicate key below", b'{"a":[{"b":1,"b":1}]}', "duplicate key 'b'", 0),
    ("F43 duplicate key in escapes", b'{"a":1,"\\u0061":2}', "duplicate key 'a'", 0),
    ("F45 long integer", b'{"n":' + b"9" * 5000 + b"}", "more than 4300 digits", 0),
    ("F46 depth 65", b"[" * 65 + b"]" * 65, "nesting depth", 0),
    ("F46 depth 100 000", b"[" * 100_000 + b"]" * 100_000, "nesting depth", 0),
    ("F46 depth of objects", b'{"a":' * 70 + b"1" + b"}" * 70, "nesting depth", 0),
    ("F48 not UTF-8", b'{"a":"\xff"}', "encoding is not UTF-8", 1),
    ("F49 UTF-16", '{"a":1}'.encode("utf-16"), "encoding is not UTF-8", 0),
    ("F11 cut in a text", b'{"a":"b', "may be cut", 99),
    ("F11 cut after a comma", b'{"a":1,', "may be cut", 99),
    ("F11 cut after a bracket", b"[", "may be cut", 99),
    ("single quotes", b"{'a': 1}", "Expecting property name", 0),
    ("comment", b'{"a": 1} // done', "Extra data", 0),
]


@pytest.mark.parametrize(("body", "words", "repeats"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_invalid_json_is_refused_with_its_fault(body: bytes, words: str, repeats: int) -> None:
    with pytest.raises(MalformedResponse) as caught:
        read_json(body)
    assert words in caught.value.message
    assert caught.value.repeats == repeats
    assert len(str(caught.value.raw)) <= 2048


# fault, body, what is read
FORGIVEN: list[tuple[str, bytes, Any]] = [
    ("F40 any content type", b'{"a": 1}', {"a": 1}),
    ("F41 null is JSON; the shape is judged later", b"null", None),
    ("F41 a text", b'"completed"', "completed"),
    ("F44 NaN", b'{"a": NaN, "b": 1}', {"a": None, "b": 1}),
    ("F44 Infinity", b'{"a": [Infinity, -Infinity]}', {"a": [None, None]}),
    ("F44 1e400", b'{"a": 1e400, "b": -1E+999}', {"a": None, "b": None}),
    ("F44 1e400 alone", b"1e400", None),
    ("F44 infinite by its digits", b"[" + b"9" * 400 + b".0, " + b"9" * 250 + b"e80]", [None, None]),
    ("F44 in a large body", b'["' + b"x" * 70_000 + b'", 1e400]', ["x" * 70_000, None]),
    ("F44 long but finite", b'{"a": 1e300}', {"a": 1e300}),
    ("F47 byte order mark", b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    ("F46 depth 64", b"[" * 64 + b"]" * 64, json.loads("[" * 64 + "]" * 64)),
    ("brackets in texts do not nest", b'["' + b"[{" * 200 + b'"]', ["[{" * 200]),
    ("brackets after an escaped quote", b'["\\"' + b"[" * 200 + b'"]', ['"' + "[" * 200]),
    ("4300 digits", b"[" + b"9" * 4300 + b"]", [int("9" * 4300)]),
    ("empty object", b"{}", {}),
    ("same key apart", b'[{"a":1},{"a":2}]', [{"a": 1}, {"a": 2}]),
]


@pytest.mark.parametrize(("body", "read"), [row[1:] for row in FORGIVEN], ids=[row[0] for row in FORGIVEN])
def test_tolerated_json_is_read(body: bytes, read: Any) -> None:
    assert read_json(body) == read


def test_a_lone_surrogate_never_crashes_the_reader() -> None:
    try:
        read_json(b'{"id": "\\ud800"}')
    except MalformedResponse:
        return


@given(st.binary(max_size=60))
def test_any_bytes_are_a_document_or_a_malformed_response(body: bytes) -> None:
    try:
        read_json(body)
    except MalformedResponse:
        return


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_json_writes_is_read_back(value: Any) -> None:
    assert read_json(json.dumps(value).encode()) == value


def test_a_response_is_decoded_once() -> None:
    response = Response(200, {}, b'{"a": 1}')
    assert response.json() is response.json()


def test_a_responses_repr_shows_no_body() -> None:
    assert repr(Response(200, {"x-key": "k"}, b"private")) == "<Response 200, 7 bytes>"
