"""What a row of the catalogue means for a submission: it depends on where the fault lies."""

from __future__ import annotations

from typing import Final, NamedTuple

from taskbridge.errors import RateLimited, SubmitUncertain, TaskbridgeError, UnexpectedRedirect

from .rows import Row, not_sent
from .vendors import Vendor

_GATEWAYS: Final = frozenset({502, 504, 520, 521, 522, 523, 524})  # the response of a gateway, not of the vendor
_MAYBE_ACCEPTED: Final = frozenset({301, 302, 303})  # the vendor may have accepted the submission
# https://github.com/cloudconvert/cloudconvert-node/issues/60: a job ran although the response was 500.
_UNCERTAIN: Final = {"cloudconvert": (500,)}
_BY_STATUS: Final = ("F21", "F22", "F23", "F24", "F28", "F30", "F32", "F33", "F34", "F36", "F92", "F93", "F94", "F95",
                     "F96")  # fmt: skip
_ONLY_STATUS_REQUESTS: Final = (
    "F50",
    "F51",
    "F55",
    "F56",
)  # about fields that the response to a submission does not have


class SubmitOutcome(NamedTuple):
    """What a submission does.

    Attributes:
        error: What it raises; None for the error of `get`.
        repeats: Whether it is retried as a `get` is.
    """

    error: type[TaskbridgeError] | None
    repeats: bool


def submit_outcome(row: Row, vendor: Vendor | None = None) -> SubmitOutcome | None:
    """Return the outcome of a submission; None if the row concerns status requests only.

    Args:
        row: The fault.
        vendor: The vendor; None for what most have in common.
    """
    if row.error is None or row.id in _ONLY_STATUS_REQUESTS:
        return None
    if row.check is not_sent:
        return SubmitOutcome(None, repeats=True)
    if row.id not in (*_BY_STATUS, "F38"):
        return SubmitOutcome(SubmitUncertain, repeats=False)
    status = int(row.fault[:3]) if row.fault[:3].isdigit() else 599
    doubtful = () if vendor is None else _UNCERTAIN.get(vendor.name, ())
    if status in _GATEWAYS or status in _MAYBE_ACCEPTED or status in doubtful:
        return SubmitOutcome(SubmitUncertain, repeats=False)
    if row.error is UnexpectedRedirect:
        return SubmitOutcome(None, repeats=False)
    error = row.error if vendor is None else row.error_of(vendor)
    return SubmitOutcome(None, repeats=error is RateLimited or status == 401)


def cancel_is_retried(row: Row, vendor: Vendor) -> bool:
    """Return whether a cancel that meets the fault is retried: only if the vendor has not begun to act on it."""
    outcome = submit_outcome(row, vendor)
    return outcome is not None and outcome.repeats


def describe(row: Row) -> str:
    """Return the outcome in words, for the page."""
    outcome = submit_outcome(row)
    if outcome is None:
        return "—"
    if outcome.error is not None:
        return f"`{outcome.error.__name__}`"
    return "the same" if outcome.repeats or row.requests == 1 else "the same, not retried"
