"""A store in a SQLite file: in WAL mode, on a local disk.

Everything is on disk when a transaction ends (``synchronous=FULL``). One transaction writes at a time.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL

from taskbridge._fork import prepare_for_fork
from taskbridge.errors import ConfigError, printable
from taskbridge.provider.clock import Clock
from taskbridge.store.database import REOPEN_WATCH, Database, OwnerLock, StoreUnavailable
from taskbridge.store.schema import EVENT, WATCH

_BUSY: Final = 30.0  # seconds that a transaction waits for another one
_BUSY_BRIEFLY: Final = 3.0  # seconds for one that its caller can do without
_BUSY_ALONE: Final = 0.5  # seconds for a process that is just ending, on a network drive
_MODE: Final = "taskbridge_begin"  # execution option: how a transaction begins
_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "vboxsf"}
)
_FUSE: Final = "fuse."  # most of these are network drives
_LOCAL_FUSE: Final = frozenset(
    {
        "fuse." + name
        for name in ("bindfs", "encfs", "exfat", "ext4", "fuse-overlayfs", "gocryptfs", "mergerfs", "ntfs-3g")
    }
)
_MOUNTS: Final = Path("/proc/self/mounts")
_CREATING: Final = threading.Lock()

# By hand, as in PostgreSQL: what SQLAlchemy does for each row takes as long as SQLite.
_CHANGE_WATCHES: Final = f"""
UPDATE {WATCH.name}
SET state = :state, seq = :seq, snapshot = coalesce(:snapshot, snapshot), error = :error,
    amount = coalesce(:amount, amount), unit = coalesce(:unit, unit), updated_at = :now
WHERE ref = :ref
"""  # noqa: S608  # constants
_ADD_WATCHES: Final = f"""
INSERT INTO {WATCH.name} (
    ref, connection, state, seq, error, until, meta, submitted_at, revision, created_at, updated_at
)
VALUES (:ref, :connection, :state, :seq, :error, :until, :meta, :submitted_at, :revision, :created_at, :updated_at)
{REOPEN_WATCH}
"""  # noqa: S608  # constants
_ADD_EVENTS: Final = f"""
INSERT INTO {EVENT.name} (connection, position, key, kind, ref, submission, body, at)
VALUES (:connection, :position, :key, :kind, :ref, :submission, :body, :at)
"""  # noqa: S608  # constants


class SqliteDatabase(Database):
    """A SQLite file; it is created if it does not exist.

    Args:
        path: The file.
        clock: The time.
        alone_on_network: Whether to open a file on a network drive for this process alone, instead of refusing it.

    Raises:
        ConfigError: It cannot be used.
    """

    def __init__(self, path: Path, clock: Clock, *, alone_on_network: bool = False) -> None:
        self._path = path
        name = printable(str(path), 300)
        try:
            refuse_network_file_system(path)
        except ConfigError:
            if not alone_on_network:
                raise
            self.is_alone = True
        problem = create_file(path)
        if problem:
            raise ConfigError(f"the store {name} cannot be opened: {problem}")
        # Alone, one connection keeps the lock of the file, and each thread waits for it.
        options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0} if self.is_alone else {}
        self._busy = _BUSY_ALONE if self.is_alone else _BUSY
        engine = create_engine(
            URL.create("sqlite", database=str(path)),
            connect_args={"timeout": self._busy},
            hide_parameters=True,
            **options,
        )
        super().__init__(name, engine, clock)
        self._writer = engine.execution_options(**{_MODE: "BEGIN IMMEDIATE"})
        prepare_for_fork(self, Database.close)
        event.listen(engine, "connect", _on_connect_alone if self.is_alone else _on_connect)
        event.listen(engine, "begin", _on_begin)
        self.prepare()

    def _begin_process(self) -> None:
        super()._begin_process()
        self._owners_turn = threading.Lock()

    def change_watches(self, opened: Connection, rows: list[dict[str, Any]], now: float) -> None:
        """Store new values of watches."""
        values = [
            row | {"snapshot": None if row["snapshot"] is None else json.dumps(row["snapshot"]), "now": now}
            for row in rows
        ]
        opened.exec_driver_sql(_CHANGE_WATCHES, values)

    def add_watches(self, opened: Connection, rows: list[dict[str, Any]]) -> None:
        """Store watches of different tasks; one that is known is opened again, unless its task has ended."""
        opened.exec_driver_sql(_ADD_WATCHES, [row | {"meta": json.dumps(row["meta"])} for row in rows])

    def add_events(self, opened: Connection, rows: list[dict[str, Any]]) -> None:
        """Store events, each with all its columns."""
        opened.exec_driver_sql(_ADD_EVENTS, [row | {"body": json.dumps(row["body"])} for row in rows])

    def owner_lock(self, connection: str) -> OwnerLock:
        """Return the lock of a connection's owner, not taken yet."""
        if self.is_alone:
            return _LockOfTheFile()
        return FileLock(self._lock_path(connection))

    def _lock_path(self, connection: str) -> Path:
        return self._path.with_name(f"{self._path.name}-owner-{connection}")

    def files(self, connections: Iterable[str]) -> Sequence[Path]:
        """Return the files that it consists of, with the locks of these connections."""
        main = [self._path, *map(self._lock_path, connections)]
        return [path.with_name(path.name + end) for path in main for end in ("", "-journal", "-wal", "-shm")]

    def now(self) -> float:
        """Return seconds since the epoch; all processes are on one machine."""
        return self._clock.now().timestamp()

    def read_clock(self, opened: Connection) -> None:
        """Do nothing: `now` is the clock of the machine."""

    def is_in_transaction(self, connection: Connection) -> bool:
        """Whether a transaction is open in the database, after a statement that writes."""
        raw: Any = connection.connection.dbapi_connection
        return bool(raw.in_transaction)

    @contextmanager
    def _reading(self, owner: OwnerLock | None) -> Generator[Connection]:
        del owner
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self, owner: OwnerLock | None) -> Generator[Connection]:
        with self._turn(owner), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _briefly(self) -> Generator[Connection]:
        with self._writer.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.execute(f"PRAGMA busy_timeout = {_BUSY_BRIEFLY * 1000:.0f}")
            try:
                with connection.begin():
                    yield connection
            finally:
                with suppress(sqlite3.Error):  # the pool has closed it
                    raw.execute(f"PRAGMA busy_timeout = {self._busy * 1000:.0f}")

    @contextmanager
    def _turn(self, owner: OwnerLock | None) -> Generator[None]:
        """Let the owners of many connections write one after the other: SQLite's own queue is slower, and not fair."""
        turn = self._owners_turn  # a forked child has another
        if owner is None:
            yield
        elif turn.acquire(timeout=_BUSY):
            try:
                yield
            finally:
                turn.release()
        else:
            raise StoreUnavailable(f"the store {self.name} cannot be used: another process uses it", retryable=True)

    @contextmanager
    def _migrating(self) -> Generator[Connection]:
        with self._writer.begin() as connection:
            yield connection


