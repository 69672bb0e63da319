"""The rows of a run: read, checked and written, each change in a transaction that is on disk when the call returns."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

from sqlalchemy import Connection, RowMapping, Select, bindparam, insert, select, update

from taskbridge.errors import ConfigError, TaskFailed, printable
from taskbridge.models import Task, TaskRef, Usage, UsageUnit, raise_if_failed
from taskbridge.store.database import Database
from taskbridge.store.intents import Fingerprint, decode_name, encode_name
from taskbridge.store.ownership import Ownership, Seen
from taskbridge.store.runs.files import FilePhase, RunFile, RunTerms
from taskbridge.store.schema import ACCOUNT, INTENT, RUN, WATCH, OwnerKind, Phase, State

T = TypeVar("T")

KEPT: Final = -1
"""The revision of a submission that only its run sends; no watcher reads it, because theirs are higher."""

_LONGEST_TARGET: Final = 1000  # characters
_MOST: Final = 2000  # characters of an error
_WAITING: Final = (Phase.PLANNED, Phase.SENDING)
_OVER: Final = (Phase.UNCERTAIN, Phase.REFUSED)
_ABANDONED: Final = (State.GIVEN_UP, State.DROPPED)

_COLUMNS: Final = (
    *("id", "key", "input", "folder", "phase", "size", "modified_ns", "digest", "recovery_token", "ref", "error"),
    "downloaded_at",
)
_FILES: Final = (
    select(
        *(INTENT.c[name] for name in _COLUMNS),
        *(WATCH.c[name] for name in ("state", "snapshot", "amount", "unit")),
        WATCH.c.error.label("watch_error"),
    )
    .outerjoin(WATCH, WATCH.c.ref == INTENT.c.ref)
    .where(INTENT.c.run == bindparam("of_run"))
)
_FILE: Final = _FILES.where(INTENT.c.id == bindparam("of"))
_CHANGE: Final = update(INTENT).where(INTENT.c.id == bindparam("of"))  # sets the columns among the parameters


@dataclass(frozen=True, slots=True)
class FileState:
    """A file of which another process owns the connection.

    Attributes:
        file: The file.
        phase: How far its submission is.
        state: How far the watch of its task is; None before that.
        task: The last snapshot of its task.
        problem: Why the submission or the watch went wrong.
    """

    file: RunFile
    phase: Phase
    state: State | None
    task: Task | None
    problem: str


class Forgotten(Exception):
    """`Store.forget` ended the submission of a file while the run worked on it; nothing was written."""


class StoredRun:
    """A run in a store. Thread-safe.

    Args:
        database: The store's.
        folder: The folder for the results, which identifies the run.
        is_beside: Whether the database is in that folder and has no other run: the run stays the same when the folder
            is moved.
    """

    def __init__(self, database: Database, folder: Path, *, is_beside: bool = False) -> None:
        self.folder = folder
        self.database = database
        self.is_beside = is_beside
        self._target = encode_name(os.path.abspath(folder))  # noqa: PTH100  # resolve() would follow links
        if len(self._target) > _LONGEST_TARGET:
            raise ConfigError(f"the path of {printable(str(folder), 300)} is too long for a run; take a shorter one")
        self._id: int | None = None
        self._ids: dict[int, int] = {}  # of the submissions, by the number of the file
        self._keys: dict[int, str] = {}
        self._over: set[int] = set()  # files whose submission is uncertain or was refused
        self._abandoned: set[int] = set()  # files whose task is not watched any more, although it has not ended
        self._owners: dict[str, Ownership] = {}
        self._mutex = threading.Lock()  # one writer at a time: SQLite's own queue is slower, and not fair

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    # Owning.

    @property
    def is_owner(self) -> bool:
        """Whether this process sends the submissions and polls the tasks."""
        return bool(self._owners)

    def own(self, connections: Iterable[str]) -> str | None:
        """Become the owner of connections; return the name of one that another process owns, and then own none.

        Raises:
            StoreUnavailable: The database cannot be used.
        """
        taken: dict[str, Ownership] = {}
        for name in sorted(connections):
            taken[name] = Ownership(self.database, name, OwnerKind.RUN)
            if not taken[name].take():
                for owner in taken.values():
                    owner.release()
                return name
        self._owners = taken
        return None

    def owner_of(self, connection: str) -> str:
        """Return which process owns a connection, or did so last."""
        with self.database.reading() as opened:
            owner = opened.execute(select(ACCOUNT.c.owner).where(ACCOUNT.c.connection == connection)).scalar()
        return printable(owner or "another process", 200)

    def is_owned_by_run(self, connection: str) -> bool:
        """Whether the process that owns a connection, or did so last, is a run."""
        with self.database.reading() as opened:
            kind = opened.execute(select(ACCOUNT.c.owner_kind).where(ACCOUNT.c.connection == connection)).scalar()
        return kind == OwnerKind.RUN

    def release(self) -> None:
        """Let other processes own the connections."""
        owners, self._owners = self._owners, {}
        for owner in owners.values():
            if self.is_beside:
                owner.remove_lock()
            owner.release()

    def _owner(self, connection: object) -> Ownership:
        """Return the ownership of a connection, or of any if that is not known yet."""
        found = self._owners.get(connection) if isinstance(connection, str) else None
        return found or next(iter(self._owners.values()))

    # Reading.

    def terms(self) -> RunTerms | None:
        """Return what the files have in common; None if there is no such run yet.

        Raises:
            ConfigError: The row is damaged.
        """
        row = self._read(self._find)
        if row is None:
            return None
        self._id = row["id"]
        return self._read(lambda: _terms(row))

    def _find(self) -> RowMapping | None:
        with self.database.reading() as opened:
            row = opened.execute(select(RUN).where(RUN.c.target == self._target)).mappings().one_or_none()
            if row is None:
                rows = opened.execute(select(RUN)).mappings().all()
                if self.is_beside:
                    row = rows[0] if len(rows) == 1 else None
                else:
                    row = next((each for each in rows if self._is_folder(each["target"])), None)
                    moved = [] if row is not None else [each for each in rows if self._was_moved_here(opened, each)]
                    row = moved[0] if len(moved) == 1 else row
        return row

    def _is_folder(self, target: str) -> bool:
        """Whether the folder of a run is this one, under another path."""
        try:
            return Path(decode_name(target)).samefile(self.folder)
        except OSError:
            return False

    def _was_moved_here(self, opened: Connection, row: RowMapping) -> bool:
        """Whether the folder of a run is not where it was, and this one has its name and some of its results."""
        before = decode_name(row["target"])
        if Path(before).name != self.folder.absolute().name or os.path.lexists(before):
            return False
        names = opened.execute(select(INTENT.c.folder).where(INTENT.c.run == row["id"])).scalars()
        return any((self.folder / decode_name(name)).is_dir() for name in names)

    def files(self) -> list[RunFile]:
        """Return all files, in order.

        Raises:
            ConfigError: A row is damaged, or its folder is outside of the folder for the results.
        """
        if self._id is None:
            return []
        files = self._read(lambda: [self._file(row) for row in self._rows(_FILES)])
        return sorted(files, key=lambda file: file.number)

    def state_of(self, number: int) -> FileState:
        """Return how far a file is, where another process submits it and polls its task.

        Raises:
            ConfigError: Its row is damaged.
        """
        rows = self._rows(_FILE, of=self._ids[number])
        return self._read(lambda: _state(self._file(rows[0]), rows[0]))

    def _rows(self, query: Select[Any], **values: Any) -> Sequence[RowMapping]:
        with self.database.reading() as opened:
            return opened.execute(query, {"of_run": self._id, **values}).mappings().all()

    def _file(self, row: RowMapping) -> RunFile:
        number = int(row["key"].rpartition("/")[2].partition(".")[0])
        self._ids[number], self._keys[number] = row["id"], row["key"]
        known, groups = _file(number, row), (self._over, self._abandoned)
        for group, states, state in zip(groups, (_OVER, _ABANDONED), (row["phase"], row["state"]), strict=True):
            (group.add if state in states else group.discard)(number)
        return known

    def _read(self, parse: Callable[[], T]) -> T:
        try:
            return parse()
        except (ValueError, TypeError, LookupError) as error:
            problem = printable(str(error), 200)
        raise ConfigError(f"the store {self.database.name} is damaged ({problem}); restore it, or use another store")

    # Writing.

    def begin(self, terms: RunTerms, added: Iterable[RunFile], moved: Iterable[RunFile] = ()) -> None:
        """Store a new run, or the new place of a known one and of some of its files, and add files: all or nothing."""
        now = self.database.now()
        common = {
            "connection": terms.connection,
            "operation": terms.operation,
            "arguments": {
                "options": dict(terms.options) or None,
                "external_id": None,
                "callback_url": None,
                "name": None,
                "neutral": dict(terms.neutral),
            },
            "phase": Phase.PLANNED,
            "revision": KEPT,
            "created_at": now,
            "updated_at": now,
        }
        with self._mutex, self.database.writing() as opened:
            run = self._id
            if run is None:
                values = {
                    "connection": terms.connection,
                    "target": self._target,
                    "provider": terms.provider,
                    "operation": terms.operation,
                    "options": dict(terms.options),
                    "neutral": dict(terms.neutral),
                    "created_at": now,
                }
                run = opened.execute(insert(RUN).values(values).returning(RUN.c.id)).scalar_one()
            else:
                opened.execute(update(RUN).where(RUN.c.id == run).values(target=self._target))
            rows = [
                {
                    **common,
                    "run": run,
                    "key": f"{run}/{each.number}",
                    "input": encode_name(each.source),
                    "folder": encode_name(each.folder),
                }
                for each in added
            ]
            if rows:
                opened.execute(insert(INTENT), rows)
            for each in moved:
                opened.execute(_CHANGE, {"of": self._ids[each.number], "input": encode_name(each.source)})
        self._id = run

    def store_files(self) -> Sequence[Path]:
        """Return the files that the store consists of, which are no documents."""
        with self.database.reading() as opened:
            return self.database.files(opened.execute(select(ACCOUNT.c.connection)).scalars())

    def hand_over(self, number: int, connection: str) -> None:
        """Let the process that owns the connection submit a file, or search for it if it may have been submitted."""
        self._reopen(number, Phase.PLANNED)
        kept = (INTENT.c.id == self._ids[number], INTENT.c.phase.in_(_WAITING), INTENT.c.revision == KEPT)
        with self._mutex, self.database.writing() as opened:
            account = ACCOUNT.c.connection == connection
            opened.execute(update(ACCOUNT).where(account).values(revision=ACCOUNT.c.revision + 1))
            revision = select(ACCOUNT.c.revision).where(account).scalar_subquery()
            opened.execute(update(INTENT).where(*kept).values(revision=revision))

    def take_back(self) -> None:
        """Keep the files that were handed over; one that the owner has read by now may still be submitted."""
        planned = (INTENT.c.run == self._id, INTENT.c.phase == Phase.PLANNED, INTENT.c.revision != KEPT)
        with self._mutex, self.database.writing() as opened:
            opened.execute(update(INTENT).where(*planned).values(revision=KEPT))

    def mark_submitting(self, number: int, recovery_token: Mapping[str, Any], content: Fingerprint | None) -> None:
        """Store that a file is about to be submitted."""
        self._reopen(number, Phase.SENDING)
        with self._mutex:
            owner = self._owner(recovery_token.get("connection"))
            owner.mark_sending(self._ids[number], recovery_token, content)

    def mark_uploading(self, number: int, task: Task, content: Fingerprint) -> None:
        """Store what a file contains whose task waits for it, just before it is sent."""
        self._reopen(number, Phase.SENDING)
        with self._mutex:
            self._owner(task.connection).mark_uploading(self._ids[number], content)

    def mark_accepted(self, number: int, task: Task) -> None:
        """Store that the vendor created a task, and whether it has ended already."""
        self._reopen(number, Phase.SENDING)
        with self._mutex:
            self._owner(task.connection).mark_taken(self._ids[number], task)

    def mark_planned(self, number: int, error: str | None) -> None:
        """Store that the vendor does not have a file."""
        self._reopen(number, Phase.PLANNED)
        with self._mutex:
            self._owner(None).mark_planned(self._ids[number], _storable(error))

    def mark_uncertain(self, number: int, error: str) -> None:
        """Store that the vendor may have a file, and that this could not be found out."""
        if number in self._over:
            self.record_error(number, error)
            return
        with self._mutex:
            self._owner(None).mark_uncertain(self._ids[number], printable(error, _MOST))
        self._over.add(number)

    def mark_seen(self, number: int, task: Task) -> None:
        """Store the last snapshot of a file's task, what it cost so far, and its end if it has ended."""
        owner = self._owner(task.connection)
        with self._mutex:
            if number in self._abandoned:
                with owner.writing() as opened:
                    watch = update(WATCH).where(WATCH.c.ref == str(task.ref), WATCH.c.state.in_(_ABANDONED))
                    opened.execute(watch.values(state=State.OPEN, error=None))
                self._abandoned.discard(number)
            owner.write([Seen(task.ref, State.ENDED if task.is_terminal else State.OPEN, task)])

    def mark_downloaded(self, number: int) -> None:
        """Store that the results of a file are in their folder."""
        self._change(number, downloaded_at=self.database.now(), error=None)

    def record_error(self, number: int, error: str) -> None:
        """Store an error that changes no phase."""
        self._change(number, error=printable(error, _MOST))

    def _change(self, number: int, **values: Any) -> None:
        with self._mutex, self._writing() as opened:
            opened.execute(_CHANGE, {"of": self._ids[number], **values})

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._owner(None).writing() if self.is_owner else self.database.writing()

    def _reopen(self, number: int, phase: Phase) -> None:
        """Take up an uncertain or refused submission again; its next events get another key than the last ones.

        Raises:
            Forgotten: A person has decided meanwhile that nothing more happens with it.
        """
        if number not in self._over:
            return
        first, dot, attempt = self._keys[number].partition(".")
        key = f"{first}.{int(attempt) + 1 if dot else 2}"
        with self._mutex, self._writing() as opened:
            own = INTENT.c.id == self._ids[number]
            reopened = update(INTENT).where(own, INTENT.c.phase.in_(_OVER))
            if opened.execute(reopened.values(phase=phase, key=key, revision=KEPT)).rowcount:
                self._keys[number] = key
            elif opened.execute(select(INTENT.c.phase).where(own)).scalar() == Phase.FORGOTTEN:
                raise Forgotten
        self._over.discard(number)


