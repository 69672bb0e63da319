"""The plan of a run: what was requested, written to the ledger before anything is submitted."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskbridge._config.registry import load_provider
from taskbridge._engine.download import remove_temporary_files
from taskbridge._engine.inputs import STAGE_HINT, is_url
from taskbridge._engine.redirects import name_of
from taskbridge.cli.formatting import os_error_text
from taskbridge.cli.options import find_documents, open_client
from taskbridge.cli.resume import command_line
from taskbridge.cli.run.ledger import Ledger, LedgerEntry, RunTerms
from taskbridge.cli.run.worker import RunLimits
from taskbridge.errors import ConfigError, TaskbridgeError, UnsupportedFeature, printable

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from typing import Any

    from taskbridge.cli.output import Output
    from taskbridge.client import Client

_LEDGER_NAME: Final = "taskbridge-run.sqlite"
_LONGEST_FOLDER: Final = 240  # bytes; file systems take 255, and a number may be added


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the command line asks for.

    Attributes:
        words: The operation and the documents; empty to take them from the ledger.
        list_path: A file that names more documents.
        to: The folder for the results.
        connection: Name of the connection, or None.
        neutral: Neutral options.
        options: The vendor's own options.
        ledger: Path of the ledger; None for the default in `to`.
        resume: Whether to resume from an existing ledger.
        limits: The limits of the run.
    """

    words: tuple[str, ...]
    list_path: str | None
    to: str
    connection: str | None
    neutral: Mapping[str, Any]
    options: Mapping[str, Any]
    ledger: str | None
    resume: bool
    limits: RunLimits

    @property
    def folder(self) -> Path:
        """The folder for the results."""
        return Path(self.to)

    @property
    def ledger_path(self) -> Path:
        """Where the ledger is."""
        return self.folder / _LEDGER_NAME if self.ledger is None else Path(self.ledger)

    def resume_command(self) -> str:
        """Return the command that resumes from the ledger, quoted for a shell."""
        default, limits = RunLimits(), self.limits
        options = {
            "to": self.to,
            "ledger": self.ledger,
            "max-in-flight": None if limits.max_in_flight == default.max_in_flight else str(limits.max_in_flight),
            "timeout": None if limits.timeout == default.timeout else _seconds(limits.timeout),
            "max-bytes": None if limits.max_bytes == default.max_bytes else _bytes(limits.max_bytes),
            "settle": None if limits.settle == default.settle else _seconds(limits.settle),
            "max-cost": None if limits.max_cost is None else f"{limits.max_cost:.15g}",
        }
        return command_line("run --resume", **options)


def _seconds(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds:g}"


def _bytes(size: int | None) -> str:
    return "none" if size is None else str(size)


def open_run(output: Output, request: RunRequest) -> tuple[Ledger, Client, RunTerms]:
    """Open the ledger, with all files in it, and the connection.

    Raises:
        TaskbridgeError: The request cannot be carried out; nothing was sent.
    """
    _check_folder(request)
    try:
        sources = find_documents(request.words[1:], request.list_path)
        path = request.ledger_path
        if _has_ledger(request):
            with _open_ledger(path) as ledger:
                client, terms = _reconnect(output, request, ledger, sources)
                for entry in ledger.entries():
                    remove_temporary_files(request.folder / entry.folder)
                ledger.begin(terms, _new_entries(request, ledger.entries(), sources))
                return ledger, client, terms
        client, terms = _connect_new(output, request, sources)
        request.folder.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_ledger(path) as ledger:
            ledger.begin(terms, _new_entries(request, ledger.entries(), sources))
            return ledger, client, terms
    except OSError as error:
        if isinstance(error, TaskbridgeError):
            raise
        problem = os_error_text(error)
    raise ConfigError(problem)


