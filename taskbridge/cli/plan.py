"""What a run is asked to do, and its ledger with all of that written down, before anything is sent."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskbridge._config.registry import load_provider
from taskbridge._engine.inputs import is_url, word_for
from taskbridge.cli.carrier import Rules
from taskbridge.cli.inputs import label_of, sources_of
from taskbridge.cli.ledger import Entry, Ledger, Terms
from taskbridge.cli.refs import open_client
from taskbridge.cli.texts import words_of_file
from taskbridge.client import Client
from taskbridge.errors import ConfigError, TaskbridgeError, UnsupportedFeature, printable
from taskbridge.provider.submission import safe_name

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from typing import Any

__all__ = ["Many", "opened"]

_NAME: Final = "taskbridge-run.sqlite"  # of the ledger, where none is named


@dataclass(frozen=True, slots=True)
class Many:
    """What was asked for on the command line.

    Attributes:
        words: The operation and the documents; none where a ledger has them.
        listed: A file that names more documents.
        to: The folder for the results.
        connection: Name of the connection, or None.
        options: The vendor's own options.
        ledger: The ledger, or None for one in `to`.
        resume: Whether to go on with a ledger that is there.
        rules: How.
        config: The configuration, or None.
    """

    words: tuple[str, ...]
    listed: str | None
    to: str
    connection: str | None
    options: Mapping[str, Any]
    ledger: str | None
    resume: bool
    rules: Rules
    config: str | None

    @property
    def home(self) -> Path:
        """The folder for the results."""
        return Path(self.to)

    @property
    def path(self) -> Path:
        """Where the ledger is."""
        return self.home / _NAME if self.ledger is None else Path(self.ledger)

    def resume_command(self) -> str:
        """The command that goes on from the ledger, to be pasted into a shell."""
        usual = Rules()
        chosen = {
            "--to": self.to,
            "--ledger": self.ledger,
            "--max-in-flight": None if self.rules.most == usual.most else str(self.rules.most),
            "--timeout": None if self.rules.timeout == usual.timeout else _number(self.rules.timeout),
            "--settle": None if self.rules.patience == usual.patience else _number(self.rules.patience),
            "--config": self.config,
        }
        words = [word for name, value in chosen.items() if value is not None for word in (name, value)]
        return shlex.join(["taskbridge", "run", "--resume", *words])


def _number(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds:g}"


def opened(asked: Many) -> tuple[Ledger, Client, Terms]:
    """The ledger with all that is to be done in it, and the connection.

    Raises:
        TaskbridgeError: It cannot be done so; nothing was sent.
    """
    fault = ""
    try:
        sources = sources_of(asked.words[1:], asked.listed)
        there = asked.path.exists() and asked.path.stat().st_size > 0
        if there and not asked.resume:
            raise ConfigError(
                f"{printable(str(asked.path), 300)} is the ledger of an earlier run; add --resume to go on with it, or "
                "name another with --ledger"
            )
        if there:
            with _kept(asked.path) as ledger:
                return _resumed(asked, ledger, sources)
        if not asked.words or not sources:
            raise ConfigError(
                f"there is no ledger {printable(str(asked.path), 300)} to go on with; name an operation and files"
            )
        client, terms = _chosen(asked, asked.connection)
        _check_kinds(client, sources)
        asked.home.mkdir(parents=True, exist_ok=True)
        asked.path.parent.mkdir(parents=True, exist_ok=True)
        with _kept(asked.path) as ledger:
            return _filled(asked, ledger, terms, sources), client, terms
    except OSError as error:
        if isinstance(error, TaskbridgeError):
            raise
        fault = words_of_file(error)
    raise ConfigError(fault)


@contextmanager
def _kept(path: Path) -> Generator[Ledger]:
    """An open ledger, which is closed again where it cannot be gone on with."""
    ledger = Ledger.open(path)
    try:
        yield ledger
    except BaseException:
        ledger.close()
        raise


def _resumed(asked: Many, ledger: Ledger, sources: Sequence[str]) -> tuple[Ledger, Client, Terms]:
    known = ledger.terms()
    if known is None:
        if not sources:
            raise ConfigError(
                f"{printable(str(asked.path), 300)} is empty: its run never began; name an operation and files"
            )
        client, terms = _chosen(asked, asked.connection)
        return _filled(asked, ledger, terms, sources), client, terms
    given = {
        "operation": (asked.words[0] if asked.words else None, known.operation),
        "connection": (asked.connection, known.connection),
        "options": (dict(asked.options) or None, known.options),
    }
    for name, (now, then) in given.items():
        if now is not None and now != then:
            raise ConfigError(
                f"the ledger {printable(str(asked.path), 300)} is of another {name} ({printable(str(then), 100)}); "
                "name another with --ledger"
            )
    client, terms = _chosen(asked, known.connection, known)
    if terms.provider != known.provider:
        raise ConfigError(
            f"the ledger is of {known.provider}, and connection {known.connection!r} now leads to {terms.provider}"
        )
    return _filled(asked, ledger, terms, sources), client, terms


def _chosen(asked: Many, connection: str | None, known: Terms | None = None) -> tuple[Client, Terms]:
    client = open_client(asked.config, connection)
    operation = asked.words[0] if known is None else known.operation
    word_for(operation, client.capabilities, load_provider(client.provider).title)
    options = asked.options if known is None else known.options
    return client, Terms(client.name, client.provider, operation, options)


def _check_kinds(client: Client, sources: Sequence[str]) -> None:
    """Refuse where the vendor takes none of these; where it takes some, the others fail one by one.

    Raises:
        UnsupportedFeature: It takes none.
    """
    taken = client.capabilities.inputs
    kinds = {"url" if is_url(source) else "path" for source in sources}
    if not kinds & taken:
        title = load_provider(client.provider).title
        raise UnsupportedFeature(
            f"{title} takes no document given as {' or '.join(sorted(kinds))}; it takes: {', '.join(sorted(taken))}",
            provider=client.provider,
            connection=client.name,
        )


def _filled(asked: Many, ledger: Ledger, terms: Terms, sources: Sequence[str]) -> Ledger:
    """The ledger, with the files that it does not have yet."""
    known = ledger.entries()
    there = {each.source for each in known}
    folders = {each.folder.casefold() for each in known}
    ours = {f"{asked.path.absolute()}{end}" for end in ("", "-journal")}  # they may lie among the documents
    fresh = [source for source in sources if source not in there | ours]
    more: list[Entry] = []
    for number, source in enumerate(fresh, len(known) + 1):
        more.append(Entry(number, source, _folder(asked.home, label_of(source), folders)))
    ledger.begin(terms, more)
    return ledger


def _folder(home: Path, label: str, taken: set[str]) -> str:
    """A folder of its own for a document's results."""
    name = free = safe_name(label)
    number = 1
    while free.casefold() in taken or (home / free).exists():
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free