class FileLock:
    """The lock of a connection's owner: SQLite's own, on a file beside the store.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: sqlite3.Connection | None = None

    @property
    def is_held(self) -> bool:
        """Whether no other process can have it."""
        return self._lock is not None

    def take(self) -> bool:
        """Take it; False if another process holds it.

        Raises:
            StoreUnavailable: The file cannot be locked.
        """
        if self._lock is not None:
            return True
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
        """Let another process take it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(sqlite3.Error):
                lock.close()

    def remove(self) -> None:
        """Remove the file, before `release`; if two processes then own, the epoch stops the first."""
        if self._lock is not None:
            self._path.unlink(missing_ok=True)


class _LockOfTheFile:
    """The lock of an owner that has the whole database for itself: the database's own."""

    is_held = True

    def take(self) -> bool:
        return True

    def release(self) -> None:
        pass

    def remove(self) -> None:
        pass


def _on_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy begins transactions, see `_on_begin`
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_connect_alone(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    # Without WAL, whose index is shared memory. A journal that is truncated and flushed needs no flush of its folder.
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=TRUNCATE", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN EXCLUSIVE")  # the lock stays after the commit, until the connection is closed
    connection.execute("COMMIT")


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_MODE, "BEGIN"))


def create_file(path: Path) -> str:
    """Create a file, with access for its owner only, if it does not exist; return what prevents that.

    An existing file is not opened: closing it would end the locks that SQLite holds on it in this process.
    """
    try:
        with _CREATING:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return ""
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def refuse_network_file_system(path: Path, mounts: Iterable[str] | None = None) -> None:
    """Refuse a file on a network drive, where SQLite's locks do not hold.

    Args:
        path: The file.
        mounts: Lines of ``/proc/mounts``; None for those of this machine, where it has them.

    Raises:
        ConfigError: It is on such a drive.
    """
    if mounts is None:
        mounts = _MOUNTS.read_text(errors="surrogateescape").splitlines() if sys.platform == "linux" else ()
    folders = {str(each) for each in path.resolve().parents}
    longest, kind = "", ""
    for line in mounts:
        fields = line.split()
        if len(fields) > 2:  # device, folder, kind
            folder = fields[1].replace("\\040", " ")
            if folder in folders and len(folder) >= len(longest):
                longest, kind = folder, fields[2]
    if kind in _NETWORK or (kind.startswith(_FUSE) and kind not in _LOCAL_FUSE):
        raise ConfigError(
            f"the store {printable(str(path), 300)} is on a network drive ({kind}), where SQLite loses data; "
            "put it on a local disk"
        )
