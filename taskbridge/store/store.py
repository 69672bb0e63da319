"""`Store`: submissions, watches and events that survive the process, and that several processes share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache, partial, wraps
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, TypeVar, Unpack

from sqlalchemy import Connection, Executable, RowMapping, and_, bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError

from taskbridge._config.defaults import default_clock
from taskbridge._engine.download import MAX_BYTES
from taskbridge._engine.sharing import SharedLimits
from taskbridge._runtime.base import DEFAULT_TIMEOUT
from taskbridge.errors import ConfigError, InvalidInput, InvalidTaskId, printable
from taskbridge.event_bus import EventBus
from taskbridge.models import Task, TaskRef
from taskbridge.provider.clock import Clock
from taskbridge.provider.options import NeutralOptions
from taskbridge.store.database import Database, insert_into
from taskbridge.store.decisions import decide
from taskbridge.store.delivery import discard, find_undelivered, redeliver
from taskbridge.store.dialects import open_database
from taskbridge.store.event_bus import StoreEventBus
from taskbridge.store.intents import (
    SubmissionOptions,
    as_json,
    check_arguments,
    check_key,
    find_source,
    refuse_difference,
    store_input,
)
from taskbridge.store.limits import StoreLimits
from taskbridge.store.overview import accounts, watches_query
from taskbridge.store.ownership import Seen, store_seen
from taskbridge.store.pruning import Pruned, forget_consumer, prune
from taskbridge.store.records import (
    Account,
    Event,
    Explanation,
    StoredSubmission,
    Undelivered,
    Watched,
    event_of,
    moment,
    seconds,
)
from taskbridge.store.schema import ACCOUNT, CURSOR, EVENT, INTENT, LONGEST_REF, WATCH, WEBHOOK, EventKind, Phase, State

if TYPE_CHECKING:
    from psycopg import Connection as PsycopgConnection  # of the extra postgres

    from taskbridge.store.database import Insert
    from taskbridge.store.runs.files import FileUpdate, RunSummary

P = ParamSpec("P")
T = TypeVar("T")

_CONNECTION: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_COLLECTED: Final = 1000  # watches that a transaction keeps in memory
_FOLLOW_PAUSE: Final = 0.5  # seconds between two reads when there are no new events

_ADOPTED_EPOCHS: Final = 1_000  # takeovers that are skipped when a store is adopted
_ADOPTED_NUMBERS: Final = 1_000_000  # changes and events that are


@cache  # built once per dialect, because that takes longer than its execution
def _next_statement(dialect: str) -> Executable:
    """Return what takes the next revision of an account, which it creates if needed."""
    added = insert_into(dialect, ACCOUNT).values(connection=bindparam("of"), epoch=0, revision=1, position=0)
    return added.on_conflict_do_update(
        index_elements=["connection"], set_={"revision": ACCOUNT.c.revision + 1}
    ).returning(ACCOUNT.c.revision)


@cache
def _cursor_statement(dialect: str) -> Insert:
    """Return what stores the position of a consumer, which never moves back."""
    added = insert_into(dialect, CURSOR)
    return added.on_conflict_do_update(
        index_elements=["consumer", "connection"],
        set_={"position": added.excluded.position},
        where=CURSOR.c.position < added.excluded.position,
    )


def _translated(
    method: Callable[Concatenate[Transaction, P], T],
) -> Callable[Concatenate[Transaction, P], T]:
    """Let a method raise `StoreUnavailable` for an error of the database, also in a connection of the caller."""

    @wraps(method)
    def call(self: Transaction, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._database.translating():  # a class of this file
            return method(self, *args, **kwargs)

    return call


class _FromBlock(Exception):
    """Carries an error of the caller's own database out of a block, past what translates those of the store."""

    def __init__(self, error: SQLAlchemyError) -> None:
        super().__init__()
        self.error = error


