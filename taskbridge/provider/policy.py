"""The numbers by which we ask, ask again, and wait; and how a vendor's wishes about them are read.

Three knobs, never mixed, all in seconds: the `timeout` of a wait (how long I wait), `PollPolicy` (how often to look),
`RetryPolicy` (what one failing look-up is worth). Poll and retry are two things: a task that is not finished yet is no
failure, and a look-up that failed says nothing of the task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final

from taskbridge.errors import ConfigError

__all__ = ["PollPolicy", "RetryPolicy", "parse_retry_after", "read_http_date", "retries_for"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What one failing request is worth.

    Attributes:
        attempts: Requests at most, the first included (1 to 10).
        first: Seconds up to which the first pause is drawn; it doubles with each further one.
        at_most: Seconds up to which a pause may grow.
    """

    attempts: int = 3
    first: float = 0.5
    at_most: float = 20.0

    def __post_init__(self) -> None:
        _check("retry.attempts", self.attempts, 1, 10)
        _check("retry.first", self.first, 0.0, 60.0)
        _check("retry.at_most", self.at_most, 0.0, 3600.0)

    def pause(self, failures: int, chance: float) -> float:
        """Seconds before the next attempt: full jitter over a doubling ceiling.

        Args:
            failures: Attempts that have failed so far, from 1.
            chance: A random number from 0.0 up to 1.0.
        """
        return chance * min(self.at_most, self.first * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """How often to look at a task that is not finished.

    State either the mean delay that you accept between a task's end and the news of it, or a plain interval.

    Attributes:
        latency: Seconds of mean delay aimed at; the default.
        interval: Seconds between two looks, instead of `latency`.
        at_most: Seconds after which any task is looked at again, whatever is known of it.
    """

    latency: float | None = None
    interval: float | None = None
    at_most: float = 300.0

    def __post_init__(self) -> None:
        if self.latency is not None and self.interval is not None:
            raise ConfigError("poll takes latency or interval, not both")
        _check("poll.latency", self.latency, 0.01, 86_400.0)
        _check("poll.interval", self.interval, 0.01, 86_400.0)
        _check("poll.at_most", self.at_most, 0.01, 86_400.0)


def _check(key: str, value: object, least: float, most: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ConfigError(f"{key} must be a number from {least:g} to {most:g}")
    if not least <= value <= most:
        raise ConfigError(f"{key} must be from {least:g} to {most:g}")


# HTTP status -> how often a safe request is repeated at most, beside the policy's own bound.
# 408 425 429 500 502 503 504 520-524: the vendor or its gateway may answer the next time. Any other 5xx once, but never
# 501 and 505, which say that it cannot, nor any other 4xx, which says what it means.
_REPEATS: Final[Mapping[int, int]] = {
    **dict.fromkeys((408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524), 99),
    **dict.fromkeys((501, 505), 0),
}


def retries_for(status: int) -> int:
    """How often a safe request may be repeated after this HTTP status."""
    return _REPEATS.get(status, 1 if 500 <= status <= 599 else 0)


# The three date forms of RFC 9110 section 5.6.7: IMF-fixdate, RFC 850, asctime.
_HTTP_DATE: Final = re.compile(
    r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT"
    r"|[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}",
    re.ASCII,
)


_SECONDS: Final = re.compile(r"\d{1,9}", re.ASCII)


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that the vendor asks us to wait, or None where it asks for none or writes nonsense.

    Args:
        headers: The answer's fields, names in lower case.
        now: Aware UTC time; the answer's own ``Date`` stands above it, so that a wrong clock here does no harm.
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    moment = read_http_date(value)
    if moment is None:
        return None
    here = read_http_date(headers.get("date", "")) or now
    return max(0.0, (moment - here).total_seconds())


def read_http_date(value: str) -> datetime | None:
    """Aware UTC time of a header field in one of the three forms of HTTP, or None where it is none.

    Args:
        value: The field.
    """
    value = value.strip()
    if not _HTTP_DATE.fullmatch(value):
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
