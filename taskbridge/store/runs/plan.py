"""The plan of a run: what was asked for, checked against what is stored, before anything is submitted."""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from taskbridge._config.registry import load_provider
from taskbridge._engine.download import remove_temporary_files
from taskbridge._engine.inputs import STAGE_HINT, is_url
from taskbridge._engine.redirects import name_of
from taskbridge.client import Client
from taskbridge.errors import ConfigError, UnsupportedFeature, printable
from taskbridge.store.intents import fingerprint
from taskbridge.store.runs.files import FilePhase, RunFile, RunTerms
from taskbridge.store.runs.stored import StoredRun

_LONGEST_FOLDER: Final = 240  # bytes; file systems take 255, and a number may be added


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a caller asks for.

    Attributes:
        connect: Opens a connection by its name; None for the default.
        operation: The operation; None for that of the stored run.
        sources: Absolute paths and URLs; the run may have more.
        folder: The folder for the results.
        connection: Name of the connection, or None.
        neutral: Neutral options.
        options: The vendor's own options.
        max_cost: The limit of the cost, or None.
    """

    connect: Callable[[str | None], Client]
    operation: str | None
    sources: Sequence[str]
    folder: Path
    connection: str | None
    neutral: Mapping[str, Any]
    options: Mapping[str, Any]
    max_cost: float | None

    def connect_new(self) -> tuple[Client, RunTerms]:
        """Open the connection of a new run.

        Raises:
            TaskbridgeError: There is nothing to submit, or the vendor would take none of it.
            OSError: None of the files exists, as in a mistyped folder.
        """
        if self.operation is None or not self.sources:
            raise ConfigError(
                f"there is no run in {printable(str(self.folder), 300)} to resume; name an operation and files"
            )
        client, terms = self._connect(self.connection, self.operation, self.options, self.neutral)
        _check_inputs(client, self.sources)
        if not any(is_url(source) or os.path.lexists(source) for source in self.sources):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.sources[0])
        return client, terms

    def reconnect(self, known: RunTerms) -> tuple[Client, RunTerms]:
        """Open the connection of a stored run.

        Raises:
            TaskbridgeError: The run does not fit what was asked for, or the connection cannot be used.
        """
        folder = printable(str(self.folder), 300)
        given = {
            "operation": (self.operation, known.operation),
            "connection": (self.connection, known.connection),
            "neutral option": (dict(self.neutral) or None, known.neutral),
            "options": (dict(self.options) or None, known.options),
        }
        for name, (now, then) in given.items():
            if now is not None and now != then:
                raise ConfigError(
                    f"the run in {folder} is for another {name} ({printable(str(then), 100)}); take another folder"
                )
        client, terms = self._connect(known.connection, known.operation, known.options, known.neutral)
        if not set(known.provider.split(", ")) <= set(terms.provider.split(", ")):
            raise ConfigError(
                f"the run in {folder} is for {known.provider}, but connection {known.connection!r} now uses "
                f"{terms.provider}"
            )
        return client, terms

    def _connect(
        self, connection: str | None, operation: str, options: Mapping[str, Any], neutral: Mapping[str, Any]
    ) -> tuple[Client, RunTerms]:
        client = self.connect(connection)
        problem = client.can(operation, options=options, **neutral).error
        if problem is not None:
            raise problem
        vendors = client.members or (client,)
        for each in vendors:
            if self.max_cost is not None and not each.capabilities.usage:
                title = load_provider(each.provider).title
                raise UnsupportedFeature(
                    f"{title} does not say what a task costs, so a limit of the cost would never end the run",
                    provider=each.provider,
                    connection=each.name,
                )
        providers = ", ".join(dict.fromkeys(each.provider for each in vendors))
        return client, RunTerms(client.name, providers, operation, options, neutral)

    def compare(self, known: Sequence[RunFile], store_files: Iterable[Path] = ()) -> Comparison:
        """Compare the documents with the files that the run has.

        A document is a known file if it has its path. It is one under another path, too, if both paths lead to the same
        file; or if that file is no longer where it was, and the document has its name and its content, or its name
        alone if nothing was submitted of it yet.

        Args:
            known: The files of the run.
            store_files: What is no document although it may be among them.
        """
        folders = {each.folder.casefold() for each in known}
        sources = {each.source for each in known}
        given = set(self.sources)
        named: dict[str, list[RunFile]] = defaultdict(list)
        for each in known:
            if not is_url(each.source):
                named[os.path.basename(each.source)].append(each)  # noqa: PTH119  # a text, no path
        namesakes: dict[str, _Namesakes] = {}
        own = {path.name: path.parent for path in store_files}
        found = Comparison([], [], [])
        for source in self.sources:
            if source in sources:
                continue
            if not is_url(source):
                name = os.path.basename(source)  # noqa: PTH119  # as above
                if name in own and _is_one(own[name], Path(source).parent):
                    found.skipped.append(source)
                    continue
                if name in named and name not in namesakes:
                    namesakes[name] = _Namesakes(named[name])
                file = namesakes[name].take(source) if name in named else None
                if file is not None:
                    if file.source not in given:
                        found.moved.append(replace(file, source=source))
                    continue
            folder = _choose_folder(self.folder, _folder_name(source), folders)
            found.added.append(RunFile(len(known) + len(found.added) + 1, source, folder))
        return found


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a run gets, compared with the files that it has.

    Attributes:
        added: Files that it does not have.
        moved: Files that it has, which are at another path now.
        skipped: Paths of the store's own files.
    """

    added: list[RunFile]
    moved: list[RunFile]
    skipped: list[str]


