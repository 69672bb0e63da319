"""A store in PostgreSQL, which processes on several machines share.

Ownership is an advisory lock of a database session. PostgreSQL ends that session, and with it the lock, when the
process ends, is stopped, or cannot be reached: after five seconds without a statement (``idle_session_timeout``).
See `LockSession`.
"""

from __future__ import annotations

import json
import selectors
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from math import inf
from time import monotonic
from typing import Any, Final, NoReturn, TypeVar

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import tuple_row
from psycopg.types.json import set_json_loads
from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DatabaseError, DisconnectionError, OperationalError

from taskbridge.errors import ConfigError, printable
from taskbridge.provider.clock import Clock, SystemClock
from taskbridge.store.database import REOPEN_WATCH, Database, OwnerLock, StoreUnavailable, problem_of
from taskbridge.store.schema import EVENT, WATCH

T = TypeVar("T")

_OLDEST: Final = 14  # the first with idle_session_timeout
_NAMESPACE: Final = 0x7461736B  # "task": the first number of each advisory lock; the keys of other programs differ
_MIGRATION: Final = 0  # the second number of the lock of a migration
_WRITING: Final = _NAMESPACE + 1  # the first number of a lock that only marks a transaction: it is shared
_CALLER: Final = 0  # its second number in the transaction of a caller; in that of an owner, the one of the owner's lock

_IDLE: Final = 5.0  # seconds without a statement after which PostgreSQL ends the session that holds the locks
_BEAT: Final = 1.5  # seconds between two statements of that session
_SURE: Final = 4.0  # seconds after such a statement in which the locks count as held; less than _IDLE
_RESPONSE: Final = _SURE - _BEAT  # seconds that a statement of that session may take

_IDLE_TIMEOUT: Final = "set_config('idle_session_timeout', '5s', false)"  # _IDLE
_LOCK_WAIT: Final = "30s"  # for a row that another transaction has locked
_OWNER_PAUSE: Final = "5s"  # between two statements of an owner's transaction, before PostgreSQL ends it
_CALLER_PAUSE: Final = "60s"  # the same for `Store.begin`, whose block may read large files
_STUCK: Final = 60.0  # seconds that a caller may need to send a statement, once a new owner waits for it
_ANSWER: Final = 60.0  # seconds without a byte after which a statement of a caller ends; longer than _LOCK_WAIT

_KEPT: Final = 10  # connections that stay open
_CALLERS: Final = 30  # connections that callers use at the same time; owners do not wait for one of these
_TURN: Final = 30.0  # seconds that a caller waits for one
_BRIEF: Final = 3.0  # seconds to wait for one, and for each answer, in a brief transaction or without a lock

