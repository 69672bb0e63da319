"""Which events a consumer has not got yet: new ones, and those whose handler failed.

A consumer's cursor passes an event that failed, which then has a row of its own with the time of its next attempt.
Later events of the same task get such a row, too, so that they wait for it; the events of other tasks do not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, exists, func, insert, select, update

from taskbridge._engine.logs import log
from taskbridge.errors import ConfigError, TaskbridgeError, printable
from taskbridge.provider.clock import Clock
from taskbridge.store.database import Database
from taskbridge.store.records import Event, Undelivered, event_of, moment
from taskbridge.store.schema import ACCOUNT, CURSOR, DELIVERY, EVENT

_WAITS: Final = "it waits for an earlier event of its task"
_LONGEST_ERROR: Final = 1000  # characters
_EARLIER: Final = DELIVERY.alias("earlier")
_OF_EVENT: Final = and_(EVENT.c.connection == DELIVERY.c.connection, EVENT.c.position == DELIVERY.c.position)


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How often a failed delivery is tried again.

    Attributes:
        attempts: Most attempts before an event becomes a dead letter.
        first: First pause in seconds; it doubles with each further failure, and a part of it is random.
        at_most: Longest pause in seconds.
    """

    attempts: int = 16
    first: float = 1.0
    at_most: float = 3600.0

    def __post_init__(self) -> None:
        for name, least in (("attempts", 1), ("first", 0.001), ("at_most", 0.001)):
            given: Any = getattr(self, name)  # callers need not be typed
            if isinstance(given, bool) or not isinstance(given, int | float) or not least <= given <= 1e9:
                raise ConfigError(f"{name} of a DeliveryPolicy must be a number from {least:g}")

    def pause(self, failures: int, chance: float) -> float:
        """Return the seconds after so many failures; `chance` is 0.0 to 1.0."""
        return min(self.at_most, self.first * 2.0 ** min(failures - 1, 60)) * (0.5 + chance / 2)


class _Status(Enum):
    OPEN = auto()
    DONE = auto()
    FAILED = auto()
    WAITS = auto()  # for an earlier event of its task
    STORED = auto()


@dataclass(slots=True, eq=False)
class Delivery:
    """An event to be delivered.

    Attributes:
        event: The event.
        attempts: How often its handler has failed so far.
        is_retry: Whether it has a row of its own; otherwise the cursor has not passed it.
    """

    event: Event
    attempts: int
    is_retry: bool
    status: _Status = _Status.OPEN
    error: str = _WAITS
    pause: float = 0.0  # seconds before the next attempt