def _terms(row: RowMapping) -> RunTerms:
    connection, provider, operation = (row[name] for name in ("connection", "provider", "operation"))
    if not all(isinstance(text, str) for text in (connection, provider, operation)):
        raise TypeError("the terms are no texts")
    return RunTerms(connection, provider, operation, _object(row["options"]), _object(row["neutral"]))


def _file(number: int, row: RowMapping) -> RunFile:
    if not all(isinstance(row[name], str) for name in ("input", "folder")):
        raise TypeError(f"row {number} has no file or no folder")
    source, folder = decode_name(row["input"]), decode_name(row["folder"])
    if folder != os.path.basename(folder) or folder in ("", ".", "..") or "\0" in folder:  # noqa: PTH119  # a text, no path
        raise ValueError(f"row {number} names a folder outside of the folder for the results")
    phase, task = _phase(row)
    token = None if row["recovery_token"] is None else _object(row["recovery_token"])
    if phase is FilePhase.SUBMITTING and token is None:
        raise ValueError(f"row {number} has no recovery token")
    if phase in (FilePhase.ACCEPTED, FilePhase.DONE) and row["ref"] is None:
        raise ValueError(f"row {number} has no ref")
    digest, amount = row["digest"], row["amount"]
    return RunFile(
        number,
        source,
        folder,
        phase,
        None if digest is None else Fingerprint(int(row["size"]), str(digest), int(row["modified_ns"] or 0)),
        token,
        None if row["ref"] is None else TaskRef(row["ref"]),
        _failure(task) if phase is FilePhase.FAILED else None if row["error"] is None else str(row["error"]),
        None if amount is None else Usage(amount=_amount(amount), unit=UsageUnit(row["unit"])),
    )


