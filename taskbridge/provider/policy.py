"""Policies for retrying and polling, and the vendor's own words about them (``Retry-After``).

Three separate settings, all in seconds: the `timeout` of a wait (how long to wait), `PollPolicy` (how often to poll)
and `RetryPolicy` (how often to retry a failed request). Polling is not retrying: an unfinished task is not a failure,
and a failed request says nothing about the task.
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
from taskbridge.provider.clock import clip_seconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failed request is retried.

    Attributes:
        attempts: Most requests, the first included (1 to 10).
        first: Longest first pause in seconds; it doubles with each further one.
        at_most: Longest pause in seconds.
    """

    attempts: int = 3
    first: float = 0.5
    at_most: float = 20.0

    def __post_init__(self) -> None:
        _check("retry.attempts", self.attempts, 1, 10)
        _check("retry.first", self.first, 0.0, 60.0)
        _check("retry.at_most", self.at_most, 0.0, 3600.0)

    def pause(self, failures: int, chance: float) -> float:
        """Return the seconds before the next attempt: full jitter (`chance` is 0.0 to 1.0) below a doubling ceiling."""
        return chance * min(self.at_most, self.first * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """How often an unfinished task is polled.

    Set either the mean delay that you accept before the end of a task is detected, or a fixed interval.

    Attributes:
        latency: Mean detection delay to aim at, in seconds; the default.
        interval: Seconds between two polls, instead of `latency`.
        at_most: Longest interval in seconds, whatever is known about the task.
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


# HTTP status -> most retries of a safe request, besides the policy's own limit.
# 408 425 429 500 502 503 504 520-524: the vendor or its gateway may answer the next time. Any other 5xx is retried
# once, but never 501 and 505 (the server cannot do it), nor any other 4xx.
_RETRIES: Final[Mapping[int, int]] = {
    **dict.fromkeys((408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524), 99),
    **dict.fromkeys((501, 505), 0),
}


def retries_for(status: int) -> int:
    """Return how often a safe request may be retried after this HTTP status."""
    return _RETRIES.get(status, 1 if 500 <= status <= 599 else 0)


# The three date forms of RFC 9110 section 5.6.7: IMF-fixdate, RFC 850, asctime.
_HTTP_DATE: Final = re.compile(
    r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT"
    r"|[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}",
    re.ASCII,
)
_SECONDS: Final = re.compile(r"\d{1,9}", re.ASCII)


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds of ``Retry-After``, at most ten years; None if it is missing or unreadable.

    `now` counts only without a ``Date`` header, so that a wrong local clock does no harm.
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return clip_seconds(float(value))
    moment = read_http_date(value)
    if moment is None:
        return None
    vendor_now = read_http_date(headers.get("date", "")) or now
    return clip_seconds(max(0.0, (moment - vendor_now).total_seconds()))


def read_http_date(value: str) -> datetime | None:
    """Read a date in one of the three HTTP formats as aware UTC; None if it is not one."""
    value = value.strip()
    if not _HTTP_DATE.fullmatch(value):
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
