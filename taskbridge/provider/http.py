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
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from taskbridge.provider.json import read_json
from taskbridge.provider.sink import ResponseSink

__all__ = ["Base64", "Body", "Flow", "Form", "Request", "Response", "Upload"]

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
        new_connection: Use a new connection to the host.
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
    authorized: bool = True
    long_poll: float | None = None
    response_type: str = "json"
    save_to: ResponseSink | None = None
    new_connection: bool = False
    starts_work: bool = False
    recovery_token: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    external: bool = False
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
