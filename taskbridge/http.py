"""Requests and responses as data, and the flow that connects them.

A flow is a generator that yields `Request`, is sent `Response` and returns a model. It does no I/O and reads no clock;
whoever drives it decides how to wait. That is why nothing here is written twice for asyncio, and why a provider can be
tested by hand: ``next(flow)``, look at the request, ``flow.send(Response(...))``.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import jiter

from taskbridge.errors import MalformedResponse, plain
from taskbridge.sink import Sink

__all__ = ["Base64", "Body", "Flow", "Form", "Request", "Response", "Upload", "read_json"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form of texts, without a file.

    Attributes:
        fields: Form fields, in order.
    """

    fields: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart form whose last field is a file; data, so that a repeat can send it again.

    Attributes:
        fields: Form fields, in order, before the file.
        name: Name of the file's field.
        filename: File name told to the vendor.
        content: The bytes, or the path that they are read from when sent.
        media_type: Content type of the file's part.
    """

    fields: tuple[tuple[str, str], ...] = field(repr=False)
    name: str
    filename: str
    content: bytes | Path = field(repr=False)
    media_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Base64:
    """A file as base64 text between two pieces of a document; data, so that a repeat can send it again.

    Attributes:
        head: What comes before the file's text.
        content: The bytes, or the path that they are read from when sent.
        tail: What comes after it.
    """

    head: bytes = field(repr=False)
    content: bytes | Path = field(repr=False)
    tail: bytes = field(repr=False)

    @classmethod
    def of(cls, document: Any, place: str, content: bytes | Path) -> Base64:
        """A JSON document in which a file's base64 stands for one text.

        Args:
            document: What `json.dumps` takes.
            place: The text that the file stands for; a value that occurs once.
            content: The file.
        """
        head, found, tail = json.dumps(document, allow_nan=False).partition(json.dumps(place))
        if not found or json.dumps(place) in tail:
            raise ValueError("the place for the file occurs once in the document")
        return cls(f'{head}"'.encode(), content, f'"{tail}'.encode())


Body: TypeAlias = bytes | Path | Form | Upload | Base64 | None
"""What a request carries: bytes, a file read when sent, a multipart form with or without a file, or JSON around a file.

Never a handle.
"""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, as data.

    Attributes:
        method: HTTP method in capitals.
        url: Absolute URL; out of repr, because a presigned link is a key.
        headers: Header fields beside the credential's; out of repr.
        body: What it carries; out of repr.
        idempotent: Whether it may be sent again when its fate is unknown; None means yes for GET and HEAD only.
        authorised: Whether the connection's credential goes with it; False for presigned links and token calls.
        hold: Seconds for which the vendor may hold the line before it answers; replaces the usual limits.
        expect: ``json`` (decoded before the flow sees it, and asked for again where that may help) or ``bytes``.
        save_to: Stream the body of an answer that is no refusal into this file instead of memory.
        fresh: Use a new connection to the host.
        commits: Whether the vendor may have taken an order once this was sent: it is never sent again blindly.
        clue: What was made so far on the way to the order (ids at the vendor), for errors of this request.
        foreign: Whether it goes to a host that is not the vendor's, and so takes no part in the connection's pace.
        public_only: Connect to addresses of the public internet only, whatever the host's name leads to. Behind a
            proxy it is the proxy that resolves names, and nothing can be checked here.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: Body = field(default=None, repr=False)
    idempotent: bool | None = None
    authorised: bool = True
    hold: float | None = None
    expect: str = "json"
    save_to: Sink | None = None
    fresh: bool = False
    commits: bool = False
    clue: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    foreign: bool = False
    public_only: bool = False

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again when nobody knows what became of it."""
        return self.method in _SAFE if self.idempotent is None else self.idempotent


_SAFE: Final = frozenset({"GET", "HEAD"})


