"""What a store has, for people: its accounts, a search for watches, and what waits for a decision."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Text, and_, case, cast, func, or_, select, tuple_

from taskbridge.store.records import Account, moment
from taskbridge.store.reports import from_json
from taskbridge.store.schema import ACCOUNT, CURSOR, DELIVERY, EVENT, INTENT, WATCH, Phase, State

MOST_UNREAD: Final = 10_000
"""Unread events of a consumer that are counted."""
_GROUPED: Final = 10_000  # oldest open watches of which the page shows how many are in which status


def accounts(opened: Connection) -> list[Account]:
    """Return the accounts, by name."""
    watches: dict[str, dict[State, int]] = defaultdict(dict)
    for name, state, count in opened.execute(
        select(WATCH.c.connection, WATCH.c.state, func.count()).group_by(WATCH.c.connection, WATCH.c.state)
    ):
        watches[name][State(state)] = count
    submissions: dict[str, dict[Phase, int]] = defaultdict(dict)
    for name, phase, count in opened.execute(
        select(INTENT.c.connection, INTENT.c.phase, func.count()).group_by(INTENT.c.connection, INTENT.c.phase)
    ):
        submissions[name][Phase(phase)] = count
    return [
        Account(
            connection=row["connection"],
            owner=row["owner"],
            owner_since=moment(row["owner_since"]),
            problem=row["problem"],
            paused_until=moment(row["paused_until"]),
            status=None if row["status"] is None else from_json(row["status"]),
            status_at=moment(row["status_at"]),
            watches=watches[row["connection"]],
            submissions=submissions[row["connection"]],
        )
        for row in opened.execute(select(ACCOUNT).order_by(ACCOUNT.c.connection)).mappings()
    ]


def watches_query(
    *,
    state: str | None = None,
    connection: str | None = None,
    text: str | None = None,
    after: tuple[float, str] | None = None,
    limit: int | None = None,
) -> Select[Any]:
    """Return the query for watches, the oldest first.

    Args:
        state: Only those in this state.
        connection: Only those of this connection.
        text: Only those whose ref or meta contains this text, in any case.
        after: Only those after this one: when it was stored, in seconds since the epoch, and its ref.
        limit: Maximum number.
    """
    query = select(WATCH).order_by(WATCH.c.created_at, WATCH.c.ref).limit(limit)
    if state is not None:
        query = query.where(WATCH.c.state == state)
    if connection is not None:
        query = query.where(WATCH.c.connection == connection)
    if text:
        query = query.where(_contains(text))
    if after is not None:
        query = query.where(tuple_(WATCH.c.created_at, WATCH.c.ref) > tuple_(*after))
    return query


def _contains(text: str) -> ColumnElement[bool]:
    meta = cast(WATCH.c.meta, Text)
    return or_(
        WATCH.c.ref.icontains(text, autoescape=True),
        meta.icontains(text, autoescape=True),
        meta.icontains(json.dumps(text)[1:-1], autoescape=True),  # as JSON writes it, other than ASCII in escapes
    )


def grouped_watches(opened: Connection) -> Sequence[RowMapping]:
    """Return how many of the oldest open watches are in which status, with the oldest of each group."""
    oldest = (
        select(WATCH.c.connection, WATCH.c.snapshot, WATCH.c.created_at)
        .where(WATCH.c.state == State.OPEN)
        .order_by(WATCH.c.created_at, WATCH.c.ref)
        .limit(_GROUPED)
        .subquery()
    )
    status, reason, native = (
        oldest.c.snapshot[name].as_string().label(name) for name in ("status", "reason", "native_status")
    )
    query = select(
        oldest.c.connection,
        status,
        reason,
        native,
        func.count().label("count"),
        func.min(oldest.c.created_at).label("oldest"),
    ).group_by(oldest.c.connection, status, reason, native)
    return opened.execute(query.order_by(func.min(oldest.c.created_at))).mappings().all()


def waiting_submissions(opened: Connection, phase: Phase, limit: int) -> Sequence[RowMapping]:
    """Return submissions that a person should see, the oldest first: uncertain ones, or planned ones with an error."""
    query = select(INTENT).where(INTENT.c.phase == phase).order_by(INTENT.c.updated_at, INTENT.c.id).limit(limit)
    if phase is Phase.PLANNED:
        query = query.where(INTENT.c.error.is_not(None))
    return opened.execute(query).mappings().all()


def refused_submissions(opened: Connection, limit: int) -> Sequence[RowMapping]:
    """Return the submissions that were refused last."""
    query = select(INTENT).where(INTENT.c.phase == Phase.REFUSED)
    return opened.execute(query.order_by(INTENT.c.updated_at.desc(), INTENT.c.id.desc()).limit(limit)).mappings().all()


def submission_key(opened: Connection, number: int) -> tuple[str, str] | None:
    """Return the connection and the key of a submission, by the number of its row."""
    row = opened.execute(select(INTENT.c.connection, INTENT.c.key).where(INTENT.c.id == number)).one_or_none()
    return None if row is None else (row.connection, row.key)


def deliveries(opened: Connection, limit: int) -> Sequence[RowMapping]:
    """Return undelivered events: first those that are not tried again, and last those that wait for others."""
    at = and_(EVENT.c.connection == DELIVERY.c.connection, EVENT.c.position == DELIVERY.c.position)
    query = select(DELIVERY, EVENT.c.kind, EVENT.c.submission, EVENT.c.at).join_from(DELIVERY, EVENT, at, isouter=True)
    kind = (DELIVERY.c.next_at.is_not(None), DELIVERY.c.attempts == 0)
    order = (*kind, DELIVERY.c.updated_at.desc(), DELIVERY.c.connection, DELIVERY.c.position)
    return opened.execute(query.order_by(*order).limit(limit)).mappings().all()


def count_deliveries(opened: Connection) -> Sequence[RowMapping]:
    """Return for each consumer how many deliveries failed, are not tried again, and wait for an earlier one."""
    failed = func.count(case((DELIVERY.c.attempts > 0, 1)))
    query = select(
        DELIVERY.c.consumer,
        failed.label("failed"),
        (func.count() - func.count(DELIVERY.c.next_at)).label("dead"),
        (func.count() - failed).label("waiting"),
    )
    return opened.execute(query.group_by(DELIVERY.c.consumer).order_by(DELIVERY.c.consumer)).mappings().all()


def unread_events(opened: Connection) -> dict[str, int]:
    """Return how many events each consumer has not acknowledged, of the connections that it has read from.

    More than `MOST_UNREAD` are counted as one more than that.
    """
    unread: dict[str, int] = {}
    for row in opened.execute(select(CURSOR).order_by(CURSOR.c.consumer, CURSOR.c.connection)):
        known = unread.setdefault(row.consumer, 0)
        newer = select(EVENT.c.position).where(EVENT.c.connection == row.connection, EVENT.c.position > row.position)
        query = select(func.count()).select_from(newer.limit(MOST_UNREAD + 1 - known).subquery())
        unread[row.consumer] = known + opened.execute(query).scalar_one()
    return unread
