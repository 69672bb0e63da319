"""The database behind a store: what SQLite and PostgreSQL have in common."""

from __future__ import annotations

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from sqlalchemy import Connection, Engine, Table, inspect, text
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from taskbridge._fork import renew_after_fork
from taskbridge.errors import ConfigError, TaskbridgeError, printable
from taskbridge.provider.clock import Clock
from taskbridge.store.schema import HEAD, METADATA, PREFIX, VERSION_TABLE, WATCH, State

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

    Insert: TypeAlias = sqlite.Insert | postgresql.Insert

_VERSION_COLUMN: Final = f"version_num VARCHAR(32) NOT NULL, CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)"


_REOPENED: Final = ("meta", "until", "state", "error", "revision", "updated_at")
REOPEN_WATCH: Final = (
    f"ON CONFLICT (ref) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _REOPENED)} "
    f"WHERE {WATCH.name}.state <> '{State.ENDED}'"
)
"""The end of a statement that adds watches."""


class StoreUnavailable(TaskbridgeError):
    """The database cannot be read or written at present; nothing that was not stored before is stored now."""


class OwnerLock(Protocol):
    """The lock of the database that one process at a time holds for a connection, and that ends with the process."""

    @property
    def is_held(self) -> bool:
        """Whether no other process can have it; answers at once, without asking the database."""
        ...

    def take(self) -> bool:
        """Take it; False if another process holds it.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        ...

    def release(self) -> None:
        """Let another process take it."""
        ...

    def remove(self) -> None:
        """Remove what `take` has created beside the store, before `release`."""
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the row of an account was, when this process saw it last; each number only grows.

    Attributes:
        epoch: Of its owner.
        revision: Of what callers asked for.
        position: Of its last event.
    """

    epoch: int = 0
    revision: int = 0
    position: int = 0


