"""What the command line asks `run` for, and the store that it opens for that."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskbridge._config.defaults import default_clock
from taskbridge._engine.error_text import os_error_text
from taskbridge._engine.inputs import is_url
from taskbridge.cli.options import find_documents, open_client, read_list
from taskbridge.cli.resume import command_line
from taskbridge.cli.run.progress import ResumeCommand
from taskbridge.errors import ConfigError, TaskbridgeError, printable
from taskbridge.store.dialects import is_postgres, open_database, path_of
from taskbridge.store.runs.plan import RunPlan, begin_run, check_folders
from taskbridge.store.runs.stored import StoredRun
from taskbridge.store.runs.worker import RunLimits
from taskbridge.store.schema import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
    from typing import Any

    from taskbridge.cli.output import Output
    from taskbridge.client import Client
    from taskbridge.store.runs.files import RunFile, RunTerms

_STORE_NAME: Final = "taskbridge-run.sqlite"
_LEFT_OUT: Final = "give --store as before: the command shows its URL without user, password and options"
_OLD_FORMAT: Final = 0x7461736B  # in the header of a file that an earlier version of `run` wrote


@dataclass(frozen=True, kw_only=True)  # without slots, for the cached property
class RunRequest:
    """What the command line asks for.

    Attributes:
        words: The operation and the documents; empty to take them from the stored run.
        list_path: A file that names more documents.
        to: The folder for the results.
        connection: Name of the connection, or None.
        neutral: Neutral options.
        options: The vendor's own options.
        store: Path or URL of the store; None for the default in `to`.
        resume: Whether to resume a stored run.
        limits: The limits of the run.
    """

    words: tuple[str, ...]
    list_path: str | None
    to: str
    connection: str | None
    neutral: Mapping[str, Any]
    options: Mapping[str, Any]
    store: str | None
    resume: bool
    limits: RunLimits

    @cached_property
    def documents(self) -> Sequence[str]:
        """The documents as they were named: paths, folders, patterns and URLs.

        Raises:
            OSError: The list of documents cannot be read.
        """
        return [*self.words[1:], *([] if self.list_path is None else read_list(self.list_path))]

    @property
    def folder(self) -> Path:
        """The folder for the results."""
        return Path(self.to)

    @property
    def store_path(self) -> Path | None:
        """Where the store is; None if it is not a file.

        Raises:
            ConfigError: It is neither a path nor a URL of a store.
        """
        if self.store is None:
            return self.folder / _STORE_NAME
        return None if is_postgres(self.store) else path_of(self.store)

    def resume_command(self) -> ResumeCommand:
        """Return the command that resumes the run."""
        store = None if self.store is None else _shown(self.store)
        default, limits = RunLimits(), self.limits
        options = {
            "to": self.to,
            "store": store,
            "max-in-flight": None if limits.max_in_flight == default.max_in_flight else str(limits.max_in_flight),
            "timeout": None if limits.timeout == default.timeout else _seconds(limits.timeout),
            "max-bytes": None if limits.max_bytes == default.max_bytes else _bytes(limits.max_bytes),
            "settle": None if limits.settle == default.settle else _seconds(limits.settle),
            "max-cost": None if limits.max_cost is None else f"{limits.max_cost:.15g}",
        }
        line = command_line("run --resume", **options)
        return ResumeCommand(line, None if store == self.store else _LEFT_OUT)


def _shown(store: str) -> str:
    """Return a path or URL without anything that could be a secret."""
    if not is_postgres(store):
        return store
    from taskbridge.store.postgresql import name_of  # noqa: PLC0415  # an extra

    return name_of(store)


def _seconds(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds:g}"


def _bytes(size: int | None) -> str:
    return "none" if size is None else str(size)


def open_run(output: Output, request: RunRequest) -> tuple[ExitStack, StoredRun, Client, RunTerms]:
    """Open the connection and the store, with all files in it; the stack closes the store.

    Raises:
        TaskbridgeError: The request cannot be carried out; nothing was sent.
    """
    with _plain_errors(), ExitStack() as stack:
        plan = _plan(output, request)
        is_known = _has_store(request)
        client_and_terms = None if is_known else plan.connect_new()
        if not is_known:
            request.folder.mkdir(parents=True, exist_ok=True)
            if request.store_path is not None:
                request.store_path.parent.mkdir(parents=True, exist_ok=True)
        run, known = _open_store(stack, request)
        client, terms = client_and_terms or _connect(request, plan, run, known)
        stack.enter_context(run)
        _note_skipped(output, request, begin_run(run, plan, client, terms))
        request.folder.mkdir(parents=True, exist_ok=True)
        return stack.pop_all(), run, client, terms


def preview_run(output: Output, request: RunRequest) -> tuple[Client, RunTerms, list[RunFile]]:
    """Return the connection and all files that a run would have in its store; write nothing.

    Raises:
        TaskbridgeError: The request cannot be carried out.
    """
    with _plain_errors(), ExitStack() as stack:
        plan = _plan(output, request)
        if not _has_store(request):
            client, terms = plan.connect_new()
            return client, terms, plan.compare([]).added
        run, known = _open_store(stack, request)
        client, terms = _connect(request, plan, run, known)
        files = run.files()
        check_folders(run.folder, files)
        found = plan.compare(files, run.store_files())
        _note_skipped(output, request, found.skipped)
        moved = {each.number: each for each in found.moved}
        return client, terms, [*(moved.get(each.number, each) for each in files), *found.added]


def _note_skipped(output: Output, request: RunRequest, skipped: Iterable[str]) -> None:
    """Write which files are not submitted although they were named, and not only found in a folder."""
    named = {os.path.abspath(word) for word in request.documents}  # noqa: PTH100  # as the documents
    for path in skipped:
        if path in named:
            output.note(f"taskbridge: {printable(path, 300)} is not submitted: it is a file of the store")


@contextmanager
def _plain_errors() -> Generator[None]:
    """Raise errors of the operating system as `ConfigError`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, TaskbridgeError):
            raise
        problem = os_error_text(error)
    else:
        return
    raise ConfigError(problem)


