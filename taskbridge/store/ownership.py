"""The process that owns a connection, and what it writes.

A connection has one owner at a time, which polls its tasks and sends its submissions. Two things keep others out: a
lock of the database that ends with the process, however it ends, and the account's epoch. Each takeover adds one to the
epoch, and each write checks it in the same transaction, so an owner that lost its lock unnoticed changes nothing.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import JSON, Connection, RowMapping, bindparam, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from taskbridge._fork import renew_after_fork
from taskbridge.errors import printable
from taskbridge.models import Task, TaskRef
from taskbridge.provider.clock import Clock
from taskbridge.store.database import Database, StoreUnavailable, create_file
from taskbridge.store.records import without_contents
from taskbridge.store.schema import ACCOUNT, EVENT, INTENT, WATCH, EventKind, Phase, State

_WAITING: Final = (Phase.PLANNED, Phase.SENDING)


class OwnershipLost(Exception):
    """Another process has taken over the connection; nothing was written."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a watched task.

    Attributes:
        ref: The task.
        state: What the watch becomes; open for a change before the end.
        task: The snapshot.
        error: Why it was given up.
    """

    ref: TaskRef
    state: State
    task: Task | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What callers have asked for since the owner read last.

    Attributes:
        revision: The newest change.
        watches: Their rows.
        intents: Ids of submissions to send, or to search for.
    """

    revision: int
    watches: Sequence[RowMapping]
    intents: Sequence[int]


class Ownership:
    """The owner's side of one connection.

    Args:
        database: The store's.
        connection: Name of the connection.
        clock: The time.
    """

    def __init__(self, database: Database, connection: str, clock: Clock) -> None:
        self.connection = connection
        self._database = database
        self._clock = clock
        self._path = database.path.with_name(f"{database.path.name}-owner-{connection}")
        self._lock: sqlite3.Connection | None = None
        self._epoch = 0
        renew_after_fork(self, Ownership.release)  # a forked child owns nothing; the parent's lock stays

    # Owning.

    def take(self) -> bool:
        """Become the owner; False if another process is.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        if self._lock is None and not self._take_lock():
            return False
        with self._database.writing() as opened:
            account = {"connection": self.connection, "epoch": 0, "revision": 0, "position": 0}
            opened.execute(upsert(ACCOUNT).values(account).on_conflict_do_nothing(index_elements=["connection"]))
            taken = (
                update(ACCOUNT)
                .where(ACCOUNT.c.connection == self.connection)
                .values(
                    epoch=ACCOUNT.c.epoch + 1, owner=f"process {os.getpid()} on {socket.gethostname()}", problem=None
                )
            )
            self._epoch = opened.execute(taken.returning(ACCOUNT.c.epoch)).scalar_one()
        return True

    def _take_lock(self) -> bool:
        problem = create_file(self._path)
        if problem:
            raise StoreUnavailable(f"{printable(str(self._path), 300)} cannot be locked: {problem}", retryable=True)
        try:
            lock = sqlite3.connect(self._path, timeout=0.0, isolation_level=None, check_same_thread=False)
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                lock.close()
                if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                    return False
                raise
        except sqlite3.Error as error:
            problem = printable(str(error), 200)
        else:
            self._lock = lock
            return True
        raise StoreUnavailable(f"{printable(str(self._path), 300)} cannot be locked: {problem}", retryable=True)

    def release(self) -> None:
        """Let another process take over."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(sqlite3.Error):
                lock.close()

    def _check(self, opened: Connection, events: int = 0) -> int:
        """Lock the account's row, check the epoch, and return the position before that of the next event."""
        counted = (
            update(ACCOUNT)
            .where(ACCOUNT.c.connection == self.connection, ACCOUNT.c.epoch == self._epoch)
            .values(position=ACCOUNT.c.position + events)
        )
        position: int | None = opened.execute(counted.returning(ACCOUNT.c.position)).scalar_one_or_none()
        if position is None:
            raise OwnershipLost
        return position - events

    def set_problem(self, problem: str | None) -> None:
        """Store why nothing is polled or sent at present."""
        with self._database.writing() as opened:
            self._check(opened)
            opened.execute(update(ACCOUNT).where(ACCOUNT.c.connection == self.connection).values(problem=problem))

    # Reading.

    def changes(self, after: int) -> Changes | None:
        """Return what is newer than a revision; None if nothing is. After -1, everything that is to be done."""
        with self._database.reading() as opened:
            own = ACCOUNT.c.connection == self.connection
            revision = opened.execute(select(ACCOUNT.c.revision).where(own)).scalar_one()
            if revision == after:
                return None
            watches = select(WATCH.c.ref, WATCH.c.state, WATCH.c.until, WATCH.c.submitted_at).where(
                WATCH.c.connection == self.connection, WATCH.c.revision > after
            )
            if after < 0:
                watches = watches.where(WATCH.c.state == State.OPEN)
            intents = select(INTENT.c.id).where(
                INTENT.c.connection == self.connection, INTENT.c.phase.in_(_WAITING), INTENT.c.revision > after
            )
            return Changes(
                revision,
                opened.execute(watches).mappings().all(),
                opened.execute(intents.order_by(INTENT.c.id)).scalars().all(),
            )

    def intent(self, number: int) -> RowMapping:
        """Return a submission."""
        with self._database.reading() as opened:
            return opened.execute(select(INTENT).where(INTENT.c.id == number)).mappings().one()

    # Writing submissions.

    def mark_sending(self, number: int, recovery_token: Mapping[str, Any]) -> None:
        """Store that a submission is about to be sent; it is on disk when this returns."""
        self._set_phase(number, Phase.SENDING, None, recovery_token=dict(recovery_token))

    def mark_planned(self, number: int, error: str | None) -> None:
        """Store that the vendor does not have a submission."""
        self._set_phase(number, Phase.PLANNED, error, recovery_token=None)

    def mark_refused(self, number: int, error: str) -> None:
        """Store that a submission was refused."""
        self._set_phase(number, Phase.REFUSED, error, event=EventKind.REFUSED)

    def mark_uncertain(self, number: int, error: str) -> None:
        """Store that the vendor may have a submission, and cannot be asked."""
        self._set_phase(number, Phase.UNCERTAIN, error, event=EventKind.UNCERTAIN)

    def mark_taken(self, number: int, task: Task) -> RowMapping:
        """Store that the vendor has a submission, and watch its task; return the row of the watch.

        A task that has ended already is stored together with its end: its vendor may not know it any more.
        """
        now, ref = self._clock.now().timestamp(), str(task.ref)
        with self._database.writing() as opened:
            intent = self._change_phase(opened, number, Phase.TAKEN, None, EventKind.SUBMITTED, ref=ref)
            values = {
                "ref": ref,
                "connection": self.connection,
                "state": State.OPEN,
                "seq": 0,
                "snapshot": _stored(task),
                "until": intent["until"],
                "meta": intent["meta"],
                "submitted_at": now,
                "revision": 0,
                "created_at": now,
                "updated_at": now,
            }
            opened.execute(upsert(WATCH).values(values).on_conflict_do_nothing(index_elements=["ref"]))
            if task.is_terminal:
                self._write(opened, [Seen(task.ref, State.ENDED, task)])
            return opened.execute(select(WATCH).where(WATCH.c.ref == ref)).mappings().one()

    def _set_phase(
        self, number: int, phase: Phase, error: str | None, event: EventKind | None = None, **values: Any
    ) -> None:
        with self._database.writing() as opened:
            self._change_phase(opened, number, phase, error, event, **values)

    def _change_phase(
        self, opened: Connection, number: int, phase: Phase, error: str | None, event: EventKind | None, **values: Any
    ) -> RowMapping:
        position, now = self._check(opened, 0 if event is None else 1), self._clock.now().timestamp()
        changed = update(INTENT).where(INTENT.c.id == number, INTENT.c.phase.in_(_WAITING))
        changed = changed.values(phase=phase, error=error, updated_at=now, **values)
        intent = opened.execute(changed.returning(*INTENT.c)).mappings().one_or_none()
        if intent is None:
            raise OwnershipLost
        if event is not None:
            row = {
                "connection": self.connection,
                "position": position + 1,
                "key": f"{self.connection}/{intent['key']}/{event}",
                "kind": event,
                "ref": values.get("ref"),
                "submission": intent["key"],
                "body": {"error": error, "meta": intent["meta"]},
                "at": now,
            }
            opened.execute(insert(EVENT).values(row))
        return intent

    # Writing watches.

    def write(self, seen: Iterable[Seen]) -> None:
        """Store snapshots and ends, each end with its event, all of it or nothing; what is not open stays as it is."""
        with self._database.writing() as opened:
            self._write(opened, seen)

    def _write(self, opened: Connection, seen: Iterable[Seen]) -> None:
        store_seen(opened, seen, lambda count: self._check(opened, count), self._clock.now().timestamp())