class Database(ABC):
    """An open database.

    Args:
        name: The database, for people; without a password.
        engine: Its connections.
        clock: The time.
    """

    is_alone = False
    """Whether no other process can open it."""

    def __init__(self, name: str, engine: Engine, clock: Clock) -> None:
        self.name = name
        self.engine = engine
        self.dialect: str = engine.dialect.name
        self._clock = clock
        self._marks: dict[str, Mark] = {}
        self._marking = threading.Lock()
        self._inherited: list[object] = []
        renew_after_fork(self, type(self)._begin_process)  # noqa: SLF001  # that of a subclass

    def close(self) -> None:
        """Close the kept connections."""
        self.engine.dispose()

    def _begin_process(self) -> None:
        """Begin without connections: those of the parent process must be neither used nor closed in its child."""
        self._marking = threading.Lock()
        self._inherited.append(self.engine.pool)
        self.engine.dispose(close=False)

    def insert(self, table: Table) -> Insert:
        """Return an INSERT that can have ``ON CONFLICT``."""
        return insert_into(self.dialect, table)

    # What differs.

    @abstractmethod
    def change_watches(self, opened: Connection, rows: list[dict[str, Any]], now: float) -> None:
        """Store new values of watches.

        Args:
            opened: A transaction.
            rows: Their ref, state, seq, error, snapshot, amount and unit; of the last three, None keeps the last one.
            now: Seconds since the epoch.
        """

    @abstractmethod
    def add_watches(self, opened: Connection, rows: list[dict[str, Any]]) -> None:
        """Store watches of different tasks; one that is known is opened again, unless its task has ended."""

    @abstractmethod
    def add_events(self, opened: Connection, rows: list[dict[str, Any]]) -> None:
        """Store events, each with all its columns."""

    @abstractmethod
    def owner_lock(self, connection: str) -> OwnerLock:
        """Return the lock of a connection's owner, not taken yet."""

    def end_writers(self, opened: Connection, owner: OwnerLock) -> None:  # noqa: B027  # only a subclass has others
        """End what still holds rows that a new owner needs: transactions of owners before it, whose process is stopped.

        Args:
            opened: A transaction of the new owner.
            owner: Its lock, which it holds.
        """

    def files(self, connections: Iterable[str]) -> Sequence[Path]:  # noqa: ARG002  # for a subclass
        """Return the files that it consists of, if it has some of its own, with the locks of these connections."""
        return ()

    @abstractmethod
    def now(self) -> float:
        """Return seconds since the epoch, by the one clock of all processes that use this database."""

    @abstractmethod
    def read_clock(self, opened: Connection) -> None:
        """Let `now` follow the clock of the database."""

    @abstractmethod
    def _reading(self, owner: OwnerLock | None) -> AbstractContextManager[Connection]:
        """Open a connection to read."""

    @abstractmethod
    def _writing(self, owner: OwnerLock | None) -> AbstractContextManager[Connection]:
        """Open a transaction to write."""

    @abstractmethod
    def _briefly(self) -> AbstractContextManager[Connection]:
        """Open a transaction to write that ends after a few seconds."""

    @abstractmethod
    def _migrating(self) -> AbstractContextManager[Connection]:
        """Open a transaction that changes the tables, of which there is one at a time."""

    def _is_outage(self, error: DatabaseError) -> bool:  # noqa: ARG002  # for a subclass
        """Whether an error at the start says that the database is away, and not that it is the wrong one."""
        return False

    # Transactions.

    @contextmanager
    def reading(self, owner: OwnerLock | None = None) -> Generator[Connection]:
        """Read; in PostgreSQL, each statement sees what was committed when it began.

        Args:
            owner: The lock of the owner that reads; when it is lost or released, a statement of PostgreSQL ends.

        Raises:
            StoreUnavailable: It cannot be read.
        """
        with self.translating(), self._reading(owner) as connection:
            yield connection

    @contextmanager
    def writing(self, owner: OwnerLock | None = None) -> Generator[Connection]:
        """Write in a transaction; it is on disk when the block ends.

        Args:
            owner: The lock of the owner that writes, as for `reading`. The block must hold up nothing but the database,
                which ends the transaction of a process that is stopped in it after seconds, so that the next owner does
                not wait for its locks.

        Raises:
            StoreUnavailable: It cannot be written.
        """
        with self.translating(), self._writing(owner) as connection:
            yield connection

    @contextmanager
    def brief(self) -> Generator[Connection]:
        """Write in a transaction for which its caller waits a few seconds at most, because it can do without.

        Raises:
            StoreUnavailable: It cannot be written, or not that soon.
        """
        with self.translating(), self._briefly() as connection:
            yield connection

    @contextmanager
    def translating(self) -> Generator[None]:
        """Turn the errors of the database into `StoreUnavailable`.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        try:
            yield
        except SQLAlchemyError as error:
            problem = problem_of(error)
        else:
            return
        raise StoreUnavailable(f"the store {self.name} cannot be used: {problem}", retryable=True) from None

    @abstractmethod
    def is_in_transaction(self, connection: Connection) -> bool:
        """Whether a transaction is open in the database, after a statement that writes."""

    @contextmanager
    def joining(self, connection: object) -> Generator[Connection]:
        """Use the connection of a caller, in its transaction.

        Args:
            connection: Of SQLAlchemy.

        Raises:
            ConfigError: It is not, or of another database.
        """
        if not isinstance(connection, Connection):
            raise ConfigError(
                f"begin() takes a connection of SQLAlchemy, or of psycopg where the store is in PostgreSQL, not "
                f"{type(connection).__name__}"
            )
        if connection.dialect.name != self.dialect:
            raise ConfigError(f"the connection is of {connection.dialect.name}, and the store of {self.dialect}")
        yield connection

    # A database that lost what it had.

    def note(self, connection: str, *, epoch: int = 0, revision: int = 0, position: int = 0) -> None:
        """Remember how far an account's row is; only what was committed."""
        with self._marking:
            known = self._marks.get(connection, Mark())
            self._marks[connection] = Mark(
                max(known.epoch, epoch), max(known.revision, revision), max(known.position, position)
            )

    def refuse_older(self, connection: str, epoch: int, revision: int, position: int) -> None:
        """Refuse a row of an account that is older than this process has seen it.

        Args:
            connection: Name of the connection.
            epoch: Of the takeover that is about to be stored; higher than any before.
            revision: Of what callers asked for.
            position: Of the last event.

        Raises:
            StoreUnavailable: It is: a standby without the last changes took over, or a backup was restored.
        """
        known = self._marks.get(connection)
        if known is None or (epoch > known.epoch and revision >= known.revision and position >= known.position):
            return
        raise StoreUnavailable(
            f"the store {self.name} lacks changes to {printable(connection, 100)!r} that this process has seen "
            f"(takeover {epoch - 1}, change {revision}, event {position}; it was {known.epoch}, {known.revision}, "
            f"{known.position}): a standby without them took over, or a backup was restored. Nothing is sent or "
            "polled. Check what the vendor has of the submissions that are planned, then call Store.adopt",
            retryable=True,
        )

    # The tables.

    def prepare(self) -> None:
        """Check the version of the tables; create or migrate them.

        Raises:
            ConfigError: They cannot be used.
            StoreUnavailable: The database cannot be reached at present.
        """
        problem, is_outage = "", False
        try:
            self._prepare()
        except DatabaseError as error:
            problem, is_outage = problem_of(error), self._is_outage(error)
            self.close()
        except BaseException:
            self.close()
            raise
        if is_outage:
            raise StoreUnavailable(f"the store {self.name} cannot be opened: {problem}", retryable=True)
        if problem:
            raise ConfigError(f"{self.name} cannot be used as a store: {problem}; name another database")

    def _prepare(self) -> None:
        with self.engine.connect() as connection:
            version = _version(connection)
        if version == HEAD:
            return
        with self._migrating() as connection:
            version = _version(connection)  # another process may have been faster
            if version != HEAD:
                self._migrate(connection, version)

    def _migrate(self, connection: Connection, version: str | None) -> None:
        if version is None:
            if any(name.startswith(PREFIX) for name in inspect(connection).get_table_names()):
                raise ConfigError(f"the store {self.name} is damaged: its tables have no revision; restore a backup")
            METADATA.create_all(connection, checkfirst=False)  # the same as all migrations, ten times as fast
            connection.execute(text(f"CREATE TABLE {VERSION_TABLE} ({_VERSION_COLUMN})"))
            connection.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')"))  # noqa: S608  # constants
            return
        if version not in upgrade_tables(connection, version):
            raise ConfigError(
                f"the store {self.name} was written by a newer taskbridge (tables of revision "
                f"{printable(version, 40)}, this one knows {HEAD}); upgrade taskbridge here"
            )


def upgrade_tables(connection: Connection, version: str | None) -> Sequence[str]:
    """Apply the migrations that a database lacks, if its revision is known; return the known revisions.

    Args:
        connection: A transaction.
        version: Its revision; None for a database without tables of ours.
    """
    from alembic import command  # noqa: PLC0415  # slow to import, and needed once per database
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    known = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
    if version is None or version in known:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return known


def insert_into(dialect: str, table: Table) -> Insert:
    """Return an INSERT that can have ``ON CONFLICT``, for ``postgresql`` or ``sqlite``."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415  # slow to import, with all its drivers

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite  # noqa: PLC0415  # as above

    return sqlite.insert(table)


_PROBLEM: Final = 200  # characters


def problem_of(error: Exception) -> str:
    """Return what the database says, in a line and without the values of a row."""
    cause: Any = getattr(error, "orig", None) or error
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
        return "another process uses it"
    diagnosis = getattr(cause, "diag", None)  # of PostgreSQL
    return printable(" ".join(str(getattr(diagnosis, "message_primary", None) or cause).split()), _PROBLEM)


def _version(connection: Connection) -> str | None:
    """Return the revision of the tables; None if there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608  # a constant