def _plan(output: Output, request: RunRequest) -> RunPlan:
    """Return what is asked for.

    Raises:
        ConfigError: The folder for the results is a URL.
        InvalidInput: The documents are not there.
        OSError: The list of documents cannot be read.
    """
    if is_url(request.to):
        raise ConfigError(
            "--to is a local folder, where the results of a run are; copy the results to a storage afterwards, or save "
            "those of a task there with: taskbridge download REF --to URL"
        )
    return RunPlan(
        connect=partial(open_client, output),
        operation=request.words[0] if request.words else None,
        sources=find_documents(request.documents),
        folder=request.folder,
        connection=request.connection,
        neutral=request.neutral,
        options=request.options,
        max_cost=request.limits.max_cost,
    )


def _has_store(request: RunRequest) -> bool:
    """Whether there is a store that may have the run.

    Raises:
        ConfigError: There is a run, but it is not to be resumed; or the file was emptied, or is no store.
    """
    path = request.store_path
    if path is None:
        return True
    if not path.exists():
        return False
    if path.stat().st_size == 0:
        _refuse_lost(request, printable(str(path), 300))
        return False
    if request.store is None and not request.resume:
        raise ConfigError(
            f"{printable(str(path), 300)} is the store of an earlier run; add --resume to resume it, or name another "
            "with --store"
        )
    _check_file(path)
    return True


def _check_file(path: Path) -> None:
    """Check that a file is a store, before anything is created in it.

    Raises:
        ConfigError: It is not.
    """
    problem = ""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as file:
            tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if file.execute("PRAGMA application_id").fetchone() == (_OLD_FORMAT,):
                problem = "was written by an earlier version of taskbridge; finish its run with that version"
            elif tables and VERSION_TABLE not in tables:
                problem = "is another program's database"
    except sqlite3.OperationalError as error:
        busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
        problem = "is in use by another run" if busy else f"cannot be read ({printable(str(error), 200)})"
    except sqlite3.Error as error:
        problem = f"is not a store ({printable(str(error), 200)})"
    if problem:
        raise ConfigError(f"{printable(str(path), 300)} {problem}; name another file with --store")


def _open_store(stack: ExitStack, request: RunRequest) -> tuple[StoredRun, RunTerms | None]:
    """Open the store, and read the run, if there is one.

    Raises:
        ConfigError: The store cannot be used, or has a run that is not to be resumed.
    """
    is_beside = request.store is None
    where = request.store or request.folder / _STORE_NAME
    database = open_database(where, None, default_clock(), alone_on_network=is_beside)
    stack.callback(database.close)
    run = StoredRun(database, request.folder, is_beside=is_beside)
    known = run.terms()
    if known is not None and not request.resume:
        raise ConfigError(
            f"the store {database.name} has a run in {printable(request.to, 300)} already; add --resume to resume it, "
            "or name another folder with --to"
        )
    return run, known


def _connect(request: RunRequest, plan: RunPlan, run: StoredRun, known: RunTerms | None) -> tuple[Client, RunTerms]:
    """Open the connection for what is stored.

    Raises:
        TaskbridgeError: What is stored does not fit the request.
    """
    if known is not None:
        return plan.reconnect(known)
    if request.store is None:
        _refuse_lost(request, run.database.name)
    return plan.connect_new()


def _refuse_lost(request: RunRequest, store: str) -> None:
    """Refuse an empty store beside results: what they belong to would be submitted again.

    Raises:
        ConfigError: There are results.
    """
    if request.folder.is_dir() and any(each.is_dir() for each in request.folder.iterdir()):
        raise ConfigError(
            f"the store {store} is empty, but {printable(request.to, 300)} has results: restore "
            "it, or remove it to start a new run"
        )
