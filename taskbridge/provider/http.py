"""Requests and responses as data, and the flow that connects them.

A flow is a generator that yields `Request`, is sent `Response` and returns a model. It does no I/O and reads no clock;
the code that runs it decides how to wait. So nothing is written twice for asyncio, and a provider can be tested by
hand: call ``next(flow)``, check the request, then ``flow.send(Response(...))``.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from taskbridge.provider.json import read_json
from taskbridge.provider.policy import read_http_date
from taskbridge.provider.sink import ResponseSink

T = TypeVar("T")

# Request bodies.


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file in a multipart form.

    Attributes:
        name: Name of the file's field; several files may have the same.
        filename: File name sent to the vendor.
        content: The bytes, or the path that they are read from when sent.
        media_type: Content type of the file's part.
    """

    name: str
    filename: str
    content: bytes | Path = field(repr=False)
    media_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form; data, so that it can be sent again.

    Attributes:
        fields: Form fields, in order.
        files: The files after the fields, in order; for one file there is `Upload`.
    """

    fields: tuple[tuple[str, str], ...] = field(repr=False)
    files: tuple[FormFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart form whose last field is a file; data, so that it can be sent again.

    Attributes:
        fields: Form fields, in order, before the file.
        name: Name of the file's field.
        filename: File name sent to the vendor.
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
    """A file as base64 text between two pieces of a document; data, so that it can be sent again.

    Attributes:
        head: What precedes the file's text.
        content: The bytes, or the path that they are read from when sent.
        tail: What follows it.
    """

    head: bytes = field(repr=False)
    content: bytes | Path = field(repr=False)
    tail: bytes = field(repr=False)

    @classmethod
    def of(cls, document: Any, place: str, content: bytes | Path) -> Base64:
        """Return a JSON document in which the file's base64 replaces the text `place`; it must occur exactly once."""
        head, found, tail = json.dumps(document, allow_nan=False).partition(json.dumps(place))
        if not found or json.dumps(place) in tail:
            raise ValueError("the place for the file must occur exactly once in the document")
        return cls(f'{head}"'.encode(), content, f'"{tail}'.encode())


Body: TypeAlias = bytes | Path | Form | Upload | Base64 | None
"""What a request carries: bytes, a file read when sent, a multipart form with or without files, or JSON around a file.

Never an open file.
"""


# Requests and responses.


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, as data.

    Attributes:
        method: HTTP method in capitals.
        url: Absolute URL; hidden from repr, because a presigned link is a secret.
        headers: Header fields besides the credential's; hidden from repr.
        body: What it carries; hidden from repr.
        idempotent: Whether it may be sent again if its outcome is unknown; None means yes for GET and HEAD only.
        authorized: Whether it carries the connection's credential; False for presigned links and token requests.
        long_poll: Seconds for which the vendor may hold the request open; replaces the usual limits.
        response_type: ``json`` (decoded before the flow sees it, and requested again where that may help) or ``bytes``.
        save_to: Stream the body of a successful response into this file instead of memory.
        new_connection: Use a new connection to the host.
        starts_work: Whether the vendor may have accepted a submission once this was sent; never retried blindly.
        recovery_token: What the submission has created so far (ids at the vendor), for errors of this request.
        external: Whether it goes to a host that is not the vendor's: it is exempt from the connection's limits, and the
            network connection to the host is not kept.
        read_once: Whether the vendor may give the response once and then delete it, such as a result: it is kept in a
            temporary file and answers the same request later, for as long as the process lives. If the transfer breaks
            off, the error says that the result may be gone. The URL identifies the result.
        public_only: Connect to addresses of the public internet only, whatever the host's name resolves to. Behind a
            proxy, the proxy resolves names, and nothing can be checked here.
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
    read_once: bool = False

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again if its outcome is unknown."""
        return self.method in ("GET", "HEAD") if self.idempotent is None else self.idempotent


UNREAD: Final = object()
"""`Response.document` before the body is decoded."""


@dataclass(slots=True, repr=False, eq=False)
class Response:
    """One HTTP response, as data.

    Attributes:
        status: HTTP status.
        headers: Header fields, names in lower case.
        body: Decoded bytes (content encodings undone); empty if `Request.save_to` received them.
        received_at: Aware UTC time of receipt.
        attempts: Requests that were needed.
        authorized: Whether the request carried the connection's credential, or was to get one.
        retry_after: Seconds to wait before the next request, if the vendor says so: from ``Retry-After``, or set by a
            provider's flow from what the body says. The next poll of the task is not earlier.
        document: The decoded JSON body, once it has been read.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    attempts: int = 1
    authorized: bool = True
    retry_after: float | None = None
    document: Any = UNREAD

    @property
    def media_type(self) -> str:
        """The content type without parameters, in lower case; empty if the response has none.

        By it a flow tells apart answers in several forms, such as a result that is JSON or a ZIP archive.
        """
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def skew(self) -> float | None:
        """Seconds by which this computer's clock is ahead of the vendor's; None if the vendor sends no ``Date``.

        Add it to a time by the vendor's clock to compare that with this computer's.
        """
        sent_at = read_http_date(self.headers.get("date", ""))
        return None if sent_at is None else (self.received_at - sent_at).total_seconds()

    def json(self) -> Any:
        """Return the decoded JSON body.

        Raises:
            MalformedResponse: The body is empty, or not strict JSON.
        """
        if self.document is UNREAD:
            self.document = read_json(self.body)
        return self.document

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self.body)} bytes>"


Flow: TypeAlias = Generator[Request, Response, T]
"""An operation of a provider: yields requests, is sent their responses, returns a model."""
