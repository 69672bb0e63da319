"""The limits of a connection, which the clients of several processes share through a store.

They have a row of their own, so that a client waits neither for the transactions of callers, which lock the account's
row, nor for those of the owner, and no write of a client passes the check of the epoch. The owner reads the row
together with the account's. Times are by the clock of the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Executable, Float, String, bindparam, case, select

from taskbridge._engine.sharing import Reservation
from taskbridge.errors import printable
from taskbridge.store.database import insert_into
from taskbridge.store.schema import ACCOUNT, LIMITS, OwnerKind

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row, RowMapping

    from taskbridge.store.database import Database

_SHARE: Final = 0.5  # of the rate, for the clients of other processes while a watcher polls
_SILENT: Final = 90.0  # seconds without a report after which a watcher counts as ended; one that works has one a minute
_BACK: Final = 60.0  # seconds that the next slot may be away, or `_LONGEST_QUEUE` reservations
_LONGEST_QUEUE: Final = 20
_REFUSED: Final = 60.0  # seconds for which a refusal holds
_LONGEST: Final = 300  # characters of a refusal

_WANTED: Final = select(bindparam("of", type_=String).label("connection")).subquery()
_STATE: Final = (
    select(
        ACCOUNT.c.owner_kind,
        ACCOUNT.c.owner_since,
        ACCOUNT.c.status_at,
        ACCOUNT.c.status["rate"].as_float().label("owner_rate"),
        ACCOUNT.c.status["outage_since"].as_string().label("outage_since"),
        ACCOUNT.c.status["outage_error"].as_string().label("outage_error"),
        ACCOUNT.c.paused_until.label("owner_paused_until"),
        LIMITS.c.paused_until,
        LIMITS.c.refusal,
        LIMITS.c.refused_until,
    )
    .join_from(_WANTED, ACCOUNT, ACCOUNT.c.connection == _WANTED.c.connection, isouter=True)
    .join(LIMITS, LIMITS.c.connection == _WANTED.c.connection, isouter=True)
)
BY_CLIENTS: Final = (LIMITS.c.reserved, LIMITS.c.paused_until, LIMITS.c.refusal, LIMITS.c.refused_until)
"""What the owner reads of the row."""


@dataclass(frozen=True, slots=True)
class ByClients:
    """What clients of other processes have stored; times are seconds since the epoch.

    Attributes:
        reserved: Slots that they have reserved so far.
        paused_until: Until when the vendor wants no requests, as one of them was asked.
        refusal: What the vendor said when it refused the account to one of them.
        refused_until: Until when that holds.
    """

    reserved: int = 0
    paused_until: float | None = None
    refusal: str | None = None
    refused_until: float | None = None

    @classmethod
    def of(cls, row: Row[*tuple[Any, ...]]) -> ByClients:
        """Return what a row has in the columns `BY_CLIENTS`; they are empty before a client has stored something."""
        return cls(row.reserved or 0, row.paused_until, row.refusal, row.refused_until)

    def is_refused(self, now: float) -> bool:
        """Whether a refusal holds at a time, in seconds since the epoch."""
        return self.refused_until is not None and self.refused_until - _REFUSED <= now < self.refused_until


@cache
def _reserve_statement(dialect: str) -> Executable:
    """Return what reserves slots for `span` seconds, and returns the end of that time."""
    now, span, latest = (bindparam(name, type_=Float) for name in ("now", "span", "latest"))
    added = insert_into(dialect, LIMITS).values(
        connection=bindparam("of"), reserved=bindparam("count"), next_slot=bindparam("end")
    )
    # A slot too far away was reserved before the clock was set back.
    is_next = LIMITS.c.next_slot.between(now, latest)
    return added.on_conflict_do_update(
        index_elements=["connection"],
        set_={
            "reserved": LIMITS.c.reserved + bindparam("count"),
            "next_slot": case((is_next, LIMITS.c.next_slot), else_=now) + span,
        },
    ).returning(LIMITS.c.next_slot)


@cache
def _pause_statement(dialect: str) -> Executable:
    """Return what stores a pause, unless there is a longer one."""
    added = insert_into(dialect, LIMITS).values(connection=bindparam("of"), reserved=0, paused_until=bindparam("end"))
    is_longer: ColumnElement[bool] = LIMITS.c.paused_until >= added.excluded.paused_until
    longest = case((is_longer, LIMITS.c.paused_until), else_=added.excluded.paused_until)
    return added.on_conflict_do_update(index_elements=["connection"], set_={"paused_until": longest})


@cache
def _refusal_statement(dialect: str) -> Executable:
    added = insert_into(dialect, LIMITS).values(
        connection=bindparam("of"), reserved=0, refusal=bindparam("reason"), refused_until=bindparam("end")
    )
    names = ("refusal", "refused_until")
    return added.on_conflict_do_update(
        index_elements=["connection"], set_={name: added.excluded[name] for name in names}
    )


class StoreLimits:
    """The limits of one connection, in a store; created by `Store.limits`.

    Args:
        database: The store's.
        connection: Name of the connection.
    """

    def __init__(self, database: Database, connection: str) -> None:
        self._database = database
        self._connection = connection
        self._began = database.now()

    def reserve(self, rate: float | None, count: int) -> Reservation:
        """Reserve slots, unless the vendor wants or gets no requests; see `SharedLimits`.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        with self._database.brief() as opened:
            now = self._database.now()
            row = opened.execute(_STATE, {"of": self._connection}).mappings().one()
            found = self._held(row, now)
            if found != Reservation() or not count or rate is None:
                return found
            share = _share(row, rate, now)
            count = min(count, max(1, int(share)))
            span = count / share
            values = {"of": self._connection, "count": count, "now": now, "span": span, "end": now + span}
            latest = now + max(_BACK, _LONGEST_QUEUE * span)
            end = opened.execute(_reserve_statement(self._database.dialect), {**values, "latest": latest}).scalar_one()
        return Reservation(count, max(0.0, end - span - now), 1.0 / share)

    def report_pause(self, seconds: float) -> None:
        """Let every process know that the vendor wants no requests for so many seconds.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        with self._database.brief() as opened:
            values = {"of": self._connection, "end": self._database.now() + seconds}
            opened.execute(_pause_statement(self._database.dialect), values)

    def report_refusal(self, reason: str) -> None:
        """Let every process know that the vendor refuses the account.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        with self._database.brief() as opened:
            store_refusal(self._database, opened, self._connection, reason)
            self._began = self._database.now()

    def _held(self, row: RowMapping, now: float) -> Reservation:
        """Return what holds requests up.

        A refusal that is older than this client, or its own, does not: the credential may be another one by now.
        """
        until = row["refused_until"] or 0.0
        is_refused = until > now and until - _REFUSED > self._began
        outage = None
        if row["outage_since"] is not None and _is_watched(row, now):
            outage = f"the vendor has been unreachable since {row['outage_since']}: {row['outage_error']}"
        ends = (row["paused_until"], row["owner_paused_until"])
        pause = max((end - now for end in ends if end is not None), default=0.0)
        return Reservation(pause=max(0.0, pause), refusal=row["refusal"] if is_refused else None, outage=outage)


def store_refusal(database: Database, opened: Connection, connection: str, reason: str) -> None:
    """Store for all processes that the vendor refuses the account.

    Args:
        database: The store's.
        opened: A transaction.
        connection: Name of the connection.
        reason: What the vendor said.
    """
    values = {"of": connection, "reason": printable(reason, _LONGEST), "end": database.now() + _REFUSED}
    opened.execute(_refusal_statement(database.dialect), values)


def _is_watched(row: RowMapping, now: float) -> bool:
    """Whether a watcher seems to poll the tasks of the connection."""
    last = max(row["owner_since"] or 0.0, row["status_at"] or 0.0)
    return row["owner_kind"] == OwnerKind.WATCHER and now - last < _SILENT


def _share(row: RowMapping, rate: float, now: float) -> float:
    """Return the requests per second for the clients of other processes."""
    if not _is_watched(row, now):
        return rate
    return min(rate, row["owner_rate"] or rate) * _SHARE  # the vendor may have cut the owner's rate
