"""Removes what a store does not need any more: old events, and submissions and watches that have ended.

Small transactions, each of which checks again what it removes, so that owners and callers go on meanwhile. The order
matters. The key of an event is unique, and a row that is stored anew would give its events the same keys: so a
submission or a watch goes only after its events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select

from taskbridge.store.schema import ACCOUNT, CURSOR, DELIVERY, EVENT, INTENT, WATCH, WEBHOOK, EventKind, Phase, State

if TYPE_CHECKING:
    from taskbridge.store.database import Database

_PIECE: Final = 500  # rows that a transaction removes
WEBHOOKS_KEPT: Final = 7 * 86_400.0  # seconds for which a webhook is known, however often its vendor repeats it
_OF_SUBMISSION: Final = (EventKind.SUBMITTED, EventKind.REFUSED, EventKind.UNCERTAIN)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows `Store.prune` has removed.

    Attributes:
        events: Events that every consumer has acknowledged.
        submissions: Submissions that were refused, or whose task has ended.
        watches: Watches that have ended, or were dropped.
        webhooks: Webhooks that were received.
    """

    events: int
    submissions: int
    watches: int
    webhooks: int


def prune(database: Database, now: float, older_than: float, *, unread: bool) -> Pruned:
    """Remove what is older than some seconds; see `Store.prune`.

    Args:
        database: The store's.
        now: Seconds since the epoch.
        older_than: Seconds.
        unread: Whether to remove events also while there is no consumer.
    """
    before = now - older_than
    with database.reading() as opened:
        names = opened.execute(select(ACCOUNT.c.connection)).scalars().all()
    events = 0
    for name in names:
        acknowledged = _acknowledged(database, name)
        if acknowledged is None:
            if not unread:
                continue
            with database.reading() as opened:
                position = select(ACCOUNT.c.position).where(ACCOUNT.c.connection == name)
                acknowledged = opened.execute(position).scalar_one()
        events += _in_pieces(database, _events(name, acknowledged, before))
    webhooks_before = now - max(older_than, WEBHOOKS_KEPT)
    return Pruned(
        events=events,
        submissions=_in_pieces(database, _submissions(before)),
        watches=_in_pieces(database, _watches(before)),
        webhooks=_in_pieces(database, _webhooks(webhooks_before)),
    )


def forget_consumer(opened: Connection, consumer: str) -> bool:
    """Remove a consumer, and what was still to be delivered to it; False if it is not known."""
    opened.execute(delete(DELIVERY).where(DELIVERY.c.consumer == consumer))
    return opened.execute(delete(CURSOR).where(CURSOR.c.consumer == consumer)).rowcount > 0


def _acknowledged(database: Database, connection: str) -> int | None:
    """Return the position up to which every consumer has acknowledged; None if there is no consumer.

    A consumer that has acknowledged nothing on this connection may have been stopped before its first event here.
    """
    known = select(CURSOR.c.consumer).distinct().subquery()
    here = and_(CURSOR.c.consumer == known.c.consumer, CURSOR.c.connection == connection)
    lowest = select(func.min(func.coalesce(CURSOR.c.position, 0))).select_from(known.outerjoin(CURSOR, here))
    with database.reading() as opened:
        position: int | None = opened.execute(lowest).scalar_one()
    return position


Piece = Callable[[Connection, Any], "tuple[int, Any]"]
"""Removes a piece, of the keys after one; returns how many rows, and the last key, or None at the end."""


def _in_pieces(database: Database, remove: Piece) -> int:
    count, after = 0, None
    while True:
        with database.writing() as opened:
            removed, after = remove(opened, after)
        count += removed
        if after is None:
            return count


def _piece(table: Any, key: Any, condition: ColumnElement[bool]) -> Piece:
    """Return what removes rows in the order of a column that is unique among those of the condition."""

    def remove(opened: Connection, after: Any) -> tuple[int, Any]:
        query = select(key).where(condition).order_by(key).limit(_PIECE)
        keys = opened.execute(query if after is None else query.where(key > after)).scalars().all()
        # The condition once more: another process may have changed a row since.
        removed = opened.execute(delete(table).where(key.in_(keys), condition)).rowcount if keys else 0
        return removed, keys[-1] if len(keys) == _PIECE else None

    return remove


def _events(connection: str, acknowledged: int, before: float) -> Piece:
    undelivered = exists().where(DELIVERY.c.connection == EVENT.c.connection, DELIVERY.c.position == EVENT.c.position)
    condition = and_(
        EVENT.c.connection == connection, EVENT.c.position <= acknowledged, EVENT.c.at < before, ~undelivered
    )
    return _piece(EVENT, EVENT.c.position, condition)


def _submissions(before: float) -> Piece:
    """Those of a run stay: it is resumed by them."""
    prefix = INTENT.c.connection + "/" + INTENT.c.key + "/"
    has_events = or_(*(exists().where(EVENT.c.key == prefix + kind.value) for kind in _OF_SUBMISSION))
    unfinished = exists().where(
        WATCH.c.ref == INTENT.c.ref,
        or_(WATCH.c.state.not_in([State.ENDED, State.DROPPED]), WATCH.c.updated_at >= before),
    )
    condition = and_(
        INTENT.c.updated_at < before,
        INTENT.c.run.is_(None),
        or_(INTENT.c.phase == Phase.REFUSED, and_(INTENT.c.phase == Phase.TAKEN, ~unfinished)),
        ~has_events,
    )
    return _piece(INTENT, INTENT.c.id, condition)


def _watches(before: float) -> Piece:
    """One that was given up stays: if it is begun again, its events must have further keys."""
    condition = and_(
        WATCH.c.updated_at < before,
        or_(WATCH.c.state == State.ENDED, and_(WATCH.c.state == State.DROPPED, WATCH.c.seq == 0)),
        ~exists().where(EVENT.c.ref == WATCH.c.ref),
        ~exists().where(INTENT.c.ref == WATCH.c.ref),
    )
    return _piece(WATCH, WATCH.c.ref, condition)


def _webhooks(before: float) -> Piece:
    def remove(opened: Connection, _after: Any) -> tuple[int, Any]:
        query = select(WEBHOOK.c.connection, WEBHOOK.c.key).where(WEBHOOK.c.received_at < before).limit(_PIECE)
        keys = opened.execute(query).all()
        removed = 0
        for name in {each.connection for each in keys}:
            of_it = WEBHOOK.c.key.in_([each.key for each in keys if each.connection == name])
            condition = and_(WEBHOOK.c.connection == name, of_it, WEBHOOK.c.received_at < before)
            removed += opened.execute(delete(WEBHOOK).where(condition)).rowcount
        return removed, True if len(keys) == _PIECE else None

    return remove
