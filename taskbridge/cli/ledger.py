"""The ledger of a run: what became of each file, in a small SQLite file that survives whatever ends the process.

    planned ──► sending ──► taken ──► done
                   │           └────► failed
                   └──► planned, where the vendor surely does not have it

An order leaves only after its row says ``sending`` and holds the clue by which the order is found again. Each change is
a transaction of its own that is on the disk when the call returns (``synchronous=FULL``; the journal is truncated and
flushed, which needs no flush of the folder). One process has the ledger at a time; the lock ends with the process.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from taskbridge.errors import ConfigError, printable

__all__ = ["Entry", "Ledger", "LedgerError", "Phase", "Print", "Terms"]

_APPLICATION: Final = 0x7461736B  # "task", in the header of the file
_VERSION: Final = 1
_PATIENCE: Final = 0.5  # seconds for a process that is just leaving

_TABLES: Final = """
CREATE TABLE run (
    connection TEXT NOT NULL, provider TEXT NOT NULL, operation TEXT NOT NULL, options TEXT NOT NULL
);
CREATE TABLE entry (
    number INTEGER PRIMARY KEY,
    source BLOB NOT NULL UNIQUE,
    folder TEXT NOT NULL UNIQUE,
    phase TEXT NOT NULL,
    size INTEGER, changed INTEGER, digest TEXT,
    clue TEXT,
    ref TEXT,
    fault TEXT
);
"""


class LedgerError(OSError):
    """The ledger cannot be written, so nothing more may be sent."""


class Phase(StrEnum):
    """How far a file has come."""

    PLANNED = "planned"
    """The vendor does not have it."""
    SENDING = "sending"
    """The vendor may have it."""
    TAKEN = "taken"
    """The vendor has it."""
    DONE = "done"
    """Its results are here."""
    FAILED = "failed"
    """The vendor finished it badly."""


@dataclass(frozen=True, slots=True)
class Print:
    """By what a file is known again.

    Attributes:
        size: Bytes.
        changed: Time of its last change, in nanoseconds since the epoch.
        digest: SHA-256 of its bytes.
    """

    size: int
    changed: int
    digest: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What all files of a run have in common.

    Attributes:
        connection: Name of the connection.
        provider: Entry-point name of its provider.
        operation: As it was asked for.
        options: The vendor's own options.
    """

    connection: str
    provider: str
    operation: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a run.

    Attributes:
        number: Its place, from 1.
        source: An absolute path, or a URL.
        folder: Name of the folder that its results go to.
        phase: How far it has come.
        seen: What the file was when it was sent; None for a URL, and before.
        clue: What finds its order again.
        ref: Its task, once there is one.
        fault: What went wrong last, in words.
    """

    number: int
    source: str
    folder: str
    phase: Phase = Phase.PLANNED
    seen: Print | None = None
    recovery_token: Mapping[str, Any] | None = None
    ref: str | None = None
    fault: str | None = None


class Ledger:
    """An open ledger; made by `open`. May be used from many threads.

    Args:
        path: Where it is.
        database: The open database.
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self._database = database
        self._mutex = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a ledger, and keep everybody else out of it; a new one is empty, and its owner's alone.

        Raises:
            ConfigError: The file is none, is of a newer taskbridge, or is in use.
            OSError: It cannot be made.
        """
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        fault = ""
        database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute("PRAGMA journal_mode=TRUNCATE")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("BEGIN EXCLUSIVE")  # kept after the commit, until the process ends
            fault = _unfit(database)
            database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            fault = "is in use by another run" if error.sqlite_errorcode == sqlite3.SQLITE_BUSY else _words(error)
        except sqlite3.Error as error:
            fault = f"is no ledger of a run ({_words(error)})"
        if fault:
            database.close()
            raise ConfigError(f"{printable(str(path), 300)} {fault}; name another file with --ledger")
        return cls(path, database)

    def close(self) -> None:
        """Give the file free."""
        with self._mutex, suppress(sqlite3.Error):
            self._database.execute("PRAGMA journal_mode=DELETE")  # or an empty journal stays beside it
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading.

    def terms(self) -> Terms | None:
        """What the files have in common; None in a new ledger."""
        row = self._do(lambda database: database.execute("SELECT * FROM run").fetchone())
        return None if row is None else Terms(row[0], row[1], row[2], json.loads(row[3]))

    def entries(self) -> list[Entry]:
        """All files, in their order."""
        columns = "number, source, folder, phase, size, changed, digest, clue, ref, fault"
        rows = self._do(lambda database: database.execute(f"SELECT {columns} FROM entry ORDER BY number").fetchall())  # noqa: S608  # a list of our own
        return [_entry(row) for row in rows]

    # Writing; each is on the disk when it returns.

    def begin(self, terms: Terms, more: Iterable[Entry]) -> None:
        """Write down what is to be done, and more files; all of it or nothing."""

        def write(database: sqlite3.Connection) -> None:
            database.execute("BEGIN")
            try:
                if database.execute("SELECT count(*) FROM run").fetchone() == (0,):
                    common = (terms.connection, terms.provider, terms.operation, json.dumps(dict(terms.options)))
                    database.execute("INSERT INTO run VALUES (?, ?, ?, ?)", common)
                rows = [(each.number, os.fsencode(each.source), each.folder, each.phase) for each in more]
                database.executemany("INSERT INTO entry (number, source, folder, phase) VALUES (?, ?, ?, ?)", rows)
            except BaseException:
                if database.in_transaction:  # a full disk has ended it
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

        self._do(write)

    def sending(self, number: int, recovery_token: Mapping[str, Any], seen: Print | None) -> None:
        """The order of a file is about to leave."""
        size, changed, digest = (None, None, None) if seen is None else (seen.size, seen.changed, seen.digest)
        known = {"size": size, "changed": changed, "digest": digest, "recovery_token": json.dumps(dict(recovery_token))}
        self._set(number, phase=Phase.SENDING, ref=None, fault=None, **known)

    def taken(self, number: int, ref: str) -> None:
        """The vendor has made a task of it."""
        self._set(number, phase=Phase.TAKEN, ref=ref, fault=None)

    def planned(self, number: int, fault: str | None) -> None:
        """The vendor does not have it."""
        self._set(number, phase=Phase.PLANNED, recovery_token=None, ref=None, fault=_storable(fault))

    def ended(self, number: int, phase: Phase, fault: str | None = None) -> None:
        """It is done, or it failed."""
        self._set(number, phase=phase, fault=_storable(fault))

    def noted(self, number: int, fault: str) -> None:
        """Something went wrong, and changes nothing."""
        self._set(number, fault=_storable(fault))

    def _set(self, number: int, **values: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        row = (*values.values(), number)
        self._do(lambda database: database.execute(f"UPDATE entry SET {names} WHERE number = ?", row))  # noqa: S608  # names of our own

    def _do(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        fault = ""
        with self._mutex:
            try:
                return work(self._database)
            except sqlite3.Error as error:
                fault = _words(error)
        raise LedgerError(f"the ledger {printable(str(self.path), 300)} cannot be used: {fault}; nothing more was sent")


def _unfit(database: sqlite3.Connection) -> str:
    """Why a file cannot be a ledger; an empty one becomes one."""
    application, version = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application == _APPLICATION:
        return "" if version == _VERSION else f"is of another taskbridge (version {version} of ledgers)"
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
        return "is a database of somebody else's"
    for statement in filter(str.strip, _TABLES.split(";")):
        database.execute(statement)
    database.execute(f"PRAGMA application_id={_APPLICATION}")
    database.execute(f"PRAGMA user_version={_VERSION}")
    return ""


def _entry(row: tuple[Any, ...]) -> Entry:
    number, source, folder, phase, size, changed, digest, recovery_token, ref, fault = row
    seen = None if digest is None else Print(size, changed, digest)
    found = None if recovery_token is None else json.loads(recovery_token)
    return Entry(number, os.fsdecode(source), folder, Phase(phase), seen, found, ref, fault)


def _words(error: sqlite3.Error) -> str:
    return printable(str(error), 200)


def _storable(text: str | None) -> str | None:
    return None if text is None else printable(text, 2000)
