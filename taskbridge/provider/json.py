"""The strict JSON reader.

A fast reader handles valid bodies. What it refuses is read again by the standard library's reader, which either names
the fault or tolerates it.
"""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any, Final, NoReturn

import jiter

from taskbridge._redaction import excerpt
from taskbridge.errors import MalformedResponse, printable

_MAX_DEPTH: Final = 64  # nested containers; real bodies need about 10
_ALWAYS: Final = 99  # as often as the retry policy allows
_MOST_RAW: Final = 2048  # characters of a body that an error keeps
_LONGEST_SECRET: Final = 1 << 16  # bytes in which a secret may extend beyond them
_MAX_DIGITS: Final = 4300  # the interpreter's own limit for integers from text
# After this translation a number such as 1e400 or 1e+99 contains 0e000, and every container begins with [.
_SHAPE: Final = bytes.maketrans(b"123456789+E{", b"0000000000e[")
# A number whose exponent has less than three digits is infinite only with more than 200 digits; searching for 64 is
# faster.
_LONG: Final = b"0" * 64
_INFINITE: Final = frozenset({float("inf"), float("-inf")})
_STEP: Final = bytes.maketrans(b"[{]}", bytes([1, 1, 255, 255]))
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"\\'))


def read_json(body: bytes) -> Any:
    """Decode a vendor's JSON, strictly.

    Refuses duplicate keys, invalid UTF-8, trailing data, nesting beyond 64 levels and integers beyond 4300 digits.
    Skips a byte order mark. Numbers that JSON does not have (NaN, Infinity, 1e400) become None.

    Raises:
        MalformedResponse: It is not such JSON; the message says what is wrong, with the title of an HTML page.
    """
    try:
        document = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError:
        document = _read_again(body)
    shape = body.translate(_SHAPE)
    if shape.count(b"[") > _MAX_DEPTH:
        _check_depth(body)
    # rfind takes half the time of `in` for such patterns.
    if (shape.rfind(b"0e000") >= 0 or shape.rfind(_LONG) >= 0) and _has_infinity(document):
        return _read_again(body)
    return document


def _has_infinity(document: Any) -> bool:
    containers: list[Any] = [[document]]
    for container in containers:
        values: Any = container.values() if container.__class__ is dict else container
        for value in values:
            if value.__class__ in (dict, list):
                containers.append(value)
            elif value.__class__ is float and value in _INFINITE:
                return True
    return False


def _check_depth(body: bytes) -> None:
    skeleton = body.translate(None, _NOT_STRUCTURE)
    if b"\\" in skeleton:
        skeleton = skeleton.replace(b"\\\\", b"").replace(b'\\"', b"").replace(b"\\", b"")
    outside = b"".join(skeleton.replace(b'""', b"").split(b'"')[::2])
    steps = (step if step == 1 else -1 for step in outside.translate(_STEP))
    if max(accumulate(steps), default=0) > _MAX_DEPTH:
        _refuse(f"its nesting depth exceeds {_MAX_DEPTH}", body)


def _read_again(body: bytes) -> Any:
    """Read a body that the fast reader refused."""
    if not body.strip():
        _refuse("the body is empty", body, repeats=_ALWAYS)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _refuse("the encoding is not UTF-8", body, repeats=0 if b"\0" in body[:4] else 1)  # NUL: UTF-16
    if text.lstrip()[:1] == "<":
        _refuse(f"it is a web page{_title(text)}", body, repeats=_ALWAYS)
    repeats = 0
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=lambda _word: None,
            parse_float=_finite_float,
            parse_int=_bounded_int,
        )
    except _RefusedError as error:
        problem = str(error)
    except RecursionError:
        problem = "its nesting depth is too great"
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        problem = f"{error.msg} at line {error.lineno} column {error.colno}{'; it may be cut' if cut else ''}"
        repeats = _ALWAYS if cut else 0
    return _refuse(problem, body, repeats=repeats)


def _title(page: str) -> str:
    head, found, rest = page.partition("<title>")
    words = " ".join(rest.partition("</title>")[0].split()) if found else " ".join(head.split())
    return f" ({printable(words, 80)})" if words else ""


def _refuse(problem: str, body: bytes, *, repeats: int = 0) -> NoReturn:
    raise MalformedResponse(f"the vendor's answer cannot be read: {problem}", repeats=repeats, raw=beginning_of(body))


def beginning_of(body: bytes) -> str:
    """Return the beginning of a body as text without secrets, for an error."""
    return excerpt(body[:_LONGEST_SECRET].decode("utf-8", "replace"), _MOST_RAW)


class _RefusedError(Exception):
    """What the standard library's reader would accept."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise _RefusedError(f"duplicate key {printable(key, 60)!r}")
        document[key] = value
    return document


def _finite_float(text: str) -> float | None:
    value = float(text)
    return None if value in _INFINITE else value


def _bounded_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _RefusedError(f"an integer has more than {_MAX_DIGITS} digits")
    return int(text)