class Round:
    """Some events to be delivered, and what has become of them; `store` writes that down.

    Args:
        queue: Where they are from.
        retries: Those whose handler failed before.
        new: Those that the cursor has not passed, in order for each connection.
        cursors: The consumer's position on each connection.
        blocked: Connection and ref of the tasks of which an earlier event is undelivered.
    """

    def __init__(
        self,
        queue: DeliveryQueue,
        retries: list[Delivery],
        new: list[Delivery],
        cursors: dict[str, int],
        blocked: set[tuple[str, str]],
    ) -> None:
        self._queue = queue
        self._retries = retries
        self._new = new
        self._cursors = cursors
        self._blocked = blocked

    def __len__(self) -> int:
        return len(self._retries) + len(self._new)

    def __iter__(self) -> Iterator[Delivery]:
        yield from self._new  # before the others: events that fail for ever must not hold them up
        yield from self._retries

    def in_order(self) -> list[list[Delivery]]:
        """Return the events in groups: those of one task in their order, each of the others alone."""
        groups: dict[object, list[Delivery]] = {}
        for each in self:
            groups.setdefault(each.event.ref or (each.event.connection, each.event.position), []).append(each)
        return list(groups.values())

    def may_begin(self, delivery: Delivery) -> bool:
        """Whether to call the handler; False if the event must wait for an earlier one of its task."""
        if delivery.status is not _Status.OPEN:
            return False
        if delivery.is_retry or (delivery.event.connection, delivery.event.ref) not in self._blocked:
            return True
        delivery.status = _Status.WAITS
        return False

    def succeed(self, delivery: Delivery) -> None:
        """Note that the handler has returned."""
        delivery.status = _Status.DONE

    def fail(self, delivery: Delivery, error: Exception) -> None:
        """Note that the handler has raised."""
        queue, event = self._queue, delivery.event
        delivery.status = _Status.FAILED
        delivery.attempts += 1
        delivery.error = _text(error)
        asked = error.retry_after if isinstance(error, TaskbridgeError) else None
        own = queue.policy.pause(delivery.attempts, queue.clock.random())
        delivery.pause = max(min(asked or 0.0, queue.policy.at_most), own)
        if event.ref is not None:
            self._blocked.add((event.connection, str(event.ref)))
        if delivery.attempts >= queue.policy.attempts:
            log(
                "delivery-dead",
                consumer=queue.consumer,
                key=event.key,
                attempts=delivery.attempts,
                error=delivery.error,
            )

    def store(self) -> None:
        """Store what has become of the events so far; those without a result will come again.

        Raises:
            StoreUnavailable: Nothing was stored.
        """
        retries = [each for each in self._retries if each.status in (_Status.DONE, _Status.FAILED)]
        passed: dict[str, list[Delivery]] = {}
        ended: set[str] = set()  # connections of which no further event can be passed
        for each in self._new:
            connection = each.event.connection
            if each.status is _Status.OPEN:
                ended.add(connection)
            elif connection not in ended and each.status is not _Status.STORED:
                passed.setdefault(connection, []).append(each)
        if not retries and not passed:
            return
        queue = self._queue
        with queue.database.writing() as opened:
            for each in retries:
                self._store_retry(opened, each)
            moved = {name for name, deliveries in passed.items() if self._pass(opened, name, deliveries)}
        for connection, deliveries in list(passed.items()):
            if connection in moved:
                self._cursors[connection] = deliveries[-1].event.position
            else:
                log("delivered-elsewhere", consumer=queue.consumer, connection=connection)
                passed[connection] = [each for each in self._new if each.event.connection == connection]
        for each in [*retries, *(each for deliveries in passed.values() for each in deliveries)]:
            each.status = _Status.STORED

    def _store_retry(self, opened: Connection, delivery: Delivery) -> None:
        queue, event = self._queue, delivery.event
        before = delivery.attempts - (delivery.status is _Status.FAILED)
        own = and_(
            DELIVERY.c.consumer == queue.consumer,
            DELIVERY.c.connection == event.connection,
            DELIVERY.c.position == event.position,
            DELIVERY.c.attempts == before,  # else another process has delivered it meanwhile
        )
        if delivery.status is _Status.DONE:
            opened.execute(delete(DELIVERY).where(own))
        else:
            opened.execute(update(DELIVERY).where(own).values(self._values(delivery)))

    def _pass(self, opened: Connection, connection: str, deliveries: list[Delivery]) -> bool:
        """Move the cursor past some events; False if another process has moved it meanwhile."""
        queue, before = self._queue, self._cursors[connection]
        after = deliveries[-1].event.position
        row = {"consumer": queue.consumer, "connection": connection, "position": 0}
        if not before:
            opened.execute(
                queue.database.insert(CURSOR)
                .values(row)
                .on_conflict_do_nothing(index_elements=["consumer", "connection"])
            )
        moved = opened.execute(
            update(CURSOR)
            .where(CURSOR.c.consumer == queue.consumer, CURSOR.c.connection == connection, CURSOR.c.position == before)
            .values(position=after)
        )
        if not moved.rowcount:
            return False
        rows = [
            {
                "consumer": queue.consumer,
                "connection": connection,
                "position": each.event.position,
                "ref": None if each.event.ref is None else str(each.event.ref),
                **self._values(each),
            }
            for each in deliveries
            if each.status is not _Status.DONE
        ]
        if rows:
            opened.execute(insert(DELIVERY), rows)
        return True

    def _values(self, delivery: Delivery) -> dict[str, Any]:
        now = self._queue.database.now()
        is_dead = delivery.attempts >= self._queue.policy.attempts
        return {
            "attempts": delivery.attempts,
            "next_at": None if is_dead else now + delivery.pause,
            "error": delivery.error,
            "updated_at": now,
        }


