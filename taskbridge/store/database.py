"""The database behind a store: opened, checked, migrated, and its transactions.

SQLite in a file, in WAL mode, on a local disk. Everything is on disk when a transaction ends (``synchronous=FULL``).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError

from taskbridge._fork import prepare_for_fork, renew_after_fork
from taskbridge.errors import ConfigError, TaskbridgeError, printable
from taskbridge.store.schema import HEAD, PREFIX, VERSION_TABLE

_BUSY: Final = 30.0  # seconds that a transaction waits for another one
_MODE: Final = "taskbridge_begin"  # execution option: how a transaction begins
_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre"})
_FUSE: Final = "fuse.sshfs"
_MOUNTS: Final = Path("/proc/self/mounts")
_CREATING: Final = threading.Lock()


class StoreUnavailable(TaskbridgeError):
    """The database cannot be read or written at present; nothing that was not stored before is stored now."""


class Database:
    """An open database.

    Args:
        url: A path of a SQLite file, or a URL such as ``sqlite:////var/lib/taskbridge.db``.

    Raises:
        ConfigError: It cannot be used.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.path = _path_of(url)
        self.name = printable(str(self.path), 300)
        refuse_network_file_system(self.path)
        problem = create_file(self.path)
        if problem:
            raise ConfigError(f"the store {self.name} cannot be opened: {problem}")
        self.engine: Engine = create_engine(
            URL.create("sqlite", database=str(self.path)), connect_args={"timeout": _BUSY}
        )
        self._inherited: list[object] = []
        prepare_for_fork(self, Database.close)
        renew_after_fork(self, Database._begin_process)
        event.listen(self.engine, "connect", _on_connect)
        event.listen(self.engine, "begin", _on_begin)
        problem = ""
        try:
            self._prepare()
        except DatabaseError as error:
            problem = printable(str(error.orig), 200)
            self.close()
        except BaseException:
            self.close()
            raise
        if problem:
            raise ConfigError(f"{self.name} cannot be used as a store: {problem}; name another file")

    def close(self) -> None:
        """Close the kept connections."""
        self.engine.dispose()

    def _begin_process(self) -> None:
        """Begin without connections: SQLite's must be neither used nor closed in a child of their process."""
        self._inherited.append(self.engine.pool)
        self.engine.dispose(close=False)

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Read in a transaction."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Write in a transaction, of which there is one at a time; it is on disk when the block ends.

        Raises:
            StoreUnavailable: It cannot be written.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Generator[Connection]:
        try:
            with self.engine.connect().execution_options(**{_MODE: begin}) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            problem = printable(str(getattr(error, "orig", None) or error), 200)
        else:
            return
        raise StoreUnavailable(f"the store {self.name} cannot be used: {problem}", retryable=True)

    def _prepare(self) -> None:
        """Check the version of the tables; create or migrate them."""
        with self.engine.connect() as connection:
            version = _version(connection)
        if version == HEAD:
            return
        with self.engine.connect().execution_options(**{_MODE: "BEGIN IMMEDIATE"}) as connection, connection.begin():
            version = _version(connection)  # another process may have been faster
            if version != HEAD:
                self._migrate(connection, version)

    def _migrate(self, connection: Connection, version: str | None) -> None:
        from alembic import command  # noqa: PLC0415  # slow to import, and needed once per file
        from alembic.config import Config  # noqa: PLC0415
        from alembic.script import ScriptDirectory  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
        known = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
        if version is not None and version not in known:
            raise ConfigError(
                f"the store {self.name} was written by a newer taskbridge (tables of revision "
                f"{printable(version, 40)}, this one knows {HEAD}); upgrade taskbridge here"
            )
        if version is None and any(name.startswith(PREFIX) for name in inspect(connection).get_table_names()):
            raise ConfigError(f"the store {self.name} is damaged: its tables have no revision; restore a backup")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _version(connection: Connection) -> str | None:
    """Return the revision of the tables; None if there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608  # a constant


def _on_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy begins transactions, see `_on_begin`
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_MODE, "BEGIN"))


def _path_of(url: str | os.PathLike[str]) -> Path:
    """Return the absolute path of the file that a store is in.

    Raises:
        ConfigError: It is not in a file.
    """
    if isinstance(url, str) and "://" in url:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise ConfigError("a store is a path, or a URL such as sqlite:////var/lib/taskbridge.db") from None
        if parsed.get_backend_name() != "sqlite":
            raise ConfigError(f"a store is a SQLite file; {printable(parsed.get_backend_name(), 40)} is not supported")
        name = parsed.database or ""
    else:
        name = os.fspath(url)
    if name in ("", ":memory:"):
        raise ConfigError("a store is a file: in memory, it would not survive the process")
    return Path(name).absolute()


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
    if kind in _NETWORK or kind == _FUSE:
        raise ConfigError(
            f"the store {printable(str(path), 300)} is on a network drive ({kind}), where SQLite loses data; "
            "put it on a local disk"
        )