class Transaction:
    """What is stored together or not at all; created by `Store.begin`.

    Args:
        connection: An SQLAlchemy connection to the store's database.
        database: That database.
        is_callers: Whether the connection is the caller's, who may read or roll back what was stored so far. Otherwise
            watches are collected, and stored many at a time, which takes a tenth of the time.
    """

    def __init__(self, connection: Connection, database: Database, *, is_callers: bool = False) -> None:
        self._connection = connection
        self._database = database
        self._is_callers = is_callers
        self._revisions: dict[str, int] = {}  # of this transaction
        self._watches: dict[str, dict[str, Any]] = {}  # by ref; to be stored

    @_translated
    def submit(
        self,
        connection: str,
        operation: str | None = None,
        input: str | os.PathLike[str] | None = None,  # noqa: A002  # as in Client.submit
        *,
        key: str,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        callback_url: str | None = None,
        name: str | None = None,
        meta: Mapping[str, Any] | None = None,
        until: datetime | None = None,
        **neutral: Unpack[NeutralOptions],
    ) -> StoredSubmission:
        """Store a submission; the process that owns the connection sends it, and watches its task.

        The same submission with the same key is stored once: a job that runs twice submits once. The vendor's own
        checks come when it is sent. A file must not change or go away before that; afterwards it is not read again.

        Args:
            connection: Name of a configured connection.
            operation: As for `Client.submit`.
            input: Path of a file that the owner can read, or a URL. A URL and the options are
                stored as they are, with what they contain.
            key: Your own id of this submission, unique on the connection.
            options: As for `Client.submit`; plain JSON.
            external_id: As for `Client.submit`.
            callback_url: As for `Client.submit`.
            name: As for `Client.submit`.
            meta: Data of your own, which events repeat; plain JSON.
            until: When to give up waiting for the end of its task; None for never.
            neutral: Neutral options, as for `Client.submit`.

        Raises:
            ConfigError: The key was used for another submission.
            InvalidInput: An argument cannot be stored.
            OSError: The file cannot be read.
        """
        connection, key = _check_connection(connection), check_key(key)
        check_arguments(
            operation=operation, options=options, external_id=external_id, callback_url=callback_url, name=name
        )
        known = self._find(connection, key)
        is_sent = known is not None and known["phase"] not in (Phase.PLANNED, Phase.SENDING)
        document = store_input(input, read=not is_sent)
        arguments = {
            "options": options,
            "external_id": external_id,
            "callback_url": callback_url,
            "name": name,
            "neutral": dict(neutral),
        }
        content = None if document is None else document.content
        given: dict[str, Any] = {
            "operation": operation,
            "input": None if document is None else document.source,
            "arguments": as_json("options", arguments),
        }
        if not is_sent:  # afterwards, the document may be filed away
            given["digest"] = None if content is None else content.digest
        if known is None:
            now = self._database.now()
            values = {
                **given,
                "connection": connection,
                "key": key,
                "size": None if content is None else content.size,
                "meta": as_json("meta", meta),
                "until": _seconds("until", until),
                "phase": Phase.PLANNED,
                "revision": self._next_revision(connection),
                "created_at": now,
                "updated_at": now,
            }
            added = self._database.insert(INTENT).values(values)
            stored = added.on_conflict_do_nothing(index_elements=["connection", "key"]).returning(INTENT)
            created = self._connection.execute(stored).mappings().one_or_none()
            if created is not None:
                return submission_of(created)
            known = self._find(connection, key)  # another process was faster
            assert known is not None  # noqa: S101  # it has the key
        refuse_difference(key, dict(known), given)
        return submission_of(known)

    @_translated
    def watch(
        self,
        ref: TaskRef | Task | str,
        *,
        meta: Mapping[str, Any] | None = None,
        until: datetime | None = None,
        submitted_at: datetime | None = None,
    ) -> TaskRef:
        """Store that a task is to be watched until it ends; the process that owns its connection does so.

        A task that is watched already gets the new `meta` and `until`; one that has ended stays as it is. The snapshot
        of a task that has ended, and that the vendor does not keep (`Task.resumable`), is stored with its end.

        Args:
            ref: ``connection:id``, or a task.
            meta: Data of your own, which events repeat; plain JSON.
            until: When to give up; None for never.
            submitted_at: When the task was submitted, if it is new.

        Raises:
            InvalidTaskId: It is no ref.
            InvalidInput: An argument cannot be stored.
        """
        found = _ref(ref)
        connection = _check_connection(found.connection)
        now = self._database.now()
        values = {
            "meta": as_json("meta", meta),
            "until": _seconds("until", until),
            "state": State.OPEN,
            "error": None,
            "revision": self._next_revision(connection),
            "updated_at": now,
            "ref": str(found),
            "connection": connection,
            "seq": 0,
            "submitted_at": _seconds("submitted_at", submitted_at),
            "created_at": now,
        }
        self._watches[str(found)] = values
        if self._is_callers or len(self._watches) >= _COLLECTED:
            self._flush()
        if isinstance(ref, Task) and ref.is_terminal and not ref.resumable:  # the vendor cannot be asked about it later
            self._flush()
            store_seen(self._database, self._connection, connection, [Seen(found, State.ENDED, ref)], now)
        return found

    @_translated
    def _flush(self) -> None:
        """Store the watches that were collected; `Store.begin` does so at the end."""
        watches, self._watches = self._watches, {}
        if watches:
            self._database.add_watches(self._connection, [*watches.values()])

    @_translated
    def unwatch(self, ref: TaskRef | Task | str) -> bool:
        """Store that a task is not to be watched any more; return False if it was not watched."""
        found = _ref(ref)
        self._flush()
        revision = self._next_revision(_check_connection(found.connection))
        dropped = self._connection.execute(
            update(WATCH)
            .where(WATCH.c.ref == str(found), WATCH.c.state == State.OPEN)
            .values(state=State.DROPPED, revision=revision, updated_at=self._database.now())
        )
        return dropped.rowcount > 0

    @_translated
    def add_webhook(self, connection: str, key: str, refs: Iterable[TaskRef]) -> bool:
        """Store that the vendor has notified of tasks; the owner of the connection polls those that are watched.

        Args:
            connection: Name of the connection.
            key: The same for each delivery of one webhook; `WebhookEvent.duplicate_key`.
            refs: The tasks.

        Returns:
            False if the webhook was stored before; then nothing changes.
        """
        now = self._database.now()
        storable: list[str | None] = [*_storable(refs)]
        for number, ref in enumerate(storable or [None]):
            digest = sha256(f"{number} {key}".encode(errors="backslashreplace")).hexdigest()
            values = {"connection": connection, "key": digest, "ref": ref, "revision": 0, "received_at": now}
            added = self._database.insert(WEBHOOK).values(values).on_conflict_do_nothing().returning(WEBHOOK.c.key)
            if self._connection.execute(added).first() is None:
                return False  # which only the first one can be
        recent = and_(WEBHOOK.c.connection == connection, WEBHOOK.c.revision == 0)
        self._connection.execute(update(WEBHOOK).where(recent).values(revision=self._next_revision(connection)))
        return True

    @_translated
    def resubmit(self, connection: str, key: str) -> StoredSubmission:
        """Let the owner send an uncertain submission again; see `Store.resubmit`."""
        revision = self._next_revision(_check_connection(connection))
        values = {"phase": Phase.PLANNED, "error": None, "recovery_token": None, "revision": revision}
        return submission_of(decide(self._connection, connection, key, {**values, "updated_at": self._database.now()}))

    @_translated
    def forget(self, connection: str, key: str) -> StoredSubmission:
        """Do nothing more with an uncertain submission; see `Store.forget`."""
        values = {"phase": Phase.FORGOTTEN, "updated_at": self._database.now()}
        return submission_of(decide(self._connection, _check_connection(connection), key, values))

    def _find(self, connection: str, key: str) -> RowMapping | None:
        query = select(INTENT).where(INTENT.c.connection == connection, INTENT.c.key == key)
        return self._connection.execute(query).mappings().one_or_none()

    def _next_revision(self, connection: str) -> int:
        """Return the number of the next change that a caller asks for; the owner reads those that it has not seen."""
        known = self._revisions.get(connection)  # the owner reads all of the transaction, or nothing
        if known is not None:
            return known
        revision: int = self._connection.execute(
            _next_statement(self._database.dialect), {"of": connection}
        ).scalar_one()
        if not self._is_callers:
            self._revisions[connection] = revision
        elif not self._database.is_in_transaction(self._connection):
            raise ConfigError(
                "the connection is in autocommit mode: what belongs together would be stored in pieces, and the owner "
                "may miss some; begin a transaction"
            )
        return revision