_CONNECT: Final[dict[str, Any]] = {"connect_timeout": 5, "fallback_application_name": "taskbridge"}
_ALIVE: Final[dict[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
_ALIVE_LOCK: Final[dict[str, Any]] = {
    **_ALIVE,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "tcp_user_timeout": int(_SURE * 1000),
}

# Durable even where the administrator chose otherwise for the rest of the database: a recovery token that is lost would
# be sent twice.
_BEGIN_WRITING: Final = f"""
SELECT set_config('lock_timeout', '{_LOCK_WAIT}', true),
       set_config('idle_in_transaction_session_timeout', %s, true),
       set_config('synchronous_commit',
                  CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                  ELSE current_setting('synchronous_commit') END, true),
       pg_advisory_xact_lock_shared({_WRITING}, %s),
       extract(epoch FROM clock_timestamp())::float8
"""  # noqa: S608  # constants

# PostgreSQL ends a transaction whose process is stopped between two statements, and not one whose process is stopped
# between two messages of a statement: libpq sends the parameters, if they are long, apart from the order to execute it.
_END_WRITERS: Final = f"""
SELECT count(pg_terminate_backend(pid))
FROM pg_locks JOIN pg_stat_activity AS session USING (pid)
WHERE locktype = 'advisory' AND classid = {_WRITING} AND pid <> pg_backend_pid()
  AND datname = current_database() AND usename = current_user
  AND (objid::bigint = %(owner)s OR objid = {_CALLER} AND state = 'active' AND wait_event = 'ClientRead'
       AND state_change < clock_timestamp() - %(stuck)s * interval '1 s')
"""  # noqa: S608  # constants

# A document with all rows takes half the time of a row at a time.
_CHANGE_WATCHES: Final = f"""
UPDATE {WATCH.name} AS watch
SET state = row.state, seq = row.seq, snapshot = coalesce(row.snapshot, watch.snapshot), error = row.error,
    amount = coalesce(row.amount, watch.amount), unit = coalesce(row.unit, watch.unit),
    updated_at = %(now)s
FROM json_to_recordset(%(rows)s::json) AS row (
    ref text, state text, seq integer, snapshot json, amount float8, unit text, error text
)
WHERE watch.ref = row.ref
"""  # noqa: S608  # constants
_ADD_WATCHES: Final = f"""
INSERT INTO {WATCH.name} (
    ref, connection, state, seq, error, until, meta, submitted_at, revision, created_at, updated_at
)
SELECT * FROM json_to_recordset(%(rows)s::json) AS row (
    ref text, connection text, state text, seq integer, error text, until float8, meta json, submitted_at float8,
    revision bigint, created_at float8, updated_at float8
)
{REOPEN_WATCH}
"""  # noqa: S608  # constants
_ADD_EVENTS: Final = f"""
INSERT INTO {EVENT.name} (connection, position, key, kind, ref, submission, body, at)
SELECT * FROM json_to_recordset(%(rows)s::json) AS row (
    connection text, position bigint, key text, kind text, ref text, submission text, body json, at float8
)
"""  # noqa: S608  # constants
_CLOCK: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"
_SERVER: Final = "SELECT current_setting('server_version_num')::int / 10000, pg_is_in_recovery()"


def name_of(url: str) -> str:
    """Return a URL without user, password and options.

    Raises:
        ConfigError: libpq does not understand it.
    """
    return _name_of(_parse(url, "the URL"))


class PostgresDatabase(Database):
    """A PostgreSQL database.

    Args:
        url: ``postgresql://user@host/database``, with any parameter of libpq.
        lock_url: The same database for the session that holds the locks, where `url` leads to a connection pooler.
        clock: The time; the computer's own follows the clock of the database.

    Raises:
        ConfigError: It cannot be used.
        StoreUnavailable: It cannot be reached at present.
    """

    def __init__(self, url: str, lock_url: str | None, clock: Clock) -> None:
        parameters, direct = _parse(url, "the URL"), _parse(lock_url or url, "lock_url")
        self._conninfo = make_conninfo("", **{**_CONNECT, **_ALIVE, **parameters})
        self._lock_conninfo = make_conninfo("", **{**_CONNECT, **_ALIVE_LOCK, **direct})
        self._follows = isinstance(clock, SystemClock)
        self._base: float | None = None  # the time of the database when `clock.monotonic` was 0
        is_pooled = lock_url is not None

        def connect() -> psycopg.Connection[Any]:
            # The parameters of a prepared statement are one message: if this process is stopped while it sends long
            # ones, the session counts as idle, so that PostgreSQL ends it. See `end_writers` for the moment after it.
            # A pooler passes statements of one client to several sessions, of which each prepares its own.
            return BoundedConnection.connect(self._conninfo, prepare_threshold=None if is_pooled else 0)

        engine = create_engine(
            "postgresql+psycopg://", creator=connect, pool_size=_KEPT, max_overflow=-1, hide_parameters=True
        )
        event.listen(engine, "checkout", _on_checkout)
        super().__init__(_name_of(parameters), engine, clock)
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.session = LockSession(self.name, self._lock_conninfo, self._follow)
        """Holds the locks of this process; a forked child gets another one."""
        self._check(is_pooled=is_pooled)
        self.prepare()

    def _check(self, *, is_pooled: bool) -> None:
        version, is_standby, now, is_lock_pooled, problem = 0, False, 0.0, False, ""
        try:
            with BoundedConnection.connect(self._conninfo, autocommit=True) as opened:
                version, is_standby = opened.execute(_SERVER).fetchone() or (0, False)
                (now,) = opened.execute(_CLOCK).fetchone() or (0.0,)
            is_lock_pooled = version >= _OLDEST and is_behind_pooler(
                lambda: BoundedConnection.connect(self._lock_conninfo, autocommit=True, prepare_threshold=None)
            )
        except psycopg.Error as error:
            problem = problem_of(error)
        if problem:
            raise StoreUnavailable(f"the store {self.name} cannot be opened: {problem}", retryable=True)
        self._follow(now)
        if version < _OLDEST:
            raise ConfigError(f"the store {self.name} is PostgreSQL {version}; version {_OLDEST} or newer is needed")
        if is_standby:
            raise ConfigError(
                f"the store {self.name} is a standby, which cannot be written; name the primary, or all servers with "
                "target_session_attrs=read-write"
            )
        if is_lock_pooled:
            what = "lock_url" if is_pooled else "the URL"
            raise ConfigError(
                f"{what} of the store {self.name} leads to a connection pooler that gives each transaction another "
                "session (PgBouncer with pool_mode=transaction), which would lose the locks of owners; give a URL that "
                "leads directly to PostgreSQL as lock_url"
            )

    def _begin_process(self) -> None:
        super()._begin_process()
        self._turns = threading.BoundedSemaphore(_CALLERS)
        session = getattr(self, "session", None)  # not at the first call, from the constructor
        if session is not None:
            self._inherited.append(session)
            self.session = LockSession(self.name, self._lock_conninfo, self._follow)

    def change_watches(self, opened: Connection, rows: list[dict[str, Any]], now: float) -> None:
        """Store new values of watches, in one statement."""
        opened.exec_driver_sql(_CHANGE_WATCHES, {"rows": json.dumps(rows), "now": now})

    def add_watches(self, opened: Connection, rows: list[dict[str, Any]]) -> None:
        """Store watches of different tasks, in one statement; one that is known is opened again, or has ended."""
        opened.exec_driver_sql(_ADD_WATCHES, {"rows": json.dumps(rows)})

    def add_events(self, opened: Connection, rows: list[dict[str, Any]]) -> None:
        """Store events, each with all its columns, in one statement."""
        opened.exec_driver_sql(_ADD_EVENTS, {"rows": json.dumps(rows)})

    def owner_lock(self, connection: str) -> AdvisoryLock:
        """Return the lock of a connection's owner, not taken yet."""
        return AdvisoryLock(self, connection)

    def end_writers(self, opened: Connection, owner: OwnerLock) -> None:
        """End the transactions of owners before this one, and of callers that have stopped in a statement."""
        number = self._number(owner) % (1 << 32)  # it is unsigned there
        opened.exec_driver_sql(_END_WRITERS, {"owner": number, "stuck": _STUCK})

    def _number(self, owner: OwnerLock) -> int:
        return self.session.number(owner.connection) if isinstance(owner, AdvisoryLock) else _CALLER

    def now(self) -> float:
        """Return seconds since the epoch, by the clock of the database: those of machines may differ by minutes."""
        if not self._follows or self._base is None:
            return self._clock.now().timestamp()
        return self._base + self._clock.monotonic()

    def read_clock(self, opened: Connection) -> None:
        """Let `now` follow the clock of the database."""
        self._follow(opened.exec_driver_sql(_CLOCK).scalar_one())

    def _follow(self, now: float) -> None:
        self._base = now - self._clock.monotonic()

    def is_in_transaction(self, connection: Connection) -> bool:
        """Whether a transaction is open in the database, after a statement that writes."""
        raw: Any = connection.connection.dbapi_connection
        return bool(raw.info.transaction_status != pq.TransactionStatus.IDLE)

    @contextmanager
    def _reading(self, owner: OwnerLock | None) -> Generator[Connection]:
        with self._turn(owner), self._reader.connect() as connection:
            raw = _raw(connection)
            if owner is None or owner.is_held:
                raw.owner = owner
            else:  # it asks before it takes the lock, and has nothing to lose but time
                raw.answer = _BRIEF
            yield connection

    @contextmanager
    def _writing(self, owner: OwnerLock | None) -> Generator[Connection]:
        with self._turn(owner), self.engine.begin() as connection:
            _raw(connection).owner = owner
            pause = _CALLER_PAUSE if owner is None else _OWNER_PAUSE
            number = _CALLER if owner is None else self._number(owner)
            self._follow(connection.exec_driver_sql(_BEGIN_WRITING, (pause, number)).one()[-1])
            yield connection

    @contextmanager
    def _briefly(self) -> Generator[Connection]:
        with self._turn(None, _BRIEF), self.engine.begin() as connection:
            _raw(connection).answer = _BRIEF
            self._follow(connection.exec_driver_sql(_BEGIN_WRITING, (_OWNER_PAUSE, _CALLER)).one()[-1])
            yield connection

    @contextmanager
    def _turn(self, owner: OwnerLock | None, seconds: float = _TURN) -> Generator[None]:
        """Let only so many callers use connections at the same time."""
        turns = self._turns  # a forked child has others
        if owner is not None:
            yield
        elif turns.acquire(timeout=seconds):
            try:
                yield
            finally:
                turns.release()
        else:
            raise StoreUnavailable(
                f"the store {self.name} cannot be used: {_CALLERS} threads of this process use it, and none of them "
                f"ended in {seconds:.0f} s",
                retryable=True,
            )

    def _is_outage(self, error: DatabaseError) -> bool:
        """Whether the server has stopped, or the connection is lost; that it is PostgreSQL is known already."""
        return isinstance(error, OperationalError)

    @contextmanager
    def _migrating(self) -> Generator[Connection]:
        with self.engine.begin() as connection:
            _raw(connection).answer = inf  # a large table takes its time
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_NAMESPACE}, {_MIGRATION})")
            yield connection

    @contextmanager
    def joining(self, connection: object) -> Generator[Connection]:
        """Use the connection of a caller, in its transaction.

        Args:
            connection: Of SQLAlchemy or psycopg.

        Raises:
            ConfigError: It is neither, or it has no transaction.
            StoreUnavailable: The database refuses what is stored.
        """
        if not isinstance(connection, psycopg.Connection):
            with super().joining(connection) as joined:
                yield joined
            return
        raw: psycopg.Connection[Any] = connection  # pyright: ignore[reportUnknownVariableType]  # isinstance forgets its row
        if raw.autocommit and raw.info.transaction_status == pq.TransactionStatus.IDLE:
            raise ConfigError(
                "the connection is in autocommit mode, without a transaction; use `with connection.transaction():`"
            )
        # The store's own dialect: a new one would ask the server for its version, and then end the transaction.
        borrowed: Any = _Borrowed(raw)
        pool = NullPool(lambda: borrowed, dialect=self.engine.dialect, reset_on_return=None)
        with self.translating(), Engine(pool, self.engine.dialect, self.engine.url).connect() as joined:
            yield joined


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed when the database does not answer: psycopg waits without end for one that hangs.

    Attributes:
        owner: The lock of the owner that uses it; when it is lost or released, no answer is waited for.
        answer: Seconds to wait for an answer otherwise.
    """

    owner: OwnerLock | None = None
    answer: float = _ANSWER

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """Wait for what a generator of psycopg asks of the server.

        Raises:
            psycopg.OperationalError: There is no answer in time.
        """
        return super().wait(self._bounded(gen), *args, **options)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        last = monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    last = monotonic()
                elif self.owner is not None and not self.owner.is_held:
                    self._give_up("there was no answer while this process owned the connection")
                elif monotonic() - last > self.answer:
                    self._give_up("the database does not answer")
                wanted = gen.send(ready)
        except StopIteration as ended:
            result: T = ended.value
            return result

    def _give_up(self, problem: str) -> NoReturn:
        self.close()  # in the thread that waits, as its socket must not go away under it
        raise psycopg.OperationalError(problem)


def _raw(connection: Connection) -> BoundedConnection:
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, BoundedConnection)  # noqa: S101  # `connect` creates no other
    return raw


class _Borrowed:
    """A psycopg connection of a caller, as SQLAlchemy uses it: its transaction and its end are the caller's.

    Args:
        connection: The caller's.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self) -> psycopg.Cursor[Any]:
        """Return a cursor that returns what SQLAlchemy expects, whatever the caller chose for its own."""
        cursor = psycopg.Cursor(self._connection, row_factory=tuple_row)
        set_json_loads(json.loads, cursor)
        return cursor

    def commit(self) -> None:
        """Do nothing."""

    def rollback(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class AdvisoryLock:
    """The lock of a connection's owner, held by the session of this process.

    Attributes:
        database: The store's.
        connection: Name of the connection.
    """

    database: PostgresDatabase
    connection: str

    @property
    def is_held(self) -> bool:
        """Whether no other process can have it."""
        return self.database.session.is_held(self)

    def take(self) -> bool:
        """Take it; False if another process holds it.

        Raises:
            StoreUnavailable: The database does not answer.
        """
        return self.database.session.take(self)

    def release(self) -> None:
        """Let another process take it."""
        self.database.session.release(self)

    def remove(self) -> None:
        """Do nothing: it is no file."""


class LockSession:
    """The database session that holds the locks of this process; open while locks are held or competed for.

    A thread sends a statement every 1.5 seconds. PostgreSQL ends the session, and with it the locks, five seconds after
    the last one. Four seconds after the last one that was answered, this process counts its locks as lost: before
    another process can have them, and without an answer from the database.

    Args:
        name: The database, for people.
        conninfo: How to connect to it, not through a pooler.
        on_clock: Gets the time of the database at each statement, in seconds since the epoch.
    """

    def __init__(self, name: str, conninfo: str, on_clock: Callable[[float], None]) -> None:
        self._name = name
        self._conninfo = conninfo
        self._on_clock = on_clock
        self._mutex = threading.Lock()
        self._opened: psycopg.Connection[Any] | None = None
        self._backend = ""  # id of its process in the database
        self._schema = ""
        self._sure_until = 0.0  # by the monotonic clock of this machine, which continues while this process is stopped
        self._held: dict[str, AdvisoryLock] = {}
        self._users: set[AdvisoryLock] = set()
        self._stopping = threading.Event()
        self._failure = (0.0, "")  # when the last attempt failed, by the monotonic clock, and why

    def is_held(self, lock: AdvisoryLock) -> bool:
        """Whether no other process can have this lock."""
        return self._held.get(lock.connection) is lock and monotonic() < self._sure_until

    def take(self, lock: AdvisoryLock) -> bool:
        """Take a lock; False if another process, or another owner in this process, holds it.

        Raises:
            StoreUnavailable: The database does not answer.
        """
        problem, begun = "", monotonic()
        with self._mutex:
            self._users.add(lock)
            failed_at, problem = self._failure
            if self._opened is None and failed_at > begun:
                # It failed for another lock while this one waited: it would fail again, and many would wait for long.
                raise StoreUnavailable(f"the store {self._name} cannot be used: {problem}", retryable=True)
            try:
                opened = self._opened or self._open()
                holder = self._held.get(lock.connection)
                if holder is None and self._ask(opened, f"pg_try_advisory_lock({self._key(lock)})") == "t":
                    holder = self._held[lock.connection] = lock
            except psycopg.Error as error:
                problem = problem_of(error)
                self._failure = (monotonic(), problem)
                self._lose()
            else:
                return holder is lock
        raise StoreUnavailable(f"the store {self._name} cannot be used: {problem}", retryable=True)

    def release(self, lock: AdvisoryLock) -> None:
        """Let another process take a lock; the last one closes the session."""
        with self._mutex:
            self._users.discard(lock)
            is_holder = self._held.get(lock.connection) is lock
            if is_holder:
                del self._held[lock.connection]
            if not self._users:
                self._lose()
            elif is_holder and self._opened is not None:
                try:
                    self._ask(self._opened, f"pg_advisory_unlock({self._key(lock)})")
                except psycopg.Error:
                    self._lose()

    def _open(self) -> psycopg.Connection[Any]:
        opened = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        try:
            self._schema = self._ask(opened, "current_schema()", is_first=True)
            self._ask(opened, _IDLE_TIMEOUT)
        except BaseException:
            opened.close()
            raise
        self._opened, self._stopping = opened, threading.Event()
        threading.Thread(
            target=self._run, args=(opened, self._stopping), name="taskbridge-store-lock", daemon=True
        ).start()
        return opened

    def _run(self, opened: psycopg.Connection[Any], stopping: threading.Event) -> None:
        while not stopping.wait(_BEAT):
            with self._mutex:
                if self._opened is not opened:
                    return
                try:
                    self._ask(opened, "''")
                except psycopg.Error:
                    self._lose()
                    return

    def _lose(self) -> None:
        """Close the session; whatever was locked is not any more."""
        opened, self._opened = self._opened, None
        self._held.clear()
        self._sure_until = 0.0
        self._stopping.set()
        if opened is not None:
            with suppress(psycopg.Error):
                opened.close()

    def _ask(self, opened: psycopg.Connection[Any], expression: str, *, is_first: bool = False) -> str:
        """Return the value of an expression as text; the session is alive at the beginning of this call.

        Raises:
            psycopg.Error: There is no answer in time, or not from the same session.
        """
        begun = monotonic()
        statement = f"SELECT {expression}, pg_backend_pid(), extract(epoch FROM clock_timestamp())"  # noqa: S608
        value, backend, now = _query(opened.pgconn, statement, _RESPONSE)
        if is_first:
            self._backend = backend
        elif backend != self._backend:
            raise psycopg.OperationalError("a connection pooler has changed the session; give a direct URL as lock_url")
        self._sure_until = begun + _SURE
        self._on_clock(float(now))
        return value

    def _key(self, lock: AdvisoryLock) -> str:
        """Return the key of a lock as two numbers."""
        return f"{_NAMESPACE}, {self.number(lock.connection)}"

    def number(self, connection: str) -> int:
        """Return the second number of the key of a lock, not 0; known once a lock was taken.

        It is a hash of schema and connection. Of a hundred connections, two have the same in one of a million cases;
        then these two can be owned by the same process only, and by that both at a time.
        """
        digest = blake2b(f"{self._schema}\0{connection}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big", signed=True) or 1


def is_behind_pooler(connect: Callable[[], psycopg.Connection[Any]]) -> bool:
    """Whether connections share the sessions of the database, as behind PgBouncer in transaction mode.

    Args:
        connect: Opens a connection in autocommit mode.
    """
    with connect() as first, connect() as second:
        before = first.info.backend_pid, _backend(first)
        with second.transaction():  # keeps a session, which may be the one that the first has just used
            other = _backend(second)
            return other in before or _backend(first) != before[1]


def _backend(opened: psycopg.Connection[Any]) -> int:
    row = opened.execute("SELECT pg_backend_pid()").fetchone()
    return 0 if row is None else row[0]


def _query(pgconn: pq.abc.PGconn, statement: str, seconds: float) -> list[str]:
    """Execute a statement and return the first row, within a time: psycopg itself waits without end."""
    end = monotonic() + seconds
    pgconn.send_query(statement.encode())
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        while pgconn.flush() or pgconn.is_busy():
            if not selector.select(max(0.0, end - monotonic())) and monotonic() >= end:
                raise psycopg.OperationalError("the database does not answer")
            pgconn.consume_input()
    row: list[str] = []
    while (result := pgconn.get_result()) is not None:
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
        row = [(result.get_value(0, column) or b"").decode() for column in range(result.nfields)]
    return row


def _on_checkout(connection: Any, _record: object, _proxy: object) -> None:
    """Let the pool open another connection if the server has closed this one, as after a restart."""
    connection.owner, connection.answer = None, _ANSWER
    try:
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()  # the first may have read the server's farewell
        is_closed = connection.closed
    except psycopg.Error:
        is_closed = True
    if is_closed:
        raise DisconnectionError


def _parse(url: str, what: str) -> dict[str, Any]:
    """Return the parameters of a URL.

    Raises:
        ConfigError: libpq does not understand it.
    """
    scheme, _, rest = url.partition("://")
    problem = ""
    if scheme not in ("postgresql", "postgresql+psycopg", "postgres"):
        problem = "it must begin with postgresql://"
    else:
        problem = "write postgresql://user:password@host:port/database, with percent escapes in the password"
        try:
            parameters = conninfo_to_dict(f"postgresql://{rest}")
        except psycopg.Error:  # its text may repeat the password
            pass
        else:
            # Of a password with @ or / in it, libpq takes a part for something else, which messages would show.
            hosts, database = (str(parameters.get(name) or "") for name in ("host", "dbname"))
            ports = str(parameters.get("port") or "")
            if "@" not in hosts + database and ports.replace(",", "").isdigit() >= bool(ports):
                return parameters
    raise ConfigError(f"{what} of the store is not valid: {problem}")


def _name_of(parameters: dict[str, Any]) -> str:
    """Return the URL without user, password and options."""
    hosts = str(parameters.get("host") or parameters.get("hostaddr") or parameters.get("service") or "localhost")
    ports = str(parameters.get("port") or "")
    database = parameters.get("dbname") or parameters.get("user") or ""
    return printable(f"postgresql://{hosts}{f':{ports}' if ports else ''}/{database}", 300)
