"""What a row of the catalogue means for a submit: decided by where the fault lies."""

from __future__ import annotations

from typing import Final, NamedTuple

from taskbridge.errors import RateLimited, SubmitUncertain, TaskbridgeError, UnexpectedRedirect

from .rows import Row, unsent
from .vendors import Vendor

__all__ = ["Fate", "cancel_repeats", "fate_of", "words"]

_GATEWAYS: Final = frozenset({502, 504, 520, 521, 522, 523, 524})  # a gateway spoke, not the vendor
_TAKEN: Final = frozenset({301, 302, 303})  # the order may have been taken
# https://github.com/cloudconvert/cloudconvert-node/issues/60: a job that was answered with 500, and ran.
_DOUBTFUL: Final = {"cloudconvert": (500,)}
_BY_STATUS: Final = ("F21", "F22", "F23", "F24", "F28", "F30", "F32", "F33", "F34", "F36", "F92", "F93", "F94", "F95",
                     "F96")  # fmt: skip
_OF_STATUS_ANSWERS: Final = ("F50", "F51", "F55", "F56")  # about fields that the answer to a submit does not have


class Fate(NamedTuple):
    """What a submit does.

    Attributes:
        error: What it raises; None for the look-up's own error.
        repeats: Whether it is sent again, as a look-up is.
    """

    error: type[TaskbridgeError] | None
    repeats: bool


def fate_of(row: Row, vendor: Vendor | None = None) -> Fate | None:
    """The fate of a submit; None where the row is about the answers to look-ups alone.

    Args:
        row: What happens.
        vendor: At which vendor; None for what most have in common.
    """
    if row.error is None or row.id in _OF_STATUS_ANSWERS:
        return None
    if row.check is unsent:
        return Fate(None, repeats=True)
    if row.id not in (*_BY_STATUS, "F38"):
        return Fate(SubmitUncertain, repeats=False)
    status = int(row.fault[:3]) if row.fault[:3].isdigit() else 599
    doubtful = () if vendor is None else _DOUBTFUL.get(vendor.name, ())
    if status in _GATEWAYS or status in _TAKEN or status in doubtful:
        return Fate(SubmitUncertain, repeats=False)
    if row.error is UnexpectedRedirect:
        return Fate(None, repeats=False)
    error = row.error if vendor is None else row.error_of(vendor)
    return Fate(None, repeats=error is RateLimited or status == 401)


def cancel_repeats(row: Row, vendor: Vendor) -> bool:
    """Whether a cancel that meets the fault is sent again: only where the vendor has not begun to act on it."""
    fate = fate_of(row, vendor)
    return fate is not None and fate.repeats


def words(row: Row) -> str:
    """The fate in words, for the page."""
    fate = fate_of(row)
    if fate is None:
        return "—"
    if fate.error is not None:
        return f"`{fate.error.__name__}`"
    return "the same" if fate.repeats or row.requests == 1 else "the same, not asked again"