class DeliveryQueue:
    """The events that a consumer has not got yet.

    Args:
        database: The store's.
        consumer: Name of the consumer.
        clock: Time and chance.
        policy: How often a failed delivery is tried again.
    """

    def __init__(self, database: Database, consumer: str, clock: Clock, policy: DeliveryPolicy) -> None:
        self.database = database
        self.consumer = consumer
        self.clock = clock
        self.policy = policy

    def take(self, limit: int, connections: Collection[str] | None) -> Round:
        """Return the next events to be delivered.

        Args:
            limit: About how many; at most half of them have failed before. With 1, a new one and one that has failed.
            connections: Only events of these connections; None for all.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        if connections is not None and not connections:
            return Round(self, [], [], {}, set())
        with self.database.reading() as opened:
            retries = self._due(opened, max(1, limit // 2), connections)
            cursors = self._behind(opened, connections)
            new: list[Delivery] = []
            blocked: set[tuple[str, str]] = set()
            if cursors:
                share = max(1, (limit - len(retries)) // len(cursors))
                for connection, position in cursors.items():
                    found = self._new(opened, connection, position, share)
                    new += found
                    blocked |= self._blocked(opened, connection, found)
        return Round(self, retries, new, cursors, blocked)

    def _due(self, opened: Connection, limit: int, connections: Collection[str] | None) -> list[Delivery]:
        """Return events to be tried again; of each task only the first."""
        waits = exists(
            select(_EARLIER.c.position).where(
                _EARLIER.c.consumer == DELIVERY.c.consumer,
                _EARLIER.c.connection == DELIVERY.c.connection,
                _EARLIER.c.ref == DELIVERY.c.ref,
                _EARLIER.c.position < DELIVERY.c.position,
            )
        )
        query = (
            select(DELIVERY.c.attempts, *EVENT.c)
            .join(EVENT, _OF_EVENT)
            .where(
                DELIVERY.c.consumer == self.consumer,
                DELIVERY.c.next_at <= self.database.now(),
                *_of(DELIVERY.c.connection, connections),
                ~waits,
            )
            .order_by(DELIVERY.c.next_at, DELIVERY.c.connection, DELIVERY.c.position)
            .limit(limit)
        )
        return [
            Delivery(event_of(row), row["attempts"], is_retry=True) for row in opened.execute(query).mappings().all()
        ]

    def _behind(self, opened: Connection, connections: Collection[str] | None) -> dict[str, int]:
        """Return the consumer's position on each connection that has newer events."""
        position = func.coalesce(CURSOR.c.position, 0).label("position")
        own = and_(CURSOR.c.connection == ACCOUNT.c.connection, CURSOR.c.consumer == self.consumer)
        query = (
            select(ACCOUNT.c.connection, position)
            .outerjoin(CURSOR, own)
            .where(ACCOUNT.c.position > position, *_of(ACCOUNT.c.connection, connections))
            .order_by(ACCOUNT.c.connection)
        )
        return {row.connection: row.position for row in opened.execute(query)}

    def _new(self, opened: Connection, connection: str, after: int, limit: int) -> list[Delivery]:
        query = select(EVENT).where(EVENT.c.connection == connection, EVENT.c.position > after)
        rows = opened.execute(query.order_by(EVENT.c.position).limit(limit)).mappings().all()
        return [Delivery(event_of(row), 0, is_retry=False) for row in rows]

    def _blocked(self, opened: Connection, connection: str, new: list[Delivery]) -> set[tuple[str, str]]:
        """Return the tasks of new events of which an earlier event is undelivered."""
        refs = {str(each.event.ref) for each in new if each.event.ref is not None}
        query = select(DELIVERY.c.ref).where(
            DELIVERY.c.consumer == self.consumer, DELIVERY.c.connection == connection, DELIVERY.c.ref.in_(refs)
        )
        return {(connection, ref) for ref in opened.execute(query).scalars()} if refs else set()


# What people see and decide.


def find_undelivered(
    opened: Connection, consumer: str | None, *, is_dead: bool | None, limit: int | None
) -> list[Undelivered]:
    """Return events that were passed undelivered, by consumer and connection, the oldest first."""
    query = (
        select(
            DELIVERY.c.consumer,
            DELIVERY.c.attempts,
            DELIVERY.c.next_at,
            DELIVERY.c.error.label("failure"),
            DELIVERY.c.updated_at,
            *EVENT.c,
        )
        .join(EVENT, _OF_EVENT)
        .order_by(DELIVERY.c.consumer, DELIVERY.c.connection, DELIVERY.c.position)
        .limit(limit)
    )
    if consumer is not None:
        query = query.where(DELIVERY.c.consumer == consumer)
    if is_dead is not None:
        query = query.where(DELIVERY.c.next_at.is_(None) if is_dead else DELIVERY.c.next_at.is_not(None))
    return [_undelivered(row) for row in opened.execute(query).mappings()]


def redeliver(opened: Connection, consumer: str, key: str | None, now: float) -> int:
    """Let dead letters, or one event, be tried again at once and as often as a new one; return how many."""
    chosen = DELIVERY.c.next_at.is_(None) if key is None else _has_key(key)
    again = update(DELIVERY).where(DELIVERY.c.consumer == consumer, chosen)
    return opened.execute(again.values(attempts=0, next_at=now)).rowcount


def discard(opened: Connection, consumer: str, key: str) -> bool:
    """Give up the delivery of an event; False if it is not undelivered."""
    return opened.execute(delete(DELIVERY).where(DELIVERY.c.consumer == consumer, _has_key(key))).rowcount > 0


def _has_key(key: str) -> ColumnElement[bool]:
    return exists(select(EVENT.c.key).where(_OF_EVENT, EVENT.c.key == key))


def _of(column: ColumnElement[str], connections: Collection[str] | None) -> list[ColumnElement[bool]]:
    return [] if connections is None else [column.in_(connections)]


def _undelivered(row: RowMapping) -> Undelivered:
    return Undelivered(
        consumer=row["consumer"],
        event=event_of(row),
        attempts=row["attempts"],
        next_at=moment(row["next_at"]),
        error=row["failure"],
        updated_at=datetime.fromtimestamp(row["updated_at"], UTC),
    )


def _text(error: Exception) -> str:
    text = error.summary if isinstance(error, TaskbridgeError) else f"{type(error).__name__}: {error}"
    return printable(text, _LONGEST_ERROR)