def preview_run(output: Output, request: RunRequest) -> tuple[Client, RunTerms, list[LedgerEntry]]:
    """Return the connection and all files that a run would have in its ledger; write nothing.

    Raises:
        TaskbridgeError: The request cannot be carried out.
    """
    _check_folder(request)
    try:
        sources = find_documents(request.words[1:], request.list_path)
        if not _has_ledger(request):
            client, terms = _connect_new(output, request, sources)
            return client, terms, _new_entries(request, [], sources)
        with Ledger.open(request.ledger_path) as ledger:
            client, terms = _reconnect(output, request, ledger, sources)
            known = ledger.entries()
            return client, terms, [*known, *_new_entries(request, known, sources)]
    except OSError as error:
        if isinstance(error, TaskbridgeError):
            raise
        problem = os_error_text(error)
    raise ConfigError(problem)


def _check_folder(request: RunRequest) -> None:
    """Refuse a URL as the folder for the results.

    Raises:
        ConfigError: It is one.
    """
    if is_url(request.to):
        raise ConfigError(
            "--to is a local folder, where the ledger and the results of a run are; copy the results to a storage "
            "afterwards, or save those of a task there with: taskbridge download REF --to URL"
        )


def _has_ledger(request: RunRequest) -> bool:
    """Whether there is a ledger to resume from.

    Raises:
        ConfigError: There is one, but the run is not to resume; or it was emptied.
    """
    path = request.ledger_path
    exists = path.exists() and path.stat().st_size > 0
    if path.exists() and not exists:
        _refuse_lost(request)
    if exists and not request.resume:
        raise ConfigError(
            f"{printable(str(path), 300)} is the ledger of an earlier run; add --resume to resume it, or name "
            "another with --ledger"
        )
    return exists


def _connect_new(output: Output, request: RunRequest, sources: Sequence[str]) -> tuple[Client, RunTerms]:
    """Open the connection of a new run.

    Raises:
        TaskbridgeError: There is nothing to submit, or the vendor would take none of it.
    """
    if not request.words or not sources:
        raise ConfigError(
            f"there is no ledger {printable(str(request.ledger_path), 300)} to resume from; name an operation and files"
        )
    client, terms = _connect(output, request, request.connection)
    _check_inputs(client, sources)
    _check_files(sources)
    return client, terms


@contextmanager
def _open_ledger(path: Path) -> Generator[Ledger]:
    """Open a ledger; close it again after an error."""
    ledger = Ledger.open(path)
    try:
        yield ledger
    except BaseException:
        ledger.close()
        raise


def _reconnect(output: Output, request: RunRequest, ledger: Ledger, sources: Sequence[str]) -> tuple[Client, RunTerms]:
    """Open the connection of a run that is resumed.

    Raises:
        TaskbridgeError: The ledger does not fit the request, or its folders are not safe to write to.
    """
    path = printable(str(request.ledger_path), 300)
    known = ledger.terms()
    if known is None:
        _refuse_lost(request)
        if not sources:
            raise ConfigError(f"{path} is empty: its run never started; name an operation and files")
        client, terms = _connect(output, request, request.connection)
    else:
        given = {
            "operation": (request.words[0] if request.words else None, known.operation),
            "connection": (request.connection, known.connection),
            "neutral option": (dict(request.neutral) or None, known.neutral),
            "options": (dict(request.options) or None, known.options),
        }
        for name, (now, then) in given.items():
            if now is not None and now != then:
                raise ConfigError(
                    f"the ledger {path} is for another {name} ({printable(str(then), 100)}); name another with --ledger"
                )
        client, terms = _connect(output, request, known.connection, known)
        if not set(known.provider.split(", ")) <= set(terms.provider.split(", ")):
            raise ConfigError(
                f"the ledger is for {known.provider}, but connection {known.connection!r} now uses {terms.provider}"
            )
    for entry in ledger.entries():
        folder = request.folder / entry.folder
        if folder.is_symlink():
            raise ConfigError(f"{printable(str(folder), 300)} is a link to another folder; results are not saved there")
    return client, terms


