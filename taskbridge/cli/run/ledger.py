"""The ledger of a run: the state of each file, in a small SQLite file that survives however the process ends.

    planned ──► submitting ──► accepted ──► done
                   │              └───────► failed
                   └──► planned, if the vendor certainly does not have it

A submission is sent only after its row says ``submitting`` and holds its recovery token. Each change is a transaction
of its own that is on disk when the call returns (``synchronous=FULL``; the journal is truncated and flushed, so the
folder needs no flush). One process has the ledger at a time; the lock ends with the process.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

from taskbridge._engine.inputs import is_url
from taskbridge.errors import ConfigError, printable
from taskbridge.models import TaskRef, Usage, UsageUnit

_APPLICATION: Final = 0x7461736B  # "task", in the header of the file
_VERSION: Final = 3
_BUSY_TIMEOUT: Final = 0.5  # seconds for a process that is just ending

_TABLES: Final = """
CREATE TABLE run (
    connection TEXT NOT NULL, provider TEXT NOT NULL, operation TEXT NOT NULL, options TEXT NOT NULL,
    neutral TEXT NOT NULL
);
CREATE TABLE entry (
    number INTEGER PRIMARY KEY,
    source BLOB NOT NULL UNIQUE,
    folder TEXT NOT NULL UNIQUE,
    phase TEXT NOT NULL,
    size INTEGER, modified_ns INTEGER, digest TEXT,
    recovery_token TEXT,
    ref TEXT,
    error TEXT,
    amount NUMERIC, unit TEXT
);
"""


T = TypeVar("T")


class LedgerError(OSError):
    """The ledger cannot be written, so nothing more may be submitted."""


class Phase(StrEnum):
    """How far a file is."""

    PLANNED = "planned"
    """The vendor does not have it."""
    SUBMITTING = "submitting"
    """The vendor may have it."""
    ACCEPTED = "accepted"
    """The vendor has it."""
    DONE = "done"
    """Its results are downloaded."""
    FAILED = "failed"
    """Its task failed."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identifies the content of a file.

    Attributes:
        size: Bytes.
        modified_ns: Time of the last change, in nanoseconds since the epoch.
        digest: SHA-256 of the content.
    """

    size: int
    modified_ns: int
    digest: str


@dataclass(frozen=True, slots=True)
class RunTerms:
    """What all files of a run have in common.

    Attributes:
        connection: Name of the connection.
        provider: Entry-point name of its provider.
        operation: As given on the command line.
        options: The vendor's own options.
        neutral: Neutral options.
    """

    connection: str
    provider: str
    operation: str
    options: Mapping[str, Any]
    neutral: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One file of a run.

    Attributes:
        number: Its position, from 1.
        source: An absolute path, or a URL.
        folder: Name of the folder for its results.
        phase: How far it is.
        submitted: Fingerprint of the file when it was submitted; None for a URL, and before.
        recovery_token: Finds its submission again.
        ref: Its task, once it has one.
        error: The last error.
        usage: What its task cost so far, as far as the vendor says.
    """

    number: int
    source: str
    folder: str
    phase: Phase = Phase.PLANNED
    submitted: Fingerprint | None = None
    recovery_token: Mapping[str, Any] | None = None
    ref: str | None = None
    error: str | None = None
    usage: Usage | None = None


