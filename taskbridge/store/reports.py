"""What the owner of a connection reports of its work, and how it is stored: one JSON object per account."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, update

from taskbridge.errors import printable
from taskbridge.events import PollReason
from taskbridge.models import TaskRef
from taskbridge.store.records import AccountStatus
from taskbridge.store.schema import ACCOUNT

if TYPE_CHECKING:
    from taskbridge._engine.connection import ConnectionStats
    from taskbridge.aio import Watch

_LONGEST: Final = 300  # characters of an error
_DIGITS: Final = 3  # of a figure that changes all the time, so that it is not stored each time


def status_of(stats: ConnectionStats, watch: Watch, oldest: Iterable[TaskRef], now: datetime) -> AccountStatus:
    """Return what to report.

    Args:
        stats: Of the connection.
        watch: Its tasks.
        oldest: Those whose next poll is reported.
        now: The time.
    """
    outage = stats.outage
    return AccountStatus(
        watched=len(watch),
        in_flight=stats.in_flight,
        rate=_finite(stats.rate),
        limit=_finite(stats.limit),
        demand=_rounded(watch.demand()),
        requests=dict(stats.requests),
        failures=stats.failures,
        slowed_down=stats.slowed_down,
        finished=stats.finished,
        mean_delay=None if stats.detection_delay is None else _rounded(stats.detection_delay),
        durations={name: _rounded(mean) for name, mean in stats.durations.items()},
        quantiles={name: tuple(map(_rounded, found)) for name, found in stats.quantiles.items()},
        usage={unit.value: amount for unit, amount in stats.usage.items()},
        is_refused=stats.is_refused,
        outage_since=None if outage is None else outage.since,
        outage_error=None if outage is None else printable(outage.error.summary, _LONGEST),
        next_polls=dict(_next_polls(watch, oldest, now)),
    )


def _next_polls(
    watch: Watch, refs: Iterable[TaskRef], now: datetime
) -> Iterable[tuple[TaskRef, tuple[datetime | None, PollReason]]]:
    for ref in refs:
        planned = watch.next_poll(ref)
        if planned is not None:
            at = None if planned.seconds is None else now + timedelta(seconds=round(planned.seconds))
            yield ref, (None if at is None else at.replace(microsecond=0), planned.reason)


def _finite(rate: float) -> float | None:
    return None if rate == inf else _rounded(rate)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


# In the database.


def store_status(opened: Connection, connection: str, status: AccountStatus, now: float) -> None:
    """Store what the owner reports, in a transaction that has checked that it is the owner."""
    values = {"status": to_json(status), "status_at": now}
    opened.execute(update(ACCOUNT).where(ACCOUNT.c.connection == connection).values(values))


def to_json(status: AccountStatus) -> dict[str, Any]:
    """Return a report as JSON."""
    values = {name: getattr(status, name) for name in AccountStatus.__dataclass_fields__}
    return {
        **values,
        "outage_since": None if status.outage_since is None else status.outage_since.isoformat(),
        "next_polls": {
            ref: [None if at is None else at.isoformat(), reason.value]
            for ref, (at, reason) in status.next_polls.items()
        },
    }


def from_json(values: Mapping[str, Any]) -> AccountStatus:
    """Return a stored report; what another version of taskbridge stored besides is left out."""
    kept = {name: value for name, value in values.items() if name in AccountStatus.__dataclass_fields__}
    since = kept.get("outage_since")
    read: dict[str, Any] = {
        **kept,
        "outage_since": None if since is None else datetime.fromisoformat(since),
        "quantiles": {name: tuple(found) for name, found in kept.get("quantiles", {}).items()},
        "next_polls": {
            TaskRef(ref): (None if at is None else datetime.fromisoformat(at), PollReason(reason))
            for ref, (at, reason) in kept.get("next_polls", {}).items()
            if reason in list(PollReason)
        },
    }
    return AccountStatus(**read)