class Response:
    """One HTTP answer, as data.

    Attributes:
        status: HTTP status.
        headers: Header fields, names in lower case.
        body: Decoded bytes (content encodings undone); empty where `Request.save_to` took them.
        received_at: Aware UTC time of receipt.
        attempts: Requests that it took.
        retry_after: Seconds after which the vendor wants to be asked again, where it says so.
    """

    __slots__ = ("_document", "attempts", "body", "headers", "received_at", "retry_after", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        received_at: datetime | None = None,
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = headers or {}
        self.body = body
        self.received_at = received_at or datetime.now(UTC)
        self.attempts = 1
        self.retry_after: float | None = None
        self._document: Any = _UNREAD

    def json(self) -> Any:
        """The decoded JSON body.

        Raises:
            MalformedResponse: The body is empty, or not strict JSON.
        """
        if self._document is _UNREAD:
            self._document = read_json(self.body)
        return self._document

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self.body)} bytes>"


_UNREAD: Final = object()

Flow: TypeAlias = Generator[Request, Response, T]
"""What an operation of a provider is: yields requests, is sent their responses, returns a model."""


# Strict JSON.

_MAX_DEPTH: Final = 64  # nested containers; real bodies need about 10
_ALWAYS: Final = 99  # as often as the retry policy allows
_MAX_DIGITS: Final = 4300  # the interpreter's own limit for integers from text
# A number such as 1e400 or 1e+99 shows as 0e000, and each container begins alike.
_SHAPE: Final = bytes.maketrans(b"123456789+E{", b"0000000000e[")
# Without 200 digits no number is infinite while its exponent has less than three; fewer are faster to look for.
_LONG: Final = b"0" * 64
_INFINITE: Final = frozenset({float("inf"), float("-inf")})
_CONTAINERS: Final[frozenset[type]] = frozenset({dict, list})
_STEP: Final = bytes.maketrans(b"[{]}", bytes([1, 1, 255, 255]))
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"\\'))


def read_json(body: bytes) -> Any:
    """Decode a vendor's JSON, strictly.

    Duplicate keys, invalid UTF-8, trailing data, nesting beyond 64 levels and integers beyond 4300 digits are refused,
    a byte order mark is skipped, and numbers that JSON does not have (NaN, Infinity, 1e400) become None.

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
    # From the end, which takes half of the time that `in` takes for such a pattern.
    if (shape.rfind(b"0e000") >= 0 or _LONG in shape) and _has_infinity(document):
        return _read_again(body)
    return document


def _has_infinity(document: Any) -> bool:
    """Whether a number such as 1e400 became infinite."""
    containers: list[Any] = [[document]]
    for container in containers:
        values: Any = container.values() if container.__class__ is dict else container
        for value in values:
            if value.__class__ in _CONTAINERS:
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
    """Read what the fast reader refused: name the fault, or forgive what may be forgiven."""
    if not body.strip():
        _refuse("the body is empty", body, repeats=_ALWAYS)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _refuse("the encoding is not UTF-8", body, repeats=0 if b"\0" in body[:4] else 1)  # UTF-16 is meant
    if text.lstrip()[:1] == "<":
        _refuse(f"it is a web page{_title(text)}", body, repeats=_ALWAYS)
    repeats = 0
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_nothing,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except _DuplicateKeyError as error:
        fault = f"duplicate key {plain(error.key, 60)!r}"
    except _HugeIntegerError:
        fault = f"an integer has more than {_MAX_DIGITS} digits"
    except RecursionError:
        fault = "its nesting depth is too great"
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        fault = f"{error.msg} at line {error.lineno} column {error.colno}{'; it may be cut' if cut else ''}"
        repeats = _ALWAYS if cut else 0
    return _refuse(fault, body, repeats=repeats)


def _title(page: str) -> str:
    head, found, rest = page.partition("<title>")
    words = " ".join(rest.partition("</title>")[0].split()) if found else " ".join(head.split())
    return f" ({plain(words, 80)})" if words else ""


def _refuse(fault: str, body: bytes, *, repeats: int = 0) -> NoReturn:
    text = body[:2048].decode("utf-8", "replace")
    raise MalformedResponse(f"the vendor's answer cannot be read: {fault}", repeats=repeats, raw=text)


class _DuplicateKeyError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class _HugeIntegerError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return found


def _nothing(_word: str) -> None:
    return None


def _finite(text: str) -> float | None:
    value = float(text)
    return None if value in (float("inf"), float("-inf")) else value


def _bounded(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _HugeIntegerError
    return int(text)
