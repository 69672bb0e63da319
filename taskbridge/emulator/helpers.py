"""Helpers for emulators: a task's life, routes, error responses, bearer tokens, request bodies, ids and timestamps.

Nothing here is specific to a vendor: no status words, codes or addresses. Those are in the vendor's own emulator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from email.utils import collapse_rfc2231_value
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from taskbridge.emulator.clock import VendorClock
    from taskbridge.emulator.vendor import Plan

__all__ = [
    "BearerTokens",
    "Endpoint",
    "ErrorResponse",
    "FormPart",
    "JsonObject",
    "Life",
    "Phase",
    "as_list",
    "as_object",
    "count_pdf_pages",
    "from_json",
    "from_multipart",
    "multipart_parts",
    "random_text",
    "routes",
    "to_json",
    "utc_text",
]

JsonObject: TypeAlias = dict[str, Any]
"""A decoded JSON object."""

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Answers one call of the vendor's API; a coroutine."""

Phase: TypeAlias = Literal["queued", "working", "review", "ended"]
"""Where a task is in its life."""

_GRAIN: Final = 1e-6  # seconds; closer times are equal, so that rounding errors do not postpone an end


# The life of a task.


@dataclass(frozen=True, slots=True)
class Life:
    """A plan, and the time at which it began. All times are vendor seconds since the epoch.

    Attributes:
        submitted_at: When the task was created.
        plan: How long it takes and how it ends.
    """

    submitted_at: float
    plan: Plan

    @property
    def started_at(self) -> float:
        """When work starts."""
        return self.submitted_at + self.plan.queued

    @property
    def work_ends_at(self) -> float:
        """When work ends (never, for a stuck task)."""
        return float("inf") if self.plan.outcome == "stuck" else self.started_at + self.plan.working

    @property
    def finished_at(self) -> float:
        """When the task ends, human review included."""
        return self.work_ends_at + self.plan.review

    def phase(self, now: float) -> Phase:
        """Return the task's phase at ``now``."""
        if not _reached(self.started_at, now):
            return "queued"
        if not _reached(self.work_ends_at, now):
            return "working"
        return "ended" if _reached(self.finished_at, now) else "review"

    def phase_since(self, now: float) -> float:
        """Return when the phase at ``now`` began."""
        return max(
            (moment for moment in (self.started_at, self.work_ends_at, self.finished_at) if _reached(moment, now)),
            default=self.submitted_at,
        )

    def progress(self, now: float) -> float:
        """Return how much of the work is done, from 0 to 1; a stuck task stays below 1."""
        if _reached(self.work_ends_at, now):
            return 1.0
        return max(0.0, min((now - self.started_at) / self.plan.working, 0.99)) if self.plan.working else 0.0


def _reached(moment: float, now: float) -> bool:
    return now - moment > -_GRAIN


# Routes and error responses.


class ErrorResponse(Exception):  # it carries a response; nothing went wrong here
    """Raise it in an endpoint to end the request with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def routes(table: Iterable[tuple[str, str, Endpoint]], check: Callable[[Request], None]) -> list[Route]:
    """Return routes for rows of method, path and endpoint.

    Args:
        table: One row per call of the vendor's API.
        check: Called with each request first, for example to check its key; it and the endpoints may raise
            `ErrorResponse`.
    """

    async def respond(endpoint: Endpoint, request: Request) -> Response:
        try:
            check(request)
            return await endpoint(request)
        except ErrorResponse as error:
            return error.response

    return [Route(path, partial(respond, endpoint), methods=[method]) for method, path, endpoint in table]


class BearerTokens:
    """Bearer tokens that expire in vendor time."""

    def __init__(self, clock: VendorClock) -> None:
        self._clock = clock
        self._expiry: dict[str, float] = {}

    def add(self, token: str, lifetime_s: float) -> None:
        """Accept ``token`` for ``lifetime_s`` vendor seconds."""
        self._expiry[token] = self._clock.time() + lifetime_s

    def check(self, request: Request) -> None:
        """Raise a 401 without a body if the request's bearer token is missing, unknown or expired."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or self._clock.time() >= self._expiry.get(token.strip(), 0):
            raise ErrorResponse(Response(status_code=401))


# Bodies.


def from_json(body: bytes) -> JsonObject | None:
    """Return the JSON object in ``body``; None for anything else."""
    try:
        return as_object(json.loads(body))
    except (ValueError, RecursionError):
        return None


def as_object(value: object) -> JsonObject | None:
    """Return ``value`` from decoded JSON if it is an object; None for anything else."""
    return cast("JsonObject", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[Any] | None:
    """Return ``value`` from decoded JSON if it is an array; None for anything else."""
    return value if isinstance(value, list) else None  # pyright: ignore[reportUnknownVariableType]  # any JSON


def to_json(value: object, status: int = 200, media_type: str = "application/json") -> Response:
    """Return a response with ``value`` as JSON in UTF-8."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status_code=status, media_type=media_type)


@dataclass(frozen=True, slots=True)
class FormPart:
    """One part of a multipart form.

    Attributes:
        data: Its bytes.
        filename: The sender's file name, if any.
        content_type: The sender's content type, if any.
    """

    data: bytes
    filename: str | None = None
    content_type: str | None = None


def from_multipart(body: bytes, content_type: str) -> dict[str, FormPart]:
    """Return the parts of a ``multipart/form-data`` body by name; empty for any other body.

    Of several parts with one name it has the last; `multipart_parts` has all.
    """
    return dict(multipart_parts(body, content_type))


def multipart_parts(body: bytes, content_type: str) -> list[tuple[str, FormPart]]:
    """Return the names and parts of a ``multipart/form-data`` body, in order; empty for any other body."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if boundary is None or header.get_content_type() != "multipart/form-data":
        return []
    sections = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    return [part for section in sections[1:] if (part := _part(section)) is not None]


def _part(section: bytes) -> tuple[str, FormPart] | None:
    head, blank, data = section.partition(b"\r\n\r\n")
    # names are UTF-8 (RFC 7578, 5.1), which a parser of bytes would take for damaged ASCII
    headers = HeaderParser().parsestr(head.removeprefix(b"\r\n").decode(errors="replace"))
    name = _parameter(headers, "name")
    if not blank or name is None:
        return None
    content_type = headers.get_content_type() if "content-type" in headers else None
    return name, FormPart(data, _parameter(headers, "filename"), content_type)


def _parameter(headers: Message, name: str) -> str | None:
    value = headers.get_param(name, header="content-disposition")
    if value is None or isinstance(value, tuple):  # a tuple is the form of RFC 2231, which encodes in its own way
        return None if value is None else collapse_rfc2231_value(value)
    return re.sub("%(22|0[AaDd])", lambda code: chr(int(code[1], 16)), value)  # all that HTML forms escape


# Ids, timestamps, documents.


def random_text(random: Random, length: int, alphabet: str = "abcdefghijklmnopqrstuvwxyz0123456789") -> str:
    """Return ``length`` random characters, the same for the same seed."""
    return "".join(random.choices(alphabet, k=length))


def utc_text(moment: float, digits: int = 0) -> str:
    """Return ``moment`` (seconds since the epoch) as ISO 8601 with ``Z`` and ``digits`` digits of a second."""
    exact = datetime.fromtimestamp(moment, UTC)
    fraction = f".{exact.microsecond:06}".ljust(digits + 1, "0")[: digits + 1] if digits else ""
    return f"{exact:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def count_pdf_pages(data: bytes) -> int:
    """Return the number of pages of a PDF whose objects are not compressed; 1 if none is found."""
    return len(re.findall(rb"/Type\s*/Page\b", data)) or 1
