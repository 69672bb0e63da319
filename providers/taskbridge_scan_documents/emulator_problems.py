"""How the emulated Scan Documents refuses: problem documents, as on its ERRORS page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from taskbridge.emulator.helpers import to_json

__all__ = ["invalid", "problem"]

PROBLEM_TYPE: Final = "application/problem+json"  # doc ERR
PROBLEM_BASE: Final = "https://scan-documents.com/docs/errors/"  # doc GET-TASK

_UNEXPECTED: Final = "An unexpected error occurred. Contact support if the problem persists."
PROBLEMS: Final[Mapping[int, tuple[str, str, str]]] = {  # HTTP status -> type, title, message: doc ERR GET-TASK
    401: ("unauthorized", "Unauthorized", "You are not authorized to access this resource."),
    404: ("not-found", "Not Found", "{resource} with id {id} not found."),
    409: ("no-subscription", "No Subscription", "User does not have an active subscription"),
    429: (
        "rate-limit-error",
        "Rate Limit Exceeded",
        "Rate limit exceeded. Please try again later or contact support.",
    ),
    500: ("internal-error", _UNEXPECTED, _UNEXPECTED),
}


def problem(status: int, **words: str) -> Response:
    """A problem by its HTTP status; words fill in its text."""
    kind, title, message = PROBLEMS[status]
    body = {"type": PROBLEM_BASE + kind, "title": title, "status": status, "message": message.format(**words)}
    return to_json(body, status, PROBLEM_TYPE)


def invalid(**errors: list[str]) -> Response:
    """A validation error (422): complaints by field."""
    body = {"type": f"{PROBLEM_BASE}validation-error", "title": "Validation Error", "status": 422, "errors": errors}
    return to_json(body, 422, PROBLEM_TYPE)
