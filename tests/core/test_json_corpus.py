"""Strict JSON by category, in the manner of the public corpora: ``y`` is accepted, ``n`` refused, ``i`` never a crash.

Where RFC 8259 leaves a reader a choice, or we choose otherwise, the table says what is chosen and why.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from taskbridge.errors import MalformedResponse
from taskbridge.provider.json import read_json

ACCEPTED: Final[dict[str, bytes]] = {
    "array, empty": b"[]",
    "array, blanks": b" [ ] ",
    "array of everything": b'[null, 1, "1", {}, true, false]',
    "array, ending in a newline": b'["a"]\n',
    "array with several nulls": b"[1,null,null,null,2]",
    "number": b"[123e65]",
    "number, zero with exponents": b"[0e+1, 0e1, -0, -0.0]",
    "number, close to zero": b"[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]",
    "number, capital exponent": b"[1E22, 1E-2, 1E+2]",
    "number, many digits": b"[123.456789123456789]",
    "number, large integer": b"[" + b"9" * 300 + b"]",
    "object, empty key": b'{"":0}',
    "object, long strings": b'{"x":[{"id":"' + b"x" * 400 + b'"}], "id":"' + b"y" * 400 + b'"}',
    "object, escaped NUL in a key": b'{"foo\\u0000bar":42}',
    "object, keys that look alike": b'{"a":1,"A":2}',
    "string, all escapes": b'["\\"\\\\\\/\\b\\f\\n\\r\\t"]',
    "string, unicode escapes": b'["\\u0060\\u012a\\u12AB"]',
    "string, pair of surrogates": b'["\\ud801\\udc37"]',
    "string, escaped control character": b'["\\u0012"]',
    "string, backslashes and u": b'["\\\\u0000"]',
    "string, utf-8": '["\u20ac\U0001d11e\u2064"]'.encode(),
    "string, noncharacters": b'["\xef\xbf\xbf\xf4\x8f\xbf\xbf"]',
    "string, line separators": b'["\xe2\x80\xa8\xe2\x80\xa9"]',
    "string, delete": b'["\x7f"]',
    "structure, lonely values": b'"asd"',
    "structure, lonely number": b" 42 ",
    "structure, lonely null": b"null",
    "structure, tabs and returns around": b"\t[\r\n]\r\n",
    "structure, 64 deep": b"[" * 64 + b"]" * 64,
}

REFUSED: Final[dict[str, bytes]] = {
    "array, comma behind": b"[1,]",
    "array, two commas": b"[1,,2]",
    "array, comma before": b"[,1]",
    "array, no comma": b'["a" "b"]',
    "array, not closed": b'["x"',
    "array, closed twice": b"[1]]",
    "array, colon": b'["": 1]',
    "array, star": b"[*]",
    "array, just a comma": b"[,]",
    "number, plus": b"[+1]",
    "number, leading zero": b"[012, -012]",
    "number, minus alone": b"[-]",
    "number, minus and space": b"[- 1]",
    "number, point behind": b"[1.]",
    "number, point before": b"[.5]",
    "number, exponent without digits": b"[1e, 1e+, 1eE2]",
    "number, two points": b"[1.2.3]",
    "number, hexadecimal": b"[0x42]",
    "number, with letters": b"[1a, 1.8011670033376514H-308]",
    "number, full-width digit": "[\uff11]".encode(),
    "number, expression": b"[1+2]",
    "number, underscores": b"[1_000]",
    "number, more digits than anybody needs": b"[" + b"9" * 4301 + b"]",
    "object, comma behind": b'{"a":1,}',
    "object, two commas": b'{"a":1,,"b":2}',
    "object, no colon": b'{"a" 1}',
    "object, no value": b'{"a":}',
    "object, key without quotes": b"{a: 1}",
    "object, key in single quotes": b"{'a': 1}",
    "object, number as key": b"{1:1}",
    "object, emoji as key": "{\U0001f600: 1}".encode(),
    "object, same key twice": b'{"a":"b","a":"c"}',
    "object, same key by an escape": b'{"a":1,"\\u0061":2}',
    "object, same key in depth": b'[{"a":{"b":1,"b":1}}]',
    "object, not closed": b'{"a":"b"',
    "object, comment behind": b'{"a":"b"}/**/',
    "object, comment inside": b'{"a":/*comment*/"b"}',
    "object, hash behind": b'{"a":"b"}#',
    "string, single quotes": b"['a']",
    "string, not closed": b'["',
    "string, newline inside": b'["a\nb"]',
    "string, tab inside": b'["\t"]',
    "string, NUL inside": b'["a\x00b"]',
    "string, bad escape": b'["\\a"]',
    "string, hexadecimal escape": b'["\\x00"]',
    "string, escape cut": b'["\\u00A"]',
    "string, escape with other letters": b'["\\u00zz"]',
    "string, backslash at the end": b'["\\',
    "string, invalid utf-8": b'["\xff"]',
    "string, overlong utf-8": b'["\xc0\xaf"]',
    "string, utf-8 of a surrogate": b'["\xed\xa0\x80"]',
    "string, utf-8 beyond Unicode": b'["\xf4\xbf\xbf\xbf"]',
    "string, Latin-1": b'["\xe9"]',
    "structure, nothing": b"",
    "structure, blanks alone": b" \n",
    "structure, mark alone": b"\xef\xbb\xbf",
    "structure, cut mark": b"\xef\xbb{}",
    "structure, form feed": b"[\x0c]",
    "structure, no-break space": b"[\xc2\xa0]",
    "structure, word joiner": b"[\xe2\x81\xa0]",
    "structure, NUL behind": b"[]\x00",
    "structure, two documents": b"{}{}",
    "structure, garbage behind": b"[1]x",
    "structure, angle brackets": b"<.>",
    "structure, capital words": b"[True, NULL]",
    "structure, half a word": b"[nul]",
    "structure, Python's None": b"[None]",
    "structure, single bracket": b"[",
    "structure, brackets mixed": b'["a"}',
    "structure, utf-16": '["\u00e9"]'.encode("utf-16"),
    "structure, utf-16 without a mark": '["\u00e9"]'.encode("utf-16-le"),
    "structure, utf-32": b"[]".decode().encode("utf-32"),
    "structure, 65 deep": b"[" * 65 + b"]" * 65,
    "structure, 100 000 deep": b"[" * 100_000,
    "structure, 50 000 objects deep": b'{"a":' * 50_000,
}

# What a reader may do as it likes: what we do, and what is read.
CHOSEN: Final[dict[str, tuple[bytes, Any]]] = {
    "number, too large becomes nothing": (b"[1e400, -1e400, 0.4e00669999]", [None, None, None]),
    "number, too small becomes zero": (b"[123e-10000000]", [0.0]),
    "number, NaN becomes nothing": (b"[NaN, Infinity, -Infinity]", [None, None, None]),
    "number, integers beyond 64 bits stay": (b"[18446744073709551616]", [2**64]),
    "structure, a mark is skipped": (b"\xef\xbb\xbf{}", {}),
    "object, a key of the language": (b'{"__proto__": 1, "constructor": 2}', {"__proto__": 1, "constructor": 2}),
}

SURROGATES: Final = (
    b'["\\ud800"]', b'["\\udc00"]', b'["\\ud800\\ud800"]', b'["\\ud800a"]', b'["\\uDFAA"]', b'["\\ud800\\u0041"]',
    b'{"\\ud800": 1}', b'["\\udd1e\\ud834"]',
)  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED)
def test_y_is_accepted_as_it_is(case: str) -> None:
    assert read_json(ACCEPTED[case]) == json.loads(ACCEPTED[case])


@pytest.mark.parametrize("case", REFUSED)
def test_n_is_refused_with_its_fault(case: str) -> None:
    with pytest.raises(MalformedResponse) as caught:
        read_json(REFUSED[case])
    assert len(caught.value.message) < 300
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("case", CHOSEN)
def test_i_is_read_as_we_chose(case: str) -> None:
    body, read = CHOSEN[case]
    assert read_json(body) == read


@pytest.mark.parametrize("body", SURROGATES)
def test_i_a_lone_surrogate_is_read_or_refused(body: bytes) -> None:
    try:
        document = read_json(body)
    except MalformedResponse:
        return
    assert json.loads(json.dumps(document)) == document