def store_seen(opened: Connection, seen: Iterable[Seen], take_positions: Callable[[int], int], now: float) -> None:
    """Store snapshots and ends of open watches of one connection, each end with its event.

    Args:
        opened: A transaction.
        seen: What was seen.
        take_positions: Takes the positions of so many events, and returns the one before them.
        now: Seconds since the epoch.
    """
    latest = {str(each.ref): each for each in seen}
    query = select(WATCH.c.ref, WATCH.c.seq, WATCH.c.meta).where(
        WATCH.c.ref.in_(list(latest)), WATCH.c.state == State.OPEN
    )
    rows = opened.execute(query).all()
    ends = [row for row in rows if latest[row.ref].state is not State.OPEN]
    position = take_positions(len(ends))
    changed = [
        {
            "of_ref": row.ref,
            "of_state": each.state,
            "of_seq": row.seq + (each.state is not State.OPEN),
            "of_snapshot": None if each.task is None else _stored(each.task),
            "of_error": each.error,
        }
        for row in rows
        for each in [latest[row.ref]]
    ]
    events = [
        {
            "connection": TaskRef(row.ref).connection,
            "position": position + number,
            "key": f"{row.ref}/{row.seq + 1}",
            "kind": EventKind.ENDED if each.state is State.ENDED else EventKind.GIVEN_UP,
            "ref": row.ref,
            "submission": None,
            "body": {
                "task": None if each.task is None else _stored(each.task),
                "error": each.error,
                "meta": row.meta,
            },
            "at": now,
        }
        for number, row in enumerate(ends, 1)
        for each in [latest[row.ref]]
    ]
    if changed:
        opened.execute(
            update(WATCH)
            .where(WATCH.c.ref == bindparam("of_ref"))
            .values(
                state=bindparam("of_state"),
                seq=bindparam("of_seq"),
                # One that was given up without a snapshot keeps the last one.
                snapshot=func.coalesce(bindparam("of_snapshot", type_=JSON(none_as_null=True)), WATCH.c.snapshot),
                error=bindparam("of_error"),
                updated_at=now,
            ),
            changed,
        )
    if events:
        opened.execute(insert(EVENT), events)


def _stored(task: Task) -> dict[str, Any]:
    return without_contents(task.to_dict())
