"""What emulators have in common: a task's life, refusals, bearer tokens, bodies, and the texts of times.

Nothing here knows a vendor: no word, no code, no address. What a vendor says stands in its own emulator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeGuard

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
    "FormPart",
    "JsonObject",
    "Life",
    "Phase",
    "Refused",
    "as_list",
    "as_object",
    "count_pdf_pages",
    "from_json",
    "from_multipart",
    "random_text",
    "routes",
    "to_json",
    "utc_text",
]

JsonObject: TypeAlias = dict[str, Any]
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
Phase: TypeAlias = Literal["queued", "working", "review", "ended"]

GRAIN: Final = 1e-6
"""Seconds; moments closer than this are one moment, so that sums of floats do not postpone an end."""


# The life of a task.


@dataclass(frozen=True, slots=True)
class Life:
    """A plan that began at a moment. All times are vendor seconds since the epoch.

    Attributes:
        born: When the task was created.
        plan: How it goes on.
    """

    born: float
    plan: Plan

    @property
    def began(self) -> float:
        """When work starts."""
        return self.born + self.plan.queued

    @property
    def worked(self) -> float:
        """When work is over (never, for a stuck task)."""
        return float("inf") if self.plan.outcome == "stuck" else self.began + self.plan.working

    @property
    def ends(self) -> float:
        """When all is over, a person's review included."""
        return self.worked + self.plan.review

    def phase(self, now: float) -> Phase:
        """Where the task is at ``now``."""
        if not _reached(self.began, now):
            return "queued"
        if not _reached(self.worked, now):
            return "working"
        return "ended" if _reached(self.ends, now) else "review"

    def changed(self, now: float) -> float:
        """When the phase of ``now`` began."""
        return max(
            (moment for moment in (self.began, self.worked, self.ends) if _reached(moment, now)),
            default=self.born,
        )

    def share(self, now: float) -> float:
        """How much of the work is done, from 0 to 1; a stuck task counts on, and stays below 1."""
        if _reached(self.worked, now):
            return 1.0
        return max(0.0, min((now - self.began) / self.plan.working, 0.99)) if self.plan.working else 0.0


def _reached(moment: float, now: float) -> bool:
    return now - moment > -GRAIN


# Routes and refusals.


class Refused(Exception):  # it carries an answer; nothing is in error
    """Ends a request with an answer that the vendor gives instead of a result.

    Args:
        answer: What is sent.
    """

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status_code)
        self.answer = answer


def routes(table: Iterable[tuple[str, str, Endpoint]], check: Callable[[Request], None]) -> list[Route]:
    """Routes for rows of method, path and endpoint.

    Args:
        table: One row per call of the vendor.
        check: Looks at each request first; it and the endpoints may raise `Refused`.
    """
    return [Route(path, _guarded(endpoint, check), methods=[method]) for method, path, endpoint in table]


def _guarded(endpoint: Endpoint, check: Callable[[Request], None]) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            check(request)
            return await endpoint(request)
        except Refused as refusal:
            return refusal.answer

    return answer


class BearerTokens:
    """Tokens that were handed out, valid for a while in vendor time.

    Args:
        clock: The vendor's time.
    """

    def __init__(self, clock: VendorClock) -> None:
        self._clock = clock
        self._expiry: dict[str, float] = {}

    def add(self, token: str, lifetime_s: float) -> None:
        """Accept ``token`` for ``lifetime_s`` vendor seconds."""
        self._expiry[token] = self._clock.time() + lifetime_s

    def check(self, request: Request) -> None:
        """Refuse with 401 and no body a request whose bearer token is missing, unknown or expired."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or self._clock.time() >= self._expiry.get(token.strip(), 0):
            raise Refused(Response(status_code=401))


# Bodies.


def from_json(body: bytes) -> JsonObject | None:
    """The JSON object in ``body``; None for anything else."""
    try:
        return as_object(json.loads(body))
    except (ValueError, RecursionError):
        return None


def as_object(value: object) -> JsonObject | None:
    """``value`` from decoded JSON if it is an object; None for anything else."""
    return value if _is_object(value) else None


def as_list(value: object) -> list[Any] | None:
    """``value`` from decoded JSON if it is an array; None for anything else."""
    return value if _is_list(value) else None


def _is_object(value: object) -> TypeGuard[JsonObject]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def to_json(value: object, status: int = 200, media_type: str = "application/json") -> Response:
    """An answer with ``value`` as JSON in UTF-8."""
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
    """The parts of a ``multipart/form-data`` body by name; empty when it is none."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if boundary is None or header.get_content_type() != "multipart/form-data":
        return {}
    sections = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    return dict(part for section in sections[1:] if (part := _part(section)) is not None)


def _part(section: bytes) -> tuple[str, FormPart] | None:
    head, blank, data = section.partition(b"\r\n\r\n")
    headers = BytesHeaderParser().parsebytes(head.removeprefix(b"\r\n"))
    name = headers.get_param("name", header="content-disposition")
    if not blank or not isinstance(name, str):
        return None
    content_type = headers.get_content_type() if "content-type" in headers else None
    return name, FormPart(data, headers.get_filename(), content_type)


# Texts.


def random_text(random: Random, length: int, alphabet: str = "abcdefghijklmnopqrstuvwxyz0123456789") -> str:
    """``length`` characters, the same for the same seed."""
    return "".join(random.choices(alphabet, k=length))


def utc_text(moment: float, digits: int = 0) -> str:
    """``moment`` (seconds since the epoch) as ISO 8601 with ``Z`` and so many digits of a second."""
    exact = datetime.fromtimestamp(moment, UTC)
    fraction = f".{exact.microsecond:06}".ljust(digits + 1, "0")[: digits + 1] if digits else ""
    return f"{exact:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def count_pdf_pages(data: bytes) -> int:
    """Pages of a PDF whose objects are not compressed; 1 when none can be seen."""
    return len(re.findall(rb"/Type\s*/Page\b", data)) or 1
