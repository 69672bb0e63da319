"""The process that owns a connection, and what it writes.

A connection has one owner at a time, which polls its tasks and sends its submissions. Two things keep others out: a
lock of the database that ends with the process, however it ends, and the account's epoch. Each takeover adds one to the
epoch, and each write checks it in the same transaction, so an owner that lost its lock unnoticed changes nothing.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Executable, RowMapping, Select, and_, bindparam, delete, select, update

from taskbridge._fork import renew_after_fork
from taskbridge.models import Task, TaskRef
from taskbridge.store.database import Database, insert_into
from taskbridge.store.intents import Fingerprint
from taskbridge.store.limits import BY_CLIENTS, ByClients, store_refusal
from taskbridge.store.pruning import WEBHOOKS_KEPT
from taskbridge.store.records import AccountStatus, without_contents
from taskbridge.store.reports import store_status
from taskbridge.store.schema import (
    ACCOUNT,
    EVENT,
    INTENT,
    LIMITS,
    WATCH,
    WEBHOOK,
    EventKind,
    OwnerKind,
    Phase,
    State,
)

_WAITING: Final = (Phase.PLANNED, Phase.SENDING)

# Statements are built once, because that takes longer than their execution.

_LOCK: Final = (
    select(ACCOUNT.c.epoch)
    .where(ACCOUNT.c.connection == bindparam("of"), ACCOUNT.c.epoch == bindparam("in_epoch"))
    .with_for_update(key_share=True)  # as an UPDATE does; consumers can store their positions under it
)
_POSITIONS: Final = (
    update(ACCOUNT)
    .where(ACCOUNT.c.connection == bindparam("of"))
    .values(position=ACCOUNT.c.position + bindparam("count"))
    .returning(ACCOUNT.c.position)
)
# Sets the columns that are among the parameters.
_CHANGE_INTENT: Final = (
    update(INTENT)
    .where(INTENT.c.id == bindparam("number"), INTENT.c.phase.in_(_WAITING))
    .returning(INTENT.c.key, INTENT.c.meta, INTENT.c.until)
)
_EVENT_WITH_KEY: Final = select(EVENT.c.position).where(EVENT.c.key == bindparam("of"))
_FOLLOWED: Final = (WATCH.c.ref, WATCH.c.state, WATCH.c.until, WATCH.c.submitted_at)
_ACCOUNT: Final = (
    select(ACCOUNT.c.epoch, ACCOUNT.c.revision, ACCOUNT.c.position, *BY_CLIENTS)
    .join_from(ACCOUNT, LIMITS, ACCOUNT.c.connection == LIMITS.c.connection, isouter=True)
    .where(ACCOUNT.c.connection == bindparam("of"))
)
_WATCH: Final = select(*_FOLLOWED).where(WATCH.c.ref == bindparam("of"))
_OPEN: Final = select(WATCH.c.ref, WATCH.c.seq, WATCH.c.meta, WATCH.c.until).where(
    WATCH.c.ref.in_(bindparam("refs", expanding=True)), WATCH.c.state == State.OPEN
)


@cache
def _new_watch(dialect: str) -> Executable:
    """Return what adds a watch, and returns its row unless there is one of the same task."""
    return insert_into(dialect, WATCH).on_conflict_do_nothing(index_elements=["ref"]).returning(*_FOLLOWED)


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
        passed: Its `until` that has passed, in seconds since the epoch, if it was given up for that.
    """

    ref: TaskRef
    state: State
    task: Task | None
    error: str | None = None
    passed: float | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What callers have asked for since the owner read last.

    Attributes:
        revision: The newest change.
        watches: Their rows.
        intents: Ids of submissions to send, or to search for.
        notified: Refs of tasks that webhooks were about.
    """

    revision: int
    watches: Sequence[RowMapping]
    intents: Sequence[int]
    notified: Sequence[str]


@dataclass(frozen=True, slots=True)
class Handover:
    """What the owner before has left.

    Attributes:
        paused_until: Before this time, in seconds since the epoch, nothing is to be asked of the vendor.
        durations: What was learned about durations; see `Client.load_durations`.
    """

    paused_until: float | None
    durations: dict[str, Any] | None


class Ownership:
    """The owner's side of one connection.

    Args:
        database: The store's.
        connection: Name of the connection.
        kind: What this process does with it.
    """

    def __init__(self, database: Database, connection: str, kind: OwnerKind = OwnerKind.WATCHER) -> None:
        self.connection = connection
        self._kind = kind
        self._database = database
        self._lock = database.owner_lock(connection)
        # One after the other: each needs the account's row, and if this process is stopped, the database ends those
        # that wait for the row only one by one, five seconds each, before the next owner gets it.
        self._writes = threading.Lock()
        self._epoch = 0
        self._is_released = False
        self.by_clients = ByClients()
        """What clients of other processes had stored when `changes` was called last."""
        renew_after_fork(self, Ownership._begin_process)

    def _begin_process(self) -> None:
        """Own nothing in a forked child; the parent's lock stays."""
        self._writes = threading.Lock()
        self._lock.release()

    # Owning.

    @property
    def is_held(self) -> bool:
        """Whether no other process can be the owner; answers at once, without asking the database."""
        return self._lock.is_held

    @property
    def epoch(self) -> int:
        """The number of this takeover; each adds one."""
        return self._epoch

    def take(self) -> bool:
        """Become the owner; False if another process is, or if this object was released.

        Raises:
            StoreUnavailable: The database cannot be used, or it lost changes that this process has seen.
            OwnershipLost: The lock was lost at once.
        """
        if not self._lock.take():
            return False
        if self._is_released:  # perhaps before the lock was taken
            self._lock.release()
            return False
        with self._database.writing(self._lock) as opened:
            self._database.end_writers(opened, self._lock)
            account = {"connection": self.connection, "epoch": 0, "revision": 0, "position": 0}
            created = self._database.insert(ACCOUNT).values(account)
            opened.execute(created.on_conflict_do_nothing(index_elements=["connection"]))
            taken = (
                update(ACCOUNT)
                .where(ACCOUNT.c.connection == self.connection)
                .values(
                    epoch=ACCOUNT.c.epoch + 1,
                    owner=f"process {os.getpid()} on {socket.gethostname()}",
                    owner_kind=self._kind,
                    owner_since=self._database.now(),
                    problem=None,
                )
                .returning(ACCOUNT.c.epoch, ACCOUNT.c.revision, ACCOUNT.c.position)
            )
            epoch, revision, position = opened.execute(taken).one()
            self._database.refuse_older(self.connection, epoch, revision, position)
            if not self._lock.is_held:
                raise OwnershipLost
        self._epoch = epoch
        self._database.note(self.connection, epoch=epoch, revision=revision, position=position)
        return True

    def remove_lock(self) -> None:
        """Remove what the lock has created beside the store, before `release`."""
        self._lock.remove()

    def release(self) -> None:
        """Let another process take over, for good: a `take` in another thread that ends later owns nothing."""
        self._is_released = True
        self._lock.release()

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Write in a transaction, as the owner: the account's row is locked, so callers and other owners wait.

        Raises:
            OwnershipLost: This process is not the owner any more.
            StoreUnavailable: The database cannot be written.
        """
        with self._writes:
            if not self.is_held:
                raise OwnershipLost
            with self._database.writing(self._lock) as opened:
                if opened.execute(_LOCK, {"of": self.connection, "in_epoch": self._epoch}).first() is None:
                    raise OwnershipLost
                yield opened

    def set_pause(self, problem: str | None, paused_until: float | None, *, is_refusal: bool = False) -> None:
        """Store why nothing is polled or sent at present, and until when, in seconds since the epoch, if known.

        That the vendor refuses the account is also stored for the clients of other processes.
        """
        with self.writing() as opened:
            values = {"problem": problem, "paused_until": paused_until}
            opened.execute(update(ACCOUNT).where(ACCOUNT.c.connection == self.connection).values(values))
            if is_refusal:
                store_refusal(self._database, opened, self.connection, problem or "")

    def set_durations(self, durations: Mapping[str, Any]) -> None:
        """Store what was learned about durations."""
        self._set(durations=dict(durations))

    def _set(self, **values: Any) -> None:
        with self.writing() as opened:
            opened.execute(update(ACCOUNT).where(ACCOUNT.c.connection == self.connection).values(values))

    def set_status(self, status: AccountStatus) -> None:
        """Store what the owner reports."""
        with self.writing() as opened:
            store_status(opened, self.connection, status, self._database.now())

    # Reading.

    def handover(self) -> Handover:
        """Return what the owner before has left."""
        with self._database.reading(self._lock) as opened:
            query = select(ACCOUNT.c.paused_until, ACCOUNT.c.durations)
            row = opened.execute(query.where(ACCOUNT.c.connection == self.connection)).one()
        return Handover(row.paused_until, row.durations)

    def owned_for(self) -> float | None:
        """Return the seconds since a process took the connection last; None if none ever did."""
        with self._database.reading(self._lock) as opened:
            query = select(ACCOUNT.c.owner_since).where(ACCOUNT.c.connection == self.connection)
            since = opened.execute(query).scalar_one_or_none()
            return None if since is None else self._database.now() - since

    def changes(self, after: int) -> Changes | None:
        """Return what is newer than a revision; None if nothing is. After -1, everything that is to be done.

        Raises:
            OwnershipLost: Another process has taken over.
            StoreUnavailable: The database cannot be read.
        """
        with self._database.reading(self._lock) as opened:
            row = opened.execute(_ACCOUNT, {"of": self.connection}).one_or_none()
            if row is None or row.epoch != self._epoch:
                raise OwnershipLost
            self.by_clients = ByClients.of(row)
            revision: int = row.revision
            self._database.note(self.connection, revision=revision, position=row.position)
            if revision == after:
                return None
            # Only up to the revision: what is committed from now on is read the next time.
            watches = select(*_FOLLOWED).where(
                WATCH.c.connection == self.connection, WATCH.c.revision > after, WATCH.c.revision <= revision
            )
            if after < 0:
                watches = watches.where(WATCH.c.state == State.OPEN)
            intents = select(INTENT.c.id).where(
                INTENT.c.connection == self.connection,
                INTENT.c.phase.in_(_WAITING),
                INTENT.c.revision > after,
                INTENT.c.revision <= revision,
            )
            return Changes(
                revision,
                opened.execute(watches).mappings().all(),
                opened.execute(intents.order_by(INTENT.c.id)).scalars().all(),
                # A new owner polls everything anyway.
                [] if after < 0 else opened.execute(self._notified(after, revision)).scalars().all(),
            )

    def _notified(self, after: int, revision: int) -> Select[Any]:
        return select(WEBHOOK.c.ref).where(
            WEBHOOK.c.connection == self.connection,
            WEBHOOK.c.revision > after,
            WEBHOOK.c.revision <= revision,
            WEBHOOK.c.ref.is_not(None),
        )

    def prune_webhooks(self) -> None:
        """Remove webhooks that no vendor delivers again."""
        before = self._database.now() - WEBHOOKS_KEPT
        with self.writing() as opened:
            old = and_(WEBHOOK.c.connection == self.connection, WEBHOOK.c.received_at < before)
            opened.execute(delete(WEBHOOK).where(old))

    def intent(self, number: int) -> RowMapping:
        """Return a submission."""
        with self._database.reading(self._lock) as opened:
            return opened.execute(select(INTENT).where(INTENT.c.id == number)).mappings().one()

    # Writing submissions.

    def mark_sending(self, number: int, recovery_token: Mapping[str, Any], content: Fingerprint | None = None) -> None:
        """Store that a submission is about to be sent, and what its file contains, if that was not stored before.

        It is on disk when this returns.
        """
        values = {} if content is None else asdict(content)
        self._set_phase(number, Phase.SENDING, None, recovery_token=dict(recovery_token), **values)

    def mark_planned(self, number: int, error: str | None) -> None:
        """Store that the vendor does not have a submission."""
        self._set_phase(number, Phase.PLANNED, error, recovery_token=None)

    def mark_refused(self, number: int, error: str) -> None:
        """Store that a submission was refused."""
        self._set_phase(number, Phase.REFUSED, error, event=EventKind.REFUSED)

    def mark_uncertain(self, number: int, error: str) -> None:
        """Store that the vendor may have a submission, and cannot be asked."""
        self._set_phase(number, Phase.UNCERTAIN, error, event=EventKind.UNCERTAIN)

    def mark_uploading(self, number: int, content: Fingerprint) -> None:
        """Store what the file of a submission contains that the vendor has without it, just before it is sent."""
        self._set_phase(number, Phase.SENDING, None, **asdict(content))

    def mark_taken(self, number: int, task: Task) -> RowMapping:
        """Store that the vendor has a submission, and watch its task; return the row of the watch, as in `Changes`.

        A task that has ended already is stored together with its end: its vendor may not know it any more.
        """
        ref = str(task.ref)
        with self.writing() as opened:
            now = self._database.now()
            intent = self._change_phase(opened, number, Phase.TAKEN, None, EventKind.SUBMITTED, ref=ref)
            values = {
                "ref": ref,
                "connection": self.connection,
                "state": State.OPEN,
                "seq": 0,
                "snapshot": without_contents(task.to_dict()),
                **_cost(task),
                "until": intent["until"],
                "meta": intent["meta"],
                "submitted_at": now,
                "revision": 0,
                "created_at": now,
                "updated_at": now,
            }
            added = opened.execute(_new_watch(self._database.dialect), values).mappings().one_or_none()
            if task.is_terminal:
                store_seen(self._database, opened, self.connection, [Seen(task.ref, State.ENDED, task)], now)
            elif added is not None:
                return added
            return opened.execute(_WATCH, {"of": ref}).mappings().one()

    def _set_phase(
        self, number: int, phase: Phase, error: str | None, event: EventKind | None = None, **values: Any
    ) -> None:
        with self.writing() as opened:
            self._change_phase(opened, number, phase, error, event, **values)

    def _change_phase(
        self, opened: Connection, number: int, phase: Phase, error: str | None, event: EventKind | None, **values: Any
    ) -> RowMapping:
        now = self._database.now()
        changed = {"number": number, "phase": phase, "error": error, "updated_at": now, **values}
        intent = opened.execute(_CHANGE_INTENT, changed).mappings().one_or_none()
        if intent is None:
            raise OwnershipLost
        if event is not None:
            position = take_positions(opened, self.connection, 1)
            key = f"{self.connection}/{intent['key']}/{event}"
            if opened.execute(_EVENT_WITH_KEY, {"of": key}).first() is not None:
                key = f"{key}/{position}"  # it was resubmitted, and ended in the same way once more
            row = {
                "connection": self.connection,
                "position": position,
                "key": key,
                "kind": event,
                "ref": values.get("ref"),
                "submission": intent["key"],
                "body": {"error": error, "meta": intent["meta"]},
                "at": now,
            }
            self._database.add_events(opened, [row])
        return intent

    # Writing watches.

    def write(self, seen: Iterable[Seen]) -> None:
        """Store snapshots and ends, each end with its event, all of it or nothing; what is not open stays as it is."""
        with self.writing() as opened:
            position = store_seen(self._database, opened, self.connection, seen, self._database.now())
        self._database.note(self.connection, position=position)


def take_positions(opened: Connection, connection: str, count: int) -> int:
    """Take the positions of so many new events of a connection, and return the last one.

    The account's row stays locked until the transaction ends, so a position is committed before a higher one is given:
    a reader that has seen a position misses none below it.
    """
    taken: int = opened.execute(_POSITIONS, {"of": connection, "count": count}).scalar_one()
    return taken


def store_seen(database: Database, opened: Connection, connection: str, seen: Iterable[Seen], now: float) -> int:
    """Store snapshots and ends of open watches of one connection, each end with its event.

    Args:
        database: The store's.
        opened: A transaction that has locked the account's row.
        connection: Name of the connection.
        seen: What was seen.
        now: Seconds since the epoch.

    Returns:
        The position of the last event; 0 if there is none.
    """
    latest = {str(each.ref): each for each in seen}
    rows = opened.execute(_OPEN, {"refs": list(latest)}).all()
    changed: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for ref, seq, meta, until in rows:
        each = latest[ref]
        if each.passed is not None and until != each.passed and (until is None or until > now):
            each = replace(each, state=State.OPEN, error=None)  # a caller has extended the wait
        is_end = each.state is not State.OPEN
        snapshot = None if each.task is None else without_contents(each.task.to_dict())
        changed.append(
            {
                "ref": ref,
                "state": each.state,
                "seq": seq + is_end,
                "snapshot": snapshot,
                **_cost(each.task),
                "error": each.error,
            }
        )
        if is_end:
            events.append(
                {
                    "connection": connection,
                    "key": f"{ref}/{seq + 1}",
                    "kind": EventKind.ENDED if each.state is State.ENDED else EventKind.GIVEN_UP,
                    "ref": ref,
                    "submission": None,
                    "body": {"task": snapshot, "error": each.error, "meta": meta},
                    "at": now,
                }
            )
    if changed:
        database.change_watches(opened, changed, now)
    if not events:
        return 0
    last = take_positions(opened, connection, len(events))
    for position, event in enumerate(events, last - len(events) + 1):
        event["position"] = position
    database.add_events(opened, events)
    return last


def _cost(task: Task | None) -> dict[str, Any]:
    usage = None if task is None else task.usage
    return {"amount": None if usage is None else usage.amount, "unit": None if usage is None else usage.unit}