def begin_run(run: StoredRun, plan: RunPlan, client: Client, terms: RunTerms) -> Sequence[str]:
    """Own the connection, if no other process does, and store all files of a run.

    Returns:
        Paths that are no documents, because they are files of the store.

    Raises:
        ConfigError: Another run works on the connection, or another process owns a member of the group; or the folders
            are not safe to write to.
        StoreUnavailable: The store cannot be used.
    """
    owned = run.own(each.name for each in client.members or (client,))
    if owned is not None and run.is_beside:
        raise ConfigError(f"{run.database.name} is in use by another run; wait for its end, or name another folder")
    if owned is not None and run.is_owned_by_run(owned):
        raise in_use(run, owned)
    if owned is not None and client.members:
        raise ConfigError(
            f"connection {owned!r} of the group {client.name!r} is in use by {run.owner_of(owned)}, which submits to "
            "single connections only; name one, or use another store"
        )
    known = run.files()
    check_folders(run.folder, known)
    if owned is None:  # else another process may be downloading into them
        for file in known:
            remove_temporary_files(run.folder / file.folder)
    found = plan.compare(known, run.store_files())
    run.begin(terms, found.added, found.moved)
    return found.skipped


def in_use(run: StoredRun, connection: str) -> ConfigError:
    """Return the error of a connection that another run owns: it would not submit the files of this one."""
    return ConfigError(
        f"connection {connection!r} is in use by another run on the store {run.database.name} "
        f"({run.owner_of(connection)}); wait for its end, or name another store"
    )


class _Namesakes:
    """The files of a run that have one name, among which a document is searched for that has another path."""

    def __init__(self, files: Iterable[RunFile]) -> None:
        self._present: dict[tuple[int, int], RunFile] = {}  # by device and inode
        self._gone: list[RunFile] = []  # not where they were
        for file in files:
            facts = _facts(file.source)
            if facts is None:
                self._gone.append(file)
            else:
                self._present[facts.st_dev, facts.st_ino] = file

    def take(self, source: str) -> RunFile | None:
        """Return which file a document is; each that is gone only once. None if it is another one."""
        facts = _facts(source)
        if facts is None or not stat.S_ISREG(facts.st_mode):
            return None
        present = self._present.get((facts.st_dev, facts.st_ino))
        # Two names (hard links) of one content are two documents.
        if present and (facts.st_nlink == 1 or os.path.realpath(present.source) == os.path.realpath(source)):
            return present
        submitted = self._with_content(source, facts.st_size)
        planned = [each for each in self._gone if each.submitted is None and each.phase is FilePhase.PLANNED]
        # The nearest one: documents of one name in several folders may have moved together.
        found = max(submitted or planned, key=lambda each: _common_end(each.source, source), default=None)
        if found is not None:
            self._gone.remove(found)
        return found

    def _with_content(self, source: str, size: int) -> list[RunFile]:
        alike = [each for each in self._gone if each.submitted is not None and each.submitted.size == size]
        try:
            digest = fingerprint(Path(source)).digest if alike else ""
        except OSError:
            return alike  # it cannot be submitted now anyway, and must not be submitted twice later
        return [each for each in alike if each.submitted is not None and each.submitted.digest == digest]


def _is_one(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def _facts(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116  # a text, no path
    except (OSError, ValueError):
        return None


def _common_end(first: str, second: str) -> int:
    """Return how many of their last names two paths have in common."""
    pairs = zip(reversed(Path(first).parts), reversed(Path(second).parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def check_folders(parent: Path, files: Sequence[RunFile]) -> None:
    """Check the folders for the results of files.

    Raises:
        ConfigError: One is a link to another place.
    """
    for file in files:
        folder = parent / file.folder
        if folder.is_symlink():
            raise ConfigError(f"{printable(str(folder), 300)} is a link to another folder; results are not saved there")


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