class Ledger:
    """An open ledger; created by `open`. Thread-safe."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self._database = database
        self._mutex = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a ledger and lock it; a new one is empty, with access for its owner only.

        Raises:
            ConfigError: The file is not a ledger, has another version, or is in use.
            OSError: It cannot be created.
        """
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        problem = ""
        database = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute("PRAGMA journal_mode=TRUNCATE")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("BEGIN EXCLUSIVE")  # the lock stays after the commit, until the process ends
            problem = _prepare(database)
            database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            problem = "is in use by another run" if error.sqlite_errorcode == sqlite3.SQLITE_BUSY else _text(error)
        except sqlite3.Error as error:
            problem = f"is not the ledger of a run ({_text(error)})"
        if problem:
            database.close()
            raise ConfigError(f"{printable(str(path), 300)} {problem}; name another file with --ledger")
        return cls(path, database)

    def close(self) -> None:
        """Release the file."""
        with self._mutex, suppress(sqlite3.Error):
            self._database.execute("PRAGMA journal_mode=DELETE")  # else an empty journal stays beside it
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading.

    def terms(self) -> RunTerms | None:
        """Return what the files have in common; None in a new ledger.

        Raises:
            ConfigError: The ledger is damaged.
        """
        row = self._do(lambda database: database.execute("SELECT * FROM run").fetchone())
        return None if row is None else self._read(_terms, row)

    def entries(self) -> list[LedgerEntry]:
        """Return all files, in order.

        Raises:
            ConfigError: A row is damaged, or its folder is outside of the folder for the results.
        """
        columns = "number, source, folder, phase, size, modified_ns, digest, recovery_token, ref, error, amount, unit"
        rows = self._do(lambda database: database.execute(f"SELECT {columns} FROM entry ORDER BY number").fetchall())  # noqa: S608  # constant columns
        return [self._read(_entry, row) for row in rows]

    def _read(self, parse: Callable[[tuple[Any, ...]], T], row: tuple[Any, ...]) -> T:
        try:
            return parse(row)
        except (ValueError, TypeError) as error:
            problem = printable(str(error), 200)
        raise ConfigError(
            f"the ledger {printable(str(self.path), 300)} is damaged ({problem}); restore it, or name another with "
            "--ledger"
        )

    # Writing. Each change is on disk when the call returns.

    def begin(self, terms: RunTerms, added: Iterable[LedgerEntry]) -> None:
        """Write the terms of a new ledger, and add files; all of it or nothing."""

        def write(database: sqlite3.Connection) -> None:
            database.execute("BEGIN")
            try:
                if database.execute("SELECT count(*) FROM run").fetchone() == (0,):
                    options = (json.dumps(dict(each)) for each in (terms.options, terms.neutral))
                    common = (terms.connection, terms.provider, terms.operation, *options)
                    database.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?)", common)
                rows = [(each.number, os.fsencode(each.source), _stored(each.folder), each.phase) for each in added]
                database.executemany("INSERT INTO entry (number, source, folder, phase) VALUES (?, ?, ?, ?)", rows)
            except BaseException:
                if database.in_transaction:  # SQLite has rolled back if the disk is full
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

        self._do(write)

    def mark_submitting(self, number: int, recovery_token: Mapping[str, Any], content: Fingerprint | None) -> None:
        """Record that a file is about to be submitted."""
        size, modified_ns, digest = (
            (None, None, None) if content is None else (content.size, content.modified_ns, content.digest)
        )
        self._set(
            number,
            phase=Phase.SUBMITTING,
            size=size,
            modified_ns=modified_ns,
            digest=digest,
            recovery_token=json.dumps(dict(recovery_token)),
            ref=None,
            error=None,
        )

    def mark_accepted(self, number: int, ref: str) -> None:
        """Record that the vendor created a task."""
        self._set(number, phase=Phase.ACCEPTED, ref=ref, error=None)

    def mark_planned(self, number: int, error: str | None) -> None:
        """Record that the vendor does not have the file."""
        self._set(number, phase=Phase.PLANNED, recovery_token=None, ref=None, error=_storable(error))

    def mark_ended(self, number: int, phase: Phase, error: str | None = None) -> None:
        """Record that a file is done, or that its task failed."""
        self._set(number, phase=phase, error=_storable(error))

    def record_usage(self, number: int, usage: Usage) -> None:
        """Record what a file's task cost so far."""
        self._set(number, amount=usage.amount, unit=usage.unit)

    def record_error(self, number: int, error: str) -> None:
        """Record an error that changes no phase."""
        self._set(number, error=_storable(error))

    def _set(self, number: int, **values: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        row = (*values.values(), number)
        self._do(lambda database: database.execute(f"UPDATE entry SET {names} WHERE number = ?", row))  # noqa: S608  # our own names

    def _do(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        with self._mutex:
            try:
                return work(self._database)
            except sqlite3.Error as error:
                problem = _text(error)
        raise LedgerError(
            f"the ledger {printable(str(self.path), 300)} cannot be used: {problem}; nothing more was submitted"
        )


def fingerprint(source: str, known: Fingerprint | None = None) -> Fingerprint | None:
    """Return the fingerprint of a file; None for a URL.

    Raises:
        OSError: The file cannot be read.
    """
    if is_url(source):
        return None
    with Path(source).open("rb") as file:
        facts = os.fstat(file.fileno())
        if known is not None and (known.size, known.modified_ns) == (facts.st_size, facts.st_mtime_ns):
            return known
        return Fingerprint(facts.st_size, facts.st_mtime_ns, file_digest(file, "sha256").hexdigest())


def has_changed(source: str, known: Fingerprint | None) -> bool:
    """Whether a file's content differs from its fingerprint; False for a URL or a missing file."""
    try:
        now = None if known is None else fingerprint(source, known)
    except OSError:
        return False
    return now is not None and known is not None and now.digest != known.digest


def _prepare(database: sqlite3.Connection) -> str:
    """Create the tables in an empty file; return why a file cannot be a ledger."""
    application, version = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application == _APPLICATION:
        return "" if version == _VERSION else f"was written by another version of taskbridge (ledger version {version})"
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
        return "is another program's database"
    for statement in filter(str.strip, _TABLES.split(";")):
        database.execute(statement)
    database.execute(f"PRAGMA application_id={_APPLICATION}")
    database.execute(f"PRAGMA user_version={_VERSION}")
    return ""


def _terms(row: tuple[Any, ...]) -> RunTerms:
    connection, provider, operation, options, neutral = row
    if not all(isinstance(text, str) for text in (connection, provider, operation)):
        raise TypeError("the terms are no texts")
    return RunTerms(connection, provider, operation, _object(options), _object(neutral))


def _entry(row: tuple[Any, ...]) -> LedgerEntry:
    number, source, stored_folder, stored_phase, size, modified_ns, digest, token, ref, error, amount, unit = row
    folder, phase = os.fsdecode(stored_folder), Phase(stored_phase)
    if folder != os.path.basename(folder) or folder in ("", ".", "..") or "\0" in folder:  # noqa: PTH119  # a text, no path
        raise ValueError(f"row {number} names a folder outside of the folder for the results")
    recovery_token = None if token is None else _object(token)
    if phase is Phase.SUBMITTING and recovery_token is None:
        raise ValueError(f"row {number} has no recovery token")
    if phase in (Phase.ACCEPTED, Phase.DONE) and ref is None:
        raise ValueError(f"row {number} has no ref")
    content = None if digest is None else Fingerprint(int(size), int(modified_ns), str(digest))
    return LedgerEntry(
        number,
        os.fsdecode(source),
        folder,
        phase,
        content,
        recovery_token,
        None if ref is None else TaskRef(ref),
        None if error is None else str(error),
        None if amount is None else Usage(amount=_amount(amount), unit=UsageUnit(unit)),
    )


def _amount(value: object) -> float:
    if not isinstance(value, int | float) or value < 0:
        raise TypeError("an amount is no number")
    return value


def _object(text: str) -> dict[str, Any]:
    document: object = json.loads(text)
    if not isinstance(document, dict):
        raise TypeError("no JSON object")
    return cast("dict[str, Any]", document)


def _stored(name: str) -> str | bytes:
    """Return a file's name as it is stored: as bytes if it is not valid Unicode."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def _text(error: sqlite3.Error) -> str:
    return printable(str(error), 200)


def _storable(text: str | None) -> str | None:
    return None if text is None else printable(text, 2000)