class Store:
    """State that survives the process: in a SQLite file for the processes of one machine, in PostgreSQL for more.

    A store only stores. A `taskbridge.Watcher` or `taskbridge.aio.Watcher`, in one of the processes, sends the
    submissions and polls the tasks. Threads may share a store.

    Args:
        url: Path of a file, or a URL: ``sqlite:////var/lib/taskbridge.db``, or
            ``postgresql://user:password@host/database`` with any parameter of libpq (extra ``postgres``). A file is
            created if it does not exist, with access for its owner only; tables are created or migrated.
        lock_url: For PostgreSQL behind a connection pooler: a URL of the same database that leads directly to it, for
            one connection per process that owns connections.
        clock: Time and chance; None for the computer's. Stored times are by the clock of PostgreSQL, unless another
            clock than the computer's is given.

    Raises:
        ConfigError: The database cannot be used: the file is on a network drive or damaged; PostgreSQL is older than
            14, a standby, or behind a connection pooler without `lock_url`; the tables are of a newer version.
        StoreUnavailable: PostgreSQL cannot be reached at present.
    """

    def __init__(self, url: str | os.PathLike[str], *, lock_url: str | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or default_clock()
        """Time and chance."""
        self.database: Database = open_database(url, lock_url, self.clock)
        """The database behind it."""

    def __repr__(self) -> str:
        return f"<Store {self.database.name}>"

    def close(self) -> None:
        """Close the kept connections to the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing.

    @contextmanager
    def begin(self, connection: Connection | PsycopgConnection[Any] | None = None) -> Generator[Transaction]:
        """Store several things together: ``with store.begin() as tx: tx.submit(…)``.

        Args:
            connection: A connection of your own to the same database, in a transaction of yours: of SQLAlchemy, or of
                psycopg 3 where the store is in PostgreSQL. What is stored then depends on that transaction; keep it
                short, because the owners of its connections wait for it. None for a transaction that ends with the
                block.

        Raises:
            ConfigError: The connection cannot be used.
            StoreUnavailable: The database cannot be written; nothing was stored.
        """
        try:
            with self._transaction(connection) as tx:
                try:
                    yield tx
                except SQLAlchemyError as error:
                    raise _FromBlock(error) from None
                tx._flush()  # noqa: SLF001  # a class of this file
        except _FromBlock as passed:
            raise passed.error from None

    @contextmanager
    def _transaction(self, connection: Connection | PsycopgConnection[Any] | None) -> Generator[Transaction]:
        if connection is None:
            with self.database.writing() as opened:
                yield Transaction(opened, self.database)
            return
        with self.database.joining(connection) as joined:
            with self.database.translating():
                self.database.read_clock(joined)
            yield Transaction(joined, self.database, is_callers=True)

    def submit(
        self,
        connection: str,
        operation: str | None = None,
        input: str | os.PathLike[str] | None = None,  # noqa: A002  # as in Client.submit
        *,
        key: str,
        **given: Unpack[SubmissionOptions],
    ) -> StoredSubmission:
        """Store a submission in a transaction of its own; see `Transaction.submit`."""
        with self.begin() as tx:
            return tx.submit(connection, operation, input, key=key, **given)

    def watch(
        self,
        ref: TaskRef | Task | str,
        *,
        meta: Mapping[str, Any] | None = None,
        until: datetime | None = None,
        submitted_at: datetime | None = None,
    ) -> TaskRef:
        """Store in a transaction of its own that a task is to be watched; see `Transaction.watch`."""
        with self.begin() as tx:
            return tx.watch(ref, meta=meta, until=until, submitted_at=submitted_at)

    def unwatch(self, ref: TaskRef | Task | str) -> bool:
        """Store that a task is not to be watched any more; return False if it was not watched."""
        with self.begin() as tx:
            return tx.unwatch(ref)

    def adopt(self, connection: str | None = None) -> list[str]:
        """Accept a database that lacks the last changes, as after a failover to a standby or from a backup.

        An owner that has seen those changes sends and polls nothing in such a database. Call this after you checked
        what the vendor has: a submission that is planned here may have been sent. Owners then begin again.

        Args:
            connection: Only this connection; None for all.

        Returns:
            Names of the connections.

        Raises:
            ConfigError: The store does not have the connection.
            StoreUnavailable: The database cannot be written.
        """
        # Whatever any process has seen is lower: it accepts the row, and a consumer skips no event.
        adopted = update(ACCOUNT).values(
            epoch=ACCOUNT.c.epoch + _ADOPTED_EPOCHS,
            revision=ACCOUNT.c.revision + _ADOPTED_NUMBERS,
            position=ACCOUNT.c.position + _ADOPTED_NUMBERS,
        )
        if connection is not None:
            adopted = adopted.where(ACCOUNT.c.connection == connection)
        with self.database.writing() as opened:
            names = sorted(opened.execute(adopted.returning(ACCOUNT.c.connection)).scalars())
        if connection is not None and not names:
            raise ConfigError(f"the store does not have the connection {printable(connection, 60)!r}")
        return names

    def prune(self, older_than: timedelta, *, unread: bool = False) -> Pruned:
        """Remove what is not needed any more, in small transactions; return how much that was.

        That is: events that every consumer has acknowledged and whose deliveries have succeeded; then submissions that
        were refused, or whose task has ended; watches that have ended, or were dropped; and webhooks, after seven days
        at least. What is open, uncertain or given up stays, and so do the submissions of a run. A key whose submission
        was removed can be used again, and is then submitted again.

        Every consumer counts that has acknowledged an event at any time, on each connection; `forget_consumer` removes
        one that is not used any more.

        Args:
            older_than: How long ago it must have been stored or have changed last.
            unread: Whether to remove events also while there is no consumer at all.

        Raises:
            InvalidInput: It is no positive duration.
            StoreUnavailable: The database cannot be written; what was removed before stays removed.
        """
        given: Any = older_than  # callers need not be typed
        if not isinstance(given, timedelta) or given <= timedelta():
            raise InvalidInput("older_than is a positive duration, such as timedelta(days=30)")
        return prune(self.database, self.database.now(), older_than.total_seconds(), unread=unread)

    def event_bus(self, connection: str) -> EventBus:
        """Return an event bus that shares with other processes which webhooks were processed.

        ``tb.connect(connection="scans", event_bus=store.event_bus)``. An event that was processed is remembered for
        seven days; one whose process ended meanwhile can be processed again after ten minutes.

        Args:
            connection: Name of the connection.
        """
        return StoreEventBus(self.database, _check_connection(connection))

    def limits(self, connection: str) -> SharedLimits:
        """Return the limits of a connection, which its clients share with those of other processes.

        ``tb.connect(connection="scans", limits=store.limits)``. All clients that share, and the process that owns the
        connection, keep to `requests_per_second` together, and to the pauses and refusals of each other. While a
        watcher polls, the clients get at most half of the rate. While the database cannot be used, each client sends a
        tenth of it.

        Args:
            connection: Name of the connection.
        """
        return StoreLimits(self.database, _check_connection(connection))

    def forget_consumer(self, consumer: str) -> bool:
        """Remove a consumer of events, and what was still to be delivered to it; return False if it is not known."""
        with self.database.writing() as opened:
            return forget_consumer(opened, consumer)

    def resubmit(self, connection: str, key: str) -> StoredSubmission:
        """Let the owner send an uncertain submission again, after you have looked that the vendor does not have it.

        Args:
            connection: Name of its connection.
            key: Its key.

        Raises:
            InvalidInput: It is not uncertain, or there is none.
        """
        with self.begin() as tx:
            return tx.resubmit(connection, key)

    def forget(self, connection: str, key: str) -> StoredSubmission:
        """Do nothing more with an uncertain submission; its key stays used.

        Args:
            connection: Name of its connection.
            key: Its key.

        Raises:
            InvalidInput: It is not uncertain, or there is none.
        """
        with self.begin() as tx:
            return tx.forget(connection, key)

    def run(
        self,
        operation: str | None = None,
        inputs: Iterable[str | os.PathLike[str]] = (),
        *,
        to: str | os.PathLike[str],
        connection: str | None = None,
        config: str | os.PathLike[str] | None = None,
        neutral: NeutralOptions | None = None,
        options: Mapping[str, Any] | None = None,
        max_in_flight: int = 8,
        timeout: float | None = DEFAULT_TIMEOUT,
        settle: float = 60.0,
        resubmit_uncertain: bool = False,
        max_bytes: int | None = MAX_BYTES,
        max_cost: float | None = None,
        on_update: Callable[[FileUpdate], object] | None = None,
    ) -> RunSummary:
        """Submit files, wait for their tasks and download the results, as ``taskbridge run`` does.

        The folder `to` identifies the run: the same call again continues it, wherever it was stopped, and adds files
        that it does not have. No file is submitted twice, unless you say `resubmit_uncertain`. One bad file stops no
        other. Blocks until all have come to their end; Ctrl-C stops it after the submissions in flight.

        If a watcher in another process owns the connection, that one submits the files and polls their tasks. Files of
        the store itself are left out.

        Args:
            operation: As for `Client.submit`; None for that of the stored run.
            inputs: Paths of files, and URLs; the run may have more.
            to: The folder for the results; each file gets a subfolder.
            connection: Name of a connection or group; None for the stored run's, or the configuration's default.
            config: Path of the configuration; None searches the usual places.
            neutral: Neutral options of the operation, such as ``{"to": "pdf"}``.
            options: As for `Client.submit`; plain JSON.
            max_in_flight: Most files at the vendor at once, up to 500.
            timeout: Seconds to wait for one task, which continues at the vendor; None for no limit.
            settle: Seconds that an uncertain submission may take to appear at the vendor.
            resubmit_uncertain: Whether to submit files again that the vendor may have accepted, if it has no way to
                search for them.
            max_bytes: Largest file to download; None for no limit.
            max_cost: Submit no more files once the known cost of all reaches this, in the vendor's unit; None for no
                limit.
            on_update: Called in this thread with each change of a file.

        Raises:
            ConfigError: The stored run has another operation, connection or options; or the connection cannot be used,
                or another run on this store uses it.
            UnsupportedFeature: The vendor cannot do the operation, or takes none of the files.
            InvalidInput: An argument cannot be stored.
            StoreUnavailable: The store cannot be written any more; nothing more was submitted.
            OSError: None of the files exists, or the folder cannot be created.
        """
        from taskbridge.client import connect  # noqa: PLC0415  # as below
        from taskbridge.store.runs.plan import RunPlan  # noqa: PLC0415  # opens clients, which other processes need not
        from taskbridge.store.runs.run import run_files  # noqa: PLC0415  # as above
        from taskbridge.store.runs.stored import StoredRun  # noqa: PLC0415  # as above
        from taskbridge.store.runs.worker import MOST_IN_FLIGHT, RunLimits  # noqa: PLC0415  # as above

        if isinstance(inputs, str | os.PathLike):
            raise InvalidInput("inputs is a list of paths and URLs; write [path] for one")
        if not 1 <= max_in_flight <= MOST_IN_FLIGHT:
            raise InvalidInput(f"max_in_flight must be from 1 to {MOST_IN_FLIGHT}")
        plan = RunPlan(
            connect=lambda name: connect(connection=name, config=config, limits=self.limits),
            operation=operation,
            sources=list(dict.fromkeys(find_source(each) for each in inputs)),
            folder=Path(to),
            connection=connection,
            neutral=as_json("neutral", neutral) or {},
            options=as_json("options", options) or {},
            max_cost=max_cost,
        )
        limits = RunLimits(max_in_flight, timeout, settle, resubmit_uncertain, max_bytes, max_cost)
        run = StoredRun(self.database, plan.folder)
        return run_files(run, plan, limits, on_update or (lambda _: None))

    # Reading.

    def accounts(self) -> list[Account]:
        """Return the connections of which the store has something, by name: who owns them, and what was reported."""
        with self.database.reading() as opened:
            return accounts(opened)

    def find(
        self,
        *,
        state: State | str | None = None,
        connection: str | None = None,
        text: str | None = None,
        limit: int | None = None,
    ) -> list[Watched]:
        """Return watches, the oldest first.

        Args:
            state: Only those in this state; None for all.
            connection: Only those of this connection; None for all.
            text: Only those whose ref or meta contains this text, in any case; None for all.
            limit: Maximum number; None for all.
        """
        known = None if state is None else _member(State, state)
        query = watches_query(state=known, connection=connection, text=text, limit=limit)
        with self.database.reading() as opened:
            return [watched_of(row) for row in opened.execute(query).mappings()]

    def submissions(
        self, *, phase: Phase | str | None = None, connection: str | None = None, limit: int | None = None
    ) -> list[StoredSubmission]:
        """Return submissions, the oldest first.

        Args:
            phase: Only those in this phase; None for all.
            connection: Only those of this connection; None for all.
            limit: Maximum number; None for all.
        """
        query = select(INTENT).order_by(INTENT.c.id).limit(limit)
        if phase is not None:
            query = query.where(INTENT.c.phase == _member(Phase, phase))
        if connection is not None:
            query = query.where(INTENT.c.connection == connection)
        with self.database.reading() as opened:
            return [submission_of(row) for row in opened.execute(query).mappings()]

    def explain(self, ref: TaskRef | Task | str) -> Explanation:
        """Return why a watch is in its state.

        Raises:
            InvalidTaskId: The store does not have it.
        """
        name = str(_ref(ref))
        with self.database.reading() as opened:
            row = opened.execute(select(WATCH).where(WATCH.c.ref == name)).mappings().one_or_none()
            if row is None:
                raise InvalidTaskId(f"{printable(name, 80)} is not in the store; store.watch(ref) adds it")
            account = opened.execute(select(ACCOUNT).where(ACCOUNT.c.connection == row["connection"])).mappings().one()
            intent = opened.execute(select(INTENT).where(INTENT.c.ref == name)).mappings().first()
            events = opened.execute(
                select(EVENT.c.kind, EVENT.c.at).where(EVENT.c.ref == name).order_by(EVENT.c.position)
            )
            return Explanation(
                watch=watched_of(row),
                submission=None if intent is None else submission_of(intent),
                owner=account["owner"],
                problem=account["problem"],
                events=tuple((EventKind(kind), _moment(at)) for kind, at in events),
            )

    def events(
        self, consumer: str, *, connection: str | None = None, batch: int = 200, follow: bool = False
    ) -> Iterator[Event]:
        """Yield the events that a consumer has not acknowledged, in order per connection.

        Each event is delivered at least once: after a crash, those that were not acknowledged come again. Let one
        process at a time read as the same consumer. Consumers do not affect each other.

        Args:
            consumer: Name of the reader; its position is stored under this name.
            connection: Only events of this connection; None for all.
            batch: How many events are read from the database at a time.
            follow: Whether to wait for further events instead of ending.
        """
        consumer = check_key(consumer)
        positions: dict[str, int] = {}
        while True:
            count = 0
            for name in self._connections(connection):
                for event in self._batch(consumer, name, positions.get(name), batch):
                    positions[name] = event.position
                    count += 1
                    yield event
            if not count:
                if not follow:
                    return
                self.clock.sleep(_FOLLOW_PAUSE)

    # Deliveries, which a `Relay` makes.

    def undelivered(self, consumer: str | None = None, *, limit: int | None = None) -> list[Undelivered]:
        """Return events whose handler failed, and those that wait for one of them.

        Args:
            consumer: Only those of this consumer; None for all.
            limit: Maximum number; None for all.
        """
        with self.database.reading() as opened:
            return find_undelivered(opened, consumer, is_dead=None, limit=limit)

    def dead_letters(self, consumer: str | None = None, *, limit: int | None = None) -> list[Undelivered]:
        """Return events whose handler failed so often that it is not called any more; see `undelivered`."""
        with self.database.reading() as opened:
            return find_undelivered(opened, consumer, is_dead=True, limit=limit)

    def redeliver(self, consumer: str, key: str | None = None) -> int:
        """Try dead letters again at once, as often as new events; return how many.

        Args:
            consumer: Name of the consumer.
            key: `Event.key` of one event, which need not be a dead letter; None for all dead letters.

        Raises:
            StoreUnavailable: The database cannot be written.
        """
        with self.database.writing() as opened:
            return redeliver(opened, check_key(consumer), key, self.database.now())

    def discard(self, consumer: str, key: str) -> bool:
        """Never deliver an undelivered event; the later events of its task then follow.

        Args:
            consumer: Name of the consumer.
            key: `Event.key` of the event.

        Returns:
            False if it is not undelivered.

        Raises:
            StoreUnavailable: The database cannot be written.
        """
        with self.database.writing() as opened:
            return discard(opened, check_key(consumer), key)

    def _connections(self, only: str | None) -> list[str]:
        if only is not None:
            return [only]
        with self.database.reading() as opened:
            return list(opened.execute(select(ACCOUNT.c.connection).order_by(ACCOUNT.c.connection)).scalars())

    def _batch(self, consumer: str, connection: str, after: int | None, size: int) -> list[Event]:
        with self.database.reading() as opened:
            if after is None:
                stored = select(CURSOR.c.position).where(
                    CURSOR.c.consumer == consumer, CURSOR.c.connection == connection
                )
                after = opened.execute(stored).scalar() or 0
            query = select(EVENT).where(EVENT.c.connection == connection, EVENT.c.position > after)
            rows = opened.execute(query.order_by(EVENT.c.position).limit(size)).mappings().all()
        return [event_of(row, partial(self._acknowledge, consumer, row["connection"], row["position"])) for row in rows]

    def _acknowledge(self, consumer: str, connection: str, position: int) -> None:
        values = {"consumer": consumer, "connection": connection, "position": position}
        with self.database.writing() as opened:
            opened.execute(_cursor_statement(self.database.dialect), values)


def watched_of(row: RowMapping) -> Watched:
    """Return a row of the watches."""
    return Watched(
        ref=TaskRef(row["ref"]),
        state=State(row["state"]),
        task=None if row["snapshot"] is None else Task.from_dict(row["snapshot"]),
        error=row["error"],
        until=moment(row["until"]),
        meta=row["meta"],
        submitted_at=moment(row["submitted_at"]),
        created_at=_moment(row["created_at"]),
        updated_at=_moment(row["updated_at"]),
    )


def submission_of(row: RowMapping) -> StoredSubmission:
    """Return a row of the submissions."""
    return StoredSubmission(
        connection=row["connection"],
        key=row["key"],
        phase=Phase(row["phase"]),
        ref=None if row["ref"] is None else TaskRef(row["ref"]),
        error=row["error"],
        created_at=_moment(row["created_at"]),
        updated_at=_moment(row["updated_at"]),
    )


def _moment(at: float) -> datetime:
    found = moment(at)
    assert found is not None  # noqa: S101  # a time was given
    return found


def _seconds(what: str, given: datetime | None) -> float | None:
    if not isinstance(given, datetime | None):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
        raise InvalidInput(f"{what} must be a datetime with a time zone, not {type(given).__name__}")
    try:
        return seconds(what, given)
    except ValueError as error:
        problem = str(error)
    raise InvalidInput(problem)


def _storable(refs: Iterable[TaskRef]) -> list[str]:
    """Return those refs that can be watched, each once."""
    found = dict.fromkeys(str(ref) for ref in refs if len(ref) <= LONGEST_REF)
    return [ref for ref in found if ref.isprintable()]


def _ref(given: TaskRef | Task | str) -> TaskRef:
    ref = given.ref if isinstance(given, Task) else given
    ref = ref if isinstance(ref, TaskRef) else TaskRef(ref)
    if len(ref) > LONGEST_REF:
        raise InvalidTaskId(f"{printable(ref, 80)!r} is longer than {LONGEST_REF} characters")
    return ref


def _check_connection(name: str) -> str:
    if not _CONNECTION.fullmatch(name):
        raise ConfigError(f"{printable(name, 60)!r} cannot be the name of a connection")
    return name


def _member(kind: type[State | Phase], given: str) -> str:
    if given not in list(kind):
        raise InvalidInput(f"{printable(str(given), 40)!r} is none of {', '.join(kind)}")
    return given