def _phase(row: RowMapping) -> tuple[FilePhase, Task | None]:
    """Return how far a file is, and the task that has ended."""
    phase = Phase(row["phase"])
    if phase in (Phase.PLANNED, Phase.REFUSED):
        return FilePhase.PLANNED, None
    if phase in (Phase.SENDING, Phase.UNCERTAIN):
        return FilePhase.SUBMITTING, None
    if phase is Phase.FORGOTTEN:
        return FilePhase.FORGOTTEN, None
    if row["downloaded_at"] is not None:
        return FilePhase.DONE, None
    if row["state"] is None or State(row["state"]) is not State.ENDED:
        return FilePhase.ACCEPTED, None
    task = Task.from_dict(_object(row["snapshot"]))
    return FilePhase.FAILED if _failure(task) else FilePhase.ACCEPTED, task


def _state(file: RunFile, row: RowMapping) -> FileState:
    return FileState(
        file,
        Phase(row["phase"]),
        None if row["state"] is None else State(row["state"]),
        None if row["snapshot"] is None else Task.from_dict(_object(row["snapshot"])),
        str(row["error"] or row["watch_error"] or ""),
    )


def _failure(task: Task | None) -> str | None:
    """Return why a task failed; None if it did not."""
    try:
        if task is not None:
            raise_if_failed(task)
    except TaskFailed as failure:
        return str(failure)
    return None


def _amount(value: object) -> float:
    if not isinstance(value, int | float) or value < 0:
        raise TypeError("an amount is no number")
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("no JSON object")
    return cast("dict[str, Any]", value)


def _storable(text: str | None) -> str | None:
    return None if text is None else printable(text, _MOST)