def _refuse_lost(request: RunRequest) -> None:
    """Refuse an empty ledger beside results: what they belong to would be submitted again.

    Raises:
        ConfigError: There are results.
    """
    if request.folder.is_dir() and any(each.is_dir() for each in request.folder.iterdir()):
        raise ConfigError(
            f"the ledger {printable(str(request.ledger_path), 300)} is empty, but {printable(request.to, 300)} has "
            "results: restore it, or remove it to start a new run"
        )


def _connect(
    output: Output, request: RunRequest, connection: str | None, known: RunTerms | None = None
) -> tuple[Client, RunTerms]:
    client = open_client(output, connection)
    operation = request.words[0] if known is None else known.operation
    neutral, options = (request.neutral, request.options) if known is None else (known.neutral, known.options)
    problem = client.can(operation, options=options, **neutral).error
    if problem is not None:
        raise problem
    vendors = client.members or (client,)
    for each in vendors:
        if request.limits.max_cost is not None and not each.capabilities.usage:
            title = load_provider(each.provider).title
            raise UnsupportedFeature(
                f"{title} does not say what a task costs, so --max-cost would never end the run",
                provider=each.provider,
                connection=each.name,
            )
    providers = ", ".join(dict.fromkeys(each.provider for each in vendors))
    return client, RunTerms(client.name, providers, operation, options, neutral)


def _check_inputs(client: Client, sources: Sequence[str]) -> None:
    """Refuse a run if the vendors take none of its files; if they take some, the others fail one by one.

    Raises:
        UnsupportedFeature: No vendor takes any.
    """
    members = client.members or (client,)
    accepted = frozenset[str]().union(*(each.capabilities.inputs for each in members))
    kinds = {"url" if is_url(source) else "path" for source in sources}
    if not kinds & accepted:
        refusals = (
            f"{load_provider(each.provider).title} takes no document given as {' or '.join(sorted(kinds))}; "
            f"it takes: {', '.join(sorted(each.capabilities.inputs))}"
            f"{STAGE_HINT if 'url' in each.capabilities.inputs else ''}"
            for each in members
        )
        raise UnsupportedFeature("; ".join(refusals), connection=client.name)


def _check_files(sources: Sequence[str]) -> None:
    """Refuse a run without any existing file, such as one of a mistyped folder; it must not leave a ledger.

    Raises:
        FileNotFoundError: There is none.
    """
    if not any(is_url(source) or os.path.lexists(source) for source in sources):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), sources[0])


def _new_entries(request: RunRequest, known: Sequence[LedgerEntry], sources: Sequence[str]) -> list[LedgerEntry]:
    """Return the files that the ledger does not have yet."""
    folders = {each.folder.casefold() for each in known}
    ignored = {each.source for each in known}
    ignored |= {f"{request.ledger_path.absolute()}{end}" for end in ("", "-journal")}  # may be among the documents
    added: list[LedgerEntry] = []
    for number, source in enumerate((each for each in sources if each not in ignored), len(known) + 1):
        added.append(LedgerEntry(number, source, _choose_folder(request.folder, _folder_name(source), folders)))
    return added


def _folder_name(source: str) -> str:
    """Return the name of the folder for a document: for a file its own, whatever is in it."""
    if is_url(source):
        return name_of(source)
    name = os.fsencode(os.path.basename(source))  # noqa: PTH119  # a text, no path
    return os.fsdecode(name) if len(name) <= _LONGEST_FOLDER else name[:_LONGEST_FOLDER].decode(errors="ignore")


def _choose_folder(parent: Path, name: str, taken: set[str]) -> str:
    """Choose the folder for a document's results, and mark it as taken."""
    base = folder = name
    number = 1
    while folder.casefold() in taken or os.path.lexists(parent / folder):
        number += 1
        folder = f"{base}-{number}"
    taken.add(folder.casefold())
    return folder
